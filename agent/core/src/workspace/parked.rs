//! Envelopes that cannot be held yet: their predecessor, epoch, device or heads are not known here.
//!
//! Invariant: bounded in bytes and number; nothing parked is in the frontier, so what is dropped here is simply pulled
//! again. Spec: docs/sync.md#held-and-accepted.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::id::{ChainId, Place};

/// Envelopes parked at once, in all.
const PARKED_MAX: usize = 1024;
/// Bytes of them: two of the largest relay queues.
const PARKED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The parked envelopes.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// A predecessor is missing.
    gaps: BTreeMap<Place, Bytes>,
    /// The epoch, the device or the heads are unknown; oldest first.
    unknown: VecDeque<Bytes>,
    bytes: usize,
}

impl Parked {
    /// Its chain is not held up to here.
    pub(super) fn park_gap(&mut self, place: Place, envelope: Bytes) {
        self.bytes += envelope.len();
        if let Some(before) = self.gaps.insert(place, envelope) {
            self.bytes -= before.len();
        }
        while self.is_over() {
            // The highest numbers are needed last.
            let Some((_, dropped)) = self.gaps.pop_last() else { break };
            self.bytes -= dropped.len();
        }
    }

    /// Something it names is unknown.
    pub(super) fn park_unknown(&mut self, envelope: Bytes) {
        if self.unknown.contains(&envelope) {
            return;
        }
        self.bytes += envelope.len();
        self.unknown.push_back(envelope);
        while self.is_over() {
            let Some(dropped) = self.unknown.pop_front() else { break };
            self.bytes -= dropped.len();
        }
    }

    fn is_over(&self) -> bool {
        self.gaps.len() + self.unknown.len() > PARKED_MAX || self.bytes > PARKED_BYTES_MAX
    }

    /// What waits to follow on what is now held of a chain.
    pub(super) fn take_next(&mut self, chain: ChainId, seq: u64) -> Option<Bytes> {
        let stale: Vec<Place> =
            self.gaps.range(Place { chain, seq: 0 }..=Place { chain, seq }).map(|(place, _)| *place).collect();
        for place in stale {
            if let Some(dropped) = self.gaps.remove(&place) {
                self.bytes -= dropped.len();
            }
        }
        let next = self.gaps.remove(&Place { chain, seq: seq + 1 })?;
        self.bytes -= next.len();
        Some(next)
    }

    /// What something was unknown for, to be tried again.
    pub(super) fn take_unknown(&mut self) -> VecDeque<Bytes> {
        let taken = std::mem::take(&mut self.unknown);
        self.bytes -= taken.iter().map(Bytes::len).sum::<usize>();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DeviceId;

    #[test]
    fn parked_bytes_are_bounded_and_those_needed_first_stay() {
        let chain = ChainId { device: DeviceId([1; 16]), incarnation: 1 };
        let mut parked = Parked::default();
        for seq in 2..42 {
            parked.park_gap(Place { chain, seq }, Bytes::from(vec![0; 512 * 1024]));
        }
        assert_eq!(parked.gaps.len(), 16);
        assert!(parked.take_next(chain, 1).is_some());
        assert!(parked.take_next(chain, 2).is_some());
        assert!(parked.take_next(chain, 20).is_none());
        assert_eq!(parked.bytes, 0);
    }
}
