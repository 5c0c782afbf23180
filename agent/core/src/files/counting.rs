//! What still counts below changes that do not, or that were entered again as others.
//!
//! Invariant: what is found is in the document. Why it is looked for: what is entered at the heads that its author had seen, as
//! far as they count, meets what others did meanwhile as it did before. Spec: docs/files.md#void.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, ChangeHash as Hash};

use super::documents::has;

/// The dependencies of changes.
pub(super) type Graph = BTreeMap<Hash, Vec<Hash>>;

/// These changes and all that they stand on.
pub(super) fn below(graph: &Graph, mut ready: Vec<Hash>) -> BTreeSet<Hash> {
    let mut seen = BTreeSet::new();
    while let Some(next) = ready.pop() {
        if seen.insert(next) {
            ready.extend(graph.get(&next).into_iter().flatten());
        }
    }
    seen
}

/// The heads of what still counts below these changes: themselves, as they are or were entered again, or what they stood on.
/// What is entered at those meets what others did meanwhile as it did before.
pub(super) fn counting(doc: &Automerge, changes: &[Hash], graph: &Graph, again: &Graph) -> Vec<Hash> {
    let (mut found, mut seen, mut ready) = (BTreeSet::new(), BTreeSet::new(), changes.to_vec());
    while let Some(next) = ready.pop() {
        if !seen.insert(next) {
            continue;
        }
        match again.get(&next) {
            Some(heads) => found.extend(heads.iter().copied()),
            None if has(doc, &next) => {
                found.insert(next);
            }
            None => ready.extend(graph.get(&next).into_iter().flatten()),
        }
    }
    if found.len() > 1 {
        // What another of them stands on says nothing.
        let below = |hash: &Hash| doc.get_change_meta_by_hash(hash).map(|meta| meta.deps).unwrap_or_default();
        let (mut under, mut ready) = (BTreeSet::new(), found.iter().flat_map(below).collect::<Vec<_>>());
        while let Some(next) = ready.pop() {
            if under.insert(next) {
                ready.extend(below(&next));
            }
        }
        found.retain(|hash| !under.contains(hash));
    }
    found.into_iter().collect()
}
