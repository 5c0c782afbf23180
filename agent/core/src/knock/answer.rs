//! The answer to a knock: genesis and all ops, in parts of at most 256 KiB, each sealed to the joiner's reply key.
//!
//! The epoch's secrets come in the welcome op's slots. A part is [answer16, index, count, bytes]; joined, the parts are
//! [genesis, [op]]. Invariant: the opener holds at most [`ANSWERS_MAX`] half-received answers of at most
//! [`ANSWER_BYTES_MAX`] bytes together, and gives one out only when the link's history is in it and our device is active.
//! Spec: docs/sealing.md#answer.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use crate::envelope::{DirectKind, DirectScope, Sealed, open_scoped, seal_scoped};
use crate::epoch::Epoch;
use crate::id::{DeviceId, OpId, WorkspaceId};
use crate::invite::KnockKeys;
use crate::invite_link::InviteLink;
use crate::key_packet::open_slot;
use crate::membership::{Inserted, OPS_MAX, OpSet, evaluate};
use crate::op::{Genesis, OP_BYTES_MAX, OpBody, SignedOp};
use crate::secret::{Secret, random_bytes};
use crate::wrap::{Psk, kem_public};

/// Most parts of an answer.
pub const ANSWER_PARTS_MAX: usize = 128;
/// Most bytes of half-received answers: what a joiner spends on strangers who hold the link.
pub const ANSWER_BYTES_MAX: usize = 24 << 20;
/// Most answers received at once.
const ANSWERS_MAX: usize = 4;
/// Plain bytes in a part: with its seal and padding below 256 KiB, compressible or not.
const PART_BYTES: usize = 192 * 1024;

/// The joiner's key pair for one join; kept until it is in.
#[derive(Debug, Clone)]
pub struct ReplyKey(Secret);

impl ReplyKey {
    /// A new one.
    #[must_use]
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self(Secret::random(rng))
    }
    /// From what [`ReplyKey::secret`] gave.
    #[must_use]
    pub fn from_secret(secret: Secret) -> Self {
        Self(secret)
    }
    /// For the store.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.0
    }
    /// The public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        kem_public(&self.0)
    }
}

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
}

impl Wire for Body {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).bytes(&self.genesis).array(self.ops.len());
        for op in &self.ops {
            writer.bytes(op);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "answer")?;
        let genesis = reader.bytes_up_to(OP_BYTES_MAX, "genesis")?.to_vec();
        let mut ops = Vec::new();
        for _ in 0..reader.array_up_to(OPS_MAX, "ops")? {
            ops.push(reader.bytes_up_to(OP_BYTES_MAX, "op")?.to_vec());
        }
        Ok(Self { genesis, ops })
    }
}

fn scope<'a>(workspace: &'a WorkspaceId, keys: &'a KnockKeys, invite: &'a OpId) -> DirectScope<'a> {
    DirectScope { label: "answer", workspace, psk: Some(Psk { key: &keys.psk, id: &invite.0 }) }
}

/// Seals the answer: everything in `set`, which already holds the welcome op (its slots carry the epoch). Each part is one
/// payload of at most 256 KiB; send them in order. `None` if the workspace is too large to be answered
/// ([`ANSWER_PARTS_MAX`]), or the reply key unsound.
#[must_use]
pub fn make_answer(
    set: &OpSet,
    invite: OpId,
    keys: &KnockKeys,
    reply_key: &[u8; 32],
    rng: &mut dyn CryptoRng,
) -> Option<Vec<Sealed>> {
    let workspace = set.workspace();
    let ops = set.ops().map(|op| op.bytes().to_vec()).collect();
    let body = cbor::to_bytes(&Body { genesis: set.genesis().bytes().to_vec(), ops });
    let count = body.len().div_ceil(PART_BYTES);
    if count > ANSWER_PARTS_MAX || body.len() > ANSWER_BYTES_MAX {
        return None;
    }
    let answer = random_bytes(rng);
    let parts = body.chunks(PART_BYTES).enumerate().map(|(index, bytes)| {
        let part = cbor::to_bytes(&Part { answer, index, count, bytes: bytes.to_vec() });
        seal_scoped(&scope(&workspace, keys, &invite), DirectKind::Answer, reply_key, &part, rng)
    });
    parts.collect()
}

/// Why an answer, or a part of one, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// Not sealed to us on this link.
    #[error("not an answer to our knock")]
    NotForUs,
    /// Sealed to us, but malformed, contradicting itself or too large.
    #[error("an answer to our knock is malformed")]
    Malformed,
    /// Another workspace than the link's.
    #[error("an answer is of another workspace than the invite link's")]
    OtherWorkspace,
    /// An op in it is forged, or lacks its ancestors.
    #[error("an answer's history is not valid")]
    BadHistory,
    /// The history lacks an op the link names: an old or forked one.
    #[error("an answer's history does not contain the invite link's: refused, keep waiting for another member")]
    OtherHistory,
    /// Our device is not active in it.
    #[error("an answer does not let this device in")]
    NotWelcome,
    /// No slot of our welcome opens to what its epoch commits to.
    #[error("an answer brings no epoch key for this device")]
    NoEpoch,
}

/// What a joiner starts from.
#[derive(Debug)]
pub struct Answer {
    /// Genesis and ops; its heads contain our welcome.
    pub ops: OpSet,
    /// The op that let us in.
    pub welcome: OpId,
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
pub struct AnswerOpener {
    link: InviteLink,
    keys: KnockKeys,
    reply: ReplyKey,
    device: DeviceId,
    kems: Vec<Secret>,
    answers: BTreeMap<[u8; 16], Assembly>,
    counter: u64,
}

impl AnswerOpener {
    /// For one join: `device` is our device, `kems` our X25519 secrets (the device's, and the root's if it is here).
    #[must_use]
    pub fn new(link: InviteLink, reply: ReplyKey, device: DeviceId, kems: Vec<Secret>) -> Self {
        let keys = link.keys().knock;
        Self { link, keys, reply, device, kems, answers: BTreeMap::new(), counter: 0 }
    }

    /// Takes a part in. `Ok(None)`: more are needed. An error concerns this part or the answer it completed; others go on.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Answer>, AnswerError> {
        let invite = self.link.invite();
        let (kind, message) = open_scoped(&scope(&self.link.workspace, &self.keys, &invite), &self.reply.0, bytes)
            .map_err(|_| AnswerError::NotForUs)?;
        if kind != DirectKind::Answer {
            return Err(AnswerError::NotForUs);
        }
        let part: Part = cbor::from_bytes(&message).map_err(|_| AnswerError::Malformed)?;
        self.make_room(&part);
        self.counter += 1;
        let counter = self.counter;
        let assembly =
            self.answers.entry(part.answer).or_insert_with(|| Assembly { count: part.count, ..<_>::default() });
        if assembly.count != part.count {
            return Err(AnswerError::Malformed);
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
            let others = self.answers.iter().filter(|(id, _)| **id != part.answer);
            let held: usize = self.answers.values().map(bytes).sum();
            let too_many = !self.answers.contains_key(&part.answer) && self.answers.len() >= ANSWERS_MAX;
            if !too_many && held + part.bytes.len() <= ANSWER_BYTES_MAX {
                return;
            }
            let Some(oldest) = others.min_by_key(|(_, assembly)| assembly.order).map(|(id, _)| *id) else {
                // Alone and too large: an honest answer is never; begin it anew.
                self.answers.clear();
                return;
            };
            self.answers.remove(&oldest);
        }
    }

    fn finish(&self, bytes: &[u8]) -> Result<Answer, AnswerError> {
        let body: Body = cbor::from_bytes(bytes).map_err(|_| AnswerError::Malformed)?;
        let genesis = Genesis::parse(&body.genesis).map_err(|_| AnswerError::Malformed)?;
        let workspace = genesis.workspace();
        if workspace != self.link.workspace {
            return Err(AnswerError::OtherWorkspace);
        }
        let mut set = OpSet::new(genesis);
        for op in &body.ops {
            let op = SignedOp::parse(&workspace, op).map_err(|_| AnswerError::BadHistory)?;
            match set.insert(op) {
                Ok(Inserted::Added(_) | Inserted::Known) => {}
                Ok(Inserted::Parked) | Err(_) => return Err(AnswerError::BadHistory),
            }
        }
        if self.link.op_heads.iter().any(|op| !set.contains(op)) {
            return Err(AnswerError::OtherHistory);
        }
        let state = evaluate(&set);
        let device = state.devices.get(&self.device).filter(|device| device.active).ok_or(AnswerError::NotWelcome)?;
        // Welcomed twice (a rotation came between): the deepest epoch reaches the others by back links.
        let mut best: Option<(u32, OpId, Epoch)> = None;
        for id in &device.introduced_by {
            let Some(OpBody::Welcome { slots, .. }) = set.get(id).map(SignedOp::body) else { continue };
            for slot in slots {
                let Some(facts) = state.epochs.get(&slot.epoch) else { continue };
                if best.as_ref().is_some_and(|(depth, ..)| *depth >= facts.depth) {
                    continue;
                }
                let opened = self
                    .kems
                    .iter()
                    .find_map(|kem| open_slot(&workspace, &facts.grant.commitments, kem, &slot.slot).ok());
                if let Some(epoch) = opened {
                    best = Some((facts.depth, *id, epoch));
                }
            }
        }
        let (_, welcome, epoch) = best.ok_or(AnswerError::NoEpoch)?;
        Ok(Answer { welcome, epoch, ops: set })
    }
}

impl core::fmt::Debug for AnswerOpener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AnswerOpener").field("answers", &self.answers.len()).finish_non_exhaustive()
    }
}
