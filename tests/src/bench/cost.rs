//! What a process costs (Linux only: `/proc`).

use std::path::Path;

use anyhow::{Context, Result};

use crate::e2e::rss_kib;

/// Processor time and memory of a process at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// User and system time so far, in seconds.
    pub cpu_s: f64,
    /// Memory now, in KiB.
    pub rss_kib: u64,
}

impl Cost {
    /// Of a running process.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
        // Fields 14 and 15, counted behind the name, which may hold spaces and ends with the last parenthesis.
        let (_, fields) = stat.rsplit_once(") ").context("another /proc/PID/stat than expected")?;
        let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        // USER_HZ is 100 on every platform that Linux runs on.
        Ok(Self { cpu_s: ticks as f64 / 100.0, rss_kib: rss_kib(pid).context("no VmRSS")? })
    }
}

/// KiB of all files below a folder whose path holds `part`.
#[must_use]
pub fn files_kib(folder: &Path, part: &str) -> u64 {
    fn bytes(folder: &Path, part: &str) -> u64 {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.metadata() {
                Ok(found) if found.is_dir() => bytes(&entry.path(), part),
                Ok(found) if entry.path().to_string_lossy().contains(part) => found.len(),
                _ => 0,
            })
            .sum()
    }
    bytes(folder, part) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that works shows that it did.
    #[test]
    fn work_costs_processor_time() -> Result<()> {
        let before = Cost::of(std::process::id())?;
        let mut sum = 0u64;
        while Cost::of(std::process::id())?.cpu_s - before.cpu_s < 0.02 {
            sum = (0..100_000).fold(sum, |sum, number: u64| sum.wrapping_mul(31).wrapping_add(number));
        }
        assert!(before.rss_kib > 0 && sum != 1);
        Ok(())
    }
}
