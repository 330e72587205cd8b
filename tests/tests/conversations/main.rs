//! Conversations between real cores (docs/protocol.md §11): strangers write, owners answer, and nothing
//! is lost on the way.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod crashes;

use std::collections::BTreeMap;

use umbel_client::core::{
    ContactCard, ContactKey, ConversationEvent, Copies, Core, Notice, Recipient, SendFault, Wish,
};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::mailbox::QueueKind;
use umbel_proto::network::Network;
use umbel_proto::time::{Duration, Instant};
use umbel_tests::scenario::{ALICE, BOB, body, listen, patient};
use umbel_tests::{ClientName, RelayName, World};

/// Alice and Bob, who has an inbox and fetches for it.
fn world(seed: u64) -> (World, InboxAddress) {
    let mut world = World::new(seed).relays(12).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    (world, address)
}

/// She fetches the answers to what she writes.
fn listen_for_answers(world: &mut World, name: ClientName) {
    let is_interactive = true;
    world.wish(name, Wish::ListenForAnswers { is_interactive });
}

fn owner(address: InboxAddress) -> Recipient {
    let writer = None;
    Recipient::Owner { address, writer }
}

/// The only contact of a client.
fn contact(world: &World, name: ClientName) -> (ContactKey, ContactCard) {
    let cards = &world.client(name).disk.cards;
    assert_eq!(cards.len(), 1, "there is one contact");
    let first = cards.first_key_value();
    first.map(|(key, card)| (*key, card.clone())).unwrap()
}

fn reply(world: &mut World, name: ClientName, body: Vec<u8>) -> MessageId {
    let to = Recipient::Contact(contact(world, name).0);
    world.send_to(name, to, body)
}

/// The messages that a client has, in the order in which they were written, by number.
fn came(world: &World, name: ClientName) -> Vec<MessageId> {
    let disk = &world.client(name).disk;
    let letter = |id: &MessageId| disk.letters.get(id).map(|it| (it.session, it.number));
    let mut came: Vec<_> = disk.messages.iter().map(|(_, id, _)| *id).collect();
    came.sort_by_key(letter);
    came
}

fn is_acknowledged(world: &World, name: ClientName, id: MessageId) -> bool {
    world.has_notice(name, |notice| *notice == Notice::Acknowledged(id))
}

#[test] // §11.2, §11.8
fn a_stranger_writes_and_is_answered() {
    let (mut world, address) = world(1);
    listen_for_answers(&mut world, ALICE);
    let hello = world.send_to(ALICE, owner(address), b"hello".to_vec());
    world.expect_within(Duration::from_secs(60), |world| {
        world.message_count(BOB) == 1
    });
    assert_eq!(came(&world, BOB), [hello]);
    let (_, card) = contact(&world, BOB);
    assert!(card.is_stranger && !card.is_initiator && card.address.is_none());
    assert_eq!(card.pseudonym, contact(&world, ALICE).1.pseudonym);
    let answer = reply(&mut world, BOB, b"who is it?".to_vec());
    world.expect_within(Duration::from_secs(60), |world| {
        world.message_count(ALICE) == 1 && is_acknowledged(world, ALICE, hello)
    });
    assert_eq!(came(&world, ALICE), [answer]);
    assert!(!contact(&world, BOB).1.is_stranger);
    let third = world.send_to(ALICE, owner(address), b"a friend".to_vec());
    world.expect_within(Duration::from_secs(60), |world| {
        world.message_count(BOB) == 2 && is_acknowledged(world, BOB, answer)
    });
    assert_eq!(came(&world, BOB), [hello, third]);
}

/// Both write so many messages, in bursts, through what happens after each burst; then they wait until
/// all has come. Returns what each wrote, in order.
fn converse(
    world: &mut World,
    address: InboxAddress,
    (bursts, burst_len): (usize, usize),
    mut between: impl FnMut(&mut World, usize),
) -> [Vec<MessageId>; 2] {
    let hello = world.send_to(ALICE, owner(address), b"hello".to_vec());
    world.expect_within(Duration::from_secs(60), |world| {
        world.message_count(BOB) == 1
    });
    let mut written = [vec![hello], Vec::new()];
    for burst in 0..bursts {
        for number in 0..burst_len {
            let text = body(number, 20 + number);
            written[0].push(world.send_to(ALICE, owner(address), text.clone()));
            written[1].push(reply(world, BOB, text));
            world.run_for(Duration::from_millis(300));
        }
        between(world, burst);
    }
    let all_came = |world: &World| {
        let counts = [BOB, ALICE].map(|name| world.message_count(name));
        counts == [written[0].len(), written[1].len()]
    };
    assert!(
        world.run_until(Duration::from_secs(24 * 3600), all_came),
        "{:?} of {:?}",
        [BOB, ALICE].map(|name| world.message_count(name)),
        [written[0].len(), written[1].len()]
    );
    written
}

fn restart(world: &mut World, name: ClientName) {
    world.crash_client(name);
    world.restart_client(name);
    if name == BOB {
        listen(world, true);
    } else {
        listen_for_answers(world, ALICE);
    }
}

#[test] // §11.9(5)
fn what_a_full_disk_could_not_take_comes_once_there_is_room() {
    for (seed, name) in [(130, ALICE), (131, BOB)] {
        let (mut world, address) = acquainted(seed);
        let before = [ALICE, BOB].map(|name| world.message_count(name));
        world.set_client_disk_full(name, true);
        for number in 0..100 {
            world.send_to(ALICE, owner(address), body(number, 30));
            reply(&mut world, BOB, body(number, 30));
            world.run_for(Duration::from_millis(200));
        }
        world.run_for(Duration::from_secs(60));
        let at_full = world.message_count(name);
        let place = usize::from(name == BOB);
        assert_eq!(at_full, before[place], "it took nothing");
        world.set_client_disk_full(name, false);
        let all = |world: &World| {
            let (alice, bob) = (world.message_count(ALICE), world.message_count(BOB));
            (alice, bob) == (before[0] + 100, before[1] + 100)
        };
        world.expect_within(Duration::from_secs(3600), all);
        assert_eq!(world.client(name).disk.duplicates, 0);
    }
}

#[test] // §11.9(3)
fn what_came_is_acknowledged_hours_later_and_to_no_stranger() {
    let mut world = World::with_overlay(140, patient()).founders(12).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, false);
    world.wish(
        ALICE,
        Wish::ListenForAnswers {
            is_interactive: false,
        },
    );
    let hello = world.send_to(ALICE, owner(address), b"hello".to_vec());
    world.run_for(Duration::from_secs(7 * 3600));
    assert!(!is_acknowledged(&world, ALICE, hello), "she is a stranger");
    let answer = reply(&mut world, BOB, b"yes?".to_vec());
    world.run_for(Duration::from_secs(9 * 60));
    assert!(is_acknowledged(&world, ALICE, hello));
    assert!(!is_acknowledged(&world, BOB, answer), "not at once");
    world.expect_within(Duration::from_secs(6 * 3600), |world| {
        is_acknowledged(world, BOB, answer)
    });
}

#[test] // §11.8(2)
fn messages_each_way_arrive_once_and_in_order_through_restarts() {
    let (mut world, address) = world(2);
    listen_for_answers(&mut world, ALICE);
    let written = converse(&mut world, address, (10, 20), |world, burst| {
        restart(world, [ALICE, BOB][burst % 2]);
    });
    for (name, written) in [BOB, ALICE].into_iter().zip(&written) {
        assert_eq!(came(&world, name), *written);
        assert_eq!(world.client(name).disk.duplicates, 0);
    }
}

/// What befalls the world after a burst: a client starts anew, a relay goes and another comes back, a
/// holder loses what it holds, the user waits for a while.
fn befall(world: &mut World, burst: usize) {
    let relays = world.all_relays().len();
    let relay = RelayName(burst * 7 % relays);
    let other = RelayName((burst * 7 + 3) % relays);
    match burst % 5 {
        0 => restart(world, ALICE),
        1 => restart(world, BOB),
        2 => {
            if world.relay(relay).is_up() {
                world.crash_relay(relay);
            }
        }
        3 => {
            if world.relay(other).is_up() {
                world.crash_relay(other);
            }
            world.relay(other).disk.lose_records();
            world.restart_relay(other);
        }
        _ => {
            let down = (0..relays).map(RelayName);
            let down: Vec<_> = down.filter(|&it| !world.relay(it).is_up()).collect();
            down.into_iter().for_each(|it| world.restart_relay(it));
        }
    }
    if burst % 20 == 19 {
        world.add_relay();
        world.run_for(Duration::from_secs(1200));
    }
}

#[test] // §11.8
fn ten_thousand_each_way_arrive_through_churn_and_losses() {
    let (mut world, address) = world(3);
    listen_for_answers(&mut world, ALICE);
    let written = converse(&mut world, address, (100, 100), befall);
    for (name, written) in [BOB, ALICE].into_iter().zip(&written) {
        assert_eq!(came(&world, name), *written);
        assert_eq!(world.client(name).disk.duplicates, 0);
    }
}

fn was_told(world: &World, name: ClientName, event: ConversationEvent) -> bool {
    let is_it =
        |notice: &Notice| matches!(notice, Notice::Conversation { event: it, .. } if *it == event);
    world.has_notice(name, is_it)
}

/// They have exchanged a message each way, and Alice knows that Bob has hers.
fn acquainted(seed: u64) -> (World, InboxAddress) {
    let (mut world, address) = world(seed);
    listen_for_answers(&mut world, ALICE);
    converse(&mut world, address, (1, 20), |_, _| ());
    (world, address)
}

#[test] // §11.6(2), §11.6(3), §11.9(6)
fn a_restored_backup_of_either_side_is_healed_and_both_are_told() {
    for (seed, name) in [(10, ALICE), (11, BOB)] {
        let (mut world, address) = acquainted(seed);
        let backup = world.client(name).disk.clone();
        for number in 0..20 {
            world.send_to(ALICE, owner(address), body(number, 30));
            reply(&mut world, BOB, body(number, 40));
            world.run_for(Duration::from_secs(2));
        }
        world.run_for(Duration::from_secs(60));
        world.restore_client(name, backup);
        restart(&mut world, name);
        let mut after = [Vec::new(), Vec::new()];
        for number in 0..20 {
            after[0].push(world.send_to(ALICE, owner(address), body(number, 50)));
            after[1].push(reply(&mut world, BOB, body(number, 60)));
            world.run_for(Duration::from_secs(60));
        }
        let has_all = |world: &World| {
            let has = |name: ClientName, ids: &[MessageId]| {
                let came = came(world, name);
                ids.iter().all(|id| came.contains(id))
            };
            has(BOB, &after[0]) && has(ALICE, &after[1])
        };
        world.expect_within(Duration::from_secs(24 * 3600), has_all);
        for name in [ALICE, BOB] {
            assert!(
                was_told(&world, name, ConversationEvent::Renewed),
                "{name:?}"
            );
            assert_eq!(world.client(name).disk.duplicates, 0);
        }
    }
}

#[test] // §11.2(3)
fn who_writes_as_an_inbox_is_known_to_own_it() {
    let (mut world, address) = world(20);
    let own = world.create_inbox(ALICE, "alice");
    let writer = Some("alice".to_owned());
    world.send_to(
        ALICE,
        Recipient::Owner { address, writer },
        b"it is me".to_vec(),
    );
    world.expect_within(Duration::from_secs(60), |world| {
        world.message_count(BOB) == 1
    });
    assert_eq!(contact(&world, BOB).1.address, Some(own));
    assert_eq!(contact(&world, ALICE).1.inbox.as_deref(), Some("alice"));
    let nobody = Some("nobody".to_owned());
    let to = Recipient::Owner {
        address,
        writer: nobody,
    };
    let id = world.send_to(ALICE, to, b"and me".to_vec());
    let reason = SendFault::NoInbox;
    world.expect_within(Duration::from_secs(60), |world| {
        world.has_notice(ALICE, |it| *it == Notice::Failed { id, reason })
    });
}

#[test] // §11.9(1)
fn queues_of_contacts_have_holders_of_their_own_and_are_replaced_with_them() {
    let (mut world, address) = acquainted(30);
    let holding = |world: &World| -> Vec<RelayName> {
        let relays = world.all_relays().iter().enumerate();
        let holding = relays.filter(|(_, relay)| relay.disk.has_queues());
        holding.map(|(number, _)| RelayName(number)).collect()
    };
    assert!(
        holding(&world).len() >= 5,
        "three public ones, two of each side"
    );
    // Whoever holds them, each loses its queues in turn, and mail goes on.
    for relay in holding(&world) {
        world.crash_relay(relay);
        world.relay(relay).disk.lose_queues();
        world.restart_relay(relay);
        let texts = [
            world.send_to(ALICE, owner(address), b"still there?".to_vec()),
            reply(&mut world, BOB, b"yes".to_vec()),
        ];
        let both_came = |world: &World| {
            came(world, BOB).contains(&texts[0]) && came(world, ALICE).contains(&texts[1])
        };
        world.expect_within(Duration::from_secs(3600), both_came);
    }
}

#[test]
fn nothing_is_read_of_a_blocked_contact_until_it_is_unblocked() {
    let (mut world, address) = acquainted(40);
    let block = |world: &mut World, is_blocked| {
        let contact = contact(world, BOB).0;
        world.wish(
            BOB,
            Wish::Block {
                contact,
                is_blocked,
            },
        );
    };
    let before = world.message_count(BOB);
    block(&mut world, true);
    let id = world.send_to(ALICE, owner(address), b"hear me".to_vec());
    world.run_for(Duration::from_secs(600));
    assert_eq!(world.message_count(BOB), before);
    block(&mut world, false);
    world.expect_within(Duration::from_secs(600), |world| {
        came(world, BOB).contains(&id)
    });
}

#[test] // §10.2(9), §11.9(7)
fn a_contact_that_is_removed_leaves_nothing_behind() {
    let (mut world, address) = acquainted(50);
    let contact = contact(&world, BOB).0;
    let queues = |world: &World| {
        let relays = world.all_relays().iter();
        let mailboxes = relays.flat_map(|relay| relay.disk.mailboxes());
        mailboxes
            .filter(|(kind, _)| *kind == QueueKind::Contact)
            .count()
    };
    assert_eq!(queues(&world), 4, "two of each side");
    reply(&mut world, BOB, b"wait".to_vec());
    world.wish(BOB, Wish::RemoveContact(contact));
    world.expect_within(Duration::from_secs(1200), |world| queues(world) == 2);
    assert!(world.client(BOB).disk.cards.is_empty());
    assert_eq!(world.client(BOB).disk.outbox_len(), 0);
    restart(&mut world, BOB);
    world.send_to(ALICE, owner(address), b"hello?".to_vec());
    world.run_for(Duration::from_secs(60));
    assert!(world.client(BOB).disk.cards.is_empty());
}

#[test] // §11.8(3), §11.9(4)
fn a_message_that_is_taken_back_is_told_to_be_lost() {
    let (mut world, address) = acquainted(60);
    (0..12).for_each(|relay| world.crash_relay(RelayName(relay)));
    let id = world.send_to(ALICE, owner(address), b"never mind".to_vec());
    world.run_for(Duration::from_secs(30));
    world.wish(ALICE, Wish::Cancel(id));
    (0..12).for_each(|relay| world.restart_relay(RelayName(relay)));
    let gap_is_told = ConversationEvent::Missing(1);
    world.send_to(ALICE, owner(address), b"good day".to_vec());
    world.expect_within(Duration::from_secs(600), |world| {
        was_told(world, BOB, gap_is_told)
    });
    // She hears what is missing, and the floor of her next message is above it.
    world.run_for(Duration::from_secs(600));
    world.send_to(ALICE, owner(address), b"good bye".to_vec());
    world.expect_within(Duration::from_secs(600), |world| {
        was_told(world, BOB, ConversationEvent::Lost(1))
            && was_told(world, BOB, ConversationEvent::Complete)
    });
}

/// Another client than these two.
const CAROL: ClientName = ClientName(2);

#[test] // §11.5, §12
fn no_bytes_at_a_holder_link_two_queues_or_name_anyone() {
    let (mut world, address) = acquainted(70);
    let carol = world.add_client();
    assert_eq!(carol, CAROL);
    listen_for_answers(&mut world, CAROL);
    world.send_to(CAROL, owner(address), b"another".to_vec());
    world.expect_within(Duration::from_secs(60), |world| {
        world.client(BOB).disk.cards.len() == 2
    });
    world.crash_client(BOB);
    // Copies at both holders of each contact's queue, and at all of the public one.
    world.send_to(ALICE, owner(address), b"are you there?".to_vec());
    world.send_to(CAROL, owner(address), b"and you?".to_vec());
    world.run_for(Duration::from_secs(60));
    let names: Vec<Vec<u8>> = [ALICE, BOB, CAROL]
        .into_iter()
        .flat_map(|name| &world.client(name).disk.cards)
        .flat_map(|(key, card)| [key.0.to_vec(), card.pseudonym.0.to_vec()])
        .chain([address.key().to_vec()])
        .collect();
    let mut seen = BTreeMap::new();
    let mut count = 0;
    for (number, relay) in world.all_relays().iter().enumerate() {
        for (place, (kind, bytes)) in relay.disk.mailboxes().enumerate() {
            count += 1;
            for window in bytes.windows(16) {
                let of = seen.entry(window.to_vec()).or_insert((number, place));
                assert_eq!(*of, (number, place), "{kind:?} has bytes of another");
            }
            for name in &names {
                let is_in = bytes.windows(name.len()).any(|it| it == name);
                assert!(!is_in, "{kind:?} names somebody");
            }
        }
    }
    assert!(count >= 3 + 2 + 2 + 2, "all queues were looked at: {count}");
}

#[test] // §11.9(1)
fn no_holder_has_a_queue_of_a_contact_and_one_of_the_inbox() {
    for seed in 80..84 {
        let mut world = World::new(seed).relays(16).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        listen_for_answers(&mut world, ALICE);
        converse(&mut world, address, (1, 2), |_, _| ());
        let bobs = world.client(BOB).core().map(Core::holders);
        let (public, contacts) = bobs.unwrap_or_default();
        assert!(public.len() >= 3 && contacts.len() >= 2);
        assert!(public.is_disjoint(&contacts), "{public:?} {contacts:?}");
    }
}

#[test] // §11.9(2)
fn a_newsroom_that_was_away_gets_every_tip_that_was_held() {
    let mut network = patient();
    network.params.selectable_age = Duration::ZERO;
    let mut world = World::with_overlay(90, network).founders(12).clients(3);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    listen_for_answers(&mut world, ALICE);
    converse(&mut world, address, (1, 2), |_, _| ());
    world.run_for(Duration::from_secs(300));
    world.crash_client(BOB);
    let tips: Vec<(ClientName, MessageId)> = (0..6)
        .map(|number| {
            let from = [ALICE, CAROL][number % 2];
            world.run_for(Duration::from_secs(20));
            (from, world.send_to(from, owner(address), body(number, 200)))
        })
        .collect();
    let all_held = |world: &World| {
        tips.iter().all(|&(from, tip)| {
            world.has_notice(from, |notice| {
                matches!(notice, Notice::Held { id, holders, wanted } if *id == tip && holders >= wanted)
            })
        })
    };
    world.expect_within(Duration::from_secs(3600), all_held);
    world.run_for(Duration::from_secs(3 * 3600));
    world.crash_client(ALICE);
    world.crash_client(CAROL);
    // Two of three public holders, one of two of the contact's, half of the positions.
    let holding = |world: &World, kind: QueueKind| -> Vec<usize> {
        let relays = world.all_relays().iter().enumerate();
        let holding = relays.filter(|(_, relay)| {
            let mut mailboxes = relay.disk.mailboxes();
            mailboxes.any(|(it, bytes)| it == kind && bytes.len() > 1000)
        });
        holding.map(|(number, _)| number).collect()
    };
    let (public, contact) = (
        holding(&world, QueueKind::Public),
        holding(&world, QueueKind::Contact),
    );
    assert!(
        public.len() >= 3 && contact.len() >= 2,
        "{public:?} {contact:?}"
    );
    for relay in public[..2].iter().chain(&contact[..1]) {
        world.crash_relay(RelayName(*relay));
        world.relay(RelayName(*relay)).disk.lose_queues();
    }
    for relay in (0..12).step_by(2).map(RelayName) {
        world.relay(relay).disk.lose_inbox_descriptors();
    }
    world.run_for(Duration::from_secs(8 * 24 * 3600));
    for name in [ALICE, BOB, CAROL] {
        world.restart_client(name);
    }
    listen(&mut world, true);
    listen_for_answers(&mut world, ALICE);
    let missing = |world: &World| {
        let came = came(world, BOB);
        tips.iter().filter(|(_, tip)| !came.contains(tip)).count()
    };
    let all_came = world.run_until(Duration::from_secs(24 * 3600), |world| missing(world) == 0);
    assert!(
        all_came,
        "{} of {} tips are missing",
        missing(&world),
        tips.len()
    );
}

/// How long each of so many messages of Alice's takes to Bob, sorted.
fn latencies(world: &mut World, address: InboxAddress, count: usize) -> Vec<Duration> {
    let mut sent = BTreeMap::new();
    for number in 0..count {
        let id = world.send_to(ALICE, owner(address), body(number, 100));
        sent.insert(id, world.now());
        world.run_for(Duration::from_secs(2));
    }
    world.run_for(Duration::from_secs(300));
    let took = |(at, notice): &(Instant, Notice)| match notice {
        Notice::Received { id, .. } => sent.get(id).map(|&begun| at.since(begun)),
        _ => None,
    };
    let mut took: Vec<Duration> = world.client(BOB).notices.iter().filter_map(took).collect();
    took.sort();
    took
}

#[test] // §10.1(7), §11.9(1)
fn a_flood_of_strangers_does_not_slow_contacts_down() {
    let mut network = Network::local();
    network.params.public_records_max = 64;
    network.params.public_bytes_max = 128 << 10;
    let mut world = World::with_overlay(100, network).relays(12).clients(3);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    listen_for_answers(&mut world, ALICE);
    converse(&mut world, address, (1, 2), |_, _| ());
    let quiet = latencies(&mut world, address, 100);
    // Ten times what the public queue holds, and the owner fetches as fast as it can.
    for number in 0..640 {
        world.send(CAROL, &address, body(number, 100));
    }
    let busy = latencies(&mut world, address, 100);
    assert_eq!((quiet.len(), busy.len()), (100, 100));
    assert!(
        busy[98] < quiet[98].saturating_mul(2),
        "{:?} {:?}",
        quiet[98],
        busy[98]
    );
    assert!(world.message_count(BOB) > 203, "and the flood was there");
}

#[test] // §10.5(1), §11.9(2)
fn a_message_that_is_never_acknowledged_leaves_the_outbox_when_its_life_ends() {
    let (mut world, address) = acquainted(110);
    world.crash_client(BOB);
    let id = MessageId([9; 16]);
    let life = Some(Duration::from_secs(2 * 3600));
    let (to, body) = (owner(address), b"anybody?".to_vec());
    world.wish(ALICE, Wish::Send { id, to, body, life });
    world.run_for(Duration::from_secs(3600));
    let is_kept = |world: &World| {
        let status = world.client(ALICE).core().map(Core::status);
        let entries = status.into_iter().flat_map(|it| it.outbox);
        let mut kept = entries.filter(|it| it.is_unacknowledged).map(|it| it.id);
        kept.any(|it| it == id)
    };
    assert!(is_kept(&world));
    restart(&mut world, ALICE);
    assert!(is_kept(&world), "also after a restart");
    world.run_for(Duration::from_secs(3700));
    assert!(!is_kept(&world));
    let expired = Notice::Expired {
        id,
        copies: Copies::Held(2),
        wanted: 2,
    };
    assert!(world.has_notice(ALICE, |notice| *notice == expired));
}

#[test] // §10.5(7), §10.2(8)
fn a_flood_makes_strangers_work_and_holders_ask_for_it() {
    let mut network = Network::local();
    network.params.puzzle_effort = 1;
    let mut world = World::with_overlay(120, network).relays(12).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    let carol = world.add_client();
    for number in 0..40 {
        world.send(carol, &address, body(number, 100));
    }
    world.run_for(Duration::from_secs(30));
    let efforts = |world: &World| -> Vec<u32> {
        let relays = world.all_relays().iter();
        relays.flat_map(|relay| relay.disk.efforts()).collect()
    };
    assert_eq!(efforts(&world), [0; 3]);
    world.expect_within(Duration::from_secs(1800), |world| {
        efforts(world) == [256; 3]
    });
    // A stranger who looks the inbox up now works for it, and gets through.
    let id = world.send_to(ALICE, owner(address), b"hello".to_vec());
    world.expect_within(Duration::from_secs(600), |world| {
        came(world, BOB).contains(&id)
    });
    restart(&mut world, BOB);
    world.skip(Duration::from_secs(13 * 3600));
    world.expect_within(Duration::from_secs(1800), |world| {
        efforts(world) == [128; 3]
    });
}
