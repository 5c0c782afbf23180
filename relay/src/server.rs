//! A relay, from bind to the last goodbye.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_relay_core::gate::GateLimits;
use weft_relay_core::{Figures, Input, Settings};

use crate::accept::{self, Gates, Service};
use crate::admit::Admitter;
use crate::audiences::Audiences;
use crate::check;
use crate::config::{Config, PolicyConfig};
use crate::did::Resolver;
use crate::http::{self, Shared};
use crate::hub::Hub;
use crate::metrics::{Limits, Metrics};
use crate::nats::{self, NatsError, Waiting};
use crate::policy::{BlockFileError, Blocked, Policy};
use crate::reading::Room;
use crate::tls::{Tls, TlsError};
use crate::tokens::Tokens;

/// Connections that wait to be accepted; a restarted relay is dialled by everybody at once.
const BACKLOG: u32 = 1024;
/// How often files are looked at for changes.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Connections of the admin port.
const ADMIN_CONNECTIONS_MAX: usize = 256;

/// Why a relay could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is taken, not ours, or not permitted.
    #[error("cannot listen on {addr}: {error}; choose another address with --listen or --admin-listen")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// Values that do not go together.
    #[error("{key}: {problem}")]
    Config {
        /// The key to change.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Certificate or key cannot be used.
    #[error("tls_certificate, tls_key: {0}")]
    Tls(#[from] TlsError),
    /// The block file cannot be used.
    #[error("block_file: {path}: {error}", path = path.display())]
    BlockFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: BlockFileError,
    },
    /// The fabric cannot be set up.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

/// A relay that is bound, and runs once [`Server::run`] is called.
pub struct Server {
    listener: TcpListener,
    local: SocketAddr,
    admin: Option<(TcpListener, SocketAddr)>,
    shared: Shared,
    tls: Option<Arc<Tls>>,
    metrics: Arc<Metrics>,
    block_file: Arc<Mutex<Option<PathBuf>>>,
    nats: Option<(Client, Waiting)>,
    drain_max: Duration,
}

/// Looks at a running relay; for tests and for whoever embeds one.
#[derive(Clone)]
pub struct Watch(Arc<Hub>);

impl Watch {
    /// Counts at this moment.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.0.figures()
    }
}

/// Has a running relay take what may change: token keys, policy, block file, certificates.
#[derive(Clone)]
pub struct Reloader {
    hub: Arc<Hub>,
    admitter: Arc<Admitter>,
    tls: Option<Arc<Tls>>,
    metrics: Arc<Metrics>,
    /// The block file that holds now. Locked while a policy is replaced, so that of two changes none undoes the other.
    block_file: Arc<Mutex<Option<PathBuf>>>,
}

impl Reloader {
    /// Takes from `config` what may change while running, and reads its files again. Token keys that were drawn stay.
    ///
    /// # Errors
    /// The first thing that cannot be taken; then nothing of `config` is, but for certificates read before it.
    pub fn reload(&self, config: &Config) -> Result<(), ServerError> {
        let taken = self.take(config);
        self.metrics.reloaded(taken.is_ok());
        taken
    }

    fn take(&self, config: &Config) -> Result<(), ServerError> {
        config.check().map_err(|(key, problem)| ServerError::Config { key, problem })?;
        let mut block_file = self.block_file();
        let policy = policy(&config.policy)?;
        if let Some(tls) = &self.tls {
            tls.reload()?;
        }
        if !config.token_keys.is_empty() {
            self.admitter.set_tokens(tokens(config)?);
        }
        block_file.clone_from(&config.policy.block_file);
        self.set_policy(policy);
        Ok(())
    }

    fn block_file(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.block_file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a policy, and closes the connections of those whom it does not let in (any more).
    fn set_policy(&self, policy: Policy) {
        let policy = Arc::new(policy);
        // In this order: nobody new comes in by the old one, then those who are in are looked at.
        self.admitter.set_policy(policy.clone());
        self.hub.input(Input::ListsChanged { lists: policy.lists.clone() });
        self.hub.kick_addresses(|ip| policy.admits_ip(ip).is_err());
    }

    /// Reads the block file again.
    fn take_block_file(&self) -> Result<(), BlockFileError> {
        let block_file = self.block_file();
        if let Some(path) = block_file.as_deref() {
            self.set_policy(self.admitter.policy().with(Blocked::read(path)?));
        }
        Ok(())
    }

    /// Takes files as they change, until cancelled.
    async fn watch(self, stop: CancellationToken) {
        let changed = |path: &Path| {
            let meta = std::fs::metadata(path).ok();
            meta.map(|meta| (meta.modified().ok(), meta.len()))
        };
        let tls_files = || self.tls.as_ref().map(|tls| (changed(&tls.files().certificate), changed(&tls.files().key)));
        let block_file = || self.block_file().clone().map(|path| (changed(&path), path));
        let mut seen = (tls_files(), block_file());
        let mut every = tokio::time::interval(LOOK_EVERY);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let now = (tls_files(), block_file());
            if now.0 != seen.0
                && let Some(tls) = &self.tls
            {
                let taken = tls.reload();
                self.metrics.reloaded(taken.is_ok());
                match taken {
                    Ok(()) => tracing::info!("took the changed certificate"),
                    Err(error) => tracing::error!(%error, "the changed certificate cannot be used, the old one stays"),
                }
            }
            if now.1 != seen.1 && now.1.is_some() {
                let taken = self.take_block_file();
                self.metrics.reloaded(taken.is_ok());
                match taken {
                    Ok(()) => tracing::info!("took the changed block file"),
                    Err(error) => tracing::error!(%error, "the changed block file cannot be used, the old one stays"),
                }
            }
            seen = now;
        }
    }
}

fn policy(config: &PolicyConfig) -> Result<Policy, ServerError> {
    Policy::new(config).map_err(|error| {
        let path = config.block_file.clone().unwrap_or_default();
        ServerError::BlockFile { path, error }
    })
}

fn tokens(config: &Config) -> Result<Tokens, ServerError> {
    let (first, others) = match config.token_keys.split_first() {
        Some((first, others)) => (*first, others),
        None => (random()?, &[][..]),
    };
    Ok(Tokens::new(first, others, config.token_keys_old_until_s))
}

impl Server {
    /// Binds the addresses of `config`. Connections wait until [`Server::run`].
    ///
    /// # Errors
    /// [`ServerError`], saying what failed and why.
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        config.check().map_err(|(key, problem)| ServerError::Config { key, problem })?;
        check::files(&config)?;
        let tls = config.tls.clone().map(Tls::new).transpose()?.map(Arc::new);
        let (listener, local) = listen(config.listen)?;
        let admin = config.admin_listen.map(listen).transpose()?;
        let tokens = tokens(&config)?;
        let audiences = Audiences::new(config.audiences, config.accept_local_addresses);
        let policy = Arc::new(policy(&config.policy)?);
        let lists = policy.lists.clone();
        let resolver = Resolver::new(&config.did, config.development);
        let metrics = Arc::new(Metrics::new(Limits {
            connections_max: config.connections_max,
            connections_per_ip_max: config.connections_per_ip_max,
            token_requests_per_minute: config.token_requests_per_minute,
            settings: config.settings.clone(),
            fabric: config.nats.is_some(),
        }));
        let (fabric, waiting) = config.nats.is_some().then(nats::queue).unzip();
        let settings = Settings { several_relays: fabric.is_some(), ..config.settings };
        let admitter = Admitter::new(audiences, tokens, policy, resolver, config.token_requests_per_minute);
        let limits = GateLimits {
            per_site_max: config.connections_per_ip_max,
            per_network_max: config.connections_per_network_max,
            total_max: config.connections_max,
        };
        let gates = Gates::new(limits, config.trusted_proxies);
        let hub = Arc::new(Hub::new(settings, random()?, metrics.clone(), fabric));
        let shared = Shared {
            refusals: hub.refusals(),
            hub,
            admitter: Arc::new(admitter),
            tasks: TaskTracker::new(),
            gates: Arc::new(gates),
            wss_audiences: config.wss_audiences.into(),
            tls: tls.is_some(),
            room: Arc::new(Room::new(config.unfinished_bytes_max)),
            admin_hosts: config.admin_hosts.into(),
            header_max: Duration::from_millis(config.header_ms_max),
        };
        shared.hub.input(Input::ListsChanged { lists });
        // A server that is only out of reach is no error: it is tried again, in the background, for as long as it takes.
        let nats = match (&config.nats, waiting) {
            (Some(nats), Some(waiting)) => Some((nats::connect(nats, shared.hub.clone()).await?, waiting)),
            _ => None,
        };
        let drain_max = Duration::from_millis(config.drain_ms_max);
        let block_file = Arc::new(Mutex::new(config.policy.block_file));
        Ok(Self { listener, local, admin, shared, tls, metrics, block_file, nats, drain_max })
    }

    /// The address it listens on, with the port that was bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The address of the admin port, if there is one.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, addr)| *addr)
    }

    /// A handle to look at it while it runs.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch(self.shared.hub.clone())
    }

    /// A handle to change it while it runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader {
            hub: self.shared.hub.clone(),
            admitter: self.shared.admitter.clone(),
            tls: self.tls.clone(),
            metrics: self.metrics.clone(),
            block_file: self.block_file.clone(),
        }
    }

    /// Serves until `shutdown` resolves, then says goodbye: readiness fails, nobody new is accepted, clients get
    /// `Restarting` and are closed in waves, all within the drain's deadline.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let reloader = self.reloader();
        let Shared { hub, tasks, gates, header_max, .. } = self.shared.clone();
        let (stop_accepting, stop) = (CancellationToken::new(), CancellationToken::new());
        let services = TaskTracker::new();
        if let Some((client, waiting)) = self.nats {
            services.spawn(nats::run(client, hub.clone(), waiting, stop.clone()));
        }
        let timekeeper = (hub.clone(), stop.clone());
        services.spawn(async move { timekeeper.0.keep_time(timekeeper.1).await });
        services.spawn(reloader.watch(stop.clone()));
        if let Some((listener, _)) = self.admin {
            // Health is asked for during the drain too, so this one stops last.
            let total_max = ADMIN_CONNECTIONS_MAX;
            let limits = GateLimits { per_site_max: usize::MAX, per_network_max: Some(usize::MAX), total_max };
            let gates = Arc::new(Gates::new(limits, Vec::new()));
            let router = http::admin(self.shared.clone());
            let service =
                Service { router, gates, tls: None, metrics: self.metrics.clone(), hub: hub.clone(), header_max };
            services.spawn(accept::run(listener, service, services.clone(), stop.clone()));
        }
        let router = http::public(self.shared.clone());
        let service = Service { router, gates, tls: self.tls, metrics: self.metrics, hub: hub.clone(), header_max };
        services.spawn(accept::run(self.listener, service, tasks.clone(), stop_accepting.clone()));
        shutdown.await;
        tracing::info!(connections = hub.figures().connections, "draining");
        hub.input(Input::Drain);
        stop_accepting.cancel();
        tasks.close();
        if timeout(self.drain_max, tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time and are cut off");
        }
        stop.cancel();
        services.close();
        // What still hangs ends with the runtime; nothing is stored that could be lost.
        let _ = timeout(Duration::from_millis(500), services.wait()).await;
    }
}

fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let bound = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let local = listener.local_addr()?;
        Ok((listener, local))
    };
    bound().map_err(|error| ServerError::Listen { addr, error })
}

fn random() -> Result<[u8; 32], ServerError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(ServerError::Randomness)?;
    Ok(bytes)
}
