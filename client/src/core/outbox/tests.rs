//! The outbox by itself, with a store that fails and holders whose answers are made up.

mod ended;
mod held;
mod places;
mod resealed;
mod second;
mod stored;
mod unsaved;

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::inbox::descriptor::{InboxDescriptor, Mailbox};
use umbel_proto::inbox::mailbox::{MailboxReply, Refusal};
use umbel_proto::inbox::record::SealSecret;
use umbel_proto::network::Network;
use umbel_proto::time::{Moment, WallTime};

use super::super::context::Shared;
use super::super::io::{Copies, OutboxEntry, StoreTicket, Stored};
use super::super::requests::AskFault;
use super::super::saving::STORE_RETRY;
use super::super::testing::surroundings;
use super::*;

const ID: MessageId = MessageId([1; 16]);
const WALL: WallTime = WallTime(1_790_000_000);
const HELD: Notice = Notice::Held {
    id: ID,
    holders: 2,
    wanted: 2,
};

struct Bench {
    outbox: Outbox,
    lookups: Lookups,
    requests: Requests,
    contacts: Contacts,
    inboxes: Inboxes,
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
            contacts: Contacts::default(),
            inboxes: Inboxes::default(),
            shared: surroundings(network, WALL),
            now: Instant::from_micros(0),
            wall: WALL,
            unconfirmed: Duration::ZERO,
            rng: ChaCha20Rng::seed_from_u64(5),
        }
    }

    fn with<T>(
        &mut self,
        act: impl FnOnce(&mut Outbox, &mut Context<'_>, &mut Post<'_>) -> T,
    ) -> T {
        let (now, wall) = (self.now, self.wall);
        let mut cx = self.shared.context(Moment { now, wall }, &mut self.rng);
        cx.confirmed = WallTime(wall.as_secs() - self.unconfirmed.as_secs());
        cx.is_clock_sure = true;
        act(
            &mut self.outbox,
            &mut cx,
            &mut Post {
                lookups: &mut self.lookups,
                requests: &mut self.requests,
                contacts: &mut self.contacts,
                inboxes: &self.inboxes,
            },
        )
    }

    /// Whether the clock is right, as the relays say.
    fn judge_clock(&mut self, is_right: bool) {
        let (now, wall) = (self.now, self.wall);
        self.outbox.judge_clock(Moment { now, wall }, is_right);
    }

    fn send(&mut self) {
        let to = Recipient::OneWay(*InboxIdentity::from_seed(&[3; 32]).address());
        self.with(|outbox, cx, _| outbox.send(cx, ID, to, vec![7; 100], None));
    }

    /// The descriptor is found: it names this many mailboxes.
    fn find(&mut self, mailboxes: u8) {
        self.find_with_key(&SealSecret::from_seed(&[4; 32]), mailboxes);
    }

    /// The same, and this seal key.
    fn find_with_key(&mut self, key: &SealSecret, mailboxes: u8) {
        let descriptor = InboxDescriptor {
            revision: 1,
            seal_key: key.public(),
            mailboxes: (0..mailboxes).map(mailbox).collect(),
            puzzle_effort: 0,
        };
        self.with(|outbox, cx, _| {
            outbox.waiting = Waiting::default();
            outbox.begin(cx, ID);
            let route = Route::one_way(&descriptor, &cx.network.params);
            outbox.aim(cx, ID, route);
        });
    }

    /// Seals for one mailbox more, asks those that are due, commits pending writes.
    fn drive(&mut self) {
        self.with(|outbox, cx, post| outbox.drive(cx, post));
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.drive();
    }

    fn answer(&mut self, number: u8, answer: &Answer) {
        self.with(|outbox, cx, _| outbox.on_answer(cx, ID, mailbox(number).queue, answer));
    }

    /// Answers everything that was asked of the store; says whether anything was.
    /// The last state of the message that the store was asked to keep, and keeps.
    fn saved(&mut self) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        let mut saved = None;
        for (ticket, op) in core::mem::take(&mut self.shared.out.stores) {
            if let StoreOp::PutOutbox { state, .. } = op {
                saved = Some(state);
            }
            self.on_stored(ticket, true);
        }
        saved
    }

    fn stored(&mut self, is_stored: bool) -> bool {
        let tickets: Vec<StoreTicket> = self
            .shared
            .out
            .stores
            .drain(..)
            .map(|(ticket, _)| ticket)
            .collect();
        for &ticket in &tickets {
            self.on_stored(ticket, is_stored);
        }
        !tickets.is_empty()
    }

    fn on_stored(&mut self, ticket: StoreTicket, is_stored: bool) {
        if let Stored::Outbox(id) = ticket.stored {
            self.with(|outbox, cx, _| outbox.on_stored(cx, id, ticket, is_stored));
        }
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
        .with(|outbox, cx, _| outbox.restore(cx, ID, &state))
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

/// Whether the store was asked to forget the message, and its fate is known to whoever asks.
fn is_removed(bench: &Bench) -> bool {
    let mut left = bench.outbox.left();
    let is_known = match left.next() {
        Some(
            Notice::Held { id, .. }
            | Notice::Expired { id, .. }
            | Notice::Cancelled(Cancelled { id, .. }),
        ) => *id == ID && left.next().is_none(),
        _ => false,
    };
    let is_forgotten = bench
        .shared
        .out
        .stores
        .iter()
        .any(|(_, op)| matches!(op, StoreOp::RemoveOutbox { id: ID, .. }));
    assert_eq!(is_known, is_forgotten);
    is_forgotten
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
        self.with(|outbox, _, _| outbox.entries[&ID].delivery.is_asked_of(queue))
    }

    fn asked_count(&mut self) -> usize {
        (0..3).filter(|&number| self.is_asked(number)).count()
    }
}
