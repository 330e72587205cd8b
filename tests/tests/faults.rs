//! Relays and clients that die, networks that split: nothing that was promised is lost.

use std::collections::BTreeSet;

use umbel_client::core::{Notice, Warning};
use umbel_proto::ids::MessageId;
use umbel_proto::network::Network;
use umbel_proto::time::Duration;
use umbel_tests::scenario::{ALICE, BOB, is_held, listen, mailboxes_of, received};
use umbel_tests::world::network::Node;
use umbel_tests::{RelayName, World};

#[test] // §10.2: an answered deposit is durable
fn all_relays_crash_right_after_a_message_is_held() {
    let mut world = World::new(11).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    let id = world.send(ALICE, &address, b"kept".to_vec());
    world.expect_within(Duration::from_secs(60), |world| is_held(world, id));
    for number in 0..8 {
        world.crash_relay(RelayName(number));
    }
    world.crash_client(ALICE);
    world.run_for(Duration::from_secs(5));
    for number in 0..8 {
        world.restart_relay(RelayName(number));
    }
    listen(&mut world, true);
    let came = |world: &World| received(world).contains(&id);
    world.expect_within(Duration::from_secs(180), came);
}

#[test] // §10.5: the outbox is durable
fn a_sender_that_dies_continues_where_it_was() {
    let mut world = World::new(12).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    let id = world.send(ALICE, &address, b"later".to_vec());
    let is_queued = |world: &World| world.has_notice(ALICE, |notice| *notice == Notice::Queued(id));
    assert!(world.run_until(Duration::from_secs(10), is_queued));
    world.crash_client(ALICE);
    assert_eq!(world.client(ALICE).disk.outbox_len(), 1);
    world.restart_client(ALICE);
    listen(&mut world, true);
    let came = |world: &World| received(world).contains(&id);
    world.expect_within(Duration::from_secs(120), came);
}

#[test] // §10.5(1), §10.5(3): sent and stored at once, reported when stored
fn a_sender_that_dies_before_its_outbox_is_durable_doubles_nothing() {
    let mut was_lost = false;
    for lived in [0, 1, 2, 3, 5, 8, 13, 30, 80, 200, 400] {
        let mut world = World::new(13).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        let warm = world.send(ALICE, &address, b"warm".to_vec());
        assert!(world.run_until(Duration::from_secs(60), |world| {
            received(world).contains(&warm) && world.client(ALICE).disk.outbox_len() == 0
        }));
        let id = world.send(ALICE, &address, b"now".to_vec());
        world.run_for(Duration::from_millis(lived));
        let was_queued = world.has_notice(ALICE, |notice| *notice == Notice::Queued(id));
        world.crash_client(ALICE);
        was_lost |= world.client(ALICE).disk.outbox_len() == 0;
        world.restart_client(ALICE);
        world.run_for(Duration::from_secs(60));
        let count = world
            .client(BOB)
            .disk
            .messages
            .iter()
            .filter(|(_, came, _)| *came == id)
            .count();
        assert!(
            count == 1 || !was_queued && count == 0,
            "{lived} ms: came {count} times; {}",
            world.describe()
        );
        assert_eq!(
            (
                world.client(BOB).disk.duplicates,
                world.client(ALICE).disk.outbox_len()
            ),
            (0, 0)
        );
    }
    assert!(
        was_lost,
        "at least once it died before its disk had the message"
    );
}

#[test] // §10.2(6): pushed before it is durable, answered after
fn holders_that_die_while_they_push_lose_and_double_nothing() {
    let usual = [18, 20, 21, 22, 23, 24, 25, 26, 28, 32, 40, 60].map(|lived| (0, lived));
    let slow = [30, 40, 50, 60, 70, 80, 100, 120, 150].map(|lived| (100, lived));
    let mut came_before_the_disk = 0;
    for (delay, lived) in usual.into_iter().chain(slow) {
        let mut world = World::new(14).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        let warm = world.send(ALICE, &address, b"warm".to_vec());
        assert!(world.run_until(Duration::from_secs(60), |world| {
            received(world).contains(&warm)
        }));
        world.run_for(Duration::from_secs(5));
        let holders: Vec<_> = (0..8)
            .map(RelayName)
            .filter(|&name| world.relay(name).disk.has_queues())
            .collect();
        let mut older = BTreeSet::new();
        for &name in &holders {
            older.extend(world.relay(name).disk.record_ids());
            world.relay(name).disk.delay = Duration::from_millis(delay);
        }
        let id = world.send(ALICE, &address, b"now".to_vec());
        world.run_for(Duration::from_millis(lived));
        let is_on_no_disk = holders
            .iter()
            .all(|&name| world.relay(name).disk.record_ids().is_subset(&older));
        assert!(
            !is_held(&world, id) || !is_on_no_disk,
            "{lived} ms: answered before it was durable"
        );
        came_before_the_disk += usize::from(received(&world).contains(&id) && is_on_no_disk);
        for &name in &holders {
            world.crash_relay(name);
            world.restart_relay(name);
        }
        let is_done = |world: &World| received(world).contains(&id) && is_held(world, id);
        assert!(
            world.run_until(Duration::from_secs(180), is_done),
            "{lived} ms; {}",
            world.describe()
        );
        assert_eq!(world.client(BOB).disk.duplicates, 0);
    }
    assert!(
        came_before_the_disk >= 3,
        "it came while it was on no holder's disk only {came_before_the_disk} times"
    );
}

#[test] // §6, §10: two of twelve relays die for good, others join, while messages flow
fn relays_come_and_go_while_messages_flow() {
    for seed in [21, 22, 23] {
        let mut world = World::new(seed).relays(12).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        let mut sent = BTreeSet::new();
        for round in 0..30u8 {
            sent.insert(world.send(ALICE, &address, vec![round; 50 + usize::from(round) * 40]));
            world.run_for(Duration::from_millis(700));
            match round {
                5 => world.crash_relay(RelayName(3)),
                10 => world.crash_relay(RelayName(7)),
                12 | 15 => {
                    world.add_relay();
                }
                _ => {}
            }
        }
        let all = |world: &World| received(world) == sent;
        world.expect_within(Duration::from_secs(400), all);
    }
}

#[test] // §10.5: a partition ends, and so does the wait
fn a_partition_delays_and_loses_nothing() {
    let mut world = World::new(31).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    world.run_for(Duration::from_secs(5));
    for a in 0..4 {
        for b in 4..8 {
            world.cut(Node::Relay(a), Node::Relay(b));
        }
    }
    let sent: BTreeSet<MessageId> = (0..5)
        .map(|n| world.send(ALICE, &address, vec![n; 200]))
        .collect();
    world.run_for(Duration::from_secs(60));
    world.network().heal();
    let all = |world: &World| received(world) == sent;
    world.expect_within(Duration::from_secs(300), all);
}

#[test] // clients that crash at any point between a write and its commit
fn crashing_clients_lose_and_double_nothing() {
    for seed in 41..45 {
        let mut world = World::new(seed).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        let mut durable = BTreeSet::new();
        for round in 0..12u64 {
            let id = world.send(ALICE, &address, vec![1; 300]);
            let is_queued =
                |world: &World| world.has_notice(ALICE, |notice| *notice == Notice::Queued(id));
            assert!(world.run_until(Duration::from_secs(10), is_queued));
            durable.insert(id);
            world.run_for(Duration::from_micros(37_000 * (round + 1)));
            if round % 3 == 1 {
                world.crash_client(ALICE);
                world.restart_client(ALICE);
            }
            if round % 3 == 2 {
                world.crash_client(BOB);
                world.restart_client(BOB);
                listen(&mut world, true);
            }
        }
        let all = |world: &World| received(world) == durable;
        world.expect_within(Duration::from_secs(300), all);
    }
}

#[test] // §8.3: seeds that are down delay a join, no more
fn a_relay_whose_seed_is_down_joins_later() {
    let mut world = World::new(51).relays(5);
    world.run_for(Duration::from_secs(20));
    world.crash_relay(RelayName(4));
    let late = world.add_relay();
    world.run_for(Duration::from_secs(20));
    world.restart_relay(RelayName(4));
    let knows_all = |world: &World| {
        world.all_relays()[late.0]
            .control()
            .is_some_and(|control| control.view().len() == 6)
    };
    world.expect_within(Duration::from_secs(60), knows_all);
}

#[test] // §6.4: a relay that is down is not the guard's doing
fn no_guard_is_blamed_for_relays_that_are_down() {
    let mut world = World::new(61).relays(12).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    for number in 2..6 {
        world.crash_relay(RelayName(number));
    }
    for round in 0..12u8 {
        world.send(ALICE, &address, vec![round; 100]);
        world.run_for(Duration::from_secs(10));
    }
    for name in [ALICE, BOB] {
        let is_blamed = world.has_notice(name, |notice| {
            *notice == Notice::Warning(Warning::GuardFails)
        });
        assert!(!is_blamed, "{}", world.describe());
    }
}

/// Relays 0 to 9 and two clients, in a network where what fails is tried again after up to
/// `retry_max`.
fn patient_world(seed: u64, retry_max: Duration) -> World {
    let mut overlay = Network::local();
    overlay.params.retry_max = retry_max;
    World::with_overlay(seed, overlay).relays(10).clients(2)
}

fn replaced_count(world: &World) -> usize {
    let is_it =
        |notice: &Notice| matches!(notice, Notice::Warning(Warning::MailboxReplaced { .. }));
    world
        .client(BOB)
        .notices
        .iter()
        .filter(|(_, notice)| is_it(notice))
        .count()
}

#[test] // §10.5(6): a mailbox that its holder does not know is replaced at once
fn mailboxes_that_holders_lost_are_replaced() {
    let mut world = patient_world(71, Duration::from_secs(3600));
    let address = world.create_inbox(BOB, "help");
    for number in 0..10 {
        world.crash_relay(RelayName(number));
        world.relay(RelayName(number)).disk.lose_queues();
        world.restart_relay(RelayName(number));
    }
    listen(&mut world, true);
    let are_replaced = |world: &World| replaced_count(world) == 3;
    world.expect_within(Duration::from_secs(300), are_replaced);
    let id = world.send(ALICE, &address, b"in the new ones".to_vec());
    let came = |world: &World| received(world).contains(&id);
    world.expect_within(Duration::from_secs(300), came);
}

// §10.5(6): a holder that stays away counts as out of reach, also in a client's short runs.
#[test]
fn a_mailbox_out_of_reach_has_a_companion_over_short_runs() {
    let mut world = patient_world(72, Duration::from_secs(120));
    world.create_inbox(BOB, "help");
    let holder = (1..10)
        .map(RelayName)
        .find(|&name| world.relay(name).disk.has_queues());
    world.crash_relay(holder.unwrap_or_else(|| unreachable!("three relays hold mailboxes")));
    for _ in 0..10 {
        world.crash_client(BOB);
        world.run_for(Duration::from_secs(60));
        world.restart_client(BOB);
        listen(&mut world, true);
        world.run_for(Duration::from_secs(60));
    }
    assert_eq!(mailboxes_of(&world, BOB), (4, 1), "{}", world.describe());
}
