//! The origin's end of a circuit: create, extend hop by hop, then streams to the last hop
//! (docs/protocol.md §4.3, §6, §7).
//!
//! Never picks a path, never waits, never retries: a refused extend leaves a circuit that can be
//! extended elsewhere, and everything else that goes wrong is the circuit's end.

use std::collections::VecDeque;

use rand::CryptoRng;

use super::stream::{End, StreamEvent};
use super::{Flow, Full, unaddressed};
use crate::Violation;
use crate::cell::{Cell, Command};
use crate::handshake::{Binding, HopKeys, HopTarget, Initiator, Onionskin, Reply};
use crate::ids::NetworkId;
use crate::limits::{EARLY_CELLS_MAX, HOPS_MAX};
use crate::message::{Extend, ExtendRefusal, RelayMsg, Service, StreamId};
use crate::onion::origin::OriginLayers;

/// An event for the origin of a circuit.
#[derive(Debug)]
pub enum OriginEvent {
    /// One more hop has proved that it holds its keys. The first hop is reported too.
    Extended {
        /// How many there are now.
        hops: usize,
    },
    /// The last hop will not extend; the circuit is as it was, and may be extended to another
    /// relay.
    ExtendRefused(ExtendRefusal),
    /// A frame came on a stream.
    Frame {
        /// Which.
        stream: StreamId,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Nothing more comes on a stream.
    StreamEnded {
        /// Which.
        stream: StreamId,
        /// Whether it is over both ways; otherwise the terminal has merely said all.
        reset: bool,
    },
}

/// The origin's end of one circuit.
///
/// After [`Self::handle_cell`] take all of [`Self::poll_event`]; after anything, all of
/// [`Self::poll_cell`] that the link has room for. The caller handles `Destroy`, knows the circuit
/// id, and decides how long to wait.
#[expect(missing_debug_implementations, reason = "holds keys and a path")]
pub struct OriginCircuit {
    network: NetworkId,
    state: State,
    layers: OriginLayers,
    /// Of the last hop.
    binding: Option<Binding>,
    /// The handshake to send next.
    handshake: Option<Handshake>,
    /// How many cells in the early form were sent (§3.2).
    early_cells: u8,
    flow: Flow,
    /// The outcomes of extends.
    extends: VecDeque<OriginEvent>,
    /// A stream whose end is reported after its last frame.
    ended: Option<StreamId>,
    cells_sent: u64,
    cells_received: u64,
}

enum State {
    /// The first hop was asked for.
    Creating(Box<Initiator>),
    /// All hops that were asked for are there.
    Open,
    /// One more hop was asked for.
    Extending(Box<Initiator>),
    /// A rule was broken.
    Closed,
}

enum Handshake {
    Create(Box<Onionskin>),
    Extend(Box<Extend>),
}

impl OriginCircuit {
    /// Begins a circuit: its `Create` cell is ready to be sent to `target`.
    pub fn create(
        network: &NetworkId,
        target: &HopTarget,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let (initiator, onionskin) = Initiator::start(network, target, rng);
        Self {
            network: *network,
            state: State::Creating(Box::new(initiator)),
            layers: OriginLayers::new(),
            binding: None,
            handshake: Some(Handshake::Create(Box::new(onionskin))),
            early_cells: 0,
            flow: Flow::new(End::Origin, true),
            extends: VecDeque::new(),
            ended: None,
            cells_sent: 0,
            cells_received: 0,
        }
    }

    /// Asks for one more hop; answered by [`OriginEvent::Extended`] or
    /// [`OriginEvent::ExtendRefused`].
    ///
    /// # Panics
    /// [`Self::can_extend`] says no.
    pub fn extend(&mut self, target: &HopTarget, rng: &mut (impl CryptoRng + ?Sized)) {
        assert!(self.can_extend(), "the caller asks can_extend() first");
        let (initiator, onionskin) = Initiator::start(&self.network, target, rng);
        let extend = Extend {
            relay: target.relay,
            onion_key: target.onion_key.id(),
            onionskin,
        };
        self.state = State::Extending(Box::new(initiator));
        self.handshake = Some(Handshake::Extend(Box::new(extend)));
    }

    /// Whether one more hop may be asked for: the circuit is open and shorter than can be
    /// (§6.1(1)), no stream was ever opened on it (§6.2(2)), and there are early cells left for it
    /// (§6.1(2)).
    pub fn can_extend(&self) -> bool {
        self.is_open()
            && self.hops() < HOPS_MAX
            && self.early_cells < EARLY_CELLS_MAX
            && !self.flow.streams.is_used()
    }

    /// Whether all hops that were asked for are there.
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// How many hops there are.
    pub fn hops(&self) -> usize {
        self.layers.len()
    }

    /// The secret that only this circuit and its last hop know.
    pub const fn binding(&self) -> Option<&Binding> {
        self.binding.as_ref()
    }

    /// How many streams are not over.
    pub fn stream_count(&self) -> usize {
        self.flow.streams.len()
    }

    /// Bytes of frames not yet sent.
    pub const fn outgoing_bytes(&self) -> usize {
        self.flow.streams.outgoing_bytes()
    }

    /// How many cells were made for this circuit.
    pub const fn cells_sent(&self) -> u64 {
        self.cells_sent
    }

    /// How many cells came on this circuit.
    pub const fn cells_received(&self) -> u64 {
        self.cells_received
    }

    /// Whether the terminal's window may grow: no, while memory is short (§7.3).
    pub const fn set_growth(&mut self, may_grow: bool) {
        self.flow.receive_window.set_growth(may_grow);
    }

    /// Opens a stream to a service of the last hop with its first frame; `fin`: nothing follows it.
    /// From now on the circuit can't be extended.
    ///
    /// # Errors
    /// A limit is reached; nothing has changed.
    ///
    /// # Panics
    /// The circuit is not open.
    pub fn open_stream(
        &mut self,
        service: Service,
        frame: &[u8],
        fin: bool,
    ) -> Result<StreamId, Full> {
        assert!(self.is_open(), "streams are opened once all hops are there");
        self.flow.streams.open(service, frame, fin)
    }

    /// Sends one more frame on a stream; `fin`: nothing follows it. On a stream that is over it
    /// does nothing.
    ///
    /// # Errors
    /// A limit is reached; nothing has changed.
    ///
    /// # Panics
    /// The stream was finished from this end.
    pub fn send(&mut self, stream: StreamId, frame: &[u8], fin: bool) -> Result<(), Full> {
        self.flow.streams.send(stream, frame, fin)
    }

    /// Says that nothing follows on a stream. Does nothing if that was said, or the stream is over.
    pub fn finish(&mut self, stream: StreamId) {
        self.flow.streams.finish(stream);
    }

    /// Ends a stream both ways: no event of it comes any more. Does nothing if it is over.
    pub fn reset(&mut self, stream: StreamId) {
        if self.ended == Some(stream) {
            self.ended = None;
        }
        self.flow.streams.reset(stream);
    }

    /// Takes a cell of this circuit; works on it in place. After a violation the circuit is closed
    /// (§4.4(1)), and the caller sends a `Destroy` with [`Violation::reason`].
    ///
    /// # Errors
    /// The cell breaks a rule, or is not one that this state accepts.
    pub fn handle_cell(&mut self, command: Command, cell: &mut Cell) -> Result<(), Violation> {
        self.cells_received += 1;
        let result = match command {
            Command::Created => self.on_created(cell),
            Command::Relay => self.on_relay(cell),
            Command::Padding | Command::Hello | Command::Create | Command::Destroy => {
                Err(Violation::Unexpected)
            }
        };
        if result.is_err() {
            self.close();
        }
        result
    }

    /// The next event; `None` once there are no more.
    pub fn poll_event(&mut self) -> Option<OriginEvent> {
        if let Some(event) = self.extends.pop_front() {
            return Some(event);
        }
        if let Some(stream) = self.ended.take() {
            return Some(OriginEvent::StreamEnded {
                stream,
                reset: false,
            });
        }
        Some(match self.flow.streams.poll_event()? {
            StreamEvent::Frame {
                stream,
                service: _,
                frame,
                is_first: _,
                fin,
            } => {
                self.ended = fin.then_some(stream);
                OriginEvent::Frame { stream, frame }
            }
            StreamEvent::Ended { stream, reset } => OriginEvent::StreamEnded { stream, reset },
        })
    }

    /// The next cell to send: handshakes before credits, credits before data. Its command is set;
    /// its circuit id is the caller's to write with [`Cell::set_header`].
    pub fn poll_cell(&mut self, rng: &mut (impl CryptoRng + ?Sized)) -> Option<Cell> {
        let cell = match self.handshake.take() {
            Some(Handshake::Create(onionskin)) => {
                let mut cell = unaddressed(Command::Create);
                onionskin.write_create_body(cell.body_mut());
                cell
            }
            // §6.2(1): nothing else is sent until the answer; `State::Extending` sees to it.
            Some(Handshake::Extend(extend)) => {
                let mut message = Vec::new();
                RelayMsg::Extend(extend).encode(&mut message);
                let mut cell = unaddressed(Command::Relay);
                self.layers.wrap(true, &message, cell.body_mut(), rng);
                self.early_cells += 1;
                cell
            }
            None if self.is_open() => self.poll_flow(rng)?,
            None => return None,
        };
        self.cells_sent += 1;
        Some(cell)
    }

    fn poll_flow(&mut self, rng: &mut (impl CryptoRng + ?Sized)) -> Option<Cell> {
        let mut made = None;
        let layers = &mut self.layers;
        self.flow.poll_message(|message| {
            let cell = made.insert(unaddressed(Command::Relay));
            layers.wrap(false, message, cell.body_mut(), rng)
        });
        made
    }

    // §4.3(1), §4.1(3), §4.4(4)
    fn on_created(&mut self, cell: &Cell) -> Result<(), Violation> {
        let reply = Reply::from_created_body(cell.body())?;
        match core::mem::replace(&mut self.state, State::Closed) {
            State::Creating(initiator) if self.handshake.is_none() => {
                self.on_reply(*initiator, &reply)
            }
            State::Creating(_) | State::Open | State::Extending(_) | State::Closed => {
                Err(Violation::Unexpected)
            }
        }
    }

    fn on_relay(&mut self, cell: &mut Cell) -> Result<(), Violation> {
        if matches!(self.state, State::Creating(_) | State::Closed) {
            return Err(Violation::Unexpected);
        }
        let (tag, message) = self.layers.unwrap(cell.body_mut())?;
        // §6.2(7), §6.2(8)
        match (&self.state, RelayMsg::decode(message)?) {
            (State::Open | State::Extending(_), RelayMsg::Padding) => Ok(()),
            (State::Extending(_), RelayMsg::Extended(reply)) => self.on_extended(&reply),
            (State::Extending(_), RelayMsg::ExtendRefused(refusal)) => {
                self.on_extend_refused(refusal)
            }
            (State::Open, RelayMsg::Data(data)) => self.flow.handle_data(tag, &data),
            (State::Open, RelayMsg::Credit(credit)) => self.flow.handle_credit(&credit),
            (_, _) => Err(Violation::Unexpected),
        }
    }

    fn on_extended(&mut self, reply: &Reply) -> Result<(), Violation> {
        match core::mem::replace(&mut self.state, State::Closed) {
            State::Extending(initiator) if self.handshake.is_none() => {
                self.on_reply(*initiator, reply)
            }
            State::Creating(_) | State::Open | State::Extending(_) | State::Closed => {
                Err(Violation::Unexpected)
            }
        }
    }

    /// The answer to a handshake that was sent: the hop is there, or the circuit is over (§4.3(2)).
    fn on_reply(&mut self, initiator: Initiator, reply: &Reply) -> Result<(), Violation> {
        let HopKeys {
            forward,
            backward,
            binding,
        } = initiator.finish(reply).map_err(|_| Violation::Handshake)?;
        self.layers.push(forward, backward);
        self.binding = Some(binding);
        self.state = State::Open;
        self.extends.push_back(OriginEvent::Extended {
            hops: self.layers.len(),
        });
        Ok(())
    }

    /// The circuit is as it was (§6.3(2)).
    fn on_extend_refused(&mut self, refusal: ExtendRefusal) -> Result<(), Violation> {
        if self.handshake.is_some() {
            return Err(Violation::Unexpected);
        }
        self.state = State::Open;
        self.extends.push_back(OriginEvent::ExtendRefused(refusal));
        Ok(())
    }

    /// Forgets all keys and all that was on the way.
    fn close(&mut self) {
        self.state = State::Closed;
        self.layers = OriginLayers::new();
        self.binding = None;
        self.handshake = None;
        self.flow = Flow::new(End::Origin, false);
        self.extends.clear();
        self.ended = None;
    }
}
