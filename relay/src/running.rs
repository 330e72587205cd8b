//! A relay as a whole: made once, started, asked how it does, stopped.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::descriptor::{DescriptorFault, Roles, Unverified};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::link::{Hello, tls};
use umbel_proto::network::Network;

use crate::config::{CONFIG_FILE, Config, NETWORK_FILE};
use crate::control::io::ControlStats;
use crate::control::io::{Snapshot, StoreDone};
use crate::control::{Control, ControlConfig, Tuning};
use crate::error::{InitError, StartError};
use crate::heartbeat;
use crate::net::addresses::Addresses;
use crate::net::listen::{self, AcceptLimits};
use crate::net::plane::{Ask, ControlPlane, Inputs};
use crate::net::{LinkReport, Shared, selfcheck};
use crate::operator::{self, Health, SocketFile};
use crate::shell::Clock;
use crate::shell::files::{sweep, write_whole};
use crate::store::Store;
use crate::store::keys::{self, KeyError};

/// Held while a relay runs, so that no two processes share a data directory.
const LOCK_FILE: &str = "lock";
/// The durable state, apart from the identity.
pub(crate) const STORE_FILE: &str = "relay.db";
/// Where the relay could be dialled when it last ran.
const ADDRESS_FILE: &str = "address";
/// Questions and orders that wait for the control plane.
const ASKS_MAX: usize = 16;

/// The result of [`init`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialized {
    /// A new relay.
    New(RelayId),
    /// A relay existed without its network file, which is back. Nothing else changed.
    NetworkFile(RelayId),
}

impl Initialized {
    /// The relay in the directory.
    pub const fn id(self) -> RelayId {
        match self {
            Self::New(id) | Self::NetworkFile(id) => id,
        }
    }
}

/// Makes a relay: an identity in `data_dir`, a note of its network, and this configuration, unless
/// there is one. Restores the note if only that is missing. Overwrites nothing of a relay that
/// exists.
///
/// # Errors
/// There is a relay already, or the disk fails.
pub fn init(
    data_dir: &Path,
    network: &Network,
    config: Option<&str>,
) -> Result<Initialized, InitError> {
    let disk = |error| InitError::Disk {
        path: data_dir.to_owned(),
        error,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(disk)?;
    if data_dir
        .join(keys::IDENTITY_FILE)
        .try_exists()
        .map_err(disk)?
    {
        return restore_network_file(data_dir, network);
    }
    fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700)).map_err(disk)?;
    // The identity comes last: where there is one, all is there.
    if let Some(config) = config {
        match write_whole(&data_dir.join(CONFIG_FILE), config.as_bytes(), false) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(disk(error)),
            _ => {}
        }
    }
    write_whole(
        &data_dir.join(NETWORK_FILE),
        network.to_toml().as_bytes(),
        true,
    )
    .map_err(disk)?;
    match keys::create(data_dir) {
        Ok(key) => Ok(Initialized::New(key.public().into())),
        Err(KeyError::Io(error)) => Err(disk(error)),
        Err(_) => Err(InitError::Exists(data_dir.to_owned())),
    }
}

/// Writes the network file of a relay that has lost it.
fn restore_network_file(data_dir: &Path, network: &Network) -> Result<Initialized, InitError> {
    let exists = || InitError::Exists(data_dir.to_owned());
    let disk = |error| InitError::Disk {
        path: data_dir.to_owned(),
        error,
    };
    let path = data_dir.join(NETWORK_FILE);
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let identity = keys::load(data_dir).map_err(|error| match error {
        KeyError::Io(error) => disk(error),
        _ => disk(io::Error::other("the file `identity` is damaged")),
    })?;
    write_whole(&path, network.to_toml().as_bytes(), false).map_err(|error| {
        match error.kind() {
            io::ErrorKind::AlreadyExists => exists(),
            _ => disk(error),
        }
    })?;
    Ok(Initialized::NetworkFile(identity.public().into()))
}

/// The id and address that others dial for the relay in `config.data_dir`, without starting it.
///
/// # Errors
/// There is no relay, or nothing says where it will be.
pub fn known_peer(config: &Config) -> Result<Peer, StartError> {
    let id = keys::load(&config.data_dir)
        .map_err(StartError::Identity)?
        .public()
        .into();
    let last_run = || fs::read_to_string(config.data_dir.join(ADDRESS_FILE)).ok();
    let is_listen_known = !config.listen.ip().is_unspecified() && config.listen.port() != 0;
    let listen = || is_listen_known.then(|| config.listen.to_string());
    let host_port = config
        .advertise
        .first()
        .cloned()
        .or_else(last_run)
        .or_else(listen)
        .ok_or(StartError::NoAddress)?;
    Ok(Peer {
        id,
        host_port: host_port.trim().to_owned(),
    })
}

/// A relay that runs. Dropping it stops it too, but waits for nothing; see
/// [`shutdown`](Self::shutdown).
#[expect(missing_debug_implementations, reason = "holds the identity key")]
pub struct Relay {
    peer: Peer,
    listen: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    asks: mpsc::Sender<Ask>,
    accept_limits: watch::Sender<AcceptLimits>,
    advertise: watch::Sender<Vec<String>>,
    config: watch::Sender<Config>,
    operator: Arc<operator::Source>,
    addresses: watch::Receiver<Vec<SocketAddr>>,
    is_store_lost: Arc<AtomicBool>,
    plane: JoinHandle<()>,
}

/// Why a relay ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A fault of ours, which was reported where it happened.
    Fault,
    /// Its store was deleted or replaced: mail that it can't keep it does not take.
    StoreLost,
}

/// How a relay is doing. Only sums, which tell no user from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// A snapshot of the control plane.
    pub control: ControlStats,
    /// Cells read from links so far.
    pub received_cells: u64,
    /// Cells handed from one link to another so far.
    pub forwarded_cells: u64,
    /// Cells written to links of clients so far. With the cells received by all relays, all that a
    /// network carried.
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
        sweep(&config.data_dir);
        let identity = keys::load(&config.data_dir).map_err(StartError::Identity)?;
        let (listener, listen) = bind(config.listen, &network)?;
        let addresses = Addresses::find(&config.advertise, listen, &network).await;
        check_loopback(addresses.current(), &network)?;
        let peer = Peer {
            id: identity.public().into(),
            host_port: addresses.host_port(),
        };
        let opened = open_store(&config.data_dir).await?;

        let clock = Clock::start();
        let control_config = control_config(&config, &network, &identity, addresses.current());
        let mut rng: rand::rngs::StdRng = rand::make_rng();
        let moment = clock.moment();
        let control = Control::new(control_config, opened.snapshot, moment, &mut rng);
        let hello = control.hello(moment.wall);
        check_addresses(&hello, &network)?;
        let tls_config = tls::accept_config(&identity).map_err(StartError::Tls)?;
        let (shared, reports) = share(&config, network, identity, hello, clock, listen);

        let (stop, stopped) = watch::channel(false);
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let inputs = Inputs {
            reports,
            stored: opened.stored,
            asks: asked,
            stop: stopped.clone(),
        };
        let store = opened.store.state();
        let plane = ControlPlane::new(
            control,
            Arc::clone(&shared),
            (opened.store, opened.untaken),
            seeds(&config, &shared.network, peer.id),
            inputs,
        );
        let (accept_limits, limits) = watch::channel(limits(&config));
        let accept = listen::accept(listener, tls_config, limits, Arc::clone(&shared), stopped);
        tokio::spawn(accept);
        let (advertise, addresses) = watch_addresses(addresses, &config, &peer, asks.clone());
        let config = watch::Sender::new(config);
        let operator = Arc::new(operator::Source {
            peer: peer.clone(),
            listen,
            started_at: tokio::time::Instant::now(),
            asks: asks.clone(),
            shared: Arc::clone(&shared),
            store,
            config: config.subscribe(),
        });
        let socket = operator::open(Arc::clone(&operator), stop.subscribe());
        Ok(Self {
            peer,
            listen,
            shared,
            stop,
            asks,
            accept_limits,
            advertise,
            config,
            operator,
            addresses,
            is_store_lost: Arc::default(),
            plane: spawn(plane, socket, lock),
        })
    }

    /// Takes up what may change while the relay runs; [`Config::restart_keys`] names what may not.
    pub fn reload(&self, config: &Config) {
        self.accept_limits.send_replace(limits(config));
        self.config.send_replace(config.clone());
        let tuning = tuning(config, &self.shared.network, self.peer.id);
        self.advertise.send_if_modified(|advertise| {
            let is_new = *advertise != config.advertise;
            advertise.clone_from(&config.advertise);
            is_new
        });
        let asks = self.asks.clone();
        // It may have to wait for others who ask; a relay that has stopped needs no limits.
        tokio::spawn(async move { drop(asks.send(Ask::Tuning(Box::new(tuning))).await) });
    }

    /// The id and address that others dial.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Where it listens: not what others dial, if it advertises another address.
    pub const fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// What its operator is told first, without its control socket; `None` once it has stopped.
    pub async fn health(&self) -> Option<Health> {
        self.operator.health().await
    }

    /// How it is doing; `None` once it has stopped.
    pub async fn stats(&self) -> Option<Stats> {
        self.stats_source().stats().await
    }

    fn stats_source(&self) -> StatsSource {
        StatsSource {
            asks: self.asks.clone(),
            shared: Some(Arc::clone(&self.shared)),
        }
    }

    /// From now on the log carries a heartbeat every six hours, and whatever is wrong with the
    /// relay's addresses, identity or data directory, for which it dials itself. A relay whose
    /// store is lost ends.
    pub fn watch_itself(&self) {
        let data_dir = self.config.borrow().data_dir.clone();
        let mut stop = self.stop.subscribe();
        let (network, peer) = (self.shared.network.clone(), self.peer.clone());
        let beat = heartbeat::beat(self.stats_source(), self.config.subscribe(), network, peer);
        let dial = selfcheck::dial_self(
            Arc::clone(&self.shared),
            self.addresses.clone(),
            stop.clone(),
        );
        let files = &[STORE_FILE, keys::IDENTITY_FILE, LOCK_FILE];
        let (watching, end) = (
            selfcheck::watch_directory(data_dir, files, stop.clone()),
            self.stop.clone(),
        );
        let is_store_lost = Arc::clone(&self.is_store_lost);
        tokio::spawn(async move {
            if watching.await {
                is_store_lost.store(true, Ordering::Relaxed);
                end.send_replace(true);
            }
        });
        tokio::spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|&stop| stop) => {}
                () = async { tokio::join!(beat, dial); } => {}
            }
        });
    }

    /// Waits until the relay ends by itself, after which it serves nobody.
    pub async fn failed(&mut self) -> Ended {
        let _ = (&mut self.plane).await; // a panic has been reported itself
        if self.is_store_lost.load(Ordering::Relaxed) {
            Ended::StoreLost
        } else {
            Ended::Fault
        }
    }

    /// Stops it: accepts nothing more, destroys every circuit, sends and stores what is queued.
    /// Returns within about five seconds.
    pub async fn shutdown(self) {
        let _ = self.stop.send(true); // it may have failed
        if !self.plane.is_finished() {
            let _ = self.plane.await;
        }
    }
}

/// Where it can be asked how the relay is doing.
pub(crate) struct StatsSource {
    asks: mpsc::Sender<Ask>,
    /// `None` of a relay that never was.
    shared: Option<Arc<Shared>>,
}

impl StatsSource {
    /// `None` once the relay has stopped.
    pub(crate) async fn stats(&self) -> Option<Stats> {
        let (question, answer) = oneshot::channel();
        self.asks.send(Ask::Stats(question)).await.ok()?;
        let control = answer.await.ok()?;
        let sum = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = self.shared.as_ref()?;
        let counters = &shared.counters;
        Some(Stats {
            control,
            received_cells: sum(&counters.received_cells),
            forwarded_cells: sum(&counters.forwarded_cells),
            client_cells: sum(&counters.client_cells),
            dropped_cells: sum(&counters.dropped_cells),
            stale_cells: sum(&counters.stale_cells),
            queued_cells: shared.budget.used_cells(),
            refused_conns: sum(&counters.refused_conns),
            failed_conns: sum(&counters.failed_conns),
        })
    }

    /// Of a relay whose control plane is played by the reader of `asks`.
    #[cfg(test)]
    pub(crate) fn new(asks: mpsc::Sender<Ask>, shared: Arc<Shared>) -> Self {
        Self {
            asks,
            shared: Some(shared),
        }
    }

    /// Of a relay that has stopped.
    #[cfg(test)]
    pub(crate) fn ended() -> Self {
        Self {
            asks: mpsc::channel(1).0,
            shared: None,
        }
    }
}

/// A listening socket, and the address that it has in the end.
fn bind(address: SocketAddr, network: &Network) -> Result<(TcpListener, SocketAddr), StartError> {
    check_loopback([&address], network)?;
    let failed = |error| StartError::Listen { address, error };
    let listener = listen::bind(address).map_err(failed)?;
    let listen = listener.local_addr().map_err(failed)?;
    Ok((listener, listen))
}

/// What the relay's tasks share, and the reports of its links.
fn share(
    config: &Config,
    network: Network,
    identity: SigningKey,
    hello: Hello,
    clock: Clock,
    listen: SocketAddr,
) -> (Arc<Shared>, mpsc::Receiver<LinkReport>) {
    let source = Some(listen.ip()).filter(|ip| !ip.is_unspecified());
    let budget = config.memory_budget_bytes / 2;
    Shared::new(network, identity, budget, hello, clock, source)
}

/// A store that is open, what was in it, and what it will say.
struct Opened {
    store: Store,
    snapshot: Snapshot,
    /// For what the store would not take: it is answered as the store answers.
    untaken: mpsc::UnboundedSender<Vec<StoreDone>>,
    stored: mpsc::UnboundedReceiver<Vec<StoreDone>>,
}

async fn open_store(data_dir: &Path) -> Result<Opened, StartError> {
    let (untaken, stored) = mpsc::unbounded_channel();
    let path = data_dir.join(STORE_FILE);
    warn_of_lost_store(data_dir, &path);
    let answers = untaken.clone();
    // Nobody listens any more once the relay stops.
    let on_done = Box::new(move |done| drop(answers.send(done)));
    let (store, snapshot) = tokio::task::spawn_blocking(move || Store::open(&path, on_done))
        .await
        .map_err(|_| StartError::Stopped)?
        .map_err(StartError::Store)?;
    Ok(Opened {
        store,
        snapshot,
        untaken,
        stored,
    })
}

fn control_config(
    config: &Config,
    network: &Network,
    identity: &SigningKey,
    addresses: &[SocketAddr],
) -> ControlConfig {
    let Tuning {
        seeds,
        holder,
        circuits_max,
        inbox_descriptors_max,
    } = tuning(config, network, identity.public().into());
    ControlConfig {
        network: network.clone(),
        identity: SigningKey::from_seed(&identity.seed()),
        addresses: addresses.to_vec(),
        roles: Roles(Roles::HOLDER.0 | Roles::DIRECTORY.0),
        seeds,
        holder,
        circuits_max,
        frames_bytes_max: config.memory_budget_bytes / 2,
        inbox_descriptors_max,
    }
}

/// Watches the addresses by which the relay can be dialled: from the configured names to the
/// addresses in use.
fn watch_addresses(
    addresses: Addresses,
    config: &Config,
    peer: &Peer,
    asks: mpsc::Sender<Ask>,
) -> (watch::Sender<Vec<String>>, watch::Receiver<Vec<SocketAddr>>) {
    remember_address(&config.data_dir, &peer.host_port);
    let (advertise, advertised) = watch::channel(config.advertise.clone());
    let (current, known) = watch::channel(addresses.current().to_vec());
    let data_dir = config.data_dir.clone();
    let on_change = move |host_port: &str, addresses: &[SocketAddr]| {
        current.send_replace(addresses.to_vec());
        remember_address(&data_dir, host_port);
    };
    tokio::spawn(addresses.watch(advertised, asks, on_change));
    (advertise, known)
}

fn limits(config: &Config) -> AcceptLimits {
    AcceptLimits {
        half_open_max: config.half_open_max,
        half_open_per_group_max: config.half_open_per_group_max,
        links_max: config.links_max,
        links_per_group_max: config.links_per_group_max,
    }
}

/// The network's seeds and the operator's, of which this relay may be one.
pub(crate) fn seeds(config: &Config, network: &Network, own: RelayId) -> Vec<Peer> {
    let all = network.seeds.iter().chain(&config.seeds);
    all.filter(|seed| seed.id != own).cloned().collect()
}

/// The settings that an operator may change while the relay runs.
fn tuning(config: &Config, network: &Network, own: RelayId) -> Tuning {
    Tuning {
        seeds: seeds(config, network, own),
        holder: config.holder_limits(&network.params),
        circuits_max: config.circuits_max,
        inbox_descriptors_max: config.inbox_descriptors_max,
    }
}

/// Warns if the store of a relay that ran before is gone, and with it the mail: the operator must
/// not learn that from senders.
fn warn_of_lost_store(data_dir: &Path, store: &Path) {
    // A relay notes its address only once its store has been made: one that was killed before had
    // no mail.
    if !data_dir.join(ADDRESS_FILE).exists() {
        return;
    }
    let lost = match fs::metadata(store) {
        Ok(metadata) if metadata.len() == 0 => "empty",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "missing",
        _ => return,
    };
    tracing::warn!(
        path = %store.display(),
        lost,
        "the store of a relay that ran before is gone: a new one is made, and the mail that it kept for others is lost. If there \
         is a copy, stop the relay and put it back; else check the disk"
    );
}

fn spawn(plane: ControlPlane, socket: Option<SocketFile>, lock: File) -> JoinHandle<()> {
    tokio::spawn(async move {
        Box::pin(plane.run()).await;
        drop(socket); // before the lock: the next process makes its own
        // The last thing of all: now another process may have the directory. Not by dropping it: a
        // process that this one is just starting has the file open, too.
        let _ = lock.unlock();
    })
}

fn lock(data_dir: &Path) -> Result<File, StartError> {
    let path = data_dir.join(LOCK_FILE);
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StartError::Identity(KeyError::Missing),
        _ => StartError::Lock {
            path: path.clone(),
            error,
        },
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(StartError::Lock { path, error }),
    }
}

/// Refuses the first address that nodes of the network don't link to.
fn check_loopback<'a>(
    addresses: impl IntoIterator<Item = &'a SocketAddr>,
    network: &Network,
) -> Result<(), StartError> {
    let mut addresses = addresses.into_iter();
    match addresses.find(|address| !network.may_link(address.ip())) {
        Some(&address) => Err(StartError::NotLoopback(address)),
        None => Ok(()),
    }
}

/// Whether others of the network will take what this relay says of its addresses.
fn check_addresses(hello: &Hello, network: &Network) -> Result<(), StartError> {
    let own = hello
        .descriptor
        .as_deref()
        .map(|bytes| Unverified::decode(bytes)?.verify(network, hello.clock));
    match own {
        Some(Err(DescriptorFault::AddressPrivate | DescriptorFault::Address)) => {
            Err(StartError::NotPublic)
        }
        // Whatever else may be missing is not the operator's: receipts come from others.
        _ => Ok(()),
    }
}

/// For `known_peer`. A relay runs as well without.
fn remember_address(data_dir: &Path, host_port: &str) {
    if let Err(error) = write_whole(&data_dir.join(ADDRESS_FILE), host_port.as_bytes(), true) {
        tracing::warn!(%error, "can't note the relay's address in its data directory");
    }
}
