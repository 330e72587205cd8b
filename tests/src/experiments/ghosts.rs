//! What becomes of relays that don't exist, when relays that do vouch for them.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::descriptor::Unverified;
use umbel_proto::directory::receipts::{Facts, Receipt, SpotChecks};
use umbel_proto::directory::{
    Age, Belief, Book, BookRow, RelayDescriptor, Roles, VerifiedDescriptor,
};
use umbel_proto::handshake::OnionSecret;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{VIEW_RELAYS_MAX, VIEW_SLACK};
use umbel_proto::network::{AsMap, AsNumber, Network, Params};
use umbel_proto::time::{Duration, Instant, WallTime};

use client::{Client, Hostile};

use super::addresses::{Announced, announced_at_random};
use super::{Experiment, Finding, Line, Page, Plot, Scale, Table, percent};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "ghosts",
    question: "What becomes of invented relays that old relays vouch for, at relays and at clients, and of honest newcomers meanwhile?",
    run,
};

/// When the ghosts come.
const START: WallTime = WallTime(1_795_000_000);
/// When everybody was first seen: a month before, and a month after the view was begun.
const FIRST_SEEN: WallTime = WallTime(START.0 - 30 * 86_400);
const BEGUN: WallTime = WallTime(START.0 - 60 * 86_400);
const MINUTE: Duration = Duration::from_secs(60);
/// How many of the relays' descriptors come anew a minute: each every 18 h, as by default.
const RENEWAL: usize = 18 * 60;

struct Plan {
    honest: usize,
    ghosts: usize,
    minutes: usize,
    /// Honest relays that join, one every ten minutes.
    newcomers: usize,
    /// Ghosts that hostile relays show a client, and nobody else.
    private: usize,
}

const WHOLE: Plan = Plan {
    honest: 1000,
    ghosts: 100_000,
    minutes: 72 * 60,
    newcomers: 432,
    private: 5000,
};

const SMALL: Plan = Plan {
    honest: 100,
    ghosts: 400,
    minutes: 30 * 60,
    newcomers: 180,
    private: 100,
};

/// How many relays vouch for the ghosts, each in an AS of its own.
const COLLUDERS: [usize; 4] = [0, 2, 3, 12];
/// How often a client asks, in minutes: every two hours, as by default.
const CLIENT_ASKS_EVERY: usize = 120;

/// A relay that is, or a ghost.
struct Relay {
    key: SigningKey,
    address: SocketAddr,
}

impl Relay {
    fn new(address: SocketAddr, rng: &mut ChaCha20Rng) -> Self {
        Self {
            key: SigningKey::generate(rng),
            address,
        }
    }

    fn id(&self) -> RelayId {
        self.key.public().into()
    }

    /// What it says of itself, with receipts of these.
    fn descriptor(&self, at: WallTime, issuers: &[&Self], rng: &mut ChaCha20Rng) -> Vec<u8> {
        let network = network();
        let receipt =
            |issuer: &&Self| Receipt::sign(&issuer.key, &network.id, &self.id(), self.address, at);
        let descriptor = RelayDescriptor {
            network: network.id,
            relay: self.id(),
            onion_keys: vec![OnionSecret::generate(rng).public()],
            addresses: vec![self.address],
            roles: Roles::HOLDER | Roles::DIRECTORY,
            version: "0.1.0".to_owned(),
            issued_at: at,
            receipts: issuers.iter().map(receipt).collect(),
            puzzle: 0,
        };
        descriptor.sign(&self.key)
    }
}

/// The default parameters, with an AS map.
fn network() -> Network {
    Network {
        params: Params {
            as_map: AsMap::NEWEST,
            ..Params::DEFAULT
        },
        ..Network::local()
    }
}

/// One relay's view, its spot checks, and what they meet.
struct World {
    network: Network,
    book: Book,
    checks: SpotChecks,
    now: Instant,
    start: Instant,
    rng: ChaCha20Rng,
    /// Who is at which address.
    there: BTreeMap<SocketAddr, RelayId>,
}

impl World {
    fn new(honest: &[Relay], rows: Vec<BookRow>, seed: u64) -> Self {
        let (network, rng) = (network(), ChaCha20Rng::seed_from_u64(seed));
        let mut book = Book::restore(&network, rows, START);
        book.believe_met_only(&network, START);
        let start = Instant::default() + MINUTE;
        Self {
            network,
            book,
            checks: SpotChecks::restore(RelayId([0; 32]), None, start),
            now: start,
            start,
            rng,
            there: honest
                .iter()
                .map(|relay| (relay.address, relay.id()))
                .collect(),
        }
    }

    fn wall(&self) -> WallTime {
        START + self.now.since(self.start)
    }

    /// Another relay passes a descriptor on. Whether it is taken.
    fn learn(&mut self, bytes: &[u8]) -> bool {
        let wall = self.wall();
        let Ok(unverified) = Unverified::decode(bytes) else {
            return false;
        };
        let network = &self.network;
        let learned = self
            .book
            .hear(network, wall, None, unverified, &mut self.rng);
        while self.book.poll_op().is_some() {}
        let Ok(learned) = learned else { return false };
        let is_news = learned.is_news();
        if is_news {
            let facts = facts(&self.network, &self.book, wall);
            self.checks
                .handle_taken(self.now, facts, &learned.descriptor, &mut self.rng);
        }
        is_news
    }

    /// A minute passes: checks dial, and whoever is there answers.
    fn pass(&mut self) {
        self.now = self.now + MINUTE;
        let wall = self.wall();
        let facts = facts(&self.network, &self.book, wall);
        self.checks.handle_timeout(self.now, facts, |_, _, _| true);
        while let Some((id, probe)) = self.checks.poll_dial() {
            let is_there = self.there.get(&probe.address) == Some(&probe.relay);
            self.checks
                .handle_probed(self.now, facts, id, is_there.into());
        }
        self.checks.expire(wall);
        if let Some((_, barred)) = self.checks.take_changes() {
            self.book.bar(&self.network, wall, barred);
        }
        self.book.expire(&self.network, wall, wall);
        while self.book.poll_op().is_some() {}
    }

    /// How many relays that are, and how many that are not, may be drawn.
    fn selectable(&self) -> (usize, usize) {
        let all = self.book.view().selectable(&self.network, self.wall());
        let (real, ghosts): (Vec<_>, Vec<_>) =
            all.partition(|it| self.there.get(&it.addresses[0]) == Some(&it.relay));
        (real.len(), ghosts.len())
    }

    fn known_ghosts(&self) -> usize {
        let is_ghost =
            |it: &&VerifiedDescriptor| self.there.get(&it.addresses[0]) != Some(&it.relay);
        self.book.view().iter().filter(is_ghost).count()
    }
}

fn facts<'a>(network: &'a Network, book: &'a Book, wall: WallTime) -> Facts<'a> {
    Facts {
        network,
        view: book.view(),
        wall,
        confirmed: wall,
    }
}

/// Five relays that vouch for one honest relay: no two of them, nor it, in one AS.
fn issuers<'a>(honest: &'a [Relay], relay: &Relay, rng: &mut ChaCha20Rng) -> Vec<&'a Relay> {
    let network = network();
    let mut taken = vec![network.widest_group_of(relay.address)];
    let mut found = Vec::new();
    for _ in 0..200 {
        let Some(issuer) = honest.choose(rng) else {
            break;
        };
        let group = network.widest_group_of(issuer.address);
        if !taken.contains(&group) && found.len() < 5 {
            taken.push(group);
            found.push(issuer);
        }
    }
    found
}

/// These relays, as each of them stores the others.
fn rows(honest: &[Relay], rng: &mut ChaCha20Rng) -> Vec<BookRow> {
    let age = Age {
        first_seen: FIRST_SEEN,
        belief: Belief::Given(BEGUN),
        there_since: FIRST_SEEN,
    };
    let row = |relay: &Relay| BookRow {
        descriptor: relay.descriptor(START, &issuers(honest, relay, rng), rng),
        age,
    };
    honest.iter().map(row).collect()
}

/// Two clients: the guards of one are honest, and one guard of the other is among those who collude,
/// who show it ghosts of its own, and always new descriptors of these.
struct Clients {
    honest: Client,
    hostile: Client,
    ghosts: Vec<Relay>,
}

impl Clients {
    fn new(
        plan: &Plan,
        (honest, rows): (&[Relay], &[BookRow]),
        colluders: usize,
        announced: &[(AsNumber, Announced)],
        rng: &mut ChaCha20Rng,
    ) -> Self {
        let network = network();
        let guards = |first: usize| [first, 1, 2].map(|it| honest[honest.len() - 1 - it].id());
        let mut hostile_guards = guards(0);
        hostile_guards[0] = honest[0].id();
        let others = honest[..colluders].iter().skip(1).map(Relay::id).collect();
        let book = Book::restore(&network, rows.to_vec(), START);
        let hostile = (colluders > 0).then_some(Hostile { book, others });
        let of_colluders = if colluders < 3 { 0 } else { plan.private };
        let ghosts = (0..of_colluders).map(|_| Relay::new(address(&announced[100..], rng), rng));
        let client = |guards, hostile| Client::new(&network, rows.to_vec(), guards, hostile, START);
        Self {
            honest: client(guards(0), None),
            hostile: client(hostile_guards, hostile),
            ghosts: ghosts.collect(),
        }
    }

    /// A minute passes: ghosts issue anew, each every 18 h, and all at first.
    fn pass(&mut self, world: &World, honest: &[Relay], minute: usize, rng: &mut ChaCha20Rng) {
        let (network, wall) = (&world.network, world.wall());
        let issuers: Vec<&Relay> = honest[..3].iter().collect();
        for ghost in &self.ghosts {
            let turn = usize::from(ghost.address.port()) % RENEWAL;
            if minute == 1 || minute % RENEWAL == turn {
                let bytes = ghost.descriptor(wall, &issuers, rng);
                self.hostile.tell_hostile(network, wall, &bytes, rng);
            }
        }
        // Right after the ghosts came, before anybody was barred, and then in turns.
        if minute % CLIENT_ASKS_EVERY == 1 {
            let there: BTreeSet<RelayId> = honest.iter().map(Relay::id).collect();
            for client in [&mut self.honest, &mut self.hostile] {
                client.ask((network, wall), &world.book, &there, rng);
            }
        }
    }
}

/// What came of one number of colluders.
#[derive(Default)]
struct Outcome {
    colluders: usize,
    taken: usize,
    /// The most ghosts that might be drawn at once.
    selectable: usize,
    /// When the last ghost left the view, and the colluders were barred, in minutes.
    gone: Option<usize>,
    barred: Option<usize>,
    /// The honest relays that might be drawn at the start, at the least, and at the end.
    honest: [usize; 3],
    newcomers: usize,
    /// The most relays in the view at once.
    largest: usize,
    bytes: usize,
    clients: [AtClient; 2],
    /// Ghosts in the view, by minute.
    line: Vec<(f64, f64)>,
}

/// What came of a client: with honest guards, or with a hostile one.
#[derive(Default, Clone, Copy)]
struct AtClient {
    /// The most ghosts that it knew, and that it might have drawn.
    known: usize,
    selectable: usize,
    /// The share of honest relays that it might have drawn, at the least.
    honest: f64,
}

fn run(scale: Scale, seed: u64) -> Page {
    let plan = match scale {
        Scale::Small => SMALL,
        Scale::Whole => WHOLE,
    };
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let announced = announced_at_random(&mut rng);
    let outcomes: Vec<_> = COLLUDERS
        .into_iter()
        .map(|colluders| outcome(&plan, colluders, &announced, &mut rng))
        .collect();
    page(&plan, &outcomes)
}

/// An address in one of these ASes.
fn address(of: &[(AsNumber, Announced)], rng: &mut ChaCha20Rng) -> SocketAddr {
    let prefixes = of.choose(rng).map(|(_, of_as)| of_as);
    let prefix = prefixes.and_then(|of_as| {
        let all: Vec<_> = of_as.values().flatten().collect();
        all.choose(rng).copied().copied()
    });
    let [a, b, c, _] = prefix.unwrap_or(Ipv4Addr::LOCALHOST).octets();
    SocketAddr::from((
        Ipv4Addr::new(a, b, c, rng.random_range(1..255)),
        rng.random_range(1024..u16::MAX),
    ))
}

fn outcome(
    plan: &Plan,
    colluders: usize,
    announced: &[(AsNumber, Announced)],
    rng: &mut ChaCha20Rng,
) -> Outcome {
    // Each of the first relays is in an AS of its own, so that any of them can collude.
    let place = |number: usize| match number {
        ..100 => &announced[number..=number],
        _ => announced,
    };
    let mut honest: Vec<_> = (0..plan.honest)
        .map(|number| Relay::new(address(place(number), rng), rng))
        .collect();
    let rows = rows(&honest, rng);
    let mut clients = Clients::new(plan, (&honest, &rows), colluders, announced, rng);
    let mut world = World::new(&honest, rows, rng.random());
    let (before, _) = world.selectable();
    let mut outcome = Outcome {
        colluders,
        honest: [before; 3],
        ..Outcome::default()
    };
    let vouchers: Vec<usize> = (0..colluders).collect();
    for _ in 0..plan.ghosts {
        let ghost = Relay::new(address(&announced[100..], rng), rng);
        let three: Vec<_> = vouchers
            .sample(rng, 3)
            .map(|&number| &honest[number])
            .collect();
        let bytes = ghost.descriptor(START, &three, rng);
        outcome.taken += usize::from(world.learn(&bytes));
    }
    let view = world.book.view();
    outcome.bytes = view.iter().map(|descriptor| descriptor.bytes().len()).sum();
    for minute in 1..=plan.minutes {
        world.pass();
        renew(plan, (&mut world, &mut clients), &honest, minute, rng);
        if minute % 10 == 0 && honest.len() < plan.honest + plan.newcomers {
            let newcomer = Relay::new(address(announced, rng), rng);
            let by = issuers(&honest[..plan.honest], &newcomer, rng);
            let bytes = newcomer.descriptor(world.wall(), &by, rng);
            world.there.insert(newcomer.address, newcomer.id());
            world.learn(&bytes);
            let (network, wall) = (&world.network, world.wall());
            clients.hostile.tell_hostile(network, wall, &bytes, rng);
            honest.push(newcomer);
        }
        clients.pass(&world, &honest, minute, rng);
        outcome.look(&world, minute);
    }
    let newcomers = honest.iter().skip(plan.honest);
    let known = newcomers.filter(|it| world.book.view().get(&it.id()).is_some());
    outcome.newcomers = known.count();
    outcome.clients = [&clients.honest, &clients.hostile].map(|client| AtClient {
        known: client.known,
        selectable: client.selectable,
        honest: client.honest as f64 / before as f64,
    });
    outcome
}

/// The honest relays whose turn it is issue their descriptors anew.
fn renew(
    plan: &Plan,
    (world, clients): (&mut World, &mut Clients),
    honest: &[Relay],
    minute: usize,
    rng: &mut ChaCha20Rng,
) {
    let known = &honest[..plan.honest];
    for relay in honest.iter().skip(minute % RENEWAL).step_by(RENEWAL) {
        let bytes = relay.descriptor(world.wall(), &issuers(known, relay, rng), rng);
        world.learn(&bytes);
        let (network, wall) = (&world.network, world.wall());
        clients.hostile.tell_hostile(network, wall, &bytes, rng);
    }
}

impl Outcome {
    /// Notes how things are.
    fn look(&mut self, world: &World, minute: usize) {
        let known = world.known_ghosts();
        self.largest = self.largest.max(world.book.view().len());
        if known == 0 {
            self.gone.get_or_insert(minute);
        }
        if world.checks.barred().count() >= self.colluders.max(1) {
            self.barred.get_or_insert(minute);
        }
        if minute % 30 == 1 {
            self.line.push((minute as f64 / 60.0, known as f64));
            let (real, ghosts) = world.selectable();
            self.selectable = self.selectable.max(ghosts);
            let [before, least, _] = self.honest;
            self.honest = [before, least.min(real), real];
        }
    }
}

fn page(plan: &Plan, outcomes: &[Outcome]) -> Page {
    let line = |outcome: &Outcome| Line {
        name: format!("{} vouch", outcome.colluders),
        points: outcome.line.clone(),
    };
    Page {
        method: method(plan),
        findings: findings(plan, outcomes),
        tables: vec![table(plan, outcomes)],
        plot: Plot {
            title: "Invented relays in a relay's view".to_owned(),
            x: "hours".to_owned(),
            y: "ghosts".to_owned(),
            lines: outcomes.iter().map(line).collect(),
        },
    }
}

fn findings(plan: &Plan, outcomes: &[Outcome]) -> Vec<Finding> {
    let most = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).max().unwrap_or_default();
    let least = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).min().unwrap_or_default();
    let kept = outcomes
        .iter()
        .map(|it| it.honest[1] as f64 / it.honest[0] as f64);
    let clients = || outcomes.iter().flat_map(|it| it.clients);
    let at_clients =
        |of: fn(&AtClient) -> usize| clients().map(|it| of(&it)).max().unwrap_or_default();
    let drawn = clients().map(|it| it.honest).fold(1.0, f64::min);
    let few = outcomes.iter().filter(|it| it.colluders < 3);
    let by_few: usize = few.map(|it| it.taken).sum();
    vec![
        Finding {
            expected: "Fewer than three colluding issuers bring no ghost into a view".to_owned(),
            measured: format!("{by_few} taken"),
            is_met: by_few == 0,
        },
        Finding {
            expected: "No ghost may ever be drawn, however many collude".to_owned(),
            measured: format!("{} at once", most(|it| it.selectable)),
            is_met: most(|it| it.selectable) == 0,
        },
        Finding {
            expected: "Nor by a client that heard of ghosts before anybody was barred, or that has one of those who collude as a guard".to_owned(),
            measured: format!("{} at once", at_clients(|it| it.selectable)),
            is_met: at_clients(|it| it.selectable) == 0,
        },
        Finding {
            expected: "These clients may draw at least 95 % of the honest relays all the while".to_owned(),
            measured: format!("{} at the least", percent(drawn)),
            is_met: drawn >= 0.95,
        },
        Finding {
            expected: "The view stays within its cap".to_owned(),
            measured: format!("{} relays at once, of {}", most(|it| it.largest), VIEW_RELAYS_MAX + VIEW_SLACK),
            is_met: most(|it| it.largest) <= VIEW_RELAYS_MAX + VIEW_SLACK,
        },
        Finding {
            expected: "At least 95 % of the honest relays may be drawn all the while, and all in the end: those that barred relays vouched for may have to get new receipts".to_owned(),
            measured: format!("{} at the least", percent(kept.clone().fold(1.0, f64::min))),
            is_met: kept.fold(1.0, f64::min) >= 0.95 && outcomes.iter().all(|it| it.honest[2] >= it.honest[0]),
        },
        Finding {
            expected: "At least 95 % of honest newcomers are in the view in the end: the others have receipts of barred relays".to_owned(),
            measured: format!("{} of {} at the least", least(|it| it.newcomers), plan.newcomers),
            is_met: least(|it| it.newcomers) * 100 >= plan.newcomers * 95,
        },
    ]
}

fn table(plan: &Plan, outcomes: &[Outcome]) -> Table {
    let head = [
        "colluding issuers",
        "ghosts taken at once",
        "ghosts that might be drawn",
        "issuers barred after",
        "last ghost gone after",
        "descriptors, MB",
        "newcomers known in the end",
        "ghosts that a client knew: honest guards, a hostile one",
        "that it might draw",
    ];
    let hours = |minutes: Option<usize>| match minutes {
        Some(minutes) if minutes < 120 => format!("{minutes} min"),
        Some(minutes) => format!("{:.0} h", minutes as f64 / 60.0),
        None => "-".to_owned(),
    };
    let at_clients = |it: &Outcome, of: fn(&AtClient) -> usize| {
        let [honest, hostile] = it.clients.each_ref().map(of);
        format!("{honest}, {hostile}")
    };
    let row = |it: &Outcome| {
        vec![
            it.colluders.to_string(),
            it.taken.to_string(),
            it.selectable.to_string(),
            hours(it.barred),
            hours(it.gone.filter(|_| it.taken > 0)),
            format!("{:.1}", it.bytes as f64 / 1e6),
            format!("{} of {}", it.newcomers, plan.newcomers),
            at_clients(it, |client| client.known),
            at_clients(it, |client| client.selectable),
        ]
    };
    Table {
        title: "By the number of colluding issuers".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: outcomes.iter().map(row).collect(),
    }
}

fn method(plan: &Plan) -> String {
    format!(
        "One relay knows {} others for 30 days, by the default parameters and the AS map. In one moment, as in a reconciliation with a \
         hostile relay, it is given {} invented descriptors at addresses all over the map, each with receipts of three of those who \
         collude: relays that are real, known for a month, and in distinct ASes. Then {} hours pass. Honest relays issue their \
         descriptors anew every 18 h, and one honest newcomer with five receipts of others comes every ten minutes. Spot checks \
         (§8.8) dial; nobody is at a ghost's address. Two clients that know the same relays ask every two hours, for the first time a \
         minute after the ghosts came: one of three guards in turn, or one time in three a relay drawn at random. All relays have the \
         view of that one relay. But of the second client the first guard colludes, and so does one relay in 20 of those drawn: these \
         show it {} ghosts of its own, and new descriptors of them for ever. The books, the receipts and the checks are the production \
         code; the links between relays are not part of this.",
        plan.honest,
        plan.ghosts,
        plan.minutes / 60,
        plan.private,
    )
}
