//! `umbel relay`: runs a relay in this process, so that its user adds to the network, too.
//!
//! Its directory is beside the profile's, not in it: a profile that is copied, moved or seized holds
//! nothing of the relay, and the relay's directory nothing of the profile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use umbel_client::local::own::{OwnRelay, OwnRelayError};
use umbel_client::{Profile, Seeds};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::network::Network;
use umbel_proto::time::Duration;
use umbel_relay::shell::network_of_invite;

use super::failure::Failure;
use super::init::{Join, named_network};
use super::session::{Interrupt, Session};

/// How often it is looked how the relay does.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(super) struct RelayArgs {
    /// The relay's directory [env: UMBEL_RELAY_DATA_DIR] [default: umbel-relay in the user's data
    /// directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The network file of a new relay, or `local` [default: the profile's network]
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
    #[command(flatten)]
    join: Join,
    /// Join through the profile's own seeds, too: anyone who runs one, or finds the relay's directory,
    /// can then link the relay to you
    #[arg(long, conflicts_with_all = ["network", "invite"])]
    own_seeds: bool,
    /// Accept links at this address [default: 0.0.0.0:7443; 127.0.0.1:7443 in the network `local`]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Advertise this address to others, such as the router's that forwards the port; up to four
    /// [default: the listen address]
    #[arg(long, value_name = "HOST:PORT", num_args = 1..)]
    advertise: Vec<String>,
}

impl RelayArgs {
    const fn names_seeds(&self) -> bool {
        self.own_seeds || !self.join.seeds.is_empty()
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Ready { peer: String, data_dir: &'a str },
    Health { reachable: bool, health: &'a str },
    Stopped,
}

impl From<OwnRelayError> for Failure {
    fn from(error: OwnRelayError) -> Self {
        let (text, hint) = (error.to_string(), error.hint());
        if error.is_usage() {
            Self::usage(text, hint)
        } else {
            Self::failed(text, hint)
        }
    }
}

/// Where the user's relay is kept, unless it is said otherwise.
fn own_dir() -> Option<PathBuf> {
    let named = std::env::var_os("UMBEL_RELAY_DATA_DIR").filter(|dir| !dir.is_empty());
    let default = || {
        let base = etcetera::choose_base_strategy().ok()?;
        Some(base.data_dir().join("umbel-relay"))
    };
    named.map(PathBuf::from).or_else(default)
}

/// The relay that this user runs, if it is where it is looked for.
pub(super) fn own_relay() -> Option<RelayId> {
    OwnRelay::id_in(&own_dir()?)
}

pub(super) async fn run(session: &Session, args: RelayArgs) -> Result<(), Failure> {
    let interrupt = Interrupt::watch()?;
    let data_dir = args.data_dir.clone().or_else(own_dir).ok_or_else(|| {
        Failure::usage(
            "could not find your data directory",
            "say where with --data-dir DIR",
        )
    })?;
    refuse_profile(&data_dir)?;
    let is_new = OwnRelay::id_in(&data_dir).is_none();
    if is_new {
        let (network, seeds) = network_of(session, &args).await?;
        OwnRelay::make(&data_dir, &network, &seeds)?;
    } else if args.network.is_some() || args.join.invite.is_some() || args.names_seeds() {
        return Err(Failure::usage(
            format!("{} holds a relay already", data_dir.display()),
            "leave --network, --invite, --seed and --own-seeds out to run it, or choose another directory with --data-dir",
        ));
    }
    let mut relay = OwnRelay::start(&data_dir, args.listen, args.advertise).await?;
    let (peer, dir) = (relay.peer().to_string(), data_dir.to_string_lossy());
    let text = format!("The relay {peer} runs; it is kept in {dir}. Ctrl-C stops it.");
    let ready = Event::Ready {
        peer,
        data_dir: &dir,
    };
    say(session, &ready, &text)?;
    let outcome = watch(session, &mut relay, &interrupt).await;
    relay.stop().await;
    outcome?;
    say(session, &Event::Stopped, "The relay has stopped.")
}

/// A relay's directory is neither a profile nor in one.
fn refuse_profile(data_dir: &Path) -> Result<(), Failure> {
    let dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    match dir.ancestors().find(|dir| Profile::is_in(dir)) {
        Some(profile) => Err(Failure::usage(
            format!(
                "{} is a profile, and a relay is kept outside of it",
                profile.display()
            ),
            "choose another directory with --data-dir, or leave it out",
        )),
        None => Ok(()),
    }
}

/// Says how the relay does, each time that it does otherwise, until the user has it stop.
async fn watch(
    session: &Session,
    relay: &mut OwnRelay,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let mut told = None;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = interrupt.wait() => return Ok(()),
            () = relay.failed() => return Err(Failure::failed(
                "the relay has ended by itself",
                "run it again, with --verbose, and report what it says",
            )),
            _ = looks.tick() => {}
        }
        let Some(health) = relay.health().await else {
            continue; // it ends: `failed` says so
        };
        let news = (health.reachable.is, health.health);
        if told.as_ref() != Some(&news) {
            let (reachable, health) = (news.0, &news.1);
            say(session, &Event::Health { reachable, health }, health)?;
            told = Some(news);
        }
    }
}

/// The network of a new relay, and seeds beside the network's. The profile's own seeds are none of
/// them unless the user asks for it: a seed that few others have links the relay to its user.
async fn network_of(session: &Session, args: &RelayArgs) -> Result<(Network, Vec<Peer>), Failure> {
    let mut seeds = args.join.seeds.clone();
    let network = if let Some(invite) = &args.join.invite {
        seeds.extend(invite.seeds().iter().cloned());
        network_of_invite(invite).await?
    } else if let Some(path) = &args.network {
        named_network(path)?
    } else {
        let dir = session.profile_dir()?;
        if args.own_seeds {
            seeds.extend(Seeds::read(&dir)?.own);
        }
        let network = Profile::load(&dir)?.network().clone();
        if network.seeds.is_empty() && !args.names_seeds() {
            return Err(Failure::usage(
                "the profile's network names no seed that a relay could join through",
                "name a relay with --seed ID@HOST:PORT, or take the profile's with --own-seeds",
            ));
        }
        network
    };
    seeds.retain(|seed| !network.seeds.contains(seed));
    Ok((network, seeds))
}

fn say(session: &Session, event: &Event<'_>, text: &str) -> Result<(), Failure> {
    if session.is_json() {
        session.json(event)
    } else {
        session.line(text)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_relay_is_kept_neither_in_a_profiles_directory_nor_below_it() {
        let folder = TempDir::new().expect("a temporary folder");
        let (profile, beside) = (folder.path().join("p"), folder.path().join("relay"));
        std::fs::create_dir(&profile).expect("a directory");
        assert!(refuse_profile(&profile).is_ok(), "it is no profile yet");
        std::fs::write(profile.join("profile.toml"), "").expect("a file");
        for dir in [&profile, &profile.join("relay")] {
            let refused = refuse_profile(dir).expect_err("it is a profile");
            assert!(refused.error.contains("is a profile"), "{}", refused.error);
        }
        assert!(refuse_profile(&beside).is_ok());
    }
}
