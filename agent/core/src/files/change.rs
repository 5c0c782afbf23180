//! Looking at a change without trusting it.
//!
//! Invariant: what [`inspect_change`] accepts is exactly one uncompressed change whose columns hold at most
//! [`CHANGE_OPS_MAX`] rows; it never panics and its work is bounded by the number of bytes. Why: malformed changes can
//! panic inside Automerge, a deflated one can inflate a thousandfold, and a run-length column of twenty bytes can claim
//! billions of rows. Spec: docs/files.md#receiving.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::Change;

use crate::id::ChangeHash;

/// Largest change, in bytes; what would be larger becomes a version.
pub const CHANGE_BYTES_MAX: usize = 400 * 1024;
/// Most operations (and rows of any column) in one change: more than [`CHANGE_BYTES_MAX`] bytes of text can need.
pub const CHANGE_OPS_MAX: u64 = 1 << 20;

/// Where the type of a chunk stands: after the magic bytes (4) and the checksum (4).
pub(super) const TYPE_AT: usize = 8;
/// Magic bytes of every Automerge chunk.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// Why a change was refused. Whoever made it is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Longer than [`CHANGE_BYTES_MAX`].
    #[error("a change of {0} bytes is larger than the format allows")]
    TooLarge(usize),
    /// More than [`CHANGE_OPS_MAX`] rows.
    #[error("a change claims more operations than the format allows")]
    TooManyOps,
    /// A whole document (0), a compressed change (2) or something unknown.
    #[error("chunk type {0} is not an uncompressed change")]
    ChunkType(u8),
    /// Not a change at all, damaged, or followed by other bytes.
    #[error("malformed change: {0}")]
    Malformed(&'static str),
}

/// What a change says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeFacts {
    /// Its hash.
    pub hash: ChangeHash,
    /// The actor that made it.
    pub actor: Vec<u8>,
    /// Its number among that actor's changes, from 1.
    pub seq: u64,
    /// The counter of its first operation.
    pub start_op: u64,
    /// How many operations it has.
    pub ops: u64,
    /// The changes it was made on.
    pub deps: Vec<ChangeHash>,
}

/// What the replica checks before a change is accepted, without an Automerge document.
pub fn inspect_change(bytes: &[u8]) -> Result<ChangeFacts, ChangeError> {
    let change = parse_change(bytes)?;
    Ok(ChangeFacts {
        hash: ChangeHash(change.hash().0),
        actor: change.actor_id().to_bytes().to_vec(),
        seq: change.seq(),
        start_op: change.start_op().get(),
        ops: change.len() as u64,
        deps: change.deps().iter().map(|dep| ChangeHash(dep.0)).collect(),
    })
}

/// The change in these bytes, checked as [`inspect_change`] says.
pub(crate) fn parse_change(bytes: &[u8]) -> Result<Change, ChangeError> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(ChangeError::TooLarge(bytes.len()));
    }
    if !bytes.starts_with(&MAGIC) {
        return Err(ChangeError::Malformed("not an Automerge chunk"));
    }
    match bytes.get(TYPE_AT) {
        Some(1) => {}
        Some(other) => return Err(ChangeError::ChunkType(*other)),
        None => return Err(ChangeError::Malformed("truncated")),
    }
    if !has_its_checksum(bytes) {
        return Err(ChangeError::Malformed("wrong checksum"));
    }
    check_columns(bytes.get(TYPE_AT + 1..).unwrap_or_default())?;
    let parsed = catch_unwind(AssertUnwindSafe(|| Change::from_bytes(bytes.to_vec())));
    let change = match parsed {
        Ok(Ok(change)) => change,
        Ok(Err(_)) | Err(_) => return Err(ChangeError::Malformed("not a valid change")),
    };
    if change.raw_bytes() != bytes {
        return Err(ChangeError::Malformed("other bytes than the change's own"));
    }
    if change.len() as u64 > CHANGE_OPS_MAX {
        return Err(ChangeError::TooManyOps);
    }
    Ok(change)
}

/// Automerge takes a chunk whose checksum is wrong.
fn has_its_checksum(bytes: &[u8]) -> bool {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(bytes.get(TYPE_AT..).unwrap_or_default());
    bytes.get(MAGIC.len()..TYPE_AT) == digest.get(..4)
}

/// Bytes that are not one whole chunk of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What follows the type (a length, then as many bytes) in bytes that are exactly one chunk of this type.
pub(super) fn check_framing(bytes: &[u8], chunk_type: u8) -> Result<&[u8], Malformed> {
    if !bytes.starts_with(&MAGIC) || bytes.get(TYPE_AT) != Some(&chunk_type) || !has_its_checksum(bytes) {
        return Err(Malformed);
    }
    let body = bytes.get(TYPE_AT + 1..).ok_or(Malformed)?;
    let mut cursor = Cursor(body);
    let len = cursor.uleb().ok_or(Malformed)?;
    if cursor.0.len() as u64 == len { Ok(body) } else { Err(Malformed) }
}

/// Reads LEB128 numbers and byte runs; every method says `None` at the end.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
    pub(super) fn uleb(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    pub(super) fn sleb(&mut self) -> Option<i64> {
        let mut value = 0i64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                let unused = 64u32.saturating_sub(shift + 7);
                return Some(if byte & 0x40 != 0 && unused > 0 { (value << unused) >> unused } else { value });
            }
        }
        None
    }
    pub(super) fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Walks the header of a change chunk (after its type) and the runs of every column.
fn check_columns(bytes: &[u8]) -> Result<(), ChangeError> {
    let mut cursor = Cursor(bytes);
    let columns = columns(&mut cursor).ok_or(ChangeError::Malformed("truncated"))?;
    let mut rows_in_all = 0u64;
    for (spec, column) in columns {
        // Bit 3 says deflated; the lowest three bits say the type.
        if spec & 0b1000 != 0 {
            return Err(ChangeError::Malformed("a compressed column"));
        }
        let rows = rows(spec & 0b111, column).ok_or(ChangeError::Malformed("a damaged column"))?;
        rows_in_all = rows_in_all.saturating_add(rows);
        if rows > CHANGE_OPS_MAX || rows_in_all > 16 * CHANGE_OPS_MAX {
            return Err(ChangeError::TooManyOps);
        }
    }
    Ok(())
}

/// The columns of a change: (specification, bytes).
fn columns<'a>(cursor: &mut Cursor<'a>) -> Option<Vec<(u64, &'a [u8])>> {
    let len = cursor.uleb()?;
    let mut cursor = Cursor(cursor.take(len)?);
    let deps = cursor.uleb()?;
    cursor.take(deps.checked_mul(32)?)?;
    let actor = cursor.uleb()?;
    cursor.take(actor)?;
    let (_seq, _start_op, _time) = (cursor.uleb()?, cursor.uleb()?, cursor.sleb()?);
    let message = cursor.uleb()?;
    cursor.take(message)?;
    for _ in 0..cursor.uleb()? {
        let actor = cursor.uleb()?;
        cursor.take(actor)?;
    }
    let mut specs = Vec::new();
    for _ in 0..cursor.uleb()? {
        specs.push((cursor.uleb()?, cursor.uleb()?));
    }
    specs.into_iter().map(|(spec, len)| Some((spec, cursor.take(len)?))).collect()
}

/// How many rows a column of this type claims.
pub(super) fn rows(kind: u64, column: &[u8]) -> Option<u64> {
    let mut cursor = Cursor(column);
    let mut rows = 0u64;
    // Raw values have no rows of their own; a boolean column is a list of run lengths.
    match kind {
        7 => return Some(0),
        4 => {
            while !cursor.0.is_empty() {
                rows = rows.saturating_add(cursor.uleb()?);
            }
            return Some(rows);
        }
        _ => {}
    }
    let skip = |cursor: &mut Cursor<'_>| match kind {
        3 => cursor.sleb().map(|_| ()),
        5 => cursor.uleb().and_then(|len| cursor.take(len)).map(|_| ()),
        _ => cursor.uleb().map(|_| ()),
    };
    while !cursor.0.is_empty() {
        match cursor.sleb()? {
            0 => rows = rows.saturating_add(cursor.uleb()?),
            run @ 1.. => {
                skip(&mut cursor)?;
                rows = rows.saturating_add(run.unsigned_abs());
            }
            literals => {
                for _ in 0..literals.unsigned_abs() {
                    skip(&mut cursor)?;
                    rows = rows.saturating_add(1);
                }
            }
        }
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{Automerge, ROOT, ReadDoc};
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut doc = Automerge::new();
        let mut tx = doc.transaction();
        let text = tx.put_object(ROOT, "text", automerge::ObjType::Text).unwrap();
        tx.splice_text(&text, 0, 0, "hello, wörld\n").unwrap();
        tx.put(ROOT, "flag", true).unwrap();
        tx.put(ROOT, "bytes", vec![1u8, 2, 3]).unwrap();
        let (hash, _) = tx.commit();
        doc.get_change_by_hash(&hash.unwrap()).unwrap().raw_bytes().to_vec()
    }

    /// An ordinary change passes, with its facts; a document and a deflated change do not.
    #[test]
    fn only_uncompressed_changes_pass() {
        let bytes = sample();
        let facts = inspect_change(&bytes).unwrap();
        assert_eq!((facts.seq, facts.start_op, facts.deps.len()), (1, 1, 0));
        assert!(facts.ops > 13);
        for kind in [0, 2, 3] {
            let mut other = bytes.clone();
            other[TYPE_AT] = kind;
            assert_eq!(inspect_change(&other), Err(ChangeError::ChunkType(kind)));
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(inspect_change(&longer).is_err(), "bytes after the end");
        assert!(inspect_change(&bytes[..bytes.len() - 1]).is_err());
    }

    /// A column of a few bytes that claims 2^40 rows is refused before Automerge sees it.
    #[test]
    fn a_run_that_claims_billions_is_refused() {
        let rows_claimed = rows(2, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1]).unwrap();
        assert_eq!(rows_claimed, 1 << 40);
        assert_eq!(rows(4, &[0xff, 0xff, 0xff, 0xff, 0x0f]), Some(u64::from(u32::MAX)));
        let mut header = vec![0, 1, 0, 1, 1, 0, 0, 0, 1, 0x42, 7];
        header.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1]);
        let mut chunk = vec![header.len() as u8];
        chunk.extend(header);
        assert_eq!(check_columns(&chunk), Err(ChangeError::TooManyOps));
    }

    proptest! {
        /// Whatever bytes arrive, with or without a repaired checksum, the answer is a value.
        #[test]
        fn hostile_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = sample();
            for (at, value) in flips {
                let at = at.index(bytes.len() - TYPE_AT) + TYPE_AT;
                bytes[at] = value;
            }
            // The checksum is the start of the SHA-256 of the type, the length and the contents.
            let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes[TYPE_AT..]);
            bytes[4..8].copy_from_slice(&digest[..4]);
            let _ = inspect_change(&bytes);
        }
    }
}
