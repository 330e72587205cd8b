//! What is due, and when: timers of a machine, each named by its key.
//!
//! A key has one time at most. Keys that are due at one time come in their own order, so that a run
//! with the same inputs does the same.

use std::collections::{BTreeMap, BTreeSet};

use super::Instant;

/// Keys in the order in which they are due.
#[derive(Debug, Clone)]
pub struct Due<K> {
    at: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Due<K> {
    fn default() -> Self {
        Self {
            at: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Due<K> {
    /// Lets this key be due then, and at no other time.
    pub fn set(&mut self, key: K, at: Instant) {
        match self.at.insert(key.clone(), at) {
            Some(before) if before == at => return,
            Some(before) => {
                let old = (before, key);
                self.order.remove(&old);
                self.order.insert((at, old.1));
            }
            None => {
                self.order.insert((at, key));
            }
        }
        debug_assert_eq!(self.at.len(), self.order.len(), "one time a key");
    }

    /// Lets this key be due then, or never.
    pub fn set_or_cancel(&mut self, key: K, at: Option<Instant>) {
        match at {
            Some(at) => self.set(key, at),
            None => drop(self.cancel(&key)),
        }
    }

    /// Lets this key be due no more. Returns when it would have been.
    pub fn cancel(&mut self, key: &K) -> Option<Instant> {
        let (key, at) = self.at.remove_entry(key)?;
        self.order.remove(&(at, key));
        Some(at)
    }

    /// When this key is due, if it is.
    pub fn at(&self, key: &K) -> Option<Instant> {
        self.at.get(key).copied()
    }

    /// The key that is due first, if it is due by `now`. It is due no more.
    pub fn pop_expired(&mut self, now: Instant) -> Option<K> {
        self.next().filter(|&at| at <= now)?;
        let (_, key) = self.order.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    /// The key that is due first, and when.
    pub fn first(&self) -> Option<(Instant, &K)> {
        self.order.first().map(|(at, key)| (*at, key))
    }

    /// When something is due next, a past moment included.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|&(at, _)| at)
    }

    /// The keys, each with its time.
    pub fn iter(&self) -> impl Iterator<Item = (&K, Instant)> {
        self.at.iter().map(|(key, &at)| (key, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    #[test]
    fn keys_are_due_in_order_each_once() {
        let mut due = Due::default();
        due.set("c", at(5));
        due.set("b", at(9));
        due.set("a", at(5));
        assert_eq!(due.pop_expired(at(4)), None);
        assert_eq!(
            (due.next(), due.first()),
            (Some(at(5)), Some((at(5), &"a")))
        );
        assert_eq!(due.pop_expired(at(5)), Some("a"));
        assert_eq!(due.pop_expired(at(5)), Some("c"));
        assert_eq!(due.pop_expired(at(5)), None);
        assert_eq!(due.pop_expired(at(99)), Some("b"));
        assert_eq!((due.next(), due.iter().count()), (None, 0));
    }

    #[test]
    fn the_last_time_set_is_the_only_one() {
        let mut due = Due::default();
        for micros in [5, 3, 8, 8] {
            due.set(1, at(micros));
            assert_eq!(
                (due.at(&1), due.next()),
                (Some(at(micros)), Some(at(micros)))
            );
        }
        due.set_or_cancel(2, Some(at(1)));
        assert_eq!(due.cancel(&2), Some(at(1)));
        assert_eq!(due.cancel(&2), None);
        assert_eq!(due.pop_expired(at(7)), None, "it was due at 3 once");
        assert_eq!(due.iter().collect::<Vec<_>>(), [(&1, at(8))]);
        due.set_or_cancel(1, None);
        assert_eq!(due.pop_expired(at(9)), None);
    }
}
