//! Whether the root is there as it was: the difference between "deleted" and "gone".
//!
//! Invariant: no absence is reported while [`Guard::check`] fails. Why: an unplugged disk, a lost mount or a cloud
//! folder that was emptied must never become deletes on every machine.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::marker::{self, Marker};

/// What the root was when we began.
pub(crate) struct Guard {
    root: PathBuf,
    marker: Marker,
    device: Option<u64>,
}

impl Guard {
    pub(crate) fn new(root: &Path, marker: Marker) -> Guard {
        Guard { root: root.to_path_buf(), marker, device: fs::metadata(root).ok().map(|meta| meta.dev()) }
    }

    /// A sentence about what is wrong, if anything is.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        let shown = self.root.display();
        let meta: Metadata = fs::metadata(&self.root).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("{shown} is gone; put it back, or run `weft leave` if it is meant to be")
            }
            _ => format!("{shown} cannot be read: {error}"),
        })?;
        if !meta.is_dir() {
            return Err(format!("{shown} is no folder any more; put the folder back"));
        }
        match marker::read(&self.root) {
            Ok(Some(found)) if found == self.marker => {}
            Ok(Some(_)) => {
                return Err(format!("{shown} now belongs to another workspace or device; put the right folder back"));
            }
            Ok(None) => {
                let emptied = fs::read_dir(&self.root).is_ok_and(|mut entries| entries.next().is_none());
                return Err(if emptied {
                    format!("{shown} is empty (a disk that is not mounted?); mount it or put the files back")
                } else {
                    format!("{shown} lost its .weft folder; put it back, or `weft leave` and join again with --merge")
                });
            }
            Err(error) => return Err(format!("{shown}: its marker cannot be read: {error}")),
        }
        if *self.device.get_or_insert(meta.dev()) != meta.dev() {
            return Err(format!(
                "{shown} is on another file system than before; mount the right one, then restart the agent"
            ));
        }
        fs::read_dir(&self.root).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_agent_core::id::{DeviceId, WorkspaceId};

    /// A root that vanished, was emptied or lost its marker is named as such; put back, it is well again.
    #[test]
    fn a_lost_root_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("notes");
        fs::create_dir(&root).unwrap();
        let mark = Marker { workspace: WorkspaceId([1; 32]), device: DeviceId([2; 16]) };
        marker::write(&root, &mark).unwrap();
        let mut guard = Guard::new(&root, mark.clone());
        guard.check().unwrap();
        fs::rename(&root, dir.path().join("away")).unwrap();
        assert!(guard.check().unwrap_err().contains("is gone"));
        fs::create_dir(&root).unwrap();
        assert!(guard.check().unwrap_err().contains("is empty"));
        fs::write(root.join("x"), "").unwrap();
        assert!(guard.check().unwrap_err().contains("lost its .weft"));
        marker::write(&root, &Marker { workspace: WorkspaceId([9; 32]), ..mark }).unwrap();
        assert!(guard.check().unwrap_err().contains("another workspace"));
        fs::remove_dir_all(&root).unwrap();
        fs::rename(dir.path().join("away"), &root).unwrap();
        guard.check().unwrap();
    }
}
