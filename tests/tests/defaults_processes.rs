//! Real processes in networks with the parameters that networks have unless they say otherwise, each
//! relay in an address group of its own. Public addresses are not asked for, and receipts only
//! where they are what is tested.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    dead_code,
    reason = "a test that fails panics, on real processes; not all of a fleet is needed here"
)]

mod fleet;

use std::time::{Duration, Instant};

use fleet::{Fleet, Profile, Relay, Shift};

const PARAMS: &str =
    "receipts_min = 0\ndanger_allow_private_addresses = true\ndanger_accept_weak = true\n";
/// As they are for strangers.
const STRANGERS: &str = "danger_allow_private_addresses = true\n";
const RELAYS: usize = 10;
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(170);

/// The time in which a newcomer learns of all relays from its seeds: each relay passes news on
/// within seconds (§8.3(10)). Each was the seed of the next, so news may have many relays to pass.
fn settle(fleet: &Fleet) {
    settle_to(fleet, RELAYS, "probe");
}

/// The same, of so many relays, as profiles of this name see it.
fn settle_to(fleet: &Fleet, relays: usize, name: &str) {
    let gives_up_at = Instant::now() + PATIENCE;
    for attempt in 0.. {
        let probe = fleet.profile(&format!("{name}{attempt}"));
        let status = probe.ok(&["status"]);
        if status.first().and_then(|status| status["relays"].as_u64()) == Some(relays as u64) {
            return;
        }
        assert!(
            Instant::now() < gives_up_at,
            "every relay is known to all: {status:?}"
        );
    }
}

fn send(from: &Profile, address: &str, body: &[u8]) {
    let sent = from.send_with(address, body, &[]);
    assert_eq!(
        sent.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&sent.stderr)
    );
}

#[test] // §10.2(6a), §10.5(2)
fn messages_are_held_and_read_by_default() {
    let fleet = Fleet::of_network(RELAYS, PARAMS, Shift::default());
    settle(&fleet);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    send(&alice, &address, b"while nobody reads");
    assert_eq!(bob.receive(1, PATIENCE), [b"while nobody reads".to_vec()]);
    // To one who follows, through a pushing holder; and on to a second holder by the command that
    // runs next.
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| bob.follow(2, PATIENCE));
        send(&alice, &address, b"first, pushed");
        send(&alice, &address, b"second, pushed");
        let mut came = follower.join().expect("the reader ends");
        came.sort();
        assert_eq!(
            came,
            [b"first, pushed".to_vec(), b"second, pushed".to_vec()]
        );
    });
    alice.ok(&["send", "--flush", "--timeout", "170"]);
    assert!(
        bob.receive_all().is_empty(),
        "copies are of messages that were read"
    );
}

#[test] // §8.7
fn strangers_make_a_network_that_outlives_a_crash_of_all() {
    let mut fleet = Fleet::of_network(3, STRANGERS, Shift::default());
    fleet.name_founders();
    for _ in 3..12 {
        fleet.add_relay(&[]);
    }
    settle_to(&fleet, 12, "probe");
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    send(&alice, &address, b"hello, stranger");
    assert_eq!(bob.receive(1, PATIENCE), [b"hello, stranger".to_vec()]);
    fleet.relays.iter_mut().for_each(Relay::kill);
    fleet.relays.iter_mut().for_each(|relay| relay.start(&[]));
    send(&alice, &address, b"still here");
    assert_eq!(bob.receive(1, PATIENCE), [b"still here".to_vec()]);
}

#[test] // §8.7(2)
fn a_relay_that_advertises_anothers_address_is_told_so_and_believed_by_nobody() {
    let mut fleet = Fleet::of_network(3, STRANGERS, Shift::default());
    fleet.name_founders();
    fleet.add_relay(&[]);
    settle_to(&fleet, 4, "before");
    let others = fleet.relays[3].peer.clone();
    let (_, others) = others.split_once('@').expect("a peer");
    fleet.add_relay(&["--advertise", others]);
    let gives_up_at = Instant::now() + PATIENCE;
    while !fleet.relays[4].log().contains("elsewhere: ") {
        assert!(Instant::now() < gives_up_at, "{}", fleet.relays[4].log());
        std::thread::sleep(Duration::from_millis(50));
    }
    settle_to(&fleet, 4, "after");
}

#[test] // §8.3(9a)
fn an_owner_who_was_away_for_three_days_receives() {
    if !Shift::is_possible() {
        eprintln!("skipped: `apt-get install faketime` makes it possible to shift a calendar");
        return;
    }
    let mut fleet = Fleet::of_network(RELAYS, PARAMS, Shift("-3d"));
    settle(&fleet);
    let (alice, mut bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    send(&alice, &address, b"waits for you");
    for relay in &mut fleet.relays {
        assert_eq!(relay.stop(), Some(0));
        relay.shift = Shift::default();
    }
    fleet
        .relays
        .iter_mut()
        .for_each(|relay: &mut Relay| relay.start(&[]));
    bob.shift = Shift::default();
    assert_eq!(bob.receive(1, PATIENCE), [b"waits for you".to_vec()]);
}
