//! How many connections one address may have, one network, and all together: asked before anything is parsed.
//!
//! Invariant: what entered leaves exactly once, an address without connections takes no memory, and no network takes the
//! last place. Spec: docs/protocol.md#shares-of-a-network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use weft_protocol::limits::IPV6_PREFIX_BITS;

use crate::shares::{Network, Shares};

/// What counts as one address: an IPv4 address, or the /64 of an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(IpAddr);

impl Site {
    /// The site of an address; IPv4-mapped IPv6 counts as IPv4.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(IpAddr::V4(ip)),
            IpAddr::V6(ip) => {
                let mask = u128::MAX << (128 - u32::from(IPV6_PREFIX_BITS));
                Self(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask)))
            }
        }
    }

    /// The network it lies in.
    #[must_use]
    pub fn network(self) -> Network {
        Network::of(self.0)
    }
}

/// How many may enter a [`Gate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// From one address.
    pub per_site_max: usize,
    /// From one network; `None` for no more than are free for others.
    pub per_network_max: Option<usize>,
    /// In all.
    pub total_max: usize,
}

impl Site {
    /// The address, or the first of the network.
    pub(crate) fn ip(self) -> IpAddr {
        self.0
    }
}

/// Counts connections.
#[derive(Debug, Default)]
pub struct Gate {
    by_site: BTreeMap<Site, usize>,
    shares: Shares,
}

impl Gate {
    /// Lets a connection in if all bounds allow it.
    pub fn enter(&mut self, site: Site, limits: GateLimits) -> bool {
        let here = self.by_site.get(&site).copied().unwrap_or(0);
        let GateLimits { per_site_max, per_network_max, total_max } = limits;
        if here >= per_site_max || !self.shares.take(site.network(), 1, total_max, per_network_max) {
            return false;
        }
        self.by_site.insert(site, here + 1);
        true
    }

    /// A connection that had entered is gone.
    pub fn leave(&mut self, site: Site) {
        if let Some(here) = self.by_site.get_mut(&site) {
            *here -= 1;
            if *here == 0 {
                self.by_site.remove(&site);
            }
            self.shares.give(site.network(), 1);
        }
    }

    /// Connections in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shares.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str) -> Site {
        Site::of(text.parse().unwrap())
    }

    #[test]
    fn a_site_is_bounded_and_does_not_starve_others() {
        let limits = GateLimits { per_site_max: 2, per_network_max: Some(3), total_max: 3 };
        let mut gate = Gate::default();
        assert!(gate.enter(site("2001:db8::1"), limits));
        assert!(gate.enter(site("2001:db8::ffff"), limits));
        assert!(!gate.enter(site("2001:db8::2"), limits));
        assert!(gate.enter(site("2001:db8:0:1::1"), limits));
        assert!(!gate.enter(site("10.0.0.1"), limits));
        gate.leave(site("2001:db8::3"));
        assert!(gate.enter(site("::ffff:10.0.0.1"), limits));
        assert_eq!(site("::ffff:10.0.0.1"), site("10.0.0.1"));
        assert_eq!(gate.total(), 3);
    }

    /// All addresses of a /24 together leave as many places as they took, and those who come later find one each.
    #[test]
    fn no_network_takes_the_last_place() {
        let limits = GateLimits { per_site_max: 2, per_network_max: None, total_max: 20 };
        let mut gate = Gate::default();
        let entered = (0..=255).filter(|n| gate.enter(site(&format!("192.0.2.{n}")), limits)).count();
        assert_eq!(entered, 10);
        assert!((0..5).all(|n| gate.enter(site(&format!("198.51.{n}.1")), limits)));
    }
}
