//! Who belongs, changed by commands and told to people.
//!
//! Invariant: whoever goes is cut off in one op, with the point up to which their writing is known and with the epoch that
//! they do not get; an op that would not count is never published. Why: no removal without rotation.
//! Spec: docs/sealing.md#membership.

use std::collections::{BTreeMap, BTreeSet};

use super::Workspace;
use super::admission::a_role;
use super::command::{Because, DeviceDetail, MemberDetail, Members, ProposalDetail, Reply};
use crate::attestation;
use crate::epoch::Epoch;
use crate::id::{DeviceId, OpId, RootKey};
use crate::identity::{RecoveryKey, fingerprint};
use crate::membership::{Device, Fork, Lawful, Proposal, Role};
use crate::op::{ChainPoint, Cut, OpBody, OpSigner, SignedOp, Signer};
use crate::store::{Read, Tx};
use crate::time::Timestamp;

/// With which key a member is changed.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    /// This device's.
    Device,
    /// The workspace's recovery key.
    Recovery(&'a RecoveryKey),
}

impl Workspace {
    /// Removes a member, with all its devices.
    pub(super) fn remove_member(&mut self, now: Timestamp, root: RootKey, by: By<'_>, tx: &Tx<'_>) -> Reply {
        if root == self.identity.root_public.sign {
            return Reply::Refused("That is you: `weft leave` leaves a workspace.".into());
        }
        if !self.membership.members.contains_key(&root) {
            return Reply::Refused("There is no such member; `weft members` lists them.".into());
        }
        let of_member =
            |this: &Self, id: &DeviceId| this.membership.devices.get(id).is_some_and(|device| device.root == root);
        let cut = self.cut_of(|id| of_member(self, id));
        let stay: Vec<DeviceId> = self.devices_but(|id| of_member(self, id));
        let (epoch, grant) = self.next_epoch(|id| stay.contains(id));
        let recipients = self.keys_for(&stay, |other, role| (*other != root).then_some(role));
        let name = self.member_name(&root);
        self.rotate_by(now, by, OpBody::Remove { root, cut, epoch: grant }, epoch, &recipients, &name, tx)
    }

    /// Takes out devices; their members stay.
    pub(super) fn revoke_devices(&mut self, now: Timestamp, mut devices: Vec<DeviceId>, tx: &Tx<'_>) -> Reply {
        devices.sort();
        devices.dedup();
        let active = |id: &DeviceId| self.membership.devices.get(id).is_some_and(|device| device.active);
        if devices.is_empty() || !devices.iter().all(active) {
            return Reply::Refused("There is no such device; `weft devices` lists them.".into());
        }
        if devices.contains(&self.my_device()) {
            return Reply::Refused("That is this device: `weft leave` leaves a workspace.".into());
        }
        let called = self.device_labels();
        let labels: Vec<&str> = devices.iter().filter_map(|id| called.get(id)).map(String::as_str).collect();
        let cut = self.cut_of(|id| devices.contains(id));
        let stay: Vec<DeviceId> = self.devices_but(|id| devices.contains(id));
        let (epoch, grant) = self.next_epoch(|id| stay.contains(id));
        let recipients = self.keys_for(&stay, |_, role| Some(role));
        let body = OpBody::Revoke { devices, cut, epoch: grant };
        self.rotate_by(now, By::Device, body, epoch, &recipients, &labels.join(", "), tx)
    }

    /// Changes a member's role; a demotion with a new epoch.
    pub(super) fn set_role(&mut self, now: Timestamp, root: RootKey, role: Role, by: By<'_>, tx: &Tx<'_>) -> Reply {
        let Some(before) = self.membership.members.get(&root).map(|member| member.role) else {
            return Reply::Refused("There is no such member; `weft members` lists them.".into());
        };
        if role == before {
            return Reply::Done;
        }
        let name = self.member_name(&root);
        if role < before {
            let cut = self.cut_of(|id| self.membership.devices.get(id).is_some_and(|device| device.root == root));
            let stay = self.devices_but(|_| false);
            let (epoch, grant) = self.next_epoch(|_| true);
            let recipients = self.keys_for(&stay, |other, now| Some(if *other == root { role } else { now }));
            let body = OpBody::Role { root, role, cut, epoch: Some(grant) };
            return self.rotate_by(now, by, body, epoch, &recipients, &name, tx);
        }
        let body = OpBody::Role { root, role, cut: Cut::default(), epoch: None };
        let Some(op) = self.sign_by(now, by, body) else { return self.not_in() };
        let lawful = self.judge(&op);
        if lawful == Lawful::No {
            return self.may_not(by, &name);
        }
        if let Some(reply) = self.proposed_already(&op) {
            return reply;
        }
        self.publish_op(&op, tx);
        answer(lawful, &op)
    }

    /// Agrees, as an owner, to what takes several.
    pub(super) fn agree(&mut self, now: Timestamp, op: OpId, tx: &Tx<'_>) -> Reply {
        if !self.membership.proposals.contains_key(&op) {
            return Reply::Refused("Nothing of that name waits for owners; `weft members` lists what does.".into());
        }
        let me = self.identity.root_public.sign;
        if self.membership.proposals.get(&op).is_some_and(|proposal| proposal.votes.contains(&me)) {
            return Reply::Refused("You agreed to that already; other owners have to.".into());
        }
        let Some(vote) = self.sign_op(now, OpBody::Endorse { op }) else { return self.not_in() };
        if self.judge(&vote) == Lawful::No {
            let body = self.ops.as_ref().and_then(|ops| ops.get(&op)).map(SignedOp::body);
            if body.and_then(whom).is_some_and(|root| root == me) {
                return Reply::Refused("That is about you: the other owners decide on it.".into());
            }
            return Reply::Refused(
                "Only owners decide on that, and only those who were owners when it was proposed.".into(),
            );
        }
        self.publish_op(&vote, tx);
        self.tell_removed(now, &op);
        Reply::Done
    }

    /// Publishes an op with its epoch, if its author may.
    #[allow(
        clippy::too_many_arguments,
        reason = "what an op with an epoch is made of; a struct would be unpacked at once"
    )]
    fn rotate_by(
        &mut self,
        now: Timestamp,
        by: By<'_>,
        body: OpBody,
        epoch: Epoch,
        recipients: &[([u8; 32], Role)],
        name: &str,
        tx: &Tx<'_>,
    ) -> Reply {
        let Some(op) = self.sign_by(now, by, body) else { return self.not_in() };
        let lawful = self.judge(&op);
        if lawful == Lawful::No {
            return self.may_not(by, name);
        }
        if let Lawful::Together(needed) = lawful
            && let Some(reply) = self.proposed_already(&op).or_else(|| self.too_few(&op, needed, name))
        {
            return reply;
        }
        if !self.hand_out(now, epoch, &op, recipients, tx) {
            return Reply::Refused(
                "This device cannot make the new key that this needs: it holds no content key.".into(),
            );
        }
        self.tell_removed(now, &op.id());
        answer(lawful, &op)
    }

    /// What waits for owners, and for us among them.
    pub(super) fn decisions(&self, now: Timestamp) -> usize {
        let me = self.identity.root_public.sign;
        let waits = |(op, proposal): &(&OpId, &Proposal)| {
            let vote = || self.sign_op(now, OpBody::Endorse { op: **op });
            !proposal.votes.contains(&me) && vote().is_some_and(|vote| self.judge(&vote) != Lawful::No)
        };
        self.membership.proposals.iter().filter(waits).count()
    }

    /// The same was proposed before, by us or with our vote, and waits.
    fn proposed_already(&self, op: &SignedOp) -> Option<Reply> {
        let ops = self.ops.as_ref()?;
        let me = self.identity.root_public.sign;
        let same = |id: &OpId| ops.get(id).is_some_and(|known| is_same_deed(known.body(), op.body()));
        let mut waiting = self.membership.proposals.iter().filter(|(_, proposal)| proposal.votes.contains(&me));
        let (id, proposal) = waiting.find(|(id, _)| same(id))?;
        Some(Reply::Proposed { id: *id, needed: proposal.needed })
    }

    /// Ending an owner takes more owners than there are beside them.
    fn too_few(&self, op: &SignedOp, needed: usize, name: &str) -> Option<Reply> {
        let ended = whom(op.body())?;
        let others =
            self.membership.members.iter().filter(|(root, member)| **root != ended && member.role == Role::Owner);
        (others.count() < needed).then(|| {
            Reply::Refused(format!(
                "Ending an owner takes {needed} other owners, and there are not so many. Name another owner first (weft members role \
                 WHO owner), use the recovery key, or {name} steps down: weft members role {name} admin, there."
            ))
        })
    }

    /// Whether an op of ours would count.
    pub(super) fn judge(&self, op: &SignedOp) -> Lawful {
        if !self.is_active() {
            return Lawful::No;
        }
        self.ops.as_ref().map_or(Lawful::No, |ops| ops.judge(op))
    }

    fn sign_by(&self, now: Timestamp, by: By<'_>, body: OpBody) -> Option<SignedOp> {
        let By::Recovery(key) = by else { return self.sign_op(now, body) };
        let heads = self.ops.as_ref()?.heads();
        Some(SignedOp::make(&self.id, &heads, OpSigner::Recovery(key.signing_key()), now.wall_ms, body))
    }

    fn may_not(&self, by: By<'_>, name: &str) -> Reply {
        if let By::Recovery(_) = by {
            return Reply::Refused(format!("Not even the recovery key may do this to {name}: the last owner stays."));
        }
        let Some(mine) = self.membership.role_of(&self.my_device()) else { return self.not_in() };
        Reply::Refused(format!(
            "You are {mine} here and may not do this to {name}: admins act on writers, readers and keepers, owners on admins \
             too; the last owner stays.",
            mine = a_role(mine)
        ))
    }

    /// How far we hold the chains of some devices.
    fn cut_of(&self, concerned: impl Fn(&DeviceId) -> bool) -> Cut {
        let points = self.frontier.iter().filter(|(chain, _)| concerned(&chain.device) && !chain.is_branch());
        Cut::new(points.map(|(chain, tip)| ChainPoint { chain: *chain, seq: tip.seq, link: tip.link }).collect())
    }

    fn devices_but(&self, without: impl Fn(&DeviceId) -> bool) -> Vec<DeviceId> {
        self.membership.active_devices().map(|(id, _)| *id).filter(|id| !without(id)).collect()
    }

    /// The keys of these devices, and of the roots whose role `as_role` says.
    pub(super) fn keys_for(
        &self,
        devices: &[DeviceId],
        as_role: impl Fn(&RootKey, Role) -> Option<Role>,
    ) -> Vec<([u8; 32], Role)> {
        let role_of = |root: &RootKey| as_role(root, self.membership.members.get(root)?.role);
        let devices = devices.iter().filter_map(|id| {
            let device = self.membership.devices.get(id)?;
            Some((device.public.kem, role_of(&device.root)?))
        });
        let roots = self.membership.members.iter().filter_map(|(root, member)| Some((member.kem, role_of(root)?)));
        devices.chain(roots).collect()
    }

    /// A member's name; a former one's as its admission said it.
    pub(super) fn member_name(&self, root: &RootKey) -> String {
        if let Some(member) = self.membership.members.get(root) {
            return member.name.clone();
        }
        let Some(ops) = &self.ops else { return "unknown".to_owned() };
        if ops.genesis().root().sign == *root {
            return ops.genesis().member_name().to_owned();
        }
        let admitted = |op: &SignedOp| {
            if let OpBody::Welcome { admission, .. } = op.body()
                && admission.cert().root().sign == *root
            {
                return Some(admission.name().to_owned());
            }
            None
        };
        ops.ops().find_map(admitted).unwrap_or_else(|| "unknown".to_owned())
    }

    /// What every device is called: by its label, and where a member has several of one label, all but the one that came
    /// first with a number behind it.
    pub(super) fn device_labels(&self) -> BTreeMap<DeviceId, String> {
        // The founder's device is named by no op.
        let said_at = |device: &Device| self.ops.as_ref()?.get(&device.said_by).map(SignedOp::wall_ms);
        let mut devices: Vec<_> = self.membership.devices.iter().collect();
        // Those that are gone count: a device keeps what it is called when another one is revoked.
        devices.sort_by_cached_key(|(id, device)| (said_at(device), device.said_by, **id));
        let mut taken = BTreeSet::new();
        let mut labels = BTreeMap::new();
        for (id, device) in devices {
            let numbered = (2..).map(|number| format!("{}-{number}", device.label));
            let mut names = std::iter::once(device.label.clone()).chain(numbered);
            if let Some(name) = names.find(|name| taken.insert((device.root, name.clone()))) {
                labels.insert(*id, name);
            }
        }
        labels
    }

    /// What `weft members` shows.
    pub(super) fn members(&mut self, read: &dyn Read) -> Members {
        let late = self.late_details(read);
        let labels = self.device_labels();
        let state = &self.membership;
        let members = state.members.iter().map(|(root, member)| {
            let mut why: Vec<OpId> = [member.admitted_by.as_slice(), &member.role_from].concat();
            why.sort();
            why.dedup();
            let mut why: Vec<Because> = why.iter().filter_map(|id| self.because(id)).collect();
            why.sort_by_key(|because| because.wall_ms);
            let devices = state.devices.iter().filter(|(_, device)| device.root == *root);
            let (accounts, accounts_unsound) = attestation::sound(root, &member.attested);
            MemberDetail {
                root: *root,
                name: member.name.clone(),
                fingerprint: fingerprint(root),
                role: member.role,
                me: *root == self.identity.root_public.sign,
                accounts,
                accounts_unsound,
                devices: devices
                    .map(|(id, device)| DeviceDetail {
                        id: *id,
                        label: labels.get(id).unwrap_or(&device.label).clone(),
                        active: device.active,
                        certified_by: device.certified_by,
                        me: *id == self.my_device(),
                        takes: state.with_certified(*id),
                    })
                    .collect(),
                why,
            }
        });
        let proposals = state.proposals.iter().filter_map(|(id, proposal)| {
            let votes = proposal.votes.iter().map(|root| self.member_name(root)).collect();
            Some(ProposalDetail { op: self.because(id)?, votes, needed: proposal.needed })
        });
        Members {
            members: members.collect(),
            former: state.former.iter().filter_map(|(root, op)| Some((*root, self.because(op)?))).collect(),
            proposals: proposals.collect(),
            late,
        }
    }

    /// An op, as people read it.
    pub(super) fn because(&self, id: &OpId) -> Option<Because> {
        let ops = self.ops.as_ref()?;
        if *id == ops.genesis().op_id() {
            let by = ops.genesis().member_name().to_owned();
            return Some(Because { id: *id, what: "founded the workspace".into(), by, wall_ms: 0 });
        }
        let op = ops.get(id)?;
        let what = match op.body() {
            OpBody::Remove { root, .. } => format!("removed {}", self.member_name(root)),
            OpBody::Role { root, role, .. } => format!("made {} {}", self.member_name(root), a_role(*role)),
            OpBody::Welcome { admission, invite, .. } => {
                let invited = ops.get(invite).map_or_else(|| "somebody".to_owned(), |invite| self.signer(invite));
                format!("let {} in by an invite of {invited}", admission.name())
            }
            OpBody::Revoke { devices, .. } => {
                let labels = devices.iter().filter_map(|id| self.membership.devices.get(id));
                let labels: Vec<String> = labels.map(|device| format!("'{}'", device.label)).collect();
                format!("revoked {}", labels.join(", "))
            }
            OpBody::Fork { .. } => {
                let device = Fork::of(op.body()).and_then(|fork| self.membership.devices.get(&fork.chain.device));
                let label = device.map_or("a device", |device| device.label.as_str());
                format!("proved that '{label}' signed twice for one place")
            }
            OpBody::ExtendCut { .. } => "kept what came late".to_owned(),
            OpBody::Leave => "left".to_owned(),
            OpBody::Device { label, .. } => format!("added the device '{label}'"),
            OpBody::Invite { .. }
            | OpBody::Uninvite { .. }
            | OpBody::Epoch(_)
            | OpBody::Endorse { .. }
            | OpBody::Attest { .. }
            | OpBody::Policy(_) => "changed the workspace".to_owned(),
        };
        Some(Because { id: *id, what, by: self.signer(op), wall_ms: op.wall_ms() })
    }

    fn signer(&self, op: &SignedOp) -> String {
        match op.signer() {
            Signer::Root(root) => self.member_name(&root),
            Signer::Device(device) => self
                .membership
                .devices
                .get(&device)
                .map_or_else(|| "unknown".to_owned(), |device| self.member_name(&device.root)),
            Signer::Recovery(_) => "the recovery key".to_owned(),
        }
    }

    /// Why this device does not belong any more, if others saw to that.
    pub(super) fn ended_because(&self) -> Option<String> {
        if !matches!(self.phase, super::Phase::Left) {
            return None;
        }
        let root = self.identity.root_public.sign;
        let kept = "Nothing written since reaches this computer; the files here stay as they are.";
        let stays = format!("{kept} To come back: ask for a new link, `weft leave`, then `weft join`.");
        if let Some(end) = self.membership.former.get(&root).and_then(|op| self.because(op)) {
            let left =
                self.ops.as_ref().and_then(|ops| ops.get(&end.id)).is_some_and(|op| matches!(op.body(), OpBody::Leave));
            return (!left).then(|| format!("{} removed you from '{}'. {stays}", end.by, self.name));
        }
        let me = self.my_device();
        let facts = self.membership.devices.get(&me);
        if facts.is_some_and(|facts| facts.revoked) {
            let by = self.revocation_of(&me).and_then(|op| Some(self.signer(self.ops.as_ref()?.get(&op)?)));
            let by = by.unwrap_or_else(|| "Somebody".to_owned());
            let back = format!(
                "To bring it back, with your 24 words and a pass made since (by any member: `weft invite --for {}`): `weft \
                 leave`, then `weft identity recover PASS DIR --merge`.",
                self.member_name(&root)
            );
            return Some(format!("{by} revoked this device. {kept} {back}"));
        }
        if facts.is_some_and(|facts| facts.active) {
            return None;
        }
        let ended = self.ends_of_hosts(&me).into_iter().flatten().filter_map(|op| self.because(&op)).last();
        let why = ended.map_or_else(
            || "the link was withdrawn, or others used it up, at the same time".to_owned(),
            |end| format!("{} {} at the same time", end.by, end.what),
        );
        Some(format!("Letting you into '{}' does not count: {why}. {stays}", self.name))
    }
}

/// The member whose end or role an op is about.
fn whom(body: &OpBody) -> Option<RootKey> {
    if let OpBody::Remove { root, .. } | OpBody::Role { root, .. } = body { Some(*root) } else { None }
}

/// Whether two ops do the same to somebody, whatever keys come with them.
fn is_same_deed(one: &OpBody, other: &OpBody) -> bool {
    match (one, other) {
        (OpBody::Remove { root, .. }, OpBody::Remove { root: other, .. }) => root == other,
        (OpBody::Role { root, role, .. }, OpBody::Role { root: other, role: to, .. }) => (root, role) == (other, to),
        (OpBody::Revoke { devices, .. }, OpBody::Revoke { devices: others, .. }) => devices == others,
        (_, _) => false,
    }
}

fn answer(lawful: Lawful, op: &SignedOp) -> Reply {
    match lawful {
        Lawful::Together(needed) => Reply::Proposed { id: op.id(), needed },
        Lawful::Yes | Lawful::No => Reply::Done,
    }
}
