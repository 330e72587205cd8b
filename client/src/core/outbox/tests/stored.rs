//! Stored messages: of today's format only, since the store upgrades those before it.

use super::*;

#[test]
fn an_outbox_of_another_format_is_refused() {
    let mut bench = Bench::new(Network::local());
    bench.send();
    let state = bench.outbox.entries[&ID].delivery.state();
    assert_eq!(state[0], 5);
    for format in [1, 2, 3, 4, 6] {
        let mut other = state.to_vec();
        other[0] = format;
        let mut bench = Bench::new(Network::local());
        let restored = bench.with(|outbox, cx, _| outbox.restore(cx, ID, &other));
        assert_eq!(restored, Err(SnapshotFault::Outbox(ID)));
    }
}

#[test]
fn whether_enough_hold_a_message_is_looked_at_anew() {
    let state = held_by_two_where(3).outbox.entries[&ID].delivery.state();
    let mut bench = Bench::new(Network::local());
    bench
        .with(|outbox, cx, _| outbox.restore(cx, ID, &state))
        .expect("it is read");
    assert!(!bench.outbox.entries[&ID].delivery.has_enough());
    bench.find(3);
    assert!(bench.outbox.entries[&ID].delivery.has_enough());
}

#[test]
fn a_stored_message_is_read_by_those_who_only_look() {
    let (bench, wait) = held_by_one();
    let state = bench.outbox.entries[&ID].delivery.state();
    let params = &bench.shared.network.params;
    let read = read_outbox_message(ID, &state, params, bench.wall).expect("it is read");
    assert_eq!(
        (read.entry.holders, read.entry.wanted, read.entry.len),
        (1, 2, 100)
    );
    assert_eq!(read.body.as_slice(), [7; 100]);
    assert!(
        read.entry
            .next_try_at
            .is_some_and(|at| at <= bench.wall + wait)
    );
    assert!(read_outbox_message(ID, &state[1..], params, bench.wall).is_none());
    let to = read.entry.to;
    let fresh = new_outbox_state(
        to,
        vec![1, 2],
        Some(Duration::from_secs(60)),
        params,
        bench.wall,
    );
    let read = read_outbox_message(ID, &fresh, params, bench.wall).expect("it is read");
    assert_eq!(
        (read.entry.expires_at, read.body.as_slice()),
        (bench.wall + Duration::from_secs(60), &[1, 2][..])
    );
}
