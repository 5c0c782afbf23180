//! Automerge documents: loaded when needed, kept while they fit, stored as a snapshot and increments.
//!
//! Invariant: the rows of a document always hold every change that was applied to it; what is in memory can be dropped
//! at any time. Changes of others are applied under `catch_unwind`, and after a failure the document is read again from
//! its rows. Why: a malformed change may panic half way through. Rows that do not hold a whole document, or are others than
//! were last written, unwind as [`Damaged`]: a shorter document would speak for files that are gone. Spec: docs/files.md#documents.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, Change, LoadOptions, ReadDoc, TextEncoding};

use crate::content::DocumentName;
use crate::damage::Damaged;
use crate::files::names::Document;
use crate::files::text;
use crate::store::{Read, Table, Tx, rows};

/// How much memory loaded documents may take, by estimate, in bytes.
pub(crate) const CACHE_BYTES_MAX: usize = 24 * 1024 * 1024;
/// A loaded document takes about this much by itself ...
const LOADED_BYTES: usize = 10 * 1024;
/// ... and this many times its stored size.
const LOADED_FACTOR: usize = 4;
/// Increments are folded into the snapshot when there are more than this many ...
const INCREMENTS_MAX: u64 = 64;
/// ... or when they hold more than half the snapshot, but not before this many bytes.
const INCREMENT_BYTES_MIN: usize = 4 * 1024;

/// A document in memory.
pub(crate) struct Loaded {
    pub(crate) doc: Automerge,
    snapshot_bytes: usize,
    increment_bytes: usize,
    increments: u64,
    /// Number of the next increment.
    next: u64,
    used: u64,
    /// Its rows could not all be read: never folded, so that nothing more is lost.
    damaged: bool,
}

impl Loaded {
    fn shape(&self) -> Shape {
        (self.snapshot_bytes, self.increments, self.next)
    }
    fn estimate(&self) -> usize {
        LOADED_BYTES + LOADED_FACTOR * (self.snapshot_bytes + self.increment_bytes)
    }
    /// Whether its rows could not all be read.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged
    }
}

/// The documents of a workspace.
#[derive(Default)]
pub(crate) struct Documents {
    loaded: BTreeMap<Document, Loaded>,
    clock: u64,
    /// Bytes of all stored documents.
    pub(crate) stored_bytes: u64,
    /// What the rows of documents that were in memory looked like when they were last read or written.
    shapes: BTreeMap<Document, Shape>,
}

/// Snapshot's bytes, how many increments, and the number of the next.
type Shape = (usize, u64, u64);

/// Start of the keys of notes that a document, built anew, could not be read again; then its name.
pub(crate) const UNREADABLE: &[u8] = b"unreadable/";

fn row_key(name: &DocumentName, increment: Option<u64>) -> Vec<u8> {
    let mut key = name.as_str().as_bytes().to_vec();
    key.push(0);
    match increment {
        None => key.push(0),
        Some(n) => key.extend(n.to_be_bytes()),
    }
    key
}

/// Loads a document from its rows.
fn load(name: &DocumentName, shape: Option<Shape>, store: &dyn Read) -> Loaded {
    let mut prefix = name.as_str().as_bytes().to_vec();
    prefix.push(0);
    let mut loaded = Loaded {
        doc: text::empty(),
        snapshot_bytes: 0,
        increment_bytes: 0,
        increments: 0,
        next: 1,
        used: 0,
        damaged: false,
    };
    let mut bytes = Vec::new();
    let mut dense = true;
    for (key, value) in rows(store, Table::Documents, &prefix, 256) {
        match key.get(prefix.len()..).map(<[u8; 8]>::try_from) {
            Some(Ok(n)) => {
                dense &= loaded.increments == 0 || u64::from_be_bytes(n) == loaded.next;
                loaded.increments += 1;
                loaded.increment_bytes += value.len();
                loaded.next = u64::from_be_bytes(n) + 1;
            }
            Some(Err(_)) | None => loaded.snapshot_bytes = value.len(),
        }
        bytes.extend_from_slice(&value);
    }
    if !bytes.is_empty() {
        let options = || LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
        match catch_unwind(AssertUnwindSafe(|| Automerge::load_with_options(&bytes, options()))) {
            Ok(Ok(doc)) => loaded.doc = doc,
            Ok(Err(_)) | Err(_) => loaded.damaged = true,
        }
    }
    // The number of the next increment is known only from the last one, if there is any.
    let same = |(snapshot, increments, next)| {
        (snapshot, increments) == (loaded.snapshot_bytes, loaded.increments) && (increments == 0 || next == loaded.next)
    };
    let whole = dense && shape.is_none_or(same) && loaded.doc.get_missing_deps(&[]).is_empty();
    if loaded.damaged || !whole {
        loaded.damaged = true;
        let note = [UNREADABLE, name.as_str().as_bytes()].concat();
        if !store.has(Table::Meta, &note) {
            Damaged { table: Table::Documents, key: Some(prefix) }.unwind();
        }
    }
    loaded
}

impl Documents {
    /// The document, empty if there is none.
    pub(crate) fn open(&mut self, document: Document, store: &dyn Read) -> &mut Loaded {
        self.clock += 1;
        let clock = self.clock;
        let shape = self.shapes.get(&document).copied();
        let loaded = self.loaded.entry(document).or_insert_with_key(|document| load(&document.name(), shape, store));
        loaded.used = clock;
        loaded
    }
    /// Puts a document in place that has no rows yet, with its first change.
    pub(crate) fn insert(&mut self, document: Document, doc: Automerge, tx: &Tx<'_>) {
        let changes = doc.get_changes(&[]);
        let loaded = self.open(document, tx);
        loaded.doc = doc;
        self.append(document, &changes, tx);
    }
    /// Puts another document in the place of one: a snapshot in the place of all its rows.
    pub(crate) fn replace(&mut self, document: Document, doc: Automerge, tx: &Tx<'_>) {
        let name = document.name();
        let loaded = self.open(document, tx);
        let before = loaded.snapshot_bytes + loaded.increment_bytes;
        for n in loaded.next.saturating_sub(loaded.increments)..loaded.next {
            tx.delete(Table::Documents, row_key(&name, Some(n)));
        }
        let snapshot = doc.save();
        loaded.doc = doc;
        (loaded.increments, loaded.increment_bytes) = (0, 0);
        loaded.snapshot_bytes = snapshot.len();
        self.stored_bytes = (self.stored_bytes + snapshot.len() as u64).saturating_sub(before as u64);
        tx.put(Table::Documents, row_key(&name, None), snapshot);
    }
    /// Stores changes that were made in the loaded document here.
    pub(crate) fn append(&mut self, document: Document, changes: &[Change], tx: &Tx<'_>) {
        if changes.is_empty() {
            return;
        }
        let name = document.name();
        let Some(loaded) = self.loaded.get_mut(&document) else { return };
        let mut bytes = Vec::new();
        for change in changes {
            bytes.extend_from_slice(change.raw_bytes());
        }
        loaded.increments += 1;
        loaded.increment_bytes += bytes.len();
        let before = loaded.snapshot_bytes + loaded.increment_bytes - bytes.len();
        tx.put(Table::Documents, row_key(&name, Some(loaded.next)), bytes);
        loaded.next += 1;
        let many = loaded.increments > INCREMENTS_MAX
            || loaded.increment_bytes > INCREMENT_BYTES_MIN.max(loaded.snapshot_bytes / 2);
        if many && !loaded.damaged {
            let snapshot = loaded.doc.save();
            loaded.snapshot_bytes = snapshot.len();
            tx.put(Table::Documents, row_key(&name, None), snapshot);
            let first = loaded.next - loaded.increments;
            for n in first..loaded.next {
                tx.delete(Table::Documents, row_key(&name, Some(n)));
            }
            loaded.increments = 0;
            loaded.increment_bytes = 0;
        }
        let after = loaded.snapshot_bytes + loaded.increment_bytes;
        self.stored_bytes = (self.stored_bytes + after as u64).saturating_sub(before as u64);
    }
    /// Applies changes of others whose dependencies are all there, in one batch, and stores them. If the batch fails,
    /// one by one; returns those that were refused.
    pub(crate) fn apply(&mut self, document: Document, changes: Vec<Change>, tx: &Tx<'_>) -> Vec<Change> {
        let loaded = self.open(document, tx);
        let batch = changes.clone();
        let applied = catch_unwind(AssertUnwindSafe(|| loaded.doc.apply_changes(batch)));
        if matches!(applied, Ok(Ok(()))) && changes.iter().all(|change| has(&loaded.doc, &change.hash())) {
            self.append(document, &changes, tx);
            return Vec::new();
        }
        self.forget(document);
        let mut refused = Vec::new();
        for change in changes {
            let loaded = self.open(document, tx);
            let one = change.clone();
            let applied = catch_unwind(AssertUnwindSafe(|| loaded.doc.apply_changes([one])));
            if matches!(applied, Ok(Ok(()))) && has(&loaded.doc, &change.hash()) {
                self.append(document, &[change], tx);
            } else {
                self.forget(document);
                refused.push(change);
            }
        }
        refused
    }
    /// Drops a document from memory.
    pub(crate) fn forget(&mut self, document: Document) {
        if let Some(loaded) = self.loaded.remove(&document).filter(|loaded| !loaded.damaged) {
            self.shapes.insert(document, loaded.shape());
        }
    }
    /// Drops what was not used for longest, until the rest fits.
    pub(crate) fn trim(&mut self) {
        let mut bytes: usize = self.loaded.values().map(Loaded::estimate).sum();
        while bytes > CACHE_BYTES_MAX && self.loaded.len() > 1 {
            let Some((oldest, freed)) = self
                .loaded
                .iter()
                .min_by_key(|(_, loaded)| loaded.used)
                .map(|(document, loaded)| (*document, loaded.estimate()))
            else {
                return;
            };
            self.forget(oldest);
            bytes -= freed;
        }
    }
    /// Drops all: the agent is idle.
    pub(crate) fn clear(&mut self) {
        let all: Vec<Document> = self.loaded.keys().copied().collect();
        all.into_iter().for_each(|document| self.forget(document));
    }
}

/// Whether a document holds this change.
pub(crate) fn has(doc: &Automerge, hash: &automerge::ChangeHash) -> bool {
    doc.get_change_meta_by_hash(hash).is_some()
}

/// Our hashes as Automerge's.
pub(crate) fn theirs(heads: &[crate::id::ChangeHash]) -> Vec<automerge::ChangeHash> {
    heads.iter().map(|head| automerge::ChangeHash(head.0)).collect()
}

/// Automerge's hashes as ours.
pub(crate) fn ours(heads: &[automerge::ChangeHash]) -> Vec<crate::id::ChangeHash> {
    heads.iter().map(|head| crate::id::ChangeHash(head.0)).collect()
}

/// The heads of a document, as ours.
pub(crate) fn heads(doc: &Automerge) -> Vec<crate::id::ChangeHash> {
    ours(&doc.get_heads())
}

/// How many changes a document has.
pub(crate) fn count(doc: &Automerge) -> u64 {
    doc.stats().num_changes
}
