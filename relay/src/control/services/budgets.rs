//! What those who ask the directory service may cost it (docs/protocol.md §8.4(2), §8.4(7)).
//!
//! Descriptors that peers push are checked: relay ids are free, so only a relay of the view has a
//! budget of its own. Strangers share one for each address group that their links come from, and all
//! of them together have no more than one relay of the view. To compare ranges, the view is hashed:
//! each address group has a budget, and all have one together; once these are used up, each has a
//! small part of a reserve.

use std::collections::BTreeMap;

use umbel_proto::ids::RelayId;
use umbel_proto::limits::{
    COMPARE_ALL_INTERVAL, COMPARE_INTERVAL, COMPARE_PART_INTERVAL, COMPARE_RESERVE_INTERVAL,
    COMPARE_UNIT, COMPARED_ALL_AT_ONCE, COMPARED_AT_ONCE, COMPARED_PART_AT_ONCE,
    COMPARED_RESERVE_AT_ONCE, PUSH_INTERVAL, PUSH_SOURCES_MAX, PUSHED_AT_ONCE,
    STRANGER_PUSH_INTERVAL, STRANGER_PUSHED_AT_ONCE,
};
use umbel_proto::network::Group;
use umbel_proto::time::{Duration, Instant, Rate};

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
    usual: SharedBudget,
    /// Once nothing is left of the usual one: slow for each group, so that many groups that take all
    /// they can leave something to the others.
    reserve: SharedBudget,
}

impl CompareBudgets {
    pub(super) const fn new() -> Self {
        Self {
            usual: SharedBudget::new(
                (COMPARE_INTERVAL, COMPARED_AT_ONCE),
                (COMPARE_ALL_INTERVAL, COMPARED_ALL_AT_ONCE),
            ),
            reserve: SharedBudget::new(
                (COMPARE_PART_INTERVAL, COMPARED_PART_AT_ONCE),
                (COMPARE_RESERVE_INTERVAL, COMPARED_RESERVE_AT_ONCE),
            ),
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
        let mut budgets = [&mut self.usual, &mut self.reserve].into_iter();
        let Some(budget) = budgets.find_map(|it| it.left_to(group, now)) else {
            return false;
        };
        let units = relays().div_ceil(COMPARE_UNIT).max(1);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        budget
            .into_iter()
            .for_each(|rate| rate.take_times(units, now));
        true
    }
}

/// A budget that groups share: a rate for each, and one for all together.
#[derive(Debug)]
struct SharedBudget {
    groups: Rates<Group>,
    of_new: (Duration, u32),
    all: Rate,
}

impl SharedBudget {
    const fn new(of_group: (Duration, u32), of_all: (Duration, u32)) -> Self {
        let (interval, at_once) = of_all;
        Self {
            groups: Rates::new(),
            of_new: of_group,
            all: Rate::new(interval, at_once, Instant::from_micros(0)),
        }
    }

    /// The rates that this group takes from, if something is left in each.
    fn left_to(&mut self, group: Group, now: Instant) -> Option<[&mut Rate; 2]> {
        if self.all.next_at() > now {
            return None;
        }
        let (interval, at_once) = self.of_new;
        let of_group = self
            .groups
            .of(group, Rate::new(interval, at_once, now), now);
        (of_group.next_at() <= now).then_some([of_group, &mut self.all])
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

    /// What somebody of this group takes at once, in requests that each look so many relays through.
    fn taken(budgets: &mut CompareBudgets, number: u16, relays: usize, now: Instant) -> usize {
        let take = |_: &i32| budgets.try_take(group(number), || relays, now);
        (0..100_000).take_while(take).count()
    }

    #[test] // §8.4(7)
    fn comparisons_of_large_ranges_are_counted_for_each_group_and_for_all() {
        let mut budgets = CompareBudgets::new();
        let now = Instant::from_micros(1);
        let whole_view = COMPARE_UNIT * 200;
        // 4097 units, and then 2049 of the reserve.
        assert_eq!(taken(&mut budgets, 1, whole_view, now), 21 + 11);
        let mut all = (2..100).map(|number| taken(&mut budgets, number, whole_view, now));
        assert_eq!(all.by_ref().sum::<usize>(), 307 + 317, "all together");
        // Small requests count, too.
        assert_eq!(
            taken(&mut CompareBudgets::new(), 1, 1, now),
            4097 + 2049,
            "each takes a unit"
        );
        let later = now + Duration::from_secs(8);
        assert_eq!(taken(&mut budgets, 1, whole_view, later), 10);
    }

    /// Whether a reconciliation of somebody who did not ask before is heard to its end: of a view of
    /// 10,000 relays, each of its parts differs.
    fn is_heard(budgets: &mut CompareBudgets, number: u16, now: Instant) -> bool {
        let requests = [10_000, 10_000, 2000, 500];
        let mut heard = requests.map(|relays| budgets.try_take(group(number), || relays, now));
        heard.iter_mut().all(|it| *it)
    }

    #[test] // §8.4(7)
    fn groups_that_pause_before_they_ask_again_close_nothing_to_others() {
        let mut budgets = CompareBudgets::new();
        let asked = COMPARE_UNIT * 157;
        let mut asks_at = [0; 45];
        let mut honest = 200..;
        for tick in 0..360_000_u64 {
            let now = Instant::from_micros(1) + Duration::from_millis(10 * tick);
            for number in 0..32 {
                budgets.try_take(group(number), || asked, now);
            }
            // They wait until what they took is paid for.
            for (number, asks_at) in (100..).zip(&mut asks_at) {
                if *asks_at <= tick && budgets.try_take(group(number), || asked, now) {
                    *asks_at = tick + 63;
                }
            }
            // At first they take their parts of the reserve, for a second each.
            if tick >= 7700
                && tick % 3700 == 0
                && let Some(number) = honest.next()
            {
                assert!(is_heard(&mut budgets, number, now), "{number}");
            }
            // One that asks again and again, each quarter of an hour.
            if tick % 90_000 == 0 {
                assert!(is_heard(&mut budgets, 99, now), "after {tick} ticks");
            }
        }
    }

    #[test] // §8.4(7)
    fn a_thousand_groups_that_ask_without_end_leave_the_reserve_to_others() {
        let mut budgets = CompareBudgets::new();
        let mut unheard = Vec::new();
        for second in 0..3600_u16 {
            let now = Instant::from_micros(1) + Duration::from_secs(second.into());
            for number in 0..1000 {
                budgets.try_take(group(number), || 10_000, now);
            }
            if second % 60 == 59 && !is_heard(&mut budgets, 1000 + second, now) {
                unheard.push(second);
            }
        }
        assert!(
            unheard.iter().all(|&it| it < 1200),
            "a second for each group: {unheard:?}"
        );
    }

    fn group(number: u16) -> Group {
        let mut network = Network::local();
        network.params.danger_address_groups = umbel_proto::network::AddressGroups::Prefix;
        let [high, low] = number.to_be_bytes();
        network.group_of(([20 + high, low, 1, 1], 9000).into())
    }
}
