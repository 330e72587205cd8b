//! The inputs and effects of the control plane: tables, cells, links, work, news, storage.
//!
//! The shell executes these and reports back; so does the simulator, without sockets or files.

use std::net::SocketAddr;

use umbel_proto::cell::Cell;
use umbel_proto::directory::descriptor::DescriptorFault;
use umbel_proto::directory::receipts::{Probe, ProbeId, ReceiptRefusal};
use umbel_proto::directory::{BookOp, BookRow, gossip};
use umbel_proto::handshake::{HandshakeFault, HopKeys, Onionskin, Reply};
use umbel_proto::ids::{BlindedKey, RelayId};
use umbel_proto::inbox::holder::{self, HolderDone, HolderOp, QueueSnapshot};
use umbel_proto::link::{Hello, LinkId, LinkOp};
use umbel_proto::time::{ClockJump, Epoch, WallTime};

use crate::forward::TableUpdate;

/// A link that is ready for circuits: TLS is up, the peer is who it should be, both `Hello`s were
/// exchanged.
#[derive(Debug)]
pub struct LinkUp {
    /// The peer's proven id; `None` for a client.
    pub peer: Option<RelayId>,
    /// Whether this side dialled: it then uses circuit ids with the top bit set.
    pub is_dialler: bool,
    /// The other end's address. Where the peer dialled, its port says nothing.
    pub remote: SocketAddr,
    /// The peer's `Hello`.
    pub hello: Hello,
}

/// An effect that the control plane asks for.
///
/// Effects come by kind, in the order of this list. Tables come before cells, since a peer may
/// answer a cell with one that the table must already know. Cells come before links, since a link
/// is closed after its last cell. If an effect makes the control plane ask for more, as when a cell
/// finds no room, the order begins anew.
#[expect(missing_debug_implementations, reason = "holds keys and records")]
pub enum Effect {
    /// Change the table of a link.
    Table(LinkId, TableUpdate<LinkId>),
    /// Send a cell on a link.
    Cell(LinkId, Cell),
    /// Make or close a link.
    Link(LinkOp),
    /// Answer a handshake.
    Work(Work),
    /// See whether this relay answers at this address: TLS, with its identity, and no more. Answered
    /// by [`Control::handle_probed`](super::Control::handle_probed), within
    /// [`RECEIPT_DIAL_TIMEOUT`](umbel_proto::limits::RECEIPT_DIAL_TIMEOUT).
    Probe(ProbeId, Probe),
    /// Tell the operator.
    News(News),
    /// Store something.
    Store(StoreOp),
}

/// Why the control plane wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// A circuit's next hop should have answered.
    Extend,
    /// An exchange with another relay should be over.
    Exchange,
    /// A receipt is to be asked for, or should have come.
    Receipt,
    /// A receipt that another relay issued is to be tried.
    SpotCheck,
    /// Keys, descriptors, idle circuits and unused links are looked after.
    Sweep,
    /// Gossip has something to exchange.
    Gossip(gossip::Timer),
    /// Mailboxes have something to push, or to let expire.
    Mailbox(holder::Timer),
}

/// News for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The calendar is this far from what it said when the relay last ran.
    ClockSinceLastRun(ClockJump),
    /// The calendar jumped while the relay ran.
    ClockJumped(ClockJump),
    /// The clocks of linked relays differ from this one's by more than the network bears.
    ClockDiffers {
        /// By how many seconds they are ahead.
        ahead: i64,
        /// How many relays were asked.
        relays: usize,
        /// They are enough, and known well enough, for this relay's clock to be the one that is
        /// wrong.
        is_sure: bool,
    },
    /// They agree again.
    ClockAgrees {
        /// How many relays were asked.
        relays: usize,
    },
    /// Others will not believe this relay's descriptor.
    DescriptorRefused(DescriptorFault),
    /// Enough relays vouch for this address of ours, for the first time or again.
    Reachable {
        /// Which address.
        address: SocketAddr,
        /// How many relays vouch for it.
        receipt_count: usize,
    },
    /// Too few relays vouch for this address of ours.
    Unvouched {
        /// Which address.
        address: SocketAddr,
        /// How many vouch for it.
        receipt_count: usize,
        /// How many must.
        wanted: usize,
    },
    /// A relay does not vouch for this address of ours.
    ReceiptRefused {
        /// Which address.
        address: SocketAddr,
        /// Who was asked.
        issuer: RelayId,
        /// Why not.
        refusal: ReceiptRefusal,
    },
}

/// How a relay is doing, in figures that tell no user from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlStats {
    /// Links that are up.
    pub links: usize,
    /// Circuits of others that pass or end here.
    pub circuits: usize,
    /// Relays in the view.
    pub relays: usize,
    /// How many of these say that they run a later version.
    pub newer_count: usize,
    /// Whether none of them is another relay.
    pub is_alone: bool,
    /// Mailbox queues kept.
    pub queues: usize,
    /// Records in these queues.
    pub records: usize,
    /// Bytes of these records.
    pub record_bytes: u64,
    /// Inbox descriptors kept.
    pub inbox_descriptors: usize,
    /// Bytes of requests and answers of services in flight.
    pub held_bytes: usize,
    /// How far the clocks of other relays are ahead, seconds, while that is more than the network
    /// bears.
    pub clock_off_by: Option<i64>,
    /// Descriptors of this relay that another process issued: two relays have one identity.
    pub twins: u64,
    /// Circuits made so far.
    pub created: u64,
    /// Circuits refused because there was no room, or at the rate limit.
    pub refused: u64,
    /// Circuits and links closed because a rule was broken.
    pub violations: u64,
    /// Cells for circuits that were just gone.
    pub stale_cells: u64,
}

/// Names one piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// A handshake to answer: public-key work that must not hold up the control plane.
#[derive(Debug)]
pub struct Work {
    /// Goes back with the result.
    pub id: WorkId,
    /// The handshake.
    pub onionskin: Box<Onionskin>,
}

/// A handshake that was answered.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct WorkDone {
    /// Which.
    pub id: WorkId,
    /// The keys of the new hop and what to send back.
    pub result: Result<(HopKeys, Box<Reply>), HandshakeFault>,
}

/// An operation that the control plane asks of the store. All take effect in the order asked.
#[expect(missing_debug_implementations, reason = "holds keys and records")]
pub enum StoreOp {
    /// A mailbox's; answered by [`StoreDone::Mailbox`] once durable.
    Mailbox(HolderOp),
    /// The book of relays.
    Book(BookOp),
    /// Keep this inbox descriptor, in place of an older one; answered by
    /// [`StoreDone::InboxDescriptor`] once durable.
    PutInboxDescriptor {
        /// Goes back with the answer.
        ticket: u64,
        /// Under which key it is asked for.
        blinded: BlindedKey,
        /// Its epoch.
        epoch: Epoch,
        /// Its bytes.
        descriptor: Vec<u8>,
    },
    /// Forget the inbox descriptors of epochs before this one.
    RemoveInboxDescriptorsBefore(Epoch),
    /// Forget the inbox descriptors of epochs after this one.
    RemoveInboxDescriptorsAfter(Epoch),
    /// Keep these onion keys and no others.
    PutOnionKeys(Vec<StoredOnionKey>),
    /// Keep what is known of this machine's clock.
    PutClock(Vec<u8>),
    /// Keep these receipts of this relay's addresses and no others.
    PutReceipts(Vec<Vec<u8>>),
    /// Keep this record of how issuers stand.
    PutSpotChecks(Vec<u8>),
    /// Keep this, in place of what there is of it.
    PutListed(Listed),
    /// Keep these relays as anchors and no others.
    PutAnchors(Vec<RelayId>),
}

/// How long this relay has been in the views of others, as far as it can tell: from the first
/// descriptor that they take, to the end of the last one's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Since when, without a gap.
    pub since: WallTime,
    /// Until when, if no other descriptor follows.
    pub until: WallTime,
}

/// An onion key at rest.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "holds a key")]
pub struct StoredOnionKey {
    /// The secret key.
    pub secret: zeroize::Zeroizing<[u8; 32]>,
    /// When it was made.
    pub created_at: WallTime,
}

/// The result of an operation.
#[expect(missing_debug_implementations, reason = "holds records")]
pub enum StoreDone {
    /// A mailbox's op is durable, or failed.
    Mailbox(HolderDone),
    /// An inbox descriptor is durable, or not.
    InboxDescriptor {
        /// From the op.
        ticket: u64,
        /// Whether it is durable.
        is_stored: bool,
    },
}

/// The contents of the store when the relay started.
#[derive(Default)]
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct Snapshot {
    /// Onion keys, newest first.
    pub onion_keys: Vec<StoredOnionKey>,
    /// The book of relays.
    pub relays: Vec<BookRow>,
    /// Inbox descriptors' bytes.
    pub inbox_descriptors: Vec<Vec<u8>>,
    /// Mailbox queues, without the bodies of their records.
    pub queues: Vec<QueueSnapshot>,
    /// The state of this machine's clock.
    pub clock: Option<Vec<u8>>,
    /// Receipts of this relay's addresses.
    pub receipts: Vec<Vec<u8>>,
    /// Since when others list this relay; `None` if they never have.
    pub listed: Option<Listed>,
    /// How issuers stand.
    pub spot_checks: Option<Vec<u8>>,
    /// Relays to reconcile with first, longest-standing first.
    pub anchors: Vec<RelayId>,
}
