//! Keeping the view whole (docs/protocol.md §8.3): from any peer while it is too small to build
//! circuits, then from the guards in turn, on circuits of one hop, and from relays drawn at random.
//!
//! A client takes and never gives. While it has no view, it asks its guards, the seeds, and the
//! relays that it knows or last knew, in turn, and never gives up.

mod first_contact;
mod round;
mod sources;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use umbel_proto::chance::{Backoff, between, make_room};
use umbel_proto::directory::choice::{Candidates, Exclude};
use umbel_proto::directory::reconcile::{SyncFault, Syncer};
use umbel_proto::directory::{
    DirectoryRequest, Listing, Mark, Roles, Source, Unverified, VerifiedDescriptor,
};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::limits::{
    NEWS_SPREAD_MAX, ROUND_STAGGER, SYNC_LEN_MAX, SYNC_NO_NEWS_MAX, UNKNOWN_RELAY_PAUSE,
};
use umbel_proto::path::are_enough;
use umbel_proto::time::{Duration, Instant};

use super::circuit::Isolation;
use super::context::Context;
use super::io::Warning;
use super::links::Reach;
use super::pool::Pool;
use super::requests::{Answer, Asker, Question, Requests};
use first_contact::FirstContact;
pub use first_contact::{FIRST_CONTACT_ACCEPTED, FIRST_CONTACT_DISPUTED};
use round::{Next, Round};
use sources::{Sources, hidden_least};

/// How many sources are asked without a pause while there is no view: two that list the same, and a
/// third where they don't.
const SOURCES_AT_ONCE: usize = 3;
/// The longest wait before another peer is asked while there is no view.
const ASK_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The reconciliation in progress, and when the next one is due.
pub(super) struct Sync {
    /// The peers that are asked while the guards can't be.
    round: Round,
    running: Option<Running>,
    sources: Sources,
    /// All primary guards keep relays from this client: its user was told.
    are_guards_hiding: bool,
    first_contact: FirstContact,
    /// The next one is with a second source, since the view is stale after the last.
    is_second: bool,
    last_serial: u64,
    /// Peers that broke a rule, and until when they are not asked again.
    resting: BTreeMap<RelayId, Backoff>,
    /// Seeds that were reached at IPs that they don't advertise: the user was told.
    elsewhere: BTreeMap<RelayId, IpAddr>,
    next_at: Instant,
    backoff: Backoff,
    /// When the last one ended in order.
    ended_at: Instant,
    /// How many were due early since the last that was not.
    unknown_count: u32,
}

/// One reconciliation, with one peer.
struct Running {
    serial: u64,
    peer: RelayId,
    /// Of one hop, or of several.
    isolation: Isolation,
    syncer: Syncer,
    /// What the view had when it began.
    mark: Mark,
    /// When it began, and when it last brought news.
    began_at: Instant,
    news_at: Instant,
}

/// The contents of an answer.
pub(super) struct Received {
    /// Who answered, and on what circuit.
    pub(super) source: RelayId,
    pub(super) isolation: Isolation,
    /// Descriptors, to be verified and admitted.
    pub(super) descriptors: Vec<Unverified>,
    /// What the source lists, if this was the last answer.
    pub(super) listing: Option<Listing>,
}

impl Running {
    /// When it is given up: a source could speak for days, and keep its client from all others
    /// meanwhile (§8.3(6)).
    fn ends_by(&self) -> Instant {
        (self.began_at + SYNC_LEN_MAX).min(self.news_at + SYNC_NO_NEWS_MAX)
    }

    /// It came to its end.
    fn listing(self) -> Listing {
        Listing {
            source: self.peer,
            mark: self.mark,
            lacking: self.syncer.into_lacking(),
        }
    }
}

impl Sync {
    /// `first_contact` is what was stored of it, and `lone` the only source that was heard.
    pub(super) fn new(seeds: Vec<Peer>, first_contact: Option<&[u8]>, lone: Option<&[u8]>) -> Self {
        Self {
            round: Round::new(seeds),
            running: None,
            sources: Sources::default(),
            are_guards_hiding: false,
            first_contact: FirstContact::restore(first_contact, lone),
            is_second: false,
            last_serial: 0,
            resting: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            next_at: Instant::from_micros(0),
            backoff: Backoff::new(),
            ended_at: Instant::from_micros(0),
            unknown_count: 0,
        }
    }

    /// These are the seeds now: a machine that waits for a relay to answer asks them.
    pub(super) fn set_seeds(&mut self, now: Instant, seeds: Vec<Peer>) {
        if self.round.set_seeds(seeds) {
            self.next_at = now;
        }
    }

    /// Begins a reconciliation that is due, or finds a peer to begin it with.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, pool: &mut Pool, requests: &mut Requests) {
        self.look_whether_to_help(cx, pool);
        let is_over = |running: &mut Running| running.ends_by() <= cx.now;
        if self.running.take_if(is_over).is_some() {
            self.pause(cx);
        }
        if self.running.is_some() {
            return;
        }
        let probe = self.draw_probe(cx, pool);
        if probe.is_none() && self.next_at > cx.now {
            return;
        }
        let peer = if probe.is_some() {
            probe
        } else if self.asks_guards(cx) {
            self.round.clear();
            self.next_source(cx, pool)
        } else {
            self.next_peer(cx, pool).map(|peer| (peer, Isolation::Sync))
        };
        let Some((peer, isolation)) = peer else {
            return;
        };
        let is_far = !isolation.is_direct();
        self.sources.handle_begun(cx.now, peer, is_far);
        self.round.handle_asked(peer);
        let (syncer, request) = Syncer::begin_taking(cx.view());
        self.last_serial += 1;
        let running = Running {
            serial: self.last_serial,
            peer,
            isolation,
            syncer,
            mark: cx.book.mark(),
            began_at: cx.now,
            news_at: cx.now,
        };
        self.go_on(cx, requests, running, request);
    }

    fn go_on(
        &mut self,
        cx: &Context<'_>,
        requests: &mut Requests,
        running: Running,
        request: DirectoryRequest,
    ) {
        let asker = Asker::Sync(running.serial);
        requests.ask(
            cx,
            asker,
            running.isolation.clone(),
            running.peer,
            Question::Directory(request),
        );
        self.running = Some(running);
    }

    /// Takes an answer; returns what came with it.
    pub(super) fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        pool: &mut Pool,
        requests: &mut Requests,
        serial: u64,
        answer: Answer,
    ) -> Option<Received> {
        let mut running = self.running.take_if(|running| running.serial == serial)?;
        let step = match answer {
            Answer::Directory(reply) => running.syncer.on_reply(cx.view(), reply),
            Answer::Mailbox(_) | Answer::Failed(_) => {
                self.pause(cx);
                return None;
            }
        };
        match step {
            Ok(step) => {
                let (source, isolation) = (running.peer, running.isolation.clone());
                let listing = match step.request {
                    Some(request) => {
                        self.go_on(cx, requests, running, request);
                        None
                    }
                    None => {
                        self.end(cx);
                        Some(running.listing())
                    }
                };
                Some(Received {
                    source,
                    isolation,
                    descriptors: step.received,
                    listing,
                })
            }
            Err(SyncFault::Refused(_)) => {
                self.pause(cx);
                None
            }
            // The circuit is destroyed, and the peer is left alone (docs/protocol.md §8.3(6)).
            Err(_) => {
                self.break_off(cx, pool, &running.isolation, running.peer);
                None
            }
        }
    }

    /// A peer broke a rule on the circuit of this isolation, which is destroyed.
    pub(super) fn break_off(
        &mut self,
        cx: &mut Context<'_>,
        pool: &mut Pool,
        isolation: &Isolation,
        peer: RelayId,
    ) {
        pool.break_off_from(cx, isolation, peer);
        self.on_violation(cx, peer);
    }

    /// A descriptor of this relay that came with the last answer was news.
    pub(super) fn handle_news(&mut self, now: Instant, relay: RelayId) {
        if let Some(running) = &mut self.running {
            running.news_at = now;
        }
        self.sources.handle_news(relay);
    }

    /// A relay that is linked to is where its descriptor says, or else at this IP: then what it lists
    /// doesn't count (§8.2(3)). Of a seed the user is told: a newcomer may wait for another.
    pub(super) fn handle_place(
        &mut self,
        cx: &mut Context<'_>,
        relay: RelayId,
        elsewhere: Option<IpAddr>,
    ) {
        let Some(ip) = elsewhere.filter(|_| self.round.is_seed(relay)) else {
            self.elsewhere.remove(&relay);
            return;
        };
        if self.elsewhere.insert(relay, ip).is_none() {
            cx.warn(Warning::SeedElsewhere { seed: relay, ip });
        }
    }

    /// Seeds that are not where they say, with where they were reached.
    pub(super) fn seeds_elsewhere(&self) -> Vec<(RelayId, IpAddr)> {
        let elsewhere = self.elsewhere.iter().map(|(&seed, &ip)| (seed, ip));
        elsewhere
            .filter(|&(seed, _)| self.round.is_seed(seed))
            .collect()
    }

    /// A reconciliation ended with this, and what came with it was admitted: this shows whether the
    /// first sources agree. Call it before the view is used.
    pub(super) fn compare_sources(
        &mut self,
        cx: &mut Context<'_>,
        source: &Arc<Source>,
        listing: &Listing,
    ) {
        self.first_contact.compare(cx, source, listing);
    }

    /// The clock was set: what sources listed before is of another view.
    pub(super) fn handle_clock_set(&mut self) {
        self.first_contact.forget_lists();
    }

    /// Whether the first sources disagree about which relays there are, so that no view is to be used.
    pub(super) fn is_disputed(&self) -> bool {
        self.first_contact.is_disputed()
    }

    /// Whether another source is waited for before the view is used.
    pub(super) fn is_alone(&self, now: Instant) -> bool {
        self.first_contact.is_alone(now)
    }

    /// A reconciliation ended with this, and what came with it was admitted: this shows whether a
    /// guard hides relays.
    pub(super) fn judge_guards(&mut self, cx: &mut Context<'_>, pool: &mut Pool, listing: Listing) {
        if !cx.is_ready && self.lacks_another(cx, listing.source) {
            self.next_at = cx.now;
        }
        let primary = pool.paths.guards.primary(cx.known());
        for guard in self.sources.handle_ended(cx, &primary, listing.lacking) {
            pool.paths.guards.handle_hiding(cx.known(), guard);
        }
        let do_all_hide = self.sources.do_all_hide(cx, &primary);
        if do_all_hide && !self.are_guards_hiding {
            cx.warn(Warning::AllGuardsHide);
        }
        self.are_guards_hiding = do_all_hide;
    }

    /// Whether all primary guards keep many relays from this client, which others have shown it.
    pub(super) const fn are_guards_hiding(&self) -> bool {
        self.are_guards_hiding
    }

    /// Whether all that the view lacks is another source that lists the same (§8.3(9a)): it has relays
    /// enough, and this source is one of the first.
    fn lacks_another(&self, cx: &Context<'_>, source: RelayId) -> bool {
        let is_early = self.round.is_early(source, SOURCES_AT_ONCE);
        let all = || cx.view().iter().map(|known| &**known);
        is_early && are_enough(cx.network, cx.view(), &Candidates::new(all(), cx.network))
    }

    /// A peer broke a rule on the circuit that it is asked on: it rests, and another is asked.
    pub(super) fn on_violation(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        make_room(&mut self.resting, RESTING_MAX, relay);
        let rest = self.resting.entry(relay).or_default();
        if rest.is_due(cx.now) {
            rest.fail(&cx.network.params, cx.now, cx.rng);
        }
        self.running.take_if(|running| running.peer == relay);
        if self.running.is_none() {
            self.next_at = cx.now;
        }
    }

    /// A relay drawn at random, where circuits break and it has to be seen whether all do (§6.4(10i)).
    fn draw_probe(&self, cx: &mut Context<'_>, pool: &Pool) -> Option<(RelayId, Isolation)> {
        let is_due = self.asks_guards(cx) && self.backoff.is_due(cx.now);
        if !is_due || !pool.wants_probe(cx.now) {
            return None;
        }
        let (in_use, _) = pool.guard_in_use()?;
        let relay = self.draw(cx, pool, in_use).or_else(|| {
            // In a small network all that are not held may be beside a guard.
            let mut exclude = Exclude::default();
            exclude.relay(in_use);
            self.draw_but(cx, pool, exclude)
        });
        Some((relay?, self.next_view()))
    }

    /// A circuit of its own, to a relay drawn at random.
    const fn next_view(&self) -> Isolation {
        let serial = self.last_serial + 1;
        Isolation::View { serial }
    }

    /// A relay drawn at random, or the guard whose turn it is, and over which circuit.
    fn next_source(
        &mut self,
        cx: &mut Context<'_>,
        pool: &mut Pool,
    ) -> Option<(RelayId, Isolation)> {
        let (in_use, _) = pool.guard_in_use()?;
        // Of circuits that break, the next is a user's message's, or a probe (`draw_probe`).
        let (broken, _) = pool.broken();
        if broken == 0
            && self.sources.is_far(cx)
            && let Some(relay) = self.draw(cx, pool, in_use)
        {
            return Some((relay, self.next_view()));
        }
        let guard = self.next_guard(cx, pool, in_use)?;
        Some((guard, Isolation::Sync))
    }

    /// A relay that has nothing in common with the guards.
    fn draw(&self, cx: &mut Context<'_>, pool: &Pool, in_use: RelayId) -> Option<RelayId> {
        let mut exclude = Exclude::default();
        let mut guards = pool.paths.guards.primary(cx.known());
        guards.push(in_use);
        cx.known().exclude_groups_of(&mut exclude, &guards);
        self.draw_but(cx, pool, exclude)
    }

    /// A relay to which circuits may begin, but for these.
    fn draw_but(&self, cx: &mut Context<'_>, pool: &Pool, mut exclude: Exclude) -> Option<RelayId> {
        pool.held_terminals(cx).for_each(|held| exclude.relay(held));
        let resting = self.resting.iter().filter(|(_, rest)| !rest.is_due(cx.now));
        resting.for_each(|(&relay, _)| exclude.relay(relay));
        cx.known().draw(Roles::NONE, &exclude, cx.rng)
    }

    /// The guard whose turn it is.
    fn next_guard(
        &mut self,
        cx: &mut Context<'_>,
        pool: &mut Pool,
        in_use: RelayId,
    ) -> Option<RelayId> {
        let primary = pool.paths.guards.primary(cx.known());
        for relay in self.sources.in_turn(primary, in_use, cx.rng) {
            if !may_ask(&self.resting, relay, cx.now) {
                continue;
            }
            match pool.links.reach(relay, cx.now) {
                Reach::Up(_) => return Some(relay),
                Reach::Dialling(_) => {
                    self.next_at = cx.now + ROUND_STAGGER;
                    return None;
                }
                Reach::Resting(_) => {}
                Reach::Unknown if pool.dial_guard(cx, relay) => {
                    self.next_at = cx.now + ROUND_STAGGER;
                    return None;
                }
                Reach::Unknown => {}
            }
        }
        self.pause(cx);
        None
    }

    /// Whether a reconciliation is in progress.
    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The relay that is asked now over a circuit of several hops.
    #[cfg(test)]
    pub(super) fn far_source(&self) -> Option<RelayId> {
        let running = self.running.as_ref();
        let far = running.filter(|running| !running.isolation.is_direct());
        far.map(|running| running.peer)
    }

    /// Whether a link to this relay is kept for now.
    pub(super) fn wants(&self, relay: RelayId) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.peer == relay && running.isolation.is_direct())
            || self.round.contains(relay)
    }

    /// There is no view any more: the next reconciliation is due at once.
    pub(super) fn on_view_lost(&mut self) {
        self.next_at = Instant::default();
        self.backoff.reset();
    }

    /// Someone names a relay that the view does not have: it may be younger than the last
    /// reconciliation, and the next comes early. The first soon, each further one after twice the
    /// time, so that names of relays that don't exist cost little.
    pub(super) fn on_unknown_relay(&mut self, cx: &Context<'_>) {
        if self.asks_guards(cx) && self.running.is_none() {
            self.come_early(cx);
        }
    }

    fn come_early(&mut self, cx: &Context<'_>) {
        let factor = 1_u32 << self.unknown_count.min(16);
        let wait = UNKNOWN_RELAY_PAUSE
            .saturating_mul(factor)
            .min(cx.network.params.client_sync_interval);
        let at = (self.ended_at + wait).max(cx.now);
        if at < self.next_at {
            self.next_at = at;
            self.unknown_count += 1;
        }
    }

    /// Whether everyone who might know where guards are now was asked, or could not be reached.
    pub(super) fn are_all_tried(&self, pool: &Pool, now: Instant) -> bool {
        self.running.is_none() && self.round.are_all_tried(pool, now)
    }

    /// Whether the guards are asked, and relays drawn at random: there is a view, not by one source's
    /// word, and a guard that answers.
    const fn asks_guards(&self, cx: &Context<'_>) -> bool {
        cx.is_ready && !self.round.is_helping() && !self.first_contact.lacks_another()
    }

    fn look_whether_to_help(&mut self, cx: &Context<'_>, pool: &Pool) {
        let is_helping = cx.is_ready && pool.lacks_guard();
        if self.round.set_helping(is_helping) && is_helping {
            self.next_at = cx.now;
        }
    }

    fn end(&mut self, cx: &mut Context<'_>) {
        if self.asks_guards(cx) {
            self.backoff.reset();
            let every = cx.network.params.client_sync_interval;
            if self.ended_at + every / 2 <= cx.now {
                self.unknown_count = 0;
            }
            self.ended_at = cx.now;
            self.next_at = cx.now + between(every * 3 / 4, every * 5 / 4, cx.rng);
            // Once: relays that are down are no newer anywhere.
            self.is_second = !self.is_second && is_stale(cx);
            if self.is_second {
                self.next_at = cx.now + UNKNOWN_RELAY_PAUSE;
            }
        } else {
            // The peer knows too few relays as well: wait for more.
            self.pause(cx);
        }
    }

    fn pause(&mut self, cx: &mut Context<'_>) {
        let wait = self.backoff.fail(&cx.network.params, cx.now, cx.rng);
        self.next_at = cx.now
            + if self.asks_guards(cx) {
                wait
            } else {
                wait.min(ASK_PAUSE_MAX)
            };
    }

    /// A peer of the round that has a link; else says when to look again.
    fn next_peer(&mut self, cx: &mut Context<'_>, pool: &mut Pool) -> Option<RelayId> {
        let (resting, now) = (&self.resting, cx.now);
        match self
            .round
            .next(cx, pool, |relay| may_ask(resting, relay, now))
        {
            Next::Ask(relay) => return Some(relay),
            Next::Dialling { until } => self.next_at = until,
            Next::Waiting => {}
            Next::Over { pause_max } => {
                self.next_at = cx.now
                    + self
                        .backoff
                        .fail(&cx.network.params, cx.now, cx.rng)
                        .min(pause_max);
            }
        }
        None
    }

    /// A person waits: if the round is over, the next one begins soon.
    pub(super) fn hasten(&mut self, cx: &Context<'_>) {
        if self.round.is_over() {
            self.next_at = self.next_at.min(cx.now + ROUND_STAGGER);
            self.backoff.reset();
        }
    }

    /// A link came up: the step that waited for it continues.
    pub(super) fn on_link_up(&mut self, now: Instant) {
        if self.running.is_none() && self.round.is_begun() {
            self.next_at = self.next_at.min(now);
        }
    }

    /// A link failed: the next peer is tried, unless all were.
    pub(super) fn on_link_lost(&mut self, now: Instant) {
        if !self.round.is_over() {
            self.on_link_up(now);
        }
    }

    /// When there is something to do; `after` separates resting peers from those due.
    pub(super) fn timeout(&self, after: Instant, pool: &Pool) -> Option<Instant> {
        if let Some(running) = &self.running {
            return Some(running.ends_by()).filter(|&at| at > after);
        }
        let rests = self.round.rests(pool, after);
        let alone = self.first_contact.timeout();
        let all = rests.chain([self.next_at]).chain(alone);
        all.filter(|&at| at > after).min()
    }
}

/// Whether this relay does not rest for having broken a rule.
fn may_ask(resting: &BTreeMap<RelayId, Backoff>, relay: RelayId, now: Instant) -> bool {
    resting.get(&relay).is_none_or(|rest| rest.is_due(now))
}

/// Whether more relays than may happen have no descriptor as new as they must have issued by now.
fn is_stale(cx: &Context<'_>) -> bool {
    let params = &cx.network.params;
    let renewed_within = params.republish + params.republish_jitter + NEWS_SPREAD_MAX;
    let is_old = |known: &&VerifiedDescriptor| known.issued_at + renewed_within < cx.wall;
    let old = cx.view().iter().filter(is_old).count();
    old >= hidden_least(cx.view())
}

/// Most peers that are remembered for having broken a rule; beyond it those whose rest ends first
/// are forgotten.
const RESTING_MAX: usize = 256;

#[cfg(test)]
mod tests;
