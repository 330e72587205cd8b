//! The relays that a relay reconciles with in turn (docs/protocol.md §8.3(9)).
//!
//! An attacker with many relays in few groups gets few of these places: they are drawn as hops are,
//! and no two share an address group. The longest-standing ones are anchors. They outlive a restart,
//! so that who makes a relay restart does not choose its peers.

use std::collections::BTreeSet;

use rand::CryptoRng;

use super::book::Book;
use super::choice::{self, Candidates, Exclude};
use super::descriptor::{Roles, VerifiedDescriptor};
use crate::ids::RelayId;
use crate::limits::{SYNC_PEER_BUSY_MAX, SYNC_PEER_FAILURES_MAX};
use crate::network::{Group, Network};
use crate::time::WallTime;

/// The peers of one relay.
#[derive(Debug)]
pub(super) struct SyncPeers {
    own: RelayId,
    /// Longest-standing first.
    peers: Vec<SyncPeer>,
    /// Whose turn is next; behind the last one it is nobody's.
    turn: usize,
}

#[derive(Debug)]
struct SyncPeer {
    relay: RelayId,
    has_answered: bool,
    /// Turns in a row that brought no answer.
    failures: u32,
    /// Turns that it was too busy for since it last answered to the end.
    busy: u32,
}

impl SyncPeers {
    /// The anchors are peers from the beginning, and have the first turns.
    pub(super) fn new(own: RelayId, anchors: Vec<RelayId>) -> Self {
        let anchor = |relay| SyncPeer {
            relay,
            has_answered: true,
            failures: 0,
            busy: 0,
        };
        Self {
            own,
            peers: anchors.into_iter().map(anchor).collect(),
            turn: 0,
        }
    }

    /// The peer whose turn it is. Between the last one's turn and the first one's is a turn of
    /// nobody, for relays that can't be peers yet.
    pub(super) fn next(
        &mut self,
        network: &Network,
        book: &Book,
        wall: WallTime,
        rng: &mut dyn CryptoRng,
    ) -> Option<RelayId> {
        self.leave_unfit(network, book);
        self.fill(network, book, wall, rng);
        let next = self.peers.get(self.turn).map(|peer| peer.relay);
        self.turn = next.map_or(0, |_| self.turn + 1);
        next
    }

    /// This relay answered to the end, if it is a peer.
    pub(super) fn handle_answered(&mut self, relay: RelayId) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.relay == relay) {
            peer.has_answered = true;
            peer.failures = 0;
            peer.busy = 0;
        }
    }

    /// This relay did not answer, if it is a peer.
    pub(super) fn handle_failed(&mut self, relay: RelayId) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.relay == relay) {
            peer.failures += 1;
        }
        self.leave(|peer| peer.failures >= SYNC_PEER_FAILURES_MAX);
    }

    /// This relay was too busy, if it is a peer. Others may have used up what it answers: that says
    /// nothing of it, unless it lasts.
    pub(super) fn handle_busy(&mut self, relay: RelayId) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.relay == relay) {
            peer.busy += 1;
            peer.failures = 0;
        }
        self.leave(|peer| peer.busy >= SYNC_PEER_BUSY_MAX);
    }

    /// This relay broke a rule.
    pub(super) fn handle_broken(&mut self, relay: RelayId) {
        self.leave(|peer| peer.relay == relay);
    }

    /// So many of those that have answered, the longest-standing ones.
    pub(super) fn anchors(&self, count: usize) -> Vec<RelayId> {
        let answered = self.peers.iter().filter(|peer| peer.has_answered);
        answered.take(count).map(|peer| peer.relay).collect()
    }

    /// Those that neither view nor last known addresses have leave, and those that have come to
    /// share an address group with one before them.
    fn leave_unfit(&mut self, network: &Network, book: &Book) {
        let mut groups = BTreeSet::<Group>::new();
        self.leave(|peer| {
            let descriptor = descriptor_of(book, &peer.relay);
            let of_peer = descriptor.map(|it| it.groups(network));
            let Some(of_peer) = of_peer.filter(|of_peer| groups.is_disjoint(of_peer)) else {
                return true;
            };
            groups.extend(of_peer);
            false
        });
    }

    /// Removes peers, and keeps the turn where it was.
    fn leave(&mut self, mut is_leaving: impl FnMut(&SyncPeer) -> bool) {
        let mut place = 0;
        let turn = self.turn;
        self.peers.retain(|peer| {
            let is_leaving = is_leaving(peer);
            if is_leaving && place < turn {
                self.turn -= 1;
            }
            place += 1;
            !is_leaving
        });
    }

    fn fill(&mut self, network: &Network, book: &Book, wall: WallTime, rng: &mut dyn CryptoRng) {
        let count = network.params.sync_peers;
        if self.peers.len() >= count {
            self.peers.truncate(count);
            return;
        }
        let candidates = Candidates::selectable(book.view(), network, wall);
        let mut exclude = Exclude::nothing();
        exclude.relay(self.own);
        for peer in &self.peers {
            if let Some(descriptor) = descriptor_of(book, &peer.relay) {
                exclude.groups_of(descriptor, network);
            }
        }
        while self.peers.len() < count
            && let Some(relay) = choice::draw(&candidates, Roles::NONE, &exclude, rng)
            && let Some(descriptor) = book.view().get(&relay)
        {
            exclude.groups_of(descriptor, network);
            self.peers.push(SyncPeer {
                relay,
                has_answered: false,
                failures: 0,
                busy: 0,
            });
        }
    }
}

fn descriptor_of<'a>(book: &'a Book, relay: &RelayId) -> Option<&'a VerifiedDescriptor> {
    let alive = book.view().get(relay);
    alive.or_else(|| book.last_known_of(relay))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::*;
    use crate::directory::testing::{self, WALL};
    use crate::network::Params;
    use crate::time::Duration;

    const HOSTILE: u32 = 200;

    /// A network in which relays are selectable at once.
    fn network() -> Network {
        let network = testing::public_network();
        Network {
            params: Params {
                selectable_age: Duration::ZERO,
                ..network.params
            },
            ..network
        }
    }

    /// A book of twenty honest relays, each in a group of its own, and many in two others.
    fn book(network: &Network) -> Book {
        let mut book = Book::new();
        for number in 0..20 {
            book.learn(network, WALL, testing::relay(number).unverified())
                .unwrap();
        }
        for number in 0..HOSTILE {
            let address = format!("77.{}.{}.1:9000", number % 2, number / 2);
            let hostile = testing::relay(100 + number)
                .with(|it| it.addresses = vec![address.parse().unwrap()]);
            book.learn(network, WALL, hostile.unverified()).unwrap();
        }
        book
    }

    fn is_hostile(book: &Book, relay: &RelayId) -> bool {
        let descriptor = book.view().get(relay).unwrap();
        descriptor.addresses[0].to_string().starts_with("77.")
    }

    fn id(number: u32) -> RelayId {
        testing::relay(number).descriptor.relay
    }

    /// All turns, up to nobody's.
    fn turns(peers: &mut SyncPeers, network: &Network, book: &Book, seed: u64) -> Vec<RelayId> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        std::iter::from_fn(|| peers.next(network, book, WALL, &mut rng)).collect()
    }

    #[test] // §8.3(9)
    fn an_address_group_has_one_of_the_eight() {
        let network = network();
        let book = book(&network);
        for seed in 0..20 {
            let mut peers = SyncPeers::new(id(0), Vec::new());
            let turns = turns(&mut peers, &network, &book, seed);
            assert_eq!(turns.len(), 8);
            let groups: BTreeSet<Group> = turns
                .iter()
                .flat_map(|relay| book.view().get(relay).unwrap().groups(&network))
                .collect();
            assert_eq!(groups.len(), 8, "each in a group of its own");
            let hostile = turns.iter().filter(|relay| is_hostile(&book, relay));
            assert!(hostile.count() <= 2, "200 relays in two groups");
            assert!(!turns.contains(&id(0)), "itself");
        }
    }

    #[test] // §8.3(9)
    fn a_peer_that_moves_into_anothers_group_leaves() {
        let network = network();
        let mut book = book(&network);
        let mut peers = SyncPeers::new(id(0), Vec::new());
        let before = turns(&mut peers, &network, &book, 1);
        let number_of = |relay: &RelayId| (0..300).find(|number| id(*number) == *relay).unwrap();
        let [stays, moves] = [&before[0], &before[1]];
        let address = book.view().get(stays).unwrap().addresses[0];
        let moved = testing::relay(number_of(moves)).with(|it| {
            it.addresses = vec![address];
            it.issued_at = WALL + Duration::from_secs(60);
        });
        book.learn(&network, WALL, moved.unverified()).unwrap();
        let after = turns(&mut peers, &network, &book, 2);
        assert_eq!(after.len(), 8);
        assert!(after.contains(stays) && !after.contains(moves));
    }

    #[test] // §8.3(9)
    fn the_longest_standing_that_answered_are_anchors() {
        let network = network();
        let book = book(&network);
        let mut peers = SyncPeers::new(id(0), Vec::new());
        let all = turns(&mut peers, &network, &book, 1);
        assert!(peers.anchors(2).is_empty(), "none has answered");
        all[2..].iter().for_each(|it| peers.handle_answered(*it));
        assert_eq!(peers.anchors(2), all[2..4]);
        let restarted = SyncPeers::new(id(0), peers.anchors(2)).peers;
        let relays: Vec<_> = restarted.iter().map(|peer| peer.relay).collect();
        assert_eq!(relays, all[2..4]);
    }

    #[test] // §8.3(9)
    fn who_brings_no_answer_twice_or_breaks_a_rule_is_replaced() {
        let network = network();
        let book = book(&network);
        let mut peers = SyncPeers::new(id(0), Vec::new());
        let before = turns(&mut peers, &network, &book, 1);
        peers.handle_failed(before[0]);
        peers.handle_answered(before[0]);
        peers.handle_failed(before[0]);
        peers.handle_busy(before[0]);
        peers.handle_failed(before[0]);
        assert_eq!(turns(&mut peers, &network, &book, 2), before);
        peers.handle_failed(before[0]);
        peers.handle_broken(before[5]);
        let after = turns(&mut peers, &network, &book, 3);
        assert_eq!(after.len(), 8);
        assert_eq!(after[..4], before[1..5], "the others keep their places");
    }

    #[test] // §8.3(9)
    fn who_is_busy_stays_a_peer_and_an_anchor_but_not_for_ever() {
        let network = network();
        let book = book(&network);
        let mut peers = SyncPeers::new(id(0), Vec::new());
        let before = turns(&mut peers, &network, &book, 1);
        let busy = before[0];
        for _ in 0..2 {
            peers.handle_answered(busy);
            (1..SYNC_PEER_BUSY_MAX).for_each(|_| peers.handle_busy(busy));
            assert_eq!(turns(&mut peers, &network, &book, 2), before);
            assert_eq!(peers.anchors(2), [busy]);
        }
        peers.handle_failed(busy);
        peers.handle_busy(busy);
        assert_eq!(
            turns(&mut peers, &network, &book, 3)[..7],
            before[1..],
            "its place is another's, whatever it did between"
        );
    }
}
