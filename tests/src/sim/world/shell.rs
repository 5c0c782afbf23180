//! What an agent's shell does between the core, the disk and the folder.
//!
//! Spec: docs/simulation.md#folder.

use weft_agent_core::content::INLINE_BYTES_MAX;
use weft_agent_core::disk::{FileBytes, FolderAction, Found, NewContent, Outcome, RelPath, Seen};
use weft_agent_core::files::{ActionId, TEXT_BYTES_MAX};
use weft_agent_core::workspace::input::{Input, Token};

use super::damage::{Checked, reading};
use super::{Step, World};
use crate::sim::folder::{Node, Ready, Undo};
use crate::sim::host::{Job, Told};
use crate::sim::machine::{Known, Machine};

impl<M: Machine> World<M> {
    /// An fsync starts, unless one is under way: it takes what is written so far.
    pub(super) fn flush_soon(&mut self, index: usize) {
        let (low, high) = self.case.profile.fsync_us;
        let delay_us = self.disks.between(low, high);
        let Some(host) = self.hosts.get_mut(index) else { return };
        if host.flushing {
            return;
        }
        if let Some(token) = host.disk.newest_pending() {
            host.flushing = true;
            let boot = host.boot;
            self.after(delay_us, Step::Flushed { host: index, boot, token });
        }
    }

    /// An fsync is over. `Token(u64::MAX)`: it only says so.
    pub(super) fn flushed(&mut self, index: usize, boot: u64, token: Token) {
        if !self.runs(index, boot) {
            return;
        }
        let Some(host) = self.hosts.get_mut(index) else { return };
        if token == Token(u64::MAX) {
            if let Some(newest) = host.disk.newest_pending() {
                self.feed(index, Input::Persisted(newest));
            }
            return;
        }
        host.flushing = false;
        host.disk.flush(token);
        while host.unflushed.front().is_some_and(|(front, _, _)| *front <= token) {
            if let Some((_, place, hash)) = host.unflushed.pop_front() {
                // Where a member lies, a place of its chain may be held in several ways for a while.
                if !self.case.profile.has_liar() {
                    self.witness.held(index, &place, hash);
                }
            }
        }
        self.flush_soon(index);
        self.feed(index, Input::Persisted(token));
    }

    /// Queues work in the folder.
    pub(super) fn job(&mut self, index: usize, job: Job) {
        let Some(host) = self.hosts.get_mut(index) else { return };
        if let Job::Scan { only_changes } = &job {
            let waits = |waiting: &Job| matches!(waiting, Job::Scan { only_changes: less } if *only_changes || !less);
            if host.jobs.iter().any(waits) {
                return;
            }
        }
        host.jobs.push_back(job);
        if !host.working {
            host.working = true;
            let boot = host.boot;
            let delay_us = self.disks.between(20, 2_000);
            self.after(delay_us, Step::Work { host: index, boot });
        }
    }

    /// The folder's worker does the next job, at this instant.
    pub(super) fn work(&mut self, index: usize, boot: u64) {
        if !self.runs(index, boot) {
            return;
        }
        let Some(job) = self.hosts.get_mut(index).and_then(|host| host.jobs.pop_front()) else { return };
        match job {
            Job::Act(action, what) => self.act(index, action, &what),
            Job::Look { paths, only_changes } => {
                let seen = self.look(index, paths, only_changes);
                if !seen.is_empty() {
                    self.say(index, Input::Seen(seen), Undo::new());
                }
            }
            Job::Scan { only_changes } => {
                let Some(host) = self.hosts.get_mut(index) else { return };
                if !only_changes {
                    // Told anew is also what was told to be gone, if the core still counts on it.
                    for (path, known) in M::known_files(&host.disk.store) {
                        host.known.entry(path).or_insert(known);
                    }
                }
                let mut paths: Vec<RelPath> = host.folder.iter().map(|(path, _)| path.clone()).collect();
                paths.extend(host.known.keys().filter(|path| host.folder.get(path).is_none()).cloned());
                let seen = self.look(index, paths, only_changes);
                if !seen.is_empty() {
                    self.say(index, Input::Seen(seen), Undo::new());
                }
                self.say(index, Input::Scanned { complete: true }, Undo::new());
            }
        }
        let delay_us = self.disks.between(20, 1_500);
        let Some(host) = self.hosts.get_mut(index) else { return };
        host.working = !host.jobs.is_empty();
        if host.working {
            self.after(delay_us, Step::Work { host: index, boot });
        }
    }

    /// What is at these paths: what is there first, then what is gone.
    fn look(&mut self, index: usize, paths: Vec<RelPath>, only_changes: bool) -> Vec<Seen> {
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        for path in paths {
            let Some(host) = self.hosts.get_mut(index) else { continue };
            let now = host.folder.get(&path).map(known);
            if only_changes && now.as_ref() == host.known.get(&path) {
                continue;
            }
            match now {
                Some(now) => host.known.insert(path.clone(), now),
                None => host.known.remove(&path),
            };
            let seen = self.see(index, path);
            if seen.found == Found::Absent { absent.push(seen) } else { present.push(seen) }
        }
        absent.reverse();
        present.append(&mut absent);
        present
    }

    fn see(&mut self, index: usize, path: RelPath) -> Seen {
        let node = self.hosts.get(index).and_then(|host| host.folder.get(&path)).cloned();
        let found = match node {
            None => Found::Absent,
            Some(Node::Folder) => Found::Folder,
            Some(Node::Symlink(target)) => Found::Symlink { target },
            Some(Node::File { bytes, executable, stat, .. }) => {
                let text = bytes.len() <= TEXT_BYTES_MAX && core::str::from_utf8(&bytes).is_ok();
                let bytes = if text || bytes.len() <= INLINE_BYTES_MAX {
                    FileBytes::Here(bytes)
                } else {
                    self.cut_blob(index, &path)
                };
                Found::File { bytes, executable, stat }
            }
        };
        let unfinished = self.hosts.get(index).and_then(|host| host.unfinished.get(&path)).copied();
        Seen { unfinished, ..Seen::new(path, found) }
    }

    fn cut_blob(&mut self, index: usize, path: &RelPath) -> FileBytes {
        let nothing = FileBytes::Here(bytes::Bytes::new());
        let Some(host) = self.hosts.get_mut(index) else { return nothing };
        let (Some(machine), Some(Node::File { bytes, .. })) = (&host.machine, host.folder.get(path)) else {
            return nothing;
        };
        let bytes = bytes.clone();
        match machine.cut(&bytes, &mut self.disks) {
            Ok((manifest, pieces)) => {
                let hash = M::version_hash(&machine.workspace(), &bytes);
                for (id, sealed) in pieces {
                    host.disk.write_piece(id, sealed);
                }
                FileBytes::Blob { hash, manifest }
            }
            Err(why) => {
                self.witness.fail("blob", || format!("host {index} cannot cut a file: {why}"));
                nothing
            }
        }
    }

    fn act(&mut self, index: usize, action: ActionId, what: &FolderAction) {
        let Some(host) = self.hosts.get_mut(index) else { return };
        let Some(machine) = &host.machine else { return };
        let ready = match what {
            FolderAction::Write { content: NewContent::Bytes(bytes), .. } => Some(Ready::Bytes(bytes.clone())),
            FolderAction::Write { content: NewContent::Symlink(target), .. } => Some(Ready::Symlink(target.clone())),
            FolderAction::Write { content: NewContent::Blob(manifest), .. } => {
                let checked = Checked { store: &host.disk.store, marks: &host.damaged };
                match reading(|| machine.splice(manifest, &checked)) {
                    Err(damaged) => return self.found_damage(index, &damaged),
                    Ok(Ok(bytes)) => Some(Ready::Bytes(bytes)),
                    Ok(Err(why)) => {
                        self.witness.fail("blob", || format!("host {index} cannot put a file together: {why}"));
                        return;
                    }
                }
            }
            FolderAction::MakeFolder { .. }
            | FolderAction::Move { .. }
            | FolderAction::Remove { .. }
            | FolderAction::SetExecutable { .. } => None,
        };
        let workspace = machine.workspace();
        if let (FolderAction::Write { hash, .. }, Some(Ready::Bytes(bytes))) = (what, &ready)
            && M::version_hash(&workspace, bytes) != *hash
        {
            self.witness.fail("hash", || format!("host {index} is to write other content than the hash says"));
        }
        host.unfinished.remove(path_of(what));
        let blind = self.sabotage.blind_writes;
        let (acted, undo) =
            host.folder.act(what, ready, self.now_us, blind, |bytes| M::version_hash(&workspace, bytes));
        let mut moved = Vec::new();
        if matches!(acted, crate::sim::folder::Acted::Done(_)) {
            host.learn(what);
            if let FolderAction::Move { to, .. } = what {
                moved = host.with_inside(to);
            }
        }
        self.note(|| format!("h{index} did {action:?}: {}", brief(what)));
        if self.shows_forged(index)
            && let Some(host) = self.hosts.get_mut(index)
        {
            host.was_shown_forged = true;
        }
        let outcome = match acted {
            crate::sim::folder::Acted::Done(stat) => Outcome::Done(stat),
            crate::sim::folder::Acted::Failed(why) => Outcome::Failed(why),
            crate::sim::folder::Acted::Differs(path) => {
                let seen = self.look(index, vec![path.clone()], false).pop();
                let gone = Seen::new(path, Found::Absent);
                Outcome::Differs(seen.unwrap_or(gone))
            }
        };
        self.say(index, Input::Acted { action, outcome }, undo);
        if !moved.is_empty() {
            // What a user changed just before is told by the watcher under a path that is no more.
            self.job(index, Job::Look { paths: moved, only_changes: true });
        }
    }

    /// Tells the core something, in order, a little later.
    fn say(&mut self, index: usize, input: Input, undo: Undo) {
        let delay_us = self.disks.between(20, 3_000);
        let Some(host) = self.hosts.get_mut(index) else { return };
        host.told.push_back(Told { input, undo });
        host.told_until_us = host.told_until_us.max(self.now_us + delay_us);
        let (at_us, boot) = (host.told_until_us, host.boot);
        self.at(at_us, Step::Tell { host: index, boot });
    }

    pub(super) fn tell(&mut self, index: usize, boot: u64) {
        if !self.runs(index, boot) {
            return;
        }
        let Some(told) = self.hosts.get_mut(index).and_then(|host| host.told.pop_front()) else { return };
        let Input::Seen(seen) = told.input else { return self.feed(index, told.input) };
        let Some(machine) = self.hosts.get(index).and_then(|host| host.machine.as_ref()) else { return };
        let mut parts = machine.slices(seen);
        if parts.len() > 1 {
            // In parts, as the shell does it; each later one when something else may have come first.
            let rest = parts.split_off(1);
            let until_us = self.hosts.get(index).map_or(self.now_us, |host| host.told_until_us);
            for part in rest.into_iter().rev() {
                let Some(host) = self.hosts.get_mut(index) else { return };
                host.told.push_front(Told { input: Input::Seen(part), undo: Undo::new() });
                self.at(until_us, Step::Tell { host: index, boot });
            }
        }
        if let Some(first) = parts.pop() {
            self.feed(index, Input::Seen(first));
        }
    }

    /// A user changed these paths: the watcher tells of them after its debounce, or misses them.
    pub(super) fn touched(&mut self, index: usize, paths: impl IntoIterator<Item = RelPath>) {
        let (low, high) = self.case.profile.watch_us;
        let (deaf, delay_us) = (self.disks.chance(self.case.profile.deaf), self.disks.between(low, high));
        let Some(host) = self.hosts.get_mut(index) else { return };
        if host.machine.is_none() {
            return;
        }
        let boot = host.boot;
        if deaf {
            if !host.missed {
                host.missed = true;
                self.after(15_000_000, Step::SlowScan { host: index, boot });
            }
            return;
        }
        for path in paths {
            // A folder that came with it tells of itself.
            host.dirty.extend(std::iter::successors(path.parent(), RelPath::parent));
            host.dirty.insert(path);
        }
        self.after(delay_us, Step::Watch { host: index, boot });
    }

    pub(super) fn watch(&mut self, index: usize, boot: u64) {
        if !self.runs(index, boot) {
            return;
        }
        let Some(host) = self.hosts.get_mut(index) else { return };
        let paths: Vec<RelPath> = core::mem::take(&mut host.dirty).into_iter().collect();
        if !paths.is_empty() && host.admitted {
            self.job(index, Job::Look { paths, only_changes: true });
        }
    }

    pub(super) fn slow_scan(&mut self, index: usize, boot: u64) {
        if self.runs(index, boot)
            && let Some(host) = self.hosts.get_mut(index)
        {
            host.missed = false;
            // Who is not admitted yet looks at everything then.
            if host.admitted {
                self.job(index, Job::Scan { only_changes: true });
            }
        }
    }
}

impl<M> crate::sim::host::Host<M> {
    /// A path, and what is, or is known to be, inside it.
    fn with_inside(&self, folder: &RelPath) -> Vec<RelPath> {
        let prefix = format!("{folder}/");
        let known = self.known.keys().filter(|path| path.as_str().starts_with(&prefix));
        let mut paths: Vec<RelPath> = self.folder.inside(folder).map(|(path, _)| path).chain(known).cloned().collect();
        paths.push(folder.clone());
        paths.sort();
        paths.dedup();
        paths
    }

    /// After an action of our own, what is there is known.
    fn learn(&mut self, what: &FolderAction) {
        let paths: Vec<RelPath> = match what {
            FolderAction::Move { from, to, .. } => {
                // It moved along unread: an edit of it, or in it, that nobody looked at yet is still to be told.
                let below = format!("{from}/");
                let moved = |path: &RelPath| path == from || path.as_str().starts_with(&below);
                let inside: Vec<_> = self.known.extract_if(.., |path, _| moved(path)).collect();
                for (path, known) in inside {
                    let rest = path.as_str().get(from.as_str().len()..).unwrap_or_default();
                    if let Some(path) = RelPath::new(&format!("{to}{rest}")) {
                        self.known.insert(path, known);
                    }
                }
                Vec::new()
            }
            FolderAction::MakeFolder { path }
            | FolderAction::Write { path, .. }
            | FolderAction::Remove { path, .. } => vec![path.clone()],
            // It says nothing of the content, which a user may have changed since it was read.
            FolderAction::SetExecutable { .. } => Vec::new(),
        };
        for path in paths {
            match self.folder.get(&path).map(known) {
                Some(now) => self.known.insert(path, now),
                None => self.known.remove(&path),
            };
        }
    }
}

fn known(node: &Node) -> Known {
    match node {
        Node::File { stat, .. } => Known::File(*stat),
        Node::Symlink(target) => Known::Symlink(target.clone()),
        Node::Folder => Known::Folder,
    }
}

fn path_of(what: &FolderAction) -> &RelPath {
    match what {
        FolderAction::MakeFolder { path }
        | FolderAction::Write { path, .. }
        | FolderAction::Move { from: path, .. }
        | FolderAction::Remove { path, .. }
        | FolderAction::SetExecutable { path, .. } => path,
    }
}

fn brief(what: &FolderAction) -> String {
    match what {
        FolderAction::MakeFolder { path } => format!("make folder {path}"),
        FolderAction::Write { path, executable, .. } => format!("write {path} {executable}"),
        FolderAction::Move { from, to, .. } => format!("move {from} to {to}"),
        FolderAction::Remove { path, .. } => format!("remove {path}"),
        FolderAction::SetExecutable { path, executable } => format!("set {path} {executable}"),
    }
}
