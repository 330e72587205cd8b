//! Links on real sockets: who gets one, who does not, and how they end.

use std::sync::Arc;

use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::Unverified;
use umbel_proto::ids::{NetworkId, Peer, RelayId};
use umbel_proto::link::{Hello, tls};
use umbel_proto::network::Network;
use umbel_relay::config::Config;
use umbel_relay::{Relay, init};

use super::PATIENCE;
use super::sockets::{
    config, connect, connect_tls, folder, hello, is_closed, link, own_listen, start, until,
};

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
        .write_all(Cell::new(None, Command::Padding).as_bytes())
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
    let descriptor = Unverified::decode(&descriptor).unwrap();
    assert_eq!(descriptor.relay(), relay.peer().id);
    relay.shutdown().await;
}

/// Reads until the relay's close_notify. A connection that merely ends is an error here.
async fn rest_of(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut said = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .expect("it ends in time");
    read.expect("the end is said");
    said
}

#[tokio::test(flavor = "multi_thread")] // §1.5(3), §2.6(5)
async fn the_end_of_a_link_does_not_reveal_the_broken_rule() {
    let dir = folder();
    let relay = start(&dir, &[]).await;
    let peer = relay.peer();
    let circ = |number| umbel_proto::ids::CircId::new(number).unwrap();
    let mut unknown = Cell::new(None, Command::Padding);
    unknown.as_bytes_mut()[4] = 77;
    let faults = [
        ("a second Hello", hello(Network::local().id).encode()),
        ("an unknown command", unknown),
        ("a circuit id of 0", Cell::new(None, Command::Relay)),
        (
            "a Create of the wrong side",
            Cell::new(Some(circ(5)), Command::Create),
        ),
        (
            "a malformed Create",
            Cell::new(Some(circ(0x8000_0005)), Command::Create),
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
        ("no Hello", Cell::new(None, Command::Padding)),
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
    init(dir.path(), &Network::local(), None).unwrap();
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
async fn a_relay_that_stops_logs_that_and_comes_back_as_itself() {
    let dir = folder();
    init(dir.path(), &Network::local(), None).unwrap();
    let first = Config {
        listen: own_listen(),
        ..config(&dir, &[])
    };
    let relay = Relay::start(first, Network::local()).await.unwrap();
    let peer = relay.peer().clone();
    let mut client = link(&peer).await;
    until(&relay, |stats| stats.control.links == 1).await;
    timeout(PATIENCE, relay.shutdown())
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
