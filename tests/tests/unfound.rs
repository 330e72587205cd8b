//! Inboxes that senders can't find, and what their owners notice of it.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a test that fails panics"
)]

use umbel_client::core::{Notice, Warning, Wish};
use umbel_proto::network::AddressGroups;
use umbel_proto::time::Duration;
use umbel_tests::scenario::by_default;
use umbel_tests::{ClientName, RelayName, World};

const OWNER: ClientName = ClientName(0);
const HOUR: Duration = Duration::from_secs(3600);

/// A world with default parameters but those that need days, or real addresses, with an inbox. It is
/// looked up once an hour, on average.
fn with_inbox(seed: u64) -> World {
    let mut overlay = by_default();
    overlay.params.danger_address_groups = AddressGroups::Port;
    overlay.params.selectable_age = Duration::ZERO;
    overlay.params.inbox_republish = HOUR * 4;
    let mut world = World::with_overlay(seed, overlay).relays(12).clients(1);
    world.create_inbox(OWNER, "help");
    world.run_for(Duration::from_secs(60));
    world
}

fn is_told(world: &World) -> bool {
    let is_it = |notice: &Notice| matches!(notice, Notice::Warning(Warning::NotFound { .. }));
    world.has_notice(OWNER, is_it)
}

fn is_missing(world: &World) -> bool {
    let core = world.client(OWNER).core().expect("it is up");
    core.status().inboxes[0].missing_since.is_some()
}

/// All relays lose what they keep of inboxes, and take nothing more.
fn hide(world: &mut World) {
    for number in 0..12 {
        let name = RelayName(number);
        world.crash_relay(name);
        world.relay(name).disk.lose_inbox_descriptors();
        world.relay(name).disk.is_full = true;
        world.restart_relay(name);
    }
}

#[test] // §9.4(5)
fn an_owner_whose_inbox_is_kept_from_senders_is_told_once() {
    let mut world = with_inbox(701);
    world.run_for(HOUR * 2);
    assert!(!is_told(&world) && !is_missing(&world), "it is found");
    hide(&mut world);
    let is_noticed = |world: &World| is_told(world);
    assert!(
        world.run_until(HOUR * 4, is_noticed),
        "{}",
        world.describe()
    );
    assert!(is_missing(&world));
    world.run_for(HOUR * 2);
    let told = world.client(OWNER).notices.iter();
    let told = told.filter(|(_, it)| matches!(it, Notice::Warning(Warning::NotFound { .. })));
    assert_eq!(told.count(), 1);
    // A restart does not repeat it, and forgets nothing.
    world.wish(OWNER, Wish::Stop);
    world.run_for(Duration::from_secs(1));
    world.crash_client(OWNER);
    world.restart_client(OWNER);
    assert!(is_missing(&world));
}

#[test] // §9.4(5)
fn an_inbox_that_its_keepers_lost_is_published_anew_and_found() {
    let mut world = with_inbox(702);
    hide(&mut world);
    (0..12).for_each(|number| world.relay(RelayName(number)).disk.is_full = false);
    let is_back = |world: &World| {
        let kept = world.all_relays().iter();
        kept.map(|relay| relay.disk.inbox_descriptors().count())
            .sum::<usize>()
            >= 6
    };
    assert!(world.run_until(HOUR * 4, is_back), "{}", world.describe());
    world.run_for(HOUR * 2);
    assert!(!is_missing(&world), "the next look-up finds it");
}
