//! Time as an argument: no core reads a clock.
//!
//! Invariant: deadlines are compared on the monotonic part only; the wall part is what people see and what ops and
//! changes carry, and no decision about power or order depends on it. Why: home computers have wrong clocks, and
//! laptops sleep.

/// Milliseconds a day has.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Milliseconds since some start of the machine's monotonic clock; never goes back while the agent runs.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch, as the computer believes.
    pub wall_ms: u64,
}

/// The wait after `times` failures: `first_ms`, twice as long each time, up to `max_ms`.
#[must_use]
pub fn doubled(first_ms: u64, times: u32, max_ms: u64) -> u64 {
    first_ms.saturating_mul(1u64.checked_shl(times).unwrap_or(u64::MAX)).min(max_ms)
}

impl Timestamp {
    /// The monotonic instant `ms` milliseconds from here.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> u64 {
        self.mono_ms.saturating_add(ms)
    }
}
