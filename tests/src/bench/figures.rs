//! A distribution of times, printed by its percentiles.

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

/// Times from 1 µs to 10 minutes, with three digits.
pub struct Figures(Histogram<u64>);

impl Figures {
    /// None yet.
    pub fn new() -> Result<Self> {
        Histogram::new_with_bounds(1, 600_000_000, 3).map(Self).context("no histogram")
    }

    /// Adds one; what is longer than ten minutes counts as ten minutes.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A quantile (0 to 1), in milliseconds.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// One line: count, P50, P95, P99, longest.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "n={} P50={:.2} ms P95={:.2} ms P99={:.2} ms max={:.2} ms",
            self.count(),
            self.quantile_ms(0.5),
            self.quantile_ms(0.95),
            self.quantile_ms(0.99),
            self.0.max() as f64 / 1000.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 1 to 100 ms, the median is 50 and the 95th percentile 95.
    #[test]
    fn quantiles_are_those_of_what_was_recorded() -> Result<()> {
        let mut figures = Figures::new()?;
        for ms in 1..=100 {
            figures.record(Duration::from_millis(ms));
        }
        assert!((figures.quantile_ms(0.5) - 50.0).abs() < 0.5);
        assert!((figures.quantile_ms(0.95) - 95.0).abs() < 0.5);
        Ok(())
    }
}
