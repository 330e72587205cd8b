//! The stored form of an inbox.

use serde::{Deserialize, Serialize};
use umbel_proto::ids::{QueueId, RelayId};
use umbel_proto::time::WallTime;
use umbel_proto::wire;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::super::publish::PublicationState;
use super::sight::SightState;

/// Format of the stored state. The store brings older ones to it.
pub(super) const VERSION: u8 = 5;

/// One mailbox of one's own.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(in super::super) struct OwnMailbox {
    #[zeroize(skip)]
    pub(in super::super) relay: RelayId,
    #[zeroize(skip)]
    pub(in super::super) queue: QueueId,
    pub(in super::super) owner_seed: [u8; 32],
    pub(in super::super) sender_seed: [u8; 32],
    /// Whether its holder has it, and the descriptor names it.
    #[zeroize(skip)]
    pub(in super::super) is_created: bool,
    /// The mailbox whose place it takes once it is created.
    #[zeroize(skip)]
    pub(in super::super) replaces: Option<QueueId>,
    /// When it was replaced, if it was.
    #[zeroize(skip)]
    pub(in super::super) retired_at: Option<WallTime>,
    /// Since when its holder is out of reach, or does not know it: kept, since many a client runs
    /// for a minute at a time.
    #[zeroize(skip)]
    pub(in super::super) failing_since: Option<WallTime>,
}

#[cfg(test)]
impl OwnMailbox {
    /// One that its holder has.
    pub(in super::super) const fn for_test(relay: RelayId, queue: QueueId) -> Self {
        let (owner_seed, sender_seed) = ([1; 32], [2; 32]);
        let (replaces, retired_at, failing_since) = (None, None, None);
        Self {
            relay,
            queue,
            owner_seed,
            sender_seed,
            is_created: true,
            replaces,
            retired_at,
            failing_since,
        }
    }
}

/// The stored form of an inbox.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct InboxState {
    #[zeroize(skip)]
    pub(super) version: u8,
    pub(super) identity_seed: [u8; 32],
    pub(super) seal_seed: [u8; 32],
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
