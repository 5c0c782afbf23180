//! The state at several heads, from one that stands before all that is new: what a few people did at the same time.
//!
//! Invariant: the same as evaluating everything, which tests check wherever they look. Why: people work at the same time, and
//! evaluating a history anew wherever their ops meet costs the square of its length. What is new descends from everything in
//! the state before, so it is concurrent only with other new ops; where two of those concern different people, neither voids
//! nor changes what the other says, and they may be taken one after the other. Whatever else: evaluate the whole.
//! Spec: docs/sealing.md#state.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bits::Bits;
use super::fold::rotates;
use super::set::{OpSet, introduced};
use super::{Membership, Role, step};
use crate::id::{DeviceId, RootKey};
use crate::op::OpBody;

/// Most ops taken this way: each is compared with every other.
pub(super) const JOINED_MAX: usize = 128;

/// Whom an op concerns.
struct Concerns {
    /// Whose membership, role or devices it changes.
    changes: BTreeSet<RootKey>,
    /// Who else it rests on or speaks of: its author, whoever an invite is for.
    names: BTreeSet<RootKey>,
    /// Devices it brings or takes: one key may be brought by two.
    devices: BTreeSet<DeviceId>,
    /// Changes everybody's settings.
    settings: bool,
}

impl Concerns {
    fn clash(&self, other: &Self) -> bool {
        let touches = |one: &Self, other: &Self| {
            one.changes.iter().any(|root| other.changes.contains(root) || other.names.contains(root))
        };
        let devices = !self.devices.is_disjoint(&other.devices);
        (self.settings && other.settings) || devices || touches(self, other) || touches(other, self)
    }
}

/// The state once `new`, which all descend from everything in `before`, is added. `None`: evaluate the whole.
pub(super) fn join(set: &OpSet, before: &Arc<Membership>, new: &[usize]) -> Option<Membership> {
    let mut state = Membership::clone(before);
    let mut concerned: Vec<(usize, Concerns)> = Vec::new();
    for index in new {
        // What never counts concerns nobody.
        if let Some(concerns) = set.standing_at(*index).map(|_| concerns(set, &state, *index)) {
            let concerns = concerns?;
            if concerned.iter().any(|(other, others)| set.concurrent(*index, *other) && concerns.clash(others)) {
                return None;
            }
            concerned.push((*index, concerns));
        }
        if let Some(body) = set.nodes.get(*index).map(|node| node.op.body())
            && let Some(grant) = body.epoch()
            && state.epochs.contains_key(&grant.id(&set.workspace()))
        {
            // Concurrent copies of one epoch.
            return None;
        }
        state = step::step(set, &state, *index)?;
    }
    state.covering = covering(set, before, &state, &concerned);
    let kept = state.members.values().any(|member| member.role == Role::Owner);
    kept.then_some(state)
}

/// The epochs that know of every rotation: of the old ones all or, after a new rotation, none.
fn covering(
    set: &OpSet,
    before: &Membership,
    state: &Membership,
    new: &[(usize, Concerns)],
) -> BTreeSet<crate::id::EpochId> {
    let body = |index: usize| set.nodes.get(index).map(|node| node.op.body());
    let rotations: Bits =
        new.iter().map(|(index, _)| *index).filter(|index| body(*index).is_some_and(rotates)).collect();
    let mut covering = if rotations.is_empty() { before.covering.clone() } else { BTreeSet::new() };
    for (index, _) in new {
        let Some(grant) = body(*index).and_then(OpBody::epoch) else { continue };
        let knows = |rotation: usize| rotation == *index || set.before(Some(rotation), Some(*index));
        if rotations.iter().all(knows) {
            covering.insert(grant.id(&set.workspace()));
        }
    }
    covering.retain(|epoch| state.epochs.contains_key(epoch));
    covering
}

fn concerns(set: &OpSet, state: &Membership, index: usize) -> Option<Concerns> {
    let (body, standing) = (set.nodes.get(index)?.op.body(), set.standing_at(index)?);
    let mut names: BTreeSet<RootKey> = standing.root.into_iter().collect();
    let mut changes = BTreeSet::new();
    match body {
        OpBody::Remove { root, .. } | OpBody::Role { root, .. } => changes.extend([*root]),
        OpBody::Revoke { devices, .. } => {
            for device in devices {
                changes.insert(state.devices.get(device)?.root);
            }
        }
        OpBody::Welcome { admission, .. } => changes.extend([admission.cert().root().sign]),
        OpBody::Device { .. } | OpBody::Leave | OpBody::Attest { .. } => changes.extend(standing.root),
        OpBody::Invite { whom, .. } => names.extend(*whom),
        OpBody::Uninvite { .. } | OpBody::Epoch(_) | OpBody::Endorse { .. } | OpBody::Policy(_) => {}
        // These reach back.
        OpBody::ExtendCut { .. } | OpBody::Fork { .. } => return None,
    }
    let taken = if let OpBody::Revoke { devices, .. } = body { devices.as_slice() } else { &[] };
    let brought = introduced(body).map(|cert| cert.device().id());
    let devices = taken.iter().copied().chain(brought).collect();
    Some(Concerns { changes, names, devices, settings: matches!(body, OpBody::Policy(_)) })
}
