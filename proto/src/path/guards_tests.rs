//! Which guards a client keeps, tries and sets aside, by which time (docs/protocol.md §1.6, §6.4).

use rand::rngs::ChaCha20Rng;

use super::super::testing::{NOW, When, id};
use super::*;
use crate::directory::choice::Candidates;
use crate::network::Network;

fn relay(number: u8) -> RelayId {
    RelayId([number; RelayId::LEN])
}

/// A guard that was dialled.
fn tried(number: u8) -> Guard {
    Guard {
        tried_at: Some(NOW),
        ..Guard::sampled(relay(number), NOW)
    }
}

/// A guard that a circuit was built through.
fn used(number: u8) -> Guard {
    Guard {
        confirmed_at: Some(NOW),
        ..tried(number)
    }
}

/// The calendar is ahead by so much, and nothing confirms it.
fn ahead_by(ahead: Duration) -> When {
    When {
        wall: NOW + ahead,
        ..When::at(NOW)
    }
}

/// Refreshes; who is left.
fn refreshed(guards: &mut Guards, moment: &When) -> usize {
    moment.act(|known, rng| guards.refresh(known, &[], rng));
    guards.sample.len()
}

#[test] // §6.4(8)
fn few_new_guards_are_tried_a_day() {
    let params = Params {
        guards_new_a_day: 2,
        ..Network::local().params
    };
    let sample = vec![tried(1), tried(2), tried(3), Guard::sampled(relay(4), NOW)];
    let mut guards = Guards::restore(sample, vec![NOW]);
    assert!(guards.may_try(relay(4), &params));
    guards.new_at.push(NOW);
    assert!(guards.may_try(relay(1), &params) && !guards.may_try(relay(4), &params));
    guards.forget_new(NOW + DAY);
    assert!(guards.may_try(relay(4), &params));
}

#[test] // §1.6, §6.4(8)
fn a_clock_that_jumps_makes_no_day_pass_for_new_guards() {
    let params = Params {
        guards_new_a_day: 2,
        ..Network::local().params
    };
    let sample = vec![tried(1), tried(2), tried(3), Guard::sampled(relay(4), NOW)];
    let mut guards = Guards::restore(sample, vec![NOW, NOW]);
    refreshed(&mut guards, &ahead_by(DAY * 400));
    assert!(!guards.may_try(relay(4), &params), "the clock may be wrong");
    refreshed(&mut guards, &When::at(NOW + DAY));
    assert!(guards.may_try(relay(4), &params));
    guards.new_at = vec![NOW + DAY * 400; 2];
    refreshed(&mut guards, &When::at(NOW));
    refreshed(&mut guards, &When::at(NOW + DAY));
    assert!(
        guards.may_try(relay(4), &params),
        "what a wrong clock dated ahead lasts a day"
    );
}

#[test] // §1.6, §6.4
fn guards_go_by_confirmed_time() {
    let mut guards = Guards::restore(vec![used(1), Guard::sampled(relay(2), NOW)], Vec::new());
    assert_eq!(
        refreshed(&mut guards, &ahead_by(DAY * 400)),
        2,
        "the clock may be wrong"
    );
    assert_eq!(refreshed(&mut guards, &When::at(NOW + DAY * 19)), 2);
    assert_eq!(
        refreshed(&mut guards, &When::at(NOW + DAY * 400)),
        0,
        "their lives are over"
    );
}

#[test] // §1.6, §6.4
fn a_guard_that_a_wrong_clock_dated_ahead_is_no_younger_than_now() {
    let ahead = Some(NOW + DAY * 365);
    let dated = Guard {
        tried_at: ahead,
        missed_since: ahead,
        rests_until: ahead,
        set_aside_at: ahead,
        ..Guard::sampled(relay(1), NOW + DAY * 365)
    };
    let mut guards = Guards::restore(vec![dated.clone()], Vec::new());
    let unsure = When {
        wall: NOW,
        ..When::at(WallTime(NOW.0 - 9000))
    };
    refreshed(&mut guards, &unsure);
    assert_eq!(
        guards.sample[0].sampled_at, dated.sampled_at,
        "not by a clock that is not confirmed"
    );
    refreshed(&mut guards, &When::at(NOW));
    let now = Some(NOW);
    let (sampled_at, rests_until) = (NOW, Some(NOW + DAY));
    let redated = Guard {
        sampled_at,
        tried_at: now,
        missed_since: now,
        rests_until,
        set_aside_at: now,
        ..dated
    };
    assert_eq!(
        guards.sample[0],
        Guard {
            unlisted_since: now,
            ..redated
        }
    );
}

#[test] // §6.4(2), §6.4(17)
fn a_sample_is_a_share_of_the_relays_that_may_become_guards() {
    let in_view: Vec<u8> = (0..150).collect();
    let sampled = |selectable: usize| {
        let draw = |known: Known<'_>, rng: &mut ChaCha20Rng| {
            let vouched = in_view.iter().take(selectable);
            let vouched = vouched.filter_map(|&number| known.view.get(&id(number)));
            let candidates = Candidates::new(vouched.map(|it| &**it), known.network);
            let known = Known {
                guard_candidates: &candidates,
                ..known
            };
            let mut guards = Guards::default();
            guards.refresh(known, &[], rng);
            let drawn = guards.sample.len();
            while guards.grow(known, &[], rng) {}
            let may_be_drawn = |relay| candidates.weights().any(|(other, _)| other == relay);
            assert!(guards.relays().all(may_be_drawn));
            (drawn, guards.sample.len())
        };
        When::at(NOW).act_knowing(&in_view, draw)
    };
    assert_eq!(
        sampled(40),
        (8, 20),
        "the others are too young, or have no receipts"
    );
    assert_eq!(sampled(125), (20, 25), "a fifth");
    assert_eq!(sampled(5), (3, 5), "as many as there are primaries");
}

#[test] // §6.4(7)
fn a_guard_long_out_of_reach_makes_room_and_is_tried_again_a_day_later() {
    let sample = || vec![Guard::sampled(relay(1), NOW), Guard::sampled(relay(2), NOW)];
    let rest = Duration::from_secs(60);
    let mut guards = Guards::restore(sample(), Vec::new());
    let miss = |guards: &mut Guards, moment: &When| {
        moment.act(|known, _| guards.handle_missed(known, relay(1), rest));
    };
    let order = |guards: &Guards, moment: &When| moment.act(|known, _| guards.in_order(known));
    (0..4).for_each(|_| miss(&mut guards, &When::at(NOW)));
    assert_eq!(
        order(&guards, &When::at(NOW)),
        [relay(1), relay(2)],
        "an hour's failure changes nothing"
    );
    miss(&mut guards, &When::at(NOW + DAY));
    assert_eq!(order(&guards, &When::at(NOW + DAY)), [relay(2), relay(1)]);
    assert_eq!(
        order(&guards, &When::at(NOW + DAY + DAY)),
        [relay(1), relay(2)]
    );
    let mut guards = Guards::restore(sample(), Vec::new());
    (0..4).for_each(|_| miss(&mut guards, &When::at(NOW)));
    miss(&mut guards, &ahead_by(DAY * 2));
    assert_eq!(
        order(&guards, &ahead_by(DAY * 2)),
        [relay(1), relay(2)],
        "a clock that jumps makes no day pass"
    );
}

#[test] // §6.4(11), §8.3(9b)
fn a_guard_that_hides_relays_is_set_aside_and_that_is_said_once() {
    let now = When::at(NOW);
    let hide = |guards: &mut Guards, number: u8| {
        now.act(|known, _| guards.handle_hiding(known, relay(number)));
        guards.poll_warning()
    };
    let warned = |is_replaced| Some(Warning::GuardHides { is_replaced });
    let mut guards = Guards::restore((1..=4).map(used).collect(), Vec::new());
    for number in 1..=2 {
        assert_eq!(hide(&mut guards, number), warned(true));
        assert!(is_set_aside(&guards, number));
        assert_eq!(hide(&mut guards, number), None);
    }
    assert_eq!(hide(&mut guards, 3), warned(false), "the third of a week");
    assert!(!is_set_aside(&guards, 3));
}

/// This many circuits over these paths fail through a guard; whether the user was warned.
fn fail(
    guards: &mut Guards,
    moment: &When,
    number: u8,
    ways: impl Iterator<Item = [u8; 3]>,
    is_unbuilt: bool,
) -> bool {
    moment.act(|known, _| {
        for way in ways {
            let way = if is_unbuilt {
                way[..2].to_vec()
            } else {
                way.to_vec()
            };
            let way: Vec<RelayId> = way.into_iter().map(relay).collect();
            let stage = if is_unbuilt {
                Stage::Unbuilt
            } else {
                Stage::Built
            };
            guards.handle_failed(known, relay(number), &way, stage);
        }
    });
    guards.poll_warning() == Some(Warning::GuardFails)
}

/// Ways that have nothing in common but this many L2 relays and terminals.
fn ways(count: u8, layer2: u8, terminals: u8) -> impl Iterator<Item = [u8; 3]> {
    (0..count).map(move |number| {
        [
            100 + number % layer2,
            150 + number,
            200 + number % terminals,
        ]
    })
}

fn is_set_aside(guards: &Guards, number: u8) -> bool {
    guards
        .sample
        .iter()
        .any(|guard| guard.relay == relay(number) && guard.set_aside_at.is_some())
}

#[test] // §6.4(11)
fn a_guard_for_which_too_much_fails_is_set_aside_with_a_warning() {
    let now = When::at(NOW);
    let guards = || Guards::restore(vec![used(1), used(2)], Vec::new());
    for is_unbuilt in [true, false] {
        let mut kept = guards();
        assert!(
            !fail(&mut kept, &now, 1, ways(19, 4, 10), is_unbuilt) && !is_set_aside(&kept, 1),
            "too few"
        );
        assert!(
            !fail(&mut kept, &now, 2, ways(30, 1, 10), is_unbuilt) && !is_set_aside(&kept, 2),
            "one L2 is behind it"
        );
        let mut left = guards();
        assert!(fail(&mut left, &now, 1, ways(30, 4, 10), is_unbuilt) && is_set_aside(&left, 1));
        assert_eq!(now.act(|known, _| left.in_order(known)), [relay(2)]);
    }
    let mut kept = guards();
    fail(&mut kept, &now, 1, ways(60, 4, 3), false);
    assert!(
        !is_set_aside(&kept, 1) && kept.sample[0].tally.failed() == 9,
        "three count to one terminal"
    );
    let mut kept = guards();
    fail(&mut kept, &now, 1, ways(50, 4, 50), false);
    assert_eq!(
        kept.sample[0].tally.failed(),
        16,
        "none count to a seventeenth terminal"
    );
    let mut kept = guards();
    now.act(|known, _| (0..80).for_each(|_| kept.handle_built(known, relay(1))));
    fail(&mut kept, &now, 1, ways(30, 4, 10), false);
    assert!(!is_set_aside(&kept, 1), "30 of 110 is not much");
}

/// This guard refuses these L2, each so often; how many refusals counted.
fn refuse(guards: &mut Guards, moment: &When, number: u8, layer2: &[u8], times: u32) -> u32 {
    let mut one = |known: Known<'_>, l2: u8| {
        u32::from(guards.handle_failed(known, relay(number), &[relay(l2)], Stage::Refused))
    };
    moment.act(|known, _| {
        let all = (0..times).flat_map(|_| layer2.iter().copied());
        all.map(|l2| one(known, l2)).sum()
    })
}

#[test] // §6.4(11), §6.4(15)
fn a_guard_that_refuses_several_l2_is_set_aside() {
    let now = When::at(NOW);
    let guards = || {
        let mut guards = Guards::restore(vec![used(1), used(2)], Vec::new());
        now.act(|known, _| (0..20).for_each(|_| guards.handle_built(known, relay(1))));
        guards
    };
    let mut kept = guards();
    assert_eq!(
        refuse(&mut kept, &now, 1, &[11], 60),
        1,
        "the L2 may be down"
    );
    assert!(!is_set_aside(&kept, 1));
    let mut left = guards();
    refuse(&mut left, &now, 1, &[11, 12], 4);
    assert!(!is_set_aside(&left, 1), "8 of 28 is not much");
    refuse(&mut left, &now, 1, &[11, 12], 1);
    assert!(is_set_aside(&left, 1));
}

#[test] // §6.4(11)
fn counts_are_stored_once_at_the_end_or_with_what_else_changes() {
    let mut guards = Guards::restore(vec![used(1)], Vec::new());
    When::at(NOW).act(|known, _| guards.handle_built(known, relay(1)));
    assert!(!guards.take_changed(false), "not a commit a circuit");
    assert!(guards.take_changed(true));
    assert!(!guards.take_changed(true));
}

#[test] // §6.4(11)
fn at_most_two_are_set_aside_in_seven_days_and_never_the_last_used() {
    let mut guards = Guards::restore((1..=5).map(used).collect(), Vec::new());
    let fail_at = |guards: &mut Guards, moment: When, number| {
        fail(guards, &moment, number, ways(30, 4, 10), true);
        is_set_aside(guards, number)
    };
    assert!(fail_at(&mut guards, When::at(NOW), 1) && fail_at(&mut guards, When::at(NOW), 2));
    assert!(
        !fail_at(&mut guards, ahead_by(DAY * 400), 3),
        "a clock that jumps makes no week pass"
    );
    assert!(!fail_at(&mut guards, When::at(NOW + DAY * 6), 3));
    assert!(fail_at(&mut guards, When::at(NOW + DAY * 7), 3));
    let mut guards = Guards::restore(vec![used(1), tried(2)], Vec::new());
    assert!(
        !fail_at(&mut guards, When::at(NOW), 1),
        "no circuit was built through the other"
    );
}
