//! A running relay as its operator sees it: reloads, and failures around it.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::ids::{Peer, RelayId};

use super::PATIENCE;
use super::processes::{Process, assert_failed, command, end_of, ready_peer, run, stop};
use super::sockets::{folder, link, own_listen};

#[test]
fn hangup_reloads_and_a_wrong_file_changes_nothing() {
    let dir = folder();
    let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    relay.log_with("the relay runs");
    let file = dir.path().join("umbel-relay.toml");
    fs::write(
        &file,
        "links_max = 5\nthreads = 63\nlog = \"info,umbel_relay=debug\"",
    )
    .unwrap();
    relay.signal("HUP");
    let told = relay.log_with("take effect only after a restart");
    assert!(
        told.contains("threads") && !told.contains("links_max"),
        "{told}"
    );
    relay.log_with("is in force");
    fs::write(&file, "listen = \"127.0.0.1:7\"").unwrap();
    relay.signal("HUP");
    let told = relay.log_with("a flag of the running relay overrides them");
    assert!(
        told.contains("WARN") && told.contains("keys=\"listen\""),
        "{told}"
    );
    fs::write(&file, "links_max = many").unwrap();
    relay.signal("HUP");
    let told = relay.log_with("ERROR");
    assert!(
        told.contains("line 1") && told.contains("keeps the previous one"),
        "{told}"
    );
    fs::write(&file, "log = \"a=b=c\"").unwrap();
    relay.signal("HUP");
    assert!(relay.log_with("ERROR").contains("log filter"));
    assert_eq!(relay.stop(), Some(0));
}

#[test]
fn a_name_that_is_not_found_does_not_end_a_relay() {
    let dir = folder();
    for others in [&["127.0.0.1:2"][..], &[]] {
        let words = [
            "--listen",
            "127.0.0.1:0",
            "--advertise",
            "nowhere.invalid:1",
        ];
        let mut relay = Process::start(&dir, &[&words[..], others].concat());
        assert!(relay.peer.ends_with("@nowhere.invalid:1"), "{}", relay.peer);
        assert!(relay.log_with("WARN").contains("nowhere.invalid:1"));
        relay.log_with("the relay runs");
        assert_eq!(relay.stop(), Some(0));
    }
}

#[test]
fn a_lost_store_is_reported_and_a_new_relay_has_none_to_lose() {
    let dir = folder();
    let is_gone = |line: &str| line.contains("the store of a relay that ran before is gone");
    // Killed at its first start, it left a file without bytes that never held mail.
    fs::write(dir.path().join("relay.db"), "").unwrap();
    let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    assert!(
        !relay
            .log_before("the relay runs")
            .iter()
            .any(|line| is_gone(line))
    );
    assert_eq!(relay.stop(), Some(0));
    let store = dir.path().join("relay.db");
    for how in ["empty", "missing"] {
        for file in ["relay.db-wal", "relay.db-shm"] {
            let _ = fs::remove_file(dir.path().join(file));
        }
        if how == "empty" {
            fs::write(&store, "").unwrap();
        } else {
            fs::remove_file(&store).unwrap();
        }
        let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
        let log = relay.log_before("the relay runs");
        let said = log.iter().find(|line| is_gone(line)).expect(how);
        assert!(said.contains("WARN") && said.contains(how), "{said}");
        assert_eq!(relay.stop(), Some(0));
    }
    fs::write(
        &store,
        "not a store, but longer than a header of one, which has a hundred bytes: ".repeat(9),
    )
    .unwrap();
    assert_failed(
        &command(&["run", "--listen", "127.0.0.1:0"], dir.path()),
        1,
        "is not the store of an Umbel relay",
    );
}

#[test]
fn at_the_limit_of_open_files_it_warns_once_and_recovers() {
    let dir = folder();
    assert!(command(&["init"], dir.path()).status.success());
    let mut run = Command::new("sh");
    run.args([
        "-c",
        "ulimit -n 24; exec \"$0\" run --listen 127.0.0.1:0 --data-dir \"$1\"",
    ]);
    run.arg(env!("CARGO_BIN_EXE_umbel-relay")).arg(dir.path());
    let mut relay = Process::spawn(run);
    let peer: Peer = relay.peer.parse().unwrap();
    let before = relay.log_before("the relay runs");
    assert_eq!(
        before
            .iter()
            .filter(|line| line.contains("limit=24 links_max=12"))
            .count(),
        1,
        "{before:?}"
    );
    let held: Vec<_> = (0..40)
        .filter_map(|_| std::net::TcpStream::connect(&peer.host_port).ok())
        .collect();
    relay.log_with("can't accept connections: raise the limit of open files");
    drop(held);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        timeout(PATIENCE, link(&peer))
            .await
            .expect("it serves again");
    });
    assert_eq!(relay.stop(), Some(0));
    let log: Vec<String> = relay.lines.iter().collect();
    assert!(
        !log.iter()
            .any(|line| line.contains("can't accept connections")),
        "{log:?}"
    );
}

#[test]
fn an_address_where_it_does_not_answer_is_an_error() {
    let (dir, other_dir) = (folder(), folder());
    let mut other = Process::start(&other_dir, &["--listen", "127.0.0.1:0"]);
    let taken = other.peer.split_once('@').unwrap().1.to_owned();
    let free = std::net::TcpListener::bind(own_listen())
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let mut relay = Process::start(
        &dir,
        &["--listen", "127.0.0.1:0", "--advertise", &free, &taken],
    );
    let said = [relay.log_with("ERROR"), relay.log_with("ERROR")].concat();
    assert!(
        said.contains(&free) && said.contains("nobody answers"),
        "{said}"
    );
    assert!(
        said.contains(&taken) && said.contains("another relay answers"),
        "{said}"
    );
    assert_eq!(relay.stop(), Some(0));
    let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    relay.log_with("the relay runs");
    assert_eq!((relay.stop(), other.stop()), (Some(0), Some(0)));
    assert!(
        relay
            .lines
            .iter()
            .chain(other.lines.iter())
            .all(|line| !line.contains("ERROR") && !line.contains("WARN"))
    );
}

#[test]
fn two_relays_with_one_identity_are_an_error() {
    let (dir, copy) = (folder(), folder());
    let mut first = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    for file in ["identity", "network.toml"] {
        fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let address = first.peer.split_once('@').unwrap().1.to_owned();
    let mut second = Process::start(&copy, &["--listen", "127.0.0.1:0", "--advertise", &address]);
    assert!(
        second
            .log_with("ERROR")
            .contains("another process runs with this relay's identity")
    );
    assert_eq!((second.stop(), first.stop()), (Some(0), Some(0)));
}

/// Neither knows the other: one's descriptor comes back to the other through the network. Which of
/// them notices first depends on the second in which they started.
#[test]
fn two_relays_with_one_identity_hear_of_each_other_through_the_network() {
    let (dir, copy, seed_dir) = (folder(), folder(), folder());
    let mut seed = Process::start(&seed_dir, &["--listen", "127.0.0.1:0"]);
    let peer = seed.peer.clone();
    let mut first = Process::start(&dir, &["--listen", "127.0.0.1:0", "--seed", &peer]);
    for file in ["identity", "network.toml"] {
        fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let mut second = Process::start(&copy, &["--listen", "127.0.0.1:0", "--seed", &peer]);
    let step = Duration::from_millis(100);
    let logs = || {
        first
            .lines
            .recv_timeout(step)
            .into_iter()
            .chain(second.lines.try_iter())
            .collect::<Vec<_>>()
    };
    let is_said = |line: &String| {
        line.contains("ERROR") && line.contains("another process runs with this relay's identity")
    };
    let polls = 10 * PATIENCE.as_secs();
    assert!((0..polls).any(|_| logs().iter().any(is_said)));
    assert_eq!(
        (second.stop(), first.stop(), seed.stop()),
        (Some(0), Some(0), Some(0))
    );
}

#[test]
fn a_data_directory_that_was_deleted_is_an_error() {
    let dir = folder();
    let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    relay.log_with("the relay runs");
    fs::remove_dir_all(dir.path()).unwrap();
    let said = relay.log_with("ERROR");
    assert!(
        said.contains("deleted or replaced") && said.contains("umbel-relay init"),
        "{said}"
    );
    relay.log_with("error: relay.db was deleted or replaced");
    assert!(relay.log_with("hint: ").contains("umbel-relay init"));
    assert_eq!(
        end_of(&mut relay.child),
        Some(1),
        "mail that can't be kept is not taken"
    );
}

#[test]
fn a_relay_whose_identity_file_was_deleted_errs_and_serves_on() {
    let dir = folder();
    let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    relay.log_with("the relay runs");
    fs::remove_file(dir.path().join("identity")).unwrap();
    assert!(relay.log_with("ERROR").contains("deleted or replaced"));
    let peer: Peer = relay.peer.parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        timeout(PATIENCE, link(&peer)).await.expect("it serves on");
    });
    assert_eq!(relay.stop(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_keeps_no_signal_out() {
    let dir = folder();
    assert!(command(&["init"], dir.path()).status.success());
    let mut child = run(&["--listen", "127.0.0.1:0"], dir.path())
        .env("RUST_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let peer: Peer = ready_peer(&mut child).unwrap().parse().unwrap();
    let unread = child.stderr.take();
    // More than a pipe holds: each connection is worth some lines.
    for _ in 0..1500 {
        drop(std::net::TcpStream::connect(&peer.host_port));
    }
    assert_eq!(stop(&mut child), Some(0));
    drop(unread);
}

#[test]
fn who_answers_in_a_seeds_place_is_said() {
    let (dir, near, far) = (folder(), folder(), folder());
    let mut seed = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    let (_, address) = seed.peer.split_once('@').unwrap();
    let other = SigningKey::from_seed(&[1; 32]).public();
    let nobody = format!("{}@{address}", RelayId::from(other));
    let mut near = Process::start(&near, &["--listen", "127.0.0.1:0", "--seed", &nobody]);
    let said = near.log_with("can't reach a seed");
    assert!(said.contains("another identity answered there"), "{said}");
    assert!(!said.contains("repeated"), "it came once: {said}");

    command(&["init"], far.path());
    let file = far.path().join("network.toml");
    let network = fs::read_to_string(&file).unwrap();
    let id = network
        .lines()
        .find(|line| line.starts_with("id = "))
        .unwrap();
    let other_id = format!("id = \"{}\"", "07".repeat(32));
    fs::write(&file, network.replace(id, &other_id)).unwrap();
    let run = run(
        &["--listen", "127.0.0.1:0", "--seed", &seed.peer],
        far.path(),
    );
    let mut far = Process::spawn(run);
    let said = far.log_with("can't reach a seed");
    assert!(said.contains("a relay of another network"), "{said}");
    assert_eq!(
        (near.stop(), far.stop(), seed.stop()),
        (Some(0), Some(0), Some(0))
    );
}
