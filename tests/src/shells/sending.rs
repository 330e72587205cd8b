//! What a relay of the world has to send: the queues, turns and memory budget of production, and
//! for each link a socket that takes a batch, then nothing until the link has carried it.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::cell::Cell;
use umbel_proto::ids::CircId;
use umbel_proto::link::LinkId;
use umbel_proto::time::{Duration, Instant};
use umbel_relay::forward::outgoing::{Budget, Outgoing, Phase, Pushed};

/// Cells that a socket takes at once, as many as production writes.
const WRITE_BATCH_CELLS: usize = 32;
/// Most memory that all queues of a relay take together.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// The queues of all links of one relay.
pub(super) struct Sending {
    links: BTreeMap<LinkId, Link>,
    budget: Budget,
}

struct Link {
    outgoing: Outgoing,
    /// Where the cells lie that were sent before. A cell keeps its buffer as long as it waits.
    copies: BTreeSet<usize>,
    /// When the socket takes the next batch.
    writable_at: Instant,
    /// Whether the world is to say when that is.
    is_waiting: bool,
    is_closing: bool,
}

/// What became of cells that a relay had for a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queued {
    /// How many they were.
    pub cells: u64,
    /// How many of them, and of those that waited before, belonged to circuits that overran.
    pub dropped: u64,
    /// How many came too late for their link.
    pub lost: u64,
    /// How many of those that are gone had been sent before.
    pub copies_gone: usize,
}

/// What a socket took.
#[expect(missing_debug_implementations, reason = "holds cells")]
pub struct Written {
    /// The cells, and whether each was sent before.
    pub cells: Vec<(Cell, bool)>,
    /// When the socket takes more.
    pub wake_at: Option<Instant>,
    /// Whether the link ends here.
    pub is_over: bool,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            links: BTreeMap::new(),
            budget: Budget::new(QUEUED_BYTES_MAX),
        }
    }
}

impl Sending {
    /// A link comes up.
    pub(super) fn begin(&mut self, link: LinkId) {
        let new = Link {
            outgoing: Outgoing::default(),
            copies: BTreeSet::new(),
            writable_at: Instant::default(),
            is_waiting: false,
            is_closing: false,
        };
        self.links.insert(link, new);
    }

    /// The link is gone. Returns how many cells waited, and how many of them had been sent before.
    pub(super) fn end(&mut self, link: LinkId) -> (u64, usize) {
        let Some(mut link) = self.links.remove(&link) else {
            return (0, 0);
        };
        let waited = link.outgoing.shut(&self.budget).len() as u64;
        (waited, link.copies.len())
    }

    /// The link ends once what waits is sent.
    pub(super) fn close(&mut self, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.outgoing.close();
            link.is_closing = true;
        }
    }

    /// Whether nothing more is read from this link.
    pub(super) fn is_closing(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| link.is_closing)
    }

    /// How many cells wait.
    pub(super) fn waiting_cells(&self) -> usize {
        self.links.values().map(|link| link.outgoing.len()).sum()
    }

    /// How many of them were sent before.
    pub(super) fn waiting_copies(&self) -> usize {
        self.links.values().map(|link| link.copies.len()).sum()
    }

    /// Queues cells, of which some were sent before. Returns the circuits that overran, too.
    pub(super) fn push(&mut self, link: LinkId, cells: Vec<(Cell, bool)>) -> (Queued, Vec<CircId>) {
        let mut queued = Queued {
            cells: cells.len() as u64,
            ..Queued::default()
        };
        let Some(link) = self.links.get_mut(&link) else {
            queued.lost = queued.cells;
            queued.copies_gone = cells.iter().filter(|(_, is_copy)| *is_copy).count();
            return (queued, Vec::new());
        };
        let copies = cells.iter().filter(|(_, is_copy)| *is_copy);
        link.copies.extend(copies.map(|(cell, _)| place(cell)));
        let before = link.outgoing.len() as u64;
        let mut pushed = Pushed::default();
        let cells = cells.into_iter().map(|(cell, _)| cell);
        link.outgoing.push(cells, &self.budget, &mut pushed);
        queued.dropped = before + queued.cells - link.outgoing.len() as u64;
        let is_copy = |cell: &&Cell| link.copies.remove(&place(cell));
        queued.copies_gone = pushed.dropped.iter().filter(is_copy).count();
        (queued, pushed.broken)
    }

    /// The world says that the socket takes more.
    pub(super) fn wake(&mut self, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.is_waiting = false;
        }
    }

    /// Writes what the socket takes now, on a link that carries a cell in `cell_time`.
    pub(super) fn write(&mut self, link: LinkId, now: Instant, cell_time: Duration) -> Written {
        let mut written = Written {
            cells: Vec::new(),
            wake_at: None,
            is_over: false,
        };
        let Some(link) = self.links.get_mut(&link) else {
            return written;
        };
        if link.writable_at <= now {
            let mut batch = Vec::new();
            let phase = link.outgoing.take(&mut batch, WRITE_BATCH_CELLS);
            self.budget.release(batch.len());
            link.writable_at = now + cell_time * u32::try_from(batch.len()).unwrap_or(u32::MAX);
            let with_copies = batch.into_iter().map(|cell| {
                let is_copy = link.copies.remove(&place(&cell));
                (cell, is_copy)
            });
            written.cells = with_copies.collect();
            written.is_over = match phase {
                Phase::Open => false,
                Phase::Closing => link.outgoing.is_empty(),
                Phase::Closed => true,
            };
        }
        let has_more = !link.outgoing.is_empty() || link.is_closing;
        if has_more && !written.is_over && !link.is_waiting {
            link.is_waiting = true;
            written.wake_at = Some(link.writable_at);
        }
        written
    }

    /// The budget is charged with what waits, and with nothing else.
    pub(super) fn check(&self) -> Result<(), String> {
        let (waiting, charged) = (self.waiting_cells(), self.budget.used_cells());
        if waiting == charged {
            Ok(())
        } else {
            Err(format!(
                "{waiting} cells wait, and {charged} are in the budget"
            ))
        }
    }
}

/// Where a cell's buffer is.
fn place(cell: &Cell) -> usize {
    cell.as_bytes().as_ptr().addr()
}
