//! Where others can dial this relay: the operator's addresses, whose names are looked up now and
//! then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use umbel_proto::directory::descriptor::is_dialable;
use umbel_proto::limits::ADDRESSES_MAX;
use umbel_proto::network::Network;

use super::dial;
use super::plane::Ask;

/// How soon a name that can't be found is looked up again; the wait doubles each time.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(600);
/// How often names, and this machine's own addresses, are looked up again when all is well.
const REFRESH: Duration = Duration::from_secs(1800);
/// How long addresses stay before others take their place: each change goes to the whole network.
const CHANGE_MIN: Duration = Duration::from_secs(600);

/// Where this relay can be dialled.
pub(crate) struct Addresses {
    listen: SocketAddr,
    network: Network,
    advertise: Vec<String>,
    /// The addresses that each name last stood for.
    found: BTreeMap<String, Vec<SocketAddr>>,
    /// The addresses in the descriptor.
    current: Vec<SocketAddr>,
    /// Whether names that can't be found were complained about since all could be.
    is_told: bool,
}

impl Addresses {
    /// Looks them up for the first time. A name that can't be found now may be later.
    pub(crate) async fn find(advertise: &[String], listen: SocketAddr, network: &Network) -> Self {
        let mut addresses = Self {
            listen,
            network: network.clone(),
            advertise: advertise.to_vec(),
            found: BTreeMap::new(),
            current: Vec::new(),
            is_told: false,
        };
        addresses.look_up().await;
        addresses.current = addresses.wanted();
        addresses
    }

    /// The addresses for the descriptor; none if no name could be resolved.
    pub(crate) fn current(&self) -> &[SocketAddr] {
        &self.current
    }

    /// The address that others dial.
    pub(crate) fn host_port(&self) -> String {
        let own = || {
            self.current
                .first()
                .map_or_else(|| self.listen.to_string(), SocketAddr::to_string)
        };
        self.advertise.first().cloned().unwrap_or_else(own)
    }

    /// Looks all names up; whether each was found.
    async fn look_up(&mut self) -> bool {
        let mut missing = Vec::new();
        for host_port in &self.advertise {
            let addresses = dial::resolve(host_port).await;
            if addresses.is_empty() {
                missing.push(host_port.as_str());
            } else {
                self.found.insert(host_port.clone(), addresses);
            }
        }
        if missing.is_empty() {
            self.is_told = false;
        } else if !self.is_told {
            self.is_told = true;
            tracing::warn!(
                names = missing.join(", "),
                "can't find an address that this relay is to advertise; trying again. Check `advertise` and the name server"
            );
        }
        self.found
            .retain(|host_port, _| self.advertise.contains(host_port));
        missing.is_empty()
    }

    /// The first of each name before the second of any; v4 before v6, since more of the network can
    /// reach it.
    fn wanted(&self) -> Vec<SocketAddr> {
        if self.advertise.is_empty() {
            return own_addresses(self.listen, &self.network);
        }
        let of_name = |host_port| self.found.get(host_port).into_iter().flatten().enumerate();
        let mut ranked: Vec<(usize, SocketAddr)> = self
            .advertise
            .iter()
            .flat_map(of_name)
            .map(|(rank, &address)| (rank, address))
            .collect();
        ranked.sort_by_key(|&(rank, address)| (rank, address.is_ipv6()));
        let mut seen = BTreeSet::new();
        let mut addresses: Vec<_> = ranked
            .into_iter()
            .map(|(_, it)| it)
            .filter(|&it| seen.insert(it))
            .collect();
        addresses.truncate(ADDRESSES_MAX);
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses
    }

    /// Looks the names up at intervals and reports changes to the control plane; ends with the
    /// relay.
    pub(crate) async fn watch(
        mut self,
        mut advertise: watch::Receiver<Vec<String>>,
        asks: mpsc::Sender<Ask>,
        on_change: impl Fn(&str, &[SocketAddr]),
    ) {
        let mut changed_at: Option<Instant> = None;
        let mut retry = RETRY_MIN;
        let mut are_all_found = self
            .advertise
            .iter()
            .all(|host_port| self.found.contains_key(host_port));
        loop {
            let wait = if are_all_found { REFRESH } else { retry };
            retry = if are_all_found {
                RETRY_MIN
            } else {
                (retry * 2).min(RETRY_MAX)
            };
            let is_told = tokio::select! {
                changed = advertise.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                () = sleep_until(Instant::now() + wait) => false,
            };
            if is_told {
                self.advertise.clone_from(&advertise.borrow_and_update());
                retry = RETRY_MIN;
            }
            are_all_found = self.look_up().await;
            let wanted = self.wanted();
            let is_early = changed_at.is_some_and(|at| at.elapsed() < CHANGE_MIN)
                && !self.current.is_empty()
                && !is_told;
            if wanted.is_empty() || wanted == self.current || is_early {
                continue;
            }
            if let Some(address) = wanted.iter().find(|it| !self.network.may_link(it.ip())) {
                tracing::error!(
                    %address,
                    "the network `local` is for one machine: its relays advertise loopback addresses only, and this one keeps those that it had. Correct `advertise`"
                );
                continue;
            }
            changed_at = Some(Instant::now());
            tracing::info!(addresses = ?wanted, "this relay is dialled at other addresses from now on");
            self.current.clone_from(&wanted);
            on_change(&self.host_port(), &self.current);
            if asks.send(Ask::Addresses(wanted)).await.is_err() {
                return;
            }
        }
    }
}

/// The addresses that this machine has where it listens: one of each family, where it listens on
/// all.
fn own_addresses(listen: SocketAddr, network: &Network) -> Vec<SocketAddr> {
    let (v4, v6) = (
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    );
    let families: &[IpAddr] = match listen.ip() {
        ip if !ip.is_unspecified() => return vec![listen],
        IpAddr::V4(_) => &[v4],
        IpAddr::V6(_) => &[v4, v6],
    };
    let own: Vec<_> = families
        .iter()
        .filter_map(|&any| own_ip(any))
        .map(|ip| SocketAddr::new(ip, listen.port()))
        .collect();
    // Where some are the public's and some are not, the others would keep the descriptor from being
    // believed.
    let dialable: Vec<_> = own
        .iter()
        .copied()
        .filter(|&address| is_dialable(address, network))
        .collect();
    if dialable.is_empty() { own } else { dialable }
}

/// The address that this machine would send from, else its loopback address; `None` without that
/// family. Nothing is sent: a datagram socket is only pointed at an address that nobody has.
fn own_ip(any: IpAddr) -> Option<IpAddr> {
    let (nobody, loopback): (IpAddr, IpAddr) = match any {
        IpAddr::V4(_) => (
            Ipv4Addr::new(192, 0, 2, 1).into(),
            Ipv4Addr::LOCALHOST.into(),
        ),
        IpAddr::V6(_) => (
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::LOCALHOST.into(),
        ),
    };
    let pointed = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(nobody, 9))?;
        socket.local_addr()
    });
    let has_loopback = || {
        UdpSocket::bind(SocketAddr::new(loopback, 0))
            .is_ok()
            .then_some(loopback)
    };
    pointed
        .ok()
        .map(|address| address.ip())
        .or_else(has_loopback)
}

#[cfg(test)]
mod tests {
    use umbel_proto::ids::NetworkId;
    use umbel_proto::network::Params;

    use super::*;

    fn addresses(found: &[(&str, &[&str])]) -> Addresses {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Addresses {
            listen: "0.0.0.0:7443".parse().unwrap(),
            network: Network {
                params: Params::DEFAULT,
                ..Network::local()
            },
            advertise: found.iter().map(|(name, _)| (*name).to_owned()).collect(),
            found: found
                .iter()
                .map(|(name, texts)| ((*name).to_owned(), parse(texts)))
                .collect(),
            current: Vec::new(),
            is_told: false,
        }
    }

    #[test]
    fn each_name_has_its_turn_and_v4_comes_first() {
        let found = addresses(&[
            (
                "a.example:1",
                &["[2600::1]:1", "8.0.0.1:1", "8.0.0.2:1", "8.0.0.3:1"],
            ),
            ("b.example:1", &["9.0.0.1:1", "8.0.0.1:1"]),
        ]);
        let wanted: Vec<String> = found.wanted().iter().map(SocketAddr::to_string).collect();
        assert_eq!(
            wanted,
            ["9.0.0.1:1", "8.0.0.1:1", "8.0.0.2:1", "[2600::1]:1"]
        );
        assert_eq!(found.host_port(), "a.example:1");
    }

    #[test]
    fn a_machine_that_listens_everywhere_has_an_address_of_each_family() {
        let network = Network {
            id: NetworkId([1; 32]),
            ..Network::local()
        };
        let own = own_addresses("[::]:7443".parse().unwrap(), &network);
        assert!(own.iter().any(SocketAddr::is_ipv4), "{own:?}");
        let has_v6 = UdpSocket::bind("[::1]:0").is_ok();
        assert_eq!(own.iter().any(SocketAddr::is_ipv6), has_v6, "{own:?}");
        assert!(
            own_addresses("0.0.0.0:1".parse().unwrap(), &network)
                .iter()
                .all(SocketAddr::is_ipv4)
        );
        let one = "127.0.0.1:5".parse().unwrap();
        assert_eq!(own_addresses(one, &network), [one]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unresolved_name_is_retried_and_then_reported() {
        let network = Network::local();
        let listen = "127.0.0.1:7443".parse().unwrap();
        let found = Addresses::find(&["nowhere.invalid:1".to_owned()], listen, &network).await;
        assert!(found.current().is_empty());
        assert_eq!(found.host_port(), "nowhere.invalid:1");
        let (advertise, watched) = watch::channel(vec!["nowhere.invalid:1".to_owned()]);
        let (asks, mut asked) = mpsc::channel(1);
        let task = tokio::spawn(found.watch(watched, asks, |_, _| ()));
        advertise.send(vec!["127.0.0.1:9".to_owned()]).unwrap();
        let Some(Ask::Addresses(addresses)) = asked.recv().await else {
            panic!("it is told")
        };
        assert_eq!(addresses, ["127.0.0.1:9".parse().unwrap()]);
        drop(advertise);
        task.await.unwrap();
    }
}
