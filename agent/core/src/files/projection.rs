//! From the tree to paths: a pure function.
//!
//! Invariant: equal trees give equal paths on every machine, whatever order things came in, and everything that lives
//! has a path. Two things never share one: the second gets a name that says so, made from hashes. Clash names are only
//! shown, never written into the tree. Spec: docs/files.md#clashes.

use std::collections::{BTreeMap, BTreeSet};

use unicode_normalization::UnicodeNormalization;

use crate::disk::{NAME_BYTES_MAX, RelPath};
use crate::files::entry::{Kind, ROOT_ID};
use crate::files::names::start_of;
use crate::files::record::Key;
use crate::files::tree::{Entry, Tree};
use crate::id::FileId;

/// What is to be where.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Projection {
    pub(crate) paths: BTreeMap<Key, RelPath>,
    /// The reverse.
    pub(crate) at: BTreeMap<RelPath, Key>,
    /// Files that are not shown because another with the same content is at their path: shown -> hidden.
    pub(crate) twins: BTreeMap<Key, Vec<FileId>>,
    /// Things that have another name than they would like: key -> the path they wanted.
    pub(crate) clashes: BTreeMap<Key, RelPath>,
    /// Things with no path that this computer can carry: key -> the path, lossily.
    pub(crate) not_carried: BTreeMap<Key, String>,
}

/// A projection in the making.
#[derive(Default)]
struct Out {
    shown: Projection,
    placed: Vec<(Key, RelPath)>,
}

/// What wants a name in a folder.
struct Claim<'a> {
    key: Key,
    name: &'a str,
    entry: &'a Entry,
    /// What tells clash names apart: the entry's id, or the version's hash.
    mark: &'a [u8],
}

/// A name as far as a file system may tell names apart.
fn folded(name: &str, fold: bool) -> String {
    if fold { name.nfc().flat_map(char::to_lowercase).nfc().collect() } else { name.to_owned() }
}

/// `note.md` as `note (2, from ab12).md`, short enough to be a name.
fn clash_name(name: &str, n: usize, hex: &str) -> String {
    let dot = name.rfind('.').filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, extension) = name.split_at_checked(dot).unwrap_or((name, ""));
    let suffix = format!(" ({n}, from {hex})");
    let extension = if extension.len() > 64 { "" } else { extension };
    let mut room = NAME_BYTES_MAX.saturating_sub(suffix.len() + extension.len()).min(stem.len());
    while !stem.is_char_boundary(room) {
        room -= 1;
    }
    format!("{}{suffix}{extension}", stem.get(..room).unwrap_or_default())
}

/// The folder each entry is in, after missing parents and cycles are settled: such entries stand in the root.
fn parents(tree: &Tree) -> BTreeMap<FileId, FileId> {
    let is_folder = |id: &FileId| tree.entries.get(id).is_some_and(|entry| entry.kind == Kind::Folder);
    let mut parents: BTreeMap<FileId, FileId> = tree
        .entries
        .iter()
        .map(|(id, entry)| (*id, if is_folder(&entry.place.parent) { entry.place.parent } else { ROOT_ID }))
        .collect();
    // Walk up from every folder once; a folder met twice on one walk is in a cycle, whose smallest id goes to the root.
    let mut settled: BTreeSet<FileId> = BTreeSet::from([ROOT_ID]);
    let folders: Vec<FileId> = tree.entries.keys().copied().filter(|id| is_folder(id)).collect();
    for folder in folders {
        let mut walk: Vec<FileId> = Vec::new();
        let mut seen: BTreeSet<FileId> = BTreeSet::new();
        let mut at = folder;
        while !settled.contains(&at) {
            if !seen.insert(at) {
                let cycle = walk.iter().skip_while(|id| **id != at);
                if let Some(smallest) = cycle.min() {
                    parents.insert(*smallest, ROOT_ID);
                }
                break;
            }
            walk.push(at);
            at = parents.get(&at).copied().unwrap_or(ROOT_ID);
        }
        settled.extend(walk);
    }
    parents
}

/// Where everything belongs. `fold`: this computer's file system does not tell letter case and Unicode forms apart.
/// `share` may answer another copy of the same path.
pub(crate) fn project(tree: &Tree, fold: bool, share: impl Fn(Key, RelPath) -> RelPath) -> Projection {
    let parents = parents(tree);
    // Folders that are shown: not deleted, or with something in them.
    let mut shown: BTreeSet<FileId> = BTreeSet::from([ROOT_ID]);
    let mut children: BTreeMap<FileId, Vec<FileId>> = BTreeMap::new();
    for (id, entry) in &tree.entries {
        if entry.lives() {
            let mut at = *id;
            if entry.kind == Kind::Folder {
                shown.insert(at);
            }
            while let Some(parent) = parents.get(&at).copied().filter(|parent| shown.insert(*parent)) {
                at = parent;
            }
        }
    }
    for (id, entry) in &tree.entries {
        if (entry.kind == Kind::Folder && shown.contains(id)) || (entry.kind != Kind::Folder && entry.lives()) {
            children.entry(parents.get(id).copied().unwrap_or(ROOT_ID)).or_default().push(*id);
        }
    }
    let mut out = Out::default();
    // Folders of one name are one folder: a list of ids shows the children of all of them.
    let mut open: Vec<(Option<RelPath>, Vec<FileId>)> = vec![(None, vec![ROOT_ID])];
    while let Some((path, ids)) = open.pop() {
        let mut claims: BTreeMap<String, Vec<Claim<'_>>> = BTreeMap::new();
        for id in ids.iter().filter_map(|id| children.get(id)).flatten() {
            let Some(entry) = tree.entries.get(id) else { continue };
            let name = &*entry.place.name;
            let slot = claims.entry(folded(name, fold)).or_default();
            slot.push(Claim { key: Key::main(*id), name, entry, mark: id.as_bytes() });
            for other in entry.alternatives.iter().skip(1) {
                let key = Key { id: *id, variant: start_of(&other.version.hash) };
                slot.push(Claim { key, name, entry, mark: other.version.hash.as_bytes() });
            }
        }
        let mut taken: BTreeSet<String> = claims.keys().cloned().collect();
        for slot in claims.values_mut() {
            name_slot(slot, path.as_ref(), fold, &mut taken, &mut open, &mut out);
        }
    }
    // Made in one go: a map that grows in order has half-empty nodes.
    let placed: Vec<(Key, RelPath)> = out.placed.into_iter().map(|(key, path)| (key, share(key, path))).collect();
    out.shown.at = placed.iter().map(|(key, path)| (path.clone(), *key)).collect();
    out.shown.paths = placed.into_iter().collect();
    out.shown
}

/// Hash of what would be written for a claim.
fn content(claim: &Claim<'_>) -> Option<crate::id::VersionHash> {
    let mut all = claim.entry.alternatives.iter();
    let found = if claim.key.is_main() {
        all.next()
    } else {
        all.find(|other| start_of(&other.version.hash) == claim.key.variant)
    };
    found.map(super::tree::Alternative::hash)
}

/// Gives names to all that want one name.
fn name_slot(
    slot: &mut [Claim<'_>],
    folder: Option<&RelPath>,
    fold: bool,
    taken: &mut BTreeSet<String>,
    open: &mut Vec<(Option<RelPath>, Vec<FileId>)>,
    out: &mut Out,
) {
    // Folders first, then entries under their own names, then further versions; smallest id first.
    slot.sort_by_key(|claim| (claim.entry.kind != Kind::Folder, !claim.key.is_main(), claim.key));
    let path_of = |name: &str| folder.map_or_else(|| RelPath::new(name), |folder| folder.join(name));
    let mut number = 1usize;
    let mut merged: Option<usize> = None;
    let mut placed: Vec<(Option<crate::id::VersionHash>, Kind, bool, Key)> = Vec::new();
    for claim in slot.iter() {
        if claim.entry.kind == Kind::Folder
            && let Some(open_at) = merged
        {
            if let Some((_, ids)) = open.get_mut(open_at) {
                ids.push(claim.key.id);
            }
            continue;
        }
        let hash = content(claim);
        if claim.entry.kind != Kind::Folder
            && let Some((_, _, _, twin)) = placed.iter().find(|(other, kind, executable, _)| {
                *other == hash && *kind == claim.entry.kind && *executable == claim.entry.executable
            })
        {
            if claim.key.is_main() {
                out.shown.twins.entry(*twin).or_default().push(claim.key.id);
            }
            continue;
        }
        let mut name = claim.name.to_owned();
        if number > 1 {
            let hex: String = claim.mark.iter().map(|byte| format!("{byte:02x}")).collect();
            for digits in [4, 8, 16, 32] {
                name = clash_name(claim.name, number, hex.get(..digits).unwrap_or(&hex));
                if taken.insert(folded(&name, fold)) {
                    break;
                }
            }
        }
        number += 1;
        let Some(path) = path_of(&name) else {
            let shown = folder.map_or_else(|| name.clone(), |folder| format!("{folder}/{name}"));
            out.shown.not_carried.insert(claim.key, shown);
            continue;
        };
        if name != claim.name
            && let Some(wanted) = path_of(claim.name)
        {
            out.shown.clashes.insert(claim.key, wanted);
        }
        if claim.entry.kind == Kind::Folder {
            merged = Some(open.len());
            open.push((Some(path.clone()), vec![claim.key.id]));
        } else {
            placed.push((hash, claim.entry.kind, claim.entry.executable, claim.key));
        }
        out.placed.push((claim.key, path));
    }
}
