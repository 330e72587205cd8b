//! What circuits that failed had in common: the relays on their way behind the guard
//! (docs/protocol.md §6.4(10), §6.4(11)).

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::RelayId;
use crate::limits::{GUARD_BLAME_A_TERMINAL, GUARD_BLAME_KEPT};

/// Most relays of which it is remembered how often they had a part.
const SHARES_MAX: usize = 256;

/// The other relays on the way of circuits that failed.
#[derive(Debug, Default)]
pub struct Trail {
    layer2: BTreeSet<RelayId>,
    middles: BTreeSet<RelayId>,
    /// With how many circuits to each.
    terminals: BTreeMap<RelayId, u32>,
}

impl Trail {
    /// Adds the way behind the guard: L2, middle, terminal, as far as it goes. Says whether it
    /// counts: a few circuits to each terminal do, lest one that breaks whatever comes to it were
    /// enough.
    pub fn add(&mut self, way: &[RelayId]) -> bool {
        for (kept, relay) in [&mut self.layer2, &mut self.middles].into_iter().zip(way) {
            if kept.len() < GUARD_BLAME_KEPT {
                kept.insert(*relay);
            }
        }
        let Some(terminal) = way.get(2) else {
            return true;
        };
        if self.terminals.len() >= GUARD_BLAME_KEPT && !self.terminals.contains_key(terminal) {
            return false;
        }
        let count = self.terminals.entry(*terminal).or_default();
        *count += 1;
        *count <= GUARD_BLAME_A_TERMINAL
    }

    /// Whether at least this many distinct relays were at each place.
    pub fn has(&self, layer2: usize, middles: usize, terminals: usize) -> bool {
        self.layer2.len() >= layer2
            && self.middles.len() >= middles
            && self.terminals.len() >= terminals
    }
}

/// In how many circuits that failed and count each relay had a part.
#[derive(Default)]
pub(super) struct Shares {
    all: u32,
    by: BTreeMap<RelayId, u32>,
}

impl Shares {
    /// Whether one that failed on this way behind the guard counts: its L2 and its middle each had a
    /// part in at most half of the failures that counted.
    pub(super) fn takes(&self, way: &[RelayId]) -> bool {
        let share = |relay| self.by.get(relay).copied().unwrap_or_default();
        way.iter()
            .take(2)
            .all(|relay| share(relay) <= self.all - share(relay))
    }

    /// Adds one that counts.
    pub(super) fn add(&mut self, way: &[RelayId]) {
        self.all = self.all.saturating_add(1);
        for relay in way.iter().take(2) {
            if self.by.len() < SHARES_MAX || self.by.contains_key(relay) {
                *self.by.entry(*relay).or_default() += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(number: u8) -> RelayId {
        RelayId([number; RelayId::LEN])
    }

    #[test] // §6.4(11)
    fn one_terminal_counts_a_few_times_however_many_circuits_it_breaks() {
        let mut trail = Trail::default();
        let counted = (0..20)
            .filter(|number| trail.add(&[relay(number % 4), relay(10 + number), relay(99)]))
            .count();
        assert_eq!(counted, 3);
        assert!(trail.has(4, 16, 1) && !trail.has(1, 1, 2));
    }

    /// Adds one that failed on this way, if it counts; says whether it does.
    fn count(shares: &mut Shares, way: &[RelayId]) -> bool {
        let is_taken = shares.takes(way);
        if is_taken {
            shares.add(way);
        }
        is_taken
    }

    #[test] // §6.4(11)
    fn what_is_common_to_more_than_half_does_not_count() {
        let mut shares = Shares::default();
        let counted = (0..30)
            .filter(|number| count(&mut shares, &[relay(11), relay(21 + number), relay(31)]))
            .count();
        assert_eq!(counted, 1, "all over one L2");
        let mut shares = Shares::default();
        let counted = (0..30)
            .filter(|number| count(&mut shares, &[relay(11 + number % 3), relay(21), relay(31)]))
            .count();
        assert_eq!(counted, 1, "all over one middle");
        let mut shares = Shares::default();
        let counted = (0..30)
            .filter(|number| {
                count(
                    &mut shares,
                    &[relay(11 + number % 3), relay(21 + number % 7), relay(31)],
                )
            })
            .count();
        assert!(counted >= 25, "{counted}");
    }
}
