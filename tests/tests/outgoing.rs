//! What waits in the queues of the simulated relays: circuits take turns, and one that overruns is
//! broken alone.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::Violation;
use umbel_proto::ids::CircId;
use umbel_proto::limits::CIRCUIT_QUEUE_CELLS_MAX;
use umbel_proto::link::LinkId;
use umbel_proto::time::Duration;
use umbel_tests::adversary::Adversary;
use umbel_tests::scenario::{ALICE, BOB, has_come, listen};
use umbel_tests::shells::relay::Turn;
use umbel_tests::{ClientName, RelayName, Tampering, World};

/// Why circuits broke, at all relays.
fn broken(world: &World) -> Vec<Violation> {
    let relays = world.all_relays().iter();
    relays.flat_map(|relay| relay.broken.clone()).collect()
}

#[test] // §4.4(5)
fn a_circuit_waits_for_one_cell_of_each_other_and_no_more() {
    let mut world = World::new(701).relays(8).clients(3);
    let address = world.create_inbox(BOB, "help");
    listen(&mut world, true);
    world.run_for(Duration::from_secs(3));
    world.network().cell_time = Duration::from_millis(5);
    (0..8).for_each(|number| world.relay(RelayName(number)).turns = Some(Vec::new()));
    let sent: Vec<_> = (0..4)
        .map(|number| world.send(ALICE, &address, vec![number; 30_000]))
        .collect();
    world.create_inbox(ClientName(2), "another");
    let all = |world: &World| sent.iter().all(|&id| has_come(world, id));
    world.expect_within(Duration::from_secs(240), all);
    assert_eq!(world.cells.dropped, 0);
    let relays = world.all_relays().iter();
    let overtaken: usize = relays
        .map(|relay| overtaken(relay.turns.as_deref().unwrap()))
        .sum();
    assert!(overtaken > 100, "{overtaken}");
}

/// How often a cell was written while one of another circuit waited at that link.
///
/// # Panics
/// A circuit waited for two cells of another between two of its own.
fn overtaken(turns: &[Turn]) -> usize {
    let mut waiting: BTreeMap<(LinkId, CircId), usize> = BTreeMap::new();
    let mut passed: BTreeSet<(LinkId, CircId, CircId)> = BTreeSet::new();
    let mut count = 0;
    for &turn in turns {
        match turn {
            Turn::Queued(link, circ) => *waiting.entry((link, circ)).or_default() += 1,
            Turn::Written(link, circ) => {
                passed.retain(|&(on, waits, _)| (on, waits) != (link, circ));
                match waiting.get(&(link, circ)) {
                    Some(&count) if count > 1 => waiting.insert((link, circ), count - 1),
                    _ => waiting.remove(&(link, circ)),
                };
                let others = waiting
                    .keys()
                    .filter(|&&(on, other)| on == link && other != circ);
                for &(_, other) in others {
                    count += 1;
                    assert!(
                        passed.insert((link, other, circ)),
                        "{other:?} waits for {circ:?}"
                    );
                }
            }
        }
    }
    count
}

#[test] // §4.4(5): a flood toward an origin passes unread until a queue overruns
fn a_circuit_that_overruns_a_queue_is_broken_alone_and_messages_go_on() {
    let mut overruns = 0;
    for seed in 710..720 {
        let mut world = World::new(seed).relays(8).clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, true);
        world.run_for(Duration::from_secs(3));
        let hostile = RelayName(usize::try_from(seed).unwrap() % 8);
        let flood = Tampering::Flood(CIRCUIT_QUEUE_CELLS_MAX as usize + 1000);
        world.relay(hostile).adversary = Some(Adversary::new(flood, 0));
        let sent: Vec<_> = (0..6)
            .map(|number| world.send(ALICE, &address, vec![number; 9000]))
            .collect();
        let all = |world: &World| sent.iter().all(|&id| has_come(world, id));
        world.expect_within(Duration::from_secs(240), all);
        match broken(&world).as_slice() {
            [] => {}               // the flood met a client, or the relay was on no way
            [Violation::Tag] => {} // it met the next relay away from the origin
            [Violation::Window] => {
                assert!(world.cells.dropped > u64::from(CIRCUIT_QUEUE_CELLS_MAX));
                overruns += 1;
            }
            others => panic!("{others:?}; {}", world.describe()),
        }
    }
    assert!(overruns > 0, "no flood met a queue");
}
