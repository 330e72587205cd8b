//! The control socket of a relay in a process of its own, and the commands that ask on it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;

use super::processes::{Process, assert_failed, command, run};
use super::sockets::folder;

/// Exit code: no relay runs in the data directory.
const NOT_RUNNING: i32 = 4;

fn status(dir: &Path) -> Value {
    let output = command(&["status", "--json"], dir);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_relay_that_does_not_run_is_told_by_an_exit_code_of_its_own() {
    let dir = folder();
    let nothing = dir.path().join("nothing");
    for question in [&["status"][..], &["status", "--json"]] {
        assert_failed(&command(question, &nothing), NOT_RUNNING, "holds no relay");
    }
    let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    assert_eq!(relay.stop(), Some(0));
    assert!(
        !dir.path().join("control.sock").exists(),
        "it goes with the relay"
    );
    let id = relay.peer.split('@').next().unwrap();
    for question in [&["status"][..], &["why", id]] {
        let output = command(question, dir.path());
        assert_failed(&output, NOT_RUNNING, "no relay runs in");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("umbel-relay run --data-dir"), "{said}");
    }
    assert_failed(&command(&["why", "x"], dir.path()), 2, "52 characters");
}

#[test]
fn a_running_relay_says_how_it_does_in_a_sentence_and_in_json() {
    let dir = folder();
    let relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    let file = fs::metadata(dir.path().join("control.sock")).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let (id, host_port) = relay.peer.split_once('@').unwrap();
    let status = status(dir.path());
    for key in [
        "network",
        "version",
        "uptime_s",
        "reachable",
        "receipts",
        "selectable",
        "relays",
        "links",
        "circuits",
        "handshakes",
        "memory",
        "queues",
        "peers_newer",
        "clock_off_s",
    ] {
        assert!(status.get(key).is_some(), "{key} in {status}");
    }
    assert_eq!(status["relay"], id);
    assert_eq!(
        (&status["listening"], &status["advertised"][0]),
        (&host_port.into(), &host_port.into())
    );
    assert_eq!(status["selectable"]["is"], false);
    let why = status["selectable"]["why"].as_str().unwrap();
    assert!(
        why.contains("it has no seeds. Name a relay in its `seeds`"),
        "{why}"
    );
    let output = command(&["status"], dir.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("not in use: this relay knows no other relay"),
        "{text}"
    );
    let output = command(&["why", &relay.peer], dir.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("this is the relay that you ask"), "{text}");
    let output = command(&["why", &"a".repeat(52), "--json"], dir.path());
    let other: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&other["known"], &other["selectable"]["is"]),
        (&false.into(), &false.into())
    );
}

#[test]
fn a_killed_relays_socket_makes_way_and_a_live_ones_does_not() {
    let dir = folder();
    let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    relay.child.kill().unwrap();
    relay.child.wait().unwrap();
    assert!(dir.path().join("control.sock").exists());
    assert_failed(
        &command(&["status"], dir.path()),
        NOT_RUNNING,
        "no relay runs in",
    );
    let relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    let second = run(&["--listen", "127.0.0.1:0"], dir.path())
        .output()
        .unwrap();
    assert_failed(&second, 1, "another process runs the relay");
    let id = relay.peer.split('@').next().unwrap();
    assert_eq!(status(dir.path())["relay"], id);
}

#[test]
fn a_relay_in_a_deep_directory_is_asked_as_any_other() {
    let dir = folder();
    let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
    command(&["init"], &deep);
    let relay = Process::spawn(run(&["--listen", "127.0.0.1:0"], &deep));
    let id = relay.peer.split('@').next().unwrap();
    assert_eq!(status(&deep)["relay"], id);
}

#[test]
fn a_relay_runs_without_its_socket_and_says_why_it_has_none() {
    let dir = folder();
    command(&["init"], dir.path());
    fs::write(dir.path().join("control.sock"), "precious").unwrap();
    let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    let told = relay.log_with("can't make the control socket");
    assert!(
        told.contains("WARN") && told.contains("is no socket: move it away"),
        "{told}"
    );
    assert_failed(
        &command(&["status"], dir.path()),
        NOT_RUNNING,
        "no relay runs in",
    );
    assert_eq!(relay.stop(), Some(0));
    let kept = fs::read(dir.path().join("control.sock")).unwrap();
    assert_eq!(kept, b"precious");
}
