//! All members' Automerge documents have the same heads, and in each no (actor, seq) has two hashes.
//!
//! Why: Automerge refuses a change whose (actor, seq) it knows with another content, so replicas that saw different
//! halves of such a pair can never merge. Spec: docs/simulation.md#oracles.

use std::collections::BTreeMap;

use automerge::{Automerge, ChangeHash, LoadOptions, TextEncoding};
use weft_agent_core::store::{Read, Table};

use super::{Verdict, broken};
use crate::sim::machine::Machine;
use crate::sim::world::World;

/// Document name -> all its rows, the snapshot first.
fn stored(read: &dyn Read) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut documents: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (key, value) in read.scan(Table::Documents, &[], None, usize::MAX) {
        let name = key.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        documents.entry(name).or_default().extend_from_slice(&value);
    }
    documents
}

pub(super) fn same<M: Machine>(world: &World<M>) -> Verdict {
    let mut hashes: BTreeMap<(Vec<u8>, Vec<u8>, u64), ChangeHash> = BTreeMap::new();
    let mut heads: BTreeMap<Vec<u8>, (usize, Vec<ChangeHash>)> = BTreeMap::new();
    for (index, host) in super::members(world) {
        for (name, bytes) in stored(&host.disk.store) {
            let shown = String::from_utf8_lossy(&name).into_owned();
            let options = LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
            let document = match Automerge::load_with_options(&bytes, options) {
                Ok(document) => document,
                Err(error) => return broken("documents", format!("host {index} cannot load {shown}: {error}")),
            };
            let (first, known) = heads.entry(name.clone()).or_insert_with(|| (index, document.get_heads()));
            if *known != document.get_heads() {
                return broken("documents", format!("hosts {first} and {index} have other heads of {shown}"));
            }
            for change in document.get_changes(&[]) {
                let place = (name.clone(), change.actor_id().to_bytes().to_vec(), change.seq());
                if *hashes.entry(place).or_insert_with(|| change.hash()) != change.hash() {
                    return broken("documents", format!("one (actor, seq) has two hashes, in {shown} at host {index}"));
                }
            }
        }
    }
    Ok(())
}
