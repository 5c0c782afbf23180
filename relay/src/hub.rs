//! The one machine of this process, and everybody's mailbox.
//!
//! Invariant: outputs go into mailboxes in the order the machine gave them, under the machine's lock; nothing is written
//! to a socket under it. Why one lock: a message costs about a microsecond in the machine, writing to its receivers many
//! times that, and order between rooms comes for free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_protocol::code::Code;
use weft_relay_core::{Admission, ConnId, Figures, Input, Output, Proofs, Relay, Settings};

use crate::mailbox::Mailbox;

pub(crate) struct Hub {
    state: Mutex<State>,
    started: Instant,
    /// The next deadline moved forward.
    sooner: Notify,
}

struct State {
    relay: Relay,
    mailboxes: HashMap<ConnId, Arc<Mailbox>>,
    next: u64,
}

impl Hub {
    pub(crate) fn new(settings: Settings, seed: [u8; 32]) -> Self {
        let state = State { relay: Relay::new(settings, seed), mailboxes: HashMap::new(), next: 0 };
        Self { state: Mutex::new(state), started: Instant::now(), sooner: Notify::new() }
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
    pub(crate) fn open(&self, admission: Admission, token: String) -> (ConnId, Arc<Mailbox>, Option<Proofs>) {
        let mailbox = Arc::new(Mailbox::default());
        let mut state = self.state();
        let conn = ConnId(state.next);
        state.next += 1;
        state.mailboxes.insert(conn, mailbox.clone());
        self.step(&mut state, Input::ConnectionOpened { conn, admission, token });
        let proofs = state.relay.proofs(conn);
        (conn, mailbox, proofs)
    }

    /// The connection's task is at its end.
    pub(crate) fn gone(&self, conn: ConnId) {
        let mut state = self.state();
        state.mailboxes.remove(&conn);
        self.step(&mut state, Input::ConnectionClosed { conn });
    }

    pub(crate) fn input(&self, input: Input) {
        self.step(&mut self.state(), input);
    }

    fn step(&self, state: &mut State, input: Input) {
        let before = state.relay.poll_timeout();
        state.relay.handle(self.now_ms(), input);
        while let Some(output) = state.relay.poll_output() {
            deliver(&state.mailboxes, output);
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
}

fn deliver(mailboxes: &HashMap<ConnId, Arc<Mailbox>>, output: Output) {
    let to = |conn: ConnId| mailboxes.get(&conn);
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
        Output::Close { conn, code, discard_queue } => {
            if code == Code::Resync {
                tracing::info!(conn = conn.0, "closing a client that reads too slowly");
            } else {
                tracing::debug!(conn = conn.0, %code, "closing");
            }
            if let Some(mailbox) = to(conn) {
                mailbox.close(code, discard_queue);
            }
        }
    }
}
