//! How relays find each other: sessions over one-hop circuits of our own, in which views are
//! compared and news passed on (docs/protocol.md §8.3, §8.4).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::seq::IteratorRandom;
use rand::{CryptoRng, RngExt};
use serde_bytes::ByteBuf;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::origin::{OriginCircuit, OriginEvent};
use umbel_proto::directory::descriptor::Unverified;
use umbel_proto::directory::reconcile::{SyncFault, SyncStep, Syncer};
use umbel_proto::directory::service::{DirectoryReply, DirectoryRequest, PUSH_MAX};
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::link::LinkId;
use umbel_proto::message::Service;
use umbel_proto::time::{Duration, Instant, WallTime};

use super::Control;
use super::circuits::End;
use super::extend::Dials;
use super::io::StoreOp;
use super::timers::Timer;
use crate::forward::TableUpdate;

/// A session that takes longer is over.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Most sessions at once.
const SESSIONS_MAX: usize = 32;
/// A relay that is alone tries this often, at least, to be so no more.
const ALONE_INTERVAL: Duration = Duration::from_secs(5);
/// How many relays it knew are dialled then, besides a seed.
const WAYS_BACK: usize = 3;
/// To how many linked relays a new descriptor is passed on at once; anti-entropy does the rest.
const RUMOUR_FANOUT: usize = 3;
/// News waits no longer than this.
const RUMOUR_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// Most descriptors waiting to be passed on; beyond it the oldest are left to anti-entropy.
const RUMOURS_MAX: usize = 1024;

/// Names a session; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(u64);

/// What a relay knows of its ways to others.
#[derive(Default)]
pub(super) struct Discovery {
    pub(super) dials: Dials,
    pub(super) dialling: BTreeSet<RelayId>,
    /// Relays to compare views with once they are linked.
    awaited: BTreeSet<RelayId>,
    sessions: BTreeMap<SessionId, Session>,
    next_session: u64,
    rumours: VecDeque<ByteBuf>,
}

/// One conversation with a peer's directory service, over a one-hop circuit of our own.
struct Session {
    link: LinkId,
    circ: CircId,
    relay: RelayId,
    circuit: OriginCircuit,
    job: Job,
}

enum Job {
    /// Compare views; `None` until the circuit is there.
    Sync(Option<Box<Syncer>>),
    /// Pass these on.
    Push(Vec<ByteBuf>),
}

impl Discovery {
    /// No session goes on, and nobody is waited for.
    pub(super) fn forget_all(&mut self) {
        *self = Self {
            next_session: self.next_session,
            ..Self::default()
        };
    }
}

impl Control {
    pub(super) fn on_sync_timer(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let interval = self.config.network.params.sync_interval;
        let is_alone = self.is_alone();
        let pause = if is_alone {
            interval.min(ALONE_INTERVAL)
        } else {
            interval
        };
        let jitter = rng.random_range(0.75..1.25);
        self.timers.set(now + pause.mul_f64(jitter), Timer::Sync);
        self.sync_now(now, rng);
    }

    /// Compares views with some relay; one that is alone, with whoever may lead back.
    pub(super) fn sync_now(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let is_alone = self.is_alone();
        let peers = if is_alone {
            self.pick_ways_back(rng)
        } else {
            self.pick_sync_peer(rng).into_iter().collect()
        };
        for relay in peers {
            self.sync_with(now, relay, rng);
        }
    }

    /// Whether this relay knows no other, or has a link to none: what it knows of them may be out
    /// of date.
    fn is_alone(&self) -> bool {
        self.view().len() <= 1 || self.links.relays().next().is_none()
    }

    fn pick_sync_peer(&self, rng: &mut dyn CryptoRng) -> Option<RelayId> {
        let own = self.relay_id();
        let known = self
            .view()
            .iter()
            .map(|descriptor| descriptor.relay)
            .filter(|&relay| relay != own);
        let seeds = self
            .config
            .seeds
            .iter()
            .map(|seed| seed.id)
            .filter(|&relay| relay != own);
        known.chain(seeds).choose(rng)
    }

    /// Some of all the relays that were ever told of and may be where they were, a seed among them.
    fn pick_ways_back(&self, rng: &mut dyn CryptoRng) -> BTreeSet<RelayId> {
        let own = self.relay_id();
        let known = self
            .view()
            .iter()
            .chain(self.book.last_known(&self.config.network));
        let known = known
            .map(|descriptor| descriptor.relay)
            .filter(|&relay| relay != own);
        let seeds = self
            .config
            .seeds
            .iter()
            .map(|seed| seed.id)
            .filter(|&relay| relay != own);
        let mut picked: BTreeSet<RelayId> = known.sample(rng, WAYS_BACK).into_iter().collect();
        picked.extend(seeds.choose(rng));
        picked
    }

    fn sync_with(&mut self, now: Instant, relay: RelayId, rng: &mut dyn CryptoRng) {
        match self.links.toward(&relay) {
            Some(link) => self.begin_session(now, link, relay, Job::Sync(None), rng),
            None => {
                self.discovery.awaited.insert(relay);
                self.dial(relay);
            }
        }
    }

    /// A link to a relay is up, dialled by either side.
    pub(super) fn on_relay_linked(
        &mut self,
        now: Instant,
        link: LinkId,
        relay: RelayId,
        rng: &mut dyn CryptoRng,
    ) {
        self.discovery.dialling.remove(&relay);
        self.resume_extends(&relay, link);
        if self.discovery.awaited.remove(&relay) {
            self.begin_session(now, link, relay, Job::Sync(None), rng);
        }
    }

    pub(super) fn on_dial_failed(&mut self, relay: RelayId) {
        self.discovery.dialling.remove(&relay);
        self.discovery.awaited.remove(&relay);
        self.fail_extends(&relay);
    }

    fn begin_session(
        &mut self,
        now: Instant,
        link: LinkId,
        relay: RelayId,
        job: Job,
        rng: &mut dyn CryptoRng,
    ) {
        let is_busy = self.discovery.sessions.len() >= SESSIONS_MAX;
        let Some(target) = self
            .view()
            .get(&relay)
            .map(|known| known.hop_target())
            .filter(|_| !is_busy)
        else {
            return;
        };
        let circuits = &self.circuits;
        let Some(circ) = self
            .links
            .new_circ(link, |circ| circuits.end(link, circ).is_some())
        else {
            return;
        };
        let circuit = OriginCircuit::create(&self.config.network.id, &target, rng);
        let id = SessionId(self.discovery.next_session);
        self.discovery.next_session += 1;
        self.discovery.sessions.insert(
            id,
            Session {
                link,
                circ,
                relay,
                circuit,
                job,
            },
        );
        self.circuits.set_end(link, circ, End::Own(id));
        self.out.tables.push_back((link, TableUpdate::Own(circ)));
        self.timers.set(now + SESSION_TIMEOUT, Timer::Session(id));
        self.flush_session(id, rng);
    }

    pub(super) fn on_own_cell(
        &mut self,
        (now, wall): (Instant, WallTime),
        id: SessionId,
        command: Command,
        mut cell: Cell,
        rng: &mut dyn CryptoRng,
    ) {
        let Some(session) = self.discovery.sessions.get_mut(&id) else {
            return;
        };
        let (link, circ) = (session.link, session.circ);
        let mut handled = session.circuit.handle_cell(command, &mut cell);
        while handled.is_ok()
            && let Some(event) = self
                .discovery
                .sessions
                .get_mut(&id)
                .and_then(|it| it.circuit.poll_event())
        {
            handled = self.on_session_event(now, wall, id, event);
        }
        match handled {
            Ok(()) => self.flush_session(id, rng),
            Err(violation) => self.on_violation(link, circ, violation),
        }
    }

    fn on_session_event(
        &mut self,
        now: Instant,
        wall: WallTime,
        id: SessionId,
        event: OriginEvent,
    ) -> Result<(), Violation> {
        match event {
            OriginEvent::Extended { .. } => {
                let Some(session) = self.discovery.sessions.get_mut(&id) else {
                    return Ok(());
                };
                let request = match &mut session.job {
                    Job::Sync(syncer) => {
                        let (begun, request) = Syncer::begin(self.book.view());
                        *syncer = Some(Box::new(begun));
                        request
                    }
                    Job::Push(descriptors) => DirectoryRequest::Push(core::mem::take(descriptors)),
                };
                self.ask(id, &request);
                Ok(())
            }
            OriginEvent::Frame { frame, .. } => self.on_session_reply(now, wall, id, &frame),
            OriginEvent::StreamEnded { reset: false, .. } => Ok(()),
            OriginEvent::StreamEnded { reset: true, .. } => {
                self.end_session(id);
                Ok(())
            }
            OriginEvent::ExtendRefused(_) => Err(Violation::Unexpected),
        }
    }

    fn on_session_reply(
        &mut self,
        now: Instant,
        wall: WallTime,
        id: SessionId,
        frame: &[u8],
    ) -> Result<(), Violation> {
        let reply = DirectoryReply::decode(frame)?;
        let Some(session) = self.discovery.sessions.get_mut(&id) else {
            return Ok(());
        };
        match (&mut session.job, reply) {
            (Job::Sync(Some(syncer)), reply) => {
                let SyncStep { received, request } = match syncer.on_reply(self.book.view(), reply)
                {
                    Ok(step) => step,
                    Err(SyncFault::Refused(_)) => {
                        self.end_session(id);
                        return Ok(());
                    }
                    Err(fault) => return Err(fault.into()),
                };
                for descriptor in received {
                    self.learn(now, wall, descriptor);
                }
                match request {
                    Some(request) => self.ask(id, &request),
                    None => self.end_session(id),
                }
            }
            (Job::Push(_), DirectoryReply::Pushed { .. } | DirectoryReply::Refused(_)) => {
                self.end_session(id);
            }
            _ => return Err(Violation::Unexpected),
        }
        Ok(())
    }

    /// Asks the peer's directory service, on a stream of its own.
    fn ask(&mut self, id: SessionId, request: &DirectoryRequest) {
        let Some(session) = self.discovery.sessions.get_mut(&id) else {
            return;
        };
        if session
            .circuit
            .open_stream(Service::Directory, &request.encode(), true)
            .is_err()
        {
            self.end_session(id);
        }
    }

    fn flush_session(&mut self, id: SessionId, rng: &mut dyn CryptoRng) {
        let Some(session) = self.discovery.sessions.get_mut(&id) else {
            return;
        };
        while let Some(mut cell) = session.circuit.poll_cell(rng) {
            cell.set_circ_id(session.circ);
            self.out.cells.push_back((session.link, cell));
        }
    }

    fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.discovery.sessions.remove(&id) else {
            return;
        };
        self.circuits.remove_end(session.link, session.circ);
        self.send_destroy(session.link, session.circ, DestroyReason::Finished);
    }

    /// A session's circuit is gone.
    pub(super) fn on_session_lost(&mut self, id: SessionId) {
        self.discovery.sessions.remove(&id);
    }

    pub(super) fn on_session_timeout(&mut self, id: SessionId) {
        if let Some(session) = self.discovery.sessions.get(&id) {
            tracing::debug!(relay = %session.relay, "a discovery session took too long");
            self.end_session(id);
        }
    }

    /// A relay's own descriptor, said on its own link.
    pub(super) fn learn_peer(&mut self, now: Instant, wall: WallTime, peer: RelayId, bytes: &[u8]) {
        if let Ok(descriptor) = Unverified::decode(bytes)
            && descriptor.relay() == peer
        {
            self.learn(now, wall, descriptor);
        }
    }

    /// Takes a descriptor into the book, if it is valid and news: it is then stored and passed on.
    pub(super) fn learn(&mut self, now: Instant, wall: WallTime, descriptor: Unverified) -> bool {
        if descriptor.relay() == self.relay {
            self.on_own_descriptor(now, wall, descriptor);
            return false;
        }
        let Ok(learned) = self.book.learn(&self.config.network, wall, descriptor) else {
            return false;
        };
        if learned.is_news() {
            self.spread(learned.descriptor.bytes());
            self.store_book();
        }
        learned.is_news()
    }

    /// Has stored what changed in the book.
    pub(super) fn store_book(&mut self) {
        while let Some(op) = self.book.poll_op() {
            self.out.store.push_back(StoreOp::Book(op));
        }
    }

    /// Puts a descriptor on the list of what is passed on.
    pub(super) fn spread(&mut self, bytes: &[u8]) {
        if self.discovery.rumours.len() >= RUMOURS_MAX {
            self.discovery.rumours.pop_front();
        }
        self.discovery.rumours.push_back(ByteBuf::from(bytes));
    }

    /// Passes on what is new, to a few of the relays that are linked.
    pub(super) fn on_rumour_timer(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let pause = (self.config.network.params.sync_interval / 4).min(RUMOUR_INTERVAL_MAX);
        self.timers.set(now + pause, Timer::Rumour);
        let count = self.discovery.rumours.len().min(PUSH_MAX);
        let news: Vec<ByteBuf> = self.discovery.rumours.drain(..count).collect();
        if news.is_empty() {
            return;
        }
        let listeners: Vec<RelayId> = self.links.relays().copied().sample(rng, RUMOUR_FANOUT);
        for relay in listeners {
            if let Some(link) = self.links.toward(&relay) {
                self.begin_session(now, link, relay, Job::Push(news.clone()), rng);
            }
        }
    }
}
