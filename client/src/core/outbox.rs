//! Messages on their way out (docs/protocol.md §10.5): durable before anything else, then looked up, sealed for each
//! mailbox, and deposited until enough holders have them.
//!
//! A message leaves the outbox only when as many holders hold it as are wanted. What is sealed is stored before it is first
//! deposited, so that trying again is the same deposit again. Only a few messages are worked on at a time; the rest wait.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::record::MESSAGE_LEN_MAX;
use umbel_proto::time::{Duration, Instant};

use super::chance::Backoff;
use super::delivery::{Delivery, Progress};
use super::io::{DeferReason, Notice, SendFault, StoreOp, StoreTicket};
use super::lookup::{Found, Lookups};
use super::requests::{Answer, Requests};
use super::{Context, SnapshotFault};
use umbel_proto::ids::QueueId;

/// Messages worked on at once; the others wait. Bounds what is sealed and in memory twice.
const ACTIVE_MAX: usize = 8;
/// Most messages in the outbox; more are refused.
const MESSAGES_MAX: usize = 10_000;
/// Most bytes of messages in the outbox; more are refused.
const BYTES_MAX: usize = 256 << 20;
/// How often the mailboxes that are still missing are tried once enough hold a message.
const EXTRA_ROUNDS: u32 = 3;
/// How long after the store failed it is asked again.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// All messages on their way out.
#[derive(Default)]
pub(super) struct Outbox {
    entries: BTreeMap<MessageId, Entry>,
    /// Messages nothing is done about now: when each is due, in the order they were sent.
    waiting: BTreeSet<(Instant, u64, MessageId)>,
    active: BTreeSet<(u64, MessageId)>,
    tickets: BTreeMap<StoreTicket, MessageId>,
    bytes: usize,
    last_seq: u64,
}

struct Entry {
    seq: u64,
    delivery: Delivery,
    stage: Stage,
    backoff: Backoff,
    /// When this attempt began.
    attempt_at: Instant,
    /// Deposits failed: the descriptor may have changed.
    needs_fresh: bool,
    /// Attempts since enough holders had it.
    extra_rounds: u32,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not durable; to be stored when it is due.
    Unstored,
    /// Being stored for the first time.
    Storing,
    /// Until it is due.
    Waiting,
    /// The descriptor is being looked up.
    Finding,
    /// What was sealed is being stored.
    Sealing,
    /// Mailboxes are being tried.
    Depositing,
}

impl Outbox {
    pub(super) fn restore(&mut self, id: MessageId, state: &[u8], now: Instant) -> Result<(), SnapshotFault> {
        let delivery = Delivery::restore(state).ok_or(SnapshotFault::Outbox(id))?;
        self.insert(id, delivery, Stage::Waiting);
        self.wait(id, now);
        Ok(())
    }

    /// Takes a message in, unless it can never be sent.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, id: MessageId, address: InboxAddress, body: Vec<u8>) {
        if body.len() > MESSAGE_LEN_MAX {
            return cx.notify(Notice::Failed { id, reason: SendFault::TooLong });
        }
        if self.entries.contains_key(&id) {
            return;
        }
        if self.entries.len() >= MESSAGES_MAX || self.bytes + body.len() > BYTES_MAX {
            return cx.notify(Notice::Failed { id, reason: SendFault::OutboxFull });
        }
        self.insert(id, Delivery::new(address, body), Stage::Unstored);
        self.store(cx, id, Stage::Storing);
    }

    /// Whatever waits is due now.
    pub(super) fn flush(&mut self, now: Instant) {
        let waiting = core::mem::take(&mut self.waiting);
        self.waiting = waiting.into_iter().map(|(at, seq, id)| (at.min(now), seq, id)).collect();
    }

    /// Each message, with how many hold it.
    pub(super) fn list(&self) -> Vec<(MessageId, usize)> {
        self.entries.iter().map(|(&id, entry)| (id, entry.delivery.held_count())).collect()
    }

    /// Begins attempts that are due, and goes on with those under way.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, lookups: &mut Lookups, requests: &mut Requests) {
        while self.active.len() < ACTIVE_MAX
            && let Some(&(at, seq, id)) = self.waiting.first()
            && at <= cx.now
        {
            self.waiting.remove(&(at, seq, id));
            self.begin(cx, id);
        }
        let active: Vec<MessageId> = self.active.iter().map(|&(_, id)| id).collect();
        for id in active {
            self.advance(cx, lookups, requests, id);
        }
    }

    pub(super) fn timeout(&self, after: Instant) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|&(at, _, _)| at).find(|&at| at > after);
        let active = self.active.iter().filter_map(|(_, id)| self.entries.get(id));
        let deposits = active.filter_map(|entry| entry.delivery.timeout(after)).min();
        waiting.into_iter().chain(deposits).min()
    }

    /// A mailbox answered a deposit, or did not.
    pub(super) fn on_answer(&mut self, cx: &mut Context<'_>, id: MessageId, queue: QueueId, answer: &Answer) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.delivery.on_answer(queue, answer) {
            let (holders, wanted) = (entry.delivery.held_count(), entry.delivery.wanted(cx));
            cx.notify(Notice::Held { id, holders, wanted });
        }
    }

    /// Says whether the ticket was one of ours.
    pub(super) fn on_stored(&mut self, cx: &mut Context<'_>, ticket: StoreTicket, is_stored: bool) -> bool {
        let Some(id) = self.tickets.remove(&ticket) else { return false };
        let Some(entry) = self.entries.get_mut(&id) else { return true };
        match (entry.stage, is_stored) {
            (Stage::Storing, true) => {
                entry.stage = Stage::Waiting;
                cx.notify(Notice::Queued(id));
                self.wait(id, cx.now);
            }
            (Stage::Storing, false) => {
                entry.stage = Stage::Unstored;
                self.wait(id, cx.now + STORE_RETRY);
            }
            (Stage::Sealing, true) => entry.stage = Stage::Depositing,
            (Stage::Sealing, false) => {
                // What was sealed but is not durable must not be deposited: a restart would seal it again.
                entry.delivery.forget_unheld();
                self.pause(id, cx.now + STORE_RETRY);
            }
            // Progress that is not durable is made again after a restart.
            (Stage::Unstored | Stage::Waiting | Stage::Finding | Stage::Depositing, _) => {}
        }
        true
    }

    fn insert(&mut self, id: MessageId, delivery: Delivery, stage: Stage) {
        self.last_seq += 1;
        self.bytes += delivery.body_len();
        let entry = Entry {
            seq: self.last_seq,
            delivery,
            stage,
            backoff: Backoff::default(),
            attempt_at: Instant::default(),
            needs_fresh: false,
            extra_rounds: 0,
        };
        self.entries.insert(id, entry);
    }

    fn begin(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.stage == Stage::Unstored {
            return self.store(cx, id, Stage::Storing);
        }
        entry.stage = Stage::Finding;
        entry.attempt_at = cx.now;
        self.active.insert((entry.seq, id));
    }

    fn advance(&mut self, cx: &mut Context<'_>, lookups: &mut Lookups, requests: &mut Requests, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.stage == Stage::Finding {
            let address = entry.delivery.address();
            match lookups.find(cx, requests, address, entry.attempt_at, entry.needs_fresh) {
                Found::Pending => {}
                Found::Failed(reason) => self.defer(cx, id, reason),
                Found::Known(descriptor) if descriptor.mailboxes.is_empty() => {
                    self.defer(cx, id, DeferReason::NoDescriptor);
                }
                Found::Known(descriptor) => {
                    if entry.delivery.aim(cx, id, &descriptor) {
                        self.store(cx, id, Stage::Sealing);
                    } else {
                        entry.stage = Stage::Depositing;
                    }
                }
            }
        }
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.stage == Stage::Depositing) else { return };
        match entry.delivery.drive(cx, requests, id) {
            Progress::UnderWay => {}
            Progress::Complete => self.finish(cx, id),
            Progress::Enough if entry.extra_rounds >= EXTRA_ROUNDS => self.finish(cx, id),
            Progress::Enough => {
                entry.extra_rounds += 1;
                entry.needs_fresh = true;
                let wait = entry.backoff.fail(cx);
                self.store(cx, id, Stage::Waiting);
                self.pause(id, cx.now + wait);
            }
            Progress::Failed(reason) => self.defer(cx, id, reason),
        }
    }

    /// The attempt failed: the message stays, and is tried again later.
    fn defer(&mut self, cx: &mut Context<'_>, id: MessageId, reason: DeferReason) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.needs_fresh = true;
        entry.delivery.end_attempt();
        let retry_in = entry.backoff.fail(cx);
        cx.notify(Notice::Deferred { id, reason, retry_in });
        self.pause(id, cx.now + retry_in);
    }

    fn pause(&mut self, id: MessageId, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stage = Stage::Waiting;
            entry.delivery.end_attempt();
            self.active.remove(&(entry.seq, id));
            self.wait(id, until);
        }
    }

    fn wait(&mut self, id: MessageId, until: Instant) {
        if let Some(entry) = self.entries.get(&id) {
            self.waiting.insert((until, entry.seq, id));
        }
    }

    /// Stores the message as it is; its next stage waits for that.
    fn store(&mut self, cx: &mut Context<'_>, id: MessageId, stage: Stage) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.stage = stage;
        let ticket = cx.store(StoreOp::PutOutbox { id, state: entry.delivery.state() });
        self.tickets.insert(ticket, id);
    }

    fn finish(&mut self, cx: &mut Context<'_>, id: MessageId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.bytes -= entry.delivery.body_len();
            self.active.remove(&(entry.seq, id));
            cx.store(StoreOp::RemoveOutbox(id));
        }
    }
}
