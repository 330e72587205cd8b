//! Machines whose calendars are stepped (docs/protocol.md §1.6): nothing may be drawn anew or
//! deleted, and inboxes must be found where they are.

use umbel_client::core::{Notice, Warning, Wish};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::{InboxAddress, InboxIdentity};
use umbel_proto::time::{Duration, Instant};

use super::times::{rising, row};
use super::{Experiment, Finding, Page, Plot, Scale, Table};
use crate::scenario::{chosen_by, patient};
use crate::shells::ClientName;
use crate::world::network::Node;
use crate::{RelayName, World};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "clock",
    question: "Calendars are stepped by minutes to years. Is a guard drawn anew, mail deleted, or an inbox not found?",
    run,
};

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
const RELAYS: usize = 12;
/// Guards of the sample: few, so that another draw would take others.
const SAMPLE: usize = 4;
const MAIL: usize = 3;
/// How long a calendar stays wrong.
const WRONG_FOR: Duration = Duration::from_secs(600);
/// Within this time after a calendar is right, all must work.
const SOON: Duration = Duration::from_secs(300);
/// How exactly the amount must be said, seconds.
const SAID_WITHIN: u64 = 60;

/// By how much calendars are stepped, either way.
const STEPS: [(i64, &str); 7] = [
    (5 * MINUTE, "5 min"),
    (50 * MINUTE, "50 min"),
    (3 * HOUR, "3 h"),
    (2 * DAY, "2 d"),
    (30 * DAY, "30 d"),
    (YEAR, "1 y"),
    (10 * YEAR, "10 y"),
];
const STEPS_SMALL: [(i64, &str); 2] = [(3 * HOUR, "3 h"), (YEAR, "1 y")];

/// Whose calendar it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Client,
    OneRelay,
    AllRelays,
}

/// When it is stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    AtStart,
    Running,
}

/// What was seen of one step.
struct Seen {
    whose: Whose,
    when: When,
    step: String,
    is_guard_kept: bool,
    is_mail_kept: bool,
    is_outbox_kept: bool,
    /// How long after the calendar was right a new message came, after all the old ones.
    reached_after: Option<Duration>,
    /// Whether the owner was told the amount.
    is_told: bool,
    /// Whether that was due: the owner's own calendar was off by more than an hour.
    is_to_be_told: bool,
}

fn run(scale: Scale, seed: u64) -> Page {
    let steps = match scale {
        Scale::Small => &STEPS_SMALL[..],
        Scale::Whole => &STEPS,
    };
    let mut seen = Vec::new();
    for whose in [Whose::Client, Whose::OneRelay, Whose::AllRelays] {
        for when in [When::AtStart, When::Running] {
            for &(seconds, name) in steps {
                for (ahead, sign) in [(seconds, '+'), (-seconds, '-')] {
                    let seed = seed * 1000 + seen.len() as u64;
                    seen.push(step(seed, whose, when, ahead, format!("{sign}{name}")));
                }
            }
        }
    }
    page(&seen)
}

/// A world of which the calendars are stepped: an owner with an inbox and mail, and a sender.
struct Stage {
    world: World,
    owner: ClientName,
    sender: ClientName,
    address: InboxAddress,
}

impl Stage {
    /// Mail waits for the owner, who has a guard and a message that nobody can take.
    fn new(seed: u64) -> Self {
        let mut overlay = patient();
        overlay.params.guards_sample_min = SAMPLE;
        let mut world = World::with_overlay(seed, overlay).relays(RELAYS).clients(2);
        let (owner, sender) = (ClientName(0), ClientName(1));
        let address = world.create_inbox(owner, "mail");
        world.run_for(Duration::from_secs(10));
        let nobody = *InboxIdentity::from_seed(&[7; 32]).address();
        world.send(owner, &nobody, b"into the void".to_vec());
        world.run_for(Duration::from_secs(20));
        world.crash_client(owner);
        for number in 0..MAIL {
            world.send(sender, &address, vec![1; 10 + number]);
        }
        world.expect_within(Duration::from_secs(120), |world| {
            record_count(world) >= 2 * MAIL
        });
        world.restart_client(owner);
        world.run_for(Duration::from_secs(30));
        Self {
            world,
            owner,
            sender,
            address,
        }
    }

    fn nodes(&self, whose: Whose) -> Vec<Node> {
        match whose {
            Whose::Client => vec![Node::Client(self.owner.0)],
            Whose::OneRelay => vec![Node::Relay(RELAYS / 2)],
            Whose::AllRelays => (0..RELAYS).map(Node::Relay).collect(),
        }
    }

    /// Sets the calendars, while nodes run or between two lives.
    fn set(&mut self, whose: Whose, when: When, ahead: i64) {
        let nodes = self.nodes(whose);
        let is_restart = when == When::AtStart;
        for &node in nodes.iter().filter(|_| is_restart) {
            match node {
                Node::Relay(number) => self.world.crash_relay(RelayName(number)),
                Node::Client(number) => self.world.crash_client(ClientName(number)),
            }
        }
        for &node in &nodes {
            self.world.set_clock(node, ahead);
        }
        for &node in nodes.iter().filter(|_| is_restart) {
            match node {
                Node::Relay(number) => self.world.restart_relay(RelayName(number)),
                Node::Client(number) => self.world.restart_client(ClientName(number)),
            }
        }
    }

    fn paths(&self) -> Vec<RelayName> {
        chosen_by(&self.world, self.owner)
    }

    fn is_told(&self, since: Instant, ahead: i64) -> bool {
        let is_it = |notice: &Notice| {
            matches!(notice, Notice::Warning(Warning::Clock { seconds })
                if seconds.abs_diff(ahead.unsigned_abs()) <= SAID_WITHIN)
        };
        let mut notices = self.world.client(self.owner).notices.iter();
        notices.any(|(at, notice)| *at >= since && is_it(notice))
    }

    /// The owner fetches, and a message is sent; how long until all is there.
    fn reach(&mut self) -> Option<Duration> {
        let since = self.world.now();
        let name = "mail".to_owned();
        let is_interactive = true;
        self.world.wish(
            self.owner,
            Wish::Listen {
                name,
                is_interactive,
            },
        );
        let sent = self.world.send(self.sender, &self.address, b"new".to_vec());
        let owner = self.owner;
        let has_come = |world: &World, id: MessageId| {
            let mut messages = world.client(owner).disk.messages.iter();
            messages.any(|&(_, other, _)| other == id)
        };
        let is_all =
            |world: &World| world.message_count(owner) == MAIL + 1 && has_come(world, sent);
        let is_reached = self.world.run_until(SOON, is_all);
        is_reached.then(|| self.world.now().since(since))
    }
}

fn record_count(world: &World) -> usize {
    let relays = world.all_relays().iter();
    relays.map(|relay| relay.disk.record_count()).sum()
}

fn step(seed: u64, whose: Whose, when: When, ahead: i64, step: String) -> Seen {
    let mut stage = Stage::new(seed);
    let (paths, records) = (stage.paths(), record_count(&stage.world));
    let since = stage.world.now();
    stage.set(whose, when, ahead);
    stage.world.run_for(WRONG_FOR);
    let is_told = stage.is_told(since, ahead);
    stage.set(whose, when, 0);
    let is_outbox_kept = stage.world.client(stage.owner).disk.outbox_len() == 1;
    let is_guard_kept = paths.len() > SAMPLE && is_within(&paths, &stage.paths());
    let is_record_kept = record_count(&stage.world) == records;
    let reached_after = stage.reach();
    Seen {
        whose,
        when,
        step,
        is_guard_kept,
        is_mail_kept: is_record_kept && stage.world.message_count(stage.owner) >= MAIL,
        is_outbox_kept,
        reached_after,
        is_told,
        is_to_be_told: whose == Whose::Client && ahead.abs() > HOUR,
    }
}

/// Whether all of these are still there, in their order. Others may have been added behind them:
/// spares for relays that are down.
fn is_within(before: &[RelayName], after: &[RelayName]) -> bool {
    let mut after = after.iter();
    before.iter().all(|relay| after.any(|other| other == relay))
}

/// What is drawn for a wait of less seconds.
const LEAST: f64 = 0.1;

fn page(seen: &[Seen]) -> Page {
    let head = [
        "calendar of",
        "stepped",
        "by",
        "guard kept",
        "mail kept",
        "outbox kept",
        "found after s",
        "owner told",
    ];
    let waits = [Whose::Client, Whose::OneRelay, Whose::AllRelays].map(|whose| {
        let seen = seen.iter().filter(|seen| seen.whose == whose);
        let waits = seen.filter_map(|seen| seen.reached_after);
        let waits = waits.map(|wait| wait.as_secs_f64());
        (whose_text(whose), waits.collect::<Vec<f64>>())
    });
    let shares = [0.5, 0.9, 1.0];
    let rows = waits.iter().map(|(name, waits)| row(name, waits, shares));
    Page {
        method: method(seen),
        findings: findings(seen),
        tables: vec![
            Table {
                title: "Seconds until all mail had come, once the clock was right".to_owned(),
                head: ["calendar of", "steps", "median", "90 %", "all"]
                    .map(str::to_owned)
                    .into(),
                rows: rows.collect(),
            },
            Table {
                title: "Each step".to_owned(),
                head: head.map(str::to_owned).into(),
                rows: seen.iter().map(Seen::row).collect(),
            },
        ],
        plot: Plot {
            title: "How soon all mail has come, once the clock is right".to_owned(),
            x: "seconds".to_owned(),
            y: "share of steps, %".to_owned(),
            lines: waits
                .iter()
                .map(|(name, waits)| rising(name, waits, LEAST))
                .collect(),
        },
    }
}

fn method(seen: &[Seen]) -> String {
    format!(
        "{} worlds of {RELAYS} relays with default parameters, but without receipts, and two clients, which sample {SAMPLE} guards. The owner of an inbox, who has a guard and a message in the outbox that nobody can take, does not fetch while mail waits. A calendar is stepped while its machine runs, or between two of its lives, is wrong for ten minutes, and is set right again. Then the owner fetches and another message is sent, which must be there, with the old ones, within five minutes.\n\nNot measured here: clocks that stay wrong for a day, after which a machine believes its own; a step at the end of an epoch; clocks that run too fast or too slow; relays that lie about the time (`tests/tests/clocks.rs` has some of these). Where all relays are wrong and the owner is right, the owner is told on new links only, and nothing is promised.",
        seen.len(),
    )
}

fn findings(seen: &[Seen]) -> Vec<Finding> {
    let none = |what: &str, is_it: fn(&Seen) -> bool| {
        let count = seen.iter().filter(|seen| !is_it(seen)).count();
        Finding::new(what, format!("{count} of {} steps", seen.len()), count == 0)
    };
    vec![
        none(
            "After no step is a guard or an L2 relay drawn anew",
            |seen| seen.is_guard_kept,
        ),
        none("After no step is mail gone", |seen| seen.is_mail_kept),
        none("After no step is a message gone from the outbox", |seen| {
            seen.is_outbox_kept
        }),
        none(
            "After no step is the inbox not found within five minutes",
            |seen| seen.reached_after.is_some(),
        ),
        told(seen),
    ]
}

/// Steps of another's calendar say nothing here, and neither do those of an hour or less.
fn told(seen: &[Seen]) -> Finding {
    let steps = || seen.iter().filter(|seen| seen.is_to_be_told);
    let (told, all) = (steps().filter(|seen| seen.is_told).count(), steps().count());
    Finding::new(
        "Every user whose own calendar is stepped by over an hour is told",
        format!("{told} of {all} steps"),
        told == all,
    )
}

impl Seen {
    fn row(&self) -> Vec<String> {
        let kept = |is_kept: bool| if is_kept { "yes" } else { "**no**" }.to_owned();
        let reached_after = self
            .reached_after
            .map(|it| format!("{:.1}", it.as_secs_f64()));
        vec![
            whose_text(self.whose).to_owned(),
            when_text(self.when).to_owned(),
            self.step.clone(),
            kept(self.is_guard_kept),
            kept(self.is_mail_kept),
            kept(self.is_outbox_kept),
            reached_after.unwrap_or_else(|| "**never**".to_owned()),
            if self.is_told { "yes" } else { "no" }.to_owned(),
        ]
    }
}

fn whose_text(whose: Whose) -> &'static str {
    match whose {
        Whose::Client => "the owner",
        Whose::OneRelay => "one relay",
        Whose::AllRelays => "all relays",
    }
}

fn when_text(when: When) -> &'static str {
    match when {
        When::AtStart => "at a start",
        When::Running => "while running",
    }
}
