//! How a circuit begins and ends, as its links and the other machines see it.

use umbel_proto::handshake::ONIONSKIN_LEN;

use super::super::testing::Bench;
use super::*;

fn circ(number: u32) -> CircId {
    CircId::new(number | 1 << 31).unwrap()
}

fn create(bench: &mut Bench, circuits: &mut Circuits, link: LinkId, number: u32) {
    let mut cell = Cell::new(Some(circ(number)), Command::Create);
    Onionskin([5; ONIONSKIN_LEN]).write_create_body(cell.body_mut());
    circuits.handle_cell(&mut bench.context(), link, cell);
}

fn sent(bench: &mut Bench) -> Vec<(CircId, Command)> {
    let cells = bench.shared.out.cells.drain(..);
    let headers = cells.map(|(_, cell)| cell.header().unwrap());
    headers
        .map(|(circ, command)| (circ.unwrap(), command))
        .collect()
}

#[test] // §4.4
fn a_circuit_is_destroyed_once_and_leaves_nothing() {
    let (mut bench, mut circuits) = (Bench::new(0), Circuits::default());
    let link = bench.link(1);
    create(&mut bench, &mut circuits, link, 1);
    assert_eq!((circuits.len(), circuits.end_count()), (1, 1));
    for _ in 0..2 {
        let mut cx = bench.context();
        circuits.destroy(&mut cx, link, circ(1), DestroyReason::Finished);
    }
    assert_eq!(sent(&mut bench), [(circ(1), Command::Destroy)]);
    assert_eq!(bench.shared.out.tables.len(), 1, "its entry is removed");
    assert_eq!((circuits.len(), circuits.end_count()), (0, 0));
    assert_eq!(circuits.check(), Ok(()));
}

#[test] // §4.4(3), §4.2(1)
fn a_destroy_from_the_peer_is_not_answered_and_late_cells_are_stale() {
    let (mut bench, mut circuits) = (Bench::new(0), Circuits::default());
    let link = bench.link(1);
    create(&mut bench, &mut circuits, link, 1);
    for _ in 0..2 {
        let destroy = Cell::destroy(circ(1), DestroyReason::Finished);
        circuits.handle_cell(&mut bench.context(), link, destroy);
    }
    assert!(sent(&mut bench).is_empty());
    assert_eq!(bench.shared.stats.stale_cells, 1);
}

#[test] // §2.3(2), §2.3(3), §4.1(1)
fn a_create_under_an_id_of_ours_or_one_in_use_closes_the_link() {
    for misused in [0, 1] {
        let (mut bench, mut circuits) = (Bench::new(0), Circuits::default());
        let link = bench.link(1);
        create(&mut bench, &mut circuits, link, 1);
        let mut cell = Cell::new(CircId::new(5), Command::Create);
        if misused == 1 {
            cell = Cell::new(Some(circ(1)), Command::Create);
        }
        circuits.handle_cell(&mut bench.context(), link, cell);
        assert!(!bench.shared.links.is_open(link));
        assert_eq!(bench.shared.stats.violations, 1);
    }
}

#[test] // §2.3(1)
fn a_circuit_id_means_nothing_on_another_link() {
    let (mut bench, mut circuits) = (Bench::new(0), Circuits::default());
    let (link, other) = (bench.link(1), bench.link(2));
    create(&mut bench, &mut circuits, link, 1);
    create(&mut bench, &mut circuits, other, 1);
    assert_eq!(circuits.len(), 2);
    let destroy = Cell::destroy(circ(1), DestroyReason::Finished);
    circuits.handle_cell(&mut bench.context(), link, destroy);
    assert!(circuits.is_unused(link) && !circuits.is_unused(other));
}

#[test] // §4.1(1)
fn circuits_are_refused_beyond_their_limit() {
    let (mut bench, mut circuits) = (Bench::new(0), Circuits::default());
    let link = bench.link(1);
    for number in 1..=9 {
        create(&mut bench, &mut circuits, link, number);
    }
    assert_eq!(circuits.len(), bench.shared.config.circuits_max);
    assert_eq!(sent(&mut bench), [(circ(9), Command::Destroy)]);
    assert_eq!(bench.shared.stats.refused, 1);
}
