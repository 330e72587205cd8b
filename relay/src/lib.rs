//! Umbel's relay: forwards cells, keeps mailboxes and inbox descriptors, knows the network.
//!
//! Two planes, both without IO: [`forward`], which moves cells between links, and [`control`],
//! which decides everything else. Around them the shell: `net` has the sockets and tasks, [`store`]
//! the disk, and [`shell`] what a client's shell has, too. [`Relay`] is all of it. The command
//! `umbel-relay` runs one; another program may run several in one process.

mod coarse;
#[expect(clippy::disallowed_methods, reason = "reads the operator's files")]
pub mod config;
pub mod control;
mod error;
pub mod forward;
#[expect(
    clippy::disallowed_methods,
    reason = "a shell: the service manager's clock"
)]
mod heartbeat;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a shell: sockets, tasks and clocks"
)]
mod net;
mod open_files;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a shell: a socket in the data directory"
)]
pub mod operator;
mod repeated;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "starts the shells, holds the lock file"
)]
mod running;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a shell: clocks and files"
)]
pub mod shell;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a shell: files"
)]
pub mod store;

pub use error::{InitError, StartError};
pub use open_files::OpenFiles;
pub use running::{Ended, Initialized, Relay, Stats, init, known_peer};
