//! What this program does in processes of its own while it measures: `umbel bench-part`, which only
//! `umbel bench` starts.
//!
//! Each part says `ready` and one word more once it is, and runs until it is killed.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use tokio::process::Command;
use umbel_proto::ids::Peer;
use umbel_relay::Relay;
use umbel_relay::config::{Config, Flags};

use super::{BenchError, message, proxy};
use crate::local::LocalError;

/// The hidden command that runs a part.
const COMMAND: &str = "bench-part";

/// What a process of its own is for.
#[derive(Debug, Clone)]
pub enum Part {
    /// A relay, where there is no `umbel-relay` beside this program.
    Relay {
        /// Where it is kept.
        data_dir: PathBuf,
        /// As `umbel-relay run` takes them.
        flags: Flags,
    },
    /// One of a chain of TLS proxies.
    Proxy {
        /// The next of them; the last one is where the bytes come from.
        next: Option<Peer>,
    },
    /// A client that is subscribed to an inbox of its own.
    Client {
        /// Where its profile is to be.
        dir: PathBuf,
        /// Relays that it begins with.
        seeds: Vec<Peer>,
    },
}

/// Runs a part, on a runtime of its own.
///
/// # Errors
/// It could not be started.
pub fn run(part: Part) -> Result<(), BenchError> {
    match part {
        Part::Relay { data_dir, flags } => {
            let (config, network) = Config::load(&data_dir, flags)
                .map_err(|error| io::Error::other(error.to_string()))?;
            runtime(config.threads)?.block_on(async {
                let mut relay = Relay::start(config, network)
                    .await
                    .map_err(LocalError::Relay)?;
                ready(relay.peer())?;
                relay.failed().await;
                Ok(())
            })
        }
        Part::Proxy { next } => runtime(1)?.block_on(proxy::run(next)),
        Part::Client { dir, seeds } => {
            runtime(threads())?.block_on(Box::pin(message::subscribe(&dir, &seeds)))
        }
    }
}

/// As many as commands have.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// This program, to run the part of that name.
pub(super) fn command(name: &str) -> Result<Command, BenchError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([COMMAND, name]);
    Ok(command)
}

fn runtime(threads: usize) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
}

/// Tells whoever started this process that it does its work now, and one word more.
pub(super) fn ready(word: &impl fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "ready {word}")?;
    io::stdout().flush()
}
