//! A map of few entries: one sorted list, with no node around it.
//!
//! A relay keeps several for each of a hundred thousand queues, most of them empty or of an entry
//! or two, where the nodes of a tree would take ten times what is in them. Finding takes a binary
//! search. Adding and taking out move what lies behind, a hundred kilobytes at most with the 4096
//! records that a queue may hold; many are added, and taken out, together.

use core::convert::identity;

/// Room for one entry at first, then twice as much each time.
const GROWTH: usize = 1;
/// Room is given back when at most one place in this many is used.
const SHRINK_AT: usize = 4;
/// Up to this many entries are added or taken out one by one; more, in one pass.
const FEW: usize = 8;

/// Entries by ascending key.
pub(super) struct SortedMap<K, V>(Vec<(K, V)>);

impl<K: Ord, V> SortedMap<K, V> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.find(key)
            .ok()
            .and_then(|index| self.0.get(index))
            .map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let index = self.find(key).ok()?;
        self.0.get_mut(index).map(|(_, value)| value)
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// By ascending key.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Ascending.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Adds an entry; returns what had its key, which it replaces.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(index) => self
                .0
                .get_mut(index)
                .map(|entry| core::mem::replace(&mut entry.1, value)),
            Err(index) => {
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(self.0.len().max(GROWTH));
                }
                self.0.insert(index, (key, value));
                None
            }
        }
    }

    /// Takes out all entries with these keys, which ascend.
    pub(super) fn remove_all(&mut self, keys: &[K]) -> Vec<(K, V)> {
        debug_assert!(keys.is_sorted());
        let taken = match keys {
            [first, .., last] if keys.len() > FEW => {
                let within = self.find(first).unwrap_or_else(identity)
                    ..self.find(last).map_or_else(identity, |index| index + 1);
                self.0
                    .extract_if(within, |(key, _)| keys.binary_search(key).is_ok())
                    .collect()
            }
            _ => keys
                .iter()
                .filter_map(|key| self.find(key).ok().map(|index| self.0.remove(index)))
                .collect(),
        };
        self.shrink();
        taken
    }

    /// Takes out all entries that are wanted.
    pub(super) fn extract(&mut self, mut is_wanted: impl FnMut(&K, &V) -> bool) -> Vec<(K, V)> {
        let taken = self
            .0
            .extract_if(.., |(key, value)| is_wanted(key, value))
            .collect();
        self.shrink();
        taken
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        // Places are given in ascending order: most that are added come last.
        match self.0.last() {
            Some((last, _)) if last < key => Err(self.0.len()),
            _ => self.0.binary_search_by(|(other, _)| other.cmp(key)),
        }
    }

    /// A queue that was full once need not take as much for ever.
    fn shrink(&mut self) {
        if self.0.len() * SHRINK_AT <= self.0.capacity() {
            self.0.shrink_to(self.0.len() * 2);
        }
    }
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Of entries with the same key the last counts.
impl<K: Ord, V> Extend<(K, V)> for SortedMap<K, V> {
    fn extend<T: IntoIterator<Item = (K, V)>>(&mut self, entries: T) {
        let entries = entries.into_iter();
        if entries.size_hint().1.is_some_and(|most| most <= FEW) {
            entries.for_each(|(key, value)| drop(self.insert(key, value)));
            return;
        }
        if self.0.is_empty() {
            self.0.reserve_exact(entries.size_hint().0);
        }
        self.0.extend(entries);
        // Newest first among equals, of which the first stays.
        self.0.reverse();
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.0.dedup_by(|(a, _), (b, _)| a == b);
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_entries_take_no_more_room_than_they_need() {
        let mut map = SortedMap::new();
        assert_eq!(map.0.capacity(), 0);
        map.insert(5, 'a');
        assert_eq!(map.0.capacity(), 1);
        map.extend((0..64).map(|key| (key, 'b')));
        assert!(map.0.capacity() < 128);
        let taken = map.remove_all(&(1..64).collect::<Vec<_>>());
        assert_eq!((taken.len(), map.len()), (63, 1));
        assert!(map.0.capacity() <= 2);
        assert_eq!(map.extract(|_, _| true).len(), 1);
        assert_eq!(map.0.capacity(), 0);
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0..7_u8, 0..48_u8, any::<u8>()), 0..200)) {
            let (mut map, mut model) = (SortedMap::new(), BTreeMap::new());
            for (step, key, value) in steps {
                match step {
                    0 => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    1 => {
                        let taken = map.extract(|other, _| *other % 8 == key % 8);
                        let expected: Vec<_> = model.extract_if(.., |other, _| *other % 8 == key % 8).collect();
                        prop_assert_eq!(taken, expected);
                    }
                    2 => {
                        let entries = [(key, value), (key / 2, value), (key, value.wrapping_add(1))];
                        map.extend(entries);
                        model.extend(entries);
                    }
                    3 => {
                        let entries = (key..key + 16).rev().map(|key| (key, value.wrapping_sub(key)));
                        map.extend(entries.clone());
                        model.extend(entries);
                    }
                    4 => {
                        let keys: Vec<u8> = (key..key + 24).step_by(2).collect();
                        let expected: Vec<_> = keys.iter().filter_map(|key| model.remove_entry(key)).collect();
                        prop_assert_eq!(map.remove_all(&keys), expected);
                    }
                    5 => {
                        let keys = [key / 2, key];
                        let taken = map.remove_all(&keys);
                        let mut expected: Vec<_> = keys.iter().filter_map(|key| model.remove_entry(key)).collect();
                        expected.dedup();
                        prop_assert_eq!(taken, expected);
                    }
                    _ => {
                        if let Some(entry) = map.get_mut(&key) {
                            *entry = value;
                        }
                        model.entry(key).and_modify(|entry| *entry = value);
                    }
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.contains_key(&key), model.contains_key(&key));
                prop_assert!(map.iter().eq(model.iter()) && map.keys().eq(model.keys()) && map.values().eq(model.values()));
                prop_assert_eq!(map.len(), model.len());
            }
        }
    }
}
