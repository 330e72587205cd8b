//! The store: executes what the core asks for, on a thread of its own, and answers after the
//! commit.
//!
//! One batch of ops is one commit (group commit); the driver has at most one batch with the store
//! at a time.

mod contacts;
mod database;
mod files;
mod key;
mod lock;
mod mail;
mod meeting;
mod migrate;
mod ops;
mod profile;
mod rekey;
mod seeds;
#[cfg(test)]
mod tests;
mod unfinished;

use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};
use umbel_proto::time::WallTime;

pub use contacts::{Conversed, Fate, HistoryFilter};
pub(crate) use contacts::{Named, StoredContact};
pub use database::{DatabaseError, StoredMessage};
pub use files::FilesFault;
pub use key::{NewKey, PASSPHRASE_LEN_MIN, Passphrase};
pub use mail::Place;
pub use profile::{
    ConfigFault, InitError, KeyChange, KeyChangeError, NewProfile, Profile, ProfileError,
};
pub use seeds::{SEEDS_MAX, SeedAdded, SeedError, Seeds};

pub(crate) use database::Database;
pub(crate) use lock::{Lock, LockFile, Presence};
pub use meeting::Claim;
pub(crate) use meeting::{AskId, Asked, Attended, Entered, GuestId, Heard, HostBeat, Said};
pub(crate) use profile::OpenProfile;

use crate::core::io::{Snapshot, StoreFault, StoreOp, StoreTicket};

/// Jobs waiting for the store; beyond that the asker waits too.
const JOBS_MAX: usize = 64;

/// Each op of a batch, and how it went.
pub(crate) type BatchDone = Vec<(StoreTicket, Result<(), StoreFault>)>;

/// A job for the store's thread.
enum Job {
    Apply {
        batch: Vec<(StoreTicket, StoreOp)>,
        done: oneshot::Sender<BatchDone>,
    },
    Messages {
        inbox: Option<String>,
        after: i64,
        is_unread: bool,
        done: oneshot::Sender<Page>,
    },
    MarkRead {
        seq: i64,
        done: oneshot::Sender<Result<(), DatabaseError>>,
    },
    /// Whatever else the database can do.
    Call(Box<dyn FnOnce(&mut Database) + Send>),
    UnreadCounts {
        done: oneshot::Sender<Result<Vec<(String, u64)>, DatabaseError>>,
    },
}

type Page = Result<Vec<StoredMessage>, DatabaseError>;

/// The store's thread is gone: the client was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreClosed;

/// A profile's store without the thread and the core around it: for a test that holds it to another
/// store.
#[doc(hidden)]
#[expect(missing_debug_implementations, reason = "reads what is secret")]
pub struct BareStore(Database);

impl BareStore {
    /// Opens the store of a profile.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn open(profile: Profile) -> Result<Self, ProfileError> {
        Ok(Self(profile.open()?.database))
    }

    /// Does these ops; of each, whether it is durable now.
    pub fn commit(&mut self, batch: Vec<(StoreTicket, StoreOp)>) -> Vec<(StoreTicket, bool)> {
        let done = apply(&mut self.0, batch).into_iter();
        done.map(|(ticket, result)| (ticket, result.is_ok()))
            .collect()
    }

    /// All that the core starts from, with the ids of messages received since `received_since`.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn restore(&self, received_since: WallTime) -> Result<Snapshot, DatabaseError> {
        self.0.snapshot(received_since)
    }

    /// The first page of all messages, oldest first.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn messages(&self) -> Result<Vec<StoredMessage>, DatabaseError> {
        self.0.messages(None, 0)
    }
}

/// A handle of the store's thread. The thread ends once the last one is dropped.
#[derive(Clone)]
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Starts the thread.
    pub(crate) fn start(database: Database) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let thread = thread::Builder::new()
            .name("umbel-store".to_owned())
            .spawn(move || run(database, queue))?;
        Ok((Self { jobs }, thread))
    }

    /// Hands over a batch; the receiver has the outcome once it is durable.
    pub(crate) async fn submit(
        &self,
        batch: Vec<(StoreTicket, StoreOp)>,
    ) -> Result<oneshot::Receiver<BatchDone>, StoreClosed> {
        let (done, outcome) = oneshot::channel();
        self.jobs
            .send(Job::Apply { batch, done })
            .await
            .map_err(|_| StoreClosed)?;
        Ok(outcome)
    }

    /// See [`Database::unread`] and [`Database::messages`].
    pub(crate) async fn messages(
        &self,
        inbox: Option<String>,
        after: i64,
        is_unread: bool,
    ) -> Result<Page, StoreClosed> {
        self.ask(|done| Job::Messages {
            inbox,
            after,
            is_unread,
            done,
        })
        .await
    }

    /// See [`Database::mark_read`].
    pub(crate) async fn mark_read(
        &self,
        seq: i64,
    ) -> Result<Result<(), DatabaseError>, StoreClosed> {
        self.ask(|done| Job::MarkRead { seq, done }).await
    }

    /// See [`Database::unread_counts`].
    pub(crate) async fn unread_counts(
        &self,
    ) -> Result<Result<Vec<(String, u64)>, DatabaseError>, StoreClosed> {
        self.ask(|done| Job::UnreadCounts { done }).await
    }

    /// Has the thread do this, after what it was asked before.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<Result<T, DatabaseError>, StoreClosed> {
        self.ask(|done| Job::Call(Box::new(move |database| answer(done, work(database)))))
            .await
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, StoreClosed> {
        let (done, answer) = oneshot::channel();
        self.jobs.send(job(done)).await.map_err(|_| StoreClosed)?;
        answer.await.map_err(|_| StoreClosed)
    }
}

fn run(mut database: Database, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        match job {
            Job::Apply { batch, done } => answer(done, apply(&mut database, batch)),
            Job::Messages {
                inbox,
                after,
                is_unread: true,
                done,
            } => {
                answer(done, database.unread(inbox.as_deref(), after));
            }
            Job::Messages {
                inbox,
                after,
                is_unread: false,
                done,
            } => {
                answer(done, database.messages(inbox.as_deref(), after));
            }
            Job::Call(work) => work(&mut database),
            Job::MarkRead { seq, done } => answer(done, database.mark_read(seq)),
            Job::UnreadCounts { done } => answer(done, database.unread_counts()),
        }
    }
}

/// The asker may have stopped waiting.
fn answer<T>(done: oneshot::Sender<T>, value: T) {
    drop(done.send(value).err());
}

fn apply(database: &mut Database, batch: Vec<(StoreTicket, StoreOp)>) -> BatchDone {
    let (tickets, ops): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let results = database.apply(&ops).into_iter().map(|result| {
        result.map_err(|error| {
            tracing::warn!(%error, "the profile can't be written");
            error.fault()
        })
    });
    tickets.into_iter().zip(results).collect()
}
