//! Hidden inboxes: an address that says nothing of where its owner is, the descriptor that leads
//! from it to mailboxes, and the records that lie in them (docs/protocol.md §9, §10).

pub mod address;
pub mod descriptor;
pub mod holder;
pub mod mailbox;
pub mod record;
