//! Keys that follow the membership: minting an epoch when one is needed, and handing it to those it is for.
//!
//! Invariant: nothing is sealed under an epoch that a device known to be gone has received. If there is no epoch without
//! it, the first writer with something to send mints one at once, the others after a random while, in case nobody does.
//! Spec: docs/sealing.md#epochs, docs/sync.md#epochs.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Workspace;
use super::links::Route;
use super::outbox::{Batch, OpsBody};
use crate::epoch::Epoch;
use crate::id::{DeviceId, EpochId};
use crate::key_packet;
use crate::membership::Role;
use crate::message::Message;
use crate::op::{OpBody, SignedOp};
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;

const PACKET: &[u8] = b"packet/";
/// Key packets kept to be handed on: one a rotation; older ones are reached through back links of later ones.
const PACKETS_MAX: usize = 64;
/// Packets offered to a device that states an older epoch.
const OFFER_MAX: usize = 4;
/// ... and not again within this.
const OFFER_AGAIN_MS: u64 = 5_000;
/// A writer with nothing to send waits this long for somebody else to mint.
const MINT_AFTER_MS: u64 = 2_000;

/// Key packets, to be handed on, and when to make the next one.
#[derive(Debug, Default)]
pub(super) struct Packets {
    packets: BTreeMap<EpochId, Bytes>,
    /// The order in which they came; the last is the newest.
    order: Vec<EpochId>,
    offered: BTreeMap<DeviceId, u64>,
    mint_mono: Option<u64>,
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
        packets
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

fn packet_key(id: EpochId) -> Vec<u8> {
    let mut key = PACKET.to_vec();
    key.extend(id.0);
    key
}

impl Workspace {
    /// The membership changed: is there still an epoch to seal under, and is each held epoch known to count?
    pub(super) fn epochs_changed(&mut self, now: Timestamp, _tx: &Tx<'_>) {
        if !self.is_active() || self.sealing_epoch().is_some() {
            self.packets.mint_mono = None;
            return;
        }
        let writer = self.membership.role_of(&self.my_device()).is_some_and(|role| role >= Role::Writer);
        if writer && self.packets.mint_mono.is_none() {
            let wait = if self.outbox.is_empty() { MINT_AFTER_MS + self.jitter(4 * MINT_AFTER_MS) } else { 0 };
            self.packets.mint_mono = Some(now.after_ms(wait));
        }
    }

    /// Something waits to be sealed and there is no epoch for it.
    pub(super) fn mint_soon(&mut self, now: Timestamp) {
        let writer = self.membership.role_of(&self.my_device()).is_some_and(|role| role >= Role::Writer);
        if writer {
            let at = now.after_ms(1);
            self.packets.mint_mono = Some(self.packets.mint_mono.map_or(at, |known| known.min(at)));
        }
    }

    pub(super) fn run_epochs(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.packets.mint_mono.is_some_and(|at| at <= now.mono_ms) {
            self.packets.mint_mono = None;
            // Only with peers who could have minted already, or alone: an island mints its own.
            if self.is_active() && self.sealing_epoch().is_none() {
                self.mint(now, tx);
            }
        }
    }

    pub(super) fn epochs_deadline(&self) -> Option<u64> {
        self.packets.mint_mono
    }

    /// Makes a new epoch for everybody who is active now, and hands it out.
    pub(super) fn mint(&mut self, now: Timestamp, tx: &Tx<'_>) {
        let parents: Vec<EpochId> = self.vault.keyring.tips(&self.membership);
        let epoch = Epoch::generate(&self.id, &mut self.rng);
        let grant = self.vault.keyring.grant(&epoch, &parents, &self.membership, &mut self.rng);
        let op = SignedOp::make(
            self.id,
            self.ops.heads(),
            &self.identity.device,
            now.wall_ms,
            OpBody::Epoch(grant),
        );
        let packet = match key_packet::make(&epoch, &self.membership, &op, &mut self.rng) {
            Ok(packet) => packet,
            Err(error) => return self.problem(format!("No new key could be made: {error}")),
        };
        let id = epoch.id();
        self.keep_epoch(epoch, tx);
        self.packets.keep(now.wall_ms, id, packet.clone(), tx);
        let ops = OpsBody(vec![op.bytes().clone()]);
        self.outbox.push(&Batch::Ops(ops.clone()), tx);
        self.add_ops(now, &ops, tx);
        self.spread_packet(id, &packet);
    }

    /// Says a key packet in every room with people in it but the epoch's own.
    fn spread_packet(&mut self, id: EpochId, packet: &Bytes) {
        for (link, room, epoch) in self.links.peopled_rooms() {
            if epoch != id {
                self.publish_message(link, room, epoch, &Message::KeyPacket(packet.clone()));
            }
        }
    }

    /// A key packet came.
    pub(super) fn key_packet(&mut self, now: Timestamp, packet: &Bytes, tx: &Tx<'_>) {
        let opened = match key_packet::open(&self.id, packet, &self.identity, &self.vault.keyring) {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(error) => return self.reject(error.reason()),
        };
        if !self.packets.keep(now.wall_ms, opened.epoch.id(), packet.clone(), tx) {
            return;
        }
        for parent in opened.parents {
            self.keep_epoch(parent, tx);
        }
        self.keep_epoch(opened.epoch, tx);
        self.add_ops(now, &OpsBody(vec![opened.op]), tx);
        self.sync_rooms(now);
        self.retry_parked(now, tx);
    }

    /// A device states another epoch than ours: hand it what it may lack.
    pub(super) fn offer_epochs(&mut self, now: Timestamp, route: Route, device: DeviceId, stated: EpochId) {
        let Some(ours) = self.sealing_epoch() else { return };
        if stated == ours || self.packets.offered.get(&device).is_some_and(|until| *until > now.mono_ms) {
            return;
        }
        self.packets.offered.insert(device, now.after_ms(OFFER_AGAIN_MS));
        let newest: Vec<Bytes> = self
            .packets
            .order
            .iter()
            .rev()
            .take(OFFER_MAX)
            .filter_map(|id| self.packets.packets.get(id).cloned())
            .collect();
        for packet in newest.into_iter().rev() {
            self.send_message(route, &Message::KeyPacket(packet));
        }
    }
}
