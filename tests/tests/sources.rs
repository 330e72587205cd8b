//! A client whose guard keeps relays from it: other sources have them (docs/protocol.md §8.3(9)).

use std::net::SocketAddr;
use std::ops::Range;

use umbel_client::core::{Notice, Warning};
use umbel_proto::ids::RelayId;
use umbel_proto::time::{Duration, WallTime};
use umbel_tests::scenario::{ALICE, guard_of, patient, strangers};
use umbel_tests::{RelayName, World};

const RELAYS: usize = 12;
const HOUR: Duration = Duration::from_secs(3600);

/// A world in which the guard that Alice uses takes nothing that others pass on; `None` if she uses
/// another after her restart.
fn with_hiding_guard(seed: u64) -> Option<(World, RelayId)> {
    let mut world = World::with_overlay(seed, patient())
        .relays(RELAYS)
        .clients(1);
    let guard = |world: &World| {
        world
            .client(ALICE)
            .core()
            .and_then(|core| core.status().guard)
    };
    world.expect_within(Duration::from_secs(60), |world| guard(world).is_some());
    let hiding = guard(&world)?;
    let name = world.relay_named(hiding)?;
    world.crash_client(ALICE);
    world.crash_relay(name);
    world.relay(name).is_deaf = true;
    world.restart_relay(name);
    world.restart_client(ALICE);
    world.expect_within(Duration::from_secs(60), |world| guard(world).is_some());
    (guard(&world) == Some(hiding)).then_some((world, hiding))
}

/// How many relays, but for this one, Alice knows as they are now, or were three hours ago.
fn known_as_they_are(world: &World, but_for: RelayId) -> usize {
    let issued_at = |view: &umbel_proto::directory::NetView, relay: RelayId| {
        view.get(&relay).map(|known| known.issued_at)
    };
    let Some(core) = world.client(ALICE).core() else {
        return 0;
    };
    let is_known = |relay: RelayId, control: &umbel_relay::control::Control| {
        let (own, known) = (
            issued_at(control.view(), relay),
            issued_at(core.view(), relay),
        );
        let recent = |at: WallTime| known.is_some_and(|known| at <= known + HOUR * 3);
        own.is_some_and(recent)
    };
    let others = world
        .all_relays()
        .iter()
        .filter(|relay| relay.id != but_for);
    others
        .filter(|relay| {
            relay
                .control()
                .is_some_and(|control| is_known(relay.id, control))
        })
        .count()
}

#[test] // §8.3(9)
fn a_guard_that_hides_relays_hides_them_for_minutes() {
    let worlds: Vec<_> = (300..310).filter_map(with_hiding_guard).take(4).collect();
    assert_eq!(worlds.len(), 4, "in most worlds she keeps her guard");
    for (mut world, hiding) in worlds {
        world.suspend_client(ALICE, HOUR * 30, |_| {});
        let is_told = |world: &World| known_as_they_are(world, hiding) == RELAYS - 1;
        world.expect_within(Duration::from_secs(120), is_told);
        // Relays that came while she slept are missed by no rule: another source is asked in hours.
        world.suspend_client(ALICE, HOUR * 10, |_| {});
        world.expect_within(HOUR * 8, is_told);
    }
}

/// Whether Alice has drawn guards.
fn has_guards(world: &World) -> bool {
    let core = world.client(ALICE).core();
    core.is_some_and(|core| core.status().guards > 0)
}

#[test] // §8.2(3)
fn by_one_sources_word_no_relay_is_drawn() {
    let mut world = World::with_overlay(9, strangers()).founders(3).relays(9);
    world.run_for(HOUR);
    let others = || (1..RELAYS).map(RelayName);
    others().for_each(|relay| world.crash_relay(relay));
    world.add_client(); // its seed is the one that is left
    world.run_for(HOUR * 2);
    let known = world.client(ALICE).core().map(|core| core.view().len());
    assert_eq!(known, Some(RELAYS));
    assert!(!has_guards(&world));
    others().for_each(|relay| world.restart_relay(relay));
    world.expect_within(Duration::from_secs(300), has_guards);
}

/// Whether Alice, a newcomer, is told that her seed is elsewhere than it says; her status agrees.
fn is_told_where_its_seed_is(mut world: World) -> bool {
    let (seed, ip) = (world.all_relays()[0].id, world.all_relays()[0].address.ip());
    world = world.relays(5).clients(1);
    world.run_for(Duration::from_secs(60));
    let told = Notice::Warning(Warning::SeedElsewhere { seed, ip });
    let is_told = world.has_notice(ALICE, |notice| *notice == told);
    let core = world.client(ALICE).core();
    let shown = core.map(|core| core.status().seeds_elsewhere);
    let expected = is_told.then_some((seed, ip)).into_iter().collect();
    assert_eq!(shown, Some(expected));
    is_told
}

#[test] // §8.2(3)
fn a_newcomer_is_told_of_a_seed_that_is_not_where_it_says() {
    let world_with = |advertised: Option<SocketAddr>| {
        let mut world = World::new(14);
        world.add_relay_as(|relay| relay.advertised = advertised.map(|it| vec![it]));
        world
    };
    let elsewhere = SocketAddr::from(([127, 0, 0, 9], 10_000));
    assert!(is_told_where_its_seed_is(world_with(Some(elsewhere))));
    assert!(!is_told_where_its_seed_is(world_with(None)));
}

#[test] // §8.3(9b)
fn a_guard_that_hides_relays_is_replaced_within_two_days() {
    let worlds: Vec<_> = (300..310).filter_map(with_hiding_guard).take(3).collect();
    for (mut world, hiding) in worlds {
        world.expect_within(HOUR * 48, |world| guard_of(world, ALICE) != Some(hiding));
        assert!(world.has_notice(ALICE, |notice| {
            let told = Notice::Warning(Warning::GuardHides { is_replaced: true });
            *notice == told
        }));
    }
}

#[test] // §8.3(9a)
fn a_newcomer_passes_over_seeds_that_are_gone() {
    let mut world = World::with_overlay(11, strangers()).founders(3).relays(9);
    world.run_for(HOUR);
    for gone in 1..3 {
        world.crash_relay(RelayName(gone));
    }
    world.add_client();
    world.expect_within(Duration::from_secs(8), has_guards);
}

#[test] // §8.3(9)
fn one_guard_that_hides_relays_shrinks_no_view() {
    let (mut world, _) = (300..310).find_map(with_hiding_guard).unwrap();
    let known = |world: &World| world.client(ALICE).core().map(|core| core.view().len());
    world.expect_within(HOUR * 12, |world| known(world) == Some(RELAYS));
    // Longer than a descriptor lives: what is learned of the guard alone would be gone.
    for hour in 0..60 {
        world.run_for(HOUR);
        let left = known(&world);
        assert!(left >= Some(RELAYS * 9 / 10), "{left:?} after {hour} h");
    }
}

/// Twelve relays with the default parameters, three of them seeds. The first seed lists no relay but
/// seeds.
fn with_lying_seed(seed: u64) -> World {
    let liar = RelayName(0);
    let mut world = World::with_overlay(seed, strangers()).founders(3);
    world.crash_relay(liar);
    world.relay(liar).is_deaf = true;
    world.restart_relay(liar);
    let mut world = world.relays(9);
    world.run_for(HOUR);
    world
}

fn is_told_of_dispute(world: &World) -> bool {
    world.has_notice(ALICE, |notice| {
        *notice == Notice::Warning(Warning::SeedsDisagree)
    })
}

fn sees_dispute(world: &World) -> bool {
    let core = world.client(ALICE).core();
    core.is_some_and(|core| core.status().seeds_disagree)
}

#[test] // §8.3(9c)
fn two_honest_seeds_of_three_outvote_one_that_hides_relays() {
    let mut told = 0;
    for seed in 400..406 {
        let mut world = with_lying_seed(seed);
        world.add_client();
        world.expect_within(Duration::from_secs(15), has_guards);
        assert!(!sees_dispute(&world), "{seed}");
        told += usize::from(is_told_of_dispute(&world));
    }
    assert!(
        told > 0,
        "in some worlds the one that hides them is asked early"
    );
}

/// The same, and nobody answers but that seed and another, so that nothing is settled.
fn with_two_seeds(seed: u64) -> World {
    let mut world = with_lying_seed(seed);
    (2..RELAYS).for_each(|it| world.crash_relay(RelayName(it)));
    world
}

#[test] // §8.3(9c)
fn while_seeds_disagree_no_relay_is_drawn_until_another_answers() {
    let mut world = with_two_seeds(410);
    world.add_client();
    world.expect_within(Duration::from_secs(15), is_told_of_dispute);
    world.run_for(HOUR);
    assert!(sees_dispute(&world) && !has_guards(&world));
    world.crash_client(ALICE);
    world.restart_client(ALICE);
    world.run_for(HOUR * 2);
    assert!(sees_dispute(&world) && !has_guards(&world), "it is stored");
    world.restart_relay(RelayName(2));
    world.expect_within(HOUR * 2, has_guards);
    assert!(!sees_dispute(&world));
}

#[test] // §8.3(9c)
fn a_user_may_go_on_although_seeds_disagree() {
    let mut world = with_two_seeds(411);
    world.add_client();
    world.expect_within(Duration::from_secs(15), is_told_of_dispute);
    world.crash_client(ALICE);
    world.accept_view(ALICE);
    (3..RELAYS).for_each(|it| world.restart_relay(RelayName(it)));
    world.restart_client(ALICE);
    world.expect_within(Duration::from_secs(60), has_guards);
    assert!(!sees_dispute(&world));
}

/// A seed is left of three, and of nine others the first two list no relay that came after them.
fn with_lying_relays(seed: u64) -> World {
    let mut world = World::with_overlay(seed, strangers()).founders(3).relays(2);
    world.run_for(HOUR / 6);
    for liar in [3, 4].map(RelayName) {
        world.crash_relay(liar);
        world.relay(liar).is_deaf = true;
        world.restart_relay(liar);
    }
    let mut world = world.relays(7);
    world.run_for(HOUR);
    [1, 2]
        .iter()
        .for_each(|&it| world.crash_relay(RelayName(it)));
    world
}

#[test] // §8.3(9c)
fn a_relay_that_hides_what_the_one_seed_lists_is_outvoted() {
    let mut told = 0;
    for seed in 430..438 {
        let mut world = with_lying_relays(seed);
        world.add_client();
        world.expect_within(Duration::from_secs(60), has_guards);
        assert!(!sees_dispute(&world), "{seed}");
        let known = world.client(ALICE).core().map(|core| core.view().len());
        assert!(known >= Some(RELAYS - 2), "{seed}: {known:?}");
        told += usize::from(is_told_of_dispute(&world));
    }
    assert!(
        (1..8).contains(&told),
        "one that hides them is asked early: {told}"
    );
}

#[test] // §8.3(9c)
fn a_network_of_seconds_alarms_nobody() {
    for seed in 440..444 {
        let mut world = World::with_overlay(seed, strangers()).founders(3);
        world.add_client();
        let mut world = world.relays(9);
        world.run_for(HOUR / 2);
        assert!(!is_told_of_dispute(&world) && has_guards(&world), "{seed}");
    }
}

#[test] // §8.3(9c)
fn seeds_of_a_network_that_relays_join_and_leave_do_not_disagree() {
    for seed in 420..424 {
        let mut world = World::with_overlay(seed, strangers()).founders(3).relays(9);
        world.run_for(HOUR);
        world.crash_relay(RelayName(5));
        let mut world = world.relays(2);
        world.run_for(Duration::from_secs(10));
        world.add_client();
        world.run_for(Duration::from_secs(300));
        assert!(!is_told_of_dispute(&world), "{seed}");
        assert!(has_guards(&world), "{seed}");
    }
}

/// The most relays that Alice doubts in two days in which these of twelve list next to nobody.
fn doubted_while_hidden_by(hiding: Range<usize>, seed: u64) -> usize {
    let mut world = World::with_overlay(seed, strangers()).founders(3).relays(9);
    world.run_for(HOUR);
    let mut world = world.clients(1);
    let doubted = |world: &World| {
        let core = world.client(ALICE).core();
        core.map_or(0, |core| core.view().doubted_count())
    };
    world.run_for(HOUR * 24);
    assert_eq!(doubted(&world), 0, "before anything is hidden");
    for name in hiding.map(RelayName) {
        world.crash_relay(name);
        world.relay(name).is_deaf = true;
        world.restart_relay(name);
    }
    world.run_for(HOUR * 50); // what they knew is dead
    let hours = (0..48).map(|_| {
        world.run_for(HOUR);
        doubted(&world)
    });
    hours.max().unwrap_or(0)
}

#[test] // §8.2(11)
fn what_three_of_twelve_hide_stays_in_use() {
    assert_eq!(doubted_while_hidden_by(3..6, 450), 0);
    assert!(
        doubted_while_hidden_by(2..RELAYS, 450) > 0,
        "most lack them"
    );
}
