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
use weft_agent_core::id::VersionHash;

/// So long a file must be empty to be taken for emptied.
const EMPTIED: Duration = Duration::from_millis(1000);

/// Those that are waited for, and since when.
#[derive(Debug, Default)]
pub(crate) struct Emptied {
    since: BTreeMap<RelPath, Instant>,
}

impl Emptied {
    /// Until when to wait before the core is told that this is what a path holds; `None`: it may be told. `before`: the
    /// content that it was told of last, `found`: what is there, and the hash of that.
    pub(crate) fn wait(
        &mut self,
        path: &RelPath,
        before: Option<VersionHash>,
        found: (&Found, Option<VersionHash>),
        now: Instant,
    ) -> Option<Instant> {
        let is_empty = matches!(found.0, Found::File { bytes: FileBytes::Here(bytes), .. } if bytes.is_empty());
        // What was no file, or an empty one, was not emptied.
        let was_emptied = is_empty && before.is_some() && before != found.1;
        let due = *self.since.get(path).unwrap_or(&now) + EMPTIED;
        if !was_emptied || due <= now {
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

    use super::*;

    const NOTHING: VersionHash = VersionHash([0; 32]);
    const TEXT: VersionHash = VersionHash([1; 32]);

    fn look(emptied: &mut Emptied, before: Option<VersionHash>, bytes: &'static [u8], now: Instant) -> Option<Instant> {
        let hash = if bytes.is_empty() { NOTHING } else { TEXT };
        let bytes = FileBytes::Here(Bytes::from_static(bytes));
        let found = Found::File { bytes, executable: false, stat: Stat::default() };
        emptied.wait(&RelPath::new("n.md").unwrap(), before, (&found, Some(hash)), now)
    }

    /// What is empty for a moment is not told; what stays empty is; and each time is one of its own.
    #[test]
    fn a_file_must_stay_empty() {
        let (mut emptied, start, ms) = (Emptied::default(), Instant::now(), Duration::from_millis);
        assert_eq!(look(&mut emptied, Some(TEXT), b"", start), Some(start + EMPTIED));
        assert_eq!(look(&mut emptied, Some(TEXT), b"", start + ms(700)), Some(start + EMPTIED));
        assert_eq!(look(&mut emptied, Some(TEXT), b"x", start + ms(800)), None);
        let again = start + ms(900);
        assert_eq!(look(&mut emptied, Some(TEXT), b"", again), Some(again + EMPTIED), "from the beginning");
        assert_eq!(look(&mut emptied, Some(TEXT), b"", again + EMPTIED), None);
        assert!(emptied.since.is_empty());
    }

    /// Neither a new file nor one that was empty before waits.
    #[test]
    fn only_what_held_something_waits() {
        let (mut emptied, now) = (Emptied::default(), Instant::now());
        for before in [None, Some(NOTHING)] {
            assert_eq!(look(&mut emptied, before, b"", now), None);
        }
        assert!(look(&mut emptied, Some(TEXT), b"", now).is_some());
        emptied.forget(&RelPath::new("n.md").unwrap());
        assert!(emptied.since.is_empty());
    }
}
