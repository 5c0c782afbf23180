//! Files that are empty and were not: most likely somebody is about to write them.
//!
//! Many programs save a file by emptying it and writing it anew. Whoever looks between the two, and takes what is there for
//! an edit, enters "everything was deleted" and then "all of this was written": what others wrote into that text at the same
//! time is then no longer where it belongs. Invariant: an emptied file is told of once it was empty for [`EMPTIED`], and what
//! was written meanwhile as the one edit that it is. Measured by the clock that does not jump, from the first look on: the
//! times in a file system may be anything. Spec: docs/files.md#folder.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_agent_core::disk::{FileBytes, Found, RelPath};

use super::known::Known;

/// So long a file must be empty to be taken for emptied.
const EMPTIED: Duration = Duration::from_millis(1000);

/// Those that are waited for, and since when.
#[derive(Debug, Default)]
pub(crate) struct Emptied {
    since: BTreeMap<RelPath, Instant>,
}

impl Emptied {
    /// Until when to wait before the core is told that this is what a path holds; `None`: it may be told. `before`: what it
    /// was told last.
    pub(crate) fn wait(
        &mut self,
        path: &RelPath,
        before: Option<&Known>,
        found: &Found,
        now: Instant,
    ) -> Option<Instant> {
        let is_empty = matches!(found, Found::File { bytes: FileBytes::Here(bytes), .. } if bytes.is_empty());
        // A file whose content was not empty, or one of which nothing is known: that is new, and none of this.
        let due = *self.since.get(path).filter(|_| is_empty).unwrap_or(&now) + EMPTIED;
        if !is_empty || before.and_then(Known::held).is_none() || due <= now {
            self.since.remove(path);
            return None;
        }
        self.since.entry(path.clone()).or_insert(now);
        Some(due)
    }

    /// Nothing is there any more.
    pub(crate) fn forget(&mut self, path: &RelPath) {
        self.since.remove(path);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use weft_agent_core::disk::Stat;
    use weft_agent_core::id::VersionHash;

    use super::*;

    fn file(bytes: &'static [u8]) -> Found {
        let bytes = FileBytes::Here(Bytes::from_static(bytes));
        Found::File { bytes, executable: false, stat: Stat::default() }
    }

    /// What is empty for a moment is not told; what stays empty is; and each time is one of its own.
    #[test]
    fn a_file_must_stay_empty() {
        let (mut emptied, path) = (Emptied::default(), RelPath::new("n.md").unwrap());
        let known = Known::File { hash: VersionHash([1; 32]), executable: None, stat: None };
        let (start, ms) = (Instant::now(), Duration::from_millis);
        assert_eq!(emptied.wait(&path, Some(&known), &file(b""), start), Some(start + EMPTIED));
        assert_eq!(emptied.wait(&path, Some(&known), &file(b""), start + ms(700)), Some(start + EMPTIED));
        assert_eq!(emptied.wait(&path, Some(&known), &file(b"x"), start + ms(800)), None);
        let again = start + ms(900);
        assert_eq!(emptied.wait(&path, Some(&known), &file(b""), again), Some(again + EMPTIED), "from the beginning");
        assert_eq!(emptied.wait(&path, Some(&known), &file(b""), again + EMPTIED), None);
        assert!(emptied.since.is_empty());
    }

    /// Neither a new file nor one that is no file any more waits; one of which the core is to be told anew does.
    #[test]
    fn only_what_held_something_waits() {
        let (mut emptied, path, now) = (Emptied::default(), RelPath::new("n.md").unwrap(), Instant::now());
        for before in [None, Some(Known::Folder), Some(Known::Untold(None)), Some(Known::Symlink("n".into()))] {
            assert_eq!(emptied.wait(&path, before.as_ref(), &file(b""), now), None);
        }
        let anew = Known::Untold(Some(VersionHash([1; 32])));
        assert!(emptied.wait(&path, Some(&anew), &file(b""), now).is_some());
        emptied.forget(&path);
        assert!(emptied.since.is_empty());
    }
}
