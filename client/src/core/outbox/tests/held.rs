//! The answers of holders outlive the client, and end a message or keep it.

use super::*;

#[test] // §10.5(1)
fn what_holders_took_is_known_after_a_restart() {
    for is_stopped in [false, true] {
        let mut bench = held_by_two();
        bench.drive();
        assert!(
            bench.shared.out.stores.is_empty(),
            "the third may answer yet"
        );
        if is_stopped {
            bench.with(|outbox, cx, _| outbox.stop(cx));
        } else {
            bench.pass(STORE_ANSWERS_AFTER);
        }
        assert_eq!(restarted(&bench).listed(), [(2, 2)]);
    }
}

#[test] // §10.5(1)
fn the_end_of_each_attempt_at_a_third_holder_is_reported() {
    let mut bench = held_by_two();
    bench.answer(2, &SILENT);
    assert_eq!(bench.notices(), []);
    bench.drive();
    assert_eq!(bench.notices(), [HELD]);
    bench.pass(STORE_ANSWERS_AFTER);
    let mut bench = restarted(&bench);
    bench.find(3);
    assert_eq!(bench.notices(), []);
    bench.drive();
    bench.answer(2, &SILENT);
    bench.drive();
    assert_eq!(bench.notices(), [HELD]);
    bench.find(3);
    bench.drive();
    bench.answer(2, &TAKEN);
    bench.drive();
    assert_eq!(
        bench.notices(),
        [Notice::Held {
            id: ID,
            holders: 3,
            wanted: 2
        }]
    );
    assert!(is_removed(&bench) && bench.listed().is_empty());
}

#[test] // §10.5(1)
fn a_third_holder_is_tried_for_a_while_however_short_the_runs() {
    let mut bench = held_by_two();
    bench.pass(STORE_ANSWERS_AFTER);
    let retry_max = bench.shared.network.params.retry_max;
    for _ in 0..20 {
        bench = restarted(&bench);
        bench.find(3);
        bench.drive();
        assert_eq!(bench.listed().len(), 1, "it ends before the attempt does");
        bench.with(|outbox, cx, _| outbox.save_at(ID, cx.now));
        bench.drive();
    }
    bench = restarted(&bench);
    bench.wall = bench.wall + retry_max;
    bench.find(3);
    bench.drive();
    assert!(
        !bench.listed().is_empty(),
        "there is one attempt after that, however late"
    );
    bench = restarted(&bench);
    bench.drive();
    assert_eq!(bench.notices(), [HELD]);
    assert!(is_removed(&bench) && bench.listed().is_empty());
}

#[test] // §10.5(1)
fn a_message_that_all_mailboxes_have_is_reported_before_it_leaves() {
    let mut bench = held_by_two_before();
    bench.find(2);
    bench.drive();
    assert_eq!((bench.notices(), bench.listed()), (vec![HELD], vec![]));

    let mut bench = asked(Network::local(), 2);
    assert!(bench.stored(true));
    bench.answer(0, &TAKEN);
    bench.answer(1, &SILENT);
    bench.pass(STORE_ANSWERS_AFTER);
    let mut bench = restarted(&bench);
    assert_eq!(bench.listed(), [(1, 2)]);
    bench.find(1);
    assert_eq!(
        bench.notices(),
        [Notice::Held {
            id: ID,
            holders: 1,
            wanted: 1
        }]
    );
    bench.drive();
    assert_eq!(bench.listed(), []);
}

#[test] // §10.5(1)
fn a_message_that_enough_have_is_not_put_off_when_its_inbox_is_not_found() {
    let mut bench = held_by_two_before();
    for _ in 0..5 {
        // The view is empty: there is no position to look at.
        bench.pass(Duration::from_secs(10));
        bench.drive();
        assert_eq!(bench.notices(), []);
        assert_eq!(bench.listed().len(), 1, "no mailbox was tried");
    }
    let mut bench = Bench::new(Network::local());
    bench.send();
    bench.drive();
    assert!(bench.stored(true));
    bench.drive();
    assert!(matches!(
        bench.notices()[..],
        [Notice::Queued(ID), Notice::Deferred { id: ID, .. }]
    ));
}

#[test] // §10.5(1)
fn holders_that_were_enough_once_do_not_end_it_when_more_are_wanted() {
    let mut bench = held_by_two_before();
    bench.shared.network.params.holders_wanted = 3;
    for _ in 0..4 {
        bench.wall = bench.wall + bench.shared.network.params.retry_max;
        bench.fail_at_third();
        assert!(matches!(
            bench.notices()[..],
            [Notice::Deferred { id: ID, .. }]
        ));
    }
    assert_eq!(bench.listed(), [(2, 3)]);
}

#[test] // §10.5(1)
fn answers_from_before_it_was_durable_are_known_after_a_restart() {
    let mut bench = asked(Network::local(), 3);
    bench.answer(0, &TAKEN);
    bench.answer(1, &TAKEN);
    assert!(bench.stored(true));
    bench.with(|outbox, cx, _| outbox.stop(cx));
    assert_eq!(restarted(&bench).listed(), [(2, 2)]);
}

#[test] // §10.5(1)
fn a_clock_that_was_ahead_does_not_keep_a_message() {
    let mut bench = held_by_two_before();
    bench.wall = WallTime(bench.wall.as_secs() - 1_000_000);
    for _ in 0..2 {
        bench.fail_at_third();
        bench.wall = bench.wall + bench.shared.network.params.retry_max;
    }
    assert_eq!(bench.listed(), []);
}
