//! Many gossip machines without relays, links or circuits: a call is a round trip.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;

use super::*;
use crate::directory::range::IdRange;
use crate::directory::testing::{self, WALL};
use crate::directory::view::Trust;
use crate::directory::{Age, Belief};
use crate::directory::{DirectoryRefusal, Source, reconcile};

/// One machine, the book it drives, and its own descriptor.
struct Node {
    gossip: Gossip,
    book: Book,
    descriptor: Vec<u8>,
    seeds: Vec<Peer>,
    stored_anchors: Vec<RelayId>,
    is_up: bool,
}

/// Machines that reach each other by a call.
struct Gossips {
    network: Network,
    nodes: BTreeMap<RelayId, Node>,
    /// In the order of their numbers.
    ids: Vec<RelayId>,
    /// Whom each exchange is with.
    circuits: BTreeMap<(RelayId, ExchangeId), RelayId>,
    now: Instant,
    rng: ChaCha20Rng,
}

impl Gossips {
    /// Relays of which all but the first know nothing but the first.
    fn new(count: u32) -> Self {
        let network = testing::public_network();
        let ids: Vec<_> = (0..count)
            .map(|number| testing::relay(number).descriptor.relay)
            .collect();
        let mut nodes = BTreeMap::new();
        for (number, &id) in (0..count).zip(&ids) {
            let descriptor = testing::relay(number).verified().bytes().to_vec();
            let mut book = Book::new();
            book.own(&network, WALL, &descriptor).unwrap();
            let seed = Peer {
                id: ids[0],
                host_port: "seed.example:9000".to_owned(),
            };
            let node = Node {
                gossip: Gossip::new(id, Vec::new(), Instant::default()),
                book,
                descriptor,
                seeds: vec![seed],
                stored_anchors: Vec::new(),
                is_up: true,
            };
            nodes.insert(id, node);
        }
        Self {
            network,
            nodes,
            ids,
            circuits: BTreeMap::new(),
            now: Instant::default(),
            rng: ChaCha20Rng::seed_from_u64(11),
        }
    }

    /// A relay as a source, where its descriptor says.
    fn source(&self, relay: RelayId) -> Source {
        let known = Unverified::decode(&self.nodes[&relay].descriptor);
        let known = known.unwrap().believed();
        Source::dialled_by_others(&self.network, &known)
    }

    /// Lets one machine act, then does what it wants.
    fn act(&mut self, id: RelayId, act: impl FnOnce(&mut Gossip, Known<'_>, &mut ChaCha20Rng)) {
        let node = self.nodes.get_mut(&id).unwrap();
        let known = Known {
            network: &self.network,
            book: &node.book,
            seeds: &node.seeds,
            wall: WALL,
        };
        act(&mut node.gossip, known, &mut self.rng);
        while let Some(out) = self.nodes.get_mut(&id).and_then(|it| it.gossip.poll_out()) {
            self.on_out(id, out);
        }
    }

    fn on_out(&mut self, id: RelayId, out: Out) {
        let now = self.now;
        match out {
            Out::Dial(other) if self.nodes.get(&other).is_some_and(|it| it.is_up) => {
                self.link(id, other);
            }
            Out::Dial(other) => self.act(id, |it, known, _| it.handle_dial_failed(other, known)),
            Out::Connect {
                exchange,
                relay,
                due_at,
            } => {
                assert!(due_at > now);
                if self.nodes.get(&relay).is_some_and(|it| it.is_up) {
                    self.circuits.insert((id, exchange), relay);
                    self.act(id, |it, known, _| it.handle_connected(exchange, known));
                } else {
                    self.act(id, |it, known, _| it.handle_failed(exchange, known));
                }
            }
            Out::Ask(exchange, request) => {
                let reply = self.serve(self.circuits[&(id, exchange)], request);
                self.act(id, |it, known, _| {
                    it.handle_reply(now, exchange, reply, known);
                });
            }
            Out::Learned {
                source, descriptor, ..
            } => {
                let relay = descriptor.relay();
                self.learn(id, *descriptor);
                let at = self.source(source);
                let node = self.nodes.get_mut(&id).unwrap();
                node.book.handle_listed(&at, &relay);
            }
            Out::Listed(listing) => {
                let at = self.source(listing.source);
                let node = self.nodes.get_mut(&id).unwrap();
                node.book.handle_listing(&at, &listing);
            }
            Out::Anchors(anchors) => self.nodes.get_mut(&id).unwrap().stored_anchors = anchors,
            Out::Done(exchange) => drop(self.circuits.remove(&(id, exchange))),
            Out::Broken(_, fault) => panic!("nobody broke a rule: {fault:?}"),
        }
    }

    fn link(&mut self, one: RelayId, other: RelayId) {
        let now = self.now;
        for (id, peer) in [(one, other), (other, one)] {
            let said = Unverified::decode(&self.nodes[&peer].descriptor).unwrap();
            self.learn(id, said);
            self.act(id, |it, known, _| it.handle_linked(now, peer, known));
        }
    }

    fn serve(&mut self, id: RelayId, request: DirectoryRequest) -> DirectoryReply {
        match request {
            DirectoryRequest::Sync(request) => {
                DirectoryReply::Sync(reconcile::answer(self.nodes[&id].book.view(), &request))
            }
            DirectoryRequest::Push(list) => {
                let pushed = list.iter().map(|bytes| Unverified::decode(bytes).unwrap());
                let news = pushed.filter(|it| self.learn(id, it.clone())).count();
                DirectoryReply::Pushed {
                    accepted: u32::try_from(news).unwrap(),
                }
            }
            DirectoryRequest::PublishInbox(_)
            | DirectoryRequest::LookupInbox { .. }
            | DirectoryRequest::NetworkFile => {
                panic!("gossip asks no such thing")
            }
        }
    }

    fn learn(&mut self, id: RelayId, descriptor: Unverified) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        if descriptor.relay() == id {
            return false;
        }
        let learned = node.book.learn(&self.network, WALL, descriptor).unwrap();
        if learned.is_news() {
            node.gossip.handle_news(learned.descriptor.bytes());
        }
        learned.is_news()
    }

    /// Runs what is due for so long.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let up = self.nodes.iter().filter(|(_, node)| node.is_up);
            let next = up
                .map(|(&id, node)| (node.gossip.poll_timeout().0, id))
                .min();
            let Some((at, id)) = next.filter(|(at, _)| *at <= end) else {
                break;
            };
            self.now = at;
            self.act(id, |it, known, rng| it.handle_timeout(at, known, rng));
        }
        self.now = end;
    }

    fn views(&self) -> Vec<usize> {
        let up = self.nodes.values().filter(|node| node.is_up);
        up.map(|node| node.book.view().len()).collect()
    }

    /// A relay is gone: its links are, and nobody reaches it.
    fn take_down(&mut self, id: RelayId) {
        self.nodes.get_mut(&id).unwrap().is_up = false;
        for node in self.nodes.values_mut() {
            let known = known(&self.network, &node.book);
            node.gossip.handle_unlinked(self.now, id, known);
        }
    }
}

#[test] // §8.3(9), §8.3(10), §8.3(11)
fn relays_that_know_only_a_seed_come_to_know_all() {
    let mut all = Gossips::new(60);
    let interval = all.network.params.sync_interval;
    all.pass(interval * 2);
    assert_eq!(all.views(), [60; 60]);
}

#[test] // §8.3(9)
fn a_relay_that_was_away_is_found_again_without_a_seed() {
    let mut all = Gossips::new(20);
    let interval = all.network.params.sync_interval;
    all.pass(interval * 2);
    let (seed, away) = (all.ids[0], all.ids[7]);
    all.take_down(seed);
    let others: Vec<_> = all.ids.iter().copied().filter(|&it| it != away).collect();
    let (node, network) = (all.nodes.get_mut(&away).unwrap(), testing::public_network());
    for &other in &others {
        let known = known(&network, &node.book);
        node.gossip.handle_unlinked(all.now, other, known);
    }
    all.pass(ALONE_INTERVAL);
    assert!(
        !all.nodes[&away].gossip.linked.is_empty(),
        "it dialled relays of its view"
    );
}

/// The relays that it dials or asks next, whoever it is linked to.
fn asked(node: &mut Node, now: Instant, rng: &mut ChaCha20Rng) -> Vec<RelayId> {
    let network = testing::public_network();
    let known = known(&network, &node.book);
    node.gossip.handle_timeout(now, known, rng);
    let outs = std::iter::from_fn(|| node.gossip.poll_out());
    outs.filter_map(|out| match out {
        Out::Dial(relay) | Out::Connect { relay, .. } => Some(relay),
        _ => None,
    })
    .collect()
}

#[test] // §8.3(9)
fn a_relay_that_restarts_among_hostile_peers_asks_its_anchors() {
    let mut all = Gossips::new(30);
    let interval = all.network.params.sync_interval;
    all.pass(interval * 12);
    let first = all.ids[3];
    let node = all.nodes.get_mut(&first).unwrap();
    let anchors = node.stored_anchors.clone();
    assert_eq!(anchors.len(), 2);
    for is_surrounded in [false, true] {
        node.gossip = Gossip::new(first, anchors.clone(), all.now);
        if is_surrounded {
            // All others have made links before it acts for the first time.
            let hostile = all.ids.iter().filter(|id| !anchors.contains(id));
            for &hostile in hostile {
                let known = known(&all.network, &node.book);
                node.gossip.handle_linked(all.now, hostile, known);
            }
        }
        let mut dialled = asked(node, all.now, &mut all.rng);
        let later = all.now + interval * 2;
        dialled.extend(asked(node, later, &mut all.rng));
        for anchor in &anchors {
            assert!(dialled.contains(anchor), "surrounded: {is_surrounded}");
        }
    }
}

#[test] // §8.3(9)
fn a_peer_that_breaks_a_rule_leaves_at_once_and_one_that_fails_does_not() {
    let mut all = Gossips::new(30);
    all.pass(all.network.params.sync_interval * 12);
    let first = all.ids[3];
    let node = all.nodes.get_mut(&first).unwrap();
    let anchors = node.stored_anchors.clone();
    for breaks in [false, true] {
        node.gossip = Gossip::new(first, anchors.clone(), all.now);
        let known = known(&all.network, &node.book);
        for &anchor in &anchors {
            node.gossip.handle_linked(all.now, anchor, known);
        }
        node.gossip.handle_timeout(all.now, known, &mut all.rng);
        let mut outs = std::iter::from_fn(|| node.gossip.poll_out());
        let asked = outs.find_map(|out| match out {
            Out::Connect {
                exchange, relay, ..
            } if anchors.contains(&relay) => Some((exchange, relay)),
            _ => None,
        });
        let (exchange, relay) = asked.expect("an anchor is asked");
        if breaks {
            node.gossip.handle_broken(exchange, known);
        } else {
            node.gossip.handle_failed(exchange, known);
        }
        assert_eq!(node.gossip.peers.anchors(2).contains(&relay), !breaks);
    }
}

#[test] // §8.3(6)
fn a_peer_that_passes_on_what_is_forged_leaves_and_is_heard_no_more() {
    let mut all = Gossips::new(30);
    all.pass(all.network.params.sync_interval * 12);
    let first = all.ids[3];
    let node = all.nodes.get_mut(&first).unwrap();
    let anchors = node.stored_anchors.clone();
    let page = |numbers: core::ops::Range<u32>| {
        let mut relays: Vec<_> = numbers.map(testing::relay).collect();
        relays.sort_by_key(|it| it.descriptor.relay);
        let descriptors = relays.iter().map(|it| ByteBuf::from(it.bytes()));
        let page = reconcile::PageReply {
            covered: IdRange::ALL.until(),
            descriptors: descriptors.collect(),
            wanted: Vec::new(),
            refused: Vec::new(),
        };
        DirectoryReply::Sync(reconcile::SyncReply::Page(page))
    };
    let differs = reconcile::SyncReply::Compared(vec![reconcile::Outcome::Few]);
    node.gossip = Gossip::new(first, anchors.clone(), all.now);
    let known = known(&all.network, &node.book);
    for &anchor in &anchors {
        node.gossip.handle_linked(all.now, anchor, known);
    }
    node.gossip.handle_timeout(all.now, known, &mut all.rng);
    let mut outs = core::iter::from_fn(|| node.gossip.poll_out());
    let asked = outs.find_map(|out| match out {
        Out::Connect {
            exchange, relay, ..
        } => Some((exchange, relay)),
        _ => None,
    });
    let (exchange, source) = asked.expect("an anchor is asked");
    outs.for_each(drop);
    node.gossip.handle_connected(exchange, known);
    for reply in [DirectoryReply::Sync(differs), page(40..50)] {
        node.gossip.handle_reply(all.now, exchange, reply, known);
    }
    let first_learned = core::iter::from_fn(|| node.gossip.poll_out())
        .find(|out| matches!(out, Out::Learned { .. }));
    assert!(first_learned.is_some());
    node.gossip.handle_forged(exchange, source, known);
    let mut left = core::iter::from_fn(|| node.gossip.poll_out());
    let is_heard = |out: Out| matches!(out, Out::Learned { .. } | Out::Listed(_));
    assert!(!left.any(is_heard));
    assert!(!node.gossip.peers.anchors(2).contains(&source));
}

#[test] // §8.3(9)
fn while_nobody_can_be_reached_anchors_stay() {
    let mut all = Gossips::new(30);
    all.pass(all.network.params.sync_interval * 12);
    let first = all.ids[3];
    let node = all.nodes.get_mut(&first).unwrap();
    let anchors = node.stored_anchors.clone();
    node.gossip = Gossip::new(first, anchors.clone(), all.now);
    for second in 0..600 {
        let now = all.now + Duration::from_secs(second);
        for relay in asked(node, now, &mut all.rng) {
            let known = known(&all.network, &node.book);
            node.gossip.handle_dial_failed(relay, known);
        }
    }
    assert_eq!(node.gossip.anchors, anchors);
    assert_eq!(node.gossip.peers.anchors(2), anchors);
}

#[test] // §8.3(9)
fn a_relay_whose_links_are_all_hostile_soon_asks_another() {
    let mut all = Gossips::new(30);
    all.pass(all.network.params.sync_interval * 2);
    let first = all.ids[3];
    let node = all.nodes.get_mut(&first).unwrap();
    node.gossip = Gossip::new(first, Vec::new(), all.now);
    for &hostile in &all.ids[10..] {
        let known = known(&all.network, &node.book);
        node.gossip.handle_linked(all.now, hostile, known);
    }
    node.gossip.sync_at = Instant::from_micros(u64::MAX);
    let felt = asked(node, all.now + FEELER_INTERVAL, &mut all.rng);
    assert!(matches!(felt[..], [relay] if all.ids[..10].contains(&relay) && relay != first));
    let known = known(&all.network, &node.book);
    node.gossip.handle_linked(all.now, felt[0], known);
    assert!(matches!(node.gossip.poll_out(), Some(Out::Connect { relay, .. }) if relay == felt[0]));
}

#[test] // §8.3(9), §8.2(12)
fn every_other_feeler_goes_to_a_relay_to_be_met_and_once_a_day() {
    let mut all = Gossips::new(30);
    all.pass(all.network.params.sync_interval * 2);
    let mut network = testing::public_network();
    network.params.selectable_age = Duration::from_secs(0);
    let first = all.ids[3];
    let node = all.nodes.get_mut(&first).unwrap();
    node.gossip = Gossip::new(first, Vec::new(), all.now);
    // It is linked to one, and three that came late can't be reached.
    let of_view = known(&network, &node.book);
    node.gossip.handle_linked(all.now, all.ids[0], of_view);
    node.gossip.sync_at = Instant::from_micros(u64::MAX);
    let late = WALL + Duration::from_secs(2 * 3600);
    let age = Age {
        first_seen: late,
        belief: Belief::NotYet,
        there_since: late,
    };
    let unmet: Vec<RelayId> = (500..503)
        .map(|number| {
            let relay = testing::relay(number).verified();
            node.book.view_mut().insert_aged(relay.clone(), age);
            relay.relay
        })
        .collect();
    node.book.view_mut().set_trust(Trust::Met);
    let mut asked = Vec::new();
    let mut now = all.now;
    for _ in 0..40 {
        now = now + FEELER_INTERVAL * 2;
        let known = Known {
            wall: late,
            ..known(&network, &node.book)
        };
        node.gossip.handle_timeout(now, known, &mut all.rng);
        while let Some(out) = node.gossip.poll_out() {
            if let Out::Dial(relay) = out {
                asked.push(relay);
                node.gossip.handle_dial_failed(relay, known);
            }
        }
    }
    assert_eq!(asked.len(), 40);
    let to_unmet: Vec<bool> = asked.iter().map(|it| unmet.contains(it)).collect();
    let met_first = asked.iter().filter(|it| unmet.contains(it));
    assert!(met_first.count() >= 3, "{asked:?}");
    assert!(to_unmet.windows(2).filter(|it| *it == [true, true]).count() <= 3);
}

#[test] // §8.3(10)
fn news_reaches_most_relays_without_a_reconciliation() {
    let mut all = Gossips::new(40);
    let interval = all.network.params.sync_interval;
    all.pass(interval * 2);
    let from = all.ids[3];
    let later = WALL + Duration::from_secs(60);
    let newer = testing::relay(3).with(|it| it.issued_at = later).verified();
    all.nodes.get_mut(&from).unwrap().descriptor = newer.bytes().to_vec();
    all.nodes
        .get_mut(&from)
        .unwrap()
        .gossip
        .handle_news(newer.bytes());
    let never = Instant::from_micros(u64::MAX);
    for node in all.nodes.values_mut() {
        (node.gossip.sync_at, node.gossip.feeler_at) = (never, never);
    }
    all.pass(RUMOUR_DELAY_MAX * 30);
    let has = |node: &&Node| {
        node.book
            .view()
            .get(&from)
            .is_some_and(|it| it.issued_at == later)
    };
    let count = all.nodes.values().filter(has).count();
    assert!(count > 26, "{count} of 39 others have heard it");
}

#[test]
fn exchanges_and_rumours_are_bounded() {
    let mut all = Gossips::new(40);
    all.pass(all.network.params.sync_interval * 2);
    let (first, now) = (all.ids[0], all.now);
    let others: Vec<_> = all.ids[1..].to_vec();
    let node = all.nodes.get_mut(&first).unwrap();
    let known = Known {
        network: &all.network,
        book: &node.book,
        seeds: &node.seeds,
        wall: WALL,
    };
    for other in others {
        node.gossip.begin(now, other, known, State::ToSync);
    }
    assert_eq!(node.gossip.exchanges.len(), EXCHANGES_MAX);
    for _ in 0..2 * RUMOURS_MAX {
        node.gossip.handle_news(&node.descriptor);
    }
    assert_eq!(node.gossip.rumours.len(), RUMOURS_MAX);
}

/// The first of some relays that know each other, without links, with this news.
fn with_news(all: &mut Gossips) -> (RelayId, RelayId) {
    all.pass(all.network.params.sync_interval * 2);
    let (first, second) = (all.ids[0], all.ids[1]);
    let node = all.nodes.get_mut(&first).unwrap();
    node.gossip.linked.clear();
    node.gossip.rumours.clear();
    node.gossip.handle_news(&node.descriptor);
    (first, second)
}

#[test] // §8.3(9), §8.3(10)
fn links_under_ids_that_nobody_knows_take_no_news_and_are_no_company() {
    let mut all = Gossips::new(5);
    let (first, second) = with_news(&mut all);
    let network = testing::public_network();
    let node = all.nodes.get_mut(&first).unwrap();
    for stranger in 0..200 {
        let known = known(&network, &node.book);
        let stranger = RelayId([stranger; 32]);
        node.gossip.handle_linked(all.now, stranger, known);
    }
    let known = known(&network, &node.book);
    assert!(node.gossip.is_alone(known));
    node.gossip.on_rumour_timer(all.now, known, &mut all.rng);
    assert!(node.gossip.poll_out().is_none(), "nobody is there to tell");
    node.gossip.handle_linked(all.now, second, known);
    assert!(!node.gossip.is_alone(known));
    node.gossip.on_rumour_timer(all.now, known, &mut all.rng);
    assert!(matches!(
        node.gossip.poll_out(),
        Some(Out::Connect { relay, .. }) if relay == second
    ));
    assert!(node.gossip.rumours.is_empty());
}

/// Links the first of some relays to so many others; whom its news goes to then.
fn told(all: &mut Gossips, first: RelayId, others: usize) -> Vec<ExchangeId> {
    let (network, ids) = (testing::public_network(), all.ids.clone());
    let node = all.nodes.get_mut(&first).unwrap();
    let known = known(&network, &node.book);
    for &other in &ids[1..=others] {
        node.gossip.handle_linked(all.now, other, known);
    }
    node.gossip.on_rumour_timer(all.now, known, &mut all.rng);
    let outs = std::iter::from_fn(|| node.gossip.poll_out());
    outs.map(|out| match out {
        Out::Connect { exchange, .. } => exchange,
        other => panic!("{other:?}"),
    })
    .collect()
}

#[test] // §8.3(10)
fn news_that_reaches_nobody_is_passed_on_the_next_time() {
    let mut all = Gossips::new(5);
    let (first, _) = with_news(&mut all);
    for _ in 0..3 {
        let exchanges = told(&mut all, first, 2);
        assert_eq!(exchanges.len(), 2);
        let network = testing::public_network();
        let node = all.nodes.get_mut(&first).unwrap();
        assert!(node.gossip.rumours.is_empty(), "it is on its way");
        node.gossip
            .handle_failed(exchanges[0], known(&network, &node.book)); // no circuit
        node.gossip
            .handle_connected(exchanges[1], known(&network, &node.book));
        assert!(matches!(node.gossip.poll_out(), Some(Out::Ask(..))));
        let busy = DirectoryReply::Refused(DirectoryRefusal::Busy);
        node.gossip
            .handle_reply(all.now, exchanges[1], busy, known(&network, &node.book));
        assert!(matches!(node.gossip.poll_out(), Some(Out::Done(_))));
        let waiting: Vec<_> = node.gossip.rumours.iter().collect();
        assert_eq!(waiting, [&ByteBuf::from(node.descriptor.clone())]);
        assert!(node.gossip.batches.is_empty());
    }
}

#[test] // §8.3(10)
fn news_that_one_relay_took_is_not_passed_on_again() {
    let mut all = Gossips::new(5);
    let (first, _) = with_news(&mut all);
    let exchanges = told(&mut all, first, 2);
    let network = testing::public_network();
    let node = all.nodes.get_mut(&first).unwrap();
    let known = known(&network, &node.book);
    node.gossip.handle_connected(exchanges[0], known);
    let pushed = DirectoryReply::Pushed { accepted: 1 };
    node.gossip
        .handle_reply(all.now, exchanges[0], pushed, known);
    node.gossip.handle_failed(exchanges[1], known);
    assert!(node.gossip.rumours.is_empty() && node.gossip.batches.is_empty());
}

#[test]
fn news_that_comes_back_keeps_to_the_bound_and_gives_way_to_newer() {
    let mut all = Gossips::new(5);
    let (first, _) = with_news(&mut all);
    let exchanges = told(&mut all, first, 1);
    let node = all.nodes.get_mut(&first).unwrap();
    for _ in 0..RUMOURS_MAX {
        node.gossip.handle_news(&[1]);
    }
    let network = testing::public_network();
    node.gossip
        .handle_failed(exchanges[0], known(&network, &node.book));
    assert_eq!(node.gossip.rumours, vec![ByteBuf::from([1]); RUMOURS_MAX]);
}

#[test] // §8.3
fn a_relay_that_never_answers_holds_one_exchange_of_each_kind() {
    let mut all = Gossips::new(5);
    let (first, second) = with_news(&mut all);
    let network = testing::public_network();
    let node = all.nodes.get_mut(&first).unwrap();
    let known = known(&network, &node.book);
    node.gossip.handle_linked(all.now, second, known);
    for _ in 0..EXCHANGES_MAX {
        node.gossip.begin(all.now, second, known, State::ToSync);
        node.gossip.handle_news(&node.descriptor);
        node.gossip.on_rumour_timer(all.now, known, &mut all.rng);
    }
    assert_eq!(node.gossip.exchanges.len(), 2);
    assert!(!node.gossip.rumours.is_empty(), "what was not taken waits");
}

const fn known<'a>(network: &'a Network, book: &'a Book) -> Known<'a> {
    Known {
        network,
        book,
        seeds: &[],
        wall: WALL,
    }
}

#[test] // §8.3(2)
fn the_digest_is_of_what_is_known_once_the_circuit_is_there() {
    let mut all = Gossips::new(3);
    let (first, second) = (all.ids[0], all.ids[1]);
    let network = testing::public_network();
    let node = all.nodes.get_mut(&first).unwrap();
    let met = Unverified::decode(testing::relay(1).verified().bytes()).unwrap();
    node.book.learn(&network, WALL, met).unwrap();
    node.gossip
        .handle_linked(all.now, second, known(&network, &node.book));
    node.gossip
        .sync(all.now, known(&network, &node.book), &mut all.rng);
    let Some(Out::Connect { exchange, .. }) = node.gossip.poll_out() else {
        panic!("it reconciles with the relay that is linked")
    };
    let news = Unverified::decode(testing::relay(2).verified().bytes()).unwrap();
    node.book.learn(&network, WALL, news).unwrap();
    node.gossip
        .handle_connected(exchange, known(&network, &node.book));
    let Some(Out::Ask(_, DirectoryRequest::Sync(asked))) = node.gossip.poll_out() else {
        panic!("it asks")
    };
    let answer = reconcile::answer(node.book.view(), &asked);
    let same = reconcile::SyncReply::Compared(vec![reconcile::Outcome::Same]);
    assert_eq!(answer, same);
}

#[test] // §8.3(10)
fn news_goes_to_those_who_can_take_it_now() {
    let mut all = Gossips::new(12);
    let (first, _) = with_news(&mut all);
    let (network, ids) = (testing::public_network(), all.ids.clone());
    let node = all.nodes.get_mut(&first).unwrap();
    let known = known(&network, &node.book);
    for &other in &ids[1..] {
        node.gossip.handle_linked(all.now, other, known);
    }
    let silent = &ids[1..12 - RUMOUR_FANOUT];
    for &silent in silent {
        node.gossip
            .begin(all.now, silent, known, State::ToPush(BatchId(99)));
    }
    node.gossip.on_rumour_timer(all.now, known, &mut all.rng);
    let asked = std::iter::from_fn(|| node.gossip.poll_out()).skip(silent.len());
    assert_eq!(asked.count(), RUMOUR_FANOUT, "those that are free");
}

#[test] // §8.3(9)
fn a_relay_that_is_alone_never_waits_longer_than_it_may() {
    let mut all = Gossips::new(2);
    let (alone, seed) = (all.ids[1], all.ids[0]);
    all.nodes.get_mut(&seed).unwrap().is_up = false;
    for _ in 0..200 {
        let now = all.now;
        all.act(alone, |it, known, rng| it.handle_timeout(now, known, rng));
        let wait = all.nodes[&alone].gossip.sync_at.since(now);
        assert!(wait <= ALONE_INTERVAL, "{wait:?}");
        assert!(wait >= ALONE_INTERVAL / 2, "{wait:?}");
        all.now = now + wait;
    }
}

#[test] // §8.3(9)
fn who_refused_what_nobody_vouches_for_reconciles_soon_and_then_ever_later() {
    let mut all = Gossips::new(3);
    let (id, _) = with_news(&mut all);
    let network = testing::public_network();
    let node = all.nodes.get_mut(&id).unwrap();
    let known = known(&network, &node.book);
    for &other in &all.ids[1..] {
        node.gossip.handle_linked(all.now, other, known);
    }
    let mut now = all.now;
    let mut pauses = Vec::new();
    for refuses in [false, true, true, true, false, false, true] {
        node.gossip.on_sync_timer(now, known, &mut all.rng);
        if refuses {
            node.gossip.handle_unvouched(now, known);
            node.gossip.handle_unvouched(now, known);
        }
        pauses.push(node.gossip.sync_at.since(now).as_secs());
        now = node.gossip.sync_at;
    }
    let usual = 450..750;
    assert!(
        [0, 4, 5].iter().all(|&it| usual.contains(&pauses[it])),
        "{pauses:?}"
    );
    assert_eq!((&pauses[1..4], pauses[6]), (&[5, 10, 20][..], 5));
}

#[test] // §8.3(9)
fn a_busy_peer_stays_and_another_is_asked_soon() {
    let mut all = Gossips::new(30);
    all.pass(all.network.params.sync_interval * 12);
    let network = testing::public_network();
    let node = all.nodes.get_mut(&all.ids[3]).unwrap();
    let known = known(&network, &node.book);
    for &other in &all.ids {
        node.gossip.handle_linked(all.now, other, known);
    }
    let anchors = node.gossip.peers.anchors(2);
    let mut now = node.gossip.sync_at;
    let mut pauses = Vec::new();
    let mut asked = BTreeSet::new();
    for _ in 0..20 {
        node.gossip.on_sync_timer(now, known, &mut all.rng);
        while let Some(out) = node.gossip.poll_out() {
            if let Out::Connect {
                exchange, relay, ..
            } = out
            {
                asked.insert(relay);
                let busy = DirectoryReply::Refused(DirectoryRefusal::Busy);
                node.gossip.handle_connected(exchange, known);
                node.gossip.handle_reply(now, exchange, busy, known);
            }
        }
        pauses.push(node.gossip.sync_at.since(now).as_secs());
        now = node.gossip.sync_at;
    }
    assert_eq!(pauses[..5], [5, 10, 20, 40, 80]);
    assert!(asked.len() >= 8 && anchors.iter().all(|it| asked.contains(it)));
    assert_eq!(node.gossip.peers.anchors(2), anchors, "none has left");
}
