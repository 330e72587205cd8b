//! How many cells may wait in all queues of a relay together.

use std::sync::atomic::{AtomicUsize, Ordering};

use umbel_proto::limits::CELL_LEN;

/// The cells that all queues of a relay hold together, and may hold. Shared by the tasks of all
/// links.
#[derive(Debug)]
pub struct Budget {
    used_cells: AtomicUsize,
    max_cells: usize,
}

impl Budget {
    /// A budget of `max_bytes`.
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            used_cells: AtomicUsize::new(0),
            max_cells: max_bytes / CELL_LEN,
        }
    }

    /// Cells that wait now.
    pub fn used_cells(&self) -> usize {
        self.used_cells.load(Ordering::Relaxed)
    }

    /// Gives back the room of cells that were taken from a queue and are now written or dropped.
    pub fn release(&self, cells: usize) {
        self.used_cells.fetch_sub(cells, Ordering::Relaxed);
    }

    pub(super) fn charge(&self, cells: usize) {
        self.used_cells.fetch_add(cells, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.used_cells() > self.max_cells
    }
}
