//! The peers that a client goes round while it has no view, or no guard that answers (docs/protocol.md
//! §8.3(9a)): guards that it has tried, seeds, and relays that it knows or last knew.

use umbel_proto::chance::shuffle;
use umbel_proto::directory::choice::{self, Candidates, Exclude};
use umbel_proto::directory::{Roles, VerifiedDescriptor};
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
        let known = if self.is_helping {
            self.choose_helpers(cx, pool)
        } else {
            self.draw_known(cx, pool)
        };
        for descriptor in known {
            self.add(descriptor.relay, descriptor.host_ports(), false);
        }
    }

    /// Helpers, anew unless some were chosen lately.
    fn choose_helpers<'a>(
        &mut self,
        cx: &mut Context<'a>,
        pool: &Pool,
    ) -> Vec<&'a VerifiedDescriptor> {
        let last_known = cx.book.last_known(cx.network);
        let mut known: Vec<_> = cx.view().iter().chain(last_known).collect();
        shuffle(&mut known, cx.rng);
        known.retain(|descriptor| !pool.paths.guards.is_untried(descriptor.relay));
        if self.helpers_until <= cx.now {
            let others = known.iter().map(|descriptor| descriptor.relay);
            let others = others.filter(|&relay| !self.contains(relay));
            self.helpers = others.take(HELPERS_MAX).collect();
            self.helpers_until = cx.now + HELPERS_FOR;
        }
        known.retain(|descriptor| self.helpers.contains(&descriptor.relay));
        known
    }

    /// More relays to ask without a view: drawn from those of the view, then the last known ones, the
    /// latest first. Where it can be, each is in address groups that nobody was reached in. Whoever is
    /// drawn has not put itself first, and nobody that was asked has.
    fn draw_known<'a>(&self, cx: &mut Context<'a>, pool: &Pool) -> Vec<&'a VerifiedDescriptor> {
        let is_untried = |relay| pool.paths.guards.is_untried(relay);
        let asked = self.ways.iter().filter(|way| !way.is_seed).count();
        let count = self.reach.saturating_sub(asked);
        let (book, network) = (cx.book, cx.network);
        let all = Candidates::new(book.view().iter().map(|it| &**it), network);
        let mut others = Exclude::nothing();
        let unwanted = all
            .weights()
            .map(|(relay, _)| relay)
            .filter(|&it| is_untried(it));
        let unwanted = unwanted.chain(self.ways.iter().map(|way| way.relay));
        unwanted.for_each(|relay| others.relay(relay));
        let mut apart = others.clone();
        for way in self.ways.iter().filter(|way| way.asked_count > 0) {
            let reached_at = pool.links.remote(way.relay);
            apart.groups(reached_at.into_iter().flat_map(|it| network.groups_of(it)));
        }
        let mut drawn: Vec<&VerifiedDescriptor> = Vec::new();
        while drawn.len() < count
            && let Some(relay) = choice::draw(&all, Roles::NONE, &apart, cx.rng)
                .or_else(|| choice::draw(&all, Roles::NONE, &others, cx.rng))
            && let Some(known) = book.view().get(&relay)
        {
            others.relay(relay);
            apart.groups_of(known, network);
            drawn.push(known);
        }
        let is_other = |it: &&VerifiedDescriptor| !self.contains(it.relay) && !is_untried(it.relay);
        let mut last_known: Vec<_> = book.last_known(network).filter(is_other).collect();
        last_known.sort_by_key(|descriptor| core::cmp::Reverse(descriptor.issued_at));
        drawn.extend(last_known.into_iter().take(count - drawn.len()));
        drawn
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::directory::Unverified;
    use umbel_proto::link::LinkId;
    use umbel_proto::network::Network;
    use umbel_proto::path::Paths;
    use umbel_proto::time::{Moment, PeerClock, WallTime};

    use super::super::super::context::Shared;
    use super::super::super::testing::{descriptor_with, id, surroundings};
    use super::*;

    const MOMENT: Moment = Moment {
        now: Instant::from_micros(0),
        wall: WallTime(1_790_000_000),
    };

    /// What a client knows that has these descriptors, and nothing else.
    struct Bench {
        shared: Shared,
        pool: Pool,
        round: Round,
        rng: ChaCha20Rng,
    }

    impl Bench {
        fn new(descriptors: impl IntoIterator<Item = Vec<u8>>) -> Self {
            let mut shared = surroundings(Network::local(), MOMENT.wall);
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            for bytes in descriptors {
                let (network, known) = (&shared.network, Unverified::decode(&bytes).unwrap());
                let heard = shared
                    .book
                    .hear(network, MOMENT.wall, None, known, &mut rng);
                heard.unwrap();
            }
            let pool = Pool::new(Paths::default(), &shared.network.params, MOMENT);
            let round = Round::new(Vec::new());
            Self {
                shared,
                pool,
                round,
                rng,
            }
        }

        fn draw(&mut self) -> Vec<&VerifiedDescriptor> {
            let mut cx = self.shared.context(MOMENT, &mut self.rng);
            self.round.draw_known(&mut cx, &self.pool)
        }
    }

    #[test] // §8.3(9a)
    fn nobody_is_asked_first_for_the_date_of_a_descriptor() {
        let late = MOMENT.wall + Duration::from_secs(600);
        let dated = |number| {
            let is_late = number > 15;
            descriptor_with(number, |it| {
                it.issued_at = if is_late { late } else { it.issued_at };
            })
        };
        let mut bench = Bench::new((1..=20).map(dated));
        let mut late_first = 0;
        for _ in 0..400 {
            let drawn = bench.draw();
            assert_eq!(drawn.len(), KNOWN_ASKED_FIRST);
            late_first += usize::from(drawn[0].issued_at == late);
        }
        assert!((60..140).contains(&late_first), "{late_first} of 400");
    }

    #[test] // §8.3(9a)
    fn whoever_is_asked_next_is_where_nobody_was_asked() {
        // The second is where the first is.
        let at = |number| {
            descriptor_with(number, |it| {
                let port = 9000 + u16::from(number.max(2));
                it.addresses = vec![([127, 0, 0, 1], port).into()];
            })
        };
        let mut bench = Bench::new((1..=4).map(at));
        bench.round.add(id(1), Vec::new(), true);
        bench.round.handle_asked(id(1));
        let mut cx = bench.shared.context(MOMENT, &mut bench.rng);
        let clock = PeerClock::said(MOMENT.now, MOMENT.wall);
        let links = &mut bench.pool.links;
        links.on_up(&mut cx, LinkId(1), id(1), None, clock);
        links.handle_remote(LinkId(1), ([127, 0, 0, 1], 9002).into());
        for _ in 0..20 {
            let drawn = bench.draw();
            assert_eq!(drawn.len(), 3);
            assert_eq!(drawn[2].relay, id(2));
        }
    }
}
