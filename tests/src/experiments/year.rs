//! Pairs of users over a year: how many are exposed, because one party has the guard of one of them
//! and a mailbox that both use, and when first.

use std::collections::BTreeSet;

use rand::{SeedableRng, rngs::ChaCha20Rng};
use umbel_proto::ids::RelayId;
use umbel_proto::network::{AsMap, Params};
use umbel_proto::time::Duration;

use super::addresses::announced_at_random;
use super::choices::{Choices, KnownRelays};
use super::relays::{Relay, WALL, at_random, candidates, honest, network, share_of};
use super::{Experiment, Finding, Line, Page, Plot, Scale, Table, percent};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "year",
    question: "Someone runs a share of all relays for a year. How many pairs of users have a guard and a mailbox there, and from when on?",
    run,
};

const DAYS: usize = 365;
/// Between two looks at a client: a little over a day, so that a life of so many days ends on that
/// day.
const STEP: Duration = Duration::from_secs(86_401);
const DAY: u64 = 86_400;
/// Days by which shares are told.
const BY: [usize; 6] = [0, 30, 90, 180, 270, 364];

struct Plan {
    relays: usize,
    ases: usize,
    pairs: usize,
    /// Pairs whose guards live for other times than by default.
    other_pairs: usize,
    shares: &'static [f64],
    /// How many choices of hostile relays are tried on the same pairs, for each share.
    choices: usize,
    /// How far from the formula the measured share may be.
    tolerance: f64,
}

const WHOLE: Plan = Plan {
    relays: 1000,
    ases: 150,
    pairs: 800,
    other_pairs: 160,
    shares: &[0.01, 0.05, 0.10, 0.20],
    choices: 200,
    tolerance: 0.10,
};

const SMALL: Plan = Plan {
    relays: 200,
    ases: 60,
    pairs: 60,
    other_pairs: 20,
    shares: &[0.10, 0.20],
    choices: 60,
    tolerance: 0.35,
};

/// Days for which a guard is kept once a circuit was built through it: by default, and others.
const LIVES: [u64; 3] = [
    Params::DEFAULT.guard_life_confirmed.as_secs() / DAY,
    120,
    270,
];

/// What a client chose in the year.
struct Year {
    /// Each guard that it used, and from which day on.
    guards: Vec<(usize, RelayId)>,
    holders: Vec<RelayId>,
}

impl Year {
    /// Lives through it.
    fn of(known: &KnownRelays, rng: &mut ChaCha20Rng) -> Self {
        let mut choices = Choices::new();
        let mut year = Self {
            guards: Vec::new(),
            holders: Vec::new(),
        };
        let mut wall = WALL;
        for day in 0..DAYS {
            let guard = choices.refresh(known, wall, rng);
            if year.holders.is_empty() {
                year.holders = choices.holders(known, wall, rng).to_vec();
            }
            if let Some(guard) = guard
                && year.guards.last().is_none_or(|&(_, last)| last != guard)
            {
                year.guards.push((day, guard));
            }
            wall = wall + STEP;
        }
        year
    }

    /// From which day on it had a guard that is one of these.
    fn guarded_by(&self, hostile: &BTreeSet<RelayId>) -> Option<usize> {
        let mut guards = self.guards.iter();
        guards
            .find(|(_, guard)| hostile.contains(guard))
            .map(|&(day, _)| day)
    }

    fn is_held_by(&self, hostile: &BTreeSet<RelayId>) -> bool {
        self.holders.iter().any(|holder| hostile.contains(holder))
    }
}

/// One who writes, and the owner of the inbox that this one writes to.
struct Pair {
    sender: Year,
    owner: Year,
}

fn pairs(network_life: u64, relays: &[Relay], count: usize, rng: &mut ChaCha20Rng) -> Vec<Pair> {
    let mut network = network(AsMap::NEWEST);
    network.params.guard_life_confirmed = Duration::from_secs(network_life * DAY);
    let rows = relays.iter().map(Relay::row).collect();
    let known = &KnownRelays::new(network, rows, WALL);
    let pair = |_| Pair {
        sender: Year::of(known, rng),
        owner: Year::of(known, rng),
    };
    (0..count).map(pair).collect()
}

/// What came of a share of hostile relays.
struct Seen {
    share: f64,
    life: u64,
    pairs: usize,
    /// Guards that a client used, in the mean.
    guards: f64,
    /// The share of clients that had a hostile guard at some time.
    guarded: f64,
    senders: f64,
    owners: f64,
    /// The share of pairs by the formula.
    formula: f64,
    /// The first day of each pair that was exposed.
    first_days: Vec<usize>,
    tried: usize,
}

impl Seen {
    /// The share of pairs that were exposed by this day.
    fn exposed_by(&self, day: usize) -> f64 {
        let exposed = self.first_days.iter().filter(|&&first| first <= day);
        exposed.count() as f64 / self.tried as f64
    }

    fn exposed(&self) -> f64 {
        self.exposed_by(DAYS)
    }
}

/// The chance that a pair is exposed within the year: one of three holders is hostile, and so is one
/// of the guards that the two draw, each of so many draws with this chance.
fn formula(share: f64, life: u64) -> f64 {
    let holders = Params::DEFAULT.mailboxes as f64;
    let guards = draws(life);
    (1.0 - (1.0 - share).powf(holders)) * (1.0 - (1.0 - share).powf(2.0 * guards))
}

/// How many guards a client uses one after the other in a year.
fn draws(life: u64) -> f64 {
    1.0 + ((DAYS as u64 - 1) / life) as f64
}

fn seen(
    plan: &Plan,
    (share, life): (f64, u64),
    (relays, pairs): (&[Relay], &[Pair]),
    rng: &mut ChaCha20Rng,
) -> Seen {
    let candidates = candidates(relays);
    let clients = pairs.iter().flat_map(|pair| [&pair.sender, &pair.owner]);
    let guards: usize = clients.map(|client| client.guards.len()).sum();
    let mut seen = Seen {
        share,
        life,
        pairs: pairs.len(),
        guards: guards as f64 / (2 * pairs.len()) as f64,
        guarded: 0.0,
        senders: 0.0,
        owners: 0.0,
        formula: 0.0,
        first_days: Vec::new(),
        tried: plan.choices * pairs.len(),
    };
    for _ in 0..plan.choices {
        let hostile = at_random(share, &candidates, rng);
        seen.formula += formula(share_of(&hostile, &candidates), life) / plan.choices as f64;
        for Pair { sender, owner } in pairs {
            let guarded = [sender, owner].map(|client| client.guarded_by(&hostile));
            let is_held = owner.is_held_by(&hostile);
            let count = |is_it: bool| f64::from(u8::from(is_it));
            seen.guarded += guarded.map(|it| count(it.is_some())).iter().sum::<f64>() / 2.0;
            let [of_sender, of_owner] = guarded.map(|day| day.filter(|_| is_held));
            seen.senders += count(of_sender.is_some());
            seen.owners += count(of_owner.is_some());
            let first = of_sender.into_iter().chain(of_owner).min();
            seen.first_days.extend(first);
        }
    }
    for share in [&mut seen.guarded, &mut seen.senders, &mut seen.owners] {
        *share /= seen.tried as f64;
    }
    seen
}

fn run(scale: Scale, seed: u64) -> Page {
    let plan = match scale {
        Scale::Small => SMALL,
        Scale::Whole => WHOLE,
    };
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let announced = announced_at_random(&mut rng);
    let relays = honest((plan.relays, plan.ases), &announced, &mut rng);
    let mut all = Vec::new();
    for life in LIVES {
        let count = match life == LIVES[0] {
            true => plan.pairs,
            false => plan.other_pairs,
        };
        let pairs = pairs(life, &relays, count, &mut rng);
        for &share in plan.shares {
            all.push(seen(&plan, (share, life), (&relays, &pairs), &mut rng));
        }
    }
    page(&plan, &all)
}

fn page(plan: &Plan, all: &[Seen]) -> Page {
    let by_default: Vec<&Seen> = all.iter().filter(|seen| seen.life == LIVES[0]).collect();
    let line = |seen: &Seen| Line {
        name: format!(
            "{} of all draws, guards of {} d",
            percent(seen.share),
            seen.life
        ),
        points: (0..DAYS)
            .map(|day| (day as f64 + 1.0, seen.exposed_by(day) * 100.0))
            .collect(),
    };
    let largest = plan.shares.iter().copied().fold(0.0, f64::max);
    let others = all
        .iter()
        .filter(|seen| seen.life != LIVES[0] && seen.share >= largest);
    Page {
        method: method(plan),
        findings: findings(plan, &by_default),
        tables: vec![in_a_year(&by_default), by_day(&by_default), by_life(all)],
        plot: Plot {
            title: "Pairs of users of whom one has a hostile guard, and both a hostile mailbox"
                .to_owned(),
            x: "days".to_owned(),
            y: "share of pairs, %".to_owned(),
            lines: by_default.iter().copied().chain(others).map(line).collect(),
        },
    }
}

fn findings(plan: &Plan, by_default: &[&Seen]) -> Vec<Finding> {
    let near = |measured: f64, expected: f64| (measured / expected - 1.0).abs();
    let farthest = by_default
        .iter()
        .map(|seen| near(seen.exposed(), seen.formula))
        .fold(0.0, f64::max);
    let guards = by_default.iter().map(|seen| seen.guards);
    let guards = guards.fold(0.0, f64::max);
    let first_day = by_default
        .iter()
        .map(|seen| near(seen.exposed_by(0), first_day(seen.share)))
        .fold(0.0, f64::max);
    vec![
        Finding::new(
            format!(
                "As many pairs are exposed within the year as the formula says, within {:.0} %",
                plan.tolerance * 100.0
            ),
            format!("{:.1} % off at most", farthest * 100.0),
            farthest <= plan.tolerance,
        ),
        Finding::new(
            format!(
                "A client uses {:.0} guards a year: one for each {} days",
                draws(LIVES[0]),
                LIVES[0]
            ),
            format!("{guards:.2}"),
            (guards - draws(LIVES[0])).abs() < 0.1,
        ),
        Finding::new(
            "On the first day, pairs are exposed by the two guards that they begin with, within 20 %: the rest comes with new guards, never with messages",
            format!("{:.1} % off at most", first_day * 100.0),
            first_day <= 2.0 * plan.tolerance,
        ),
    ]
}

/// The chance that a pair is exposed from the start.
fn first_day(share: f64) -> f64 {
    formula(share, DAYS as u64)
}

fn in_a_year(by_default: &[&Seen]) -> Table {
    let head = [
        "hostile share of draws",
        "clients that had a hostile guard",
        "senders exposed",
        "owners exposed",
        "pairs exposed",
        "by the formula",
        "if each day had a new guard",
    ];
    let holders = Params::DEFAULT.mailboxes as f64;
    let row = |seen: &&Seen| {
        let daily = (1.0 - (1.0 - seen.share).powf(holders))
            * (1.0 - (1.0 - seen.share).powf(2.0 * DAYS as f64));
        [
            seen.share,
            seen.guarded,
            seen.senders,
            seen.owners,
            seen.exposed(),
            seen.formula,
            daily,
        ]
        .map(percent)
        .into()
    };
    Table {
        title: "Within a year".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: by_default.iter().map(row).collect(),
    }
}

fn by_day(by_default: &[&Seen]) -> Table {
    let mut head = vec!["hostile share of draws".to_owned()];
    head.extend(BY.map(|day| format!("by day {}", day + 1)));
    let row = |seen: &&Seen| {
        let mut cells = vec![percent(seen.share)];
        cells.extend(BY.map(|day| percent(seen.exposed_by(day))));
        cells
    };
    Table {
        title: "Pairs exposed, by the day on which they first are".to_owned(),
        head,
        rows: by_default.iter().map(row).collect(),
    }
}

fn by_life(all: &[Seen]) -> Table {
    let head = [
        "guards kept for",
        "hostile share of draws",
        "pairs tried",
        "guards a year",
        "pairs exposed",
        "by the formula",
    ];
    let row = |seen: &Seen| {
        vec![
            format!("{} d", seen.life),
            percent(seen.share),
            seen.pairs.to_string(),
            format!("{:.1}", seen.guards),
            percent(seen.exposed()),
            percent(seen.formula),
        ]
    };
    Table {
        title: "By how long a guard is kept (`guard_life_confirmed`)".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: all.iter().map(row).collect(),
    }
}

fn method(plan: &Plan) -> String {
    format!(
        "{} relays, one an address, in {} autonomous systems of the AS map: the n-th has in proportion to 1/n of them. {} clients \
         ({} pairs of a sender and the owner of an inbox) choose guards, L2 relays and holders of {} mailboxes by the production code \
         (`proto::path`), from their first day on, and are looked at once a day for {DAYS} days. Every guard answers, and \
         nobody leaves: churn makes clients draw more often than this. For each share, {} choices of relays at random are called \
         hostile, each with that share of draws, and tried on all pairs. A pair is *exposed* from the day on which one of the two uses a hostile guard \
         while one of the owner's holders is hostile, too: this party sees a user's address, and the times of the mailbox.\n\n\
         The formula: (1 - (1 - f)^k) (1 - (1 - f)^2g), for k = {} mailboxes, and g guards a year for each of the two, one after the \
         other: g = 1 + 364 / `guard_life_confirmed` in days, rounded down.\n\n\
         Not measured here: holders that are replaced, since holders don't fail here; a contact who is hostile, for whom the mailbox needs not be; what traffic shows \
         to those who have only one of the two.",
        plan.relays,
        plan.ases,
        2 * plan.pairs,
        plan.pairs,
        Params::DEFAULT.mailboxes,
        plan.choices,
        Params::DEFAULT.mailboxes,
    )
}
