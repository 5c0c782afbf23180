//! Waiting, within a bound, for programs that have a file open for writing.
//!
//! Invariant: nothing of others is held back longer than [`OPEN_WAIT`]; what the program writes after that is still taken in
//! ([`super::kept`]). Why wait at all: most programs are done in a moment, and then there is one file instead of two.
//! Spec: docs/files.md#open-files.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::AtFlags;
use weft_agent_core::disk::{Expect, FolderAction, RelPath};

use super::at;
use super::writers::{self, FileId};

/// So long a write waits for a program that has the file open for writing.
const OPEN_WAIT: Duration = Duration::from_secs(3);
/// What was waited for so long ago has nothing to do with what is open now.
const FORGET: Duration = Duration::from_secs(60);
/// Said of a write that waits.
pub(crate) const WHY: &str = "another program has it open for writing; waiting for that program";

/// Since when each write waits.
#[derive(Default)]
pub(crate) struct Patience {
    since: BTreeMap<RelPath, Instant>,
}

impl Patience {
    /// The paths of these actions that are to wait.
    pub(crate) fn held_back(&mut self, root: &OwnedFd, actions: &[&FolderAction], now: Instant) -> BTreeSet<RelPath> {
        self.since.retain(|_, since| now.saturating_duration_since(*since) < FORGET);
        let mut ids: BTreeMap<FileId, RelPath> = BTreeMap::new();
        for action in actions {
            let (FolderAction::Write { path, expect: Expect::File(_), .. }
            | FolderAction::Remove { path, expect: Expect::File(_), .. }) = action
            else {
                continue;
            };
            let Ok(dir) = at::open_parent(root, path) else { continue };
            if let Ok(stat) = rustix::fs::statat(&dir, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
                ids.insert((stat.st_dev, stat.st_ino), path.clone());
            }
        }
        let open = writers::find(&ids.keys().copied().collect());
        let mut held = BTreeSet::new();
        for (id, path) in ids {
            if !open.contains_key(&id) {
                self.since.remove(&path);
            } else if now.saturating_duration_since(*self.since.entry(path.clone()).or_insert(now)) < OPEN_WAIT {
                held.insert(path);
            }
        }
        held
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::process::{Command, Stdio};
    use weft_agent_core::disk::NewContent;
    use weft_agent_core::id::VersionHash;

    /// A write waits for a program that has the file open for writing, within the bound; a write of a new file never does.
    #[test]
    fn a_write_waits_within_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), "").unwrap();
        let mut program = Command::new("sh")
            .args(["-c", "exec 3>>\"$0\"; echo ready; read end"])
            .arg(dir.path().join("log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(program.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
        let (root, path, hash) =
            (at::open_root(dir.path()).unwrap(), RelPath::new("log").unwrap(), VersionHash([0; 32]));
        let write = |expect| {
            let content = NewContent::Bytes(Bytes::new());
            FolderAction::Write { path: path.clone(), expect, content, hash, executable: false }
        };
        let (mut patience, start) = (Patience::default(), Instant::now());
        let held = |patience: &mut Patience, expect, after: Duration| {
            !patience.held_back(&root, &[&write(expect)], start + after).is_empty()
        };
        assert!(!held(&mut patience, Expect::Absent, Duration::ZERO));
        assert!(held(&mut patience, Expect::File(hash), Duration::ZERO));
        assert!(held(&mut patience, Expect::File(hash), OPEN_WAIT / 2));
        assert!(!held(&mut patience, Expect::File(hash), OPEN_WAIT));
        drop(program.stdin.take());
        program.wait().unwrap();
        assert!(!held(&mut patience, Expect::File(hash), Duration::ZERO));
    }
}
