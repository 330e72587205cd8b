//! Making links: resolve the addresses, try each, and accept no relay but the one that was meant.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use umbel_proto::directory::receipts::ProbeId;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{ADDRESSES_MAX, HANDSHAKE_MAX, LINK_CLOSING_MAX, RECEIPT_DIAL_TIMEOUT};
use umbel_proto::link::tls;

use super::tls_stream::TlsStream;
use super::{LinkReport, OpenFault, Shared, tune};

/// Most addresses tried in one dial: a name may stand for many.
const TRIES_MAX: usize = 2 * ADDRESSES_MAX;

/// Dials `relay` at each of `host_ports` until one answers, and carries the link until it ends. If
/// none answers, reports that to the control plane.
pub(crate) async fn dial(shared: Arc<Shared>, relay: RelayId, host_ports: Vec<String>) {
    let mut tries_left = TRIES_MAX;
    for host_port in &host_ports {
        for address in resolve(host_port).await {
            if tries_left == 0 {
                break;
            }
            tries_left -= 1;
            match try_address(&shared, relay, address).await {
                Ok(()) => return,
                Err(fault) => tracing::debug!(?relay, %fault, "dial failed"),
            }
        }
    }
    // A closed channel means that the relay has stopped.
    let _ = shared.control.send(LinkReport::DialFailed(relay)).await;
}

/// The addresses that a name stands for; none if it can't be found.
pub(crate) async fn resolve(host_port: &str) -> Vec<SocketAddr> {
    match timeout(HANDSHAKE_MAX, lookup_host(host_port)).await {
        Ok(Ok(addresses)) => addresses.take(TRIES_MAX).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

async fn try_address(
    shared: &Arc<Shared>,
    relay: RelayId,
    address: SocketAddr,
) -> Result<(), OpenFault> {
    let (socket, session) = timeout(HANDSHAKE_MAX, connect(shared, relay, address))
        .await
        .map_err(|_| OpenFault::Timeout)??
        .into_inner();
    let stream = TlsStream::new(socket, session, Arc::clone(&shared.read_buffers));
    shared
        .open_link(stream, Some(relay), true, address, || ())
        .await
}

/// Sees whether this relay answers at this address: TLS, with its identity, and no more (§8.7).
/// Reports that to the control plane.
pub(crate) async fn probe(shared: Arc<Shared>, id: ProbeId, relay: RelayId, address: SocketAddr) {
    let answered = timeout(RECEIPT_DIAL_TIMEOUT, connect(&shared, relay, address)).await;
    let is_there = matches!(&answered, Ok(Ok(_)));
    if let Ok(Ok(mut stream)) = answered {
        let _ = timeout(LINK_CLOSING_MAX, stream.shutdown()).await; // as any link ends: §2.6(5)
    }
    // A closed channel means that the relay has stopped.
    let _ = shared.control.send(LinkReport::Probed(id, is_there)).await;
}

/// TCP, from the address that this relay listens at if that is one alone, then TLS.
async fn connect(
    shared: &Shared,
    relay: RelayId,
    address: SocketAddr,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let config = tls::dial_config(&relay, Some(&shared.identity)).map_err(io::Error::other)?;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = shared.source.filter(|it| it.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let socket = socket.connect(address).await?;
    tune(&socket)?;
    TlsConnector::from(config)
        .connect(tls::server_name(), socket)
        .await
}
