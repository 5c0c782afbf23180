//! Memory for messages of which a part has come: who holds how much, and who may have more.
//!
//! Invariant: what all messages under way take together is bounded by what the operator set, whoever sends them: a DID, an
//! address and a network have bounds of their own, so that none of them leaves others without. Each connection has one
//! message under way, hence at most a frame's size. Spec: docs/protocol.md#unfinished-messages.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_protocol::limits::{UNFINISHED_BYTES_PER_DID_MAX, UNFINISHED_BYTES_PER_IP_MAX};

use crate::gate::Site;
use crate::shares::Shares;

/// Whose message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    identity: [u8; 32],
    site: Site,
}

impl Owner {
    /// Of a hashed DID, at an address (behind proxies).
    #[must_use]
    pub fn new(identity: [u8; 32], ip: IpAddr) -> Self {
        Self { identity, site: Site::of(ip) }
    }
}

/// What is held, of a total.
#[derive(Debug)]
pub struct Unfinished {
    total_max: usize,
    by_identity: BTreeMap<[u8; 32], usize>,
    by_site: BTreeMap<Site, usize>,
    shares: Shares,
}

impl Unfinished {
    /// Of so many bytes in all.
    #[must_use]
    pub fn new(total_max: usize) -> Self {
        Self { total_max, by_identity: BTreeMap::new(), by_site: BTreeMap::new(), shares: Shares::default() }
    }

    /// Takes room for a message; `false`: there is none now, and nothing was taken.
    pub fn take(&mut self, owner: &Owner, bytes: usize) -> bool {
        let identity = self.by_identity.get(&owner.identity).copied().unwrap_or(0) + bytes;
        let site = self.by_site.get(&owner.site).copied().unwrap_or(0) + bytes;
        if identity > UNFINISHED_BYTES_PER_DID_MAX
            || site > UNFINISHED_BYTES_PER_IP_MAX
            || !self.shares.take(owner.site.network(), bytes, self.total_max, None)
        {
            return false;
        }
        self.by_identity.insert(owner.identity, identity);
        self.by_site.insert(owner.site, site);
        true
    }

    /// Gives back what was taken.
    pub fn give(&mut self, owner: &Owner, bytes: usize) {
        less(&mut self.by_identity, &owner.identity, bytes);
        less(&mut self.by_site, &owner.site, bytes);
        self.shares.give(owner.site.network(), bytes);
    }

    /// Bytes that are held by all.
    #[must_use]
    pub fn used(&self) -> usize {
        self.shares.used()
    }
}

fn less<K: Ord>(held: &mut BTreeMap<K, usize>, of: &K, bytes: usize) {
    if let Some(left) = held.get_mut(of) {
        *left = left.saturating_sub(bytes);
        if *left == 0 {
            held.remove(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn owner(identity: u8, ip: &str) -> Owner {
        Owner::new([identity; 32], ip.parse().unwrap())
    }

    #[test]
    fn did_address_network_and_total_are_bounded_each() {
        let mut unfinished = Unfinished::new(64 * MIB);
        let mut taken = |owner: Owner| (0..100).filter(|_| unfinished.take(&owner, MIB)).count();
        // One DID, wherever it is.
        assert_eq!(taken(owner(1, "192.0.2.1")), 8);
        assert_eq!(taken(owner(1, "198.51.100.1")), 0);
        // One address, whoever it is.
        assert_eq!(taken(owner(2, "192.0.2.1")), 8);
        assert_eq!(taken(owner(3, "192.0.2.1")), 0);
        // One network: as much as is free for others.
        assert_eq!((4..20).map(|number| taken(owner(number, &format!("192.0.2.{number}")))).sum::<usize>(), 16);
        // Another one finds room.
        assert_eq!(taken(owner(30, "203.0.113.1")), 8);
        assert_eq!(unfinished.used(), 40 * MIB);
        (0..8).for_each(|_| unfinished.give(&owner(1, "192.0.2.1"), MIB));
        assert!(unfinished.take(&owner(3, "192.0.2.1"), MIB));
    }

    /// A relay with little memory takes the largest message all the same.
    #[test]
    fn the_largest_message_fits_into_the_smallest_total() {
        let mut unfinished = Unfinished::new(4 * MIB);
        assert!(unfinished.take(&owner(1, "192.0.2.1"), MIB) && unfinished.take(&owner(2, "192.0.2.2"), MIB));
        assert!(!unfinished.take(&owner(3, "192.0.2.3"), MIB));
        assert!(unfinished.take(&owner(3, "203.0.113.1"), MIB));
    }
}
