//! Umbel's relay: forwards cells, keeps mailboxes and inbox descriptors, knows the network.
//!
//! Two planes, both without IO: [`forward`], which moves cells between links, and [`control`],
//! which decides everything else. Around them the shell: `net` has the sockets and tasks, [`store`]
//! the disk. [`Relay`] is all of it, to be run by the `umbel-relay` command or inside another
//! program; several can run in one process.

pub mod config;
pub mod control;
mod error;
pub mod forward;
mod heartbeat;
mod net;
mod open_files;
mod repeated;
mod running;
pub mod store;

pub use error::{InitError, StartError};
pub use open_files::OpenFiles;
pub use running::{Ended, Relay, Stats, init, known_peer};
