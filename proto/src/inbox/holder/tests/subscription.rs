//! Subscriptions (docs/protocol.md §10.2).

use super::*;
use crate::inbox::mailbox::FETCH_BYTES_MAX;
use crate::limits::PUSH_WINDOW_BYTES;

#[test] // §10.2
fn what_is_there_comes_first_and_what_is_new_comes_once() {
    let mut world = World::with_queue(HolderLimits::default());
    world.done(SENDER, deposit(1, record(1, 0)));
    let request = world.ask(OWNER, subscribe(1, 0));
    world.store_all();
    assert_eq!(world.pushes(request), [(vec![1], false)]);
    world.done(SENDER, deposit(1, record(2, 0)));
    world.done(SENDER, deposit(1, record(2, 0)));
    assert_eq!(world.pushes(request), [(vec![2], false)]);
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![1, 2], false),
        "they stay"
    );
    assert!(!world.is_finished(request));
}

#[test] // §10.2
fn an_empty_queue_is_reported_at_once() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 5000));
    assert_eq!(world.pushes(request), [(vec![], false)]);
    assert_eq!(
        world.done(SENDER, subscribe(1, 0)),
        refused(Refusal::Signature)
    );
    assert_eq!(
        world.done(OWNER, subscribe(2, 0)),
        refused(Refusal::NoQueue)
    );
}

#[test] // §10.2
fn a_push_waits_around_the_mean_and_takes_all_that_came() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 2000));
    world.pushes(request);
    let mut delays = Vec::new();
    for number in 0..100 {
        world.done(SENDER, deposit(1, record(2 * number, 0)));
        world.done(SENDER, deposit(1, record(2 * number + 1, 0)));
        assert!(world.pushes(request).is_empty());
        let (due_at, timer) = world.holder.poll_timeout();
        assert_eq!(timer, Timer::Push);
        let due = due_at.since(world.now);
        delays.push(due.as_millis());
        world.pass(10);
        assert_eq!(
            world.pushes(request),
            [(vec![2 * number, 2 * number + 1], false)]
        );
        world.done(OWNER, fetch(1, vec![id(2 * number), id(2 * number + 1)], 0));
    }
    let mean = delays.iter().sum::<u128>() / delays.len() as u128;
    assert!(
        (1500..2500).contains(&mean) && delays.iter().all(|&delay| delay <= 10_000),
        "{mean} {delays:?}"
    );
}

#[test] // §10.2
fn a_newer_subscription_ends_the_older() {
    let mut world = World::with_queue(HolderLimits::default());
    let older = world.ask(OWNER, subscribe(1, 1000));
    world.done(SENDER, deposit(1, record(1, 0)));
    let newer = world.ask(OWNER, subscribe(1, 1000));
    assert!(world.is_finished(older));
    assert_eq!(
        world.answers(older).last(),
        Some(&MailboxReply::Refused(Refusal::Replaced))
    );
    world.store_all();
    assert_eq!(
        world.pushes(newer),
        [(vec![1], false)],
        "from the beginning"
    );
    world.pass(60);
    assert!(world.pushes(newer).is_empty() && world.answers(older).is_empty());
    assert_eq!(world.holder.counts().subscriptions, 1);
}

#[test] // §10.2
fn a_read_for_an_older_subscription_is_no_push_of_the_newer() {
    let mut world = World::with_queue(HolderLimits::default());
    world.done(SENDER, deposit(1, record(1, 0)));
    let older = world.ask(OWNER, subscribe(1, 0));
    let newer = world.ask(OWNER, subscribe(1, 0));
    world.store_all();
    assert_eq!(world.answers(older), refused(Refusal::Replaced));
    assert_eq!(world.pushes(newer), [(vec![1], false)]);
}

#[test] // §10.2
fn a_cancelled_subscription_is_pushed_nothing() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 1000));
    world.pushes(request);
    world.done(SENDER, deposit(1, record(1, 0)));
    world.holder.cancel(request);
    world.pass(60);
    assert!(world.pushes(request).is_empty());
    assert_eq!(
        (
            world.holder.counts().subscriptions,
            world.holder.counts().waiting
        ),
        (0, 0)
    );
}

#[test] // §10.2: removal is the credit
fn pushes_stop_at_the_window_until_records_are_removed() {
    let mut world = World::with_queue(HolderLimits::default());
    for number in 1..=5 {
        world.done(SENDER, deposit(1, record(number, 3)));
    }
    let request = world.ask(OWNER, subscribe(1, 0));
    world.store_all();
    let pushed = world.pushes(request);
    assert_eq!(pushed, [(vec![1], true), (vec![2], true), (vec![3], true)]);
    let bytes: usize = pushed
        .iter()
        .map(|(records, _)| records.len() * RECORD_LENS[3])
        .sum();
    assert!(bytes <= PUSH_WINDOW_BYTES && bytes + RECORD_LENS[3] > PUSH_WINDOW_BYTES);
    world.done(SENDER, deposit(1, record(6, 3)));
    world.pass(600);
    assert!(world.pushes(request).is_empty());
    world.done(
        OWNER,
        fetch(
            1,
            vec![record_id(&record(1, 3)), record_id(&record(2, 3))],
            0,
        ),
    );
    assert_eq!(world.pushes(request), [(vec![4], true), (vec![5], true)]);
    world.done(
        OWNER,
        fetch(
            1,
            (3..=5)
                .map(|number| record_id(&record(number, 3)))
                .collect(),
            0,
        ),
    );
    assert_eq!(world.pushes(request), [(vec![6], false)]);
}

#[test] // §10.2, §10.1(5)
fn what_was_removed_before_its_push_is_not_pushed() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 1000));
    world.pushes(request);
    world.done(SENDER, deposit(1, record(1, 0)));
    world.done(OWNER, fetch(1, vec![id(1)], 0));
    world.pass(60);
    assert!(world.pushes(request).is_empty());
}

#[test] // §10.2
fn a_failed_read_ends_the_subscription() {
    let mut world = World::with_queue(HolderLimits::default());
    world.done(SENDER, deposit(1, record(1, 0)));
    let request = world.ask(OWNER, subscribe(1, 0));
    world.fail_all();
    assert!(world.is_finished(request));
    assert_eq!(world.answers(request), refused(Refusal::Store));
    assert_eq!(world.holder.counts().subscriptions, 0);
}

#[test] // §10.2
fn a_push_that_finds_the_store_busy_comes_later() {
    let mut world = World::with_queue(HolderLimits {
        pending_ops_max: 3,
        ..HolderLimits::default()
    });
    let request = world.ask(OWNER, subscribe(1, 1));
    world.pushes(request);
    for number in 1..=3 {
        world.ask(SENDER, deposit(1, record(number, 0)));
    }
    world.store_one(false);
    world.ask(SENDER, deposit(1, record(4, 0)));
    world.pass(5);
    let pushed: Vec<u8> = world
        .pushes(request)
        .into_iter()
        .flat_map(|(records, _)| records)
        .collect();
    assert_eq!(pushed, [1, 2, 3, 4]);
}

#[test] // §10.2(6)
fn without_a_delay_a_record_is_pushed_before_it_is_durable() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 0));
    world.pushes(request);
    let depositing = world.ask(SENDER, deposit(1, record(1, 0)));
    assert_eq!(world.pushes(request), [(vec![1], false)]);
    assert_eq!(world.answers(depositing), []);
    world.store_all();
    assert_eq!(world.answers(depositing), [MailboxReply::Deposited]);
    assert_eq!(world.pushes(request), [], "once is enough");
    world.done(OWNER, fetch(1, vec![id(1)], 0));
    assert_eq!(world.holder.counts().records, 0);
}

#[test] // §10.2(6)
fn with_a_delay_no_record_is_pushed_before_it_is_durable() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 1));
    world.pushes(request);
    world.ask(SENDER, deposit(1, record(1, 0)));
    assert_eq!(world.pushes(request), []);
}

#[test] // §10.2(5)
fn a_pushed_record_may_be_removed_before_it_is_durable() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 0));
    let depositing = world.ask(SENDER, deposit(1, record(1, 0)));
    world.pushes(request);
    let removing = world.ask(OWNER, fetch(1, vec![id(1)], 0));
    assert_eq!(numbers(&world.answers(removing)[0]), (vec![], false));
    let again = world.ask(SENDER, deposit(1, record(1, 0)));
    world.store_one(false);
    assert_eq!(world.answers(depositing), [MailboxReply::Deposited]);
    assert_eq!(
        world.answers(again),
        [],
        "that it was removed is not yet durable"
    );
    world.store_all();
    assert_eq!(
        world.answers(again),
        [MailboxReply::Deposited],
        "its owner has it"
    );
    assert!(world.disk.records.is_empty() && world.holder.snapshot() == world.disk.snapshot());
    assert_eq!(world.pushes(request), []);
}

#[test] // §10.2(6)
fn a_pushed_record_that_was_not_stored_may_be_deposited_again() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 0));
    world.pushes(request);
    let failing = world.ask(SENDER, deposit(1, record(1, 3)));
    world.fail_all();
    assert_eq!(world.answers(failing), refused(Refusal::Store));
    for number in 2..=4 {
        assert_eq!(
            world.done(SENDER, deposit(1, record(number, 3))),
            [MailboxReply::Deposited]
        );
    }
    let pushed = [
        (vec![1], false),
        (vec![2], false),
        (vec![3], false),
        (vec![4], false),
    ];
    assert_eq!(
        world.pushes(request),
        pushed,
        "what could not be stored takes no room"
    );
}

#[test] // §10.2(6)
fn a_relay_that_dies_between_a_push_and_the_disk_takes_the_record_again() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 0));
    let depositing = world.ask(SENDER, deposit(1, record(1, 0)));
    assert_eq!(world.pushes(request).last(), Some(&(vec![1], false)));
    assert_eq!(
        world.answers(depositing),
        [],
        "so its sender goes on trying"
    );
    world.crash();
    assert_eq!(
        world.done(SENDER, deposit(1, record(1, 0))),
        [MailboxReply::Deposited]
    );
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![1], false)
    );
}

#[test] // §10.2(6): a push that waits only for room continues as soon as there is some
fn a_record_that_could_not_be_stored_gives_its_room_to_what_waits() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 0));
    world.pushes(request);
    for (number, bucket) in [(1, 3), (2, 3), (3, 1), (4, 1), (5, 0)] {
        world.done(SENDER, deposit(1, record(number, bucket)));
    }
    assert_eq!(world.pushes(request).len(), 5);
    world.ask(SENDER, deposit(1, record(6, 3)));
    world.ask(SENDER, deposit(1, record(7, 0)));
    assert_eq!(
        world.pushes(request),
        [(vec![7], false)],
        "the window has room for this one only"
    );
    world.store_one(false);
    world.ask(OWNER, fetch(1, vec![id(5)], 0));
    assert_eq!(
        world.holder.counts().pending_ops,
        2,
        "to store 7 and to remove 5: 6 still has no room"
    );
    world.store_one(true);
    world.store_all();
    assert_eq!(world.pushes(request), [(vec![6], false)]);
}

#[test] // §10.2(5)
fn an_unpushed_record_outlives_a_removal_before_it_is_durable() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, subscribe(1, 1000));
    assert_eq!(world.pushes(request), [(vec![], false)]);
    let depositing = world.ask(SENDER, deposit(1, record(1, 0)));
    world.ask(OWNER, fetch(1, vec![id(1)], 0));
    world.store_all();
    assert_eq!(world.answers(depositing), [MailboxReply::Deposited]);
    assert_eq!(world.disk.records.len(), 1);
    world.pass(60);
    assert_eq!(world.pushes(request), [(vec![1], false)]);
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![1], false)
    );
}

#[test] // §10.2(5): records pushed to an older subscription don't count for the new one
fn a_record_pushed_on_a_subscription_that_ended_stays_until_it_is_durable() {
    let mut world = World::with_queue(HolderLimits::default());
    let older = world.ask(OWNER, subscribe(1, 0));
    world.ask(SENDER, deposit(1, record(1, 0)));
    assert_eq!(world.pushes(older).last(), Some(&(vec![1], false)));
    world.ask(OWNER, subscribe(1, 0));
    world.ask(OWNER, fetch(1, vec![id(1)], 0));
    world.store_all();
    assert_eq!(world.disk.records.len(), 1);
}

#[test] // §10.1(4): neither the record nor its id is on the disk
fn a_repeat_of_a_record_that_was_not_stored_is_not_acknowledged() {
    let mut world = World::with_queue(HolderLimits::default());
    world.ask(OWNER, subscribe(1, 0));
    let depositing = world.ask(SENDER, deposit(1, record(1, 0)));
    world.ask(OWNER, fetch(1, vec![id(1)], 0));
    let again = world.ask(SENDER, deposit(1, record(1, 0)));
    world.fail_all();
    assert_eq!(
        (world.answers(depositing), world.answers(again)),
        (refused(Refusal::Store), refused(Refusal::Store))
    );
    assert_eq!(
        world.done(SENDER, deposit(1, record(1, 0))),
        refused(Refusal::Store)
    );
    world.pass(HOUR);
    assert_eq!(world.disk.removed.len(), 1, "a sweep makes up for it");
    assert_eq!(
        world.done(SENDER, deposit(1, record(1, 0))),
        [MailboxReply::Deposited]
    );
    assert!(world.disk.records.is_empty());
}
