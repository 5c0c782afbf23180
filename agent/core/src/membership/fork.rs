//! Proofs that a device signed two envelopes for one place.

use super::Membership;
use crate::envelope::{Header, verify_signed_header};
use crate::id::{ChainId, Link};
use crate::op::OpBody;

/// A place that was signed for twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The chain, as signed.
    pub chain: ChainId,
    /// The number that two envelopes have.
    pub seq: u64,
    /// The link that both name as the one before; `None` for the first of a chain, which may name anything.
    pub prev: Option<Link>,
}

impl Fork {
    /// What an op proves, once it is known to be lawful.
    #[must_use]
    pub fn of(body: &OpBody) -> Option<Self> {
        let OpBody::Fork { headers, cut, .. } = body else { return None };
        let [one, _] = headers.as_ref();
        let header = peek(one)?;
        Some(Self { chain: header.chain, seq: header.seq, prev: cut.points().first().map(|point| point.link) })
    }
    /// Whether an envelope with this number and link before it is one of those.
    #[must_use]
    pub fn is_at(&self, seq: u64, prev: &Link) -> bool {
        self.seq == seq && self.prev.is_none_or(|known| known == *prev)
    }
}

/// The chain and number that two signed headers prove to be forked, and what they name before it.
pub(super) fn proven(state: &Membership, one: &[u8], other: &[u8]) -> Option<(ChainId, u64, [Link; 2])> {
    let public = &state.devices.get(&peek(one)?.chain.device)?.public;
    let verify = |bytes: &[u8]| verify_signed_header(&state.workspace, public, bytes).ok();
    let ((one, link), (other, other_link)) = (verify(one)?, verify(other)?);
    let stored = one.seq > 0;
    let forked = stored && one.chain == other.chain && one.seq == other.seq && link != other_link;
    forked.then_some((one.chain, one.seq, [one.prev, other.prev]))
}

/// What a signed header says, before anything is verified.
pub(super) fn peek(bytes: &[u8]) -> Option<Header> {
    let (_, rest) = bytes.split_first_chunk::<24>()?;
    let (signed, _) = crate::sign::split_signature(rest)?;
    weft_protocol::cbor::from_bytes(signed).ok()
}
