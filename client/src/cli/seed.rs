//! `umbel seed`: the relays to ask when no other is known. Needs neither the network nor the
//! profile's key.

use clap::Subcommand;
use serde::Serialize;
use umbel_client::{SeedAdded, Seeds};
use umbel_proto::ids::{Peer, RelayId};

use super::failure::Failure;
use super::init::parse_peer;
use super::session::Session;

#[derive(Subcommand)]
pub(super) enum SeedCommand {
    /// Add seeds, or give the new address of one that has moved
    Add {
        /// A relay, as its operator gives it: ID@HOST:PORT
        #[arg(value_name = "PEER", required = true, value_parser = parse_peer)]
        peers: Vec<Peer>,
    },
    /// List the seeds
    List,
    /// Remove a seed
    Remove {
        /// The relay's id: the part before the @
        #[arg(value_name = "ID", value_parser = parse_relay)]
        relay: RelayId,
    },
}

#[derive(Serialize)]
struct Changed {
    seed: String,
    state: &'static str,
}

#[derive(Serialize)]
struct Listed {
    seed: String,
    relay: String,
    address: String,
    /// `profile` or `network`.
    from: &'static str,
}

/// Takes a whole peer as well: it is what `list` prints.
fn parse_relay(text: &str) -> Result<RelayId, String> {
    let id = text.split_once('@').map_or(text, |(id, _)| id);
    id.parse().map_err(|_| {
        "a relay's id has 52 letters and digits; `umbel seed list` shows them".to_owned()
    })
}

pub(super) fn run(session: &Session, command: &SeedCommand) -> Result<(), Failure> {
    match command {
        SeedCommand::Add { peers } => add(session, peers),
        SeedCommand::List => list(session),
        SeedCommand::Remove { relay } => {
            let removed = Seeds::remove(&session.profile_dir()?, relay)?;
            tell(session, &removed, "removed", "Removed")
        }
    }
}

fn add(session: &Session, peers: &[Peer]) -> Result<(), Failure> {
    let added = Seeds::add(&session.profile_dir()?, peers)?;
    for (peer, added) in peers.iter().zip(added) {
        match added {
            SeedAdded::Added => tell(session, peer, "added", "Added")?,
            SeedAdded::Moved => tell(session, peer, "moved", "Changed the address of")?,
        }
    }
    if session.is_json() {
        return Ok(());
    }
    session.line("An umbel that is running uses it once it reaches no relay.")
}

fn tell(session: &Session, peer: &Peer, state: &'static str, verb: &str) -> Result<(), Failure> {
    if session.is_json() {
        return session.json(&Changed {
            seed: peer.to_string(),
            state,
        });
    }
    session.line(&format!("{verb} {peer}"))
}

fn list(session: &Session) -> Result<(), Failure> {
    let Seeds { own, network } = Seeds::read(&session.profile_dir()?)?;
    let own = own.iter().map(|peer| (peer, "profile"));
    for (peer, from) in own.chain(network.iter().map(|peer| (peer, "network"))) {
        if session.is_json() {
            let (seed, relay, address) = (
                peer.to_string(),
                peer.id.to_string(),
                peer.host_port.clone(),
            );
            session.json(&Listed {
                seed,
                relay,
                address,
                from,
            })?;
        } else if from == "network" {
            session.line(&format!("{peer}  (from the network file)"))?;
        } else {
            session.line(&peer.to_string())?;
        }
    }
    Ok(())
}
