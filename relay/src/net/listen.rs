//! Accepting links. Whatever connects costs little until it has proven that it speaks TLS and
//! belongs to the network.
//!
//! Policies, when there is too much: a connection over the limit of all half-open ones, of its
//! address group or of all links is closed at once, and so is one from another machine in the local
//! network (§8.6(7)); one that is not a link in time is closed then.
//! All are counted, and none is answered.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::HANDSHAKE_MAX;
use umbel_proto::link::tls;
use umbel_proto::network::{AddressGroups, Group, Network};

use super::tls_stream::TlsStream;
use super::{OpenFault, Shared, tune};
use crate::repeated::{MINUTE, Repeated};

/// Connections that the kernel may hold for us to accept.
const BACKLOG: i32 = 1024;
/// How long to wait when the system has no more sockets for us; twice as long each time.
const OUT_OF_SOCKETS_PAUSE: Duration = Duration::from_millis(100);
/// The longest such wait.
const OUT_OF_SOCKETS_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How many connections are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AcceptLimits {
    /// Most that are not yet links, all together.
    pub(crate) half_open_max: usize,
    /// Most that are not yet links, from one address group.
    pub(crate) half_open_per_group_max: usize,
    /// Most links that others made.
    pub(crate) links_max: usize,
    /// Most of these from one address group.
    pub(crate) links_per_group_max: usize,
}

/// Listens there.
///
/// # Errors
/// The address is in use, not ours, or not allowed.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // A relay that starts again need not wait for its old connections.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // All addresses are those of both families, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the relay stops.
pub(crate) async fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    limits: watch::Receiver<AcceptLimits>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(config);
    let gate = Arc::new(Gate {
        limits,
        counts: Mutex::default(),
    });
    let (began_at, mut out_of_sockets, mut pause) =
        (Instant::now(), Repeated::new(MINUTE), OUT_OF_SOCKETS_PAUSE);
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|&stop| stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                pause = OUT_OF_SOCKETS_PAUSE;
                if let Some(repeated) = out_of_sockets.rest(began_at.elapsed()) {
                    tracing::info!(
                        repeated,
                        "connections are accepted again; for a while they could not be"
                    );
                }
                match gate.admit_from(address, &shared.network) {
                    Some(place) => {
                        tokio::spawn(welcome(
                            (socket, address),
                            acceptor.clone(),
                            place,
                            Arc::clone(&shared),
                        ));
                    }
                    None => {
                        shared
                            .counters
                            .refused_conns
                            .fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            // The peer may be gone already, which is its affair; or we have no sockets left, which
            // takes time to pass.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if let Some(repeated) = out_of_sockets.come(began_at.elapsed()) {
                    tracing::warn!(
                        %error,
                        repeated,
                        "can't accept connections: raise the limit of open files (LimitNOFILE, ulimit -n) or lower links_max"
                    );
                }
                sleep(pause).await;
                pause = (pause * 2).min(OUT_OF_SOCKETS_PAUSE_MAX);
            }
        }
    }
}

/// Makes a link of a connection and carries it, or closes it.
async fn welcome(
    (socket, remote): (TcpStream, SocketAddr),
    acceptor: TlsAcceptor,
    mut place: Place,
    shared: Arc<Shared>,
) {
    let opened = async {
        tune(&socket)?;
        let handshake = timeout(HANDSHAKE_MAX, acceptor.accept(socket)); // §2.5(8)
        let (socket, session) = handshake
            .await
            .map_err(|_| OpenFault::Timeout)??
            .into_inner();
        let peer = tls::peer_id(session.peer_certificates());
        if peer == Some(RelayId::from(shared.identity.public())) {
            return Err(OpenFault::Twin);
        }
        let stream = TlsStream::new(socket, session, Arc::clone(&shared.read_buffers));
        let on_up = || {
            place.settle();
            shared
                .counters
                .relay_link_count
                .fetch_add(u64::from(peer.is_some()), Ordering::Relaxed);
        };
        shared.open_link(stream, peer, false, remote, on_up).await
    };
    if let Err(fault) = opened.await {
        shared.counters.failed_conns.fetch_add(1, Ordering::Relaxed);
        if matches!(fault, OpenFault::Twin) {
            shared.say_twin();
        }
        tracing::debug!(%fault, "a connection did not become a link");
    }
}

/// Which connections count together; `None` where addresses say nothing, as in a network on one
/// machine.
fn group_of(network: &Network, address: SocketAddr) -> Option<Group> {
    let groups = network.params.danger_address_groups;
    (groups == AddressGroups::Prefix).then(|| network.group_of(address))
}

/// Counts connections, and admits as many as the limits allow.
struct Gate {
    limits: watch::Receiver<AcceptLimits>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: Count,
    /// No entry is empty, so there are never more of them than connections.
    groups: BTreeMap<Group, Count>,
}

/// Connections in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    half_open: usize,
    links: usize,
}

impl Gate {
    /// A place for one more connection, which comes from there, if there is one and nodes of the
    /// network link to that address.
    fn admit_from(self: &Arc<Self>, remote: SocketAddr, network: &Network) -> Option<Place> {
        let may_link = network.may_link(remote.ip());
        may_link.then(|| self.admit(group_of(network, remote)))?
    }

    /// A place for one more connection, if there is one.
    fn admit(self: &Arc<Self>, group: Option<Group>) -> Option<Place> {
        let limits = *self.limits.borrow();
        let mut counts = self.lock();
        let is_full = |count: Count, half_open_max: usize, links_max: usize| {
            count.half_open >= half_open_max || count.half_open + count.links >= links_max
        };
        let of_group = group
            .and_then(|group| counts.groups.get(&group).copied())
            .unwrap_or_default();
        if is_full(counts.all, limits.half_open_max, limits.links_max)
            || is_full(
                of_group,
                limits.half_open_per_group_max,
                limits.links_per_group_max,
            )
        {
            return None;
        }
        counts.change(group, |count| count.half_open += 1);
        drop(counts);
        Some(Place {
            gate: Arc::clone(self),
            group,
            is_settled: false,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn change(&mut self, group: Option<Group>, change: impl Fn(&mut Count)) {
        change(&mut self.all);
        if let Some(group) = group {
            let count = self.groups.entry(group).or_default();
            change(count);
            if *count == Count::default() {
                self.groups.remove(&group);
            }
        }
    }
}

/// A connection's place, given back on drop.
struct Place {
    gate: Arc<Gate>,
    group: Option<Group>,
    is_settled: bool,
}

impl Place {
    /// The connection is a link now.
    fn settle(&mut self) {
        if !self.is_settled {
            self.is_settled = true;
            self.gate.lock().change(self.group, |count| {
                count.half_open -= 1;
                count.links += 1;
            });
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let is_settled = self.is_settled;
        self.gate.lock().change(self.group, |count| {
            let place = if is_settled {
                &mut count.links
            } else {
                &mut count.half_open
            };
            *place -= 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::network::Params;

    use super::*;

    fn gate() -> Arc<Gate> {
        let limits = AcceptLimits {
            half_open_max: 3,
            half_open_per_group_max: 2,
            links_max: 5,
            links_per_group_max: 4,
        };
        Arc::new(Gate {
            limits: watch::channel(limits).1,
            counts: Mutex::default(),
        })
    }

    fn group(address: &str) -> Option<Group> {
        let network = Network {
            params: Params::DEFAULT,
            ..Network::local()
        };
        Some(network.group_of(address.parse().unwrap()))
    }

    #[test]
    fn half_open_connections_are_limited_by_group_and_altogether() {
        let gate = gate();
        let (here, there) = (group("198.51.100.1:1"), group("203.0.113.1:1"));
        let first = gate.admit(here).unwrap();
        let _second = gate.admit(here).unwrap();
        assert!(gate.admit(here).is_none());
        let _third = gate.admit(there).unwrap();
        assert!(gate.admit(there).is_none());
        drop(first);
        assert!(gate.admit(here).is_some());
    }

    #[test] // §8.6(7)
    fn the_local_network_admits_nobody_from_elsewhere() {
        let (gate, local) = (gate(), Network::local());
        let admit = |remote: &str| gate.admit_from(remote.parse().unwrap(), &local);
        assert!(admit("192.0.2.1:1").is_none() && admit("[2001:db8::1]:1").is_none());
        assert!(admit("127.0.0.1:1").is_some() && admit("[::ffff:127.0.0.1]:1").is_some());
    }

    #[test]
    fn links_are_limited_and_their_places_are_given_back() {
        let gate = gate();
        let here = group("198.51.100.1:1");
        let settled = || {
            gate.admit(here).map(|mut place| {
                place.settle();
                place
            })
        };
        let places: Vec<_> = (0..4).map(|_| settled().unwrap()).collect();
        assert!(settled().is_none());
        assert_eq!(
            gate.lock().all,
            Count {
                half_open: 0,
                links: 4
            }
        );
        drop(places);
        assert_eq!(gate.lock().all, Count::default());
        assert!(gate.lock().groups.is_empty());
        assert!(settled().is_some());
    }

    #[test]
    fn without_groups_only_the_sums_count() {
        let gate = gate();
        let places: Vec<_> = (0..3).map(|_| gate.admit(None).unwrap()).collect();
        assert!(gate.admit(None).is_none());
        drop(places);
        assert!(gate.lock().groups.is_empty());
    }
}
