//! Several stored envelopes in one frame, for bulk.
//!
//! ver (1) suite (1) class (1, always 5), then for each envelope its length (4, big-endian) and its bytes. Invariant: nothing is
//! opened before the whole frame was found well formed: at least one and at most [`SEVERAL_MAX`] envelopes, each of class 0
//! and of an envelope's size, and no byte left over. Why: a relay lets a connection send so many frames a second, whatever is in
//! them, and a history is thousands of envelopes of a kilobyte. Spec: docs/sealing.md#envelope.

use bytes::Bytes;

use super::{Class, ENVELOPE_BYTES_MAX, PREAMBLE_LEN};

/// The third byte of such a frame's payload. It is no [`Class`]: nothing is sealed as this, so none can stand in another.
pub const SEVERAL_CLASS: u8 = 5;
/// Most envelopes in one: what a receiver takes in without a pause.
pub const SEVERAL_MAX: usize = 64;
/// A sender fills a frame up to about so many bytes: at the relay's hundred frames a second that is 6 MB, and at 1 Mbit/s
/// half a second, so that what is live does not wait for it.
pub const SEVERAL_BYTES: usize = 64 * 1024;

/// Why a frame of several envelopes was refused. Whoever sent it is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeveralError {
    /// Another version, suite or class.
    #[error("not several envelopes")]
    NotSeveral,
    /// None, or more than [`SEVERAL_MAX`].
    #[error("no envelope, or too many in one frame")]
    Count,
    /// A length that is no envelope's, or beyond the end; or something else than a stored envelope.
    #[error("malformed envelope in a frame of several")]
    Malformed,
}

const fn preamble() -> [u8; PREAMBLE_LEN] {
    [crate::op::FORMAT_VERSION, crate::op::SUITE, SEVERAL_CLASS]
}

/// One payload of these envelopes. Callers keep to [`SEVERAL_MAX`] of them, and to a frame's size.
#[must_use]
pub fn join_several(envelopes: &[Bytes]) -> Bytes {
    let len: usize = envelopes.iter().map(|envelope| envelope.len() + 4).sum();
    let mut bytes = Vec::with_capacity(PREAMBLE_LEN + len);
    bytes.extend(preamble());
    for envelope in envelopes {
        bytes.extend(u32::try_from(envelope.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(envelope);
    }
    Bytes::from(bytes)
}

/// The envelopes in a payload, in order.
pub fn split_several(payload: &[u8]) -> Result<Vec<&[u8]>, SeveralError> {
    let mut rest = payload.strip_prefix(&preamble()).ok_or(SeveralError::NotSeveral)?;
    let mut envelopes = Vec::new();
    while !rest.is_empty() {
        if envelopes.len() == SEVERAL_MAX {
            return Err(SeveralError::Count);
        }
        let (len, after) = rest.split_first_chunk::<4>().ok_or(SeveralError::Malformed)?;
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        if len > ENVELOPE_BYTES_MAX {
            return Err(SeveralError::Malformed);
        }
        let (envelope, after) = after.split_at_checked(len).ok_or(SeveralError::Malformed)?;
        if Class::of(envelope) != Some(Class::Stored) {
            return Err(SeveralError::Malformed);
        }
        envelopes.push(envelope);
        rest = after;
    }
    if envelopes.is_empty() { Err(SeveralError::Count) } else { Ok(envelopes) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope(len: usize) -> Bytes {
        let mut bytes = Class::Stored.preamble().to_vec();
        bytes.resize(len.max(PREAMBLE_LEN), 0xab);
        Bytes::from(bytes)
    }

    /// What was joined comes apart again; anything cut, added, nested or beyond a bound is refused whole.
    #[test]
    fn only_whole_frames_of_stored_envelopes_come_apart() {
        let envelopes: Vec<Bytes> = [3, 300, 17, 70_000].map(envelope).to_vec();
        let joined = join_several(&envelopes);
        assert_eq!(split_several(&joined), Ok(envelopes.iter().map(|one| &one[..]).collect()));
        for len in 0..joined.len().min(400) {
            let cut = split_several(&joined[..len]);
            // At the end of an envelope it is a shorter frame.
            assert!(cut.is_err() || [10, 314, 335].contains(&len), "{len}");
        }
        let mut longer = joined.to_vec();
        longer.push(0);
        assert_eq!(split_several(&longer), Err(SeveralError::Malformed));
        assert_eq!(split_several(&join_several(&[])), Err(SeveralError::Count));
        assert_eq!(split_several(&join_several(&vec![envelope(3); SEVERAL_MAX])).map(|all| all.len()), Ok(SEVERAL_MAX));
        assert_eq!(split_several(&join_several(&vec![envelope(3); SEVERAL_MAX + 1])), Err(SeveralError::Count));
        assert_eq!(split_several(&join_several(&[joined])), Err(SeveralError::Malformed), "nested");
        let large = join_several(&[envelope(ENVELOPE_BYTES_MAX + 1)]);
        assert_eq!(split_several(&large), Err(SeveralError::Malformed));
        for class in [1, 2, 3, 4, 5, 6, 255] {
            let mut other = envelope(20).to_vec();
            other[2] = class;
            assert!(split_several(&join_several(&[Bytes::from(other)])).is_err(), "{class}");
            let mut other = join_several(&[envelope(20)]).to_vec();
            other[2] = class;
            assert_eq!(split_several(&other).is_ok(), class == SEVERAL_CLASS);
        }
    }

    proptest! {
        /// Whatever bytes arrive, the answer is a value, and what comes apart joins to the same bytes.
        #[test]
        fn any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..64), lens in prop::collection::vec(0u8..12, 0..6)) {
            let mut at = 3;
            for len in lens {
                for (place, byte) in (at..).zip([0, 0, 0, len, 0, 1, 0]) {
                    if let Some(into) = bytes.get_mut(place) {
                        *into = byte;
                    }
                }
                at += 4 + usize::from(len);
            }
            for (into, byte) in bytes.iter_mut().zip(preamble()) {
                *into = byte;
            }
            if let Ok(envelopes) = split_several(&bytes) {
                let envelopes: Vec<Bytes> = envelopes.into_iter().map(Bytes::copy_from_slice).collect();
                prop_assert_eq!(join_several(&envelopes), bytes);
            }
        }
    }
}
