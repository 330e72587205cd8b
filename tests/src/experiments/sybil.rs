//! What a share of the network costs someone who rents machines, by the rule that draws relays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use rand::{SeedableRng, rngs::ChaCha20Rng};
use umbel_proto::directory::choice::{self, Candidates, Exclude};
use umbel_proto::directory::descriptor::Unverified;
use umbel_proto::directory::{NetView, RelayDescriptor, Roles, ring};
use umbel_proto::ids::{BlindedKey, RelayId};
use umbel_proto::network::{AsMap, AsNumber, Network};
use umbel_proto::time::Epoch;

use super::addresses::{Announced, announced_at_random};
use super::relays::{self, MACHINE, Relay, WALL, honest, ids, share_of};
use super::{Experiment, Finding, Line, Page, Plot, Scale, Table, percent};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "sybil",
    question: "What share of clients' choices does a given monthly budget for machines buy?",
    run,
};

/// Relays that one machine runs, on as many ports, where a rule counts them one by one.
const PORTS: usize = 16;
/// Shares whose price is told.
const SHARES: [f64; 3] = [0.05, 0.10, 0.20];

/// How big everything is.
struct Plan {
    honest: usize,
    honest_ases: usize,
    /// ASes in which machines can be rented.
    hosters: usize,
    budgets: &'static [usize],
    paths: usize,
    keys: u8,
}

const WHOLE: Plan = Plan {
    honest: 1000,
    honest_ases: 150,
    hosters: 300,
    budgets: &[50, 100, 200, 400, 800, 1600, 3200, 6400],
    paths: 20_000,
    keys: 250,
};

const SMALL: Plan = Plan {
    honest: 200,
    honest_ases: 60,
    hosters: 60,
    budgets: &[50, 200, 800],
    paths: 2000,
    keys: 20,
};

/// How a relay is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Uniform,
    GroupFirst,
    Capped,
    CappedByAs,
}

const RULES: [Rule; 4] = [
    Rule::Uniform,
    Rule::GroupFirst,
    Rule::Capped,
    Rule::CappedByAs,
];

impl Rule {
    const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::GroupFirst => "group first",
            Self::Capped => "capped",
            Self::CappedByAs => "capped, with AS shares",
        }
    }
}

/// Where machines are rented: in how many ASes, in how many /16s of each, and how many in each /16.
#[derive(Debug, Clone, Copy)]
struct Strategy {
    ases: usize,
    prefixes: usize,
    machines: usize,
}

fn run(scale: Scale, seed: u64) -> Page {
    let plan = match scale {
        Scale::Small => SMALL,
        Scale::Whole => WHOLE,
    };
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut announced = announced_at_random(&mut rng);
    let honest = honest((plan.honest, plan.honest_ases), &announced, &mut rng);
    // Whoever rents for this looks for hosters with many prefixes.
    announced.sort_by_key(|(_, of_as)| std::cmp::Reverse(of_as.len()));
    let hosters = &announced[..plan.hosters];
    let tried = try_all(&plan, &honest, hosters, &mut rng);
    let paths = path_rows(&plan, &honest, hosters, &tried, &mut rng);
    page(&plan, &tried, &paths)
}

/// A network whose relays are vouched for already.
fn network(rule: Rule) -> Network {
    relays::network(match rule {
        Rule::CappedByAs => AsMap::NEWEST,
        _ => AsMap::None,
    })
}

/// What a strategy costs, and the share of draws that it has by each rule.
struct Tried {
    strategy: Strategy,
    cost: usize,
    shares: BTreeMap<Rule, f64>,
}

fn try_all(
    plan: &Plan,
    honest: &[Relay],
    hosters: &[(AsNumber, Announced)],
    rng: &mut ChaCha20Rng,
) -> Vec<Tried> {
    let most = plan.budgets.iter().max().copied().unwrap_or_default();
    let mut all = Vec::new();
    for ases in [1, 2, 3, 5, 8, 12, 20, 30, 50, 75, 100, 150, 200, 300] {
        for (prefixes, machines) in [1, 2, 4, 8, 16]
            .into_iter()
            .flat_map(|p| [1, 2, 4].map(|m| (p, m)))
        {
            let strategy = Strategy {
                ases: ases.min(hosters.len()),
                prefixes,
                machines,
            };
            let hostile = hostile(strategy, hosters, rng);
            let cost = hostile.len() * MACHINE;
            if cost <= most {
                let shares = RULES.map(|rule| (rule, share(rule, honest, &hostile)));
                all.push(Tried {
                    strategy,
                    cost,
                    shares: shares.into(),
                });
            }
        }
    }
    all
}

/// The machines of a strategy: in each /16, in distinct /24s as long as there are some.
fn hostile(
    strategy: Strategy,
    hosters: &[(AsNumber, Announced)],
    rng: &mut ChaCha20Rng,
) -> Vec<Relay> {
    let mut relays = Vec::new();
    for (_, of_as) in &hosters[..strategy.ases] {
        for prefixes in of_as.values().take(strategy.prefixes) {
            let places = prefixes.iter().cycle().zip(1_u8..);
            for (prefix, host) in places.take(strategy.machines) {
                let [a, b, c, _] = prefix.octets();
                relays.push(Relay::at(Ipv4Addr::new(a, b, c, host), rng));
            }
        }
    }
    relays
}

/// The share of draws that the hostile relays have.
fn share(rule: Rule, honest: &[Relay], hostile: &[Relay]) -> f64 {
    let groups = |relays: &[Relay]| -> BTreeMap<_, f64> {
        let network = network(rule);
        let mut counts = BTreeMap::new();
        for relay in relays {
            let group = network.group_of(relay.descriptor.addresses[0]);
            *counts.entry(group).or_default() += 1.0;
        }
        counts
    };
    match rule {
        Rule::Uniform => {
            let relays = (hostile.len() * PORTS) as f64;
            relays / (relays + honest.len() as f64)
        }
        Rule::GroupFirst => {
            let (honest, hostile) = (groups(honest), groups(hostile));
            let all: BTreeSet<_> = honest.keys().chain(hostile.keys()).collect();
            let of_group = |group| {
                let relays = hostile.get(group).copied().unwrap_or_default() * PORTS as f64;
                relays / (relays + honest.get(group).copied().unwrap_or_default())
            };
            all.iter().map(|&group| of_group(group)).sum::<f64>() / all.len() as f64
        }
        Rule::Capped | Rule::CappedByAs => {
            share_of(&ids(hostile), &candidates(rule, honest, hostile))
        }
    }
}

fn candidates(rule: Rule, honest: &[Relay], hostile: &[Relay]) -> Candidates {
    let all = honest.iter().chain(hostile);
    Candidates::new(all.map(|relay| &relay.descriptor), &network(rule))
}

/// The most that a rule gives for this budget.
fn best(tried: &[Tried], rule: Rule, budget: usize) -> Option<&Tried> {
    tried
        .iter()
        .filter(|tried| tried.cost <= budget)
        .max_by(|one, other| one.shares[&rule].total_cmp(&other.shares[&rule]))
}

/// The least that this share costs by a rule.
fn price(tried: &[Tried], rule: Rule, share: f64) -> Option<usize> {
    let enough = tried.iter().filter(|tried| tried.shares[&rule] >= share);
    enough.map(|tried| tried.cost).min()
}

/// What someone has of paths and of the ring.
struct Places {
    budget: usize,
    draw: f64,
    guard: f64,
    layer2: f64,
    middle: f64,
    holder: f64,
    guard_and_holder: f64,
    ring: f64,
    whole_ring: f64,
}

/// For each budget, the best strategy against today's draw, and what it has of everything.
fn path_rows(
    plan: &Plan,
    honest: &[Relay],
    hosters: &[(AsNumber, Announced)],
    tried: &[Tried],
    rng: &mut ChaCha20Rng,
) -> Vec<Places> {
    let rule = Rule::CappedByAs;
    let of_budget = |&budget: &usize| {
        let best = best(tried, rule, budget)?;
        let hostile = hostile(best.strategy, hosters, rng);
        let mut places = places(plan, honest, &hostile, rng);
        places.budget = budget;
        places.draw = best.shares[&rule];
        Some(places)
    };
    plan.budgets.iter().filter_map(of_budget).collect()
}

fn places(plan: &Plan, honest: &[Relay], hostile: &[Relay], rng: &mut ChaCha20Rng) -> Places {
    let network = network(Rule::CappedByAs);
    let candidates = candidates(Rule::CappedByAs, honest, hostile);
    let all: BTreeMap<RelayId, &RelayDescriptor> = honest
        .iter()
        .chain(hostile)
        .map(|relay| (relay.descriptor.relay, &relay.descriptor))
        .collect();
    let theirs = ids(hostile);
    let (mut counts, mut both) = ([0.0; 4], 0.0);
    for _ in 0..plan.paths {
        let mut exclude = Exclude::nothing();
        let mut drawn = [false; 4];
        for (hop, is_theirs) in drawn.iter_mut().enumerate() {
            // Somebody else chooses the holder: nothing is excluded.
            let excluded = match hop {
                3 => &Exclude::nothing(),
                _ => &exclude,
            };
            if let Some(relay) = choice::draw(&candidates, Roles::NONE, excluded, rng) {
                *is_theirs = theirs.contains(&relay);
                exclude.groups_of(all[&relay], &network);
            }
        }
        for (count, is_theirs) in counts.iter_mut().zip(drawn) {
            *count += f64::from(u8::from(is_theirs));
        }
        both += f64::from(u8::from(drawn[0] && drawn[3]));
    }
    let paths = plan.paths as f64;
    let [guard, layer2, middle, holder] = counts.map(|count| count / paths);
    let (ring, whole_ring) = ring_share(plan, &network, honest, hostile);
    Places {
        budget: 0,
        draw: 0.0,
        guard,
        layer2,
        middle,
        holder,
        guard_and_holder: both / paths,
        ring,
        whole_ring,
    }
}

/// The share of ring positions that they have, and of keys all of whose positions they have.
fn ring_share(plan: &Plan, network: &Network, honest: &[Relay], hostile: &[Relay]) -> (f64, f64) {
    let mut view = NetView::new();
    for relay in honest.iter().chain(hostile) {
        let bytes = relay.descriptor.sign(&relay.key);
        let verified = Unverified::decode(&bytes).and_then(|it| it.verify(network, WALL));
        if let Ok(verified) = verified {
            view.insert(verified, WALL);
        }
    }
    let theirs = ids(hostile);
    let (mut positions, mut taken, mut whole) = (0.0, 0.0, 0.0);
    for key in 0..plan.keys {
        let epoch = Epoch(2900);
        let relays = ring::positions(&view, network, WALL, &BlindedKey([key; 32]), epoch).first;
        let of_theirs = relays
            .iter()
            .filter(|relay| theirs.contains(*relay))
            .count();
        positions += relays.len() as f64;
        taken += of_theirs as f64;
        whole += f64::from(u8::from(of_theirs == relays.len()));
    }
    (taken / positions, whole / f64::from(plan.keys))
}

fn dollars(price: Option<usize>) -> String {
    price.map_or("not for any of these".to_owned(), |price| {
        format!("${price}")
    })
}

fn page(plan: &Plan, tried: &[Tried], places: &[Places]) -> Page {
    let line = |rule: Rule| Line {
        name: rule.name().to_owned(),
        points: plan
            .budgets
            .iter()
            .filter_map(|&budget| {
                Some((
                    budget as f64,
                    best(tried, rule, budget)?.shares[&rule] * 100.0,
                ))
            })
            .collect(),
    };
    Page {
        method: method(plan),
        findings: findings(tried, places),
        tables: vec![budgets(plan, tried), prices(tried), of_paths(places)],
        plot: Plot {
            title: "Share of draws by monthly budget".to_owned(),
            x: "dollars a month".to_owned(),
            y: "share of draws, %".to_owned(),
            lines: RULES.map(line).into(),
        },
    }
}

fn findings(tried: &[Tried], places: &[Places]) -> Vec<Finding> {
    let prices = |rule| SHARES.map(|share| price(tried, rule, share));
    let or_more = |price: Option<usize>| price.unwrap_or(usize::MAX);
    let (uniform, capped, by_as) = (
        prices(Rule::Uniform),
        prices(Rule::Capped),
        prices(Rule::CappedByAs),
    );
    let list = |prices: [Option<usize>; 3]| prices.map(dollars).join(", ");
    let of_one = |rule| {
        let of_one = tried.iter().filter(|tried| tried.strategy.ases == 1);
        of_one.map(|tried| tried.shares[&rule]).fold(0.0, f64::max)
    };
    let farthest = places
        .iter()
        .flat_map(|it| {
            [it.guard, it.layer2, it.middle, it.holder].map(|share| (share - it.draw).abs())
        })
        .fold(0.0, f64::max);
    let product = places
        .iter()
        .map(|it| (it.guard_and_holder - it.guard * it.holder).abs())
        .fold(0.0, f64::max);
    vec![
        Finding {
            expected: "Caps make 5, 10 and 20 % of draws at least five times as dear as a uniform draw does".to_owned(),
            measured: format!("uniform {}; capped {}", list(uniform), list(capped)),
            is_met: uniform.iter().zip(&capped).all(|(one, other)| or_more(*other) >= 5 * or_more(*one)),
        },
        Finding {
            expected: "With AS shares, machines of one hoster have at most 5 % of draws, however many".to_owned(),
            measured: format!("with {}; without {}", percent(of_one(Rule::CappedByAs)), percent(of_one(Rule::Capped))),
            is_met: of_one(Rule::CappedByAs) < 0.0501,
        },
        Finding {
            expected: "Against someone who rents from many hosters, AS shares change the price by a third at most: they take from honest relays at large hosters, too".to_owned(),
            measured: format!("without {}; with {}", list(capped), list(by_as)),
            is_met: capped.iter().zip(&by_as).all(|(one, other)| {
                let (one, other) = (or_more(*one), or_more(*other));
                one.min(other) >= one.max(other) / 3 * 2
            }),
        },
        Finding {
            expected: "Guard, L2, middle and holder are theirs as often as one draw is, within 3 points: excluding groups moves little".to_owned(),
            measured: format!("{:.1} points at most", farthest * 100.0),
            is_met: farthest < 0.03,
        },
        Finding {
            expected: "Guard and holder are both theirs as often as two draws are, within a point".to_owned(),
            measured: format!("{:.1} points at most", product * 100.0),
            is_met: product < 0.01,
        },
    ]
}

fn budgets(plan: &Plan, tried: &[Tried]) -> Table {
    let mut head = vec!["a month".to_owned()];
    head.extend(RULES.map(|rule| rule.name().to_owned()));
    let row = |&budget: &usize| {
        let mut cells = vec![format!("${budget}")];
        cells.extend(RULES.map(|rule| {
            best(tried, rule, budget).map_or("-".to_owned(), |best| percent(best.shares[&rule]))
        }));
        cells
    };
    Table {
        title: "Share of draws by budget".to_owned(),
        head,
        rows: plan.budgets.iter().map(row).collect(),
    }
}

fn prices(tried: &[Tried]) -> Table {
    let mut head = vec!["share".to_owned()];
    head.extend(RULES.map(|rule| rule.name().to_owned()));
    let row = |share: f64| {
        let mut cells = vec![percent(share)];
        cells.extend(RULES.map(|rule| dollars(price(tried, rule, share))));
        cells
    };
    Table {
        title: "The cheapest of the strategies that has a share, a month".to_owned(),
        head,
        rows: SHARES.map(row).into(),
    }
}

fn of_paths(places: &[Places]) -> Table {
    let head = [
        "a month",
        "draw",
        "guard",
        "L2",
        "middle",
        "holder",
        "guard and holder",
        "ring positions",
        "whole ring",
    ];
    let row = |it: &Places| {
        let shares = [
            it.draw,
            it.guard,
            it.layer2,
            it.middle,
            it.holder,
            it.guard_and_holder,
            it.ring,
            it.whole_ring,
        ];
        let mut cells = vec![format!("${}", it.budget)];
        cells.extend(shares.map(percent));
        cells
    };
    Table {
        title: "What the best strategy against today's draw has".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: places.iter().map(row).collect(),
    }
}

fn method(plan: &Plan) -> String {
    format!(
        "{} honest relays, one an address, in {} autonomous systems of the AS map: the n-th has in proportion to 1/n of them. Someone \
         rents machines with one IPv4 address each for ${MACHINE} a month, in up to {} ASes, up to 16 /16s of each and up to 4 machines in each \
         /16, in distinct /24s. They look for hosters with many prefixes first. Each strategy of a grid is tried, and the best for a \
         budget counts. Shares by *capped* (§8.5(2)) and *capped, with AS shares* (§8.5(5)) are of the production code; *uniform* and \
         *group first* (a /16 is drawn, then a relay in it) are for comparison, and there each machine runs {PORTS} relays on as many ports, \
         which neither rule notices. All relays are vouched for and old enough: that takes a month for a guard and no money.\n\n\
         *Ring positions* are those of an inbox's descriptor (§9.4) that fall to them by chance, and *whole ring* how often all of them \
         do; someone who knows the address can choose where to rent, and is not measured here.\n\n\
         Prices and the honest relays' places are assumptions, not measurements. Hosters that announce prefixes of several ASes, and \
         people who rent address space of their own, would be cheaper; abuse desks, payment and time would be dearer.",
        plan.honest, plan.honest_ases, plan.hosters,
    )
}
