//! A JWT is used once: (iss, aud, jti) is remembered until it would be refused for its age.
//!
//! Invariant: nothing is forgotten before its time. When the table is full, new requests are refused rather than old
//! ones forgotten, for forgetting would let a replay in. Spec: docs/protocol.md#token.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::admission::jwt::Checked;
use weft_protocol::admission::proof::hash;
use weft_protocol::limits::REPLAY_ENTRIES_MAX;

/// What became of a JWT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Never seen; it is remembered now.
    Fresh,
    /// Seen before.
    Replayed,
    /// The table is full; try again in so many seconds.
    Full {
        /// Seconds until the first entry goes.
        retry_after_s: u64,
    },
}

/// JWTs that may not be used again.
#[derive(Debug, Default)]
pub struct Replay {
    until_s: BTreeMap<[u8; 32], u64>,
    by_time: BTreeSet<(u64, [u8; 32])>,
}

impl Replay {
    /// Whether this JWT is new at `now_s` (Unix seconds); call it only after its signature was verified.
    pub fn see(&mut self, jwt: &Checked, now_s: u64) -> Seen {
        while let Some(&(until_s, key)) = self.by_time.first().filter(|(until_s, _)| *until_s <= now_s) {
            self.by_time.remove(&(until_s, key));
            self.until_s.remove(&key);
        }
        // Lengths in front, so that no two triples run into the same bytes.
        let part = |text: &str| [&(text.len() as u64).to_be_bytes()[..], text.as_bytes()].concat();
        let key = hash("relay-replay", &[&part(&jwt.issuer), &part(&jwt.audience), &part(&jwt.jti)]);
        if self.until_s.contains_key(&key) {
            return Seen::Replayed;
        }
        if self.until_s.len() >= REPLAY_ENTRIES_MAX {
            let first = self.by_time.first().map_or(now_s, |(until_s, _)| *until_s);
            return Seen::Full { retry_after_s: first.saturating_sub(now_s) };
        }
        self.until_s.insert(key, jwt.expires_s);
        self.by_time.insert((jwt.expires_s, key));
        Seen::Fresh
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.until_s.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.until_s.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_passes_once_until_it_expires() {
        let jwt = |issuer: &str, jti: &str| Checked {
            issuer: issuer.into(),
            audience: "did:web:a".into(),
            jti: jti.into(),
            expires_s: 100,
        };
        let mut replay = Replay::default();
        assert_eq!(replay.see(&jwt("did:a", "1"), 10), Seen::Fresh);
        assert_eq!(replay.see(&jwt("did:a", "1"), 99), Seen::Replayed);
        assert_eq!(replay.see(&jwt("did:b", "1"), 99), Seen::Fresh);
        assert_eq!(replay.len(), 2);
        assert_eq!(replay.see(&Checked { expires_s: 200, ..jwt("did:c", "1") }, 100), Seen::Fresh);
        assert_eq!(replay.len(), 1);
    }
}
