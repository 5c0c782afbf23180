//! What was taken in here and is not sealed yet.
//!
//! Invariant: a batch is stored, unsealed, in the transaction that stores the changes in it; it is removed in the one
//! that stores the envelope it went into. Why: sealing settles its number, epoch and nonce for ever, so it waits until
//! we know that no peer has seen another envelope under that number. Spec: docs/sync.md#outbox.

use std::collections::BTreeMap;

use bytes::Bytes;
use weft_protocol::cbor::{Decoded, Reader, Wire, Writer, from_bytes, to_bytes};

use crate::content::{Content, DocumentName, Item};
use crate::store::{Read, Table, Tx, rows};

/// Most ops in one envelope.
pub(super) const OPS_PER_ENVELOPE_MAX: usize = 256;
/// Largest op, in bytes: an epoch op for thousands of devices.
pub(super) const OP_BYTES_MAX: usize = 192 * 1024;

/// A batch of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Batch {
    /// Changes and versions.
    Content(Content),
    /// Signed ops.
    Ops(OpsBody),
    /// A checkpoint: sealed at once, never stored here.
    Checkpoint(Bytes),
}

/// The body of an ops envelope.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OpsBody(pub(crate) Vec<Bytes>);

impl Wire for OpsBody {
    fn encode(&self, writer: &mut Writer) {
        writer.array(self.0.len());
        for op in &self.0 {
            writer.bytes(op);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let mut ops = Vec::new();
        for _ in 0..reader.array_up_to(OPS_PER_ENVELOPE_MAX, "ops")? {
            ops.push(Bytes::copy_from_slice(reader.bytes_up_to(OP_BYTES_MAX, "op")?));
        }
        Ok(Self(ops))
    }
}

/// What is known of a batch without reading it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: usize,
    is_ops: bool,
}

/// The queue, by order of arrival; only sizes are in memory.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: BTreeMap<u64, Entry>,
    next: u64,
}

impl Outbox {
    /// As stored.
    pub(super) fn open(read: &dyn Read) -> Self {
        let mut outbox = Self::default();
        for (key, row) in rows(read, Table::Outbox, &[], 256) {
            let order = key.iter().fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
            outbox.note(order, Entry { bytes: row.len(), is_ops: row.first() == Some(&2) });
        }
        outbox
    }

    fn note(&mut self, order: u64, entry: Entry) {
        self.entries.insert(order, entry);
        self.next = self.next.max(order + 1);
    }

    /// Stores a batch at the end; returns its order.
    pub(super) fn push(&mut self, batch: &Batch, tx: &Tx<'_>) -> u64 {
        let order = self.next;
        let mut row = Vec::new();
        match batch {
            Batch::Content(content) => {
                row.push(1);
                row.extend(to_bytes(content));
            }
            Batch::Ops(ops) => {
                row.push(2);
                row.extend(to_bytes(ops));
            }
            Batch::Checkpoint(_) => {}
        }
        self.note(order, Entry { bytes: row.len(), is_ops: matches!(batch, Batch::Ops(_)) });
        tx.put(Table::Outbox, order.to_be_bytes(), row);
        order
    }

    /// The batch at an order.
    pub(super) fn batch(order: u64, read: &dyn Read) -> Option<Batch> {
        let row = read.get(Table::Outbox, &order.to_be_bytes())?;
        let (kind, body) = row.split_first()?;
        match kind {
            1 => from_bytes(body).ok().map(Batch::Content),
            2 => from_bytes(body).ok().map(Batch::Ops),
            _ => None,
        }
    }

    /// Whether there is anything that may be sealed: ops always, content only by a writer.
    pub(super) fn has_any(&self, writer: bool) -> bool {
        self.entries.values().any(|entry| writer || entry.is_ops)
    }

    /// The first orders, of one kind, that fit into `bytes_max` together (at least one), and the batch they make. Ops come
    /// before all content, so that no content names an op that is behind it in its own chain.
    pub(super) fn front(&self, bytes_max: usize, writer: bool, read: &dyn Read) -> Option<(Vec<u64>, Batch)> {
        let mut orders = Vec::new();
        let mut bytes = 0;
        let mut joined: Option<Batch> = None;
        let ops = self.entries.values().any(|entry| entry.is_ops);
        let due = |entry: &Entry| if ops { entry.is_ops } else { writer };
        for (order, entry) in self.entries.iter().filter(|(_, entry)| due(entry)) {
            if !orders.is_empty() && bytes + entry.bytes > bytes_max {
                break;
            }
            let Some(next) = Self::batch(*order, read) else { break };
            match (&mut joined, next) {
                (None, next) => joined = Some(next),
                (Some(Batch::Content(all)), Batch::Content(next)) => {
                    if all.documents.len() + next.documents.len() > crate::content::DOCUMENTS_PER_ENVELOPE_MAX / 2 {
                        break;
                    }
                    merge(all, next);
                }
                (Some(Batch::Ops(all)), Batch::Ops(next)) if all.0.len() + next.0.len() <= OPS_PER_ENVELOPE_MAX => {
                    all.0.extend(next.0);
                }
                _ => break,
            }
            orders.push(*order);
            bytes += entry.bytes;
        }
        joined.map(|batch| (orders, batch))
    }

    /// Puts another content in the place of a batch; nothing, if it is empty.
    pub(super) fn replace(&mut self, order: u64, content: Content, tx: &Tx<'_>) {
        if content.is_empty() {
            return self.remove(&[order], tx);
        }
        let mut row = vec![1];
        row.extend(to_bytes(&content));
        self.note(order, Entry { bytes: row.len(), is_ops: false });
        tx.put(Table::Outbox, order.to_be_bytes(), row);
    }

    /// Removes what was sealed.
    pub(super) fn remove(&mut self, orders: &[u64], tx: &Tx<'_>) {
        for order in orders {
            self.entries.remove(order);
            tx.delete(Table::Outbox, order.to_be_bytes());
        }
    }

    /// All orders, first to last.
    pub(super) fn orders(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }
    /// How many batches hold content.
    pub(super) fn contents(&self) -> usize {
        self.entries.values().filter(|entry| !entry.is_ops).count()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Puts the items of `next` behind those of the same documents in `all`. A document is applied after every document
/// that stands before it, so items may move towards the front only within their own document.
fn merge(all: &mut Content, next: Content) {
    for (name, items) in next.documents {
        match last_of(all, &name) {
            Some(known) if !items.iter().any(|item| matches!(item, Item::Version { .. })) => known.extend(items),
            _ => all.documents.push((name, items)),
        }
    }
}

fn last_of<'a>(all: &'a mut Content, name: &DocumentName) -> Option<&'a mut Vec<Item>> {
    all.documents.iter_mut().rev().find(|(known, _)| known == name).map(|(_, items)| items)
}
