//! A subscription: first what is there, then what comes, each record once (docs/protocol.md §10.2).
//!
//! What the owner was pushed and did not yet remove is bounded by [`PUSH_WINDOW_BYTES`]: removal is
//! the credit, so a slow owner is never sent more than its circuit can hold.
//!
//! An owner that asked for no delay gets a record while it is still on its way to this disk: its
//! own disk makes it durable, and the sender's answer still waits for ours.

use std::collections::{BTreeMap, BTreeSet};

use rand::CryptoRng;
use serde_bytes::ByteBuf;

use super::queue::{Batch, Queue, choose};
use super::{Holder, HolderReply, Pending, RequestId};
use crate::ids::QueueId;
use crate::inbox::mailbox::{FETCH_BYTES_MAX, MailboxReply, Refusal, fetched_room};
use crate::limits::{PUSH_DELAY_CUT, PUSH_DELAY_MEAN_MAX, PUSH_WINDOW_BYTES};
use crate::time::{Duration, Instant};

/// When a push can't be read because too much is waiting, it is tried again this much later.
const PUSH_RETRY: Duration = Duration::from_secs(1);

/// One owner's standing request for a queue's records.
pub(super) struct Subscription {
    pub(super) request: RequestId,
    /// Mean of the delay before a push.
    mean: Duration,
    /// Durable and not yet read for this subscription.
    unpushed: BTreeSet<u64>,
    /// Pushed and not yet removed, with their lengths. Not all of them need be durable.
    outstanding: BTreeMap<u64, usize>,
    outstanding_bytes: usize,
    /// A read for it is in flight.
    is_reading: bool,
    /// Whether the first frame went out.
    is_greeted: bool,
}

impl Subscription {
    fn new(request: RequestId, mean: Duration, unpushed: BTreeSet<u64>) -> Self {
        Self {
            request,
            mean: mean.min(PUSH_DELAY_MEAN_MAX),
            unpushed,
            outstanding: BTreeMap::new(),
            outstanding_bytes: 0,
            is_reading: false,
            is_greeted: false,
        }
    }

    /// The record left the queue.
    pub(super) fn forget(&mut self, seq: u64) {
        self.unpushed.remove(&seq);
        if let Some(len) = self.outstanding.remove(&seq) {
            self.outstanding_bytes -= len;
        }
    }

    /// Places of the records that wait to be pushed.
    pub(super) fn unpushed(&self) -> impl Iterator<Item = u64> {
        self.unpushed.iter().copied()
    }

    /// Places of the records that were pushed and not removed.
    pub(super) fn outstanding(&self) -> impl Iterator<Item = u64> {
        self.outstanding.keys().copied()
    }

    /// Whether the record was pushed and not removed.
    pub(super) fn is_outstanding(&self, seq: u64) -> bool {
        self.outstanding.contains_key(&seq)
    }

    /// Whether a read for it is in flight.
    pub(super) const fn is_reading(&self) -> bool {
        self.is_reading
    }

    /// Whether a record of this length that just came is next, and may go out now, unless a push is
    /// due.
    fn may_push_at_once(&self, len: usize) -> bool {
        let is_next = self.is_greeted && !self.is_reading && self.unpushed.is_empty();
        is_next && self.mean.is_zero() && self.outstanding_bytes + len <= PUSH_WINDOW_BYTES
    }
}

impl Queue {
    /// The next records to push, as far as the window allows, and whether more are waiting behind
    /// them.
    fn next_push(&self) -> Option<(Batch, bool)> {
        let subscription = self.subscription.as_ref()?;
        let window = PUSH_WINDOW_BYTES.saturating_sub(subscription.outstanding_bytes);
        let room = fetched_room(FETCH_BYTES_MAX).min(window);
        let mut lens = subscription
            .unpushed
            .iter()
            .filter_map(|&seq| Some((seq, self.len_of(seq)?)));
        let (batch, more) = choose(&mut lens, room);
        if batch.bytes > window && !subscription.outstanding.is_empty() {
            return Some((
                Batch {
                    seqs: Vec::new(),
                    bytes: 0,
                },
                true,
            ));
        }
        Some((batch, more))
    }
}

impl Holder {
    /// Begins a subscription, in place of an older one of the same queue.
    pub(super) fn begin_subscription(
        &mut self,
        now: Instant,
        id: QueueId,
        request: RequestId,
        mean: Duration,
    ) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let unpushed = queue.durable_seqs();
        let older = queue
            .subscription
            .replace(Box::new(Subscription::new(request, mean, unpushed)));
        if let Some(older) = older {
            self.pushes.cancel(&id);
            self.answer(older.request, MailboxReply::Refused(Refusal::Replaced));
        }
        self.waiting
            .insert(request, super::Waiting::Subscription(id));
        self.advance_subscription(now, id);
    }

    /// Ends a queue's subscription, if it is this one.
    pub(super) fn end_subscription(&mut self, id: QueueId, request: RequestId) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let its = queue
            .subscription
            .take_if(|subscription| subscription.request == request);
        if its.is_some() {
            self.pushes.cancel(&id);
        }
    }

    /// The queue goes: whoever subscribes to it hears so.
    pub(super) fn cut_subscription(&mut self, id: QueueId) {
        let queue = self.queues.get_mut(&id);
        if let Some(its) = queue.and_then(|queue| queue.subscription.take()) {
            self.pushes.cancel(&id);
            self.answer(its.request, MailboxReply::Refused(Refusal::NoQueue));
        }
    }

    /// A record is on its way to the disk: an owner that asked for no delay gets it now.
    pub(super) fn push_at_once(&mut self, id: QueueId, seq: u64, body: &ByteBuf) {
        let subscription = self
            .queues
            .get_mut(&id)
            .and_then(|queue| queue.subscription.as_mut());
        let is_due = self.pushes.at(&id).is_some();
        let Some(subscription) = subscription
            .filter(|subscription| !is_due && subscription.may_push_at_once(body.len()))
        else {
            return;
        };
        subscription.outstanding.insert(seq, body.len());
        subscription.outstanding_bytes += body.len();
        let request = subscription.request;
        self.push_reply(request, vec![body.clone()], false);
    }

    /// A record became durable: its push is due after a delay, unless it went out already.
    pub(super) fn on_durable(
        &mut self,
        now: Instant,
        id: QueueId,
        seq: u64,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        let subscription = self
            .queues
            .get_mut(&id)
            .and_then(|queue| queue.subscription.as_mut());
        let Some(subscription) =
            subscription.filter(|subscription| !subscription.is_outstanding(seq))
        else {
            return;
        };
        subscription.unpushed.insert(seq);
        if subscription.is_reading || self.pushes.at(&id).is_some() {
            return;
        }
        let delay = sample_delay(subscription.mean, rng);
        self.schedule_push(now + delay, id);
        self.run_due_pushes(now);
    }

    /// Continues a subscription that stands still though it need not: after a removal or a push.
    pub(super) fn advance_subscription(&mut self, now: Instant, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else {
            return;
        };
        let is_due = self.pushes.at(&id).is_some();
        let Some(subscription) = queue
            .subscription
            .as_ref()
            .filter(|subscription| !subscription.is_reading && !is_due)
        else {
            return;
        };
        let (request, is_greeted) = (subscription.request, subscription.is_greeted);
        let Some((batch, more)) = queue.next_push() else {
            return;
        };
        if batch.seqs.is_empty() {
            if !is_greeted {
                self.on_greeted(id);
                self.push_reply(request, Vec::new(), false);
            }
            return;
        }
        if !self.has_room(1, batch.bytes) {
            self.schedule_push(now + PUSH_RETRY, id);
            return;
        }
        if let Some(subscription) = self
            .queues
            .get_mut(&id)
            .and_then(|queue| queue.subscription.as_mut())
        {
            subscription.is_reading = true;
            for seq in &batch.seqs {
                subscription.unpushed.remove(seq);
            }
        }
        let Batch { seqs, bytes } = batch;
        self.read(
            id,
            seqs.clone(),
            bytes,
            Pending::Push {
                queue: id,
                request,
                seqs,
                more,
            },
        );
    }

    /// The records of a push were read.
    pub(super) fn on_push_read(
        &mut self,
        now: Instant,
        (id, request): (QueueId, RequestId),
        seqs: &[u64],
        read: Option<(Vec<ByteBuf>, bool)>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let held: Vec<(u64, usize)> = seqs
            .iter()
            .filter_map(|&seq| Some((seq, queue.len_of(seq)?)))
            .collect();
        let Some(subscription) = queue
            .subscription
            .as_mut()
            .filter(|subscription| subscription.request == request)
        else {
            return;
        };
        subscription.is_reading = false;
        let Some((records, more)) = read else {
            self.end_subscription(id, request);
            self.answer(request, MailboxReply::Refused(Refusal::Store));
            return;
        };
        for (seq, len) in held {
            subscription.outstanding.insert(seq, len);
            subscription.outstanding_bytes += len;
        }
        subscription.is_greeted = true;
        let came_meanwhile = !more && !subscription.unpushed.is_empty();
        let mean = subscription.mean;
        self.push_reply(request, records, more);
        if came_meanwhile {
            self.schedule_push(now + sample_delay(mean, rng), id);
            self.run_due_pushes(now);
        } else {
            self.advance_subscription(now, id);
        }
    }

    /// Runs every push that is due by `now`.
    pub(super) fn run_due_pushes(&mut self, now: Instant) {
        while let Some(id) = self.pushes.pop_expired(now) {
            self.advance_subscription(now, id);
        }
    }

    fn on_greeted(&mut self, id: QueueId) {
        if let Some(subscription) = self
            .queues
            .get_mut(&id)
            .and_then(|queue| queue.subscription.as_mut())
        {
            subscription.is_greeted = true;
        }
    }

    fn push_reply(&mut self, request: RequestId, records: Vec<ByteBuf>, more: bool) {
        self.replies.push_back(HolderReply {
            request,
            reply: MailboxReply::Fetched { records, more },
            fin: false,
        });
    }

    fn schedule_push(&mut self, at: Instant, id: QueueId) {
        assert!(self.pushes.at(&id).is_none(), "one push at a time");
        self.pushes.set(id, at);
    }
}

/// Exponentially distributed around `mean`, cut; zero for a mean of zero.
fn sample_delay(mean: Duration, rng: &mut (impl CryptoRng + ?Sized)) -> Duration {
    if mean.is_zero() {
        return Duration::ZERO;
    }
    // In (0, 1], in steps of 2^-32: its logarithm is finite.
    let uniform = (f64::from(rng.next_u32()) + 1.0) / (f64::from(u32::MAX) + 1.0);
    mean.mul_f64(-uniform.ln().min(0.0))
        .min(mean * PUSH_DELAY_CUT)
}
