//! From a DID to the key that must have signed.
//!
//! did:key needs nobody; did:web and did:plc have their documents fetched ([`fetch`], which guards whom it connects to) and
//! kept ([`cache`]). Invariant: nothing here is reached before the limit of the sender's address.
//! Spec: docs/protocol.md#dids.

mod address;
mod cache;
mod client;
mod document;
mod fetch;
mod key;

use weft_protocol::admission::jwt::Unverified;
use weft_protocol::code::Code;
use weft_relay_core::shares::Network;

pub use self::address::is_global;
pub use self::cache::CacheTimes;
pub(crate) use self::cache::{CacheFigures, Resolver};
pub use self::client::{DidAnswer, DidClient, DidClientError};
pub use self::fetch::{Lookup, LookupFuture, SystemLookup};
use self::key::SigningKeyOf;

/// The DID of an issuer, without the key it may name.
pub(crate) fn without_fragment(issuer: &str) -> &str {
    issuer.split('#').next().unwrap_or_default()
}

/// Whether a did:web or did:plc is of a form that can be looked up.
pub(crate) fn is_resolvable(did: &str) -> bool {
    fetch::Target::of_did_web(did, false).or_else(|| fetch::Target::of_did_plc(did, "https://plc.directory")).is_some()
}

/// Resolves the issuer and verifies the JWT with one of its keys.
///
/// A wrong signature may mean that the key was rotated, so the document is fetched again, at most once in a while.
pub(crate) async fn verify(
    resolver: &Resolver,
    jwt: &Unverified<'_>,
    issuer: &str,
    network: Network,
) -> Result<(), Code> {
    let (did, fragment) = match issuer.split_once('#') {
        Some((did, fragment)) => (did, Some(fragment)),
        None => (issuer, None),
    };
    if did.starts_with("did:key:") {
        return SigningKeyOf::from_did_key(did)?.verify(jwt);
    }
    let kept = resolver.get(did, network).await?;
    match kept.document.verify(jwt, fragment) {
        Err(code) if !kept.fetched_now => match resolver.refresh(did, network).await {
            Some(document) => document.verify(jwt, fragment),
            None => Err(code),
        },
        result => result,
    }
}
