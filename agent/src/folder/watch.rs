//! What the operating system notices, as hints of paths to look at.
//!
//! Only folders that are carried are watched, each by itself, so that `node_modules` costs nothing. A close after
//! writing and a rename are due at once; what is being written when it pauses for long, because its writer still has it
//! open and a half of it is no edit; other modifications when they pause; a deletion a little later, because many editors
//! delete and create.
//!
//! Invariant: a hint can be late, double or missing; nothing depends on it but speed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RemoveKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use weft_agent_core::disk::RelPath;

use super::ignore::TEMP_PREFIX;

/// Quiet time after which a stream of modifications is looked at.
const QUIET: Duration = Duration::from_millis(60);
/// The same for bytes written by somebody who has not closed the file yet; where no system tells of a close, as short as
/// any.
const OPEN: Duration = if cfg!(target_os = "linux") { Duration::from_millis(300) } else { QUIET };
/// Longest wait of a stream that never pauses.
const PATIENCE: Duration = Duration::from_millis(1000);
/// A deletion waits so long for a creation under the same name.
const DELETED: Duration = Duration::from_millis(80);

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Something may have happened to this path.
    Path(PathBuf, Urgency),
    /// Events were lost: look at everything.
    Overflow,
}

/// When to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    Now,
    WhenQuiet,
    /// It is open for writing; a close will follow, but for programs that keep it open.
    Open,
    Gone,
}

/// The watches of one folder.
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    root: PathBuf,
    watched: BTreeSet<String>,
    /// Why not everything is watched, for people.
    pub(crate) problem: Option<String>,
}

impl Watch {
    /// Hints go to `hints`, from the watcher's own thread.
    pub(crate) fn new(root: &Path, hints: impl Fn(Hint) + Send + 'static) -> Watch {
        let handler = move |event: notify::Result<Event>| match event {
            Ok(event) => hints_of(&event).into_iter().for_each(&hints),
            Err(_) => hints(Hint::Overflow),
        };
        let config = Config::default().with_follow_symlinks(false);
        let (watcher, problem) = match RecommendedWatcher::new(handler, config) {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(too_few(&error))),
        };
        Watch { watcher, root: root.to_path_buf(), watched: BTreeSet::new(), problem }
    }

    /// Watches a folder (empty: the root), if it is not yet.
    pub(crate) fn add(&mut self, folder: &str) {
        let Some(watcher) = &mut self.watcher else { return };
        if self.watched.contains(folder) {
            return;
        }
        match watcher.watch(&self.root.join(folder), RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(folder.to_owned());
            }
            Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
            Err(error) => self.problem = Some(too_few(&error)),
        }
    }

    /// Forgets a folder and those below it: they are gone or moved.
    pub(crate) fn forget(&mut self, folder: &str) {
        let below = format!("{folder}/");
        let gone: Vec<String> =
            self.watched.iter().filter(|path| *path == folder || path.starts_with(&below)).cloned().collect();
        for path in gone {
            if let Some(watcher) = &mut self.watcher {
                let _already_gone = watcher.unwatch(&self.root.join(&path));
            }
            self.watched.remove(&path);
        }
    }

    /// Whether changes are noticed only by the slow look.
    pub(crate) fn is_blind(&self) -> bool {
        self.problem.is_some()
    }
}

fn too_few(error: &notify::Error) -> String {
    if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) {
        "too many folders to watch: changes are noticed within seconds instead of at once; raise \
         fs.inotify.max_user_watches"
            .to_owned()
    } else {
        format!("the folder cannot be watched ({error}): changes are noticed within seconds instead of at once")
    }
}

fn hints_of(event: &Event) -> Vec<Hint> {
    if event.need_rescan() {
        return vec![Hint::Overflow];
    }
    let urgency = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Create(notify::event::CreateKind::Folder) => Urgency::Now,
        EventKind::Remove(RemoveKind::Any | RemoveKind::File | RemoveKind::Folder | RemoveKind::Other) => Urgency::Gone,
        EventKind::Modify(ModifyKind::Data(_)) => Urgency::Open,
        EventKind::Access(_) => return Vec::new(),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => Urgency::WhenQuiet,
    };
    event
        .paths
        .iter()
        .filter(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMP_PREFIX)))
        .map(|path| Hint::Path(path.clone(), urgency))
        .collect()
}

/// Hints that wait for their moment.
#[derive(Default)]
pub(crate) struct Debounce {
    waiting: BTreeMap<RelPath, (Instant, Instant)>,
}

impl Debounce {
    /// Takes a hint.
    pub(crate) fn add(&mut self, path: RelPath, urgency: Urgency, now: Instant) {
        let entry = self.waiting.entry(path).or_insert((now, now + PATIENCE));
        entry.0 = match urgency {
            Urgency::Now => now,
            Urgency::WhenQuiet => (now + QUIET).min(entry.1),
            Urgency::Open => (now + OPEN).min(entry.1),
            Urgency::Gone => (now + DELETED).min(entry.1),
        };
    }
    /// Puts a path back that could not be looked at yet.
    pub(crate) fn later(&mut self, path: RelPath, now: Instant) {
        self.waiting.insert(path, (now + QUIET, now + PATIENCE));
    }
    /// Puts a path back until that moment.
    pub(crate) fn at(&mut self, path: RelPath, due: Instant) {
        self.waiting.insert(path, (due, due + PATIENCE));
    }
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
    /// When the first is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.waiting.values().map(|(due, _)| *due).min()
    }
    /// Takes out what is due.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<RelPath> {
        let due: Vec<RelPath> =
            self.waiting.iter().filter(|(_, (due, _))| *due <= now).map(|(path, _)| path.clone()).collect();
        for path in &due {
            self.waiting.remove(path);
        }
        due
    }
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A close or rename is due at once; a stream of modifications when it pauses, and in any case after a second.
    #[test]
    fn modifications_wait_for_a_pause() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let path = RelPath::new("n.md").unwrap();
        let mut debounce = Debounce::default();
        for n in 0..40 {
            debounce.add(path.clone(), Urgency::WhenQuiet, start + ms(n * 50));
            assert_eq!(debounce.due(start + ms(n * 50)).is_empty(), n * 50 < 1000, "at {}", n * 50);
            if n * 50 >= 1000 {
                break;
            }
        }
        for pauses in [Urgency::WhenQuiet, Urgency::Open] {
            debounce.add(path.clone(), pauses, start);
            assert!(debounce.due(start + ms(50)).is_empty());
            debounce.add(path.clone(), Urgency::Now, start + ms(50));
            assert_eq!(debounce.due(start + ms(50)), std::slice::from_ref(&path));
        }
        debounce.add(path.clone(), Urgency::Gone, start);
        assert!(debounce.due(start + ms(10)).is_empty());
        assert_eq!(debounce.due(start + ms(100)), [path]);
        assert_eq!(debounce.next(), None);
    }

    /// Reading makes no hint, our unfinished writes make none, lost events make one for everything.
    #[test]
    fn what_is_a_hint() {
        use notify::event::Flag;
        let event = |kind, path: &str| Event::new(kind).add_path(PathBuf::from(path));
        assert!(hints_of(&event(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/r/a")).is_empty());
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert_eq!(hints_of(&event(close, "/r/a")), [Hint::Path(PathBuf::from("/r/a"), Urgency::Now)]);
        assert!(hints_of(&event(close, "/r/.weft-tmp-1")).is_empty());
        let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        assert_eq!(hints_of(&event(written, "/r/a")), [Hint::Path(PathBuf::from("/r/a"), Urgency::Open)]);
        assert_eq!(hints_of(&Event::new(EventKind::Other).set_flag(Flag::Rescan)), [Hint::Overflow]);
    }
}
