//! What is on disk, as far as we last knew: one row a path that carries an entry.
//!
//! Invariant: what a write will leave (`pending`) is stored before the write goes out, so that after a crash the disk's
//! content is one of the two that the row names, or a person's edit of one of them. Why: an edit is entered at the
//! state it was made on, or it would revert what others did since. Spec: docs/files.md#base.

use std::collections::BTreeMap;

use bytes::Bytes;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use crate::disk::{Expect, RelPath, Stat};
use crate::files::TEXT_BYTES_MAX;
use crate::files::entry::Kind;
use crate::files::names::start_of;
use crate::id::{ChangeHash, FileId, VersionHash};
use crate::store::{Read, Table, Tx, rows};

/// Rows read at once.
pub(crate) const ROWS: usize = 512;
/// How many contents that we replaced are kept, for editors that still hold an old one.
pub(crate) const RECENT_MAX: usize = 8;

/// ... and how many a row may hold: after a restored backup any of many may be on the disk.
pub(crate) const RECENT_ROWS_MAX: usize = 64;
/// In place of the time at which our write replaced a content: it may be on the disk since a backup was put back.
pub(crate) const WHEN_REBORN: u64 = u64::MAX;

/// One shown thing: an entry's first version, or another that stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) id: FileId,
    /// The start of the version's hash; zeros for the one shown under the entry's own name.
    pub(crate) variant: [u8; 8],
}

impl Key {
    /// The entry under its own name.
    pub(crate) fn main(id: FileId) -> Self {
        Self { id, variant: [0; 8] }
    }
    /// Whether it stands under the entry's own name.
    pub(crate) fn is_main(&self) -> bool {
        self.variant == [0; 8]
    }
    /// Its row's key: 16 bytes, or 25 with `v`.
    pub(crate) fn row(&self) -> Vec<u8> {
        let mut key = self.id.0.to_vec();
        if !self.is_main() {
            key.push(b'v');
            key.extend(self.variant);
        }
        key
    }
    fn from_row(key: &[u8]) -> Option<Self> {
        let (id, rest) = key.split_at_checked(16)?;
        let id = FileId::from_slice(id)?;
        match rest.split_first() {
            None => Some(Self::main(id)),
            Some((b'v', variant)) => Some(Self { id, variant: variant.try_into().ok()? }),
            Some(_) => None,
        }
    }
}

/// A content that was on disk, and where in the documents it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnDisk {
    /// Hash of the bytes.
    pub(crate) hash: VersionHash,
    /// Owner's execute bit.
    pub(crate) executable: bool,
    /// The version it is, or whose text it is.
    pub(crate) version: VersionHash,
    /// The heads of that text; none: the version itself.
    pub(crate) heads: Vec<ChangeHash>,
    /// Where it points, for a link; empty otherwise.
    pub(crate) target: String,
    /// The bytes themselves, if what they came from does not count any more, so that no document knows them: what a person
    /// makes of them is told apart from what was in them. Empty if they are no text.
    pub(crate) void: Option<Bytes>,
}

/// The row of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) path: RelPath,
    pub(crate) kind: Kind,
    pub(crate) stat: Stat,
    /// What is there; `None`: nothing yet, or a folder.
    pub(crate) now: Option<OnDisk>,
    /// What a write under way will leave.
    pub(crate) pending: Option<OnDisk>,
    /// `pending` is no write of ours, but what may be there since a backup was put back.
    pub(crate) guessed: bool,
    /// What our writes replaced, newest first, and when (wall ms).
    pub(crate) recent: Vec<(OnDisk, u64)>,
}

impl Wire for OnDisk {
    fn encode(&self, writer: &mut Writer) {
        writer.array(6).item(&self.hash).bool(self.executable).item(&self.version).list(&self.heads).text(&self.target);
        writer.optional(self.void.clone().map(Void).as_ref());
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(6, "content")?;
        Ok(Self {
            hash: reader.item()?,
            executable: reader.bool()?,
            version: reader.item()?,
            heads: reader.list(4096, "heads")?,
            target: reader.text_up_to(1 << 16, "target")?.to_owned(),
            void: reader.optional::<Void>()?.map(|void| void.0),
        })
    }
}

struct Void(Bytes);

impl Wire for Void {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.0);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        Ok(Self(Bytes::copy_from_slice(reader.bytes_up_to(TEXT_BYTES_MAX * 2, "text")?)))
    }
}

struct Recent(OnDisk, u64);

impl Wire for Recent {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).item(&self.0).uint(self.1);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "recent")?;
        Ok(Self(reader.item()?, reader.uint()?))
    }
}

/// CBOR of ours has no negative numbers: the bits of a signed one.
fn bits(value: i64) -> u64 {
    u64::from_ne_bytes(value.to_ne_bytes())
}

fn signed(value: u64) -> i64 {
    i64::from_ne_bytes(value.to_ne_bytes())
}

impl Wire for Record {
    fn encode(&self, writer: &mut Writer) {
        // The last is only there if it says something: rows without it are older, or most of them.
        writer.array(if self.guessed { 10 } else { 9 }).item(&self.path).uint(self.kind as u64);
        writer.uint(bits(self.stat.mtime_ns)).uint(bits(self.stat.ctime_ns)).uint(self.stat.size).uint(self.stat.inode);
        writer.optional(self.now.as_ref()).optional(self.pending.as_ref());
        writer.array(self.recent.len());
        for (content, when) in &self.recent {
            Recent(content.clone(), *when).encode(writer);
        }
        if self.guessed {
            writer.bool(true);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let fields = reader.array_up_to(10, "record")?;
        if fields < 9 {
            return Err(DecodeError::Invalid("record"));
        }
        let path = reader.item()?;
        let kind = match reader.uint()? {
            0 => Kind::Folder,
            1 => Kind::File,
            2 => Kind::Link,
            _ => return Err(DecodeError::Invalid("kind")),
        };
        let stat = Stat {
            mtime_ns: signed(reader.uint()?),
            ctime_ns: signed(reader.uint()?),
            size: reader.uint()?,
            inode: reader.uint()?,
        };
        let (now, pending) = (reader.optional()?, reader.optional()?);
        let recent: Vec<Recent> = reader.list(RECENT_ROWS_MAX, "recent")?;
        let recent = recent.into_iter().map(|recent| (recent.0, recent.1)).collect();
        let guessed = fields > 9 && reader.bool()?;
        Ok(Self { path, kind, stat, now, pending, guessed, recent })
    }
}

impl OnDisk {
    /// Of a folder that ceased to count: no document says why it goes, so its record does.
    pub(crate) fn revoked_folder() -> Self {
        let (hash, version) = (VersionHash([0; 32]), VersionHash([0; 32]));
        Self { hash, executable: false, version, heads: Vec::new(), target: String::new(), void: Some(Bytes::new()) }
    }
}

impl Record {
    /// A record of which nothing is on disk yet.
    pub(crate) fn new(path: RelPath, kind: Kind) -> Self {
        Self { path, kind, stat: Stat::default(), now: None, pending: None, guessed: false, recent: Vec::new() }
    }
    /// The write under way is over, whatever came of it.
    pub(crate) fn ends(&mut self) {
        self.pending = None;
        self.guessed = false;
    }
    /// What must be on disk before we touch it.
    pub(crate) fn expect(&self) -> Expect {
        match (self.kind, &self.now) {
            (Kind::Folder, _) => Expect::Folder,
            (_, None) => Expect::Absent,
            (Kind::File, Some(now)) => Expect::File(now.hash),
            (Kind::Link, Some(now)) => Expect::Symlink(now.target.clone()),
        }
    }
    /// The pending write is there: it becomes what is on disk.
    pub(crate) fn arrive(&mut self, wall_ms: u64) {
        self.guessed = false;
        if let Some(pending) = self.pending.take()
            && let Some(old) = self.now.replace(pending)
        {
            self.recent.insert(0, (old, wall_ms));
            self.recent.truncate(RECENT_MAX);
        }
    }
}

/// The part of a record that is kept in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) path: RelPath,
    pub(crate) kind: Kind,
    /// What is there; `None`: nothing yet, or a folder.
    pub(crate) hash: Option<VersionHash>,
    pub(crate) executable: bool,
    /// Whether a write is under way, or was when a crash came.
    pub(crate) pending: bool,
}

/// All records: brief ones in memory, whole ones as rows.
#[derive(Default)]
pub(crate) struct Records {
    by_key: BTreeMap<Key, Brief>,
    by_path: BTreeMap<RelPath, Key>,
    /// Whether a record of a large file may have changed since it was last asked.
    pub(crate) blobs_moved: bool,
}

impl Brief {
    fn of(record: &Record) -> Self {
        Self {
            path: record.path.clone(),
            kind: record.kind,
            hash: record.now.as_ref().map(|now| now.hash),
            executable: record.now.as_ref().is_some_and(|now| now.executable),
            // Of a folder it says that it ceased to count.
            pending: record.pending.is_some() && record.kind != Kind::Folder,
        }
    }
}

impl Records {
    /// Takes in a row found when starting.
    /// The record in a row, if it is one, in brief.
    pub(crate) fn parse(key: &[u8], value: &[u8]) -> Option<(Key, Brief)> {
        Some((Key::from_row(key)?, Brief::of(&cbor::from_bytes(value).ok()?)))
    }
    /// All records, made in one go: a map that grows in order has half-empty nodes.
    pub(crate) fn all(rows: Vec<(Key, Brief)>) -> Self {
        let by_path = rows.iter().map(|(key, brief)| (brief.path.clone(), *key)).collect();
        Self { by_key: rows.into_iter().collect(), by_path, blobs_moved: true }
    }
    fn index(&mut self, key: Key, record: &Record) {
        let brief = Brief::of(record);
        if let Some(old) = self.by_key.insert(key, brief)
            && old.path != record.path
            && self.by_path.get(&old.path) == Some(&key)
        {
            self.by_path.remove(&old.path);
        }
        self.by_path.insert(record.path.clone(), key);
    }
    /// Stores a record.
    pub(crate) fn put(&mut self, key: Key, record: &Record, tx: &Tx<'_>) {
        self.index(key, record);
        self.blobs_moved |= record.is_blob();
        tx.put(Table::Files, key.row(), cbor::to_bytes(record));
    }
    /// Forgets one.
    pub(crate) fn remove(&mut self, key: Key, tx: &Tx<'_>) {
        self.blobs_moved = true;
        if let Some(old) = self.by_key.remove(&key)
            && self.by_path.get(&old.path) == Some(&key)
        {
            self.by_path.remove(&old.path);
        }
        tx.delete(Table::Files, key.row());
    }
    /// The whole record of a key.
    pub(crate) fn whole(&self, key: Key, store: &dyn Read) -> Option<Record> {
        self.by_key.get(&key)?;
        store.get(Table::Files, &key.row()).and_then(|row| cbor::from_bytes(&row).ok())
    }
    pub(crate) fn brief(&self, key: Key) -> Option<&Brief> {
        self.by_key.get(&key)
    }
    pub(crate) fn at(&self, path: &RelPath) -> Option<Key> {
        self.by_path.get(path).copied()
    }
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.by_key.keys().copied()
    }
    /// How many files and links are there.
    pub(crate) fn files(&self) -> usize {
        self.by_key.values().filter(|brief| brief.kind != Kind::Folder && brief.hash.is_some()).count()
    }
    /// All keys below a folder, not the folder itself.
    pub(crate) fn below(&self, folder: &RelPath) -> Vec<(RelPath, Key)> {
        let prefix = format!("{folder}/");
        let Some(start) = RelPath::new(&format!("{folder}/\u{1}")) else { return Vec::new() };
        self.by_path
            .range(start..)
            .take_while(|(path, _)| path.as_str().starts_with(&prefix))
            .map(|(path, key)| (path.clone(), *key))
            .collect()
    }
    /// Whether there is anything below a folder.
    pub(crate) fn has_below(&self, folder: &RelPath) -> bool {
        let prefix = format!("{folder}/");
        RelPath::new(&format!("{folder}/\u{1}"))
            .and_then(|start| self.by_path.range(start..).next().map(|(path, _)| path.as_str().starts_with(&prefix)))
            .unwrap_or(false)
    }
    /// All variants of an entry that are on disk.
    pub(crate) fn of(&self, id: FileId) -> Vec<Key> {
        let from = Key::main(id);
        let to = Key { id, variant: [0xff; 8] };
        self.by_key.range(from..=to).map(|(key, _)| *key).collect()
    }
}

/// The state of a text founded on a version: what can be known without loading its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextState {
    pub(crate) version: VersionHash,
    pub(crate) heads: Vec<ChangeHash>,
    /// Hash and length of the bytes it is written as.
    pub(crate) hash: VersionHash,
    pub(crate) len: u64,
    /// How many changes it has, without the founding one.
    pub(crate) changes: u64,
}

impl Wire for TextState {
    fn encode(&self, writer: &mut Writer) {
        writer.array(5).item(&self.version).list(&self.heads).item(&self.hash).uint(self.len).uint(self.changes);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(5, "text state")?;
        Ok(Self {
            version: reader.item()?,
            heads: reader.list(1 << 16, "heads")?,
            hash: reader.item()?,
            len: reader.uint()?,
            changes: reader.uint()?,
        })
    }
}

/// The key of the row of a text's state: id, `t`, start of the version's hash.
pub(crate) fn text_row(id: &FileId, version: &VersionHash) -> Vec<u8> {
    text_row_at(id, start_of(version))
}

/// The same, by the start of the version's hash alone.
pub(crate) fn text_row_at(id: &FileId, start: [u8; 8]) -> Vec<u8> {
    let mut key = id.0.to_vec();
    key.push(b't');
    key.extend(start);
    key
}

/// A text's state, if this row is one.
pub(crate) fn load_text(key: &[u8], value: &[u8]) -> Option<(FileId, TextState)> {
    let (id, rest) = key.split_at_checked(16)?;
    (rest.first() == Some(&b't')).then_some(())?;
    Some((FileId::from_slice(id)?, cbor::from_bytes(value).ok()?))
}

/// A write that was under way when the agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingWrite {
    /// Where.
    pub path: RelPath,
    /// Hash of what it was to leave.
    pub leaves: VersionHash,
    /// Hash of what it was to replace; `None`: nothing.
    pub replaces: Option<VersionHash>,
}

/// The writes of ours that were under way when the rows were written: whether each took place is for the shell to find
/// out when it starts, before it looks at anything.
pub fn pending_writes(store: &dyn Read) -> impl Iterator<Item = PendingWrite> + '_ {
    rows(store, Table::Files, &[], ROWS).filter_map(|(key, value)| {
        Key::from_row(&key)?;
        let record: Record = cbor::from_bytes(&value).ok()?;
        let leaves = record.pending.filter(|_| !record.guessed && record.kind != Kind::Folder)?.hash;
        Some(PendingWrite { path: record.path, leaves, replaces: record.now.map(|now| now.hash) })
    })
}

/// Every content of which the rows know that it is on disk, or was before a write of ours.
pub fn known_contents(store: &dyn Read) -> impl Iterator<Item = VersionHash> + '_ {
    let contents = |record: Record| {
        let recent = record.recent.into_iter().map(|(old, _)| old);
        record.now.into_iter().chain(record.pending).chain(recent).map(|content| content.hash).collect::<Vec<_>>()
    };
    rows(store, Table::Files, &[], ROWS)
        .filter(|(key, _)| Key::from_row(key).is_some())
        .filter_map(|(_, value)| cbor::from_bytes::<Record>(&value).ok())
        .flat_map(contents)
}

/// A file or link as the store remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFile {
    /// Where.
    pub path: RelPath,
    /// How it is recognised.
    pub stat: Stat,
    /// What it holds.
    pub hash: VersionHash,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// Files and links that are on disk, as the store remembers them, for the shell's cache of what it need not read again.
/// A file whose write was under way has the stat from before that write.
pub fn known_files(store: &dyn Read) -> impl Iterator<Item = KnownFile> + '_ {
    rows(store, Table::Files, &[], ROWS).filter_map(|(key, value)| {
        Key::from_row(&key)?;
        let record: Record = cbor::from_bytes(&value).ok()?;
        let now = record.now?;
        Some(KnownFile { path: record.path, stat: record.stat, hash: now.hash, executable: now.executable })
    })
}

/// Folders that are on disk, as the store remembers them: the shell says [`crate::disk::Found::Absent`] for those gone.
pub fn known_folders(store: &dyn Read) -> impl Iterator<Item = RelPath> + '_ {
    rows(store, Table::Files, &[], ROWS).filter_map(|(key, value)| {
        Key::from_row(&key)?;
        let record: Record = cbor::from_bytes(&value).ok()?;
        (record.kind == Kind::Folder).then_some(record.path)
    })
}
