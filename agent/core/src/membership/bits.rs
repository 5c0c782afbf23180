//! A set of small numbers: ancestors by their local index. Local indices never leave an [`super::OpSet`].
//!
//! Kept as a full run from zero and a short tail, because most ops descend from nearly all before them: a long history
//! without branches costs a few bytes an op.

/// A growable bit set: everything below `full`, and the bits of `tail`, which begin at `full`.
#[derive(Debug, Clone, Default)]
pub(super) struct Bits {
    /// Always a multiple of 64.
    full: usize,
    tail: Vec<u64>,
}

impl Bits {
    pub(super) fn insert(&mut self, index: usize) {
        let Some(at) = index.checked_sub(self.full) else { return };
        let word = at / 64;
        if self.tail.len() <= word {
            self.tail.resize(word + 1, 0);
        }
        if let Some(word) = self.tail.get_mut(word) {
            *word |= 1 << (at % 64);
        }
        self.settle();
    }
    pub(super) fn contains(&self, index: usize) -> bool {
        let Some(at) = index.checked_sub(self.full) else { return true };
        self.tail.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
    pub(super) fn union(&mut self, other: &Bits) {
        if other.full > self.full {
            let covered = ((other.full - self.full) / 64).min(self.tail.len());
            self.tail.drain(..covered);
            self.full = other.full;
        }
        let skip = (self.full - other.full) / 64;
        let theirs = other.tail.get(skip..).unwrap_or_default();
        if self.tail.len() < theirs.len() {
            self.tail.resize(theirs.len(), 0);
        }
        for (own, theirs) in self.tail.iter_mut().zip(theirs) {
            *own |= theirs;
        }
        self.settle();
    }
    /// Whether everything in `other` is in this.
    pub(super) fn contains_all(&self, other: &Bits) -> bool {
        other.iter_from(self.full).all(|index| self.contains(index))
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.iter_from(0)
    }
    pub(super) fn is_empty(&self) -> bool {
        self.full == 0 && self.tail.iter().all(|word| *word == 0)
    }
    /// What is in this and not in `before`, ascending. `None` if `before` is no part of this, or that is more than `most`.
    pub(super) fn beyond(&self, before: &Bits, most: usize) -> Option<Vec<usize>> {
        if !self.contains_all(before) {
            return None;
        }
        let beyond: Vec<usize> =
            self.iter_from(before.full).filter(|index| !before.contains(*index)).take(most + 1).collect();
        (beyond.len() <= most).then_some(beyond)
    }
    /// Those from `start` on, ascending.
    fn iter_from(&self, start: usize) -> impl Iterator<Item = usize> + '_ {
        let skipped = start.saturating_sub(self.full) / 64;
        let tail = self.tail.iter().enumerate().skip(skipped).flat_map(move |(at, word)| {
            let (word, base) = (*word, self.full + at * 64);
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| base + bit)
        });
        (start.min(self.full)..self.full).chain(tail.filter(move |index| *index >= start))
    }
    /// One shape a set: full words at the start are a run, empty ones at the end are nothing.
    fn settle(&mut self) {
        let run = self.tail.iter().take_while(|word| **word == u64::MAX).count();
        self.tail.drain(..run);
        self.full += run * 64;
        while self.tail.last() == Some(&0) {
            self.tail.pop();
        }
    }
}

impl PartialEq for Bits {
    fn eq(&self, other: &Self) -> bool {
        self.full == other.full && self.tail == other.tail
    }
}

impl FromIterator<usize> for Bits {
    fn from_iter<T: IntoIterator<Item = usize>>(indices: T) -> Self {
        let mut bits = Self::default();
        indices.into_iter().for_each(|index| bits.insert(index));
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    proptest! {
        /// It is a set: the same members, unions and inclusions as a tree of numbers.
        #[test]
        fn it_is_a_set(
            one in prop::collection::btree_set(0usize..300, 0..300),
            other in prop::collection::btree_set(0usize..300, 0..300),
        ) {
            let (mut bits, others): (Bits, Bits) = (one.iter().copied().collect(), other.iter().copied().collect());
            prop_assert_eq!(bits.iter().collect::<BTreeSet<_>>(), one.clone());
            prop_assert_eq!(bits.contains_all(&others), one.is_superset(&other));
            prop_assert_eq!(bits == others, one == other);
            let beyond: Vec<usize> = one.difference(&other).copied().collect();
            prop_assert_eq!(bits.beyond(&others, 400), one.is_superset(&other).then_some(beyond));
            prop_assert!((0..310).all(|index| bits.contains(index) == one.contains(&index)));
            bits.union(&others);
            let union: Bits = one.union(&other).copied().collect();
            prop_assert!(bits == union && bits.is_empty() == (one.is_empty() && other.is_empty()));
            prop_assert!(bits.contains_all(&others));
        }
    }
}
