//! The verbs: what each requires of queue, key and quota, and what it begins (docs/protocol.md
//! §10.2).

use rand::CryptoRng;
use serde_bytes::ByteBuf;

use super::ops::{HolderOp, OpId, RecordEntry};
use super::queue::{Known, Queue, QueueState};
use super::{Holder, Pending, Removal, RequestId, Waiting};
use crate::crypto::puzzle;
use crate::handshake::Binding;
use crate::ids::{QueueId, RecordId};
use crate::inbox::mailbox::{
    MailboxContext, MailboxReply, MailboxRequest, QueueTerms, Refusal, Verb, fetched_room,
};
use crate::inbox::record::record_id;
use crate::limits::{PUZZLE_EFFORT_MAX, RECORD_LENS, REMOVE_MAX};
use crate::time::{Duration, Epoch, Instant, WallTime};

/// An owner's visit is written down at most this often: a queue's life is counted in weeks.
const TOUCH_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Ops that one fetch or subscription may ask for at most: touch, remove, read.
const OPS_A_REQUEST: usize = 3;

impl Holder {
    /// The queue exists and the right key has signed; every verb needs both (§10.2(2)).
    pub(super) fn admit(&self, binding: &Binding, asked: &MailboxRequest) -> Result<(), Refusal> {
        let queue = self.queues.get(&asked.verb.queue());
        let key = match (&asked.verb, queue) {
            (Verb::Create { owner, .. }, _) => owner,
            (_, None) => return Err(Refusal::NoQueue),
            (Verb::Deposit { .. }, Some(queue)) => &queue.terms.sender,
            (
                Verb::Fetch { .. }
                | Verb::Subscribe { .. }
                | Verb::SetEffort { .. }
                | Verb::Forget { .. },
                Some(queue),
            ) => &queue.terms.owner,
        };
        let context = MailboxContext {
            network: &self.network,
            holder: &self.relay,
            binding,
        };
        asked
            .verify(&context, key)
            .map_err(|_| Refusal::Signature)?;
        match (&asked.verb, queue.map(|queue| queue.state)) {
            (Verb::Create { .. }, None | Some(QueueState::Creating(_) | QueueState::Live))
            | (_, Some(QueueState::Live)) => Ok(()),
            (_, Some(QueueState::Creating(_)))
            | (Verb::Create { .. }, Some(QueueState::Removing { .. })) => Err(Refusal::Busy),
            (_, None | Some(QueueState::Removing { .. })) => Err(Refusal::NoQueue),
        }
    }

    // §10.2(3)
    pub(super) fn create(
        &mut self,
        (now, wall): (Instant, WallTime),
        request: RequestId,
        id: QueueId,
        terms: QueueTerms,
    ) -> Result<(), Refusal> {
        if let Some(queue) = self.queues.get(&id) {
            if (queue.terms.sender, queue.terms.kind) != (terms.sender, terms.kind) {
                return Err(Refusal::Taken);
            }
            if let QueueState::Creating(op) = queue.state {
                return self.join(request, op);
            }
            self.reply_now(request, MailboxReply::Created);
            return Ok(());
        }
        if self.queues.len() >= self.limits.queues_max {
            self.press(now);
            return Err(Refusal::Full);
        }
        if !self.has_room(1, 0) {
            return Err(Refusal::Busy);
        }
        let op = self.begin_op(
            Pending::Create {
                queue: id,
                waiters: vec![request],
            },
            0,
        );
        let queue = Queue::new(terms, wall.to_hour(), QueueState::Creating(op));
        self.queues.insert(id, Box::new(queue));
        self.waiting.insert(request, Waiting::Op(op));
        self.put_queue(op, id);
        Ok(())
    }

    /// Has the store keep the queue's terms, and when its owner was last here, as the index has them.
    fn put_queue(&mut self, op: OpId, id: QueueId) {
        self.outgoing
            .extend(self.queues.get(&id).map(|queue| HolderOp::PutQueue {
                op,
                queue: id,
                terms: queue.terms,
                fetched_at: queue.fetched_at,
            }));
    }

    /// Whether the store has yet to answer an op like this.
    fn is_pending(&self, is_it: impl Fn(&Pending) -> bool) -> bool {
        self.ops.values().any(|(pending, _)| is_it(pending))
    }

    // §10.2(4)
    pub(super) fn deposit(
        &mut self,
        (now, wall): (Instant, WallTime),
        request: RequestId,
        id: QueueId,
        body: ByteBuf,
        solution: u64,
    ) -> Result<(), Refusal> {
        let len = body.len();
        if !RECORD_LENS.contains(&len) {
            return Err(Refusal::RecordLen);
        }
        let record = record_id(&body);
        let Some(queue) = self.queues.get(&id) else {
            return Err(Refusal::NoQueue);
        };
        // §10.1(4)
        match queue.known(&record) {
            Known::Yes => {
                self.reply_now(request, MailboxReply::Deposited);
                return Ok(());
            }
            Known::Removed => return self.repeat_removed(request, id),
            Known::Unremoved => return Err(Refusal::Store),
            Known::Storing(op) => return self.join(request, op),
            Known::No => self.make_room(now, id, len)?,
        }
        if !self.has_room(1, len) {
            return Err(Refusal::Busy);
        }
        self.check_puzzle((now, wall), &id, &record, solution)?;
        let expires_at = (wall + self.limits.record_life + Duration::from_secs(3599)).to_hour();
        let seq = self.next_seq; // §10.1(3)
        self.next_seq += 1;
        let op = self.begin_op(
            Pending::Put {
                queue: id,
                seq,
                waiters: vec![request],
            },
            len,
        );
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.add(
                &RecordEntry {
                    seq,
                    record,
                    len,
                    expires_at,
                },
                Some(op),
            );
        }
        self.totals.records += 1;
        self.totals.bytes += len as u64;
        self.waiting.insert(request, Waiting::Op(op));
        self.push_at_once(id, seq, &body);
        self.outgoing.push_back(HolderOp::PutRecord {
            op,
            queue: id,
            seq,
            record,
            expires_at,
            body,
        });
        Ok(())
    }

    /// Its id is durable with the newest removal of the queue, or before: the store goes by the
    /// order asked.
    fn repeat_removed(&mut self, request: RequestId, id: QueueId) -> Result<(), Refusal> {
        if let Some(&op) = self.removing.get(&id) {
            return self.join(request, op);
        }
        self.reply_now(request, MailboxReply::Deposited);
        Ok(())
    }

    /// Whether a record of this length fits, after what has expired went if need be (§10.1(7)).
    fn make_room(&mut self, now: Instant, id: QueueId, len: usize) -> Result<(), Refusal> {
        let len = len as u64;
        if self.is_queue_full(id, len) && self.has_room(OPS_A_REQUEST, 0) {
            self.press_queue(id);
        }
        let is_full = self.totals.records >= self.limits.records_max
            || self.totals.bytes + len > self.limits.bytes_max;
        if is_full {
            self.press(now);
        }
        if is_full || self.is_queue_full(id, len) {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    fn is_queue_full(&self, id: QueueId, len: u64) -> bool {
        self.queues.get(&id).is_none_or(|queue| {
            let limits = self.limits.of_queue(queue.terms.kind);
            queue.record_count() >= limits.records_max || queue.bytes() + len > limits.bytes_max
        })
    }

    /// The solution is good in the epoch it was made in, and in the next (§10.4(4), §10.4(5)).
    fn check_puzzle(
        &mut self,
        (now, wall): (Instant, WallTime),
        queue: &QueueId,
        record: &RecordId,
        solution: u64,
    ) -> Result<(), Refusal> {
        let asked = self.queues.get(queue).map_or(0, |it| it.terms.effort);
        let effort = asked.min(PUZZLE_EFFORT_MAX).max(self.limits.puzzle_effort);
        if effort == 0 {
            return Ok(());
        }
        if !self
            .puzzle_checks
            .take(now, self.limits.puzzle_checks_per_second)
        {
            return Err(Refusal::Busy);
        }
        let epoch = wall.epoch();
        let before = Epoch(epoch.0.saturating_sub(1));
        let is_solved = [epoch, before].iter().any(|&epoch| {
            puzzle::verify(
                &puzzle::deposit_challenge(queue, record, epoch),
                effort,
                solution,
            )
        });
        if is_solved {
            Ok(())
        } else {
            Err(Refusal::Puzzle)
        }
    }

    // §10.2(5)
    pub(super) fn fetch(
        &mut self,
        (now, wall): (Instant, WallTime),
        request: RequestId,
        id: QueueId,
        remove: &[RecordId],
        bytes_max: u32,
    ) -> Result<(), Refusal> {
        // Checked before anything is done: a request that is answered `Busy` has changed nothing.
        if remove.len() > REMOVE_MAX || !self.has_room(OPS_A_REQUEST, fetched_room(bytes_max)) {
            return Err(Refusal::Busy);
        }
        self.touch_if_due(id, wall);
        self.remove_fetched(id, remove);
        self.return_oldest(request, id, bytes_max)?;
        // Last: the removal may have made room for a push.
        self.advance_subscription(now, id);
        Ok(())
    }

    fn return_oldest(
        &mut self,
        request: RequestId,
        id: QueueId,
        bytes_max: u32,
    ) -> Result<(), Refusal> {
        let Some(queue) = self.queues.get(&id) else {
            return Err(Refusal::NoQueue);
        };
        if bytes_max == 0 {
            let more = queue.has_durable();
            self.reply_now(
                request,
                MailboxReply::Fetched {
                    records: Vec::new(),
                    more,
                },
            );
            return Ok(());
        }
        let (batch, more) = queue.oldest(fetched_room(bytes_max));
        if batch.seqs.is_empty() {
            self.reply_now(
                request,
                MailboxReply::Fetched {
                    records: Vec::new(),
                    more: false,
                },
            );
            return Ok(());
        }
        let count = batch.seqs.len();
        let op = self.read(
            id,
            batch.seqs,
            batch.bytes,
            Pending::Fetch {
                request,
                count,
                more,
            },
        );
        self.waiting.insert(request, Waiting::Op(op));
        Ok(())
    }

    /// Records that their owner holds go at once (§10.1(5)); that they go from the disk is ordered
    /// before all that follows.
    fn remove_fetched(&mut self, id: QueueId, remove: &[RecordId]) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let entries = queue.take_removed(remove);
        if entries.is_empty() {
            return;
        }
        let others = self.totals.removed - queue.removed_count();
        let room = self
            .limits
            .of_queue(queue.terms.kind)
            .records_max
            .min(self.limits.records_max.saturating_sub(others));
        let kept_before = queue.removed_count();
        let forget = queue.remember(&entries, room);
        self.totals.removed = self.totals.removed - kept_before + queue.removed_count();
        let remember = entries
            .iter()
            .filter_map(|entry| Some((entry.record, queue.remembered_until(&entry.record)?)))
            .collect();
        let records = entries
            .iter()
            .map(|entry| (entry.seq, entry.record))
            .collect();
        self.totals.on_taken(&entries);
        self.remove(Removal {
            queue: id,
            records,
            remember,
            forget,
        });
    }

    // §10.2(6)
    pub(super) fn subscribe(
        &mut self,
        (now, wall): (Instant, WallTime),
        request: RequestId,
        id: QueueId,
        mean: Duration,
    ) -> Result<(), Refusal> {
        if !self.has_room(OPS_A_REQUEST, 0) {
            return Err(Refusal::Busy);
        }
        self.touch_if_due(id, wall);
        self.begin_subscription(now, id, request, mean);
        Ok(())
    }

    fn touch_if_due(&mut self, id: QueueId, wall: WallTime) {
        if self
            .queues
            .get(&id)
            .is_some_and(|queue| wall.since(queue.fetched_at) >= TOUCH_EVERY)
        {
            self.touch(id, wall);
        }
    }

    /// The owner was here. One touch of a queue is in flight at a time: if it fails, the time before
    /// it is the one on the disk.
    pub(super) fn touch(&mut self, id: QueueId, wall: WallTime) {
        if self.is_pending(|it| matches!(it, Pending::Touch { queue, .. } if *queue == id)) {
            return;
        }
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let fetched_before = queue.fetched_at;
        queue.fetched_at = wall.to_hour();
        let op = self.begin_op(
            Pending::Touch {
                queue: id,
                fetched_before,
            },
            0,
        );
        self.put_queue(op, id);
    }

    /// Deposits cost this from now on; the owner is answered once that is durable (§10.2(8)).
    pub(super) fn set_effort(
        &mut self,
        request: RequestId,
        id: QueueId,
        effort: u32,
    ) -> Result<(), Refusal> {
        let is_busy =
            self.is_pending(|it| matches!(it, Pending::SetEffort { queue, .. } if *queue == id));
        if is_busy || !self.has_room(1, 0) {
            return Err(Refusal::Busy);
        }
        let Some(queue) = self.queues.get_mut(&id) else {
            return Err(Refusal::NoQueue);
        };
        let effort_before = core::mem::replace(&mut queue.terms.effort, effort);
        let op = self.begin_op(
            Pending::SetEffort {
                queue: id,
                effort_before,
                request,
            },
            0,
        );
        self.waiting.insert(request, Waiting::Op(op));
        self.put_queue(op, id);
        Ok(())
    }

    pub(super) fn on_effort_set(
        &mut self,
        request: RequestId,
        id: QueueId,
        effort_before: u32,
        refusal: Option<Refusal>,
    ) {
        if let Some(queue) = self.queues.get_mut(&id).filter(|_| refusal.is_some()) {
            queue.terms.effort = effort_before;
        }
        let reply = refusal.map_or(MailboxReply::Done, MailboxReply::Refused);
        self.answer(request, reply);
    }

    /// The queue is gone for all at once; its owner is answered once the disk has forgotten it
    /// (§10.2(9)).
    pub(super) fn forget(&mut self, request: RequestId, id: QueueId) -> Result<(), Refusal> {
        if !self.has_room(1, 0) {
            return Err(Refusal::Busy);
        }
        self.cut_subscription(id);
        let op = self.remove_queue(id, Some(request));
        self.waiting.extend(op.map(|op| (request, Waiting::Op(op))));
        Ok(())
    }

    pub(super) fn on_created(
        &mut self,
        id: QueueId,
        waiters: Vec<RequestId>,
        refusal: Option<Refusal>,
    ) {
        match refusal {
            None => {
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.state = QueueState::Live;
                }
            }
            Some(_) => {
                self.queues.remove(&id);
            }
        }
        for request in waiters {
            self.answer(
                request,
                refusal.map_or(MailboxReply::Created, MailboxReply::Refused),
            );
        }
    }

    pub(super) fn on_put(
        &mut self,
        now: Instant,
        (id, seq): (QueueId, u64),
        waiters: Vec<RequestId>,
        refusal: Option<Refusal>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        if let Some(queue) = self.queues.get_mut(&id) {
            if refusal.is_some() {
                let taken = queue.take(seq);
                self.totals.on_taken(taken.as_slice());
                // If it was pushed at once, it took room that others may be waiting for.
                self.advance_subscription(now, id);
            } else if queue.mark_durable(seq) {
                self.on_durable(now, id, seq, rng);
            }
        }
        for request in waiters {
            self.answer(
                request,
                refusal.map_or(MailboxReply::Deposited, MailboxReply::Refused),
            );
        }
    }
}
