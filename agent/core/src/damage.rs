//! Stored values that are not what was written: how a read says so, and how a replica is told what it lost.
//!
//! A store checks every value that it reads. It answers a damaged one by unwinding with [`Damaged`], never with "absent"
//! and never with the damaged bytes, so a core cannot act on either. The shell then takes the row away with
//! [`set_aside`], which leaves a note in the same batch, and opens the machine again; that reads the notes, rebuilds what
//! depended on the row, and removes them.
//!
//! Invariant: whatever a crash interrupts, a row that was taken away is either noted or rebuilt. Why: a replica that has
//! forgotten its loss would take it for what others deleted.
//! Spec: docs/sync.md#damage.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::{Read, Table, Write, rows};

/// Start of the keys of notes in [`Table::Meta`]: `lost/` ‖ table ‖ 1 ‖ key, or `lost/` ‖ table ‖ 0. Their values are empty.
const NOTE: &[u8] = b"lost/";
const ONE: u8 = 1;
const SOME: u8 = 0;

/// What a read unwinds with: a value that is not what was stored, or rows that are gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damaged {
    /// In which table.
    pub table: Table,
    /// The row (of a document: the start that all of its rows share); `None` if rows are gone and nobody can say which.
    pub key: Option<Vec<u8>>,
}

impl Damaged {
    /// Unwinds out of whatever reads.
    pub fn unwind(self) -> ! {
        std::panic::resume_unwind(Box::new(self))
    }
}

/// The batch that takes damaged rows away and notes what is lost.
#[must_use]
pub fn set_aside(found: &[Damaged]) -> Vec<Write> {
    let mut batch = BTreeMap::new();
    let mut note = |table: Table, key: Option<&[u8]>| {
        batch.insert((Table::Meta, note_key(table, key)), Some(bytes::Bytes::new()));
    };
    let mut gone = Vec::new();
    for Damaged { table, key } in found {
        match key {
            // A note is all in its key, so a damaged one is simply written again.
            Some(key) if *table == Table::Meta && parse_note(key).is_some() => {
                if let Some((table, key)) = parse_note(key) {
                    note(table, key.as_deref());
                }
            }
            Some(key) => {
                note(*table, Some(key));
                gone.push((*table, key.clone()));
            }
            None => note(*table, None),
        }
    }
    batch.extend(gone.into_iter().map(|at| (at, None)));
    batch.into_iter().map(|((table, key), value)| Write { table, key, value }).collect()
}

/// Whether a row is needed to come back into the workspace: the shell keeps a copy of these beside the database.
#[must_use]
pub fn is_kept_beside(table: Table, key: &[u8]) -> bool {
    const META: [&[u8]; 7] = [b"format", b"device", b"genesis", b"relays", b"left", b"joining", b"enrolling"];
    match table {
        Table::Ops | Table::Epochs => true,
        Table::Meta => META.contains(&key),
        Table::Envelopes
        | Table::Held
        | Table::Outbox
        | Table::Versions
        | Table::Documents
        | Table::Waiting
        | Table::Files
        | Table::Pieces
        | Table::Log
        | Table::Invites
        | Table::Peers => false,
    }
}

fn note_key(table: Table, key: Option<&[u8]>) -> Vec<u8> {
    let mut note = NOTE.to_vec();
    note.push(table as u8);
    match key {
        Some(key) => {
            note.push(ONE);
            note.extend(key);
        }
        None => note.push(SOME),
    }
    note
}

fn parse_note(note: &[u8]) -> Option<(Table, Option<Vec<u8>>)> {
    let (table, rest) = note.strip_prefix(NOTE)?.split_first()?;
    let table = Table::ALL.into_iter().find(|known| *known as u8 == *table)?;
    match rest.split_first()? {
        (&ONE, key) => Some((table, Some(key.to_vec()))),
        (&SOME, []) => Some((table, None)),
        _ => None,
    }
}

/// What a replica lost, as noted.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    rows: BTreeMap<Table, BTreeSet<Vec<u8>>>,
    some: BTreeSet<Table>,
    notes: Vec<Vec<u8>>,
}

impl Losses {
    /// Reads the notes.
    pub(crate) fn read(read: &dyn Read) -> Self {
        let mut losses = Self::default();
        for (note, _) in rows(read, Table::Meta, NOTE, 256) {
            match parse_note(&note) {
                Some((table, Some(key))) => {
                    losses.rows.entry(table).or_default().insert(key);
                }
                Some((table, None)) => {
                    losses.some.insert(table);
                }
                None => {}
            }
            losses.notes.push(note);
        }
        losses
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }
    /// Whether anything of this table is lost.
    pub(crate) fn of(&self, table: Table) -> bool {
        self.some.contains(&table) || self.rows.contains_key(&table)
    }
    /// Whether rows of this table are gone, nobody knows which.
    pub(crate) fn some_of(&self, table: Table) -> bool {
        self.some.contains(&table)
    }
    /// The rows of this table that are known to be lost.
    pub(crate) fn rows_of(&self, table: Table) -> impl Iterator<Item = &[u8]> {
        self.rows.get(&table).into_iter().flatten().map(Vec::as_slice)
    }
    /// Keys of the notes.
    pub(crate) fn notes(&self) -> &[Vec<u8>] {
        &self.notes
    }
    /// For people: which tables, and how many values of each.
    pub(crate) fn named(&self) -> String {
        let named = Table::ALL.into_iter().filter(|table| self.of(*table)).map(|table| {
            let count = self.rows.get(&table).map_or(0, BTreeSet::len);
            match (count, self.some.contains(&table)) {
                (0, _) => format!("rows missing from {}", table.name()),
                (count, false) => format!("{count} in {}", table.name()),
                (count, true) => format!("{count} in {}, and rows missing", table.name()),
            }
        });
        named.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    /// What was set aside is gone and noted, whichever row it was, also when it was a note.
    #[test]
    fn what_is_set_aside_is_noted() {
        let mut store = MemoryStore::default();
        let put = |table, key: &[u8]| Write { table, key: key.to_vec(), value: Some(bytes::Bytes::from_static(b"v")) };
        store.apply(&[put(Table::Documents, b"a"), put(Table::Documents, b"b"), put(Table::Meta, b"format")]);
        let row = |table, key: &[u8]| Damaged { table, key: Some(key.to_vec()) };
        let found =
            [row(Table::Documents, b"a"), row(Table::Meta, b"format"), Damaged { table: Table::Files, key: None }];
        store.apply(&set_aside(&found));
        assert_eq!(store.get(Table::Documents, b"a"), None);
        assert!(store.get(Table::Documents, b"b").is_some());
        let again = note_key(Table::Documents, Some(b"a"));
        store.apply(&set_aside(&[row(Table::Meta, &again)]));
        let losses = Losses::read(&store);
        assert_eq!(losses.rows_of(Table::Documents).collect::<Vec<_>>(), [b"a"]);
        assert_eq!(losses.rows_of(Table::Meta).collect::<Vec<_>>(), [b"format"]);
        assert!(losses.some_of(Table::Files) && !losses.of(Table::Ops));
        assert_eq!(losses.named(), "1 in meta; 1 in documents; rows missing from files");
    }
}
