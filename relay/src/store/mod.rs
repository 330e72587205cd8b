//! The durable state: queues and records, descriptors, onion keys, in one SQLite file that one
//! thread owns.
//!
//! Ops take effect in the order submitted. Those that wait together are made durable together
//! (group commit): one transaction, one fsync, and only then their answers, in order, through the
//! callback. An answer that says "done" is true after a power cut. The store decides nothing: the
//! cores ask.

mod commit;
pub mod keys;
mod mailbox;
mod migrate;
mod open;
mod relays;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{fmt, io};

use umbel_proto::directory::BookOp;
use umbel_proto::inbox::holder::{HolderOp, Outcome};

use self::commit::Committer;
use crate::control::io::{Snapshot, StoreDone, StoreOp};
use crate::repeated::{MINUTE, Repeated};

/// Most ops that wait for the store's thread. When full, ops are refused.
const QUEUE_OPS_MAX: usize = 8192;
/// The last places are for ops whose asker waits for no answer, such as onion keys: nobody would
/// ask again.
const QUEUE_OPS_RESERVED: usize = 1024;
/// Most bytes of records and descriptors that wait with them.
const QUEUE_BYTES_MAX: usize = 96 << 20;

/// Takes answers, in the order of the ops, on the store's thread. Must not wait for that thread.
pub type OnDone = Box<dyn FnMut(Vec<StoreDone>) + Send>;

/// The relay's store. Dropping it waits until all that was submitted is done.
#[derive(Debug)]
pub struct Store {
    /// `None` only while being dropped.
    ops: Option<SyncSender<StoreOp>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The store has too much to do: the op was not taken.
#[must_use = "the asker must be told"]
#[expect(missing_debug_implementations, reason = "holds what an op is answered")]
pub struct NotTaken {
    /// To be handed to the core as any other answer; `None` when nobody waits for one.
    pub answer: Option<StoreDone>,
}

/// Counts of the store's work since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreCounts {
    /// Transactions that wrote: as many fsyncs.
    pub commits: u64,
    /// Ops taken off the queue.
    pub ops: u64,
    /// Ops that failed.
    pub failed: u64,
    /// Ops that were not taken.
    pub refused: u64,
    /// Ops that wait.
    pub waiting: usize,
}

/// Why there is no store: whose fault, and what to do.
#[derive(Debug)]
pub enum StoreError {
    /// The file can't be made or opened.
    File {
        /// Where.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process has it open.
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// It was written by a newer version of this program.
    Newer {
        /// Where.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },
    /// It is not a relay's store.
    Foreign {
        /// Where.
        path: PathBuf,
    },
    /// It is damaged.
    Damaged {
        /// Where.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The disk, or what is left of it.
    Database {
        /// Where.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// No thread could be started.
    Thread(io::Error),
}

impl Store {
    /// Opens the file, makes it if there is none, and returns what it holds. From then on answers
    /// go to `on_done`.
    ///
    /// # Errors
    /// See [`StoreError`]; the file is left as it is.
    pub fn open(path: &Path, on_done: OnDone) -> Result<(Self, Snapshot), StoreError> {
        let db = open::open(path)?;
        let snapshot = restore(&db).map_err(|source| StoreError::of(path, source))?;
        // All was read once, and most of it won't be again.
        db.execute_batch("PRAGMA shrink_memory")
            .map_err(|source| StoreError::of(path, source))?;
        Ok((Self::start(db, on_done)?, snapshot))
    }

    /// Gives the file to a thread of its own.
    fn start(db: rusqlite::Connection, on_done: OnDone) -> Result<Self, StoreError> {
        let (sender, ops) = sync_channel(QUEUE_OPS_MAX);
        let shared = Arc::new(Shared::default());
        let (opened_at, failure) = (Instant::now(), Repeated::new(MINUTE));
        let committer = Committer {
            db,
            ops,
            on_done,
            shared: Arc::clone(&shared),
            opened_at,
            failure,
        };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(|| committer.run());
        Ok(Self {
            ops: Some(sender),
            shared,
            thread: Some(thread.map_err(StoreError::Thread)?),
        })
    }

    /// Asks for an op; never waits.
    ///
    /// # Errors
    /// Too much waits already. The op will not take effect.
    pub fn submit(&self, op: StoreOp) -> Result<(), NotTaken> {
        let answer_if_refused = commit::failure(&op, Outcome::Busy);
        let bytes = op_bytes(&op);
        let is_taken = self.shared.take_room(bytes, answer_if_refused.is_some())
            && self.ops.as_ref().is_some_and(|ops| {
                let is_sent = ops.try_send(op).is_ok();
                if !is_sent {
                    self.shared.return_room(bytes);
                }
                is_sent
            });
        if is_taken {
            return Ok(());
        }
        self.shared.refused.fetch_add(1, Relaxed);
        Err(NotTaken {
            answer: answer_if_refused,
        })
    }

    /// Waits until all that was submitted is done and answered, and closes the file.
    pub fn close(self) {
        drop(self);
    }

    /// The counts so far.
    pub fn counts(&self) -> StoreCounts {
        self.shared.counts()
    }

    /// To see from elsewhere how it does.
    pub(crate) fn state(&self) -> StoreState {
        StoreState(Arc::clone(&self.shared))
    }
}

/// How a store does, for whoever does not own it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreState(Arc<Shared>);

impl StoreState {
    /// Whether the last write failed: the disk is full, or broken.
    pub(crate) fn is_failing(&self) -> bool {
        self.0.is_failing.load(Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn failing() -> Self {
        let state = Self::default();
        state.0.on_failed();
        state
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.ops = None;
        if let Some(thread) = self.thread.take() {
            // An error is a panic of that thread, which it has reported itself.
            let _ = thread.join();
        }
    }
}

fn restore(db: &rusqlite::Connection) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot {
        onion_keys: relays::restore_onion_keys(db)?,
        relays: relays::restore_relays(db)?,
        inbox_descriptors: relays::restore_inbox_descriptors(db)?,
        queues: mailbox::restore(db)?,
        clock: relays::restore_clock(db)?,
        receipts: relays::restore_receipts(db)?,
        listed: relays::restore_listed(db)?,
        spot_checks: relays::restore_spot_checks(db)?,
        anchors: relays::restore_anchors(db)?,
    })
}

/// Counters that both sides of the queue see.
#[derive(Debug, Default)]
struct Shared {
    waiting_ops: AtomicUsize,
    waiting_bytes: AtomicUsize,
    commits: AtomicU64,
    ops: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    /// The last write failed.
    is_failing: AtomicBool,
}

impl Shared {
    /// Takes a place in the queue if there is one. Callers may race past a limit by one op each.
    fn take_room(&self, bytes: usize, is_answered: bool) -> bool {
        let ops_max = QUEUE_OPS_MAX - if is_answered { QUEUE_OPS_RESERVED } else { 0 };
        let has_room = self.waiting_ops.load(Relaxed) < ops_max
            && (!is_answered || self.waiting_bytes.load(Relaxed) + bytes <= QUEUE_BYTES_MAX);
        if has_room {
            self.waiting_ops.fetch_add(1, Relaxed);
            self.waiting_bytes.fetch_add(bytes, Relaxed);
        }
        has_room
    }

    fn return_room(&self, bytes: usize) {
        self.waiting_ops.fetch_sub(1, Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
    }

    fn on_taken(&self, op: &StoreOp) {
        self.return_room(op_bytes(op));
        self.ops.fetch_add(1, Relaxed);
    }

    fn on_commit(&self, is_writing: bool) {
        self.commits.fetch_add(u64::from(is_writing), Relaxed);
        if is_writing {
            self.is_failing.store(false, Relaxed);
        }
    }

    fn on_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
        self.is_failing.store(true, Relaxed);
    }

    fn counts(&self) -> StoreCounts {
        StoreCounts {
            commits: self.commits.load(Relaxed),
            ops: self.ops.load(Relaxed),
            failed: self.failed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            waiting: self.waiting_ops.load(Relaxed),
        }
    }
}

/// Bytes that an op holds while it waits, where these can be many.
fn op_bytes(op: &StoreOp) -> usize {
    match op {
        StoreOp::Mailbox(HolderOp::PutRecord { body, .. }) => body.len(),
        StoreOp::Book(BookOp::Put { row, .. }) => row.descriptor.len(),
        StoreOp::PutInboxDescriptor { descriptor, .. } => descriptor.len(),
        StoreOp::Mailbox(_)
        | StoreOp::Book(BookOp::Remove(_) | BookOp::PutWords { .. })
        | StoreOp::RemoveInboxDescriptorsBefore(_)
        | StoreOp::RemoveInboxDescriptorsAfter(_)
        | StoreOp::PutOnionKeys(_)
        | StoreOp::PutClock(_)
        | StoreOp::PutReceipts(_)
        | StoreOp::PutSpotChecks(_)
        | StoreOp::PutListed(_)
        | StoreOp::PutAnchors(_) => 0,
    }
}

/// A number as SQLite has them; times and places never come near its end.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that can't be negative.
fn whole(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

impl StoreError {
    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => {
                "check that the directory exists and that this user may write there"
            }
            Self::InUse { .. } => "stop the other relay first, or choose another --data-dir",
            Self::Newer { .. } => "install the version that wrote it, or a newer one",
            Self::Foreign { .. } => "choose another data directory, or put the store's copy back",
            Self::Damaged { .. } => {
                "put a copy of relay.db back; without one, move it away: the mail that it kept for others is then lost"
            }
            Self::Database { .. } => {
                "check the disk: its space, its health, and whether it is mounted for writing"
            }
            Self::Thread(_) => "free some threads or memory of this machine",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "can't open {}: {source}", path.display()),
            Self::InUse { path } => write!(f, "{} is in use by another process", path.display()),
            Self::Newer { path, found, known } => {
                write!(
                    f,
                    "{} has format {found}, and this version reads up to {known}",
                    path.display()
                )
            }
            Self::Foreign { path } => {
                write!(f, "{} is not the store of an Umbel relay", path.display())
            }
            Self::Damaged { path, source } => write!(f, "{} is damaged: {source}", path.display()),
            Self::Database { path, source } => {
                write!(f, "can't read or write {}: {source}", path.display())
            }
            Self::Thread(source) => write!(f, "can't start the store's thread: {source}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::Thread(source) => Some(source),
            Self::Damaged { source, .. } | Self::Database { source, .. } => Some(source),
            Self::InUse { .. } | Self::Newer { .. } | Self::Foreign { .. } => None,
        }
    }
}
