//! Making links: resolve the addresses, try each, and accept no relay but the one that was meant.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use umbel_proto::directory::receipts::{Probe, ProbeId, Probed};
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{ADDRESSES_MAX, HANDSHAKE_MAX, LINK_CLOSING_MAX, RECEIPT_DIAL_TIMEOUT};
use umbel_proto::link::tls;

use super::tls_stream::TlsStream;
use super::{LinkReport, OpenFault, Shared, tune};
use crate::shell::DialFault;

/// Most addresses tried in one dial: a name may stand for many.
const TRIES_MAX: usize = 2 * ADDRESSES_MAX;

/// Dials `relay` at each of `host_ports` until one answers, and carries the link until it ends. If
/// none answers, reports that to the control plane.
pub(crate) async fn dial(shared: Arc<Shared>, relay: RelayId, host_ports: Vec<String>) {
    let mut worst = DialFault::Nobody;
    let mut owed = Owed::new(&shared, LinkReport::DialFailed(relay, worst));
    let mut tries_left = TRIES_MAX;
    for host_port in &host_ports {
        for address in resolve(host_port).await {
            if tries_left == 0 {
                break;
            }
            tries_left -= 1;
            match try_address(&shared, relay, address, &mut owed).await {
                Ok(()) => return,
                Err(fault) => {
                    tracing::debug!(?relay, %fault, "dial failed");
                    worst = worst.max(DialFault::from(&fault));
                    owed.report = Some(LinkReport::DialFailed(relay, worst));
                }
            }
        }
    }
}

/// A report for which the control plane keeps an entry. It is sent when the task that owes it ends,
/// by a panic too: otherwise the entry would stay for good.
struct Owed {
    control: mpsc::Sender<LinkReport>,
    report: Option<LinkReport>,
}

impl Owed {
    fn new(shared: &Shared, report: LinkReport) -> Self {
        Self {
            control: shared.control.clone(),
            report: Some(report),
        }
    }

    /// Another report takes its place.
    fn settle(&mut self) {
        self.report = None;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let Some(report) = self.report.take() else {
            return;
        };
        // A closed channel, or no runtime, means that the relay has stopped.
        if let Err(TrySendError::Full(report)) = self.control.try_send(report)
            && let Ok(runtime) = Handle::try_current()
        {
            let control = self.control.clone();
            runtime.spawn(async move { control.send(report).await });
        }
    }
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
    owed: &mut Owed,
) -> Result<(), OpenFault> {
    if !shared.network.may_link(address.ip()) {
        return Err(OpenFault::Elsewhere);
    }
    let (socket, session) = timeout(HANDSHAKE_MAX, connect(shared, relay, address))
        .await
        .map_err(|_| OpenFault::Timeout)??
        .into_inner();
    let stream = TlsStream::new(socket, session, Arc::clone(&shared.read_buffers));
    shared
        .open_link(stream, Some(relay), true, address, || owed.settle())
        .await
}

/// Sees whether this relay answers at this address: TLS, with its identity, and no more (§8.7(4)).
/// Reports that to the control plane. A fault of this machine is no miss of the other's.
pub(crate) async fn probe(shared: Arc<Shared>, id: ProbeId, probe: Probe) {
    let Probe { relay, address } = probe;
    let mut owed = Owed::new(&shared, LinkReport::Probed(id, Probed::Unknown));
    let dialled = timeout(RECEIPT_DIAL_TIMEOUT, connect(&shared, relay, address)).await;
    let (probed, stream) = match dialled {
        Ok(Ok(stream)) => (Probed::There, Some(stream)),
        Ok(Err(fault)) if DialFault::from(&fault) == DialFault::Unknown => (Probed::Unknown, None),
        Ok(Err(_)) | Err(_) => (Probed::Nobody, None),
    };
    owed.report = Some(LinkReport::Probed(id, probed));
    if let Some(mut stream) = stream {
        let _ = timeout(LINK_CLOSING_MAX, stream.shutdown()).await; // as any link ends: §2.6(5)
    }
}

/// TCP, from the address that this relay listens at if that is one alone, then TLS.
async fn connect(
    shared: &Shared,
    relay: RelayId,
    address: SocketAddr,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, OpenFault> {
    let (socket, config) = prepare(shared, relay, address).map_err(OpenFault::Own)?;
    let socket = socket.connect(address).await?;
    tune(&socket)?;
    let connector = TlsConnector::from(config);
    Ok(connector.connect(tls::server_name(), socket).await?)
}

/// What a dial needs of this machine alone.
fn prepare(
    shared: &Shared,
    relay: RelayId,
    address: SocketAddr,
) -> io::Result<(TcpSocket, Arc<ClientConfig>)> {
    let config = tls::dial_config(&relay, Some(&shared.identity)).map_err(io::Error::other)?;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = shared.source.filter(|it| it.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok((socket, config))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use umbel_proto::crypto::sign::SigningKey;
    use umbel_proto::link::Hello;
    use umbel_proto::network::Network;
    use umbel_proto::time::WallTime;

    use super::super::REPORTS_MAX;
    use super::*;
    use crate::shell::Clock;

    const RELAY: RelayId = RelayId([7; 32]);

    fn shared() -> (Arc<Shared>, mpsc::Receiver<LinkReport>) {
        shared_at(None)
    }

    /// Of a relay that dials from there.
    fn shared_at(source: Option<IpAddr>) -> (Arc<Shared>, mpsc::Receiver<LinkReport>) {
        let network = Network::local();
        let hello = Hello::of_client(network.id, WallTime(0));
        let identity = SigningKey::from_seed(&[1; 32]);
        Shared::new(network, identity, 1 << 20, hello, Clock::start(), source)
    }

    fn is_failure(report: &LinkReport) -> bool {
        matches!(report, LinkReport::DialFailed(RELAY, DialFault::Nobody))
    }

    #[tokio::test]
    async fn a_dial_that_panics_is_reported_as_failed() {
        let (shared, mut reports) = shared();
        let owed = Owed::new(&shared, LinkReport::DialFailed(RELAY, DialFault::Nobody));
        let task = tokio::spawn(async move {
            let _owed = owed;
            panic!("a fault of ours");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(reports.recv().await.as_ref().is_some_and(is_failure));
    }

    #[tokio::test]
    async fn a_report_that_finds_no_room_is_sent_once_there_is_some() {
        let (shared, mut reports) = shared();
        let failed = || LinkReport::DialFailed(RELAY, DialFault::Nobody);
        let dial = || drop(Owed::new(&shared, failed()));
        (0..REPORTS_MAX + 3).for_each(|_| dial());
        for _ in 0..REPORTS_MAX + 3 {
            assert!(reports.recv().await.as_ref().is_some_and(is_failure));
        }
    }

    #[tokio::test]
    async fn a_dial_whose_link_came_up_owes_nothing() {
        let (shared, mut reports) = shared();
        let mut owed = Owed::new(&shared, LinkReport::DialFailed(RELAY, DialFault::Nobody));
        owed.settle();
        drop(owed);
        drop(shared);
        assert!(reports.recv().await.is_none());
    }

    #[tokio::test] // §8.8(3)
    async fn a_fault_of_this_machine_is_no_miss() {
        let not_ours = IpAddr::from([192, 0, 2, 1]);
        for (source, expected) in [(None, Probed::Nobody), (Some(not_ours), Probed::Unknown)] {
            let (shared, mut reports) = shared_at(source);
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let (relay, id) = (RELAY, ProbeId::SpotCheck(1));
            probe(shared, id, Probe { relay, address }).await;
            let report = reports.recv().await;
            assert!(matches!(report, Some(LinkReport::Probed(_, probed)) if probed == expected));
        }
    }

    #[tokio::test] // §8.6(7)
    async fn the_local_network_dials_nobody_elsewhere() {
        let (shared, mut reports) = shared();
        dial(shared, RELAY, vec!["192.0.2.1:1".to_owned()]).await;
        let report = reports.recv().await;
        assert!(matches!(
            report,
            Some(LinkReport::DialFailed(RELAY, DialFault::Elsewhere))
        ));
    }

    #[tokio::test]
    async fn nobody_at_the_addresses_is_one_failure() {
        let (shared, mut reports) = shared();
        dial(shared, RELAY, vec!["127.0.0.1:1".to_owned(); 2]).await;
        assert!(reports.recv().await.as_ref().is_some_and(is_failure));
        assert!(reports.recv().await.is_none());
    }
}
