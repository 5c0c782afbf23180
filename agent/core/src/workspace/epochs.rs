//! Keys that follow the membership: minting an epoch when one is needed, and handing it to those it is for.
//!
//! Invariant: nothing is sealed under an epoch that a device known to be gone has received. If there is no epoch without
//! it, the first writer with something to send mints one at once, the others after a random while, in case nobody does.
//! Spec: docs/sealing.md#epochs, docs/sync.md#epochs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use weft_protocol::id::RoomId;

use super::Workspace;
use super::input::LinkId;
use super::links::Route;
use crate::epoch::Epoch;
use crate::id::{DeviceId, EpochId};
use crate::identity::RootSecret;
use crate::key_packet::{KeyPacket, KeyPacketError, recipients};
use crate::keyring::Sealing;
use crate::membership::Role;
use crate::message::Message;
use crate::op::{EpochGrant, OpBody, SignedOp, Signer};
use crate::store::{self, Read, Table, Tx};
use crate::time::Timestamp;

const PACKET: &[u8] = b"packet/";
const USED: &[u8] = b"used/";
/// Key packets kept to be handed on: one a rotation; older ones are reached through back links of later ones.
const PACKETS_MAX: usize = 64;
/// Epochs held whose ops are not here yet: a rotation or two at a time, and a margin.
const UNPROVEN_MAX: usize = 8;
/// Packets offered to a device that states an older epoch.
const OFFER_MAX: usize = 4;
/// ... and not again within this.
const OFFER_AGAIN_MS: u64 = 5_000;
/// Whoever was offered a packet so often and still states another epoch may have no slot in it, because whoever made it left
/// it out, or may lack what its op stands on. It gets one of ours, with the ops: it states where it is every 40 s or so.
const OFFERS_BEFORE_REWRAP: u32 = 1;
/// A writer with nothing to send waits this long for somebody else to mint.
const MINT_AFTER_MS: u64 = 2_000;

/// Key packets, to be handed on, and when to make the next one.
#[derive(Debug, Default)]
pub(super) struct Packets {
    packets: BTreeMap<EpochId, Bytes>,
    /// The order in which they came; the last is the newest.
    order: Vec<EpochId>,
    /// Until when not again, and how often since it stated the epoch that we seal under.
    offered: BTreeMap<DeviceId, (u64, u32)>,
    mint_mono: Option<u64>,
    /// The epochs that something held is sealed under, whether their ops count or not: never forgotten.
    used: BTreeSet<EpochId>,
    /// Whether those who were removed get keys like anybody; only tests say so.
    excludes_nobody: bool,
}

impl Packets {
    pub(super) fn open(read: &dyn Read) -> Self {
        let mut packets = Self::default();
        let mut rows: Vec<(u64, EpochId, Bytes)> = read
            .scan(Table::Meta, PACKET, None, PACKETS_MAX * 2)
            .into_iter()
            .filter_map(|(key, row)| {
                let id = EpochId::from_slice(key.get(PACKET.len()..)?)?;
                let order = u64::from_be_bytes(row.get(..8)?.try_into().ok()?);
                Some((order, id, row.slice(8..)))
            })
            .collect();
        rows.sort_by_key(|(order, ..)| *order);
        for (_, id, packet) in rows {
            packets.order.push(id);
            packets.packets.insert(id, packet);
        }
        let used = store::rows(read, Table::Meta, USED, 512);
        packets.used = used.filter_map(|(key, _)| EpochId::from_slice(key.get(USED.len()..)?)).collect();
        packets
    }

    /// Something sealed under this epoch is held.
    pub(super) fn note_use(&mut self, epoch: EpochId, tx: &Tx<'_>) {
        if self.used.insert(epoch) {
            tx.put(Table::Meta, [USED, &epoch.0].concat(), Vec::new());
        }
    }

    fn keep(&mut self, wall_ms: u64, id: EpochId, packet: Bytes, tx: &Tx<'_>) -> bool {
        if self.packets.contains_key(&id) {
            return false;
        }
        let mut row = wall_ms.to_be_bytes().to_vec();
        row.extend_from_slice(&packet);
        tx.put(Table::Meta, packet_key(id), row);
        self.packets.insert(id, packet);
        self.order.push(id);
        if self.order.len() > PACKETS_MAX {
            let oldest = self.order.remove(0);
            self.packets.remove(&oldest);
            tx.delete(Table::Meta, packet_key(oldest));
        }
        true
    }
}

impl Packets {
    pub(super) fn exclude_nobody(&mut self) {
        self.excludes_nobody = true;
    }

    fn forget(&mut self, id: &EpochId, tx: &Tx<'_>) {
        self.order.retain(|known| known != id);
        if self.packets.remove(id).is_some() {
            tx.delete(Table::Meta, packet_key(*id));
        }
    }
}

fn packet_key(id: EpochId) -> Vec<u8> {
    let mut key = PACKET.to_vec();
    key.extend(id.0);
    key
}

impl Workspace {
    /// The membership changed: is there still an epoch to seal under, and is each held epoch known to count?
    pub(super) fn epochs_changed(&mut self, now: Timestamp, tx: &Tx<'_>) {
        for parent in self.vault.keyring.open_back_links(&self.id, &self.membership) {
            tx.put(Table::Epochs, parent.id().0, parent.to_bytes().to_vec());
        }
        if !self.is_active() || !self.needs_mint() {
            self.packets.mint_mono = None;
            return;
        }
        let writer = self.is_writer();
        if writer && self.packets.mint_mono.is_none() {
            let wait = if self.outbox.is_empty() { MINT_AFTER_MS + self.jitter(4 * MINT_AFTER_MS) } else { 0 };
            self.packets.mint_mono = Some(now.after_ms(wait));
        }
    }

    /// Whether no epoch at all may be sealed under; one that is only lacking here comes with its key packet.
    fn needs_mint(&self) -> bool {
        self.vault.keyring.sealing(&self.membership) == Sealing::Mint
    }

    /// Something waits to be sealed and there is no epoch for it.
    pub(super) fn mint_soon(&mut self, now: Timestamp) {
        let writer = self.is_writer();
        if writer && self.needs_mint() {
            let at = now.after_ms(1);
            self.packets.mint_mono = Some(self.packets.mint_mono.map_or(at, |known| known.min(at)));
        }
    }

    pub(super) fn run_epochs(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.packets.mint_mono.is_some_and(|at| at <= now.mono_ms) {
            self.packets.mint_mono = None;
            if self.is_active() && self.needs_mint() {
                self.mint(now, tx);
            }
        }
    }

    pub(super) fn epochs_deadline(&self) -> Option<u64> {
        self.packets.mint_mono
    }

    /// Makes a new epoch for everybody who is active now, and hands it out.
    pub(super) fn mint(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let (epoch, grant) = self.next_epoch(|_| true);
        let Some(op) = self.sign_op(now, OpBody::Epoch(grant)) else { return };
        let recipients = self.recipients();
        if !self.hand_out(now, epoch, &op, &recipients, tx) {
            self.problem("This device cannot make a new key: it holds no content key itself.".into());
        }
    }

    /// A new epoch over all others, for the active devices that stay.
    pub(super) fn next_epoch(&mut self, stays: impl Fn(&DeviceId) -> bool) -> (Epoch, EpochGrant) {
        let epoch = Epoch::generate(&self.id, &mut self.rng);
        let mut parents = Vec::new();
        for parent in self.membership.epoch_heads() {
            let held = self.vault.keyring.get(&parent).cloned();
            parents.extend(held.and_then(|parent| epoch.back_link(&parent, &mut self.rng)));
        }
        let recipients = self.membership.active_devices().map(|(device, _)| *device).filter(stays).collect();
        let grant = EpochGrant { commitments: *epoch.commitments(), parents, recipients };
        (epoch, grant)
    }

    /// Takes in and publishes an op of ours with the epoch it carries, and hands that to these keys. False if it cannot be
    /// wrapped: then nothing was done.
    pub(super) fn hand_out(
        &mut self,
        now: Timestamp,
        epoch: Epoch,
        op: &SignedOp,
        recipients: &[([u8; 32], Role)],
        tx: &Tx<'_>,
    ) -> bool {
        let Some(packet) = KeyPacket::make(&epoch, recipients, op, &mut self.rng) else { return false };
        let packet = packet.to_bytes();
        let id = epoch.id();
        self.keep_epoch(epoch, tx);
        self.packets.keep(now.wall_ms, id, packet.clone(), tx);
        self.publish_op(op, tx);
        self.news = true;
        self.spread_packet(id, &packet);
        true
    }

    /// Says the newest epochs' key packets in a room of an older one.
    pub(super) fn offer_keys(&mut self, link: LinkId, room: RoomId, epoch: EpochId) {
        let heads = self.membership.epoch_heads();
        let packets = heads.iter().filter(|head| **head != epoch).filter_map(|head| self.packets.packets.get(head));
        for packet in packets.take(OFFER_MAX).cloned().collect::<Vec<_>>() {
            self.publish_message(link, room, epoch, &Message::KeyPacket(packet));
        }
    }

    /// Says a key packet in every room with people in it but the epoch's own.
    fn spread_packet(&mut self, id: EpochId, packet: &Bytes) {
        for (link, room, epoch) in self.links.peopled_rooms() {
            if epoch != id {
                self.publish_message(link, room, epoch, &Message::KeyPacket(packet.clone()));
            }
        }
    }

    /// A key packet came; the epoch in it, if there was something in it for us.
    pub(super) fn key_packet(
        &mut self,
        now: Timestamp,
        packet: &Bytes,
        from: Option<DeviceId>,
        tx: &Tx<'_>,
    ) -> Option<EpochId> {
        let mut kems = vec![self.identity.device.kem_secret()];
        kems.extend(self.identity.root.as_ref().map(RootSecret::kem_secret));
        let opened = match KeyPacket::parse(packet).and_then(|packet| packet.open(&self.id, &kems)) {
            Ok(opened) => opened,
            Err(KeyPacketError::NotForUs) => {
                self.left_out(now, from, packet);
                return None;
            }
            Err(KeyPacketError::WrongSecrets) => {
                self.wrong_secrets(now, from, packet);
                return None;
            }
            Err(_) => {
                self.reject("malformed key packet");
                return None;
            }
        };
        if self.is_forged(&opened.op) {
            self.reject("key packet with a forged op");
            return None;
        }
        let id = opened.epoch.id();
        if !self.packets.keep(now.wall_ms, id, packet.clone(), tx) {
            return Some(id);
        }
        self.keep_epoch(opened.epoch, tx);
        self.take_ops_aside(std::slice::from_ref(&opened.op), tx);
        self.forget_unproven(&id, tx);
        self.news = true;
        Some(id)
    }

    /// In a room that was left behind somebody who belongs said a key as the newest it has. If others followed that, it lacks
    /// them: it is as silent there as we are, so nothing else tells.
    pub(super) fn key_said_behind(
        &mut self,
        now: Timestamp,
        route: Route,
        room: &EpochId,
        device: DeviceId,
        said: EpochId,
    ) {
        let is_followed = self.membership.epochs.contains_key(&said) && !self.membership.epoch_heads().contains(&said);
        if is_followed && self.is_left_behind(room) {
            self.offer_epochs(now, route, device, said, false);
        }
    }

    /// Whether an op names a signer that is known here and did not sign it. Of others it is known once their ops are here.
    fn is_forged(&self, op: &SignedOp) -> bool {
        let key = match op.signer() {
            Signer::Root(root) => Some(root.0),
            Signer::Device(device) => self.ops.as_ref().and_then(|ops| ops.signing_key(&device)),
            Signer::Recovery(key) => Some(key),
        };
        key.is_some_and(|key| op.verify(&key).is_err())
    }

    /// Of epochs whose ops do not come, keeps the newest few: whoever knows our device's public key can make such packets.
    fn forget_unproven(&mut self, newest: &EpochId, tx: &Tx<'_>) {
        let held: Vec<EpochId> = self.vault.keyring.epochs().map(|epoch| epoch.id()).collect();
        let stays =
            |id: &EpochId| self.membership.epochs.contains_key(id) || self.packets.used.contains(id) || id == newest;
        let order = |id: &EpochId| self.packets.order.iter().position(|known| known == id);
        let unproven = held.into_iter().filter(|id| !stays(id));
        let mut unproven: Vec<(Option<usize>, EpochId)> = unproven.map(|id| (order(&id), id)).collect();
        unproven.sort();
        let surplus = (unproven.len() + 1).saturating_sub(UNPROVEN_MAX);
        for (_, id) in unproven.into_iter().take(surplus) {
            self.vault.keyring.remove(&id);
            self.packets.forget(&id, tx);
            tx.delete(Table::Epochs, id.0);
        }
    }

    /// The epochs whose packets came last, of these.
    pub(super) fn newest_unproven<'a>(&self, mut unproven: Vec<&'a Arc<Epoch>>, max: usize) -> Vec<&'a Arc<Epoch>> {
        let order = |epoch: &&Arc<Epoch>| self.packets.order.iter().position(|known| *known == epoch.id());
        unproven.sort_by_key(|epoch| (std::cmp::Reverse(order(epoch)), epoch.id()));
        unproven.truncate(max);
        unproven
    }

    /// A key packet of an epoch for everybody who is active now.
    pub(super) fn rewrap(&mut self, id: &EpochId) -> Option<Bytes> {
        let epoch = self.vault.keyring.get(id).cloned()?;
        let op = self.op_of(id)?.clone();
        KeyPacket::make(&epoch, &self.recipients(), &op, &mut self.rng).map(|packet| packet.to_bytes())
    }

    /// The op that made an epoch, whether it counts or not.
    pub(super) fn op_of(&self, id: &EpochId) -> Option<&SignedOp> {
        let ops = self.ops.as_ref()?;
        if let Some(facts) = self.membership.epochs.get(id) {
            return ops.get(&facts.op);
        }
        ops.ops().find(|op| op.body().epoch().is_some_and(|grant| grant.id(&self.id) == *id))
    }

    /// The epochs that something held is sealed under and whose ops do not count: whoever sealed did not know that yet. No
    /// later key leads back to them, so who lacks what is sealed under them is given them, a few at a time.
    fn stray_epochs(&self) -> Vec<EpochId> {
        let stray = |id: &&EpochId| {
            !self.membership.epochs.contains_key(*id)
                && self.vault.keyring.get(id).is_some_and(|held| held.has_content())
        };
        self.packets.used.iter().filter(stray).copied().collect()
    }

    /// The keys that an epoch goes to: of everybody who is active now.
    fn recipients(&self) -> Vec<([u8; 32], Role)> {
        let mut keys = recipients(&self.membership);
        if self.packets.excludes_nobody {
            let former = self.membership.devices.values().filter(|device| !device.active);
            keys.extend(former.map(|device| (device.public.kem, Role::Writer)));
        }
        keys
    }

    /// A device states another epoch than ours, or lacks envelopes while there are epochs beside the one it states: hand
    /// it what it may lack. Why the second: of epochs made at the same time all choose the same to seal under, and who
    /// made that one hears nothing of the others, whose ops are sealed under themselves.
    pub(super) fn offer_epochs(
        &mut self,
        now: Timestamp,
        route: Route,
        device: DeviceId,
        stated: EpochId,
        lacks: bool,
    ) {
        let Some(ours) = self.sealing_epoch() else { return };
        let strays = if lacks { self.stray_epochs() } else { Vec::new() };
        let beside = lacks && self.membership.epoch_heads().iter().any(|head| *head != stated) || !strays.is_empty();
        let (until, times) = self.packets.offered.get(&device).copied().unwrap_or_default();
        if stated == ours && !beside {
            self.packets.offered.remove(&device);
            return;
        }
        if until > now.mono_ms {
            return;
        }
        self.packets.offered.insert(device, (now.after_ms(OFFER_AGAIN_MS), times + 1));
        if !self.is_our_turn(route, "offer", &[&device.0, &stated.0], times) {
            return;
        }
        let turn = strays.iter().cycle().skip((times as usize).saturating_mul(OFFER_MAX) % strays.len().max(1));
        let turn = turn.take(OFFER_MAX.min(strays.len()));
        let packets = turn.filter_map(|id| self.rewrap(id).or_else(|| self.packets.packets.get(id).cloned())).collect();
        self.send_packets(route, packets);
        if times >= OFFERS_BEFORE_REWRAP {
            let heads = self.membership.epoch_heads();
            let lacking = heads.iter().filter(|head| **head != stated).take(OFFER_MAX);
            let packets = lacking.filter_map(|head| self.rewrap(head)).collect();
            self.send_packets(route, packets);
            // What leads to their ops may be sealed under others that it was left out of.
            self.send_ops_since(route, &device, Some(&stated));
            return;
        }
        let without_slot = |head: &EpochId| *head != stated && self.membership.without_slot(head).contains(&device);
        let without: Vec<EpochId> = self.membership.epoch_heads().into_iter().filter(without_slot).collect();
        if !without.is_empty() {
            // It was let in at the same time as the epoch was made, or after.
            let packets = without.iter().take(OFFER_MAX).filter_map(|head| self.rewrap(head)).collect();
            return self.send_packets(route, packets);
        }
        let depth = |epoch: &EpochId| self.membership.epochs.get(epoch).map_or(0, |facts| facts.depth);
        if depth(&ours) > depth(&stated).saturating_add(OFFER_MAX as u32) {
            // The packets in between would only lead from one to the next: the newest, and the ops, lead back to all.
            if let Some(packet) = self.rewrap(&ours) {
                self.send_message(route, &Message::KeyPacket(packet));
                self.send_ops_since(route, &device, Some(&stated));
            }
            return;
        }
        let Packets { order, packets, .. } = &self.packets;
        let newest = order.iter().skip(order.len().saturating_sub(OFFER_MAX));
        let newest = newest.filter_map(|id| packets.get(id).cloned()).collect();
        self.send_packets(route, newest);
    }

    fn send_packets(&mut self, route: Route, packets: Vec<Bytes>) {
        for packet in packets {
            self.send_message(route, &Message::KeyPacket(packet));
        }
    }
}
