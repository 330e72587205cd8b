//! Companions of mailboxes whose holders are out of reach (docs/protocol.md §10.5(6)): senders find two
//! holders that answer, and a holder that comes back keeps its mailbox.

use std::collections::BTreeSet;

use umbel_client::core::{Notice, Warning};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::network::Network;
use umbel_proto::time::Duration;
use umbel_tests::scenario::{
    ALICE, BOB, count_of, guard_of, has_come, is_held_by, listen, mailboxes_of, patient, relays_at,
};
use umbel_tests::shells::relay::Sabotage;
use umbel_tests::world::network::Node;
use umbel_tests::{RelayName, World};

const RELAYS: usize = 12;

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

fn hours(count: u64) -> Duration {
    minutes(count * 60)
}

/// What fails rests as long as by default; what works is looked at more rarely, since hours pass.
fn network() -> Network {
    let mut network = patient();
    network.params.fetch_interval = minutes(5);
    network
}

/// Bob follows his inbox, which has three mailboxes; and its holders, but for one that is his guard.
fn follower(seed: u64) -> (World, InboxAddress, Vec<RelayName>) {
    let mut world = World::with_overlay(seed, network())
        .relays(RELAYS)
        .clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, false);
    world.run_for(minutes(1));
    assert_eq!(mailboxes_of(&world, BOB), (3, 0));
    let guard = guard_of(&world, BOB).and_then(|guard| world.relay_named(guard));
    let mut holders = with_queues(&mut world);
    holders.retain(|&holder| Some(holder) != guard);
    (world, address, holders.into_iter().collect())
}

/// The relays that hold a queue.
fn with_queues(world: &mut World) -> BTreeSet<RelayName> {
    let relays = (0..RELAYS).map(RelayName);
    relays
        .filter(|&name| world.relay(name).disk.has_queues())
        .collect()
}

fn replaced_count(world: &World) -> usize {
    let is_it =
        |notice: &Notice| matches!(notice, Notice::Warning(Warning::MailboxReplaced { .. }));
    count_of(world, BOB, is_it)
}

/// Bob's descriptor names so many mailboxes, and so many of them are out of reach, within this time.
fn expect_mailboxes(world: &mut World, within: Duration, expected: (usize, usize)) {
    let has_them = |world: &World| mailboxes_of(world, BOB) == expected;
    assert!(
        world.run_until(within, has_them),
        "{:?} for {expected:?}; {}",
        mailboxes_of(world, BOB),
        world.describe()
    );
}

#[test] // §10.5(6)
fn a_holder_that_is_down_for_an_evening_keeps_its_mailbox() {
    let (mut world, _, holders) = follower(1201);
    let Some(&holder) = holders.first() else {
        unreachable!("two holders are no guard")
    };
    world.crash_relay(holder);
    world.run_for(minutes(25));
    assert_eq!(mailboxes_of(&world, BOB), (3, 0), "it may be restarting");
    expect_mailboxes(&mut world, minutes(40), (4, 1));
    world.run_for(hours(4));
    assert_eq!(mailboxes_of(&world, BOB), (4, 1));
    world.restart_relay(holder);
    expect_mailboxes(&mut world, minutes(20), (4, 0));
    world.run_for(minutes(45));
    assert_eq!(mailboxes_of(&world, BOB), (4, 0), "it may go again");
    expect_mailboxes(&mut world, minutes(75), (3, 0));
    assert_eq!(replaced_count(&world), 0);
    assert!(world.relay(holder).disk.has_queues());
}

#[test] // §10.5(6)
fn a_holder_that_is_down_for_a_week_is_given_up() {
    let (mut world, address, holders) = follower(1202);
    let Some(&holder) = holders.first() else {
        unreachable!("two holders are no guard")
    };
    world.crash_relay(holder);
    world.run_for(hours(70));
    assert_eq!(mailboxes_of(&world, BOB), (4, 1));
    assert_eq!(replaced_count(&world), 0, "it may come back");
    expect_mailboxes(&mut world, hours(30), (3, 0));
    assert_eq!(replaced_count(&world), 1);
    world.run_for(hours(2));
    let sent = world.send(ALICE, &address, b"to the three that are left".to_vec());
    world.expect_within(minutes(5), |world| is_held_by(world, sent, 3));
}

#[test] // §10.5(6)
fn with_two_of_three_holders_dead_senders_find_two_that_answer() {
    let (mut world, address, holders) = follower(1203);
    // Alice knows the descriptor of before.
    let first = world.send(ALICE, &address, b"while all are there".to_vec());
    world.expect_within(minutes(30), |world| has_come(world, first));
    let dead = holders.iter().take(2);
    dead.for_each(|&holder| world.crash_relay(holder));
    let early = world.send(ALICE, &address, b"to the one that is left".to_vec());
    world.run_for(minutes(20));
    assert!(is_held_by(&world, early, 1) && !is_held_by(&world, early, 2));
    expect_mailboxes(&mut world, minutes(45), (5, 2));
    // Whoever looks the descriptor up has no reason to wait.
    let late = world.send(ALICE, &address, b"to companions".to_vec());
    world.expect_within(minutes(5), |world| is_held_by(world, late, 3));
    world.expect_within(hours(1), |world| is_held_by(world, early, 2));
    world.expect_within(minutes(30), |world| has_come(world, late));
}

#[test] // §10.5(6)
fn an_owner_whose_own_line_is_down_makes_no_companions() {
    for (seed, is_silent) in [(1204, false), (1205, true)] {
        let (mut world, _, _) = follower(seed);
        let before = with_queues(&mut world);
        for relay in 0..RELAYS {
            if is_silent {
                world.silence(BOB, RelayName(relay));
            } else {
                world.cut(Node::Client(BOB.0), Node::Relay(relay));
            }
        }
        world.run_for(hours(5));
        world.network().heal();
        world.run_for(hours(2));
        assert_eq!(mailboxes_of(&world, BOB), (3, 0), "{}", world.describe());
        assert_eq!(with_queues(&mut world), before);
    }
}

#[test] // §10.5(6)
fn a_holder_that_comes_and_goes_has_one_companion_each_time() {
    let (mut world, _, holders) = follower(1206);
    let Some(&holder) = holders.first() else {
        unreachable!("two holders are no guard")
    };
    let mut companions = BTreeSet::new();
    for _ in 0..3 {
        world.crash_relay(holder);
        expect_mailboxes(&mut world, minutes(65), (4, 1));
        companions.insert(with_queues(&mut world));
        world.restart_relay(holder);
        expect_mailboxes(&mut world, hours(3), (3, 0));
    }
    assert_eq!(companions.len(), 1, "no holder is drawn anew");
}

#[test] // §10.5(6)
fn a_companion_out_of_reach_leaves_its_place_to_another() {
    let (mut world, _, holders) = follower(1206);
    let Some(&holder) = holders.first() else {
        unreachable!("two holders are no guard")
    };
    let before = with_queues(&mut world);
    world.crash_relay(holder);
    expect_mailboxes(&mut world, minutes(65), (4, 1));
    let companion = with_queues(&mut world).difference(&before).copied().next();
    let Some(companion) = companion else {
        unreachable!("a holder was drawn")
    };
    world.crash_relay(companion);
    expect_mailboxes(&mut world, minutes(65), (4, 2));
    expect_mailboxes(&mut world, minutes(5), (4, 1));
    assert_eq!(with_queues(&mut world).len(), before.len() + 2);
}

#[test] // §6.4(10), §10.5(6)
fn of_holders_that_break_circuits_one_has_a_companion_in_an_hour() {
    let (mut world, address, _) = follower(1209);
    for holder in with_queues(&mut world) {
        world.relay(holder).sabotage = Some(Sabotage::Mailboxes);
    }
    let before = world.client(BOB).notices.len();
    let has_one = |world: &World| mailboxes_of(world, BOB) == (4, 1);
    assert!(world.run_until(hours(1), has_one), "{}", world.describe());
    // Some of these holders are positions, too, and answer there. That clears them for a while, and the
    // second comes later.
    expect_mailboxes(&mut world, minutes(30), (5, 3));
    let sent = world.send(ALICE, &address, b"to companions".to_vec());
    world.expect_within(minutes(10), |world| is_held_by(world, sent, 2));
    world.expect_within(minutes(30), |world| has_come(world, sent));
    // No guard or L2 had to go for what the holders did.
    let since = world.client(BOB).notices.iter().skip(before);
    let is_warning = |notice: &Notice| matches!(notice, Notice::Warning(_));
    assert_eq!(since.filter(|(_, notice)| is_warning(notice)).count(), 0);
    let guards = relays_at(&world, BOB, 1).len();
    assert!(guards <= world.overlay().params.guards_primary, "{guards}");
}
