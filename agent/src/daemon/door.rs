//! The socket that commands come to, and the word in the lock file that leads them there.
//!
//! Invariant: while the agent runs, the lock file names a socket on which it listens. Why: cleaners of temporary folders,
//! and people, remove sockets; an agent that nobody can reach could only be killed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use tokio::net::UnixListener;

use crate::home::lock::Lock;
use crate::home::{Home, own_private};

/// Where commands come in.
pub(super) struct Door {
    pub(super) listener: UnixListener,
    socket: PathBuf,
    inode: u64,
    home: Home,
    lock: Lock,
}

impl Door {
    /// Listens beside the data; where no socket can be made there, in a short folder of `/tmp`.
    pub(super) fn open(home: &Home, mut lock: Lock) -> std::io::Result<Door> {
        let (listener, socket, inode) = listen(home)?;
        lock.tell(Some(&socket));
        Ok(Door { listener, socket, inode, home: home.clone(), lock })
    }

    /// Listens anew if the socket is gone or is another one.
    pub(super) fn mend(&mut self) {
        let there = std::fs::symlink_metadata(&self.socket).is_ok_and(|meta| meta.ino() == self.inode);
        if there {
            return;
        }
        match listen(&self.home) {
            Ok((listener, socket, inode)) => {
                tracing::warn!("the agent's socket was removed; it is made again");
                self.lock.tell(Some(&socket));
                (self.listener, self.socket, self.inode) = (listener, socket, inode);
            }
            Err(error) => tracing::debug!(%error, "the agent's socket is gone and cannot be made again"),
        }
    }

    /// Takes no more; gives the lock, which is held until everything has ended.
    pub(super) fn close(self) -> Lock {
        let _gone = std::fs::remove_file(&self.socket);
        self.lock
    }
}

fn listen(home: &Home) -> std::io::Result<(UnixListener, PathBuf, u64)> {
    let (right, short) = (home.socket(), home.short_socket());
    bind(right.clone()).or_else(|error| if right == short { Err(error) } else { bind(short).map_err(|_| error) })
}

fn bind(socket: PathBuf) -> std::io::Result<(UnixListener, PathBuf, u64)> {
    if let Some(dir) = socket.parent() {
        own_private(dir)?;
    }
    // We hold the lock: whoever made a socket here is gone.
    let _stale = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    let inode = std::fs::symlink_metadata(&socket)?.ino();
    Ok((listener, socket, inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A socket that was removed is made again at the next look, and the lock file always leads to one that answers.
    #[tokio::test]
    async fn a_removed_socket_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&dir.path().join("h"))).unwrap();
        home.prepare().unwrap();
        let lock = Lock::take(&home.lock_file()).unwrap();
        let mut door = Door::open(&home, lock).unwrap();
        let answers = || {
            let said = crate::home::lock::holder(&home.lock_file()).unwrap().socket.unwrap();
            std::os::unix::net::UnixStream::connect(said).is_ok()
        };
        assert!(answers());
        std::fs::remove_file(home.socket()).unwrap();
        assert!(!answers());
        door.mend();
        assert!(answers());
        drop(door.close());
        assert!(!home.socket().exists());
    }

    /// A path that is too long for a socket beside the data leads to one in a short place.
    #[tokio::test]
    async fn a_long_home_gets_a_short_socket() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&dir.path().join("x".repeat(150)))).unwrap();
        home.prepare().unwrap();
        let door = Door::open(&home, Lock::take(&home.lock_file()).unwrap()).unwrap();
        let said = crate::home::lock::holder(&home.lock_file()).unwrap().socket.unwrap();
        assert!(said.starts_with("/tmp") && said != Path::new("/tmp") && said.exists());
        drop(door.close());
        std::fs::remove_dir(said.parent().unwrap()).unwrap();
    }
}
