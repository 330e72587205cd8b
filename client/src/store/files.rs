//! A look at the database's files before it is opened, since SQLite makes a new database of a file
//! that is gone or empty.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use umbel_relay::shell::files::{beside, folder_of};

use crate::core::io::StoreFault;

/// SQLCipher's page; a database has at least one.
const PAGE_LEN: u64 = 4096;
/// Files that an open database takes, with the lock.
const DESCRIPTORS: usize = 5;
/// Longest path of the database that SQLite takes, with what it appends for its other files.
const PATH_LEN_MAX: usize = 500;
/// Room that a command needs at least: for the log's index and a few pages.
const ROOM_LEN: usize = 64 * 1024;
/// How a database begins that is not encrypted.
const PLAIN: &[u8] = b"SQLite format 3\0";

/// A fault of a database that existed before.
#[derive(Debug)]
pub enum FilesFault {
    /// It is gone.
    Missing(PathBuf),
    /// It has no bytes left.
    Empty(PathBuf),
    /// It is shorter than any database.
    CutShort(PathBuf),
    /// Its beginning was overwritten: with zeros, or by another program.
    Overwritten(PathBuf),
    /// The file beside it with what was written last is gone.
    LogMissing(PathBuf),
    /// Its path is longer than SQLite takes.
    PathTooLong {
        /// How long it is, bytes.
        len: usize,
    },
    /// It can't be looked at.
    Io(PathBuf, io::Error),
}

impl fmt::Display for FilesFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "the profile's database is gone: {}", path.display()),
            Self::Empty(path) => write!(f, "the profile's database is empty: {}", path.display()),
            Self::CutShort(path) => write!(
                f,
                "the profile's database was cut short: {}",
                path.display()
            ),
            Self::Overwritten(path) => {
                write!(
                    f,
                    "the profile's database was overwritten: {}",
                    path.display()
                )
            }
            Self::LogMissing(path) => {
                write!(
                    f,
                    "a part of the profile's database is gone, with what was written last: {}",
                    path.display()
                )
            }
            Self::PathTooLong { len } => {
                write!(
                    f,
                    "the path of the profile's database is too long: {len} bytes, of {PATH_LEN_MAX} at most"
                )
            }
            Self::Io(path, error) => write!(f, "could not read {}: {error}", path.display()),
        }
    }
}

/// Whether SQLite takes this path.
pub(super) fn check_path(database: &Path) -> Result<(), FilesFault> {
    let len = std::path::absolute(database).map_or(0, |path| path.as_os_str().len());
    if len > PATH_LEN_MAX {
        Err(FilesFault::PathTooLong { len })
    } else {
        Ok(())
    }
}

/// Whether the files of a database that was made before may be opened. Opens none of them: a
/// process that closes a file loses SQLite's locks on it. The exception is a database with a
/// journal, which ours, with a log, does not have.
pub(super) fn check(database: &Path) -> Result<(), FilesFault> {
    check_path(database)?;
    let path = || database.to_owned();
    match database.metadata() {
        Ok(found) if found.len() == 0 => return Err(FilesFault::Empty(path())),
        Ok(found) if found.len() < PAGE_LEN => return Err(FilesFault::CutShort(path())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(FilesFault::Missing(path()));
        }
        Err(error) => return Err(FilesFault::Io(path(), error)),
    }
    // SQLite makes its index after the log and removes it before: the index alone is never left
    // behind.
    let log = beside(database, "-wal");
    if !exists(&log) && exists(&beside(database, "-shm")) && !exists(&log) {
        return Err(FilesFault::LogMissing(log));
    }
    // SQLite would change another program's file by its journal before it tries the key.
    if exists(&beside(database, "-journal")) && is_overwritten(database) {
        return Err(FilesFault::Overwritten(path()));
    }
    Ok(())
}

/// Whether a database that no key opens is none at all. Called when this process has it open
/// nowhere.
pub(super) fn is_overwritten(database: &Path) -> bool {
    let mut page = Vec::new();
    let read = File::open(database).and_then(|file| file.take(PAGE_LEN).read_to_end(&mut page));
    read.is_ok() && (page.starts_with(PLAIN) || page.iter().all(|&byte| byte == 0))
}

/// Whether the system gives as many files as a database takes; SQLite only says that it could not
/// open one. `file` is any.
pub(super) fn check_descriptors(file: &Path) -> Result<(), FilesFault> {
    let opened: io::Result<Vec<File>> = (0..DESCRIPTORS).map(|_| File::open(file)).collect();
    opened
        .map(drop)
        .map_err(|error| FilesFault::Io(file.to_owned(), error))
}

/// Why nothing can be written where the database is, if that is so. Called when this process has it
/// open nowhere.
pub(super) fn write_fault(database: &Path) -> Option<StoreFault> {
    let folder = folder_of(database);
    let try_out = || {
        tempfile::tempfile_in(folder)?.write_all(&[1; ROOM_LEN])?;
        File::options().append(true).open(database).map(drop)
    };
    match try_out().map_err(|error: io::Error| error.kind()) {
        Err(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Some(StoreFault::DiskFull)
        }
        Err(io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
            Some(StoreFault::ReadOnly)
        }
        _ => None,
    }
}

/// Whether all that was written is in the database itself.
pub(super) fn is_log_empty(database: &Path) -> bool {
    // SQLite has it beside what a link leads to.
    let Ok(database) = database.canonicalize() else {
        return false;
    };
    match beside(&database, "-wal").metadata() {
        Ok(log) => log.len() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The address by which SQLite reads a database that nobody changes: it needs no other files beside
/// it then.
pub(super) fn immutable_uri(database: &Path) -> String {
    let mut uri = "file:".to_owned();
    for &byte in database.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?immutable=1"
}

/// The database's file, and those that SQLite puts beside it.
pub(super) fn all(database: &Path) -> [PathBuf; 3] {
    [
        database.to_owned(),
        beside(database, "-wal"),
        beside(database, "-shm"),
    ]
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn files_that_are_no_database_are_recognised() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("profile.db");
        let fault = || check(&path).unwrap_err();
        assert!(matches!(fault(), FilesFault::Missing(_)));
        fs::write(&path, b"").unwrap();
        assert!(matches!(fault(), FilesFault::Empty(_)));
        fs::write(&path, [7; 4095]).unwrap();
        assert!(matches!(fault(), FilesFault::CutShort(_)));
        for (bytes, is_overwritten) in [
            (vec![7; 4096], false),
            (vec![0; 8192], true),
            ([PLAIN, &[7; 4096]].concat(), true),
        ] {
            fs::write(&path, bytes).unwrap();
            assert!(check(&path).is_ok());
            assert_eq!(super::is_overwritten(&path), is_overwritten);
        }
        fs::write(beside(&path, "-journal"), b"theirs").unwrap();
        assert!(matches!(fault(), FilesFault::Overwritten(_)));
        fs::remove_file(beside(&path, "-journal")).unwrap();
        fs::write(beside(&path, "-shm"), b"").unwrap();
        assert!(matches!(fault(), FilesFault::LogMissing(_)));
        fs::write(beside(&path, "-wal"), b"").unwrap();
        assert!(check(&path).is_ok());
    }

    #[test]
    fn a_path_that_sqlite_does_not_take_is_refused() {
        let long = PathBuf::from("/")
            .join("d".repeat(250))
            .join("d".repeat(250))
            .join("profile.db");
        assert!(matches!(
            check(&long),
            Err(FilesFault::PathTooLong { len: 513 })
        ));
    }
}
