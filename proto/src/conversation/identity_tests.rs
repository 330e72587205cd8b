//! Who can write to whom, and as whom: strangers, thieves of keys, and keys that are none.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;

use super::contents::Item;
use super::opening::{Introduction, OpeningFault};
use super::session::OpenFault;
use super::thread::{Draft, Outgoing, ReadFault, Thread};
use crate::crypto::blind::{dh_of_identity, dh_of_seed};
use crate::crypto::dh::{DhPublic, DhSecret};
use crate::ids::{MessageId, NetworkId};
use crate::inbox::address::InboxIdentity;
use crate::inbox::record::{Opened, Opening, SealSecret, open_record, seal_opening};
use crate::time::WallTime;
use crate::wire::Reader;

const NETWORK: NetworkId = NetworkId([1; 32]);
const NOW: WallTime = WallTime(1_790_000_000);
/// Points of low order, as X25519 takes them: 0, 1, and one of order 8.
const LOW_ORDER: [[u8; 32]; 3] = {
    let mut one = [0; 32];
    one[0] = 1;
    let eighth = [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ];
    [[0; 32], one, eighth]
};

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

fn bob() -> InboxIdentity {
    InboxIdentity::from_seed(&[2; 32])
}

fn draft() -> Draft {
    Draft {
        id: MessageId([7; 16]),
        written_at: NOW,
        items: vec![Item::Text(vec![7; 3].into())],
    }
}

fn bytes(introduction: &Introduction) -> Vec<u8> {
    let mut bytes = Vec::new();
    introduction.encode(&mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Introduction {
    Introduction::decode(&mut Reader::new(bytes)).unwrap()
}

/// A thread that begins, and its first opening.
fn begin(writer: Option<&InboxIdentity>, rng: &mut ChaCha20Rng) -> (Thread, Opening) {
    let begun = Thread::begin(&NETWORK, bob().address(), writer, NOW, rng);
    let mut thread = begun.unwrap();
    let Ok(Outgoing::Opening(message)) = thread.write(&draft(), NOW, rng) else {
        panic!("it opens")
    };
    let introduction = decoded(&bytes(thread.introduction().unwrap()));
    let opening = Opening {
        introduction,
        message,
    };
    (thread, opening)
}

#[test] // §11.1(2)
fn each_conversation_has_a_pseudonym_of_its_own_and_keeps_it() {
    let mut rng = rng();
    let (mut one, _) = begin(None, &mut rng);
    let (other, _) = begin(None, &mut rng);
    let pseudonym = one.pseudonym();
    assert!(pseudonym.is_some() && pseudonym != other.pseudonym());
    let renewed = one.renew(&NETWORK, bob().address(), None, NOW, &mut rng);
    assert!(renewed.is_ok() && one.pseudonym() == pseudonym);
    let introduced = one.introduction().map(|it| it.pseudonym);
    assert_eq!(introduced, pseudonym);
}

#[test] // §11.1(3)
fn keys_of_low_order_begin_nothing() {
    let (_, opening) = begin(None, &mut rng());
    for key in LOW_ORDER {
        let mut forged = bytes(&opening.introduction);
        forged[32..64].copy_from_slice(&key);
        let begun = decoded(&forged).accept(&NETWORK, &bob(), NOW);
        assert_eq!(begun.err(), Some(OpeningFault::Key));
    }
}

#[test] // §11.1(3): a peer that names such a key in a header
fn a_ratchet_key_of_low_order_is_refused() {
    for key in LOW_ORDER {
        let (mut rng, opening) = (rng(), begin(None, &mut rng()).1);
        let begun = opening.introduction.accept(&NETWORK, &bob(), NOW);
        let mut reader = begun.unwrap().session;
        reader.open(&opening.message, NOW).unwrap();
        let forged = reader.forge_turn(DhPublic(key), &mut rng);
        let before = reader.state();
        assert_eq!(reader.open(&forged, NOW).err(), Some(OpenFault::Damaged));
        assert!(reader.state() == before);
    }
}

#[test] // §11.2(3), §11.2(8): what lets Bob deny an opening lets a thief of his seed make one
fn who_has_the_readers_seed_writes_to_him_as_anyone() {
    let (alice, bob) = (InboxIdentity::from_seed(&[3; 32]), bob());
    // Of Alice's the thief has the address only.
    let hers = dh_of_seed(&alice.seed()).agree(&dh_of_identity(bob.address().sound_key()));
    let his = dh_of_seed(&bob.seed()).agree(&dh_of_identity(alice.address().sound_key()));
    assert_eq!(hers.unwrap().as_bytes(), his.unwrap().as_bytes());
    // And nothing of an opening takes more than that: he makes her side of a session.
    let mut rng = rng();
    let pseudonym = DhSecret::generate(&mut rng);
    let begun = Introduction::begin(
        &NETWORK,
        bob.address(),
        &pseudonym,
        Some(&alice),
        NOW,
        &mut rng,
    );
    let (introduction, _) = begun.unwrap();
    let forged = introduction.accept(&NETWORK, &bob, NOW).unwrap();
    let again = introduction.accept(&NETWORK, &bob, NOW).unwrap();
    assert!(forged.session.state() == again.session.state());
}

#[test] // §11.2(8)
fn an_opening_stays_closed_without_the_key_that_it_was_sealed_to() {
    let mut rng = rng();
    let (thread, opening) = begin(None, &mut rng);
    let [kept, other] = [5, 6].map(|byte| SealSecret::from_seed(&[byte; 32]));
    let introduction = thread.introduction().unwrap();
    let record = seal_opening(&kept.public(), introduction, &opening.message, &mut rng);
    assert!(matches!(
        open_record(&kept, &record),
        Ok(Opened::Opening(_))
    ));
    assert!(open_record(&other, &record).is_err());
    // Whoever has Bob's seed, and guesses all but `secret`, which travels under that key.
    let mut guessed = bytes(&opening.introduction);
    guessed[..32].copy_from_slice(&[0; 32]);
    let guessed = Opening {
        introduction: decoded(&guessed),
        message: opening.message,
    };
    let read = Thread::accept(&NETWORK, &bob(), &guessed, NOW);
    assert_eq!(read.err(), Some(ReadFault::Lost(OpenFault::NotOurs)));
}

#[test] // §11.6(1), §11.6(4)
fn the_recovery_key_asks_and_opens_nothing() {
    let mut rng = rng();
    let (mut alice, opening) = begin(None, &mut rng);
    let begun = opening.introduction.accept(&NETWORK, &bob(), NOW).unwrap();
    let (mut bob, _) = Thread::accept(&NETWORK, &bob(), &opening, NOW).unwrap();
    let Ok(Outgoing::Envelope(answer)) = bob.write(&draft(), NOW, &mut rng) else {
        panic!("he answers")
    };
    for message in [&opening.message, &answer] {
        assert!(!begun.recovery.is_request(message));
    }
    let request = begun.recovery.request(&mut rng);
    assert_eq!(alice.read(&request, NOW).err(), Some(ReadFault::Renewal));
    assert_eq!(bob.read(&request, NOW).err(), Some(ReadFault::Copy));
    assert!(alice.read(&answer, NOW).is_ok(), "nothing changed");
    // Only she who has the pseudonym's secret opens anew.
    let renewed = bob.renew(&NETWORK, self::bob().address(), None, NOW, &mut rng);
    assert_eq!(renewed, Ok(Vec::new()));
    assert!(bob.introduction().is_none());
}
