//! The `umbel` command where messages are kept, read, saved, deleted and taken back: real
//! processes, a network in this one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may fail, and use real files"
)]

mod ended;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use ended::{code, stderr, stdout, umbel};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use umbel_client::local::LocalNetwork;

/// A network, a profile with the inbox `main`, and a directory for both.
struct Place {
    dir: TempDir,
    runtime: Runtime,
    network: Option<LocalNetwork>,
    address: String,
}

impl Place {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let network = runtime.block_on(LocalNetwork::start(5)).unwrap();
        let seed = network.peers()[0].to_string();
        let dir = TempDir::new().unwrap();
        let mut place = Self {
            dir,
            runtime,
            network: Some(network),
            address: String::new(),
        };
        let key = place.path("profile/key");
        assert_eq!(
            code(&place.run(&["init", "--seed", &seed, "--key-file", key.to_str().unwrap()])),
            0
        );
        let made = place.run(&["inbox", "create", "main", "--json"]);
        assert_eq!(code(&made), 0, "{made:?}");
        place.address = lines(&made)[0]["address"].as_str().unwrap().to_owned();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        umbel(self.dir.path(), words)
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn send(&self, body: &[u8]) {
        let mut child = self
            .command(&["send", &self.address, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(body).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{output:?}");
    }

    /// The messages that `list` shows.
    fn listed(&self, words: &[&str]) -> Vec<Value> {
        let output = self.run(&[&["list", "--json"], words].concat());
        assert_eq!(code(&output), 0, "{output:?}");
        lines(&output)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(network) = self.network.take() {
            self.runtime.block_on(network.stop()).unwrap();
        }
    }
}

fn lines(output: &Output) -> Vec<Value> {
    stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn id(message: &Value) -> &str {
    message["id"].as_str().unwrap()
}

const BINARY: &[u8] = &[0, 159, 146, 150, 10, 0, 255];

#[test]
fn a_message_that_was_read_is_still_there_until_it_is_deleted() {
    let place = Place::new();
    place.send(b"the first message\nsecond line");
    place.send("invi\u{200b}sible".as_bytes());
    let received = place.run(&["receive"]);
    assert_eq!(code(&received), 0, "{received:?}");
    assert!(
        stdout(&received).contains("the first message")
            && stdout(&received).contains("invi\\u{200b}sible")
    );
    assert!(!stdout(&place.run(&["receive"])).contains("the first message"));

    assert!(place.listed(&[]).is_empty());
    let all = place.listed(&["--all"]);
    assert_eq!(all.len(), 2);
    assert_eq!(
        (all[0]["first_line"].as_str(), all[0]["is_read"].as_bool()),
        (Some("the first message"), Some(true))
    );
    assert_eq!(
        place.listed(&["main", "--all", "--search", "SECOND"]).len(),
        1
    );
    assert!(place.listed(&["--all", "--search", "-dash"]).is_empty());
    assert_eq!(
        lines(&place.run(&["inbox", "list", "--json"]))[0]["address"],
        place.address.as_str()
    );
    for (words, says_all) in [
        (&["list", "--search", "nowhere"][..], true),
        (&["list", "--all", "--search", "nowhere"], false),
    ] {
        let found = place.run(words);
        assert!(stdout(&found).starts_with("Nothing found"), "{found:?}");
        assert_eq!(stdout(&found).contains("--all"), says_all, "{found:?}");
    }
    let shown = place.run(&["show", &id(&all[0])[..6]]);
    assert_eq!(
        (code(&shown), stdout(&shown)),
        (0, "the first message\nsecond line")
    );

    let deleted = place.run(&["delete", id(&all[0]), "--json"]);
    assert_eq!(
        (code(&deleted), &lines(&deleted)[0]["deleted"]),
        (0, &Value::from(1)),
        "{deleted:?}"
    );
    assert_eq!(lines(&deleted)[0]["is_overwritten"], true);
    assert_eq!(place.listed(&["--all"]).len(), 1);
    // Its record is still with the holders it was not fetched from.
    assert_eq!(code(&place.run(&["receive"])), 0);
    assert_eq!(place.listed(&["--all"]).len(), 1);
    assert_eq!(code(&place.run(&["delete", "--older", "0", "--yes"])), 0);
    assert!(place.listed(&["--all"]).is_empty());
}

#[test]
fn a_file_is_not_lost_by_reading() {
    let place = Place::new();
    place.send(BINARY);
    for _ in 0..2 {
        let received = place.run(&["receive"]);
        assert_eq!(code(&received), 0, "{received:?}");
        assert!(stdout(&received).contains("umbel show "), "{received:?}");
    }
    let unread = place.listed(&[]);
    assert_eq!(
        (unread.len(), unread[0]["is_text"].as_bool()),
        (1, Some(false))
    );
    let kept = place.run(&["delete", "--older", "0", "--yes"]);
    assert!(
        code(&kept) == 0 && stderr(&kept).contains("--unread"),
        "{kept:?}"
    );

    let file = place.path("saved");
    let save = ["show", id(&unread[0]), "--output", file.to_str().unwrap()];
    assert_eq!(code(&place.run(&save)), 0);
    assert_eq!(std::fs::read(&file).unwrap(), BINARY);
    assert!(place.listed(&[]).is_empty());
    let again = place.run(&save);
    assert!(
        code(&again) == 1 && stderr(&again).contains("--force"),
        "{again:?}"
    );
    assert_eq!(code(&place.run(&[&save[..], &["--force"]].concat())), 0);
    assert_eq!(place.run(&["show", id(&unread[0])]).stdout, BINARY);
}

#[test]
fn nothing_is_marked_read_that_could_not_be_written() {
    let place = Place::new();
    place.send(b"some text");
    place.send(BINARY);
    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for words in [&["receive"][..], &["receive", "--json"]] {
        let output = place.command(words).stdout(full()).output().unwrap();
        assert_ne!(code(&output), 0, "{words:?}");
        assert_eq!(place.listed(&[]).len(), 2, "{words:?}");
    }
    let unread = place.listed(&[]);
    for message in &unread {
        let output = place
            .command(&["show", id(message)])
            .stdout(full())
            .output()
            .unwrap();
        assert_eq!(code(&output), 73, "{output:?}");
        let nowhere = place.run(&["show", id(message), "--output", "/nowhere/file"]);
        assert_eq!(code(&nowhere), 1, "{nowhere:?}");
    }
    assert_eq!(place.listed(&[]).len(), 2);
}

#[test]
fn status_names_the_relay_that_is_reached() {
    let place = Place::new();
    let status = place.run(&["status", "--json"]);
    let line = &lines(&status)[0];
    assert_eq!(
        (code(&status), line["network"].as_str()),
        (0, Some("reached")),
        "{status:?}"
    );
    assert!(
        line["relay"].is_string() && line["since"].is_string() && line["guards"].as_u64() > Some(0),
        "{line}"
    );
}

#[test] // §2.4(8)
fn a_profile_with_other_parameters_is_warned_and_reaches_the_network() {
    let place = Place::new();
    let network = umbel_proto::network::Network::local().to_toml();
    let other = network.replace("record_life = \"14d\"", "record_life = \"13d\"");
    let file = place.path("other.toml");
    std::fs::write(&file, other).unwrap();
    let profile = place.path("other");
    let profile = profile.to_str().unwrap();
    let seed = place.network.as_ref().unwrap().peers()[0].to_string();
    let key = place.path("other.key");
    let made = place.run(&[
        "init",
        "--profile",
        profile,
        "--network",
        file.to_str().unwrap(),
        "--seed",
        &seed,
        "--key-file",
        key.to_str().unwrap(),
    ]);
    assert_eq!(code(&made), 0, "{made:?}");
    let status = place.run(&["status", "--profile", profile]);
    assert_eq!(code(&status), 0, "{status:?}");
    let warned = String::from_utf8_lossy(&status.stderr);
    let said = "a relay runs this network with other parameters";
    assert_eq!(warned.matches(said).count(), 1, "{warned}");
    let same = place.run(&["status"]);
    assert!(
        !String::from_utf8_lossy(&same.stderr).contains(said),
        "{same:?}"
    );
}

#[test]
fn saved_messages_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.send(b"some text");
    let dir = place.path("mail");
    let received = place.run(&["receive", "--output", dir.to_str().unwrap()]);
    assert_eq!(code(&received), 0, "{received:?}");
    let file = std::fs::read_dir(&dir)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));
}

#[test]
fn what_is_kept_is_shown_beside_a_follower() {
    let place = Place::new();
    let mut follower = place
        .command(&["receive", "--follow", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    place.send(b"while following");
    let mut out = follower.stdout.take().unwrap();
    let mut said = Vec::new();
    while !said.contains(&b'\n') {
        let mut chunk = [0; 4096];
        let count = out.read(&mut chunk).unwrap();
        assert_ne!(count, 0, "the follower ended");
        said.extend_from_slice(&chunk[..count]);
    }
    let all = place.listed(&["--all"]);
    assert_eq!(all.len(), 1);
    assert_eq!(place.run(&["show", id(&all[0])]).stdout, b"while following");
    assert_eq!(code(&place.run(&["delete", id(&all[0])])), 0);
    assert!(place.listed(&["--all"]).is_empty());
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn ids_that_name_no_message_are_errors_with_a_way_out() {
    let place = Place::new();
    for (words, exit) in [
        (&["show", "zz"][..], 2),
        (&["show", "0123"], 1),
        (&["delete", "0123"], 1),
        (&["delete"], 2),
        (&["delete", "--older", "30"], 2),
        (&["list", "nobody"], 1),
    ] {
        let output = place.run(&[words, &["--json"]].concat());
        assert_eq!(code(&output), exit, "{words:?}: {output:?}");
        let error: Value = serde_json::from_str(stderr(&output).lines().last().unwrap()).unwrap();
        assert!(!error["hint"].as_str().unwrap().is_empty());
    }
}

/// Where Debian's `faketime` has what shifts a process's calendar; `.ci/run` sees to it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[test] // §1.6
fn a_clock_that_is_set_ahead_makes_no_message_old_enough_to_delete() {
    if !std::path::Path::new(FAKETIME).exists() {
        return;
    }
    let place = Place::new();
    place.send(b"keep me");
    assert_eq!(code(&place.run(&["receive"])), 0);
    let ahead = place
        .command(&["delete", "--older", "30d"])
        .env("LD_PRELOAD", FAKETIME)
        .env("FAKETIME", "+400d")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .output()
        .unwrap();
    assert_eq!((code(&ahead), stdout(&ahead)), (0, "deleted 0 messages\n"));
    let warned = stderr(&ahead);
    assert!(
        warned.contains("left out: 1 message that would be old"),
        "{warned}"
    );
    assert_eq!(place.listed(&["--all"]).len(), 1);
    let now = place.run(&["delete", "--older", "0s"]);
    assert_eq!((stdout(&now), stderr(&now)), ("deleted 1 message\n", ""));
}
