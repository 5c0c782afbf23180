//! Where the agent keeps its things: by XDG, or all below one folder given by `WEFT_HOME` or `--home`.
//!
//! Invariant: everything is private to its owner (folders 0700, secrets 0600), and two homes never share a socket, a
//! lock or a database, so that several agents can live on one machine. Lock and socket follow the data: whoever finds the
//! data finds the agent that has it, whatever else differs in the environment.
//! Spec: docs/using.md#where-things-are.

pub(crate) mod identity;
pub(crate) mod lock;
pub(crate) mod registry;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use weft_agent_core::id::WorkspaceId;

use crate::durable;

/// Longest path a Unix socket can have on every system we know is 103 bytes and a NUL.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Why there is no usable home.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    #[error("neither HOME nor WEFT_HOME is set: say where the agent may keep its data, for example with --home DIR")]
    NoHome,
    #[error("{} cannot be used: {why}", path.display())]
    Unusable { path: PathBuf, why: String },
}

/// The folders of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// What people call it: the folder of `WEFT_HOME`, or the data folder.
    pub(crate) shown: PathBuf,
    /// Whether it was given by `WEFT_HOME` or `--home`, and so must be given to a daemon too.
    pub(crate) moved: bool,
    config: PathBuf,
    data: PathBuf,
    state: PathBuf,
}

impl Home {
    /// From `--home`, else the environment.
    pub(crate) fn resolve(flag: Option<&Path>) -> Result<Home, HomeError> {
        Self::resolve_with(flag, &|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn resolve_with(flag: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Home, HomeError> {
        if let Some(root) = flag.map(Path::to_path_buf).or_else(|| env("WEFT_HOME").map(PathBuf::from)) {
            let root = std::path::absolute(&root)
                .map_err(|error| HomeError::Unusable { path: root.clone(), why: error.to_string() })?;
            return Ok(Home {
                config: root.join("config"),
                data: root.join("data"),
                state: root.join("state"),
                shown: root,
                moved: true,
            });
        }
        let home = env("HOME").map(PathBuf::from).ok_or(HomeError::NoHome)?;
        // The XDG specification: a path that is not absolute is to be ignored.
        let xdg = |name: &str, default: &str| {
            let given = env(name).map(PathBuf::from).filter(|path| path.is_absolute());
            given.unwrap_or_else(|| home.join(default)).join("weft")
        };
        let state = xdg("XDG_STATE_HOME", ".local/state");
        let data = xdg("XDG_DATA_HOME", ".local/share");
        Ok(Home { config: xdg("XDG_CONFIG_HOME", ".config"), shown: data.clone(), moved: false, data, state })
    }

    /// Creates the folders, and refuses one that belongs to somebody else.
    pub(crate) fn prepare(&self) -> Result<(), HomeError> {
        for path in [&self.config, &self.data, &self.state] {
            own_private(path).map_err(|error| HomeError::Unusable { path: path.clone(), why: error.to_string() })?;
        }
        Ok(())
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }
    pub(crate) fn identity_file(&self) -> PathBuf {
        self.config.join("identity")
    }
    /// The keys of a device that another one is about to let in; they become the identity then.
    pub(crate) fn pairing_file(&self) -> PathBuf {
        self.config.join("identity.pairing")
    }
    /// Who is logged in at a server of accounts; no secrets.
    pub(crate) fn account_file(&self) -> PathBuf {
        self.config.join("account.json")
    }
    /// What members' accounts said when they were last asked; no secrets.
    pub(crate) fn seen_accounts_file(&self) -> PathBuf {
        self.data.join("accounts.json")
    }
    /// What relays may know of us; no secrets.
    pub(crate) fn relays_file(&self) -> PathBuf {
        self.config.join("relays.json")
    }
    /// Secrets that others gave us, where there is no keychain.
    pub(crate) fn secrets_dir(&self) -> PathBuf {
        self.config.join("secrets")
    }
    /// Beside the config and outside the database's folder: a restored database must not bring its watermark along.
    pub(crate) fn watermark_file(&self, workspace: &WorkspaceId) -> PathBuf {
        self.config.join("watermarks").join(workspace.to_string())
    }
    pub(crate) fn registry_file(&self) -> PathBuf {
        self.data.join("workspaces.json")
    }
    pub(crate) fn replica_dir(&self, workspace: &WorkspaceId) -> PathBuf {
        self.data.join(workspace.to_string())
    }
    pub(crate) fn log_file(&self) -> PathBuf {
        self.state.join("agent.log")
    }
    /// The lock of the agent that has the data, and where that agent answers.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.data.join("agent.lock")
    }

    /// The daemon's socket: beside the data, or in a short folder of `/tmp` when that is too long for a Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        let beside = self.data.join("agent.sock");
        if beside.as_os_str().len() <= SOCKET_PATH_BYTES_MAX { beside } else { self.short_socket() }
    }

    /// Where the socket is if it cannot be beside the data: too long a path, or a file system without sockets.
    pub(crate) fn short_socket(&self) -> PathBuf {
        let hash = blake3::hash(self.data.as_os_str().as_bytes()).to_hex();
        let short: String = hash.chars().take(16).collect();
        Path::new("/tmp").join(format!("weft-{}-{short}", rustix::process::getuid().as_raw())).join("agent.sock")
    }
}

/// Creates a folder for its owner only; one that is there must be ours and is closed to others.
pub(crate) fn own_private(path: &Path) -> io::Result<()> {
    durable::make_private_dir(path)?;
    let meta = std::fs::symlink_metadata(path)?;
    let followed = std::fs::metadata(path)?;
    if !followed.is_dir() {
        return Err(io::Error::other("it is not a folder"));
    }
    if followed.uid() != rustix::process::getuid().as_raw() {
        return Err(io::Error::other("it belongs to another user; give another place with --home DIR"));
    }
    if !meta.is_symlink() && followed.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without any setting the XDG defaults hold; a relative XDG path is ignored as the specification says.
    #[test]
    fn xdg_defaults_and_overrides() {
        let env = |name: &str| match name {
            "HOME" => Some(OsString::from("/home/ann")),
            "XDG_CONFIG_HOME" => Some(OsString::from("relative")),
            "XDG_DATA_HOME" => Some(OsString::from("/data")),
            _ => None,
        };
        let home = Home::resolve_with(None, &env).unwrap();
        assert_eq!(home.config_file(), Path::new("/home/ann/.config/weft/config.toml"));
        assert_eq!(home.registry_file(), Path::new("/data/weft/workspaces.json"));
        assert_eq!(home.log_file(), Path::new("/home/ann/.local/state/weft/agent.log"));
        assert!(!home.moved);
        assert!(matches!(Home::resolve_with(None, &|_| None), Err(HomeError::NoHome)));
    }

    /// `--home` beats `WEFT_HOME` and moves everything; a path too long for a socket gets a short one of its own.
    #[test]
    fn a_moved_home_and_a_long_one() {
        let env = |name: &str| (name == "WEFT_HOME").then(|| OsString::from("/w"));
        assert_eq!(Home::resolve_with(None, &env).unwrap().socket(), Path::new("/w/data/agent.sock"));
        let long = PathBuf::from(format!("/{}", "x".repeat(120)));
        let other = PathBuf::from(format!("/{}", "y".repeat(120)));
        let home = Home::resolve_with(Some(&long), &env).unwrap();
        assert!(home.socket().as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        assert_ne!(home.socket(), Home::resolve_with(Some(&other), &env).unwrap().socket());
    }

    /// Lock and socket are where the data is, whatever `XDG_RUNTIME_DIR` says.
    #[test]
    fn lock_and_socket_follow_the_data() {
        let with = |runtime: Option<&'static str>| {
            let env = move |name: &str| match name {
                "HOME" => Some(OsString::from("/home/ann")),
                "XDG_RUNTIME_DIR" => runtime.map(OsString::from),
                _ => None,
            };
            let home = Home::resolve_with(None, &env).unwrap();
            (home.lock_file(), home.socket())
        };
        assert_eq!(with(Some("/tmp")), with(None));
        assert_eq!(with(None).0, Path::new("/home/ann/.local/share/weft/agent.lock"));
    }

    /// The watermark never lies inside the replica's folder.
    #[test]
    fn the_watermark_is_outside_the_database() {
        let home = Home::resolve_with(Some(Path::new("/w")), &|_| None).unwrap();
        let workspace = WorkspaceId([7; 32]);
        assert!(!home.watermark_file(&workspace).starts_with(home.replica_dir(&workspace)));
    }
}
