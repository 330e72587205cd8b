//! Each verb: the requests that are granted, and those that are refused (docs/protocol.md §10.2).

use super::*;
use crate::crypto::puzzle;
use crate::inbox::mailbox::{FETCH_BYTES_MAX, FETCH_BYTES_ONE_CELL};

const FULL: [MailboxReply; 1] = [MailboxReply::Refused(Refusal::Full)];
const DEPOSITED: [MailboxReply; 1] = [MailboxReply::Deposited];

#[test] // §10.2(3)
fn a_queue_is_created_once_and_belongs_to_its_keys() {
    let mut world = World::new();
    let request = world.ask(OWNER, create(1));
    let again = world.ask(OWNER, create(1));
    assert!(world.answers(request).is_empty(), "not yet durable");
    world.store_all();
    assert_eq!(world.answers(request), [MailboxReply::Created]);
    assert_eq!(world.answers(again), [MailboxReply::Created]);
    assert_eq!(world.done(OWNER, create(1)), [MailboxReply::Created]);
    let other = Verb::Create {
        nonce: nonce(1),
        owner: key(OWNER).public(),
        sender: key(21).public(),
        kind: QueueKind::Contact,
    };
    assert_eq!(world.done(OWNER, other), refused(Refusal::Taken));
    assert_eq!(world.done(SENDER, create(2)), refused(Refusal::Signature));
    assert_eq!(world.disk.queues.len(), 1);
}

#[test] // §10.1(1): a contact, who knows a queue's name, can't have it once it is forgotten
fn nobody_else_can_make_a_queue() {
    let mut world = World::new();
    let anothers = Verb::Create {
        nonce: nonce(1),
        owner: key(11).public(),
        sender: key(SENDER).public(),
        kind: QueueKind::Contact,
    };
    assert_ne!(anothers.queue(), queue(1));
    assert_eq!(world.done(11, anothers), [MailboxReply::Created]);
    let deposit = world.done(SENDER, deposit(1, record(1, 0)));
    assert_eq!(deposit, refused(Refusal::NoQueue));
    assert_eq!(world.done(11, create(1)), refused(Refusal::Signature));
}

#[test] // §10.2(3)
fn a_queue_that_could_not_be_stored_is_not_there() {
    let mut world = World::new();
    let request = world.ask(OWNER, create(1));
    assert_eq!(
        world.done_failing(SENDER, deposit(1, record(1, 0))),
        refused(Refusal::Busy)
    );
    world.fail_all();
    assert_eq!(world.answers(request), refused(Refusal::Store));
    assert_eq!(
        world.done(SENDER, deposit(1, record(1, 0))),
        refused(Refusal::NoQueue)
    );
    assert_eq!(world.done(OWNER, create(1)), [MailboxReply::Created]);
}

#[test] // §10.2(4)
fn a_deposit_is_answered_when_it_is_durable_and_not_before() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(SENDER, deposit(1, record(1, 0)));
    assert!(world.answers(request).is_empty());
    world.store_one(false);
    assert_eq!(world.answers(request), DEPOSITED);
    let failing = world.ask(SENDER, deposit(1, record(2, 0)));
    world.store_one(true);
    assert_eq!(world.answers(failing), refused(Refusal::Store));
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![1], false)
    );
    assert_eq!(world.done(SENDER, deposit(1, record(2, 0))), DEPOSITED);
}

#[test] // §10.2(2)
fn a_deposit_needs_queue_key_circuit_and_length() {
    let mut world = World::with_queue(HolderLimits::default());
    assert_eq!(
        world.done(SENDER, deposit(2, record(1, 0))),
        refused(Refusal::NoQueue)
    );
    assert_eq!(
        world.done(OWNER, deposit(1, record(1, 0))),
        refused(Refusal::Signature)
    );
    let elsewhere = world.ask_on(&Binding([9; 32]), SENDER, deposit(1, record(1, 0)));
    assert_eq!(world.answers(elsewhere), refused(Refusal::Signature));
    for len in [
        0,
        1,
        RECORD_LENS[0] - 1,
        RECORD_LENS[0] + 1,
        RECORD_LENS[3] + 1,
    ] {
        assert_eq!(
            world.done(SENDER, deposit(1, vec![1; len].into())),
            refused(Refusal::RecordLen),
            "{len}"
        );
    }
    for bucket in 0..RECORD_LENS.len() {
        assert_eq!(world.done(SENDER, deposit(1, record(1, bucket))), DEPOSITED);
    }
}

#[test] // §10.1(4)
fn a_record_is_taken_once_also_after_it_was_removed() {
    let mut world = World::with_queue(HolderLimits::default());
    let (first, second) = (
        world.ask(SENDER, deposit(1, record(1, 0))),
        world.ask(SENDER, deposit(1, record(1, 0))),
    );
    assert_eq!(world.asked.len(), 1);
    assert!(world.answers(second).is_empty());
    world.store_all();
    assert_eq!(
        (world.answers(first), world.answers(second)),
        (DEPOSITED.to_vec(), DEPOSITED.to_vec())
    );
    let stored = world.ask(SENDER, deposit(1, record(1, 0)));
    assert!(world.asked.is_empty());
    assert_eq!(world.answers(stored), DEPOSITED);
    world.done(OWNER, fetch(1, vec![id(1)], 0));
    assert_eq!(world.done(SENDER, deposit(1, record(1, 0))), DEPOSITED);
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX))[0]),
        (vec![], false)
    );
    world.crash();
    assert_eq!(world.done(SENDER, deposit(1, record(1, 0))), DEPOSITED);
    assert_eq!(world.holder.counts().records, 0);
}

#[test] // §10.1(7)
fn quotas_refuse_and_removal_makes_room() {
    let one = RECORD_LENS[0] as u64;
    let cases = [
        HolderLimits {
            contact: records(2),
            ..HolderLimits::default()
        },
        HolderLimits {
            contact: QueueLimits {
                bytes_max: 2 * one,
                ..QueueLimits::default()
            },
            ..HolderLimits::default()
        },
        HolderLimits {
            records_max: 2,
            ..HolderLimits::default()
        },
        HolderLimits {
            bytes_max: 2 * one,
            ..HolderLimits::default()
        },
    ];
    for limits in cases {
        let mut world = World::with_queue(limits);
        assert_eq!(world.done(SENDER, deposit(1, record(1, 0))), DEPOSITED);
        assert_eq!(world.done(SENDER, deposit(1, record(2, 0))), DEPOSITED);
        assert_eq!(
            world.done(SENDER, deposit(1, record(3, 0))),
            FULL,
            "{limits:?}"
        );
        assert_eq!(
            world.done(SENDER, deposit(1, record(2, 0))),
            DEPOSITED,
            "what is there is there"
        );
        world.done(OWNER, fetch(1, vec![id(1)], 0));
        assert_eq!(world.done(SENDER, deposit(1, record(3, 0))), DEPOSITED);
    }
    let mut world = World::with_queue(HolderLimits {
        queues_max: 1,
        ..HolderLimits::default()
    });
    assert_eq!(world.done(OWNER, create(2)), FULL);
}

#[test] // §10.1(4): other queues keep what they remember
fn ids_of_removed_records_are_bounded() {
    let mut world = World::with_queue(HolderLimits {
        contact: records(2),
        ..HolderLimits::default()
    });
    for number in 1..=3 {
        world.done(SENDER, deposit(1, record(number, 0)));
        world.done(OWNER, fetch(1, vec![id(number)], 0));
        world.pass(HOUR);
    }
    assert_eq!(world.holder.counts().removed, 2);
    assert_eq!(world.disk.snapshot()[0].removed.len(), 2);
    world.ask(SENDER, deposit(1, record(3, 0)));
    assert!(world.asked.is_empty(), "known");
    world.ask(SENDER, deposit(1, record(1, 0)));
    assert_eq!(
        world.asked.len(),
        1,
        "forgotten first: it would have expired first"
    );
}

#[test] // §10.1(7)
fn too_much_waiting_is_busy_and_passes() {
    let limits = HolderLimits {
        pending_ops_max: 3,
        ..HolderLimits::default()
    };
    let mut world = World::with_queue(limits);
    let waiting: Vec<_> = (1..=3)
        .map(|number| world.ask(SENDER, deposit(1, record(number, 0))))
        .collect();
    let busy = world.ask(SENDER, deposit(1, record(4, 0)));
    assert_eq!(world.answers(busy), refused(Refusal::Busy));
    let busy = world.ask(OWNER, fetch(1, vec![], FETCH_BYTES_MAX));
    assert_eq!(world.answers(busy), refused(Refusal::Busy));
    world.store_all();
    assert!(
        waiting
            .into_iter()
            .all(|request| world.answers(request) == DEPOSITED)
    );
    assert_eq!(world.done(SENDER, deposit(1, record(4, 0))), DEPOSITED);

    let limits = HolderLimits {
        pending_bytes_max: RECORD_LENS[0] + 1,
        ..HolderLimits::default()
    };
    let mut world = World::with_queue(limits);
    world.ask(SENDER, deposit(1, record(1, 0)));
    let busy = world.ask(SENDER, deposit(1, record(2, 0)));
    assert_eq!(world.answers(busy), refused(Refusal::Busy));
}

#[test] // §10.2(5), §10.1(3)
fn a_fetch_removes_and_then_returns_the_oldest_that_fit() {
    let mut world = World::with_queue(HolderLimits::default());
    for number in 1..=4 {
        world.done(SENDER, deposit(1, record(number, 0)));
    }
    let mut numbers_of = |remove: &[u8], bytes_max| {
        let remove = remove.iter().map(|&number| id(number)).collect();
        numbers(&world.done(OWNER, fetch(1, remove, bytes_max))[0])
    };
    assert_eq!(numbers_of(&[], FETCH_BYTES_MAX), (vec![1, 2, 3, 4], false));
    assert_eq!(numbers_of(&[], FETCH_BYTES_ONE_CELL), (vec![1], true));
    assert_eq!(numbers_of(&[], 1), (vec![1], true), "one at least");
    assert_eq!(
        numbers_of(&[], 2 * FETCH_BYTES_ONE_CELL),
        (vec![1, 2], true)
    );
    assert_eq!(
        numbers_of(&[1, 3, 99], FETCH_BYTES_ONE_CELL),
        (vec![2], true),
        "unknown ids are no error"
    );
    assert_eq!(numbers_of(&[], 0), (vec![], true), "asks for nothing");
    assert_eq!(numbers_of(&[2, 4], u32::MAX), (vec![], false));
    assert_eq!(
        (world.holder.counts().records, world.disk.records.len()),
        (0, 0)
    );
}

#[test] // §10.2(5)
fn a_fetch_is_for_the_owner_and_never_exceeds_a_frame() {
    let mut world = World::with_queue(HolderLimits::default());
    assert_eq!(
        world.done(SENDER, fetch(1, vec![], 9)),
        refused(Refusal::Signature)
    );
    assert_eq!(
        world.done(OWNER, fetch(2, vec![], 9)),
        refused(Refusal::NoQueue)
    );
    for number in 1..=3 {
        world.done(SENDER, deposit(1, record(number, 3)));
    }
    let reply = world.done(OWNER, fetch(1, vec![], u32::MAX)).remove(0);
    assert_eq!(
        numbers(&reply),
        (vec![1], true),
        "two of the longest don't fit a frame"
    );
    assert!(reply.encode().len() <= FETCH_BYTES_MAX as usize);
}

#[test] // §10.2(5): a request is answered from the contents at its time
fn ops_are_asked_in_order() {
    let mut world = World::with_queue(HolderLimits::default());
    world.done(SENDER, deposit(1, record(1, 0)));
    let reading = world.ask(OWNER, fetch(1, vec![], FETCH_BYTES_MAX));
    let storing = world.ask(SENDER, deposit(1, record(2, 0)));
    let removing = world.ask(OWNER, fetch(1, vec![id(1), id(2)], FETCH_BYTES_MAX));
    assert_eq!(
        world
            .answers(removing)
            .iter()
            .map(numbers)
            .collect::<Vec<_>>(),
        [(vec![], false)]
    );
    world.store_all();
    assert_eq!(numbers(&world.answers(reading)[0]), (vec![1], false));
    assert_eq!(world.answers(storing), DEPOSITED);
    let left = world.done(OWNER, fetch(1, vec![], FETCH_BYTES_MAX));
    assert_eq!(
        numbers(&left[0]),
        (vec![2], false),
        "its owner can't have had it: it was not durable"
    );
}

#[test] // §10.2(5)
fn a_failed_read_is_reported() {
    let mut world = World::with_queue(HolderLimits::default());
    world.done(SENDER, deposit(1, record(1, 0)));
    assert_eq!(
        world.done_failing(OWNER, fetch(1, vec![], 9)),
        refused(Refusal::Store)
    );
    assert_eq!(
        numbers(&world.done(OWNER, fetch(1, vec![], 9))[0]),
        (vec![1], false)
    );
}

#[test] // §10.4(5)
fn a_puzzle_is_asked_where_the_limits_say_so() {
    let limits = HolderLimits {
        puzzle_effort: 4,
        puzzle_checks_per_second: 20,
        ..HolderLimits::default()
    };
    let mut world = World::with_queue(limits);
    let solve = |epoch| puzzle::solve(&puzzle::deposit_challenge(&queue(1), &id(1), epoch), 4, 0);
    let with = |puzzle| Verb::Deposit {
        queue: queue(1),
        record: record(1, 0),
        puzzle,
    };
    let epoch = world.wall.epoch();
    let solves = |nonce| {
        [epoch, crate::time::Epoch(epoch.0 - 1)]
            .iter()
            .any(|&epoch| {
                puzzle::verify(
                    &puzzle::deposit_challenge(&queue(1), &id(1), epoch),
                    4,
                    nonce,
                )
            })
    };
    let wrong = (0..).find(|&nonce| !solves(nonce)).unwrap();
    for _ in 0..20 {
        assert_eq!(world.done(SENDER, with(wrong)), refused(Refusal::Puzzle));
    }
    assert_eq!(
        world.done(SENDER, with(solve(epoch))),
        refused(Refusal::Busy),
        "checks are bounded"
    );
    world.pass(1);
    assert_eq!(world.done(SENDER, with(solve(epoch))), DEPOSITED);
    assert_eq!(
        world.done(SENDER, with(wrong)),
        DEPOSITED,
        "held already: no work"
    );
}

#[test] // §10.2(7)
fn a_cancelled_request_is_finished_but_not_answered() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(SENDER, deposit(1, record(1, 0)));
    world.holder.cancel(request);
    world.store_all();
    assert!(world.answers(request).is_empty());
    assert_eq!(
        (world.disk.records.len(), world.holder.counts().waiting),
        (1, 0)
    );
}

impl World {
    fn done_failing(&mut self, by: u8, verb: Verb) -> Vec<MailboxReply> {
        let request = self.ask(by, verb);
        if self.answers_wait(request) {
            self.fail_all();
        }
        self.answers(request)
    }

    fn answers_wait(&self, request: RequestId) -> bool {
        self.replies.get(&request).is_none_or(Vec::is_empty)
    }
}
