//! What machines act with in their tests.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::{Book, Roles};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::inbox::holder::HolderLimits;
use umbel_proto::link::LinkId;
use umbel_proto::network::Network;
use umbel_proto::time::{ClockGuard, Instant, Moment, PeerClock, WallTime};

use super::ControlConfig;
use super::admit::CreateLimit;
use super::context::{Context, Out, Shared};
use super::io::ControlStats;
use super::links::Links;
use super::timers::Timers;

/// A relay's surroundings, in which every other relay is a seed.
pub(super) struct Bench {
    pub(super) shared: Shared,
    rng: ChaCha20Rng,
}

impl Bench {
    pub(super) fn new(others: u16) -> Self {
        let network = Network::local();
        let identity = SigningKey::from_seed(&[99; 32]);
        let seeds = (0..others).map(|number| Peer {
            id: other(number),
            host_port: format!("other-{number}.example:9000"),
        });
        let (now, wall) = (moment().now, moment().wall);
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
            rng: ChaCha20Rng::seed_from_u64(1),
        }
    }

    pub(super) fn context(&mut self) -> Context<'_> {
        self.shared.context(moment(), &mut self.rng)
    }

    /// A link to a client is up.
    pub(super) fn link(&mut self, number: u64) -> LinkId {
        let link = LinkId(number);
        let cx = self.context();
        let creates = CreateLimit::new(cx.params(), false, cx.now);
        let clock = PeerClock::said(cx.now, cx.wall);
        cx.links.add(link, None, false, creates, clock);
        link
    }
}

pub(super) fn moment() -> Moment {
    Moment {
        now: Instant::from_micros(1_000_000),
        wall: WallTime(1_790_000_000),
    }
}

/// Another relay's name.
pub(super) fn other(number: u16) -> RelayId {
    let [high, low] = number.to_be_bytes();
    let mut id = [7; 32];
    (id[0], id[1]) = (high, low);
    RelayId(id)
}
