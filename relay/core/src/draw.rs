//! Unpredictable numbers from one seed: nonces, peer names, jitter.
//!
//! Invariant: no draw repeats, and who sees some draws cannot tell another (a pseudorandom function of a secret seed and
//! a counter). The seed comes from the operating system, in the simulator from the case.

use weft_protocol::admission::proof::hash;

pub(crate) struct Draws {
    seed: [u8; 32],
    count: u64,
}

impl Draws {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, count: 0 }
    }

    /// 32 fresh bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        self.count += 1;
        hash("relay-draw", &[&self.seed, &self.count.to_be_bytes()])
    }

    /// 16 fresh bytes.
    pub(crate) fn half(&mut self) -> [u8; 16] {
        let mut half = [0; 16];
        half.iter_mut().zip(self.bytes()).for_each(|(to, from)| *to = from);
        half
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let number = self.bytes().iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte));
        number.checked_rem(bound).unwrap_or(0)
    }
}
