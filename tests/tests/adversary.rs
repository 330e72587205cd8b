//! Hostile relays: cells tampered with, dropped, replayed, reordered or injected at each hop and in each position. The next
//! honest hop kills the circuit, and the message still arrives over another.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_client::core::{Command, Notice};
use umbel_proto::Violation;
use umbel_proto::time::Duration;
use umbel_tests::adversary::{Adversary, positions};
use umbel_tests::{ClientName, RelayName, Tampering, World};

const ALICE: ClientName = ClientName(0);
const BOB: ClientName = ClientName(1);

/// One relay tampers with one cell that it sends on while a message is under way; what followed.
fn tamper(seed: u64, hostile: RelayName, tampering: Tampering, spare: usize) -> Outcome {
    let mut world = World::new(seed).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    world.command(BOB, Command::Listen { name: "help".into(), is_interactive: true });
    world.run_for(Duration::from_secs(3));
    world.relay(hostile).adversary = Some(Adversary::new(tampering, spare));
    let (before, stale_before) = (violations(&world), stale_cells(&world));
    let id = world.send(ALICE, &address, vec![9; 2500]);
    let came = |world: &World| world.client(BOB).disk.messages.iter().any(|(_, came, _)| *came == id);
    let has_arrived = world.run_until(Duration::from_secs(240), came);
    world.run_for(Duration::from_secs(15));
    let tampered = world.relay(hostile).adversary.as_ref().map_or(0, |adversary| adversary.tampered);
    let is_clean = world.client(BOB).disk.messages.iter().all(|(_, _, body)| body.iter().all(|&byte| byte == 9));
    let held = world.has_notice(ALICE, |notice| matches!(notice, Notice::Held { .. }));
    assert!(has_arrived && is_clean && held, "{tampering:?} by {hostile:?}: {}", world.describe());
    let is_stale = tampering == Tampering::Replay && stale_cells(&world) > stale_before;
    Outcome { tampered: tampered > 0, killed: violations(&world) > before, is_stale }
}

struct Outcome {
    tampered: bool,
    killed: bool,
    /// What was sent a second time may have come when its circuit was over, as some cell did.
    is_stale: bool,
}

/// Cells that came for circuits that were gone, as relays and clients saw it.
fn stale_cells(world: &World) -> u64 {
    let relays: u64 = world.all_relays().iter().map(|relay| relay.stale_cells).sum();
    let clients: u64 =
        world.all_clients().iter().filter_map(|client| client.core()).map(|core| core.stale_count()).sum();
    relays + clients
}

/// Circuits and links that were closed because a rule was broken, as relays and clients saw it.
fn violations(world: &World) -> u64 {
    let relays: u64 =
        world.all_relays().iter().filter_map(|relay| relay.control()).map(|control| control.stats().violations).sum();
    let clients: u64 =
        world.all_clients().iter().filter_map(|client| client.core()).map(|core| core.violation_count()).sum();
    relays + clients
}

#[test] // §3.1
fn every_kind_of_tampering_kills_the_circuit_and_the_message_still_arrives() {
    let kinds = [Tampering::Flip(200), Tampering::Replay, Tampering::Inject];
    let mut tampered = 0;
    for (number, kind) in kinds.into_iter().enumerate() {
        for hostile in 0..8 {
            let outcome = tamper(60 + number as u64, RelayName(hostile), kind, 3);
            if outcome.tampered {
                tampered += 1;
                assert!(outcome.killed || outcome.is_stale, "{kind:?} by relay {hostile} went unnoticed");
            }
        }
    }
    assert!(tampered >= 12, "hostile relays were on the way only {tampered} times");
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
    assert!(tampered >= 8, "hostile relays were on the way only {tampered} times");
}

#[test] // §3.1
fn a_flip_seen_by_a_relay_is_a_bad_tag() {
    let mut world = World::new(90).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    for number in 0..8 {
        world.relay(RelayName(number)).adversary = Some(Adversary::new(Tampering::Flip(77), 6));
    }
    world.send(ALICE, &address, vec![3; 100]);
    world.run_for(Duration::from_secs(60));
    let broken: Vec<Violation> = world.all_relays().iter().flat_map(|relay| relay.broken.clone()).collect();
    assert!(!broken.is_empty());
    assert!(broken.iter().all(|violation| *violation == Violation::Tag), "{broken:?}");
}
