//! Whether an op's author had the role for it in the state of the op's ancestors.
//!
//! Invariant: judged once, by the op and its ancestors alone. Spec: docs/sealing.md#authority.

use std::collections::BTreeSet;

use super::quorum::{Ballot, Quorum};
use super::set::OpSet;
use super::{Defence, Membership, Role, fork};
use crate::id::{DeviceId, OpId, RootKey};
use crate::identity::{Certifier, DeviceCert};
use crate::op::{Cut, EpochGrant, OpBody, SignedOp, Signer};

/// Above every owner, alone or together.
const RANK_RECOVERY: u8 = 12;
/// Above every single owner.
const RANK_QUORUM: u8 = 11;

/// What the author of an authorised op was, where the op stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// Its member; the recovery key is nobody's.
    pub(super) root: Option<RootKey>,
    /// Its device, if a device signed.
    pub(super) device: Option<DeviceId>,
    /// Its role.
    pub(super) role: Role,
    /// The role the op needs: a concurrent demotion from above below this voids it.
    pub(super) needs: Role,
    /// The order of evaluation: recovery key, owners' quorum, role; and within a role a root above its devices.
    pub(super) rank: u8,
    /// What the author's standing rests on: in each group one must count.
    pub(super) support: Vec<Vec<OpId>>,
    /// For a welcome: whether its member was none before.
    pub(super) fresh: bool,
    /// Whose agreement it needs besides its author's.
    pub(super) quorum: Option<Quorum>,
    /// For an endorsement of an op that needs a quorum: the vote.
    pub(super) ballot: Option<Ballot>,
}

/// The author's standing, if the op is authorised. `ancestor` finds an op among its ancestors.
pub(super) fn standing(
    set: &OpSet,
    op: &SignedOp,
    state: &Membership,
    ancestor: &dyn Fn(&OpId) -> Option<usize>,
) -> Option<Standing> {
    let (root, device) = match op.signer() {
        Signer::Root(root) => (root, None),
        Signer::Device(id) => (state.devices.get(&id).filter(|device| device.active)?.root, Some(id)),
        Signer::Recovery(key) => {
            let named = set.genesis().recovery() == Some(&key);
            return named.then(|| recovery(set, op.body(), state)).flatten();
        }
    };
    let member = state.members.get(&root)?;
    let mut support = vec![member.admitted_by.clone()];
    support.extend(member.role_from.iter().map(|op| vec![*op]));
    if let Some(device) = device.and_then(|id| state.devices.get(&id)) {
        support.push(device.introduced_by.clone());
    }
    let rank = member.role as u8 * 2 + u8::from(device.is_none());
    let mut standing = Standing {
        root: Some(root),
        device,
        role: member.role,
        needs: Role::Keeper,
        rank,
        support,
        fresh: false,
        quorum: None,
        ballot: None,
    };
    let author = Author { root, device, role: member.role, state, set, ancestor };
    standing.needs = author.may(op.body(), &mut standing)?;
    if standing.quorum.as_ref().is_some_and(|quorum| quorum.ends)
        || standing.ballot.as_ref().is_some_and(|ballot| ballot.ends)
    {
        standing.rank = RANK_QUORUM;
    }
    Some(standing)
}

/// What the recovery key may do: remove, demote, promote and revoke anybody, but leave no workspace without an owner.
fn recovery(set: &OpSet, body: &OpBody, state: &Membership) -> Option<Standing> {
    let lawful = match body {
        OpBody::Remove { root, epoch, .. } => {
            let stays = |id: &DeviceId| state.devices.get(id).is_some_and(|device| device.root != *root);
            state.members.contains_key(root) && !is_last_owner(state, root) && grants(set, state, epoch, stays)
        }
        OpBody::Role { root, role, epoch, .. } => {
            let demotes = *role < state.members.get(root)?.role;
            let rotation = match epoch {
                Some(epoch) => demotes && grants(set, state, epoch, |_| true),
                None => !demotes,
            };
            rotation && !(demotes && is_last_owner(state, root))
        }
        OpBody::Revoke { devices, epoch, .. } => {
            let known = devices.iter().all(|id| state.devices.contains_key(id));
            known && grants(set, state, epoch, |id| devices.binary_search(id).is_err())
        }
        OpBody::Device { .. }
        | OpBody::Invite { .. }
        | OpBody::Uninvite { .. }
        | OpBody::Welcome { .. }
        | OpBody::Epoch(_)
        | OpBody::Endorse { .. }
        | OpBody::ExtendCut { .. }
        | OpBody::Fork { .. }
        | OpBody::Attest { .. }
        | OpBody::Leave
        | OpBody::Policy(_) => false,
    };
    lawful.then(|| Standing {
        root: None,
        device: None,
        role: Role::Owner,
        needs: Role::Keeper,
        rank: RANK_RECOVERY,
        support: Vec::new(),
        fresh: false,
        quorum: None,
        ballot: None,
    })
}

fn is_last_owner(state: &Membership, root: &RootKey) -> bool {
    let mut owners = state.members.iter().filter(|(_, member)| member.role == Role::Owner).map(|(key, _)| key);
    owners.next() == Some(root) && owners.next().is_none()
}

/// A new epoch, over known parents, for exactly the devices that stay.
fn grants(set: &OpSet, state: &Membership, grant: &EpochGrant, stays: impl Fn(&DeviceId) -> bool) -> bool {
    let epochs = &state.epochs;
    let parents = grant.parents.iter().all(|link| epochs.contains_key(&link.parent));
    let expected = state.active_devices().map(|(id, _)| id).filter(|id| stays(id));
    parents
        && grant.parents.is_empty() == epochs.is_empty()
        && !epochs.contains_key(&grant.id(&state.workspace))
        && (grant.recipients.iter().eq(expected) || !set.defends(Defence::Recipients))
}

struct Author<'a> {
    root: RootKey,
    device: Option<DeviceId>,
    role: Role,
    state: &'a Membership,
    set: &'a OpSet,
    ancestor: &'a dyn Fn(&OpId) -> Option<usize>,
}

impl Author<'_> {
    /// The role the op needs, if the author may do it. Notes what else its standing is.
    fn may(&self, body: &OpBody, standing: &mut Standing) -> Option<Role> {
        let at_least = |role: Role| (self.role >= role).then_some(role);
        match body {
            OpBody::Device { cert, .. } => self.device(cert, standing),
            OpBody::Revoke { devices, epoch, .. } => self.revoke(devices, epoch, standing),
            // An invite gives less than its issuer has.
            OpBody::Invite { role, .. } => (*role < self.role).then(|| at_least(Role::Admin)).flatten(),
            OpBody::Uninvite { invite } => {
                let invite = self.state.invites.get(invite)?;
                if invite.issuer == self.root { Some(Role::Keeper) } else { at_least(Role::Admin) }
            }
            OpBody::Welcome { invite, admission, .. } => {
                let facts = self.state.invites.get(invite)?;
                let needs = if facts.approval || self.state.policy.approval { Role::Admin } else { Role::Writer };
                let cert = admission.cert();
                let root = cert.root();
                let known = self.state.members.get(&root.sign);
                let sound = (facts.open || !self.set.defends(Defence::OpenInvite))
                    && admission.invite() == *invite
                    && self.set.admits(admission, &facts.sign)
                    && known.is_none_or(|member| member.kem == root.kem)
                    && self.certified(cert, standing)
                    && !self.is_foreign_device(cert)
                    && (facts.whom.is_none_or(|whom| whom == root.sign) || !self.set.defends(Defence::NamedGuest))
                    && (self.invited_since(&root.sign, invite) || !self.set.defends(Defence::InvitedSince))
                    // A link brings people, it does not bring back a device that its own member gave up.
                    && !self.is_revoked(&cert.device().id());
                standing.support.push(vec![*invite]);
                standing.fresh = known.is_none();
                (sound && self.role >= needs).then_some(needs)
            }
            OpBody::Role { root, role, epoch, .. } => self.change_role(root, *role, epoch.as_ref(), standing),
            OpBody::Remove { root, epoch, .. } => {
                let stays = |id: &DeviceId| self.state.devices.get(id).is_some_and(|device| device.root != *root);
                let lawful = self.outranks(root) || self.by_quorum(&BTreeSet::from([*root]), standing);
                (lawful && grants(self.set, self.state, epoch, stays)).then_some(Role::Admin)
            }
            OpBody::Epoch(epoch) => {
                grants(self.set, self.state, epoch, |_| true).then(|| at_least(Role::Writer)).flatten()
            }
            OpBody::Leave => (!is_last_owner(self.state, &self.root)).then_some(Role::Keeper),
            OpBody::Policy(_) => at_least(Role::Admin),
            OpBody::Endorse { op } => self.endorse(op, standing),
            OpBody::ExtendCut { op, .. } => self.extend_cut(op, standing),
            OpBody::Fork { headers, cut, epoch } => {
                let [one, other] = headers.as_ref();
                let proven = self.proves_fork(one, other, cut) && grants(self.set, self.state, epoch, |_| true);
                proven.then(|| at_least(Role::Writer)).flatten()
            }
            OpBody::Attest { .. } => Some(Role::Keeper),
        }
    }

    fn device(&self, cert: &DeviceCert, standing: &mut Standing) -> Option<Role> {
        let own = cert.root().sign == self.root && self.certified(cert, standing) && !self.is_foreign_device(cert);
        // Whoever holds a revoked device may hold others of that member: only the words bring one back.
        let by_words = self.device.is_none() && cert.certifier() == Certifier::Root;
        let back = !self.is_revoked(&cert.device().id()) || by_words || !self.set.defends(Defence::WordsReadmit);
        (own && back).then_some(Role::Keeper)
    }

    fn revoke(&self, devices: &[DeviceId], epoch: &EpochGrant, standing: &mut Standing) -> Option<Role> {
        let mut roots = BTreeSet::new();
        for id in devices {
            roots.insert(self.state.devices.get(id)?.root);
        }
        let others: BTreeSet<RootKey> = roots.into_iter().filter(|root| *root != self.root).collect();
        let (owners, rest): (BTreeSet<RootKey>, BTreeSet<RootKey>) = others
            .iter()
            .partition(|root| self.state.members.get(*root).is_some_and(|member| member.role == Role::Owner));
        let below = rest.iter().all(|root| self.outranks(root));
        let lawful = below && (owners.is_empty() || self.by_quorum(&owners, standing));
        let needs = if others.is_empty() { Role::Keeper } else { Role::Admin };
        (lawful && grants(self.set, self.state, epoch, |id| devices.binary_search(id).is_err())).then_some(needs)
    }

    fn change_role(
        &self,
        root: &RootKey,
        role: Role,
        epoch: Option<&EpochGrant>,
        standing: &mut Standing,
    ) -> Option<Role> {
        let target = self.state.members.get(root)?;
        let demotes = role < target.role;
        let rotation = match epoch {
            Some(epoch) => demotes && grants(self.set, self.state, epoch, |_| true),
            None => !demotes || !self.set.defends(Defence::Rotation),
        };
        if !rotation || (demotes && is_last_owner(self.state, root)) {
            return None;
        }
        if *root == self.root {
            // Oneself only downwards.
            return (role <= self.role).then_some(Role::Keeper);
        }
        if role == Role::Owner && self.role == Role::Owner && target.role < Role::Owner {
            // Else one owner could name others until they are a quorum against the rest.
            standing.quorum = Some(Quorum::to_name_an_owner(self.state));
            return Some(Role::Owner);
        }
        if self.outranks(root) {
            return (role < self.role).then_some(Role::Admin);
        }
        (demotes && self.by_quorum(&BTreeSet::from([*root]), standing)).then_some(Role::Owner)
    }

    /// Whether the author is an owner and all of these are: then the others must agree.
    fn by_quorum(&self, targets: &BTreeSet<RootKey>, standing: &mut Standing) -> bool {
        let owner = |root: &RootKey| self.state.members.get(root).is_some_and(|member| member.role == Role::Owner);
        let may = self.role == Role::Owner && !targets.contains(&self.root) && targets.iter().all(owner);
        if may {
            standing.quorum = Some(Quorum::to_end_owners(self.state, targets));
        }
        may
    }

    fn endorse(&self, op: &OpId, standing: &mut Standing) -> Option<Role> {
        let endorsed =
            (self.ancestor)(op).and_then(|index| Some((index, self.set.nodes.get(index)?.standing.as_ref()?)));
        let Some((index, quorum)) = endorsed.and_then(|(index, other)| Some((index, other.quorum.as_ref()?))) else {
            // Of anything else it says nothing; it only joins heads.
            return Some(Role::Keeper);
        };
        let votes = self.role == Role::Owner && quorum.electorate.contains(&self.root);
        standing.ballot = Some(quorum.ballot(index, self.state));
        votes.then_some(Role::Owner)
    }

    /// Whoever could have made the removal may give more of what was written before it.
    fn extend_cut(&self, op: &OpId, standing: &mut Standing) -> Option<Role> {
        let index = (self.ancestor)(op)?;
        let node = self.set.nodes.get(index)?;
        let by = node.standing.as_ref()?;
        let cuts = matches!(node.op.body(), OpBody::Remove { .. } | OpBody::Revoke { .. } | OpBody::Role { .. });
        let own = by.root == Some(self.root) && self.role >= by.needs;
        let lawful = own || self.role >= by.role.max(Role::Admin);
        standing.support.push(vec![*op]);
        (cuts && lawful).then_some(by.needs)
    }

    /// Two different stored headers of one place, both signed by its device, and a cut exactly before it.
    fn proves_fork(&self, one: &[u8], other: &[u8], cut: &Cut) -> bool {
        fork::proven(self.state, one, other).is_some_and(|(chain, seq, prevs)| {
            let exact = cut
                .points()
                .iter()
                .all(|point| point.chain == chain && point.seq == seq - 1 && prevs.contains(&point.link));
            (exact && cut.points().len() == usize::from(seq > 1)) || !self.set.defends(Defence::ForkProof)
        })
    }

    /// An admin or owner above a member; owners are removed by quorum only.
    fn outranks(&self, root: &RootKey) -> bool {
        let strictly = |member: &super::Member| {
            member.role < self.role || (member.role == self.role && !self.set.defends(Defence::StrictRank))
        };
        self.role >= Role::Admin && self.state.members.get(root).is_some_and(|member| strictly(member))
    }

    /// Certified by the root, or by a device of the member that is active here.
    fn certified(&self, cert: &DeviceCert, standing: &mut Standing) -> bool {
        match cert.certifier() {
            Certifier::Root => true,
            Certifier::Device(id) => match self.state.devices.get(&id) {
                Some(device) if device.active && device.root == cert.root().sign => {
                    standing.support.push(device.introduced_by.clone());
                    self.state.members.get(&device.root).is_some_and(|member| member.kem == cert.root().kem)
                }
                _ => false,
            },
        }
    }

    /// Whether an invite knew of the removal of whoever comes by it, if that one was removed: links from before are what
    /// the removed one may still have.
    fn invited_since(&self, root: &RootKey, invite: &OpId) -> bool {
        self.state.former.get(root).is_none_or(|end| {
            let removed = self.set.get(end).is_some_and(|op| matches!(op.body(), OpBody::Remove { .. }));
            !removed || self.set.before(self.set.index_of(end), self.set.index_of(invite))
        })
    }

    fn is_revoked(&self, id: &DeviceId) -> bool {
        self.state.devices.get(id).is_some_and(|device| device.revoked)
    }

    /// A device never changes its member.
    fn is_foreign_device(&self, cert: &DeviceCert) -> bool {
        let known = self.state.devices.get(&cert.device().id());
        known.is_some_and(|device| device.root != cert.root().sign || device.public != cert.device())
    }
}
