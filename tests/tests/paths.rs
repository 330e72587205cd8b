//! Guards that are gone, that lie or that come back, and more mailboxes than circuits.

use std::collections::BTreeSet;

use umbel_client::core::{DeferReason, Notice, Warning, Wish};
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::network::{AddressGroups, Network, Params};
use umbel_proto::time::Duration;
use umbel_tests::adversary::Adversary;
use umbel_tests::scenario::{
    ALICE, BOB, built_count, by_default, count_of, guard_of, has_come, is_held_by, listen, name_of,
    relays_at,
};
use umbel_tests::world::network::Node;
use umbel_tests::{RelayName, World};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The default parameters. Senders are not what is tested: they need not wait.
fn default_params() -> Network {
    let mut overlay = by_default();
    overlay.params.danger_address_groups = AddressGroups::Port;
    overlay.params.second_deposit_delay = Duration::ZERO;
    overlay
}

fn unreachable_count(world: &World) -> usize {
    count_of(world, ALICE, |notice| *notice == Notice::Unreachable)
}

/// Alice's next command, and the one before is over.
fn next_run(world: &mut World) {
    world.wish(ALICE, Wish::Stop);
    world.run_for(Duration::from_millis(100));
    world.crash_client(ALICE);
    world.restart_client(ALICE);
}

fn send_and_wait(world: &mut World, address: &InboxAddress, within: Duration) -> bool {
    let sent = world.send(ALICE, address, b"hello".to_vec());
    world.run_until(within, |world| is_held_by(world, sent, 1))
}

/// Whether Alice builds a circuit soon. Delivery depends on more: a dead guard may be a holder too.
fn finds_a_guard(world: &mut World) -> bool {
    let before = built_count(world, ALICE, 3);
    world.run_until(seconds(15), |world| {
        guard_of(world, ALICE).is_some() && built_count(world, ALICE, 3) > before
    })
}

#[test] // §6.4(6), §6.4(9)
fn guards_that_are_dead_make_room_for_others_in_each_run() {
    for seed in [301, 302, 303] {
        let mut world = World::new(seed).relays(14).clients(2);
        let address = world.create_inbox(BOB, "help");
        assert!(
            send_and_wait(&mut world, &address, seconds(30)),
            "{}",
            world.describe()
        );
        for _ in 0..4 {
            let guard = guard_of(&world, ALICE).expect("a guard in use");
            let dead = name_of(&world, guard);
            if dead != RelayName(0) {
                world.crash_relay(dead);
            }
            next_run(&mut world);
            assert!(finds_a_guard(&mut world), "{}", world.describe());
        }
        assert_eq!(
            unreachable_count(&world),
            0,
            "others were up all the time; {}",
            world.describe()
        );
    }
}

#[test] // §6.4(8), §6.4(9)
fn without_a_seed_a_fresh_guard_is_drawn_and_no_more_than_a_few() {
    let params = Params {
        guards_new_a_day: 2,
        ..Network::local().params
    };
    let mut world = World::with_overlay(
        304,
        Network {
            params,
            ..Network::local()
        },
    )
    .relays(16)
    .clients(2);
    let address = world.create_inbox(BOB, "help");
    assert!(
        send_and_wait(&mut world, &address, seconds(30)),
        "{}",
        world.describe()
    );
    world.crash_relay(RelayName(0));
    for _ in 0..4 {
        next_run(&mut world);
        assert!(finds_a_guard(&mut world), "{}", world.describe());
        let guard = guard_of(&world, ALICE).expect("a guard in use");
        let dead = name_of(&world, guard);
        world.crash_relay(dead);
    }
    next_run(&mut world);
    world.run_for(seconds(900));
    let used = relays_at(&world, ALICE, 1);
    assert!(
        (4..=5).contains(&used.len()),
        "three, and two more in a day: {}; {}",
        used.len(),
        world.describe()
    );
}

#[test] // §6.4(7), §6.4(9)
fn an_outage_is_reported_at_once_and_so_is_its_end_noticed() {
    let mut world = World::new(305).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    assert!(
        send_and_wait(&mut world, &address, seconds(30)),
        "{}",
        world.describe()
    );
    for number in 0..8 {
        world.crash_relay(RelayName(number));
    }
    next_run(&mut world);
    world.expect_within(seconds(5), |world| unreachable_count(world) > 0);
    let sent = world.send(ALICE, &address, b"later".to_vec());
    world.run_for(seconds(1800));
    for number in 0..8 {
        world.restart_relay(RelayName(number));
    }
    world.expect_within(seconds(20), |world| is_held_by(world, sent, 1));
}

#[test] // §6.4(9), §8.3
fn a_seed_that_still_runs_leads_back_to_the_others() {
    for seed in [306, 307, 308, 309] {
        let mut world = World::new(seed).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        assert!(
            send_and_wait(&mut world, &address, seconds(30)),
            "{}",
            world.describe()
        );
        world.wish(ALICE, Wish::Stop);
        world.run_for(seconds(1));
        world.crash_client(ALICE);
        for number in 1..8 {
            world.crash_relay(RelayName(number));
            world.move_relay(RelayName(number));
            world.restart_relay(RelayName(number));
        }
        world.run_for(seconds(30));
        let before = unreachable_count(&world);
        world.restart_client(ALICE);
        assert!(
            send_and_wait(&mut world, &address, seconds(30)),
            "{}",
            world.describe()
        );
        assert_eq!(unreachable_count(&world), before, "{}", world.describe());
    }
}

#[test] // §6.4(10)
fn a_guard_that_breaks_circuits_once_they_are_built_gives_way_to_another() {
    for seed in [311, 312, 313, 314] {
        let mut world = World::new(seed).relays(10).clients(2);
        let address = world.create_inbox(BOB, "help");
        assert!(
            send_and_wait(&mut world, &address, seconds(30)),
            "{}",
            world.describe()
        );
        let liar = guard_of(&world, ALICE).expect("a guard in use");
        let name = name_of(&world, liar);
        world.relay(name).adversary = Some(Adversary::liar(2));
        next_run(&mut world);
        let before = built_count(&world, ALICE, 3);
        let sent = world.send(ALICE, &address, b"past the liar".to_vec());
        world.expect_within(seconds(15), |world| is_held_by(world, sent, 1));
        assert!(
            relays_at(&world, ALICE, 1)
                .iter()
                .any(|&guard| guard != liar),
            "{}",
            world.describe()
        );
        let built = built_count(&world, ALICE, 3) - before;
        assert!(built <= 60, "{built} circuits; {}", world.describe());
    }
}

#[test] // §6.4(10)
fn where_every_guard_lies_few_circuits_are_made_and_that_is_reported() {
    let mut world = World::new(315).relays(10).clients(2);
    let address = world.create_inbox(BOB, "help");
    assert!(
        send_and_wait(&mut world, &address, seconds(30)),
        "{}",
        world.describe()
    );
    next_run(&mut world);
    for number in 0..10 {
        world.relay(RelayName(number)).adversary = Some(Adversary::liar(2));
    }
    let before = built_count(&world, ALICE, 3);
    let sent = world.send(ALICE, &address, b"nobody lets it pass".to_vec());
    let is_said = |world: &World| {
        let broken = |notice: &Notice| {
            let Notice::Deferred {
                id,
                reason: DeferReason::Broken { circuits, guards },
                ..
            } = notice
            else {
                return false;
            };
            *id == sent && *circuits >= 3 && *guards >= 1
        };
        world.has_notice(ALICE, broken)
    };
    world.expect_within(seconds(30), is_said);
    world.run_for(seconds(30));
    assert!(!world.has_notice(ALICE, |notice| matches!(
        notice,
        Notice::Deferred {
            reason: DeferReason::NoDescriptor,
            ..
        }
    )));
    let built = built_count(&world, ALICE, 3) - before;
    assert!(
        built <= 150,
        "{built} circuits in half a minute; {}",
        world.describe()
    );
}

/// Bob has this many inboxes with a message in each; whether one run of `receive` brings them all.
fn many_inboxes(overlay: Network, seed: u64, count: usize, is_interactive: bool, within: Duration) {
    let mut world = World::with_overlay(seed, overlay).relays(10).clients(2);
    let mut sent = Vec::new();
    for number in 0..count {
        let name = format!("box {number}");
        world.wish(BOB, Wish::CreateInbox { name: name.clone() });
        let ready = world.run_until(seconds(300), |world| {
            world.has_notice(
                BOB,
                |notice| matches!(notice, Notice::InboxReady { name: ready, .. } if *ready == name),
            )
        });
        assert!(ready, "{name}: {}", world.describe());
        let address = world
            .client(BOB)
            .core()
            .and_then(|core| core.inbox_address(&name));
        let address = address.unwrap_or_else(|| unreachable!("a ready inbox has an address"));
        let id = world.send(ALICE, &address, name.into_bytes());
        world.expect_within(seconds(300), |world| is_held_by(world, id, 1));
        sent.push(id);
    }
    world.wish(BOB, Wish::Stop);
    world.run_for(seconds(1));
    world.crash_client(BOB);
    world.restart_client(BOB);
    for number in 0..count {
        world.wish(
            BOB,
            Wish::Listen {
                name: format!("box {number}"),
                is_interactive,
            },
        );
    }
    let have_come = |world: &World| sent.iter().all(|&id| has_come(world, id));
    assert!(
        world.run_until(within, have_come),
        "{} of {count}; {}",
        world.message_count(BOB),
        world.describe()
    );
    let is_alarm = |notice: &Notice| {
        matches!(
            notice,
            Notice::Warning(Warning::GuardFails | Warning::MailboxReplaced { .. })
        )
    };
    assert_eq!(
        count_of(&world, BOB, is_alarm),
        0,
        "its own load is no failure of others; {}",
        world.describe()
    );
}

#[test] // §6.4(4)
fn mailboxes_take_turns_where_there_are_more_than_circuits() {
    many_inboxes(Network::local(), 321, 64, true, seconds(60));
}

#[test] // §5.4, §6.4(4)
fn mailboxes_take_turns_within_what_a_relay_grants_by_default() {
    many_inboxes(default_params(), 322, 64, false, seconds(150));
}

#[test] // §6.4(12), §10.2
fn a_follower_that_slept_hears_again_within_seconds() {
    for (seed, asleep) in [(331, 65), (332, 30), (333, 3600)] {
        let mut world = World::new(seed).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        world.run_for(seconds(3));
        let first = world.send(ALICE, &address, b"before".to_vec());
        world.expect_within(seconds(20), |world| has_come(world, first));
        let guard = guard_of(&world, BOB).expect("a guard in use");
        let guard = name_of(&world, guard);
        world.suspend_client(BOB, seconds(asleep), |world| {
            world.crash_relay(guard);
            world.restart_relay(guard);
        });
        let sent = world.send(ALICE, &address, b"after waking".to_vec());
        assert!(
            world.run_until(seconds(10), |world| has_come(world, sent)),
            "{asleep} s: {}",
            world.describe()
        );
    }
}

#[test] // §10.2
fn a_follower_whose_link_breaks_subscribes_again_within_seconds() {
    for seconds_in in [3, 20, 31, 37, 45, 52, 58] {
        let mut world = World::new(340 + seconds_in).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        world.run_for(seconds(60 + seconds_in));
        let guard = guard_of(&world, BOB).expect("a guard in use");
        let guard = name_of(&world, guard);
        world.crash_relay(guard);
        world.restart_relay(guard);
        let sent = world.send(ALICE, &address, b"again".to_vec());
        world.expect_within(seconds(15), |world| has_come(world, sent));
    }
}

// §6.4(12): at the latest three seconds after its padding was due; the rest is for the next guard.
#[test]
fn a_guard_that_falls_silent_is_given_up_within_what_its_padding_promises() {
    for (seed, overlay, within) in [
        (351, Network::local(), 35),
        (352, Network::local(), 35),
        (353, default_params(), 28),
    ] {
        let overlay = Network {
            params: Params {
                selectable_age: Duration::ZERO,
                ..overlay.params
            },
            ..overlay
        };
        let mut world = World::with_overlay(seed, overlay).relays(10).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        world.run_for(seconds(70));
        let guard = guard_of(&world, BOB).expect("a guard in use");
        let guard = name_of(&world, guard);
        world.silence(BOB, guard);
        world.run_for(seconds(1));
        let sent = world.send(ALICE, &address, b"hello?".to_vec());
        world.expect_within(seconds(within), |world| has_come(world, sent));
    }
}

#[test] // §6.4(9), §6.4(10)
fn where_one_relay_is_left_no_circuits_is_reported_within_seconds() {
    for left in [0, 3, 6] {
        let mut world = World::new(354).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        assert!(
            send_and_wait(&mut world, &address, seconds(30)),
            "{}",
            world.describe()
        );
        (0..8)
            .filter(|&number| number != left)
            .for_each(|number| world.crash_relay(RelayName(number)));
        next_run(&mut world);
        let is_said = |notice: &Notice| matches!(notice, Notice::NoCircuits | Notice::Unreachable);
        assert!(!world.has_notice(ALICE, is_said), "{}", world.describe());
        let sent = world.send(ALICE, &address, b"nobody hands it on".to_vec());
        world.expect_within(seconds(8), |world| world.has_notice(ALICE, is_said));
        (0..8)
            .filter(|&number| number != left)
            .for_each(|number| world.restart_relay(RelayName(number)));
        world.expect_within(seconds(40), |world| is_held_by(world, sent, 1));
    }
}

#[test] // §8.3(9a)
fn a_client_that_lost_its_view_dials_few_relays_and_recovers() {
    let mut world = World::with_overlay(362, default_params())
        .relays(60)
        .clients(1);
    world.run_for(seconds(3600));
    assert!(guard_of(&world, ALICE).is_some(), "{}", world.describe());
    world.crash_client(ALICE);
    world.skip(seconds(3 * 86_400));
    world.run_for(seconds(1800));
    (0..60).for_each(|relay| world.cut(Node::Client(0), Node::Relay(relay)));
    let began = world.now();
    world.restart_client(ALICE);
    world.run_for(seconds(600));
    let relays: BTreeSet<_> = world.dialled_since(began).into_iter().collect();
    assert!(relays.len() <= 40, "{} relays in ten minutes", relays.len());
    assert!(unreachable_count(&world) > 0, "{}", world.describe());
    world.network().heal();
    world.wish(ALICE, Wish::Flush);
    world.expect_within(seconds(30), |world| guard_of(world, ALICE).is_some());
}

#[test] // §6.4(7), §6.4(9)
fn a_blocked_client_dials_few_relays_and_ever_more_rarely() {
    let mut world = World::with_overlay(361, default_params())
        .relays(60)
        .clients(1);
    world.run_for(seconds(3600));
    assert!(guard_of(&world, ALICE).is_some(), "{}", world.describe());
    (0..60).for_each(|relay| world.cut(Node::Client(0), Node::Relay(relay)));
    let began = world.now();
    world.run_for(seconds(3600));
    let first = world.dialled_since(began);
    let later_began = world.now();
    world.run_for(seconds(3600));
    let later = world.dialled_since(later_began);
    let relays: BTreeSet<_> = first.iter().chain(&later).collect();
    assert!(
        first.len() < 300 && later.len() < 150,
        "{} dials, then {}",
        first.len(),
        later.len()
    );
    assert!(relays.len() <= 12, "to {} relays", relays.len());

    // A person who asks for something need not wait for the end of a long rest.
    world.network().heal();
    world.wish(ALICE, Wish::Flush);
    world.expect_within(seconds(12), |world| guard_of(world, ALICE).is_some());
}

/// The middles of a few runs of Alice's client, in each of which it sends something.
fn middles_of_runs(world: &mut World, address: &InboxAddress, runs: usize) -> BTreeSet<RelayId> {
    let mut middles = BTreeSet::new();
    for _ in 0..runs {
        let seen = world.client(ALICE).notices.len();
        next_run(world);
        assert!(
            send_and_wait(world, address, seconds(60)),
            "{}",
            world.describe()
        );
        let notices = world.client(ALICE).notices.iter().skip(seen);
        middles.extend(notices.filter_map(|(_, notice)| match notice {
            Notice::HopBuilt { hop: 3, relay, .. } => Some(*relay),
            _ => None,
        }));
    }
    middles
}

#[test] // §6.4(18)
fn middles_are_kept_across_runs_while_full_vanguards_are_on() {
    let mut world = World::new(341).relays(30).clients(2);
    let address = world.create_inbox(BOB, "help");
    assert!(middles_of_runs(&mut world, &address, 12).len() > 14);
    world.set_full_vanguards(ALICE, true);
    let kept = middles_of_runs(&mut world, &address, 12);
    assert!(kept.len() <= 8, "{}", world.describe());
    world.set_full_vanguards(ALICE, false);
    assert!(middles_of_runs(&mut world, &address, 12).len() > 14);
    world.set_full_vanguards(ALICE, true);
    let again = middles_of_runs(&mut world, &address, 12);
    assert!(again.union(&kept).count() <= 8, "the same as before");
}

#[test] // §6.4(18)
fn mail_is_sent_while_a_kept_middle_is_dead_and_few_take_its_place() {
    let mut world = World::new(342).relays(30).clients(2);
    let address = world.create_inbox(BOB, "help");
    world.set_full_vanguards(ALICE, true);
    let kept = middles_of_runs(&mut world, &address, 12);
    let is_needed = |relay: &RelayId| {
        let [guards, layer2] = [1, 2].map(|hop| relays_at(&world, ALICE, hop));
        guards.contains(relay) || layer2.contains(relay) || name_of(&world, *relay) == RelayName(0)
    };
    let dead = kept.iter().copied().find(|relay| !is_needed(relay));
    let dead = dead.expect("one that is no guard or L2");
    world.crash_relay(name_of(&world, dead));
    let others = middles_of_runs(&mut world, &address, 12);
    assert!(!others.contains(&dead), "{}", world.describe());
    assert!(others.union(&kept).count() <= 9, "{}", world.describe());
}
