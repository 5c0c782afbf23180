//! How often an address may ask: so many a minute, as many at once.
//!
//! Invariant: an address that was quiet for a minute takes no memory, and a network whose addresses fill its share of the
//! table keeps nobody else out of it. Why a limiter an address, and not one keyed by addresses: a stranger can fill such
//! a table, one IPv6 /48 has 65,536 sites, and none bounds it by network. Spec: docs/protocol.md#shares-of-a-network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use weft_relay_core::gate::Site;
use weft_relay_core::shares::{Network, Shares};

/// After so long an address may ask as often as one that never asked, and is forgotten.
const MINUTE: Duration = Duration::from_secs(60);

/// Why an address may not ask now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMany {
    /// It asked too often; it may again in so many milliseconds, at least 1.
    Address { retry_ms: u64 },
    /// Its network has as many addresses in the table as it may; one is forgotten in so many milliseconds, at least 1.
    Network { retry_ms: u64 },
}

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

struct Entry<C: Clock> {
    limiter: Limiter<C>,
    forget_at: Duration,
}

/// The addresses that asked within the last minute. Times are since the table was made.
pub(crate) struct Rates<C: Clock + Clone = DefaultClock> {
    quota: Quota,
    sites_max: usize,
    clock: C,
    made: C::Instant,
    sites: BTreeMap<Site, Entry<C>>,
    by_time: BTreeSet<(Duration, Site)>,
    shares: Shares,
}

impl Rates {
    /// `per_minute` for each address, at least 1; `sites_max` addresses are remembered at once.
    pub(crate) fn new(per_minute: u32, sites_max: usize) -> Self {
        Self::with_clock(per_minute, sites_max, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn with_clock(per_minute: u32, sites_max: usize, clock: C) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN));
        let (sites, by_time) = (BTreeMap::new(), BTreeSet::new());
        Self { quota, sites_max, made: clock.now(), clock, sites, by_time, shares: Shares::default() }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// [`TooMany`]; then nothing was counted.
    pub(crate) fn ask(&mut self, ip: IpAddr) -> Result<(), TooMany> {
        let instant = self.clock.now();
        let now: Duration = instant.duration_since(self.made).into();
        self.forget(now);
        let (site, network) = (Site::of(ip), Network::of(ip));
        if !self.sites.contains_key(&site) && !self.shares.take(network, 1, self.sites_max, None) {
            let first = self.by_time.first().map_or(now, |(at, _)| *at);
            return Err(TooMany::Network { retry_ms: at_least_1_ms(first.saturating_sub(now)) });
        }
        let (quota, clock) = (self.quota, &self.clock);
        let entry = self
            .sites
            .entry(site)
            .or_insert_with(|| Entry { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), forget_at: now });
        if let Err(not_until) = entry.limiter.check() {
            return Err(TooMany::Address { retry_ms: at_least_1_ms(not_until.wait_time_from(instant)) });
        }
        self.by_time.remove(&(entry.forget_at, site));
        entry.forget_at = now + MINUTE;
        self.by_time.insert((entry.forget_at, site));
        Ok(())
    }

    fn forget(&mut self, now: Duration) {
        while let Some(&(at, site)) = self.by_time.first().filter(|(at, _)| *at <= now) {
            self.by_time.remove(&(at, site));
            self.sites.remove(&site);
            self.shares.give(site.network(), 1);
        }
    }
}

fn at_least_1_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_asks_so_often_a_minute_and_is_told_when_again() {
        let clock = FakeRelativeClock::default();
        let mut rates = Rates::with_clock(2, 10, clock.clone());
        assert_eq!([0; 2].map(|_| rates.ask(ip("192.0.2.1"))), [Ok(()), Ok(())]);
        assert_eq!(rates.ask(ip("192.0.2.1")), Err(TooMany::Address { retry_ms: 30_000 }));
        assert_eq!(rates.ask(ip("192.0.2.2")), Ok(()));
        clock.advance(Duration::from_secs(30));
        assert_eq!(rates.ask(ip("192.0.2.1")), Ok(()));
        clock.advance(Duration::from_secs(170));
        assert_eq!(rates.ask(ip("192.0.2.9")), Ok(()));
        assert_eq!((rates.sites.len(), rates.by_time.len(), rates.shares.used()), (1, 1, 1));
    }

    #[test]
    fn a_network_of_many_sites_does_not_fill_the_table_for_others() {
        let clock = FakeRelativeClock::default();
        let mut rates = Rates::with_clock(60, 16, clock.clone());
        let of = |site: u16| ip(&format!("2001:db8:1:{site:x}::1"));
        assert_eq!((0..100).filter(|&site| rates.ask(of(site)).is_ok()).count(), 8);
        assert_eq!(rates.ask(of(500)), Err(TooMany::Network { retry_ms: 60_000 }));
        assert_eq!(rates.ask(ip("2001:db8:2::1")), Ok(()));
        clock.advance(MINUTE);
        assert_eq!(rates.ask(of(500)), Ok(()));
    }
}
