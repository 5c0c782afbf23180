//! What people see of the folder's thread while it works.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weft_agent_core::disk::RelPath;

/// Sentences kept of each kind: more help nobody.
const NOTES_MAX: usize = 64;
/// Paths that a sentence names.
const NAMED_MAX: usize = 3;
/// A failure that did not repeat for so long is over: the core retries more often.
const FAILURE_LASTS: Duration = Duration::from_secs(1200);

/// Counters and sentences.
#[derive(Default)]
pub(crate) struct Glance {
    /// Files to read in the look under way, and read so far.
    to_read: AtomicU64,
    have_read: AtomicU64,
    /// Sentences about what is not carried or not watched.
    notes: Mutex<Vec<String>>,
    /// Sentences about what cannot be read.
    closed: Mutex<Vec<String>>,
    /// Paths at which something could not be done, when, and why.
    failures: Mutex<BTreeMap<RelPath, (Instant, String)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Glance {
    /// A look begins (or, with 0, ends).
    pub(crate) fn reading(&self, files: u64) {
        self.have_read.store(0, Ordering::Relaxed);
        self.to_read.store(files, Ordering::Relaxed);
    }
    /// So many more files were read.
    pub(crate) fn read(&self, files: usize) {
        self.have_read.fetch_add(files as u64, Ordering::Relaxed);
    }
    /// Files of the look under way that are still to be read.
    pub(crate) fn to_read(&self) -> u64 {
        self.to_read.load(Ordering::Relaxed).saturating_sub(self.have_read.load(Ordering::Relaxed))
    }
    /// Replaces the notes of the last whole look.
    pub(crate) fn set_notes(&self, notes: Vec<String>) {
        *lock(&self.notes) = notes;
    }
    /// Replaces those about what cannot be read.
    pub(crate) fn set_closed(&self, notes: Vec<String>) {
        *lock(&self.closed) = notes;
    }
    /// What cannot be read now, and so stands still while all else goes on; empty: nothing.
    pub(crate) fn closed(&self) -> Vec<String> {
        lock(&self.closed).clone()
    }
    /// Something was tried at a path; `Err` says why it failed.
    pub(crate) fn tried(&self, path: &RelPath, result: Result<(), &str>, now: Instant) {
        let mut failures = lock(&self.failures);
        match result {
            Ok(()) => {
                failures.remove(path);
            }
            Err(why) if failures.len() < NOTES_MAX || failures.contains_key(path) => {
                failures.insert(path.clone(), (now, why.to_owned()));
            }
            Err(_) => {}
        }
    }
    /// All sentences for `weft status`.
    pub(crate) fn problems(&self, now: Instant) -> Vec<String> {
        let mut all = lock(&self.notes).clone();
        all.extend(lock(&self.closed).iter().cloned());
        let mut failures = lock(&self.failures);
        failures.retain(|_, (at, _)| now.saturating_duration_since(*at) < FAILURE_LASTS);
        let mut by_reason: BTreeMap<&str, Vec<&RelPath>> = BTreeMap::new();
        for (path, (_, why)) in failures.iter() {
            by_reason.entry(why).or_default().push(path);
        }
        all.extend(by_reason.into_iter().map(|(why, paths)| {
            let shown = paths.iter().take(NAMED_MAX).map(|path| path.as_str()).collect::<Vec<_>>().join(", ");
            let more = paths.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{shown}{more} could not be brought up to date ({why}); nothing is lost, it is tried again")
        }));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failure is named until it goes well or does not come back; one reason is one line.
    #[test]
    fn failures_are_named_until_they_are_over() {
        let (glance, now) = (Glance::default(), Instant::now());
        let path = |text: &str| RelPath::new(text).unwrap();
        glance.set_notes(vec!["a note".to_owned()]);
        glance.tried(&path("a"), Err("no"), now);
        glance.tried(&path("b"), Err("no"), now);
        glance.tried(&path("a"), Ok(()), now);
        let problems = glance.problems(now);
        assert!(problems.len() == 2 && problems[1].starts_with("b could not"), "{problems:?}");
        for n in 0..60 {
            glance.tried(&path(&format!("f{n:02}")), Err("the disk is full"), now);
        }
        let problems = glance.problems(now);
        assert!(problems.len() == 3, "{problems:?}");
        assert!(problems[2].starts_with("f00, f01, f02 and 57 more could not"), "{problems:?}");
        assert_eq!(glance.problems(now + FAILURE_LASTS), ["a note"]);
    }
}
