//! What the shell tells the core about the folder, and what the core asks it to do there.
//!
//! The shell looks (stat, read, hash) and acts (compare, write aside, exchange); it decides nothing. Paths are relative
//! to the root, with `/` between parts, never `..`, never absolute.
//!
//! Invariant: every [`FolderAction`] names what must be on disk before it (`expect`); the shell answers
//! [`Outcome::Differs`] instead of overwriting anything else. Why: an edit that lands between our look and our write
//! must never be lost.

use std::sync::Arc;

use bytes::Bytes;

use crate::content::Manifest;
use crate::id::VersionHash;

/// A path inside the folder: parts joined by `/`. Cheap to copy: several indexes share one text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Arc<str>);

/// Longest path in bytes that Weft carries; Linux allows 4,096 in all.
pub const PATH_BYTES_MAX: usize = 2048;
/// Longest part of a path in bytes; what most file systems allow.
pub const NAME_BYTES_MAX: usize = 255;

impl RelPath {
    /// Checks that no part is empty, `.`, `..`, too long, or holds a NUL.
    #[must_use]
    pub fn new(path: &str) -> Option<Self> {
        let fits = !path.is_empty() && path.len() <= PATH_BYTES_MAX && path.split('/').all(is_name);
        fits.then(|| Self(path.into()))
    }
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The folder it is in; `None` at the root.
    #[must_use]
    pub fn parent(&self) -> Option<RelPath> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }
    /// The folders it is in, the innermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = RelPath> + use<> {
        std::iter::successors(self.parent(), RelPath::parent)
    }
    /// Its last part.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }
    /// The path of `name` in this folder; `None` if `name` is not one part of a path or the path gets too long.
    #[must_use]
    pub fn join(&self, name: &str) -> Option<RelPath> {
        if !is_name(name) {
            return None;
        }
        Self::new(&format!("{}/{name}", self.0))
    }
}

/// Whether `name` can be one part of a path.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != "." && name != ".." && !name.contains(['/', '\0'])
}

impl core::fmt::Display for RelPath {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::fmt::Debug for RelPath {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What tells cheaply whether a file may have changed since we last looked. All zero: always look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Change time, nanoseconds since the epoch.
    pub ctime_ns: i64,
    /// Size in bytes.
    pub size: u64,
    /// Inode number, so that a rename is recognised.
    pub inode: u64,
}

impl Stat {
    /// The stat of a file that was looked at as `self` and then moved or got another mode by us, and is `now`: `now`, if
    /// only what that changes is another. Otherwise a person wrote to it meanwhile, and it must be looked at: a stat that
    /// was never looked at would hide that edit for good.
    #[must_use]
    pub fn after_touch(self, now: Stat) -> Stat {
        let same = (self.mtime_ns, self.size, self.inode) == (now.mtime_ns, now.size, now.inode);
        if same { now } else { Stat::default() }
    }
}

/// The plain bytes of a file, or, for a large one, its pieces, which the shell has already sealed and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileBytes {
    /// All bytes. Always used up to [`crate::content::INLINE_BYTES_MAX`], and for text up to
    /// [`crate::files::TEXT_BYTES_MAX`].
    Here(Bytes),
    /// Hash of the whole and the pieces; the rows of [`crate::store::Table::Pieces`] are already written.
    Blob {
        /// Hash of the plain content.
        hash: VersionHash,
        /// The pieces.
        manifest: Manifest,
    },
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing (or something ignored).
    Absent,
    /// A file.
    File {
        /// Its content.
        bytes: FileBytes,
        /// Whether its owner may execute it.
        executable: bool,
        /// How to recognise it again.
        stat: Stat,
    },
    /// A symbolic link; never followed.
    Symlink {
        /// Where it points, as written.
        target: String,
    },
    /// A folder.
    Folder,
}

/// One look at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub path: RelPath,
    /// What is there now.
    pub found: Found,
    /// Whether some program opened the file since our last write there (`None`: the platform cannot tell).
    pub opened_since_write: Option<bool>,
    /// What became of a write there that was under way when the agent last ended, if the shell can tell.
    pub unfinished: Option<Unfinished>,
    /// What was found is not at the path: it is what some program has made of the file that was there before a write of ours,
    /// and that it has open still. The hash of what that file held when the core was told of it last.
    pub made_on: Option<VersionHash>,
}

impl Seen {
    /// A look of which nothing more is known than what was found.
    #[must_use]
    pub fn new(path: RelPath, found: Found) -> Self {
        Self { path, found, opened_since_write: None, unfinished: None, made_on: None }
    }
}

/// What became of a write that was under way when the agent ended. The shell knows it from what the write leaves beside the
/// file until its outcome is stored: so it needs no guess, whatever a person made of the file since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// Hash of the content that the write was to leave.
    pub leaves: VersionHash,
    /// Whether it took place.
    pub took_place: bool,
}

/// What must be at a path before an action; the shell compares by content, not by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// A file with exactly this content.
    File(VersionHash),
    /// A symbolic link with exactly this target.
    Symlink(String),
    /// A folder.
    Folder,
}

/// What to put at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewContent {
    /// These bytes.
    Bytes(Bytes),
    /// The pieces of this manifest, all of them in [`crate::store::Table::Pieces`], opened and joined.
    Blob(Manifest),
    /// A symbolic link with this target.
    Symlink(String),
}

/// Something to do in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderAction {
    /// Create the folder in one that is there, and never one above it: that was moved or deleted by a person. Done already
    /// is done.
    MakeFolder {
        /// Where.
        path: RelPath,
    },
    /// Put content at `path` by exchange, if `expect` is what is there. Folders above are created as needed.
    Write {
        /// Where.
        path: RelPath,
        /// What must be there before.
        expect: Expect,
        /// What to put there.
        content: NewContent,
        /// Hash of the content (of the target's bytes, for a link).
        hash: VersionHash,
        /// Whether the owner may execute it.
        executable: bool,
    },
    /// Move, if `expect` is at `from` and nothing is at `to`. Folders above `to` are created as needed.
    Move {
        /// From where.
        from: RelPath,
        /// To where.
        to: RelPath,
        /// What must be at `from`.
        expect: Expect,
    },
    /// Remove, if `expect` is what is there. A folder that is not empty stays, and that is no failure.
    Remove {
        /// Where.
        path: RelPath,
        /// What must be there before.
        expect: Expect,
        /// Why it goes.
        why: Removal,
    },
    /// Set or clear the owner's execute bit.
    SetExecutable {
        /// Where.
        path: RelPath,
        /// The new value.
        executable: bool,
    },
}

/// Why something leaves the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It was deleted, by a person here or elsewhere, who had seen all that there is of it.
    Deleted,
    /// It stood beside a file, and another version of that file replaced it.
    Replaced,
    /// The same content stands at its path, as another file.
    Twin,
    /// It is a folder, and another folder of that path took over what is in it.
    Merged,
    /// It is to be at a path that this computer cannot carry.
    NotCarried,
    /// What made it does not count any more: its author had been removed.
    Revoked,
    /// It is a folder that a removal left empty.
    Emptied,
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done and synced to disk; what is there now is recognised by this (zero for folders and removals).
    Done(Stat),
    /// Something else was there; nothing was overwritten. This is what is there (for a move: at `from`).
    Differs(Seen),
    /// The disk refused: full, read-only, no permission. The core tries again later.
    Failed(String),
}
