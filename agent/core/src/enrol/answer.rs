//! The answer at a door: genesis, all ops, the epoch for the device; in parts, each sealed to the reply key.
//!
//! Joined, the parts are [genesis, \[op\], slot]. Invariant: an answer is given out only if it is of the pass' workspace
//! and holds the ops the pass names, and if our device is active in it, as a device of the pass' member. How parts come
//! together: [`crate::history`]. Spec: docs/sealing.md#enrolment.

use rand_core::CryptoRng;
use weft_protocol::cbor::{self, Decoded, Reader, Wire, Writer};

use super::request::scope;
use super::{DoorKeys, Pass};
use crate::envelope::{DirectKind, Sealed, open_byte, open_scoped, seal_scoped};
use crate::epoch::Epoch;
use crate::history::{Assemblies, History, HistoryError, in_parts};
use crate::id::{OpId, WorkspaceId};
use crate::identity::DeviceKeys;
use crate::key_packet::open_slot;
use crate::knock::ReplyKey;
use crate::membership::{OpSet, evaluate};
use crate::op::{OpBody, WrappedSlot};

struct Body {
    history: History,
    slot: WrappedSlot,
}

impl Wire for Body {
    fn encode(&self, writer: &mut Writer) {
        self.history.encode(writer.array(3));
        writer.item(&self.slot);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "answer")?;
        Ok(Self { history: History::decode(reader)?, slot: reader.item()? })
    }
}

/// Seals the answer: everything in `set`, in which the device is active already; `slot` is an epoch for it. Each part is one payload of at most 256 KiB; send them in order. `None` if the history is too long to be
/// answered, or the reply key unsound.
#[must_use]
pub fn make_enrol_answer(
    set: &OpSet,
    door: &DoorKeys,
    slot: WrappedSlot,
    reply_key: &[u8; 32],
    rng: &mut dyn CryptoRng,
) -> Option<Vec<Sealed>> {
    let workspace = set.workspace();
    let scope = scope(&workspace, door);
    let parts = in_parts(&cbor::to_bytes(&Body { history: History::of(set), slot }), rng)?;
    parts.iter().map(|part| seal_scoped(&scope, DirectKind::Answer, reply_key, part, rng)).collect()
}

/// Why whoever answered did not let the device in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Its member belongs no more.
    NotAMember = 1,
    /// The device, or its member, was taken out since the pass was made.
    TooOld = 2,
    /// The other device's person said no.
    Declined = 3,
}

impl Refusal {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Refusal::NotAMember),
            2 => Some(Refusal::TooOld),
            3 => Some(Refusal::Declined),
            _ => None,
        }
    }
    /// What to tell the person.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Refusal::NotAMember => {
                "Whoever has these words is no member any more. Ask for an invite link, `weft leave`, then `weft join`."
            }
            Refusal::TooOld => {
                "This device was revoked after this pass was made. Ask a member for a new one (`weft invite --for` and \
                 your name), `weft leave`, then `weft identity recover` again."
            }
            Refusal::Declined => "The other device did not let this one in. Begin anew there: weft devices add",
        }
    }
}

/// Seals a refusal. It proves only that somebody with the door's keys said so: the device tells its person and goes on
/// asking.
#[must_use]
pub fn make_refusal(
    workspace: &WorkspaceId,
    door: &DoorKeys,
    reply_key: &[u8; 32],
    refusal: Refusal,
    rng: &mut dyn CryptoRng,
) -> Option<Sealed> {
    seal_scoped(&scope(workspace, door), DirectKind::Refusal, reply_key, &[refusal as u8], rng)
}

/// Opens a refusal of our request at this door; `None` if it is anything else.
#[must_use]
pub fn open_refusal(workspace: &WorkspaceId, door: &DoorKeys, reply: &ReplyKey, bytes: &[u8]) -> Option<Refusal> {
    open_byte(&scope(workspace, door), DirectKind::Refusal, reply.secret(), bytes).and_then(Refusal::from_byte)
}

/// Why an answer, or a part of one, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// Not sealed to us at this door.
    #[error("not an answer to our request")]
    NotForUs,
    /// Sealed to us, but malformed, contradicting itself or too large.
    #[error("an answer to our request is malformed")]
    Malformed,
    /// Another workspace than the pass'.
    #[error("an answer is of another workspace than the pass'")]
    OtherWorkspace,
    /// An op in it is forged, or lacks its ancestors.
    #[error("an answer's history is not valid")]
    BadHistory,
    /// The history lacks an op the pass names: an old or forked one.
    #[error("an answer's history does not contain the pass': refused, keep waiting for another member")]
    OtherHistory,
    /// Our device is not active in it as a device of the pass' member.
    #[error("an answer does not let this device in")]
    NotWelcome,
    /// Its slot does not open to what its epoch commits to.
    #[error("an answer brings no epoch key for this device")]
    NoEpoch,
}

impl From<HistoryError> for EnrolError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Malformed => EnrolError::Malformed,
            HistoryError::OtherWorkspace => EnrolError::OtherWorkspace,
            HistoryError::BadHistory => EnrolError::BadHistory,
            HistoryError::OtherHistory => EnrolError::OtherHistory,
        }
    }
}

/// What an enrolled device starts from.
#[derive(Debug)]
pub struct Enrolled {
    /// Genesis and ops.
    pub ops: OpSet,
    /// The epoch it brought. Back links open the older ones.
    pub epoch: Epoch,
}

/// Puts answers together as their parts arrive, in any order, from several members at once.
pub struct EnrolOpener {
    pass: Pass,
    door: DoorKeys,
    reply: ReplyKey,
    device: DeviceKeys,
    answers: Assemblies,
}

impl EnrolOpener {
    /// For one enrolment of this device.
    #[must_use]
    pub fn new(pass: Pass, reply: ReplyKey, device: DeviceKeys) -> Self {
        let door = pass.door();
        Self { pass, door, reply, device, answers: Assemblies::default() }
    }

    /// Takes a part in. `Ok(None)`: more are needed.
    ///
    /// # Errors
    /// [`EnrolError`] concerns this part or the answer it completed; others go on.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Enrolled>, EnrolError> {
        let opened = open_scoped(&scope(&self.pass.workspace, &self.door), self.reply.secret(), bytes);
        let (kind, message) = opened.map_err(|_| EnrolError::NotForUs)?;
        if kind == DirectKind::Answer { self.take(&message) } else { Err(EnrolError::NotForUs) }
    }

    /// Takes in what was sealed in a part: anybody who has the pass can say anything there. `Ok(None)`: more are needed.
    ///
    /// # Errors
    /// As [`EnrolOpener::push`].
    pub fn take(&mut self, message: &[u8]) -> Result<Option<Enrolled>, EnrolError> {
        match self.answers.push(message).map_err(|_| EnrolError::Malformed)? {
            Some(whole) => self.finish(&whole).map(Some),
            None => Ok(None),
        }
    }

    fn finish(&self, bytes: &[u8]) -> Result<Enrolled, EnrolError> {
        let body: Body = cbor::from_bytes(bytes).map_err(|_| EnrolError::Malformed)?;
        let workspace = self.pass.workspace;
        let set = body.history.read(&workspace, &self.pass.op_heads)?;
        let state = evaluate(&set);
        let ours = |device: &&std::sync::Arc<crate::membership::Device>| {
            device.active && device.root == self.pass.root && device.public == self.device.public()
        };
        let device = state.devices.get(&self.device.id()).filter(ours).ok_or(EnrolError::NotWelcome)?;
        let by_op = |id: &OpId| set.get(id).is_some_and(|op| matches!(op.body(), OpBody::Device { .. }));
        if !device.introduced_by.iter().any(by_op) {
            return Err(EnrolError::NotWelcome);
        }
        let facts = state.epochs.get(&body.slot.epoch).ok_or(EnrolError::NoEpoch)?;
        let kem = self.device.kem_secret();
        let epoch = open_slot(&workspace, &facts.grant.commitments, kem, &body.slot.slot);
        let epoch = epoch.map_err(|_| EnrolError::NoEpoch)?;
        Ok(Enrolled { epoch, ops: set })
    }
}

impl core::fmt::Debug for EnrolOpener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EnrolOpener").field("answers", &self.answers.len()).finish_non_exhaustive()
    }
}
