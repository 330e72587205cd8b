//! Umbel's protocol: what two independent implementations must agree on (docs/protocol.md).
//!
//! No IO, no clock, no ambient randomness: time, randomness and bytes come in as arguments, effects
//! go out as values.
//!
//! From words to machines: [`limits`], [`time`], [`ids`], [`chance`] · [`wire`], [`crypto`] ·
//! [`cell`], [`onion`], [`handshake`], [`message`] · [`link`], [`circuit`] · [`directory`],
//! [`path`], [`inbox`].

pub mod cell;
pub mod chance;
pub mod circuit;
pub mod conversation;
pub mod crypto;
pub mod directory;
pub mod handshake;
pub mod ids;
pub mod inbox;
pub mod limits;
pub mod link;
pub mod message;
pub mod network;
pub mod onion;
pub mod path;
pub mod time;
mod violation;
pub mod wire;

pub use violation::Violation;
