//! The world: virtual time, the nodes in it, and what happens between them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};

use rand::rngs::ChaCha20Rng;
use rand::{Rng, RngExt, SeedableRng};
use umbel_client::core::{Command, Notice};
use umbel_proto::cell::Cell;
use umbel_proto::ids::{MessageId, Peer, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::network::{AddressGroups, Network as Overlay};
use umbel_proto::time::{Duration, Instant, WallTime};
use umbel_relay::control::io::{LinkUp, WorkDone};

use crate::adversary::CopyFate;
use crate::check;
use crate::client::{ClientEffect, ClientName, SimClient};
use crate::network::{EndId, Network, Node};
use crate::relay::{RelayEffect, RelayName, SimRelay};

/// How long a handshake takes to answer.
const WORK_TIME: Duration = Duration::from_micros(300);
/// How long a commit takes.
const COMMIT_TIME: Duration = Duration::from_millis(4);
/// How long a dial to nobody takes to fail.
const DIAL_FAILS_AFTER: Duration = Duration::from_millis(50);
/// How long a peer without padding may be silent.
const KEEPALIVE: Duration = Duration::from_secs(20);
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
    /// Calendars that are wrong, by how many seconds they are ahead.
    clocks: BTreeMap<Node, i64>,
    queue: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    /// The client whose machine stands still, and what has come for it meanwhile.
    suspended: Option<ClientName>,
    asleep: Vec<Event>,
    trace: DefaultHasher,
    steps: u64,
    /// Cells sent, delivered, and lost with their link.
    pub cells: CellCount,
    /// What became of each cell that a hostile relay sent a second time, followed from hop to hop.
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
}

enum Event {
    Cell {
        to: EndId,
        cell: Cell,
        is_copy: bool,
    },
    Dialled {
        from: Node,
        to: RelayName,
    },
    DialFailed {
        from: Node,
        relay: RelayId,
    },
    Work {
        relay: RelayName,
        incarnation: u64,
        done: WorkDone,
    },
    Commit {
        node: Node,
        incarnation: u64,
    },
    /// A client's shell finds that a link's peer is silent for longer than it may be.
    Quiet {
        client: usize,
        end: EndId,
    },
    /// A client hears of a link's end only now: it was asleep.
    Down {
        client: usize,
        end: EndId,
    },
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
            clocks: BTreeMap::new(),
            queue: BTreeMap::new(),
            next_event: 0,
            suspended: None,
            asleep: Vec::new(),
            trace: DefaultHasher::new(),
            steps: 0,
            cells: CellCount::default(),
            client_dials: Vec::new(),
            copies: Vec::new(),
        }
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
            self.add_relay_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + number)));
        }
        self
    }

    /// `count` more clients, up, each told of one relay.
    #[must_use]
    pub fn clients(mut self, count: usize) -> Self {
        for _ in 0..count {
            self.add_client();
        }
        self
    }

    /// One more relay, up, joining through the newest one, in an address group of its own.
    pub fn add_relay(&mut self) -> RelayName {
        let number = u16::try_from(self.relays.len()).unwrap_or(u16::MAX);
        let address = match (
            self.overlay.params.danger_address_groups,
            u8::try_from(number),
        ) {
            (AddressGroups::Prefix, Ok(group)) => {
                SocketAddr::from((Ipv4Addr::new(127, group, 0, 1), 10_000))
            }
            (AddressGroups::Prefix, Err(_)) | (AddressGroups::Port, _) => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + number))
            }
        };
        self.add_relay_at(address)
    }

    fn add_relay_at(&mut self, address: SocketAddr) -> RelayName {
        let number = self.relays.len();
        let seeds = self.relays.last().map(SimRelay::peer).into_iter().collect();
        let mut identity_seed = [0; 32];
        self.rng.fill_bytes(&mut identity_seed);
        self.relays
            .push(SimRelay::new(identity_seed, address, seeds));
        let name = RelayName(number);
        self.restart_relay(name);
        name
    }

    /// One more client, up, told of one relay.
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

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The calendar time.
    pub fn wall(&self) -> WallTime {
        WALL_START + self.now.since(Instant::from_micros(0))
    }

    /// What a node's calendar says.
    pub fn wall_of(&self, node: Node) -> WallTime {
        let ahead = self.clocks.get(&node).copied().unwrap_or(0);
        WallTime(self.wall().as_secs().saturating_add_signed(ahead))
    }

    /// From now on a node's calendar is so many seconds ahead; 0 sets it right.
    pub fn set_clock(&mut self, node: Node, ahead: i64) {
        self.clocks.insert(node, ahead);
    }

    /// A number that tells two runs apart: a hash of everything that happened so far.
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

    /// Kills a relay, between any write and its commit.
    pub fn crash_relay(&mut self, name: RelayName) {
        self.relays[name.0].crash();
        self.drop_links(Node::Relay(name.0));
    }

    /// Starts a relay that is down.
    pub fn restart_relay(&mut self, name: RelayName) {
        let (now, wall) = (self.now, self.wall_of(Node::Relay(name.0)));
        self.relays[name.0].start(&self.overlay, now, wall, &mut self.rng);
        self.drain(Node::Relay(name.0));
    }

    /// A relay that is down gets another address.
    pub fn move_relay(&mut self, name: RelayName) {
        let port = self.relays[name.0].address.port();
        self.relays[name.0].address.set_port(port + 10_000);
    }

    /// A client's machine stands still for so long, while the rest of the world goes on and this
    /// happens.
    pub fn suspend_client(
        &mut self,
        name: ClientName,
        time: Duration,
        meanwhile: impl FnOnce(&mut Self),
    ) {
        self.suspended = Some(name);
        meanwhile(self);
        self.run_for(time);
        self.suspended = None;
        let (now, wall) = (self.now, self.wall_of(Node::Client(name.0)));
        self.clients[name.0].on_timeout(now, wall, &mut self.rng);
        self.drain(Node::Client(name.0));
        for event in core::mem::take(&mut self.asleep) {
            self.schedule(Duration::ZERO, event);
        }
    }

    /// Kills a client, between any write and its commit.
    pub fn crash_client(&mut self, name: ClientName) {
        self.clients[name.0].crash();
        self.drop_links(Node::Client(name.0));
    }

    /// Fills a client's disk, or makes room on it.
    pub fn set_client_disk_full(&mut self, name: ClientName, is_full: bool) {
        self.clients[name.0].set_disk_full(is_full);
    }

    /// Starts a client that is down.
    pub fn restart_client(&mut self, name: ClientName) {
        let (now, wall) = (self.now, self.wall_of(Node::Client(name.0)));
        self.clients[name.0].start(&self.overlay, now, wall, &mut self.rng);
        self.drain(Node::Client(name.0));
    }

    /// These two can't reach each other until the network heals.
    pub fn cut(&mut self, a: Node, b: Node) {
        for end in self.network.cut(a, b) {
            self.break_link(end);
        }
    }

    /// Everything between this client and this relay is lost from now on, and nobody says so.
    pub fn silence(&mut self, client: ClientName, relay: RelayName) {
        let (a, b) = (Node::Client(client.0), Node::Relay(relay.0));
        self.network.silence(a, b);
        let params = &self.overlay.params;
        let quiet_max = Duration::from_secs(2)
            + if params.link_padding {
                params.padding_max
            } else {
                KEEPALIVE
            };
        for end in self
            .network
            .ends_at(a)
            .into_iter()
            .filter(|&end| self.network.swallows(end))
            .collect::<Vec<_>>()
        {
            self.schedule(
                quiet_max,
                Event::Quiet {
                    client: client.0,
                    end,
                },
            );
        }
    }

    /// Which relays clients dialled since then, one entry a dial.
    pub fn dialled_since(&self, since: Instant) -> Vec<RelayId> {
        self.client_dials
            .iter()
            .filter(|(at, _)| *at >= since)
            .map(|&(_, relay)| relay)
            .collect()
    }

    /// A user's command.
    pub fn command(&mut self, name: ClientName, command: Command) {
        let (now, wall) = (self.now, self.wall_of(Node::Client(name.0)));
        self.clients[name.0].command(now, wall, command, &mut self.rng);
        self.drain(Node::Client(name.0));
    }

    /// Sends a message; its id.
    pub fn send(&mut self, from: ClientName, address: &InboxAddress, body: Vec<u8>) -> MessageId {
        let id = MessageId(self.rng.random());
        self.command(
            from,
            Command::Send {
                id,
                address: *address,
                body,
                life: None,
            },
        );
        id
    }

    /// Makes an inbox and waits until it is ready: its address.
    ///
    /// # Panics
    /// It is not ready within two minutes.
    pub fn create_inbox(&mut self, owner: ClientName, name: &str) -> InboxAddress {
        self.command(
            owner,
            Command::CreateInbox {
                name: name.to_owned(),
            },
        );
        let is_ready = self.run_until(Duration::from_secs(120), |world| {
            world.has_notice(
                owner,
                |notice| matches!(notice, Notice::InboxReady { name: ready, .. } if ready == name),
            )
        });
        assert!(is_ready, "the inbox is ready in time; {}", self.describe());
        let core = self.clients[owner.0].core();
        core.and_then(|core| core.inbox_address(name))
            .unwrap_or_else(|| unreachable!("a ready inbox has an address"))
    }

    /// Whether a client has told its user something like this.
    pub fn has_notice(&self, name: ClientName, is_it: impl Fn(&Notice) -> bool) -> bool {
        self.clients[name.0]
            .notices
            .iter()
            .any(|(_, notice)| is_it(notice))
    }

    /// How many messages a client holds.
    pub fn message_count(&self, name: ClientName) -> usize {
        self.clients[name.0].disk.messages.len()
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass in which no machine runs: those that are up sleep, and wake afterwards.
    pub fn skip(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Lets time pass until something holds; whether it did in time.
    pub fn run_until(&mut self, time: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if holds(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return holds(self);
            }
        }
    }

    /// What a failed test prints: enough to see it again.
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
            "seed {}, {:?} after {} steps\n{}",
            self.seed,
            self.now,
            self.steps,
            notices.join("\n")
        )
    }

    /// One thing happens, if it does so by `end`.
    fn step(&mut self, end: Instant) -> bool {
        let event_at = self.queue.first_key_value().map(|(&(at, _), _)| at);
        let timer = self.next_timer();
        let (at, is_timer) = match (event_at, timer) {
            (Some(event), Some((timer, _))) if timer < event => (timer, true),
            (Some(event), _) => (event, false),
            (None, Some((timer, _))) => (timer, true),
            (None, None) => return false,
        };
        if at > end {
            return false;
        }
        self.now = self.now.max(at);
        self.steps += 1;
        let touched = if is_timer {
            self.fire(timer.map(|(_, node)| node))
        } else {
            self.next_event()
        };
        for node in touched {
            self.drain(node);
        }
        if let Err(fault) = check::step(self) {
            unreachable!("{fault}; {}", self.describe());
        }
        true
    }

    fn next_timer(&self) -> Option<(Instant, Node)> {
        let relays = self
            .relays
            .iter()
            .enumerate()
            .map(|(n, relay)| (relay.next_timeout(), Node::Relay(n)));
        let clients = self
            .clients
            .iter()
            .enumerate()
            .filter(|&(n, _)| self.suspended != Some(ClientName(n)));
        let clients = clients.map(|(n, client)| (client.next_timeout(), Node::Client(n)));
        relays
            .chain(clients)
            .filter_map(|(at, node)| Some((at?, node)))
            .min()
    }

    fn fire(&mut self, node: Option<Node>) -> Vec<Node> {
        let (now, wall) = (
            self.now,
            node.map_or(self.wall(), |node| self.wall_of(node)),
        );
        (now, node, "timer").hash(&mut self.trace);
        match node {
            Some(Node::Relay(n)) => self.relays[n].on_timeout(now, wall, &mut self.rng),
            Some(Node::Client(n)) => self.clients[n].on_timeout(now, wall, &mut self.rng),
            None => {}
        }
        node.into_iter().collect()
    }

    fn next_event(&mut self) -> Vec<Node> {
        let Some(((at, _), event)) = self.queue.pop_first() else {
            return Vec::new();
        };
        let now = self.now;
        at.hash(&mut self.trace);
        if self.is_for_suspended(&event) {
            self.asleep.push(event);
            return Vec::new();
        }
        match event {
            Event::Cell { to, cell, is_copy } => self.on_cell(to, cell, is_copy),
            Event::Dialled { from, to } => self.on_dialled(from, to),
            Event::DialFailed { from, relay } => {
                let wall = self.wall_of(from);
                match from {
                    Node::Relay(n) => self.relays[n].on_dial_failed(relay),
                    Node::Client(n) => {
                        self.clients[n].on_dial_failed(now, wall, relay, &mut self.rng);
                    }
                }
                vec![from]
            }
            Event::Quiet { client, end } => {
                let wall = self.wall_of(Node::Client(client));
                self.clients[client].on_link_quiet(now, wall, end, &mut self.rng);
                vec![Node::Client(client)]
            }
            Event::Down { client, end } => {
                let wall = self.wall_of(Node::Client(client));
                self.clients[client].on_link_down(now, wall, end, &mut self.rng);
                vec![Node::Client(client)]
            }
            Event::Work {
                relay,
                incarnation,
                done,
            } => {
                if self.relays[relay.0].incarnation() == incarnation {
                    self.relays[relay.0].on_work_done(now, done);
                }
                vec![Node::Relay(relay.0)]
            }
            Event::Commit { node, incarnation } => {
                let wall = self.wall_of(node);
                match node {
                    Node::Relay(n) if self.relays[n].incarnation() == incarnation => {
                        self.relays[n].on_commit(now, wall, &mut self.rng);
                    }
                    Node::Client(n) if self.clients[n].incarnation() == incarnation => {
                        self.clients[n].on_commit(now, wall, &mut self.rng);
                    }
                    _ => {}
                }
                vec![node]
            }
        }
    }

    fn on_cell(&mut self, to: EndId, cell: Cell, is_copy: bool) -> Vec<Node> {
        let now = self.now;
        self.cells.in_flight -= 1;
        let Some(end) = self.network.end(to) else {
            self.cells.lost += 1;
            self.copies.extend(is_copy.then_some(CopyFate::Lost));
            return Vec::new();
        };
        let wall = self.wall_of(end.node);
        self.cells.arrived += 1;
        (end.node, cell.as_bytes().as_slice()).hash(&mut self.trace);
        let before = self.complaints(end.node);
        let mut goes_on = false;
        match end.node {
            Node::Relay(n) => {
                let mut effects = self.relays[n].on_cell(now, wall, to, cell, &mut self.rng);
                if is_copy {
                    goes_on = send_as_copies(&mut effects);
                }
                self.run_relay_effects(n, effects);
            }
            Node::Client(n) => self.clients[n].on_cell(now, wall, to, cell, &mut self.rng),
        }
        if is_copy && !goes_on {
            self.copies.push(fate(before, self.complaints(end.node)));
        }
        vec![end.node]
    }

    fn is_for_suspended(&self, event: &Event) -> bool {
        let Some(ClientName(name)) = self.suspended else {
            return false;
        };
        let node = match event {
            Event::Cell { to, .. } => self.network.end(*to).map(|end| end.node),
            Event::Dialled { from, .. } | Event::DialFailed { from, .. } => Some(*from),
            Event::Commit { node, .. } => Some(*node),
            Event::Work { .. } | Event::Quiet { .. } | Event::Down { .. } => None,
        };
        node == Some(Node::Client(name))
    }

    fn complaints(&self, node: Node) -> (u64, u64) {
        match node {
            Node::Relay(n) => self.relays[n].complaints(),
            Node::Client(n) => self.clients[n].complaints(),
        }
    }

    fn on_dialled(&mut self, from: Node, to: RelayName) -> Vec<Node> {
        let (now, wall) = (self.now, self.wall_of(from));
        let target = Node::Relay(to.0);
        let target_wall = self.wall_of(target);
        let id = self.relays[to.0].id;
        let is_up = match from {
            Node::Relay(n) => self.relays[n].is_up(),
            Node::Client(n) => self.clients[n].is_up(),
        };
        if self.network.is_silent(from, target) {
            self.schedule(
                self.overlay.params.dial_timeout,
                Event::DialFailed { from, relay: id },
            );
            return Vec::new();
        }
        let hello = self.relays[to.0]
            .hello(target_wall)
            .filter(|_| is_up && !self.network.is_cut(from, target));
        let Some(hello) = hello else {
            self.schedule(DIAL_FAILS_AFTER, Event::DialFailed { from, relay: id });
            return Vec::new();
        };
        let (from_end, to_end) = self.network.connect(from, target, now);
        match from {
            Node::Relay(n) => {
                let peer = self.relays[n].id;
                let own = self.relays[n].hello(wall);
                let up = LinkUp {
                    peer: Some(id),
                    is_dialler: true,
                    hello,
                };
                self.relays[n].on_link_up(now, wall, from_end, up, &mut self.rng);
                if let Some(hello) = own {
                    let up = LinkUp {
                        peer: Some(peer),
                        is_dialler: false,
                        hello,
                    };
                    self.relays[to.0].on_link_up(now, target_wall, to_end, up, &mut self.rng);
                }
            }
            Node::Client(n) => {
                let own = umbel_proto::link::Hello {
                    descriptor: None,
                    clock: wall.to_hour(),
                    ..hello.clone()
                };
                self.clients[n].on_link_up(now, wall, from_end, id, hello, &mut self.rng);
                let up = LinkUp {
                    peer: None,
                    is_dialler: false,
                    hello: own,
                };
                self.relays[to.0].on_link_up(now, target_wall, to_end, up, &mut self.rng);
            }
        }
        vec![from, target]
    }

    fn drain(&mut self, node: Node) {
        match node {
            Node::Relay(n) => {
                let effects = self.relays[n].drain(&mut self.rng);
                self.run_relay_effects(n, effects);
            }
            Node::Client(n) => {
                let effects = self.clients[n].drain(self.now);
                self.run_client_effects(n, effects);
            }
        }
    }

    fn run_relay_effects(&mut self, n: usize, effects: Vec<RelayEffect>) {
        let incarnation = self.relays[n].incarnation();
        for effect in effects {
            match effect {
                RelayEffect::Send(end, cell) => self.send_cell(end, &cell, false),
                RelayEffect::SendCopy(end, cell) => self.send_cell(end, &cell, true),
                RelayEffect::Link(umbel_relay::control::io::LinkOp::Dial { relay, host_ports }) => {
                    self.dial(Node::Relay(n), relay, &host_ports);
                }
                RelayEffect::Link(umbel_relay::control::io::LinkOp::Close(link)) => {
                    self.break_link(EndId(link.0));
                }
                RelayEffect::Work(done) => {
                    self.schedule(
                        WORK_TIME,
                        Event::Work {
                            relay: RelayName(n),
                            incarnation,
                            done,
                        },
                    );
                }
                RelayEffect::Commit => {
                    let commit_time = COMMIT_TIME + self.relays[n].disk.delay;
                    self.schedule(
                        commit_time,
                        Event::Commit {
                            node: Node::Relay(n),
                            incarnation,
                        },
                    );
                }
            }
        }
    }

    fn run_client_effects(&mut self, n: usize, effects: Vec<ClientEffect>) {
        let incarnation = self.clients[n].incarnation();
        for effect in effects {
            match effect {
                ClientEffect::Send(end, cell) => self.send_cell(end, &cell, false),
                ClientEffect::Link(umbel_client::core::LinkOp::Dial { relay, host_ports }) => {
                    self.dial(Node::Client(n), relay, &host_ports);
                }
                ClientEffect::Link(umbel_client::core::LinkOp::Close(link)) => {
                    self.break_link(EndId(link.0));
                }
                ClientEffect::Commit => {
                    self.schedule(
                        COMMIT_TIME,
                        Event::Commit {
                            node: Node::Client(n),
                            incarnation,
                        },
                    );
                }
            }
        }
    }

    fn send_cell(&mut self, from: EndId, cell: &Cell, is_copy: bool) {
        self.cells.sent += 1;
        let jitter = Duration::from_micros(self.rng.random_range(0..1000));
        let to = self.network.end(from).map(|end| end.opposite);
        let arrival = self
            .network
            .arrival(from, self.now, jitter)
            .filter(|_| !self.network.swallows(from));
        let (Some(to), Some(at)) = (to, arrival) else {
            self.cells.lost += 1;
            self.copies.extend(is_copy.then_some(CopyFate::Lost));
            return;
        };
        // What arrives is the bytes, in a buffer of the receiver's.
        let mut arriving = Cell::blank();
        arriving.as_bytes_mut().copy_from_slice(cell.as_bytes());
        self.cells.in_flight += 1;
        self.schedule_at(
            at,
            Event::Cell {
                to,
                cell: arriving,
                is_copy,
            },
        );
    }

    fn dial(&mut self, from: Node, relay: RelayId, host_ports: &[String]) {
        if let Node::Client(_) = from {
            self.client_dials.push((self.now, relay));
        }
        let target = self.relay_named(relay).filter(|name| {
            let address = self.relays[name.0].address.to_string();
            host_ports.contains(&address)
        });
        // TCP, then TLS, then a hello each way.
        let handshake = self.network.latency * 5;
        match target {
            Some(to) => self.schedule(handshake, Event::Dialled { from, to }),
            None => self.schedule(DIAL_FAILS_AFTER, Event::DialFailed { from, relay }),
        }
    }

    fn break_link(&mut self, end: EndId) {
        let now = self.now;
        let told = self.network.disconnect(end);
        for &(node, end) in &told {
            let wall = self.wall_of(node);
            match node {
                Node::Relay(n) => self.relays[n].on_link_down(end),
                Node::Client(n) if self.suspended == Some(ClientName(n)) => {
                    self.asleep.push(Event::Down { client: n, end });
                }
                Node::Client(n) => self.clients[n].on_link_down(now, wall, end, &mut self.rng),
            }
        }
        for (node, _) in told {
            self.drain(node);
        }
    }

    fn drop_links(&mut self, node: Node) {
        for end in self.network.ends_at(node) {
            self.break_link(end);
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.schedule_at(self.now + after, event);
    }

    fn schedule_at(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.queue.insert((at, self.next_event), event);
    }
}

/// A relay that hands on a copy hands on a copy. Returns whether it did.
fn send_as_copies(effects: &mut [RelayEffect]) -> bool {
    let mut is_any = false;
    for effect in effects {
        if let RelayEffect::Send(end, cell) = effect {
            is_any = true;
            *effect = RelayEffect::SendCopy(*end, cell.clone());
        }
    }
    is_any
}

/// What a copy met with at a node that handed it on to nobody, by what the node had seen of that
/// before and since.
fn fate(
    (violations_before, stale_before): (u64, u64),
    (violations, stale): (u64, u64),
) -> CopyFate {
    if violations > violations_before {
        CopyFate::Noticed
    } else if stale > stale_before {
        CopyFate::Stale
    } else {
        CopyFate::Taken
    }
}
