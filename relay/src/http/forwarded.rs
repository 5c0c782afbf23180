//! Which address a request really comes from, when a proxy is in front.
//!
//! Invariant: a header is believed only as far as trusted proxies wrote it: read from its right end, where the nearest
//! proxy appended, the first address that is not a trusted proxy is the client. Anyone can write the rest.

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Whether `ip` is one of the proxies.
pub(crate) fn is_trusted(trusted: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|network| network.contains(&ip))
}

/// The client's address; `remote` is who connected.
pub(crate) fn client(trusted: &[IpNet], remote: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut client = remote.to_canonical();
    let lines: Vec<&str> = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        if !is_trusted(trusted, client) {
            return client;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(ip) => client = ip.to_canonical(),
            // A proxy that writes something else hides who was before it.
            Err(_) => return client,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_trusted_proxies_appended_is_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (remote, header, expected) in [
            ("192.0.2.1", "1.1.1.1", "192.0.2.1"),
            ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
            ("::ffff:10.0.0.1", "1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
            ("fd00::1", "2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", "unknown", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_FOR, header.parse().unwrap());
            let found = client(&trusted, remote.parse().unwrap(), &headers);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{remote} {header}");
        }
        let mut two = HeaderMap::new();
        two.append(X_FORWARDED_FOR, "6.6.6.6".parse().unwrap());
        two.append(X_FORWARDED_FOR, "1.1.1.1".parse().unwrap());
        assert_eq!(client(&trusted, "10.0.0.1".parse().unwrap(), &two), "1.1.1.1".parse::<IpAddr>().unwrap());
        assert_eq!(
            client(&trusted, "10.0.0.1".parse().unwrap(), &HeaderMap::new()),
            "10.0.0.1".parse::<IpAddr>().unwrap()
        );
    }
}
