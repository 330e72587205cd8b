//! How a relay is made and started, and what the command says when it can't be.

use std::fs;
use std::process::{Command, Stdio};

use umbel_proto::ids::Peer;
use umbel_proto::network::{Network, Params};
use umbel_relay::config::Config;
use umbel_relay::{InitError, Relay, StartError, init};

use super::processes::{Process, assert_failed, command, ready_peer, run, stop};
use super::sockets::{config, folder, start};

#[tokio::test]
async fn a_data_directory_is_one_processs() {
    let dir = folder();
    let relay = start(&dir, &[]).await;
    let second = Relay::start(config(&dir, &[]), Network::local()).await;
    assert!(matches!(second, Err(StartError::InUse(_))));
    let refused = command(&["run", "--listen", "127.0.0.1:0"], dir.path());
    assert_failed(&refused, 1, "another process runs the relay in");
    relay.shutdown().await;
    Relay::start(config(&dir, &[]), Network::local())
        .await
        .unwrap()
        .shutdown()
        .await;
}

#[tokio::test]
async fn missing_files_and_taken_ports_are_reported() {
    let dir = folder();
    let none = Relay::start(config(&dir, &[]), Network::local()).await;
    assert!(matches!(none, Err(StartError::Identity(_))));

    let relay = start(&dir, &[]).await;
    let other_dir = folder();
    init(other_dir.path(), &Network::local(), None).unwrap();
    let taken = Config {
        listen: relay.peer().host_port.parse().unwrap(),
        ..config(&other_dir, &[])
    };
    assert!(matches!(
        Relay::start(taken, Network::local()).await,
        Err(StartError::Listen { .. })
    ));

    let public = Network {
        params: Params::DEFAULT,
        ..Network::local()
    };
    let unreachable = Relay::start(config(&other_dir, &[]), public).await;
    assert!(matches!(unreachable, Err(StartError::NotPublic)));
    relay.shutdown().await;
}

#[test] // §8.6(7)
fn the_local_network_stays_on_one_machine() {
    let dir = folder();
    assert!(command(&["init"], dir.path()).status.success());
    let everywhere = command(&["run", "--listen", "0.0.0.0:0"], dir.path());
    assert_failed(&everywhere, 2, "loopback addresses only, not 0.0.0.0:0");
    let elsewhere = ["--listen", "127.0.0.1:0", "--advertise", "192.0.2.1:7443"];
    let elsewhere = command(&[&["run"], &elsewhere[..]].concat(), dir.path());
    assert_failed(&elsewhere, 2, "loopback addresses only, not 192.0.2.1:7443");
}

#[test]
fn init_never_overwrites() {
    let dir = folder();
    let made = command(&["init"], dir.path());
    assert!(made.status.success(), "{made:?}");
    let before = fs::read(dir.path().join("identity")).unwrap();
    let refused = command(&["init"], dir.path());
    assert_failed(&refused, 1, "holds a relay already");
    assert!(matches!(
        init(dir.path(), &Network::local(), None),
        Err(InitError::Exists(_))
    ));
    assert_eq!(fs::read(dir.path().join("identity")).unwrap(), before);
}

#[test]
fn a_relay_is_made_with_its_configuration_and_one_that_exists_stays() {
    for (before, after) in [
        (None, "threads = 1\n"),
        (Some("log = \"warn\"\n"), "log = \"warn\"\n"),
    ] {
        let dir = folder();
        let path = dir.path().join("umbel-relay.toml");
        if let Some(before) = before {
            fs::write(&path, before).unwrap();
        }
        init(dir.path(), &Network::local(), Some("threads = 1\n")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), after);
    }
}

#[test]
fn init_restores_a_lost_network_file_and_nothing_else() {
    let dir = folder();
    let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    assert_eq!(relay.stop(), Some(0));
    let file = |name| fs::read(dir.path().join(name)).unwrap();
    let kept = || ["identity", "relay.db", "address"].map(file);
    let (before, network) = (kept(), file("network.toml"));
    fs::remove_file(dir.path().join("network.toml")).unwrap();
    for words in [&["run", "--listen", "127.0.0.1:0"][..], &["peer"]] {
        let refused = command(words, dir.path());
        assert_failed(&refused, 1, "network.toml is gone");
        assert_failed(&refused, 1, "umbel-relay init");
    }

    let restored = command(&["init"], dir.path());
    assert!(restored.status.success(), "{restored:?}");
    let said = String::from_utf8(restored.stderr).unwrap();
    assert!(said.contains("nothing else was changed"), "{said}");
    let id = String::from_utf8(restored.stdout).unwrap();
    assert!(relay.peer.starts_with(id.trim_end()), "{id}");
    assert_eq!((kept(), file("network.toml")), (before, network));
    let refused = command(&["init"], dir.path());
    assert_failed(&refused, 1, "holds a relay already");
    let mut relay = Process::start(&dir, &["--listen", "127.0.0.1:0"]);
    assert_eq!(relay.stop(), Some(0));
}

#[test] // §8.6(8)
fn init_warns_of_an_optional_entry_and_keeps_it() {
    let dir = folder();
    let file = dir.path().join("file.toml");
    let text = format!(
        "{}[optional]\ncontact = \"x\"\n",
        Network::local().to_toml()
    );
    fs::write(&file, &text).unwrap();
    let relay = dir.path().join("relay");
    let made = command(&["init", "--network", file.to_str().unwrap()], &relay);
    assert!(made.status.success(), "{made:?}");
    let warned = String::from_utf8(made.stderr).unwrap();
    assert_eq!(
        warned,
        "warning: this version does not know optional.contact of the network file and ignores it\n"
    );
    let kept = fs::read_to_string(relay.join("network.toml")).unwrap();
    assert!(kept.contains("contact"), "{kept}");
}

#[test]
fn a_relay_runs_from_ready_to_sigterm() {
    let dir = folder();
    assert!(command(&["init"], dir.path()).status.success());
    let file = dir.path().join("umbel-relay.toml");
    fs::write(file, "listen = \"127.0.0.1:0\"").unwrap();
    assert_failed(&command(&["peer"], dir.path()), 2, "run the relay once");
    let mut running = run(&["--listen", "127.0.0.1:0"], dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let peer = ready_peer(&mut running).expect("the line says ready");
    assert!(peer.parse::<Peer>().is_ok(), "{peer}");
    let known = command(&["peer"], dir.path());
    assert_eq!(String::from_utf8(known.stdout).unwrap().trim_end(), peer);
    assert_eq!(stop(&mut running), Some(0));
}

#[test]
fn a_file_that_is_shown_in_an_error_does_not_drive_the_terminal() {
    let dir = folder();
    let bad = dir.path().join("bad.toml");
    fs::write(&bad, "a = \u{1b}[2J\u{9b}2J\n").unwrap();
    let refused = command(&["init", "--network", bad.to_str().unwrap()], dir.path());
    assert_failed(&refused, 2, "\\u{1b}[2J\\u{9b}2J");
    assert!(!refused.stderr.contains(&0x1b));
}

#[test]
fn an_error_comes_with_its_remedy() {
    let dir = folder();
    assert_failed(&command(&["run"], dir.path()), 1, "umbel-relay init");
    assert_failed(&command(&["peer"], dir.path()), 1, "umbel-relay init");
    assert_failed(
        &command(&["init", "--network", "/nowhere"], dir.path()),
        2,
        "can't read /nowhere",
    );
    fs::write(dir.path().join("bad.toml"), "id = 5").unwrap();
    let bad = dir.path().join("bad.toml");
    assert_failed(
        &command(&["init", "--network", bad.to_str().unwrap()], dir.path()),
        2,
        "bad.toml",
    );
    fs::write(
        &bad,
        format!("{}\ndigest_check_relays = 3\n", Network::local().to_toml()),
    )
    .unwrap();
    assert_failed(
        &command(&["init", "--network", bad.to_str().unwrap()], dir.path()),
        2,
        "params.digest_check_relays",
    );
    assert_failed(
        &command(&["run", "--seed", "nobody"], dir.path()),
        2,
        "--seed",
    );
    assert_failed(
        &command(&["run", "--advertise", "relay.example"], dir.path()),
        2,
        "--advertise",
    );
    assert_failed(
        &command(&["run", "--bogus"], dir.path()),
        2,
        "error: unexpected argument '--bogus'",
    );
    assert_failed(
        &command(&["walk"], dir.path()),
        2,
        "error: unrecognized subcommand 'walk'",
    );
    let help = Command::new(env!("CARGO_BIN_EXE_umbel-relay"))
        .arg("--help")
        .output()
        .unwrap();
    assert!(
        help.status.success() && help.stderr.is_empty() && !help.stdout.is_empty(),
        "{help:?}"
    );
}
