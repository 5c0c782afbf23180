//! Files that are met again after what was known of the folder was lost.
//!
//! Without a record nobody knows what a file on the disk was made on. It is compared with every state that the documents
//! know of the file at its path: equal to one of them it is no edit, whatever was written since; nearest to one of them it
//! is an edit made on that; like none of them it is another file. Invariant: what is not on the disk was not deleted, and
//! nothing that is there is overwritten or removed unseen. Spec: docs/files.md#met-again.

use super::diff::{diff, weight};
use super::documents::ours;
use super::entry::Kind;
use super::ingest::Look;
use super::names::{Document, version_hash};
use super::record::{Key, OnDisk, Record, WHEN_REBORN};
use super::tree::Tree;
use super::{Cx, Files, Versions, text};
use crate::disk::{RelPath, Stat};
use crate::id::VersionHash;
use crate::store::Tx;
use crate::time::Timestamp;

/// Most states of a file that are compared, newest first; a text of more changes than that is rarely so far behind.
const STATES_MAX: usize = 1024;
/// Most bytes of text that are made for that.
const STATES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most states that an edit is compared with.
const NEAREST_OF_MAX: usize = 128;

impl Record {
    /// Whether nobody knows what is on disk here.
    pub(crate) fn is_refound(&self) -> bool {
        self.now.is_none() && self.recent.first().is_some_and(|(_, when)| *when == WHEN_REBORN)
    }
}

impl Files {
    /// Gives a record to every file that is shown and has none. The shell looks at everything afterwards.
    pub(crate) fn meet_again(&mut self, now: Timestamp, versions: &mut dyn Versions, tx: &Tx<'_>) {
        let cx = Cx { now, versions, tx };
        self.project(&cx);
        let shown: Vec<(Key, RelPath)> = self.shown.paths.iter().map(|(key, path)| (*key, path.clone())).collect();
        for (key, path) in shown {
            let free = self.records.brief(key).is_none() && self.records.at(&path).is_none();
            let Some(entry) = self.tree.entries.get(&key.id).filter(|entry| free && entry.kind == Kind::File) else {
                continue;
            };
            let executable = entry.executable;
            let Some(found) = self.alternative(key) else { continue };
            let heads = found.text.as_ref().map(|text| text.heads.clone()).unwrap_or_default();
            let (hash, version) = (found.hash(), found.version.hash);
            let shown = OnDisk { hash, executable, version, heads, target: String::new(), void: None };
            let recent = vec![(shown.clone(), WHEN_REBORN)];
            let record = Record { pending: Some(shown), guessed: true, recent, ..Record::new(path, Kind::File) };
            self.records.put(key, &record, tx);
            self.work.add([key]);
        }
    }

    /// Has the shell read these contents anew, where they are on disk.
    pub(crate) fn read_anew(&mut self, is_concerned: &dyn Fn(&VersionHash) -> bool, tx: &Tx<'_>) {
        for key in self.records.keys().collect::<Vec<_>>() {
            let hash = self.records.brief(key).and_then(|known| known.hash);
            if let Some(mut record) = hash.filter(is_concerned).and_then(|_| self.records.whole(key, tx)) {
                record.stat = Stat::default();
                self.records.put(key, &record, tx);
            }
        }
    }

    /// Whether nobody knows what is on disk for this key.
    pub(crate) fn is_refound(&self, key: Key, cx: &Cx<'_, '_>) -> bool {
        self.records.brief(key).is_some_and(|known| known.hash.is_none())
            && self.records.whole(key, cx.tx).is_some_and(|record| record.is_refound())
    }

    /// Finds what a file that is met again was made on. `false`: it is another file.
    pub(crate) fn find_base(&mut self, key: Key, look: &Look, cx: &mut Cx<'_, '_>) -> bool {
        let Some(mut record) = self.records.whole(key, cx.tx) else { return false };
        let Some(base) = self.base_of(key, look, cx) else { return false };
        record.now = Some(base);
        record.recent.clear();
        self.records.put(key, &record, cx.tx);
        true
    }

    fn base_of(&mut self, key: Key, look: &Look, cx: &mut Cx<'_, '_>) -> Option<OnDisk> {
        let (version, heads) = self.current(key)?;
        let shown = OnDisk { hash: self.alternative(key)?.hash(), ..look.on_disk(version, heads) };
        if shown.hash == look.hash {
            return Some(shown);
        }
        let registers = Tree::registers(&key.id, &mut self.documents, cx.tx)?;
        let mut versions: Vec<VersionHash> = registers.versions().iter().map(|version| version.hash).collect();
        versions.extend(registers.replaced().iter().map(|known| known.version));
        versions.dedup();
        if versions.contains(&look.hash) {
            return Some(look.on_disk(look.hash, Vec::new()));
        }
        let Some((_, new)) = look.inline().and_then(|bytes| text::split(bytes)) else {
            // Of bytes nobody can say which of several they were made on: then both stay.
            return (versions.len() == 1).then_some(shown);
        };
        let mut nearest: Option<(usize, OnDisk)> = None;
        let mut compared = 0;
        let mut bytes = 0;
        for state in self.states(key, look, &versions, cx) {
            let Some((style, old)) = self.text_at(key.id, &state, cx) else { continue };
            let rendered = text::render(style, &old);
            bytes += rendered.len();
            let hash = version_hash(&self.identity.workspace, &rendered);
            let state = OnDisk { hash, ..state };
            if hash == look.hash {
                return Some(state);
            }
            if compared < NEAREST_OF_MAX {
                compared += 1;
                let hunks = diff(&old, &new);
                let alike = hunks.iter().all(|hunk| hunk.removed == 0)
                    || weight(&hunks) * 2 < old.chars().count() + new.chars().count();
                let distance = weight(&hunks);
                if alike && nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                    nearest = Some((distance, state));
                }
            }
            if bytes > STATES_BYTES_MAX {
                break;
            }
        }
        nearest.map(|(_, state)| state)
    }

    /// What a file was, newest first: those states that its authors had on their disks, then the versions it began with.
    fn states(&mut self, key: Key, look: &Look, versions: &[VersionHash], cx: &Cx<'_, '_>) -> Vec<OnDisk> {
        let texts = self.tree.texts.range((key.id, [0; 8])..=(key.id, [0xff; 8]));
        let texts: Vec<VersionHash> = texts.map(|(_, state)| state.version).collect();
        let mut states = Vec::new();
        for version in texts {
            let doc = &self.documents.open(Document::text(key.id, &version), cx.tx).doc;
            let mut seen = std::collections::BTreeSet::new();
            for heads in std::iter::once(doc.get_heads())
                .chain(doc.get_changes(&[]).iter().rev().flat_map(|one| [vec![one.hash()], one.deps().to_vec()]))
            {
                if heads.is_empty() || states.len() >= STATES_MAX || !seen.insert(heads.clone()) {
                    continue;
                }
                states.push(look.on_disk(version, ours(&heads)));
            }
        }
        states.extend(versions.iter().map(|version| look.on_disk(*version, Vec::new())));
        states
    }
}
