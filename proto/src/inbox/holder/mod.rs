//! All queues of one relay: takes deposits, returns records, lets them expire (docs/protocol.md
//! §10).
//!
//! Owns the index, never a body: bodies are the store's. Answers a deposit only after the store
//! said that it is durable. Never waits, never reads a clock. Each request gets one reply with
//! `fin`, a subscription others before it.
//!
//! Drain after every input, in this order: [`poll_op`](Holder::poll_op),
//! [`poll_reply`](Holder::poll_reply), [`poll_timeout`](Holder::poll_timeout).

mod check;
mod ops;
mod push;
mod queue;
mod request;
mod sorted;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use rand::CryptoRng;
use serde_bytes::ByteBuf;

pub use self::check::{Broken, HolderCounts};
pub use self::ops::{HolderDone, HolderOp, OpId, Outcome, QueueSnapshot, RecordEntry};
use self::queue::Queue;
pub use self::sweep::EXPIRED_KEPT;
use self::sweep::Sweep;
use crate::handshake::Binding;
use crate::ids::{NetworkId, QueueId, RecordId, RelayId};
use crate::inbox::mailbox::{
    MailboxReply, MailboxRequest, QueueKind, QueueTerms, Refusal, Verb, queue_id,
};
use crate::limits::STORE_WAITERS_MAX;
use crate::network::Params;
use crate::time::{Due, Duration, Instant, WallTime};

/// Names one request; chosen by the caller, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The answer to one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HolderReply {
    /// To which.
    pub request: RequestId,
    /// What.
    pub reply: MailboxReply,
    /// Whether it is the last.
    pub fin: bool,
}

/// Limits of a holder. It refuses a request beyond them with [`Refusal::Full`], or with
/// [`Refusal::Busy`] if the shortage will pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HolderLimits {
    /// Most queues of the relay.
    pub queues_max: usize,
    /// Most records of the relay; bounds its memory. As many ids of removed records are kept
    /// besides.
    pub records_max: usize,
    /// Most bytes of records of the relay; bounds its disk.
    pub bytes_max: u64,
    /// How much a contact's queue holds.
    pub contact: QueueLimits,
    /// How much a public queue holds.
    pub public: QueueLimits,
    /// A record expires this long after its deposit, rounded up to the hour; see [`EXPIRED_KEPT`].
    pub record_life: Duration,
    /// A queue expires this long after its owner was last here; see [`EXPIRED_KEPT`].
    pub queue_life: Duration,
    /// Tries that a deposit should have cost its sender; zero: none.
    pub puzzle_effort: u32,
    /// Puzzles checked in a second; a check costs about a millisecond.
    pub puzzle_checks_per_second: u32,
    /// Most ops that the store has not yet answered.
    pub pending_ops_max: usize,
    /// Most bytes of records in those ops.
    pub pending_bytes_max: usize,
}

/// How much one queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Most records; as many ids of removed records are kept besides.
    pub records_max: usize,
    /// Most bytes of records.
    pub bytes_max: u64,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            records_max: 4096,
            bytes_max: 128 << 20,
        }
    }
}

impl Default for HolderLimits {
    fn default() -> Self {
        Self {
            queues_max: 100_000,
            records_max: 2_000_000,
            bytes_max: 8 << 30,
            contact: QueueLimits::default(),
            public: QueueLimits::default(),
            record_life: Duration::from_secs(14 * 24 * 3600),
            queue_life: Duration::from_secs(60 * 24 * 3600),
            puzzle_effort: 0,
            puzzle_checks_per_second: 100,
            pending_ops_max: 4096,
            pending_bytes_max: 64 << 20,
        }
    }
}

impl HolderLimits {
    /// The limits that a network sets. The owner asks for a puzzle by queue; no relay does.
    pub fn of_network(params: &Params) -> Self {
        Self {
            queues_max: params.queues_max,
            contact: QueueLimits {
                records_max: params.queue_records_max,
                bytes_max: params.queue_bytes_max,
            },
            public: QueueLimits {
                records_max: params.public_records_max,
                bytes_max: params.public_bytes_max,
            },
            record_life: params.record_life,
            queue_life: params.queue_life,
            ..Self::default()
        }
    }

    /// How much a queue of this kind holds.
    pub(super) const fn of_queue(&self, kind: QueueKind) -> QueueLimits {
        match kind {
            QueueKind::Public => self.public,
            QueueKind::Contact => self.contact,
        }
    }
}

/// Why a holder wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Records are pushed to a subscriber.
    Push,
    /// Records and queues expire.
    Sweep,
}

/// All queues of one relay. See the module's words on draining.
#[expect(missing_debug_implementations, reason = "holds linkable ids")]
pub struct Holder {
    network: NetworkId,
    relay: RelayId,
    limits: HolderLimits,
    /// Boxed: a tree's nodes have room to spare.
    queues: BTreeMap<QueueId, Box<Queue>>,
    totals: Totals,
    next_seq: u64,
    next_op: u64,
    /// Ops that the store has not yet answered, with the bytes of records in them.
    ops: BTreeMap<OpId, (Pending, usize)>,
    pending_bytes: usize,
    /// The newest removal of each queue that has one in flight.
    removing: BTreeMap<QueueId, OpId>,
    /// Requests that wait for something; one that was cancelled is not here.
    waiting: BTreeMap<RequestId, Waiting>,
    /// Pushes by when they are due.
    pushes: Due<QueueId>,
    puzzle_checks: PuzzleChecks,
    sweep: Sweep,
    outgoing: VecDeque<HolderOp>,
    replies: VecDeque<HolderReply>,
}

/// The purpose of an op.
enum Pending {
    Create {
        queue: QueueId,
        waiters: Vec<RequestId>,
    },
    Touch {
        queue: QueueId,
        fetched_before: WallTime,
    },
    SetEffort {
        queue: QueueId,
        effort_before: u32,
        request: RequestId,
    },
    Put {
        queue: QueueId,
        seq: u64,
        waiters: Vec<RequestId>,
    },
    Fetch {
        request: RequestId,
        count: usize,
        more: bool,
    },
    Push {
        queue: QueueId,
        request: RequestId,
        seqs: Vec<u64>,
        more: bool,
    },
    Remove {
        removal: Removal,
        waiters: Vec<RequestId>,
    },
    RemoveQueue {
        queue: QueueId,
        /// Its owner, who asked for it.
        request: Option<RequestId>,
    },
}

/// The event that a request waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Op(OpId),
    Subscription(QueueId),
}

/// Records on their way off the disk.
struct Removal {
    queue: QueueId,
    records: Vec<(u64, RecordId)>,
    remember: Vec<(RecordId, WallTime)>,
    forget: Vec<RecordId>,
}

/// Sums over all queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    records: usize,
    bytes: u64,
    removed: usize,
}

impl Totals {
    fn on_taken(&mut self, entries: &[RecordEntry]) {
        self.records -= entries.len();
        self.bytes -= entries.iter().map(|entry| entry.len as u64).sum::<u64>();
    }

    fn on_queue(&mut self, queue: &Queue) {
        self.records += queue.record_count();
        self.bytes += queue.bytes();
        self.removed += queue.removed_count();
    }

    fn on_queue_removed(&mut self, queue: &Queue) {
        self.records -= queue.record_count();
        self.bytes -= queue.bytes();
        self.removed -= queue.removed_count();
    }
}

/// Counts puzzle checks in the current second.
#[derive(Default)]
struct PuzzleChecks {
    second: u64,
    count: u32,
}

impl PuzzleChecks {
    fn take(&mut self, now: Instant, per_second: u32) -> bool {
        let second = now.as_micros() / 1_000_000;
        if second != self.second {
            *self = Self { second, count: 0 };
        }
        let is_allowed = self.count < per_second;
        self.count += u32::from(is_allowed);
        is_allowed
    }
}

impl Holder {
    /// The queues as the store had them; none for a new relay. Quotas that became smaller refuse
    /// what is new only.
    pub fn restore(
        network: NetworkId,
        relay: RelayId,
        limits: HolderLimits,
        snapshots: Vec<QueueSnapshot>,
    ) -> Self {
        let highest = snapshots
            .iter()
            .flat_map(|snapshot| &snapshot.records)
            .map(|entry| entry.seq)
            .max();
        let mut totals = Totals::default();
        let mut queues = BTreeMap::new();
        for snapshot in snapshots {
            let queue = Queue::restore(&snapshot);
            totals.on_queue(&queue);
            queues.insert(snapshot.queue, Box::new(queue));
        }
        Self {
            network,
            relay,
            limits,
            queues,
            totals,
            next_seq: highest.map_or(0, |seq| seq + 1),
            next_op: 0,
            ops: BTreeMap::new(),
            pending_bytes: 0,
            removing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            pushes: Due::default(),
            puzzle_checks: PuzzleChecks::default(),
            sweep: Sweep::default(),
            outgoing: VecDeque::new(),
            replies: VecDeque::new(),
        }
    }

    /// The operator changed the limits. Where they became smaller, what is there stays and what is
    /// new is refused.
    pub fn set_limits(&mut self, limits: HolderLimits) {
        self.limits = limits;
    }

    /// A request came on the circuit with this binding.
    pub fn handle_request(
        &mut self,
        now: Instant,
        wall: WallTime,
        request: RequestId,
        binding: &Binding,
        asked: MailboxRequest,
    ) {
        assert!(
            !self.waiting.contains_key(&request),
            "a request's id is used once"
        );
        self.look_at(wall);
        let granted = match self.admit(binding, &asked) {
            Err(refusal) => Err(refusal),
            Ok(()) => match asked.verb {
                Verb::Create {
                    nonce,
                    owner,
                    sender,
                    kind,
                } => {
                    let terms = QueueTerms {
                        owner,
                        sender,
                        kind,
                        effort: 0,
                    };
                    self.create((now, wall), request, queue_id(&owner, &nonce), terms)
                }
                Verb::Deposit {
                    queue,
                    record,
                    puzzle,
                } => self.deposit((now, wall), request, queue, record, puzzle),
                Verb::Fetch {
                    queue,
                    remove,
                    bytes_max,
                } => self.fetch((now, wall), request, queue, &remove, bytes_max),
                Verb::Subscribe {
                    queue,
                    push_delay_ms,
                } => {
                    let mean = Duration::from_millis(u64::from(push_delay_ms));
                    self.subscribe((now, wall), request, queue, mean)
                }
                Verb::SetEffort { queue, effort } => self.set_effort(request, queue, effort),
                Verb::Forget { queue } => self.forget(request, queue),
            },
        };
        if let Err(refusal) = granted {
            self.replies.push_back(HolderReply {
                request,
                reply: MailboxReply::Refused(refusal),
                fin: true,
            });
        }
    }

    /// The store answered an op. An answer to an op that was not asked is ignored: there is none.
    pub fn handle_stored(
        &mut self,
        now: Instant,
        done: HolderDone,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        let Some((pending, bytes)) = self.ops.remove(&done.op) else {
            return;
        };
        self.pending_bytes -= bytes;
        let refusal = match &done.outcome {
            Outcome::Done | Outcome::Records(_) => None,
            Outcome::Failed => Some(Refusal::Store),
            Outcome::Busy => Some(Refusal::Busy),
        };
        match pending {
            Pending::Create { queue, waiters } => self.on_created(queue, waiters, refusal),
            Pending::Touch {
                queue,
                fetched_before,
            } => {
                if let Some(queue) = self.queues.get_mut(&queue).filter(|_| refusal.is_some()) {
                    queue.fetched_at = fetched_before;
                }
            }
            Pending::Put {
                queue,
                seq,
                waiters,
            } => self.on_put(now, (queue, seq), waiters, refusal, rng),
            Pending::Fetch {
                request,
                count,
                more,
            } => {
                let reply = match records_of(done.outcome, count) {
                    Some(records) => MailboxReply::Fetched { records, more },
                    None => MailboxReply::Refused(refusal.unwrap_or(Refusal::Store)),
                };
                self.answer(request, reply);
            }
            Pending::Push {
                queue,
                request,
                seqs,
                more,
            } => {
                let read = records_of(done.outcome, seqs.len()).map(|records| (records, more));
                self.on_push_read(now, (queue, request), &seqs, read, rng);
            }
            Pending::Remove { removal, waiters } => {
                self.on_removed(done.op, removal, waiters, refusal);
            }
            Pending::SetEffort {
                queue,
                effort_before,
                request,
            } => self.on_effort_set(request, queue, effort_before, refusal),
            Pending::RemoveQueue { queue, request } => {
                self.on_queue_removed(queue, refusal.is_none());
                if let Some(request) = request {
                    let reply = refusal.map_or(MailboxReply::Done, MailboxReply::Refused);
                    self.answer(request, reply);
                }
            }
        }
    }

    /// The request's stream or circuit is gone, so it gets no answer. Work that it began is
    /// finished (§10.2(7)).
    pub fn cancel(&mut self, request: RequestId) {
        if let Some(Waiting::Subscription(queue)) = self.waiting.remove(&request) {
            self.end_subscription(queue, request);
        }
    }

    /// Runs what is due by `now`; spurious calls do nothing. Deletions go by `confirmed`, the
    /// confirmed time (§1.6).
    pub fn handle_timeout(&mut self, now: Instant, wall: WallTime, confirmed: WallTime) {
        self.run_due_pushes(now);
        self.sweep(now, wall, confirmed);
    }

    /// The next op for the store.
    pub fn poll_op(&mut self) -> Option<HolderOp> {
        self.outgoing.pop_front()
    }

    /// The next reply.
    pub fn poll_reply(&mut self) -> Option<HolderReply> {
        self.replies.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, and why.
    pub fn poll_timeout(&self) -> (Instant, Timer) {
        let sweep = (self.sweep.next_at, Timer::Sweep);
        let push = self.pushes.next().map(|at| (at, Timer::Push));
        push.map_or(sweep, |push| push.min(sweep))
    }

    /// The records are gone for their owner; that the disk still has them, where it failed, is put
    /// right at the next sweep, or the next start.
    fn on_removed(
        &mut self,
        op: OpId,
        removal: Removal,
        waiters: Vec<RequestId>,
        refusal: Option<Refusal>,
    ) {
        if self.removing.get(&removal.queue) == Some(&op) {
            self.removing.remove(&removal.queue);
        }
        if let Some(queue) = self
            .queues
            .get_mut(&removal.queue)
            .filter(|_| refusal.is_some())
        {
            let room = self.limits.of_queue(queue.terms.kind).records_max;
            let room = room.saturating_sub(queue.unremoved.len());
            queue
                .unremoved
                .extend(removal.records.into_iter().take(room));
        }
        for request in waiters {
            self.answer(
                request,
                refusal.map_or(MailboxReply::Deposited, MailboxReply::Refused),
            );
        }
    }

    fn remove(&mut self, removal: Removal) {
        let Removal {
            queue,
            ref records,
            ref remember,
            ref forget,
        } = removal;
        let seqs = records.iter().map(|&(seq, _)| seq).collect();
        let (remember, forget) = (remember.clone(), forget.clone());
        let op = self.begin_op(
            Pending::Remove {
                removal,
                waiters: Vec::new(),
            },
            0,
        );
        self.removing.insert(queue, op);
        self.outgoing.push_back(HolderOp::RemoveRecords {
            op,
            queue,
            seqs,
            remember,
            forget,
        });
    }

    fn read(&mut self, queue: QueueId, seqs: Vec<u64>, bytes: usize, pending: Pending) -> OpId {
        let op = self.begin_op(pending, bytes);
        self.outgoing
            .push_back(HolderOp::ReadRecords { op, queue, seqs });
        op
    }

    fn begin_op(&mut self, pending: Pending, bytes: usize) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.pending_bytes += bytes;
        self.ops.insert(op, (pending, bytes));
        op
    }

    /// Whether the store may be asked for so much more.
    fn has_room(&self, ops: usize, bytes: usize) -> bool {
        self.ops.len() + ops <= self.limits.pending_ops_max
            && self.pending_bytes + bytes <= self.limits.pending_bytes_max
    }

    /// Lets a request wait for an op that another one began.
    fn join(&mut self, request: RequestId, op: OpId) -> Result<(), Refusal> {
        match self.ops.get_mut(&op) {
            Some((
                Pending::Create { waiters, .. }
                | Pending::Put { waiters, .. }
                | Pending::Remove { waiters, .. },
                _,
            )) if waiters.len() < STORE_WAITERS_MAX => waiters.push(request),
            _ => return Err(Refusal::Busy),
        }
        self.waiting.insert(request, Waiting::Op(op));
        Ok(())
    }

    /// The last reply to a request that waited, unless it was cancelled.
    fn answer(&mut self, request: RequestId, reply: MailboxReply) {
        if self.waiting.remove(&request).is_some() {
            self.reply_now(request, reply);
        }
    }

    fn reply_now(&mut self, request: RequestId, reply: MailboxReply) {
        self.replies.push_back(HolderReply {
            request,
            reply,
            fin: true,
        });
    }
}

/// The records that were read, if all were.
fn records_of(outcome: Outcome, count: usize) -> Option<Vec<ByteBuf>> {
    match outcome {
        Outcome::Records(records) if records.len() == count => Some(records),
        Outcome::Records(_) | Outcome::Done | Outcome::Failed | Outcome::Busy => None,
    }
}
