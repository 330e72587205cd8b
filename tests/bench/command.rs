//! The command line of `umbel-bench`: the groups to measure, and how rows are shown.
//!
//! Rows go to standard output, for people or, with `--json`, one object a line. Errors go to
//! standard error.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;
use umbel_proto::time::Duration;

use super::failure::{Exit, Failure};
use super::interrupt::Interrupt;
use super::part::{self, Part};
use super::row::Goal;
use super::{BenchError, Extent, Group, Row};

/// How much later than the end of a relay process the interrupt that ended it may be heard here.
const INTERRUPT_LAG: Duration = Duration::from_millis(200);

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed
  2   the command line is wrong
  73  the output could not be written
  130 interrupted
  141 the reader of the output has ended; nothing is reported";

/// Measure what Umbel costs on this machine, in networks of its own on loopback
///
/// Runs the `umbel-relay` and the `umbel` in this program's directory.
#[derive(Parser)]
#[command(
    name = "umbel-bench",
    version,
    args_conflicts_with_subcommands = true,
    after_help = EXIT_CODES
)]
struct Args {
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
    /// One JSON object a line instead of text
    #[arg(long, overrides_with = "json")]
    json: bool,
    /// Accepted for symmetry: only rows and errors are printed
    #[arg(long, short, overrides_with = "quiet", conflicts_with = "verbose")]
    quiet: bool,
    /// Log to standard error
    #[arg(long, short, overrides_with = "verbose")]
    verbose: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// A process that this command starts while it measures
    #[command(subcommand, hide = true)]
    Part(Part),
}

fn group_parser() -> impl TypedValueParser<Value = Group> {
    let named = |name: String| Group::ALL.into_iter().find(|group| group.name() == name);
    PossibleValuesParser::new(Group::ALL.map(Group::name))
        .try_map(move |name| named(name).ok_or("no such group"))
}

/// Runs the command that the process was started with.
pub(super) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    log_to_stderr(args.verbose);
    let is_json = args.json;
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.complain(is_json);
            failure.exit.into()
        }
    }
}

/// Help and version are not errors; all else that clap says is.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // If even this can't be written, nobody reads why.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|word| word == "--json") {
        let text = error.render().to_string();
        let said = text.split("\n\n").next().unwrap_or_default();
        let words: Vec<&str> = said.split_whitespace().skip(1).collect(); // after `error:`
        Failure::usage(words.join(" "), "umbel-bench --help says more").complain(true);
    } else {
        drop(error.print());
    }
    Exit::Usage.into()
}

fn log_to_stderr(is_verbose: bool) {
    let level = if is_verbose {
        "umbel_client=debug,umbel_relay=debug"
    } else {
        "error"
    };
    let filter = EnvFilter::try_from_env("UMBEL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
}

fn run(mut args: Args) -> Result<(), Failure> {
    if let Some(Command::Part(part)) = args.command.take() {
        return Ok(part::run(part)?);
    }
    let runtime = part::runtime(part::cores()).map_err(|error| Failure::start(&error))?;
    runtime.block_on(Box::pin(measure(&args)))
}

async fn measure(args: &Args) -> Result<(), Failure> {
    let mut interrupt = Interrupt::watch().map_err(|error| Failure::start(&error))?;
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
    if !args.json {
        line(
            "All on this machine, over loopback: compare ratios, and figures of one machine only.",
        )?;
        line(&format!(
            "{:<20} {:>10} {:<6} {:>10} {:>10} {:>10}",
            "", "median", "", "min", "p90", "p99"
        ))?;
    }
    let mut written = Ok(());
    let mut report = |row: Row| {
        if written.is_ok() {
            written = show(&row, args.json);
        }
    };
    tokio::select! {
        result = super::run(extent, args.ports, groups, &mut report) => {
            ended(result, &mut interrupt).await?;
        }
        () = interrupt.wait() => return Err(Failure::interrupted()),
    }
    written?;
    if args.json {
        return Ok(());
    }
    line("Allocations a cell are counted by `cargo test -p umbel-tests --test forwarding`.")
}

/// An interrupt at the terminal goes to the whole group of processes: the end of a relay may be
/// seen before the interrupt is.
async fn ended(result: Result<(), BenchError>, interrupt: &mut Interrupt) -> Result<(), Failure> {
    let Err(error) = result else { return Ok(()) };
    match timeout(INTERRUPT_LAG, interrupt.wait()).await {
        Ok(()) => Err(Failure::interrupted()),
        Err(_) => Err(error.into()),
    }
}

fn show(row: &Row, is_json: bool) -> Result<(), Failure> {
    if is_json {
        let text = serde_json::to_string(row).map_err(io::Error::from);
        return line(&text.map_err(|error| Failure::output(&error))?);
    }
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let [value, min, p90, p99] = [row.value, row.min, row.p90, row.p99].map(number);
    line(&format!(
        "{:<20} {value:>10} {:<6} {min:>10} {p90:>10} {p99:>10}",
        row.name,
        row.unit.to_string()
    ))?;
    line(&format!("    {}", row.note))?;
    match row.goal {
        Some(goal) => line(&format!("    {}", judged(goal, row.value))),
        None => Ok(()),
    }
}

/// Writes a line to standard output, and flushes it.
fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

/// The goal, and whether it was met.
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

/// Three significant digits, or all before the point.
fn short(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.places$}")
}
