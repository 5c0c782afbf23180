//! What the core was last told of each path, so that only differences are told again.
//!
//! Invariant: a stat is trusted only if the file was older than the clock's grain when it was read; a younger one is
//! read again at the next look. Why: two writes within one tick leave the same times, and often the same size.

use std::collections::BTreeMap;

use weft_agent_core::disk::{RelPath, Stat};
use weft_agent_core::files::{known_files, known_folders};
use weft_agent_core::id::VersionHash;
use weft_agent_core::store::Read;

/// Coarsest grain of a time stamp that is still common (FAT has two seconds).
const GRAIN_NS: i64 = 2_000_000_000;

/// What is known of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// A file: its content, its bit, its inode, and its stat if that can be trusted.
    File { hash: VersionHash, executable: Option<bool>, inode: u64, stat: Option<Stat> },
    /// A link and where it points.
    Symlink(String),
    /// A folder.
    Folder,
    /// Something, of which the core is to be told anew whatever it was; its content, if it was a file.
    Untold(Option<VersionHash>),
}

impl Known {
    /// The content of a file.
    pub(crate) fn held(&self) -> Option<VersionHash> {
        match self {
            Known::File { hash, .. } => Some(*hash),
            Known::Untold(held) => *held,
            Known::Symlink(_) | Known::Folder => None,
        }
    }
}

/// All of them.
pub(crate) type Paths = BTreeMap<RelPath, Known>;

/// What the core was told before this run.
pub(crate) fn stored(read: &dyn Read) -> Paths {
    let files = known_files(read).map(|file| {
        let stat = (file.stat.ctime_ns != 0).then_some(file.stat);
        // Without a stat it is read again, and told, so that the core has one.
        let (hash, executable, inode) = (file.hash, stat.map(|_| file.executable), file.stat.inode);
        (file.path, Known::File { hash, executable, inode, stat })
    });
    files.chain(known_folders(read).map(|path| (path, Known::Folder))).collect()
}

/// Whether times so young could hide a later write. `now_ns`: wall clock when the reading ended.
pub(crate) fn is_racy(stat: &Stat, now_ns: i64) -> bool {
    // Only whole seconds: a coarse file system. Otherwise the kernel's tick, at most 10 ms.
    let coarse = stat.mtime_ns % 1_000_000_000 == 0 && stat.ctime_ns % 1_000_000_000 == 0;
    let grain = if coarse { GRAIN_NS } else { 20_000_000 };
    let youngest = stat.mtime_ns.max(stat.ctime_ns);
    youngest > now_ns.saturating_sub(grain)
}

/// The wall clock in nanoseconds.
pub(crate) fn now_ns() -> i64 {
    i64::try_from(crate::clock::wall_ms()).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fresh times are not trusted, older ones are, and whole seconds need two of them.
    #[test]
    fn young_stats_are_racy() {
        let stat = |ns: i64| Stat { mtime_ns: ns, ctime_ns: ns, size: 1, inode: 1 };
        let now = 1_000_000_000_500_000_000;
        assert!(is_racy(&stat(now - 1_000_001), now));
        assert!(!is_racy(&stat(now - 50_000_001), now));
        assert!(is_racy(&stat(999_999_999_000_000_000), now));
        assert!(is_racy(&stat(now + 10_000_000_000), now), "a time in the future is never trusted");
    }
}
