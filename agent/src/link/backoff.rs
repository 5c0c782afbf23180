//! How long to wait before dialling again.
//!
//! Invariant: between half and the whole of a step that doubles from 0.2 s to 30 s; a link that was well for a while
//! begins anew. Why jitter: a relay that restarts must not meet everybody at the same moment.

use std::time::Duration;

/// First step.
const FIRST: Duration = Duration::from_millis(200);
/// Last step.
const LAST: Duration = Duration::from_secs(30);

/// The steps of one link.
pub(crate) struct Backoff {
    step: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { step: FIRST }
    }
}

impl Backoff {
    /// The next wait; `random` in 0..=u32::MAX spreads it.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let half = self.step / 2;
        let wait = half + half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.step = (self.step * 2).min(LAST);
        wait
    }
    /// It was well.
    pub(crate) fn reset(&mut self) {
        self.step = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps double from 0.2 s to 30 s, are spread over their upper half, and begin anew after a reset.
    #[test]
    fn doubles_spreads_and_resets() {
        let mut low = Backoff::default();
        let mut high = Backoff::default();
        let mut step = 200u128;
        for _ in 0..12 {
            assert_eq!(low.next(0).as_millis(), step / 2);
            assert_eq!(high.next(u32::MAX).as_millis(), step);
            step = (step * 2).min(30_000);
        }
        low.reset();
        assert_eq!(low.next(0), Duration::from_millis(100));
    }
}
