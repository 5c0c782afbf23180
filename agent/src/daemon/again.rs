//! When a workspace that ended is opened again, and what is said of it.
//!
//! Invariant: every end but one that a person must answer is tried again, at a cost that stays small; a full disk is
//! waited out by looking for room, not by opening everything in vain. One cause is one line in the log, however often it
//! comes back.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::host::End;
use crate::store::StoreError;

/// First and last wait before a failed workspace is opened again.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);
/// A damaged database does not heal by itself, and every open would only read it all again.
const DAMAGED: Duration = Duration::from_secs(3600);
/// While the disk is full, room is looked for this often: a look writes only [`ROOM_BYTES`].
const ROOM_EVERY: Duration = Duration::from_secs(2);
/// So much must be free before a workspace is opened again: less would be full again with the next edit.
const ROOM_BYTES: usize = 512 * 1024;

/// What is remembered between one end and the next.
#[derive(Default)]
pub(super) struct Again {
    wait: Option<Duration>,
    said: String,
}

impl Again {
    /// How long to wait after an end of a run that took `ran`.
    pub(super) fn after(&mut self, end: Option<&End>, ran: Duration) -> Duration {
        if ran > LAST {
            self.wait = None;
            self.said.clear();
        }
        match end {
            Some(End::Store(StoreError::Damaged { .. } | StoreError::Newer { .. })) => DAMAGED,
            Some(end) if end.is_full_disk() => ROOM_EVERY,
            Some(_) | None => {
                let wait = self.wait.unwrap_or(FIRST);
                self.wait = Some((wait * 2).min(LAST));
                wait
            }
        }
    }

    /// Whether this has not just been said.
    pub(super) fn is_news(&mut self, why: &str) -> bool {
        let news = self.said != why;
        if news {
            why.clone_into(&mut self.said);
        }
        news
    }
}

/// Whether there is room in a folder: tried, because quotas and reserves show in no figure.
pub(super) fn has_room(dir: &Path) -> bool {
    let write = || -> std::io::Result<()> {
        let mut probe = tempfile::Builder::new().prefix(".weft-new-").tempfile_in(dir)?;
        probe.write_all(&[0xa5; ROOM_BYTES])?;
        // Some file systems find out that there is no room only here.
        probe.as_file().sync_data()
    };
    !write().is_err_and(|error| crate::durable::is_full(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> End {
        End::Store(StoreError::Full { path: "/x".into() })
    }

    /// Waits double up to a minute and begin anew after a run that lasted; a full disk is looked at steadily; damage waits
    /// for a person.
    #[test]
    fn waits_fit_the_cause() {
        let mut again = Again::default();
        let soon = Duration::from_millis(5);
        let fault = || End::Panicked("x".to_owned());
        let waits: Vec<u64> = (0..8).map(|_| again.after(Some(&fault()), soon).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(again.after(Some(&full()), soon), ROOM_EVERY);
        let no_room = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(again.after(Some(&End::Watermark(no_room)), soon), ROOM_EVERY);
        assert_eq!(again.after(None, LAST * 2), FIRST);
        let damaged = StoreError::Damaged { path: "/x".into(), what: String::new() };
        assert_eq!(again.after(Some(&End::Store(damaged)), soon), DAMAGED);
    }

    /// The same cause is said once until another comes between.
    #[test]
    fn one_cause_is_said_once() {
        let mut again = Again::default();
        let said: Vec<bool> = ["full", "full", "full", "busy", "full"].iter().map(|why| again.is_news(why)).collect();
        assert_eq!(said, [true, false, false, true, true]);
    }

    /// Where there is room the look for it leaves nothing behind; where it cannot tell, it does not hold things up.
    #[test]
    fn looking_for_room_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(has_room(dir.path()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(has_room(&dir.path().join("gone")));
    }
}
