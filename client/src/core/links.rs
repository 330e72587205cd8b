//! Links to guards, and to any known relay while the view is too small: which are up, which are being made, which rest.
//!
//! Never decides whom to dial: that is the guards' and the directory sync's. Owns circuit ids (docs/protocol.md §2.3):
//! the client dials, so its ids have the top bit set; they count up and are never used twice on a link.

use std::collections::BTreeMap;

use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::time::{Duration, Instant};

use super::Context;
use super::chance::Backoff;
use super::io::{LinkId, LinkOp, Warning};

/// Most relays whose failed dials are remembered; beyond it those whose rest ends first are forgotten.
const RESTS_MAX: usize = 256;
/// A link that ends sooner than this counts as a failed dial: its relay rests, lest it be dialled in a loop.
const LIFE_MIN: Duration = Duration::from_secs(30);
/// Bit that marks a dialler's circuit ids.
const DIALLER_BIT: u32 = 0x8000_0000;

/// All links of this client.
#[derive(Default)]
pub(super) struct Links {
    up: BTreeMap<LinkId, Link>,
    dialling: BTreeMap<RelayId, Dial>,
    rests: BTreeMap<RelayId, Backoff>,
    is_clock_told: bool,
}

struct Link {
    relay: RelayId,
    /// How to begin a circuit there, from the peer's own descriptor.
    target: Option<HopTarget>,
    circ_count: u32,
    up_since: Instant,
    idle_since: Instant,
    /// How far the peer's clock is ahead of ours, seconds.
    clock_offset: i64,
}

struct Dial {
    began_at: Instant,
    gives_up_at: Instant,
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
        self.up.iter().find(|(_, link)| link.relay == relay).map(|(&id, _)| id)
    }

    pub(super) fn relay_of(&self, link: LinkId) -> Option<RelayId> {
        self.up.get(&link).map(|link| link.relay)
    }

    pub(super) fn target_of(&self, link: LinkId) -> Option<&HopTarget> {
        self.up.get(&link).and_then(|link| link.target.as_ref())
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
        self.dialling.insert(relay, Dial { began_at: cx.now, gives_up_at });
        cx.out.links.push_back(LinkOp::Dial { relay, host_ports });
    }

    /// Takes a new link in. A second one to the same relay is closed: one serves all.
    pub(super) fn on_up(
        &mut self,
        cx: &mut Context<'_>,
        id: LinkId,
        relay: RelayId,
        target: Option<HopTarget>,
        clock_offset: i64,
    ) -> bool {
        self.dialling.remove(&relay);
        if self.link_to(relay).is_some() {
            cx.out.links.push_back(LinkOp::Close(id));
            return false;
        }
        self.up.insert(id, Link { relay, target, circ_count: 0, up_since: cx.now, idle_since: cx.now, clock_offset });
        self.judge_clock(cx);
        true
    }

    /// Forgets a link that ended; returns whose it was. One that lasted makes up for the failures before it.
    pub(super) fn on_down(&mut self, cx: &mut Context<'_>, id: LinkId) -> Option<RelayId> {
        let Link { relay, up_since, .. } = self.up.remove(&id)?;
        if up_since + LIFE_MIN > cx.now {
            self.rest(cx, relay);
        } else {
            self.rests.remove(&relay);
        }
        Some(relay)
    }

    pub(super) fn on_dial_failed(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        self.dialling.remove(&relay);
        self.rest(cx, relay);
    }

    /// Leaves this relay alone for a while.
    pub(super) fn rest(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        if self.rests.len() >= RESTS_MAX
            && !self.rests.contains_key(&relay)
            && let Some(first) = self.rests.iter().min_by_key(|(_, rest)| rest.retry_at()).map(|(&relay, _)| relay)
        {
            self.rests.remove(&first);
        }
        self.rests.entry(relay).or_default().fail(cx);
    }

    /// How often dialling this relay failed since there was a lasting link to it.
    pub(super) fn failures(&self, relay: RelayId) -> u32 {
        self.rests.get(&relay).map_or(0, Backoff::failures)
    }

    /// These relays may be dialled again now.
    pub(super) fn hurry(&mut self, relays: &[RelayId]) {
        for relay in relays {
            if let Some(rest) = self.rests.get_mut(relay) {
                rest.hurry();
            }
        }
    }

    /// Closes a link that is of no more use; its end is taken as done.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, id: LinkId) {
        if self.up.remove(&id).is_some() {
            cx.out.links.push_back(LinkOp::Close(id));
        }
    }

    pub(super) fn ids(&self) -> Vec<LinkId> {
        self.up.keys().copied().collect()
    }

    /// A circuit id that was never used on this link. `None` when there is no such link, or it has none left.
    pub(super) fn new_circ_id(&mut self, id: LinkId) -> Option<CircId> {
        let link = self.up.get_mut(&id)?;
        let count = link.circ_count.checked_add(1).filter(|count| count & DIALLER_BIT == 0)?;
        link.circ_count = count;
        CircId::new(DIALLER_BIT | count)
    }

    /// Whether this id was ever given out on this link: a cell for it may still be on its way when its circuit is gone.
    pub(super) fn was_given_out(&self, id: LinkId, circ: CircId) -> bool {
        let count = circ.number() & !DIALLER_BIT;
        self.up.get(&id).is_some_and(|link| circ.is_dialler() && count >= 1 && count <= link.circ_count)
    }

    /// Gives up dials nobody reported on, and closes links that nothing uses and nobody wants.
    pub(super) fn tidy(&mut self, cx: &mut Context<'_>, is_used: impl Fn(LinkId, RelayId) -> bool) {
        let lost: Vec<RelayId> =
            self.dialling.iter().filter(|(_, dial)| dial.gives_up_at <= cx.now).map(|(&relay, _)| relay).collect();
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
        dials.chain(self.up.values().map(move |link| link.idle_since + link_idle))
    }

    /// Warns when the median of the peers' clocks and ours differ by more than the network bears.
    fn judge_clock(&mut self, cx: &mut Context<'_>) {
        let mut offsets: Vec<i64> = self.up.values().map(|link| link.clock_offset).collect();
        offsets.sort_unstable();
        let Some(median) = offsets.get(offsets.len() / 2) else { return };
        let seconds = median.unsigned_abs();
        let is_off = seconds > cx.network.params.clock_warn.as_secs();
        if is_off && !self.is_clock_told {
            cx.warn(Warning::Clock { seconds });
        }
        self.is_clock_told = is_off;
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::directory::NetView;
    use umbel_proto::directory::choice::Candidates;
    use umbel_proto::network::Network;
    use umbel_proto::time::WallTime;

    use super::super::Outgoing;
    use super::*;

    const RELAY: RelayId = RelayId([1; RelayId::LEN]);

    /// Does something with the links at `seconds` after the start.
    fn at<T>(seconds: u64, act: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let network = Network::local();
        let mut cx = Context {
            now: Instant::default() + Duration::from_secs(seconds),
            wall: WallTime(seconds),
            network: &network,
            view: &NetView::new(),
            candidates: &Candidates::new([], &network),
            is_ready: false,
            rng: &mut rand::rng(),
            out: &mut Outgoing::default(),
        };
        act(&mut cx)
    }

    fn reach_after(links: &mut Links, id: u64, (up, down): (u64, u64)) -> Reach {
        assert!(at(up, |cx| links.on_up(cx, LinkId(id), RELAY, None, 0)));
        at(down, |cx| {
            assert_eq!(links.on_down(cx, LinkId(id)), Some(RELAY));
            links.reach(RELAY, cx.now)
        })
    }

    #[test]
    fn a_relay_that_hangs_up_at_once_is_left_alone_ever_longer() {
        let mut links = Links::default();
        assert!(matches!(reach_after(&mut links, 1, (100, 101)), Reach::Resting(_)));
        assert!(matches!(reach_after(&mut links, 2, (200, 201)), Reach::Resting(_)));
        assert_eq!(links.failures(RELAY), 2);
    }

    #[test]
    fn a_relay_whose_link_lasted_may_be_dialled_again_at_once() {
        let mut links = Links::default();
        assert!(matches!(reach_after(&mut links, 1, (100, 101)), Reach::Resting(_)));
        assert_eq!(reach_after(&mut links, 2, (200, 300)), Reach::Unknown);
        assert_eq!(links.failures(RELAY), 0);
    }
}
