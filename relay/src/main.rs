//! The `umbel-relay` command.
//!
//! Exit codes: 0 done, 1 failed (one line on standard error says what to do), 2 wrong usage.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use umbel_proto::ids::Peer;
use umbel_relay::config::{Config, Flags, LOCAL_NETWORK, is_host_port, read_network};
use umbel_relay::{Relay, init, known_peer};

/// Many small buffers of equal size are made and freed on all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Forwards cells, keeps mailboxes, knows the network: a relay of Umbel.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a relay: an identity of its own. Never overwrites one.
    Init {
        #[command(flatten)]
        dir: DataDir,
        /// The network it belongs to: a file, or `local` for trying things on one machine.
        #[arg(long, value_name = "FILE", default_value = LOCAL_NETWORK)]
        network: String,
    },
    /// Run the relay until SIGTERM or SIGINT. Prints `ready PEER` once it accepts links.
    Run {
        #[command(flatten)]
        dir: DataDir,
        /// Where links are accepted; port 0 for any that is free. Default: the file's, else 0.0.0.0:7443.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
        /// Where others can dial it. Default: the file's, else where it listens.
        #[arg(long, value_name = "HOST:PORT", value_parser = parse_host_port)]
        advertise: Option<String>,
        /// A peer to join through; may be given several times.
        #[arg(long = "seed", value_name = "PEER", value_parser = parse_peer)]
        seeds: Vec<Peer>,
    },
    /// Print what others dial the relay by, to be given to --seed.
    Peer {
        #[command(flatten)]
        dir: DataDir,
    },
}

#[derive(Args)]
struct DataDir {
    /// Where the relay is kept.
    #[arg(long, value_name = "DIR", env = "UMBEL_RELAY_DATA_DIR")]
    data_dir: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Init { dir, network } => make(&dir, &network),
        Command::Run { dir, listen, advertise, seeds } => run(&dir, Flags { listen, advertise, seeds }),
        Command::Peer { dir } => print_peer(&dir),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "umbel-relay: {}", on_one_line(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn make(dir: &DataDir, network: &str) -> Outcome {
    let network = read_network(network)?;
    let id = init(&dir.data_dir, &network)?;
    writeln!(io::stdout(), "{id}")?;
    Ok(())
}

fn print_peer(dir: &DataDir) -> Outcome {
    let (config, _) = Config::load(&dir.data_dir, Flags::default())?;
    writeln!(io::stdout(), "{}", known_peer(&config)?)?;
    Ok(())
}

fn run(dir: &DataDir, flags: Flags) -> Outcome {
    let (config, network) = Config::load(&dir.data_dir, flags)?;
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| config.log.clone());
    let filter = EnvFilter::try_new(filter)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    for key in &config.unread_params {
        tracing::warn!(key, "the network file sets a parameter that this version does not use");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(config.threads).enable_all().build()?;
    runtime.block_on(async {
        // Before the relay starts: a signal that comes early must not be lost.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut relay = Relay::start(config, network).await?;
        writeln!(io::stdout(), "ready {}", relay.peer())?;
        io::stdout().flush()?;
        tracing::info!(peer = %relay.peer(), "the relay runs");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = relay.failed() => return Err("the relay has failed; please report what the log says".into()),
        }
        tracing::info!("the relay stops");
        relay.shutdown().await;
        Outcome::Ok(())
    })?;
    // Tasks that still wait for the network are of no use any more.
    runtime.shutdown_background();
    Ok(())
}

fn parse_peer(text: &str) -> Result<Peer, String> {
    text.parse().map_err(|_| "must be a peer, <relay id>@host:port, as `umbel-relay peer` prints it".to_owned())
}

fn parse_host_port(text: &str) -> Result<String, String> {
    if is_host_port(text) {
        Ok(text.to_owned())
    } else {
        Err("must be host:port, with a port from 1 to 65535".to_owned())
    }
}

fn on_one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
