//! One queue's index: which records it holds, which it held, and who listens. Never a record's
//! body.

use std::collections::BTreeSet;

use super::ops::{OpId, QueueSnapshot, RecordEntry};
use super::push::Subscription;
use super::sorted::SortedMap;
use crate::ids::{QueueId, RecordId};
use crate::inbox::mailbox::{QueueTerms, fetched_len_of};
use crate::time::WallTime;

/// One queue as the holder knows it.
pub(super) struct Queue {
    pub(super) terms: QueueTerms,
    /// When its owner was last here, to the day or so.
    pub(super) fetched_at: WallTime,
    pub(super) state: QueueState,
    /// By place: oldest first.
    records: SortedMap<u64, Record>,
    places: SortedMap<RecordId, u64>,
    bytes: u64,
    /// Removed records that the store keeps the ids of, with when that ends.
    removed: SortedMap<RecordId, WallTime>,
    /// Gone from the index, but the store failed to remove them: tried again at each sweep.
    pub(super) unremoved: SortedMap<u64, RecordId>,
    /// Boxed: few queues have one.
    pub(super) subscription: Option<Box<Subscription>>,
}

/// Whether the store knows the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueState {
    /// Not yet: this op is in flight.
    Creating(OpId),
    /// Yes.
    Live,
    /// It is to forget it; `is_asked` while that op is in flight.
    Removing { is_asked: bool },
}

#[derive(Clone, Copy)]
struct Record {
    record: RecordId,
    len: usize,
    expires_at: WallTime,
    /// The op that stores it, while that is in flight.
    storing: Option<OpId>,
}

impl Record {
    const fn is_durable(&self) -> bool {
        self.storing.is_none()
    }

    /// What is said of it outside, at this place.
    const fn entry(&self, seq: u64) -> RecordEntry {
        RecordEntry {
            seq,
            record: self.record,
            len: self.len,
            expires_at: self.expires_at,
        }
    }
}

/// Where a record stands that someone wants to deposit.
pub(super) enum Known {
    /// Never seen, or forgotten.
    No,
    /// On its way to the disk.
    Storing(OpId),
    /// Durable.
    Yes,
    /// Removed by its owner, and remembered for that.
    Removed,
    /// The same, but the store failed to remember it.
    Unremoved,
}

/// Records chosen to be read together.
pub(super) struct Batch {
    pub(super) seqs: Vec<u64>,
    /// Their lengths' sum.
    pub(super) bytes: usize,
}

impl Queue {
    pub(super) const fn new(terms: QueueTerms, fetched_at: WallTime, state: QueueState) -> Self {
        Self {
            terms,
            fetched_at,
            state,
            records: SortedMap::new(),
            places: SortedMap::new(),
            bytes: 0,
            removed: SortedMap::new(),
            unremoved: SortedMap::new(),
            subscription: None,
        }
    }

    /// The queue as the store had it. A record that stands there twice is kept once.
    pub(super) fn restore(snapshot: &QueueSnapshot) -> Self {
        let mut queue = Self::new(snapshot.terms, snapshot.fetched_at, QueueState::Live);
        for entry in &snapshot.records {
            if queue.places.contains_key(&entry.record) {
                queue.unremoved.insert(entry.seq, entry.record);
            } else {
                queue.add(entry, None);
            }
        }
        queue.removed = snapshot.removed.iter().copied().collect();
        queue
    }

    /// The queue as the store should have it: durable records only.
    pub(super) fn snapshot(&self, queue: QueueId) -> QueueSnapshot {
        let durable = self
            .records
            .iter()
            .filter(|(_, record)| record.is_durable());
        QueueSnapshot {
            queue,
            terms: self.terms,
            fetched_at: self.fetched_at,
            records: durable.map(|(&seq, record)| record.entry(seq)).collect(),
            removed: self
                .removed
                .iter()
                .map(|(&record, &expires_at)| (record, expires_at))
                .collect(),
        }
    }

    /// Records in the index, durable or on their way.
    pub(super) fn record_count(&self) -> usize {
        self.records.len()
    }

    /// Their lengths' sum.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ids kept of removed records.
    pub(super) fn removed_count(&self) -> usize {
        self.removed.len()
    }

    pub(super) fn known(&self, record: &RecordId) -> Known {
        match self
            .places
            .get(record)
            .and_then(|seq| self.records.get(seq))
        {
            Some(Record {
                storing: Some(op), ..
            }) => Known::Storing(*op),
            Some(Record { storing: None, .. }) => Known::Yes,
            None if !self.removed.contains_key(record) => Known::No,
            None if self.unremoved.values().any(|unremoved| unremoved == record) => {
                Known::Unremoved
            }
            None => Known::Removed,
        }
    }

    /// Takes a record into the index that is on its way to the disk by this op, or on it.
    pub(super) fn add(&mut self, entry: &RecordEntry, storing: Option<OpId>) {
        let RecordEntry {
            seq,
            record,
            len,
            expires_at,
        } = *entry;
        let is_new = self
            .records
            .insert(
                seq,
                Record {
                    record,
                    len,
                    expires_at,
                    storing,
                },
            )
            .is_none();
        assert!(
            is_new && self.places.insert(record, seq).is_none(),
            "places are never reused; the id was looked up"
        );
        self.bytes += len as u64;
    }

    /// The record is on the disk: it may be fetched. Returns whether it is in the index.
    pub(super) fn mark_durable(&mut self, seq: u64) -> bool {
        let record = self.records.get_mut(&seq);
        record.map(|record| record.storing = None).is_some()
    }

    /// Takes a record off the index, whatever the reason.
    pub(super) fn take(&mut self, seq: u64) -> Option<RecordEntry> {
        self.take_all(&[seq]).pop()
    }

    /// Takes records off the index by their places, which ascend.
    fn take_all(&mut self, seqs: &[u64]) -> Vec<RecordEntry> {
        let taken: Vec<RecordEntry> = self
            .records
            .remove_all(seqs)
            .into_iter()
            .map(|(seq, record)| record.entry(seq))
            .collect();
        let mut ids: Vec<RecordId> = taken.iter().map(|entry| entry.record).collect();
        ids.sort_unstable();
        self.places.remove_all(&ids);
        for entry in &taken {
            self.bytes -= entry.len as u64;
            if let Some(subscription) = &mut self.subscription {
                subscription.forget(entry.seq);
            }
        }
        taken
    }

    /// Takes records off the index because their owner has them: durable ones, and those that were
    /// pushed at once, which may be durable with their owner before they are here.
    pub(super) fn take_removed(&mut self, records: &[RecordId]) -> Vec<RecordEntry> {
        let places = records.iter().filter_map(|id| self.places.get(id).copied());
        let mut seqs: Vec<u64> = places.filter(|&seq| self.may_be_with_owner(seq)).collect();
        seqs.sort_unstable();
        self.take_all(&seqs)
    }

    fn may_be_with_owner(&self, seq: u64) -> bool {
        let is_durable = self.records.get(&seq).is_some_and(Record::is_durable);
        is_durable
            || self
                .subscription
                .as_ref()
                .is_some_and(|subscription| subscription.is_outstanding(seq))
    }

    /// Remembers the ids of removed records, `room` in all at most: those that expire first are
    /// forgotten, and returned.
    pub(super) fn remember(&mut self, entries: &[RecordEntry], room: usize) -> Vec<RecordId> {
        self.removed
            .extend(entries.iter().map(|entry| (entry.record, entry.expires_at)));
        let excess = self.removed.len().saturating_sub(room);
        if excess == 0 {
            return Vec::new();
        }
        let mut by_expiry: Vec<_> = self
            .removed
            .iter()
            .map(|(&record, &at)| (at, record))
            .collect();
        if excess < by_expiry.len() {
            by_expiry.select_nth_unstable(excess);
        }
        let mut forgotten: Vec<RecordId> = by_expiry
            .into_iter()
            .take(excess)
            .map(|(_, record)| record)
            .collect();
        forgotten.sort_unstable();
        self.removed.remove_all(&forgotten);
        forgotten
    }

    /// When the id of a removed record need no longer be kept.
    pub(super) fn remembered_until(&self, record: &RecordId) -> Option<WallTime> {
        self.removed.get(record).copied()
    }

    /// Takes off the index what expired by `time`: records' places, and ids that need no longer be
    /// kept.
    pub(super) fn take_expired(&mut self, time: WallTime) -> (Vec<RecordEntry>, Vec<RecordId>) {
        let is_over = |record: &Record| record.is_durable() && record.expires_at <= time;
        let over: Vec<u64> = self
            .records
            .iter()
            .filter(|(_, record)| is_over(record))
            .map(|(&seq, _)| seq)
            .collect();
        let entries = if over.is_empty() {
            Vec::new()
        } else {
            self.take_all(&over)
        };
        let forgotten = self
            .removed
            .extract(|_, &at| at <= time)
            .into_iter()
            .map(|(record, _)| record)
            .collect();
        (entries, forgotten)
    }

    /// All places that the store may know.
    pub(super) fn all_seqs(&self) -> Vec<u64> {
        self.records
            .keys()
            .chain(self.unremoved.keys())
            .copied()
            .collect()
    }

    /// Places of all durable records.
    pub(super) fn durable_seqs(&self) -> BTreeSet<u64> {
        self.records
            .iter()
            .filter(|(_, record)| record.is_durable())
            .map(|(&seq, _)| seq)
            .collect()
    }

    pub(super) fn has_durable(&self) -> bool {
        self.records.values().any(|record| record.is_durable())
    }

    pub(super) fn len_of(&self, seq: u64) -> Option<usize> {
        self.records.get(&seq).map(|record| record.len)
    }

    /// The oldest durable records that fit `room` bytes of an answer, but one at least; and whether
    /// there are more.
    pub(super) fn oldest(&self, room: usize) -> (Batch, bool) {
        let mut durable = self
            .records
            .iter()
            .filter(|(_, record)| record.is_durable())
            .map(|(&seq, r)| (seq, r.len));
        choose(&mut durable, room)
    }

    /// The index agrees with itself.
    pub(super) fn is_consistent(&self) -> bool {
        let bytes: u64 = self.records.values().map(|record| record.len as u64).sum();
        let places_agree = self
            .records
            .iter()
            .all(|(seq, record)| self.places.get(&record.record) == Some(seq));
        let none_is_both = self
            .removed
            .keys()
            .all(|record| !self.places.contains_key(record));
        let none_comes_back = self
            .unremoved
            .keys()
            .all(|seq| !self.records.contains_key(seq));
        let pushes_are_held = self.subscription.as_ref().is_none_or(|subscription| {
            subscription
                .unpushed()
                .all(|seq| self.records.get(&seq).is_some_and(Record::is_durable))
                && subscription
                    .outstanding()
                    .all(|seq| self.records.contains_key(&seq))
        });
        bytes == self.bytes
            && self.places.len() == self.records.len()
            && places_agree
            && none_is_both
            && none_comes_back
            && pushes_are_held
    }
}

/// Takes records while they fit `room`, but one at least; and says whether one was left.
pub(super) fn choose(
    records: &mut impl Iterator<Item = (u64, usize)>,
    room: usize,
) -> (Batch, bool) {
    let mut batch = Batch {
        seqs: Vec::new(),
        bytes: 0,
    };
    let mut taken = 0;
    for (seq, len) in records {
        taken += fetched_len_of(len);
        if taken > room && !batch.seqs.is_empty() {
            return (batch, true);
        }
        batch.seqs.push(seq);
        batch.bytes += len;
    }
    (batch, false)
}
