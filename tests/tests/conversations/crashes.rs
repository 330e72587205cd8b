//! What a client loses when it dies, or its user changes their mind, in the middle of something: nothing
//! of what it said, and no time of others.

use super::*;

fn renewals(world: &World, name: ClientName) -> usize {
    let is_renewal = |(_, notice): &&(Instant, Notice)| {
        matches!(
            notice,
            Notice::Conversation {
                event: ConversationEvent::Renewed,
                ..
            }
        )
    };
    world.client(name).notices.iter().filter(is_renewal).count()
}

#[test] // §11.9(5)
fn a_message_that_was_said_to_be_queued_outlives_a_crash_right_then() {
    let (mut world, address) = world(901);
    listen_for_answers(&mut world, ALICE);
    let id = world.send_to(ALICE, owner(address), b"hello".to_vec());
    let is_queued = |world: &World| world.has_notice(ALICE, |it| *it == Notice::Queued(id));
    assert!(world.run_until(Duration::from_secs(10), is_queued));
    restart(&mut world, ALICE);
    world.expect_within(Duration::from_secs(600), |world| {
        world.message_count(BOB) == 1
    });
    assert!(!world.has_notice(ALICE, |it| matches!(it, Notice::Failed { .. })));
}

#[test] // §11.9(2)
fn starting_anew_seals_nothing_that_waits_for_its_reader_again() {
    let (mut world, address) = acquainted(902);
    world.run_for(Duration::from_secs(60));
    world.crash_client(BOB);
    let before = [ALICE, BOB].map(|name| renewals(&world, name));
    for number in 0..50 {
        world.send_to(ALICE, owner(address), body(number, 30));
        world.run_for(Duration::from_secs(1));
    }
    world.run_for(Duration::from_secs(120));
    for _ in 0..7 {
        restart(&mut world, ALICE);
        world.run_for(Duration::from_secs(60));
        world.skip(Duration::from_secs(20 * 3600));
        world.run_for(Duration::from_secs(300));
    }
    world.restart_client(BOB);
    listen(&mut world, true);
    world.run_for(Duration::from_secs(120));
    let id = world.send_to(ALICE, owner(address), b"welcome back".to_vec());
    world.expect_within(Duration::from_secs(600), |world| {
        came(world, BOB).contains(&id)
    });
    assert_eq!([ALICE, BOB].map(|name| renewals(&world, name)), before);
}

#[test] // §10.2
fn removing_a_contact_whose_message_is_being_stored_stops_no_mailbox() {
    let mut world = World::new(903).relays(12).clients(3);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    listen_for_answers(&mut world, ALICE);
    world.send_to(ALICE, owner(address), b"hello".to_vec());
    world.expect_within(Duration::from_secs(60), |world| {
        world.message_count(BOB) == 1
    });
    world.run_for(Duration::from_secs(60));
    let key = contact(&world, BOB).0;
    world.set_client_disk_full(BOB, true);
    for number in 0..6 {
        world.send_to(ALICE, owner(address), body(number, 40));
        world.run_for(Duration::from_secs(20));
    }
    world.wish(BOB, Wish::RemoveContact(key));
    world.set_client_disk_full(BOB, false);
    world.run_for(Duration::from_secs(600));
    let caught_up = |world: &World| {
        let notices = world.client(BOB).notices.iter();
        let caught_up = notices.filter(|(_, it)| matches!(it, Notice::CaughtUp { .. }));
        caught_up.count()
    };
    let before = caught_up(&world);
    let id = world.send(CAROL, &address, b"carol".to_vec());
    world.run_for(Duration::from_secs(3600));
    assert!(came(&world, BOB).contains(&id));
    assert!(caught_up(&world) > before);
}

#[test] // §11.9(2)
fn blocking_a_contact_does_not_fail_what_holders_have() {
    let (mut world, address) = acquainted(905);
    world.run_for(Duration::from_secs(60));
    world.crash_client(BOB);
    let id = world.send_to(ALICE, owner(address), b"held".to_vec());
    world.run_for(Duration::from_secs(120));
    let key = contact(&world, ALICE).0;
    let (contact, is_blocked) = (key, true);
    world.wish(
        ALICE,
        Wish::Block {
            contact,
            is_blocked,
        },
    );
    for _ in 0..4 {
        world.skip(Duration::from_secs(12 * 3600));
        world.run_for(Duration::from_secs(300));
    }
    let failed = |notice: &Notice| matches!(notice, Notice::Failed { id: it, .. } if *it == id);
    assert!(!world.has_notice(ALICE, failed));
}

#[test] // §11.9(1), §11.9(3)
fn who_answers_hours_later_says_everything_once_its_queues_are_there() {
    let (mut world, address) = world(940);
    listen_for_answers(&mut world, ALICE);
    let hello = world.send_to(ALICE, owner(address), b"hello".to_vec());
    world.expect_within(Duration::from_secs(60), |world| {
        world.message_count(BOB) == 1
    });
    world.skip(Duration::from_secs(8 * 3600));
    world.run_for(Duration::from_secs(120));
    reply(&mut world, BOB, b"late".to_vec());
    world.expect_within(Duration::from_secs(120), |world| {
        world.message_count(ALICE) == 1 && is_acknowledged(world, ALICE, hello)
    });
}
