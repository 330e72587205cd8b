//! Keepalive, padding and silence on the links of the world, by proto's timers (docs/protocol.md
//! §2.6).
//!
//! As in production an end has one timer. It moves when it expires, or when a cell is due earlier
//! than it was set for.

use std::collections::BTreeMap;

use umbel_proto::cell::{Cell, Command};
use umbel_proto::limits::{LINK_SILENCE_MAX, LINK_SILENCE_MIN};
use umbel_proto::link::{Keepalive, LinkId, Padding, Silence, Silent};
use umbel_proto::time::{Duration, Instant};

use super::World;
use super::events::Event;
use super::network::Node;

/// One end's timers.
struct Liveness {
    keepalive: Keepalive,
    silence: Silence,
    /// When the end's timer expires.
    set_for: Instant,
    /// `Padding` cells that the end has sent.
    padding_cells: u64,
}

/// The timers of all ends that are up.
#[derive(Default)]
pub(super) struct Livenesses(BTreeMap<LinkId, Liveness>);

impl World {
    /// How many `Padding` cells this end has sent, while its link is up.
    pub fn padding_cells(&self, end: LinkId) -> Option<u64> {
        self.liveness.0.get(&end).map(|end| end.padding_cells)
    }

    /// An end of a new link comes up at `node`.
    pub(super) fn begin_liveness(&mut self, end: LinkId, node: Node, has_client: bool) {
        let params = &self.overlay.params;
        let padding = Padding::with_client(params).filter(|_| has_client);
        let silence = match node {
            Node::Relay(_) => Silence::new(LINK_SILENCE_MIN, self.now),
            Node::Client(_) => Silence::with_quiet(padding, LINK_SILENCE_MAX, self.now),
        };
        let keepalive = Keepalive::new(padding, self.now, &mut self.rng);
        let set_for = keepalive.due_at();
        let liveness = Liveness {
            keepalive,
            silence,
            set_for,
            padding_cells: 0,
        };
        self.liveness.0.insert(end, liveness);
        self.agenda.schedule(set_for, Event::LinkTimer { end });
    }

    pub(super) fn end_liveness(&mut self, end: LinkId) {
        self.liveness.0.remove(&end);
    }

    /// A cell was sent from this end.
    pub(super) fn on_end_sent(&mut self, end: LinkId) {
        if let Some(liveness) = self.liveness.0.get_mut(&end) {
            liveness.keepalive.on_sent(self.now, &mut self.rng);
            let due_at = liveness.keepalive.due_at();
            if due_at < liveness.set_for {
                liveness.set_for = due_at;
                self.agenda.schedule(due_at, Event::LinkTimer { end });
            }
        }
    }

    /// A cell came to this end.
    pub(super) fn on_end_received(&mut self, end: LinkId) {
        if let Some(liveness) = self.liveness.0.get_mut(&end) {
            liveness.silence.on_received(self.now);
        }
    }

    /// The clocks of these ends stood still: their peers were silent for no time.
    pub(super) fn hear_again(&mut self, is_one: impl Fn(LinkId) -> bool) {
        for (_, liveness) in self.liveness.0.iter_mut().filter(|(end, _)| is_one(**end)) {
            liveness.silence.on_received(self.now);
        }
    }

    /// An end's timer expires.
    pub(super) fn on_link_timer(&mut self, at: Instant, end: LinkId) -> Vec<Node> {
        let Some(node) = self.network.end(end).map(|end| end.node) else {
            return Vec::new();
        };
        let Some(liveness) = self.liveness.0.get_mut(&end) else {
            return Vec::new();
        };
        if at < liveness.set_for {
            return Vec::new(); // it was moved since
        }
        let silent = liveness.silence.handle_timeout(self.now);
        let is_padding_due = self.now >= liveness.keepalive.due_at();
        liveness.padding_cells += u64::from(is_padding_due);
        if is_padding_due {
            self.pad(end, node);
        }
        self.set_link_timer(end);
        self.on_silent(end, node, silent)
    }

    /// A client's end sends its padding at once, a relay's by its queue, like all its cells.
    fn pad(&mut self, end: LinkId, node: Node) {
        match node {
            Node::Client(_) => {
                self.cells.padding += 1;
                self.send_cell(end, &Cell::new(None, Command::Padding));
            }
            Node::Relay(n) => {
                let queued = self.relays[n].pad(end);
                self.on_end_sent(end);
                if let Some(queued) = queued {
                    self.cells.padding += queued.cells;
                    self.count_queued(queued);
                    self.write(n, end);
                }
            }
        }
    }

    fn set_link_timer(&mut self, end: LinkId) {
        if let Some(liveness) = self.liveness.0.get_mut(&end) {
            let due_at = liveness.keepalive.due_at().min(liveness.silence.due_at());
            liveness.set_for = due_at.max(self.now + Duration::from_micros(1));
            let event = Event::LinkTimer { end };
            self.agenda.schedule(liveness.set_for, event);
        }
    }

    fn on_silent(&mut self, end: LinkId, node: Node, silent: Option<Silent>) -> Vec<Node> {
        let moment = self.moment_of(node);
        match (silent, node) {
            (Some(Silent::Dead), Node::Relay(_)) if self.network.swallows(end) => {
                self.end_liveness(end); // its peer would not hear of it
                Vec::new()
            }
            (Some(Silent::Dead), _) => {
                self.break_link(end);
                Vec::new()
            }
            (Some(Silent::Quiet), Node::Client(n)) => {
                self.clients[n].on_link_quiet(moment, end, &mut self.rng);
                vec![node]
            }
            (Some(Silent::Quiet), Node::Relay(_)) | (None, _) => Vec::new(),
        }
    }
}
