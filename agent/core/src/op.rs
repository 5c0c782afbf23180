//! Membership operations: self-standing signed objects that name their parents.
//!
//! An op is [1, workspace, kind, \[parent32\], signer type, signer, wall ms, body] ‖ signature, its id the hash of the
//! unsigned bytes, its body a byte string of deterministic CBOR. The genesis is the op all others descend from, and its
//! id is the workspace's. Invariant: bytes are hashed and verified as received, never re-encoded.
//! Spec: docs/sealing.md#ops.

mod body;
mod cut;
mod genesis;
mod list;
mod make;

pub(crate) use body::read_url;
pub use body::{
    EPOCH_PARENTS_MAX, EpochGrant, OpBody, Policy, RECIPIENTS_MAX, RELAYS_MAX, REVOKED_MAX, SIGNED_HEADER_BYTES_MAX,
    SLOTS_PER_WELCOME_MAX, URL_BYTES_MAX, WrappedSlot,
};
pub use cut::{CUT_CHAINS_MAX, ChainPoint, Cut};
pub use genesis::{FORMAT_VERSION, Genesis, SUITE};
pub use list::{OPS_PER_ENVELOPE_MAX, ops_from_bytes, ops_to_bytes};
pub use make::{OpSigner, ops};

use bytes::Bytes;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use crate::hash;
use crate::id::{DeviceId, OpId, RootKey, WorkspaceId};
use crate::sign::{self, BadSignature, Context};

/// Longest op, in bytes: an epoch for 2,048 devices with 64 back links fits, and so does the op in an envelope.
pub const OP_BYTES_MAX: usize = 128 * 1024;
/// Most parents of an op.
pub const OP_PARENTS_MAX: usize = 64;

/// Why op bytes were refused; whoever signed or sent them is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// Not an op.
    #[error("malformed membership op: {0}")]
    Malformed(#[from] DecodeError),
    /// An op of another workspace.
    #[error("a membership op belongs to another workspace")]
    OtherWorkspace,
    /// A kind or version this program does not know.
    #[error("a membership op is of a newer kind ({0}): upgrade weft")]
    Newer(u64),
    /// Not signed by whom it names.
    #[error("a membership op has a wrong signature")]
    BadSignature(#[from] BadSignature),
}

/// Who signed an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signer {
    /// A member's root key.
    Root(RootKey),
    /// A device.
    Device(DeviceId),
    /// The recovery key of the genesis.
    Recovery([u8; 32]),
}

/// A signed op, decoded; its signature is checked by [`SignedOp::verify`] once the signer's key is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOp {
    id: OpId,
    bytes: Bytes,
    unsigned: Unsigned,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Unsigned {
    workspace: WorkspaceId,
    parents: Vec<OpId>,
    signer: Signer,
    wall_ms: u64,
    body: OpBody,
}

impl Wire for Unsigned {
    fn encode(&self, writer: &mut Writer) {
        writer.array(8).uint(1).item(&self.workspace).uint(self.body.kind()).list(&self.parents);
        match &self.signer {
            Signer::Root(key) => writer.uint(0).item(key),
            Signer::Device(device) => writer.uint(1).item(device),
            Signer::Recovery(key) => writer.uint(2).bytes(key),
        };
        writer.uint(self.wall_ms).bytes(&self.body.to_bytes());
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(8, "op")?;
        if reader.uint()? != 1 {
            return Err(DecodeError::Invalid("op version"));
        }
        let workspace = reader.item()?;
        let kind = reader.uint()?;
        let parents: Vec<OpId> = reader.list(OP_PARENTS_MAX, "op parents")?;
        let ascending = parents.iter().zip(parents.iter().skip(1)).all(|(one, next)| one < next);
        if parents.is_empty() || !ascending {
            return Err(DecodeError::Invalid("op parents"));
        }
        let signer = match reader.uint()? {
            0 => Signer::Root(reader.item()?),
            1 => Signer::Device(reader.item()?),
            2 => Signer::Recovery(reader.item()?),
            _ => return Err(DecodeError::Invalid("op signer")),
        };
        let wall_ms = reader.uint()?;
        let body = OpBody::from_bytes(kind, reader.bytes_up_to(OP_BYTES_MAX, "op body")?)?;
        Ok(Self { workspace, parents, signer, wall_ms, body })
    }
}

/// The kind an op claims, if it has the outer shape of one; tells "newer" from "malformed".
fn peek_newer(bytes: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(bytes);
    reader.array(8, "op").ok()?;
    let version = reader.uint().ok()?;
    if version != 1 {
        return Some(version);
    }
    reader.item::<WorkspaceId>().ok()?;
    reader.uint().ok().filter(|kind| !(1..=OpBody::KIND_MAX).contains(kind))
}

impl SignedOp {
    /// Decodes op bytes of this workspace; does not know the signer's key yet.
    pub fn parse(workspace: &WorkspaceId, bytes: &[u8]) -> Result<Self, OpError> {
        if bytes.len() > OP_BYTES_MAX {
            let (len, max) = (bytes.len() as u64, OP_BYTES_MAX as u64);
            return Err(DecodeError::TooLong { what: "op", len, max }.into());
        }
        let (signed, _) = sign::split_signature(bytes).ok_or(DecodeError::Malformed("truncated"))?;
        if let Some(newer) = peek_newer(signed) {
            return Err(OpError::Newer(newer));
        }
        let unsigned: Unsigned = cbor::from_bytes(signed)?;
        if unsigned.workspace != *workspace {
            return Err(OpError::OtherWorkspace);
        }
        Ok(Self { id: OpId(hash::h("op", &[signed])), bytes: Bytes::copy_from_slice(bytes), unsigned })
    }

    /// Checks the signature with the signer's key: a root or recovery key as named, a device's as the workspace knows it.
    pub fn verify(&self, key: &[u8; 32]) -> Result<(), BadSignature> {
        let named = match &self.unsigned.signer {
            Signer::Root(root) => *key == root.0,
            Signer::Device(device) => crate::identity::DevicePublic { sign: *key, kem: [0; 32] }.id() == *device,
            Signer::Recovery(recovery) => key == recovery,
        };
        let (signed, signature) = sign::split_signature(&self.bytes).ok_or(BadSignature)?;
        if !named {
            return Err(BadSignature);
        }
        sign::verify(key, Context::Op, &self.unsigned.workspace, &[signed], &signature)
    }

    /// Its name: the hash of the unsigned bytes.
    #[must_use]
    pub fn id(&self) -> OpId {
        self.id
    }
    /// As it travels and is stored.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// The workspace.
    #[must_use]
    pub fn workspace(&self) -> &WorkspaceId {
        &self.unsigned.workspace
    }
    /// The heads its author knew, ascending.
    #[must_use]
    pub fn parents(&self) -> &[OpId] {
        &self.unsigned.parents
    }
    /// Who signed it.
    #[must_use]
    pub fn signer(&self) -> Signer {
        self.unsigned.signer
    }
    /// The signer's clock, for people only.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.unsigned.wall_ms
    }
    /// What it does.
    #[must_use]
    pub fn body(&self) -> &OpBody {
        &self.unsigned.body
    }
}

impl Ord for SignedOp {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}
impl PartialOrd for SignedOp {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
