//! The plain body of a content envelope: for each document, what happened to it, in order.
//!
//! Invariant: the bytes are bounded before they are parsed, and a list inside never makes memory for what is not there.
//! Spec: docs/sealing.md#content.

use bytes::Bytes;
use weft_protocol::cbor::{DecodeError, Decoded, Reader, Type, Wire, Writer};

use crate::id::{ChangeHash, PieceId, VersionHash};
use crate::store::{Read, Table};

/// Longest document name, in bytes: `{entity}:{id}:{concern}` has at most 16 + 1 + 64 + 1 + 32 in use.
pub const DOCUMENT_NAME_BYTES_MAX: usize = 128;
/// Most documents in one envelope.
pub const DOCUMENTS_PER_ENVELOPE_MAX: usize = 4096;
/// Most items of one document in one envelope.
pub const ITEMS_PER_DOCUMENT_MAX: usize = 16_384;
/// Most pieces in one manifest: 128 KiB of manifest; larger content has a manifest that is itself a blob.
pub const MANIFEST_PIECES_MAX: usize = 1_700;
/// Longest inline content, in bytes. What is longer is a blob. Must fit an envelope with room for its tree change.
pub const INLINE_BYTES_MAX: usize = 256 * 1024;

/// The name of a document: `{entity}:{id}:{concern}`, ASCII.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentName(String);

impl DocumentName {
    /// Checks the shape: printable ASCII without spaces, two colons, bounded.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let shaped = name.len() <= DOCUMENT_NAME_BYTES_MAX
            && name.bytes().all(|byte| byte.is_ascii_graphic())
            && name.bytes().filter(|byte| *byte == b':').count() == 2;
        shaped.then(|| Self(name.to_owned()))
    }
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One sealed piece of a blob.
#[derive(Clone, PartialEq, Eq)]
pub struct PieceRef {
    /// Hash of the sealed bytes.
    pub id: PieceId,
    /// Plain length in bytes.
    pub len: u32,
    /// The random key it is sealed with. Secret, like the content.
    pub key: [u8; 32],
}

impl core::fmt::Debug for PieceRef {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PieceRef").field("id", &self.id).field("len", &self.len).finish_non_exhaustive()
    }
}

/// How to put a blob together again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Plain length of the content in bytes.
    pub len: u64,
    /// 0: the pieces are the content. 1: the pieces, opened and joined, are the CBOR of the next manifest.
    pub depth: u8,
    /// The pieces, in order.
    pub pieces: Vec<PieceRef>,
}

impl Manifest {
    /// Whether all its own pieces are stored.
    #[must_use]
    pub fn is_here(&self, read: &dyn Read) -> bool {
        self.pieces.iter().all(|piece| read.has(Table::Pieces, &piece.id.0))
    }
}

/// The bytes of a version, here or in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionBytes {
    /// At most [`INLINE_BYTES_MAX`] bytes.
    Inline(Bytes),
    /// Pieces that are fetched apart.
    Blob(Manifest),
}

/// One thing that happened to a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Content of a file that is not merged: a version.
    Version {
        /// Hash of the plain content.
        hash: VersionHash,
        /// The content.
        bytes: VersionBytes,
    },
    /// An Automerge change, uncompressed (chunk type 1).
    Change(Bytes),
    /// The document starts from this version; stands before its first change.
    Founded {
        /// The version whose text is the base.
        version: VersionHash,
        /// The hash of the deterministic base change, so that a receiver that computes another one knows.
        base: ChangeHash,
    },
}

/// What an envelope says: documents in the order in which they are to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// Documents and their items.
    pub documents: Vec<(DocumentName, Vec<Item>)>,
}

impl Content {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }
    /// About how many bytes its encoding has.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        self.documents
            .iter()
            .map(|(name, items)| name.0.len() + 8 + items.iter().map(Item::size_hint).sum::<usize>())
            .sum()
    }
}

impl Item {
    /// About how many bytes its encoding has.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        match self {
            Item::Version { bytes: VersionBytes::Inline(bytes), .. } => bytes.len() + 48,
            Item::Version { bytes: VersionBytes::Blob(manifest), .. } => manifest.pieces.len() * 76 + 64,
            Item::Change(bytes) => bytes.len() + 8,
            Item::Founded { .. } => 72,
        }
    }
}

impl Wire for DocumentName {
    fn encode(&self, writer: &mut Writer) {
        writer.text(&self.0);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let text = reader.text_up_to(DOCUMENT_NAME_BYTES_MAX, "document name")?;
        Self::new(text).ok_or(DecodeError::Invalid("document name"))
    }
}

impl Wire for PieceRef {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).item(&self.id).uint(u64::from(self.len)).item(&self.key);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "piece")?;
        let id = reader.item()?;
        let len = reader.uint_up_to(u64::from(u32::MAX), "piece length")? as u32;
        Ok(Self { id, len, key: reader.item()? })
    }
}

impl Wire for Manifest {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).uint(self.len).uint(u64::from(self.depth)).list(&self.pieces);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "manifest")?;
        let len = reader.uint()?;
        let depth = reader.uint_up_to(1, "manifest depth")? as u8;
        Ok(Self { len, depth, pieces: reader.list(MANIFEST_PIECES_MAX, "manifest pieces")? })
    }
}

impl Wire for Item {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Item::Version { hash, bytes } => {
                writer.array(3).uint(0).item(hash);
                match bytes {
                    VersionBytes::Inline(bytes) => writer.bytes(bytes),
                    VersionBytes::Blob(manifest) => writer.item(manifest),
                };
            }
            Item::Change(bytes) => {
                writer.array(2).uint(1).bytes(bytes);
            }
            Item::Founded { version, base } => {
                writer.array(3).uint(2).item(version).item(base);
            }
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let len = reader.array_up_to(3, "item")?;
        match (reader.uint()?, len) {
            (0, 3) => {
                let hash = reader.item()?;
                let bytes = if reader.peek()? == Type::Bytes {
                    VersionBytes::Inline(Bytes::copy_from_slice(reader.bytes_up_to(INLINE_BYTES_MAX, "version")?))
                } else {
                    VersionBytes::Blob(reader.item()?)
                };
                Ok(Item::Version { hash, bytes })
            }
            (1, 2) => Ok(Item::Change(Bytes::copy_from_slice(reader.bytes_up_to(512 * 1024, "change")?))),
            (2, 3) => Ok(Item::Founded { version: reader.item()?, base: reader.item()? }),
            _ => Err(DecodeError::Invalid("item")),
        }
    }
}

impl Wire for Content {
    fn encode(&self, writer: &mut Writer) {
        writer.array(self.documents.len());
        for (name, items) in &self.documents {
            writer.array(2).item(name).list(items);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let len = reader.array_up_to(DOCUMENTS_PER_ENVELOPE_MAX, "documents")?;
        let mut documents = Vec::new();
        for _ in 0..len {
            reader.array(2, "document")?;
            documents.push((reader.item()?, reader.list(ITEMS_PER_DOCUMENT_MAX, "items")?));
        }
        Ok(Self { documents })
    }
}
