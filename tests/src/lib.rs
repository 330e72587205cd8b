//! A world for Umbel's cores: real relays and clients in virtual time, over a network and disks
//! that fail on cue.
//!
//! [`World`] is a second shell around the cores that the commands run: it carries their cells,
//! keeps their clocks, commits what they store, and answers their handshakes. Everything that
//! happens follows from one seed, and [`World::fingerprint`] tells two runs apart. After every step
//! the checkers of [`check`](world::check) look at the nodes that it touched.

pub mod adversary;
pub mod as_map;
pub mod disk;
pub mod experiments;
pub mod fuzz;
pub mod scenario;
pub mod shells;
pub mod world;

pub use adversary::{CopyFate, Tampering};
pub use shells::{ClientName, RelayName};
pub use world::World;
