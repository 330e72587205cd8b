//! A relay on real sockets and a real disk: what connects, what may not, and what the command says.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test fails by panicking; sockets and files are real"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use umbel_proto::cell::{Cell, Command as CellCommand};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::ids::{NetworkId, Peer, RelayId};
use umbel_proto::link::{Hello, LINK_VERSION, tls};
use umbel_proto::network::{Network, Params};
use umbel_proto::time::WallTime;
use umbel_relay::config::Config;
use umbel_relay::{InitError, Relay, StartError, Stats, init};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An address that no other test listens at: a port that is given back there stays free.
fn own_listen() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    SocketAddr::from(([127, 0, 1, NEXT.fetch_add(1, Ordering::Relaxed)], 0))
}

fn config(dir: &TempDir, seeds: &[&Peer]) -> Config {
    let listen = "127.0.0.1:0".parse().unwrap();
    Config {
        listen,
        seeds: seeds.iter().copied().cloned().collect(),
        ..Config::new(dir.path())
    }
}

async fn start(dir: &TempDir, seeds: &[&Peer]) -> Relay {
    init(dir.path(), &Network::local()).unwrap();
    Relay::start(config(dir, seeds), Network::local())
        .await
        .unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn until(relay: &Relay, holds: impl Fn(&Stats) -> bool) -> Stats {
    let wait = async {
        loop {
            let stats = relay.stats().await.unwrap();
            if holds(&stats) {
                return stats;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .expect("it comes true in time")
}

async fn connect(peer: &Peer) -> TcpStream {
    TcpStream::connect(&peer.host_port).await.unwrap()
}

async fn connect_tls(peer: &Peer, own: Option<&SigningKey>) -> TlsStream<TcpStream> {
    let config = tls::dial_config(&peer.id, own).unwrap();
    TlsConnector::from(config)
        .connect(tls::server_name(), connect(peer).await)
        .await
        .unwrap()
}

fn hello(network: NetworkId) -> Hello {
    Hello {
        versions: vec![LINK_VERSION],
        network,
        clock: WallTime(0),
        features: 0,
        descriptor: None,
    }
}

/// Whether the relay closes the connection, whatever it says before.
async fn is_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut said = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .is_ok()
}

/// Makes a link as a client does.
async fn link(peer: &Peer) -> TlsStream<TcpStream> {
    let mut stream = connect_tls(peer, None).await;
    stream
        .write_all(hello(Network::local().id).encode().as_bytes())
        .await
        .unwrap();
    let mut cell = Cell::blank();
    stream.read_exact(cell.as_bytes_mut()).await.unwrap();
    let theirs = Hello::decode(&cell).unwrap();
    assert_eq!(theirs.network, Network::local().id);
    assert!(theirs.descriptor.is_some());
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_find_each_other_through_a_seed() {
    let (a_dir, b_dir, c_dir) = (folder(), folder(), folder());
    let a = start(&a_dir, &[]).await;
    let b = start(&b_dir, &[a.peer()]).await;
    let c = start(&c_dir, &[b.peer()]).await;
    for relay in [&a, &b, &c] {
        until(relay, |stats| {
            stats.control.relays == 3 && stats.control.links >= 1
        })
        .await;
    }
    c.shutdown().await;
    b.shutdown().await;
    a.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")] // §2.5(8)
async fn strangers_are_closed_and_the_relay_still_serves() {
    let dir = folder();
    let relay = start(&dir, &[]).await;
    let peer = relay.peer();

    let mut silent = connect(peer).await;
    let mut garbage = connect(peer).await;
    garbage.write_all(&[0x47; 5000]).await.unwrap();
    assert!(is_closed(&mut garbage).await);

    // TLS as the web speaks it.
    let mut roots = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    roots.enable_sni = false;
    let refused = TlsConnector::from(Arc::new(roots))
        .connect(tls::server_name(), connect(peer).await)
        .await;
    assert!(refused.is_err());

    let mut stranger = connect_tls(peer, None).await;
    stranger
        .write_all(hello(NetworkId([9; 32])).encode().as_bytes())
        .await
        .unwrap();
    assert!(is_closed(&mut stranger).await);

    let mut hasty = connect_tls(peer, None).await;
    hasty
        .write_all(Cell::new(None, CellCommand::Padding).as_bytes())
        .await
        .unwrap();
    assert!(is_closed(&mut hasty).await);

    let mut mute = connect_tls(peer, None).await;
    assert!(is_closed(&mut silent).await);
    assert!(is_closed(&mut mute).await);

    let stats = until(&relay, |stats| stats.failed_conns == 6).await;
    assert_eq!(stats.control.links, 0);
    let mut good = link(peer).await;
    until(&relay, |stats| stats.control.links == 1).await;
    good.write_all(hello(Network::local().id).encode().as_bytes())
        .await
        .unwrap(); // a second one breaks a rule
    assert!(is_closed(&mut good).await);
    until(&relay, |stats| stats.control.links == 0).await;
    let _good = link(peer).await;
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")] // §2.4(1), §2.4(5)
async fn a_relay_says_hello_and_its_descriptor_without_waiting() {
    let dir = folder();
    let relay = start(&dir, &[]).await;
    let mut stream = connect_tls(relay.peer(), None).await;
    let mut cell = Cell::blank();
    let read = timeout(PATIENCE, stream.read_exact(cell.as_bytes_mut())).await;
    read.expect("it says it unasked").unwrap();
    let descriptor = Hello::decode(&cell).unwrap().descriptor.unwrap();
    let descriptor = umbel_proto::directory::Unverified::decode(&descriptor).unwrap();
    assert_eq!(descriptor.relay(), relay.peer().id);
    relay.shutdown().await;
}

/// What comes until the relay says by TLS that it is the end. A connection that merely ends is an
/// error here.
async fn rest_of(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut said = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .expect("it ends in time");
    read.expect("the end is said");
    said
}

#[tokio::test(flavor = "multi_thread")] // §1.5(3), §2.6(5)
async fn no_ending_of_a_link_tells_which_rule_was_broken() {
    let dir = folder();
    let relay = start(&dir, &[]).await;
    let peer = relay.peer();
    let circ = |number| umbel_proto::ids::CircId::new(number).unwrap();
    let mut unknown = Cell::new(None, CellCommand::Padding);
    unknown.as_bytes_mut()[4] = 77;
    let faults = [
        ("a second Hello", hello(Network::local().id).encode()),
        ("an unknown command", unknown),
        ("a circuit id of 0", Cell::new(None, CellCommand::Relay)),
        (
            "a Create of the wrong side",
            Cell::new(Some(circ(5)), CellCommand::Create),
        ),
        (
            "a malformed Create",
            Cell::new(Some(circ(0x8000_0005)), CellCommand::Create),
        ),
    ];
    for (fault, cell) in faults {
        let mut stream = link(peer).await;
        stream.write_all(cell.as_bytes()).await.unwrap();
        assert_eq!(rest_of(&mut stream).await, b"", "{fault}");
    }
    // Before the link is up its own Hello is all that a relay has said.
    let strangers = [
        ("another network", hello(NetworkId([9; 32])).encode()),
        ("no Hello", Cell::new(None, CellCommand::Padding)),
    ];
    for (fault, cell) in strangers {
        let mut stream = connect_tls(peer, None).await;
        stream.write_all(cell.as_bytes()).await.unwrap();
        assert_eq!(
            rest_of(&mut stream).await.len(),
            cell.as_bytes().len(),
            "{fault}"
        );
    }
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_relay_at_the_address_is_not_dialled_through() {
    let (a_dir, b_dir) = (folder(), folder());
    let a = start(&a_dir, &[]).await;
    let other = Peer {
        id: RelayId::from(SigningKey::generate(&mut rand::make_rng::<StdRng>()).public()),
        ..a.peer().clone()
    };
    let b = start(&b_dir, &[&other]).await;
    until(&a, |stats| stats.failed_conns >= 1).await;
    assert_eq!(b.stats().await.unwrap().control.links, 0);
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_closed_at_once() {
    let dir = folder();
    init(dir.path(), &Network::local()).unwrap();
    let config = Config {
        half_open_max: 4,
        links_max: 6,
        ..config(&dir, &[])
    };
    let relay = Relay::start(config, Network::local()).await.unwrap();
    let mut links = Vec::new();
    for _ in 0..3 {
        links.push(link(relay.peer()).await);
    }
    until(&relay, |stats| stats.control.links == 3).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(connect(relay.peer()).await);
    }
    let stats = until(&relay, |stats| stats.refused_conns == 2).await;
    assert_eq!((stats.failed_conns, stats.control.links), (0, 3));
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stops_says_so_and_comes_back_as_itself() {
    let dir = folder();
    init(dir.path(), &Network::local()).unwrap();
    let first = Config {
        listen: own_listen(),
        ..config(&dir, &[])
    };
    let relay = Relay::start(first, Network::local()).await.unwrap();
    let peer = relay.peer().clone();
    let mut client = link(&peer).await;
    until(&relay, |stats| stats.control.links == 1).await;
    timeout(Duration::from_secs(5), relay.shutdown())
        .await
        .expect("it stops in time");
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0); // closed in order, not broken off
    assert!(TcpStream::connect(&peer.host_port).await.is_err());

    let again = Config {
        listen: peer.host_port.parse().unwrap(),
        ..config(&dir, &[])
    };
    let relay = Relay::start(again, Network::local()).await.unwrap();
    assert_eq!(relay.peer(), &peer);
    let _client = link(&peer).await;
    relay.shutdown().await;
}

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
async fn what_is_missing_or_taken_is_said() {
    let dir = folder();
    let none = Relay::start(config(&dir, &[]), Network::local()).await;
    assert!(matches!(none, Err(StartError::Identity(_))));

    let relay = start(&dir, &[]).await;
    let other_dir = folder();
    init(other_dir.path(), &Network::local()).unwrap();
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

#[test]
fn init_never_overwrites() {
    let dir = folder();
    let made = command(&["init"], dir.path());
    assert!(made.status.success(), "{made:?}");
    let before = fs::read(dir.path().join("identity")).unwrap();
    let refused = command(&["init"], dir.path());
    assert_failed(&refused, 1, "holds a relay already");
    assert!(matches!(
        init(dir.path(), &Network::local()),
        Err(InitError::Exists(_))
    ));
    assert_eq!(fs::read(dir.path().join("identity")).unwrap(), before);
}

#[test]
fn a_relay_runs_from_ready_to_sigterm() {
    let dir = folder();
    assert!(command(&["init"], dir.path()).status.success());
    assert_failed(&command(&["peer"], dir.path()), 2, "run the relay once");
    let mut run = Command::new(env!("CARGO_BIN_EXE_umbel-relay"));
    run.args(["run", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path());
    let mut running = run
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let peer = line
        .trim_end()
        .strip_prefix("ready ")
        .expect("the line says ready")
        .to_owned();
    assert!(peer.parse::<Peer>().is_ok(), "{peer}");
    let known = command(&["peer"], dir.path());
    assert_eq!(String::from_utf8(known.stdout).unwrap().trim_end(), peer);
    assert_eq!(stop(&mut running), Some(0));
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
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
        format!("{}\nsync_peers = 8\n", Network::local().to_toml()),
    )
    .unwrap();
    assert_failed(
        &command(&["init", "--network", bad.to_str().unwrap()], dir.path()),
        2,
        "params.sync_peers",
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
    let mut relay = Process::start(
        &dir,
        &[
            "--listen",
            "127.0.0.1:0",
            "--advertise",
            "nowhere.invalid:1",
            "127.0.0.1:2",
        ],
    );
    assert!(relay.peer.ends_with("@nowhere.invalid:1"), "{}", relay.peer);
    assert!(relay.log_with("WARN").contains("nowhere.invalid:1"));
    assert_eq!(relay.stop(), Some(0));
    let mut relay = Process::start(
        &dir,
        &[
            "--listen",
            "127.0.0.1:0",
            "--advertise",
            "nowhere.invalid:1",
        ],
    );
    relay.log_with("the relay runs");
    assert_eq!(relay.stop(), Some(0));
}

#[test]
fn a_store_that_is_gone_is_said_and_a_new_relay_has_none_to_lose() {
    let dir = folder();
    let is_gone = |line: &str| line.contains("the store of a relay that ran before is gone");
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
fn at_the_limit_of_open_files_it_says_so_once_and_serves_again() {
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

/// Neither is told of the other: what one says of itself comes back to the other through the
/// network. Which of them hears of it first is a matter of the second in which they started.
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
fn an_identity_file_that_was_deleted_is_an_error_and_what_is_kept_is_served_on() {
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
    let mut run = Command::new(env!("CARGO_BIN_EXE_umbel-relay"));
    run.args(["run", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .env("RUST_LOG", "trace");
    let mut child = run
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let peer: Peer = line
        .trim_end()
        .strip_prefix("ready ")
        .unwrap()
        .parse()
        .unwrap();
    let unread = child.stderr.take();
    // More than a pipe holds: each connection is worth some lines.
    for _ in 0..1500 {
        drop(std::net::TcpStream::connect(&peer.host_port));
    }
    assert_eq!(stop(&mut child), Some(0));
    drop(unread);
}

/// A relay in a process of its own, which is ready. Whatever it logs is read.
struct Process {
    child: Child,
    peer: String,
    lines: Receiver<String>,
}

impl Process {
    /// Makes the relay, if there is none, and runs it.
    fn start(dir: &TempDir, args: &[&str]) -> Self {
        command(&["init"], dir.path());
        let mut run = Command::new(env!("CARGO_BIN_EXE_umbel-relay"));
        run.arg("run").args(args).arg("--data-dir").arg(dir.path());
        Self::spawn(run)
    }

    fn spawn(mut run: Command) -> Self {
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
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let peer = line.trim_end().strip_prefix("ready ").map(str::to_owned);
        let peer =
            peer.unwrap_or_else(|| panic!("not ready: {:?}", lines.iter().collect::<Vec<_>>()));
        Self { child, peer, lines }
    }

    /// Waits for a line of the log.
    fn log_with(&self, text: &str) -> String {
        self.log_before(text)
            .pop()
            .expect("the line that was waited for is the last")
    }

    /// The log up to a line, with it.
    fn log_before(&self, text: &str) -> Vec<String> {
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

    fn stop(&mut self) -> Option<i32> {
        stop(&mut self.child)
    }

    fn signal(&mut self, name: &str) {
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

fn command(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbel-relay"));
    command
        .args(args)
        .arg("--data-dir")
        .arg(dir)
        .output()
        .unwrap()
}

/// It says what is wrong on one line and what to do on the next.
fn assert_failed(output: &Output, code: i32, with: &str) {
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
fn stop(running: &mut Child) -> Option<i32> {
    let asked = Command::new("kill")
        .arg("-TERM")
        .arg(running.id().to_string())
        .status()
        .unwrap();
    assert!(asked.success());
    end_of(running)
}

/// The exit code of a process that ends by itself, if it does so in time.
fn end_of(running: &mut Child) -> Option<i32> {
    for _ in 0..50 {
        if let Some(status) = running.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    running.kill().unwrap();
    None
}
