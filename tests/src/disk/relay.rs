//! A relay's disk: committed writes survive a crash, others do not.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;
use umbel_proto::directory::{BookOp, BookRow};
use umbel_proto::ids::{BlindedKey, QueueId, RecordId, RelayId};
use umbel_proto::inbox::holder::{HolderDone, HolderOp, Outcome, QueueSnapshot, RecordEntry};
use umbel_proto::inbox::mailbox::QueueKind;
use umbel_proto::time::{Duration, Epoch, WallTime};
use umbel_relay::control::io::{Listed, Snapshot, StoreDone, StoreOp, StoredOnionKey};

/// Descriptors of inboxes: one for each key, whatever its epoch.
pub type InboxDescriptors = BTreeMap<BlindedKey, (Epoch, Vec<u8>)>;

/// The writes of a relay.
#[derive(Default)]
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct RelayDisk {
    committed: Committed,
    pending: Vec<StoreOp>,
    /// While the disk is full, whatever would make it hold more fails.
    pub is_full: bool,
    /// How much longer than usual its commits take.
    pub delay: Duration,
    /// How many descriptors of inboxes were stored in total.
    pub published: usize,
}

#[derive(Default)]
struct Committed {
    onion_keys: Vec<StoredOnionKey>,
    relays: BTreeMap<RelayId, BookRow>,
    inbox_descriptors: InboxDescriptors,
    queues: BTreeMap<QueueId, Queue>,
    clock: Option<Vec<u8>>,
    receipts: Vec<Vec<u8>>,
    listed: Option<Listed>,
    anchors: Vec<RelayId>,
    spot_checks: Option<Vec<u8>>,
}

struct Queue {
    snapshot: QueueSnapshot,
    bodies: BTreeMap<u64, ByteBuf>,
    removed: BTreeMap<RecordId, WallTime>,
}

impl RelayDisk {
    /// Takes an op; it lasts from the next commit on.
    pub fn write(&mut self, op: StoreOp) {
        self.pending.push(op);
    }

    /// Commits all that was written; the answers.
    pub fn commit(&mut self) -> Vec<StoreDone> {
        let is_full = self.is_full;
        let is_descriptor = |op: &&StoreOp| matches!(op, StoreOp::PutInboxDescriptor { .. });
        self.published += self.pending.iter().filter(is_descriptor).count();
        let pending = core::mem::take(&mut self.pending);
        pending
            .into_iter()
            .filter_map(|op| self.committed.apply(op, is_full))
            .collect()
    }

    /// A crash: uncommitted writes are lost.
    pub fn crash(&mut self) {
        self.pending.clear();
    }

    /// The descriptors of inboxes that are kept.
    pub fn inbox_descriptors(&self) -> impl Iterator<Item = &[u8]> {
        let descriptors = self.committed.inbox_descriptors.values();
        descriptors.map(|(_, descriptor)| descriptor.as_slice())
    }

    /// They are gone, as after a repair from an old copy.
    pub fn lose_inbox_descriptors(&mut self) {
        self.put_inbox_descriptors_back(BTreeMap::new());
    }

    /// A copy of them, by key, each with its epoch.
    pub fn copy_of_inbox_descriptors(&self) -> InboxDescriptors {
        self.committed.inbox_descriptors.clone()
    }

    /// It keeps these, and no others.
    pub fn put_inbox_descriptors_back(&mut self, copy: InboxDescriptors) {
        self.committed.inbox_descriptors = copy;
    }

    /// All that it has of each mailbox: kind, names and keys, and its records.
    pub fn mailboxes(&self) -> impl Iterator<Item = (QueueKind, Vec<u8>)> {
        self.committed.queues.values().map(|queue| {
            let snapshot = &queue.snapshot;
            let mut bytes = snapshot.queue.0.to_vec();
            bytes.extend(snapshot.terms.owner.0);
            bytes.extend(snapshot.terms.sender.0);
            let records = snapshot.records.iter();
            bytes.extend(records.flat_map(|entry| entry.record.0));
            bytes.extend(queue.bodies.values().flat_map(|body| body.iter().copied()));
            (snapshot.terms.kind, bytes)
        })
    }

    /// The effort that each public mailbox's owner has set.
    pub fn efforts(&self) -> impl Iterator<Item = u32> {
        let queues = self.committed.queues.values();
        let public = queues.filter(|queue| queue.snapshot.terms.kind == QueueKind::Public);
        public.map(|queue| queue.snapshot.terms.effort)
    }

    /// Whether there is a mailbox on it.
    pub fn has_queues(&self) -> bool {
        !self.committed.queues.is_empty()
    }

    /// All mailboxes are gone, as after a repair from an old copy.
    pub fn lose_queues(&mut self) {
        self.committed.queues.clear();
    }

    /// All records are gone; the mailboxes stay.
    pub fn lose_records(&mut self) {
        for queue in self.committed.queues.values_mut() {
            queue.snapshot.records.clear();
            queue.bodies.clear();
        }
    }

    /// Loses what it has of all relays but these.
    pub fn forget_relays_but(&mut self, kept: &[RelayId]) {
        self.committed
            .relays
            .retain(|relay, _| kept.contains(relay));
    }

    /// The contents when a relay starts.
    pub fn restore(&self) -> Snapshot {
        let committed = &self.committed;
        let inbox_descriptors = committed.inbox_descriptors.values();
        let inbox_descriptors = inbox_descriptors.map(|(_, descriptor)| descriptor.clone());
        Snapshot {
            onion_keys: committed.onion_keys.clone(),
            relays: committed.relays.values().cloned().collect(),
            inbox_descriptors: inbox_descriptors.collect(),
            queues: committed.queues.values().map(Queue::snapshot).collect(),
            clock: committed.clock.clone(),
            receipts: committed.receipts.clone(),
            listed: committed.listed,
            spot_checks: committed.spot_checks.clone(),
            anchors: committed.anchors.clone(),
        }
    }

    /// How many records are kept.
    pub fn record_count(&self) -> usize {
        self.committed
            .queues
            .values()
            .map(|queue| queue.bodies.len())
            .sum()
    }

    /// Which records are kept.
    pub fn record_ids(&self) -> BTreeSet<RecordId> {
        let queues = self.committed.queues.values();
        queues
            .flat_map(|queue| &queue.snapshot.records)
            .map(|entry| entry.record)
            .collect()
    }

    /// Each record in an index has a body, and each body is in an index.
    ///
    /// # Errors
    /// One has not.
    pub fn check(&self) -> Result<(), String> {
        let is_sound = |queue: &&Queue| {
            queue
                .snapshot
                .records
                .iter()
                .map(|entry| entry.seq)
                .eq(queue.bodies.keys().copied())
        };
        match self
            .committed
            .queues
            .values()
            .find(|queue| !is_sound(queue))
        {
            Some(_) => Err("a queue's index and its records differ".to_owned()),
            None => Ok(()),
        }
    }
}

impl Queue {
    fn snapshot(&self) -> QueueSnapshot {
        let mut snapshot = self.snapshot.clone();
        snapshot.removed = self
            .removed
            .iter()
            .map(|(&id, &until)| (id, until))
            .collect();
        snapshot
    }

    fn remove_records(&mut self, seqs: &[u64]) {
        let is_kept = |seq: &u64| !seqs.contains(seq);
        self.snapshot.records.retain(|entry| is_kept(&entry.seq));
        self.bodies.retain(|seq, _| is_kept(seq));
    }
}

impl Committed {
    fn apply(&mut self, op: StoreOp, is_full: bool) -> Option<StoreDone> {
        match op {
            StoreOp::Mailbox(op) => {
                let id = op.id();
                let outcome = self.apply_mailbox(op, is_full);
                return Some(StoreDone::Mailbox(HolderDone { op: id, outcome }));
            }
            StoreOp::Book(BookOp::Put { relay, row }) => {
                self.relays.insert(relay, row);
            }
            StoreOp::Book(BookOp::PutWords { .. }) => {}
            StoreOp::Book(BookOp::Remove(relays)) => {
                self.relays.retain(|relay, _| !relays.contains(relay));
            }
            StoreOp::PutInboxDescriptor {
                ticket,
                blinded,
                epoch,
                descriptor,
            } => {
                if !is_full {
                    self.inbox_descriptors.insert(blinded, (epoch, descriptor));
                }
                return Some(StoreDone::InboxDescriptor {
                    ticket,
                    is_stored: !is_full,
                });
            }
            StoreOp::RemoveInboxDescriptorsBefore(epoch) => {
                self.inbox_descriptors.retain(|_, (kept, _)| *kept >= epoch);
            }
            StoreOp::RemoveInboxDescriptorsAfter(epoch) => {
                self.inbox_descriptors.retain(|_, (kept, _)| *kept <= epoch);
            }
            StoreOp::PutOnionKeys(keys) => self.onion_keys = keys,
            StoreOp::PutClock(state) => self.clock = Some(state),
            StoreOp::PutReceipts(receipts) => self.receipts = receipts,
            StoreOp::PutSpotChecks(records) => self.spot_checks = Some(records),
            StoreOp::PutListed(listed) => self.listed = Some(listed),
            StoreOp::PutAnchors(anchors) => self.anchors = anchors,
        }
        None
    }

    fn apply_mailbox(&mut self, op: HolderOp, is_full: bool) -> Outcome {
        match op {
            HolderOp::PutQueue { .. } | HolderOp::PutRecord { .. } if is_full => {
                return Outcome::Failed;
            }
            HolderOp::PutQueue {
                queue,
                terms,
                fetched_at,
                ..
            } => self.put_queue(QueueSnapshot {
                queue,
                terms,
                fetched_at,
                records: Vec::new(),
                removed: Vec::new(),
            }),
            HolderOp::PutRecord {
                queue,
                seq,
                record,
                expires_at,
                body,
                ..
            } => {
                let entry = RecordEntry {
                    seq,
                    record,
                    len: body.len(),
                    expires_at,
                };
                return self.put_record(queue, entry, body);
            }
            HolderOp::ReadRecords { queue, seqs, .. } => return self.read_records(queue, &seqs),
            HolderOp::RemoveRecords {
                queue,
                seqs,
                remember,
                forget,
                ..
            } => {
                if let Some(kept) = self.queues.get_mut(&queue) {
                    kept.remove_records(&seqs);
                    kept.removed.extend(remember);
                    kept.removed.retain(|id, _| !forget.contains(id));
                }
            }
            HolderOp::RemoveQueue { queue, .. } => {
                self.queues.remove(&queue);
            }
        }
        Outcome::Done
    }

    fn put_record(&mut self, queue: QueueId, entry: RecordEntry, body: ByteBuf) -> Outcome {
        let Some(kept) = self.queues.get_mut(&queue) else {
            return Outcome::Failed;
        };
        kept.bodies.insert(entry.seq, body);
        kept.snapshot.records.push(entry);
        Outcome::Done
    }

    fn read_records(&self, queue: QueueId, seqs: &[u64]) -> Outcome {
        let Some(kept) = self.queues.get(&queue) else {
            return Outcome::Failed;
        };
        let bodies: Option<Vec<ByteBuf>> = seqs
            .iter()
            .map(|seq| kept.bodies.get(seq).cloned())
            .collect();
        bodies.map_or(Outcome::Failed, Outcome::Records)
    }

    /// Makes a queue, or changes one that is there: its records stay.
    fn put_queue(&mut self, snapshot: QueueSnapshot) {
        let kept = self.queues.entry(snapshot.queue).or_insert_with(|| Queue {
            snapshot: snapshot.clone(),
            bodies: BTreeMap::new(),
            removed: BTreeMap::new(),
        });
        let records = core::mem::take(&mut kept.snapshot.records);
        kept.snapshot = QueueSnapshot {
            records,
            ..snapshot
        };
    }
}
