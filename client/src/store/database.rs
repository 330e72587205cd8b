//! The profile's database: SQLCipher under one key, a versioned schema, and what each op of the
//! core does to it.
//!
//! Owns the SQL, with `contacts`, `mail`, `meeting` and `ops`. Decides nothing: stored values are opaque here, except for the inbox of a message.

use std::fmt;
use std::io;
use std::path::Path;

use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use umbel_proto::directory::{Age, Belief, BookRow};
use umbel_proto::ids::{MessageId, RelayId};
use umbel_proto::time::{Duration, WallTime};
use umbel_relay::shell::formats::{steps_from, take_steps};
use zeroize::Zeroizing;

use super::contacts::{Conversed, Fate};
use super::files;
use super::key::DatabaseKey;
use super::lock::{Lock, LockFile};
use super::migrate::{self, StepContext};
use super::ops::{execute, put_meta};
use crate::core::io::{ContactKey, Snapshot, StoreFault, StoreOp};
use crate::core::{FIRST_CONTACT_ACCEPTED, FIRST_CONTACT_DISPUTED};
use crate::display::PeerText;

/// Messages in one page, at most: a few megabytes.
pub(crate) const PAGE_MAX: u32 = 32;

/// How long a process waits for another that is writing to the same profile.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// Never makes a file, takes no path for an address, and is used by one thread.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// For a database that is only read; its path is given as an address.
const READ_FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY
    .union(OpenFlags::SQLITE_OPEN_URI)
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

pub(super) const PATHS: &str = "paths";
pub(super) const CLOCK: &str = "clock";
/// Whether the seeds that were asked first agree.
pub(super) const FIRST_CONTACT: &str = "first_contact";
pub(super) const LONE_SOURCE: &str = "lone_source";
/// Contacts that were removed lately.
pub(super) const GONE: &str = "gone";
/// Whether full vanguards are on: one byte, 1 for yes. No row: they are off.
const FULL_VANGUARDS: &str = "full_vanguards";

/// The database could not be opened or used.
#[derive(Debug)]
pub enum DatabaseError {
    /// The key does not open it: the passphrase or key file is wrong, or the file is damaged.
    WrongKey,
    /// It opens, but parts of it are not what was written.
    Damaged {
        /// The operation that failed.
        doing: &'static str,
    },
    /// The system gives no more memory.
    OutOfMemory,
    /// Nothing can be written where it is.
    Unwritable(StoreFault),
    /// It has an older format, and nothing can be written where it is.
    Outdated(StoreFault),
    /// A newer program wrote it.
    SchemaTooNew {
        /// Its schema.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// It has an older format, and a program that may know only that is using it.
    InUse,
    /// Its lock can't be taken, to bring it to today's format.
    Lock(io::Error),
    /// SQLite says no.
    Sqlite {
        /// The operation that failed.
        doing: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
}

impl DatabaseError {
    /// Whether another process kept this one from the database for longer than is waited.
    pub(crate) fn is_busy(&self) -> bool {
        let Self::Sqlite { source, .. } = self else {
            return false;
        };
        matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    }

    /// This, or what keeps the database at `path` from being written: SQLite calls a full disk an
    /// I/O error, or says that it can't open a file.
    pub(super) fn or_write_fault(self, path: &Path) -> Self {
        match self {
            Self::Sqlite { .. } | Self::Lock(_) => {
                files::write_fault(path).map_or(self, Self::Unwritable)
            }
            error => error,
        }
    }

    /// The fault as the core and the user see it.
    pub fn fault(&self) -> StoreFault {
        let source = match self {
            Self::Unwritable(fault) | Self::Outdated(fault) => return *fault,
            Self::Sqlite { source, .. } => source,
            _ => return StoreFault::Failed,
        };
        match source.sqlite_error() {
            // There is no room for the log's index.
            Some(error) if error.extended_code == SQLITE_IOERR_SHMSIZE => StoreFault::DiskFull,
            Some(error) => match error.code {
                ErrorCode::DiskFull => StoreFault::DiskFull,
                ErrorCode::ReadOnly | ErrorCode::PermissionDenied => StoreFault::ReadOnly,
                _ => StoreFault::Failed,
            },
            None => StoreFault::Failed,
        }
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongKey => f.write_str("the key does not open the profile"),
            Self::Damaged { doing } => write!(f, "could not {doing}: the database is damaged"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Unwritable(fault) => fault.fmt(f),
            Self::Outdated(fault) => {
                write!(f, "the profile has an older format, which can't be brought to today's: {fault}")
            }
            Self::SchemaTooNew { found, known } => {
                write!(
                    f,
                    "the profile was written by a newer umbel (schema {found}, this one knows {known})"
                )
            }
            Self::InUse => f.write_str(
                "the profile has an older format, and another umbel is using it, perhaps an older one",
            ),
            Self::Lock(error) => write!(f, "could not lock the profile: {error}"),
            Self::Sqlite { doing, source } => write!(f, "could not {doing}: {source}"),
        }
    }
}

impl std::error::Error for DatabaseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sqlite { source, .. } => Some(source),
            Self::Lock(error) => Some(error),
            Self::WrongKey
            | Self::Damaged { .. }
            | Self::OutOfMemory
            | Self::Unwritable(_)
            | Self::Outdated(_)
            | Self::SchemaTooNew { .. }
            | Self::InUse => None,
        }
    }
}

/// Says what was attempted when SQLite refuses it.
pub(super) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, DatabaseError>;
}

impl<T> Doing<T> for rusqlite::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, DatabaseError> {
        self.map_err(|source| match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                DatabaseError::Damaged { doing }
            }
            Some(ErrorCode::OutOfMemory) => DatabaseError::OutOfMemory,
            _ => DatabaseError::Sqlite { doing, source },
        })
    }
}

/// A message that came and is kept.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "holds a message")]
pub struct StoredMessage {
    /// Its place in the order of arrival in this profile.
    pub seq: i64,
    /// For which inbox; `None`: it is of a contact that belongs to none.
    pub inbox: Option<String>,
    /// Which message.
    pub id: MessageId,
    /// The message's body.
    pub body: PeerText,
    /// When it came.
    pub received_at: WallTime,
    /// Whether it is marked read.
    pub is_read: bool,
    /// The conversation that it is of, if it is of one.
    pub conversation: Option<Conversed>,
}

/// One open profile database.
pub(crate) struct Database {
    pub(super) connection: Connection,
    /// Set if it was opened to be read only, because it cannot be written.
    unwritable: Option<StoreFault>,
    /// Released after the connection is closed.
    lock: Option<Lock>,
}

impl Database {
    /// Makes a database of the empty file at `path`. The caller syncs the file: until it
    /// is whole nobody uses it, so SQLite does not wait for the disk at each step.
    pub(crate) fn create(path: &Path, key: &DatabaseKey) -> Result<(), DatabaseError> {
        Self::make(path, key).map_err(|error| error.or_write_fault(path))
    }

    fn make(path: &Path, key: &DatabaseKey) -> Result<(), DatabaseError> {
        let connection = Self::connect(path, key, "OFF")?;
        let doing = "make the profile's tables";
        connection
            .execute_batch(&format!("BEGIN; {}", migrate::SCHEMA))
            .doing(doing)?;
        connection
            .pragma_update(None, "user_version", migrate::VERSION)
            .doing("note the schema version")?;
        connection.execute_batch("COMMIT").doing(doing)?;
        connection.close().map_err(|(_, error)| error).doing(doing)
    }

    /// Opens the database at `path`, bringing it to today's format.
    pub(crate) fn open(
        path: &Path,
        key: &DatabaseKey,
        context: &StepContext,
    ) -> Result<Self, DatabaseError> {
        Self::open_to_write(path, key, context).map_err(|error| error.or_write_fault(path))
    }

    /// The same, but where nothing can be written it is opened as it is, to be read.
    pub(crate) fn open_to_read(
        path: &Path,
        key: &DatabaseKey,
        context: &StepContext,
    ) -> Result<Self, DatabaseError> {
        match Self::open(path, key, context) {
            Err(DatabaseError::Unwritable(fault)) if files::is_log_empty(path) => {
                Self::open_as_it_is(path, key, fault)
            }
            opened => opened,
        }
    }

    /// Without a log, and without the locks that others heed. A writer would have a log, and there
    /// is none.
    pub(super) fn open_as_it_is(
        path: &Path,
        key: &DatabaseKey,
        fault: StoreFault,
    ) -> Result<Self, DatabaseError> {
        let doing = "open the profile's database";
        let connection =
            Connection::open_with_flags(files::immutable_uri(path), READ_FLAGS).doing(doing)?;
        Self::unlock(&connection, key)?;
        if version(&connection)? != migrate::VERSION {
            return Err(DatabaseError::Outdated(fault));
        }
        Ok(Self {
            connection,
            unwritable: Some(fault),
            lock: None,
        })
    }

    fn open_to_write(
        path: &Path,
        key: &DatabaseKey,
        context: &StepContext,
    ) -> Result<Self, DatabaseError> {
        let mut database = Self::of(Self::connect(path, key, "FULL")?);
        database.migrate(path, context)?;
        Ok(database)
    }

    pub(super) fn of(connection: Connection) -> Self {
        Self {
            connection,
            unwritable: None,
            lock: None,
        }
    }

    pub(super) fn connect(
        path: &Path,
        key: &DatabaseKey,
        synchronous: &str,
    ) -> Result<Connection, DatabaseError> {
        let connection = Self::begin(path)?;
        Self::unlock(&connection, key)?;
        Self::set_up(&connection, synchronous)?;
        Ok(connection)
    }

    pub(super) fn begin(path: &Path) -> Result<Connection, DatabaseError> {
        let connection =
            Connection::open_with_flags(path, FLAGS).doing("open the profile's database")?;
        connection
            .busy_timeout(BUSY_MAX)
            .doing("set up the profile's database")?;
        Ok(connection)
    }

    pub(super) fn set_up(connection: &Connection, synchronous: &str) -> Result<(), DatabaseError> {
        connection
            .execute_batch(&format!(
                "PRAGMA synchronous = {synchronous}; PRAGMA journal_mode = WAL; PRAGMA secure_delete = ON;
                 PRAGMA temp_store = MEMORY;"
            ))
            .doing("set up the profile's database")
    }

    /// Whether it can be written, as far as was seen when it was opened.
    pub(super) fn check_writable(&self) -> Result<(), DatabaseError> {
        self.unwritable
            .map_or(Ok(()), |fault| Err(DatabaseError::Unwritable(fault)))
    }

    /// Keeps the profile's lock until this is dropped, after the last commit.
    pub(crate) fn keep(&mut self, lock: Lock) {
        self.lock = Some(lock);
    }

    pub(super) fn unlock(connection: &Connection, key: &DatabaseKey) -> Result<(), DatabaseError> {
        // The log would name a wrong key on standard error, which is ours to say.
        connection
            .execute_batch("PRAGMA cipher_log_level = NONE; PRAGMA cipher_memory_security = ON;")
            .doing("set up the profile's encryption")?;
        connection
            .execute_batch(&key.pragma())
            .doing("give the profile's key")?;
        let first_read = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| {
            row.get::<_, i64>(0)
        });
        match first_read {
            Ok(_) => Ok(()),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
                Err(DatabaseError::WrongKey)
            }
            Err(error) => Err(error).doing("read the profile's database"),
        }
    }

    /// Only while nobody else uses the profile: an older program writes states of its own format.
    fn migrate(&mut self, path: &Path, context: &StepContext) -> Result<(), DatabaseError> {
        if version(&self.connection)? == migrate::VERSION {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .doing("lock the profile's database")?;
        // Another process may have been first.
        let found = version(&transaction)?;
        let Some(steps) = steps_from(migrate::STEPS, found) else {
            return Err(DatabaseError::SchemaTooNew {
                found,
                known: migrate::VERSION,
            });
        };
        if steps.is_empty() {
            return Ok(());
        }
        let lock_file = LockFile::of(path.parent().unwrap_or(Path::new("")));
        let alone = lock_file.if_alone(|| {
            take_steps(transaction, steps, migrate::VERSION, |db, step| {
                step.take(db, context)
            })
            .doing("bring the profile to today's format")
        });
        alone
            .map_err(DatabaseError::Lock)?
            .unwrap_or(Err(DatabaseError::InUse))
    }

    /// The user goes on although seeds disagree; whether they did.
    pub(crate) fn accept_view(&self) -> Result<bool, DatabaseError> {
        self.check_writable()?;
        let accepted = self.connection.execute(
            "UPDATE meta SET value = ?2 WHERE name = ?1 AND value = ?3",
            params![
                FIRST_CONTACT,
                [FIRST_CONTACT_ACCEPTED],
                [FIRST_CONTACT_DISPUTED]
            ],
        );
        accepted
            .map(|count| count > 0)
            .doing("note that the list of relays is accepted")
    }

    /// The user chose whether clients have full vanguards, from their next start on.
    pub(crate) fn set_full_vanguards(&self, is_on: bool) -> Result<(), DatabaseError> {
        self.check_writable()?;
        put_meta(&self.connection, FULL_VANGUARDS, &[u8::from(is_on)])
            .map(drop)
            .doing("note whether full vanguards are on")
    }

    /// All that the core needs to continue, with the ids of messages received since
    /// `received_since`.
    pub(crate) fn snapshot(&self, received_since: WallTime) -> Result<Snapshot, DatabaseError> {
        let doing = "read the profile";
        let meta = |name| -> Result<Option<Vec<u8>>, DatabaseError> {
            let found = self.connection.query_row(
                "SELECT value FROM meta WHERE name = ?1",
                [name],
                |row| row.get(0),
            );
            found.optional().doing(doing)
        };
        Ok(Snapshot {
            paths: meta(PATHS)?,
            clock: meta(CLOCK)?,
            first_contact: meta(FIRST_CONTACT)?,
            lone_source: meta(LONE_SOURCE)?,
            has_full_vanguards: meta(FULL_VANGUARDS)?.is_some_and(|value| value == [1]),
            relays: self
                .rows(
                    "SELECT descriptor, first_seen, setup_at, there_since FROM relays",
                    [],
                    |row| {
                        let age = Age {
                            first_seen: wall_time(row.get(1)?),
                            belief: Belief::from_number(wall_time(row.get(2)?).as_secs()),
                            there_since: wall_time(row.get(3)?),
                        };
                        Ok(BookRow {
                            descriptor: row.get(0)?,
                            age,
                        })
                    },
                )
                .doing(doing)?,
            relay_words: self
                .rows("SELECT relay, words FROM relay_words", [], |row| {
                    Ok((RelayId(row.get(0)?), row.get(1)?))
                })
                .doing(doing)?,
            inboxes: self
                .rows(
                    "SELECT name, state FROM inboxes ORDER BY rowid",
                    [],
                    |row| Ok((row.get(0)?, Zeroizing::new(row.get(1)?))),
                )
                .doing(doing)?,
            outbox: self
                .rows("SELECT id, state FROM outbox ORDER BY rowid", [], |row| {
                    Ok((MessageId(row.get(0)?), Zeroizing::new(row.get(1)?)))
                })
                .doing(doing)?,
            left: self.left()?,
            contacts: self.contact_states().doing(doing)?,
            received_from: self.received_from(received_since).doing(doing)?,
            gone: meta(GONE)?,
            received: self
                .rows(
                    "SELECT inbox, id FROM messages WHERE received_at >= ?1 AND contact IS NULL
                     UNION SELECT inbox, id FROM deleted WHERE deleted_at >= ?1 AND contact IS NULL",
                    [seconds(received_since)],
                    |row| Ok((row.get(0)?, MessageId(row.get(1)?))),
                )
                .doing(doing)?,
        })
    }

    /// Does these ops and makes them durable: all in one commit, or, if that fails, each in its
    /// own, so that one that can't be stored takes no other with it.
    pub(crate) fn apply(&mut self, ops: &[StoreOp]) -> Vec<Result<(), DatabaseError>> {
        match self.commit(ops) {
            Ok(()) => ops.iter().map(|_| Ok(())).collect(),
            Err(error) if ops.len() <= 1 => vec![Err(error)],
            Err(_) => ops
                .iter()
                .map(|op| self.commit(std::slice::from_ref(op)))
                .collect(),
        }
    }

    fn commit(&mut self, ops: &[StoreOp]) -> Result<(), DatabaseError> {
        let doing = "write the profile";
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .doing(doing)?;
        for op in ops {
            execute(&transaction, op).doing(doing)?;
        }
        transaction.commit().doing(doing)
    }

    /// Messages not yet marked read, oldest first, that came after place `after`; of one inbox, or
    /// of all. At most [`PAGE_MAX`].
    pub(crate) fn unread(
        &self,
        inbox: Option<&str>,
        after: i64,
    ) -> Result<Vec<StoredMessage>, DatabaseError> {
        self.page(
            "is_read = 0 AND is_own = 0 AND seq > ?1 AND (?2 IS NULL OR inbox = ?2)",
            inbox,
            after,
        )
    }

    /// All messages kept, oldest first, that came after place `after`; of one inbox, or of all. At
    /// most [`PAGE_MAX`].
    pub(crate) fn messages(
        &self,
        inbox: Option<&str>,
        after: i64,
    ) -> Result<Vec<StoredMessage>, DatabaseError> {
        self.page(
            "is_own = 0 AND seq > ?1 AND (?2 IS NULL OR inbox = ?2)",
            inbox,
            after,
        )
    }

    /// The first messages, by place, for which this is true: of a place, a text, and how many.
    pub(super) fn page(
        &self,
        condition: &str,
        text: Option<&str>,
        after: i64,
    ) -> Result<Vec<StoredMessage>, DatabaseError> {
        self.select(
            &format!("WHERE {condition} ORDER BY seq LIMIT ?3"),
            params![after, text, PAGE_MAX],
        )
    }

    /// The messages that such a clause finds.
    pub(super) fn select(
        &self,
        clause: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<StoredMessage>, DatabaseError> {
        let sql = format!("SELECT {MESSAGE_COLUMNS} FROM messages {clause}");
        self.rows(&sql, values, to_message)
            .doing("read the messages")
    }

    /// Marks the message at this place read.
    pub(crate) fn mark_read(&self, seq: i64) -> Result<(), DatabaseError> {
        self.check_writable()?;
        self.connection
            .execute("UPDATE messages SET is_read = 1 WHERE seq = ?1", [seq])
            .map(|_| ())
            .doing("mark a message read")
    }

    /// How many unread messages each inbox has; inboxes without any are left out. "": those of contacts
    /// that belong to no inbox.
    pub(crate) fn unread_counts(&self) -> Result<Vec<(String, u64)>, DatabaseError> {
        self.rows(
            "SELECT inbox, count(*) FROM messages WHERE is_read = 0 AND is_own = 0 GROUP BY inbox",
            [],
            |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())),
        )
        .doing("count the messages")
    }

    pub(super) fn rows<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.connection
            .prepare(sql)?
            .query_map(values, read)?
            .collect()
    }
}

fn version(connection: &Connection) -> Result<u32, DatabaseError> {
    connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .doing("read the profile's schema version")
}

/// What [`to_message`] reads.
pub(super) const MESSAGE_COLUMNS: &str =
    "seq, inbox, id, body, received_at, is_read, contact, number, session, written_at, is_own,
    acknowledged_at, fate";

pub(super) fn to_message(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredMessage> {
    let received_at = wall_time(row.get(4)?);
    let inbox: String = row.get(1)?;
    let contact = row.get::<_, Option<[u8; 16]>>(6)?.map(ContactKey);
    let conversation = match contact {
        Some(contact) => Some(Conversed {
            contact,
            number: row.get::<_, Option<i64>>(7)?.map(i64::unsigned_abs),
            session: row.get(8)?,
            written_at: row.get(9).map(optional_time)?.unwrap_or(received_at),
            is_own: row.get(10)?,
            acknowledged_at: row.get(11).map(optional_time)?,
            fate: row.get::<_, Option<i64>>(12)?.and_then(Fate::of_number),
        }),
        None => None,
    };
    Ok(StoredMessage {
        seq: row.get(0)?,
        inbox: Some(inbox).filter(|name| !name.is_empty()),
        id: MessageId(row.get(2)?),
        body: PeerText::new(row.get(3)?),
        received_at,
        is_read: row.get(5)?,
        conversation,
    })
}

fn optional_time(seconds: Option<i64>) -> Option<WallTime> {
    seconds.map(wall_time)
}

pub(super) fn wall_time(seconds: i64) -> WallTime {
    WallTime(seconds.max(0).unsigned_abs())
}

pub(super) fn seconds(time: WallTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
impl Database {
    /// From now on inboxes can't be stored.
    pub(super) fn forbid_inboxes(&self) {
        self.connection.execute_batch("DROP TABLE inboxes").unwrap();
    }

    /// From now on the disk is as good as full.
    pub(crate) fn limit_to_present_size(&self) {
        self.connection
            .query_row("PRAGMA max_page_count = 1", [], |_| Ok(()))
            .unwrap();
    }

    pub(super) fn set_schema_version(&self, version: u32) {
        self.connection
            .pragma_update(None, "user_version", version)
            .unwrap();
    }
}
