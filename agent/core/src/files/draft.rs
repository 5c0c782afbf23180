//! What one call is going to publish, packed.
//!
//! Invariant: versions stand before the texts founded on them and before the tree entries that name them, folders before
//! what is in them; a batch is about [`BATCH_BYTES`] and touches few buckets. Why: ten thousand files are imported in
//! some eighty envelopes with one tree change each, instead of ten thousand. Spec: docs/files.md#packing.

use std::collections::BTreeMap;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, PatchLog, ROOT, ScalarValue};
use bytes::Bytes;
use weft_protocol::cbor::{self, Wire};

use crate::content::{Content, Item};
use crate::files::entry::{Field, Kind};
use crate::files::names::{Document, bucket};
use crate::files::{Cx, Files, FilesOutput};
use crate::id::FileId;

/// About how many bytes one published batch holds.
const BATCH_BYTES: usize = 256 * 1024;
/// Most entries in one batch: their tree changes stay far below the size limit of a change.
const BATCH_ENTRIES: usize = 512;
/// About what one entry costs in its tree change.
const ENTRY_BYTES: usize = 200;

/// The registers of one entry that are set.
pub(super) type Puts = (FileId, BTreeMap<Field, ScalarValue>);

/// What one entry publishes.
#[derive(Default)]
struct Entry {
    folder: bool,
    puts: BTreeMap<Field, ScalarValue>,
    versions: Vec<Item>,
    texts: Vec<(Document, Vec<Item>)>,
    bytes: usize,
}

/// Entries with something to publish.
#[derive(Default)]
pub(crate) struct Draft {
    entries: BTreeMap<FileId, Entry>,
}

impl Draft {
    fn entry(&mut self, id: FileId) -> &mut Entry {
        self.entries.entry(id).or_default()
    }
    /// Whether anything is drafted for this entry.
    pub(crate) fn contains(&self, id: &FileId) -> bool {
        self.entries.contains_key(id)
    }
    /// Sets a register to CBOR.
    pub(crate) fn put<T: Wire>(&mut self, id: FileId, field: Field, value: &T) {
        let bytes = cbor::to_bytes(value);
        let entry = self.entry(id);
        entry.bytes += bytes.len();
        entry.puts.insert(field, ScalarValue::Bytes(bytes));
    }
    /// Sets the kind; files need none.
    pub(crate) fn put_kind(&mut self, id: FileId, kind: Kind) {
        let entry = self.entry(id);
        entry.folder = kind == Kind::Folder;
        match kind {
            Kind::File => None,
            Kind::Folder => entry.puts.insert(Field::Kind, ScalarValue::Uint(1)),
            Kind::Link => entry.puts.insert(Field::Kind, ScalarValue::Uint(2)),
        };
    }
    /// Sets the execute bit.
    pub(crate) fn put_mode(&mut self, id: FileId, executable: bool) {
        self.entry(id).puts.insert(Field::Mode, ScalarValue::Boolean(executable));
    }
    /// Publishes a version.
    pub(crate) fn version(&mut self, id: FileId, item: Item) {
        let entry = self.entry(id);
        entry.bytes += item.size_hint();
        entry.versions.push(item);
    }
    /// Publishes changes of a text.
    pub(crate) fn text(&mut self, id: FileId, document: Document, items: Vec<Item>) {
        let entry = self.entry(id);
        entry.bytes += items.iter().map(Item::size_hint).sum::<usize>();
        entry.texts.push((document, items));
    }
}

impl Files {
    /// Enters the drafted registers into the tree and gives everything out, packed.
    pub(crate) fn publish(&mut self, cx: &mut Cx<'_, '_>) {
        let mut entries: Vec<(FileId, Entry)> = std::mem::take(&mut self.draft).entries.into_iter().collect();
        entries.sort_by_key(|(id, entry)| (!entry.folder, bucket(id)));
        let mut batch: Vec<(FileId, Entry)> = Vec::new();
        let mut bytes = 0;
        for (id, entry) in entries {
            let more = entry.bytes + ENTRY_BYTES;
            if !batch.is_empty() && (bytes + more > BATCH_BYTES || batch.len() >= BATCH_ENTRIES) {
                self.publish_batch(std::mem::take(&mut batch), cx);
                bytes = 0;
            }
            bytes += more;
            batch.push((id, entry));
        }
        if !batch.is_empty() {
            self.publish_batch(batch, cx);
        }
    }

    fn publish_batch(&mut self, batch: Vec<(FileId, Entry)>, cx: &Cx<'_, '_>) {
        let mut content = Content::default();
        let mut buckets: BTreeMap<u8, Vec<Puts>> = BTreeMap::new();
        let mut texts = Vec::new();
        let mut ids = Vec::new();
        for (id, entry) in batch {
            ids.push(id);
            if !entry.versions.is_empty() {
                content.documents.push((Document::Versions(id).name(), entry.versions));
            }
            texts.extend(entry.texts.into_iter().map(|(document, items)| (document.name(), items)));
            if !entry.puts.is_empty() {
                buckets.entry(bucket(&id)).or_default().push((id, entry.puts));
            }
        }
        content.documents.extend(texts);
        for (bucket, puts) in buckets {
            if let Some((_, bytes)) = self.enter_bucket(bucket, puts, None, cx) {
                content.documents.push((Document::Tree(bucket).name(), vec![Item::Change(bytes)]));
            }
        }
        self.outputs.push_back(FilesOutput::Publish(content));
        for id in ids {
            self.refresh(&id, cx);
        }
    }

    /// One change with these registers in a bucket's document, at these heads (now, if `None`); its hash and its bytes.
    pub(super) fn enter_bucket(
        &mut self,
        bucket: u8,
        puts: Vec<Puts>,
        heads: Option<&[automerge::ChangeHash]>,
        cx: &Cx<'_, '_>,
    ) -> Option<(automerge::ChangeHash, Bytes)> {
        let document = Document::Tree(bucket);
        let doc = &mut self.documents.open(document, cx.tx).doc;
        doc.set_actor(ActorId::from(self.actor));
        let mut tx = match heads.filter(|heads| doc.get_heads() != **heads) {
            Some(heads) => doc.transaction_at(PatchLog::inactive(), heads).ok()?,
            None => doc.transaction(),
        };
        let mut written = Ok(());
        for (id, fields) in puts {
            for (field, value) in fields {
                written = written.and_then(|()| tx.put(ROOT, field.key(&id), value));
            }
        }
        if written.is_err() {
            tx.rollback();
            return None;
        }
        let time = i64::try_from(cx.now.wall_ms / 1000).unwrap_or(i64::MAX);
        let hash = tx.commit_with(CommitOptions::default().with_time(time)).0?;
        let change = automerge::ReadDoc::get_change_by_hash(doc, &hash)?;
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        self.documents.append(document, &[change], cx.tx);
        self.changes += 1;
        Some((hash, bytes))
    }
}
