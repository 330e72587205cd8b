//! Real processes in networks among strangers: relays are believed once others have reached them, by
//! the default parameters. In a file of its own, so that its many processes run beside no others.

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

use std::time::Duration;

use fleet::{Fleet, Profile, Relay, Shift};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(170);
const PARAMS: &str = "danger_allow_private_addresses = true\n";

fn send(from: &Profile, address: &str, body: &[u8]) {
    let sent = from.send_with(address, body, &[]);
    assert_eq!(
        sent.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&sent.stderr)
    );
}

#[test] // §8.7
fn strangers_make_a_network_that_outlives_a_crash_of_all() {
    let mut fleet = Fleet::of_network(3, PARAMS, Shift::default());
    fleet.found_network();
    for _ in 3..12 {
        fleet.add_relay(&[]);
    }
    fleet.settle(12, "probe", PATIENCE);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    send(&alice, &address, b"hello, stranger");
    assert_eq!(bob.receive(1, PATIENCE), [b"hello, stranger".to_vec()]);
    fleet.relays.iter_mut().for_each(Relay::kill);
    fleet.relays.iter_mut().for_each(|relay| relay.start(&[]));
    send(&alice, &address, b"still here");
    assert_eq!(bob.receive(1, PATIENCE), [b"still here".to_vec()]);
}
