//! Relays inside this program. A whole network on loopback, for `umbel demo` and for tests and
//! benchmarks; and the user's own relay ([`own`]). No other module of this package uses the relay's.

pub mod own;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use umbel_proto::ids::Peer;
use umbel_proto::network::Network;
use umbel_proto::time::Duration;
use umbel_relay::config::Config;
use umbel_relay::{InitError, Relay, StartError, Stats};

/// How long relays may take to discover each other.
const GATHER_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether they have.
const GATHER_STEP: Duration = Duration::from_millis(10);

/// A network could not be run.
#[derive(Debug)]
pub enum LocalError {
    /// There is nowhere to keep it.
    Dir(io::Error),
    /// A relay's identity could not be made.
    Init(InitError),
    /// A relay did not start.
    Relay(StartError),
    /// Some relays did not discover all others in time.
    Apart,
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(error) => write!(f, "could not make a temporary directory: {error}"),
            Self::Init(error) => write!(f, "a relay could not be made: {error}"),
            Self::Relay(error) => write!(f, "a relay did not start: {error}"),
            Self::Apart => write!(
                f,
                "the relays did not find each other in {} s",
                GATHER_MAX.as_secs()
            ),
        }
    }
}

impl std::error::Error for LocalError {}

/// Relays that know each other, each with its own files, links and threads, as if they were
/// strangers.
#[expect(missing_debug_implementations, reason = "holds running relays")]
pub struct LocalNetwork {
    relays: Vec<Relay>,
    dir: TempDir,
}

/// Where one relay is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The address that others dial, if it differs.
    pub advertise: Option<SocketAddr>,
}

impl Place {
    /// On loopback, at this port; 0 is any.
    pub fn at_port(port: u16) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            advertise: None,
        }
    }
}

impl LocalNetwork {
    /// Starts `count` relays, all but the first through the first, and waits until they have
    /// [gathered](Self::gather).
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn start(count: usize) -> Result<Self, LocalError> {
        let network = Self::start_at((0..count).map(|_| Place::at_port(0))).await?;
        network.gather().await?;
        Ok(network)
    }

    /// Starts a relay at each of these places; all but the first join through the first.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn start_at(places: impl IntoIterator<Item = Place>) -> Result<Self, LocalError> {
        let dir = TempDir::with_prefix("umbel-").map_err(LocalError::Dir)?;
        let mut network = Self {
            relays: Vec::new(),
            dir,
        };
        for (index, place) in places.into_iter().enumerate() {
            let data_dir = network.dir.path().join(format!("relay-{index}"));
            umbel_relay::init(&data_dir, &Network::local(), None).map_err(LocalError::Init)?;
            let config = Config {
                listen: place.listen,
                advertise: place.advertise.iter().map(SocketAddr::to_string).collect(),
                seeds: network.peers().into_iter().take(1).collect(),
                threads: 1,
                ..Config::new(data_dir)
            };
            let relay = Relay::start(config, Network::local())
                .await
                .map_err(LocalError::Relay)?;
            network.relays.push(relay);
        }
        Ok(network)
    }

    /// Waits until each relay knows every other: one that does not refuses to extend a circuit to
    /// it (docs/protocol.md §6.3).
    ///
    /// # Errors
    /// [`LocalError::Apart`].
    pub async fn gather(&self) -> Result<(), LocalError> {
        let is_gathered = |stats: &Stats| stats.control.relays >= self.relays.len();
        let gather = async {
            while !self.stats().await.iter().all(is_gathered) {
                sleep(GATHER_STEP).await;
            }
        };
        timeout(GATHER_MAX, gather)
            .await
            .map_err(|_| LocalError::Apart)
    }

    /// The relays, in the order they were started.
    pub fn peers(&self) -> Vec<Peer> {
        self.relays.iter().map(Relay::peer).cloned().collect()
    }

    /// Where each relay listens, in the same order.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.relays.iter().map(Relay::listen_address).collect()
    }

    /// How each relay is doing, in the same order. A relay that has stopped is left out.
    pub async fn stats(&self) -> Vec<Stats> {
        let mut stats = Vec::with_capacity(self.relays.len());
        for relay in &self.relays {
            stats.extend(relay.stats().await);
        }
        stats
    }

    /// Ends all relays in order and removes their files.
    ///
    /// # Errors
    /// The files can't be removed.
    pub async fn stop(self) -> Result<(), LocalError> {
        let mut stopping: JoinSet<()> = self.relays.into_iter().map(Relay::shutdown).collect();
        while stopping.join_next().await.is_some() {}
        self.dir.close().map_err(LocalError::Dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")] // §6.3
    async fn a_network_that_was_started_extends_circuits_to_each_of_its_relays() {
        let network = LocalNetwork::start(5).await.expect("loopback");
        let known: Vec<usize> = network
            .stats()
            .await
            .iter()
            .map(|stats| stats.control.relays)
            .collect();
        assert_eq!(known, [5; 5]);
        network.stop().await.expect("temporary files");
    }
}
