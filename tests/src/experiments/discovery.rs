//! Guard discovery: someone makes the owner of an inbox build circuits, and runs some of the relays
//! that these go through.

use std::collections::BTreeSet;

use rand::{SeedableRng, rngs::ChaCha20Rng};
use umbel_proto::ids::RelayId;
use umbel_proto::network::{AsMap, Params};
use umbel_proto::time::{Duration, WallTime};

use super::addresses::announced_at_random;
use super::choices::{Choices, KnownRelays};
use super::relays::{Relay, WALL, at_random, candidates, honest, network};
use super::times::{quantile, rising};
use super::{Experiment, Finding, Page, Plot, Scale, Table, percent};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "discovery",
    question: "Someone makes an owner build circuits, and runs a share of all relays. How long until they know the owner's L2 relays, and the guard?",
    run,
};

const DAY: f64 = 86_400.0;
/// Between two looks at a client that nobody attacks.
const STEP: Duration = Duration::from_secs(86_400);
/// For how long it lives before the attack.
const BEFORE: usize = 30;
/// At first a circuit is induced so often.
const AT_FIRST: Duration = Duration::from_secs(60);
/// And then so often.
const LATER: Duration = Duration::from_secs(3 * 3600);
/// Days until half of all first L2 are theirs, for these shares, by proposal 333 of Tor.
const PROPOSAL_333: [(f64, f64); 3] = [(0.01, 126.0), (0.05, 28.0), (0.10, 14.0)];

struct Plan {
    relays: usize,
    ases: usize,
    clients: usize,
    /// Circuits at first.
    first: usize,
    days: u32,
    shares: &'static [f64],
    /// How many choices of hostile relays are tried on the same clients, for each share.
    choices: usize,
    /// How far from the formula the measured time may be.
    tolerance: f64,
}

const WHOLE: Plan = Plan {
    relays: 1000,
    ases: 150,
    clients: 80,
    first: 1440,
    days: 200,
    shares: &[0.01, 0.05, 0.10, 0.20],
    choices: 60,
    tolerance: 0.15,
};

const SMALL: Plan = Plan {
    relays: 200,
    ases: 60,
    clients: 20,
    first: 400,
    days: 40,
    shares: &[0.05, 0.10],
    choices: 40,
    tolerance: 0.6,
};

/// The circuits of an owner under attack.
struct Trace {
    /// When each was built, in days of the attack, and its guard, L2 and middle.
    circuits: Vec<(f64, [RelayId; 3])>,
    /// How many of them came first.
    first: usize,
    /// The L2 relays when the attack began.
    pinned: BTreeSet<RelayId>,
}

impl Trace {
    fn of(plan: &Plan, known: &KnownRelays, mut choices: Choices, rng: &mut ChaCha20Rng) -> Self {
        let mut wall = WALL;
        choices.refresh(known, wall, rng);
        let holders = choices.holders(known, wall, rng).to_vec();
        for _ in 0..BEFORE {
            wall = wall + STEP;
            choices.refresh(known, wall, rng);
        }
        let begun = wall;
        let pinned = choices.layer2().collect();
        let mut circuits = Vec::new();
        while wall < begun + STEP * plan.days {
            choices.refresh(known, wall, rng);
            // The holder is theirs, or breaks what goes there.
            let terminal = holders[circuits.len() % holders.len()];
            if let Some(path) = choices.path(known, wall, terminal, rng) {
                circuits.push((days_since(begun, wall), path));
            }
            let is_first = circuits.len() < plan.first;
            wall = wall + if is_first { AT_FIRST } else { LATER };
        }
        Self {
            circuits,
            first: plan.first,
            pinned,
        }
    }

    /// When the guard is next to a hostile L2 for the first time.
    fn guard_found(&self, hostile: &BTreeSet<RelayId>) -> Option<f64> {
        let mut circuits = self.circuits.iter();
        circuits
            .find(|(_, [_, layer2, _])| hostile.contains(layer2))
            .map(|&(day, _)| day)
    }

    /// When a middle was hostile for the first time, which sees an L2.
    fn middle_hostile(&self, hostile: &BTreeSet<RelayId>) -> Option<f64> {
        let mut circuits = self.circuits.iter();
        circuits
            .find(|(_, [_, _, middle])| hostile.contains(middle))
            .map(|&(day, _)| day)
    }

    /// How many circuits it takes until each L2 of the start that is used was next to a hostile
    /// middle, or is hostile.
    fn layer2_known(&self, hostile: &BTreeSet<RelayId>) -> Option<usize> {
        let first = &self.circuits[..self.first.min(self.circuits.len())];
        let used: BTreeSet<RelayId> = first.iter().map(|(_, path)| path[1]).collect();
        let mut unknown: BTreeSet<RelayId> = used.intersection(&self.pinned).copied().collect();
        first.iter().position(|(_, [_, layer2, middle])| {
            if hostile.contains(middle) || hostile.contains(layer2) {
                unknown.remove(layer2);
            }
            unknown.is_empty()
        })
    }
}

fn days_since(begun: WallTime, wall: WallTime) -> f64 {
    wall.since(begun).as_secs_f64() / DAY
}

/// What came of a share of hostile relays.
struct Seen {
    share: f64,
    /// Days until the guard was found; as many as were looked at and more where it was not.
    found: Vec<f64>,
    /// Circuits until all L2 were known; infinite where they were not.
    known: Vec<f64>,
}

/// What is asked of all clients, about several choices of hostile relays with this share of draws.
fn over<T>(
    plan: &Plan,
    (share, relays): (f64, &[Relay]),
    traces: &[Trace],
    ask: impl Fn(&Trace, &BTreeSet<RelayId>) -> T,
    rng: &mut ChaCha20Rng,
) -> Vec<T> {
    let candidates = candidates(relays);
    let mut answers = Vec::new();
    for _ in 0..plan.choices {
        let hostile = at_random(share, &candidates, rng);
        answers.extend(traces.iter().map(|trace| ask(trace, &hostile)));
    }
    answers
}

fn seen(
    plan: &Plan,
    share: f64,
    relays: &[Relay],
    traces: &[Trace],
    rng: &mut ChaCha20Rng,
) -> Seen {
    let ask = |trace: &Trace, hostile: &BTreeSet<RelayId>| {
        let found = trace.guard_found(hostile);
        let known = trace.layer2_known(hostile);
        let known = known.map(|circuits| circuits as f64 + 1.0);
        (
            found.unwrap_or(f64::INFINITY),
            known.unwrap_or(f64::INFINITY),
        )
    };
    let (found, known) = over(plan, (share, relays), traces, ask, rng)
        .into_iter()
        .unzip();
    Seen {
        share,
        found,
        known,
    }
}

/// Hours until a middle was hostile; infinite where none was.
struct Middles {
    share: f64,
    usual: Vec<f64>,
    full: Vec<f64>,
}

/// For clients as they are, and for others with full vanguards.
fn middles(
    plan: &Plan,
    share: f64,
    relays: &[Relay],
    [usual, full]: [&[Trace]; 2],
    rng: &mut ChaCha20Rng,
) -> Middles {
    let hours = |trace: &Trace, hostile: &BTreeSet<RelayId>| {
        let day = trace.middle_hostile(hostile);
        day.map_or(f64::INFINITY, |day| day * 24.0)
    };
    Middles {
        share,
        usual: over(plan, (share, relays), usual, hours, rng),
        full: over(plan, (share, relays), full, hours, rng),
    }
}

/// How long an L2 is kept, in the mean: the greater of two uniform draws.
fn mean_life() -> f64 {
    let (least, most) = (Params::DEFAULT.l2_life_min, Params::DEFAULT.l2_life_max);
    (least.as_secs_f64() + (most.as_secs_f64() - least.as_secs_f64()) * 2.0 / 3.0) / DAY
}

/// Days until this part of all guards is found: so many draws of an L2 are needed, of which the first
/// are made when the attack begins.
fn formula(share: f64, part: f64) -> f64 {
    let draws = (1.0 - part).ln() / (1.0 - share).ln();
    let pinned = Params::DEFAULT.l2_count as f64;
    (draws - pinned).max(0.0) * mean_life() / pinned
}

fn run(scale: Scale, seed: u64) -> Page {
    let plan = match scale {
        Scale::Small => SMALL,
        Scale::Whole => WHOLE,
    };
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let announced = announced_at_random(&mut rng);
    let relays = honest((plan.relays, plan.ases), &announced, &mut rng);
    let rows = relays.iter().map(Relay::row).collect();
    let known = &KnownRelays::new(network(AsMap::NEWEST), rows, WALL);
    let traces: Vec<Trace> = (0..plan.clients)
        .map(|_| Trace::of(&plan, known, Choices::new(), &mut rng))
        .collect();
    let all: Vec<Seen> = plan
        .shares
        .iter()
        .map(|&share| seen(&plan, share, &relays, &traces, &mut rng))
        .collect();
    let full: Vec<Trace> = (0..plan.clients)
        .map(|_| Trace::of(&plan, known, Choices::with_full_vanguards(), &mut rng))
        .collect();
    let middles: Vec<Middles> = plan
        .shares
        .iter()
        .map(|&share| middles(&plan, share, &relays, [&traces, &full], &mut rng))
        .collect();
    page(&plan, &all, &middles)
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5).unwrap_or(f64::INFINITY)
}

/// Full vanguards are to put a hostile middle off by so much.
const LATER_MIN: f64 = 20.0;
/// What is drawn for less, days.
const LEAST: f64 = 0.01;

fn page(plan: &Plan, all: &[Seen], middles: &[Middles]) -> Page {
    let line = |seen: &Seen| {
        let mut line = rising(
            &format!("{} of all draws", percent(seen.share)),
            &seen.found,
            LEAST,
        );
        line.points.retain(|point| point.0.is_finite());
        line
    };
    let mut findings = findings(plan, all);
    findings.push(of_full_vanguards(middles));
    Page {
        method: method(plan),
        findings,
        tables: vec![guards(all), layer2(all), first_middles(middles)],
        plot: Plot {
            title: "Guards that are found".to_owned(),
            x: "days of the attack".to_owned(),
            y: "share of owners, %".to_owned(),
            lines: all.iter().map(line).collect(),
        },
    }
}

fn findings(plan: &Plan, all: &[Seen]) -> Vec<Finding> {
    let timed = |seen: &&Seen| formula(seen.share, 0.5) > 1.0;
    let list = |of: &dyn Fn(&Seen) -> f64| {
        let each = all
            .iter()
            .filter(timed)
            .map(|seen| format!("{:.1} d at {}", of(seen), percent(seen.share)));
        each.collect::<Vec<_>>().join(", ")
    };
    let farthest = all
        .iter()
        .filter(timed)
        .map(|seen| (median(&seen.found) / formula(seen.share, 0.5) - 1.0).abs())
        .fold(0.0, f64::max);
    let by_333 = |seen: &Seen| {
        let mut rows = PROPOSAL_333.iter();
        rows.find(|(share, _)| *share == seen.share)
            .map(|row| row.1)
    };
    let as_333 = |seen: &Seen| median(&seen.found) + mean_life();
    let is_no_sooner =
        |seen: &Seen| by_333(seen).is_none_or(|days| as_333(seen) >= days * (1.0 - plan.tolerance));
    vec![
        Finding::new(
            format!(
                "Half of all guards are found after as many days as the formula says, within {:.0} %",
                plan.tolerance * 100.0
            ),
            format!(
                "{}; by the formula {}",
                list(&|seen| median(&seen.found)),
                list(&|seen| formula(seen.share, 0.5))
            ),
            farthest <= plan.tolerance,
        ),
        Finding::new(
            format!(
                "With the {:.1} days in which the first four L2 would be drawn one after the other, as Tor's proposal 333 counts them, that is no sooner than there (126, 28 and 14 days for 1, 5 and 10 %), within {:.0} %",
                mean_life(),
                plan.tolerance * 100.0
            ),
            list(&as_333),
            all.iter().all(is_no_sooner),
        ),
        Finding::new(
            "At 5 %, all L2 of half of the owners are known after fewer than 200 circuits: L2 relays hide the guard, and are hidden by nothing",
            {
                let of_five = all.iter().find(|seen| seen.share == 0.05);
                format!(
                    "{:.0} circuits",
                    of_five.map_or(0.0, |seen| median(&seen.known))
                )
            },
            all.iter()
                .filter(|seen| seen.share == 0.05)
                .all(|seen| median(&seen.known) < 200.0),
        ),
    ]
}

fn of_full_vanguards(middles: &[Middles]) -> Finding {
    let of_five = middles.iter().find(|it| it.share == 0.05);
    let [usual, full] = of_five.map_or([0.0; 2], |it| [median(&it.usual), median(&it.full)]);
    Finding::new(
        format!(
            "At 5 %, half of the owners have a hostile middle, which sees an L2, only after {LATER_MIN:.0} times as long with full vanguards, or more"
        ),
        format!("{usual:.2} h; {full:.1} h with full vanguards"),
        full >= LATER_MIN * usual,
    )
}

fn days(days: f64) -> String {
    match days.is_finite() {
        true => format!("{days:.1}"),
        false => "longer".to_owned(),
    }
}

fn guards(all: &[Seen]) -> Table {
    let head = [
        "hostile share of draws",
        "found at once",
        "10 %",
        "25 %",
        "half",
        "half, by the formula",
        "95 %",
    ];
    let row = |seen: &Seen| {
        let at_once = seen.found.iter().filter(|&&day| day < 1.0 / 24.0).count();
        let at = |part| days(quantile(&seen.found, part).unwrap_or(f64::INFINITY));
        vec![
            percent(seen.share),
            percent(at_once as f64 / seen.found.len() as f64),
            at(0.1),
            at(0.25),
            at(0.5),
            days(formula(seen.share, 0.5)),
            at(0.95),
        ]
    };
    Table {
        title: "Days until the guard is found, of this part of the owners".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: all.iter().map(row).collect(),
    }
}

fn layer2(all: &[Seen]) -> Table {
    let head = ["hostile share of draws", "10 %", "half", "90 %"];
    let row = |seen: &Seen| {
        let at = |part| match quantile(&seen.known, part) {
            Some(circuits) if circuits.is_finite() => format!("{circuits:.0}"),
            _ => "more".to_owned(),
        };
        vec![percent(seen.share), at(0.1), at(0.5), at(0.9)]
    };
    Table {
        title: "Circuits until all L2 relays are known, of this part of the owners".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: all.iter().map(row).collect(),
    }
}

fn first_middles(middles: &[Middles]) -> Table {
    let head = [
        "hostile share of draws",
        "half",
        "with full vanguards: 10 %",
        "half",
        "90 %",
    ];
    let row = |it: &Middles| {
        let at = |hours: &[f64], part| match quantile(hours, part) {
            Some(hours) if hours.is_finite() => format!("{hours:.1}"),
            _ => "longer".to_owned(),
        };
        vec![
            percent(it.share),
            at(&it.usual, 0.5),
            at(&it.full, 0.1),
            at(&it.full, 0.5),
            at(&it.full, 0.9),
        ]
    };
    Table {
        title:
            "Hours until a hostile relay is a middle, and sees an L2, of this part of the owners"
                .to_owned(),
        head: head.map(str::to_owned).into(),
        rows: middles.iter().map(row).collect(),
    }
}

fn method(plan: &Plan) -> String {
    format!(
        "{} clients in a network of {} relays, placed as for [sybil](sybil.md), choose guards, L2 relays and middles by the production code \
         (`proto::path`). After {BEFORE} days, someone makes each of them build {} circuits, one a minute, to the holders of its inbox, and then one every three \
         hours until day {}. For each share, {} choices of relays at random are called hostile, each with that share of draws, and tried on all \
         clients. A guard is *found* when a circuit goes through a hostile L2, which sees it. An L2 is *known* when a circuit has \
         a hostile middle behind it, or when it is hostile itself.\n\n\
         The formula: P(found) = 1 - (1 - f)^n after n draws of L2 relays: {} when the attack begins, and then one for each {:.1} days that one \
         is kept, in the mean (the greater of two draws of 1 to 12 days).\n\n\
         As many clients more do the same with full vanguards (protocol.md §6.4(18)): their middles are eight relays, each kept for \
         1 to 48 hours. Their circuits are no longer than others'; those of Tor's full vanguards, which are, are not measured here.\n\n\
         To know a guard is not to know its client: that takes the guard itself, or someone who watches it. A guard that is hostile \
         from the start is not counted ([year](year.md) counts it).",
        plan.clients,
        plan.relays,
        plan.first,
        plan.days,
        plan.choices,
        Params::DEFAULT.l2_count,
        mean_life(),
    )
}
