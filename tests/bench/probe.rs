//! A client's link and the circuits over it, without the client: the measuring code decides what
//! is sent when.
//!
//! The link and the circuits are those that clients make (docs/protocol.md §2, §4). One task drives
//! them: it writes the cells that are ready, then waits for the next cell. Written cells leave
//! before it waits.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::{Answer, Answers, Request, RequestCircuit, RequestEvent};
use umbel_proto::directory::descriptor::Unverified;
use umbel_proto::handshake::{Binding, HopTarget};
use umbel_proto::ids::{CircId, Peer};
use umbel_proto::limits::{CELL_LEN, HANDSHAKE_MAX};
use umbel_proto::link::{CircIds, Hello, tls};
use umbel_proto::message::Service;
use umbel_proto::network::Network;
use umbel_relay::shell::{Clock, exchange_hello};

use super::{BenchError, Step, within};

/// Bytes read or written at once: four TLS records.
const BUFFER_LEN: usize = 32 * CELL_LEN;

/// TLS on a socket that is read in large pieces: rustls alone reads 4 KiB.
pub(super) type Tls = TlsStream<BufReader<TcpStream>>;

/// The connection of a link whose other end has proven that it is that peer.
pub(super) async fn dial_tls(peer: &Peer) -> Result<Tls, BenchError> {
    let config = tls::dial_config(&peer.id, None)?;
    let socket = TcpStream::connect(&peer.host_port).await?;
    socket.set_nodelay(true)?;
    let socket = BufReader::with_capacity(BUFFER_LEN, socket);
    Ok(TlsConnector::from(config)
        .connect(tls::server_name(), socket)
        .await?)
}

/// A circuit's event; a request is known by when it was made.
type Event = RequestEvent<Instant>;

/// A link that is up, and the circuits over it.
pub(super) struct Probe {
    stream: Box<BufReader<BufWriter<Tls>>>,
    network: Network,
    target: HopTarget,
    circuits: BTreeMap<CircId, RequestCircuit<Instant>>,
    circ_ids: CircIds,
    /// The circuit of the last cell that came: it may have more events.
    recent: Option<CircId>,
}

impl Probe {
    /// Makes a link to a relay of the built-in local network.
    pub(super) async fn dial(peer: &Peer) -> Result<Self, BenchError> {
        within(Step::Link, Box::pin(Self::open(peer))).await
    }

    async fn open(peer: &Peer) -> Result<Self, BenchError> {
        let (network, wall) = (Network::local(), Clock::wall());
        let ours = Hello::of_client(network.id, wall);
        let writer = BufWriter::with_capacity(BUFFER_LEN, dial_tls(peer).await?);
        let mut stream = Box::new(BufReader::with_capacity(BUFFER_LEN, writer));
        let theirs = exchange_hello(&mut stream, &ours, HANDSHAKE_MAX).await?;
        let descriptor = theirs.descriptor.ok_or(BenchError::NoDescriptor)?;
        let verified = Unverified::decode(&descriptor)
            .and_then(|unverified| unverified.verify(&network, wall));
        let target = verified.map_err(|_| BenchError::NoDescriptor)?.hop_target();
        Ok(Self {
            stream,
            network,
            target,
            circuits: BTreeMap::new(),
            circ_ids: CircIds::new(true),
            recent: None,
        })
    }

    /// What a circuit's hop needs to know of the relay at the other end.
    pub(super) const fn target(&self) -> &HopTarget {
        &self.target
    }

    /// Builds a circuit: through the relay at the other end, then through each of these, one after
    /// the other.
    pub(super) async fn build(&mut self, onward: &[HopTarget]) -> Result<CircId, BenchError> {
        let built = self.build_together(1, onward).await?;
        built.first().copied().ok_or(BenchError::Destroyed)
    }

    /// Builds this many such circuits, all begun before any is complete.
    pub(super) async fn build_together(
        &mut self,
        count: usize,
        onward: &[HopTarget],
    ) -> Result<Vec<CircId>, BenchError> {
        within(Step::Circuit, Box::pin(self.build_all(count, onward))).await
    }

    async fn build_all(
        &mut self,
        count: usize,
        onward: &[HopTarget],
    ) -> Result<Vec<CircId>, BenchError> {
        for _ in 0..count {
            let circ = self.new_circ();
            let circuit = RequestCircuit::create(&self.network.id, &self.target, &mut rand::rng());
            self.circuits.insert(circ, circuit);
            self.send(circ).await?;
        }
        let mut built = Vec::with_capacity(count);
        while built.len() < count {
            let (circ, hops) = match self.next_event().await? {
                (circ, Event::Extended { hops }) => (circ, hops),
                (_, Event::ExtendRefused(_)) => return Err(BenchError::ExtendRefused),
                // A request on another circuit is over.
                (_, Event::Answered { answer, .. }) => match answer {
                    // On another circuit, and the answer has been read.
                    Answer::Ended { reset: false } => continue,
                    Answer::Frame(_) | Answer::Ended { reset: true } | Answer::Late => {
                        return Err(BenchError::Unexpected);
                    }
                },
            };
            match onward.get(hops - 1) {
                Some(target) => self.circuit(circ)?.extend(target, &mut rand::rng()),
                None => built.push(circ),
            }
        }
        Ok(built)
    }

    /// An id that no circuit of this link has.
    pub(super) fn new_circ(&mut self) -> CircId {
        self.circ_ids.next(|circ| self.circuits.contains_key(&circ))
    }

    /// Ends all circuits.
    pub(super) async fn destroy_all(&mut self) -> Result<(), BenchError> {
        for circ in std::mem::take(&mut self.circuits).into_keys() {
            self.write(&Cell::destroy(circ, DestroyReason::Finished))
                .await?;
        }
        self.recent = None;
        Ok(self.stream.flush().await?)
    }

    /// Forgets all circuits, which stay as they are: idle.
    pub(super) fn forget_all(&mut self) {
        self.circuits.clear();
        self.recent = None;
    }

    /// The secret that this circuit and its last hop share.
    pub(super) fn binding(&mut self, circ: CircId) -> Result<Binding, BenchError> {
        self.circuit(circ)?
            .circuit()
            .binding()
            .cloned()
            .ok_or(BenchError::Destroyed)
    }

    /// Asks a service of a circuit's last hop. The request leaves when this end next waits.
    pub(super) async fn ask(
        &mut self,
        circ: CircId,
        service: Service,
        frame: Vec<u8>,
    ) -> Result<(), BenchError> {
        let request = Request {
            service,
            frame,
            answers: Answers::One,
        };
        self.circuit(circ)?
            .ask(Instant::now(), request, None)
            .map_err(|_| BenchError::Unexpected)?;
        self.send(circ).await
    }

    /// Waits for the next answer to any request on any circuit: the circuit, when the request was
    /// made, and the answer.
    pub(super) async fn next_frame(&mut self) -> Result<(CircId, Instant, Vec<u8>), BenchError> {
        loop {
            match self.next_event().await? {
                (circ, Event::Answered { who, answer }) => match answer {
                    Answer::Frame(frame) => return Ok((circ, who, frame)),
                    Answer::Ended { reset: false } => {}
                    Answer::Ended { reset: true } | Answer::Late => {
                        return Err(BenchError::Destroyed);
                    }
                },
                (_, Event::Extended { .. } | Event::ExtendRefused(_)) => {
                    return Err(BenchError::Unexpected);
                }
            }
        }
    }

    async fn next_event(&mut self) -> Result<(CircId, Event), BenchError> {
        loop {
            if let Some(circ) = self.recent {
                self.send(circ).await?; // what an event before this one led to, and credits
                if let Some(event) = self.circuit(circ)?.poll_event() {
                    return Ok((circ, event));
                }
            }
            self.recent = None;
            let mut cell = Cell::blank();
            self.recent = self.receive(&mut cell).await?;
        }
    }

    /// Writes what a circuit has to send.
    async fn send(&mut self, circ: CircId) -> Result<(), BenchError> {
        let circuit = self.circuits.get_mut(&circ).ok_or(BenchError::Destroyed)?;
        loop {
            let cell = circuit.poll_cell(&mut rand::rng());
            let Some(mut cell) = cell else { return Ok(()) };
            cell.set_circ_id(circ);
            self.stream.write_all(cell.as_bytes()).await?;
        }
    }

    /// Waits for one cell, and gives it to its circuit; says which that was.
    async fn receive(&mut self, cell: &mut Cell) -> Result<Option<CircId>, BenchError> {
        self.read(cell).await?;
        match cell.header().map_err(Violation::from)? {
            (None, Command::Padding) => Ok(None),
            (Some(_), Command::Destroy) => Err(BenchError::Destroyed),
            (Some(circ), command) => {
                self.circuit(circ)?.handle_cell(command, cell)?;
                Ok(Some(circ))
            }
            (None, _) => Err(BenchError::Violation(Violation::Unexpected)),
        }
    }

    /// Writes a cell; it leaves when this end next waits.
    pub(super) async fn write(&mut self, cell: &Cell) -> Result<(), BenchError> {
        Ok(self.stream.write_all(cell.as_bytes()).await?)
    }

    /// Waits for the next cell.
    pub(super) async fn read(&mut self, cell: &mut Cell) -> Result<(), BenchError> {
        if self.stream.buffer().len() < CELL_LEN {
            self.stream.flush().await?;
        }
        self.stream.read_exact(cell.as_bytes_mut()).await?;
        Ok(())
    }

    fn circuit(&mut self, circ: CircId) -> Result<&mut RequestCircuit<Instant>, BenchError> {
        self.circuits.get_mut(&circ).ok_or(BenchError::Destroyed)
    }
}
