//! Which audiences a relay answers to.
//!
//! Invariant: an audience is accepted only if a client that dialled it could have meant this process, so that a proof made
//! for another relay fails here. Spec: docs/protocol.md#audience.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use weft_protocol::admission::Audience;

#[derive(Debug, Clone)]
pub(crate) struct Audiences {
    listed: BTreeSet<Audience>,
    local_addresses: bool,
}

impl Audiences {
    pub(crate) fn new(listed: impl IntoIterator<Item = Audience>, local_addresses: bool) -> Self {
        Self { listed: listed.into_iter().collect(), local_addresses }
    }

    /// One that is configured.
    pub(crate) fn first(&self) -> Option<&Audience> {
        self.listed.first()
    }

    /// `local` is the address the connection was accepted on.
    pub(crate) fn accepts(&self, audience: &Audience, local: SocketAddr) -> bool {
        if self.listed.contains(audience) {
            return true;
        }
        let own = *audience == Audience::from_addr(local);
        if self.local_addresses && (own || is_of_this_machine(audience, local.port())) {
            return true;
        }
        // A loopback name means this machine whatever port a forwarder in between listens on.
        self.listed.is_empty() && (own || audience.is_loopback())
    }
}

/// Only an address of this machine can be bound; asking the system is simpler than listing interfaces, and never stale.
fn is_of_this_machine(audience: &Audience, port: u16) -> bool {
    let host = audience.host().trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
    audience.port() == port && ip.is_some_and(|ip| UdpSocket::bind((ip, 0)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audience(text: &str) -> Audience {
        Audience::parse(text).unwrap()
    }

    #[test]
    fn without_a_public_url_only_loopback_and_the_accepting_address_are_ours() {
        let ours = Audiences::new([], false);
        let local = "10.0.0.5:7000".parse().unwrap();
        for (text, accepted) in [
            ("localhost:7000", true),
            ("127.0.0.1:9999", true),
            ("[::1]:7000", true),
            ("10.0.0.5:7000", true),
            ("10.0.0.5:7001", false),
            ("10.0.0.6:7000", false),
            ("relay.example:443", false),
        ] {
            assert_eq!(ours.accepts(&audience(text), local), accepted, "{text}");
        }
    }

    #[test]
    fn with_public_urls_nothing_else_is_ours_unless_the_lan_is_served() {
        let local = "127.0.0.1:7000".parse().unwrap();
        let ours = Audiences::new([audience("relay.example:443")], false);
        assert!(ours.accepts(&audience("relay.example:443"), local));
        assert!(!ours.accepts(&audience("localhost:7000"), local));
        let lan = Audiences::new([], true);
        assert!(lan.accepts(&audience("127.0.0.2:7000"), local));
        // TEST-NET-1 belongs to nobody's interface.
        assert!(!lan.accepts(&audience("192.0.2.1:7000"), local));
        assert!(!lan.accepts(&audience("0.0.0.0:7000"), local));
    }
}
