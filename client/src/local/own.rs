//! A relay that the user runs beside the client, in a directory of its own, with limits that suit a
//! home machine.
//!
//! It shares nothing with a profile: not the identity, not the directory, not a link. A client only
//! has to know its id, so as never to use it (docs/protocol.md §6.4(13)).

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::network::Network;
use umbel_relay::config::{Config, ConfigError, Settings, seeds_key};
use umbel_relay::operator::Health;
use umbel_relay::store::keys;
use umbel_relay::{InitError, OpenFiles, Relay, StartError};

/// The limits of a relay at home: what a line of some Mbit/s and an old machine spare. Its owner may
/// change the file.
const LIMITS: &str = "\
# Limits for a relay on a home machine; docs/operating.md, *Configuration*, has all keys.
memory_budget_mib = 128
threads = 1
links_max = 512
links_per_group_max = 64
half_open_max = 64
half_open_per_group_max = 16
circuits_max = 4096
inbox_descriptors_max = 2048
queues_max = 2048
records_max = 100000
records_disk_mib = 1024
";

/// The user's relay could not be made, or does not run.
#[derive(Debug)]
pub enum OwnRelayError {
    /// It could not be made.
    Init(InitError),
    /// Its files, or what was asked for, are wrong.
    Config(ConfigError),
    /// It did not start.
    Start(StartError),
}

impl OwnRelayError {
    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Init(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Start(error) => error.hint(),
        }
    }

    /// Whether trying again changes nothing.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Config(error) => error.is_usage(),
            Self::Start(error) => error.is_usage(),
            Self::Init(_) => false,
        }
    }
}

impl fmt::Display for OwnRelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init(error) => write!(f, "{error}"),
            Self::Config(error) => write!(f, "{error}"),
            Self::Start(error) => write!(f, "the relay did not start: {error}"),
        }
    }
}

impl std::error::Error for OwnRelayError {}

/// A relay that the user runs.
#[expect(missing_debug_implementations, reason = "holds a running relay")]
pub struct OwnRelay {
    relay: Relay,
}

impl OwnRelay {
    /// The relay that is kept in this directory; `None` if there is none.
    pub fn id_in(data_dir: &Path) -> Option<RelayId> {
        let identity = keys::load(data_dir).ok()?;
        Some(identity.public().into())
    }

    /// Makes a relay of this network, which joins through these seeds beside the network's.
    ///
    /// # Errors
    /// There is one already, or the disk fails.
    pub fn make(data_dir: &Path, network: &Network, seeds: &[Peer]) -> Result<(), OwnRelayError> {
        let config = format!("{LIMITS}{}", seeds_key(seeds));
        umbel_relay::init(data_dir, network, Some(&config)).map_err(OwnRelayError::Init)?;
        Ok(())
    }

    /// Runs the relay that is kept in this directory. What is given here counts more than its
    /// configuration.
    ///
    /// # Errors
    /// See [`OwnRelayError`].
    pub async fn start(
        data_dir: &Path,
        listen: Option<SocketAddr>,
        advertise: Vec<String>,
    ) -> Result<Self, OwnRelayError> {
        let flags = Settings {
            listen,
            advertise,
            seeds: Vec::new(),
        };
        let (mut config, network) = Config::load(data_dir, flags).map_err(OwnRelayError::Config)?;
        OpenFiles::fit(&mut config);
        let started = Box::pin(Relay::start(config, network)).await;
        let relay = started.map_err(OwnRelayError::Start)?;
        relay.watch_itself();
        Ok(Self { relay })
    }

    /// Its id and address.
    pub const fn peer(&self) -> &Peer {
        self.relay.peer()
    }

    /// How it does, in one sentence, and whether others reach it; `None` once it has stopped.
    pub async fn health(&self) -> Option<Health> {
        self.relay.health().await
    }

    /// Waits until it ends by itself.
    pub async fn failed(&mut self) {
        self.relay.failed().await;
    }

    /// Ends it: all that is queued is sent and stored, within about five seconds.
    pub async fn stop(self) {
        self.relay.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn it_is_made_once_runs_within_its_limits_and_says_how_it_does() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path().join("relay");
        assert_eq!(OwnRelay::id_in(&dir), None);
        OwnRelay::make(&dir, &Network::local(), &[]).expect("a relay");
        let again = OwnRelay::make(&dir, &Network::local(), &[]);
        assert!(matches!(again, Err(OwnRelayError::Init(_))));
        let (config, _) = Config::load(&dir, Settings::default()).expect("its configuration");
        assert_eq!((config.circuits_max, config.links_max), (4096, 512));
        assert_eq!(config.memory_budget_bytes, 128 << 20);
        let listen = Some(([127, 0, 0, 1], 0).into());
        let relay = OwnRelay::start(&dir, listen, Vec::new())
            .await
            .expect("it runs");
        assert_eq!(OwnRelay::id_in(&dir), Some(relay.peer().id));
        let health = relay.health().await.expect("an answer");
        assert!(!health.health.is_empty());
        relay.stop().await;
    }
}
