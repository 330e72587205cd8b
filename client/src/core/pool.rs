//! All circuits: clean stubs kept ready, stubs bound to one purpose and extended to its terminal,
//! circuits of one hop for reconciling views (docs/protocol.md §4, §6).
//!
//! Owns links and paths, since they are chosen, used and blamed together. Never knows what is said
//! on a stream. A circuit that fails is destroyed at once; `blame` decides which relay that makes
//! suspect, `guard` which guard is used.

mod blame;
mod guard;
mod primaries;
mod second_word;
mod stubs;
mod table;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::chance::Backoff;
use umbel_proto::circuit::{Answer, Request, RequestEvent};
use umbel_proto::handshake::{Binding, HopTarget};
use umbel_proto::ids::RelayId;
use umbel_proto::link::LinkId;
use umbel_proto::network::Params;
use umbel_proto::path::Paths;
use umbel_proto::time::{Duration, Instant, Moment};

use super::breakers::Breakers;
use super::circuit::{Circuit, CircuitKey, Isolation};
use super::context::Context;
use super::io::{Notice, StoreOp};
use super::links::Links;
use super::requests::AskId;
use super::suspects::Suspects;
use blame::Witness;
use primaries::Primaries;
use table::Table;

/// Hops of a stub: guard, L2, middle.
const STUB_HOPS: usize = 3;
/// How much of the tallies of guards and pinned relays a client that is killed forgets.
const TALLIES_EVERY: Duration = Duration::from_secs(3600);

/// An event from the pool to the requests.
pub(super) enum PoolEvent {
    /// A frame came.
    Frame {
        circuit: CircuitKey,
        ask: AskId,
        frame: Vec<u8>,
    },
    /// Nothing more comes for this one.
    Ended { ask: AskId },
    /// A circuit is gone.
    Lost { circuit: CircuitKey, loss: Loss },
}

/// How a circuit came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// A hop that this client chose can't be made.
    Building,
    /// The hop that somebody else chose can't be made.
    Terminal,
    /// It was destroyed, or fell silent, once it was built.
    Broken,
    /// Its link is gone.
    Link,
    /// The guard had no room for one more just then.
    Busy,
    /// It is no longer needed here.
    Closed,
}

/// The result of asking for a circuit.
pub(super) enum Acquired {
    /// This one; it may still be being built.
    Circuit(CircuitKey),
    /// None now: there is no guard, or no path.
    Wait,
    /// None before others have had theirs.
    Busy,
    /// None for a while: circuits break as soon as they are used.
    Braked,
}

/// All circuits, links and paths of this client.
pub(super) struct Pool {
    pub(super) links: Links,
    pub(super) paths: Paths,
    circuits: Table,
    /// Circuits that were looked at, and may have late answers.
    looked_at: BTreeSet<CircuitKey>,
    events: VecDeque<PoolEvent>,
    last_key: u64,
    stub_backoff: Backoff,
    guard_silences: BTreeMap<LinkId, u32>,
    /// Circuits in a row that a guard had no room for.
    refusals: BTreeMap<LinkId, u32>,
    suspects: Suspects,
    breakers: Breakers,
    /// The guards that may be used now, best first.
    order: Vec<RelayId>,
    /// Guards of `order` that are suspected now.
    suspected: BTreeSet<RelayId>,
    primaries: Primaries,
    /// While circuits break as soon as they are used.
    brake: Backoff,
    /// Guards whose dials failed since another relay answered.
    missed: BTreeSet<RelayId>,
    /// Guards that let no circuit be built since one was.
    unbuildable: BTreeSet<RelayId>,
    /// When a second guard may be asked for an L2 again.
    second_word: Backoff,
    /// Until when the notice that no circuit can be built is not repeated.
    walled_told_until: Instant,
    /// Since when no guard can be reached.
    lacking_since: Option<Instant>,
    /// When the link that a request waits for takes one more circuit.
    paced_until: Option<Instant>,
    violations: u64,
    /// When the tallies of guards and pinned relays are stored although nothing else has changed.
    tallies_at: Instant,
    /// Peers that broke a rule on a circuit of one hop, not yet reported.
    rule_breakers: Vec<RelayId>,
    stale_cells: u64,
}

impl Pool {
    /// No circuits yet. Guards that rest continue to rest: for no longer than they would begin to
    /// now, whatever the clock did.
    pub(super) fn new(paths: Paths, params: &Params, moment: Moment) -> Self {
        let mut links = Links::default();
        for (relay, failures, rest) in paths.guards.resting(moment.wall) {
            links.resume_rest(relay, failures, moment.now + rest.min(params.retry_max));
        }
        Self {
            links,
            paths,
            circuits: Table::default(),
            looked_at: BTreeSet::new(),
            events: VecDeque::new(),
            last_key: 0,
            stub_backoff: Backoff::default(),
            guard_silences: BTreeMap::new(),
            refusals: BTreeMap::new(),
            suspects: Suspects::default(),
            breakers: Breakers::default(),
            order: Vec::new(),
            primaries: Primaries::default(),
            suspected: BTreeSet::new(),
            brake: Backoff::default(),
            missed: BTreeSet::new(),
            unbuildable: BTreeSet::new(),
            second_word: Backoff::default(),
            walled_told_until: Instant::default(),
            lacking_since: None,
            paced_until: None,
            violations: 0,
            tallies_at: moment.now + TALLIES_EVERY,
            rule_breakers: Vec::new(),
            stale_cells: 0,
        }
    }

    /// How many circuits were destroyed here because a rule was broken on them.
    pub(super) const fn violation_count(&self) -> u64 {
        self.violations
    }

    /// How many cells came for circuits that were gone.
    pub(super) const fn stale_count(&self) -> u64 {
        self.stale_cells
    }

    pub(super) fn poll_event(&mut self) -> Option<PoolEvent> {
        self.events.pop_front()
    }

    /// Whether there is an event to poll.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// How many circuits are built.
    pub(super) fn built_count(&self) -> usize {
        self.circuits
            .values()
            .filter(|circuit| circuit.is_built())
            .count()
    }

    /// How many circuits carry a request that is not over.
    #[cfg(test)]
    pub(super) fn asked_count(&self) -> usize {
        self.circuits
            .values()
            .filter(|circuit| circuit.is_asked())
            .count()
    }

    /// How many relays are chosen as guards.
    pub(super) fn guard_count(&self) -> usize {
        self.paths.guards.count()
    }

    /// A circuit for requests of this isolation to this relay: an existing one, a stub bound to it,
    /// or a new one.
    pub(super) fn acquire(
        &mut self,
        cx: &mut Context<'_>,
        isolation: &Isolation,
        terminal: &HopTarget,
        is_lasting: bool,
    ) -> Acquired {
        let now = cx.now;
        let same = self
            .circuits
            .iter()
            .find(|(_, circuit)| circuit.serves(isolation, terminal.relay, now));
        if let Some((&key, _)) = same {
            return Acquired::Circuit(key);
        }
        if self.held_terminals(cx).any(|held| held == terminal.relay) {
            return Acquired::Braked;
        }
        let stubs = self
            .circuits
            .iter()
            .filter(|(_, circuit)| circuit.can_take(terminal.relay));
        let best = stubs
            .max_by_key(|(_, circuit)| circuit.machine.circuit().hops())
            .map(|(&key, _)| key);
        let acquired = best.map_or_else(
            || self.begin_stub(cx, Some(terminal.relay)),
            Acquired::Circuit,
        );
        let Acquired::Circuit(key) = acquired else {
            return acquired;
        };
        if let Some(circuit) = self.circuits.get_mut(&key) {
            circuit.bind(
                cx.now,
                &cx.network.params,
                isolation.clone(),
                terminal.clone(),
                is_lasting,
                cx.rng,
            );
        }
        self.flush(cx, key);
        Acquired::Circuit(key)
    }

    /// A circuit of one hop to the peer of a link.
    pub(super) fn acquire_direct(&mut self, cx: &mut Context<'_>, relay: RelayId) -> Acquired {
        let now = cx.now;
        let same = self
            .circuits
            .iter()
            .find(|(_, circuit)| circuit.serves(&Isolation::Sync, relay, now));
        if let Some((&key, _)) = same {
            return Acquired::Circuit(key);
        }
        let Some(link) = self.links.link_to(relay) else {
            return Acquired::Wait;
        };
        let Some(target) = self.first_hop(cx, link, relay) else {
            return Acquired::Wait;
        };
        self.begin(cx, link, vec![target], Some(Isolation::Sync))
    }

    /// Whether this circuit is built and has room for another request.
    pub(super) fn has_room(&self, key: CircuitKey) -> bool {
        self.circuits.get(&key).is_some_and(Circuit::has_room)
    }

    /// The secret that this circuit and its last hop share.
    pub(super) fn binding(&self, key: CircuitKey) -> Option<&Binding> {
        self.circuits
            .get(&key)
            .and_then(|circuit| circuit.machine.circuit().binding())
    }

    /// Sends a request on a built circuit, whose answer is late after the time that the network gives
    /// one; says whether the circuit took it.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        ask: AskId,
        request: Request,
    ) -> bool {
        let Some(circuit) = self
            .circuits
            .get_mut(&key)
            .filter(|circuit| circuit.is_built())
        else {
            return false;
        };
        let due_at = Some(cx.now + cx.network.params.request_timeout);
        if circuit.machine.ask(ask, request, due_at).is_err() {
            return false;
        }
        let link = circuit.link;
        self.flush(cx, key);
        self.links.on_asked(link, cx.now);
        true
    }

    /// Requests whose answers are late, each with its circuit, which the caller closes.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<(AskId, CircuitKey)> {
        let mut late = Vec::new();
        for key in core::mem::take(&mut self.looked_at) {
            let is_late = |circuit: &Circuit| {
                let late_at = circuit.machine.poll_timeout();
                late_at.is_some_and(|late_at| late_at <= now)
            };
            if !self.circuits.get(&key).is_some_and(is_late) {
                continue;
            }
            let Some(circuit) = self.circuits.get_mut(&key) else {
                continue;
            };
            circuit.machine.handle_timeout(now);
            while let Some(event) = circuit.machine.poll_event() {
                match event {
                    RequestEvent::Answered {
                        who: ask,
                        answer: Answer::Late,
                    } => late.push((ask, key)),
                    RequestEvent::Answered { .. }
                    | RequestEvent::Extended { .. }
                    | RequestEvent::ExtendRefused(_) => {
                        debug_assert!(false, "events of cells were taken with the cell");
                    }
                }
            }
        }
        late
    }

    /// Destroys a circuit that is no longer needed.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, key: CircuitKey, reason: DestroyReason) {
        self.lose(cx, key, Loss::Closed, Some(reason));
    }

    /// Destroys a circuit whose last hop said what no rule allows.
    pub(super) fn break_off(&mut self, cx: &mut Context<'_>, key: CircuitKey) {
        let Some(circuit) = self.circuits.get(&key) else {
            return;
        };
        self.violations += 1;
        if circuit.is_direct() {
            self.rule_breakers.extend(circuit.terminal());
        }
        self.close(cx, key, DestroyReason::Protocol);
    }

    /// Destroys the circuit of this isolation to a relay whose view broke a rule.
    pub(super) fn break_off_from(
        &mut self,
        cx: &mut Context<'_>,
        isolation: &Isolation,
        relay: RelayId,
    ) {
        let is_its = |circuit: &Circuit| {
            circuit.isolation.as_ref() == Some(isolation) && circuit.terminal() == Some(relay)
        };
        let its = self.circuits.iter().find(|(_, circuit)| is_its(circuit));
        let key = its.map(|(&key, _)| key);
        if let Some(key) = key {
            self.break_off(cx, key);
        }
    }

    /// The peers that broke a rule on a circuit of one hop since this was last asked.
    pub(super) fn take_rule_breakers(&mut self) -> Vec<RelayId> {
        core::mem::take(&mut self.rule_breakers)
    }

    /// Takes a cell in.
    pub(super) fn handle_cell(&mut self, cx: &mut Context<'_>, link: LinkId, mut cell: Cell) {
        let Ok((Some(circ), command)) = cell.header() else {
            return self.close_link(cx, link);
        };
        self.links.on_heard(link);
        if matches!(command, Command::Padding | Command::Hello | Command::Create) {
            return self.close_link(cx, link);
        }
        // Cells sent before our destroy arrived may still come (docs/protocol.md §4.4(3)).
        let Some(key) = self.circuits.key_of(link, circ) else {
            self.stale_cells += 1;
            return;
        };
        if command == Command::Destroy {
            let is_busy = cell.body_mut().first() == Some(&(DestroyReason::Busy as u8));
            return self.on_destroy(cx, key, is_busy);
        }
        self.on_circuit_cell(cx, key, command, &mut cell);
    }

    /// Does what is due: failed steps, circuits past their time, stubs, guards. `expected`: stubs
    /// about to be needed. `are_all_tried`: every peer of the round was, so a new guard may be drawn.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, expected: usize, are_all_tried: bool) {
        self.paced_until = None;
        self.end_silent_links(cx);
        let due = self.circuits.take_due(cx.now);
        due.iter().for_each(|_| cx.count_look());
        self.end_overdue(cx, &due);
        self.end_spent(cx, &due);
        self.looked_at.extend(due);
        if cx.is_ready {
            self.paths.refresh(cx.known(), cx.rng);
        }
        self.keep_guard(cx, are_all_tried);
        self.tell_if_walled_in(cx);
        self.ask_second_word(cx);
        self.keep_stubs(cx, expected);
        self.save(cx, false);
    }

    fn save(&mut self, cx: &mut Context<'_>, is_last: bool) {
        let is_due = is_last || self.tallies_at <= cx.now;
        if is_due {
            self.tallies_at = cx.now + TALLIES_EVERY;
        }
        if let Some(state) = self.paths.take_state(is_due) {
            cx.store(StoreOp::PutPaths(state));
        }
    }

    /// Tells the user what the paths have come to.
    pub(super) fn tell(&mut self, cx: &mut Context<'_>) {
        while let Some(warning) = self.paths.poll_warning() {
            cx.warn(warning.into());
        }
    }

    /// All that was due is done: closes links that nothing uses, except those that `is_wanted` keeps, and
    /// notes when circuits are due next.
    pub(super) fn tidy_links(&mut self, cx: &mut Context<'_>, is_wanted: impl Fn(RelayId) -> bool) {
        let guard = self.guard_in_use().map(|(relay, _)| relay);
        let circuits = &self.circuits;
        self.links.tidy(cx, |link, relay| {
            Some(relay) == guard || is_wanted(relay) || circuits.has_any_on(link)
        });
        self.circuits.schedule(cx.now, &cx.network.params);
    }

    /// When there is something to do without anything having come.
    pub(super) fn timeout(&self, after: Instant, params: &Params) -> Option<Instant> {
        let links = self.links.timeouts(params.link_idle);
        let backoffs = [&self.stub_backoff, &self.brake, &self.second_word];
        let waits = backoffs
            .map(Backoff::retry_at)
            .into_iter()
            .chain(self.paced_until);
        links
            .chain(waits)
            .chain(self.guard_timeouts(after))
            .filter(|&at| at > after)
            .chain(self.circuits.timeout())
            .min()
    }

    /// Destroys everything and closes all links.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        let keys: Vec<CircuitKey> = self.circuits.iter().map(|(&key, _)| key).collect();
        for key in keys {
            self.lose(cx, key, Loss::Closed, Some(DestroyReason::Finished));
        }
        for link in self.links.ids() {
            self.links.close(cx, link);
        }
        self.save(cx, true);
    }

    /// Closes a link whose peer broke a rule of links, or answers nothing; it is left alone for a
    /// while.
    pub(super) fn close_link(&mut self, cx: &mut Context<'_>, link: LinkId) {
        if let Some(relay) = self.links.relay_of(link) {
            self.links.close(cx, link);
            self.links.rest(cx, relay);
        }
        self.lose_all_of(cx, link);
    }

    /// How the loss of this circuit counts, by how far it was built.
    fn loss_of(&self, key: CircuitKey) -> Loss {
        match self.circuits.get(&key) {
            Some(circuit) if circuit.hop_due_at.is_none() => Loss::Broken,
            Some(circuit) if circuit.made >= STUB_HOPS || circuit.is_direct() => Loss::Terminal,
            _ => Loss::Building,
        }
    }

    fn on_circuit_cell(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        command: Command,
        cell: &mut Cell,
    ) {
        let Some(circuit) = self.circuits.get_mut(&key) else {
            return;
        };
        if let Err(violation) = circuit.machine.handle_cell(command, cell) {
            return self.on_violation(cx, key, violation);
        }
        while let Some(event) = self
            .circuits
            .get_mut(&key)
            .and_then(|circuit| circuit.machine.poll_event())
        {
            self.on_event(cx, key, event);
        }
        self.flush(cx, key);
    }

    fn on_event(&mut self, cx: &mut Context<'_>, key: CircuitKey, event: RequestEvent<AskId>) {
        match event {
            RequestEvent::Extended { hops } => self.on_extended(cx, key, hops),
            RequestEvent::ExtendRefused(_) => {
                let loss = self.loss_of(key);
                self.blame(cx, key, Witness::LastHop);
                self.lose(cx, key, loss, Some(DestroyReason::Finished));
            }
            RequestEvent::Answered {
                who: ask,
                answer: Answer::Frame(frame),
            } => {
                self.on_answered(key);
                self.events.push_back(PoolEvent::Frame {
                    circuit: key,
                    ask,
                    frame,
                });
            }
            RequestEvent::Answered {
                who: ask,
                answer: Answer::Ended { .. } | Answer::Late,
            } => {
                self.on_request_over(cx, key);
                self.events.push_back(PoolEvent::Ended { ask });
            }
        }
    }

    fn on_extended(&mut self, cx: &mut Context<'_>, key: CircuitKey, hops: usize) {
        let Some(circuit) = self.circuits.get_mut(&key) else {
            return;
        };
        let Some(relay) = circuit.path.get(hops.wrapping_sub(1)).map(|hop| hop.relay) else {
            return;
        };
        (circuit.hop_due_at, circuit.made) = (None, hops);
        circuit.extend_on(cx.now, &cx.network.params, cx.rng);
        self.guard_silences.remove(&circuit.link);
        self.refusals.remove(&circuit.link);
        if circuit.is_direct() {
            return;
        }
        if circuit.is_second_word() {
            return self.on_second_word_made(cx, key, hops, relay);
        }
        cx.notify(Notice::HopBuilt {
            circuit: key.0,
            hop: hops,
            relay,
        });
        let by: Vec<RelayId> = circuit
            .path
            .iter()
            .take(hops - 1)
            .map(|hop| hop.relay)
            .collect();
        self.paths.avoided.handle_made(relay);
        self.suspects.on_extended(&by);
        if hops == STUB_HOPS {
            self.stub_backoff.reset();
            self.unbuildable.clear();
            if let [guard, layer2] = by.as_slice() {
                self.paths.guards.handle_built(cx.known(), *guard);
                self.paths.layer2.handle_made(*layer2);
            }
        }
    }

    /// A request is over; a circuit that has done its work is destroyed.
    fn on_request_over(&mut self, cx: &Context<'_>, key: CircuitKey) {
        let Some(circuit) = self.circuits.get_mut(&key) else {
            return;
        };
        circuit.idle_since = cx.now;
        let isolation = circuit.isolation.as_ref();
        if !circuit.is_asked() && isolation.is_some_and(Isolation::is_single_use) {
            circuit.dirty_at = cx.now;
        }
    }

    /// Forgets a circuit and reports its loss; with a reason, sends `Destroy` too.
    fn lose(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        loss: Loss,
        reason: Option<DestroyReason>,
    ) {
        let Some(circuit) = self.circuits.remove(key) else {
            return;
        };
        if let Some(reason) = reason
            && self.links.relay_of(circuit.link).is_some()
        {
            cx.out
                .cells
                .push_back((circuit.link, Cell::destroy(circuit.circ, reason)));
        }
        self.events
            .push_back(PoolEvent::Lost { circuit: key, loss });
    }

    fn lose_all_of(&mut self, cx: &mut Context<'_>, link: LinkId) {
        self.guard_silences.remove(&link);
        self.refusals.remove(&link);
        for key in self.circuits.keys_on(link) {
            self.lose(cx, key, Loss::Link, None);
        }
    }

    /// Hands a circuit's cells on. Bounded by the circuit's own window.
    fn flush(&mut self, cx: &mut Context<'_>, key: CircuitKey) {
        let Some(circuit) = self.circuits.get_mut(&key) else {
            return;
        };
        while let Some(mut cell) = circuit.machine.poll_cell(cx.rng) {
            if let Ok((_, command)) = cell.header() {
                cell.set_header(Some(circuit.circ), command);
                cx.out.cells.push_back((circuit.link, cell));
            }
        }
    }
}

#[cfg(test)]
mod tests;
