//! Extending a circuit by one hop (docs/protocol.md §6).
//!
//! The next relay is named by id only; its address comes from our own view and never from a cell.

use std::collections::BTreeMap;

use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::terminal::TerminalCircuit;
use umbel_proto::handshake::Reply;
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::link::{LinkId, LinkOp};
use umbel_proto::message::{Extend, ExtendRefusal, RelayMsg};
use umbel_proto::time::Instant;

use super::Control;
use super::circuits::{CircuitKey, End, State};
use super::timers::Timer;
use crate::forward::{Next, TableUpdate};

/// Most circuits that wait for one relay to be dialled.
const DIAL_WAITERS_MAX: usize = 1024;
/// Most relays dialled at once: whoever asks for extends can't make us dial the whole network.
const DIALS_MAX: usize = 256;

/// A circuit that waits for its next hop.
pub(super) struct Extending {
    pub(super) terminal: TerminalCircuit,
    step: Step,
    deadline: Instant,
}

enum Step {
    /// A link to the next relay is being made.
    Dialling(Box<Extend>),
    /// The onionskin is on its way.
    Created(LinkId, CircId),
}

impl Extending {
    /// The circuit's end away from its origin, once it has one.
    pub(super) fn next_end(&self) -> Option<(LinkId, CircId)> {
        match self.step {
            Step::Dialling(_) => None,
            Step::Created(link, circ) => Some((link, circ)),
        }
    }
}

/// Links being made, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Dials {
    waiting: BTreeMap<RelayId, Vec<CircuitKey>>,
}

impl Dials {
    /// This circuit waits for no link any more.
    pub(super) fn forget(&mut self, extending: &Extending, key: CircuitKey) {
        let Step::Dialling(extend) = &extending.step else {
            return;
        };
        if let Some(waiting) = self.waiting.get_mut(&extend.relay) {
            waiting.retain(|&other| other != key);
            if waiting.is_empty() {
                self.waiting.remove(&extend.relay);
            }
        }
    }
}

impl Control {
    pub(super) fn begin_extend(
        &mut self,
        now: Instant,
        key: CircuitKey,
        extend: Extend,
    ) -> Result<(), Violation> {
        let relay = extend.relay;
        let is_self = relay == self.relay_id();
        let is_known = self.view().get(&relay).is_some();
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Ok(());
        };
        let terminal = match core::mem::replace(&mut circuit.state, State::Answering) {
            State::Terminal(terminal) if terminal.is_fresh() => *terminal,
            other => {
                circuit.state = other;
                return Err(Violation::Unexpected);
            }
        };
        let deadline = now + self.config.network.params.dial_timeout;
        let extending = Extending {
            terminal,
            step: Step::Dialling(Box::new(extend)),
            deadline,
        };
        circuit.state = State::Extending(Box::new(extending));
        self.timers.set(deadline, Timer::Extend(key));
        if is_self {
            self.refuse_extend(key, ExtendRefusal::Refused);
        } else if let Some(link) = self.links.toward(&relay) {
            self.create_next(key, link);
        } else if is_known {
            self.await_link(relay, key);
        } else {
            self.refuse_extend(key, ExtendRefusal::UnknownRelay);
        }
        Ok(())
    }

    fn await_link(&mut self, relay: RelayId, key: CircuitKey) {
        let dialling = &self.discovery.dialling;
        if dialling.len() >= DIALS_MAX && !dialling.contains(&relay) {
            return self.refuse_extend(key, ExtendRefusal::Refused);
        }
        let waiting = self.discovery.dials.waiting.entry(relay).or_default();
        if waiting.len() >= DIAL_WAITERS_MAX {
            return self.refuse_extend(key, ExtendRefusal::Refused);
        }
        waiting.push(key);
        self.dial(relay);
    }

    /// Asks for a link to a relay, unless one is being made.
    pub(super) fn dial(&mut self, relay: RelayId) {
        let host_ports = self.host_ports(&relay);
        if host_ports.is_empty() {
            return self.on_dial_failed(relay);
        }
        if self.discovery.dialling.insert(relay) {
            self.out.links.push_back(LinkOp::Dial { relay, host_ports });
        }
    }

    fn host_ports(&self, relay: &RelayId) -> Vec<String> {
        let known = self
            .view()
            .get(relay)
            .or_else(|| self.book.last_known_of(relay));
        let known = known.into_iter().flat_map(|known| known.host_ports());
        let seeds = self
            .config
            .seeds
            .iter()
            .filter(|seed| seed.id == *relay)
            .map(|seed| seed.host_port.clone());
        known.chain(seeds).collect()
    }

    /// The circuits that waited for this link go on.
    pub(super) fn resume_extends(&mut self, relay: &RelayId, link: LinkId) {
        for key in self
            .discovery
            .dials
            .waiting
            .remove(relay)
            .unwrap_or_default()
        {
            self.create_next(key, link);
        }
    }

    /// The circuits that waited for this relay are refused.
    pub(super) fn fail_extends(&mut self, relay: &RelayId) {
        for key in self
            .discovery
            .dials
            .waiting
            .remove(relay)
            .unwrap_or_default()
        {
            self.refuse_extend(key, ExtendRefusal::Unreachable);
        }
    }

    fn create_next(&mut self, key: CircuitKey, link: LinkId) {
        let circuits = &self.circuits;
        let Some(circ) = self
            .links
            .new_circ(link, |circ| circuits.end(link, circ).is_some())
        else {
            return self.refuse_extend(key, ExtendRefusal::Unreachable);
        };
        let Some(State::Extending(extending)) =
            self.circuits.get_mut(key).map(|circuit| &mut circuit.state)
        else {
            return; // destroyed while its link was being made
        };
        let Step::Dialling(extend) = &extending.step else {
            return;
        };
        let mut create = Cell::new(Some(circ), Command::Create);
        extend.onionskin.write_create_body(create.body_mut());
        extending.step = Step::Created(link, circ);
        self.circuits.set_end(link, circ, End::Next(key));
        self.out.cells.push_back((link, create));
    }

    /// The next hop answered: from now on the circuit passes through.
    pub(super) fn on_created(&mut self, link: LinkId, circ: CircId, key: CircuitKey, cell: &Cell) {
        let Ok(reply) = Reply::from_created_body(cell.body()) else {
            return self.on_violation(link, circ, Violation::Handshake);
        };
        let Some(circuit) = self.circuits.get_mut(key) else {
            return;
        };
        let (prev_link, prev_circ) = circuit.prev;
        let mut terminal =
            match core::mem::replace(&mut circuit.state, State::Joined { next: (link, circ) }) {
                State::Extending(extending) => extending.terminal,
                other => {
                    circuit.state = other;
                    return self.on_violation(link, circ, Violation::Unexpected);
                }
            };
        terminal.send_control(&RelayMsg::Extended(Box::new(reply)));
        while let Some(mut cell) = terminal.poll_cell() {
            cell.set_circ_id(prev_circ);
            self.out.cells.push_back((prev_link, cell));
        }
        let back = Next {
            queue: prev_link,
            circ: prev_circ,
        };
        self.out.tables.push_back((
            link,
            TableUpdate::Return(circ, terminal.into_backward(), back),
        ));
        self.out.tables.push_back((
            prev_link,
            TableUpdate::Join(prev_circ, Next { queue: link, circ }),
        ));
    }

    /// The next hop destroyed the circuit before it was there, or its link broke.
    pub(super) fn on_extend_lost(&mut self, key: CircuitKey, reason: DestroyReason) {
        let is_link = reason == DestroyReason::Link;
        self.refuse_extend(
            key,
            if is_link {
                ExtendRefusal::Unreachable
            } else {
                ExtendRefusal::Refused
            },
        );
    }

    pub(super) fn on_extend_timeout(&mut self, now: Instant, key: CircuitKey) {
        let Some(State::Extending(extending)) =
            self.circuits.get_mut(key).map(|circuit| &circuit.state)
        else {
            return;
        };
        if now < extending.deadline {
            return; // an earlier extend's timer
        }
        self.discovery.dials.forget(extending, key);
        if let Some((link, circ)) = extending.next_end() {
            self.circuits.remove_end(link, circ);
            self.send_destroy(link, circ, DestroyReason::Finished);
        }
        self.refuse_extend(key, ExtendRefusal::Unreachable);
    }

    /// Each circuit that waits for a link is one that waits for that relay, and each relay waited
    /// for is being dialled.
    pub(super) fn check_extends(&self) -> Result<(), String> {
        for (relay, waiting) in &self.discovery.dials.waiting {
            for key in waiting {
                let Some(State::Extending(extending)) =
                    self.circuits.get(*key).map(|circuit| &circuit.state)
                else {
                    return Err(format!(
                        "{key:?} waits for a link and is no longer extending"
                    ));
                };
                if !matches!(&extending.step, Step::Dialling(extend) if extend.relay == *relay) {
                    return Err(format!(
                        "{key:?} waits for a link to another relay than it asked for"
                    ));
                }
            }
            if !self.discovery.dialling.contains(relay) {
                return Err(format!("{relay:?} is waited for, and not dialled"));
            }
        }
        Ok(())
    }

    /// There will be no new hop: the origin is told, and the circuit ends here as before.
    fn refuse_extend(&mut self, key: CircuitKey, refusal: ExtendRefusal) {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return;
        };
        match core::mem::replace(&mut circuit.state, State::Answering) {
            State::Extending(mut extending) => {
                extending
                    .terminal
                    .send_control(&RelayMsg::ExtendRefused(refusal));
                circuit.state = State::Terminal(Box::new(extending.terminal));
                self.flush_circuit(key);
            }
            other => circuit.state = other,
        }
    }
}
