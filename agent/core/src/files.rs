//! Files <-> documents: what editors wrote becomes changes, and what others changed becomes files.
//!
//! [`Files`] owns the tree, the documents and the record of what is last on disk. It knows nothing of envelopes, keys,
//! chains or peers: it takes in what the shell saw ([`Files::handle_seen`]) and what was accepted from others
//! ([`Files::handle_content`]), and gives out what is to be published and what is to be done in the folder.
//!
//! Spec: docs/files.md.

use bytes::Bytes;

use crate::content::{Content, Manifest};
use crate::disk::{FolderAction, RelPath};
use crate::id::{ChainId, DeviceId, VersionHash, WorkspaceId};
use crate::store::Read;

/// Longest text that is merged character by character, in bytes; a longer one is a file of versions.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// Names an action in the folder until its outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(pub u64);

/// Who made a change, and when they said they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author {
    /// The chain it came on.
    pub chain: ChainId,
    /// Wall time by the author's clock, for people only.
    pub wall_ms: u64,
}

/// Where the plain bytes of inline versions are found; they live in envelopes, which only the replica can open.
pub trait Versions {
    /// The bytes of an inline version, or `None` if it is not here (yet), or is a blob.
    fn version(&mut self, hash: &VersionHash, store: &dyn Read) -> Option<Bytes>;
    /// The manifest of a blob version, if it is known.
    fn manifest(&mut self, hash: &VersionHash, store: &dyn Read) -> Option<Manifest>;
}

/// What this replica is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The chain that this replica writes now; the actors of its changes start with this chain's hash.
    pub chain: ChainId,
}

/// Why everything about the folder stands still until a person answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// Many files went at once: `gone` of `total`.
    MassDelete {
        /// Files that are missing.
        gone: usize,
        /// Files there were.
        total: usize,
    },
    /// The folder is gone, cannot be read, is another file system, or lost its marker. Said by the shell.
    Root(String),
}

/// What a person answered to a [`Halt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// The files were meant to be deleted: delete them everywhere.
    AcceptDeletes,
    /// They were not: put them back.
    Restore,
}

/// One line of the log that people read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When, by the wall clock of whoever did it.
    pub wall_ms: u64,
    /// Whose device; `None` if it was this one.
    pub device: Option<DeviceId>,
    /// What happened.
    pub what: LogEvent,
}

/// What happened to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// A file, folder or link came to be.
    Created(RelPath),
    /// Its content changed.
    Edited(RelPath),
    /// It moved.
    Moved {
        /// From where.
        from: RelPath,
        /// To where.
        to: RelPath,
    },
    /// It was deleted.
    Deleted(RelPath),
    /// It was deleted by one and edited by another: it stays.
    KeptEdited(RelPath),
    /// Two files wanted one path; one of them is shown beside it.
    Clash {
        /// The path.
        path: RelPath,
        /// Where the other one is.
        shown_as: RelPath,
    },
    /// An editor saved from a buffer older than what we had written: entered there, nothing reverted.
    StaleBuffer(RelPath),
    /// A path that this computer cannot carry (too long, not UTF-8, reserved).
    NotCarried {
        /// The path, lossily.
        path: String,
        /// Why.
        why: String,
    },
}

/// What [`Files`] wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesOutput {
    /// Seal and send this; it is already applied here. Its rows are in the same transaction.
    Publish(Content),
    /// Do this in the folder.
    Act(ActionId, FolderAction),
    /// Fetch the pieces of this blob; say [`Files::handle_blob_here`] when all are stored.
    Fetch {
        /// The version.
        hash: VersionHash,
        /// Its pieces.
        manifest: Manifest,
    },
    /// Look at these paths again (an action found something else there, or failed).
    Look(Vec<RelPath>),
    /// Stand still and say why.
    Halted(Halt),
    /// Tell people.
    Log(LogEntry),
}

/// Figures for `weft status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FilesFigures {
    /// Files (not folders) that exist.
    pub files: u64,
    /// Bytes of all stored documents.
    pub document_bytes: u64,
    /// Changes applied so far, to all documents.
    pub changes: u64,
    /// Actions in the folder that have no outcome yet, or wait for pieces.
    pub pending_writes: u64,
    /// Changes that wait for others, or for the version they start from.
    pub waiting_changes: u64,
}
