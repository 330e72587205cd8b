//! Operations that a holder asks of the store, and their results (docs/protocol.md §10.1).

use serde_bytes::ByteBuf;

use crate::ids::{QueueId, RecordId};
use crate::inbox::mailbox::QueueTerms;
use crate::time::WallTime;

/// Names one op; never reused by a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// One change to what the store keeps, or one read of it.
///
/// The store lets ops take effect in the order asked and answers each with one [`HolderDone`],
/// after it is durable. An op that failed has changed nothing. Times are cut to the hour.
#[derive(Clone, PartialEq, Eq)]
#[expect(
    missing_debug_implementations,
    reason = "holds records and linkable ids"
)]
pub enum HolderOp {
    /// Keep this queue; in place of what is known of it, except its records.
    PutQueue {
        /// Goes back with the answer.
        op: OpId,
        /// The queue.
        queue: QueueId,
        /// Its keys, and its owner's choices.
        terms: QueueTerms,
        /// When its owner was last here.
        fetched_at: WallTime,
    },
    /// Keep this record.
    PutRecord {
        /// Goes back with the answer.
        op: OpId,
        /// Its queue.
        queue: QueueId,
        /// Its place: higher than that of any record put before.
        seq: u64,
        /// Its id.
        record: RecordId,
        /// When it goes unfetched.
        expires_at: WallTime,
        /// The sealed record.
        body: ByteBuf,
    },
    /// Return the bodies of these records, in this order; answered by [`Outcome::Records`].
    ReadRecords {
        /// Goes back with the answer.
        op: OpId,
        /// Their queue.
        queue: QueueId,
        /// Their places.
        seqs: Vec<u64>,
    },
    /// Forget these records; ones that are not there are no failure.
    RemoveRecords {
        /// Goes back with the answer.
        op: OpId,
        /// Their queue.
        queue: QueueId,
        /// Their places.
        seqs: Vec<u64>,
        /// Of these, keep the ids until they expire: the same record is not taken twice.
        remember: Vec<(RecordId, WallTime)>,
        /// Ids that need not be kept any longer.
        forget: Vec<RecordId>,
    },
    /// Forget this queue, all of its records and all ids kept for it.
    RemoveQueue {
        /// Goes back with the answer.
        op: OpId,
        /// The queue.
        queue: QueueId,
        /// The places of its records.
        seqs: Vec<u64>,
    },
}

impl HolderOp {
    /// Its id.
    pub const fn id(&self) -> OpId {
        match self {
            Self::PutQueue { op, .. }
            | Self::PutRecord { op, .. }
            | Self::ReadRecords { op, .. }
            | Self::RemoveRecords { op, .. }
            | Self::RemoveQueue { op, .. } => *op,
        }
    }
}

/// An op is durable, was read, or failed.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "holds records")]
pub struct HolderDone {
    /// Which.
    pub op: OpId,
    /// How it went.
    pub outcome: Outcome,
}

/// How an op went.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "holds records")]
pub enum Outcome {
    /// It is durable.
    Done,
    /// The records that were to be read, in the order asked.
    Records(Vec<ByteBuf>),
    /// The store could not, and nothing changed: the disk is full or broken.
    Failed,
    /// The store did not take the op: too much is waiting there.
    Busy,
}

/// A queue as the store holds it at start, without its records' bodies.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "holds linkable ids")]
pub struct QueueSnapshot {
    /// The queue.
    pub queue: QueueId,
    /// Its keys, and its owner's choices.
    pub terms: QueueTerms,
    /// When its owner was last here.
    pub fetched_at: WallTime,
    /// Its records, by ascending place.
    pub records: Vec<RecordEntry>,
    /// Records that were removed and would not be taken again, with when that ends.
    pub removed: Vec<(RecordId, WallTime)>,
}

/// A record as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordEntry {
    /// Its place.
    pub seq: u64,
    /// Its id.
    pub record: RecordId,
    /// Its length, bytes.
    pub len: usize,
    /// When it goes unfetched.
    pub expires_at: WallTime,
}
