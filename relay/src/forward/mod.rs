//! The forwarding plane: what happens to a cell between two sockets. THE HOT PATH.
//!
//! A cell that arrives on a link goes through that link's [`LinkTable`], then waits in the next
//! link's [`outgoing`] queue. No IO and no lock: the shell (`net`) reads, writes and locks.

pub mod outgoing;
mod table;

pub use table::{Delivered, LinkTable, Next, TableUpdate, Verdict};
