//! Contacts as they are stored, named and forgotten, and the messages of their conversations.

use tempfile::TempDir;
use umbel_proto::crypto::dh::DhPublic;
use umbel_proto::inbox::address::InboxIdentity;
use zeroize::Zeroizing;

use super::super::key::DatabaseKey;
use super::super::migrate::StepContext;
use super::*;
use crate::core::io::{Letter, StoreOp};

const BOB: ContactKey = ContactKey([1; 16]);
const EVE: ContactKey = ContactKey([2; 16]);

fn database() -> (TempDir, Database) {
    let dir = TempDir::new().unwrap();
    let (path, key) = (
        dir.path().join("db"),
        DatabaseKey::generate(&mut rand::rng()),
    );
    std::fs::write(&path, b"").unwrap();
    Database::create(&path, &key).unwrap();
    let database = Database::open(&path, &key, &StepContext::for_test()).unwrap();
    (dir, database)
}

fn address(byte: u8) -> InboxAddress {
    *InboxIdentity::from_seed(&[byte; 32]).address()
}

fn card(address: Option<InboxAddress>, inbox: Option<&str>) -> ContactCard {
    ContactCard {
        inbox: inbox.map(str::to_owned),
        address,
        pseudonym: DhPublic([9; 32]),
        is_initiator: inbox.is_none(),
        is_stranger: inbox.is_some(),
        is_blocked: false,
    }
}

fn put(key: ContactKey, card: ContactCard) -> StoreOp {
    StoreOp::PutContact {
        key,
        card,
        state: Zeroizing::new(vec![key.0[0]; 3]),
    }
}

fn came(contact: ContactKey, byte: u8, inbox: Option<&str>) -> StoreOp {
    StoreOp::PutMessage {
        inbox: inbox.map(str::to_owned),
        id: MessageId([byte; 16]),
        body: format!("Message {byte}").into_bytes(),
        received_at: WallTime(1000 + u64::from(byte)),
        letter: Some(Letter {
            contact,
            number: u64::from(byte),
            session: 3,
            written_at: WallTime(900),
        }),
    }
}

fn wrote(contact: ContactKey, byte: u8) -> StoreOp {
    StoreOp::PutWritten {
        contact,
        id: MessageId([byte; 16]),
        body: vec![b'w'],
        written_at: WallTime(1000 + u64::from(byte)),
    }
}

fn apply(database: &mut Database, ops: &[StoreOp]) {
    assert!(database.apply(ops).iter().all(Result::is_ok));
}

fn ids(messages: &[StoredMessage]) -> Vec<u8> {
    messages.iter().map(|message| message.id.0[0]).collect()
}

fn history(database: &Database, contact: ContactKey, filter: &HistoryFilter) -> Vec<u8> {
    ids(&database.history(contact, filter, i64::MAX, 30).unwrap())
}

#[test]
fn a_contact_keeps_its_name_when_the_core_stores_it_anew() {
    let (_dir, mut database) = database();
    apply(&mut database, &[put(BOB, card(Some(address(1)), None))]);
    assert!(database.set_name(Named::Contact(BOB), Some("bob")).unwrap());
    database.set_verified(BOB, Some("123")).unwrap();
    let blocked = ContactCard {
        is_blocked: true,
        ..card(Some(address(1)), None)
    };
    apply(&mut database, &[put(BOB, blocked.clone())]);
    let stored = database.contact(BOB).unwrap().unwrap();
    assert_eq!(stored.card, blocked);
    assert_eq!(stored.name.as_deref(), Some("bob"));
    assert_eq!(stored.verified.as_deref(), Some("123"));
    let snapshot = database.snapshot(WallTime(0)).unwrap();
    assert_eq!(snapshot.contacts, [(BOB, Zeroizing::new(vec![1; 3]))]);
}

#[test]
fn a_name_is_of_one_contact_or_address() {
    let (_dir, mut database) = database();
    let ops = [
        put(BOB, card(Some(address(1)), None)),
        put(EVE, card(None, Some("main"))),
    ];
    apply(&mut database, &ops);
    let (bob, eve) = (Named::Contact(BOB), Named::Contact(EVE));
    let other = Named::Address(address(3));
    assert!(database.set_name(bob, Some("bob")).unwrap());
    assert!(database.set_name(bob, Some("bob")).unwrap(), "it has it");
    assert!(!database.set_name(eve, Some("bob")).unwrap());
    assert!(!database.set_name(other, Some("bob")).unwrap());
    assert!(database.set_name(other, Some("carol")).unwrap());
    assert!(!database.set_name(bob, Some("carol")).unwrap());
    assert!(database.set_name(bob, Some("robert")).unwrap());
    assert!(database.set_name(other, Some("bob")).unwrap(), "it is free");
    let named = database.named_addresses().unwrap();
    assert_eq!(named, [("bob".to_owned(), address(3))]);
}

#[test]
fn the_first_message_to_a_named_address_gives_its_contact_the_name() {
    let (_dir, mut database) = database();
    let named = Named::Address(address(1));
    assert!(database.set_name(named, Some("bob")).unwrap());
    // One that wrote by itself is not the one that the user named.
    apply(
        &mut database,
        &[put(EVE, card(Some(address(1)), Some("main")))],
    );
    assert_eq!(database.contact(EVE).unwrap().unwrap().name, None);
    apply(&mut database, &[put(BOB, card(Some(address(1)), None))]);
    let stored = database.contact(BOB).unwrap().unwrap();
    assert_eq!(stored.name.as_deref(), Some("bob"));
    assert_eq!(database.named_addresses().unwrap(), []);
}

#[test] // §11.8(2)
fn own_messages_are_in_the_history_and_not_among_those_that_came() {
    let (_dir, mut database) = database();
    let ops = [
        put(BOB, card(None, Some("main"))),
        came(BOB, 5, Some("main")),
        wrote(BOB, 6),
        wrote(BOB, 6),
        came(EVE, 7, None),
    ];
    apply(&mut database, &ops);
    let all = HistoryFilter::default();
    assert_eq!(history(&database, BOB, &all), [6, 5], "the last first");
    assert_eq!(ids(&database.messages(None, 0).unwrap()), [5, 7]);
    assert_eq!(ids(&database.unread(None, 0).unwrap()), [5, 7]);
    assert_eq!(ids(&database.unread(Some("main"), 0).unwrap()), [5]);
    assert_eq!(database.messages_named("06").unwrap().len(), 0);
    assert_eq!(database.older(WallTime(5000), None).unwrap().len(), 2);
    let counts = [(String::new(), 1), ("main".to_owned(), 1)];
    assert_eq!(database.unread_counts().unwrap(), counts);
    assert_eq!(database.contact(BOB).unwrap().unwrap().unread, 1);

    let messages = database.messages(None, 0).unwrap();
    assert_eq!(messages[1].inbox, None);
    let place = messages[0].conversation.unwrap();
    assert_eq!((place.number, place.session), (Some(5), Some(3)));
    assert_eq!((place.written_at, place.is_own), (WallTime(900), false));
}

#[test]
fn a_conversation_is_searched_by_text_and_time_a_page_at_a_time() {
    let (_dir, mut database) = database();
    let ops: Vec<StoreOp> = (1..=40).map(|byte| came(BOB, byte, None)).collect();
    apply(&mut database, &ops);
    let search = |text: &str| HistoryFilter {
        search: Some(text.to_owned()),
        ..HistoryFilter::default()
    };
    assert_eq!(history(&database, BOB, &search("MESSAGE 1")).len(), 11);
    assert_eq!(history(&database, BOB, &search("message 17")), [17]);
    assert!(history(&database, BOB, &search("nothing")).is_empty());
    let since = HistoryFilter {
        since: Some(WallTime(1039)),
        ..HistoryFilter::default()
    };
    assert_eq!(history(&database, BOB, &since), [40, 39]);
    assert!(history(&database, EVE, &since).is_empty());
    let all = HistoryFilter::default();
    let page = |before, limit| database.history(BOB, &all, before, limit).unwrap();
    assert_eq!(page(i64::MAX, 1000).len(), 32, "a page");
    let last = page(i64::MAX, 2);
    assert_eq!(ids(&last), [40, 39]);
    assert_eq!(ids(&page(last[1].seq, 2)), [38, 37]);
}

#[test] // §11.8(4)
fn what_became_of_an_own_message_is_noted_when_it_leaves_the_outbox() {
    let (_dir, mut database) = database();
    let id = |byte| MessageId([byte; 16]);
    let gone = |byte, last| StoreOp::RemoveOutbox { id: id(byte), last };
    let expired = |byte, copies| Notice::Expired {
        id: id(byte),
        copies,
        wanted: 2,
    };
    let cancelled = |byte, copies| {
        Notice::Cancelled(Cancelled {
            id: id(byte),
            copies,
        })
    };
    let mut ops: Vec<StoreOp> = (1..=6).map(|byte| wrote(BOB, byte)).collect();
    ops.extend([
        gone(1, Notice::Acknowledged(id(1))),
        gone(2, expired(2, Copies::Held(1))),
        gone(3, expired(3, Copies::InDoubt)),
        gone(4, cancelled(4, Copies::None)),
        gone(5, expired(5, Copies::None)),
    ]);
    apply(&mut database, &ops);
    let messages = database
        .history(BOB, &HistoryFilter::default(), i64::MAX, 30)
        .unwrap();
    let places: Vec<Conversed> = messages
        .iter()
        .rev()
        .filter_map(|it| it.conversation)
        .collect();
    assert!(places[0].acknowledged_at.is_some() && places[1].acknowledged_at.is_none());
    let fates: Vec<Option<Fate>> = places.iter().map(|place| place.fate).collect();
    let expected = [
        None,
        Some(Fate::Held),
        Some(Fate::InDoubt),
        Some(Fate::Cancelled),
        Some(Fate::Failed),
        None,
    ];
    assert_eq!(fates, expected);
}

#[test]
fn a_contact_that_is_removed_leaves_only_ids_of_what_came() {
    let (_dir, mut database) = database();
    let ops = [
        put(BOB, card(None, Some("main"))),
        came(BOB, 5, Some("main")),
        wrote(BOB, 6),
        came(EVE, 7, Some("main")),
        StoreOp::RemoveContact(BOB),
    ];
    apply(&mut database, &ops);
    assert!(database.contact(BOB).unwrap().is_none());
    assert!(history(&database, BOB, &HistoryFilter::default()).is_empty());
    assert_eq!(ids(&database.messages(None, 0).unwrap()), [7]);
    apply(&mut database, &[came(BOB, 5, Some("main"))]);
    assert_eq!(
        ids(&database.messages(None, 0).unwrap()),
        [7],
        "it came again"
    );
}

#[test]
fn messages_of_conversations_are_known_to_their_contacts_and_not_to_inboxes() {
    let (_dir, mut database) = database();
    let one_way = StoreOp::PutMessage {
        inbox: Some("main".to_owned()),
        id: MessageId([4; 16]),
        body: Vec::new(),
        received_at: WallTime(1004),
        letter: None,
    };
    let ops = [
        came(BOB, 5, Some("main")),
        one_way,
        wrote(BOB, 6),
        came(EVE, 7, None),
    ];
    apply(&mut database, &ops);
    let seq = database.messages_named("05").unwrap()[0].seq;
    database.delete(&[seq], WallTime(2000)).unwrap();
    let snapshot = database.snapshot(WallTime(1000)).unwrap();
    assert_eq!(snapshot.received, [("main".to_owned(), MessageId([4; 16]))]);
    let mut from = snapshot.received_from;
    from.sort_unstable();
    assert_eq!(from, [(BOB, MessageId([5; 16])), (EVE, MessageId([7; 16]))]);
}

#[test]
fn ops_that_belong_together_are_stored_together_or_not_at_all() {
    let (_dir, mut database) = database();
    let together = |byte| {
        StoreOp::Together(vec![
            came(BOB, byte, None),
            put(BOB, card(Some(address(1)), None)),
        ])
    };
    apply(&mut database, &[together(5)]);
    assert_eq!(database.contacts().unwrap().len(), 1);
    database
        .connection
        .execute_batch("DROP TABLE contacts")
        .unwrap();
    let results = database.apply(&[together(6), came(EVE, 7, None)]);
    assert!(results[0].is_err() && results[1].is_ok());
    assert_eq!(ids(&database.messages(None, 0).unwrap()), [5, 7]);
}
