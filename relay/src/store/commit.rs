//! The store's thread: takes the ops that wait, applies them in one transaction, and answers after
//! its one fsync.
//!
//! A transaction that fails is rolled back and its ops are tried one by one. So one bad op fails no
//! other, and on a full disk records can still be removed. An op that fails is answered as failed;
//! nothing else stops.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tracing::error;
use umbel_proto::directory::BookOp;
use umbel_proto::inbox::holder::{HolderDone, HolderOp, Outcome};

use super::{OnDone, Shared, mailbox, relays};
use crate::control::io::{StoreDone, StoreOp};
use crate::repeated::Repeated;

/// Most ops in one transaction.
const BATCH_OPS_MAX: usize = 1024;
/// No op is added to a transaction that is as old as this: those in it wait for their answers.
const BATCH_TIME_MAX: Duration = Duration::from_millis(20);

pub(super) struct Committer {
    pub(super) db: Connection,
    pub(super) ops: Receiver<StoreOp>,
    pub(super) on_done: OnDone,
    pub(super) shared: Arc<Shared>,
    /// When the store was opened.
    pub(super) opened_at: Instant,
    /// The log line for a failing disk.
    pub(super) failure: Repeated,
}

/// The ops of one transaction, and their answers.
#[derive(Default)]
struct Batch {
    ops: Vec<StoreOp>,
    done: Vec<StoreDone>,
    is_writing: bool,
}

impl Committer {
    /// Until the store is dropped and all that waits is done.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.ops.recv() {
            let done = self.commit_waiting(first);
            if !done.is_empty() {
                (self.on_done)(done);
            }
        }
    }

    /// One transaction of `first` and what waits behind it; then the answers, in order.
    fn commit_waiting(&mut self, first: StoreOp) -> Vec<StoreDone> {
        let mut batch = Batch::default();
        let committed = self.try_batch(first, &mut batch);
        for op in &batch.ops {
            self.shared.on_taken(op);
        }
        match committed {
            Ok(()) => {
                if let Some(repeated) = self.failure.rest(self.opened_at.elapsed()) {
                    tracing::info!(
                        repeated,
                        "the store can be written to; for a while it could not be"
                    );
                }
                batch.done
            }
            Err(_) => batch
                .ops
                .iter()
                .filter_map(|op| self.commit_alone(op))
                .collect(),
        }
    }

    fn try_batch(&mut self, first: StoreOp, batch: &mut Batch) -> rusqlite::Result<()> {
        let began_at = Instant::now();
        // Taken back when dropped.
        let transaction = self.db.transaction()?;
        let mut next = Some(first);
        while let Some(op) = next {
            batch.is_writing |= is_write(&op);
            let applied = apply(&transaction, &op);
            batch.ops.push(op);
            batch.done.extend(applied?);
            let is_open = batch.ops.len() < BATCH_OPS_MAX && began_at.elapsed() < BATCH_TIME_MAX;
            next = if is_open {
                self.ops.try_recv().ok()
            } else {
                None
            };
        }
        transaction.commit()?;
        self.shared.on_commit(batch.is_writing);
        Ok(())
    }

    /// One op in a transaction of its own. Its result is true either way.
    fn commit_alone(&mut self, op: &StoreOp) -> Option<StoreDone> {
        let committed = (|| {
            let transaction = self.db.transaction()?;
            let done = apply(&transaction, op)?;
            transaction.commit()?;
            self.shared.on_commit(is_write(op));
            Ok(done)
        })();
        committed.unwrap_or_else(|failed| {
            self.on_failed(&failed);
            failure(op, Outcome::Failed)
        })
    }

    fn on_failed(&mut self, failed: &rusqlite::Error) {
        self.shared.on_failed();
        let Some(repeated) = self.failure.come(self.opened_at.elapsed()) else {
            return;
        };
        let advice = match failed.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => {
                "the disk is full: free some space, or lower records_disk_mib"
            }
            Some(ErrorCode::SystemIoFailure | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
                "the disk fails or is read-only: check it and its mount"
            }
            _ => {
                "the store's file may be damaged: restart, and move the file away if that does not help"
            }
        };
        error!(repeated, error = %failed, "can't write to the store, so deposits are refused: {advice}");
    }
}

const fn is_write(op: &StoreOp) -> bool {
    !matches!(op, StoreOp::Mailbox(HolderOp::ReadRecords { .. }))
}

/// Lets one op take effect in the transaction that is open, and says what to answer once that is
/// durable.
fn apply(db: &Connection, op: &StoreOp) -> rusqlite::Result<Option<StoreDone>> {
    match op {
        StoreOp::Mailbox(op) => return Ok(Some(StoreDone::Mailbox(mailbox::apply(db, op)?))),
        StoreOp::Book(BookOp::Put { relay, row }) => relays::put_relay(db, relay, row)?,
        StoreOp::Book(BookOp::Remove(relays)) => relays::remove_relays(db, relays)?,
        // Clients' books alone have it.
        StoreOp::Book(BookOp::PutWords { .. }) => {}
        StoreOp::PutInboxDescriptor {
            ticket,
            blinded,
            epoch,
            descriptor,
        } => {
            relays::put_inbox_descriptor(db, blinded, *epoch, descriptor)?;
            return Ok(Some(StoreDone::InboxDescriptor {
                ticket: *ticket,
                is_stored: true,
            }));
        }
        StoreOp::RemoveInboxDescriptorsBefore(epoch) => {
            relays::remove_inbox_descriptors_before(db, *epoch)?;
        }
        StoreOp::RemoveInboxDescriptorsAfter(epoch) => {
            relays::remove_inbox_descriptors_after(db, *epoch)?;
        }
        StoreOp::PutOnionKeys(keys) => relays::put_onion_keys(db, keys)?,
        StoreOp::PutClock(state) => relays::put_clock(db, state)?,
        StoreOp::PutReceipts(receipts) => relays::put_receipts(db, receipts)?,
        StoreOp::PutSpotChecks(records) => relays::put_spot_checks(db, records)?,
        StoreOp::PutListed(listed) => relays::put_listed(db, *listed)?,
        StoreOp::PutAnchors(anchors) => relays::put_anchors(db, anchors)?,
    }
    Ok(None)
}

/// The answer to an op that failed, if anyone waits for one.
pub(super) fn failure(op: &StoreOp, outcome: Outcome) -> Option<StoreDone> {
    match op {
        StoreOp::Mailbox(op) => Some(StoreDone::Mailbox(HolderDone {
            op: op.id(),
            outcome,
        })),
        StoreOp::PutInboxDescriptor { ticket, .. } => Some(StoreDone::InboxDescriptor {
            ticket: *ticket,
            is_stored: false,
        }),
        StoreOp::Book(_)
        | StoreOp::RemoveInboxDescriptorsBefore(_)
        | StoreOp::RemoveInboxDescriptorsAfter(_)
        | StoreOp::PutOnionKeys(_)
        | StoreOp::PutClock(_)
        | StoreOp::PutReceipts(_)
        | StoreOp::PutSpotChecks(_)
        | StoreOp::PutListed(_)
        | StoreOp::PutAnchors(_) => None,
    }
}
