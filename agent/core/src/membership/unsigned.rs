//! A set that a search grows and shrinks, op by op, without a signature.
//!
//! Only in tests: an exhaustive search asks what the rules make of millions of histories, and whoever signs there is not the
//! question; `insert` and its signatures are tested elsewhere. What is judged and evaluated is the product's own code.

use super::Membership;
use super::authority;
use super::bits::Bits;
use super::evaluate as evaluation;
use super::set::{Node, OpSet};
use crate::op::SignedOp;

/// An op that was judged where it stands, and may be put there.
#[derive(Clone)]
pub(crate) struct Judged {
    node: Node,
}

impl Judged {
    pub(crate) fn op(&self) -> &SignedOp {
        &self.node.op
    }
    /// Whether it ever counts.
    pub(crate) fn is_authorised(&self) -> bool {
        self.node.standing.is_some()
    }
}

impl OpSet {
    /// Judges an op at its parents, which must be in.
    pub(crate) fn judged(&self, op: SignedOp) -> Judged {
        let ancestors = self.closure(op.parents()).unwrap();
        let state = super::evaluate_at(self, op.parents()).unwrap();
        let ancestor = |id: &crate::id::OpId| self.index_of(id).filter(|index| ancestors.contains(*index));
        let standing = authority::standing(self, &op, &state, &ancestor);
        Judged { node: Node { op, ancestors, standing } }
    }
    /// Takes in an op that was judged among these very ops, as one that nobody signed.
    pub(crate) fn push(&mut self, judged: &Judged) {
        self.push_node(judged.node.clone());
    }
    /// Takes the last op out again.
    pub(crate) fn pop(&mut self) {
        self.pop_node();
    }
    /// The state of everything, from all that stands below.
    pub(crate) fn state_of_all(&self) -> Membership {
        let all: Bits = (0..self.nodes.len()).collect();
        evaluation::state(self, &all, self.heads())
    }
    /// The members, devices and invites of everything.
    pub(crate) fn power_of_all(&self) -> Membership {
        let all: Bits = (0..self.nodes.len()).collect();
        evaluation::settled(self, &all, |counting| super::fold::fold_power(self, counting))
    }
    /// The ops that came last, as they were judged.
    pub(crate) fn newest(&self, count: usize) -> Vec<Judged> {
        let nodes = self.nodes.iter().skip(self.nodes.len().saturating_sub(count));
        nodes.map(|node| Judged { node: node.clone() }).collect()
    }
    /// Whether an op needs others' votes.
    pub(crate) fn needs_votes(&self, id: &crate::id::OpId) -> bool {
        let quorum = self.index_of(id).and_then(|index| self.standing_at(index)?.quorum.as_ref());
        quorum.is_some_and(|quorum| quorum.needed > 1)
    }
    /// Forgets states it was asked for.
    pub(crate) fn forget_states(&mut self) {
        self.clear_states();
    }
}
