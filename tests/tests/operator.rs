//! Relays in a network among strangers as their operators see them, by `umbel-relay status` and
//! `umbel-relay why`: who is believed by nobody learns why, and what to do.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    reason = "a test that fails panics, on real processes"
)]

mod fleet;

use std::net::TcpListener;

use fleet::{Fleet, PATIENCE, Shift, answer};
use serde_json::Value;

const PARAMS: &str = "danger_allow_private_addresses = true\n";

/// Three founders of a network, and a relay that joined.
fn network() -> Fleet {
    let mut fleet = Fleet::of_network(3, PARAMS, Shift::default());
    fleet.found_network();
    fleet.add_relay(&[]);
    fleet.settle(4, "before", PATIENCE);
    fleet
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// Nobody believes the last relay of this fleet, whose status says this of the reason.
fn assert_believed_by_nobody(fleet: &Fleet, state: &str, words: &[&str]) {
    let (bad, good) = fleet.relays.split_last().expect("relays");
    let status = answer(bad, &["status"], |status| {
        let health = text(&status["health"]);
        words.iter().all(|word| health.contains(word))
    });
    assert_eq!(status["reachable"]["addresses"][0]["state"], state);
    for sentence in [
        &status["health"],
        &status["reachable"]["why"],
        &status["selectable"]["why"],
    ] {
        for word in words {
            assert!(text(sentence).contains(word), "{word} in {sentence}");
        }
    }
    assert!(
        text(&status["health"]).starts_with("not in use: "),
        "{status:#}"
    );
    for is in [&status["reachable"]["is"], &status["selectable"]["is"]] {
        assert_eq!(is, false);
    }
    assert_eq!(status["receipts"], Value::Array(Vec::new()));
    assert!(
        bad.log().contains(&format!("{state}: ")),
        "the log says it, too"
    );
    fleet.settle(4, state, PATIENCE);
    for relay in good {
        let other = relay.asked(&["why", &bad.peer]);
        assert_eq!(
            (&other["known"], &other["selectable"]["is"]),
            (&false.into(), &false.into())
        );
        assert!(text(&other["health"]).starts_with("unknown: "), "{other:#}");
    }
}

/// A port of this host that is free.
fn free_port(host: &str) -> u16 {
    let listener = TcpListener::bind((host, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test] // §8.7(4)
fn a_relay_whose_port_is_closed_is_told_so_and_believed_by_nobody() {
    let mut fleet = network();
    let closed = format!("127.5.0.1:{}", free_port("127.5.0.1"));
    fleet.add_relay(&["--advertise", &closed]);
    let reason = format!("dialled {closed} and did not find this relay there. Open that port");
    assert_believed_by_nobody(&fleet, "unreachable", &["unreachable: ", &reason]);
}

#[test] // §8.7(2)
fn a_relay_that_advertises_anothers_address_is_told_whose_it_is() {
    let mut fleet = network();
    let other = fleet.relays[3].peer.clone();
    let (id, host_port) = other.split_once('@').expect("a peer");
    fleet.add_relay(&["--advertise", host_port]);
    let reason = format!("elsewhere: your link came from 127.5.0.1, you advertise {host_port}");
    let remedy = format!("is the address of the relay {id}: set `advertise`");
    assert_believed_by_nobody(&fleet, "elsewhere", &[&reason, &remedy]);
}

#[test] // §8.7(2)
fn a_relay_whose_links_come_from_elsewhere_is_told_from_where() {
    let mut fleet = network();
    let port = free_port("127.5.0.1");
    let (all, advertised) = (format!("0.0.0.0:{port}"), format!("127.5.0.1:{port}"));
    fleet.add_relay(&["--listen", &all, "--advertise", &advertised]);
    let reason = format!("elsewhere: your link came from 127.0.0.1, you advertise {advertised}");
    let remedy = "`advertise` to an address with the IP that links come from, or `listen`";
    assert_believed_by_nobody(&fleet, "elsewhere", &[&reason, remedy]);
}

#[test] // §8.2(4): its descriptor is alive, and each receipt is needed
fn a_seed_that_died_is_named_to_who_waits_for_its_receipt() {
    let mut fleet = network();
    fleet.relays[1].kill();
    let seed = fleet.relays[1].peer.clone();
    fleet.add_relay(&[]);
    let newcomer = &fleet.relays[4];
    let is_told = |status: &Value| text(&status["health"]).contains(&seed);
    let status = answer(newcomer, &["status"], is_told);
    let health = text(&status["health"]);
    assert!(health.starts_with("not in use: "), "{health}");
    assert!(health.contains("2 of 3 receipts so far"), "{health}");
    let others = fleet.relays.iter().take(4).map(|relay| &relay.peer);
    let named = others.filter(|peer| health.contains(*peer)).count();
    assert_eq!(named, 1, "{health}");
    assert_eq!(newcomer.asked(&["why", &seed])["known"], true);
}

#[test] // §8.1(4)
fn a_relay_whose_clock_is_wrong_is_told_by_how_much() {
    if !Shift::is_possible() {
        return;
    }
    let mut fleet = Fleet::new(1);
    fleet.shift = Shift("+3h");
    fleet.add_relay(&[]);
    let is_told = |status: &Value| text(&status["health"]).contains("clock");
    let status = answer(&fleet.relays[1], &["status"], is_told);
    let told = "not in use: this relay's clock is 3 hours ahead of that of other relays";
    assert!(text(&status["health"]).starts_with(told), "{status:#}");
    assert!(text(&status["selectable"]["why"]).contains("set it right"));
    let off = status["clock_off_s"].as_i64().expect("seconds");
    assert!((off - 3 * 3600).abs() < 60, "{off}");
}

#[test] // §8.2(6)
fn a_sound_relay_learns_who_reached_it_and_when_it_is_used_also_after_a_crash() {
    let mut fleet = network();
    let is_reachable = |status: &Value| status["reachable"]["is"] == true;
    let joined = answer(&fleet.relays[3], &["status"], is_reachable);
    assert!(text(&joined["health"]).starts_with("not in use yet: 3 relays reached this one"));
    let receipts = joined["receipts"].as_array().expect("receipts");
    let of_founder = |host: &str| {
        let of = |it: &&Value| it["group"] == format!("{host}.0.0/16");
        receipts.iter().filter(of).count()
    };
    assert_eq!(["127.1", "127.2", "127.3"].map(of_founder), [1, 1, 1]);
    assert_eq!(joined["selectable"]["is"], false);
    let from = text(&joined["selectable"]["from"]).to_owned();
    assert!(text(&joined["selectable"]["why"]).contains(&format!("from {from} on")));
    let why = ["why", &fleet.relays[3].peer];
    for founder in &fleet.relays[..3] {
        let other = answer(founder, &why, |other| other["known"] == true);
        assert_eq!(other["receipts"], joined["receipts"]);
    }
    fleet.relays[3].kill();
    fleet.relays[3].start(&[]);
    let again = fleet.relays[3].asked(&["status"]);
    assert_eq!(again["receipts"], joined["receipts"]);
    assert_eq!(again["selectable"]["from"], from);
}
