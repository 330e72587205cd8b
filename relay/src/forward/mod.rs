//! The forwarding plane: what happens to a cell between two sockets. THE HOT PATH.
//!
//! A cell that arrives on a link goes through that link's [`LinkTable`], then waits in the next
//! link's [`outgoing`] queue. The control plane reaches the table by [`TableUpdates`], its only
//! lock. No IO: the shell (`net`) reads and writes.

pub mod outgoing;
mod table;
mod updates;

pub use table::{Delivered, LinkEvent, LinkTable, Next, Verdict};
pub use updates::{TableUpdate, TableUpdates};
