//! Which ops of a closed set count.
//!
//! An op counts if it is authorised, no counting removal, revocation or demotion of its author *from above* is concurrent
//! with it, and what its author's standing rests on counts. Higher ranks are settled first, so that nothing a lower rank
//! does concurrently can undo what a higher one did. Spec: docs/sealing.md#evaluation.

use super::authority::Standing;
use super::bits::Bits;
use super::set::OpSet;
use super::{Membership, fold};
use crate::op::OpBody;

/// The state that the ops in `closure` amount to.
pub(super) fn state(set: &OpSet, closure: &Bits, heads: Vec<crate::id::OpId>) -> Membership {
    let counting = counting(set, closure);
    fold::fold(set, &counting, heads)
}

/// Whether a counting `body` ends what `other`, its author's concurrent op, could rest on.
fn voids(body: &OpBody, by: &Standing, other: &Standing) -> bool {
    if by.rank() <= other.rank() {
        return false;
    }
    match body {
        OpBody::Remove { root, .. } => *root == other.root,
        OpBody::Revoke { devices, .. } => other.device.is_some_and(|device| devices.binary_search(&device).is_ok()),
        OpBody::Role { root, role, .. } => *root == other.root && *role < other.role && *role < other.needs,
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

fn is_removal(body: &OpBody) -> bool {
    matches!(body, OpBody::Remove { .. } | OpBody::Revoke { .. } | OpBody::Role { .. })
}

/// The indices of the ops that count, ascending.
fn counting(set: &OpSet, closure: &Bits) -> Bits {
    let authorised: Vec<(usize, &Standing)> =
        closure.iter().filter_map(|index| Some((index, set.nodes.get(index)?.standing.as_ref()?))).collect();
    let removals: Vec<(usize, &Standing)> = authorised
        .iter()
        .filter(|(index, _)| set.nodes.get(*index).is_some_and(|node| is_removal(node.op.body())))
        .copied()
        .collect();
    let mut stands = Bits::default();
    if removals.is_empty() {
        authorised.iter().for_each(|(index, _)| stands.insert(*index));
    } else {
        let mut by_rank = authorised.clone();
        by_rank.sort_by_key(|(_, standing)| core::cmp::Reverse(standing.rank()));
        for (index, standing) in by_rank {
            let voided = removals.iter().any(|(removal, by)| {
                stands.contains(*removal)
                    && concurrent(set, *removal, index)
                    && set.nodes.get(*removal).is_some_and(|node| voids(node.op.body(), by, standing))
            });
            if !voided {
                stands.insert(index);
            }
        }
    }
    // What rests on something that does not count falls with it; ancestors have smaller indices.
    let mut counts = Bits::default();
    for (index, standing) in authorised {
        let rests = |group: &Vec<crate::id::OpId>| {
            group.is_empty()
                || group.iter().any(|id| {
                    *id == set.genesis().op_id() || set.index_of(id).is_some_and(|support| counts.contains(support))
                })
        };
        if stands.contains(index) && standing.support.iter().all(rests) {
            counts.insert(index);
        }
    }
    counts
}

fn concurrent(set: &OpSet, one: usize, other: usize) -> bool {
    let before =
        |earlier: usize, later: usize| set.nodes.get(later).is_some_and(|node| node.ancestors.contains(earlier));
    one != other && !before(one, other) && !before(other, one)
}
