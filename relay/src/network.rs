//! `umbel-relay network`: network files that people make themselves (docs/protocol.md §8.6).

mod advice;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use rand::Rng;
use serde::Serialize;
use umbel_proto::ids::{NetworkId, Peer};
use umbel_proto::limits::{NETWORK_NAME_LEN_MAX, SEEDS_MAX};
use umbel_proto::network::{Network, Params, is_name};
use umbel_relay::config::read_network_file;
use umbel_relay::shell::files::write_whole;

use crate::failure::{Exit, Failure, warn};
use crate::{parse_peer, say};
use advice::Advice;

const CHECK_HELP: &str = "\
Exit codes:
  0  the file can be used, and nothing is weak
  2  the file can't be used
  3  the file can be used, but something is weak";

#[derive(Subcommand)]
pub(crate) enum NetworkCommand {
    /// Write the file of a new network: a random id, sound defaults, each parameter explained;
    /// overwrites nothing
    New(NewArgs),
    /// Say what is weak about a network file, and what follows
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The network file
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(crate) struct NewArgs {
    /// The network's name, for people: 1 to 32 of a-z, 0-9 and -
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,
    /// A relay to join through, as its operator gives it: ID@HOST:PORT; may be given several
    /// times. Three in distinct /16 networks let a network begin
    #[arg(long = "seed", value_name = "PEER", num_args = 1.., value_parser = parse_peer)]
    seeds: Vec<Peer>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl NetworkCommand {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::New(args) => make(args).map(|()| ExitCode::SUCCESS),
            Self::Check { file, json } => check(&file, json),
        }
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "must be 1 to {NETWORK_NAME_LEN_MAX} of a-z, 0-9 and -"
        ))
    }
}

fn make(args: NewArgs) -> Result<(), Failure> {
    if args.seeds.len() > SEEDS_MAX {
        return Err(Failure::usage(
            format!("too many seeds: a network file names at most {SEEDS_MAX}"),
            "name those that will stay; any relay can be joined through",
        ));
    }
    let mut id = [0; NetworkId::LEN];
    rand::rng().fill_bytes(&mut id);
    let network = Network {
        id: NetworkId(id),
        name: args.name,
        seeds: args.seeds,
        params: Params::NEW,
        ..Network::local()
    };
    write_whole(&args.out, network.to_explained_toml().as_bytes(), false)
        .map_err(|error| unwritten(&args.out, &error))?;
    for advice in advice::of(&network) {
        warn(&advice.to_string());
    }
    let file = args.out.display();
    say(&format!(
        "Wrote {file}. Everyone in the network uses this file, unchanged:\n\
         each operator: umbel-relay init --network {file} --data-dir DIR\n\
         each user:     umbel init --network {file}"
    ))
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    let text = format!("can't write {}: {error}", path.display());
    let hint = if error.kind() == io::ErrorKind::AlreadyExists {
        "choose another file with --out: nothing is overwritten"
    } else {
        "check the path, its permissions and the room on the disk"
    };
    Failure::failed(text, hint)
}

/// The answer of `check --json`.
#[derive(Serialize)]
struct Checked<'a> {
    network: &'a str,
    id: String,
    file_hash: Option<String>,
    seeds: usize,
    is_sound: bool,
    weak: &'a [Advice],
    /// Entries of `[optional]`, which this version ignores.
    ignored: Vec<&'a str>,
}

fn check(file: &Path, is_json: bool) -> Result<ExitCode, Failure> {
    let network = read_network_file(file)?;
    let weak = advice::of(&network);
    if is_json {
        let checked = Checked {
            network: &network.name,
            id: network.id.to_string(),
            file_hash: network.file_hash(),
            seeds: network.seeds.len(),
            is_sound: weak.is_empty(),
            weak: &weak,
            ignored: network.optional.names().collect(),
        };
        // Strings, numbers and lists always have a JSON form.
        say(&serde_json::to_string(&checked).unwrap_or_default())?;
    } else {
        for advice in &weak {
            say(&format!("weak: {advice}"))?;
        }
        for name in network.optional.names() {
            say(&format!(
                "ignored: optional.{name}: unknown to this version"
            ))?;
        }
        if let Some(hash) = network.file_hash() {
            say(&format!("hash: {hash}"))?;
        }
        say(&verdict(&network, weak.len()))?;
    }
    Ok(if weak.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Exit::Weak as u8)
    })
}

/// The last line of a check.
fn verdict(network: &Network, weak_count: usize) -> String {
    let (name, seeds) = (&network.name, network.seeds.len());
    match weak_count {
        0 => format!("The network \"{name}\" with {seeds} seeds is sound."),
        1 => format!("The network \"{name}\" can be used, but one point is weak."),
        count => format!("The network \"{name}\" can be used, but {count} points are weak."),
    }
}
