//! The outbox by itself, with a store that fails and holders whose answers are made up.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::inbox::descriptor::Mailbox;
use umbel_proto::inbox::mailbox::{MailboxReply, Refusal};
use umbel_proto::inbox::record::SealSecret;
use umbel_proto::network::Network;
use umbel_proto::time::{Moment, WallTime};

use super::super::context::Shared;
use super::super::io::OutboxEntry;
use super::super::requests::AskFault;
use super::super::testing::surroundings;
use super::*;

const ID: MessageId = MessageId([1; 16]);
const WALL: WallTime = WallTime(1_790_000_000);

struct Bench {
    outbox: Outbox,
    lookups: Lookups,
    requests: Requests,
    shared: Shared,
    now: Instant,
    wall: WallTime,
    /// How much of that is not confirmed.
    unconfirmed: Duration,
    rng: ChaCha20Rng,
}

impl Bench {
    fn new(network: Network) -> Self {
        Self {
            outbox: Outbox::default(),
            lookups: Lookups::default(),
            requests: Requests::default(),
            shared: surroundings(network, WALL),
            now: Instant::from_micros(0),
            wall: WALL,
            unconfirmed: Duration::ZERO,
            rng: ChaCha20Rng::seed_from_u64(5),
        }
    }

    fn with<T>(
        &mut self,
        act: impl FnOnce(&mut Outbox, &mut Context<'_>, &mut Lookups, &mut Requests) -> T,
    ) -> T {
        let (now, wall) = (self.now, self.wall);
        let mut cx = self.shared.context(Moment { now, wall }, &mut self.rng);
        cx.confirmed = WallTime(wall.as_secs() - self.unconfirmed.as_secs());
        cx.is_clock_sure = true;
        act(
            &mut self.outbox,
            &mut cx,
            &mut self.lookups,
            &mut self.requests,
        )
    }

    fn send(&mut self) {
        let address = *InboxIdentity::from_seed(&[3; 32]).address();
        self.with(|outbox, cx, _, _| outbox.send(cx, ID, address, vec![7; 100], None));
    }

    /// The descriptor is found: it names this many mailboxes.
    fn find(&mut self, mailboxes: u8) {
        let descriptor = Arc::new(InboxDescriptor {
            revision: 1,
            seal_key: SealSecret::from_seed(&[4; 32]).public(),
            mailboxes: (0..mailboxes).map(mailbox).collect(),
            puzzle_effort: 0,
        });
        self.with(|outbox, cx, _, _| {
            outbox.waiting = Waiting::default();
            outbox.begin(cx, ID);
            outbox.aim(cx, ID, &descriptor);
        });
    }

    /// Seals for one mailbox more, asks those that are due, stores what is to be stored.
    fn drive(&mut self) {
        self.with(|outbox, cx, lookups, requests| outbox.drive(cx, lookups, requests));
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.drive();
    }

    fn answer(&mut self, number: u8, answer: &Answer) {
        self.with(|outbox, cx, _, _| outbox.on_answer(cx, ID, mailbox(number).queue, answer));
    }

    /// Answers everything that was asked of the store; says whether anything was.
    fn stored(&mut self, is_stored: bool) -> bool {
        let tickets: Vec<StoreTicket> = self
            .shared
            .out
            .stores
            .drain(..)
            .map(|(ticket, _)| ticket)
            .collect();
        for &ticket in &tickets {
            self.with(|outbox, cx, _, _| outbox.on_stored(cx, ticket, is_stored));
        }
        !tickets.is_empty()
    }

    /// An attempt at three mailboxes, of which the third says nothing.
    fn fail_at_third(&mut self) {
        self.find(3);
        self.drive();
        self.answer(2, &SILENT);
        self.drive();
    }

    /// Of each message in the outbox, how many hold it and how many are wanted.
    fn listed(&self) -> Vec<(usize, usize)> {
        self.entries()
            .iter()
            .map(|entry| (entry.holders, entry.wanted))
            .collect()
    }

    fn entries(&self) -> Vec<OutboxEntry> {
        let (now, wall) = (self.now, self.wall);
        self.outbox
            .list(&self.shared.network.params, Moment { now, wall })
    }

    fn notices(&mut self) -> Vec<Notice> {
        self.shared.out.notices.drain(..).collect()
    }
}

fn mailbox(number: u8) -> Mailbox {
    Mailbox {
        relay: RelayId([number; 32]),
        queue: QueueId([number; QueueId::LEN]),
        sender_seed: [number; 32],
    }
}

const TAKEN: Answer = Answer::Mailbox(MailboxReply::Deposited);
const FULL: Answer = Answer::Mailbox(MailboxReply::Refused(Refusal::Full));
const SILENT: Answer = Answer::Failed(AskFault::Silent);

/// All `holders` holders were asked, and the store was.
fn asked(network: Network, holders: u8) -> Bench {
    let mut bench = Bench::new(network);
    bench.send();
    bench.find(holders);
    (0..holders).for_each(|_| bench.drive());
    bench
}

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
    assert_eq!(
        bench.notices(),
        [Notice::Held {
            id: ID,
            holders: 2,
            wanted: 2
        }]
    );
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
        assert_eq!(
            bench.notices(),
            [Notice::Unsaved {
                id: ID,
                may_be_out: true
            }]
        );
    }
}

#[test] // §10.5(1)
fn silent_holders_are_not_waited_for_once_the_store_failed_again() {
    let mut bench = asked_and_unsaved();
    bench.answer(0, &TAKEN);
    bench.pass(STORE_RETRY);
    assert!(bench.stored(false));
    assert_eq!(
        bench.notices(),
        [Notice::Unsaved {
            id: ID,
            may_be_out: true
        }]
    );
    bench.answer(1, &TAKEN);
    assert_eq!(
        bench.notices(),
        [Notice::Held {
            id: ID,
            holders: 2,
            wanted: 2
        }],
        "late is better than never"
    );
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
    bench.with(|outbox, cx, lookups, requests| outbox.advance(cx, lookups, requests, ID));
    assert!(bench.stored(false), "while it is sealed for one of three");
    (0..3).for_each(|number| bench.answer(number, &TAKEN)); // only one of them was asked
    assert_eq!(
        bench.notices(),
        [Notice::Unsaved {
            id: ID,
            may_be_out: true
        }],
        "one holder is not enough"
    );
    assert_eq!(bench.listed(), [(1, 2)]);

    bench.pass(STORE_RETRY);
    let mut restarted = restarted(&bench);
    let wanted =
        restarted.with(|outbox, cx, _, _| outbox.entries[&ID].delivery.wanted(&cx.network.params));
    assert_eq!(
        wanted, 2,
        "the profile does not say how many there are, so none is left out"
    );
    restarted.find(1);
    assert_eq!(
        restarted.with(|outbox, cx, _, _| outbox.entries[&ID].delivery.wanted(&cx.network.params)),
        1
    );
}

/// A client that is started anew, with what the store was last asked to keep.
fn restarted(bench: &Bench) -> Bench {
    let state = bench
        .shared
        .out
        .stores
        .iter()
        .rev()
        .find_map(|(_, op)| match op {
            StoreOp::PutOutbox { state, .. } => Some(state.clone()),
            _ => None,
        });
    let mut restarted = Bench::new(bench.shared.network.clone());
    restarted.now = bench.now;
    restarted.wall = bench.wall;
    let state = state.expect("something was to be stored");
    restarted
        .with(|outbox, cx, _, _| outbox.restore(cx, ID, &state))
        .expect("what was stored can be read");
    restarted
}

/// Two of three holders have taken a message that is durable here; the third has not answered.
fn held_by_two() -> Bench {
    held_by_two_where(2)
}

fn held_by_two_where(wanted: usize) -> Bench {
    let mut network = Network::local();
    network.params.holders_wanted = wanted;
    let mut bench = asked(network, 3);
    assert!(bench.stored(true));
    bench.answer(0, &TAKEN);
    bench.answer(1, &TAKEN);
    bench.notices();
    bench
}

/// The same, and the client is started anew.
fn held_by_two_before() -> Bench {
    let mut bench = held_by_two();
    bench.pass(STORE_ANSWERS_AFTER);
    restarted(&bench)
}

/// Whether the store was asked to forget the message.
fn is_removed(bench: &Bench) -> bool {
    bench
        .shared
        .out
        .stores
        .iter()
        .any(|(_, op)| matches!(op, StoreOp::RemoveOutbox(ID)))
}

const HELD: Notice = Notice::Held {
    id: ID,
    holders: 2,
    wanted: 2,
};

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
            bench.with(|outbox, cx, _, _| outbox.stop(cx));
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
        bench.with(|outbox, cx, _, _| outbox.save_at(ID, cx.now));
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
    bench.with(|outbox, cx, _, _| outbox.stop(cx));
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

#[test] // §10.5(1)
fn a_message_that_leaves_because_the_store_fails_is_reported() {
    let mut bench = held_by_two_before();
    bench.find(4);
    (0..2).for_each(|_| bench.drive());
    assert!(bench.stored(false));
    assert_eq!((bench.notices(), bench.listed()), (vec![HELD], vec![]));
}

#[test]
fn messages_that_enough_have_give_way() {
    let state = held_by_two_before().outbox.entries[&ID].delivery.state();
    let mut bench = Bench::new(Network::local());
    let id = |number| MessageId([number; 16]);
    let address = *InboxIdentity::from_seed(&[3; 32]).address();
    bench.with(|outbox, cx, _, _| {
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
            outbox.send(cx, id(number), address, vec![7; 100], None);
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
            .with(|outbox, cx, _, _| outbox.restore(cx, MessageId([number; 16]), &state))
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

/// The state of a format before, from that of this one: what was added since stands at its end.
fn as_format(version: u8, state: &[u8]) -> Vec<u8> {
    let wall = Bench::new(Network::local()).wall;
    let life = Network::local().params.record_life;
    let added =
        umbel_proto::wire::encode(&(wall, wall + life, None::<WallTime>, None::<DeferReason>));
    assert_eq!((state[0], state.ends_with(&added)), (3, true));
    let mut old = state[..state.len() - added.len()].to_vec();
    old[0] = version;
    if version == 1 {
        assert_eq!(old.pop(), Some(0), "nothing of enough holders");
    }
    old
}

#[test]
fn an_outbox_of_the_formats_before_is_read_and_ages_from_then_on() {
    let mut bench = Bench::new(Network::local());
    bench.send();
    let state = bench.outbox.entries[&ID].delivery.state();
    for version in [1, 2] {
        let old = as_format(version, &state);
        let mut bench = Bench::new(Network::local());
        bench.wall = bench.wall + Duration::from_secs(5000);
        bench
            .with(|outbox, cx, _, _| outbox.restore(cx, ID, &old))
            .expect("it is read");
        let [entry] = bench.entries()[..] else {
            panic!("one message")
        };
        assert_eq!(
            (entry.created_at, entry.expires_at),
            (
                bench.wall,
                bench.wall + bench.shared.network.params.record_life
            )
        );
        bench.drive();
        let created_at = bench.wall;
        let mut bench = restarted(&bench);
        bench.wall = bench.wall + Duration::from_secs(7000);
        assert_eq!(
            bench.entries()[0].created_at,
            created_at,
            "it was stored in the new format"
        );
    }
    let mut newer = state.to_vec();
    newer[0] = 4;
    assert!(
        bench
            .with(|outbox, cx, _, _| outbox.restore(cx, ID, &newer))
            .is_err()
    );

    let of_two = as_format(
        1,
        &held_by_two_where(3).outbox.entries[&ID].delivery.state(),
    );
    let mut bench = Bench::new(Network::local());
    bench
        .with(|outbox, cx, _, _| outbox.restore(cx, ID, &of_two))
        .expect("it is read");
    assert!(!bench.outbox.entries[&ID].delivery.has_enough());
    bench.find(3);
    assert!(bench.outbox.entries[&ID].delivery.has_enough());
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
            bench.with(|outbox, cx, _, _| outbox.flush(cx));
        }
        let told_at = if is_flushed { bench.now } else { due_at };
        bench.pass(STORE_RETRY);
        assert!(bench.stored(true));
        assert_eq!(bench.outbox.entries[&ID].stage, Stage::Waiting(told_at));
    }
}

/// A network with the default wait between two deposits.
fn unhurried() -> Network {
    let mut network = Network::local();
    network.params.second_deposit_delay = Duration::from_secs(30);
    network
}

/// One of three holders has a message that is durable here; the next deposit waits for its moment.
fn held_by_one() -> (Bench, Duration) {
    let mut bench = Bench::new(unhurried());
    bench.send();
    bench.find(3);
    (0..3).for_each(|_| bench.drive());
    assert!(bench.stored(true));
    let asked: Vec<u8> = (0..3).filter(|&number| bench.is_asked(number)).collect();
    let [first] = asked[..] else {
        panic!("one is asked at once: {asked:?}")
    };
    bench.answer(first, &TAKEN);
    bench.drive();
    let notices = bench.notices();
    let [
        Notice::Queued(ID),
        Notice::Held {
            holders: 1,
            wanted: 2,
            ..
        },
        Notice::Scheduled { id: ID, wait },
    ] = notices[..]
    else {
        panic!("{notices:?}")
    };
    (bench, wait)
}

impl Bench {
    /// Whether this holder was asked and has not answered.
    fn is_asked(&mut self, number: u8) -> bool {
        let queue = mailbox(number).queue;
        self.with(|outbox, _, _, _| outbox.entries[&ID].delivery.is_asked_of(queue))
    }

    fn asked_count(&mut self) -> usize {
        (0..3).filter(|&number| self.is_asked(number)).count()
    }
}

#[test] // §10.5(2)
fn the_time_of_the_second_deposit_is_reported_once_and_stored() {
    let (mut bench, wait) = held_by_one();
    assert!(
        !wait.is_zero() && wait <= Duration::from_secs(240),
        "{wait:?}"
    );
    bench.drive();
    assert_eq!(bench.notices(), []);
    bench.with(|outbox, cx, _, _| outbox.stop(cx));

    let state = bench.outbox.entries[&ID].delivery.state();
    let mut soon = Bench::new(unhurried());
    soon.wall = bench.wall + wait / 2;
    soon.with(|outbox, cx, _, _| outbox.restore(cx, ID, &state))
        .expect("it is read");
    let next_try_at = soon.entries()[0].next_try_at.expect("it waits");
    assert!(
        next_try_at > soon.wall && next_try_at <= bench.wall + wait,
        "no later than it was to be"
    );
    soon.with(|outbox, cx, _, _| outbox.flush(cx));
    assert_eq!(
        soon.entries()[0].next_try_at,
        Some(next_try_at),
        "however often it is asked for"
    );

    let mut late = Bench::new(unhurried());
    late.wall = bench.wall + wait + Duration::from_secs(1);
    late.with(|outbox, cx, _, _| outbox.restore(cx, ID, &state))
        .expect("it is read");
    late.find(3);
    (0..3).for_each(|_| late.drive());
    assert_eq!(
        late.asked_count(),
        1,
        "the second is asked at once, and the third is not"
    );
}

#[test] // §10.5(2)
fn a_clock_that_was_ahead_puts_no_deposit_off_for_long() {
    let (bench, _) = held_by_one();
    let state = bench.outbox.entries[&ID].delivery.state();
    let mut bench = Bench::new(unhurried());
    bench.wall = WallTime(bench.wall.as_secs() - 1_000_000);
    bench
        .with(|outbox, cx, _, _| outbox.restore(cx, ID, &state))
        .expect("it is read");
    let entry = bench.entries()[0];
    assert!(
        entry
            .next_try_at
            .is_some_and(|at| at <= bench.wall + Duration::from_secs(241)),
        "{entry:?}"
    );
    assert_eq!(entry.created_at, bench.wall);
}

#[test] // §10.5(2)
fn a_holder_that_fails_gives_its_moment_to_the_next() {
    let mut bench = Bench::new(unhurried());
    bench.send();
    bench.find(3);
    (0..3).for_each(|_| bench.drive());
    assert!(bench.stored(true));
    for tried in 0..3 {
        let asked: Vec<u8> = (0..3).filter(|&number| bench.is_asked(number)).collect();
        let [next] = asked[..] else {
            panic!("one at a time, {tried} were tried: {asked:?}")
        };
        bench.answer(next, &SILENT);
        bench.drive();
    }
    let notices = bench.notices();
    assert!(
        matches!(
            notices[..],
            [
                Notice::Queued(ID),
                Notice::Deferred {
                    reason: DeferReason::Holders,
                    ..
                }
            ]
        ),
        "{notices:?}"
    );
    assert_eq!(bench.entries()[0].obstacle, Some(DeferReason::Holders));

    let (mut bench, wait) = held_by_one();
    bench.pass(wait);
    let second = (0..3)
        .find(|&number| bench.is_asked(number))
        .expect("its moment has come");
    bench.answer(second, &SILENT);
    bench.drive();
    let third = (0..3)
        .find(|&number| bench.is_asked(number))
        .expect("it takes the second's place");
    bench.answer(third, &SILENT);
    bench.drive();
    assert!(matches!(
        bench.notices()[..],
        [Notice::Deferred {
            reason: DeferReason::Holders,
            ..
        }]
    ));
}

#[test]
fn a_message_that_is_taken_back_leaves_at_once_and_says_who_has_it() {
    let cancel =
        |bench: &mut Bench| bench.with(|outbox, cx, _, requests| outbox.cancel(cx, requests, ID));
    let mut bench = Bench::new(Network::local());
    bench.send();
    bench.drive();
    assert!(bench.stored(true));
    bench.notices();
    cancel(&mut bench);
    let unsent = Cancelled {
        id: ID,
        holders: 0,
        may_be_out: false,
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
        holders: 1,
        may_be_out: true,
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
    let expired = Notice::Failed {
        id: ID,
        reason: SendFault::Expired,
    };
    let life = bench.shared.network.params.record_life;
    let after = |passed: Duration, unconfirmed: Option<Duration>, reason: DeferReason| {
        let mut bench = restarted_from(&bench.outbox.entries[&ID].delivery.state());
        bench.wall = bench.wall + passed;
        bench.unconfirmed = unconfirmed.unwrap_or_default();
        bench.with(|outbox, cx, _, _| {
            outbox.judge_clock(unconfirmed.is_none());
            outbox.defer(cx, ID, reason);
        });
        bench.notices() == [expired.clone()] && is_removed(&bench) && bench.listed().is_empty()
    };
    let second = Duration::from_secs(1);
    assert!(!after(life - second, None, DeferReason::NoDescriptor));
    assert!(after(life, None, DeferReason::NoDescriptor));
    assert!(after(life, None, DeferReason::QueueFull));
    assert!(
        !after(life, None, DeferReason::NoCircuit),
        "nothing was tried"
    );
    assert!(
        !after(life * 9, Some(life * 9), DeferReason::NoDescriptor),
        "a clock that is ahead loses nothing"
    );
    assert!(
        after(life * 2, Some(life), DeferReason::NoDescriptor),
        "no guard that lies makes it stay for ever"
    );
}

fn restarted_from(state: &[u8]) -> Bench {
    let mut bench = Bench::new(Network::local());
    bench
        .with(|outbox, cx, _, _| outbox.restore(cx, ID, state))
        .expect("it is read");
    bench
}

#[test]
fn a_message_that_expires_while_somebody_holds_it_is_not_called_lost() {
    let mut bench = asked(Network::local(), 2);
    assert!(bench.stored(true));
    bench.answer(0, &TAKEN);
    bench.answer(1, &SILENT);
    bench.notices();
    bench.wall = bench.wall + bench.shared.network.params.record_life;
    bench.with(|outbox, _, _, _| outbox.judge_clock(true));
    bench.drive();
    assert_eq!(
        (bench.notices(), bench.listed()),
        (vec![], vec![]),
        "its holder was told before"
    );
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
            .with(|outbox, cx, _, _| outbox.restore(cx, MessageId([number; 16]), &state))
            .expect("it is read");
    }
    let due = |bench: &mut Bench| {
        bench.with(|outbox, cx, _, _| outbox.waiting.drain().filter(|due| due.0 <= cx.now).count())
    };
    assert_eq!(due(&mut bench), 1);
    let mut bench = Bench::new(unhurried());
    for number in 0..8 {
        bench
            .with(|outbox, cx, _, _| outbox.restore(cx, MessageId([number; 16]), &state))
            .expect("it is read");
    }
    bench.with(|outbox, cx, _, _| outbox.flush(cx));
    assert_eq!(due(&mut bench), 1, "though all of them are asked for");
}

#[test]
fn a_stored_message_is_read_by_those_who_only_look() {
    let (bench, wait) = held_by_one();
    let state = bench.outbox.entries[&ID].delivery.state();
    let params = &bench.shared.network.params;
    let read = read_outbox_message(ID, &state, params, bench.wall).expect("it is read");
    assert_eq!(
        (read.entry.holders, read.entry.wanted, read.entry.len),
        (1, 2, 100)
    );
    assert_eq!(read.body.as_slice(), [7; 100]);
    assert!(
        read.entry
            .next_try_at
            .is_some_and(|at| at <= bench.wall + wait)
    );
    assert!(read_outbox_message(ID, &state[1..], params, bench.wall).is_none());
    let address = read.entry.address;
    let fresh = new_outbox_state(
        address,
        vec![1, 2],
        Some(Duration::from_secs(60)),
        params,
        bench.wall,
    );
    let read = read_outbox_message(ID, &fresh, params, bench.wall).expect("it is read");
    assert_eq!(
        (read.entry.expires_at, read.body.as_slice()),
        (bench.wall + Duration::from_secs(60), &[1, 2][..])
    );
}
