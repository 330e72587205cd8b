//! The stored form of an inbox.

use serde::{Deserialize, Serialize};
use umbel_proto::time::WallTime;
use umbel_proto::wire;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::super::mailbox::OwnMailbox;
use super::inbox::EffortState;
use super::publish::PublicationState;
use super::sight::SightState;

/// Format of the stored state. The store brings older ones to it.
pub(super) const VERSION: u8 = 9;

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
    #[zeroize(skip)]
    pub(super) effort: EffortState,
}

impl InboxState {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        wire::decode::<Self>(bytes)
            .ok()
            .filter(|state| state.version == VERSION)
    }
}
