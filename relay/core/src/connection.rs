//! One connection's own state: handshake, session, deadlines, rates, queue.

use weft_protocol::id::RoomId;

use crate::bucket::{Bucket, Rate};
use crate::io::Admission;
use crate::queue::Queue;
use crate::settings::Settings;

/// How far a connection has come.
pub(crate) enum Stage {
    /// Challenged; only `Prove` is read. The token is dropped once it was proven.
    Proving { token: String, deadline_ms: u64 },
    /// Proven, until the session ends.
    Open { session_ends_ms: u64 },
}

/// The rooms of one connection, in order of their ids. Few, and mostly one: a tree's smallest node takes room for eleven.
#[derive(Default)]
pub(crate) struct RoomSet(Vec<RoomId>);

impl RoomSet {
    pub(crate) fn contains(&self, room: &RoomId) -> bool {
        self.0.binary_search(room).is_ok()
    }

    pub(crate) fn insert(&mut self, room: RoomId) {
        if let Err(at) = self.0.binary_search(&room) {
            self.0.reserve_exact(1);
            self.0.insert(at, room);
        }
    }

    /// Whether it was in.
    pub(crate) fn remove(&mut self, room: &RoomId) -> bool {
        let found = self.0.binary_search(room).map(|at| self.0.remove(at));
        found.is_ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl IntoIterator for RoomSet {
    type Item = RoomId;
    type IntoIter = std::vec::IntoIter<RoomId>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

pub(crate) struct Connection {
    pub(crate) admission: Admission,
    pub(crate) nonce: [u8; 32],
    pub(crate) stage: Stage,
    pub(crate) rooms: RoomSet,
    pub(crate) queue: Queue,
    /// A token is being verified; one at a time.
    pub(crate) refreshing: bool,
    last_seen_ms: u64,
    /// Set by a drain.
    pub(crate) close_at_ms: Option<u64>,
    /// What stands in the relay's timer set.
    pub(crate) timer_ms: u64,
    messages: Bucket,
    bytes: Bucket,
}

impl Connection {
    pub(crate) fn new(admission: Admission, nonce: [u8; 32], token: String, now_ms: u64, settings: &Settings) -> Self {
        let deadline_ms = now_ms.saturating_add(settings.handshake_ms_max);
        Self {
            admission,
            nonce,
            stage: Stage::Proving { token, deadline_ms },
            rooms: RoomSet::default(),
            queue: Queue::default(),
            refreshing: false,
            last_seen_ms: now_ms,
            close_at_ms: None,
            timer_ms: deadline_ms,
            messages: Bucket::default(),
            bytes: Bucket::default(),
        }
    }

    /// Any byte is life.
    pub(crate) fn seen(&mut self, now_ms: u64) {
        self.last_seen_ms = self.last_seen_ms.max(now_ms);
    }

    /// Charges a message; gives the milliseconds for which reading should rest.
    pub(crate) fn charge(&mut self, now_ms: u64, cost: u32, len: usize, settings: &Settings) -> u64 {
        let messages = Rate { per_second: settings.messages_per_second, burst: settings.messages_burst };
        let bytes = Rate { per_second: settings.bytes_per_second, burst: settings.bytes_burst };
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.messages.take(now_ms, messages, cost).max(self.bytes.take(now_ms, bytes, len))
    }

    /// When silence becomes too long.
    pub(crate) fn idle_at_ms(&self, settings: &Settings) -> u64 {
        self.last_seen_ms.saturating_add(settings.idle_ms_max)
    }

    /// The next moment at which something has to happen to this connection.
    pub(crate) fn deadline_ms(&self, settings: &Settings) -> u64 {
        let stage_ms = match &self.stage {
            Stage::Proving { deadline_ms, .. } => *deadline_ms,
            Stage::Open { session_ends_ms } => (*session_ends_ms).min(self.idle_at_ms(settings)),
        };
        stage_ms.min(self.close_at_ms.unwrap_or(u64::MAX))
    }
}
