//! Whether the root is there as it was: the difference between "deleted" and "gone".
//!
//! Invariant: no absence is reported while [`Guard::check`] fails. Why: an unplugged disk, a lost mount or a cloud
//! folder that was emptied must never become deletes on every machine. A folder that lost its marker and is certainly the
//! same, or holds what is known, gets it again; an empty one, or one that holds other things, does not.
//! Spec: docs/files.md#the-folder-itself.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::at;
use super::known::Paths;
use super::marker::{self, Marker};
use super::place::{self, Place};

/// A marker that is gone is made again after this time: whoever removes a whole folder may have begun with the marker.
const MARKER_GONE: Duration = Duration::from_secs(2);
/// Neighbours that are looked at for a folder that is gone from its path.
const NEIGHBOURS_MAX: usize = 512;

/// What the root was when we saw it last.
pub(crate) struct Guard {
    root: PathBuf,
    marker: Marker,
    /// The replica's own folder.
    replica: PathBuf,
    last: Option<Place>,
    /// The device of this run.
    seen: Option<Place>,
    marker_gone_since: Option<Instant>,
}

impl Guard {
    pub(crate) fn new(root: &Path, marker: Marker, replica: &Path) -> Guard {
        let last = place::last(replica);
        let (root, replica) = (root.to_path_buf(), replica.to_path_buf());
        Guard { root, marker, replica, last, seen: None, marker_gone_since: None }
    }

    /// A sentence about what is wrong, if anything is. `known`: what the folder held when it was well.
    pub(crate) fn check(&mut self, known: &Paths) -> Result<(), String> {
        self.check_at(known, Instant::now())
    }

    fn check_at(&mut self, known: &Paths, now: Instant) -> Result<(), String> {
        let shown = self.root.display().to_string();
        let meta: Metadata = fs::metadata(&self.root).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                self.gone()
            } else {
                format!("{shown} cannot be read: {error}")
            }
        })?;
        if !meta.is_dir() {
            return Err(format!("{shown} is no folder any more; put the folder back"));
        }
        let here = Place::of(&meta);
        match marker::read(&self.root) {
            Ok(Some(found)) if found == self.marker => self.marker_gone_since = None,
            Ok(Some(_)) => {
                return Err(format!("{shown} now belongs to another workspace or device; put the right folder back"));
            }
            Ok(None) => self.without_marker(&here, known, now)?,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => self.without_marker(&here, known, now)?,
            Err(error) => return Err(format!("{shown}: its marker cannot be read: {error}")),
        }
        let elsewhere = self.seen.as_ref().is_some_and(|seen| !seen.is_on_device_of(&here) && !seen.is(&here));
        if elsewhere && !self.holds(known) {
            return Err(format!(
                "{shown} is on another file system than before, and does not hold what it held; mount the right one. If this \
                 one is meant, restart the agent (weft stop, weft start)"
            ));
        }
        fs::read_dir(&self.root).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        if self.last.as_ref() != Some(&here) && place::keep(&self.replica, &here).is_ok() {
            self.last = Some(here.clone());
        }
        self.seen = Some(here);
        Ok(())
    }

    /// The marker is gone, or is no text of ours: made again in the folder that it was in.
    fn without_marker(&mut self, here: &Place, known: &Paths, now: Instant) -> Result<(), String> {
        let shown = self.root.display();
        if fs::read_dir(&self.root).is_ok_and(|mut entries| entries.next().is_none()) {
            return Err(format!("{shown} is empty (a disk that is not mounted?); mount it or put the files back"));
        }
        let is_same = self.last.as_ref().is_some_and(|last| last.is(here));
        if !is_same && !self.holds(known) {
            return Err(format!(
                "{shown} has no .weft folder, and does not hold what this workspace held; put the right folder back, or say \
                 where it is now: weft move {} NEW",
                quoted(&self.root)
            ));
        }
        let since = *self.marker_gone_since.get_or_insert(now);
        if now.saturating_duration_since(since) < MARKER_GONE {
            return Err(format!("{shown} lost its .weft folder; it is made again in a moment, if the folder stays"));
        }
        marker::write(&self.root, &self.marker)
            .map_err(|error| format!("{shown} lost its .weft folder, which cannot be made again: {error}"))?;
        tracing::warn!("a folder lost its marker; it is the same folder, so the marker was made again");
        self.marker_gone_since = None;
        Ok(())
    }

    fn holds(&self, known: &Paths) -> bool {
        let samples = place::samples(known);
        at::open_root(&self.root).is_ok_and(|root| place::holds(&root, &self.marker.workspace, &samples))
    }

    fn gone(&self) -> String {
        let shown = self.root.display();
        match self.neighbour() {
            Some(now) => {
                format!("{shown} is gone, and is {} now. To go on there: weft move {}", now.display(), quoted(&now))
            }
            None => format!(
                "{shown} is gone; put it back (mount its disk?), say where it is now (weft move {} NEW), or run `weft leave` if \
                 it is meant to be gone",
                quoted(&self.root)
            ),
        }
    }

    /// The folder under another name beside where it was.
    fn neighbour(&self) -> Option<PathBuf> {
        let beside = fs::read_dir(self.root.parent()?).ok()?;
        let mut folders = beside.take(NEIGHBOURS_MAX).flatten().map(|entry| entry.path());
        folders.find(|path| marker::read(path).is_ok_and(|found| found.as_ref() == Some(&self.marker)))
    }
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::known::Known;
    use weft_agent_core::disk::RelPath;
    use weft_agent_core::id::{DeviceId, WorkspaceId};

    const LATER: Duration = Duration::from_secs(60);

    struct World {
        dir: tempfile::TempDir,
        root: PathBuf,
        mark: Marker,
        known: Paths,
    }
    impl World {
        /// A folder with a marker and two files that are known.
        fn new() -> World {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("my notes");
            let mark = Marker { workspace: WorkspaceId([1; 32]), device: DeviceId([2; 16]) };
            fs::create_dir_all(dir.path().join("replica")).unwrap();
            fs::create_dir(&root).unwrap();
            marker::write(&root, &mark).unwrap();
            let mut known = Paths::new();
            for name in ["a.md", "b.md"] {
                fs::write(root.join(name), name).unwrap();
                let hash = crate::blob::version_hash(&mark.workspace, name.as_bytes());
                known.insert(RelPath::new(name).unwrap(), Known::File { hash, executable: None, inode: 0, stat: None });
            }
            World { dir, root, mark, known }
        }
        fn guard(&self) -> Guard {
            Guard::new(&self.root, self.mark.clone(), &self.dir.path().join("replica"))
        }
        fn fill(&self) {
            fs::write(self.root.join("a.md"), "a.md").unwrap();
            fs::write(self.root.join("b.md"), "b.md").unwrap();
        }
    }

    /// A root that vanished, was emptied, or is another folder is named as such; put back, it is well again.
    #[test]
    fn a_lost_root_is_named() {
        let World { dir, root, mark, known } = &World::new();
        let mut guard = Guard::new(root, mark.clone(), &dir.path().join("replica"));
        guard.check(known).unwrap();
        fs::rename(root, dir.path().join("away")).unwrap();
        let gone = guard.check(known).unwrap_err();
        assert!(
            gone.contains("is gone") && gone.ends_with(&format!("weft move {}/away", dir.path().display())),
            "{gone}"
        );
        fs::create_dir(root).unwrap();
        assert!(guard.check(known).unwrap_err().contains("is empty"));
        fs::write(root.join("x"), "").unwrap();
        for _ in 0..2 {
            let foreign = guard.check_at(known, Instant::now() + LATER).unwrap_err();
            assert!(foreign.contains("has no .weft folder"), "{foreign}");
        }
        marker::write(root, &Marker { workspace: WorkspaceId([9; 32]), ..mark.clone() }).unwrap();
        assert!(guard.check(known).unwrap_err().contains("another workspace"));
        fs::remove_dir_all(root).unwrap();
        fs::rename(dir.path().join("away"), root).unwrap();
        guard.check(known).unwrap();
    }

    /// The marker is removed, as `git clean` does, or damaged: made again in the same folder, but not at once; also by an
    /// agent that starts after it.
    #[test]
    fn a_marker_is_made_again_in_the_same_folder() {
        let world = World::new();
        let mut guard = world.guard();
        guard.check(&world.known).unwrap();
        for restarted in [false, true] {
            for damaged in [false, true] {
                marker::remove(&world.root).unwrap();
                if damaged {
                    fs::create_dir(world.root.join(".weft")).unwrap();
                    fs::write(world.root.join(".weft/marker.toml"), "").unwrap();
                }
                // Everything in it is other than known: it is the same folder all the same.
                fs::write(world.root.join("a.md"), "edited").unwrap();
                if restarted {
                    guard = world.guard();
                }
                let now = Instant::now();
                if Place::of(&fs::metadata(&world.root).unwrap()).is(world.guard().last.as_ref().unwrap()) {
                    assert!(guard.check_at(&world.known, now).is_err(), "it may be on its way out");
                    guard.check_at(&world.known, now + LATER).unwrap();
                    assert_eq!(marker::read(&world.root).unwrap(), Some(world.mark.clone()));
                } else {
                    world.fill();
                    let _first = guard.check_at(&world.known, now);
                    guard.check_at(&world.known, now + LATER).unwrap();
                }
            }
        }
    }

    /// A folder that was made anew with the same files, say cloned again, gets its marker; with other files it does not.
    #[test]
    fn a_folder_with_the_same_files_is_known_again() {
        let world = World::new();
        let mut guard = world.guard();
        guard.check(&world.known).unwrap();
        fs::remove_dir_all(&world.root).unwrap();
        fs::create_dir(&world.root).unwrap();
        fs::write(world.root.join("other"), "other").unwrap();
        let now = Instant::now();
        assert!(guard.check_at(&world.known, now).is_err());
        assert!(guard.check_at(&world.known, now + LATER).is_err());
        assert!(!world.root.join(".weft").exists(), "nothing is written into a foreign folder");
        world.fill();
        assert!(guard.check_at(&world.known, now + LATER).is_err());
        guard.check_at(&world.known, now + 2 * LATER).unwrap();
    }

    /// An agent that starts before the disk is mounted sees an empty folder on another device, which proves nothing about
    /// the one that comes.
    #[test]
    fn what_was_there_before_the_mount_is_forgotten() {
        let world = World::new();
        let away = world.dir.path().join("away");
        fs::rename(&world.root, &away).unwrap();
        fs::create_dir(&world.root).unwrap();
        let mut guard = world.guard();
        assert!(guard.check(&world.known).unwrap_err().contains("is empty"));
        assert_eq!(guard.seen, None);
        fs::remove_dir(&world.root).unwrap();
        fs::rename(&away, &world.root).unwrap();
        guard.check(&world.known).unwrap();
    }

    /// Within one run another file system at the path must hold what was there.
    #[test]
    fn another_file_system_must_hold_what_was_there() {
        let world = World::new();
        let mut guard = world.guard();
        guard.check(&world.known).unwrap();
        let other = serde_json::from_str(r#"{"device": 0, "inode": 0, "born_ns": 1}"#).unwrap();
        guard.seen = Some(other);
        guard.check(&world.known).unwrap();
        let other = serde_json::from_str(r#"{"device": 0, "inode": 0, "born_ns": 1}"#).unwrap();
        guard.seen = Some(other);
        fs::write(world.root.join("a.md"), "of last year").unwrap();
        fs::write(world.root.join("b.md"), "of last year").unwrap();
        assert!(guard.check(&world.known).unwrap_err().contains("another file system"));
    }

    /// What a sentence tells people to type is one word to a shell.
    #[test]
    fn paths_are_quoted() {
        assert_eq!(quoted(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
