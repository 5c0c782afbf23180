//! From others into the documents.
//!
//! Invariant: every change is applied once all it depends on is here, in whatever order things come, and waits as a row
//! until then; a refusal never blocks the rest. Changes of one document are applied in one batch. Why: applying costs by
//! the call, not by the change. Spec: docs/files.md#receiving.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::Change;
use automerge::legacy::Key;
use bytes::Bytes;

use crate::content::{Content, DocumentName, Item, VersionBytes};
use crate::files::change::{ChangeError, parse_change};
use crate::files::documents::{count, has, ours};
use crate::files::entry::id_of_key;
use crate::files::names::{Document, start_of, version_hash};
use crate::files::record::ROWS;
use crate::files::tree::Tree;
use crate::files::{Author, Cx, Files, Versions, text};
use crate::id::{ChangeHash, FileId, VersionHash};
use crate::store::{Read, Table, Tx, rows};
use crate::time::Timestamp;

/// Most changes that wait for others: what the busiest team makes in a long absence.
const WAITING_MAX: u64 = 200_000;
/// Most bytes that wait.
const WAITING_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// An item that was not taken, and why. Whoever published it is to blame, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The document it was for.
    pub document: DocumentName,
    /// Which of its items, from 0.
    pub item: usize,
    /// Why.
    pub why: Refused,
}

/// Why an item was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No document of files is named so; another version of Weft may know it.
    #[error("a document of a kind that this version of Weft does not know")]
    UnknownDocument,
    /// A version in a tree, a change among versions.
    #[error("an item that has no place in this document")]
    UnexpectedItem,
    /// The version's bytes have another hash than it says.
    #[error("a version whose bytes have another hash")]
    WrongHash,
    /// Not a change that can be taken.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A change of a text that builds on nothing; the founding change never travels.
    #[error("a change of a text that does not build on its founding")]
    Unfounded,
    /// The text founded here on the same version has another first change: two versions of Weft disagree.
    #[error("founding this text gives another change here; upgrade the older of the two agents")]
    BaseDiffers,
    /// Automerge refused it (for instance a second change with the same actor and number).
    #[error("a change that does not fit its document")]
    DoesNotFit,
    /// Nobody's fault: too much waits for what has not come.
    #[error("too many changes wait for others that have not arrived")]
    TooManyWaiting,
}

/// What waits, counted.
#[derive(Default)]
pub(crate) struct Waiting {
    by_document: BTreeMap<DocumentName, u64>,
    bytes: u64,
}

impl Waiting {
    pub(crate) fn load(&mut self, key: &[u8], value: &[u8]) {
        let name = key.split(|byte| *byte == 0).next().and_then(|name| core::str::from_utf8(name).ok());
        if let Some(name) = name.and_then(DocumentName::new) {
            self.add(&name, value.len());
        }
    }
    fn add(&mut self, name: &DocumentName, bytes: usize) {
        *self.by_document.entry(name.clone()).or_default() += 1;
        self.bytes += bytes as u64;
    }
    fn remove(&mut self, name: &DocumentName, bytes: usize) {
        if let Some(count) = self.by_document.get_mut(name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_document.remove(name);
            }
        }
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
    pub(crate) fn count(&self) -> u64 {
        self.by_document.values().sum()
    }
    fn is_full(&self) -> bool {
        self.count() >= WAITING_MAX || self.bytes >= WAITING_BYTES_MAX
    }
}

/// The entries whose registers these changes of a bucket set, wherever they stand; `None`: that cannot be told.
fn entries_named(changes: &[Change]) -> Option<BTreeSet<FileId>> {
    let named = || {
        let operations = changes.iter().flat_map(|change| change.decode().operations);
        operations
            .filter_map(|operation| match operation.key {
                Key::Map(key) => id_of_key(&key),
                Key::Seq(_) => None,
            })
            .collect()
    };
    catch_unwind(AssertUnwindSafe(named)).ok()
}

/// Key of a waiting row: name ‖ 0 ‖ hash.
fn waiting_key(name: &DocumentName, hash: &[u8; 32]) -> Vec<u8> {
    let mut key = name.as_str().as_bytes().to_vec();
    key.push(0);
    key.extend(hash);
    key
}

/// What waits in a row: a change (1 ‖ bytes), or a founding (2 ‖ version; its base hash is in the key).
const WAITS_CHANGE: u8 = 1;
const WAITS_FOUNDING: u8 = 2;

impl Files {
    /// Accepted content from another chain (or our own, replayed after a rebuild). Changes whose dependencies or base
    /// are missing wait in [`Table::Waiting`]. Returns what it refused, by item; refusals never block the rest.
    pub fn handle_content(
        &mut self,
        now: Timestamp,
        author: Author,
        content: &Content,
        versions: &mut dyn Versions,
        tx: &Tx<'_>,
    ) -> Vec<Refusal> {
        let mut cx = Cx { now, versions, tx };
        let mut refusals = Vec::new();
        for (name, items) in &content.documents {
            let mut refuse = |item: usize, why: Refused| {
                refusals.push(Refusal { document: name.clone(), item, why });
            };
            match Document::parse(name) {
                None => refuse(0, Refused::UnknownDocument),
                Some(Document::Versions(id)) => {
                    for (index, item) in items.iter().enumerate() {
                        if let Err(why) = self.take_version(id, item, &mut cx) {
                            refuse(index, why);
                        }
                    }
                    self.retry_texts(id, author, &mut cx);
                }
                Some(document @ (Document::Tree(_) | Document::Text(..))) => {
                    for (index, why) in self.take_changes(document, name, items, author, &mut cx) {
                        refuse(index, why);
                    }
                }
            }
        }
        self.settle_later(&mut cx);
        refusals
    }

    /// All pieces of this blob are stored.
    pub fn handle_blob_here(&mut self, now: Timestamp, hash: &VersionHash, versions: &mut dyn Versions, tx: &Tx<'_>) {
        let mut cx = Cx { now, versions, tx };
        self.work.blob_here(*hash);
        self.settle_later(&mut cx);
    }

    fn take_version(&mut self, _id: FileId, item: &Item, _cx: &mut Cx<'_, '_>) -> Result<(), Refused> {
        let Item::Version { hash, bytes } = item else { return Err(Refused::UnexpectedItem) };
        if let VersionBytes::Inline(bytes) = bytes {
            if version_hash(&self.identity.workspace, bytes) != *hash {
                return Err(Refused::WrongHash);
            }
            self.fresh.insert(*hash, bytes.clone());
        }
        self.work.version_told(hash);
        Ok(())
    }

    /// Takes the items of a tree or text document; refusals by item.
    fn take_changes(
        &mut self,
        document: Document,
        name: &DocumentName,
        items: &[Item],
        author: Author,
        cx: &mut Cx<'_, '_>,
    ) -> Vec<(usize, Refused)> {
        let mut refused = Vec::new();
        let mut changes: Vec<(usize, Change)> = Vec::new();
        let is_text = matches!(document, Document::Text(..));
        for (index, item) in items.iter().enumerate() {
            match item {
                Item::Change(bytes) => match parse_change(bytes) {
                    Ok(change) if is_text && change.deps().is_empty() => refused.push((index, Refused::Unfounded)),
                    Ok(change) => changes.push((index, change)),
                    Err(error) => refused.push((index, error.into())),
                },
                Item::Founded { version, base } if is_text => {
                    if let Err(why) = self.take_founding(document, name, *version, *base, cx) {
                        refused.push((index, why));
                    }
                }
                Item::Founded { .. } | Item::Version { .. } => refused.push((index, Refused::UnexpectedItem)),
            }
        }
        let numbers: BTreeMap<[u8; 32], usize> = changes.iter().map(|(index, one)| (one.hash().0, *index)).collect();
        let number = |change: &Change| numbers.get(&change.hash().0).copied().unwrap_or(0);
        let changes: Vec<Change> = changes.into_iter().map(|(_, change)| change).collect();
        self.found_for(document, &changes, cx);
        let (unfit, early) = self.apply_ready(document, changes, author, cx);
        refused.extend(unfit.iter().map(|change| (number(change), Refused::DoesNotFit)));
        for change in early {
            let mut value = vec![WAITS_CHANGE];
            value.extend(change.raw_bytes());
            if let Err(why) = self.wait(name, &change.hash().0, value, cx.tx) {
                refused.push((number(&change), why));
            }
        }
        self.retry(document, name, author, cx);
        refused
    }

    /// Applies those changes whose dependencies are here, in an order that works; returns those that did not fit, and
    /// those that came too early.
    fn apply_ready(
        &mut self,
        document: Document,
        changes: Vec<Change>,
        author: Author,
        cx: &mut Cx<'_, '_>,
    ) -> (Vec<Change>, Vec<Change>) {
        let doc = &self.documents.open(document, cx.tx).doc;
        let mut rest: Vec<Change> = changes.into_iter().filter(|change| !has(doc, &change.hash())).collect();
        let mut ready: Vec<Change> = Vec::new();
        let mut ready_hashes: BTreeSet<[u8; 32]> = BTreeSet::new();
        loop {
            let before = rest.len();
            let mut later = Vec::new();
            for change in rest {
                let here = |dep: &automerge::ChangeHash| ready_hashes.contains(&dep.0) || has(doc, dep);
                if change.deps().iter().all(here) {
                    if ready_hashes.insert(change.hash().0) {
                        ready.push(change);
                    }
                } else {
                    later.push(change);
                }
            }
            rest = later;
            if rest.is_empty() || rest.len() == before {
                break;
            }
        }
        if ready.is_empty() {
            return (Vec::new(), rest);
        }
        let all = ready.len() as u64;
        let named = match document {
            Document::Tree(_) => entries_named(&ready),
            Document::Text(..) | Document::Versions(_) => None,
        };
        let unfit = self.documents.apply(document, ready, cx.tx);
        match document {
            Document::Tree(bucket) => {
                self.changes += all.saturating_sub(unfit.len() as u64);
                self.take_bucket(bucket, named, author, cx);
            }
            Document::Text(id, start) => {
                if let Some(version) = self.tree.texts.get(&(id, start)).map(|state| state.version) {
                    let old = self.tree.entries.get(&id).cloned();
                    self.note_before(id, old.as_ref(), author);
                    self.note_text(id, version, cx);
                    self.refresh(&id, cx);
                }
            }
            Document::Versions(_) => {}
        }
        (unfit, rest)
    }

    /// The entries of a bucket may be others now: those named, or all of them.
    pub(super) fn take_bucket(
        &mut self,
        bucket: u8,
        named: Option<BTreeSet<FileId>>,
        author: Author,
        cx: &mut Cx<'_, '_>,
    ) {
        let ids = named.unwrap_or_else(|| self.tree.ids(bucket, &mut self.documents, cx.tx));
        for id in ids {
            let old = self.tree.entries.get(&id).cloned();
            if !self.tree.refresh(&id, &mut self.documents, cx.tx) {
                continue;
            }
            // The log wants to know what it was.
            self.note_before(id, old.as_ref(), author);
            self.touch(&id, old.as_ref(), cx);
            // Which version a text starts from may be known only now.
            self.retry_texts(id, author, cx);
        }
    }

    /// Founds a text as its first editor did, or waits for the version's bytes.
    fn take_founding(
        &mut self,
        document: Document,
        name: &DocumentName,
        version: VersionHash,
        base: ChangeHash,
        cx: &mut Cx<'_, '_>,
    ) -> Result<(), Refused> {
        let Document::Text(id, start) = document else { return Err(Refused::UnexpectedItem) };
        if start_of(&version) != start {
            return Err(Refused::UnexpectedItem);
        }
        let loaded = self.documents.open(document, cx.tx);
        if count(&loaded.doc) > 0 {
            let same = has(&loaded.doc, &automerge::ChangeHash(base.0));
            return if same { Ok(()) } else { Err(Refused::BaseDiffers) };
        }
        let Some(bytes) = self.bytes_of(cx, &version) else {
            let mut value = vec![WAITS_FOUNDING];
            value.extend(version.0);
            return self.wait(name, &base.0, value, cx.tx);
        };
        let doc = text::found(&id, &version, &bytes).ok_or(Refused::UnexpectedItem)?;
        if ours(&doc.get_heads()) != [base] {
            return Err(Refused::BaseDiffers);
        }
        self.documents.insert(document, doc, cx.tx);
        self.note_text(id, version, cx);
        Ok(())
    }

    /// Founds a text that nobody says is founded, if these changes build on its founding and its version is here. Why: who
    /// said so may have been removed since, and what others wrote there must not wait for that for ever.
    fn found_for(&mut self, document: Document, changes: &[Change], cx: &mut Cx<'_, '_>) {
        let Document::Text(id, start) = document else { return };
        if changes.is_empty() || count(&self.documents.open(document, cx.tx).doc) > 0 {
            return;
        }
        let named = Tree::registers(&id, &mut self.documents, cx.tx).map(|registers| {
            let replaced = registers.replaced().into_iter().map(|known| known.version);
            registers.versions().into_iter().map(|version| version.hash).chain(replaced).collect::<Vec<_>>()
        });
        let fresh = self.fresh.keys().copied();
        let version = named.into_iter().flatten().chain(fresh).find(|version| start_of(version) == start);
        let Some(version) = version else { return };
        let Some(doc) = self.bytes_of(cx, &version).and_then(|bytes| text::found(&id, &version, &bytes)) else {
            return;
        };
        let founding = doc.get_heads();
        if changes.iter().any(|change| change.deps().iter().any(|dep| founding.contains(dep))) {
            self.documents.insert(document, doc, cx.tx);
            self.note_text(id, version, cx);
        }
    }

    fn wait(&mut self, name: &DocumentName, hash: &[u8; 32], value: Vec<u8>, tx: &Tx<'_>) -> Result<(), Refused> {
        let key = waiting_key(name, hash);
        if tx.get(Table::Waiting, &key).is_some() {
            return Ok(());
        }
        if self.waiting.is_full() {
            return Err(Refused::TooManyWaiting);
        }
        self.waiting.add(name, value.len());
        tx.put(Table::Waiting, key, value);
        Ok(())
    }

    /// Versions of this file came: texts that waited for them can be founded.
    fn retry_texts(&mut self, id: FileId, author: Author, cx: &mut Cx<'_, '_>) {
        if self.waiting.by_document.is_empty() {
            return;
        }
        let prefix = format!("file:{id}:text-");
        let names: Vec<DocumentName> =
            self.waiting.by_document.keys().filter(|name| name.as_str().starts_with(&prefix)).cloned().collect();
        for name in names {
            if let Some(document) = Document::parse(&name) {
                self.retry(document, &name, author, cx);
            }
        }
    }

    /// Tries everything that waits for this document again, as long as something fits.
    pub(super) fn retry(&mut self, document: Document, name: &DocumentName, author: Author, cx: &mut Cx<'_, '_>) {
        if !self.waiting.by_document.contains_key(name) {
            return;
        }
        let mut prefix = name.as_str().as_bytes().to_vec();
        prefix.push(0);
        let rows: Vec<(Vec<u8>, Bytes)> = rows(cx.tx, Table::Waiting, &prefix, ROWS).collect();
        let mut changes = Vec::new();
        for (key, value) in &rows {
            let hash: Option<[u8; 32]> = key.get(prefix.len()..).and_then(|hash| hash.try_into().ok());
            match (value.split_first(), hash) {
                (Some((&WAITS_FOUNDING, version)), Some(base)) => {
                    let version = VersionHash::from_slice(version);
                    let here = version.filter(|version| self.bytes_of(cx, version).is_some());
                    if let Some(version) = here {
                        // A founding that turns out wrong is dropped: it can never fit.
                        let _ = self.take_founding(document, name, version, ChangeHash(base), cx);
                        self.stop_waiting(name, key, value.len(), cx.tx);
                    }
                }
                (Some((&WAITS_CHANGE, bytes)), Some(_)) => match parse_change(bytes) {
                    Ok(change) => changes.push(change),
                    Err(_) => self.stop_waiting(name, key, value.len(), cx.tx),
                },
                _ => self.stop_waiting(name, key, value.len(), cx.tx),
            }
        }
        let lens: BTreeMap<[u8; 32], usize> =
            changes.iter().map(|change| (change.hash().0, change.raw_bytes().len() + 1)).collect();
        self.found_for(document, &changes, cx);
        let (_, early) = self.apply_ready(document, changes, author, cx);
        let early: BTreeSet<[u8; 32]> = early.iter().map(|change| change.hash().0).collect();
        for (hash, len) in lens {
            if !early.contains(&hash) {
                self.stop_waiting(name, &waiting_key(name, &hash), len, cx.tx);
            }
        }
    }

    fn stop_waiting(&mut self, name: &DocumentName, key: &[u8], len: usize, tx: &Tx<'_>) {
        self.waiting.remove(name, len);
        tx.delete(Table::Waiting, key);
    }
}
