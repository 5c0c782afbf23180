//! What a device asks at a door: [1, device keys, label, op or null, reply key32] ‖ the device's signature.
//!
//! By words the op says it all: the root signed it, with the device's certificate in it. By another device there is none
//! yet. Invariant: whoever asks has the device's signing key. Spec: docs/sealing.md#enrolment.

use bytes::Bytes;
use rand_core::CryptoRng;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use super::DoorKeys;
use crate::envelope::{DirectKind, DirectScope, Sealed, open_scoped, seal_scoped};
use crate::id::WorkspaceId;
use crate::identity::{DeviceKeys, DevicePublic, clean_name, read_name};
use crate::knock::ReplyKey;
use crate::op::{OpBody, SignedOp, Signer};
use crate::sign::{self, Context};
use crate::wrap::{Psk, is_sound_kem_key, kem_public};

/// Longest op in a request, in bytes: a device op with 64 parents.
const OP_BYTES_MAX: usize = 4096;

/// A request that opened, and is signed by the device it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolRequest {
    /// The device that wants in.
    pub device: DevicePublic,
    /// What it calls itself.
    pub label: String,
    /// By words: the op that introduces it, signed by a root, with the root's certificate of this device. Whether that
    /// root is a member is the caller's to judge.
    pub op: Option<SignedOp>,
    /// Where to seal the answer to.
    pub reply_key: [u8; 32],
}

struct Body {
    device: DevicePublic,
    label: String,
    op: Option<Vec<u8>>,
    reply_key: [u8; 32],
}

impl Wire for Body {
    fn encode(&self, writer: &mut Writer) {
        writer.array(5).uint(1).item(&self.device).text(&self.label);
        match &self.op {
            Some(op) => writer.bytes(op),
            None => writer.null(),
        };
        writer.bytes(&self.reply_key);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(5, "request")?;
        if reader.uint()? != 1 {
            return Err(DecodeError::Invalid("request version"));
        }
        let (device, label) = (reader.item()?, read_name(reader)?);
        let op = reader.optional::<OpBytes>()?.map(|op| op.0);
        Ok(Self { device, label, op, reply_key: reader.item()? })
    }
}

struct OpBytes(Vec<u8>);

impl Wire for OpBytes {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.0);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        Ok(Self(reader.bytes_up_to(OP_BYTES_MAX, "request op")?.to_vec()))
    }
}

pub(super) fn scope<'a>(workspace: &'a WorkspaceId, door: &'a DoorKeys) -> DirectScope<'a> {
    DirectScope { label: "enrol", workspace, psk: Some(Psk { key: &door.psk, id: &door.room.id.0 }) }
}

/// Seals a request; publish it in the door's room. About 0.2 ms. `None` if the op is too long for one.
#[must_use]
pub fn seal_request(
    workspace: &WorkspaceId,
    door: &DoorKeys,
    device: &DeviceKeys,
    label: &str,
    op: Option<&Bytes>,
    reply: &ReplyKey,
    rng: &mut dyn CryptoRng,
) -> Option<Sealed> {
    let body = Body {
        device: device.public(),
        label: clean_name(label),
        op: op.map(|op| op.to_vec()),
        reply_key: reply.public(),
    };
    let mut bytes = cbor::to_bytes(&body);
    let signature = sign::sign(device.signing_key(), Context::Enrol, workspace, &[&bytes]);
    bytes.extend_from_slice(&signature);
    seal_scoped(&scope(workspace, door), DirectKind::Knock, &kem_public(&door.kem), &bytes, rng)
}

/// Opens a request at this door; `None` for anything else, and for one that contradicts itself.
#[must_use]
pub fn open_request(workspace: &WorkspaceId, door: &DoorKeys, bytes: &[u8]) -> Option<EnrolRequest> {
    let (kind, message) = open_scoped(&scope(workspace, door), &door.kem, bytes).ok()?;
    if kind == DirectKind::Knock { parse_request(workspace, &message) } else { None }
}

/// Reads what was sealed: anybody who has the pass can say anything there.
#[must_use]
pub fn parse_request(workspace: &WorkspaceId, message: &[u8]) -> Option<EnrolRequest> {
    let (signed, signature) = sign::split_signature(message)?;
    let body: Body = cbor::from_bytes(signed).ok()?;
    sign::verify(&body.device.sign, Context::Enrol, workspace, &[signed], &signature).ok()?;
    let op = match &body.op {
        Some(bytes) => Some(introduces(workspace, &body.device, bytes)?),
        None => None,
    };
    let sound = is_sound_kem_key(&body.reply_key);
    sound.then_some(EnrolRequest { device: body.device, label: body.label, op, reply_key: body.reply_key })
}

/// The op, if it introduces this device and a root signed it.
fn introduces(workspace: &WorkspaceId, device: &DevicePublic, bytes: &[u8]) -> Option<SignedOp> {
    let op = SignedOp::parse(workspace, bytes).ok()?;
    let OpBody::Device { cert, .. } = op.body() else { return None };
    let Signer::Root(root) = op.signer() else { return None };
    (cert.device() == *device && cert.root().sign == root && op.verify(&root.0).is_ok()).then_some(op)
}
