//! Which contents of large files this folder does not hold.
//!
//! Invariant: a version that a file holds now, and whose bytes travel in pieces, counts as lacking until a look or a write
//! found it in the folder; while the folder stands still, nothing in it counts as found. Why: others go by it when they
//! say that this machine holds everything. Spec: docs/sync.md#held-and-settled.

use std::collections::BTreeMap;

use crate::content::INLINE_BYTES_MAX;
use crate::files::Files;
use crate::files::names::start_of;
use crate::files::record::{Key, Record};
use crate::files::tree::Entry;
use crate::id::VersionHash;

impl Entry {
    /// Whether any of its contents travels in pieces.
    pub(super) fn has_blobs(&self) -> bool {
        self.alternatives.iter().any(|one| one.version.blob)
    }
}

impl Record {
    /// Whether what is there travels in pieces.
    pub(super) fn is_blob(&self) -> bool {
        self.stat.size > INLINE_BYTES_MAX as u64
    }
}

impl Files {
    /// Whether what [`Files::not_in_folder`] says may be another than before; asked once.
    pub(crate) fn blobs_moved(&mut self) -> bool {
        let halted = self.halt.is_some();
        let moved = [
            core::mem::take(&mut self.tree.blobs_moved),
            core::mem::take(&mut self.records.blobs_moved),
            core::mem::replace(&mut self.was_halted, halted) != halted,
        ];
        moved.contains(&true)
    }

    /// Whether any file here is so large that it travels in pieces.
    pub(crate) fn has_blobs(&self) -> bool {
        !self.tree.blobs.is_empty()
    }

    /// The versions of large files that are not in the folder, and their lengths.
    pub(crate) fn not_in_folder(&self) -> BTreeMap<VersionHash, u64> {
        let mut lacking = BTreeMap::new();
        for id in &self.tree.blobs {
            let Some(entry) = self.tree.entries.get(id) else { continue };
            let here: Vec<VersionHash> = if self.halt.is_some() {
                Vec::new()
            } else {
                self.records.of(*id).into_iter().filter_map(|key| self.records.brief(key)?.hash).collect()
            };
            for (index, one) in entry.alternatives.iter().enumerate().filter(|(_, one)| one.version.blob) {
                let variant = if index == 0 { [0; 8] } else { start_of(&one.version.hash) };
                let key = Key { id: *id, variant };
                // Another with the same content is at its path, and counts.
                let is_shown = self.shown.paths.contains_key(&key) || self.shown.not_carried.contains_key(&key);
                let hidden = self.moved.is_none() && !is_shown;
                if !hidden && !here.contains(&one.version.hash) {
                    lacking.insert(one.version.hash, one.version.len);
                }
            }
        }
        lacking
    }
}
