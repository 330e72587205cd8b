//! L2: the pinned relays behind the guard (docs/protocol.md §6.4(2)).
//!
//! No guard can have one replaced before its time: that takes the word of two. One that refuses too
//! many middles itself is set aside for the rest of its life, and stays here so that it is not drawn
//! again meanwhile (§6.4(16)). One that leaves the view is used again when it comes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::CryptoRng;

use super::avoided::Role;
use super::pinned::{Pinned, Pins, Shunned, Terms, pick};
use super::tally::may_set_aside;
use super::{Known, Warning};
use crate::ids::RelayId;
use crate::limits::{GUARD_BLAME_MIDDLES, L2_FAILURES_MAX};
use crate::network::Params;

/// All pinned relays behind the guard.
#[expect(
    missing_debug_implementations,
    reason = "says which relays know its owner's guard"
)]
#[derive(Default)]
pub struct Layer2 {
    pins: Pins,
    /// The middles that each refused since the client started.
    refused: BTreeMap<RelayId, BTreeSet<RelayId>>,
    warnings: VecDeque<Warning>,
    /// A count changed, which is stored with the next change, or at the end.
    is_counted: bool,
}

impl Layer2 {
    pub(super) const fn restore(pinned: Vec<Pinned>) -> Self {
        Self {
            pins: Pins::restore(pinned),
            refused: BTreeMap::new(),
            warnings: VecDeque::new(),
            is_counted: false,
        }
    }

    const fn terms(params: &Params) -> Terms {
        Terms {
            count: params.l2_count,
            life_min: params.l2_life_min,
            life_max: params.l2_life_max,
        }
    }

    pub(super) fn pinned(&self) -> &[Pinned] {
        &self.pins.pinned
    }

    /// All pinned relays.
    pub fn relays(&self) -> impl Iterator<Item = RelayId> {
        self.pins.relays()
    }

    pub(super) fn poll_warning(&mut self) -> Option<Warning> {
        self.warnings.pop_front()
    }

    /// Whether they have to be stored again.
    pub(super) fn take_changed(&mut self, are_counts_due: bool) -> bool {
        let is_due = self.pins.is_changed || (are_counts_due && self.is_counted);
        if is_due {
            (self.pins.is_changed, self.is_counted) = (false, false);
        }
        is_due
    }

    /// Drops those whose time is over, or that failed too often, and pins others, apart from the primary
    /// guards if that can be.
    pub(super) fn refresh(
        &mut self,
        known: Known<'_>,
        primary: &[RelayId],
        shunned: Shunned<'_>,
        rng: &mut dyn CryptoRng,
    ) {
        let terms = Self::terms(&known.network.params);
        let has_failed = |relay| {
            shunned
                .avoided
                .has_failed_by_two(relay, Role::Guard, L2_FAILURES_MAX)
        };
        self.pins.drop_old(known, terms, has_failed);
        let pins = &self.pins;
        self.refused
            .retain(|relay, _| pins.relays().any(|pinned| pinned == *relay));
        self.pins.note_listed(known, terms);
        while self.pins.wants_another(known, terms)
            && self
                .pins
                .pin(known, terms, &[primary], shunned, rng)
                .is_some()
        {}
    }

    /// Whether this one is set aside.
    pub fn is_set_aside(&self, relay: RelayId) -> bool {
        let mut pinned = self.pins.pinned.iter();
        pinned.any(|pinned| pinned.relay == relay && !pinned.is_usable())
    }

    /// How many are set aside.
    pub fn set_aside_count(&self) -> usize {
        self.pinned().len() - self.pins.usable().count()
    }

    /// One that goes with this guard and is not avoided. If none does, pins one more; failing that,
    /// falls back to an avoided one, then to one that was set aside. `is_alone`: no other guard can be
    /// asked about those that this one calls out of reach; if it calls all of them so, one more is
    /// pinned, too.
    pub(super) fn choose(
        &mut self,
        known: Known<'_>,
        guard: RelayId,
        is_alone: bool,
        shunned: Shunned<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Option<RelayId> {
        let (terms, avoided) = (Self::terms(&known.network.params), shunned.avoided);
        let fits = |relay: &RelayId| known.are_apart(*relay, guard);
        let fitting: Vec<RelayId> = self.pins.usable().filter(fits).collect();
        let usable: Vec<RelayId> = fitting
            .iter()
            .copied()
            .filter(|&relay| !avoided.is_avoided(relay, known.now))
            .collect();
        let is_named = |relay: &RelayId| avoided.named_by(*relay) == Some(guard);
        if !(is_alone && usable.iter().all(is_named))
            && let Some(relay) = pick(&usable, rng)
        {
            return Some(relay);
        }
        if self.pins.has_room(known, terms)
            && let Some(added) = self.pins.pin(known, terms, &[&[guard]], shunned, rng)
        {
            return Some(added).filter(fits).or_else(|| pick(&fitting, rng));
        }
        let picked = pick(&usable, rng).or_else(|| pick(&fitting, rng));
        picked.or_else(|| {
            let all: Vec<RelayId> = self.relays().filter(fits).collect();
            pick(&all, rng)
        })
    }

    /// The hop behind this one was made.
    pub fn handle_made(&mut self, relay: RelayId) {
        if let Some(pinned) = self.pins.find(relay) {
            pinned.tally.add_done();
            self.is_counted = true;
        }
    }

    /// This relay itself said that a middle is out of reach, and nobody else did. Says whether that
    /// is counted against it. If it refuses too many, it is set aside (§6.4(16)).
    pub fn handle_refused(&mut self, known: Known<'_>, relay: RelayId, middle: RelayId) -> bool {
        let params = &known.network.params;
        let Some(pinned) = self.pins.find(relay) else {
            return false;
        };
        pinned.tally.add_failed();
        let is_bad = pinned.is_usable() && pinned.tally.is_bad(params);
        self.is_counted = true;
        let middles = self.refused.entry(relay).or_default();
        if middles.len() < GUARD_BLAME_MIDDLES {
            middles.insert(middle);
        }
        let has_several = middles.len() >= GUARD_BLAME_MIDDLES;
        if is_bad && has_several {
            self.set_aside(known, relay);
        }
        true
    }

    /// Another relay said the same of a middle: that is counted against neither.
    pub fn pardon(&mut self, relay: RelayId, count: u32) {
        if let Some(pinned) = self.pins.find(relay) {
            pinned.tally.pardon(count);
            self.is_counted = true;
        }
    }

    fn set_aside(&mut self, known: Known<'_>, relay: RelayId) {
        let set_aside_at = self.pinned().iter().map(|it| it.set_aside_at);
        if !may_set_aside(set_aside_at, known.confirmed) {
            return;
        }
        let wall = known.wall;
        if let Some(pinned) = self.pins.find(relay) {
            pinned.set_aside_at = Some(wall);
            self.pins.is_changed = true;
            self.warnings.push_back(Warning::L2Refuses);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::avoided::Avoided;
    use super::super::testing::{DAY, NOW, When, id, shunned};
    use super::*;
    use crate::limits::PINNED_WAIT;
    use crate::time::Duration;

    /// These relays, pinned for ten days.
    fn pinned(numbers: core::ops::Range<u8>) -> Layer2 {
        let until = NOW + DAY * 10;
        Layer2::restore(
            numbers
                .map(|number| Pinned::until(id(number), until))
                .collect(),
        )
    }

    /// This L2 makes so many middles and refuses so many others; the warnings.
    fn refuse(layer2: &mut Layer2, moment: &When, number: u8, made: u8, refused: u8) -> usize {
        moment.act(|known, _| {
            (0..made).for_each(|_| layer2.handle_made(id(number)));
            for middle in 0..refused {
                assert!(layer2.handle_refused(known, id(number), id(100 + middle)));
            }
        });
        core::iter::from_fn(|| layer2.poll_warning()).count()
    }

    #[test] // §6.4(16)
    fn an_l2_that_refuses_too_many_middles_is_set_aside_for_its_life() {
        let now = When::at(NOW);
        let mut layer2 = pinned(0..4);
        assert_eq!(refuse(&mut layer2, &now, 0, 13, 6), 0, "too few");
        assert_eq!(refuse(&mut layer2, &now, 1, 30, 12), 0, "not much");
        assert_eq!(refuse(&mut layer2, &now, 0, 0, 1), 1);
        assert_eq!(
            (layer2.pins.usable().count(), layer2.set_aside_count()),
            (3, 1)
        );
        let (relays, avoided): (Vec<u8>, _) = ((0..20).collect(), Avoided::default());
        let at = |days| When {
            confirmed: NOW + DAY * days,
            ..When::at(NOW)
        };
        let used = at(9).act_knowing(&relays, |known, rng| {
            layer2.refresh(known, &[], shunned(&avoided), rng);
            assert_eq!(
                (layer2.pins.usable().count(), layer2.pinned().len()),
                (4, 5)
            );
            let draw = |_| layer2.choose(known, id(19), false, shunned(&avoided), rng);
            (0..100).filter_map(draw).collect::<BTreeSet<_>>()
        });
        assert!(used.len() >= 3 && !used.contains(&id(0)), "{used:?}");
        at(10).act_knowing(&relays, |known, rng| {
            layer2.refresh(known, &[], shunned(&avoided), rng);
        });
        assert_eq!(layer2.set_aside_count(), 0, "its life is over");
    }

    #[test] // §6.4(16)
    fn few_middles_or_what_others_say_too_set_no_l2_aside() {
        let now = When::at(NOW);
        let mut layer2 = pinned(0..2);
        for _ in 0..20 {
            assert_eq!(
                refuse(&mut layer2, &now, 0, 0, 2),
                0,
                "two middles may be down"
            );
        }
        let mut layer2 = pinned(0..2);
        refuse(&mut layer2, &now, 0, 10, 9);
        layer2.pardon(id(0), 8);
        assert_eq!(refuse(&mut layer2, &now, 0, 0, 5), 0, "another said so too");
        assert_eq!(layer2.pinned()[0].tally.failed(), 6);
    }

    #[test] // §6.4(16)
    fn at_most_two_l2_are_set_aside_in_seven_days() {
        let mut layer2 = pinned(0..4);
        let now = When::at(NOW);
        let told = (0..4).map(|number| refuse(&mut layer2, &now, number, 0, 20));
        assert_eq!(told.sum::<usize>(), 2);
        let week_later = When::at(NOW + DAY * 7);
        assert_eq!(refuse(&mut layer2, &week_later, 3, 0, 1), 1);
    }

    /// The L2 of 2000 circuits, after this time in which these relays were in view.
    fn used_after(layer2: &mut Layer2, waited: Duration, relays: &[u8]) -> BTreeSet<u8> {
        let avoided = Avoided::default();
        let used: BTreeSet<RelayId> = When::at(NOW).act_knowing(relays, |known, rng| {
            for now in [known.now, known.now + waited] {
                let known = Known { now, ..known };
                layer2.refresh(known, &[id(99)], shunned(&avoided), rng);
            }
            let draw = |_| layer2.choose(known, id(99), false, shunned(&avoided), rng);
            (0..2000).filter_map(draw).collect()
        });
        (0..100).filter(|it| used.contains(&id(*it))).collect()
    }

    /// All relays but these.
    fn view_without(gone: &[u8]) -> Vec<u8> {
        (0..100).filter(|it| !gone.contains(it)).collect()
    }

    #[test] // §6.4(2)
    fn an_l2_that_leaves_the_view_keeps_its_place_and_is_used_again() {
        let mut layer2 = pinned(0..4);
        let mut used = |gone: &[u8], waited| used_after(&mut layer2, waited, &view_without(gone));
        let all = BTreeSet::from([0, 1, 2, 3]);
        assert_eq!(
            used(&[1, 2], DAY),
            BTreeSet::from([0, 3]),
            "half are enough"
        );
        assert_eq!(used(&[], DAY), all);
        let short = Duration::from_secs(3599);
        assert_eq!(
            used(&[0, 1, 2], short),
            BTreeSet::from([3]),
            "for an hour one is"
        );
        assert_eq!(used(&[], short), all);
        assert_eq!(
            used(&[0, 1, 2], PINNED_WAIT).len(),
            2,
            "another for the third"
        );
        assert_eq!(used(&[], DAY).len(), 5, "none leaves before its time");
    }

    #[test] // §6.4(2)
    fn while_a_view_is_filled_anew_no_other_l2_is_drawn() {
        let (mut layer2, avoided) = (pinned(0..4), Avoided::default());
        let mut chosen = |is_view_current, waited| {
            let known_by = When::at(NOW);
            known_by.act_knowing(&[7, 8, 9, 99], |known, rng| {
                let now = known.now + waited;
                let known = Known {
                    now,
                    is_view_current,
                    ..known
                };
                layer2.refresh(known, &[id(99)], shunned(&avoided), rng);
                layer2.choose(known, id(99), false, shunned(&avoided), rng)
            })
        };
        assert_eq!(chosen(false, Duration::ZERO), None);
        assert_eq!(
            chosen(false, PINNED_WAIT * 2),
            None,
            "however long it takes"
        );
        assert!(chosen(true, Duration::ZERO).is_some());
    }

    #[test] // §6.4(2)
    fn who_hides_all_l2_again_and_again_has_few_others_drawn() {
        let mut layer2 = pinned(0..4);
        let mut gone = Vec::new();
        let mut drawn = Vec::new();
        for _ in 0..6 {
            let in_use = used_after(&mut layer2, DAY, &view_without(&gone));
            assert!(!in_use.is_empty());
            gone.extend(in_use);
            drawn.push(layer2.pinned().len() - 4);
        }
        assert_eq!(drawn, [0, 2, 4, 5, 6, 7], "two, two, then one each time");
    }

    #[test] // §6.4(16)
    fn where_no_other_relay_is_left_one_that_was_set_aside_has_to_do() {
        let (mut layer2, avoided) = (pinned(0..1), Avoided::default());
        refuse(&mut layer2, &When::at(NOW), 0, 0, 20);
        assert_eq!(layer2.pins.usable().count(), 0);
        let chosen = When::at(NOW).act_knowing(&[0, 1], |known, rng| {
            let only = known.candidates.clone().without(id(1));
            let known = Known {
                candidates: &only,
                ..known
            };
            layer2.choose(known, id(1), false, shunned(&avoided), rng)
        });
        assert_eq!(chosen, Some(id(0)));
    }
}
