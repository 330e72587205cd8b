//! Messages that are taken back, or expire.

use super::*;

fn restarted_from(state: &[u8]) -> Bench {
    let mut bench = Bench::new(Network::local());
    bench
        .with(|outbox, cx, _| outbox.restore(cx, ID, state))
        .expect("it is read");
    bench
}

#[test]
fn a_message_that_is_taken_back_leaves_at_once_and_says_who_has_it() {
    let cancel =
        |bench: &mut Bench| bench.with(|outbox, cx, post| outbox.cancel(cx, post.requests, ID));
    let mut bench = Bench::new(Network::local());
    bench.send();
    bench.drive();
    assert!(bench.stored(true));
    bench.notices();
    cancel(&mut bench);
    let unsent = Cancelled {
        id: ID,
        copies: Copies::None,
    };
    assert_eq!(
        (bench.notices(), bench.listed()),
        (vec![Notice::Cancelled(unsent)], vec![])
    );
    assert!(is_removed(&bench));
    cancel(&mut bench);
    assert_eq!(bench.notices(), [], "it is not there");

    let (mut bench, wait) = held_by_one();
    cancel(&mut bench);
    let held = Cancelled {
        id: ID,
        copies: Copies::Held(1),
    };
    assert_eq!(
        (bench.notices(), bench.listed()),
        (vec![Notice::Cancelled(held)], vec![])
    );
    bench.pass(wait * 2);
    bench.answer(1, &TAKEN);
    assert_eq!(
        (bench.notices(), bench.outbox.timeout(bench.now)),
        (vec![], None),
        "nothing is left to do"
    );
}

#[test]
fn a_message_that_nobody_takes_expires_once_the_clock_is_right() {
    let mut bench = Bench::new(Network::local());
    bench.send();
    bench.drive();
    assert!(bench.stored(true));
    let expired = Notice::Expired {
        id: ID,
        copies: Copies::None,
        wanted: 2,
    };
    let life = bench.shared.network.params.record_life;
    let after = |passed: Duration, unconfirmed: Option<Duration>| {
        let mut bench = restarted_from(&bench.outbox.entries[&ID].delivery.state());
        bench.wall = bench.wall + passed;
        bench.unconfirmed = unconfirmed.unwrap_or_default();
        bench.judge_clock(unconfirmed.is_none());
        bench.drive(); // no circuit is ever built
        bench.notices() == [expired.clone()] && is_removed(&bench) && bench.listed().is_empty()
    };
    let second = Duration::from_secs(1);
    assert!(!after(life - second, None));
    assert!(after(life, None));
    assert!(
        !after(life * 9, Some(life * 9)),
        "a clock that is ahead loses nothing"
    );
    assert!(
        after(life * 2, Some(life)),
        "no guard that lies makes it stay for ever"
    );
}

fn is_expired(bench: &mut Bench) -> bool {
    let mut notices = bench.notices().into_iter();
    notices.any(|it| matches!(it, Notice::Expired { .. }))
}

#[test] // §10.5(1)
fn a_message_made_by_a_clock_that_was_far_behind_is_not_lost() {
    let life = Network::local().params.record_life;
    // Set right while the client runs, or before its next start.
    for (is_restarted, was_wrong) in [(false, true), (true, true), (true, false)] {
        let mut bench = Bench::new(Network::local());
        bench.send();
        bench.drive();
        assert!(bench.stored(true));
        bench.notices();
        let made_by = bench.wall;
        bench.pass(Duration::from_secs(5));
        bench.wall = made_by + Duration::from_secs(5);
        bench.judge_clock(!was_wrong);
        bench.drive();
        assert!(!is_expired(&mut bench));
        let state = bench.saved();
        assert_eq!(state.is_some(), was_wrong);
        if is_restarted {
            let state = state.unwrap_or_else(|| bench.outbox.entries[&ID].delivery.state());
            bench = restarted_from(&state);
        }
        let right = made_by + life * 99;
        bench.wall = right;
        bench.judge_clock(true);
        bench.drive();
        assert_eq!(bench.listed().is_empty(), !was_wrong);
        assert_eq!(is_expired(&mut bench), !was_wrong);
        if was_wrong {
            assert_eq!(bench.entries()[0].created_at, right);
            bench.wall = right + life;
            bench.judge_clock(true);
            bench.drive();
            assert!(bench.listed().is_empty(), "it lives no longer than others");
        }
    }
}

#[test] // §10.5(1)
fn a_message_made_before_its_clock_went_wrong_keeps_its_date() {
    let mut bench = Bench::new(Network::local());
    bench.send();
    bench.drive();
    assert!(bench.stored(true));
    let made_at = bench.wall;
    bench.wall = made_at + Duration::from_secs(3 * 86_400);
    bench.judge_clock(false);
    bench.wall = made_at + Duration::from_secs(60);
    bench.judge_clock(true);
    assert_eq!(bench.entries()[0].created_at, made_at);
}

#[test] // §10.5(1)
fn a_message_that_expires_while_too_few_hold_it_is_said_to_be_with_those() {
    let mut bench = asked(Network::local(), 2);
    assert!(bench.stored(true));
    bench.answer(0, &TAKEN);
    bench.answer(1, &SILENT);
    bench.notices();
    bench.wall = bench.wall + bench.shared.network.params.record_life;
    bench.judge_clock(true);
    bench.drive();
    let expired = Notice::Expired {
        id: ID,
        copies: Copies::Held(1),
        wanted: 2,
    };
    assert_eq!((bench.notices(), bench.listed()), (vec![expired], vec![]));
    assert!(is_removed(&bench));
}

#[test] // §10.5(1)
fn a_message_that_expires_after_a_deposit_without_answer_may_be_out() {
    let mut bench = asked(Network::local(), 2);
    assert!(bench.stored(true));
    let life = bench.shared.network.params.record_life;
    let expired = Notice::Expired {
        id: ID,
        copies: Copies::InDoubt,
        wanted: 2,
    };
    let mut after_restart = restarted_from(&bench.outbox.entries[&ID].delivery.state());
    (0..2).for_each(|number| bench.answer(number, &SILENT));
    for bench in [&mut bench, &mut after_restart] {
        bench.notices();
        bench.wall = bench.wall + life;
        bench.judge_clock(true);
        bench.drive();
        assert_eq!(bench.notices(), std::slice::from_ref(&expired));
        assert!(is_removed(bench));
    }
}

#[test] // §10.5(1)
fn a_message_in_flight_expires_on_time_and_may_be_out() {
    let mut bench = asked(Network::local(), 2);
    assert!(bench.stored(true));
    bench.notices();
    let life = bench.shared.network.params.record_life;
    bench.judge_clock(true);
    bench.drive();
    assert_eq!(bench.outbox.ends.timeout(bench.now), Some(bench.now + life));
    bench.wall = bench.wall + life;
    bench.drive();
    let expired = Notice::Expired {
        id: ID,
        copies: Copies::InDoubt,
        wanted: 2,
    };
    assert_eq!(bench.notices(), [expired]);
    bench.answer(0, &TAKEN);
    bench.drive();
    assert_eq!(
        (bench.notices(), bench.outbox.timeout(bench.now)),
        (vec![], None),
        "nothing is left to do"
    );
}

#[test]
fn the_fates_of_the_last_messages_that_left_are_kept() {
    let mut bench = Bench::new(Network::local());
    let id = |number: usize| {
        let mut id = [0; MessageId::LEN];
        id[..8].copy_from_slice(&number.to_be_bytes());
        MessageId(id)
    };
    for number in 0..=LEFT_MAX {
        bench.with(|outbox, cx, _| outbox.fail(cx, id(number), SendFault::TooLong));
    }
    let reason = SendFault::TooLong;
    let failed = |number| Notice::Failed {
        id: id(number),
        reason,
    };
    assert_eq!(bench.outbox.left().count(), LEFT_MAX);
    assert_eq!(bench.outbox.left().next(), Some(&failed(1)));
    assert_eq!(bench.outbox.left().last(), Some(&failed(LEFT_MAX)));
}
