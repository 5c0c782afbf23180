//! A member's root: two keys from 24 words.
//!
//! HKDF-SHA256(salt `weft/v1/root`, ikm the 64-byte BIP-39 seed with an empty passphrase, info `weft/v1/sign` or
//! `weft/v1/kem`). Spec: docs/sealing.md#root.

use bip39::{Language, Mnemonic};
use ed25519_dalek::SigningKey;
use rand_core::CryptoRng;
use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer};
use zeroize::Zeroizing;

use crate::hash;
use crate::id::RootKey;
use crate::secret::Secret;
use crate::sign::is_sound_key;
use crate::wrap::{is_sound_kem_key, kem_public};

/// How many words there are.
const WORDS: usize = 24;

/// Why they are not 24 words of the English list with a right checksum. No word is named: they are secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordsError {
    /// Fewer or more.
    #[error("there are 24 words, and {0} came in: was one left out, or one written twice?")]
    Count(usize),
    /// One, counted from 1, is not in the list.
    #[error("word {0} is none of the list: check its spelling")]
    Unknown(usize),
    /// The checksum does not fit.
    #[error(
        "each of the 24 is a word of the list, but together they are not right: one was taken for another, or two changed places"
    )]
    Order,
}

/// A member's root secret. Whoever has it is that member.
#[derive(Clone)]
pub struct RootSecret {
    entropy: Secret,
    sign: SigningKey,
    kem: Secret,
}

impl RootSecret {
    /// A new member.
    #[must_use]
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::from_entropy(&Secret::random(rng))
    }

    /// From the 32 bytes that the 24 words spell.
    #[must_use]
    pub fn from_entropy(entropy: &Secret) -> Self {
        let seed = seed_of(entropy);
        let salt = format!("{}root", hash::PREFIX);
        let sign = hash::derive(salt.as_bytes(), seed.as_ref(), &[b"sign"]);
        let kem = hash::derive(salt.as_bytes(), seed.as_ref(), &[b"kem"]);
        Self { entropy: entropy.clone(), sign: SigningKey::from_bytes(sign.expose()), kem }
    }

    /// From 24 words, in any case and spacing.
    ///
    /// # Errors
    /// [`WordsError`] if they are no 24 words with a right checksum.
    pub fn from_words(words: &str) -> Result<Self, WordsError> {
        entropy_of(words).map(|entropy| Self::from_entropy(&entropy))
    }

    /// The 24 words. A secret: show them once, on a terminal.
    #[must_use]
    pub fn words(&self) -> Zeroizing<String> {
        words_of(&self.entropy)
    }

    /// The bytes the words spell, for a protected file.
    #[must_use]
    pub fn entropy(&self) -> &Secret {
        &self.entropy
    }
    /// The public half.
    #[must_use]
    pub fn public(&self) -> RootPublic {
        RootPublic { sign: RootKey(self.sign.verifying_key().to_bytes()), kem: kem_public(&self.kem) }
    }
    /// The signing key.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.sign
    }
    /// The X25519 secret that opens key packets.
    #[must_use]
    pub fn kem_secret(&self) -> &Secret {
        &self.kem
    }
}

/// The BIP-39 seed of 32 bytes of entropy, with an empty passphrase.
pub(super) fn seed_of(entropy: &Secret) -> Zeroizing<[u8; 64]> {
    // 32 bytes are a length BIP-39 knows; the fallback is never taken and would give other words, not weak keys.
    Mnemonic::from_entropy_in(Language::English, entropy.expose())
        .map_or_else(|_| Zeroizing::new([0; 64]), |words| Zeroizing::new(words.to_seed_normalized("")))
}

/// The 24 words that spell 32 bytes.
pub(super) fn words_of(entropy: &Secret) -> Zeroizing<String> {
    let words = Mnemonic::from_entropy_in(Language::English, entropy.expose());
    Zeroizing::new(words.map(|words| words.words().collect::<Vec<_>>().join(" ")).unwrap_or_default())
}

/// The 32 bytes that 24 words spell, in any case and spacing, with the numbers that they are printed with or without.
pub(super) fn entropy_of(words: &str) -> Result<Secret, WordsError> {
    let parts = words.split(|c: char| !c.is_alphabetic()).filter(|part| !part.is_empty());
    let words = Zeroizing::new(parts.collect::<Vec<_>>().join(" ").to_lowercase());
    let count = words.split(' ').filter(|word| !word.is_empty()).count();
    if count != WORDS {
        return Err(WordsError::Count(count));
    }
    if let Some(at) = words.split(' ').position(|word| Language::English.find_word(word).is_none()) {
        return Err(WordsError::Unknown(at + 1));
    }
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, &words).map_err(|_| WordsError::Order)?;
    let entropy = Zeroizing::new(mnemonic.to_entropy());
    Secret::from_slice(&entropy).ok_or(WordsError::Order)
}

impl core::fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RootSecret(…)")
    }
}

/// A member's public keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RootPublic {
    /// Ed25519: who the member is.
    pub sign: RootKey,
    /// X25519: where the member's copy of every epoch is sealed to.
    pub kem: [u8; 32],
}

impl Wire for RootPublic {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2).item(&self.sign).bytes(&self.kem);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(2, "root")?;
        let root = Self { sign: reader.item()?, kem: reader.item()? };
        if !is_sound_key(&root.sign.0) || !is_sound_kem_key(&root.kem) {
            return Err(DecodeError::Invalid("root key"));
        }
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words give the member back, however they are typed; one wrong word gives an error.
    #[test]
    fn words_round_trip() {
        let root = RootSecret::from_entropy(&Secret::new([0x7f; 32]));
        let words = root.words();
        assert_eq!(words.split(' ').count(), 24);
        // The well-known BIP-39 vector for 32 bytes of 0x7f.
        assert!(words.starts_with("legal winner thank year wave sausage worth useful"));
        let typed = words.to_uppercase().replace(' ', "  \n");
        assert_eq!(RootSecret::from_words(&typed).unwrap().public(), root.public());
        let numbered: Vec<String> =
            words.split(' ').enumerate().map(|(at, word)| format!("{}. {word}", at + 1)).collect();
        assert_eq!(RootSecret::from_words(&numbered.join("  ")).unwrap().public(), root.public());
        let wrong = |words: &str| RootSecret::from_words(words).unwrap_err();
        assert_eq!(wrong(&words.replace("legal", "lethal")), WordsError::Unknown(1));
        assert_eq!(wrong(&words.replacen("thank", "thnak", 1)), WordsError::Unknown(3));
        assert_eq!(wrong(&words.replacen("legal winner", "winner legal", 1)), WordsError::Order);
        assert_eq!(wrong("legal winner"), WordsError::Count(2));
        assert_eq!(wrong(""), WordsError::Count(0));
        assert_eq!(wrong(&format!("{} legal", *words)), WordsError::Count(25));
        assert!(!wrong(&words.replacen("thank", "thnak", 1)).to_string().contains("thnak"), "a word is secret");
        // Twelve words are an identity elsewhere, not here.
        assert!(RootSecret::from_words(&format!("{}wrong", "zoo ".repeat(11))).is_err());
    }
}
