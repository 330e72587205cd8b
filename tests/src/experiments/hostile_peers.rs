//! Relays and clients whose peers pass nothing on, and networks that fall apart and heal: how soon
//! they know everybody.

use std::collections::BTreeSet;

use umbel_client::core::{Notice, Warning};
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, WallTime};

use super::spread::{LOOK, Spread, all_up, knows};
use super::times::{quantile, rising, row};
use super::{Experiment, Finding, Line, Page, Plot, Scale, Table};
use crate::scenario::{ALICE, guard_of, name_of, patient};
use crate::world::network::Node;
use crate::{RelayName, World};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "hostile-peers",
    question: "Nine in ten of a relay's peers pass nothing on, or a client's guard does, or the network falls apart for six hours. How soon is a new relay known?",
    run,
};

const HOUR: Duration = Duration::from_secs(3600);
/// Between two relays that join.
const JOIN_EVERY: Duration = Duration::from_secs(1800);
/// A guard that hides is to be replaced within so many hours.
const REPLACED_WITHIN: u32 = 48;
/// What is drawn for less, seconds.
const LEAST: f64 = 30.0;

struct Plan {
    honest: usize,
    /// Nine for each honest relay that the victim can reach: one.
    hostile: usize,
    newcomers: u32,
    worlds: usize,
    /// How long the network is apart, in hours.
    apart: u32,
    /// How long the last newcomer is waited for, in hours.
    patience: u32,
}

const WHOLE: Plan = Plan {
    honest: 12,
    hostile: 9,
    newcomers: 4,
    worlds: 3,
    apart: 6,
    patience: 24,
};

const SMALL: Plan = Plan {
    honest: 8,
    hostile: 9,
    newcomers: 2,
    worlds: 1,
    apart: 1,
    patience: 24,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// All are honest.
    Honest,
    /// A relay that knows the network can reach one honest relay, and nine that take nothing that
    /// others pass on.
    Peers,
    /// A relay that knows nobody has these ten as its seeds.
    Joining,
    /// A client's guard takes nothing that others pass on.
    Guard,
    /// Half of the relays can't reach the others; times are since that ends.
    Apart,
}

impl Case {
    const fn name(self) -> &'static str {
        match self {
            Self::Honest => "to a relay, all being honest",
            Self::Peers => "to a relay with 9 hostile peers of 10",
            Self::Joining => "to a relay with 9 hostile seeds of 10",
            Self::Guard => "to a client whose guard hides",
            Self::Apart => "to all, once the halves meet",
        }
    }
}

const CASES: [Case; 5] = [
    Case::Honest,
    Case::Peers,
    Case::Joining,
    Case::Guard,
    Case::Apart,
];

struct Seen {
    case: Case,
    /// Seconds until newcomers were known.
    took: Vec<f64>,
    /// Newcomers that were not known in the end.
    unknown: usize,
    /// Hours until a guard that hides was replaced.
    replaced: Vec<f64>,
    worlds: usize,
}

fn seen(plan: &Plan, case: Case, seed: u64) -> Seen {
    let mut seen = Seen {
        case,
        took: Vec::new(),
        unknown: 0,
        replaced: Vec::new(),
        worlds: plan.worlds,
    };
    for number in 0..plan.worlds {
        let world = World::with_overlay(seed * 1000 + number as u64, patient()).relays(plan.honest);
        let spread = match case {
            Case::Honest => among_honest(plan, world),
            Case::Peers => among_hostile(plan, world, false),
            Case::Joining => among_hostile(plan, world, true),
            Case::Guard => with_guard(plan, world, &mut seen.replaced),
            Case::Apart => apart(plan, world),
        };
        seen.unknown += (plan.newcomers as usize).saturating_sub(spread.len());
        seen.took.extend(spread);
    }
    seen
}

/// One more honest relay, which joins through the first.
fn join(world: &mut World) -> RelayName {
    let seed = world.all_relays().first().map(|relay| relay.peer());
    world.add_relay_as(|relay| relay.seeds = seed.into_iter().collect())
}

/// Newcomers join one by one; how long it takes until each is where it should be.
fn newcomers(
    plan: &Plan,
    world: &mut World,
    has: impl Fn(&World, RelayName, WallTime) -> bool,
    joined: impl Fn(&mut World, RelayName),
) -> Vec<f64> {
    let (mut spread, mut new) = (Spread::default(), BTreeSet::new());
    spread.look_at(world, &new, &has);
    let begun = world.now();
    let end = begun + JOIN_EVERY * plan.newcomers + HOUR * plan.patience;
    let (wanted, mut joins_at) = (plan.newcomers as usize, begun);
    while world.now() < end && spread.took.len() < wanted {
        if new.len() < wanted && world.now() >= joins_at {
            joins_at = joins_at + JOIN_EVERY;
            let name = join(world);
            joined(world, name);
            new.insert(name);
        }
        world.run_for(LOOK);
        spread.look_at(world, &new, &has);
    }
    spread.took
}

/// A relay that knows all others, and whose peers are all honest.
fn among_honest(plan: &Plan, mut world: World) -> Vec<f64> {
    let victim = join(&mut world);
    world.run_for(HOUR);
    let has = |world: &World, relay, since| knows(world, victim, relay, since);
    newcomers(plan, &mut world, has, |_, _| ())
}

/// A relay that can reach one of the honest relays only, and hostile ones, which join through it or
/// through which it joins.
fn among_hostile(plan: &Plan, mut world: World, is_joining: bool) -> Vec<f64> {
    let honest = all_up(&world);
    world.run_for(HOUR);
    let mut seeds: Vec<_> = honest
        .last()
        .map(|&last| world.relay(last).peer())
        .into_iter()
        .collect();
    let victim = match is_joining {
        true => None,
        false => Some(world.add_relay_as(|relay| relay.seeds = seeds.clone())),
    };
    world.run_for(HOUR);
    for _ in 0..plan.hostile {
        let through = victim.map(|victim| world.relay(victim).peer());
        let name = world.add_relay_as(|relay| {
            relay.is_deaf = true;
            relay.seeds = through.into_iter().collect();
        });
        seeds.push(world.relay(name).peer());
    }
    let victim = victim.unwrap_or_else(|| world.add_relay_as(|relay| relay.seeds = seeds));
    let part = |world: &mut World, other: RelayName| {
        world.cut(Node::Relay(victim.0), Node::Relay(other.0));
    };
    for &other in honest.iter().rev().skip(1) {
        part(&mut world, other);
    }
    world.run_for(HOUR);
    let has = |world: &World, relay, since| knows(world, victim, relay, since);
    newcomers(plan, &mut world, has, part)
}

/// A client whose guard passes nothing on, until it has another.
fn with_guard(plan: &Plan, mut world: World, replaced: &mut Vec<f64>) -> Vec<f64> {
    world.run_for(HOUR);
    world.add_client();
    world.run_until(HOUR, |world| guard_of(world, ALICE).is_some());
    let guard = guard_of(&world, ALICE);
    if let Some(guard) = guard {
        let guard = name_of(&world, guard);
        world.crash_relay(guard);
        world.relay(guard).is_deaf = true;
        world.restart_relay(guard);
    }
    let begun = world.now();
    let has = |world: &World, relay: RelayName, since: WallTime| {
        let id = world.all_relays()[relay.0].id;
        let view = world.client(ALICE).core().map(|core| core.view());
        let known = view.and_then(|view| view.get(&id));
        known.is_some_and(|known| known.issued_at >= since)
    };
    let took = newcomers(plan, &mut world, has, |_, _| ());
    let is_left = |world: &World| {
        world.has_notice(ALICE, |notice| {
            *notice == Notice::Warning(Warning::GuardHides { is_replaced: true })
        })
    };
    if world.run_until(HOUR * REPLACED_WITHIN, is_left) {
        replaced.push(world.now().since(begun).as_secs_f64() / 3600.0);
    }
    took
}

/// Halves that can't reach each other, into which relays join; then they can.
fn apart(plan: &Plan, mut world: World) -> Vec<f64> {
    world.run_for(HOUR);
    let is_left = |relay: RelayName| relay.0.is_multiple_of(2);
    let part = |world: &mut World, relay: RelayName| {
        for other in all_up(world) {
            if is_left(relay) != is_left(other) {
                world.cut(Node::Relay(relay.0), Node::Relay(other.0));
            }
        }
    };
    for relay in all_up(&world) {
        part(&mut world, relay);
    }
    let mut new = BTreeSet::new();
    for _ in 0..plan.newcomers {
        let number = world.all_relays().len();
        let seed = world.all_relays()[number % 2].peer();
        let name = world.add_relay_as(|relay| relay.seeds = vec![seed]);
        part(&mut world, name);
        new.insert(name);
    }
    world.run_for(HOUR * plan.apart);
    world.network().heal();
    let mut spread = Spread::default();
    spread.look_at(&world, &BTreeSet::new(), |_, _, _| false);
    let end = world.now() + HOUR * plan.patience;
    while world.now() < end && spread.took.len() < new.len() {
        let up = all_up(&world);
        spread.look_at(&world, &new, |world, relay, since| {
            up.iter().all(|&one| knows(world, one, relay, since))
        });
        world.run_for(LOOK);
    }
    spread.took
}

fn run(scale: Scale, seed: u64) -> Page {
    let plan = match scale {
        Scale::Small => SMALL,
        Scale::Whole => WHOLE,
    };
    let all: Vec<Seen> = CASES
        .into_iter()
        .map(|case| seen(&plan, case, seed))
        .collect();
    let line = |seen: &Seen| -> Line { rising(seen.case.name(), &seen.took, LEAST) };
    let shares = [0.5, 0.9, 1.0];
    let rows = all.iter().map(|seen| {
        let mut cells = row(seen.case.name(), &seen.took, shares);
        cells.push(seen.unknown.to_string());
        cells
    });
    Page {
        method: method(&plan),
        findings: findings(&plan, &all),
        tables: vec![Table {
            title: "Seconds until a newcomer is known, to the minute".to_owned(),
            head: [
                "known",
                "newcomers",
                "median",
                "90 %",
                "all",
                "not in the end",
            ]
            .map(str::to_owned)
            .into(),
            rows: rows.collect(),
        }],
        plot: Plot {
            title: "How soon a newcomer is known".to_owned(),
            x: "seconds".to_owned(),
            y: "share of newcomers, %".to_owned(),
            lines: all
                .iter()
                .filter(|seen| !seen.took.is_empty())
                .map(line)
                .collect(),
        },
    }
}

fn findings(plan: &Plan, all: &[Seen]) -> Vec<Finding> {
    let within = |case: Case, limit: f64, expected: String| {
        let mut cases = all.iter().filter(|seen| seen.case == case);
        let (last, unknown) = cases.next().map_or((f64::INFINITY, 1), |seen| {
            (
                quantile(&seen.took, 1.0).unwrap_or(f64::INFINITY),
                seen.unknown,
            )
        });
        Finding::new(
            expected,
            format!("{last:.0} s at most; {unknown} not at all"),
            last <= limit && unknown == 0,
        )
    };
    let round = Params::DEFAULT.sync_interval.as_secs_f64();
    let peers = (plan.hostile + 1) as f64;
    let mut findings = vec![
        within(
            Case::Honest,
            round,
            format!(
                "All being honest, newcomers are known within one `sync_interval`: {round:.0} s"
            ),
        ),
        within(
            Case::Peers,
            round * peers,
            format!(
                "A relay with one honest peer of {peers:.0} knows them once that one's turn has come: within {:.0} s",
                round * peers
            ),
        ),
        within(
            Case::Joining,
            24.0 * 3600.0,
            format!(
                "A relay that joins through {peers:.0} seeds of which one is honest knows them once it has drawn that one, within 24 h: it has a link once the first seed answers, and then asks another at random once a round of its peers"
            ),
        ),
        within(
            Case::Guard,
            8.0 * 3600.0,
            "A client whose guard hides them knows them within 8 h, from relays drawn at random"
                .to_owned(),
        ),
        within(
            Case::Apart,
            3.0 * round,
            format!(
                "When two halves meet again, all know all within three `sync_interval`s: {:.0} s",
                3.0 * round
            ),
        ),
    ];
    findings.extend(
        all.iter()
            .filter(|seen| seen.case == Case::Guard)
            .map(replaced),
    );
    findings
}

fn replaced(seen: &Seen) -> Finding {
    let hours = &seen.replaced;
    let last = quantile(hours, 1.0).unwrap_or(0.0);
    Finding::new(
        format!(
            "A guard that hides is found by two others, and replaced within {REPLACED_WITHIN} h, and the user told"
        ),
        format!(
            "{} of {} guards, after {last:.1} h at most",
            hours.len(),
            seen.worlds
        ),
        hours.len() == seen.worlds && last <= f64::from(REPLACED_WITHIN),
    )
}

fn method(plan: &Plan) -> String {
    format!(
        "{} worlds for each case, of {} honest relays with the default parameters, but without receipts, each an address group of its own. A relay joins every half hour, \
         {} in all, and each minute it is looked whether it is known to those of whom the case speaks.\n\n\
         *Hostile peers*: a relay that knows the others can from now on reach one honest relay, and {} that take no descriptor which others pass on, and so pass none on. *Hostile seeds*: \
         a relay that knows nobody joins through these ten. *A guard that hides* does the same; its client \
         has drawn it as one of several, and is followed until it has left it. *The halves*: every other relay can't reach the rest for {} h, while {} join, half on each side; the time is from the end of that.\n\n\
         The cores of relays and clients are the production code; hostile relays run it too, but refuse what they hear.",
        plan.worlds, plan.honest, plan.newcomers, plan.hostile, plan.apart, plan.newcomers,
    )
}
