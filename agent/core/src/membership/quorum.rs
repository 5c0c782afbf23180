//! What no single owner can do: end another owner, or name one when there are several.
//!
//! Invariant: votes are those of owners where the op stands *and* where somebody endorsed it, so that neither people named
//! owners later nor ones who are owners no more decide. Why: whoever could fill the electorate would be the quorum.
//! Spec: docs/sealing.md#quorum.

use std::collections::BTreeSet;

use super::{Membership, Role};
use crate::id::RootKey;

/// Fewest owners that end another, whatever their number.
const ENDERS_MIN: usize = 2;

/// Whose agreement an op needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quorum {
    /// Who may vote; its author, who has, is one of them.
    pub(super) electorate: BTreeSet<RootKey>,
    /// How many votes at least.
    pub(super) needed: usize,
    /// Whether it ends owners: then it outranks each of them.
    pub(super) ends: bool,
    targets: BTreeSet<RootKey>,
}

/// One endorsement: which of the votes cast anywhere it lets count, and how many it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ballot {
    /// The op that is voted on, by its local index.
    pub(super) on: usize,
    /// Who may vote and was an owner still.
    pub(super) voters: BTreeSet<RootKey>,
    /// How many of them are needed.
    pub(super) needed: usize,
    /// Whether owners end by it.
    pub(super) ends: bool,
}

fn owners(state: &Membership, without: &BTreeSet<RootKey>) -> BTreeSet<RootKey> {
    let owners = state.members.iter().filter(|(_, member)| member.role == Role::Owner).map(|(root, _)| *root);
    owners.filter(|root| !without.contains(root)).collect()
}

fn most_of(owners: usize, ends: bool) -> usize {
    let majority = owners / 2 + 1;
    if ends { majority.max(ENDERS_MIN) } else { majority }
}

impl Quorum {
    /// More than half of the other owners, and at least two.
    pub(super) fn to_end_owners(state: &Membership, targets: &BTreeSet<RootKey>) -> Self {
        let electorate = owners(state, targets);
        let needed = most_of(electorate.len(), true);
        Self { electorate, needed, ends: true, targets: targets.clone() }
    }
    /// More than half of the owners; an owner who is alone decides alone.
    pub(super) fn to_name_an_owner(state: &Membership) -> Self {
        let electorate = owners(state, &BTreeSet::new());
        let needed = most_of(electorate.len(), false);
        Self { electorate, needed, ends: false, targets: BTreeSet::new() }
    }
    /// The vote of somebody who endorses the op at `on`, in the state where the endorsement stands.
    pub(super) fn ballot(&self, on: usize, state: &Membership) -> Ballot {
        let now = owners(state, &self.targets);
        let needed = self.needed.max(most_of(now.len(), self.ends));
        Ballot { on, voters: self.electorate.intersection(&now).copied().collect(), needed, ends: self.ends }
    }
}
