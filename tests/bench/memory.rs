//! Memory of a relay at its start, for an idle link and for an idle circuit, and of a client that
//! is ready.
//!
//! Each figure has a process of its own: a process reuses the memory that it has freed, so a later
//! need would seem to cost nothing.

use tempfile::TempDir;
use tokio::task::JoinSet;
use umbel_client::local::LocalError;
use umbel_proto::handshake::HopTarget;
use umbel_proto::limits::HOPS_MAX;
use umbel_proto::time::Duration;

use super::probe::Probe;
use super::process::Process;
use super::relays::{Admission, Relays, relay_program, spawn_until_ready};
use super::row::{Goal, Row, Unit};
use super::{BenchError, Extent, Report, Step, join_all, part, within};

/// Until buffers that are kept for a while are given back.
const SETTLE: Duration = Duration::from_millis(500);
/// Links of clients over which idle circuits are made at once, one for each core.
const BUILDERS: usize = 2;
/// Circuits that one such link begins at once.
const TOGETHER: usize = 50;
/// Threads of a relay that is measured.
const THREADS: usize = 2;

/// How much is done.
#[derive(Clone, Copy)]
struct Plan {
    /// Links that are held open.
    idle_links: usize,
    /// Circuits that are held open.
    idle_circuits: usize,
}

impl Plan {
    const FULL: Self = Self {
        idle_links: 200,
        idle_circuits: 50_000,
    };
    const QUICK: Self = Self {
        idle_links: 20,
        idle_circuits: 200,
    };
}

pub(super) async fn measure(extent: Extent, report: &mut Report<'_>) -> Result<(), BenchError> {
    let plan = extent.pick(Plan::FULL, Plan::QUICK);
    let relays = Relays::start(&[THREADS; HOPS_MAX], Admission::Open).await?;
    start(&relays, report).await?;
    links(&plan, &relays, report).await?;
    client(&relays, report).await?;
    relays.stop().await?;
    let relays = Relays::start(&[THREADS; HOPS_MAX], Admission::Open).await?;
    circuits(&plan, &relays, report).await?;
    relays.stop().await
}

async fn settled_bytes(process: &Process) -> Option<u64> {
    tokio::time::sleep(SETTLE).await;
    process.resident_bytes()
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

/// Growth from `before` to `after`, for each of `count`.
fn growth_kib(before: Option<u64>, after: Option<u64>, count: usize) -> Option<f64> {
    let (before, after) = before.zip(after)?;
    Some((kib(after) - kib(before)) / count as f64)
}

async fn start(relays: &Relays, report: &mut Report<'_>) -> Result<(), BenchError> {
    let (relay, _) = relays.path()?;
    let bytes = settled_bytes(&relay.process).await;
    let caveat = match relay_program() {
        Some(_) => "",
        None => "; there is no umbel-relay beside this program: the relay that is inside it",
    };
    let own = relay.process.of_its_own();
    let note = format!(
        "resident memory of a relay process in a network of four, soon after its start{own}{caveat}"
    );
    report(
        Row::single("relay_start", Unit::Kibibytes, bytes.map(kib), note)
            .with_goal(Goal::AtMost(20.0 * 1024.0)),
    );
    Ok(())
}

async fn links(plan: &Plan, relays: &Relays, report: &mut Report<'_>) -> Result<(), BenchError> {
    let (relay, _) = relays.path()?;
    // The first also pays for what all links share.
    let mut probes = vec![Probe::dial(&relay.peer).await?];
    let before = settled_bytes(&relay.process).await;
    for _ in 0..plan.idle_links {
        probes.push(Probe::dial(&relay.peer).await?);
    }
    let value = growth_kib(before, settled_bytes(&relay.process).await, plan.idle_links);
    let note = format!(
        "resident memory of a relay for each of {} idle links of clients",
        plan.idle_links
    );
    report(Row::single("idle_link", Unit::Kibibytes, value, note));
    Ok(())
}

async fn client(relays: &Relays, report: &mut Report<'_>) -> Result<(), BenchError> {
    let dir = TempDir::with_prefix("umbel-").map_err(LocalError::Dir)?;
    let mut command = part::command("client")?;
    command.arg("--dir").arg(dir.path());
    for relay in relays.each() {
        command.arg("--seed").arg(relay.peer.to_string());
    }
    let (mut child, _) = within(Step::Process, spawn_until_ready(command)).await?;
    let process = Process::with_id(child.id().ok_or(BenchError::NoDescriptor)?);
    let bytes = settled_bytes(&process).await;
    let own = process.of_its_own();
    child.kill().await?;
    let note = format!(
        "resident memory of a client process that is subscribed to an inbox of its own, circuits standing{own}"
    );
    report(
        Row::single("client_ready", Unit::Kibibytes, bytes.map(kib), note)
            .with_goal(Goal::AtMost(14.0 * 1024.0)),
    );
    Ok(())
}

/// Circuits that pass the relay: half on a client's link, half on that to the next relay.
async fn circuits(plan: &Plan, relays: &Relays, report: &mut Report<'_>) -> Result<(), BenchError> {
    let (relay, targets) = relays.path()?;
    let mut probes = Vec::new();
    for _ in 0..BUILDERS {
        let mut probe = Probe::dial(&relay.peer).await?;
        for target in &targets {
            // Both links have carried a circuit before.
            probe.build(std::slice::from_ref(target)).await?;
        }
        probes.push(probe);
    }
    let before = settled_bytes(&relay.process).await;
    let mut building = JoinSet::new();
    for probe in probes {
        building.spawn(build_idle(
            probe,
            plan.idle_circuits / BUILDERS,
            targets.clone(),
        ));
    }
    let _held = join_all(building).await?;
    let value = growth_kib(
        before,
        settled_bytes(&relay.process).await,
        plan.idle_circuits,
    );
    let note = format!(
        "resident memory of a relay for each of {} idle circuits that pass it",
        plan.idle_circuits
    );
    report(Row::single("idle_circuit", Unit::Kibibytes, value, note).with_goal(Goal::AtMost(2.0)));
    Ok(())
}

/// Builds this many circuits of two hops, to each of these relays in turn. They last as long as
/// the link.
async fn build_idle(
    mut probe: Probe,
    count: usize,
    targets: Vec<HopTarget>,
) -> Result<Probe, BenchError> {
    let mut next = targets.iter().cycle();
    let mut left = count;
    while left > 0 {
        let some = left.min(TOGETHER);
        let target = next.next().ok_or(BenchError::NoDescriptor)?;
        probe
            .build_together(some, std::slice::from_ref(target))
            .await?;
        probe.forget_all();
        left -= some;
    }
    Ok(probe)
}
