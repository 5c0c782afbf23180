//! Saved documents, so that a newcomer has its folder before it has the history: what a checkpoint's envelope says, and
//! the packs that its pieces hold.
//!
//! The envelope (kind 3) names a frontier and a manifest; the pieces of the manifest are *packs* of records, and parts of
//! what is longer than a pack, right behind the pack that names it. Invariant: a piece is opened and decoded by itself, so
//! that nobody has more than one in memory; every size is bounded before anything is decompressed, and a saved document is
//! looked at column by column before Automerge sees it. Nothing in a checkpoint is believed for good: see
//! `workspace/checkpoint`. Spec: docs/sealing.md#checkpoints.

use bytes::Bytes;
use weft_protocol::cbor::{DecodeError, Decoded, Reader, Type, Wire, Writer};

use crate::content::{DocumentName, Manifest};
use crate::frontier::Frontier;
use crate::id::VersionHash;
use crate::payload::{self, PayloadError};
use crate::piece::{self, PIECE_BYTES_MAX};

/// Most chains that a checkpoint's frontier names: so that it fits an offer, with its manifest, and room to spare.
pub const CHECKPOINT_CHAINS_MAX: usize = 2_048;
/// Most plain bytes of all pieces: eight times the documents of the largest workspace there is a figure for.
pub const CHECKPOINT_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Largest saved document, in bytes; a larger one is left to the history.
pub const SAVED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most records in a pack.
pub const PACK_RECORDS_MAX: usize = 4_096;
/// Most pieces behind a pack that one record goes on in: what [`SAVED_BYTES_MAX`] needs, and one more.
pub const FOLLOWING_MAX: usize = SAVED_BYTES_MAX / PIECE_BYTES_MAX + 2;
/// Plain bytes of records in a pack, about: the rest of a piece is for what stands around them.
pub(crate) const PACK_BYTES: usize = PIECE_BYTES_MAX - 4 * 1024;

/// The body of a checkpoint's envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything that is in the saved documents was signed in an envelope at or below this.
    pub frontier: Frontier,
    /// The packs.
    pub manifest: Manifest,
}

/// Where the data of a record is: packed as everything inside a seal is (codec, length, data).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Here.
    Here(Bytes),
    /// In so many pieces right behind this pack, joined. Only the last record of a pack says so.
    Following(usize),
}

/// One thing that is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The content of a version that is shown.
    Version {
        /// Hash of the plain content.
        hash: VersionHash,
        /// The content.
        data: Data,
    },
    /// The pieces of a version that is a blob; they are fetched as ever.
    Blob {
        /// Hash of the plain content.
        hash: VersionHash,
        /// Its pieces.
        manifest: Manifest,
    },
    /// A document, as Automerge saves it without compressing any column.
    Document {
        /// Which.
        name: DocumentName,
        /// The version that a text starts from.
        version: Option<VersionHash>,
        /// Its bytes.
        data: Data,
    },
}

/// What one piece holds, unless it is what follows another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pack {
    /// The records, in the order in which they are to be taken.
    pub records: Vec<Record>,
}

impl Checkpoint {
    /// Whether its claims are within the format's bounds.
    fn is_bounded(&self) -> bool {
        self.frontier.len() <= CHECKPOINT_CHAINS_MAX
            && self.manifest.len <= CHECKPOINT_BYTES_MAX
            && piece::check_manifest(&self.manifest).is_ok()
    }
}

impl Pack {
    /// How many pieces behind this one belong to it.
    #[must_use]
    pub fn following(&self) -> usize {
        match self.records.last().and_then(Record::data) {
            Some(Data::Following(count)) => *count,
            Some(Data::Here(_)) | None => 0,
        }
    }
}

impl Record {
    fn data(&self) -> Option<&Data> {
        match self {
            Record::Version { data, .. } | Record::Document { data, .. } => Some(data),
            Record::Blob { .. } => None,
        }
    }
}

/// Packs what a record saves.
pub(crate) fn pack_data(plain: &[u8]) -> Vec<u8> {
    payload::pack(plain, true)
}

/// The reverse: at most `max` bytes.
pub(crate) fn unpack_data(packed: &[u8], max: usize) -> Result<Vec<u8>, PayloadError> {
    payload::unpack(packed, max)
}

impl Wire for Checkpoint {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).item(&self.frontier).item(&self.frontier.digest()).item(&self.manifest);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "checkpoint")?;
        let frontier: Frontier = reader.item()?;
        let digest: [u8; 32] = reader.item()?;
        let checkpoint = Self { frontier, manifest: reader.item()? };
        if digest != checkpoint.frontier.digest() {
            return Err(DecodeError::Invalid("checkpoint digest"));
        }
        if checkpoint.is_bounded() { Ok(checkpoint) } else { Err(DecodeError::Invalid("checkpoint")) }
    }
}

impl Wire for Data {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Data::Here(bytes) => writer.bytes(bytes),
            Data::Following(count) => writer.uint(*count as u64),
        };
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        if reader.peek()? == Type::Bytes {
            return Ok(Data::Here(Bytes::copy_from_slice(reader.bytes_up_to(PIECE_BYTES_MAX, "saved data")?)));
        }
        match reader.uint_up_to(FOLLOWING_MAX as u64, "following pieces")? {
            0 => Err(DecodeError::Invalid("following pieces")),
            count => Ok(Data::Following(count as usize)),
        }
    }
}

impl Wire for Record {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Record::Version { hash, data } => writer.array(3).uint(0).item(hash).item(data),
            Record::Blob { hash, manifest } => writer.array(3).uint(1).item(hash).item(manifest),
            Record::Document { name, version, data } => {
                writer.array(4).uint(2).item(name).optional(version.as_ref()).item(data)
            }
        };
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let len = reader.array_up_to(4, "record")?;
        match (reader.uint()?, len) {
            (0, 3) => Ok(Record::Version { hash: reader.item()?, data: reader.item()? }),
            (1, 3) => Ok(Record::Blob { hash: reader.item()?, manifest: reader.item()? }),
            (2, 4) => Ok(Record::Document { name: reader.item()?, version: reader.optional()?, data: reader.item()? }),
            _ => Err(DecodeError::Invalid("record")),
        }
    }
}

impl Wire for Pack {
    fn encode(&self, writer: &mut Writer) {
        writer.list(&self.records);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let records: Vec<Record> = reader.list(PACK_RECORDS_MAX, "records")?;
        let before = records.len().saturating_sub(1);
        let early = records.iter().take(before).any(|record| matches!(record.data(), Some(Data::Following(_))));
        if early { Err(DecodeError::Invalid("following pieces")) } else { Ok(Self { records }) }
    }
}

#[cfg(test)]
mod tests {
    use weft_protocol::cbor::{from_bytes, to_bytes};

    use super::*;
    use crate::content::PieceRef;
    use crate::id::PieceId;

    fn manifest(len: u32) -> Manifest {
        let piece = PieceRef { id: PieceId([1; 32]), len, key: [2; 32] };
        Manifest { len: u64::from(len), depth: 0, pieces: vec![piece] }
    }

    /// What is said is understood, and a frontier whose digest is another is refused, as is a size beyond the format's.
    #[test]
    fn a_checkpoint_round_trips_and_claims_nothing_beyond_its_bounds() {
        let whole = Checkpoint { frontier: Frontier::default(), manifest: manifest(9) };
        let bytes = to_bytes(&whole);
        assert_eq!(from_bytes::<Checkpoint>(&bytes), Ok(whole.clone()));
        let mut other = bytes.clone();
        let at = bytes.windows(4).position(|four| four == &whole.frontier.digest()[..4]).unwrap();
        other[at] ^= 1;
        assert_eq!(from_bytes::<Checkpoint>(&other), Err(DecodeError::Invalid("checkpoint digest")));
        for len in [0, u32::MAX] {
            let bomb = to_bytes(&Checkpoint { manifest: manifest(len), ..whole.clone() });
            assert_eq!(from_bytes::<Checkpoint>(&bomb), Err(DecodeError::Invalid("checkpoint")));
        }
        let bomb = Manifest { len: CHECKPOINT_BYTES_MAX + 1, depth: 1, ..manifest(9) };
        let bomb = to_bytes(&Checkpoint { manifest: bomb, ..whole });
        assert_eq!(from_bytes::<Checkpoint>(&bomb), Err(DecodeError::Invalid("checkpoint")));
    }

    /// Only the last record of a pack goes on behind it, and not without end.
    #[test]
    fn only_the_last_record_goes_on_behind_its_pack() {
        let version = |data| Record::Version { hash: VersionHash([3; 32]), data };
        let here = version(Data::Here(Bytes::from_static(b"data")));
        let document = |data| Record::Document {
            name: DocumentName::new("tree:00:entries").unwrap(),
            version: Some(VersionHash([4; 32])),
            data,
        };
        let blob = Record::Blob { hash: VersionHash([5; 32]), manifest: manifest(7) };
        let pack = Pack { records: vec![here.clone(), blob, document(Data::Following(3))] };
        assert_eq!(pack.following(), 3);
        assert_eq!(from_bytes::<Pack>(&to_bytes(&pack)), Ok(pack));
        let early = Pack { records: vec![document(Data::Following(3)), here] };
        assert!(from_bytes::<Pack>(&to_bytes(&early)).is_err());
        for count in [0, FOLLOWING_MAX + 1] {
            let pack = Pack { records: vec![version(Data::Following(count))] };
            assert!(from_bytes::<Pack>(&to_bytes(&pack)).is_err());
        }
    }

    /// A few bytes that claim to be a gigabyte are refused before they are inflated.
    #[test]
    fn a_bomb_is_refused_before_it_is_inflated() {
        let packed = pack_data(&vec![0; SAVED_BYTES_MAX + 1]);
        assert!(packed.len() < 10_000);
        assert_eq!(unpack_data(&packed, SAVED_BYTES_MAX), Err(PayloadError::TooLarge));
    }
}
