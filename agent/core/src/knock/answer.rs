//! The answer to a knock: genesis and all ops, in parts of at most 256 KiB, each sealed to the joiner's reply key.
//!
//! The epoch's secrets come in the welcome op's slots; joined, the parts are [genesis, [op]]. Invariant: an answer is given
//! out only when the link's history is in it and our device is active. How parts come together: [`crate::history`].
//! Spec: docs/sealing.md#answer.

use rand_core::CryptoRng;
use weft_protocol::cbor::{self, Decoded, Reader, Wire, Writer};

use crate::envelope::{DirectKind, DirectScope, Sealed, open_scoped, seal_scoped};
use crate::epoch::Epoch;
use crate::history::{Assemblies, History, HistoryError, in_parts};
use crate::id::{DeviceId, OpId, WorkspaceId};
use crate::invite::KnockKeys;
use crate::invite_link::InviteLink;
use crate::key_packet::open_slot;
use crate::membership::{OpSet, evaluate};
use crate::op::{OpBody, SignedOp};
use crate::secret::Secret;
use crate::wrap::{Psk, kem_public};

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

struct Body(History);

impl Wire for Body {
    fn encode(&self, writer: &mut Writer) {
        self.0.encode(writer.array(2));
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "answer")?;
        History::decode(reader).map(Self)
    }
}

pub(super) fn scope<'a>(workspace: &'a WorkspaceId, keys: &'a KnockKeys, invite: &'a OpId) -> DirectScope<'a> {
    DirectScope { label: "answer", workspace, psk: Some(Psk { key: &keys.psk, id: &invite.0 }) }
}

/// Seals the answer: everything in `set`, which already holds the welcome op (its slots carry the epoch). Each part is one
/// payload of at most 256 KiB; send them in order. `None` if the workspace is too large to be answered
/// ([`super::ANSWER_PARTS_MAX`]), or the reply key unsound.
#[must_use]
pub fn make_answer(
    set: &OpSet,
    invite: OpId,
    keys: &KnockKeys,
    reply_key: &[u8; 32],
    rng: &mut dyn CryptoRng,
) -> Option<Vec<Sealed>> {
    let workspace = set.workspace();
    let scope = scope(&workspace, keys, &invite);
    let parts = in_parts(&cbor::to_bytes(&Body(History::of(set))), rng)?;
    parts.iter().map(|part| seal_scoped(&scope, DirectKind::Answer, reply_key, part, rng)).collect()
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

impl From<HistoryError> for AnswerError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Malformed => AnswerError::Malformed,
            HistoryError::OtherWorkspace => AnswerError::OtherWorkspace,
            HistoryError::BadHistory => AnswerError::BadHistory,
            HistoryError::OtherHistory => AnswerError::OtherHistory,
        }
    }
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

/// Puts answers together as their parts arrive, in any order, from several members at once.
pub struct AnswerOpener {
    link: InviteLink,
    keys: KnockKeys,
    reply: ReplyKey,
    device: DeviceId,
    kems: Vec<Secret>,
    answers: Assemblies,
}

impl AnswerOpener {
    /// For one join: `device` is our device, `kems` our X25519 secrets (the device's, and the root's if it is here).
    #[must_use]
    pub fn new(link: InviteLink, reply: ReplyKey, device: DeviceId, kems: Vec<Secret>) -> Self {
        let keys = link.keys().knock;
        Self { link, keys, reply, device, kems, answers: Assemblies::default() }
    }

    /// Takes a part in. `Ok(None)`: more are needed. An error concerns this part or the answer it completed; others go on.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Answer>, AnswerError> {
        let invite = self.link.invite();
        let (kind, message) = open_scoped(&scope(&self.link.workspace, &self.keys, &invite), &self.reply.0, bytes)
            .map_err(|_| AnswerError::NotForUs)?;
        if kind != DirectKind::Answer {
            return Err(AnswerError::NotForUs);
        }
        match self.answers.push(&message).map_err(|_| AnswerError::Malformed)? {
            Some(whole) => self.finish(&whole).map(Some),
            None => Ok(None),
        }
    }

    fn finish(&self, bytes: &[u8]) -> Result<Answer, AnswerError> {
        let Body(history) = cbor::from_bytes(bytes).map_err(|_| AnswerError::Malformed)?;
        let workspace = self.link.workspace;
        let set = history.read(&workspace, &self.link.op_heads)?;
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
