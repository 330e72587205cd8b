//! Cells that wait to be sent on a link: their order (§4.4(6)), and the limits of §4.4(5).
//!
//! [`Outgoing`] is one link's queue; all queues of a relay are charged to one [`Budget`]. Pure
//! policy: the shell locks the queue and wakes the task that empties it.

mod budget;
mod queue;
mod turns;

pub use budget::Budget;
pub use queue::{LINK_QUEUE_CELLS_MAX, Outgoing, Phase, Pushed};
