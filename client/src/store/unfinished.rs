//! A database under the name that it has while its profile is made, so that a killed `umbel init`
//! leaves nothing that a second one could take for a profile.
//!
//! In this order: the database is made under its temporary name; the key file is written;
//! `profile.toml` appears, which makes the directory a profile; the database takes its own name,
//! here or at the first command that opens the profile. A database of the temporary name was
//! therefore never opened, and holds no message. A key file is never removed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use umbel_relay::shell::files::beside;

use super::database::Database;
use super::files;
use super::key::DatabaseKey;
use crate::core::io::StoreFault;

const NAME: &str = ".profile.db.init";

/// The database's temporary name.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Waits for others that make a profile here. The lock goes with the process.
pub(super) fn lock(dir: &Path) -> io::Result<File> {
    let dir = File::open(dir)?;
    dir.lock()?;
    Ok(dir)
}

/// The key in this file, if a killed process made it for the database that it left behind.
pub(super) fn key_of(dir: &Path, file: &Path) -> Option<DatabaseKey> {
    let database = path(dir);
    if !database.is_file() || !file.is_file() {
        return None;
    }
    let key = DatabaseKey::read_file(file).ok()?;
    // Only read: the key was written after the database was closed.
    Database::open_as_it_is(&database, &key, StoreFault::ReadOnly).ok()?;
    Some(key)
}

/// Removes the database that a killed process left behind.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let database = path(dir);
    let others = [beside(&database, "-journal")];
    for file in files::all(&database).iter().chain(&others) {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Gives the database of a profile its own name, unless it has it.
pub(super) fn finish(dir: &Path, database: &Path) -> io::Result<()> {
    if database.symlink_metadata().is_ok() {
        return Ok(());
    }
    match fs::rename(path(dir), database) {
        // Another process did it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}
