//! One workspace in the daemon: its thread is started, watched, and started again from its store when it fails.
//!
//! Invariant: a workspace that cannot go on never takes the daemon or another workspace along, and says why in `weft
//! status` until it runs again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, oneshot};
use weft_agent_core::damage::Damaged;
use weft_agent_core::files::LogEntry;
use weft_agent_core::id::WorkspaceId;
use weft_agent_core::identity::DeviceCert;
use weft_agent_core::workspace::command::{Command, Reply, RequestId};
use weft_agent_core::workspace::input::{Input, LinkKind};

use super::again::{Again, has_room};
use super::wire::Failure;
use super::wires::Wires;
use crate::engine::Machine;
use crate::folder::glance::Glance;
use crate::folder::marker::Marker;
use crate::folder::orders::Seeing;
use crate::home::lock::{Lock, LockError};
use crate::home::registry::{Entry, Registry};
use crate::home::{Home, identity};
use crate::host::inbox::{Inbox, Task};
use crate::host::watermark::WatermarkFile;
use crate::host::{End, Host, ended_by};
use crate::link::{Health, LinkEnv, Links};
use crate::store::scrub::Scrub;
use crate::store::{Store, StoreError};
use crate::{account, clock, durable, engine};

/// Entries that a slow follower of the log may lag behind.
const EVENTS_MAX: usize = 1024;
/// Neighbours remembered for a workspace.
const NEIGHBOURS_MAX: usize = 16;

/// What runs now.
struct Current {
    inbox: Arc<Inbox>,
    links: Arc<Links>,
}

#[derive(Default)]
struct Inner {
    current: Option<Current>,
    pending: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    problem: Option<String>,
    seeing: Option<Seeing>,
    relays: Vec<String>,
    lan: Vec<String>,
    own: Option<String>,
    neighbours: BTreeSet<String>,
    name: String,
    joining: bool,
    paused: bool,
}

/// What the workspace's thread and the rest of the daemon share.
pub(crate) struct Shared {
    pub(crate) id: WorkspaceId,
    pub(crate) path: PathBuf,
    home: Home,
    registry: Arc<Mutex<Registry>>,
    inner: Mutex<Inner>,
    next_request: AtomicU64,
    events: broadcast::Sender<LogEntry>,
    stopping: AtomicBool,
    bell: Condvar,
    bell_lock: Mutex<()>,
}

/// A workspace of the daemon.
pub(crate) struct Space {
    pub(crate) shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn name(&self) -> String {
        self.lock().name.clone()
    }
    pub(crate) fn is_joining(&self) -> bool {
        self.lock().joining
    }
    pub(crate) fn is_paused(&self) -> bool {
        self.lock().paused
    }
    pub(crate) fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }
    /// Whether its machine runs now.
    pub(crate) fn is_running(&self) -> bool {
        self.lock().current.is_some()
    }
    pub(crate) fn glance(&self) -> Option<Arc<Glance>> {
        self.seeing().map(|seeing| seeing.glance)
    }
    /// The folder's thread, while there is one.
    pub(crate) fn seeing(&self) -> Option<Seeing> {
        self.lock().seeing.clone()
    }
    pub(crate) fn health(&self) -> Vec<(String, Health)> {
        let links = self.lock().current.as_ref().map(|current| Arc::clone(&current.links));
        links.map(|links| links.health()).unwrap_or_default()
    }
    pub(crate) fn events(&self) -> broadcast::Receiver<LogEntry> {
        self.events.subscribe()
    }
    pub(super) fn set_seeing(&self, seeing: Option<Seeing>) {
        self.lock().seeing = seeing;
    }
    pub(super) fn set_addresses(&self, relays: Vec<String>, lan: Vec<String>) {
        let mut inner = self.lock();
        inner.relays = relays;
        inner.lan = lan;
    }
    /// Somebody of this workspace was found on the network.
    pub(crate) fn neighbour(&self, urls: &[String]) {
        let mut inner = self.lock();
        if inner.neighbours.len() + urls.len() > NEIGHBOURS_MAX {
            inner.neighbours.clear();
        }
        let before = inner.neighbours.len();
        inner.neighbours.extend(urls.iter().cloned());
        let grew = inner.neighbours.len() > before;
        drop(inner);
        if grew {
            self.redial();
        }
    }
    /// They said goodbye, or were not heard of for as long as they promised.
    pub(crate) fn neighbours_gone(&self, urls: &[String]) {
        let mut inner = self.lock();
        let before = inner.neighbours.len();
        inner.neighbours.retain(|url| !urls.contains(url));
        let fewer = inner.neighbours.len() < before;
        drop(inner);
        if fewer {
            self.redial();
        }
    }
    /// This computer has these addresses now.
    pub(crate) fn network_changed(&self, ours: &BTreeSet<IpAddr>) {
        let links = self.lock().current.as_ref().map(|current| Arc::clone(&current.links));
        if let Some(links) = links {
            links.network_changed(ours);
        }
    }
    /// Dials what is known now.
    pub(crate) fn redial(&self) {
        let inner = self.lock();
        let Some(links) = inner.current.as_ref().map(|current| Arc::clone(&current.links)) else { return };
        let lan = inner.own.iter().chain(&inner.lan).chain(&inner.neighbours);
        let wanted: Vec<(String, LinkKind)> = inner
            .relays
            .iter()
            .map(|url| (url.clone(), LinkKind::Relay))
            .chain(lan.map(|url| (url.clone(), LinkKind::Lan)))
            .collect();
        drop(inner);
        links.set(&wanted);
    }
    /// Lets every link send what waits on it, then ends it: for an agent that leaves.
    pub(crate) async fn farewell(&self) {
        let links = self.lock().current.as_ref().map(|current| Arc::clone(&current.links));
        if let Some(links) = links {
            links.farewell().await;
        }
    }
    /// Dials what waits, at once.
    pub(crate) fn nudge(&self) {
        let links = self.lock().current.as_ref().map(|current| Arc::clone(&current.links));
        if let Some(links) = links {
            links.nudge();
        }
    }
    pub(super) fn admitted(&self, name: String) {
        {
            let mut inner = self.lock();
            inner.joining = false;
            inner.name.clone_from(&name);
        }
        let kept = self.remember(|entry| {
            entry.joining = false;
            entry.name = name;
        });
        if let Err(error) = kept {
            // The next start asks to be let in, and hears that it is.
            tracing::error!(%error, "the list of workspaces cannot be written");
        }
        self.say_account();
    }
    /// Tells the members which account is ours, if our root signed that; the machine makes no op of what is said already.
    fn say_account(&self) {
        match account::to_say(&self.home) {
            Ok(Some((did, proof))) => self.tell(Command::Attest { did, proof }),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "members cannot be told which account is yours"),
        }
    }
    pub(super) fn enrolled(&self, cert: &DeviceCert, name: &str) {
        // Told again at the next start if it could not be kept.
        if let Err(error) = identity::take_certificate(&self.home, cert, name) {
            tracing::error!(%error, "the certificate of this device cannot be kept");
        }
    }
    /// An error: it holds until the agent ends, and could not be written down for the time after.
    pub(crate) fn set_paused(&self, paused: bool) -> anyhow::Result<()> {
        self.lock().paused = paused;
        self.remember(|entry| entry.paused = paused).map_err(|error| {
            let now = if paused { "paused" } else { "resumed" };
            anyhow::anyhow!(
                "it is {now} now, but the list of workspaces cannot be written ({error:#}): a restart would forget it"
            )
        })
    }
    fn remember(&self, change: impl FnOnce(&mut Entry)) -> anyhow::Result<()> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = registry.by_id(&self.id) else { return Ok(()) };
        change(entry);
        registry.save(&self.home)
    }
    pub(super) fn event(&self, entry: LogEntry) {
        let _nobody_follows = self.events.send(entry);
    }
    pub(super) fn reply(&self, request: RequestId, reply: Reply) {
        if let Some(waiting) = self.lock().pending.remove(&request) {
            let _gone = waiting.send(reply);
        }
    }

    /// Waits until the workspace runs; an error says why it does not.
    async fn started(&self, patience: Duration) -> Result<(), Failure> {
        let running = async {
            let mut every = tokio::time::interval(Duration::from_millis(10));
            loop {
                every.tick().await;
                let inner = self.lock();
                if inner.current.is_some() {
                    return Ok(());
                }
                if let Some(why) = &inner.problem {
                    return Err(Failure::attention(why.clone()));
                }
            }
        };
        let late = || Failure::attention("the workspace is still starting; try again in a moment");
        tokio::time::timeout(patience, running).await.map_err(|_| late())?
    }

    /// Asks the machine.
    pub(crate) async fn ask(&self, command: Command, patience: Duration) -> Result<Reply, Failure> {
        self.ask_by(command, patience, Inbox::command).await
    }

    /// Asks the machine once it has taken in everything that the folder's thread has told so far.
    pub(crate) async fn ask_after_folder(&self, command: Command, patience: Duration) -> Result<Reply, Failure> {
        self.ask_by(command, patience, Inbox::after_folder).await
    }

    /// Whether something that was seen in the folder waits for the machine.
    pub(crate) fn folder_waits(&self) -> bool {
        self.lock().current.as_ref().is_some_and(|current| current.inbox.folder_waits())
    }

    async fn ask_by(&self, command: Command, patience: Duration, put: fn(&Inbox, Task)) -> Result<Reply, Failure> {
        let request = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        self.started(patience).await?;
        {
            let mut inner = self.lock();
            let Some(current) = &inner.current else {
                let why = inner.problem.clone().unwrap_or_else(|| "the workspace stopped; try again".to_owned());
                return Err(Failure::attention(why));
            };
            put(&current.inbox, Task::Input(Input::Command(request, command)));
            inner.pending.insert(request, sender);
        }
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(Reply::Refused(why))) => Err(Failure::new(why)),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(Failure::attention(self.problem().unwrap_or_else(|| "the workspace stopped".to_owned()))),
            Err(_) => {
                self.lock().pending.remove(&request);
                Err(Failure::attention("the workspace is busy and did not answer in time; try again"))
            }
        }
    }

    /// Tells the machine without waiting for its answer.
    pub(crate) fn tell(&self, command: Command) {
        let request = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        if let Some(current) = &self.lock().current {
            current.inbox.command(Task::Input(Input::Command(request, command)));
        }
    }

    fn begin(&self, current: Current) {
        let mut inner = self.lock();
        inner.current = Some(current);
        inner.problem = None;
    }

    fn end(&self, problem: Option<String>) {
        let mut inner = self.lock();
        inner.current = None;
        inner.pending.clear();
        inner.problem = problem;
    }

    /// Waits, unless the workspace is told to stop. True: it is.
    fn wait(&self, time: Duration) -> bool {
        let guard = self.bell_lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stopping.load(Ordering::Acquire) {
            return true;
        }
        drop(self.bell.wait_timeout(guard, time));
        self.stopping.load(Ordering::Acquire)
    }
}

/// What a space is started with.
pub(crate) struct Start {
    pub(crate) home: Home,
    pub(crate) registry: Arc<Mutex<Registry>>,
    pub(crate) env: Arc<LinkEnv>,
    pub(crate) entry: Entry,
    pub(crate) id: WorkspaceId,
    /// A machine that no store holds yet.
    pub(crate) born: Option<Box<dyn Machine + Send>>,
    /// Addresses to begin with.
    pub(crate) seeds: Vec<String>,
    pub(crate) own: Option<String>,
    pub(crate) lan: Vec<String>,
}

impl Space {
    /// Starts the workspace's thread.
    pub(crate) fn start(start: Start) -> std::io::Result<Space> {
        let shared = Arc::new(Shared {
            id: start.id,
            path: start.entry.path.clone(),
            home: start.home.clone(),
            registry: Arc::clone(&start.registry),
            inner: Mutex::new(Inner {
                name: start.entry.name.clone(),
                joining: start.entry.joining,
                paused: start.entry.paused,
                relays: start.seeds.clone(),
                own: start.own.clone(),
                ..Inner::default()
            }),
            next_request: AtomicU64::new(1),
            events: broadcast::channel(EVENTS_MAX).0,
            stopping: AtomicBool::new(false),
            bell: Condvar::new(),
            bell_lock: Mutex::new(()),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("weft-workspace".to_owned())
            .spawn(move || supervise(&for_thread, start))?;
        Ok(Space { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Stops it and waits until everything handled is durable.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        {
            let _guard = self.shared.bell_lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.bell.notify_all();
        }
        if let Some(current) = &self.shared.lock().current {
            current.inbox.command(Task::Stop);
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ended = thread.join();
        }
    }
}

fn supervise(shared: &Arc<Shared>, mut start: Start) {
    let mut again = Again::default();
    // Values that were found damaged while it ran, and are to be taken away when it is opened again.
    let mut found: Vec<Damaged> = Vec::new();
    let replica = start.home.replica_dir(&start.id);
    while !shared.stopping.load(Ordering::Acquire) {
        let began = std::time::Instant::now();
        let born = start.born.take();
        // Whatever happens, this thread goes on: without it the workspace would be starting for ever.
        let ended = catch_unwind(AssertUnwindSafe(|| run(shared, &start, born, &mut found)));
        let (end, why) = match ended.unwrap_or_else(|payload| Ok(ended_by(payload, &replica.join(crate::store::FILE))))
        {
            Ok(End::Stopped) => return shared.end(None),
            Ok(end) => {
                let why = end.to_string();
                (Some(end), why)
            }
            Err(error) => (None, format!("{error:#}")),
        };
        shared.end(Some(why.clone()));
        let wait = again.after(end.as_ref(), began.elapsed());
        if again.is_news(&why) {
            tracing::error!(why, "a workspace stands still");
        }
        let is_full = end.as_ref().is_some_and(End::is_full_disk);
        if let Some(End::Store(StoreError::Value { damaged, .. })) = end {
            found.push(damaged);
        }
        loop {
            if shared.wait(wait) {
                return;
            }
            if !is_full || has_room(&replica) {
                break;
            }
        }
    }
}

/// The lock of one replica; an error says who has it.
fn lock_replica(replica: &Path) -> anyhow::Result<Lock> {
    durable::make_private_dir(replica)?;
    Lock::take(&replica.join("agent.lock")).map_err(|error| match error {
        LockError::Held(holder) => anyhow::anyhow!(
            "another agent has this workspace open ({holder}), by another data folder that leads to {}; stop one of the two",
            replica.display()
        ),
        LockError::Failed { .. } => error.into(),
    })
}

fn run(
    shared: &Arc<Shared>,
    start: &Start,
    born: Option<Box<dyn Machine + Send>>,
    found: &mut Vec<Damaged>,
) -> anyhow::Result<End> {
    let identity = identity::current(&start.home)?
        .ok_or_else(|| anyhow::anyhow!("the identity file is gone; restore it from a backup"))?;
    let marker = Marker { workspace: start.id, device: identity.device.id() };
    let watermark = WatermarkFile::open(&start.home.watermark_file(&start.id))?;
    let replica = start.home.replica_dir(&start.id);
    // Another agent may come here by another home; this one must not even look then.
    let _lock = lock_replica(&replica)?;
    let store = match Store::open_after(&replica, found) {
        Ok(store) => store,
        Err(error) => return Ok(End::Store(error)),
    };
    found.clear();
    let machine = match born {
        Some(machine) => machine,
        None => {
            let open = || engine::open(identity, clock::now(), watermark.last(), &store);
            match catch_unwind(AssertUnwindSafe(open)) {
                Ok(Ok(machine)) => machine,
                Ok(Err(why)) => anyhow::bail!("{why}"),
                Err(payload) => return Ok(ended_by(payload, store.path())),
            }
        }
    };
    let inbox = Arc::new(Inbox::default());
    let links = Links::new(Arc::clone(&start.env), Arc::clone(&inbox));
    let tell = Arc::clone(&inbox);
    let scrub = Scrub::start(replica.clone(), move |damage| tell.command(Task::Damage(damage)))?;
    let mut wires = Wires::new(Arc::clone(shared), Arc::clone(&links), Arc::clone(&inbox), marker, replica);
    if !shared.is_joining() {
        wires.open_folder();
    }
    shared.begin(Current { inbox: Arc::clone(&inbox), links: Arc::clone(&links) });
    if !start.lan.is_empty() {
        shared.tell(Command::LanAddresses(start.lan.clone()));
    }
    if shared.is_paused() {
        shared.tell(Command::Pause(true));
    }
    if shared.stopping.load(Ordering::Acquire) {
        inbox.command(Task::Stop);
    }
    shared.redial();
    let end = Host::new(machine, store, watermark, inbox, Box::new(wires)).run();
    drop(scrub);
    links.shutdown();
    Ok(end)
}
