//! The user hears the truth while the store fails (docs/protocol.md §10.5(1)).

use super::*;

const IN_DOUBT: Notice = Notice::Unsaved {
    id: ID,
    may_be_out: true,
};

/// Three holders were asked while the store was, and the store failed.
fn asked_and_unsaved() -> Bench {
    let mut bench = asked(Network::local(), 3);
    assert!(bench.stored(false));
    bench
}

#[test] // §10.5(1)
fn a_message_that_was_asked_of_nobody_and_not_stored_is_unsent() {
    let mut bench = Bench::new(Network::local());
    bench.send();
    bench.drive();
    assert!(bench.stored(false));
    assert_eq!(
        bench.notices(),
        [Notice::Unsaved {
            id: ID,
            may_be_out: false
        }]
    );
    bench.pass(STORE_RETRY);
    assert!(bench.stored(false));
    assert_eq!(bench.notices(), [], "it is told once");
    bench.pass(STORE_RETRY);
    assert!(bench.stored(true));
    assert_eq!(bench.notices(), [Notice::Queued(ID)]);
}

#[test] // §10.5(1)
fn a_message_that_enough_holders_have_is_delivered_if_never_stored() {
    let mut bench = asked_and_unsaved();
    assert_eq!(bench.notices(), [], "its fate is waited for");
    bench.answer(0, &TAKEN);
    assert_eq!(bench.notices(), []);
    bench.answer(1, &TAKEN);
    assert_eq!(bench.notices(), [HELD]);
    assert_eq!(bench.listed(), []);
    bench.answer(2, &TAKEN);
    assert_eq!(bench.notices(), []);
}

#[test] // §10.5(1)
fn an_unstored_message_that_too_few_holders_have_is_in_doubt() {
    for answers in [[&TAKEN, &FULL, &SILENT], [&SILENT, &SILENT, &SILENT]] {
        let mut bench = asked_and_unsaved();
        bench.answer(0, answers[0]);
        bench.answer(1, answers[1]);
        assert_eq!(bench.notices(), [], "one can still take it");
        bench.answer(2, answers[2]);
        assert_eq!(bench.notices(), [IN_DOUBT]);
    }
}

#[test] // §10.5(1)
fn silent_holders_are_not_waited_for_once_the_store_failed_again() {
    let mut bench = asked_and_unsaved();
    bench.answer(0, &TAKEN);
    bench.pass(STORE_RETRY);
    assert!(bench.stored(false));
    assert_eq!(bench.notices(), [IN_DOUBT]);
    bench.answer(1, &TAKEN);
    assert_eq!(bench.notices(), [HELD], "late is better than never");
    assert_eq!(bench.listed(), []);
}

#[test] // §10.5(1)
fn a_message_that_is_stored_after_all_is_queued_and_sent() {
    let mut bench = asked_and_unsaved();
    bench.answer(0, &TAKEN);
    bench.pass(STORE_RETRY);
    assert!(bench.stored(true));
    assert_eq!(
        bench.notices(),
        [
            Notice::Queued(ID),
            Notice::Held {
                id: ID,
                holders: 1,
                wanted: 2
            }
        ]
    );
    assert_eq!(bench.listed(), [(1, 2)]);
}

#[test] // §10.5(1)
fn a_holder_without_a_sealed_record_still_counts_as_wanted() {
    let mut bench = Bench::new(Network::local());
    bench.send();
    bench.drive();
    bench.find(3);
    bench.with(|outbox, cx, post| outbox.advance(cx, post, ID));
    assert!(bench.stored(false), "while it is sealed for one of three");
    (0..3).for_each(|number| bench.answer(number, &TAKEN)); // only one of them was asked
    assert_eq!(bench.notices(), [IN_DOUBT], "one holder is not enough");
    assert_eq!(bench.listed(), [(1, 2)]);

    bench.pass(STORE_RETRY);
    let mut restarted = restarted(&bench);
    let wanted = |bench: &mut Bench| {
        bench.with(|outbox, cx, _| outbox.entries[&ID].delivery.wanted(&cx.network.params))
    };
    assert_eq!(
        wanted(&mut restarted),
        2,
        "the profile does not say how many there are, so none is left out"
    );
    restarted.find(1);
    assert_eq!(wanted(&mut restarted), 1);
}

#[test] // §10.5(1)
fn a_message_that_leaves_because_the_store_fails_is_reported() {
    let mut bench = held_by_two_before();
    bench.find(4);
    (0..2).for_each(|_| bench.drive());
    assert!(bench.stored(false));
    assert_eq!((bench.notices(), bench.listed()), (vec![HELD], vec![]));
}

#[test] // §10.5(1)
fn a_store_that_fails_does_not_bring_the_next_attempt_forward() {
    let mut network = Network::local();
    network.params.retry_base = Duration::from_secs(60);
    network.params.retry_max = Duration::from_secs(60);
    for is_flushed in [false, true] {
        let mut bench = Bench::new(network.clone());
        bench.send();
        bench.drive();
        assert!(bench.stored(true));
        bench.find(2);
        (0..2).for_each(|_| bench.drive());
        (0..2).for_each(|number| bench.answer(number, &FULL));
        bench.drive();
        let notices = bench.notices();
        let [
            Notice::Queued(ID),
            Notice::Deferred {
                id: ID, retry_in, ..
            },
        ] = notices[..]
        else {
            panic!("{notices:?}")
        };
        let due_at = bench.now + retry_in;
        assert!(bench.stored(false), "as it was sealed");
        if is_flushed {
            bench.with(|outbox, cx, _| outbox.flush(cx));
        }
        let told_at = if is_flushed { bench.now } else { due_at };
        bench.pass(STORE_RETRY);
        assert!(bench.stored(true));
        assert_eq!(bench.outbox.entries[&ID].stage, Stage::Waiting(told_at));
    }
}
