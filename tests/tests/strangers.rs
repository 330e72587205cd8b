//! Real processes in networks among strangers: relays are believed once others have reached them, by
//! the default parameters. In a file of its own, so that its many processes run beside no others.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    reason = "a test that fails panics, on real processes"
)]

mod fleet;

use fleet::{Fleet, PATIENCE, Relay, Shift};

const PARAMS: &str = "danger_allow_private_addresses = true\n";

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
    alice.must_send(&address, b"hello, stranger");
    assert_eq!(bob.receive(1, PATIENCE), [b"hello, stranger".to_vec()]);
    fleet.relays.iter_mut().for_each(Relay::kill);
    fleet.relays.iter_mut().for_each(|relay| relay.start(&[]));
    alice.must_send(&address, b"still here");
    assert_eq!(bob.receive(1, PATIENCE), [b"still here".to_vec()]);
}
