//! The cost of a cell in a relay that only passes it on: no allocation and no copy, in either
//! direction (docs/architecture.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking; its numbers are small"
)]

use std::ptr;

use allocation_counter::measure;
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::crypto::aead::LayerKey;
use umbel_proto::ids::CircId;
use umbel_proto::limits::{CELL_LEN, HOP_OVERHEAD_LEN, HOPS_MAX};
use umbel_proto::onion::origin::OriginLayers;
use umbel_proto::onion::transit::{AddLayer, PeelLayer, delivered_message};
use umbel_relay::forward::{LinkTable, Next, TableUpdate, Verdict};

/// Cells each way.
const CELLS: usize = 4000;
/// Other circuits in each table, so that its look-ups are real ones.
const OTHER_CIRCUITS: u32 = 500;
/// The hop that is measured: it passes cells both ways.
const MIDDLE: usize = 2;

/// The tables of one relay: of the link toward the origin, and of the link away from it.
struct Hop {
    from_origin: LinkTable<usize>,
    from_next: LinkTable<usize>,
}

fn key(direction: u8, hop: usize) -> LayerKey {
    LayerKey::from_bytes([direction + hop as u8; 32])
}

/// The circuit's id on the link between hop `hop` (the origin is 0) and the next.
fn circ(hop: usize) -> CircId {
    CircId::new(0x8000_0000 + 7 * hop as u32 + OTHER_CIRCUITS).unwrap()
}

/// Hop number `hop`; the last one is a terminal.
fn hop(hop: usize) -> Hop {
    let (mut from_origin, mut from_next) = (LinkTable::new(), LinkTable::new());
    for number in 1..=OTHER_CIRCUITS {
        from_origin.apply(TableUpdate::Own(CircId::new(number).unwrap()));
        from_next.apply(TableUpdate::Own(CircId::new(number).unwrap()));
    }
    from_origin.apply(TableUpdate::Terminate(
        circ(hop - 1),
        PeelLayer::new(key(10, hop)),
    ));
    if hop < HOPS_MAX {
        from_origin.apply(TableUpdate::Join(
            circ(hop - 1),
            Next {
                queue: hop + 1,
                circ: circ(hop),
            },
        ));
        let back = Next {
            queue: hop - 1,
            circ: circ(hop - 1),
        };
        from_next.apply(TableUpdate::Return(
            circ(hop),
            AddLayer::new(key(20, hop)),
            back,
        ));
    }
    Hop {
        from_origin,
        from_next,
    }
}

fn circuit() -> (OriginLayers, Vec<Hop>) {
    let mut origin = OriginLayers::new();
    (1..=HOPS_MAX).for_each(|hop| origin.push(key(10, hop), key(20, hop)));
    (origin, (1..=HOPS_MAX).map(hop).collect())
}

/// The cost of one cell, and where its bytes begin now, counted from where they began.
fn passed(table: &mut LinkTable<usize>, cell: &mut Cell, to: usize) -> (u64, usize) {
    let before = ptr::from_ref(cell.as_bytes()) as usize;
    let mut is_onward = false;
    let info = measure(|| {
        is_onward = matches!(table.handle_cell(cell), Verdict::Onward(&queue) if queue == to);
    });
    assert!(is_onward, "the cell goes on to hop {to}");
    (
        info.count_total,
        ptr::from_ref(cell.as_bytes()) as usize - before,
    )
}

/// As the next relay reads it from its socket.
fn arrived(cell: &Cell, buffer: &mut Cell) {
    buffer.recycle();
    *buffer.as_bytes_mut() = *cell.as_bytes();
}

#[test] // §3.2
fn a_cell_passed_forward_is_neither_copied_nor_allocated() {
    let (mut origin, mut hops) = circuit();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (mut cell, mut buffer) = (Cell::blank(), Cell::blank());
    for number in 0..CELLS {
        let message = number.to_be_bytes();
        cell.recycle();
        cell.set_header(Some(circ(0)), Command::Relay);
        origin.wrap(false, &message, cell.body_mut(), &mut rng);
        for hop in 1..HOPS_MAX {
            arrived(&cell, &mut buffer);
            let (allocations, moved) = passed(&mut hops[hop - 1].from_origin, &mut buffer, hop + 1);
            if hop == MIDDLE {
                assert_eq!(allocations, 0, "cell {number}");
                assert_eq!(moved, HOP_OVERHEAD_LEN, "its start moves, its bytes don't");
            }
            assert_eq!(buffer.header(), Ok((Some(circ(hop)), Command::Relay)));
            std::mem::swap(&mut cell, &mut buffer);
        }
        arrived(&cell, &mut buffer);
        let terminal = &mut hops[HOPS_MAX - 1].from_origin;
        assert!(matches!(
            terminal.handle_cell(&mut buffer),
            Verdict::Deliver(_)
        ));
        assert_eq!(delivered_message(&buffer), Ok(&message[..]));
    }
}

#[test] // §3.4
fn a_cell_passed_backward_is_neither_copied_nor_allocated() {
    let (mut origin, mut hops) = circuit();
    let mut terminal = AddLayer::new(key(20, HOPS_MAX));
    let mut cell = Cell::blank();
    for number in 0..CELLS {
        let message = number.to_be_bytes();
        cell.set_header(Some(circ(HOPS_MAX - 1)), Command::Relay);
        terminal.seal(&message, &mut cell);
        for hop in (1..HOPS_MAX).rev() {
            let (allocations, moved) = passed(&mut hops[hop - 1].from_next, &mut cell, hop - 1);
            if hop == MIDDLE {
                assert_eq!((allocations, moved), (0, 0), "cell {number}");
            }
            assert_eq!(cell.header(), Ok((Some(circ(hop - 1)), Command::Relay)));
        }
        let (_, read) = origin.unwrap(cell.body_mut()).unwrap();
        assert_eq!(read, message);
    }
}

#[test]
fn the_counter_counts() {
    let info = measure(|| drop(Cell::blank()));
    assert_eq!(info.count_total, 1);
    assert!(info.bytes_total >= CELL_LEN as u64);
}
