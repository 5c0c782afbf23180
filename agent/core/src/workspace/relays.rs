//! The workspace's list of relays: shared data that travels in beacons.
//!
//! Invariant: merging is commutative, associative and idempotent, so every member ends with the same list; the list is
//! bounded. An entry is won by the later stamp; the clock of a member can at worst undo somebody's change of this list.

use std::collections::BTreeMap;

use weft_protocol::cbor::{Decoded, Reader, Wire, Writer, from_bytes, to_bytes};

use crate::message::{ADDRESSES_MAX, RelayEntry};
use crate::store::{Read, Table, Tx};

const KEY: &[u8] = b"relays";

/// The list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RelayList(BTreeMap<String, (u64, bool)>);

impl RelayList {
    pub(super) fn open(read: &dyn Read) -> Self {
        read.get(Table::Meta, KEY).and_then(|row| from_bytes(&row).ok()).unwrap_or_default()
    }

    /// Adds or removes a URL; false if the list is full.
    pub(super) fn set(&mut self, url: &str, stamp_ms: u64, present: bool, tx: &Tx<'_>) -> bool {
        let stamp_ms = self.0.get(url).map_or(stamp_ms, |(known, _)| stamp_ms.max(known + 1));
        let changed = self.merge(vec![RelayEntry { url: url.to_owned(), stamp_ms, present }], tx);
        self.save(tx);
        changed || self.0.get(url).is_some_and(|(_, now)| *now == present)
    }

    /// Takes in what another member lists; true if anything changed.
    pub(super) fn merge(&mut self, entries: Vec<RelayEntry>, tx: &Tx<'_>) -> bool {
        let before = self.0.clone();
        for entry in entries {
            let known = self.0.entry(entry.url).or_insert((entry.stamp_ms, entry.present));
            *known = (*known).max((entry.stamp_ms, entry.present));
        }
        while self.0.len() > ADDRESSES_MAX {
            // Entries that say "removed" go first, then the oldest: the same on every member that holds the same.
            let Some(oldest) = self
                .0
                .iter()
                .min_by_key(|(url, (stamp, present))| (*present, *stamp, (*url).clone()))
                .map(|(url, _)| url.clone())
            else {
                break;
            };
            self.0.remove(&oldest);
        }
        let changed = self.0 != before;
        if changed {
            self.save(tx);
        }
        changed
    }

    fn save(&self, tx: &Tx<'_>) {
        tx.put(Table::Meta, KEY, to_bytes(self));
    }

    /// All entries, removed ones too.
    pub(super) fn entries(&self) -> Vec<RelayEntry> {
        self.0
            .iter()
            .map(|(url, (stamp_ms, present))| RelayEntry { url: url.clone(), stamp_ms: *stamp_ms, present: *present })
            .collect()
    }

    /// The URLs in use.
    pub(super) fn urls(&self) -> Vec<String> {
        self.0.iter().filter(|(_, (_, present))| *present).map(|(url, _)| url.clone()).collect()
    }
}

impl Wire for RelayList {
    fn encode(&self, writer: &mut Writer) {
        writer.list(&self.entries());
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let entries: Vec<RelayEntry> = reader.list(ADDRESSES_MAX, "relays")?;
        Ok(Self(entries.into_iter().map(|entry| (entry.url, (entry.stamp_ms, entry.present))).collect()))
    }
}
