//! Holders that give records out again, sides that come back from backups, and who has a new session
//! begun by that.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;

use super::contents::{Contents, Item};
use super::numbering::Arrived;
use super::opening::{Introduction, OpeningFault};
use super::session::OpenFault;
use super::thread::{Draft, Outgoing, ReadFault, Thread};
use crate::crypto::dh::DhSecret;
use crate::ids::{MessageId, NetworkId};
use crate::inbox::address::InboxIdentity;
use crate::inbox::record::{Opening, opening_rooms};
use crate::limits::{NONCES_KEPT, SKIPPED_LIFE};
use crate::time::{Duration, WallTime};
use crate::wire::Reader;

const NETWORK: NetworkId = NetworkId([1; 32]);
const NOW: WallTime = WallTime(1_790_000_000);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Alice,
    Bob,
}
use Side::{Alice, Bob};

/// Alice wrote first, to Bob's inbox. A message is written each second.
struct Pair {
    alice: Thread,
    bob: Thread,
    identity: InboxIdentity,
    rng: ChaCha20Rng,
    now: WallTime,
    written: u64,
}

/// As it was stored.
fn copy(thread: &Thread) -> Thread {
    Thread::restore(&thread.state()).unwrap()
}

fn draft(number: u64) -> Draft {
    let mut id = MessageId([0; 16]);
    id.0[..8].copy_from_slice(&number.to_be_bytes());
    Draft {
        id,
        written_at: NOW,
        items: vec![Item::Text(vec![7; 3].into())],
    }
}

/// What comes out of the inbox when this is in it.
fn opening(thread: &Thread, message: &[u8]) -> Opening {
    let mut introduction = Vec::new();
    thread.introduction().unwrap().encode(&mut introduction);
    Opening {
        introduction: Introduction::decode(&mut Reader::new(&introduction)).unwrap(),
        message: message.to_vec(),
    }
}

impl Pair {
    /// After so many exchanges of a message each way, the first of which opened the conversation.
    fn after(exchanges: usize) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let identity = InboxIdentity::from_seed(&[2; 32]);
        let begun = Thread::begin(&NETWORK, identity.address(), None, NOW, &mut rng);
        let mut alice = begun.unwrap();
        let Ok(Outgoing::Opening(message)) = alice.write(&draft(0), NOW, &mut rng) else {
            panic!("she opens")
        };
        let accepted = Thread::accept(&NETWORK, &identity, &opening(&alice, &message), NOW);
        let mut pair = Self {
            alice,
            bob: accepted.unwrap().0,
            identity,
            rng,
            now: NOW,
            written: 0,
        };
        pair.say(Bob);
        (1..exchanges).for_each(|_| pair.exchange());
        pair
    }

    fn thread(&mut self, side: Side) -> &mut Thread {
        match side {
            Alice => &mut self.alice,
            Bob => &mut self.bob,
        }
    }

    fn write(&mut self, from: Side) -> Vec<u8> {
        self.now = self.now + SECOND;
        self.written += 1;
        let (now, draft) = (self.now, draft(self.written));
        let thread = match from {
            Alice => &mut self.alice,
            Bob => &mut self.bob,
        };
        match thread.write(&draft, now, &mut self.rng).unwrap() {
            Outgoing::Envelope(message) | Outgoing::Opening(message) => message,
        }
    }

    fn read(&mut self, to: Side, message: &[u8]) -> Result<(), ReadFault> {
        let now = self.now;
        self.thread(to).read(message, now).map(drop)
    }

    /// The message that the other side has read.
    fn say(&mut self, from: Side) -> Vec<u8> {
        let message = self.write(from);
        let to = if from == Alice { Bob } else { Alice };
        assert_eq!(self.read(to, &message), Ok(()));
        message
    }

    fn exchange(&mut self) {
        self.say(Alice);
        self.say(Bob);
    }

    /// Alice begins anew, and Bob hears of it. The opening.
    fn renew(&mut self) -> Vec<u8> {
        let (now, reader) = (self.now, *self.identity.address());
        let renewed = self
            .alice
            .renew(&NETWORK, &reader, None, now, &mut self.rng);
        renewed.unwrap();
        let message = self.write(Alice);
        assert_eq!(self.read_opening(&message), Ok(()));
        message
    }

    fn read_opening(&mut self, message: &[u8]) -> Result<(), ReadFault> {
        let opening = opening(&self.alice, message);
        self.bob
            .read_opening(&NETWORK, &self.identity, &opening, self.now)
            .map(drop)
    }
}

#[test] // §11.3(6)
fn a_holder_that_gives_out_an_old_record_has_nobody_begin_anew() {
    for side in [Alice, Bob] {
        let mut pair = Pair::after(2);
        let (old, withheld) = (pair.say(side), pair.write(side));
        let to = if side == Alice { Bob } else { Alice };
        for round in 0..=NONCES_KEPT {
            pair.say(side);
            pair.say(to);
            if round % 64 == 0 || round == NONCES_KEPT {
                assert!(matches!(
                    pair.read(to, &old),
                    Err(ReadFault::Copy | ReadFault::Late)
                ));
            }
        }
        assert_eq!(pair.read(to, &old), Err(ReadFault::Late));
        assert_eq!(pair.read(to, &withheld), Err(ReadFault::Late));
        pair.now = pair.now + SKIPPED_LIFE + SECOND;
        assert_eq!(pair.read(to, &old), Err(ReadFault::Late));
    }
}

#[test] // §11.3(6): a long run without an answer, in one chain
fn a_copy_in_the_running_chain_is_no_sign_of_a_backup() {
    let mut pair = Pair::after(2);
    let old = pair.say(Alice);
    for _ in 0..=NONCES_KEPT {
        pair.say(Alice);
    }
    assert_eq!(pair.read(Bob, &old), Err(ReadFault::Late));
}

#[test] // §11.6(3)
fn records_of_sessions_that_were_left_have_nobody_begin_anew() {
    let mut pair = Pair::after(2);
    let old = [pair.say(Alice), pair.write(Alice)];
    let openings = [pair.renew(), pair.write(Alice)];
    pair.exchange();
    for message in &old[1..] {
        assert_eq!(pair.read(Bob, message), Ok(()), "it was on its way");
    }
    for _ in 0..2 {
        pair.renew();
        pair.exchange();
    }
    for message in old.iter().chain(&openings) {
        assert_eq!(pair.read(Bob, message), Err(ReadFault::Late));
    }
    // Nor while Alice waits for an answer, twice.
    let old = pair.say(Bob);
    for _ in 0..2 {
        let (now, reader) = (pair.now, *pair.identity.address());
        let renewed = pair
            .alice
            .renew(&NETWORK, &reader, None, now, &mut pair.rng);
        assert!(renewed.is_ok());
    }
    assert_eq!(pair.read(Alice, &old), Err(ReadFault::Late));
}

#[test] // §11.3(6): what follows is told apart, though a clock was once ten years ahead
fn a_clock_that_was_ahead_keeps_no_side_from_being_healed() {
    let mut pair = Pair::after(2);
    let now = pair.now;
    pair.now = now + SECOND * (10 * 365 * 24 * 3600);
    let message = pair.write(Alice);
    pair.now = now;
    assert_eq!(pair.read(Bob, &message), Ok(()));
    for _ in 0..2 {
        pair.renew();
        pair.exchange();
    }
    let backup = copy(&pair.alice);
    (0..3).for_each(|_| pair.exchange());
    pair.alice = backup;
    let message = pair.write(Alice);
    assert!(matches!(pair.read(Bob, &message), Err(ReadFault::Lost(_))));
}

#[test] // §11.6(2)
fn a_request_for_a_new_session_counts_once() {
    let mut pair = Pair::after(2);
    let request = pair.bob.request_renewal(&mut pair.rng);
    assert_eq!(pair.read(Alice, &request), Err(ReadFault::Renewal));
    pair.alice = copy(&pair.alice);
    assert_eq!(pair.read(Alice, &request), Err(ReadFault::Copy));
    pair.renew();
    pair.exchange();
    assert_eq!(pair.read(Alice, &request), Err(ReadFault::Copy));
    let another = pair.bob.request_renewal(&mut pair.rng);
    assert_eq!(pair.read(Alice, &another), Err(ReadFault::Renewal));
}

#[test] // §11.3(6), §11.4(5): Bob reads, and writes nothing, after he came back from a backup
fn a_side_that_only_reads_notices_that_it_went_back() {
    for exchanges in 1..4 {
        for side in [Alice, Bob] {
            let mut pair = Pair::after(3);
            pair.say(Alice);
            let backup = copy(pair.thread(side));
            (0..exchanges).for_each(|_| {
                pair.say(Bob);
                pair.say(Alice);
            });
            let to = if side == Alice { Bob } else { Alice };
            pair.say(to);
            *pair.thread(side) = backup;
            let message = pair.write(to);
            let read = pair.read(side, &message);
            let is_noticed = matches!(
                read,
                Err(ReadFault::Lost(OpenFault::NotOurs | OpenFault::Diverged))
            );
            // What the backup lacks may be one chain of the peer's: then it reads on.
            assert!(is_noticed || (read.is_ok() && exchanges == 1), "{read:?}");
        }
    }
}

#[test] // §11.3(6): of an earlier state, but not an old message
fn a_peer_that_went_back_is_noticed_by_its_next_message() {
    let mut pair = Pair::after(2);
    let backup = copy(&pair.alice);
    (0..20).for_each(|_| pair.exchange());
    pair.alice = backup;
    let message = pair.write(Alice);
    assert!(matches!(
        pair.read(Bob, &message),
        Err(ReadFault::Lost(OpenFault::NotOurs))
    ));
    let request = pair.bob.request_renewal(&mut pair.rng);
    assert_eq!(pair.read(Alice, &request), Err(ReadFault::Renewal));
    pair.renew();
    pair.exchange();
}

#[test] // §11.6(3)
fn a_session_that_was_left_is_read_for_three_weeks() {
    let mut pair = Pair::after(2);
    let on_its_way = [pair.write(Alice), pair.write(Alice)];
    pair.renew();
    pair.exchange();
    let left_at = pair.now;
    pair.now = left_at + (SKIPPED_LIFE - SECOND * 9);
    pair.bob.expire(pair.now);
    assert_eq!(pair.read(Bob, &on_its_way[0]), Ok(()));
    pair.now = left_at + SKIPPED_LIFE + SECOND;
    pair.bob.expire(pair.now);
    assert_eq!(pair.read(Bob, &on_its_way[1]), Err(ReadFault::Late));
    pair.exchange();
}

#[test] // §11.2(7)
fn only_its_initiator_renews_a_conversation() {
    let mut rng = ChaCha20Rng::seed_from_u64(13);
    let (bob, mallory) = (
        InboxIdentity::from_seed(&[2; 32]),
        InboxIdentity::from_seed(&[9; 32]),
    );
    let pseudonym = DhSecret::generate(&mut rng);
    let mut opening = |pseudonym: &DhSecret, writer: Option<&InboxIdentity>| {
        let begun = Introduction::begin(&NETWORK, bob.address(), pseudonym, writer, NOW, &mut rng);
        let (introduction, mut begun) = begun.unwrap();
        let acknowledgement = Arrived::default().acknowledgement();
        let contents = Contents::new(None, MessageId([1; 16]), NOW, acknowledgement, Vec::new());
        let rooms = opening_rooms(&introduction);
        let sealed = begun
            .session
            .seal(&contents.encode(), &rooms, NOW, &mut rng);
        Opening {
            introduction,
            message: sealed.unwrap().message,
        }
    };
    let first = opening(&pseudonym, None);
    let as_another = opening(&pseudonym, Some(&mallory));
    let stranger = opening(&DhSecret::from_bytes(&[5; 32]), None);
    let renewal = opening(&pseudonym, None);
    let (mut thread, _) = Thread::accept(&NETWORK, &bob, &first, NOW).unwrap();
    for other in [as_another, stranger] {
        let read = thread.read_opening(&NETWORK, &bob, &other, NOW);
        assert_eq!(read.unwrap_err(), ReadFault::Stranger);
    }
    let mut forged = opening(&pseudonym, None);
    forged.message[90] ^= 1;
    let before = thread.state();
    let read = thread.read_opening(&NETWORK, &bob, &forged, NOW);
    assert_eq!(
        read.unwrap_err(),
        ReadFault::Stranger,
        "and nothing is lost"
    );
    assert!(thread.state() == before);
    assert!(thread.read_opening(&NETWORK, &bob, &renewal, NOW).is_ok());
}

#[test] // §11.2(7)
fn a_renewal_is_by_and_to_whom_the_conversation_is_with() {
    let mut pair = Pair::after(2);
    let before = pair.alice.state();
    let (other, now) = (InboxIdentity::from_seed(&[5; 32]), pair.now);
    let rng = &mut pair.rng;
    let to_another = pair.alice.renew(&NETWORK, other.address(), None, now, rng);
    let bob = pair.identity.address();
    let by_another = pair.alice.renew(&NETWORK, bob, Some(&other), now, rng);
    for refused in [to_another, by_another] {
        assert_eq!(refused, Err(OpeningFault::Party));
    }
    assert!(pair.alice.state() == before);
}

#[test] // §11.6(3), §11.8(4)
fn a_message_that_is_written_again_waits_for_its_new_number() {
    let mut pair = Pair::after(2);
    let message = pair.say(Alice);
    let answer = pair.write(Bob);
    let (now, reader) = (pair.now, *pair.identity.address());
    let renewed = pair
        .alice
        .renew(&NETWORK, &reader, None, now, &mut pair.rng);
    let again = renewed.unwrap();
    assert!(!again.is_empty() && !message.is_empty());
    // One of them is written again before the answer of the session before comes, and is lost.
    let mut rewritten = draft(0);
    rewritten.id = again[0];
    assert!(pair.alice.write(&rewritten, now, &mut pair.rng).is_ok());
    let read = pair.alice.read(&answer, now).unwrap();
    assert_eq!(read.acknowledged, again[1..], "not the first");
    assert_eq!(pair.alice.unacknowledged().collect::<Vec<_>>(), again[..1]);
}
