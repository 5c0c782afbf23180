//! The state at one op, from the state at its parents.
//!
//! Invariant: the same as evaluating all of its ancestors, which a test checks op by op. Why: an op's authority is judged
//! in the state of its ancestors, and evaluating each of those anew would make a history of n ops cost n² steps. An op
//! descends from everything in that state, so nothing there is concurrent with it and nothing is voided by it.
//! Spec: docs/sealing.md#state.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fold::{ATTESTED_MAX, end_of, invited_as, is_open, name_device, new_device, opens_lobby, rotates};
use super::set::OpSet;
use super::{EpochFacts, Invite, Member, Membership};
use crate::id::{DeviceId, OpId, RootKey};
use crate::identity::DeviceCert;
use crate::op::OpBody;

/// `None`: this op reaches back (a vote, a moved cut), or owners were kept by setting ops aside: evaluate the whole.
pub(super) fn step(set: &OpSet, before: &Membership, index: usize) -> Option<Membership> {
    let node = set.nodes.get(index)?;
    let id = node.op.id();
    if before.owners_kept {
        return None;
    }
    let mut state = Membership { heads: vec![id], ..before.clone() };
    let Some(standing) = &node.standing else { return Some(state) };
    if standing.ballot.is_some() || standing.quorum.as_ref().is_some_and(|quorum| quorum.needed > 1) {
        return None;
    }
    let body = node.op.body();
    match body {
        OpBody::Device { cert, label } => state.introduce(cert, label, id),
        OpBody::Revoke { devices, .. } => devices.iter().for_each(|device| state.revoke(device)),
        OpBody::Invite { sign, knock, role, expires_wall_ms, uses, approval, whom } => {
            let issuer = standing.root?;
            let invite = Invite {
                sign: *sign,
                knock: knock.clone(),
                role: *role,
                expires_wall_ms: *expires_wall_ms,
                uses: *uses,
                used: 0,
                issuer,
                approval: *approval,
                whom: *whom,
                open: is_open(false, *role, state.members.get(&issuer)),
                void: false,
            };
            state.invites.insert(id, Arc::new(invite));
        }
        OpBody::Uninvite { invite } => state.void(invite),
        OpBody::Welcome { invite, admission, .. } => {
            let cert = admission.cert();
            state.admit(cert, admission.name(), invited_as(set, invite)?, id);
            state.introduce(cert, admission.label(), id);
            let root = cert.root().sign;
            let mut came_by = state.came_by.get(&root).cloned().unwrap_or_default();
            let first = came_by.insert(*invite);
            state.came_by.insert(root, came_by);
            if first && let Some(invite) = state.invites.get_mut(invite) {
                let invite = Arc::make_mut(invite);
                invite.used = invite.used.saturating_add(1);
            }
        }
        OpBody::Role { root, role, .. } => {
            let member = Arc::make_mut(state.members.get_mut(root)?);
            member.role = *role;
            member.role_from = vec![id];
            state.invites_of(root);
        }
        OpBody::Remove { root, .. } => {
            for invite in state.came_by.get(root).cloned().unwrap_or_default() {
                state.void(&invite);
            }
            state.end(root, id);
        }
        OpBody::Leave => state.end(&standing.root?, id),
        OpBody::Policy(policy) => state.policy = policy.clone().bounded(),
        OpBody::Attest { identity, proof } => {
            let member = Arc::make_mut(state.members.get_mut(&standing.root?)?);
            member.attested.insert(identity.clone(), proof.clone());
            if member.attested.len() > ATTESTED_MAX {
                // Which of them shows depends on all that were said.
                return None;
            }
        }
        OpBody::ExtendCut { .. } => return None,
        OpBody::Epoch(_) | OpBody::Endorse { .. } | OpBody::Fork { .. } => {}
    }
    state.rotate(set, body, id);
    if let Some(end) = end_of(body) {
        state.ends.insert(id, Arc::new(end));
    }
    Some(state)
}

impl Membership {
    fn admit(&mut self, cert: &DeviceCert, name: &str, role: super::Role, by: OpId) {
        let root = cert.root().sign;
        if let Some(member) = self.members.get_mut(&root) {
            let member = Arc::make_mut(member);
            member.admitted_by.push(by);
            member.admitted_by.sort();
            if by < member.said_by {
                name.clone_into(&mut member.name);
                (member.kem, member.said_by) = (cert.root().kem, by);
            }
            return;
        }
        let member = Member {
            role,
            name: name.to_owned(),
            kem: cert.root().kem,
            admitted_by: vec![by],
            role_from: vec![by],
            attested: BTreeMap::new(),
            said_by: by,
        };
        self.members.insert(root, Arc::new(member));
        self.former.remove(&root);
    }

    fn introduce(&mut self, cert: &DeviceCert, label: &str, by: OpId) {
        let id = cert.device().id();
        if !self.devices.contains_key(&id) {
            self.devices.insert(id, Arc::new(new_device(cert, label, by)));
        }
        let Some(device) = self.devices.get_mut(&id).map(Arc::make_mut) else { return };
        device.active = true;
        device.revoked = false;
        device.introduced_by.push(by);
        device.introduced_by.sort();
        name_device(device, cert, label, by);
    }

    fn revoke(&mut self, device: &DeviceId) {
        if let Some(device) = self.devices.get_mut(device) {
            let device = Arc::make_mut(device);
            device.active = false;
            device.revoked = true;
            device.introduced_by.clear();
        }
    }

    fn end(&mut self, root: &RootKey, by: OpId) {
        self.members.remove(root);
        self.former.insert(*root, by);
        for id in self.devices.keys_where(|device| device.root == *root && device.active) {
            let Some(device) = self.devices.get_mut(&id).map(Arc::make_mut) else { continue };
            device.active = false;
            device.introduced_by.clear();
        }
        for invite in self.invites.keys_where(|invite| invite.issuer == *root || invite.whom == Some(*root)) {
            self.void(&invite);
        }
    }

    fn void(&mut self, invite: &OpId) {
        if let Some(invite) = self.invites.get_mut(invite).filter(|invite| !invite.void) {
            let invite = Arc::make_mut(invite);
            (invite.void, invite.open) = (true, false);
        }
    }

    /// What a member's new role means for the invites it issued.
    fn invites_of(&mut self, root: &RootKey) {
        let issuer = self.members.get(root).cloned();
        let open = |invite: &Invite| is_open(invite.void, invite.role, issuer.as_ref());
        for id in self.invites.keys_where(|invite| invite.issuer == *root && invite.open != open(invite)) {
            if let Some(invite) = self.invites.get_mut(&id) {
                Arc::make_mut(invite).open = !invite.open;
            }
        }
    }

    fn rotate(&mut self, set: &OpSet, body: &OpBody, op: OpId) {
        if rotates(body) {
            self.covering.clear();
        }
        let Some(grant) = body.epoch() else { return };
        let id = grant.id(&set.workspace());
        let parents = grant.parents.iter().filter_map(|link| self.epochs.get(&link.parent));
        let depth = parents.map(|parent| parent.depth).max().map_or(1, |depth| depth.saturating_add(1));
        let facts = EpochFacts { op, grant: grant.clone(), depth, lobby: opens_lobby(body) };
        self.covering.insert(id);
        self.epochs.insert(id, Arc::new(facts));
    }
}
