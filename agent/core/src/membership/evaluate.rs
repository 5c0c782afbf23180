//! Which ops of a closed set count.
//!
//! An op counts if it is authorised, no counting removal, revocation or demotion of its author *from above* is concurrent
//! with it, what its author's standing rests on counts, and those who must agree do. "Counting" stands on both sides of
//! that sentence, so it is settled from both ends: what survives everything that might count counts for certain, which
//! narrows what might, and so on until nothing changes. What then still hangs on itself does not count: least privilege.
//! Spec: docs/sealing.md#evaluation.

use std::collections::{BTreeMap, BTreeSet};

use super::authority::Standing;
use super::bits::Bits;
use super::set::OpSet;
use super::{Defence, Membership, Role, fold};
use crate::id::{DeviceId, RootKey};
use crate::identity::Certifier;
use crate::op::OpBody;

/// The state that the ops in `closure` amount to.
pub(super) fn state(set: &OpSet, closure: &Bits, heads: Vec<crate::id::OpId>) -> Membership {
    settled(set, closure, |counting| fold::fold(set, counting, closure, heads.clone()))
}

/// What the ops of `closure` that count amount to, as `fold` sees it.
pub(super) fn settled(set: &OpSet, closure: &Bits, fold: impl Fn(&Bits) -> Membership) -> Membership {
    let without = |excluded: &Bits| {
        let counting = Counting::new(set, closure, excluded).settle();
        let mut state = fold(&counting);
        state.owners_kept = !excluded.is_empty();
        (counting, state)
    };
    let mut excluded = Bits::default();
    loop {
        let (counting, state) = without(&excluded);
        if has_owner(&state) || !set.defends(Defence::OwnerLeft) {
            return state;
        }
        // Removals that together would leave no owner do not count: the latest of them, never those that others built on.
        let latest = set.latest(enders(set, &counting));
        if latest.is_empty() {
            return state;
        }
        let mut all = excluded.clone();
        latest.iter().filter_map(|(at, _)| *at).for_each(|index| all.insert(index));
        // Of these only those without which somebody is an owner, if they are enough: whoever gave up being one is not
        // brought back.
        let (_, kept) = without(&all);
        let is_owner = |root: &RootKey| kept.members.get(root).is_some_and(|member| member.role == Role::Owner);
        let mut some = excluded;
        latest.iter().filter(|(_, root)| is_owner(root)).filter_map(|(at, _)| *at).for_each(|index| some.insert(index));
        let (_, state) = without(&some);
        if has_owner(&state) {
            return state;
        }
        excluded = all;
    }
}

fn has_owner(state: &Membership) -> bool {
    state.members.values().any(|member| member.role == Role::Owner)
}

/// The ops that end somebody whom a counting op, or the genesis, names an owner, whatever that one was where they stand (its
/// being named may be concurrent), and whom. With none of them the founder is an owner, so that setting aside ends.
fn enders(set: &OpSet, counting: &Bits) -> Vec<(Option<usize>, RootKey)> {
    let mut owners = BTreeSet::from([set.genesis().root().sign]);
    let body = |index: usize| set.nodes.get(index).map(|node| node.op.body());
    for index in counting.iter() {
        if let Some(OpBody::Role { root, role: Role::Owner, .. }) = body(index) {
            owners.insert(*root);
        }
    }
    let ends = |index: usize| {
        let ended = match body(index) {
            Some(OpBody::Remove { root, .. }) => Some(*root),
            Some(OpBody::Role { root, role, .. }) if *role < Role::Owner => Some(*root),
            Some(OpBody::Leave) => set.standing_at(index).and_then(|standing| standing.root),
            _ => None,
        };
        Some((Some(index), ended.filter(|root| owners.contains(root))?))
    };
    counting.iter().filter_map(ends).collect()
}

/// Whether a counting `body` ends what `other`, its author's concurrent op, could rest on.
fn voids(body: &OpBody, by: &Standing, other: &OpBody, standing: &Standing) -> bool {
    let above = by.rank > standing.rank;
    match body {
        OpBody::Remove { root, .. } => above && standing.root == Some(*root),
        OpBody::Revoke { devices, .. } => {
            let ends = |device: DeviceId| devices.binary_search(&device).is_ok();
            // The words speak for the member, whatever rank its device lends to an op.
            let own_words = by.device.is_none() && by.root == standing.root;
            (standing.device.is_some_and(ends) && (above || own_words)) || introducers(other, standing).any(ends)
        }
        OpBody::Role { root, role, .. } => {
            above && standing.root == Some(*root) && *role < standing.role && *role < standing.needs
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
    }
}

/// The devices that vouch for another one in this op.
fn introducers(body: &OpBody, standing: &Standing) -> impl Iterator<Item = DeviceId> {
    let cert = if let OpBody::Device { cert, .. } = body { Some(cert) } else { None };
    let certifier = cert.and_then(|cert| match cert.certifier() {
        Certifier::Device(device) => Some(device),
        Certifier::Root => None,
    });
    cert.and(standing.device).into_iter().chain(certifier)
}

struct Counting<'a> {
    set: &'a OpSet,
    /// Ascending.
    authorised: Vec<(usize, &'a Standing)>,
    /// By which ops one is void, if they count.
    voided_by: BTreeMap<usize, Vec<usize>>,
    /// Endorsements, by what they endorse.
    endorsements: BTreeMap<usize, Vec<usize>>,
}

impl<'a> Counting<'a> {
    fn new(set: &'a OpSet, closure: &Bits, excluded: &Bits) -> Self {
        let authorised: Vec<(usize, &Standing)> = closure
            .iter()
            .filter(|index| !excluded.contains(*index))
            .filter_map(|index| Some((index, set.standing_at(index)?)))
            .collect();
        let mut endorsements: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, standing) in &authorised {
            if let Some(ballot) = &standing.ballot {
                endorsements.entry(ballot.on).or_default().push(*index);
            }
        }
        let voided_by = voids_among(set, &authorised);
        Self { set, authorised, voided_by, endorsements }
    }

    fn settle(&self) -> Bits {
        if self.voided_by.is_empty() {
            return self.surviving(&Bits::default());
        }
        let mut certain = Bits::default();
        loop {
            let possible = self.surviving(&certain);
            let next = self.surviving(&possible);
            if next == certain {
                return certain;
            }
            certain = next;
        }
    }

    /// What counts if exactly `voiders` void: the least set in which everything rests on something in it.
    fn surviving(&self, voiders: &Bits) -> Bits {
        let mut counts = Bits::default();
        loop {
            let mut grown = false;
            for (index, standing) in &self.authorised {
                let voided = || self.voided_by.get(index).into_iter().flatten().any(|by| voiders.contains(*by));
                if !counts.contains(*index)
                    && !voided()
                    && self.rests(standing, &counts)
                    && self.agreed(*index, standing, &counts)
                {
                    counts.insert(*index);
                    grown = true;
                }
            }
            // Ancestors have smaller indices: only an endorsement reaches back.
            if !grown || self.endorsements.is_empty() {
                return counts;
            }
        }
    }

    fn rests(&self, standing: &Standing, counts: &Bits) -> bool {
        let rests = |group: &Vec<crate::id::OpId>| {
            group.is_empty()
                || group.iter().any(|id| {
                    *id == self.set.genesis().op_id()
                        || self.set.index_of(id).is_some_and(|support| counts.contains(support))
                })
        };
        standing.support.iter().all(rests) || !self.set.defends(Defence::Support)
    }

    fn agreed(&self, index: usize, standing: &Standing, counts: &Bits) -> bool {
        let Some(quorum) = &standing.quorum else { return true };
        if quorum.needed <= 1 || !self.set.defends(Defence::Quorum) {
            return true;
        }
        let endorsed: Vec<&Standing> = self
            .endorsements
            .get(&index)
            .into_iter()
            .flatten()
            .filter(|endorsement| counts.contains(**endorsement))
            .filter_map(|endorsement| self.set.standing_at(*endorsement))
            .collect();
        let votes: BTreeSet<RootKey> = endorsed.iter().filter_map(|by| by.root).chain(standing.root).collect();
        endorsed
            .iter()
            .filter_map(|by| by.ballot.as_ref())
            .any(|ballot| ballot.voters.intersection(&votes).count() >= ballot.needed)
    }
}

/// For each op, the concurrent ones that void it if they count.
fn voids_among(set: &OpSet, authorised: &[(usize, &Standing)]) -> BTreeMap<usize, Vec<usize>> {
    let mut voided_by: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let body = |index: usize| set.nodes.get(index).map(|node| node.op.body());
    let removals: Vec<(usize, &Standing, &OpBody)> = authorised
        .iter()
        .filter_map(|(index, standing)| Some((*index, *standing, body(*index)?)))
        .filter(|(_, _, body)| matches!(body, OpBody::Remove { .. } | OpBody::Revoke { .. } | OpBody::Role { .. }))
        .collect();
    if removals.is_empty() || !set.defends(Defence::RemovalVoids) {
        return voided_by;
    }
    let mut by_root: BTreeMap<RootKey, Vec<usize>> = BTreeMap::new();
    let mut by_device: BTreeMap<DeviceId, Vec<usize>> = BTreeMap::new();
    for (index, standing) in authorised {
        if let Some(root) = standing.root {
            by_root.entry(root).or_default().push(*index);
        }
        let vouching = body(*index).into_iter().flat_map(|body| introducers(body, standing));
        for device in standing.device.into_iter().chain(vouching).collect::<BTreeSet<_>>() {
            by_device.entry(device).or_default().push(*index);
        }
    }
    for (removal, by, ends) in removals {
        let concerned: BTreeSet<usize> = if let OpBody::Remove { root, .. } | OpBody::Role { root, .. } = ends {
            by_root.get(root).into_iter().flatten().copied().collect()
        } else if let OpBody::Revoke { devices, .. } = ends {
            devices.iter().filter_map(|device| by_device.get(device)).flatten().copied().collect()
        } else {
            BTreeSet::new()
        };
        for index in concerned {
            let Some((other, standing)) = body(index).zip(set.standing_at(index)) else { continue };
            let skipped = matches!(other, OpBody::Device { .. })
                && !set.defends(Defence::RevocationEndsIntroductions)
                && by.rank <= standing.rank;
            if set.concurrent(removal, index) && voids(ends, by, other, standing) && !skipped {
                voided_by.entry(index).or_default().push(removal);
            }
        }
    }
    voided_by
}
