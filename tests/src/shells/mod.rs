//! Shells around the real cores, in virtual time: they do what a core wants done, and nothing of
//! their own.

pub mod client;
pub mod lone;
pub mod relay;
mod sending;

pub use client::{ClientName, SimClient};
pub use lone::LoneRelay;
pub use relay::{RelayName, SimRelay};
pub use sending::{Queued, Written};
