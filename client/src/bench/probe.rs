//! A link of a client's, and circuits over it, without the client: whoever measures decides what is sent when.
//!
//! The link and the circuits are those that clients make (docs/protocol.md §2, §4). One task drives all of it: it sends
//! what there is to send, then waits for the next cell.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::circuit::origin::{OriginCircuit, OriginEvent};
use umbel_proto::directory::descriptor::Unverified;
use umbel_proto::handshake::{Binding, HopTarget};
use umbel_proto::ids::{CircId, Peer};
use umbel_proto::limits::CELL_LEN;
use umbel_proto::link::{Hello, LINK_VERSION, tls};
use umbel_proto::message::Service;
use umbel_proto::network::Network;

use super::{BenchError, Step, within};
use crate::net::Clock;

/// What is read or written at once: as much as fills four TLS records.
const BUFFER_LEN: usize = 32 * CELL_LEN;
/// The side that dialled uses ids with this bit set.
const DIALLER_BIT: u32 = 0x8000_0000;

/// A link that is up, and the circuits over it.
pub(super) struct Probe {
    stream: BufStream<TlsStream<TcpStream>>,
    network: Network,
    target: HopTarget,
    circuits: BTreeMap<CircId, OriginCircuit>,
    next_circ: u32,
}

impl Probe {
    /// Makes a link to a relay of the built-in local network.
    pub(super) async fn dial(peer: &Peer) -> Result<Self, BenchError> {
        within(Step::Link, Self::open(peer)).await
    }

    async fn open(peer: &Peer) -> Result<Self, BenchError> {
        let (network, wall) = (Network::local(), Clock::wall());
        let ours =
            Hello { versions: vec![LINK_VERSION], network: network.id, clock: wall, features: 0, descriptor: None };
        let config = tls::dial_config(&peer.id, None)?;
        let socket = TcpStream::connect(&peer.host_port).await?;
        socket.set_nodelay(true)?;
        let stream = TlsConnector::from(config).connect(tls::server_name(), socket).await?;
        let mut stream = BufStream::with_capacity(BUFFER_LEN, BUFFER_LEN, stream);
        stream.write_all(ours.encode().as_bytes()).await?;
        stream.flush().await?;
        let mut cell = Cell::blank();
        stream.read_exact(cell.as_bytes_mut()).await?;
        let theirs = Hello::decode(&cell)?;
        ours.negotiate(&theirs)?;
        let descriptor = theirs.descriptor.ok_or(BenchError::NoDescriptor)?;
        let verified = Unverified::decode(&descriptor).and_then(|unverified| unverified.verify(&network, wall));
        let target = verified.map_err(|_| BenchError::NoDescriptor)?.hop_target();
        Ok(Self { stream, network, target, circuits: BTreeMap::new(), next_circ: DIALLER_BIT })
    }

    /// What a circuit's hop needs to know of the relay at the other end.
    pub(super) const fn target(&self) -> &HopTarget {
        &self.target
    }

    /// Builds a circuit: through the relay at the other end, then through each of these, one after the other.
    pub(super) async fn build(&mut self, onward: &[HopTarget]) -> Result<CircId, BenchError> {
        within(Step::Circuit, self.build_hops(onward)).await
    }

    async fn build_hops(&mut self, onward: &[HopTarget]) -> Result<CircId, BenchError> {
        self.next_circ += 1;
        let circ = CircId::new(self.next_circ).unwrap_or_else(|| unreachable!("the top bit is set"));
        let circuit = OriginCircuit::create(&self.network.id, &self.target, &mut rand::rng());
        self.circuits.insert(circ, circuit);
        self.until_extended(circ).await?;
        for target in onward {
            self.circuit(circ)?.extend(target, &mut rand::rng());
            self.until_extended(circ).await?;
        }
        Ok(circ)
    }

    async fn until_extended(&mut self, circ: CircId) -> Result<(), BenchError> {
        match self.next_event(circ).await? {
            OriginEvent::Extended { .. } => Ok(()),
            OriginEvent::ExtendRefused(_) => Err(BenchError::ExtendRefused),
            OriginEvent::Frame { .. } | OriginEvent::StreamEnded { .. } => Err(BenchError::Unexpected),
        }
    }

    /// What this circuit and its last hop share.
    pub(super) fn binding(&mut self, circ: CircId) -> Result<Binding, BenchError> {
        self.circuit(circ)?.binding().cloned().ok_or(BenchError::Destroyed)
    }

    /// Says one frame to the mailbox service of a circuit's last hop.
    pub(super) fn ask(&mut self, circ: CircId, frame: &[u8]) -> Result<(), BenchError> {
        self.circuit(circ)?.open_stream(Service::Mailbox, frame, true).map_err(|_| BenchError::Unexpected)?;
        Ok(())
    }

    /// The next frame that comes on a circuit, on whatever stream.
    pub(super) async fn next_frame(&mut self, circ: CircId) -> Result<Vec<u8>, BenchError> {
        loop {
            match self.next_event(circ).await? {
                OriginEvent::Frame { frame, .. } => return Ok(frame),
                OriginEvent::StreamEnded { reset: false, .. } => {}
                OriginEvent::StreamEnded { reset: true, .. } => return Err(BenchError::Destroyed),
                OriginEvent::Extended { .. } | OriginEvent::ExtendRefused(_) => return Err(BenchError::Unexpected),
            }
        }
    }

    async fn next_event(&mut self, circ: CircId) -> Result<OriginEvent, BenchError> {
        loop {
            self.send(circ).await?;
            if let Some(event) = self.circuit(circ)?.poll_event() {
                return Ok(event);
            }
            self.receive().await?;
        }
    }

    /// Sends what a circuit has to send.
    async fn send(&mut self, circ: CircId) -> Result<(), BenchError> {
        let circuit = self.circuits.get_mut(&circ).ok_or(BenchError::Destroyed)?;
        let mut is_sent = true;
        while let Some(mut cell) = circuit.poll_cell(&mut rand::rng()) {
            cell.set_circ_id(circ);
            self.stream.write_all(cell.as_bytes()).await?;
            is_sent = false;
        }
        if !is_sent {
            self.stream.flush().await?;
        }
        Ok(())
    }

    /// Waits for one cell, and gives it to its circuit.
    async fn receive(&mut self) -> Result<(), BenchError> {
        let mut cell = Cell::blank();
        self.stream.read_exact(cell.as_bytes_mut()).await?;
        match cell.header().map_err(Violation::from)? {
            (None, Command::Padding) => Ok(()),
            (Some(circ), Command::Destroy) => {
                self.circuits.remove(&circ);
                Ok(())
            }
            (Some(circ), command) => Ok(self.circuit(circ)?.handle_cell(command, &mut cell)?),
            (None, _) => Err(BenchError::Violation(Violation::Unexpected)),
        }
    }

    fn circuit(&mut self, circ: CircId) -> Result<&mut OriginCircuit, BenchError> {
        self.circuits.get_mut(&circ).ok_or(BenchError::Destroyed)
    }
}
