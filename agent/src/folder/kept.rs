//! What our writes replaced, kept beside the file until it is needed no more.
//!
//! An exchange leaves the file that was replaced under a name of ours. It stays there for two reasons. Until the outcome of
//! the write is stored, it is the proof that the write took place: after a crash nobody has to guess whether what is at the
//! path was made on the one content or on the other. And as long as some program has it open for writing, what that program
//! writes goes there: it is taken in as an edit on what the file held.
//!
//! Invariant: what was replaced is removed only when its outcome is stored, nobody is known to write into it, and it holds
//! what the core knows. What the core may not know gets a name that people see, never an unlink.
//! Spec: docs/files.md#open-files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, RenameFlags};
use weft_agent_core::disk::{FileBytes, Found, RelPath, Seen, Stat, Unfinished};
use weft_agent_core::files::{PendingWrite, TEXT_BYTES_MAX};
use weft_agent_core::id::{VersionHash, WorkspaceId};

use super::act::{Replaced, exchanged_name, rename, saved_name};
use super::at;
use super::ignore::EXCHANGED_PREFIX;
use super::look;
use super::writers::{self, FileId, Holder};
use crate::blob;

/// What is being written is read when it paused for so long ...
const QUIET: Duration = Duration::from_millis(300);
/// ... and at the latest after this.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often what some program has open is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// Most files of this kind that are followed; each costs a descriptor. Further ones get a name that people see.
const OPEN_MAX: usize = 64;
/// So many are looked at together: each costs two descriptors meanwhile.
const AT_ONCE: usize = 64;

/// A replaced file that some program had open for writing when it was replaced.
struct Open {
    at: Replaced,
    file: File,
    id: FileId,
    holders: Vec<Holder>,
    asked: Instant,
    /// What the core knows of it: content, size, time.
    told: (VersionHash, Stat),
    /// What it was like at the last look, since when, and since when it is not told.
    last: (Stat, Instant),
    untold_since: Option<Instant>,
    /// With which batch the core was told of it last.
    batch: u64,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Kept {
    /// By the batch of outcomes that must be stored first.
    waiting: VecDeque<(u64, Replaced)>,
    open: Vec<Open>,
    /// What an earlier run left: proofs of what became of its writes.
    earlier: Vec<Replaced>,
    unfinished: BTreeMap<RelPath, Unfinished>,
    stored: u64,
    next: Option<Instant>,
}

impl Kept {
    /// What an earlier run left of the writes that it had under way.
    pub(crate) fn at_start(root: &OwnedFd, workspace: &WorkspaceId, pending: Vec<PendingWrite>) -> Kept {
        let mut kept = Kept::default();
        let tells = !pending.is_empty() && tells_by_names(root);
        for write in pending.into_iter().filter(|_| tells) {
            let Some(replaces) = write.replaces else { continue };
            let Ok(dir) = at::open_parent(root, &write.path) else { continue };
            let start = exchanged_name(write.path.name(), &write.leaves);
            let mut took_place = false;
            for name in names_in(&dir, &start) {
                let is_same_file = match (at::meta(&dir, &name), at::meta(&dir, write.path.name())) {
                    (Ok(Some(aside)), Ok(Some(file))) => aside.stat.inode == file.stat.inode,
                    _ => false,
                };
                let content = look::hash_file(&dir, workspace, &name).ok().flatten();
                if content == Some(write.leaves) || is_same_file {
                    // What was to be exchanged is still there: it was not.
                    let _gone = rustix::fs::unlinkat(&dir, name.as_str(), AtFlags::empty());
                    continue;
                }
                took_place = true;
                let stat = at::meta(&dir, &name).ok().flatten().filter(|_| content == Some(replaces));
                kept.earlier.push(Replaced {
                    folder: write.path.parent(),
                    name,
                    of: write.path.clone(),
                    content: Some(replaces),
                    // Anything else than what was to be replaced is an edit of it, which nobody was told of.
                    stat: stat.map_or_else(Stat::default, |meta| meta.stat),
                });
            }
            kept.unfinished.insert(write.path, Unfinished { leaves: write.leaves, took_place });
        }
        kept
    }

    /// What became of a write at this path that an earlier run had under way.
    pub(crate) fn unfinished(&self, path: &RelPath) -> Option<Unfinished> {
        self.unfinished.get(path).copied()
    }

    /// Whether this name of ours is looked after here.
    pub(crate) fn has(&self, path: &RelPath) -> bool {
        let is = |one: &Replaced| one.path().as_ref() == Some(path);
        self.waiting.iter().any(|(_, one)| is(one))
            || self.open.iter().any(|one| is(&one.at))
            || self.earlier.iter().any(is)
    }

    /// A write replaced this; the outcome is told with that batch. What was known of an earlier write there is over.
    pub(crate) fn add(&mut self, replaced: Replaced, batch: u64) {
        self.waiting.push_back((batch, replaced));
    }

    /// A write at this path begins.
    pub(crate) fn begins(&mut self, path: &RelPath) {
        self.unfinished.remove(path);
    }

    /// A file or folder was moved by us.
    pub(crate) fn moved(&mut self, from: &RelPath, to: &RelPath) {
        let follow = |path: &RelPath| {
            let rest = path.as_str().strip_prefix(from.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| RelPath::new(&format!("{to}{rest}"))).flatten()
        };
        let all = self.waiting.iter_mut().map(|(_, one)| one).chain(self.open.iter_mut().map(|one| &mut one.at));
        for one in all.chain(&mut self.earlier) {
            if let Some(of) = follow(&one.of) {
                one.of = of;
            }
            if let Some(folder) = one.folder.as_ref().and_then(follow) {
                one.folder = Some(folder);
            }
        }
    }

    /// Everything told up to this batch is stored.
    pub(crate) fn stored(&mut self, root: &OwnedFd, workspace: &WorkspaceId, batch: u64, now: Instant) {
        self.stored = self.stored.max(batch);
        let mut free: Vec<Replaced> = Vec::new();
        while let Some((_, one)) = self.waiting.pop_front_if(|(told, _)| *told <= batch) {
            free.push(one);
        }
        self.release(root, workspace, free, now);
    }

    /// The core knows what became of the writes of an earlier run, but for these: what proves it goes.
    pub(crate) fn resolved(
        &mut self,
        root: &OwnedFd,
        workspace: &WorkspaceId,
        still: &BTreeSet<RelPath>,
        now: Instant,
    ) {
        self.unfinished.retain(|path, _| still.contains(path));
        let (keep, free) = std::mem::take(&mut self.earlier).into_iter().partition(|one| still.contains(&one.of));
        self.earlier = keep;
        self.release(root, workspace, free, now);
    }

    /// Whether anything of an earlier run is still to be resolved.
    pub(crate) fn is_unresolved(&self) -> bool {
        !self.unfinished.is_empty() || !self.earlier.is_empty()
    }

    /// Before a folder is removed: names of ours in it would keep it.
    pub(crate) fn clear_folder(&mut self, root: &OwnedFd, workspace: &WorkspaceId, folder: &RelPath, now: Instant) {
        let inside = |one: &Replaced| one.folder.as_ref() == Some(folder);
        let (free, keep) = std::mem::take(&mut self.waiting).into_iter().partition(|(_, one)| inside(one));
        self.waiting = keep;
        let free: VecDeque<(u64, Replaced)> = free;
        self.release(root, workspace, free.into_iter().map(|(_, one)| one).collect(), now);
    }

    /// These are no proof of anything any more: those that nobody writes into go.
    fn release(&mut self, root: &OwnedFd, workspace: &WorkspaceId, mut all: Vec<Replaced>, now: Instant) {
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(AT_ONCE));
            self.release_some(root, workspace, all, now);
            all = rest;
        }
    }

    fn release_some(&mut self, root: &OwnedFd, workspace: &WorkspaceId, all: Vec<Replaced>, now: Instant) {
        let mut opened: Vec<(Replaced, OwnedFd, File, FileId)> = Vec::new();
        for one in all {
            let Ok(dir) = at::open_in(root, one.folder.as_ref()) else { continue };
            let Some(_) = one.content else {
                let _gone = rustix::fs::unlinkat(&dir, one.name.as_str(), AtFlags::empty());
                continue;
            };
            let Ok((file, _)) = at::open_file(&dir, &one.name) else { continue };
            let Ok(stat) = rustix::fs::fstat(&file) else { continue };
            opened.push((one, dir, file, (stat.st_dev, stat.st_ino)));
        }
        let wanted: BTreeSet<FileId> = opened.iter().map(|(.., id)| *id).collect();
        let mut writers = writers::find(&wanted);
        for (mut one, dir, file, id) in opened {
            let Ok(stat) = rustix::fs::fstat(&file).map(|stat| at::meta_of(&stat).stat) else { continue };
            let holders = writers.remove(&id).unwrap_or_default();
            let is_known = || {
                let now = look::hash_file(&dir, workspace, &one.name).ok().flatten();
                now == one.content && rustix::fs::fstat(&file).is_ok_and(|after| same(&at::meta_of(&after).stat, &stat))
            };
            if holders.is_empty() && (same(&stat, &one.stat) || is_known()) {
                let _gone = rustix::fs::unlinkat(&dir, one.name.as_str(), AtFlags::empty());
                continue;
            }
            if self.open.len() >= OPEN_MAX {
                save(&dir, &one);
                continue;
            }
            // It proves nothing any more, and must not be taken for the proof of a later write.
            let name = format!("{EXCHANGED_PREFIX}open-{:016x}", u64::from_le_bytes(crate::engine::random()));
            if rename(&dir, &one.name, &dir, &name, RenameFlags::NOREPLACE).is_ok() {
                one.name = name;
            }
            let told = (one.content.unwrap_or(VersionHash([0; 32])), one.stat);
            let untold_since = (!same(&stat, &one.stat)).then_some(now);
            let last = (stat, now);
            self.open.push(Open { at: one, file, id, holders, asked: now, told, last, untold_since, batch: 0 });
            self.next = Some(now + EVERY);
        }
    }

    /// Not now.
    pub(crate) fn later(&mut self, now: Instant) {
        self.next = self.next.map(|due| due.max(now + EVERY));
    }

    /// When to call [`Kept::follow`].
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Looks at what some program has, or had, open: what is to be told of it. `batch`: what it will be told with.
    pub(crate) fn follow(&mut self, root: &OwnedFd, workspace: &WorkspaceId, batch: u64, now: Instant) -> Vec<Seen> {
        let mut seen = Vec::new();
        for mut one in std::mem::take(&mut self.open) {
            let Ok(stat) = rustix::fs::fstat(&one.file).map(|stat| at::meta_of(&stat).stat) else {
                self.open.push(one);
                continue;
            };
            if !same(&stat, &one.last.0) {
                one.last = (stat, now);
                one.untold_since.get_or_insert(now);
            }
            if let Some(since) = one.untold_since {
                let quiet = now >= one.last.1 + QUIET || now >= since + PATIENCE;
                if quiet && self.tell(root, workspace, &mut one, batch, &mut seen) {
                    continue;
                }
                self.open.push(one);
                continue;
            }
            let is_open = one.holders.iter().any(|holder| holder.holds(one.id));
            if !is_open && now >= one.asked + EVERY {
                one.asked = now;
                one.holders = writers::find(&BTreeSet::from([one.id])).remove(&one.id).unwrap_or_default();
            }
            let after = rustix::fs::fstat(&one.file).map(|stat| at::meta_of(&stat).stat);
            let unchanged = after.is_ok_and(|after| same(&after, &one.told.1));
            if one.holders.is_empty() && unchanged && one.batch <= self.stored {
                let Ok(dir) = at::open_in(root, one.at.folder.as_ref()) else { continue };
                let _gone = rustix::fs::unlinkat(&dir, one.at.name.as_str(), AtFlags::empty());
                continue;
            }
            self.open.push(one);
        }
        self.next = (!self.open.is_empty()).then_some(now + EVERY);
        seen
    }

    /// Tells what was written into a replaced file. True: it is followed no more.
    fn tell(
        &mut self,
        root: &OwnedFd,
        workspace: &WorkspaceId,
        one: &mut Open,
        batch: u64,
        seen: &mut Vec<Seen>,
    ) -> bool {
        let Ok(dir) = at::open_in(root, one.at.folder.as_ref()) else { return false };
        let before = rustix::fs::fstat(&one.file).map(|stat| at::meta_of(&stat));
        let (Ok(before), Some(bytes)) = (before, read_whole(&dir, &one.at.name)) else {
            // Too large, or no text: no edit can be told apart in it. It stays as a file that people see.
            save(&dir, &one.at);
            return true;
        };
        let after = rustix::fs::fstat(&one.file).map(|stat| at::meta_of(&stat));
        if !after.is_ok_and(|after| same(&after.stat, &before.stat)) {
            return false;
        }
        let hash = blob::version_hash(workspace, &bytes);
        let (made_on, _) = std::mem::replace(&mut one.told, (hash, before.stat));
        one.untold_since = None;
        if hash == made_on {
            return false;
        }
        one.batch = batch;
        let bytes = FileBytes::Here(Bytes::from(bytes));
        let found = Found::File { bytes, executable: before.mode & 0o100 != 0, stat: Stat::default() };
        seen.push(Seen { made_on: Some(made_on), ..Seen::new(one.at.of.clone(), found) });
        false
    }
}

/// Whether nothing was written in between; the name may have changed.
fn same(one: &Stat, other: &Stat) -> bool {
    (one.size, one.mtime_ns) == (other.size, other.mtime_ns)
}

fn read_whole(dir: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let (file, _) = at::open_file(dir, name).ok()?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, TEXT_BYTES_MAX as u64 + 1), &mut bytes).ok()?;
    (bytes.len() <= TEXT_BYTES_MAX && look::is_text(&bytes)).then_some(bytes)
}

fn save(dir: &OwnedFd, one: &Replaced) {
    let _still_there = rename(dir, &one.name, dir, &saved_name(one.of.name()), RenameFlags::NOREPLACE);
}

/// Names in a folder that start so.
fn names_in(dir: &OwnedFd, start: &str) -> Vec<String> {
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| name.starts_with(start)).collect()
}

/// Whether a write on this file system leaves what it replaced under a name of ours, so that its absence says something.
fn tells_by_names(root: &OwnedFd) -> bool {
    let name =
        |n: u8| format!("{}{n}-{:016x}", super::ignore::TEMP_PREFIX, u64::from_le_bytes(crate::engine::random()));
    let names = [name(0), name(1), name(2)];
    let [one, two, three] = &names;
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL;
    let made = [one, two]
        .iter()
        .all(|name| rustix::fs::openat(root, name.as_str(), flags, rustix::fs::Mode::from_raw_mode(0o600)).is_ok());
    let tells = made
        && (rustix::fs::renameat_with(root, one.as_str(), root, two.as_str(), RenameFlags::EXCHANGE).is_ok()
            || rustix::fs::linkat(root, one.as_str(), root, three.as_str(), AtFlags::empty()).is_ok());
    for name in &names {
        let _gone = rustix::fs::unlinkat(root, name.as_str(), AtFlags::empty());
    }
    tells
}
