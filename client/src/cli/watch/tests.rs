//! A command's report on a message, by the notices that it got.

use umbel_client::core::io::{Cancelled, Recipient, SendFault};

use super::words::planned_text;
use super::*;

const ID: MessageId = MessageId([1; 16]);
const NOW: WallTime = WallTime(1_790_000_000);

fn held(holders: usize, wanted: usize) -> Notice {
    Notice::Held {
        id: ID,
        holders,
        wanted,
    }
}

fn entry(holders: usize) -> OutboxEntry {
    let address = *umbel_proto::inbox::address::InboxIdentity::from_seed(&[3; 32]).address();
    let created_at = NOW;
    OutboxEntry {
        id: ID,
        to: Recipient::OneWay(address),
        len: 5,
        created_at,
        expires_at: created_at + Duration::from_secs(1000),
        holders,
        wanted: 2,
        obstacle: None,
        next_try_at: None,
        is_unacknowledged: false,
    }
}

#[test] // §11.8(4)
fn a_message_that_its_reader_has_is_sent() {
    let watch = after(0, &[held(2, 2), Notice::Acknowledged(ID)]);
    assert!(watch.outcome().is_ok());
    assert_eq!(watch.messages[&ID].state(), "acknowledged");
}

#[test]
fn a_message_that_only_waits_for_its_reader_is_not_waited_for() {
    let mut watch = Watch::new(Stage::Held, Duration::from_secs(10));
    let waiting = OutboxEntry {
        is_unacknowledged: true,
        ..entry(2)
    };
    watch.add_all([waiting], NOW);
    assert!(watch.messages.is_empty());
}

fn deferred() -> Notice {
    Notice::Deferred {
        id: ID,
        reason: DeferReason::Holders,
        retry_in: Duration::from_secs(3600),
    }
}

/// A message that `holders` of two held when it was in the outbox, after these notices.
fn after(holders: usize, notices: &[Notice]) -> Watch {
    after_at(Stage::Kept, holders, notices)
}

fn after_at(stage: Stage, holders: usize, notices: &[Notice]) -> Watch {
    let mut watch = Watch::new(stage, Duration::from_secs(60));
    watch.add_all(vec![entry(holders)], NOW);
    notices.iter().for_each(|notice| watch.take(notice));
    watch
}

fn is_waited_for(watch: &Watch) -> bool {
    watch
        .messages
        .values()
        .any(|progress| progress.fate.is_none())
}

#[test]
fn a_held_message_is_waited_for_until_an_attempt_ends() {
    assert!(is_waited_for(&after(2, &[])));
    for (last, is_over) in [
        (None, false),
        (Some(held(2, 2)), true),
        (Some(Notice::Unreachable), true),
    ] {
        let watch = after(2, last.as_slice());
        assert_eq!(is_waited_for(&watch), !is_over);
        assert_eq!(watch.messages[&ID].fate(), Fate::Held);
        assert!(watch.outcome().is_ok());
    }
}

#[test]
fn a_message_that_nobody_has_is_queued_and_one_that_some_have_is_kept() {
    let holders = Obstacle::Deferred(DeferReason::Holders);
    for (notices, expected) in [
        (vec![], Fate::Queued(Obstacle::Time)),
        (
            vec![Notice::Unreachable],
            Fate::Queued(Obstacle::Unreachable),
        ),
        (
            vec![Notice::NoCircuits],
            Fate::Queued(Obstacle::Deferred(DeferReason::NoCircuit)),
        ),
        (
            vec![Notice::NoCircuits, held(1, 2)],
            Fate::Kept(Missing::Obstacle(Obstacle::Time)),
        ),
        (vec![deferred()], Fate::Queued(holders)),
        (
            vec![held(1, 2)],
            Fate::Kept(Missing::Obstacle(Obstacle::Time)),
        ),
        (
            vec![held(1, 2), deferred()],
            Fate::Kept(Missing::Obstacle(holders)),
        ),
        (
            vec![held(1, 2), Notice::Unreachable],
            Fate::Kept(Missing::Obstacle(Obstacle::Unreachable)),
        ),
        (vec![deferred(), held(2, 2)], Fate::Held),
        (vec![held(2, 2), deferred()], Fate::Held),
        (vec![held(1, 1)], Fate::Held),
        (
            vec![held(1, 1), held(1, 3)],
            Fate::Kept(Missing::Obstacle(Obstacle::Time)),
        ),
    ] {
        let watch = after(0, &notices);
        assert_eq!(watch.messages[&ID].fate(), expected, "{notices:?}");
        assert_eq!(
            watch.outcome().is_err(),
            matches!(expected, Fate::Queued(_))
        );
    }
}

#[test]
fn one_relay_is_enough_to_go_unless_all_are_waited_for() {
    let scheduled = |seconds| Notice::Scheduled {
        id: ID,
        wait: Duration::from_secs(seconds),
    };
    let soon = Notice::Deferred {
        id: ID,
        reason: DeferReason::Holders,
        retry_in: Duration::from_secs(1),
    };
    for (stage, last, is_over) in [
        (Stage::Kept, scheduled(20), true),
        (Stage::Held, scheduled(20), false),
        (Stage::Held, scheduled(100), true),
        (Stage::Kept, soon.clone(), true),
        (Stage::Held, soon.clone(), false),
        (Stage::Held, deferred(), true),
    ] {
        let watch = after_at(stage, 0, &[held(1, 2), last.clone()]);
        assert_eq!(is_waited_for(&watch), !is_over, "{stage:?} {last:?}");
        assert_eq!(watch.messages[&ID].state(), "kept");
        assert!(watch.messages[&ID].text().contains("kept by one relay"));
        assert_eq!(watch.outcome().is_ok(), stage == Stage::Kept);
    }
    assert!(
        is_waited_for(&after(0, std::slice::from_ref(&soon))),
        "nobody has it, and there is time left"
    );
    let tried = after(0, &[soon, Notice::NoCircuits]);
    assert!(is_waited_for(&tried), "other relays are tried meanwhile");
    assert!(
        after(0, &[held(1, 2), scheduled(40)]).messages[&ID]
            .text()
            .contains("the next copy goes out in about")
    );
    for (wait, expected) in [
        (40, "about 40 seconds,"),
        (0, "about 1 second,"),
        (180, "about 3 minutes,"),
    ] {
        let text = planned_text("one relay", Duration::from_secs(wait));
        assert!(
            text.starts_with("kept by one relay;") && text.contains(expected),
            "{text}"
        );
    }
}

#[test]
fn a_list_of_relays_that_never_came_is_why_nothing_was_sent() {
    let waiting = Notice::WaitingForView { last_known: 0 };
    for (notices, expected) in [
        (vec![waiting.clone()], Obstacle::View { relays: 3 }),
        (vec![waiting, Notice::Ready { relays: 8 }], Obstacle::Time),
    ] {
        let mut watch = after(0, &notices);
        watch.on_time_up(3);
        assert_eq!(watch.messages[&ID].fate(), Fate::Queued(expected));
    }
}

#[test]
fn a_copy_that_waited_before_this_command_is_not_waited_for() {
    let waiting = OutboxEntry {
        next_try_at: Some(WallTime(1_790_000_030)),
        ..entry(1)
    };
    let mut watch = Watch::new(Stage::Kept, Duration::from_secs(60));
    watch.add_all(vec![waiting], NOW);
    assert!(!is_waited_for(&watch) && watch.outcome().is_ok());
    assert!(watch.messages[&ID].next_copy_in().is_some());
    assert!(is_waited_for(&after(1, &[])), "this one is tried now");

    let next_try_at = Some(WallTime(1_790_000_100));
    for (holders, expected) in [
        (
            0,
            Fate::Queued(Obstacle::Deferred(DeferReason::NoDescriptor)),
        ),
        (
            1,
            Fate::Kept(Missing::Obstacle(Obstacle::Deferred(
                DeferReason::NoDescriptor,
            ))),
        ),
    ] {
        let failed = OutboxEntry {
            next_try_at,
            obstacle: Some(DeferReason::NoDescriptor),
            ..entry(holders)
        };
        let mut watch = Watch::new(Stage::Kept, Duration::from_secs(60));
        watch.add_all(vec![failed], NOW);
        assert_eq!(
            watch.messages[&ID].fate,
            Some(expected),
            "its attempt has failed before"
        );
    }
}

#[test]
fn a_silent_holder_is_waited_for_briefly_once_another_has_it() {
    let mut watch = after(0, &[held(1, 2)]);
    assert!(watch.patient_until().is_some_and(|at| at < watch.ends_at));
    watch.lose_patience();
    assert!(is_waited_for(&watch), "not yet");
    for progress in watch.messages.values_mut() {
        progress.kept_at = progress.kept_at.and_then(|at| at.checked_sub(PATIENCE));
    }
    watch.lose_patience();
    assert!(!is_waited_for(&watch));
    assert_eq!(
        after_at(Stage::Held, 0, &[held(1, 2)]).patient_until(),
        None
    );
    assert_eq!(after(0, &[]).patient_until(), None);
}

#[test]
fn a_message_that_left_unseen_is_what_its_last_notice_says() {
    let failed = Notice::Failed {
        id: ID,
        reason: SendFault::TooLong,
    };
    let cancelled = Notice::Cancelled(Cancelled {
        id: ID,
        copies: Copies::None,
    });
    let expired = Notice::Expired {
        id: ID,
        copies: Copies::None,
        wanted: 2,
    };
    for (notice, expected) in [
        (held(2, 2), Fate::Held),
        (failed, Fate::Failed(SendFault::TooLong)),
        (cancelled, Fate::Cancelled),
        (expired, Fate::Expired(Copies::None)),
    ] {
        for watched in [&mut after(0, &[deferred()]), &mut sent()] {
            watched.take_outbox(Vec::new(), std::slice::from_ref(&notice), NOW);
            assert_eq!(watched.messages[&ID].fate(), expected);
            // The next process knows nothing of it.
            watched.take_outbox(Vec::new(), &[], NOW);
            assert_eq!(watched.messages[&ID].fate(), expected);
        }
    }
    let mut watch = after(0, &[]);
    watch.take_outbox(vec![entry(1)], &[], NOW);
    assert_eq!(
        (watch.messages[&ID].holders, is_waited_for(&watch)),
        (1, true)
    );
}

/// As `umbel send` watches a message that it has just put into the outbox.
fn sent() -> Watch {
    let mut watch = Watch::new(Stage::Kept, Duration::from_secs(60));
    watch.add(ID);
    watch
}

#[test]
fn a_message_that_left_and_nobody_knows_why_is_in_doubt() {
    let mut watch = sent();
    watch.take_outbox(Vec::new(), &[], NOW);
    assert_eq!(watch.messages[&ID].state(), "left");
    let failure = watch.outcome().unwrap_err();
    assert_eq!(failure.exit, Exit::InDoubt);

    for stage in [Stage::Kept, Stage::Held] {
        let mut watch = after_at(stage, 0, &[held(1, 2)]);
        watch.take_outbox(Vec::new(), &[], NOW);
        let progress = watch.messages[&ID];
        assert_eq!((progress.state(), progress.holders), ("kept", 1));
        let exit = watch.outcome().err().map(|failure| failure.exit);
        assert_eq!(exit, (stage == Stage::Held).then_some(Exit::InDoubt));
    }
}

#[test] // §10.5(1)
fn a_message_that_left_unseen_expired_if_its_life_was_over() {
    let missing = Missing::Expired(Copies::InDoubt);
    let expired = Fate::Expired(Copies::InDoubt);
    for (holders, age, expected) in [
        (0, 999, Fate::Left),
        (0, 1000, expired),
        (1, 999, Fate::Kept(Missing::Left)),
        (1, 1000, Fate::Kept(missing)),
        (2, 1000, Fate::Held),
    ] {
        let mut watch = after(holders, &[]);
        watch.take_outbox(Vec::new(), &[], NOW + Duration::from_secs(age));
        assert_eq!(
            watch.messages[&ID].fate(),
            expected,
            "{holders} holders after {age} s"
        );
    }
}

#[test] // §10.5(1)
fn a_holder_that_was_reported_is_not_taken_back() {
    let held = |holders| Notice::Held {
        id: ID,
        holders,
        wanted: 2,
    };
    let wait = Duration::from_secs(9);
    let planned = Notice::Scheduled { id: ID, wait };
    // The next driver knows of none.
    let watch = after(0, &[held(1), planned, held(0)]);
    let progress = watch.messages[&ID];
    assert_eq!((progress.holders, progress.state()), (1, "kept"));
    assert!(progress.text().starts_with("kept by one relay"));
}

#[test] // §10.5(1)
fn a_message_that_expired_with_too_few_holders_is_said_to_be_with_those() {
    let expired = Notice::Expired {
        id: ID,
        copies: Copies::Held(1),
        wanted: 2,
    };
    let kept = Fate::Kept(Missing::Expired(Copies::Held(1)));
    for stage in [Stage::Kept, Stage::Held] {
        let watch = after_at(stage, 0, std::slice::from_ref(&expired));
        let progress = watch.messages[&ID];
        assert_eq!(
            (progress.fate(), progress.state(), progress.holders),
            (kept, "kept", 1)
        );
        assert_eq!(watch.outcome().is_ok(), stage == Stage::Kept);
    }
    let failure = after_at(Stage::Held, 0, &[expired]).outcome().unwrap_err();
    assert_eq!(failure.exit, Exit::InDoubt, "one relay has it");
    assert_eq!(failure.error, "the message expired with only one relay");
}

#[test]
fn only_a_command_that_prints_fates_keeps_back_the_warning_of_one() {
    let expired = |id| Notice::Expired {
        id,
        copies: Copies::None,
        wanted: 2,
    };
    let in_passing = after(0, &[]);
    assert!(!in_passing.is_said_later(&expired(ID)));
    let sent = after(0, &[]).reported();
    assert!(sent.is_said_later(&expired(ID)));
    let other = MessageId([2; 16]);
    assert!(!sent.is_said_later(&expired(other)), "not watched");
    assert!(!sent.is_said_later(&held(1, 2)));
}

#[test] // §10.5(1)
fn a_message_that_expired_with_no_holder_is_in_doubt_if_it_may_be_out() {
    for (copies, exit, advice) in [
        (Copies::InDoubt, Exit::InDoubt, "ask its reader"),
        (Copies::None, Exit::Failed, "send it again"),
    ] {
        let may_be_out = copies == Copies::InDoubt;
        let expired = Notice::Expired {
            id: ID,
            copies,
            wanted: 2,
        };
        let watch = after(0, &[expired]);
        let progress = watch.messages[&ID];
        assert_eq!(
            (progress.state(), progress.may_be_out()),
            ("expired", Some(may_be_out))
        );
        let failure = watch.outcome().unwrap_err();
        assert_eq!(failure.exit, exit);
        assert!(failure.hint.contains(advice), "{}", failure.hint);
        let warning = expired_text(ID, copies, 2);
        for text in [warning, progress.text(), failure.error] {
            assert_eq!(text.contains("may have it"), may_be_out, "{text}");
            assert_eq!(text.contains("nobody has it"), !may_be_out, "{text}");
            assert_eq!(text.matches("expired").count(), 1, "{text}");
        }
    }
}
