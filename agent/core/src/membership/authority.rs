//! Whether an op's author had the role for it in the state of the op's ancestors.
//!
//! Invariant: judged once, by the op and its ancestors alone. Spec: docs/sealing.md#authority.

use std::collections::BTreeSet;

use super::{Membership, Role};
use crate::id::{DeviceId, OpId, RootKey};
use crate::identity::{Certifier, DeviceCert};
use crate::op::{EpochGrant, OpBody, SignedOp, Signer};

/// What the author of an authorised op was, where the op stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// Its member.
    pub(super) root: RootKey,
    /// Its device, if a device signed.
    pub(super) device: Option<DeviceId>,
    /// Its role.
    pub(super) role: Role,
    /// The role the op needs: a concurrent demotion from above below this voids it.
    pub(super) needs: Role,
    /// What the author's standing rests on: in each group one must count.
    pub(super) support: Vec<Vec<OpId>>,
    /// For a welcome: whether its member was none before.
    pub(super) fresh: bool,
}

impl Standing {
    /// The order of evaluation: role, and within it a root above its devices.
    pub(super) fn rank(&self) -> u8 {
        self.role as u8 * 2 + u8::from(self.device.is_none())
    }
}

/// The author's standing, if the op is authorised.
pub(super) fn standing(op: &SignedOp, state: &Membership) -> Option<Standing> {
    let (root, device) = match op.signer() {
        Signer::Root(root) => (root, None),
        Signer::Device(id) => (state.devices.get(&id).filter(|device| device.active)?.root, Some(id)),
        // Recovery is settled together with the owners' quorum.
        Signer::Recovery(_) => return None,
    };
    let member = state.members.get(&root)?;
    let mut support = vec![member.admitted_by.clone()];
    support.extend(member.role_from.iter().map(|op| vec![*op]));
    if let Some(device) = device.and_then(|id| state.devices.get(&id)) {
        support.push(device.introduced_by.clone());
    }
    let author = Author { root, role: member.role, state };
    let (needs, fresh) = author.may(op.body(), &mut support)?;
    Some(Standing { root, device, role: member.role, needs, support, fresh })
}

struct Author<'a> {
    root: RootKey,
    role: Role,
    state: &'a Membership,
}

impl Author<'_> {
    /// The role the op needs, if the author may do it; and whether it brings a new member.
    fn may(&self, body: &OpBody, support: &mut Vec<Vec<OpId>>) -> Option<(Role, bool)> {
        let at_least = |role: Role| (self.role >= role).then_some((role, false));
        match body {
            OpBody::Device { cert, .. } => {
                (cert.root().sign == self.root && self.certified(cert, support)).then_some((Role::Keeper, false))
            }
            OpBody::Revoke { devices, epoch, .. } => {
                let below = devices.iter().all(|id| {
                    self.state
                        .devices
                        .get(id)
                        .is_some_and(|device| device.root == self.root || self.outranks(&device.root))
                });
                let own =
                    devices.iter().all(|id| self.state.devices.get(id).is_some_and(|device| device.root == self.root));
                let gone: BTreeSet<DeviceId> = devices.iter().copied().collect();
                let needs = if own { Role::Keeper } else { Role::Admin };
                (below && self.grants(epoch, |id| !gone.contains(id))).then_some((needs, false))
            }
            // An invite gives less than its issuer has.
            OpBody::Invite { role, .. } => (*role < self.role).then(|| at_least(Role::Admin)).flatten(),
            OpBody::Uninvite { invite } => {
                let invite = self.state.invites.get(invite)?;
                if invite.issuer == self.root { at_least(Role::Keeper) } else { at_least(Role::Admin) }
            }
            OpBody::Welcome { invite, admission, .. } => {
                let facts = self.state.invites.get(invite)?;
                let needs = if facts.approval || self.state.policy.approval { Role::Admin } else { Role::Writer };
                let cert = admission.cert();
                let root = cert.root();
                let known = self.state.members.get(&root.sign);
                let sound = facts.open
                    && admission.invite() == *invite
                    && admission.verify(&self.state.workspace, &facts.sign).is_ok()
                    && known.is_none_or(|member| member.kem == root.kem)
                    && self.certified(cert, support)
                    && !self.is_foreign_device(cert);
                support.push(vec![*invite]);
                (sound && self.role >= needs).then_some((needs, known.is_none()))
            }
            OpBody::Role { root, role, epoch, .. } => {
                let target = self.state.members.get(root)?;
                let above = *root == self.root || self.outranks(root);
                let gives = *role < self.role || (self.role == Role::Owner && *role == Role::Owner);
                let own_demotion = *root == self.root && *role < self.role;
                let demotes = *role < target.role;
                let rotation = match epoch {
                    Some(epoch) => demotes && self.grants(epoch, |_| true),
                    None => !demotes,
                };
                let lawful = above && (gives || own_demotion) && rotation && !(demotes && self.is_last_owner(root));
                lawful.then_some((if own_demotion { Role::Keeper } else { Role::Admin }, false))
            }
            OpBody::Remove { root, epoch, .. } => {
                let stays = |id: &DeviceId| self.state.devices.get(id).is_some_and(|device| device.root != *root);
                (self.outranks(root) && self.grants(epoch, stays)).then_some((Role::Admin, false))
            }
            OpBody::Epoch(epoch) => self.grants(epoch, |_| true).then(|| at_least(Role::Writer)).flatten(),
            OpBody::Leave => (!self.is_last_owner(&self.root)).then_some((Role::Keeper, false)),
            OpBody::Policy(_) => at_least(Role::Admin),
            // Held and served; their effect comes with the owners' quorum, moved cuts, forks and attestations.
            OpBody::Endorse { .. } | OpBody::ExtendCut { .. } | OpBody::Fork { .. } | OpBody::Attest { .. } => None,
        }
    }

    /// An admin or owner above a member; owners are removed by quorum only.
    fn outranks(&self, root: &RootKey) -> bool {
        self.role >= Role::Admin && self.state.members.get(root).is_some_and(|member| member.role < self.role)
    }

    fn is_last_owner(&self, root: &RootKey) -> bool {
        let mut owners = self.state.members.iter().filter(|(_, member)| member.role == Role::Owner).map(|(key, _)| key);
        owners.next() == Some(root) && owners.next().is_none()
    }

    /// Certified by the root, or by a device of the member that is active here.
    fn certified(&self, cert: &DeviceCert, support: &mut Vec<Vec<OpId>>) -> bool {
        match cert.certifier() {
            Certifier::Root => true,
            Certifier::Device(id) => match self.state.devices.get(&id) {
                Some(device) if device.active && device.root == cert.root().sign => {
                    support.push(device.introduced_by.clone());
                    self.state.members.get(&device.root).is_some_and(|member| member.kem == cert.root().kem)
                }
                _ => false,
            },
        }
    }

    /// A device never changes its member.
    fn is_foreign_device(&self, cert: &DeviceCert) -> bool {
        let known = self.state.devices.get(&cert.device().id());
        known.is_some_and(|device| device.root != cert.root().sign || device.public != cert.device())
    }

    /// A new epoch, over known parents, for exactly the devices that stay.
    fn grants(&self, grant: &EpochGrant, stays: impl Fn(&DeviceId) -> bool) -> bool {
        let epochs = &self.state.epochs;
        let parents = grant.parents.iter().all(|link| epochs.contains_key(&link.parent));
        let expected = self.state.active_devices().map(|(id, _)| id).filter(|id| stays(id));
        parents
            && grant.parents.is_empty() == epochs.is_empty()
            && !epochs.contains_key(&grant.id(&self.state.workspace))
            && grant.recipients.iter().eq(expected)
    }
}
