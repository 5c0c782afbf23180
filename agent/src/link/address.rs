//! A relay's URL, taken apart once.

use weft_protocol::admission::Audience;
use weft_protocol::admission::audience::AudienceError;

/// Where to dial, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// As people wrote it, without what follows host and port.
    pub(crate) url: String,
    pub(crate) tls: bool,
    /// Lower-case host and port, as dialled.
    pub(crate) audience: Audience,
}

impl Address {
    /// From `ws://`, `wss://`, `http://` or `https://`.
    pub(crate) fn parse(url: &str) -> Result<Address, AudienceError> {
        let audience = Audience::from_url(url)?;
        let scheme = url.trim().split("://").next().unwrap_or_default().to_ascii_lowercase();
        let tls = matches!(scheme.as_str(), "wss" | "https");
        let url = format!("{}://{audience}", if tls { "wss" } else { "ws" });
        Ok(Address { url, tls, audience })
    }
    /// The host without brackets, for resolving and for TLS.
    pub(crate) fn host(&self) -> &str {
        self.audience.host().trim_start_matches('[').trim_end_matches(']')
    }
    pub(crate) fn port(&self) -> u16 {
        self.audience.port()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Default ports are filled in, letters lowered, IPv6 understood; other schemes are refused.
    #[test]
    fn urls_are_normalised() {
        let address = Address::parse("wss://Relay.Example.org/x").unwrap();
        assert_eq!((address.url.as_str(), address.port()), ("wss://relay.example.org:443", 443));
        let address = Address::parse("ws://[::1]:9000").unwrap();
        assert_eq!((address.host(), address.tls), ("::1", false));
        assert!(Address::parse("ftp://x").is_err());
    }
}
