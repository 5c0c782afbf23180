//! How an epoch travels: slots that name nobody, and the epoch's op sealed under the new A.
//!
//! [epoch16, \[slot113\], sealed ops]. A slot is HPKE base mode over role (1) ‖ A ‖ (C, or zeros for keepers), info
//! `weft/v1/wrap` ‖ workspace ‖ epoch id. Invariant: secrets that do not match what the epoch's op commits to never become
//! an [`Epoch`]. Spec: docs/sealing.md#key-packets.

use bytes::Bytes;
use rand_core::CryptoRng;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use crate::cipher;
use crate::epoch::{Commitments, Epoch, EpochSecrets};
use crate::hash;
use crate::id::{EpochId, WorkspaceId};
use crate::membership::{Membership, Role};
use crate::op::{OP_BYTES_MAX, SignedOp};
use crate::payload;
use crate::secret::{Secret, random_bytes};
use crate::wrap::{self, kem_public};

/// Length of a slot in bytes: enc (32), role (1), A (32), C (32), tag (16).
pub const SLOT_LEN: usize = 113;
/// Most slots in a packet: 463 KB, within one lobby message.
pub const SLOTS_MAX: usize = 4096;
/// Slots come in multiples of this, so that their number tells the head-count only roughly.
pub const SLOT_MULTIPLE: usize = 8;
/// Most sealed op bytes in a packet.
const SEALED_OPS_MAX: usize = OP_BYTES_MAX + 4096;

/// Why a key packet or slot did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyPacketError {
    /// Not a key packet.
    #[error("malformed key packet: {0}")]
    Malformed(#[from] DecodeError),
    /// No slot opens with our keys.
    #[error("the key packet has no slot for this device")]
    NotForUs,
    /// A slot opened, but not to what the epoch's op commits to: its maker is to blame; answer with a NACK.
    #[error("the key packet's secrets are not what its op commits to")]
    WrongSecrets,
    /// It does not carry the op of its epoch.
    #[error("the key packet does not carry its epoch's op")]
    NoOp,
}

/// An epoch on its way to the devices that get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPacket {
    /// Which epoch.
    pub epoch: EpochId,
    slots: Vec<[u8; SLOT_LEN]>,
    ops: Vec<u8>,
}

impl Wire for KeyPacket {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).item(&self.epoch).list(&self.slots).bytes(&self.ops);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "key packet")?;
        let epoch = reader.item()?;
        let slots: Vec<[u8; SLOT_LEN]> = reader.list(SLOTS_MAX, "slots")?;
        if slots.is_empty() || !slots.len().is_multiple_of(SLOT_MULTIPLE) {
            return Err(DecodeError::Invalid("number of slots"));
        }
        let ops = reader.bytes_up_to(SEALED_OPS_MAX, "sealed op")?.to_vec();
        Ok(Self { epoch, slots, ops })
    }
}

/// What a packet opened to.
#[derive(Debug)]
pub struct OpenedPacket {
    /// The epoch, checked against its commitments.
    pub epoch: Epoch,
    /// The op that it is of; evaluate it before sealing anything.
    pub op: SignedOp,
}

fn wrap_info(workspace: &WorkspaceId, epoch: &EpochId) -> Vec<u8> {
    [hash::PREFIX.as_bytes(), b"wrap", &workspace.0, &epoch.0].concat()
}

/// Seals an epoch to one X25519 key. `None` if the key is unsound, or C is needed and not held.
#[must_use]
pub fn wrap_slot(epoch: &Epoch, kem: &[u8; 32], role: Role, rng: &mut dyn CryptoRng) -> Option<[u8; SLOT_LEN]> {
    let mut plain = zeroize::Zeroizing::new(Vec::with_capacity(65));
    plain.push(role as u8);
    plain.extend_from_slice(epoch.secrets().access.expose());
    match (role, &epoch.secrets().content) {
        (Role::Keeper, _) => plain.extend_from_slice(&[0; 32]),
        (Role::Reader | Role::Writer | Role::Admin | Role::Owner, content) => {
            plain.extend_from_slice(content.as_ref()?.expose());
        }
    }
    let info = wrap_info(epoch.workspace(), &epoch.id());
    wrap::seal(kem, None, &info, &[], &plain, rng)?.try_into().ok()
}

fn slot_secrets(
    workspace: &WorkspaceId,
    epoch: &EpochId,
    kem: &Secret,
    slot: &[u8; SLOT_LEN],
) -> Result<EpochSecrets, KeyPacketError> {
    let plain = wrap::open(kem, None, &wrap_info(workspace, epoch), &[], slot).map_err(|_| KeyPacketError::NotForUs)?;
    let (role, secrets) = plain.split_first().ok_or(KeyPacketError::WrongSecrets)?;
    let (access, content) = secrets.split_at_checked(32).ok_or(KeyPacketError::WrongSecrets)?;
    let access = Secret::from_slice(access).ok_or(KeyPacketError::WrongSecrets)?;
    let content = match role {
        0 if content.iter().all(|byte| *byte == 0) => None,
        1..=4 => Some(Secret::from_slice(content).ok_or(KeyPacketError::WrongSecrets)?),
        _ => return Err(KeyPacketError::WrongSecrets),
    };
    Ok(EpochSecrets { access, content })
}

/// Opens one slot, and checks what it holds against what the epoch's op commits to.
pub fn open_slot(
    workspace: &WorkspaceId,
    commitments: &Commitments,
    kem: &Secret,
    slot: &[u8; SLOT_LEN],
) -> Result<Epoch, KeyPacketError> {
    let secrets = slot_secrets(workspace, &commitments.id(workspace), kem, slot)?;
    Epoch::open(workspace, secrets, commitments).map_err(|_| KeyPacketError::WrongSecrets)
}

/// The keys that an epoch goes to under this membership: every active device's and every member root's.
#[must_use]
pub fn recipients(membership: &Membership) -> Vec<([u8; 32], Role)> {
    let devices = membership
        .active_devices()
        .filter_map(|(_, device)| Some((device.public.kem, membership.members.get(&device.root)?.role)));
    let roots = membership.members.values().map(|member| (member.kem, member.role));
    devices.chain(roots).collect()
}

impl KeyPacket {
    /// Wraps an epoch for these keys, with the op that it is of. `None` if a key is unsound, C is missing, or there are more
    /// than [`SLOTS_MAX`] keys.
    #[must_use]
    pub fn make(
        epoch: &Epoch,
        recipients: &[([u8; 32], Role)],
        op: &SignedOp,
        rng: &mut dyn CryptoRng,
    ) -> Option<Self> {
        let mut slots = Vec::new();
        for (kem, role) in recipients {
            slots.push(wrap_slot(epoch, kem, *role, rng)?);
        }
        // A slot nobody can open, to a key nobody has, looks like any other.
        while slots.is_empty() || !slots.len().is_multiple_of(SLOT_MULTIPLE) {
            let nobody = kem_public(&Secret::random(rng));
            let plain = Secret::random(rng);
            let filler = [&[2][..], plain.expose(), plain.expose()].concat();
            let info = wrap_info(epoch.workspace(), &epoch.id());
            slots.push(wrap::seal(&nobody, None, &info, &[], &filler, rng)?.try_into().ok()?);
        }
        if slots.len() > SLOTS_MAX {
            return None;
        }
        // Ciphertexts are uniform: sorted by them, slots say nothing of the order they were made in.
        slots.sort();
        let random = random_bytes::<24>(rng);
        let mut nonce = [0; 24];
        let derived = hash::k(epoch.keys.nonce.expose(), &[b"packet", &random, op.bytes()]);
        nonce.iter_mut().zip(derived).for_each(|(to, from)| *to = from);
        let (key, _) = hash::message_key(&epoch.keys.ops, &nonce);
        let aad = [epoch.workspace().0.as_slice(), &epoch.id().0].concat();
        let mut ops = nonce.to_vec();
        ops.extend_from_slice(&cipher::seal_once(&key, &aad, payload::pack(op.bytes(), false)));
        Some(Self { epoch: epoch.id(), slots, ops })
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(cbor::to_bytes(self))
    }

    /// Decodes; opens nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyPacketError> {
        Ok(cbor::from_bytes(bytes)?)
    }

    /// Opens it with any of our X25519 secrets (the device's, and the root's if it is here).
    pub fn open(&self, workspace: &WorkspaceId, kems: &[&Secret]) -> Result<OpenedPacket, KeyPacketError> {
        let mut failure = KeyPacketError::NotForUs;
        for slot in &self.slots {
            for kem in kems {
                match self.open_with(workspace, kem, slot) {
                    Ok(opened) => return Ok(opened),
                    Err(KeyPacketError::NotForUs) => {}
                    Err(error) => failure = error,
                }
            }
        }
        Err(failure)
    }

    fn open_with(
        &self,
        workspace: &WorkspaceId,
        kem: &Secret,
        slot: &[u8; SLOT_LEN],
    ) -> Result<OpenedPacket, KeyPacketError> {
        let secrets = slot_secrets(workspace, &self.epoch, kem, slot)?;
        let ops_key = hash::kd(workspace, secrets.access.expose(), "ops", &self.epoch);
        let (nonce, sealed) = self.ops.split_first_chunk::<24>().ok_or(KeyPacketError::NoOp)?;
        let (key, _) = hash::message_key(&ops_key, nonce);
        let aad = [workspace.0.as_slice(), &self.epoch.0].concat();
        let packed = cipher::open_once(&key, &aad, sealed).ok_or(KeyPacketError::WrongSecrets)?;
        let bytes = payload::unpack(&packed, OP_BYTES_MAX).map_err(|_| KeyPacketError::NoOp)?;
        let op = SignedOp::parse(workspace, &bytes).map_err(|_| KeyPacketError::NoOp)?;
        let grant = op.body().epoch().ok_or(KeyPacketError::NoOp)?;
        if grant.id(workspace) != self.epoch {
            return Err(KeyPacketError::NoOp);
        }
        let epoch = Epoch::open(workspace, secrets, &grant.commitments).map_err(|_| KeyPacketError::WrongSecrets)?;
        Ok(OpenedPacket { epoch, op })
    }
}
