//! Reading a client no faster than there is room for what it sends.
//!
//! Before the payload of a large message is read, its whole room is taken from what all connections share; until there is
//! some the socket is not read, so the bytes stay with their sender. Small messages cost nothing here.
//!
//! Invariant: what was taken is given back, when the message is whole or when its connection ends. Whoever waits looks again
//! by a timer, ever more slowly, so that nobody has to be told and a thousand who wait cost little.
//! Spec: docs/protocol.md#unfinished-messages.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};
use weft_protocol::code::Code;
use weft_protocol::limits::MESSAGE_MS_MAX;
use weft_relay_core::meter::Meter;
use weft_relay_core::unfinished::{Owner, Unfinished};

/// How soon somebody who waits for room looks again, at first and at last.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(10);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(500);

/// Room for unfinished messages, shared by all connections.
pub(crate) struct Room(Mutex<Unfinished>);

impl Room {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Mutex::new(Unfinished::new(bytes_max)))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Unfinished) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes taken now.
    pub(crate) fn used(&self) -> usize {
        self.with(|unfinished| unfinished.used())
    }
}

/// What one connection has under way.
pub(crate) struct Reading {
    room: Arc<Room>,
    owner: Owner,
    meter: Meter,
    held: usize,
    /// When the message under way got its room.
    since: Instant,
    message: u64,
    waiting: Option<Waiting>,
}

struct Waiting {
    again: Pin<Box<Sleep>>,
    pause: Duration,
}

impl Reading {
    pub(crate) fn new(room: Arc<Room>, identity: [u8; 32], ip: IpAddr) -> Self {
        let (owner, since) = (Owner::new(identity, ip), Instant::now());
        Self { room, owner, meter: Meter::default(), held: 0, since, message: 0, waiting: None }
    }

    /// Ready once there is room for the message under way.
    ///
    /// # Errors
    /// If it is one that may not be; [`Reading::fault`] says why.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.meter.fault().is_some() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        loop {
            let more = self.meter.room().saturating_sub(self.held);
            if more == 0 || self.room.with(|unfinished| unfinished.take(&self.owner, more)) {
                self.held += more;
                if more > 0 {
                    self.since = Instant::now();
                }
                self.waiting = None;
                return Poll::Ready(Ok(()));
            }
            let waiting = self
                .waiting
                .get_or_insert_with(|| Waiting { again: Box::pin(sleep(LOOK_AGAIN_MIN)), pause: LOOK_AGAIN_MIN });
            ready!(waiting.again.as_mut().poll(cx));
            waiting.pause = (waiting.pause * 2).min(LOOK_AGAIN_MAX);
            waiting.again.as_mut().reset(Instant::now() + waiting.pause);
        }
    }

    /// These bytes were read.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        self.meter.pass(bytes);
        if self.meter.messages() != self.message {
            (self.message, self.since) = (self.meter.messages(), Instant::now());
        }
        let less = self.held.saturating_sub(self.meter.room());
        if less > 0 {
            self.held -= less;
            self.room.with(|unfinished| unfinished.give(&self.owner, less));
        }
    }

    /// Why the message under way may not be.
    pub(crate) fn fault(&self) -> Option<Code> {
        self.meter.fault()
    }

    /// Whether a message holds its room for longer than it may.
    pub(crate) fn is_overdue(&self) -> bool {
        self.held > 0 && self.since.elapsed() >= Duration::from_millis(MESSAGE_MS_MAX)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.held > 0 {
            self.room.with(|unfinished| unfinished.give(&self.owner, self.held));
        }
    }
}
