//! Conversations: what two clients say to each other, and how they keep it to themselves
//! (docs/protocol.md §11).

pub mod contents;
pub mod numbering;
