//! Pulling what others hold: one responder a chain, by credit.
//!
//! Invariant: bytes a responder may still send us are never more than half of what the relay queues for us, so a fast
//! peer can not push us over the edge; a chain is asked of one peer at a time, so nothing travels twice while all goes
//! well. A pull without progress is dropped and its chains are asked of somebody else.
//! Spec: docs/sync.md#pulling.

use std::collections::BTreeMap;

use crate::frontier::{Frontier, Range};
use crate::id::{ChainId, DeviceId};
use crate::workspace::links::Route;

/// Pulls under way at once.
pub(super) const PULLS_MAX: usize = 4;
/// A responder that sends nothing at all for this long is given up.
const FIRST_BYTE_MS: u64 = 4_000;
/// One that began is given more: at 1 Mbit/s an envelope of 512 KiB takes 4 s by itself.
const PROGRESS_MS: u64 = 15_000;

/// Of a stranger in a room that was left behind only ops are taken, and one is asked at a time, for this long ...
const BEHIND_MS: u64 = 20_000;
/// ... and another not within this after: whoever sits there may go on with one name after another.
const BEHIND_AGAIN_MS: u64 = 20_000;

/// Names a pull.
pub(super) type Nonce = [u8; 16];

/// One pull under way.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) device: DeviceId,
    pub(super) route: Route,
    pub(super) ranges: Vec<Range>,
    /// Bytes granted in one go.
    pub(super) window: u64,
    /// Bytes granted and not come yet.
    pub(super) credit: u64,
    deadline_mono: u64,
    /// When it ends whatever comes.
    last_mono: u64,
}

/// All pulls under way.
#[derive(Debug, Default)]
pub(super) struct Pulls(
    pub(super) BTreeMap<Nonce, Pull>,
    /// No stranger in a room that was left behind is asked before this.
    u64,
);

impl Pulls {
    pub(super) fn start(
        &mut self,
        nonce: Nonce,
        now: u64,
        device: DeviceId,
        route: Route,
        ranges: Vec<Range>,
        window: u64,
    ) {
        let (deadline_mono, last_mono) = (now + FIRST_BYTE_MS, u64::MAX);
        let pull = Pull { device, route, ranges, window, credit: window, deadline_mono, last_mono };
        self.0.insert(nonce, pull);
    }

    /// Whether a stranger in a room that was left behind may be asked now; if so, it is the only one for a while.
    pub(super) fn may_ask_behind(&mut self, now: u64) -> bool {
        let may = self.1 <= now;
        if may {
            self.1 = now + BEHIND_MS + BEHIND_AGAIN_MS;
        }
        may
    }

    /// The pull that began last at this route ends in time, whatever comes.
    pub(super) fn bound(&mut self, now: u64, route: Route, device: &DeviceId) {
        for pull in self.0.values_mut().filter(|pull| pull.route == route && pull.device == *device) {
            pull.last_mono = pull.last_mono.min(now + BEHIND_MS);
        }
    }

    /// Whether somebody is already asked for this chain.
    pub(super) fn covers(&self, chain: &ChainId) -> bool {
        self.0.values().any(|pull| pull.ranges.iter().any(|range| range.chain == *chain))
    }

    /// Bytes came from this route. Returns the pulls that may be granted more, and how much.
    pub(super) fn arrived(&mut self, now: u64, route: Route, bytes: u64) -> Vec<(Nonce, u64)> {
        let mut grants = Vec::new();
        for (nonce, pull) in self.0.iter_mut().filter(|(_, pull)| pull.route == route) {
            pull.deadline_mono = (now + PROGRESS_MS).min(pull.last_mono);
            pull.credit = pull.credit.saturating_sub(bytes);
            if pull.credit < pull.window / 2 {
                let grant = pull.window - pull.credit;
                pull.credit = pull.window;
                grants.push((*nonce, grant));
            }
        }
        grants
    }

    /// Drops what is done: everything asked for is held.
    pub(super) fn finish(&mut self, held: &Frontier) -> bool {
        let before = self.0.len();
        self.0.retain(|_, pull| {
            pull.ranges.retain(|range| held.seq(&range.chain) < range.to);
            !pull.ranges.is_empty()
        });
        self.0.len() < before
    }

    /// Drops and returns the devices whose pulls made no progress or whose route is gone.
    pub(super) fn give_up(&mut self, now: u64, is_live: impl Fn(Route) -> bool) -> Vec<(DeviceId, bool)> {
        let mut silent = Vec::new();
        self.0.retain(|_, pull| {
            let live = is_live(pull.route);
            let keep = live && now < pull.deadline_mono;
            if !keep {
                silent.push((pull.device, live));
            }
            keep
        });
        silent
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.0.values().map(|pull| pull.deadline_mono).min()
    }
}
