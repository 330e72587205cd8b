//! The world: virtual time, the nodes in it, and what happens between them.

mod agenda;
pub mod check;
mod effects;
mod events;
mod faults;
mod liveness;
pub mod network;
mod sockets;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::network::{AddressGroups, Network as Overlay};
use umbel_proto::time::{Duration, Instant, Moment, WallTime};

use crate::adversary::CopyFate;
use crate::shells::{ClientName, Input, RelayName, SimClient, SimRelay};
use agenda::{Agenda, Due};
use events::Event;
use liveness::Livenesses;
use network::{Network, Node};

/// How many steps pass between two checks of the whole world. After every other step only the nodes
/// that it touched are checked.
const WHOLE_CHECK_STEPS: u64 = 1024;
/// How many timers a failed test prints.
const TIMERS_DESCRIBED: usize = 8;
/// When the world begins.
const WALL_START: WallTime = WallTime(1_790_000_000);

/// A world of relays and clients.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct World {
    seed: u64,
    overlay: Overlay,
    now: Instant,
    rng: ChaCha20Rng,
    network: Network,
    relays: Vec<SimRelay>,
    clients: Vec<SimClient>,
    /// Whether every second relay that comes has an IPv6 address besides.
    has_ipv6: bool,
    /// Calendars that are wrong, by how many seconds they are ahead.
    clocks: BTreeMap<Node, i64>,
    agenda: Agenda,
    liveness: Livenesses,
    /// Nodes that changed since the last check.
    touched: BTreeSet<Node>,
    /// The client whose machine stands still, and what has come for it meanwhile.
    suspended: Option<ClientName>,
    asleep: Vec<Event>,
    trace: DefaultHasher,
    steps: u64,
    /// What became of the cells.
    pub cells: CellCount,
    /// The fate of each cell that a hostile relay sent a second time, followed from hop to hop.
    pub copies: Vec<CopyFate>,
    client_dials: Vec<(Instant, RelayId)>,
}

/// Where every cell went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CellCount {
    /// Handed to a link.
    pub sent: u64,
    /// Handed to the node at its other end.
    pub arrived: u64,
    /// On a link that broke, or was closed before.
    pub lost: u64,
    /// On the way now.
    pub in_flight: u64,
    /// In a relay's queue now.
    pub waiting: u64,
    /// Of circuits that overran a relay's queue.
    pub dropped: u64,
    /// How many of those sent only keep their link alive.
    pub padding: u64,
}

impl World {
    /// An empty world with the parameters of the `local` network.
    pub fn new(seed: u64) -> Self {
        Self::with_overlay(seed, Overlay::local())
    }

    /// An empty world of this network.
    pub fn with_overlay(seed: u64, overlay: Overlay) -> Self {
        Self {
            seed,
            overlay,
            now: Instant::from_micros(0),
            rng: ChaCha20Rng::seed_from_u64(seed),
            network: Network::new(Duration::from_millis(5)),
            relays: Vec::new(),
            clients: Vec::new(),
            has_ipv6: false,
            clocks: BTreeMap::new(),
            agenda: Agenda::default(),
            liveness: Livenesses::default(),
            touched: BTreeSet::new(),
            suspended: None,
            asleep: Vec::new(),
            trace: DefaultHasher::new(),
            steps: 0,
            cells: CellCount::default(),
            client_dials: Vec::new(),
            copies: Vec::new(),
        }
    }

    /// From now on every second relay that comes has an IPv6 address besides, in a group of its own.
    #[must_use]
    pub const fn with_ipv6(mut self) -> Self {
        self.has_ipv6 = true;
        self
    }

    /// `count` relays that the network file names as seeds, up, each with the others as its seeds.
    #[must_use]
    pub fn founders(mut self, count: usize) -> Self {
        for _ in 0..count {
            let (seed, address) = (self.next_identity(), self.next_address());
            let mut relay = SimRelay::new(seed, address, Vec::new());
            relay.second_address = self.next_second_address();
            self.relays.push(relay);
        }
        self.overlay.seeds = self.relays.iter().map(SimRelay::peer).collect();
        for relay in &mut self.relays {
            let others = self.overlay.seeds.iter().filter(|seed| seed.id != relay.id);
            relay.seeds = others.cloned().collect();
        }
        for number in 0..count {
            self.restart_relay(RelayName(number));
        }
        self
    }

    /// `count` more relays, up, each joining through the one before it.
    #[must_use]
    pub fn relays(mut self, count: usize) -> Self {
        for _ in 0..count {
            self.add_relay();
        }
        self
    }

    /// `count` more relays that all have addresses in the group of the first.
    #[must_use]
    pub fn relays_in_one_group(mut self, count: usize) -> Self {
        for number in 0..u16::try_from(count).unwrap_or(u16::MAX) {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + number));
            self.add_relay_at(address, |_| ());
        }
        self
    }

    /// `count` more clients, up, each with one seed.
    #[must_use]
    pub fn clients(mut self, count: usize) -> Self {
        for _ in 0..count {
            self.add_client();
        }
        self
    }

    /// One more relay, up, joining through the newest one, in an address group of its own.
    pub fn add_relay(&mut self) -> RelayName {
        self.add_relay_as(|_| ())
    }

    /// The same, but for this.
    pub fn add_relay_as(&mut self, change: impl FnOnce(&mut SimRelay)) -> RelayName {
        let address = self.next_address();
        self.add_relay_at(address, change)
    }

    /// An address in a group of its own.
    fn next_address(&self) -> SocketAddr {
        let number = u16::try_from(self.relays.len()).unwrap_or(u16::MAX);
        match (
            self.overlay.params.danger_address_groups,
            u8::try_from(number),
        ) {
            (AddressGroups::Prefix, Ok(group)) => {
                SocketAddr::from((Ipv4Addr::new(127, group, 0, 1), 10_000))
            }
            (AddressGroups::Prefix, Err(_)) | (AddressGroups::Port, _) => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + number))
            }
        }
    }

    fn next_second_address(&self) -> Option<SocketAddr> {
        let number = u16::try_from(self.relays.len()).ok()?;
        let ip = Ipv6Addr::new(0xfd00, number, 0, 0, 0, 0, 0, 1);
        (self.has_ipv6 && number % 2 == 0).then(|| SocketAddr::from((ip, 10_000)))
    }

    fn next_identity(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }

    fn add_relay_at(
        &mut self,
        address: SocketAddr,
        change: impl FnOnce(&mut SimRelay),
    ) -> RelayName {
        let number = self.relays.len();
        let seeds = self.relays.last().map(SimRelay::peer).into_iter().collect();
        let mut relay = SimRelay::new(self.next_identity(), address, seeds);
        relay.second_address = self.next_second_address();
        change(&mut relay);
        self.relays.push(relay);
        let name = RelayName(number);
        self.restart_relay(name);
        name
    }

    /// One more client, up, with one seed.
    pub fn add_client(&mut self) -> ClientName {
        let seeds: Vec<Peer> = self
            .relays
            .first()
            .map(SimRelay::peer)
            .into_iter()
            .collect();
        self.clients.push(SimClient::new(seeds));
        let name = ClientName(self.clients.len() - 1);
        self.restart_client(name);
        name
    }

    /// One more client, up, with a copy of this one's profile.
    pub fn copy_client(&mut self, name: ClientName) -> ClientName {
        let copy = self.clients[name.0].copy();
        self.clients.push(copy);
        let name = ClientName(self.clients.len() - 1);
        self.restart_client(name);
        name
    }

    /// From its next start on, this client has this relay as a seed, where the relay is now.
    pub fn add_seed(&mut self, name: ClientName, relay: RelayName) {
        let seed = self.relays[relay.0].peer();
        self.clients[name.0].add_seed(seed);
    }

    /// The network file.
    pub const fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The calendar time.
    pub fn wall(&self) -> WallTime {
        WALL_START + self.now.since(Instant::from_micros(0))
    }

    /// A node's calendar.
    pub fn wall_of(&self, node: Node) -> WallTime {
        let ahead = self.clocks.get(&node).copied().unwrap_or(0);
        WallTime(self.wall().as_secs().saturating_add_signed(ahead))
    }

    /// Both clocks of a node.
    pub(crate) fn moment_of(&self, node: Node) -> Moment {
        Moment {
            now: self.now,
            wall: self.wall_of(node),
        }
    }

    /// Something happens to a node.
    fn tell(&mut self, node: Node, input: Input) {
        let moment = self.moment_of(node);
        match node {
            Node::Relay(n) => self.relays[n].handle(moment, input, &mut self.rng),
            Node::Client(n) => self.clients[n].handle(moment, input, &mut self.rng),
        }
    }

    /// A hash of everything that happened so far: equal for equal runs.
    pub fn fingerprint(&self) -> u64 {
        self.trace.finish()
    }

    /// How many things have happened.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// All relays.
    pub fn all_relays(&self) -> &[SimRelay] {
        &self.relays
    }

    /// All clients.
    pub fn all_clients(&self) -> &[SimClient] {
        &self.clients
    }

    /// This relay.
    pub fn relay(&mut self, name: RelayName) -> &mut SimRelay {
        &mut self.relays[name.0]
    }

    /// This client.
    pub fn client(&self, name: ClientName) -> &SimClient {
        &self.clients[name.0]
    }

    /// The relay with this id.
    pub fn relay_named(&self, id: RelayId) -> Option<RelayName> {
        self.relays
            .iter()
            .position(|relay| relay.id == id)
            .map(RelayName)
    }

    /// The network, to cut and heal.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.end_run(end);
    }

    /// Lets time pass until something holds; whether it did in time.
    pub fn run_until(&mut self, time: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if holds(self) {
                self.end_run(self.now);
                return true;
            }
            if !self.step(end) {
                self.end_run(end);
                return holds(self);
            }
        }
    }

    /// Lets time pass until something holds.
    ///
    /// # Panics
    /// It does not hold in time.
    #[track_caller]
    pub fn expect_within(&mut self, time: Duration, holds: impl FnMut(&Self) -> bool) {
        let is_in_time = self.run_until(time, holds);
        assert!(is_in_time, "not within {time:?}: {}", self.describe());
    }

    /// The output of a failed test: enough to repeat it.
    pub fn describe(&self) -> String {
        let notices: Vec<String> = self
            .clients
            .iter()
            .enumerate()
            .map(|(number, client)| {
                format!(
                    "client {number}: {:?}",
                    client.notices.iter().rev().take(12).collect::<Vec<_>>()
                )
            })
            .collect();
        format!(
            "seed {}, {:?} after {} steps\nnext: {}\n{}",
            self.seed,
            self.now,
            self.steps,
            self.describe_timers(),
            notices.join("\n")
        )
    }

    /// The timers that expire next, and what relays want theirs for.
    fn describe_timers(&self) -> String {
        let timers = self
            .agenda
            .timers()
            .take(TIMERS_DESCRIBED)
            .map(|(at, node)| {
                let wake = match node {
                    Node::Relay(n) => self.relays[n].next_timeout().map(|(_, wake)| wake),
                    Node::Client(_) => None,
                };
                match wake {
                    Some(wake) => format!("{node:?} at {at:?} for {wake:?}"),
                    None => format!("{node:?} at {at:?}"),
                }
            });
        timers.collect::<Vec<_>>().join(", ")
    }

    /// One thing happens, if it does so by `end`.
    fn step(&mut self, end: Instant) -> bool {
        let Some((at, due)) = self.agenda.pop(end) else {
            return false;
        };
        self.now = self.now.max(at);
        self.steps += 1;
        let reached = match due {
            Due::Timer(node) => self.fire(node),
            Due::Event(event) => self.on_event(at, event),
        };
        for node in reached {
            self.drain(node);
        }
        let checked = if self.steps.is_multiple_of(WHOLE_CHECK_STEPS) {
            check::world(self)
        } else {
            check::nodes(self, &self.touched)
        };
        self.expect(checked);
        self.touched.clear();
        true
    }

    /// Ends a run: the whole world must be sound.
    fn end_run(&mut self, end: Instant) {
        self.now = end;
        self.expect(check::world(self));
    }

    fn expect(&self, checked: Result<(), String>) {
        if let Err(fault) = checked {
            unreachable!("{fault}; {}", self.describe());
        }
    }

    /// A node may have changed: it is checked after this step, and asked when it wants to be woken.
    fn touch(&mut self, node: Node) {
        let at = match node {
            Node::Relay(n) => self.relays[n].next_timeout().map(|(at, _)| at),
            Node::Client(n) if self.suspended == Some(ClientName(n)) => None,
            Node::Client(n) => self.clients[n].next_timeout(),
        };
        self.agenda.arm(node, at);
        self.touched.insert(node);
    }
}
