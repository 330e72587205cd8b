//! Messages have places, and begin one after the other.

use super::*;

#[test]
fn messages_that_enough_have_give_way() {
    let state = held_by_two_before().outbox.entries[&ID].delivery.state();
    let mut bench = Bench::new(Network::local());
    let id = |number| MessageId([number; 16]);
    let to = Recipient::OneWay(*InboxIdentity::from_seed(&[3; 32]).address());
    bench.with(|outbox, cx, _| {
        (10..30).for_each(|number| {
            outbox
                .restore(cx, id(number), &state)
                .expect("it is the same");
        });
        while let Some(due) = outbox.next_due(cx.now) {
            outbox.waiting.remove(&due);
            outbox.begin(cx, due.2);
        }
        assert_eq!(outbox.active.len(), ACTIVE_FOR_MORE_MAX);
        for number in 40..50 {
            outbox.send(cx, id(number), to.clone(), vec![7; 100], None);
        }
        assert_eq!(outbox.next_due(cx.now).map(|(_, _, id)| id), Some(id(40)));
        outbox.active.clear();
        let mut begun = Vec::new();
        while let Some(due) = outbox.next_due(cx.now) {
            outbox.waiting.remove(&due);
            outbox.begin(cx, due.2);
            begun.push(due.2);
        }
        assert_eq!(
            begun,
            [(40..48).map(id).collect(), vec![id(14)]].concat(),
            "one has a place of its own"
        );
    });
}

#[test]
fn a_place_that_becomes_free_is_taken_at_once() {
    let mut bench = Bench::new(Network::local());
    bench.send();
    let state = bench.outbox.entries[&ID].delivery.state();
    let mut bench = Bench::new(Network::local());
    for number in 0..30 {
        bench
            .with(|outbox, cx, _| outbox.restore(cx, MessageId([number; 16]), &state))
            .expect("it is the same");
    }
    // The view is empty: no inbox is found, and each attempt ends as soon as it is looked at.
    let mut drives = 0;
    while bench.outbox.timeout(bench.now) == Some(bench.now) {
        bench.drive();
        drives += 1;
        assert!(drives < 10, "each takes eight");
    }
    assert!(drives > 1);
    let deferred = bench
        .notices()
        .iter()
        .filter(|notice| matches!(notice, Notice::Deferred { .. }))
        .count();
    assert_eq!(deferred + bench.outbox.active.len(), 30, "each was begun");
}

#[test]
fn messages_of_an_outbox_begin_one_after_the_other() {
    let state = {
        let mut bench = Bench::new(unhurried());
        bench.send();
        bench.outbox.entries[&ID].delivery.state()
    };
    let mut bench = Bench::new(unhurried());
    for number in 0..8 {
        bench
            .with(|outbox, cx, _| outbox.restore(cx, MessageId([number; 16]), &state))
            .expect("it is read");
    }
    let due = |bench: &mut Bench| {
        bench.with(|outbox, cx, _| outbox.waiting.drain().filter(|due| due.0 <= cx.now).count())
    };
    assert_eq!(due(&mut bench), 1);
    let mut bench = Bench::new(unhurried());
    for number in 0..8 {
        bench
            .with(|outbox, cx, _| outbox.restore(cx, MessageId([number; 16]), &state))
            .expect("it is read");
    }
    bench.with(|outbox, cx, _| outbox.flush(cx));
    assert_eq!(due(&mut bench), 1, "though all of them are asked for");
}

#[test] // §10.5(2)
fn a_queue_that_is_named_twice_gets_one_copy() {
    let mut bench = Bench::new(Network::local());
    bench.send();
    let descriptor = InboxDescriptor {
        revision: 1,
        seal_key: SealSecret::from_seed(&[4; 32]).public(),
        mailboxes: vec![mailbox(0), mailbox(0)],
        puzzle_effort: 0,
    };
    bench.with(|outbox, cx, _| {
        outbox.waiting = Waiting::default();
        outbox.begin(cx, ID);
        let route = Route::one_way(&descriptor, &cx.network.params);
        outbox.aim(cx, ID, route);
    });
    (0..5).for_each(|_| bench.drive());
    bench.stored(true);
    (0..5).for_each(|_| bench.answer(0, &TAKEN));
    bench.pass(Duration::from_secs(3600));
    bench.stored(true);
    let now = bench.now;
    assert_eq!(bench.with(|outbox, _, _| outbox.busy_count(now)), 0);
}
