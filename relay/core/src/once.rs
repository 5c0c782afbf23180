//! What may be used once: a JWT, a relay token. It is remembered until it would be refused for its age anyway.
//!
//! Invariant: nothing is forgotten before its time. When a network's share of the table is taken, its next requests are
//! refused rather than old entries forgotten, for forgetting would let a replay in; other networks do not notice.
//! Spec: docs/protocol.md#token.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::admission::jwt::Checked;
use weft_protocol::admission::proof::hash;

use crate::shares::{Network, Shares};

/// What is remembered of one thing that was used: a hash, so that all take the same room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used([u8; 32]);

impl Used {
    /// A JWT, by issuer, audience and `jti`.
    #[must_use]
    pub fn jwt(jwt: &Checked) -> Self {
        // Lengths in front, so that no two triples run into the same bytes.
        let part = |text: &str| [&(text.len() as u64).to_be_bytes()[..], text.as_bytes()].concat();
        Self(hash("relay-replay", &[&part(&jwt.issuer), &part(&jwt.audience), &part(&jwt.jti)]))
    }

    /// A relay token, by the number that its relay drew for it.
    #[must_use]
    pub fn token(number: &[u8; 16]) -> Self {
        Self(hash("relay-token-used", &[number]))
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Never seen; it is remembered now.
    Fresh,
    /// Seen before.
    Replayed,
    /// This network's share of the table is taken; try again in so many seconds.
    Full {
        /// Seconds until the first entry goes.
        retry_after_s: u64,
    },
}

/// Things that may not be used again.
#[derive(Debug)]
pub struct Once {
    entries_max: usize,
    entries: BTreeMap<Used, Network>,
    by_time: BTreeSet<(u64, Used)>,
    shares: Shares,
}

impl Once {
    /// A table of so many entries, shared by all networks.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self { entries_max, entries: BTreeMap::new(), by_time: BTreeSet::new(), shares: Shares::default() }
    }

    /// Whether it was used already, at `now_s` (Unix seconds).
    pub fn is_used(&mut self, used: Used, now_s: u64) -> bool {
        self.forget(now_s);
        self.entries.contains_key(&used)
    }

    /// Uses it up, until `until_s`; call it only for what was verified, or anybody fills the table with inventions.
    pub fn take(&mut self, used: Used, until_s: u64, network: Network, now_s: u64) -> Seen {
        if self.is_used(used, now_s) {
            return Seen::Replayed;
        }
        if !self.shares.take(network, 1, self.entries_max, None) {
            let first = self.by_time.first().map_or(now_s, |(until_s, _)| *until_s);
            return Seen::Full { retry_after_s: first.saturating_sub(now_s).max(1) };
        }
        self.entries.insert(used, network);
        self.by_time.insert((until_s, used));
        Seen::Fresh
    }

    fn forget(&mut self, now_s: u64) {
        while let Some(&(until_s, used)) = self.by_time.first().filter(|(until_s, _)| *until_s <= now_s) {
            self.by_time.remove(&(until_s, used));
            if let Some(network) = self.entries.remove(&used) {
                self.shares.give(network, 1);
            }
        }
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    #[test]
    fn a_jwt_passes_once_until_it_expires() {
        let jwt = |issuer: &str, jti: &str| Checked {
            issuer: issuer.into(),
            audience: "did:web:a".into(),
            jti: jti.into(),
            expires_s: 100,
        };
        let mut once = Once::new(100);
        let mut see = |jwt: &Checked, now_s| once.take(Used::jwt(jwt), jwt.expires_s, network("192.0.2.1"), now_s);
        assert_eq!(see(&jwt("did:a", "1"), 10), Seen::Fresh);
        assert_eq!(see(&jwt("did:a", "1"), 99), Seen::Replayed);
        assert_eq!(see(&jwt("did:b", "1"), 99), Seen::Fresh);
        assert_eq!(see(&Checked { expires_s: 200, ..jwt("did:c", "1") }, 100), Seen::Fresh);
        assert_eq!(once.len(), 1);
    }

    /// A network that uses up what it can leaves room for the next, and gets its own back as entries end.
    #[test]
    fn one_network_cannot_fill_the_table_for_others() {
        let mut once = Once::new(8);
        let used = |number: u8| Used::token(&[number; 16]);
        let one = network("2001:db8:1::1");
        let fresh = (0..20).filter(|&number| once.take(used(number), 50, one, 0) == Seen::Fresh).count();
        assert_eq!(fresh, 4);
        assert_eq!(once.take(used(30), 50, network("2001:db8:1:ffff::1"), 20), Seen::Full { retry_after_s: 30 });
        assert_eq!(once.take(used(30), 60, network("2001:db8:2::1"), 20), Seen::Fresh);
        // What was refused was not remembered.
        assert_eq!(once.take(used(31), 90, one, 50), Seen::Fresh);
        assert_eq!(once.len(), 2);
    }
}
