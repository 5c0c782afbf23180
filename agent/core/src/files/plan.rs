//! From the documents to the disk: what differs becomes actions.
//!
//! Invariant: at most one action is under way for a path, each names what must be there before it, and what a write
//! will leave is stored before the write goes out. Folders before what is in them, removals of folders last, two things
//! that swap names through a temporary one. Spec: docs/files.md#writing.

use std::collections::BTreeSet;

use crate::content::Manifest;
use crate::disk::{Expect, FolderAction, Found, NewContent, Outcome, RelPath, Removal, Seen, Stat};
use crate::files::documents::heads;
use crate::files::entry::{Kind, ROOT_ID};
use crate::files::names::{Document, version_hash};
use crate::files::record::{Key, OnDisk, Record};
use crate::files::work::{InFlight, LEAVINGS_MAX, What, is_under};
use crate::files::{ActionId, Cx, Files, FilesOutput, Halt, Versions, text};
use crate::id::VersionHash;
use crate::store::Tx;
use crate::time::Timestamp;

/// Up to so many things that wait for others are looked at in every call. More of them only when half of the actions
/// under way have ended, so that ten thousand files that wait for their folders are not looked at once a folder.
const LOOK_ALWAYS_MAX: usize = 512;

/// What became of looking at one key.
enum Step {
    /// As it should be.
    Done,
    /// An action went out.
    Acting,
    /// Something else must happen first; `by`: what is in the way on disk.
    Blocked { by: Option<Key> },
    /// The content is not here yet.
    Stalled(VersionHash),
}

impl Files {
    /// Gives out actions for what differs between tree and disk, as many as may be under way.
    pub(crate) fn plan(&mut self, cx: &mut Cx<'_, '_>) {
        if self.halt.is_some() || self.building {
            return;
        }
        self.plan_once(cx);
        // Folders that changed places left work behind. Each then is where it belongs, so this ends.
        while !self.work.todo.is_empty() && self.work.has_room() {
            self.plan_once(cx);
        }
        let unsure = std::mem::take(&mut self.work.to_ask);
        if !unsure.is_empty() {
            self.look_at(unsure);
        }
    }

    fn plan_once(&mut self, cx: &mut Cx<'_, '_>) {
        let new = self.sort_work();
        let few = self.work.folders.len() + self.work.rest.len() <= LOOK_ALWAYS_MAX;
        let all = few || self.work.in_flight.len() <= self.work.look_at_all_below;
        let mut blocked: Vec<Key> = Vec::new();
        let moving = self.plan_folders(if all { None } else { Some(&new) }, &mut blocked, cx);
        if all {
            // One after the other, not from a copy of the list: there may be very many, and room for one.
            let mut last = None;
            while self.work.has_room()
                && let Some((number, key)) = self.work.rest.after(last)
            {
                last = Some(number);
                self.plan_one(key, &moving, &mut blocked, cx);
            }
            self.work.look_at_all_below = self.work.in_flight.len() / 2;
        } else {
            for key in new {
                if self.work.has_room() && self.work.rest.contains(&key) {
                    self.plan_one(key, &moving, &mut blocked, cx);
                }
            }
        }
        if self.work.in_flight.is_empty() {
            self.step_aside(&blocked, cx);
        }
    }

    /// Steps through the folders (these, or all), outer ones first; those that are about to move.
    fn plan_folders(&mut self, only: Option<&[Key]>, blocked: &mut Vec<Key>, cx: &mut Cx<'_, '_>) -> Vec<RelPath> {
        let place = |key: &Key| (self.records.brief(*key).map(|known| known.path.clone()), *key);
        let mut folders: Vec<(Option<RelPath>, Key)> = match only {
            None => self.work.folders.iter().map(place).collect(),
            Some(keys) => keys.iter().filter(|key| self.work.folders.contains(*key)).map(place).collect(),
        };
        folders.sort();
        let mut moving: Vec<RelPath> = Vec::new();
        for (at, key) in folders {
            if !self.work.has_room() {
                break;
            }
            let inside = at.as_ref().is_some_and(|at| moving.iter().any(|folder| is_under(at, folder)));
            match if inside { Step::Blocked { by: None } } else { self.step(key, cx) } {
                Step::Blocked { by } => blocked.extend(by),
                Step::Done | Step::Acting | Step::Stalled(_) => {
                    self.work.folders.remove(&key);
                    let wants = self.shown.paths.get(&key);
                    moving.extend(at.filter(|at| wants.is_some_and(|wants| wants != at)));
                }
            }
        }
        moving
    }

    /// Steps one file or link, unless it is in a folder that is about to move.
    fn plan_one(&mut self, key: Key, moving: &[RelPath], blocked: &mut Vec<Key>, cx: &mut Cx<'_, '_>) {
        let at = self.records.brief(key).map(|known| &known.path);
        if at.is_some_and(|at| moving.iter().any(|folder| is_under(at, folder))) {
            return;
        }
        let stalls_on = match self.step(key, cx) {
            Step::Blocked { by } => return blocked.extend(by),
            Step::Stalled(version) => Some(version),
            Step::Done | Step::Acting => None,
        };
        self.work.rest.remove(&key);
        // What was waited for may have been replaced or deleted, and nobody may ever have it.
        let unneeded = self.work.stall(key, stalls_on);
        self.outputs.extend(unneeded.map(FilesOutput::Unneeded));
    }

    /// Sorts what came up since into folders and the rest; what that was.
    fn sort_work(&mut self) -> Vec<Key> {
        let new = self.work.todo.take();
        for key in new.iter().copied() {
            let is_folder = match self.tree.entries.get(&key.id) {
                Some(entry) => entry.kind == Kind::Folder,
                None => self.records.brief(key).is_some_and(|known| known.kind == Kind::Folder),
            };
            if is_folder {
                self.work.folders.insert(key);
                self.work.rest.remove(&key);
            } else {
                self.work.rest.insert(key);
                self.work.folders.remove(&key);
            }
        }
        new
    }

    /// Nothing can go first: one of those that are in the way takes a temporary name.
    fn step_aside(&mut self, blocked_by: &[Key], cx: &mut Cx<'_, '_>) {
        for key in blocked_by {
            let Some(known) = self.records.brief(*key) else { continue };
            let at = known.path.clone();
            let leaves = self.shown.paths.get(key).is_some_and(|to| *to != at);
            if !leaves || self.gone.contains(*key) || self.work.retry.contains_key(key) {
                continue;
            }
            let name = format!("{}.weft-{}", key.id.to_string().get(..12).unwrap_or_default(), self.work.next);
            let aside = at.parent().map_or_else(|| RelPath::new(&name), |folder| folder.join(&name));
            if let (Some(to), Some(record)) = (aside, self.records.whole(*key, cx.tx)) {
                self.act_move(*key, &record, to);
                return;
            }
        }
    }

    /// What one key needs next.
    fn step(&mut self, key: Key, cx: &mut Cx<'_, '_>) -> Step {
        if self.work.busy_keys.contains(&key) || self.gone.contains(key) || self.work.retry.contains_key(&key) {
            // Looked at again when that has ended.
            return Step::Done;
        }
        let wanted = self.shown.paths.get(&key).cloned();
        let known = self.records.brief(key).cloned();
        self.unnamed.remove(&key);
        if let Some(known) = known.as_ref().filter(|known| known.pending) {
            // A crash hid what came of an earlier write. Whoever went on from one of the two contents that may be there, and
            // named only that from now on, would take a person's edit of the other for an edit of this one.
            if self.work.unsure.insert(key) {
                self.work.to_ask.push(known.path.clone());
            }
            return Step::Done;
        }
        self.work.unsure.remove(&key);
        match (wanted, known) {
            (None, None) => Step::Done,
            (None, Some(known)) => {
                if self.work.is_busy(&known.path) {
                    return Step::Blocked { by: None };
                }
                let holds = |folder: &RelPath| self.records.has_below(folder) || self.busy_below(folder);
                if known.kind == Kind::Folder && holds(&known.path) {
                    return Step::Blocked { by: None };
                }
                let Some(record) = self.records.whole(key, cx.tx) else { return Step::Done };
                let Some(why) = self.reason_to_remove(key, &record, cx) else {
                    self.unnamed.insert(key);
                    return Step::Done;
                };
                let expect = match (&record.now, &record.pending) {
                    (None, Some(pending)) if record.kind == Kind::File => Expect::File(pending.hash),
                    (None, Some(pending)) if record.kind == Kind::Link => Expect::Symlink(pending.target.clone()),
                    _ => record.expect(),
                };
                let action = FolderAction::Remove { path: known.path.clone(), expect, why };
                self.act(key, known.path, What::Remove, 0, action);
                Step::Acting
            }
            (Some(path), known) => {
                if self.take_over_folder(key, &path, cx) {
                    return self.step(key, cx);
                }
                if let Some(by) = self.in_the_way(key, &path) {
                    self.want_above(&path);
                    return by;
                }
                match known {
                    Some(known) if known.path != path => {
                        if known.hash.is_none() && known.kind != Kind::Folder {
                            // A write elsewhere that may never have happened: look there, then begin anew.
                            self.records.remove(key, cx.tx);
                            self.look_at(vec![known.path]);
                            return self.step(key, cx);
                        }
                        if self.work.is_busy(&known.path) || self.busy_below(&known.path) {
                            return Step::Blocked { by: None };
                        }
                        if is_under(&path, &known.path) {
                            // It stands where the folder that it belongs in is to be, and cannot be moved into itself.
                            return Step::Blocked { by: Some(key) };
                        }
                        let Some(record) = self.records.whole(key, cx.tx) else { return Step::Done };
                        self.act_move(key, &record, path);
                        Step::Acting
                    }
                    known => self.step_content(key, path, known.is_some(), cx),
                }
            }
        }
    }

    /// Two folders became one, and the other's is where this one belongs: they change places, so that what is in the
    /// one that is not shown any more can follow and it can go.
    fn take_over_folder(&mut self, key: Key, path: &RelPath, cx: &Cx<'_, '_>) -> bool {
        let Some(other) = self.records.at(path).filter(|other| *other != key) else { return false };
        let is_folder = |known: &super::record::Brief| known.kind == Kind::Folder;
        let both = self.tree.entries.get(&key.id).is_some_and(|entry| entry.kind == Kind::Folder)
            && self.records.brief(other).is_some_and(is_folder);
        if !both || self.shown.paths.contains_key(&other) || self.work.busy_keys.contains(&other) {
            return false;
        }
        let (Some(mut theirs), mine) = (self.records.whole(other, cx.tx), self.records.whole(key, cx.tx)) else {
            return false;
        };
        self.records.remove(other, cx.tx);
        self.gone.remove(other);
        if let Some(mine) = mine {
            self.records.remove(key, cx.tx);
            self.records.put(other, &mine, cx.tx);
            self.work.add([other]);
        }
        theirs.path = path.clone();
        self.records.put(key, &theirs, cx.tx);
        self.work.add([key]);
        true
    }

    fn busy_below(&self, folder: &RelPath) -> bool {
        self.work.busy_paths.iter().any(|path| is_under(path, folder))
    }

    /// Whether something else is, or is being put, where this key belongs.
    fn in_the_way(&self, key: Key, path: &RelPath) -> Option<Step> {
        if self.work.is_busy(path) {
            return Some(Step::Blocked { by: None });
        }
        if let Some(other) = self.records.at(path).filter(|other| *other != key) {
            return Some(Step::Blocked { by: Some(other) });
        }
        // What is above must be there, as the folder that belongs there: a folder that a write made in passing would be
        // in the way of the one that is to be moved there.
        let above = path.parent()?;
        let other = self.records.at(&above);
        match other.and_then(|other| self.records.brief(other)) {
            Some(known) if known.kind == Kind::Folder => None,
            Some(_) => Some(Step::Blocked { by: other }),
            None => Some(Step::Blocked { by: None }),
        }
    }

    /// What waits for the folder it belongs in has that folder made or moved, should nobody have thought of it: after a
    /// restored backup what is on the disk may have taken its place meanwhile.
    fn want_above(&mut self, path: &RelPath) {
        let Some(above) = path.parent().filter(|above| self.records.at(above).is_none()) else { return };
        let Some(folder) = self.shown.at.get(&above).copied() else { return };
        let work = &self.work;
        let waits = work.busy_keys.contains(&folder) || work.retry.contains_key(&folder) || self.gone.contains(folder);
        if !waits && !work.folders.contains(&folder) {
            self.work.add([folder]);
        }
    }

    /// At the right path: is the right thing there?
    fn step_content(&mut self, key: Key, path: RelPath, is_known: bool, cx: &mut Cx<'_, '_>) -> Step {
        let Some(entry) = self.tree.entries.get(&key.id) else { return Step::Done };
        let (kind, executable) = (entry.kind, entry.executable);
        if kind == Kind::Folder {
            if is_known {
                return Step::Done;
            }
            let action = FolderAction::MakeFolder { path: path.clone() };
            self.act(key, path, What::MakeFolder, 0, action);
            return Step::Acting;
        }
        let Some(hash) = self.alternative(key).map(super::tree::Alternative::hash) else { return Step::Done };
        if let Some(known) = self.records.brief(key)
            && known.hash == Some(hash)
        {
            if kind == Kind::File && known.executable != executable {
                let action = FolderAction::SetExecutable { path: path.clone(), executable };
                self.act(key, path, What::SetExecutable(executable), 0, action);
                return Step::Acting;
            }
            return Step::Done;
        }
        self.act_write(key, path, kind, executable, cx)
    }

    fn act_write(&mut self, key: Key, path: RelPath, kind: Kind, executable: bool, cx: &mut Cx<'_, '_>) -> Step {
        let Some(shown) = self.alternative(key).cloned() else { return Step::Done };
        let version = shown.version.hash;
        let mut known_heads = Vec::new();
        let mut hash = version;
        let mut target = String::new();
        let content = if shown.text.is_some() {
            let doc = &self.documents.open(Document::text(key.id, &version), cx.tx).doc;
            let (style, text) = text::read(doc, None);
            let bytes = text::render(style, &text);
            known_heads = heads(doc);
            hash = version_hash(&self.identity.workspace, &bytes);
            NewContent::Bytes(bytes.into())
        } else if shown.version.blob {
            match self.blob(version, cx) {
                Some(manifest) => NewContent::Blob(manifest),
                None => return Step::Stalled(version),
            }
        } else {
            match self.bytes_of(cx, &version) {
                None => return Step::Stalled(version),
                Some(bytes) if kind == Kind::Link => {
                    target = String::from_utf8_lossy(&bytes).into_owned();
                    NewContent::Symlink(target.clone())
                }
                Some(bytes) => NewContent::Bytes(bytes),
            }
        };
        let mut record = self.records.whole(key, cx.tx).unwrap_or_else(|| Record::new(path.clone(), kind));
        let expect = record.expect();
        record.pending = Some(OnDisk { hash, executable, version, heads: known_heads, target, void: None });
        self.records.put(key, &record, cx.tx);
        let bytes = match &content {
            NewContent::Bytes(bytes) => bytes.len(),
            NewContent::Blob(_) | NewContent::Symlink(_) => 0,
        };
        let action = FolderAction::Write { path: path.clone(), expect, content, hash, executable };
        self.act(key, path, What::Write { leaves: hash }, bytes, action);
        Step::Acting
    }

    /// The manifest of a blob whose pieces are here; asks for them otherwise.
    fn blob(&mut self, hash: VersionHash, cx: &mut Cx<'_, '_>) -> Option<Manifest> {
        let manifest = cx.versions.manifest(&hash, cx.tx)?;
        if self.work.blobs_here.contains(&hash) {
            return Some(manifest);
        }
        if self.work.fetching.insert(hash) {
            self.outputs.push_back(FilesOutput::Fetch { hash, manifest });
        }
        None
    }

    fn act_move(&mut self, key: Key, record: &Record, to: RelPath) {
        let from = record.path.clone();
        let folder = record.kind == Kind::Folder;
        let action = FolderAction::Move { from: from.clone(), to: to.clone(), expect: record.expect() };
        self.act(key, from, What::Move { to, folder }, 0, action);
    }

    fn act(&mut self, key: Key, path: RelPath, what: What, bytes: usize, action: FolderAction) {
        self.work.next += 1;
        let id = ActionId(self.work.next);
        self.work.enter(id, InFlight { key, path, what, bytes });
        self.outputs.push_back(FilesOutput::Act(id, action));
    }

    /// An action ended. Unknown ones are ignored.
    pub fn handle_acted(
        &mut self,
        now: Timestamp,
        action: ActionId,
        outcome: Outcome,
        versions: &mut dyn Versions,
        tx: &Tx<'_>,
    ) {
        let mut cx = Cx { now, versions, tx };
        let Some(done) = self.work.leave(action) else { return };
        if let (What::Move { to, .. }, Outcome::Done(_)) = (&done.what, &outcome) {
            self.defer_moved(&done.path, to);
        }
        // The folder it is in may have been moved by a person since: then what is gone from there is elsewhere now, and is to
        // be removed there.
        let moved = |known: &super::record::Brief| done.what == What::Remove && known.path != done.path;
        let elsewhere = self.records.brief(done.key).filter(|known| moved(known)).map(|known| known.path.clone());
        match outcome {
            Outcome::Done(_) | Outcome::Differs(Seen { found: Found::Absent, .. }) if elsewhere.is_some() => {
                self.look_at(elsewhere.into_iter().collect());
            }
            Outcome::Done(stat) => self.acted_done(&done, stat, &cx),
            Outcome::Differs(seen) if done.what == What::Remove && seen.found == Found::Absent => {
                self.acted_done(&done, Stat::default(), &cx);
            }
            // While the folder stands still nothing is taken in: what is there is seen by the scan that follows.
            Outcome::Differs(_) if matches!(self.halt, Some(Halt::Root(_))) => self.not_written(&done, &cx),
            Outcome::Differs(seen) => self.acted_differs(&done, seen, &mut cx),
            Outcome::Failed(_) => {
                self.work.back_off(done.key, now);
                // The folders above as well: one that is gone and that nobody told of would let it fail for ever.
                let mut look: BTreeSet<RelPath> = BTreeSet::new();
                let to = if let What::Move { to, .. } = &done.what { Some(to) } else { None };
                for path in std::iter::once(&done.path).chain(to) {
                    look.extend(std::iter::successors(Some(path.clone()), RelPath::parent));
                }
                self.look_at(look.into_iter().collect());
            }
        }
        self.work.add([done.key]);
        self.settle_later(&mut cx);
        // What was seen there meanwhile may be from before the action: look again, unless the next action is under way
        // there by now: then what was seen may move along with that one.
        let free: Vec<RelPath> = self.deferred.iter().filter(|path| !self.work.is_busy(path)).cloned().collect();
        if !free.is_empty() {
            self.deferred.retain(|path| !free.contains(path));
            self.look_at(free);
        }
    }

    /// What was seen in a folder that has moved since moved along with it.
    fn defer_moved(&mut self, from: &RelPath, to: &RelPath) {
        let moved = |path: &RelPath| {
            let rest =
                path.as_str().strip_prefix(from.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
            RelPath::new(&format!("{to}{rest}"))
        };
        let along: Vec<RelPath> = self.deferred.iter().filter_map(moved).collect();
        self.deferred.extend(along);
    }

    fn acted_done(&mut self, done: &InFlight, stat: Stat, cx: &Cx<'_, '_>) {
        self.work.attempts.remove(&done.key);
        match &done.what {
            What::Remove => {
                let is_folder = self.records.brief(done.key).is_some_and(|known| known.kind == Kind::Folder);
                if is_folder && self.work.leavings.len() < LEAVINGS_MAX {
                    self.work.leavings.insert(done.path.clone());
                }
                self.records.remove(done.key, cx.tx);
            }
            What::MakeFolder => {
                // It may have ceased to count while it was made.
                let revoked = !self.tree.entries.contains_key(&done.key.id);
                let record = Record {
                    pending: revoked.then(OnDisk::revoked_folder),
                    ..Record::new(done.path.clone(), Kind::Folder)
                };
                self.records.put(done.key, &record, cx.tx);
            }
            What::Write { leaves } => {
                let record = self.records.whole(done.key, cx.tx);
                let arrives = |record: &Record| record.pending.as_ref().is_some_and(|pending| pending.hash == *leaves);
                match record.filter(arrives) {
                    Some(mut record) => {
                        record.arrive(cx.now.wall_ms);
                        record.stat = stat;
                        self.records.put(done.key, &record, cx.tx);
                    }
                    // The documents were built anew meanwhile, and something else is expected there: it is looked at.
                    None => self.look_at(vec![done.path.clone()]),
                }
            }
            What::SetExecutable(executable) => {
                if let Some(mut record) = self.records.whole(done.key, cx.tx) {
                    if let Some(now) = &mut record.now {
                        now.executable = *executable;
                    }
                    record.stat = record.stat.after_touch(stat);
                    self.records.put(done.key, &record, cx.tx);
                }
            }
            What::Move { to, folder } => {
                if *folder {
                    self.carry(done.key, &done.path, to, cx);
                } else if let Some(mut record) = self.records.whole(done.key, cx.tx) {
                    record.path = to.clone();
                    record.stat = record.stat.after_touch(stat);
                    self.records.put(done.key, &record, cx.tx);
                }
            }
        }
        if matches!(done.what, What::Remove | What::Move { .. }) {
            // The folder that it left may be empty now, and to be removed.
            let mut above = done.path.parent();
            while let Some(folder) = above {
                if let Some(key) = self.records.at(&folder) {
                    self.work.leavings.remove(&folder);
                    self.work.add([key]);
                } else if self.work.leavings.remove(&folder) {
                    // A person had put something in there that has gone now: nobody would tell of the empty folder.
                    let action =
                        FolderAction::Remove { path: folder.clone(), expect: Expect::Folder, why: Removal::Emptied };
                    self.act(Key::main(ROOT_ID), folder.clone(), What::Remove, 0, action);
                }
                above = folder.parent();
            }
        }
    }

    /// Something else was there, so a write did not take place; what it is shall be seen later.
    fn not_written(&mut self, done: &InFlight, cx: &Cx<'_, '_>) {
        if !matches!(done.what, What::Write { .. }) {
            return;
        }
        let Some(mut record) = self.records.whole(done.key, cx.tx) else { return };
        record.ends();
        if record.now.is_none() {
            self.records.remove(done.key, cx.tx);
        } else {
            self.records.put(done.key, &record, cx.tx);
        }
    }

    /// Something else was there: a person's edit, most likely. It is taken in; then we look again.
    fn acted_differs(&mut self, done: &InFlight, seen: Seen, cx: &mut Cx<'_, '_>) {
        let before = self.records.whole(done.key, cx.tx);
        if matches!(done.what, What::Write { .. })
            && let Some(mut record) = before.clone()
        {
            let arrived = match &seen.found {
                Found::Absent | Found::Folder => false,
                Found::File { .. } | Found::Symlink { .. } => true,
            };
            if record.is_refound() && arrived {
                // What is there was not known, and is now.
            } else if record.now.is_none() && !(arrived && record.pending.is_some() && self.is_pending(&record, &seen))
            {
                self.records.remove(done.key, cx.tx);
            } else if !(arrived && self.is_pending(&record, &seen)) {
                // The write did not happen: an edit found there was made on what was there before it, not on it.
                record.ends();
                self.records.put(done.key, &record, cx.tx);
            }
        }
        let path = seen.path.clone();
        if let (What::Move { to, .. }, Found::Absent) = (&done.what, &seen.found) {
            // A person may have moved it there, and nobody told us: found in time, it is no deletion.
            self.look_at(vec![to.clone()]);
        }
        self.asked.insert(path.clone());
        self.take_in(vec![seen], cx);
        let after = self.records.whole(done.key, cx.tx);
        let content = |record: &Option<Record>| record.as_ref().and_then(|one| one.now.as_ref()).map(|now| now.hash);
        if content(&before) == content(&after)
            && !self.gone.contains(done.key)
            && self.records.at(&path) == Some(done.key)
        {
            // Nothing was learnt: what is in the way is elsewhere.
            self.work.back_off(done.key, cx.now);
            if let What::Move { to, .. } = &done.what {
                self.look_at(vec![to.clone()]);
            }
        } else if self.work.attempts.get(&done.key).is_some_and(|attempts| *attempts > 0) {
            self.work.back_off(done.key, cx.now);
        } else {
            self.work.attempts.insert(done.key, 1);
        }
    }

    /// Whether what was seen is what the pending write was to leave (or a later edit of it may be told from it).
    fn is_pending(&self, record: &Record, seen: &Seen) -> bool {
        let Some(pending) = &record.pending else { return false };
        match &seen.found {
            Found::File { bytes: crate::disk::FileBytes::Here(bytes), .. } => {
                version_hash(&self.identity.workspace, bytes) == pending.hash
            }
            Found::File { bytes: crate::disk::FileBytes::Blob { hash, .. }, .. } => *hash == pending.hash,
            Found::Symlink { target } => *target == pending.target,
            Found::Absent | Found::Folder => false,
        }
    }
}
