//! What an owner chooses for its queue: for whom it is, what a deposit costs, and its end
//! (docs/protocol.md §10.1(7), §10.2(8), §10.2(9)).

use super::*;
use crate::crypto::puzzle;

const EFFORT: u32 = 8;

fn set_effort(effort: u32) -> Verb {
    Verb::SetEffort {
        queue: queue(1),
        effort,
    }
}

const fn forget(queue: QueueId) -> Verb {
    Verb::Forget { queue }
}

/// A deposit that cost its sender this effort.
fn solved(world: &World, number: u8, effort: u32) -> Verb {
    let challenge = puzzle::deposit_challenge(&queue(1), &id(number), world.wall.epoch());
    Verb::Deposit {
        queue: queue(1),
        record: record(number, 0),
        puzzle: puzzle::solve(&challenge, effort, 0),
    }
}

/// One that solves no puzzle.
fn unsolved(world: &World, number: u8, effort: u32) -> Verb {
    let epoch = world.wall.epoch();
    let solves = |nonce: u64| {
        [epoch, crate::time::Epoch(epoch.0 - 1)]
            .iter()
            .any(|&epoch| {
                let challenge = puzzle::deposit_challenge(&queue(1), &id(number), epoch);
                puzzle::verify(&challenge, effort, nonce)
            })
    };
    Verb::Deposit {
        queue: queue(1),
        record: record(number, 0),
        puzzle: (0..).find(|&nonce| !solves(nonce)).unwrap(),
    }
}

#[test] // §10.1(7)
fn a_public_queue_holds_less_than_a_contacts() {
    let mut world = World::with_queue(HolderLimits {
        public: records(1),
        contact: records(2),
        ..HolderLimits::default()
    });
    let public = Verb::Create {
        nonce: nonce(2),
        owner: key(OWNER).public(),
        sender: key(SENDER).public(),
        kind: QueueKind::Public,
    };
    assert_eq!(world.done(OWNER, public), [MailboxReply::Created]);
    let mut deposited = |queue, number| world.done(SENDER, deposit(queue, record(number, 0)));
    assert_eq!(deposited(2, 1), [MailboxReply::Deposited]);
    assert_eq!(deposited(2, 2), refused(Refusal::Full));
    assert_eq!(deposited(1, 3), [MailboxReply::Deposited]);
    assert_eq!(deposited(1, 4), [MailboxReply::Deposited]);
    assert_eq!(deposited(1, 5), refused(Refusal::Full));
}

#[test] // §10.2(3)
fn a_queue_stays_of_its_kind() {
    let mut world = World::with_queue(HolderLimits::default());
    let other = Verb::Create {
        nonce: nonce(1),
        owner: key(OWNER).public(),
        sender: key(SENDER).public(),
        kind: QueueKind::Public,
    };
    assert_eq!(world.done(OWNER, other), refused(Refusal::Taken));
}

#[test] // §10.2(8)
fn an_owner_chooses_what_a_deposit_costs() {
    let mut world = World::with_queue(HolderLimits::default());
    assert_eq!(
        world.done(SENDER, set_effort(EFFORT)),
        refused(Refusal::Signature)
    );
    let request = world.ask(OWNER, set_effort(EFFORT));
    assert!(world.answers(request).is_empty(), "not yet durable");
    world.store_all();
    assert_eq!(world.answers(request), [MailboxReply::Done]);
    world.crash();
    let wrong = unsolved(&world, 1, EFFORT);
    assert_eq!(world.done(SENDER, wrong), refused(Refusal::Puzzle));
    let right = solved(&world, 1, EFFORT);
    assert_eq!(world.done(SENDER, right), [MailboxReply::Deposited]);
    assert_eq!(world.done(OWNER, set_effort(0)), [MailboxReply::Done]);
    let free = unsolved(&world, 2, EFFORT);
    assert_eq!(world.done(SENDER, free), [MailboxReply::Deposited]);
}

#[test] // §10.2(8): no sender solves more
fn no_owner_asks_more_than_senders_solve() {
    let mut world = World::with_queue(HolderLimits::default());
    assert_eq!(
        world.done(OWNER, set_effort(u32::MAX)),
        [MailboxReply::Done]
    );
    let challenge = puzzle::deposit_challenge(&queue(1), &id(1), world.wall.epoch());
    let most = crate::limits::PUZZLE_EFFORT_MAX;
    // A solution for the most costs 10 s: that the effort is cut shows in the check alone.
    let is_cut = !puzzle::verify(&challenge, most, 1);
    assert!(is_cut, "by chance it would solve: take another nonce");
    let deposit = Verb::Deposit {
        queue: queue(1),
        record: record(1, 0),
        puzzle: 1,
    };
    assert_eq!(world.done(SENDER, deposit), refused(Refusal::Puzzle));
}

#[test] // §10.2(8)
fn an_effort_that_could_not_be_stored_is_not_asked() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, set_effort(EFFORT));
    let second = world.ask(OWNER, set_effort(1));
    assert_eq!(
        world.answers(second),
        refused(Refusal::Busy),
        "one at a time"
    );
    world.fail_all();
    assert_eq!(world.answers(request), refused(Refusal::Store));
    let free = unsolved(&world, 1, EFFORT);
    assert_eq!(world.done(SENDER, free), [MailboxReply::Deposited]);
}

#[test] // §10.2(9)
fn a_queue_that_its_owner_gives_up_is_gone_with_all_that_is_in_it() {
    let mut world = World::with_queue(HolderLimits::default());
    world.done(SENDER, deposit(1, record(1, 0)));
    world.done(SENDER, deposit(1, record(2, 0)));
    world.done(OWNER, fetch(1, vec![id(2)], 0));
    assert_eq!(
        world.done(SENDER, forget(queue(1))),
        refused(Refusal::Signature)
    );
    let subscriber = world.ask(OWNER, subscribe(1, 2000));
    world.store_all();
    world.answers(subscriber);
    let request = world.ask(OWNER, forget(queue(1)));
    assert!(world.answers(request).is_empty(), "not yet durable");
    assert_eq!(world.answers(subscriber), refused(Refusal::NoQueue));
    let late = world.ask(SENDER, deposit(1, record(3, 0)));
    assert_eq!(world.answers(late), refused(Refusal::NoQueue));
    world.store_all();
    assert_eq!(world.answers(request), [MailboxReply::Done]);
    let disk = &world.disk;
    assert!(disk.queues.is_empty() && disk.records.is_empty() && disk.removed.is_empty());
    let counts = world.holder.counts();
    assert_eq!((counts.queues, counts.records, counts.removed), (0, 0, 0));
    assert_eq!(
        world.done(OWNER, forget(queue(1))),
        refused(Refusal::NoQueue)
    );
    assert_eq!(world.done(OWNER, create(1)), [MailboxReply::Created]);
}

#[test] // §10.2(9)
fn a_queue_that_the_disk_did_not_forget_is_gone_all_the_same() {
    let mut world = World::with_queue(HolderLimits::default());
    let request = world.ask(OWNER, forget(queue(1)));
    world.fail_all();
    assert_eq!(world.answers(request), refused(Refusal::Store));
    let late = world.done(SENDER, deposit(1, record(1, 0)));
    assert_eq!(late, refused(Refusal::NoQueue));
    world.pass(HOUR);
    world.store_all();
    assert!(world.disk.queues.is_empty(), "a sweep tries again");
}
