//! Clients whose seeds, or whose guards, are hostile: what they come to believe.

use std::collections::BTreeSet;

use umbel_client::core::{Notice, Warning};
use umbel_proto::time::{Duration, Instant};

use super::times::quantile;
use super::{Experiment, Finding, Line, Page, Plot, Scale, Table, percent};
use crate::scenario::{ALICE, chosen_by, strangers};
use crate::world::network::Node;
use crate::{RelayName, World};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "eclipse",
    question: "Some of a newcomer's seeds, or all guards of a client, show it only what they want. What does it believe, and what is it told?",
    run,
};

/// Seeds in the network's file.
const SEEDS: usize = 6;
const HOUR: Duration = Duration::from_secs(3600);
/// Hours after which a look is taken: the first is after a minute.
const LOOKS: [u32; 7] = [0, 1, 3, 6, 12, 24, 48];

struct Plan {
    /// Relays, of which half are hostile where seeds are.
    relays: usize,
    /// Relays that join while the guards hide them.
    newcomers: usize,
    /// How many of the seeds are hostile, and in how many worlds.
    seeds: &'static [(usize, usize)],
    /// Worlds with one seed that can be reached, and with hostile guards.
    worlds: usize,
    /// For how many hours it is looked on.
    newcomer_hours: u32,
    hours: u32,
}

const WHOLE: Plan = Plan {
    relays: 16,
    newcomers: 3,
    seeds: &[(0, 3), (1, 6), (2, 18), (3, 12), (6, 3)],
    worlds: 3,
    newcomer_hours: 1,
    hours: 24,
};

const SMALL: Plan = Plan {
    relays: 14,
    newcomers: 3,
    seeds: &[(1, 1), (6, 1)],
    worlds: 1,
    newcomer_hours: 1,
    hours: 24,
};

/// What is hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hostile {
    /// So many of a newcomer's seeds, and half of all relays: they know each other only.
    Seeds(usize),
    /// One of its seeds, and half of all relays; and the newcomer can't reach the others.
    OnlySeed,
    /// Every guard in the sample of a client that knows the network: they pass nothing on.
    Guards,
}

impl Hostile {
    fn name(self) -> String {
        match self {
            Self::Seeds(count) => format!("{count} of {SEEDS} seeds"),
            Self::OnlySeed => format!("1 of {SEEDS} seeds, all honest relays blocked"),
            Self::Guards => "all guards".to_owned(),
        }
    }
}

/// What a client believes at a time; over worlds, means.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// The share of honest relays that it knows; of those that joined, where guards are hostile.
    honest: f64,
    /// Whether it has chosen guards.
    is_drawing: f64,
    /// The share of its guards and L2 relays that is hostile; 0 if it has none.
    hostile: f64,
    /// Whether all of these are.
    is_captured: f64,
}

/// What was seen of one case.
struct Seen {
    case: Hostile,
    /// Looks, in hours, over all worlds.
    looks: Vec<(u32, Look)>,
    worlds: usize,
    /// Worlds in which the client was told of anything, and after how many seconds.
    told: Vec<f64>,
    /// Those in which it was not, and all that it chose is hostile.
    fooled: usize,
}

/// A world of which some relays are hostile.
struct Stage {
    world: World,
    hostile: BTreeSet<RelayName>,
}

impl Stage {
    /// A network in which all know all, an hour old.
    fn new(plan: &Plan, seed: u64) -> Self {
        let world = World::with_overlay(seed, strangers()).founders(SEEDS);
        let mut world = world.relays(plan.relays - SEEDS);
        world.run_for(HOUR);
        let hostile = BTreeSet::new();
        Self { world, hostile }
    }

    /// Half of the relays, and so many seeds among them, forget the others, which can't reach them
    /// any more. Then a client joins.
    fn with_hostile_seeds(plan: &Plan, case: Hostile, (turn, seed): (usize, u64)) -> Self {
        let mut stage = Self::new(plan, seed);
        let (count, is_blocked) = match case {
            Hostile::Seeds(count) => (count, false),
            Hostile::OnlySeed | Hostile::Guards => (1, true),
        };
        let others = plan.relays / 2 - count;
        // The client has the first seed as its own, too: that is a hostile one in some worlds only.
        let seeds = (0..count).map(|at| (at + turn) % SEEDS);
        let hostile = seeds.chain(plan.relays - others..plan.relays);
        if count > 0 {
            stage.hostile = hostile.map(RelayName).collect();
            stage.part();
        }
        for relay in stage.relays().filter(|_| is_blocked) {
            if !stage.hostile.contains(&relay) {
                stage.world.cut(Node::Client(ALICE.0), Node::Relay(relay.0));
            }
        }
        stage.world.run_for(Duration::from_secs(60));
        stage.world.add_client();
        stage
    }

    fn part(&mut self) {
        let friends: Vec<_> = self.hostile.iter().copied().collect();
        let ids: Vec<_> = friends
            .iter()
            .map(|&name| self.world.relay(name).id)
            .collect();
        for &name in &friends {
            self.world.crash_relay(name);
            self.world.relay(name).disk.forget_relays_but(&ids);
            for other in self.relays().filter(|it| !self.hostile.contains(it)) {
                self.world.cut(Node::Relay(name.0), Node::Relay(other.0));
            }
        }
        friends
            .into_iter()
            .for_each(|name| self.world.restart_relay(name));
    }

    /// A client that has known the network for an hour when all its guards begin to take nothing that
    /// others pass on. Then more relays join.
    fn with_hostile_guards(plan: &Plan, seed: u64) -> Self {
        let mut stage = Self::new(plan, seed);
        stage.world.add_client();
        stage.world.run_for(HOUR);
        stage.hostile = stage.guards().into_iter().collect();
        for &guard in &stage.hostile {
            stage.world.crash_relay(guard);
            stage.world.relay(guard).is_deaf = true;
            stage.world.restart_relay(guard);
        }
        let honest = stage.relays().find(|it| !stage.hostile.contains(it));
        for _ in 0..plan.newcomers {
            let seed = honest.map(|it| stage.world.relay(it).peer());
            let seeds = seed.into_iter().collect();
            stage.world.add_relay_as(|relay| relay.seeds = seeds);
        }
        stage
    }

    fn relays(&self) -> impl Iterator<Item = RelayName> + use<> {
        (0..self.world.all_relays().len()).map(RelayName)
    }

    /// The client's guards: they are stored before its L2 relays.
    fn guards(&self) -> Vec<RelayName> {
        let core = self.world.client(ALICE).core();
        let count = core.map_or(0, |core| core.status().guards);
        let mut chosen = chosen_by(&self.world, ALICE);
        chosen.truncate(count);
        chosen
    }

    fn look(&self, plan: &Plan, case: Hostile) -> Look {
        let Some(core) = self.world.client(ALICE).core() else {
            return Look::default();
        };
        let is_known = |relay: &RelayName| {
            let id = self.world.all_relays()[relay.0].id;
            core.view().get(&id).is_some()
        };
        let honest = self.relays().filter(|it| !self.hostile.contains(it));
        let honest: Vec<_> = match case {
            Hostile::Guards => honest.skip(plan.relays - self.hostile.len()).collect(),
            Hostile::Seeds(_) | Hostile::OnlySeed => honest.collect(),
        };
        let chosen = chosen_by(&self.world, ALICE);
        let hostile = share(&chosen, |relay| self.hostile.contains(relay));
        let truth = |is_true: bool| f64::from(u8::from(is_true));
        Look {
            honest: share(&honest, is_known),
            is_drawing: truth(!chosen.is_empty()),
            hostile,
            is_captured: truth(hostile >= 1.0),
        }
    }

    /// When the client was first told that relays are hidden from it.
    fn told_at(&self, since: Instant) -> Option<Instant> {
        let is_it = |notice: &Notice| {
            matches!(
                notice,
                Notice::Warning(
                    Warning::SeedsDisagree | Warning::GuardHides { .. } | Warning::AllGuardsHide
                )
            )
        };
        let mut notices = self.world.client(ALICE).notices.iter();
        let told = notices.find(|(at, notice)| *at >= since && is_it(notice));
        told.map(|(at, _)| *at)
    }
}

fn share(relays: &[RelayName], is_it: impl Fn(&RelayName) -> bool) -> f64 {
    let count = relays.iter().filter(|relay| is_it(relay)).count();
    count as f64 / relays.len().max(1) as f64
}

fn seen(plan: &Plan, (case, worlds): (Hostile, usize), seed: u64) -> Seen {
    let hours = match case {
        Hostile::Seeds(_) | Hostile::OnlySeed => plan.newcomer_hours,
        Hostile::Guards => plan.hours,
    };
    let looks = LOOKS.into_iter().filter(|&hour| hour <= hours);
    let mut seen = Seen {
        case,
        looks: looks.map(|hour| (hour, Look::default())).collect(),
        worlds,
        told: Vec::new(),
        fooled: 0,
    };
    for number in 0..worlds {
        let seed = seed * 1000 + number as u64;
        let mut stage = match case {
            Hostile::Seeds(_) | Hostile::OnlySeed => {
                Stage::with_hostile_seeds(plan, case, (number, seed))
            }
            Hostile::Guards => Stage::with_hostile_guards(plan, seed),
        };
        let begun = stage.world.now();
        stage.world.run_for(Duration::from_secs(60));
        let (mut now, mut last) = (0, Look::default());
        for (hour, mean) in &mut seen.looks {
            stage.world.run_for(HOUR * (*hour - now));
            now = *hour;
            last = stage.look(plan, case);
            mean.add(last, worlds as f64);
        }
        let told_at = stage.told_at(begun);
        seen.fooled += usize::from(told_at.is_none() && last.is_captured > 0.0);
        seen.told
            .extend(told_at.map(|at| at.since(begun).as_secs_f64()));
    }
    seen
}

impl Look {
    fn add(&mut self, one: Self, of: f64) {
        self.honest += one.honest / of;
        self.is_drawing += one.is_drawing / of;
        self.hostile += one.hostile / of;
        self.is_captured += one.is_captured / of;
    }
}

impl Look {
    /// The share of hostile relays among guards and L2 of those clients that have any.
    fn of_chosen(&self) -> f64 {
        self.hostile / self.is_drawing.max(f64::EPSILON)
    }
}

impl Seen {
    fn last(&self) -> Look {
        self.looks.last().map(|(_, look)| *look).unwrap_or_default()
    }
}

fn run(scale: Scale, seed: u64) -> Page {
    let plan = match scale {
        Scale::Small => SMALL,
        Scale::Whole => WHOLE,
    };
    let of_seeds = plan.seeds.iter();
    let of_seeds = of_seeds.map(|&(count, worlds)| (Hostile::Seeds(count), worlds));
    let others = [Hostile::OnlySeed, Hostile::Guards].map(|case| (case, plan.worlds));
    let cases = of_seeds.chain(others);
    let all: Vec<Seen> = cases.map(|case| seen(&plan, case, seed)).collect();
    let line = |seen: &Seen| Line {
        name: seen.case.name(),
        points: seen
            .looks
            .iter()
            .map(|(hour, look)| (f64::from(*hour).max(1.0 / 60.0), look.honest * 100.0))
            .collect(),
    };
    Page {
        method: method(&plan),
        findings: findings(&all),
        tables: vec![believed(&all), told(&all)],
        plot: Plot {
            title: "Honest relays that the client knows; with hostile guards, of those that joined"
                .to_owned(),
            x: "hours".to_owned(),
            y: "share, %".to_owned(),
            lines: all.iter().map(line).collect(),
        },
    }
}

/// By as much a share of few draws may differ from that of all relays.
const CHANCE: f64 = 0.1;

fn findings(all: &[Seen]) -> Vec<Finding> {
    let of = |case: Hostile| all.iter().filter(move |seen| seen.case == case);
    let captured = |seen: &Seen| (seen.last().is_captured * seen.worlds as f64).round();
    let mut findings = Vec::new();
    for seen in of(Hostile::Seeds(0)) {
        findings.push(Finding::new(
            "With honest seeds, a newcomer knows all within a minute, draws, and is warned of nothing",
            format!(
                "{} known; {} of {} draw; {} warned",
                percent(seen.looks[0].1.honest),
                (seen.looks[0].1.is_drawing * seen.worlds as f64).round(),
                seen.worlds,
                seen.told.len()
            ),
            seen.looks[0].1.honest >= 1.0
                && seen.looks[0].1.is_drawing >= 1.0
                && seen.told.is_empty(),
        ));
    }
    for seen in of(Hostile::Seeds(1)) {
        let hostile = seen.last().of_chosen();
        findings.push(Finding::new(
            "One hostile seed of six is outvoted: no newcomer's guards and L2 are all hostile, and of all of them as many are as of all relays, half, within 10 points",
            format!("{} of {} newcomers; {}", captured(seen), seen.worlds, percent(hostile)),
            captured(seen) == 0.0 && (seen.worlds == 1 || (hostile - 0.5).abs() <= CHANCE),
        ));
    }
    for seen in of(Hostile::Seeds(2)).chain(of(Hostile::Seeds(3))) {
        let expected = match seen.case {
            Hostile::Seeds(2) => {
                "Two hostile seeds of six win where they are the first two to be asked, or two of the first three: with one newcomer in five (4 of 20 choices of three), within 15 points"
            }
            _ => {
                "Three hostile seeds of six win as often as three honest ones do: with half of the newcomers, or fewer where it stays a draw"
            }
        };
        let of_all = captured(seen) / seen.worlds as f64;
        let is_met = match seen.case {
            Hostile::Seeds(2) => (of_all - 0.2).abs() <= 0.15,
            _ => of_all <= 0.5 + CHANCE,
        };
        findings.push(Finding::new(
            expected,
            format!(
                "{} of {} newcomers captured; {} of these were told nothing",
                captured(seen),
                seen.worlds,
                seen.fooled
            ),
            is_met,
        ));
    }
    for seen in of(Hostile::Seeds(SEEDS)).chain(of(Hostile::OnlySeed)) {
        findings.push(Finding::new(
            format!("Hostile seeds: {}. A newcomer knows hostile relays alone, and nothing tells it so: it has nobody else to ask", seen.case.name()),
            format!("{} of the honest ones known; {} of {} captured", percent(seen.last().honest), captured(seen), seen.worlds),
            seen.last().honest == 0.0 && captured(seen) == seen.worlds as f64 && seen.told.is_empty(),
        ));
    }
    findings.extend(of(Hostile::Guards).flat_map(findings_on_guards));
    findings
}

fn findings_on_guards(seen: &Seen) -> [Finding; 2] {
    let known = at(seen, 12).honest;
    [
        Finding::new(
            "A client all of whose guards hide what is new knows it from relays drawn at random within 12 h",
            format!("{} of those that joined", percent(known)),
            known >= 1.0,
        ),
        Finding::new(
            "Its user is told within a day",
            format!("{} of {}", seen.told.len(), seen.worlds),
            seen.told.len() == seen.worlds,
        ),
    ]
}

fn at(seen: &Seen, hour: u32) -> Look {
    let mut looks = seen.looks.iter();
    let found = looks.find(|look| look.0 == hour);
    found.map(|(_, look)| *look).unwrap_or_default()
}

fn believed(all: &[Seen]) -> Table {
    let head = [
        "hostile",
        "after",
        "honest relays known",
        "clients that have guards",
        "hostile among guards and L2",
        "clients of which all of these are",
    ];
    let row = |case: Hostile, (hour, look): &(u32, Look)| {
        let after = match hour {
            0 => "1 min".to_owned(),
            hour => format!("{hour} h"),
        };
        vec![
            case.name(),
            after,
            percent(look.honest),
            percent(look.is_drawing),
            percent(look.of_chosen()),
            percent(look.is_captured),
        ]
    };
    let rows = all
        .iter()
        .flat_map(|seen| seen.looks.iter().map(|look| row(seen.case, look)));
    Table {
        title: "What clients believe".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

fn told(all: &[Seen]) -> Table {
    let head = [
        "hostile",
        "worlds",
        "clients that were told",
        "after s, half of them",
        "after s, all",
        "captured and not told",
    ];
    let row = |seen: &Seen| {
        let after = |share| {
            let after = quantile(&seen.told, share);
            after.map_or_else(|| "-".to_owned(), |after| format!("{after:.1}"))
        };
        vec![
            seen.case.name(),
            seen.worlds.to_string(),
            seen.told.len().to_string(),
            after(0.5),
            after(1.0),
            seen.fooled.to_string(),
        ]
    };
    Table {
        title: "What they are told: that seeds disagree, or that a guard hides relays".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: all.iter().map(row).collect(),
    }
}

fn method(plan: &Plan) -> String {
    format!(
        "Worlds of {} relays with the default parameters, on loopback, each in an address group of its own, an hour old; the network's file names {SEEDS} seeds. The cores of \
         relays and clients are the production code.\n\n\
         *Hostile seeds.* Half of the relays are hostile, and so many seeds among them. They have receipts like the others, since they were honest until now; then they forget the honest relays, and no \
         longer speak with them. A client joins a minute later. It is *captured* if all its guards and L2 relays are hostile in the end. In the last of these cases, it can't reach any honest relay: a network in between \
         blocks them.\n\n\
         *Hostile guards.* A client has known the network for 1 h when all the guards of its sample begin to take no descriptor that others pass on. Then {} \
         more relays join, and *honest relays known* are these.\n\n\
         What it costs: a seed's place is given by whoever makes the file, and is not for sale; half of all relays are dear ([sybil](sybil.md)). \
         The networks are smaller than one that protects anybody: the cases are about who is believed, not about shares.",
        plan.relays, plan.newcomers,
    )
}
