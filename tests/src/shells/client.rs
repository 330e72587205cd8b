//! A client of the world: the real core, and a shell that lives in virtual time.

use rand::CryptoRng;
use umbel_client::core::io::LinkUp;
use umbel_client::core::{Core, Notice, Wish};
use umbel_proto::cell::Cell;
use umbel_proto::ids::Peer;
use umbel_proto::link::{LinkId, LinkOp, circuit_of};
use umbel_proto::network::Network;
use umbel_proto::time::{Instant, Moment};

use super::Input;
use crate::disk::ClientDisk;

/// Names a client of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(pub usize);

/// A client: its disk, and its core while it is up.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct SimClient {
    /// Its disk.
    pub disk: ClientDisk,
    /// Its notices, and their times.
    pub notices: Vec<(Instant, Notice)>,
    seeds: Vec<Peer>,
    core: Option<Core>,
    incarnation: u64,
}

/// An effect that a client asks for.
#[expect(missing_debug_implementations, reason = "holds cells")]
pub enum ClientEffect {
    /// Send a cell.
    Send(LinkId, Cell),
    /// Dial or close.
    Link(LinkOp),
    /// Commit what was written, soon.
    Commit,
}

impl SimClient {
    /// A client that is down.
    pub fn new(seeds: Vec<Peer>) -> Self {
        Self {
            disk: ClientDisk::default(),
            notices: Vec::new(),
            seeds,
            core: None,
            incarnation: 0,
        }
    }

    /// Another client, down, with a copy of this one's profile.
    pub fn copy(&self) -> Self {
        Self {
            disk: self.disk.clone(),
            ..Self::new(self.seeds.clone())
        }
    }

    /// One more seed, from its next start on; another address for one that it has.
    pub fn add_seed(&mut self, seed: Peer) {
        self.seeds.retain(|other| other.id != seed.id);
        self.seeds.push(seed);
    }

    /// Fills its disk, or makes room on it.
    pub fn set_disk_full(&mut self, is_full: bool) {
        self.disk.is_full = is_full;
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.core.is_some()
    }

    /// Which of its lives this is.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Its core, while it is up.
    pub fn core(&self) -> Option<&Core> {
        self.core.as_ref()
    }

    /// Starts it from what its disk holds.
    ///
    /// # Panics
    /// The disk holds what the core did not write.
    pub fn start(&mut self, network: &Network, moment: Moment, rng: &mut dyn CryptoRng) {
        self.incarnation += 1;
        let core = Core::new(
            network.clone(),
            self.seeds.clone(),
            None,
            self.disk.restore(),
            moment,
            rng,
        );
        self.core = Some(
            core.unwrap_or_else(|fault| unreachable!("the core reads what it wrote: {fault:?}")),
        );
    }

    /// Kills it: uncommitted writes are lost.
    pub fn crash(&mut self) {
        self.core = None;
        self.disk.crash();
        self.incarnation += 1;
    }

    /// The user wants something.
    pub fn wish(&mut self, moment: Moment, wish: Wish, rng: &mut dyn CryptoRng) {
        if let Some(core) = &mut self.core {
            core.handle_wish(moment, wish, rng);
        }
    }

    /// A link is up.
    pub fn on_link_up(&mut self, moment: Moment, up: LinkUp<'_>, rng: &mut dyn CryptoRng) {
        if let Some(core) = &mut self.core {
            core.handle_link_up(moment, up, rng);
        }
    }

    /// A link's peer is silent for longer than it may be.
    pub fn on_link_quiet(&mut self, moment: Moment, link: LinkId, rng: &mut dyn CryptoRng) {
        if let Some(core) = &mut self.core {
            core.handle_link_quiet(moment, link, rng);
        }
    }

    /// How many rules were broken, and how many cells came for circuits that were over, as far as
    /// it saw in this life.
    pub(crate) fn complaints(&self) -> (u64, u64) {
        self.core()
            .map_or((0, 0), |core| (core.violation_count(), core.stale_count()))
    }

    /// A cell arrives.
    pub fn on_cell(
        &mut self,
        moment: Moment,
        link: LinkId,
        cell: Cell,
        rng: &mut dyn CryptoRng,
    ) -> Option<ClientEffect> {
        let core = self.core.as_mut()?;
        match circuit_of(&cell) {
            Ok(Some(_)) => core.handle_cell(moment, link, cell, rng),
            Ok(None) => {}
            Err(_) => return Some(ClientEffect::Link(LinkOp::Close(link))),
        }
        None
    }

    /// Something happens to it.
    pub fn handle(&mut self, moment: Moment, input: Input, rng: &mut dyn CryptoRng) {
        let Some(core) = &mut self.core else { return };
        match input {
            Input::LinkDown(link) => core.handle_link_down(moment, link, rng),
            Input::DialFailed(relay) => core.handle_dial_failed(moment, relay, rng),
            Input::Committed => {
                for (ticket, is_stored) in self.disk.commit() {
                    core.handle_stored(moment, ticket, is_stored, rng);
                }
            }
            Input::Timeout => core.handle_timeout(moment, rng),
        }
    }

    /// When its next timer is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.core.as_ref().and_then(Core::poll_timeout)
    }

    /// Everything the core wants, in its order.
    pub fn drain(&mut self, now: Instant) -> Vec<ClientEffect> {
        let mut effects = Vec::new();
        let Some(core) = &mut self.core else {
            return effects;
        };
        let mut has_written = false;
        while let Some(op) = core.poll_store() {
            self.disk.write(op);
            has_written = true;
        }
        if has_written {
            effects.push(ClientEffect::Commit);
        }
        while let Some((link, cell)) = core.poll_cell() {
            effects.push(ClientEffect::Send(link, cell));
        }
        while let Some(op) = core.poll_link() {
            effects.push(ClientEffect::Link(op));
        }
        while let Some(notice) = core.poll_notice() {
            self.notices.push((now, notice));
        }
        effects
    }
}
