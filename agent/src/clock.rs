//! The one place that reads the clocks.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weft_agent_core::time::Timestamp;

static START: OnceLock<Instant> = OnceLock::new();

/// Both clocks now. The monotonic part counts from the first call in this process.
pub(crate) fn now() -> Timestamp {
    let start = *START.get_or_init(Instant::now);
    Timestamp { mono_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX), wall_ms: wall_ms() }
}

/// Milliseconds since the Unix epoch as the computer believes; 0 before it.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long until the monotonic instant `mono_ms`; zero if it is over.
pub(crate) fn until(mono_ms: u64) -> Duration {
    Duration::from_millis(mono_ms.saturating_sub(now().mono_ms))
}
