//! The effects that nodes of a world ask for, and their execution.

use std::net::SocketAddr;

use rand::RngExt;
use umbel_proto::cell::Cell;
use umbel_proto::ids::RelayId;
use umbel_proto::link::{LinkId, LinkOp};
use umbel_proto::time::Duration;

use super::World;
use super::events::Event;
use super::network::Node;
use crate::shells::client::ClientEffect;
use crate::shells::relay::RelayEffect;
use crate::shells::{ClientName, Input, RelayName};

/// How long a handshake takes to answer.
const WORK_TIME: Duration = Duration::from_micros(300);
/// How long a commit takes.
const COMMIT_TIME: Duration = Duration::from_millis(4);
/// How long a dial to nobody takes to fail.
pub(super) const DIAL_FAILS_AFTER: Duration = Duration::from_millis(50);

impl World {
    pub(super) fn drain(&mut self, node: Node) {
        match node {
            Node::Relay(n) => {
                let moment = self.moment_of(node);
                let effects = self.relays[n].drain(moment, &mut self.rng);
                self.run_relay_effects(n, effects);
            }
            Node::Client(n) => {
                let effects = self.clients[n].drain(self.now);
                self.run_client_effects(n, effects);
            }
        }
        self.touch(node);
    }

    pub(super) fn run_relay_effects(&mut self, n: usize, effects: Vec<RelayEffect>) {
        let incarnation = self.relays[n].incarnation();
        // All are in the queues by now, and a link that breaks takes what waits there with it.
        effects.iter().for_each(|effect| {
            if let RelayEffect::Queued(_, queued) = effect {
                self.count_queued(*queued);
            }
        });
        for effect in effects {
            match effect {
                RelayEffect::Queued(end, _) => self.write(n, end),
                RelayEffect::Forged(end, cell) => self.send_cell(end, &cell),
                RelayEffect::Link(LinkOp::Dial { relay, host_ports }) => {
                    self.dial(Node::Relay(n), relay, &host_ports);
                }
                RelayEffect::Link(LinkOp::Close(link)) => {
                    self.relays[n].close(link);
                    self.write(n, link);
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
                RelayEffect::Probe(id, probe) => {
                    // TCP, then TLS.
                    let handshake = self.network.latency * 4;
                    self.schedule(
                        handshake,
                        Event::Probed {
                            by: RelayName(n),
                            incarnation,
                            id,
                            probe,
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

    pub(super) fn run_client_effects(&mut self, n: usize, effects: Vec<ClientEffect>) {
        let incarnation = self.clients[n].incarnation();
        for effect in effects {
            match effect {
                ClientEffect::Send(end, cell) => self.send_cell(end, &cell),
                ClientEffect::Link(LinkOp::Dial { relay, host_ports }) => {
                    self.dial(Node::Client(n), relay, &host_ports);
                }
                ClientEffect::Link(LinkOp::Close(link)) => {
                    self.break_link(link);
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

    /// A cell leaves an end where none waits.
    pub(super) fn send_cell(&mut self, from: LinkId, cell: &Cell) {
        self.cells.sent += 1;
        self.carry(from, cell, false);
    }

    /// A link takes a cell, which may have been sent before.
    pub(super) fn carry(&mut self, from: LinkId, cell: &Cell, is_copy: bool) {
        self.on_end_sent(from);
        let jitter = Duration::from_micros(self.rng.random_range(0..1000));
        let to = self.network.end(from).map(|end| end.opposite);
        let arrival = self
            .network
            .arrival(from, self.now, jitter)
            .filter(|_| !self.network.swallows(from));
        let (Some(to), Some(at)) = (to, arrival) else {
            self.cells.lost += 1;
            self.lose_copies(usize::from(is_copy));
            return;
        };
        // Only the bytes arrive, in a buffer of the receiver's.
        let mut arriving = Cell::blank();
        arriving.as_bytes_mut().copy_from_slice(cell.as_bytes());
        self.cells.in_flight += 1;
        self.agenda.schedule(
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
        let target = self.relay_named(relay).and_then(|to| {
            let places: Vec<SocketAddr> = self.relays[to.0].places().collect();
            let mut tried = host_ports.iter().filter_map(|it| it.parse().ok());
            let at = tried.find(|at| places.contains(at) && self.source_of(from, *at).is_some())?;
            Some((to, at))
        });
        // TCP, then TLS, then a hello each way.
        let handshake = self.network.latency * 5;
        match target {
            Some((to, at)) => self.schedule(handshake, Event::Dialled { from, to, at }),
            None => self.schedule(DIAL_FAILS_AFTER, Event::DialFailed { from, relay }),
        }
    }

    pub(super) fn break_link(&mut self, end: LinkId) {
        let told = self.network.disconnect(end);
        for &(node, end) in &told {
            self.end_liveness(end);
            match node {
                Node::Client(n) if self.suspended == Some(ClientName(n)) => {
                    self.asleep.push(Event::Down { node, end });
                    continue;
                }
                Node::Client(_) => {}
                Node::Relay(n) => {
                    let (waited, copies) = self.relays[n].end_queue(end);
                    self.lose_waiting(waited);
                    self.lose_copies(copies);
                }
            }
            self.tell(node, Input::LinkDown(end));
        }
        for (node, _) in told {
            self.drain(node);
        }
    }

    pub(super) fn drop_links(&mut self, node: Node) {
        for end in self.network.ends_at(node) {
            self.break_link(end);
        }
    }

    pub(super) fn schedule(&mut self, after: Duration, event: Event) {
        self.agenda.schedule(self.now + after, event);
    }
}
