//! From the disk into the documents.
//!
//! Invariant: an edit is entered at the state that was on disk before it, never at the newest one, and that base
//! advances with every look. Why: a remote edit that has not reached the disk would be reverted. Echoes of our own
//! writes are recognised by content, never by timers. How an edit of a text is entered: `entering`. Spec: docs/files.md#taking-in.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::content::{INLINE_BYTES_MAX, Item, VersionBytes};
use crate::disk::{FileBytes, Found, RelPath, Seen, Stat, Unfinished};
use crate::files::diff::diff;
use crate::files::entry::{Deletion, Field, Kind, Known, Place, Pointer, ROOT_ID, VersionRef, add_known};
use crate::files::gone::YOUNG_MS;
use crate::files::names::{file_id, folder_id, start_of, version_hash};
use crate::files::record::{Key, OnDisk, Record, WHEN_REBORN};
use crate::files::tree::Tree;
use crate::files::{Cx, Files, FilesOutput, LogEvent, Versions, text};
use crate::id::{ChangeHash, FileId, VersionHash};
use crate::store::Tx;
use crate::time::Timestamp;

/// For so long after our write an editor may save a buffer from before it, in milliseconds.
pub(super) const STALE_MS: u64 = 10 * 60 * 1000;
/// Of so many new files it is remembered when they were made; of further ones it is not, and they count as old.
const BORN_MAX: usize = 16_384;
/// Longest target of a symbolic link, in bytes; Linux allows 4,095.
const TARGET_BYTES_MAX: usize = 4096;

/// A file or link that the shell saw, in one shape.
pub(crate) struct Look {
    pub(crate) path: RelPath,
    pub(crate) kind: Kind,
    pub(crate) hash: VersionHash,
    pub(crate) len: u64,
    /// The version as it would be published.
    pub(crate) bytes: VersionBytes,
    pub(crate) executable: bool,
    pub(crate) stat: Stat,
    pub(crate) target: String,
    pub(crate) opened: Option<bool>,
}

impl Look {
    pub(super) fn inline(&self) -> Option<&Bytes> {
        match &self.bytes {
            VersionBytes::Inline(bytes) => Some(bytes),
            VersionBytes::Blob(_) => None,
        }
    }
    pub(super) fn is_text(&self) -> bool {
        self.kind == Kind::File && self.inline().is_some_and(|bytes| text::is_text(bytes))
    }
    fn version(&self) -> VersionRef {
        VersionRef { hash: self.hash, len: self.len, text: self.is_text(), blob: self.inline().is_none() }
    }
    fn item(&self) -> Item {
        Item::Version { hash: self.hash, bytes: self.bytes.clone() }
    }
    /// On disk as this version itself.
    pub(super) fn on_disk(&self, version: VersionHash, heads: Vec<ChangeHash>) -> OnDisk {
        let (executable, target) = (self.executable, self.target.clone());
        OnDisk { hash: self.hash, executable, version, heads, target, void: None }
    }
}

impl Files {
    /// Takes in what the shell saw. Nothing is believed while the root is lost.
    pub fn handle_seen(&mut self, now: Timestamp, seen: Vec<Seen>, versions: &mut dyn Versions, tx: &Tx<'_>) {
        let mut cx = Cx { now, versions, tx };
        if !matches!(self.halt, Some(super::Halt::Root(_))) {
            self.take_in(seen, &mut cx);
        }
        self.settle(&mut cx);
    }

    /// A look at a file or link, in one shape; `None` for folders, absences and what cannot be carried.
    fn look(&mut self, seen: Seen, cx: &Cx<'_, '_>) -> Option<Look> {
        let Seen { path, found, opened_since_write: opened, .. } = seen;
        let (kind, hash, len, bytes, executable, stat, target) = match found {
            Found::File { bytes: FileBytes::Here(bytes), executable, stat } if bytes.len() <= INLINE_BYTES_MAX => {
                let hash = version_hash(&self.identity.workspace, &bytes);
                (Kind::File, hash, bytes.len() as u64, VersionBytes::Inline(bytes), executable, stat, String::new())
            }
            Found::File { bytes: FileBytes::Blob { hash, manifest }, executable, stat } => {
                let len = manifest.len;
                (Kind::File, hash, len, VersionBytes::Blob(manifest), executable, stat, String::new())
            }
            Found::Symlink { target } if target.len() <= TARGET_BYTES_MAX => {
                let hash = version_hash(&self.identity.workspace, target.as_bytes());
                let bytes = Bytes::copy_from_slice(target.as_bytes());
                let len = bytes.len() as u64;
                (Kind::Link, hash, len, VersionBytes::Inline(bytes), false, Stat::default(), target)
            }
            Found::File { .. } | Found::Symlink { .. } => {
                let why = "larger than can be carried in one piece".to_owned();
                self.log(cx, None, LogEvent::NotCarried { path: path.to_string(), why });
                return None;
            }
            Found::Absent | Found::Folder => return None,
        };
        Some(Look { path, kind, hash, len, bytes, executable, stat, target, opened })
    }

    /// Sorts looks into edits, new things, things that went and things that moved, and enters them.
    pub(crate) fn take_in(&mut self, seen: Vec<Seen>, cx: &mut Cx<'_, '_>) {
        self.project_if_moved(cx);
        let mut known: Vec<(Key, Look)> = Vec::new();
        let mut new: Vec<Look> = Vec::new();
        let mut folders: Vec<RelPath> = Vec::new();
        let mut absent: Vec<(RelPath, bool)> = Vec::new();
        let mut replaced: BTreeSet<Key> = BTreeSet::new();
        let mut elsewhere: Vec<(VersionHash, Look)> = Vec::new();
        for one in seen {
            if let Some(made_on) = one.made_on {
                elsewhere.extend(self.look(one, cx).map(|look| (made_on, look)));
                continue;
            }
            let told = !self.asked.remove(&one.path);
            if let Some(unfinished) = one.unfinished {
                self.end_unfinished(&one.path, unfinished, cx);
            }
            if self.work.is_busy(&one.path) {
                self.deferred.insert(one.path);
                continue;
            }
            let at = self.records.at(&one.path);
            let kind_at = at.and_then(|key| self.records.brief(key)).map(|known| known.kind);
            match one.found {
                Found::Absent => absent.push((one.path, told)),
                Found::Folder => {
                    match at {
                        Some(key) if kind_at == Some(Kind::Folder) => self.gone.remove(key),
                        other => {
                            replaced.extend(other);
                            folders.push(one.path);
                        }
                    };
                }
                Found::File { .. } | Found::Symlink { .. } => {
                    let Some(look) = self.look(one, cx) else { continue };
                    match at {
                        Some(key) if kind_at == Some(look.kind) && self.is_refound(key, cx) => {
                            if self.find_base(key, &look, cx) {
                                known.push((key, look));
                            } else {
                                self.records.remove(key, cx.tx);
                                self.work.add([key]);
                                new.push(look);
                            }
                        }
                        Some(key)
                            if kind_at == Some(look.kind)
                                && (self.is_foreign(key, &look, cx) || self.is_of_nothing(key, &look)) =>
                        {
                            self.records.remove(key, cx.tx);
                            self.work.add([key]);
                            new.push(look);
                        }
                        Some(key) if kind_at == Some(look.kind) => {
                            self.gone.remove(key);
                            self.offer_pieces(key.id, &look, cx);
                            known.push((key, look));
                        }
                        Some(key) => {
                            replaced.insert(key);
                            replaced.extend(self.records.below(&look.path).into_iter().map(|(_, key)| key));
                            new.push(look);
                        }
                        None => new.push(look),
                    }
                }
            }
        }
        for (path, told) in absent {
            let at = self.records.at(&path);
            let below = self.records.below(&path).into_iter().map(|(_, key)| key);
            for key in below.chain(at).collect::<Vec<_>>() {
                // What was never written cannot have gone.
                let written = |known: &super::record::Brief| known.hash.is_some() || known.kind == Kind::Folder;
                if self.records.brief(key).is_some_and(written) {
                    let young = self.born.get(&key).is_some_and(|born| cx.now.mono_ms < born + YOUNG_MS);
                    self.gone.add(key, told, young, cx.now);
                } else {
                    self.records.remove(key, cx.tx);
                    self.work.add([key]);
                }
            }
        }
        // A file that became a folder, or the reverse: the old one is gone for sure, its path is taken.
        if !replaced.is_empty() {
            self.delete(&replaced, cx);
        }
        self.find_moves(&mut new, &mut known, cx);
        for path in &folders {
            // An empty folder that moved along with the one it is in: its record is here by now, and it is not gone.
            if let Some(key) = self.records.at(path) {
                self.gone.remove(key);
            }
        }
        folders.retain(|path| self.records.at(path).is_none());
        folders.sort();
        for path in &folders {
            self.ensure_folder(path, cx);
        }
        for look in new {
            self.create(look, cx);
        }
        for (key, look) in known {
            self.take_edit(key, look, cx);
        }
        for (made_on, look) in elsewhere {
            self.take_elsewhere(made_on, look, cx);
        }
    }

    /// The shell knows what became of the write that was under way here when the agent ended: what is on disk is that, or an
    /// edit of it, and no guess is needed.
    fn end_unfinished(&mut self, path: &RelPath, unfinished: Unfinished, cx: &Cx<'_, '_>) {
        let Some(key) = self.records.at(path).filter(|key| !self.work.busy_keys.contains(key)) else { return };
        let Some(mut record) = self.records.whole(key, cx.tx) else { return };
        if record.guessed || record.pending.as_ref().is_none_or(|pending| pending.hash != unfinished.leaves) {
            return;
        }
        if unfinished.took_place {
            record.arrive(cx.now.wall_ms);
        } else {
            record.ends();
        }
        if record.now.is_none() {
            // Nothing was put there: whatever is there now is a person's.
            self.records.remove(key, cx.tx);
            self.work.add([key]);
        } else {
            self.records.put(key, &record, cx.tx);
        }
    }

    /// Whether what is there is another file than the one we were about to put there for the first time: somebody was
    /// quicker. After a crash it may also be that file, written and edited; it counts as that only if nothing of it is
    /// missing, because a stranger taken for an edit would replace what others wrote.
    fn is_foreign(&mut self, key: Key, look: &Look, cx: &mut Cx<'_, '_>) -> bool {
        if self.records.brief(key).is_none_or(|known| known.hash.is_some()) {
            return false;
        }
        let Some(pending) = self.records.whole(key, cx.tx).and_then(|record| record.pending) else { return true };
        if pending.hash == look.hash {
            return false;
        }
        let new = look.inline().and_then(|bytes| text::split(bytes));
        let (Some((_, new)), Some((_, old))) = (new, self.text_at(key.id, &pending, cx)) else { return true };
        old.is_empty() || diff(&old, &new).iter().any(|hunk| hunk.removed > 0)
    }

    /// Whether what is there was edited after its file ceased to count: then it is a file of its own.
    fn is_of_nothing(&self, key: Key, look: &Look) -> bool {
        let edited = self.records.brief(key).is_some_and(|known| known.hash != Some(look.hash));
        edited && !self.tree.entries.contains_key(&key.id) && !self.draft.contains(&key.id)
    }

    /// The folder at this path; made in the tree if it is new there.
    pub(crate) fn ensure_folder(&mut self, path: &RelPath, cx: &mut Cx<'_, '_>) -> FileId {
        if let Some(key) = self.records.at(path)
            && self.records.brief(key).is_some_and(|known| known.kind == Kind::Folder)
        {
            self.gone.remove(key);
            return key.id;
        }
        let parent = path.parent().map_or(ROOT_ID, |parent| self.ensure_folder(&parent, cx));
        let place = Place { parent, name: path.name().into() };
        let shown = self.shown.at.get(path).filter(|key| {
            self.tree.entries.get(&key.id).is_some_and(|entry| entry.kind == Kind::Folder)
                && self.records.brief(**key).is_none()
        });
        let mut id = shown.map(|key| key.id);
        let mut n = 0;
        while id.is_none() {
            let candidate = folder_id(&self.identity.workspace, path, n);
            n += 1;
            let on_disk = self.records.brief(Key::main(candidate)).is_some();
            match self.tree.entries.get(&candidate) {
                None if !self.draft.contains(&candidate) => {
                    self.draft.put_kind(candidate, Kind::Folder);
                    self.draft.put(candidate, Field::Place, &place);
                    self.log(cx, None, LogEvent::Created(path.clone()));
                    id = Some(candidate);
                }
                Some(entry) if entry.kind == Kind::Folder && entry.place == place && !on_disk => {
                    if entry.deleted {
                        self.draft.put_kind(candidate, Kind::Folder);
                        self.draft.put(candidate, Field::Deleted, &Deletion::default());
                    }
                    id = Some(candidate);
                }
                None | Some(_) => {}
            }
        }
        let id = id.unwrap_or(ROOT_ID);
        self.records.put(Key::main(id), &Record::new(path.clone(), Kind::Folder), cx.tx);
        self.work.add([Key::main(id)]);
        id
    }

    /// A file or link that is new on disk: a new entry, or one that others made alike.
    pub(super) fn create(&mut self, look: Look, cx: &mut Cx<'_, '_>) {
        let (key, now) = self.enter_new(&look, cx);
        if self.born.len() >= BORN_MAX {
            self.born.retain(|_, born| cx.now.mono_ms < *born + YOUNG_MS);
        }
        if self.born.len() < BORN_MAX {
            self.born.insert(key, cx.now.mono_ms);
        }
        let record = Record { stat: look.stat, now: Some(now), ..Record::new(look.path, look.kind) };
        self.records.put(key, &record, cx.tx);
        self.work.add([key]);
    }

    /// Enters what is new at a path: as what it is, and what it is on disk.
    pub(super) fn enter_new(&mut self, look: &Look, cx: &mut Cx<'_, '_>) -> (Key, OnDisk) {
        let parent = look.path.parent().map_or(ROOT_ID, |parent| self.ensure_folder(&parent, cx));
        let place = Place { parent, name: look.path.name().into() };
        let mut n = 0;
        // What is to be shown at this path and is the same already: they meet.
        let mut meets = self.shown.at.get(&look.path).copied().filter(|key| self.content_is(*key, look));
        let id = loop {
            if let Some(key) = meets {
                break key.id;
            }
            let candidate = file_id(&self.identity.workspace, &look.path, &look.hash, n);
            n += 1;
            let key = Key::main(candidate);
            match self.tree.entries.get(&candidate) {
                None if !self.draft.contains(&candidate) => break candidate,
                Some(entry) if entry.place == place && self.content_is(key, look) => meets = Some(key),
                None | Some(_) => {}
            }
        };
        let key = meets.unwrap_or_else(|| Key::main(id));
        let now = match meets {
            Some(key) => {
                self.offer_pieces(id, look, cx);
                let (version, heads) = self.current(key).unwrap_or((look.hash, Vec::new()));
                look.on_disk(version, heads)
            }
            None => {
                self.draft.put_kind(id, look.kind);
                self.draft.put(id, Field::Place, &place);
                self.put_version(id, look, Vec::new(), Vec::new());
                if look.executable {
                    self.draft.put_mode(id, true);
                }
                self.log(cx, None, LogEvent::Created(look.path.clone()));
                look.on_disk(look.hash, Vec::new())
            }
        };
        (key, now)
    }

    /// A large file is here, but not all pieces of it as it was published, say after a restored backup: then nobody may
    /// have them any more. It was cut anew just now; those pieces are published as well.
    fn offer_pieces(&mut self, id: FileId, look: &Look, cx: &mut Cx<'_, '_>) {
        let VersionBytes::Blob(cut) = &look.bytes else { return };
        let Some(published) = cx.versions.manifest(&look.hash, cx.tx) else { return };
        if published != *cut && !published.is_here(cx.tx) {
            self.draft.version(id, look.item());
            // Nothing more is to be fetched of those that were lost.
            self.outputs.push_back(FilesOutput::Fetch { hash: look.hash, manifest: cut.clone() });
        }
    }

    /// Whether this key is of the same kind and content as what was seen, and nowhere on disk yet.
    fn content_is(&self, key: Key, look: &Look) -> bool {
        let Some(entry) = self.tree.entries.get(&key.id) else { return false };
        entry.kind == look.kind
            && self.records.brief(key).is_none()
            && self.alternative(key).is_some_and(|found| found.hash() == look.hash)
    }

    /// The version, and the heads of its text, that a key shows now.
    pub(crate) fn current(&self, key: Key) -> Option<(VersionHash, Vec<ChangeHash>)> {
        let found = self.alternative(key)?;
        Some((found.version.hash, found.text.as_ref().map(|text| text.heads.clone()).unwrap_or_default()))
    }

    /// What a key shows.
    pub(crate) fn alternative(&self, key: Key) -> Option<&super::tree::Alternative> {
        let entry = self.tree.entries.get(&key.id)?;
        if key.is_main() {
            return entry.alternatives.first();
        }
        entry.alternatives.iter().skip(1).find(|other| start_of(&other.version.hash) == key.variant)
    }

    /// Drafts a version of an entry, beside `others`, with what it replaces.
    pub(super) fn put_version(&mut self, id: FileId, look: &Look, others: Vec<VersionRef>, replaced: Vec<Known>) {
        let mut versions = vec![look.version()];
        versions.extend(others);
        self.draft.put(id, Field::Versions, &Pointer { versions, replaced });
        self.draft.version(id, look.item());
        if let Some(bytes) = look.inline() {
            self.fresh.insert(look.hash, bytes.clone());
        }
    }

    /// A known file was looked at: an echo, an edit, or a stale buffer.
    fn take_edit(&mut self, key: Key, look: Look, cx: &mut Cx<'_, '_>) {
        let Some(mut record) = self.records.whole(key, cx.tx) else { return };
        record.stat = look.stat;
        if record.pending.as_ref().is_some_and(|pending| pending.hash == look.hash) {
            record.arrive(cx.now.wall_ms);
        }
        if let Some(now) = &mut record.now
            && now.executable != look.executable
            && look.kind == Kind::File
        {
            now.executable = look.executable;
            if self.tree.entries.get(&key.id).is_some_and(|entry| entry.executable != look.executable) {
                self.draft.put_mode(key.id, look.executable);
            }
        }
        let same = record.now.as_ref().is_some_and(|now| now.hash == look.hash);
        if !same {
            let shown = self.alternative(key).map(super::tree::Alternative::hash);
            if shown == Some(look.hash) {
                // The same as others made of it: only the base moves.
                let (version, heads) = self.current(key).unwrap_or((look.hash, Vec::new()));
                record.now = Some(look.on_disk(version, heads));
            } else if !self.is_old_content(&mut record, &look, cx) {
                self.enter_edit(key, &mut record, &look, cx);
                if self.records.brief(key).is_none() {
                    return;
                }
            }
        }
        record.ends();
        self.records.put(key, &record, cx.tx);
        self.work.add([key]);
    }

    /// Whether the disk holds exactly what one of our recent writes replaced, by an editor that never saw that write:
    /// then it is no edit, and only the base moves back.
    fn is_old_content(&mut self, record: &mut Record, look: &Look, cx: &Cx<'_, '_>) -> bool {
        let now = cx.now.wall_ms;
        let eligible = |when: u64| look.opened == Some(false) || now.saturating_sub(when) <= STALE_MS;
        let Some(at) = record.recent.iter().position(|(old, when)| old.hash == look.hash && eligible(*when)) else {
            return false;
        };
        let (old, when) = record.recent.remove(at);
        record.now = Some(old);
        if when != WHEN_REBORN {
            self.log(cx, None, LogEvent::StaleBuffer(look.path.clone()));
        }
        true
    }

    /// Enters an edit: as a change of the text it was made on, or as a new version.
    fn enter_edit(&mut self, key: Key, record: &mut Record, look: &Look, cx: &mut Cx<'_, '_>) {
        if !key.is_main() {
            // A version that stood beside the file was edited: from now on it is a file of its own.
            let place = look.path.clone();
            self.delete(&BTreeSet::from([key]), cx);
            self.create(Look { path: place, bytes: look.bytes.clone(), target: look.target.clone(), ..*look }, cx);
            return;
        }
        if let Some(twins) = self.shown.twins.get(&key).cloned() {
            // Others of the same content are hidden behind this file: they go, or they would appear with the old one.
            for twin in twins {
                self.delete_entry(Key::main(twin), None, cx);
            }
        }
        if look.is_text()
            && let Some(new) = look.inline().and_then(|bytes| text::split(bytes))
            && let Some(now) = self.enter_text(key, record, look, &new, cx)
        {
            record.now = Some(now);
            self.log(cx, None, LogEvent::Edited(look.path.clone()));
            return;
        }
        let Some(base) = record.now.clone().or_else(|| record.pending.clone()) else { return };
        let registers = Tree::registers(&key.id, &mut self.documents, cx.tx);
        let mut replaced = registers.map(|registers| registers.replaced()).unwrap_or_default();
        add_known(&mut replaced, Known { version: base.version, heads: base.heads });
        let entry = self.tree.entries.get(&key.id);
        let others = entry
            .map(|entry| entry.alternatives.iter().map(|other| other.version).collect::<Vec<_>>())
            .unwrap_or_default()
            .into_iter()
            .filter(|other| other.hash != base.version && other.hash != look.hash)
            .collect();
        self.put_version(key.id, look, others, replaced);
        record.now = Some(look.on_disk(look.hash, Vec::new()));
        self.log(cx, None, LogEvent::Edited(look.path.clone()));
    }

    /// Deletes entries whose files went, as far as they were known on disk.
    pub(crate) fn delete(&mut self, keys: &BTreeSet<Key>, cx: &mut Cx<'_, '_>) {
        for key in keys {
            let Some(record) = self.records.whole(*key, cx.tx) else { continue };
            if !self.tree.entries.contains_key(&key.id) {
                // It does not count any more, and was to be removed anyway.
                self.gone.remove(*key);
                self.records.remove(*key, cx.tx);
                continue;
            }
            // What is hidden because it is the same, at the same path, went with it; not if what went was elsewhere on this
            // disk, still to be moved there: then the other is what a person has just put there.
            let at_home = self.shown.paths.get(key) == Some(&record.path);
            let twins = self.shown.twins.get(key).filter(|_| at_home).cloned().unwrap_or_default();
            for twin in twins {
                self.delete_entry(Key::main(twin), None, cx);
            }
            self.delete_entry(*key, record.now.clone(), cx);
            self.log(cx, None, LogEvent::Deleted(record.path));
            self.gone.remove(*key);
            self.records.remove(*key, cx.tx);
            self.work.add([*key]);
        }
    }

    /// Drafts the deletion of what a key shows; `seen`: what was on disk (what is current, if it was hidden).
    fn delete_entry(&mut self, key: Key, seen: Option<OnDisk>, cx: &mut Cx<'_, '_>) {
        // Of what was on disk, not of what others made of it meanwhile: that the person never saw. (Of what does not count any
        // more its row names what it stood on.)
        let hash = seen.as_ref().map(|seen| seen.hash);
        let hash = hash.or_else(|| self.alternative(key).map(super::tree::Alternative::hash));
        let seen = seen.map(|seen| (seen.version, seen.heads)).or_else(|| self.current(key));
        let registers = Tree::registers(&key.id, &mut self.documents, cx.tx);
        let mut known = registers.and_then(|registers| registers.deleted()).unwrap_or_default();
        if let Some((version, heads)) = seen {
            // Versions of the same content that were not shown for that reason go with it.
            let same: Vec<Known> = self
                .tree
                .entries
                .get(&key.id)
                .into_iter()
                .flat_map(|entry| entry.alternatives.iter())
                .filter(|other| Some(other.hash()) == hash && other.version.hash != version)
                .map(|other| Known {
                    version: other.version.hash,
                    heads: other.text.as_ref().map(|text| text.heads.clone()).unwrap_or_default(),
                })
                .collect();
            for other in same {
                add_known(&mut known, other);
            }
            add_known(&mut known, Known { version, heads });
        }
        self.draft.put(key.id, Field::Deleted, &Deletion { wall_ms: cx.now.wall_ms.max(1), known });
    }
}
