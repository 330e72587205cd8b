//! Conversations as a second implementation has them, byte for byte (docs/protocol.md §11): the
//! vectors give each draw of randomness, and what is made of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Script, hex, hex_array, list};
use serde_bytes::ByteBuf;
use serde_json::Value;
use umbel_proto::conversation::contents::{Contents, Item, Number};
use umbel_proto::conversation::envelope::{ENVELOPE_ROOMS, EnvelopeQueue};
use umbel_proto::conversation::numbering::{Acknowledgement, NumberRange};
use umbel_proto::conversation::opening::{Begun, Introduction};
use umbel_proto::conversation::session::{OpenFault, Rooms, Session};
use umbel_proto::conversation::verification::{Party, SafetyNumber, pseudonym_words};
use umbel_proto::crypto::blind::{SoundKey, dh_of_identity, dh_of_seed};
use umbel_proto::crypto::dh::{DhPublic, DhSecret};
use umbel_proto::crypto::hpke;
use umbel_proto::ids::{MessageId, NetworkId, QueueId, RelayId};
use umbel_proto::inbox::address::{InboxAddress, InboxIdentity};
use umbel_proto::inbox::descriptor::Mailbox;
use umbel_proto::inbox::record::{Opened, SealSecret, open_record, opening_rooms, seal_opening};
use umbel_proto::time::WallTime;

const NOW: WallTime = WallTime(1_790_000_000);

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/conversation.json")).unwrap()
}

fn network(vectors: &Value) -> NetworkId {
    NetworkId(hex_array(&vectors["network"]))
}

/// A script of these fields, in order, of those that are there.
fn script(of: &Value, fields: &[&str]) -> Script {
    let there = fields.iter().map(|&field| &of[field]);
    Script::of(there.filter(|it| it.is_string()).flat_map(hex).collect())
}

/// One conversation, seen from both sides.
struct Both {
    introduction: Introduction,
    initiator: Begun,
    responder: Begun,
}

fn begin(network: &NetworkId, case: &Value) -> Both {
    let bob = InboxIdentity::from_seed(&hex_array(&case["responder_seed"]));
    let writer = &case["writer_seed"];
    let writer = (!writer.is_null()).then(|| InboxIdentity::from_seed(&hex_array(writer)));
    let pseudonym = DhSecret::from_bytes(&hex_array(&case["pseudonym_secret"]));
    let mut draws = script(case, &["e_secret", "secret"]);
    let begun = Introduction::begin(
        network,
        bob.address(),
        &pseudonym,
        writer.as_ref(),
        NOW,
        &mut draws,
    );
    let (introduction, initiator) = begun.unwrap();
    assert!(draws.is_used_up());
    let responder = introduction.accept(network, &bob, NOW).unwrap();
    Both {
        introduction,
        initiator,
        responder,
    }
}

/// Seals what a step says, and gets the same message.
fn seal(session: &mut Session, step: &Value, rooms: &Rooms) -> Vec<u8> {
    let draws = ["kem_seed", "kem_message", "ratchet", "nonce_random"];
    let mut draws = script(step, &draws);
    let now = step["now"].as_u64().map_or(NOW, WallTime);
    let sealed = session.seal(&hex(&step["contents"]), rooms, now, &mut draws);
    let sealed = sealed.unwrap_or_else(|fault| panic!("{fault:?}"));
    assert!(draws.is_used_up(), "{step}");
    assert_eq!(Some(sealed.class as u64), step["header"]["room"].as_u64());
    assert_eq!(sealed.message, hex(&step["message"]), "{}", step["seals"]);
    sealed.message
}

/// Opens a message, and gets the contents that it was made of, with zeros behind them.
fn open(session: &mut Session, message: &[u8], contents: &[u8]) {
    let body = session.open(message, NOW);
    let body = body.unwrap_or_else(|fault| panic!("{fault:?}"));
    let (text, zeros) = body.split_at(contents.len());
    assert_eq!(text, contents);
    assert!(zeros.iter().all(|&it| it == 0));
    assert_eq!(Contents::decode(&body).unwrap().encode(), contents);
}

#[test] // §11.1(1)
fn an_identity_has_the_x25519_form_of_the_vectors() {
    for case in list(&vectors()["identities"]) {
        let seed = hex_array(&case["seed"]);
        let key = SoundKey::of_seed(&seed);
        assert_eq!(key.as_bytes(), &hex_array(&case["address_key"]));
        let public = DhPublic(hex_array(&case["x25519_public"]));
        assert_eq!(dh_of_identity(&key), public);
        assert_eq!(dh_of_seed(&seed).public(), public);
        let secret = DhSecret::from_bytes(&hex_array(&case["x25519_secret"]));
        let other = DhSecret::from_bytes(&[7; 32]).public();
        let [ours, theirs] = [dh_of_seed(&seed), secret].map(|it| it.agree(&other).unwrap());
        assert_eq!(ours.as_bytes(), theirs.as_bytes());
    }
}

#[test] // §11.2(2), §11.2(5): without and with the writer's inbox
fn openings_are_those_of_the_vectors() {
    let vectors = vectors();
    let network = network(&vectors);
    let seal_key = SealSecret::from_seed(&[5; 32]);
    for case in list(&vectors["openings"]) {
        let mut both = begin(&network, case);
        let mut introduction = Vec::new();
        both.introduction.encode(&mut introduction);
        assert_eq!(introduction, hex(&case["introduction"]));
        assert_eq!(
            both.introduction.session_id().0,
            hex_array(&case["session_id"])
        );
        let rooms = opening_rooms(&both.introduction);
        let message = seal(&mut both.initiator.session, &case["first"], &rooms);

        let mut draws = Script::of(vec![3; 64]);
        let record = seal_opening(&seal_key.public(), &both.introduction, &message, &mut draws);
        let contents = hpke::open(&seal_key, b"umbel record 1", &record).unwrap();
        assert_eq!(*contents, hex(&case["record_contents"]));
        let Ok(Opened::Opening(opening)) = open_record(&seal_key, &record) else {
            panic!("it opens a conversation")
        };
        assert!(opening.introduction == both.introduction);
        let reader = &mut both.responder.session;
        open(reader, &opening.message, &hex(&case["first"]["contents"]));
    }
}

#[test] // §11.3(1), §11.3(3), §11.4(4), §11.4(5), §11.4(6): late and repeated ones, shares both ways
fn an_exchange_is_that_of_the_vectors() {
    let vectors = vectors();
    let mut both = begin(&network(&vectors), &vectors["openings"][0]);
    let opening = opening_rooms(&both.introduction);
    let steps = list(&vectors["exchange"]);
    // The first message waits for the end: all the others are opened before it.
    let first = &vectors["openings"][0]["first"];
    seal(&mut both.initiator.session, first, &opening);
    for step in steps {
        let session = match step["by"].as_str() {
            Some("initiator") => &mut both.initiator.session,
            _ => &mut both.responder.session,
        };
        // Each step begins from a stored state.
        *session = Session::restore(&session.state()).unwrap();
        if step["seals"].is_string() {
            let is_opening = step["rooms"].as_str() == Some("opening");
            let rooms = if is_opening {
                &opening
            } else {
                &ENVELOPE_ROOMS
            };
            seal(session, step, rooms);
            continue;
        }
        let opened = steps
            .iter()
            .find(|it| it["seals"] == step["opens"])
            .unwrap();
        let message = hex(&opened["message"]);
        if step["is_repeat"].as_bool() == Some(true) {
            let repeated = OpenFault::Repeated { is_copy: true };
            assert_eq!(session.open(&message, NOW).err(), Some(repeated));
        } else {
            open(session, &message, &hex(&opened["contents"]));
        }
    }
    let (message, contents) = (hex(&first["message"]), hex(&first["contents"]));
    open(&mut both.responder.session, &message, &contents);
}

#[test] // §11.5(1)
fn an_envelope_is_that_of_the_vectors() {
    let vectors = vectors();
    let (network, case) = (network(&vectors), &vectors["envelope"]);
    let queue = EnvelopeQueue {
        network: &network,
        holder: &RelayId(hex_array(&case["holder"])),
        queue: &QueueId(hex_array(&case["queue"])),
        sender_seed: &hex_array(&case["sender_seed"]),
    };
    let (message, record) = (hex(&case["message"]), hex(&case["record"]));
    let mut draws = script(case, &["salt"]);
    assert_eq!(queue.seal(&message, &mut draws), record);
    assert!(draws.is_used_up());
    assert_eq!(queue.open(&record), Ok(message));
}

#[test] // §11.6(1), §11.6(2): both sides have the recovery key that made the request
fn a_request_for_a_new_session_is_that_of_the_vectors() {
    let vectors = vectors();
    let case = &vectors["renewal"];
    let both = begin(&network(&vectors), &vectors["openings"][0]);
    let message = hex(&case["message"]);
    for recovery in [&both.initiator.recovery, &both.responder.recovery] {
        assert_eq!(recovery.request(&mut script(case, &["nonce"])), message);
        assert!(recovery.is_request(&message));
    }
}

#[test] // §11.7(1), §11.7(3)
fn digits_and_words_are_those_of_the_vectors() {
    let vectors = vectors();
    let network = network(&vectors);
    for case in list(&vectors["openings"]) {
        let introduction = begin(&network, case).introduction;
        let bob = InboxIdentity::from_seed(&hex_array(&case["responder_seed"]));
        let writer = introduction.writer_address().unwrap();
        let pseudonym = Party::Pseudonym(&introduction.pseudonym);
        let writer = writer.as_ref().map_or(pseudonym, Party::Inbox);
        let number = SafetyNumber::new(&network, writer, Party::Inbox(bob.address()));
        assert_eq!(Some(&*number.to_string()), case["safety_number"].as_str());
    }
    for case in list(&vectors["words"]) {
        let name = pseudonym_words(&DhPublic(hex_array(&case["pseudonym"])));
        let words: Vec<&str> = list(&case["words"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(name.split('-').collect::<Vec<_>>(), words);
    }
}

/// Contents, from their fields.
fn contents(case: &Value) -> Contents {
    let u64_of = |value: &Value| value.as_u64().unwrap();
    let number = case["number"].as_array().map(|it| Number {
        number: u64_of(&it[0]),
        floor: u64_of(&it[1]),
    });
    let ranges = list(&case["ranges"]).iter().map(|it| NumberRange {
        first: u64_of(&it[0]),
        last: u64_of(&it[1]),
    });
    let acknowledgement = Acknowledgement {
        next: u64_of(&case["next"]),
        ranges: ranges.collect(),
    };
    let mailbox = |it: &Value| Mailbox {
        relay: RelayId(hex_array(&it["relay"])),
        queue: QueueId(hex_array(&it["queue"])),
        sender_seed: hex_array(&it["sender_seed"]),
    };
    let items = list(&case["items"]).iter().map(|it| match &it["text"] {
        Value::Null => Item::Queues(list(&it["queues"]).iter().map(mailbox).collect()),
        text => Item::Text(ByteBuf::from(hex(text))),
    });
    Contents::new(
        number,
        MessageId(hex_array(&case["id"])),
        WallTime(u64_of(&case["written_at"])),
        acknowledgement,
        items.collect(),
    )
}

#[test] // §11.8(1)
fn contents_are_those_of_the_vectors() {
    for case in list(&vectors()["contents"]) {
        let encoded = hex(&case["encoded"]);
        assert_eq!(contents(case).encode(), encoded);
        assert!(Contents::decode(&encoded).is_ok_and(|it| it == contents(case)));
    }
}

#[test] // §11.1(1): an address tells its X25519 form
fn the_readers_address_is_all_that_a_writer_needs() {
    let case = &vectors()["identities"][0];
    let address = InboxAddress::from_key(&hex_array(&case["address_key"])).unwrap();
    let public = dh_of_identity(address.sound_key());
    assert_eq!(public, DhPublic(hex_array(&case["x25519_public"])));
}
