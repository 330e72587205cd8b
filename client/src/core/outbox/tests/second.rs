//! The second deposit has a moment of its own.

use super::*;

#[test] // §10.5(2)
fn the_time_of_the_second_deposit_is_reported_once_and_stored() {
    let (mut bench, wait) = held_by_one();
    assert!(
        !wait.is_zero() && wait <= Duration::from_secs(240),
        "{wait:?}"
    );
    bench.drive();
    assert_eq!(bench.notices(), []);
    bench.with(|outbox, cx, _| outbox.stop(cx));

    let state = bench.outbox.entries[&ID].delivery.state();
    let mut soon = Bench::new(unhurried());
    soon.wall = bench.wall + wait / 2;
    soon.with(|outbox, cx, _| outbox.restore(cx, ID, &state))
        .expect("it is read");
    let next_try_at = soon.entries()[0].next_try_at.expect("it waits");
    assert!(
        next_try_at > soon.wall && next_try_at <= bench.wall + wait,
        "no later than it was to be"
    );
    soon.with(|outbox, cx, _| outbox.flush(cx));
    assert_eq!(
        soon.entries()[0].next_try_at,
        Some(next_try_at),
        "however often it is asked for"
    );

    let mut late = Bench::new(unhurried());
    late.wall = bench.wall + wait + Duration::from_secs(1);
    late.with(|outbox, cx, _| outbox.restore(cx, ID, &state))
        .expect("it is read");
    late.find(3);
    (0..3).for_each(|_| late.drive());
    assert_eq!(
        late.asked_count(),
        1,
        "the second is asked at once, and the third is not"
    );
}

/// A client that begins at this time with this message in its outbox.
fn restored(state: &[u8], wall: WallTime) -> Bench {
    let mut bench = Bench::new(unhurried());
    bench.wall = wall;
    bench
        .with(|outbox, cx, _| outbox.restore(cx, ID, state))
        .expect("it is read");
    bench
}

/// A client whose clock is set back, with a message that one holder took while it was ahead.
fn from_the_future() -> Bench {
    let (bench, _) = held_by_one();
    let state = bench.outbox.entries[&ID].delivery.state();
    restored(&state, WallTime(bench.wall.as_secs() - 1_000_000))
}

#[test] // §10.5(2)
fn a_clock_that_was_ahead_puts_no_deposit_off_for_long() {
    let mut bench = from_the_future();
    let entry = bench.entries().remove(0);
    assert!(
        entry
            .next_try_at
            .is_some_and(|at| at <= bench.wall + Duration::from_secs(241)),
        "{entry:?}"
    );
    let ahead = Duration::from_secs(1_000_000);
    assert_eq!(
        entry.created_at,
        bench.wall + ahead,
        "until a clock is right"
    );

    // Four minutes later another command sends it.
    bench.drive();
    let state = bench.saved().expect("it is stored so");
    let mut later = restored(&state, bench.wall + Duration::from_secs(241));
    later.find(3);
    (0..3).for_each(|_| later.drive());
    assert_eq!(later.asked_count(), 1);
}

#[test] // §10.5(1)
fn a_message_from_the_future_is_as_old_as_the_first_right_clock_found_it() {
    let mut bench = from_the_future();
    bench.drive();
    bench.saved();
    bench.judge_clock(false);
    bench.drive();
    assert!(bench.saved().is_none(), "the clock may be behind");
    bench.judge_clock(true);
    bench.drive();
    let state = bench.saved().expect("it is stored");
    let later = restored(&state, bench.wall + Duration::from_secs(3600));
    assert_eq!(later.entries()[0].created_at, bench.wall);
}

#[test] // §10.5(2)
fn a_holder_that_fails_gives_its_moment_to_the_next() {
    let mut bench = Bench::new(unhurried());
    bench.send();
    bench.find(3);
    (0..3).for_each(|_| bench.drive());
    assert!(bench.stored(true));
    for tried in 0..3 {
        let asked: Vec<u8> = (0..3).filter(|&number| bench.is_asked(number)).collect();
        let [next] = asked[..] else {
            panic!("one at a time, {tried} were tried: {asked:?}")
        };
        bench.answer(next, &SILENT);
        bench.drive();
    }
    let notices = bench.notices();
    assert!(
        matches!(
            notices[..],
            [
                Notice::Queued(ID),
                Notice::Deferred {
                    reason: DeferReason::Holders,
                    ..
                }
            ]
        ),
        "{notices:?}"
    );
    assert_eq!(bench.entries()[0].obstacle, Some(DeferReason::Holders));

    let (mut bench, wait) = held_by_one();
    bench.pass(wait);
    let second = (0..3)
        .find(|&number| bench.is_asked(number))
        .expect("its moment has come");
    bench.answer(second, &SILENT);
    bench.drive();
    let third = (0..3)
        .find(|&number| bench.is_asked(number))
        .expect("it takes the second's place");
    bench.answer(third, &SILENT);
    bench.drive();
    assert!(matches!(
        bench.notices()[..],
        [Notice::Deferred {
            reason: DeferReason::Holders,
            ..
        }]
    ));
}
