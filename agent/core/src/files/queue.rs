//! A set that keeps the order in which things came into it.
//!
//! Invariant: what is in it already keeps its place. Why: file ids are random, and a hundred files come in one envelope. Files
//! written in the order in which they came have their contents taken from one opened envelope after the other; in the order of
//! their ids each envelope would be opened a hundred times. Spec: docs/files.md#writing.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::files::record::Key;

/// Keys, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    by_number: BTreeMap<u64, Key>,
    numbers: BTreeMap<Key, u64>,
    next: u64,
}

impl Queue {
    pub(super) fn insert(&mut self, key: Key) {
        if !self.numbers.contains_key(&key) {
            self.numbers.insert(key, self.next);
            self.by_number.insert(self.next, key);
            self.next += 1;
        }
    }
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(number) = self.numbers.remove(key) {
            self.by_number.remove(&number);
        }
    }
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.numbers.contains_key(key)
    }
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
    /// The first that came after the one with this number (of all, if `None`), and its number.
    pub(super) fn after(&self, number: Option<u64>) -> Option<(u64, Key)> {
        let from = number.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_number.range((from, Bound::Unbounded)).next().map(|(number, key)| (*number, *key))
    }
    /// All of them; none is left.
    pub(super) fn take(&mut self) -> Vec<Key> {
        self.numbers.clear();
        std::mem::take(&mut self.by_number).into_values().collect()
    }
}

impl Extend<Key> for Queue {
    fn extend<T: IntoIterator<Item = Key>>(&mut self, keys: T) {
        keys.into_iter().for_each(|key| self.insert(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::FileId;

    /// Things come out in the order in which they first came; what was taken out and comes again is last.
    #[test]
    fn the_first_coming_counts() {
        let key = |n: u8| Key::main(FileId([n; 16]));
        let mut queue = Queue::default();
        queue.extend([7, 3, 9, 3, 1].map(key));
        queue.remove(&key(7));
        queue.extend([9, 7].map(key));
        let mut seen = Vec::new();
        let mut from = None;
        while let Some((number, key)) = queue.after(from) {
            // It may go while it is looked at.
            queue.remove(&key);
            from = Some(number);
            seen.push(key);
        }
        assert_eq!(seen, [3, 9, 1, 7].map(key));
        assert!(queue.is_empty() && !queue.contains(&key(3)));
        queue.extend([2, 1].map(key));
        assert_eq!(queue.take(), [2, 1].map(key));
        assert!(queue.is_empty());
    }
}
