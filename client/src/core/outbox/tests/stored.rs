//! Stored messages of this format and of those before.

use super::*;

/// The state in an earlier format, made from the present one: later fields stand at its end.
fn as_format(version: u8, state: &[u8]) -> Vec<u8> {
    let wall = Bench::new(Network::local()).wall;
    let life = Network::local().params.record_life;
    let added =
        umbel_proto::wire::encode(&(wall, wall + life, None::<WallTime>, None::<DeferReason>));
    assert_eq!((state[0], state.ends_with(&added)), (3, true));
    let mut old = state[..state.len() - added.len()].to_vec();
    old[0] = version;
    if version == 1 {
        assert_eq!(old.pop(), Some(0), "nothing of enough holders");
    }
    old
}

#[test]
fn an_outbox_of_the_formats_before_is_read_and_ages_from_then_on() {
    let mut bench = Bench::new(Network::local());
    bench.send();
    let state = bench.outbox.entries[&ID].delivery.state();
    for version in [1, 2] {
        let old = as_format(version, &state);
        let mut bench = Bench::new(Network::local());
        bench.wall = bench.wall + Duration::from_secs(5000);
        bench
            .with(|outbox, cx, _, _| outbox.restore(cx, ID, &old))
            .expect("it is read");
        let [entry] = bench.entries()[..] else {
            panic!("one message")
        };
        assert_eq!(
            (entry.created_at, entry.expires_at),
            (
                bench.wall,
                bench.wall + bench.shared.network.params.record_life
            )
        );
        bench.drive();
        let created_at = bench.wall;
        let mut bench = restarted(&bench);
        bench.wall = bench.wall + Duration::from_secs(7000);
        assert_eq!(
            bench.entries()[0].created_at,
            created_at,
            "it was stored in the new format"
        );
    }
    let mut newer = state.to_vec();
    newer[0] = 4;
    assert!(
        bench
            .with(|outbox, cx, _, _| outbox.restore(cx, ID, &newer))
            .is_err()
    );

    let of_two = as_format(
        1,
        &held_by_two_where(3).outbox.entries[&ID].delivery.state(),
    );
    let mut bench = Bench::new(Network::local());
    bench
        .with(|outbox, cx, _, _| outbox.restore(cx, ID, &of_two))
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
    let address = read.entry.address;
    let fresh = new_outbox_state(
        address,
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
