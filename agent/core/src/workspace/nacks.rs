//! Keys that are not what was promised, or not there: refused, complained of, and given anew.
//!
//! Invariant: secrets that do not match what their op commits to are never held; whoever got such a slot, or none, tells up to
//! three members, signed, and each gives it the epoch anew, with all ops, as often as a bound allows. Why members: the one
//! packet that everybody hands on is its maker's, who alone chose what stands in each slot. Why the ops: the one that made
//! the epoch may stand in envelopes under it alone. Spec: docs/sealing.md#nack.

use std::collections::BTreeMap;

use bytes::Bytes;
use weft_protocol::frame::ClientFrame;

use super::Workspace;
use super::links::Route;
use super::output::Rank;
use crate::envelope::{DirectKind, seal_direct};
use crate::id::{DeviceId, EpochId};
use crate::key_packet::KeyPacket;
use crate::nack::Nack;
use crate::op::SignedOp;
use crate::time::Timestamp;

/// Members told at once.
const TOLD_MAX: usize = 3;
/// We complain of one epoch again after this.
const COMPLAIN_AGAIN_MS: u64 = 10_000;
/// A device is given keys anew at most so often.
const ANSWER_AGAIN_MS: u64 = 10_000;
/// Epochs and devices remembered; beyond, the oldest bounds are forgotten.
const REMEMBERED_MAX: usize = 256;

/// Of what we complained, and whose complaints we answered, and until when not again.
#[derive(Debug, Default)]
pub(super) struct Nacks {
    sent: BTreeMap<EpochId, u64>,
    answered: BTreeMap<DeviceId, u64>,
}

fn bounded<K: Ord + Copy>(until: &mut BTreeMap<K, u64>, key: K, now: Timestamp, again_ms: u64) -> bool {
    if until.get(&key).is_some_and(|until| *until > now.mono_ms) {
        return false;
    }
    if until.len() >= REMEMBERED_MAX {
        until.retain(|_, until| *until > now.mono_ms);
        if until.len() >= REMEMBERED_MAX {
            return false;
        }
    }
    until.insert(key, now.after_ms(again_ms));
    true
}

impl Workspace {
    /// A slot for us opened to something else than its op commits to.
    pub(super) fn wrong_secrets(&mut self, now: Timestamp, from: Option<DeviceId>, packet: &Bytes) {
        self.reject("a key that is not what its op commits to");
        let who = from.map_or_else(|| "Somebody".to_owned(), |from| self.device_name(&from));
        self.problem(format!(
            "{who} handed this device a key that is not what the workspace was promised. It was refused, and other members \
             were asked for the right one."
        ));
        if let Ok(epoch) = KeyPacket::parse(packet).map(|packet| packet.epoch) {
            self.complain(now, epoch, from, packet);
        }
    }

    /// There is no slot for us: we came in when the epoch was made, or its maker left us out.
    pub(super) fn left_out(&mut self, now: Timestamp, from: Option<DeviceId>, packet: &Bytes) {
        let Ok(epoch) = KeyPacket::parse(packet).map(|packet| packet.epoch) else { return };
        if from.is_some() && self.is_active() && self.vault.keyring.get(&epoch).is_none() {
            self.complain(now, epoch, from, packet);
        }
    }

    fn complain(&mut self, now: Timestamp, epoch: EpochId, from: Option<DeviceId>, packet: &Bytes) {
        if !self.nacks_sent || !bounded(&mut self.nacks.sent, epoch, now, COMPLAIN_AGAIN_MS) {
            return;
        }
        let nack = Nack::make(&self.id, &self.identity.device, epoch, from.unwrap_or(DeviceId([0; 16])), packet);
        // Whoever handed it on comes last: it may be the one who made it so.
        let mut devices: Vec<DeviceId> = self.links.connected().into_iter().collect();
        devices.sort_by_key(|device| (Some(*device) == from, *device));
        for device in devices.into_iter().take(TOLD_MAX) {
            let kem = self.membership.devices.get(&device).filter(|facts| facts.active).map(|facts| facts.public.kem);
            let route = self.links.route_to(&device, |epoch| self.is_left_behind(epoch));
            if let (Some(kem), Some(route)) = (kem, route) {
                self.send_direct(route, DirectKind::Nack, &kem, nack.bytes());
            }
        }
    }

    /// Somebody complains of a key: they get it anew, and the person here hears of it.
    pub(super) fn nack(&mut self, now: Timestamp, route: Route, message: &[u8]) {
        let Ok(nack) = Nack::parse(message) else { return self.reject("malformed NACK") };
        let device = nack.device();
        let Some(facts) = self.membership.devices.get(&device).filter(|facts| facts.active).cloned() else { return };
        if nack.verify(&self.id, &facts.public.sign).is_err() {
            return self.reject("NACK with a wrong signature");
        }
        if !bounded(&mut self.nacks.answered, device, now, ANSWER_AGAIN_MS) {
            return;
        }
        let Some(packet) = self.rewrap(&nack.epoch()) else { return };
        self.send_direct(route, DirectKind::Slot, &facts.public.kem, &packet);
        self.send_ops_since(route, &device, None);
        let op = self.op_of(&nack.epoch());
        let promised = |op: &&SignedOp| op.body().epoch().is_some_and(|grant| grant.recipients.contains(&device));
        let Some(op) = op.filter(promised).map(SignedOp::id) else {
            // It came in at the same time as the key was made, or was to be kept out of a key that does not count: nobody is to
            // blame.
            return;
        };
        let maker = self.because(&op).map_or_else(|| "somebody".to_owned(), |because| because.by);
        let handed = self.device_name(&nack.from());
        self.problem(format!(
            "{} says that the key that {maker} made and {handed} handed on is not what {maker} promised. It was given it \
             anew. One of them is wrong: look at `weft members --why`.",
            self.device_name(&device)
        ));
    }

    fn send_direct(&mut self, route: Route, kind: DirectKind, kem: &[u8; 32], message: &[u8]) {
        if let Some(sealed) = seal_direct(&self.id, kind, kem, message, &mut self.rng) {
            let frame = ClientFrame::Send { room: route.room, to: route.peer, payload: sealed.into_bytes() };
            self.send(route.link, Rank::Control, frame);
        }
    }

    /// A device as people know it: whose, and which.
    pub(super) fn device_name(&self, device: &DeviceId) -> String {
        self.membership.devices.get(device).map_or_else(
            || "somebody".to_owned(),
            |facts| format!("{} ({})", self.member_name(&facts.root), facts.label),
        )
    }
}
