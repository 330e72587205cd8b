//! The task that drives the core: hands it inputs, executes its effects.
//!
//! Owns the core, the links' queues and the one batch that is with the store. Decides nothing but
//! what happens when a queue is full: a link whose queue is full is closed, and while the store is
//! behind nothing new is taken in.

mod links;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};
use umbel_proto::cell::Cell;
use umbel_proto::ids::{MessageId, NetworkId, Peer, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::limits::LINK_CLOSING_MAX;
use umbel_proto::link::LinkId;
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Instant, Moment};
use umbel_relay::shell::{Clock, DialFault};
use zeroize::Zeroizing;

use super::link::LinkReport;
use crate::client::{CancelError, CreateInboxError, ListenError, SendError};
use crate::core::io::{
    Cancelled, ContactKey, Notice, Recipient, Status, StoreFault, StoreOp, StoreTicket, Warning,
    Wish, is_held_by_enough,
};
use crate::core::{Core, INBOXES_MAX};
use crate::meeting::Told;
use crate::store::{BatchDone, Seeds, Store};
use links::Link;

/// Batches of cells that came and wait for the driver; the links' tasks wait then.
const LINK_EVENTS_MAX: usize = 64;
/// Ops waiting for the store, from where on nothing new is taken in until it has caught up.
const STORE_OPS_MAX: usize = 4096;
/// Events and requests handled between two looks at what comes out.
const BATCH_MAX: usize = 64;
/// How long links may take to end: to send the queued cells, then close_notify.
const GOODBYE_MAX: Duration = LINK_CLOSING_MAX.saturating_mul(2);
/// When there is nothing to wait for, a look is taken this often anyway.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// Where an answer goes that may be an error.
pub(crate) type Done<T, E> = oneshot::Sender<Result<T, E>>;

/// A request of a client's handle to the driver.
pub(crate) enum Request {
    Send {
        id: MessageId,
        to: Recipient,
        body: Vec<u8>,
        life: Option<Duration>,
        done: Done<(), SendError>,
    },
    Cancel {
        id: MessageId,
        done: Done<Option<Cancelled>, CancelError>,
    },
    Flush,
    /// `is_again`: the asker repeats itself, and may have missed that it was made.
    CreateInbox {
        name: String,
        is_again: bool,
        done: Done<InboxAddress, CreateInboxError>,
    },
    /// Without a name: for answers of contacts that belong to no inbox.
    Listen {
        name: Option<String>,
        is_interactive: bool,
        done: Done<(), ListenError>,
    },
    /// Answered once it is stored; with false if there is no such contact.
    Block {
        contact: ContactKey,
        is_blocked: bool,
        done: Done<bool, StoreFault>,
    },
    /// Answered once it is stored; with false if there is no such contact.
    RemoveContact {
        contact: ContactKey,
        done: Done<bool, StoreFault>,
    },
    InboxAddress {
        name: String,
        done: oneshot::Sender<Option<InboxAddress>>,
    },
    Status {
        done: oneshot::Sender<Status>,
    },
    Left {
        done: oneshot::Sender<Vec<Notice>>,
    },
    /// Take care of a message that a guest put into the outbox.
    Adopt {
        id: MessageId,
        state: Zeroizing<Vec<u8>>,
    },
    /// Answered once no guest has anything in progress, or after a while.
    Settle {
        done: oneshot::Sender<()>,
    },
    Stop,
}

/// The driver's parts.
pub(crate) struct Parts {
    pub(crate) core: Core,
    pub(crate) clock: Clock,
    pub(crate) network: NetworkId,
    pub(crate) params: Arc<Params>,
    pub(crate) store: Store,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Requests made before there was a driver.
    pub(crate) first: Vec<Request>,
    pub(crate) notices: broadcast::Sender<Told>,
    /// Asks the host whether guests have anything in progress.
    pub(crate) settle: mpsc::Sender<oneshot::Sender<()>>,
    /// Whether links may be made at all.
    pub(crate) is_online: bool,
    /// Where the profile is, with the seeds that it has by now.
    pub(crate) dir: PathBuf,
    /// The profile's seeds that the core knows, besides the network's.
    pub(crate) seeds: Vec<Peer>,
    /// The network's.
    pub(crate) network_seeds: Vec<Peer>,
    pub(crate) seed_faults: SeedFaults,
}

/// What was found in the place of seeds, other than nobody: of each, at the last dial.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeedFaults(Arc<Mutex<BTreeMap<RelayId, DialFault>>>);

impl SeedFaults {
    pub(crate) fn all(&self) -> Vec<(RelayId, DialFault)> {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().map(|(&seed, &fault)| (seed, fault)).collect()
    }

    /// How the last dial of this seed went; `None` if it answered.
    fn note(&self, seed: RelayId, fault: Option<DialFault>) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fault.filter(|fault| *fault != DialFault::Nobody) {
            Some(fault) => faults.insert(seed, fault),
            None => faults.remove(&seed),
        };
    }
}

/// See the module.
pub(crate) struct Driver {
    parts: Parts,
    links: BTreeMap<LinkId, Link>,
    /// Links that were given up and of which the core has not heard yet.
    lost: Vec<LinkId>,
    next_link: u64,
    tasks: JoinSet<()>,
    event_sender: mpsc::Sender<LinkReport>,
    events: mpsc::Receiver<LinkReport>,
    /// Cells that came and wait for their turn; while there are any, no more events are taken.
    cells: VecDeque<(LinkId, Cell)>,
    ops: Vec<(StoreTicket, StoreOp)>,
    /// The batch that is with the store.
    writing: Option<oneshot::Receiver<BatchDone>>,
    /// The store's thread ended before us: nothing can become durable any more, so the client ends
    /// too.
    is_store_gone: bool,
    /// A notice said that the store fails, and no write has succeeded since.
    is_store_fault_told: bool,
    /// When a notice last said that a relay has other parameters.
    other_parameters_told_at: Option<Instant>,
    /// No relay could be reached: seeds are looked at again.
    is_unreachable: bool,
    /// The askers that wait, by op.
    waiting: BTreeMap<StoreTicket, Waiting>,
    sends: BTreeMap<MessageId, Sending>,
    cancels: BTreeMap<MessageId, Cancelling>,
    inboxes: BTreeMap<String, Done<InboxAddress, CreateInboxError>>,
    /// Those who wait until a contact is stored as they want it, in the order they asked.
    changes: BTreeMap<ContactKey, Vec<Done<bool, StoreFault>>>,
    removals: BTreeMap<ContactKey, Vec<Done<bool, StoreFault>>>,
    /// Contacts that were removed while this runs.
    removed: BTreeSet<ContactKey>,
}

/// An asker that waits for a message to be safe.
struct Sending {
    done: Done<(), SendError>,
    /// Why the store could not take it when it was last asked.
    fault: Option<StoreFault>,
}

/// An asker that waits until a message is taken back for good.
struct Cancelling {
    done: Done<Option<Cancelled>, CancelError>,
    /// The core's answer.
    cancelled: Option<Cancelled>,
}

enum Waiting {
    Send(MessageId),
    Cancel(MessageId),
    Inbox(String),
    Contacts(Vec<Done<bool, StoreFault>>),
}

enum Wake {
    Stored(Option<BatchDone>),
    Cells,
    Link(LinkReport),
    Request(Option<Request>),
    Timer,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let (event_sender, events) = mpsc::channel(LINK_EVENTS_MAX);
        Self {
            parts,
            links: BTreeMap::new(),
            lost: Vec::new(),
            next_link: 1,
            tasks: JoinSet::new(),
            event_sender,
            events,
            cells: VecDeque::new(),
            ops: Vec::new(),
            writing: None,
            is_store_gone: false,
            is_store_fault_told: false,
            other_parameters_told_at: None,
            is_unreachable: false,
            waiting: BTreeMap::new(),
            sends: BTreeMap::new(),
            cancels: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            changes: BTreeMap::new(),
            removals: BTreeMap::new(),
            removed: BTreeSet::new(),
        }
    }

    /// Drives the core until a request stops it, or all senders of requests are gone.
    pub(crate) async fn run(mut self) {
        for request in std::mem::take(&mut self.parts.first) {
            self.on_request(self.parts.clock.moment(), request);
        }
        loop {
            let wake_at = self.drain().await;
            if self.is_store_gone {
                tracing::error!("the store failed");
                return self.finish().await;
            }
            let has_room = self.ops.len() < STORE_OPS_MAX;
            let (has_cells, is_due) = (
                !self.cells.is_empty(),
                wake_at <= tokio::time::Instant::now(),
            );
            // In this order: completed writes are reported before more work begins, and each of the
            // other sources gets its turn.
            let wake = tokio::select! {
                biased;
                done = outcome(&mut self.writing) => Wake::Stored(done),
                request = self.parts.requests.recv(), if has_room => Wake::Request(request),
                () = std::future::ready(()), if has_cells => Wake::Cells,
                () = std::future::ready(()), if is_due => Wake::Timer,
                Some(event) = self.events.recv(), if has_room => Wake::Link(event),
                () = sleep_until(wake_at) => Wake::Timer,
            };
            if self.on_wake(wake).is_break() {
                return self.finish().await;
            }
        }
    }

    /// One batch: the event that woke us, and others that have come meanwhile.
    fn on_wake(&mut self, wake: Wake) -> std::ops::ControlFlow<()> {
        let moment = self.parts.clock.moment();
        if std::mem::take(&mut self.is_unreachable) {
            self.look_at_seeds(moment);
        }
        match wake {
            Wake::Stored(done) => self.on_stored(moment, done),
            Wake::Cells => {}
            Wake::Link(event) => self.on_link_report(moment, event),
            Wake::Request(Some(Request::Stop) | None) => return std::ops::ControlFlow::Break(()),
            Wake::Request(Some(request)) => self.on_request(moment, request),
            // All else makes the core do what is due besides.
            Wake::Timer => self.parts.core.handle_timeout(moment, &mut rand::rng()),
        }
        self.handle_cells(moment);
        for _ in 0..BATCH_MAX {
            if !self.cells.is_empty() {
                break;
            }
            let Ok(event) = self.events.try_recv() else {
                break;
            };
            self.on_link_report(moment, event);
            self.handle_cells(moment);
        }
        std::ops::ControlFlow::Continue(())
    }

    fn on_request(&mut self, moment: Moment, request: Request) {
        match request {
            Request::Send {
                id,
                to,
                body,
                life,
                done,
            } => {
                self.sends.insert(id, Sending { done, fault: None });
                let send = Wish::Send { id, to, body, life };
                self.wish(moment, send);
            }
            Request::Cancel { id, done } => self.cancel(moment, id, done),
            Request::Flush => {
                self.look_at_seeds(moment);
                self.wish(moment, Wish::Flush);
            }
            Request::CreateInbox {
                name,
                is_again,
                done,
            } => self.create_inbox(moment, name, is_again, done),
            Request::Listen {
                name,
                is_interactive,
                done,
            } => self.listen(moment, name, is_interactive, done),
            Request::Block {
                contact,
                is_blocked,
                done,
            } => self.block(moment, contact, is_blocked, done),
            Request::RemoveContact { contact, done } => self.remove(moment, contact, done),
            Request::InboxAddress { name, done } => {
                answer(done, self.parts.core.inbox_address(&name));
            }
            Request::Status { done } => answer(done, self.parts.core.status()),
            Request::Left { done } => answer(done, self.parts.core.left()),
            Request::Adopt { id, state } => self.wish(moment, Wish::Adopt { id, state }),
            // Without a host there are no guests: the asker hears it when this is dropped.
            Request::Settle { done } => drop(self.parts.settle.try_send(done)),
            Request::Stop => {}
        }
    }

    /// Answers once the store has removed the message, or at once if there is nothing to cancel.
    fn cancel(
        &mut self,
        moment: Moment,
        id: MessageId,
        done: Done<Option<Cancelled>, CancelError>,
    ) {
        if !self.parts.core.is_outgoing(id) {
            return answer(done, Ok(None));
        }
        let cancelling = Cancelling {
            done,
            cancelled: None,
        };
        self.cancels.insert(id, cancelling);
        self.wish(moment, Wish::Cancel(id));
    }

    /// Makes an inbox and answers once it is stored; `is_again` accepts one that is there.
    fn create_inbox(
        &mut self,
        moment: Moment,
        name: String,
        is_again: bool,
        done: Done<InboxAddress, CreateInboxError>,
    ) {
        let present = self.parts.core.inbox_address(&name);
        if let Some(address) = present.filter(|_| is_again) {
            // The notice that it takes mail follows once more.
            self.wish(moment, Wish::CreateInbox { name });
            answer(done, Ok(address));
        } else if present.is_some() || self.inboxes.contains_key(&name) {
            answer(done, Err(CreateInboxError::Exists));
        } else if self.parts.core.status().inboxes.len() >= INBOXES_MAX {
            answer(done, Err(CreateInboxError::TooMany));
        } else {
            self.inboxes.insert(name.clone(), done);
            self.wish(moment, Wish::CreateInbox { name });
        }
    }

    fn listen(
        &mut self,
        moment: Moment,
        name: Option<String>,
        is_interactive: bool,
        done: Done<(), ListenError>,
    ) {
        let listen = match name {
            Some(name) if self.parts.core.inbox_address(&name).is_none() => {
                return answer(done, Err(ListenError::NoInbox));
            }
            Some(name) => Wish::Listen {
                name,
                is_interactive,
            },
            None => Wish::ListenForAnswers { is_interactive },
        };
        self.wish(moment, listen);
        answer(done, Ok(()));
    }

    /// The asker has seen the contact in the store, so there is one unless it was removed since.
    fn block(
        &mut self,
        moment: Moment,
        contact: ContactKey,
        is_blocked: bool,
        done: Done<bool, StoreFault>,
    ) {
        if self.removed.contains(&contact) {
            return answer(done, Ok(false));
        }
        let block = Wish::Block {
            contact,
            is_blocked,
        };
        self.wish(moment, block);
        self.changes.entry(contact).or_default().push(done);
    }

    fn remove(&mut self, moment: Moment, contact: ContactKey, done: Done<bool, StoreFault>) {
        if !self.removed.insert(contact) {
            return answer(done, Ok(false));
        }
        self.wish(moment, Wish::RemoveContact(contact));
        self.removals.entry(contact).or_default().push(done);
    }

    /// A user who is locked out names another seed while this runs.
    fn look_at_seeds(&mut self, moment: Moment) {
        let Ok(Seeds { own, .. }) = Seeds::read(&self.parts.dir) else {
            return;
        };
        if own != self.parts.seeds {
            self.parts.seeds.clone_from(&own);
            self.wish(moment, Wish::Seeds(own));
        }
    }

    fn wish(&mut self, moment: Moment, wish: Wish) {
        self.parts.core.handle_wish(moment, wish, &mut rand::rng());
    }

    fn on_stored(&mut self, moment: Moment, done: Option<BatchDone>) {
        self.writing = None;
        let Some(done) = done else {
            self.is_store_gone = true;
            return;
        };
        for (ticket, result) in done {
            self.on_op_stored(moment, ticket, result);
        }
    }

    fn on_op_stored(
        &mut self,
        moment: Moment,
        ticket: StoreTicket,
        result: Result<(), StoreFault>,
    ) {
        let is_stored = result.is_ok();
        if let (Some(Waiting::Send(id)), Err(fault)) = (self.waiting.get(&ticket), result)
            && let Some(sending) = self.sends.get_mut(id)
        {
            sending.fault = Some(fault);
        }
        self.parts
            .core
            .handle_stored(moment, ticket, is_stored, &mut rand::rng());
        if let Err(fault) = result
            && !self.is_store_fault_told
        {
            self.tell(Notice::Warning(Warning::Store(fault)));
        }
        self.is_store_fault_told = !is_stored;
        match self.waiting.remove(&ticket) {
            // The core reports the outcome: `Queued`, `Held`, `Unsaved`.
            Some(Waiting::Send(_)) | None => {}
            Some(Waiting::Cancel(id)) => {
                if let Some(Cancelling { done, cancelled }) = self.cancels.remove(&id) {
                    answer(done, result.map(|()| cancelled).map_err(CancelError::Store));
                }
            }
            Some(Waiting::Contacts(askers)) => {
                for done in askers {
                    answer(done, result.map(|()| true));
                }
            }
            Some(Waiting::Inbox(name)) => {
                if let Some(done) = self.inboxes.remove(&name) {
                    let address = result.map_err(CreateInboxError::Store).and_then(|()| {
                        self.parts
                            .core
                            .inbox_address(&name)
                            .ok_or(CreateInboxError::Store(StoreFault::Failed))
                    });
                    answer(done, address);
                }
            }
        }
    }

    /// Executes all that the core asks for, in the order it prescribes; returns when to wake up at
    /// the latest.
    async fn drain(&mut self) -> tokio::time::Instant {
        while self.tasks.try_join_next().is_some() {}
        loop {
            self.drain_stores().await;
            while let Some((link, cell)) = self.parts.core.poll_cell() {
                self.queue_cell(link, cell);
            }
            while let Some(op) = self.parts.core.poll_link() {
                self.on_link_op(op);
            }
            while let Some(notice) = self.parts.core.poll_notice() {
                self.on_notice(notice);
            }
            if self.lost.is_empty() {
                break;
            }
            let moment = self.parts.clock.moment();
            for link in std::mem::take(&mut self.lost) {
                self.parts
                    .core
                    .handle_link_down(moment, link, &mut rand::rng());
            }
        }
        let idle = tokio::time::Instant::now() + IDLE_MAX;
        self.parts
            .core
            .poll_timeout()
            .map_or(idle, |at| self.parts.clock.at(at).min(idle))
    }

    async fn drain_stores(&mut self) {
        while let Some((ticket, op)) = self.parts.core.poll_store() {
            if let Some(waiting) = self.who_waits_for(&op) {
                self.waiting.insert(ticket, waiting);
            }
            self.ops.push((ticket, op));
        }
        if self.writing.is_none() && !self.ops.is_empty() {
            self.writing = self
                .parts
                .store
                .submit(std::mem::take(&mut self.ops))
                .await
                .ok();
            self.is_store_gone |= self.writing.is_none();
        }
    }

    fn who_waits_for(&mut self, op: &StoreOp) -> Option<Waiting> {
        match op {
            StoreOp::PutOutbox { id, .. } if self.sends.contains_key(id) => {
                Some(Waiting::Send(*id))
            }
            StoreOp::RemoveOutbox { id, .. } if self.cancels.contains_key(id) => {
                Some(Waiting::Cancel(*id))
            }
            StoreOp::PutInbox { name, .. } if self.inboxes.contains_key(name) => {
                Some(Waiting::Inbox(name.clone()))
            }
            StoreOp::PutContact { key, .. } => self.changes.remove(key).map(Waiting::Contacts),
            StoreOp::RemoveContact(key) => {
                for done in self.changes.remove(key).into_iter().flatten() {
                    answer(done, Ok(false));
                }
                self.removals.remove(key).map(Waiting::Contacts)
            }
            // A contact is the last of those that are stored together.
            StoreOp::Together(ops) => self.who_waits_for(ops.last()?),
            _ => None,
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        match &notice {
            Notice::Unreachable => self.is_unreachable = true,
            Notice::Queued(id) => self.answer_send(id, |_| Ok(())),
            // With enough holders it needs no outbox.
            Notice::Held {
                id,
                holders,
                wanted,
            } if is_held_by_enough(*holders, *wanted) => {
                self.answer_send(id, |_| Ok(()));
            }
            Notice::Unsaved {
                id,
                may_be_out: false,
            } => self.answer_send(id, |fault| Err(SendError::Store(fault))),
            Notice::Unsaved {
                id,
                may_be_out: true,
            } => {
                self.answer_send(id, |fault| Err(SendError::InDoubt { id: *id, fault }));
            }
            Notice::Failed { id, reason } => self.answer_send(id, |_| Err((*reason).into())),
            Notice::Cancelled(cancelled) => {
                self.answer_send(&cancelled.id, |_| Ok(()));
                if let Some(cancelling) = self.cancels.get_mut(&cancelled.id) {
                    cancelling.cancelled = Some(*cancelled);
                }
            }
            _ => {}
        }
        self.tell(notice);
    }

    /// Answers the sender of this message, unless it was answered.
    fn answer_send(
        &mut self,
        id: &MessageId,
        result: impl FnOnce(StoreFault) -> Result<(), SendError>,
    ) {
        if let Some(Sending { done, fault }) = self.sends.remove(id) {
            answer(done, result(fault.unwrap_or(StoreFault::Failed)));
        }
    }

    /// Nobody may be listening.
    fn tell(&self, notice: Notice) {
        match &notice {
            Notice::Deferred {
                reason, retry_in, ..
            } => {
                tracing::debug!(?reason, ?retry_in, "a message could not be delivered yet");
            }
            Notice::Unreachable => tracing::debug!("no relay answers"),
            Notice::NoCircuits => tracing::debug!("no circuit can be built"),
            Notice::Ready { relays } => tracing::debug!(relays, "the list of relays is good"),
            _ => {}
        }
        drop(self.parts.notices.send(Told::Notice(notice)));
    }

    /// Ends in order: circuits are destroyed, links say goodbye, what was asked of the store is
    /// durable.
    async fn finish(mut self) {
        self.wish(self.parts.clock.moment(), Wish::Stop);
        self.parts.is_online = false;
        let deadline = tokio::time::Instant::now() + GOODBYE_MAX;
        loop {
            self.drain().await;
            for entry in self.links.values_mut() {
                entry.queue = None;
            }
            if self.tasks.is_empty() {
                break;
            }
            let step = timeout_at(deadline, async {
                tokio::select! {
                    done = outcome(&mut self.writing) => Some(Wake::Stored(done)),
                    Some(event) = self.events.recv() => Some(Wake::Link(event)),
                    _ = self.tasks.join_next() => None,
                }
            });
            let moment = self.parts.clock.moment();
            match step.await {
                Ok(Some(Wake::Stored(done))) => self.on_stored(moment, done),
                Ok(Some(Wake::Link(event))) => self.on_link_report(moment, event),
                Ok(_) => {}
                Err(_elapsed) => break,
            }
        }
        while self.writing.is_some() {
            let done = outcome(&mut self.writing).await;
            self.on_stored(self.parts.clock.moment(), done);
            self.drain().await;
        }
        let open = self.links.values().filter(|entry| entry.is_up).count();
        tracing::debug!(open, "client ended");
    }
}

/// The asker may have stopped waiting.
fn answer<T>(done: oneshot::Sender<T>, value: T) {
    drop(done.send(value).err());
}

/// How the batch that is with the store went; pends while there is none. `None` if the store is
/// gone.
async fn outcome(writing: &mut Option<oneshot::Receiver<BatchDone>>) -> Option<BatchDone> {
    match writing {
        Some(done) => done.await.ok(),
        None => std::future::pending().await,
    }
}
