//! Guards: the few relays that see this client's address (docs/protocol.md §6.4(2), §6.4(8)).
//!
//! Sampled: drawn once and kept for months. Tried: the client once asked for a link to it.
//! Confirmed: a circuit was built through it. The guard in use is the first in order with a link.
//! An attacker who makes guards fail gets this client to try a few new ones a day, never all. A
//! failure counts only while others answer, and counts outlive a restart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use super::tally::{Tally, may_set_aside};
use super::trail::{Shares, Trail};
use super::{Known, Warning};
use crate::directory::choice::Exclude;
use crate::ids::RelayId;
use crate::limits::{
    CLOCK_JUMP_MIN, GUARD_BLAME_L2, GUARD_BLAME_MIDDLES, GUARD_BLAME_TERMINALS, GUARD_MISSES_MAX,
    GUARDS_ONE_IN,
};
use crate::network::Params;
use crate::time::{Duration, WallTime};

const DAY: Duration = Duration::from_secs(86_400);

/// One guard of the sample, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Guard {
    pub(super) relay: RelayId,
    sampled_at: WallTime,
    confirmed_at: Option<WallTime>,
    unlisted_since: Option<WallTime>,
    tried_at: Option<WallTime>,
    /// Times in a row that it could not be reached while others could.
    missed: u32,
    missed_since: Option<WallTime>,
    rests_until: Option<WallTime>,
    tally: Tally,
    set_aside_at: Option<WallTime>,
}

impl Guard {
    fn sampled(relay: RelayId, sampled_at: WallTime) -> Self {
        Self {
            relay,
            sampled_at,
            confirmed_at: None,
            unlisted_since: None,
            tried_at: None,
            missed: 0,
            missed_since: None,
            rests_until: None,
            tally: Tally::default(),
            set_aside_at: None,
        }
    }

    const fn is_usable(&self) -> bool {
        self.unlisted_since.is_none() && self.set_aside_at.is_none()
    }

    /// Whether it was out of reach for so long that the next one takes its place. It is tried again
    /// once a day.
    fn is_gone(&self, known: Known<'_>) -> bool {
        self.was_long_missed(known) && self.rests_until.is_some_and(|until| until > known.wall)
    }

    fn was_long_missed(&self, known: Known<'_>) -> bool {
        self.missed >= GUARD_MISSES_MAX
            && self
                .missed_since
                .is_some_and(|since| since + DAY <= known.confirmed)
    }
}

/// What a guard is reproached with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reproach {
    Fails,
    Hides,
}

/// How far a circuit had come when it failed, and so who may be behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The guard was to make the L2: it alone can say that it could not.
    Refused,
    /// The L2 was to make the middle.
    Unbuilt,
    /// It was built.
    Built,
}

impl Stage {
    /// How many L2, middles and terminals must be on the ways that failed.
    const fn least(self) -> (usize, usize, usize) {
        match self {
            Self::Refused => (GUARD_BLAME_L2, 0, 0),
            Self::Unbuilt => (GUARD_BLAME_L2, GUARD_BLAME_MIDDLES, 0),
            Self::Built => (GUARD_BLAME_L2, GUARD_BLAME_MIDDLES, GUARD_BLAME_TERMINALS),
        }
    }
}

/// The sample, in the order it was drawn.
#[expect(
    missing_debug_implementations,
    reason = "says which relays know its owner"
)]
#[derive(Default)]
pub struct Guards {
    sample: Vec<Guard>,
    /// When guards beyond the primaries were first tried, for a day.
    new_at: Vec<WallTime>,
    /// The ways of the circuits that failed through each since the client started.
    trails: BTreeMap<(RelayId, Stage), Trail>,
    /// How many of them each relay behind it had a part in.
    shares: BTreeMap<RelayId, Shares>,
    /// Guards that the user was warned of.
    told: BTreeSet<(RelayId, Reproach)>,
    warnings: VecDeque<Warning>,
    is_changed: bool,
    /// A count changed, which is stored with the next change, or at the end.
    is_counted: bool,
}

impl Guards {
    pub(super) fn restore(sample: Vec<Guard>, new_at: Vec<WallTime>) -> Self {
        Self {
            sample,
            new_at,
            ..Self::default()
        }
    }

    pub(super) fn sample(&self) -> &[Guard] {
        &self.sample
    }

    /// How many are sampled.
    pub const fn count(&self) -> usize {
        self.sample.len()
    }

    /// When guards beyond the primaries were first tried.
    pub(super) fn new_at(&self) -> &[WallTime] {
        &self.new_at
    }

    /// The relays of the sample, as they were drawn.
    pub fn relays(&self) -> impl Iterator<Item = RelayId> {
        self.sample.iter().map(|guard| guard.relay)
    }

    pub(super) fn poll_warning(&mut self) -> Option<Warning> {
        self.warnings.pop_front()
    }

    /// Whether the sample has to be stored again.
    pub(super) fn take_changed(&mut self, are_counts_due: bool) -> bool {
        let is_due = self.is_changed || (are_counts_due && self.is_counted);
        if is_due {
            (self.is_changed, self.is_counted) = (false, false);
        }
        is_due
    }

    /// All usable guards, best first: confirmed ones by when that was, then the others as drawn;
    /// last those that were long out of reach (§6.4(6), §6.4(7)).
    pub fn in_order(&self, known: Known<'_>) -> Vec<RelayId> {
        let mut listed: Vec<&Guard> = self
            .sample
            .iter()
            .filter(|guard| guard.is_usable())
            .collect();
        listed.sort_by_key(|guard| {
            (
                guard.is_gone(known),
                guard.confirmed_at.unwrap_or(WallTime(u64::MAX)),
            )
        });
        listed.into_iter().map(|guard| guard.relay).collect()
    }

    /// The first few of [`Guards::in_order`].
    pub fn primary(&self, known: Known<'_>) -> Vec<RelayId> {
        let mut order = self.in_order(known);
        order.truncate(known.network.params.guards_primary);
        order
    }

    /// Guards that rest from a life before, with how often they were missed and for how long they
    /// rest.
    pub fn resting(&self, wall: WallTime) -> impl Iterator<Item = (RelayId, u32, Duration)> {
        let resting = self.sample.iter().filter(|guard| guard.missed > 0);
        resting.filter_map(move |guard| {
            let rest = guard.rests_until?.since(wall);
            (!rest.is_zero()).then_some((guard.relay, guard.missed, rest))
        })
    }

    /// Drops guards whose time is over, notes which are in the view, and draws new ones up to the
    /// sample's size.
    pub(super) fn refresh(
        &mut self,
        known: Known<'_>,
        holders: &[RelayId],
        rng: &mut dyn CryptoRng,
    ) {
        let params = &known.network.params;
        let (wall, confirmed) = (known.wall, known.confirmed);
        if known.is_clock_sure {
            self.redate(wall);
        }
        let before = self.sample.len();
        self.sample
            .retain(|guard| match (guard.confirmed_at, guard.unlisted_since) {
                (_, Some(since)) if confirmed.since(since) > params.guard_life_unlisted => false,
                (Some(confirmed_at), _) => {
                    confirmed.since(confirmed_at) <= params.guard_life_confirmed
                }
                (None, _) => confirmed.since(guard.sampled_at) <= params.guard_life,
            });
        if self.sample.len() != before {
            self.is_changed = true;
            let sample = &self.sample;
            let is_kept = |relay: &RelayId| sample.iter().any(|it| it.relay == *relay);
            self.trails.retain(|(relay, _), _| is_kept(relay));
            self.shares.retain(|relay, _| is_kept(relay));
        }
        for guard in &mut self.sample {
            let is_listed = known.view.get(&guard.relay).is_some();
            if is_listed == guard.unlisted_since.is_some() {
                guard.unlisted_since = (!is_listed).then_some(wall);
                self.is_changed = true;
            }
        }
        self.forget_new(confirmed);
        let wanted = params.guards_sample_min.min(known.guards_share());
        let count = |guards: &Self| {
            guards
                .sample
                .iter()
                .filter(|guard| guard.is_usable() && !guard.is_gone(known))
                .count()
        };
        while count(self) < wanted && self.grow(known, holders, rng) {}
    }

    /// Times that a wrong clock dated ahead count as now: else a guard would be kept, or kept
    /// out of use, for as long as that was wrong.
    fn redate(&mut self, wall: WallTime) {
        let guards = self.sample.iter_mut().flat_map(|guard| {
            let kept = [
                Some(&mut guard.sampled_at),
                guard.confirmed_at.as_mut(),
                guard.unlisted_since.as_mut(),
            ];
            let failed = [
                guard.tried_at.as_mut(),
                guard.missed_since.as_mut(),
                guard.set_aside_at.as_mut(),
            ];
            kept.into_iter().chain(failed).flatten()
        });
        for time in guards
            .chain(&mut self.new_at)
            .filter(|time| **time > wall + CLOCK_JUMP_MIN)
        {
            *time = wall;
            self.is_changed = true;
        }
        let rests = self
            .sample
            .iter_mut()
            .filter_map(|guard| guard.rests_until.as_mut());
        for until in rests.filter(|until| **until > wall + DAY + CLOCK_JUMP_MIN) {
            *until = wall + DAY;
            self.is_changed = true;
        }
    }

    /// Draws one more guard, apart from `holders` if that can be; says whether it could.
    pub(super) fn grow(
        &mut self,
        known: Known<'_>,
        holders: &[RelayId],
        rng: &mut dyn CryptoRng,
    ) -> bool {
        let params = &known.network.params;
        let most = known.guards_share().max(params.guards_sample_min);
        if self.sample.len() >= most.min(params.guards_sample_max) {
            return false;
        }
        let mut sampled = Exclude::nothing();
        self.relays().for_each(|relay| sampled.relay(relay));
        let drawn = known.draw_apart(known.guard_candidates, &sampled, holders, rng);
        let Some(relay) = drawn else {
            return false;
        };
        self.sample.push(Guard::sampled(relay, known.wall));
        self.is_changed = true;
        true
    }

    /// Whether a link to this guard was asked for before.
    pub fn is_tried(&self, relay: RelayId) -> bool {
        self.sample
            .iter()
            .any(|guard| guard.relay == relay && guard.tried_at.is_some())
    }

    /// Whether this is a guard that no link was ever asked for to.
    pub fn is_untried(&self, relay: RelayId) -> bool {
        self.sample
            .iter()
            .any(|guard| guard.relay == relay && guard.tried_at.is_none())
    }

    /// Whether this guard may be dialled, or used over a link that is there: it was tried before,
    /// or trying another new one is within the rules.
    pub fn may_try(&self, relay: RelayId, params: &Params) -> bool {
        self.is_tried(relay) || self.has_free_place(params) || self.may_try_new(params)
    }

    /// Whether one more new guard may be tried today.
    pub fn may_try_new(&self, params: &Params) -> bool {
        self.new_at.len() < params.guards_new_a_day
    }

    /// A link to this guard is asked for, or one that is there is used.
    pub fn handle_tried(&mut self, known: Known<'_>, relay: RelayId) {
        let has_free_place = self.has_free_place(&known.network.params);
        let Some(guard) = self.sample.iter_mut().find(|guard| guard.relay == relay) else {
            return;
        };
        if guard.tried_at.is_none() {
            guard.tried_at = Some(known.wall);
            if !has_free_place {
                self.new_at.push(known.wall);
            }
            self.is_changed = true;
        }
    }

    /// It could not be reached, while another relay could: it rests for so long, or for a day if
    /// that does not end.
    pub fn handle_missed(&mut self, known: Known<'_>, relay: RelayId, rest: Duration) {
        let Some(guard) = self.sample.iter_mut().find(|guard| guard.relay == relay) else {
            return;
        };
        guard.missed = guard.missed.saturating_add(1);
        guard.missed_since.get_or_insert(known.wall);
        guard.rests_until = Some(
            known.wall
                + if guard.was_long_missed(known) {
                    DAY
                } else {
                    rest
                },
        );
        self.is_changed = true;
    }

    /// A circuit was built through this guard: it is confirmed.
    pub fn handle_built(&mut self, known: Known<'_>, relay: RelayId) {
        let Some(guard) = self.sample.iter_mut().find(|guard| guard.relay == relay) else {
            return;
        };
        if guard.confirmed_at.is_none() {
            guard.confirmed_at = Some(known.wall);
            self.is_changed = true;
        }
        if guard.missed > 0 {
            (guard.missed, guard.missed_since, guard.rests_until) = (0, None, None);
            self.is_changed = true;
        }
        guard.tally.add_done();
        self.is_counted = true;
    }

    /// A circuit through this guard failed on this path: while it was built, or before it carried
    /// an answer. If too many fail over paths that have nothing else in common, the guard is set
    /// aside for the rest of its life. Failures with one common L2 or middle that had a part in
    /// more than half of them don't count: that relay may be at fault. Says whether this one counts.
    pub fn handle_failed(
        &mut self,
        known: Known<'_>,
        relay: RelayId,
        way: &[RelayId],
        stage: Stage,
    ) -> bool {
        let Some(guard) = self.sample.iter_mut().find(|guard| guard.relay == relay) else {
            return false;
        };
        let trail = self.trails.entry((relay, stage)).or_default();
        let shares = self.shares.entry(relay).or_default();
        if !shares.takes(way) || !trail.add(way) {
            return false;
        }
        shares.add(way);
        guard.tally.add_failed();
        self.is_counted = true;
        let (layer2, middles, terminals) = stage.least();
        if guard.tally.is_bad(&known.network.params) && trail.has(layer2, middles, terminals) {
            if self.is_another_tried(relay) {
                self.set_aside(known, relay);
            }
            if self.told.insert((relay, Reproach::Fails)) {
                self.warnings.push_back(Warning::GuardFails);
            }
        }
        true
    }

    /// How many are set aside.
    pub fn set_aside_count(&self) -> usize {
        let set_aside = |guard: &&Guard| guard.set_aside_at.is_some();
        self.sample.iter().filter(set_aside).count()
    }

    /// Several sources had news of many relays that this guard said nothing of: it is set aside for
    /// the rest of its life (§8.3(9b)).
    pub fn handle_hiding(&mut self, known: Known<'_>, relay: RelayId) {
        let is_replaced = self.set_aside(known, relay);
        if self.told.insert((relay, Reproach::Hides)) {
            self.warnings.push_back(Warning::GuardHides { is_replaced });
        }
    }

    /// Sets a guard aside, if few were lately; says whether it did.
    fn set_aside(&mut self, known: Known<'_>, relay: RelayId) -> bool {
        if !may_set_aside(
            self.sample.iter().map(|it| it.set_aside_at),
            known.confirmed,
        ) {
            return false;
        }
        let Some(guard) = self.sample.iter_mut().find(|guard| guard.relay == relay) else {
            return false;
        };
        guard.set_aside_at = Some(known.wall);
        self.is_changed = true;
        true
    }

    /// Whether a circuit was built through another guard that is left (§6.4(11)).
    fn is_another_tried(&self, relay: RelayId) -> bool {
        let is_left = |guard: &Guard| {
            guard.relay != relay && guard.is_usable() && guard.confirmed_at.is_some()
        };
        self.sample.iter().any(is_left)
    }

    /// Whether fewer were tried than there are primaries.
    fn has_free_place(&self, params: &Params) -> bool {
        self.sample
            .iter()
            .filter(|guard| guard.tried_at.is_some())
            .count()
            < params.guards_primary
    }

    /// Forgets first tries of more than a day ago: of confirmed time, since a clock that jumps must
    /// not make a day pass.
    fn forget_new(&mut self, confirmed: WallTime) {
        let before = self.new_at.len();
        self.new_at.retain(|at| confirmed.since(*at) < DAY);
        self.is_changed |= self.new_at.len() != before;
    }
}

impl Known<'_> {
    /// A fifth of the relays that may become guards, and at least as many as there are primaries.
    /// Relays that are in view without receipts don't count: an attacker could invent them
    /// (§6.4(2)).
    pub fn guards_share(self) -> usize {
        (self.guard_candidates.len() / GUARDS_ONE_IN).max(self.network.params.guards_primary)
    }
}

#[cfg(test)]
#[path = "guards_tests.rs"]
mod tests;
