//! The addresses at which others on this network reach us.

use std::collections::BTreeSet;
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

/// Where this computer is: two that differ are two networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Network {
    /// All addresses of its interfaces.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// The ways out, as the system lists them; empty where it lists them otherwise.
    routes: BTreeSet<String>,
}

impl Network {
    /// As it is now.
    pub(crate) fn now() -> Network {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let addresses = interfaces.iter().map(|interface| interface.ip().to_canonical()).collect();
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Network { addresses, routes: gateways(&read("/proc/net/route")) }
    }
}

/// The gateways of Linux' table of IPv4 routes: interface, destination, gateway. What counts packets there is left out.
fn gateways(table: &str) -> BTreeSet<String> {
    let rows = table.lines().skip(1);
    rows.map(|row| row.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).filter(|row| !row.is_empty()).collect()
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

    /// Another gateway is another network; other counters in the same table are not.
    #[test]
    fn another_gateway_is_another_network() {
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\n";
        let home = gateways(&format!("{head}wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\n"));
        let later = gateways(&format!("{head}wlan0\t00000000\t0101A8C0\t0003\t0\t17\t600\n"));
        let cafe = gateways(&format!("{head}wlan0\t00000000\t0101000A\t0003\t0\t0\t600\n"));
        assert_eq!(home, later);
        assert_ne!(home, cafe);
        assert!(gateways("").is_empty());
        assert!(Network::now().addresses.iter().any(IpAddr::is_loopback));
    }

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
