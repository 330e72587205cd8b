//! `umbel demo`: a whole network, real links, real mailboxes; and nothing left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn demo(place: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbel"));
    command
        .args(["demo", "--json"])
        .args(words)
        .env("TMPDIR", place)
        .env("HOME", place)
        .stdin(Stdio::null());
    command
}

fn is_empty(place: &Path) -> bool {
    std::fs::read_dir(place).unwrap().next().is_none()
}

#[test]
fn a_network_of_one_machine_delivers_and_leaves_nothing_behind() {
    let place = TempDir::new().unwrap();
    let output = demo(place.path(), &["--relays", "7", "--messages", "5"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<Value> = str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!(
        (count("relay"), count("sent"), count("received")),
        (7, 5, 5)
    );
    assert!(count("hop") >= 4, "{lines:?}");
    let summary = lines.last().unwrap();
    assert_eq!(
        (&summary["relays"], &summary["sent"], &summary["delivered"]),
        (&7.into(), &5.into(), &5.into())
    );
    assert!(
        summary["p50_ms"].as_f64().unwrap() > 0.0
            && summary["p99_ms"].as_f64() >= summary["p50_ms"].as_f64()
    );
    assert!(is_empty(place.path()));
}

#[cfg(unix)]
#[test]
fn an_interrupted_demo_leaves_nothing_behind_either() {
    let place = TempDir::new().unwrap();
    let mut child = demo(place.path(), &["--messages", "10000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"received\"")));
    // Not SIGINT: a shell that runs the tests with `&` has them ignore that, and the demo heeds it.
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(is_empty(place.path()));
}
