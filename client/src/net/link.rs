//! One link of a client: dial, verify the relay's id, exchange `Hello`s, then move whole cells both
//! ways (docs/protocol.md §2).
//!
//! Knows nothing of circuits. Keeps `Padding` and `Hello` to itself and hands all other cells to
//! the driver, a batch at a time. Both directions go over bounded queues: while the driver is busy,
//! the link does not read its socket. A link whose peer takes no bytes for [`WRITE_STALL_MAX`] ends.

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "plays the relay")]
mod tests;

use std::convert::Infallible;
use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout, timeout_at};
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{CELL_LEN, HANDSHAKE_MAX, LINK_CLOSING_MAX, LINK_SILENCE_MAX};
use umbel_proto::link::{Hello, Keepalive, LinkId, Padding, Silence, Silent, circuit_of};
use umbel_proto::network::Params;
use umbel_proto::time::Duration;
use umbel_relay::shell::{
    ClientStream, Clock, ConnectFault, DialFault, HelloFault, connect_as_client, exchange_hello,
};

/// Cells read or written at once: as many as fill four TLS records.
const BATCH_CELLS_MAX: usize = 32;
/// A peer that takes no bytes for this long on an open link is gone.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// A link task's report to the driver.
pub(super) enum LinkReport {
    /// The link is up; the peer is who it should be.
    Up {
        link: LinkId,
        /// The address at its other end.
        remote: SocketAddr,
        hello: Hello,
    },
    /// The link can't be made, and why.
    DialFailed { link: LinkId, fault: DialFault },
    /// Cells came, with good headers, of circuits.
    Cells { link: LinkId, cells: Vec<Cell> },
    /// The peer is silent though it should have sent padding by now.
    Quiet { link: LinkId },
    /// The link is gone.
    Down { link: LinkId },
}

/// The sending end of a link's queue. Dropping it closes the link: the link sends the queued cells
/// first, for [`LINK_CLOSING_MAX`] at most (§2.6(4)).
pub(super) struct QueueSender {
    cells: mpsc::Sender<Cell>,
    _is_open: oneshot::Sender<Infallible>,
}

impl QueueSender {
    /// Queues a cell.
    ///
    /// # Errors
    /// The queue is full, or the link's task is gone.
    pub(super) fn try_send(&self, cell: Cell) -> Result<(), TrySendError<Cell>> {
        self.cells.try_send(cell)
    }
}

/// The cells that a link is to send.
pub(super) struct Queue {
    cells: mpsc::Receiver<Cell>,
    /// Resolves once the sender is dropped, while cells may still be queued.
    closed: oneshot::Receiver<Infallible>,
}

/// A queue of at most `cells_max` cells.
pub(super) fn queue(cells_max: usize) -> (QueueSender, Queue) {
    let (sender, cells) = mpsc::channel(cells_max);
    let (is_open, closed) = oneshot::channel();
    let sender = QueueSender {
        cells: sender,
        _is_open: is_open,
    };
    (sender, Queue { cells, closed })
}

/// A link to be made.
pub(super) struct Target {
    pub(super) link: LinkId,
    pub(super) relay: RelayId,
    pub(super) host_ports: Vec<String>,
    pub(super) hello: Hello,
    pub(super) params: Arc<Params>,
    pub(super) clock: Clock,
}

/// Why a link could not be made, or ended.
#[derive(Debug)]
#[expect(dead_code, reason = "read by the log")]
enum LinkFault {
    Timeout,
    Io(io::Error),
    Tls(rustls::Error),
    Violation(Violation),
    Silent,
    Stuck,
    Closed,
    Elsewhere,
}

impl From<Violation> for LinkFault {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<HelloFault> for LinkFault {
    fn from(fault: HelloFault) -> Self {
        match fault {
            HelloFault::Io(error) => error.into(),
            HelloFault::Violation(violation) => violation.into(),
            HelloFault::Timeout => Self::Timeout,
        }
    }
}

impl From<io::Error> for LinkFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ConnectFault> for LinkFault {
    fn from(fault: ConnectFault) -> Self {
        match fault {
            ConnectFault::NoName(error) | ConnectFault::Io(error) => Self::Io(error),
            ConnectFault::Elsewhere => Self::Elsewhere,
            ConnectFault::Tls(error) => Self::Tls(error),
        }
    }
}

impl From<&LinkFault> for DialFault {
    fn from(fault: &LinkFault) -> Self {
        match fault {
            LinkFault::Io(error) => error.into(),
            LinkFault::Tls(_) => Self::Unknown,
            LinkFault::Violation(violation) => (*violation).into(),
            LinkFault::Elsewhere => Self::Elsewhere,
            LinkFault::Timeout | LinkFault::Silent | LinkFault::Stuck | LinkFault::Closed => {
                Self::Nobody
            }
        }
    }
}

impl From<Elapsed> for LinkFault {
    fn from(_: Elapsed) -> Self {
        Self::Timeout
    }
}

/// Makes the link and keeps it until either side closes it.
pub(super) async fn run(target: Target, mut queue: Queue, events: mpsc::Sender<LinkReport>) {
    let link = target.link;
    let dialled = tokio::select! {
        dialled = dial(&target) => dialled,
        _ = &mut queue.closed => return,
    };
    let (stream, hello) = match dialled {
        Ok(dialled) => dialled,
        Err(fault) => {
            tracing::debug!(?link, relay = %target.relay, ?fault, "dial failed");
            let fault = DialFault::from(&fault);
            drop(events.send(LinkReport::DialFailed { link, fault }).await);
            return;
        }
    };
    let Ok(remote) = stream.get_ref().0.get_ref().peer_addr() else {
        drop(
            events
                .send(LinkReport::DialFailed {
                    link,
                    fault: DialFault::Nobody,
                })
                .await,
        );
        return;
    };
    let up = LinkReport::Up {
        link,
        remote,
        hello,
    };
    if events.send(up).await.is_err() {
        return;
    }
    let padding = Padding::with_client(&target.params);
    let fault = carry(stream, link, queue, &events, target.clock, padding).await;
    tracing::debug!(?link, ?fault, "link ended");
    drop(events.send(LinkReport::Down { link }).await);
}

/// Carries cells on a link that is up until it ends, then ends it as §2.6(4) says.
async fn carry<S: AsyncRead + AsyncWrite>(
    stream: S,
    link: LinkId,
    queue: Queue,
    events: &mpsc::Sender<LinkReport>,
    clock: Clock,
    padding: Option<Padding>,
) -> LinkFault {
    let (read_half, write_half) = tokio::io::split(stream);
    let reader = Reader {
        link,
        stream: read_half,
        events,
        clock,
        silence: Silence::with_quiet(padding, LINK_SILENCE_MAX, clock.now()),
    };
    let mut writer = Writer {
        stream: write_half,
        queue: queue.cells,
        taken: Cursor::default(),
        clock,
        keepalive: Keepalive::new(padding, clock.now(), &mut rand::rng()),
    };
    let fault = tokio::select! {
        fault = reader.run() => fault,
        fault = writer.run() => fault,
        fault = closing_max(queue.closed) => fault,
    };
    // §2.6(5): a fault of the peer ends the link as any other cause does.
    if matches!(fault, LinkFault::Violation(_) | LinkFault::Silent) {
        writer.queue.close();
        drop(timeout(LINK_CLOSING_MAX, writer.run()).await);
    }
    if !matches!(fault, LinkFault::Io(_)) {
        // The peer may be gone already: the link is over either way.
        drop(timeout(LINK_CLOSING_MAX, writer.stream.shutdown()).await);
    }
    fault
}

/// Ends a link whose queue was closed and that has not sent what is in it in time.
async fn closing_max(closed: oneshot::Receiver<Infallible>) -> LinkFault {
    drop(closed.await);
    sleep(LINK_CLOSING_MAX).await;
    LinkFault::Stuck
}

/// Tries each address in turn. Of several faults, gives the one that tells most.
async fn dial(target: &Target) -> Result<(ClientStream, Hello), LinkFault> {
    let mut fault = LinkFault::Timeout;
    for host_port in &target.host_ports {
        match dial_one(target, host_port).await {
            Ok(dialled) => return Ok(dialled),
            Err(failed) if DialFault::from(&failed) >= DialFault::from(&fault) => fault = failed,
            Err(_) => {}
        }
    }
    Err(fault)
}

async fn dial_one(target: &Target, host_port: &str) -> Result<(ClientStream, Hello), LinkFault> {
    let may_link = |ip| target.params.may_link(target.hello.network, ip);
    let connect = connect_as_client(&target.relay, host_port, may_link);
    let step_max = step_max(&target.params);
    let mut stream = timeout(step_max, connect).await??;
    let theirs = exchange_hello(&mut stream, &target.hello, step_max).await?;
    Ok((stream, theirs))
}

/// How long each of the two steps that make a link may take: TLS, and the `Hello`s (§2.5(8)).
fn step_max(params: &Params) -> Duration {
    params.dial_timeout.min(HANDSHAKE_MAX)
}

/// The reading half of a link that is up.
struct Reader<'a, S> {
    link: LinkId,
    stream: ReadHalf<S>,
    events: &'a mpsc::Sender<LinkReport>,
    clock: Clock,
    silence: Silence,
}

impl<S: AsyncRead> Reader<'_, S> {
    /// Hands whole cells to the driver until the link ends.
    async fn run(mut self) -> LinkFault {
        let mut buffer = vec![0; BATCH_CELLS_MAX * CELL_LEN];
        let mut filled = 0;
        loop {
            let (_, room) = buffer.split_at_mut(filled);
            filled += match self.read_some(room).await {
                Ok(count) => count,
                Err(fault) => return fault,
            };
            let whole = filled - filled % CELL_LEN;
            let (ready, _) = buffer.split_at(whole);
            let cells = match circuit_cells(ready) {
                Ok(cells) => cells,
                Err(violation) => return LinkFault::Violation(violation),
            };
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
            let link = self.link;
            if !cells.is_empty()
                && let Err(fault) = self.report(LinkReport::Cells { link, cells }).await
            {
                return fault;
            }
            // Cells count, not bytes (§2.6(3)); and from here, since nothing was read while the
            // driver was busy.
            if whole > 0 {
                self.silence.on_received(self.clock.now());
            }
        }
    }

    /// Reads what there is, and reports once if no cell came for longer than the peer may be silent.
    async fn read_some(&mut self, room: &mut [u8]) -> Result<usize, LinkFault> {
        loop {
            let due_at = self.clock.at(self.silence.due_at());
            match timeout_at(due_at, self.stream.read(room)).await {
                Ok(Err(error)) => return Err(LinkFault::Io(error)),
                Ok(Ok(0)) => return Err(LinkFault::Closed),
                Ok(Ok(count)) => return Ok(count),
                Err(_elapsed) => match self.silence.handle_timeout(self.clock.now()) {
                    Some(Silent::Dead) => return Err(LinkFault::Silent),
                    Some(Silent::Quiet) => {
                        let link = self.link;
                        self.report(LinkReport::Quiet { link }).await?;
                    }
                    None => {}
                },
            }
        }
    }

    async fn report(&self, report: LinkReport) -> Result<(), LinkFault> {
        self.events
            .send(report)
            .await
            .map_err(|_| LinkFault::Closed)
    }
}

/// The circuits' cells among these; a link's own are taken out.
fn circuit_cells(bytes: &[u8]) -> Result<Vec<Cell>, Violation> {
    let mut cells = Vec::with_capacity(bytes.len() / CELL_LEN);
    for chunk in bytes.chunks_exact(CELL_LEN) {
        let mut cell = Cell::blank();
        cell.as_bytes_mut().copy_from_slice(chunk);
        if circuit_of(&cell)?.is_some() {
            cells.push(cell);
        }
    }
    Ok(cells)
}

/// The writing half of a link that is up.
struct Writer<S> {
    stream: WriteHalf<S>,
    queue: mpsc::Receiver<Cell>,
    /// Cells taken from the queue, up to the position already written. Kept here so that
    /// [`run`](Self::run) may be dropped and called again within a cell.
    taken: Cursor<Vec<u8>>,
    clock: Clock,
    keepalive: Keepalive,
}

impl<S: AsyncWrite> Writer<S> {
    /// Writes the queued cells, and padding, until the queue is closed and empty.
    async fn run(&mut self) -> LinkFault {
        let mut batch = Vec::with_capacity(BATCH_CELLS_MAX);
        loop {
            if let Err(fault) = self.write_taken().await {
                return fault;
            }
            let due_at = self.clock.at(self.keepalive.due_at());
            let received = self.queue.recv_many(&mut batch, BATCH_CELLS_MAX);
            match timeout_at(due_at, received).await {
                Ok(0) => return LinkFault::Closed,
                Ok(_) => {}
                Err(_elapsed) => batch.push(Cell::new(None, Command::Padding)),
            }
            for cell in batch.drain(..) {
                self.taken.get_mut().extend_from_slice(cell.as_bytes());
            }
        }
    }

    async fn write_taken(&mut self) -> Result<(), LinkFault> {
        let written = timeout(WRITE_STALL_MAX, async {
            self.stream.write_all_buf(&mut self.taken).await?;
            self.stream.flush().await
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(LinkFault::Io(error)),
            Err(_elapsed) => return Err(LinkFault::Stuck),
        }
        if !self.taken.get_ref().is_empty() {
            self.keepalive.on_sent(self.clock.now(), &mut rand::rng());
        }
        self.taken.get_mut().clear();
        self.taken.set_position(0);
        Ok(())
    }
}
