//! Someone who knows an inbox's address, and wants nobody to reach it for a week: what the relays that
//! keep its descriptor, or its mailboxes, cost, and who notices what.

mod cost;
mod stage;

use std::collections::BTreeSet;

use umbel_client::core::DeferReason;
use umbel_proto::limits::RING_POSITIONS;
use umbel_proto::network::Params;

use super::relays::MACHINE;
use super::times::quantile;
use super::{Experiment, Finding, Line, Page, Plot, Scale, Table, percent};
use cost::{Bought, PREFIXES, WEEKS};
use stage::{NOT_FOUND, OUT_OF_REACH, Seen, Sent};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "censor",
    question: "Someone who knows an inbox's address takes all positions of its descriptor, or all its holders, for a week. What does that cost, who is told of what, how soon, and what gets through?",
    run,
};

/// Positions in league that can give some readers an old descriptor (§9.4(4)).
const OLD_FROM: usize = 4;
/// Within so many seconds a stranger is to be told.
const TOLD_WITHIN: f64 = 300.0;

struct Plan {
    cost: cost::Plan,
    /// Relays of the world in which it happens.
    world: usize,
    cases: &'static [Case],
    /// Worlds for each case.
    worlds: usize,
    /// For how long, and how often a stranger and a friend write, in hours.
    hours: u32,
    every: u32,
    /// `inbox_republish`, in hours.
    republish: u32,
}

/// What the positions do, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Positions {
    Honest,
    /// They have lost the descriptor, and take it no more.
    Refuse,
    /// They say that they took the descriptor, and give the one that they had.
    Old,
    /// They say that they took the descriptor, and give none.
    Forget,
    /// They answer nothing.
    Silent,
}

/// What the holders do, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holders {
    Honest,
    /// They break each circuit on which they are asked for a mailbox.
    Break,
    /// They say that they took each message, and drop it.
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    positions: Positions,
    holders: Holders,
}

const fn case(positions: Positions, holders: Holders) -> Case {
    Case { positions, holders }
}

const NOBODY: Case = case(Positions::Honest, Holders::Honest);
const REFUSE: Case = case(Positions::Refuse, Holders::Honest);
const OLD: Case = case(Positions::Old, Holders::Honest);
const FORGET: Case = case(Positions::Forget, Holders::Honest);
const SILENT: Case = case(Positions::Silent, Holders::Honest);
const BREAK: Case = case(Positions::Honest, Holders::Break);
const DROP: Case = case(Positions::Honest, Holders::Drop);
const OLD_AND_BREAK: Case = case(Positions::Old, Holders::Break);

const WHOLE: Plan = Plan {
    cost: cost::Plan {
        relays: 1000,
        ases: 150,
        hosters: &[3, 10, 30, 100, 300],
        inboxes: 200,
        owners: 2000,
    },
    world: 14,
    cases: &[
        NOBODY,
        REFUSE,
        OLD,
        FORGET,
        SILENT,
        BREAK,
        DROP,
        OLD_AND_BREAK,
    ],
    worlds: 2,
    hours: 168,
    every: 24,
    republish: 24,
};

const SMALL: Plan = Plan {
    cost: cost::Plan {
        relays: 200,
        ases: 60,
        hosters: &[3, 100],
        inboxes: 20,
        owners: 300,
    },
    world: 10,
    cases: &[NOBODY, REFUSE, FORGET, DROP],
    worlds: 1,
    hours: 4,
    every: 3,
    republish: 1,
};

impl Case {
    fn name(self) -> String {
        let positions = match self.positions {
            Positions::Honest => None,
            Positions::Refuse => Some("positions that refuse"),
            Positions::Old => Some("positions that give an old revision"),
            Positions::Forget => Some("positions that take and forget"),
            Positions::Silent => Some("positions that are silent"),
        };
        let holders = match self.holders {
            Holders::Honest => None,
            Holders::Break => Some("holders that break circuits"),
            Holders::Drop => Some("holders that take and drop"),
        };
        match (positions, holders) {
            (None, None) => "nobody".to_owned(),
            (Some(one), None) | (None, Some(one)) => one.to_owned(),
            (Some(one), Some(other)) => format!("{one}, and {other}"),
        }
    }
}

fn run(scale: Scale, seed: u64) -> Page {
    let plan = match scale {
        Scale::Small => SMALL,
        Scale::Whole => WHOLE,
    };
    let cost = cost::bought(&plan.cost, seed);
    let cases = plan.cases.iter();
    let all: Vec<Seen> = cases.map(|&case| stage::seen(&plan, case, seed)).collect();
    let mut findings = of_cost(&cost);
    findings.extend(all.iter().flat_map(|seen| of_case(&plan, seen)));
    Page {
        method: method(&plan),
        findings,
        tables: vec![
            positions(&cost),
            holders(&cost),
            senders(&all),
            owners(&all),
        ],
        plot: plot(&cost),
    }
}

fn plot(cost: &[Bought]) -> Plot {
    let line = |name: String, share: &dyn Fn(&Bought) -> f64| Line {
        name,
        points: cost
            .iter()
            .map(|bought| (bought.hosters as f64, share(bought) * 100.0))
            .collect(),
    };
    let mut lines: Vec<Line> = [RING_POSITIONS, OLD_FROM]
        .map(|least| {
            let name = format!("{least} of {RING_POSITIONS} positions, chosen");
            line(name, &|bought| bought.has_positions(least))
        })
        .into();
    lines.push(line(
        "all three holders, by chance, with a machine in each /16".to_owned(),
        &Bought::has_holders,
    ));
    Plot {
        title: "Inboxes that can be censored for a week".to_owned(),
        x: "ASes in which machines can be rented".to_owned(),
        y: "share of inboxes, %".to_owned(),
        lines,
    }
}

fn of_cost(cost: &[Bought]) -> Vec<Finding> {
    let shares = |share: &dyn Fn(&Bought) -> f64| {
        let shares = cost.iter().map(|bought| percent(share(bought)));
        shares.collect::<Vec<_>>().join(", ")
    };
    let at_most = |apart: &dyn Fn(&Bought) -> f64| cost.iter().map(apart).fold(0.0, f64::max);
    let by_six = |bought: &Bought| bought.one_position().powf(RING_POSITIONS as f64);
    let by_three = |bought: &Bought| bought.draws.powf(Params::DEFAULT.mailboxes as f64);
    vec![
        Finding::new(
            format!(
                "Whoever can rent in as many ASes can be all {RING_POSITIONS} positions of an inbox as often as the one position is theirs, to the sixth power, within 10 points, for {RING_POSITIONS} machines: ${}",
                RING_POSITIONS * MACHINE
            ),
            format!(
                "{}; expected {}",
                shares(&|bought| bought.has_positions(RING_POSITIONS)),
                shares(&by_six)
            ),
            at_most(&|bought| (bought.has_positions(RING_POSITIONS) - by_six(bought)).abs()) <= 0.1,
        ),
        Finding::new(
            "Holders can't be chosen: all three are theirs as often as three draws are, within 10 points (no holder is in the group or AS of a guard or L2), and all those machines must be rented",
            format!(
                "{}; expected {}",
                shares(&Bought::has_holders),
                shares(&by_three)
            ),
            at_most(&|bought| (bought.has_holders() - by_three(bought)).abs()) <= 0.1,
        ),
    ]
}

fn of_case(plan: &Plan, seen: &Seen) -> Vec<Finding> {
    match (seen.case.positions, seen.case.holders) {
        (Positions::Honest, Holders::Honest) => vec![nobody(seen)],
        (Positions::Old, Holders::Honest) => vec![gets_through(seen), is_told(plan, seen)],
        (Positions::Old, Holders::Break) => {
            vec![kept_out(seen), friends_too(seen), is_told(plan, seen)]
        }
        (Positions::Honest, Holders::Break) => replaced(seen),
        (_, Holders::Drop) => vec![lost(seen), unnoticed(seen)],
        (_, _) => vec![kept_out(seen), friends(seen), is_told(plan, seen)],
    }
}

fn nobody(seen: &Seen) -> Finding {
    Finding::new(
        "Where nobody censors, each message comes, and the owner is told of nothing",
        format!(
            "{} strangers', {} friends'; owners are told {} things",
            seen.strangers.of(seen.strangers.came),
            seen.friend.of(seen.friend.came),
            seen.owners.len()
        ),
        seen.strangers.came == seen.strangers.count
            && seen.friend.came == seen.friend.count
            && seen.owners.is_empty(),
    )
}

/// Strangers get nowhere, and know it.
fn kept_out(seen: &Seen) -> Finding {
    let strangers = &seen.strangers;
    let slowest = strangers.told.iter().map(|told| told.1).fold(0.0, f64::max);
    Finding::new(
        format!(
            "{}: no stranger gets through, and each is told so within {TOLD_WITHIN:.0} s",
            seen.case.name()
        ),
        format!(
            "{} come; {} told, after {slowest:.0} s at most",
            strangers.of(strangers.came),
            strangers.of(strangers.told.len())
        ),
        strangers.came == 0 && strangers.told.len() == strangers.count && slowest <= TOLD_WITHIN,
    )
}

fn friends(seen: &Seen) -> Finding {
    let friend = &seen.friend;
    Finding::new(
        format!(
            "{}: who runs all the time, and found the inbox before, still gets through",
            seen.case.name()
        ),
        format!("{} come", friend.of(friend.came)),
        friend.came == friend.count,
    )
}

/// Companions are named in a descriptor that nobody finds.
fn friends_too(seen: &Seen) -> Finding {
    let friend = &seen.friend;
    Finding::new(
        format!(
            "{}: nor does who found the inbox before, since it does not learn of companions (not closed)",
            seen.case.name()
        ),
        format!("{} come", friend.of(friend.came)),
        friend.came == 0,
    )
}

/// How many messages of either come.
fn came(seen: &Seen) -> String {
    let (strangers, friend) = (&seen.strangers, &seen.friend);
    format!(
        "{} strangers', {} friends'",
        strangers.of(strangers.came),
        friend.of(friend.came)
    )
}

fn gets_through(seen: &Seen) -> Finding {
    let (strangers, friend) = (&seen.strangers, &seen.friend);
    Finding::new(
        format!(
            "{}: messages come all the same, since the mailboxes that it names are there",
            seen.case.name()
        ),
        came(seen),
        strangers.came == strangers.count && friend.came == friend.count,
    )
}

/// The owner knows that senders don't find the inbox.
fn is_told(plan: &Plan, seen: &Seen) -> Finding {
    let hours = seen.owners.get(NOT_FOUND).map_or(&[][..], Vec::as_slice);
    let last = quantile(hours, 1.0).unwrap_or(0.0);
    Finding::new(
        format!(
            "{}: the owner is told that {NOT_FOUND} within {} h of when a descriptor is first missed",
            seen.case.name(),
            plan.republish
        ),
        format!(
            "{} of {} owners, after {last:.1} h at most",
            hours.len(),
            seen.worlds
        ),
        hours.len() == seen.worlds && last <= f64::from(plan.republish),
    )
}

/// Holders that break circuits have companions as those that are down have.
fn replaced(seen: &Seen) -> Vec<Finding> {
    let (strangers, friend) = (&seen.strangers, &seen.friend);
    let shown = seen.owners.get(OUT_OF_REACH).map_or(&[][..], Vec::as_slice);
    let last = quantile(shown, 1.0).unwrap_or(0.0);
    let first = seen.worlds;
    vec![
        Finding::new(
            format!(
                "{}: the owner draws companions within the hour, as where holders are down (§10.5(6))",
                seen.case.name()
            ),
            format!(
                "{} of {} owners, after {last:.1} h at most",
                shown.len(),
                seen.worlds
            ),
            shown.len() == seen.worlds && last <= 1.0,
        ),
        Finding::new(
            format!(
                "{}: once there are companions, strangers get through, all but the first; what the friend wrote before comes then, too",
                seen.case.name()
            ),
            came(seen),
            strangers.came + first >= strangers.count && friend.came == friend.count,
        ),
    ]
}

fn lost(seen: &Seen) -> Finding {
    let strangers = &seen.strangers;
    Finding::new(
        format!(
            "{}: each stranger is told that the message is held, and none comes, but for what the owner fetches in the second before it is dropped",
            seen.case.name()
        ),
        format!(
            "{} held, {} come",
            strangers.of(strangers.held),
            strangers.came
        ),
        strangers.held == strangers.count && strangers.came * 10 <= strangers.count,
    )
}

fn unnoticed(seen: &Seen) -> Finding {
    let told: Vec<&str> = seen.owners.keys().copied().collect();
    let told = if told.is_empty() {
        "nothing".to_owned()
    } else {
        told.join(", ")
    };
    Finding::new(
        format!(
            "{}: the owner is told nothing (not closed)",
            seen.case.name()
        ),
        told,
        seen.owners.is_empty(),
    )
}

fn positions(cost: &[Bought]) -> Table {
    let least = [1, 2, 3, 4, 5, 6];
    let mut head = vec!["ASes with machines".to_owned(), "/16s in them".to_owned()];
    head.extend(least.map(|least| format!("{least} or more")));
    head.extend([
        format!("all, {WEEKS} weeks in a row"),
        "machines for that".to_owned(),
        "a month".to_owned(),
    ]);
    let row = |bought: &Bought| {
        let mut cells = vec![bought.hosters.to_string(), bought.prefixes.to_string()];
        cells.extend(least.map(|least| percent(bought.has_positions(least))));
        let counts: Vec<f64> = bought.machines.iter().map(|&count| count as f64).collect();
        let most = quantile(&counts, 1.0);
        cells.extend([
            percent(bought.has_all_weeks()),
            most.map_or_else(|| "-".to_owned(), |most| format!("{most:.0}")),
            most.map_or_else(
                || "-".to_owned(),
                |most| format!("${:.0}", most * MACHINE as f64),
            ),
        ]);
        cells
    };
    Table {
        title: format!(
            "How many of an inbox's {RING_POSITIONS} positions of a week can be had, for ${MACHINE} a month each"
        ),
        head,
        rows: cost.iter().map(row).collect(),
    }
}

fn holders(cost: &[Bought]) -> Table {
    let count = Params::DEFAULT.mailboxes;
    let head = [
        "machines rented, one in each /16".to_owned(),
        "a month".to_owned(),
        "share of draws".to_owned(),
        format!("all {count} holders"),
    ];
    let row = |bought: &Bought| {
        vec![
            bought.prefixes.to_string(),
            format!("${}", bought.prefixes * MACHINE),
            percent(bought.draws),
            percent(bought.has_holders()),
        ]
    };
    Table {
        title: "How often the holders that an owner draws are all theirs".to_owned(),
        head: head.into(),
        rows: cost.iter().map(row).collect(),
    }
}

fn senders(all: &[Seen]) -> Table {
    let head = [
        "censored by",
        "hostile relays a world",
        "who writes",
        "messages",
        "said to be held",
        "come",
        "said to be held, and lost",
        "what the others are told",
        "after s, half",
        "after s, all",
    ];
    let row = |seen: &Seen, (who, sent): (&str, &Sent)| {
        let seconds: Vec<f64> = sent.told.iter().map(|told| told.1).collect();
        vec![
            seen.case.name(),
            format!("{:.1}", seen.hostile as f64 / seen.worlds as f64),
            who.to_owned(),
            sent.count.to_string(),
            sent.held.to_string(),
            sent.came.to_string(),
            sent.lost.to_string(),
            sent.reasons(),
            after(&seconds, 0.5),
            after(&seconds, 1.0),
        ]
    };
    let rows = all.iter().flat_map(|seen| {
        let both = [("strangers", &seen.strangers), ("a friend", &seen.friend)];
        both.map(|who| row(seen, who))
    });
    Table {
        title: "What becomes of messages, and what their senders are told".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

fn owners(all: &[Seen]) -> Table {
    let head = [
        "censored by",
        "owners",
        "longest time without a new circuit, h",
        "are told",
        "of them",
        "after h, half",
        "after h, all",
    ];
    let rows = all.iter().flat_map(|seen| {
        let cells = |told: &str, hours: &[f64]| {
            vec![
                seen.case.name(),
                seen.worlds.to_string(),
                after(&seen.idle, 1.0),
                told.to_owned(),
                hours.len().to_string(),
                after(hours, 0.5),
                after(hours, 1.0),
            ]
        };
        let mut rows: Vec<Vec<String>> = seen
            .owners
            .iter()
            .map(|(told, hours)| cells(told, hours))
            .collect();
        if rows.is_empty() {
            rows.push(cells("nothing", &[]));
        }
        rows
    });
    Table {
        title: "What owners are told".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

fn after(values: &[f64], share: f64) -> String {
    quantile(values, share).map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

impl Sent {
    fn of(&self, count: usize) -> String {
        format!("{count} of {}", self.count)
    }

    /// Why messages are not held, in words.
    fn reasons(&self) -> String {
        let word = |reason: &DeferReason| match reason {
            DeferReason::NoDescriptor => "no directory relay has the inbox's descriptor",
            DeferReason::NoDirectory => "no directory relay answers",
            DeferReason::Holders => "too few holders take it",
            DeferReason::Broken { .. } => "circuits break",
            DeferReason::NoCircuit => "no circuit",
            DeferReason::QueueFull => "the queues are full",
        };
        let words: BTreeSet<&str> = self.told.iter().map(|(reason, _)| word(reason)).collect();
        match words.is_empty() {
            true => "-".to_owned(),
            false => words.into_iter().collect::<Vec<_>>().join("; "),
        }
    }
}

fn method(plan: &Plan) -> String {
    let cost = &plan.cost;
    format!(
        "*Positions.* {} honest relays, placed as for [sybil](sybil.md), and someone who can rent machines in each of up to {PREFIXES} /16s of so many ASes (those with most prefixes), with one address each for ${MACHINE} a month. \
         Whoever knows the address can work out an inbox's positions of any week (`directory::ring`). So the positions of {} inboxes, of each of the next {WEEKS} weeks, are worked out as if all these machines were there: those that have positions then \
         are the only ones to rent, before the week begins. Where an honest relay is in the same /16, an id is ground that comes before its.\n\n\
         *Holders.* An owner draws them (`proto::path`), and others can't foresee which. So all these machines are rented, and {} owners draw.\n\n\
         *What is noticed.* {} worlds for each case, of {} relays, each an address group of its own, with the default parameters but `inbox_republish`, {} h, and without receipts, puzzles or waits. An owner's client runs all the time, and fetches in the background. A friend has written before, and runs all the time, too. \
         Then all positions of the inbox, of this week and the next, or all its holders, or both, are hostile for {} h. Every {} h the friend writes, and a newcomer, who has ten minutes. Positions that lose what they took do so a second later, and holders that drop messages, too: they start anew without them, so their links break then. \
         The cores of relays and clients are the production code.\n\n\
         *Hostile relays a world* are fewer than twelve positions and three holders, since the worlds are small. A week that begins in the middle of an epoch needs the positions of two: {} machines, ${}.\n\n\
         *When owners are told.* Hours until an owner is told that senders can't find the inbox count from when a reader can first miss a descriptor: a position withholds it, and its epoch has begun. One owner in 40 is told later than after 24 h, on paper: the waits are exponential. Holders that break circuits look like a bad path until a relay drawn at random has answered (protocol.md §6.4(10i)); after that they count as out of reach.\n\n\
         *Old revisions and broken circuits.* Companions are in the descriptor that these positions keep back. So they help nobody while both last, not even who found the inbox before.",
        cost.relays,
        cost.inboxes,
        cost.owners,
        plan.worlds,
        plan.world,
        plan.republish,
        plan.hours,
        plan.every,
        2 * RING_POSITIONS,
        2 * RING_POSITIONS * MACHINE,
    )
}
