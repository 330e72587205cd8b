//! Two sides that write to each other over a path that loses, delays and repeats, that die and come
//! back from backups.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::ChaCha20Rng;
use rand::{Rng, RngExt, SeedableRng};
use serde_bytes::ByteBuf;

use super::contents::{Contents, Item};
use super::opening::Introduction;
use super::thread::{Draft, Outgoing, Read, ReadFault, Thread, WriteFault};
use crate::ids::{MessageId, NetworkId};
use crate::inbox::address::InboxIdentity;
use crate::inbox::record::Opening;
use crate::limits::NUMBERS_AHEAD_MAX;
use crate::time::{Duration, WallTime};
use crate::wire::Reader;

const NETWORK: NetworkId = NetworkId([1; 32]);
const NOW: WallTime = WallTime(1_790_000_000);
/// Dates of messages are as exact.
const SECOND: Duration = Duration::from_secs(1);

/// A record as it comes out of a queue.
#[derive(Clone)]
enum Record {
    Opening {
        introduction: Vec<u8>,
        message: Vec<u8>,
    },
    Envelope(Vec<u8>),
}

/// One side: its thread once there is one, and what its program keeps.
struct Side {
    identity: InboxIdentity,
    thread: Option<Thread>,
    /// Messages that are not acknowledged, in the order they were written.
    outbox: BTreeMap<u64, Draft>,
    written: u64,
    /// What was read, in order, by the number that is in it.
    read: Vec<u64>,
    ids: BTreeSet<MessageId>,
    lost: u64,
    renewals: u32,
}

impl Side {
    fn new(seed: u8) -> Self {
        Self {
            identity: InboxIdentity::from_seed(&[seed; 32]),
            thread: None,
            outbox: BTreeMap::new(),
            written: 0,
            read: Vec::new(),
            ids: BTreeSet::new(),
            lost: 0,
            renewals: 0,
        }
    }

    fn draft(&mut self, rng: &mut ChaCha20Rng) -> Draft {
        self.written += 1;
        let mut id = MessageId([0; 16]);
        rng.fill_bytes(&mut id.0);
        let text = ByteBuf::from(self.written.to_be_bytes().to_vec());
        let draft = Draft {
            id,
            written_at: NOW,
            items: vec![Item::Text(text)],
        };
        self.outbox.insert(self.written, draft.clone());
        draft
    }

    fn seal(&mut self, draft: &Draft, now: WallTime, rng: &mut ChaCha20Rng) -> Option<Record> {
        let thread = self.thread.as_mut()?;
        let outgoing = thread.write(draft, now, rng).ok()?;
        Some(record(thread, outgoing))
    }

    /// What was said without a number.
    fn acknowledge(&mut self, now: WallTime, rng: &mut ChaCha20Rng) -> Option<Record> {
        let draft = Draft {
            id: MessageId([0; 16]),
            written_at: NOW,
            items: Vec::new(),
        };
        let thread = self.thread.as_mut()?;
        let outgoing = thread.acknowledge(&draft, now, rng).ok()?;
        Some(record(thread, outgoing))
    }

    fn note(&mut self, read: Read) -> Vec<MessageId> {
        self.lost += read
            .lost
            .iter()
            .map(|it| it.last - it.first + 1)
            .sum::<u64>();
        self.outbox
            .retain(|_, draft| !read.acknowledged.contains(&draft.id));
        if let Some(contents) = read.contents.filter(|it| !it.items.is_empty())
            && self.ids.insert(contents.id)
        {
            self.read.push(text(&contents));
        }
        read.asked
    }

    fn drafts(&self, ids: &[MessageId]) -> Vec<Draft> {
        let found = self.outbox.values().filter(|it| ids.contains(&it.id));
        found.cloned().collect()
    }
}

fn record(thread: &Thread, outgoing: Outgoing) -> Record {
    match outgoing {
        Outgoing::Envelope(message) => Record::Envelope(message),
        Outgoing::Opening(message) => {
            let mut introduction = Vec::new();
            thread.introduction().unwrap().encode(&mut introduction);
            Record::Opening {
                introduction,
                message,
            }
        }
    }
}

fn text(contents: &Contents) -> u64 {
    let [Item::Text(text)] = &contents.items[..] else {
        panic!("one text")
    };
    u64::from_be_bytes(text.as_slice().try_into().unwrap())
}

/// Alice, who began, and Bob.
struct World {
    alice: Side,
    bob: Side,
    rng: ChaCha20Rng,
    to_alice: Vec<Record>,
    to_bob: Vec<Record>,
    /// Of four records one is lost.
    loses: bool,
    now: WallTime,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (mut alice, bob) = (Side::new(1), Side::new(2));
        let begun = Thread::begin(&NETWORK, bob.identity.address(), None, NOW, &mut rng);
        alice.thread = Some(begun.unwrap());
        Self {
            alice,
            bob,
            rng,
            to_alice: Vec::new(),
            to_bob: Vec::new(),
            loses: true,
            now: NOW,
        }
    }

    fn post(&mut self, is_to_bob: bool, record: Option<Record>) {
        let Some(record) = record else { return };
        let copies = match self.rng.random_range(0..4) {
            0 if self.loses => 0,
            1 => 2,
            _ => 1,
        };
        let queue = if is_to_bob {
            &mut self.to_bob
        } else {
            &mut self.to_alice
        };
        queue.extend(vec![record; copies]);
    }

    fn write(&mut self, is_alice: bool) {
        self.now = self.now + SECOND;
        let side = if is_alice {
            &mut self.alice
        } else {
            &mut self.bob
        };
        let draft = side.draft(&mut self.rng);
        let record = side.seal(&draft, self.now, &mut self.rng);
        self.post(is_alice, record);
    }

    fn send_again(&mut self, is_alice: bool, ids: &[MessageId]) {
        let side = if is_alice {
            &mut self.alice
        } else {
            &mut self.bob
        };
        for draft in side.drafts(ids) {
            let side = if is_alice {
                &mut self.alice
            } else {
                &mut self.bob
            };
            let record = side.seal(&draft, self.now, &mut self.rng);
            self.post(is_alice, record);
        }
    }

    /// Bob gets one of the records that wait for him.
    fn bob_reads(&mut self, place: usize) {
        let record = self.to_bob.swap_remove(place);
        let bob = &mut self.bob;
        let read = match (record, &mut bob.thread) {
            (
                Record::Opening {
                    introduction,
                    message,
                },
                thread,
            ) => {
                let introduction = Introduction::decode(&mut Reader::new(&introduction)).unwrap();
                let opening = Opening {
                    introduction,
                    message,
                };
                match thread {
                    Some(thread) => {
                        thread.read_opening(&NETWORK, &bob.identity, &opening, self.now)
                    }
                    None => Thread::accept(&NETWORK, &bob.identity, &opening, self.now).map(
                        |(new, read)| {
                            *thread = Some(new);
                            (read, Vec::new())
                        },
                    ),
                }
            }
            (Record::Envelope(message), Some(thread)) => thread
                .read(&message, self.now)
                .map(|read| (read, Vec::new())),
            (Record::Envelope(_), None) => return,
        };
        match read {
            Ok((read, again)) => {
                let asked = bob.note(read);
                self.send_again(false, &asked);
                self.send_again(false, &again);
            }
            Err(ReadFault::Copy | ReadFault::Late) => {}
            Err(ReadFault::Lost(_)) => {
                let request = bob
                    .thread
                    .as_ref()
                    .map(|it| it.request_renewal(&mut self.rng));
                self.post(false, request.map(Record::Envelope));
            }
            Err(fault) => panic!("{fault:?}"),
        }
    }

    fn alice_reads(&mut self, place: usize) {
        let Record::Envelope(message) = self.to_alice.swap_remove(place) else {
            panic!("only Alice opens")
        };
        let thread = self.alice.thread.as_mut().unwrap();
        match thread.read(&message, self.now) {
            Ok(read) => {
                let asked = self.alice.note(read);
                self.send_again(true, &asked);
            }
            Err(ReadFault::Copy | ReadFault::Late) => {}
            Err(ReadFault::Renewal | ReadFault::Lost(_)) => self.alice_renews(),
            Err(fault) => panic!("{fault:?}"),
        }
    }

    fn write_and_carry(&mut self) {
        self.write(true);
        self.write(false);
        self.carry(0);
    }

    /// A program does that once an hour at most: here, not while another opening is on its way.
    fn alice_renews(&mut self) {
        let thread = self.alice.thread.as_mut().unwrap();
        if thread.introduction().is_some() {
            return;
        }
        let bob = self.bob.identity.address();
        let again = thread
            .renew(&NETWORK, bob, None, self.now, &mut self.rng)
            .unwrap();
        self.alice.renewals += 1;
        self.send_again(true, &again);
        let opens = self.alice.acknowledge(self.now, &mut self.rng);
        self.post(true, opens);
    }

    /// As many as wait beyond these are read, in any order.
    fn carry(&mut self, waiting: usize) {
        while self.to_bob.len() > waiting {
            let place = self.rng.random_range(0..self.to_bob.len());
            self.bob_reads(place);
        }
        while self.to_alice.len() > waiting {
            let place = self.rng.random_range(0..self.to_alice.len());
            self.alice_reads(place);
        }
    }

    /// Both go on until all is acknowledged, as programs do that send again what is not.
    fn settle(&mut self) {
        self.loses = false;
        for _ in 0..30 {
            self.carry(0);
            if self.alice.outbox.is_empty() && self.bob.outbox.is_empty() {
                return;
            }
            for is_alice in [true, false] {
                let side = if is_alice {
                    &mut self.alice
                } else {
                    &mut self.bob
                };
                let ids: Vec<MessageId> = side.outbox.values().map(|it| it.id).collect();
                self.send_again(is_alice, &ids);
                let side = if is_alice {
                    &mut self.alice
                } else {
                    &mut self.bob
                };
                let record = side.acknowledge(self.now, &mut self.rng);
                self.post(is_alice, record);
            }
        }
        panic!(
            "not settled: {} and {}",
            self.alice.outbox.len(),
            self.bob.outbox.len()
        );
    }

    fn restart(&mut self) {
        for side in [&mut self.alice, &mut self.bob] {
            let state = side.thread.as_ref().map(Thread::state);
            side.thread = state.map(|state| Thread::restore(&state).unwrap());
        }
    }

    /// Each message was read once.
    fn check(&self) {
        for (reader, writer) in [(&self.alice, &self.bob), (&self.bob, &self.alice)] {
            let mut read = reader.read.clone();
            read.sort_unstable();
            assert_eq!(read, (1..=writer.written).collect::<Vec<_>>());
            assert_eq!(reader.lost, 0);
            let thread = reader.thread.as_ref().unwrap();
            assert_eq!(thread.missing().count(), 0);
            assert_eq!(thread.unacknowledged().count(), 0);
        }
    }
}

#[test] // §11.2(6), §11.8(2)
fn whatever_the_path_does_each_message_is_read_once() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        for step in 0..1500_u32 {
            let is_alice = step < 5 || world.rng.random();
            world.write(is_alice);
            if step.is_multiple_of(20) {
                world.restart();
            }
            let waiting = world.rng.random_range(0..12);
            world.carry(waiting);
        }
        world.settle();
        world.check();
        assert!(world.alice.written + world.bob.written >= 1500);
        assert_eq!(world.alice.renewals, 0, "seed {seed}");
    }
}

#[test] // §11.2(6)
fn until_she_is_answered_alice_opens_with_each_message() {
    let mut world = World::new(5);
    world.loses = false;
    (0..3).for_each(|_| world.write(true));
    assert!(
        world
            .to_bob
            .iter()
            .all(|it| matches!(it, Record::Opening { .. }))
    );
    world.to_bob.swap_remove(0);
    world.carry(0);
    assert!(world.bob.thread.is_some());
    world.write(false);
    world.carry(0);
    assert!(
        world
            .alice
            .thread
            .as_ref()
            .unwrap()
            .introduction()
            .is_none()
    );
    world.write(true);
    assert!(
        world
            .to_bob
            .iter()
            .all(|it| matches!(it, Record::Envelope(_)))
    );
    world.settle();
    world.check();
}

/// A backup is made, twenty messages go each way, and these sides are restored.
fn after_a_backup(seed: u64, [alice, bob]: [bool; 2]) -> World {
    let mut world = World::new(seed);
    world.loses = false;
    for _ in 0..6 {
        world.write(true);
        world.carry(0);
        world.write(false);
        world.carry(0);
    }
    world.settle();
    let state = |side: &Side| side.thread.as_ref().unwrap().state();
    let backup_of_alice = state(&world.alice);
    if alice && bob {
        (0..3).for_each(|_| world.write_and_carry()); // his is younger
        world.settle();
    }
    let backup_of_bob = state(&world.bob);
    (0..20).for_each(|_| world.write_and_carry());
    world.settle();
    if alice {
        world.alice.thread = Some(Thread::restore(&backup_of_alice).unwrap());
    }
    if bob {
        world.bob.thread = Some(Thread::restore(&backup_of_bob).unwrap());
    }
    world
}

#[test] // §11.6(2), §11.6(3)
fn a_side_that_comes_back_from_a_backup_is_healed() {
    let cases = [[true, false], [false, true], [true, true]];
    for (seed, restored) in (6..12).zip(cases.into_iter().cycle()) {
        for first in [true, false] {
            let mut world = after_a_backup(seed, restored);
            for _ in 0..5 {
                world.write(first);
                world.carry(0);
                world.write(!first);
                world.carry(0);
            }
            world.settle();
            world.check();
            // What was on its way when she began anew may have her do so once more.
            let renewals = world.alice.renewals;
            assert!(
                (1..=2).contains(&renewals),
                "seed {seed}, {restored:?}: {renewals}"
            );
        }
    }
}

#[test] // §11.6(3): what the sessions before say does not confuse the numbers of this one
fn sessions_begin_anew_on_a_path_that_loses() {
    for seed in 20..26 {
        let mut world = after_a_backup(seed, [seed % 2 == 0, seed % 3 == 0]);
        world.loses = true;
        for step in 0..300_u32 {
            let is_alice = world.rng.random();
            world.write(is_alice);
            if step % 60 == 59 {
                world.alice_renews();
            }
            let waiting = world.rng.random_range(0..12);
            world.carry(waiting);
        }
        world.settle();
        world.check();
        assert!(world.alice.renewals >= 3, "seed {seed}");
    }
}

#[test] // §11.6(3): what the path kept of a session that was left begins it no more
fn an_old_opening_begins_no_session_again() {
    let mut world = World::new(10);
    world.loses = false;
    world.write(true);
    let old = world.to_bob[0].clone();
    world.carry(0);
    world.write(false);
    world.carry(0);
    world.alice_renews();
    world.settle();
    assert_eq!(world.alice.renewals, 1);
    let before = world.bob.thread.as_ref().unwrap().state();
    world.to_bob.push(old);
    world.bob_reads(0);
    assert!(world.bob.thread.as_ref().unwrap().state() == before);
    world.to_alice.clear();
    world.write(false);
    world.write(true);
    world.settle();
    world.check();
}

#[test] // §11.8(2), §11.8(3): what is given up makes room for what comes behind it
fn a_message_beyond_many_that_are_lost_arrives() {
    let mut world = World::new(12);
    world.loses = false;
    world.write(true);
    world.carry(0);
    world.write(false);
    world.carry(0);
    let given_up = 3 * NUMBERS_AHEAD_MAX / 2;
    for _ in 0..given_up {
        let draft = world.alice.draft(&mut world.rng);
        let alice = world.alice.thread.as_mut().unwrap();
        alice.number_for_test(draft.id);
        alice.give_up(draft.id);
        world.alice.outbox.clear();
    }
    world.write(true);
    world.carry(0);
    assert_eq!(world.bob.lost, NUMBERS_AHEAD_MAX, "so many at once");
    world.settle();
    assert_eq!(world.bob.lost, given_up);
    assert_eq!(world.bob.read.len(), 2);
}

#[test] // §11.8(3)
fn a_sender_waits_where_too_many_messages_are_open() {
    let mut world = World::new(11);
    let alice = world.alice.thread.as_mut().unwrap();
    let mut draft = Draft {
        id: MessageId([0; 16]),
        written_at: NOW,
        items: Vec::new(),
    };
    for number in 0..NUMBERS_AHEAD_MAX {
        draft.id.0[..8].copy_from_slice(&number.to_be_bytes());
        assert!(alice.write(&draft, NOW, &mut world.rng).is_ok());
    }
    let oldest = alice.unacknowledged().next().unwrap();
    draft.id = MessageId([0xff; 16]);
    let refused = alice.write(&draft, NOW, &mut world.rng);
    assert_eq!(refused.unwrap_err(), WriteFault::TooManyOpen);
    alice.give_up(oldest);
    assert!(alice.write(&draft, NOW, &mut world.rng).is_ok());
}
