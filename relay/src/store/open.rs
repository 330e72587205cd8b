//! The store's file: how it is made, taken for one process, recognised and set up.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{StoreError, migrate};
use crate::shell::files::{beside, folder_of};
use crate::shell::formats::{steps_from, take_steps};

/// In the file's header: "umbl". Distinguishes a relay's store from other SQLite files.
const APPLICATION_ID: i32 = 0x756d_626c;
/// Where the file's header has that, big-endian.
const APPLICATION_ID_AT: Range<usize> = 68..72;
/// How a SQLite file begins.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Where a journal has the number of pages that its file had before, big-endian.
const PAGES_BEFORE_AT: Range<usize> = 16..20;
/// How long another process may hold the file before it is called in use.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// Pages in the write-ahead log before they are copied into the file. A commit then waits for
/// the copy too: more pages make that rarer, but as much longer.
const CHECKPOINT_PAGES: i64 = 500;
/// The log is cut to this length once copied, bytes.
const LOG_LEN_MAX: i64 = 64 << 20;
/// Page cache, KiB. Deposits go to the ends of two tables, and what is fetched the kernel has
/// cached too.
const CACHE_KIB: i64 = 4 << 10;

/// Opens the file for this process alone, makes it if there is none, and brings it to
/// [`migrate::VERSION`]. A file that is not a relay's store is not changed at all. A newer one is
/// at most recovered from a crash, as its own version would do.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let at = |source| StoreError::File {
        path: path.to_owned(),
        source,
    };
    let failed = |source| StoreError::of(path, source);
    let header = make(path).map_err(at)?;
    // SQLite puts its files beside what a link leads to.
    let file = path.canonicalize().map_err(at)?;
    if is_foreign(&header, read_journal(&file).map_err(at)?) {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
        });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(failed)?;
    let found = lock_and_mark(&db, beside(&file, "-wal").exists()).map_err(failed)?;
    let steps = steps_for(&found, path)?;
    make_private(&file).map_err(at)?;
    configure(&db).map_err(failed)?;
    db.transaction()
        .and_then(|it| {
            take_steps(it, steps, migrate::VERSION, |db, step| {
                db.execute_batch(step)
            })
        })
        .map_err(failed)?;
    Ok(db)
}

/// Makes the file if it is missing, readable by its owner only, and returns its header as far as it
/// says whose it is.
///
/// Called before SQLite opens the file: to close a second descriptor would give up its locks.
fn make(path: &Path) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(path)?;
    file.sync_all()?;
    let mut header = Vec::new();
    file.take(APPLICATION_ID_AT.end as u64)
        .read_to_end(&mut header)?;
    File::open(folder_of(path))?.sync_all()?;
    Ok(header)
}

/// Whether the header shows that SQLite must not open the file: it would roll back a hot journal,
/// and change another program's file.
///
/// An id of zeros says nothing: a store that an earlier version made has its application id only in
/// the log until the first checkpoint. SQLite reads that without changing anything.
fn is_foreign(header: &[u8], journal: Journal) -> bool {
    let id = header
        .starts_with(MAGIC)
        .then(|| header.get(APPLICATION_ID_AT));
    let id = id.flatten();
    let is_ours = id == Some(&APPLICATION_ID.to_be_bytes());
    let may_be_ours = is_ours || id == Some(&[0; 4]);
    match journal {
        Journal::None => !(may_be_ours || header.is_empty()),
        // Its maker was killed at the first write: it is made again, and nothing is lost.
        Journal::OfNothing => !(may_be_ours || header.iter().all(|&byte| byte == 0)),
        Journal::Hot => !is_ours,
    }
}

/// What SQLite would do to a file by the journal beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Journal {
    /// Nothing: there is none, or it has ended.
    None,
    /// Empty the file, which had no page before.
    OfNothing,
    /// Write pages back.
    Hot,
}

/// Zeros at its beginning end a journal.
fn read_journal(file: &Path) -> io::Result<Journal> {
    let mut header = Vec::new();
    let journal = match File::open(beside(file, "-journal")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Journal::None),
        journal => journal?,
    };
    journal
        .take(PAGES_BEFORE_AT.end as u64)
        .read_to_end(&mut header)?;
    Ok(match header.first() {
        None | Some(0) => Journal::None,
        Some(_) if header.get(PAGES_BEFORE_AT) == Some(&[0; 4]) => Journal::OfNothing,
        Some(_) => Journal::Hot,
    })
}

/// Makes the file and those beside it readable by their owner only: SQLite gives its files the
/// permissions that the store has when they are made, and a copy may have come back with others.
fn make_private(file: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        // By path: to close a second descriptor would give up SQLite's locks.
        match fs::set_permissions(beside(file, suffix), Permissions::from_mode(0o600)) {
            Err(error) if error.kind() == ErrorKind::NotFound && !suffix.is_empty() => {}
            result => result?,
        }
    }
    Ok(())
}

/// A file's header, and how many tables it has.
pub(super) struct Found {
    application: i32,
    version: i32,
    tables: i64,
}

impl Found {
    fn is_nothing(&self) -> bool {
        (self.application, self.version, self.tables) == (0, 0, 0)
    }
}

/// Takes the file for this process, and reads what it is. Writes nothing to a file that is
/// something: if `has_log`, closing the file leaves the log, which may be another program's.
/// Otherwise it removes the empty one that reading makes.
///
/// A new file is marked in its first transaction: whenever its maker is killed, the header alone
/// says whose it is.
///
/// Exclusive before anything is read: the log's index then lives in memory, and a second process
/// fails at once.
pub(super) fn lock_and_mark(db: &Connection, has_log: bool) -> rusqlite::Result<Found> {
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log)?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.execute_batch("BEGIN EXCLUSIVE")?;
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get(0));
    let mut found = Found {
        application: pragma("application_id")?,
        version: pragma("user_version")?,
        tables: db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?,
    };
    if found.is_nothing() {
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
        found.application = APPLICATION_ID;
    }
    db.execute_batch("COMMIT")?;
    Ok(found)
}

/// The steps that bring a file to [`migrate::VERSION`], if it is a relay's store, or nothing yet.
fn steps_for(found: &Found, path: &Path) -> Result<&'static [&'static str], StoreError> {
    let version = u32::try_from(found.version).ok();
    let version = version.filter(|&version| match found.application {
        // Version 0: it was marked, and its maker killed before it had tables.
        APPLICATION_ID => version > 0 || found.tables == 0,
        _ => false,
    });
    let version = version.ok_or_else(|| StoreError::Foreign {
        path: path.to_owned(),
    })?;
    steps_from(migrate::STEPS, version).ok_or_else(|| StoreError::Newer {
        path: path.to_owned(),
        found: version,
        known: migrate::VERSION,
    })
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "secure_delete", "ON")?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "trusted_schema", "OFF")?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", LOG_LEN_MAX)
}

impl StoreError {
    /// Says whose fault it is that SQLite failed on this file.
    pub(super) fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            Some(ErrorCode::NotADatabase) => Self::Foreign { path },
            Some(ErrorCode::DatabaseCorrupt) | None => Self::Damaged { path, source },
            Some(_) => Self::Database { path, source },
        }
    }
}
