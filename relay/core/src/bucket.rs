//! A token bucket: so many a second, so many at once after silence.
//!
//! Kept as the one moment at which the bucket will be full again (the generic cell rate algorithm, ITU-T I.371), so that
//! it costs 8 bytes and no timer. Time is an argument, which is why it is ours.

/// One limit, shared by all buckets of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Refill a second; at least 1 is taken.
    pub per_second: u32,
    /// What a full bucket holds.
    pub burst: u32,
}

/// One client's standing against a [`Rate`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it is full again, in microseconds.
    full_at_us: u64,
}

impl Bucket {
    /// Takes `cost` and tells for how many milliseconds nothing more should be taken: 0 while the bucket is not empty.
    /// It may go into debt, which the caller works off by waiting.
    pub fn take(&mut self, now_ms: u64, rate: Rate, cost: u32) -> u64 {
        let now_us = now_ms.saturating_mul(1000);
        let per_second = u64::from(rate.per_second.max(1));
        let time = |amount: u32| u64::from(amount) * 1_000_000 / per_second;
        self.full_at_us = self.full_at_us.max(now_us).saturating_add(time(cost));
        let empty_at_us = now_us.saturating_add(time(rate.burst));
        self.full_at_us.saturating_sub(empty_at_us).div_ceil(1000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rate = Rate { per_second: 100, burst: 3 };
        let mut bucket = Bucket::default();
        assert_eq!([0; 3].map(|_| bucket.take(0, rate, 1)), [0, 0, 0]);
        assert_eq!(bucket.take(0, rate, 1), 10);
        assert_eq!(bucket.take(10, rate, 1), 10);
        assert_eq!(bucket.take(10_000, rate, 3), 0);
    }

    proptest! {
        /// Whoever waits as told never gets more than the burst, what the time brought, and one message.
        #[test]
        fn no_schedule_beats_the_rate(gaps in proptest::collection::vec(0u64..50, 1..200)) {
            let rate = Rate { per_second: 100, burst: 5 };
            let (mut bucket, mut now, mut taken) = (Bucket::default(), 0, 0u64);
            for gap in gaps {
                now += gap;
                now += bucket.take(now, rate, 1);
                taken += 1;
                prop_assert!(taken <= 5 + 1 + now / 10);
            }
        }
    }
}
