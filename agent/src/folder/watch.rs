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
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RemoveKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::io::Errno;
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

/// Where not all is watched, everything is looked at so much less often than a look takes: at most a twentieth of a
/// processor goes there.
const BLIND_LOOKS: u32 = 20;
const BLIND_MIN: Duration = Duration::from_secs(5);
const BLIND_MAX: Duration = Duration::from_secs(300);

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
    hints: Arc<dyn Fn(Hint) + Send + Sync>,
    root: PathBuf,
    watched: BTreeSet<String>,
    /// Folders that are not watched since [`Watch::begin`], and why the first of them is not.
    unwatched: BTreeSet<String>,
    why: Option<Why>,
    /// As if the system gave so many watches and no more.
    #[cfg(test)]
    pub(crate) most: Option<usize>,
}

/// Why a folder is not watched.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// The system gives no more watches.
    Watches,
    /// It gives no more watchers, or none for another reason.
    Other(String),
}

impl Watch {
    /// Hints go to `hints`, from the watcher's own thread.
    pub(crate) fn new(root: &Path, hints: impl Fn(Hint) + Send + Sync + 'static) -> Watch {
        let mut watch = Watch {
            watcher: None,
            hints: Arc::new(hints),
            root: root.to_path_buf(),
            watched: BTreeSet::new(),
            unwatched: BTreeSet::new(),
            why: None,
            #[cfg(test)]
            most: None,
        };
        watch.begin();
        watch
    }

    /// A whole look begins: what could not be watched is tried again.
    pub(crate) fn begin(&mut self) {
        self.unwatched.clear();
        self.why = None;
        if self.watcher.is_some() {
            return;
        }
        let hints = Arc::clone(&self.hints);
        let handler = move |event: notify::Result<Event>| match event {
            Ok(event) => hints_of(&event).into_iter().for_each(|hint| hints(hint)),
            Err(_) => hints(Hint::Overflow),
        };
        match RecommendedWatcher::new(handler, Config::default().with_follow_symlinks(false)) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => self.why = Some(Why::of(&error)),
        }
    }

    /// Watches a folder (empty: the root), if it is not yet.
    pub(crate) fn add(&mut self, folder: &str) {
        if self.watched.contains(folder) {
            return;
        }
        match self.place(folder) {
            Ok(()) => {
                self.unwatched.remove(folder);
                self.watched.insert(folder.to_owned());
            }
            // Gone, or closed to us: a look says so.
            Err(error) if is_of_the_folder(&error) => {}
            Err(error) => {
                self.unwatched.insert(folder.to_owned());
                self.why.get_or_insert_with(|| Why::of(&error));
            }
        }
    }

    fn place(&mut self, folder: &str) -> notify::Result<()> {
        #[cfg(test)]
        if self.most.is_some_and(|most| self.watched.len() >= most) {
            return Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch));
        }
        match &mut self.watcher {
            Some(watcher) => watcher.watch(&self.root.join(folder), RecursiveMode::NonRecursive),
            None => Err(notify::Error::generic("no watcher")),
        }
    }

    /// Forgets a folder and those below it: they are gone or moved.
    pub(crate) fn forget(&mut self, folder: &str) {
        let below = format!("{folder}/");
        self.unwatched.retain(|path| path != folder && !path.starts_with(&below));
        let gone: Vec<String> =
            self.watched.iter().filter(|path| *path == folder || path.starts_with(&below)).cloned().collect();
        for path in gone {
            if let Some(watcher) = &mut self.watcher {
                let _already_gone = watcher.unwatch(&self.root.join(&path));
            }
            self.watched.remove(&path);
        }
    }

    /// How often everything is to be looked at because not all of it is watched, when such a look takes `took`. `None`: the
    /// watcher sees all.
    pub(crate) fn look_every(&self, took: Duration) -> Option<Duration> {
        self.why.as_ref().map(|_| (took * BLIND_LOOKS).clamp(BLIND_MIN, BLIND_MAX))
    }

    /// Why changes are not noticed at once, when they are, and what helps; for people.
    pub(crate) fn problem(&self, took: Duration) -> Option<String> {
        let every = self.look_every(took)?.as_secs();
        let folders = match self.unwatched.len() {
            1 => "1 folder cannot be watched".to_owned(),
            some => format!("{some} folders cannot be watched"),
        };
        let late = format!("changes there are noticed within about {every} seconds instead of at once");
        Some(match self.why.as_ref()? {
            Why::Watches => format!(
                "{folders}, because the system gives no more watches: {late}. To raise the limit, as root: sysctl \
                 fs.inotify.max_user_watches=524288 (and in /etc/sysctl.d/, to keep it)"
            ),
            Why::Other(why) => format!("{folders} ({why}): {late}"),
        })
    }
}

impl Why {
    fn of(error: &notify::Error) -> Why {
        match &error.kind {
            notify::ErrorKind::MaxFilesWatch => Why::Watches,
            notify::ErrorKind::Io(io) if io.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => Why::Other(
                "the system gives no more watchers; to raise the limit, as root: sysctl fs.inotify.max_user_instances=1024"
                    .to_owned(),
            ),
            notify::ErrorKind::Generic(why) => Why::Other(why.clone()),
            notify::ErrorKind::Io(io) => Why::Other(io.to_string()),
            notify::ErrorKind::PathNotFound
            | notify::ErrorKind::WatchNotFound
            | notify::ErrorKind::InvalidConfig(_) => Why::Other(error.to_string()),
        }
    }
}

fn is_of_the_folder(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(io) => io.kind() == std::io::ErrorKind::PermissionDenied || super::look::is_absence(io),
        notify::ErrorKind::Generic(_)
        | notify::ErrorKind::WatchNotFound
        | notify::ErrorKind::InvalidConfig(_)
        | notify::ErrorKind::MaxFilesWatch => false,
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

    /// With too few watches the rest is looked at every few seconds, as seldom as a look is long, and the sentence says how
    /// often, of how many folders, and what helps; with enough of them again nothing is said.
    #[test]
    fn too_few_watches_are_said_and_made_up_for() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..4 {
            std::fs::create_dir(dir.path().join(format!("d{n}"))).unwrap();
        }
        let mut watch = Watch::new(dir.path(), |_| {});
        let look = |watch: &mut Watch| {
            watch.begin();
            for folder in ["", "gone", "d0", "d1", "d2", "d3"] {
                watch.add(folder);
            }
        };
        watch.most = Some(3);
        look(&mut watch);
        assert_eq!(watch.look_every(Duration::from_millis(1)), Some(BLIND_MIN));
        assert_eq!(watch.look_every(Duration::from_secs(1)), Some(Duration::from_secs(20)));
        assert_eq!(watch.look_every(Duration::from_secs(100)), Some(BLIND_MAX));
        let said = watch.problem(Duration::from_secs(1)).unwrap();
        assert!(said.starts_with("2 folders") && said.contains("20 seconds"), "{said}");
        assert!(said.contains("fs.inotify.max_user_watches"), "{said}");
        watch.most = None;
        look(&mut watch);
        assert_eq!((watch.look_every(Duration::ZERO), watch.problem(Duration::ZERO)), (None, None));
    }
}
