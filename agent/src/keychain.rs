//! Where secrets that others gave us are kept: the system's keychain if there is one, else a file for its owner only.
//!
//! Invariant: a secret is in one of the two places, never in both, and never anywhere else; a keychain that does not
//! answer (locked, headless, broken) costs a few seconds once and then the file is used.
//! Why not the identity: losing that loses the member, and keychains are lost with logins.
//! Spec: docs/using.md#relays-that-ask-who-you-are.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::durable;

/// A keychain that is there answers in milliseconds; one that asks its owner for a password may take as long as they do.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// What the keychain lists our secrets under.
const SERVICE: &str = "weft";

/// Where a secret ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    System,
    File,
}

/// The secrets of one home.
pub(crate) struct Keychain {
    folder: PathBuf,
    /// Tells the homes of one person apart.
    home: String,
    system: Arc<AtomicBool>,
}

impl Keychain {
    /// `system`: whether the system's keychain may be used at all.
    pub(crate) fn new(folder: PathBuf, system: bool) -> Keychain {
        let home = folder.display().to_string();
        Keychain { folder, home, system: Arc::new(AtomicBool::new(system && session_bus())) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs `work` on the system's keychain; `None` if there is none.
    fn ask_system<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(keyring::Entry) -> keyring::Result<T> + Send + 'static,
    ) -> Option<keyring::Result<T>> {
        if !self.system.load(Ordering::Relaxed) {
            return None;
        }
        let user = format!("{}: {name}", self.home);
        let (sender, answer) = mpsc::channel();
        // On a thread of its own: a keychain that waits for somebody who is not there must not hold the agent.
        std::thread::spawn(move || {
            let _late = sender.send(keyring::Entry::new(SERVICE, &user).and_then(work));
        });
        match answer.recv_timeout(ANSWER_MAX) {
            Ok(Err(keyring::Error::NoDefaultStore | keyring::Error::NoStorageAccess(_))) | Err(_) => {
                tracing::info!("no keychain answers here; secrets are kept in files for their owner only");
                self.system.store(false, Ordering::Relaxed);
                None
            }
            Ok(answer) => Some(answer),
        }
    }

    /// A secret, if it is kept. Blocks.
    pub(crate) fn get(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let path = self.file(name);
        if let Some(bytes) = durable::read_if_there(&path)? {
            if std::fs::metadata(&path)?.permissions().mode() & 0o077 != 0 {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
                tracing::warn!("a file of secrets was readable by others; it is closed to them now");
            }
            return Ok(Some(Zeroizing::new(bytes)));
        }
        match self.ask_system(name, |entry| entry.get_secret()) {
            Some(Ok(bytes)) => Ok(Some(Zeroizing::new(bytes))),
            Some(Err(keyring::Error::NoEntry)) | None => Ok(None),
            Some(Err(error)) => Err(io::Error::other(format!("the system's keychain: {error}"))),
        }
    }

    /// Keeps a secret, durably. Blocks.
    pub(crate) fn set(&self, name: &str, secret: &[u8]) -> io::Result<Place> {
        let copy = Zeroizing::new(secret.to_vec());
        match self.ask_system(name, move |entry| entry.set_secret(&copy)) {
            Some(Ok(())) => {
                remove(&self.file(name))?;
                Ok(Place::System)
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the keychain does not take a secret; it is kept in a file");
                durable::replace(&self.file(name), secret)?;
                Ok(Place::File)
            }
            None => {
                durable::replace(&self.file(name), secret)?;
                Ok(Place::File)
            }
        }
    }

    /// Forgets a secret, wherever it is. Blocks.
    pub(crate) fn forget(&self, name: &str) -> io::Result<()> {
        remove(&self.file(name))?;
        match self.ask_system(name, |entry| entry.delete_credential()) {
            Some(Err(error)) if !matches!(error, keyring::Error::NoEntry) => {
                Err(io::Error::other(format!("the system's keychain: {error}")))
            }
            _ => Ok(()),
        }
    }
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a session bus can be there at all: without one the keychain of Linux cannot be asked, and asking would start one.
fn session_bus() -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("DBUS_SESSION_BUS_ADDRESS").is_some()
        || set("XDG_RUNTIME_DIR").is_some_and(|dir| std::path::Path::new(&dir).join("bus").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a keychain, a secret is in a file for its owner only, comes back whole, and is gone once it is forgotten.
    #[test]
    fn files_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let keychain = Keychain::new(dir.path().join("secrets"), false);
        assert!(keychain.get("account").unwrap().is_none());
        assert_eq!(keychain.set("account", b"s3cret").unwrap(), Place::File);
        let path = dir.path().join("secrets/account");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(keychain.get("account").unwrap().unwrap().as_slice(), b"s3cret");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        keychain.forget("account").unwrap();
        keychain.forget("account").unwrap();
        assert!(keychain.get("account").unwrap().is_none() && !path.exists());
    }
}
