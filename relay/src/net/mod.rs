//! The relay's shell around its two planes: sockets, tasks, and the clock.
//!
//! One task a link ([`conn`]), one that accepts ([`listen`]), one for each dial ([`dial`]), and one
//! that runs the control plane ([`plane`]). Links report to the control plane by one bounded
//! channel; the control plane answers through each link's queue and table updates, and never waits
//! for a link.

pub(crate) mod addresses;
pub(crate) mod conn;
pub(crate) mod dial;
mod forwarding;
pub(crate) mod last_dials;
pub(crate) mod listen;
pub(crate) mod news;
pub(crate) mod plane;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod selfcheck;
mod timer;
mod tls_stream;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use umbel_proto::Violation;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::receipts::{ProbeId, Probed};
use umbel_proto::ids::RelayId;
use umbel_proto::limits::HANDSHAKE_MAX;
use umbel_proto::link::{Hello, LinkId, Padding};
use umbel_proto::network::Network;

use crate::control::io::LinkUp;
use crate::forward::outgoing::Budget;
use crate::forward::{LinkEvent, TableUpdates};
use crate::repeated::{HOUR, MINUTE, Repeated};
use crate::shell::{Clock, DialFault, HelloFault, exchange_hello};
use conn::Conn;
use pool::CellPool;
use queue::LinkQueue;
use tls_stream::BufferPool;

/// Unsent bytes that the kernel may hold: enough for one batch to leave while the next is made. The
/// rest waits in the link's queue, where circuits take turns and cells count against the memory
/// budget.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// Reports of links that wait for the control plane. A link holds at most one more; see
/// [`conn::Conn`].
const REPORTS_MAX: usize = 256;

/// State that all tasks of a relay share.
pub(crate) struct Shared {
    /// The network it belongs to.
    pub(crate) network: Network,
    /// Who it is.
    pub(crate) identity: SigningKey,
    /// Unused cells.
    pub(crate) pool: Arc<CellPool>,
    /// Unused buffers for reading.
    pub(crate) read_buffers: Arc<BufferPool>,
    /// The memory budget of all queues together.
    pub(crate) budget: Arc<Budget>,
    /// Counts of events.
    pub(crate) counters: Counters,
    /// Where links report to.
    pub(crate) control: mpsc::Sender<LinkReport>,
    /// This relay's `Hello`, except for the clock.
    pub(crate) hello: Mutex<Hello>,
    /// The address that dials leave from, if this relay listens at one alone.
    pub(crate) source: Option<IpAddr>,
    /// The log line about another process with this relay's identity.
    twin: Mutex<Repeated>,
    /// The log line about a peer with other parameters.
    other_parameters: Mutex<Repeated>,
    clock: Clock,
    next_link: AtomicU64,
}

/// Counts of events. Only sums, which tell no user from another.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Cells read from links.
    pub(crate) received_cells: AtomicU64,
    /// Cells handed from one link to another.
    pub(crate) forwarded_cells: AtomicU64,
    /// Cells written to links of clients.
    pub(crate) client_cells: AtomicU64,
    /// Cells that found no room, or no link any more.
    pub(crate) dropped_cells: AtomicU64,
    /// Cells of circuits that were just gone.
    pub(crate) stale_cells: AtomicU64,
    /// Links that other relays made.
    pub(crate) relay_link_count: AtomicU64,
    /// Connections that were closed at once, because there were too many.
    pub(crate) refused_conns: AtomicU64,
    /// Connections that never became a link: no TLS, the wrong key, the wrong network, or too slow.
    pub(crate) failed_conns: AtomicU64,
}

/// A link's report to the control plane.
pub(crate) enum LinkReport {
    /// A link is up.
    Up(LinkUp, LinkHandle),
    /// Events that it could not handle itself, in order; each with its link.
    Events(Vec<(LinkId, LinkEvent)>),
    /// A link is gone.
    Down(LinkId),
    /// No link could be made to this relay, and why.
    DialFailed(RelayId, DialFault),
    /// The outcome of a dial for a receipt, or for a check of one.
    Probed(ProbeId, Probed),
}

/// How the control plane reaches a link.
#[derive(Clone)]
pub(crate) struct LinkHandle {
    /// The cells to send on it.
    pub(crate) queue: Arc<LinkQueue>,
    /// Changes to its table.
    pub(crate) updates: Arc<TableUpdates<Arc<LinkQueue>>>,
}

/// Why a connection did not become a link.
#[derive(Debug)]
pub(crate) enum OpenFault {
    /// This machine could not even begin.
    Own(io::Error),
    /// The connection or its TLS failed, or the peer is not who it should be.
    Io(io::Error),
    /// It took too long.
    Timeout,
    /// The peer's `Hello` broke a rule, or it belongs to another network.
    Violation(Violation),
    /// The peer has this relay's own identity.
    Twin,
    /// The address is none that nodes of this network link to.
    Elsewhere,
}

impl fmt::Display for OpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(error) => write!(f, "could not be tried from here: {error}"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Timeout => f.write_str("took too long"),
            Self::Violation(violation) => write!(f, "broke a rule: {violation:?}"),
            Self::Twin => f.write_str("has this relay's identity"),
            Self::Elsewhere => f.write_str("is not on this machine"),
        }
    }
}

impl From<&OpenFault> for DialFault {
    fn from(fault: &OpenFault) -> Self {
        match fault {
            OpenFault::Own(_) => Self::Unknown,
            OpenFault::Io(error) => error.into(),
            OpenFault::Violation(violation) => (*violation).into(),
            OpenFault::Timeout => Self::Nobody,
            OpenFault::Twin => Self::OtherRelay,
            OpenFault::Elsewhere => Self::Elsewhere,
        }
    }
}

impl From<HelloFault> for OpenFault {
    fn from(fault: HelloFault) -> Self {
        match fault {
            HelloFault::Io(error) => Self::Io(error),
            HelloFault::Violation(violation) => Self::Violation(violation),
            HelloFault::Timeout => Self::Timeout,
        }
    }
}

impl From<io::Error> for OpenFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Shared {
    /// The shared state, and the channel that the control plane reads.
    pub(crate) fn new(
        network: Network,
        identity: SigningKey,
        memory_budget: usize,
        hello: Hello,
        clock: Clock,
        source: Option<IpAddr>,
    ) -> (Arc<Self>, mpsc::Receiver<LinkReport>) {
        let (control, reports) = mpsc::channel(REPORTS_MAX);
        let shared = Self {
            network,
            identity,
            pool: Arc::default(),
            read_buffers: Arc::default(),
            budget: Arc::new(Budget::new(memory_budget)),
            counters: Counters::default(),
            control,
            hello: Mutex::new(hello),
            source,
            twin: Mutex::new(Repeated::new(MINUTE)),
            other_parameters: Mutex::new(Repeated::new(HOUR)),
            clock,
            next_link: AtomicU64::new(1),
        };
        (Arc::new(shared), reports)
    }

    /// This relay's `Hello` as of now.
    pub(crate) fn hello(&self) -> Hello {
        let hello = self
            .hello
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Hello {
            clock: Clock::wall(),
            ..hello
        }
    }

    /// How many links other relays have made so far.
    pub(crate) fn relay_link_count(&self) -> u64 {
        self.counters.relay_link_count.load(Ordering::Relaxed)
    }

    /// Another process with this relay's identity has shown.
    pub(crate) fn say_twin(&self) {
        let now = Duration::from_micros(self.clock.now().as_micros());
        if let Some(repeated) = self
            .twin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .come(now)
        {
            tracing::error!(repeated, "{}", selfcheck::TWIN);
        }
    }

    /// Says how often another process with this relay's identity has shown, if that was not said.
    pub(crate) fn say_twins_left(&self) {
        let now = Duration::from_micros(self.clock.now().as_micros());
        if let Some(repeated) = self
            .twin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .rest(now)
        {
            tracing::error!(repeated, "{}", selfcheck::TWIN);
        }
    }

    /// Warns of a peer that runs this network by other parameters (§2.4(8)); the link stays.
    fn compare_parameters(&self, ours: &Hello, theirs: &Hello, peer: Option<RelayId>) {
        let (Some(ours), Some(peer)) = (ours.parameters, peer) else {
            return;
        };
        if !theirs.differs(ours) {
            return;
        }
        let now = Duration::from_micros(self.clock.now().as_micros());
        if let Some(repeated) = self
            .other_parameters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .come(now)
        {
            tracing::warn!(
                repeated,
                relay = %peer,
                "a relay runs this network with other parameters; compare this relay's network.toml with the network's file: if it differs, put that file in its place and restart"
            );
        }
    }

    /// Exchanges `Hello`s on a fresh stream, in the time that §2.5(8) leaves, then carries cells
    /// until the link ends.
    ///
    /// `peer` is the id that the other side has proved. Returns before the link ends only if the
    /// link never came up.
    async fn open_link<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        mut stream: S,
        peer: Option<RelayId>,
        is_dialler: bool,
        remote: SocketAddr,
        on_up: impl FnOnce(),
    ) -> Result<(), OpenFault> {
        let ours = self.hello();
        let hello = exchange_hello(&mut stream, &ours, HANDSHAKE_MAX).await?;
        self.compare_parameters(&ours, &hello, peer);
        on_up();
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let queue = Arc::new(LinkQueue::new(link, Arc::clone(&self.budget)));
        let handle = LinkHandle {
            queue,
            updates: Arc::default(),
        };
        let padding = match peer {
            None => Padding::with_client(&self.network.params),
            Some(_) => None,
        };
        let conn = Conn::new(
            stream,
            Arc::clone(self),
            handle.clone(),
            padding,
            peer.is_none(),
        );
        let up = LinkUp {
            peer,
            is_dialler,
            remote,
            hello,
        };
        // Down comes after up and all events, by the same channel. That it is closed means that the
        // relay has stopped.
        if self.control.send(LinkReport::Up(up, handle)).await.is_ok() {
            let end = conn.run().await;
            tracing::debug!(link = link.0, %end, "link ended");
            let _ = self.control.send(LinkReport::Down(link)).await;
        }
        Ok(())
    }
}

/// Prepares a socket for cells: none waits for another to share its packet, and few wait in the
/// kernel.
fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
        // The link still works.
        tracing::debug!(%error, "the kernel may hold more of a link's cells than it should");
    }
    Ok(())
}
