//! A relay of the world: the real planes, and a shell that lives in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rand::CryptoRng;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::descriptor::Roles;
use umbel_proto::ids::{CircId, Peer, RelayId};
use umbel_proto::inbox::holder::HolderLimits;
use umbel_proto::link::{Hello, LinkId, LinkOp};
use umbel_proto::message::{RelayMsg, Service};
use umbel_proto::network::Network;
use umbel_proto::onion::transit;
use umbel_proto::time::{Instant, Moment, WallTime};
use umbel_relay::control::io::{Effect, LinkUp, Wake, Work, WorkDone};
use umbel_relay::control::{Control, ControlConfig};
use umbel_relay::forward::{LinkEvent, LinkTable, TableUpdate, Verdict};

use crate::adversary::Adversary;
use crate::disk::RelayDisk;

/// Names a relay of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayName(pub usize);

/// A relay: its disk, and its planes while it is up.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct SimRelay {
    /// Who it is.
    pub id: RelayId,
    /// Where it is.
    pub address: SocketAddr,
    /// Its disk.
    pub disk: RelayDisk,
    /// Its tampering with cells, if it is hostile.
    pub adversary: Option<Adversary>,
    /// Whether it destroys every circuit on which it is asked for a mailbox, and is honest but for
    /// that.
    pub breaks_mailboxes: bool,
    /// Which circuits it destroys, if it is hostile.
    pub sabotage: Option<Sabotage>,
    /// Why circuits through it died.
    pub broken: Vec<Violation>,
    /// Cells of circuits that were just gone, over all its lives.
    pub stale_cells: u64,
    client_ends: BTreeSet<LinkId>,
    /// How many cells it handed on of each circuit, by where they came from.
    passed: BTreeMap<(LinkId, u32), usize>,
    identity_seed: [u8; 32],
    seeds: Vec<Peer>,
    live: Option<Live>,
    /// Counts its lives: a request of an earlier one is not answered in this one.
    incarnation: u64,
}

/// Which circuits a hostile relay destroys: the relay itself is the real one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Those that it is to extend.
    Extends,
    /// Those of which it has handed on more cells than this, one way.
    Onward(usize),
    /// The same, but it forwards nothing more, and says nothing.
    Silence(usize),
}

struct Live {
    control: Control,
    tables: BTreeMap<LinkId, LinkTable<LinkId>>,
}

/// An effect that a relay asks for.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub enum RelayEffect {
    /// Send a cell.
    Send(LinkId, Cell),
    /// Send a cell that was sent before.
    SendCopy(LinkId, Cell),
    /// Dial or close.
    Link(LinkOp),
    /// Answer a handshake.
    Work(WorkDone),
    /// Commit what was written, soon.
    Commit,
}

impl SimRelay {
    /// A relay that is down.
    pub fn new(identity_seed: [u8; 32], address: SocketAddr, seeds: Vec<Peer>) -> Self {
        let id = RelayId(SigningKey::from_seed(&identity_seed).public().0);
        Self {
            id,
            address,
            disk: RelayDisk::default(),
            adversary: None,
            breaks_mailboxes: false,
            sabotage: None,
            passed: BTreeMap::new(),
            broken: Vec::new(),
            stale_cells: 0,
            client_ends: BTreeSet::new(),
            identity_seed,
            seeds,
            live: None,
            incarnation: 0,
        }
    }

    /// How others name it.
    pub fn peer(&self) -> Peer {
        Peer {
            id: self.id,
            host_port: self.address.to_string(),
        }
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.live.is_some()
    }

    /// Which of its lives this is.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Its control plane, while it is up.
    pub fn control(&self) -> Option<&Control> {
        self.live.as_ref().map(|live| &live.control)
    }

    /// How many rules were broken, and how many cells came for circuits that were over, as far as
    /// it saw in this life.
    pub(crate) fn complaints(&self) -> (u64, u64) {
        let stats = self.control().map(Control::stats);
        let (violations, stale) =
            stats.map_or((0, 0), |stats| (stats.violations, stats.stale_cells));
        (violations, stale + self.stale_cells)
    }

    /// Its links' tables, while it is up.
    pub fn tables(&self) -> impl Iterator<Item = (LinkId, &LinkTable<LinkId>)> {
        self.live
            .iter()
            .flat_map(|live| live.tables.iter().map(|(&id, table)| (id, table)))
    }

    /// Starts it from what its disk holds.
    pub fn start(
        &mut self,
        network: &Network,
        now: Instant,
        wall: WallTime,
        rng: &mut dyn CryptoRng,
    ) {
        let config = ControlConfig {
            network: network.clone(),
            identity: SigningKey::from_seed(&self.identity_seed),
            addresses: vec![self.address],
            roles: Roles::HOLDER | Roles::DIRECTORY,
            seeds: self.seeds.clone(),
            holder: HolderLimits::of_network(&network.params),
            circuits_max: 10_000,
            frames_bytes_max: 64 << 20,
            inbox_descriptors_max: 1000,
        };
        self.incarnation += 1;
        let control = Control::new(config, self.disk.restore(), Moment { now, wall }, rng);
        self.live = Some(Live {
            control,
            tables: BTreeMap::new(),
        });
    }

    /// Kills it: uncommitted writes are lost.
    pub fn crash(&mut self) {
        self.live = None;
        self.disk.crash();
        self.incarnation += 1;
    }

    /// Its `Hello`.
    pub fn hello(&self, wall: WallTime) -> Option<Hello> {
        self.control().map(|control| control.hello(wall))
    }

    /// A link is up.
    pub fn on_link_up(
        &mut self,
        now: Instant,
        wall: WallTime,
        link: LinkId,
        up: LinkUp,
        rng: &mut dyn CryptoRng,
    ) {
        let Some(live) = &mut self.live else { return };
        if up.peer.is_none() {
            self.client_ends.insert(link);
        }
        live.tables.insert(link, LinkTable::new());
        live.control
            .handle_link_up(Moment { now, wall }, link, up, rng);
    }

    /// A link is gone.
    pub fn on_link_down(
        &mut self,
        now: Instant,
        wall: WallTime,
        link: LinkId,
        rng: &mut dyn CryptoRng,
    ) {
        let Some(live) = &mut self.live else { return };
        live.tables.remove(&link);
        live.control
            .handle_link_down(Moment { now, wall }, link, rng);
    }

    /// A dial failed.
    pub fn on_dial_failed(
        &mut self,
        now: Instant,
        wall: WallTime,
        relay: RelayId,
        rng: &mut dyn CryptoRng,
    ) {
        if let Some(live) = &mut self.live {
            live.control
                .handle_dial_failed(Moment { now, wall }, relay, rng);
        }
    }

    /// A handshake was answered.
    pub fn on_work_done(
        &mut self,
        now: Instant,
        wall: WallTime,
        done: WorkDone,
        rng: &mut dyn CryptoRng,
    ) {
        if let Some(live) = &mut self.live {
            live.control
                .handle_work_done(Moment { now, wall }, done, rng);
        }
    }

    /// Its disk commits.
    pub fn on_commit(&mut self, now: Instant, wall: WallTime, rng: &mut dyn CryptoRng) {
        let Some(live) = &mut self.live else { return };
        for done in self.disk.commit() {
            live.control.handle_stored(Moment { now, wall }, done, rng);
        }
    }

    /// A timer may be due.
    pub fn on_timeout(&mut self, now: Instant, wall: WallTime, rng: &mut dyn CryptoRng) {
        if let Some(live) = &mut self.live {
            live.control.handle_timeout(Moment { now, wall }, rng);
        }
    }

    /// When its next timer is due, and what for.
    pub fn next_timeout(&self) -> Option<(Instant, Wake)> {
        self.control().map(Control::poll_timeout)
    }

    /// A cell arrives: the way of `relay::net::conn`, without the socket.
    pub fn on_cell(
        &mut self,
        now: Instant,
        wall: WallTime,
        link: LinkId,
        mut cell: Cell,
        rng: &mut dyn CryptoRng,
    ) -> Vec<RelayEffect> {
        let Some(live) = &mut self.live else {
            return Vec::new();
        };
        let Some(table) = live.tables.get_mut(&link) else {
            return Vec::new();
        };
        let circ = cell.header().ok().and_then(|(circ, _)| circ);
        let event = match table.handle_cell(&mut cell) {
            Verdict::Onward(&next) => match (self.sabotage, circ) {
                (Some(Sabotage::Onward(spared)), Some(circ))
                    if has_passed(&mut self.passed, link, circ, spared) =>
                {
                    LinkEvent::Broken(circ, Violation::Stream)
                }
                (Some(Sabotage::Silence(spared)), Some(circ))
                    if has_passed(&mut self.passed, link, circ, spared) =>
                {
                    return Vec::new();
                }
                _ => return self.send(next, cell, rng),
            },
            Verdict::Deliver(delivered)
                if self.sabotage == Some(Sabotage::Extends) && asks_to_extend(&cell) =>
            {
                LinkEvent::Broken(delivered.circ, Violation::Stream)
            }
            Verdict::Deliver(delivered) if self.breaks_mailboxes && asks_for_mailbox(&cell) => {
                LinkEvent::Broken(delivered.circ, Violation::Stream)
            }
            told @ (Verdict::Deliver(_) | Verdict::Control | Verdict::Broken(..)) => {
                if let Verdict::Broken(_, violation) = told {
                    self.broken.push(violation);
                }
                let Some(event) = told.into_event(cell) else {
                    return Vec::new();
                };
                event
            }
            Verdict::Padding => return Vec::new(),
            Verdict::Stale => {
                self.stale_cells += 1;
                return Vec::new();
            }
            Verdict::Close(_) => return vec![RelayEffect::Link(LinkOp::Close(link))],
        };
        live.control
            .handle_event(Moment { now, wall }, link, event, rng);
        Vec::new()
    }

    /// Everything the control plane wants, in its order.
    pub fn drain(&mut self, rng: &mut dyn CryptoRng) -> Vec<RelayEffect> {
        let mut effects = Vec::new();
        let mut has_written = false;
        while let Some(effect) = self.poll_effect() {
            match effect {
                Effect::Table(link, update) => self.update_table(link, update),
                Effect::Cell(link, cell) => effects.extend(self.send(link, cell, rng)),
                Effect::Link(op) => effects.push(RelayEffect::Link(op)),
                Effect::Work(work) => effects.extend(self.answer(&work, rng)),
                Effect::News(_) => {}
                Effect::Store(op) => {
                    self.disk.write(op);
                    has_written = true;
                }
            }
        }
        effects.extend(has_written.then_some(RelayEffect::Commit));
        effects
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.live.as_mut()?.control.poll_effect()
    }

    fn update_table(&mut self, link: LinkId, update: TableUpdate<LinkId>) {
        let live = self.live.as_mut();
        if let Some(table) = live.and_then(|live| live.tables.get_mut(&link)) {
            table.apply(update);
        }
    }

    fn answer(&self, work: &Work, rng: &mut dyn CryptoRng) -> Option<RelayEffect> {
        let result = self.control()?.responder().respond(&work.onionskin, rng);
        Some(RelayEffect::Work(WorkDone {
            id: work.id,
            result,
        }))
    }

    fn send(&mut self, link: LinkId, cell: Cell, rng: &mut dyn CryptoRng) -> Vec<RelayEffect> {
        let is_relay_cell = matches!(cell.header(), Ok((_, Command::Relay)));
        match &mut self.adversary {
            Some(adversary) if is_relay_cell => {
                adversary.send(link, cell, self.client_ends.contains(&link), rng)
            }
            _ => vec![RelayEffect::Send(link, cell)],
        }
    }
}

/// Whether a delivered cell asks for another hop.
fn asks_to_extend(cell: &Cell) -> bool {
    let message = transit::delivered_message(cell).and_then(RelayMsg::decode);
    matches!(message, Ok(RelayMsg::Extend(_)))
}

/// Counts a cell of this circuit; whether more than `spared` have passed.
fn has_passed(
    passed: &mut BTreeMap<(LinkId, u32), usize>,
    link: LinkId,
    circ: CircId,
    spared: usize,
) -> bool {
    let count = passed.entry((link, circ.number())).or_default();
    *count += 1;
    *count > spared
}

/// Whether a delivered cell begins a request to the mailbox service.
fn asks_for_mailbox(cell: &Cell) -> bool {
    let message = transit::delivered_message(cell).and_then(RelayMsg::decode);
    matches!(message, Ok(RelayMsg::Data(data)) if data.flags.open && data.bytes.first() == Some(&(Service::Mailbox as u8)))
}
