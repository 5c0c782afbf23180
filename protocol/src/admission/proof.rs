//! Signatures made for admission: of the token request, of the connection, of each room.
//!
//! Invariant: what is signed is `weft/v1/` ‖ context ‖ 0 ‖ 32 zero bytes ‖ CBOR array, so that a signature for one context
//! is never one for another; verification is strict (RFC 8032, no small-order keys, canonical S).
//! Spec: docs/protocol.md#proofs.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::Audience;
use crate::cbor::Writer;
use crate::id::{ConnectionKey, RelayDevice, RoomId};

/// A signature or room key that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Not a signature by that key over what was expected.
    #[error("the signature does not verify")]
    Signature,
    /// The room id is not the hash of the room key.
    #[error("the room id is not the hash of the room key")]
    RoomKey,
}

/// H(context, parts): BLAKE3 in key derivation mode with context `weft/v1/`context.
#[must_use]
pub fn hash(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(&format!("weft/v1/{context}"));
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// The id of the room whose public key this is.
#[must_use]
pub fn room_id(room_key: &[u8; 32]) -> RoomId {
    RoomId(hash("room-id", &[room_key]))
}

/// What is signed for `context`.
fn message(context: &str, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    let mut bytes = format!("weft/v1/{context}").into_bytes();
    bytes.push(0);
    bytes.extend_from_slice(&[0; 32]);
    bytes.extend_from_slice(&writer.into_bytes());
    bytes
}

fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), ProofError> {
    let key = VerifyingKey::from_bytes(key).map_err(|_| ProofError::Signature)?;
    key.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| ProofError::Signature)
}

fn token_message(audience: &Audience, jwt: &str, connection: &ConnectionKey, device: &RelayDevice) -> Vec<u8> {
    message("token", |w| {
        let jwt = blake3::hash(jwt.as_bytes());
        w.array(4).text(audience.as_str()).bytes(jwt.as_bytes()).item(connection).item(device);
    })
}

fn connect_message(audience: &Audience, nonce: &[u8; 32], token: &str) -> Vec<u8> {
    message("connect", |w| {
        let token = blake3::hash(token.as_bytes());
        w.array(3).text(audience.as_str()).bytes(nonce).bytes(token.as_bytes());
    })
}

fn room_message(audience: &Audience, nonce: &[u8; 32], connection: &ConnectionKey, room: &RoomId) -> Vec<u8> {
    message("room", |w| {
        w.array(4).text(audience.as_str()).bytes(nonce).item(connection).item(room);
    })
}

/// Signs a token request with the connection's key: over [audience, BLAKE3(JWT), connection key, device].
#[must_use]
pub fn sign_token_request(key: &SigningKey, audience: &Audience, jwt: &str, device: &RelayDevice) -> [u8; 64] {
    let connection = ConnectionKey(key.verifying_key().to_bytes());
    key.sign(&token_message(audience, jwt, &connection, device)).to_bytes()
}

/// Checks what [`sign_token_request`] made.
///
/// # Errors
/// [`ProofError::Signature`].
pub fn verify_token_request(
    audience: &Audience,
    jwt: &str,
    connection: &ConnectionKey,
    device: &RelayDevice,
    signature: &[u8; 64],
) -> Result<(), ProofError> {
    verify(&connection.0, &token_message(audience, jwt, connection, device), signature)
}

/// Header of a token request that shows knowledge of a relay's shared secret.
pub const AUTH_HEADER: &str = "weft-auth";

fn auth_hash(secret: &str, audience: &Audience, jwt: &str) -> blake3::Hash {
    let (secret, jwt) = (blake3::hash(secret.as_bytes()), blake3::hash(jwt.as_bytes()));
    hash("relay-auth", &[secret.as_bytes(), jwt.as_bytes(), audience.as_str().as_bytes()]).into()
}

/// The value of [`AUTH_HEADER`]: the secret itself never travels, and what does is good for one JWT at one relay.
#[must_use]
pub fn auth_proof(secret: &str, audience: &Audience, jwt: &str) -> String {
    auth_hash(secret, audience, jwt).to_hex().to_string()
}

/// Checks what [`auth_proof`] made, in constant time.
#[must_use]
pub fn verify_auth_proof(secret: &str, audience: &Audience, jwt: &str, proof: &str) -> bool {
    blake3::Hash::from_hex(proof).is_ok_and(|proof| proof == auth_hash(secret, audience, jwt))
}

/// Answers the relay's challenge with the connection's key: over [audience, nonce, BLAKE3(token)].
#[must_use]
pub fn sign_connect(key: &SigningKey, audience: &Audience, nonce: &[u8; 32], token: &str) -> [u8; 64] {
    key.sign(&connect_message(audience, nonce, token)).to_bytes()
}

/// Checks what [`sign_connect`] made.
///
/// # Errors
/// [`ProofError::Signature`].
pub fn verify_connect(
    connection: &ConnectionKey,
    audience: &Audience,
    nonce: &[u8; 32],
    token: &str,
    signature: &[u8; 64],
) -> Result<(), ProofError> {
    verify(&connection.0, &connect_message(audience, nonce, token), signature)
}

/// Proves that the connection may enter a room, with the room's key: over [audience, nonce, connection key, room id].
#[must_use]
pub fn sign_room(room_key: &SigningKey, audience: &Audience, nonce: &[u8; 32], connection: &ConnectionKey) -> [u8; 64] {
    let room = room_id(&room_key.verifying_key().to_bytes());
    room_key.sign(&room_message(audience, nonce, connection, &room)).to_bytes()
}

/// Checks what [`sign_room`] made, and that `room` is the hash of `room_key`.
///
/// # Errors
/// [`ProofError::RoomKey`] or [`ProofError::Signature`].
pub fn verify_room(
    room: &RoomId,
    room_key: &[u8; 32],
    audience: &Audience,
    nonce: &[u8; 32],
    connection: &ConnectionKey,
    proof: &[u8; 64],
) -> Result<(), ProofError> {
    if room_id(room_key) != *room {
        return Err(ProofError::RoomKey);
    }
    verify(room_key, &room_message(audience, nonce, connection, room), proof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_secret_is_shown_for_one_jwt_at_one_relay() {
        let relay = Audience::parse("relay.example:443").unwrap();
        let proof = auth_proof("secret", &relay, "jwt");
        assert!(!proof.contains("secret") && verify_auth_proof("secret", &relay, "jwt", &proof));
        let other = Audience::parse("other.example:443").unwrap();
        assert!(!verify_auth_proof("secret", &other, "jwt", &proof));
        assert!(!verify_auth_proof("secret", &relay, "another", &proof));
        assert!(!verify_auth_proof("Secret", &relay, "jwt", &proof));
        assert!(!verify_auth_proof("secret", &relay, "jwt", "secret"));
    }

    #[test]
    fn a_proof_holds_for_its_audience_nonce_and_connection_only() {
        let room_key = SigningKey::from_bytes(&[1; 32]);
        let public = room_key.verifying_key().to_bytes();
        let room = room_id(&public);
        let (here, there) = (Audience::parse("a:1").unwrap(), Audience::parse("b:1").unwrap());
        let (mine, theirs) = (ConnectionKey([2; 32]), ConnectionKey([3; 32]));
        let proof = sign_room(&room_key, &here, &[4; 32], &mine);
        assert_eq!(verify_room(&room, &public, &here, &[4; 32], &mine, &proof), Ok(()));
        assert!(verify_room(&room, &public, &there, &[4; 32], &mine, &proof).is_err());
        assert!(verify_room(&room, &public, &here, &[5; 32], &mine, &proof).is_err());
        assert!(verify_room(&room, &public, &here, &[4; 32], &theirs, &proof).is_err());
        let other = RoomId([0; 32]);
        assert_eq!(verify_room(&other, &public, &here, &[4; 32], &mine, &proof), Err(ProofError::RoomKey));
    }

    #[test]
    fn a_connect_proof_is_no_token_request() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let connection = ConnectionKey(key.verifying_key().to_bytes());
        let audience = Audience::parse("a:1").unwrap();
        let proof = sign_connect(&key, &audience, &[4; 32], "t");
        assert_eq!(verify_connect(&connection, &audience, &[4; 32], "t", &proof), Ok(()));
        assert!(verify_connect(&connection, &audience, &[4; 32], "u", &proof).is_err());
        assert!(verify_token_request(&audience, "t", &connection, &RelayDevice([4; 16]), &proof).is_err());
        let asked = sign_token_request(&key, &audience, "jwt", &RelayDevice([4; 16]));
        assert_eq!(verify_token_request(&audience, "jwt", &connection, &RelayDevice([4; 16]), &asked), Ok(()));
    }
}
