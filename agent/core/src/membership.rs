//! Who belongs, as a pure function of the set of signed operations.
//!
//! Invariant: [`evaluate`] depends on the set of ops alone: not on their order of arrival, not on a clock, not on a hash's
//! order. Why: every device must come to the same members without asking anybody. Read in this order: [`OpSet`] (which
//! ops are in), `authority` (who may do what where they stand), `quorum` (what takes several), `evaluate` (which ops count
//! in a set), `fold` (what the counting ones amount to), `step` and `join` (the same, one op or a few
//! further), `acceptance` (what that means
//! for envelopes). Spec: docs/sealing.md#membership.

mod acceptance;
mod ancestry;
mod authority;
mod bits;
mod defence;
mod evaluate;
mod fold;
mod fork;
mod join;
mod quorum;
mod set;
mod shared;
mod step;
#[cfg(test)]
mod unsigned;

pub(crate) use acceptance::{Beyond, above, builders, ends_before};
pub use acceptance::{Envelope, Refused, Verdict, accepts, settle};
pub(crate) use defence::Defence;
pub use fold::ATTESTED_MAX;
pub use fork::Fork;
pub use set::{
    InsertError, Inserted, Lawful, OPS_MAX, OpSet, PARKED_BYTES_MAX, PARKED_OPS_MAX, evaluate, evaluate_anew,
    evaluate_at,
};
pub use shared::Shared;
#[cfg(test)]
pub(crate) use unsigned::Judged;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::epoch::Commitments;
use crate::id::{ChainId, DeviceId, EpochId, OpId, RootKey, WorkspaceId};
use crate::identity::DevicePublic;
use crate::op::{Cut, EpochGrant, Policy};
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
    /// Identities it says it has elsewhere, with the proof that op carried; they authorise nothing.
    pub attested: BTreeMap<String, Vec<u8>>,
    /// The op its name and key are from: the smallest of those that admitted it.
    pub(crate) said_by: OpId,
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
    /// The device of the same member that certified it; `None`: the words did.
    pub certified_by: Option<DeviceId>,
    /// Revoked, and not brought back since: only its member's words can.
    pub revoked: bool,
    /// The op its label and keys are from: the smallest of those that introduced it.
    pub(crate) said_by: OpId,
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
    /// Whom alone it lets in; `None`: whoever holds the link.
    pub whom: Option<RootKey>,
    /// Not withdrawn, and its issuer still above what it gives.
    pub open: bool,
    /// Withdrawn, or void since its issuer, whom it is for, or somebody who came in by it was removed.
    void: bool,
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
    /// Whether it opens a lobby: the first one, or embedded in a removal, revocation or fork.
    pub lobby: bool,
}

/// Where the chains of a member or of devices end, because of one op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The member whose chains end; `None`: only the devices named.
    pub root: Option<RootKey>,
    /// The devices revoked; empty if a whole member is concerned.
    pub devices: Vec<DeviceId>,
    /// For a fork: only this chain.
    pub chain: Option<ChainId>,
    /// What stays, as far as later ops extended it.
    pub cut: Cut,
}

/// An op that waits for other owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Who agreed so far, its author included.
    pub votes: BTreeSet<RootKey>,
    /// How many owners are needed.
    pub needed: usize,
}

/// The state that a set of ops amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Its name.
    pub name: String,
    /// Who belongs.
    pub members: Shared<RootKey, Arc<Member>>,
    /// Every device that ever belonged.
    pub devices: Shared<DeviceId, Arc<Device>>,
    /// Every invite that counts.
    pub invites: Shared<OpId, Arc<Invite>>,
    /// Every epoch that counts.
    pub epochs: Shared<EpochId, Arc<EpochFacts>>,
    /// The epochs that have every counting removal, revocation, demotion, fork and leave among their ancestors.
    pub covering: BTreeSet<EpochId>,
    /// Who once belonged, and by which op it ended last.
    pub former: Shared<RootKey, OpId>,
    /// Where chains end, by the op that ends them.
    pub ends: Shared<OpId, Arc<End>>,
    /// What waits for other owners.
    pub proposals: BTreeMap<OpId, Proposal>,
    /// The settings.
    pub policy: Policy,
    /// The heads it was evaluated at, ascending.
    pub heads: Vec<OpId>,
    /// The invites each member ever came in by.
    came_by: Shared<RootKey, BTreeSet<OpId>>,
    /// Ops that would have left no owner were set aside: what one more op says cannot be told without them.
    owners_kept: bool,
}

impl Membership {
    /// Of a workspace that nothing is known of yet.
    #[must_use]
    pub fn nobody(workspace: WorkspaceId) -> Arc<Self> {
        Arc::new(Self {
            workspace,
            name: String::new(),
            members: Shared::default(),
            devices: Shared::default(),
            invites: Shared::default(),
            epochs: Shared::default(),
            covering: BTreeSet::new(),
            former: Shared::default(),
            ends: Shared::default(),
            proposals: BTreeMap::new(),
            policy: Policy::default(),
            heads: Vec::new(),
            came_by: Shared::default(),
            owners_kept: false,
        })
    }
    /// The role of a device's member, if the device is active.
    #[must_use]
    pub fn role_of(&self, device: &DeviceId) -> Option<Role> {
        let device = self.devices.get(device).filter(|device| device.active)?;
        self.members.get(&device.root).map(|member| member.role)
    }
    /// The devices that belong now, ascending.
    pub fn active_devices(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.devices.iter().map(|(id, device)| (id, device.as_ref())).filter(|(_, device)| device.active)
    }
    /// A device, and the active ones that it certified, directly or through others: what its revocation takes along unless
    /// told to keep them. Ascending.
    #[must_use]
    pub fn with_certified(&self, device: DeviceId) -> Vec<DeviceId> {
        let mut all = BTreeSet::from([device]);
        loop {
            let further: Vec<DeviceId> = self
                .active_devices()
                .filter(|(id, facts)| facts.certified_by.is_some_and(|by| all.contains(&by)) && !all.contains(*id))
                .map(|(id, _)| *id)
                .collect();
            if further.is_empty() {
                return all.into_iter().collect();
            }
            all.extend(further);
        }
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
        let covering = self.epochs.iter().filter(|(id, _)| self.covering.contains(*id));
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
