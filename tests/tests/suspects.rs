//! A relay on the way that breaks circuits: it comes under suspicion, at whichever place it is, and
//! nobody else pays for it.

use std::collections::BTreeSet;

use umbel_client::core::{Notice, Warning};
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::time::Duration;
use umbel_tests::adversary::Adversary;
use umbel_tests::scenario::{ALICE, BOB, guard_of, is_held_by, patient};
use umbel_tests::shells::relay::Sabotage;
use umbel_tests::{RelayName, World};

/// The relays at this place of Alice's circuits, after her first `since` notices, in order.
fn hops_since(world: &World, place: usize, since: usize) -> Vec<RelayId> {
    let at = |notice: &Notice| match notice {
        Notice::HopBuilt { hop, relay, .. } if *hop == place => Some(*relay),
        _ => None,
    };
    world
        .client(ALICE)
        .notices
        .iter()
        .skip(since)
        .filter_map(|(_, notice)| at(notice))
        .collect()
}

fn notice_count(world: &World) -> usize {
    world.client(ALICE).notices.len()
}

/// A hostile relay's behaviour at each place, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    DestroysExtends,
    DestroysUsed,
    Corrupts,
    FallsSilent,
}

/// Alice's messages go out while the relay that was last at this place of her circuits misbehaves.
struct Trial {
    world: World,
    bad: RelayId,
    guard: Option<RelayId>,
    began: usize,
    settled: usize,
}

fn send_all(world: &mut World, address: &InboxAddress, count: u8) {
    for number in 0..count {
        let sent = world.send(ALICE, address, vec![number; 50]);
        // A guard that falls silent costs each attempt its time: in one world of thirty a message takes
        // over 200 s.
        let within = Duration::from_secs(400);
        assert!(
            world.run_until(within, |world| is_held_by(world, sent, 1)),
            "message {number}: {}",
            world.describe()
        );
        // Later ones find no circuit of the ones before.
        world.run_for(Duration::from_secs(660));
    }
}

fn misbehave(seed: u64, place: usize, deed: Deed) -> Trial {
    let mut world = World::with_overlay(seed, patient()).relays(14).clients(2);
    let address = world.create_inbox(BOB, "help");
    world.crash_client(BOB);
    let first = world.send(ALICE, &address, b"before".to_vec());
    world.expect_within(Duration::from_secs(60), |world| is_held_by(world, first, 1));
    let bad = hops_since(&world, place, 0).last().copied();
    let Some((bad, name)) = bad.and_then(|bad| Some((bad, world.relay_named(bad)?))) else {
        unreachable!("a circuit was built over relays of this world")
    };
    let (guard, began) = (guard_of(&world, ALICE), notice_count(&world));
    do_it(&mut world, name, place, deed);
    send_all(&mut world, &address, 16);
    let settled = notice_count(&world);
    send_all(&mut world, &address, 10);
    Trial {
        world,
        bad,
        guard,
        began,
        settled,
    }
}

fn do_it(world: &mut World, name: RelayName, place: usize, deed: Deed) {
    // As many cells pass as build the circuit.
    let spared = 3 - place;
    let relay = world.relay(name);
    match deed {
        Deed::DestroysExtends => relay.sabotage = Some(Sabotage::Extends),
        Deed::DestroysUsed => relay.sabotage = Some(Sabotage::Onward(spared)),
        Deed::FallsSilent => relay.sabotage = Some(Sabotage::Silence(spared)),
        Deed::Corrupts => relay.adversary = Some(Adversary::liar(spared)),
    }
}

fn is_warned(world: &World) -> bool {
    world.has_notice(ALICE, |notice| {
        *notice == Notice::Warning(Warning::GuardFails)
    })
}

const DEEDS: [Deed; 4] = [
    Deed::DestroysExtends,
    Deed::DestroysUsed,
    Deed::Corrupts,
    Deed::FallsSilent,
];

#[test] // §6.4(10), §6.4(11)
fn a_guard_that_breaks_circuits_in_any_way_is_left_for_another() {
    for (seed, deed) in (401..).zip(DEEDS) {
        let Trial {
            world,
            bad,
            settled,
            ..
        } = misbehave(seed, 1, deed);
        let guards = hops_since(&world, 1, settled);
        let by_bad = guards.iter().filter(|&&relay| relay == bad).count();
        assert!(
            by_bad * 3 <= guards.len(),
            "{deed:?}: {by_bad} of {} circuits; {}",
            guards.len(),
            world.describe()
        );
        let all: BTreeSet<_> = hops_since(&world, 1, 0).into_iter().collect();
        assert!(
            all.len() <= 3,
            "{deed:?}: {} guards; {}",
            all.len(),
            world.describe()
        );
    }
}

#[test] // §6.4(10), §6.4(11)
fn an_l2_that_breaks_circuits_is_avoided_at_no_cost_to_the_guard() {
    let (mut by_bad, mut all) = (0, 0);
    for (seed, deed) in (411..423).zip(DEEDS.into_iter().cycle()) {
        let Trial {
            world,
            bad,
            guard,
            began,
            settled,
        } = misbehave(seed, 2, deed);
        let used = hops_since(&world, 2, settled);
        by_bad += used.iter().filter(|&&relay| relay == bad).count();
        all += used.len();
        assert_eq!(
            guard_of(&world, ALICE),
            guard,
            "{deed:?}: {}",
            world.describe()
        );
        let guards: BTreeSet<_> = hops_since(&world, 1, began).into_iter().collect();
        assert_eq!(guards.len(), 1, "{deed:?}: {}", world.describe());
        assert!(!is_warned(&world), "{deed:?}: {}", world.describe());
    }
    // Unsuspected it would have a quarter. Of 120 seeds the mean is 0.12, and six have more than
    // a quarter: so not each world is judged alone.
    assert!(by_bad * 6 <= all, "{by_bad} of {all} circuits");
}

#[test] // §6.4(10), §6.4(11)
fn a_middle_that_breaks_circuits_does_not_cost_the_guard_its_place() {
    for (seed, deed) in (421..).zip(DEEDS) {
        let Trial {
            world,
            guard,
            began,
            ..
        } = misbehave(seed, 3, deed);
        assert_eq!(
            guard_of(&world, ALICE),
            guard,
            "{deed:?}: {}",
            world.describe()
        );
        let guards: BTreeSet<_> = hops_since(&world, 1, began).into_iter().collect();
        assert_eq!(guards.len(), 1, "{deed:?}: {}", world.describe());
        assert!(!is_warned(&world), "{deed:?}: {}", world.describe());
    }
}

/// Alice's circuits after one relay of this place on her circuits began to refuse all relays but
/// `friends` of the others, none of which she has as guard or L2.
fn refuse_strangers(
    seed: u64,
    place: usize,
    friends: usize,
) -> (World, BTreeSet<RelayId>, RelayId) {
    let mut world = World::with_overlay(seed, patient()).relays(24).clients(2);
    let address = world.create_inbox(BOB, "help");
    world.crash_client(BOB);
    let first = world.send(ALICE, &address, b"before".to_vec());
    world.expect_within(Duration::from_secs(60), |world| is_held_by(world, first, 1));
    let bad = hops_since(&world, place, 0)
        .last()
        .copied()
        .unwrap_or_else(|| unreachable!());
    // Some of her L2 may be on no circuit yet: what she stored names all.
    let kept = world
        .client(ALICE)
        .disk
        .paths()
        .unwrap_or_default()
        .to_vec();
    let is_kept = |id: &RelayId| kept.windows(RelayId::LEN).any(|it| it == id.as_bytes());
    let ids = (0..24).map(|number| world.relay(RelayName(number)).id);
    let others: Vec<RelayId> = ids.filter(|id| !is_kept(id)).collect();
    assert!(others.len() >= friends, "{} others", others.len());
    let league: BTreeSet<RelayId> = others.into_iter().take(friends).collect();
    if let Some(name) = world.relay_named(bad) {
        world.relay(name).friends = Some(league.clone());
    }
    send_all(&mut world, &address, 45);
    (world, league, bad)
}

#[test] // §6.4(11), §6.4(15)
fn a_guard_that_refuses_all_l2_but_its_friends_chooses_none() {
    for seed in [431, 432, 433] {
        let (world, league, bad) = refuse_strangers(seed, 1, 6);
        assert_ne!(guard_of(&world, ALICE), Some(bad), "{}", world.describe());
        assert!(is_warned(&world), "{}", world.describe());
        let used = hops_since(&world, 2, 0);
        let hostile = used.iter().filter(|relay| league.contains(relay)).count();
        assert!(
            hostile * 4 <= used.len(),
            "{hostile} of {}; {}",
            used.len(),
            world.describe()
        );
    }
}

#[test] // §6.4(16)
fn an_l2_that_refuses_all_middles_but_its_friends_is_replaced() {
    // A middle counts once until somebody reaches it. In a world this small that is seldom more than
    // three in ten: not in each world is this L2 set aside, or the guard beside it never suspected.
    let (mut warned_in, mut one_guard_in) = (0, 0);
    for seed in 442..450 {
        let (world, _, bad) = refuse_strangers(seed, 2, 11);
        let mut notices = world.client(ALICE).notices.iter();
        let warned = notices.position(|(_, notice)| *notice == Notice::Warning(Warning::L2Refuses));
        let Some(warned) = warned else { continue };
        warned_in += 1;
        let later = hops_since(&world, 3, warned);
        assert!(!later.is_empty(), "{}", world.describe());
        let used = hops_since(&world, 2, warned);
        let by_bad = used.iter().filter(|&&relay| relay == bad).count();
        assert!(
            by_bad <= 2,
            "{by_bad}, in flight then; {}",
            world.describe()
        );
        let guards: BTreeSet<_> = hops_since(&world, 1, 0).into_iter().collect();
        one_guard_in += usize::from(guards.len() == 1);
    }
    assert!(warned_in >= 7, "{warned_in} of 8");
    assert!(one_guard_in >= 6, "{one_guard_in} of 8");
}
