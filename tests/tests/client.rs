//! A client whose relays are gone, and a client in which nothing happens.

use std::collections::BTreeSet;

use umbel_client::core::{DeferReason, Notice, Wish};
use umbel_proto::ids::{MessageId, RelayId};
use umbel_proto::time::Duration;
use umbel_tests::scenario::{
    ALICE, BOB, guard_of, has_come, listen, mailboxes_of, name_of, relays_at,
};
use umbel_tests::{RelayName, World};

fn crash(world: &mut World, relay: RelayId) -> RelayName {
    let name = name_of(world, relay);
    world.crash_relay(name);
    name
}

#[test] // §6.4(6)
fn a_dead_guard_gives_way_to_the_next_and_comes_back() {
    let mut world = World::new(31).relays(10).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    let warm = world.send(ALICE, &address, b"warm".to_vec());
    world.expect_within(Duration::from_secs(30), |world| has_come(world, warm));
    let first = guard_of(&world, ALICE).expect("a guard in use");
    let dead = crash(&mut world, first);
    let sent = world.send(ALICE, &address, b"past the dead guard".to_vec());
    world.expect_within(Duration::from_secs(20), |world| has_come(world, sent));
    assert!(guard_of(&world, ALICE).is_some_and(|guard| guard != first));
    world.restart_relay(dead);
    let is_back = |world: &World| guard_of(world, ALICE) == Some(first);
    world.expect_within(Duration::from_secs(30), is_back);
}

#[test] // §6.4(2)
fn guards_and_layer_2_outlive_a_restart() {
    let mut world = World::new(32).relays(12).clients(2);
    world.run_for(Duration::from_secs(120));
    let (guard, layer2) = (guard_of(&world, ALICE), relays_at(&world, ALICE, 2));
    world.crash_client(ALICE);
    world.restart_client(ALICE);
    world.run_for(Duration::from_secs(120));
    assert!(guard.is_some());
    assert_eq!(guard_of(&world, ALICE), guard);
    let all = relays_at(&world, ALICE, 2);
    assert!(
        layer2.is_subset(&all) && all.len() <= 4,
        "no more than are pinned: {}",
        all.len()
    );
}

#[test] // §6.4(1)
fn circuits_never_have_a_relay_twice_among_the_first_three() {
    let mut world = World::new(33).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    world.send(ALICE, &address, b"hello".to_vec());
    world.run_for(Duration::from_secs(60));
    for client in [ALICE, BOB] {
        let mut circuits = std::collections::BTreeMap::<u64, Vec<RelayId>>::new();
        for (_, notice) in &world.client(client).notices {
            if let Notice::HopBuilt { circuit, relay, .. } = notice {
                circuits.entry(*circuit).or_default().push(*relay);
            }
        }
        assert!(circuits.values().any(|path| path.len() == 4));
        for path in circuits.values() {
            let first: BTreeSet<_> = path.iter().take(3).collect();
            assert_eq!(
                first.len(),
                path.len().min(3),
                "guard, L2 and middle differ"
            );
            assert!(
                path.get(3)
                    .is_none_or(|terminal| path.get(2) != Some(terminal)),
                "the middle is no terminal"
            );
        }
    }
}

#[test] // §6.4
fn dead_layer_2_relays_block_nothing() {
    let mut world = World::new(34).relays(14).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    let warm = world.send(ALICE, &address, b"warm".to_vec());
    world.expect_within(Duration::from_secs(30), |world| has_come(world, warm));
    let guard = guard_of(&world, ALICE);
    for relay in relays_at(&world, ALICE, 2)
        .into_iter()
        .filter(|relay| Some(*relay) != guard)
        .take(3)
    {
        crash(&mut world, relay);
    }
    let sent = world.send(ALICE, &address, b"past dead relays".to_vec());
    world.expect_within(Duration::from_secs(60), |world| has_come(world, sent));
}

#[test] // §9.4, §10
fn a_dead_holder_has_a_companion_and_mail_flows_on() {
    let mut world = World::new(35).relays(12).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    world.run_for(Duration::from_secs(5));
    let holders: Vec<RelayId> = world
        .all_relays()
        .iter()
        .filter(|relay| {
            relay
                .control()
                .is_some_and(|control| control.holder().counts().queues > 0)
        })
        .map(|relay| relay.id)
        .collect();
    assert_eq!(holders.len(), 3);
    let bobs_guard = guard_of(&world, BOB);
    let dead = holders
        .into_iter()
        .find(|holder| Some(*holder) != bobs_guard)
        .expect("a holder that is no guard");
    crash(&mut world, dead);
    let has_companion = |world: &World| mailboxes_of(world, BOB) == (4, 1);
    world.expect_within(Duration::from_secs(120), has_companion);
    world.run_for(Duration::from_secs(10));
    let sent = world.send(ALICE, &address, b"to the new one".to_vec());
    let by_all =
        |notice: &Notice| matches!(notice, Notice::Held { id, holders: 3, .. } if *id == sent);
    world.expect_within(Duration::from_secs(60), |world| {
        world.has_notice(ALICE, by_all)
    });
    world.expect_within(Duration::from_secs(30), |world| has_come(world, sent));
}

/// One that Bob's inbox has a mailbox at, and that is not his guard.
fn a_holder(world: &World) -> Option<RelayId> {
    let guard = guard_of(world, BOB);
    world
        .all_relays()
        .iter()
        .find(|relay| {
            Some(relay.id) != guard
                && relay
                    .control()
                    .is_some_and(|control| control.holder().counts().queues > 0)
        })
        .map(|relay| relay.id)
}

/// Alice sends to Bob's inbox, one of whose holders is dead. `None` where it has no holder that may
/// die.
fn send_past_a_dead_holder(seed: u64) -> Option<(World, MessageId)> {
    let mut world = World::new(seed).relays(12).clients(2);
    let address = world.create_inbox(BOB, "help");
    let holder = a_holder(&world)?;
    crash(&mut world, holder);
    let sent = world.send(ALICE, &address, b"two will do".to_vec());
    Some((world, sent))
}

fn is_held_by_two(world: &World, sent: MessageId) -> bool {
    world.has_notice(
        ALICE,
        |notice| matches!(notice, Notice::Held { id, holders: 2, wanted: 2 } if *id == sent),
    )
}

#[test] // §10.5(1)
fn a_client_that_ends_once_two_have_a_message_remembers_it() {
    let (mut world, sent) = send_past_a_dead_holder(38).expect("a holder");
    let is_held = |world: &World| is_held_by_two(world, sent);
    world.expect_within(Duration::from_secs(60), is_held);
    world.wish(ALICE, Wish::Stop);
    world.run_for(Duration::from_millis(500));
    world.crash_client(ALICE);
    world.restart_client(ALICE);
    let status = world.client(ALICE).core().expect("it was started").status();
    let [entry] = &status.outbox[..] else {
        panic!("one message is there: {status:?}")
    };
    assert_eq!((entry.id, entry.holders, entry.wanted), (sent, 2, 2));
}

#[test] // §10.2
fn a_dead_holder_does_not_keep_a_message_from_the_other_two() {
    let (mut world, sent) = send_past_a_dead_holder(36).expect("a holder");
    let is_held = |world: &World| is_held_by_two(world, sent);
    world.expect_within(Duration::from_secs(60), is_held);
    listen(&mut world, false);
    world.expect_within(Duration::from_secs(60), |world| has_come(world, sent));
    let is_out = |world: &World| world.client(ALICE).disk.outbox_len() == 0;
    assert!(
        world.run_until(Duration::from_secs(120), is_out),
        "it leaves once the third was tried in vain for a while"
    );
}

#[test] // §10.2: several commands of one profile fetch through one client
fn listening_again_looks_again_and_ends_no_subscription() {
    let mut world = World::new(39).relays(8).clients(2);
    let address = world.create_inbox(BOB, "help");
    let caught_up = |world: &World| {
        let is_it = |notice: &&Notice| matches!(notice, Notice::CaughtUp { answered: 3, .. });
        world
            .client(BOB)
            .notices
            .iter()
            .map(|(_, notice)| notice)
            .filter(is_it)
            .count()
    };
    for number in 0..6 {
        let sent = world.send(ALICE, &address, vec![number; 100]);
        // The outbox is empty before the message is in it, too.
        let is_out = |world: &World| {
            is_held_by_two(world, sent) && world.client(ALICE).disk.outbox_len() == 0
        };
        world.expect_within(Duration::from_secs(60), is_out);
        let before = caught_up(&world);
        listen(&mut world, false);
        world.expect_within(Duration::from_secs(30), |world| caught_up(world) > before);
        assert!(has_come(&world, sent), "message {number}");
    }
    listen(&mut world, true);
    world.run_for(Duration::from_secs(10));
    listen(&mut world, false);
    let sent = world.send(ALICE, &address, vec![7; 100]);
    world.expect_within(Duration::from_secs(1), |world| has_come(world, sent));
}

#[test] // §10.2
fn copies_are_reported_once_and_the_owner_learns_that_all_is_read() {
    for is_interactive in [true, false] {
        let mut world = World::new(37).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        let sent: Vec<MessageId> = (0..12)
            .map(|number| world.send(ALICE, &address, vec![number; 700 * usize::from(number)]))
            .collect();
        let is_out = |world: &World| world.client(ALICE).disk.outbox_len() == 0;
        world.expect_within(Duration::from_secs(60), is_out);
        listen(&mut world, is_interactive);
        let all_read = |notice: &Notice| {
            matches!(
                notice,
                Notice::CaughtUp {
                    answered: 3,
                    mailboxes: 3,
                    ..
                }
            )
        };
        world.expect_within(Duration::from_secs(60), |world| {
            world.has_notice(BOB, all_read)
        });
        world.run_for(Duration::from_secs(90));
        for id in sent {
            let is_it = |notice: &&Notice| matches!(notice, Notice::Received { id: came, .. } if *came == id);
            assert_eq!(
                world
                    .client(BOB)
                    .notices
                    .iter()
                    .map(|(_, notice)| notice)
                    .filter(is_it)
                    .count(),
                1
            );
        }
        assert_eq!(world.client(BOB).disk.duplicates, 0);
        let left: usize = world
            .all_relays()
            .iter()
            .filter_map(|relay| relay.control())
            .map(|control| control.holder().counts().records)
            .sum();
        assert_eq!(
            left, 0,
            "what is durable with the owner is removed, if only by the next probe"
        );
    }
}

#[test] // §10.5
fn a_client_that_dies_at_any_moment_loses_nothing() {
    for lived in [1, 7, 23, 60, 150, 400, 900] {
        let mut world = World::new(38).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        let sent = world.send(ALICE, &address, vec![5; 9_000]);
        let is_queued =
            |world: &World| world.has_notice(ALICE, |notice| *notice == Notice::Queued(sent));
        assert!(world.run_until(Duration::from_secs(10), is_queued));
        world.run_for(Duration::from_millis(lived));
        world.crash_client(ALICE);
        world.crash_client(BOB);
        world.restart_client(ALICE);
        world.restart_client(BOB);
        listen(&mut world, true);
        assert!(
            world.run_until(Duration::from_secs(60), |world| has_come(world, sent)),
            "{lived} ms; {}",
            world.describe()
        );
        assert_eq!(world.client(BOB).disk.messages.len(), 1);
    }
}

/// A message that a client which knows the way sends while its disk is full.
fn send_on_a_full_disk(world: &mut World) -> MessageId {
    let address = world.create_inbox(BOB, "help");
    listen(world, true);
    let first = world.send(
        ALICE,
        &address,
        b"the descriptor is known from now on".to_vec(),
    );
    let is_settled =
        |world: &World| has_come(world, first) && world.client(ALICE).disk.outbox_len() == 0;
    world.expect_within(Duration::from_secs(60), is_settled);
    world.set_client_disk_full(ALICE, true);
    world.send(ALICE, &address, b"once".to_vec())
}

#[test] // §10.5(1)
fn a_message_delivered_in_spite_of_a_full_disk_is_not_unsent() {
    let mut world = World::new(42).relays(8).clients(2);
    let sent = send_on_a_full_disk(&mut world);
    let is_held =
        |notice: &Notice| matches!(notice, Notice::Held { id, holders: 2.., .. } if *id == sent);
    world.expect_within(Duration::from_secs(10), |world| {
        world.has_notice(ALICE, is_held)
    });
    world.expect_within(Duration::from_secs(10), |world| has_come(world, sent));
    world.run_for(Duration::from_secs(60));
    let of_it = |notice: &Notice| {
        matches!(notice, Notice::Unsaved { .. }) || *notice == Notice::Queued(sent)
    };
    assert!(
        !world.has_notice(ALICE, of_it),
        "nothing else is said of it"
    );
}

#[test] // §10.5(1)
fn a_message_in_doubt_goes_out_once_the_disk_has_room() {
    let mut world = World::new(43).relays(8).clients(2);
    let sent = send_on_a_full_disk(&mut world);
    for number in 0..8 {
        world.crash_relay(RelayName(number));
    }
    let in_doubt = Notice::Unsaved {
        id: sent,
        may_be_out: true,
    };
    world.expect_within(Duration::from_secs(10), |world| {
        world.has_notice(ALICE, |notice| *notice == in_doubt)
    });
    for number in 0..8 {
        world.restart_relay(RelayName(number));
    }
    world.set_client_disk_full(ALICE, false);
    world.expect_within(Duration::from_secs(120), |world| has_come(world, sent));
    let is_held =
        |notice: &Notice| matches!(notice, Notice::Held { id, holders: 2.., .. } if *id == sent);
    world.expect_within(Duration::from_secs(30), |world| {
        world.has_notice(ALICE, is_held)
    });
    assert_eq!(
        world.client(BOB).disk.messages.len(),
        2,
        "once, whatever became of it before"
    );
}

#[test] // §6.4
fn without_a_network_a_message_is_deferred_and_goes_out_once_there_is_one() {
    let mut world = World::new(39).relays(6).clients(2);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    world.run_for(Duration::from_secs(20));
    for number in 0..6 {
        world.crash_relay(RelayName(number));
    }
    let sent = world.send(ALICE, &address, b"hello?".to_vec());
    let is_deferred = |notice: &Notice| matches!(notice, Notice::Deferred { id, reason: DeferReason::NoCircuit, .. } if *id == sent);
    world.expect_within(Duration::from_secs(60), |world| {
        world.has_notice(ALICE, is_deferred)
    });
    assert!(world.has_notice(ALICE, |notice| *notice == Notice::Unreachable));
    for number in 0..6 {
        world.restart_relay(RelayName(number));
    }
    world.expect_within(Duration::from_secs(60), |world| has_come(world, sent));
}

#[test]
fn a_client_with_nothing_to_do_does_little() {
    let mut world = World::new(40).relays(6).clients(2);
    world.create_inbox(BOB, "help");
    listen(&mut world, true);
    world.run_for(Duration::from_secs(60));
    let (steps, sent) = (world.steps(), world.cells.sent);
    world.run_for(Duration::from_secs(60));
    let (steps, sent) = (world.steps() - steps, world.cells.sent - sent);
    // Views are reconciled every two seconds, by eight nodes with up to five others each.
    assert!(sent < 60 * 60, "{sent} cells");
    assert!(steps < 4 * sent + 2_000, "{steps} steps for {sent} cells");
}

#[test]
fn a_client_that_stops_leaves_no_link_and_wants_no_timer() {
    let mut world = World::new(41).relays(6).clients(1);
    world.run_for(Duration::from_secs(20));
    let links = world.network().link_count();
    world.wish(ALICE, Wish::Stop);
    world.run_for(Duration::from_secs(5));
    assert!(world.network().link_count() < links);
    let core = world.client(ALICE).core().expect("it is up");
    assert_eq!(core.status().circuits, 0);
    assert_eq!(core.poll_timeout(), None);
}

#[test] // §9.3
fn an_inbox_that_is_made_does_not_wait_for_those_that_are_there() {
    let mut world = World::new(0x1b0c).relays(8).clients(1);
    let mut took = Vec::new();
    for number in 0..24 {
        world.restart_client(ALICE);
        let since = world.now();
        world.create_inbox(ALICE, &format!("inbox {number}"));
        took.push(world.now().since(since));
    }
    assert!(
        took[23] <= took[1] * 3,
        "the second took {:?}, the last {:?}",
        took[1],
        took[23]
    );
}
