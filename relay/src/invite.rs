//! `umbel-relay invite-peer` and `umbel-relay init --invite`: an invitation, and a relay made by one
//! (docs/protocol.md §8.6(9), §8.6(10)).

use std::io::{self, Write};
use std::path::Path;

use umbel_proto::ids::Peer;
use umbel_proto::network::{Invite, InviteError};
use umbel_relay::config::{Config, Settings, seeds_key};
use umbel_relay::known_peer;
use umbel_relay::operator::{Health, Question, ask};
use umbel_relay::shell::network_of_invite;

use crate::failure::{Failure, warn};
use crate::{make, say};

pub(crate) fn parse(text: &str) -> Result<Invite, String> {
    text.parse().map_err(|error: InviteError| error.to_string())
}

/// Prints an invitation through the relay in `data_dir`, if others reach it, and its seeds.
pub(crate) fn print(data_dir: &Path) -> Result<(), Failure> {
    let (config, network) = Config::load(data_dir, Settings::default())?;
    let mut seeds = Vec::new();
    match reached(data_dir) {
        Ok(()) => seeds.push(known_peer(&config)?),
        Err(why) => warn(&format!("this relay is not in the invitation: {why}")),
    }
    seeds.extend(config.seeds.iter().chain(&network.seeds).cloned());
    let invite = Invite::new(&network, &seeds).map_err(|error| {
        let hint = match error {
            InviteError::FileTooLong => "give others the network file itself",
            _ => {
                "run this relay until `umbel-relay status` says that others reach it, or name seeds"
            }
        };
        Failure::failed(error.to_string(), hint)
    })?;
    say(&invite.to_string())
}

/// Whether others reach the relay that runs there; else why not.
fn reached(data_dir: &Path) -> Result<(), String> {
    let answer = ask(data_dir, Question::Status).map_err(|error| error.to_string())?;
    let Health { reachable, .. } = serde_json::from_str(&answer)
        .map_err(|_| "it does not say whether others reach it".to_owned())?;
    if reachable.is {
        Ok(())
    } else {
        Err(reachable.why)
    }
}

/// Makes a relay of the network that the invitation names. The invitation's seeds become its own.
pub(crate) fn join(data_dir: &Path, invite: &Invite) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::not_started(&error))?;
    let network = runtime.block_on(network_of_invite(invite))?;
    let more = invite.seeds().iter().cloned();
    let more: Vec<Peer> = more.filter(|it| !network.seeds.contains(it)).collect();
    let config = format!("# From the invitation.\n{}", seeds_key(&more));
    make(data_dir, &network, (!more.is_empty()).then_some(&*config))?;
    let joined = format!(
        "the relay is of the network \"{}\", {}",
        network.name, network.id
    );
    // Beside the relay's id, which scripts read from standard output.
    drop(writeln!(io::stderr(), "{joined}"));
    Ok(())
}
