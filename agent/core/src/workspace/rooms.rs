//! Entering and leaving rooms, and what comes out of them.
//!
//! Invariant: the rooms we are in on every link are exactly those that our keys and open invites call for.
//! Spec: docs/sync.md#rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::sign_room;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, Peer, PeerId};
use weft_protocol::id::RoomId;

use super::Workspace;
use super::input::{LinkId, LinkUp};
use super::links::{PEERS_MAX, Purpose, Room, Route};
use super::output::{Output, Rank};
use crate::envelope::{self, Draft, Kind, spoken_by};
use crate::epoch::{Epoch, RoomKey};
use crate::id::EpochId;
use crate::message::Message;
use crate::store::Tx;
use crate::time::Timestamp;

/// Epoch rooms listened to: the one sealed under and the last three before it.
const EPOCH_ROOMS_MAX: usize = 4;
/// Rooms of epochs whose key packet came and whose ops did not yet.
const UNPROVEN_ROOMS_MAX: usize = 2;
/// Rooms where those who were removed last may still look for us, to be told so.
const FORMER_ROOMS_MAX: usize = 4;
/// Knock rooms listened to, newest invites first.
const KNOCK_ROOMS_MAX: usize = 32;
/// A refused join is tried again after this.
const REJOIN_MS: u64 = 5_000;
/// What an outer envelope says at its third byte.
mod class {
    pub(super) const STORED: u8 = 0;
    pub(super) const EPHEMERAL: u8 = 1;
    pub(super) const TO_DEVICE: u8 = 2;
    pub(super) const LOBBY: u8 = 3;
    pub(super) const PIECE: u8 = 4;
    pub(super) const SEVERAL: u8 = crate::envelope::SEVERAL_CLASS;
}

impl Workspace {
    pub(super) fn link_up(&mut self, now: Timestamp, up: LinkUp) {
        match Audience::parse(&up.audience) {
            Ok(audience) => {
                self.links.up(up, audience);
                self.sync_rooms(now);
            }
            Err(_) => self.effects.push(Output::Close { link: up.link, why: "its address is not host:port" }),
        }
    }

    pub(super) fn link_down(&mut self, now: Timestamp, link: LinkId) {
        self.links.0.remove(&link);
        self.after_route_loss(now);
    }

    /// The rooms to be in, with the keys that open them.
    fn wanted_rooms(&self, now: Timestamp) -> BTreeMap<RoomId, (Purpose, RoomKey)> {
        let mut rooms = BTreeMap::new();
        match &self.phase {
            super::Phase::Joining(joining) => {
                let key = joining.room();
                rooms.insert(key.id, (Purpose::Knock(joining.invite()), key));
            }
            super::Phase::Enrolling(_) => {
                rooms.extend(self.door_rooms().into_iter().map(|(purpose, key)| (key.id, (purpose, key))));
            }
            super::Phase::Active => {
                rooms.extend(self.door_rooms().into_iter().map(|(purpose, key)| (key.id, (purpose, key))));
                let left = self.epochs_of_former(now, FORMER_ROOMS_MAX);
                for epoch in self.recent_epochs(now, EPOCH_ROOMS_MAX).into_iter().chain(left) {
                    let key = epoch.room().clone();
                    rooms.insert(key.id, (Purpose::Epoch(epoch.id()), key));
                }
                for epoch in self.lobbies(now) {
                    let key = epoch.lobby().room;
                    rooms.insert(key.id, (Purpose::Lobby(epoch.id()), key));
                }
                for (invite, key) in self.knock_rooms(now, KNOCK_ROOMS_MAX) {
                    rooms.insert(key.id, (Purpose::Knock(invite), key));
                }
            }
            super::Phase::Left => {}
        }
        rooms
    }

    /// The epochs held that count, deepest first, as long as somebody may be away who holds no later one; and the newest of
    /// those whose ops are still to come.
    fn recent_epochs(&self, now: Timestamp, max: usize) -> Vec<Arc<Epoch>> {
        let depth = |epoch: &Arc<Epoch>| self.membership.epochs.get(&epoch.id()).map(|facts| facts.depth);
        let (mut known, unproven): (Vec<_>, Vec<_>) =
            self.vault.keyring.epochs().partition(|epoch| depth(epoch).is_some());
        known.sort_by_key(|epoch| (std::cmp::Reverse(depth(epoch)), epoch.id()));
        let sealing = self.membership.sealing_epoch();
        let wanted = known.into_iter().take(max).filter(|epoch| {
            let followed = self.followed_wall_ms(&epoch.id());
            sealing == Some(epoch.id()) || followed.is_none_or(|at| self.may_be_away_since(now, at))
        });
        wanted.chain(self.newest_unproven(unproven, UNPROVEN_ROOMS_MAX)).cloned().collect()
    }

    /// Asks for rooms that are wanted and gives up those that are not.
    pub(super) fn sync_rooms(&mut self, now: Timestamp) {
        let wanted = if self.paused { BTreeMap::new() } else { self.wanted_rooms(now) };
        // Who goes for good says so first: these frames may not overtake that.
        let left = matches!(self.phase, super::Phase::Left);
        let leave_rank = if left { Rank::Live } else { Rank::Control };
        let mut frames = Vec::new();
        for (link, state) in &mut self.links.0 {
            state.rooms.retain(|room, _| {
                let keep = wanted.contains_key(room);
                if !keep {
                    frames.push((*link, leave_rank, ClientFrame::Leave { room: *room }));
                }
                keep
            });
            for (id, (purpose, key)) in &wanted {
                let due = match state.rooms.get(id) {
                    None => true,
                    Some(room) => room.retry_mono.is_some_and(|at| at <= now.mono_ms),
                };
                if due {
                    let proof = sign_room(key.signing_key(), &state.audience, &state.up.nonce, &state.up.connection);
                    let room = Room {
                        purpose: *purpose,
                        joined: false,
                        you: PeerId([0; 16]),
                        peers: BTreeMap::new(),
                        ask: None,
                        retry_mono: None,
                    };
                    state.rooms.insert(*id, room);
                    frames.push((*link, Rank::Control, ClientFrame::Join { room: *id, key: key.public(), proof }));
                }
            }
        }
        let mut given_up = BTreeSet::new();
        for (link, rank, frame) in frames {
            if matches!(frame, ClientFrame::Leave { .. }) {
                given_up.insert(link);
            }
            self.send(link, rank, frame);
        }
        for link in given_up {
            self.lobbies_after_leave(now, link);
        }
    }

    pub(super) fn room_joined(&mut self, now: Timestamp, link: LinkId, room: RoomId, you: PeerId, peers: &[Peer]) {
        let Some(state) = self.links.room_mut(link, &room) else { return };
        state.joined = true;
        state.you = you;
        state.peers = peers.iter().take(PEERS_MAX).map(|peer| (peer.peer, None)).collect();
        let purpose = state.purpose;
        match purpose {
            Purpose::Epoch(_) => {
                if !peers.is_empty() {
                    self.ask(now, link, room, false);
                }
            }
            Purpose::Knock(_) => {
                if !peers.is_empty() {
                    self.knock(now, link, room);
                }
            }
            Purpose::Lobby(_) => {
                if !peers.is_empty() {
                    self.lobby_peopled(now, link, room);
                }
            }
            Purpose::Door(_) => {
                if !peers.is_empty() {
                    self.ask_at_door(now, link, room);
                }
            }
        }
    }

    pub(super) fn peer_joined(&mut self, now: Timestamp, link: LinkId, room: RoomId, peer: PeerId) {
        let Some(state) = self.links.room_mut(link, &room) else { return };
        if state.peers.len() >= PEERS_MAX {
            return;
        }
        state.peers.insert(peer, None);
        let purpose = state.purpose;
        match purpose {
            // Who enters asks; if its question is lost we ask a little later.
            Purpose::Epoch(_) => self.ask_later(now, link, room),
            Purpose::Knock(_) => self.knock_soon(now),
            Purpose::Lobby(_) => self.lobby_peopled(now, link, room),
            Purpose::Door(_) => self.ask_at_door_soon(now),
        }
    }

    pub(super) fn peer_left(&mut self, now: Timestamp, link: LinkId, room: RoomId, peer: PeerId) {
        if let Some(state) = self.links.room_mut(link, &room) {
            state.peers.remove(&peer);
            self.after_route_loss(now);
            self.lobbies_after_leave(now, link);
        }
    }

    pub(super) fn refused_by_relay(&mut self, now: Timestamp, link: LinkId, code: Code, room: Option<RoomId>) {
        self.reject(code.name());
        let Some(state) = room.and_then(|room| self.links.room_mut(link, &room)) else { return };
        if code == Code::Replaced {
            // A newer connection of ours has the place: nobody is reached here any more.
            state.joined = false;
            state.peers.clear();
            self.after_route_loss(now);
        } else if !state.joined {
            state.retry_mono = Some(now.after_ms(REJOIN_MS));
        }
    }

    /// A payload came from a peer of a room.
    pub(super) fn deliver(
        &mut self,
        now: Timestamp,
        link: LinkId,
        room: RoomId,
        from: PeerId,
        payload: Bytes,
        tx: &Tx<'_>,
    ) {
        let Some(state) = self.links.room(link, &room) else { return };
        let route = Route { link, room, peer: from };
        match (state.purpose, payload.get(2).copied()) {
            (Purpose::Knock(invite), Some(class::TO_DEVICE)) => self.at_the_door(now, route, invite, &payload, tx),
            (Purpose::Epoch(_), Some(class::TO_DEVICE)) => self.direct(now, route, &payload, tx),
            (Purpose::Lobby(_), Some(class::LOBBY)) => self.in_lobby(now, route, &payload, tx),
            (Purpose::Door(door), Some(class::TO_DEVICE)) => self.at_a_door(now, route, door, &payload, tx),
            // A removed device may speak here: whoever knows of its removal holds nothing from this room. What those who did
            // not know it yet have sealed comes through the present epoch's.
            (Purpose::Epoch(epoch), Some(class::STORED)) if self.is_left_behind(&epoch) => {
                self.behind(now, route, &payload, tx);
            }
            (Purpose::Epoch(_), Some(class::STORED)) => {
                let size = payload.len() as u64;
                let held = self.receive(now, payload, tx);
                self.progress(now, route, size, &held);
            }
            (Purpose::Epoch(epoch), Some(class::SEVERAL)) => self.several(now, route, &epoch, &payload, tx),
            (Purpose::Epoch(epoch), Some(class::EPHEMERAL)) => self.ephemeral(now, route, epoch, &payload, tx),
            (Purpose::Epoch(_), Some(class::PIECE)) => self.piece(now, payload, tx),
            _ => self.reject("not of this room"),
        }
    }

    /// Several stored envelopes in one frame, taken in as if each had come by itself.
    fn several(&mut self, now: Timestamp, route: Route, epoch: &EpochId, payload: &[u8], tx: &Tx<'_>) {
        let envelopes = match envelope::split_several(payload) {
            Ok(envelopes) => envelopes,
            Err(_) => return self.reject("malformed frame of several envelopes"),
        };
        if self.is_left_behind(epoch) {
            return envelopes.into_iter().for_each(|one| self.behind(now, route, one, tx));
        }
        let mut held = Vec::new();
        let mut bytes = 0;
        for one in envelopes {
            bytes += one.len() as u64;
            // A copy: one that has to wait must not keep the whole frame.
            held.extend(self.receive(now, Bytes::copy_from_slice(one), tx));
        }
        self.progress(now, route, bytes, &held);
    }

    /// A message of a peer: verified, then acted on.
    fn ephemeral(&mut self, now: Timestamp, route: Route, epoch: EpochId, payload: &[u8], tx: &Tx<'_>) {
        let opened = envelope::open_head(&self.id, &self.vault.keyring, payload);
        let head = match opened {
            Ok(head) => head,
            Err(error) => return self.reject(error.reason()),
        };
        if self.speakers_checked && head.header.prev != spoken_by(route.peer) {
            return self.reject("somebody else's message said again");
        }
        let device = head.header.chain.device;
        let Some(known) = self.membership.devices.get(&device) else {
            // It holds the epoch's key, and what it holds besides may tell who it is.
            return self.heard_stranger(now, route, &epoch, head, payload);
        };
        let (active, kem) = (known.active, known.public.kem);
        let verified = match head.verify(&known.public) {
            Ok(verified) => verified,
            Err(error) => return self.reject(error.reason()),
        };
        if !active {
            return self.tell_former(now, route, device, &kem);
        }
        let kind = verified.header().kind.to_byte();
        let body = match verified.open_body(&self.vault.keyring, payload) {
            Ok(body) => body,
            Err(error) => return self.reject(error.reason()),
        };
        if device == self.my_device() {
            // Another connection of ours, or an echo.
            return;
        }
        match Message::from_body(kind, &body) {
            None => {}
            Some(Err(_)) => self.reject("malformed message"),
            Some(Ok(message)) => {
                self.links.identify(route, device);
                self.message(now, route, epoch, device, message, tx);
            }
        }
    }

    /// Seals an ephemeral message under the epoch of a room, to be said there and by us alone.
    fn seal_message(&mut self, link: LinkId, room: &RoomId, epoch: EpochId, message: &Message) -> Option<Bytes> {
        let you = self.links.room(link, room)?.you;
        let epoch = Arc::clone(self.vault.keyring.get(&epoch)?);
        let body = message.to_body();
        let draft = Draft {
            kind: Kind::from_byte(message.kind()),
            epoch: &epoch,
            chain: self.own.chain,
            seq: 0,
            prev: spoken_by(you),
            op_heads: self.named_heads(),
            body: &body,
            leaf_changes: &[],
        };
        match envelope::seal(draft, &self.id, &self.identity.device, &mut self.rng) {
            Ok(sealed) => Some(sealed.sealed.bytes().clone()),
            Err(error) => {
                self.problem(format!("A message could not be sealed: {error}"));
                None
            }
        }
    }

    /// Says something to everybody in a room.
    pub(super) fn publish_message(&mut self, link: LinkId, room: RoomId, epoch: EpochId, message: &Message) {
        // Where a removed device may listen only keys are offered, which it finds no slot in; those who do not know of the
        // removal yet ask, and are answered alone.
        if self.is_left_behind(&epoch) && !matches!(message, Message::KeyPacket(_)) {
            return;
        }
        if let Some(payload) = self.seal_message(link, &room, epoch, message) {
            self.send(link, Rank::Control, ClientFrame::Publish { room, payload });
        }
    }

    /// Says something to one peer.
    pub(super) fn send_message(&mut self, route: Route, message: &Message) {
        let Some(Purpose::Epoch(epoch)) = self.links.room(route.link, &route.room).map(|room| room.purpose) else {
            return;
        };
        if let Some(payload) = self.seal_message(route.link, &route.room, epoch, message) {
            self.send(route.link, Rank::Control, ClientFrame::Send { room: route.room, to: route.peer, payload });
        }
    }

    pub(super) fn send(&mut self, link: LinkId, rank: Rank, frame: ClientFrame) {
        if let Some(state) = self.links.0.get_mut(&link) {
            let bytes = match &frame {
                ClientFrame::Publish { payload, .. } | ClientFrame::Send { payload, .. } => payload.len() as u64,
                ClientFrame::Prove { .. }
                | ClientFrame::Join { .. }
                | ClientFrame::Leave { .. }
                | ClientFrame::Refresh { .. }
                | ClientFrame::Ping { .. } => 0,
            };
            state.queued_bytes = state.queued_bytes.saturating_add(bytes);
            self.effects.push(Output::Send { link, rank, frame });
        }
    }
}
