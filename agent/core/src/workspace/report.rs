//! Answering people: status, invites, flush, leaving.
//!
//! Invariant: what is said to be held by a peer was stated by that peer, signed; what is said to be saved is durable.
//! Spec: docs/using.md.

use std::collections::{BTreeMap, BTreeSet};

use super::admission::role_name;
use super::birth::{LEFT, PAUSED};
use super::command::{Command, LinkStatus, MemberStatus, OpenInvite, PeerStatus, Reply, RequestId, State, Status};
use super::links::Purpose;
use super::members::By;
use super::output::Output;
use super::{Phase, Workspace};
use crate::files::Halt;
use crate::frontier::Frontier;
use crate::id::{DeviceId, OpId};
use crate::membership::{Lawful, Role};
use crate::op::OpBody;
use crate::store::{Read, Table, Tx};
use crate::time::Timestamp;

/// While a flush waits, peers are asked again this often.
const FLUSH_ASK_MS: u64 = 200;
/// Devices that are named when a flush ends without them.
const LACKING_SHOWN_MAX: usize = 3;
/// Flushes waiting at once.
const FLUSHES_MAX: usize = 16;

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    if bytes < 1_000_000 { format!("{} kB", bytes.div_ceil(1000)) } else { format!("{} MB", bytes.div_ceil(1_000_000)) }
}

/// Somebody waits until everything is everywhere.
#[derive(Debug)]
pub(super) struct Flush {
    request: RequestId,
    until_mono: u64,
    peers: u32,
    next_ask_mono: u64,
    /// A statement older than this says nothing of what was taken in before the flush.
    asked: bool,
}

impl Workspace {
    pub(super) fn answer(
        &mut self,
        now: Timestamp,
        request: RequestId,
        command: Command,
        tx: &Tx<'_>,
    ) -> Option<Reply> {
        if self.has_left() && command.takes_a_member() {
            return Some(self.not_in());
        }
        Some(match command {
            Command::Status => Reply::Status(Box::new(self.status(now, tx))),
            Command::Invite { terms, lan } => {
                if !self.is_active() {
                    return Some(self.not_in());
                }
                match self.invite(now, &terms, &lan, tx) {
                    Ok((id, link)) => {
                        Reply::Invite { link: link.to_text(), id, beyond_lan: !self.relays.urls().is_empty() }
                    }
                    Err(why) => Reply::Refused(why),
                }
            }
            Command::Invites => Reply::Invites(self.open_invites(now, tx)),
            Command::RevokeInvite(id) => self.revoke_invite(now, id, tx),
            Command::Requests => self.list_requests(now, tx),
            Command::Approve(device) => self.approve(now, &device, tx),
            Command::Deny(device) => self.deny(now, &device, tx),
            Command::Members => Reply::Members(Box::new(self.members(tx))),
            Command::RemoveMember(root) => self.remove_member(now, root, By::Device, tx),
            Command::SetRole(root, role) => self.set_role(now, root, role, By::Device, tx),
            Command::RevokeDevices(devices) => self.revoke_devices(now, devices, tx),
            Command::KeepLate(root) => self.keep_late(now, root, tx),
            Command::Agree(op) => self.agree(now, op, tx),
            Command::Pass { root, lan } => self.make_pass(now, root, &lan, tx),
            Command::Pair { until_mono_ms, lan } => self.pair(now, until_mono_ms, &lan, tx),
            Command::Pairing => self.pairing(),
            Command::AcceptDevice { device, same } => self.accept_device(now, device, same, tx),
            Command::ForgetRoot => {
                self.forget_root();
                Reply::Done
            }
            Command::Attest { did, proof } => self.attest(now, did, &proof, tx),
            Command::TakeIn(envelope) => {
                if self.is_active() {
                    self.receive(now, envelope, tx);
                }
                Reply::Done
            }
            Command::ByRecoveryKey(key, deed) => self.by_recovery_key(now, &key, deed, tx),
            Command::Leave => {
                self.leave(now, tx);
                Reply::Done
            }
            Command::Resume(answer) => {
                if self.reborn {
                    self.go_on(now, tx);
                    Reply::Done
                } else if self.files.handle_resume(now, answer, &mut self.vault, tx) {
                    self.effects.push(Output::Halted(None));
                    Reply::Done
                } else {
                    Reply::Refused("Nothing waits for an answer here.".into())
                }
            }
            Command::Pause(paused) => {
                self.pause(now, paused, tx);
                Reply::Done
            }
            Command::Flush { until_mono_ms, peers } => {
                if self.flushes.len() >= FLUSHES_MAX {
                    return Some(Reply::Refused("Too many flushes wait already.".into()));
                }
                let flush = Flush { request, until_mono: until_mono_ms, peers, next_ask_mono: 0, asked: false };
                self.flushes.push(flush);
                return None;
            }
            Command::AddRelay(url) => self.set_relay(now, &url, true, tx),
            Command::RemoveRelay(url) => self.set_relay(now, &url, false, tx),
            Command::Log { since_wall_ms, limit } => self.log(since_wall_ms, limit, tx),
            Command::LanAddresses(lan) => {
                let mut lan = lan;
                lan.truncate(crate::message::ADDRESSES_MAX);
                if self.lan != lan {
                    self.lan = lan;
                    self.beacon_soon(now);
                }
                Reply::Done
            }
        })
    }

    /// Why this device cannot act on the workspace.
    pub(super) fn not_in(&self) -> Reply {
        Reply::Refused(match self.phase {
            Phase::Left => format!("You do not belong to '{}' any more; `weft status` says why.", self.name),
            Phase::Joining(_) | Phase::Enrolling(_) | Phase::Active => {
                "This workspace is not joined yet; wait for `weft status`.".into()
            }
        })
    }

    /// Batches that were made here and that nobody gets as things stand: their author may only read, or does not belong.
    fn kept_here(&self) -> u64 {
        let stays = self.is_active() && !self.is_writer() || self.has_left();
        if stays { self.outbox.contents() as u64 } else { 0 }
    }

    fn set_relay(&mut self, now: Timestamp, url: &str, present: bool, tx: &Tx<'_>) -> Reply {
        if url.len() > crate::message::ADDRESS_BYTES_MAX || !(url.starts_with("ws://") || url.starts_with("wss://")) {
            return Reply::Refused("A relay is named by a URL like wss://relay.example:443".into());
        }
        if !self.relays.set(url, now.wall_ms, present, tx) {
            return Reply::Refused("The list of relays is full; remove one first.".into());
        }
        self.tell_addresses();
        self.beacon_soon(now);
        Reply::Done
    }

    fn pause(&mut self, now: Timestamp, paused: bool, tx: &Tx<'_>) {
        self.paused = paused;
        if paused {
            tx.put(Table::Meta, PAUSED, vec![1]);
        } else {
            tx.delete(Table::Meta, PAUSED);
        }
        self.sync_rooms(now);
        self.after_route_loss(now);
    }

    fn revoke_invite(&mut self, now: Timestamp, id: OpId, tx: &Tx<'_>) -> Reply {
        if !self.membership.invites.get(&id).is_some_and(|invite| invite.open) {
            return Reply::Refused("There is no such open invite; `weft invites` lists them.".into());
        }
        let op = self.sign_op(now, OpBody::Uninvite { invite: id });
        let Some(op) = op.filter(|op| self.judge(op) == Lawful::Yes) else {
            return Reply::Refused("Only the member who made an invite, or an admin or owner, can revoke it.".into());
        };
        tx.delete(Table::Invites, id.0);
        self.publish_op(&op, tx);
        Reply::Done
    }

    /// Tells the others that we go, and goes.
    fn leave(&mut self, now: Timestamp, tx: &Tx<'_>) {
        if self.is_active() {
            // Not taken in here: once it counts, this device could not seal it any more.
            if let Some(op) = self.sign_op(now, OpBody::Leave) {
                let ops = super::outbox::OpsBody(vec![op.bytes().clone()]);
                self.outbox.push(&super::outbox::Batch::Ops(ops), tx);
                self.seal(now, tx);
            }
        }
        self.leave_now(now, tx);
    }

    /// We are not part of it any more.
    pub(super) fn leave_now(&mut self, now: Timestamp, tx: &Tx<'_>) {
        self.phase = Phase::Left;
        tx.put(Table::Meta, LEFT, vec![1]);
        self.sync_rooms(now);
    }

    /// Those that end first come first.
    fn open_invites(&self, now: Timestamp, tx: &Tx<'_>) -> Vec<OpenInvite> {
        let open = self.membership.invites.iter();
        let mut open: Vec<OpenInvite> = open
            .filter(|(_, invite)| invite.open && invite.expires_wall_ms > now.wall_ms && invite.used < invite.uses)
            .map(|(id, invite)| OpenInvite {
                id: *id,
                role: invite.role,
                expires_wall_ms: invite.expires_wall_ms,
                uses: invite.uses,
                used: invite.used,
                issuer: self.member_name(&invite.issuer),
                approval: invite.approval || self.membership.policy.approval,
                whom: invite.whom.map(|root| {
                    let member = self.membership.members.get(&root);
                    member.map_or_else(|| root.to_string(), |member| member.name.clone())
                }),
                link: tx.get(Table::Invites, &id.0).and_then(|row| String::from_utf8(row.to_vec()).ok()),
            })
            .collect();
        open.sort_by_key(|invite| (invite.expires_wall_ms, invite.id));
        open
    }

    /// The devices reachable now, without those that do not belong any more: they may still be in an old room.
    pub(super) fn members_here(&self) -> std::collections::BTreeSet<DeviceId> {
        let mut here = self.links.connected();
        here.retain(|device| self.belongs(device));
        here
    }

    /// Whether this is a device of a member, as things stand.
    pub(super) fn belongs(&self, device: &DeviceId) -> bool {
        self.membership.role_of(device).is_some()
    }

    /// What was refused since the start, and what is held and does not count, by reason.
    fn rejected_by_reason(&self) -> std::collections::BTreeMap<String, u64> {
        let mut rejected = self.rejected.clone();
        for (why, count) in self.verdicts.counts() {
            *rejected.entry(why).or_default() += count;
        }
        rejected
    }

    /// Whether nothing waits here: all that is in the folder is read, stored, and sealed as far as there is anybody to seal
    /// it for, in whatever state this workspace is. Spec: docs/sync.md#held-and-settled.
    fn nothing_waits_here(&self) -> bool {
        self.is_active()
            && self.scanned
            && self.files.halted().is_none()
            && self.files.settled()
            && self.verdicts.is_settled()
            && !self.is_doubted()
            && !self.reborn
            && self.checkpoints_are_settled()
            && !self.holes.are_waited_for()
            && !self.effects.in_flight()
            // After somebody went, a new key is about to be made.
            && self.sealing_epoch().is_some()
            && (self.is_alone() || self.waiting_batches() == 0)
    }

    /// Batches that were made here, or came beside the chains, and are in no envelope.
    fn waiting_batches(&self) -> usize {
        self.outbox.len() + self.unsaid()
    }

    /// Whether a device has stated that it holds all that is sealed here, with all pieces of what files hold now.
    fn holds_all_sealed(&self, device: &DeviceId) -> bool {
        // A keeper opens no manifest, and cannot know which pieces it lacks.
        let role = self.membership.role_of(device);
        let tells = role.is_some_and(|role| role >= Role::Reader || !self.files.has_blobs());
        tells && self.peers.get(device).is_some_and(|peer| peer.lacks == 0 && peer.frontier.covers(&self.frontier))
    }

    /// The other devices with which everything would be if this machine were lost now.
    fn holders(&self) -> usize {
        if self.nothing_waits_here() {
            self.peers.keys().filter(|device| self.holds_all_sealed(device)).count()
        } else {
            0
        }
    }

    /// Nothing waits, here or with connected peers, and this machine could be lost: another device holds everything. Who is
    /// the only device of a workspace has nobody to wait for.
    fn settled(&self) -> bool {
        let mut connected = self.members_here().into_iter().filter_map(|device| self.peers.get(&device));
        self.nothing_waits_here()
            && self.blobs.pending() == 0
            && self.stated_lacks() == 0
            && self.pulls.0.is_empty()
            && connected.all(|peer| peer.frontier == self.frontier && peer.lacks == 0)
            && (self.is_alone() || self.holders() > 0)
    }

    fn status(&self, now: Timestamp, read: &dyn Read) -> Status {
        let figures = self.files.figures();
        let labels = self.device_labels();
        let connected = self.links.connected();
        let me = self.my_device();
        // Whoever does not belong any more may have said anything.
        let believed = self.peers.iter().filter(|(device, peer)| self.belongs(device) && !peer.boasts());
        let gap: u64 = believed.map(|(_, peer)| self.frontier.gap_to(&peer.frontier)).max().unwrap_or(0);
        let own = self.own.tip.map_or(0, |tip| tip.seq);
        let held_by_any = self.peers.values().map(|peer| peer.frontier.seq(&self.own.chain)).max();
        let unconfirmed = own - held_by_any.unwrap_or(0).min(own);
        let kept_here = self.kept_here();
        let to_send = self.waiting_batches() as u64 - kept_here + unconfirmed;
        let lacking = self.peers.iter().filter(|(device, peer)| self.belongs(device) && peer.heard_wall_ms > 0);
        let bytes_to_send = lacking.map(|(_, peer)| peer.lacks).min().unwrap_or(0);
        Status {
            workspace: self.id,
            name: self.name.clone(),
            state: self.state(),
            settled: self.settled(),
            folder_settled: self.scanned && self.files.settled() && self.blobs.pending() == 0,
            files: figures.files,
            document_bytes: figures.document_bytes,
            changes: figures.changes,
            frontier_gap: gap,
            // With nobody to send to, nothing is pending.
            pending_send: if self.is_alone() || self.has_left() { 0 } else { to_send },
            bytes_to_send: if self.is_alone() || self.has_left() { 0 } else { bytes_to_send },
            held_by: self.holders() as u64,
            kept_here,
            lacks_bytes: self.lacks,
            decisions: self.decisions(now) as u64,
            in_touch: self.may_seal() && self.sealing_epoch().is_some() && !self.members_here().is_empty(),
            pending_receive: gap.saturating_add(self.blobs.pending() as u64 + figures.pending_writes),
            halt: self.files.halted().cloned(),
            links: self
                .links
                .0
                .values()
                .map(|link| LinkStatus {
                    url: link.up.url.clone(),
                    kind: link.up.kind,
                    peers: link
                        .rooms
                        .values()
                        .filter(|room| matches!(room.purpose, Purpose::Epoch(_)))
                        .map(|room| u32::try_from(room.peers.len()).unwrap_or(u32::MAX))
                        .max()
                        .unwrap_or(0),
                })
                .collect(),
            peers: self
                .membership
                .devices
                .iter()
                .filter(|(device, facts)| **device != me && facts.active)
                .map(|(device, facts)| {
                    let peer = self.peers.get(device);
                    let theirs = peer.map_or_else(Frontier::default, |peer| peer.frontier.clone());
                    PeerStatus {
                        device: *device,
                        label: labels.get(device).unwrap_or(&facts.label).clone(),
                        member: self.member_name(&facts.root),
                        connected: connected.contains(device),
                        heard_wall_ms: peer.map_or(0, |peer| peer.heard_wall_ms),
                        lacks: theirs.gap_to(&self.frontier) + self.waiting_batches() as u64,
                        lacks_bytes: peer.map_or(0, |peer| peer.lacks),
                    }
                })
                .collect(),
            relays: self.relays.urls(),
            problems: self
                .ended_because()
                .into_iter()
                .chain(self.checkpoints.problems().cloned())
                .chain(self.problems.iter().cloned())
                .chain(self.damage_problems(now, read))
                .collect(),
            unverified: self.unverified(),
            rejected: self.rejected_by_reason(),
            members: self
                .membership
                .members
                .iter()
                .map(|(root, member)| MemberStatus {
                    root: *root,
                    name: member.name.clone(),
                    role: member.role,
                    devices: u32::try_from(
                        self.membership.devices.values().filter(|device| device.active && device.root == *root).count(),
                    )
                    .unwrap_or(u32::MAX),
                    me: *root == self.identity.root_public.sign,
                })
                .collect(),
            device: me,
            requests: self.requests_waiting(now, read),
            knocking: self.knocking(),
            only_owner: self.is_only_owner(),
        }
    }

    /// What this replica holds; for the simulator's oracles.
    #[must_use]
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// A line that says who belongs, equal on replicas with equal op sets; for the simulator's oracles.
    #[must_use]
    pub fn membership_digest(&self) -> BTreeMap<String, String> {
        self.membership
            .devices
            .iter()
            .map(|(device, facts)| {
                let role = self.membership.role_of(device).map_or("none", role_name);
                (device.to_string(), format!("{role} {}", if facts.active { "active" } else { "gone" }))
            })
            .collect()
    }

    pub(super) fn check_flushes(&mut self, now: Timestamp) {
        if self.flushes.is_empty() {
            return;
        }
        let connected = self.members_here();
        let holding = connected.iter().filter(|device| self.holds_all_sealed(device)).count();
        let here = self.settled();
        // Waiting changes nothing of it.
        let asks = matches!(self.files.halted(), Some(Halt::MassDelete { .. }));
        let never = self.has_left() || self.kept_here() > 0 || self.is_active() && (self.paused || asks);
        let mut ask = false;
        let mut done = Vec::new();
        for flush in &mut self.flushes {
            let enough = holding == connected.len() && holding >= flush.peers.max(1) as usize;
            if flush.asked && here && enough && !never {
                done.push((flush.request, flush.peers, true));
            } else if never || flush.until_mono <= now.mono_ms {
                done.push((flush.request, flush.peers, false));
            } else if flush.next_ask_mono <= now.mono_ms {
                flush.next_ask_mono = now.after_ms(FLUSH_ASK_MS);
                flush.asked = true;
                ask = true;
            }
        }
        if ask {
            for (link, room, _) in self.links.peopled_rooms() {
                self.ask(now, link, room, true);
            }
        }
        self.flushes.retain(|flush| !done.iter().any(|(request, ..)| *request == flush.request));
        for (request, asked, complete) in done {
            let missing = if complete { String::new() } else { self.missing_for_flush(&connected, asked) };
            // With what is not sealed yet nobody is.
            let peers = if here { u32::try_from(holding).unwrap_or(u32::MAX) } else { 0 };
            self.effects.push(Output::Reply(request, Reply::Flushed { complete, peers, missing }));
        }
    }

    fn missing_for_flush(&self, connected: &BTreeSet<DeviceId>, asked: u32) -> String {
        let waiting = self.waiting_batches();
        let unsent = match waiting {
            0 => String::new(),
            1 => ", and 1 batch of edits waits to be sent".to_owned(),
            more => format!(", and {more} batches of edits wait to be sent"),
        };
        if self.has_left() {
            return "you do not belong here any more; `weft status` says why".into();
        }
        if !self.is_active() {
            return "this workspace is still waiting to be let in".into();
        }
        if self.kept_here() > 0 {
            return "you may only read here, and what you changed stays on this computer; an admin or owner can make you a \
                    writer"
                .into();
        }
        if self.paused {
            return format!("syncing is paused here (`weft resume` goes on){unsent}");
        }
        if self.files.halted().is_some() {
            return format!(
                "this workspace is halted, so what is in its folder now is not read; `weft status` says why{unsent}"
            );
        }
        if connected.is_empty() {
            return format!("nobody else is online{unsent}");
        }
        if connected.len() < asked as usize {
            return format!("{asked} devices were asked for, and {} are online{unsent}", connected.len());
        }
        if !self.scanned {
            return "the folder is still being read".into();
        }
        let lacking: Vec<String> = connected
            .iter()
            .filter(|device| waiting > 0 || !self.holds_all_sealed(device))
            .map(|device| self.what_lacks(device))
            .collect();
        if !lacking.is_empty() {
            let shown = lacking.iter().take(LACKING_SHOWN_MAX).cloned().collect::<Vec<_>>().join("; ");
            let more = lacking.len().saturating_sub(LACKING_SHOWN_MAX);
            return if more > 0 { format!("{shown}; and {more} more devices") } else { shown };
        }
        if self.stated_lacks() > 0 || self.blobs.pending() > 0 {
            return format!("{} of large files that others have are not here yet", size(self.lacks));
        }
        "edits or writes are still under way here".into()
    }

    /// What a device has not stated to hold, in words.
    fn what_lacks(&self, device: &DeviceId) -> String {
        let facts = self.membership.devices.get(device);
        let name =
            facts.map(|facts| format!("{} ({})", self.member_name(&facts.root), facts.label)).unwrap_or_default();
        let peer = self.peers.get(device);
        let batches = peer.map_or(0, |peer| peer.frontier.gap_to(&self.frontier)) + self.waiting_batches() as u64;
        let bytes = peer.map_or(0, |peer| peer.lacks);
        let batches = match batches {
            0 => None,
            1 => Some("1 batch of edits".to_owned()),
            more => Some(format!("{more} batches of edits")),
        };
        let files = (bytes > 1).then(|| format!("{} of large files", size(bytes)));
        let all: Vec<String> = batches.into_iter().chain(files).collect();
        if all.is_empty() {
            return format!("{name} has not said yet that it holds everything");
        }
        format!("{name} lacks {}", all.join(" and "))
    }

    pub(super) fn flush_deadline(&self) -> Option<u64> {
        self.flushes.iter().map(|flush| flush.until_mono.min(flush.next_ask_mono.max(self.last_mono + 1))).min()
    }

    /// Whether this workspace is over for this device.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.state() == State::Left
    }
}
