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
use weft_agent_core::disk::{Expect, FolderAction, NAME_BYTES_MAX, NewContent, Outcome, RelPath, Seen, Stat};
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
    /// What was replaced and is still there under a name of ours.
    pub(crate) replaced: Option<Replaced>,
}

/// What a write replaced, or a removal took away, under a name of ours in the same folder.
#[derive(Debug, Clone)]
pub(crate) struct Replaced {
    pub(crate) folder: Option<RelPath>,
    pub(crate) name: String,
    /// Where it was.
    pub(crate) of: RelPath,
    /// What the core knows that it held; `None`: it is a link.
    pub(crate) content: Option<VersionHash>,
    /// Its stat when it held that.
    pub(crate) stat: Stat,
}

impl Replaced {
    /// Where it is now.
    pub(crate) fn path(&self) -> Option<RelPath> {
        self.folder.as_ref().map_or_else(|| RelPath::new(&self.name), |folder| folder.join(&self.name))
    }
}

impl Acted {
    fn done(stat: Stat, remember: Vec<(RelPath, Option<Known>)>) -> Acted {
        Acted { outcome: Outcome::Done(stat), remember, replaced: None }
    }
    pub(crate) fn failed(error: &io::Error) -> Acted {
        Acted { outcome: Outcome::Failed(error.to_string()), remember: Vec::new(), replaced: None }
    }
}

/// A file that is written aside and waits for its exchange. It is removed with this, as long as it is `ours`: what an
/// exchange brought out may be the only copy of a person's edit, and no failed step may end in an unlink of that.
struct Aside {
    dir: OwnedFd,
    temp: String,
    ours: bool,
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.ours {
            let _mostly_gone = rustix::fs::unlinkat(&self.dir, self.temp.as_str(), AtFlags::empty());
        }
    }
}

/// The name that the file at `name` gets by an exchange with what makes `leaves` of it: found again after a crash.
pub(crate) fn exchanged_name(name: &str, leaves: &VersionHash) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(leaves.as_bytes()).update(name.as_bytes());
    format!("{EXCHANGED_PREFIX}{}", hasher.finalize().to_hex().get(..16).unwrap_or_default())
}

/// A name beside `name`, for what must not be lost and has no other place; short enough, whatever `name` is.
pub(crate) fn saved_name(name: &str) -> String {
    let suffix = format!(".weft-saved-{:08x}", u32::from_le_bytes(crate::engine::random()));
    let room = NAME_BYTES_MAX - suffix.len();
    let end = (0..=room.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{suffix}", name.get(..end).unwrap_or_default())
}

/// Acts in one folder.
pub(crate) struct Actor<'a> {
    pub(crate) root: &'a OwnedFd,
    pub(crate) workspace: WorkspaceId,
    /// Where pieces of large files are read.
    pub(crate) pieces: &'a dyn Read,
    /// The execute bit of a file that the core was told of, if it was.
    pub(crate) bit: &'a dyn Fn(&RelPath) -> Option<bool>,
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
                .map(|acted| Acted { outcome: Outcome::Failed(error.to_string()), ..acted })
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
                outcome: Outcome::Differs(Seen::new(path.clone(), found)),
                remember: vec![(path.clone(), known)],
                replaced: None,
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
        let aside = Aside { dir, temp, ours: true };
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
            copy_attributes(&aside.dir, path.name(), &fd);
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
        // Nor is a bit that a person has just set or cleared, and that the core was not told of, overwritten.
        let told = (self.bit)(path).filter(|_| matches!(expect, Expect::File(_)));
        let is_other = |name: &str| -> io::Result<bool> {
            let meta = at::meta(&aside.dir, name)?;
            Ok(told.zip(meta).is_some_and(|(told, meta)| told != (meta.mode & 0o100 != 0)))
        };
        if is_other(name)? {
            return self.differs(path, rows);
        }
        let mut replaced = None;
        if matches!(expect, Expect::File(_) | Expect::Symlink(_)) {
            // After a crash this name says that a person's edit may be in it, and to what the write belongs.
            let mut marked = exchanged_name(name, hash);
            if at::meta(&aside.dir, &marked)?.is_some() {
                marked = format!("{marked}-{:08x}", u32::from_le_bytes(crate::engine::random()));
            }
            rename(&aside.dir, &aside.temp, &aside.dir, &marked, RenameFlags::NOREPLACE)?;
            aside.temp = marked;
        }
        #[cfg(test)]
        if let Some(edit) = self.before_exchange {
            edit();
        }
        match expect {
            Expect::Absent => match rename(&aside.dir, &aside.temp, &aside.dir, name, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => return self.differs(path, rows),
                result => result?,
            },
            Expect::Folder => {
                match rustix::fs::unlinkat(&aside.dir, name, AtFlags::REMOVEDIR) {
                    Err(Errno::NOTEMPTY | Errno::EXIST) => {
                        return Err(io::Error::other("a folder that is not empty is in the way of a file"));
                    }
                    result => result?,
                }
                match rename(&aside.dir, &aside.temp, &aside.dir, name, RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => return self.differs(path, rows),
                    result => result?,
                }
            }
            Expect::File(_) | Expect::Symlink(_) => {
                match rename(&aside.dir, &aside.temp, &aside.dir, name, RenameFlags::EXCHANGE) {
                    Ok(()) => {
                        aside.ours = false;
                        let (is_as_expected, stat) = self.brought_out(&aside, expect);
                        if !is_as_expected && self.put_back(&mut aside, name, content, hash).is_ok() {
                            return self.differs(path, rows);
                        }
                        replaced = Some(of(path, &aside.temp, expect, stat));
                    }
                    Err(Errno::NOENT) => return self.differs(path, rows),
                    Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                        replaced = self.replace_without_exchange(&aside, path, expect)?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let dir = &aside.dir;
        if let (Some(told), Some(replaced)) = (told, &replaced)
            && at::meta(dir, &replaced.name)?.is_some_and(|meta| told != (meta.mode & 0o100 != 0))
        {
            // In the last moment: it goes on to what is there now, and the next look tells of it.
            self.set_executable(path, !told)?;
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
                // The one that the core believes in; another one on the disk is told at the next look.
                Known::File {
                    hash: *hash,
                    executable: Some(executable),
                    inode: stat.inode,
                    stat: (!racy).then_some(stat),
                }
            }
        };
        Ok(Acted { replaced, ..Acted::done(stat, vec![(path.clone(), Some(known))]) })
    }

    /// Whether what an exchange or a removal brought out is what was expected, and its stat from before that was read. What
    /// cannot be read is not what was expected.
    fn brought_out(&self, aside: &Aside, expect: &Expect) -> (bool, Stat) {
        let stat = at::meta(&aside.dir, &aside.temp).ok().flatten().map_or_else(Stat::default, |meta| meta.stat);
        let is_as_expected = self.is_as_expected(&aside.dir, &aside.temp, expect).unwrap_or(false);
        // What is so young may have been written to again within one tick of the clock that its times come from.
        let written = Stat { ctime_ns: 0, ..stat };
        let stat = if known::is_racy(&written, known::now_ns()) { Stat { mtime_ns: 0, ..stat } } else { stat };
        (is_as_expected, if is_as_expected { stat } else { Stat::default() })
    }

    /// A file system that cannot exchange: what is replaced gets a second name first, where there are any. The moment between
    /// comparing and renaming stays, but an edit that lands in it is kept by that name.
    fn replace_without_exchange(&self, aside: &Aside, path: &RelPath, expect: &Expect) -> io::Result<Option<Replaced>> {
        let second = format!("{}-{:08x}", aside.temp, u32::from_le_bytes(crate::engine::random()));
        let linked = rustix::fs::linkat(&aside.dir, path.name(), &aside.dir, second.as_str(), AtFlags::empty()).is_ok();
        let mut kept = Aside { dir: aside.dir.try_clone()?, temp: second, ours: linked };
        rustix::fs::renameat(&aside.dir, aside.temp.as_str(), &aside.dir, path.name())?;
        if !linked {
            return Ok(None);
        }
        kept.ours = false;
        let (_, stat) = self.brought_out(&kept, expect);
        Ok(Some(of(path, &kept.temp, expect, stat)))
    }

    /// A fresh edit came out of the exchange: it goes back. If yet another one landed on ours meanwhile, both stay. An error:
    /// it is still aside.
    fn put_back(&self, aside: &mut Aside, name: &str, content: &NewContent, hash: &VersionHash) -> io::Result<()> {
        rename(&aside.dir, &aside.temp, &aside.dir, name, RenameFlags::EXCHANGE)?;
        let ours = match content {
            NewContent::Symlink(target) => Expect::Symlink(target.clone()),
            NewContent::Bytes(_) | NewContent::Blob(_) => Expect::File(*hash),
        };
        if self.is_as_expected(&aside.dir, &aside.temp, &ours).unwrap_or(false) {
            aside.ours = true;
        } else {
            // Should that fail, it keeps the name that it has: the next look at everything finds it and names it.
            let _kept = rename(&aside.dir, &aside.temp, &aside.dir, &saved_name(name), RenameFlags::NOREPLACE);
        }
        Ok(())
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
            Expect::File(hash) => Some(Known::File { hash: *hash, executable: None, inode: stat.inode, stat: None }),
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
            ours: false,
        };
        match rustix::fs::renameat(&dir, path.name(), &dir, aside.temp.as_str()) {
            Err(Errno::NOENT) => return Ok(gone()),
            result => result?,
        }
        let (is_as_expected, stat) = self.brought_out(&aside, expect);
        if !is_as_expected {
            match rename(&dir, &aside.temp, &dir, path.name(), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => rename(&dir, &aside.temp, &dir, &saved_name(path.name()), RenameFlags::NOREPLACE)?,
                result => result?,
            }
            return self.differs(path, rows);
        }
        if sync {
            rustix::fs::fsync(&dir)?;
        }
        Ok(Acted { replaced: Some(of(path, &aside.temp, expect, stat)), ..gone() })
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

/// Longest attribute that is kept, and longest list of them; Linux allows 64 KiB.
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;

/// Extended attributes, access lists among them, stay with the file at this path as far as the system lets us set them. They
/// do not travel.
#[cfg(target_os = "linux")]
fn copy_attributes(dir: &OwnedFd, name: &str, to: &OwnedFd) {
    let Ok((from, _)) = at::open_file(dir, name) else { return };
    let mut list = vec![0u8; ATTRIBUTE_BYTES_MAX];
    let Ok(len) = rustix::fs::flistxattr(&from, list.as_mut_slice()) else { return };
    let mut value = vec![0u8; ATTRIBUTE_BYTES_MAX];
    for attribute in list.get(..len).unwrap_or_default().split(|byte| *byte == 0).filter(|one| !one.is_empty()) {
        if let Ok(len) = rustix::fs::fgetxattr(&from, attribute, value.as_mut_slice()) {
            let bytes = value.get(..len).unwrap_or_default();
            let _as_far_as_allowed = rustix::fs::fsetxattr(to, attribute, bytes, rustix::fs::XattrFlags::empty());
        }
    }
}
#[cfg(not(target_os = "linux"))]
fn copy_attributes(_dir: &OwnedFd, _name: &str, _to: &OwnedFd) {}

/// Whoever may read may also execute, or nobody may.
fn with_bit(mode: u32, executable: bool) -> u32 {
    if executable { mode | ((mode & 0o444) >> 2) } else { mode & !0o111 }
}

/// What was at a path and has this name now.
fn of(path: &RelPath, name: &str, expect: &Expect, stat: Stat) -> Replaced {
    let content = match expect {
        Expect::File(hash) => Some(*hash),
        Expect::Symlink(_) | Expect::Absent | Expect::Folder => None,
    };
    Replaced { folder: path.parent(), name: name.to_owned(), of: path.clone(), content, stat }
}

/// Renames with flags; where a file system has no flags, `NOREPLACE` becomes link and unlink.
pub(crate) fn rename(from: &OwnedFd, old: &str, to: &OwnedFd, new: &str, flags: RenameFlags) -> Result<(), Errno> {
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
            let actor =
                Actor { root: &self.root, workspace: W, pieces: &self.pieces, bit: &|_| None, before_exchange: edit };
            let mut rows = Vec::new();
            let acted = actor.act(&[action], &mut collect(&mut rows)).remove(0);
            if let Some(replaced) = acted.replaced {
                fs::remove_file(self.dir.path().join(replaced.path().unwrap().as_str())).unwrap();
            }
            let outcome = acted.outcome;
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

    /// An execute bit that the core was not told of is not overwritten: it is told, or, set in the last moment, goes on to the
    /// new content.
    #[test]
    fn an_execute_bit_survives_a_write() {
        use std::os::unix::fs::PermissionsExt;
        let world = World::new();
        let file = world.dir.path().join("run.sh");
        let set = || fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        for before in [true, false] {
            let _earlier = fs::remove_file(&file);
            fs::write(&file, "base").unwrap();
            let hook: Option<&dyn Fn()> = if before { None } else { Some(&set) };
            if before {
                set();
            }
            let bit = |_: &RelPath| Some(false);
            let (root, pieces) = (&world.root, &world.pieces);
            let actor = Actor { root, workspace: W, pieces, bit: &bit, before_exchange: hook };
            let action = write("run.sh", Expect::File(hash("base")), "ours");
            let acted = actor.act(&[action], &mut |_| true).remove(0);
            let seen =
                matches!(&acted.outcome, Outcome::Differs(Seen { found: Found::File { executable: true, .. }, .. }));
            assert_eq!(seen, before);
            assert_eq!(world.file("run.sh"), if before { "base" } else { "ours" });
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o111, 0o111);
        }
    }

    /// What must not be lost gets a name that fits, whatever the file is called: one that was too long would be refused.
    #[test]
    fn saved_names_fit() {
        for name in ["n.md".to_owned(), "x".repeat(235), "x".repeat(255), "ü".repeat(127), "日".repeat(85)] {
            let saved = saved_name(&name);
            assert!(weft_agent_core::disk::is_name(&saved), "{} bytes", saved.len());
            assert!(saved.contains(".weft-saved-") && saved.starts_with(name.chars().next().unwrap()));
        }
    }

    /// What an exchange or a removal brought out is not ours to remove: it is still there, and known, until whoever asked for it
    /// lets it go; also with the longest names there are.
    #[test]
    fn what_was_replaced_is_kept() {
        let world = World::new();
        let name = "x".repeat(255);
        let file = world.dir.path().join(&name);
        let actor =
            Actor { root: &world.root, workspace: W, pieces: &world.pieces, bit: &|_| None, before_exchange: None };
        let remove =
            FolderAction::Remove { path: path(&name), expect: Expect::File(hash("base")), why: Removal::Deleted };
        for action in [write(&name, Expect::File(hash("base")), "ours"), remove] {
            fs::write(&file, "base").unwrap();
            let acted = actor.act(&[action], &mut |_| true).remove(0);
            assert!(matches!(acted.outcome, Outcome::Done(_)), "{:?}", acted.outcome);
            let replaced = acted.replaced.unwrap();
            assert_eq!((replaced.content, world.file(&replaced.name).as_str()), (Some(hash("base")), "base"));
        }
        assert!(!file.exists());
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
        let actor =
            Actor { root: &world.root, workspace: W, pieces: &world.pieces, bit: &|_| None, before_exchange: None };
        let mut rows = Vec::new();
        let ended = actor.act(&actions, &mut collect(&mut rows));
        for (n, acted) in ended.iter().enumerate() {
            assert_eq!(matches!(acted.outcome, Outcome::Differs(_)), n == 3);
        }
        assert_eq!((world.file("f3").as_str(), world.file("f19").as_str()), ("theirs", "bulk"));
    }
}
