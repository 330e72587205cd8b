//! How two views become one: a digest each, and where they differ, pages of what the asker holds
//! (docs/protocol.md §8.3).
//!
//! Union: each side gets what it lacks; nothing is deleted. The asker lists a range of its relays.
//! The answerer sends the descriptors that are newer in that range, names those it wants, and says
//! how far it came. The asker pushes the wanted ones and continues behind that point. Every message
//! is bounded, every reply makes progress, and a reply that holds anything else is a fault.

mod answerer;
mod asker;
mod items;

pub use answerer::answer;
pub use asker::{SyncFault, SyncStep, Syncer};
pub use items::{BadPage, IdPrefix, Page, PageReply, SyncReply, SyncRequest};

#[cfg(test)]
mod tests;
