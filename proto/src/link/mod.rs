//! Links: an authenticated connection between two peers that carries cells (docs/protocol.md §2).

pub mod hello;
pub mod tls;

pub use hello::{Hello, LINK_VERSION, LinkVersion};
