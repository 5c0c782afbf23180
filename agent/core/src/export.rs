//! What stands inside the seal of an export file, record by record.
//!
//! A record is kind1 ‖ length4 (big-endian) ‖ bytes. In order: a header, the genesis, ops, epochs, pieces, envelopes, then
//! the files of the folder (a file is its head and its chunks), and the end. Invariant: whoever reads holds one record at a
//! time, of at most [`RECORD_BYTES_MAX`], and the membership it begins with, of at most [`OPS_MAX`] ops and as many epochs.
//! Why: whoever has the passphrase can put anything into a file. Spec: docs/sealing.md#export.

use crate::epoch::Epoch;
use crate::id::WorkspaceId;
use crate::membership::{OPS_MAX, OpSet};
use crate::op::{Genesis, SignedOp};

/// The layout of the records.
pub const FORMAT: u32 = 1;
/// Longest record, in bytes: an envelope or a piece is at most half of it.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Bytes of a file in one record.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes before those of a record.
pub const HEAD_BYTES: usize = 5;

/// Why an export cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A kind of record that is not known.
    #[error("the export is of a newer weft: upgrade")]
    Newer,
    /// A record that claims more than there may be.
    #[error("the export is damaged: a record is too long")]
    TooLong,
    /// No genesis where it must stand.
    #[error("the export is damaged: no genesis")]
    NoGenesis,
    /// An op that is none, or of another workspace, or one too many.
    #[error("the export is damaged: an operation")]
    Op,
    /// An epoch that is none, or one too many.
    #[error("the export is damaged: a key")]
    Epoch,
    /// A record where it must not stand.
    #[error("the export is damaged: its order")]
    Order,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// What the file is, in JSON.
    Header = 1,
    /// The first op.
    Genesis = 2,
    /// A signed op.
    Op = 3,
    /// A key, with its secrets.
    Epoch = 4,
    /// A sealed piece of a blob or checkpoint.
    Piece = 5,
    /// A sealed envelope.
    Envelope = 6,
    /// A file's path and mode, in JSON.
    File = 7,
    /// Some of the file named last.
    Chunk = 8,
    /// Nothing is missing.
    End = 9,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Header,
        Kind::Genesis,
        Kind::Op,
        Kind::Epoch,
        Kind::Piece,
        Kind::Envelope,
        Kind::File,
        Kind::Chunk,
        Kind::End,
    ];
}

/// What stands before the bytes of a record; `None` if there are more than a record may have.
#[must_use]
pub fn record_head(kind: Kind, len: usize) -> Option<[u8; HEAD_BYTES]> {
    let len = u32::try_from(len).ok().filter(|len| *len as usize <= RECORD_BYTES_MAX)?;
    let [a, b, c, d] = len.to_be_bytes();
    Some([kind as u8, a, b, c, d])
}

/// What comes next, and how many bytes of it: at most [`RECORD_BYTES_MAX`].
///
/// # Errors
/// [`ExportError::Newer`] or [`ExportError::TooLong`].
pub fn parse_record_head(head: [u8; HEAD_BYTES]) -> Result<(Kind, usize), ExportError> {
    let [kind, len @ ..] = head;
    let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind).ok_or(ExportError::Newer)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > RECORD_BYTES_MAX { Err(ExportError::TooLong) } else { Ok((kind, len)) }
}

/// The membership and the keys that an export begins with.
#[derive(Debug)]
pub struct Beginning {
    /// Genesis and ops.
    pub set: OpSet,
    /// The epochs, as they were held.
    pub epochs: Vec<Epoch>,
}

impl Beginning {
    /// From the record behind the header.
    ///
    /// # Errors
    /// [`ExportError::NoGenesis`] if it is anything else.
    pub fn new(kind: Kind, bytes: &[u8]) -> Result<Self, ExportError> {
        let genesis = Genesis::parse(bytes).ok().filter(|_| kind == Kind::Genesis).ok_or(ExportError::NoGenesis)?;
        Ok(Self { set: OpSet::new(genesis), epochs: Vec::new() })
    }

    /// Which workspace.
    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.set.workspace()
    }

    /// Takes in a further record; false if it is the first one that does not belong to the beginning.
    ///
    /// # Errors
    /// [`ExportError`] says what is wrong with it.
    pub fn push(&mut self, kind: Kind, bytes: &[u8]) -> Result<bool, ExportError> {
        let workspace = self.workspace();
        match kind {
            Kind::Op => {
                let op = SignedOp::parse(&workspace, bytes).map_err(|_| ExportError::Op)?;
                self.set.insert(op).map_err(|_| ExportError::Op)?;
            }
            Kind::Epoch if self.epochs.len() >= OPS_MAX => return Err(ExportError::Epoch),
            Kind::Epoch => {
                self.epochs.push(Epoch::from_bytes(&workspace, bytes).map_err(|_| ExportError::Epoch)?);
            }
            Kind::Piece | Kind::Envelope | Kind::File | Kind::End => return Ok(false),
            Kind::Header | Kind::Genesis | Kind::Chunk => return Err(ExportError::Order),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head is read as it was written; another kind, or a claim beyond the limit, is refused before anything is read.
    #[test]
    fn a_head_claims_nothing_beyond_the_limit() {
        for kind in Kind::ALL {
            for len in [0, 1, RECORD_BYTES_MAX] {
                assert_eq!(parse_record_head(record_head(kind, len).unwrap()), Ok((kind, len)));
            }
        }
        assert_eq!(record_head(Kind::Chunk, RECORD_BYTES_MAX + 1), None);
        assert_eq!(parse_record_head([Kind::Chunk as u8, 0xff, 0xff, 0xff, 0xff]), Err(ExportError::TooLong));
        assert_eq!(parse_record_head([0; HEAD_BYTES]), Err(ExportError::Newer));
        assert_eq!(parse_record_head([10, 0, 0, 0, 0]), Err(ExportError::Newer));
    }

    /// An export begins with a genesis, and with nothing else that parses.
    #[test]
    fn an_export_begins_with_a_genesis() {
        for kind in Kind::ALL {
            assert_eq!(Beginning::new(kind, b"none").unwrap_err(), ExportError::NoGenesis);
        }
    }
}
