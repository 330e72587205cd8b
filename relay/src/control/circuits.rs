//! The circuits that pass or end at a relay: made, joined, destroyed.
//!
//! Owns which end of which link belongs to which circuit. Never touches a forwarded cell.
//! Rules: docs/protocol.md §4.

use std::collections::BTreeMap;

use rand::CryptoRng;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::terminal::TerminalCircuit;
use umbel_proto::handshake::Onionskin;
use umbel_proto::ids::CircId;
use umbel_proto::link::LinkId;
use umbel_proto::message::RelayMsg;
use umbel_proto::onion::transit::{self, AddLayer, PeelLayer};
use umbel_proto::time::{Duration, Instant, WallTime};

use super::Control;
use super::discover::SessionId;
use super::extend::Extending;
use super::io::{Work, WorkDone, WorkId};
use crate::forward::{Delivered, TableUpdate};

/// Names a circuit in this relay; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CircuitKey(pub(super) u64);

/// One circuit of somebody else's.
pub(super) struct Circuit {
    /// Toward the origin.
    pub(super) prev: (LinkId, CircId),
    pub(super) state: State,
    pub(super) idle_since: Instant,
    /// What its frames took when it was last looked at, bytes.
    held_bytes: usize,
}

/// How far a circuit is.
pub(super) enum State {
    /// Its onionskin is being answered.
    Answering,
    /// It ends here.
    Terminal(Box<TerminalCircuit>),
    /// It ends here, and waits for its next hop.
    Extending(Box<Extending>),
    /// It goes on.
    Joined { next: (LinkId, CircId) },
}

/// What one circuit id on one link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A circuit's end toward its origin.
    Prev(CircuitKey),
    /// A circuit's end away from its origin.
    Next(CircuitKey),
    /// A circuit of our own.
    Own(SessionId),
}

/// All circuits of a relay.
#[derive(Default)]
pub(super) struct Circuits {
    circuits: BTreeMap<CircuitKey, Circuit>,
    ends: BTreeMap<(LinkId, CircId), End>,
    next_key: u64,
    /// Handshakes being answered; also of circuits that are gone since.
    answering: usize,
    /// What the frames of all circuits take, bytes.
    held_bytes: usize,
}

impl Circuits {
    pub(super) fn len(&self) -> usize {
        self.circuits.len()
    }

    pub(super) fn get(&self, key: CircuitKey) -> Option<&Circuit> {
        self.circuits.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: CircuitKey) -> Option<&mut Circuit> {
        self.circuits.get_mut(&key)
    }

    pub(super) fn end(&self, link: LinkId, circ: CircId) -> Option<End> {
        self.ends.get(&(link, circ)).copied()
    }

    pub(super) fn set_end(&mut self, link: LinkId, circ: CircId, end: End) {
        self.ends.insert((link, circ), end);
    }

    pub(super) fn remove_end(&mut self, link: LinkId, circ: CircId) {
        self.ends.remove(&(link, circ));
    }

    /// Whether no circuit uses this link.
    pub(super) fn is_unused(&self, link: LinkId) -> bool {
        self.ends_of(link).next().is_none()
    }

    /// Circuits that end here and were not used for this long.
    pub(super) fn idle_for(&self, now: Instant, idle: Duration) -> Vec<(LinkId, CircId)> {
        let is_idle = |circuit: &&Circuit| match &circuit.state {
            State::Terminal(terminal) => {
                now.since(circuit.idle_since) >= idle && terminal.is_idle()
            }
            _ => false,
        };
        self.circuits
            .values()
            .filter(is_idle)
            .map(|circuit| circuit.prev)
            .collect()
    }

    /// Forgets a link: what its circuit ids were.
    pub(super) fn take_link(&mut self, link: LinkId) -> Vec<(CircId, End)> {
        let ends: Vec<_> = self.ends_of(link).collect();
        for (circ, _) in &ends {
            self.ends.remove(&(link, *circ));
        }
        ends
    }

    /// Forgets everything: which ends there were, and which circuits.
    pub(super) fn take_all(&mut self) -> (Vec<(LinkId, CircId)>, Vec<CircuitKey>) {
        let ends = core::mem::take(&mut self.ends).into_keys().collect();
        self.held_bytes = 0;
        (
            ends,
            core::mem::take(&mut self.circuits).into_keys().collect(),
        )
    }

    pub(super) fn end_count(&self) -> usize {
        self.ends.len()
    }

    /// Each circuit's ends are in the table of ends, and each end belongs to a circuit; frames are
    /// counted right.
    pub(super) fn check(&self) -> Result<(), String> {
        let held_bytes = self
            .circuits
            .values()
            .map(|circuit| circuit.held_bytes)
            .sum::<usize>();
        if held_bytes != self.held_bytes {
            return Err(format!(
                "frames take {held_bytes} bytes, not {}",
                self.held_bytes
            ));
        }
        for (key, circuit) in &self.circuits {
            let (link, circ) = circuit.prev;
            if self.end(link, circ) != Some(End::Prev(*key)) {
                return Err(format!("{key:?} has lost its end toward the origin"));
            }
            let next = match &circuit.state {
                State::Joined { next } => Some(*next),
                State::Extending(extending) => extending.next_end(),
                State::Answering | State::Terminal(_) => None,
            };
            if let Some((link, circ)) = next
                && self.end(link, circ) != Some(End::Next(*key))
            {
                return Err(format!("{key:?} has lost its end away from the origin"));
            }
        }
        for ((link, circ), end) in &self.ends {
            if let End::Prev(key) | End::Next(key) = end
                && !self.circuits.contains_key(key)
            {
                return Err(format!(
                    "{circ:?} on {link:?} belongs to a circuit that is gone"
                ));
            }
        }
        Ok(())
    }

    fn ends_of(&self, link: LinkId) -> impl Iterator<Item = (CircId, End)> {
        let first = CircId::new(1).map(|circ| (link, circ));
        first.into_iter().flat_map(move |first| {
            self.ends
                .range(first..)
                .take_while(move |((id, _), _)| *id == link)
                .map(|((_, circ), end)| (*circ, *end))
        })
    }

    fn add(&mut self, now: Instant, link: LinkId, circ: CircId) -> CircuitKey {
        let key = CircuitKey(self.next_key);
        self.next_key += 1;
        let prev = (link, circ);
        self.circuits.insert(
            key,
            Circuit {
                prev,
                state: State::Answering,
                idle_since: now,
                held_bytes: 0,
            },
        );
        self.ends.insert(prev, End::Prev(key));
        key
    }

    fn remove(&mut self, key: CircuitKey) -> Option<Circuit> {
        let circuit = self.circuits.remove(&key)?;
        self.held_bytes -= circuit.held_bytes;
        Some(circuit)
    }

    /// Takes note of what the frames of a circuit take now.
    fn weigh(&mut self, key: CircuitKey) {
        let Some(circuit) = self.circuits.get_mut(&key) else {
            return;
        };
        let held_bytes = match &circuit.state {
            State::Terminal(terminal) => terminal.held_bytes(),
            State::Answering | State::Extending(_) | State::Joined { .. } => 0,
        };
        self.held_bytes = self.held_bytes - circuit.held_bytes + held_bytes;
        circuit.held_bytes = held_bytes;
    }

    /// Where the circuit comes from whose frames take most.
    fn heaviest(&self) -> Option<(LinkId, CircId)> {
        self.circuits
            .values()
            .max_by_key(|circuit| circuit.held_bytes)
            .map(|circuit| circuit.prev)
    }
}

impl Control {
    pub(super) fn on_cell(
        &mut self,
        now: Instant,
        wall: WallTime,
        link: LinkId,
        cell: Cell,
        rng: &mut dyn CryptoRng,
    ) {
        let Ok((Some(circ), command)) = cell.header() else {
            return self.close_link(link);
        };
        match (command, self.circuits.end(link, circ)) {
            (Command::Create, None) => self.on_create(now, link, circ, &cell),
            (Command::Create, Some(_)) => self.close_link(link),
            (Command::Destroy, Some(end)) => {
                self.circuits.remove_end(link, circ);
                self.out.tables.push_back((link, TableUpdate::Remove(circ)));
                self.on_end_lost(link, circ, end, DestroyReason::Finished);
            }
            (Command::Created | Command::Relay, Some(End::Own(session))) => {
                self.on_own_cell((now, wall), session, command, cell, rng);
            }
            (Command::Created, Some(End::Next(key))) => self.on_created(link, circ, key, &cell),
            (Command::Created | Command::Relay, Some(End::Prev(_) | End::Next(_))) => {
                self.on_violation(link, circ, Violation::Unexpected);
            }
            // A circuit that we have just destroyed: the peer does not know yet (§4.4).
            (Command::Created | Command::Relay | Command::Destroy, None) => {
                self.stats.stale_cells += 1;
            }
            (Command::Padding | Command::Hello, _) => self.close_link(link),
        }
    }

    fn on_create(&mut self, now: Instant, link: LinkId, circ: CircId, cell: &Cell) {
        if !self.links.is_peers_circ(link, circ) {
            return self.close_link(link);
        }
        let Ok(onionskin) = Onionskin::from_create_body(cell.body()) else {
            return self.close_link(link);
        };
        // A peer that destroys what it has just created leaves a handshake to be answered for
        // nobody.
        let is_full = self.circuits.len().max(self.circuits.answering) >= self.config.circuits_max;
        if is_full || !self.links.admit_create(link, now) {
            self.stats.refused += 1;
            self.out
                .cells
                .push_back((link, Cell::destroy(circ, DestroyReason::Busy)));
            return;
        }
        let key = self.circuits.add(now, link, circ);
        self.circuits.answering += 1;
        self.out.work.push_back(Work {
            id: WorkId(key.0),
            onionskin: Box::new(onionskin),
        });
    }

    pub(super) fn on_work_done(&mut self, now: Instant, done: WorkDone) {
        let key = CircuitKey(done.id.0);
        self.circuits.answering = self.circuits.answering.saturating_sub(1);
        let Some(circuit) = self.circuits.get_mut(key) else {
            return; // destroyed while the handshake was being answered
        };
        let (link, circ) = circuit.prev;
        let Ok((keys, reply)) = done.result else {
            return self.on_violation(link, circ, Violation::Handshake);
        };
        let terminal = TerminalCircuit::new(AddLayer::new(keys.backward), keys.binding);
        circuit.state = State::Terminal(Box::new(terminal));
        circuit.idle_since = now;
        let mut created = Cell::new(Some(circ), Command::Created);
        reply.write_created_body(created.body_mut());
        self.stats.created += 1;
        self.out.tables.push_back((
            link,
            TableUpdate::Terminate(circ, PeelLayer::new(keys.forward)),
        ));
        self.out.cells.push_back((link, created));
    }

    pub(super) fn on_delivered(
        &mut self,
        now: Instant,
        wall: WallTime,
        link: LinkId,
        delivered: Delivered,
        cell: &Cell,
    ) {
        let Some(End::Prev(key)) = self.circuits.end(link, delivered.circ) else {
            self.stats.stale_cells += 1;
            return;
        };
        match self.deliver(now, key, delivered, cell) {
            Ok(()) => self.serve_circuit(now, wall, key),
            Err(violation) => self.on_violation(link, delivered.circ, violation),
        }
    }

    fn deliver(
        &mut self,
        now: Instant,
        key: CircuitKey,
        delivered: Delivered,
        cell: &Cell,
    ) -> Result<(), Violation> {
        let message = RelayMsg::decode(transit::delivered_message(cell)?)?;
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Err(Violation::Unexpected);
        };
        circuit.idle_since = now;
        match (message, &mut circuit.state) {
            (RelayMsg::Extend(extend), State::Terminal(_)) if delivered.is_early => {
                self.begin_extend(now, key, *extend)
            }
            (RelayMsg::Extend(_), State::Terminal(_)) => Err(Violation::Early),
            (message, State::Terminal(terminal)) => {
                terminal.handle_message(delivered.tag, &message)
            }
            (RelayMsg::Padding, State::Extending(_)) => Ok(()),
            (_, State::Answering | State::Extending(_) | State::Joined { .. }) => {
                Err(Violation::Unexpected)
            }
        }
    }

    /// Sends what a circuit that ends here has to say.
    pub(super) fn flush_circuit(&mut self, key: CircuitKey) {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return;
        };
        let terminal = match &mut circuit.state {
            State::Terminal(terminal) => terminal,
            State::Extending(extending) => &mut extending.terminal,
            State::Answering | State::Joined { .. } => return,
        };
        let (link, circ) = circuit.prev;
        while let Some(mut cell) = terminal.poll_cell() {
            cell.set_circ_id(circ);
            self.out.cells.push_back((link, cell));
        }
        self.circuits.weigh(key);
        self.reclaim();
    }

    /// While frames take more than they may, the circuit with most of them goes: it may be
    /// anybody's but it is seldom that of someone who reads what he asked for.
    fn reclaim(&mut self) {
        while self.circuits.held_bytes > self.config.frames_bytes_max
            && let Some((link, circ)) = self.circuits.heaviest()
            && let Some(end) = self.circuits.end(link, circ)
        {
            self.stats.refused += 1;
            self.circuits.remove_end(link, circ);
            self.send_destroy(link, circ, DestroyReason::Busy);
            self.on_end_lost(link, circ, end, DestroyReason::Busy);
        }
    }

    /// A circuit broke a rule: it is over, toward both ends.
    pub(super) fn on_violation(&mut self, link: LinkId, circ: CircId, violation: Violation) {
        let Some(end) = self.circuits.end(link, circ) else {
            return;
        };
        self.stats.violations += 1;
        tracing::debug!(?violation, "a circuit broke a rule");
        self.circuits.remove_end(link, circ);
        self.send_destroy(link, circ, violation.reason());
        self.on_end_lost(link, circ, end, violation.reason());
    }

    /// One end of a circuit is gone already: takes care of the other.
    pub(super) fn on_end_lost(
        &mut self,
        link: LinkId,
        circ: CircId,
        end: End,
        reason: DestroyReason,
    ) {
        match end {
            End::Own(session) => self.on_session_lost(session),
            End::Prev(key) => self.on_prev_lost(key, reason),
            End::Next(key) => self.on_next_lost(key, (link, circ), reason),
        }
    }

    fn on_prev_lost(&mut self, key: CircuitKey, reason: DestroyReason) {
        let Some(circuit) = self.circuits.remove(key) else {
            return;
        };
        let next = match circuit.state {
            State::Joined { next } => Some(next),
            State::Extending(extending) => {
                self.discovery.dials.forget(&extending, key);
                extending.next_end()
            }
            State::Terminal(_) => {
                self.services.forget_circuit(key);
                None
            }
            State::Answering => None,
        };
        if let Some((link, circ)) = next
            && self.circuits.end(link, circ).is_some()
        {
            self.circuits.remove_end(link, circ);
            self.send_destroy(link, circ, reason);
        }
    }

    fn on_next_lost(&mut self, key: CircuitKey, lost: (LinkId, CircId), reason: DestroyReason) {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return;
        };
        match &circuit.state {
            State::Extending(extending) if extending.next_end() == Some(lost) => {
                self.on_extend_lost(key, reason);
            }
            State::Joined { next } if *next == lost => {
                let (link, circ) = circuit.prev;
                self.circuits.remove(key);
                self.circuits.remove_end(link, circ);
                self.send_destroy(link, circ, reason);
            }
            // The circuit has given that end up already.
            State::Answering | State::Terminal(_) | State::Extending(_) | State::Joined { .. } => {}
        }
    }
}
