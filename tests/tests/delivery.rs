//! A message, end to end, over real cores: discovered relays, circuits, a durable mailbox, an owner
//! who is away.

use std::collections::BTreeSet;

use umbel_client::core::{Notice, Wish};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::time::Duration;
use umbel_tests::World;
use umbel_tests::scenario::{ALICE, BOB, body, listen};

#[test] // §8.3
fn relays_that_join_through_one_another_all_know_each_other() {
    let mut world = World::new(1).relays(12);
    let everyone_knows = |world: &World| {
        world.all_relays().iter().all(|relay| {
            relay
                .control()
                .is_some_and(|control| control.view().len() == 12)
        })
    };
    world.expect_within(Duration::from_secs(30), everyone_knows);
}

#[test] // §10
fn messages_of_all_sizes_arrive_once_and_whole() {
    let mut world = World::new(2).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    let sent: Vec<(MessageId, Vec<u8>)> = [0, 1, 100, 600, 5_000, 30_000, 100_000]
        .into_iter()
        .enumerate()
        .map(|(number, len)| {
            let body = body(number, len);
            (world.send(ALICE, &address, body.clone()), body)
        })
        .collect();
    let all = |world: &World| world.message_count(BOB) == 7;
    world.expect_within(Duration::from_secs(120), all);
    for (id, body) in &sent {
        let came = world
            .client(BOB)
            .disk
            .messages
            .iter()
            .find(|(_, came, _)| came == id);
        assert_eq!(came.map(|(_, _, came)| came), Some(body));
    }
}

#[test] // §10.2
fn an_owner_who_was_away_gets_everything() {
    let mut world = World::new(3).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    world.crash_client(BOB);
    let sent: BTreeSet<MessageId> = (0..40)
        .map(|number| world.send(ALICE, &address, body(number, 1 + number * 97)))
        .collect();
    let all_held = |world: &World| {
        sent.iter().all(|sent| {
            world.has_notice(
                ALICE,
                |notice| matches!(notice, Notice::Held { id, holders, wanted } if id == sent && holders >= wanted),
            )
        })
    };
    world.expect_within(Duration::from_secs(120), all_held);
    world.crash_client(ALICE);
    world.restart_client(BOB);
    listen(&mut world, false);
    let all_came = |world: &World| world.message_count(BOB) == 40;
    world.expect_within(Duration::from_secs(120), all_came);
    let came: BTreeSet<MessageId> = world
        .client(BOB)
        .disk
        .messages
        .iter()
        .map(|(_, id, _)| *id)
        .collect();
    assert_eq!(came, sent);
}

#[test] // §9.3
fn an_address_nobody_published_defers_and_loses_nothing() {
    let mut world = World::new(4).relays(8).clients(1);
    let nobody = InboxIdentity::from_seed(&[7; 32]);
    let id = world.send(ALICE, nobody.address(), b"hello".to_vec());
    let is_deferred = |world: &World| {
        world.has_notice(
            ALICE,
            |notice| matches!(notice, Notice::Deferred { id: deferred, .. } if *deferred == id),
        )
    };
    world.expect_within(Duration::from_secs(60), is_deferred);
    assert_eq!(world.client(ALICE).disk.outbox_len(), 1);
}

#[test] // the simulator's own promise
fn a_seed_replays_bit_for_bit() {
    let run = |seed: u64| {
        let mut world = World::new(seed).relays(6).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        world.send(ALICE, &address, body(1, 700));
        world.run_for(Duration::from_secs(20));
        (world.fingerprint(), world.steps(), world.message_count(BOB))
    };
    let first = run(5);
    assert_eq!(first, run(5));
    assert_eq!(first.2, 1);
    assert_ne!(first.0, run(6).0);
}

/// How many entries of its tables an owner's client looks at for each cell, while messages come for
/// one of so many inboxes.
fn looks_for_each_cell(inboxes: usize) -> f64 {
    let mut world = World::new(6).relays(12).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    for number in 1..inboxes {
        let name = format!("box {number}");
        world.create_inbox(BOB, &name);
        let listen = Wish::Listen {
            name,
            is_interactive: true,
        };
        world.wish(BOB, listen);
    }
    world.run_for(Duration::from_secs(300));
    let spent = |world: &World| {
        let core = world.client(BOB).core();
        core.map_or((0, 0), |core| {
            (core.look_count(), core.status().received_cells)
        })
    };
    let (looks, cells) = spent(&world);
    let came = world.message_count(BOB);
    for number in 0..40 {
        world.send(ALICE, &address, body(number, 20_000));
    }
    let all = |world: &World| world.message_count(BOB) == came + 40;
    world.expect_within(Duration::from_secs(120), all);
    let after = spent(&world);
    let (looks, cells) = (after.0 - looks, after.1 - cells);
    assert!(cells > 1000, "{cells}");
    looks as f64 / cells as f64
}

#[test] // §10.2
fn what_a_cell_costs_an_owner_does_not_grow_with_its_mailboxes() {
    let (few, many) = (looks_for_each_cell(1), looks_for_each_cell(20));
    assert!(many < few * 1.5, "{few} {many}");
}
