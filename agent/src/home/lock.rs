//! The locks beside the data: one agent a home, one agent a replica; and the note by which commands find that agent.
//!
//! The lock of a home is `agent.lock` in its data folder, held for the life of the agent. Its text names the process, the
//! host and the socket, so that `stop`, `status` and `doctor` find the agent whatever their environment says (`su`, `cron`,
//! a shell after the last logout). A replica has a lock of its own, for the case that two homes lead to one replica.
//!
//! Invariant: only `flock` decides whether an agent runs, never the text: a process id may be another process's by now,
//! and one of another container. The file is never removed, and a lock on a file that is no longer at its path is not
//! held. Why: two agents on one database enter every edit twice.
//! Spec: docs/using.md#where-things-are.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The text is padded to this, so that writing it anew needs no room on a full disk.
const TEXT_BYTES: usize = 1024;
/// A command that looks whether somebody holds the lock has it for a moment; whoever wants it tries again for so long.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// A lock that this process holds until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// Who holds a lock, as far as the text tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: Option<u32>,
    pub(crate) host: String,
    pub(crate) socket: Option<PathBuf>,
}

/// Why a lock is not held.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("held by {0}")]
    Held(Holder),
    #[error("{} cannot be locked ({why}); the agent's data must be on a file system that knows locks, where you may write", path.display())]
    Failed { path: PathBuf, why: io::Error },
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}")?,
            None => f.write_str("a process that is just starting")?,
        }
        if !self.host.is_empty() && self.host != this_host() {
            write!(f, " on {}", self.host)?;
        }
        Ok(())
    }
}

fn this_host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

impl Lock {
    /// Takes the lock at `path`, and says in it who has it.
    pub(crate) fn take(path: &Path) -> Result<Lock, LockError> {
        let failed = |why| LockError::Failed { path: path.to_path_buf(), why };
        let mut tries = 0;
        loop {
            let file = open(path).map_err(failed)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Somebody may have moved the file away since it was opened: then the next agent would find another one.
                Ok(()) if is_at(&file, path) => {
                    let mut lock = Lock { file };
                    lock.tell(None);
                    return Ok(lock);
                }
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) if tries >= TRIES => return Err(LockError::Held(read(&file))),
                Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(BETWEEN_TRIES),
                Err(error) => return Err(failed(error.into())),
            }
            tries += 1;
            if tries > 2 * TRIES {
                return Err(failed(io::Error::other("it is replaced again and again")));
            }
        }
    }

    /// Says where the agent answers. A full disk keeps it from saying so, not from running.
    pub(crate) fn tell(&mut self, socket: Option<&Path>) {
        let socket = socket.map(|path| format!("socket {}\n", path.display())).unwrap_or_default();
        let mut text = format!("pid {}\nhost {}\n{socket}", std::process::id(), this_host()).into_bytes();
        if text.len() < TEXT_BYTES {
            text.resize(TEXT_BYTES - 1, b' ');
            text.push(b'\n');
        }
        let written = self.file.rewind().and_then(|()| self.file.write_all(&text));
        if written.and_then(|()| self.file.set_len(text.len() as u64)).is_err() {
            // A half of a text would lead astray.
            let _tried = self.file.set_len(0);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    let (ours, there) = (file.metadata(), std::fs::metadata(path));
    matches!((ours, there), (Ok(ours), Ok(there)) if (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
}

fn read(file: &File) -> Holder {
    let mut text = String::new();
    let mut from_start = file;
    let read = from_start.rewind().and_then(|()| from_start.take(16 * TEXT_BYTES as u64).read_to_string(&mut text));
    if read.is_err() {
        return Holder::default();
    }
    let mut holder = Holder::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("pid", pid)) => holder.pid = pid.parse().ok(),
            Some(("host", host)) => holder.host = host.to_owned(),
            Some(("socket", socket)) => holder.socket = Some(PathBuf::from(socket)),
            Some(_) | None => {}
        }
    }
    holder
}

/// What the text at `path` says, whether or not the one who wrote it still runs.
pub(crate) fn said(path: &Path) -> Option<Holder> {
    File::open(path).ok().map(|file| read(&file))
}

/// Who holds the lock at `path`; `None`: nobody.
pub(crate) fn holder(path: &Path) -> Option<Holder> {
    let file = File::open(path).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => Some(read(&file)),
        // Let go with the file.
        Ok(()) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One at a time: the second is told who has it and where that answers, and gets it once the first is gone.
    #[test]
    fn one_at_a_time_and_the_other_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.lock");
        assert_eq!(holder(&path), None);
        let mut first = Lock::take(&path).unwrap();
        first.tell(Some(Path::new("/run/some where/agent.sock")));
        let Err(LockError::Held(named)) = Lock::take(&path) else { panic!("two hold one lock") };
        assert_eq!(named.pid, Some(std::process::id()));
        assert_eq!(named.socket.as_deref(), Some(Path::new("/run/some where/agent.sock")));
        assert_eq!(holder(&path), Some(named));
        drop(first);
        assert_eq!(holder(&path), None);
        Lock::take(&path).unwrap();
    }

    /// What a dead process left says nothing, even if its number is that of a process that runs now.
    #[test]
    fn a_stale_text_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.lock");
        std::fs::write(&path, format!("pid {}\nhost here\nsocket /gone\n", std::process::id())).unwrap();
        assert_eq!(holder(&path), None);
        let lock = Lock::take(&path).unwrap();
        assert_eq!(holder(&path).unwrap().socket, None, "the socket of the dead one is not offered");
        drop(lock);
        std::fs::write(&path, b"\xff\x00 no text").unwrap();
        Lock::take(&path).unwrap();
    }

    /// A lock on a file that was moved away is nobody's.
    #[test]
    fn a_moved_lock_is_not_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.lock");
        let _first = Lock::take(&path).unwrap();
        std::fs::rename(&path, dir.path().join("away")).unwrap();
        let _second = Lock::take(&path).unwrap();
        assert!(matches!(Lock::take(&path), Err(LockError::Held(_))));
    }
}
