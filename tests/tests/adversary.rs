//! Hostile relays: cells tampered with, dropped, replayed, reordered or injected at each hop and in
//! each position. The next honest hop kills the circuit, and the message still arrives over
//! another.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_client::core::Notice;
use umbel_proto::Violation;
use umbel_proto::time::Duration;
use umbel_tests::adversary::{Adversary, positions};
use umbel_tests::scenario::{ALICE, BOB, has_come, listen};
use umbel_tests::{CopyFate, RelayName, Tampering, World};

/// One relay tampers with one cell that it sends on while a message is in flight; the consequences.
fn tamper(seed: u64, hostile: RelayName, tampering: Tampering, spare: usize) -> Outcome {
    let mut world = World::new(seed).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    world.run_for(Duration::from_secs(3));
    world.relay(hostile).adversary = Some(Adversary::new(tampering, spare));
    let before = violations(&world);
    let id = world.send(ALICE, &address, vec![9; 2500]);
    let has_arrived = world.run_until(Duration::from_secs(240), |world| has_come(world, id));
    world.run_for(Duration::from_secs(15));
    let tampered = world
        .relay(hostile)
        .adversary
        .as_ref()
        .map_or(0, |adversary| adversary.tampered);
    let is_clean = world
        .client(BOB)
        .disk
        .messages
        .iter()
        .all(|(_, _, body)| body.iter().all(|&byte| byte == 9));
    let held = world.has_notice(ALICE, |notice| matches!(notice, Notice::Held { .. }));
    assert!(
        has_arrived && is_clean && held,
        "{tampering:?} by {hostile:?}: {}",
        world.describe()
    );
    Outcome {
        tampered: tampered > 0,
        killed: violations(&world) > before,
        copies: world.copies,
    }
}

struct Outcome {
    tampered: bool,
    killed: bool,
    /// The fate of the cell that was sent a second time, if one was.
    copies: Vec<CopyFate>,
}

/// Circuits and links that were closed because a rule was broken, as relays and clients saw it.
fn violations(world: &World) -> u64 {
    let relays: u64 = world
        .all_relays()
        .iter()
        .filter_map(|relay| relay.control())
        .map(|control| control.stats().violations)
        .sum();
    let clients: u64 = world
        .all_clients()
        .iter()
        .filter_map(|client| client.core())
        .map(|core| core.violation_count())
        .sum();
    relays + clients
}

#[test] // §3.1
fn tampering_kills_the_circuit_and_the_message_still_arrives() {
    let mut tampered = 0;
    for (seed, kind) in [(60, Tampering::Flip(200)), (62, Tampering::Inject)] {
        for hostile in 0..8 {
            let outcome = tamper(seed, RelayName(hostile), kind, 3);
            if outcome.tampered {
                tampered += 1;
                assert!(outcome.killed, "{kind:?} by relay {hostile} went unnoticed");
            }
        }
    }
    assert!(
        tampered >= 8,
        "hostile relays were on the way only {tampered} times"
    );
}

// §3.1: the copy is followed to where it ends. A relay ends its own circuit when it has its answer,
// and finds a copy of the answer stale (§4.4); any other node that gets a copy notices.
#[test]
fn a_replayed_cell_is_never_taken() {
    let mut noticed = 0;
    for (seed, spare) in [(61, 3), (63, 0), (64, 8)] {
        for hostile in 0..8 {
            let outcome = tamper(seed, RelayName(hostile), Tampering::Replay, spare);
            match outcome.copies.as_slice() {
                [] => assert!(!outcome.tampered),
                [CopyFate::Noticed] => {
                    assert!(outcome.killed);
                    noticed += 1;
                }
                [CopyFate::Stale] => {}
                other => panic!("seed {seed}, {spare} spared, relay {hostile}: {other:?}"),
            }
        }
    }
    assert!(noticed >= 16, "copies were noticed only {noticed} times");
}

#[test]
fn a_copy_that_waits_in_a_relay_that_crashes_is_lost_and_counted() {
    let mut world = World::new(65).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    world.run_for(Duration::from_secs(3));
    world.network().cell_time = Duration::from_millis(5);
    for number in 0..8 {
        world.relay(RelayName(number)).adversary = Some(Adversary::new(Tampering::Replay, 40));
    }
    world.send(ALICE, &address, vec![9; 30_000]);
    let waiting = |world: &World| {
        let mut relays = world.all_relays().iter();
        relays.position(|relay| relay.waiting_copies() > 0)
    };
    world.expect_within(Duration::from_secs(60), |world| waiting(world).is_some());
    let name = RelayName(waiting(&world).unwrap());
    let waited = world.relay(name).waiting_copies();
    let fates_before = world.copies.len();
    world.crash_relay(name);
    let lost = &world.copies[fates_before..];
    assert_eq!(lost, vec![CopyFate::Lost; waited]);
    world.run_for(Duration::from_secs(60));
    assert_eq!(waiting(&world), None);
    let adversaries = world.all_relays().iter().flat_map(|relay| &relay.adversary);
    let made: usize = adversaries.map(|adversary| adversary.tampered).sum();
    assert_eq!(world.copies.len(), made, "each copy has one fate");
}

#[test] // §3.1: what is missing shows with the next cell, or by the client's timeout
fn dropped_and_reordered_cells_delay_and_lose_nothing() {
    for kind in [Tampering::Drop, Tampering::Reorder] {
        for hostile in 0..4 {
            tamper(70, RelayName(hostile), kind, 2);
        }
    }
}

#[test] // §3.1: every position of a cell, at one hop after another
fn a_flip_anywhere_in_a_cell_is_caught() {
    let mut rng = ChaCha20Rng::seed_from_u64(80);
    let mut tampered = 0;
    for (number, at) in positions(&mut rng, 6).into_iter().enumerate() {
        let outcome = tamper(80, RelayName(number % 8), Tampering::Flip(at), number % 5);
        if outcome.tampered {
            tampered += 1;
            assert!(outcome.killed, "a flip at byte {at} went unnoticed");
        }
    }
    assert!(
        tampered >= 8,
        "hostile relays were on the way only {tampered} times"
    );
}

#[test] // §3.1
fn a_flip_seen_by_a_relay_is_a_bad_tag() {
    let mut broken: Vec<Violation> = Vec::new();
    // In some worlds the clients see all of them.
    for seed in 90..94 {
        let mut world = World::new(seed).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        for number in 0..8 {
            world.relay(RelayName(number)).adversary = Some(Adversary::new(Tampering::Flip(77), 6));
        }
        world.send(ALICE, &address, vec![3; 100]);
        world.run_for(Duration::from_secs(60));
        let relays = world.all_relays().iter();
        broken.extend(relays.flat_map(|relay| relay.broken.clone()));
    }
    assert!(!broken.is_empty());
    assert!(
        broken.iter().all(|violation| *violation == Violation::Tag),
        "{broken:?}"
    );
}
