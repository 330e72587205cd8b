//! `umbel-bench`: the cost of Umbel on this machine, measured with the code that does the work,
//! over real links on loopback.
//!
//! [`run`] measures one group of figures after the other and reports one [`Row`] a figure. Each
//! [`Group`] is a module with a plan of its own; it starts and stops what it needs, so that it can
//! run alone. Nothing here is estimated or remembered: a figure that this machine can't give says
//! so. docs/benchmarks.md explains each figure. [`command`] is the command line, [`part`] what this
//! program runs in processes of its own.
//!
//! It uses the public API of client, relay and proto only.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measures real sockets and disks on a real clock"
)]

mod bulk;
mod circuit;
mod command;
mod cpu;
mod delay;
mod error;
mod failure;
mod fairness;
mod flood;
mod flow;
mod interrupt;
mod limit;
mod mailbox;
mod memory;
mod message;
mod part;
mod probe;
mod process;
mod proxy;
mod queue;
mod quiet;
mod relays;
mod row;
mod scaling;

use tokio::task::JoinSet;
use umbel_proto::time::Duration;

use error::{BenchError, Step};
use row::Row;

/// As in `umbel` and `umbel-relay`, so that the figures are theirs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Relays of a network that runs in this process: twice as many as a circuit has hops.
const RELAYS: usize = 8;
/// How long a step may take before the run is abandoned.
const STEP_MAX: Duration = Duration::from_secs(60);

/// Takes each row as soon as it is known.
type Report<'a> = dyn FnMut(Row) + Send + 'a;

fn main() -> std::process::ExitCode {
    command::main()
}

/// How much is done for each figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Enough for figures to be compared.
    Full,
    /// Enough to see that everything works.
    Quick,
}

impl Extent {
    /// One of two plans.
    const fn pick<T: Copy>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// Figures that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// The ciphers alone.
    Limit,
    /// One core, without any link.
    Cpu,
    /// Circuits over real links.
    Circuit,
    /// Bulk transfers, beside the limit without any onion.
    Bulk,
    /// One relay with one thread and with two.
    Scaling,
    /// Quiet circuits beside a bulk flow.
    Fairness,
    /// Forwarding during a flood of creates.
    Flood,
    /// Messages from client to client.
    Message,
    /// Circuits, bulk and messages over links of some length.
    Delay,
    /// Many deposits and fetches at one holder.
    Mailbox,
    /// Memory of relays and clients.
    Memory,
}

impl Group {
    /// All there are, in the order in which they are measured.
    const ALL: [Self; 11] = [
        Self::Limit,
        Self::Cpu,
        Self::Circuit,
        Self::Bulk,
        Self::Scaling,
        Self::Fairness,
        Self::Flood,
        Self::Message,
        Self::Delay,
        Self::Mailbox,
        Self::Memory,
    ];

    /// Its name on the command line.
    const fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Cpu => "cpu",
            Self::Circuit => "circuit",
            Self::Bulk => "bulk",
            Self::Scaling => "scaling",
            Self::Fairness => "fairness",
            Self::Flood => "flood",
            Self::Message => "message",
            Self::Delay => "delay",
            Self::Mailbox => "mailbox",
            Self::Memory => "memory",
        }
    }

    async fn measure(
        self,
        extent: Extent,
        ports: Option<u16>,
        report: &mut Report<'_>,
    ) -> Result<(), BenchError> {
        match self {
            Self::Limit => limit::measure(extent, report),
            Self::Cpu => {
                cpu::measure(extent, report);
                Ok(())
            }
            Self::Circuit => Box::pin(circuit::measure(extent, report)).await,
            Self::Bulk => Box::pin(bulk::measure(extent, report)).await,
            Self::Scaling => Box::pin(scaling::measure(extent, report)).await,
            Self::Fairness => Box::pin(fairness::measure(extent, report)).await,
            Self::Flood => Box::pin(flood::measure(extent, report)).await,
            Self::Message => Box::pin(message::measure(extent, report)).await,
            Self::Delay => Box::pin(delay::measure(extent, ports, report)).await,
            Self::Mailbox => Box::pin(mailbox::measure(extent, report)).await,
            Self::Memory => Box::pin(memory::measure(extent, report)).await,
        }
    }
}

/// Measures these groups and reports each row as soon as it is known. With `ports`,
/// [`Group::Delay`] simulates no latency: its connections go to consecutive ports from that one,
/// which an outside tool delays.
async fn run(
    extent: Extent,
    ports: Option<u16>,
    groups: &[Group],
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    for group in groups {
        group.measure(extent, ports, report).await?;
    }
    Ok(())
}

/// Waits for all of these tasks, and returns their results.
async fn join_all<T: 'static>(
    mut tasks: JoinSet<Result<T, BenchError>>,
) -> Result<Vec<T>, BenchError> {
    let mut all = Vec::with_capacity(tasks.len());
    while let Some(one) = tasks.join_next().await {
        all.push(one.map_err(|_| BenchError::Destroyed)??);
    }
    Ok(all)
}

async fn within<T>(
    step: Step,
    work: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    tokio::time::timeout(STEP_MAX, work)
        .await
        .map_err(|_| BenchError::TooSlow(step))?
}
