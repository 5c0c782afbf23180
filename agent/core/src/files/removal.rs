//! Why something may leave the disk.
//!
//! Invariant: the planner removes only what it can name a reason for, and the reason is in the documents or was written
//! down with the record: a deletion that covers all that there is of it, another version that replaced it, a twin at the
//! same path. That a document says nothing of a file is no reason. Why: a lost row says nothing either, and silence once
//! took a dozen files from a disk. Spec: docs/files.md#safety.

use crate::disk::Removal;
use crate::files::entry::{Kind, Registers};
use crate::files::names::start_of;
use crate::files::record::{Key, Record};
use crate::files::tree::Tree;
use crate::files::{Cx, Files};
use crate::id::VersionHash;

/// Whether a bucket says anything of the version that a key stands for.
fn names_variant(registers: &Registers, key: Key) -> bool {
    let of_key = |version: &VersionHash| start_of(version) == key.variant;
    registers.versions().iter().any(|version| of_key(&version.hash))
        || registers.replaced().iter().any(|known| of_key(&known.version))
        || registers.deletions.iter().flat_map(|deletion| &deletion.known).any(|known| of_key(&known.version))
}

impl Files {
    /// Why what is on disk for a key, and is not shown any more, may go; `None`: nobody can say, so it stays.
    pub(crate) fn reason_to_remove(&mut self, key: Key, record: &Record, cx: &Cx<'_, '_>) -> Option<Removal> {
        // What ceased to count leaves the documents; its record says so.
        let fell = record.now.iter().chain(&record.pending).any(|base| base.void.is_some());
        let revoked = fell.then_some(Removal::Revoked);
        let Some(entry) = self.tree.entries.get(&key.id) else { return revoked };
        if self.shown.not_carried.contains_key(&key) {
            return Some(Removal::NotCarried);
        }
        if entry.kind == Kind::Folder {
            return Some(if entry.deleted { Removal::Deleted } else { Removal::Merged });
        }
        let (lives, deleted) = (entry.lives(), entry.deleted);
        let registers = Tree::registers(&key.id, &mut self.documents, cx.tx)?;
        if !key.is_main() {
            return names_variant(&registers, key).then_some(Removal::Replaced).or(revoked);
        }
        match (lives, deleted) {
            (true, _) => Some(Removal::Twin),
            (false, true) => Some(Removal::Deleted).filter(|_| !registers.versions().is_empty()).or(revoked),
            (false, false) => revoked,
        }
    }
}
