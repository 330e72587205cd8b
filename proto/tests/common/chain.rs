//! A circuit in memory: an origin, and relays made of the very parts a relay is made of, joined
//! without links.
//!
//! What a relay's control plane does with an extend is done here in a few lines: look the next
//! relay up, answer for it, report back, turn the terminal into a hop in the middle. Cells can be
//! tampered with on their way to each hop.

use std::collections::VecDeque;

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::circuit::{OriginCircuit, OriginEvent, TerminalCircuit, TerminalEvent};
use umbel_proto::handshake::{HopKeys, HopTarget, OnionSecret, Onionskin, Reply, respond};
use umbel_proto::ids::{CircId, NetworkId, RelayId};
use umbel_proto::limits::HOPS_MAX;
use umbel_proto::message::{Extend, ExtendRefusal, RelayMsg};
use umbel_proto::onion::transit::{AddLayer, PeelLayer, delivered_message};

/// The network that all circuits here are of.
pub(crate) const NETWORK: NetworkId = NetworkId([9; 32]);

/// A relay that is not on any circuit yet.
pub(crate) struct Relay {
    id: RelayId,
    keys: Vec<OnionSecret>,
}

/// A relay's part of the circuit.
struct Hop {
    forward: PeelLayer,
    backward: Backward,
}

enum Backward {
    Transit(AddLayer),
    Terminal(Box<TerminalCircuit>),
    /// A last hop without rules: tests say what it seals.
    Rogue(AddLayer),
}

/// The circuit was destroyed: by whom (0 is the origin, 1 the guard), and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destroyed {
    pub(crate) by: usize,
    pub(crate) violation: Violation,
}

/// One circuit and all relays it may be extended to.
pub(crate) struct Chain {
    pub(crate) origin: OriginCircuit,
    pub(crate) rng: ChaCha20Rng,
    relays: Vec<Relay>,
    hops: Vec<Hop>,
    /// Backward cells on their way to the origin, all layers on.
    pub(crate) backward: VecDeque<Cell>,
}

impl Relay {
    fn new(number: u8, rng: &mut ChaCha20Rng) -> Self {
        Self {
            id: RelayId([number; 32]),
            keys: vec![OnionSecret::generate(rng)],
        }
    }

    fn target(&self) -> HopTarget {
        HopTarget {
            relay: self.id,
            onion_key: self.keys[0].public(),
        }
    }

    fn answer(&self, onionskin: &Onionskin, rng: &mut ChaCha20Rng) -> (Hop, Reply) {
        let (keys, reply) =
            respond(&NETWORK, &self.id, &self.keys, onionskin, rng).expect("an onionskin for us");
        let HopKeys {
            forward,
            backward,
            binding,
        } = keys;
        let terminal = TerminalCircuit::new(AddLayer::new(backward), binding);
        (
            Hop {
                forward: PeelLayer::new(forward),
                backward: Backward::Terminal(Box::new(terminal)),
            },
            reply,
        )
    }
}

impl Chain {
    /// A circuit whose `Create` is not sent yet.
    pub(crate) fn unbuilt() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let relays: Vec<_> = (1..=HOPS_MAX)
            .map(|number| Relay::new(number as u8, &mut rng))
            .collect();
        let origin = OriginCircuit::create(&NETWORK, &relays[0].target(), &mut rng);
        Self {
            origin,
            rng,
            relays,
            hops: Vec::new(),
            backward: VecDeque::new(),
        }
    }

    /// A circuit of `hops` hops.
    pub(crate) fn built(hops: usize) -> Self {
        let mut chain = Self::unbuilt();
        chain.run().expect("honest ends");
        chain.expect_extended(1);
        for hop in 2..=hops {
            chain.begin_extend(hop);
            chain.run().expect("honest ends");
            chain.expect_extended(hop);
        }
        chain
    }

    /// A circuit of one hop that says whatever the test wants.
    pub(crate) fn rogue() -> Self {
        let mut chain = Self::built(1);
        let last = chain.hops.last_mut().expect("there is a hop");
        let unset = Backward::Transit(AddLayer::new(
            umbel_proto::crypto::aead::LayerKey::from_bytes([0; 32]),
        ));
        last.backward = match std::mem::replace(&mut last.backward, unset) {
            Backward::Terminal(terminal) => Backward::Rogue(terminal.into_backward()),
            other => other,
        };
        chain
    }

    /// Asks for hop number `hop` (1 is the guard).
    pub(crate) fn begin_extend(&mut self, hop: usize) {
        let target = self.relays[hop - 1].target();
        self.origin.extend(&target, &mut self.rng);
    }

    /// Asks for a hop that no relay knows.
    pub(crate) fn begin_extend_to_unknown(&mut self) {
        let target = Relay::new(99, &mut self.rng).target();
        self.origin.extend(&target, &mut self.rng);
    }

    /// The last hop.
    pub(crate) fn terminal(&mut self) -> &mut TerminalCircuit {
        match self.hops.last_mut().map(|hop| &mut hop.backward) {
            Some(Backward::Terminal(terminal)) => terminal,
            _ => panic!("the last hop is a terminal"),
        }
    }

    /// The tag and cell of what the rogue last hop says.
    pub(crate) fn rogue_says(&mut self, message: &RelayMsg<'_>) -> ([u8; 16], Cell) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.rogue_says_bytes(&bytes)
    }

    pub(crate) fn rogue_says_bytes(&mut self, bytes: &[u8]) -> ([u8; 16], Cell) {
        let Some(Hop {
            backward: Backward::Rogue(layer),
            ..
        }) = self.hops.last_mut()
        else {
            panic!("the last hop is a rogue")
        };
        let mut cell = Cell::new(CircId::new(1), Command::Relay);
        let tag = layer.seal(bytes, &mut cell);
        (tag, cell)
    }

    /// Passes cells both ways until nobody has any.
    pub(crate) fn run(&mut self) -> Result<(), Destroyed> {
        loop {
            let mut is_done = true;
            while let Some(cell) = self.origin.poll_cell(&mut self.rng) {
                self.forward(cell)?;
                is_done = false;
            }
            self.collect_backward();
            while let Some(cell) = self.backward.pop_front() {
                self.deliver_backward(cell)?;
                is_done = false;
            }
            if is_done {
                return Ok(());
            }
        }
    }

    /// Passes one cell of the origin to the hop it is for.
    pub(crate) fn forward(&mut self, cell: Cell) -> Result<(), Destroyed> {
        self.forward_tampered(cell, |_, _| ())
    }

    /// The same, with each cell shown to `tamper` on its way to hop number 1, 2..
    pub(crate) fn forward_tampered(
        &mut self,
        mut cell: Cell,
        mut tamper: impl FnMut(usize, &mut Cell),
    ) -> Result<(), Destroyed> {
        let (_, command) = cell.header().expect("a cell we made");
        if command == Command::Create {
            tamper(1, &mut cell);
            return self.on_create(&cell);
        }
        for index in 0..self.hops.len() {
            let number = index + 1;
            let destroyed = |violation| Destroyed {
                by: number,
                violation,
            };
            // As in a relay: a cell from a link lies at the front of its buffer.
            let mut arrived = Cell::blank();
            *arrived.as_bytes_mut() = *cell.as_bytes();
            tamper(number, &mut arrived);
            let peeled = self.hops[index]
                .forward
                .peel(&mut arrived)
                .map_err(|fault| destroyed(fault.into()))?;
            if peeled.command.is_deliver() {
                assert_eq!(number, self.hops.len(), "only the last hop is spoken to");
                return self
                    .on_delivered(peeled.command.is_early(), peeled.tag, &arrived)
                    .map_err(destroyed);
            }
            cell = arrived;
        }
        panic!("some hop is spoken to")
    }

    /// Puts all cells that the terminal has on their way, through the layers of the hops before it.
    pub(crate) fn collect_backward(&mut self) {
        while let Some(cell) = self.poll_terminal_cell() {
            self.backward.push_back(cell);
        }
    }

    /// The terminal's next cell, as it reaches the origin.
    pub(crate) fn poll_terminal_cell(&mut self) -> Option<Cell> {
        let (last, before) = self.hops.split_last_mut()?;
        let Backward::Terminal(terminal) = &mut last.backward else {
            return None;
        };
        let mut cell = terminal.poll_cell()?;
        for hop in before.iter_mut().rev() {
            if let Backward::Transit(layer) = &mut hop.backward {
                layer.add(cell.body_mut());
            }
        }
        Some(cell)
    }

    /// Gives the origin a cell.
    pub(crate) fn deliver_backward(&mut self, mut cell: Cell) -> Result<(), Destroyed> {
        let (_, command) = cell.header().expect("a cell we made");
        self.origin
            .handle_cell(command, &mut cell)
            .map_err(|violation| Destroyed { by: 0, violation })
    }

    pub(crate) fn origin_events(&mut self) -> Vec<OriginEvent> {
        std::iter::from_fn(|| self.origin.poll_event()).collect()
    }

    pub(crate) fn terminal_events(&mut self) -> Vec<TerminalEvent> {
        let terminal = self.terminal();
        std::iter::from_fn(|| terminal.poll_event()).collect()
    }

    fn expect_extended(&mut self, expected: usize) {
        let events = self.origin_events();
        assert!(
            matches!(events[..], [OriginEvent::Extended { hops }] if hops == expected),
            "{events:?}"
        );
    }

    fn on_create(&mut self, cell: &Cell) -> Result<(), Destroyed> {
        let onionskin = Onionskin::from_create_body(cell.body()).expect("a Create we made");
        let (hop, reply) = self.relays[0].answer(&onionskin, &mut self.rng);
        self.hops.push(hop);
        let mut created = Cell::new(CircId::new(1), Command::Created);
        reply.write_created_body(created.body_mut());
        self.backward.push_back(created);
        Ok(())
    }

    fn on_delivered(
        &mut self,
        is_early: bool,
        tag: [u8; 16],
        cell: &Cell,
    ) -> Result<(), Violation> {
        match RelayMsg::decode(delivered_message(cell)?)? {
            RelayMsg::Extend(extend) => {
                assert!(is_early, "an extend is early");
                self.on_extend(&extend);
                Ok(())
            }
            message => self.terminal().handle_message(tag, &message),
        }
    }

    fn on_extend(&mut self, extend: &Extend) {
        let Some(next) = self.relays.iter().find(|relay| relay.id == extend.relay) else {
            self.terminal()
                .send_control(&RelayMsg::ExtendRefused(ExtendRefusal::UnknownRelay));
            return;
        };
        let (hop, reply) = next.answer(&extend.onionskin, &mut self.rng);
        self.terminal()
            .send_control(&RelayMsg::Extended(Box::new(reply)));
        self.collect_backward();
        let mut last = self.hops.pop().expect("there is a last hop");
        if let Backward::Terminal(terminal) = last.backward {
            last.backward = Backward::Transit(terminal.into_backward());
        }
        self.hops.push(last);
        self.hops.push(hop);
    }
}
