//! Two honest nodes with the same input come to hold the same (docs/protocol.md §8.3), whichever
//! heard of what first, while receipts grow old, relays leave and the clocks differ by up to an hour.

use proptest::prelude::*;

use super::{Syncer, answer};
use crate::directory::testing::{self, WALL};
use crate::directory::{Book, DirectoryReply, DirectoryRequest, Unverified};
use crate::network::{Network, Params};
use crate::time::{Duration, WallTime};

/// Relays 0 to 5 are there from the beginning, and issue descriptors for as long as the test lasts.
const FOUNDERS: u32 = 6;
const RELAYS: u32 = 10;
/// Descriptors are issued at the beginning of a step. The nodes reconcile in its middle, when their
/// clocks agree on which are dead.
const STEP: Duration = Duration::from_secs(3 * 3600);
const LIFE_STEPS: u32 = 16;

fn network() -> Network {
    let network = testing::public_network();
    Network {
        params: Params {
            receipts_min: 2,
            receipt_issuer_age: Duration::from_secs(24 * 3600),
            receipt_life: Duration::from_secs(12 * 3600),
            ..network.params
        },
        ..network
    }
}

/// A relay issues a descriptor.
#[derive(Debug, Clone)]
struct Event {
    relay: u32,
    issuers: [u32; 2],
    /// How old its receipts are: some are older than a descriptor may show.
    receipts_age: u64,
    /// Whether the first node hears of it, and whether the second does; if neither, both do.
    hears: [bool; 2],
}

impl Event {
    fn descriptor(&self, now: WallTime) -> Unverified {
        let at = WallTime(now.as_secs() - self.receipts_age);
        let relay = testing::relay(self.relay).with(|it| it.issued_at = now);
        let issuers = self.issuers.into_iter();
        let issuers = issuers.filter(|issuer| *issuer != self.relay);
        testing::vouched(relay, issuers, at).unverified()
    }
}

fn event(issuers: u32) -> impl Strategy<Value = Event> {
    let parts = (
        0..RELAYS,
        prop::sample::subsequence((0..issuers).collect::<Vec<_>>(), 2),
        0..14 * 3600_u64,
        any::<[bool; 2]>(),
    );
    parts.prop_map(|(relay, issuers, receipts_age, hears)| Event {
        relay,
        issuers: [issuers[0], issuers[1]],
        receipts_age,
        hears,
    })
}

/// A node whose clock is off by this many seconds.
struct Node {
    book: Book,
    clock_off: i64,
}

impl Node {
    fn wall(&self, now: WallTime) -> WallTime {
        WallTime(now.as_secs().checked_add_signed(self.clock_off).unwrap())
    }

    fn learn(&mut self, network: &Network, now: WallTime, descriptor: Unverified) -> bool {
        let (wall, relay) = (self.wall(now), descriptor.relay());
        let learned = self.book.learn(network, wall, descriptor);
        self.book.confirm_all();
        self.book.meet(&relay);
        learned.is_ok_and(|learned| learned.is_news())
    }

    /// Reconciles with another node; says whether either has learned something.
    fn reconcile(&mut self, other: &mut Self, network: &Network, now: WallTime) -> bool {
        let (mut syncer, request) = Syncer::begin(self.book.view());
        let mut next = Some(request);
        let mut is_news = false;
        while let Some(request) = next {
            let reply = match request {
                DirectoryRequest::Sync(request) => {
                    DirectoryReply::Sync(answer(other.book.view(), &request))
                }
                DirectoryRequest::Push(list) => {
                    for bytes in &list {
                        is_news |= other.learn(network, now, Unverified::decode(bytes).unwrap());
                    }
                    DirectoryReply::Pushed { accepted: 0 }
                }
                _ => panic!("a syncer asks no such thing"),
            };
            let step = syncer.on_reply(self.book.view(), reply).unwrap();
            for descriptor in step.received {
                is_news |= self.learn(network, now, descriptor);
            }
            next = step.request;
        }
        is_news
    }
}

struct Pair {
    network: Network,
    now: WallTime,
    nodes: [Node; 2],
}

impl Pair {
    /// `are_relays`: they take the word of those alone that they have met, as both have all (§8.2(12)).
    fn new(clock_off: i64, are_relays: bool) -> Self {
        let node = |clock_off| {
            let mut book = Book::new();
            if are_relays {
                book.believe_met_only(&network(), WALL);
            }
            Node { book, clock_off }
        };
        Self {
            network: network(),
            now: WALL,
            nodes: [node(0), node(clock_off)],
        }
    }

    fn hear(&mut self, event: &Event) {
        let descriptor = event.descriptor(self.now);
        let is_heard = event.hears.contains(&true);
        for (node, hears) in self.nodes.iter_mut().zip(event.hears) {
            if hears || !is_heard {
                node.learn(&self.network, self.now, descriptor.clone());
            }
        }
    }

    /// Founders issue one of their descriptors each 18 h.
    fn hear_founders(&mut self, step: u32) {
        for relay in (0..FOUNDERS).filter(|relay| (relay + step).is_multiple_of(6) || step == 0) {
            self.hear(&Event {
                relay,
                issuers: [(relay + 1) % FOUNDERS, (relay + 2) % FOUNDERS],
                receipts_age: 3600,
                hears: [step == 0 || relay % 2 == 0, step == 0 || relay % 2 == 1],
            });
        }
    }

    /// Both reconcile until neither learns more; says whether they agree then.
    fn settle(&mut self) -> bool {
        let middle = self.now + STEP / 2;
        let [one, other] = &mut self.nodes;
        for node in [&mut *one, &mut *other] {
            let wall = node.wall(middle);
            node.book.expire(&self.network, wall, wall);
        }
        let mut tries = 0;
        while one.reconcile(other, &self.network, middle)
            | other.reconcile(one, &self.network, middle)
        {
            tries += 1;
            assert!(tries < 8, "each brings news for ever");
        }
        one.book.view().digest() == other.book.view().digest()
    }

    /// Lives through the events, one list a step; says at which steps the nodes did not agree.
    fn live(&mut self, events: &[Vec<Event>]) -> Vec<usize> {
        let mut apart = Vec::new();
        for (number, events) in events.iter().enumerate() {
            self.hear_founders(u32::try_from(number).unwrap());
            events.iter().for_each(|event| self.hear(event));
            if !self.settle() {
                apart.push(number);
            }
            self.now = self.now + STEP;
        }
        apart
    }
}

fn events(issuers: u32) -> impl Strategy<Value = Vec<Vec<Event>>> {
    prop::collection::vec(prop::collection::vec(event(issuers), 0..5), 14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test] // §8.3
    fn who_hears_the_same_agrees_whenever_they_reconcile(
        events in events(FOUNDERS), clock_off in -3600_i64..=3600, are_relays: bool,
    ) {
        let mut pair = Pair::new(clock_off, are_relays);
        prop_assert_eq!(pair.live(&events), Vec::<usize>::new());
        prop_assert!(pair.nodes[0].book.view().len() >= usize::try_from(FOUNDERS).unwrap());
    }

    /// Issuers that one node has known for long enough before the other, or that have left: what
    /// only one node took is dead in the end, and its relay is known by what it issued since.
    #[test] // §8.3
    fn who_hears_the_same_agrees_in_the_end(
        events in events(RELAYS), clock_off in -3600_i64..=3600, are_relays: bool,
    ) {
        let mut pair = Pair::new(clock_off, are_relays);
        pair.live(&events);
        let apart = pair.live(&vec![Vec::new(); usize::try_from(LIFE_STEPS + 1).unwrap()]);
        prop_assert!(!apart.contains(&16), "{:?}", apart);
        prop_assert_eq!(pair.nodes[0].book.view().len(), usize::try_from(FOUNDERS).unwrap());
    }
}
