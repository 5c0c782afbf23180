//! What in the folder cannot be read: a container's database folder, a file of another user.
//!
//! Invariant: what is known at or below a closed path is neither missing nor changed, so nothing is concluded about it and
//! nothing else waits for it. It is named until it can be read again, is gone, or is kept out by a rule.
//! Spec: docs/files.md#what-cannot-be-read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use weft_agent_core::disk::RelPath;

use super::known::Paths;

/// How often it is tried whether something can be read again.
const TRY_EVERY: Duration = Duration::from_secs(10);
/// So many paths are tried at once, and remembered of files.
const TRIED_MAX: usize = 64;
/// Paths that a sentence names.
const NAMED_MAX: usize = 5;

/// Everything that is closed to us.
#[derive(Default)]
pub(super) struct Closed {
    /// Paths that a look could not enter, with the reason; whatever is below them is unknown.
    folders: BTreeMap<String, String>,
    files: BTreeMap<RelPath, String>,
    next: Option<Instant>,
}

impl Closed {
    /// A whole look found these.
    pub(super) fn scanned(&mut self, unreadable: &[(String, String)], now: Instant) {
        self.folders = unreadable.iter().cloned().collect();
        // What is still closed is found again when the files are read.
        self.files.clear();
        self.try_later(now);
    }
    /// A look at a part found these.
    pub(super) fn noticed(&mut self, unreadable: &[(String, String)], now: Instant) -> bool {
        let before = self.folders.len();
        self.folders.extend(unreadable.iter().cloned());
        self.try_later(now);
        self.folders.len() > before
    }
    /// A file could not be read.
    pub(super) fn failed(&mut self, path: &RelPath, why: String, now: Instant) {
        if !self.covers(path) && (self.files.len() < TRIED_MAX || self.files.contains_key(path)) {
            self.files.insert(path.clone(), why);
            self.try_later(now);
        }
    }
    /// It was read, or is gone. True: it was closed before.
    pub(super) fn opened(&mut self, path: &RelPath) -> bool {
        self.files.remove(path).is_some()
    }
    fn try_later(&mut self, now: Instant) {
        let any = !self.folders.is_empty() || !self.files.is_empty();
        self.next = any.then_some(now + TRY_EVERY);
    }
    /// Whether a path is, or lies in, what cannot be entered.
    pub(super) fn covers(&self, path: &RelPath) -> bool {
        std::iter::successors(Some(path.clone()), RelPath::parent).any(|at| self.folders.contains_key(at.as_str()))
    }
    /// When something is to be tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
    /// Whether anything can be read again, or is gone: then a whole look says more.
    pub(super) fn is_mended(&mut self, root: &Path, now: Instant) -> bool {
        if self.next.is_none_or(|due| now < due) {
            return false;
        }
        self.try_later(now);
        let files = self.files.keys().map(RelPath::as_str);
        self.folders.keys().map(String::as_str).chain(files).take(TRIED_MAX).any(|path| is_open(&root.join(path)))
    }
    /// Sentences for people, one a reason.
    pub(super) fn notes(&self, known: &Paths) -> Vec<String> {
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (path, why) in &self.folders {
            by_reason.entry(why).or_default().push(path);
        }
        for (path, why) in &self.files {
            by_reason.entry(why).or_default().push(path.as_str());
        }
        let stands_still = known.keys().filter(|path| self.covers(path)).count();
        let mut notes: Vec<String> = by_reason
            .into_iter()
            .map(|(why, paths)| {
                let shown = paths.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
                let more = paths.len().saturating_sub(NAMED_MAX);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!(
                    "{shown}{more} cannot be read ({why}) and is left as it is; all else goes on. Make it readable, or name it \
                     in .weftignore"
                )
            })
            .collect();
        if stands_still > 0 {
            notes.push(format!(
                "what cannot be read held {stands_still} shared files and folders: they are neither sent nor brought up to date \
                 until it can"
            ));
        }
        notes
    }
}

/// A folder that can be listed and entered, or anything else that can be read; what is gone is not closed either.
fn is_open(path: &Path) -> bool {
    let read = path.symlink_metadata().and_then(|meta| {
        if meta.is_dir() {
            let first = std::fs::read_dir(path)?.next().transpose()?;
            return first.map_or(Ok(()), |entry| entry.path().symlink_metadata().map(drop));
        }
        // Opening a pipe would wait for its other end.
        if meta.is_file() { std::fs::File::open(path).map(drop) } else { Ok(()) }
    });
    match read {
        Ok(()) => true,
        Err(error) => super::look::is_absence(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::known::Known;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    /// What is in a closed folder is covered, what only begins alike is not; reasons are said once each.
    #[test]
    fn what_is_closed_is_covered_and_named() {
        let now = Instant::now();
        let mut closed = Closed::default();
        assert_eq!(closed.next(), None);
        let denied = |path: &str| (path.to_owned(), "denied".to_owned());
        closed.scanned(&["db", "x/y", "p", "q", "r", "s"].map(denied), now);
        assert!(closed.covers(&path("db")) && closed.covers(&path("db/base/1")) && closed.covers(&path("x/y/z")));
        assert!(!closed.covers(&path("db2")) && !closed.covers(&path("x")));
        closed.failed(&path("db/1"), "other".to_owned(), now);
        let known: Paths = [("db/1", Known::Folder), ("a", Known::Folder)].map(|(at, known)| (path(at), known)).into();
        let notes = closed.notes(&known);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("db, p, q, r, s and 1 more cannot be read (denied)"), "{notes:?}");
        assert!(notes[1].contains("held 1 shared"), "{notes:?}");
        closed.failed(&path("f"), "broken".to_owned(), now);
        assert!(closed.notes(&known).iter().any(|note| note.starts_with("f cannot be read (broken)")));
        assert!(closed.opened(&path("f")) && !closed.opened(&path("f")));
        closed.scanned(&[], now);
        assert_eq!((closed.next(), closed.notes(&known)), (None, Vec::new()));
    }

    /// It is tried after a while whether something can be read again; what is gone can, and what is still closed cannot.
    #[test]
    fn what_is_mended_is_found_out() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (now, later) = (Instant::now(), Instant::now() + TRY_EVERY);
        let shut = dir.path().join("shut");
        std::fs::create_dir(&shut).unwrap();
        let mut closed = Closed::default();
        closed.scanned(&[("shut".to_owned(), "denied".to_owned())], now);
        assert!(!closed.is_mended(dir.path(), now), "not yet");
        assert!(closed.is_mended(dir.path(), later), "it can be read");
        let mode = |mode| std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o000);
        // Root reads everything.
        if std::fs::read_dir(&shut).is_err() {
            assert!(!closed.is_mended(dir.path(), later + TRY_EVERY), "still closed");
        }
        mode(0o700);
        std::fs::remove_dir(&shut).unwrap();
        assert!(closed.is_mended(dir.path(), later + TRY_EVERY * 2), "gone");
    }
}
