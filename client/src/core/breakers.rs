//! Terminals that break every circuit on which they are asked (docs/protocol.md §6.4(10)).
//!
//! No hop can tell who broke a circuit. But suppose that circuits to one terminal keep breaking
//! while others over the same guard carry answers, and that the broken ones share no other relay
//! behind the guard. Then the terminal is out of reach, and the guard is not to blame: a guard that
//! lies breaks others too, since it does not see where a circuit goes.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::ids::RelayId;
use umbel_proto::time::{Duration, Instant};

/// Most terminals that are remembered; beyond it the one whose circuit broke first is forgotten.
const TERMINALS_MAX: usize = 64;
/// Most guards that are remembered of each.
const GUARDS_MAX: usize = 8;

/// Circuits to one terminal that broke since one carried an answer.
struct Streak {
    guards: BTreeSet<RelayId>,
    /// The relays between guard and terminal that all of them went through: while there are any, it
    /// may be one of those.
    common: Vec<RelayId>,
    last_at: Instant,
    /// Whether circuits to others over one of these guards carried answers since, and none broke.
    do_others_work: bool,
}

/// Terminals to which circuits break.
#[derive(Default)]
pub(super) struct Breakers {
    streaks: BTreeMap<RelayId, Streak>,
}

impl Breakers {
    /// A circuit of this path carried an answer.
    pub(super) fn on_worked(&mut self, path: &[RelayId]) {
        let [guard, _, _, terminal] = path else {
            return;
        };
        self.streaks.remove(terminal);
        for streak in self
            .streaks
            .values_mut()
            .filter(|streak| streak.guards.contains(guard))
        {
            streak.do_others_work = true;
        }
    }

    /// A circuit of this path broke. Says whether its terminal is to blame; breaks older than
    /// `life` no longer count.
    pub(super) fn on_broken(&mut self, now: Instant, life: Duration, path: &[RelayId]) -> bool {
        let [guard, between @ .., terminal] = path else {
            return false;
        };
        self.streaks.retain(|_, streak| streak.last_at + life > now);
        if let Some(streak) = self.streaks.get_mut(terminal) {
            streak.common.retain(|relay| between.contains(relay));
            if streak.do_others_work && streak.common.is_empty() && streak.guards.contains(guard) {
                streak.last_at = now;
                return true;
            }
        }
        // From now on it may be the guard as well.
        for streak in self
            .streaks
            .values_mut()
            .filter(|streak| streak.guards.contains(guard))
        {
            streak.do_others_work = false;
        }
        self.make_room(terminal);
        let fresh = || Streak {
            guards: BTreeSet::new(),
            common: between.to_vec(),
            last_at: now,
            do_others_work: false,
        };
        let streak = self.streaks.entry(*terminal).or_insert_with(fresh);
        streak.last_at = now;
        streak.do_others_work = false;
        if streak.guards.len() < GUARDS_MAX {
            streak.guards.insert(*guard);
        }
        false
    }

    /// Whether circuits to this terminal break while others carry answers.
    pub(super) fn is_alone(&self, terminal: RelayId) -> bool {
        self.streaks
            .get(&terminal)
            .is_some_and(|streak| streak.do_others_work && streak.common.is_empty())
    }

    /// The terminals to which a circuit broke within `life`, and none carried an answer since.
    pub(super) fn terminals(&self, now: Instant, life: Duration) -> impl Iterator<Item = RelayId> {
        let streaks = self.streaks.iter();
        let recent = streaks.filter(move |(_, streak)| streak.last_at + life > now);
        recent.map(|(&terminal, _)| terminal)
    }

    fn make_room(&mut self, terminal: &RelayId) {
        if self.streaks.len() >= TERMINALS_MAX
            && !self.streaks.contains_key(terminal)
            && let Some(first) = self
                .streaks
                .iter()
                .min_by_key(|(_, streak)| streak.last_at)
                .map(|(&relay, _)| relay)
        {
            self.streaks.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(7200);

    fn relay(number: u8) -> RelayId {
        RelayId([number; RelayId::LEN])
    }

    fn path(guard: u8, terminal: u8) -> [RelayId; 4] {
        [guard, 11, 21, terminal].map(relay)
    }

    /// One that shares nothing with it between guard and terminal.
    fn other_path(guard: u8, terminal: u8) -> [RelayId; 4] {
        [guard, 12, 22, terminal].map(relay)
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test] // §6.4(10)
    fn a_terminal_that_breaks_circuits_differs_from_a_guard_that_does() {
        let mut breakers = Breakers::default();
        assert!(!breakers.on_broken(at(0), LIFE, &path(1, 31)));
        breakers.on_worked(&path(1, 32));
        assert!(
            !breakers.is_alone(relay(31)),
            "it may be the L2 or the middle"
        );
        let mut breakers = Breakers::default();
        breakers.on_broken(at(0), LIFE, &path(1, 31));
        assert!(!breakers.on_broken(at(0), LIFE, &other_path(1, 31)));
        assert!(!breakers.is_alone(relay(31)), "nothing worked since");
        breakers.on_worked(&path(2, 32));
        assert!(!breakers.is_alone(relay(31)), "over another guard");
        breakers.on_worked(&path(1, 32));
        assert!(breakers.is_alone(relay(31)) && breakers.on_broken(at(1), LIFE, &path(1, 31)));
        // Others break over this guard as well: it may be the guard.
        assert!(
            !breakers.on_broken(at(2), LIFE, &path(1, 32))
                && !breakers.on_broken(at(2), LIFE, &other_path(1, 32))
        );
        assert!(!breakers.is_alone(relay(31)) && !breakers.on_broken(at(3), LIFE, &path(1, 31)));
        breakers.on_worked(&path(1, 33));
        assert!(
            breakers.is_alone(relay(31)) && breakers.is_alone(relay(32)),
            "two may be behind it, with a third that works"
        );
        assert!(
            breakers.on_broken(at(4), LIFE, &path(1, 31))
                && breakers.on_broken(at(4), LIFE, &path(1, 32))
        );
        breakers.on_worked(&path(1, 31));
        assert!(!breakers.is_alone(relay(31)), "an answer clears it");
    }

    #[test] // §6.4(10)
    fn what_is_remembered_of_terminals_is_bounded() {
        let mut breakers = Breakers::default();
        for number in 0..=u8::MAX {
            breakers.on_broken(at(number.into()), LIFE, &path(number, number));
            breakers.on_broken(at(number.into()), LIFE, &path(number, 31));
        }
        assert!(breakers.streaks.len() <= TERMINALS_MAX);
        assert!(
            breakers
                .streaks
                .values()
                .all(|streak| streak.guards.len() <= GUARDS_MAX)
        );
        breakers.on_broken(at(100_000), LIFE, &path(1, 1));
        assert_eq!(breakers.streaks.len(), 1, "the others are too old");
    }
}
