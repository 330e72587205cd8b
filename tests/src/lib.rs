//! A world for Umbel's cores: real relays and clients in virtual time, over a network and disks
//! that fail on cue.
//!
//! [`World`] is a second shell around the cores that the commands run: it carries their cells,
//! keeps their clocks, commits what they store, and answers their handshakes. Everything that
//! happens follows from one seed, and [`World::fingerprint`] tells two runs apart. After every step
//! the checkers of [`check`] run.

pub mod adversary;
pub mod check;
pub mod client;
pub mod disk;
pub mod fuzz;
pub mod lone;
pub mod network;
pub mod relay;
pub mod world;

pub use adversary::{CopyFate, Tampering};
pub use client::ClientName;
pub use relay::RelayName;
pub use world::World;
