//! Real processes: invitations, by which newcomers get a network's file from its relays, over IPv4
//! and IPv6. In a file of its own, so that its relays run beside few others.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    reason = "a test that fails panics, on real processes"
)]

mod fleet;

use fleet::{Fleet, PATIENCE, Relay, Shift, answer, umbel_relay};
use std::net::UdpSocket;
use std::process::Output;
use umbel_proto::network::{Invite, Network};

const PARAMS: &str = "danger_allow_private_addresses = true\nreceipts_min = 0\nselectable_age = \"0s\"\n\
    danger_accept_weak = [\"receipts_min\", \"selectable_age\"]\n";

/// The one line that a command printed.
fn line(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Both programs refuse this invitation, each with its exit code, and make nothing.
fn is_refused(fleet: &Fleet, invite: &str, [client, relay]: [i32; 2], says: &str) {
    let (profile, refused) = fleet.invited_profile("refused", invite);
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(client), "{errors}");
    assert!(errors.contains(says) && errors.contains("hint"), "{errors}");
    let dir = fleet.path("refused-relay");
    let refused = umbel_relay(&["init", "--invite", invite], &dir);
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(relay), "{errors}");
    assert!(errors.contains(says) && errors.contains("hint"), "{errors}");
    assert!(!profile.dir.exists() && !dir.exists());
}

#[test] // §8.6(9), §8.6(10), §8.4(6)
fn an_invitation_is_enough_to_join() {
    let mut fleet = Fleet::of_network(4, PARAMS, Shift::default());
    answer(&fleet.relays[0], &["status"], |status| {
        status["reachable"]["is"] == true
    });
    let invite = line(&umbel_relay(&["invite-peer"], &fleet.path("relay0")));
    let seeds = invite.parse::<Invite>().expect("an invitation");
    assert_eq!(
        seeds.seeds()[0].to_string(),
        fleet.relays[0].peer,
        "its own relay first"
    );

    let (alice, made) = fleet.invited_profile("alice", &invite);
    let said = line(&made);
    assert!(
        said.contains(&"5a".repeat(32)) && said.contains("\"network\":\"test\""),
        "{said}"
    );
    let again = alice.ok(&["invite-peer", "--own-seeds"]);
    let again = again[0]["invite"].as_str().expect("a line").to_owned();
    let (bob, made) = fleet.invited_profile("bob", &again);
    line(&made);
    let address = bob.create_inbox("help");
    alice.must_send(&address, b"invited");
    assert_eq!(bob.receive(1, PATIENCE), [b"invited".to_vec()]);

    let dir = fleet.path("newcomer");
    line(&umbel_relay(&["init", "--invite", &invite], &dir));
    let config = std::fs::read_to_string(dir.join("umbel-relay.toml")).expect("its seeds");
    assert!(config.contains(&fleet.relays[0].peer), "{config}");

    is_refused(&fleet, &invite[..invite.len() - 1], [2, 2], "damaged");
    let other = Network {
        id: seeds.network(),
        ..Network::local()
    };
    let wrong = Invite::new(&other, seeds.seeds()).expect("an invitation");
    is_refused(&fleet, &wrong.to_string(), [76, 6], "another file");
    fleet.relays.iter_mut().for_each(Relay::kill);
    is_refused(&fleet, &invite, [69, 5], "nobody answers there");
}

#[test] // §8.6(2), §8.6(9)
fn the_local_network_runs_over_ipv6_too() {
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6 loopback address, ::1");
        return;
    }
    let fleet = Fleet::at_host("[::1]", 5);
    let peer = &fleet.relays[0].peer;
    assert!(peer.contains("@[::1]:"), "{peer}");
    fleet.settle(5, "probe", PATIENCE);
    let invite = line(&umbel_relay(&["invite-peer"], &fleet.path("relay0")));
    let (bob, made) = fleet.invited_profile("bob", &invite);
    line(&made);
    let alice = fleet.profile("alice");
    let address = bob.create_inbox("help");
    alice.must_send(&address, b"over v6");
    assert_eq!(bob.receive(1, PATIENCE), [b"over v6".to_vec()]);
    let status = fleet.relays[0].asked(&["status"]);
    let advertised = status["advertised"][0].as_str().expect("an address");
    assert!(advertised.starts_with("[::1]:"), "{status}");
    assert_eq!(status["reachable"]["is"], true, "{status}");
}
