//! Files that were there and are not any more, before anybody calls them deleted.
//!
//! Invariant: an absence becomes a deletion only after a quiet while (or a complete scan), and never when much went at
//! once: then everything stands still until a person answers. Why: an unmounted disk, a half-finished `git checkout`
//! and `rm -rf` in the wrong place look alike. What nobody told of, and only a look of our own found missing, may have
//! moved: it counts after a complete scan alone. What was there for a moment only, or is now in the place of another file, as what
//! a build tool makes beside the old and then puts in its place, is no part of a mass delete. Kept in memory only: after a crash the next scan finds it all again.
//! Spec: docs/files.md#safety.

use std::collections::BTreeSet;

use crate::disk::RelPath;
use crate::files::entry::Kind;
use crate::files::record::{Key, Records};
use crate::files::{Cx, Files, FilesOutput, Halt, Resume, Versions};
use crate::store::Tx;
use crate::time::Timestamp;

/// An absence counts when no other came for this long, in milliseconds: programs that replace files are done by then.
pub(crate) const QUIET_MS: u64 = 2_000;
/// ... but not later than this after the first one, or after some of it was last found elsewhere.
pub(crate) const QUIET_MAX_MS: u64 = 10_000;
/// So many files may always go at once.
const MASS_FILES_MIN: usize = 20;
/// Up to this many files a folder may lose all of them at once.
const ALL_FILES_MIN: usize = 3;
/// A file that was new here at most so long before it went does not count for a mass delete, in milliseconds.
pub(super) const YOUNG_MS: u64 = 2_000;

/// What is gone and not yet decided.
#[derive(Default)]
pub(crate) struct Gone {
    keys: BTreeSet<Key>,
    /// Those of them that had only just been made, or took the place of others.
    young: BTreeSet<Key>,
    first_ms: u64,
    last_ms: u64,
    /// Some of it was found missing by a look of ours: where it may be now, nobody told us either.
    untold: bool,
    /// A complete scan was asked for, and decides.
    scanning: bool,
}

impl Gone {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
    pub(crate) fn contains(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }
    pub(crate) fn keys(&self) -> &BTreeSet<Key> {
        &self.keys
    }
    /// `told`: the shell said so by itself, as it says where things appear. `young`: it had only just been made.
    pub(crate) fn add(&mut self, key: Key, told: bool, young: bool, now: Timestamp) {
        if self.keys.is_empty() {
            self.first_ms = now.mono_ms;
        }
        if self.keys.insert(key) {
            self.last_ms = now.mono_ms;
            self.untold |= !told;
            if young {
                self.young.insert(key);
            }
        }
    }
    /// Some of it was found elsewhere: more may be, so nothing is decided yet.
    pub(crate) fn found_some(&mut self, now: Timestamp) {
        (self.first_ms, self.last_ms) = (now.mono_ms, now.mono_ms);
    }
    /// What was there is in the place of another file now: it went nowhere.
    pub(crate) fn took_a_place(&mut self, key: Key) {
        if self.keys.contains(&key) {
            self.young.insert(key);
        }
    }
    pub(crate) fn remove(&mut self, key: Key) {
        self.keys.remove(&key);
        self.young.remove(&key);
    }
    /// When it is to be decided.
    pub(crate) fn due(&self) -> Option<u64> {
        let waits = !self.keys.is_empty() && !self.scanning;
        waits.then(|| (self.last_ms + QUIET_MS).min(self.first_ms + QUIET_MAX_MS))
    }
    fn take(&mut self) -> BTreeSet<Key> {
        std::mem::take(self).keys
    }
    /// Whether so much is gone that a person must say whether it was meant.
    fn is_mass(&self, records: &Records) -> Option<Halt> {
        let is_file =
            |key: &&Key| records.brief(**key).is_some_and(|known| known.kind != Kind::Folder && known.hash.is_some());
        let young = self.young.iter().filter(is_file).count();
        let gone = self.keys.iter().filter(is_file).count() - young;
        let total = records.files().saturating_sub(young);
        let mass = gone > MASS_FILES_MIN.max(total / 4) || (gone == total && total > ALL_FILES_MIN);
        mass.then_some(Halt::MassDelete { gone, total })
    }
}

impl Files {
    /// Has the shell look at these paths, and remembers that it was our wish.
    pub(crate) fn look_at(&mut self, paths: Vec<RelPath>) {
        self.asked.extend(paths.iter().cloned());
        self.outputs.push_back(FilesOutput::Look(paths));
    }
    /// Turns what is gone into deletions, or halts.
    fn decide_gone(&mut self, cx: &mut Cx<'_, '_>) {
        if self.halt.is_some() || self.gone.is_empty() {
            return;
        }
        if let Some(halt) = self.gone.is_mass(&self.records) {
            self.halt = Some(halt.clone());
            self.outputs.push_back(FilesOutput::Halted(halt));
            return;
        }
        self.project_if_moved(cx);
        let keys = self.gone.take();
        self.delete(&keys, cx);
    }
    /// The shell has looked at everything. After an incomplete look, absences prove nothing.
    pub fn handle_scanned(&mut self, now: Timestamp, complete: bool, versions: &mut dyn Versions, tx: &Tx<'_>) {
        let mut cx = Cx { now, versions, tx };
        self.gone.scanning = false;
        self.gone.untold = false;
        self.asked.clear();
        self.work.ask_again();
        if !complete && self.halt.is_none() {
            let keys = self.gone.take();
            self.work.add(keys);
        }
        self.decide_gone(&mut cx);
        self.settle(&mut cx);
    }
    /// A deadline of [`Files::poll_timeout`] was reached.
    pub fn handle_timeout(&mut self, now: Timestamp, versions: &mut dyn Versions, tx: &Tx<'_>) {
        let mut cx = Cx { now, versions, tx };
        if self.gone.due().is_some_and(|due| due <= now.mono_ms) {
            if self.gone.untold {
                self.gone.scanning = true;
                self.outputs.push_back(FilesOutput::Look(Vec::new()));
            } else {
                self.decide_gone(&mut cx);
            }
        }
        self.work.wake(now.mono_ms);
        self.settle(&mut cx);
    }
    /// The folder is lost (`Some(why)`): everything stands still. Or it is back as it was (`None`); the shell scans it
    /// anew then.
    pub fn handle_root(&mut self, now: Timestamp, lost: Option<String>, versions: &mut dyn Versions, tx: &Tx<'_>) {
        let mut cx = Cx { now, versions, tx };
        // What seemed to be gone is judged by the scan that follows.
        let keys = self.gone.take();
        self.work.add(keys);
        match lost {
            Some(why) => {
                let halt = Halt::Root(why);
                self.halt = Some(halt.clone());
                self.outputs.push_back(FilesOutput::Halted(halt));
            }
            None => self.halt = None,
        }
        self.settle(&mut cx);
    }
    /// A person answered a mass delete. `false`: nothing was asked.
    pub fn handle_resume(&mut self, now: Timestamp, answer: Resume, versions: &mut dyn Versions, tx: &Tx<'_>) -> bool {
        if !matches!(self.halt, Some(Halt::MassDelete { .. })) {
            return false;
        }
        let mut cx = Cx { now, versions, tx };
        self.halt = None;
        self.project_if_moved(&cx);
        let keys = self.gone.take();
        match answer {
            Resume::AcceptDeletes => self.delete(&keys, &mut cx),
            Resume::Restore => {
                for key in &keys {
                    self.records.remove(*key, tx);
                }
                self.work.add(keys);
            }
        }
        self.settle(&mut cx);
        true
    }
}
