//! A network with the parameters that networks have unless they say otherwise, in virtual time:
//! push delay, second deposit, prefix groups, days without the owner. Only receipts, which no relay
//! can ask for yet, and public addresses are not asked for.

use std::collections::BTreeMap;

use umbel_client::core::{INBOXES_MAX, Notice, Wish};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::limits::LINK_KEEPALIVE;
use umbel_proto::link::LinkId;
use umbel_proto::network::Network;
use umbel_proto::time::{Duration, Instant};
use umbel_tests::scenario::{ALICE, BOB, by_default, has_come, is_held_by, listen};
use umbel_tests::world::network::Node;
use umbel_tests::{ClientName, World};

const RELAYS: usize = 10;
/// How long `umbel send` waits by default: for one holder, and for all that are wanted.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
const SEND_TIMEOUT_ALL: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn overlay() -> Network {
    let mut overlay = by_default();
    overlay.params.guards_new_a_day = 8;
    overlay
}

/// Ten relays in address groups of their own, and two clients.
fn world(seed: u64) -> World {
    World::with_overlay(seed, overlay())
        .relays(RELAYS)
        .clients(2)
}

/// The time of a client's first such notice.
fn told_at(world: &World, client: ClientName, is_it: impl Fn(&Notice) -> bool) -> Option<Instant> {
    world
        .client(client)
        .notices
        .iter()
        .find(|(_, notice)| is_it(notice))
        .map(|&(at, _)| at)
}

#[test] // §2.6(1), §2.6(2)
fn links_of_clients_are_padded_and_links_between_relays_kept_alive() {
    const IDLE_SECONDS: u64 = 300;
    let mut world = world(71);
    world.create_inbox(BOB, "help");
    listen(&mut world, true);
    world.run_for(Duration::from_secs(120));
    let padding_cells = |world: &mut World, nodes: &[Node]| -> BTreeMap<LinkId, u64> {
        let ends = nodes
            .iter()
            .flat_map(|&node| world.network().ends_at(node))
            .collect::<Vec<_>>();
        let counted = ends
            .into_iter()
            .filter_map(|end| Some((end, world.padding_cells(end)?)));
        counted.collect()
    };
    let relays: Vec<_> = (0..RELAYS).map(Node::Relay).collect();
    let (clients, relays) = (&[Node::Client(BOB.0)][..], &relays[..]);
    let before = [clients, relays].map(|nodes| padding_cells(&mut world, nodes));
    world.run_for(Duration::from_secs(IDLE_SECONDS));
    let after = [clients, relays].map(|nodes| padding_cells(&mut world, nodes));
    let sent = |of: usize, end: LinkId| Some(after[of].get(&end)? - before[of].get(&end)?);

    // A wait is 6.8 s in the mean, and 9.5 s at most.
    let is_padded = |count: u64| (25..=60).contains(&count);
    let of_client: Vec<_> = before[0].keys().filter_map(|&end| sent(0, end)).collect();
    assert!(!of_client.is_empty() && of_client.iter().all(|&count| is_padded(count)));
    let to_client: Vec<_> = before[0]
        .keys()
        .filter_map(|&end| sent(1, world.network().end(end)?.opposite))
        .collect();
    assert!(!to_client.is_empty() && to_client.iter().all(|&count| is_padded(count)));
    let is_between_relays = |world: &mut World, end: LinkId| {
        let opposite = world.network().end(end).map(|end| end.opposite);
        opposite.is_some_and(|opposite| before[1].contains_key(&opposite))
    };
    let between_relays: Vec<_> = before[1]
        .keys()
        .filter(|&&end| is_between_relays(&mut world, end))
        .filter_map(|&end| sent(1, end))
        .collect();
    let keepalives_max = IDLE_SECONDS / LINK_KEEPALIVE.as_secs();
    assert!(!between_relays.is_empty());
    assert!(between_relays.iter().all(|&count| count <= keepalives_max));
}

#[test] // §10.5(2): one holder within what `umbel send` waits, and two within what it waits for two
fn every_send_is_held_within_the_time_that_it_waits() {
    let mut apart = Vec::new();
    for seed in 0..40 {
        let mut world = world(seed);
        // In a network's first seconds an inbox may go out with fewer than three mailboxes: 13 of
        // 300 did.
        world.run_for(Duration::from_secs(1200));
        let address = world.create_inbox(BOB, "help");
        let sent = world.send(ALICE, &address, b"by default".to_vec());
        world.expect_within(SEND_TIMEOUT, |world| is_held_by(world, sent, 1));
        world.expect_within(SEND_TIMEOUT_ALL, |world| is_held_by(world, sent, 2));
        let held_at = |count| {
            told_at(
                &world,
                ALICE,
                |notice| matches!(notice, Notice::Held { holders, .. } if *holders >= count),
            )
        };
        apart.push(
            held_at(2)
                .zip(held_at(1))
                .map_or(Duration::ZERO, |(second, first)| second.since(first)),
        );
    }
    let over_a_second = apart
        .iter()
        .filter(|apart| **apart > Duration::from_secs(1))
        .count();
    assert!(
        over_a_second > apart.len() / 2,
        "second deposits wait: {apart:?}"
    );
}

#[test] // §10.5(2): a message that rests between two deposits keeps no other waiting
fn each_of_many_sends_at_once_is_held_within_the_time_that_it_waits() {
    let mut world = world(50);
    world.run_for(Duration::from_secs(1200));
    let address = world.create_inbox(BOB, "help");
    let sent: Vec<MessageId> = (0..40_u8)
        .map(|number| world.send(ALICE, &address, vec![number; 50]))
        .collect();
    let are_held = |world: &World| sent.iter().all(|&id| is_held_by(world, id, 1));
    world.expect_within(SEND_TIMEOUT, are_held);
}

#[test] // §10.2(6a), §10.5(5)
fn a_follower_is_pushed_each_message_after_a_delay_of_its_own() {
    let mut world = world(100);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    world.run_for(Duration::from_secs(60));
    let mut delays = Vec::new();
    for number in 0..20_u8 {
        let sent = world.send(ALICE, &address, vec![number; 50]);
        world.expect_within(SEND_TIMEOUT, |world| is_held_by(world, sent, 1));
        let held_at = world.now();
        world.expect_within(SEND_TIMEOUT, |world| has_come(world, sent));
        delays.push(world.now().since(held_at));
    }
    assert_eq!(world.message_count(BOB), 20);
    delays.sort();
    assert!(
        delays.first() < delays.last() && delays[15] > Duration::from_millis(500),
        "{delays:?}"
    );
}

#[test] // §8.3(9a), §10.1(6): the network continues while the owner is away
fn an_owner_who_was_away_for_days_receives() {
    for (seed, days) in [(200, 3), (201, 9)] {
        let mut world = world(seed);
        let address = world.create_inbox(BOB, "help");
        let early = world.send(ALICE, &address, b"before he left".to_vec());
        world.expect_within(SEND_TIMEOUT_ALL, |world| is_held_by(world, early, 2));
        world.crash_client(BOB);
        world.run_for(DAY * days / 2);
        let late = world.send(ALICE, &address, b"while he was away".to_vec());
        // For as long as the descriptor that he published for the next week is there.
        world.expect_within(SEND_TIMEOUT_ALL, |world| is_held_by(world, late, 2));
        world.run_for(DAY * days / 2);
        world.restart_client(BOB);
        listen(&mut world, false);
        let all = |world: &World| has_come(world, early) && has_come(world, late);
        assert!(
            world.run_until(Duration::from_secs(60), all),
            "after {days} days: {}",
            world.describe()
        );
        assert_eq!(world.message_count(BOB), 2);
    }
}

#[test] // §6.4(1): the rule gives way to nothing
fn relays_of_one_address_group_make_no_path() {
    let mut world = World::with_overlay(300, overlay())
        .relays_in_one_group(RELAYS)
        .clients(1);
    world.run_for(Duration::from_secs(60));
    world.wish(
        ALICE,
        Wish::CreateInbox {
            name: "help".into(),
        },
    );
    world.run_for(Duration::from_secs(120));
    assert!(!world.has_notice(ALICE, |notice| matches!(
        notice,
        Notice::InboxReady { .. } | Notice::HopBuilt { hop: 3, .. }
    )));
}

/// A world in which Bob has `count` inboxes and follows all of them from now on; their addresses.
fn follow_many(seed: u64, count: usize) -> (World, Vec<InboxAddress>) {
    let mut world = world(seed);
    world.run_for(Duration::from_secs(1200));
    let name = |number| format!("box {number}");
    let addresses = (0..count)
        .map(|number| world.create_inbox(BOB, &name(number)))
        .collect();
    world.wish(BOB, Wish::Stop);
    world.run_for(Duration::from_secs(1));
    world.crash_client(BOB);
    world.restart_client(BOB);
    for number in 0..count {
        world.wish(
            BOB,
            Wish::Listen {
                name: name(number),
                is_interactive: true,
            },
        );
    }
    (world, addresses)
}

#[test] // §5.4, §10.5(5): a guard takes a few circuits a second
fn as_many_inboxes_as_there_may_be_are_followed() {
    let (mut world, addresses) = follow_many(401, INBOXES_MAX);
    world.run_for(Duration::from_secs(60));
    let sent: Vec<MessageId> = addresses
        .iter()
        .map(|address| world.send(ALICE, address, b"to each".to_vec()))
        .collect();
    let have_come = |world: &World| sent.iter().all(|&id| has_come(world, id));
    // 24 inboxes have no subscription: polls of their mailboxes, 120 s apart in the mean, bring the
    // last message within 600 s in all but one of 10,000 runs.
    world.expect_within(Duration::from_secs(600), have_come);
}

#[test] // §9.4(3): work that somebody waits for comes first
fn an_inbox_is_made_at_once_while_many_are_published() {
    let (mut world, _) = follow_many(402, 30);
    world.run_for(Duration::from_secs(2));
    world.wish(BOB, Wish::CreateInbox { name: "new".into() });
    let is_ready = |world: &World| {
        world.has_notice(
            BOB,
            |notice| matches!(notice, Notice::InboxReady { name, .. } if name == "new"),
        )
    };
    world.expect_within(Duration::from_secs(15), is_ready);
}
