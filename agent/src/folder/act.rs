//! Doing in the folder what the core asks: compare, write aside, exchange, look at what came out.
//!
//! Invariant: nothing that the core did not expect is ever overwritten or removed. The content that an exchange brings
//! out is hashed after the exchange; if it is not what was expected it is put back, and the core is told what is there.
//! An action is `Done` only when it survives a power cut: one by one each file and folder is synced; a bulk writes all
//! its files aside, syncs once, exchanges, syncs once more.
//! Spec: docs/files.md#writing.

use std::fs::File;
use std::io::{self, Write as _};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use weft_agent_core::disk::{Expect, FolderAction, NewContent, Outcome, RelPath, Seen, Stat};
use weft_agent_core::id::{VersionHash, WorkspaceId};
use weft_agent_core::store::Read;

use super::at;
use super::ignore::{EXCHANGED_PREFIX, TEMP_PREFIX};
use super::known::{self, Known};
use super::look::{self, Looked, Rows};
use crate::blob;

/// From so many writes on, files are synced together.
const BULK_FROM: usize = 8;

/// How an action ended, with what is to be remembered of each path it touched (`None`: forget it).
pub(crate) struct Acted {
    pub(crate) outcome: Outcome,
    pub(crate) remember: Vec<(RelPath, Option<Known>)>,
}

impl Acted {
    fn done(stat: Stat, remember: Vec<(RelPath, Option<Known>)>) -> Acted {
        Acted { outcome: Outcome::Done(stat), remember }
    }
    fn failed(error: &io::Error) -> Acted {
        Acted { outcome: Outcome::Failed(error.to_string()), remember: Vec::new() }
    }
}

/// A file that is written aside and waits for its exchange.
struct Aside {
    dir: OwnedFd,
    temp: String,
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _mostly_gone = rustix::fs::unlinkat(&self.dir, self.temp.as_str(), AtFlags::empty());
    }
}

/// Acts in one folder.
pub(crate) struct Actor<'a> {
    pub(crate) root: &'a OwnedFd,
    pub(crate) workspace: WorkspaceId,
    /// Where pieces of large files are read.
    pub(crate) pieces: &'a dyn Read,
    /// Between comparing and exchanging; tests let an edit land there.
    #[cfg(test)]
    pub(crate) before_exchange: Option<&'a dyn Fn()>,
}

impl Actor<'_> {
    /// Does actions in order; gives as many outcomes.
    pub(crate) fn act(&self, actions: &[FolderAction], rows: &mut Rows<'_>) -> Vec<Acted> {
        let bulk = actions.iter().filter(|action| matches!(action, FolderAction::Write { .. })).count() >= BULK_FROM;
        if !bulk {
            return actions.iter().map(|action| self.one(action, None, true, rows)).collect();
        }
        // Everything is written aside and synced together before the first exchange shows any of it.
        let asides: Vec<Option<io::Result<Aside>>> = actions
            .iter()
            .map(|action| match action {
                FolderAction::Write { path, content, hash, executable, expect } => {
                    Some(self.write_aside(path, content, hash, *executable, expect, false))
                }
                FolderAction::MakeFolder { .. }
                | FolderAction::Move { .. }
                | FolderAction::Remove { .. }
                | FolderAction::SetExecutable { .. } => None,
            })
            .collect();
        if let Err(error) = self.sync_all() {
            return actions.iter().map(|_| Acted::failed(&error)).collect();
        }
        let ended: Vec<Acted> =
            actions.iter().zip(asides).map(|(action, aside)| self.one(action, aside, false, rows)).collect();
        if let Err(error) = self.sync_all() {
            return ended
                .into_iter()
                .map(|acted| Acted { remember: acted.remember, ..Acted::failed(&error) })
                .collect();
        }
        ended
    }

    #[cfg(target_os = "linux")]
    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(self.root)?)
    }
    #[cfg(not(target_os = "linux"))]
    fn sync_all(&self) -> io::Result<()> {
        rustix::fs::sync();
        Ok(())
    }

    fn one(&self, action: &FolderAction, aside: Option<io::Result<Aside>>, sync: bool, rows: &mut Rows<'_>) -> Acted {
        let result = match action {
            FolderAction::MakeFolder { path } => at::make_folder(self.root, path)
                .map(|_| Acted::done(Stat::default(), vec![(path.clone(), Some(Known::Folder))])),
            FolderAction::Write { path, expect, content, hash, executable } => aside
                .unwrap_or_else(|| self.write_aside(path, content, hash, *executable, expect, sync))
                .and_then(|aside| self.exchange(aside, path, expect, content, hash, *executable, sync, rows)),
            FolderAction::Move { from, to, expect } => self.shift(from, to, expect, sync, rows),
            FolderAction::Remove { path, expect, .. } => self.remove(path, expect, sync, rows),
            FolderAction::SetExecutable { path, executable } => self.set_executable(path, *executable),
        };
        result.unwrap_or_else(|error| Acted::failed(&error))
    }

    /// What is at a path now, as the answer to a wrong expectation.
    fn differs(&self, path: &RelPath, rows: &mut Rows<'_>) -> io::Result<Acted> {
        match look::look(self.root, &self.workspace, path, rows)? {
            Looked::Found { found, known, .. } => Ok(Acted {
                outcome: Outcome::Differs(Seen { path: path.clone(), found, opened_since_write: None }),
                remember: vec![(path.clone(), known)],
            }),
            Looked::Busy => Err(io::Error::other("another program is writing the file")),
            Looked::NotCarried => Err(io::Error::other("something that cannot be carried is in the way; move it")),
        }
    }

    fn is_as_expected(&self, dir: &OwnedFd, name: &str, expect: &Expect) -> io::Result<bool> {
        let meta = at::meta(dir, name)?;
        Ok(match (expect, meta.map(|meta| meta.kind)) {
            (Expect::Absent, None) | (Expect::Folder, Some(FileType::Directory)) => true,
            (Expect::File(hash), Some(FileType::RegularFile)) => {
                look::hash_file(dir, &self.workspace, name)?.as_ref() == Some(hash)
            }
            (Expect::Symlink(target), Some(FileType::Symlink)) => at::read_link(dir, name)?.as_ref() == Some(target),
            _ => false,
        })
    }

    fn write_aside(
        &self,
        path: &RelPath,
        content: &NewContent,
        hash: &VersionHash,
        executable: bool,
        expect: &Expect,
        sync: bool,
    ) -> io::Result<Aside> {
        // Never made in passing: a folder that is not there was moved or deleted a moment ago, and with it goes this file.
        let dir = at::open_parent(self.root, path)?;
        let temp = format!("{TEMP_PREFIX}{:016x}", u64::from_le_bytes(crate::engine::random()));
        let aside = Aside { dir, temp };
        if let NewContent::Symlink(target) = content {
            rustix::fs::symlinkat(target.as_str(), &aside.dir, aside.temp.as_str())?;
            return Ok(aside);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let bits = if executable { 0o777 } else { 0o666 };
        let fd = rustix::fs::openat(&aside.dir, aside.temp.as_str(), flags, Mode::from_raw_mode(bits))?;
        // A file that is replaced keeps its own permissions, but for the bit that travels.
        if matches!(expect, Expect::File(_))
            && let Some(meta) = at::meta(&aside.dir, path.name())?.filter(|meta| meta.kind == FileType::RegularFile)
        {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(with_bit(meta.mode & 0o777, executable)))?;
        }
        let mut file = File::from(fd);
        match content {
            NewContent::Bytes(bytes) => file.write_all(bytes)?,
            NewContent::Blob(manifest) => {
                let written = blob::join(&self.workspace, manifest, self.pieces, &mut file)?;
                if written != *hash {
                    return Err(io::Error::other("the pieces of this file do not make the content that was announced"));
                }
            }
            NewContent::Symlink(_) => {}
        }
        if sync {
            file.sync_all()?;
        }
        Ok(aside)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one action and nothing else")]
    fn exchange(
        &self,
        mut aside: Aside,
        path: &RelPath,
        expect: &Expect,
        content: &NewContent,
        hash: &VersionHash,
        executable: bool,
        sync: bool,
        rows: &mut Rows<'_>,
    ) -> io::Result<Acted> {
        let name = path.name();
        if !self.is_as_expected(&aside.dir, name, expect)? {
            return self.differs(path, rows);
        }
        if matches!(expect, Expect::File(_) | Expect::Symlink(_)) {
            // After a crash this name says that a person's edit may be in it.
            let marked = aside.temp.replacen(TEMP_PREFIX, EXCHANGED_PREFIX, 1);
            rustix::fs::renameat(&aside.dir, aside.temp.as_str(), &aside.dir, marked.as_str())?;
            aside.temp = marked;
        }
        let dir = &aside.dir;
        #[cfg(test)]
        if let Some(edit) = self.before_exchange {
            edit();
        }
        match expect {
            Expect::Absent => match rename(dir, &aside.temp, dir, name, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => return self.differs(path, rows),
                result => result?,
            },
            Expect::Folder => {
                match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                    Err(Errno::NOTEMPTY | Errno::EXIST) => {
                        return Err(io::Error::other("a folder that is not empty is in the way of a file"));
                    }
                    result => result?,
                }
                match rename(dir, &aside.temp, dir, name, RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => return self.differs(path, rows),
                    result => result?,
                }
            }
            Expect::File(_) | Expect::Symlink(_) => {
                match rename(dir, &aside.temp, dir, name, RenameFlags::EXCHANGE) {
                    Ok(()) => {
                        if !self.is_as_expected(dir, &aside.temp, expect)? {
                            self.put_back(&aside, name, content, hash)?;
                            return self.differs(path, rows);
                        }
                    }
                    Err(Errno::NOENT) => return self.differs(path, rows),
                    // A file system that cannot exchange: the moment between comparing and renaming stays.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                        rustix::fs::renameat(dir, aside.temp.as_str(), dir, name)?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if sync {
            rustix::fs::fsync(dir)?;
        }
        let meta = at::meta(dir, name)?;
        let stat = meta.as_ref().map_or_else(Stat::default, |meta| meta.stat);
        let racy = known::is_racy(&stat, known::now_ns());
        let known = match content {
            NewContent::Symlink(target) => Known::Symlink(target.clone()),
            NewContent::Bytes(_) | NewContent::Blob(_) => {
                Known::File { hash: *hash, executable: Some(executable), stat: (!racy).then_some(stat) }
            }
        };
        Ok(Acted::done(stat, vec![(path.clone(), Some(known))]))
    }

    /// A fresh edit came out of the exchange: it goes back. If yet another one landed on ours meanwhile, both stay.
    fn put_back(&self, aside: &Aside, name: &str, content: &NewContent, hash: &VersionHash) -> io::Result<()> {
        rename(&aside.dir, &aside.temp, &aside.dir, name, RenameFlags::EXCHANGE)?;
        let ours = match content {
            NewContent::Symlink(target) => Expect::Symlink(target.clone()),
            NewContent::Bytes(_) | NewContent::Blob(_) => Expect::File(*hash),
        };
        if self.is_as_expected(&aside.dir, &aside.temp, &ours)? {
            return Ok(());
        }
        let saved = format!("{name}.weft-saved-{:08x}", u32::from_le_bytes(crate::engine::random()));
        Ok(rename(&aside.dir, &aside.temp, &aside.dir, &saved, RenameFlags::NOREPLACE)?)
    }

    fn shift(
        &self,
        from: &RelPath,
        to: &RelPath,
        expect: &Expect,
        sync: bool,
        rows: &mut Rows<'_>,
    ) -> io::Result<Acted> {
        let source = match at::open_parent(self.root, from) {
            Ok(dir) => dir,
            Err(error) if look::is_absence(&error) => return self.differs(from, rows),
            Err(error) => return Err(error),
        };
        if !self.is_as_expected(&source, from.name(), expect)? {
            return self.differs(from, rows);
        }
        let target = at::open_parent(self.root, to)?;
        match rename(&source, from.name(), &target, to.name(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => return Err(io::Error::other("something else is where this is to be moved")),
            Err(Errno::NOENT) => return self.differs(from, rows),
            result => result?,
        }
        if sync {
            rustix::fs::fsync(&target)?;
            rustix::fs::fsync(&source)?;
        }
        let stat = at::meta(&target, to.name())?.map_or_else(Stat::default, |meta| meta.stat);
        // Neither stat nor bit is trusted: a change that landed just before the move is found at the next look.
        let known = match expect {
            Expect::File(hash) => Some(Known::File { hash: *hash, executable: None, stat: None }),
            Expect::Symlink(target) => Some(Known::Symlink(target.clone())),
            Expect::Folder => Some(Known::Folder),
            Expect::Absent => None,
        };
        Ok(Acted::done(stat, vec![(from.clone(), None), (to.clone(), known)]))
    }

    fn remove(&self, path: &RelPath, expect: &Expect, sync: bool, rows: &mut Rows<'_>) -> io::Result<Acted> {
        let gone = || Acted::done(Stat::default(), vec![(path.clone(), None)]);
        let dir = match at::open_parent(self.root, path) {
            Ok(dir) => dir,
            Err(error) if look::is_absence(&error) => return Ok(gone()),
            Err(error) => return Err(error),
        };
        if at::meta(&dir, path.name())?.is_none() {
            return Ok(gone());
        }
        if !self.is_as_expected(&dir, path.name(), expect)? {
            return self.differs(path, rows);
        }
        if matches!(expect, Expect::Folder) {
            return match rustix::fs::unlinkat(&dir, path.name(), AtFlags::REMOVEDIR) {
                // It holds something that is not shared: it stays.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    Ok(Acted::done(Stat::default(), vec![(path.clone(), Some(Known::Folder))]))
                }
                Ok(()) | Err(Errno::NOENT) => Ok(gone()),
                Err(error) => Err(error.into()),
            };
        }
        #[cfg(test)]
        if let Some(edit) = self.before_exchange {
            edit();
        }
        // Taken aside first, so that what is removed is what was hashed.
        let aside = Aside {
            dir: dir.try_clone()?,
            temp: format!("{EXCHANGED_PREFIX}{:016x}", u64::from_le_bytes(crate::engine::random())),
        };
        match rustix::fs::renameat(&dir, path.name(), &dir, aside.temp.as_str()) {
            Err(Errno::NOENT) => return Ok(gone()),
            result => result?,
        }
        if !self.is_as_expected(&dir, &aside.temp, expect)? {
            match rename(&dir, &aside.temp, &dir, path.name(), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {
                    let saved =
                        format!("{}.weft-saved-{:08x}", path.name(), u32::from_le_bytes(crate::engine::random()));
                    rename(&dir, &aside.temp, &dir, &saved, RenameFlags::NOREPLACE)?;
                }
                result => result?,
            }
            return self.differs(path, rows);
        }
        drop(aside);
        if sync {
            rustix::fs::fsync(&dir)?;
        }
        Ok(gone())
    }

    fn set_executable(&self, path: &RelPath, executable: bool) -> io::Result<Acted> {
        let dir = at::open_parent(self.root, path)?;
        let (file, meta) = at::open_file(&dir, path.name())?;
        if meta.kind != FileType::RegularFile {
            return Err(io::Error::other("not a file"));
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(with_bit(meta.mode & 0o777, executable)))?;
        file.sync_all()?;
        let stat = at::meta_of(&rustix::fs::fstat(&file)?).stat;
        Ok(Acted::done(stat, Vec::new()))
    }
}

/// Whoever may read may also execute, or nobody may.
fn with_bit(mode: u32, executable: bool) -> u32 {
    if executable { mode | ((mode & 0o444) >> 2) } else { mode & !0o111 }
}

/// Renames with flags; where a file system has no flags, `NOREPLACE` becomes link and unlink.
fn rename(from: &OwnedFd, old: &str, to: &OwnedFd, new: &str, flags: RenameFlags) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, old, to, new, flags) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if flags == RenameFlags::NOREPLACE => {
            match rustix::fs::linkat(from, old, to, new, AtFlags::empty()) {
                Ok(()) => rustix::fs::unlinkat(from, old, AtFlags::empty()),
                // A folder, or no hard links either: look, then rename.
                Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => {
                    match rustix::fs::statat(to, new, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(_) => Err(Errno::EXIST),
                        Err(Errno::NOENT) => rustix::fs::renameat(from, old, to, new),
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            }
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::fs;
    use weft_agent_core::disk::{FileBytes, Found, Removal};
    use weft_agent_core::store::{MemoryStore, Write};

    fn collect(into: &mut Vec<Write>) -> impl FnMut(Vec<Write>) -> bool + '_ {
        |rows| {
            into.extend(rows);
            true
        }
    }

    const W: WorkspaceId = WorkspaceId([3; 32]);

    struct World {
        dir: tempfile::TempDir,
        root: OwnedFd,
        pieces: MemoryStore,
    }
    impl World {
        fn new() -> World {
            let dir = tempfile::tempdir().unwrap();
            World { root: at::open_root(dir.path()).unwrap(), dir, pieces: MemoryStore::default() }
        }
        fn file(&self, path: &str) -> String {
            fs::read_to_string(self.dir.path().join(path)).unwrap()
        }
        fn act(&self, action: FolderAction, edit: Option<&dyn Fn()>) -> Outcome {
            let actor = Actor { root: &self.root, workspace: W, pieces: &self.pieces, before_exchange: edit };
            let mut rows = Vec::new();
            let outcome = actor.act(&[action], &mut collect(&mut rows)).remove(0).outcome;
            let litter = fs::read_dir(self.dir.path()).unwrap().flatten();
            let litter: Vec<_> = litter.filter(|e| e.file_name().to_string_lossy().starts_with(TEMP_PREFIX)).collect();
            assert!(litter.is_empty(), "no unfinished write is left: {litter:?}");
            outcome
        }
    }
    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }
    fn hash(text: &str) -> VersionHash {
        blob::version_hash(&W, text.as_bytes())
    }
    fn write(at: &str, expect: Expect, text: &'static str) -> FolderAction {
        let content = NewContent::Bytes(Bytes::from_static(text.as_bytes()));
        FolderAction::Write { path: path(at), expect, content, hash: hash(text), executable: false }
    }
    fn shown(outcome: &Outcome) -> Option<&[u8]> {
        let Outcome::Differs(Seen { found: Found::File { bytes: FileBytes::Here(bytes), .. }, .. }) = outcome else {
            return None;
        };
        Some(bytes)
    }

    /// What was expected is replaced, and keeps its permissions. A folder that is gone is not made again in passing.
    #[test]
    fn writes_what_was_expected() {
        use std::os::unix::fs::PermissionsExt;
        let world = World::new();
        assert!(matches!(world.act(write("a/b/n.md", Expect::Absent, "one"), None), Outcome::Failed(_)));
        assert!(!world.dir.path().join("a").exists());
        fs::create_dir_all(world.dir.path().join("a/b")).unwrap();
        assert!(matches!(world.act(write("a/b/n.md", Expect::Absent, "one"), None), Outcome::Done(_)));
        let file = world.dir.path().join("a/b/n.md");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let Outcome::Done(stat) = world.act(write("a/b/n.md", Expect::File(hash("one")), "two!"), None) else {
            panic!()
        };
        assert_eq!((world.file("a/b/n.md").as_str(), stat.size), ("two!", 4));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    }

    /// Anything else at the path is left as it is and reported, also when something came where nothing was expected.
    #[test]
    fn never_overwrites_what_was_not_expected() {
        let world = World::new();
        fs::write(world.dir.path().join("n.md"), "theirs").unwrap();
        for expect in [Expect::Absent, Expect::File(hash("base")), Expect::Symlink("x".into())] {
            let outcome = world.act(write("n.md", expect, "ours"), None);
            assert_eq!(shown(&outcome), Some(&b"theirs"[..]), "{outcome:?}");
            assert_eq!(world.file("n.md"), "theirs");
        }
    }

    /// An edit that lands between the look and the exchange, in place or by rename, survives and is reported.
    #[test]
    fn an_edit_between_look_and_write_survives() {
        let world = World::new();
        let file = world.dir.path().join("n.md");
        let in_place = || fs::write(&file, "fresh").unwrap();
        let aside = world.dir.path().join("editor");
        let by_rename = || {
            fs::write(&aside, "fresh").unwrap();
            fs::rename(&aside, &file).unwrap();
        };
        for edit in [&in_place as &dyn Fn(), &by_rename] {
            fs::write(&file, "base").unwrap();
            let outcome = world.act(write("n.md", Expect::File(hash("base")), "ours"), Some(edit));
            assert_eq!(shown(&outcome), Some(&b"fresh"[..]), "{outcome:?}");
            assert_eq!(world.file("n.md"), "fresh");
            fs::write(&file, "base").unwrap();
            let remove =
                FolderAction::Remove { path: path("n.md"), expect: Expect::File(hash("base")), why: Removal::Deleted };
            assert_eq!(shown(&world.act(remove, Some(edit))), Some(&b"fresh"[..]));
            assert_eq!(world.file("n.md"), "fresh");
        }
        fs::remove_file(&file).unwrap();
        let outcome = world.act(write("n.md", Expect::Absent, "ours"), Some(&in_place));
        assert_eq!(shown(&outcome), Some(&b"fresh"[..]));
        assert_eq!(world.file("n.md"), "fresh");
    }

    /// A link inside the folder never leads a write, a move or a removal out of it.
    #[test]
    fn links_are_never_followed_out() {
        let world = World::new();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.path(), world.dir.path().join("out")).unwrap();
        assert!(matches!(world.act(write("out/new", Expect::Absent, "x"), None), Outcome::Failed(_)));
        let remove = FolderAction::Remove {
            path: path("out/secret"),
            expect: Expect::File(hash("secret")),
            why: Removal::Deleted,
        };
        world.act(remove, None);
        let shift =
            FolderAction::Move { from: path("out/secret"), to: path("in"), expect: Expect::File(hash("secret")) };
        assert!(!matches!(world.act(shift, None), Outcome::Done(_)));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    /// Moves, removals, links and the execute bit do what they say, and what is done already is done.
    #[test]
    fn the_other_actions() {
        let world = World::new();
        let root = world.dir.path();
        fs::write(root.join("a"), "A").unwrap();
        let shift = FolderAction::Move { from: path("a"), to: path("x/b"), expect: Expect::File(hash("A")) };
        assert!(matches!(world.act(shift.clone(), None), Outcome::Failed(_)));
        let inside = FolderAction::MakeFolder { path: path("x/in") };
        assert!(matches!(world.act(inside, None), Outcome::Failed(_)), "none is made in passing");
        let make = FolderAction::MakeFolder { path: path("x") };
        assert!(matches!(world.act(make.clone(), None), Outcome::Done(_)));
        assert!(matches!(world.act(make, None), Outcome::Done(_)));
        assert!(matches!(world.act(shift.clone(), None), Outcome::Done(_)));
        assert_eq!(world.file("x/b"), "A");
        assert!(matches!(world.act(shift, None), Outcome::Differs(_)));
        let bit = FolderAction::SetExecutable { path: path("x/b"), executable: true };
        assert!(matches!(world.act(bit, None), Outcome::Done(_)));
        use std::os::unix::fs::PermissionsExt;
        assert_ne!(fs::metadata(root.join("x/b")).unwrap().permissions().mode() & 0o100, 0);
        let keep = FolderAction::Remove { path: path("x"), expect: Expect::Folder, why: Removal::Deleted };
        assert!(matches!(world.act(keep.clone(), None), Outcome::Done(_)));
        assert!(root.join("x/b").exists(), "a folder that is not empty stays");
        let remove = FolderAction::Remove { path: path("x/b"), expect: Expect::File(hash("A")), why: Removal::Deleted };
        assert!(matches!(world.act(remove.clone(), None), Outcome::Done(_)));
        assert!(matches!(world.act(remove, None), Outcome::Done(_)));
        assert!(matches!(world.act(keep, None), Outcome::Done(_)));
        assert!(!root.join("x").exists());
        let link = FolderAction::Write {
            path: path("l"),
            expect: Expect::Absent,
            content: NewContent::Symlink("over/there".into()),
            hash: hash("over/there"),
            executable: false,
        };
        assert!(matches!(world.act(link, None), Outcome::Done(_)));
        assert_eq!(fs::read_link(root.join("l")).unwrap().to_str(), Some("over/there"));
    }

    /// A bulk of writes does each of them, and one wrong expectation hurts none of the others.
    #[test]
    fn a_bulk_is_as_careful() {
        let world = World::new();
        fs::write(world.dir.path().join("f3"), "theirs").unwrap();
        let actions: Vec<_> = (0..20).map(|n| write(&format!("f{n}"), Expect::Absent, "bulk")).collect();
        let actor = Actor { root: &world.root, workspace: W, pieces: &world.pieces, before_exchange: None };
        let mut rows = Vec::new();
        let ended = actor.act(&actions, &mut collect(&mut rows));
        for (n, acted) in ended.iter().enumerate() {
            assert_eq!(matches!(acted.outcome, Outcome::Differs(_)), n == 3);
        }
        assert_eq!((world.file("f3").as_str(), world.file("f19").as_str()), ("theirs", "bulk"));
    }
}
