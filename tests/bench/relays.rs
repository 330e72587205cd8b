//! Relays that are processes, so that the kernel accounts for each of them.
//!
//! They run the `umbel-relay` that lies beside this program. Where there is none, this program runs
//! them itself, each in a process of its own; see [`super::part`].

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use umbel_client::local::LocalError;
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::Peer;
use umbel_proto::network::{Network, Params};
use umbel_proto::time::Duration;

use super::probe::Probe;
use super::process::Process;
use super::{BenchError, Step, part, within};

/// Between two tries to go from one relay to another.
const GATHERING_PAUSE: Duration = Duration::from_millis(50);

/// How much relays admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// As many handshakes and queues as in the built-in local network.
    Local,
    /// As many as come: for what admission would keep from being measured.
    Open,
}

/// Relays that know each other, and have links to each other.
pub(super) struct Relays {
    relays: Vec<RelayProcess>,
    _dir: TempDir,
}

/// A relay in a process of its own.
pub(super) struct RelayProcess {
    /// How it is dialled.
    pub(super) peer: Peer,
    /// Names it as a circuit's hop.
    pub(super) target: HopTarget,
    /// Its process, whose cost is read.
    pub(super) process: Process,
    data_dir: PathBuf,
    /// Killed on drop.
    child: Child,
}

impl Relays {
    /// Starts relays with these numbers of threads.
    pub(super) async fn start(threads: &[usize], admission: Admission) -> Result<Self, BenchError> {
        let dir = TempDir::with_prefix("umbel-").map_err(LocalError::Dir)?;
        let mut relays: Vec<RelayProcess> = Vec::with_capacity(threads.len());
        for (index, threads) in threads.iter().enumerate() {
            let seeds: Vec<String> = relays.iter().map(|relay| relay.peer.to_string()).collect();
            let data_dir = dir.path().join(format!("relay-{index}"));
            let config = format!("threads = {threads}\n");
            umbel_relay::init(&data_dir, &network(admission), Some(&config))
                .map_err(LocalError::Init)?;
            relays.push(within(Step::Process, RelayProcess::start(&data_dir, &seeds)).await?);
        }
        within(Step::Gathering, gather(&relays)).await?;
        Ok(Self { relays, _dir: dir })
    }

    /// The relays, in the order they were started.
    pub(super) fn each(&self) -> &[RelayProcess] {
        &self.relays
    }

    /// The relay that was started first, and how to go on from it through all others.
    pub(super) fn path(&self) -> Result<(&RelayProcess, Vec<HopTarget>), BenchError> {
        let (guard, onward) = self.relays.split_first().ok_or(BenchError::NoDescriptor)?;
        Ok((
            guard,
            onward.iter().map(|relay| relay.target.clone()).collect(),
        ))
    }

    /// Kills the relay that was started first, as a power cut would as far as a process can tell,
    /// and starts it again.
    pub(super) async fn restart_first(&mut self) -> Result<(), BenchError> {
        let first = self.relays.first_mut().ok_or(BenchError::NoDescriptor)?;
        first.child.kill().await?;
        *first = within(Step::Process, RelayProcess::start(&first.data_dir, &[])).await?;
        Ok(())
    }

    /// Their processes, in the same order.
    pub(super) fn processes(&self) -> impl Iterator<Item = Process> {
        self.relays.iter().map(|relay| relay.process.clone())
    }

    /// Ends them all.
    pub(super) async fn stop(mut self) -> Result<(), BenchError> {
        for relay in &mut self.relays {
            relay.child.kill().await?;
        }
        Ok(())
    }
}

impl RelayProcess {
    async fn start(data_dir: &Path, seeds: &[String]) -> Result<Self, BenchError> {
        let mut command = relay_command()?;
        command
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--listen", "127.0.0.1:0"]);
        for seed in seeds {
            command.arg("--seed").arg(seed);
        }
        let (child, word) = spawn_until_ready(command).await?;
        let peer: Peer = word.parse().map_err(|_| BenchError::NoDescriptor)?;
        let process = Process::with_id(child.id().ok_or(BenchError::NoDescriptor)?);
        let target = Probe::dial(&peer).await?.target().clone();
        Ok(Self {
            peer,
            target,
            process,
            data_dir: data_dir.to_owned(),
            child,
        })
    }
}

/// Starts a process that says `ready` and one word more once it is; returns that word.
pub(super) async fn spawn_until_ready(mut command: Command) -> Result<(Child, String), BenchError> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or(BenchError::NoDescriptor)?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    let word = line
        .trim()
        .strip_prefix("ready ")
        .ok_or(BenchError::NoDescriptor)?;
    Ok((child, word.to_owned()))
}

/// The relay's program, if it lies beside this one.
pub(super) fn relay_program() -> Option<PathBuf> {
    part::beside("umbel-relay")
}

fn relay_command() -> io::Result<Command> {
    if let Some(program) = relay_program() {
        let mut command = Command::new(program);
        command.arg("run");
        return Ok(command);
    }
    part::command("relay")
}

fn network(admission: Admission) -> Network {
    let local = Network::local();
    match admission {
        Admission::Local => local,
        Admission::Open => {
            let creates = Params {
                creates_per_second: 10_000,
                creates_burst: 100_000,
                ..local.params
            };
            Network {
                params: Params {
                    queues_max: 1_000_000,
                    ..creates
                },
                ..local
            }
        }
    }
}

/// Waits until each relay can be reached through each other one.
async fn gather(relays: &[RelayProcess]) -> Result<(), BenchError> {
    for from in relays {
        let mut probe = Probe::dial(&from.peer).await?;
        for to in relays.iter().filter(|to| to.peer.id != from.peer.id) {
            while let Err(error) = probe.build(std::slice::from_ref(&to.target)).await {
                if !matches!(error, BenchError::ExtendRefused) {
                    return Err(error);
                }
                tokio::time::sleep(GATHERING_PAUSE).await;
            }
        }
    }
    Ok(())
}
