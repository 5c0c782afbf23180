//! Which folder it is: tells the workspace's own folder from another one at the same path, or at another one.
//!
//! A folder is the same as before if it is the one that was seen last (file system object and moment of its making), or if
//! it holds what the replica knows. What was seen last is kept beside the database, `folder.json`.
//!
//! Invariant: an inode number alone proves nothing, because file systems give the numbers of removed folders to new
//! ones; an empty folder is never taken for ours.
//! Spec: docs/files.md#the-folder-itself.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fd::OwnedFd;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};
use weft_agent_core::disk::{RelPath, Stat};
use weft_agent_core::id::{VersionHash, WorkspaceId};

use super::known::{Known, Paths};
use super::{at, look};
use crate::durable;

/// So many files are compared to tell whether a folder holds what the replica knows.
const SAMPLES: usize = 64;
/// Larger files are compared by their times only.
const HASH_BYTES_MAX: u64 = 1024 * 1024;

/// What a folder is to its file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    device: u64,
    inode: u64,
    /// When it was made, if the file system tells; Unix time.
    born_ns: Option<u64>,
}

impl Place {
    pub(crate) fn of(meta: &Metadata) -> Place {
        let born = meta.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.and_then(|age| u64::try_from(age.as_nanos()).ok()).filter(|ns| *ns > 0);
        Place { device: meta.dev(), inode: meta.ino(), born_ns }
    }
    /// Certainly the same folder. Numbers of devices change from one mount to the next.
    pub(crate) fn is(&self, other: &Place) -> bool {
        self.inode == other.inode && self.born_ns.is_some() && self.born_ns == other.born_ns
    }
    pub(crate) fn is_on_device_of(&self, other: &Place) -> bool {
        self.device == other.device
    }
}

fn file(replica: &Path) -> PathBuf {
    replica.join("folder.json")
}

/// The folder that was seen last; none if that was never written down, or cannot be read.
pub(crate) fn last(replica: &Path) -> Option<Place> {
    serde_json::from_slice(&std::fs::read(file(replica)).ok()?).ok()
}

/// Writes down which folder it is.
pub(crate) fn keep(replica: &Path, place: &Place) -> std::io::Result<()> {
    durable::replace(&file(replica), &serde_json::to_vec(place)?)
}

/// A known file, to be compared.
pub(crate) struct Sample {
    path: RelPath,
    hash: VersionHash,
    stat: Option<Stat>,
}

/// Some of what is known, from all over the folder.
pub(crate) fn samples(known: &Paths) -> Vec<Sample> {
    let files = known.iter().filter_map(|(path, known)| match known {
        Known::File { hash, stat, .. } => Some(Sample { path: path.clone(), hash: *hash, stat: *stat }),
        Known::Untold(Some(hash)) => Some(Sample { path: path.clone(), hash: *hash, stat: None }),
        Known::Untold(None) | Known::Symlink(_) | Known::Folder => None,
    });
    let every = (known.len() / SAMPLES).max(1);
    files.step_by(every).take(SAMPLES).collect()
}

/// Whether a folder holds what is known: nine of ten samples as they were, and not merely empty files.
pub(crate) fn holds(root: &OwnedFd, workspace: &WorkspaceId, samples: &[Sample]) -> bool {
    let sizes: Vec<u64> = samples.iter().filter_map(|sample| size_if_same(root, workspace, sample)).collect();
    sizes.iter().any(|size| *size > 0) && sizes.len() * 10 >= samples.len() * 9
}

/// The size of what lies at a sample's path, if it is what is known.
fn size_if_same(root: &OwnedFd, workspace: &WorkspaceId, sample: &Sample) -> Option<u64> {
    let dir = at::open_parent(root, &sample.path).ok()?;
    let meta = at::meta(&dir, sample.path.name()).ok()??;
    if meta.kind != FileType::RegularFile {
        return None;
    }
    let is_stat = |known: &Stat| (known.size, known.mtime_ns) == (meta.stat.size, meta.stat.mtime_ns);
    let same = sample.stat.as_ref().is_some_and(is_stat)
        || meta.stat.size <= HASH_BYTES_MAX
            && look::hash_file(&dir, workspace, sample.path.name()).is_ok_and(|hash| hash == Some(sample.hash));
    same.then_some(meta.stat.size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn known(files: &[(&str, &str)]) -> Paths {
        let hash = |text: &str| crate::blob::version_hash(&WorkspaceId([1; 32]), text.as_bytes());
        let known = |text: &str| Known::File { hash: hash(text), executable: None, inode: 0, stat: None };
        files.iter().map(|(path, text)| (RelPath::new(path).unwrap(), known(text))).collect()
    }

    /// A folder is the same when renamed or written into, and another one when it was made anew in its place.
    #[test]
    fn a_folder_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&path).unwrap();
        let of = |path: &Path| Place::of(&fs::metadata(path).unwrap());
        let was = of(&path);
        keep(dir.path(), &was).unwrap();
        fs::rename(&path, &moved).unwrap();
        fs::write(moved.join("x"), "x").unwrap();
        assert_eq!(last(dir.path()), Some(was.clone()));
        if was.born_ns.is_some() {
            assert!(was.is(&of(&moved)));
        }
        fs::remove_dir_all(&moved).unwrap();
        fs::create_dir(&moved).unwrap();
        assert!(!was.is(&of(&moved)), "the number may be the same, the folder is not");
        assert_eq!(last(&moved), None);
    }

    /// What is known is there, under the same names: it is the folder. Other files, none, or only empty ones: it is not.
    #[test]
    fn a_folder_is_known_by_what_it_holds() {
        let known = known(&[("a/1.md", "one"), ("a/2.md", "two"), ("e", "")]);
        let dir = tempfile::tempdir().unwrap();
        let holds = || holds(&at::open_root(dir.path()).unwrap(), &WorkspaceId([1; 32]), &samples(&known));
        assert!(!holds(), "empty");
        fs::write(dir.path().join("e"), "").unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(!holds());
        fs::write(dir.path().join("a/1.md"), "one").unwrap();
        fs::write(dir.path().join("a/2.md"), "not two").unwrap();
        assert!(!holds(), "other content");
        fs::write(dir.path().join("a/2.md"), "two").unwrap();
        fs::write(dir.path().join("more"), "does not matter").unwrap();
        assert!(holds());
        assert!(!super::holds(&at::open_root(dir.path()).unwrap(), &WorkspaceId([1; 32]), &[]), "nothing is known");
    }
}
