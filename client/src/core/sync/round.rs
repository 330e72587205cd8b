//! The peers that a client goes round while it has no view, or no guard that answers (docs/protocol.md
//! §8.3(9a)): guards that it has tried, seeds, and relays that it knows or last knew.

use umbel_proto::chance::shuffle;
use umbel_proto::directory::VerifiedDescriptor;
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::limits::{
    HELPERS_FOR, HELPERS_MAX, KNOWN_ASKED_FIRST, KNOWN_ASKED_MORE, ROUND_PAUSE_MAX, ROUND_STAGGER,
};
use umbel_proto::time::{Duration, Instant};

use super::super::context::Context;
use super::super::links::Reach;
use super::super::pool::Pool;

/// Most peers of a round.
const WAYS_MAX: usize = 160;
/// Most addresses of one relay that are tried.
const HOST_PORTS_MAX: usize = 8;

/// Whom to ask next.
pub(super) enum Next {
    /// This relay, which has a link.
    Ask(RelayId),
    /// Nobody yet: a dial is in flight.
    Dialling {
        /// When to look again.
        until: Instant,
    },
    /// Nobody yet: all were dialled, and some dials are in flight.
    Waiting,
    /// Nobody: all are dialled again after a pause.
    Over {
        /// The longest that it may be.
        pause_max: Duration,
    },
}

/// The peers to ask, and how far this round has come.
pub(super) struct Round {
    seeds: Vec<Peer>,
    ways: Vec<Way>,
    /// None of them could be reached.
    is_over: bool,
    /// No guard can be reached, though there is a view: relays that may know newer addresses are
    /// asked.
    is_helping: bool,
    /// Which known relays are asked then, and until when no others are.
    helpers: Vec<RelayId>,
    helpers_until: Instant,
    /// How many known relays may be asked while there is no view.
    reach: usize,
    /// When those that rest are dialled again although others answer.
    hurry_at: Instant,
}

/// A relay to ask for its view, and where it may be.
struct Way {
    relay: RelayId,
    host_ports: Vec<String>,
    is_seed: bool,
    asked_count: u32,
}

impl Round {
    pub(super) const fn new(seeds: Vec<Peer>) -> Self {
        Self {
            seeds,
            ways: Vec::new(),
            is_over: false,
            is_helping: false,
            helpers: Vec::new(),
            helpers_until: Instant::from_micros(0),
            reach: KNOWN_ASKED_FIRST,
            hurry_at: Instant::from_micros(0),
        }
    }

    /// These are the seeds now. Whether a round is to begin anew with them.
    pub(super) fn set_seeds(&mut self, seeds: Vec<Peer>) -> bool {
        self.seeds = seeds;
        let is_begun = self.is_begun();
        self.begin_anew();
        is_begun
    }

    /// Whether no guard can be reached, though there is a view. Says whether that is new.
    pub(super) fn set_helping(&mut self, is_helping: bool) -> bool {
        let is_new = is_helping != self.is_helping;
        if is_new {
            self.is_helping = is_helping;
            self.begin_anew();
        }
        is_new
    }

    fn begin_anew(&mut self) {
        self.ways.clear();
        self.is_over = false;
    }

    /// The guards can be asked.
    pub(super) fn clear(&mut self) {
        self.begin_anew();
        self.reach = KNOWN_ASKED_FIRST;
    }

    pub(super) const fn is_helping(&self) -> bool {
        self.is_helping
    }

    pub(super) const fn is_begun(&self) -> bool {
        !self.ways.is_empty()
    }

    /// Whether none of its peers could be reached.
    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn contains(&self, relay: RelayId) -> bool {
        self.ways.iter().any(|way| way.relay == relay)
    }

    pub(super) fn is_seed(&self, relay: RelayId) -> bool {
        self.seeds.iter().any(|seed| seed.id == relay)
    }

    /// A reconciliation with this relay begins.
    pub(super) fn handle_asked(&mut self, relay: RelayId) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.relay == relay) {
            way.asked_count += 1;
        }
    }

    /// Whether this relay was asked once, and fewer than `count` were asked.
    pub(super) fn is_early(&self, relay: RelayId, count: usize) -> bool {
        let is_first = |way: &Way| way.relay == relay && way.asked_count == 1;
        let asked = self.ways.iter().filter(|way| way.asked_count > 0);
        asked.count() < count && self.ways.iter().any(is_first)
    }

    /// Whether everyone who might know where guards are now was asked, or could not be reached.
    pub(super) fn are_all_tried(&self, pool: &Pool, now: Instant) -> bool {
        let has_failed = |way: &Way| {
            matches!(pool.links.reach(way.relay, now), Reach::Resting(_))
                && !pool.links.failed_elsewhere(way.relay, &way.host_ports)
        };
        let is_tried = |way: &Way| way.asked_count > 0 || has_failed(way);
        let is_over = self.is_over || (self.is_begun() && self.ways.iter().all(is_tried));
        self.is_helping && is_over
    }

    /// When rests of its peers end, unless all do; `after` separates them from those that have.
    pub(super) fn rests(&self, pool: &Pool, after: Instant) -> impl Iterator<Item = Instant> {
        let ways = self.ways.iter().filter(|_| !self.is_over);
        ways.filter_map(move |way| match pool.links.reach(way.relay, after) {
            Reach::Resting(until) => Some(until),
            Reach::Up(_) | Reach::Dialling(_) | Reach::Unknown => None,
        })
    }

    /// The peer within reach that was asked least often. One without a link is dialled and waited
    /// for.
    pub(super) fn next(
        &mut self,
        cx: &mut Context<'_>,
        pool: &mut Pool,
        may_ask: impl Fn(RelayId) -> bool,
    ) -> Next {
        // A guard that was never tried is dialled as a guard or not at all, unless it is a seed.
        self.ways
            .retain(|way| way.is_seed || !pool.paths.guards.is_untried(way.relay));
        if self.ways.iter().all(|way| is_passed(way, pool, cx.now)) || self.is_over {
            if self.ways.is_empty() {
                self.hurry_at = cx.now + ROUND_PAUSE_MAX;
            } else {
                self.reach = (self.reach + KNOWN_ASKED_MORE).min(WAYS_MAX);
                self.hurry_if_due(cx, pool);
            }
            self.widen(cx, pool);
        }
        // Offline, rests end by themselves.
        if core::mem::take(&mut self.is_over) && !pool.links.ids().is_empty() {
            self.hurry(pool);
        }
        self.ways.sort_by_key(|way| way.asked_count);
        let mut is_dialling = false;
        for way in &self.ways {
            if !may_ask(way.relay) {
                continue;
            }
            // A guard is dialled where its descriptor says; a seed may be known to be elsewhere by
            // now.
            if pool.links.failed_elsewhere(way.relay, &way.host_ports) {
                pool.links.hurry(&[way.relay]);
            }
            match pool.links.reach(way.relay, cx.now) {
                Reach::Up(_) => return Next::Ask(way.relay),
                Reach::Dialling(began_at) if began_at + ROUND_STAGGER > cx.now => {
                    let until = began_at + ROUND_STAGGER;
                    return Next::Dialling { until };
                }
                Reach::Dialling(_) => is_dialling = true,
                Reach::Resting(_) => {}
                Reach::Unknown => {
                    pool.links.dial(cx, way.relay, way.host_ports.clone());
                    let until = cx.now + ROUND_STAGGER;
                    return Next::Dialling { until };
                }
            }
        }
        if is_dialling {
            return Next::Waiting;
        }
        self.is_over = true;
        Next::Over {
            pause_max: pool.links.offline_wait(cx).unwrap_or(ROUND_PAUSE_MAX),
        }
    }

    /// Without a view, those that answer do not suffice: others may be back before their rests, which
    /// become long, are over.
    fn hurry_if_due(&mut self, cx: &Context<'_>, pool: &mut Pool) {
        let is_offline = pool.links.ids().is_empty();
        if cx.is_ready || is_offline || self.hurry_at > cx.now {
            return;
        }
        self.hurry_at = cx.now + ROUND_PAUSE_MAX;
        self.hurry(pool);
    }

    fn hurry(&self, pool: &mut Pool) {
        let relays: Vec<RelayId> = self.ways.iter().map(|way| way.relay).collect();
        pool.links.hurry(&relays);
    }

    /// Adds further peers to ask: guards that were tried, which know this client already, then
    /// seeds, then relays that are known or were last known to be somewhere.
    fn widen(&mut self, cx: &mut Context<'_>, pool: &Pool) {
        let guards = &pool.paths.guards;
        for relay in guards
            .in_order(cx.known())
            .into_iter()
            .filter(|&relay| guards.is_tried(relay))
        {
            if let Some(known) = cx
                .view()
                .get(&relay)
                .or_else(|| cx.book.last_known_of(&relay))
            {
                self.add(relay, known.host_ports(), false);
            }
        }
        let mut seeds = self.seeds.clone();
        shuffle(&mut seeds, cx.rng);
        for Peer { id, host_port } in seeds {
            let known = cx.view().get(&id).or_else(|| cx.book.last_known_of(&id));
            let known = known
                .map(VerifiedDescriptor::host_ports)
                .unwrap_or_default();
            self.add(id, known.into_iter().chain([host_port]).collect(), true);
        }
        let mut known: Vec<&VerifiedDescriptor> = cx
            .view()
            .iter()
            .chain(cx.book.last_known(cx.network))
            .collect();
        shuffle(&mut known, cx.rng);
        known.retain(|descriptor| !guards.is_untried(descriptor.relay));
        if self.is_helping {
            self.choose_helpers(cx.now, &known);
            known.retain(|descriptor| self.helpers.contains(&descriptor.relay));
        } else {
            known.sort_by_key(|descriptor| core::cmp::Reverse(descriptor.issued_at));
            known.truncate(self.reach);
        }
        for descriptor in known {
            self.add(descriptor.relay, descriptor.host_ports(), false);
        }
    }

    /// Chooses helpers from these, unless some were chosen lately.
    fn choose_helpers(&mut self, now: Instant, known: &[&VerifiedDescriptor]) {
        if self.helpers_until <= now {
            let others = known.iter().map(|descriptor| descriptor.relay);
            let others = others.filter(|&relay| self.ways.iter().all(|way| way.relay != relay));
            self.helpers = others.take(HELPERS_MAX).collect();
            self.helpers_until = now + HELPERS_FOR;
        }
    }

    fn add(&mut self, relay: RelayId, host_ports: Vec<String>, is_seed: bool) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.relay == relay) {
            way.is_seed |= is_seed;
            let others = host_ports
                .into_iter()
                .filter(|other| !way.host_ports.contains(other))
                .collect::<Vec<_>>();
            way.host_ports.extend(others);
            way.host_ports.truncate(HOST_PORTS_MAX);
        } else if self.ways.len() < WAYS_MAX {
            self.ways.push(Way {
                relay,
                host_ports,
                is_seed,
                asked_count: 0,
            });
        }
    }
}

/// One that does not answer holds up nobody: a seed may be gone for good.
fn is_passed(way: &Way, pool: &Pool, now: Instant) -> bool {
    way.asked_count > 0
        || match pool.links.reach(way.relay, now) {
            Reach::Resting(_) => true,
            Reach::Dialling(began_at) => began_at + ROUND_STAGGER <= now,
            Reach::Up(_) | Reach::Unknown => false,
        }
}
