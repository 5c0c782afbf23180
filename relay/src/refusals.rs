//! What was refused, in the log and in the metrics, so that an operator who was told nothing finds out.
//!
//! Invariant: a line holds codes, numbers and marks, no DID, no address and nothing that a client wrote; and whoever is
//! refused as often as they like cannot fill a disk: each kind of refusal has its own share of lines, and the next line says
//! how many were left out. Spec: docs/operating.md#refusals.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use weft_protocol::code::Code;
use weft_relay_core::{ConnId, Marks};

use crate::metrics::Metrics;
use crate::policy::Barrier;

/// Lines of one kind within [`WINDOW_MS`]: enough to see who it is.
const LINES_MAX: u32 = 10;
/// ... and a day of one kind stays below some 15,000 lines.
const WINDOW_MS: u64 = 60_000;

/// A kind of refusal; as many as there are codes, and ways of a policy to say no.
type Kind = (&'static str, &'static str);

#[derive(Default)]
struct Window {
    since_ms: u64,
    lines: u32,
    left_out: u64,
}

/// Which refusals get a line.
#[derive(Default)]
struct Shares(BTreeMap<Kind, Window>);

impl Shares {
    /// Whether this one gets a line; then also how many of its kind did not since the last line.
    fn line(&mut self, kind: Kind, now_ms: u64) -> Option<u64> {
        let window = self.0.entry(kind).or_default();
        if now_ms.saturating_sub(window.since_ms) >= WINDOW_MS {
            (window.since_ms, window.lines) = (now_ms, 0);
        }
        if window.lines >= LINES_MAX {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

/// Where a refusal happened, and to whom.
#[derive(Default)]
pub(crate) struct Refused {
    /// What was refused: a request for a token, an upgrade, a connection, a frame.
    pub(crate) what: &'static str,
    /// The connection, by the number that the admin port shows.
    pub(crate) conn: Option<ConnId>,
    /// The client's address, behind proxies, as far as it is known.
    pub(crate) ip: Option<IpAddr>,
    /// Hash of the DID, as far as one was named.
    pub(crate) identity: Option<[u8; 32]>,
    /// What the operator set that it ran into.
    pub(crate) barrier: Option<Barrier>,
}

/// What happens without anybody's fault: peers come and go, laptops sleep, a relay stops.
fn is_everyday(code: Code) -> bool {
    const EVERYDAY: [Code; 6] =
        [Code::Replaced, Code::NotInRoom, Code::NoSuchPeer, Code::Idle, Code::SessionExpired, Code::Draining];
    EVERYDAY.contains(&code)
}

/// Notes refusals.
pub(crate) struct Refusals {
    metrics: Arc<Metrics>,
    marks: Marks,
    shares: Mutex<Shares>,
}

impl Refusals {
    pub(crate) fn new(metrics: Arc<Metrics>, marks: Marks) -> Self {
        Self { metrics, marks, shares: Mutex::default() }
    }

    /// Counts a refusal over HTTP, and logs it.
    pub(crate) fn http(&self, code: Code, refused: Refused, now_ms: u64) {
        self.metrics.refused(code);
        self.note(code, refused, now_ms);
    }

    /// Counts a refusal on a connection, and logs it unless it belongs to every day.
    pub(crate) fn frame(&self, code: Code, refused: Refused, now_ms: u64) {
        self.metrics.refused_frame(code);
        if !is_everyday(code) {
            self.note(code, refused, now_ms);
        }
    }

    /// Logs a refusal that is counted elsewhere.
    pub(crate) fn note(&self, code: Code, refused: Refused, now_ms: u64) {
        let Refused { what, conn, ip, identity, barrier } = refused;
        if let Some(barrier) = barrier {
            self.metrics.not_allowed(barrier.name());
        }
        let why = barrier.map_or("", Barrier::name);
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left_out) = shares.line((code.name(), why), now_ms) else { return };
        drop(shares);
        let address = ip.map(|ip| self.marks.address(ip));
        let did = identity.map(|identity| self.marks.did(&identity));
        tracing::info!(
            what,
            code = code.name(),
            why = barrier.map(Barrier::name),
            block_file_line = barrier.and_then(Barrier::line),
            connection = conn.map(|conn| conn.0),
            address,
            did,
            left_out = (left_out > 0).then_some(left_out),
            "refused"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_of_refusal_does_not_silence_another_and_says_what_was_left_out() {
        let mut shares = Shares::default();
        let (flood, other) = (("malformed", ""), ("not-allowed", "blocked-did"));
        let lines = (0..1000).filter(|_| shares.line(flood, 5).is_some()).count();
        assert_eq!(lines, LINES_MAX as usize);
        assert_eq!(shares.line(other, 5), Some(0));
        assert_eq!(shares.line(flood, 5 + WINDOW_MS), Some(1000 - u64::from(LINES_MAX)));
        assert_eq!(shares.line(flood, 6 + WINDOW_MS), Some(0));
    }
}
