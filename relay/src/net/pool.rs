//! Cell buffers for reuse: one pool a relay, one small cache a link, so that a cell costs no
//! allocation and a batch of cells costs at most one lock.
//!
//! What a full pool is given beyond its limit goes back to the allocator.

use std::sync::{Arc, Mutex, PoisonError};

use umbel_proto::cell::Cell;

/// How many cells a cache takes from the pool, or gives back to it, with one lock.
const REFILL_CELLS: usize = 16;
/// Most cells a cache keeps to itself.
const CACHE_CELLS_MAX: usize = 2 * REFILL_CELLS;
/// Most unused cells the pool keeps: 8 MiB, what a few hundred busy links turn over.
const POOL_CELLS_MAX: usize = 4096;

/// The cells that nobody uses.
#[derive(Default)]
pub(crate) struct CellPool {
    unused: Mutex<Vec<Cell>>,
}

/// A link's own few unused cells. Returned to the pool on drop.
pub(crate) struct CellCache {
    pool: Arc<CellPool>,
    unused: Vec<Cell>,
}

impl CellPool {
    fn refill(&self, cells: &mut Vec<Cell>) {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = unused.len().saturating_sub(REFILL_CELLS);
        cells.extend(unused.drain(kept..));
    }

    fn give_back(&self, cells: &mut Vec<Cell>, count: usize) {
        let kept = cells.len().saturating_sub(count);
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        let room = POOL_CELLS_MAX.saturating_sub(unused.len());
        unused.extend(cells.drain(kept..).take(room));
    }
}

impl CellCache {
    /// An empty cache of `pool`.
    pub(crate) const fn new(pool: Arc<CellPool>) -> Self {
        Self {
            pool,
            unused: Vec::new(),
        }
    }

    /// A cell to read into. Its bytes are those of an earlier cell, or zeros.
    pub(crate) fn take(&mut self) -> Cell {
        if self.unused.is_empty() {
            self.pool.refill(&mut self.unused);
        }
        self.unused.pop().unwrap_or_else(Cell::blank)
    }

    /// Takes back a cell that is done with.
    pub(crate) fn put(&mut self, mut cell: Cell) {
        cell.recycle();
        self.unused.push(cell);
        if self.unused.len() > CACHE_CELLS_MAX {
            self.pool.give_back(&mut self.unused, REFILL_CELLS);
        }
    }

    /// Gives everything to the pool: an idle link keeps no memory for cells.
    pub(crate) fn clear(&mut self) {
        if !self.unused.is_empty() {
            self.pool.give_back(&mut self.unused, usize::MAX);
            self.unused = Vec::new();
        }
    }
}

impl Drop for CellCache {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_share_what_the_pool_holds_and_an_idle_one_keeps_nothing() {
        let pool = Arc::new(CellPool::default());
        let mut busy = CellCache::new(Arc::clone(&pool));
        for _ in 0..100 {
            busy.put(Cell::blank());
            assert!(busy.unused.len() <= CACHE_CELLS_MAX);
        }
        busy.clear();
        assert_eq!(
            (busy.unused.capacity(), pool.unused.lock().unwrap().len()),
            (0, 100)
        );
        let mut other = CellCache::new(Arc::clone(&pool));
        let _cell = other.take();
        assert_eq!(
            (other.unused.len(), pool.unused.lock().unwrap().len()),
            (REFILL_CELLS - 1, 100 - REFILL_CELLS)
        );
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit() {
        let pool = CellPool::default();
        let mut cells = vec![Cell::blank(); POOL_CELLS_MAX + 5];
        pool.give_back(&mut cells, usize::MAX);
        assert!(cells.is_empty());
        assert_eq!(pool.unused.lock().unwrap().len(), POOL_CELLS_MAX);
    }
}
