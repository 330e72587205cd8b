//! The client's core: everything a client decides, and nothing of the world.
//!
//! Paths and guards, circuits, relay directory, own inboxes, outbox, fetching. Cells, time, randomness and completions come
//! in; cells, links to make, things to store and notices go out. Rules: docs/protocol.md §4-§10.

pub mod io;

use std::collections::VecDeque;

use rand::CryptoRng;
use umbel_proto::cell::Cell;
use umbel_proto::directory::view::NetView;
use umbel_proto::ids::{MessageId, Peer, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::link::Hello;
use umbel_proto::network::Network;
use umbel_proto::time::{Instant, WallTime};

pub use io::{
    Command, DeferReason, LinkId, LinkOp, Notice, SendFault, Snapshot, Status, StoreOp, StoreTicket, Warning,
};

/// What the store gave back is not what was put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotFault {
    /// The guards and layer-2 relays can't be read.
    Paths,
    /// This inbox can't be read.
    Inbox(String),
    /// This message in the outbox can't be read.
    Outbox(MessageId),
}

/// A client without a world.
///
/// In by `handle_*`, out by `poll_*`. After each batch of `handle_*` drain in this order: [`Core::poll_store`],
/// [`Core::poll_cell`], [`Core::poll_link`], [`Core::poll_notice`]; [`Core::poll_timeout`] last, since everything above
/// may move it.
#[expect(missing_debug_implementations, reason = "holds keys and messages")]
pub struct Core {
    view: NetView,
    out: Outgoing,
}

#[derive(Default)]
struct Outgoing {
    stores: VecDeque<(StoreTicket, StoreOp)>,
    cells: VecDeque<(LinkId, Cell)>,
    links: VecDeque<LinkOp>,
    notices: VecDeque<Notice>,
}

impl Core {
    /// A client that goes on where the snapshot left off. `seeds` are used besides the network's own.
    ///
    /// # Errors
    /// A snapshot that this code did not write.
    pub fn new(
        network: Network,
        seeds: Vec<Peer>,
        snapshot: Snapshot,
        now: Instant,
        wall: WallTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, SnapshotFault> {
        let _ = (network, seeds, snapshot, now, wall, rng);
        Ok(Self { view: NetView::default(), out: Outgoing::default() })
    }

    /// Does what the user wants.
    pub fn handle_command(&mut self, now: Instant, wall: WallTime, command: Command, rng: &mut dyn CryptoRng) {
        let _ = (now, wall, command, rng);
    }

    /// A link asked for with [`LinkOp::Dial`] is up; `hello` is the peer's.
    pub fn handle_link_up(
        &mut self,
        now: Instant,
        wall: WallTime,
        link: LinkId,
        relay: RelayId,
        hello: Hello,
        rng: &mut dyn CryptoRng,
    ) {
        let _ = (now, wall, link, relay, hello, rng);
    }

    /// A link is gone.
    pub fn handle_link_down(&mut self, now: Instant, wall: WallTime, link: LinkId, rng: &mut dyn CryptoRng) {
        let _ = (now, wall, link, rng);
    }

    /// A link asked for with [`LinkOp::Dial`] can't be made.
    pub fn handle_dial_failed(&mut self, now: Instant, wall: WallTime, relay: RelayId, rng: &mut dyn CryptoRng) {
        let _ = (now, wall, relay, rng);
    }

    /// A cell came, other than `Hello` and `Padding`, which the shell keeps to itself.
    pub fn handle_cell(&mut self, now: Instant, wall: WallTime, link: LinkId, cell: Cell, rng: &mut dyn CryptoRng) {
        let _ = (now, wall, link, cell, rng);
    }

    /// The store did, or could not do, what [`Core::poll_store`] asked for under this ticket.
    pub fn handle_stored(
        &mut self,
        now: Instant,
        wall: WallTime,
        ticket: StoreTicket,
        is_stored: bool,
        rng: &mut dyn CryptoRng,
    ) {
        let _ = (now, wall, ticket, is_stored, rng);
    }

    /// Does what is due by `now`; spurious calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant, wall: WallTime, rng: &mut dyn CryptoRng) {
        let _ = (now, wall, rng);
    }

    /// Something to store.
    pub fn poll_store(&mut self) -> Option<(StoreTicket, StoreOp)> {
        self.out.stores.pop_front()
    }

    /// A cell to send.
    pub fn poll_cell(&mut self) -> Option<(LinkId, Cell)> {
        self.out.cells.pop_front()
    }

    /// A link to make or close.
    pub fn poll_link(&mut self) -> Option<LinkOp> {
        self.out.links.pop_front()
    }

    /// Something to tell the user.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.out.notices.pop_front()
    }

    /// When to call [`Core::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What `umbel status` shows.
    pub fn status(&self) -> Status {
        Status { relays: self.view.len(), guard: None, circuits: 0, outbox: Vec::new(), inboxes: Vec::new() }
    }

    /// The address of one of the own inboxes.
    pub fn inbox_address(&self, name: &str) -> Option<InboxAddress> {
        let _ = name;
        None
    }

    /// The relays this client knows.
    pub fn view(&self) -> &NetView {
        &self.view
    }
}
