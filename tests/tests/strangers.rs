//! Real processes in networks among strangers: relays are believed once others have reached them. The
//! parameters are the default ones, but that private addresses are allowed and two waits are short. In
//! a file of its own, so that its many processes run beside no others.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    reason = "a test that fails panics, on real processes"
)]

mod fleet;

use std::collections::BTreeSet;
use std::time::Instant;

use fleet::{Fleet, PATIENCE, Profile, Relay, Shift, answer};
use serde_json::Value;
use umbel_client::BareStore;
use umbel_proto::ids::RelayId;
use umbel_proto::path::Paths;
use umbel_proto::time::WallTime;
use umbel_relay::store::Store;

const PARAMS: &str = "danger_allow_private_addresses = true\n";
/// Relays are drawn soon after they are known, and have peers soon.
const SHORTENED: [[&str; 2]; 2] = [
    ["selectable_age = \"1d\"", "selectable_age = \"10s\""],
    ["sync_interval = \"10min\"", "sync_interval = \"10s\""],
];

/// What a relay says of itself, and of another, that a restart must not change.
fn facts(relay: &Relay, other: &str) -> [Value; 2] {
    let (status, why) = (relay.asked(&["status"]), relay.asked(&["why", other]));
    let of = |it: &Value, key: &str| it[key].clone();
    [of(&status["selectable"], "since"), of(&why, "first_seen")]
}

/// The relays to which this one, that does not run, links first at its next start (§8.3(9)).
fn anchors(relay: &Relay) -> BTreeSet<RelayId> {
    let opened = Store::open(&relay.dir.join("relay.db"), Box::new(|_| {}));
    let (_store, restored) = opened.expect("a relay's store");
    restored.anchors.into_iter().collect()
}

/// The L2 that this profile keeps, which nobody is told of (§6.4(2)).
fn layer2(profile: &Profile) -> BTreeSet<RelayId> {
    let store = umbel_client::Profile::load(&profile.dir).expect("a profile");
    let store = BareStore::open(store).expect("its store");
    let paths = store.restore(WallTime(0)).expect("its state").paths;
    let paths = Paths::restore(&paths.expect("paths"), None).expect("paths of this version");
    paths.layer2.relays().collect()
}

/// The relay that sees where this profile's user is, once it answers and is as wanted.
fn guard(profile: &Profile, is_wanted: impl Fn(&str) -> bool) -> String {
    let gives_up_at = Instant::now() + PATIENCE;
    loop {
        let status = profile.ok(&["status"]);
        let guard = status.first().and_then(|status| status["guard"].as_str());
        if let Some(guard) = guard.filter(|guard| is_wanted(guard)) {
            return guard.to_owned();
        }
        assert!(Instant::now() < gives_up_at, "{status:?}");
    }
}

/// One more relay joins by one seed. `receipts.rs` shows in virtual time that a minute is enough.
fn all_learn_of_a_newcomer(fleet: &mut Fleet) {
    fleet.add_relay(&[]);
    let (newcomer, others) = fleet.relays.split_last().expect("relays");
    answer(newcomer, &["status"], |it| it["reachable"]["is"] == true);
    for other in others {
        answer(other, &["why", &newcomer.peer], |it| it["known"] == true);
    }
}

#[test] // §8.7, §8.3(10)
fn strangers_make_a_network_that_outlives_a_crash_of_all() {
    let mut fleet = Fleet::of_network(3, PARAMS, Shift::default());
    fleet.found_network_with(&SHORTENED);
    for _ in 3..12 {
        fleet.add_relay(&[]);
    }
    for relay in &fleet.relays {
        answer(relay, &["status"], |status| {
            status["selectable"]["is"] == true && status["relays"] == 11
        });
    }
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    alice.must_send(&address, b"hello, stranger");
    assert_eq!(bob.receive(1, PATIENCE), [b"hello, stranger".to_vec()]);

    all_learn_of_a_newcomer(&mut fleet);

    let last = fleet.relays[12].peer.clone();
    let all_facts = |fleet: &Fleet| -> Vec<[Value; 2]> {
        let relays = fleet.relays.iter().take(12);
        relays.map(|relay| facts(relay, &last)).collect()
    };
    let guards = [&alice, &bob].map(|profile| guard(profile, |_| true));
    let before = all_facts(&fleet);
    fleet.relays.iter_mut().for_each(Relay::kill);
    let all_anchors = |fleet: &Fleet| -> Vec<_> { fleet.relays.iter().map(anchors).collect() };
    let (anchors_before, l2_before) = (all_anchors(&fleet), [&alice, &bob].map(layer2));
    let have_anchors = anchors_before.iter().filter(|it| !it.is_empty()).count();
    assert!(have_anchors > 6, "{anchors_before:?}");
    assert!(l2_before.iter().all(|it| it.len() > 1), "{l2_before:?}");
    fleet.relays.iter_mut().for_each(|relay| relay.start(&[]));
    assert_eq!(all_facts(&fleet), before);
    for relay in &fleet.relays {
        answer(relay, &["status"], |status| {
            status["selectable"]["is"] == true
        });
    }
    alice.must_send(&address, b"still here");
    assert_eq!(bob.receive(1, PATIENCE), [b"still here".to_vec()]);
    for (profile, before) in [&alice, &bob].into_iter().zip(&guards) {
        guard(profile, |guard| guard == before);
    }
    fleet.relays.iter_mut().for_each(Relay::kill);
    assert_eq!([&alice, &bob].map(layer2), l2_before);
    let anchors = all_anchors(&fleet);
    let mut both = anchors_before.iter().zip(&anchors);
    assert!(
        both.all(|(before, now)| before.is_subset(now)),
        "{anchors_before:?} and {anchors:?}"
    );
}
