//! How many relays a client dials, and takes for guards, while guards can't be reached
//! (docs/protocol.md §6.4(8), §6.4(9)), and what it does where circuits break and there is no other
//! guard (§6.4(10i)).

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::{Age, Belief, BookRow, RelayDescriptor, Roles};
use umbel_proto::handshake::OnionSecret;
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::link::{Hello, LinkId, LinkOp};
use umbel_proto::network::{AddressGroups, Network, Params};
use umbel_proto::path::hop_target;
use umbel_proto::time::{Duration, Instant, Moment, WallTime};

use super::super::Core;
use super::super::circuit::Isolation;
use super::super::io::{Snapshot, StoreOp};
use super::super::sync::Sync;
use super::super::testing::link_up;
use super::Acquired;

const WALL: WallTime = WallTime(1_790_000_000);
const RELAYS: u16 = 120;
const HOUR: Duration = Duration::from_secs(3600);

/// The limits are the default ones; addresses are not public, and nobody vouches for relays.
fn network() -> Network {
    let danger = Params {
        receipts_min: 0,
        danger_allow_private_addresses: true,
        ..Params::DEFAULT
    };
    Network {
        params: Params {
            danger_address_groups: AddressGroups::Port,
            ..danger
        },
        ..Network::local()
    }
}

fn row(number: u16) -> BookRow {
    let [low, high] = number.to_le_bytes();
    let mut seed = [low; 32];
    seed[0] = high;
    let key = SigningKey::from_seed(&seed);
    let descriptor = RelayDescriptor {
        network: network().id,
        relay: key.public().into(),
        onion_keys: vec![OnionSecret::from_seed(&seed).public()],
        addresses: vec![([127, 0, 0, 1], 9000 + number).into()],
        roles: Roles::NONE,
        version: "test".to_owned(),
        issued_at: WALL,
        receipts: Vec::new(),
        puzzle: 0,
    };
    BookRow {
        descriptor: descriptor.sign(&key),
        age: Age {
            first_seen: WALL,
            belief: Belief::Given(WALL),
            there_since: WALL,
        },
    }
}

/// A moment by two clocks that began together.
fn at(now: Instant) -> Moment {
    Moment {
        now,
        wall: WALL + Duration::from_micros(now.as_micros()),
    }
}

/// A client that knows many relays, hardly any of which can be reached.
struct Blocked {
    core: Core,
    now: Instant,
    rng: ChaCha20Rng,
    /// A peer that answers a dial, and nothing else.
    answering: BTreeSet<RelayId>,
    /// Those that don't are not heard of, instead of refusing at once.
    is_slow: bool,
    dialled: BTreeSet<RelayId>,
    paths: Option<Vec<u8>>,
    links: u64,
}

impl Blocked {
    fn new(seeds: &[RelayId], paths: Option<Vec<u8>>) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(11);
        let seeds = seeds
            .iter()
            .map(|&id| Peer {
                id,
                host_port: "127.0.0.1:9".to_owned(),
            })
            .collect();
        let snapshot = Snapshot {
            relays: (0..RELAYS).map(row).collect(),
            paths,
            ..Snapshot::default()
        };
        let now = Instant::from_micros(0);
        let core = Core::new(network(), seeds, None, snapshot, at(now), &mut rng)
            .expect("a good snapshot");
        let (answering, dialled) = (BTreeSet::new(), BTreeSet::new());
        Self {
            core,
            now,
            rng,
            answering,
            is_slow: false,
            dialled,
            paths: None,
            links: 0,
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let next = self.core.poll_timeout().expect("it is up").max(self.now);
            if next > end {
                break;
            }
            self.now = next;
            self.core.handle_timeout(at(self.now), &mut self.rng);
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(op) = self.core.poll_link() {
            let LinkOp::Dial { relay, .. } = op else {
                continue;
            };
            self.dialled.insert(relay);
            let moment = at(self.now);
            if self.answering.contains(&relay) {
                self.links += 1;
                let (versions, network) = (vec![1], network().id);
                let hello = Hello {
                    versions,
                    network,
                    clock: moment.wall,
                    parameters: None,
                    features: 0,
                    descriptor: None,
                };
                self.core.handle_link_up(
                    moment,
                    link_up(LinkId(self.links), relay, &hello),
                    &mut self.rng,
                );
            } else if !self.is_slow {
                self.core.handle_dial_failed(moment, relay, &mut self.rng);
            }
        }
        while let Some((_, op)) = self.core.poll_store() {
            if let StoreOp::PutPaths(state) = op {
                self.paths = Some(state);
            }
        }
        while self.core.poll_cell().is_some() || self.core.poll_notice().is_some() {}
    }

    fn sample(&self) -> Vec<RelayId> {
        self.core.pool.paths.guards.relays().collect()
    }

    fn in_use(&self) -> Option<RelayId> {
        self.core.pool.guard_in_use().map(|(guard, _)| guard)
    }

    fn tried(&self) -> usize {
        self.sample()
            .into_iter()
            .filter(|&relay| self.core.pool.paths.guards.is_tried(relay))
            .count()
    }

    fn guards_dialled(&self) -> usize {
        self.sample()
            .into_iter()
            .filter(|relay| self.dialled.contains(relay))
            .count()
    }
}

#[test] // §6.4(8), §6.4(9)
fn a_client_whose_guards_are_blocked_dials_few_relays() {
    let mut blocked = Blocked::new(&[RelayId([9; 32])], None);
    blocked.run_for(HOUR * 20);
    assert!(blocked.sample().len() >= 20);
    assert_eq!(
        (blocked.tried(), blocked.guards_dialled()),
        (5, 5),
        "three freely, two in a day"
    );
    assert_eq!(
        blocked.dialled.len(),
        5 + 1 + 4,
        "the seed, and four that may know newer addresses"
    );
}

#[test] // §6.4(8), §6.4(9)
fn a_relay_that_answers_for_the_view_is_no_guard_for_that() {
    let mut blocked = Blocked::new(&[], None);
    blocked.run_for(HOUR);
    let untried = |relay: &RelayId| !blocked.core.pool.paths.guards.is_tried(*relay);
    let seeds: Vec<RelayId> = blocked.sample().into_iter().filter(untried).collect();
    assert!(seeds.len() >= 15);
    let mut blocked = Blocked::new(&seeds, blocked.paths);
    blocked.answering = seeds.iter().copied().collect();
    blocked.run_for(HOUR * 20);
    assert!(
        blocked.dialled.iter().any(|relay| seeds.contains(relay)),
        "they were asked"
    );
    assert_eq!(blocked.core.pool.guard_in_use(), None);
    assert_eq!(blocked.tried(), 5);
    blocked.run_for(HOUR * 5);
    assert!(
        blocked
            .core
            .pool
            .guard_in_use()
            .is_some_and(|(guard, _)| seeds.contains(&guard)),
        "one of the next day's"
    );
}

/// A client whose sample was drawn before; its guards beyond the primaries answer, and these don't.
fn without_primaries(seeds: &[RelayId], is_slow: bool) -> (Blocked, BTreeSet<RelayId>) {
    let mut before = Blocked::new(&[], None);
    before.run_for(Duration::from_secs(1));
    let sample = before.sample();
    let mut blocked = Blocked::new(seeds, before.paths);
    blocked.is_slow = is_slow;
    let primary = sample[..3].iter().copied().collect();
    blocked.answering = sample[3..].iter().chain(seeds).copied().collect();
    (blocked, primary)
}

#[test] // §6.4(6)
fn in_the_first_half_minute_primary_guards_alone_are_dialled() {
    for is_slow in [true, false] {
        let (mut blocked, primary) = without_primaries(&[], is_slow);
        blocked.run_for(Duration::from_secs(29));
        assert!(blocked.dialled.is_superset(&primary));
        assert_eq!((blocked.tried(), blocked.in_use()), (3, None));
        blocked.run_for(Duration::from_secs(4));
        assert!(
            blocked
                .in_use()
                .is_some_and(|guard| !primary.contains(&guard))
        );
        assert_eq!(blocked.tried(), 4);
    }
}

#[test] // §6.4(6)
fn where_primary_guards_refuse_and_another_relay_answers_the_next_is_used() {
    let seed = RelayId([9; 32]);
    let (mut blocked, primary) = without_primaries(&[seed], false);
    blocked.run_for(Duration::from_secs(4));
    assert!(
        blocked
            .in_use()
            .is_some_and(|guard| !primary.contains(&guard))
    );
    assert_eq!(blocked.tried(), 4);
    let (mut blocked, _) = without_primaries(&[seed], true);
    blocked.run_for(Duration::from_secs(29));
    assert!(blocked.dialled.contains(&seed));
    assert_eq!(
        (blocked.tried(), blocked.in_use()),
        (3, None),
        "they may be slow"
    );
}

#[test] // §6.4(6)
fn dials_that_fail_without_a_network_say_nothing_of_primary_guards() {
    let seed = RelayId([9; 32]);
    let (mut blocked, _) = without_primaries(&[seed], false);
    let others = core::mem::take(&mut blocked.answering);
    blocked.run_for(Duration::from_secs(5));
    (blocked.answering, blocked.is_slow) = (others, true);
    blocked.run_for(Duration::from_secs(20));
    assert!(blocked.dialled.contains(&seed));
    assert_eq!(blocked.tried(), 3, "the network comes up slowly");
}

#[test] // §6.4(6)
fn a_network_that_is_back_gives_primary_guards_their_time_again() {
    let seed = RelayId([9; 32]);
    let (mut blocked, primary) = without_primaries(&[seed], true);
    let others = core::mem::take(&mut blocked.answering);
    blocked.run_for(HOUR);
    assert!(blocked.tried() > 3, "nobody answers: others are tried");
    let tried = blocked.tried();
    blocked.answering = others;
    blocked.answering.extend(primary.iter().copied());
    blocked.run_for(Duration::from_secs(600));
    assert!(
        blocked
            .in_use()
            .is_some_and(|guard| primary.contains(&guard))
    );
    assert_eq!(blocked.tried(), tried);
}

/// A client with one guard that answers, over which circuits break.
struct Breaking {
    blocked: Blocked,
    guard: RelayId,
    /// Those that are no guards of its.
    others: Vec<RelayId>,
    way: usize,
}

impl Breaking {
    fn new() -> Self {
        let mut before = Blocked::new(&[], None);
        before.run_for(Duration::from_secs(1));
        let sample = before.sample();
        let mut blocked = Blocked::new(&[], before.paths);
        blocked.answering = sample[..1].iter().copied().collect();
        blocked.run_for(Duration::from_secs(1));
        assert_eq!(blocked.in_use(), Some(sample[0]));
        let all = blocked.core.shared.book.view().iter();
        let others = all.map(|known| known.relay);
        let others = others.filter(|relay| !sample.contains(relay)).collect();
        Self {
            blocked,
            guard: sample[0],
            others,
            way: 0,
        }
    }

    /// A path to this one of the others, by the next of three ways that have nothing in common.
    fn path(&mut self, terminal: usize) -> [RelayId; 4] {
        self.way = (self.way + 1) % 3;
        let between = 90 + self.way * 2;
        let [layer2, middle] = [self.others[between], self.others[between + 1]];
        [self.guard, layer2, middle, self.others[terminal]]
    }

    /// A circuit to this one of the others breaks.
    fn on_broken(&mut self, terminal: usize) {
        let path = self.path(terminal);
        let Core { shared, pool, .. } = &mut self.blocked.core;
        let mut cx = shared.context(at(self.blocked.now), &mut self.blocked.rng);
        pool.on_path_broken(&mut cx, &path, true);
    }

    fn on_answered(&mut self, terminal: usize) {
        let path = self.path(terminal);
        self.blocked.core.pool.on_worked(&path);
    }

    /// What asking for a circuit to this one gives.
    fn acquire(&mut self, terminal: usize) -> Acquired {
        let Core { shared, pool, .. } = &mut self.blocked.core;
        let mut cx = shared.context(at(self.blocked.now), &mut self.blocked.rng);
        let serial = u64::try_from(terminal).expect("a small number");
        let target = hop_target(cx.view(), self.others[terminal]).expect("it is in the view");
        pool.acquire(&mut cx, &Isolation::View { serial }, &target, false)
    }

    fn is_braked(&mut self, terminal: usize) -> bool {
        matches!(self.acquire(terminal), Acquired::Braked)
    }

    /// Whether no circuit begins, to whomever.
    fn rests(&mut self) -> bool {
        let Core { shared, pool, .. } = &mut self.blocked.core;
        let mut cx = shared.context(at(self.blocked.now), &mut self.blocked.rng);
        matches!(pool.begin_stub(&mut cx, None), Acquired::Braked)
    }

    /// Whether this one is to blame, and not the way.
    fn breaks_alone(&self, terminal: usize) -> bool {
        self.blocked.core.pool.breaks_alone(self.others[terminal])
    }

    /// The relay drawn at random that a client would ask which has asked nobody yet.
    fn probed(&mut self) -> Option<RelayId> {
        let mut sync = Sync::new(Vec::new(), None, None);
        let core = &mut self.blocked.core;
        let Core {
            shared,
            pool,
            requests,
            ..
        } = core;
        let mut cx = shared.context(at(self.blocked.now), &mut self.blocked.rng);
        sync.drive(&mut cx, pool, requests);
        sync.far_source()
    }

    /// The rest that follows circuits that broke is over.
    fn rest(&mut self) {
        self.blocked.now = self.blocked.now + network().params.retry_max;
    }
}

#[test] // §6.4(10i)
fn no_circuit_begins_to_who_may_break_it_before_another_has_answered() {
    let mut breaking = Breaking::new();
    (0..3).for_each(|terminal| breaking.on_broken(terminal));
    assert!(breaking.rests(), "none begins at all");
    breaking.rest();
    assert!(!breaking.rests());
    assert!((0..3).all(|terminal| breaking.is_braked(terminal)));
    assert!(matches!(breaking.acquire(3), Acquired::Circuit(_)));
    // Another answers over this guard: it is they who break circuits, and they may be tried again.
    breaking.on_answered(4);
    assert!(!breaking.is_braked(0));
    breaking.on_broken(0);
    assert!(breaking.breaks_alone(0) && !breaking.breaks_alone(1));
    assert!(!breaking.is_braked(1));
}

#[test] // §6.4(10i)
fn who_is_asked_at_random_is_none_that_may_break_circuits() {
    let mut breaking = Breaking::new();
    (0..60).for_each(|terminal| breaking.on_broken(terminal));
    assert_eq!(breaking.probed(), None, "a rest");
    breaking.rest();
    let held: BTreeSet<RelayId> = breaking.others[..60].iter().copied().collect();
    for _ in 0..40 {
        let probed = breaking.probed().expect("each time");
        assert!(probed != breaking.guard && !held.contains(&probed));
    }
}

#[test] // §6.4(10i)
fn a_guard_that_breaks_all_circuits_has_one_relay_after_another_asked() {
    let mut breaking = Breaking::new();
    (0..3).for_each(|terminal| breaking.on_broken(terminal));
    for terminal in 10..20 {
        breaking.rest();
        assert!(breaking.probed().is_some());
        breaking.on_broken(terminal);
        assert_eq!(breaking.probed(), None, "a rest after each");
        assert!(!breaking.breaks_alone(terminal));
    }
    let pool = &breaking.blocked.core.pool;
    assert!(pool.suspected.contains(&breaking.guard));
}

#[test] // §6.4(10i)
fn while_circuits_carry_answers_no_relay_is_asked_for_that() {
    let mut breaking = Breaking::new();
    (0..2).for_each(|terminal| breaking.on_broken(terminal));
    assert_eq!(breaking.probed(), None, "two may be chance");
    assert!(!breaking.is_braked(0));
}
