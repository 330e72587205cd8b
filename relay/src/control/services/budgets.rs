//! What those who ask the directory service may cost it (docs/protocol.md §8.4(2), §8.4(7)).
//!
//! Descriptors that peers push are checked: relay ids are free, so only a relay of the view has a
//! budget of its own. Strangers share one for each address group that their links come from, and all
//! of them together have no more than one relay of the view. To compare ranges, the view is hashed:
//! each address group has a budget, and all have one together.

use std::collections::BTreeMap;

use umbel_proto::ids::RelayId;
use umbel_proto::limits::{
    COMPARE_ALL_INTERVAL, COMPARE_INTERVAL, COMPARE_RESERVE_INTERVAL, COMPARE_UNIT,
    COMPARED_ALL_AT_ONCE, COMPARED_AT_ONCE, COMPARED_RESERVE_AT_ONCE, PUSH_INTERVAL,
    PUSH_SOURCES_MAX, PUSHED_AT_ONCE, STRANGER_PUSH_INTERVAL, STRANGER_PUSHED_AT_ONCE,
};
use umbel_proto::network::Group;
use umbel_proto::time::{Instant, Rate};

/// Whose budget a push takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// A relay of the view.
    Relay(RelayId),
    /// Relays outside it, whose links come from this group.
    Strangers(Group),
}

impl Source {
    const fn rate(self, now: Instant) -> Rate {
        match self {
            Self::Relay(_) => Rate::new(PUSH_INTERVAL, PUSHED_AT_ONCE, now),
            Self::Strangers(_) => Rate::new(STRANGER_PUSH_INTERVAL, STRANGER_PUSHED_AT_ONCE, now),
        }
    }
}

/// The budgets of pushes, which outlive links.
#[derive(Debug)]
pub(super) struct PushBudgets {
    sources: Rates<Source>,
    strangers: Rate,
}

impl PushBudgets {
    pub(super) const fn new() -> Self {
        Self {
            sources: Rates::new(),
            strangers: Rate::new(PUSH_INTERVAL, PUSHED_AT_ONCE, Instant::from_micros(0)),
        }
    }

    /// Whether one more descriptor of this source may be checked now.
    pub(super) fn may_check(&mut self, source: Source, now: Instant) -> bool {
        let is_left = match source {
            Source::Relay(_) => true,
            Source::Strangers(_) => self.strangers.next_at() <= now,
        };
        is_left && self.rate_of(source, now).next_at() <= now
    }

    /// One was checked.
    pub(super) fn take(&mut self, source: Source, now: Instant) {
        if let Source::Strangers(_) = source {
            self.strangers.take(now);
        }
        self.rate_of(source, now).take(now);
    }

    fn rate_of(&mut self, source: Source, now: Instant) -> &mut Rate {
        self.sources.of(source, source.rate(now), now)
    }
}

/// The budgets of comparisons, which outlive links.
#[derive(Debug)]
pub(super) struct CompareBudgets {
    groups: Rates<Group>,
    all: Rate,
    /// For groups that have not asked for long, once nothing is left for all.
    reserve: Rate,
}

impl CompareBudgets {
    pub(super) const fn new() -> Self {
        let start = Instant::from_micros(0);
        Self {
            groups: Rates::new(),
            all: Rate::new(COMPARE_ALL_INTERVAL, COMPARED_ALL_AT_ONCE, start),
            reserve: Rate::new(COMPARE_RESERVE_INTERVAL, COMPARED_RESERVE_AT_ONCE, start),
        }
    }

    /// Whether somebody of this group may have relays looked through now; then that is counted. How
    /// many they are is asked only if any may be.
    pub(super) fn try_take(
        &mut self,
        group: Group,
        relays: impl FnOnce() -> usize,
        now: Instant,
    ) -> bool {
        let new = Rate::new(COMPARE_INTERVAL, COMPARED_AT_ONCE, now);
        let of_group = self.groups.of(group, new, now);
        let shared = if self.all.next_at() <= now {
            &mut self.all
        } else if of_group.is_whole(now) && self.reserve.next_at() <= now {
            &mut self.reserve
        } else {
            return false;
        };
        if of_group.next_at() > now {
            return false;
        }
        let units = relays().div_ceil(COMPARE_UNIT).max(1);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        of_group.take_times(units, now);
        shared.take_times(units, now);
        true
    }
}

/// A rate for each of those that are counted, at most [`PUSH_SOURCES_MAX`].
#[derive(Debug)]
struct Rates<K>(BTreeMap<K, Rate>);

impl<K: Ord> Rates<K> {
    const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The rate of this one, which begins as `new`. Where too many are counted, one begins anew.
    fn of(&mut self, key: K, new: Rate, now: Instant) -> &mut Rate {
        if !self.0.contains_key(&key) && self.0.len() >= PUSH_SOURCES_MAX {
            self.0.retain(|_, rate| !rate.is_whole(now));
            if self.0.len() >= PUSH_SOURCES_MAX {
                self.0.pop_first();
            }
        }
        self.0.entry(key).or_insert(new)
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::network::Network;
    use umbel_proto::time::Duration;

    use super::*;

    #[test] // §8.4(7)
    fn comparisons_of_large_ranges_are_counted_for_each_group_and_for_all() {
        let mut budgets = CompareBudgets::new();
        let now = Instant::from_micros(1);
        let whole_view = COMPARE_UNIT * 200;
        let count = |budgets: &mut CompareBudgets, number, relays: usize, now| {
            let times =
                (0..100_000).take_while(|_| budgets.try_take(group(number), || relays, now));
            times.count()
        };
        assert_eq!(count(&mut budgets, 1, whole_view, now), 21);
        let all: usize = (2..40)
            .map(|number| count(&mut budgets, number, whole_view, now))
            .sum();
        // Those that come when nothing is left for all are heard once each, while the reserve lasts.
        assert_eq!(all, 307 + 23, "all together");
        // Small requests count, too.
        assert_eq!(count(&mut CompareBudgets::new(), 1, 1, now), 4097);
        let later = now + Duration::from_secs(8);
        assert_eq!(count(&mut budgets, 1, whole_view, later), 10);
    }

    #[test] // §8.4(7)
    fn groups_that_ask_without_end_close_nothing_to_others() {
        let mut budgets = CompareBudgets::new();
        let mut now = Instant::from_micros(1);
        let asked = COMPARE_UNIT * 100;
        for _ in 0..3600 {
            now = now + Duration::from_secs(1);
            for number in 0..64 {
                while budgets.try_take(group(number), || asked, now) {}
            }
        }
        // A whole reconciliation of somebody else: it waits a second between two requests.
        let mut heard = 0;
        for _ in 0..5 {
            now = now + Duration::from_secs(1);
            heard += usize::from(budgets.try_take(group(99), || COMPARE_UNIT * 2, now));
        }
        assert_eq!(heard, 5);
    }

    fn group(number: u16) -> Group {
        let mut network = Network::local();
        network.params.danger_address_groups = umbel_proto::network::AddressGroups::Prefix;
        let [high, low] = number.to_be_bytes();
        network.group_of(([20 + high, low, 1, 1], 9000).into())
    }
}
