//! Recognising that something moved instead of one thing going and another coming.
//!
//! Invariant: only a match that leaves no doubt is a move; what is in doubt is a deletion and a new file, which loses
//! history but no content. Why: inodes are reused within milliseconds, and empty files are all alike.
//! Spec: docs/files.md#moves.

use std::collections::{BTreeMap, BTreeSet};

use crate::disk::RelPath;
use crate::files::diff::{diff, weight};
use crate::files::entry::{Field, Kind, Place, ROOT_ID};
use crate::files::ingest::Look;
use crate::files::record::{Key, Record};
use crate::files::{Cx, Files, LogEvent, text};
use crate::id::VersionHash;

/// Texts shorter than this say too little to be recognised by what they say, in bytes.
const ALIKE_BYTES_MIN: usize = 64;
/// At most so many on each side are compared, each with each.
const ALIKE_FILES_MAX: usize = 16;

impl Files {
    /// Takes the new things that are old ones elsewhere out of `new`: they become known under their new paths.
    pub(crate) fn find_moves(&mut self, new: &mut Vec<Look>, known: &mut Vec<(Key, Look)>, cx: &mut Cx<'_, '_>) {
        if self.gone.is_empty() {
            return;
        }
        let places = self.taken_places(known, cx);
        if new.is_empty() && places.is_empty() {
            return;
        }
        let mut gone: Vec<(Key, Record)> = Vec::new();
        for key in self.gone.keys().clone() {
            if key.is_main()
                && let Some(record) = self.records.whole(key, cx.tx)
                && record.kind != Kind::Folder
            {
                gone.push((key, record));
            }
        }
        for (key, record) in &gone {
            let content = record.now.as_ref().map(|now| (record.stat.inode, now.hash));
            if content.is_some_and(|content| content.0 != 0 && places.contains(&content)) {
                self.gone.took_a_place(*key);
            }
        }
        let pairs = self.pair(&gone, new, cx);
        if pairs.is_empty() {
            return;
        }
        self.gone.found_some(cx.now);
        let moves: BTreeMap<Key, RelPath> =
            pairs.iter().filter_map(|(key, at)| Some((*key, new.get(*at)?.path.clone()))).collect();
        self.move_folders(&moves, cx);
        let mut taken: BTreeMap<usize, Key> = pairs.into_iter().map(|(key, at)| (at, key)).collect();
        let mut rest = Vec::new();
        for (at, look) in std::mem::take(new).into_iter().enumerate() {
            match taken.remove(&at) {
                Some(key) => {
                    self.move_file(key, &look.path, cx);
                    known.push((key, look));
                }
                None => rest.push(look),
            }
        }
        *new = rest;
    }

    /// Inode and content of what is at a known path, but is another file than before.
    fn taken_places(&self, known: &[(Key, Look)], cx: &Cx<'_, '_>) -> BTreeSet<(u64, VersionHash)> {
        let is_other = |(key, look): &&(Key, Look)| {
            let before = self.records.whole(*key, cx.tx).map(|record| record.stat.inode);
            before.is_some_and(|before| before != look.stat.inode)
        };
        known.iter().filter(is_other).map(|(_, look)| (look.stat.inode, look.hash)).collect()
    }

    /// Pairs what went with what came (by index into `new`): by inode, then by content, then by content and name.
    fn pair(&mut self, gone: &[(Key, Record)], new: &[Look], cx: &mut Cx<'_, '_>) -> Vec<(Key, usize)> {
        let mut pairs: Vec<(Key, usize)> = Vec::new();
        let mut used_gone: BTreeSet<Key> = BTreeSet::new();
        let mut used_new: BTreeSet<usize> = BTreeSet::new();
        let inodes: BTreeMap<u64, &(Key, Record)> =
            gone.iter().filter(|(_, record)| record.stat.inode != 0).map(|pair| (pair.1.stat.inode, pair)).collect();
        for (at, look) in new.iter().enumerate() {
            let Some((key, record)) = inodes.get(&look.stat.inode) else { continue };
            if record.kind == look.kind && !used_gone.contains(key) && self.is_alike(*key, record, look, cx) {
                used_gone.insert(*key);
                used_new.insert(at);
                pairs.push((*key, at));
            }
        }
        type Sides<'a> = (Vec<(Key, &'a RelPath)>, Vec<usize>);
        let mut by_hash: BTreeMap<(Kind, VersionHash), Sides<'_>> = BTreeMap::new();
        for (key, record) in gone {
            if let Some(now) = record.now.as_ref().filter(|_| !used_gone.contains(key)) {
                by_hash.entry((record.kind, now.hash)).or_default().0.push((*key, &record.path));
            }
        }
        for (at, look) in new.iter().enumerate() {
            if let Some((_, sides)) = by_hash.get_mut(&(look.kind, look.hash)).filter(|_| !used_new.contains(&at)) {
                sides.push(at);
            }
        }
        for (gone, came) in by_hash.into_values() {
            if let ([(key, _)], [at]) = (gone.as_slice(), came.as_slice())
                && new.get(*at).is_some_and(|look| look.len > 0)
            {
                pairs.push((*key, *at));
                continue;
            }
            // Several of one content: those whose names are unique on both sides.
            for (key, path) in &gone {
                let same_name = |at: &&usize| new.get(**at).is_some_and(|look| look.path.name() == path.name());
                let mut candidates = came.iter().filter(same_name);
                let unique = gone.iter().filter(|(_, other)| other.name() == path.name()).count() == 1;
                if let (Some(at), None, true) = (candidates.next(), candidates.next(), unique) {
                    pairs.push((*key, *at));
                }
            }
        }
        self.pair_by_text(gone, new, &mut pairs, cx);
        pairs
    }

    /// Pairs what is left of texts, one to one, if hardly anything of them is another: moved, and saved by a program that writes a
    /// new file. Few only: each is compared with each.
    fn pair_by_text(
        &mut self,
        gone: &[(Key, Record)],
        new: &[Look],
        pairs: &mut Vec<(Key, usize)>,
        cx: &mut Cx<'_, '_>,
    ) {
        let paired: (BTreeSet<Key>, BTreeSet<usize>) = pairs.iter().copied().unzip();
        let texts =
            |bytes: &[u8]| text::split(bytes).map(|(_, text)| text).filter(|text| text.len() >= ALIKE_BYTES_MIN);
        let mut came: Vec<(usize, String)> = Vec::new();
        for (at, look) in new.iter().enumerate().filter(|(at, _)| !paired.1.contains(at)) {
            let bytes = if let crate::content::VersionBytes::Inline(bytes) = &look.bytes { Some(bytes) } else { None };
            came.extend(
                bytes.filter(|_| look.kind == Kind::File).and_then(|bytes| texts(bytes)).map(|text| (at, text)),
            );
        }
        let left: Vec<&(Key, Record)> =
            gone.iter().filter(|(key, record)| !paired.0.contains(key) && record.kind == Kind::File).collect();
        if came.is_empty() || came.len() > ALIKE_FILES_MAX || left.len() > ALIKE_FILES_MAX {
            return;
        }
        let mut alike: Vec<(Key, usize)> = Vec::new();
        for (key, record) in left {
            let old = record.now.as_ref().and_then(|now| self.text_at(key.id, now, cx));
            let Some((_, old)) = old.filter(|(_, old)| old.len() >= ALIKE_BYTES_MIN) else { continue };
            for (at, new) in &came {
                // What differs much in length cannot be alike, and is not compared.
                if old.len().abs_diff(new.len()) * 4 < old.len() && weight(&diff(&old, new)) * 4 < old.chars().count() {
                    alike.push((*key, *at));
                }
            }
        }
        for (key, at) in &alike {
            let alone = alike.iter().filter(|(other, to)| other == key || to == at).count() == 1;
            if alone {
                pairs.push((*key, *at));
            }
        }
    }

    /// Whether a file with the inode of one that went is that one: the same content, or a text that is mostly the same.
    fn is_alike(&mut self, key: Key, record: &Record, look: &Look, cx: &mut Cx<'_, '_>) -> bool {
        let Some(now) = &record.now else { return false };
        if now.hash == look.hash {
            return true;
        }
        let crate::content::VersionBytes::Inline(bytes) = &look.bytes else { return false };
        let (Some((_, old)), Some((_, new))) = (self.text_at(key.id, now, cx), text::split(bytes)) else {
            return false;
        };
        weight(&diff(&old, &new)) * 2 < old.chars().count()
    }

    /// Folders all of whose known files moved alike moved themselves.
    fn move_folders(&mut self, moves: &BTreeMap<Key, RelPath>, cx: &mut Cx<'_, '_>) {
        let mut folders: Vec<(RelPath, Key)> = Vec::new();
        for key in self.gone.keys() {
            if let Some(known) = self.records.brief(*key).filter(|known| known.kind == Kind::Folder) {
                folders.push((known.path.clone(), *key));
            }
        }
        // Outer ones first: a folder inside one that moved has moved along.
        folders.sort();
        for (_, key) in folders {
            // Its path may have changed with an outer folder.
            let Some(from) = self.records.brief(key).map(|known| known.path.clone()) else { continue };
            let below = self.records.below(&from);
            let files: Vec<(&RelPath, &RelPath)> =
                below.iter().filter_map(|(path, key)| Some((path, moves.get(key)?))).collect();
            let known_files = below
                .iter()
                .filter(|(_, key)| self.records.brief(*key).is_some_and(|known| known.kind != Kind::Folder))
                .count();
            let Some(to) = files.first().and_then(|(old, new)| {
                let inside = old.as_str().strip_prefix(from.as_str())?;
                RelPath::new(new.as_str().strip_suffix(inside)?)
            }) else {
                continue;
            };
            let all_alike = files.len() == known_files
                && files.iter().all(|(old, new)| {
                    let inside = old.as_str().strip_prefix(from.as_str());
                    inside.is_some() && new.as_str().strip_prefix(to.as_str()) == inside
                });
            if to == from {
                self.gone.remove(key);
                continue;
            }
            // Somebody else may have moved it to where this person did: then it is where it belongs.
            let at_home = self.shown.at.get(&to) == Some(&key);
            if all_alike && self.records.at(&to).is_none() && (at_home || !self.shown.at.contains_key(&to)) {
                if !at_home {
                    let parent = to.parent().map_or(ROOT_ID, |parent| self.ensure_folder(&parent, cx));
                    self.draft.put_kind(key.id, Kind::Folder);
                    self.draft.put(key.id, Field::Place, &Place { parent, name: to.name().into() });
                    self.log(cx, None, LogEvent::Moved { from: from.clone(), to: to.clone() });
                }
                self.gone.remove(key);
                self.carry(key, &from, &to, cx);
            }
        }
    }

    /// Follows a folder that moved on disk: its record and those of all that is in it.
    pub(crate) fn carry(&mut self, key: Key, from: &RelPath, to: &RelPath, cx: &Cx<'_, '_>) {
        let mut all = self.records.below(from);
        all.push((from.clone(), key));
        for (path, key) in all {
            let inside = path.as_str().strip_prefix(from.as_str()).unwrap_or_default();
            let (Some(mut record), Some(path)) =
                (self.records.whole(key, cx.tx), RelPath::new(&format!("{to}{inside}")))
            else {
                continue;
            };
            record.path = path;
            self.records.put(key, &record, cx.tx);
            self.work.add([key]);
        }
    }

    /// A file is at another path than before.
    fn move_file(&mut self, key: Key, to: &RelPath, cx: &mut Cx<'_, '_>) {
        self.gone.remove(key);
        let Some(mut record) = self.records.whole(key, cx.tx) else { return };
        if record.path == *to {
            return;
        }
        let parent = to.parent().map_or(ROOT_ID, |parent| self.ensure_folder(&parent, cx));
        self.draft.put(key.id, Field::Place, &Place { parent, name: to.name().into() });
        self.log(cx, None, LogEvent::Moved { from: record.path.clone(), to: to.clone() });
        record.path = to.clone();
        self.records.put(key, &record, cx.tx);
        self.work.add([key]);
    }
}
