//! `Sec-WebSocket-Protocol: weft.v1, weft.token.<token>`: how version and token travel in the upgrade.
//!
//! A header that browsers can set, and that no proxy writes into its access log as it does with query strings. The relay
//! echoes `weft.v1` only. Spec: docs/protocol.md#connect, RFC 6455 section 4.1 (values are RFC 2616 tokens).

use crate::code::Code;
use crate::limits::TOKEN_BYTES_MAX;

/// The version of the protocol, as offered and echoed.
pub const VERSION: &str = "weft.v1";

/// In front of the token.
pub const TOKEN_PREFIX: &str = "weft.token.";

/// Why an offer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubprotocolError {
    /// `weft.v1` is not among what the client offers.
    #[error("no version in common: this relay speaks {VERSION}; upgrade weft or the relay")]
    Version,
    /// No token, several, an over-long one, or one with letters that no token has.
    #[error(
        "exactly one {TOKEN_PREFIX}<token> of at most {TOKEN_BYTES_MAX} bytes is needed: ask POST /v1/token for one"
    )]
    Token,
}

impl SubprotocolError {
    /// What a relay answers to it.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            SubprotocolError::Version => Code::UnsupportedVersion,
            SubprotocolError::Token => Code::BadToken,
        }
    }
}

/// The header's value for a token.
#[must_use]
pub fn offer(token: &str) -> String {
    format!("{VERSION}, {TOKEN_PREFIX}{token}")
}

/// The token in a header's value; several header lines are given joined by commas.
///
/// # Errors
/// [`SubprotocolError`], the version first.
pub fn parse(value: &str) -> Result<&str, SubprotocolError> {
    let offered = || value.split(',').map(|part| part.trim_matches([' ', '\t']));
    if !offered().any(|part| part == VERSION) {
        return Err(SubprotocolError::Version);
    }
    let mut tokens = offered().filter_map(|part| part.strip_prefix(TOKEN_PREFIX));
    match (tokens.next(), tokens.next()) {
        (Some(token), None) if is_token(token) => Ok(token),
        _ => Err(SubprotocolError::Token),
    }
}

/// RFC 2616: visible ASCII without separators.
fn is_token(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b);
    (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_one_token_are_needed() {
        assert_eq!(parse(&offer("ey.J0.x-_")), Ok("ey.J0.x-_"));
        assert_eq!(parse("weft.token.a,weft.v1,other"), Ok("a"));
        for version in ["", "weft.v2, weft.token.a", "weft.token.a", "WEFT.V1, weft.token.a"] {
            assert_eq!(parse(version), Err(SubprotocolError::Version), "{version}");
        }
        let long = offer(&"a".repeat(TOKEN_BYTES_MAX + 1));
        for token in
            ["weft.v1", "weft.v1, weft.token.", "weft.v1, weft.token.a, weft.token.b", "weft.v1, weft.token.a b", &long]
        {
            assert_eq!(parse(token), Err(SubprotocolError::Token), "{token}");
        }
    }
}
