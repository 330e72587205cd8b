//! The driver's links: dials and closes as the core asks, hands their cells in and out.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::task::AbortHandle;
use umbel_proto::cell::Cell;
use umbel_proto::ids::RelayId;
use umbel_proto::link::{Hello, LinkId, LinkOp};
use umbel_proto::time::{Duration, Moment};
use umbel_relay::shell::Clock;

use super::super::link::{self, LinkReport, QueueSender, Target};
use super::Driver;
use crate::core::io::{LinkUp, Notice, Warning};

/// Cells waiting for one link: eight times the largest window. A peer that lets them pile up is not
/// taking any.
const LINK_QUEUE_CELLS_MAX: usize = 4096;
/// Cells are handled for so long before what came of them is looked at: a record that is opened
/// takes longer.
const CELLS_TURN: Duration = Duration::from_micros(200);

/// How often it is said that a relay has other parameters.
const OTHER_PARAMETERS_PAUSE: Duration = Duration::from_secs(3600);

pub(super) struct Link {
    pub(super) relay: RelayId,
    /// `None` once the link is to close.
    pub(super) queue: Option<QueueSender>,
    pub(super) task: AbortHandle,
    pub(super) is_up: bool,
}

impl Driver {
    pub(super) fn on_link_report(&mut self, moment: Moment, event: LinkReport) {
        let mut rng = rand::rng();
        match event {
            LinkReport::Up {
                link,
                remote,
                hello,
            } => {
                self.compare_parameters(moment, &hello);
                let core = &mut self.parts.core;
                if let Some(entry) = self.links.get_mut(&link) {
                    entry.is_up = true;
                    self.parts.seed_faults.note(entry.relay, None);
                    let relay = entry.relay;
                    let up = LinkUp {
                        link,
                        relay,
                        remote,
                        hello: &hello,
                    };
                    core.handle_link_up(moment, up, &mut rng);
                }
            }
            LinkReport::DialFailed { link, fault } => {
                if let Some(entry) = self.links.remove(&link) {
                    let mut seeds = self.parts.seeds.iter().chain(&self.parts.network_seeds);
                    if seeds.any(|seed| seed.id == entry.relay) {
                        self.parts.seed_faults.note(entry.relay, Some(fault));
                    }
                    self.parts
                        .core
                        .handle_dial_failed(moment, entry.relay, &mut rng);
                }
            }
            LinkReport::Cells { link, cells } => {
                self.cells
                    .extend(cells.into_iter().map(|cell| (link, cell)));
            }
            LinkReport::Quiet { link } => {
                self.parts.core.handle_link_quiet(moment, link, &mut rng);
            }
            LinkReport::Down { link } => {
                if self.links.remove(&link).is_some() {
                    self.parts.core.handle_link_down(moment, link, &mut rng);
                }
            }
        }
    }

    /// Warns of a relay that runs the network by other parameters (§2.4(8)); the link stays.
    pub(super) fn compare_parameters(&mut self, moment: Moment, hello: &Hello) {
        let is_told = self
            .other_parameters_told_at
            .is_some_and(|told_at| moment.now.since(told_at) < OTHER_PARAMETERS_PAUSE);
        if hello.differs(self.parts.params.mark()) && !is_told {
            self.other_parameters_told_at = Some(moment.now);
            tracing::warn!("a relay runs this network with other parameters");
            self.tell(Notice::Warning(Warning::OtherParameters));
        }
    }

    /// Handles received cells for a while. Writes that the first of them caused need not wait until
    /// all are done.
    pub(super) fn handle_cells(&mut self, moment: Moment) {
        let began_at = tokio::time::Instant::now();
        while began_at.elapsed() < CELLS_TURN
            && let Some((link, cell)) = self.cells.pop_front()
        {
            // A link that was given up or closed has nothing more to say to the core.
            if self
                .links
                .get(&link)
                .is_some_and(|entry| entry.queue.is_some())
            {
                self.parts
                    .core
                    .handle_cell(moment, link, cell, &mut rand::rng());
            }
        }
    }

    pub(super) fn queue_cell(&mut self, link: LinkId, cell: Cell) {
        let Some(entry) = self.links.get(&link) else {
            return;
        };
        let Some(queue) = &entry.queue else {
            return;
        };
        match queue.try_send(cell) {
            Ok(()) => {}
            // It is ending: it sends what was queued before, and reports its end.
            Err(TrySendError::Closed(_)) if !entry.task.is_finished() => {}
            Err(_) => {
                tracing::debug!(?link, "link given up: its queue is full or its task gone");
                self.links.remove(&link); // which closes its queue (§2.6(4))
                self.lost.push(link);
            }
        }
    }

    pub(super) fn on_link_op(&mut self, op: LinkOp) {
        match op {
            LinkOp::Dial { relay, host_ports } if self.parts.is_online => {
                self.dial(relay, host_ports);
            }
            // Offline, an attempt neither succeeds nor fails: a failure would count against the
            // relay.
            LinkOp::Dial { .. } => {}
            LinkOp::Close(link) => {
                if let Some(entry) = self.links.get_mut(&link) {
                    entry.queue = None;
                }
            }
        }
    }

    fn dial(&mut self, relay: RelayId, host_ports: Vec<String>) {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let target = Target {
            link,
            relay,
            host_ports,
            hello: Hello::of_client(self.parts.network, Clock::wall()),
            params: Arc::clone(&self.parts.params),
            clock: self.parts.clock,
        };
        let (queue, cells) = link::queue(LINK_QUEUE_CELLS_MAX);
        let task = self
            .tasks
            .spawn(link::run(target, cells, self.event_sender.clone()));
        self.links.insert(
            link,
            Link {
                relay,
                queue: Some(queue),
                task,
                is_up: false,
            },
        );
    }
}
