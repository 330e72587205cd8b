//! Expiry: records, kept ids and idle queues go, a bounded piece of work at a time
//! (docs/protocol.md §10.1).
//!
//! In two steps, so that a wrong clock deletes nothing. A record that has expired by the calendar
//! is still served. It is deleted once confirmed time is a day past its expiry; where there is no
//! room, as soon as confirmed time is past it.

use std::ops::Bound;

use super::ops::{HolderOp, OpId};
use super::queue::QueueState;
use super::{Holder, Pending, Removal, RequestId};
use crate::ids::QueueId;
use crate::limits::CLOCK_CONFIRM_AFTER;
use crate::time::{Duration, Instant, WallTime};

/// Expired records are kept this much longer by confirmed time, where there is room.
pub const EXPIRED_KEPT: Duration = CLOCK_CONFIRM_AFTER;
/// A holder that has no room looks for what has expired at most this often.
const PRESSED_EVERY: Duration = Duration::from_secs(60);
/// Expiry is looked for this often.
const SWEEP_EVERY: Duration = Duration::from_secs(15 * 60);
/// Pause between two pieces of one sweep.
const SWEEP_PAUSE: Duration = Duration::from_millis(50);
/// Pause when the store has too much to do already.
const SWEEP_RETRY: Duration = Duration::from_secs(1);
/// Records, ids and queues looked at in one piece, about.
const SWEEP_PIECE: usize = 8192;

/// Where the sweep is, and when it continues.
#[derive(Default)]
pub(super) struct Sweep {
    pub(super) next_at: Instant,
    cursor: Option<QueueId>,
    /// The calendar as far as it is confirmed, when time last passed.
    confirmed: WallTime,
    /// There was no room: this sweep keeps nothing that has expired by confirmed time.
    is_pressed: bool,
    /// Room ran out during this sweep: another follows, for the queues that it has passed.
    is_again: bool,
    pressed_at: Option<Instant>,
}

impl Sweep {
    /// The time by which records must have expired to be deleted (§10.1(6)).
    fn deletes_by(&self) -> WallTime {
        let kept = if self.is_pressed {
            Duration::ZERO
        } else {
            EXPIRED_KEPT
        };
        WallTime(self.confirmed.as_secs().saturating_sub(kept.as_secs()))
    }
}

impl Holder {
    /// The relay is full: a sweep begins soon that keeps no expired record. A running sweep
    /// continues where it is, since constant pressure would otherwise keep it from the last queues.
    pub(super) fn press(&mut self, now: Instant) {
        let sweep = &mut self.sweep;
        if sweep.pressed_at.is_none_or(|at| at + PRESSED_EVERY <= now) {
            sweep.pressed_at = Some(now);
            sweep.is_pressed = true;
            sweep.is_again = sweep.cursor.is_some();
            sweep.next_at = sweep.next_at.min(now);
        }
    }

    /// A request came at this time. Where the calendar was set back since time last passed, the
    /// lives of records count from there, and so does what has expired.
    pub(super) fn look_at(&mut self, wall: WallTime) {
        self.sweep.confirmed = self.sweep.confirmed.min(wall);
    }

    /// The queue is full: its expired records are deleted at once.
    pub(super) fn press_queue(&mut self, id: QueueId) {
        self.expire_records(id, self.sweep.confirmed);
    }

    /// Looks at the next queues; comes back soon when there are more, later when all were seen.
    pub(super) fn sweep(&mut self, now: Instant, wall: WallTime, confirmed: WallTime) {
        self.sweep.confirmed = confirmed;
        if now < self.sweep.next_at {
            return;
        }
        let mut looked_at = 0;
        while looked_at < SWEEP_PIECE {
            if self.ops.len() > self.limits.pending_ops_max / 2 {
                self.sweep.next_at = now + SWEEP_RETRY;
                return;
            }
            let Some(id) = self.next_to_sweep() else {
                let is_again = std::mem::take(&mut self.sweep.is_again);
                self.sweep.cursor = None;
                self.sweep.is_pressed = is_again;
                self.sweep.next_at = now + if is_again { SWEEP_PAUSE } else { SWEEP_EVERY };
                return;
            };
            self.sweep.cursor = Some(id);
            looked_at += 1 + self
                .queues
                .get(&id)
                .map_or(0, |queue| queue.record_count() + queue.removed_count());
            self.sweep_queue(id, wall);
        }
        self.sweep.next_at = now + SWEEP_PAUSE;
    }

    fn next_to_sweep(&self) -> Option<QueueId> {
        let from = self.sweep.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        self.queues
            .range((from, Bound::Unbounded))
            .next()
            .map(|(&id, _)| id)
    }

    fn sweep_queue(&mut self, id: QueueId, wall: WallTime) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let deletes_by = self.sweep.deletes_by();
        let idle_at = queue.fetched_at + self.limits.queue_life;
        let is_idle = idle_at <= deletes_by;
        match queue.state {
            QueueState::Creating(_) | QueueState::Removing { is_asked: true } => {}
            // An owner with a subscription is here.
            QueueState::Live if idle_at <= wall && queue.subscription.is_some() => {
                self.touch(id, wall);
            }
            QueueState::Live if is_idle => drop(self.remove_queue(id, None)),
            QueueState::Removing { is_asked: false } => drop(self.remove_queue(id, None)),
            QueueState::Live => self.expire_records(id, deletes_by),
        }
    }

    fn expire_records(&mut self, id: QueueId, deletes_by: WallTime) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let (entries, forget) = queue.take_expired(deletes_by);
        let unremoved = std::mem::take(&mut queue.unremoved);
        let remember = unremoved
            .values()
            .filter_map(|record| Some((*record, queue.remembered_until(record)?)))
            .collect();
        self.totals.on_taken(&entries);
        self.totals.removed -= forget.len();
        let records: Vec<_> = entries
            .iter()
            .map(|entry| (entry.seq, entry.record))
            .chain(unremoved)
            .collect();
        if !records.is_empty() || !forget.is_empty() {
            self.remove(Removal {
                queue: id,
                records,
                remember,
                forget,
            });
        }
    }

    /// The queue is gone for its users at once, and from memory when the store has forgotten it.
    pub(super) fn remove_queue(&mut self, id: QueueId, request: Option<RequestId>) -> Option<OpId> {
        let queue = self.queues.get_mut(&id)?;
        queue.state = QueueState::Removing { is_asked: true };
        let seqs = queue.all_seqs();
        let op = self.begin_op(Pending::RemoveQueue { queue: id, request }, 0);
        self.outgoing.push_back(HolderOp::RemoveQueue {
            op,
            queue: id,
            seqs,
        });
        Some(op)
    }

    /// The store has forgotten the queue, or failed to: the next sweep tries again.
    pub(super) fn on_queue_removed(&mut self, id: QueueId, is_removed: bool) {
        if is_removed {
            if let Some(queue) = self.queues.remove(&id) {
                self.totals.on_queue_removed(&queue);
            }
        } else if let Some(queue) = self.queues.get_mut(&id) {
            queue.state = QueueState::Removing { is_asked: false };
        }
    }
}
