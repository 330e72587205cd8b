//! What waits to be sent on a link: written to by any link's task and by the control plane, a batch
//! with one lock; emptied by the task that owns the link. Circuits take [`Turns`].
//!
//! Policies, when there is too much (docs/operating.md):
//! * A circuit with more relay cells waiting than its window can explain is broken: its cells are
//!   dropped, and the control plane is told that it broke
//!   [`Violation::Window`](umbel_proto::Violation::Window).
//! * A queue over [`LINK_QUEUE_CELLS_MAX`], or any queue that grows while the relay is over its
//!   memory budget, breaks the circuit that has most relay cells waiting in it.
//! * A queue too long without any circuit to blame belongs to a peer that does not read: its link
//!   is closed.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use umbel_proto::cell::{Cell, Command};
use umbel_proto::ids::CircId;
use umbel_proto::limits::{CELL_LEN, WINDOW_MAX_CELLS};
use umbel_proto::link::LinkId;

use super::turns::Turns;

/// Most relay cells of one circuit that wait on one link: its largest window, and what is not
/// counted by windows (credits, extends, padding).
pub(crate) const CIRCUIT_CELLS_MAX: u32 = WINDOW_MAX_CELLS as u32 + 64;
/// Most cells that wait on one link: 16 MiB.
pub(crate) const LINK_QUEUE_CELLS_MAX: usize = 8192;

const _: () = assert!(CIRCUIT_CELLS_MAX as usize <= LINK_QUEUE_CELLS_MAX);

/// How many cells may wait in all queues of a relay together.
pub(crate) struct Budget {
    used_cells: AtomicUsize,
    max_cells: usize,
}

impl Budget {
    /// A budget of `max_bytes`.
    pub(crate) const fn new(max_bytes: usize) -> Self {
        Self {
            used_cells: AtomicUsize::new(0),
            max_cells: max_bytes / CELL_LEN,
        }
    }

    /// Cells that wait now.
    pub(crate) fn used_cells(&self) -> usize {
        self.used_cells.load(Ordering::Relaxed)
    }

    fn charge(&self, cells: usize) {
        self.used_cells.fetch_add(cells, Ordering::Relaxed);
    }

    /// Whoever took cells from a queue calls this once they are written, or dropped.
    pub(crate) fn release(&self, cells: usize) {
        self.used_cells.fetch_sub(cells, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.used_cells() > self.max_cells
    }
}

/// One link's queue.
pub(crate) struct LinkQueue {
    link: LinkId,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    turns: Turns,
    /// Circuits that overran, until the control plane destroys them: their cells are not taken.
    broken: HashSet<CircId>,
    phase: Phase,
    waker: Option<Waker>,
}

/// How far a link's life has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Phase {
    /// Cells are taken and sent.
    #[default]
    Open,
    /// What waits is sent, then the link is closed.
    Closing,
    /// Nothing is taken nor sent.
    Closed,
}

/// What became of cells that were pushed, beside those that wait now. Kept by whoever pushes, and
/// used again.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    /// Cells that were not taken: buffers to be used again.
    pub(crate) dropped: Vec<Cell>,
    /// Circuits, by their id on this link, that were broken by the push.
    pub(crate) broken: Vec<CircId>,
}

impl LinkQueue {
    /// An empty queue of the link `link`.
    pub(crate) fn new(link: LinkId, budget: Arc<Budget>) -> Self {
        Self {
            link,
            budget,
            state: Mutex::default(),
        }
    }

    /// Which link's queue this is.
    pub(crate) const fn link(&self) -> LinkId {
        self.link
    }

    /// What the waiting cells are charged to.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Puts each cell behind those of its circuit. `pushed` is added to.
    pub(crate) fn push(&self, cells: impl IntoIterator<Item = Cell>, pushed: &mut Pushed) {
        let mut state = self.lock();
        let before = state.turns.len();
        for cell in cells {
            state.push(cell, pushed);
        }
        let after = state.turns.len();
        self.budget.charge(after.saturating_sub(before));
        self.budget.release(before.saturating_sub(after)); // a circuit may have been broken
        self.break_longest(&mut state, pushed);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves up to `room` cells to the end of `batch`, and has the task woken for the next.
    pub(crate) fn take(&self, cx: &Context<'_>, batch: &mut VecDeque<Cell>, room: usize) -> Phase {
        let mut state = self.lock();
        batch.extend(std::iter::from_fn(|| state.turns.pop()).take(room));
        if !state
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            state.waker = Some(cx.waker().clone());
        }
        state.phase
    }

    /// Wakes the link's task: it has something to do besides sending.
    pub(crate) fn wake(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Gives back memory that a quiet link does not need.
    pub(crate) fn shrink(&self) {
        self.lock().turns.shrink();
    }

    /// The link is to be closed once what waits is sent.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.phase = state.phase.max(Phase::Closing);
        drop(state);
        self.wake();
    }

    /// The link is gone: what waits is dropped, and nothing more is taken.
    pub(crate) fn shut(&self) {
        let dropped = self.lock().shut();
        self.budget.release(dropped.len());
    }

    /// Keeps the queue and the relay within their limits.
    fn break_longest(&self, state: &mut State, pushed: &mut Pushed) {
        while state.turns.len() > LINK_QUEUE_CELLS_MAX || self.budget.is_over() {
            match state.turns.longest() {
                Some(circ) => self.budget.release(state.break_circuit(circ, pushed)),
                None if state.turns.len() > LINK_QUEUE_CELLS_MAX => {
                    let waker = state.waker.take();
                    self.budget.release(state.shut().len());
                    state.waker = waker;
                }
                None => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, cell: Cell, pushed: &mut Pushed) {
        if self.phase == Phase::Closed {
            pushed.dropped.push(cell); // a race with the end of the link; the control plane hears of that end
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
        } else if let Err(cell) = self.turns.push_relay(circ, cell, CIRCUIT_CELLS_MAX) {
            self.break_circuit(circ, pushed);
            pushed.dropped.push(cell);
        }
    }

    /// Drops the cells of a circuit that wait, and takes no more of it. Says how many they were.
    fn break_circuit(&mut self, circ: CircId, pushed: &mut Pushed) -> usize {
        let before = self.turns.len();
        self.turns.remove(circ, &mut pushed.dropped);
        self.broken.insert(circ);
        pushed.broken.push(circ);
        before - self.turns.len()
    }

    /// Forgets everything, and takes nothing more. Returns the cells that waited.
    fn shut(&mut self) -> Turns {
        std::mem::replace(
            self,
            Self {
                phase: Phase::Closed,
                ..Self::default()
            },
        )
        .turns
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::cell::DestroyReason;

    use super::*;

    fn circ(number: u32) -> CircId {
        CircId::new(number).unwrap()
    }

    fn relay(number: u32, count: usize) -> Vec<Cell> {
        (0..count)
            .map(|_| Cell::new(Some(circ(number)), Command::Relay))
            .collect()
    }

    fn queue(max_cells: usize) -> LinkQueue {
        LinkQueue::new(LinkId(1), Arc::new(Budget::new(max_cells * CELL_LEN)))
    }

    fn push(queue: &LinkQueue, cells: Vec<Cell>) -> Pushed {
        let mut pushed = Pushed::default();
        queue.push(cells, &mut pushed);
        pushed
    }

    fn take(queue: &LinkQueue, room: usize) -> (Vec<Cell>, Phase) {
        let mut batch = VecDeque::new();
        let phase = queue.take(&Context::from_waker(Waker::noop()), &mut batch, room);
        queue.budget.release(batch.len());
        (batch.into(), phase)
    }

    #[test]
    fn circuits_take_turns_and_the_budget_is_paid_back() {
        let queue = queue(1000);
        push(&queue, relay(1, 3));
        push(&queue, relay(2, 2));
        assert_eq!(queue.budget.used_cells(), 5);
        let (first, _) = take(&queue, 4);
        let order: Vec<_> = first
            .iter()
            .map(|cell| cell.header().unwrap().0.unwrap().number())
            .collect();
        assert_eq!(order, [1, 2, 1, 2]);
        assert_eq!(take(&queue, 4).0.len(), 1);
        assert_eq!(queue.budget.used_cells(), 0);
        assert_eq!(queue.lock().turns.len(), 0);
    }

    #[test]
    fn a_circuit_over_its_cap_is_broken_until_it_is_destroyed_and_no_other_suffers() {
        let queue = queue(10_000);
        push(&queue, relay(2, 1));
        assert!(
            push(&queue, relay(1, CIRCUIT_CELLS_MAX as usize))
                .broken
                .is_empty()
        );
        let pushed = push(&queue, relay(1, 1));
        assert_eq!(
            (pushed.broken, pushed.dropped.len()),
            (vec![circ(1)], 1 + CIRCUIT_CELLS_MAX as usize)
        );
        let pushed = push(&queue, relay(1, 1));
        assert_eq!((pushed.broken.len(), pushed.dropped.len()), (0, 1));
        push(
            &queue,
            vec![Cell::destroy(circ(1), DestroyReason::Protocol)],
        );
        assert!(push(&queue, relay(1, 1)).dropped.is_empty());
        assert_eq!(
            (take(&queue, 10).0.len(), queue.budget.used_cells()),
            (3, 0)
        );
    }

    #[test]
    fn over_the_budget_the_longest_circuit_of_the_queue_is_broken() {
        let queue = queue(20);
        push(&queue, relay(1, 4));
        push(&queue, relay(2, 12));
        let pushed = push(&queue, relay(3, 5));
        assert_eq!(pushed.broken, [circ(2)]);
        assert_eq!(queue.budget.used_cells(), 9);
    }

    #[test]
    fn over_the_budget_quiet_circuits_go_too_and_a_queue_of_others_cells_stays() {
        let budget = Arc::new(Budget::new(5 * CELL_LEN));
        let silent = LinkQueue::new(LinkId(1), Arc::clone(&budget));
        let other = LinkQueue::new(LinkId(2), Arc::clone(&budget));
        push(
            &silent,
            (1..=5).flat_map(|number| relay(number, 1)).collect(),
        );
        assert_eq!(push(&other, relay(1, 1)).broken, [circ(1)]);
        assert!(
            push(
                &other,
                vec![Cell::destroy(circ(1), DestroyReason::Protocol)]
            )
            .broken
            .is_empty()
        );
        assert_eq!(
            budget.used_cells(),
            6,
            "the end of a circuit is told all the same"
        );
        let broken = push(&silent, relay(6, 2)).broken;
        assert_eq!(
            (broken[0], broken.len(), budget.used_cells()),
            (circ(6), 2, 5)
        );
    }

    #[test]
    fn a_queue_too_long_breaks_its_longest_circuit_or_closes_its_link() {
        let queue = queue(100_000);
        for number in 1..=16 {
            push(&queue, relay(number, 500));
        }
        push(&queue, relay(17, 192));
        assert_eq!(push(&queue, relay(17, 1)).broken.len(), 1);

        let silent = LinkQueue::new(LinkId(2), Arc::new(Budget::new(100_000 * CELL_LEN)));
        let created = |number| Cell::new(Some(circ(number)), Command::Created);
        push(
            &silent,
            (1..).take(LINK_QUEUE_CELLS_MAX).map(created).collect(),
        );
        assert_eq!(take(&silent, 0).1, Phase::Open);
        push(&silent, vec![created(u32::MAX)]);
        assert_eq!(
            (take(&silent, 0).1, silent.budget.used_cells()),
            (Phase::Closed, 0)
        );
    }

    #[test]
    fn a_closing_link_still_sends_and_a_closed_one_takes_nothing() {
        let queue = queue(100);
        push(&queue, relay(1, 2));
        queue.close();
        let (cells, phase) = take(&queue, 10);
        assert_eq!((cells.len(), phase), (2, Phase::Closing));
        push(&queue, relay(1, 2));
        queue.shut();
        assert_eq!(push(&queue, relay(1, 2)).dropped.len(), 2);
        assert_eq!(
            (take(&queue, 10).1, queue.budget.used_cells()),
            (Phase::Closed, 0)
        );
    }
}
