//! The processes that `umbel-bench` starts while it measures: `umbel-bench part`, a hidden command.
//!
//! Each part prints `ready` and one more word once it is ready, and runs until it is killed.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::process::Command;
use tokio::runtime::Runtime;
use umbel_client::local::LocalError;
use umbel_proto::ids::Peer;
use umbel_relay::Relay;
use umbel_relay::config::{Config, Settings};

use super::{BenchError, message, proxy};

/// The hidden command that runs a part.
const COMMAND: &str = "part";

/// The work of one process.
#[derive(clap::Subcommand)]
pub(super) enum Part {
    /// A relay, where there is no `umbel-relay` beside this program
    Relay {
        /// Where it is kept
        #[arg(long)]
        data_dir: PathBuf,
        /// Where it listens
        #[arg(long)]
        listen: SocketAddr,
        /// Relays that it joins through
        #[arg(long = "seed")]
        seeds: Vec<Peer>,
    },
    /// One of a chain of TLS proxies
    Proxy {
        /// The next of them; the last one is where the bytes come from
        #[arg(long)]
        next: Option<Peer>,
    },
    /// A client that is subscribed to an inbox of its own
    Client {
        /// Where its profile is made
        #[arg(long)]
        dir: PathBuf,
        /// Relays that it begins with
        #[arg(long = "seed")]
        seeds: Vec<Peer>,
    },
}

/// Runs a part, on a runtime of its own.
pub(super) fn run(part: Part) -> Result<(), BenchError> {
    match part {
        Part::Relay {
            data_dir,
            listen,
            seeds,
        } => {
            let flags = Settings {
                listen: Some(listen),
                advertise: Vec::new(),
                seeds,
            };
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
            runtime(cores())?.block_on(Box::pin(message::subscribe(&dir, &seeds)))
        }
    }
}

/// As many threads as commands have.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// This program, to run the part of that name.
pub(super) fn command(name: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([COMMAND, name]);
    Ok(command)
}

/// The program of that name, if it lies beside this one.
pub(super) fn beside(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name(name);
    program.is_file().then_some(program)
}

pub(super) fn runtime(threads: usize) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
}

/// Reports to the process that started this one that its work begins, with one word more.
pub(super) fn ready(word: &impl fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "ready {word}")?;
    io::stdout().flush()
}
