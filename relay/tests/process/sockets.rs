//! A relay within this process, and connections to one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use umbel_proto::cell::Cell;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::ids::{NetworkId, Peer};
use umbel_proto::link::{Hello, LINK_VERSION, tls};
use umbel_proto::network::Network;
use umbel_proto::time::WallTime;
use umbel_relay::config::Config;
use umbel_relay::{Relay, Stats, init};

use super::PATIENCE;

/// An address that no other test listens at: a port that is given back there stays free.
pub(super) fn own_listen() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    SocketAddr::from(([127, 0, 1, NEXT.fetch_add(1, Ordering::Relaxed)], 0))
}

pub(super) fn config(dir: &TempDir, seeds: &[&Peer]) -> Config {
    let listen = "127.0.0.1:0".parse().unwrap();
    Config {
        listen,
        seeds: seeds.iter().copied().cloned().collect(),
        ..Config::new(dir.path())
    }
}

pub(super) async fn start(dir: &TempDir, seeds: &[&Peer]) -> Relay {
    init(dir.path(), &Network::local(), None).unwrap();
    Relay::start(config(dir, seeds), Network::local())
        .await
        .unwrap()
}

pub(super) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(super) async fn until(relay: &Relay, holds: impl Fn(&Stats) -> bool) -> Stats {
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

pub(super) async fn connect(peer: &Peer) -> TcpStream {
    TcpStream::connect(&peer.host_port).await.unwrap()
}

pub(super) async fn connect_tls(peer: &Peer, own: Option<&SigningKey>) -> TlsStream<TcpStream> {
    let config = tls::dial_config(&peer.id, own).unwrap();
    TlsConnector::from(config)
        .connect(tls::server_name(), connect(peer).await)
        .await
        .unwrap()
}

pub(super) fn hello(network: NetworkId) -> Hello {
    Hello {
        versions: vec![LINK_VERSION],
        network,
        clock: WallTime(0),
        parameters: None,
        features: 0,
        descriptor: None,
    }
}

/// Whether the relay closes the connection, whatever it says before.
pub(super) async fn is_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut said = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .is_ok()
}

/// Makes a link as a client does.
pub(super) async fn link(peer: &Peer) -> TlsStream<TcpStream> {
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
