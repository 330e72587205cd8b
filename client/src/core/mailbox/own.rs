//! One mailbox as its owner keeps it, and stores it.

use serde::{Deserialize, Serialize};
use umbel_proto::ids::{QueueId, QueueNonce, RelayId};
use umbel_proto::time::WallTime;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::outage::Outage;

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
    /// When it left those that senders are told of, if it did.
    #[zeroize(skip)]
    pub(in super::super) retired_at: Option<WallTime>,
    #[zeroize(skip)]
    pub(in super::super) outage: Option<Outage>,
}

impl OwnMailbox {
    /// Whether senders are told of it.
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
