//! A link's part of the forwarding plane: a batch of cells through the [`LinkTable`], and each on
//! to where it goes.
//!
//! Cells that go to one link are pushed there together, with one lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use umbel_proto::Violation;
use umbel_proto::cell::Cell;
use umbel_proto::link::LinkId;

use super::Shared;
use super::conn::LinkEnd;
use super::pool::CellCache;
use super::queue::LinkQueue;
use crate::forward::outgoing::Pushed;
use crate::forward::{LinkEvent, LinkTable, TableUpdate, TableUpdates, Verdict};

/// The link's part of the forwarding plane, and what one batch of cells comes to.
pub(super) struct Forwarding {
    link: LinkId,
    table: LinkTable<Arc<LinkQueue>>,
    updates: Vec<TableUpdate<Arc<LinkQueue>>>,
    /// Cells of this batch by where they go, and emptied lists to be used again.
    onward: Vec<(Arc<LinkQueue>, Vec<Cell>)>,
    spare: Vec<Vec<Cell>>,
    pushed: Pushed,
    /// Events for the control plane.
    pub(super) events: Vec<(LinkId, LinkEvent)>,
}

impl Forwarding {
    /// A link without circuits.
    pub(super) fn new(link: LinkId) -> Self {
        Self {
            link,
            table: LinkTable::new(),
            updates: Vec::new(),
            onward: Vec::new(),
            spare: Vec::new(),
            pushed: Pushed::default(),
            events: Vec::new(),
        }
    }

    /// Takes what the control plane changed.
    pub(super) fn apply(&mut self, updates: &TableUpdates<Arc<LinkQueue>>) {
        updates.take(&mut self.updates);
        for update in self.updates.drain(..) {
            self.table.apply(update);
        }
    }

    /// Forwards a batch: cells before one that ends the link are still forwarded.
    pub(super) fn handle_cells(
        &mut self,
        received: &mut Vec<Cell>,
        cells: &mut CellCache,
        shared: &Shared,
    ) -> Result<(), LinkEnd> {
        let count = received.len();
        let mut stale = 0;
        let mut end = Ok(());
        for mut cell in received.drain(..) {
            match self.table.handle_cell(&mut cell) {
                Verdict::Onward(queue) => {
                    group(&mut self.onward, &mut self.spare, queue, cell);
                    continue;
                }
                told @ (Verdict::Deliver(_) | Verdict::Control | Verdict::Broken(..)) => {
                    let event = told.into_event(cell);
                    self.events.extend(event.map(|event| (self.link, event)));
                    continue;
                }
                Verdict::Padding => {}
                Verdict::Stale => stale += 1,
                Verdict::Close(violation) => {
                    end = Err(LinkEnd::Violation(violation));
                    break;
                }
            }
            cells.put(cell);
        }
        shared
            .counters
            .received_cells
            .fetch_add(count as u64, Ordering::Relaxed);
        shared
            .counters
            .stale_cells
            .fetch_add(stale, Ordering::Relaxed);
        self.hand_over(cells, shared);
        end
    }

    /// Pushes each group to its queue with one lock.
    fn hand_over(&mut self, cells: &mut CellCache, shared: &Shared) {
        let mut forwarded = 0;
        for (queue, mut group) in self.onward.drain(..) {
            forwarded += group.len();
            push(&queue, group.drain(..), &mut self.pushed, &mut self.events);
            self.spare.push(group);
        }
        shared
            .counters
            .forwarded_cells
            .fetch_add(forwarded as u64, Ordering::Relaxed);
        self.keep_dropped(cells, shared);
    }

    /// Pushes a cell of the link itself to its queue.
    pub(super) fn push(
        &mut self,
        queue: &LinkQueue,
        cell: Cell,
        cells: &mut CellCache,
        shared: &Shared,
    ) {
        push(queue, [cell], &mut self.pushed, &mut self.events);
        self.keep_dropped(cells, shared);
    }

    /// Counts the cells that found no room, and keeps their buffers.
    fn keep_dropped(&mut self, cells: &mut CellCache, shared: &Shared) {
        shared
            .counters
            .dropped_cells
            .fetch_add(self.pushed.dropped.len() as u64, Ordering::Relaxed);
        self.pushed
            .dropped
            .drain(..)
            .for_each(|cell| cells.put(cell));
    }
}

/// Pushes cells to a queue with one lock. Any push may break circuits of that queue: the control
/// plane is to destroy them.
fn push(
    queue: &LinkQueue,
    cells: impl IntoIterator<Item = Cell>,
    pushed: &mut Pushed,
    events: &mut Vec<(LinkId, LinkEvent)>,
) {
    queue.push(cells, pushed);
    let broken = pushed.broken.drain(..);
    events.extend(broken.map(|circ| (queue.link(), LinkEvent::Broken(circ, Violation::Window))));
}

/// Adds a cell to the group of its queue. A batch goes to few links: looking through them beats any
/// map.
fn group(
    onward: &mut Vec<(Arc<LinkQueue>, Vec<Cell>)>,
    spare: &mut Vec<Vec<Cell>>,
    queue: &Arc<LinkQueue>,
    cell: Cell,
) {
    if let Some((_, group)) = onward
        .iter_mut()
        .find(|(other, _)| Arc::ptr_eq(other, queue))
    {
        group.push(cell);
    } else {
        let mut group = spare.pop().unwrap_or_default();
        group.push(cell);
        onward.push((Arc::clone(queue), group));
    }
}
