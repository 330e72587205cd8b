//! Two sides of a session, a path that loses, delays and repeats, and an attacker who takes a state.

use rand::rngs::ChaCha20Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::envelope::ENVELOPE_ROOMS;
use super::opening::{Begun, Introduction, RecoveryKey};
use super::session::{MESSAGE_OVERHEAD_LEN, OpenFault, SealFault, Session};
use crate::crypto::dh::DhSecret;
use crate::crypto::kem::{CIPHERTEXT_LEN, ENCAPSULATION_KEY_LEN};
use crate::ids::NetworkId;
use crate::inbox::address::InboxIdentity;
use crate::limits::{
    NONCES_KEPT, OPENINGS_SKIP_MAX, SHARE_WAIT, SHARE_WAIT_MESSAGES, SKIP_MAX, SKIPPED_KEPT_MAX,
    SKIPPED_LIFE, TAG_LEN,
};
use crate::time::{Duration, WallTime};

const NETWORK: NetworkId = NetworkId([1; 32]);
const NOW: WallTime = WallTime(1_790_000_000);

/// Alice wrote first, to Bob's inbox.
struct Pair {
    alice: Session,
    bob: Session,
    rng: ChaCha20Rng,
    now: WallTime,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Alice,
    Bob,
}
use Side::{Alice, Bob};

impl Side {
    const fn other(self) -> Self {
        match self {
            Alice => Bob,
            Bob => Alice,
        }
    }
}

fn bob_identity() -> InboxIdentity {
    InboxIdentity::from_seed(&[2; 32])
}

fn begin(seed: u64, writer: Option<&InboxIdentity>) -> (Introduction, Begun, ChaCha20Rng) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let pseudonym = DhSecret::generate(&mut rng);
    let bob = bob_identity();
    let begun = Introduction::begin(&NETWORK, bob.address(), &pseudonym, writer, NOW, &mut rng);
    let (introduction, begun) = begun.unwrap();
    (introduction, begun, rng)
}

impl Pair {
    fn new(seed: u64) -> Self {
        let (introduction, begun, rng) = begin(seed, None);
        let accepted = introduction.accept(&NETWORK, &bob_identity(), NOW).unwrap();
        Self {
            alice: begun.session,
            bob: accepted.session,
            rng,
            now: NOW,
        }
    }

    /// After so many exchanges of a message each way.
    fn after(seed: u64, exchanges: usize) -> Self {
        let mut pair = Self::new(seed);
        (0..exchanges).for_each(|_| pair.exchange());
        pair
    }

    fn session(&mut self, side: Side) -> &mut Session {
        match side {
            Alice => &mut self.alice,
            Bob => &mut self.bob,
        }
    }

    fn seal(&mut self, from: Side, text: &[u8]) -> Vec<u8> {
        let (now, rng) = (self.now, &mut self.rng);
        let session = match from {
            Alice => &mut self.alice,
            Bob => &mut self.bob,
        };
        let sealed = session.seal(text, &ENVELOPE_ROOMS, now, rng).unwrap();
        assert_eq!(sealed.message.len(), ENVELOPE_ROOMS[sealed.class]);
        sealed.message
    }

    fn open(&mut self, to: Side, message: &[u8]) -> Result<Vec<u8>, OpenFault> {
        let now = self.now;
        let opened = self.session(to).open(message, now)?;
        let end = opened
            .iter()
            .rposition(|&it| it != 0)
            .map_or(0, |it| it + 1);
        Ok(opened[..end].to_vec())
    }

    fn say(&mut self, from: Side, text: &[u8]) {
        let message = self.seal(from, text);
        assert_eq!(self.open(from.other(), &message).as_deref(), Ok(text));
    }

    fn exchange(&mut self) {
        self.say(Alice, b"hello");
        self.say(Bob, b"yes");
    }
}

/// As it was stored.
fn copy(session: &Session) -> Session {
    Session::restore(&session.state()).unwrap()
}

#[test] // §11.3(2)
fn both_sides_write_and_read_in_turn_and_in_a_row() {
    let mut pair = Pair::new(1);
    assert!(!pair.bob.may_seal());
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let early = pair.bob.seal(b"no", &ENVELOPE_ROOMS, NOW, &mut rng);
    assert_eq!(early, Err(SealFault::NotYet));
    for round in 0..40_u8 {
        let (from, count) = (if round % 3 == 0 { Alice } else { Bob }, round % 4 + 1);
        (0..count).for_each(|it| pair.say(from, &[round + 1, it + 1]));
    }
}

#[test] // §11.3(3)
fn messages_are_opened_in_any_order_once() {
    let mut pair = Pair::after(2, 3);
    let mut sent: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for number in 1..=60_u8 {
        let text = vec![number; 3];
        sent.push((pair.seal(Alice, &text), text));
        if number.is_multiple_of(7) {
            pair.say(Bob, b"go on");
        }
    }
    sent.shuffle(&mut ChaCha20Rng::seed_from_u64(3));
    for (message, text) in &sent {
        assert_eq!(pair.open(Bob, message).as_ref(), Ok(text));
        let again = pair.open(Bob, message);
        assert_eq!(again, Err(OpenFault::Repeated { is_copy: true }));
    }
    pair.exchange();
}

#[test] // §11.3(3), §11.4(5): half is lost, the rest comes late and out of order
fn loss_delay_and_repeats_keep_nothing_else_out() {
    for seed in 0..6 {
        let mut pair = Pair::after(seed, 1);
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut on_way: Vec<(Side, Vec<u8>, Vec<u8>)> = Vec::new();
        let (mut opened, mut sent) = (0, 0);
        for number in 0..600_u32 {
            let from = if rng.random() { Alice } else { Bob };
            let text = [&number.to_be_bytes()[..], &[1]].concat();
            let message = pair.seal(from, &text);
            sent += 1;
            match rng.random_range(0..4) {
                0 => {}
                1 => on_way.extend([
                    (from.other(), message.clone(), text.clone()),
                    (from.other(), message, text),
                ]),
                _ => on_way.push((from.other(), message, text)),
            }
            // What comes waited for at most thirty others.
            while on_way.len() > rng.random_range(0..30) {
                let place = rng.random_range(0..on_way.len());
                let (to, message, text) = on_way.swap_remove(place);
                match pair.open(to, &message) {
                    Ok(read) => {
                        assert_eq!(read, text);
                        opened += 1;
                    }
                    Err(fault) => assert!(
                        matches!(
                            fault,
                            OpenFault::Repeated { .. } | OpenFault::NotOurs | OpenFault::Epoch
                        ),
                        "seed {seed}, message {number}: {fault:?}"
                    ),
                }
            }
            if number.is_multiple_of(50) {
                (pair.alice, pair.bob) = (copy(&pair.alice), copy(&pair.bob));
            }
        }
        assert!(opened * 10 >= sent * 6, "seed {seed}: {opened} of {sent}");
        pair.exchange();
    }
}

#[test] // §11.3(4)
fn a_message_that_is_not_good_changes_nothing() {
    let mut pair = Pair::after(4, 2);
    let message = pair.seal(Alice, b"hello");
    let before = pair.bob.state();
    for place in (0..message.len()).step_by(13).chain([message.len() - 1]) {
        let mut bad = message.clone();
        bad[place] ^= 1;
        let fault = pair.open(Bob, &bad).unwrap_err();
        assert!(
            matches!(
                fault,
                OpenFault::NotOurs | OpenFault::Damaged | OpenFault::Diverged
            ),
            "byte {place}: {fault:?}"
        );
        assert!(pair.bob.state() == before, "byte {place}");
    }
    for len in [0, 15, 16, 76, 77, 200, message.len() - 1] {
        assert!(pair.open(Bob, &message[..len]).is_err());
    }
    assert!(pair.bob.state() == before);
    assert_eq!(pair.open(Bob, &message).as_deref(), Ok(&b"hello"[..]));
}

#[test] // §11.3(5)
fn keys_of_messages_passed_over_are_bounded_and_expire() {
    let mut pair = Pair::after(5, 1);
    let late = pair.seal(Alice, b"late");
    (1..SKIP_MAX).for_each(|_| drop(pair.seal(Alice, b"lost")));
    pair.say(Alice, b"here");
    assert_eq!(pair.bob.skipped_count(), SKIP_MAX as usize);
    for _ in 0..=SKIP_MAX {
        drop(pair.seal(Alice, b"lost"));
    }
    let far = pair.seal(Alice, b"too far");
    assert_eq!(pair.open(Bob, &far), Err(OpenFault::TooFar));
    pair.bob.expire(NOW + SKIPPED_LIFE);
    assert_eq!(pair.bob.skipped_count(), SKIP_MAX as usize);
    let mut kept = copy(&pair.bob);
    assert!(kept.open(&late, NOW).is_ok());
    pair.bob.expire(NOW + SKIPPED_LIFE + Duration::from_secs(1));
    assert_eq!(pair.bob.skipped_count(), 0);
    assert!(pair.open(Bob, &late).is_err());

    let mut pair = Pair::after(6, 1);
    for _ in 0..8 {
        (0..SKIP_MAX).for_each(|_| drop(pair.seal(Alice, b"lost")));
        pair.say(Alice, b"here");
    }
    assert_eq!(pair.bob.skipped_count(), SKIPPED_KEPT_MAX);
    assert!(pair.bob.state().len() < 130 * SKIPPED_KEPT_MAX);
}

#[test] // §11.3(5): the reader was away for long, and the first openings have expired
fn a_conversation_begins_with_a_late_opening() {
    for (lost, is_read) in [
        (SKIP_MAX + 1, true),
        (OPENINGS_SKIP_MAX, true),
        (OPENINGS_SKIP_MAX + 1, false),
    ] {
        let mut pair = Pair::new(25);
        (0..lost).for_each(|_| drop(pair.seal(Alice, b"lost")));
        let message = pair.seal(Alice, b"here");
        assert_eq!(pair.open(Bob, &message).is_ok(), is_read, "{lost}");
        assert!(pair.bob.skipped_count() <= SKIPPED_KEPT_MAX);
        if is_read {
            (0..=SKIP_MAX).for_each(|_| drop(pair.seal(Alice, b"lost")));
            let message = pair.seal(Alice, b"too far");
            assert_eq!(pair.open(Bob, &message), Err(OpenFault::TooFar));
        }
    }
}

#[test] // §11.3(5): a peer may drive a chain to its end
fn a_chain_ends_before_its_numbers_do() {
    let mut pair = Pair::after(23, 1);
    pair.say(Alice, b"her chain");
    pair.alice.number_from(u32::MAX - 2, true);
    pair.bob.number_from(u32::MAX - 2, false);
    pair.say(Alice, b"the last but one");
    let last = pair.seal(Alice, b"the last");
    assert!(!pair.alice.may_seal(), "until Bob has written");
    let sealed = pair
        .alice
        .seal(b"one more", &ENVELOPE_ROOMS, NOW, &mut pair.rng);
    assert_eq!(sealed, Err(SealFault::NotYet));
    // One who goes on all the same has a number that nobody takes.
    let mut liar = copy(&pair.alice);
    liar.number_from(u32::MAX - 1, true);
    pair.bob.number_from(u32::MAX, false);
    let before = pair.bob.state();
    let beyond = liar.seal(b"beyond", &ENVELOPE_ROOMS, NOW, &mut pair.rng);
    assert!(pair.open(Bob, &beyond.unwrap().message).is_err());
    assert!(pair.bob.state() == before);
    pair.bob.number_from(u32::MAX - 1, false);
    assert!(pair.open(Bob, &last).is_ok());
    pair.say(Bob, b"go on");
    pair.say(Alice, b"in a new chain");
}

#[test] // §11.3(6): a state that was restored from a backup
fn a_side_that_went_back_is_noticed() {
    let mut pair = Pair::after(7, 2);
    let backup = copy(&pair.alice);
    pair.say(Alice, b"after the backup");
    pair.alice = backup;
    let message = pair.seal(Alice, b"another");
    let fault = pair.open(Bob, &message);
    assert_eq!(fault, Err(OpenFault::Repeated { is_copy: false }));
    // After a step of the ratchet neither side opens the other's messages.
    let mut pair = Pair::after(8, 2);
    let backup = copy(&pair.alice);
    (0..3).for_each(|_| pair.exchange());
    pair.alice = backup;
    let (ours, theirs) = (pair.seal(Alice, b"another"), pair.seal(Bob, b"and mine"));
    assert!(pair.open(Bob, &ours).is_err());
    assert_eq!(pair.open(Alice, &theirs), Err(OpenFault::NotOurs));
}

#[test] // §11.3(6)
fn copies_of_the_last_messages_are_known() {
    let mut pair = Pair::after(9, 1);
    let first = pair.seal(Alice, b"first");
    pair.open(Bob, &first).unwrap();
    (1..NONCES_KEPT).for_each(|_| pair.say(Alice, b"more"));
    let copy = pair.open(Bob, &first);
    assert_eq!(copy, Err(OpenFault::Repeated { is_copy: true }));
    pair.say(Alice, b"one more");
    let copy = pair.open(Bob, &first);
    assert_eq!(copy, Err(OpenFault::Repeated { is_copy: false }));
}

#[test] // §11.4(4): each exchange turns the ratchet, and costs a short message no byte
fn each_exchange_makes_a_post_quantum_epoch_in_the_padding() {
    let mut pair = Pair::new(10);
    for exchange in 1..=10 {
        let message = pair.seal(Alice, &[7; 300]);
        assert_eq!(message.len(), ENVELOPE_ROOMS[0]);
        pair.open(Bob, &message).unwrap();
        let message = pair.seal(Bob, &[7; 400]);
        assert_eq!(message.len(), ENVELOPE_ROOMS[0]);
        pair.open(Alice, &message).unwrap();
        assert_eq!(pair.alice.post_quantum_epoch(), exchange);
        assert_eq!(pair.bob.post_quantum_epoch(), exchange);
    }
}

#[test] // §11.4(2), §11.4(3)
fn a_key_stays_until_it_is_answered_once() {
    let mut pair = Pair::after(24, 1);
    let offers = [0; 3].map(|_| copy(&pair.alice).seal_share(&mut pair.rng));
    assert!(
        offers[1..].iter().all(|it| *it != offers[0]),
        "none is kept"
    );
    pair.say(Alice, b"a key");
    let offer = pair.alice.seal_share(&mut pair.rng);
    pair.say(Alice, b"and again");
    assert_eq!(pair.alice.seal_share(&mut pair.rng), offer);
    // He answers it in the first message after it, with room for the answer or without.
    assert_eq!(pair.bob.post_quantum_epoch(), 1);
    let long = vec![7; ENVELOPE_ROOMS[0] - MESSAGE_OVERHEAD_LEN];
    let message = pair.seal(Bob, &long);
    assert_eq!(pair.bob.post_quantum_epoch(), 2);
    assert!(pair.open(Alice, &message).is_ok());
    assert_eq!(pair.alice.post_quantum_epoch(), 1);
    let answer = pair.bob.seal_share(&mut pair.rng);
    pair.say(Alice, b"the key once more");
    assert_eq!(pair.bob.seal_share(&mut pair.rng), answer);
    pair.say(Bob, b"the answer");
    assert_eq!(pair.alice.post_quantum_epoch(), 2);
    assert_ne!(pair.alice.seal_share(&mut pair.rng), offer);
}

#[test] // §11.4(4)
fn a_share_goes_along_only_where_there_is_room() {
    let least = ENVELOPE_ROOMS[0] - MESSAGE_OVERHEAD_LEN;
    for (side, share) in [(Alice, ENCAPSULATION_KEY_LEN), (Bob, CIPHERTEXT_LEN)] {
        let with_share = least - share - TAG_LEN;
        for (len, turns) in [(with_share, true), (with_share + 1, false), (least, false)] {
            let mut pair = Pair::after(11, 1);
            let mut say = |from: Side| {
                let len = if from == side { len } else { 1 };
                let message = pair.seal(from, &vec![7; len]);
                assert_eq!(message.len(), ENVELOPE_ROOMS[0]);
                pair.open(from.other(), &message).unwrap();
            };
            [Alice, Bob, Alice].into_iter().for_each(&mut say);
            let has_turned = pair.alice.post_quantum_epoch() > 1;
            assert_eq!(has_turned, turns, "{side:?} with {len}");
        }
    }
}

#[test] // §11.4(6)
fn a_share_that_waits_for_long_gets_a_larger_message() {
    let long = vec![7; ENVELOPE_ROOMS[0] - MESSAGE_OVERHEAD_LEN];
    let mut pair = Pair::after(12, 1);
    for _ in 0..SHARE_WAIT_MESSAGES {
        let message = pair.seal(Alice, &long);
        assert_eq!(message.len(), ENVELOPE_ROOMS[0]);
        pair.open(Bob, &message).unwrap();
    }
    assert_eq!(pair.seal(Alice, &long).len(), ENVELOPE_ROOMS[1]);
    assert_eq!(pair.seal(Alice, &long).len(), ENVELOPE_ROOMS[0], "it went");
    pair.now = NOW + SHARE_WAIT;
    assert_eq!(pair.seal(Alice, &long).len(), ENVELOPE_ROOMS[1]);
}

#[test] // §11.3(1)
fn contents_that_fit_no_room_are_refused_with_the_limit() {
    let mut pair = Pair::new(13);
    let max = ENVELOPE_ROOMS[3] - MESSAGE_OVERHEAD_LEN;
    assert_eq!(pair.seal(Alice, &vec![7; max]).len(), ENVELOPE_ROOMS[3]);
    let refused = pair
        .alice
        .seal(&vec![7; max + 1], &ENVELOPE_ROOMS, NOW, &mut pair.rng);
    assert_eq!(refused, Err(SealFault::TooLong { max }));
}

#[test] // §11.4(1): without ML-KEM in the keys of messages both runs would open one another's
fn every_later_key_takes_the_share() {
    let mut one = Pair::after(14, 1);
    one.rng = ChaCha20Rng::seed_from_u64(98);
    let mut other = Pair {
        alice: copy(&one.alice),
        bob: copy(&one.bob),
        rng: ChaCha20Rng::seed_from_u64(98),
        now: NOW,
    };
    // Of the two runs only the randomness of one encapsulation differs.
    for (pair, byte) in [(&mut one, 0), (&mut other, 1)] {
        pair.say(Alice, b"a key");
        pair.bob.seal_share(&mut ChaCha20Rng::from_seed([byte; 32]));
        pair.rng = ChaCha20Rng::seed_from_u64(99);
        pair.say(Bob, b"a ciphertext");
    }
    for _ in 0..3 {
        let [mine, others] = [&mut one, &mut other].map(|it| it.seal(Alice, b"and on"));
        assert_eq!(mine[..77], others[..77], "the double ratchet goes alike");
        assert_eq!(copy(&one.bob).open(&others, NOW), Err(OpenFault::Diverged));
        one.open(Bob, &mine).unwrap();
        other.open(Bob, &others).unwrap();
        one.say(Bob, b"yes");
        other.say(Bob, b"yes");
    }
}

#[test] // §11.3(7)
fn a_captured_state_opens_nothing_that_was_read_before() {
    for side in [Alice, Bob] {
        let mut pair = Pair::after(15, 2);
        let past: Vec<Vec<u8>> = (0..4)
            .map(|_| {
                let message = pair.seal(side.other(), b"secret");
                pair.open(side, &message).unwrap();
                message
            })
            .collect();
        let mut captured = copy(pair.session(side));
        captured.forget_nonces();
        for message in &past {
            assert!(captured.open(message, NOW).is_err());
        }
        (0..2).for_each(|_| pair.exchange());
        let mut captured = copy(pair.session(side));
        captured.forget_nonces();
        assert!(
            past.iter()
                .all(|it| captured.open(it, NOW) == Err(OpenFault::NotOurs))
        );
    }
}

#[test] // §11.3(7): whoever listens on after a capture is out after two exchanges
fn two_exchanges_after_a_capture_what_follows_is_closed() {
    for side in [Alice, Bob] {
        let mut pair = Pair::after(16, 2);
        let mut captured = copy(pair.session(side));
        for exchange in 0..4 {
            for from in [Alice, Bob] {
                let message = pair.seal(from, b"overheard");
                pair.open(from.other(), &message).unwrap();
                if from != side {
                    let is_read = captured.open(&message, NOW).is_ok();
                    assert!(!is_read || exchange < 2, "{side:?}, exchange {exchange}");
                }
            }
        }
    }
}

#[test] // §11.4(7): the same for an attacker who computes discrete logarithms
fn the_post_quantum_ratchet_alone_closes_what_follows() {
    for side in [Alice, Bob] {
        let mut pair = Pair::after(17, 2);
        let mut captured = copy(pair.session(side));
        for exchange in 0..4 {
            for from in [Alice, Bob] {
                let message = pair.seal(from, b"overheard");
                pair.open(from.other(), &message).unwrap();
                if from == side {
                    // Its public key is in a header that was opened: its secret is known.
                    captured.take_double_of(pair.session(side));
                } else {
                    let is_read = captured.open(&message, NOW).is_ok();
                    assert!(!is_read || exchange < 2, "{side:?}, exchange {exchange}");
                    captured.take_double_of(pair.session(side));
                }
            }
        }
    }
}

#[test] // §11.2(1), §11.2(3)
fn only_whom_it_was_written_to_makes_the_session() {
    let alice = InboxIdentity::from_seed(&[3; 32]);
    for writer in [None, Some(&alice)] {
        let (introduction, begun, mut rng) = begin(18, writer);
        let mut session = begun.session;
        let sealed = session
            .seal(b"hello", &ENVELOPE_ROOMS, NOW, &mut rng)
            .unwrap();
        let read = |network: &NetworkId, identity: &InboxIdentity, introduction: &Introduction| {
            let begun = introduction.accept(network, identity, NOW).ok()?;
            let mut session = begun.session;
            session.open(&sealed.message, NOW).ok().map(drop)
        };
        let bob = bob_identity();
        assert!(read(&NETWORK, &bob, &introduction).is_some());
        assert!(read(&NetworkId([9; 32]), &bob, &introduction).is_none());
        let carol = InboxIdentity::from_seed(&[4; 32]);
        assert!(read(&NETWORK, &carol, &introduction).is_none());
        let mut bytes = Vec::new();
        introduction.encode(&mut bytes);
        assert_eq!(bytes.len(), introduction.encoded_len());
        for place in (0..bytes.len()).filter(|&place| place != 96) {
            let mut other = bytes.clone();
            other[place] ^= 1;
            let other = Introduction::decode(&mut crate::wire::Reader::new(&other)).unwrap();
            assert!(read(&NETWORK, &bob, &other).is_none(), "byte {place}");
        }
        assert_eq!(
            introduction.writer_address().unwrap(),
            writer.map(|it| *it.address())
        );
    }
}

#[test] // §11.2(3)
fn nobody_writes_as_the_reader() {
    let mut rng = ChaCha20Rng::seed_from_u64(19);
    let (pseudonym, bob) = (DhSecret::generate(&mut rng), bob_identity());
    let own = Introduction::begin(
        &NETWORK,
        bob.address(),
        &pseudonym,
        Some(&bob),
        NOW,
        &mut rng,
    );
    assert!(own.is_err());
}

#[test] // §11.6(2)
fn a_request_for_a_new_session_is_known_by_its_key() {
    let (introduction, begun, mut rng) = begin(20, None);
    let accepted = introduction.accept(&NETWORK, &bob_identity(), NOW).unwrap();
    let (_, other, _) = begin(21, None);
    let request = accepted.recovery.request(&mut rng);
    let is_asked = |key: &RecoveryKey, request: &[u8]| key.is_request(request);
    assert_eq!(request.len(), ENVELOPE_ROOMS[0]);
    assert!(is_asked(&begun.recovery, &request) && is_asked(&accepted.recovery, &request));
    assert!(!is_asked(&other.recovery, &request));
    assert!(!is_asked(&begun.recovery, &request[1..]) && !is_asked(&begun.recovery, &[]));
    let mut session = begun.session;
    assert_eq!(session.open(&request, NOW), Err(OpenFault::NotOurs));
}

#[test]
fn a_stored_state_of_another_format_is_refused() {
    let mut state = Pair::new(22).alice.state().to_vec();
    assert!(Session::restore(&state[..state.len() - 1]).is_err());
    state[0] = 2;
    assert!(Session::restore(&state).is_err());
}
