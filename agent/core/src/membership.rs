//! Who belongs, as a pure function of the set of signed operations.
//!
//! Invariant: [`evaluate`] depends on the set of ops alone: not on their order of arrival, not on a clock, not on a hash's
//! order. Why: every device must come to the same members without asking anybody. Read in this order: [`OpSet`] (which
//! ops are in), `authority` (who may do what where they stand), `evaluate` (which ops count in a set), `fold` (what the
//! counting ones amount to). Spec: docs/sealing.md#membership.

mod authority;
mod bits;
mod evaluate;
mod fold;
mod set;

pub use set::{InsertError, Inserted, OPS_MAX, OpSet, PARKED_BYTES_MAX, PARKED_OPS_MAX, evaluate, evaluate_at};

use std::collections::BTreeMap;

use crate::epoch::Commitments;
use crate::id::{DeviceId, EpochId, OpId, RootKey, WorkspaceId};
use crate::identity::DevicePublic;
use crate::op::{EpochGrant, Policy};
use crate::secret::Secret;

/// What a member may do, from least to most. The order is the rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Holds access keys only; stores and serves what it cannot read.
    Keeper = 0,
    /// Reads.
    Reader = 1,
    /// Reads and writes.
    Writer = 2,
    /// Also invites, and removes those below.
    Admin = 3,
    /// Also names admins.
    Owner = 4,
}

/// A member that belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it may do.
    pub role: Role,
    /// Its display name: content, not identity.
    pub name: String,
    /// Where its copy of every epoch is sealed to.
    pub kem: [u8; 32],
    /// The ops that admitted it and count.
    pub admitted_by: Vec<OpId>,
    /// The ops its role rests on.
    pub role_from: Vec<OpId>,
}

/// A device that belongs or once did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its member.
    pub root: RootKey,
    /// Its keys.
    pub public: DevicePublic,
    /// Its label.
    pub label: String,
    /// Whether it belongs now.
    pub active: bool,
    /// The ops that introduced it and count.
    pub introduced_by: Vec<OpId>,
}

/// An invite, open or void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Public half of the link's signing key.
    pub sign: [u8; 32],
    /// The knock secret: [`crate::invite::KnockKeys::new`] makes the room and keys of it.
    pub knock: Secret,
    /// What whoever joins becomes.
    pub role: Role,
    /// When it ends; judged by whoever welcomes.
    pub expires_wall_ms: u64,
    /// How many may join; judged by whoever welcomes.
    pub uses: u32,
    /// How many welcomes by it count.
    pub used: u32,
    /// The member that issued it.
    pub issuer: RootKey,
    /// Whether only an admin may welcome.
    pub approval: bool,
    /// Not withdrawn, and its issuer not removed.
    pub open: bool,
}

impl Invite {
    /// Whether a member may let somebody in by it at this wall time: open, not over, with uses left.
    #[must_use]
    pub fn is_usable(&self, wall_ms: u64) -> bool {
        self.open && wall_ms < self.expires_wall_ms && self.used < self.uses
    }
}

/// An epoch that an op of the set grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochFacts {
    /// The op (of concurrent copies the smallest).
    pub op: OpId,
    /// Commitments, back links, recipients.
    pub grant: EpochGrant,
    /// 1 for the first epoch, else one more than the deepest parent.
    pub depth: u32,
    /// Whether it has every counting removal, revocation, demotion, fork and leave among its ancestors.
    pub covers: bool,
    /// Whether it opens a lobby: the first one, or embedded in a removal, revocation or fork.
    pub lobby: bool,
}

/// The state that a set of ops amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Its name.
    pub name: String,
    /// Who belongs.
    pub members: BTreeMap<RootKey, Member>,
    /// Every device that ever belonged.
    pub devices: BTreeMap<DeviceId, Device>,
    /// Every invite that counts.
    pub invites: BTreeMap<OpId, Invite>,
    /// Every epoch that counts.
    pub epochs: BTreeMap<EpochId, EpochFacts>,
    /// Who once belonged, and by which op it ended.
    pub former: BTreeMap<RootKey, OpId>,
    /// The settings.
    pub policy: Policy,
    /// The heads it was evaluated at, ascending.
    pub heads: Vec<OpId>,
}

impl Membership {
    /// The role of a device's member, if the device is active.
    #[must_use]
    pub fn role_of(&self, device: &DeviceId) -> Option<Role> {
        let device = self.devices.get(device).filter(|device| device.active)?;
        self.members.get(&device.root).map(|member| member.role)
    }
    /// The devices that belong now, ascending.
    pub fn active_devices(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.devices.iter().filter(|(_, device)| device.active)
    }
    /// A device's public keys, whether it is active or not.
    #[must_use]
    pub fn device_public(&self, device: &DeviceId) -> Option<&DevicePublic> {
        self.devices.get(device).map(|device| &device.public)
    }
    /// What an epoch's secrets must match.
    #[must_use]
    pub fn commitments(&self, epoch: &EpochId) -> Option<&Commitments> {
        self.epochs.get(epoch).map(|facts| &facts.grant.commitments)
    }
    /// The epoch to seal under: of those that cover every removal the deepest, then the one with the smallest id (this
    /// picks a key, it grants no power). `None`: a new one must be minted first.
    #[must_use]
    pub fn sealing_epoch(&self) -> Option<EpochId> {
        let covering = self.epochs.iter().filter(|(_, facts)| facts.covers);
        covering
            .max_by(|(one_id, one), (id, other)| one.depth.cmp(&other.depth).then(id.cmp(one_id)))
            .map(|(id, _)| *id)
    }
    /// The epochs that no other epoch names as a parent: a new one follows them all.
    #[must_use]
    pub fn epoch_heads(&self) -> Vec<EpochId> {
        let named =
            |id: &EpochId| self.epochs.values().any(|facts| facts.grant.parents.iter().any(|link| link.parent == *id));
        self.epochs.keys().filter(|id| !named(id)).copied().collect()
    }
    /// Active devices that an epoch's op does not name: a welcome or a new device concurrent with it. Whoever sees one
    /// sends it a slot.
    #[must_use]
    pub fn without_slot(&self, epoch: &EpochId) -> Vec<DeviceId> {
        let Some(facts) = self.epochs.get(epoch) else { return Vec::new() };
        let named = &facts.grant.recipients;
        self.active_devices().map(|(id, _)| *id).filter(|id| named.binary_search(id).is_err()).collect()
    }
    /// Whether an epoch's op names exactly the devices that are active here.
    #[must_use]
    pub fn reaches_exactly_active(&self, epoch: &EpochId) -> bool {
        self.epochs
            .get(epoch)
            .is_some_and(|facts| facts.grant.recipients.iter().eq(self.active_devices().map(|(id, _)| id)))
    }
}
