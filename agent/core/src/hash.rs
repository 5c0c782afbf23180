//! The hashes and derivations that everything else is named and keyed by.
//!
//! Invariant: every use has its own context or label under `weft/v1/`, so that no output of one can stand for another.
//! Callers pass parts of fixed length, or one part of free length last: parts are joined without separators.
//! Spec: docs/sealing.md#notation.

use hkdf::Hkdf;
use sha2::Sha256;

use crate::id::{EpochId, WorkspaceId};
use crate::secret::Secret;

/// What every context, label and signature starts with.
pub const PREFIX: &str = "weft/v1/";

/// H(context, parts joined): BLAKE3 in derive-key mode with context `weft/v1/` ‖ `context`.
#[must_use]
pub fn h(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(&format!("{PREFIX}{context}"));
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// K(key, parts joined): keyed BLAKE3.
#[must_use]
pub fn k(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// HKDF-SHA256 of 32 bytes: salt, input key material, info `weft/v1/` ‖ the parts of `info` joined.
#[must_use]
pub fn derive(salt: &[u8], ikm: &[u8], info: &[&[u8]]) -> Secret {
    let mut whole: Vec<&[u8]> = vec![PREFIX.as_bytes()];
    whole.extend_from_slice(info);
    let mut out = zeroize::Zeroizing::new([0; 32]);
    // 32 bytes are one block: always within HKDF's bound of 255.
    let expanded = Hkdf::<Sha256>::new(Some(salt), ikm).expand_multi_info(&whole, out.as_mut());
    debug_assert!(expanded.is_ok(), "one block is within HKDF's bound");
    Secret::new(*out)
}

/// KD(secret, label): HKDF-SHA256(salt workspace id, ikm secret, info `weft/v1/` ‖ label ‖ 0 ‖ epoch id).
#[must_use]
pub fn kd(workspace: &WorkspaceId, secret: &[u8; 32], label: &str, epoch: &EpochId) -> Secret {
    derive(&workspace.0, secret, &[label.as_bytes(), &[0], &epoch.0])
}

/// A key for one message and the commitment to it: the first 48 bytes of the XOF K(subkey, nonce).
pub(crate) fn message_key(subkey: &Secret, nonce: &[u8; 24]) -> (Secret, [u8; 16]) {
    let mut hasher = blake3::Hasher::new_keyed(subkey.expose());
    hasher.update(nonce);
    let mut xof = hasher.finalize_xof();
    let (mut key, mut commitment) = (zeroize::Zeroizing::new([0; 32]), [0; 16]);
    xof.fill(key.as_mut());
    xof.fill(&mut commitment);
    (Secret::new(*key), commitment)
}

/// A number below `bound` (or 0), spread evenly by what is hashed: who goes first, without anybody deciding.
pub(crate) fn pick(context: &str, parts: &[&[u8]], bound: u64) -> u64 {
    let number = h(context, parts).iter().take(8).fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
    number.checked_rem(bound).unwrap_or(0)
}

/// The first 16 bytes of a hash, where an id is that short.
pub(crate) fn first16(hash: &[u8; 32]) -> [u8; 16] {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(hash) {
        *to = *from;
    }
    short
}
