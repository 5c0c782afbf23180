//! A set of small numbers: ancestors by their local index. Local indices never leave an [`super::OpSet`].
//!
//! Kept as a full run from zero and then chunks that sets share, because an op descends from nearly what its parents descend
//! from: a long history costs a chunk an op, and the place of a chunk more for each thousand ops since the oldest one that is
//! missing. Plain bits would take half a gigabyte where somebody's op is left standing alone in the largest set there may be.

use std::sync::Arc;

/// Words of a chunk.
const WORDS: usize = 16;
/// Bits of a chunk.
const CHUNK: usize = WORDS * 64;

type Chunk = [u64; WORDS];

/// A growable bit set: everything below `full`, and the bits of `tail`, which begin at `full`.
#[derive(Debug, Clone, Default)]
pub(super) struct Bits {
    /// Always a multiple of [`CHUNK`].
    full: usize,
    /// The first chunk is not full, and the last not empty.
    tail: Vec<Arc<Chunk>>,
}

impl Bits {
    pub(super) fn insert(&mut self, index: usize) {
        let Some(at) = index.checked_sub(self.full) else { return };
        let chunk = at / CHUNK;
        if self.tail.len() <= chunk {
            self.tail.resize_with(chunk + 1, || Arc::new([0; WORDS]));
        }
        let word = self.tail.get_mut(chunk).and_then(|chunk| Arc::make_mut(chunk).get_mut(at % CHUNK / 64));
        if let Some(word) = word {
            *word |= 1 << (at % 64);
        }
        self.settle();
    }
    pub(super) fn contains(&self, index: usize) -> bool {
        self.word(index / 64) & (1 << (index % 64)) != 0
    }
    /// The word that holds the bits from 64 times `number` on.
    fn word(&self, number: usize) -> u64 {
        let Some(at) = number.checked_sub(self.full / 64) else { return u64::MAX };
        self.tail.get(at / WORDS).and_then(|chunk| chunk.get(at % WORDS)).copied().unwrap_or_default()
    }
    /// Behind the last word that holds anything.
    fn words(&self) -> usize {
        self.full / 64 + self.tail.len() * WORDS
    }
    pub(super) fn union(&mut self, other: &Bits) {
        if other.full > self.full {
            let covered = ((other.full - self.full) / CHUNK).min(self.tail.len());
            self.tail.drain(..covered);
            self.full = other.full;
        }
        let skip = (self.full - other.full) / CHUNK;
        for (at, theirs) in other.tail.iter().skip(skip).enumerate() {
            match self.tail.get_mut(at) {
                None => self.tail.push(Arc::clone(theirs)),
                Some(own) if Arc::ptr_eq(own, theirs) => {}
                Some(own) => {
                    let both: Chunk = core::array::from_fn(|word| {
                        own.get(word).copied().unwrap_or_default() | theirs.get(word).copied().unwrap_or_default()
                    });
                    if both == **theirs {
                        *own = Arc::clone(theirs);
                    } else if both != **own {
                        *own = Arc::new(both);
                    }
                }
            }
        }
        self.settle();
    }
    /// Whether everything in `other` is in this.
    pub(super) fn contains_all(&self, other: &Bits) -> bool {
        (self.full / 64..other.words()).all(|number| other.word(number) & !self.word(number) == 0)
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.words()).flat_map(|number| ones(number, self.word(number)))
    }
    pub(super) fn is_empty(&self) -> bool {
        self.full == 0 && self.tail.is_empty()
    }
    /// What is in this and not in `before`, ascending. `None` if `before` is no part of this, or that is more than `most`.
    pub(super) fn beyond(&self, before: &Bits, most: usize) -> Option<Vec<usize>> {
        if !self.contains_all(before) {
            return None;
        }
        let words = before.full / 64..self.words();
        let beyond = words.flat_map(|number| ones(number, self.word(number) & !before.word(number)));
        let beyond: Vec<usize> = beyond.take(most + 1).collect();
        (beyond.len() <= most).then_some(beyond)
    }
    /// One shape a set: full chunks at the start are a run, empty ones at the end are nothing.
    fn settle(&mut self) {
        let run = self.tail.iter().take_while(|chunk| chunk.iter().all(|word| *word == u64::MAX)).count();
        self.tail.drain(..run);
        self.full += run * CHUNK;
        while self.tail.last().is_some_and(|chunk| chunk.iter().all(|word| *word == 0)) {
            self.tail.pop();
        }
    }
}

/// The numbers that a word stands for.
fn ones(number: usize, mut word: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        word &= word.wrapping_sub(1);
        (bit < 64).then_some(number * 64 + bit)
    })
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

    /// A run from zero, as ancestors have, with some more and some less.
    fn numbers() -> impl Strategy<Value = BTreeSet<usize>> {
        let some = || prop::collection::btree_set(0usize..3200, 0..40);
        (0usize..3000, some(), some()).prop_map(|(run, more, less)| {
            let all: BTreeSet<usize> = (0..run).chain(more).collect();
            if run % 3 == 0 { all } else { all.difference(&less).copied().collect() }
        })
    }

    proptest! {
        /// It is a set: the same members, unions and inclusions as a tree of numbers.
        #[test]
        fn it_is_a_set(
            one in numbers(),
            other in numbers(),
        ) {
            let (mut bits, others): (Bits, Bits) = (one.iter().copied().collect(), other.iter().copied().collect());
            prop_assert_eq!(bits.iter().collect::<BTreeSet<_>>(), one.clone());
            prop_assert_eq!(bits.contains_all(&others), one.is_superset(&other));
            prop_assert_eq!(bits == others, one == other);
            let beyond: Vec<usize> = one.difference(&other).copied().collect();
            prop_assert_eq!(bits.beyond(&others, 4000), one.is_superset(&other).then_some(beyond));
            prop_assert!((0..3300).all(|index| bits.contains(index) == one.contains(&index)));
            bits.union(&others);
            let union: Bits = one.union(&other).copied().collect();
            prop_assert!(bits == union && bits.is_empty() == (one.is_empty() && other.is_empty()));
            prop_assert!(bits.contains_all(&others));
        }
    }
}
