//! The task that runs the control plane: hands it inputs, the time and randomness, and executes its
//! effects.
//!
//! After each batch of inputs it drains the effects in their order, tables before cells: see
//! [`TableUpdates`](crate::forward::TableUpdates). It never waits for a link, nor for the store: an
//! op that the store has no room for is answered at once as one that failed.

use std::collections::{HashMap, VecDeque};
use std::iter;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};
use umbel_proto::Violation;
use umbel_proto::cell::Cell;
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::limits::LINK_CLOSING_MAX;
use umbel_proto::link::{LinkId, LinkOp};

use super::last_dials::{LastDial, LastDials};
use super::pool::CellCache;
use super::{LinkHandle, LinkReport, Shared, dial, news};
use crate::control::io::{ControlStats, Effect, StoreDone, StoreOp, Wake, Work, WorkDone};
use crate::control::standing::{OtherStanding, Standing};
use crate::control::{Control, Responder, Tuning};
use crate::forward::outgoing::Pushed;
use crate::forward::{LinkEvent, TableUpdate};
use crate::repeated::{MINUTE, Repeated};
use crate::shell::{Clock, DialFault};
use crate::store::{NotTaken, Store};

/// Most reports handled before the effects are drained.
const REPORTS_BATCH: usize = 64;
/// Most handshakes answered by one job.
const JOB_WORKS: usize = 8;
/// How long links may take when the relay stops: to send what waits, then to end TLS (§2.6(4)).
const STOPPING_MAX: Duration = LINK_CLOSING_MAX.saturating_mul(2);

/// The control plane and all that it reaches.
pub(crate) struct ControlPlane {
    control: Control,
    shared: Arc<Shared>,
    rng: StdRng,
    links: HashMap<LinkId, LinkHandle>,
    store: Store,
    /// For what the store did not take: it comes back as any other answer.
    untaken: mpsc::UnboundedSender<Vec<StoreDone>>,
    workers: Workers,
    seeds: Seeds,
    last_dials: LastDials,
    twins_said: u64,
    /// The descriptor that links show.
    shown: Vec<u8>,
    inputs: Inputs,
    spare_cells: CellCache,
}

/// Where the control plane hears from.
pub(crate) struct Inputs {
    /// Links.
    pub(crate) reports: mpsc::Receiver<LinkReport>,
    /// The store. Unbounded, but never longer than what the store was asked, which is bounded: so
    /// the store need not wait.
    pub(crate) stored: mpsc::UnboundedReceiver<Vec<StoreDone>>,
    /// Questions and orders from other tasks.
    pub(crate) asks: mpsc::Receiver<Ask>,
    /// True once the relay is to stop.
    pub(crate) stop: watch::Receiver<bool>,
}

/// A request of the shell to the control plane.
pub(crate) enum Ask {
    /// How the relay is doing.
    Stats(oneshot::Sender<ControlStats>),
    /// The relay is dialled at these addresses now.
    Addresses(Vec<SocketAddr>),
    /// The operator changed these.
    Tuning(Box<Tuning>),
    /// How this relay stands with others.
    Standing(oneshot::Sender<Standing>),
    /// How another relay stands with this one, and what came of the last dial to it.
    StandingOf(RelayId, oneshot::Sender<(OtherStanding, Option<LastDial>)>),
}

/// An event.
enum Input {
    Reports,
    Stored(Vec<StoreDone>),
    Worked(Worked),
    Ask(Ask),
    Timeout(Wake),
    Stop,
}

impl ControlPlane {
    /// A control plane that was just made.
    pub(crate) fn new(
        control: Control,
        shared: Arc<Shared>,
        (store, untaken): (Store, mpsc::UnboundedSender<Vec<StoreDone>>),
        seeds: Vec<Peer>,
        inputs: Inputs,
    ) -> Self {
        let spare_cells = CellCache::new(Arc::clone(&shared.pool));
        Self {
            control,
            rng: rand::make_rng(),
            links: HashMap::new(),
            store,
            untaken,
            workers: Workers::new(),
            seeds: Seeds {
                seeds,
                warning: Repeated::new(MINUTE),
            },
            last_dials: LastDials::default(),
            twins_said: 0,
            shown: Vec::new(),
            inputs,
            spare_cells,
            shared,
        }
    }

    /// Runs until the relay stops; then sends the queued cells and closes the store.
    pub(crate) async fn run(mut self) {
        let mut reports = Vec::with_capacity(REPORTS_BATCH);
        self.drain();
        loop {
            match self.next_input(&mut reports).await {
                Input::Reports => reports.drain(..).for_each(|report| self.on_report(report)),
                Input::Stored(done) => {
                    let moment = self.shared.clock.moment();
                    done.into_iter().for_each(|done| {
                        self.control.handle_stored(moment, done, &mut self.rng);
                    });
                }
                Input::Worked(Worked::Answered(done)) => {
                    self.control
                        .handle_work_done(self.shared.clock.moment(), done, &mut self.rng);
                }
                Input::Worked(Worked::JobEnded) => self.workers.running -= 1,
                Input::Ask(ask) => self.on_ask(ask),
                Input::Timeout(wake) => {
                    tracing::trace!(?wake, "woken");
                    self.control
                        .handle_timeout(self.shared.clock.moment(), &mut self.rng);
                    self.say_what_is_left();
                }
                Input::Stop => break,
            }
            self.drain();
            self.look_for_twins();
            self.renew_hello();
        }
        self.stop(reports).await;
    }

    async fn next_input(&mut self, reports: &mut Vec<LinkReport>) -> Input {
        let (wake_at, wake) = self.control.poll_timeout();
        let wake_at = self.shared.clock.at(wake_at);
        let inputs = &mut self.inputs;
        // Channels of which this end or the other outlives this task never end: no arm for that.
        tokio::select! {
            _ = inputs.stop.wait_for(|&stop| stop) => Input::Stop,
            _ = inputs.reports.recv_many(reports, REPORTS_BATCH) => Input::Reports,
            Some(done) = inputs.stored.recv() => Input::Stored(done),
            Some(worked) = self.workers.worked.recv() => Input::Worked(worked),
            Some(ask) = inputs.asks.recv() => Input::Ask(ask),
            () = sleep_until(wake_at) => Input::Timeout(wake),
        }
    }

    fn on_report(&mut self, report: LinkReport) {
        let moment = self.shared.clock.moment();
        match report {
            LinkReport::Up(up, handle) => {
                let link = handle.queue.link();
                if let Some(relay) = up.peer.filter(|_| up.is_dialler) {
                    self.last_dials.note(relay, moment.wall, Ok(()));
                }
                self.links.insert(link, handle);
                self.control.handle_link_up(moment, link, up, &mut self.rng);
            }
            LinkReport::Events(events) => {
                for (link, event) in events {
                    self.control
                        .handle_event(moment, link, event, &mut self.rng);
                }
            }
            LinkReport::Down(link) => {
                self.links.remove(&link);
                self.control.handle_link_down(moment, link, &mut self.rng);
            }
            LinkReport::Probed(id, probed) => {
                self.control
                    .handle_probed(moment, id, probed, &mut self.rng);
            }
            LinkReport::DialFailed(relay, fault) => {
                let now = Duration::from_micros(moment.now.as_micros());
                self.seeds.on_dial_failed(relay, fault, now);
                self.last_dials.note(relay, moment.wall, Err(fault));
                self.control
                    .handle_dial_failed(moment, relay, &mut self.rng);
            }
        }
    }

    /// The core only counts them; the shell decides what to log, and how often.
    fn look_for_twins(&mut self) {
        let twins = self.control.twin_count();
        if twins > self.twins_said {
            self.twins_said = twins;
            self.shared.say_twin();
        }
    }

    /// Lines that have stopped coming still owe their last sum.
    fn say_what_is_left(&mut self) {
        self.shared.say_twins_left();
        if let Some(repeated) = self
            .seeds
            .warning
            .rest(Duration::from_micros(self.shared.clock.now().as_micros()))
        {
            tracing::info!(repeated, "seeds could not be reached for a while");
        }
    }

    fn on_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Stats(reply) => {
                let _ = reply.send(self.control.stats()); // the asker may have gone
            }
            Ask::Addresses(addresses) => {
                if let Err(fault) = self.control.handle_addresses(
                    self.shared.clock.moment(),
                    addresses,
                    &mut self.rng,
                ) {
                    tracing::error!(
                        ?fault,
                        "others will not believe these addresses; set `advertise` to public ones"
                    );
                }
            }
            Ask::Tuning(tuning) => {
                self.seeds.seeds.clone_from(&tuning.seeds);
                self.control.handle_tuning(*tuning);
            }
            Ask::Standing(reply) => {
                let dial_to = |relay: &RelayId| self.last_dials.of(relay);
                let has_failed =
                    |relay: &RelayId| dial_to(relay).is_some_and(|it| it.outcome.is_err());
                let moment = self.shared.clock.moment();
                let _ = reply.send(self.control.standing(moment, has_failed));
            }
            Ask::StandingOf(relay, reply) => {
                let standing = self.control.standing_of(&relay, Clock::wall());
                let _ = reply.send((standing, self.last_dials.of(&relay)));
            }
        }
    }

    /// Does what the control plane wants, in its order. A cell that finds no room may make it want
    /// more.
    fn drain(&mut self) {
        let mut pushed = Pushed::default();
        while let Some(effect) = self.control.poll_effect() {
            match effect {
                Effect::Table(link, update) => self.update_table(link, update),
                Effect::Cell(link, cell) => self.send_cells(link, cell, &mut pushed),
                Effect::Link(op) => self.handle_link_op(op),
                Effect::Probe(id, probe) => {
                    let shared = Arc::clone(&self.shared);
                    tokio::spawn(dial::probe(shared, id, probe));
                }
                Effect::Work(work) => self.workers.waiting.push_back(work),
                Effect::News(news) => news::say(news, &self.shared.network),
                Effect::Store(op) => self.store(op),
            }
        }
        self.workers.start(&self.control);
        self.shared
            .counters
            .dropped_cells
            .fetch_add(pushed.dropped.len() as u64, Ordering::Relaxed);
        pushed
            .dropped
            .drain(..)
            .for_each(|cell| self.spare_cells.put(cell));
    }

    fn store(&mut self, op: StoreOp) {
        if let Err(NotTaken {
            answer: Some(answer),
        }) = self.store.submit(op)
        {
            let _ = self.untaken.send(vec![answer]); // read by this task itself
        }
    }

    fn update_table(&mut self, link: LinkId, update: TableUpdate<LinkId>) {
        let is_removal = matches!(update, TableUpdate::Remove(_));
        let queue_of = |link| {
            self.links
                .get(&link)
                .map(|handle| Arc::clone(&handle.queue))
        };
        // A link that is gone was reported to the control plane before it left `links`: it has no
        // use for its circuits.
        let (Some(handle), Some(update)) = (self.links.get(&link), update.map_queue(queue_of))
        else {
            return;
        };
        handle.updates.push(update);
        if is_removal {
            handle.queue.wake(); // so that removed keys are erased promptly
        }
    }

    /// Queues the cells of one link that come together with one lock, and reports the circuits that
    /// overran the queue.
    fn send_cells(&mut self, link: LinkId, first: Cell, pushed: &mut Pushed) {
        let more = iter::from_fn(|| self.control.poll_cell_on(link));
        let cells = iter::once(first).chain(more);
        match self.links.get(&link) {
            Some(handle) => handle.queue.push(cells, pushed),
            None => pushed.dropped.extend(cells),
        }
        let moment = self.shared.clock.moment();
        for circ in pushed.broken.drain(..) {
            let event = LinkEvent::Broken(circ, Violation::Window);
            self.control
                .handle_event(moment, link, event, &mut self.rng);
        }
    }

    fn handle_link_op(&self, op: LinkOp) {
        match op {
            LinkOp::Dial { relay, host_ports } => {
                tokio::spawn(dial::dial(Arc::clone(&self.shared), relay, host_ports));
            }
            LinkOp::Close(link) => {
                if let Some(handle) = self.links.get(&link) {
                    handle.queue.close();
                }
            }
        }
    }

    /// Links say the descriptor of now.
    fn renew_hello(&mut self) {
        if self.shown == self.control.descriptor() {
            return;
        }
        self.shown = self.control.descriptor().to_vec();
        let hello = self.control.hello(Clock::wall());
        *self
            .shared
            .hello
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = hello;
    }

    /// Destroys every circuit, sends the queued cells, closes every link and the store.
    async fn stop(mut self, mut reports: Vec<LinkReport>) {
        self.control
            .handle_stop(self.shared.clock.moment(), &mut self.rng);
        self.drain();
        self.links.values().for_each(|handle| handle.queue.close());
        let links_end = async {
            while !self.links.is_empty() {
                self.inputs
                    .reports
                    .recv_many(&mut reports, REPORTS_BATCH)
                    .await;
                for report in reports.drain(..) {
                    match report {
                        LinkReport::Down(link) => drop(self.links.remove(&link)),
                        LinkReport::Up(_, handle) => handle.queue.close(),
                        LinkReport::Events(_)
                        | LinkReport::DialFailed(..)
                        | LinkReport::Probed(..) => {}
                    }
                }
            }
        };
        if timeout(STOPPING_MAX, links_end).await.is_err() {
            tracing::debug!("some links did not end in time");
        }
        let Self { store, .. } = self;
        // Waits for the disk.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

/// Answers handshakes in tasks beside those of the links, a few at a time.
///
/// Links come first: a task answers one handshake, some 70 microseconds, then every other task that
/// is ready has its turn; and such tasks take half of the cores at most, or the only one. What
/// waits is bounded by the circuits that the control plane admits.
struct Workers {
    waiting: VecDeque<Work>,
    running: usize,
    running_max: usize,
    worked: mpsc::UnboundedReceiver<Worked>,
    worked_sender: mpsc::UnboundedSender<Worked>,
}

/// The report of a task that answers handshakes.
enum Worked {
    Answered(WorkDone),
    /// It has no more to answer: another may begin.
    JobEnded,
}

impl Workers {
    fn new() -> Self {
        let (worked_sender, worked) = mpsc::unbounded_channel();
        let running_max = (tokio::runtime::Handle::current().metrics().num_workers() / 2).max(1);
        Self {
            waiting: VecDeque::new(),
            running: 0,
            running_max,
            worked,
            worked_sender,
        }
    }

    fn start(&mut self, control: &Control) {
        while self.running < self.running_max && !self.waiting.is_empty() {
            let works: Vec<_> = self
                .waiting
                .drain(..JOB_WORKS.min(self.waiting.len()))
                .collect();
            let responder = control.responder();
            let worked = self.worked_sender.clone();
            self.running += 1;
            tokio::spawn(async move {
                // The relay may have stopped.
                let tell = |done| drop(worked.send(Worked::Answered(done)));
                answer_in_turn(&works, |work| answer(&responder, work), tell).await;
                let _ = worked.send(Worked::JobEnded);
            });
        }
    }
}

fn answer(responder: &Responder, work: &Work) -> WorkDone {
    WorkDone {
        id: work.id,
        result: responder.respond(&work.onionskin, &mut rand::rng()),
    }
}

/// Between any two, every other task that is ready has its turn.
async fn answer_in_turn(
    works: &[Work],
    answer: impl Fn(&Work) -> WorkDone,
    mut tell: impl FnMut(WorkDone),
) {
    for (index, work) in works.iter().enumerate() {
        if index > 0 {
            tokio::task::yield_now().await;
        }
        // A panic, which reports itself, costs this circuit and not one of the few places for work.
        if let Ok(done) = catch_unwind(AssertUnwindSafe(|| answer(work))) {
            tell(done);
        }
    }
}

/// The peers that the operator named, who wants to know when none of them answers.
struct Seeds {
    seeds: Vec<Peer>,
    warning: Repeated,
}

impl Seeds {
    fn on_dial_failed(&mut self, relay: RelayId, fault: DialFault, now: Duration) {
        let Some(seed) = self.seeds.iter().find(|seed| seed.id == relay) else {
            return;
        };
        if let Some(repeated) = self.warning.come(now) {
            let remedy = match fault {
                DialFault::Nobody => "is it running, and is its address right?",
                DialFault::Unknown => "end other programs, or raise their limits",
                DialFault::NoRelay => "correct its address, or update the older of the two",
                DialFault::OtherRelay => "correct its id or its address",
                DialFault::OtherNetwork => "name one of this network, or correct the network file",
                DialFault::Elsewhere => "use the file of a network of several machines",
            };
            tracing::warn!(%seed, repeated, "can't reach a seed; trying again: {fault}; {remedy}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Notify;
    use umbel_proto::handshake::{HandshakeFault, ONIONSKIN_LEN, Onionskin};

    use super::*;
    use crate::control::io::WorkId;

    fn works(count: u64) -> Vec<Work> {
        let onionskin = || Box::new(Onionskin([0; ONIONSKIN_LEN]));
        (0..count)
            .map(|number| Work {
                id: WorkId(number),
                onionskin: onionskin(),
            })
            .collect()
    }

    fn done(work: &Work) -> WorkDone {
        WorkDone {
            id: work.id,
            result: Err(HandshakeFault::UnknownOnionKey),
        }
    }

    #[tokio::test]
    async fn a_link_that_is_ready_waits_for_one_handshake_at_most() {
        let (log, ready) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (link_log, link_ready) = (Arc::clone(&log), Arc::clone(&ready));
        let link = tokio::spawn(async move {
            loop {
                link_ready.notified().await;
                link_log.lock().unwrap().push("link");
            }
        });
        let answer_log = Arc::clone(&log);
        let answer = move |work: &Work| {
            answer_log.lock().unwrap().push("handshake");
            ready.notify_one(); // meanwhile a cell came
            done(work)
        };
        let told = |_| log.lock().unwrap().push("told");
        answer_in_turn(&works(3), answer, told).await;
        let one = ["handshake", "told", "link"];
        assert_eq!(*log.lock().unwrap(), [&one[..], &one, &one[..2]].concat());
        link.abort();
    }

    #[tokio::test]
    async fn a_handshake_that_panics_costs_no_other() {
        let works = works(3);
        let answer = |work: &Work| {
            assert!(work.id != WorkId(1), "a fault of ours");
            done(work)
        };
        let mut ids = Vec::new();
        answer_in_turn(&works, answer, |done| ids.push(done.id)).await;
        assert_eq!(ids, [WorkId(0), WorkId(2)]);
    }
}
