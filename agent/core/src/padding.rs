//! How long a sealed thing is on the wire: Padmé with a floor.
//!
//! Invariant: a length reveals at most O(log log n) bits and costs at most 12 % more. Why: sizes are all a relay sees.
//! Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs" (PETS 2019).
//! Spec: docs/sealing.md#padding.

/// The least length of anything sealed, in bytes: one edit, a beacon and an empty message look alike.
pub const FLOOR_BYTES: usize = 512;

/// The padded length of `len` bytes: never less than `len` nor [`FLOOR_BYTES`].
#[must_use]
pub fn padded_len(len: usize) -> usize {
    let len = len.max(FLOOR_BYTES);
    let exponent = len.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1usize << exponent.saturating_sub(kept)) - 1;
    len.saturating_add(mask) & !mask
}

/// Whether `len` is a length that padding gives.
#[must_use]
pub fn is_padded_len(len: usize) -> bool {
    len >= FLOOR_BYTES && padded_len(len) == len
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Padding grows, is stable under itself, is monotone, costs at most 12 %, and has the floor.
    #[test]
    fn padding_is_a_closure() {
        let mut before = 0;
        for len in 0..70_000 {
            let padded = padded_len(len);
            assert!(padded >= len.max(FLOOR_BYTES) && padded >= before);
            assert!(is_padded_len(padded));
            assert!(len < FLOOR_BYTES || padded * 100 <= len * 112);
            before = padded;
        }
        // The format's two bounds are themselves padded lengths.
        assert!(is_padded_len(512 * 1024) && is_padded_len(256 * 1024));
        assert_eq!((padded_len(0), padded_len(512), padded_len(513)), (512, 512, 544));
    }
}
