//! `DIR/.weft/`: which workspace and device a folder belongs to, and nothing else.
//!
//! Invariant: the folder never holds keys or a database; folders live in clouds, repositories and backups. Another
//! device's marker, or our own one at a second place, means that the folder was copied.
//! Spec: docs/using.md#where-things-are.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use weft_agent_core::id::{DeviceId, WorkspaceId};

/// The folder's name.
pub(crate) const DIR: &str = ".weft";
const FILE: &str = "marker.toml";

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) workspace: WorkspaceId,
    pub(crate) device: DeviceId,
}

#[derive(Serialize, Deserialize)]
struct Text {
    workspace: String,
    device: String,
}

/// Reads the marker of a folder; `Ok(None)` if it has none, `InvalidData` if it is no marker's text.
pub(crate) fn read(root: &Path) -> io::Result<Option<Marker>> {
    let path = root.join(DIR).join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()));
    let text: Text = toml::from_str(&text).map_err(|_| damaged())?;
    let workspace = WorkspaceId::from_hex(&text.workspace).ok_or_else(damaged)?;
    let device = DeviceId::from_hex(&text.device).ok_or_else(damaged)?;
    Ok(Some(Marker { workspace, device }))
}

/// Writes it, with a `.gitignore` that keeps it out of repositories.
pub(crate) fn write(root: &Path, marker: &Marker) -> io::Result<()> {
    let dir = root.join(DIR);
    crate::durable::make_private_dir(&dir)?;
    crate::durable::replace(&dir.join(".gitignore"), b"*\n")?;
    let text = Text { workspace: marker.workspace.to_string(), device: marker.device.to_string() };
    let text = toml::to_string(&text).map_err(io::Error::other)?;
    let comment = "# This folder is kept in sync by weft. Keys and history are elsewhere; see `weft status`.\n";
    crate::durable::replace(&dir.join(FILE), format!("{comment}{text}").as_bytes())?;
    crate::durable::sync_dir(root)
}

/// Removes it; the files stay.
pub(crate) fn remove(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root.join(DIR)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written is read; git is told to stay away; removing leaves the files.
    #[test]
    fn round_trip() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let marker = Marker { workspace: WorkspaceId([1; 32]), device: DeviceId([2; 16]) };
        write(dir.path(), &marker).unwrap();
        fs::write(dir.path().join("note.md"), "x").unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(marker));
        assert_eq!(fs::read_to_string(dir.path().join(".weft/.gitignore")).unwrap(), "*\n");
        fs::write(dir.path().join(".weft/marker.toml"), "nonsense").unwrap();
        assert!(read(dir.path()).is_err());
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert!(dir.path().join("note.md").exists());
    }
}
