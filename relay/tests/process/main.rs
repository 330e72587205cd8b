//! A relay on real sockets and a real disk: who may connect, who may not, and the output of the
//! command.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test fails by panicking; sockets and files are real"
)]

mod links;
mod networks;
mod operation;
mod operator;
mod processes;
mod sockets;
mod start;

use std::time::Duration;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
