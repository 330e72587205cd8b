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

/// One thing for each circuit of a link, found by a cell's circuit id. Nothing may depend on the
/// order in which it is iterated, which differs from run to run.
#[expect(
    clippy::disallowed_types,
    reason = "one lookup per cell, where hashing is faster"
)]
type CircMap<T> = std::collections::HashMap<umbel_proto::ids::CircId, T>;
