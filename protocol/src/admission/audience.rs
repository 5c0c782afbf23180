//! Which relay is meant: the host and port that the client dialled.
//!
//! Invariant: one relay address has one audience text (lower case, explicit port, no user, path or trailing dot), and
//! it is what the client dialled, never what the relay claims. Why: a relay that forwards our proofs to another relay
//! must fail there. Spec: docs/protocol.md#audience.

use core::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::limits::AUDIENCE_BYTES_MAX;

/// `host:port`, normalised; IPv6 in brackets, in its RFC 5952 form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audience(String);

/// Why a text is no audience.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AudienceError {
    /// Neither `ws://`, `wss://`, `http://` nor `https://`.
    #[error("a relay address begins with ws://, wss://, http:// or https://")]
    Scheme,
    /// Name and password in an address would end up in logs.
    #[error("a relay address holds no user name or password")]
    UserInfo,
    /// Not a DNS name or IP address.
    #[error("not a host name or IP address (international names are written in their xn-- form)")]
    Host,
    /// Not 1 to 65,535.
    #[error("not a port between 1 and 65535")]
    Port,
    /// Valid, but not written in the one normal form.
    #[error("not in normal form: lower-case host:port")]
    NotNormal,
}

impl Audience {
    /// Parses the normal form and nothing else; for what arrives from the network.
    ///
    /// # Errors
    /// [`AudienceError`], also for what only needed normalising.
    pub fn parse(text: &str) -> Result<Self, AudienceError> {
        let parsed = Self::normalise(text, None)?;
        if parsed.0 == text { Ok(parsed) } else { Err(AudienceError::NotNormal) }
    }

    /// From a relay's URL, as a person writes it: default ports filled in (80 for ws and http, 443 for wss and https),
    /// letters lowered, path and query ignored.
    ///
    /// # Errors
    /// [`AudienceError`], saying which part is wrong.
    pub fn from_url(url: &str) -> Result<Self, AudienceError> {
        let (scheme, rest) = url.trim().split_once("://").ok_or(AudienceError::Scheme)?;
        let port = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => 80,
            "wss" | "https" => 443,
            _ => return Err(AudienceError::Scheme),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(AudienceError::UserInfo);
        }
        Self::normalise(authority, Some(port))
    }

    /// Of an address: IPv4-mapped IPv6 counts as IPv4, scope ids are dropped.
    #[must_use]
    pub fn from_addr(addr: SocketAddr) -> Self {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => Self(format!("{ip}:{}", addr.port())),
            IpAddr::V6(ip) => Self(format!("[{ip}]:{}", addr.port())),
        }
    }

    fn normalise(text: &str, default_port: Option<u16>) -> Result<Self, AudienceError> {
        if text.len() > AUDIENCE_BYTES_MAX {
            return Err(AudienceError::Host);
        }
        let (host, port) = split(text)?;
        let port = match (port, default_port) {
            (Some(port), _) => number(port)?,
            (None, Some(port)) => port,
            (None, None) => return Err(AudienceError::Port),
        };
        match host {
            Host::V6(ip) => Ok(Self::from_addr(SocketAddr::new(IpAddr::V6(ip), port))),
            Host::Name(name) => Ok(Self(format!("{}:{port}", dns_name(name)?))),
        }
    }

    /// `host:port`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host without port; IPv6 keeps its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.rsplit_once(':').map_or(self.as_str(), |(host, _)| host)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
    }

    /// Whether the host names this machine only: `localhost`, 127.0.0.0/8 or `[::1]`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The audience as a `did:web`: the port as `%3A`, left out if it is 443 (where did:web looks by itself), and the
    /// brackets and colons of IPv6 percent-encoded.
    #[must_use]
    pub fn did_web(&self) -> String {
        let host = self.host().replace(':', "%3A").replace('[', "%5B").replace(']', "%5D");
        match self.port() {
            443 => format!("did:web:{host}"),
            port => format!("did:web:{host}%3A{port}"),
        }
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

enum Host<'a> {
    V6(Ipv6Addr),
    Name(&'a str),
}

fn split(text: &str) -> Result<(Host<'_>, Option<&str>), AudienceError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']').ok_or(AudienceError::Host)?;
        let ip = ip.parse().map_err(|_| AudienceError::Host)?;
        return match port.strip_prefix(':') {
            Some(port) => Ok((Host::V6(ip), Some(port))),
            None if port.is_empty() => Ok((Host::V6(ip), None)),
            None => Err(AudienceError::Port),
        };
    }
    match text.split_once(':') {
        Some((name, port)) => Ok((Host::Name(name), Some(port))),
        None => Ok((Host::Name(text), None)),
    }
}

fn number(port: &str) -> Result<u16, AudienceError> {
    if port.is_empty() || port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AudienceError::Port);
    }
    port.parse().ok().filter(|&port| port != 0).ok_or(AudienceError::Port)
}

/// A DNS name or dotted IPv4 address in lower case, without a trailing dot.
fn dns_name(name: &str) -> Result<String, AudienceError> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(AudienceError::Host);
    }
    // A name that ends in a number is an IPv4 address (WHATWG URL); then it has to be a plain one.
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) && name.parse::<std::net::Ipv4Addr>().is_err() {
        return Err(AudienceError::Host);
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_one_relay_give_one_audience() {
        for (url, audience) in [
            ("wss://Relay.Example", "relay.example:443"),
            ("wss://relay.example.:443/v1/connect?x", "relay.example:443"),
            ("ws://relay.example", "relay.example:80"),
            ("http://127.0.0.1:7000/", "127.0.0.1:7000"),
            ("ws://[0:0::1]:7000", "[::1]:7000"),
            ("ws://[::ffff:10.0.0.1]:7000", "10.0.0.1:7000"),
        ] {
            assert_eq!(Audience::from_url(url).map(|a| a.to_string()), Ok(audience.to_owned()), "{url}");
            assert_eq!(Audience::parse(audience).map(|a| a.to_string()), Ok(audience.to_owned()));
        }
    }

    #[test]
    fn what_is_no_relay_address_is_refused_by_its_part() {
        for (url, error) in [
            ("relay.example:443", AudienceError::Scheme),
            ("ftp://relay.example", AudienceError::Scheme),
            ("wss://user:pw@relay.example", AudienceError::UserInfo),
            ("wss://", AudienceError::Host),
            ("wss://a..b", AudienceError::Host),
            ("wss://-a", AudienceError::Host),
            ("wss://1.2.3", AudienceError::Host),
            ("wss://ü.example", AudienceError::Host),
            ("wss://[::1", AudienceError::Host),
            ("wss://a:0", AudienceError::Port),
            ("wss://a:+1", AudienceError::Port),
            ("wss://a:65536", AudienceError::Port),
            ("wss://[::1]x", AudienceError::Port),
        ] {
            assert_eq!(Audience::from_url(url), Err(error), "{url}");
        }
        assert_eq!(Audience::parse("Relay.example:443"), Err(AudienceError::NotNormal));
        assert_eq!(Audience::parse("relay.example"), Err(AudienceError::Port));
    }

    #[test]
    fn the_did_has_the_port_encoded() {
        let did = |text| Audience::parse(text).map(|a| a.did_web()).unwrap();
        assert_eq!(did("relay.example:443"), "did:web:relay.example");
        assert_eq!(did("localhost:7000"), "did:web:localhost%3A7000");
        assert_eq!(did("[::1]:7000"), "did:web:%5B%3A%3A1%5D%3A7000");
    }
}
