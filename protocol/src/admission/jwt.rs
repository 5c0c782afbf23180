//! The JWT that asks for a relay token: made and signed by the client, checked in a fixed order by the relay.
//!
//! Invariant: [`Unverified`] gives nothing that may be acted on before its signature is checked, except the name of the
//! key that must have made it. The cheap checks come first and in one order (size, algorithm, `aud`, `lxm`, `exp` and `iat`,
//! `jti`), so that nothing is resolved for a token that could never be accepted.
//! Spec: docs/protocol.md#jwt, RFC 7519, RFC 8037 (EdDSA).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::{Audience, DidKey};
use crate::code::Code;
use crate::limits::{DID_BYTES_MAX, JTI_BYTES_MAX, JWT_BYTES_MAX, JWT_LEEWAY_S, JWT_LIFETIME_S_MAX};

/// The only `lxm` (method) that a relay accepts.
pub const METHOD: &str = "dev.weft.relay.connect";

/// The JOSE header of every JWT this crate makes.
const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

/// Signature algorithms that the format knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA over secp256k1 with SHA-256.
    Es256k,
    /// ECDSA over P-256 with SHA-256.
    Es256,
}

/// Why a JWT was refused. `code` gives what the relay answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// More bytes than a JWT may have.
    #[error("the JWT is longer than {JWT_BYTES_MAX} bytes")]
    TooLarge,
    /// Not three base64url parts of JSON, or a claim is missing or of the wrong type.
    #[error("malformed JWT: {0}")]
    Malformed(&'static str),
    /// Not EdDSA, ES256K or ES256, or another one than the key's.
    #[error("the JWT's algorithm must be EdDSA, ES256K or ES256, and the one of the issuer's key")]
    Algorithm,
    /// Made for another relay.
    #[error("the JWT's aud is not this relay")]
    Audience,
    /// Made for another method.
    #[error("the JWT's lxm is not {METHOD}")]
    Method,
    /// Its time is over.
    #[error("the JWT has expired: check the clock, or sign again with the relay's time")]
    Expired,
    /// Its time has not come.
    #[error("the JWT is from the future: check the clock, or sign again with the relay's time")]
    NotYetValid,
    /// It would live too long.
    #[error("the JWT may live {JWT_LIFETIME_S_MAX} seconds at most")]
    Lifetime,
    /// The signature is not the issuer's.
    #[error("the JWT's signature is not by the key of its iss")]
    Signature,
}

impl JwtError {
    /// What a relay answers to it.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            JwtError::TooLarge => Code::TooLarge,
            JwtError::Malformed(_) => Code::Malformed,
            JwtError::Algorithm => Code::UnsupportedAlgorithm,
            JwtError::Audience => Code::WrongAudience,
            JwtError::Method => Code::WrongMethod,
            JwtError::Expired => Code::Expired,
            JwtError::NotYetValid => Code::NotYetValid,
            JwtError::Lifetime => Code::LifetimeTooLong,
            JwtError::Signature => Code::BadSignature,
        }
    }
}

#[derive(Serialize)]
struct ClaimsOut<'a> {
    iss: &'a str,
    aud: &'a str,
    lxm: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
}

#[derive(Deserialize)]
struct HeaderIn {
    alg: String,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct ClaimsIn {
    iss: Option<String>,
    aud: Option<serde_json::Value>,
    lxm: Option<serde_json::Value>,
    iat: Option<u64>,
    exp: Option<u64>,
    nbf: Option<u64>,
    jti: Option<String>,
}

/// Makes the JWT of a `did:key`, valid from `now_s` (Unix seconds) for [`JWT_LIFETIME_S_MAX`].
///
/// `jti` must be fresh randomness: a relay accepts each JWT once.
#[must_use]
pub fn self_signed(key: &SigningKey, audience: &Audience, now_s: u64, jti: &[u8; 16]) -> String {
    let iss = DidKey::Ed25519(key.verifying_key().to_bytes()).to_string();
    let jti = URL_SAFE_NO_PAD.encode(jti);
    let exp = now_s.saturating_add(JWT_LIFETIME_S_MAX);
    let claims = ClaimsOut { iss: &iss, aud: &audience.did_web(), lxm: METHOD, iat: now_s, exp, jti: &jti };
    // Strings and numbers in a struct: serialising them to memory has no way to fail.
    let claims = serde_json::to_string(&claims).unwrap_or_default();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

/// A JWT whose signature has not been checked.
pub struct Unverified<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    claims: ClaimsIn,
}

/// What a JWT says once its plain claims were checked; still without its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Who claims to have made it: a DID, perhaps with a `#fragment` that names a key.
    pub issuer: String,
    /// Whom it is for: the audience's did:web.
    pub audience: String,
    /// Its unique name, to be remembered until `expires_s`.
    pub jti: String,
    /// Unix seconds after which it is refused anyway, leeway included.
    pub expires_s: u64,
}

impl<'a> Unverified<'a> {
    /// Size, then shape, then algorithm.
    ///
    /// # Errors
    /// [`JwtError::TooLarge`], [`JwtError::Malformed`] or [`JwtError::Algorithm`].
    pub fn parse(text: &'a str) -> Result<Self, JwtError> {
        if text.len() > JWT_BYTES_MAX {
            return Err(JwtError::TooLarge);
        }
        let parts = || JwtError::Malformed("not three parts");
        let (signed, signature) = text.rsplit_once('.').ok_or_else(parts)?;
        let (header, claims) = signed.split_once('.').ok_or_else(parts)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed("not base64url"));
        let header: HeaderIn =
            serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed("header is not JSON with alg"))?;
        let algorithm = match header.alg.as_str() {
            "EdDSA" => Algorithm::EdDsa,
            "ES256K" => Algorithm::Es256k,
            "ES256" => Algorithm::Es256,
            _ => return Err(JwtError::Algorithm),
        };
        if header.crit.is_some() {
            return Err(JwtError::Malformed("critical header parameters are not supported"));
        }
        let claims = serde_json::from_slice(&decode(claims)?)
            .map_err(|_| JwtError::Malformed("claims are not JSON of the expected types"))?;
        Ok(Self { signed, signature: decode(signature)?, algorithm, claims })
    }

    /// The algorithm it names.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The bytes that were signed, and the signature as received; for verifiers of other algorithms.
    #[must_use]
    pub fn signed_parts(&self) -> (&'a [u8], &[u8]) {
        (self.signed.as_bytes(), &self.signature)
    }

    /// `aud` (as `accepts` judges it), `lxm`, `exp` and `iat` against the relay's `now_s`, `jti` and `iss` present.
    ///
    /// # Errors
    /// The first of these that fails, in that order.
    pub fn check(&self, accepts: impl FnOnce(&str) -> bool, now_s: u64) -> Result<Checked, JwtError> {
        let claims = &self.claims;
        let audience = claims.aud.as_ref().and_then(|aud| aud.as_str()).filter(|aud| accepts(aud));
        let audience = audience.ok_or(JwtError::Audience)?.to_owned();
        if claims.lxm.as_ref().and_then(|lxm| lxm.as_str()) != Some(METHOD) {
            return Err(JwtError::Method);
        }
        let exp = claims.exp.ok_or(JwtError::Malformed("exp is missing"))?;
        let iat = claims.iat.ok_or(JwtError::Malformed("iat is missing"))?;
        let expires_s = exp.saturating_add(JWT_LEEWAY_S);
        if expires_s <= now_s {
            return Err(JwtError::Expired);
        }
        if iat.max(claims.nbf.unwrap_or(0)) > now_s.saturating_add(JWT_LEEWAY_S) {
            return Err(JwtError::NotYetValid);
        }
        match exp.checked_sub(iat) {
            Some(life) if life <= JWT_LIFETIME_S_MAX => {}
            _ => return Err(JwtError::Lifetime),
        }
        let jti = claims.jti.clone().filter(|jti| !jti.is_empty() && jti.len() <= JTI_BYTES_MAX);
        let jti = jti.ok_or(JwtError::Malformed("jti is missing, empty or too long"))?;
        let issuer = claims.iss.clone().filter(|iss| iss.starts_with("did:") && iss.len() <= DID_BYTES_MAX);
        let issuer = issuer.ok_or(JwtError::Malformed("iss is missing or not a DID"))?;
        Ok(Checked { issuer, audience, jti, expires_s })
    }

    /// Verifies an EdDSA signature by `key`, strictly (no small-order keys, canonical S).
    ///
    /// # Errors
    /// [`JwtError::Algorithm`] if the JWT names another algorithm, else [`JwtError::Signature`].
    pub fn verify_ed25519(&self, key: &[u8; 32]) -> Result<(), JwtError> {
        if self.algorithm != Algorithm::EdDsa {
            return Err(JwtError::Algorithm);
        }
        let key = VerifyingKey::from_bytes(key).map_err(|_| JwtError::Signature)?;
        let signature = Signature::from_slice(&self.signature).map_err(|_| JwtError::Signature)?;
        key.verify_strict(self.signed.as_bytes(), &signature).map_err(|_| JwtError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn relay() -> Audience {
        Audience::parse("relay.example:443").unwrap()
    }
    fn jwt() -> String {
        self_signed(&SigningKey::from_bytes(&[7; 32]), &relay(), NOW, &[9; 16])
    }
    fn check(text: &str, now_s: u64) -> Result<Checked, JwtError> {
        Unverified::parse(text)?.check(|aud| aud == relay().did_web(), now_s)
    }

    #[test]
    fn a_jwt_is_good_for_its_life_and_the_leeway_on_both_sides_and_not_a_second_longer() {
        let text = jwt();
        for now in [NOW - 5, NOW, NOW + 124] {
            assert!(check(&text, now).is_ok(), "{now}");
        }
        assert_eq!(check(&text, NOW - 6), Err(JwtError::NotYetValid));
        assert_eq!(check(&text, NOW + 125), Err(JwtError::Expired));
    }

    #[test]
    fn only_the_key_in_iss_verifies_and_any_changed_letter_fails() {
        let text = jwt();
        let parsed = Unverified::parse(&text).unwrap();
        let issuer = check(&text, NOW).unwrap().issuer;
        let Ok(DidKey::Ed25519(key)) = DidKey::parse(&issuer) else { panic!("not an Ed25519 did:key: {issuer}") };
        assert_eq!(parsed.verify_ed25519(&key), Ok(()));
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        assert_eq!(parsed.verify_ed25519(&other), Err(JwtError::Signature));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            let good = Unverified::parse(&changed).is_ok_and(|jwt| jwt.verify_ed25519(&key).is_ok());
            assert!(!good, "letter {at} may be changed");
        }
    }

    #[test]
    fn claims_are_refused_in_the_agreed_order() {
        let make = |header: &str, claims: &str| {
            format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims), "AA")
        };
        let aud = relay().did_web();
        let cases = [
            (make(r#"{"alg":"none"}"#, "{}"), JwtError::Algorithm),
            (make(HEADER, "{}"), JwtError::Audience),
            (make(HEADER, &format!(r#"{{"aud":["{aud}"]}}"#)), JwtError::Audience),
            (make(HEADER, &format!(r#"{{"aud":"{aud}"}}"#)), JwtError::Method),
            (make(HEADER, &format!(r#"{{"aud":"{aud}","lxm":"{METHOD}"}}"#)), JwtError::Malformed("exp is missing")),
            (
                make(HEADER, &format!(r#"{{"aud":"{aud}","lxm":"{METHOD}","iat":{NOW},"exp":{}}}"#, NOW + 121)),
                JwtError::Lifetime,
            ),
            (
                make(HEADER, &format!(r#"{{"aud":"{aud}","lxm":"{METHOD}","iat":{NOW},"exp":{}}}"#, NOW + 1)),
                JwtError::Malformed("jti is missing, empty or too long"),
            ),
            (make(HEADER, r#"{"aud":1,"aud":2}"#), JwtError::Malformed("claims are not JSON of the expected types")),
            ("a.b".to_owned(), JwtError::Malformed("not three parts")),
            ("a".repeat(JWT_BYTES_MAX + 1), JwtError::TooLarge),
        ];
        for (text, error) in cases {
            assert_eq!(check(&text, NOW), Err(error), "{text}");
        }
    }
}
