//! Files <-> documents: what editors wrote becomes changes, and what others changed becomes files.
//!
//! [`Files`] owns the tree, the documents and the record of what is last on disk. It knows nothing of envelopes, keys,
//! chains or peers: it takes in what the shell saw ([`Files::handle_seen`]) and what was accepted from others
//! ([`Files::handle_content`]), and gives out what is to be published and what is to be done in the folder.
//!
//! Contract: the caller applies what a call wrote to its [`Tx`] before the next call, and drains
//! [`Files::poll_output`] after each. An output never leaves before the rows it relies on: an action's record names
//! what it will leave, a published change is already a row.
//!
//! Invariant: the state is a function of the rows; a crash between any two calls loses nothing that a scan of the folder
//! does not find again. Read in this order: `entry` (what the tree says), `tree` (what it means), `projection`
//! (where it belongs), `ingest` and `entering` (from the disk), `receive` (from others), `plan` and `work` (to the disk).
//!
//! Spec: docs/files.md.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::content::{Content, Manifest};
use crate::disk::{FolderAction, RelPath};
use crate::id::{ChainId, DeviceId, FileId, VersionHash, WorkspaceId};
use crate::store::{Read, Table, Tx, rows};

mod change;
mod counting;
mod diff;
mod documents;
mod draft;
mod elsewhere;
mod entering;
mod entry;
mod gone;
mod ingest;
mod journal;
mod lacking;
mod names;
mod older;
mod plan;
mod projection;
mod puts;
mod queue;
mod rebase;
mod receive;
mod record;
mod refound;
mod removal;
mod renames;
mod saved;
mod slices;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod void;
mod work;

pub use change::{CHANGE_BYTES_MAX, CHANGE_OPS_MAX, ChangeError, ChangeFacts, inspect_change};
pub use journal::{decode_log, encode_log};
pub use names::{VersionHasher, actor_prefix, is_actor_of, version_hash};
pub(crate) use names::{file_of, founded_on, is_of_versions};
pub(crate) use rebase::{forget, forget_all, text_of_row};
pub use receive::{Refusal, Refused};
pub use record::{KnownFile, PendingWrite, known_contents, known_files, known_folders, pending_writes};
pub use saved::{SAVED_ROWS_MAX, SavedError, inspect_saved};
pub(crate) use saved::{Savable, Saved, hash_of_change};

pub(crate) use documents::UNREADABLE;

use documents::Documents;
use draft::Draft;
use gone::Gone;
use projection::Projection;
use record::{Key, ROWS, Records};
use tree::{Entry, Tree};
use work::Work;

/// Longest text that is merged character by character, in bytes; a longer one is a file of versions. The same as
/// [`crate::content::INLINE_BYTES_MAX`], so that a text's versions never need pieces.
pub const TEXT_BYTES_MAX: usize = crate::content::INLINE_BYTES_MAX;

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
    /// Nothing waits for the pieces of this version any more.
    Unneeded(VersionHash),
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
    /// What is on disk and in no document, so that it is neither synced nor removed.
    pub unnamed: u64,
}

/// What every call brings along.
pub(crate) struct Cx<'a, 'b> {
    now: crate::time::Timestamp,
    versions: &'a mut dyn Versions,
    tx: &'a Tx<'b>,
}

/// What an entry was before others changed it, for the log.
struct Before {
    path: Option<RelPath>,
    content: Option<VersionHash>,
    lived: bool,
    deleted: bool,
    author: Author,
}

/// Little that moved in a large tree waits at most this long for the projection, in milliseconds: nobody notices ...
const PROJECT_MS: u64 = 50;
/// ... and only as long as it is less than one part in so many of the tree ...
const PROJECT_PART: usize = 8;
/// ... which has more entries than this: the projection of a smaller one takes a millisecond or two.
const PROJECT_ALWAYS_MAX: usize = 1_024;

/// That paths may be others than the projection says.
#[derive(Debug, Default)]
struct Moved {
    /// How many entries changed, about.
    entries: usize,
    /// When the projection is made at the latest, monotonic ms.
    due_ms: u64,
}

/// The machine between a folder and its documents.
pub struct Files {
    identity: Identity,
    actor: [u8; 16],
    /// Whether this computer's file system does not tell letter case and Unicode forms apart.
    fold: bool,
    documents: Documents,
    tree: Tree,
    records: Records,
    shown: Projection,
    /// Whether the projection must be made anew, and when at the latest.
    moved: Option<Moved>,
    work: Work,
    /// What is on disk, and neither shown nor to be removed: no document says anything of it.
    unnamed: BTreeSet<Key>,
    gone: Gone,
    /// When files were made that are new here, monotonic ms.
    born: BTreeMap<Key, u64>,
    /// Paths that were looked at while an action was under way there; looked at again when it has ended.
    deferred: BTreeSet<RelPath>,
    /// Paths that we asked the shell to look at, and have not heard of yet.
    asked: BTreeSet<RelPath>,
    halt: Option<Halt>,
    /// Whether it stood still when it was last asked what is not in the folder.
    was_halted: bool,
    /// Documents are being built anew: what they say until they are whole is not done.
    building: bool,
    /// Inline versions that came or were published in this call.
    fresh: BTreeMap<VersionHash, Bytes>,
    draft: Draft,
    /// What others changed in this call.
    remote: BTreeMap<FileId, Before>,
    outputs: VecDeque<FilesOutput>,
    changes: u64,
    waiting: receive::Waiting,
    log_counter: u64,
    /// The simulator's: enter edits at the newest heads, as if the disk had them.
    ignores_base: bool,
}

impl Files {
    /// The machine as its rows say. Afterwards [`Files::poll_timeout`] is due at once, so that what a crash interrupted
    /// goes on. A document whose rows cannot be read is shown as far as it could be, and never overwritten.
    #[must_use]
    pub fn open(identity: Identity, read: &dyn Read) -> Files {
        let mut files = Files {
            identity,
            actor: actor_prefix(&identity.workspace, identity.chain),
            fold: false,
            documents: Documents::default(),
            tree: Tree::default(),
            records: Records::default(),
            shown: Projection::default(),
            moved: Some(Moved::default()),
            work: Work::default(),
            unnamed: BTreeSet::new(),
            gone: Gone::default(),
            born: BTreeMap::new(),
            deferred: BTreeSet::new(),
            asked: BTreeSet::new(),
            halt: None,
            was_halted: false,
            building: false,
            fresh: BTreeMap::new(),
            draft: Draft::default(),
            remote: BTreeMap::new(),
            outputs: VecDeque::new(),
            changes: 0,
            waiting: receive::Waiting::default(),
            log_counter: 0,
            ignores_base: false,
        };
        let mut records = Vec::new();
        for (key, value) in rows(read, Table::Files, &[], ROWS) {
            if let Some((id, state)) = record::load_text(&key, &value) {
                files.changes += state.changes;
                files.tree.texts.insert((id, names::start_of(&state.version)), state);
            } else {
                records.extend(Records::parse(&key, &value));
            }
        }
        files.records = Records::all(records);
        for (_, value) in rows(read, Table::Documents, &[], ROWS) {
            files.documents.stored_bytes += value.len() as u64;
        }
        for (key, value) in rows(read, Table::Waiting, &[], ROWS) {
            files.waiting.load(&key, &value);
        }
        files.changes += files.tree.load(&mut files.documents, read);
        files.work.start(files.records.keys());
        files
    }
    /// Opens it anew after rows of documents were dropped, with `identity` from now on. What is under way in the folder
    /// still is, but for `unsent`: its outcomes are awaited, and its paths are nobody else's until then. Why: what we
    /// removed or moved would be missing at the next look, and be taken for what a person did.
    pub(crate) fn reopen(&mut self, identity: Identity, unsent: &BTreeSet<ActionId>, read: &dyn Read) {
        let mut files = Files::open(identity, read);
        files.set_folding(self.fold);
        files.ignores_base = self.ignores_base;
        files.work.go_on_from(&self.work, unsent);
        files.asked = std::mem::take(&mut self.asked);
        files.deferred = std::mem::take(&mut self.deferred);
        // What is still wanted is asked for again; of what falls nobody may ever have the pieces.
        files.outputs.extend(self.work.fetching.iter().copied().map(FilesOutput::Unneeded));
        *self = files;
    }
    /// Says that this computer's file system does not tell letter case and Unicode forms apart (macOS, Windows). Names
    /// that differ only so then get clash names here. Call it right after [`Files::open`].
    pub fn set_folding(&mut self, fold: bool) {
        self.fold = fold;
        self.moved = Some(Moved::default());
    }
    /// Does nothing in the folder until [`Files::rebase`] or [`Files::enter_again`]: accepted content is given again now.
    pub(crate) fn build(&mut self) {
        self.building = true;
    }
    /// Enters edits at the newest heads instead of those that are on disk: shows the simulator what the base is for.
    pub(crate) fn ignore_base(&mut self) {
        self.ignores_base = true;
    }
    /// A new incarnation: changes are made by new actors from now on.
    pub fn set_chain(&mut self, chain: ChainId) {
        self.identity.chain = chain;
        self.actor = actor_prefix(&self.identity.workspace, chain);
    }
    /// What is to be done next; drain to `None` after every call.
    pub fn poll_output(&mut self) -> Option<FilesOutput> {
        self.outputs.pop_front()
    }
    /// Monotonic ms at which [`Files::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let gone = if self.halt.is_none() { self.gone.due() } else { None };
        [gone, self.work.due(), self.moved.as_ref().map(|moved| moved.due_ms)].into_iter().flatten().min()
    }
    /// Why nothing is written to the folder, if so.
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        self.halt.as_ref()
    }
    /// No action is pending, and nothing waits that could be done.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.moved.is_none() && self.work.is_idle() && self.gone.is_empty() && self.deferred.is_empty()
    }
    /// Figures for `weft status`.
    #[must_use]
    pub fn figures(&self) -> FilesFigures {
        let files =
            self.tree.entries.values().filter(|entry| entry.kind != entry::Kind::Folder && entry.lives()).count();
        FilesFigures {
            files: files as u64,
            document_bytes: self.documents.stored_bytes,
            changes: self.changes,
            pending_writes: self.work.pending(),
            waiting_changes: self.waiting.count(),
            unnamed: self.unnamed.iter().filter(|key| self.records.brief(**key).is_some()).count() as u64,
        }
    }
    /// Drops loaded documents from memory; they are read again when needed. For when nothing happened for a while.
    pub fn release_memory(&mut self) {
        self.documents.clear();
    }
    /// Large files that are shown.
    pub(crate) fn shown_blobs(&self) -> BTreeSet<VersionHash> {
        let alternatives = self.tree.entries.values().flat_map(|entry| entry.alternatives.iter());
        alternatives.filter(|one| one.version.blob).map(|one| one.version.hash).collect()
    }
    /// The path at which an entry is shown.
    pub(crate) fn path_of(&self, id: FileId) -> Option<RelPath> {
        self.shown.paths.get(&Key::main(id)).cloned()
    }
    /// The bytes of an inline version, if they are here.
    fn bytes_of(&mut self, cx: &mut Cx<'_, '_>, hash: &VersionHash) -> Option<Bytes> {
        self.fresh.get(hash).cloned().or_else(|| cx.versions.version(hash, cx.tx))
    }
    /// Reads an entry again after its registers or texts changed, and notes what follows.
    fn refresh(&mut self, id: &FileId, cx: &Cx<'_, '_>) {
        let old = self.tree.entries.get(id).cloned();
        if !self.tree.refresh(id, &mut self.documents, cx.tx) {
            return;
        }
        self.touch(id, old.as_ref(), cx);
    }
    /// An entry is another than it was: its paths or its contents are to be looked at.
    fn touch(&mut self, id: &FileId, old: Option<&Entry>, cx: &Cx<'_, '_>) {
        let same_place = |old: &Entry, new: &Entry| {
            let versions = |entry: &Entry| entry.alternatives.iter().map(|one| one.version.hash).collect::<Vec<_>>();
            old.place == new.place && old.deleted == new.deleted && versions(old) == versions(new)
        };
        let stays = old.zip(self.tree.entries.get(id)).is_some_and(|(old, new)| same_place(old, new));
        // Where names clash, equal contents decide who is shown.
        if !(stays && self.shown.twins.is_empty() && self.shown.clashes.is_empty()) {
            let due_ms = cx.now.after_ms(PROJECT_MS);
            self.moved.get_or_insert(Moved { entries: 0, due_ms }).entries += 1;
        }
        self.work.look_at(*id, &self.records);
    }
    /// Ends every call: publishes what was drafted, projects, plans, and lets go of memory.
    fn settle(&mut self, cx: &mut Cx<'_, '_>) {
        self.publish(cx);
        self.project_if_moved(cx);
        self.log_remote(cx);
        self.plan(cx);
        self.documents.trim();
        self.fresh.clear();
    }
    /// The same, but little that moved in a large tree may wait for more of it, for a moment. Why: the projection costs
    /// by the tree, and a drain is many calls. Nothing reads an old projection meanwhile: what does makes it anew first.
    fn settle_later(&mut self, cx: &mut Cx<'_, '_>) {
        let waits = self.moved.as_ref().is_some_and(|moved| {
            cx.now.mono_ms < moved.due_ms && moved.entries.saturating_mul(PROJECT_PART) < self.tree.entries.len()
        });
        if !waits || self.tree.entries.len() <= PROJECT_ALWAYS_MAX {
            return self.settle(cx);
        }
        self.publish(cx);
        self.documents.trim();
        self.fresh.clear();
    }
    /// Brings the projection up to date.
    fn project_if_moved(&mut self, cx: &Cx<'_, '_>) {
        if self.moved.is_some() {
            self.project(cx);
        }
    }
    /// Makes the projection anew and notes what belongs elsewhere than before.
    fn project(&mut self, cx: &Cx<'_, '_>) {
        self.moved = None;
        let new = projection::project(&self.tree, self.fold, |key, path| {
            // What is where it belongs has its path's text once.
            self.records.brief(key).map(|known| &known.path).filter(|known| **known == path).cloned().unwrap_or(path)
        });
        let mut differing: BTreeSet<Key> = BTreeSet::new();
        for (key, path) in &new.paths {
            if self.shown.paths.get(key) != Some(path) {
                differing.insert(*key);
            }
        }
        differing.extend(self.shown.paths.keys().filter(|key| !new.paths.contains_key(key)));
        let old = std::mem::replace(&mut self.shown, new);
        self.tree.blobs_moved = true;
        self.work.add(differing);
        let clashes: Vec<LogEvent> = self
            .shown
            .clashes
            .iter()
            .filter(|(key, path)| {
                old.clashes.get(key) != Some(path)
                    && self.records.brief(**key).is_none_or(|known| Some(&known.path) != self.shown.paths.get(key))
            })
            .filter_map(|(key, path)| {
                let shown_as = self.shown.paths.get(key)?.clone();
                Some(LogEvent::Clash { path: path.clone(), shown_as })
            })
            .collect();
        let not_carried: Vec<LogEvent> = self
            .shown
            .not_carried
            .iter()
            .filter(|(key, _)| !old.not_carried.contains_key(key))
            .map(|(_, path)| LogEvent::NotCarried { path: path.clone(), why: "the path is too long".to_owned() })
            .collect();
        for what in clashes.into_iter().chain(not_carried) {
            self.log(cx, None, what);
        }
    }
    /// Tells what happened; `by`: another device and its time.
    fn log(&mut self, cx: &Cx<'_, '_>, by: Option<Author>, what: LogEvent) {
        let device = by.map(|author| author.chain.device).filter(|device| *device != self.identity.chain.device);
        let wall_ms = by.map_or(cx.now.wall_ms, |author| author.wall_ms);
        let entry = LogEntry { wall_ms, device, what };
        let mut key;
        loop {
            self.log_counter += 1;
            key = cx.now.wall_ms.to_be_bytes().to_vec();
            key.extend(self.log_counter.to_be_bytes());
            if cx.tx.get(Table::Log, &key).is_none() {
                break;
            }
        }
        cx.tx.put(Table::Log, key, encode_log(&entry));
        self.outputs.push_back(FilesOutput::Log(entry));
    }
    /// Remembers what an entry was before others change it.
    fn note_before(&mut self, id: FileId, entry: Option<&Entry>, author: Author) {
        if self.remote.contains_key(&id) {
            return;
        }
        let before = Before {
            path: self.path_of(id),
            content: entry.and_then(|entry| entry.alternatives.first()).map(tree::Alternative::hash),
            lived: entry.is_some_and(Entry::lives),
            deleted: entry.is_some_and(|entry| entry.deleted),
            author,
        };
        self.remote.insert(id, before);
    }
    /// Tells what others did in this call.
    fn log_remote(&mut self, cx: &Cx<'_, '_>) {
        if self.building {
            // What is given again is no news.
            self.remote.clear();
        }
        for (id, before) in std::mem::take(&mut self.remote) {
            let entry = self.tree.entries.get(&id);
            let lives = entry.is_some_and(Entry::lives);
            let content = entry.and_then(|entry| entry.alternatives.first()).map(tree::Alternative::hash);
            let deleted = entry.is_some_and(|entry| entry.deleted);
            let is_file = entry.is_some_and(|entry| entry.kind != entry::Kind::Folder);
            let mut events = Vec::new();
            match (before.path, self.path_of(id)) {
                (None, Some(path)) if lives && !before.lived => events.push(LogEvent::Created(path)),
                (Some(path), None) if before.lived && !lives => events.push(LogEvent::Deleted(path)),
                (Some(from), Some(to)) => {
                    if is_file && deleted && !before.deleted {
                        events.push(LogEvent::KeptEdited(to.clone()));
                    } else if before.content != content {
                        events.push(LogEvent::Edited(to.clone()));
                    }
                    if from != to {
                        events.push(LogEvent::Moved { from, to });
                    }
                }
                _ => {}
            }
            for what in events {
                self.log(cx, Some(before.author), what);
            }
        }
    }
}
