//! Making an envelope.
//!
//! Invariant: one message key seals one header and one body; a nonce repeats only for an equal message, whatever the
//! random generator does. Spec: docs/sealing.md#sealing.

use rand_core::CryptoRng;
use weft_protocol::cbor;

use super::header::{HEADER_MULTIPLE, Header, OP_HEADS_MAX};
use super::kind::{BodyKey, Kind};
use super::{BODY_AAD_LEN, BODY_BYTES_MAX, Class, ENVELOPE_BYTES_MAX, OUTER_LEN, Sealed};
use crate::cipher::{self, TAG_LEN};
use crate::epoch::Epoch;
use crate::hash;
use crate::id::{ChainId, ChangeHash, Link, OpId, WorkspaceId};
use crate::identity::DeviceKeys;
use crate::padding::padded_len;
use crate::payload;
use crate::secret::{Secret, random_bytes};
use crate::sign::{self, Context};

/// What an envelope is made of.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    /// What the body is.
    pub kind: Kind,
    /// The epoch to seal under.
    pub epoch: &'a Epoch,
    /// Our chain.
    pub chain: ChainId,
    /// The next number on it; 0 for ephemeral kinds.
    pub seq: u64,
    /// The link before it; for ephemeral kinds [`super::spoken_by`].
    pub prev: Link,
    /// The membership we know, 1 to 8, in any order.
    pub op_heads: Vec<OpId>,
    /// The plain body.
    pub body: &'a [u8],
    /// The hashes of the changes in the body, in order.
    pub leaf_changes: &'a [ChangeHash],
}

/// Why nothing was sealed; the caller is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The body is longer than the format allows, before or after compression: split the batch.
    #[error("the batch does not fit an envelope")]
    TooLarge,
    /// The body is sealed under C, which this device does not hold.
    #[error("this device holds no content key")]
    NoContentKey,
    /// None, or more than 8 op heads.
    #[error("an envelope names 1 to 8 membership heads")]
    OpHeads,
    /// A number or predecessor that the kind does not have, another device's chain, or another workspace's epoch.
    #[error("the envelope's place does not fit its kind, its signer or its epoch")]
    Place,
}

/// A new envelope.
#[derive(Debug, Clone)]
pub struct SealedEnvelope {
    /// What to store, then send.
    pub sealed: Sealed,
    /// What the next envelope of the chain names.
    pub link: Link,
}

pub(super) fn body_subkey(epoch: &Epoch, key: BodyKey) -> Option<&Secret> {
    match key {
        BodyKey::Ops => Some(&epoch.keys.ops),
        BodyKey::Content => epoch.keys.content.as_ref().map(|keys| &keys.body),
        BodyKey::Presence => epoch.keys.content.as_ref().map(|keys| &keys.presence),
    }
}

/// Signs and seals a draft.
pub fn seal(
    draft: Draft<'_>,
    workspace: &WorkspaceId,
    device: &DeviceKeys,
    rng: &mut dyn CryptoRng,
) -> Result<SealedEnvelope, SealError> {
    let epoch = draft.epoch;
    let body_key = draft.kind.body_key().and_then(|key| body_subkey(epoch, key)).ok_or(SealError::NoContentKey)?;
    let leaf = epoch.leaf(draft.leaf_changes).ok_or(SealError::NoContentKey)?;
    if draft.body.len() > BODY_BYTES_MAX {
        return Err(SealError::TooLarge);
    }
    let mut op_heads = draft.op_heads;
    op_heads.sort();
    op_heads.dedup();
    if op_heads.is_empty() || op_heads.len() > OP_HEADS_MAX {
        return Err(SealError::OpHeads);
    }
    let (kind, chain, seq, prev) = (draft.kind, draft.chain, draft.seq, draft.prev);
    let mut header = Header { kind, epoch: epoch.id(), chain, seq, prev, op_heads, body_hash: [0; 32], leaf };
    if !header.shaped() || chain.device != device.id() || epoch.workspace() != workspace {
        return Err(SealError::Place);
    }

    // The nonce: from random bytes, the header without the body's hash, and the plain body.
    let blank = cbor::to_bytes(&header);
    let random = random_bytes::<24>(rng);
    let mut nonce = [0; 24];
    let derived = hash::k(epoch.keys.nonce.expose(), &[b"envelope", &random, &blank, draft.body]);
    nonce.iter_mut().zip(derived).for_each(|(to, from)| *to = from);

    let (head_key, commitment) = hash::message_key(&epoch.keys.head, &nonce);
    let (message_key, _) = hash::message_key(body_key, &nonce);
    let head_len = (blank.len() + sign::SIGNATURE_LEN).next_multiple_of(HEADER_MULTIPLE) + TAG_LEN;

    let mut outer = Vec::with_capacity(OUTER_LEN + workspace.0.len());
    outer.extend_from_slice(&kind.class().preamble());
    outer.extend_from_slice(&epoch.tag(&nonce));
    outer.extend_from_slice(&nonce);
    let body_aad = [outer.as_slice(), &workspace.0].concat();
    debug_assert_eq!(outer.len(), BODY_AAD_LEN, "the body's associated data is the outer part up to the nonce");
    outer.extend_from_slice(&commitment);
    outer.extend_from_slice(&u16::try_from(head_len).map_err(|_| SealError::OpHeads)?.to_be_bytes());

    let mut body = payload::pack(draft.body, true);
    let fixed = OUTER_LEN + head_len + TAG_LEN;
    let total = padded_len(fixed + body.len());
    if total > ENVELOPE_BYTES_MAX {
        return Err(SealError::TooLarge);
    }
    body.resize(total - fixed, 0);
    let body = cipher::seal_once(&message_key, &body_aad, body);

    header.body_hash = blake3::hash(&body).into();
    let signed = cbor::to_bytes(&header);
    let signature = sign::sign(device.signing_key(), Context::Envelope, workspace, &[&nonce, &signed]);
    let mut head = signed.clone();
    head.extend_from_slice(&signature);
    head.resize(head_len - TAG_LEN, 0);
    let head_aad = [outer.as_slice(), &workspace.0].concat();
    let head = cipher::seal_once(&head_key, &head_aad, head);

    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(&outer);
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&body);
    debug_assert_eq!(bytes.len(), total, "the parts add up to the padded length");
    debug_assert_eq!(Class::of(&bytes), Some(kind.class()), "the outer class is the kind's");
    Ok(SealedEnvelope { sealed: Sealed::new(bytes), link: Header::link(workspace, &nonce, &signed) })
}
