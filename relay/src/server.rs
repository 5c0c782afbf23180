//! A relay, from bind to the last goodbye.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_relay_core::{Figures, Input};

use crate::accept::{self, Bounds};
use crate::admit::Admitter;
use crate::audiences::Audiences;
use crate::config::Config;
use crate::http::{self, Shared};
use crate::hub::Hub;
use crate::tokens::Tokens;

/// Connections that wait to be accepted; a restarted relay is dialled by everybody at once.
const BACKLOG: u32 = 1024;
/// How often quiet addresses are forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(60);

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
}

/// A relay that is bound, and runs once [`Server::run`] is called.
pub struct Server {
    listener: TcpListener,
    local: SocketAddr,
    admin: Option<(TcpListener, SocketAddr)>,
    shared: Shared,
    bounds: Bounds,
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

impl Server {
    /// Binds the addresses of `config`. Connections wait until [`Server::run`].
    ///
    /// # Errors
    /// [`ServerError`], saying which address failed and why.
    #[allow(
        clippy::unused_async,
        reason = "a listener registers with the runtime, so a caller outside of one must not compile"
    )]
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        let (listener, local) = listen(config.listen)?;
        let admin = config.admin_listen.map(listen).transpose()?;
        let (first, others) = match config.token_keys.split_first() {
            Some((first, others)) => (*first, others),
            None => (random()?, &[][..]),
        };
        let tokens = Tokens::new(first, others);
        let audiences = Audiences::new(config.audiences, config.accept_local_addresses);
        let shared = Shared {
            hub: Arc::new(Hub::new(config.settings, random()?)),
            admitter: Arc::new(Admitter::new(audiences, tokens, config.token_requests_per_minute)),
            tasks: TaskTracker::new(),
        };
        let bounds = Bounds { per_site_max: config.connections_per_ip_max, total_max: config.connections_max };
        Ok(Self { listener, local, admin, shared, bounds, drain_max: Duration::from_millis(config.drain_ms_max) })
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

    /// Serves until `shutdown` resolves, then says goodbye: readiness fails, nobody new is accepted, clients get
    /// `Restarting` and are closed in waves, all within the drain's deadline.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Shared { hub, admitter, tasks } = self.shared.clone();
        let (stop_accepting, stop) = (CancellationToken::new(), CancellationToken::new());
        let services = TaskTracker::new();
        let timekeeper = (hub.clone(), stop.clone());
        services.spawn(async move { timekeeper.0.keep_time(timekeeper.1).await });
        let tidy_stop = stop.clone();
        services.spawn(async move {
            let mut every = tokio::time::interval(TIDY_EVERY);
            while tidy_stop.run_until_cancelled(every.tick()).await.is_some() {
                admitter.forget_quiet();
            }
        });
        if let Some((listener, _)) = self.admin {
            // Health is asked for during the drain too, so this one stops last.
            let bounds = Bounds { per_site_max: usize::MAX, total_max: 256 };
            let router = http::admin(self.shared.clone());
            services.spawn(accept::run(listener, router, bounds, services.clone(), stop.clone()));
        }
        let router = http::public(self.shared.clone());
        services.spawn(accept::run(self.listener, router, self.bounds, tasks.clone(), stop_accepting.clone()));
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
