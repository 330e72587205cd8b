//! The stages of a message, with the waits that a network has by default; owners that run for a
//! moment; two copies of a profile.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a test that fails panics"
)]

use umbel_client::core::{Copies, DeferReason, Notice, Recipient, Warning, Wish};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::{InboxAddress, InboxIdentity};
use umbel_proto::network::AddressGroups;
use umbel_proto::time::{Duration, Instant};
use umbel_tests::scenario::{ALICE, BOB, by_default, listen};
use umbel_tests::{ClientName, RelayName, World};

/// A world with all default parameters but those that need days, or real addresses.
fn default_world(seed: u64) -> World {
    let mut overlay = by_default();
    overlay.params.danger_address_groups = AddressGroups::Port;
    overlay.params.guards_new_a_day = 8;
    overlay.params.selectable_age = Duration::ZERO;
    World::with_overlay(seed, overlay).relays(12).clients(2)
}

fn told_since(
    world: &World,
    client: ClientName,
    since: Instant,
    is_it: impl Fn(&Notice) -> bool,
) -> bool {
    world
        .client(client)
        .notices
        .iter()
        .any(|(at, notice)| *at >= since && is_it(notice))
}

fn holders_told(world: &World, sent: MessageId) -> usize {
    let holders = |(_, notice): &(Instant, Notice)| match notice {
        Notice::Held { id, holders, .. } if *id == sent => Some(*holders),
        _ => None,
    };
    world
        .client(ALICE)
        .notices
        .iter()
        .filter_map(holders)
        .max()
        .unwrap_or(0)
}

fn is_planned(notice: &Notice, sent: MessageId) -> bool {
    matches!(notice, Notice::Scheduled { id, .. } if *id == sent)
}

/// Ends a client as a command ends: pending writes are committed.
fn end(world: &mut World, client: ClientName) {
    world.wish(client, Wish::Stop);
    world.run_for(Duration::from_millis(100));
    world.crash_client(client);
}

/// Alice sends, and ends as soon as one holder has it and the next copy is planned.
fn send_and_end(world: &mut World, address: &InboxAddress) -> MessageId {
    let sent = world.send(ALICE, address, b"the first copy is enough to go".to_vec());
    let since = world.now();
    let is_kept =
        |world: &World| told_since(world, ALICE, since, |notice| is_planned(notice, sent));
    world.expect_within(Duration::from_secs(10), is_kept);
    assert_eq!(holders_told(world, sent), 1);
    end(world, ALICE);
    sent
}

#[test] // §10.5(2)
fn one_holder_has_it_within_seconds_and_the_next_client_does_the_rest() {
    let mut world = default_world(81);
    let address = world.create_inbox(BOB, "help");
    let sent = send_and_end(&mut world, &address);
    world.skip(Duration::from_secs(300));
    world.restart_client(ALICE);
    let is_held = |world: &World| holders_told(world, sent) == 2;
    assert!(
        world.run_until(Duration::from_secs(10), is_held),
        "at once, not after another wait; {}",
        world.describe()
    );
}

#[test] // §10.5(2)
fn short_runs_neither_hurry_the_second_deposit_nor_put_it_off() {
    let mut world = default_world(82);
    let address = world.create_inbox(BOB, "help");
    let sent = world.send(ALICE, &address, b"in runs of a second".to_vec());
    let mut due_at = None;
    for _ in 0..300 {
        world.run_for(Duration::from_secs(1));
        let wait = world
            .client(ALICE)
            .notices
            .iter()
            .find_map(|(at, notice)| match notice {
                Notice::Scheduled { id, wait } if *id == sent => Some(*at + *wait),
                _ => None,
            });
        due_at = due_at.or(wait);
        if holders_told(&world, sent) >= 2 {
            break;
        }
        end(&mut world, ALICE);
        world.restart_client(ALICE);
    }
    let due_at = due_at.expect("the wait was told");
    assert!(
        world.now() + Duration::from_secs(1) >= due_at,
        "not before; {}",
        world.describe()
    );
    assert!(
        world.now() <= due_at + Duration::from_secs(5),
        "not long after; {}",
        world.describe()
    );
}

#[test] // §10.5(2)
fn two_dead_holders_of_three_are_reported_within_seconds() {
    let mut worlds = 0;
    for seed in 83..90 {
        let mut world = default_world(seed);
        let address = world.create_inbox(BOB, "help");
        end(&mut world, BOB);
        let holders = (0..12)
            .map(RelayName)
            .filter(|&name| world.relay(name).disk.has_queues());
        let holders: Vec<RelayName> = holders.collect();
        if holders.len() < 3 {
            continue; // in its network's first seconds an inbox may get fewer
        }
        worlds += 1;
        holders
            .iter()
            .take(2)
            .for_each(|&name| world.crash_relay(name));
        let sent = world.send(ALICE, &address, b"to one of three".to_vec());
        let is_kept = |world: &World| holders_told(world, sent) == 1;
        world.expect_within(Duration::from_secs(30), is_kept);
        let is_over = |notice: &Notice| matches!(notice, Notice::Deferred { id, reason: DeferReason::Holders, .. } if *id == sent);
        let since = world.now();
        world.run_for(Duration::from_secs(1));
        let tries_at =
            world
                .client(ALICE)
                .notices
                .iter()
                .rev()
                .find_map(|(at, notice)| match notice {
                    Notice::Scheduled { id, wait } if *id == sent => Some(*at + *wait),
                    _ => None,
                });
        let wait = tries_at.map_or(Duration::ZERO, |at| at.since(since));
        world.run_until(wait + Duration::from_secs(5), |world| {
            told_since(world, ALICE, since, is_over)
        });
        assert!(
            told_since(&world, ALICE, since, is_over),
            "{}",
            world.describe()
        );
        let status = world.client(ALICE).core().expect("it is up").status();
        assert_eq!(status.outbox[0].obstacle, Some(DeferReason::Holders));
    }
    assert!(worlds >= 4, "few inboxes get fewer than three mailboxes");
}

#[test]
fn a_message_to_nobody_expires_and_is_gone_after_a_restart() {
    let mut world = World::new(88).relays(8).clients(1);
    let nobody = *InboxIdentity::from_seed(&[7; 32]).address();
    let id = MessageId([3; 16]);
    let life = Some(Duration::from_secs(60));
    world.wish(
        ALICE,
        Wish::Send {
            id,
            to: Recipient::OneWay(nobody),
            body: b"hello".to_vec(),
            life,
        },
    );
    let expired = Notice::Expired {
        id,
        copies: Copies::None,
        wanted: 2,
    };
    let is_expired = |notice: &Notice| *notice == expired;
    world.run_for(Duration::from_secs(50));
    assert!(!world.has_notice(ALICE, is_expired));
    world.expect_within(Duration::from_secs(60), |world| {
        world.has_notice(ALICE, is_expired)
    });
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.client(ALICE).disk.outbox_len(), 0);
}

/// A run of Bob's that ends as soon as all is fetched and, if a mailbox is being replaced, that is
/// done.
fn receive_once(world: &mut World) {
    world.restart_client(BOB);
    let since = world.now();
    listen(world, false);
    let is_caught_up = |notice: &Notice| matches!(notice, Notice::CaughtUp { .. });
    assert!(world.run_until(Duration::from_secs(60), |world| told_since(
        world,
        BOB,
        since,
        is_caught_up
    )));
    let is_mending = |notice: &Notice| matches!(notice, Notice::Mending { .. });
    let told = world
        .client(BOB)
        .notices
        .iter()
        .rfind(|(_, notice)| is_mending(notice))
        .map(|&(at, _)| at);
    if let Some(mending_at) = told.filter(|&at| at >= since) {
        let is_ready = |notice: &Notice| matches!(notice, Notice::InboxReady { .. });
        let is_mended = |world: &World| told_since(world, BOB, mending_at, is_ready);
        assert!(
            world.run_until(Duration::from_secs(20), is_mended),
            "within one command; {}",
            world.describe()
        );
    }
    end(world, BOB);
}

fn is_replaced(world: &World) -> bool {
    world.has_notice(BOB, |notice| {
        matches!(notice, Notice::Warning(Warning::MailboxReplaced { .. }))
    })
}

/// A run of Bob's has published a descriptor with a companion.
fn has_companion(world: &World) -> bool {
    world.has_notice(
        BOB,
        |notice| matches!(notice, Notice::InboxReady { mailboxes, .. } if *mailboxes > 3),
    )
}

#[test] // §10.5(6)
fn one_short_run_replaces_mailboxes_that_their_holders_lost() {
    let mut world = default_world(89);
    let address = world.create_inbox(BOB, "help");
    end(&mut world, BOB);
    for number in 0..12 {
        world.crash_relay(RelayName(number));
        world.relay(RelayName(number)).disk.lose_queues();
        world.restart_relay(RelayName(number));
    }
    receive_once(&mut world);
    assert!(is_replaced(&world), "{}", world.describe());
    let sent = world.send(ALICE, &address, b"in the new ones".to_vec());
    world.expect_within(Duration::from_secs(300), |world| {
        holders_told(world, sent) == 2
    });
}

#[test] // §10.5(6)
fn short_runs_make_a_companion_of_a_mailbox_whose_holder_is_away_for_long() {
    let mut world = default_world(90);
    world.create_inbox(BOB, "help");
    let holder = (1..12)
        .map(RelayName)
        .find(|&name| world.relay(name).disk.has_queues());
    world.crash_relay(holder.expect("three relays hold mailboxes"));
    end(&mut world, BOB);
    receive_once(&mut world);
    assert!(!has_companion(&world), "it may come back");
    // The first run may end before the holder has failed it. Then the time counts from the second.
    for _ in 0..2 {
        world.skip(Duration::from_secs(3 * 3600));
        receive_once(&mut world);
    }
    assert!(has_companion(&world), "{}", world.describe());
    assert!(!is_replaced(&world), "it may still come back");
}

#[test] // §10.5(6)
fn short_runs_make_companions_soon_where_nobody_can_write_any_more() {
    let runs_and_held = |seed: u64| {
        let mut world = default_world(seed);
        let address = world.create_inbox(BOB, "help");
        end(&mut world, BOB);
        let holders: Vec<_> = (0..12)
            .map(RelayName)
            .filter(|&name| world.relay(name).disk.has_queues())
            .collect();
        if holders.len() < 3 {
            return None; // in its network's first seconds an inbox may get fewer
        }
        holders
            .into_iter()
            .for_each(|holder| world.crash_relay(holder));
        receive_once(&mut world);
        assert!(!has_companion(&world), "they may come back");
        // A run whose circuits break, since relays on their way are dead too, learns nothing of the
        // holders: most worlds need one or two runs, one of 80 needed 15.
        let mut runs = 0;
        while !has_companion(&world) {
            assert!(runs < 30, "{}", world.describe());
            world.run_for(Duration::from_secs(40));
            receive_once(&mut world);
            runs += 1;
        }
        let sent = world.send(ALICE, &address, b"in the new ones".to_vec());
        // Only one holder: mailboxes that had not failed for long enough have companions later.
        let is_held = world.run_until(Duration::from_secs(300), |world| {
            holders_told(world, sent) >= 1
        });
        Some((runs, is_held))
    };
    let worlds: Vec<(u32, bool)> = (102..112).filter_map(runs_and_held).take(6).collect();
    assert_eq!(
        worlds.len(),
        6,
        "few inboxes get fewer than three mailboxes"
    );
    let soon = worlds.iter().filter(|(runs, _)| *runs <= 3).count();
    assert!(soon >= 5, "{worlds:?}");
    // A sender whose guards or L2 are among the dead, as in one world of twelve, tries for longer.
    let held = worlds.iter().filter(|(_, is_held)| *is_held).count();
    assert!(held >= 5, "{worlds:?}");
}

// §10.5(6): in a network's first seconds a few inboxes are published with too few mailboxes.
#[test]
fn one_short_run_makes_and_publishes_missing_mailboxes() {
    let count = |world: &World| {
        world
            .client(BOB)
            .core()
            .map_or(0, |core| core.status().inboxes[0].mailboxes)
    };
    let made = (1000..1200).map(|seed| {
        let mut world = default_world(seed);
        let address = world.create_inbox(BOB, "help");
        (world, address)
    });
    let (mut world, address) = made
        .into_iter()
        .find(|(world, _)| count(world) < 3)
        .expect("one of two hundred");
    end(&mut world, BOB);
    world.run_for(Duration::from_secs(600));
    receive_once(&mut world); // until that is done
    let sent = world.send(ALICE, &address, b"in all of them".to_vec());
    let is_held = |world: &World| {
        world.has_notice(
            ALICE,
            |notice| matches!(notice, Notice::Held { id, wanted: 2, .. } if *id == sent),
        )
    };
    world.expect_within(Duration::from_secs(300), is_held);
    let is_told = |notice: &Notice| matches!(notice, Notice::Mending { .. });
    assert!(
        world.has_notice(BOB, is_told),
        "whoever ends the run hears that it is not done"
    );
}

fn is_warned(world: &World, client: ClientName) -> bool {
    world.has_notice(client, |notice| {
        matches!(notice, Notice::Warning(Warning::OtherCopy { .. }))
    })
}

fn follow(world: &mut World, client: ClientName) {
    receive(world, client, true);
}

fn receive(world: &mut World, client: ClientName, is_interactive: bool) {
    let name = "help".into();
    world.wish(
        client,
        Wish::Listen {
            name,
            is_interactive,
        },
    );
}

#[test] // §9.3(6), §10.2(6c)
fn two_copies_of_a_profile_notice_each_other_and_do_not_fight() {
    let mut world = World::new(91).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    follow(&mut world, BOB);
    world.run_for(Duration::from_secs(5));
    assert!(!is_warned(&world, BOB));
    let copy = world.copy_client(BOB);
    follow(&mut world, copy);
    let is_noticed = |world: &World| is_warned(world, BOB);
    world.expect_within(Duration::from_secs(60), is_noticed);
    let before = world.cells.sent;
    world.run_for(Duration::from_secs(600));
    let cells = world.cells.sent - before;
    assert!(
        cells < 20_000,
        "{cells} cells in ten minutes, in which nothing is sent"
    );
    let id = world.send(ALICE, &address, b"to whichever reads it".to_vec());
    let has_come = |world: &World| {
        [BOB, copy].iter().any(|&client| {
            world
                .client(client)
                .disk
                .messages
                .iter()
                .any(|(_, came, _)| *came == id)
        })
    };
    world.expect_within(Duration::from_secs(120), has_come);
}

#[test] // §9.3(6), §9.4(5)
fn two_copies_that_run_for_seconds_notice_each_other_within_two_days() {
    let mut world = World::new(97).relays(8).clients(1);
    let bob = ClientName(0);
    world.create_inbox(bob, "help");
    end(&mut world, bob);
    let copy = world.copy_client(bob);
    world.crash_client(copy);
    let is_noticed = (0..48).any(|_| {
        for client in [bob, copy] {
            world.restart_client(client);
            receive(&mut world, client, false);
            world.run_for(Duration::from_secs(20));
            end(&mut world, client);
        }
        world.run_for(Duration::from_secs(3600));
        is_warned(&world, bob) || is_warned(&world, copy)
    });
    assert!(is_noticed);
}

/// Every relay's mailboxes are gone, so that their owners make others.
fn lose_queues(world: &mut World) {
    for number in 0..8 {
        world.crash_relay(RelayName(number));
        world.relay(RelayName(number)).disk.lose_queues();
        world.restart_relay(RelayName(number));
    }
}

#[test] // §9.3(6)
fn a_restored_backup_goes_above_what_was_published_and_receives_again() {
    let is_warned_after_restore = |seed: u64| {
        let mut world = World::new(seed).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        end(&mut world, BOB);
        // Bob receives in some more runs, in each of which his mailboxes are replaced; then his disk
        // is lost, and a copy from before comes back.
        let backup = world.copy_client(BOB);
        world.crash_client(backup);
        for _ in 0..3 {
            lose_queues(&mut world);
            world.restart_client(BOB);
            follow(&mut world, BOB);
            world.run_for(Duration::from_secs(60));
            end(&mut world, BOB);
        }
        assert!(!is_warned(&world, BOB), "restarts alone are no second copy");
        world.restart_client(backup);
        follow(&mut world, backup);
        world.run_for(Duration::from_secs(120));
        let id = world.send(ALICE, &address, b"after the restore".to_vec());
        let has_come = |world: &World| {
            let messages = &world.client(backup).disk.messages;
            messages.iter().any(|(_, came, _)| *came == id)
        };
        world.expect_within(Duration::from_secs(60), has_come);
        is_warned(&world, backup)
    };
    // One whose first step is longer than all of Bob's was never below, and has nothing to say.
    let warned = (92..95).filter(|&seed| is_warned_after_restore(seed));
    assert!(warned.count() >= 1, "none of three");
}
