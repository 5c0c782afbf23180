//! What a replica holds: for every chain, the last number and link.
//!
//! Invariant: chains are dense, so one (seq, link) a chain says everything about it; two frontiers are equal exactly if
//! their digests are. Why: reconciling is comparing these, and nothing else.
//! Spec: docs/sync.md#frontier.

use std::collections::BTreeMap;

use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer, to_bytes};

use crate::hash::h;
use crate::id::{ChainId, DeviceId, Link};

/// Most chains in one frontier: what fits an envelope with room to spare.
pub const FRONTIER_CHAINS_MAX: usize = 4096;

/// The end of a chain, as far as it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The number of the last envelope, from 1.
    pub seq: u64,
    /// Its link.
    pub link: Link,
}

/// For every chain, its tip. Chains nothing is held of are absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier(BTreeMap<ChainId, Tip>);

/// Envelopes of one chain: `from..=to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The chain.
    pub chain: ChainId,
    /// First number.
    pub from: u64,
    /// Last number.
    pub to: u64,
}

impl Frontier {
    /// The tip of a chain.
    #[must_use]
    pub fn tip(&self, chain: &ChainId) -> Option<&Tip> {
        self.0.get(chain)
    }
    /// The last number held of a chain; 0 if none.
    #[must_use]
    pub fn seq(&self, chain: &ChainId) -> u64 {
        self.0.get(chain).map_or(0, |tip| tip.seq)
    }
    /// Moves a chain's tip forward.
    pub fn advance(&mut self, chain: ChainId, tip: Tip) {
        self.0.insert(chain, tip);
    }
    /// Nothing of this chain is held any more.
    pub(crate) fn remove(&mut self, chain: &ChainId) {
        self.0.remove(chain);
    }
    /// The chains of one device, in order.
    pub(crate) fn of_device(&self, device: &DeviceId) -> impl Iterator<Item = (&ChainId, &Tip)> {
        let first = ChainId { device: *device, incarnation: 0 };
        self.0.range(first..=ChainId { incarnation: u64::MAX, ..first })
    }
    /// All chains and tips, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&ChainId, &Tip)> {
        self.0.iter()
    }
    /// How many chains.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether nothing is held at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// H(frontier, CBOR).
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        h("frontier", &[&to_bytes(self)])
    }
    /// What `other` holds and this does not.
    #[must_use]
    pub fn missing_from(&self, other: &Frontier) -> Vec<Range> {
        other
            .0
            .iter()
            .filter_map(|(chain, tip)| {
                let held = self.seq(chain);
                (tip.seq > held).then_some(Range { chain: *chain, from: held + 1, to: tip.seq })
            })
            .collect()
    }
    /// Whether this holds everything that `other` does.
    #[must_use]
    pub fn covers(&self, other: &Frontier) -> bool {
        other.0.iter().all(|(chain, tip)| self.seq(chain) >= tip.seq)
    }
    /// How many envelopes `other` holds and this does not.
    #[must_use]
    pub fn gap_to(&self, other: &Frontier) -> u64 {
        // What others state may be any numbers.
        let beyond = other.0.iter().map(|(chain, tip)| tip.seq.saturating_sub(self.seq(chain)));
        beyond.fold(0, u64::saturating_add)
    }
}

impl Wire for Frontier {
    fn encode(&self, writer: &mut Writer) {
        writer.array(self.0.len());
        for (chain, tip) in &self.0 {
            writer.array(4).item(&chain.device).uint(chain.incarnation).uint(tip.seq).item(&tip.link);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let len = reader.array_up_to(FRONTIER_CHAINS_MAX, "frontier")?;
        let mut chains = BTreeMap::new();
        for _ in 0..len {
            reader.array(4, "tip")?;
            let chain = ChainId { device: reader.item()?, incarnation: reader.uint()? };
            let tip = Tip { seq: reader.uint()?, link: reader.item()? };
            if tip.seq == 0 || chains.insert(chain, tip).is_some() {
                return Err(DecodeError::Invalid("tip"));
            }
        }
        Ok(Self(chains))
    }
}

impl Wire for Range {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3).item(&self.chain).uint(self.from).uint(self.to);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(3, "range")?;
        let range = Self { chain: reader.item()?, from: reader.uint()?, to: reader.uint()? };
        if range.from == 0 || range.to < range.from {
            return Err(DecodeError::Invalid("range"));
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_protocol::cbor::from_bytes;

    fn chain(byte: u8) -> ChainId {
        ChainId { device: DeviceId([byte; 16]), incarnation: 1 }
    }

    fn frontier(tips: &[(u8, u64)]) -> Frontier {
        Frontier(tips.iter().map(|(byte, seq)| (chain(*byte), Tip { seq: *seq, link: Link([9; 32]) })).collect())
    }

    #[test]
    fn the_missing_ranges_are_those_the_other_holds() {
        let ours = frontier(&[(1, 5), (2, 7)]);
        let theirs = frontier(&[(1, 8), (2, 3), (3, 2)]);
        assert_eq!(
            ours.missing_from(&theirs),
            vec![Range { chain: chain(1), from: 6, to: 8 }, Range { chain: chain(3), from: 1, to: 2 }]
        );
        assert_eq!(ours.gap_to(&theirs), 5);
        assert!(!ours.covers(&theirs));
    }

    #[test]
    fn stated_numbers_beyond_all_bounds_do_not_overflow() {
        assert_eq!(Frontier::default().gap_to(&frontier(&[(1, u64::MAX), (2, u64::MAX)])), u64::MAX);
    }

    #[test]
    fn a_frontier_round_trips_and_an_unsorted_one_is_refused() {
        let ours = frontier(&[(1, 5), (2, 7)]);
        let bytes = to_bytes(&ours);
        assert_eq!(from_bytes::<Frontier>(&bytes), Ok(ours));
        let mut writer = Writer::new();
        writer.array(2);
        for byte in [2u8, 1] {
            writer.array(4).item(&DeviceId([byte; 16])).uint(1).uint(1).item(&Link([0; 32]));
        }
        assert_eq!(from_bytes::<Frontier>(&writer.into_bytes()), Err(DecodeError::NotDeterministic));
    }
}
