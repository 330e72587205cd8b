//! One link of a client: dial, prove whom one reached, exchange `Hello`s, then move whole cells
//! both ways.
//!
//! Knows nothing of circuits. Keeps `Padding` and `Hello` to itself; all other cells go to the
//! driver, a batch at a time, over a bounded queue: while the driver is busy the socket is not
//! read. What is to be sent comes over a bounded queue as well; a peer that takes nothing for
//! [`WRITE_STALL_MAX`] is given up. Rules: docs/protocol.md §2.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{CELL_LEN, LINK_SILENCE_MAX};
use umbel_proto::link::{Hello, Keepalive, LinkId, Padding, Silence, Silent, circuit_of, tls};
use umbel_proto::network::Params;
use umbel_proto::time::Duration;

use super::Clock;

/// Cells read or written at once: as many as fill four TLS records.
const BATCH_CELLS_MAX: usize = 32;
/// Bytes read from a socket at once; rustls alone reads 4 KiB.
const READ_AHEAD_LEN: usize = 32 * 1024;
/// A peer that takes no cell for this long is gone.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// How long the end of a link may take to be said.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// TLS on a socket that is read in large pieces.
type Stream = TlsStream<BufReader<TcpStream>>;

/// A link task's report to the driver.
pub(super) enum LinkReport {
    /// The link is up; the peer is who it should be.
    Up { link: LinkId, hello: Hello },
    /// The link can't be made.
    DialFailed { link: LinkId },
    /// Cells came, with good headers, of circuits.
    Cells { link: LinkId, cells: Vec<Cell> },
    /// The peer is silent though it should have sent padding by now.
    Quiet { link: LinkId },
    /// The link is gone.
    Down { link: LinkId },
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
}

impl From<Violation> for LinkFault {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// Makes the link and keeps it until either side closes it. Closing `queue` ends it in order: what
/// is queued is sent.
pub(super) async fn run(
    target: Target,
    mut queue: mpsc::Receiver<Cell>,
    events: mpsc::Sender<LinkReport>,
) {
    let link = target.link;
    // Nothing is queued before the link is up: the queue can only close.
    let dialled = tokio::select! {
        dialled = dial(&target) => dialled,
        _ = queue.recv() => return,
    };
    let (stream, hello) = match dialled {
        Ok(dialled) => dialled,
        Err(fault) => {
            tracing::debug!(?link, relay = %target.relay, ?fault, "dial failed");
            drop(events.send(LinkReport::DialFailed { link }).await);
            return;
        }
    };
    if events.send(LinkReport::Up { link, hello }).await.is_err() {
        return;
    }
    let (stream, mut writer) = tokio::io::split(stream);
    let (clock, padding) = (target.clock, Padding::with_client(&target.params));
    let reader = Reader {
        link,
        stream,
        events: &events,
        clock,
        silence: Silence::with_quiet(padding, LINK_SILENCE_MAX, clock.now()),
    };
    let keepalive = Keepalive::new(padding, clock.now(), &mut rand::rng());
    let fault = tokio::select! {
        fault = reader.run() => fault,
        fault = write_cells(&mut writer, &mut queue, clock, keepalive) => fault,
    };
    if !matches!(fault, LinkFault::Io(_)) {
        // Whatever ended it, its end looks alike (§2.6). The peer may be gone already: the link is
        // over either way.
        drop(timeout(SHUTDOWN_MAX, writer.shutdown()).await);
    }
    tracing::debug!(?link, ?fault, "link ended");
    drop(events.send(LinkReport::Down { link }).await);
}

/// Tries each address in turn.
async fn dial(target: &Target) -> Result<(Stream, Hello), LinkFault> {
    let mut fault = LinkFault::Timeout;
    for host_port in &target.host_ports {
        match timeout(target.params.dial_timeout, dial_one(target, host_port)).await {
            Ok(Ok(dialled)) => return Ok(dialled),
            Ok(Err(failed)) => fault = failed,
            Err(_elapsed) => fault = LinkFault::Timeout,
        }
    }
    Err(fault)
}

async fn dial_one(target: &Target, host_port: &str) -> Result<(Stream, Hello), LinkFault> {
    let config = tls::dial_config(&target.relay, None).map_err(LinkFault::Tls)?;
    let socket = TcpStream::connect(host_port).await.map_err(LinkFault::Io)?;
    socket.set_nodelay(true).map_err(LinkFault::Io)?;
    let socket = BufReader::with_capacity(READ_AHEAD_LEN, socket);
    let mut stream = TlsConnector::from(config)
        .connect(tls::server_name(), socket)
        .await
        .map_err(LinkFault::Io)?;
    stream
        .write_all(target.hello.encode().as_bytes())
        .await
        .map_err(LinkFault::Io)?;
    stream.flush().await.map_err(LinkFault::Io)?;
    let mut cell = Cell::blank();
    stream
        .read_exact(cell.as_bytes_mut())
        .await
        .map_err(LinkFault::Io)?;
    let theirs = target.hello.accept(&cell);
    if theirs.is_err() {
        drop(timeout(SHUTDOWN_MAX, stream.shutdown()).await);
    }
    Ok((stream, theirs?))
}

/// The reading half of a link that is up.
struct Reader<'a> {
    link: LinkId,
    stream: ReadHalf<Stream>,
    events: &'a mpsc::Sender<LinkReport>,
    clock: Clock,
    silence: Silence,
}

impl Reader<'_> {
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
        }
    }

    /// Reads what there is, and reports once if the peer is silent for longer than it may be.
    async fn read_some(&mut self, room: &mut [u8]) -> Result<usize, LinkFault> {
        // Counted from here: nothing was read while the driver was busy.
        self.silence.on_received(self.clock.now());
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

async fn write_cells(
    writer: &mut WriteHalf<Stream>,
    queue: &mut mpsc::Receiver<Cell>,
    clock: Clock,
    mut keepalive: Keepalive,
) -> LinkFault {
    let mut batch = Vec::with_capacity(BATCH_CELLS_MAX);
    let mut bytes = Vec::with_capacity(BATCH_CELLS_MAX * CELL_LEN);
    loop {
        let due_at = clock.at(keepalive.due_at());
        match timeout_at(due_at, queue.recv_many(&mut batch, BATCH_CELLS_MAX)).await {
            Ok(0) => return LinkFault::Closed,
            Ok(_) => {}
            Err(_elapsed) => batch.push(Cell::new(None, Command::Padding)),
        }
        bytes.clear();
        for cell in batch.drain(..) {
            bytes.extend_from_slice(cell.as_bytes());
        }
        let written = timeout(WRITE_STALL_MAX, async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return LinkFault::Io(error),
            Err(_elapsed) => return LinkFault::Stuck,
        }
        keepalive.on_sent(clock.now(), &mut rand::rng());
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::server::TlsStream as ServerStream;
    use umbel_proto::cell::DestroyReason;
    use umbel_proto::crypto::sign::SigningKey;
    use umbel_proto::ids::{CircId, NetworkId};
    use umbel_proto::link::LINK_VERSION;
    use umbel_proto::time::WallTime;

    use super::*;

    fn bytes(cells: &[Cell]) -> Vec<u8> {
        cells.iter().flat_map(|cell| *cell.as_bytes()).collect()
    }

    #[test] // §2.6
    fn padding_stays_with_the_link() {
        let destroy = Cell::destroy(CircId::new(7).unwrap(), DestroyReason::Finished);
        let cells = circuit_cells(&bytes(&[
            Cell::new(None, Command::Padding),
            destroy.clone(),
        ]))
        .unwrap();
        assert_eq!(cells.len(), 1);
        assert_eq!(cells[0].as_bytes(), destroy.as_bytes());
    }

    /// A relay's side of one link, as far as a link goes: accepts, says `hello`, and hands over the
    /// stream.
    async fn accept(
        listener: TcpListener,
        own: SigningKey,
        hello: Hello,
    ) -> io::Result<ServerStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(tls::accept_config(&own).unwrap());
        let (socket, _) = listener.accept().await?;
        let mut stream = acceptor.accept(socket).await?;
        let mut theirs = Cell::blank();
        stream.read_exact(theirs.as_bytes_mut()).await?;
        assert!(Hello::decode(&theirs).unwrap().descriptor.is_none());
        stream.write_all(hello.encode().as_bytes()).await?;
        stream.flush().await?;
        Ok(stream)
    }

    fn hello(network: u8) -> Hello {
        let network = NetworkId([network; 32]);
        Hello {
            versions: vec![LINK_VERSION],
            network,
            clock: WallTime(0),
            features: 0,
            descriptor: None,
        }
    }

    /// A link's task that dials, and the relay that accepts.
    struct World {
        queue: mpsc::Sender<Cell>,
        events: mpsc::Receiver<LinkReport>,
        relay: JoinHandle<io::Result<ServerStream<TcpStream>>>,
    }

    /// The client dials the relay with the key `expected`; the one there has the key `actual` and
    /// belongs to `network`.
    async fn world(expected: u8, actual: u8, network: u8) -> World {
        let key = |seed: u8| SigningKey::from_seed(&[seed; 32]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            link: LinkId(1),
            relay: RelayId(key(expected).public().0),
            host_ports: vec![listener.local_addr().unwrap().to_string()],
            hello: hello(1),
            params: Arc::new(Params::LOCAL),
            clock: Clock::start(),
        };
        let relay = tokio::spawn(accept(listener, key(actual), hello(network)));
        let (queue, cells) = mpsc::channel(4);
        let (event_sender, events) = mpsc::channel(4);
        tokio::spawn(run(target, cells, event_sender));
        World {
            queue,
            events,
            relay,
        }
    }

    fn destroy(number: u32) -> Cell {
        Cell::destroy(CircId::new(number).unwrap(), DestroyReason::Finished)
    }

    #[tokio::test] // §2
    async fn cells_pass_both_ways_until_the_queue_closes() {
        let mut world = world(1, 1, 1).await;
        assert!(matches!(
            world.events.recv().await,
            Some(LinkReport::Up {
                link: LinkId(1),
                ..
            })
        ));
        let mut relay = world.relay.await.unwrap().unwrap();
        relay
            .write_all(&bytes(&[destroy(5), destroy(6)]))
            .await
            .unwrap();
        relay.flush().await.unwrap();
        let mut came = Vec::new();
        while came.len() < 2 {
            let Some(LinkReport::Cells { cells, .. }) = world.events.recv().await else {
                panic!("no cells")
            };
            came.extend(cells);
        }
        assert_eq!(bytes(&came), bytes(&[destroy(5), destroy(6)]));

        world.queue.send(destroy(7)).await.unwrap();
        drop(world.queue);
        let mut rest = Vec::new();
        relay.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, bytes(&[destroy(7)]));
        assert!(matches!(
            world.events.recv().await,
            Some(LinkReport::Down { link: LinkId(1) })
        ));
    }

    #[tokio::test] // §2.6
    async fn a_fault_of_the_relay_ends_the_link_as_any_end_does() {
        let mut world = world(1, 1, 1).await;
        assert!(matches!(
            world.events.recv().await,
            Some(LinkReport::Up { .. })
        ));
        let mut relay = world.relay.await.unwrap().unwrap();
        relay
            .write_all(Cell::new(None, Command::Hello).as_bytes())
            .await
            .unwrap();
        relay.flush().await.unwrap();
        let mut rest = Vec::new();
        relay.read_to_end(&mut rest).await.expect("the end is said");
        assert!(rest.is_empty());
        assert!(matches!(
            world.events.recv().await,
            Some(LinkReport::Down { link: LinkId(1) })
        ));
    }

    #[tokio::test] // §2.5
    async fn another_relay_than_the_expected_is_refused() {
        let mut world = world(1, 2, 1).await;
        assert!(matches!(
            world.events.recv().await,
            Some(LinkReport::DialFailed { link: LinkId(1) })
        ));
    }

    #[tokio::test] // §2.4
    async fn a_relay_of_another_network_is_refused() {
        let mut world = world(1, 1, 2).await;
        assert!(matches!(
            world.events.recv().await,
            Some(LinkReport::DialFailed { link: LinkId(1) })
        ));
    }

    #[tokio::test]
    async fn a_relay_that_hangs_up_takes_the_link_down() {
        let mut world = world(1, 1, 1).await;
        assert!(matches!(
            world.events.recv().await,
            Some(LinkReport::Up { .. })
        ));
        drop(world.relay.await.unwrap().unwrap());
        assert!(matches!(
            world.events.recv().await,
            Some(LinkReport::Down { link: LinkId(1) })
        ));
    }
}
