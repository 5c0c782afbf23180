//! Telling those who were removed, and those whom they let in meanwhile, so that their `status` can say why.
//!
//! Invariant: a notice carries ops only, and those prove themselves; it is sealed to the device it is for, and sent at most
//! once in a while. Of what is said in a room that was left behind, only ops are taken: who was let in there is known by
//! nothing else, and could not be told. Spec: docs/sealing.md#notices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use weft_protocol::cbor::from_bytes;
use weft_protocol::frame::ClientFrame;

use super::Workspace;
use super::links::Route;
use super::outbox::OpsBody;
use super::output::Rank;
use crate::envelope::{DirectKind, Kind, OpenHead, open_direct, open_head, seal_direct};
use crate::epoch::Epoch;
use crate::id::{DeviceId, EpochId, OpId};
use crate::message::Message;
use crate::op::{OPS_PER_ENVELOPE_MAX, OpBody, SignedOp, Signer, ops_from_bytes, ops_to_bytes};
use crate::store::Tx;
use crate::time::Timestamp;

/// A device is told again after this.
const AGAIN_MS: u64 = 30_000;
/// Op bytes in one notice: a to-device message holds 256 KiB padded.
const PART_BYTES_MAX: usize = 160 * 1024;
/// Notices for one device at once; a longer history than this does not fit, and it learns less.
const PARTS_MAX: usize = 16;
/// Devices remembered as told.
const TOLD_MAX: usize = 1024;

/// Who was told, until when not again, and how often; and the same of connections: one may speak as many devices.
#[derive(Debug, Default)]
pub(super) struct Notices {
    told: BTreeMap<DeviceId, (u64, u32)>,
    routes: BTreeMap<Route, u64>,
}

impl Notices {
    /// Whether a device is to be told, and how often it was; if so, it is told now.
    fn begin(&mut self, now: Timestamp, route: Route, device: DeviceId) -> Option<u32> {
        let (until, times) = self.told.get(&device).copied().unwrap_or_default();
        if until > now.mono_ms || self.routes.get(&route).is_some_and(|until| *until > now.mono_ms) {
            return None;
        }
        self.routes.retain(|_, until| *until > now.mono_ms);
        if self.told.len() >= TOLD_MAX && !self.told.contains_key(&device) {
            // Those who were told long ago begin anew.
            self.told.retain(|_, (until, _)| *until > now.mono_ms);
        }
        if self.told.len() >= TOLD_MAX || self.routes.len() >= TOLD_MAX {
            return None;
        }
        self.told.insert(device, (now.after_ms(AGAIN_MS), times.saturating_add(1)));
        self.routes.insert(route, now.after_ms(AGAIN_MS));
        Some(times)
    }
}

impl Workspace {
    /// Whether somebody who was removed holds this epoch, and we hold another one that they do not.
    pub(super) fn is_left_behind(&self, epoch: &EpochId) -> bool {
        let known = self.membership.epochs.contains_key(epoch);
        known && !self.membership.covering.contains(epoch) && self.sealing_epoch().is_some()
    }

    /// The epochs that those who were removed last held last, as long as somebody may be away since.
    pub(super) fn epochs_of_former(&self, now: Timestamp, max: usize) -> Vec<Arc<Epoch>> {
        let mut ends: Vec<_> = self
            .membership
            .epochs
            .values()
            .filter(|facts| self.membership.ends.contains_key(&facts.op))
            .filter(|facts| {
                self.ops
                    .as_ref()
                    .and_then(|ops| ops.get(&facts.op))
                    .is_some_and(|op| self.may_be_away_since(now, op.wall_ms()))
            })
            .map(|facts| (core::cmp::Reverse(facts.depth), facts.op, facts))
            .collect();
        ends.sort_by_key(|(depth, op, _)| (*depth, *op));
        let parents: BTreeSet<EpochId> =
            ends.iter().take(max).flat_map(|(_, _, facts)| &facts.grant.parents).map(|link| link.parent).collect();
        parents.iter().take(max).filter_map(|epoch| self.vault.keyring.get(epoch).cloned()).collect()
    }

    /// Somebody was removed: tells those of its devices that are here now.
    pub(super) fn tell_removed(&mut self, now: Timestamp, op: &OpId) {
        let gone: Vec<DeviceId> = match self.ops.as_ref().and_then(|ops| ops.get(op)).map(SignedOp::body) {
            Some(OpBody::Remove { root, .. }) => {
                let devices =
                    self.membership.devices.iter().filter(|(_, device)| device.root == *root && !device.active);
                devices.map(|(id, _)| *id).collect()
            }
            Some(OpBody::Revoke { devices, .. }) => devices.clone(),
            _ => return,
        };
        for device in gone {
            let facts = self.membership.devices.get(&device).filter(|facts| !facts.active);
            let Some(kem) = facts.map(|facts| facts.public.kem) else { continue };
            if let Some(route) = self.links.route_to(&device, |_| false) {
                self.tell_former(now, route, device, &kem);
            }
        }
    }

    /// A device that does not belong speaks: it hears why nobody answers.
    pub(super) fn tell_former(&mut self, now: Timestamp, route: Route, device: DeviceId, kem: &[u8; 32]) {
        let Some(times) = self.notices.begin(now, route, device) else { return };
        if !self.is_our_turn(route, "notice", &[&device.0], times) {
            return;
        }
        let parts = self.history_in_parts(&device);
        self.send_notices(route, kem, &parts);
    }

    /// Sends lists of ops to a device, sealed to it.
    pub(super) fn send_notices(&mut self, route: Route, kem: &[u8; 32], parts: &[Vec<u8>]) {
        for part in parts {
            if let Some(sealed) = seal_direct(&self.id, DirectKind::Notice, kem, part, &mut self.rng) {
                let frame = ClientFrame::Send { room: route.room, to: route.peer, payload: sealed.into_bytes() };
                self.send(route.link, Rank::Control, frame);
            }
        }
    }

    /// The op that ended a device, with those that made it count.
    fn end_of(&self, device: &DeviceId) -> Option<Vec<OpId>> {
        let ops = self.ops.as_ref()?;
        let root = self.membership.devices.get(device)?.root;
        let end = self.membership.former.get(&root).copied().or_else(|| self.revocation_of(device))?;
        let votes = ops.ops().filter(|op| matches!(op.body(), OpBody::Endorse { op } if *op == end)).map(SignedOp::id);
        Some(votes.chain([end]).collect())
    }

    /// The op that counts and revoked a device; of several the same everywhere.
    pub(super) fn revocation_of(&self, device: &DeviceId) -> Option<OpId> {
        let ended = self.membership.ends.iter().filter(|(_, end)| end.devices.contains(device));
        ended.map(|(op, _)| *op).min()
    }

    /// The ops that ended those who let a device in, or let in those who did, while they did not know of it: why its admission
    /// does not count.
    pub(super) fn ends_of_hosts(&self, device: &DeviceId) -> Option<Vec<OpId>> {
        let ops = self.ops.as_ref()?;
        let (admission, _) = ops.introduction(device)?;
        let known: BTreeSet<OpId> = ops.history(&[admission.id()])?.into_iter().map(SignedOp::id).collect();
        let (mut hosts, mut ready) = (BTreeSet::new(), vec![admission]);
        while let Some(op) = ready.pop() {
            // Who signed it, and who made the link by which it let somebody in.
            let invite = if let OpBody::Welcome { invite, .. } = op.body() { ops.get(invite) } else { None };
            for host in [Some(op), invite].into_iter().flatten().filter_map(by_device) {
                if hosts.insert(host) {
                    ready.extend(ops.introduction(&host).map(|(op, _)| op));
                }
            }
        }
        let gone = |host: &DeviceId| self.membership.devices.get(host).is_some_and(|facts| !facts.active);
        let ends = hosts.iter().filter(|host| gone(host)).filter_map(|host| self.end_of(host));
        Some(ends.filter(|end| end.last().is_some_and(|end| !known.contains(end))).flatten().collect())
    }

    /// What a device that does not belong needs to know why: parents first, in lists that fit a notice.
    fn history_in_parts(&self, device: &DeviceId) -> Vec<Vec<u8>> {
        let end = self.end_of(device).or_else(|| self.ends_of_hosts(device));
        let (Some(ops), Some(end)) = (&self.ops, end) else { return Vec::new() };
        in_parts(ops.history(&end).unwrap_or_default())
    }

    /// A device that no op which counts brings speaks under an epoch. If some op brings it at all, it hears why nobody answers;
    /// if none does, it may be new, and what it holds is asked for.
    pub(super) fn heard_stranger(
        &mut self,
        now: Timestamp,
        route: Route,
        epoch: &EpochId,
        head: OpenHead,
        payload: &[u8],
    ) {
        let device = head.header.chain.device;
        if let Some((_, cert)) = self.ops.as_ref().and_then(|ops| ops.introduction(&device)) {
            let public = cert.device();
            if let Err(error) = head.clone().verify(&public) {
                return self.reject(error.reason());
            }
            self.tell_former(now, route, device, &public.kem);
            if self.is_left_behind(epoch) {
                return;
            }
        }
        let kind = head.header.kind.to_byte();
        let body = head.trust_stored().open_body(&self.vault.keyring, payload).ok();
        if let Some(Some(Ok(message))) = body.map(|body| Message::from_body(kind, &body)) {
            self.stranger(now, route, epoch, device, message);
        }
    }

    /// A stored envelope came in a room that was left behind. If a stranger there was asked, the ops in it are taken in, and
    /// nothing else: they prove themselves, and may say who it is.
    pub(super) fn behind(&mut self, now: Timestamp, route: Route, payload: &[u8], tx: &Tx<'_>) {
        let strange = |device: &DeviceId| !self.membership.devices.contains_key(device);
        if !self.pulls.0.values().any(|pull| pull.route == route && strange(&pull.device)) {
            return;
        }
        let Ok(head) = open_head(&self.id, &self.vault.keyring, payload) else { return };
        if head.header.kind == Kind::Ops {
            let body = head.trust_stored().open_body(&self.vault.keyring, payload).ok();
            let body = body.and_then(|body| from_bytes::<OpsBody>(&body).ok()).unwrap_or_default();
            let ops: Vec<SignedOp> = body.0.iter().filter_map(|bytes| SignedOp::parse(&self.id, bytes).ok()).collect();
            self.take_ops_aside(&ops, tx);
        }
        self.progress(now, route, payload.len() as u64, &[]);
    }

    /// Something for one device came, from whomever: what it carries is taken in if it proves itself.
    pub(super) fn direct(&mut self, now: Timestamp, route: Route, payload: &Bytes, tx: &Tx<'_>) {
        match open_direct(&self.id, self.identity.device.kem_secret(), payload) {
            Ok((DirectKind::Notice, message)) => match ops_from_bytes(&self.id, &message) {
                Ok(ops) => self.take_ops_aside(&ops, tx),
                Err(_) => self.reject("malformed notice"),
            },
            Ok((DirectKind::Slot, packet)) => {
                let from = self.links.room(route.link, &route.room).and_then(|room| *room.peers.get(&route.peer)?);
                self.key_packet(now, &Bytes::from(packet), from, tx);
            }
            Ok((DirectKind::Nack, message)) => self.nack(now, route, &message),
            // To another device in this room; or what belongs at the door.
            Ok((DirectKind::Knock | DirectKind::Answer | DirectKind::Refusal, _)) | Err(_) => {}
        }
    }
}

fn by_device(op: &SignedOp) -> Option<DeviceId> {
    match op.signer() {
        Signer::Device(device) => Some(device),
        Signer::Root(_) | Signer::Recovery(_) => None,
    }
}

/// Ops as lists that fit a notice each, in the order given; what is beyond the last is left out.
pub(super) fn in_parts(ops: Vec<&SignedOp>) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<&SignedOp>> = Vec::new();
    let mut bytes = 0;
    for op in ops {
        bytes += op.bytes().len() + 8;
        match parts.last_mut() {
            Some(part) if bytes <= PART_BYTES_MAX && part.len() < OPS_PER_ENVELOPE_MAX => part.push(op),
            _ => {
                bytes = op.bytes().len() + 8;
                parts.push(vec![op]);
            }
        }
    }
    parts.truncate(PARTS_MAX);
    parts.into_iter().map(|part| ops_to_bytes(part.into_iter())).collect()
}
