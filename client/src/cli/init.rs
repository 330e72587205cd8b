//! `umbel init`: make a profile.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use umbel_client::{InitError, NewKey, NewProfile, Profile};
use umbel_proto::ids::Peer;
use umbel_proto::network::{Invite, Network};

use super::failure::Failure;
use super::invite;
use super::secret;
use super::session::Session;

/// Through whom a profile, or a new relay, joins its network.
#[derive(clap::Args)]
pub(super) struct Join {
    /// Join with an invitation, the line that `umbel invite-peer` prints; the network file is fetched
    /// from a relay that it names
    #[arg(long, value_name = "LINE", conflicts_with = "network", value_parser = invite::parse)]
    pub(super) invite: Option<Invite>,
    /// A relay to join through, as its operator gives it: ID@HOST:PORT; may be given several times
    #[arg(long = "seed", value_name = "PEER", num_args = 1.., value_parser = parse_peer)]
    pub(super) seeds: Vec<Peer>,
}

#[derive(clap::Args)]
pub(super) struct InitArgs {
    /// The network file; `local` is the built-in network for one machine, which protects nobody
    /// [default: local]
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
    #[command(flatten)]
    join: Join,
    /// Write a random key to this new file, instead of asking for a passphrase
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
}

/// Names the built-in network instead of a file.
const LOCAL: &str = "local";

#[derive(Serialize)]
struct Made<'a> {
    profile: &'a str,
    network: &'a str,
    network_id: String,
    network_file_hash: Option<String>,
    seeds: usize,
    /// None where a passphrase opens the profile.
    key_file: Option<String>,
}

pub(super) fn parse_peer(text: &str) -> Result<Peer, String> {
    text.parse()
        .map_err(|_| "a relay is written ID@HOST:PORT, with an id of 52 characters".to_owned())
}

/// The text of a network file; none for the network that is built in.
fn network_text(path: &Path) -> Result<Option<String>, Failure> {
    if path.as_os_str() == LOCAL {
        return Ok(None);
    }
    fs::read_to_string(path).map(Some).map_err(|error| {
        Failure::usage(
            format!("could not read {}: {error}", path.display()),
            "check the path after --network",
        )
    })
}

/// The network that an option names: `local`, or a file.
pub(super) fn named_network(path: &Path) -> Result<Network, Failure> {
    match network_text(path)? {
        Some(text) => Network::from_toml(&text).map_err(|fault| InitError::Network(fault).into()),
        None => Ok(Network::local()),
    }
}

/// Makes the profile, and looks at it once as any other command would.
pub(super) fn run(session: &Session, args: InitArgs) -> Result<(), Failure> {
    let dir = session.profile_dir()?;
    let mut network = args.network.as_deref().map_or(Ok(None), network_text)?;
    // `create` reports both too, but nobody should type a passphrase twice to learn of them.
    let config = dir.join("profile.toml");
    if config.exists() {
        return Err(InitError::Exists(config).into());
    }
    let mut seeds = args.join.seeds;
    if let Some(invite) = &args.join.invite {
        let invited = invite::fetch(session, invite)?;
        let more = invite.seeds().iter();
        seeds.extend(more.filter(|it| !invited.seeds.contains(it)).cloned());
        network = Some(invited.to_toml());
    }
    if seeds.is_empty() && network.is_none() {
        return Err(InitError::NoSeeds.into());
    }
    let key = match args.key_file {
        Some(path) => NewKey::File(path),
        None => NewKey::Passphrase(secret::new(session, &secret::PROFILE)?),
    };
    let seed_count = seeds.len();
    Profile::create(
        &dir,
        NewProfile {
            network,
            seeds,
            key,
        },
        &mut rand::rng(),
    )?;

    let profile = Profile::load(&dir)?;
    let network = profile.network();
    for name in network.optional.names() {
        session.warn(&format!(
            "this version does not know optional.{name} of the network file and ignores it"
        ));
    }
    if session.is_json() {
        let seeds = seed_count + network.seeds.len();
        let key_file = profile
            .key_file()
            .map(|path| path.to_string_lossy().into_owned());
        return session.json(&Made {
            profile: &dir.to_string_lossy(),
            network: &network.name,
            network_id: network.id.to_string(),
            network_file_hash: network.file_hash(),
            seeds,
            key_file,
        });
    }
    session.line(&format!(
        "Made a profile in {} for the network \"{}\", {}.",
        dir.display(),
        network.name,
        network.id
    ))?;
    if network.params.weaknesses().next().is_some() {
        session.line("This network is for trying things out: it protects nobody.")?;
    } else if let Some(hash) = network.file_hash() {
        session.line(&format!(
            "The hash of the network's file is {hash}: if you got the file through somebody else, ask others for theirs."
        ))?;
    }
    session.line(&loss_words(profile.key_file()))?;
    session.line("Next: `umbel inbox create NAME` to receive, `umbel send ADDRESS` to send.")
}

/// Warns of losing the only thing that opens the profile.
pub(super) fn loss_words(key_file: Option<&Path>) -> String {
    let (what, advice) = match key_file {
        Some(path) => (
            format!("The key in {} opens it", path.display()),
            "keep a copy of it in a safe place",
        ),
        None => (
            "Your passphrase opens it".to_owned(),
            "write it down and keep it in a safe place",
        ),
    };
    format!(
        "{what}, and nothing else does: {advice}. Without it the inboxes and messages are lost for good."
    )
}
