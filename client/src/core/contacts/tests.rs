//! Contacts by themselves, with a store that takes everything.

use umbel_proto::conversation::contents::Item;
use umbel_proto::conversation::opening::Introduction;
use umbel_proto::conversation::thread::Outgoing;
use umbel_proto::network::Network;
use umbel_proto::time::WallTime;
use umbel_proto::wire::Reader;

use super::super::io::{Notice, Stored};
use super::super::testing::When;
use super::*;

const WALL: WallTime = WallTime(1_790_000_000);

/// A stranger's first message to this inbox.
fn opening(cx: &mut Context<'_>, to: &InboxIdentity, number: usize) -> Opening {
    let network = Network::local().id;
    let mut thread = Thread::begin(&network, to.address(), None, WALL, cx.rng).unwrap();
    let mut id = MessageId([0; 16]);
    id.0[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let draft = Draft {
        id,
        written_at: WALL,
        items: vec![Item::Text(b"hello".to_vec().into())],
    };
    let Ok(Outgoing::Opening(message)) = thread.write(&draft, WALL, cx.rng) else {
        panic!("it opens the conversation")
    };
    let mut bytes = Vec::new();
    thread.introduction().unwrap().encode(&mut bytes);
    Opening {
        introduction: Introduction::decode(&mut Reader::new(&bytes)).unwrap(),
        message,
    }
}

fn at(number: usize) -> (MailboxId, RecordId) {
    let mut record = [0; RecordId::LEN];
    record[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let owner = Owner::Inbox(InboxId(0));
    let queue = QueueId([0; QueueId::LEN]);
    (MailboxId { owner, queue }, RecordId(record))
}

/// The store takes what it is asked to.
fn store(contacts: &mut Contacts, cx: &mut Context<'_>) {
    let inboxes = Inboxes::default();
    contacts.drive(cx, &mut Requests::default(), &inboxes, &Paths::default());
    for (ticket, _) in core::mem::take(&mut cx.out.stores) {
        if let Stored::Contact(id, changes) = ticket.stored {
            contacts.on_stored(cx, &mut Visits::default(), (id, changes), true);
        }
    }
}

#[test]
fn of_too_many_strangers_the_first_is_forgotten_and_may_write_again() {
    When::at(WALL).act(|cx| {
        let bob = InboxIdentity::from_seed(&[3; 32]);
        let mut contacts = Contacts::default();
        let first = opening(cx, &bob, 0);
        for number in 0..=STRANGERS_MAX {
            let other = opening(cx, &bob, number);
            let opening = if number == 0 { &first } else { &other };
            let taken = contacts.take_stranger(cx, ("help", &bob), at(number), opening);
            assert!(matches!(taken, Taken::Held));
            store(&mut contacts, cx);
        }
        let has_first = |contacts: &Contacts| {
            let mut all = contacts.by_id.values();
            all.any(|it| it.pseudonym == first.introduction.pseudonym)
        };
        assert_eq!(contacts.by_id.len(), STRANGERS_MAX);
        assert!(!has_first(&contacts));
        let taken = contacts.take_stranger(cx, ("help", &bob), at(9999), &first);
        assert!(matches!(taken, Taken::Held) && has_first(&contacts));
        assert_eq!(contacts.by_id.len(), STRANGERS_MAX);
        let other_inbox = opening(cx, &bob, 1);
        contacts.take_stranger(cx, ("other", &bob), at(1), &other_inbox);
        assert_eq!(
            contacts.by_id.len(),
            STRANGERS_MAX + 1,
            "each inbox by itself"
        );
    });
}

#[test] // §11.9(7)
fn who_was_removed_does_not_begin_the_conversation_anew() {
    let ((), notices) = When::at(WALL).act(|cx| {
        let bob = InboxIdentity::from_seed(&[3; 32]);
        let mut contacts = Contacts::default();
        let first = opening(cx, &bob, 0);
        contacts.take_stranger(cx, ("help", &bob), at(0), &first);
        store(&mut contacts, cx);
        let key = contacts.by_id.values().next().unwrap().key;
        contacts.remove(cx, key, &mut Visits::default());
        let state = cx.out.stores.iter().find_map(|(_, op)| match op {
            StoreOp::PutGone(state) => Some(state.clone()),
            _ => None,
        });
        let mut restored = Contacts::default();
        restored.restore_gone(&state.unwrap()).unwrap();
        for contacts in [&mut contacts, &mut restored] {
            let taken = contacts.take_stranger(cx, ("help", &bob), at(1), &first);
            assert!(matches!(taken, Taken::Useless));
        }
        let other = opening(cx, &bob, 1);
        let taken = contacts.take_stranger(cx, ("help", &bob), at(2), &other);
        assert!(matches!(taken, Taken::Held));
    });
    let begun = notices.iter();
    let begun = begun.filter(|it| matches!(it, Notice::Conversation { .. }));
    assert_eq!(begun.count(), 2);
}
