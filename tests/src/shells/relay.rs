//! A relay of the world: the real planes, and a shell that lives in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rand::CryptoRng;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::descriptor::Roles;
use umbel_proto::directory::receipts::{Probe, ProbeId};
use umbel_proto::ids::{CircId, Peer, RelayId};
use umbel_proto::inbox::holder::HolderLimits;
use umbel_proto::limits::RECEIPTS_MAX;
use umbel_proto::link::{Hello, LinkId, LinkOp};
use umbel_proto::message::{RelayMsg, Service};
use umbel_proto::network::Network;
use umbel_proto::onion::transit;
use umbel_proto::time::{Duration, Instant, Moment, WallTime};
use umbel_relay::control::io::{Effect, LinkUp, News, Wake, Work, WorkDone};
use umbel_relay::control::{Control, ControlConfig};
use umbel_relay::forward::{LinkEvent, LinkTable, TableUpdate, Verdict};

use super::Input;
use super::sending::{Queued, Sending, Written};
use crate::adversary::{Adversary, Leaving};
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
    /// Where it is as well, over the other address family.
    pub second_address: Option<SocketAddr>,
    /// The addresses that it advertises, if these are others.
    pub advertised: Option<Vec<SocketAddr>>,
    /// Whether others can connect to it. If not, it still dials.
    pub is_open: bool,
    /// What its operator was told, over all its lives.
    pub news: Vec<News>,
    /// Its disk.
    pub disk: RelayDisk,
    /// Its tampering with cells, if it is hostile.
    pub adversary: Option<Adversary>,
    /// Which circuits it destroys, if it is hostile.
    pub sabotage: Option<Sabotage>,
    /// How many descriptors of inboxes it has room for, from its next start on.
    pub inbox_descriptors_max: usize,
    /// If given, it refuses to extend circuits to any relay but these.
    pub friends: Option<BTreeSet<RelayId>>,
    /// Whether it takes no descriptor that others pass on, from its next start on: who reconciles
    /// with it hears nothing new.
    pub is_deaf: bool,
    /// Whether it vouches for all who ask, reached or not.
    pub is_credulous: bool,
    /// Why circuits through it died.
    pub broken: Vec<Violation>,
    /// Cells of circuits that were just gone, over all its lives.
    pub stale_cells: u64,
    /// The turns of circuits at its links, if a test wants to see them.
    pub turns: Option<Vec<Turn>>,
    client_ends: BTreeSet<LinkId>,
    /// How many cells it handed on of each circuit, or hushes, by where they came from.
    passed: BTreeMap<(LinkId, u32), usize>,
    identity_seed: [u8; 32],
    /// The relays that it knows at its first start.
    pub seeds: Vec<Peer>,
    live: Option<Live>,
    /// Counts its lives: a request of an earlier one is not answered in this one.
    incarnation: u64,
}

/// Which circuits a hostile relay destroys: the relay itself is the real one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Those that it is to extend.
    Extends,
    /// Those on which it is asked for a mailbox.
    Mailboxes,
    /// None, but it answers nothing on those on which it is asked for an inbox's descriptor, or to
    /// keep one.
    Inboxes,
    /// Those of which it has handed on more cells than this, one way.
    Onward(usize),
    /// The same, but it forwards nothing more, and says nothing.
    Silence(usize),
}

/// What happened to a cell of a circuit at a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It came into the link's queue.
    Queued(LinkId, CircId),
    /// The link's socket took it.
    Written(LinkId, CircId),
}

struct Live {
    control: Control,
    tables: BTreeMap<LinkId, LinkTable<LinkId>>,
    sending: Sending,
}

/// An effect that a relay asks for.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub enum RelayEffect {
    /// Cells were queued for this link: write what its socket takes.
    Queued(LinkId, Queued),
    /// Send a cell that went by no queue.
    Forged(LinkId, Cell),
    /// Dial or close.
    Link(LinkOp),
    /// Answer a handshake.
    Work(WorkDone),
    /// See whether a relay answers at an address.
    Probe(ProbeId, Probe),
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
            second_address: None,
            advertised: None,
            is_open: true,
            news: Vec::new(),
            disk: RelayDisk::default(),
            adversary: None,
            sabotage: None,
            inbox_descriptors_max: 1000,
            friends: None,
            is_deaf: false,
            is_credulous: false,
            passed: BTreeMap::new(),
            broken: Vec::new(),
            stale_cells: 0,
            turns: None,
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

    /// All addresses where it is.
    pub fn places(&self) -> impl Iterator<Item = SocketAddr> {
        [self.address].into_iter().chain(self.second_address)
    }

    /// Starts it from what its disk holds.
    pub fn start(&mut self, network: &Network, moment: Moment, rng: &mut dyn CryptoRng) {
        let mut network = network.clone();
        if self.is_deaf {
            network.params.receipts_min = RECEIPTS_MAX;
        }
        let config = ControlConfig {
            holder: HolderLimits::of_network(&network.params),
            network,
            identity: SigningKey::from_seed(&self.identity_seed),
            addresses: self
                .advertised
                .clone()
                .unwrap_or_else(|| self.places().collect()),
            roles: Roles::HOLDER | Roles::DIRECTORY,
            seeds: self.seeds.clone(),
            circuits_max: 10_000,
            frames_bytes_max: 64 << 20,
            inbox_descriptors_max: self.inbox_descriptors_max,
        };
        self.incarnation += 1;
        let control = Control::new(config, self.disk.restore(), moment, rng);
        self.live = Some(Live {
            control,
            tables: BTreeMap::new(),
            sending: Sending::default(),
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
        moment: Moment,
        link: LinkId,
        up: LinkUp,
        rng: &mut dyn CryptoRng,
    ) {
        let Some(live) = &mut self.live else { return };
        if up.peer.is_none() {
            self.client_ends.insert(link);
        }
        live.tables.insert(link, LinkTable::new());
        live.sending.begin(link);
        live.control.handle_link_up(moment, link, up, rng);
    }

    /// Discards the cells queued on a link that is gone. Returns their number, and how many of them
    /// had been sent before.
    pub fn end_queue(&mut self, link: LinkId) -> (u64, usize) {
        let live = self.live.as_mut();
        live.map_or((0, 0), |live| live.sending.end(link))
    }

    /// A link is to end once what waits there is sent.
    pub fn close(&mut self, link: LinkId) {
        if let Some(live) = &mut self.live {
            live.sending.close(link);
        }
    }

    /// Whether it reads nothing more from this link.
    pub fn is_closing(&self, link: LinkId) -> bool {
        let live = self.live.as_ref();
        live.is_some_and(|live| live.sending.is_closing(link))
    }

    /// How many cells wait for the sockets of all its links.
    pub fn waiting_cells(&self) -> usize {
        let live = self.live.as_ref();
        live.map_or(0, |live| live.sending.waiting_cells())
    }

    /// How many of these cells were sent before.
    pub fn waiting_copies(&self) -> usize {
        let live = self.live.as_ref();
        live.map_or(0, |live| live.sending.waiting_copies())
    }

    /// A link's socket takes more, as it was asked to say.
    pub fn wake(&mut self, link: LinkId) {
        if let Some(live) = &mut self.live {
            live.sending.wake(link);
        }
    }

    /// Writes what a link's socket takes, on a link that carries a cell in `cell_time`.
    pub fn write(&mut self, link: LinkId, now: Instant, cell_time: Duration) -> Option<Written> {
        let live = self.live.as_mut()?;
        let written = live.sending.write(link, now, cell_time);
        if let Some(turns) = &mut self.turns {
            let circs = written.cells.iter().filter_map(|(cell, _)| circ_of(cell));
            turns.extend(circs.map(|circ| Turn::Written(link, circ)));
        }
        Some(written)
    }

    /// Queues a cell of the link itself.
    pub fn pad(&mut self, link: LinkId) -> Option<Queued> {
        let live = self.live.as_mut()?;
        let padding = Cell::new(None, Command::Padding);
        Some(live.sending.push(link, vec![(padding, false)]).0)
    }

    /// Its tables, circuits and queues agree with one another.
    ///
    /// # Errors
    /// They don't.
    pub fn check(&self) -> Result<(), String> {
        let Some(live) = &self.live else {
            return Ok(());
        };
        live.control.check()?;
        live.sending.check()?;
        let halves: usize = live.tables.values().map(LinkTable::len).sum();
        let ends = live.control.end_count();
        // A half that broke is still in its table; a circuit whose handshake is being answered is
        // not there yet.
        if halves > ends {
            return Err(format!(
                "{halves} halves in its tables for {ends} ends of circuits"
            ));
        }
        self.disk.check()
    }

    /// A handshake was answered.
    pub fn on_work_done(&mut self, moment: Moment, done: WorkDone, rng: &mut dyn CryptoRng) {
        if let Some(live) = &mut self.live {
            live.control.handle_work_done(moment, done, rng);
        }
    }

    /// A dial for a receipt is over.
    pub fn on_probed(
        &mut self,
        moment: Moment,
        (probe, is_there): (ProbeId, bool),
        rng: &mut dyn CryptoRng,
    ) {
        if let Some(live) = &mut self.live {
            let is_there = is_there || self.is_credulous;
            live.control
                .handle_probed(moment, probe, is_there.into(), rng);
        }
    }

    /// Something happens to it.
    pub fn handle(&mut self, moment: Moment, input: Input, rng: &mut dyn CryptoRng) {
        let Some(live) = &mut self.live else { return };
        match input {
            Input::LinkDown(link) => {
                live.tables.remove(&link);
                live.control.handle_link_down(moment, link, rng);
            }
            Input::DialFailed(relay) => live.control.handle_dial_failed(moment, relay, rng),
            Input::Committed => {
                for done in self.disk.commit() {
                    live.control.handle_stored(moment, done, rng);
                }
            }
            Input::Timeout => live.control.handle_timeout(moment, rng),
        }
    }

    /// When its next timer is due, and what for.
    pub fn next_timeout(&self) -> Option<(Instant, Wake)> {
        self.control().map(Control::poll_timeout)
    }

    /// A cell arrives, which may have been sent before: the way of `relay::net::conn`, without the
    /// socket.
    pub fn on_cell(
        &mut self,
        moment: Moment,
        link: LinkId,
        (mut cell, is_copy): (Cell, bool),
        rng: &mut dyn CryptoRng,
    ) -> Vec<RelayEffect> {
        let Some(live) = &mut self.live else {
            return Vec::new();
        };
        let Some(table) = live.tables.get_mut(&link) else {
            return Vec::new();
        };
        let circ = circ_of(&cell);
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
                _ => return self.send(moment, next, vec![cell], is_copy, rng),
            },
            Verdict::Deliver(delivered) if is_unwanted(self.sabotage, &cell) => {
                LinkEvent::Broken(delivered.circ, Violation::Stream)
            }
            Verdict::Deliver(delivered)
                if self.sabotage == Some(Sabotage::Inboxes)
                    && is_hushed(&mut self.passed, (link, delivered.circ), &cell) =>
            {
                return Vec::new();
            }
            told @ (Verdict::Deliver(_) | Verdict::Control | Verdict::Broken(..)) => {
                if let Some(friends) = &self.friends {
                    refuse_extends(&mut cell, friends);
                }
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
        live.control.handle_event(moment, link, event, rng);
        Vec::new()
    }

    /// Everything the control plane wants, in its order. A cell that finds no room may make it want
    /// more.
    pub fn drain(&mut self, moment: Moment, rng: &mut dyn CryptoRng) -> Vec<RelayEffect> {
        let mut effects = Vec::new();
        let mut has_written = false;
        while let Some(effect) = self.poll_effect() {
            match effect {
                Effect::Table(link, update) => self.update_table(link, update),
                Effect::Cell(link, cell) => {
                    let cells = self.take_run(link, cell);
                    effects.extend(self.send(moment, link, cells, false, rng));
                }
                Effect::Link(op) => effects.push(RelayEffect::Link(op)),
                Effect::Work(work) => effects.extend(self.answer(&work, rng)),
                Effect::Probe(id, probe) => effects.push(RelayEffect::Probe(id, probe)),
                Effect::News(news) => self.news.push(news),
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

    /// The cells of one link that come together.
    fn take_run(&mut self, link: LinkId, first: Cell) -> Vec<Cell> {
        let control = self.live.as_mut().map(|live| &mut live.control);
        let more = control
            .into_iter()
            .flat_map(|control| std::iter::from_fn(move || control.poll_cell_on(link)));
        std::iter::once(first).chain(more).collect()
    }

    /// Queues cells for a link, but what a hostile relay forges, and tells the control plane which
    /// circuits overran the queue.
    fn send(
        &mut self,
        moment: Moment,
        link: LinkId,
        cells: Vec<Cell>,
        are_copies: bool,
        rng: &mut dyn CryptoRng,
    ) -> Vec<RelayEffect> {
        let (mut effects, mut honest) = (Vec::new(), Vec::new());
        for cell in cells {
            for leaving in self.tamper(link, cell, rng) {
                match leaving {
                    Leaving::Queued(cell) => honest.push((cell, are_copies)),
                    Leaving::Copy(cell) => honest.push((cell, true)),
                    Leaving::Forged(cell) => effects.push(RelayEffect::Forged(link, cell)),
                }
            }
        }
        let Some(live) = self.live.as_mut().filter(|_| !honest.is_empty()) else {
            return effects;
        };
        if let Some(turns) = &mut self.turns {
            let circs = honest.iter().filter_map(|(cell, _)| circ_of(cell));
            turns.extend(circs.map(|circ| Turn::Queued(link, circ)));
        }
        let (queued, overran) = live.sending.push(link, honest);
        effects.push(RelayEffect::Queued(link, queued));
        for circ in overran {
            self.broken.push(Violation::Window);
            let event = LinkEvent::Broken(circ, Violation::Window);
            live.control.handle_event(moment, link, event, rng);
        }
        effects
    }

    /// How a cell leaves.
    fn tamper(&mut self, link: LinkId, cell: Cell, rng: &mut dyn CryptoRng) -> Vec<Leaving> {
        let is_relay_cell = matches!(cell.header(), Ok((_, Command::Relay)));
        match &mut self.adversary {
            Some(adversary) if is_relay_cell => {
                adversary.send(link, cell, self.client_ends.contains(&link), rng)
            }
            _ => vec![Leaving::Queued(cell)],
        }
    }
}

fn circ_of(cell: &Cell) -> Option<CircId> {
    cell.header().ok().and_then(|(circ, _)| circ)
}

/// Whether a delivered cell asks for what a hostile relay destroys circuits for.
fn is_unwanted(sabotage: Option<Sabotage>, cell: &Cell) -> bool {
    let message = transit::delivered_message(cell).and_then(RelayMsg::decode);
    match (sabotage, message) {
        (Some(Sabotage::Extends), Ok(RelayMsg::Extend(_))) => true,
        (Some(Sabotage::Mailboxes), Ok(RelayMsg::Data(data))) => {
            data.flags.open && data.bytes.first() == Some(&(Service::Mailbox as u8))
        }
        _ => false,
    }
}

/// `PublishInbox` and `LookupInbox` (§8.4).
const INBOX_REQUESTS: [u8; 2] = [2, 3];

/// Whether a delivered cell, or one before it on this circuit, asks for an inbox's descriptor or to
/// keep one: a request follows its service and its frame's length at once.
fn is_hushed(
    hushed: &mut BTreeMap<(LinkId, u32), usize>,
    (link, circ): (LinkId, CircId),
    cell: &Cell,
) -> bool {
    let circ = (link, circ.number());
    let message = transit::delivered_message(cell).and_then(RelayMsg::decode);
    if let Ok(RelayMsg::Data(data)) = message
        && data.flags.open
        && let [service, _, _, _, _, request, ..] = data.bytes
        && *service == Service::Directory as u8
        && INBOX_REQUESTS.contains(request)
    {
        hushed.insert(circ, 1);
    }
    hushed.contains_key(&circ)
}

/// Where a delivered cell asks to extend to another relay than these, it now names one that nobody
/// knows: that is refused.
fn refuse_extends(cell: &mut Cell, friends: &BTreeSet<RelayId>) {
    let message = transit::delivered_message(cell).and_then(RelayMsg::decode);
    let Ok(RelayMsg::Extend(extend)) = message else {
        return;
    };
    let relay = extend.relay.0;
    if friends.contains(&extend.relay) {
        return;
    }
    let body = cell.body_mut();
    let place = body.windows(relay.len()).position(|window| window == relay);
    if let Some(named) = place.and_then(|place| body.get_mut(place..place + relay.len())) {
        named.fill(0xee);
    }
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
