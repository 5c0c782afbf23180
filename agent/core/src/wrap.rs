//! HPKE (RFC 9180): sealing to an X25519 key, with or without a pre-shared key.
//!
//! Suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. Invariant: a public key of small order is never
//! sealed to, and a repeat of the random bytes repeats a key only for an equal message to an equal recipient (a resumed
//! virtual machine repeats randomness). Spec: docs/sealing.md#hpke.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256 as Suite;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, PskBundle, Serializable};
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, SeedableRng};

use crate::hash;
use crate::secret::{Secret, random_bytes};

/// Bytes that HPKE adds: the encapsulated key (32) and the tag (16).
pub const OVERHEAD: usize = 48;

/// It does not open: another key, another context, or bytes that were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not sealed to this key")]
pub struct CannotOpen;

/// A pre-shared key and its name.
#[derive(Clone, Copy)]
pub(crate) struct Psk<'a> {
    pub(crate) key: &'a Secret,
    pub(crate) id: &'a [u8; 32],
}

impl<'a> Psk<'a> {
    fn bundle(self) -> Option<PskBundle<'a>> {
        PskBundle::new(self.key.expose(), self.id).ok()
    }
}

/// Whether these bytes are a usable X25519 public key: canonical, and not of small order.
#[must_use]
pub fn is_sound_kem_key(key: &[u8; 32]) -> bool {
    let below_field = match key {
        [low, middle @ .., 0x7f] => *low < 0xed || middle.iter().any(|byte| *byte != 0xff),
        [.., top] => *top < 0x80,
    };
    // Any clamped scalar is a multiple of the cofactor: small-order points, and only they, give zero.
    below_field && x25519_dalek::x25519([0x42; 32], *key) != [0; 32]
}

/// The public half of an X25519 secret.
#[must_use]
pub fn kem_public(secret: &Secret) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*secret.expose())).to_bytes()
}

/// enc (32) ‖ ciphertext. `None` if the recipient's key is not sound.
pub(crate) fn seal(
    recipient: &[u8; 32],
    psk: Option<Psk<'_>>,
    info: &[u8],
    aad: &[u8],
    plain: &[u8],
    rng: &mut dyn CryptoRng,
) -> Option<Vec<u8>> {
    if !is_sound_kem_key(recipient) {
        return None;
    }
    let random = random_bytes::<32>(rng);
    let info_len = (info.len() as u64).to_be_bytes();
    let seed = hash::k(&random, &[b"hpke", recipient, &info_len, info, plain]);
    let mut derived = ChaCha20Rng::from_seed(seed);
    let key = <Suite as Kem>::PublicKey::from_bytes(recipient).ok()?;
    let mode = match psk {
        Some(psk) => OpModeS::Psk(psk.bundle()?),
        None => OpModeS::Base,
    };
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Suite>(
        &mode,
        &key,
        info,
        plain,
        aad,
        &mut derived,
    )
    .ok()?;
    let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
    out.extend_from_slice(&enc.to_bytes());
    out.extend_from_slice(&ciphertext);
    Some(out)
}

/// The reverse of [`seal`].
pub(crate) fn open(
    secret: &Secret,
    psk: Option<Psk<'_>>,
    info: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<zeroize::Zeroizing<Vec<u8>>, CannotOpen> {
    let (enc, ciphertext) = sealed.split_at_checked(32).ok_or(CannotOpen)?;
    let enc = <Suite as Kem>::EncappedKey::from_bytes(enc).map_err(|_| CannotOpen)?;
    let secret = <Suite as Kem>::PrivateKey::from_bytes(secret.expose()).map_err(|_| CannotOpen)?;
    let mode = match psk {
        Some(psk) => OpModeR::Psk(psk.bundle().ok_or(CannotOpen)?),
        None => OpModeR::Base,
    };
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Suite>(&mode, &secret, &enc, info, ciphertext, aad)
        .map(zeroize::Zeroizing::new)
        .map_err(|_| CannotOpen)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sealed to a key opens with that key, pre-shared key, info and data, and with no other.
    #[test]
    fn only_the_recipient_opens() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let secret = Secret::new([5; 32]);
        let (psk, id) = (Secret::new([6; 32]), [7; 32]);
        let psk = Some(Psk { key: &psk, id: &id });
        let sealed = seal(&kem_public(&secret), psk, b"info", b"aad", b"plain", &mut rng).unwrap();
        assert_eq!(open(&secret, psk, b"info", b"aad", &sealed).unwrap().as_slice(), b"plain");
        assert!(open(&secret, None, b"info", b"aad", &sealed).is_err());
        assert!(open(&Secret::new([4; 32]), psk, b"info", b"aad", &sealed).is_err());
        assert!(open(&secret, psk, b"other", b"aad", &sealed).is_err());
        assert!(open(&secret, psk, b"info", b"other", &sealed).is_err());
        for len in 0..sealed.len() {
            assert!(open(&secret, psk, b"info", b"aad", &sealed[..len]).is_err());
        }
    }

    /// Points of small order and encodings above the field are refused.
    #[test]
    fn unsound_keys_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        let mut above = [0xff; 32];
        above[31] = 0x7f;
        above[0] = 0xf0;
        let mut order_eight = [0; 32];
        order_eight.copy_from_slice(&[
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ]);
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        for key in [[0; 32], one, above, [0xff; 32], order_eight] {
            assert!(!is_sound_kem_key(&key));
            assert_eq!(seal(&key, None, b"", b"", b"", &mut rng), None);
        }
        assert!(is_sound_kem_key(&kem_public(&Secret::new([5; 32]))));
    }
}
