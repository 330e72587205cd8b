//! A relay as a whole: made once, started, asked how it does, stopped.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::descriptor::{DescriptorFault, Roles, Unverified};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::inbox::holder::HolderLimits;
use umbel_proto::limits::ADDRESSES_MAX;
use umbel_proto::link::{Hello, tls};
use umbel_proto::network::Network;

use crate::config::{Config, NETWORK_FILE};
use crate::control::{Control, ControlConfig, ControlStats};
use crate::net::listen::{self, AcceptLimits};
use crate::net::plane::{Inputs, Plane};
use crate::net::{Clock, Shared, dial, wall_now};
use crate::store::keys::{self, KeyError};
use crate::store::{Store, StoreError};

/// Held while a relay runs, so that no two processes share a data directory.
const LOCK_FILE: &str = "lock";
/// What lasts, apart from the identity.
const STORE_FILE: &str = "relay.db";
/// Where the relay could be dialled when it last ran.
const ADDRESS_FILE: &str = "address";
/// Questions about the relay's state that wait for an answer.
const STATS_QUESTIONS_MAX: usize = 16;

/// Makes a relay: an identity in `data_dir`, and a note of its network. Never overwrites either.
///
/// # Errors
/// There is a relay already, or the disk fails.
pub fn init(data_dir: &Path, network: &Network) -> Result<RelayId, InitError> {
    let disk = |error| InitError::Disk { path: data_dir.to_owned(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(disk)?;
    if data_dir.join(keys::IDENTITY_FILE).try_exists().map_err(disk)? {
        return Err(InitError::Exists(data_dir.to_owned()));
    }
    fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700)).map_err(disk)?;
    // The identity comes last: where there is one, all is there.
    keys::write_atomically(&data_dir.join(NETWORK_FILE), network.to_toml().as_bytes()).map_err(disk)?;
    match keys::create(data_dir) {
        Ok(key) => Ok(key.public().into()),
        Err(KeyError::Io(error)) => Err(disk(error)),
        Err(_) => Err(InitError::Exists(data_dir.to_owned())),
    }
}

/// What others dial the relay by that is kept in `config.data_dir`, without starting it.
///
/// # Errors
/// There is no relay, or nothing says where it will be.
pub fn known_peer(config: &Config) -> Result<Peer, StartError> {
    let id = keys::load(&config.data_dir).map_err(StartError::Identity)?.public().into();
    let last_run = || fs::read_to_string(config.data_dir.join(ADDRESS_FILE)).ok();
    let is_listen_known = !config.listen.ip().is_unspecified() && config.listen.port() != 0;
    let listen = || is_listen_known.then(|| config.listen.to_string());
    let host_port = config.advertise.clone().or_else(last_run).or_else(listen).ok_or(StartError::NoAddress)?;
    Ok(Peer { id, host_port: host_port.trim().to_owned() })
}

/// A relay that runs. Dropping it stops it too, but waits for nothing; see [`shutdown`](Self::shutdown).
#[expect(missing_debug_implementations, reason = "holds the identity key")]
pub struct Relay {
    peer: Peer,
    listen: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    stats: mpsc::Sender<oneshot::Sender<ControlStats>>,
    plane: JoinHandle<()>,
}

/// How a relay is doing. Only sums: nothing tells one user from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// What the control plane knows.
    pub control: ControlStats,
    /// Cells read from links so far.
    pub received_cells: u64,
    /// Cells handed from one link to another so far.
    pub forwarded_cells: u64,
    /// Cells written to links of clients so far. With the cells received by all relays, all that a network carried.
    pub client_cells: u64,
    /// Cells that found no room, or no link any more.
    pub dropped_cells: u64,
    /// Cells of circuits that were just gone.
    pub stale_cells: u64,
    /// Cells that wait to be sent now.
    pub queued_cells: usize,
    /// Connections that were closed at once, because there were too many.
    pub refused_conns: u64,
    /// Connections that never became a link.
    pub failed_conns: u64,
}

impl Relay {
    /// Starts the relay that is kept in `config.data_dir`; it accepts links when this returns.
    ///
    /// Has to be called on a tokio runtime with time and IO, which carries the relay's tasks.
    ///
    /// # Errors
    /// Something that the relay needs is missing, taken or broken.
    pub async fn start(config: Config, network: Network) -> Result<Self, StartError> {
        let lock = lock(&config.data_dir)?;
        let identity = keys::load(&config.data_dir).map_err(StartError::Identity)?;
        let listener =
            listen::bind(config.listen).map_err(|error| StartError::Listen { address: config.listen, error })?;
        let listen = listener.local_addr().map_err(|error| StartError::Listen { address: config.listen, error })?;
        let (host_port, addresses) = find_addresses(&config, listen).await?;
        let peer = Peer { id: identity.public().into(), host_port };

        let (untaken, stored) = mpsc::unbounded_channel();
        let store_path = config.data_dir.join(STORE_FILE);
        let answers = untaken.clone();
        let on_done = Box::new(move |done| drop(answers.send(done))); // nobody listens any more once the relay stops
        let opened = tokio::task::spawn_blocking(move || Store::open(&store_path, on_done)).await;
        let (store, restored) = opened.map_err(|_| StartError::Stopped)?.map_err(StartError::Store)?;

        let clock = Clock::start();
        let control_config = ControlConfig {
            network: network.clone(),
            identity: SigningKey::from_seed(&identity.seed()),
            addresses,
            roles: Roles(Roles::HOLDER.0 | Roles::DIRECTORY.0),
            seeds: network.seeds.iter().chain(&config.seeds).filter(|seed| seed.id != peer.id).cloned().collect(),
            holder: HolderLimits::of_network(&network.params),
            circuits_max: config.circuits_max,
            frames_bytes_max: config.memory_budget_bytes / 2,
            inbox_descriptors_max: config.inbox_descriptors_max,
        };
        let mut rng: rand::rngs::StdRng = rand::make_rng();
        let control = Control::new(control_config, restored, clock.now(), wall_now(), &mut rng);
        check_addresses(&control.hello(wall_now()), &network)?;
        let tls_config = tls::accept_config(&identity).map_err(StartError::Tls)?;
        let (shared, reports) =
            Shared::new(network, identity, config.memory_budget_bytes / 2, control.hello(wall_now()));

        let (stop, stopped) = watch::channel(false);
        let (stats, stats_questions) = mpsc::channel(STATS_QUESTIONS_MAX);
        let inputs = Inputs { reports, stored, stats: stats_questions, stop: stopped.clone() };
        let plane = Plane::new(control, Arc::clone(&shared), clock, (store, untaken), config.seeds.clone(), inputs);
        let plane = tokio::spawn(async move {
            plane.run().await;
            drop(lock); // the last thing of all: now another process may have the directory
        });
        tokio::spawn(listen::accept(listener, tls_config, limits(&config), Arc::clone(&shared), stopped));
        remember_address(&config.data_dir, &peer.host_port);
        Ok(Self { peer, listen, shared, stop, stats, plane })
    }

    /// What others dial it by.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Where it listens: not what others dial, if it advertises another address.
    pub const fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// How it is doing; `None` once it has stopped.
    pub async fn stats(&self) -> Option<Stats> {
        let (question, answer) = oneshot::channel();
        self.stats.send(question).await.ok()?;
        let control = answer.await.ok()?;
        let sum = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        Some(Stats {
            control,
            received_cells: sum(&counters.received_cells),
            forwarded_cells: sum(&counters.forwarded_cells),
            client_cells: sum(&counters.client_cells),
            dropped_cells: sum(&counters.dropped_cells),
            stale_cells: sum(&counters.stale_cells),
            queued_cells: self.shared.budget.used_cells(),
            refused_conns: sum(&counters.refused_conns),
            failed_conns: sum(&counters.failed_conns),
        })
    }

    /// Waits until it ends without having been told to: a fault of ours, after which it serves nobody.
    pub async fn failed(&mut self) {
        let _ = (&mut self.plane).await; // the panic itself has been reported
    }

    /// Stops it: accepts nothing more, tells every circuit, sends and stores what waits. Returns within about five seconds.
    pub async fn shutdown(self) {
        let _ = self.stop.send(true); // it may have failed
        if !self.plane.is_finished() {
            let _ = self.plane.await;
        }
    }
}

fn limits(config: &Config) -> AcceptLimits {
    AcceptLimits {
        half_open_max: config.half_open_max,
        half_open_per_group_max: config.half_open_per_group_max,
        links_max: config.links_max,
        links_per_group_max: config.links_per_group_max,
    }
}

fn lock(data_dir: &Path) -> Result<File, StartError> {
    let path = data_dir.join(LOCK_FILE);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StartError::Identity(KeyError::Missing),
        _ => StartError::Lock { path: path.clone(), error },
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(StartError::Lock { path, error }),
    }
}

/// What others dial: as they write it, and as it stands in the descriptor.
async fn find_addresses(config: &Config, listen: SocketAddr) -> Result<(String, Vec<SocketAddr>), StartError> {
    if let Some(host_port) = &config.advertise {
        let mut addresses = dial::resolve(host_port).await;
        addresses.sort_unstable_by_key(|address| address.is_ipv6()); // more of the network can reach v4
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(StartError::Advertise(host_port.clone()));
        }
        return Ok((host_port.clone(), addresses));
    }
    let ip = if listen.ip().is_unspecified() { own_ip(listen.ip()) } else { listen.ip() };
    let address = SocketAddr::new(ip, listen.port());
    Ok((address.to_string(), vec![address]))
}

/// Whether others of the network will take what this relay says of its addresses.
fn check_addresses(hello: &Hello, network: &Network) -> Result<(), StartError> {
    let own = hello.descriptor.as_deref().map(|bytes| Unverified::decode(bytes)?.verify(network, hello.clock));
    match own {
        Some(Err(DescriptorFault::AddressPrivate | DescriptorFault::Address)) => Err(StartError::NotPublic),
        // Whatever else may be missing is not the operator's: receipts come from others.
        _ => Ok(()),
    }
}

/// The address that this machine would send from. Nothing is sent: a datagram socket is only pointed at an address that nobody has.
fn own_ip(listen: IpAddr) -> IpAddr {
    let (any, nobody, loopback) = match listen {
        IpAddr::V4(any) => (any.into(), Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(any) => {
            (any.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into())
        }
    };
    let pointed = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(nobody, 9))?;
        socket.local_addr()
    });
    pointed.map_or(loopback, |address| address.ip())
}

/// For `known_peer`. A relay runs as well without.
fn remember_address(data_dir: &Path, host_port: &str) {
    if let Err(error) = keys::write_atomically(&data_dir.join(ADDRESS_FILE), host_port.as_bytes()) {
        tracing::warn!(%error, "can't note the relay's address in its data directory");
    }
}

/// Why no relay was made.
#[derive(Debug)]
pub enum InitError {
    /// There is one already.
    Exists(PathBuf),
    /// The disk.
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => {
                write!(f, "{} holds a relay already, which is left as it is; choose another directory", path.display())
            }
            Self::Disk { path, error } => write!(f, "can't make a relay in {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for InitError {}

/// Why a relay did not start.
#[derive(Debug)]
pub enum StartError {
    /// Its identity can't be had.
    Identity(KeyError),
    /// Another process has its data directory.
    InUse(PathBuf),
    /// Its data directory can't be locked.
    Lock {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It can't listen.
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The host that it is to advertise can't be found.
    Advertise(String),
    /// Nothing says where it can be dialled.
    NoAddress,
    /// It can't be dialled from outside at the address it would advertise, and its network is for relays that can.
    NotPublic,
    /// What it keeps can't be opened.
    Store(StoreError),
    /// TLS does not work on this machine.
    Tls(rustls::Error),
    /// The runtime is stopping.
    Stopped,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(KeyError::Missing) => {
                f.write_str("no relay is kept there: make one with `umbel-relay init --data-dir DIR`")
            }
            Self::Identity(KeyError::Malformed) => {
                f.write_str("the file `identity` is damaged: put its copy back, or make another relay elsewhere")
            }
            Self::Identity(KeyError::Exists) => f.write_str("there is a relay already"),
            Self::Identity(KeyError::Io(error)) => write!(f, "can't read the file `identity`: {error}"),
            Self::InUse(path) => write!(f, "another process runs the relay in {}: stop it first", path.display()),
            Self::Lock { path, error } => write!(f, "can't lock {}: {error}", path.display()),
            Self::Listen { address, error } => {
                write!(f, "can't listen on {address}: {error}; choose another address with --listen")
            }
            Self::Advertise(host_port) => {
                write!(f, "can't find the host of {host_port}: correct --advertise, or give an IP address")
            }
            Self::NoAddress => {
                f.write_str("nothing says where the relay can be dialled: run it once, or set `advertise`")
            }
            Self::NotPublic => f.write_str(
                "this network needs a public address: say how to reach the relay with --advertise host:port",
            ),
            Self::Store(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "TLS does not work here: {error}"),
            Self::Stopped => f.write_str("the program is stopping"),
        }
    }
}

impl std::error::Error for StartError {}
