//! Clocks that are wrong (docs/protocol.md §1.6): a relay's and a client's, for a while, at a start
//! or while they run.

use umbel_client::core::{Notice, Warning, Wish};
use umbel_proto::time::Duration;
use umbel_tests::world::network::Node;
use umbel_tests::{ClientName, RelayName, World};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const MINUTES: Duration = Duration::from_secs(180);

/// Whether every other relay believes a descriptor of this one, and it believes one of each.
fn is_visible(world: &World, relay: RelayName) -> bool {
    let own = world.all_relays()[relay.0].id;
    let wall = world.wall();
    let knows = |at: usize, whom: usize| {
        let (relays, id) = (world.all_relays(), world.all_relays()[whom].id);
        let known = relays[at]
            .control()
            .and_then(|control| control.view().get(&id));
        known.is_some_and(|known| known.expires_at() > wall && !known.is_future(wall))
    };
    assert_eq!(own, world.all_relays()[relay.0].id);
    (0..world.all_relays().len())
        .all(|other| other == relay.0 || (knows(other, relay.0) && knows(relay.0, other)))
}

fn set_relay_clock(world: &mut World, relay: RelayName, ahead: i64) {
    world.set_clock(Node::Relay(relay.0), ahead);
}

#[test] // §1.6, §8.1
fn a_relay_that_started_with_a_wrong_clock_is_seen_when_it_is_right() {
    for (seed, ahead) in [
        (1, 29 * DAY),
        (2, -3 * DAY),
        (3, 365 * DAY),
        (4, -400 * DAY),
        (5, 3 * HOUR),
    ] {
        for is_restart in [false, true] {
            let mut world = World::new(seed).relays(4);
            world.run_for(Duration::from_secs(20));
            let late = RelayName(world.all_relays().len());
            set_relay_clock(&mut world, late, ahead);
            assert_eq!(world.add_relay(), late);
            world.run_for(Duration::from_secs(120));
            assert!(!is_visible(&world, late), "{ahead}");
            let said = world.all_relays()[late.0]
                .control()
                .and_then(|control| control.clock_off_by());
            assert_eq!(
                said.map(i64::signum),
                Some(-ahead.signum()),
                "its clock is judged: {ahead}"
            );
            if is_restart {
                world.crash_relay(late);
            }
            set_relay_clock(&mut world, late, 0);
            if is_restart {
                world.restart_relay(late);
            }
            assert!(
                world.run_until(MINUTES, |world| is_visible(world, late)),
                "{ahead}, {is_restart}"
            );
            let said = world.all_relays()[late.0]
                .control()
                .and_then(|control| control.clock_off_by());
            assert_eq!(said, None);
        }
    }
}

#[test] // §1.6, §8.1
fn a_relay_whose_clock_jumps_and_comes_back_is_seen_again() {
    for (seed, ahead) in [(11, 29 * DAY), (12, -3 * DAY)] {
        let mut world = World::new(seed).relays(5);
        assert!(world.run_until(MINUTES, |world| is_visible(world, RelayName(2))));
        set_relay_clock(&mut world, RelayName(2), ahead);
        world.run_for(Duration::from_secs(300));
        set_relay_clock(&mut world, RelayName(2), 0);
        assert!(
            world.run_until(MINUTES, |world| is_visible(world, RelayName(2))),
            "{ahead}"
        );
    }
}

/// A world in which three messages wait for their reader.
fn world_with_mail(seed: u64) -> (World, ClientName) {
    let mut world = World::new(seed).relays(6).clients(2);
    let (owner, sender) = (ClientName(0), ClientName(1));
    let address = world.create_inbox(owner, "mail");
    world.run_for(Duration::from_secs(10));
    world.crash_client(owner);
    for number in 0..3 {
        world.send(sender, &address, vec![number; 10]);
    }
    world.expect_within(Duration::from_secs(120), |world| record_count(world) >= 6);
    world.crash_client(sender);
    (world, owner)
}

fn record_count(world: &World) -> usize {
    world
        .all_relays()
        .iter()
        .map(|relay| relay.disk.record_count())
        .sum()
}

fn inbox_descriptor_count(world: &World) -> usize {
    world
        .all_relays()
        .iter()
        .map(|relay| relay.disk.restore().inbox_descriptors.len())
        .sum()
}

fn set_clocks(world: &mut World, ahead: i64) {
    for relay in 0..world.all_relays().len() {
        set_relay_clock(world, RelayName(relay), ahead);
    }
}

#[test] // §1.6, §10.1
fn relays_that_run_for_a_moment_with_a_wrong_clock_keep_what_they_keep() {
    for (seed, ahead) in [(21, 29 * DAY), (22, 365 * DAY), (23, -400 * DAY)] {
        let (mut world, owner) = world_with_mail(seed);
        let before = (record_count(&world), inbox_descriptor_count(&world));
        assert!(before.0 >= 6 && before.1 >= 6);
        let restart_all = |world: &mut World, ahead: i64| {
            (0..6).for_each(|relay| world.crash_relay(RelayName(relay)));
            set_clocks(world, ahead);
            (0..6).for_each(|relay| world.restart_relay(RelayName(relay)));
        };
        restart_all(&mut world, ahead);
        world.run_for(Duration::from_secs(300));
        assert_eq!(
            (record_count(&world), inbox_descriptor_count(&world)),
            before,
            "at a start"
        );
        restart_all(&mut world, 0);
        world.run_for(Duration::from_secs(300));
        set_clocks(&mut world, ahead);
        world.run_for(Duration::from_secs(3600));
        set_clocks(&mut world, 0);
        world.run_for(Duration::from_secs(300));
        assert_eq!(
            (record_count(&world), inbox_descriptor_count(&world)),
            before,
            "while they run"
        );
        world.restart_client(owner);
        assert_all_mail_comes(&mut world, owner);
    }
}

/// The owner receives all that was sent to it.
fn assert_all_mail_comes(world: &mut World, owner: ClientName) {
    world.wish(
        owner,
        Wish::Listen {
            name: "mail".to_owned(),
            is_interactive: false,
        },
    );
    world.expect_within(MINUTES, |world| world.message_count(owner) == 3);
}

/// State of a client that must not be drawn anew: guard, paths, relays known, inboxes.
fn kept(world: &World, client: ClientName) -> (Option<Vec<u8>>, usize, usize) {
    let disk = &world.client(client).disk;
    (
        disk.paths().map(<[u8]>::to_vec),
        disk.relay_count(),
        disk.inbox_count(),
    )
}

fn is_told_of_clock(world: &World, client: ClientName, ahead: i64) -> bool {
    let is_it = |seconds: u64| seconds.abs_diff(ahead.unsigned_abs()) < 60;
    world.has_notice(
        client,
        |notice| matches!(notice, Notice::Warning(Warning::Clock { seconds }) if is_it(*seconds)),
    )
}

#[test] // §1.6, §6.4
fn a_client_with_a_wrong_clock_warns_and_draws_nothing_anew() {
    for (seed, ahead) in [
        (31, 3 * HOUR),
        (32, 2 * DAY),
        (33, 365 * DAY),
        (34, -3 * DAY),
        (35, -365 * DAY),
    ] {
        let (mut world, owner) = world_with_mail(seed);
        world.restart_client(owner);
        world.run_for(Duration::from_secs(30));
        world.crash_client(owner);
        let before = kept(&world, owner);
        assert!(before.0.is_some());
        for _ in 0..3 {
            world.set_clock(Node::Client(owner.0), ahead);
            world.restart_client(owner);
            world.run_for(Duration::from_secs(60));
            assert!(
                is_told_of_clock(&world, owner, ahead),
                "{ahead}: {}",
                world.describe()
            );
            world.crash_client(owner);
            assert!(kept(&world, owner) == before, "{ahead}");
        }
        world.set_clock(Node::Client(owner.0), 0);
        world.restart_client(owner);
        assert_all_mail_comes(&mut world, owner);
    }
}

#[test] // §1.6, §6.4
fn a_client_whose_clock_jumps_again_and_again_keeps_its_guard() {
    let (mut world, owner) = world_with_mail(41);
    world.restart_client(owner);
    world.run_for(Duration::from_secs(30));
    let before = kept(&world, owner);
    let guard = |world: &World| {
        world
            .client(owner)
            .core()
            .and_then(|core| core.status().guard)
    };
    let first = guard(&world);
    assert!(first.is_some());
    for days in [61, 130, 200, 270, 340, -30] {
        world.set_clock(Node::Client(owner.0), days * DAY);
        world.run_for(Duration::from_secs(4));
        assert_eq!(guard(&world), first);
        world.run_for(Duration::from_secs(90));
        assert!(
            is_told_of_clock(&world, owner, days * DAY),
            "{days}: {}",
            world.describe()
        );
        world.set_clock(Node::Client(owner.0), 0);
        world.run_for(Duration::from_secs(90));
        assert_eq!(guard(&world), first);
    }
    assert!(kept(&world, owner) == before);
    assert_all_mail_comes(&mut world, owner);
}
