//! The store's file: how it is opened, what tables it has, which versions of it are read.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;

/// In the file's header: "umbl". Distinguishes a relay's store from other SQLite files.
const APPLICATION_ID: i32 = 0x756d_626c;
/// From nothing to version 1, from 1 to 2, and so on. A step, once released, never changes: another
/// is added. A new store takes all of them, so that it is the same as one that was brought along.
const STEPS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3];
/// The version this program writes.
const VERSION: i32 = 3;
const _: () = assert!(STEPS.len() == VERSION as usize, "a step for each version");

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

/// Bodies stand apart from the index of records, so that a start reads the index only.
const VERSION_1: &str = "
    CREATE TABLE queues (
        queue      BLOB NOT NULL PRIMARY KEY,
        owner      BLOB NOT NULL,
        sender     BLOB NOT NULL,
        fetched_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE records (
        seq        INTEGER PRIMARY KEY,
        queue      BLOB NOT NULL,
        record     BLOB NOT NULL,
        len        INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE bodies (
        seq        INTEGER PRIMARY KEY,
        body       BLOB NOT NULL
    ) STRICT;
    CREATE TABLE removed (
        queue      BLOB NOT NULL,
        record     BLOB NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (queue, record)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE relays (
        relay      BLOB NOT NULL PRIMARY KEY,
        descriptor BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE inbox_descriptors (
        blinded    BLOB NOT NULL PRIMARY KEY,
        epoch      INTEGER NOT NULL,
        descriptor BLOB NOT NULL
    ) STRICT;
    CREATE TABLE onion_keys (
        created_at INTEGER NOT NULL,
        secret     BLOB NOT NULL
    ) STRICT;
";

/// Since when relays are known. Those of before are known for long: nobody wrote down since when.
const VERSION_2: &str = "
    ALTER TABLE relays ADD COLUMN first_seen INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE relays ADD COLUMN setup_at INTEGER NOT NULL DEFAULT 0;
";

/// The state of this machine's clock: one row.
const VERSION_3: &str = "
    CREATE TABLE clock (
        id    INTEGER PRIMARY KEY CHECK (id = 0),
        state BLOB NOT NULL
    ) STRICT;
";

/// Opens the file for this process alone, makes it if there is none, and brings it to [`VERSION`].
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    make_private(path).map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .map_err(|source| StoreError::of(path, source))
        .and_then(|db| prepare(db, path))
}

/// Makes the file if it is missing, readable by its owner only. Files that SQLite puts beside it
/// get the same permissions.
fn make_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.sync_all()?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn prepare(mut db: Connection, path: &Path) -> Result<Connection, StoreError> {
    configure(&db).map_err(|source| StoreError::of(path, source))?;
    migrate(&mut db, path)?;
    Ok(db)
}

/// Exclusive before anything is read: the log's index then lives in memory, and a second process
/// fails at once.
fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "secure_delete", "ON")?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "trusted_schema", "OFF")?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", LOG_LEN_MAX)
}

fn migrate(db: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::of(path, source);
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (
        pragma("application_id").map_err(failed)?,
        pragma("user_version").map_err(failed)?,
    );
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    let steps = match (application, version) {
        (0, 0) if tables == 0 => STEPS,
        (APPLICATION_ID, VERSION) => return Ok(()),
        (APPLICATION_ID, found) if found > VERSION => {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                found,
                known: VERSION,
            });
        }
        (APPLICATION_ID, found) => match usize::try_from(found)
            .ok()
            .and_then(|found| STEPS.get(found..))
        {
            Some(steps) if found > 0 => steps,
            _ => {
                return Err(StoreError::Foreign {
                    path: path.to_owned(),
                });
            }
        },
        _ => {
            return Err(StoreError::Foreign {
                path: path.to_owned(),
            });
        }
    };
    let take = |db: &mut Connection| {
        let transaction = db.transaction()?;
        for step in steps {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()
    };
    take(db).map_err(failed)
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
