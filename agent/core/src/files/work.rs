//! What is to be done in the folder, and what is being done.
//!
//! Invariant: at most one action is under way for a key and for a path; what failed is looked at again after a wait, and
//! what waits for bytes when they come. Bounded in actions and in bytes. Spec: docs/files.md#writing.

use std::collections::{BTreeMap, BTreeSet};

use crate::disk::RelPath;
use crate::files::ActionId;
use crate::files::queue::Queue;
use crate::files::record::{Key, Records};
use crate::id::{FileId, VersionHash};
use crate::time::{Timestamp, doubled};

/// Most actions under way: enough that the shell can sync a batch at a time.
const ACTIONS_MAX: usize = 256;
/// Most bytes of content in actions under way.
const ACTION_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Folders remembered that may not have been empty when they were to go.
pub(super) const LEAVINGS_MAX: usize = 256;
/// First wait after an action that changed nothing, in milliseconds; doubles with each.
const RETRY_MS: u64 = 500;
/// Longest wait.
const RETRY_MAX_MS: u64 = 60_000;

/// What an action does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    MakeFolder,
    /// `leaves`: the hash of what will be there.
    Write {
        leaves: VersionHash,
    },
    /// `folder`: what moves is one.
    Move {
        to: RelPath,
        folder: bool,
    },
    Remove,
    SetExecutable(bool),
}

/// An action under way.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) key: Key,
    pub(super) path: RelPath,
    pub(super) what: What,
    pub(super) bytes: usize,
}

/// What is to be done in the folder, and what is being done.
#[derive(Default)]
pub(crate) struct Work {
    /// To be looked at: not sorted yet, ...
    pub(super) todo: Queue,
    /// ... folders, ...
    pub(super) folders: BTreeSet<Key>,
    /// ... files and links.
    pub(super) rest: Queue,
    pub(super) in_flight: BTreeMap<ActionId, InFlight>,
    /// All that waits is looked at again when no more actions than this are under way; new things at once.
    pub(super) look_at_all_below: usize,
    pub(super) busy_keys: BTreeSet<Key>,
    pub(super) busy_paths: BTreeSet<RelPath>,
    pub(super) folders_making: BTreeSet<RelPath>,
    pub(super) folders_moving: usize,
    pub(super) bytes: usize,
    pub(super) next: u64,
    /// What waits for the bytes of a version, ...
    stalled: BTreeMap<VersionHash, BTreeSet<Key>>,
    /// ... and of which.
    stalled_on: BTreeMap<Key, VersionHash>,
    pub(super) blobs_here: BTreeSet<VersionHash>,
    pub(super) fetching: BTreeSet<VersionHash>,
    /// Of these a crash hid what came of an earlier write: asked for, and not heard of yet.
    pub(super) unsure: BTreeSet<Key>,
    /// What is still to be asked for.
    pub(super) to_ask: Vec<RelPath>,
    pub(super) attempts: BTreeMap<Key, u32>,
    pub(super) retry: BTreeMap<Key, u64>,
    /// Folders that were to be removed and may have had something in them that nobody knew of.
    pub(super) leavings: BTreeSet<RelPath>,
}

impl Work {
    /// What is under way in the folder from an earlier life of the files still is, but for what never left.
    pub(super) fn go_on_from(&mut self, earlier: &Work, unsent: &BTreeSet<ActionId>) {
        self.next = earlier.next;
        for (id, one) in earlier.in_flight.iter().filter(|(id, _)| !unsent.contains(id)) {
            self.enter(*id, one.clone());
        }
    }
    /// An action is under way from now on.
    pub(super) fn enter(&mut self, id: ActionId, one: InFlight) {
        self.busy_keys.insert(one.key);
        self.busy_paths.insert(one.path.clone());
        self.bytes += one.bytes;
        match &one.what {
            What::MakeFolder => {
                self.folders_making.insert(one.path.clone());
            }
            What::Move { to, folder } => {
                self.busy_paths.insert(to.clone());
                self.folders_moving += usize::from(*folder);
            }
            What::Write { .. } | What::Remove | What::SetExecutable(_) => {}
        }
        self.in_flight.insert(id, one);
    }
    /// An action is not under way any more; `None`: it never was.
    pub(super) fn leave(&mut self, id: ActionId) -> Option<InFlight> {
        let one = self.in_flight.remove(&id)?;
        self.busy_keys.remove(&one.key);
        self.busy_paths.remove(&one.path);
        self.bytes = self.bytes.saturating_sub(one.bytes);
        match &one.what {
            What::MakeFolder => {
                self.folders_making.remove(&one.path);
            }
            What::Move { to, folder } => {
                self.busy_paths.remove(to);
                self.folders_moving = self.folders_moving.saturating_sub(usize::from(*folder));
            }
            What::Write { .. } | What::Remove | What::SetExecutable(_) => {}
        }
        Some(one)
    }
    pub(crate) fn start(&mut self, keys: impl Iterator<Item = Key>) {
        self.todo.extend(keys);
    }
    pub(crate) fn add(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if !self.retry.contains_key(&key) {
                self.todo.insert(key);
            }
        }
    }
    /// Everything of this entry is to be looked at.
    pub(crate) fn look_at(&mut self, id: FileId, records: &Records) {
        self.add([Key::main(id)]);
        self.add(records.of(id));
    }
    /// Whether an action is under way at this path, or a folder above it is being made or moved. What a person puts into a
    /// folder just before we make it is taken in when it is known whose folder that is.
    pub(crate) fn is_busy(&self, path: &RelPath) -> bool {
        if self.busy_paths.contains(path) {
            return true;
        }
        let above = std::iter::successors(path.parent(), RelPath::parent);
        if !self.folders_making.is_empty() && above.into_iter().any(|folder| self.folders_making.contains(&folder)) {
            return true;
        }
        self.folders_moving > 0
            && self.in_flight.values().any(|one| match &one.what {
                What::Move { to, .. } => is_under(path, &one.path) || is_under(path, to),
                What::MakeFolder | What::Write { .. } | What::Remove | What::SetExecutable(_) => false,
            })
    }
    pub(crate) fn due(&self) -> Option<u64> {
        self.retry.values().copied().min()
    }
    /// Those whose wait is over are to be looked at again.
    pub(crate) fn wake(&mut self, now_ms: u64) {
        let due: Vec<Key> = self.retry.iter().filter(|(_, due)| **due <= now_ms).map(|(key, _)| *key).collect();
        for key in due {
            self.retry.remove(&key);
            self.todo.insert(key);
        }
    }
    /// Everything was looked at: what is still unsure is asked for again.
    pub(crate) fn ask_again(&mut self) {
        let unsure = std::mem::take(&mut self.unsure);
        self.add(unsure);
    }
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.to_look_at() == 0 && self.retry.is_empty() && self.unsure.is_empty()
    }
    pub(crate) fn pending(&self) -> u64 {
        let stalled: usize = self.stalled.values().map(BTreeSet::len).sum();
        (self.in_flight.len() + self.to_look_at() + self.retry.len() + self.unsure.len() + stalled) as u64
    }
    pub(super) fn to_look_at(&self) -> usize {
        self.todo.len() + self.folders.len() + self.rest.len()
    }
    pub(crate) fn version_here(&mut self, hash: &VersionHash) {
        if let Some(keys) = self.stalled.remove(hash) {
            keys.iter().for_each(|key| {
                self.stalled_on.remove(key);
            });
            self.todo.extend(keys);
        }
    }
    /// A key waits for the bytes of this version, or of none. Returns a version whose pieces nothing waits for any more.
    pub(super) fn stall(&mut self, key: Key, on: Option<VersionHash>) -> Option<VersionHash> {
        let before = self.stalled_on.get(&key).copied();
        if before == on {
            return None;
        }
        if let Some(on) = on {
            self.stalled.entry(on).or_default().insert(key);
            self.stalled_on.insert(key, on);
        } else {
            self.stalled_on.remove(&key);
        }
        let before = before?;
        let keys = self.stalled.get_mut(&before)?;
        keys.remove(&key);
        if !keys.is_empty() {
            return None;
        }
        self.stalled.remove(&before);
        self.fetching.remove(&before).then_some(before)
    }
    /// A version was published, perhaps again in other pieces: what waits for it looks anew.
    pub(crate) fn version_told(&mut self, hash: &VersionHash) {
        self.fetching.remove(hash);
        self.version_here(hash);
    }
    pub(crate) fn blob_here(&mut self, hash: VersionHash) {
        self.fetching.remove(&hash);
        self.blobs_here.insert(hash);
        self.version_here(&hash);
    }
    pub(super) fn back_off(&mut self, key: Key, now: Timestamp) {
        let attempts = self.attempts.entry(key).or_default();
        let wait = doubled(RETRY_MS, *attempts, RETRY_MAX_MS);
        *attempts += 1;
        self.todo.remove(&key);
        self.folders.remove(&key);
        self.rest.remove(&key);
        self.retry.insert(key, now.after_ms(wait));
    }
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < ACTIONS_MAX && self.bytes < ACTION_BYTES_MAX
    }
}

/// Whether a path is below a folder.
pub(super) fn is_under(path: &RelPath, folder: &RelPath) -> bool {
    path.as_str().strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
}
