//! `umbel bench`: what Umbel costs on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use tokio::time::timeout;
use umbel_client::bench::{self, BenchError, Extent, Goal, Group, Part, Row};
use umbel_proto::ids::Peer;
use umbel_proto::time::Duration;
use umbel_relay::config::Flags;

use super::failure::Failure;
use super::session::{Interrupt, Session};

/// How much later than the end of a relay process the interrupt that ended it may be heard here.
const INTERRUPT_LAG: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(super) struct BenchArgs {
    /// Smoke test; figures are not comparable
    #[arg(long)]
    quick: bool,
    /// Measure only these groups (comma-separated)
    #[arg(long, value_name = "GROUP", value_delimiter = ',', value_parser = group_parser())]
    only: Vec<Group>,
    /// `delay` group: do not simulate latency; listen on consecutive ports from FIRST and let an
    /// outside tool (such as `tc netem`) delay them
    #[arg(long, value_name = "FIRST")]
    ports: Option<u16>,
}

fn group_parser() -> impl TypedValueParser<Value = Group> {
    let named = |name: String| Group::ALL.into_iter().find(|group| group.name() == name);
    PossibleValuesParser::new(Group::ALL.map(Group::name))
        .try_map(move |name| named(name).ok_or("no such group"))
}

/// As [`Part`] has them.
#[derive(clap::Subcommand)]
pub(super) enum PartCommand {
    Relay {
        #[arg(long)]
        data_dir: PathBuf,
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long = "seed")]
        seeds: Vec<Peer>,
    },
    Proxy {
        #[arg(long)]
        next: Option<Peer>,
    },
    Client {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long = "seed")]
        seeds: Vec<Peer>,
    },
}

impl From<PartCommand> for Part {
    fn from(command: PartCommand) -> Self {
        match command {
            PartCommand::Relay {
                data_dir,
                listen,
                seeds,
            } => Self::Relay {
                data_dir,
                flags: Flags {
                    listen: Some(listen),
                    advertise: Vec::new(),
                    seeds,
                },
            },
            PartCommand::Proxy { next } => Self::Proxy { next },
            PartCommand::Client { dir, seeds } => Self::Client { dir, seeds },
        }
    }
}

pub(super) fn run_part(command: PartCommand) -> Result<(), Failure> {
    Ok(bench::run_part(command.into())?)
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        Self::failed(
            error.to_string(),
            "see that there is room for temporary files, and that loopback ports are free",
        )
    }
}

pub(super) async fn run(session: &Session, args: &BenchArgs) -> Result<(), Failure> {
    let interrupt = Interrupt::watch()?;
    let extent = if args.quick {
        Extent::Quick
    } else {
        Extent::Full
    };
    let groups = if args.only.is_empty() {
        &Group::ALL[..]
    } else {
        &args.only
    };
    if !session.is_json() {
        session.line(
            "All on this machine, over loopback: compare ratios, and figures of one machine only.",
        )?;
        session.line(&format!(
            "{:<20} {:>10} {:<6} {:>10} {:>10} {:>10}",
            "", "median", "", "min", "p90", "p99"
        ))?;
    }
    let mut written = Ok(());
    let mut report = |row: Row| {
        if written.is_ok() {
            written = show(session, &row);
        }
    };
    tokio::select! {
        result = bench::run(extent, args.ports, groups, &mut report) => ended(result, &interrupt).await?,
        () = interrupt.wait() => return Err(Failure::interrupted()),
    }
    written?;
    if session.is_json() {
        return Ok(());
    }
    session.line("Allocations a cell are counted by `cargo test -p umbel-tests --test forwarding`.")
}

/// What is interrupted at the terminal is the whole group of processes: that relays end may be seen
/// first.
async fn ended(result: Result<(), BenchError>, interrupt: &Interrupt) -> Result<(), Failure> {
    let Err(error) = result else { return Ok(()) };
    match timeout(INTERRUPT_LAG, interrupt.wait()).await {
        Ok(()) => Err(Failure::interrupted()),
        Err(_) => Err(error.into()),
    }
}

fn show(session: &Session, row: &Row) -> Result<(), Failure> {
    if session.is_json() {
        return session.json(row);
    }
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let [value, min, p90, p99] = [row.value, row.min, row.p90, row.p99].map(number);
    session.line(&format!(
        "{:<20} {value:>10} {:<6} {min:>10} {p90:>10} {p99:>10}",
        row.name,
        row.unit.to_string()
    ))?;
    session.line(&format!("    {}", row.note))?;
    match row.goal {
        Some(goal) => session.line(&format!("    {}", judged(goal, row.value))),
        None => Ok(()),
    }
}

/// What was promised, and whether it is so.
fn judged(goal: Goal, value: Option<f64>) -> String {
    let (bound, most_or_least) = match goal {
        Goal::AtMost(most) => (most, "most"),
        Goal::AtLeast(least) => (least, "least"),
    };
    let judgement = match value {
        Some(value) if goal.is_met(value) => "met",
        Some(_) => "missed",
        None => "not measured",
    };
    format!("goal: at {most_or_least} {}: {judgement}", short(bound))
}

/// Three digits that count, or all before the point.
fn short(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.places$}")
}
