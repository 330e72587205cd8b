//! One link's queue. Circuits take [`Turns`].
//!
//! Policies when there is too much (docs/operating.md):
//! * A circuit with more relay cells waiting than its window can explain is broken: its cells are
//!   dropped, and the control plane hears that it broke
//!   [`Violation::Window`](umbel_proto::Violation::Window).
//! * A queue over [`LINK_QUEUE_CELLS_MAX`], or any queue that grows while the relay is over its
//!   memory budget, breaks the circuit that has most relay cells waiting in it.
//! * A queue too long without any circuit to blame belongs to a peer that does not read: the queue
//!   closes, and its link with it.

use std::collections::BTreeSet;

use umbel_proto::cell::{Cell, Command};
use umbel_proto::ids::CircId;
use umbel_proto::limits::CIRCUIT_QUEUE_CELLS_MAX;

use super::budget::Budget;
use super::turns::Turns;

/// Most cells that wait on one link: 16 MiB.
pub const LINK_QUEUE_CELLS_MAX: usize = 8192;

const _: () = assert!(CIRCUIT_QUEUE_CELLS_MAX as usize <= LINK_QUEUE_CELLS_MAX);

/// One link's queue. Its holder charges every call to the same [`Budget`].
#[derive(Debug, Default)]
pub struct Outgoing {
    turns: Turns,
    /// Circuits that overran, until the control plane destroys them: their cells are not taken.
    broken: BTreeSet<CircId>,
    phase: Phase,
}

/// How far a link's life has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Cells are taken and sent.
    #[default]
    Open,
    /// The queued cells are sent, then the link is closed.
    Closing,
    /// Nothing is taken nor sent.
    Closed,
}

/// The fate of pushed cells that do not wait now. The caller keeps it and uses it again.
#[derive(Debug, Default)]
pub struct Pushed {
    /// Cells that were not taken: buffers to be used again.
    pub dropped: Vec<Cell>,
    /// Circuits, by their id on this link, that were broken by the push.
    pub broken: Vec<CircId>,
}

impl Outgoing {
    /// The queue of a link that is gone: it takes nothing and sends nothing.
    pub fn closed() -> Self {
        Self {
            phase: Phase::Closed,
            ..Self::default()
        }
    }

    /// How many cells wait.
    pub const fn len(&self) -> usize {
        self.turns.len()
    }

    /// Whether no cell waits.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts each cell behind those of its circuit, then keeps the queue and the relay within their
    /// limits. `pushed` is added to.
    pub fn push(
        &mut self,
        cells: impl IntoIterator<Item = Cell>,
        budget: &Budget,
        pushed: &mut Pushed,
    ) {
        let before = self.len();
        for cell in cells {
            self.push_one(cell, pushed);
        }
        let after = self.len();
        budget.charge(after.saturating_sub(before));
        budget.release(before.saturating_sub(after)); // a circuit may have been broken
        self.break_longest(budget, pushed);
    }

    /// Moves up to `room` cells to the end of `batch`. They stay in the budget until the caller has
    /// written them and calls [`Budget::release`].
    pub fn take(&mut self, batch: &mut impl Extend<Cell>, room: usize) -> Phase {
        batch.extend(std::iter::from_fn(|| self.turns.pop()).take(room));
        self.phase
    }

    /// Gives back memory that a quiet link does not need.
    pub fn shrink(&mut self) {
        self.turns.shrink();
    }

    /// Closes the link once the queued cells are sent.
    pub fn close(&mut self) {
        self.phase = self.phase.max(Phase::Closing);
    }

    /// The link is gone: takes nothing more. Returns the cells that waited, for the caller to drop
    /// outside any lock; they are no longer in the budget.
    pub fn shut(&mut self, budget: &Budget) -> Self {
        let waited = std::mem::replace(self, Self::closed());
        budget.release(waited.len());
        waited
    }

    fn break_longest(&mut self, budget: &Budget, pushed: &mut Pushed) {
        while self.len() > LINK_QUEUE_CELLS_MAX || budget.is_over() {
            match self.turns.longest() {
                Some(circ) => budget.release(self.break_circuit(circ, pushed)),
                None if self.len() > LINK_QUEUE_CELLS_MAX => drop(self.shut(budget)),
                None => return,
            }
        }
    }

    fn push_one(&mut self, cell: Cell, pushed: &mut Pushed) {
        if self.phase == Phase::Closed {
            // A race with the end of the link; the control plane hears of that end.
            pushed.dropped.push(cell);
            return;
        }
        match cell.header() {
            Ok((Some(circ), Command::Relay)) => self.push_relay(circ, cell, pushed),
            Ok((Some(circ), _)) => {
                // The circuit is over, or its id begins anew: either way the control plane knows.
                self.broken.remove(&circ);
                self.turns.push_control(circ, cell);
            }
            _ => self.turns.push_link(cell),
        }
    }

    fn push_relay(&mut self, circ: CircId, cell: Cell, pushed: &mut Pushed) {
        if self.broken.contains(&circ) {
            pushed.dropped.push(cell);
        } else if let Err(cell) = self.turns.push_relay(circ, cell, CIRCUIT_QUEUE_CELLS_MAX) {
            self.break_circuit(circ, pushed);
            pushed.dropped.push(cell);
        }
    }

    /// Drops a circuit's waiting cells, and takes no more of them. Returns how many there were.
    fn break_circuit(&mut self, circ: CircId, pushed: &mut Pushed) -> usize {
        let before = self.len();
        self.turns.remove(circ, &mut pushed.dropped);
        self.broken.insert(circ);
        pushed.broken.push(circ);
        before - self.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use umbel_proto::cell::DestroyReason;
    use umbel_proto::limits::CELL_LEN;

    use super::*;

    fn circ(number: u32) -> CircId {
        CircId::new(number).unwrap()
    }

    fn relay(number: u32, count: usize) -> Vec<Cell> {
        (0..count)
            .map(|_| Cell::new(Some(circ(number)), Command::Relay))
            .collect()
    }

    /// A queue and what it is charged to.
    struct Queue {
        outgoing: Outgoing,
        budget: Arc<Budget>,
    }

    fn queue(max_cells: usize) -> Queue {
        queue_of(&Arc::new(Budget::new(max_cells * CELL_LEN)))
    }

    fn queue_of(budget: &Arc<Budget>) -> Queue {
        Queue {
            outgoing: Outgoing::default(),
            budget: Arc::clone(budget),
        }
    }

    fn push(queue: &mut Queue, cells: Vec<Cell>) -> Pushed {
        let mut pushed = Pushed::default();
        queue.outgoing.push(cells, &queue.budget, &mut pushed);
        pushed
    }

    fn take(queue: &mut Queue, room: usize) -> (Vec<Cell>, Phase) {
        let mut batch = Vec::new();
        let phase = queue.outgoing.take(&mut batch, room);
        queue.budget.release(batch.len());
        (batch, phase)
    }

    #[test] // §4.4(6)
    fn circuits_take_turns_and_the_budget_is_paid_back() {
        let mut queue = queue(1000);
        push(&mut queue, relay(1, 3));
        push(&mut queue, relay(2, 2));
        assert_eq!(queue.budget.used_cells(), 5);
        let (first, _) = take(&mut queue, 4);
        let order: Vec<_> = first
            .iter()
            .map(|cell| cell.header().unwrap().0.unwrap().number())
            .collect();
        assert_eq!(order, [1, 2, 1, 2]);
        assert_eq!(take(&mut queue, 4).0.len(), 1);
        assert_eq!(queue.budget.used_cells(), 0);
        assert_eq!(queue.outgoing.len(), 0);
    }

    #[test] // §4.4(5)
    fn a_circuit_over_its_cap_is_broken_until_it_is_destroyed() {
        let mut queue = queue(10_000);
        push(&mut queue, relay(2, 1));
        assert!(
            push(&mut queue, relay(1, CIRCUIT_QUEUE_CELLS_MAX as usize))
                .broken
                .is_empty()
        );
        let pushed = push(&mut queue, relay(1, 1));
        assert_eq!(
            (pushed.broken, pushed.dropped.len()),
            (vec![circ(1)], 1 + CIRCUIT_QUEUE_CELLS_MAX as usize)
        );
        let pushed = push(&mut queue, relay(1, 1));
        assert_eq!((pushed.broken.len(), pushed.dropped.len()), (0, 1));
        push(
            &mut queue,
            vec![Cell::destroy(circ(1), DestroyReason::Protocol)],
        );
        assert!(push(&mut queue, relay(1, 1)).dropped.is_empty());
        assert_eq!(
            (take(&mut queue, 10).0.len(), queue.budget.used_cells()),
            (3, 0)
        );
    }

    #[test]
    fn over_the_budget_the_longest_circuit_of_the_queue_is_broken() {
        let mut queue = queue(20);
        push(&mut queue, relay(1, 4));
        push(&mut queue, relay(2, 12));
        let pushed = push(&mut queue, relay(3, 5));
        assert_eq!(pushed.broken, [circ(2)]);
        assert_eq!(queue.budget.used_cells(), 9);
    }

    #[test]
    fn over_the_budget_quiet_circuits_are_broken_too() {
        let budget = Arc::new(Budget::new(5 * CELL_LEN));
        let mut silent = queue_of(&budget);
        let mut other = queue_of(&budget);
        push(
            &mut silent,
            (1..=5).flat_map(|number| relay(number, 1)).collect(),
        );
        assert_eq!(push(&mut other, relay(1, 1)).broken, [circ(1)]);
        assert!(
            push(
                &mut other,
                vec![Cell::destroy(circ(1), DestroyReason::Protocol)]
            )
            .broken
            .is_empty()
        );
        assert_eq!(
            budget.used_cells(),
            6,
            "the end of a circuit is sent even so"
        );
        let broken = push(&mut silent, relay(6, 2)).broken;
        assert_eq!(
            (broken[0], broken.len(), budget.used_cells()),
            (circ(6), 2, 5)
        );
    }

    #[test]
    fn a_queue_too_long_breaks_its_longest_circuit_or_closes_its_link() {
        let mut long = queue(100_000);
        for number in 1..=16 {
            push(&mut long, relay(number, 500));
        }
        push(&mut long, relay(17, 192));
        assert_eq!(push(&mut long, relay(17, 1)).broken.len(), 1);

        let mut silent = queue(100_000);
        let created = |number| Cell::new(Some(circ(number)), Command::Created);
        push(
            &mut silent,
            (1..).take(LINK_QUEUE_CELLS_MAX).map(created).collect(),
        );
        assert_eq!(take(&mut silent, 0).1, Phase::Open);
        push(&mut silent, vec![created(u32::MAX)]);
        assert_eq!(
            (take(&mut silent, 0).1, silent.budget.used_cells()),
            (Phase::Closed, 0)
        );
    }

    #[test]
    fn a_closing_link_still_sends_and_a_closed_one_takes_nothing() {
        let mut queue = queue(100);
        push(&mut queue, relay(1, 2));
        queue.outgoing.close();
        let (cells, phase) = take(&mut queue, 10);
        assert_eq!((cells.len(), phase), (2, Phase::Closing));
        push(&mut queue, relay(1, 2));
        queue.outgoing.shut(&queue.budget);
        assert_eq!(push(&mut queue, relay(1, 2)).dropped.len(), 2);
        assert_eq!(
            (take(&mut queue, 10).1, queue.budget.used_cells()),
            (Phase::Closed, 0)
        );
    }
}
