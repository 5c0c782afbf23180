//! Opening things below the root without ever following a symbolic link out of it.
//!
//! Invariant: every part of a path is opened relative to its parent with `O_NOFOLLOW`; a link in the middle of a path
//! is an error, wherever it points. Why: another member could otherwise make us write `~/.ssh` through a link.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use weft_agent_core::disk::{RelPath, Stat};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The root itself; it may be reached through links.
pub(crate) fn open_root(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, root, flags, Mode::empty())?)
}

/// The folder that `path` is in.
pub(crate) fn open_parent(root: &OwnedFd, path: &RelPath) -> io::Result<OwnedFd> {
    match path.parent() {
        Some(parent) => open_folder(root, &parent),
        None => Ok(root.try_clone()?),
    }
}

/// A folder, or the root.
pub(crate) fn open_in(root: &OwnedFd, folder: Option<&RelPath>) -> io::Result<OwnedFd> {
    folder.map_or_else(|| root.try_clone(), |folder| open_folder(root, folder))
}

/// A folder.
pub(crate) fn open_folder(root: &OwnedFd, path: &RelPath) -> io::Result<OwnedFd> {
    let mut fd = root.try_clone()?;
    for part in path.as_str().split('/') {
        fd = rustix::fs::openat(&fd, part, FOLDER, Mode::empty())?;
    }
    Ok(fd)
}

/// Makes a folder in one that is there; done already is done. It makes none above it: one that is gone was moved or deleted
/// by a person.
pub(crate) fn make_folder(root: &OwnedFd, path: &RelPath) -> io::Result<()> {
    let dir = open_parent(root, path)?;
    match rustix::fs::mkdirat(&dir, path.name(), Mode::from_raw_mode(0o777)) {
        Ok(()) => Ok(rustix::fs::fsync(&dir)?),
        Err(rustix::io::Errno::EXIST) => {
            rustix::fs::openat(&dir, path.name(), FOLDER, Mode::empty()).map(|_| ()).map_err(Into::into)
        }
        Err(error) => Err(error.into()),
    }
}

/// What lies at a name, without following it.
pub(crate) struct Meta {
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    /// Whether it has another name as well (a hard link).
    pub(crate) is_linked: bool,
    pub(crate) stat: Stat,
}

/// `None` if there is nothing.
pub(crate) fn meta(dir: &OwnedFd, name: &str) -> io::Result<Option<Meta>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(meta_of(&stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is nothing at a path; what cannot be looked at is there.
pub(crate) fn is_gone(root: &Path, path: &RelPath) -> bool {
    root.join(path.as_str()).symlink_metadata().is_err_and(|error| super::look::is_absence(&error))
}

/// From what the system says.
pub(crate) fn meta_of(stat: &rustix::fs::Stat) -> Meta {
    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
    Meta {
        kind: FileType::from_raw_mode(stat.st_mode),
        mode: stat.st_mode,
        is_linked: stat.st_nlink > 1,
        stat: Stat {
            mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec as i64),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            inode: stat.st_ino,
        },
    }
}

/// Opens a file for reading; a link, a pipe or a device is refused by the caller's check of the kind.
pub(crate) fn open_file(dir: &OwnedFd, name: &str) -> io::Result<(File, Meta)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let meta = meta_of(&rustix::fs::fstat(&fd)?);
    Ok((File::from(fd), meta))
}

/// Where a link points; `None` if that is not UTF-8.
pub(crate) fn read_link(dir: &OwnedFd, name: &str) -> io::Result<Option<String>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_string().ok())
}
