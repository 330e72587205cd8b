//! When the descriptors of a profile's inboxes are published again, and when not.

use umbel_client::core::{Command, Notice};
use umbel_proto::time::Duration;
use umbel_tests::{ClientName, RelayName, World};

const OWNER: ClientName = ClientName(0);
const INBOXES: usize = 20;

fn published(world: &World) -> usize {
    world
        .all_relays()
        .iter()
        .map(|relay| relay.disk.published)
        .sum()
}

fn name(number: usize) -> String {
    format!("box {number}")
}

/// Bob's command is over, and the next one runs for a while.
fn next_run(world: &mut World) {
    world.command(OWNER, Command::Stop);
    world.run_for(Duration::from_secs(1));
    world.crash_client(OWNER);
    world.restart_client(OWNER);
}

#[test] // §9.4(3)
fn a_run_publishes_what_is_due_or_in_use_and_nothing_else() {
    let mut world = World::new(601).relays(9).clients(1);
    for number in 0..INBOXES {
        world.command(OWNER, Command::CreateInbox { name: name(number) });
        let is_ready = |notice: &Notice| matches!(notice, Notice::InboxReady { name: ready, .. } if *ready == name(number));
        assert!(world.run_until(Duration::from_secs(60), |world| {
            world.has_notice(OWNER, is_ready)
        }));
    }
    world.run_for(Duration::from_secs(20));
    for _ in 0..3 {
        let before = published(&world);
        next_run(&mut world);
        world.run_for(Duration::from_secs(30));
        assert_eq!(
            published(&world),
            before,
            "nothing is due, and nobody receives; {}",
            world.describe()
        );
    }
    let before = published(&world);
    next_run(&mut world);
    world.command(
        OWNER,
        Command::Listen {
            name: name(7),
            is_interactive: false,
        },
    );
    world.run_for(Duration::from_secs(30));
    let count = published(&world) - before;
    assert!(
        (6..=12).contains(&count),
        "{count}: one is in use; {}",
        world.describe()
    );
    // Days later all are due, whatever the command is.
    let before = published(&world);
    world.command(OWNER, Command::Stop);
    world.crash_client(OWNER);
    world.skip(Duration::from_secs(2 * 86_400));
    world.run_for(Duration::from_secs(60));
    world.restart_client(OWNER);
    world.run_for(Duration::from_secs(60));
    let count = published(&world) - before;
    assert!(
        count >= INBOXES * 6,
        "{count} of {INBOXES} inboxes; {}",
        world.describe()
    );
}

#[test] // §9.4(3), §9.4(4): a look-up asks other positions in place of those that fail
fn an_inbox_is_ready_though_most_of_its_positions_are_broken() {
    for seed in 620..630 {
        let mut world = World::new(seed).relays(9).clients(1);
        world.run_for(Duration::from_secs(30));
        (4..9).for_each(|number| world.relay(RelayName(number)).disk.is_full = true);
        world.command(OWNER, Command::CreateInbox { name: name(0) });
        let is_ready = |notice: &Notice| matches!(notice, Notice::InboxReady { .. });
        world.expect_within(Duration::from_secs(50), |world| {
            world.has_notice(OWNER, is_ready)
        });
    }
}
