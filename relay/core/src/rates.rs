//! How often an address may ask: so many a minute, as many at once.
//!
//! Invariant: an address that was quiet long enough takes no memory, and a network whose addresses fill its share of the
//! table keeps nobody else out of it. Why our own: the table is what a stranger can fill, one IPv6 /48 has 65,536 sites,
//! and the crates there are bound neither. Spec: docs/protocol.md#shares-of-a-network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::gate::Site;
use crate::shares::{Network, Shares};

const MINUTE_US: u64 = 60_000_000;

/// Why an address may not ask now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooMany {
    /// It asked too often; it may again in so many milliseconds.
    Address {
        /// At least 1.
        retry_ms: u64,
    },
    /// Its network has as many addresses in the table as it may; one is forgotten in so many milliseconds, or earlier.
    Network {
        /// At least 1.
        retry_ms: u64,
    },
}

/// The addresses that asked a moment ago.
#[derive(Debug)]
pub struct Rates {
    per_minute: u32,
    sites_max: usize,
    /// When each may ask as often as one that never asked, in microseconds (the generic cell rate algorithm).
    quiet_at_us: BTreeMap<Site, u64>,
    by_time: BTreeSet<(u64, Site)>,
    shares: Shares,
}

impl Rates {
    /// `per_minute` for each address, at least 1; `sites_max` addresses are remembered at once.
    #[must_use]
    pub fn new(per_minute: u32, sites_max: usize) -> Self {
        let (quiet_at_us, by_time) = (BTreeMap::new(), BTreeSet::new());
        Self { per_minute: per_minute.max(1), sites_max, quiet_at_us, by_time, shares: Shares::default() }
    }

    /// Counts one request at `now_ms` of a monotonic clock.
    ///
    /// # Errors
    /// [`TooMany`]; then nothing was counted.
    pub fn ask(&mut self, ip: IpAddr, now_ms: u64) -> Result<(), TooMany> {
        let now_us = now_ms.saturating_mul(1000);
        self.forget(now_us);
        let (site, network) = (Site::of(ip), Network::of(ip));
        let before_us = self.quiet_at_us.get(&site).copied();
        let quiet_us = before_us.unwrap_or(now_us).max(now_us) + MINUTE_US / u64::from(self.per_minute);
        let retry_ms = |us: u64| us.div_ceil(1000).max(1);
        if quiet_us > now_us + MINUTE_US {
            return Err(TooMany::Address { retry_ms: retry_ms(quiet_us - now_us - MINUTE_US) });
        }
        if before_us.is_none() && !self.shares.take(network, 1, self.sites_max, None) {
            let first_us = self.by_time.first().map_or(now_us, |(at_us, _)| *at_us);
            return Err(TooMany::Network { retry_ms: retry_ms(first_us.saturating_sub(now_us)) });
        }
        if let Some(before_us) = before_us {
            self.by_time.remove(&(before_us, site));
        }
        self.quiet_at_us.insert(site, quiet_us);
        self.by_time.insert((quiet_us, site));
        Ok(())
    }

    fn forget(&mut self, now_us: u64) {
        while let Some(&(at_us, site)) = self.by_time.first().filter(|(at_us, _)| *at_us <= now_us) {
            self.by_time.remove(&(at_us, site));
            self.quiet_at_us.remove(&site);
            self.shares.give(site.network(), 1);
        }
    }

    /// How many addresses are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.quiet_at_us.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.quiet_at_us.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_asks_so_often_a_minute_and_is_told_when_again() {
        let mut rates = Rates::new(2, 10);
        assert_eq!([0; 2].map(|_| rates.ask(ip("192.0.2.1"), 0)), [Ok(()), Ok(())]);
        assert_eq!(rates.ask(ip("192.0.2.1"), 0), Err(TooMany::Address { retry_ms: 30_000 }));
        assert_eq!(rates.ask(ip("192.0.2.2"), 0), Ok(()));
        assert_eq!(rates.ask(ip("192.0.2.1"), 30_000), Ok(()));
        assert_eq!(rates.ask(ip("192.0.2.9"), 200_000), Ok(()));
        assert_eq!(rates.len(), 1);
    }

    #[test]
    fn a_network_of_many_sites_does_not_fill_the_table_for_others() {
        let mut rates = Rates::new(60, 16);
        let of = |site: u16| ip(&format!("2001:db8:1:{site:x}::1"));
        assert_eq!((0..100).filter(|&site| rates.ask(of(site), 0).is_ok()).count(), 8);
        assert_eq!(rates.ask(of(500), 0), Err(TooMany::Network { retry_ms: 1_000 }));
        assert_eq!(rates.ask(ip("2001:db8:2::1"), 0), Ok(()));
        assert_eq!(rates.ask(of(500), 1_000), Ok(()));
    }
}
