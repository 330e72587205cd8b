//! The stored form of an inbox.

use serde::{Deserialize, Serialize};
use umbel_proto::ids::{QueueId, QueueNonce, RelayId};
use umbel_proto::time::WallTime;
use umbel_proto::wire;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::super::publish::PublicationState;
use super::inbox::Outage;
use super::sight::SightState;

/// Format of the stored state. The store brings older ones to it.
pub(super) const VERSION: u8 = 8;

/// One mailbox of one's own.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(in super::super) struct OwnMailbox {
    #[zeroize(skip)]
    pub(in super::super) relay: RelayId,
    #[zeroize(skip)]
    pub(in super::super) queue: QueueId,
    /// By which its holder knows that the queue is its owner key's (docs/protocol.md §10.1(1)).
    #[zeroize(skip)]
    pub(in super::super) nonce: QueueNonce,
    pub(in super::super) owner_seed: [u8; 32],
    pub(in super::super) sender_seed: [u8; 32],
    /// Whether its holder has it.
    #[zeroize(skip)]
    pub(in super::super) is_created: bool,
    /// Whether it is there only for as long as another's holder is out of reach.
    #[zeroize(skip)]
    pub(in super::super) is_companion: bool,
    /// When it left the descriptor, if it did.
    #[zeroize(skip)]
    pub(in super::super) retired_at: Option<WallTime>,
    #[zeroize(skip)]
    pub(super) outage: Option<Outage>,
}

impl OwnMailbox {
    /// Whether the descriptor names it.
    pub(in super::super) const fn is_listed(&self) -> bool {
        self.is_created && self.retired_at.is_none()
    }
}

#[cfg(test)]
impl OwnMailbox {
    /// One that its holder has.
    pub(in super::super) const fn for_test(relay: RelayId, queue: QueueId) -> Self {
        let (owner_seed, sender_seed) = ([1; 32], [2; 32]);
        Self {
            relay,
            queue,
            nonce: QueueNonce([0; QueueNonce::LEN]),
            owner_seed,
            sender_seed,
            is_created: true,
            is_companion: false,
            retired_at: None,
            outage: None,
        }
    }
}

/// The seal key of one epoch.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct SealState {
    #[zeroize(skip)]
    pub(super) epoch: u64,
    pub(super) seed: [u8; 32],
}

/// The stored form of an inbox.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct InboxState {
    #[zeroize(skip)]
    pub(super) version: u8,
    pub(super) identity_seed: [u8; 32],
    pub(super) seals: Vec<SealState>,
    pub(super) mailboxes: Vec<OwnMailbox>,
    /// Its descriptor was published, ever: until then nobody can know of it.
    #[zeroize(skip)]
    pub(super) is_published: bool,
    /// Until when the client publishes nothing more of its own accord, for the sake of what it
    /// published of this inbox.
    #[zeroize(skip)]
    pub(super) rests_until: WallTime,
    #[zeroize(skip)]
    pub(super) publications: Vec<PublicationState>,
    #[zeroize(skip)]
    pub(super) sight: SightState,
}

impl InboxState {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        wire::decode::<Self>(bytes)
            .ok()
            .filter(|state| state.version == VERSION)
    }
}
