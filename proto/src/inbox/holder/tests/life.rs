//! Expiry and restarts (docs/protocol.md §10.1).

use std::collections::BTreeSet;

use super::*;
use crate::inbox::mailbox::FETCH_BYTES_MAX;

fn days(count: u64) -> HolderLimits {
    HolderLimits {
        record_life: Duration::from_secs(count * DAY),
        queue_life: Duration::from_secs(4 * count * DAY),
        ..HolderLimits::default()
    }
}

#[test] // §10.1
fn a_record_goes_a_day_after_its_life_and_is_served_until_then() {
    let mut world = World::with_queue(days(2));
    world.done(SENDER, deposit(1, record(1, 0)));
    world.pass(3 * DAY - 1);
    assert_eq!(
        (world.holder.counts().records, world.disk.records.len()),
        (1, 1)
    );
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![1], false)
    );
    world.pass(HOUR + 15 * 60 + 1);
    assert_eq!(
        (world.holder.counts().records, world.disk.records.len()),
        (0, 0)
    );
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![], false)
    );
    world.ask(SENDER, deposit(1, record(1, 0)));
    assert_eq!(world.asked.len(), 1, "taken anew");
}

#[test] // §10.1
fn ids_of_removed_records_are_kept_until_those_would_have_expired() {
    let mut world = World::with_queue(days(2));
    world.done(SENDER, deposit(1, record(1, 0)));
    world.done(OWNER, fetch(1, vec![id(1)], 0));
    world.pass(3 * DAY - 1);
    assert_eq!(
        (world.holder.counts().removed, world.disk.removed.len()),
        (1, 1)
    );
    world.pass(2 * HOUR);
    assert_eq!(
        (world.holder.counts().removed, world.disk.removed.len()),
        (0, 0)
    );
}

#[test] // §10.1
fn a_queue_expires_when_its_owner_stays_away() {
    let mut world = World::with_queue(days(2));
    assert_eq!(world.done(OWNER, create(2)), [MailboxReply::Created]);
    for _ in 0..3 {
        world.pass(3 * DAY + HOUR);
        world.done(OWNER, fetch(2, vec![], 0));
        world.done(SENDER, deposit(1, record(1, 0)));
    }
    assert_eq!(world.disk.queues.keys().collect::<Vec<_>>(), [&queue(2)]);
    assert_eq!(
        world.done(SENDER, deposit(1, record(1, 0))),
        refused(Refusal::NoQueue)
    );
    assert_eq!(
        (world.holder.counts().records, world.disk.records.len()),
        (0, 0)
    );
    assert_eq!(world.done(OWNER, create(1)), [MailboxReply::Created]);
}

#[test] // §10.1
fn a_subscriber_is_not_away() {
    let mut world = World::with_queue(days(2));
    let request = world.ask(OWNER, subscribe(1, 0));
    world.pass(30 * DAY);
    assert!(!world.is_finished(request));
    assert_eq!(
        world.done(SENDER, deposit(1, record(1, 0))),
        [MailboxReply::Deposited]
    );
    world.holder.cancel(request);
    world.pass(10 * DAY);
    assert!(world.disk.queues.is_empty());
}

#[test] // §10.1
fn a_queue_that_the_store_could_not_forget_is_tried_again() {
    let mut world = World::with_queue(days(1));
    world.pass(5 * DAY - 2 * HOUR);
    (world.now, world.wall) = (
        world.now + Duration::from_secs(DAY),
        world.wall + Duration::from_secs(DAY),
    );
    world
        .holder
        .handle_timeout(world.now, world.wall, world.wall);
    world.drain();
    assert_eq!(
        world.done_busy(OWNER, create(1)),
        refused(Refusal::Busy),
        "on its way out"
    );
    world.store_one(true);
    assert_eq!(world.disk.queues.len(), 1);
    assert_eq!(
        world.done(SENDER, deposit(1, record(1, 0))),
        refused(Refusal::NoQueue)
    );
    world.pass(HOUR);
    assert!(world.disk.queues.is_empty());
    assert_eq!(world.holder.counts().queues, 0);
}

#[test] // §10.1
fn records_that_the_store_could_not_remove_are_tried_again() {
    let mut world = World::with_queue(days(2));
    world.done(SENDER, deposit(1, record(1, 0)));
    world.ask(OWNER, fetch(1, vec![id(1)], 0));
    world.fail_all();
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![], false),
        "gone for its owner"
    );
    assert_eq!(world.disk.records.len(), 1);
    world.pass(HOUR);
    assert_eq!((world.disk.records.len(), world.disk.removed.len()), (0, 1));
    assert!(world.holder.snapshot() == world.disk.snapshot());
}

#[test] // §10.1
fn a_restart_changes_nothing() {
    let mut world = World::with_queue(days(2));
    for number in 1..=5 {
        world.done(SENDER, deposit(1, record(number, 0)));
    }
    world.done(OWNER, fetch(1, vec![id(2), id(4)], 0));
    let before = world.holder.snapshot();
    let lost = world.ask(SENDER, deposit(1, record(9, 0)));
    world.crash();
    assert!(world.holder.snapshot() == before && world.answers(lost).is_empty());
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![1, 3, 5], false)
    );
    assert_eq!(
        world.done(SENDER, deposit(1, record(6, 0))),
        [MailboxReply::Deposited]
    );
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![1, 3, 5, 6], false)
    );
}

#[test] // §10.1
fn smaller_limits_keep_what_is_there() {
    let mut world = World::with_queue(HolderLimits::default());
    for number in 1..=3 {
        world.done(SENDER, deposit(1, record(number, 0)));
    }
    world.limits.contact = records(1);
    world.crash();
    assert_eq!(world.holder.counts().records, 3);
    assert_eq!(
        world.done(SENDER, deposit(1, record(4, 0))),
        refused(Refusal::Full)
    );
}

#[test] // a sweep of many queues is done in pieces
fn every_queue_is_swept() {
    let mut world = World::with(days(1));
    for number in 0..=255 {
        assert_eq!(world.done(OWNER, create(number)), [MailboxReply::Created]);
    }
    world.pass(5 * DAY + 2 * HOUR);
    assert_eq!(
        (world.holder.counts().queues, world.disk.queues.len()),
        (0, 0)
    );
}

#[test] // §1.6, §10.1
fn a_clock_that_is_wrong_deletes_nothing() {
    let mut world = World::with_queue(days(2));
    world.done(SENDER, deposit(1, record(1, 0)));
    world.done(SENDER, deposit(1, record(2, 0)));
    world.done(OWNER, fetch(1, vec![id(2)], 0));
    let right = world.wall;
    for wrong in [29 * DAY, 400 * DAY] {
        (world.confirmed, world.wall) = (Some(right), right + Duration::from_secs(wrong));
        world.pass(2 * HOUR);
        world.crash();
        world.pass(2 * HOUR);
        assert_eq!(
            (
                world.disk.queues.len(),
                world.disk.records.len(),
                world.disk.removed.len()
            ),
            (1, 1, 1)
        );
        assert_eq!(
            world.done(SENDER, deposit(1, record(1, 0))),
            [MailboxReply::Deposited]
        );
    }
    (world.confirmed, world.wall) = (None, right + Duration::from_secs(DAY));
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![1], false)
    );
    world.pass(2 * DAY + 2 * HOUR);
    assert_eq!(
        world.disk.records.len(),
        0,
        "when the calendar is confirmed, it is deleted by it"
    );
}

#[test] // §10.1
fn where_there_is_no_room_what_has_expired_goes_at_once() {
    let limits = HolderLimits {
        contact: records(2),
        ..days(2)
    };
    let mut world = World::with_queue(limits);
    world.done(SENDER, deposit(1, record(1, 0)));
    world.done(SENDER, deposit(1, record(2, 0)));
    world.pass(2 * DAY - 1);
    assert_eq!(
        world.done(SENDER, deposit(1, record(3, 0))),
        refused(Refusal::Full)
    );
    world.pass(2 * HOUR);
    assert_eq!(world.disk.records.len(), 2, "kept for another day");
    assert_eq!(
        world.done(SENDER, deposit(1, record(3, 0))),
        [MailboxReply::Deposited]
    );
    assert_eq!(world.disk.records.len(), 1);
}

#[test] // §10.1
fn a_relay_that_is_full_looks_for_what_has_expired() {
    let limits = HolderLimits {
        records_max: 2,
        ..days(2)
    };
    let mut world = World::with_queue(limits);
    assert_eq!(world.done(OWNER, create(2)), [MailboxReply::Created]);
    world.done(SENDER, deposit(1, record(1, 0)));
    world.done(SENDER, deposit(1, record(2, 0)));
    world.confirmed = Some(world.wall);
    world.pass(2 * DAY + 2 * HOUR);
    assert_eq!(
        world.done(SENDER, deposit(2, record(3, 0))),
        refused(Refusal::Full)
    );
    world.pass(61);
    assert_eq!(
        world.disk.records.len(),
        2,
        "not by a calendar that is not confirmed"
    );
    world.confirmed = None;
    world.pass(15 * 60);
    assert_eq!(
        world.done(SENDER, deposit(2, record(3, 0))),
        refused(Refusal::Full)
    );
    world.pass(1);
    assert_eq!(world.disk.records.len(), 0);
    assert_eq!(
        world.done(SENDER, deposit(2, record(3, 0))),
        [MailboxReply::Deposited]
    );
}

impl World {
    fn done_busy(&mut self, by: u8, verb: Verb) -> Vec<MailboxReply> {
        let request = self.ask(by, verb);
        self.answers(request)
    }
}

#[test] // §10.1
fn constant_pressure_does_not_keep_the_sweep_from_the_last_queue() {
    let limits = HolderLimits {
        queues_max: 20,
        pending_ops_max: 4,
        ..days(2)
    };
    let mut world = World::with(limits);
    for number in 1..=20 {
        assert_eq!(world.done(OWNER, create(number)), [MailboxReply::Created]);
        world.done(SENDER, deposit(number, record(number, 0)));
    }
    world.confirmed = Some(world.wall);
    world.pass(3 * DAY);
    world.confirmed = None;
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        world.ask(OWNER, create(99));
        world.now = world.now + Duration::from_secs(61);
        world.wall = world.wall + Duration::from_secs(61);
        world
            .holder
            .handle_timeout(world.now, world.wall, world.wall);
        world.drain();
        seen.extend(world.asked.iter().filter_map(|op| match op {
            HolderOp::RemoveRecords { queue, .. } => Some(*queue),
            _ => None,
        }));
        world.fail_all();
    }
    assert_eq!(seen.len(), 20);
}

#[test] // §10.1: found by `model`
fn the_time_of_a_visit_that_could_not_be_stored_is_not_believed() {
    let mut world = World::with_queue(HolderLimits::default());
    world.pass(DAY);
    world.ask(OWNER, subscribe(1, 0));
    let right = world.wall;
    world.wall = right + Duration::from_secs(29 * DAY);
    world.ask(OWNER, fetch(1, vec![], 0));
    world.store_one(true);
    world.store_all();
    world.wall = right;
    assert!(world.holder.snapshot() == world.disk.snapshot());
}

#[test] // §10.1: found by `model`
fn a_full_queue_keeps_what_came_since_the_calendar_was_set_back() {
    let limits = HolderLimits {
        contact: records(1),
        ..days(2)
    };
    let mut world = World::with_queue(limits);
    world.pass(HOUR);
    world.wall = WallTime(world.wall.as_secs() - 3 * DAY);
    world.done(SENDER, deposit(1, record(1, 0)));
    for days_ahead in [0, 29] {
        world.wall = WallTime(world.wall.as_secs() + days_ahead * DAY);
        assert_eq!(
            world.done(SENDER, deposit(1, record(2, 0))),
            refused(Refusal::Full)
        );
        assert_eq!(world.disk.records.len(), 1);
    }
}
