//! Links: an authenticated connection between two peers that carries cells (docs/protocol.md §2).

mod arrival;
pub mod hello;
mod ids;
mod liveness;
pub mod tls;

use crate::ids::RelayId;

pub use arrival::circuit_of;
pub use hello::{Hello, LINK_VERSION, LinkVersion};
pub use ids::{CircIds, LinkId};
pub use liveness::{Keepalive, Padding, Silence, Silent};

/// An operation on links that a core asks of its shell.
#[derive(Debug)]
pub enum LinkOp {
    /// Make a link to this relay; answered by `handle_link_up` or `handle_dial_failed`.
    Dial {
        /// Whom to expect.
        relay: RelayId,
        /// Where: `host:port`, to be tried in order.
        host_ports: Vec<String>,
    },
    /// Close this link; answered by `handle_link_down`.
    Close(LinkId),
}
