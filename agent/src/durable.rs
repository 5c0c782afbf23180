//! Small files that must survive a power cut whole: the new content or the old one, never half.
//!
//! Invariant: when [`replace`] returns `Ok`, the file and its name are on disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Replaces `path` by `bytes`, readable by its owner only: written aside, synced, renamed, folder synced.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("a file needs a folder"))?;
    make_private_dir(dir)?;
    let mut aside = tempfile::Builder::new().prefix(".weft-new-").tempfile_in(dir)?;
    aside.write_all(bytes)?;
    aside.as_file().sync_all()?;
    aside.persist(path).map_err(|error| error.error)?;
    sync_dir(dir)
}

/// As [`replace`], and writes zeros over what stood there before: for secrets that are to be gone. What a file system or a
/// disk copies aside is out of reach.
pub(crate) fn replace_erasing(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let old = match OpenOptions::new().write(true).open(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    // Only then: what is needed must be somewhere whole at every moment.
    replace(path, bytes)?;
    if let Some(mut old) = old {
        let meta = old.metadata()?;
        // Somebody's hard link to it is a copy of theirs.
        if meta.nlink() == 0 {
            old.write_all(&vec![0; usize::try_from(meta.len()).unwrap_or(0)])?;
            old.sync_all()?;
        }
    }
    Ok(())
}

/// Removes a file after writing zeros over it.
pub(crate) fn remove_erasing(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(_) => {
            replace_erasing(path, &[])?;
            fs::remove_file(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates `path` with `bytes`, readable by its owner only; fails if it is there already.
pub(crate) fn create_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("a file needs a folder"))?;
    make_private_dir(dir)?;
    let mut aside = tempfile::Builder::new().prefix(".weft-new-").tempfile_in(dir)?;
    aside.write_all(bytes)?;
    aside.as_file().sync_all()?;
    aside.persist_noclobber(path).map_err(|error| error.error)?;
    sync_dir(dir)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether something could not be written because a disk, or what one may use of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the disk that holds a file has next to no room.
pub(crate) fn is_without_room(path: &Path) -> bool {
    const BYTES_MIN: u64 = 64 * 1024;
    let dir = path.parent().unwrap_or(path);
    rustix::fs::statvfs(dir).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < BYTES_MIN)
}

/// Creates a folder and those above it, for its owner only; one that is there keeps its mode.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Opens a private file for appending.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The content of a file, `None` if there is none.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    /// What stood in a file before is zeros where it stood, and stays where somebody else has a link to it.
    #[test]
    fn a_replaced_secret_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        create_new(&path, b"the secret").unwrap();
        let mut old = File::open(&path).unwrap();
        replace_erasing(&path, b"no secret").unwrap();
        let mut left = Vec::new();
        old.read_to_end(&mut left).unwrap();
        assert_eq!((left, fs::read(&path).unwrap()), (vec![0; 10], b"no secret".to_vec()));
        let copy = dir.path().join("copy");
        fs::hard_link(&path, &copy).unwrap();
        let mut old = File::open(&path).unwrap();
        remove_erasing(&path).unwrap();
        remove_erasing(&path).unwrap();
        old.rewind().unwrap();
        assert!(!path.exists() && fs::read(&copy).unwrap() == b"no secret");
    }
}
