//! Conversations against values from a second implementation (docs/protocol.md §11).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Script, hex, hex_array, list};
use serde_json::Value;
use umbel_proto::conversation::envelope::{ENVELOPE_ROOMS, EnvelopeQueue};
use umbel_proto::conversation::opening::{Begun, Introduction};
use umbel_proto::conversation::session::{Rooms, Session};
use umbel_proto::conversation::verification::{Party, SafetyNumber, pseudonym_words};
use umbel_proto::crypto::blind::{dh_of_identity, dh_of_seed};
use umbel_proto::crypto::dh::{DhPublic, DhSecret};
use umbel_proto::ids::{NetworkId, QueueId, RelayId};
use umbel_proto::inbox::address::{InboxAddress, InboxIdentity};
use umbel_proto::inbox::record::opening_rooms;
use umbel_proto::time::WallTime;
use umbel_proto::wire::Reader;

const NOW: WallTime = WallTime(1_790_000_000);

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/conversation.json")).expect("JSON")
}

fn identity(value: &Value) -> InboxIdentity {
    InboxIdentity::from_seed(&hex_array(value))
}

/// One side, and what it draws.
struct Side {
    session: Session,
    draws: Script,
}

impl Side {
    fn write(&mut self, contents: &[u8], rooms: &Rooms) -> Vec<u8> {
        let sealed = self
            .session
            .seal(contents, rooms, NOW, &mut self.draws)
            .unwrap();
        sealed.message
    }
}

/// Both sides of a session, as its vectors begin it.
fn sides(case: &Value) -> (Introduction, Side, Side) {
    let network = NetworkId(hex_array(&case["network"]));
    let reader = identity(&case["reader_seed"]);
    let writer = Some(&case["writer_seed"]).filter(|it| !it.is_null());
    let writer = writer.map(identity);
    let pseudonym = DhSecret::from_bytes(&hex_array(&case["pseudonym_secret"]));
    let mut draws = Script::of(hex(&case["alice_draws"]));
    let begun = Introduction::begin(
        &network,
        reader.address(),
        &pseudonym,
        writer.as_ref(),
        NOW,
        &mut draws,
    );
    let (introduction, Begun { session, .. }) = begun.unwrap();
    let alice = Side { session, draws };
    let bob = Side {
        session: introduction.accept(&network, &reader, NOW).unwrap().session,
        draws: Script::of(hex(&case["bob_draws"])),
    };
    (introduction, alice, bob)
}

#[test] // §11.2, §11.3, §11.4
fn sessions_are_those_of_a_second_implementation() {
    for case in list(&vectors()["sessions"]) {
        let (introduction, mut alice, mut bob) = sides(case);
        let mut bytes = Vec::new();
        introduction.encode(&mut bytes);
        assert_eq!(bytes, hex(&case["introduction"]));
        let read = Introduction::decode(&mut Reader::new(&bytes));
        assert!(read.is_ok_and(|read| read == introduction));
        assert_eq!(
            introduction.session_id().0[..],
            hex(&case["session_id"])[..]
        );
        let opening = opening_rooms(&introduction);
        let messages = list(&case["messages"]);
        let mut is_answered = false;
        for step in list(&case["steps"]) {
            let place = usize::try_from(step[1].as_u64().unwrap()).unwrap();
            let (contents, message) = (
                hex(&messages[place]["contents"]),
                hex(&messages[place]["message"]),
            );
            let is_alices = messages[place]["from"] == "alice";
            let (writer, reader) = if is_alices {
                (&mut alice, &mut bob)
            } else {
                (&mut bob, &mut alice)
            };
            if step[0] == "write" {
                let rooms = if is_alices && !is_answered {
                    &opening
                } else {
                    &ENVELOPE_ROOMS
                };
                assert_eq!(writer.write(&contents, rooms), message, "message {place}");
            } else {
                let opened = reader.session.open(&message, NOW).unwrap();
                assert_eq!(opened[..contents.len()], contents);
                assert!(opened[contents.len()..].iter().all(|&it| it == 0));
                is_answered |= !is_alices;
            }
        }
        assert!(alice.draws.is_used_up() && bob.draws.is_used_up());
    }
}

#[test] // §11.1(1)
fn an_address_has_one_x25519_form() {
    for case in list(&vectors()["sessions"]) {
        let reader = identity(&case["reader_seed"]);
        let public = dh_of_identity(reader.address().sound_key());
        assert_eq!(public.0[..], hex(&case["reader_x25519"])[..]);
        assert_eq!(dh_of_seed(&reader.seed()).public(), public);
    }
}

#[test] // §11.5(1)
fn an_envelope_is_that_of_a_second_implementation() {
    let case = &vectors()["envelope"];
    let queue = EnvelopeQueue {
        network: &NetworkId(hex_array(&case["network"])),
        holder: &RelayId(hex_array(&case["holder"])),
        queue: &QueueId(hex_array(&case["queue"])),
        sender_seed: &hex_array(&case["sender_seed"]),
    };
    let (message, record) = (hex(&case["message"]), hex(&case["record"]));
    let mut draws = Script::of(hex(&case["draws"]));
    assert_eq!(queue.seal(&message, &mut draws), record);
    assert_eq!(queue.open(&record), Ok(message));
    let other = EnvelopeQueue {
        holder: &RelayId([1; 32]),
        ..queue
    };
    assert!(other.open(&record).is_err() && queue.open(&record[1..]).is_err());
}

#[test] // §11.6(1), §11.6(2)
fn a_request_for_a_new_session_is_that_of_a_second_implementation() {
    let vectors = vectors();
    let case = &list(&vectors["sessions"])[0];
    let (introduction, ..) = sides(case);
    let network = NetworkId(hex_array(&case["network"]));
    let reader = identity(&case["reader_seed"]);
    let begun = introduction.accept(&network, &reader, NOW).unwrap();
    let request = &vectors["renewal_request"];
    let mut draws = Script::of(hex(&request["draws"]));
    let message = begun.recovery.request(&mut draws);
    assert_eq!(message, hex(&request["message"]));
    assert!(begun.recovery.is_request(&message));
}

#[test] // §11.7
fn digits_and_words_are_those_of_a_second_implementation() {
    let case = &vectors()["verification"];
    let network = NetworkId(hex_array(&case["network"]));
    let address = |key: &Value| InboxAddress::from_key(&hex_array(key)).unwrap();
    let (reader, writer) = (address(&case["address_key"]), address(&case["writer_key"]));
    let pseudonym = DhPublic(hex_array(&case["pseudonym"]));
    let digits = |other| SafetyNumber::new(&network, Party::Inbox(&reader), other).to_string();
    assert_eq!(digits(Party::Pseudonym(&pseudonym)), case["digits"]);
    assert_eq!(digits(Party::Inbox(&writer)), case["digits_as_inbox"]);
    assert_eq!(pseudonym_words(&pseudonym), case["words"]);
}
