//! From a DID to the key that must have signed.
//!
//! One file a method. Methods that need the network belong behind the same call: [`resolve`] is async, and is reached only
//! after the per-address limit. Spec: docs/protocol.md#did-key.

mod key;

use weft_protocol::admission::jwt::Unverified;
use weft_protocol::code::Code;

/// A public key that may sign for a DID.
pub(crate) use self::key::SigningKeyOf;

/// The key of a DID.
///
/// # Errors
/// [`Code::UnknownDid`] for what does not exist or a method this relay does not resolve.
pub(crate) fn resolve(did: &str) -> Result<SigningKeyOf, Code> {
    SigningKeyOf::from_did_key(did)
}

/// Resolves the issuer and verifies the JWT with its key.
pub(crate) fn verify(jwt: &Unverified<'_>, issuer: &str) -> Result<(), Code> {
    resolve(issuer)?.verify(jwt)
}
