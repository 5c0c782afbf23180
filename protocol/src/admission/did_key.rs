//! `did:key`: a DID that is its own public key.
//!
//! Multibase base58btc (`z`) over a multicodec prefix and the key. Ed25519 can be made and used; secp256k1 and P-256
//! keys are recognised, so that a refusal can say what they are.
//! Spec: docs/protocol.md#dids, W3C "The did:key Method" v0.9.

use core::fmt;

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// 35 bytes are at most 48 digits; the decoder takes quadratic time, so longer ones are not looked at.
const DIGITS_MAX: usize = 48;
/// An uncompressed point of 65 bytes, as older documents have.
const LONG_DIGITS_MAX: usize = 90;
const ED25519: [u8; 2] = [0xed, 0x01];
const SECP256K1: [u8; 2] = [0xe7, 0x01];
const P256: [u8; 2] = [0x80, 0x24];

/// The key in a `did:key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DidKey {
    /// An Ed25519 public key (JWT algorithm EdDSA).
    Ed25519([u8; 32]),
    /// A compressed secp256k1 public key (ES256K).
    Secp256k1([u8; 33]),
    /// A compressed P-256 public key (ES256).
    P256([u8; 33]),
}

/// Why a text is no `did:key`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DidKeyError {
    /// Another DID method, or no DID at all.
    #[error("not a did:key")]
    Method,
    /// Not multibase base58btc, or too long for any key.
    #[error("a did:key is z and base58 digits")]
    Encoding,
    /// A key type or length that is not Ed25519, secp256k1 or P-256.
    #[error("a did:key of an unknown key type")]
    KeyType,
}

impl DidKey {
    /// Parses `did:key:z…`.
    ///
    /// # Errors
    /// [`DidKeyError`].
    pub fn parse(did: &str) -> Result<Self, DidKeyError> {
        let digits = did.strip_prefix("did:key:").ok_or(DidKeyError::Method)?;
        let digits = digits.strip_prefix('z').ok_or(DidKeyError::Encoding)?;
        let bytes = base58_decode(digits, DIGITS_MAX).ok_or(DidKeyError::Encoding)?;
        let (prefix, key) = bytes.split_at_checked(2).ok_or(DidKeyError::KeyType)?;
        let prefix: [u8; 2] = prefix.try_into().map_err(|_| DidKeyError::KeyType)?;
        let parsed = match prefix {
            ED25519 => key.try_into().ok().map(DidKey::Ed25519),
            SECP256K1 => key.try_into().ok().map(DidKey::Secp256k1),
            P256 => key.try_into().ok().map(DidKey::P256),
            _ => None,
        };
        parsed.ok_or(DidKeyError::KeyType)
    }
}

impl fmt::Display for DidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, key): ([u8; 2], &[u8]) = match self {
            DidKey::Ed25519(key) => (ED25519, key),
            DidKey::Secp256k1(key) => (SECP256K1, key),
            DidKey::P256(key) => (P256, key),
        };
        write!(f, "did:key:z{}", base58_encode(&[&prefix[..], key].concat()))
    }
}

/// The bytes of a multibase text in base58btc (`z` and digits), at most 65; `None` for anything else.
#[must_use]
pub fn multibase_base58(text: &str) -> Option<Vec<u8>> {
    base58_decode(text.strip_prefix('z')?, LONG_DIGITS_MAX)
}

/// Writes what [`multibase_base58`] reads.
#[must_use]
pub fn to_multibase_base58(bytes: &[u8]) -> String {
    format!("z{}", base58_encode(bytes))
}

fn base58_encode(bytes: &[u8]) -> String {
    let mut digits: Vec<u8> = Vec::with_capacity(DIGITS_MAX);
    for &byte in bytes {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let values = core::iter::repeat_n(0, zeros).chain(digits.into_iter().rev());
    values.filter_map(|value| ALPHABET.get(usize::from(value)).map(|&letter| char::from(letter))).collect()
}

fn base58_decode(text: &str, digits_max: usize) -> Option<Vec<u8>> {
    if text.len() > digits_max {
        return None;
    }
    let mut bytes: Vec<u8> = Vec::with_capacity(DIGITS_MAX);
    for letter in text.bytes() {
        let mut carry = ALPHABET.iter().position(|&known| known == letter)? as u32;
        for byte in &mut bytes {
            carry += u32::from(*byte) * 58;
            *byte = carry as u8;
            carry >>= 8;
        }
        while carry > 0 {
            bytes.push(carry as u8);
            carry >>= 8;
        }
    }
    bytes.extend(text.bytes().take_while(|&letter| letter == b'1').map(|_| 0));
    bytes.reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_examples_parse_and_print_the_same() {
        // From the did:key specification's test vectors: Ed25519, secp256k1, P-256.
        for did in [
            "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
            "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
            "did:key:zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169",
        ] {
            assert_eq!(DidKey::parse(did).map(|key| key.to_string()), Ok(did.to_owned()));
        }
    }

    #[test]
    fn other_texts_are_refused_by_their_fault() {
        assert_eq!(DidKey::parse("did:web:a"), Err(DidKeyError::Method));
        assert_eq!(DidKey::parse("did:key:f00"), Err(DidKeyError::Encoding));
        assert_eq!(DidKey::parse("did:key:z0OIl"), Err(DidKeyError::Encoding));
        assert_eq!(DidKey::parse(&format!("did:key:z{}", "1".repeat(10_000))), Err(DidKeyError::Encoding));
        assert_eq!(DidKey::parse("did:key:z"), Err(DidKeyError::KeyType));
        assert_eq!(DidKey::parse("did:key:z6Mk"), Err(DidKeyError::KeyType));
    }
}
