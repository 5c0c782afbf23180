//! The one machine of this process, and everybody's mailbox.
//!
//! Invariant: outputs go into mailboxes in the order the machine gave them, under the machine's lock; nothing is written
//! to a socket under it. Why one lock: a message costs about a microsecond in the machine, writing to its receivers many
//! times that, and order between rooms comes for free.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_relay_core::{Admission, ConnId, Figures, Input, Marks, Output, Proofs, Relay, RoomView, Settings};

use crate::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::nats::{Command, FabricQueue};
use crate::refusals::{Refusals, Refused};

pub(crate) struct Hub {
    state: Mutex<State>,
    started: Instant,
    /// The next deadline moved forward.
    sooner: Notify,
    settings: Settings,
    metrics: Arc<Metrics>,
    fabric: Option<FabricQueue>,
    marks: Marks,
    refusals: Arc<Refusals>,
}

/// What metrics show of one moment.
pub(crate) struct Snapshot {
    pub(crate) figures: Figures,
    pub(crate) queue_bytes: usize,
    pub(crate) queue_bytes_largest: usize,
    pub(crate) draining: bool,
}

struct State {
    relay: Relay,
    clients: HashMap<ConnId, Client>,
    next: u64,
}

/// One connection, beside what the machine knows of it.
struct Client {
    mailbox: Arc<Mailbox>,
    /// Its address, behind proxies.
    ip: IpAddr,
}

impl Hub {
    pub(crate) fn new(settings: Settings, seed: [u8; 32], metrics: Arc<Metrics>, fabric: Option<FabricQueue>) -> Self {
        let relay = Relay::new(settings.clone(), seed);
        let marks = relay.marks();
        let refusals = Arc::new(Refusals::new(metrics.clone(), marks));
        let state = Mutex::new(State { relay, clients: HashMap::new(), next: 0 });
        Self { state, started: Instant::now(), sooner: Notify::new(), settings, metrics, fabric, marks, refusals }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The moment of the machine's clock.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }

    /// Enters a connection; its challenge lies in the mailbox already. Without proofs it was turned away at once.
    pub(crate) fn open(
        &self,
        ip: IpAddr,
        admission: Admission,
        token: String,
    ) -> (ConnId, Arc<Mailbox>, Option<Proofs>) {
        let mailbox = Arc::new(Mailbox::default());
        let mut state = self.state();
        let conn = ConnId(state.next);
        state.next += 1;
        state.clients.insert(conn, Client { mailbox: mailbox.clone(), ip });
        self.step(&mut state, Input::ConnectionOpened { conn, admission, token });
        let proofs = state.relay.proofs(conn);
        (conn, mailbox, proofs)
    }

    /// The connection's task is at its end.
    pub(crate) fn gone(&self, conn: ConnId) {
        let mut state = self.state();
        state.clients.remove(&conn);
        self.step(&mut state, Input::ConnectionClosed { conn });
    }

    pub(crate) fn input(&self, input: Input) {
        self.step(&mut self.state(), input);
    }

    fn step(&self, state: &mut State, input: Input) {
        let before = state.relay.poll_timeout();
        state.relay.handle(self.now_ms(), input);
        while let Some(output) = state.relay.poll_output() {
            self.deliver(&state.clients, output);
        }
        let after = state.relay.poll_timeout();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.sooner.notify_one();
        }
    }

    /// Wakes the machine at its deadlines, until cancelled.
    pub(crate) async fn keep_time(&self, stop: CancellationToken) {
        loop {
            let due = self.state().relay.poll_timeout();
            let sleep = async {
                match due {
                    Some(at_ms) => tokio::time::sleep_until(self.instant(at_ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.sooner.notified() => {}
                () = sleep => self.input(Input::Wake),
            }
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        self.state().relay.figures()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state().relay.is_draining()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn marks(&self) -> Marks {
        self.marks
    }

    pub(crate) fn refusals(&self) -> Arc<Refusals> {
        self.refusals.clone()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let (queue_bytes, queue_bytes_largest) = state.relay.queues();
        let (figures, draining) = (state.relay.figures(), state.relay.is_draining());
        Snapshot { figures, queue_bytes, queue_bytes_largest, draining }
    }

    /// How many rooms there are, and some of them.
    pub(crate) fn rooms(&self, skip: usize, count: usize) -> (usize, Vec<RoomView>) {
        let state = self.state();
        (state.relay.figures().rooms, state.relay.rooms(skip, count))
    }

    /// Closes a connection; how many that were.
    pub(crate) fn kick(&self, conn: ConnId) -> usize {
        let mut state = self.state();
        let known = usize::from(state.clients.contains_key(&conn));
        self.step(&mut state, Input::Kick { conn });
        known
    }

    /// Closes all connections of a DID; how many those were.
    pub(crate) fn kick_identity(&self, identity: [u8; 32]) -> usize {
        let mut state = self.state();
        let conns = state.relay.of_identity(&identity);
        for &conn in &conns {
            self.step(&mut state, Input::Kick { conn });
        }
        conns.len()
    }

    /// Closes all connections of a DID that is known by its mark; how many those were.
    pub(crate) fn kick_mark(&self, mark: &str) -> usize {
        let mut state = self.state();
        let conns = state.relay.of_mark(mark);
        for &conn in &conns {
            self.step(&mut state, Input::Kick { conn });
        }
        conns.len()
    }

    /// Closes the connections from addresses that may not be here.
    pub(crate) fn kick_addresses(&self, refused: impl Fn(IpAddr) -> bool) {
        // Looked at outside of the lock: lists may be long.
        let all: Vec<_> = self.state().clients.iter().map(|(conn, client)| (*conn, client.ip)).collect();
        for (conn, _) in all.into_iter().filter(|(_, ip)| refused(*ip)) {
            self.kick(conn);
        }
    }

    fn deliver(&self, clients: &HashMap<ConnId, Client>, output: Output) {
        let to = |conn: ConnId| clients.get(&conn).map(|client| &client.mailbox);
        match output {
            Output::Send { conn, frame } => {
                if let Some(mailbox) = to(conn) {
                    mailbox.push(frame);
                }
            }
            Output::FanOut { frame, conns } => {
                for mailbox in conns.into_iter().filter_map(to) {
                    mailbox.push(frame.clone());
                }
            }
            Output::Pause { conn, until_ms } => {
                if let Some(mailbox) = to(conn) {
                    mailbox.pause(until_ms);
                }
            }
            Output::VerifyToken { conn, token } => {
                if let Some(mailbox) = to(conn) {
                    mailbox.verify(token);
                }
            }
            Output::Subscribe { room } => self.fabric.iter().for_each(|fabric| fabric.push(Command::Subscribe(room))),
            Output::Unsubscribe { room } => {
                self.fabric.iter().for_each(|fabric| fabric.push(Command::Unsubscribe(room)))
            }
            Output::FabricSend { room, message } => {
                if self.fabric.as_ref().is_some_and(|fabric| !fabric.send(room, message)) {
                    self.metrics.fabric_dropped();
                }
            }
            Output::Refused { conn, identity, code } => {
                let refused =
                    Refused { what: "frame", conn: Some(conn), identity: Some(identity), ..Refused::default() };
                self.refusals.frame(code, refused, self.now_ms());
            }
            Output::Close { conn, code, discard_queue } => {
                self.metrics.closed(code);
                tracing::debug!(conn = conn.0, %code, "closing");
                if let Some(mailbox) = to(conn) {
                    mailbox.close(code, discard_queue);
                }
            }
        }
    }
}
