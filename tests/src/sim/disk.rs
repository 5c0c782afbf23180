//! A database on a disk that may lose its latest writes.
//!
//! Invariant: what a crash leaves is the durable batches and a prefix of the others, each batch whole. Batches are
//! visible to reads before they are durable. Spec: docs/simulation.md#disk.

use std::collections::VecDeque;

use bytes::Bytes;
use weft_agent_core::id::PieceId;
use weft_agent_core::setup::Watermark;
use weft_agent_core::store::{MemoryStore, Read, Table, Write};
use weft_agent_core::workspace::input::Token;

use super::dice::Dice;

/// A store, its watermark cell, and what would be lost.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// What reads see.
    pub store: MemoryStore,
    /// The cell beside the database, durable at once.
    pub watermark: Watermark,
    /// For each batch that is not durable, what it overwrote.
    pending: VecDeque<(Token, Vec<Write>)>,
}

impl Disk {
    /// Applies a batch; it is not durable yet.
    pub fn write(&mut self, token: Token, batch: &[Write]) {
        let undo = batch
            .iter()
            .map(|write| Write {
                table: write.table,
                key: write.key.clone(),
                value: self.store.get(write.table, &write.key),
            })
            .rev()
            .collect();
        self.store.apply(batch);
        self.pending.push_back((token, undo));
    }
    /// Stores a piece that the shell sealed; durable at once.
    pub fn write_piece(&mut self, id: PieceId, sealed: Bytes) {
        self.store.apply(&[Write { table: Table::Pieces, key: id.0.to_vec(), value: Some(sealed) }]);
    }
    /// The last batch that was written and is not durable.
    #[must_use]
    pub fn newest_pending(&self) -> Option<Token> {
        self.pending.back().map(|(token, _)| *token)
    }
    /// Everything up to this batch is durable now.
    pub fn flush(&mut self, token: Token) {
        while self.pending.front().is_some_and(|(front, _)| *front <= token) {
            self.pending.pop_front();
        }
    }
    /// How many batches are not durable.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }
    /// The machine dies: a random prefix of what is not durable stays. Returns how many batches were lost.
    pub fn crash(&mut self, dice: &mut Dice) -> usize {
        let keep = dice.between(0, self.pending.len() as u64) as usize;
        let lost = self.pending.len() - keep;
        while self.pending.len() > keep {
            if let Some((_, undo)) = self.pending.pop_back() {
                self.store.apply(&undo);
            }
        }
        self.pending.clear();
        lost
    }
    /// What a backup program reads: the durable state.
    #[must_use]
    pub fn backup(&self) -> Disk {
        let mut copy = self.clone();
        while let Some((_, undo)) = copy.pending.pop_back() {
            copy.store.apply(&undo);
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(key: u8, value: Option<u8>) -> Vec<Write> {
        vec![Write { table: Table::Meta, key: vec![key], value: value.map(|value| Bytes::from(vec![value])) }]
    }

    /// Whatever a crash keeps is a state that the store once had, and never one from before the last flush.
    #[test]
    fn a_crash_keeps_a_prefix() {
        for seed in 0..50 {
            let mut disk = Disk::default();
            let mut states = vec![disk.store.clone()];
            let steps = [(1, Some(1)), (2, Some(2)), (1, Some(3)), (2, None), (1, None), (3, Some(4))];
            for (number, (key, value)) in steps.into_iter().enumerate() {
                disk.write(Token(number as u64), &batch(key, value));
                states.push(disk.store.clone());
            }
            disk.flush(Token(2));
            assert_eq!(disk.pending(), 3);
            assert_eq!(disk.backup().store, states[3]);
            let lost = disk.crash(&mut Dice::new(seed, "disk", 0));
            assert_eq!(disk.store, states[6 - lost]);
            assert!(lost <= 3);
        }
    }
}
