//! All circuits: clean stubs kept ready, stubs bound to one purpose and extended to its terminal, circuits of one hop for
//! reconciling views (docs/protocol.md §4, §6).
//!
//! Owns links and paths, since they are chosen, used and blamed together. Never knows what is said on a stream. A circuit
//! that fails is destroyed at once; which hop was being made when it failed is known, and that relay is avoided for a while.

use std::collections::{BTreeMap, VecDeque};

use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::origin::{OriginCircuit, OriginEvent};
use umbel_proto::handshake::{Binding, HopTarget};
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::message::{Service, StreamId};
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Instant};

use super::Context;
use super::chance::Backoff;
use super::circuit::{Circuit, CircuitKey, Isolation};
use super::io::{LinkId, Notice};
use super::links::{Links, Reach};
use super::path::{Paths, hop_target};
use super::requests::AskId;

/// Most circuits at once; beyond it an idle one is closed, or the request waits.
const CIRCUITS_MAX: usize = 64;
/// Most circuits being built at once; beyond it requests wait.
const BUILDING_MAX: usize = 12;
/// Onionskins in a row that a guard may leave unanswered before its link is closed.
const GUARD_SILENCES_MAX: u32 = 2;
/// How long a dial goes on before the next guard is dialled besides.
const GUARD_STAGGER: Duration = Duration::from_millis(2500);
/// Failures of every known guard before another is drawn.
const GUARD_FAILURES_MIN: u32 = 2;

/// What the pool tells the requests.
pub(super) enum PoolEvent {
    /// A frame came.
    Frame { ask: AskId, frame: Vec<u8> },
    /// Nothing more comes for this one.
    Ended { ask: AskId },
    /// A circuit is gone.
    Lost { circuit: CircuitKey, at_terminal: bool },
}

/// Who is known to say that a hop can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Witness {
    /// Whatever the guard lets us see: silence, or a destroy, which any relay on the way can make up.
    Guard,
    /// The hop before it, in a cell that only this hop could seal.
    LastHop,
}

/// What became of asking for a circuit.
pub(super) enum Acquired {
    /// This one; it may still be being built.
    Circuit(CircuitKey),
    /// None now; later there may be one.
    Wait,
}

/// All circuits, links and paths of this client.
pub(super) struct Pool {
    pub(super) links: Links,
    pub(super) paths: Paths,
    circuits: BTreeMap<CircuitKey, Circuit>,
    by_circ: BTreeMap<(LinkId, CircId), CircuitKey>,
    events: VecDeque<PoolEvent>,
    last_key: u64,
    stub_backoff: Backoff,
    guard_silences: BTreeMap<LinkId, u32>,
    violations: u64,
    stale_cells: u64,
}

impl Pool {
    pub(super) fn new(paths: Paths) -> Self {
        Self {
            links: Links::default(),
            paths,
            circuits: BTreeMap::new(),
            by_circ: BTreeMap::new(),
            events: VecDeque::new(),
            last_key: 0,
            stub_backoff: Backoff::default(),
            guard_silences: BTreeMap::new(),
            violations: 0,
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

    /// Whether something is to be told.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// How many circuits are built.
    pub(super) fn built_count(&self) -> usize {
        self.circuits.values().filter(|circuit| circuit.is_built()).count()
    }

    /// The best guard that there is a link to.
    pub(super) fn guard_in_use(&self) -> Option<(RelayId, LinkId)> {
        let order = self.paths.guards.in_order();
        order.into_iter().find_map(|relay| self.links.link_to(relay).map(|link| (relay, link)))
    }

    /// A circuit for requests of this isolation to this relay: one that there is, a stub bound to it, or a new one.
    pub(super) fn acquire(
        &mut self,
        cx: &mut Context<'_>,
        isolation: &Isolation,
        terminal: &HopTarget,
        is_lasting: bool,
    ) -> Acquired {
        let now = cx.now;
        let same = self.circuits.iter().find(|(_, circuit)| circuit.serves(isolation, terminal.relay, now));
        if let Some((&key, _)) = same {
            return Acquired::Circuit(key);
        }
        let stubs = self.circuits.iter().filter(|(_, circuit)| circuit.can_take(terminal.relay));
        let best = stubs.max_by_key(|(_, circuit)| circuit.machine.hops()).map(|(&key, _)| key);
        let Some(key) = best.or_else(|| self.begin_stub(cx, Some(terminal.relay))) else { return Acquired::Wait };
        if let Some(circuit) = self.circuits.get_mut(&key) {
            circuit.bind(cx.now, &cx.network.params, isolation.clone(), terminal.clone(), is_lasting, cx.rng);
        }
        self.flush(cx, key);
        Acquired::Circuit(key)
    }

    /// A circuit of one hop to the peer of a link.
    pub(super) fn acquire_direct(&mut self, cx: &mut Context<'_>, relay: RelayId) -> Acquired {
        let now = cx.now;
        let same = self.circuits.iter().find(|(_, circuit)| circuit.serves(&Isolation::Sync, relay, now));
        if let Some((&key, _)) = same {
            return Acquired::Circuit(key);
        }
        let Some(link) = self.links.link_to(relay) else { return Acquired::Wait };
        let Some(target) = self.first_hop(cx, link, relay) else { return Acquired::Wait };
        let begun = self.begin(cx, link, vec![target], Some(Isolation::Sync));
        begun.map_or(Acquired::Wait, Acquired::Circuit)
    }

    /// Whether this circuit is built and has room for another request.
    pub(super) fn has_room(&self, key: CircuitKey) -> bool {
        self.circuits.get(&key).is_some_and(Circuit::has_room)
    }

    /// What this circuit and its last hop share.
    pub(super) fn binding(&self, key: CircuitKey) -> Option<&Binding> {
        self.circuits.get(&key).and_then(|circuit| circuit.machine.binding())
    }

    /// Sends a request on a built circuit; says whether the circuit took it.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        ask: AskId,
        service: Service,
        frame: &[u8],
    ) -> bool {
        let Some(circuit) = self.circuits.get_mut(&key).filter(|circuit| circuit.is_built()) else { return false };
        let Ok(stream) = circuit.machine.open_stream(service, frame, true) else { return false };
        circuit.streams.insert(stream, ask);
        self.flush(cx, key);
        true
    }

    /// Destroys a circuit that is of no more use.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, key: CircuitKey, reason: DestroyReason) {
        self.lose(cx, key, false, Some(reason));
    }

    /// Takes a cell in.
    pub(super) fn handle_cell(&mut self, cx: &mut Context<'_>, link: LinkId, mut cell: Cell) {
        let Ok((Some(circ), command)) = cell.header() else {
            return self.close_link(cx, link);
        };
        let Some(&key) = self.by_circ.get(&(link, circ)) else {
            // What was sent before our destroy arrived may still come; anything else is made up.
            if self.links.was_given_out(link, circ) {
                self.stale_cells += 1;
            } else {
                self.close_link(cx, link);
            }
            return;
        };
        match command {
            Command::Created | Command::Relay => self.on_circuit_cell(cx, key, command, &mut cell),
            Command::Destroy => self.on_destroy(cx, key),
            Command::Padding | Command::Hello | Command::Create => self.close_link(cx, link),
        }
    }

    /// A link is up. If the best guards were given up before, they are tried again soon: it was the network that failed.
    pub(super) fn handle_link_up(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        relay: RelayId,
        target: Option<HopTarget>,
        clock_offset: i64,
    ) {
        let was_cut_off = self.links.ids().is_empty();
        if self.links.on_up(cx, link, relay, target, clock_offset) && was_cut_off {
            self.links.hurry(&self.paths.guards.primary(cx.network.params.guards_primary));
        }
    }

    /// A link is gone, and all its circuits with it.
    pub(super) fn handle_link_down(&mut self, cx: &mut Context<'_>, link: LinkId) -> Option<RelayId> {
        let relay = self.links.on_down(cx, link);
        self.lose_all_of(cx, link);
        relay
    }

    /// Does what is due: failed steps, circuits past their time, stubs, guards. So many stubs are about to be asked for.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, expected: usize) {
        self.end_overdue(cx);
        self.end_spent(cx);
        self.paths.refresh(cx);
        self.keep_guard(cx);
        self.keep_stubs(cx, expected);
        self.paths.save(cx);
    }

    /// Closes links that nothing uses; `is_wanted` says which are kept all the same.
    pub(super) fn tidy_links(&mut self, cx: &mut Context<'_>, is_wanted: impl Fn(RelayId) -> bool) {
        let guard = self.guard_in_use().map(|(relay, _)| relay);
        let circuits = &self.circuits;
        self.links.tidy(cx, |link, relay| {
            Some(relay) == guard || is_wanted(relay) || circuits.values().any(|circuit| circuit.link == link)
        });
    }

    /// When there is something to do without anything having come.
    pub(super) fn timeout(&self, after: Instant, params: &Params) -> Option<Instant> {
        let circuits = self.circuits.values().map(|circuit| circuit.timeout(params));
        let order = self.paths.guards.in_order();
        let guards = order.into_iter().filter_map(|relay| match self.links.reach(relay, after) {
            Reach::Up(_) | Reach::Unknown => None,
            Reach::Dialling(began_at) => Some(began_at + GUARD_STAGGER),
            Reach::Resting(until) => Some(until),
        });
        let links = self.links.timeouts(params.link_idle);
        circuits.chain(guards).chain(links).chain([self.stub_backoff.retry_at()]).filter(|&at| at > after).min()
    }

    /// Destroys everything and closes all links.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        let keys: Vec<CircuitKey> = self.circuits.keys().copied().collect();
        for key in keys {
            self.lose(cx, key, false, Some(DestroyReason::Finished));
        }
        for link in self.links.ids() {
            self.links.close(cx, link);
        }
    }

    /// Closes a link whose peer broke a rule of links, or answers nothing; it is left alone for a while.
    pub(super) fn close_link(&mut self, cx: &mut Context<'_>, link: LinkId) {
        if let Some(relay) = self.links.relay_of(link) {
            self.links.close(cx, link);
            self.links.rest(cx, relay);
        }
        self.lose_all_of(cx, link);
    }

    fn on_circuit_cell(&mut self, cx: &mut Context<'_>, key: CircuitKey, command: Command, cell: &mut Cell) {
        let Some(circuit) = self.circuits.get_mut(&key) else { return };
        if let Err(violation) = circuit.machine.handle_cell(command, cell) {
            return self.on_violation(cx, key, violation);
        }
        while let Some(event) = self.circuits.get_mut(&key).and_then(|circuit| circuit.machine.poll_event()) {
            self.on_event(cx, key, event);
        }
        self.flush(cx, key);
    }

    fn on_violation(&mut self, cx: &mut Context<'_>, key: CircuitKey, violation: Violation) {
        self.violations += 1;
        self.blame(cx, key, Witness::Guard);
        self.lose(cx, key, false, Some(violation.reason()));
    }

    /// The circuit was destroyed from the other side. Which relay did it can't be known once all hops are there.
    fn on_destroy(&mut self, cx: &mut Context<'_>, key: CircuitKey) {
        let at_terminal = self.is_at_terminal(key);
        self.blame(cx, key, Witness::Guard);
        self.lose(cx, key, at_terminal, None);
    }

    fn on_event(&mut self, cx: &mut Context<'_>, key: CircuitKey, event: OriginEvent) {
        match event {
            OriginEvent::Extended { hops } => self.on_extended(cx, key, hops),
            OriginEvent::ExtendRefused(_) => {
                let at_terminal = self.is_at_terminal(key);
                self.blame(cx, key, Witness::LastHop);
                self.lose(cx, key, at_terminal, Some(DestroyReason::Finished));
            }
            OriginEvent::Frame { stream, frame } => {
                let ask = self.circuits.get(&key).and_then(|circuit| circuit.streams.get(&stream)).copied();
                if let Some(ask) = ask {
                    self.events.push_back(PoolEvent::Frame { ask, frame });
                }
            }
            OriginEvent::StreamEnded { stream, .. } => {
                if let Some(ask) = self.on_stream_over(cx, key, stream) {
                    self.events.push_back(PoolEvent::Ended { ask });
                }
            }
        }
    }

    fn on_extended(&mut self, cx: &mut Context<'_>, key: CircuitKey, hops: usize) {
        let Some(circuit) = self.circuits.get_mut(&key) else { return };
        let Some(relay) = circuit.path.get(hops.wrapping_sub(1)).map(|hop| hop.relay) else { return };
        circuit.hop_due_at = None;
        circuit.extend_on(cx.now, &cx.network.params, cx.rng);
        self.guard_silences.remove(&circuit.link);
        if circuit.is_direct() {
            return;
        }
        cx.notify(Notice::HopBuilt { circuit: key.0, hop: hops, relay });
        let guard = circuit.path.first().map(|hop| hop.relay);
        self.paths.avoided.on_worked(relay);
        if hops == STUB_HOPS {
            self.stub_backoff.reset();
            if let Some(guard) = guard {
                self.paths.guards.on_built(cx, guard);
            }
        }
    }

    /// Takes a stream off its circuit; a circuit that has done its work is destroyed.
    fn on_stream_over(&mut self, cx: &mut Context<'_>, key: CircuitKey, stream: StreamId) -> Option<AskId> {
        let circuit = self.circuits.get_mut(&key)?;
        let ask = circuit.streams.remove(&stream)?;
        circuit.idle_since = cx.now;
        if circuit.streams.is_empty() && circuit.isolation.as_ref().is_some_and(Isolation::is_single_use) {
            circuit.dirty_at = cx.now;
        }
        Some(ask)
    }

    /// Whether the hop being made, if any, is one that somebody else chose.
    fn is_at_terminal(&self, key: CircuitKey) -> bool {
        self.circuits.get(&key).is_some_and(|circuit| {
            circuit.hop_due_at.is_some() && circuit.machine.hops() >= STUB_HOPS || circuit.is_direct()
        })
    }

    /// Something went wrong while a hop was being made: that relay is avoided, and the guard's failures are counted. One
    /// relay that is down is one failure however often it is tried, and none where the guard can't have had a hand in it.
    fn blame(&mut self, cx: &mut Context<'_>, key: CircuitKey, witness: Witness) {
        let Some(circuit) = self.circuits.get(&key) else { return };
        let hops = circuit.machine.hops();
        let failed = circuit.hop_due_at.and_then(|_| circuit.path.get(hops)).map(|hop| hop.relay);
        let guard = circuit.path.first().map(|hop| hop.relay);
        let is_before_terminal = hops < STUB_HOPS && !circuit.is_direct();
        let is_news = failed.is_some_and(|relay| self.paths.avoided.failures(relay) == 0);
        let may_be_guard = hops <= 1 || witness == Witness::Guard;
        if let Some(relay) = failed
            && hops > 0
        {
            self.paths.avoided.on_failed(cx, relay);
        }
        if failed.is_some() && is_before_terminal {
            self.stub_backoff.fail(cx);
            if let Some(guard) = guard.filter(|_| is_news && may_be_guard) {
                self.paths.guards.on_failed(cx, guard);
            }
        }
    }

    /// Forgets a circuit and says so; with a reason, tells the peer too.
    fn lose(&mut self, cx: &mut Context<'_>, key: CircuitKey, at_terminal: bool, reason: Option<DestroyReason>) {
        let Some(circuit) = self.circuits.remove(&key) else { return };
        self.by_circ.remove(&(circuit.link, circuit.circ));
        if let Some(reason) = reason
            && self.links.relay_of(circuit.link).is_some()
        {
            cx.out.cells.push_back((circuit.link, Cell::destroy(circuit.circ, reason)));
        }
        self.events.push_back(PoolEvent::Lost { circuit: key, at_terminal });
    }

    fn lose_all_of(&mut self, cx: &mut Context<'_>, link: LinkId) {
        self.guard_silences.remove(&link);
        let keys: Vec<CircuitKey> =
            self.circuits.iter().filter(|(_, circuit)| circuit.link == link).map(|(&key, _)| key).collect();
        for key in keys {
            self.lose(cx, key, false, None);
        }
    }

    /// Begins a stub through the guard in use. `None`: no guard, no path, or too many circuits.
    fn begin_stub(&mut self, cx: &mut Context<'_>, terminal: Option<RelayId>) -> Option<CircuitKey> {
        let (guard, link) = self.guard_in_use()?;
        let building = self.circuits.values().filter(|circuit| !circuit.is_built()).count();
        if building >= BUILDING_MAX {
            return None;
        }
        let mut path = self.paths.choose(cx, guard, terminal)?;
        if let (Some(first), Some(target)) = (path.first_mut(), self.first_hop(cx, link, guard)) {
            *first = target;
        }
        self.begin(cx, link, path, None)
    }

    /// How to begin a circuit over a link: as the view says, which takes in what the peer shows of itself and whatever is
    /// newer (a link may outlive an onion key), or else as the peer itself said.
    fn first_hop(&self, cx: &Context<'_>, link: LinkId, relay: RelayId) -> Option<HopTarget> {
        hop_target(cx.view, relay).or_else(|| self.links.target_of(link).cloned())
    }

    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        path: Vec<HopTarget>,
        isolation: Option<Isolation>,
    ) -> Option<CircuitKey> {
        if self.circuits.len() >= CIRCUITS_MAX && !self.evict_idle(cx) {
            return None;
        }
        let circ = self.links.new_circ_id(link)?;
        let machine = OriginCircuit::create(&cx.network.id, path.first()?, cx.rng);
        let params = &cx.network.params;
        let life = if isolation.is_some() { params.circuit_dirty } else { params.circuit_idle };
        self.last_key += 1;
        let key = CircuitKey(self.last_key);
        let circuit = Circuit {
            machine,
            link,
            circ,
            path,
            isolation,
            hop_due_at: Some(cx.now + params.build_timeout / 2),
            dirty_at: cx.now + life,
            streams: BTreeMap::new(),
            idle_since: cx.now,
        };
        self.circuits.insert(key, circuit);
        self.by_circ.insert((link, circ), key);
        self.flush(cx, key);
        Some(key)
    }

    /// Makes room for a circuit by closing the one that has been idle for longest.
    fn evict_idle(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.circuits.iter().filter(|(_, circuit)| circuit.is_built() && circuit.streams.is_empty());
        let Some(key) = idle.min_by_key(|(_, circuit)| circuit.idle_since).map(|(&key, _)| key) else { return false };
        self.lose(cx, key, false, Some(DestroyReason::Finished));
        true
    }

    /// Hands a circuit's cells on. Bounded by the circuit's own window.
    fn flush(&mut self, cx: &mut Context<'_>, key: CircuitKey) {
        let Some(circuit) = self.circuits.get_mut(&key) else { return };
        while let Some(mut cell) = circuit.machine.poll_cell(cx.rng) {
            if let Ok((_, command)) = cell.header() {
                cell.set_header(Some(circuit.circ), command);
                cx.out.cells.push_back((circuit.link, cell));
            }
        }
    }

    /// Ends circuits whose next hop did not come in time. A guard that leaves several onionskins unanswered is given up.
    fn end_overdue(&mut self, cx: &mut Context<'_>) {
        let overdue: Vec<(CircuitKey, LinkId, usize)> = self
            .circuits
            .iter()
            .filter(|(_, circuit)| circuit.hop_due_at.is_some_and(|due_at| due_at <= cx.now))
            .map(|(&key, circuit)| (key, circuit.link, circuit.machine.hops()))
            .collect();
        for (key, link, hops) in overdue {
            let at_terminal = self.is_at_terminal(key);
            self.blame(cx, key, Witness::Guard);
            self.lose(cx, key, at_terminal, Some(DestroyReason::Finished));
            if hops == 0 {
                let silences = self.guard_silences.entry(link).or_default();
                *silences += 1;
                if *silences >= GUARD_SILENCES_MAX {
                    self.close_link(cx, link);
                }
            }
        }
    }

    /// Ends circuits past their time, and stubs of a guard that is no longer the one in use.
    fn end_spent(&mut self, cx: &mut Context<'_>) {
        let guard_link = self.guard_in_use().map(|(_, link)| link);
        let params = &cx.network.params;
        let spent: Vec<CircuitKey> = self
            .circuits
            .iter()
            .filter(|(_, circuit)| {
                let is_past = circuit.hop_due_at.is_none() && circuit.timeout(params) <= cx.now;
                is_past || (circuit.is_stub() && Some(circuit.link) != guard_link)
            })
            .map(|(&key, _)| key)
            .collect();
        for key in spent {
            self.lose(cx, key, false, Some(DestroyReason::Finished));
        }
    }

    /// Keeps a link to the best guard that answers: dials down the list, the next one when the one before rests or is
    /// slow, and draws another when all have failed repeatedly.
    fn keep_guard(&mut self, cx: &mut Context<'_>) {
        if !cx.is_ready {
            return;
        }
        let order = self.paths.guards.in_order();
        for &relay in &order {
            match self.links.reach(relay, cx.now) {
                Reach::Up(_) => return,
                Reach::Dialling(began_at) if began_at + GUARD_STAGGER > cx.now => return,
                Reach::Dialling(_) | Reach::Resting(_) => {}
                Reach::Unknown => return self.dial(cx, relay),
            }
        }
        let all_failed = order.iter().all(|&relay| self.links.failures(relay) >= GUARD_FAILURES_MIN);
        let most = cx.network.params.guards_primary.max(cx.view.len() / 5) * 2;
        if all_failed && order.len() < most {
            self.paths.guards.grow(cx);
        }
    }

    fn dial(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        let Some(descriptor) = cx.view.get(&relay) else { return };
        let host_ports = descriptor.host_ports();
        self.links.dial(cx, relay, host_ports);
    }

    /// Keeps clean stubs ready: as many as the network has clients keep, or as are about to be needed.
    fn keep_stubs(&mut self, cx: &mut Context<'_>, expected: usize) {
        if !self.stub_backoff.is_due(cx.now) {
            return;
        }
        let mut count = self.circuits.values().filter(|circuit| circuit.is_stub()).count();
        while count < expected.max(cx.network.params.circuits_ready) && self.begin_stub(cx, None).is_some() {
            count += 1;
        }
    }
}

/// Hops of a stub: guard, layer 2, middle.
const STUB_HOPS: usize = 3;
