//! Shells around the real cores, in virtual time: they do what a core wants done, and nothing of
//! their own.

pub mod client;
pub mod lone;
pub mod relay;
mod sending;

use umbel_proto::ids::RelayId;
use umbel_proto::link::LinkId;

pub use client::{ClientName, SimClient};
pub use lone::LoneRelay;
pub use relay::{RelayName, SimRelay};
pub use sending::{Queued, Written};

/// An input of a node, relay or client. A node that is down loses it.
#[derive(Debug, Clone, Copy)]
pub enum Input {
    /// A link is gone.
    LinkDown(LinkId),
    /// A dial failed.
    DialFailed(RelayId),
    /// Its disk commits.
    Committed,
    /// A timer may be due.
    Timeout,
}
