//! What a program goes on writing into a file that our write has replaced.
//!
//! The program has the old file open, and what it writes there is a person's as much as any edit. Invariant: it is entered at
//! what that file held, so it takes out nothing that our write brought; and whatever became of the file meanwhile, it is
//! nowhere lost. Spec: docs/files.md#open-files.

use crate::files::diff::diff;
use crate::files::entry::Kind;
use crate::files::ingest::Look;
use crate::files::record::{Key, OnDisk, RECENT_MAX, Record};
use crate::files::tree::Tree;
use crate::files::{Cx, Files, LogEvent, text};
use crate::id::VersionHash;

impl Files {
    /// Takes in what was made of a file that was at this path, and held `made_on` when it was told of last.
    pub(super) fn take_elsewhere(&mut self, made_on: VersionHash, look: Look, cx: &mut Cx<'_, '_>) {
        if look.hash == made_on {
            return;
        }
        let is_file = |record: &Record| record.kind == Kind::File && (record.now.is_some() || record.pending.is_some());
        let key = self.records.at(&look.path).filter(|key| key.is_main() && self.tree.entries.contains_key(&key.id));
        let Some((key, mut record)) = key.and_then(|key| Some((key, self.records.whole(key, cx.tx).filter(is_file)?)))
        else {
            // Deleted or moved since: what goes on being written is a file again.
            let (key, _) = self.enter_new(&look, cx);
            self.work.add([key]);
            return;
        };
        match self.enter_elsewhere(key, &record, made_on, &look, cx) {
            Some(content) => {
                // The program goes on from here.
                let at = record.recent.iter().position(|(old, _)| old.hash == made_on);
                match at.and_then(|at| record.recent.get_mut(at)) {
                    Some((old, _)) => *old = content,
                    None => record.recent.insert(0, (content, cx.now.wall_ms)),
                }
                record.recent.truncate(RECENT_MAX);
                self.records.put(key, &record, cx.tx);
            }
            None => self.put_beside(key, &look, cx),
        }
        self.log(cx, None, LogEvent::Edited(look.path.clone()));
        self.work.add([key]);
    }

    /// Enters it as an edit of the text; `None`: it cannot be.
    fn enter_elsewhere(
        &mut self,
        key: Key,
        record: &Record,
        made_on: VersionHash,
        look: &Look,
        cx: &mut Cx<'_, '_>,
    ) -> Option<OnDisk> {
        let new = look.inline().filter(|_| look.is_text()).and_then(|bytes| text::split(bytes))?;
        let recent = record.recent.iter().map(|(old, _)| old);
        let base = record.now.iter().chain(recent).find(|known| known.hash == made_on && known.void.is_none()).cloned();
        let Some(base) = base else {
            // Nobody knows any more what that file held: the nearest of what is known.
            return self.enter_text(key, record, look, &new, cx);
        };
        let old = self.text_at(key.id, &base, cx)?;
        let edit = text::Edit { hunks: diff(&old.1, &new.1), style: (old.0, new.0) };
        let (version, heads) = self.enter_at(key.id, &base, &edit, cx)?;
        Some(look.on_disk(version, heads))
    }

    /// As a version that stands beside those there are.
    fn put_beside(&mut self, key: Key, look: &Look, cx: &mut Cx<'_, '_>) {
        let registers = Tree::registers(&key.id, &mut self.documents, cx.tx);
        let replaced = registers.map(|registers| registers.replaced()).unwrap_or_default();
        let shown = self.tree.entries.get(&key.id).into_iter().flat_map(|entry| &entry.alternatives);
        let others = shown.map(|other| other.version).filter(|other| other.hash != look.hash).collect();
        self.put_version(key.id, look, others, replaced);
    }
}
