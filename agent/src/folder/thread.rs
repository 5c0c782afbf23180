//! The folder's thread: one loop over orders, hints and the slow look.
//!
//! Invariant: what is asked for ([`Order`]) is done in the order given; whoever waits for what is on the disk to be told
//! waits for what is still being saved as well.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, RenameFlags};
use weft_agent_core::disk::{Expect, FileBytes, FolderAction, Found, Outcome, RelPath, Seen};
use weft_agent_core::files::{ActionId, known_contents, known_files, known_folders, pending_writes};
use weft_agent_core::id::{VersionHash, WorkspaceId};
use weft_agent_core::store::Write;
use weft_agent_core::workspace::input::Input;

use super::act::{Acted, Actor, rename, saved_name};
use super::at;
use super::closed::Closed;
use super::emptied::Emptied;
use super::glance::Glance;
use super::guard::Guard;
use super::ignore::{EXCHANGED_PREFIX, Rules};
use super::kept::Kept;
use super::known::{self, Known, Paths};
use super::look::{self, Looked};
use super::marker::Marker;
use super::orders::{Order, Waiting, joined};
use super::patience::{self, Patience};
use super::scan::{self, Entry};
use super::watch::{Debounce, Hint, Urgency, Watch};
use crate::host::inbox::{Inbox, Task};
use crate::store::Store;

/// A whole look when nothing tells of changes.
const SLOW_LOOK: Duration = Duration::from_secs(300);
/// How often a lost root is looked for.
const LOST_LOOK: Duration = Duration::from_secs(2);
/// Bytes of one `Seen`; the core turns it into envelopes of about this size.
const SEEN_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of new files that a whole look reads before it tells what is gone: these may be what is gone, moved.
const UNSAID_BYTES: usize = 64 * 1024 * 1024;
/// Files of one `Seen`.
const SEEN_FILES: usize = 256;
/// After the last deletion that was noticed a whole look settles what is gone: soon, so that others see it soon, but not
/// in the middle of an `rm -r`, so that a mass delete is judged as one.
const VERDICT: Duration = Duration::from_millis(250);
/// The same in looks' lengths: a large folder is not looked at for every file.
const VERDICT_LOOKS: u32 = 8;
/// Latest verdict after the first deletion, while there is always another.
const VERDICT_LAST: Duration = Duration::from_secs(5);
/// Actions done and answered together.
const ACTIONS_AT_ONCE: usize = 256;

pub(super) struct Looker {
    root: PathBuf,
    workspace: WorkspaceId,
    guard: Guard,
    rules: Rules,
    known: Paths,
    reader: Store,
    inbox: Arc<Inbox>,
    watch: Watch,
    debounce: Debounce,
    emptied: Emptied,
    kept: Kept,
    patience: Patience,
    /// Counts what was told and is to be known stored.
    batch: u64,
    orders: Sender<Order>,
    /// Who waits until the core was told of what is there.
    waiting: Vec<Waiting>,
    glance: Arc<Glance>,
    closed: Closed,
    /// Why the folder is lost, if it is.
    lost: Option<String>,
    next_look: Instant,
    /// When what was deleted is judged, and the latest moment for that.
    verdict: Option<(Instant, Instant)>,
    /// What the last whole look took, without reading files.
    look_took: Duration,
}

impl Looker {
    pub(super) fn new(
        root: PathBuf,
        marker: Marker,
        reader: Store,
        inbox: Arc<Inbox>,
        orders: &Sender<Order>,
        glance: Arc<Glance>,
    ) -> Looker {
        let known = known::stored(&reader);
        let kept = at::open_root(&root)
            .map(|fd| Kept::at_start(&fd, &marker.workspace, pending_writes(&reader).collect()))
            .unwrap_or_default();
        let hints = orders.clone();
        let watch = Watch::new(&root, move |hint| {
            let _ended = hints.send(Order::Hint(hint));
        });
        Looker {
            workspace: marker.workspace,
            guard: Guard::new(&root, marker, reader.dir()),
            rules: Rules::new(&root),
            known,
            reader,
            inbox,
            watch,
            debounce: Debounce::default(),
            emptied: Emptied::default(),
            kept,
            patience: Patience::default(),
            batch: 0,
            orders: orders.clone(),
            waiting: Vec::new(),
            glance,
            closed: Closed::default(),
            lost: None,
            next_look: Instant::now(),
            verdict: None,
            look_took: Duration::ZERO,
            root,
        }
    }

    pub(super) fn run(&mut self, orders: &Receiver<Order>) {
        loop {
            let now = Instant::now();
            let wake = self.debounce.next().map_or(self.next_look, |due| due.min(self.next_look));
            let wake = self.verdict.map_or(wake, |(due, _)| due.min(wake));
            let wake = self.closed.next().map_or(wake, |due| due.min(wake));
            let wake = self.kept.next().map_or(wake, |due| due.min(wake));
            let first = match orders.recv_timeout(wake.saturating_duration_since(now)) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut everything = false;
            for order in joined(first.into_iter().chain(orders.try_iter())) {
                let goes_on = match order {
                    Order::Stop => return,
                    Order::Act(actions) => self.act(&actions),
                    Order::Look(paths) if paths.is_empty() => {
                        everything = true;
                        self.tell_anew();
                        true
                    }
                    Order::Look(paths) => self.look_at(&paths),
                    Order::TakeIn(told) => {
                        everything = true;
                        self.waiting.push(Waiting::new(told, Instant::now()));
                        true
                    }
                    Order::Hint(hint) => {
                        everything |= !self.hint(hint);
                        true
                    }
                    Order::Stored(batch) => {
                        self.stored(batch);
                        true
                    }
                };
                if !goes_on {
                    return;
                }
            }
            everything |= self.closed.is_mended(&self.root, Instant::now());
            if self.kept.next().is_some_and(|due| due <= Instant::now()) && !self.follow() {
                return;
            }
            let due = self.debounce.due(Instant::now());
            let verdict = self.verdict.is_some_and(|(due, _)| Instant::now() >= due);
            let goes_on = if everything || verdict || Instant::now() >= self.next_look {
                self.look_everywhere()
            } else if due.is_empty() {
                true
            } else {
                self.noticed(due)
            };
            if !goes_on {
                return;
            }
            if let Some(every) = self.watch.look_every(self.look_took) {
                self.next_look = self.next_look.min(Instant::now() + every);
            }
            let (nothing_waits, now) = (self.debounce.next().is_none(), Instant::now());
            let over = |waiting: &Waiting| nothing_waits || waiting.is_over(now);
            let (over, still) = std::mem::take(&mut self.waiting).into_iter().partition(over);
            self.waiting = still;
            let unread = self.debounce.len();
            let let_go = |over: Vec<Waiting>| over.into_iter().for_each(|waiting| waiting.end(unread));
            let_go(over);
        }
    }

    fn tell(&self, input: Input, bytes: usize) -> bool {
        self.inbox.folder(Task::Input(input), bytes)
    }

    /// False: look at everything.
    fn hint(&mut self, hint: Hint) -> bool {
        let Hint::Path(path, urgency) = hint else { return false };
        let Some(rel) = relative(&self.root, &path) else {
            // The root itself, or the marker: the guard looks.
            return path != self.root;
        };
        if rel.as_str().starts_with(".weft/") || rel.as_str() == ".weft" {
            return matches!(urgency, Urgency::WhenQuiet | Urgency::Open);
        }
        if Rules::is_rule_file(&rel) {
            self.rules.reload();
            self.next_look = Instant::now();
        }
        let now = Instant::now();
        if urgency == Urgency::Gone && self.verdict.is_some() {
            self.judge_later(now);
        }
        self.debounce.add(rel, urgency, now);
        true
    }

    /// Something was deleted.
    fn judge_later(&mut self, now: Instant) {
        let last = self.verdict.map_or(now + VERDICT_LAST, |(_, last)| last);
        self.verdict = Some(((now + VERDICT.max(self.look_took * VERDICT_LOOKS)).min(last), last));
    }

    /// Whatever is known is told again at the next look, as there or as absent.
    fn tell_anew(&mut self) {
        let files = known_files(&self.reader).map(|file| (file.path, Some(file.hash)));
        let stored = files.chain(known_folders(&self.reader).map(|path| (path, None)));
        self.known.extend(stored.map(|(path, held)| (path, Known::Untold(held))));
        self.known.values_mut().for_each(|known| *known = Known::Untold(known.held()));
    }

    fn rooted(&mut self) -> Option<OwnedFd> {
        let found = self.guard.check(&self.known).and_then(|()| {
            at::open_root(&self.root).map_err(|error| format!("{} cannot be read: {error}", self.root.display()))
        });
        match found {
            Ok(root) => Some(root),
            Err(why) => {
                self.lose(why);
                None
            }
        }
    }

    fn lose(&mut self, why: String) -> bool {
        self.next_look = Instant::now() + LOST_LOOK;
        if self.lost.as_ref() == Some(&why) {
            return true;
        }
        self.lost = Some(why.clone());
        self.tell(Input::RootLost { why }, 0)
    }

    fn act(&mut self, actions: &[(ActionId, FolderAction)]) -> bool {
        for some in actions.chunks(ACTIONS_AT_ONCE) {
            let Some(root) = self.rooted() else {
                let failed = || Outcome::Failed("the folder is not there".to_owned());
                return some.iter().all(|(id, _)| self.tell(Input::Acted { action: *id, outcome: failed() }, 0));
            };
            let known = &self.known;
            let bit = |path: &RelPath| match known.get(path) {
                Some(Known::File { executable, .. }) => *executable,
                Some(Known::Symlink(_) | Known::Folder | Known::Untold(_)) | None => None,
            };
            let actor = Actor {
                root: &root,
                bit: &bit,
                workspace: self.workspace,
                pieces: &self.reader,
                #[cfg(test)]
                before_exchange: None,
            };
            let inbox = Arc::clone(&self.inbox);
            let mut rows = |rows: Vec<Write>| store_rows(&inbox, rows);
            let now = Instant::now();
            let all: Vec<&FolderAction> = some.iter().map(|(_, action)| action).collect();
            let held = self.patience.held_back(&root, &all, now);
            let mut plain: Vec<FolderAction> = Vec::new();
            for action in all.into_iter().filter(|action| !held.contains(path_of(action))) {
                self.kept.begins(path_of(action));
                if let FolderAction::Remove { path, expect: Expect::Folder, .. } = action {
                    self.kept.clear_folder(&root, &self.workspace, path, now);
                }
                plain.push(action.clone());
            }
            let mut did = actor.act(&plain, &mut rows).into_iter();
            let waits = || Acted::failed(&std::io::Error::other(patience::WHY));
            let mut ended: Vec<Acted> = Vec::new();
            for (_, action) in some {
                let done = if held.contains(path_of(action)) { None } else { did.next() };
                ended.push(done.unwrap_or_else(waits));
            }
            self.batch += 1;
            let batch = self.batch;
            let mut keeps = false;
            for ((id, action), acted) in some.iter().zip(ended) {
                if let Some(replaced) = acted.replaced {
                    self.kept.add(replaced, batch);
                    keeps = true;
                }
                let unheard = self.lost.is_some() && matches!(acted.outcome, Outcome::Differs(_));
                for (path, known) in acted.remember {
                    // The core does not take this in while it stands still.
                    let known = known.map(|known| if unheard { Known::Untold(known.held()) } else { known });
                    match known {
                        Some(Known::Folder) => {
                            self.watch.add(path.as_str());
                            // Whatever came into it before it was watched.
                            self.debounce.later(path.clone(), Instant::now());
                            self.known.insert(path, Known::Folder);
                        }
                        Some(known) => {
                            self.watch_above(&path);
                            self.known.insert(path, known);
                        }
                        None => {
                            self.watch.forget(path.as_str());
                            self.known.remove(&path);
                        }
                    }
                }
                if let FolderAction::Move { from, to, .. } = action {
                    self.moved(from, to, &acted.outcome);
                }
                if let FolderAction::SetExecutable { path, executable: now } = action
                    && let (Outcome::Done(_), Some(Known::File { executable, .. })) =
                        (&acted.outcome, self.known.get_mut(path))
                {
                    *executable = Some(*now);
                }
                let result = match &acted.outcome {
                    Outcome::Failed(why) => Err(why.as_str()),
                    Outcome::Done(_) | Outcome::Differs(_) => Ok(()),
                };
                self.glance.tried(path_of(action), result, Instant::now());
                let bytes = outcome_bytes(&acted.outcome);
                if !self.tell(Input::Acted { action: *id, outcome: acted.outcome }, bytes) {
                    return false;
                }
            }
            if keeps && !self.tell_stored(batch) {
                return false;
            }
        }
        true
    }

    /// Asks to be told when everything told so far is stored.
    fn tell_stored(&self, batch: u64) -> bool {
        let orders = self.orders.clone();
        let tell = move || {
            let _ended = orders.send(Order::Stored(batch));
        };
        self.inbox.folder(Task::Stored(Box::new(tell)), 0)
    }

    /// Everything told up to that batch is stored: what was kept until then goes.
    fn stored(&mut self, batch: u64) {
        let (Some(root), now) = (self.rooted(), Instant::now()) else { return };
        self.kept.stored(&root, &self.workspace, batch, now);
        if self.kept.is_unresolved() {
            let still: BTreeSet<RelPath> = pending_writes(&self.reader).map(|write| write.path).collect();
            self.kept.resolved(&root, &self.workspace, &still, now);
        }
    }

    /// Tells what programs wrote into files that were replaced under them.
    fn follow(&mut self) -> bool {
        self.kept.later(Instant::now());
        let Some(root) = self.rooted().filter(|_| self.lost.is_none()) else { return true };
        let seen = self.kept.follow(&root, &self.workspace, self.batch + 1, Instant::now());
        if seen.is_empty() {
            return true;
        }
        self.batch += 1;
        self.tell_seen(seen) && self.tell_stored(self.batch)
    }

    /// A moved folder takes along what is known below it.
    fn moved(&mut self, from: &RelPath, to: &RelPath, outcome: &Outcome) {
        if !matches!(outcome, Outcome::Done(_)) {
            return;
        }
        self.kept.moved(from, to);
        let inside: Vec<RelPath> = self.known_below(from).cloned().collect();
        for old in inside {
            let known = self.known.remove(&old);
            let rest = old.as_str().get(from.as_str().len() + 1..).unwrap_or_default();
            if let (Some(new), Some(known)) = (RelPath::new(&format!("{to}/{rest}")), known) {
                if known == Known::Folder {
                    self.watch.add(new.as_str());
                }
                self.known.insert(new, known);
            }
        }
        // What a user changed a moment ago, in it or of it, is told by the watcher under a path that is no more.
        self.debounce.later(to.clone(), Instant::now());
    }

    /// What is known inside a folder, at any depth.
    fn known_below(&self, folder: &RelPath) -> impl Iterator<Item = &RelPath> {
        let below = format!("{folder}/");
        let not_yet = below.clone();
        self.known
            .range(folder.clone()..)
            .map(|(path, _)| path)
            .skip_while(move |path| path.as_str() < not_yet.as_str())
            .take_while(move |path| path.as_str().starts_with(&below))
    }

    fn watch_above(&mut self, path: &RelPath) {
        let mut above = path.parent();
        while let Some(folder) = above {
            if self.known.contains_key(&folder) {
                break;
            }
            self.watch.add(folder.as_str());
            self.known.insert(folder.clone(), Known::Folder);
            above = folder.parent();
        }
    }

    /// Paths the core asks about: always told, whatever is known.
    fn look_at(&mut self, paths: &[RelPath]) -> bool {
        let Some(root) = self.rooted() else { return true };
        if self.lost.is_some() {
            // Nothing is believed before it is told that the folder is back.
            self.tell_anew();
            return self.look_everywhere();
        }
        for path in paths {
            let held = self.known.get(path).and_then(Known::held);
            self.known.insert(path.clone(), Known::Untold(held));
        }
        let (present, absent) = match self.read(&root, paths) {
            Some(read) => read,
            None => return false,
        };
        self.tell_seen(present) && self.tell_absent(absent)
    }

    /// Paths the watcher noticed, and what lies below new folders.
    fn noticed(&mut self, paths: Vec<RelPath>) -> bool {
        let Some(root) = self.rooted() else { return true };
        if self.lost.is_some() {
            return self.look_everywhere();
        }
        let mut todo = Vec::new();
        for path in paths {
            let is_folder = self.root.join(path.as_str()).symlink_metadata().is_ok_and(|meta| meta.is_dir());
            if self.rules.ignored(&path, is_folder) {
                continue;
            }
            if is_folder {
                self.watch.forget(path.as_str());
                self.watch.add(path.as_str());
                let watch = &mut self.watch;
                let mut enter = |folder: &RelPath| watch.add(folder.as_str());
                let listed = scan::list(&self.root, &mut self.rules, Some(&path), &mut enter);
                let unreadable = match &listed {
                    Ok(listing) => listing.unreadable.clone(),
                    Err(error) if look::is_absence(error) => Vec::new(),
                    Err(error) => vec![(path.to_string(), error.to_string())],
                };
                if self.closed.noticed(&unreadable, Instant::now()) || self.closed.covers(&path) {
                    // What is closed now, or open again, is told apart by looking at everything.
                    self.next_look = Instant::now();
                }
                if let Ok(listing) = listed {
                    let is_gone = |inner: &RelPath| at::is_gone(&self.root, inner);
                    let missing = self.known_below(&path).filter(|inner| !listing.entries.contains_key(*inner));
                    todo.extend(missing.filter(|inner| is_gone(inner)).cloned());
                    todo.extend(
                        listing
                            .entries
                            .into_iter()
                            .filter_map(|(inner, entry)| self.differs(&inner, &entry).then_some(inner)),
                    );
                }
                if self.known.get(&path) == Some(&Known::Folder) {
                    continue;
                }
            } else if matches!(self.known.get(&path), Some(Known::Folder | Known::Untold(_))) {
                // What was below is gone with it.
                todo.extend(self.known_below(&path).cloned());
            }
            todo.push(path);
        }
        todo.sort();
        todo.dedup();
        let Some((present, mut absent)) = self.read(&root, &todo) else { return false };
        absent.extend(self.left_behind(&root, &present));
        absent.retain(|path| self.known.contains_key(path));
        absent.sort();
        absent.dedup();
        if !absent.is_empty() {
            self.judge_later(Instant::now());
            // Between reading and telling, the root may have gone away with everything in it.
            if self.rooted().is_none() {
                return true;
            }
        }
        // What went first: then what came can be recognised as the same, moved.
        self.tell_absent(absent) && self.tell_seen(present)
    }

    /// Where files were before, as far as their inodes tell, and are not any more: the watcher may tell of that a moment
    /// later, and what moved would be something new, and something that went. A folder that went with them stands for all in it.
    fn left_behind(&self, root: &OwnedFd, present: &[Seen]) -> BTreeSet<RelPath> {
        let mut inodes: BTreeMap<u64, &RelPath> = BTreeMap::new();
        for seen in present {
            if let Found::File { stat, .. } = &seen.found {
                inodes.insert(stat.inode, &seen.path);
            }
        }
        let mut left = BTreeSet::new();
        if inodes.is_empty() {
            return left;
        }
        let is_gone = |path: &RelPath| match at::open_parent(root, path) {
            Ok(dir) => matches!(at::meta(&dir, path.name()), Ok(None)),
            Err(error) => look::is_absence(&error),
        };
        for (path, known) in &self.known {
            let Known::File { inode, .. } = known else { continue };
            let moved = inodes.get(inode).is_some_and(|to| *to != path);
            if !moved || path.ancestors().any(|above| left.contains(&above)) || !is_gone(path) {
                continue;
            }
            let above = path.ancestors().take_while(|above| self.known.contains_key(above) && is_gone(above)).last();
            left.insert(above.unwrap_or_else(|| path.clone()));
        }
        left
    }

    /// Everything; the end of it is told.
    fn look_everywhere(&mut self) -> bool {
        self.next_look = Instant::now() + SLOW_LOOK;
        self.debounce.clear();
        self.verdict = None;
        let Some(root) = self.rooted() else { return true };
        self.rules.reload();
        self.watch.begin();
        self.watch.add("");
        let began = Instant::now();
        let watch = &mut self.watch;
        let mut enter = |folder: &RelPath| watch.add(folder.as_str());
        let listing = match scan::list(&self.root, &mut self.rules, None, &mut enter) {
            Ok(listing) => listing,
            Err(error) => return self.lose(format!("{} cannot be read: {error}", self.root.display())),
        };
        if let Some((_, why)) = listing.unreadable.iter().find(|(path, _)| path.is_empty()) {
            return self.lose(format!("{} cannot be read ({why}); make it readable", self.root.display()));
        }
        self.closed.scanned(&listing.unreadable, Instant::now());
        if self.lost.take().is_some() && !self.tell(Input::RootBack, 0) {
            return false;
        }
        let todo: Vec<RelPath> = listing
            .entries
            .iter()
            .filter(|(path, entry)| self.differs(path, entry))
            .map(|(path, _)| path.clone())
            .collect();
        self.look_took = began.elapsed();
        if let Some(every) = self.watch.look_every(self.look_took) {
            self.next_look = Instant::now() + every;
        }
        self.sweep(&root, &listing.litter);
        self.note(&listing);
        self.glance.reading(todo.len() as u64);
        let missing: Vec<RelPath> =
            self.known.keys().filter(|path| !listing.entries.contains_key(*path)).cloned().collect();
        // Still there, but kept out by a rule now, or closed to us: it stays as it is, here and elsewhere.
        let is_gone = |path: &RelPath| !self.closed.covers(path) && at::is_gone(&self.root, path);
        let missing: Vec<RelPath> = missing.into_iter().filter(is_gone).collect();
        if self.rooted().is_none() {
            return true;
        }
        // What went first: then what came can be recognised as the same, moved. But the core judges soon what is gone, and
        // reading what came may take long: so most of that is read before.
        let (mut todo, other): (Vec<RelPath>, Vec<RelPath>) =
            todo.into_iter().partition(|path| !missing.is_empty() && !self.known.contains_key(path));
        todo.extend(other);
        let mut missing = Some(missing);
        let (mut gone, mut unsaid, mut bytes): (Vec<RelPath>, Vec<Seen>, usize) = (Vec::new(), Vec::new(), 0);
        for some in todo.chunks(SEEN_FILES) {
            let reads_on = missing.as_ref().is_some_and(|missing| !missing.is_empty());
            let reads_on =
                reads_on && bytes < UNSAID_BYTES && some.first().is_some_and(|path| !self.known.contains_key(path));
            if !reads_on {
                let told = self.tell_absent(missing.take().unwrap_or_default());
                if !told || !self.tell_seen(std::mem::take(&mut unsaid)) {
                    return false;
                }
            }
            let Some((present, absent)) = self.read(&root, some) else { return false };
            gone.extend(absent);
            bytes += present.iter().map(seen_bytes).sum::<usize>();
            unsaid.extend(present);
        }
        if !(self.tell_absent(missing.take().unwrap_or_default()) && self.tell_seen(unsaid)) {
            return false;
        }
        self.glance.reading(0);
        self.glance.set_closed(self.closed.notes(&self.known));
        gone.retain(|path| self.known.contains_key(path));
        if self.rooted().is_none() {
            return true;
        }
        let told = self.tell_absent(gone) && self.tell(Input::Scanned { complete: true }, 0);
        if !self.kept.is_unresolved() {
            return told;
        }
        self.batch += 1;
        told && self.tell_stored(self.batch)
    }

    /// Removes what a crash left of writes; this thread, the only one that writes, is at none now. What may hold an edit
    /// that nobody else has is given a name instead.
    fn sweep(&self, root: &OwnedFd, litter: &[RelPath]) {
        let mut known: Option<BTreeSet<VersionHash>> = None;
        for path in litter.iter().filter(|path| !self.kept.has(path)) {
            let Ok(dir) = at::open_parent(root, path) else { continue };
            if path.name().starts_with(EXCHANGED_PREFIX) {
                let known = known.get_or_insert_with(|| known_contents(&self.reader).collect());
                let is_known = match look::hash_file(&dir, &self.workspace, path.name()) {
                    Ok(Some(now)) => known.contains(&now),
                    // A link; where it led is known to whoever made it.
                    Ok(None) => true,
                    Err(_) => false,
                };
                if !is_known {
                    let _tried = rename(&dir, path.name(), &dir, &saved_name("recovered"), RenameFlags::NOREPLACE);
                    continue;
                }
            }
            let _tried = rustix::fs::unlinkat(&dir, path.name(), AtFlags::empty());
        }
    }

    fn note(&self, listing: &scan::Listing) {
        let mut notes = Vec::new();
        for repository in &listing.repositories {
            notes.push(format!("{repository} is a git repository of its own and stays out (to share it: !/{repository}/ in .weftignore)"));
        }
        for (path, why) in listing.not_carried.iter().take(20) {
            notes.push(format!("{path} is not shared: {why}"));
        }
        notes.extend(self.watch.problem(self.look_took));
        self.glance.set_notes(notes);
    }

    fn differs(&self, path: &RelPath, entry: &Entry) -> bool {
        match (self.known.get(path), entry) {
            (Some(Known::Folder), Entry::Folder) => false,
            (Some(Known::File { stat: Some(known), executable: bit, .. }), Entry::File { stat, executable }) => {
                known != stat || bit.is_some_and(|bit| bit != *executable)
            }
            _ => true,
        }
    }

    /// Reads paths in parallel. Gives what is to be told of those that are there, and those that are not.
    /// `None`: the workspace has ended.
    fn read(&mut self, root: &OwnedFd, paths: &[RelPath]) -> Option<(Vec<Seen>, Vec<RelPath>)> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let share = paths.len().div_ceil(threads).max(16);
        let (workspace, inbox) = (self.workspace, Arc::clone(&self.inbox));
        let looked: Vec<(RelPath, std::io::Result<Looked>)> = if paths.len() <= 16 {
            paths.iter().map(|path| (path.clone(), look_one(root, &workspace, path, &inbox))).collect()
        } else {
            std::thread::scope(|scope| {
                let workers: Vec<_> = paths
                    .chunks(share)
                    .map(|some| {
                        let inbox = &inbox;
                        scope.spawn(move || {
                            let look = |path: &RelPath| (path.clone(), look_one(root, &workspace, path, inbox));
                            some.iter().map(look).collect::<Vec<_>>()
                        })
                    })
                    .collect();
                workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
            })
        };
        self.glance.read(looked.len());
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        let mut changed = false;
        for (path, looked) in looked {
            changed |= looked.is_ok() && self.closed.opened(&path);
            match looked {
                Ok(Looked::Found { found: Found::Absent, .. }) => {
                    self.emptied.forget(&path);
                    absent.push(path);
                }
                Ok(Looked::Found { found, known: Some(known), .. }) => {
                    let before = self.known.get(&path).and_then(Known::held);
                    if let Some(due) = self.emptied.wait(&path, before, (&found, known.held()), Instant::now()) {
                        self.debounce.at(path, due);
                        continue;
                    }
                    let same = self.is_same(&path, &known);
                    if known == Known::Folder {
                        self.watch.add(path.as_str());
                    }
                    self.known.insert(path.clone(), known);
                    if !same {
                        let unfinished = self.kept.unfinished(&path);
                        present.push(Seen { unfinished, ..Seen::new(path, found) });
                    }
                }
                Ok(Looked::Found { known: None, .. } | Looked::NotCarried) => {}
                Ok(Looked::Busy) => self.debounce.later(path, Instant::now()),
                Err(error) => {
                    self.closed.failed(&path, error.to_string(), Instant::now());
                    changed = true;
                }
            }
        }
        if changed {
            self.glance.set_closed(self.closed.notes(&self.known));
        }
        Some((present, absent))
    }

    /// Whether the core knows just this already (then only the stat was renewed).
    fn is_same(&self, path: &RelPath, now: &Known) -> bool {
        match (self.known.get(path), now) {
            (
                Some(Known::File { hash: old, executable: Some(bit), .. }),
                Known::File { hash, executable: Some(now), .. },
            ) => old == hash && bit == now,
            (Some(Known::Symlink(old)), Known::Symlink(now)) => old == now,
            (Some(Known::Folder), Known::Folder) => true,
            _ => false,
        }
    }

    fn tell_seen(&mut self, seen: Vec<Seen>) -> bool {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for one in seen {
            bytes += seen_bytes(&one);
            batch.push(one);
            if bytes >= SEEN_BYTES || batch.len() >= SEEN_FILES {
                if !self.tell(Input::Seen(std::mem::take(&mut batch)), bytes) {
                    return false;
                }
                bytes = 0;
            }
        }
        batch.is_empty() || self.tell(Input::Seen(batch), bytes)
    }

    fn tell_absent(&mut self, paths: Vec<RelPath>) -> bool {
        if paths.is_empty() {
            return true;
        }
        for path in &paths {
            self.known.remove(path);
            self.watch.forget(path.as_str());
        }
        let bytes = paths.len() * 128;
        let absent = |path: RelPath| {
            let unfinished = self.kept.unfinished(&path);
            Seen { unfinished, ..Seen::new(path, Found::Absent) }
        };
        self.tell(Input::Seen(paths.into_iter().map(absent).collect()), bytes)
    }
}

fn look_one(root: &OwnedFd, workspace: &WorkspaceId, path: &RelPath, inbox: &Arc<Inbox>) -> std::io::Result<Looked> {
    let mut rows = |rows: Vec<Write>| store_rows(inbox, rows);
    look::look(root, workspace, path, &mut rows)
}

fn store_rows(inbox: &Inbox, rows: Vec<Write>) -> bool {
    let bytes = rows.iter().map(|row| row.value.as_ref().map_or(0, bytes::Bytes::len) + row.key.len()).sum();
    rows.is_empty() || inbox.folder(Task::Rows(rows), bytes)
}

fn seen_bytes(seen: &Seen) -> usize {
    match &seen.found {
        Found::File { bytes: FileBytes::Here(bytes), .. } => bytes.len() + 128,
        Found::File { bytes: FileBytes::Blob { manifest, .. }, .. } => manifest.pieces.len() * 80 + 128,
        Found::Absent | Found::Symlink { .. } | Found::Folder => 128,
    }
}

/// Where an action leaves something.
fn path_of(action: &FolderAction) -> &RelPath {
    match action {
        FolderAction::MakeFolder { path }
        | FolderAction::Write { path, .. }
        | FolderAction::Move { to: path, .. }
        | FolderAction::Remove { path, .. }
        | FolderAction::SetExecutable { path, .. } => path,
    }
}

fn outcome_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Differs(seen) => seen_bytes(seen),
        Outcome::Done(_) | Outcome::Failed(_) => 64,
    }
}

/// The path inside the root; `None` for the root itself, for what is outside, and for what cannot be carried.
fn relative(root: &Path, path: &Path) -> Option<RelPath> {
    RelPath::new(path.strip_prefix(root).ok()?.to_str()?)
}

#[cfg(test)]
mod tests;
