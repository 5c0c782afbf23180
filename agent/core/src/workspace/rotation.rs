//! A new epoch after so much time, or so much use.
//!
//! Invariant: an epoch that wore out goes on being sealed under until the next one is there; of those who may make it, the
//! one with something to send does at once, the others after a random while, and nobody who hears no peer: nobody would
//! get it, and it may be the one who lacks an epoch. Why rotate at all: whoever gets at an epoch's secrets without a
//! device's own key reads on until the next one only, and a relay sees the same people meet in the same room no longer.
//! Spec: docs/sealing.md#rotation.

use super::Workspace;
use crate::id::EpochId;
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;

/// A week: often enough that a room and a key that leaked are of little use, seldom enough that whoever is back from
/// holidays finds an epoch among the four whose rooms are listened to.
pub(crate) const EPOCH_AGE_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// What ten people write in a busy week: a rotation is an op that every member keeps for ever, so use alone makes few.
pub(crate) const EPOCH_ENVELOPES_MAX: u64 = 10_000;

/// Who has nothing to send waits this long, and up to as long again, for somebody else to mint.
const ROTATE_AFTER_MS: u64 = 30_000;
/// Whoever minted for age or use does not again before this: a wrong clock must not make an epoch a minute.
const ROTATE_AGAIN_MS: u64 = 3_600_000;
/// Envelopes counted between two writes of the count; a crash forgets at most so many.
const COUNT_STORED_EVERY: u64 = 32;

const USAGE: &[u8] = b"usage";

/// How long, and for how many envelopes known here, an epoch was sealed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    epoch: EpochId,
    since_wall_ms: u64,
    envelopes: u64,
}

impl Usage {
    fn to_bytes(self) -> Vec<u8> {
        let mut row = self.epoch.0.to_vec();
        row.extend(self.since_wall_ms.to_be_bytes());
        row.extend(self.envelopes.to_be_bytes());
        row
    }
    fn from_bytes(row: &[u8]) -> Option<Self> {
        let (epoch, rest) = row.split_first_chunk::<16>()?;
        let (since, envelopes) = rest.split_first_chunk::<8>()?;
        let envelopes = u64::from_be_bytes(envelopes.try_into().ok()?);
        Some(Self { epoch: EpochId(*epoch), since_wall_ms: u64::from_be_bytes(*since), envelopes })
    }
    /// Milliseconds until it is old; zero once it is old or used up.
    fn lasts_ms(&self, wall_ms: u64) -> u64 {
        if self.envelopes >= EPOCH_ENVELOPES_MAX {
            return 0;
        }
        self.since_wall_ms.saturating_add(EPOCH_AGE_MS_MAX).saturating_sub(wall_ms)
    }
}

/// When the next epoch is due.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    usage: Option<Usage>,
    /// When to look again.
    look_mono: Option<u64>,
    /// When to mint.
    mint_mono: Option<u64>,
    not_before_mono: u64,
}

impl Rotation {
    pub(super) fn open(read: &dyn Read) -> Self {
        let usage = read.get(Table::Meta, USAGE).and_then(|row| Usage::from_bytes(&row));
        Self { usage, ..Self::default() }
    }
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.mint_mono.or(self.look_mono)
    }
}

impl Workspace {
    /// We sealed an envelope under this epoch; whoever seals the last one makes the next epoch.
    pub(super) fn count_own_use(&mut self, epoch: EpochId, tx: &Tx<'_>) {
        self.count_use(epoch, tx);
        if self.rotation.usage.is_some_and(|usage| usage.envelopes >= EPOCH_ENVELOPES_MAX) {
            self.rotation.mint_mono = Some(self.last_mono);
        }
    }

    /// An envelope under this epoch is held, by whomever.
    pub(super) fn count_use(&mut self, epoch: EpochId, tx: &Tx<'_>) {
        self.packets.note_use(epoch, tx);
        let Some(usage) = self.rotation.usage.as_mut().filter(|usage| usage.epoch == epoch) else { return };
        usage.envelopes = usage.envelopes.saturating_add(1);
        if usage.envelopes.is_multiple_of(COUNT_STORED_EVERY) {
            tx.put(Table::Meta, USAGE, usage.to_bytes());
        }
    }

    /// Begins to count where another epoch is sealed under now.
    fn usage_now(&mut self, now: Timestamp, tx: &Tx<'_>) -> Option<Usage> {
        let epoch = self.sealing_epoch()?;
        if let Some(usage) = self.rotation.usage.filter(|usage| usage.epoch == epoch) {
            return Some(usage);
        }
        let op = self.membership.epochs.get(&epoch).map(|facts| facts.op);
        let made = op.and_then(|op| self.ops.as_ref()?.get(&op)).map_or(now.wall_ms, crate::op::SignedOp::wall_ms);
        // A clock that was ahead must not make it last longer.
        let usage = Usage { epoch, since_wall_ms: made.min(now.wall_ms), envelopes: 0 };
        tx.put(Table::Meta, USAGE, usage.to_bytes());
        self.rotation =
            Rotation { usage: Some(usage), not_before_mono: self.rotation.not_before_mono, ..<_>::default() };
        Some(usage)
    }

    /// Mints if the epoch wore out and it is our turn.
    pub(super) fn run_rotation(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let usage = self.usage_now(now, tx);
        let writer = self.is_writer();
        let heard = self.may_seal() && !self.links.connected().is_empty();
        let Some(usage) = usage.filter(|_| writer && heard) else {
            (self.rotation.look_mono, self.rotation.mint_mono) = (None, None);
            return;
        };
        let lasts = usage.lasts_ms(now.wall_ms).max(self.rotation.not_before_mono.saturating_sub(now.mono_ms));
        if lasts > 0 {
            self.rotation.mint_mono = None;
            self.rotation.look_mono = Some(now.after_ms(lasts));
            return;
        }
        let at = match self.rotation.mint_mono {
            Some(at) => at,
            None if !self.outbox.is_empty() => now.mono_ms,
            None => now.after_ms(ROTATE_AFTER_MS + self.jitter(ROTATE_AFTER_MS)),
        };
        self.rotation.mint_mono = Some(at);
        if at <= now.mono_ms {
            self.rotation.mint_mono = None;
            self.rotation.not_before_mono = now.after_ms(ROTATE_AGAIN_MS);
            self.rotation.look_mono = Some(self.rotation.not_before_mono);
            self.mint(now, tx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An epoch lasts a week or ten thousand envelopes, whatever is first, and no clock makes it last longer than a week.
    #[test]
    fn an_epoch_lasts_a_week_or_ten_thousand_envelopes() {
        let fresh = Usage { epoch: EpochId([1; 16]), since_wall_ms: 1_000, envelopes: 0 };
        assert_eq!(Usage::from_bytes(&fresh.to_bytes()), Some(fresh));
        assert_eq!(Usage::from_bytes(&fresh.to_bytes()[1..]), None);
        assert_eq!(fresh.lasts_ms(1_000), EPOCH_AGE_MS_MAX);
        assert_eq!(fresh.lasts_ms(EPOCH_AGE_MS_MAX), 1_000);
        assert_eq!(fresh.lasts_ms(EPOCH_AGE_MS_MAX + 1_000), 0);
        let used = Usage { envelopes: EPOCH_ENVELOPES_MAX - 1, ..fresh };
        assert!(used.lasts_ms(1_000) > 0);
        assert_eq!(Usage { envelopes: EPOCH_ENVELOPES_MAX, ..fresh }.lasts_ms(1_000), 0);
    }
}
