//! Everything of the client that touches sockets and clocks.
//!
//! One task, the [`driver`], owns the core: it reads the clocks, hands in events, and executes the
//! effects that come out. Each link is a task of its own that moves whole cells
//! between a socket and bounded queues.

pub(crate) mod driver;
mod link;
