//! Which address a request really comes from, when a proxy is in front.
//!
//! Invariant: a header is believed only as far as trusted proxies wrote it: read from its right end, where the nearest
//! proxy appended, the first address that is not a trusted proxy is the client. Anyone can write the rest, so the rest is
//! neither decoded nor judged. Where a trusted proxy wrote something that is no address, the request is refused: under the
//! proxy's own address no block and no limit would meet the client.
//! Spec: docs/operating.md#tls.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;
use weft_protocol::code::Code;

use crate::admit::Refusal;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Whether `ip` is one of the proxies.
pub(crate) fn is_trusted(trusted: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|network| network.contains(&ip))
}

/// The client's address; `remote` is who connected.
///
/// Without the header a proxy speaks for itself, as when it looks whether the relay is there.
///
/// # Errors
/// A trusted proxy wrote something that is no address.
pub(crate) fn client(trusted: &[IpNet], remote: IpAddr, headers: &HeaderMap) -> Result<IpAddr, Refusal> {
    let mut client = remote.to_canonical();
    let lines: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).iter().map(|value| value.as_bytes()).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(|&byte| byte == b',')) {
        if !is_trusted(trusted, client) {
            return Ok(client);
        }
        client = address(hop).ok_or_else(|| {
            let message = "the proxy in front of this relay does not say which address this request is from: its \
                           operator has to have it append the client's address to X-Forwarded-For";
            Refusal::new(Code::Malformed, message)
        })?;
    }
    Ok(client)
}

/// One entry: an address, which some proxies write with a port behind it, or IPv6 in brackets.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()))?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]
    }

    /// Who the client is taken for; `None` if the request is refused.
    fn found(remote: &str, lines: &[&[u8]]) -> Option<IpAddr> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        client(&trusted(), remote.parse().unwrap(), &headers).ok()
    }

    #[test]
    fn only_what_trusted_proxies_appended_is_believed() {
        for (remote, header, expected) in [
            ("192.0.2.1", "1.1.1.1", Some("192.0.2.1")),
            ("192.0.2.1", "nonsense", Some("192.0.2.1")),
            ("10.0.0.1", "1.1.1.1", Some("1.1.1.1")),
            ("::ffff:10.0.0.1", "1.1.1.1", Some("1.1.1.1")),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1", Some("1.1.1.1")),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2", Some("1.1.1.1")),
            ("10.0.0.1", "nonsense, 1.1.1.1", Some("1.1.1.1")),
            ("fd00::1", "2001:db8::1", Some("2001:db8::1")),
            ("10.0.0.1", "::ffff:1.1.1.1", Some("1.1.1.1")),
            // As some proxies write it.
            ("10.0.0.1", "1.1.1.1:4711", Some("1.1.1.1")),
            ("10.0.0.1", "[2001:db8::1]", Some("2001:db8::1")),
            ("10.0.0.1", "[2001:db8::1]:4711", Some("2001:db8::1")),
            // All of them proxies: the first is as far as can be seen.
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", Some("10.0.0.3")),
            // What the nearest proxy wrote says nothing.
            ("10.0.0.1", "unknown", None),
            ("10.0.0.1", "", None),
            ("10.0.0.1", "1.1.1.1,", None),
            ("10.0.0.1", "nonsense, 10.0.0.2", None),
        ] {
            let expected = expected.map(|ip| ip.parse::<IpAddr>().unwrap());
            assert_eq!(found(remote, &[header.as_bytes()]), expected, "{remote} {header}");
        }
        let (one, two) = ("1.1.1.1".parse().ok(), "10.0.0.1".parse().ok());
        assert_eq!(found("10.0.0.1", &[b"6.6.6.6", b"1.1.1.1"]), one);
        assert_eq!(found("10.0.0.1", &[]), two);
    }

    proptest! {
        /// Whatever bytes a client sends, in however many lines: what its proxy appended is who it is.
        #[test]
        fn no_byte_of_the_client_hides_it(
            lines in prop::collection::vec(prop::collection::vec(prop::sample::select(header_bytes()), 0..40), 0..4),
            own_line in any::<bool>(),
        ) {
            let mut lines = lines;
            match lines.last_mut().filter(|_| !own_line) {
                Some(last) => last.extend_from_slice(b", 192.0.2.7"),
                None => lines.push(b"192.0.2.7".to_vec()),
            }
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(found("10.0.0.1", &lines), "192.0.2.7".parse().ok());
        }
    }

    /// What may stand in a header's value (RFC 9110 section 5.5), everything above 0x7f included.
    fn header_bytes() -> Vec<u8> {
        (0x20..0x7f).chain(0x80..=0xff).chain([b'\t']).collect()
    }
}
