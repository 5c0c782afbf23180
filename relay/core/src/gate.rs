//! How many connections one address may have, and all together: asked before anything is parsed.
//!
//! Invariant: what entered leaves exactly once, and an address without connections takes no memory.
//! Spec: docs/protocol.md#limits.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use weft_protocol::limits::IPV6_PREFIX_BITS;

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
    total: usize,
}

impl Gate {
    /// Lets a connection in if both bounds allow it.
    pub fn enter(&mut self, site: Site, per_site_max: usize, total_max: usize) -> bool {
        let here = self.by_site.get(&site).copied().unwrap_or(0);
        if here >= per_site_max || self.total >= total_max {
            return false;
        }
        self.by_site.insert(site, here + 1);
        self.total += 1;
        true
    }

    /// A connection that had entered is gone.
    pub fn leave(&mut self, site: Site) {
        if let Some(here) = self.by_site.get_mut(&site) {
            *here -= 1;
            self.total -= 1;
            if *here == 0 {
                self.by_site.remove(&site);
            }
        }
    }

    /// Connections in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_bounded_and_does_not_starve_others() {
        let site = |text: &str| Site::of(text.parse().unwrap());
        let mut gate = Gate::default();
        assert!(gate.enter(site("2001:db8::1"), 2, 3));
        assert!(gate.enter(site("2001:db8::ffff"), 2, 3));
        assert!(!gate.enter(site("2001:db8::2"), 2, 3));
        assert!(gate.enter(site("2001:db8:0:1::1"), 2, 3));
        assert!(!gate.enter(site("10.0.0.1"), 2, 3));
        gate.leave(site("2001:db8::3"));
        assert!(gate.enter(site("::ffff:10.0.0.1"), 2, 3));
        assert_eq!(site("::ffff:10.0.0.1"), site("10.0.0.1"));
        assert_eq!(gate.total(), 3);
    }
}
