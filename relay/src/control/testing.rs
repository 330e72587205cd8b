//! A context for machines in their tests.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::{Book, RelayDescriptor, Roles, Unverified};
use umbel_proto::handshake::OnionSecret;
use umbel_proto::ids::{NetworkId, Peer, RelayId};
use umbel_proto::inbox::holder::HolderLimits;
use umbel_proto::link::LinkId;
use umbel_proto::network::Network;
use umbel_proto::time::{ClockGuard, Duration, Instant, Moment, PeerClock, WallTime};

use super::ControlConfig;
use super::admit::create_rate;
use super::context::{Context, Out, Shared, Signal};
use super::io::ControlStats;
use super::links::{Links, Up};
use super::timers::Timers;

/// The network of all: that of a file, since relays have addresses beyond one machine.
const NETWORK: NetworkId = NetworkId([5; NetworkId::LEN]);
/// The other end of a link, where a test doesn't say.
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000);

/// A relay's surroundings, in which every other relay is a seed.
pub(super) struct Bench {
    pub(super) shared: Shared,
    pub(super) moment: Moment,
    rng: ChaCha20Rng,
}

impl Bench {
    pub(super) fn new(others: u16) -> Self {
        let network = Network {
            id: NETWORK,
            ..Network::local()
        };
        let identity = SigningKey::from_seed(&[99; 32]);
        let seeds = (0..others).map(|number| Peer {
            id: other(number),
            host_port: format!("other-{number}.example:9000"),
        });
        let (now, wall) = (Instant::from_micros(1_000_000), WallTime(1_790_000_000));
        let moment = Moment { now, wall };
        let shared = Shared {
            relay: RelayId::from(identity.public()),
            config: ControlConfig {
                identity,
                addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9000))],
                roles: Roles::HOLDER | Roles::DIRECTORY,
                seeds: seeds.collect(),
                holder: HolderLimits::of_network(&network.params),
                circuits_max: 8,
                frames_bytes_max: 1 << 20,
                inbox_descriptors_max: 4,
                network,
            },
            book: Book::new(),
            links: Links::default(),
            clock: ClockGuard::restore(None, now, wall).0,
            timers: Timers::default(),
            stats: ControlStats::default(),
            signals: VecDeque::new(),
            out: Out::default(),
        };
        Self {
            shared,
            moment,
            rng: ChaCha20Rng::seed_from_u64(1),
        }
    }

    pub(super) fn context(&mut self) -> Context<'_> {
        self.shared.context(self.moment, &mut self.rng)
    }

    /// Time passes, by either clock.
    pub(super) fn pass(&mut self, time: Duration) {
        self.moment.now = self.moment.now + time;
        self.moment.wall = self.moment.wall + time;
    }

    /// Another relay becomes known, at these addresses.
    pub(super) fn learn(&mut self, number: u8, addresses: &[&str]) -> RelayId {
        let identity = SigningKey::from_seed(&[number; 32]);
        let descriptor = RelayDescriptor {
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            ..said(
                &identity,
                &OnionSecret::from_seed(&[number; 32]),
                9000,
                self.moment.wall,
            )
        };
        let descriptor = Unverified::decode(&descriptor.sign(&identity)).unwrap();
        let relay = identity.public().into();
        self.context().learn(None, descriptor);
        assert!(self.context().view().get(&relay).is_some());
        relay
    }

    /// A link to a client is up.
    pub(super) fn link(&mut self, number: u64) -> LinkId {
        self.add_link(number, None, HERE, false)
    }

    /// A link to another relay is up.
    pub(super) fn link_to(&mut self, number: u64, relay: RelayId) -> LinkId {
        self.add_link(number, Some(relay), HERE, false)
    }

    /// A link to another relay is up, whose end is there.
    pub(super) fn link_at(&mut self, number: u64, relay: RelayId, remote: SocketAddr) -> LinkId {
        self.add_link(number, Some(relay), remote, false)
    }

    /// The same, and this relay dialled it.
    pub(super) fn dialled_at(&mut self, number: u64, relay: RelayId, remote: SocketAddr) -> LinkId {
        self.add_link(number, Some(relay), remote, true)
    }

    fn add_link(
        &mut self,
        number: u64,
        peer: Option<RelayId>,
        remote: SocketAddr,
        is_dialler: bool,
    ) -> LinkId {
        let link = LinkId(number);
        let cx = self.context();
        let creates = create_rate(cx.params(), false, cx.now);
        let clock = PeerClock::said(cx.now, cx.wall);
        let up = Up {
            at: cx.now,
            peer,
            is_dialler,
            remote,
            hop: None,
        };
        cx.links.add(link, up, creates, clock);
        link
    }

    /// The signals between machines.
    pub(super) fn signals(&mut self) -> Vec<Signal> {
        self.shared.signals.drain(..).collect()
    }
}

/// The descriptor of a relay with this identity, at one loopback port.
pub(super) fn descriptor(
    identity: &SigningKey,
    onion: &OnionSecret,
    port: u16,
    issued_at: WallTime,
) -> Unverified {
    let said = said(identity, onion, port, issued_at);
    Unverified::decode(&said.sign(identity)).unwrap()
}

/// The same, not signed.
fn said(
    identity: &SigningKey,
    onion: &OnionSecret,
    port: u16,
    issued_at: WallTime,
) -> RelayDescriptor {
    RelayDescriptor {
        network: NETWORK,
        relay: RelayId::from(identity.public()),
        onion_keys: vec![onion.public()],
        addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))],
        roles: Roles::HOLDER | Roles::DIRECTORY,
        version: "0.1.0".to_owned(),
        issued_at,
        receipts: Vec::new(),
        puzzle: 0,
    }
}

/// Another relay's name.
pub(super) fn other(number: u16) -> RelayId {
    let [high, low] = number.to_be_bytes();
    let mut id = [7; 32];
    (id[0], id[1]) = (high, low);
    RelayId(id)
}
