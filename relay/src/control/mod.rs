//! The control plane of a relay: one state machine for links, circuits, extending, services,
//! discovery and admission.
//!
//! It installs and removes what the forwarding plane works by, and never sees a cell that only
//! passes. No IO: cells, time, randomness and completions come in by `handle_*`, effects go out by
//! `poll_*`. Rules: docs/protocol.md §4 (circuits on a link), §6 (extend), §7 (streams), §8
//! (directory), §10 (mailboxes).

mod admit;
mod circuits;
mod clock;
mod discover;
mod extend;
pub mod io;
mod keys;
mod links;
mod own;
mod serve;
mod timers;
mod upkeep;

use std::collections::VecDeque;
use std::net::SocketAddr;

use rand::CryptoRng;
use umbel_proto::cell::{Cell, DestroyReason};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::descriptor::Roles;
use umbel_proto::directory::{Book, NetView};
use umbel_proto::ids::{CircId, Peer, RelayId};
use umbel_proto::inbox::holder::{Holder, HolderLimits};
use umbel_proto::link::{Hello, LinkId, LinkOp};
use umbel_proto::network::Network;
use umbel_proto::time::{Instant, PeerClock, WallTime};

use crate::forward::{LinkEvent, TableUpdate};
use circuits::Circuits;
use clock::Clock;
use discover::Discovery;
use io::{Effect, LinkUp, News, Restored, StoreDone, StoreOp, Work, WorkDone};
use keys::OnionKeys;
use links::Links;
use own::OwnDescriptor;
use serve::Services;
use timers::{Timer, Timers};

pub use keys::Responder;

/// What a relay is told at its start.
#[expect(missing_debug_implementations, reason = "holds the identity key")]
pub struct ControlConfig {
    /// The network it belongs to.
    pub network: Network,
    /// Who it is.
    pub identity: SigningKey,
    /// Where it can be dialled; goes into its descriptor.
    pub addresses: Vec<SocketAddr>,
    /// What it does for others.
    pub roles: Roles,
    /// Peers to join through.
    pub seeds: Vec<Peer>,
    /// Limits of its mailboxes.
    pub holder: HolderLimits,
    /// Most circuits through it at once.
    pub circuits_max: usize,
    /// Most bytes of frames that are not yet sent, or not yet whole, on all circuits that end here.
    pub frames_bytes_max: usize,
    /// Most inbox descriptors it keeps.
    pub inbox_descriptors_max: usize,
}

/// What an operator may change while the relay runs.
#[derive(Debug)]
pub struct Tuning {
    /// Peers to join through.
    pub seeds: Vec<Peer>,
    /// Limits of its mailboxes.
    pub holder: HolderLimits,
    /// Most circuits through it at once.
    pub circuits_max: usize,
    /// Most inbox descriptors it keeps.
    pub inbox_descriptors_max: usize,
}

/// How a relay is doing. Nothing in it tells one user from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlStats {
    /// Links that are up.
    pub links: usize,
    /// Circuits of others that pass or end here.
    pub circuits: usize,
    /// Relays in the view.
    pub relays: usize,
    /// Mailbox queues kept.
    pub queues: usize,
    /// Records in these queues.
    pub records: usize,
    /// Bytes of these records.
    pub record_bytes: u64,
    /// Inbox descriptors kept.
    pub inbox_descriptors: usize,
    /// How far the clocks of other relays are ahead, seconds, while that is more than the network
    /// bears.
    pub clock_off_by: Option<i64>,
    /// Descriptors of this relay that another process issued: two relays have one identity.
    pub twins: u64,
    /// Circuits made so far.
    pub created: u64,
    /// Circuits refused for want of room or at the rate limit.
    pub refused: u64,
    /// Circuits and links closed because a rule was broken.
    pub violations: u64,
    /// Cells for circuits that were just gone.
    pub stale_cells: u64,
}

/// The control plane of one relay.
///
/// After any `handle_*`, drain [`poll_effect`](Self::poll_effect), then ask
/// [`poll_timeout`](Self::poll_timeout).
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct Control {
    config: ControlConfig,
    keys: OnionKeys,
    relay: RelayId,
    descriptor: OwnDescriptor,
    clock: Clock,
    book: Book,
    links: Links,
    circuits: Circuits,
    services: Services,
    discovery: Discovery,
    timers: Timers,
    twins: own::Twins,
    stats: ControlStats,
    out: Out,
}

/// Effects not yet polled.
#[derive(Default)]
struct Out {
    tables: VecDeque<(LinkId, TableUpdate<LinkId>)>,
    cells: VecDeque<(LinkId, Cell)>,
    links: VecDeque<LinkOp>,
    work: VecDeque<Work>,
    store: VecDeque<StoreOp>,
    news: VecDeque<News>,
}

impl Out {
    /// The order in which a shell does what is wanted: the one place that states it.
    fn pop(&mut self) -> Option<Effect> {
        let table = |(link, update)| Effect::Table(link, update);
        let cell = |(link, cell)| Effect::Cell(link, cell);
        let next = self.tables.pop_front().map(table);
        let next = next.or_else(|| self.cells.pop_front().map(cell));
        let next = next.or_else(|| self.links.pop_front().map(Effect::Link));
        let next = next.or_else(|| self.work.pop_front().map(Effect::Work));
        let next = next.or_else(|| self.news.pop_front().map(Effect::News));
        next.or_else(|| self.store.pop_front().map(Effect::Store))
    }

    fn pop_cell_on(&mut self, link: LinkId) -> Option<Cell> {
        let is_next = |(on, _): &mut (LinkId, Cell)| self.tables.is_empty() && *on == link;
        self.cells.pop_front_if(is_next).map(|(_, cell)| cell)
    }
}

impl Control {
    /// A relay that takes up where it left.
    pub fn new(
        config: ControlConfig,
        restored: Restored,
        now: Instant,
        wall: WallTime,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let Restored {
            onion_keys,
            relays,
            inbox_descriptors,
            queues,
            clock,
        } = restored;
        let (clock, news) = Clock::restore(clock.as_deref(), now, wall);
        let mut out = Out {
            news: news.into_iter().collect(),
            ..Out::default()
        };
        let keys = OnionKeys::restore(onion_keys, wall, rng, &mut out.store);
        let relay = RelayId::from(config.identity.public());
        let descriptor = own::issue_descriptor(&config, &keys, wall, rng);
        let book = Book::restore(&config.network, relays, wall);
        let holder = Holder::restore(config.network.id, relay, config.holder, queues);
        let services = Services::restore(holder, inbox_descriptors);
        let mut control = Self {
            config,
            keys,
            relay,
            descriptor,
            clock,
            book,
            links: Links::default(),
            circuits: Circuits::default(),
            services,
            discovery: Discovery::default(),
            timers: Timers::default(),
            twins: own::Twins::default(),
            stats: ControlStats::default(),
            out,
        };
        control.view_own_descriptor(wall);
        control.store_clock();
        control.timers.set(now, Timer::Sync);
        control.timers.set(now, Timer::Rumour);
        control
            .timers
            .set(now + upkeep::SWEEP_INTERVAL, Timer::Sweep);
        control
    }

    /// Who this relay is.
    pub fn relay_id(&self) -> RelayId {
        self.relay
    }

    /// This relay's own descriptor, as it is passed on.
    pub fn descriptor(&self) -> &[u8] {
        &self.descriptor.bytes
    }

    /// The relays this one believes in.
    pub fn view(&self) -> &NetView {
        self.book.view()
    }

    /// The queues kept here.
    pub fn holder(&self) -> &Holder {
        self.services.holder()
    }

    /// What this relay says first on a link.
    pub fn hello(&self, wall: WallTime) -> Hello {
        Hello {
            versions: vec![umbel_proto::link::LINK_VERSION],
            network: self.config.network.id,
            clock: wall,
            features: 0,
            descriptor: Some(self.descriptor.bytes.clone()),
        }
    }

    /// Answers handshakes, on any thread. Ask anew for each: onion keys change.
    pub fn responder(&self) -> Responder {
        self.keys.responder(self.config.network.id, self.relay_id())
    }

    /// How many ends of circuits there are, on all links together.
    pub fn end_count(&self) -> usize {
        self.circuits.end_count()
    }

    /// Checks what must hold between any two calls; for the simulator.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), String> {
        self.circuits.check()?;
        self.services.check()?;
        self.check_extends()?;
        self.services
            .holder()
            .invariants()
            .map_err(|broken| format!("mailboxes: {broken:?}"))
    }

    /// How the relay is doing.
    pub fn stats(&self) -> ControlStats {
        ControlStats {
            links: self.links.len(),
            circuits: self.circuits.len(),
            relays: self.book.view().len(),
            queues: self.services.holder().queue_count(),
            records: self.services.holder().record_count(),
            record_bytes: self.services.holder().record_bytes(),
            inbox_descriptors: self.services.inbox_descriptor_count(),
            clock_off_by: self.clock_off_by(),
            ..self.stats
        }
    }

    /// A link is ready for circuits.
    pub fn handle_link_up(
        &mut self,
        now: Instant,
        wall: WallTime,
        link: LinkId,
        up: LinkUp,
        rng: &mut dyn CryptoRng,
    ) {
        let LinkUp {
            peer,
            is_dialler,
            hello,
        } = up;
        let peers_clock = hello.clock;
        if let (Some(peer), Some(bytes)) = (peer, hello.descriptor) {
            self.learn_peer(now, wall, peer, &bytes);
        }
        let is_known_relay = peer.is_some_and(|peer| self.view().get(&peer).is_some());
        let creates = admit::CreateLimit::new(&self.config.network.params, is_known_relay, now);
        self.links.add(
            link,
            peer,
            is_dialler,
            creates,
            PeerClock::said(now, peers_clock),
        );
        if let Some(peer) = peer {
            self.judge_clock_soon(now, wall);
            self.on_relay_linked(now, link, peer, rng);
        }
    }

    /// A link is gone, whoever closed it. What the tables of links that are gone held is gone too.
    pub fn handle_link_down(&mut self, link: LinkId) {
        self.links.remove(link);
        for (circ, end) in self.circuits.take_link(link) {
            self.on_end_lost(link, circ, end, DestroyReason::Link);
        }
    }

    /// A relay could not be dialled at any of its addresses.
    pub fn handle_dial_failed(&mut self, relay: RelayId) {
        self.on_dial_failed(relay);
    }

    /// Something came from a link.
    pub fn handle_event(
        &mut self,
        now: Instant,
        wall: WallTime,
        link: LinkId,
        event: LinkEvent,
        rng: &mut dyn CryptoRng,
    ) {
        if !self.links.is_open(link) {
            return; // closed by us a moment ago; its last cells are on their way
        }
        match event {
            LinkEvent::Cell(cell) => self.on_cell(now, wall, link, cell, rng),
            LinkEvent::Delivered(delivered, cell) => {
                self.on_delivered(now, wall, link, delivered, &cell);
            }
            LinkEvent::Broken(circ, violation) => self.on_violation(link, circ, violation),
        }
    }

    /// A handshake was answered.
    pub fn handle_work_done(&mut self, now: Instant, done: WorkDone) {
        self.on_work_done(now, done);
    }

    /// The store did what it was asked, or could not.
    pub fn handle_stored(
        &mut self,
        now: Instant,
        wall: WallTime,
        done: StoreDone,
        rng: &mut dyn CryptoRng,
    ) {
        self.on_stored(now, wall, done, rng);
    }

    /// Runs every timer that expired by `now`; spurious calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant, wall: WallTime, rng: &mut dyn CryptoRng) {
        self.look_at_clock(now, wall, rng);
        while let Some(timer) = self.timers.pop_expired(now) {
            self.on_timer(now, wall, timer, rng);
        }
        self.run_holder(now, wall);
    }

    /// The relay stops: all circuits are destroyed, so that their origins know at once.
    pub fn handle_stop(&mut self) {
        let (ends, circuits) = self.circuits.take_all();
        for (link, circ) in ends {
            self.send_destroy(link, circ, DestroyReason::Finished);
        }
        for key in circuits {
            self.services.forget_circuit(key);
        }
        self.discovery.forget_all();
    }

    /// The next thing that the shell is to do. See [`Effect`] for the order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.pop()
    }

    /// The next effect, if it is a cell on this link: a shell may send a run of them together.
    pub fn poll_cell_on(&mut self, link: LinkId) -> Option<Cell> {
        self.out.pop_cell_on(link)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let holder = self.services.holder().poll_timeout();
        Some(self.timers.next().map_or(holder, |at| at.min(holder)))
    }

    fn on_timer(&mut self, now: Instant, wall: WallTime, timer: Timer, rng: &mut dyn CryptoRng) {
        match timer {
            Timer::Extend(key) => self.on_extend_timeout(now, key),
            Timer::Session(id) => self.on_session_timeout(id),
            Timer::Sync => self.on_sync_timer(now, rng),
            Timer::Rumour => self.on_rumour_timer(now, rng),
            Timer::Sweep => self.on_sweep(now, wall, rng),
        }
    }

    fn send_destroy(&mut self, link: LinkId, circ: CircId, reason: DestroyReason) {
        if self.links.contains(link) {
            self.out.tables.push_back((link, TableUpdate::Remove(circ)));
            self.out
                .cells
                .push_back((link, Cell::destroy(circ, reason)));
        }
    }

    fn close_link(&mut self, link: LinkId) {
        self.stats.violations += 1;
        self.links.begin_close(link);
        self.out.links.push_back(LinkOp::Close(link));
    }
}
