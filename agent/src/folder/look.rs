//! Looking at one path: what is there, whole and at one moment.
//!
//! Invariant: bytes and stat belong together: the file did not change while it was read, or the look says "busy".

use std::io::{self, Read};

use bytes::Bytes;
use rustix::fd::OwnedFd;
use rustix::fs::FileType;
use weft_agent_core::content::INLINE_BYTES_MAX;
use weft_agent_core::disk::{FileBytes, Found, RelPath, Stat};
use weft_agent_core::files::TEXT_BYTES_MAX;
use weft_agent_core::id::{VersionHash, WorkspaceId};
use weft_agent_core::store::Write;

use super::at;
use super::known::{self, Known};
use crate::blob;

/// What a look found.
pub(crate) enum Looked {
    /// This. The rows of its pieces, if it is large, were given out before.
    Found { found: Found, known: Option<Known> },
    /// Somebody is writing it: look again later.
    Busy,
    /// Neither file, folder nor link, or a link whose target is not text: not carried.
    NotCarried,
}

/// Where pieces of large files go while they are read; false ends the look.
pub(crate) type Rows<'a> = dyn FnMut(Vec<Write>) -> bool + 'a;

/// Looks at a path. Large files are cut and sealed on the way, their rows given to `rows` piece by piece.
pub(crate) fn look(root: &OwnedFd, workspace: &WorkspaceId, path: &RelPath, rows: &mut Rows<'_>) -> io::Result<Looked> {
    let absent = || Looked::Found { found: Found::Absent, known: None };
    let dir = match at::open_parent(root, path) {
        Ok(dir) => dir,
        Err(error) if is_absence(&error) => return Ok(absent()),
        Err(error) => return Err(error),
    };
    let Some(meta) = at::meta(&dir, path.name())? else { return Ok(absent()) };
    match meta.kind {
        FileType::Directory => Ok(Looked::Found { found: Found::Folder, known: Some(Known::Folder) }),
        FileType::Symlink => match at::read_link(&dir, path.name())? {
            Some(target) => Ok(Looked::Found {
                found: Found::Symlink { target: target.clone() },
                known: Some(Known::Symlink(target)),
            }),
            None => Ok(Looked::NotCarried),
        },
        FileType::RegularFile => look_file(&dir, workspace, path, rows),
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            Ok(Looked::NotCarried)
        }
    }
}

/// A path through something that is no folder, or through a link, leads to nothing of ours.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP))
}

fn look_file(dir: &OwnedFd, workspace: &WorkspaceId, path: &RelPath, rows: &mut Rows<'_>) -> io::Result<Looked> {
    let (mut file, before) = match at::open_file(dir, path.name()) {
        Ok(opened) => opened,
        Err(error) if is_absence(&error) => return Ok(Looked::Busy),
        Err(error) => return Err(error),
    };
    if before.kind != FileType::RegularFile {
        return Ok(Looked::Busy);
    }
    let mut head = Vec::with_capacity(usize::try_from(before.stat.size).unwrap_or(0).min(TEXT_BYTES_MAX) + 1);
    (&mut file).take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut head)?;
    let is_here = head.len() <= INLINE_BYTES_MAX || (head.len() <= TEXT_BYTES_MAX && is_text(&head));
    let (bytes, hash) = if is_here {
        let hash = blob::version_hash(workspace, &head);
        (FileBytes::Here(Bytes::from(head)), hash)
    } else {
        match blob::cut(workspace, &mut io::Cursor::new(head).chain(&mut file), rows)? {
            Some((hash, manifest)) => (FileBytes::Blob { hash, manifest }, hash),
            None => return Ok(Looked::Busy),
        }
    };
    let after = at::meta_of(&rustix::fs::fstat(&file)?);
    if after.stat != before.stat {
        return Ok(Looked::Busy);
    }
    let executable = after.mode & 0o100 != 0;
    let racy = known::is_racy(&after.stat, known::now_ns());
    // The core keeps the stat across restarts; a young one must not be trusted then either.
    let told = if racy { Stat { mtime_ns: 0, ctime_ns: 0, ..after.stat } } else { after.stat };
    let known = Known::File {
        hash,
        executable: Some(executable),
        inode: after.stat.inode,
        stat: (!racy).then_some(after.stat),
    };
    Ok(Looked::Found { found: Found::File { bytes, executable, stat: told }, known: Some(known) })
}

/// Whether bytes are text to people: UTF-8 without a NUL.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// The hash of what a file holds now; `None` if there is no regular file.
pub(crate) fn hash_file(dir: &OwnedFd, workspace: &WorkspaceId, name: &str) -> io::Result<Option<VersionHash>> {
    let (mut file, meta) = match at::open_file(dir, name) {
        Ok(opened) => opened,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if meta.kind != FileType::RegularFile {
        return Ok(None);
    }
    blob::hash_reader(workspace, &mut file).map(Some)
}
