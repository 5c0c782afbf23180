//! An ordered map whose copies share what they have in common.
//!
//! Kept as runs of entries, each behind a count of its holders: a copy costs one count a run, and a change to it copies one
//! run. Why: there is a state at every op, each the one before and a little, and a workspace has had tens of thousands of
//! epochs after some years. Invariant: runs are never empty, and ascend.

use std::sync::Arc;

/// Most entries of a run; a longer one is halved.
const RUN_MAX: usize = 128;

/// A map in the order of its keys; cheap to copy.
#[derive(Clone)]
pub struct Shared<K, V> {
    runs: Vec<Arc<Vec<(K, V)>>>,
    len: usize,
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self { runs: Vec::new(), len: 0 }
    }
}

impl<K, V> Shared<K, V> {
    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Every entry, by ascending key.
    pub fn iter(&self) -> Entries<'_, K, V> {
        Entries { runs: self.runs.iter(), run: [].iter() }
    }
    /// Every key, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }
    /// The keys of what fits, ascending.
    pub(super) fn keys_where(&self, fits: impl Fn(&V) -> bool) -> Vec<K>
    where
        K: Clone,
    {
        self.iter().filter(|(_, value)| fits(value)).map(|(key, _)| key.clone()).collect()
    }
    /// Every value, by ascending key.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Clone, V: Clone> Shared<K, V> {
    /// The run a key belongs to, if there is any run.
    fn run_of(&self, key: &K) -> Option<usize> {
        let after = self.runs.partition_point(|run| run.first().is_some_and(|(first, _)| first <= key));
        (!self.runs.is_empty()).then(|| after.saturating_sub(1))
    }
    fn place(&self, key: &K) -> Option<(usize, Result<usize, usize>)> {
        let run = self.run_of(key)?;
        Some((run, self.runs.get(run)?.binary_search_by(|(other, _)| other.cmp(key))))
    }
    /// What stands under a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let (run, at) = self.place(key)?;
        self.runs.get(run)?.get(at.ok()?).map(|(_, value)| value)
    }
    /// Whether anything stands under a key.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }
    /// What stands under a key, to be changed in this copy alone.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (run, at) = self.place(key)?;
        Arc::make_mut(self.runs.get_mut(run)?).get_mut(at.ok()?).map(|(_, value)| value)
    }
    /// Puts something under a key, instead of what stood there.
    pub fn insert(&mut self, key: K, value: V) {
        let Some((number, at)) = self.place(&key) else {
            self.runs.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return;
        };
        let Some(run) = self.runs.get_mut(number).map(Arc::make_mut) else { return };
        match at {
            Ok(at) => {
                if let Some(entry) = run.get_mut(at) {
                    entry.1 = value;
                }
            }
            Err(at) => {
                run.insert(at, (key, value));
                self.len += 1;
                if run.len() > RUN_MAX {
                    let upper = run.split_off(RUN_MAX / 2);
                    self.runs.insert(number + 1, Arc::new(upper));
                }
            }
        }
    }
    /// Takes out what stands under a key.
    pub fn remove(&mut self, key: &K) {
        let Some((number, Ok(at))) = self.place(key) else { return };
        let Some(run) = self.runs.get_mut(number).map(Arc::make_mut) else { return };
        run.remove(at);
        self.len -= 1;
        if run.is_empty() {
            self.runs.remove(number);
        }
    }
}

/// Entries by ascending key.
#[derive(Debug, Clone)]
pub struct Entries<'a, K, V> {
    runs: core::slice::Iter<'a, Arc<Vec<(K, V)>>>,
    run: core::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Entries<'a, K, V> {
    type Item = (&'a K, &'a V);
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.run.next() {
                return Some((key, value));
            }
            self.run = self.runs.next()?.iter();
        }
    }
}

impl<'a, K, V> IntoIterator for &'a Shared<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Entries<'a, K, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Shared<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut map = Self::default();
        entries.into_iter().for_each(|(key, value)| map.insert(key, value));
        map
    }
}

impl<K: Ord + Clone, V: Clone> core::ops::Index<&K> for Shared<K, V> {
    type Output = V;
    /// As a map's: for tests and for keys known to be in.
    #[allow(clippy::expect_used, reason = "an index says that the key is there")]
    fn index(&self, key: &K) -> &V {
        self.get(key).expect("no entry under this key")
    }
}

/// The same entries, however they are kept.
impl<K: PartialEq, V: PartialEq> PartialEq for Shared<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}
impl<K: Eq, V: Eq> Eq for Shared<K, V> {}

impl<K: core::fmt::Debug, V: core::fmt::Debug> core::fmt::Debug for Shared<K, V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    proptest! {
        /// It is a map, and a copy keeps what it had.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u16..600, prop::option::weighted(0.8, any::<u8>())), 0..900)) {
            let (mut map, mut tree) = (Shared::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (nth, (key, value)) in steps.into_iter().enumerate() {
                match value {
                    Some(value) => {
                        map.insert(key, value);
                        tree.insert(key, value);
                    }
                    None => {
                        map.remove(&key);
                        tree.remove(&key);
                    }
                }
                if nth % 100 == 0 {
                    copies.push((map.clone(), tree.clone()));
                }
                prop_assert_eq!(map.get(&key), tree.get(&key));
            }
            copies.push((map, tree));
            for (map, tree) in copies {
                prop_assert!(map.iter().eq(tree.iter()) && map.len() == tree.len());
                prop_assert!(map.keys().all(|key| map.get(key) == tree.get(key)));
                prop_assert_eq!(&map, &tree.into_iter().collect::<Shared<_, _>>());
            }
        }
    }
}
