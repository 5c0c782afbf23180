//! The answer at a door: genesis, all ops, the epoch for the device; in parts, each sealed to the reply key.
//!
//! A part is [answer16, index, count, bytes]; joined, the parts are [genesis, \[op\], slot]. Invariant: the opener
//! holds at most [`ANSWERS_MAX`] half-received answers of at most [`ANSWER_BYTES_MAX`] bytes together, and gives one out
//! only if it is of the pass' workspace and holds the ops the pass names, and if our device is active in it, as a device
//! of the pass' member. Spec: docs/sealing.md#enrolment.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use super::request::scope;
use super::{DoorKeys, Pass};
use crate::envelope::{DirectKind, Sealed, open_scoped, seal_scoped};
use crate::epoch::Epoch;
use crate::id::{OpId, WorkspaceId};
use crate::identity::DeviceKeys;
use crate::key_packet::open_slot;
use crate::knock::{ANSWER_BYTES_MAX, ANSWER_PARTS_MAX, ReplyKey};
use crate::membership::{Inserted, OPS_MAX, OpSet, evaluate};
use crate::op::{Genesis, OP_BYTES_MAX, OpBody, SignedOp, WrappedSlot};
use crate::secret::random_bytes;

/// Most answers received at once.
const ANSWERS_MAX: usize = 4;
/// Plain bytes in a part: with its seal and padding below 256 KiB, compressible or not.
const PART_BYTES: usize = 192 * 1024;

struct Part {
    answer: [u8; 16],
    index: usize,
    count: usize,
    bytes: Vec<u8>,
}

impl Wire for Part {
    fn encode(&self, writer: &mut Writer) {
        writer.array(4).bytes(&self.answer).uint(self.index as u64).uint(self.count as u64).bytes(&self.bytes);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(4, "answer part")?;
        let answer = reader.item()?;
        let index = reader.uint_up_to(ANSWER_PARTS_MAX as u64, "part")? as usize;
        let count = reader.uint_up_to(ANSWER_PARTS_MAX as u64, "parts")? as usize;
        if index >= count {
            return Err(DecodeError::Invalid("part"));
        }
        Ok(Self { answer, index, count, bytes: reader.bytes_up_to(PART_BYTES, "part")?.to_vec() })
    }
}

struct Body {
    genesis: Vec<u8>,
    ops: Vec<Vec<u8>>,
    slot: WrappedSlot,
}

impl Wire for Body {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).bytes(&self.genesis).array(self.ops.len());
        for op in &self.ops {
            writer.bytes(op);
        }
        writer.item(&self.slot);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "answer")?;
        let genesis = reader.bytes_up_to(OP_BYTES_MAX, "genesis")?.to_vec();
        let mut ops = Vec::new();
        for _ in 0..reader.array_up_to(OPS_MAX, "ops")? {
            ops.push(reader.bytes_up_to(OP_BYTES_MAX, "op")?.to_vec());
        }
        Ok(Self { genesis, ops, slot: reader.item()? })
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
    let ops = set.ops().map(|op| op.bytes().to_vec()).collect();
    let body = Body { genesis: set.genesis().bytes().to_vec(), ops, slot };
    let body = cbor::to_bytes(&body);
    let count = body.len().div_ceil(PART_BYTES);
    if count > ANSWER_PARTS_MAX || body.len() > ANSWER_BYTES_MAX {
        return None;
    }
    let answer = random_bytes(rng);
    let parts = body.chunks(PART_BYTES).enumerate().map(|(index, bytes)| {
        let part = cbor::to_bytes(&Part { answer, index, count, bytes: bytes.to_vec() });
        seal_scoped(&scope(&workspace, door), DirectKind::Answer, reply_key, &part, rng)
    });
    parts.collect()
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
    match open_scoped(&scope(workspace, door), reply.secret(), bytes).ok()? {
        (DirectKind::Refusal, message) => match message.as_slice() {
            [byte] => Refusal::from_byte(*byte),
            _ => None,
        },
        _ => None,
    }
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

/// What an enrolled device starts from.
#[derive(Debug)]
pub struct Enrolled {
    /// Genesis and ops.
    pub ops: OpSet,
    /// The epoch it brought. Back links open the older ones.
    pub epoch: Epoch,
}

#[derive(Default)]
struct Assembly {
    count: usize,
    parts: BTreeMap<usize, Vec<u8>>,
    order: u64,
}

/// Puts answers together as their parts arrive, in any order, from several members at once.
pub struct EnrolOpener {
    pass: Pass,
    door: DoorKeys,
    reply: ReplyKey,
    device: DeviceKeys,
    answers: BTreeMap<[u8; 16], Assembly>,
    counter: u64,
}

impl EnrolOpener {
    /// For one enrolment of this device.
    #[must_use]
    pub fn new(pass: Pass, reply: ReplyKey, device: DeviceKeys) -> Self {
        let door = pass.door();
        Self { pass, door, reply, device, answers: BTreeMap::new(), counter: 0 }
    }

    /// Takes a part in. `Ok(None)`: more are needed.
    ///
    /// # Errors
    /// [`EnrolError`] concerns this part or the answer it completed; others go on.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Enrolled>, EnrolError> {
        let opened = open_scoped(&scope(&self.pass.workspace, &self.door), self.reply.secret(), bytes);
        let (kind, message) = opened.map_err(|_| EnrolError::NotForUs)?;
        if kind != DirectKind::Answer {
            return Err(EnrolError::NotForUs);
        }
        let part: Part = cbor::from_bytes(&message).map_err(|_| EnrolError::Malformed)?;
        self.make_room(&part);
        self.counter += 1;
        let counter = self.counter;
        let assembly =
            self.answers.entry(part.answer).or_insert_with(|| Assembly { count: part.count, ..<_>::default() });
        if assembly.count != part.count {
            return Err(EnrolError::Malformed);
        }
        assembly.order = counter;
        assembly.parts.entry(part.index).or_insert(part.bytes);
        if assembly.parts.len() < assembly.count {
            return Ok(None);
        }
        let whole = self.answers.remove(&part.answer).unwrap_or_default();
        let joined = whole.parts.into_values().collect::<Vec<_>>().concat();
        self.finish(&joined).map(Some)
    }

    /// Drops the answers that were silent longest until the new part fits.
    fn make_room(&mut self, part: &Part) {
        let bytes = |assembly: &Assembly| assembly.parts.values().map(Vec::len).sum::<usize>();
        loop {
            let held: usize = self.answers.values().map(bytes).sum();
            let too_many = !self.answers.contains_key(&part.answer) && self.answers.len() >= ANSWERS_MAX;
            if !too_many && held + part.bytes.len() <= ANSWER_BYTES_MAX {
                return;
            }
            let others = self.answers.iter().filter(|(id, _)| **id != part.answer);
            let Some(oldest) = others.min_by_key(|(_, assembly)| assembly.order).map(|(id, _)| *id) else {
                // Alone and too large: an honest answer is never; begin it anew.
                self.answers.clear();
                return;
            };
            self.answers.remove(&oldest);
        }
    }

    fn finish(&self, bytes: &[u8]) -> Result<Enrolled, EnrolError> {
        let body: Body = cbor::from_bytes(bytes).map_err(|_| EnrolError::Malformed)?;
        let genesis = Genesis::parse(&body.genesis).map_err(|_| EnrolError::Malformed)?;
        let workspace = genesis.workspace();
        if workspace != self.pass.workspace {
            return Err(EnrolError::OtherWorkspace);
        }
        let mut set = OpSet::new(genesis);
        for op in &body.ops {
            let op = SignedOp::parse(&workspace, op).map_err(|_| EnrolError::BadHistory)?;
            match set.insert(op) {
                Ok(Inserted::Added(_) | Inserted::Known) => {}
                Ok(Inserted::Parked) | Err(_) => return Err(EnrolError::BadHistory),
            }
        }
        if self.pass.op_heads.iter().any(|op| !set.contains(op)) {
            return Err(EnrolError::OtherHistory);
        }
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
