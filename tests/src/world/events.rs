//! The events of a world, each with the node that it happens to.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use umbel_proto::Violation;
use umbel_proto::cell::Cell;
use umbel_proto::directory::receipts::{Probe, ProbeId};
use umbel_proto::ids::RelayId;
use umbel_proto::link::{Hello, LinkId};
use umbel_proto::time::Instant;
use umbel_relay::control::io::{LinkUp, WorkDone};

use super::World;
use super::effects::DIAL_FAILS_AFTER;
use super::network::{End, Node};
use crate::adversary::CopyFate;
use crate::shells::relay::RelayEffect;
use crate::shells::{ClientName, Input, RelayName};

pub(super) enum Event {
    Cell {
        to: LinkId,
        cell: Cell,
        is_copy: bool,
    },
    Dialled {
        from: Node,
        to: RelayName,
        at: SocketAddr,
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
    /// A dial for a receipt ends.
    Probed {
        by: RelayName,
        incarnation: u64,
        id: ProbeId,
        probe: Probe,
    },
    Commit {
        node: Node,
        incarnation: u64,
    },
    /// The timer of a link's end expires.
    LinkTimer {
        end: LinkId,
    },
    /// The socket at a relay's end takes more.
    Writable {
        end: LinkId,
    },
    /// A node notices a link's end only now: it was asleep.
    Down {
        node: Node,
        end: LinkId,
    },
}

impl World {
    /// A node's timer expires. Returns the nodes that are to be drained, as all of these do.
    pub(super) fn fire(&mut self, node: Node) -> Vec<Node> {
        (self.now, node, "timer").hash(&mut self.trace);
        self.tell(node, Input::Timeout);
        vec![node]
    }

    /// An event happens.
    pub(super) fn on_event(&mut self, at: Instant, event: Event) -> Vec<Node> {
        at.hash(&mut self.trace);
        if self.is_for_suspended(&event) {
            self.asleep.push(event);
            return Vec::new();
        }
        match event {
            Event::Cell { to, cell, is_copy } => self.on_cell(to, cell, is_copy),
            Event::Dialled { from, to, at } => self.on_dialled(from, to, at),
            Event::DialFailed { from, relay } => {
                self.tell(from, Input::DialFailed(relay));
                vec![from]
            }
            Event::LinkTimer { end } => self.on_link_timer(at, end),
            Event::Writable { end } => self.on_writable(end),
            Event::Down { node, end } => {
                self.tell(node, Input::LinkDown(end));
                vec![node]
            }
            Event::Work {
                relay,
                incarnation,
                done,
            } => {
                let node = Node::Relay(relay.0);
                if self.incarnation(node) == incarnation {
                    let moment = self.moment_of(node);
                    self.relays[relay.0].on_work_done(moment, done, &mut self.rng);
                }
                vec![node]
            }
            Event::Probed {
                by,
                incarnation,
                id,
                probe,
            } => {
                let node = Node::Relay(by.0);
                if self.incarnation(node) == incarnation {
                    let (moment, is_there) = (self.moment_of(node), self.is_there(node, probe));
                    self.relays[by.0].on_probed(moment, (id, is_there), &mut self.rng);
                }
                vec![node]
            }
            Event::Commit { node, incarnation } => {
                if self.incarnation(node) == incarnation {
                    self.tell(node, Input::Committed);
                }
                vec![node]
            }
        }
    }

    /// Where a node's connections to this address come from; nowhere, if it has no address of that
    /// family.
    pub(super) fn source_of(&self, node: Node, to: SocketAddr) -> Option<SocketAddr> {
        let ip = match node {
            Node::Relay(n) => {
                let mut places = self.relays[n].places();
                places.find(|it| it.is_ipv4() == to.is_ipv4())?.ip()
            }
            Node::Client(_) if to.is_ipv4() => IpAddr::from(Ipv4Addr::LOCALHOST),
            Node::Client(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
        };
        Some(SocketAddr::new(ip, 50_000))
    }

    /// Whether this relay answers there when it is dialled from this node.
    fn is_there(&self, from: Node, probe: Probe) -> bool {
        let at = self.relay_named(probe.relay).filter(|name| {
            let relay = &self.relays[name.0];
            relay.places().any(|it| it == probe.address) && relay.is_up() && relay.is_open
        });
        let at = at.filter(|_| self.source_of(from, probe.address).is_some());
        at.is_some_and(|name| {
            let to = Node::Relay(name.0);
            !self.network.is_cut(from, to) && !self.network.is_silent(from, to)
        })
    }

    /// Which of its lives a node is in.
    fn incarnation(&self, node: Node) -> u64 {
        match node {
            Node::Relay(n) => self.relays[n].incarnation(),
            Node::Client(n) => self.clients[n].incarnation(),
        }
    }

    fn on_cell(&mut self, to: LinkId, cell: Cell, is_copy: bool) -> Vec<Node> {
        self.cells.in_flight -= 1;
        let Some(end) = self.network.end(to).filter(|end| self.reads(to, end)) else {
            self.cells.lost += 1;
            self.lose_copies(usize::from(is_copy));
            return Vec::new();
        };
        let moment = self.moment_of(end.node);
        self.cells.arrived += 1;
        self.on_end_received(to);
        (end.node, cell.as_bytes().as_slice()).hash(&mut self.trace);
        // Only of copies: it costs a look at all that a relay knows.
        let before = is_copy.then(|| self.complaints(end.node));
        let mut goes_on = false;
        match end.node {
            Node::Relay(n) => {
                let rng = &mut self.rng;
                let effects = self.relays[n].on_cell(moment, to, (cell, is_copy), rng);
                let is_queued = |effect: &RelayEffect| matches!(effect, RelayEffect::Queued(..));
                goes_on = effects.iter().any(is_queued);
                self.run_relay_effects(n, effects);
            }
            Node::Client(n) => {
                let fault = self.clients[n].on_cell(moment, to, cell, &mut self.rng);
                self.run_client_effects(n, fault.into_iter().collect());
            }
        }
        if let Some(before) = before.filter(|_| !goes_on) {
            self.copies.push(fate(before, self.complaints(end.node)));
        }
        vec![end.node]
    }

    /// Whether what comes to this end is still read.
    fn reads(&self, id: LinkId, end: &End) -> bool {
        !matches!(end.node, Node::Relay(n) if self.relays[n].is_closing(id))
    }

    fn is_for_suspended(&self, event: &Event) -> bool {
        let Some(ClientName(name)) = self.suspended else {
            return false;
        };
        let node = match event {
            Event::Cell { to: end, .. } | Event::LinkTimer { end } => {
                self.network.end(*end).map(|end| end.node)
            }
            Event::Dialled { from, .. } | Event::DialFailed { from, .. } => Some(*from),
            Event::Commit { node, .. } => Some(*node),
            Event::Writable { .. }
            | Event::Work { .. }
            | Event::Probed { .. }
            | Event::Down { .. } => None,
        };
        node == Some(Node::Client(name))
    }

    fn complaints(&self, node: Node) -> (u64, u64) {
        match node {
            Node::Relay(n) => self.relays[n].complaints(),
            Node::Client(n) => self.clients[n].complaints(),
        }
    }

    fn on_dialled(&mut self, from: Node, to: RelayName, at: SocketAddr) -> Vec<Node> {
        let target = Node::Relay(to.0);
        let (moment, target_moment) = (self.moment_of(from), self.moment_of(target));
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
        let (ours, peer) = match from {
            Node::Relay(n) => (self.relays[n].hello(moment.wall), Some(self.relays[n].id)),
            Node::Client(_) => (Some(Hello::of_client(self.overlay.id, moment.wall)), None),
        };
        let hellos = ours.zip(self.relays[to.0].hello(target_moment.wall));
        let is_reachable = is_up && self.relays[to.0].is_open && !self.network.is_cut(from, target);
        let heard = hellos
            .filter(|_| is_reachable)
            .and_then(|(ours, theirs)| exchange_hellos(&ours, &theirs).ok());
        let heard = heard.zip(self.source_of(from, at));
        let Some(((hello, heard_of_us), source)) = heard else {
            self.schedule(DIAL_FAILS_AFTER, Event::DialFailed { from, relay: id });
            return Vec::new();
        };
        let (from_end, to_end) = self.network.connect(from, target, self.now);
        self.begin_liveness(from_end, from, peer.is_none());
        self.begin_liveness(to_end, target, peer.is_none());
        match from {
            Node::Relay(n) => {
                let up = LinkUp {
                    peer: Some(id),
                    is_dialler: true,
                    remote: at,
                    hello,
                };
                self.relays[n].on_link_up(moment, from_end, up, &mut self.rng);
            }
            Node::Client(n) => {
                let up = umbel_client::core::io::LinkUp {
                    link: from_end,
                    relay: id,
                    remote: at,
                    hello: &hello,
                };
                self.clients[n].on_link_up(moment, up, &mut self.rng);
            }
        }
        let up = LinkUp {
            peer,
            is_dialler: false,
            remote: source,
            hello: heard_of_us,
        };
        self.relays[to.0].on_link_up(target_moment, to_end, up, &mut self.rng);
        vec![from, target]
    }
}

/// Each side reads the other's `Hello` from its cell (§2.4). Returns the acceptor's and the
/// dialler's, as they were read.
fn exchange_hellos(dialler: &Hello, acceptor: &Hello) -> Result<(Hello, Hello), Violation> {
    let read_by_dialler = dialler.accept(&acceptor.encode())?;
    let read_by_acceptor = acceptor.accept(&dialler.encode())?;
    Ok((read_by_dialler, read_by_acceptor))
}

/// What became of a copy at a node that forwarded it to nobody, by the node's counts before and
/// after.
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
