//! The `umbel-relay` command.
//!
//! Exit codes: 0 done, 1 failed, 2 the command line or a file of the operator's is wrong, 3 a network
//! file is weak, 4 no relay runs, 5 to 7 an invitation can't be taken. A failure says on standard
//! error what is wrong and what to do.

mod failure;
mod invite;
mod logs;
#[expect(
    clippy::disallowed_methods,
    reason = "a shell: draws the id of a new network"
)]
mod network;
mod report;
mod run;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::network::{Invite, Network};
use umbel_relay::config::{Config, LOCAL_NETWORK, Settings, is_host_port, read_network};
use umbel_relay::operator::Question;
use umbel_relay::shell::usage::error_and_hint;
use umbel_relay::{Initialized, init, known_peer};

use failure::{Exit, Failure, warn};
use network::NetworkCommand;

/// Many small buffers of equal size are made and freed on all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: standard error says why and what to do
  2  the command line or a configuration file is wrong
  3  `network check`: the file can be used, but something is weak
  4  `status`, `why`: no relay runs in the data directory
  5  `init --invite`: no relay of the invitation could be reached
  6  `init --invite`: a relay gave another network file than the invitation names
  7  `init --invite`: a relay of the invitation, or this program, is of too early a version";

const RUN_HELP: &str = "\
Signals:
  TERM, INT  stop: end every circuit, complete outstanding writes
  HUP        read umbel-relay.toml again: log, seeds, advertise and limits
             change at once; the log names the keys that need a restart";

const STATUS_HELP: &str = "\
Numbers of circuits, handshakes and queues are coarse, so that they tell nothing of one user: the
JSON has the least of a range between two powers of two, 0 for under 16.";

/// Run an Umbel relay, which forwards cells and keeps mailboxes for others
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a relay with an identity of its own, or restore a lost network.toml; overwrites nothing
    Init {
        #[command(flatten)]
        dir: DataDir,
        /// The network file; `local` is the built-in network for one machine, which protects nobody
        #[arg(long, value_name = "FILE", default_value = LOCAL_NETWORK)]
        network: String,
        /// Join with an invitation, the line that `umbel-relay invite-peer` prints; the network file is
        /// fetched from a relay that it names
        #[arg(long, value_name = "LINE", conflicts_with = "network", value_parser = invite::parse)]
        invite: Option<Invite>,
    },
    /// Run the relay; prints `ready PEER` once it accepts links
    #[command(after_help = RUN_HELP)]
    Run {
        #[command(flatten)]
        dir: DataDir,
        /// Accept links at this address; port 0 takes any free port [default: the configuration
        /// file's, else 0.0.0.0:7443; 127.0.0.1:7443 in the network `local`]
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
        /// Advertise this address to others; up to four [default: the configuration file's, else
        /// the listen address]
        #[arg(long, value_name = "HOST:PORT", num_args = 1.., value_parser = parse_host_port)]
        advertise: Vec<String>,
        /// A relay to join through, as its operator gives it: ID@HOST:PORT; may be given several
        /// times
        #[arg(long = "seed", value_name = "PEER", num_args = 1.., value_parser = parse_peer)]
        seeds: Vec<Peer>,
    },
    /// Make or check a network file: everyone in a network uses the same one
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Ask the running relay how it does: whether others reach it, whether it is used, and what to do
    #[command(after_help = STATUS_HELP)]
    Status {
        #[command(flatten)]
        dir: DataDir,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Ask the running relay what it knows of another relay, and why that one is used or not
    Why {
        /// The other relay's id, alone or as ID@HOST:PORT
        #[arg(value_name = "RELAY-ID", value_parser = report::parse_relay)]
        relay: RelayId,
        #[command(flatten)]
        dir: DataDir,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print an invitation to the relay's network: one line, which `umbel init --invite` and
    /// `umbel-relay init --invite` take
    InvitePeer {
        #[command(flatten)]
        dir: DataDir,
    },
    /// Print the relay's ID@HOST:PORT, which others pass to --seed
    Peer {
        #[command(flatten)]
        dir: DataDir,
    },
}

#[derive(Args)]
struct DataDir {
    /// The relay's directory
    #[arg(long, value_name = "DIR", env = "UMBEL_RELAY_DATA_DIR")]
    data_dir: PathBuf,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let outcome = match cli.command {
        Command::Network(command) => {
            return command.run().unwrap_or_else(|failure| failure.report());
        }
        Command::Init {
            dir,
            invite: Some(invite),
            ..
        } => invite::join(&dir.data_dir, &invite),
        Command::Init { dir, network, .. } => {
            let network = read_network(&network).map_err(Failure::from);
            network.and_then(|network| make(&dir.data_dir, &network, None))
        }
        Command::InvitePeer { dir } => invite::print(&dir.data_dir),
        Command::Run {
            dir,
            listen,
            advertise,
            seeds,
        } => run::run(
            &dir.data_dir,
            Settings {
                listen,
                advertise,
                seeds,
            },
        ),
        Command::Peer { dir } => print_peer(&dir),
        Command::Status { dir, json } => report::report(&dir.data_dir, Question::Status, json),
        Command::Why { relay, dir, json } => {
            let relay = relay.to_string();
            report::report(&dir.data_dir, Question::Why { relay }, json)
        }
    };
    outcome.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

/// Help and version are not errors; any other message of clap's is.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let printed = error.print();
        return if error.use_stderr() {
            ExitCode::from(Exit::Usage as u8)
        } else {
            let printed = printed.map_err(|error| unwritten(&error));
            printed.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
        };
    }
    let (error, hint) = error_and_hint(&error.render().to_string());
    Failure::usage(error, hint).report()
}

/// Makes a relay, with this configuration unless it has one.
fn make(data_dir: &Path, network: &Network, config: Option<&str>) -> Result<(), Failure> {
    for name in network.optional.names() {
        warn(&format!(
            "this version does not know optional.{name} of the network file and ignores it"
        ));
    }
    let initialized = init(data_dir, network, config)?;
    if let Initialized::NetworkFile(_) = initialized {
        warn(&format!(
            "{} holds a relay whose network.toml was missing: it was put back, for the network \"{}\", and nothing else was changed",
            data_dir.display(),
            network.name
        ));
    }
    say(&initialized.id().to_string())
}

fn print_peer(dir: &DataDir) -> Result<(), Failure> {
    let (config, _) = Config::load(&dir.data_dir, Settings::default())?;
    say(&known_peer(&config)?.to_string())
}

fn say(line: &str) -> Result<(), Failure> {
    // With one write, so that a reader who wants the first line alone has had all of it.
    let bytes = format!("{line}\n");
    io::stdout()
        .write_all(bytes.as_bytes())
        .map_err(|error| unwritten(&error))
}

fn unwritten(error: &io::Error) -> Failure {
    Failure::failed(
        format!("can't write to standard output: {error}"),
        "check where it goes",
    )
}

fn parse_peer(text: &str) -> Result<Peer, String> {
    text.parse()
        .map_err(|_| "a relay is written ID@HOST:PORT, with an id of 52 characters".to_owned())
}

fn parse_host_port(text: &str) -> Result<String, String> {
    if is_host_port(text) {
        Ok(text.to_owned())
    } else {
        Err("must be HOST:PORT, with a port from 1 to 65535".to_owned())
    }
}
