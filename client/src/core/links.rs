//! Links to guards, and to any known relay while the view is too small: which are up, which are
//! being made, which rest.
//!
//! Never decides whom to dial: that is the guards' and the directory sync's. Hands out circuit ids
//! (docs/protocol.md §2.3).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use umbel_proto::chance::{Backoff, between, make_room};
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::limits::{
    CREATES_BURST_PERCENT, CREATES_PACE, LINK_ANSWER_MAX, LINK_LIFE_MIN, LINK_TEST_MAX,
    OFFLINE_RETRY, OFFLINE_RETRY_MAX, OFFLINE_SHORT,
};
use umbel_proto::link::{CircIds, LinkId, LinkOp};
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Instant, Moment, PeerClock, Rate, WallTime};

use super::context::Context;
use super::io::Warning;

/// Most relays whose failed dials are remembered; beyond it those whose rest ends first are
/// forgotten.
const RESTS_MAX: usize = 256;
/// The user is warned of the clock again once it differs by this much more, or less, seconds.
const CLOCK_TOLD_WITHIN: u64 = 3600;

/// All links of this client.
#[derive(Default)]
pub(super) struct Links {
    up: BTreeMap<LinkId, Link>,
    dialling: BTreeMap<RelayId, Dial>,
    rests: BTreeMap<RelayId, Backoff>,
    /// Addresses where dials of resting relays failed.
    failed_at: BTreeMap<RelayId, Vec<String>>,
    /// Relays that rest from a life before.
    resumed: Vec<RelayId>,
    /// Since when no link has lasted, if dials have failed since.
    outage_since: Option<Instant>,
    /// How far the peers' clocks were ahead when the user was last warned, seconds, if they still
    /// are.
    clock_told: Option<i64>,
}

struct Link {
    relay: RelayId,
    /// The address at its other end, once that is known.
    remote: Option<SocketAddr>,
    /// How to begin a circuit there, from the descriptor that the peer showed. The book does not
    /// keep every good one: it may be full, or nobody vouches for the peer (§8.2).
    target: Option<HopTarget>,
    circ_ids: CircIds,
    up_since: Instant,
    idle_since: Instant,
    creates: Rate,
    /// Something was asked over it at this time, and nothing came since.
    asked_at: Option<Instant>,
    /// It is closed at this time unless something comes before.
    suspect_until: Option<Instant>,
    clock: PeerClock,
}

struct Dial {
    host_ports: Vec<String>,
    began_at: Instant,
    gives_up_at: Instant,
}

/// Creates are sent a little slower than a relay admits them, so that none is refused (§6.4(4)).
fn create_rate(params: &Params, now: Instant) -> Rate {
    let interval =
        (Duration::from_secs(1) / params.creates_per_second.max(1)).div_f64(CREATES_PACE);
    let burst = params.creates_burst.saturating_mul(CREATES_BURST_PERCENT) / 100;
    Rate::new(interval, burst.saturating_sub(1), now)
}

/// How a relay can be reached right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// There is a link.
    Up(LinkId),
    /// A link is being made, since then.
    Dialling(Instant),
    /// Dialling failed; until then it is left alone.
    Resting(Instant),
    /// Nothing was tried.
    Unknown,
}

impl Links {
    pub(super) fn reach(&self, relay: RelayId, now: Instant) -> Reach {
        if let Some(link) = self.link_to(relay) {
            return Reach::Up(link);
        }
        if let Some(dial) = self.dialling.get(&relay) {
            return Reach::Dialling(dial.began_at);
        }
        match self.rests.get(&relay) {
            Some(rest) if !rest.is_due(now) => Reach::Resting(rest.retry_at()),
            _ => Reach::Unknown,
        }
    }

    pub(super) fn link_to(&self, relay: RelayId) -> Option<LinkId> {
        self.up
            .iter()
            .find(|(_, link)| link.relay == relay)
            .map(|(&id, _)| id)
    }

    /// The other end of this link is at this address.
    pub(super) fn handle_remote(&mut self, id: LinkId, remote: SocketAddr) {
        if let Some(link) = self.up.get_mut(&id) {
            link.remote = Some(remote);
        }
    }

    /// Where the link to this relay shows it to be.
    pub(super) fn remote(&self, relay: RelayId) -> Option<SocketAddr> {
        let mut of_relay = self.up.values().filter(|link| link.relay == relay);
        of_relay.find_map(|link| link.remote)
    }

    pub(super) fn relay_of(&self, link: LinkId) -> Option<RelayId> {
        self.up.get(&link).map(|link| link.relay)
    }

    pub(super) fn target_of(&self, link: LinkId) -> Option<&HopTarget> {
        self.up.get(&link).and_then(|link| link.target.as_ref())
    }

    /// To whom there is a link, over this one if there is one, and since when.
    pub(super) fn up_since(&self, best: Option<LinkId>) -> Option<(RelayId, Instant)> {
        let best = best.and_then(|link| self.up.get(&link));
        best.or_else(|| self.up.values().next())
            .map(|link| (link.relay, link.up_since))
    }

    /// Whether this link is up for so long that it makes up for failures before it.
    pub(super) fn has_lasted(&self, id: LinkId, now: Instant) -> bool {
        let link = self.up.get(&id);
        link.is_some_and(|link| link.up_since + LINK_LIFE_MIN <= now)
    }

    /// Whether a relay is being dialled.
    pub(super) fn is_dialling(&self) -> bool {
        !self.dialling.is_empty()
    }

    /// Whether dials failed, or links were lost.
    pub(super) fn has_failed(&self) -> bool {
        !self.rests.is_empty()
    }

    /// Nothing is up, and nothing is being tried.
    pub(super) fn is_cut_off(&self) -> bool {
        self.up.is_empty() && self.dialling.is_empty()
    }

    pub(super) fn dial(&mut self, cx: &mut Context<'_>, relay: RelayId, host_ports: Vec<String>) {
        if self.dialling.contains_key(&relay) || self.link_to(relay).is_some() {
            return;
        }
        // The shell has its own timeout and reports; this one is for a report that never comes.
        let gives_up_at = cx.now + cx.network.params.dial_timeout * 2;
        self.dialling.insert(
            relay,
            Dial {
                host_ports: host_ports.clone(),
                began_at: cx.now,
                gives_up_at,
            },
        );
        cx.out.links.push_back(LinkOp::Dial { relay, host_ports });
    }

    /// Takes a new link in. A second one to the same relay is closed: one serves all.
    pub(super) fn on_up(
        &mut self,
        cx: &mut Context<'_>,
        id: LinkId,
        relay: RelayId,
        target: Option<HopTarget>,
        clock: PeerClock,
    ) -> bool {
        self.dialling.remove(&relay);
        self.failed_at.remove(&relay);
        if self.link_to(relay).is_some() {
            cx.out.links.push_back(LinkOp::Close(id));
            return false;
        }
        let link = Link {
            relay,
            remote: None,
            target,
            circ_ids: CircIds::new(true),
            up_since: cx.now,
            idle_since: cx.now,
            creates: create_rate(&cx.network.params, cx.now),
            asked_at: None,
            suspect_until: None,
            clock,
        };
        self.up.insert(id, link);
        self.judge_clock(cx);
        true
    }

    /// Forgets a link that ended; returns whose it was. One that lasted makes up for the failures
    /// before it.
    pub(super) fn on_down(&mut self, cx: &mut Context<'_>, id: LinkId) -> Option<RelayId> {
        let Link {
            relay, up_since, ..
        } = self.up.remove(&id)?;
        if up_since + LINK_LIFE_MIN > cx.now {
            self.rest(cx, relay);
        } else {
            self.rests.remove(&relay);
            self.outage_since = None;
        }
        Some(relay)
    }

    pub(super) fn on_dial_failed(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        let dial = self.dialling.remove(&relay);
        self.rest(cx, relay);
        if let Some(Dial { host_ports, .. }) = dial {
            self.failed_at.insert(relay, host_ports);
        }
    }

    /// Leaves this relay alone for a while.
    pub(super) fn rest(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        if let Some(forgotten) = make_room(&mut self.rests, RESTS_MAX, relay) {
            self.failed_at.remove(&forgotten);
        }
        let offline_by = self.offline_wait(cx).map(|wait| cx.now + wait);
        let rest = self.rests.entry(relay).or_default();
        rest.fail(&cx.network.params, cx.now, cx.rng);
        offline_by.into_iter().for_each(|at| rest.retry_by(at));
    }

    /// The wait before another dial while no link is up. `None` while one is.
    pub(super) fn offline_wait(&mut self, cx: &mut Context<'_>) -> Option<Duration> {
        if !self.up.is_empty() {
            return None;
        }
        let age = cx.now.since(*self.outage_since.get_or_insert(cx.now));
        let most = if age < OFFLINE_SHORT {
            OFFLINE_RETRY
        } else {
            age.min(OFFLINE_RETRY_MAX)
        };
        Some(between(most / 2, most, cx.rng))
    }

    /// A person waits: while nothing is up, dials come as often as when the outage began.
    pub(super) fn restart_outage(&mut self, cx: &mut Context<'_>) {
        if !self.up.is_empty() || self.outage_since.is_none() {
            return;
        }
        self.outage_since = Some(cx.now);
        for rest in self.rests.values_mut() {
            rest.retry_by(cx.now + between(Duration::ZERO, OFFLINE_RETRY, cx.rng));
        }
    }

    /// This relay rests from a life before.
    pub(super) fn resume_rest(&mut self, relay: RelayId, failures: u32, until: Instant) {
        self.rests.insert(relay, Backoff::resumed(failures, until));
        self.resumed.push(relay);
    }

    /// Relays that rest from a life before may be dialled now: nothing else is left.
    pub(super) fn hurry_resumed(&mut self) {
        let resumed = core::mem::take(&mut self.resumed);
        self.hurry(&resumed);
    }

    /// Whether this relay rests for not having been where it was dialled, and may be elsewhere now.
    pub(super) fn failed_elsewhere(&self, relay: RelayId, host_ports: &[String]) -> bool {
        self.failed_at
            .get(&relay)
            .is_some_and(|dialled| host_ports.iter().any(|other| !dialled.contains(other)))
    }

    /// How long it still rests.
    pub(super) fn rest_left(&self, relay: RelayId, now: Instant) -> Duration {
        self.rests
            .get(&relay)
            .map_or(Duration::ZERO, |rest| rest.retry_at().since(now))
    }

    /// Something came over this link.
    pub(super) fn on_heard(&mut self, id: LinkId) {
        if let Some(link) = self.up.get_mut(&id) {
            (link.asked_at, link.suspect_until) = (None, None);
        }
    }

    /// Something that has to be answered soon was sent over this link.
    pub(super) fn on_asked(&mut self, id: LinkId, now: Instant) {
        if let Some(link) = self.up.get_mut(&id) {
            link.asked_at.get_or_insert(now);
        }
    }

    /// This link may be dead.
    pub(super) fn suspect(&mut self, id: LinkId, now: Instant) {
        if let Some(link) = self.up.get_mut(&id) {
            link.suspect_until.get_or_insert(now + LINK_TEST_MAX);
        }
    }

    /// Any link may be dead: the machine slept.
    pub(super) fn suspect_all(&mut self, now: Instant) {
        for link in self.up.values_mut() {
            link.suspect_until = Some(now + LINK_TEST_MAX);
        }
        for dial in self.dialling.values_mut() {
            dial.gives_up_at = dial.gives_up_at.max(now + LINK_TEST_MAX);
        }
        for rest in self.rests.values_mut() {
            rest.hurry();
        }
        self.outage_since = None;
    }

    /// Links that became suspect by being silent; the caller should make the peer say something.
    pub(super) fn newly_suspect(&mut self, now: Instant) -> Vec<LinkId> {
        let mut suspect = Vec::new();
        for (&id, link) in &mut self.up {
            if link.suspect_until.is_none()
                && link.asked_at.is_some_and(|at| at + LINK_ANSWER_MAX <= now)
            {
                link.suspect_until = Some(now + LINK_TEST_MAX);
                suspect.push(id);
            }
        }
        suspect
    }

    /// Suspect links that said nothing in time.
    pub(super) fn dead(&self, now: Instant) -> Vec<LinkId> {
        let dead = self
            .up
            .iter()
            .filter(|(_, link)| link.suspect_until.is_some_and(|until| until <= now));
        dead.map(|(&id, _)| id).collect()
    }

    /// When a circuit may be begun on this link, a past moment included.
    pub(super) fn next_create_at(&self, id: LinkId) -> Option<Instant> {
        self.up.get(&id).map(|link| link.creates.next_at())
    }

    /// The relay refused a circuit for being one too many.
    pub(super) fn on_too_fast(&mut self, id: LinkId, now: Instant) {
        if let Some(link) = self.up.get_mut(&id) {
            link.creates.empty(now);
        }
    }

    /// How often dialling this relay failed since there was a lasting link to it.
    #[cfg(test)]
    pub(super) fn failures(&self, relay: RelayId) -> u32 {
        self.rests.get(&relay).map_or(0, Backoff::failures)
    }

    /// These relays may be dialled again now.
    pub(super) fn hurry(&mut self, relays: &[RelayId]) {
        for relay in relays {
            if let Some(rest) = self.rests.get_mut(relay) {
                rest.hurry();
            }
            self.failed_at.remove(relay);
        }
    }

    /// Closes a link that is no longer needed, and counts it as gone at once.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, id: LinkId) {
        if let Some(link) = self.up.remove(&id) {
            cx.out.links.push_back(LinkOp::Close(id));
            if link.up_since + LINK_LIFE_MIN <= cx.now {
                self.outage_since = None;
            }
        }
    }

    pub(super) fn ids(&self) -> Vec<LinkId> {
        self.up.keys().copied().collect()
    }

    /// A circuit id that `is_used` does not know; `None` when the link is gone.
    pub(super) fn new_circ_id(
        &mut self,
        id: LinkId,
        now: Instant,
        is_used: impl Fn(CircId) -> bool,
    ) -> Option<CircId> {
        let link = self.up.get_mut(&id)?;
        link.creates.take(now);
        link.asked_at.get_or_insert(now);
        Some(link.circ_ids.next(is_used))
    }

    /// Gives up dials nobody reported on, and closes links that nothing uses and nobody wants.
    pub(super) fn tidy(&mut self, cx: &mut Context<'_>, is_used: impl Fn(LinkId, RelayId) -> bool) {
        let lost: Vec<RelayId> = self
            .dialling
            .iter()
            .filter(|(_, dial)| dial.gives_up_at <= cx.now)
            .map(|(&relay, _)| relay)
            .collect();
        for relay in lost {
            self.on_dial_failed(cx, relay);
        }
        let mut idle = Vec::new();
        for (&id, link) in &mut self.up {
            if is_used(id, link.relay) {
                link.idle_since = cx.now;
            } else if link.idle_since + cx.network.params.link_idle <= cx.now {
                idle.push(id);
            }
        }
        for id in idle {
            self.close(cx, id);
        }
    }

    /// When [`Links::tidy`] has something to do.
    pub(super) fn timeouts(&self, link_idle: Duration) -> impl Iterator<Item = Instant> {
        let dials = self.dialling.values().map(|dial| dial.gives_up_at);
        let suspects = self.up.values().filter_map(|link| link.suspect_until);
        let silent = self.up.values().filter(|link| link.suspect_until.is_none());
        let silent = silent
            .filter_map(|link| link.asked_at)
            .map(|at| at + LINK_ANSWER_MAX);
        dials.chain(suspects).chain(silent).chain(
            self.up
                .values()
                .map(move |link| link.idle_since + link_idle),
        )
    }

    /// How many of the peers' clocks agree with ours within what the network tolerates, and how
    /// many there are.
    pub(super) fn clocks_agreeing(&self, moment: Moment, params: &Params) -> (usize, usize) {
        PeerClock::agreeing(
            self.up.values().map(|link| link.clock),
            moment.now,
            moment.wall,
            params.clock_warn,
        )
    }

    /// The median of how far the peers' clocks are ahead of ours, seconds.
    fn clock_offset(&self, now: Instant, wall: WallTime) -> Option<i64> {
        PeerClock::median_ahead(self.up.values().map(|link| link.clock), now, wall)
    }

    /// Warns when the median of the peers' clocks and ours differ by more than the network bears.
    pub(super) fn judge_clock(&mut self, cx: &mut Context<'_>) {
        let Some(median) = self.clock_offset(cx.now, cx.wall) else {
            return;
        };
        let seconds = median.unsigned_abs();
        let is_off = seconds > cx.network.params.clock_warn.as_secs();
        let is_told = self
            .clock_told
            .is_some_and(|told| told.abs_diff(median) <= CLOCK_TOLD_WITHIN);
        match is_off {
            true if !is_told => {
                cx.warn(Warning::Clock { seconds });
                self.clock_told = Some(median);
            }
            true => {}
            false => self.clock_told = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Notice;
    use super::super::testing::When;
    use super::*;

    const RELAY: RelayId = RelayId([1; RelayId::LEN]);

    /// Does something with the links at `seconds` after the start.
    fn at<T>(seconds: u64, act: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let when = When {
            now: Instant::default() + Duration::from_secs(seconds),
            ..When::at(WallTime(seconds))
        };
        when.act(act).0
    }

    fn reach_after(links: &mut Links, id: u64, (up, down): (u64, u64)) -> Reach {
        assert!(at(up, |cx| links.on_up(
            cx,
            LinkId(id),
            RELAY,
            None,
            PeerClock::said(cx.now, cx.wall)
        )));
        at(down, |cx| {
            assert_eq!(links.on_down(cx, LinkId(id)), Some(RELAY));
            links.reach(RELAY, cx.now)
        })
    }

    #[test]
    fn a_relay_that_hangs_up_at_once_is_left_alone_ever_longer() {
        let mut links = Links::default();
        assert!(matches!(
            reach_after(&mut links, 1, (100, 101)),
            Reach::Resting(_)
        ));
        assert!(matches!(
            reach_after(&mut links, 2, (200, 201)),
            Reach::Resting(_)
        ));
        assert_eq!(links.failures(RELAY), 2);
    }

    #[test]
    fn a_relay_whose_link_lasted_may_be_dialled_again_at_once() {
        let mut links = Links::default();
        assert!(matches!(
            reach_after(&mut links, 1, (100, 101)),
            Reach::Resting(_)
        ));
        assert_eq!(reach_after(&mut links, 2, (200, 300)), Reach::Unknown);
        assert_eq!(links.failures(RELAY), 0);
    }

    #[test] // §8.2(3)
    fn a_link_shows_where_a_relay_is_and_nothing_else_does() {
        let mut links = Links::default();
        assert_eq!(links.remote(RELAY), None);
        at(100, |cx| {
            let clock = PeerClock::said(cx.now, cx.wall);
            links.on_up(cx, LinkId(1), RELAY, None, clock);
        });
        assert_eq!(links.remote(RELAY), None, "nobody said where it is");
        let remote = "192.0.2.2:9".parse().unwrap();
        links.handle_remote(LinkId(1), remote);
        assert_eq!(links.remote(RELAY), Some(remote));
        assert_eq!(links.remote(RelayId([2; RelayId::LEN])), None);
    }

    #[test] // §10.5(1)
    fn a_clock_that_jumps_again_is_told_of_again() {
        let mut links = Links::default();
        let noon = WallTime(1_790_000_000);
        When::at(noon).act(|cx| {
            let clock = PeerClock::said(cx.now, cx.wall);
            links.on_up(cx, LinkId(1), RELAY, None, clock)
        });
        let mut told = |ahead_hours: u64| {
            let when = When::at(noon + Duration::from_secs(ahead_hours * 3600));
            let ((), notices) = when.act(|cx| links.judge_clock(cx));
            notices.into_iter().find_map(|notice| match notice {
                Notice::Warning(Warning::Clock { seconds }) => Some(seconds),
                _ => None,
            })
        };
        assert_eq!(told(2), Some(7200));
        assert_eq!(told(2), None, "it is the same");
        assert_eq!(told(72), Some(72 * 3600));
        assert_eq!(told(0), None, "it is right again");
        assert_eq!(told(2), Some(7200));
    }

    #[test] // §6.4(7), §6.4(9)
    fn a_relay_has_moved_only_if_it_was_not_dialled_where_it_is_now() {
        let mut links = Links::default();
        let dialled = || vec!["192.0.2.1:1".to_owned(), "192.0.2.2:1".to_owned()];
        at(100, |cx| {
            links.dial(cx, RELAY, dialled());
            links.on_dial_failed(cx, RELAY);
        });
        assert!(!links.failed_elsewhere(RELAY, &dialled()));
        assert!(
            !links.failed_elsewhere(RELAY, &dialled()[1..]),
            "it was dialled there, and elsewhere too"
        );
        assert!(links.failed_elsewhere(RELAY, &["192.0.2.3:1".to_owned()]));
    }
}
