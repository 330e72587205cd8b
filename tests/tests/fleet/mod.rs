//! Real processes on loopback: relays and profiles, started, killed and asked by their commands
//! only.

#![allow(dead_code, reason = "not every test that has fleets needs all of it")]

mod binaries;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use binaries::binaries;
use serde_json::Value;
use tempfile::TempDir;

/// Where Debian's `faketime` has what shifts a process's calendar.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Longer than anything that a fleet is waited for takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(170);

/// By how much a process's calendar is off, such as `-3d`; empty for not at all. Its monotonic
/// clock runs as ever.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shift(pub(crate) &'static str);

impl Shift {
    /// Whether this machine can shift a calendar; `.ci/run` sees to it.
    pub(crate) fn is_possible() -> bool {
        Path::new(FAKETIME).exists()
    }

    fn apply(self, command: &mut Command) {
        if !self.0.is_empty() {
            command
                .env("LD_PRELOAD", FAKETIME)
                .env("FAKETIME", self.0)
                .env("FAKETIME_NO_CACHE", "1");
            command
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
    }
}

/// A relay process.
pub(crate) struct Relay {
    child: Option<Child>,
    /// Where it listens.
    host: String,
    /// Its calendar, from its next start on.
    pub(crate) shift: Shift,
    /// How others name it.
    pub(crate) peer: String,
    /// Its data directory.
    pub(crate) dir: PathBuf,
    seed: Option<String>,
}

impl Relay {
    /// Its TCP port.
    pub(crate) fn port(&self) -> u16 {
        self.peer
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("a peer ends in its port")
    }

    /// Kills it at once: SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child can be waited for");
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_up(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).expect("its log")
    }

    /// What it answers its operator, who asks by `umbel-relay` with these arguments.
    pub(crate) fn asked(&self, args: &[&str]) -> Value {
        let mut ask = Command::new(binaries().join("umbel-relay"));
        ask.args(args)
            .arg("--json")
            .arg("--data-dir")
            .arg(&self.dir);
        let answer = ask.output().expect("umbel-relay runs");
        assert!(answer.status.success(), "{answer:?}");
        serde_json::from_slice(&answer.stdout).expect("JSON")
    }

    /// Asks it to stop, by SIGTERM, and waits; its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .expect("kill runs")
                .success()
        );
        let status = child.wait().expect("a stopped child can be waited for");
        if status.code().is_none() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            panic!("the relay did not stop in order: {status}\n{log}");
        }
        status.code()
    }

    /// Starts it, on the port it had if it ran before, and waits until it is ready.
    pub(crate) fn start(&mut self, more: &[&str]) {
        let port = if self.peer.is_empty() { 0 } else { self.port() };
        let mut command = Command::new(binaries().join("umbel-relay"));
        command.arg("run").arg("--data-dir").arg(&self.dir);
        if !more.contains(&"--listen") {
            command.args(["--listen", &format!("{}:{port}", self.host)]);
        }
        if let Some(seed) = &self.seed {
            command.args(["--seed", seed]);
        }
        self.shift.apply(&mut command);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .expect("a log");
        let mut child = command
            .args(more)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a relay can be started");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output is piped");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("a relay says that it is ready");
        let peer = line
            .trim()
            .strip_prefix("ready ")
            .unwrap_or_else(|| panic!("not ready: {line:?}"));
        self.peer = peer.to_owned();
        self.child = Some(child);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `umbel-relay` to its end.
pub(crate) fn umbel_relay(args: &[&str], data_dir: &Path) -> Output {
    let mut command = Command::new(binaries().join("umbel-relay"));
    command.args(args).arg("--data-dir").arg(data_dir);
    command.output().expect("umbel-relay runs")
}

/// Relays and profiles in one temporary folder, gone with it.
pub(crate) struct Fleet {
    /// All relays ever started.
    pub(crate) relays: Vec<Relay>,
    folder: TempDir,
    /// The network's file; `local` without one.
    network: Option<PathBuf>,
    /// Where relays of `local` listen: no other fleet does, so a port that one of them gives back
    /// stays free.
    pub(crate) host: String,
    /// The calendar of relays and profiles that are made from now on.
    pub(crate) shift: Shift,
}

impl Fleet {
    /// `count` relays of the local network; each has the one before it as its seed.
    pub(crate) fn new(count: usize) -> Self {
        Self::start(count, None, Shift::default())
    }

    /// `count` relays of a network with these parameters, each on an address group of its own.
    pub(crate) fn of_network(count: usize, params: &str, shift: Shift) -> Self {
        Self::start(count, Some(params), shift)
    }

    /// `count` relays of the local network, which listen at this host.
    pub(crate) fn at_host(host: &str, count: usize) -> Self {
        let mut fleet = Self::new(0);
        fleet.host = host.to_owned();
        for _ in 0..count {
            fleet.add_relay(&[]);
        }
        fleet
    }

    fn start(count: usize, params: Option<&str>, shift: Shift) -> Self {
        static FLEETS: AtomicU8 = AtomicU8::new(1);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let host = format!("127.0.{}.1", FLEETS.fetch_add(1, Ordering::Relaxed));
        let network = params.map(|params| {
            let path = folder.path().join("network.toml");
            let text = format!(
                "id = \"{}\"\nname = \"test\"\n[params]\n{params}",
                "5a".repeat(32)
            );
            std::fs::write(&path, text).expect("a file");
            path
        });
        let mut fleet = Self {
            relays: Vec::new(),
            folder,
            network,
            host,
            shift,
        };
        for _ in 0..count {
            fleet.add_relay(&[]);
        }
        fleet
    }

    /// One more relay; the newest that is up is its seed.
    pub(crate) fn add_relay(&mut self, more: &[&str]) -> &mut Relay {
        let number = self.relays.len();
        let dir = self.folder.path().join(format!("relay{number}"));
        let mut init = Command::new(binaries().join("umbel-relay"));
        init.arg("init").arg("--data-dir").arg(&dir);
        let host = match &self.network {
            Some(network) => {
                init.arg("--network").arg(network);
                format!("127.{}.0.1", number + 1)
            }
            None => self.host.clone(),
        };
        let made = init.output().expect("umbel-relay runs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let seed = self
            .relays
            .iter_mut()
            .rev()
            .find(|relay| relay.child.is_some())
            .map(|relay| relay.peer.clone());
        let mut relay = Relay {
            child: None,
            host,
            shift: self.shift,
            peer: String::new(),
            dir,
            seed,
        };
        relay.start(more);
        self.relays.push(relay);
        self.relays.last_mut().expect("just added")
    }

    /// All relays of now found a network, as docs/operating.md says: the file is one of `network new`
    /// that names them, except that private addresses are allowed.
    pub(crate) fn found_network(&mut self) {
        self.found_network_with(&[]);
    }

    /// The same, with these texts of the file in place of others.
    pub(crate) fn found_network_with(&mut self, changes: &[[&str; 2]]) {
        let file = self.path("founders.toml");
        let mut new = Command::new(binaries().join("umbel-relay"));
        new.args(["network", "new", "--name", "test", "--out"]);
        new.arg(&file).arg("--seed");
        new.args(self.relays.iter().map(|relay| &relay.peer));
        let made = new.output().expect("umbel-relay runs");
        assert!(made.status.success(), "{made:?}");
        let text = std::fs::read_to_string(&file).expect("the file");
        let mut allows = text.replace("_addresses = false", "_addresses = true");
        assert_ne!(allows, text);
        for [from, to] in changes {
            assert!(allows.contains(from), "{from} in {allows}");
            allows = allows.replace(from, to);
        }
        std::fs::write(&file, &allows).expect("the file");
        for relay in &mut self.relays {
            assert_eq!(relay.stop(), Some(0));
            std::fs::write(relay.dir.join("network.toml"), &allows).expect("its copy");
            // Its port is known by now; for the rest, a founder's relay has not run before.
            std::fs::remove_file(relay.dir.join("relay.db")).expect("its store");
        }
        self.relays.iter_mut().for_each(|relay| relay.start(&[]));
        self.network = Some(file);
    }

    /// Waits until somebody who asks is told of so many relays; the profiles that ask have this name.
    /// A newcomer learns of all relays from its seeds: each relay passes news on within seconds
    /// (§8.3(10)). Each was the seed of the next, so news may have many relays to pass.
    pub(crate) fn settle(&self, relays: usize, name: &str, patience: Duration) {
        let gives_up_at = Instant::now() + patience;
        for attempt in 0.. {
            let probe = self.profile(&format!("{name}{attempt}"));
            let status = probe.ok(&["status"]);
            if status.first().and_then(|status| status["relays"].as_u64()) == Some(relays as u64) {
                return;
            }
            assert!(
                Instant::now() < gives_up_at,
                "every relay is known to all: {status:?}"
            );
        }
    }

    /// A folder of the fleet's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new profile with two seeds.
    pub(crate) fn profile(&self, name: &str) -> Profile {
        let seeds: Vec<&str> = self
            .relays
            .iter()
            .rev()
            .take(2)
            .map(|relay| relay.peer.as_str())
            .collect();
        self.profile_with_seeds(name, &seeds)
    }

    /// What `umbel init --invite` said, and the profile that it made if it did.
    pub(crate) fn invited_profile(&self, name: &str, invite: &str) -> (Profile, Output) {
        let profile = Profile {
            dir: self.path(name),
            key: self.path(&format!("{name}.key")),
            shift: self.shift,
        };
        let mut init = profile.umbel(&["init", "--invite", invite]);
        init.arg("--key-file").arg(&profile.key);
        let made = init.output().expect("umbel runs");
        (profile, made)
    }

    /// A new profile with these seeds.
    pub(crate) fn profile_with_seeds(&self, name: &str, seeds: &[&str]) -> Profile {
        let profile = Profile {
            dir: self.path(name),
            key: self.path(&format!("{name}.key")),
            shift: self.shift,
        };
        let mut init = profile.umbel(&["init"]);
        init.arg("--key-file").arg(&profile.key);
        if let Some(network) = &self.network {
            init.arg("--network").arg(network);
        }
        for seed in seeds {
            init.args(["--seed", seed]);
        }
        let made = init.output().expect("umbel runs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        profile
    }
}

/// A client's profile.
pub(crate) struct Profile {
    /// Where it is.
    pub(crate) dir: PathBuf,
    key: PathBuf,
    /// The calendar of the commands that are run from now on.
    pub(crate) shift: Shift,
}

impl Profile {
    /// `umbel` with these arguments, in this profile, with no terminal.
    pub(crate) fn umbel(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binaries().join("umbel"));
        command
            .arg("--profile")
            .arg(&self.dir)
            .arg("--json")
            .args(args)
            .stdin(Stdio::null());
        command
            .env_remove("UMBEL_PROFILE")
            .env_remove("UMBEL_PASSPHRASE_FILE");
        self.shift.apply(&mut command);
        command
    }

    /// Runs `umbel` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.umbel(args).output().expect("umbel runs")
    }

    /// Runs `umbel`, which must succeed; its output, an object a line.
    pub(crate) fn ok(&self, args: &[&str]) -> Vec<Value> {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "umbel {args:?}: {:?} {errors}",
            output.status.code()
        );
        objects(&output.stdout)
    }

    /// Makes an inbox; its address.
    pub(crate) fn create_inbox(&self, name: &str) -> String {
        self.ok(&["inbox", "create", name]);
        let shown = self.ok(&["inbox", "show", name]);
        let address = shown
            .first()
            .and_then(|shown| shown["address"].as_str())
            .expect("an inbox has an address");
        assert!(address.starts_with("umbel1"));
        address.to_owned()
    }

    /// Sends bytes from standard input; the exit code.
    pub(crate) fn send(&self, address: &str, body: &[u8]) -> Option<i32> {
        self.send_with(address, body, &[]).status.code()
    }

    /// Sends bytes, which a holder then has.
    pub(crate) fn must_send(&self, address: &str, body: &[u8]) {
        let sent = self.send_with(address, body, &[]);
        let errors = String::from_utf8_lossy(&sent.stderr);
        assert_eq!(sent.status.code(), Some(0), "{errors}");
    }

    /// Sends bytes from standard input.
    pub(crate) fn send_with(&self, address: &str, body: &[u8], more: &[&str]) -> Output {
        let mut send = self.umbel(&["send", address, "-"]);
        send.args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = send.spawn().expect("umbel runs");
        child
            .stdin
            .take()
            .expect("its input is piped")
            .write_all(body)
            .expect("umbel reads its input");
        child.wait_with_output().expect("umbel ends")
    }

    /// Receives until there are `count` messages or the time is over; their bodies.
    pub(crate) fn receive(&self, count: usize, timeout: Duration) -> Vec<Vec<u8>> {
        let (count, seconds) = (count.to_string(), timeout.as_secs().to_string());
        let output = self.run(&["receive", "--count", &count, "--timeout", &seconds]);
        bodies(&output.stdout)
    }

    /// Receives as messages come, until there are `count` or the time is over; their bodies.
    pub(crate) fn follow(&self, count: usize, timeout: Duration) -> Vec<Vec<u8>> {
        let (count, seconds) = (count.to_string(), timeout.as_secs().to_string());
        let output = self.run(&[
            "receive",
            "--follow",
            "--count",
            &count,
            "--timeout",
            &seconds,
        ]);
        bodies(&output.stdout)
    }

    /// Receives what there is; the bodies.
    pub(crate) fn receive_all(&self) -> Vec<Vec<u8>> {
        bodies(&self.run(&["receive"]).stdout)
    }

    /// The `outbox` of `umbel status`: how many messages are in it.
    pub(crate) fn outbox_len(&self) -> usize {
        let status = self.ok(&["status"]);
        let outbox = &status.first().expect("a status")["outbox"];
        outbox
            .as_array()
            .map(Vec::len)
            .or_else(|| outbox.as_u64().map(|len| len as usize))
            .expect("an outbox")
    }
}

/// The JSON objects in a command's output, one a line.
pub(crate) fn objects(output: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(output);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}

pub(crate) fn bodies(output: &[u8]) -> Vec<Vec<u8>> {
    let decode = |object: &Value| {
        let text = object["body_b64"].as_str().expect("a message has a body");
        let body = data_encoding::BASE64
            .decode(text.as_bytes())
            .expect("base64");
        assert_eq!(object["len"].as_u64(), Some(body.len() as u64));
        body
    };
    objects(output)
        .iter()
        .filter(|object| object.get("body_b64").is_some())
        .map(decode)
        .collect()
}

/// Asks the relay until its answer is as wanted.
pub(crate) fn answer(
    relay: &Relay,
    question: &[&str],
    is_wanted: impl Fn(&Value) -> bool,
) -> Value {
    let gives_up_at = Instant::now() + PATIENCE;
    loop {
        let answer = relay.asked(question);
        if is_wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < gives_up_at, "{answer:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
