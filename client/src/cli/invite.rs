//! `umbel invite-peer` and `umbel init --invite`: an invitation to a profile's network, and the
//! network of one (docs/protocol.md §8.6(9), §8.6(10)).
//!
//! It names seeds only, and the profile's own only if that is asked for: of guards, or of any relay
//! that the profile knows, it tells nothing.

use serde::Serialize;
use umbel_client::{Profile, Seeds};
use umbel_proto::ids::Peer;
use umbel_proto::network::{Invite, InviteError, Network};
use umbel_relay::shell::network_of_invite;

use super::failure::Failure;
use super::init::parse_peer;
use super::runtime::block_on;
use super::session::Session;

#[derive(clap::Args)]
pub(super) struct InvitePeerArgs {
    /// Name this relay in the invitation, before the network's seeds; may be given several times
    #[arg(long = "seed", value_name = "PEER", num_args = 1.., value_parser = parse_peer)]
    seeds: Vec<Peer>,
    /// Name the profile's own seeds, too: whoever reads the invitation may learn by them who invited
    /// you
    #[arg(long)]
    own_seeds: bool,
}

#[derive(Serialize)]
struct Invited<'a> {
    invite: String,
    network: &'a str,
    network_id: String,
}

pub(super) fn parse(text: &str) -> Result<Invite, String> {
    text.parse().map_err(|error: InviteError| error.to_string())
}

pub(super) fn run(session: &Session, args: InvitePeerArgs) -> Result<(), Failure> {
    let dir = session.profile_dir()?;
    let profile = Profile::load(&dir)?;
    let Seeds { own, network } = Seeds::read(&dir)?;
    let own = if args.own_seeds { own } else { Vec::new() };
    let seeds = [args.seeds, network, own].concat();
    let network = profile.network();
    let invite = Invite::new(network, &seeds).map_err(|error| {
        let hint = match error {
            InviteError::FileTooLong => "give others the network file itself",
            _ => "name a relay with --seed ID@HOST:PORT, or the profile's seeds with --own-seeds",
        };
        Failure::failed(error.to_string(), hint)
    })?;
    if session.is_json() {
        return session.json(&Invited {
            invite: invite.to_string(),
            network: &network.name,
            network_id: network.id.to_string(),
        });
    }
    session.line(&invite.to_string())
}

/// The network of an invitation, from the relays that it names.
pub(super) fn fetch(session: &Session, invite: &Invite) -> Result<Network, Failure> {
    session.show("asking for the network's file");
    let mut fetched = None;
    let fetching = async {
        fetched = Some(network_of_invite(invite).await?);
        Ok(())
    };
    let outcome = block_on(fetching);
    session.show_nothing();
    outcome?;
    fetched.ok_or_else(Failure::interrupted)
}
