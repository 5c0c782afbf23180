//! Comparing frontiers with peers: questions, answers, beacons, and what is to be pulled from whom.
//!
//! Invariant: whenever two connected peers hold different things, some deadline is pending on one of them that makes the
//! difference visible to the one who lacks something. Why: the relay may lose anything, and says so only sometimes.
//! Spec: docs/sync.md#reconcile.

use std::collections::BTreeMap;

use weft_protocol::cbor::{from_bytes, to_bytes};
use weft_protocol::id::RoomId;

use super::Workspace;
use super::input::LinkId;
use super::links::{Ask, Route};
use super::pulls::{Nonce, PULLS_MAX};
use crate::frontier::{Frontier, Range};
use crate::hash::pick;
use crate::id::{DeviceId, EpochId, Place};
use crate::message::{FRONTIER_INLINE_CHAINS_MAX, Message, RANGES_PER_PULL_MAX, Statement};
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;

/// A question is asked again after this, twice as long each time.
const ASK_AGAIN_MS: u64 = 2_000;
/// ... up to this.
const ASK_AGAIN_MS_MAX: u64 = 60_000;
/// One slot of the order in which peers answer.
const SLOT_MS: u64 = 50;
/// Peers answer in at most this many slots.
const SLOTS_MAX: u64 = 64;
/// Answers owed at once.
const OWED_MAX: usize = 256;
/// A beacon follows an activity by this, and a little more for each peer.
const BEACON_AFTER_MS: u64 = 300;
/// Without any activity a beacon goes out this often, give or take half.
const BEACON_EVERY_MS: u64 = 60_000;
/// A peer that did not serve what it holds is asked again after this, twice as long each time.
const SILENT_MS: u64 = 2_000;

/// Pulls in a row that may bring nothing from a peer that is there.
const PROMISES_MAX: u32 = 4;

/// What is known of another device.
#[derive(Debug, Default)]
pub(super) struct PeerState {
    /// As it last stated.
    pub(super) frontier: Frontier,
    /// Bytes of large files that it last stated to lack.
    pub(super) lacks: u64,
    pub(super) heard_wall_ms: u64,
    /// It is not asked to serve before this.
    quiet_until_mono: u64,
    silences: u32,
    /// Pulls that brought nothing although it was there, since it last gave us something.
    broken_promises: u32,
    /// Digest of our frontier that it was last told.
    told: Option<[u8; 32]>,
    /// LAN addresses it last named.
    pub(super) lan: Vec<String>,
}

impl PeerState {
    /// Whether it says that it holds what it never gives: it is asked now and then, and not waited for.
    pub(super) fn boasts(&self) -> bool {
        self.broken_promises >= PROMISES_MAX
    }
}

/// How many of a room give somebody who asks for the first time what all of them have, about; of fewer everybody does. Keys
/// and notices grow with the number of devices: from each of a hundred they would be megabytes.
const GIVERS: u64 = 8;

/// Answers we owe.
#[derive(Debug, Default)]
pub(super) struct Owed(Vec<(u64, Route, Nonce)>);

/// How often the newest keys are offered in a room that a removed device may be in, after somebody came in.
const KEYS_OFFERED_MAX: u32 = 3;

/// When to say unasked where we are.
#[derive(Debug, Default)]
pub(super) struct Beacons {
    next_mono: Option<u64>,
    /// Our frontier changed since the last one.
    dirty: bool,
}

impl Workspace {
    /// Reads what was last known of other devices.
    pub(super) fn stored_peers(read: &dyn Read) -> BTreeMap<DeviceId, PeerState> {
        read.scan(Table::Peers, &[], None, 4096)
            .into_iter()
            .filter_map(|(key, value)| {
                let device = DeviceId::from_slice(&key)?;
                // A row of an earlier layout is none: that device is heard again.
                let (heard, rest) = value.split_first_chunk::<8>()?;
                let (lacks, frontier) = rest.split_first_chunk::<8>()?;
                let frontier = from_bytes(frontier).ok()?;
                let (heard_wall_ms, lacks) = (u64::from_be_bytes(*heard), u64::from_be_bytes(*lacks));
                Some((device, PeerState { frontier, lacks, heard_wall_ms, ..PeerState::default() }))
            })
            .collect()
    }

    fn statement(&self, whole: bool) -> Statement {
        let short = self.frontier.len() <= FRONTIER_INLINE_CHAINS_MAX;
        Statement {
            epoch: self.sealing_epoch().unwrap_or(EpochId([0; 16])),
            digest: self.frontier.digest(),
            frontier: (whole || short).then(|| self.frontier.clone()),
            lacks: self.stated_lacks(),
        }
    }

    /// Asks a room who holds what.
    pub(super) fn ask(&mut self, now: Timestamp, link: LinkId, room: RoomId, all: bool) {
        let nonce = self.nonce();
        let statement = self.statement(false);
        let Some(state) = self.links.room_mut(link, &room) else { return };
        let super::links::Purpose::Epoch(epoch) = state.purpose else { return };
        if !state.joined || state.peers.is_empty() {
            return;
        }
        let tries = state.ask.map_or(0, |ask| ask.tries + 1);
        let wait = (ASK_AGAIN_MS << tries.min(5)).min(ASK_AGAIN_MS_MAX);
        state.ask = Some(Ask { tries, next_mono: now.after_ms(wait) });
        if self.is_left_behind(&epoch) {
            // Whoever knows of the removal too is as silent here as we are, and may have made a key of its own: without
            // ours the two would never meet again.
            if tries < KEYS_OFFERED_MAX {
                self.offer_keys(link, room, epoch);
            }
            return;
        }
        self.publish_message(link, room, epoch, &Message::Query { nonce, statement, all });
    }

    /// Somebody entered: it will ask. If we do not hear it, we do.
    pub(super) fn ask_later(&mut self, now: Timestamp, link: LinkId, room: RoomId) {
        let wait = ASK_AGAIN_MS + self.jitter(ASK_AGAIN_MS);
        let purpose = self.links.room(link, &room).map(|state| state.purpose);
        let anew = matches!(purpose, Some(super::links::Purpose::Epoch(epoch)) if self.is_left_behind(&epoch));
        if let Some(state) = self.links.room_mut(link, &room)
            && (state.ask.is_none() || anew)
        {
            state.ask = Some(Ask { tries: 0, next_mono: now.after_ms(wait) });
        }
    }

    pub(super) fn message(
        &mut self,
        now: Timestamp,
        route: Route,
        epoch: EpochId,
        device: DeviceId,
        message: Message,
        tx: &Tx<'_>,
    ) {
        match message {
            Message::Beacon { statement, lan, relays } => {
                if self.relays.merge(relays, tx) {
                    self.tell_addresses();
                }
                let peer = self.peers.entry(device).or_default();
                if peer.lan != lan {
                    peer.lan = lan;
                    self.tell_addresses();
                }
                self.heard(now, route, device, statement, tx);
            }
            Message::Query { nonce, statement, all } => {
                self.heard(now, route, device, statement, tx);
                self.offer_checkpoint(now, route, device, tx);
                let delay = if all { 0 } else { self.slot(&nonce, route) };
                if self.owed.0.len() < OWED_MAX {
                    self.owed.0.push((now.after_ms(delay), route, nonce));
                }
            }
            Message::Answer { nonce, statement } => {
                let knows_all = statement.frontier.as_ref().is_some_and(|theirs| theirs.covers(&self.frontier));
                self.heard(now, route, device, statement, tx);
                let crowded = self.links.room(route.link, &route.room).is_some_and(|room| room.peers.len() > 2);
                if knows_all && crowded {
                    self.publish_message(route.link, route.room, epoch, &Message::Enough { nonce });
                }
            }
            Message::Enough { nonce } => self.owed.0.retain(|(_, _, owed)| *owed != nonce),
            Message::Credit { nonce, ranges, credit } => {
                let ranges = self.servable(ranges, tx);
                self.serving.credit(now.mono_ms, route, nonce, ranges, credit);
            }
            Message::Want { nonce, pieces } => self.wanted(route, nonce, pieces, tx),
            Message::Have { absent, .. } => self.absent(device, &absent),
            Message::KeyPacket(packet) => {
                if let Some(said) = self.key_packet(now, &packet, Some(device), tx) {
                    self.key_said_behind(now, route, &epoch, device, said);
                }
            }
            Message::Offer(envelope) => self.offered(&envelope, tx),
        }
    }

    /// A device we do not know states what it holds. It may be new, or we may have gone back behind the op that let it in:
    /// what it holds is asked for, our own chain too, and each envelope proves itself or not. Nothing else is believed.
    pub(super) fn stranger(
        &mut self,
        now: Timestamp,
        route: Route,
        epoch: &EpochId,
        device: DeviceId,
        message: Message,
    ) {
        let statement = match message {
            Message::Beacon { statement, .. }
            | Message::Query { statement, .. }
            | Message::Answer { statement, .. } => statement,
            Message::Enough { .. }
            | Message::Credit { .. }
            | Message::Want { .. }
            | Message::Have { .. }
            | Message::KeyPacket(_)
            | Message::Offer(_) => return,
        };
        let Some(theirs) = statement.frontier.filter(|_| self.is_active() && !self.paused) else { return };
        let mut ranges = self.frontier.missing_from(&theirs);
        ranges.retain(|range| !self.pulls.covers(&range.chain));
        if ranges.is_empty() || self.pulls.0.len() >= PULLS_MAX {
            return;
        }
        let behind = self.is_left_behind(epoch);
        if behind && !self.pulls.may_ask_behind(now.mono_ms) {
            return;
        }
        self.pull(now, device, route, ranges);
        if behind {
            self.pulls.bound(now.mono_ms, route, &device);
        }
    }

    /// Which of the room's answers ours is.
    fn slot(&self, nonce: &Nonce, route: Route) -> u64 {
        let peers = self.links.room(route.link, &route.room).map_or(1, |room| room.peers.len() as u64);
        pick("slot", &[nonce, &self.my_device().0], peers.clamp(1, SLOTS_MAX)) * SLOT_MS
    }

    /// Whether we are among those of a room who give a device what all of them have: a few, and more each time it asks again.
    pub(super) fn is_our_turn(&self, route: Route, context: &str, what: &[&[u8]], times: u32) -> bool {
        let peers = self.links.room(route.link, &route.room).map_or(1, |room| room.peers.len() as u64);
        let (me, times_bytes) = (self.my_device(), times.to_be_bytes());
        let parts = [what, &[&me.0, &times_bytes]].concat();
        pick(context, &parts, peers) < GIVERS << (2 * times).min(32)
    }

    /// A device stated what it holds.
    fn heard(&mut self, now: Timestamp, route: Route, device: DeviceId, statement: Statement, tx: &Tx<'_>) {
        let ours = self.frontier.digest();
        let stated = statement.lacks;
        let Some(theirs) = statement.frontier.or_else(|| (statement.digest == ours).then(|| self.frontier.clone()))
        else {
            // Too long to travel unasked: ask for it.
            let nonce = self.nonce();
            let query = Message::Query { nonce, statement: self.statement(false), all: false };
            self.send_message(route, &query);
            return;
        };
        self.note_own_chains(now, route, device, &theirs);
        let before = self.peers.entry(device).or_default();
        let news = before.frontier != theirs || before.lacks != stated;
        // Also if it said so before: what was asked for then may have been lost, say in a room that was about to be left.
        if theirs != self.frontier {
            self.compare_tips(now, device, &theirs, tx);
        }
        let peer = self.peers.entry(device).or_default();
        peer.heard_wall_ms = now.wall_ms;
        if !peer.boasts() {
            peer.quiet_until_mono = 0;
            peer.silences = 0;
        }
        let lacks = !theirs.covers(&self.frontier);
        let told = peer.told == Some(ours);
        peer.frontier = theirs;
        peer.lacks = stated;
        if news {
            let mut row = now.wall_ms.to_be_bytes().to_vec();
            row.extend(stated.to_be_bytes());
            row.extend(to_bytes(&peer.frontier));
            tx.put(Table::Peers, device.0, row);
        }
        if lacks && !told {
            self.beacon_soon(now);
        }
        self.offer_epochs(now, route, device, statement.epoch, lacks);
        if let Some(room) = self.links.room_mut(route.link, &route.room) {
            let all_heard = room.peers.values().all(Option::is_some);
            if all_heard {
                room.ask = None;
            }
        }
        self.note_reconciled();
    }

    /// Marks links on which a peer was heard and nothing of what connected peers hold is missing.
    pub(super) fn note_reconciled(&mut self) {
        let caught_up = self
            .members_here()
            .iter()
            .filter_map(|device| self.peers.get(device))
            .all(|peer| peer.boasts() || self.frontier.covers(&peer.frontier));
        if !caught_up {
            return;
        }
        let heard: Vec<LinkId> = self.links.routes().map(|(route, _)| route.link).collect();
        for link in heard {
            if let Some(link) = self.links.0.get_mut(&link) {
                link.reconciled = true;
            }
        }
    }

    /// Our frontier changed: say so soon.
    pub(super) fn beacon_soon(&mut self, now: Timestamp) {
        self.beacons.dirty = true;
        let peers = self.links.connected().len() as u64;
        let wait = BEACON_AFTER_MS + self.jitter(100 + 100 * peers);
        let at = now.after_ms(wait);
        if self.beacons.next_mono.is_none_or(|next| next > at) {
            self.beacons.next_mono = Some(at);
        }
    }

    /// Says to everybody what we hold.
    pub(super) fn send_beacons(&mut self, now: Timestamp) {
        let statement = self.statement(false);
        let message = Message::Beacon { statement, lan: self.lan.clone(), relays: self.relays.entries() };
        let digest = self.frontier.digest();
        for (link, room, epoch) in self.links.peopled_rooms() {
            self.publish_message(link, room, epoch, &message);
        }
        for device in self.links.connected() {
            self.peers.entry(device).or_default().told = Some(digest);
        }
        self.beacons.dirty = false;
        let wait = BEACON_EVERY_MS / 2 + self.jitter(BEACON_EVERY_MS);
        self.beacons.next_mono = Some(now.after_ms(wait));
    }

    /// Something came from a route that may be serving us, and this of it is new.
    pub(super) fn progress(&mut self, now: Timestamp, route: Route, bytes: u64, held: &[Place]) {
        for pull in self.pulls.0.values().filter(|pull| pull.route == route) {
            let gave = |range: &Range| held.iter().any(|place| place.chain == range.chain && place.seq <= range.to);
            if pull.ranges.iter().any(gave)
                && let Some(peer) = self.peers.get_mut(&pull.device)
            {
                peer.broken_promises = 0;
            }
        }
        let grants = self.pulls.arrived(now.mono_ms, route, bytes);
        self.pulls.finish(&self.frontier);
        for (nonce, credit) in grants {
            if self.pulls.0.contains_key(&nonce) {
                self.send_message(route, &Message::Credit { nonce, ranges: Vec::new(), credit });
            }
        }
        self.note_reconciled();
    }

    /// Starts pulls for what connected peers hold and we do not.
    pub(super) fn plan_pulls(&mut self, now: Timestamp) {
        if !self.is_active() || self.paused || self.is_doubted() || self.history_waits() {
            return;
        }
        self.pulls.finish(&self.frontier);
        for device in self.members_here() {
            if self.pulls.0.len() >= PULLS_MAX {
                return;
            }
            let Some(peer) = self.peers.get(&device).filter(|peer| peer.quiet_until_mono <= now.mono_ms) else {
                continue;
            };
            let mut ranges = self.frontier.missing_from(&peer.frontier);
            ranges.retain(|range| !self.pulls.covers(&range.chain) && range.chain != self.own.chain);
            let Some(route) =
                self.links.route_to(&device, |epoch| self.is_left_behind(epoch)).filter(|_| !ranges.is_empty())
            else {
                continue;
            };
            self.pull(now, device, route, ranges);
        }
    }

    fn pull(&mut self, now: Timestamp, device: DeviceId, route: Route, mut ranges: Vec<Range>) {
        ranges.truncate(RANGES_PER_PULL_MAX);
        let Some(link) = self.links.0.get(&route.link) else { return };
        let window = u64::from(link.up.queue_bytes / 2).max(1024 * 1024) / PULLS_MAX as u64;
        let nonce = self.nonce();
        let message = Message::Credit { nonce, ranges: ranges.clone(), credit: window };
        self.pulls.start(nonce, now.mono_ms, device, route, ranges, window);
        self.send_message(route, &message);
    }

    /// A link or a peer is gone: what depended on it is asked of others.
    pub(super) fn after_route_loss(&mut self, now: Timestamp) {
        let links = &self.links;
        self.pulls.give_up(now.mono_ms, |route| links.is_live(route));
        self.serving.tidy(now.mono_ms, |route| links.is_live(route));
        self.owed.0.retain(|(_, route, _)| links.is_live(*route));
    }

    pub(super) fn run_reconcile(&mut self, now: Timestamp) {
        let links = &self.links;
        for (device, live) in self.pulls.give_up(now.mono_ms, |route| links.is_live(route)) {
            if live && let Some(peer) = self.peers.get_mut(&device) {
                peer.silences += 1;
                peer.broken_promises += 1;
                peer.quiet_until_mono = now.after_ms(SILENT_MS << peer.silences.min(5));
            }
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.owed.0).into_iter().partition(|(at, ..)| *at <= now.mono_ms);
        self.owed.0 = later;
        for (_, route, nonce) in due {
            let statement = self.statement(true);
            self.send_message(route, &Message::Answer { nonce, statement });
        }
        let mut asks = Vec::new();
        let mut joins = false;
        for (link, state) in &mut self.links.0 {
            for (id, room) in &mut state.rooms {
                joins |= room.retry_mono.is_some_and(|at| at <= now.mono_ms);
                if room.peers.is_empty() || room.peers.values().all(Option::is_some) {
                    room.ask = None;
                }
                if room.ask.is_some_and(|ask| ask.next_mono <= now.mono_ms) {
                    asks.push((*link, *id));
                }
            }
        }
        for (link, room) in asks {
            self.ask(now, link, room, false);
        }
        if joins {
            self.sync_rooms(now);
        }
        if self.beacons.next_mono.is_none_or(|at| at <= now.mono_ms) && !self.links.peopled_rooms().is_empty() {
            self.send_beacons(now);
        }
    }

    pub(super) fn reconcile_deadline(&self) -> Option<u64> {
        let owed = self.owed.0.iter().map(|(at, ..)| *at).min();
        let rooms = self.links.0.values().flat_map(|link| link.rooms.values());
        let asks = rooms
            .clone()
            .filter(|room| !room.peers.is_empty())
            .filter_map(|room| room.ask.map(|ask| ask.next_mono))
            .min();
        let joins = rooms.filter_map(|room| room.retry_mono).min();
        let peopled = !self.links.peopled_rooms().is_empty();
        let beacon = peopled.then(|| self.beacons.next_mono.unwrap_or(0));
        let quiet = self
            .links
            .connected()
            .iter()
            .filter_map(|device| self.peers.get(device))
            .filter(|peer| peer.quiet_until_mono > self.last_mono && !self.frontier.covers(&peer.frontier))
            .map(|peer| peer.quiet_until_mono)
            .min();
        [owed, asks, joins, beacon, quiet].into_iter().flatten().min()
    }
}
