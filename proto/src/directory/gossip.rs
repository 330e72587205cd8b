//! How relays find each other: whom a relay reconciles its view with and when, and which news it
//! passes on (docs/protocol.md §8.3).
//!
//! Owns no book, no link and no circuit, so that it runs without a relay. Its driver makes the
//! links, carries the requests, and takes what was learned into the book before the next call.
//! Everything here is bounded: exchanges, rumours, and awaited relays by what is dialled at once.
//! News stays until a relay has answered it: it is queued, or in a batch that an exchange carries.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::seq::IteratorRandom;
use rand::{CryptoRng, RngExt};
use serde_bytes::ByteBuf;

use super::book::Book;
use super::choice::{self, Candidates, Exclude};
use super::descriptor::{Roles, Unverified};
use super::listing::{Listing, Mark};
use super::reconcile::{SyncFault, SyncStep, Syncer};
use super::service::{DirectoryRefusal, DirectoryReply, DirectoryRequest};
use super::sync_peers::SyncPeers;
use super::view::NetView;
use crate::ids::{Peer, RelayId};
use crate::limits::{
    ALONE_INTERVAL, ALONE_RELAYS, FEELER_AGAIN, FEELER_INTERVAL, RUMOUR_DELAY_MAX, RUMOUR_FANOUT,
    RUMOURS_MAX, SYNC_BYTES_MAX, SYNC_DESCRIPTORS_MAX,
};
use crate::network::Network;
use crate::time::{Duration, Instant, WallTime};

/// An exchange that takes longer is given up.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most exchanges at once.
const EXCHANGES_MAX: usize = 32;

/// Names one exchange of requests and replies with one relay; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId(u64);

/// An effect that the machine asks for.
#[derive(Debug)]
pub enum Out {
    /// Make a link to this relay; answered by [`Gossip::handle_linked`] or
    /// [`Gossip::handle_dial_failed`].
    Dial(RelayId),
    /// Make a circuit of one hop to this linked relay; answered by [`Gossip::handle_connected`] or
    /// [`Gossip::handle_failed`].
    Connect {
        /// For which exchange.
        exchange: ExchangeId,
        /// To whom.
        relay: RelayId,
        /// When the exchange fails if it is not over by then.
        due_at: Instant,
    },
    /// Ask the directory service at the end of this exchange's circuit; answered by
    /// [`Gossip::handle_reply`] or [`Gossip::handle_failed`].
    Ask(ExchangeId, DirectoryRequest),
    /// Take this descriptor into the book if it is valid.
    Learned {
        /// Who passed it on.
        source: RelayId,
        /// With which exchange: say if it is forged.
        exchange: ExchangeId,
        /// The descriptor.
        descriptor: Box<Unverified>,
    },
    /// A reconciliation came to its end: tell the book what the other side lists.
    Listed(Box<Listing>),
    /// Keep these anchors and no others: the next [`Gossip::new`] is to get them.
    Anchors(Vec<RelayId>),
    /// An exchange is over.
    Done(ExchangeId),
    /// An exchange is over because the other side broke a rule: destroy its circuit (§8.3(6)).
    Broken(ExchangeId, SyncFault),
}

/// Why the machine wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A reconciliation is due.
    Sync,
    /// One with a relay without a link is due.
    Feeler,
    /// News is passed on.
    Rumour,
}

/// The facts that the machine decides by.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its network.
    pub network: &'a Network,
    /// The relays it knows, itself among them.
    pub book: &'a Book,
    /// Peers to join through.
    pub seeds: &'a [Peer],
    /// The time by the calendar.
    pub wall: WallTime,
}

/// A relay's part in the gossip of its network.
///
/// After each `handle_*` drain [`Gossip::poll_out`]; [`Gossip::poll_timeout`] last.
#[derive(Debug)]
pub struct Gossip {
    own: RelayId,
    linked: BTreeSet<RelayId>,
    peers: SyncPeers,
    /// As they were last stored.
    anchors: Vec<RelayId>,
    /// Relays to reconcile with once they are linked.
    awaited: BTreeSet<RelayId>,
    exchanges: BTreeMap<ExchangeId, Exchange>,
    next_exchange: u64,
    /// News that no exchange carries, oldest first.
    rumours: VecDeque<ByteBuf>,
    /// News that exchanges carry; at least one exchange for each batch.
    batches: BTreeMap<BatchId, Batch>,
    next_batch: u64,
    sync_at: Instant,
    /// How soon a reconciliation comes that is due early.
    early_pause: Duration,
    /// The last reconciliation left a cause for an early one.
    is_early: bool,
    feeler_at: Instant,
    /// Whether the last one went to a relay to be met, if there was any.
    is_meeting: bool,
    /// Relays that were to be met, and when: one that is not there is not dialled again soon.
    tried: BTreeMap<RelayId, Instant>,
    rumour_at: Instant,
    out: VecDeque<Out>,
}

#[derive(Debug)]
struct Exchange {
    relay: RelayId,
    state: State,
}

/// Names news that goes to a few relays at once; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct BatchId(u64);

#[derive(Debug)]
struct Batch {
    news: Vec<ByteBuf>,
    /// How many exchanges with it are not over.
    exchange_count: usize,
    /// Whether a relay has answered it.
    is_told: bool,
}

/// How far an exchange is.
#[derive(Debug)]
enum State {
    /// Reconciles once its circuit is there: only then is the digest taken, so that it is as fresh
    /// as can be.
    ToSync,
    /// Passes on this news once its circuit is there.
    ToPush(BatchId),
    Syncing(Box<Syncer>, Mark),
    Pushing(BatchId),
}

impl State {
    const fn is_push(&self) -> bool {
        self.batch().is_some()
    }

    const fn batch(&self) -> Option<BatchId> {
        match self {
            Self::ToPush(batch) | Self::Pushing(batch) => Some(*batch),
            Self::ToSync | Self::Syncing(..) => None,
        }
    }
}

impl Gossip {
    /// A relay that has no link yet, with the anchors that it had; its first reconciliation is due
    /// at once.
    pub fn new(own: RelayId, anchors: Vec<RelayId>, now: Instant) -> Self {
        Self {
            own,
            linked: BTreeSet::new(),
            peers: SyncPeers::new(own, anchors.clone()),
            anchors,
            awaited: BTreeSet::new(),
            exchanges: BTreeMap::new(),
            next_exchange: 0,
            rumours: VecDeque::new(),
            batches: BTreeMap::new(),
            next_batch: 0,
            sync_at: now,
            early_pause: ALONE_INTERVAL,
            is_early: false,
            feeler_at: now + FEELER_INTERVAL,
            is_meeting: false,
            tried: BTreeMap::new(),
            rumour_at: now,
            out: VecDeque::new(),
        }
    }

    /// A link with this relay is up, dialled by either side.
    pub fn handle_linked(&mut self, now: Instant, relay: RelayId, known: Known<'_>) {
        self.linked.insert(relay);
        if self.awaited.remove(&relay) {
            self.begin(now, relay, known, State::ToSync);
        }
    }

    /// There is no link with this relay any more. If it was the last one, the next try comes early.
    pub fn handle_unlinked(&mut self, now: Instant, relay: RelayId, known: Known<'_>) {
        self.linked.remove(&relay);
        if self.is_alone(known) {
            self.sync_at = self.sync_at.min(now + ALONE_INTERVAL); // §8.3(9), §8.3(11)
        }
    }

    /// This relay can't be dialled.
    pub fn handle_dial_failed(&mut self, relay: RelayId, known: Known<'_>) {
        if self.awaited.remove(&relay) {
            self.on_sync_failed(relay);
            self.store_anchors(known);
        }
    }

    /// The circuit of an exchange is there.
    pub fn handle_connected(&mut self, exchange: ExchangeId, known: Known<'_>) {
        let Some(Exchange { state, .. }) = self.exchanges.get_mut(&exchange) else {
            return; // given up a moment ago
        };
        let request = match state {
            State::ToSync => {
                let (syncer, request) = Syncer::begin(known.book.view());
                *state = State::Syncing(Box::new(syncer), known.book.mark());
                request
            }
            &mut State::ToPush(batch) => {
                *state = State::Pushing(batch);
                let news = self.batches.get(&batch).map(|batch| batch.news.clone());
                DirectoryRequest::Push(news.unwrap_or_default())
            }
            State::Syncing(..) | State::Pushing(_) => return,
        };
        self.out.push_back(Out::Ask(exchange, request));
    }

    /// The last request of an exchange was answered.
    pub fn handle_reply(
        &mut self,
        now: Instant,
        exchange: ExchangeId,
        reply: DirectoryReply,
        known: Known<'_>,
    ) {
        let Some(Exchange { relay, state }) = self.exchanges.get_mut(&exchange) else {
            return; // given up a moment ago
        };
        match (state, reply) {
            (State::Syncing(syncer, _), reply) => {
                let relay = *relay;
                let step = syncer.on_reply(known.book.view(), reply);
                match step {
                    Ok(step) => self.on_step(exchange, relay, step),
                    Err(SyncFault::Refused(refusal)) => {
                        self.on_refused(now, relay, refusal, known);
                        self.end(exchange, Out::Done(exchange));
                    }
                    Err(fault) => self.on_fault(exchange, fault, known),
                }
                self.store_anchors(known);
            }
            (State::Pushing(batch), DirectoryReply::Pushed { .. }) => {
                if let Some(batch) = self.batches.get_mut(batch) {
                    batch.is_told = true;
                }
                self.end(exchange, Out::Done(exchange));
            }
            (State::Pushing(_), DirectoryReply::Refused(_)) => {
                self.end(exchange, Out::Done(exchange));
            }
            (State::Pushing(_) | State::ToSync | State::ToPush(_), _) => {
                self.on_fault(exchange, SyncFault::Unexpected, known);
            }
        }
    }

    fn on_step(&mut self, exchange: ExchangeId, relay: RelayId, step: SyncStep) {
        let received = step.received.into_iter().map(Box::new);
        let learned = received.map(|descriptor| Out::Learned {
            source: relay,
            exchange,
            descriptor,
        });
        self.out.extend(learned);
        match step.request {
            Some(request) => self.out.push_back(Out::Ask(exchange, request)),
            None => {
                self.peers.handle_answered(relay);
                self.on_synced(exchange);
            }
        }
    }

    /// Somebody else may have used up what a busy relay answers, so that its peers leave it: another
    /// is asked in the meantime (§8.3(9)).
    fn on_refused(
        &mut self,
        now: Instant,
        relay: RelayId,
        refusal: DirectoryRefusal,
        known: Known<'_>,
    ) {
        if refusal == DirectoryRefusal::Busy {
            self.peers.handle_busy(relay);
            self.sync_early(now, known);
        } else {
            self.on_sync_failed(relay);
        }
    }

    fn on_fault(&mut self, exchange: ExchangeId, fault: SyncFault, known: Known<'_>) {
        self.handle_broken(exchange, known);
        self.out.push_back(Out::Broken(exchange, fault));
    }

    /// A reconciliation came to its end.
    fn on_synced(&mut self, exchange: ExchangeId) {
        if let Some(Exchange {
            relay,
            state: State::Syncing(syncer, mark),
        }) = self.exchanges.remove(&exchange)
        {
            self.out.push_back(Out::Listed(Box::new(Listing {
                source: relay,
                mark,
                lacking: syncer.into_lacking(),
            })));
        }
        self.out.push_back(Out::Done(exchange));
    }

    /// An exchange has failed: it has no circuit any more, or is not over in time.
    pub fn handle_failed(&mut self, exchange: ExchangeId, known: Known<'_>) {
        let removed = self.remove(exchange);
        if let Some(Exchange { relay, .. }) = removed.filter(|it| !it.state.is_push()) {
            self.on_sync_failed(relay);
            self.store_anchors(known);
        }
    }

    /// The relay of this exchange broke a rule, of directories or of circuits (§8.3(9)): the exchange
    /// has no circuit any more.
    pub fn handle_broken(&mut self, exchange: ExchangeId, known: Known<'_>) {
        if let Some(Exchange { relay, .. }) = self.remove(exchange) {
            self.peers.handle_broken(relay);
            self.store_anchors(known);
        }
    }

    /// A descriptor that came with this exchange is forged (§8.3(6)): what came with it is not looked
    /// at, since each costs up to fourteen signature checks.
    pub fn handle_forged(&mut self, exchange: ExchangeId, source: RelayId, known: Known<'_>) {
        self.out.retain(|out| match out {
            Out::Learned { exchange: it, .. } => *it != exchange,
            Out::Listed(listing) => listing.source != source,
            _ => true,
        });
        if self.exchanges.contains_key(&exchange) {
            self.on_fault(exchange, SyncFault::Forged, known);
        } else {
            // It was the last answer.
            self.peers.handle_broken(source);
            self.store_anchors(known);
        }
    }

    /// A relay brought no answer. That says nothing of it while this relay has no link to another:
    /// nobody can be reached then.
    fn on_sync_failed(&mut self, relay: RelayId) {
        if self.linked.iter().any(|other| *other != relay) {
            self.peers.handle_failed(relay);
        }
    }

    fn store_anchors(&mut self, known: Known<'_>) {
        let anchors = self.peers.anchors(known.network.params.sync_anchors);
        if anchors != self.anchors {
            self.anchors.clone_from(&anchors);
            self.out.push_back(Out::Anchors(anchors));
        }
    }

    /// A descriptor was refused, since too few relays of the view vouch for it. Those who do may be
    /// about to come into view, and nobody passes it on again: the next reconciliation comes early.
    pub fn handle_unvouched(&mut self, now: Instant, known: Known<'_>) {
        self.sync_early(now, known);
    }

    /// The next reconciliation comes early, each further such one after twice the time (§8.3(9)).
    fn sync_early(&mut self, now: Instant, known: Known<'_>) {
        self.is_early = true;
        let at = now + self.early_pause;
        if at < self.sync_at {
            self.sync_at = at;
            self.early_pause = (self.early_pause * 2).min(known.network.params.sync_interval);
        }
    }

    /// A descriptor is news: it is passed on (§8.3(10)).
    pub fn handle_news(&mut self, descriptor: &[u8]) {
        if self.rumours.len() >= RUMOURS_MAX {
            self.rumours.pop_front();
        }
        self.rumours.push_back(ByteBuf::from(descriptor));
    }

    /// Runs what is due by `now`; spurious calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant, known: Known<'_>, rng: &mut dyn CryptoRng) {
        if self.sync_at <= now {
            self.on_sync_timer(now, known, rng);
        }
        if self.feeler_at <= now {
            self.on_feeler_timer(now, known, rng);
        }
        if self.rumour_at <= now {
            self.on_rumour_timer(now, known, rng);
        }
    }

    /// Nothing is exchanged any more, and nobody is waited for.
    pub fn handle_stop(&mut self) {
        self.awaited.clear();
        self.exchanges.clear();
        self.rumours.clear();
        self.batches.clear();
        self.out.clear();
    }

    /// The next thing to do.
    pub fn poll_out(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// When [`Self::handle_timeout`] is due, and why.
    pub fn poll_timeout(&self) -> (Instant, Timer) {
        let feeler = (self.feeler_at, Timer::Feeler);
        let rumour = (self.rumour_at, Timer::Rumour);
        (self.sync_at, Timer::Sync).min(feeler).min(rumour)
    }

    fn on_sync_timer(&mut self, now: Instant, known: Known<'_>, rng: &mut dyn CryptoRng) {
        let jitter = rng.random_range(0.75..1.25);
        let pause = known.network.params.sync_interval.mul_f64(jitter);
        let pause = if self.is_alone(known) {
            pause.min(ALONE_INTERVAL.mul_f64(jitter / 1.25))
        } else {
            pause
        };
        self.sync_at = now + pause; // §8.3(9)
        if !core::mem::take(&mut self.is_early) {
            self.early_pause = ALONE_INTERVAL;
        }
        self.sync(now, known, rng);
    }

    /// A relay that is not linked is asked as well: whoever holds all links of this relay can't keep
    /// news from it for long (§8.3(9)).
    fn on_feeler_timer(&mut self, now: Instant, known: Known<'_>, rng: &mut dyn CryptoRng) {
        self.feeler_at = now + FEELER_INTERVAL.mul_f64(rng.random_range(0.75..1.25));
        if self.is_alone(known) {
            return;
        }
        let mut exclude = Exclude::nothing();
        let reached = self.linked.iter().chain(&self.awaited);
        reached
            .chain([&self.own])
            .for_each(|relay| exclude.relay(*relay));
        let view = known.book.view();
        let candidates = Candidates::selectable(view, known.network, known.wall);
        self.is_meeting = !self.is_meeting;
        let to_meet = self
            .is_meeting
            .then(|| self.draw_unmet(now, view, &candidates, exclude.clone(), rng))
            .flatten();
        let drawn = to_meet.or_else(|| choice::draw(&candidates, Roles::NONE, &exclude, rng));
        if let Some(relay) = drawn {
            self.reconcile_with(now, relay, known);
        }
    }

    /// A relay that this one has not met, nor tried to meet lately (§8.2(12)).
    fn draw_unmet(
        &mut self,
        now: Instant,
        view: &NetView,
        candidates: &Candidates,
        mut exclude: Exclude,
        rng: &mut dyn CryptoRng,
    ) -> Option<RelayId> {
        self.tried.retain(|_, at| *at + FEELER_AGAIN > now);
        let of_view = view.iter().map(|it| it.relay);
        let others = of_view.filter(|it| !view.is_unmet(it) || self.tried.contains_key(it));
        others.for_each(|relay| exclude.relay(relay));
        let drawn = choice::draw(candidates, Roles::NONE, &exclude, rng)?;
        self.tried.insert(drawn, now);
        Some(drawn)
    }

    /// Reconciles with some relay now; a relay that is alone tries every way back at once.
    pub fn sync(&mut self, now: Instant, known: Known<'_>, rng: &mut dyn CryptoRng) {
        if self.is_alone(known) {
            for relay in self.pick_ways_back(known, rng) {
                self.reconcile_with(now, relay, known);
            }
            return;
        }
        let Known {
            network,
            book,
            wall,
            ..
        } = known;
        let peer = self.peers.next(network, book, wall, rng);
        self.store_anchors(known);
        if let Some(relay) = peer.or_else(|| self.pick_one(known, rng)) {
            self.reconcile_with(now, relay, known);
        }
    }

    fn reconcile_with(&mut self, now: Instant, relay: RelayId, known: Known<'_>) {
        if self.linked.contains(&relay) {
            self.begin(now, relay, known, State::ToSync);
        } else {
            self.awaited.insert(relay);
            self.out.push_back(Out::Dial(relay));
        }
    }

    /// Whether this relay knows no other relay or has a link to none. Its view may then be out of
    /// date.
    fn is_alone(&self, known: Known<'_>) -> bool {
        let mut others = known.book.view().iter().map(|it| it.relay);
        others.all(|relay| relay == self.own) || self.linked_in(known).next().is_none()
    }

    /// Linked relays of the view. Anybody can make links under ids that are in nobody's.
    fn linked_in(&self, known: Known<'_>) -> impl Iterator<Item = RelayId> {
        let view = known.book.view();
        let linked = self.linked.iter().copied();
        linked.filter(move |relay| view.get(relay).is_some())
    }

    fn pick_one(&self, known: Known<'_>, rng: &mut dyn CryptoRng) -> Option<RelayId> {
        let view = known.book.view().iter().map(|descriptor| descriptor.relay);
        let seeds = known.seeds.iter().map(|seed| seed.id);
        let others = view.chain(seeds).filter(|&relay| relay != self.own);
        others.choose(rng)
    }

    /// A seed, the anchors, and some of all relays that are in the view or were.
    fn pick_ways_back(&self, known: Known<'_>, rng: &mut dyn CryptoRng) -> BTreeSet<RelayId> {
        let is_other = |relay: &RelayId| *relay != self.own;
        let past = known.book.last_known(known.network);
        let relays = known.book.view().iter().chain(past);
        let relays = relays.map(|descriptor| descriptor.relay).filter(is_other);
        let seeds = known.seeds.iter().map(|seed| seed.id).filter(is_other);
        let mut picked: BTreeSet<RelayId> = relays.sample(rng, ALONE_RELAYS).into_iter().collect();
        picked.extend(seeds.choose(rng));
        picked.extend(&self.anchors);
        picked
    }

    /// Passes on what is new, to a few of the relays that are linked. News that nobody takes waits
    /// for the next time.
    fn on_rumour_timer(&mut self, now: Instant, known: Known<'_>, rng: &mut dyn CryptoRng) {
        let interval = known.network.params.sync_interval;
        self.rumour_at = now + (interval / 4).min(RUMOUR_DELAY_MAX);
        let mut room = SYNC_BYTES_MAX;
        let fits = |descriptor: &&ByteBuf| match room.checked_sub(descriptor.len()) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        };
        let oldest = self.rumours.iter().take(SYNC_DESCRIPTORS_MAX);
        let news: Vec<ByteBuf> = oldest.take_while(fits).cloned().collect();
        if news.is_empty() {
            return;
        }
        let free = self
            .linked_in(known)
            .filter(|relay| !self.is_on(*relay, true));
        let (batch, mut exchange_count) = (BatchId(self.next_batch), 0);
        for relay in free.sample(rng, RUMOUR_FANOUT) {
            let is_begun = self.begin(now, relay, known, State::ToPush(batch));
            exchange_count += usize::from(is_begun);
        }
        if exchange_count > 0 {
            self.next_batch += 1;
            self.rumours.drain(..news.len());
            let batch_of_news = Batch {
                news,
                exchange_count,
                is_told: false,
            };
            self.batches.insert(batch, batch_of_news);
        }
    }

    /// One exchange less carries this batch. After the last, news that nobody has answered is queued
    /// again: it is older than what waits.
    fn leave(&mut self, id: BatchId) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        batch.exchange_count -= 1;
        if batch.exchange_count > 0 {
            return;
        }
        if let Some(batch) = self.batches.remove(&id)
            && !batch.is_told
        {
            let room = RUMOURS_MAX - self.rumours.len();
            let newest = batch.news.into_iter().rev().take(room);
            newest.for_each(|descriptor| self.rumours.push_front(descriptor));
        }
    }

    /// Begins an exchange, unless there are too many, one of its kind is on with this relay, or no
    /// circuit can be made to it. Says whether it did.
    fn begin(&mut self, now: Instant, relay: RelayId, known: Known<'_>, state: State) -> bool {
        let is_full = self.exchanges.len() >= EXCHANGES_MAX;
        // A seed may be as new as we are, and in nobody's view.
        let is_seed = || known.seeds.iter().any(|seed| seed.id == relay);
        let is_known = known.book.view().get(&relay).is_some() || is_seed();
        if is_full || !is_known || self.is_on(relay, state.is_push()) {
            return false;
        }
        let exchange = ExchangeId(self.next_exchange);
        self.next_exchange += 1;
        self.exchanges.insert(exchange, Exchange { relay, state });
        self.out.push_back(Out::Connect {
            exchange,
            relay,
            due_at: now + EXCHANGE_TIMEOUT,
        });
        true
    }

    /// Whether an exchange of this kind is on with this relay: one that never answers must not
    /// hold every exchange that there may be.
    fn is_on(&self, relay: RelayId, is_push: bool) -> bool {
        let mut all = self.exchanges.values();
        all.any(|it| it.relay == relay && it.state.is_push() == is_push)
    }

    fn end(&mut self, exchange: ExchangeId, out: Out) {
        self.remove(exchange);
        self.out.push_back(out);
    }

    fn remove(&mut self, exchange: ExchangeId) -> Option<Exchange> {
        let removed = self.exchanges.remove(&exchange)?;
        if let Some(batch) = removed.state.batch() {
            self.leave(batch);
        }
        Some(removed)
    }
}

#[cfg(test)]
#[path = "gossip_tests.rs"]
mod tests;
