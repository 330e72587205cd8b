//! Holders that are hostile to the owner of a mailbox: the mailbox gets a companion, which costs
//! the owner little.

use umbel_client::core::{Notice, Warning, Wish};
use umbel_proto::network::Network;
use umbel_proto::time::Duration;
use umbel_tests::adversary::Adversary;
use umbel_tests::scenario::{guard_of, mailboxes_of, name_of};
use umbel_tests::shells::relay::Sabotage;
use umbel_tests::{ClientName, RelayName, World};

const OWNER: ClientName = ClientName(0);
const RELAYS: usize = 12;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Bob, who follows an inbox, with a holder of it that is not his guard; failures are retried after
/// up to `retry_max`.
fn follower(seed: u64, retry_max: Duration, is_interactive: bool) -> (World, RelayName) {
    let mut overlay = Network::local();
    overlay.params.retry_max = retry_max;
    let mut world = World::with_overlay(seed, overlay).relays(RELAYS).clients(1);
    world.create_inbox(OWNER, "help");
    world.wish(
        OWNER,
        Wish::Listen {
            name: "help".to_owned(),
            is_interactive,
        },
    );
    world.run_for(seconds(60));
    let guard = guard_in_use(&world);
    let mut others = (1..RELAYS).map(RelayName).filter(|&name| name != guard);
    let holder = others.find(|&name| world.relay(name).disk.has_queues());
    (
        world,
        holder.unwrap_or_else(|| unreachable!("three relays hold mailboxes")),
    )
}

fn guard_in_use(world: &World) -> RelayName {
    let guard = guard_of(world, OWNER);
    name_of(
        world,
        guard.unwrap_or_else(|| unreachable!("a guard is in use")),
    )
}

#[test] // §6.4(10), §10.5(6)
fn a_holder_that_destroys_all_circuits_on_which_it_is_asked_has_a_companion() {
    for (seed, is_interactive) in [(401, false), (402, true)] {
        let (mut world, holder) = follower(seed, seconds(120), is_interactive);
        let guard = guard_in_use(&world);
        world.relay(holder).sabotage = Some(Sabotage::Mailboxes);
        // A subscription that is made already stays: it is asked again once that is lost.
        world.crash_relay(guard);
        world.restart_relay(guard);
        let has_companion = |world: &World| mailboxes_of(world, OWNER) == (4, 1);
        world.expect_within(seconds(1200), has_companion);
        world.run_for(seconds(600));
        assert!(
            has_companion(&world),
            "the others stay; {}",
            world.describe()
        );
        let is_alarm = |notice: &Notice| matches!(notice, Notice::Warning(Warning::GuardFails));
        assert!(
            !world.has_notice(OWNER, is_alarm),
            "the guard is not behind it"
        );
    }
}

#[test] // §6.4(10)
fn a_guard_that_breaks_circuits_gets_no_mailbox_a_companion() {
    let (mut world, _) = follower(403, seconds(120), false);
    for number in 0..RELAYS {
        world.relay(RelayName(number)).adversary = Some(Adversary::liar(2));
    }
    world.run_for(seconds(1800));
    assert_eq!(mailboxes_of(&world, OWNER), (3, 0), "{}", world.describe());
}

#[test] // §10.5(5)
fn a_holder_that_ends_one_subscription_after_the_other_is_asked_ever_less() {
    let (mut world, holder) = follower(404, seconds(3600), true);
    let id = world.relay(holder).id;
    let before = world.now();
    for _ in 0..100 {
        world.crash_relay(holder);
        world.restart_relay(holder);
        world.run_for(seconds(12));
    }
    let to_holder = world
        .client(OWNER)
        .notices
        .iter()
        .filter_map(|(at, notice)| match notice {
            Notice::HopBuilt {
                hop: 4,
                relay,
                circuit,
            } if *relay == id && *at >= before => Some(*circuit),
            _ => None,
        });
    let circuits = to_holder.count();
    assert!(
        (1..=40).contains(&circuits),
        "{circuits} circuits in 100 restarts; {}",
        world.describe()
    );
}
