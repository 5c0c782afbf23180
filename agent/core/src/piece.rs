//! Blobs: content cut into pieces where the content says so, each sealed with its own random key.
//!
//! ver, suite, class 4, nonce (24) ‖ ciphertext of the padded payload; its id is the hash of the sealed bytes. Invariant:
//! a piece opens only to bytes of the length its reference names, and no sealed piece is longer than 256 KiB. Why cut by
//! content: an edit in a large file changes the pieces around it, not all behind it. The gear table is keyed by the
//! workspace, so that the sizes of pieces do not tell a known file. Spec: docs/sealing.md#pieces.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};
use rand_core::CryptoRng;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use crate::cipher::{self, TAG_LEN};
use crate::content::{MANIFEST_PIECES_MAX, Manifest, PieceRef};
use crate::envelope::{Class, SMALL_BYTES_MAX, Sealed};
use crate::hash;
use crate::id::{PieceId, WorkspaceId};
use crate::padding::{is_padded_len, padded_len};
use crate::payload;
use crate::secret::{Secret, random_bytes};

/// Longest sealed piece, padded, in bytes.
pub const PIECE_SEALED_BYTES_MAX: usize = SMALL_BYTES_MAX;
/// Preamble, nonce.
const HEAD_LEN: usize = 3 + 24;
/// Longest plain piece, in bytes.
pub const PIECE_BYTES_MAX: usize = PIECE_SEALED_BYTES_MAX - HEAD_LEN - TAG_LEN - payload::HEAD_LEN;
/// Shortest piece but for the last, in bytes.
pub const PIECE_BYTES_MIN: usize = 64 * 1024;
/// Size around which pieces lie, in bytes.
pub const PIECE_BYTES_AVG: usize = 128 * 1024;
/// Most pieces of one blob: 32 GiB at the average.
pub const BLOB_PIECES_MAX: usize = 1 << 18;
/// Most bytes of an inner manifest: its pieces at 76 bytes, and a head.
pub const INNER_MANIFEST_BYTES_MAX: usize = BLOB_PIECES_MAX * 80;

/// Why a piece or manifest was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PieceError {
    /// The bytes are not those the reference names: whoever sent them is to blame.
    #[error("a piece is not the one its id names")]
    WrongId,
    /// It does not open to what the reference says: whoever wrote the manifest is to blame.
    #[error("a piece does not open to what its manifest says")]
    WrongContent,
    /// A manifest that is malformed or contradicts itself.
    #[error("a manifest is malformed")]
    Manifest,
    /// More pieces than a blob may have.
    #[error("a file is too large: at most 32 GiB")]
    TooLarge,
}

/// Finds where to cut. Streaming: feed a buffer, take [`Chunker::cut`] bytes from its front, refill, repeat.
#[derive(Clone)]
pub struct Chunker {
    gear: Box<[u64; 256]>,
    shifted: Box<[u64; 256]>,
    masks: (u64, u64),
}

impl core::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Chunker(…)")
    }
}

impl Chunker {
    /// The workspace's gear table: BLAKE3 derive_key `weft/v1/gear` of the workspace id, 256 little-endian words.
    #[must_use]
    pub fn new(workspace: &WorkspaceId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(&format!("{}gear", hash::PREFIX));
        let mut xof = hasher.update(&workspace.0).finalize_xof();
        let (mut gear, mut shifted) = (Box::new([0; 256]), Box::new([0; 256]));
        for (word, twice) in gear.iter_mut().zip(shifted.iter_mut()) {
            let mut bytes = [0; 8];
            xof.fill(&mut bytes);
            *word = u64::from_le_bytes(bytes);
            *twice = *word << 1;
        }
        Self { gear, shifted, masks: select_masks(PIECE_BYTES_AVG, Normalization::Level1) }
    }

    /// Bytes of the first piece of `window`. Give at least [`PIECE_BYTES_MAX`] bytes unless the content ends with them;
    /// 0 only for an empty window.
    #[must_use]
    pub fn cut(&self, window: &[u8]) -> usize {
        let (small, large) = self.masks;
        let (_, len) = cut_gear(
            window,
            PIECE_BYTES_MIN,
            PIECE_BYTES_AVG,
            PIECE_BYTES_MAX,
            small,
            large,
            small << 1,
            large << 1,
            self.gear.as_ref(),
            self.shifted.as_ref(),
        );
        len.min(window.len())
    }

    /// All pieces of content that is in memory.
    pub fn pieces<'a>(&'a self, mut content: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        std::iter::from_fn(move || {
            let (piece, rest) = content.split_at_checked(self.cut(content))?;
            content = rest;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// Seals at most [`PIECE_BYTES_MAX`] plain bytes. `None` if they are more.
#[must_use]
pub fn seal_piece(plain: &[u8], rng: &mut dyn CryptoRng) -> Option<(PieceRef, Sealed)> {
    if plain.len() > PIECE_BYTES_MAX {
        return None;
    }
    // From random bytes and the content: repeated randomness repeats a key only for an equal piece.
    let key = Secret::new(hash::k(&random_bytes(rng), &[b"piece-key", plain]));
    let random = random_bytes::<24>(rng);
    let mut nonce = [0; 24];
    let derived = hash::k(key.expose(), &[b"nonce", &random]);
    nonce.iter_mut().zip(derived).for_each(|(to, from)| *to = from);
    let mut bytes = Vec::with_capacity(padded_len(HEAD_LEN + TAG_LEN + payload::HEAD_LEN + plain.len()));
    bytes.extend_from_slice(&Class::Piece.preamble());
    bytes.extend_from_slice(&nonce);
    let mut packed = payload::pack(plain, true);
    let total = padded_len(HEAD_LEN + TAG_LEN + packed.len());
    packed.resize(total - HEAD_LEN - TAG_LEN, 0);
    let (message_key, _) = hash::message_key(&key, &nonce);
    let aad = bytes.clone();
    bytes.extend_from_slice(&cipher::seal_once(&message_key, &aad, packed));
    let id = piece_id(&bytes);
    let len = u32::try_from(plain.len()).ok()?;
    Some((PieceRef { id, len, key: *key.expose() }, Sealed::new(bytes)))
}

/// H(piece, sealed bytes): what a holder checks without being able to open it.
#[must_use]
pub fn piece_id(sealed: &[u8]) -> PieceId {
    PieceId(hash::h("piece", &[sealed]))
}

/// Opens a sealed piece as its reference says.
pub fn open_piece(piece: &PieceRef, sealed: &[u8]) -> Result<Vec<u8>, PieceError> {
    let shaped = Class::of(sealed) == Some(Class::Piece) && is_padded_len(sealed.len());
    if !shaped || sealed.len() > PIECE_SEALED_BYTES_MAX || piece_id(sealed) != piece.id {
        return Err(PieceError::WrongId);
    }
    let (head, ciphertext) = sealed.split_at_checked(HEAD_LEN).ok_or(PieceError::WrongId)?;
    let nonce: [u8; 24] = head.get(3..).and_then(|nonce| nonce.try_into().ok()).ok_or(PieceError::WrongId)?;
    let len = piece.len as usize;
    if len > PIECE_BYTES_MAX {
        return Err(PieceError::WrongContent);
    }
    let (key, _) = hash::message_key(&Secret::new(piece.key), &nonce);
    let packed = cipher::open_once(&key, head, ciphertext).ok_or(PieceError::WrongContent)?;
    let plain = payload::unpack(&packed, len).map_err(|_| PieceError::WrongContent)?;
    if plain.len() != len {
        return Err(PieceError::WrongContent);
    }
    Ok(plain)
}

struct Inner {
    len: u64,
    pieces: Vec<PieceRef>,
}

impl Wire for Inner {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).uint(self.len).uint(0).list(&self.pieces);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "manifest")?;
        let len = reader.uint()?;
        if reader.uint()? != 0 {
            return Err(DecodeError::Invalid("manifest depth"));
        }
        Ok(Self { len, pieces: reader.list(BLOB_PIECES_MAX, "manifest pieces")? })
    }
}

/// A manifest for these pieces, in order; and, if they are more than one manifest names, the sealed pieces that hold the
/// inner manifest (store and serve them like the others).
pub fn make_manifest(
    pieces: Vec<PieceRef>,
    workspace: &WorkspaceId,
    rng: &mut dyn CryptoRng,
) -> Result<(Manifest, Vec<(PieceRef, Sealed)>), PieceError> {
    let len = pieces.iter().map(|piece| u64::from(piece.len)).sum();
    if pieces.len() <= MANIFEST_PIECES_MAX {
        return Ok((Manifest { len, depth: 0, pieces }, Vec::new()));
    }
    if pieces.len() > BLOB_PIECES_MAX {
        return Err(PieceError::TooLarge);
    }
    let inner = zeroize::Zeroizing::new(cbor::to_bytes(&Inner { len, pieces }));
    let sealed = Chunker::new(workspace)
        .pieces(&inner)
        .map(|piece| seal_piece(piece, rng))
        .collect::<Option<Vec<_>>>()
        .ok_or(PieceError::TooLarge)?;
    let pieces = sealed.iter().map(|(piece, _)| piece.clone()).collect();
    Ok((Manifest { len, depth: 1, pieces }, sealed))
}

/// The pieces of a depth-1 manifest's content, from its opened and joined pieces.
pub fn open_inner_manifest(outer: &Manifest, joined: &[u8]) -> Result<Manifest, PieceError> {
    if outer.depth != 1 || joined.len() > INNER_MANIFEST_BYTES_MAX {
        return Err(PieceError::Manifest);
    }
    let inner: Inner = cbor::from_bytes(joined).map_err(|_| PieceError::Manifest)?;
    let manifest = Manifest { len: inner.len, depth: 0, pieces: inner.pieces };
    if inner.len != outer.len {
        return Err(PieceError::Manifest);
    }
    check_manifest(&manifest)?;
    Ok(manifest)
}

/// Whether a manifest's lengths fit: pieces within bounds that, at depth 0, add up to the content's length.
pub fn check_manifest(manifest: &Manifest) -> Result<(), PieceError> {
    let bounded = manifest.pieces.iter().all(|piece| piece.len > 0 && piece.len as usize <= PIECE_BYTES_MAX);
    let sum: u64 = manifest.pieces.iter().map(|piece| u64::from(piece.len)).sum();
    let fits = match manifest.depth {
        0 => sum == manifest.len,
        _ => sum <= INNER_MANIFEST_BYTES_MAX as u64,
    };
    if bounded && fits { Ok(()) } else { Err(PieceError::Manifest) }
}
