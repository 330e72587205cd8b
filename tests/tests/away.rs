//! Relays and clients that were away for longer than descriptors live: their stored knowledge
//! brings them back.

#![allow(clippy::expect_used, reason = "a test that fails panics")]

use umbel_client::core::{Notice, Wish};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::time::{Duration, WallTime};
use umbel_tests::scenario::{ALICE, BOB, has_come, is_held, is_held_by, listen, strangers};
use umbel_tests::{ClientName, RelayName, World};

const THREE_DAYS: Duration = Duration::from_secs(3 * 24 * 3600);

fn view_len(world: &World, relay: usize) -> usize {
    world.all_relays()[relay]
        .control()
        .map_or(0, |control| control.view().len())
}

fn sleep_all(world: &mut World, relays: core::ops::Range<usize>, clients: &[ClientName]) {
    relays.for_each(|relay| world.crash_relay(RelayName(relay)));
    clients
        .iter()
        .for_each(|&client| world.crash_client(client));
    world.skip(THREE_DAYS);
}

/// A world in which Bob has an inbox, and Alice has sent him a message that waits there.
fn with_message(seed: u64, relays: usize) -> (World, MessageId) {
    let mut world = World::new(seed).relays(relays).clients(2);
    let address = world.create_inbox(BOB, "help");
    let sent = world.send(ALICE, &address, b"waits for you".to_vec());
    world.expect_within(Duration::from_secs(60), |world| is_held(world, sent));
    world.run_for(Duration::from_secs(30));
    (world, sent)
}

/// Bob's notices since `from`.
fn told(world: &World, from: umbel_proto::time::Instant) -> impl Iterator<Item = &Notice> {
    world
        .client(BOB)
        .notices
        .iter()
        .filter(move |(at, _)| *at >= from)
        .map(|(_, notice)| notice)
}

/// How many of Bob's mailboxes answered at his first look since `from`.
fn first_answered(world: &World, from: umbel_proto::time::Instant) -> Option<usize> {
    told(world, from).find_map(|notice| match notice {
        Notice::CaughtUp { answered, .. } => Some(*answered),
        _ => None,
    })
}

#[test] // §8.3(9)
fn an_owner_who_was_away_for_three_days_receives_at_the_first_try() {
    for seed in 0..5 {
        let (mut world, sent) = with_message(900 + seed, 8);
        sleep_all(&mut world, 0..8, &[ALICE, BOB]);
        (0..8).for_each(|relay| world.restart_relay(RelayName(relay)));
        world.run_for(Duration::from_secs(30));
        let from = world.now();
        world.restart_client(BOB);
        listen(&mut world, false);
        world.expect_within(Duration::from_secs(10), |world| has_come(world, sent));
        assert!(told(&world, from).any(
            |notice| matches!(notice, Notice::WaitingForView { last_known } if *last_known > 4)
        ));
        let has_failed = |notice: &Notice| {
            matches!(
                notice,
                Notice::CaughtUp { answered: 0, .. } | Notice::Unreachable
            )
        };
        assert!(!told(&world, from).any(has_failed), "{}", world.describe());
    }
}

#[test] // §8.3(9)
fn a_follower_whose_machine_slept_for_three_days_continues() {
    let (mut world, _) = with_message(910, 8);
    listen(&mut world, true);
    world.run_for(Duration::from_secs(20));
    let address = world
        .client(BOB)
        .core()
        .and_then(|core| core.inbox_address("help"))
        .expect("there is an inbox");
    world.skip(THREE_DAYS);
    let from = world.now();
    world.run_for(Duration::from_secs(120));
    assert!(told(&world, from).any(|notice| matches!(notice, Notice::WaitingForView { .. })));
    assert!(
        !told(&world, from).any(|notice| matches!(notice, Notice::CaughtUp { answered: 0, .. }))
    );
    let sent = world.send(ALICE, &address, b"after the weekend".to_vec());
    world.expect_within(Duration::from_secs(60), |world| has_come(world, sent));
}

#[test] // §8.2(7), §8.3(9)
fn last_known_addresses_bring_a_client_back_whose_seed_is_gone() {
    let (mut world, _) = with_message(920, 10);
    let address = world
        .client(BOB)
        .core()
        .and_then(|core| core.inbox_address("help"))
        .expect("there is an inbox");
    sleep_all(&mut world, 0..10, &[ALICE, BOB]);
    // Relay 0, the seed of every client, stays down.
    (1..10).for_each(|relay| world.restart_relay(RelayName(relay)));
    world.run_for(Duration::from_secs(60));
    world.restart_client(ALICE);
    let sent = world.send(ALICE, &address, b"now".to_vec());
    world.expect_within(Duration::from_secs(60), |world| is_held(world, sent));
}

/// A world in which every relay moved or is gone while Alice was away, who is back; and Bob's
/// address.
fn with_all_relays_moved(seed: u64) -> (World, InboxAddress) {
    let (mut world, _) = with_message(seed, 10);
    let address = world
        .client(BOB)
        .core()
        .and_then(|core| core.inbox_address("help"))
        .expect("there is an inbox");
    world.crash_client(ALICE);
    // They find each other through the last one, which is gone when Alice comes back.
    for relay in (0..9).map(RelayName) {
        world.crash_relay(relay);
        world.move_relay(relay);
        world.restart_relay(relay);
    }
    world.run_for(Duration::from_secs(60));
    world.crash_relay(RelayName(9));
    world.restart_client(ALICE);
    (world, address)
}

// §8.3(9): every relay moved. The client dials the address that the user names, even after failures
// and whoever answers there.
#[test]
fn a_seed_at_a_new_address_brings_a_client_back_that_failed_before() {
    let (mut world, address) = with_all_relays_moved(925);
    world.wish(ALICE, Wish::Flush);
    world.run_for(Duration::from_secs(1));
    assert!(world.has_notice(ALICE, |notice| *notice == Notice::Unreachable));
    world.crash_client(ALICE);
    for seed in (0..9).map(RelayName) {
        let twin = world.copy_client(ALICE);
        world.crash_client(twin);
        world.add_seed(twin, seed);
        world.restart_client(twin);
        let sent = world.send(twin, &address, b"now".to_vec());
        let is_held = |world: &World| {
            world.has_notice(
                twin,
                |notice| matches!(notice, Notice::Held { id, .. } if *id == sent),
            )
        };
        let is_over = |world: &World| {
            is_held(world) || world.has_notice(twin, |notice| *notice == Notice::Unreachable)
        };
        assert!(
            world.run_until(Duration::from_secs(20), is_over) && is_held(&world),
            "{seed:?}: {}",
            world.describe()
        );
        world.crash_client(twin);
    }
}

#[test] // §8.3(9)
fn a_client_that_runs_asks_a_seed_that_is_named_meanwhile() {
    let (mut world, address) = with_all_relays_moved(926);
    let sent = world.send(ALICE, &address, b"now".to_vec());
    world.run_for(Duration::from_secs(60));
    assert!(
        !is_held(&world, sent) && world.has_notice(ALICE, |notice| *notice == Notice::Unreachable)
    );
    let seed = world.relay(RelayName(3)).peer();
    world.wish(ALICE, Wish::Seeds(vec![seed]));
    world.expect_within(Duration::from_secs(20), |world| is_held(world, sent));
}

#[test] // §8.2(7), §8.3(9)
fn last_known_addresses_bring_relays_back_whose_seeds_are_gone() {
    let mut world = World::new(930).relays(9);
    assert!(world.run_until(Duration::from_secs(60), |world| {
        (0..9).all(|relay| view_len(world, relay) == 9)
    }));
    sleep_all(&mut world, 0..9, &[]);
    // Each joined through the one before it: those behind 0, 3 and 6 have no seed any more.
    let up = [1, 2, 4, 5, 7, 8];
    up.into_iter()
        .for_each(|relay| world.restart_relay(RelayName(relay)));
    let is_whole = |world: &World| up.into_iter().all(|relay| view_len(world, relay) == 6);
    assert!(
        world.run_until(Duration::from_secs(120), is_whole),
        "{:?}",
        up.map(|relay| view_len(&world, relay))
    );
}

#[test] // §8.2(3)
fn since_when_relays_are_known_outlives_restarts() {
    let mut world = World::new(940).relays(6).clients(1);
    world.run_for(Duration::from_secs(60));
    let relay = world.all_relays()[0].id;
    let ages = |world: &World| -> [Option<WallTime>; 2] {
        let client = world
            .client(ALICE)
            .core()
            .and_then(|core| core.view().first_seen(&relay));
        let other = world.all_relays()[5]
            .control()
            .and_then(|control| control.view().first_seen(&relay));
        [client, other]
    };
    let before = ages(&world);
    assert!(before.iter().all(Option::is_some));
    for away in [Duration::from_secs(7200), THREE_DAYS] {
        sleep_all(&mut world, 0..6, &[ALICE]);
        world.skip(away);
        (0..6).for_each(|relay| world.restart_relay(RelayName(relay)));
        world.restart_client(ALICE);
        world.run_for(Duration::from_secs(60));
        assert_eq!(ages(&world), before);
    }
}

#[test] // §8.3(9)
fn a_relay_that_restarts_links_to_its_anchors_at_once() {
    for seed in 0..4 {
        let (mut world, restarted) = (World::new(940 + seed).relays(14), RelayName(5));
        world.run_for(Duration::from_secs(60));
        let anchors = world.relay(restarted).disk.restore().anchors;
        let up: Vec<RelayName> = anchors
            .iter()
            .filter_map(|anchor| world.relay_named(*anchor))
            .collect();
        assert_eq!(up.len(), 2, "they are stored");
        (0..14)
            .map(RelayName)
            .filter(|relay| !up.contains(relay))
            .for_each(|relay| world.crash_relay(relay));
        world.restart_relay(restarted);
        world.run_for(Duration::from_secs(3));
        let control = world.all_relays()[restarted.0].control();
        assert_eq!(control.map(|control| control.stats().links), Some(2));
        assert_eq!(world.relay(restarted).disk.restore().anchors, anchors);
    }
}

/// Three founders and nine more relays, who believe each other by receipts, all down for so many
/// days and up again; and Alice and Bob, who were away as long. And the address of Bob's inbox.
fn strangers_after(seed: u64, days: u64) -> (World, InboxAddress) {
    let mut world = World::with_overlay(seed, strangers())
        .founders(3)
        .relays(9)
        .clients(2);
    world.expect_within(Duration::from_secs(1500), all_know_all);
    world.run_for(Duration::from_secs(1200));
    let address = world.create_inbox(BOB, "help");
    let sent = world.send(ALICE, &address, b"friday".to_vec());
    world.expect_within(Duration::from_secs(600), |world| is_held(world, sent));
    for client in [ALICE, BOB] {
        world.crash_client(client);
    }
    sleep_all(&mut world, 0..12, &[]);
    world.skip(Duration::from_secs((days - 3) * 24 * 3600));
    (0..12).for_each(|relay| world.restart_relay(RelayName(relay)));
    world.expect_within(Duration::from_secs(1500), all_know_all);
    (world, address)
}

fn all_know_all(world: &World) -> bool {
    (0..12).all(|relay| view_len(world, relay) == 12)
}

/// Bob starts and receives: this message comes, and all of his mailboxes answer the first try.
fn assert_all_answer_at_once(world: &mut World, sent: MessageId, seed: u64) {
    let from = world.now();
    world.restart_client(BOB);
    listen(world, false);
    world.expect_within(Duration::from_secs(5), |world| has_come(world, sent));
    world.run_for(Duration::from_secs(5));
    let answered = first_answered(world, from);
    assert_eq!(answered, Some(3), "{seed}: {}", world.describe());
}

// §8.3(7): descriptors come in order of ids, most of them before those of the relays that vouch for
// them.
#[test]
fn strangers_who_were_away_for_days_reach_every_mailbox_at_the_first_try() {
    for (seed, days) in [(950, 3), (951, 8), (952, 3), (953, 8)] {
        let (mut world, address) = strangers_after(seed, days);
        world.restart_client(ALICE);
        let sent = world.send(ALICE, &address, b"monday".to_vec());
        world.expect_within(Duration::from_secs(5), |world| is_held_by(world, sent, 1));
        assert_all_answer_at_once(&mut world, sent, seed);
    }
}

// §8.3(9a): a client that knows some relays begins at once, and asks those that it lacks once it has
// heard of them.
#[test]
fn an_owner_who_lacks_holders_at_first_waits_for_the_view_and_blames_none() {
    for seed in 0..5 {
        let (mut world, sent) = with_message(970 + seed, 8);
        world.crash_client(BOB);
        let kept: Vec<_> = (0..5).map(|relay| world.all_relays()[relay].id).collect();
        world.forget_relays_but(BOB, &kept);
        assert_all_answer_at_once(&mut world, sent, 970 + seed);
    }
}

#[test] // §8.2(4): the network runs on, and one of its three seeds is gone for good.
fn relays_of_an_old_network_vouch_for_each_other_to_one_who_was_away() {
    let (mut world, _) = strangers_after(960, 8);
    world.restart_client(ALICE);
    world.run_for(Duration::from_secs(60));
    world.crash_client(ALICE);
    world.crash_relay(RelayName(1));
    world.run_for(Duration::from_secs(60 * 3600));
    let from = world.now();
    world.restart_client(ALICE);
    world.run_for(Duration::from_secs(60));
    let notices = &world.client(ALICE).notices;
    let is_ready = |(at, notice): &(_, Notice)| {
        *at >= from && matches!(notice, Notice::Ready { relays } if *relays > 4)
    };
    assert!(notices.iter().any(is_ready), "{}", world.describe());
}

#[test] // §8.3(9c)
fn after_days_away_one_sources_word_is_not_used_at_once() {
    for is_alone in [false, true] {
        let mut world = World::with_overlay(931, strangers()).founders(3).relays(9);
        world.run_for(Duration::from_secs(3600));
        world.add_client();
        world.run_for(Duration::from_secs(3600));
        let core = world.client(ALICE).core().expect("it runs");
        let guard = core.status().guard.expect("it has one");
        sleep_all(&mut world, 0..12, &[ALICE]);
        (0..12).for_each(|relay| world.restart_relay(RelayName(relay)));
        world.run_for(Duration::from_secs(600));
        for relay in (0..12).map(RelayName).filter(|_| is_alone) {
            if world.relay_named(guard) != Some(relay) {
                world.crash_relay(relay);
            }
        }
        world.restart_client(ALICE);
        let from = world.now();
        let is_ready = |world: &World| {
            let mut notices = world.client(ALICE).notices.iter();
            notices.any(|(at, it)| *at >= from && matches!(it, Notice::Ready { .. }))
        };
        world.run_for(Duration::from_secs(8));
        assert_eq!(is_ready(&world), !is_alone, "{}", world.describe());
        world.run_for(Duration::from_secs(12));
        assert!(is_ready(&world), "{}", world.describe());
    }
}
