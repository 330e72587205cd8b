//! How two views become one: a digest each, and where they differ, pages of what the asker holds
//! (docs/protocol.md §8.3).
//!
//! Union: what one side lacks, it gets; nothing is deleted. The asker lists a range of its relays.
//! The answerer sends what is newer in that range and says what it wants, and how far it came. The
//! asker pushes what is wanted and continues behind that point. Every message is bounded, every
//! reply makes progress, and a reply that holds anything but what it may is a fault.

mod answerer;
mod asker;
mod items;

pub use answerer::answer;
pub use asker::{SyncFault, SyncStep, Syncer};
pub use items::{BadPage, IdPrefix, Page, PageReply, SyncReply, SyncRequest};

#[cfg(test)]
mod tests;
