//! The control plane of a relay: machines for circuits, dialling, services, discovery, the relay's
//! own descriptor and its clock, which meet only here. Discovery and `own::receipts` also drive
//! circuits of one hop through `Circuits`.
//!
//! Each machine acts with a `Context` and reaches another by a `Signal`. Together they are one
//! state machine. It installs and removes the table entries by which the forwarding plane works,
//! and never sees a cell that only passes. No IO: cells, time, randomness and completions come in
//! by `handle_*`, effects go out by `poll_*`. Rules: docs/protocol.md §4 (circuits on a link), §6
//! (extend), §7 (streams), §8 (directory), §10 (mailboxes).

mod admit;
mod circuits;
mod clock;
mod config;
mod context;
mod dialling;
mod discovery;
pub mod io;
mod keys;
mod links;
mod one_hop;
mod own;
mod services;
mod spot;
pub mod standing;
#[cfg(test)]
mod testing;
mod timers;

use std::collections::VecDeque;
use std::net::SocketAddr;

use rand::CryptoRng;
use umbel_proto::Violation;
use umbel_proto::cell::Cell;
use umbel_proto::circuit::TerminalEvent;
use umbel_proto::directory::receipts::{ProbeId, Probed, SpotChecks};
use umbel_proto::directory::{Book, DescriptorFault, NetView, Unverified};
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::holder::Holder;
use umbel_proto::limits::LINK_UNUSED_MAX;
use umbel_proto::link::{Hello, LinkId};
use umbel_proto::message::ExtendRefusal;
use umbel_proto::time::{ClockGuard, Duration, Instant, Moment, PeerClock, WallTime};

use crate::forward::LinkEvent;
use circuits::{CircuitKey, Circuits};
use clock::ClockVerdict;
use context::{Out, Shared, Signal};
use dialling::Dialling;
use discovery::Discovery;
use io::{ControlStats, Effect, LinkUp, News, Snapshot, StoreDone, Wake, WorkDone};
use links::Links;
use one_hop::Errand;
use own::Own;
use services::{Directory, Mailbox, Request, Services};
use spot::Spot;
use standing::{OtherStanding, Standing};
use timers::{Timer, Timers};

pub use config::{ControlConfig, Tuning};
pub use keys::Responder;

/// How often expiry is looked after.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// The side that dialled a link closes it once it has carried no circuit for this many sweeps
/// (§2.6(6)).
const UNUSED_LINK_SWEEPS: u32 = 10;
const _: () =
    assert!(SWEEP_INTERVAL.as_secs() * UNUSED_LINK_SWEEPS as u64 == LINK_UNUSED_MAX.as_secs());

/// The control plane of one relay.
///
/// After any `handle_*`, drain [`poll_effect`](Self::poll_effect), then ask
/// [`poll_timeout`](Self::poll_timeout).
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct Control {
    shared: Shared,
    circuits: Circuits,
    dialling: Dialling,
    services: Services,
    discovery: Discovery,
    own: Own,
    spot: Spot,
    clock: ClockVerdict,
}

impl Control {
    /// A relay that takes up where it left.
    pub fn new(
        config: ControlConfig,
        snapshot: Snapshot,
        moment: Moment,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let Moment { now, wall } = moment;
        let (clock, jump) = ClockGuard::restore(snapshot.clock.as_deref(), now, wall);
        let relay = RelayId::from(config.identity.public());
        let mut book = Book::restore(&config.network, snapshot.relays, wall);
        book.believe_met_only(&config.network, wall);
        let mut shared = Shared {
            relay,
            book,
            config,
            links: Links::default(),
            clock,
            timers: Timers::default(),
            stats: ControlStats::default(),
            signals: VecDeque::new(),
            out: Out::default(),
        };
        let mut cx = shared.context(moment, rng);
        if let Some(jump) = jump {
            cx.tell(News::ClockSinceLastRun(jump));
        }
        cx.timers.set(Timer::Sweep, now + SWEEP_INTERVAL);
        let spot = Spot::restore(&mut cx, snapshot.spot_checks.as_deref());
        let own = Own::restore(
            &mut cx,
            snapshot.onion_keys,
            &snapshot.receipts,
            snapshot.listed,
        );
        let mailbox = Mailbox::restore(&cx, snapshot.queues);
        let directory = Directory::restore(snapshot.inbox_descriptors);
        cx.store_clock();
        Self {
            circuits: Circuits::default(),
            dialling: Dialling::default(),
            services: Services::new(directory, mailbox),
            discovery: Discovery::new(relay, snapshot.anchors, now),
            own,
            spot,
            clock: ClockVerdict::new(jump),
            shared,
        }
    }

    /// Who this relay is.
    pub fn relay_id(&self) -> RelayId {
        self.shared.relay
    }

    /// This relay's own descriptor, as it is passed on.
    pub fn descriptor(&self) -> &[u8] {
        self.own.descriptor()
    }

    /// The relays this one believes in.
    pub fn view(&self) -> &NetView {
        self.shared.book.view()
    }

    /// How those stand who vouch for others, by the receipts that this relay tried.
    pub const fn spot_checks(&self) -> &SpotChecks {
        self.spot.checks()
    }

    /// The queues kept here.
    pub fn holder(&self) -> &Holder {
        self.services.holder()
    }

    /// The relay's first cell on a link.
    pub fn hello(&self, wall: WallTime) -> Hello {
        Hello::of_relay(
            &self.shared.config.network,
            wall,
            self.descriptor().to_vec(),
        )
    }

    /// Answers handshakes, on any thread. Ask anew for each: onion keys change.
    pub fn responder(&self) -> Responder {
        let network = self.shared.config.network.id;
        self.own.responder(network, self.shared.relay)
    }

    /// How many ends of circuits there are, on all links together.
    pub fn end_count(&self) -> usize {
        self.circuits.end_count()
    }

    /// How often a descriptor of this relay came that another process issued.
    pub fn twin_count(&self) -> u64 {
        self.shared.stats.twins
    }

    /// How far the clocks of other relays are ahead of this one's, seconds, if that is more than
    /// the network bears.
    pub fn clock_off_by(&self) -> Option<i64> {
        self.clock.off_by()
    }

    /// Checks what must hold between any two calls; for the simulator.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), String> {
        if !self.shared.signals.is_empty() {
            return Err("a machine was not told something".to_owned());
        }
        self.circuits.check()?;
        self.services.check(|key| self.circuits.contains(key))?;
        self.dialling
            .check(|key, relay| self.circuits.is_awaiting(key, relay))
    }

    /// How the relay is doing.
    pub fn stats(&self) -> ControlStats {
        let (holder, own) = (self.services.holder(), self.shared.relay);
        ControlStats {
            links: self.shared.links.len(),
            circuits: self.circuits.len(),
            relays: self.view().len(),
            newer_count: self
                .view()
                .iter()
                .filter(|it| standing::is_newer(&it.version))
                .count(),
            is_alone: self.view().iter().all(|other| other.relay == own),
            queues: holder.queue_count(),
            records: holder.record_count(),
            record_bytes: holder.record_bytes(),
            inbox_descriptors: self.services.inbox_descriptor_count(),
            held_bytes: self.circuits.held_bytes(),
            clock_off_by: self.clock_off_by(),
            ..self.shared.stats
        }
    }

    /// How this relay stands with others. `has_failed`: whether the last dial to a relay failed, as far
    /// as the shell remembers.
    pub fn standing(&self, moment: Moment, has_failed: impl Fn(&RelayId) -> bool) -> Standing {
        standing::own(&self.shared, &self.own, self.stats(), moment, has_failed)
    }

    /// How another relay stands with this one.
    pub fn standing_of(&self, relay: &RelayId, wall: WallTime) -> OtherStanding {
        standing::other(&self.shared, self.spot.checks(), relay, wall)
    }

    /// A link is ready for circuits.
    pub fn handle_link_up(
        &mut self,
        moment: Moment,
        link: LinkId,
        up: LinkUp,
        rng: &mut dyn CryptoRng,
    ) {
        let LinkUp {
            peer,
            is_dialler,
            remote,
            hello,
        } = up;
        let mut cx = self.shared.context(moment, rng);
        let shown = hello.descriptor.as_deref();
        let shown = peer.and_then(|peer| Unverified::shown_by(&peer, shown));
        let shown = shown.and_then(|descriptor| cx.learn_shown(descriptor)); // §2.4(6)
        let is_known_relay = peer.is_some_and(|peer| cx.view().get(&peer).is_some());
        let creates = admit::create_rate(cx.params(), is_known_relay, cx.now);
        let clock = PeerClock::said(cx.now, hello.clock);
        let hop = shown.map(|descriptor| descriptor.hop_target());
        let up = links::Up {
            at: cx.now,
            peer,
            is_dialler,
            remote,
            hop,
        };
        cx.links.add(link, up, creates, clock);
        if let Some(relay) = peer {
            self.clock.handle_linked(&mut cx);
            let ended = is_dialler.then(|| self.dialling.end(&relay));
            let first = ended.as_ref().map(|dial| dial.first);
            let waiters = match ended {
                Some(dial) => dial.waiters,
                None => self.dialling.take_waiters(&relay),
            };
            for key in waiters {
                self.circuits.resume_extend(&mut cx, key, link);
            }
            self.discovery
                .handle_linked(&mut cx, &mut self.circuits, relay);
            let receipts = self.own.receipts();
            receipts.handle_linked(&mut cx, &mut self.circuits, relay);
            if let Some(first) = first {
                receipts.handle_dialled(&mut cx, relay, first);
            }
        }
        self.settle(moment, rng);
    }

    /// A link is gone, whichever side closed it, and the contents of its tables with it.
    pub fn handle_link_down(&mut self, moment: Moment, link: LinkId, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        if let Some(relay) = cx.links.remove(link) {
            cx.signal(Signal::Unlinked(relay));
        }
        self.circuits.handle_link_down(&mut cx, link);
        self.settle(moment, rng);
    }

    /// A relay could not be dialled at any of its addresses.
    pub fn handle_dial_failed(&mut self, moment: Moment, relay: RelayId, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        for key in self.dialling.end(&relay).waiters {
            self.circuits
                .refuse_extend(&mut cx, key, ExtendRefusal::Unreachable);
        }
        self.discovery
            .handle_dial_failed(&mut cx, &mut self.circuits, relay);
        self.own.receipts().handle_dial_failed(&mut cx, relay);
        self.settle(moment, rng);
    }

    /// Something came from a link.
    pub fn handle_event(
        &mut self,
        moment: Moment,
        link: LinkId,
        event: LinkEvent,
        rng: &mut dyn CryptoRng,
    ) {
        if !self.shared.links.is_open(link) {
            return; // closed by us a moment ago; its last cells are on their way
        }
        let mut cx = self.shared.context(moment, rng);
        match event {
            LinkEvent::Cell(cell) => self.circuits.handle_cell(&mut cx, link, cell),
            LinkEvent::Delivered(delivered, cell) => {
                self.circuits
                    .handle_delivered(&mut cx, link, delivered, &cell);
            }
            LinkEvent::Broken(circ, violation) => {
                self.circuits
                    .handle_violation(&mut cx, link, circ, violation);
            }
        }
        self.settle(moment, rng);
    }

    /// A handshake was answered.
    pub fn handle_work_done(&mut self, moment: Moment, done: WorkDone, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        self.circuits.handle_work_done(&mut cx, done);
        self.settle(moment, rng);
    }

    /// A dial that [`Effect::Probe`] asked for is over.
    pub fn handle_probed(
        &mut self,
        moment: Moment,
        probe: ProbeId,
        probed: Probed,
        rng: &mut dyn CryptoRng,
    ) {
        let mut cx = self.shared.context(moment, rng);
        match probe {
            ProbeId::Receipt(number) => self.services.handle_probed(&mut cx, number, probed),
            ProbeId::SpotCheck(number) => self.spot.handle_probed(&mut cx, number, probed),
        }
        self.settle(moment, rng);
    }

    /// The store did what it was asked, or could not.
    pub fn handle_stored(&mut self, moment: Moment, done: StoreDone, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        self.services.handle_stored(&mut cx, done);
        self.settle(moment, rng);
    }

    /// Runs every timer that expired by then; spurious calls do nothing.
    pub fn handle_timeout(&mut self, moment: Moment, rng: &mut dyn CryptoRng) {
        self.look_at_clock(moment, rng);
        while let Some(timer) = self.shared.timers.pop_expired(moment.now) {
            self.on_timer(moment, timer, rng);
        }
        let mut cx = self.shared.context(moment, rng);
        self.discovery.handle_timeout(&mut cx, &mut self.circuits);
        self.own.handle_timeout(&mut cx, &mut self.circuits);
        self.spot.handle_timeout(&mut cx);
        self.services.run(&mut cx);
        self.settle(moment, rng);
    }

    /// The relay is dialled at other addresses now: its descriptor is issued anew and passed on.
    ///
    /// # Errors
    /// Others would not take a descriptor with these addresses; the one before stays.
    pub fn handle_addresses(
        &mut self,
        moment: Moment,
        addresses: Vec<SocketAddr>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DescriptorFault> {
        let before = core::mem::replace(&mut self.shared.config.addresses, addresses);
        let mut cx = self.shared.context(moment, rng);
        if let Err(fault) = self.own.handle_addresses(&mut cx) {
            self.shared.config.addresses = before;
            return Err(fault);
        }
        self.settle(moment, rng);
        Ok(())
    }

    /// The operator changed settings while the relay runs. A new limit ends nothing that is already
    /// there; it refuses what is new.
    pub fn handle_tuning(&mut self, tuning: Tuning) {
        let (config, own) = (&mut self.shared.config, self.shared.relay);
        config.seeds = tuning.seeds;
        config.seeds.retain(|seed| seed.id != own);
        config.circuits_max = tuning.circuits_max;
        config.inbox_descriptors_max = tuning.inbox_descriptors_max;
        self.services.set_holder_limits(tuning.holder);
    }

    /// The relay stops: all circuits are destroyed, so that their origins know at once.
    pub fn handle_stop(&mut self, moment: Moment, rng: &mut dyn CryptoRng) {
        self.discovery.handle_stop();
        self.own.receipts().handle_stop();
        self.dialling.clear();
        let mut cx = self.shared.context(moment, rng);
        self.circuits.destroy_all(&mut cx);
        self.settle(moment, rng);
    }

    /// The next thing that the shell is to do. See [`Effect`] for the order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.shared.out.pop()
    }

    /// The next effect, if it is a cell on this link: a shell may send a run of them together.
    pub fn poll_cell_on(&mut self, link: LinkId) -> Option<Cell> {
        self.shared.out.pop_cell_on(link)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, and why.
    pub fn poll_timeout(&self) -> (Instant, Wake) {
        let (push_at, push) = self.services.poll_timeout();
        let (gossip_at, gossip) = self.discovery.poll_timeout();
        let receipt_at = self.own.receipts_due();
        let check_at = self.spot.poll_timeout();
        let machines = (push_at, Wake::Mailbox(push)).min((gossip_at, Wake::Gossip(gossip)));
        let machines = receipt_at.map_or(machines, |at| machines.min((at, Wake::Receipt)));
        let machines = check_at.map_or(machines, |at| machines.min((at, Wake::SpotCheck)));
        let timer = self.shared.timers.first();
        timer.map_or(machines, |(at, &timer)| machines.min((at, timer.into())))
    }

    fn on_timer(&mut self, moment: Moment, timer: Timer, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        match timer {
            Timer::Extend(key) => self.circuits.handle_extend_timeout(&mut cx, key),
            Timer::Exchange(id) => {
                self.discovery
                    .handle_exchange_timeout(&mut cx, &mut self.circuits, id);
            }
            Timer::Receipt(serial) => {
                let receipts = self.own.receipts();
                receipts.handle_ask_timeout(&mut cx, &mut self.circuits, serial);
            }
            Timer::Sweep => self.on_sweep(moment, rng),
        }
        self.settle(moment, rng);
    }

    /// Looks after what expires: keys, descriptors, idle circuits, unused links.
    fn on_sweep(&mut self, moment: Moment, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        cx.timers.set(Timer::Sweep, cx.now + SWEEP_INTERVAL);
        self.clock.compare(&mut cx);
        self.own.renew(&mut cx);
        cx.expire_book();
        cx.meet_linked();
        self.spot.expire(&mut cx);
        self.services.expire(&mut cx);
        self.circuits.close_idle(&mut cx);
        let unused = cx
            .links
            .sweep(UNUSED_LINK_SWEEPS, |link| self.circuits.is_unused(link));
        for link in unused {
            cx.close_link(link);
        }
    }

    fn look_at_clock(&mut self, moment: Moment, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        let jump = cx.clock.look(cx.now, cx.wall);
        if let Some(jump) = jump {
            cx.tell(News::ClockJumped(jump));
            self.on_clock_jump(moment, rng);
        }
        self.shared.context(moment, rng).store_clock();
    }

    /// The clock may have been wrong and be right now: the descriptor is issued anew, and relays
    /// whose descriptors were not believed say theirs again on a new link.
    fn on_clock_jump(&mut self, moment: Moment, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        self.clock.handle_jump();
        self.clock.compare(&mut cx); // before the links go by which it is judged
        cx.expire_book();
        self.own.reissue(&mut cx);
        let is_of_no_use = |&(link, relay): &(LinkId, RelayId)| {
            cx.view().get(&relay).is_none() && self.circuits.is_unused(link)
        };
        let links: Vec<_> = cx.links.with_relays().filter(is_of_no_use).collect();
        for (link, _) in links {
            cx.close_link(link);
        }
        self.settle(moment, rng); // discovery is to know which links are gone
        let mut cx = self.shared.context(moment, rng);
        self.discovery.sync(&mut cx, &mut self.circuits);
    }

    /// Passes on the machines' signals until there are no more.
    fn settle(&mut self, moment: Moment, rng: &mut dyn CryptoRng) {
        self.send_replies(moment, rng);
        while let Some(signal) = self.shared.signals.pop_front() {
            self.on_signal(moment, signal, rng);
        }
    }

    fn on_signal(&mut self, moment: Moment, signal: Signal, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        match signal {
            Signal::Awaits { circuit, relay } => {
                if let Err(refusal) = self.dialling.wait(&mut cx, relay, circuit) {
                    self.circuits.refuse_extend(&mut cx, circuit, refusal);
                }
            }
            Signal::GaveUp { circuit, relay } => self.dialling.forget(&relay, circuit),
            Signal::Said(circuit) => self.serve(moment, circuit, rng),
            Signal::Gone(circuit) => self.services.forget_circuit(circuit),
            Signal::OwnCell {
                errand: Errand::Exchange(exchange),
                command,
                cell,
            } => {
                let circuits = &mut self.circuits;
                self.discovery
                    .handle_cell(&mut cx, circuits, exchange, command, cell);
            }
            Signal::OwnCell {
                errand: Errand::Receipt(serial),
                command,
                cell,
            } => {
                let circuits = &mut self.circuits;
                let receipts = self.own.receipts();
                receipts.handle_cell(&mut cx, circuits, serial, command, cell);
            }
            Signal::OwnGone(Errand::Exchange(exchange)) => {
                self.discovery
                    .handle_circuit_gone(&mut cx, &mut self.circuits, exchange);
            }
            Signal::OwnGone(Errand::Receipt(serial)) => {
                self.own.receipts().handle_circuit_gone(&mut cx, serial);
            }
            Signal::Dial(relay) => {
                if self.dialling.dial(&mut cx, relay).is_err() {
                    self.discovery
                        .handle_dial_failed(&mut cx, &mut self.circuits, relay);
                }
            }
            Signal::DialOver { relay, family } => {
                if self.dialling.dial_over(&mut cx, relay, family).is_err() {
                    self.own.receipts().handle_dial_failed(&mut cx, relay);
                }
            }
            Signal::Vouched => self.own.handle_vouched(&mut cx),
            Signal::ReconcileSoon => self.discovery.handle_unvouched(&cx),
            Signal::Unlinked(relay) => self.discovery.handle_unlinked(&cx, relay),
            Signal::Learned(descriptor) => self.discovery.handle_news(&descriptor),
            Signal::Taken(relay) => self.spot.handle_taken(&mut cx, relay),
            Signal::TurnedAway(descriptor) => self.spot.handle_turned_away(&mut cx, &descriptor),
            Signal::OwnSeen(descriptor) => self.own.handle_seen(&mut cx, *descriptor),
        }
    }

    /// Passes what was said on a circuit that ends here to the services.
    fn serve(&mut self, moment: Moment, key: CircuitKey, rng: &mut dyn CryptoRng) {
        while let Some(event) = self.circuits.poll_said(key) {
            if let Err(violation) = self.serve_event(moment, key, event, rng) {
                let mut cx = self.shared.context(moment, rng);
                self.circuits.break_circuit(&mut cx, key, violation);
            }
            self.send_replies(moment, rng);
        }
        let mut cx = self.shared.context(moment, rng);
        self.services.run(&mut cx);
        self.send_replies(moment, rng);
        let mut cx = self.shared.context(moment, rng);
        self.circuits.flush(&mut cx, key);
    }

    fn serve_event(
        &mut self,
        moment: Moment,
        circuit: CircuitKey,
        event: TerminalEvent,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), Violation> {
        match event {
            TerminalEvent::Request {
                is_first: false, ..
            } => Err(Violation::Stream), // §7.2(7)
            TerminalEvent::Request {
                stream,
                service,
                frame,
                fin,
                is_first: true,
            } => {
                let Some((link, binding)) = self.circuits.terminal_of(circuit) else {
                    return Ok(());
                };
                let request = Request {
                    circuit,
                    stream,
                    link,
                    service,
                    frame: &frame,
                    fin,
                    binding: &binding,
                };
                let mut cx = self.shared.context(moment, rng);
                self.services.handle_request(&mut cx, &request)
            }
            TerminalEvent::StreamEnded { stream, reset } => {
                if !self.services.handle_stream_ended(circuit, stream, reset) {
                    self.circuits.finish(circuit, stream);
                }
                Ok(())
            }
        }
    }

    fn send_replies(&mut self, moment: Moment, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        while let Some(reply) = self.services.poll_reply() {
            let (circuit, stream) = (reply.circuit, reply.stream);
            let sent = self
                .circuits
                .reply(&mut cx, circuit, stream, &reply.frame, reply.fin);
            if sent.is_err() {
                self.services.forget_stream(circuit, stream);
            }
        }
    }
}
