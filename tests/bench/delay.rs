//! Distance, on loopback: a forwarder before each relay holds every byte for a while, each way.
//!
//! A relay advertises its forwarder's address, so relays and clients alike dial through it. A
//! forwarder releases each byte one way's time after it arrived, in order; a connection's first
//! bytes also wait for the time that connecting takes. There is no loss, no slow start and no rate
//! limit but [`HELD_BYTES_MAX`]: this is distance alone. It needs no privileges and no help from
//! the kernel, so anyone can repeat it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc as alarms;
use std::sync::{Arc, mpsc::RecvTimeoutError};
use std::thread;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use umbel_client::local::{LocalNetwork, Place};
use umbel_proto::limits::HOPS_MAX;
use umbel_proto::time::Duration;

use super::probe::Probe;
use super::queue::Queue;
use super::row::{Goal, Row, Unit, ms};
use super::{BenchError, Extent, RELAYS, Report, Step, message, within};

/// From one end of a link to the other.
const ONE_WAY: Duration = Duration::from_millis(25);
/// Most bytes held on one connection each way; beyond it no more are read. At 25 ms, more than 300
/// MB/s.
const HELD_BYTES_MAX: usize = 8 << 20;
/// Most bytes read at once.
const CHUNK_LEN: usize = 64 << 10;
/// Fetches of 124 kB in flight at once: more than a window of 512 cells holds.
const FETCHES_UNDER_WAY: usize = 10;
/// Round trips over each connection of the echo.
const ECHOES: usize = 5;

/// How much is done.
#[derive(Clone, Copy)]
struct Plan {
    /// Connections to the echo.
    connects: usize,
    /// Bytes that one stream carries.
    stream_bytes: usize,
    /// Circuits built one after the other.
    circuits: usize,
    /// Transfers over one circuit.
    bulk_rounds: usize,
    /// Records of the greatest length carried in each.
    bulk_records: usize,
    messages: message::Plan,
}

impl Plan {
    const FULL: Self = Self {
        connects: 10,
        stream_bytes: 256 << 20,
        circuits: 10,
        bulk_rounds: 5,
        bulk_records: 80,
        messages: message::Plan {
            messages: 15,
            cold_starts: 5,
            ..message::Plan::FULL
        },
    };
    const QUICK: Self = Self {
        connects: 2,
        stream_bytes: 16 << 20,
        circuits: 1,
        bulk_rounds: 1,
        bulk_records: 4,
        messages: message::Plan {
            messages: 2,
            cold_starts: 1,
            ..message::Plan::QUICK
        },
    };
}

/// The delay of all bytes of a network, and the clock that times it.
struct Distance {
    one_way: Duration,
    timer: Timer,
}

impl Distance {
    fn new(one_way: Duration) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            one_way,
            timer: Timer::start()?,
        }))
    }
}

/// Connections to one address, each carried on to another.
struct Forwarder {
    listener: TcpListener,
    address: SocketAddr,
}

impl Forwarder {
    /// Takes an address. Connections wait for [`Forwarder::forward`].
    async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
        })
    }

    /// Carries connections on to `target` until dropped.
    async fn forward(self, target: SocketAddr, distance: Arc<Distance>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    // A connection that is refused looks like one to a full relay.
                    let Ok((stream, _)) = accepted else { continue };
                    connections.spawn(carry_both(stream, target, Arc::clone(&distance)));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// One connection. Its ends hear of each other's end; what broke it they can't tell from distance.
async fn carry_both(
    near: TcpStream,
    target: SocketAddr,
    distance: Arc<Distance>,
) -> io::Result<()> {
    let dialled_at = Instant::now();
    distance.timer.until(dialled_at + distance.one_way).await;
    let far = TcpStream::connect(target).await;
    let connected_at = dialled_at + distance.one_way * 2;
    let far = match far {
        Ok(far) => far,
        Err(error) => {
            distance.timer.until(connected_at).await;
            return Err(error);
        }
    };
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_reads, near_writes), (far_reads, far_writes)) =
        (near.into_split(), far.into_split());
    tokio::try_join!(
        carry(near_reads, far_writes, &distance, connected_at),
        carry(far_reads, near_writes, &distance, connected_at),
    )?;
    Ok(())
}

/// Bytes on their way, when they arrive, and their share of [`HELD_BYTES_MAX`].
struct Held {
    due_at: Instant,
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// One direction of a connection, to its end. No byte leaves before `not_before`.
async fn carry(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    distance: &Distance,
    not_before: Instant,
) -> io::Result<()> {
    // Bounded by the bytes in it.
    let (sender, held) = mpsc::unbounded_channel();
    tokio::try_join!(
        take(from, sender, distance.one_way, not_before),
        release(held, to, &distance.timer)
    )?;
    Ok(())
}

async fn take(
    mut from: OwnedReadHalf,
    held: mpsc::UnboundedSender<Held>,
    one_way: Duration,
    not_before: Instant,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(HELD_BYTES_MAX));
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        let count = from.read(&mut buffer).await?;
        let due_at = Instant::now().max(not_before) + one_way;
        let share = u32::try_from(count).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&room).acquire_many_owned(share).await else {
            return Ok(());
        };
        let bytes = buffer.iter().take(count).copied().collect();
        // The other half of this direction only ends on an error, which ends this half too.
        if held
            .send(Held {
                due_at,
                bytes,
                _room: room,
            })
            .is_err()
            || count == 0
        {
            return Ok(());
        }
    }
}

/// Nothing stands for the end.
async fn release(
    mut held: mpsc::UnboundedReceiver<Held>,
    mut to: OwnedWriteHalf,
    timer: &Timer,
) -> io::Result<()> {
    while let Some(Held {
        due_at,
        bytes,
        _room,
    }) = held.recv().await
    {
        timer.until(due_at).await;
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&bytes).await?;
    }
    Ok(())
}

/// Wakes tasks at a moment: the runtime's own timers are a millisecond late, which over eight links
/// is eight.
struct Timer {
    alarms: alarms::Sender<Alarm>,
}

struct Alarm {
    at: Instant,
    wake: oneshot::Sender<()>,
}

impl Timer {
    /// Starts its thread, which ends when this is dropped.
    fn start() -> io::Result<Self> {
        let (sender, alarms) = alarms::channel();
        thread::Builder::new()
            .name("distance".to_owned())
            .spawn(move || run_timer(&alarms))?;
        Ok(Self { alarms: sender })
    }

    async fn until(&self, at: Instant) {
        if at <= Instant::now() {
            return;
        }
        let (wake, woken) = oneshot::channel();
        if self.alarms.send(Alarm { at, wake }).is_ok() {
            drop(woken.await); // an error is the end of the thread, and of waiting
        }
    }
}

fn run_timer(alarms: &alarms::Receiver<Alarm>) {
    let mut waiting: BTreeMap<(Instant, u64), oneshot::Sender<()>> = BTreeMap::new();
    for number in 0.. {
        let next = match waiting.first_key_value() {
            None => alarms.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((&(at, _), _)) => {
                alarms.recv_timeout(at.saturating_duration_since(Instant::now()))
            }
        };
        match next {
            Ok(Alarm { at, wake }) => drop(waiting.insert((at, number), wake)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        while let Some(due) = waiting.first_entry().filter(|due| due.key().0 <= now) {
            let _ = due.remove().send(()); // the task that waited may be gone
        }
    }
}

/// Who makes the distance.
enum Distances {
    /// Forwarders of ours, which end when this is dropped.
    Forwarders {
        distance: Arc<Distance>,
        tasks: JoinSet<()>,
    },
    /// Something outside that delays what passes certain ports; this is the next of them.
    Outside { port: u16 },
}

impl Distances {
    fn new(ports: Option<u16>) -> io::Result<Self> {
        Ok(match ports {
            Some(port) => Self::Outside { port },
            None => Self::Forwarders {
                distance: Distance::new(ONE_WAY)?,
                tasks: JoinSet::new(),
            },
        })
    }

    fn next_port(port: &mut u16) -> u16 {
        let next = *port;
        *port = port.saturating_add(1);
        next
    }

    /// Something that listens, and the address by which it is far away.
    async fn listener(&mut self) -> io::Result<(TcpListener, SocketAddr)> {
        match self {
            Self::Outside { port } => {
                let listener =
                    TcpListener::bind((Ipv4Addr::LOCALHOST, Self::next_port(port))).await?;
                let address = listener.local_addr()?;
                Ok((listener, address))
            }
            Self::Forwarders { distance, tasks } => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let front = Forwarder::bind().await?;
                let address = front.address;
                tasks.spawn(front.forward(listener.local_addr()?, Arc::clone(distance)));
                Ok((listener, address))
            }
        }
    }

    /// Relays that are far away from each other and from everyone else.
    async fn network(&mut self) -> Result<LocalNetwork, BenchError> {
        let network = match self {
            Self::Outside { port } => {
                let places: Vec<Place> = (0..RELAYS)
                    .map(|_| Place::at_port(Self::next_port(port)))
                    .collect();
                LocalNetwork::start_at(places).await?
            }
            Self::Forwarders { distance, tasks } => {
                let mut fronts = Vec::with_capacity(RELAYS);
                for _ in 0..RELAYS {
                    fronts.push(Forwarder::bind().await?);
                }
                let places = fronts.iter().map(|front| Place {
                    advertise: Some(front.address),
                    ..Place::at_port(0)
                });
                let network = LocalNetwork::start_at(places.collect::<Vec<_>>()).await?;
                for (front, target) in fronts.into_iter().zip(network.listen_addresses()) {
                    tasks.spawn(front.forward(target, Arc::clone(distance)));
                }
                network
            }
        };
        network.gather().await?;
        Ok(network)
    }
}

/// Measures with every link [`ONE_WAY`] long, or as long as the outside tool at these ports makes
/// it.
pub(super) async fn measure(
    extent: Extent,
    ports: Option<u16>,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let plan = extent.pick(Plan::FULL, Plan::QUICK);
    let mut distances = Distances::new(ports)?;
    within(Step::Link, echo(&plan, &mut distances, report)).await?;
    within(Step::Link, stream(&plan, &mut distances, report)).await?;
    let network = distances.network().await?;
    Box::pin(circuits(&plan, &network, report)).await?;
    let mut far = |row: Row| {
        if let Some((name, goal)) = far_row(row.name) {
            report(Row {
                name,
                goal,
                note: format!("{}; every link 25 ms long each way", row.note),
                ..row
            });
        }
    };
    message::measure_far(&plan.messages, &network, &mut far).await?;
    Ok(network.stop().await?)
}

/// A row's name and goal in this group; `None` for rows that distance does not change.
fn far_row(name: &'static str) -> Option<(&'static str, Option<Goal>)> {
    Some(match name {
        "message_latency" => ("delay_message_latency", None),
        "message_held" => ("delay_message_held", Some(Goal::AtMost(450.0))),
        "message_round_trip" => ("delay_message_round_trip", None),
        "message_cold" => ("delay_message_cold", None),
        "message_cold_send" => ("delay_message_cold_send", Some(Goal::AtMost(1500.0))),
        "client_fresh" => ("delay_client_fresh", None),
        _ => return None,
    })
}

/// The tool itself: a byte there and back.
async fn echo(
    plan: &Plan,
    distances: &mut Distances,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let (target, address) = distances.listener().await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = target.accept().await {
            let (mut reads, mut writes) = stream.split();
            drop(tokio::io::copy(&mut reads, &mut writes).await); // until the other end is gone
        }
    });
    let (mut connects, mut echoes) = (Vec::new(), Vec::new());
    for _ in 0..plan.connects {
        let started = Instant::now();
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        round_trip(&mut stream).await?;
        connects.push(ms(started.elapsed()));
        for _ in 0..ECHOES {
            let started = Instant::now();
            round_trip(&mut stream).await?;
            echoes.push(ms(started.elapsed()));
        }
    }
    report(Row::of(
        "delay_connect_echo",
        Unit::Milliseconds,
        connects,
        "the delay itself: TCP connect and a byte there and back, 25 ms each way: 100 is exact",
    ));
    report(Row::of(
        "delay_echo",
        Unit::Milliseconds,
        echoes,
        "the delay itself: a byte there and back: 50 is exact",
    ));
    Ok(())
}

async fn round_trip(stream: &mut TcpStream) -> io::Result<()> {
    let mut byte = [7];
    stream.write_all(&byte).await?;
    stream.read_exact(&mut byte).await.map(|_| ())
}

/// The tool itself: the throughput of one stream, from its first byte to its last.
async fn stream(
    plan: &Plan,
    distances: &mut Distances,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let (target, address) = distances.listener().await?;
    let len = plan.stream_bytes;
    let writer = async {
        let mut stream = TcpStream::connect(address).await?;
        let chunk = vec![0; CHUNK_LEN];
        for _ in 0..len / CHUNK_LEN {
            stream.write_all(&chunk).await?;
        }
        Ok::<_, io::Error>(stream) // open until all is read
    };
    let reader = async {
        let (mut stream, _) = target.accept().await?;
        let mut chunk = vec![0; CHUNK_LEN];
        let mut read = stream.read(&mut chunk).await?;
        let started = Instant::now();
        while read < len {
            match stream.read(&mut chunk).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => read += count,
            }
        }
        Ok::<_, io::Error>(started.elapsed())
    };
    let (_stream, took) = tokio::try_join!(writer, reader)?;
    report(Row::single(
        "delay_stream",
        Unit::MegabytesPerSecond,
        Some(len as f64 / 1e6 / took.as_secs_f64()),
        "the delay itself: what one TCP stream carries through it",
    ));
    Ok(())
}

/// Four hops built, and what one such circuit carries toward the client.
async fn circuits(
    plan: &Plan,
    network: &LocalNetwork,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let mut guard = None;
    let mut onward = Vec::new();
    for peer in network.peers().iter().take(HOPS_MAX) {
        let probe = Probe::dial(peer).await?;
        match guard {
            None => guard = Some(probe),
            Some(_) => onward.push(probe.target().clone()),
        }
    }
    let Some(mut probe) = guard else {
        return Err(BenchError::NoDescriptor);
    };
    probe.build(&onward).await?; // the links between the relays are there from now on
    let mut times = Vec::new();
    for _ in 0..plan.circuits {
        let started = Instant::now();
        probe.build(&onward).await?;
        times.push(ms(started.elapsed()));
    }
    report(Row::of(
        "delay_circuit_build",
        Unit::Milliseconds,
        times,
        "four hops, one after the other, over links that are up and 25 ms long each way: 500 is the way alone",
    ));
    let mut queue = Queue::create(probe, &onward).await?;
    queue.fetch(plan.bulk_records).await?; // the window grows to its full size
    queue.set_under_way(FETCHES_UNDER_WAY);
    let mut rates = Vec::new();
    for _ in 0..plan.bulk_rounds {
        let started = Instant::now();
        let bytes = queue.fetch(plan.bulk_records).await?;
        rates.push(bytes as f64 / 1e6 / started.elapsed().as_secs_f64());
    }
    report(
        Row::of(
            "delay_bulk",
            Unit::MegabytesPerSecond,
            rates,
            "records of 124 kB fetched over one circuit of four links of 25 ms each way; a window of 512 cells allows 5.2",
        )
        .with_goal(Goal::AtLeast(3.0)),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes written at one end of a forwarder come out of the other whole, in order and no earlier
    /// than they may.
    #[tokio::test]
    async fn bytes_arrive_whole_and_not_early() {
        let one_way = Duration::from_millis(5);
        let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let front = Forwarder::bind().await.unwrap();
        let address = front.address;
        tokio::spawn(front.forward(
            target.local_addr().unwrap(),
            Distance::new(one_way).unwrap(),
        ));
        let sent: Vec<u8> = (0..300_000_usize)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let started = Instant::now();
        let mut near = TcpStream::connect(address).await.unwrap();
        let bytes = sent.clone();
        tokio::spawn(async move { near.write_all(&bytes).await.unwrap() });
        let (mut far, _) = target.accept().await.unwrap();
        let mut came = vec![0; 1];
        far.read_exact(&mut came).await.unwrap();
        assert!(
            started.elapsed() >= one_way * 3,
            "to connect takes two ways, the first byte a third"
        );
        far.read_to_end(&mut came).await.unwrap();
        assert!(
            came == sent,
            "the end comes too, behind all that was written"
        );
    }

    #[tokio::test]
    async fn a_connection_that_nobody_takes_ends() {
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let front = Forwarder::bind().await.unwrap();
        let address = front.address;
        tokio::spawn(front.forward(nobody, Distance::new(Duration::from_millis(1)).unwrap()));
        let mut near = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        assert!(matches!(near.read(&mut byte).await, Ok(0) | Err(_)));
    }
}
