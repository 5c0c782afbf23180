//! A disk that does not keep what was written to it.
//!
//! The shell checks every value that it reads. One that is not what was written unwinds out of the machine, which dies with
//! all that was not durable and is started again without the value, and with a note of it. Rows that are gone are found at
//! a start, by the sums of their tables. Invariant: the world itself reads the undamaged bytes, so that an oracle never
//! mistakes damage for content. Spec: docs/simulation.md#damage.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use weft_agent_core::damage::{Damaged, is_kept_beside, set_aside};
use weft_agent_core::store::{MemoryStore, Read, Row, Table, Write};

use super::{Step, World};
use crate::sim::host::Phase;
use crate::sim::machine::Machine;

/// The longest until what nobody reads is found, in microseconds.
const SCRUB_US: u64 = 10_000_000;

/// Rows whose values are damaged.
pub type Marks = BTreeSet<(Table, Vec<u8>)>;

/// The store as the shell reads it.
pub(super) struct Checked<'a> {
    pub(super) store: &'a MemoryStore,
    pub(super) marks: &'a Marks,
}

impl Checked<'_> {
    fn check(&self, table: Table, key: &[u8]) {
        if !self.marks.is_empty() && self.marks.contains(&(table, key.to_vec())) {
            Damaged { table, key: Some(key.to_vec()) }.unwind();
        }
    }
}

impl Read for Checked<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Option<bytes::Bytes> {
        self.check(table, key);
        self.store.get(table, key)
    }
    fn has(&self, table: Table, key: &[u8]) -> bool {
        self.store.has(table, key)
    }
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Row> {
        let rows = self.store.scan(table, prefix, after, limit);
        rows.iter().for_each(|(key, _)| self.check(table, key));
        rows
    }
}

/// Does what reads; what a read found damaged.
pub(super) fn reading<T>(what: impl FnOnce() -> T) -> Result<T, Damaged> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|payload| match payload.downcast::<Damaged>() {
        Ok(damaged) => *damaged,
        Err(payload) => resume_unwind(payload),
    })
}

/// What the shell writes before it opens a machine again: what is kept beside the database is put back.
pub(super) fn aside(found: &[Damaged]) -> Vec<Write> {
    let kept = |write: &Write| write.value.is_none() && is_kept_beside(write.table, &write.key);
    set_aside(found).into_iter().filter(|write| !kept(write)).collect()
}

/// As a read says it.
pub(super) fn damaged((table, key): (Table, Vec<u8>)) -> Damaged {
    Damaged { table, key: Some(key) }
}

impl<M: Machine> World<M> {
    /// One row of a host's database is damaged, or goes.
    pub(super) fn damage(&mut self, index: usize, running: bool, gone: bool, pick: u64) {
        let Some(host) = self.hosts.get(index).filter(|host| host.phase == Phase::Active && host.machine.is_some())
        else {
            return;
        };
        if !host.admitted || host.saving > 0 {
            return;
        }
        let store = &host.disk.store;
        let used: Vec<Table> =
            Table::ALL.into_iter().filter(|table| !store.scan(*table, &[], None, 1).is_empty()).collect();
        let Some(table) = used.get((pick % used.len().max(1) as u64) as usize).copied() else { return };
        let keys: Vec<Vec<u8>> = store.scan(table, &[], None, usize::MAX).into_iter().map(|(key, _)| key).collect();
        let Some(key) = keys.get(((pick >> 8) % keys.len().max(1) as u64) as usize).cloned() else { return };
        self.note(|| {
            format!("h{index} has a row of {} damaged (running {running}, gone {gone}): {key:02x?}", table.name())
        });
        if running {
            if let Some(host) = self.hosts.get_mut(index) {
                host.damaged.insert((table, key));
            }
            let delay_us = self.disks.between(1, SCRUB_US);
            return self.after(delay_us, Step::Scrub(index));
        }
        self.crash(index, pick);
        let Some(host) = self.hosts.get_mut(index) else { return };
        // What was not durable may have been the very row.
        if host.disk.store.has(table, &key) {
            let one = Damaged { table, key: Some(key.clone()) };
            let found = if gone { Damaged { table, key: None } } else { one };
            if gone && !is_kept_beside(table, &key) {
                host.disk.store.apply(&[Write { table, key, value: None }]);
            }
            host.disk.store.apply(&aside(&[found]));
        }
        self.after(100_000, Step::Start(index));
    }

    /// A machine read something damaged: it dies, and is started without it.
    pub(super) fn found_damage(&mut self, index: usize, damaged: &Damaged) {
        self.note(|| format!("h{index} reads something damaged in {}", damaged.table.name()));
        let pick = self.disks.below(1 << 40);
        self.crash(index, pick);
        self.take_away(index, damaged);
        self.after(1_000, Step::Start(index));
    }

    pub(super) fn take_away(&mut self, index: usize, damaged: &Damaged) {
        let Some(host) = self.hosts.get_mut(index) else { return };
        host.disk.store.apply(&aside(std::slice::from_ref(damaged)));
        if let Some(key) = &damaged.key {
            host.damaged.remove(&(damaged.table, key.clone()));
        }
    }

    /// What nobody read is read.
    pub(super) fn scrub(&mut self, index: usize) {
        let Some(host) = self.hosts.get(index) else { return };
        let Some((table, key)) = host.damaged.first().cloned() else { return };
        if host.machine.is_some() {
            self.found_damage(index, &Damaged { table, key: Some(key) });
        }
        self.after(1_000_000, Step::Scrub(index));
    }
}
