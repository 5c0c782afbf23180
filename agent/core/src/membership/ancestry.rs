//! Who stands before whom in the DAG of ops: the only order that evaluation knows.

use super::set::OpSet;
use crate::id::OpId;

/// An op's place: `None` is the genesis, an ancestor of all.
pub(super) type At = Option<usize>;

impl OpSet {
    /// Whether `earlier` is an ancestor of `later`.
    pub(super) fn before(&self, earlier: At, later: At) -> bool {
        match (earlier, later) {
            (None, later) => later.is_some(),
            (Some(_), None) => false,
            (Some(earlier), Some(later)) => self.nodes.get(later).is_some_and(|node| node.ancestors.contains(earlier)),
        }
    }
    /// Whether neither stands before the other, and they are two.
    pub(super) fn concurrent(&self, one: usize, other: usize) -> bool {
        one != other && !self.before(Some(one), Some(other)) && !self.before(Some(other), Some(one))
    }
    /// Those that are no ancestor of another. `statements` ascend by place.
    pub(super) fn latest<T>(&self, statements: Vec<(At, T)>) -> Vec<(At, T)> {
        let mut last: Vec<(At, T)> = Vec::new();
        // Descendants have higher indices, and what stands before one that was passed over stands before its descendant.
        for (at, statement) in statements.into_iter().rev() {
            if !last.iter().any(|(later, _)| self.before(at, *later)) {
                last.push((at, statement));
            }
        }
        last.reverse();
        last
    }
    /// The id of what stands at a place.
    pub(super) fn id_at(&self, at: At) -> OpId {
        at.and_then(|index| self.nodes.get(index)).map_or_else(|| self.genesis().op_id(), |node| node.op.id())
    }
}
