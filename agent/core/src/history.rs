//! The whole history of a membership, on its way to a device that wants in: in parts, put together again, and read.
//!
//! A part is [answer16, index, count, bytes]. Invariant: at most [`ANSWERS_MAX`] half-received answers of at most
//! [`ANSWER_BYTES_MAX`] bytes together are held, and a history counts only if it is of the workspace that was asked for and
//! holds what the link or pass names. Why: whoever has the link may answer. Spec: docs/sealing.md#answer.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use weft_protocol::cbor::{self, DecodeError, Decoded, Reader, Wire, Writer};

use crate::id::{OpId, WorkspaceId};
use crate::membership::{Inserted, OPS_MAX, OpSet};
use crate::op::{Genesis, OP_BYTES_MAX, SignedOp};
use crate::secret::random_bytes;

/// Most parts of an answer.
pub const ANSWER_PARTS_MAX: usize = 128;
/// Most bytes of half-received answers: what whoever waits spends on strangers who hold the link.
pub const ANSWER_BYTES_MAX: usize = 24 << 20;
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

/// The messages that carry a body, in order; `None` if it is too long to be answered.
pub(crate) fn in_parts(body: &[u8], rng: &mut dyn CryptoRng) -> Option<Vec<Vec<u8>>> {
    let count = body.len().div_ceil(PART_BYTES);
    if count > ANSWER_PARTS_MAX || body.len() > ANSWER_BYTES_MAX {
        return None;
    }
    let answer = random_bytes(rng);
    let part = |(index, bytes): (usize, &[u8])| cbor::to_bytes(&Part { answer, index, count, bytes: bytes.to_vec() });
    Some(body.chunks(PART_BYTES).enumerate().map(part).collect())
}

/// A part that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

#[derive(Default)]
struct Assembly {
    count: usize,
    parts: BTreeMap<usize, Vec<u8>>,
    order: u64,
}

/// Puts answers together as their parts arrive, in any order, from several members at once.
#[derive(Default)]
pub(crate) struct Assemblies {
    answers: BTreeMap<[u8; 16], Assembly>,
    counter: u64,
}

impl Assemblies {
    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.answers.len()
    }

    /// Takes a part in; the whole body once all are here.
    pub(crate) fn push(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let part: Part = cbor::from_bytes(message).map_err(|_| Malformed)?;
        self.make_room(&part);
        self.counter += 1;
        let counter = self.counter;
        let assembly =
            self.answers.entry(part.answer).or_insert_with(|| Assembly { count: part.count, ..<_>::default() });
        if assembly.count != part.count {
            return Err(Malformed);
        }
        assembly.order = counter;
        assembly.parts.entry(part.index).or_insert(part.bytes);
        if assembly.parts.len() < assembly.count {
            return Ok(None);
        }
        let whole = self.answers.remove(&part.answer).unwrap_or_default();
        Ok(Some(whole.parts.into_values().collect::<Vec<_>>().concat()))
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
}

/// Genesis and all ops, parents first, as they travel: two fields of an answer's body, not an array of their own.
pub(crate) struct History {
    genesis: Vec<u8>,
    ops: Vec<Vec<u8>>,
}

/// Why a history is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HistoryError {
    /// No genesis.
    Malformed,
    /// Of another workspace.
    OtherWorkspace,
    /// An op that is none, or does not belong.
    BadHistory,
    /// An op that was named is not in it.
    OtherHistory,
}

impl History {
    /// All of a set.
    pub(crate) fn of(set: &OpSet) -> Self {
        let ops = set.ops().map(|op| op.bytes().to_vec()).collect();
        Self { genesis: set.genesis().bytes().to_vec(), ops }
    }
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.genesis).array(self.ops.len());
        for op in &self.ops {
            writer.bytes(op);
        }
    }
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let genesis = reader.bytes_up_to(OP_BYTES_MAX, "genesis")?.to_vec();
        let mut ops = Vec::new();
        for _ in 0..reader.array_up_to(OPS_MAX, "ops")? {
            ops.push(reader.bytes_up_to(OP_BYTES_MAX, "op")?.to_vec());
        }
        Ok(Self { genesis, ops })
    }
    /// The set, if it is whole, of this workspace, and holds these ops.
    pub(crate) fn read(&self, workspace: &WorkspaceId, named: &[OpId]) -> Result<OpSet, HistoryError> {
        let genesis = Genesis::parse(&self.genesis).map_err(|_| HistoryError::Malformed)?;
        if genesis.workspace() != *workspace {
            return Err(HistoryError::OtherWorkspace);
        }
        let mut set = OpSet::new(genesis);
        for op in &self.ops {
            let op = SignedOp::parse(workspace, op).map_err(|_| HistoryError::BadHistory)?;
            match set.insert(op) {
                Ok(Inserted::Added(_) | Inserted::Known) => {}
                Ok(Inserted::Parked) | Err(_) => return Err(HistoryError::BadHistory),
            }
        }
        if named.iter().any(|op| !set.contains(op)) {
            return Err(HistoryError::OtherHistory);
        }
        Ok(set)
    }
}
