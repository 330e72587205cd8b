//! The links of a relay: who is at the other end, and which circuit ids are used on them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::link::{CircIds, LinkId};
use umbel_proto::network::Family;
use umbel_proto::time::{Instant, PeerClock, Rate};

/// One link.
#[derive(Debug)]
struct Link {
    peer: Option<RelayId>,
    circ_ids: CircIds,
    creates: Rate,
    /// For how many sweeps in a row it has carried no circuit.
    unused_sweeps: u32,
    clock: PeerClock,
    /// The other end's address.
    remote: SocketAddr,
    up_at: Instant,
    /// How to make a hop with the peer, by the descriptor that it showed.
    hop: Option<HopTarget>,
    /// We asked for its end: nothing that comes from it counts, and nothing new goes over it.
    is_closing: bool,
}

/// What is known of a link when it comes up.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) at: Instant,
    pub(super) peer: Option<RelayId>,
    pub(super) is_dialler: bool,
    /// The other end's address.
    pub(super) remote: SocketAddr,
    /// How to make a hop with the peer, by the descriptor that it showed.
    pub(super) hop: Option<HopTarget>,
}

/// All links that are up.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, Link>,
    by_relay: BTreeMap<RelayId, Vec<LinkId>>,
}

impl Links {
    pub(super) fn add(&mut self, id: LinkId, up: Up, creates: Rate, clock: PeerClock) {
        let Up {
            at: up_at,
            peer,
            is_dialler,
            remote,
            hop,
        } = up;
        let link = Link {
            peer,
            circ_ids: CircIds::new(is_dialler),
            creates,
            unused_sweeps: 0,
            clock,
            remote,
            up_at,
            hop,
            is_closing: false,
        };
        self.links.insert(id, link);
        if let Some(peer) = peer {
            self.by_relay.entry(peer).or_default().push(id);
        }
    }

    /// The link is gone. Names its peer if that was the last open link to it.
    pub(super) fn remove(&mut self, id: LinkId) -> Option<RelayId> {
        let peer = self.links.remove(&id)?.peer?;
        self.forget_way(id, peer)
    }

    /// The link is about to end. Names its peer if that was the last open link to it.
    pub(super) fn begin_close(&mut self, id: LinkId) -> Option<RelayId> {
        let link = self.links.get_mut(&id)?;
        link.is_closing = true;
        let peer = link.peer?;
        self.forget_way(id, peer)
    }

    fn forget_way(&mut self, id: LinkId, peer: RelayId) -> Option<RelayId> {
        let ids = self.by_relay.get_mut(&peer)?;
        ids.retain(|&other| other != id);
        if !ids.is_empty() {
            return None;
        }
        self.by_relay.remove(&peer);
        Some(peer)
    }

    /// Where the other ends of the open links to this relay are, of the oldest first, whoever
    /// dialled. A seed is dialled where the network file says, and may name other addresses than that.
    pub(super) fn remotes(&self, relay: &RelayId) -> impl Iterator<Item = SocketAddr> {
        let links = self.by_relay.get(relay).into_iter().flatten();
        links.filter_map(|id| self.remote(*id))
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn contains(&self, id: LinkId) -> bool {
        self.links.contains_key(&id)
    }

    /// Whether this link is up, and nobody has asked for its end.
    pub(super) fn is_open(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| !link.is_closing)
    }

    /// The link to use toward this relay: the oldest, so that both ends settle on one.
    pub(super) fn toward(&self, relay: &RelayId) -> Option<LinkId> {
        self.by_relay.get(relay)?.first().copied()
    }

    /// The oldest open link to this relay over this address family.
    pub(super) fn toward_over(&self, relay: &RelayId, family: Family) -> Option<LinkId> {
        let is_over = |id: &&LinkId| {
            let link = self.links.get(id);
            link.is_some_and(|link| Family::from(link.remote) == family)
        };
        self.by_relay.get(relay)?.iter().find(is_over).copied()
    }

    /// Whether a link over this address family, with another relay than that one, has been up since
    /// then.
    pub(super) fn is_online(&self, family: Family, except: RelayId, since: Instant) -> bool {
        self.links.values().any(|link| {
            !link.is_closing
                && link.peer.is_some_and(|peer| peer != except)
                && Family::from(link.remote) == family
                && link.up_at <= since
        })
    }

    /// How to make a hop with the relay at the other end, by the descriptor that it showed.
    pub(super) fn hop(&self, id: LinkId) -> Option<HopTarget> {
        self.links.get(&id)?.hop.clone()
    }

    /// Where the other end of this link is.
    pub(super) fn remote(&self, id: LinkId) -> Option<SocketAddr> {
        self.links.get(&id).map(|link| link.remote)
    }

    /// The relay at the other end of this link, and where its end is.
    pub(super) fn relay_at(&self, id: LinkId) -> Option<(RelayId, SocketAddr)> {
        let link = self.links.get(&id)?;
        Some((link.peer?, link.remote))
    }

    /// The clocks of linked relays, each from the oldest link with it.
    pub(super) fn clocks(&self) -> impl Iterator<Item = (RelayId, PeerClock)> {
        let oldest =
            |(&relay, ids): (&RelayId, &Vec<LinkId>)| Some((relay, self.links.get(ids.first()?)?));
        self.by_relay
            .iter()
            .filter_map(oldest)
            .map(|(relay, link)| (relay, link.clock))
    }

    /// Links to relays, open ones.
    pub(super) fn with_relays(&self) -> impl Iterator<Item = (LinkId, RelayId)> {
        self.links
            .iter()
            .filter(|(_, link)| !link.is_closing)
            .filter_map(|(&id, link)| Some((id, link.peer?)))
    }

    /// Relays that are linked now.
    pub(super) fn relays(&self) -> impl Iterator<Item = &RelayId> {
        self.by_relay.keys()
    }

    /// Notes which links carry no circuit now. Returns those that this relay dialled and that
    /// carried none for `sweeps_max` sweeps (§2.6(6)).
    pub(super) fn sweep(
        &mut self,
        sweeps_max: u32,
        is_unused: impl Fn(LinkId) -> bool,
    ) -> Vec<LinkId> {
        for (&id, link) in &mut self.links {
            link.unused_sweeps = if is_unused(id) {
                link.unused_sweeps.saturating_add(1)
            } else {
                0
            };
        }
        let is_over = |link: &Link| {
            link.circ_ids.is_dialler() && !link.is_closing && link.unused_sweeps >= sweeps_max
        };
        self.links
            .iter()
            .filter(|(_, link)| is_over(link))
            .map(|(&id, _)| id)
            .collect()
    }

    /// Whether the peer may choose this circuit id (§2.3).
    pub(super) fn is_peers_circ(&self, id: LinkId, circ: CircId) -> bool {
        self.links
            .get(&id)
            .is_some_and(|link| !link.circ_ids.is_ours(circ))
    }

    /// Whether one more create is admitted from this link now.
    pub(super) fn admit_create(&mut self, id: LinkId, now: Instant) -> bool {
        self.links
            .get_mut(&id)
            .is_some_and(|link| link.creates.try_take(now))
    }

    /// A circuit id of ours on this link that `is_used` does not know; `None` when the link is
    /// gone.
    pub(super) fn new_circ(
        &mut self,
        id: LinkId,
        is_used: impl Fn(CircId) -> bool,
    ) -> Option<CircId> {
        Some(self.links.get_mut(&id)?.circ_ids.next(is_used))
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::network::Params;
    use umbel_proto::time::WallTime;

    use super::super::admit::create_rate;
    use super::*;

    #[test] // §2.6(6)
    fn a_link_of_ours_that_carries_no_circuit_is_named_in_time() {
        let now = Instant::from_micros(5);
        let mut links = Links::default();
        let [unused, theirs, used] = [1, 2, 3].map(LinkId);
        for (id, is_ours) in [(unused, true), (theirs, false), (used, true)] {
            let creates = create_rate(&Params::DEFAULT, true, now);
            let clock = PeerClock::said(now, WallTime(0));
            let remote = SocketAddr::from(([127, 0, 0, 1], 9000));
            let up = Up {
                at: now,
                peer: Some(RelayId([1; 32])),
                is_dialler: is_ours,
                remote,
                hop: None,
            };
            links.add(id, up, creates, clock);
        }
        for _ in 0..2 {
            assert!(links.sweep(3, |id| id != used).is_empty());
        }
        assert_eq!(links.sweep(3, |id| id != used), [unused]);
        assert!(links.sweep(3, |_| false).is_empty(), "it is used again");
    }
}
