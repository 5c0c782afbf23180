//! The fabric over NATS core: carries what the machine wants told to other relays, and what they say.
//!
//! NATS may lose and does not tell; noticing that is the machine's part (`weft_relay_core::fabric`). Here: one subscription
//! a room, a queue that never makes the machine wait, and a connection that comes back by itself.
//!
//! Invariant: the machine is never blocked, and what waits is bounded: past the bound messages are dropped, whose numbers
//! show the others that they are missing. Subjects are hashes of room ids, which are hashes themselves.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use weft_protocol::admission::proof::hash;
use weft_protocol::id::{RoomId, unhex};
use weft_protocol::limits::FRAME_BYTES_MAX;
use weft_relay_core::Input;

use crate::config::NatsConfig;
use crate::hub::Hub;
use crate::tls::{TlsError, certificates};

/// Bytes that may wait for NATS.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// What one message counts for beyond its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 256;
/// Messages of one room that may wait for us; past it NATS drops, and the numbers show it.
const SUBSCRIPTION_MESSAGES: usize = 1024;
/// Two that go unanswered end a connection: a paused server is noticed within a quarter of a minute.
const PING_EVERY: Duration = Duration::from_secs(5);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Between tries; relays of a cluster must not come back in step.
const RECONNECT_MIN_MS: u64 = 100;
const RECONNECT_MAX_MS: u64 = 5_000;
/// How long goodbyes may take to reach NATS.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Why the fabric could not be set up. A server that cannot be reached is no reason: it may come later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsError {
    /// A URL is none.
    #[error("nats: a URL cannot be understood: {0}")]
    Url(std::io::Error),
    /// The credentials cannot be read, or are none.
    #[error("nats_credentials: {path}: {problem}", path = path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The root certificates cannot be used.
    #[error("nats_ca: {0}")]
    Ca(#[from] TlsError),
    /// The client could not start.
    #[error("NATS: {0}")]
    Connect(String),
}

/// What the machine wants done.
pub(crate) enum Command {
    Subscribe(RoomId),
    Unsubscribe(RoomId),
    Send(RoomId, Bytes),
}

/// The way from the machine to NATS.
pub(crate) struct FabricQueue {
    commands: mpsc::UnboundedSender<Command>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// The other end of a [`FabricQueue`].
pub(crate) struct Waiting {
    commands: mpsc::UnboundedReceiver<Command>,
    bytes: Arc<AtomicUsize>,
}

fn weight(message: &Bytes) -> usize {
    message.len() + MESSAGE_OVERHEAD_BYTES
}

pub(crate) fn queue() -> (FabricQueue, Waiting) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let bytes = Arc::new(AtomicUsize::new(0));
    (FabricQueue { commands: sender, waiting_bytes: bytes.clone() }, Waiting { commands: receiver, bytes })
}

impl FabricQueue {
    /// A subscription's beginning or end: as many as rooms, never dropped.
    pub(crate) fn push(&self, command: Command) {
        // Nobody listens any more only at the end of the process.
        let _ = self.commands.send(command);
    }

    /// Queues a message; `false` if it was dropped because too much waits.
    pub(crate) fn send(&self, room: RoomId, message: Bytes) -> bool {
        let weight = weight(&message);
        if self.waiting_bytes.fetch_add(weight, Ordering::Relaxed) + weight > QUEUE_BYTES_MAX {
            self.waiting_bytes.fetch_sub(weight, Ordering::Relaxed);
            return false;
        }
        self.push(Command::Send(room, message));
        true
    }
}

fn subject(room: &RoomId) -> String {
    let name: String =
        hash("relay-fabric-room", &[&room.0]).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("weft.room.{name}")
}

fn reconnect_delay(attempts: usize) -> Duration {
    let most_ms = (RECONNECT_MIN_MS << attempts.min(10)).min(RECONNECT_MAX_MS);
    let jitter = getrandom::u32().map_or(0, u64::from);
    Duration::from_millis(most_ms / 2 + jitter % (most_ms / 2 + 1))
}

/// What `%` and two hexadecimal digits stand for in a URL; anything else as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let digits = behind.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = digits.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(unhex::<1>);
        match byte {
            Some([byte]) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The address alone: what the client is not given it cannot log.
fn without_user(server: ServerAddr) -> Result<ServerAddr, std::io::Error> {
    let mut url = server.into_inner();
    // These fail for URLs that can have no user, and then there is none.
    let _ = (url.set_username(""), url.set_password(None));
    ServerAddr::from_url(url)
}

/// Connects in the background.
pub(crate) async fn connect(config: &NatsConfig, hub: Arc<Hub>) -> Result<Client, NatsError> {
    let urls: Result<Vec<ServerAddr>, _> = config.urls.iter().map(|url| url.parse::<ServerAddr>()).collect();
    let mut options = ConnectOptions::new()
        .name("weft-relay")
        .no_echo()
        .retry_on_initial_connect()
        .connection_timeout(CONNECT_MAX)
        .ping_interval(PING_EVERY)
        .subscription_capacity(SUBSCRIPTION_MESSAGES)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            happened(&hub, &event);
            std::future::ready(())
        });
    // The client does not look for them in the URLs itself.
    if let Some((user, password)) = urls.iter().flatten().find_map(|url| Some((url.username()?, url.password()))) {
        let user = percent_decoded(user);
        options = match password {
            Some(password) => options.user_and_password(user, percent_decoded(password)),
            None => options.token(user),
        };
    }
    if let Some(path) = &config.credentials {
        let wrong = |problem| NatsError::Credentials { path: path.clone(), problem };
        let text = tokio::fs::read_to_string(path).await.map_err(|error| wrong(format!("cannot be read: {error}")))?;
        // What the parser says may quote what it found.
        options = options.credentials(&text).map_err(|_| wrong("holds no NATS credentials".to_owned()))?;
    }
    if let Some(token) = &config.token {
        options = options.token(token.clone());
    }
    if let Some(ca) = &config.ca {
        // Looked at now: the client reads it only when it connects, which it does in the background.
        certificates(ca)?;
        options = options.require_tls(true).add_root_certificates(ca.clone());
    }
    let urls = urls.map_err(NatsError::Url)?.into_iter().map(without_user).collect::<Result<Vec<_>, _>>();
    let urls = urls.map_err(NatsError::Url)?;
    options.connect(urls).await.map_err(|error| NatsError::Connect(error.to_string()))
}

fn happened(hub: &Hub, event: &Event) {
    match event {
        Event::Connected => {
            tracing::info!("connected to NATS");
            hub.input(Input::FabricUp);
        }
        Event::Disconnected | Event::Closed => {
            tracing::warn!("NATS is out of reach: local rooms go on, other relays' members are not seen");
            hub.input(Input::FabricDown);
        }
        Event::SlowConsumer(_) => tracing::warn!("NATS sends faster than this relay takes: members reconcile"),
        Event::ServerError(error) => tracing::warn!(%error, "NATS refuses"),
        Event::ClientError(error) => tracing::warn!(%error, "NATS"),
        Event::LameDuckMode | Event::Draining => tracing::info!("the NATS server is about to stop"),
    }
}

/// Carries until cancelled, then what still waits.
pub(crate) async fn run(client: Client, hub: Arc<Hub>, mut waiting: Waiting, stop: CancellationToken) {
    let mut rooms: HashMap<RoomId, AbortOnDropHandle<()>> = HashMap::new();
    let mut told_size = false;
    loop {
        let command = tokio::select! {
            biased;
            command = waiting.commands.recv() => command,
            () = stop.cancelled() => break,
        };
        match command {
            Some(Command::Subscribe(room)) => {
                let listening = listen(client.clone(), hub.clone(), room);
                rooms.insert(room, AbortOnDropHandle::new(tokio::spawn(listening)));
            }
            Some(Command::Unsubscribe(room)) => {
                rooms.remove(&room);
            }
            Some(Command::Send(room, message)) => {
                waiting.bytes.fetch_sub(weight(&message), Ordering::Relaxed);
                // While it is cut off it would only fill up; the machine shows the gap when it is back.
                if client.connection_state() != State::Connected {
                    continue;
                }
                if !told_size && client.max_payload() < FRAME_BYTES_MAX {
                    told_size = true;
                    tracing::error!(
                        "NATS allows less than 1 MiB a message: raise its max_payload, or large frames never pass"
                    );
                }
                let publishing = client.publish(subject(&room), message);
                tokio::select! {
                    published = publishing => if let Err(error) = published {
                        tracing::debug!(%error, "a message to other relays was not sent");
                    },
                    () = stop.cancelled() => break,
                }
            }
            None => break,
        }
    }
    let _ = tokio::time::timeout(FLUSH_MAX, client.flush()).await;
}

/// Listens to one room until aborted; dropping the subscription ends it at the server.
async fn listen(client: Client, hub: Arc<Hub>, room: RoomId) {
    let mut subscription = match client.subscribe(subject(&room)).await {
        Ok(subscription) => subscription,
        Err(error) => return tracing::error!(%error, "a subscription failed"),
    };
    // The server has it before anybody is told that they joined.
    if let Err(error) = client.flush().await {
        tracing::debug!(%error, "a subscription was not flushed");
    }
    hub.input(Input::Subscribed { room });
    while let Some(message) = subscription.next().await {
        hub.input(Input::FabricReceived { room, message: message.payload });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_subscriptions_always_pass() {
        let (queue, mut waiting) = queue();
        let message = Bytes::from(vec![0; 1 << 20]);
        let room = RoomId([1; 32]);
        let taken = (0..100).filter(|_| queue.send(room, message.clone())).count();
        assert_eq!(taken, QUEUE_BYTES_MAX / ((1 << 20) + MESSAGE_OVERHEAD_BYTES));
        queue.push(Command::Unsubscribe(room));
        let mut last = None;
        while let Ok(command) = waiting.commands.try_recv() {
            last = Some(command);
        }
        assert!(matches!(last, Some(Command::Unsubscribe(_))));
    }

    #[test]
    fn a_password_in_a_url_may_hold_anything() {
        for (text, decoded) in
            [("plain", "plain"), ("a%20b%2Fc", "a b/c"), ("%", "%"), ("%4", "%4"), ("%zz%C3%A9", "%zzé")]
        {
            assert_eq!(percent_decoded(text), decoded);
        }
    }

    #[test]
    fn the_client_is_given_no_password() {
        let server: ServerAddr = "nats://user:a%20secret@host.example:4223".parse().unwrap();
        let given = without_user(server).unwrap();
        assert!(!format!("{given:?}").contains("secret") && given.username().is_none());
        assert_eq!((given.host(), given.port()), ("host.example", 4223));
    }

    #[test]
    fn tries_are_spread_and_never_far_apart() {
        for attempts in [0, 1, 5, 60, usize::MAX] {
            let delay = reconnect_delay(attempts);
            assert!(delay >= Duration::from_millis(RECONNECT_MIN_MS / 2), "{delay:?}");
            assert!(delay <= Duration::from_millis(RECONNECT_MAX_MS), "{delay:?}");
        }
    }
}
