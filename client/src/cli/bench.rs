//! `umbel bench`: what Umbel costs on this machine.

use umbel_client::bench::{self, BenchError, Plan, Row};

use super::failure::Failure;
use super::session::{Interrupt, Session};

#[derive(clap::Args)]
pub(super) struct BenchArgs {
    /// Do little of everything: to see that it works, not to compare
    #[arg(long)]
    quick: bool,
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        Self::failed(error.to_string(), "see that there is room for temporary files, and that loopback ports are free")
    }
}

pub(super) async fn run(session: &Session, args: &BenchArgs) -> Result<(), Failure> {
    let interrupt = Interrupt::watch()?;
    let plan = if args.quick { Plan::QUICK } else { Plan::FULL };
    if !session.is_json() {
        session.line("All on this machine, over loopback: compare ratios, and figures of one machine only.")?;
        session.line(&format!("{:<20} {:>10} {:<6} {:>10} {:>10} {:>10}", "", "median", "", "min", "p90", "p99"))?;
    }
    let mut written = Ok(());
    let mut report = |row: Row| {
        if written.is_ok() {
            written = show(session, &row);
        }
    };
    tokio::select! {
        result = bench::run(&plan, &mut report) => result?,
        () = interrupt.wait() => return Err(Failure::interrupted()),
    }
    written?;
    if session.is_json() {
        return Ok(());
    }
    session.line("Allocations a cell are counted by `cargo test -p umbel-tests --test forwarding`.")
}

fn show(session: &Session, row: &Row) -> Result<(), Failure> {
    if session.is_json() {
        return session.json(row);
    }
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let [value, min, p90, p99] = [row.value, row.min, row.p90, row.p99].map(number);
    session.line(&format!("{:<20} {value:>10} {:<6} {min:>10} {p90:>10} {p99:>10}", row.name, row.unit.to_string()))?;
    session.line(&format!("    {}", row.note))
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
