//! The circuits that pass or end at a relay: made, extended, joined, destroyed.
//!
//! Owns which end of which link belongs to which circuit. Each end has an entry in its link's
//! table from the moment its cells may come until it is destroyed. Never touches a forwarded cell.
//! Rules: docs/protocol.md §4 (cells of a link), §6 (extending, in `extend`).

mod extend;

use std::collections::BTreeMap;

use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::{Full, TerminalCircuit, TerminalEvent};
use umbel_proto::handshake::{Binding, Onionskin};
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::link::LinkId;
use umbel_proto::message::{RelayMsg, StreamId};
use umbel_proto::onion::transit::{self, AddLayer, PeelLayer};
use umbel_proto::time::Instant;

use super::context::{Context, Signal};
use super::io::{Work, WorkDone, WorkId};
use super::one_hop::Errand;
use crate::forward::{Delivered, TableUpdate};
use extend::Extending;

/// Names a circuit in this relay; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CircuitKey(pub(super) u64);

/// One circuit of somebody else's.
struct Circuit {
    /// Toward the origin.
    prev: (LinkId, CircId),
    state: State,
    idle_since: Instant,
    /// Bytes that its frames took when last counted.
    held_bytes: usize,
}

/// How far a circuit is.
enum State {
    /// Its onionskin is being answered.
    Answering,
    /// It ends here.
    Terminal {
        terminal: Box<TerminalCircuit>,
        /// The next hop, while that is being made.
        extending: Option<Extending>,
    },
    /// It continues at the next relay.
    Joined { next: (LinkId, CircId) },
}

/// The meaning of one circuit id on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A circuit's end toward its origin.
    Prev(CircuitKey),
    /// A circuit's end away from its origin.
    Next(CircuitKey),
    /// A circuit of our own, which begins here.
    Own(Errand),
}

/// All circuits of a relay.
#[derive(Default)]
pub(super) struct Circuits {
    circuits: BTreeMap<CircuitKey, Circuit>,
    ends: BTreeMap<(LinkId, CircId), End>,
    next_key: u64,
    /// Handshakes being answered; also of circuits that are gone since.
    answering: usize,
    /// Bytes that the frames of all circuits take.
    held_bytes: usize,
}

impl Circuits {
    /// Takes a cell that makes or ends a circuit, or belongs to a circuit of our own.
    pub(super) fn handle_cell(&mut self, cx: &mut Context<'_>, link: LinkId, cell: Cell) {
        let Ok((Some(circ), command)) = cell.header() else {
            return cx.break_link(link);
        };
        match (command, self.end(link, circ)) {
            (Command::Create, None) => self.on_create(cx, link, circ, &cell),
            (Command::Create, Some(_)) => cx.break_link(link),
            // §4.2(1). The peer's reason does not travel: §4.2(2).
            (Command::Destroy, Some(end)) => {
                self.ends.remove(&(link, circ));
                cx.out.tables.push_back((link, TableUpdate::Remove(circ)));
                self.on_end_gone(cx, (link, circ), end, DestroyReason::Finished);
            }
            (Command::Created | Command::Relay, Some(End::Own(errand))) => {
                cx.signal(Signal::OwnCell {
                    errand,
                    command,
                    cell,
                });
            }
            (Command::Created, Some(End::Next(key))) => {
                self.on_created(cx, (link, circ), key, &cell);
            }
            (Command::Created | Command::Relay, Some(End::Prev(_) | End::Next(_))) => {
                self.handle_violation(cx, link, circ, Violation::Unexpected);
            }
            // A circuit that we have just destroyed: the peer does not know yet (§4.4(3)).
            (Command::Created | Command::Relay | Command::Destroy, None) => {
                cx.stats.stale_cells += 1;
            }
            (Command::Padding | Command::Hello, _) => cx.break_link(link),
        }
    }

    /// Takes a relay message that was addressed to us.
    pub(super) fn handle_delivered(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        delivered: Delivered,
        cell: &Cell,
    ) {
        let Some(End::Prev(key)) = self.end(link, delivered.circ) else {
            cx.stats.stale_cells += 1;
            return;
        };
        match self.deliver(cx, key, delivered, cell) {
            Ok(()) => cx.signal(Signal::Said(key)),
            Err(violation) => self.handle_violation(cx, link, delivered.circ, violation),
        }
    }

    /// A handshake was answered. If it succeeded, this relay is the circuit's terminal from now on
    /// (§4.1(2)).
    pub(super) fn handle_work_done(&mut self, cx: &mut Context<'_>, done: WorkDone) {
        let key = CircuitKey(done.id.0);
        self.answering = self.answering.saturating_sub(1);
        let Some(circuit) = self.circuits.get_mut(&key) else {
            return; // destroyed while the handshake was being answered
        };
        let (link, circ) = circuit.prev;
        let Ok((keys, reply)) = done.result else {
            return self.handle_violation(cx, link, circ, Violation::Handshake);
        };
        let terminal = TerminalCircuit::new(AddLayer::new(keys.backward), keys.binding);
        circuit.state = State::Terminal {
            terminal: Box::new(terminal),
            extending: None,
        };
        circuit.idle_since = cx.now;
        let mut created = Cell::new(Some(circ), Command::Created);
        reply.write_created_body(created.body_mut());
        cx.stats.created += 1;
        let layer = PeelLayer::new(keys.forward);
        let update = TableUpdate::Terminate(circ, layer);
        cx.out.tables.push_back((link, update));
        cx.out.cells.push_back((link, created));
    }

    /// A circuit broke a rule: it is over, toward both ends.
    pub(super) fn handle_violation(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        circ: CircId,
        violation: Violation,
    ) {
        if self.end(link, circ).is_some() {
            cx.stats.violations += 1;
            tracing::debug!(?violation, "a circuit broke a rule");
            self.destroy(cx, link, circ, violation.reason());
        }
    }

    /// A service found that a rule was broken on a circuit that ends here.
    pub(super) fn break_circuit(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        violation: Violation,
    ) {
        if let Some((link, circ)) = self.circuits.get(&key).map(|circuit| circuit.prev) {
            self.handle_violation(cx, link, circ, violation);
        }
    }

    /// A link is gone, and its table with it.
    pub(super) fn handle_link_down(&mut self, cx: &mut Context<'_>, link: LinkId) {
        let ends: Vec<_> = self.ends_of(link).collect();
        for (circ, _) in &ends {
            self.ends.remove(&(link, *circ));
        }
        for (circ, end) in ends {
            self.on_end_gone(cx, (link, circ), end, DestroyReason::Link);
        }
    }

    /// Ends the circuit that has this end, with a `Destroy` to both its ends.
    pub(super) fn destroy(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        circ: CircId,
        reason: DestroyReason,
    ) {
        if let Some(end) = self.ends.remove(&(link, circ)) {
            cx.send_destroy(link, circ, reason);
            self.on_end_gone(cx, (link, circ), end, reason);
        }
    }

    /// Ends every circuit, so that their origins know at once.
    pub(super) fn destroy_all(&mut self, cx: &mut Context<'_>) {
        for (link, circ) in core::mem::take(&mut self.ends).into_keys() {
            cx.send_destroy(link, circ, DestroyReason::Finished);
        }
        for key in core::mem::take(&mut self.circuits).into_keys() {
            cx.signal(Signal::Gone(key));
        }
        self.held_bytes = 0;
    }

    /// Destroys circuits that have ended here unused for long.
    pub(super) fn close_idle(&mut self, cx: &mut Context<'_>) {
        let idle = cx.params().circuit_idle;
        let is_idle = |circuit: &&Circuit| match &circuit.state {
            State::Terminal {
                terminal,
                extending: None,
            } => cx.now.since(circuit.idle_since) >= idle && terminal.is_idle(),
            State::Answering | State::Terminal { .. } | State::Joined { .. } => false,
        };
        let idle = self.circuits.values().filter(is_idle);
        let idle: Vec<_> = idle.map(|circuit| circuit.prev).collect();
        for (link, circ) in idle {
            self.destroy(cx, link, circ, DestroyReason::Finished);
        }
    }

    /// Gives a circuit of our own its end on a link; `None` when the link is gone.
    pub(super) fn begin_errand(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        errand: Errand,
    ) -> Option<CircId> {
        let circ = self.new_circ(cx, link)?;
        self.ends.insert((link, circ), End::Own(errand));
        cx.out.tables.push_back((link, TableUpdate::Own(circ)));
        Some(circ)
    }

    /// The next thing that was said on a circuit that ends here.
    pub(super) fn poll_said(&mut self, key: CircuitKey) -> Option<TerminalEvent> {
        self.terminal(key)?.poll_event()
    }

    /// Of a circuit that ends here: the link over which it comes, and the secret that it shares with
    /// its origin.
    pub(super) fn terminal_of(&mut self, key: CircuitKey) -> Option<(LinkId, Binding)> {
        let (link, _) = self.circuits.get(&key)?.prev;
        Some((link, self.terminal(key)?.binding().clone()))
    }

    /// Answers on a stream. A stream whose reader leaves too much unread is reset (§7.2(8)).
    ///
    /// # Errors
    /// The stream was reset: nobody waits for more.
    pub(super) fn reply(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        stream: StreamId,
        frame: &[u8],
        fin: bool,
    ) -> Result<(), Full> {
        let Some(terminal) = self.terminal(key) else {
            return Ok(());
        };
        let replied = terminal.reply(stream, frame, fin);
        if replied.is_err() {
            terminal.reset(stream);
        }
        self.flush(cx, key);
        replied
    }

    /// Says that nothing follows on a stream.
    pub(super) fn finish(&mut self, key: CircuitKey, stream: StreamId) {
        if let Some(terminal) = self.terminal(key) {
            terminal.finish(stream);
        }
    }

    /// Sends what a circuit that ends here has to say.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, key: CircuitKey) {
        let Some(circuit) = self.circuits.get_mut(&key) else {
            return;
        };
        let State::Terminal { terminal, .. } = &mut circuit.state else {
            return;
        };
        let (link, circ) = circuit.prev;
        while let Some(mut cell) = terminal.poll_cell() {
            cell.set_circ_id(circ);
            cx.out.cells.push_back((link, cell));
        }
        let held_bytes = terminal.held_bytes();
        self.held_bytes = self.held_bytes - circuit.held_bytes + held_bytes;
        circuit.held_bytes = held_bytes;
        self.reclaim(cx);
    }

    /// How many circuits pass or end here.
    pub(super) fn len(&self) -> usize {
        self.circuits.len()
    }

    /// Bytes of frames that are not yet sent, or not yet whole.
    pub(super) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn end_count(&self) -> usize {
        self.ends.len()
    }

    /// Whether no circuit uses this link.
    pub(super) fn is_unused(&self, link: LinkId) -> bool {
        self.ends_of(link).next().is_none()
    }

    /// Whether this circuit is here.
    pub(super) fn contains(&self, key: CircuitKey) -> bool {
        self.circuits.contains_key(&key)
    }

    /// Whether this circuit waits for a link to this relay.
    pub(super) fn is_awaiting(&self, key: CircuitKey, relay: &RelayId) -> bool {
        self.extending(key)
            .is_some_and(|extending| extending.awaited() == Some(*relay))
    }

    /// Each circuit's ends are in the table of ends, and each end belongs to a circuit; frames are
    /// counted right.
    pub(super) fn check(&self) -> Result<(), String> {
        let held = self.circuits.values().map(|circuit| circuit.held_bytes);
        let (held, counted) = (held.sum::<usize>(), self.held_bytes);
        if held != counted {
            return Err(format!("frames take {held} bytes, not {counted}"));
        }
        for (key, circuit) in &self.circuits {
            let (link, circ) = circuit.prev;
            if self.end(link, circ) != Some(End::Prev(*key)) {
                return Err(format!("{key:?} has lost its end toward the origin"));
            }
            if let Some((link, circ)) = circuit.next()
                && self.end(link, circ) != Some(End::Next(*key))
            {
                return Err(format!("{key:?} has lost its end away from the origin"));
            }
        }
        for ((link, circ), end) in &self.ends {
            if let End::Prev(key) | End::Next(key) = end
                && !self.contains(*key)
            {
                return Err(format!(
                    "{circ:?} on {link:?} belongs to a circuit that is gone"
                ));
            }
        }
        Ok(())
    }

    /// Checks in the order of §4.1(1).
    fn on_create(&mut self, cx: &mut Context<'_>, link: LinkId, circ: CircId, cell: &Cell) {
        if !cx.links.is_peers_circ(link, circ) {
            return cx.break_link(link);
        }
        let Ok(onionskin) = Onionskin::from_create_body(cell.body()) else {
            return cx.break_link(link);
        };
        // A peer that destroys what it has just created leaves a handshake to be answered for
        // nobody.
        let is_full = self.len().max(self.answering) >= cx.config.circuits_max;
        if is_full || !cx.links.admit_create(link, cx.now) {
            cx.stats.refused += 1;
            let refusal = Cell::destroy(circ, DestroyReason::Busy);
            cx.out.cells.push_back((link, refusal));
            return;
        }
        let key = self.add(cx.now, link, circ);
        self.answering += 1;
        cx.out.work.push_back(Work {
            id: WorkId(key.0),
            onionskin: Box::new(onionskin),
        });
    }

    fn add(&mut self, now: Instant, link: LinkId, circ: CircId) -> CircuitKey {
        let key = CircuitKey(self.next_key);
        self.next_key += 1;
        let circuit = Circuit {
            prev: (link, circ),
            state: State::Answering,
            idle_since: now,
            held_bytes: 0,
        };
        self.circuits.insert(key, circuit);
        self.ends.insert((link, circ), End::Prev(key));
        key
    }

    fn remove(&mut self, key: CircuitKey) -> Option<Circuit> {
        let circuit = self.circuits.remove(&key)?;
        self.held_bytes -= circuit.held_bytes;
        Some(circuit)
    }

    fn deliver(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        delivered: Delivered,
        cell: &Cell,
    ) -> Result<(), Violation> {
        let message = RelayMsg::decode(transit::delivered_message(cell)?)?;
        let Some(circuit) = self.circuits.get_mut(&key) else {
            return Err(Violation::Unexpected);
        };
        circuit.idle_since = cx.now;
        let State::Terminal {
            terminal,
            extending,
        } = &mut circuit.state
        else {
            return Err(Violation::Unexpected);
        };
        match (message, extending) {
            (RelayMsg::Extend(extend), None) if delivered.is_early => {
                self.begin_extend(cx, key, *extend)
            }
            (RelayMsg::Extend(_), None) => Err(Violation::Early),
            (message, None) => terminal.handle_message(delivered.tag, &message),
            (RelayMsg::Padding, Some(_)) => Ok(()),
            (_, Some(_)) => Err(Violation::Unexpected),
        }
    }

    /// While frames exceed their budget, destroys the circuit that holds the most (§4.4(5)). It
    /// rarely belongs to someone who reads what they asked for.
    fn reclaim(&mut self, cx: &mut Context<'_>) {
        while self.held_bytes > cx.config.frames_bytes_max
            && let Some((link, circ)) = self.heaviest()
            && self.ends.contains_key(&(link, circ))
        {
            cx.stats.refused += 1;
            self.destroy(cx, link, circ, DestroyReason::Busy);
        }
    }

    /// Where the circuit comes from whose frames take most.
    fn heaviest(&self) -> Option<(LinkId, CircId)> {
        self.circuits
            .values()
            .max_by_key(|circuit| circuit.held_bytes)
            .map(|circuit| circuit.prev)
    }

    /// One end of a circuit is gone: destroys the other with the reason of §4.2(2), or keeps the
    /// circuit if the next hop was only being added (§4.2(3)).
    fn on_end_gone(
        &mut self,
        cx: &mut Context<'_>,
        gone: (LinkId, CircId),
        end: End,
        reason: DestroyReason,
    ) {
        match end {
            End::Own(errand) => cx.signal(Signal::OwnGone(errand)),
            End::Prev(key) => self.on_prev_gone(cx, key, reason),
            End::Next(key) => self.on_next_gone(cx, key, gone, reason),
        }
    }

    fn on_prev_gone(&mut self, cx: &mut Context<'_>, key: CircuitKey, reason: DestroyReason) {
        let Some(circuit) = self.remove(key) else {
            return;
        };
        if let Some((link, circ)) = circuit.next()
            && self.ends.remove(&(link, circ)).is_some()
        {
            cx.send_destroy(link, circ, reason);
        }
        if let State::Terminal { extending, .. } = circuit.state {
            if let Some(relay) = extending.and_then(|extending| extending.awaited()) {
                cx.signal(Signal::GaveUp {
                    circuit: key,
                    relay,
                });
            }
            cx.signal(Signal::Gone(key));
        }
    }

    fn on_next_gone(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        gone: (LinkId, CircId),
        reason: DestroyReason,
    ) {
        let Some(circuit) = self.circuits.get(&key) else {
            return;
        };
        if circuit.next() != Some(gone) {
            return; // it has given that end up already
        }
        if let State::Joined { .. } = circuit.state {
            let (link, circ) = circuit.prev;
            self.remove(key);
            self.ends.remove(&(link, circ));
            cx.send_destroy(link, circ, reason);
        } else {
            self.on_extend_lost(cx, key, reason);
        }
    }

    fn end(&self, link: LinkId, circ: CircId) -> Option<End> {
        self.ends.get(&(link, circ)).copied()
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

    fn new_circ(&self, cx: &mut Context<'_>, link: LinkId) -> Option<CircId> {
        cx.links
            .new_circ(link, |circ| self.ends.contains_key(&(link, circ)))
    }

    fn terminal(&mut self, key: CircuitKey) -> Option<&mut TerminalCircuit> {
        match &mut self.circuits.get_mut(&key)?.state {
            State::Terminal { terminal, .. } => Some(terminal),
            State::Answering | State::Joined { .. } => None,
        }
    }

    fn extending(&self, key: CircuitKey) -> Option<&Extending> {
        match &self.circuits.get(&key)?.state {
            State::Terminal { extending, .. } => extending.as_ref(),
            State::Answering | State::Joined { .. } => None,
        }
    }
}

impl Circuit {
    /// Its end away from its origin, once it has one.
    fn next(&self) -> Option<(LinkId, CircId)> {
        match &self.state {
            State::Joined { next } => Some(*next),
            State::Terminal {
                extending: Some(extending),
                ..
            } => extending.next_end(),
            State::Answering | State::Terminal { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
