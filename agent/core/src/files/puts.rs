//! What one change set in the tree, read in order to be entered again.
//!
//! Invariant: what is entered again names versions that were made here, or that still count, and no others. Why: a pointer
//! lists what its author left standing beside their own version, and some of that may be what fell. Spec: docs/files.md#void.

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::{Key as OpKey, OpType};
use automerge::{Automerge, Change, ChangeHash as Hash, ScalarValue};
use weft_protocol::cbor::to_bytes;

use super::draft::Puts;
use super::entry::{Deletion, Field, Known, Pointer, Registers, decoded, field_of_key, versions_at};
use crate::id::{FileId, VersionHash};

/// What a change of a bucket sets.
pub(super) fn puts_of(change: &Change) -> Vec<Puts> {
    let mut puts: BTreeMap<FileId, BTreeMap<Field, ScalarValue>> = BTreeMap::new();
    for operation in change.decode().operations {
        if let (OpKey::Map(key), OpType::Put(value)) = (&operation.key, &operation.action)
            && let Some((id, field)) = field_of_key(key)
        {
            puts.entry(id).or_default().insert(field, value.clone());
        }
    }
    puts.into_iter().collect()
}

/// The versions that somebody who set this made, and did not find.
pub(super) fn versions_made(
    doc: &Automerge,
    id: &FileId,
    fields: &BTreeMap<Field, ScalarValue>,
    made_on: &[Hash],
) -> Vec<VersionHash> {
    let Some(pointer) = fields.get(&Field::Versions).and_then(decoded::<Pointer>) else { return Vec::new() };
    let found = versions_at(doc, id, made_on);
    pointer.versions.into_iter().map(|version| version.hash).filter(|hash| !found.contains(hash)).collect()
}

/// What whoever set this had seen of texts that they replaced or deleted.
pub(super) fn known_in(fields: &BTreeMap<Field, ScalarValue>) -> Vec<Known> {
    let pointer = fields.get(&Field::Versions).and_then(decoded::<Pointer>).unwrap_or_default();
    let deletion = fields.get(&Field::Deleted).and_then(decoded::<Deletion>).unwrap_or_default();
    pointer.replaced.into_iter().chain(deletion.known).collect()
}

/// What was set here without the versions beside it that nothing names any more: those do not count, and were not made here.
pub(super) fn without_void(doc: &Automerge, (id, fields): &Puts, made: &BTreeSet<VersionHash>) -> Option<Puts> {
    let mut fields = fields.clone();
    if let Some(mut pointer) = fields.get(&Field::Versions).and_then(decoded::<Pointer>) {
        let registers = Registers::read(doc, id);
        let counts = |hash: &VersionHash| registers.as_ref().is_some_and(|registers| registers.names(hash));
        let before = pointer.versions.len();
        pointer.versions.retain(|version| made.contains(&version.hash) || counts(&version.hash));
        if pointer.versions.is_empty() {
            fields.remove(&Field::Versions);
        } else if pointer.versions.len() < before {
            fields.insert(Field::Versions, ScalarValue::Bytes(to_bytes(&pointer)));
        }
    }
    (!fields.is_empty()).then_some((*id, fields))
}
