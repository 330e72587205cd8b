//! L3: pinned relays in the middle's place, where the owner wants them: full vanguards (docs/protocol.md
//! §6.4(18)).
//!
//! Whoever is next to the terminal can make a client build circuits until one goes through a middle
//! of theirs, which sees the L2. With eight middles for hours that takes days. No guard, and no
//! single L2, can have one replaced before its time: that takes the word of two L2.

use rand::CryptoRng;

use super::Known;
use super::avoided::Role;
use super::pinned::{Pinned, Pins, Shunned, Terms, pick};
use crate::ids::RelayId;
use crate::limits::{L2_FAILURES_MAX, L3_COUNT, L3_LIFE_MAX, L3_LIFE_MIN};

const TERMS: Terms = Terms {
    count: L3_COUNT,
    life_min: L3_LIFE_MIN,
    life_max: L3_LIFE_MAX,
};

/// All relays that are pinned in the middle's place.
#[expect(
    missing_debug_implementations,
    reason = "says which relays know its owner's L2"
)]
#[derive(Default)]
pub struct Layer3 {
    /// While it is off, those of before stay until their time is over: whoever turns it off and on
    /// gets no others.
    pins: Pins,
    is_on: bool,
}

impl Layer3 {
    pub(super) const fn restore(pinned: Vec<Pinned>) -> Self {
        Self {
            pins: Pins::restore(pinned),
            is_on: false,
        }
    }

    pub(super) fn turn(&mut self, is_on: bool) {
        self.is_on = is_on;
    }

    /// Whether middles are drawn from these alone.
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// All pinned relays.
    pub fn relays(&self) -> impl Iterator<Item = RelayId> {
        self.pins.relays()
    }

    pub(super) fn pinned(&self) -> &[Pinned] {
        &self.pins.pinned
    }

    /// Whether they have to be stored again.
    pub(super) fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.pins.is_changed)
    }

    /// Drops those whose time is over, or that failed too often by the word of two L2; while it is on,
    /// pins others, apart from those `before` them if that can be.
    pub(super) fn refresh(
        &mut self,
        known: Known<'_>,
        before: &[RelayId],
        shunned: Shunned<'_>,
        rng: &mut dyn CryptoRng,
    ) {
        let avoided = shunned.avoided;
        let has_failed = |relay| avoided.has_failed_by_two(relay, Role::Layer2, L2_FAILURES_MAX);
        self.pins.drop_old(known, TERMS, has_failed);
        self.pins.note_listed(known, TERMS);
        while self.is_on
            && self.pins.wants_another(known, TERMS)
            && self
                .pins
                .pin(known, TERMS, &[before], shunned, rng)
                .is_some()
        {}
    }

    /// One apart from this path's guard and L2, other than the terminal, and not avoided. If there is
    /// none, pins one more, apart from all `before` them if that can be; failing that, falls back to
    /// an avoided one.
    pub(super) fn choose(
        &mut self,
        known: Known<'_>,
        path: [RelayId; 2],
        before: &[RelayId],
        terminal: Option<RelayId>,
        shunned: Shunned<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Option<RelayId> {
        let fits = |relay: &RelayId| {
            let mut path = path.iter();
            Some(*relay) != terminal && path.all(|&hop| known.are_apart(*relay, hop))
        };
        let fitting: Vec<RelayId> = self.relays().filter(fits).collect();
        let is_usable = |relay: &&RelayId| !shunned.avoided.is_avoided(**relay, known.now);
        let usable: Vec<RelayId> = fitting.iter().filter(is_usable).copied().collect();
        if let Some(relay) = pick(&usable, rng) {
            return Some(relay);
        }
        if self.pins.has_room(known, TERMS)
            && let apart_from = [before, path.as_slice()]
            && let Some(added) = self.pins.pin(known, TERMS, &apart_from, shunned, rng)
            && fits(&added)
        {
            return Some(added);
        }
        pick(&fitting, rng)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::super::Paths;
    use super::super::testing::{DAY, NOW, When, id};
    use super::*;
    use crate::time::Duration;

    /// Many relays.
    fn many() -> Vec<u8> {
        (0..100).collect()
    }

    /// A client's paths, with full vanguards or without.
    fn paths(is_full: bool) -> Paths {
        let mut paths = Paths::default();
        paths.turn_full_vanguards(is_full);
        paths
    }

    /// The middles of this many circuits.
    fn middles(
        paths: &mut Paths,
        known: Known<'_>,
        count: usize,
        rng: &mut ChaCha20Rng,
    ) -> BTreeSet<RelayId> {
        paths.refresh(known, rng);
        let guard = paths.guards.primary(known)[0];
        let circuit = |_| {
            let path = paths.choose(known, guard, false, Some(id(0)), rng);
            let path = path.expect("a path").map(|hop| hop.relay);
            assert!(path[2] != id(0) && path.iter().collect::<BTreeSet<_>>().len() == 3);
            path[2]
        };
        (0..count).map(circuit).collect()
    }

    #[test] // §6.4(18)
    fn with_full_vanguards_middles_come_from_eight_else_from_all() {
        When::at(NOW).act_knowing(&many(), |known, rng| {
            assert!(middles(&mut paths(false), known, 400, rng).len() > 60);
            let mut full = paths(true);
            let of_full = middles(&mut full, known, 400, rng);
            assert_eq!(of_full.len(), 8);
            assert!(full.layer3.relays().all(|relay| of_full.contains(&relay)));
            let primary = full.guards.primary(known).into_iter();
            let mut before = primary.chain(full.layer2.relays());
            assert!(
                !before.any(|relay| of_full.contains(&relay)),
                "apart from these"
            );
        });
    }

    #[test] // §6.4(18)
    fn l3_outlive_restarts_and_a_choice_that_is_taken_back() {
        When::at(NOW).act_knowing(&many(), |known, rng| {
            let mut paths = paths(true);
            let before = middles(&mut paths, known, 200, rng);
            let state = paths.take_state(false).expect("it was drawn");
            assert_eq!(paths.take_state(true), None);
            let mut off = Paths::restore(&state, None).expect("the state of before");
            assert!(middles(&mut off, known, 200, rng).len() > 60);
            let state = off.take_state(true).unwrap_or(state);
            let mut on = Paths::restore(&state, None).expect("the state of before");
            on.turn_full_vanguards(true);
            assert_eq!(middles(&mut on, known, 200, rng), before);
        });
    }

    #[test] // §6.4(18), §1.6
    fn l3_live_for_hours_of_confirmed_time_and_two_days_at_most() {
        let mut paths = paths(true);
        let mut at = |(wall, confirmed): (Duration, Duration)| {
            let when = When {
                wall: NOW + wall,
                confirmed: NOW + confirmed,
            };
            when.act_knowing(&many(), |known, rng| middles(&mut paths, known, 200, rng))
        };
        let first = at((Duration::ZERO, Duration::ZERO));
        assert_eq!(
            at((DAY * 400, Duration::ZERO)),
            first,
            "the clock may be wrong"
        );
        let hour = L3_LIFE_MIN;
        assert_eq!(at((hour, hour)), first);
        let day_later = at((DAY, DAY));
        assert_eq!(day_later.len(), 8);
        assert!(!day_later.is_disjoint(&first) && day_later != first);
        let later = L3_LIFE_MAX;
        assert!(at((later, later)).is_disjoint(&first));
    }

    /// L2 say that this L3 is out of reach, each so often.
    fn refuse(paths: &mut Paths, known: Known<'_>, l3: RelayId, by: &[u8], is_sealed: bool) {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        for _ in 0..L2_FAILURES_MAX {
            for &layer2 in by {
                let path = [id(101), id(layer2), l3];
                paths.avoided.handle_failed(known, &path, is_sealed, rng);
            }
        }
    }

    #[test] // §6.4(18)
    fn an_l3_that_is_dead_is_passed_over_and_replaced_by_the_word_of_two_l2() {
        When::at(NOW).act_knowing(&many(), |known, rng| {
            let mut paths = paths(true);
            let first = middles(&mut paths, known, 200, rng);
            let dead = *first.first().expect("one of eight");
            refuse(&mut paths, known, dead, &[102], true);
            assert_eq!(
                middles(&mut paths, known, 200, rng),
                first,
                "one L2 says so"
            );
            refuse(&mut paths, known, dead, &[103], false);
            let others = middles(&mut paths, known, 200, rng);
            assert!(
                others.len() == 7 && !others.contains(&dead),
                "it is passed over"
            );
            assert!(paths.layer3.relays().any(|relay| relay == dead));
            refuse(&mut paths, known, dead, &[102, 103], true);
            let replaced = middles(&mut paths, known, 200, rng);
            assert!(replaced.len() == 8 && !replaced.contains(&dead));
            assert!(paths.layer3.relays().all(|relay| relay != dead));
        });
    }

    #[test] // §6.4(18)
    fn an_l3_that_is_drawn_in_anothers_place_is_no_guard_and_no_l2_either() {
        When::at(NOW).act_knowing(&many(), |known, rng| {
            for _ in 0..20 {
                let mut paths = paths(true);
                for l3 in middles(&mut paths, known, 100, rng) {
                    refuse(&mut paths, known, l3, &[102, 103], false);
                }
                middles(&mut paths, known, 100, rng);
                let primary = paths.guards.primary(known).into_iter();
                let mut before = primary.chain(paths.layer2.relays());
                let layer3: BTreeSet<RelayId> = paths.layer3.relays().collect();
                assert!(layer3.len() > L3_COUNT, "others were drawn");
                assert!(!before.any(|relay| layer3.contains(&relay)));
            }
        });
    }

    #[test] // §6.4(18)
    fn a_guard_can_not_walk_a_client_through_l3() {
        When::at(NOW).act_knowing(&many(), |known, rng| {
            let mut paths = paths(true);
            let first = middles(&mut paths, known, 200, rng);
            for &l3 in &first {
                refuse(&mut paths, known, l3, &[102, 103, 104], false);
            }
            paths.refresh(known, rng);
            let kept: BTreeSet<RelayId> = paths.layer3.relays().collect();
            assert!(kept.is_superset(&first), "none is replaced");
            for _ in 0..100 {
                middles(&mut paths, known, 10, rng);
            }
            assert!(paths.layer3.relays().count() <= 2 * L3_COUNT);
        });
    }

    /// Hours until a relay of theirs is beside an L2 of a client that makes a circuit every ten
    /// minutes: half of the clients take longer. They have the relays whose numbers leave this rest.
    fn median_hours(is_full: bool, one_in: u8) -> u64 {
        let everyone: Vec<u8> = (0..200).collect();
        let hours = When::at(NOW).act_knowing(&everyone, |known, rng| {
            let first = |rest: u8| {
                let theirs: BTreeSet<RelayId> = everyone
                    .iter()
                    .filter(|&number| number % one_in == rest)
                    .map(|&number| id(number))
                    .collect();
                let mut paths = paths(is_full);
                let mut circuits = (0..).map(|count| NOW + Duration::from_secs(600) * count);
                let found = circuits.find(|&wall| {
                    let known = Known {
                        wall,
                        confirmed: wall,
                        ..known
                    };
                    let of_one = middles(&mut paths, known, 1, rng);
                    !of_one.is_disjoint(&theirs)
                });
                found.expect("at last").since(NOW).as_secs() / 3600
            };
            let mut hours: Vec<u64> = (0..5).flat_map(|_| 0..one_in).map(first).collect();
            hours.sort_unstable();
            hours
        });
        hours[hours.len() / 2]
    }

    #[test] // §6.4(18)
    fn with_full_vanguards_an_l2_is_known_days_later() {
        let (usual, full) = (median_hours(false, 20), median_hours(true, 20));
        println!("1 in 20: {usual} h, with full vanguards {full} h");
        assert!(full >= 6 * usual, "{full} h, not {usual} h");
    }
}
