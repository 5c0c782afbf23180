//! The header: [kind, epoch16, device16, inc8, seq, prev32, [op32], BLAKE3(body_ct), leaf32] ‖ signature ‖ zeros.
//! Spec: docs/sealing.md#header.

use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};
use weft_protocol::frame::PeerId;

use super::Class;
use super::kind::Kind;
use crate::hash;
use crate::id::{ChainId, EpochId, Link, OpId, WorkspaceId};
use crate::sign::SIGNATURE_LEN;

/// Most op heads an envelope names.
pub const OP_HEADS_MAX: usize = 8;
/// Headers are padded to a multiple of this, so that the number of op heads shows only roughly.
pub(crate) const HEADER_MULTIPLE: usize = 256;
/// Longest padded header.
pub(crate) const HEADER_BYTES_MAX: usize = 512;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: Kind,
    /// The epoch it is sealed under.
    pub epoch: EpochId,
    /// Who signed it, in which life.
    pub chain: ChainId,
    /// Its number on the chain, from 1; 0 for ephemeral kinds.
    pub seq: u64,
    /// The link of the envelope before it; zeros for the first of a device's first incarnation. Of ephemeral kinds who speaks:
    /// [`spoken_by`].
    pub prev: Link,
    /// The membership the author knew, ascending, 1 to 8.
    pub op_heads: Vec<OpId>,
    /// Hash of the sealed body.
    pub body_hash: [u8; 32],
    /// Keyed digest of the change hashes in the body; zeros if there are none.
    pub leaf: [u8; 32],
}

impl Wire for Header {
    fn encode(&self, writer: &mut Writer) {
        writer.array(9).uint(u64::from(self.kind.to_byte())).item(&self.epoch).item(&self.chain.device);
        writer.bytes(&self.chain.incarnation.to_be_bytes()).uint(self.seq).item(&self.prev);
        writer.list(&self.op_heads).bytes(&self.body_hash).bytes(&self.leaf);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(9, "header")?;
        let kind = Kind::from_byte(reader.uint_up_to(255, "kind")? as u8);
        let epoch = reader.item()?;
        let device = reader.item()?;
        let incarnation = u64::from_be_bytes(reader.fixed("incarnation")?);
        let (seq, prev): (u64, Link) = (reader.uint()?, reader.item()?);
        let op_heads: Vec<OpId> = reader.list(OP_HEADS_MAX, "op heads")?;
        if op_heads.is_empty() || !op_heads.is_sorted_by(|one, next| one < next) {
            return Err(DecodeError::Invalid("op heads"));
        }
        let header = Self {
            kind,
            epoch,
            chain: ChainId { device, incarnation },
            seq,
            prev,
            op_heads,
            body_hash: reader.item()?,
            leaf: reader.item()?,
        };
        header.shaped().then_some(header).ok_or(DecodeError::Invalid("header"))
    }
}

impl Header {
    /// Stored envelopes are numbered from 1; ephemeral ones are outside the chain.
    pub(crate) fn shaped(&self) -> bool {
        match self.kind.class() {
            Class::Stored => self.seq > 0,
            Class::Ephemeral => self.seq == 0 && self.prev.0.get(16..) == Some(&[0; 16]),
            Class::Direct | Class::Lobby | Class::Piece => self.seq == 0 && self.prev == Link([0; 32]),
        }
    }
    /// H(link, workspace ‖ nonce ‖ header): what the next envelope names.
    pub(crate) fn link(workspace: &WorkspaceId, nonce: &[u8; 24], header: &[u8]) -> Link {
        Link(hash::h("link", &[&workspace.0, nonce, header]))
    }
}

/// What stands in place of a link in an ephemeral message: the name that the speaker has in the room where it is said, and
/// zeros. Why: said again by somebody else, or elsewhere, it would make them out to be the speaker.
#[must_use]
pub fn spoken_by(peer: PeerId) -> Link {
    let mut link = [0; 32];
    link.iter_mut().zip(peer.0).for_each(|(to, from)| *to = from);
    Link(link)
}

/// header ‖ signature ‖ zeros, taken apart; accepts one encoding only.
pub(crate) fn split_padded(plain: &[u8]) -> Decoded<(Header, &[u8], [u8; SIGNATURE_LEN])> {
    if plain.len() > HEADER_BYTES_MAX || !plain.len().is_multiple_of(HEADER_MULTIPLE) {
        return Err(DecodeError::Invalid("header length"));
    }
    let mut reader = Reader::new(plain);
    let header = Header::decode(&mut reader)?;
    let (bytes, rest) = plain.split_at_checked(reader.position()).ok_or(DecodeError::Malformed("truncated"))?;
    if cbor::to_bytes(&header) != bytes {
        return Err(DecodeError::NotDeterministic);
    }
    let (signature, zeros) = rest.split_first_chunk::<SIGNATURE_LEN>().ok_or(DecodeError::Malformed("truncated"))?;
    if zeros.len() >= HEADER_MULTIPLE || zeros.iter().any(|byte| *byte != 0) {
        return Err(DecodeError::NotDeterministic);
    }
    Ok((header, bytes, *signature))
}
