//! What a replica keeps: typed tables of ordered byte keys, read through a port and written in batches.
//!
//! Reads are a port ([`Read`]), writes are an effect: a core collects them in a [`Tx`] while it handles one input, and
//! the whole batch leaves as one `Persist(token, batch)` output, answered by `Persisted(token)` once it is fsynced.
//!
//! Invariant: a batch is applied whole or not at all, in the order of its tokens; after it was handed out, reads see it
//! (before it is durable). Why: every state a crash can leave is a prefix of batches, so that "stored before sent" is
//! an ordering that the simulator can attack.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::damage::Damaged;

/// The tables of a replica; each says its key and its value. The shell makes one SQL table of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// name -> value: format version, identity of the replica, settings of the core, counters.
    Meta = 1,
    /// order of arrival 8 BE ‖ op id (32) -> signed op bytes; parents come before their children.
    Ops = 2,
    /// epoch id (16) -> access and content secrets, and how we came to hold them. Secret.
    Epochs = 3,
    /// chain (device 16 ‖ incarnation 8 BE) ‖ seq 8 BE -> sealed envelope bytes, as received or as sealed.
    Envelopes = 4,
    /// chain ‖ seq -> what is known of that held envelope without opening it: nonce, link, kind, acceptance and reason.
    Held = 5,
    /// order 8 BE -> a batch taken in but not yet sealed.
    Outbox = 6,
    /// content hash (32) -> where the bytes of that version are: (chain, seq) or outbox order, and size or manifest.
    Versions = 8,
    /// document name ‖ 0 ‖ 0 -> compacted snapshot; document name ‖ 0 ‖ n 8 BE -> n-th increment since.
    Documents = 9,
    /// document name ‖ 0 ‖ change hash (32) -> an accepted change whose dependencies or base are not here yet.
    Waiting = 10,
    /// file id (16) -> what is last on disk there: path, content hash, heads, recent versions written.
    Files = 11,
    /// piece id (32) -> sealed piece of a blob.
    Pieces = 12,
    /// wall ms 8 BE ‖ counter 8 BE -> one entry of the log that people read.
    Log = 14,
    /// invite op id (32) -> the link we issued. Secret.
    Invites = 15,
    /// device (16) -> when it was last heard (wall ms, 8 BE) ‖ bytes of large files it stated to lack (8 BE) ‖ its frontier.
    Peers = 16,
}

impl Table {
    /// All tables, in the order of their numbers.
    pub const ALL: [Table; 14] = [
        Table::Meta,
        Table::Ops,
        Table::Epochs,
        Table::Envelopes,
        Table::Held,
        Table::Outbox,
        Table::Versions,
        Table::Documents,
        Table::Waiting,
        Table::Files,
        Table::Pieces,
        Table::Log,
        Table::Invites,
        Table::Peers,
    ];

    /// The name of its SQL table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Ops => "ops",
            Table::Epochs => "epochs",
            Table::Envelopes => "envelopes",
            Table::Held => "held",
            Table::Outbox => "outbox",
            Table::Versions => "versions",
            Table::Documents => "documents",
            Table::Waiting => "waiting",
            Table::Files => "files",
            Table::Pieces => "pieces",
            Table::Log => "log",
            Table::Invites => "invites",
            Table::Peers => "peers",
        }
    }
}

/// A row as [`Read::scan`] gives it.
pub type Row = (Vec<u8>, Bytes);

/// The read port. Implementations answer from what was handed out so far, durable or not.
///
/// An implementation that cannot read (a damaged database, a failing disk) must not answer "absent": the shell stops
/// the workspace and says so, before the core sees the answer. A single value that is not what was written unwinds with
/// [`Damaged`].
pub trait Read {
    /// The value of one key.
    fn get(&self, table: Table, key: &[u8]) -> Option<Bytes>;
    /// Whether there is a value. A store whose values are long to read says so without reading them.
    fn has(&self, table: Table, key: &[u8]) -> bool {
        self.get(table, key).is_some()
    }
    /// At most `limit` rows whose key starts with `prefix` and is greater than `after` (if given), in key order.
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Row>;
}

/// All rows of a table whose keys start with `prefix`, in key order, read `page` at a time.
pub fn rows<'a>(read: &'a dyn Read, table: Table, prefix: &'a [u8], page: usize) -> impl Iterator<Item = Row> + 'a {
    let mut after: Option<Vec<u8>> = None;
    let mut here: std::vec::IntoIter<Row> = Vec::new().into_iter();
    std::iter::from_fn(move || {
        if let Some(row) = here.next() {
            return Some(row);
        }
        let found = read.scan(table, prefix, after.as_deref(), page);
        after = found.last().map(|(key, _)| key.clone()).or_else(|| after.take());
        here = found.into_iter();
        here.next()
    })
}

/// One change to the store: the new value of a key, or its removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which table.
    pub table: Table,
    /// Which key.
    pub key: Vec<u8>,
    /// The new value; `None` removes the key.
    pub value: Option<Bytes>,
}

/// Keys written and not handed out yet; `None` removes.
type Overlay = BTreeMap<(Table, Vec<u8>), Option<Bytes>>;

/// What one handled input writes, over what the store holds: reads through it see its own writes.
pub struct Tx<'a> {
    read: &'a dyn Read,
    writes: RefCell<Overlay>,
}

impl<'a> Tx<'a> {
    /// Nothing written yet.
    #[must_use]
    pub fn new(read: &'a dyn Read) -> Self {
        Self { read, writes: RefCell::default() }
    }
    /// Sets a key.
    pub fn put(&self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) {
        self.writes.borrow_mut().insert((table, key.into()), Some(value.into()));
    }
    /// Removes a key.
    pub fn delete(&self, table: Table, key: impl Into<Vec<u8>>) {
        self.writes.borrow_mut().insert((table, key.into()), None);
    }
    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.borrow().is_empty()
    }
    /// The batch, in key order.
    #[must_use]
    pub fn into_writes(self) -> Vec<Write> {
        self.writes.into_inner().into_iter().map(|((table, key), value)| Write { table, key, value }).collect()
    }
}

impl Read for Tx<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Option<Bytes> {
        if let Some(written) = self.writes.borrow().get(&(table, key.to_vec())) {
            return written.clone();
        }
        self.read.get(table, key)
    }

    fn has(&self, table: Table, key: &[u8]) -> bool {
        match self.writes.borrow().get(&(table, key.to_vec())) {
            Some(written) => written.is_some(),
            None => self.read.has(table, key),
        }
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Row> {
        let start = after.map_or(prefix, |after| after.max(prefix)).to_vec();
        let writes = self.writes.borrow();
        let mut own = writes
            .range((table, start)..)
            .take_while(|((found, key), _)| *found == table && key.starts_with(prefix))
            .filter(|((_, key), _)| after.is_none_or(|after| key.as_slice() > after))
            .peekable();
        if own.peek().is_none() {
            return self.read.scan(table, prefix, after, limit);
        }
        let mut rows = Vec::new();
        let mut cursor = after.map(<[u8]>::to_vec);
        loop {
            let page = self.read.scan(table, prefix, cursor.as_deref(), limit.max(1));
            let last_page = page.len() < limit.max(1);
            for (key, value) in page {
                while let Some(((_, own_key), written)) = own.next_if(|((_, own_key), _)| *own_key < key) {
                    if let Some(written) = written {
                        rows.push((own_key.clone(), written.clone()));
                    }
                }
                match own.next_if(|((_, own_key), _)| *own_key == key) {
                    Some((_, Some(written))) => rows.push((key.clone(), written.clone())),
                    Some((_, None)) => {}
                    None => rows.push((key.clone(), value)),
                }
                cursor = Some(key);
            }
            if rows.len() >= limit {
                rows.truncate(limit);
                return rows;
            }
            if last_page {
                break;
            }
        }
        for ((_, key), written) in own {
            if let Some(written) = written {
                rows.push((key.clone(), written.clone()));
            }
        }
        rows.truncate(limit);
        rows
    }
}

/// An ordered store in memory: the simulator's, and that of unit tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStore {
    rows: BTreeMap<(Table, Vec<u8>), Bytes>,
    /// Rows whose values are damaged: reading one unwinds.
    damaged: BTreeSet<(Table, Vec<u8>)>,
}

impl MemoryStore {
    /// Applies a batch.
    pub fn apply(&mut self, batch: &[Write]) {
        for write in batch {
            let key = (write.table, write.key.clone());
            self.damaged.remove(&key);
            match &write.value {
                Some(value) => self.rows.insert(key, value.clone()),
                None => self.rows.remove(&key),
            };
        }
    }
    /// Damages the value of a row, as a failing disk does.
    pub fn damage(&mut self, table: Table, key: &[u8]) {
        if self.rows.contains_key(&(table, key.to_vec())) {
            self.damaged.insert((table, key.to_vec()));
        }
    }
    /// The keys of a table, without reading a value.
    pub fn keys(&self, table: Table) -> impl Iterator<Item = &[u8]> {
        self.rows
            .range((table, Vec::new())..)
            .take_while(move |((found, _), _)| *found == table)
            .map(|((_, key), _)| key.as_slice())
    }
    /// What reading everything would find damaged.
    pub fn damages(&self) -> impl Iterator<Item = Damaged> {
        self.damaged.iter().map(|(table, key)| Damaged { table: *table, key: Some(key.clone()) })
    }
    fn checked(&self, at: &(Table, Vec<u8>)) {
        if self.damaged.contains(at) {
            Damaged { table: at.0, key: Some(at.1.clone()) }.unwind();
        }
    }
    /// Bytes of keys and values in a table.
    #[must_use]
    pub fn table_bytes(&self, table: Table) -> usize {
        self.rows
            .range((table, Vec::new())..)
            .take_while(|((found, _), _)| *found == table)
            .map(|((_, key), value)| key.len() + value.len())
            .sum()
    }
}

impl Read for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Option<Bytes> {
        let at = (table, key.to_vec());
        let value = self.rows.get(&at).cloned();
        self.checked(&at);
        value
    }
    fn has(&self, table: Table, key: &[u8]) -> bool {
        self.rows.contains_key(&(table, key.to_vec()))
    }
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Row> {
        let start = after.map_or(prefix, |after| after.max(prefix)).to_vec();
        self.rows
            .range((table, start)..)
            .take_while(|((found, key), _)| *found == table && key.starts_with(prefix))
            .filter(|((_, key), _)| after.is_none_or(|after| key.as_slice() > after))
            .take(limit)
            .inspect(|(at, _)| self.checked(at))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction scans as the store would after its batch was applied, whatever the page size.
    #[test]
    fn a_transaction_reads_its_own_writes() {
        let mut store = MemoryStore::default();
        let base = Tx::new(&store);
        for key in [1u8, 3, 5, 7, 9] {
            base.put(Table::Meta, [key], vec![key]);
        }
        let batch = base.into_writes();
        store.apply(&batch);
        let tx = Tx::new(&store);
        tx.delete(Table::Meta, [3]);
        tx.put(Table::Meta, [4], vec![44]);
        tx.put(Table::Meta, [5], vec![55]);
        tx.put(Table::Meta, [10], vec![100]);
        let mut after = store.clone();
        let pages: Vec<_> = (1..8).map(|limit| tx.scan(Table::Meta, &[], Some(&[1]), limit)).collect();
        let batch = tx.into_writes();
        after.apply(&batch);
        for (index, page) in pages.iter().enumerate() {
            assert_eq!(*page, after.scan(Table::Meta, &[], Some(&[1]), index + 1));
        }
    }
}
