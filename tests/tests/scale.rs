//! Many relays find one another and stay in touch.
//!
//! The suite runs few of them. docs/testing.md has the command that runs 1,000 for an hour of
//! virtual time, and what that takes.
#![allow(
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a test that fails panics; this one also measures"
)]

use umbel_proto::time::Duration;
use umbel_tests::World;
use umbel_tests::scenario::patient;

/// A number from the environment, or else that of the suite.
fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn smallest_view(world: &World) -> usize {
    let views = world.all_relays().iter().map(|relay| {
        let control = relay.control();
        control.map_or(0, |control| control.view().len())
    });
    views.min().unwrap_or(0)
}

#[test] // §8.3
fn all_relays_of_a_large_network_know_each_other_and_stay_in_touch() {
    let relays = count("UMBEL_SCALE_RELAYS", 60);
    let minutes = count("UMBEL_SCALE_MINUTES", 15);
    let begun_at = std::time::Instant::now();
    let mut world = World::with_overlay(700, patient()).relays(relays);
    for minute in 1..=minutes {
        world.run_for(Duration::from_secs(60));
        let links = world.network().link_count();
        eprintln!(
            "minute {minute}: {} steps, {} cells, smallest view {}, {} links, {:?}",
            world.steps(),
            world.cells.sent,
            smallest_view(&world),
            links,
            begun_at.elapsed()
        );
    }
    assert_eq!(smallest_view(&world), relays, "{}", world.describe());
}
