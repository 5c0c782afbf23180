//! Rooms that span several relays: subscribing before a join is answered, saying who is here, hearing the others.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use weft_protocol::code::Code;
use weft_protocol::frame::{Peer, PeerId, ServerFrame, deliver};
use weft_protocol::id::RoomId;

use super::Relay;
use crate::fabric::{Body, LINGER_MS, Link, Message, NodeId, RESYNC_EVERY_MS, RemotePeer, SUBSCRIBE_MS_MAX};
use crate::io::{ConnId, Output};
use crate::room::Member;

/// Two connections of one device that came in at two relays within this time are told apart by name, not by time.
const TIE_MS: u64 = 2_000;

/// What this relay has to do with the others.
pub(super) struct Fabric {
    node: NodeId,
    up: bool,
    lives: u32,
    rooms: BTreeMap<RoomId, Tied>,
    timers: BTreeSet<(u64, RoomId)>,
}

/// One room of ours.
struct Tied {
    link: Link,
    subscribed: bool,
    /// Joins that wait for the subscription, until the moment given.
    waiting: Vec<ConnId>,
    waiting_until_ms: Option<u64>,
    /// Empty since; the subscription is dropped then.
    linger_until_ms: Option<u64>,
    resync_at_ms: Option<u64>,
    resynced_ms: Option<u64>,
    timer_ms: u64,
}

impl Fabric {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, up: false, lives: 0, rooms: BTreeMap::new(), timers: BTreeSet::new() }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        self.timers.first().map(|(at_ms, _)| *at_ms)
    }

    pub(super) fn rooms(&self) -> usize {
        self.rooms.len()
    }

    pub(super) fn elsewhere(&self, room: &RoomId) -> Vec<Peer> {
        self.rooms.get(room).map(|tied| tied.link.elsewhere().collect()).unwrap_or_default()
    }

    pub(super) fn peers(&self) -> usize {
        self.rooms.values().map(|tied| tied.link.elsewhere().count()).sum()
    }

    fn reschedule(&mut self, room: RoomId) {
        let Some(tied) = self.rooms.get_mut(&room) else { return };
        self.timers.remove(&(tied.timer_ms, room));
        let others = [tied.waiting_until_ms, tied.linger_until_ms, tied.resync_at_ms, tied.link.expires_ms()];
        tied.timer_ms = others.into_iter().flatten().fold(tied.link.beat_at_ms(), u64::min);
        self.timers.insert((tied.timer_ms, room));
    }
}

fn remote(member: &Member) -> RemotePeer {
    RemotePeer { peer: member.peer, identity: half(&member.identity) }
}

fn half(identity: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(identity).for_each(|(to, from)| *to = *from);
    half
}

impl Relay {
    /// Whether a join has to wait for the subscription; it is remembered then.
    pub(super) fn waits_for_fabric(&mut self, conn: ConnId, room: RoomId) -> bool {
        let now_ms = self.now_ms;
        let Some(fabric) = &mut self.fabric else { return false };
        if !fabric.rooms.contains_key(&room) {
            fabric.lives = fabric.lives.saturating_add(1);
            let tied = Tied {
                link: Link::new(fabric.node, fabric.lives, now_ms),
                subscribed: false,
                waiting: Vec::new(),
                waiting_until_ms: None,
                linger_until_ms: None,
                resync_at_ms: None,
                resynced_ms: None,
                timer_ms: now_ms,
            };
            fabric.rooms.insert(room, tied);
            self.outputs.push_back(Output::Subscribe { room });
        }
        let up = fabric.up;
        let Some(tied) = fabric.rooms.get_mut(&room) else { return false };
        tied.linger_until_ms = None;
        let waits = up && !tied.subscribed && (tied.waiting.is_empty() || tied.waiting_until_ms.is_some());
        if waits {
            if !tied.waiting.contains(&conn) {
                tied.waiting.push(conn);
            }
            tied.waiting_until_ms.get_or_insert(now_ms + SUBSCRIBE_MS_MAX);
        }
        fabric.reschedule(room);
        waits
    }

    /// Lets those in who waited, if they still want to.
    fn admit_waiting(&mut self, room: RoomId) {
        let Some(tied) = self.fabric.as_mut().and_then(|fabric| fabric.rooms.get_mut(&room)) else { return };
        tied.waiting_until_ms = None;
        for conn in core::mem::take(&mut tied.waiting) {
            if self.connections.get(&conn).is_some_and(|connection| connection.rooms.contains(&room)) {
                self.enter(conn, room);
            }
        }
        self.look_for_emptiness(room);
    }

    /// A room that nobody is in lingers, then its subscription is dropped.
    pub(super) fn look_for_emptiness(&mut self, room: RoomId) {
        let empty = self.rooms.members(&room).is_empty();
        let now_ms = self.now_ms;
        let Some(fabric) = &mut self.fabric else { return };
        if let Some(tied) = fabric.rooms.get_mut(&room) {
            if empty && tied.waiting.is_empty() {
                tied.linger_until_ms.get_or_insert(now_ms + LINGER_MS);
            }
            fabric.reschedule(room);
        }
    }

    /// Tells the other relays who is here.
    pub(super) fn announce(&mut self, room: RoomId, entered: Option<PeerId>, hello: bool) {
        let now_ms = self.now_ms;
        let Some(fabric) = self.fabric.as_mut().filter(|fabric| fabric.up) else { return };
        let Some(tied) = fabric.rooms.get_mut(&room).filter(|tied| tied.subscribed) else { return };
        let peers = self.rooms.members(&room).iter().map(remote).collect();
        let message = tied.link.peers(now_ms, peers, entered, hello).encode();
        self.outputs.push_back(Output::FabricSend { room, message });
        fabric.reschedule(room);
    }

    /// Passes a frame on to the other relays; for all, or for one peer that is known to be elsewhere.
    pub(super) fn send_elsewhere(&mut self, room: RoomId, from: PeerId, to: Option<PeerId>, payload: &Bytes) -> bool {
        let now_ms = self.now_ms;
        let Some(fabric) = self.fabric.as_mut().filter(|fabric| fabric.up) else { return false };
        let Some(tied) = fabric.rooms.get_mut(&room) else { return false };
        if to.is_some_and(|to| !tied.link.elsewhere().any(|peer| peer.peer == to)) {
            return false;
        }
        let Some(message) = tied.link.frame(now_ms, Body::Frame { from, to, payload: payload.clone() }) else {
            return false;
        };
        self.outputs.push_back(Output::FabricSend { room, message: message.encode() });
        // The beat came nearer; the timer is moved only then.
        if tied.link.beat_at_ms() < tied.timer_ms {
            fabric.reschedule(room);
        }
        true
    }

    pub(super) fn fabric_up(&mut self) {
        let Some(fabric) = self.fabric.as_mut().filter(|fabric| !fabric.up) else { return };
        fabric.up = true;
        let rooms: Vec<RoomId> =
            fabric.rooms.iter().filter(|(_, tied)| tied.subscribed).map(|(room, _)| *room).collect();
        for room in rooms {
            self.announce(room, None, true);
            self.resync(room);
        }
    }

    pub(super) fn fabric_down(&mut self) {
        let Some(fabric) = self.fabric.as_mut().filter(|fabric| fabric.up) else { return };
        fabric.up = false;
        let rooms: Vec<RoomId> = fabric.rooms.keys().copied().collect();
        for room in rooms {
            let tied = self.fabric.as_mut().and_then(|fabric| fabric.rooms.get_mut(&room));
            let left = tied.map(|tied| tied.link.cut()).unwrap_or_default();
            self.admit_waiting(room);
            self.tell_left(room, left);
        }
    }

    pub(super) fn subscribed(&mut self, room: RoomId) {
        let Some(tied) = self.fabric.as_mut().and_then(|fabric| fabric.rooms.get_mut(&room)) else { return };
        tied.subscribed = true;
        let late = tied.waiting_until_ms.is_none();
        self.announce(room, None, true);
        self.admit_waiting(room);
        if late {
            // Members came in without the others; what those said meanwhile was not heard.
            self.resync(room);
        }
    }

    pub(super) fn fabric_received(&mut self, room: RoomId, message: &Bytes) {
        let (now_ms, peers_max) = (self.now_ms, self.settings.room_peers_max);
        let Some(tied) = self.fabric.as_mut().and_then(|fabric| fabric.rooms.get_mut(&room)) else { return };
        let message = match Message::decode(message) {
            Ok(message) => message,
            Err(_) => {
                self.figures.fabric_garbage += 1;
                return;
            }
        };
        let told = tied.link.receive(now_ms, message, peers_max);
        self.tell_left(room, told.left);
        for peer in told.joined {
            let here = self.conns(&room);
            self.fan_out(ServerFrame::PeerJoined { room, peer }.encode(), here);
        }
        if let Some(entered) = told.entered {
            self.yield_place(room, &entered);
        }
        if let Some(Body::Frame { from, to, payload }) = told.frame {
            let to = match to {
                None => self.conns(&room),
                Some(to) => self.rooms.members(&room).iter().filter(|m| m.peer.peer == to).map(|m| m.conn).collect(),
            };
            if !to.is_empty() {
                self.figures.delivered += to.len() as u64;
                self.fan_out(deliver(&room, &from, &payload), to);
            }
        }
        if told.gap {
            self.figures.gaps += 1;
            self.resync(room);
        }
        if told.answer {
            self.announce(room, None, false);
        } else if let Some(fabric) = &mut self.fabric {
            let earlier = fabric.rooms.get(&room).is_some_and(|tied| tied.link.expires_ms() < Some(tied.timer_ms));
            if earlier {
                fabric.reschedule(room);
            }
        }
    }

    /// The newest connection of a device wins, wherever it came in.
    fn yield_place(&mut self, room: RoomId, entered: &RemotePeer) {
        let now_ms = self.now_ms;
        let same = |m: &&Member| half(&m.identity) == entered.identity && m.peer.device == entered.peer.device;
        let Some(old) = self.rooms.members(&room).iter().find(same).copied() else { return };
        if now_ms < old.since_ms + TIE_MS && old.peer.peer > entered.peer.peer {
            return;
        }
        if let Some(connection) = self.connections.get_mut(&old.conn) {
            connection.rooms.remove(&room);
        }
        let message = "a newer connection of this device took the place in the room";
        self.refuse(old.conn, Code::Replaced, Some(room), message);
        self.leave_room(old.conn, room);
    }

    fn conns(&self, room: &RoomId) -> Vec<ConnId> {
        self.rooms.members(room).iter().map(|m| m.conn).collect()
    }

    fn tell_left(&mut self, room: RoomId, left: Vec<PeerId>) {
        for peer in left {
            let here = self.conns(&room);
            self.fan_out(ServerFrame::PeerLeft { room, peer }.encode(), here);
        }
    }

    /// Tells the members here to reconcile, now or, if they were told a moment ago, soon.
    fn resync(&mut self, room: RoomId) {
        let now_ms = self.now_ms;
        let Some(fabric) = &mut self.fabric else { return };
        let Some(tied) = fabric.rooms.get_mut(&room) else { return };
        let free_ms = tied.resynced_ms.map_or(0, |at_ms| at_ms + RESYNC_EVERY_MS);
        if now_ms < free_ms {
            tied.resync_at_ms = Some(free_ms);
            return fabric.reschedule(room);
        }
        (tied.resync_at_ms, tied.resynced_ms) = (None, Some(now_ms));
        let here = self.conns(&room);
        self.fan_out(ServerFrame::Resync { room }.encode(), here);
    }

    /// Whatever of the rooms is due.
    pub(super) fn wake_fabric(&mut self) {
        let now_ms = self.now_ms;
        loop {
            let Some(fabric) = &mut self.fabric else { return };
            let Some(&(at_ms, room)) = fabric.timers.first().filter(|(at_ms, _)| *at_ms <= now_ms) else { return };
            let Some(tied) = fabric.rooms.get_mut(&room) else {
                fabric.timers.remove(&(at_ms, room));
                continue;
            };
            let due = |at: Option<u64>| at.is_some_and(|at_ms| at_ms <= now_ms);
            if due(tied.linger_until_ms) {
                fabric.timers.remove(&(at_ms, room));
                fabric.rooms.remove(&room);
                self.outputs.push_back(Output::Unsubscribe { room });
                continue;
            }
            let left = tied.link.expire(now_ms);
            let (waiting, resync) = (due(tied.waiting_until_ms), due(tied.resync_at_ms));
            let beat = tied.link.beat_at_ms() <= now_ms;
            if beat && !(fabric.up && tied.subscribed) {
                tied.link.put_off(now_ms);
            }
            self.tell_left(room, left);
            if waiting {
                self.admit_waiting(room);
            }
            if resync {
                self.resync(room);
            }
            if beat {
                self.announce(room, None, false);
            }
            if let Some(fabric) = &mut self.fabric {
                fabric.reschedule(room);
            }
        }
    }
}
