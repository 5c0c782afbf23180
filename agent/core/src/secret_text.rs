//! Secrets as texts that survive paper, mail and chat: scheme, then base64url(version ‖ CBOR) without padding.
//!
//! Invariant: what is wiped afterwards is all that was made on the way; a text that is too long is not looked at.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use weft_protocol::cbor::{self, DecodeError, Wire};
use zeroize::Zeroizing;

/// The version of every such text.
const VERSION: u8 = 1;

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TextError {
    /// Another scheme, too long, or not base64url.
    NotOne,
    /// Another version.
    Newer,
    /// The right shape outside, the wrong one inside.
    Damaged(DecodeError),
}

/// The text.
pub(crate) fn to_text<T: Wire>(scheme: &str, body: &T) -> String {
    let mut bytes = Zeroizing::new(vec![VERSION]);
    bytes.extend_from_slice(&Zeroizing::new(cbor::to_bytes(body)));
    format!("{scheme}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

/// What a text of at most `bytes_max` says; white space around it is forgiven, inside it is not.
pub(crate) fn from_text<T: Wire>(scheme: &str, bytes_max: usize, text: &str) -> Result<T, TextError> {
    let text = text.trim();
    if text.len() > bytes_max {
        return Err(TextError::NotOne);
    }
    let encoded = text.strip_prefix(scheme).ok_or(TextError::NotOne)?;
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TextError::NotOne)?);
    match bytes.split_first() {
        Some((&VERSION, body)) => cbor::from_bytes(body).map_err(TextError::Damaged),
        Some(_) => Err(TextError::Newer),
        None => Err(TextError::NotOne),
    }
}
