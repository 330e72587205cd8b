//! What a relay holds in memory: at its start, for an idle link, for an idle circuit.
//!
//! A relay process is started for links, and another for circuits, so that nothing but a relay is measured. Where there is
//! no `umbel-relay` beside this program, a relay of the network in this process is used instead, and the figures hold the
//! other ends too.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::Peer;
use umbel_proto::time::Duration;

use super::probe::Probe;
use super::process::Process;
use super::row::{Row, Unit};
use super::{BenchError, Plan, Step, within};
use crate::local::{LocalError, LocalNetwork};

/// Circuits on one link: fewer than are admitted in one burst.
const CIRCUITS_PER_LINK: usize = 100;
/// Between two circuits: slow enough for what the relays behind admit.
const CIRCUIT_PACE: Duration = Duration::from_millis(3);
/// Until what was done is done with: buffers that are kept for a while are given back.
const SETTLE: Duration = Duration::from_millis(500);

/// The relay that is measured, and the process that it is in.
struct Subject {
    peer: Peer,
    process: Process,
    /// Killed on drop.
    child: Option<Child>,
    _dir: TempDir,
}

pub(super) async fn measure(
    plan: &Plan,
    network: &LocalNetwork,
    report: &mut (dyn FnMut(Row) + Send),
) -> Result<(), BenchError> {
    let subject = Subject::start(network).await?;
    start(&subject, report);
    links(plan, &subject, report).await?;
    subject.stop().await?;
    // Another one: what a process has freed it uses again, and so seems to need nothing.
    let subject = Subject::start(network).await?;
    circuits(plan, network, &subject, report).await?;
    subject.stop().await
}

impl Subject {
    async fn start(network: &LocalNetwork) -> Result<Self, BenchError> {
        let dir = TempDir::with_prefix("umbel-").map_err(LocalError::Dir)?;
        let peers = network.peers();
        let Some(first) = peers.first() else { return Err(BenchError::NoDescriptor) };
        let Some(program) = relay_program() else {
            return Ok(Self { peer: first.clone(), process: Process::current(), child: None, _dir: dir });
        };
        let (child, peer) = within(Step::Process, spawn(&program, &dir.path().join("relay"), first)).await?;
        let id = child.id().ok_or(BenchError::NoDescriptor)?;
        let subject = Self { peer, process: Process::with_id(id), child: Some(child), _dir: dir };
        subject.settle().await;
        Ok(subject)
    }

    /// What is added to a note where the relay is not alone in its process.
    fn caveat(&self) -> &'static str {
        if self.child.is_some() { "" } else { "; no umbel-relay beside this program: both ends, in one process" }
    }

    async fn stop(mut self) -> Result<(), BenchError> {
        match &mut self.child {
            Some(child) => Ok(child.kill().await?),
            None => Ok(()),
        }
    }

    async fn settle(&self) {
        tokio::time::sleep(SETTLE).await;
    }
}

/// The relay's program, if it lies where this one does.
fn relay_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name("umbel-relay");
    program.is_file().then_some(program)
}

async fn spawn(program: &Path, dir: &Path, seed: &Peer) -> Result<(Child, Peer), BenchError> {
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    };
    let mut init = Command::new(program);
    init.arg("init").arg("--data-dir").arg(dir);
    quiet(&mut init);
    init.output().await?;
    let mut run = Command::new(program);
    run.arg("run").arg("--data-dir").arg(dir).args(["--listen", "127.0.0.1:0", "--seed", &seed.to_string()]);
    quiet(&mut run);
    let mut child = run.spawn()?;
    let stdout = child.stdout.take().ok_or(BenchError::NoDescriptor)?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    let peer = line.trim().strip_prefix("ready ").and_then(|peer| peer.parse().ok());
    Ok((child, peer.ok_or(BenchError::NoDescriptor)?))
}

fn start(subject: &Subject, report: &mut (dyn FnMut(Row) + Send)) {
    let bytes = subject.child.as_ref().and_then(|_| subject.process.resident_bytes());
    let note = match subject.child {
        Some(_) => "resident memory of a relay process in a network of nine, soon after its start",
        None => "not measured: there is no umbel-relay beside this program",
    };
    report(Row::single("relay_start", Unit::Kibibytes, bytes.map(|bytes| bytes as f64 / 1024.0), note));
}

/// How much more is in use now, for each of so many.
fn growth_kib(before: Option<u64>, after: Option<u64>, count: usize) -> Option<f64> {
    let (before, after) = before.zip(after)?;
    Some((after as f64 - before as f64) / 1024.0 / count as f64)
}

async fn links(plan: &Plan, subject: &Subject, report: &mut (dyn FnMut(Row) + Send)) -> Result<(), BenchError> {
    let mut probes = vec![Probe::dial(&subject.peer).await?]; // the first also pays for what all links share
    subject.settle().await;
    let before = subject.process.resident_bytes();
    for _ in 0..plan.idle_links {
        probes.push(Probe::dial(&subject.peer).await?);
    }
    subject.settle().await;
    let kib = growth_kib(before, subject.process.resident_bytes(), plan.idle_links);
    let caveat = subject.caveat();
    let note = format!("resident memory for each of {} idle links of clients{caveat}", plan.idle_links);
    report(Row::single("idle_link", Unit::Kibibytes, kib, note));
    Ok(())
}

/// Circuits that pass the relay: half on the client's link, half on that to the next relay.
async fn circuits(
    plan: &Plan,
    network: &LocalNetwork,
    subject: &Subject,
    report: &mut (dyn FnMut(Row) + Send),
) -> Result<(), BenchError> {
    let targets = targets(network, subject).await?;
    let mut probes = Vec::new();
    for _ in 0..plan.idle_circuits.div_ceil(CIRCUITS_PER_LINK) {
        let mut probe = Probe::dial(&subject.peer).await?;
        for target in &targets {
            probe.build(std::slice::from_ref(target)).await?; // makes the link to that relay
        }
        probes.push(probe);
    }
    subject.settle().await;
    let before = subject.process.resident_bytes();
    let mut pace = tokio::time::interval(CIRCUIT_PACE);
    for index in 0..plan.idle_circuits {
        pace.tick().await;
        let (link, next) = (index / CIRCUITS_PER_LINK, index % targets.len());
        if let (Some(probe), Some(target)) = (probes.get_mut(link), targets.get(next)) {
            probe.build(std::slice::from_ref(target)).await?;
        }
    }
    subject.settle().await;
    let kib = growth_kib(before, subject.process.resident_bytes(), plan.idle_circuits);
    let caveat = subject.caveat();
    let note = format!("resident memory for each of {} idle circuits that pass the relay{caveat}", plan.idle_circuits);
    report(Row::single("idle_circuit", Unit::Kibibytes, kib, note));
    Ok(())
}

/// The relays that circuits go on to.
async fn targets(network: &LocalNetwork, subject: &Subject) -> Result<Vec<HopTarget>, BenchError> {
    let mut targets = Vec::new();
    for peer in network.peers().iter().filter(|peer| peer.id != subject.peer.id) {
        targets.push(Probe::dial(peer).await?.target().clone());
    }
    Ok(targets)
}
