//! The tree in memory: what every entry is now, resolved from its registers and from the states of its texts.
//!
//! Invariant: an [`Entry`] is a pure function of its bucket's document and of the documents of its texts; nothing here
//! decides anything from the disk. Spec: docs/files.md#tree.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ROOT, ReadDoc};

use crate::files::documents::{Documents, has, theirs};
use crate::files::entry::{Kind, Known, Place, Registers, VersionRef, id_of_key};
use crate::files::names::{BUCKETS, Document, bucket, start_of};
use crate::files::record::TextState;
use crate::id::{FileId, VersionHash};
use crate::store::Read;

/// One of the contents of a file that stand side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alternative {
    pub(crate) version: VersionRef,
    /// The text founded on it, if it was edited.
    pub(crate) text: Option<Box<TextState>>,
}

impl Alternative {
    /// Hash of the bytes it is written as.
    pub(crate) fn hash(&self) -> VersionHash {
        self.text.as_ref().map_or(self.version.hash, |text| text.hash)
    }
}

/// What an entry is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    pub(crate) executable: bool,
    /// A folder: whether it was deleted. A file: whether somebody deleted what others went on editing.
    pub(crate) deleted: bool,
    /// Its contents that nobody deleted; none: the file is gone. Always empty for folders.
    pub(crate) alternatives: Box<[Alternative]>,
}

impl Entry {
    /// Whether it is shown; a deleted folder may still be, for what is in it.
    pub(crate) fn lives(&self) -> bool {
        match self.kind {
            Kind::Folder => !self.deleted,
            Kind::File | Kind::Link => !self.alternatives.is_empty(),
        }
    }
}

/// All entries, and the states of all texts.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) entries: BTreeMap<FileId, Entry>,
    pub(crate) texts: BTreeMap<(FileId, [u8; 8]), TextState>,
    /// The entries that hold large files.
    pub(crate) blobs: BTreeSet<FileId>,
    /// Whether one of those changed since it was last asked.
    pub(crate) blobs_moved: bool,
}

/// The ids of all entries in a bucket's document.
fn ids(doc: &automerge::Automerge) -> BTreeSet<FileId> {
    doc.keys(ROOT).filter_map(|key| id_of_key(&key)).collect()
}

impl Tree {
    /// Reads every bucket; how many changes they have.
    pub(crate) fn load(&mut self, documents: &mut Documents, store: &dyn Read) -> u64 {
        let mut changes = 0;
        let mut entries = Vec::new();
        for bucket in 0..BUCKETS {
            let doc = &documents.open(Document::Tree(bucket), store).doc;
            changes += doc.stats().num_changes;
            let registers: Vec<(FileId, Registers)> =
                ids(doc).into_iter().filter_map(|id| Some((id, Registers::read(doc, &id)?))).collect();
            // What stays is made after the document went: it would leave holes where the document was.
            documents.forget(Document::Tree(bucket));
            for (id, registers) in registers {
                entries.push((id, self.resolve(&id, registers, documents, store)));
            }
        }
        // Made in one go: a map that grows in order has half-empty nodes.
        self.entries = entries.into_iter().collect();
        self.blobs = self.entries.iter().filter(|(_, entry)| entry.has_blobs()).map(|(id, _)| *id).collect();
        self.blobs_moved = true;
        changes
    }
    /// The registers of an entry.
    pub(crate) fn registers(id: &FileId, documents: &mut Documents, store: &dyn Read) -> Option<Registers> {
        Registers::read(&documents.open(Document::Tree(bucket(id)), store).doc, id)
    }
    /// Reads an entry again; whether it changed.
    pub(crate) fn refresh(&mut self, id: &FileId, documents: &mut Documents, store: &dyn Read) -> bool {
        let Some(registers) = Self::registers(id, documents, store) else {
            self.blobs_moved |= self.blobs.remove(id);
            return self.entries.remove(id).is_some();
        };
        let entry = self.resolve(id, registers, documents, store);
        if self.entries.get(id) == Some(&entry) {
            return false;
        }
        if entry.has_blobs() {
            self.blobs.insert(*id);
            self.blobs_moved = true;
        } else {
            self.blobs_moved |= self.blobs.remove(id);
        }
        self.entries.insert(*id, entry);
        true
    }
    /// The ids of all entries in a bucket.
    pub(crate) fn ids(&self, bucket: u8, documents: &mut Documents, store: &dyn Read) -> BTreeSet<FileId> {
        ids(&documents.open(Document::Tree(bucket), store).doc)
    }

    fn resolve(&self, id: &FileId, registers: Registers, documents: &mut Documents, store: &dyn Read) -> Entry {
        let known = registers.deleted();
        let mut versions = registers.versions();
        // A version that was replaced by somebody who had not seen all edits of its text comes back for them.
        let replaced = registers.replaced();
        for old in &replaced {
            let Some(state) = self.texts.get(&(*id, start_of(&old.version))) else { continue };
            if versions.iter().all(|version| version.hash != old.version)
                && !self.covered(id, &old.version, &replaced, documents, store)
            {
                versions.push(VersionRef { hash: old.version, len: state.len, text: true, blob: false });
            }
        }
        let mut alternatives: Vec<Alternative> = Vec::new();
        for version in versions {
            let gone = known.as_ref().is_some_and(|known| self.covered(id, &version.hash, known, documents, store));
            if !gone {
                let text = self.texts.get(&(*id, start_of(&version.hash))).filter(|_| version.text);
                alternatives.push(Alternative { version, text: text.cloned().map(Box::new) });
            }
        }
        Entry {
            place: registers.place,
            kind: registers.kind,
            executable: registers.executable,
            deleted: known.is_some(),
            alternatives: alternatives.into(),
        }
    }
    /// Whether whoever knew `known` knew all that there is of this version.
    fn covered(
        &self,
        id: &FileId,
        version: &VersionHash,
        known: &[Known],
        documents: &mut Documents,
        store: &dyn Read,
    ) -> bool {
        let mut of_version = known.iter().filter(|known| known.version == *version).peekable();
        if of_version.peek().is_none() {
            return false;
        }
        let Some(state) = self.texts.get(&(*id, start_of(version))) else { return true };
        let mut heads = Vec::new();
        for known in of_version {
            if known.heads == state.heads {
                return true;
            }
            heads.extend(known.heads.iter().copied());
        }
        if heads.is_empty() {
            return false;
        }
        let doc = &documents.open(Document::text(*id, version), store).doc;
        let heads: Vec<_> = theirs(&heads).into_iter().filter(|head| has(doc, head)).collect();
        !heads.is_empty() && doc.get_changes(&heads).is_empty()
    }
}
