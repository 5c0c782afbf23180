//! The addresses at which others on this network reach us.

use std::net::IpAddr;

/// Addresses told to peers; a machine with more has virtual ones.
const ADDRESSES_MAX: usize = 8;

/// Addresses of this host's interfaces that a neighbour could dial: private and global ones, IPv4 first. Loopback
/// addresses are added when asked for, or when there is nothing else.
pub(crate) fn of_this_host(loopback: bool) -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let all: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).collect();
    choose(&all, loopback)
}

fn choose(all: &[IpAddr], loopback: bool) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = all.iter().copied().filter(is_reachable).collect();
    chosen.sort_by_key(|ip| (ip.is_ipv6(), *ip));
    chosen.dedup();
    chosen.truncate(ADDRESSES_MAX);
    if loopback || chosen.is_empty() {
        chosen.push(IpAddr::from([127, 0, 0, 1]));
    }
    chosen
}

fn is_reachable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        // Link-local needs a scope that means nothing to others.
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}

/// As URLs.
pub(crate) fn urls(ips: &[IpAddr], port: u16) -> Vec<String> {
    ips.iter().map(|ip| format!("ws://{}", std::net::SocketAddr::new(*ip, port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loopback is offered only when asked for or when there is nothing else; link-local never.
    #[test]
    fn what_is_offered() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let all = [ip("127.0.0.1"), ip("fe80::1"), ip("fd00::5"), ip("192.168.1.4"), ip("169.254.0.3")];
        assert_eq!(choose(&all, false), [ip("192.168.1.4"), ip("fd00::5")]);
        assert_eq!(choose(&all, true).last(), Some(&ip("127.0.0.1")));
        assert_eq!(choose(&all[..2], false), [ip("127.0.0.1")]);
        assert_eq!(urls(&[ip("fd00::5")], 9), ["ws://[fd00::5]:9"]);
    }
}
