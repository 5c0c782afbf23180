//! A copy, beside the database, of what this device needs to come back into the workspace: who belongs, and the keys.
//!
//! Everything else of a database can be brought from peers, if one can still meet them. Invariant: the file is replaced
//! whole and durably, as secret as the database itself, and a copy that is not what was written is no copy.
//! Spec: docs/sync.md#damage.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_agent_core::damage::is_kept_beside;
use weft_agent_core::store::{Read, Table, Write, rows};

use crate::durable;

const MAGIC: &[u8] = b"weft-keys-1\n";
/// Changes of the membership are copied together if they come faster than this; new keys at once.
const EVERY: Duration = Duration::from_secs(2);

/// The file in a replica's folder.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("replica.keys")
}

/// When it is to be written.
#[derive(Debug, Default)]
pub(super) struct Kept {
    stale: bool,
    urgent: bool,
    written: Option<Instant>,
}

impl Kept {
    /// A row was written.
    pub(super) fn note(&mut self, table: Table, key: &[u8]) {
        if is_kept_beside(table, key) {
            self.stale = true;
            self.urgent |= table == Table::Epochs;
        }
    }
    pub(super) fn is_due(&self) -> bool {
        self.stale && (self.urgent || self.written.is_none_or(|written| written.elapsed() > EVERY))
    }
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }
    pub(super) fn written(&mut self) {
        *self = Self { written: Some(Instant::now()), ..Self::default() };
    }
}

/// Writes the copy, if it would be another one.
pub(super) fn write(dir: &Path, read: &dyn Read) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    for table in [Table::Meta, Table::Ops, Table::Epochs] {
        for (key, value) in rows(read, table, &[], 256).filter(|(key, _)| is_kept_beside(table, key)) {
            bytes.push(table as u8);
            for part in [&key[..], &value[..]] {
                bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
    }
    if [&b"genesis"[..], b"joining", b"enrolling"].iter().all(|key| !read.has(Table::Meta, key)) {
        // Of a database that has not begun, or lost its beginning: the copy that there is may be needed.
        return Ok(());
    }
    let hash = blake3::hash(&bytes);
    bytes.extend(hash.as_bytes());
    let path = file(dir);
    if durable::read_if_there(&path)?.as_ref() == Some(&bytes) {
        return Ok(());
    }
    durable::replace(&path, &bytes)
}

/// The rows of the copy; none, if there is none that can be trusted.
pub(super) fn read(dir: &Path) -> Vec<Write> {
    let Ok(Some(bytes)) = durable::read_if_there(&file(dir)) else { return Vec::new() };
    parse(&bytes).unwrap_or_default()
}

fn parse(bytes: &[u8]) -> Option<Vec<Write>> {
    let (body, hash) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(body) != *hash {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut found = Vec::new();
    while let Some((number, after)) = rest.split_first() {
        let table = Table::ALL.into_iter().find(|table| *table as u8 == *number)?;
        let (key, after) = part(after)?;
        let (value, after) = part(after)?;
        rest = after;
        found.push(Write { table, key: key.to_vec(), value: Some(Bytes::copy_from_slice(value)) });
    }
    Some(found)
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_agent_core::store::MemoryStore;

    /// What is kept beside is read back, without anything else; a copy with one changed byte is none.
    #[test]
    fn the_copy_is_whole_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = MemoryStore::default();
        let row = |table, key: &[u8], value: &'static [u8]| Write {
            table,
            key: key.to_vec(),
            value: Some(Bytes::from_static(value)),
        };
        let needed =
            [row(Table::Meta, b"genesis", b"g"), row(Table::Ops, b"1", b"op"), row(Table::Epochs, b"e", b"key")];
        store.apply(&needed);
        store.apply(&[row(Table::Meta, b"tip/x", b"t"), row(Table::Documents, b"d", b"doc")]);
        write(dir.path(), &store).unwrap();
        assert_eq!(read(dir.path()), needed);
        let mut bytes = std::fs::read(file(dir.path())).unwrap();
        bytes[20] ^= 1;
        std::fs::write(file(dir.path()), bytes).unwrap();
        assert_eq!(read(dir.path()), []);
    }
}
