//! The machine: connections in, frames passed on.
//!
//! Invariant: a frame goes to members of its room only; whoever is closed is out of all rooms in the same step, and the
//! others are told; every refusal is named to the one who asked. Timers are lazy: a connection has one entry, which
//! is looked at when it fires, so that a message costs no timer work. Spec: docs/protocol.md.

mod fabric;
mod handshake;
mod passing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::id::RoomId;
use weft_protocol::limits::{JOIN_COST_MESSAGES, RATE_DEBT_MS_MAX};

use crate::checked::{CheckedFrame, Proofs};
use crate::connection::{Connection, RoomSet, Stage};
use crate::draw::Draws;
use crate::fabric::NodeId;
use crate::io::{ConnId, Input, Output};
use crate::lists::Lists;
use crate::marks::Marks;
use crate::room::Rooms;
use crate::settings::Settings;

/// Closes of a drain go out at this many moments.
const DRAIN_WAVES: u64 = 8;

/// Said to those whom the operator's lists leave out.
const NOT_ON_LISTS: &str = "the operator of this relay does not, or no longer, let this DID in: ask them why";

/// Counts for people and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections now.
    pub connections: usize,
    /// Rooms with somebody in them.
    pub rooms: usize,
    /// Frames taken in since the start.
    pub received: u64,
    /// Frames handed out for passing on, one a receiver.
    pub delivered: u64,
    /// Clients closed because they read too slowly.
    pub resyncs: u64,
    /// Refusals named to a client.
    pub refused: u64,
    /// Gaps seen in what other relays sent.
    pub gaps: u64,
    /// What came over the fabric and was no message.
    pub fabric_garbage: u64,
    /// Rooms subscribed to at other relays now.
    pub fabric_rooms: usize,
    /// Peers at other relays now.
    pub fabric_peers: usize,
    /// Whether other relays can be reached now.
    pub fabric_up: bool,
}

/// A room as an operator may see it: no id, only a mark that means nothing outside of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomView {
    /// Tells rooms apart.
    pub mark: String,
    /// Who is in it here.
    pub peers: Vec<PeerView>,
    /// How many are in it at other relays.
    pub elsewhere: usize,
}

/// A connection in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Its number.
    pub conn: ConnId,
    /// Tells DIDs apart.
    pub mark: String,
    /// What waits for it, overhead included.
    pub queue_bytes: usize,
    /// Frames that wait for it.
    pub queue_frames: usize,
}

/// A relay without sockets.
pub struct Relay {
    settings: Settings,
    draws: Draws,
    connections: BTreeMap<ConnId, Connection>,
    rooms: Rooms,
    lists: Arc<Lists>,
    timers: BTreeSet<(u64, ConnId)>,
    outputs: VecDeque<Output>,
    /// Closed within the current input; their rooms are left one after another, not in recursion.
    leaving: VecDeque<(ConnId, RoomSet)>,
    draining: bool,
    figures: Figures,
    fabric: Option<fabric::Fabric>,
    /// The time of the current input.
    now_ms: u64,
    marks: Marks,
}

impl Relay {
    /// A relay with nobody in it. `seed` must be unpredictable to clients: nonces come from it.
    #[must_use]
    pub fn new(settings: Settings, seed: [u8; 32]) -> Self {
        let mut draws = Draws::new(seed);
        let marks = Marks::new(draws.bytes());
        let mut node = [0; 8];
        node.iter_mut().zip(draws.half()).for_each(|(to, from)| *to = from);
        Self {
            fabric: settings.several_relays.then(|| fabric::Fabric::new(NodeId(node))),
            now_ms: 0,
            marks,
            settings,
            draws,
            connections: BTreeMap::new(),
            rooms: Rooms::default(),
            lists: Arc::default(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            leaving: VecDeque::new(),
            draining: false,
            figures: Figures::default(),
        }
    }

    /// Takes one input at `now_ms`, milliseconds of a monotonic clock. What concerns a connection that is gone is ignored.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        self.now_ms = now_ms;
        match input {
            Input::ConnectionOpened { conn, admission, token } => self.opened(now_ms, conn, admission, token),
            Input::FrameReceived { conn, frame } => self.received(now_ms, conn, frame),
            Input::Unreadable { conn, code } => {
                if self.connections.contains_key(&conn) {
                    let message = if code == Code::Idle {
                        "a message did not come in time: send it whole, or not at all"
                    } else {
                        "send one frame a binary message, within the frame limit"
                    };
                    self.refuse(conn, code, None, message);
                    self.close(conn, code, false);
                }
            }
            Input::Alive { conn } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.seen(now_ms);
                }
            }
            Input::ControlReceived { conn, bytes } => self.control(now_ms, conn, bytes),
            Input::ConnectionClosed { conn } => self.forget(conn),
            Input::QueueDrained { conn, bytes, frames } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.queue.drained(bytes, frames);
                }
            }
            Input::TokenVerified { conn, result } => self.token_verified(now_ms, conn, result),
            Input::ListsChanged { lists } => self.lists_changed(lists),
            Input::Kick { conn } => {
                if self.connections.contains_key(&conn) {
                    self.refuse(conn, Code::NotAllowed, None, "the operator of this relay closed this connection");
                }
            }
            Input::FabricUp => self.fabric_up(),
            Input::FabricDown => self.fabric_down(),
            Input::Subscribed { room } => self.subscribed(room),
            Input::FabricReceived { room, message } => self.fabric_received(room, &message),
            Input::Wake => {
                self.wake(now_ms);
                self.wake_fabric();
            }
            Input::Drain => self.drain(now_ms),
        }
        self.settle();
    }

    /// The next thing to do; drain to `None` before the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `Input::Wake` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let connections = self.timers.first().map(|(at_ms, _)| *at_ms);
        let rooms = self.fabric.as_ref().and_then(fabric::Fabric::next_ms);
        connections.into_iter().chain(rooms).min()
    }

    /// Counts at this moment.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let fabric = self.fabric.as_ref();
        Figures {
            connections: self.connections.len(),
            rooms: self.rooms.len(),
            fabric_rooms: fabric.map_or(0, fabric::Fabric::rooms),
            fabric_peers: fabric.map_or(0, fabric::Fabric::peers),
            fabric_up: fabric.is_some_and(fabric::Fabric::is_up),
            ..self.figures
        }
    }

    /// Whether a drain was asked for.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Bytes that wait for all clients, and for the slowest.
    #[must_use]
    pub fn queues(&self) -> (usize, usize) {
        let bytes = self.connections.values().map(|connection| connection.queue.bytes());
        bytes.fold((0, 0), |(all, most), bytes| (all + bytes, most.max(bytes)))
    }

    /// The connections of a DID, by its hash.
    #[must_use]
    pub fn of_identity(&self, identity: &[u8; 32]) -> Vec<ConnId> {
        let ours = self.connections.iter().filter(|(_, connection)| connection.admission.identity == *identity);
        ours.map(|(conn, _)| *conn).collect()
    }

    /// The connections of a DID, by the mark that [`Relay::rooms`] shows.
    #[must_use]
    pub fn of_mark(&self, mark: &str) -> Vec<ConnId> {
        let same = |connection: &Connection| self.marks.did(&connection.admission.identity) == mark;
        self.connections.iter().filter(|(_, connection)| same(connection)).map(|(conn, _)| *conn).collect()
    }

    /// What makes marks here.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// Some of the rooms, for an operator.
    #[must_use]
    pub fn rooms(&self, skip: usize, count: usize) -> Vec<RoomView> {
        let rooms = self.rooms.iter().skip(skip).take(count);
        rooms
            .map(|(room, members)| {
                let peers = members.iter().map(|member| {
                    let (queue_bytes, queue_frames) = self.queued(member.conn).unwrap_or_default();
                    PeerView { conn: member.conn, mark: self.marks.did(&member.identity), queue_bytes, queue_frames }
                });
                let elsewhere = self.fabric.as_ref().map_or(0, |fabric| fabric.elsewhere(room).len());
                RoomView { mark: self.marks.room(room), peers: peers.collect(), elsewhere }
            })
            .collect()
    }

    /// What the frames of a connection are to be checked with, from `ConnectionOpened` until `Prove`.
    #[must_use]
    pub fn proofs(&self, conn: ConnId) -> Option<Proofs> {
        let connection = self.connections.get(&conn)?;
        let Stage::Proving { token, .. } = &connection.stage else { return None };
        let admission = connection.admission.clone();
        Some(Proofs { admission, nonce: connection.nonce, token: token.clone() })
    }

    /// The account of one client's queue, in bytes and frames.
    #[must_use]
    pub fn queued(&self, conn: ConnId) -> Option<(usize, usize)> {
        self.connections.get(&conn).map(|c| (c.queue.bytes(), c.queue.frames()))
    }

    fn received(&mut self, now_ms: u64, conn: ConnId, frame: CheckedFrame) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.seen(now_ms);
        self.figures.received += 1;
        let CheckedFrame { len, decoded } = frame;
        let cost = if matches!(decoded, Ok((ClientFrame::Join { .. }, _))) { JOIN_COST_MESSAGES } else { 1 };
        let rest_ms = connection.charge(now_ms, cost, len, &self.settings);
        if rest_ms > 0 {
            self.outputs.push_back(Output::Pause { conn, until_ms: now_ms.saturating_add(rest_ms) });
        }
        if rest_ms > RATE_DEBT_MS_MAX {
            let message = "too many messages or bytes a second: wait, then send again";
            return self.refuse_with(conn, Code::RateLimited, None, message, Some(rest_ms));
        }
        let proving = matches!(connection.stage, Stage::Proving { .. });
        match decoded {
            Err(error) => self.refuse(conn, error.code(), None, &error.to_string()),
            Ok((ClientFrame::Prove { .. }, verdict)) if proving => self.prove(now_ms, conn, verdict),
            Ok(_) if proving => self.refuse(conn, Code::Malformed, None, "answer Challenge with Prove first"),
            Ok((frame, verdict)) => self.frame(conn, frame, verdict),
        }
    }

    /// A flood of pings costs the relay a wake-up and an answer each, as a flood of frames does.
    fn control(&mut self, now_ms: u64, conn: ConnId, bytes: usize) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.seen(now_ms);
        let rest_ms = connection.charge(now_ms, 1, bytes, &self.settings);
        if rest_ms > 0 {
            self.outputs.push_back(Output::Pause { conn, until_ms: now_ms.saturating_add(rest_ms) });
        }
    }

    /// Takes new lists, and closes those whom they leave out.
    fn lists_changed(&mut self, lists: Arc<Lists>) {
        self.lists = lists;
        let out = self.connections.iter().filter(|(_, connection)| !self.lists.admit(&connection.admission.identity));
        let out: Vec<ConnId> = out.map(|(conn, _)| *conn).collect();
        for conn in out {
            self.refuse(conn, Code::NotAllowed, None, NOT_ON_LISTS);
        }
    }

    fn wake(&mut self, now_ms: u64) {
        while let Some(&(at_ms, conn)) = self.timers.first().filter(|(at_ms, _)| *at_ms <= now_ms) {
            let Some(connection) = self.connections.get_mut(&conn) else {
                self.timers.remove(&(at_ms, conn));
                continue;
            };
            let due_ms = connection.deadline_ms(&self.settings);
            if due_ms > now_ms {
                self.reschedule(conn);
                continue;
            }
            let (code, message) = match &connection.stage {
                _ if connection.close_at_ms.is_some_and(|at_ms| at_ms <= now_ms) => {
                    self.close(conn, Code::Draining, false);
                    continue;
                }
                Stage::Proving { .. } => (Code::HandshakeTimeout, "Prove did not come in time"),
                Stage::Open { session_ends_ms } if *session_ends_ms <= now_ms => {
                    (Code::SessionExpired, "the session was not renewed: connect again with a new token")
                }
                Stage::Open { .. } => (Code::Idle, "nothing was heard for too long: send Ping when idle"),
            };
            self.refuse(conn, code, None, message);
        }
    }

    fn drain(&mut self, now_ms: u64) {
        if self.draining {
            return;
        }
        self.draining = true;
        let conns: Vec<ConnId> = self.connections.keys().copied().collect();
        for conn in conns {
            let after_ms = self.draws.below(self.settings.restart_spread_ms) + 1;
            let wave = self.draws.below(DRAIN_WAVES) + 1;
            if let Some(connection) = self.connections.get_mut(&conn) {
                connection.close_at_ms = Some(now_ms.saturating_add(self.settings.drain_ms * wave / DRAIN_WAVES));
            }
            self.reschedule(conn);
            self.send(conn, ServerFrame::Restarting { after_ms }.encode());
        }
    }

    /// Puts a connection's one timer where its next deadline is.
    fn reschedule(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        self.timers.remove(&(connection.timer_ms, conn));
        connection.timer_ms = connection.deadline_ms(&self.settings);
        self.timers.insert((connection.timer_ms, conn));
    }

    /// Counts a frame against the client's queue; past the bound the client is closed instead.
    fn account(&mut self, conn: ConnId, len: usize) -> bool {
        let (bytes_max, frames_max) = (self.settings.queue_bytes_max, self.settings.queue_frames_max);
        let Some(connection) = self.connections.get_mut(&conn) else { return false };
        if connection.queue.push(len, bytes_max, frames_max) {
            return true;
        }
        let identity = connection.admission.identity;
        self.outputs.push_back(Output::Refused { conn, identity, code: Code::Resync });
        self.figures.resyncs += 1;
        self.close(conn, Code::Resync, true);
        false
    }

    fn send(&mut self, conn: ConnId, frame: Bytes) {
        if self.account(conn, frame.len()) {
            self.outputs.push_back(Output::Send { conn, frame });
        }
    }

    fn fan_out(&mut self, frame: Bytes, mut conns: Vec<ConnId>) {
        conns.retain(|&conn| self.account(conn, frame.len()));
        if !conns.is_empty() {
            self.outputs.push_back(Output::FanOut { frame, conns });
        }
    }

    fn refuse(&mut self, conn: ConnId, code: Code, room: Option<RoomId>, message: &str) {
        self.refuse_with(conn, code, room, message, None);
    }

    /// Names a refusal to a client, and closes it if the code says so.
    fn refuse_with(&mut self, conn: ConnId, code: Code, room: Option<RoomId>, message: &str, retry: Option<u64>) {
        self.figures.refused += 1;
        if let Some(connection) = self.connections.get(&conn) {
            let identity = connection.admission.identity;
            self.outputs.push_back(Output::Refused { conn, identity, code });
        }
        let message = message.to_owned();
        self.send(conn, ServerFrame::Error { code, room, message, retry_after_ms: retry }.encode());
        if code.ends_connection() {
            self.close(conn, code, false);
        }
    }

    fn close(&mut self, conn: ConnId, code: Code, discard_queue: bool) {
        if self.connections.contains_key(&conn) {
            self.outputs.push_back(Output::Close { conn, code, discard_queue });
            self.forget(conn);
        }
    }

    fn forget(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.remove(&conn) {
            self.timers.remove(&(connection.timer_ms, conn));
            self.leaving.push_back((conn, connection.rooms));
        }
    }

    /// Takes those who were closed out of their rooms. Telling the others can close one of them; each time one fewer is
    /// left, so it ends.
    fn settle(&mut self) {
        while let Some((conn, rooms)) = self.leaving.pop_front() {
            for room in rooms {
                self.leave_room(conn, room);
            }
        }
    }
}
