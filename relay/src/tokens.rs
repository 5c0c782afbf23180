//! Relay tokens: short-lived JWTs that this relay, or one that shares its keys, signs and verifies.
//!
//! Invariant: a token is worth something only together with the connection key it names, for [`TOKEN_MS`], at the audience
//! it names, and once: each has a number of its own, by which its use is remembered. The first key signs, all verify: to rotate, put the new key first, later drop the old one.
//! Spec: docs/protocol.md#token.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::hash;
use weft_protocol::code::Code;
use weft_protocol::id::{ConnectionKey, RelayDevice, unhex};
use weft_protocol::limits::{TOKEN_BYTES_MAX, TOKEN_MS};
use weft_relay_core::Admission;

pub(crate) struct Tokens {
    signer: (String, EncodingKey),
    verifiers: Vec<(String, DecodingKey)>,
    old_until_s: Option<u64>,
    validation: Validation,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    /// Hash of the DID.
    sub: String,
    device: String,
    connection: String,
    audience: String,
    exp: u64,
    /// Drawn for this token alone.
    jti: String,
}

/// What a token says that is ours and in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) admission: Admission,
    pub(crate) number: [u8; 16],
    /// Unix seconds from which it is refused anyway.
    pub(crate) expires_s: u64,
}

/// Names a key without telling it.
fn key_id(key: &[u8; 32]) -> String {
    hash("relay-token-key", &[key]).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Tokens {
    /// `old_until_s`: from then on (Unix seconds) only `first` verifies.
    pub(crate) fn new(first: [u8; 32], others: &[[u8; 32]], old_until_s: Option<u64>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        let verifiers =
            std::iter::once(&first).chain(others).map(|key| (key_id(key), DecodingKey::from_secret(key))).collect();
        Self { signer: (key_id(&first), EncodingKey::from_secret(&first)), verifiers, old_until_s, validation }
    }

    /// A token for what was verified, from `now_s` (Unix seconds) on; `number` must be fresh randomness.
    pub(crate) fn issue(&self, admission: &Admission, number: &[u8; 16], now_s: u64) -> Result<String, Code> {
        let (key_id, key) = &self.signer;
        let header = Header { kid: Some(key_id.clone()), ..Header::new(Algorithm::HS256) };
        let claims = Claims {
            sub: hex(&admission.identity),
            device: admission.device.to_string(),
            connection: admission.connection.to_string(),
            audience: admission.audience.to_string(),
            exp: now_s + TOKEN_MS / 1000,
            jti: hex(number),
        };
        encode(&header, &claims, key).map_err(|error| {
            tracing::error!(%error, "a relay token could not be signed");
            Code::Internal
        })
    }

    /// What a token says, if one of our keys signed it and its time is not over.
    pub(crate) fn verify(&self, token: &str, now_s: u64) -> Result<Shown, Code> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Code::BadToken);
        }
        let key_id = decode_header(token).map_err(|_| Code::BadToken)?.kid.ok_or(Code::BadToken)?;
        if key_id != self.signer.0 && self.old_until_s.is_some_and(|until_s| until_s <= now_s) {
            return Err(Code::BadToken);
        }
        let key = self.verifiers.iter().find(|(known, _)| *known == key_id).map(|(_, key)| key);
        let data = decode::<Claims>(token, key.ok_or(Code::BadToken)?, &self.validation).map_err(|error| {
            if matches!(error.kind(), jsonwebtoken::errors::ErrorKind::ExpiredSignature) {
                Code::Expired
            } else {
                Code::BadToken
            }
        })?;
        let claims = data.claims;
        let admission = Admission {
            identity: unhex(&claims.sub).ok_or(Code::BadToken)?,
            device: RelayDevice::from_hex(&claims.device).ok_or(Code::BadToken)?,
            connection: ConnectionKey::from_hex(&claims.connection).ok_or(Code::BadToken)?,
            audience: Audience::parse(&claims.audience).map_err(|_| Code::BadToken)?,
        };
        let number = unhex(&claims.jti).ok_or(Code::BadToken)?;
        // The library takes a token until the end of its last second.
        Ok(Shown { admission, number, expires_s: claims.exp + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_rotation_and_ends_with_its_key_or_its_time() {
        let admission = Admission {
            identity: [1; 32],
            device: RelayDevice([2; 16]),
            connection: ConnectionKey([3; 32]),
            audience: Audience::parse("relay.example:443").unwrap(),
        };
        let now_s = crate::admit::unix_ms() / 1000;
        let old = Tokens::new([1; 32], &[], None);
        let number = [9; 16];
        let token = old.issue(&admission, &number, now_s).unwrap();
        let shown = Shown { admission: admission.clone(), number, expires_s: now_s + TOKEN_MS / 1000 + 1 };
        assert!(token.len() < 600);
        assert_eq!(Tokens::new([2; 32], &[[1; 32]], None).verify(&token, now_s), Ok(shown.clone()));
        let rotating = Tokens::new([2; 32], &[[1; 32]], Some(now_s + 1));
        assert_eq!(rotating.verify(&token, now_s), Ok(shown.clone()));
        assert_eq!(rotating.verify(&token, now_s + 1), Err(Code::BadToken));
        assert_eq!(Tokens::new([2; 32], &[], None).verify(&token, now_s), Err(Code::BadToken));
        let stale = old.issue(&admission, &number, now_s - 40).unwrap();
        assert_eq!(old.verify(&stale, now_s), Err(Code::Expired));
        assert_eq!(old.verify("x.y.z", now_s), Err(Code::BadToken));
    }
}
