//! Cuts what the shell saw into parts that each take a moment to take in.
//!
//! Invariant: the parts, taken in one after the other, come to the same as the whole: everything but edits of known files
//! stands in the first, in the order given, because moves are found by comparing those; edits of known files follow, which
//! do not depend on one another. Why: an edit of a long text takes tens of milliseconds, a branch that is checked out edits
//! hundreds of files, and people who ask something meanwhile are answered between two parts. Spec: docs/files.md#taking-in.

use crate::disk::{FileBytes, Found, Seen};
use crate::files::Files;
use crate::files::entry::Kind;

/// Bytes of edited texts in one part; a longer text is a part of its own.
const PART_BYTES: usize = 64 * 1024;
/// What an edit costs beyond its bytes, as bytes: its document is loaded, its base compared.
const EDIT_BYTES: usize = 2 * 1024;

impl Files {
    /// The parts of what was seen, in the order in which they are to be taken in.
    #[must_use]
    pub fn slices(&self, seen: Vec<Seen>) -> Vec<Vec<Seen>> {
        let (mut first, mut parts) = (Vec::new(), Vec::new());
        let (mut part, mut bytes) = (Vec::new(), 0);
        for one in seen {
            let Some(cost) = self.cost_of_edit(&one) else {
                first.push(one);
                continue;
            };
            if !part.is_empty() && bytes + cost > PART_BYTES {
                parts.push(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += cost;
            part.push(one);
        }
        parts.extend((!part.is_empty()).then_some(part));
        if !first.is_empty() {
            parts.insert(0, first);
        }
        parts
    }

    /// What it costs to take this in, if it is an edit of a known file.
    fn cost_of_edit(&self, seen: &Seen) -> Option<usize> {
        // What a write under way or an open program has to do with it is told apart where the whole is seen.
        if seen.unfinished.is_some() || seen.made_on.is_some() {
            return None;
        }
        let Found::File { bytes: FileBytes::Here(bytes), .. } = &seen.found else { return None };
        let key = self.records.at(&seen.path)?;
        let known = self.records.brief(key)?;
        // What is missed, or may turn out to be another file, is looked at together with what came.
        let stays = known.kind == Kind::File && known.hash.is_some() && self.tree.entries.contains_key(&key.id);
        (stays && !self.gone.contains(key)).then_some(bytes.len() + EDIT_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::disk::{RelPath, Stat};
    use crate::files::Identity;
    use crate::files::entry::{Place, ROOT_ID};
    use crate::files::record::{Key, OnDisk, Record};
    use crate::files::tree::Entry;
    use crate::id::{ChainId, DeviceId, FileId, VersionHash, WorkspaceId};
    use crate::store::{MemoryStore, Tx};

    fn seen(path: &str, len: usize) -> Seen {
        let bytes = FileBytes::Here(Bytes::from(vec![b'x'; len]));
        let found = Found::File { bytes, executable: false, stat: Stat::default() };
        Seen::new(RelPath::new(path).unwrap(), found)
    }

    /// New files stay together and come first; edits follow in their order, in parts of a bounded size, each of them once.
    #[test]
    fn edits_are_cut_and_the_rest_stays_whole() {
        let chain = ChainId { device: DeviceId([1; 16]), incarnation: 1 };
        let store = MemoryStore::default();
        let mut files = Files::open(Identity { workspace: WorkspaceId([2; 32]), chain }, &store);
        let tx = Tx::new(&store);
        for n in 0..20u8 {
            let key = Key::main(FileId([n; 16]));
            let hash = VersionHash([n; 32]);
            let now =
                OnDisk { hash, executable: false, version: hash, heads: vec![], target: String::new(), void: None };
            let path = RelPath::new(&format!("old{n}")).unwrap();
            let kind = Kind::File;
            let record = Record { now: Some(now), ..Record::new(path, kind) };
            files.records.put(key, &record, &tx);
            let place = Place { parent: ROOT_ID, name: format!("old{n}").into() };
            let entry = Entry { place, kind, executable: false, deleted: false, alternatives: Box::default() };
            files.tree.entries.insert(key.id, entry);
        }
        let mut all = Vec::new();
        for n in 0..20 {
            all.push(seen(&format!("new{n}"), 100_000));
            all.push(seen(&format!("old{n}"), if n == 3 { 200_000 } else { 20_000 }));
        }
        let parts = files.slices(all);
        let names: Vec<Vec<String>> =
            parts.iter().map(|part| part.iter().map(|one| one.path.to_string()).collect()).collect();
        assert!(names[0].len() == 20 && names[0].iter().all(|name| name.starts_with("new")), "{names:?}");
        assert!(names[1..].iter().all(|part| (1..=3).contains(&part.len())), "{names:?}");
        let edits: Vec<String> = names[1..].concat();
        assert_eq!(edits, (0..20).map(|n| format!("old{n}")).collect::<Vec<_>>());
        assert!(files.slices(Vec::new()).is_empty());
    }
}
