//! The daemon from its lock to its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weft_agent_core::id::WorkspaceId;
use weft_agent_core::workspace::command::Command;

use super::answer;
use super::door::Door;
use super::space::{Space, Start};
use super::wire::{Answer, Failure, LINE_BYTES_MAX, Request};
use crate::account::{Account, SeenAccounts};
use crate::clock;
use crate::config::Config;
use crate::engine::Machine;
use crate::home::lock::{Lock, LockError};
use crate::home::registry::{Entry, Registry};
use crate::home::{Home, identity};
use crate::keychain::Keychain;
use crate::lan::addresses::Network;
use crate::lan::mdns::{Heard, Mdns};
use crate::lan::serve::Serving;
use crate::lan::{addresses, tag};
use crate::link::access::Access;
use crate::link::{LinkEnv, transport};

/// How often this computer's addresses and ways out are looked at: a change is noticed within it. A look costs about 0.1 ms.
const NETWORK_EVERY: Duration = Duration::from_secs(2);
/// How often the tags that are said on the local network are looked at again.
const LAN_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked whether the socket is still there.
const DOOR_EVERY: Duration = Duration::from_secs(5);
/// Command lines served at once.
const CLIENTS_MAX: usize = 64;

/// How the daemon is started.
pub(crate) struct Options {
    pub(crate) no_lan: bool,
    /// Log to the terminal.
    pub(crate) foreground: bool,
}

/// What every request can reach.
pub(crate) struct Daemon {
    pub(crate) home: Home,
    pub(crate) registry: Arc<Mutex<Registry>>,
    spaces: Mutex<BTreeMap<WorkspaceId, Arc<Space>>>,
    env: Mutex<Option<Arc<LinkEnv>>>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) access: Arc<Access>,
    /// What members' accounts said.
    pub(crate) seen: SeenAccounts,
    lan: Mutex<Lan>,
    pub(crate) stop: CancellationToken,
    /// Rung when this computer's addresses are others.
    network: tokio::sync::Notify,
    runtime: tokio::runtime::Handle,
    /// Held while a workspace is made, so that one folder is never made twice.
    pub(crate) making: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Lan {
    own: Option<String>,
    urls: Vec<String>,
}

/// What a second daemon of a home says.
pub(crate) const ALREADY_RUNS: &str = "an agent already runs for this home";

/// Takes the home's lock; an error says who has it.
fn lock(home: &Home) -> anyhow::Result<Lock> {
    Lock::take(&home.lock_file()).map_err(|error| match error {
        LockError::Held(holder) => anyhow::anyhow!("{ALREADY_RUNS} ({holder})"),
        LockError::Failed { .. } => error.into(),
    })
}

/// Runs until stopped.
pub(crate) fn run(home: &Home, options: &Options) -> anyhow::Result<()> {
    home.prepare()?;
    let config = Config::load(&home.config_file())?;
    let lock = lock(home)?;
    super::log::begin(&home.log_file(), &config.text("log"), options.foreground)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(serve(home, config, options, lock));
    // Sockets that still hang end with the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn serve(home: &Home, mut config: Config, options: &Options, lock: Lock) -> anyhow::Result<()> {
    let ca_file = Some(config.text("ca_file")).filter(|path| !path.is_empty()).map(PathBuf::from);
    let keychain = Arc::new(Keychain::new(home.secrets_dir(), config.is_on("keychain")));
    let account = Arc::new(Account::new(home.account_file(), Arc::clone(&keychain), ca_file.clone()));
    let access = Arc::new(Access::load(home.relays_file(), keychain, account)?);
    let daemon = Arc::new(Daemon {
        home: home.clone(),
        registry: Arc::new(Mutex::new(Registry::load(home)?)),
        spaces: Mutex::default(),
        env: Mutex::default(),
        ca_file,
        access,
        seen: SeenAccounts::load(&home.seen_accounts_file())?,
        lan: Mutex::default(),
        stop: CancellationToken::new(),
        network: tokio::sync::Notify::new(),
        runtime: tokio::runtime::Handle::current(),
        making: tokio::sync::Mutex::new(()),
    });
    let mut door = Door::open(home, lock)?;
    let serving = if options.no_lan || !config.is_on("lan") { None } else { serve_lan(&mut config).await };
    if let Some(serving) = &serving {
        let own = format!("ws://127.0.0.1:{}", serving.port);
        *daemon.lan() = Lan { own: Some(own), urls: lan_urls(&config, serving.port) };
    }
    daemon.start_all();
    tracing::info!(pid = std::process::id(), lan = serving.is_some(), "started");
    let watch = tokio::spawn(mind_network(Arc::clone(&daemon), Network::now));
    let beacon = serving.as_ref().map(|serving| tokio::spawn(mind_lan(Arc::clone(&daemon), config, serving.port)));
    let clients = Arc::new(tokio::sync::Semaphore::new(CLIENTS_MAX));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut look_at_door = tokio::time::interval(DOOR_EVERY);
    loop {
        tokio::select! {
            () = daemon.stop.cancelled() => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = look_at_door.tick() => door.mend(),
            accepted = door.listener.accept() => {
                let (stream, _) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a command line cannot be served");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let Ok(permit) = Arc::clone(&clients).try_acquire_owned() else { continue };
                let daemon = Arc::clone(&daemon);
                tokio::spawn(async move {
                    if let Err(error) = client(&daemon, stream).await {
                        tracing::debug!(%error, "a command line went away");
                    }
                    drop(permit);
                });
            }
        }
    }
    tracing::info!("stopping");
    let _lock = door.close();
    watch.abort();
    if let Some(beacon) = beacon {
        beacon.abort();
    }
    let stopping = Arc::clone(&daemon);
    tokio::task::spawn_blocking(move || stopping.stop_all()).await?;
    if let Some(serving) = serving {
        serving.end().await;
    }
    Ok(())
}

async fn serve_lan(config: &mut Config) -> Option<Serving> {
    let wanted = config.port("lan_port");
    let only_loopback =
        config.is_on("lan_loopback") && addresses::of_this_host(false).iter().all(std::net::IpAddr::is_loopback);
    match Serving::start(wanted, only_loopback).await {
        Ok(serving) => {
            if wanted != serving.port
                && let Err(error) = config.set("lan_port", &serving.port.to_string())
            {
                tracing::warn!(%error, "the port for the local network cannot be kept");
            }
            Some(serving)
        }
        Err(error) => {
            tracing::warn!(%error, "the local network cannot be served");
            None
        }
    }
}

fn lan_urls(config: &Config, port: u16) -> Vec<String> {
    addresses::urls(&addresses::of_this_host(config.is_on("lan_loopback")), port)
}

/// Dials at once when this computer comes into another network, or back into one.
async fn mind_network(daemon: Arc<Daemon>, now: impl Fn() -> Network) {
    let mut known = now();
    let mut every = tokio::time::interval(NETWORK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let network = now();
        if network == known {
            continue;
        }
        tracing::info!("the network changed; dialling anew");
        known = network;
        daemon.network.notify_one();
        for space in daemon.spaces() {
            space.shared.network_changed(&known.addresses);
        }
    }
}

/// Announces, listens, and tells the members where this computer is.
async fn mind_lan(daemon: Arc<Daemon>, config: Config, port: u16) {
    let (found, mut neighbours) = tokio::sync::mpsc::unbounded_channel();
    let mdns = Mdns::start(move |neighbour| {
        let _ended = found.send(neighbour);
    });
    let mut mdns = match mdns {
        Ok(mdns) => Some(mdns),
        Err(error) => {
            tracing::info!(%error, "no multicast here; peers are found by their addresses only");
            None
        }
    };
    let mut said = (Vec::new(), Vec::new());
    let mut every = tokio::time::interval(LAN_EVERY);
    loop {
        tokio::select! {
            () = async { tokio::select! { _ = every.tick() => {}, () = daemon.network.notified() => {} } } => {
                let ips = addresses::of_this_host(config.is_on("lan_loopback"));
                let urls = addresses::urls(&ips, port);
                if daemon.lan().urls != urls {
                    daemon.lan().urls.clone_from(&urls);
                    for space in daemon.spaces() {
                        space.shared.tell(Command::LanAddresses(urls.clone()));
                    }
                }
                let now = clock::wall_ms();
                let tags: Vec<String> = daemon.spaces().iter().map(|space| tag::now(&space.shared.id, now)).collect();
                if said != (tags.clone(), ips.clone()) {
                    if let Some(mdns) = &mut mdns
                        && let Err(error) = mdns.announce(&tags, &ips, port)
                    {
                        tracing::info!(%error, "cannot announce on the local network");
                    }
                    said = (tags, ips);
                }
            }
            Some(heard) = neighbours.recv() => {
                let neighbour = match heard {
                    Heard::Here(neighbour) => neighbour,
                    Heard::Gone(urls) => {
                        daemon.spaces().iter().for_each(|space| space.shared.neighbours_gone(&urls));
                        continue;
                    }
                };
                let own = daemon.lan().urls.clone();
                let urls: Vec<String> = neighbour.urls.into_iter().filter(|url| !own.contains(url)).collect();
                let now = clock::wall_ms();
                for space in daemon.spaces() {
                    if neighbour.tags.iter().any(|said| tag::is_of(&space.shared.id, said, now)) {
                        space.shared.neighbour(&urls);
                    }
                }
            }
        }
    }
}

impl Daemon {
    fn lan(&self) -> MutexGuard<'_, Lan> {
        self.lan.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// LAN addresses of this agent, as URLs.
    pub(crate) fn lan_urls(&self) -> Vec<String> {
        self.lan().urls.clone()
    }
    pub(crate) fn spaces(&self) -> Vec<Arc<Space>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The workspace around a folder.
    pub(crate) fn space_at(&self, dir: &Path) -> Option<Arc<Space>> {
        self.spaces().into_iter().find(|space| dir.starts_with(&space.shared.path))
    }

    /// Link keys, from the identity once there is one.
    fn env(&self) -> anyhow::Result<Arc<LinkEnv>> {
        let mut env = self.env.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(env) = &*env {
            return Ok(Arc::clone(env));
        }
        let identity = identity::current(&self.home)?
            .ok_or_else(|| anyhow::anyhow!("the identity file is gone; restore it from a backup"))?;
        let tls = transport::tls(self.ca_file.as_deref())?;
        let (runtime, access) = (self.runtime.clone(), Arc::clone(&self.access));
        let made = Arc::new(LinkEnv { device: identity.device, tls, runtime, access });
        *env = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Starts a workspace that the registry names (or will name).
    pub(crate) fn start_space(
        &self,
        entry: Entry,
        born: Option<Box<dyn Machine + Send>>,
        seeds: Vec<String>,
    ) -> anyhow::Result<Arc<Space>> {
        let id = entry.id().ok_or_else(|| anyhow::anyhow!("the list of workspaces names one without an id"))?;
        let lan = self.lan_urls();
        let own = self.lan().own.clone();
        let start = Start {
            home: self.home.clone(),
            registry: Arc::clone(&self.registry),
            env: self.env()?,
            entry,
            id,
            born,
            seeds,
            own,
            lan,
        };
        let space = Arc::new(Space::start(start)?);
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&space));
        Ok(space)
    }

    /// Stops a workspace and forgets that it runs.
    pub(crate) fn stop_space(&self, id: &WorkspaceId) {
        let space = self.spaces.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(space) = space {
            space.stop();
        }
    }

    fn start_all(&self) {
        let entries = self.registry().workspaces.clone();
        for entry in entries {
            if let Err(error) = self.start_space(entry, None, Vec::new()) {
                tracing::error!(%error, "a workspace cannot be started");
            }
        }
    }

    fn stop_all(&self) {
        let spaces = std::mem::take(&mut *self.spaces.lock().unwrap_or_else(PoisonError::into_inner));
        for space in spaces.into_values() {
            space.stop();
        }
    }
}

/// One command line, until it hangs up.
async fn client(daemon: &Arc<Daemon>, stream: UnixStream) -> anyhow::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut lines = BufReader::new(reading);
    loop {
        let mut line = Vec::new();
        let mut bounded = tokio::io::AsyncReadExt::take(&mut lines, LINE_BYTES_MAX as u64);
        if bounded.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let request: Request = match serde_json::from_slice(&line) {
            Ok(request) => request,
            Err(_) => {
                let message =
                    "the agent does not understand this request; restart it with `weft stop` and `weft start`";
                let failed = Answer::Failed { message: message.to_owned(), exit: 1, code: "other-version".to_owned() };
                say(&mut writing, &failed).await?;
                continue;
            }
        };
        let ends = matches!(request, Request::Shutdown);
        let last = match answer::answer(daemon, request, &mut writing).await {
            Ok(value) => Answer::Done { value },
            Err(Failure { message, exit, code }) => Answer::Failed { message, exit, code: code.into_owned() },
        };
        say(&mut writing, &last).await?;
        if ends {
            daemon.stop.cancel();
            return Ok(());
        }
    }
}

/// Sends one answer.
pub(crate) async fn say(writing: &mut OwnedWriteHalf, answer: &Answer) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    Ok(writing.write_all(&line).await?)
}
