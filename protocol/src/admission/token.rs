//! The HTTP exchange that trades a JWT for a relay token: `POST /v1/token`.
//!
//! Bodies are JSON, keys and signatures in hexadecimal. Requests are parsed strictly; answers may carry more than this
//! build knows. Spec: docs/protocol.md#token.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use super::proof::{ProofError, sign_token_request, verify_token_request};
use super::{Audience, jwt};
use crate::code::Code;
use crate::id::{ConnectionKey, RelayDevice, unhex};
use crate::limits::TOKEN_REQUEST_BYTES_MAX;

/// Path of the token request.
pub const TOKEN_PATH: &str = "/v1/token";
/// Path of the WebSocket upgrade.
pub const CONNECT_PATH: &str = "/v1/connect";

/// Body of a token request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The audience that was dialled.
    pub audience: Audience,
    /// The key the token will be bound to.
    pub connection: ConnectionKey,
    /// The device as this relay shall know it.
    pub device: RelayDevice,
    /// By the connection key, see [`sign_token_request`].
    pub signature: [u8; 64],
}

/// A token request that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed token request: {0}")]
pub struct RequestError(&'static str);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestJson {
    audience: String,
    connection: String,
    device: String,
    signature: String,
}

impl TokenRequest {
    /// A signed request and the JWT that goes with it (`Authorization: Bearer <JWT>`).
    ///
    /// `did_key` is the key of the `did:key`, `connection_key` fresh for this connection, `now_s` Unix seconds (corrected
    /// by the relay's time after a time error), `jti` fresh randomness.
    #[must_use]
    pub fn self_signed(
        did_key: &SigningKey,
        connection_key: &SigningKey,
        audience: &Audience,
        device: RelayDevice,
        now_s: u64,
        jti: &[u8; 16],
    ) -> (Self, String) {
        let jwt = jwt::self_signed(did_key, audience, now_s, jti);
        let signature = sign_token_request(connection_key, audience, &jwt, &device);
        let connection = ConnectionKey(connection_key.verifying_key().to_bytes());
        (Self { audience: audience.clone(), connection, device, signature }, jwt)
    }

    /// The body.
    #[must_use]
    pub fn to_json(&self) -> String {
        let json = RequestJson {
            audience: self.audience.to_string(),
            connection: self.connection.to_string(),
            device: self.device.to_string(),
            signature: self.signature.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        // Strings in a struct: serialising them to memory has no way to fail.
        serde_json::to_string(&json).unwrap_or_default()
    }

    /// Parses a body.
    ///
    /// # Errors
    /// [`RequestError`], naming the field.
    pub fn from_json(body: &[u8]) -> Result<Self, RequestError> {
        if body.len() > TOKEN_REQUEST_BYTES_MAX {
            return Err(RequestError("too long"));
        }
        let json: RequestJson = serde_json::from_slice(body)
            .map_err(|_| RequestError("not a JSON object of audience, connection, device and signature"))?;
        Ok(Self {
            audience: Audience::parse(&json.audience).map_err(|_| RequestError("audience"))?,
            connection: ConnectionKey::from_hex(&json.connection).ok_or(RequestError("connection"))?,
            device: RelayDevice::from_hex(&json.device).ok_or(RequestError("device"))?,
            signature: unhex(&json.signature).ok_or(RequestError("signature"))?,
        })
    }

    /// Checks the connection key's signature over this request and the JWT it came with.
    ///
    /// # Errors
    /// [`ProofError::Signature`].
    pub fn verify(&self, jwt: &str) -> Result<(), ProofError> {
        verify_token_request(&self.audience, jwt, &self.connection, &self.device, &self.signature)
    }
}

/// Answer of a token request that was granted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The token; opaque to the client.
    pub token: String,
    /// Milliseconds from now in which it can be used.
    pub expires_ms: u64,
    /// The relay's Unix time in milliseconds.
    pub relay_time_ms: u64,
}

impl core::fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TokenAnswer")
            .field("expires_ms", &self.expires_ms)
            .field("relay_time_ms", &self.relay_time_ms)
            .finish_non_exhaustive()
    }
}

/// Body of every refusal over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// Stable name of the [`Code`].
    pub code: String,
    /// A sentence for people that says what to do.
    pub message: String,
    /// The relay's Unix time in milliseconds: after `expired` or `not-yet-valid` the client signs once more by it.
    pub relay_time_ms: u64,
    /// When to try again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorAnswer {
    /// The code; a name that this build does not know gives `Unknown(0)`.
    #[must_use]
    pub fn code(&self) -> Code {
        Code::from_name(&self.code).unwrap_or(Code::Unknown(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_json_and_holds_for_its_jwt_only() {
        let (did, connection) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let audience = Audience::parse("relay.example:443").unwrap();
        let (request, jwt) =
            TokenRequest::self_signed(&did, &connection, &audience, RelayDevice([3; 16]), 1_800_000_000, &[4; 16]);
        let again = TokenRequest::from_json(request.to_json().as_bytes()).unwrap();
        assert_eq!(again, request);
        assert_eq!(again.verify(&jwt), Ok(()));
        assert_eq!(again.verify("other"), Err(ProofError::Signature));
        assert!(request.to_json().len() < TOKEN_REQUEST_BYTES_MAX);
    }

    #[test]
    fn malformed_requests_are_refused() {
        for body in ["", "{}", "[]", r#"{"audience":"A:1","connection":"","device":"","signature":""}"#] {
            assert!(TokenRequest::from_json(body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(TokenRequest::from_json(&[b' '; 2000]), Err(RequestError("too long")));
    }
}
