//! Who may be behind circuits that break once they are built (docs/protocol.md §6.4).
//!
//! Any relay on the way can break one, and the origin can't see which did. What the broken ones have in common is suspected,
//! and nothing else: a guard only once circuits broke over several layer-2 relays and to several terminals, with none in
//! between that carried an answer. A suspect rests; it is not condemned.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::ids::RelayId;
use umbel_proto::time::Instant;

use super::Context;
use super::chance::Backoff;

/// Broken circuits in a row before what they have in common is suspected.
const BROKEN_MIN: u32 = 3;
/// Circuits in a row that could not be built before the guard is suspected, and how many relays behind it have to differ.
const UNBUILT_MIN: u32 = 4;
const UNBUILT_LAYER2: usize = 3;
/// Most relays remembered of each kind.
const KEPT_MAX: usize = 16;

/// The other relays on the way of circuits that failed.
#[derive(Default)]
pub(super) struct Trail {
    layer2: BTreeSet<RelayId>,
    middles: BTreeSet<RelayId>,
    /// With how many circuits to each.
    terminals: BTreeMap<RelayId, u32>,
}

impl Trail {
    /// Adds the way behind the guard: layer 2, middle, terminal, as far as it goes. Says whether it counts: a few circuits to
    /// each terminal do, lest one that breaks whatever comes to it were enough.
    pub(super) fn add(&mut self, way: &[RelayId]) -> bool {
        for (kept, relay) in [&mut self.layer2, &mut self.middles].into_iter().zip(way) {
            if kept.len() < KEPT_MAX {
                kept.insert(*relay);
            }
        }
        let Some(terminal) = way.get(2) else { return true };
        if self.terminals.len() >= KEPT_MAX && !self.terminals.contains_key(terminal) {
            return false;
        }
        let count = self.terminals.entry(*terminal).or_default();
        *count += 1;
        *count <= BROKEN_MIN
    }

    /// Whether so many distinct relays were at each place.
    pub(super) fn has(&self, layer2: usize, middles: usize, terminals: usize) -> bool {
        self.layer2.len() >= layer2 && self.middles.len() >= middles && self.terminals.len() >= terminals
    }
}

/// Circuits that broke in a row.
#[derive(Default)]
struct Streak {
    count: u32,
    trail: Trail,
}

/// What the circuits that broke since one last carried an answer have in common.
#[derive(Default)]
pub(super) struct Suspects {
    guards: BTreeMap<RelayId, Streak>,
    layer2: BTreeMap<RelayId, Streak>,
    /// Circuits that could not be built, since one was.
    unbuilt: BTreeMap<RelayId, Streak>,
    rests: BTreeMap<RelayId, Backoff>,
    /// Circuits that broke since one carried an answer, over whatever guard.
    count: u32,
    over: BTreeSet<RelayId>,
}

/// Who is suspected from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspected {
    Nobody,
    Guard,
    Layer2,
}

impl Suspects {
    /// A circuit of this path carried an answer.
    pub(super) fn on_worked(&mut self, path: &[RelayId]) {
        self.count = 0;
        self.over.clear();
        if let [guard, layer2, ..] = path {
            self.guards.remove(guard);
            self.rests.remove(guard);
            self.layer2.remove(layer2);
        }
    }

    /// A circuit was built over this guard.
    pub(super) fn on_built(&mut self, guard: RelayId) {
        self.unbuilt.remove(&guard);
    }

    /// A circuit over this guard could not be built, this far, and the guard may be behind it.
    pub(super) fn on_unbuilt(&mut self, cx: &mut Context<'_>, guard: RelayId, way: &[RelayId]) -> Suspected {
        let streak = streak(&mut self.unbuilt, guard);
        streak.count += 1;
        streak.trail.add(way);
        if streak.count < UNBUILT_MIN || !streak.trail.has(UNBUILT_LAYER2, 0, 0) {
            return Suspected::Nobody;
        }
        self.unbuilt.remove(&guard);
        self.rest(cx, guard);
        Suspected::Guard
    }

    /// A circuit of this path broke.
    pub(super) fn on_broken(&mut self, cx: &mut Context<'_>, path: &[RelayId]) -> Suspected {
        let [guard, layer2, rest @ ..] = path else { return Suspected::Nobody };
        self.count = self.count.saturating_add(1);
        if self.over.len() < KEPT_MAX {
            self.over.insert(*guard);
        }
        let behind = path.get(1..).unwrap_or_default();
        let by_guard = streak(&mut self.guards, *guard);
        by_guard.count += 1;
        by_guard.trail.add(behind);
        if by_guard.count >= BROKEN_MIN && by_guard.trail.has(2, 2, 2) {
            self.guards.remove(guard);
            self.rest(cx, *guard);
            return Suspected::Guard;
        }
        // Its own place in the trail is taken by the guard, which has to differ or to have worked with others since.
        let is_alone = self.guards.get(guard).is_some_and(|streak| !streak.trail.has(2, 1, 1));
        let by_layer2 = streak(&mut self.layer2, *layer2);
        by_layer2.count += 1;
        by_layer2.trail.add(&[&[*layer2], rest].concat());
        if is_alone && by_layer2.count >= BROKEN_MIN && by_layer2.trail.has(1, 2, 2) {
            self.layer2.remove(layer2);
            return Suspected::Layer2;
        }
        Suspected::Nobody
    }

    /// Whether this guard is left alone while another can be had.
    pub(super) fn is_suspect(&self, guard: RelayId, now: Instant) -> bool {
        self.rests.get(&guard).is_some_and(|rest| !rest.is_due(now))
    }

    /// Whether a circuit over this guard broke since one carried an answer.
    pub(super) fn broke_over(&self, guard: RelayId) -> bool {
        self.over.contains(&guard)
    }

    /// Circuits that broke since one carried an answer, and over how many guards.
    pub(super) fn tally(&self) -> (u32, u32) {
        (self.count, u32::try_from(self.over.len()).unwrap_or(u32::MAX))
    }

    /// When a suspect is trusted again.
    pub(super) fn timeouts(&self) -> impl Iterator<Item = Instant> {
        self.rests.values().map(Backoff::retry_at)
    }

    fn rest(&mut self, cx: &mut Context<'_>, guard: RelayId) {
        if self.rests.len() >= KEPT_MAX
            && !self.rests.contains_key(&guard)
            && let Some(first) = self.rests.iter().min_by_key(|(_, rest)| rest.retry_at()).map(|(&relay, _)| relay)
        {
            self.rests.remove(&first);
        }
        self.rests.entry(guard).or_default().fail(cx);
    }
}

/// The streak of this relay; there are few, and when there are many the oldest facts are worth least.
fn streak(streaks: &mut BTreeMap<RelayId, Streak>, relay: RelayId) -> &mut Streak {
    if streaks.len() >= KEPT_MAX && !streaks.contains_key(&relay) {
        streaks.clear();
    }
    streaks.entry(relay).or_default()
}

#[cfg(test)]
mod tests {
    use umbel_proto::time::WallTime;

    use super::super::testing::Moment;
    use super::*;

    fn relay(number: u8) -> RelayId {
        RelayId([number; RelayId::LEN])
    }

    #[test] // §6.4(11)
    fn one_terminal_counts_a_few_times_however_many_circuits_it_breaks() {
        let mut trail = Trail::default();
        let counted = (0..20).filter(|number| trail.add(&[relay(number % 4), relay(10 + number), relay(99)])).count();
        assert_eq!(counted, 3);
        assert!(trail.has(4, 16, 1) && !trail.has(1, 1, 2));
    }

    /// Circuits of these paths break; what came of the last.
    fn after_broken(suspects: &mut Suspects, paths: &[[u8; 4]]) -> Suspected {
        let on_broken = |suspects: &mut Suspects, path: &[u8; 4]| {
            Moment::at(WallTime(0)).act(|cx| suspects.on_broken(cx, &path.map(relay))).0
        };
        paths.iter().map(|path| on_broken(suspects, path)).last().unwrap_or(Suspected::Nobody)
    }

    #[test] // §6.4(10)
    fn a_guard_is_suspected_once_nothing_else_is_common_to_what_broke() {
        let mut suspects = Suspects::default();
        let broken = [[1, 11, 21, 31], [1, 12, 22, 32], [1, 11, 21, 31]];
        assert_eq!(after_broken(&mut suspects, &broken[..2]), Suspected::Nobody);
        assert_eq!(after_broken(&mut suspects, &broken[2..]), Suspected::Guard);
        let now = Instant::from_micros(0);
        assert!(suspects.is_suspect(relay(1), now) && !suspects.is_suspect(relay(2), now));
        suspects.on_worked(&[1, 11, 21, 31].map(relay));
        assert!(!suspects.is_suspect(relay(1), now), "an answer clears it");
        for common in [[[1, 11, 21, 31], [1, 12, 22, 31]], [[1, 11, 21, 31], [1, 12, 21, 32]]] {
            let many = common.repeat(4);
            assert_eq!(after_broken(&mut Suspects::default(), &many), Suspected::Nobody, "{common:?}");
        }
    }

    #[test] // §6.4(10)
    fn a_layer_2_relay_is_suspected_where_its_guard_broke_no_others() {
        let broken = [[1, 11, 21, 31], [1, 11, 22, 32], [1, 11, 23, 33]];
        assert_eq!(after_broken(&mut Suspects::default(), &broken), Suspected::Layer2);
        for common in [[1, 11, 21, 34], [1, 11, 24, 31]] {
            let many = [[1, 11, 21, 31], common].repeat(4);
            assert_eq!(after_broken(&mut Suspects::default(), &many), Suspected::Nobody, "{common:?}");
        }
        let mut suspects = Suspects::default();
        after_broken(&mut suspects, &broken[..2]);
        suspects.on_worked(&[1, 11, 21, 31].map(relay));
        assert_eq!(after_broken(&mut suspects, &broken[2..]), Suspected::Nobody, "an answer clears it");
    }

    #[test] // §6.4(10)
    fn a_guard_is_suspected_that_lets_no_circuit_be_built_over_three_layer_2_relays() {
        let after = |suspects: &mut Suspects, ways: &[[u8; 2]]| {
            let on_unbuilt = |suspects: &mut Suspects, way: &[u8; 2]| {
                Moment::at(WallTime(0)).act(|cx| suspects.on_unbuilt(cx, relay(1), &way.map(relay))).0
            };
            ways.iter().map(|way| on_unbuilt(suspects, way)).last()
        };
        let ways = [[11, 21], [12, 22], [13, 23], [11, 24]];
        let mut suspects = Suspects::default();
        assert_eq!(after(&mut suspects, &ways[..3]), Some(Suspected::Nobody));
        assert_eq!(after(&mut suspects, &ways[3..]), Some(Suspected::Guard));
        assert!(suspects.is_suspect(relay(1), Instant::from_micros(0)));
        let two = [[11, 21], [12, 22]].repeat(5);
        assert_eq!(after(&mut Suspects::default(), &two), Some(Suspected::Nobody));
        let mut suspects = Suspects::default();
        after(&mut suspects, &ways[..3]);
        suspects.on_built(relay(1));
        assert_eq!(after(&mut suspects, &ways[3..]), Some(Suspected::Nobody), "one was built meanwhile");
    }
}
