//! Decoders of conversations: any bytes are either read or refused, and have one encoding.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use serde_bytes::ByteBuf;
use umbel_proto::conversation::contents::{Contents, Item, Number};
use umbel_proto::conversation::envelope::ENVELOPE_ROOMS;
use umbel_proto::conversation::numbering::{Acknowledgement, NumberRange};
use umbel_proto::conversation::opening::{INTRODUCTION_LENS, Introduction};
use umbel_proto::conversation::session::Session;
use umbel_proto::conversation::verification::{Party, SafetyNumber};
use umbel_proto::crypto::dh::{DhPublic, DhSecret};
use umbel_proto::ids::{MessageId, NetworkId, QueueId, RelayId};
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::inbox::descriptor::Mailbox;
use umbel_proto::limits::{ACKNOWLEDGED_RANGES_MAX, CONTACT_QUEUES_MAX, MESSAGE_ITEMS_MAX};
use umbel_proto::time::WallTime;
use umbel_proto::wire::Reader;

const NETWORK: NetworkId = NetworkId([1; 32]);
const NOW: WallTime = WallTime(1_790_000_000);

fn bob() -> InboxIdentity {
    InboxIdentity::from_seed(&[2; 32])
}

/// Two sides that exchanged messages, one of which is passed over.
fn sessions(rng: &mut ChaCha20Rng) -> [Session; 2] {
    let pseudonym = DhSecret::generate(rng);
    let begun = Introduction::begin(&NETWORK, bob().address(), &pseudonym, None, NOW, rng);
    let (introduction, begun) = begun.unwrap();
    let accepted = introduction.accept(&NETWORK, &bob(), NOW).unwrap();
    let mut sides = [begun.session, accepted.session];
    for exchange in 0..6 {
        let (from, to) = (exchange % 2, (exchange + 1) % 2);
        for is_passed_over in [exchange > 1, false] {
            let message = sides[from].seal(b"a message", &ENVELOPE_ROOMS, NOW, rng);
            let message = message.unwrap().message;
            if !is_passed_over {
                sides[to].open(&message, NOW).unwrap();
            }
        }
    }
    sides
}

/// Relay, queue and sender seed.
type Keys = ([u8; 32], [u8; 32], [u8; 32]);

/// A text, or queues. An item has no `Debug`.
fn any_item() -> impl Strategy<Value = Result<Vec<u8>, Vec<Keys>>> {
    prop_oneof![
        vec(any::<u8>(), 0..200).prop_map(Ok),
        vec(any::<Keys>(), 1..=CONTACT_QUEUES_MAX).prop_map(Err),
    ]
}

fn item(item: Result<Vec<u8>, Vec<Keys>>) -> Item {
    let mailbox = |(relay, queue, sender_seed)| Mailbox {
        relay: RelayId(relay),
        queue: QueueId(queue),
        sender_seed,
    };
    match item {
        Ok(text) => Item::Text(ByteBuf::from(text)),
        Err(queues) => Item::Queues(queues.into_iter().map(mailbox).collect()),
    }
}

/// Ranges in order and apart from one another, all behind `next`.
fn any_acknowledgement() -> impl Strategy<Value = Acknowledgement> {
    let steps = vec((1u64..100, 0u64..100), 0..=ACKNOWLEDGED_RANGES_MAX);
    (1..u64::MAX / 2, steps).prop_map(|(next, steps)| {
        let mut end = next;
        let range = |(gap, more)| {
            let first = end + gap;
            let last = first + more;
            end = last + 1;
            NumberRange { first, last }
        };
        let ranges = steps.into_iter().map(range).collect();
        Acknowledgement { next, ranges }
    })
}

fn any_contents() -> impl Strategy<Value = Contents> {
    let number = proptest::option::of((1..u64::MAX / 2, 0u64..4096));
    let number = number.prop_map(|it| {
        it.map(|(floor, ahead)| Number {
            number: floor + ahead,
            floor,
        })
    });
    (
        number,
        any::<[u8; 16]>(),
        any::<u64>(),
        any_acknowledgement(),
        vec(any_item(), 0..=MESSAGE_ITEMS_MAX),
    )
        .prop_map(|(number, id, at, acknowledgement, items)| {
            let items = items.into_iter().map(item).collect();
            Contents::new(number, MessageId(id), WallTime(at), acknowledgement, items)
        })
}

/// What is read of these bytes is what they say, and zeros.
fn is_one_encoding(bytes: &[u8]) -> bool {
    Contents::decode(bytes).map_or(true, |contents| {
        let encoded = contents.encode();
        let rest = bytes.strip_prefix(encoded.as_slice());
        rest.is_some_and(|rest| rest.iter().all(|&it| it == 0))
    })
}

proptest! {
    #[test] // §11.2: whoever may deposit writes these bytes
    fn any_bytes_are_one_introduction_or_none(
        mut bytes in vec(any::<u8>(), 0..150), flags in 0u8..4
    ) {
        if let Some(byte) = bytes.get_mut(96) {
            *byte = flags;
        }
        let mut reader = Reader::new(&bytes);
        let Ok(introduction) = Introduction::decode(&mut reader) else {
            let needed = INTRODUCTION_LENS[usize::from(flags == 1)];
            prop_assert!(bytes.len() < needed || flags > 1);
            return Ok(());
        };
        let mut written = Vec::new();
        introduction.encode(&mut written);
        prop_assert_eq!(written.len(), introduction.encoded_len());
        prop_assert_eq!(&written, &bytes[..bytes.len() - reader.left()]);
        // Keys that are none are refused; nobody has the message that would open another.
        if let Ok(mut begun) = introduction.accept(&NETWORK, &bob(), NOW) {
            prop_assert!(begun.session.open(&[7; 543], NOW).is_err());
        }
    }

    #[test] // §11.8
    fn contents_are_read_as_they_were_written(contents in any_contents(), zeros in 0usize..40) {
        let mut bytes = contents.encode();
        bytes.resize(bytes.len() + zeros, 0);
        prop_assert!(Contents::decode(&bytes) == Ok(contents));
        bytes.push(1);
        prop_assert!(Contents::decode(&bytes).is_err());
    }

    #[test] // §11.8(1)
    fn damaged_contents_have_one_encoding_or_are_refused(
        contents in any_contents(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut bytes = contents.encode();
        for (at, byte) in flips {
            *at.get_mut(&mut bytes) = byte;
        }
        prop_assert!(is_one_encoding(&bytes));
    }

    #[test] // §11.8(1)
    fn any_bytes_are_contents_in_one_encoding_or_none(rest in vec(any::<u8>(), 0..200)) {
        prop_assert!(is_one_encoding(&[&[1], rest.as_slice()].concat()));
    }

    #[test] // §11.7(1)
    fn both_sides_see_twelve_groups_of_five_digits(key: [u8; 32], network: [u8; 32], seed: [u8; 32]) {
        let (network, inbox) = (NetworkId(network), InboxIdentity::from_seed(&seed));
        let pseudonym = DhPublic(key);
        let (one, other) = (Party::Inbox(inbox.address()), Party::Pseudonym(&pseudonym));
        let number = SafetyNumber::new(&network, one, other);
        prop_assert_eq!(number, SafetyNumber::new(&network, other, one));
        prop_assert!(number.groups().iter().all(|&it| it < 100_000));
        let text = number.to_string();
        let groups: Vec<u32> = text.split(' ').map(|it| it.parse().unwrap()).collect();
        prop_assert_eq!(&groups, number.groups());
        prop_assert_eq!(text.len(), 12 * 5 + 11);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test] // §11.3(4)
    fn a_damaged_state_of_a_session_is_refused_or_goes_on(
        side in 0usize..2, flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), seed: u64
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut sides = sessions(&mut rng);
        let mut state = sides[side].state().to_vec();
        for (at, byte) in flips {
            *at.get_mut(&mut state) = byte;
        }
        let Ok(mut session) = Session::restore(&state) else {
            return Ok(());
        };
        prop_assert!(session.state().as_slice() == state);
        drop(session.seal(b"mine", &ENVELOPE_ROOMS, NOW, &mut rng));
        let message = sides[1 - side].seal(b"theirs", &ENVELOPE_ROOMS, NOW, &mut rng);
        let before = session.state().to_vec();
        if session.open(&message.unwrap().message, NOW).is_err() {
            prop_assert!(session.state().as_slice() == before);
        }
        session.expire(NOW);
    }

    #[test] // §11.3
    fn any_bytes_are_the_state_of_one_session_or_none(rest in vec(any::<u8>(), 0..600)) {
        let bytes = [&[1], rest.as_slice()].concat();
        if let Ok(session) = Session::restore(&bytes) {
            prop_assert!(session.state().as_slice() == bytes);
        }
    }
}

#[test] // §11.3
fn a_state_of_a_session_is_read_whole_or_not_at_all() {
    let state = sessions(&mut ChaCha20Rng::seed_from_u64(1))[1].state();
    assert!(Session::restore(&state).is_ok_and(|it| it.state() == state));
    assert!((0..state.len()).all(|len| Session::restore(&state[..len]).is_err()));
    assert!(Session::restore(&[state.as_slice(), &[0]].concat()).is_err());
}
