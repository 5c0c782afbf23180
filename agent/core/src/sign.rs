//! Signatures: what is signed is always `weft/v1/` ‖ context ‖ 0 ‖ scope (32) ‖ the bytes as they travel.
//!
//! Invariant: a signature made for one context or workspace verifies in no other, and keys of small order never verify
//! (`verify_strict`). Why: two of the protocol's objects must never be mistaken for one another, whatever their bytes.
//! Spec: docs/sealing.md#signatures.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::hash::PREFIX;
use crate::id::WorkspaceId;

/// Length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// A workspace's first op. Scope: zeros.
    Genesis,
    /// A device's certificate. Scope: zeros.
    Cert,
    /// A membership op.
    Op,
    /// A joiner's admission.
    Admit,
    /// A request to be enrolled as a device.
    Enrol,
    /// The header of an envelope.
    Envelope,
    /// A query outside an envelope.
    Query,
    /// A key packet's slot opened to something else than its op commits to.
    Nack,
    /// A notice to a removed device.
    Notice,
    /// A checkpoint.
    Checkpoint,
    /// A member's attestation of another identity.
    Attest,
    /// A room proof. Scope: zeros.
    Room,
    /// A connection's proof. Scope: zeros.
    Connect,
    /// A token request. Scope: zeros.
    Token,
}

impl Context {
    /// Its name in the signed bytes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Context::Genesis => "genesis",
            Context::Cert => "cert",
            Context::Op => "op",
            Context::Admit => "admit",
            Context::Enrol => "enrol",
            Context::Envelope => "envelope",
            Context::Query => "query",
            Context::Nack => "nack",
            Context::Notice => "notice",
            Context::Checkpoint => "checkpoint",
            Context::Attest => "attest",
            Context::Room => "room",
            Context::Connect => "connect",
            Context::Token => "token",
        }
    }

    fn scope(self, workspace: &WorkspaceId) -> [u8; 32] {
        match self {
            Context::Genesis | Context::Cert | Context::Room | Context::Connect | Context::Token => [0; 32],
            Context::Op
            | Context::Admit
            | Context::Enrol
            | Context::Envelope
            | Context::Query
            | Context::Nack
            | Context::Notice
            | Context::Checkpoint
            | Context::Attest => workspace.0,
        }
    }

    fn message(self, workspace: &WorkspaceId, parts: &[&[u8]]) -> Vec<u8> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut message = Vec::with_capacity(len + 64);
        message.extend_from_slice(PREFIX.as_bytes());
        message.extend_from_slice(self.name().as_bytes());
        message.push(0);
        message.extend_from_slice(&self.scope(workspace));
        for part in parts {
            message.extend_from_slice(part);
        }
        message
    }
}

/// The scope of what belongs to no workspace; contexts without scope sign zeros whatever is passed.
pub const NO_WORKSPACE: WorkspaceId = WorkspaceId([0; 32]);

/// A signature or a public key is not valid: whoever sent it is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct BadSignature;

/// Signs the parts, joined.
#[must_use]
pub fn sign(key: &SigningKey, context: Context, workspace: &WorkspaceId, parts: &[&[u8]]) -> [u8; SIGNATURE_LEN] {
    key.sign(&context.message(workspace, parts)).to_bytes()
}

/// Checks a signature over the parts, joined, strictly: canonical encodings only, no key or point of small order.
pub fn verify(
    key: &[u8; 32],
    context: Context,
    workspace: &WorkspaceId,
    parts: &[&[u8]],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<(), BadSignature> {
    let key = VerifyingKey::from_bytes(key).map_err(|_| BadSignature)?;
    let signature = Signature::from_bytes(signature);
    key.verify_strict(&context.message(workspace, parts), &signature).map_err(|_| BadSignature)
}

/// Whether these bytes are a usable Ed25519 public key: a canonical point that is not of small order.
#[must_use]
pub fn is_sound_key(key: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(key)
        .is_ok_and(|point| !point.is_weak() && point.to_edwards().compress().to_bytes() == *key)
}

/// Splits bytes into what was signed and the 64 bytes of signature at the end.
pub(crate) fn split_signature(bytes: &[u8]) -> Option<(&[u8], [u8; SIGNATURE_LEN])> {
    let (signed, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_LEN)?)?;
    Some((signed, signature.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signature holds for its key, context, workspace and bytes, and for nothing else.
    #[test]
    fn nothing_else_verifies() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let workspace = WorkspaceId([1; 32]);
        let signature = sign(&key, Context::Op, &workspace, &[b"ab", b"c"]);
        assert!(verify(&public, Context::Op, &workspace, &[b"abc"], &signature).is_ok());
        assert!(verify(&public, Context::Admit, &workspace, &[b"abc"], &signature).is_err());
        assert!(verify(&public, Context::Op, &WorkspaceId([2; 32]), &[b"abc"], &signature).is_err());
        assert!(verify(&public, Context::Op, &workspace, &[b"abd"], &signature).is_err());
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        assert!(verify(&other, Context::Op, &workspace, &[b"abc"], &signature).is_err());
        // Certificates hold in every workspace.
        let cert = sign(&key, Context::Cert, &workspace, &[b"x"]);
        assert!(verify(&public, Context::Cert, &NO_WORKSPACE, &[b"x"], &cert).is_ok());
    }

    /// The identity and other points of small order are no keys.
    #[test]
    fn small_order_is_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(!is_sound_key(&identity));
        assert!(!is_sound_key(&[0; 32]));
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(verify(&identity, Context::Op, &NO_WORKSPACE, &[b""], &signature).is_err());
        assert!(is_sound_key(&SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes()));
    }
}
