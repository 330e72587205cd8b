//! The stored form of a contact.

use serde::{Deserialize, Serialize};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::descriptor::Mailbox;
use umbel_proto::time::WallTime;
use umbel_proto::wire;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::super::mailbox::OwnMailbox;

/// Format of the stored state. The store brings older ones to it.
pub(super) const VERSION: u8 = 1;

/// Says which queues a peer was told of: the beginning of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueuesMark(pub(super) [u8; 8]);

/// The stored form of a contact.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct ContactState {
    #[zeroize(skip)]
    pub(super) version: u8,
    /// The conversation's state (docs/protocol.md §11).
    #[serde(with = "serde_bytes")]
    pub(super) thread: Vec<u8>,
    /// The own inbox that it belongs to.
    #[zeroize(skip)]
    pub(super) inbox: Option<String>,
    /// The peer's inbox: the one that was written to, or whose owner the peer proved to be.
    #[zeroize(skip)]
    pub(super) address: Option<InboxAddress>,
    /// Of the side that began.
    #[zeroize(skip)]
    pub(super) pseudonym: [u8; 32],
    /// Where the peer reads.
    pub(super) queues: Vec<Mailbox>,
    /// Where this side reads.
    pub(super) mailboxes: Vec<OwnMailbox>,
    #[zeroize(skip)]
    pub(super) facts: Facts,
}

/// The rest of what is known of a conversation.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Facts {
    /// This side has written, or wants to: it needs queues for what comes back.
    pub(super) has_written: bool,
    /// Nothing that the peer writes is read.
    pub(super) is_blocked: bool,
    /// The queues that the peer knows of.
    pub(super) told: Option<QueuesMark>,
    /// The messages that say where this side reads, and are not acknowledged.
    pub(super) carriers: Vec<(MessageId, QueuesMark)>,
    /// When the peer hears what arrived, if it does not hear it before with a message.
    pub(super) acknowledges_at: Option<WallTime>,
    /// When the next of this side's queues is moved.
    pub(super) moves_at: WallTime,
    /// When a session was last begun anew, or asked for.
    pub(super) renewed_at: WallTime,
    /// When the peer is asked for a new session, if what it sends can't be read.
    pub(super) asks_renewal_at: Option<WallTime>,
    /// The number of the message, in this session, that said last where the peer reads.
    pub(super) queues_said_at: Option<u64>,
    /// How many sessions there were before this.
    pub(super) sessions_before: u32,
}

impl ContactState {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        wire::decode::<Self>(bytes)
            .ok()
            .filter(|state| state.version == VERSION)
    }
}
