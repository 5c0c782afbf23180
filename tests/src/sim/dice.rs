//! Seeded chance, split into independent streams.
//!
//! Invariant: what one stream draws never shifts another, so that deleting an event from a plan, or drawing one more
//! latency, leaves the rest of a run as it was. Spec: docs/simulation.md#seeds.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A stream of chance.
#[derive(Debug, Clone)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of `seed` named `stream`; `number` tells apart streams of one name.
    #[must_use]
    pub fn new(seed: u64, stream: &str, number: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_be_bytes()).update(&number.to_be_bytes()).update(stream.as_bytes());
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }
    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.next_u64()
    }
    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.next_u64() % bound }
    }
    /// An index into something of that length.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }
    /// True in `permille` of 1,000 cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
    /// One of several, each with its weight; the first if all weights are 0.
    pub fn weighted<'a, T>(&mut self, choices: &'a [(u64, T)]) -> Option<&'a T> {
        let total = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(total);
        for (weight, choice) in choices {
            if left < *weight {
                return Some(choice);
            }
            left -= weight;
        }
        choices.first().map(|(_, choice)| choice)
    }
    /// 32 bytes.
    pub fn bytes32(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
    /// The generator itself, for whoever asks for one.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams are independent of one another and equal to themselves.
    #[test]
    fn a_stream_is_its_name() {
        let draw = |stream, number| Dice::new(7, stream, number).any();
        assert_eq!(draw("network", 1), draw("network", 1));
        assert_ne!(draw("network", 1), draw("network", 2));
        assert_ne!(draw("network", 1), draw("disk", 1));
    }

    /// Bounds hold, also the degenerate ones.
    #[test]
    fn draws_stay_in_bounds() {
        let mut dice = Dice::new(1, "x", 0);
        assert_eq!(dice.below(0), 0);
        for _ in 0..1000 {
            assert!((3..=5).contains(&dice.between(3, 5)));
            assert!(!dice.chance(0));
            assert!(dice.chance(1000));
        }
    }
}
