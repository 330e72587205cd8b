//! Another key for a profile's database: each of its pages is written anew, in one commit.
//!
//! Needs the database for itself. A process that is killed before the commit leaves the old key in
//! force, and afterwards the new one: never one for some pages and the other for the rest. The
//! pages go into the log first, and from there into the database.

use std::path::Path;

use umbel_proto::time::Duration;

use super::database::{Database, DatabaseError, Doing};
use super::key::DatabaseKey;

/// How long a command that is about to end is waited for.
const ALONE_AFTER_MAX: Duration = Duration::from_secs(1);

impl Database {
    /// Whether this key opens the database at `path`; no when that can't be seen now.
    pub(super) fn is_opened_by(path: &Path, key: &DatabaseKey) -> bool {
        Self::connect(path, key, "FULL").is_ok()
    }

    /// Opens the database at `path`, whatever its format, and keeps all others from it until this
    /// is dropped. [`DatabaseError::InUse`] if one has it open.
    pub(super) fn open_alone(path: &Path, key: &DatabaseKey) -> Result<Self, DatabaseError> {
        let doing = "open the profile's database alone";
        let connection = Self::begin(path)?;
        connection.busy_timeout(ALONE_AFTER_MAX).doing(doing)?;
        // Before the first read: then the log's index is in memory, and nobody else reads the log.
        connection
            .execute_batch("PRAGMA locking_mode = EXCLUSIVE")
            .doing(doing)?;
        let set_up =
            Self::unlock(&connection, key).and_then(|()| Self::set_up(&connection, "FULL"));
        match set_up {
            Ok(()) => Ok(Self::of(connection)),
            Err(error) if error.is_busy() => Err(DatabaseError::InUse),
            Err(error) => Err(error),
        }
    }

    /// Makes this the key, of a database opened with [`Database::open_alone`]. SQLCipher does not
    /// say whether the commit went well: the caller sees which key opens the database then.
    pub(super) fn rekey(&self, key: &DatabaseKey) -> Result<(), DatabaseError> {
        self.connection
            .execute_batch(&key.rekey_pragma())
            .doing("write the profile under its new key")
    }
}
