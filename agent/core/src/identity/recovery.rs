//! A workspace's recovery key: one Ed25519 key from 24 words of its own, named in the genesis, kept by nobody's computer.
//!
//! HKDF-SHA256(salt `weft/v1/recovery`, ikm the 64-byte BIP-39 seed with an empty passphrase, info `weft/v1/sign`).
//! Invariant: the words of an identity never give a recovery key that counts, nor the reverse.
//! Spec: docs/sealing.md#recovery-key.

use ed25519_dalek::SigningKey;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::root::{WordsError, entropy_of, seed_of, words_of};
use crate::hash;
use crate::secret::Secret;

/// What outranks every owner of a workspace. Whoever has it decides who its owners are.
#[derive(Clone)]
pub struct RecoveryKey {
    entropy: Secret,
    sign: SigningKey,
}

impl RecoveryKey {
    /// A new one.
    #[must_use]
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::from_entropy(&Secret::random(rng))
    }
    fn from_entropy(entropy: &Secret) -> Self {
        let salt = format!("{}recovery", hash::PREFIX);
        let sign = hash::derive(salt.as_bytes(), seed_of(entropy).as_ref(), &[b"sign"]);
        Self { entropy: entropy.clone(), sign: SigningKey::from_bytes(sign.expose()) }
    }
    /// From its 24 words, in any case and spacing.
    ///
    /// # Errors
    /// [`WordsError`] if they are no 24 words with a right checksum.
    pub fn from_words(words: &str) -> Result<Self, WordsError> {
        entropy_of(words).map(|entropy| Self::from_entropy(&entropy))
    }
    /// Its words. A secret: show them once, on a terminal.
    #[must_use]
    pub fn words(&self) -> Zeroizing<String> {
        words_of(&self.entropy)
    }
    /// The public half, for the genesis.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.sign.verifying_key().to_bytes()
    }
    /// The signing key.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.sign
    }
}

impl PartialEq for RecoveryKey {
    fn eq(&self, other: &Self) -> bool {
        self.entropy == other.entropy
    }
}

impl Eq for RecoveryKey {}

impl core::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RecoveryKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::RootSecret;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    /// Its words give it back; as the words of an identity they give another key.
    #[test]
    fn words_give_it_back_and_nothing_else() {
        let key = RecoveryKey::generate(&mut ChaCha20Rng::from_seed([5; 32]));
        let words = key.words();
        assert_eq!(RecoveryKey::from_words(&words.to_uppercase()), Ok(key.clone()));
        assert_ne!(RootSecret::from_words(&words).unwrap().public().sign.0, key.public());
        assert_eq!(RecoveryKey::from_words("legal winner"), Err(WordsError::Count(2)));
        assert!(!format!("{key:?}").contains(words.split(' ').next().unwrap()));
    }
}
