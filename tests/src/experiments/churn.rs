//! Relays that come and go: how soon all know, and what it costs.

use rand::seq::IndexedRandom;
use rand::{SeedableRng, rngs::ChaCha20Rng};
use umbel_proto::limits::CELL_LEN;
use umbel_proto::network::{Network, Params};
use umbel_proto::time::{Duration, Instant, WallTime};

use super::spread::{LOOK, Spread, all_up, knows};
use super::times::{quantile, rising, row};
use super::{Experiment, Finding, Page, Plot, Scale, Table};
use crate::scenario::patient;
use crate::{RelayName, World};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "churn",
    question: "A tenth of all relays leaves each day, and as many join. How soon does everybody know everybody, and what does it cost?",
    run,
};

const HOUR: Duration = Duration::from_secs(3600);
/// Relays that the network file names as seeds.
const FOUNDERS: usize = 6;

struct Plan {
    relays: usize,
    /// Whether relays need the receipts that they need by default.
    has_receipts: bool,
    /// How many of a hundred leave a day, and join.
    percent_a_day: u64,
    /// Hours that are measured, after one in which the network begins.
    hours: u32,
}

const WHOLE: [Plan; 3] = [
    Plan {
        relays: 1000,
        has_receipts: false,
        percent_a_day: 10,
        hours: 6,
    },
    Plan {
        relays: 60,
        has_receipts: false,
        percent_a_day: 10,
        hours: 24,
    },
    Plan {
        relays: 24,
        has_receipts: true,
        percent_a_day: 10,
        hours: 24,
    },
];

const SMALL: [Plan; 2] = [
    Plan {
        relays: 20,
        has_receipts: false,
        percent_a_day: 400,
        hours: 2,
    },
    Plan {
        relays: 16,
        has_receipts: true,
        percent_a_day: 400,
        hours: 2,
    },
];

impl Plan {
    fn name(&self) -> String {
        let receipts = if self.has_receipts { "with" } else { "without" };
        format!("{} relays, {receipts} receipts", self.relays)
    }

    fn network(&self) -> Network {
        let mut network = patient();
        if self.has_receipts {
            network.params.receipts_min = Params::DEFAULT.receipts_min;
        }
        network
    }

    /// How often a relay leaves and another joins.
    fn pause(&self) -> Duration {
        Duration::from_secs(86_400 * 100 / self.percent_a_day / self.relays as u64)
    }
}

/// A relay that joined, and those that it does not know yet, of all that were there.
struct Joining {
    relay: RelayName,
    since: Instant,
    unknown: Vec<RelayName>,
}

struct Seen {
    name: String,
    /// Seconds that descriptors took to all relays.
    everywhere: Vec<f64>,
    /// Seconds for which others have been on their way at the end.
    waiting: Vec<f64>,
    /// Seconds that relays which joined took to know all that were there.
    joined: Vec<f64>,
    /// Relays that left.
    left: usize,
    /// Bytes that a relay sends a day.
    bytes: f64,
    /// Those of them that only keep links alive.
    keepalive: f64,
    /// Links of a relay, at the end.
    links: f64,
}

struct Stage<'a> {
    plan: &'a Plan,
    world: World,
    rng: ChaCha20Rng,
    spread: Spread,
    joining: Vec<Joining>,
    joined: Vec<f64>,
    left: usize,
}

impl<'a> Stage<'a> {
    /// A network in which all know all, an hour old.
    fn new(plan: &'a Plan, seed: u64) -> Self {
        let world = World::with_overlay(seed, plan.network()).founders(FOUNDERS);
        let mut stage = Self {
            plan,
            world: world.relays(plan.relays - FOUNDERS),
            rng: ChaCha20Rng::seed_from_u64(seed),
            spread: Spread::default(),
            joining: Vec::new(),
            joined: Vec::new(),
            left: 0,
        };
        stage.world.run_for(HOUR);
        stage.spread.ignore_all(&stage.world);
        stage
    }

    /// One relay leaves without a word, and another joins through any that is left.
    fn change(&mut self) {
        let up = all_up(&self.world);
        if let Some(&leaves) = up.choose(&mut self.rng) {
            self.world.crash_relay(leaves);
            self.left += 1;
        }
        let up = all_up(&self.world);
        let seed = up.choose(&mut self.rng).copied();
        let seed = seed.map(|seed| self.world.relay(seed).peer());
        let relay = self
            .world
            .add_relay_as(|relay| relay.seeds = seed.into_iter().collect());
        self.joining.push(Joining {
            relay,
            since: self.world.now(),
            unknown: up,
        });
    }

    fn look(&mut self) {
        let world = &self.world;
        let up = all_up(world);
        self.spread.look(world, |world, relay, since| {
            up.iter().all(|&one| knows(world, one, relay, since))
        });
        let is_up = |relay: RelayName| world.all_relays()[relay.0].is_up();
        for joining in &mut self.joining {
            let own = joining.relay;
            let is_unknown =
                |&other: &RelayName| is_up(other) && !knows(world, own, other, WallTime(0));
            joining.unknown.retain(is_unknown);
            if joining.unknown.is_empty() && is_up(own) {
                self.joined
                    .push(world.now().since(joining.since).as_secs_f64());
            }
        }
        self.joining
            .retain(|it| !it.unknown.is_empty() && is_up(it.relay));
    }

    fn run(mut self) -> Seen {
        let (begun, before) = (self.world.now(), self.world.cells);
        let mut changes_at = begun + self.plan.pause();
        while self.world.now() < begun + HOUR * self.plan.hours {
            self.world.run_for(LOOK);
            if self.world.now() >= changes_at {
                changes_at = changes_at + self.plan.pause();
                self.change();
            }
            self.look();
        }
        let now = self.world.now();
        let a_day = |cells: u64| {
            let days = now.since(begun).as_secs_f64() / 86_400.0;
            cells as f64 * CELL_LEN as f64 / days / self.plan.relays as f64
        };
        let mut waiting = self.spread.waiting(now);
        waiting.extend(
            self.joining
                .iter()
                .map(|it| now.since(it.since).as_secs_f64()),
        );
        Seen {
            name: self.plan.name(),
            everywhere: self.spread.took,
            waiting,
            joined: self.joined,
            left: self.left,
            bytes: a_day(self.world.cells.sent - before.sent),
            keepalive: a_day(self.world.cells.padding - before.padding),
            links: 2.0 * self.world.network().link_count() as f64 / self.plan.relays as f64,
        }
    }
}

/// Within this time all should be known: three `sync_interval`s, seconds.
fn limit() -> f64 {
    Params::DEFAULT.sync_interval.as_secs_f64() * 3.0
}

fn run(scale: Scale, seed: u64) -> Page {
    let plans: &[Plan] = match scale {
        Scale::Small => &SMALL,
        Scale::Whole => &WHOLE,
    };
    let all: Vec<Seen> = plans
        .iter()
        .map(|plan| Stage::new(plan, seed).run())
        .collect();
    Page {
        method: method(plans, &all),
        findings: all
            .iter()
            .flat_map(|seen| [everywhere(seen), joined(seen), bytes(seen)])
            .collect(),
        tables: vec![times(&all), costs(&all)],
        plot: Plot {
            title: "How soon all relays have a descriptor, and a newcomer has all".to_owned(),
            x: "seconds".to_owned(),
            y: "share, %".to_owned(),
            lines: all
                .iter()
                .flat_map(|seen| {
                    [
                        rising(
                            &format!("a descriptor: {}", seen.name),
                            &seen.everywhere,
                            1.0,
                        ),
                        rising(&format!("a newcomer: {}", seen.name), &seen.joined, 1.0),
                    ]
                })
                .collect(),
        },
    }
}

fn everywhere(seen: &Seen) -> Finding {
    let (limit, all) = (limit(), &seen.everywhere);
    let longest = quantile(all, 1.0).unwrap_or(0.0);
    let late = seen.waiting.iter().filter(|&&waits| waits > limit).count();
    Finding::new(
        format!(
            "{}: every descriptor is at every relay within three `sync_interval`s, {limit:.0} s",
            seen.name
        ),
        format!(
            "{} descriptors, the last after {longest:.0} s; {late} still late at the end",
            all.len()
        ),
        longest <= limit && late == 0 && !all.is_empty(),
    )
}

fn joined(seen: &Seen) -> Finding {
    let (limit, all) = (limit(), &seen.joined);
    let longest = quantile(all, 1.0).unwrap_or(0.0);
    Finding::new(
        format!("{}: a relay that joins knows all others as soon", seen.name),
        format!("{} relays, the last after {longest:.0} s", all.len()),
        longest <= limit && !all.is_empty(),
    )
}

/// What a relay may send a day, MB.
const BYTES_MAX: f64 = 200.0;

fn bytes(seen: &Seen) -> Finding {
    let megabytes = seen.bytes / 1e6;
    Finding::new(
        format!(
            "{}: a relay sends less than {BYTES_MAX:.0} MB a day, links' keepalive included",
            seen.name
        ),
        format!("{megabytes:.1} MB"),
        megabytes < BYTES_MAX,
    )
}

fn times(all: &[Seen]) -> Table {
    let head = ["until", "number", "median", "90 %", "99 %", "all"];
    let shares = [0.5, 0.9, 0.99, 1.0];
    let rows = all.iter().flat_map(|seen| {
        [
            row(
                &format!("all relays have a descriptor: {}", seen.name),
                &seen.everywhere,
                shares,
            ),
            row(
                &format!("a newcomer has all: {}", seen.name),
                &seen.joined,
                shares,
            ),
        ]
    });
    Table {
        title: "Seconds, looked at once a minute".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

fn costs(all: &[Seen]) -> Table {
    let head = [
        "network",
        "a relay sends, MB a day",
        "to keep links alive, MB",
        "for the directory, MB",
        "links of a relay",
    ];
    let row = |seen: &Seen| {
        vec![
            seen.name.clone(),
            format!("{:.1}", seen.bytes / 1e6),
            format!("{:.1}", seen.keepalive / 1e6),
            format!("{:.1}", (seen.bytes - seen.keepalive) / 1e6),
            format!("{:.1}", seen.links),
        ]
    };
    Table {
        title: "What it costs".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: all.iter().map(row).collect(),
    }
}

fn method(plans: &[Plan], all: &[Seen]) -> String {
    let worlds = plans.iter().zip(all).map(|(plan, seen)| {
        let pause = plan.pause().as_secs();
        format!(
            "{}: for {} h one leaves every {pause} s, {} in all",
            plan.name(),
            plan.hours,
            seen.left
        )
    });
    let worlds = worlds.collect::<Vec<_>>().join("; ");
    format!(
        "Relays with the default parameters (but for receipts where these are not named), each an address group of its own, which nobody waits to choose. They have an hour to find each other. Then one at random \
         leaves without a word, and another joins through one at random, again and again. {worlds}. \
         A descriptor is followed from when its relay first has it (when it joins, and every 18 h) until all relays that are up then have it or a newer one, newcomers of the last \
         minutes included. The relays' cores are the production code, and their links carry every cell.\n\n\
         Bytes are cells. TLS and TCP add some 4 %. A relay receives as much as it sends. Clients and circuits of users are not part of this.\n\n\
         1,000 relays are simulated for some hours only, and without receipts: what each learns grows with the number of all, so the work grows with its square. \
         Part of what a relay sends for the directory is the same in any network, a reconciliation every few minutes; the rest grows with the number of relays.",
    )
}
