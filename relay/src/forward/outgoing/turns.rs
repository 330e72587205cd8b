//! Cells that wait on one link, by circuit. The circuits with cells to send take turns, one cell at
//! a time (§4.4(6)).
//!
//! So a circuit that sends little waits for at most one cell of each of the others, however many
//! they have waiting. The link's own cells come first. Cells of one circuit keep their order; cells
//! of different circuits have none.
//!
//! All cells lie in one slab, and each circuit's are a list through it: a circuit that comes and
//! goes allocates nothing.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use umbel_proto::cell::{Cell, Command};
use umbel_proto::ids::CircId;

use crate::forward::CircMap;

/// The cells of one link's queue.
#[derive(Debug, Default)]
pub(super) struct Turns {
    slab: Slab,
    /// The link's own cells.
    link: VecDeque<Cell>,
    /// The circuits with cells that wait.
    waiting: CircMap<Waiting>,
    /// The same circuits, in the order of their turns.
    order: VecDeque<CircId>,
    len: usize,
}

/// One circuit's cells: a list through the slab.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    first: usize,
    last: usize,
    relay_count: u32,
}

impl Turns {
    /// How many cells wait.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The circuit with most relay cells that wait, if any has some; of equals the one with the
    /// highest id, so that a simulation repeats.
    pub(super) fn longest(&self) -> Option<CircId> {
        let (&circ, longest) = self
            .waiting
            .iter()
            .max_by_key(|(circ, waiting)| (waiting.relay_count, **circ))?;
        (longest.relay_count > 0).then_some(circ)
    }

    /// Puts a cell of the link itself behind the others of its kind.
    pub(super) fn push_link(&mut self, cell: Cell) {
        self.link.push_back(cell);
        self.len += 1;
    }

    /// Puts a cell that begins or ends a circuit behind the others of that circuit.
    pub(super) fn push_control(&mut self, circ: CircId, cell: Cell) {
        self.push(circ, cell, 0);
    }

    /// Puts a relay cell behind the others of its circuit.
    ///
    /// # Errors
    /// So many wait already; the cell comes back.
    pub(super) fn push_relay(
        &mut self,
        circ: CircId,
        cell: Cell,
        count_max: u32,
    ) -> Result<(), Cell> {
        if self
            .waiting
            .get(&circ)
            .is_some_and(|waiting| waiting.relay_count >= count_max)
        {
            return Err(cell);
        }
        self.push(circ, cell, 1);
        Ok(())
    }

    fn push(&mut self, circ: CircId, cell: Cell, relay_count: u32) {
        let index = self.slab.insert(cell);
        self.len += 1;
        match self.waiting.entry(circ) {
            Entry::Occupied(mut waiting) => {
                let waiting = waiting.get_mut();
                self.slab.link(waiting.last, index);
                waiting.last = index;
                waiting.relay_count += relay_count;
            }
            Entry::Vacant(place) => {
                place.insert(Waiting {
                    first: index,
                    last: index,
                    relay_count,
                });
                self.order.push_back(circ);
            }
        }
    }

    /// The next cell to be sent.
    pub(super) fn pop(&mut self) -> Option<Cell> {
        let cell = self.link.pop_front().or_else(|| self.pop_turn())?;
        self.len -= 1;
        Some(cell)
    }

    fn pop_turn(&mut self) -> Option<Cell> {
        let circ = self.order.pop_front()?;
        let waiting = self.waiting.get_mut(&circ)?;
        let (cell, next) = self.slab.remove(waiting.first)?;
        match next {
            Some(next) => {
                waiting.first = next;
                waiting.relay_count -= u32::from(is_relay(&cell));
                self.order.push_back(circ);
            }
            None => {
                self.waiting.remove(&circ);
            }
        }
        Some(cell)
    }

    /// Takes all cells of a circuit out, into `removed`.
    pub(super) fn remove(&mut self, circ: CircId, removed: &mut Vec<Cell>) {
        let Some(waiting) = self.waiting.remove(&circ) else {
            return;
        };
        self.order.retain(|&other| other != circ);
        let mut at = Some(waiting.first);
        while let Some((cell, next)) = at.and_then(|index| self.slab.remove(index)) {
            removed.push(cell);
            self.len -= 1;
            at = next;
        }
    }

    /// Gives back memory that is only there because more waited before.
    pub(super) fn shrink(&mut self) {
        if self.len == 0 {
            *self = Self::default();
        }
    }
}

fn is_relay(cell: &Cell) -> bool {
    matches!(cell.header(), Ok((_, Command::Relay)))
}

/// Cells in lists. A place that becomes free is used again.
#[derive(Debug, Default)]
struct Slab {
    places: Vec<Place>,
    free: Vec<usize>,
}

/// A cell, if the place is taken, and the place of the next one in its list.
#[derive(Debug)]
struct Place {
    cell: Option<Cell>,
    next: Option<usize>,
}

impl Slab {
    fn insert(&mut self, cell: Cell) -> usize {
        let place = Place {
            cell: Some(cell),
            next: None,
        };
        if let Some(index) = self.free.pop()
            && let Some(free) = self.places.get_mut(index)
        {
            *free = place;
            return index;
        }
        self.places.push(place);
        self.places.len() - 1
    }

    /// Says what comes after a place.
    fn link(&mut self, index: usize, next: usize) {
        if let Some(place) = self.places.get_mut(index) {
            place.next = Some(next);
        }
    }

    /// The cell of a place, which becomes free, and what comes after it.
    fn remove(&mut self, index: usize) -> Option<(Cell, Option<usize>)> {
        let place = self.places.get_mut(index)?;
        let (cell, next) = (place.cell.take()?, place.next);
        self.free.push(index);
        Some((cell, next))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn circ(number: u32) -> CircId {
        CircId::new(number).unwrap()
    }

    /// A cell that says which one of its circuit it is.
    fn cell(number: u32, index: u8) -> Cell {
        let mut cell = Cell::new(Some(circ(number)), Command::Relay);
        cell.body_mut()[0] = index;
        cell
    }

    fn push(turns: &mut Turns, number: u32, indexes: impl IntoIterator<Item = u8>) {
        for index in indexes {
            assert!(
                turns
                    .push_relay(circ(number), cell(number, index), 1000)
                    .is_ok()
            );
        }
    }

    fn pop(turns: &mut Turns) -> Option<(u32, u8)> {
        let cell = turns.pop()?;
        Some((
            cell.header().unwrap().0.map_or(0, CircId::number),
            cell.body()[0],
        ))
    }

    #[test] // §4.4(6)
    fn a_quiet_circuit_waits_for_one_cell_of_each_other() {
        let mut turns = Turns::default();
        push(&mut turns, 1, 0..100);
        push(&mut turns, 2, 0..100);
        push(&mut turns, 3, 0..1);
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut turns)).take(5).collect();
        assert_eq!(order, [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1)]);
        push(&mut turns, 3, 1..2);
        let next: Vec<_> = std::iter::from_fn(|| pop(&mut turns)).take(3).collect();
        assert_eq!(next, [(1, 2), (2, 2), (3, 1)]);
    }

    #[test]
    fn what_belongs_to_the_link_comes_first() {
        let mut turns = Turns::default();
        push(&mut turns, 1, 0..2);
        turns.push_link(Cell::new(None, Command::Padding));
        assert_eq!(
            [pop(&mut turns), pop(&mut turns)],
            [Some((0, 0)), Some((1, 0))]
        );
        assert_eq!(turns.len(), 1);
    }

    #[test] // §4.4(6)
    fn every_cell_comes_out_once_and_in_its_circuits_order() {
        let mut turns = Turns::default();
        for index in 0..=255 {
            push(&mut turns, u32::from(index % 7) + 1, [index]);
            if index % 3 == 0 {
                turns.pop().unwrap();
            }
        }
        let mut last = BTreeMap::new();
        let mut count = 0;
        while let Some((number, index)) = pop(&mut turns) {
            assert!(
                last.insert(number, index)
                    .is_none_or(|before| before < index)
            );
            count += 1;
        }
        assert_eq!((count, turns.len(), turns.longest()), (256 - 86, 0, None));
        assert!(turns.order.is_empty() && turns.waiting.is_empty());
    }

    #[test]
    fn a_circuit_is_taken_out_whole_and_the_others_stay() {
        let mut turns = Turns::default();
        push(&mut turns, 1, 0..3);
        push(&mut turns, 2, 0..5);
        assert_eq!((turns.longest(), turns.len()), (Some(circ(2)), 8));
        let mut removed = Vec::new();
        turns.remove(circ(2), &mut removed);
        turns.remove(circ(2), &mut removed);
        assert_eq!(
            (removed.len(), turns.len(), turns.longest()),
            (5, 3, Some(circ(1)))
        );
        assert_eq!(
            std::iter::from_fn(|| pop(&mut turns)).collect::<Vec<_>>(),
            [(1, 0), (1, 1), (1, 2)]
        );
    }

    #[test]
    fn of_circuits_that_are_equally_long_the_same_one_is_named_in_every_run() {
        let mut turns = Turns::default();
        (1..=50).for_each(|number| push(&mut turns, number, [0, 1]));
        assert_eq!(turns.longest(), Some(circ(50)));
    }

    #[test]
    fn only_relay_cells_count_against_a_circuit() {
        let mut turns = Turns::default();
        turns.push_control(circ(1), Cell::new(Some(circ(1)), Command::Created));
        assert_eq!(turns.longest(), None);
        push(&mut turns, 1, 0..2);
        assert!(turns.push_relay(circ(1), cell(1, 9), 2).is_err());
        assert_eq!(turns.longest(), Some(circ(1)));
        turns.pop();
        assert!(
            turns.push_relay(circ(1), cell(1, 9), 2).is_err(),
            "what was sent did not count"
        );
        turns.pop();
        assert!(turns.push_relay(circ(1), cell(1, 9), 2).is_ok());
        assert_eq!(turns.len(), 2);
    }

    #[test]
    fn memory_is_used_again_and_given_back_when_asked() {
        let mut turns = Turns::default();
        for _ in 0..3 {
            (1..=200).for_each(|number| push(&mut turns, number, [0, 1]));
            turns.shrink();
            assert_eq!(
                (turns.len(), turns.slab.places.len()),
                (400, 400),
                "nothing that waits is lost"
            );
            while turns.pop().is_some() {}
        }
        turns.shrink();
        assert_eq!(
            turns.slab.places.capacity() + turns.waiting.capacity() + turns.order.capacity(),
            0
        );
    }
}
