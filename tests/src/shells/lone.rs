//! One relay on a bench: its real planes, with links, store, handshakes and time in the test's
//! hands.
//!
//! Smaller than a [`World`](crate::World), and harsher: the peers at its links may say anything at
//! all.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::Violation;
use umbel_proto::cell::Cell;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::{Age, Belief, BookRow, RelayDescriptor, Roles};
use umbel_proto::handshake::{HopTarget, OnionSecret};
use umbel_proto::ids::{CircId, NetworkId, RelayId};
use umbel_proto::inbox::holder::HolderLimits;
use umbel_proto::link::{Hello, LinkId, LinkOp};
use umbel_proto::network::Network;
use umbel_proto::time::{Duration, Instant, Moment, WallTime};
use umbel_relay::control::io::{Effect, LinkUp, News, Snapshot, Work, WorkDone};
use umbel_relay::control::{Control, ControlConfig};
use umbel_relay::forward::{LinkEvent, LinkTable, Verdict};

use crate::disk::RelayDisk;

/// When the bench's calendar begins.
pub const WALL_START: WallTime = WallTime(1_790_000_000);
/// How many circuits the relay takes: few, so that the limit is met.
pub const CIRCUITS_MAX: usize = 24;
/// Most bytes of frames that it holds.
pub const FRAMES_BYTES_MAX: usize = 1 << 20;

/// Another relay, which exists only as far as this one can tell.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct Neighbour {
    /// Who it is.
    pub id: RelayId,
    /// The key that answers its handshakes.
    pub onion: OnionSecret,
    /// Its signed descriptor.
    pub descriptor: Vec<u8>,
}

impl Neighbour {
    /// The neighbour with this number.
    pub fn new(network: NetworkId, number: u8) -> Self {
        let key = SigningKey::from_seed(&[number; 32]);
        let onion = OnionSecret::from_seed(&[number.wrapping_add(128); 32]);
        let id = RelayId(key.public().0);
        let descriptor = RelayDescriptor {
            network,
            relay: id,
            onion_keys: vec![onion.public()],
            addresses: vec![SocketAddr::from((
                Ipv4Addr::new(127, 0, 0, 1),
                9000 + u16::from(number),
            ))],
            roles: Roles::HOLDER | Roles::DIRECTORY,
            version: "0.1.0".to_owned(),
            issued_at: WALL_START,
            receipts: Vec::new(),
            puzzle: 0,
        }
        .sign(&key);
        Self {
            id,
            onion,
            descriptor,
        }
    }

    /// How a client extends to it.
    pub fn target(&self) -> HopTarget {
        HopTarget {
            relay: self.id,
            onion_key: self.onion.public(),
        }
    }
}

/// The relay, and what it wants of the world that it has not got yet.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct LoneRelay {
    /// The control plane.
    pub control: Control,
    /// The relay's monotonic clock.
    pub now: Instant,
    /// The bench's randomness.
    pub rng: ChaCha20Rng,
    /// Its network.
    pub network: Network,
    /// Relays that it knows of from the start.
    pub neighbours: Vec<Neighbour>,
    /// Cells it sent, by the link they left on.
    pub sent: Vec<(LinkId, Cell)>,
    /// Links it wants made or closed.
    pub link_ops: Vec<LinkOp>,
    /// Handshakes not answered yet.
    pub works: Vec<Work>,
    /// News for its operator.
    pub news: Vec<News>,
    /// Cells that belonged to no circuit.
    pub stale_cells: u64,
    disk: RelayDisk,
    clock_ahead: i64,
    tables: BTreeMap<LinkId, LinkTable<LinkId>>,
}

impl LoneRelay {
    /// A relay that knows this many others.
    pub fn new(neighbours: u8) -> Self {
        Self::in_network(Network::local(), neighbours)
    }

    /// A relay of this network that knows this many others, all at one address.
    pub fn in_network(network: Network, neighbours: u8) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let neighbours: Vec<_> = (1..=neighbours)
            .map(|number| Neighbour::new(network.id, number))
            .collect();
        let config = ControlConfig {
            network: network.clone(),
            identity: SigningKey::from_seed(&[99; 32]),
            addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9000))],
            roles: Roles::HOLDER | Roles::DIRECTORY,
            seeds: Vec::new(),
            holder: HolderLimits::of_network(&network.params),
            circuits_max: CIRCUITS_MAX,
            frames_bytes_max: FRAMES_BYTES_MAX,
            inbox_descriptors_max: 4,
        };
        let age = Age {
            first_seen: WALL_START,
            belief: Belief::Given(WALL_START),
            there_since: WALL_START,
        };
        let relays = neighbours
            .iter()
            .map(|neighbour| BookRow {
                descriptor: neighbour.descriptor.clone(),
                age,
            })
            .collect();
        let restored = Snapshot {
            relays,
            ..Snapshot::default()
        };
        let now = Instant::from_micros(1_000_000);
        let mut relay = Self {
            control: Control::new(
                config,
                restored,
                Moment {
                    now,
                    wall: WALL_START,
                },
                &mut rng,
            ),
            now,
            rng,
            network,
            neighbours,
            sent: Vec::new(),
            link_ops: Vec::new(),
            works: Vec::new(),
            news: Vec::new(),
            stale_cells: 0,
            disk: RelayDisk::default(),
            clock_ahead: 0,
            tables: BTreeMap::new(),
        };
        relay.drain();
        relay
    }

    /// Who its neighbours are.
    pub fn neighbour_ids(&self) -> Vec<RelayId> {
        let neighbours = self.neighbours.iter();
        neighbours.map(|neighbour| neighbour.id).collect()
    }

    /// How a client makes a circuit to it.
    pub fn target(&self) -> Option<HopTarget> {
        let own = self.control.view().get(&self.control.relay_id())?;
        Some(own.hop_target())
    }

    /// The relay's calendar.
    pub fn wall(&self) -> WallTime {
        let right = WALL_START + self.now.since(Instant::default());
        WallTime(right.as_secs().saturating_add_signed(self.clock_ahead))
    }

    /// Both its clocks.
    pub fn moment(&self) -> Moment {
        Moment {
            now: self.now,
            wall: self.wall(),
        }
    }

    /// From now on the relay's calendar is this many seconds ahead.
    pub fn set_clock(&mut self, ahead: i64) {
        self.clock_ahead = ahead;
    }

    /// Links that are up.
    pub fn links(&self) -> impl Iterator<Item = LinkId> {
        self.tables.keys().copied()
    }

    /// Whether this link is up.
    pub fn is_up(&self, link: LinkId) -> bool {
        self.tables.contains_key(&link)
    }

    /// Entries in the tables of all links.
    pub fn table_len(&self) -> usize {
        self.tables.values().map(LinkTable::len).sum()
    }

    /// A link is up: to this relay, or to a client.
    pub fn link_up(&mut self, link: LinkId, peer: Option<RelayId>, is_dialler: bool) {
        self.link_up_with_clock(link, peer, is_dialler, 0);
    }

    /// A link is up with a peer whose clock is this many seconds ahead.
    pub fn link_up_with_clock(
        &mut self,
        link: LinkId,
        peer: Option<RelayId>,
        is_dialler: bool,
        ahead: u64,
    ) {
        let hello = Hello {
            clock: self.wall() + Duration::from_secs(ahead),
            ..Hello::of_client(self.network.id, self.wall())
        };
        self.tables.insert(link, LinkTable::new());
        self.control.handle_link_up(
            self.moment(),
            link,
            LinkUp {
                peer,
                is_dialler,
                remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000)),
                hello,
            },
            &mut self.rng,
        );
        self.drain();
    }

    /// A link is gone.
    pub fn link_down(&mut self, link: LinkId) {
        if self.tables.remove(&link).is_some() {
            self.control
                .handle_link_down(self.moment(), link, &mut self.rng);
            self.drain();
        }
    }

    /// A cell arrives, and goes where a link's task would take it.
    pub fn cell(&mut self, link: LinkId, mut cell: Cell) {
        let Some(table) = self.tables.get_mut(&link) else {
            return;
        };
        match table.handle_cell(&mut cell) {
            Verdict::Onward(&next) => self.sent.push((next, cell)),
            told @ (Verdict::Deliver(_) | Verdict::Control | Verdict::Broken(..)) => {
                let event = told.into_event(cell);
                event.into_iter().for_each(|event| self.event(link, event));
            }
            Verdict::Padding => {}
            Verdict::Stale => self.stale_cells += 1,
            Verdict::Close(_) => self.link_ops.push(LinkOp::Close(link)),
        }
    }

    /// A queue overran.
    pub fn overrun(&mut self, link: LinkId, circ: CircId) {
        self.event(link, LinkEvent::Broken(circ, Violation::Window));
    }

    fn event(&mut self, link: LinkId, event: LinkEvent) {
        self.control
            .handle_event(self.moment(), link, event, &mut self.rng);
        self.drain();
    }

    /// All handshakes that wait are answered.
    pub fn answer_works(&mut self) {
        for Work { id, onionskin } in std::mem::take(&mut self.works) {
            let result = self.control.responder().respond(&onionskin, &mut self.rng);
            self.control
                .handle_work_done(self.moment(), WorkDone { id, result }, &mut self.rng);
        }
        self.drain();
    }

    /// The store commits.
    pub fn commit(&mut self) {
        let moment = self.moment();
        for done in self.disk.commit() {
            self.control.handle_stored(moment, done, &mut self.rng);
        }
        self.drain();
    }

    /// A dial failed.
    pub fn dial_failed(&mut self, relay: RelayId) {
        self.control
            .handle_dial_failed(self.moment(), relay, &mut self.rng);
        self.drain();
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let moment = self.moment();
        self.control.handle_timeout(moment, &mut self.rng);
        self.drain();
    }

    /// The relay stops.
    pub fn stop(&mut self) {
        let moment = self.moment();
        self.control.handle_stop(moment, &mut self.rng);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.control.poll_effect() {
            match effect {
                Effect::Table(link, update) => {
                    if let Some(table) = self.tables.get_mut(&link) {
                        table.apply(update);
                    }
                }
                Effect::Cell(link, cell) => self.sent.push((link, cell)),
                Effect::Link(op) => self.link_ops.push(op),
                Effect::Work(work) => self.works.push(work),
                // Nobody answers: the bench has no other relay.
                Effect::Probe(..) => {}
                Effect::News(news) => self.news.push(news),
                Effect::Store(op) => self.disk.write(op),
            }
        }
    }
}
