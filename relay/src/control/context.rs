//! The surroundings in which every machine of the control plane acts: time, randomness, what is
//! known, and the queues for effects.
//!
//! Machines don't know each other, except that discovery and `own::receipts` drive circuits of one
//! hop through `Circuits`. A machine sends another a [`Signal`], which [`Control`](super::Control) passes on
//! before the call that caused it returns.

use std::collections::VecDeque;

use rand::CryptoRng;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::directory::receipts::{Probe, ProbeId};
use umbel_proto::directory::{
    Book, Inserted, Listing, NetView, NotLearned, Source, Unverified, VerifiedDescriptor,
};
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::link::{LinkId, LinkOp};
use umbel_proto::network::{Family, Params};
use umbel_proto::time::{ClockGuard, Instant, Moment, WallTime};

use super::ControlConfig;
use super::circuits::CircuitKey;
use super::io::{ControlStats, Effect, News, StoreOp, Work};
use super::links::Links;
use super::one_hop::Errand;
use super::timers::Timers;
use crate::forward::TableUpdate;

/// State that all machines share.
pub(super) struct Shared {
    pub(super) config: ControlConfig,
    /// Who this relay is.
    pub(super) relay: RelayId,
    pub(super) book: Book,
    pub(super) links: Links,
    /// How far to believe the calendar.
    pub(super) clock: ClockGuard,
    pub(super) timers: Timers,
    pub(super) stats: ControlStats,
    pub(super) signals: VecDeque<Signal>,
    pub(super) out: Out,
}

/// What a descriptor that was passed on was worth, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is news, and was taken.
    News,
    /// It was not taken, and no signature was checked.
    Cheap,
    /// Signatures were checked, or will be, and it was not taken.
    Checked,
    /// A signature is wrong, which nobody passes on who checks what comes (§8.3(6)).
    Forged,
}

/// Effects that were not polled yet.
#[derive(Default)]
pub(super) struct Out {
    pub(super) tables: VecDeque<(LinkId, TableUpdate<LinkId>)>,
    pub(super) cells: VecDeque<(LinkId, Cell)>,
    pub(super) links: VecDeque<LinkOp>,
    pub(super) work: VecDeque<Work>,
    pub(super) probes: VecDeque<(ProbeId, Probe)>,
    pub(super) store: VecDeque<StoreOp>,
    pub(super) news: VecDeque<News>,
}

impl Out {
    /// The order in which a shell does what is wanted: the one place that states it.
    pub(super) fn pop(&mut self) -> Option<Effect> {
        let table = |(link, update)| Effect::Table(link, update);
        let cell = |(link, cell)| Effect::Cell(link, cell);
        let next = self.tables.pop_front().map(table);
        let next = next.or_else(|| self.cells.pop_front().map(cell));
        let next = next.or_else(|| self.links.pop_front().map(Effect::Link));
        let next = next.or_else(|| self.work.pop_front().map(Effect::Work));
        let probe = |(id, probe)| Effect::Probe(id, probe);
        let next = next.or_else(|| self.probes.pop_front().map(probe));
        let next = next.or_else(|| self.news.pop_front().map(Effect::News));
        next.or_else(|| self.store.pop_front().map(Effect::Store))
    }

    pub(super) fn pop_cell_on(&mut self, link: LinkId) -> Option<Cell> {
        let is_next = |(on, _): &mut (LinkId, Cell)| self.tables.is_empty() && *on == link;
        self.cells.pop_front_if(is_next).map(|(_, cell)| cell)
    }
}

/// A message from one machine to another.
pub(super) enum Signal {
    /// A circuit waits for a link to this relay.
    Awaits { circuit: CircuitKey, relay: RelayId },
    /// It no longer does.
    GaveUp { circuit: CircuitKey, relay: RelayId },
    /// Something was said on a circuit that ends here.
    Said(CircuitKey),
    /// A circuit that ended here is gone: nobody waits for its answers.
    Gone(CircuitKey),
    /// A cell came on a circuit of our own.
    OwnCell {
        errand: Errand,
        command: Command,
        cell: Cell,
    },
    /// A circuit of our own is gone.
    OwnGone(Errand),
    /// Discovery wants a link to this relay.
    Dial(RelayId),
    /// A receipt is to be asked for, over a link of this address family.
    DialOver { relay: RelayId, family: Family },
    /// There is a new receipt of an address of ours.
    Vouched,
    /// Who vouches for a descriptor that was refused, or for this relay, may be about to come into
    /// view.
    ReconcileSoon,
    /// There is no open link to this relay any more.
    Unlinked(RelayId),
    /// A descriptor was news to the book.
    Learned(Vec<u8>),
    /// It was another relay's.
    Taken(RelayId),
    /// A descriptor is remembered as turned away: another relay is at one of its addresses.
    TurnedAway(Box<VerifiedDescriptor>),
    /// A peer sent a descriptor of this relay.
    OwnSeen(Box<Unverified>),
}

/// A [`Shared`], borrowed for one call.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) wall: WallTime,
    pub(super) config: &'a ControlConfig,
    pub(super) relay: RelayId,
    pub(super) book: &'a mut Book,
    pub(super) links: &'a mut Links,
    pub(super) clock: &'a mut ClockGuard,
    pub(super) timers: &'a mut Timers,
    pub(super) stats: &'a mut ControlStats,
    pub(super) signals: &'a mut VecDeque<Signal>,
    pub(super) out: &'a mut Out,
    pub(super) rng: &'a mut dyn CryptoRng,
}

impl Shared {
    /// Leaves the machines free, which are no part of it.
    pub(super) fn context<'a>(
        &'a mut self,
        moment: Moment,
        rng: &'a mut dyn CryptoRng,
    ) -> Context<'a> {
        Context {
            now: moment.now,
            wall: moment.wall,
            config: &self.config,
            relay: self.relay,
            book: &mut self.book,
            links: &mut self.links,
            clock: &mut self.clock,
            timers: &mut self.timers,
            stats: &mut self.stats,
            signals: &mut self.signals,
            out: &mut self.out,
            rng,
        }
    }
}

impl Context<'_> {
    pub(super) const fn params(&self) -> &Params {
        &self.config.network.params
    }

    pub(super) const fn view(&self) -> &NetView {
        self.book.view()
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        self.signals.push_back(signal);
    }

    pub(super) fn store(&mut self, op: StoreOp) {
        self.out.store.push_back(op);
    }

    pub(super) fn tell(&mut self, news: News) {
        self.out.news.push_back(news);
    }

    /// This relay as a source: its links show where it is. `None` if what it lists doesn't count: it
    /// is in no view, or not where its descriptor says (§8.2(3)).
    pub(super) fn source(&self, relay: &RelayId) -> Option<Source> {
        let known = self.view().get(relay)?;
        let network = &self.config.network;
        let mut remotes = self.links.remotes(relay);
        remotes.find_map(|it| Source::linked(network, known, it.ip()))
    }

    /// Takes a descriptor that was passed on into the book, if it is valid, news and vouched for: it
    /// is then stored and passed on.
    /// A `source` lists it (§8.2(3)).
    pub(super) fn learn(&mut self, source: Option<&Source>, descriptor: Unverified) -> Heard {
        if descriptor.relay() == self.relay {
            self.signal(Signal::OwnSeen(Box::new(descriptor)));
            return Heard::Checked;
        }
        let network = &self.config.network;
        let heard = self
            .book
            .hear(network, self.wall, source, descriptor, self.rng);
        self.store_book();
        match heard {
            Ok(learned) if learned.is_news() => {
                self.pass_on(&learned.descriptor);
                Heard::News
            }
            Ok(learned) if learned.inserted == Inserted::Stale => Heard::Cheap,
            Ok(_) => Heard::Checked,
            Err(NotLearned::Unvouched) => {
                self.signal(Signal::ReconcileSoon);
                Heard::Cheap
            }
            Err(NotLearned::TooSoon | NotLearned::TurnedAway | NotLearned::AddressTaken(None)) => {
                Heard::Cheap
            }
            Err(NotLearned::AddressTaken(Some(descriptor))) => {
                self.signal(Signal::TurnedAway(descriptor));
                Heard::Checked
            }
            Err(fault) if fault.is_forged() => Heard::Forged,
            Err(NotLearned::Fault(_)) => Heard::Checked,
        }
    }

    /// A reconciliation showed which relays its source lists.
    pub(super) fn handle_listing(&mut self, listing: &Listing) {
        if let Some(source) = self.source(&listing.source) {
            self.book.handle_listing(&source, listing);
            self.store_book();
        }
    }

    /// Takes the descriptor that a linked relay showed of itself, as [`Self::learn`] does. Returns it
    /// if it is valid.
    pub(super) fn learn_shown(&mut self, descriptor: Unverified) -> Option<VerifiedDescriptor> {
        let network = &self.config.network;
        let shown = self
            .book
            .learn_shown(network, self.wall, descriptor, self.rng);
        self.store_book();
        let shown = shown.ok()?;
        if shown.is_news() {
            self.pass_on(&shown.descriptor);
        }
        Some(shown.descriptor)
    }

    fn pass_on(&mut self, news: &VerifiedDescriptor) {
        self.signal(Signal::Learned(news.bytes().to_vec()));
        self.signal(Signal::Taken(news.relay));
    }

    /// Moves dead descriptors out of the view, and back into it those that a corrected clock calls
    /// alive.
    pub(super) fn expire_book(&mut self) {
        let confirmed = self.clock.confirmed();
        self.book.expire(&self.config.network, self.wall, confirmed);
        self.store_book();
    }

    /// Relays that are linked, and where their descriptors say, are met (§8.2(12)).
    pub(super) fn meet_linked(&mut self) {
        let linked = self.links.relays().copied();
        let is_there = |it: &RelayId| self.view().is_unmet(it) && self.source(it).is_some();
        let met: Vec<RelayId> = linked.filter(is_there).collect();
        met.iter().for_each(|relay| self.book.meet(relay));
        self.store_book();
    }

    fn store_book(&mut self) {
        while let Some(op) = self.book.poll_op() {
            self.store(StoreOp::Book(op));
        }
    }

    /// Stores what is known of this machine's clock, if that changed.
    pub(super) fn store_clock(&mut self) {
        if let Some(state) = self.clock.take_state() {
            self.store(StoreOp::PutClock(state));
        }
    }

    /// Sends `Destroy` for a circuit and removes it from its link's table.
    pub(super) fn send_destroy(&mut self, link: LinkId, circ: CircId, reason: DestroyReason) {
        if self.links.contains(link) {
            self.out.tables.push_back((link, TableUpdate::Remove(circ)));
            self.out
                .cells
                .push_back((link, Cell::destroy(circ, reason)));
        }
    }

    /// Closes a link: nothing that comes from it counts any more, and nothing new goes over it.
    pub(super) fn close_link(&mut self, link: LinkId) {
        if let Some(relay) = self.links.begin_close(link) {
            self.signal(Signal::Unlinked(relay));
        }
        self.out.links.push_back(LinkOp::Close(link));
    }

    /// Closes a link whose peer broke a rule.
    pub(super) fn break_link(&mut self, link: LinkId) {
        self.stats.violations += 1;
        self.close_link(link);
    }
}
