//! A world in which an inbox is censored: what becomes of messages to it, and who is told of what.

use std::collections::{BTreeMap, BTreeSet};

use umbel_client::core::{DeferReason, Notice, Warning};
use umbel_proto::directory::ring;
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::time::{Duration, Epoch, Instant};

use super::{Case, Holders, Plan, Positions};
use crate::disk::InboxDescriptors;
use crate::scenario::{ALICE, BOB, listen, mailboxes_of, patient, received};
use crate::shells::relay::Sabotage;
use crate::{ClientName, RelayName, World};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
/// How long a stranger tries to write.
const TRIES_FOR: Duration = Duration::from_secs(600);
/// Between two looks at what the owner's `status` says.
const LOOK: Duration = Duration::from_secs(600);
/// What a hostile relay has taken, it drops after this time: its answer is on the way by then.
const TAKEN: Duration = Duration::from_secs(1);

/// Senders of one kind, over all worlds of a case.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) count: usize,
    /// Of how many the sender was told that as many holders as wanted have them.
    pub(super) held: usize,
    /// How many the owner has.
    pub(super) came: usize,
    /// How many are held, and never came.
    pub(super) lost: usize,
    /// Why the others are not held, and after how many seconds their senders were told.
    pub(super) told: Vec<(DeferReason, f64)>,
}

/// What was seen of a case, over all its worlds.
pub(super) struct Seen {
    pub(super) case: Case,
    pub(super) worlds: usize,
    /// How many relays are hostile, in all worlds.
    pub(super) hostile: usize,
    /// Newcomers, who have ten minutes.
    pub(super) strangers: Sent,
    /// Who wrote before, and runs all the time.
    pub(super) friend: Sent,
    /// Of each owner, the longest time in which its client began no circuit, in hours.
    pub(super) idle: Vec<f64>,
    /// What owners were told, and after how many hours, each owner once.
    pub(super) owners: BTreeMap<&'static str, Vec<f64>>,
}

/// An owner is told by this that senders don't find the inbox.
pub(super) const NOT_FOUND: &str = "senders can't find the inbox";
/// An owner's `status` says this.
pub(super) const OUT_OF_REACH: &str = "`status`: mailboxes out of reach";

/// A message, who sent it, and when.
struct Letter {
    from: ClientName,
    id: MessageId,
    at: Instant,
}

/// A relay that censors, and what it had when that began.
struct Censor {
    relay: RelayName,
    /// The descriptors of inboxes that it gives, whatever it takes.
    gives: InboxDescriptors,
    /// How many descriptors it had taken when it last dropped some.
    taken: usize,
}

struct Stage<'a> {
    plan: &'a Plan,
    case: Case,
    world: World,
    address: InboxAddress,
    positions: Vec<Censor>,
    holders: Vec<RelayName>,
    begun: Instant,
    /// When a position first withheld a descriptor of this epoch.
    withheld: BTreeMap<Epoch, Instant>,
    strangers: Vec<Letter>,
    friend: Vec<Letter>,
    /// When the owner's `status` first said that mailboxes are out of reach.
    out_of_reach: Option<Instant>,
}

/// Worlds in which this happens.
pub(super) fn seen(plan: &Plan, case: Case, seed: u64) -> Seen {
    let mut seen = Seen {
        case,
        worlds: plan.worlds,
        hostile: 0,
        strangers: Sent::default(),
        friend: Sent::default(),
        idle: Vec::new(),
        owners: BTreeMap::new(),
    };
    for number in 0..plan.worlds {
        let mut stage = Stage::new(plan, case, seed * 1000 + number as u64);
        stage.run();
        stage.judge(&mut seen);
    }
    seen
}

impl<'a> Stage<'a> {
    /// An owner, who fetches in the background, and a friend whose first message has come. Then some
    /// relays begin to censor.
    fn new(plan: &'a Plan, case: Case, seed: u64) -> Self {
        let mut network = patient();
        network.params.fetch_interval = network.params.fetch_interval_background;
        network.params.inbox_republish = HOUR * plan.republish;
        let world = World::with_overlay(seed, network).relays(plan.world);
        let mut world = world.clients(2);
        let address = world.create_inbox(BOB, "help");
        listen(&mut world, false);
        world.send(ALICE, &address, b"hello".to_vec());
        world.expect_within(HOUR * 2, |world| world.message_count(BOB) == 1);
        world.run_for(MINUTE * 10);
        let begun = world.now();
        let mut stage = Self {
            plan,
            case,
            world,
            address,
            positions: Vec::new(),
            holders: Vec::new(),
            begun,
            withheld: BTreeMap::new(),
            strangers: Vec::new(),
            friend: Vec::new(),
            out_of_reach: None,
        };
        stage.begin();
        stage
    }

    fn begin(&mut self) {
        if self.case.holders != Holders::Honest {
            let all = (0..self.plan.world).map(RelayName);
            let all = all.filter(|&relay| self.world.relay(relay).disk.has_queues());
            self.holders = all.collect();
        }
        if self.case.positions != Positions::Honest {
            let all = positions(&self.world, &self.address).into_iter();
            let all = all.map(|relay| self.censor(relay));
            self.positions = all.collect();
        }
        if self.case.holders == Holders::Break {
            for &holder in &self.holders {
                self.world.relay(holder).sabotage = Some(Sabotage::Mailboxes);
            }
        }
    }

    /// A position begins to be hostile.
    fn censor(&mut self, name: RelayName) -> Censor {
        let relay = self.world.relay(name);
        let censor = Censor {
            relay: name,
            gives: match self.case.positions {
                Positions::Old => relay.disk.copy_of_inbox_descriptors(),
                _ => InboxDescriptors::new(),
            },
            taken: relay.disk.published,
        };
        match self.case.positions {
            Positions::Silent => relay.sabotage = Some(Sabotage::Inboxes),
            Positions::Refuse => relay.inbox_descriptors_max = 0,
            Positions::Honest | Positions::Old | Positions::Forget => {}
        }
        if self.case.positions != Positions::Old {
            self.withheld.insert(self.world.wall().epoch(), self.begun);
        }
        drop_taken(&mut self.world, &censor);
        censor
    }

    fn run(&mut self) {
        for hour in 0..self.plan.hours {
            if hour % self.plan.every == 0 {
                self.pass(MINUTE, |_| false);
                let friend = self.write(ALICE);
                self.friend.push(friend);
                self.stranger();
            }
            let end = self.begun + HOUR * (hour + 1);
            while self.world.now() < end {
                self.pass(LOOK.min(end.since(self.world.now())), |_| false);
                if mailboxes_of(&self.world, BOB).1 > 0 {
                    self.out_of_reach.get_or_insert(self.world.now());
                }
            }
        }
    }

    fn write(&mut self, from: ClientName) -> Letter {
        let at = self.world.now();
        let id = self.world.send(from, &self.address, b"hello".to_vec());
        Letter { from, id, at }
    }

    /// A newcomer writes to the inbox, and has ten minutes.
    fn stranger(&mut self) {
        let name = self.world.add_client();
        self.pass(MINUTE, |_| false);
        let letter = self.write(name);
        self.pass(TRIES_FOR, |world| is_held(world, &letter));
        self.world.crash_client(name);
        self.strangers.push(letter);
    }

    /// Lets time pass, or less if something holds. What hostile relays take meanwhile they drop.
    fn pass(&mut self, time: Duration, is_over: impl Fn(&World) -> bool) {
        let end = self.world.now() + time;
        while self.world.now() < end && !is_over(&self.world) {
            let (positions, holders) = (&self.positions, &self.holders);
            let is_dropping = self.case.holders == Holders::Drop;
            let is_taken = |world: &World| {
                positions.iter().any(|it| it.has_taken(world))
                    || (is_dropping && holders.iter().any(|&it| has_records(world, it)))
            };
            let rest = end.since(self.world.now());
            let is_enough = |world: &World| is_taken(world) || is_over(world);
            self.world.run_until(rest, is_enough);
            if is_taken(&self.world) {
                self.world.run_for(TAKEN);
                self.drop_all();
            }
        }
    }

    fn drop_all(&mut self) {
        for censor in &mut self.positions {
            if censor.has_taken(&self.world) {
                for epoch in censor.withholds(&self.world) {
                    self.withheld.entry(epoch).or_insert(self.world.now());
                }
                drop_taken(&mut self.world, censor);
                censor.taken = self.world.relay(censor.relay).disk.published;
            }
        }
        for &holder in &self.holders {
            if self.case.holders == Holders::Drop && has_records(&self.world, holder) {
                self.world.crash_relay(holder);
                self.world.relay(holder).disk.lose_records();
                self.world.restart_relay(holder);
            }
        }
    }

    fn judge(&self, seen: &mut Seen) {
        let mut hostile: BTreeSet<RelayName> = self.holders.iter().copied().collect();
        hostile.extend(self.positions.iter().map(|censor| censor.relay));
        seen.hostile += hostile.len();
        seen.strangers.add(&self.world, &self.strangers);
        seen.friend.add(&self.world, &self.friend);
        seen.idle.push(self.longest_idle());
        let missed = self.missed_from();
        let mut told: BTreeMap<&'static str, Instant> = BTreeMap::new();
        told.extend(self.out_of_reach.map(|at| (OUT_OF_REACH, at)));
        for (at, notice) in &self.world.client(BOB).notices {
            if let Notice::Warning(warning) = notice
                && *at >= self.begun
            {
                told.entry(name_of(warning)).or_insert(*at);
            }
        }
        for (name, at) in told {
            let since = if name == NOT_FOUND {
                missed
            } else {
                self.begun
            };
            let hours = at.since(since).as_secs_f64() / 3600.0;
            seen.owners.entry(name).or_default().push(hours);
        }
    }

    /// From when readers miss a descriptor: it is withheld, and its epoch has begun.
    fn missed_from(&self) -> Instant {
        let (now, wall) = (self.world.now(), self.world.wall());
        let ran = now.since(self.begun);
        let starts_at = |epoch: Epoch| {
            let since = wall.since(epoch.starts_at());
            self.begun + ran.saturating_sub(since)
        };
        let withheld = self.withheld.iter();
        let missed = withheld.map(|(&epoch, &at)| starts_at(epoch).max(at));
        missed.min().unwrap_or(self.begun)
    }

    /// The longest time between two circuits that the owner's client began.
    fn longest_idle(&self) -> f64 {
        let notices = self.world.client(BOB).notices.iter();
        let begun = notices.filter_map(|(at, notice)| match notice {
            Notice::HopBuilt { hop: 1, .. } if *at >= self.begun => Some(*at),
            _ => None,
        });
        let (mut longest, mut last) = (0.0, self.begun);
        for at in begun.chain([self.world.now()]) {
            longest = f64::max(longest, at.since(last).as_secs_f64() / 3600.0);
            last = at;
        }
        longest
    }
}

impl Censor {
    fn has_taken(&self, world: &World) -> bool {
        world.all_relays()[self.relay.0].disk.published > self.taken
    }

    /// The epochs of descriptors that it has taken and does not give.
    fn withholds(&self, world: &World) -> Vec<Epoch> {
        let disk = &world.all_relays()[self.relay.0].disk;
        let taken = disk.copy_of_inbox_descriptors().into_iter();
        let withheld = taken.filter(|(key, its)| self.gives.get(key) != Some(its));
        withheld.map(|(_, (epoch, _))| epoch).collect()
    }
}

impl Sent {
    fn add(&mut self, world: &World, letters: &[Letter]) {
        let received = received(world);
        for letter in letters {
            let (is_held, has_come) = (is_held(world, letter), received.contains(&letter.id));
            self.count += 1;
            self.held += usize::from(is_held);
            self.came += usize::from(has_come);
            self.lost += usize::from(is_held && !has_come);
            let mut notices = world.client(letter.from).notices.iter();
            let told = notices.find_map(|(at, notice)| match notice {
                Notice::Deferred { id, reason, .. } if *id == letter.id => Some((*reason, *at)),
                _ => None,
            });
            let told = told.filter(|_| !is_held);
            self.told
                .extend(told.map(|(why, at)| (why, at.since(letter.at).as_secs_f64())));
        }
    }
}

/// A hostile position starts anew with the descriptors that it gives.
fn drop_taken(world: &mut World, censor: &Censor) {
    world.crash_relay(censor.relay);
    let disk = &mut world.relay(censor.relay).disk;
    disk.put_inbox_descriptors_back(censor.gives.clone());
    world.restart_relay(censor.relay);
}

fn has_records(world: &World, relay: RelayName) -> bool {
    world.all_relays()[relay.0].disk.record_count() > 0
}

fn is_held(world: &World, letter: &Letter) -> bool {
    world.has_notice(letter.from, |notice| {
        matches!(notice, Notice::Held { id, holders, wanted } if *id == letter.id && holders >= wanted)
    })
}

fn name_of(warning: &Warning) -> &'static str {
    match warning {
        Warning::NotFound { .. } => NOT_FOUND,
        Warning::MailboxReplaced { .. } => "a mailbox is replaced",
        Warning::GuardFails | Warning::GuardHides { .. } => "a guard fails or hides",
        Warning::L2Refuses => "an L2 refuses",
        _ => "something else",
    }
}

/// Every position of this inbox, now and in the epoch after this.
fn positions(world: &World, address: &InboxAddress) -> BTreeSet<RelayName> {
    let network = world.overlay();
    let Some(control) = world.all_relays().first().and_then(|it| it.control()) else {
        return BTreeSet::new();
    };
    let now = world.wall().epoch();
    let of = |epoch| {
        let key = address.blinded_key(&network.id, epoch);
        ring::positions(control.view(), network, world.wall(), &key, epoch)
    };
    let all = [now, now.next()].map(of);
    let all = all.iter().flat_map(|positions| positions.iter());
    all.filter_map(|relay| world.relay_named(relay)).collect()
}
