//! How two views become one: fingerprints of ranges of ids until few relays are left in those that
//! differ, then pages of what the asker holds there (docs/protocol.md §8.3).
//!
//! Union: each side gets what it lacks; nothing is deleted. The asker names ranges with their
//! fingerprints. The answerer says which are the same and splits the others, and the asker splits
//! those of the parts that differ. Where few relays are left, the asker lists them: the answerer
//! sends the descriptors that are newer, names those it wants, and says how far it came. The asker
//! pushes the wanted ones and continues behind that point. Each split is by the count of relays that
//! its side holds, so a few suffice for any view. Every message is bounded, every reply makes
//! progress, and a reply that holds anything else is a fault.

mod answerer;
mod asker;
mod messages;
mod split;

pub use answerer::{answer, cost, is_free};
pub use asker::{SyncFault, SyncStep, Syncer};
pub use messages::{
    BadItems, Item, Outcome, PageReply, RangeFingerprint, RangeItems, SyncReply, SyncRequest,
};

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
