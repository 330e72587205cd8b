//! Counts for the metrics, and the consistency check of the simulator.

use super::{Holder, Pending, QueueSnapshot, Totals, Waiting};

/// How much a holder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HolderCounts {
    /// Queues.
    pub queues: usize,
    /// Records, durable or on their way to the disk.
    pub records: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Ids kept of removed records.
    pub removed: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Requests that wait for an answer, subscriptions included.
    pub waiting: usize,
    /// Ops that the store has not yet answered.
    pub pending_ops: usize,
    /// Bytes of records in them.
    pub pending_bytes: usize,
}

/// An invariant of the holder that does not hold: a defect of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Counts and bytes differ from the sum over all queues.
    Totals,
    /// A queue's index disagrees with itself.
    Index,
    /// More is kept or waiting than the limits allow.
    Limits,
    /// Bytes of pending ops differ from their sum.
    PendingBytes,
    /// A request waits for something that will not answer it.
    Waiting,
    /// A subscription's next push is not among the timers, or the other way round.
    Pushes,
}

impl Holder {
    /// How much there is.
    pub fn counts(&self) -> HolderCounts {
        HolderCounts {
            queues: self.queues.len(),
            records: self.totals.records,
            bytes: self.totals.bytes,
            removed: self.totals.removed,
            subscriptions: self
                .queues
                .values()
                .filter(|queue| queue.subscription.is_some())
                .count(),
            waiting: self.waiting.len(),
            pending_ops: self.ops.len(),
            pending_bytes: self.pending_bytes,
        }
    }

    /// How many queues there are; asked for often.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// How many records all queues hold.
    pub fn record_count(&self) -> usize {
        self.totals.records
    }

    /// How many bytes these records have.
    pub fn record_bytes(&self) -> u64 {
        self.totals.bytes
    }

    /// The queues as the store should have them once it has answered everything.
    pub fn snapshot(&self) -> Vec<QueueSnapshot> {
        self.queues
            .iter()
            .map(|(&id, queue)| queue.snapshot(id))
            .collect()
    }

    /// Checks the holder against itself; for the simulator, after every step.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn invariants(&self) -> Result<(), Broken> {
        let mut totals = Totals::default();
        for queue in self.queues.values() {
            totals.on_queue(queue);
        }
        let pending_bytes: usize = self.ops.values().map(|(_, bytes)| bytes).sum();
        let checks = [
            (totals == self.totals, Broken::Totals),
            (
                self.queues.values().all(|queue| queue.is_consistent()),
                Broken::Index,
            ),
            (
                self.ops.len() <= self.limits.pending_ops_max,
                Broken::Limits,
            ),
            (
                self.totals.removed <= self.limits.records_max,
                Broken::Limits,
            ),
            (pending_bytes == self.pending_bytes, Broken::PendingBytes),
            (self.waiting_is_answered(), Broken::Waiting),
            (self.pushes_match(), Broken::Pushes),
        ];
        checks
            .into_iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, broken)| Err(broken))
    }

    fn waiting_is_answered(&self) -> bool {
        let removals_end = self.removing.values().all(|op| self.ops.contains_key(op));
        removals_end
            && self.waiting.iter().all(|(request, waiting)| match waiting {
                Waiting::Op(op) => self.ops.get(op).is_some_and(|(pending, _)| match pending {
                    Pending::Create { waiters, .. }
                    | Pending::Put { waiters, .. }
                    | Pending::Remove { waiters, .. } => waiters.contains(request),
                    Pending::Fetch { request: asked, .. }
                    | Pending::SetEffort { request: asked, .. } => asked == request,
                    Pending::RemoveQueue { request: asked, .. } => asked.as_ref() == Some(request),
                    Pending::Touch { .. } | Pending::Push { .. } => false,
                }),
                Waiting::Subscription(queue) => {
                    let subscription = self
                        .queues
                        .get(queue)
                        .and_then(|queue| queue.subscription.as_ref());
                    subscription.is_some_and(|subscription| subscription.request == *request)
                }
            })
    }

    /// A push is due only where there is a subscription, and nothing is read for it.
    fn pushes_match(&self) -> bool {
        self.pushes.iter().all(|(id, _)| {
            let queue = self.queues.get(id);
            let subscription = queue.and_then(|queue| queue.subscription.as_ref());
            subscription.is_some_and(|subscription| !subscription.is_reading())
        })
    }
}
