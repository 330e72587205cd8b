use super::*;
use crate::directory::receipts::Receipt;
use crate::directory::testing::{self, TestRelay, WALL};
use crate::network::{AddressGroups, Params};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn later(secs: u64) -> WallTime {
    WallTime(WALL.as_secs() + secs)
}

fn issued(number: u32, at: WallTime) -> TestRelay {
    testing::relay(number).with(|descriptor| descriptor.issued_at = at)
}

fn verified_at(relay: &TestRelay, wall: WallTime) -> VerifiedDescriptor {
    relay
        .unverified()
        .verify(&testing::public_network(), wall)
        .unwrap()
}

#[test] // §8.2(1)
fn the_newer_descriptor_stays() {
    let mut view = NetView::new();
    let (old, new) = (
        testing::relay(1).verified(),
        verified_at(&issued(1, later(10)), WALL),
    );
    assert_eq!(view.insert(old.clone(), WALL), Inserted::New);
    assert_eq!(view.insert(old.clone(), WALL), Inserted::Stale);
    assert_eq!(view.insert(new.clone(), later(20)), Inserted::Newer);
    assert_eq!(view.insert(old, later(30)), Inserted::Stale);
    assert_eq!((view.len(), view.get(&new.relay)), (1, Some(&new)));
    assert_eq!(view.first_seen(&new.relay), Some(WALL));
}

#[test] // §8.2(1)
fn of_two_as_new_all_views_keep_the_same() {
    let a = testing::relay(1).verified();
    let b = testing::relay(1)
        .with(|descriptor| descriptor.puzzle = 1)
        .verified();
    let keep = |order: [&VerifiedDescriptor; 2]| {
        let mut view = NetView::new();
        for descriptor in order {
            view.insert(descriptor.clone(), WALL);
        }
        view.get(&a.relay).unwrap().hash()
    };
    assert_eq!(keep([&a, &b]), keep([&b, &a]));
}

#[test] // §8.2(2)
fn digest_is_of_what_is_held_whatever_the_order() {
    let (mut one, mut other) = (NetView::new(), NetView::new());
    for number in 0..10 {
        one.insert(testing::relay(number).verified(), WALL);
        other.insert(testing::relay(9 - number).verified(), later(5));
    }
    assert_eq!(one.digest(), other.digest());
    one.insert(verified_at(&issued(3, later(1)), WALL), WALL);
    assert_ne!(one.digest(), other.digest());
    one.take_dead(later(3 * DAY));
    assert_eq!(one.digest(), NetView::new().digest());
}

#[test] // §8.1
fn dead_descriptors_go_and_are_named() {
    let mut view = NetView::new();
    view.insert(testing::relay(1).verified(), WALL);
    view.insert(verified_at(&issued(2, later(HOUR)), WALL), WALL);
    assert_eq!(view.take_dead(later(2 * DAY - 1)), []);
    let dead: Vec<_> = view
        .take_dead(later(2 * DAY))
        .into_iter()
        .map(|(descriptor, _)| descriptor.relay)
        .collect();
    assert_eq!(dead, [testing::relay(1).descriptor.relay]);
    assert_eq!(view.len(), 1);
}

#[test] // §8.2(6)
fn newcomers_are_not_drawn_until_everyone_knows_them() {
    let network = testing::public_network();
    let mut view = NetView::new();
    view.insert(testing::relay(1).verified(), WALL);
    let seen_at = later(2 * HOUR);
    view.insert(verified_at(&issued(2, seen_at), seen_at), seen_at);
    let count = |view: &NetView, wall| view.selectable(&network, wall).count();
    assert_eq!(
        count(&view, seen_at),
        1,
        "what was there when the view was set up is taken as old"
    );
    assert_eq!(count(&view, later(25 * HOUR)), 1);
    assert_eq!(count(&view, later(26 * HOUR)), 2);
}

#[test] // §8.2(6)
fn relays_about_to_expire_are_not_drawn() {
    let network = testing::public_network();
    let mut view = NetView::new();
    view.insert(testing::relay(1).verified(), WALL);
    assert_eq!(view.selectable(&network, later(42 * HOUR - 1)).count(), 1);
    assert_eq!(view.selectable(&network, later(42 * HOUR)).count(), 0);
}

#[test] // §8.2(6)
fn the_first_condition_that_a_relay_lacks_is_named() {
    let mut network = testing::public_network();
    let mut view = NetView::new();
    view.insert(testing::relay(1).verified(), WALL);
    let seen_at = later(2 * HOUR);
    let young = verified_at(&issued(2, seen_at), seen_at);
    view.insert(young.clone(), seen_at);
    let until = later(26 * HOUR);
    let of = |network: &Network, wall| view.hindrance(&young, network, wall);
    let expected = Some(Hindrance::Young { until });
    assert_eq!(of(&network, later(3 * HOUR)), expected);
    assert_eq!(of(&network, until), None);
    assert_eq!(of(&network, later(44 * HOUR)), Some(Hindrance::Expiring));
    network.params.receipts_min = 1;
    assert_eq!(of(&network, until), Some(Hindrance::Unvouched));
}

/// A view of relays 10 to 12 that is past its setup, and relay 1 with receipts by these.
fn vouching(issuers: &[u32]) -> (Network, NetView, VerifiedDescriptor) {
    let network = Network {
        params: Params {
            receipts_min: 2,
            ..Params::DEFAULT
        },
        ..Network::local()
    };
    let mut view = NetView::new();
    for number in 10..13 {
        view.insert(testing::relay(number).verified(), WALL);
    }
    let relay = testing::vouched(testing::relay(1), issuers.iter().copied(), WALL);
    (network, view, relay.verified())
}

#[test] // §8.2(4)
fn receipts_count_if_their_issuers_are_known_and_apart() {
    let wall = later(2 * HOUR);
    let (network, view, descriptor) = vouching(&[10, 11]);
    assert!(view.may_admit(&descriptor, &network, wall));
    let (network, mut view, descriptor) = vouching(&[10, 20]);
    assert!(
        !view.may_admit(&descriptor, &network, wall),
        "20 is in no view"
    );
    view.insert(testing::relay(20).verified(), wall);
    assert!(
        !view.may_admit(&descriptor, &network, wall),
        "20 is too new"
    );
    view.insert(
        verified_at(&issued(20, later(7 * DAY)), later(7 * DAY)),
        later(7 * DAY),
    );
    assert!(view.may_admit(&descriptor, &network, later(7 * DAY + 2 * HOUR)));
}

#[test] // §8.8(3)
fn barred_issuers_vouch_for_nobody_unless_they_are_seeds_that_vouch() {
    let wall = later(2 * HOUR);
    let (mut network, mut view, descriptor) = vouching(&[10, 11]);
    let barred = testing::relay(10).descriptor.relay;
    assert!(view.bar([barred].into()));
    assert!(!view.is_vouched(&descriptor, &network, wall));
    network.seeds.push(crate::ids::Peer {
        id: barred,
        host_port: "20.10.1.1:9000".to_owned(),
    });
    assert!(view.is_vouched(&descriptor, &network, wall));
    network.seeds.clear();
    assert!(view.bar([].into()));
    assert!(view.is_vouched(&descriptor, &network, wall));
}

#[test] // §8.8(6)
fn nobody_is_told_of_relays_whose_issuers_were_barred() {
    let wall = later(2 * HOUR);
    let (network, mut view, descriptor) = vouching(&[10, 11]);
    let without = view.digest();
    let (relay, version) = (descriptor.relay, descriptor.version());
    view.insert(descriptor, wall);
    let with = view.digest();
    let barred = |number| [testing::relay(number).descriptor.relay].into();
    let bar = |view: &mut NetView, issuers| {
        assert!(view.bar(issuers));
        view.withhold(&network, wall);
        let is_told = view.digest() == with && view.told(&relay).is_some();
        assert!(is_told || view.digest() == without);
        assert_eq!(view.has_refused(&relay, version), !is_told);
        assert_eq!(view.heard_of(&relay), Some(version), "it stays");
        is_told
    };
    assert!(bar(&mut view, barred(12)), "none of its issuers");
    assert!(!bar(&mut view, barred(10)));
    let listed: Vec<_> = view.heard_of_in(IdRange::ALL).collect();
    assert!(listed.contains(&(relay, version)), "nobody sends it");
    // Nor has a relay what left its view for want of room.
    let evicted = testing::relay(5).verified();
    view.remember(&evicted);
    assert!(view.has_refused(&evicted.relay, evicted.version()));
    let newer = testing::vouched(issued(1, later(HOUR)), [11, 12], WALL);
    view.insert(verified_at(&newer, wall), wall);
    assert!(view.told(&relay).is_some(), "others vouch for it");
}

#[test] // §8.2(4)
fn issuers_in_one_group_count_once() {
    let (mut network, mut view, descriptor) = vouching(&[10, 11]);
    network.params.danger_address_groups = AddressGroups::Prefix;
    let address = testing::relay(10).descriptor.addresses[0];
    let beside = issued(11, later(1)).with(|descriptor| descriptor.addresses = vec![address]);
    view.insert(beside.verified(), WALL);
    assert!(!view.is_vouched(&descriptor, &network, later(2 * HOUR)));
}

/// Names relay 20 as a seed of the network file.
fn seed_20(network: &mut Network) {
    network.seeds.push(crate::ids::Peer {
        id: testing::relay(20).descriptor.relay,
        host_port: "20.20.1.1:9000".to_owned(),
    });
}

#[test] // §8.2(4)
fn seeds_vouch_from_the_beginning() {
    let (mut network, mut view, descriptor) = vouching(&[10, 20]);
    let wall = later(2 * HOUR);
    view.insert(testing::relay(20).verified(), wall);
    assert!(!view.is_vouched(&descriptor, &network, wall));
    seed_20(&mut network);
    assert!(view.is_vouched(&descriptor, &network, wall));
}

#[test] // §8.2(4)
fn seeds_need_no_receipts_while_the_network_is_young() {
    let (mut network, mut view, _) = vouching(&[]);
    let wall = later(2 * HOUR);
    seed_20(&mut network);
    let seed = testing::relay(20).verified();
    assert!(view.may_admit(&seed, &network, wall));
    network.params.seeds_vouch_until = 4;
    view.insert(testing::relay(20).verified(), wall);
    assert!(view.may_admit(&seed, &network, wall), "three are older");
    view.insert(testing::relay(13).verified(), WALL);
    assert!(!view.may_admit(&seed, &network, wall), "four are");
}

#[test] // §8.2(4)
fn no_address_is_vouched_for_by_its_own_group() {
    let (mut network, mut view, descriptor) = vouching(&[10, 11]);
    network.params.danger_address_groups = AddressGroups::Prefix;
    let wall = later(2 * HOUR);
    assert!(view.is_vouched(&descriptor, &network, wall));
    let mut beside = descriptor.addresses[0];
    beside.set_ip("20.1.200.1".parse().unwrap());
    let moved = issued(11, later(1)).with(|descriptor| descriptor.addresses = vec![beside]);
    view.insert(moved.verified(), WALL);
    assert!(!view.is_vouched(&descriptor, &network, wall));
}

#[test] // §8.2(4)
fn each_address_needs_receipts_of_its_own() {
    let (network, view, descriptor) = vouching(&[10, 11]);
    let wall = later(2 * HOUR);
    let second = "[2a00::1]:9000".parse().unwrap();
    let relay = testing::relay(1).with(|it| {
        it.addresses.push(second);
        it.receipts = descriptor.receipts.clone();
    });
    assert!(!view.may_admit(&relay.verified(), &network, wall));
    let sign = |issuer| {
        let key = testing::relay(issuer).key;
        Receipt::sign(&key, &network.id, &descriptor.relay, second, WALL)
    };
    let both = relay.with(|it| it.receipts.extend([10, 11].map(sign)));
    assert!(view.may_admit(&both.verified(), &network, wall));
}

#[test] // §8.2(5)
fn in_setup_the_number_of_receipts_has_to_do() {
    let (network, _, descriptor) = vouching(&[20, 21]);
    let empty = NetView::new();
    assert!(empty.may_admit(&descriptor, &network, WALL));
    let (_, view, one) = vouching(&[20]);
    assert!(!empty.may_admit(&one, &network, WALL));
    assert!(view.may_admit(&descriptor, &network, later(HOUR)));
    assert!(!view.may_admit(&descriptor, &network, later(HOUR + 1)));
}

/// A relay at this address, with receipts of two issuers that count in the view of [`vouching`].
fn at(number: u32, address: &str, issued_at: WallTime) -> VerifiedDescriptor {
    let address = address.parse().unwrap();
    let relay = issued(number, issued_at).with(|it| it.addresses = vec![address]);
    verified_at(&testing::vouched(relay, [10, 11], WALL), issued_at)
}

#[test] // §8.2(10)
fn an_address_is_one_relays_until_that_has_left_it() {
    let (mut network, mut view, _) = vouching(&[]);
    let wall = later(60);
    let (first, second) = (at(1, "20.1.1.1:9000", WALL), at(2, "20.1.1.1:9000", WALL));
    view.insert(first, wall);
    let is_free = |view: &NetView, network: &Network, relay: &VerifiedDescriptor| {
        view.are_free(relay, network, wall)
    };
    assert!(!is_free(&view, &network, &second));
    let beside = at(2, "20.1.1.1:9001", WALL);
    assert!(is_free(&view, &network, &beside), "another port");
    let mapped = at(2, "[::ffff:20.1.1.1]:9000", WALL);
    assert!(
        !is_free(&view, &network, &mapped),
        "the same, written as v6"
    );
    let renewal = at(1, "20.1.1.1:9000", wall);
    assert!(is_free(&view, &network, &renewal));
    view.insert(at(1, "20.1.1.1:9002", wall), wall);
    assert!(is_free(&view, &network, &second), "it has moved");
    view.insert(second.clone(), wall);
    view.take_dead(second.expires_at());
    assert_eq!(view.relays_at(second.address()).count(), 0);
    view.insert(second, wall);
    network.params.receipts_min = 0;
    assert!(is_free(&view, &network, &at(3, "20.1.1.1:9000", WALL)));
}

#[test] // §8.2(10)
fn a_host_has_room_for_four_relays_at_a_time() {
    let (mut network, mut view, _) = vouching(&[]);
    let on_host = |number: u32, issued_at| {
        let address = format!("20.1.1.1:{}", 9000 + number);
        at(number, &address, issued_at)
    };
    for number in 1..=4 {
        view.insert(on_host(number, WALL), WALL);
    }
    let fifth = on_host(5, WALL);
    assert!(view.are_free(&fifth, &network, later(60)), "in the setup");
    let wall = later(2 * HOUR);
    assert!(!view.are_free(&fifth, &network, wall));
    let holder = view.holder_of(fifth.address(), &fifth.relay, &network, wall);
    assert_eq!(holder, None, "nobody is at that port");
    let beside = at(5, "20.1.1.2:9000", WALL);
    assert!(view.are_free(&beside, &network, wall), "another host");
    // Those that are there stay, also where the setup took more than there is room for.
    view.insert(fifth, WALL);
    for number in 1..=5 {
        let renewed = on_host(number, wall);
        assert!(view.are_free(&renewed, &network, wall), "{number}");
    }
    let sixth = on_host(6, WALL);
    assert!(!view.are_free(&sixth, &network, wall));
    let life = network.params.receipt_life;
    let lapsed = WALL + life / 2;
    assert!(
        !view.are_free(&sixth, &network, lapsed),
        "still vouched for"
    );
    assert!(
        view.are_free(&sixth, &network, WALL + life * 2),
        "nobody is"
    );
    // Clients take what relays took; and where groups are by port, a host is many.
    let mut of_client = view;
    of_client.set_trust(Trust::Listed);
    assert!(of_client.are_free(&sixth, &network, wall));
    of_client.set_trust(Trust::Met);
    network.params.danger_address_groups = AddressGroups::Port;
    assert!(of_client.are_free(&sixth, &network, wall));
}

#[test] // §8.2(10)
fn a_host_is_a_v6_64_or_a_v4_address() {
    let bounds = |text: &str| {
        let (first, last) = Host::from(text.parse::<SocketAddr>().unwrap()).bounds();
        (first.to_string(), last.to_string())
    };
    let (first, last) = bounds("[2001:db8:1:2:3::4]:9000");
    assert_eq!(first, "[2001:db8:1:2::]:0");
    assert_eq!(last, "[2001:db8:1:2:ffff:ffff:ffff:ffff]:65535");
    for v4 in ["20.1.1.1:9000", "[::ffff:20.1.1.1]:9000"] {
        assert_eq!(
            bounds(v4),
            ("20.1.1.1:0".to_owned(), "20.1.1.1:65535".to_owned())
        );
    }
}

#[test] // §8.2(5), §8.2(10)
fn what_nobody_vouches_for_keeps_no_relay_from_its_address() {
    let (network, mut view, _) = vouching(&[]);
    let address = "20.1.1.1:9000";
    // Taken in setup, on the word of issuers that don't exist.
    let ghost = issued(1, WALL).with(|it| it.addresses = vec![address.parse().unwrap()]);
    let ghost = verified_at(&testing::vouched(ghost, [30, 31], WALL), WALL);
    assert!(view.may_admit(&ghost, &network, WALL));
    view.insert(ghost, WALL);
    let there = at(2, address, WALL);
    assert!(view.are_free(&there, &network, WALL));
    view.insert(there, WALL);
    assert!(!view.are_free(&at(3, address, WALL), &network, WALL));
}
