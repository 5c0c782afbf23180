//! Small files that must survive a power cut whole: the new content or the old one, never half.
//!
//! Invariant: when [`replace`] returns `Ok`, the file and its name are on disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
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
