//! The sockets of relays: what waits in a relay's queues is written as fast as its links carry it.

use umbel_proto::link::LinkId;

use super::World;
use super::events::Event;
use super::network::Node;
use crate::adversary::CopyFate;
use crate::shells::Queued;

impl World {
    /// A relay has queued cells.
    pub(super) fn count_queued(&mut self, queued: Queued) {
        self.cells.sent += queued.cells;
        self.cells.dropped += queued.dropped;
        self.cells.lost += queued.lost;
        self.cells.waiting += queued.cells;
        self.cells.waiting -= queued.dropped + queued.lost;
        self.lose_copies(queued.copies_gone);
    }

    /// Cells that waited are lost with their link.
    pub(super) fn lose_waiting(&mut self, cells: u64) {
        self.cells.waiting -= cells;
        self.cells.lost += cells;
    }

    /// Cells that had been sent before are lost.
    pub(super) fn lose_copies(&mut self, count: usize) {
        let lost = std::iter::repeat_n(CopyFate::Lost, count);
        self.copies.extend(lost);
    }

    /// The socket at a relay's end takes more.
    pub(super) fn on_writable(&mut self, end: LinkId) -> Vec<Node> {
        if let Some(Node::Relay(relay)) = self.network.end(end).map(|end| end.node) {
            self.relays[relay].wake(end);
            self.write(relay, end);
        }
        Vec::new()
    }

    /// Writes what the socket takes now.
    pub(super) fn write(&mut self, relay: usize, end: LinkId) {
        let (now, cell_time) = (self.now, self.network.cell_time);
        let Some(written) = self.relays[relay].write(end, now, cell_time) else {
            return;
        };
        for (cell, is_copy) in written.cells {
            self.cells.waiting -= 1;
            self.carry(end, &cell, is_copy);
        }
        if let Some(at) = written.wake_at {
            self.agenda.schedule(at, Event::Writable { end });
        }
        if written.is_over {
            self.break_link(end);
        }
    }
}
