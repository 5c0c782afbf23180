//! The lobby: where a device that missed epochs finds those who hold them.
//!
//! Invariant: what is said in a lobby names nobody and is bounded in number; whoever is answered gets what the others would
//! have sent it anyway, a key packet. Why: the rooms of old epochs are listened to for a while only, and those who were
//! removed can read a lobby until it is replaced, which every removal does. Spec: docs/sealing.md#lobby, docs/sync.md#lobby.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use weft_protocol::cbor::{from_bytes, to_bytes};
use weft_protocol::frame::ClientFrame;
use weft_protocol::id::RoomId;

use super::Workspace;
use super::input::LinkId;
use super::links::{Purpose, Route};
use super::notices::in_parts;
use super::output::Rank;
use crate::envelope::{open_lobby, seal_lobby};
use crate::epoch::Epoch;
use crate::hash::pick;
use crate::id::{DeviceId, EpochId};
use crate::lobby_message::LobbyMessage;
use crate::op::SignedOp;
use crate::store::Tx;
use crate::time::{Timestamp, doubled};

/// Lobbies listened to: the present one, concurrent ones, and older ones for as long as somebody may be away.
const LOBBIES_MAX: usize = 6;
/// Somebody who is in a lobby and in no epoch's room with us is waited for so long before we ask.
const ASK_AFTER_MS: u64 = 3_000;
/// A question is asked again after twice as long each time, up to this.
const ASK_AGAIN_MS_MAX: u64 = 600_000;
/// One slot of the order in which members answer; who hears an answer stays silent.
const SLOT_MS: u64 = 200;
/// Members answer in at most this many slots.
const SLOTS_MAX: u64 = 64;
/// A lobby is answered at most so often.
const ANSWER_AGAIN_MS: u64 = 5_000;
/// Answers owed at once.
const OWED_MAX: usize = 16;

type Door = (LinkId, RoomId);

/// Who asks in which lobby, and whom we answer.
#[derive(Debug, Default)]
pub(super) struct Lobbies {
    /// How often we asked in each, and when we do next.
    asks: BTreeMap<Door, (u32, u64)>,
    owed: Vec<(u64, Door)>,
    /// Until when a lobby was answered.
    answered: BTreeMap<RoomId, u64>,
}

impl Lobbies {
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.asks.values().map(|(_, at)| *at).chain(self.owed.iter().map(|(at, _)| *at)).min()
    }
}

impl Workspace {
    /// When an epoch was followed by another, by the clocks of those who made that; `None` if it was not.
    pub(super) fn followed_wall_ms(&self, epoch: &EpochId) -> Option<u64> {
        let ops = self.ops.as_ref()?;
        let epochs = self.membership.epochs.values();
        let next = epochs.filter(|facts| facts.grant.parents.iter().any(|link| link.parent == *epoch));
        next.filter_map(|facts| ops.get(&facts.op)).map(SignedOp::wall_ms).min()
    }

    /// Whether something that ended then may still be looked for by somebody who was away since.
    pub(super) fn may_be_away_since(&self, now: Timestamp, ended_wall_ms: u64) -> bool {
        let days = u64::from(self.membership.policy.max_offline_days);
        ended_wall_ms.saturating_add(days * 24 * 3_600_000) > now.wall_ms
    }

    /// The epochs whose lobbies to be in, the newest first.
    pub(super) fn lobbies(&self, now: Timestamp) -> Vec<std::sync::Arc<Epoch>> {
        let mut all: Vec<_> = self.membership.epochs.iter().filter(|(_, facts)| facts.lobby).collect();
        all.sort_by_key(|(id, facts)| (std::cmp::Reverse(facts.depth), **id));
        let mut wanted = Vec::new();
        // A lobby is replaced when the next one is made.
        let mut replaced: Option<u64> = None;
        for (id, facts) in all {
            if wanted.len() >= LOBBIES_MAX || replaced.is_some_and(|at| !self.may_be_away_since(now, at)) {
                break;
            }
            wanted.extend(self.vault.keyring.get(id).cloned());
            let made = self.ops.as_ref().and_then(|ops| ops.get(&facts.op)).map_or(0, SignedOp::wall_ms);
            replaced = Some(replaced.map_or(made, |at| at.min(made)));
        }
        wanted
    }

    /// Somebody is in a lobby with us: if we meet them nowhere else, we or they lack an epoch.
    pub(super) fn lobby_peopled(&mut self, now: Timestamp, link: LinkId, room: RoomId) {
        let at = now.after_ms(ASK_AFTER_MS + self.jitter(ASK_AFTER_MS));
        self.lobbies.asks.insert((link, room), (0, at));
    }

    /// Somebody left a room of this link, or we did: who is still in a lobby with us may be met nowhere else from now on, and
    /// was not when they came.
    pub(super) fn lobbies_after_leave(&mut self, now: Timestamp, link: LinkId) {
        let Some(state) = self.links.0.get(&link) else { return };
        let doors = state.rooms.keys().map(|room| (link, *room));
        let apart = |door: &Door| !self.lobbies.asks.contains_key(door) && self.is_apart(door);
        for (link, room) in doors.filter(apart).collect::<Vec<_>>() {
            self.lobby_peopled(now, link, room);
        }
    }

    /// Whether there is somebody in a lobby who is in none of the epochs' rooms on that link.
    fn is_apart(&self, (link, room): &Door) -> bool {
        let Some(state) = self.links.0.get(link) else { return false };
        let Some(lobby) = state.rooms.get(room).filter(|lobby| matches!(lobby.purpose, Purpose::Lobby(_))) else {
            return false;
        };
        let epochs = state.rooms.values().filter(|room| matches!(room.purpose, Purpose::Epoch(_)));
        let met = epochs.map(|room| room.peers.len()).max().unwrap_or(0);
        lobby.peers.len() > met
    }

    /// Whether a device is met in the room of the epoch that we seal under.
    fn is_among_others(&self) -> bool {
        let ours = self.sealing_epoch();
        let rooms = self.links.0.values().flat_map(|link| link.rooms.values());
        rooms
            .filter(|room| matches!(room.purpose, Purpose::Epoch(epoch) if Some(epoch) == ours))
            .any(|room| room.peers.values().any(|device| device.is_some_and(|device| self.belongs(&device))))
    }

    pub(super) fn run_lobbies(&mut self, now: Timestamp) {
        let due = |asks: &BTreeMap<Door, (u32, u64)>| -> Vec<(Door, u32)> {
            asks.iter().filter(|(_, (_, at))| *at <= now.mono_ms).map(|(door, (tries, _))| (*door, *tries)).collect()
        };
        for (door, tries) in due(&self.lobbies.asks) {
            if !self.is_active() || !self.is_apart(&door) {
                self.lobbies.asks.remove(&door);
                continue;
            }
            let wait = doubled(ASK_AFTER_MS, tries + 1, ASK_AGAIN_MS_MAX);
            self.lobbies.asks.insert(door, (tries + 1, now.after_ms(wait)));
            let nonce = self.nonce();
            let epoch = self.membership.sealing_epoch().unwrap_or(EpochId([0; 16]));
            self.say_in_lobby(door, &LobbyMessage::Ask { nonce, epoch });
        }
        let (owed, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.lobbies.owed).into_iter().partition(|(at, _)| *at <= now.mono_ms);
        self.lobbies.owed = later;
        for (_, door) in owed {
            self.answer_lobby(now, door);
        }
    }

    fn lobby_epoch(&self, (link, room): &Door) -> Option<std::sync::Arc<Epoch>> {
        let Some(Purpose::Lobby(epoch)) = self.links.room(*link, room).map(|room| room.purpose) else { return None };
        self.vault.keyring.get(&epoch).cloned()
    }

    fn say_in_lobby(&mut self, door: Door, message: &LobbyMessage) {
        let Some(epoch) = self.lobby_epoch(&door) else { return };
        let sealed = seal_lobby(&self.id, &epoch.lobby(), &to_bytes(message), &mut self.rng);
        if let Some(sealed) = sealed {
            let frame = ClientFrame::Publish { room: door.1, payload: sealed.into_bytes() };
            self.send(door.0, Rank::Control, frame);
        }
    }

    /// Something was said in a lobby.
    pub(super) fn in_lobby(&mut self, now: Timestamp, route: Route, payload: &Bytes, tx: &Tx<'_>) {
        let door = (route.link, route.room);
        let Some(epoch) = self.lobby_epoch(&door) else { return };
        let Some(message) = open_lobby(&self.id, &epoch.lobby(), payload) else {
            return self.reject("not of this lobby");
        };
        match from_bytes::<LobbyMessage>(&message) {
            Ok(LobbyMessage::Ask { nonce, epoch }) => self.asked_in_lobby(now, door, &nonce, epoch),
            Ok(LobbyMessage::Keys(packet)) => {
                // Whoever asked has its answer.
                self.lobbies.owed.retain(|(_, (_, room))| *room != door.1);
                self.lobbies.answered.insert(door.1, now.after_ms(ANSWER_AGAIN_MS));
                let asked = self.lobbies.asks.get(&door).is_some_and(|(tries, _)| *tries > 0);
                // Where others use the key that we use it is somebody else's, who was removed perhaps: nothing to tell.
                let alone = !self.is_among_others();
                if self.key_packet(now, &packet, None, tx).is_none() && asked && alone && self.is_apart(&door) {
                    self.problem(
                        "Somebody uses a key that this device did not get: either it was removed, or they were. Ask a member."
                            .into(),
                    );
                }
            }
            Err(_) => self.reject("malformed lobby message"),
        }
    }

    fn asked_in_lobby(&mut self, now: Timestamp, door: Door, nonce: &[u8; 16], stated: EpochId) {
        if self.sealing_epoch().is_none_or(|ours| ours == stated) {
            return;
        }
        if !self.membership.epochs.contains_key(&stated) && stated != EpochId([0; 16]) {
            // It holds what we do not know, and may lack what we know: each asks, and each answers.
            self.lobby_peopled(now, door.0, door.1);
        }
        if self.lobbies.answered.get(&door.1).is_some_and(|until| *until > now.mono_ms)
            || self.lobbies.owed.len() >= OWED_MAX
            || self.lobbies.owed.iter().any(|(_, owed)| *owed == door)
        {
            return;
        }
        let peers = self.links.room(door.0, &door.1).map_or(1, |room| room.peers.len() as u64);
        let slot = pick("slot", &[nonce, &self.my_device().0], peers.clamp(1, SLOTS_MAX));
        self.lobbies.owed.push((now.after_ms(slot * SLOT_MS), door));
    }

    fn answer_lobby(&mut self, now: Timestamp, door: Door) {
        self.lobbies.answered.retain(|_, until| *until > now.mono_ms);
        if self.lobbies.answered.contains_key(&door.1) {
            return;
        }
        let Some(ours) = self.sealing_epoch() else { return };
        // Made anew, not the one its maker made: that may lack a slot, or hold a wrong one.
        if let Some(packet) = self.rewrap(&ours) {
            self.lobbies.answered.insert(door.1, now.after_ms(ANSWER_AGAIN_MS));
            self.say_in_lobby(door, &LobbyMessage::Keys(packet));
        }
    }

    /// Sends a device that stated an epoch long gone all ops that it cannot know: only they tell it how the newest epoch
    /// leads back to the one it holds. `None`: all there are.
    pub(super) fn send_ops_since(&mut self, route: Route, device: &DeviceId, stated: Option<&EpochId>) {
        let Some(kem) = self.membership.devices.get(device).map(|device| device.public.kem) else { return };
        let parts = self.ops_since(stated);
        self.send_notices(route, &kem, &parts);
    }

    /// All ops but those that an epoch's own descends from (all, if it is not known here), parents first.
    fn ops_since(&self, stated: Option<&EpochId>) -> Vec<Vec<u8>> {
        let Some(ops) = &self.ops else { return Vec::new() };
        let stated = stated.and_then(|stated| self.membership.epochs.get(stated)).map(|facts| facts.op);
        let known = stated.and_then(|op| ops.history(&[op])).unwrap_or_default();
        let known: BTreeSet<_> = known.into_iter().map(SignedOp::id).collect();
        in_parts(ops.ops().filter(|op| !known.contains(&op.id())).collect())
    }
}
