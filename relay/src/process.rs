//! What this process takes of its machine, as Prometheus' own libraries name it: memory, processor time, open files.
//!
//! Read from `/proc` when somebody asks. Elsewhere than on Linux there is nothing to read, and nothing is shown.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Ticks a second of `/proc/PID/stat`: the kernel scales them to this for every program (`USER_HZ`, part of its interface).
const TICKS_PER_SECOND: f64 = 100.0;

/// Of one moment; what could not be read is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcessFigures {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) open_files: Option<u64>,
    pub(crate) open_files_max: Option<u64>,
}

impl ProcessFigures {
    pub(crate) fn now() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        Self {
            cpu_seconds: cpu_seconds(&read("stat")),
            resident_bytes: resident_bytes(&read("status")),
            // The folder itself is open while it is read.
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1)),
            open_files_max: open_files_max(&read("limits")),
        }
    }
}

/// Seconds since the Unix epoch.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// The fields behind the program's name, which may hold spaces and brackets: the 12th and 13th are user and system time.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let ticks = |field: Option<&str>| field?.parse::<u64>().ok();
    let (user, system) = (ticks(fields.next())?, ticks(fields.next())?);
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// `None` too where there is no limit.
fn open_files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        let stat = "4711 (a ) name) S 1 4711 4711 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 4 0 100 9000 300";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(resident_bytes("Name:\tweft-relay\nVmRSS:\t   10240 kB\n"), Some(10 << 20));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 1048576              files     \n";
        assert_eq!(open_files_max(limits), Some(1024));
        for text in ["", "nonsense", "Max open files            unlimited            unlimited            files"] {
            assert_eq!((cpu_seconds(text), resident_bytes(text), open_files_max(text)), (None, None, None));
        }
    }
}
