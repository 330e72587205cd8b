//! Real processes in a network with the parameters that networks have unless they say otherwise:
//! ten relays, each in an address group of its own. Only receipts and public addresses are not asked
//! for.

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

const PARAMS: &str = "receipts_min = 0\ndanger_allow_private_addresses = true\nguards_new_a_day = 8\n\
     danger_accept_weak = [\"receipts_min\", \"guards_new_a_day\"]\n";
const RELAYS: usize = 10;

#[test] // §10.2(6a), §10.5(2)
fn messages_are_held_and_read_by_default() {
    let fleet = Fleet::of_network(RELAYS, PARAMS, Shift::default());
    fleet.settle(RELAYS, "probe", PATIENCE);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    alice.must_send(&address, b"while nobody reads");
    assert_eq!(bob.receive(1, PATIENCE), [b"while nobody reads".to_vec()]);
    // To one who follows, through a pushing holder; and on to a second holder by the command that
    // runs next.
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| bob.follow(2, PATIENCE));
        alice.must_send(&address, b"first, pushed");
        alice.must_send(&address, b"second, pushed");
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

#[test] // §8.3(9a)
fn an_owner_who_was_away_for_three_days_receives() {
    if !Shift::is_possible() {
        eprintln!("skipped: `apt-get install faketime` makes it possible to shift a calendar");
        return;
    }
    let mut fleet = Fleet::of_network(RELAYS, PARAMS, Shift("-3d"));
    fleet.settle(RELAYS, "probe", PATIENCE);
    let (alice, mut bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    alice.must_send(&address, b"waits for you");
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
