//! One connection of one workspace to one relay (or to an agent that serves one on the LAN), kept up.
//!
//! A link asks for a token, connects, proves its connection key, hands over [`Input::LinkUp`], then passes frames both
//! ways, renews its session, and after an end waits (jittered, doubling) and begins again with a new [`LinkId`].
//!
//! Invariant: a `LinkUp` is followed by exactly one `LinkDown`, and no frame comes before or after; what is read is held
//! back while the workspace is behind.
//! Spec: docs/protocol.md#admission.

pub(crate) mod access;
pub(crate) mod address;
pub(crate) mod backoff;
pub(crate) mod diagnose;
pub(crate) mod http;
#[cfg(test)]
mod live;
pub(crate) mod queue;
mod session;
pub(crate) mod token;
pub(crate) mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use weft_agent_core::identity::DeviceKeys;
use weft_agent_core::workspace::input::{LinkId, LinkKind};
use weft_agent_core::workspace::output::Rank;
use weft_protocol::code::Code;
use weft_protocol::frame::ClientFrame;

use crate::account::AccountError;
use crate::engine;
use crate::host::inbox::Inbox;
use access::Access;
use address::Address;
use backoff::Backoff;
use queue::Queue;

/// A link that lived so long was well: the next one is dialled at once.
const WELL: Duration = Duration::from_secs(30);
/// Least wait before a relay is asked again that waits for a person; what they do has it asked at once.
const PERSON_WAIT: Duration = Duration::from_secs(15);
/// Addresses one workspace dials at once; more are hints that did not fit.
const DIALLED_MAX: usize = 32;

/// Why a link is not up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LinkError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("what answers there is not a weft relay")]
    NotARelay,
    #[error("the relay refused: {message}")]
    Refused { code: Code, message: String, retry_after_ms: Option<u64>, relay_time_ms: Option<u64> },
    #[error("the connection failed: {0}")]
    WebSocket(String),
    #[error("nothing came for too long")]
    Silent,
    #[error("given up: {0}")]
    GivenUp(String),
    #[error("the relay restarts; the connection comes back by itself")]
    Restarting { after_ms: u64 },
    #[error("{0}")]
    Wants(Wanted),
    #[error("this relay asks for people by name, and {0}")]
    Account(#[from] AccountError),
}

/// What a relay asks for that only a person can give.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Wanted {
    #[error("this relay asks for a secret; get it from its operator and give it with: weft relays secret {url}")]
    Secret { url: String },
    #[error("this relay does not take the secret it was given; ask its operator, then: weft relays secret {url}")]
    OtherSecret { url: String },
    #[error(
        "this relay admits certain people only. Log in with your account, weft identity login HANDLE, and ask the relay's \
         operator to admit its DID; or have them admit this device: {did}"
    )]
    Account { did: String },
    #[error("this relay does not admit {handle} yet; ask its operator to admit {did}")]
    Place { handle: String, did: String },
    #[error(
        "this relay refuses; either the secret is wrong (weft relays secret {url}), or its operator does not admit {did} yet"
    )]
    SecretOrPlace { url: String, did: String },
    #[error(
        "this relay asks who you are, and is to know you by a pseudonym only; weft relays identity {url} auto lets it know \
         your account"
    )]
    Permission { url: String },
}

/// What all links of an agent share.
pub(crate) struct LinkEnv {
    pub(crate) device: DeviceKeys,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) runtime: Handle,
    pub(crate) access: Arc<Access>,
}

/// What people see of an address.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) kind: LinkKind,
    pub(crate) up: bool,
    /// Why it is not up, once that is known.
    pub(crate) why: Option<String>,
}

struct Dialled {
    stop: CancellationToken,
    nudge: Arc<Notify>,
    health: Health,
}

#[derive(Default)]
struct State {
    dialled: BTreeMap<String, Dialled>,
    queues: BTreeMap<LinkId, Open>,
}

/// A link that is up.
struct Open {
    queue: Arc<Queue>,
    /// The address of this computer that it goes out from.
    from: Option<IpAddr>,
}

/// All links of one workspace.
pub(crate) struct Links {
    env: Arc<LinkEnv>,
    inbox: Arc<Inbox>,
    state: Mutex<State>,
    next: AtomicU64,
    stop: CancellationToken,
    /// Rung when a link has ended.
    ended: Notify,
}

/// How long the last words of an agent that leaves may take to reach the sockets.
const FAREWELL_MAX: Duration = Duration::from_secs(3);

impl Links {
    pub(crate) fn new(env: Arc<LinkEnv>, inbox: Arc<Inbox>) -> Arc<Links> {
        let stop = CancellationToken::new();
        Arc::new(Links { env, inbox, state: Mutex::default(), next: AtomicU64::new(1), stop, ended: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dials those that are new and gives up those that are no more.
    pub(crate) fn set(self: &Arc<Self>, wanted: &[(String, LinkKind)]) {
        let mut targets: BTreeMap<String, (Address, LinkKind)> = BTreeMap::new();
        for (url, kind) in wanted {
            match Address::parse(url) {
                Ok(address) if targets.len() < DIALLED_MAX => {
                    targets.entry(address.url.clone()).or_insert((address, *kind));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "an address of a relay cannot be used"),
            }
        }
        let mut state = self.lock();
        state.dialled.retain(|url, dialled| {
            let stays = targets.contains_key(url);
            if !stays {
                dialled.stop.cancel();
            }
            stays
        });
        for (url, (address, kind)) in targets {
            if self.stop.is_cancelled() || state.dialled.contains_key(&url) {
                continue;
            }
            let (stop, nudge) = (self.stop.child_token(), Arc::new(Notify::new()));
            let health = Health { kind, up: false, why: None };
            state.dialled.insert(url, Dialled { stop: stop.clone(), nudge: Arc::clone(&nudge), health });
            let links = Arc::clone(self);
            self.env.runtime.spawn(async move { links.keep_up(address, kind, stop, nudge).await });
        }
    }

    /// Dials all that wait now.
    pub(crate) fn nudge(&self) {
        self.lock().dialled.values().for_each(|dialled| dialled.nudge.notify_one());
    }

    /// Every address with how it fares.
    pub(crate) fn health(&self) -> Vec<(String, Health)> {
        self.lock().dialled.iter().map(|(url, dialled)| (url.clone(), dialled.health.clone())).collect()
    }

    pub(crate) fn send(&self, link: LinkId, rank: Rank, frame: &ClientFrame) {
        let queue = self.lock().queues.get(&link).map(|open| Arc::clone(&open.queue));
        // A link that just ended: its LinkDown is on the way to the core.
        if let Some(queue) = queue {
            queue.push(rank, frame.encode());
        }
    }

    pub(crate) fn close(&self, link: LinkId, why: &str) {
        if let Some(open) = self.lock().queues.get(&link) {
            open.queue.close(why);
        }
    }
    /// This computer's addresses, or the ways out of it, are others now. What went out from an address that is gone is dead,
    /// though it would take a minute to show; everything that waits is dialled at once.
    pub(crate) fn network_changed(&self, ours: &BTreeSet<IpAddr>) {
        let state = self.lock();
        for open in state.queues.values() {
            if open.from.is_some_and(|from| !ours.contains(&from)) {
                open.queue.close("the network changed");
            }
        }
        state.dialled.values().for_each(|dialled| dialled.nudge.notify_one());
    }

    /// Sends what waits, and ends each link that has; what is not sent in time is given up.
    pub(crate) async fn farewell(&self) {
        self.lock().queues.values().for_each(|open| open.queue.finish("the agent leaves"));
        let all_ended = async {
            loop {
                let ended = self.ended.notified();
                if self.lock().queues.is_empty() {
                    return;
                }
                ended.await;
            }
        };
        let _in_time = tokio::time::timeout(FAREWELL_MAX, all_ended).await;
    }

    /// Ends all of them.
    pub(crate) fn shutdown(&self) {
        self.stop.cancel();
        let state = self.lock();
        state.queues.values().for_each(|open| open.queue.close("the agent stops"));
    }

    fn note(&self, url: &str, up: bool, why: Option<String>) {
        if let Some(dialled) = self.lock().dialled.get_mut(url) {
            dialled.health.up = up;
            dialled.health.why = why;
        }
    }

    async fn keep_up(self: Arc<Self>, address: Address, kind: LinkKind, stop: CancellationToken, nudge: Arc<Notify>) {
        let mut backoff = Backoff::default();
        let mut proven = false;
        while !stop.is_cancelled() {
            let id = LinkId(self.next.fetch_add(1, Ordering::Relaxed));
            let queue = Arc::new(Queue::default());
            let began = Instant::now();
            let ended = tokio::select! {
                () = stop.cancelled() => None,
                ended = session::run(&self, &address, kind, id, &queue) => Some(ended),
            };
            proven |= self.forget(id);
            let Some(error) = ended else { break };
            tracing::debug!(audience = %address.audience, %error, "a link ended");
            let why = match kind {
                // Where a link was once, the address is right.
                LinkKind::Relay if !proven => tokio::select! {
                    () = stop.cancelled() => break,
                    why = diagnose::in_words(&address, &self.env.tls, &error) => why,
                },
                LinkKind::Relay => diagnose::in_short(&address, &error),
                // Neighbours come and go.
                LinkKind::Lan => error.to_string(),
            };
            self.note(&address.url, false, Some(why));
            if began.elapsed() >= WELL {
                backoff.reset();
            }
            let mut wait = backoff.next(u32::from_le_bytes(engine::random()));
            if let LinkError::Refused { retry_after_ms: Some(ms), .. } = error {
                wait = wait.max(Duration::from_millis(ms));
            } else if let LinkError::Restarting { after_ms } = error {
                wait = Duration::from_millis(after_ms);
            } else if matches!(error, LinkError::Wants(_)) {
                wait = wait.max(PERSON_WAIT);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = nudge.notified() => {}
                () = tokio::time::sleep(wait.min(Duration::from_secs(300))) => {}
            }
        }
    }

    fn register(&self, id: LinkId, queue: &Arc<Queue>, from: Option<IpAddr>) {
        self.lock().queues.insert(id, Open { queue: Arc::clone(queue), from });
    }

    /// Says `LinkDown` if there was a `LinkUp`; whether there was.
    fn forget(&self, id: LinkId) -> bool {
        let was_up = self.lock().queues.remove(&id).is_some();
        if was_up {
            self.inbox.link_now(weft_agent_core::workspace::input::Input::LinkDown { link: id });
            self.ended.notify_waiters();
        }
        was_up
    }
}
