//! Networks among strangers: relays are believed once others have reached them (docs/protocol.md
//! §8.7), with the parameters that people have.

use std::net::SocketAddr;

use umbel_proto::directory::Unverified;
use umbel_proto::directory::receipts::ReceiptRefusal;
use umbel_proto::ids::{NetworkId, RelayId};
use umbel_proto::network::Network;
use umbel_proto::time::{Duration, Moment, WallTime};
use umbel_relay::control::Control;
use umbel_relay::control::io::News;
use umbel_tests::scenario::{self, ALICE, BOB, strangers};
use umbel_tests::shells::relay::SimRelay;
use umbel_tests::world::network::Node;
use umbel_tests::{RelayName, World};

/// Three founders and as many relays as make twelve, each of which was told of one other, until all
/// know each other. Most do within a minute; who has missed a founder's news learns of it at the
/// next reconciliation (§8.3(9)).
fn twelve(seed: u64) -> World {
    let mut world = founding(seed);
    world.expect_within(Duration::from_secs(1500), all_know_all);
    world
}

fn founding(seed: u64) -> World {
    World::with_overlay(seed, strangers()).founders(3).relays(9)
}

fn all_know_all(world: &World) -> bool {
    (0..12).all(|number| known_by(world, RelayName(number)) == 12)
}

fn relay(world: &World, RelayName(number): RelayName) -> &SimRelay {
    &world.all_relays()[number]
}

/// How many relays believe in this one.
fn known_by(world: &World, name: RelayName) -> usize {
    let id = relay(world, name).id;
    let relays = world.all_relays().iter();
    let knows = relays.filter_map(|relay| relay.control()?.view().get(&id));
    knows.count()
}

/// How many relays this one may draw.
fn selectable(world: &World, name: RelayName) -> usize {
    let view = relay(world, name).control().map(Control::view);
    let selectable = view.map(|view| view.selectable(world.overlay(), world.wall()));
    selectable.into_iter().flatten().count()
}

#[test] // §8.7
fn three_founders_start_a_network_with_default_parameters() {
    let mut world = twelve(1);
    // Whom one source alone has listed is selectable once the next has been asked (§8.2(3)).
    let is_whole = |world: &World| (0..12).all(|name| selectable(world, RelayName(name)) == 12);
    world.expect_within(Duration::from_secs(1500), is_whole);
}

/// Twelve relays of which every second has an IPv6 address, too; in `local` none but `::1` is one.
fn with_both_families(seed: u64) -> World {
    let id = NetworkId([7; 32]);
    let overlay = Network { id, ..strangers() };
    let world = World::with_overlay(seed, overlay).with_ipv6();
    world.founders(6).relays(6)
}

/// The receipts that count at another relay, by the address families of what they vouch for.
fn counted(world: &World, of: RelayName, at: RelayName) -> [usize; 2] {
    let view = relay(world, at).control().map(Control::view);
    let known = view.and_then(|view| Some((view, view.get(&relay(world, of).id)?)));
    let Some((view, descriptor)) = known else {
        return [0; 2];
    };
    let (network, wall) = (world.overlay(), world.wall());
    [true, false].map(|is_v4| {
        let mut addresses = descriptor.addresses.iter();
        let address = addresses.find(|it| it.is_ipv4() == is_v4);
        address.map_or(0, |&it| {
            let counted = view.counted_receipts(descriptor, it, network, wall);
            counted.count()
        })
    })
}

#[test] // §8.7(5), §8.2(4)
fn relays_with_both_families_are_vouched_for_over_both() {
    let mut world = with_both_families(3);
    let least = world.overlay().params.receipts_min;
    let names = || (0..12).map(RelayName);
    let is_dual = |name: RelayName| name.0.is_multiple_of(2);
    let is_whole = |world: &World, name: RelayName| {
        let counted = counted(world, name, RelayName(1)).map(|count| count >= least);
        selectable(world, name) == 12 && counted == [true, is_dual(name)]
    };
    world.expect_within(Duration::from_secs(1500), |world| {
        names().all(|name| is_whole(world, name))
    });
    // Only those who have such an address themselves can have dialled it.
    let dual: Vec<RelayId> = names()
        .filter(|name| is_dual(*name))
        .map(|name| relay(&world, name).id)
        .collect();
    let view = relay(&world, RelayName(1)).control().unwrap().view();
    let receipts = view.iter().flat_map(|descriptor| &descriptor.receipts);
    let of_v6: Vec<_> = receipts.filter(|it| it.address.is_ipv6()).collect();
    assert!(of_v6.iter().all(|it| dual.contains(&it.issuer)));
    assert!(of_v6.len() >= least * dual.len());
}

#[test] // §8.7(7)
fn an_address_of_one_family_that_nobody_reaches_keeps_nobody_from_the_other() {
    let mut world = with_both_families(4);
    let closed: SocketAddr = "[fd00:99::1]:10000".parse().unwrap();
    let newcomer = world.add_relay_as(|relay| {
        relay.second_address = None;
        relay.advertised = Some(vec![closed, relay.address]);
    });
    world.expect_within(Duration::from_secs(1500), |world| {
        known_by(world, newcomer) == 13
    });
    let (id, v4) = (relay(&world, newcomer).id, relay(&world, newcomer).address);
    for other in (0..12).map(RelayName) {
        let view = relay(&world, other).control().unwrap().view();
        assert_eq!(view.get(&id).unwrap().addresses, [v4]);
    }
}

#[test] // §8.2(3)
fn a_client_that_was_away_while_relays_joined_comes_back() {
    let mut overlay = strangers();
    overlay.params.receipt_issuer_age = Duration::from_secs(6 * 3600);
    overlay.params.receipt_life = Duration::from_secs(24 * 3600);
    let mut world = World::with_overlay(6, overlay)
        .founders(3)
        .relays(9)
        .clients(1);
    let has_guards = |world: &World| {
        let core = world.client(ALICE).core();
        core.is_some_and(|core| core.status().guards > 0)
    };
    world.expect_within(Duration::from_secs(600), has_guards);
    world.crash_client(ALICE);
    // Of the first relays only the founders are left.
    let mut world = world.relays(9);
    world.run_for(Duration::from_secs(24 * 3600));
    (3..12).for_each(|number| world.crash_relay(RelayName(number)));
    world.run_for(Duration::from_secs(50 * 3600));
    world.restart_client(ALICE);
    let draws_all = |world: &World| {
        let view = world.client(ALICE).core().map(|core| core.view());
        let drawn = view.map(|view| view.selectable(world.overlay(), world.wall()).count());
        drawn.is_some_and(|drawn| drawn >= 11)
    };
    world.expect_within(Duration::from_secs(600), draws_all);
}

#[test] // §8.2(12), §8.3(9)
fn who_came_later_vouches_where_it_was_met() {
    let mut overlay = strangers();
    overlay.params.receipt_issuer_age = Duration::from_secs(6 * 3600);
    let mut world = World::with_overlay(5, overlay).founders(3).relays(9);
    world.run_for(Duration::from_secs(2 * 3600));
    let newcomer = world.add_relay();
    let vouches = |world: &World, other: usize| {
        let view = relay(world, RelayName(other)).control().unwrap().view();
        let address = "127.200.0.1:10000".parse().unwrap();
        let vouchers = view.vouchers(world.overlay(), address, world.wall());
        vouchers.would_count(&relay(world, newcomer).id)
    };
    world.run_for(Duration::from_secs(5 * 3600));
    assert!((0..12).all(|other| !vouches(&world, other)), "it is young");
    // Within the hours in which it grows old, each has asked it (§8.3(9)).
    world.run_for(Duration::from_secs(90 * 60));
    assert!((0..12).all(|other| vouches(&world, other)));
}

#[test] // §8.3(9)
fn founders_and_newcomers_know_each_other_in_minutes_whoever_refused_whom() {
    for seed in 100..120 {
        let mut world = founding(seed);
        world.expect_within(Duration::from_secs(240), all_know_all);
    }
}

#[test] // §8.7
fn a_newcomer_is_known_to_all_within_a_minute() {
    let mut world = twelve(2);
    world.run_for(Duration::from_secs(2 * 3600));
    let newcomer = world.add_relay();
    world.run_for(Duration::from_secs(60));
    assert_eq!(known_by(&world, newcomer), 13);
    let news = &relay(&world, newcomer).news;
    let is_reached =
        |news: &News| matches!(news, News::Reachable { receipt_count, .. } if *receipt_count >= 3);
    assert!(news.iter().any(is_reached));
}

/// How many receipts this relay's descriptor has, whatever its date.
fn shown_then(world: &World, name: RelayName) -> usize {
    let own = relay(world, name).control().map(Control::descriptor);
    let own = own.and_then(|own| Unverified::decode(own).ok());
    let own = own.and_then(|own| {
        let issued_at = own.issued_at();
        own.verify(world.overlay(), issued_at).ok()
    });
    own.map_or(0, |own| own.receipts.len())
}

/// All twelve have this clock from now on, seconds ahead.
fn set_clocks(world: &mut World, ahead: i64) {
    (0..12).for_each(|number| world.set_clock(Node::Relay(number), ahead));
}

#[test] // §8.7(3), §8.7(6)
fn relays_that_began_by_wrong_clocks_know_each_other_once_these_are_right() {
    for ahead in [3 * 86_400, -8 * 86_400] {
        let mut world = founding(31);
        set_clocks(&mut world, ahead);
        world.run_for(Duration::from_secs(120));
        let vouched = (0..12).filter(|&it| shown_then(&world, RelayName(it)) >= 3);
        assert!(vouched.count() >= 9, "they vouch for each other");
        set_clocks(&mut world, 0);
        world.expect_within(Duration::from_secs(1800), all_know_all);
    }
}

#[test] // §8.7(4)
fn a_relay_that_cannot_be_reached_is_in_nobodys_view_and_is_told_why() {
    let mut world = twelve(3);
    let closed = world.add_relay_as(|relay| relay.is_open = false);
    world.run_for(Duration::from_secs(1800));
    assert_eq!(known_by(&world, closed), 0);
    let is_why = |news: &News| {
        let refusal = ReceiptRefusal::Unreachable;
        matches!(news, News::ReceiptRefused { refusal: why, .. } if *why == refusal)
    };
    assert!(relay(&world, closed).news.iter().any(is_why));
}

#[test] // §8.7(2)
fn a_relay_that_advertises_anothers_address_is_in_nobodys_view() {
    let mut world = twelve(4);
    let others = relay(&world, RelayName(5)).address;
    let liar = world.add_relay_as(|relay| relay.advertised = Some(vec![others]));
    world.run_for(Duration::from_secs(1800));
    assert_eq!(known_by(&world, liar), 0);
    let from = SocketAddr::new(relay(&world, liar).address.ip(), 50_000);
    let is_why = |news: &News| {
        let refusal = ReceiptRefusal::Elsewhere { from };
        matches!(news, News::ReceiptRefused { refusal: why, .. } if *why == refusal)
    };
    assert!(relay(&world, liar).news.iter().any(is_why));
}

/// How many receipts this relay shows.
fn shown(world: &World, name: RelayName) -> usize {
    let own = relay(world, name).control().map(Control::descriptor);
    let own = own.and_then(|own| Unverified::decode(own).ok());
    let own = own.and_then(|own| own.verify(world.overlay(), world.wall()).ok());
    own.map_or(0, |own| own.receipts.len())
}

/// Since when this relay knows each other.
fn first_seen(world: &World, name: RelayName) -> Vec<(RelayId, Option<WallTime>)> {
    let (own, view) = (relay(world, name).id, relay(world, name).control());
    let view = view.map(Control::view).into_iter();
    let known = view.flat_map(|view| view.iter().map(|it| (it.relay, view.first_seen(&it.relay))));
    known.filter(|(it, _)| *it != own).collect()
}

#[test] // §8.7(6)
fn receipts_outlive_a_crash_of_all_relays() {
    let mut world = twelve(5);
    world.run_for(Duration::from_secs(120));
    let names = || (0..12).map(RelayName);
    let before: Vec<_> = names().map(|name| first_seen(&world, name)).collect();
    names().for_each(|name| world.crash_relay(name));
    names().for_each(|name| world.restart_relay(name));
    // At once: nobody has had time to ask anew.
    for name in names() {
        assert!(shown(&world, name) >= 3, "{name:?}");
        assert_eq!(known_by(&world, name), 12, "{name:?}");
    }
    let after: Vec<_> = names().map(|name| first_seen(&world, name)).collect();
    assert_eq!(after, before);
}

#[test] // §8.7(7)
fn a_network_that_was_off_for_longer_than_descriptors_live_comes_back() {
    let mut world = twelve(7);
    world.run_for(Duration::from_secs(2 * 3600));
    let names = || (0..12).map(RelayName);
    names().for_each(|name| world.crash_relay(name));
    world.skip(Duration::from_secs(50 * 3600));
    // The seeds last: nobody who vouches is there when the others begin.
    names().rev().for_each(|name| world.restart_relay(name));
    world.expect_within(Duration::from_secs(240), all_know_all);
}

// §8.7(7): two seeds are no three issuers, and no other is in any view.
#[test]
fn a_network_that_was_off_for_days_comes_back_without_one_of_three_seeds() {
    let mut world = twelve(8);
    world.run_for(Duration::from_secs(2 * 3600));
    (0..12).for_each(|number| world.crash_relay(RelayName(number)));
    world.skip(Duration::from_secs(3 * 24 * 3600));
    let back = || (0..12).filter(|number| *number != 1).map(RelayName);
    back().rev().for_each(|name| world.restart_relay(name));
    let is_back = |world: &World| back().all(|name| known_by(world, name) == 11);
    world.expect_within(Duration::from_secs(240), is_back);
    assert!(back().all(|name| selectable(&world, name) == 11));
}

#[test] // §8.7
fn messages_flow_between_strangers() {
    let mut world = twelve(6).clients(2);
    let address = world.create_inbox(BOB, "help");
    scenario::listen(&mut world, false);
    let sent = world.send(ALICE, &address, b"hello, stranger".to_vec());
    world.expect_within(Duration::from_secs(600), |world| {
        scenario::has_come(world, sent)
    });
}

/// Twelve relays that know each other, three of which vouch for all who ask, in a network where seeds
/// vouch no longer than others.
fn with_liars(seed: u64) -> (World, [RelayName; 3]) {
    let mut overlay = strangers();
    overlay.params.seeds_vouch_until = 5;
    let liars = [4, 5, 6].map(RelayName);
    let mut world = World::with_overlay(seed, overlay).founders(3).relays(9);
    liars
        .iter()
        .for_each(|&liar| world.relay(liar).is_credulous = true);
    world.expect_within(Duration::from_secs(1500), all_know_all);
    world.run_for(Duration::from_secs(2 * 3600)); // setup is over
    (world, liars)
}

/// For how many relays this issuer vouches for nobody.
fn barring(world: &World, issuer: RelayName) -> usize {
    let id = relay(world, issuer).id;
    let controls = world.all_relays().iter().filter_map(SimRelay::control);
    let standings = controls.filter_map(|control| control.spot_checks().standing(&id));
    standings.filter(|it| it.barred_until.is_some()).count()
}

#[test] // §8.8(3)
fn issuers_that_lie_are_caught_and_vouch_for_nobody() {
    let (mut world, liars) = with_liars(8);
    let seeds = vec![relay(&world, RelayName(0)).peer()];
    let mut ghosts = Vec::new();
    for _ in 0..60 {
        let seeds = seeds.clone();
        ghosts.push(world.add_relay_as(|relay| {
            relay.is_open = false;
            relay.seeds = seeds;
        }));
        world.run_for(Duration::from_secs(120));
    }
    assert!(ghosts.iter().any(|&ghost| known_by(&world, ghost) > 0));
    world.run_for(Duration::from_secs(3600));
    for number in 0..12 {
        let (name, is_liar) = (RelayName(number), liars.contains(&RelayName(number)));
        let barring = barring(&world, name);
        assert_eq!(barring > 0, is_liar, "{name:?}: {barring}");
    }
    // Who has caught them draws none of the ghosts, also after a restart.
    let has_caught = |relay: &SimRelay| {
        let checks = relay.control().map(Control::spot_checks);
        checks.is_some_and(|it| it.barred().next().is_some())
    };
    let caught = world.all_relays().iter().position(has_caught);
    let caught = RelayName(caught.unwrap());
    world.crash_relay(caught);
    world.restart_relay(caught);
    assert!(has_caught(relay(&world, caught)));
    let view = relay(&world, caught).control().map(Control::view);
    let selectable = view.map(|view| view.selectable(world.overlay(), world.wall()));
    let drawn: Vec<_> = selectable
        .into_iter()
        .flatten()
        .map(|it| it.relay)
        .collect();
    let is_drawn = |&ghost: &RelayName| drawn.contains(&relay(&world, ghost).id);
    assert!(drawn.len() >= 12 && !ghosts.iter().any(is_drawn));
}

#[test] // §8.8(4)
fn relays_that_close_their_ports_frame_no_issuer_that_others_need() {
    let (mut world, _) = with_liars(12);
    let seeds = vec![relay(&world, RelayName(0)).peer()];
    for number in 0..60 {
        let seeds = seeds.clone();
        let name = world.add_relay_as(|relay| relay.seeds = seeds);
        world.run_for(Duration::from_secs(30));
        // Of the second half, one in four closes its port once it has its receipts.
        let is_framing = number >= 30 && number % 4 == 0;
        world.relay(name).is_open = !is_framing;
        world.run_for(Duration::from_secs(60));
    }
    world.run_for(Duration::from_secs(3600));
    let standings = |taker: RelayName| {
        let checks = relay(&world, taker).control().map(Control::spot_checks);
        let ids = (0..12).map(|number| relay(&world, RelayName(number)).id);
        let standings = ids.filter_map(|id| checks?.standing(&id));
        standings.collect::<Vec<_>>()
    };
    let all: Vec<_> = (0..12)
        .flat_map(|number| standings(RelayName(number)))
        .collect();
    assert!(all.iter().map(|it| it.found).sum::<usize>() > 100);
    assert!(all.iter().any(|it| it.missed > 0));
    assert!(all.iter().all(|it| it.barred_until.is_none()));
}

// §8.1(4): its descriptor lives for two days more.
#[test]
fn a_seed_that_can_not_be_dialled_is_missed_at_once() {
    let mut world = twelve(31);
    world.crash_relay(RelayName(1));
    world.run_for(Duration::from_secs(300));
    let missing = |has_failed: bool| {
        let (now, wall) = (world.now(), world.wall());
        let control = relay(&world, RelayName(7)).control();
        let standing = control.map(|it| it.standing(Moment { now, wall }, |_| has_failed));
        let missing = standing.into_iter().flat_map(|it| it.missing_seeds);
        missing.map(|it| it.id).collect::<Vec<_>>()
    };
    let gone = relay(&world, RelayName(1)).id;
    assert_eq!(missing(false), [], "nobody has tried");
    assert!(missing(true).contains(&gone));
}
