//! Which relays are suspected of breaking circuits.

use umbel_proto::time::WallTime;

use super::super::testing::When;
use super::*;

fn relay(number: u8) -> RelayId {
    RelayId([number; RelayId::LEN])
}

fn behind(number: u8) -> Suspected {
    Suspected::Behind {
        relay: relay(number),
        cleared: Vec::new(),
    }
}

/// Circuits over these paths break; the outcome of the last.
fn after_broken(suspects: &mut Suspects, paths: &[[u8; 4]]) -> Suspected {
    let on_broken = |suspects: &mut Suspects, path: &[u8; 4]| {
        When::at(WallTime(0))
            .act(|cx| suspects.on_broken(cx, &path.map(relay)))
            .0
    };
    paths
        .iter()
        .map(|path| on_broken(suspects, path))
        .last()
        .unwrap_or(Suspected::Nobody)
}

#[test] // §6.4(10)
fn a_guard_is_suspected_once_nothing_else_is_common_to_what_broke() {
    let mut suspects = Suspects::default();
    let broken = [[1, 11, 21, 31], [1, 12, 22, 32], [1, 11, 21, 31]];
    assert_eq!(after_broken(&mut suspects, &broken[..2]), Suspected::Nobody);
    assert_eq!(
        after_broken(&mut suspects, &broken[2..]),
        Suspected::Guard {
            cleared: Vec::new()
        }
    );
    let now = Instant::from_micros(0);
    assert!(suspects.is_suspect(relay(1), now) && !suspects.is_suspect(relay(2), now));
    suspects.on_worked(&[1, 11, 21, 31].map(relay));
    assert!(!suspects.is_suspect(relay(1), now), "an answer clears it");
    let to_one = [[1, 11, 21, 31], [1, 12, 22, 31]].repeat(4);
    assert_eq!(
        after_broken(&mut Suspects::default(), &to_one),
        Suspected::Nobody,
        "it may be the terminal"
    );
}

#[test] // §6.4(10)
fn a_layer_2_relay_is_suspected_where_its_guard_broke_no_others() {
    let broken = [[1, 11, 21, 31], [1, 11, 22, 32], [1, 11, 23, 33]];
    assert_eq!(after_broken(&mut Suspects::default(), &broken), behind(11));
    for common in [[1, 11, 21, 34], [1, 11, 24, 31]] {
        let many = [[1, 11, 21, 31], common].repeat(4);
        assert_eq!(
            after_broken(&mut Suspects::default(), &many),
            Suspected::Nobody,
            "{common:?}"
        );
    }
    let mut suspects = Suspects::default();
    after_broken(&mut suspects, &broken[..2]);
    suspects.on_worked(&[1, 11, 21, 31].map(relay));
    assert_eq!(
        after_broken(&mut suspects, &broken[2..]),
        Suspected::Nobody,
        "an answer clears it"
    );
}

#[test] // §6.4(10)
fn a_guard_over_which_three_l2_build_no_circuit_is_suspected() {
    let after = |suspects: &mut Suspects, ways: &[[u8; 2]]| {
        let on_unbuilt = |suspects: &mut Suspects, way: &[u8; 2]| {
            When::at(WallTime(0))
                .act(|cx| suspects.on_unbuilt(cx, relay(1), &way.map(relay)))
                .0
        };
        ways.iter().map(|way| on_unbuilt(suspects, way)).last()
    };
    let ways = [[11, 21], [12, 22], [13, 23], [11, 24]];
    let mut suspects = Suspects::default();
    assert_eq!(after(&mut suspects, &ways[..3]), Some(Suspected::Nobody));
    assert_eq!(
        after(&mut suspects, &ways[3..]),
        Some(Suspected::Guard {
            cleared: Vec::new()
        })
    );
    assert!(suspects.is_suspect(relay(1), Instant::from_micros(0)));
    let two = [[11, 21], [12, 22]].repeat(5);
    assert_eq!(
        after(&mut Suspects::default(), &two),
        Some(Suspected::Nobody)
    );
    let mut suspects = Suspects::default();
    after(&mut suspects, &ways[..3]);
    suspects.on_extended(&[1, 11].map(relay));
    assert_eq!(
        after(&mut suspects, &ways[3..]),
        Some(Suspected::Nobody),
        "one was built meanwhile"
    );
}

#[test] // §6.4(10)
fn a_middle_is_suspected_where_its_guard_broke_no_others() {
    let broken = [[1, 11, 21, 31], [1, 12, 21, 32], [1, 11, 21, 33]];
    assert_eq!(after_broken(&mut Suspects::default(), &broken), behind(21));
    let mut suspects = Suspects::default();
    after_broken(&mut suspects, &broken[..2]);
    suspects.on_worked(&[1, 13, 21, 31].map(relay));
    assert_eq!(
        after_broken(&mut suspects, &broken[2..]),
        Suspected::Nobody,
        "an answer clears it"
    );
    let over_one = [[1, 11, 21, 31], [1, 11, 21, 32]].repeat(4);
    assert_eq!(
        after_broken(&mut Suspects::default(), &over_one),
        Suspected::Nobody,
        "it may be the L2"
    );
}

#[test] // §6.4(10)
fn a_guard_that_frames_one_l2_after_another_is_suspected_itself() {
    let broken = |guard, layer2| {
        [
            [guard, layer2, 21, 31],
            [guard, layer2, 22, 32],
            [guard, layer2, 23, 33],
        ]
    };
    let mut suspects = Suspects::default();
    assert_eq!(after_broken(&mut suspects, &broken(1, 11)), behind(11));
    suspects.on_worked(&[1, 14, 21, 31].map(relay));
    let cleared = [11, 12].map(relay).to_vec();
    assert_eq!(
        after_broken(&mut suspects, &broken(1, 12)),
        Suspected::Guard { cleared }
    );
    assert!(suspects.is_suspect(relay(1), Instant::from_micros(0)));
    // Two guards have the same to say of two of them: it is those.
    assert_eq!(after_broken(&mut suspects, &broken(2, 11)), behind(11));
    suspects.on_worked(&[2, 14, 21, 31].map(relay));
    assert_eq!(after_broken(&mut suspects, &broken(2, 12)), behind(12));
    suspects.on_worked(&[1, 14, 21, 31].map(relay));
    assert_eq!(after_broken(&mut suspects, &broken(1, 11)), behind(11));
}

#[test] // §6.4(10)
fn a_hop_that_calls_several_relays_unreachable_is_suspected() {
    let after = |suspects: &mut Suspects, paths: &[[u8; 3]], may_be_guard| {
        let on_named = |suspects: &mut Suspects, path: &[u8; 3]| {
            When::at(WallTime(0))
                .act(|cx| suspects.on_named(cx, &path.map(relay), may_be_guard))
                .0
        };
        paths.iter().map(|path| on_named(suspects, path)).last()
    };
    let paths = [[1, 11, 21], [1, 11, 22], [1, 11, 21], [1, 11, 23]];
    let mut suspects = Suspects::default();
    assert_eq!(
        after(&mut suspects, &paths[..3], false),
        Some(Suspected::Nobody),
        "two relays may be down"
    );
    let cleared = [21, 22, 23].map(relay).to_vec();
    assert_eq!(
        after(&mut suspects, &paths[3..], false),
        Some(Suspected::Behind {
            relay: relay(11),
            cleared
        })
    );
    let mut suspects = Suspects::default();
    after(&mut suspects, &paths[..3], false);
    suspects.on_extended(&[1, 11].map(relay));
    assert_eq!(
        after(&mut suspects, &paths[3..], false),
        Some(Suspected::Nobody),
        "it had one meanwhile"
    );
}
