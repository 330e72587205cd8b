//! A relay in a process of its own, and what its command says.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use tempfile::TempDir;

use super::PATIENCE;

/// A relay in a process of its own, which is ready. Whatever it logs is read.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) peer: String,
    pub(super) lines: Receiver<String>,
}

impl Process {
    /// Makes the relay, if there is none, and runs it.
    pub(super) fn start(dir: &TempDir, args: &[&str]) -> Self {
        command(&["init"], dir.path());
        Self::spawn(run(args, dir.path()))
    }

    pub(super) fn spawn(mut run: Command) -> Self {
        let mut child = run
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (read, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            log.lines()
                .map_while(Result::ok)
                .try_for_each(|line| read.send(line))
        });
        let peer = ready_peer(&mut child)
            .unwrap_or_else(|| panic!("not ready: {:?}", lines.iter().collect::<Vec<_>>()));
        Self { child, peer, lines }
    }

    /// Waits for a line of the log.
    pub(super) fn log_with(&self, text: &str) -> String {
        self.log_before(text)
            .pop()
            .expect("the line that was waited for is the last")
    }

    /// The log up to a line, with it.
    pub(super) fn log_before(&self, text: &str) -> Vec<String> {
        let mut log: Vec<String> = Vec::new();
        while !log.last().is_some_and(|line| line.contains(text)) {
            log.push(
                self.lines
                    .recv_timeout(PATIENCE)
                    .unwrap_or_else(|_| panic!("no {text:?} in {log:?}")),
            );
        }
        log
    }

    pub(super) fn stop(&mut self) -> Option<i32> {
        stop(&mut self.child)
    }

    pub(super) fn signal(&mut self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
        assert!(self.child.try_wait().unwrap().is_none(), "it runs");
    }
}

/// Whatever becomes of the test, no process stays.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that runs the relay of this directory.
pub(super) fn run(args: &[&str], dir: &Path) -> Command {
    let mut run = Command::new(env!("CARGO_BIN_EXE_umbel-relay"));
    run.arg("run").args(args).arg("--data-dir").arg(dir);
    run
}

/// Waits until a relay says that it is ready; how it is dialled.
pub(super) fn ready_peer(relay: &mut Child) -> Option<String> {
    let mut line = String::new();
    BufReader::new(relay.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    line.trim_end().strip_prefix("ready ").map(str::to_owned)
}

pub(super) fn command(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbel-relay"));
    command
        .args(args)
        .arg("--data-dir")
        .arg(dir)
        .output()
        .unwrap()
}

/// It says what is wrong on one line and what to do on the next.
pub(super) fn assert_failed(output: &Output, code: i32, with: &str) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(with), "{said}");
    let mut last = said.lines().rev();
    assert!(
        last.next().is_some_and(|line| line.starts_with("  hint: ")),
        "{said}"
    );
    assert!(
        last.next().is_some_and(|line| line.starts_with("error: ")),
        "{said}"
    );
}

/// Asks a process to stop, by SIGTERM; its exit code if it does so in time.
pub(super) fn stop(running: &mut Child) -> Option<i32> {
    let asked = Command::new("kill")
        .arg("-TERM")
        .arg(running.id().to_string())
        .status()
        .unwrap();
    assert!(asked.success());
    end_of(running)
}

/// The exit code of a process that ends by itself, if it does so in time.
pub(super) fn end_of(running: &mut Child) -> Option<i32> {
    let (waiting, waits) = std::sync::mpsc::channel::<()>();
    let id = running.id().to_string();
    let watchdog = std::thread::spawn(move || {
        if waits.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            Command::new("kill").arg("-KILL").arg(id).status().unwrap();
        }
    });
    let status = running.wait().unwrap();
    drop(waiting);
    watchdog.join().unwrap();
    status.code()
}
