//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Long enough for anything that should happen at once, on a busy machine.
pub const SHORT: Duration = Duration::from_secs(20);
/// Long enough for a sync of a few thousand files, or a reconnect with back-off, on a busy machine.
pub const LONG: Duration = Duration::from_secs(120);

/// Polls `condition` until it gives a value; fails, naming `what`, when `deadline` has passed.
pub fn wait<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {} s in vain for {what}", deadline.as_secs());
        }
        // Between two looks only: it bounds how often we look, and decides nothing.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
