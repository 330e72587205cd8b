//! How a profile gets another key: from a passphrase to another, or to a key file and back.
//!
//! In this order, while no other process uses the profile: profile.toml names both keys; the key
//! file is written, if there is to be one; the database takes the new key, in one commit;
//! profile.toml names the new key alone. A process that is killed in between leaves a profile that
//! one of the two keys opens. The next opening finds out by trying which, and settles profile.toml.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rand::CryptoRng;

use super::super::database::{Database, DatabaseError};
use super::super::files;
use super::super::key::{DatabaseKey, NewKey};
use super::super::lock::LockFile;
use super::super::unfinished;
use super::init::{ChosenKey, InitError, choose_key, write_new_key};
use super::{
    DATABASE_FILE, KeySource, KnownKey, Profile, ProfileError, RawConfig, RawKey, parse_raw,
    read_config,
};
use crate::core::io::StoreFault;

/// The key of a profile could not be changed; the old one opens it still.
#[derive(Debug)]
pub enum KeyChangeError {
    /// The profile can't be opened, or its files can't be written.
    Profile(ProfileError),
    /// The new key can't be made.
    Key(InitError),
    /// Another process uses the profile.
    InUse {
        /// Its process id, if it noted that.
        pid: Option<u32>,
    },
}

/// A profile that was opened with its key, and is to have another.
#[expect(missing_debug_implementations, reason = "holds a key")]
pub struct KeyChange {
    dir: PathBuf,
    key: DatabaseKey,
    raw: RawKey,
    file: Option<PathBuf>,
}

/// What is done of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Step {
    /// profile.toml names both keys.
    Noted,
    /// There is a key file, if there is to be one.
    KeyWritten,
    /// The log holds each page under the new key.
    Rekeyed,
    /// The database does, and the log is empty.
    LogEmptied,
    /// It was seen that the new key opens the database.
    Seen,
}

impl Profile {
    /// Opens the profile, to give it another key.
    ///
    /// # Errors
    /// See [`KeyChangeError`].
    pub fn begin_key_change(self) -> Result<KeyChange, KeyChangeError> {
        let (database, key, _) = self
            .unlock(Database::open)
            .map_err(KeyChangeError::Profile)?;
        drop(database);
        // What was interrupted is settled now.
        let raw = read_raw(&self.dir).map_err(KeyChangeError::Profile)?.key;
        let file = match &raw {
            RawKey::File { path } => Some(self.dir.join(path)),
            RawKey::Passphrase { .. } => None,
        };
        let change = KeyChange {
            dir: self.dir,
            key,
            raw,
            file,
        };
        change.alone(|| Ok(()))?;
        Ok(change)
    }

    /// This profile, if the change of its key was interrupted: where the key in a file opens it,
    /// that is its key from now on, and nobody is asked for a passphrase.
    pub(super) fn settled(mut self) -> Self {
        if self.keys.len() < 2 {
            return self;
        }
        let database = self.dir.join(DATABASE_FILE);
        let opens = |known: &KnownKey| match &known.source {
            KeySource::File(path) => DatabaseKey::read_file(path)
                .is_ok_and(|key| Database::is_opened_by(&database, &key)),
            KeySource::Passphrase { .. } => false,
        };
        if let Some(index) = self.keys.iter().position(opens) {
            self.settle(&self.keys[index]);
            self.keys = vec![self.keys.swap_remove(index)];
        }
        self
    }

    /// This key has opened the database: if a change was interrupted, profile.toml names it alone
    /// from now on. What can't be done now is done at the next opening.
    pub(super) fn settle(&self, known: &KnownKey) {
        if self.keys.len() < 2 {
            return;
        }
        // A process that has the lock is changing the key, or settles it.
        let lock = File::open(&self.dir).and_then(|dir| Ok(dir.try_lock().map(|()| dir)?));
        let Ok((_lock, mut config)) = lock.map(|lock| (lock, read_raw(&self.dir))) else {
            return;
        };
        if let Ok(config) = &mut config
            && let Some(new) = config.new_key.take()
            && [&config.key, &new].contains(&&known.raw)
        {
            config.key = known.raw.clone();
            let _ = config.replace_in(&self.dir);
        }
    }
}

impl KeyChange {
    /// The file with the key that opens the profile until now, unless a passphrase does.
    pub fn old_key_file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Gives the profile this key. Overwrites no key file, and removes none.
    ///
    /// # Errors
    /// See [`KeyChangeError`].
    pub fn finish(self, new: NewKey, rng: &mut dyn CryptoRng) -> Result<(), KeyChangeError> {
        self.finish_by_steps(new, rng, |_| ())
    }

    /// The same; `reached` is told of each step.
    pub(in super::super) fn finish_by_steps(
        self,
        new: NewKey,
        rng: &mut dyn CryptoRng,
        reached: impl Fn(Step),
    ) -> Result<(), KeyChangeError> {
        let new = choose_key(&self.dir, new, rng).map_err(KeyChangeError::Key)?;
        self.alone(|| self.switch(&new, reached))
    }

    fn switch(&self, new: &ChosenKey, reached: impl Fn(Step)) -> Result<(), KeyChangeError> {
        let _lock = unfinished::lock(&self.dir).map_err(|source| {
            KeyChangeError::Profile(ProfileError::Io {
                doing: "lock",
                path: self.dir.clone(),
                source,
            })
        })?;
        let mut config = read_raw(&self.dir).map_err(KeyChangeError::Profile)?;
        if config.key != self.raw || config.new_key.is_some() {
            return Err(KeyChangeError::InUse { pid: None });
        }
        let database = self.open_alone()?;
        config.new_key = Some(new.source.clone());
        self.write(&config)?;
        reached(Step::Noted);
        let mut is_key_ours = false;
        let switched = self.rekey(&database, new, &mut is_key_ours, &reached);
        // Others may read it from now on.
        drop(database);
        let path = self.dir.join(DATABASE_FILE);
        if Database::is_opened_by(&path, &new.key) {
            reached(Step::Seen);
            config.key = new.source.clone();
        } else if Database::is_opened_by(&path, &self.key) {
            // The key in this file has encrypted nothing.
            if let Some(file) = new.file.as_ref().filter(|_| is_key_ours) {
                let _ = fs::remove_file(file);
            }
            config.new_key = None;
            let written = self.write(&config);
            return switched.and(written).and(Err(unchanged(&path)));
        } else {
            // Neither can be tried now: the next opening does it.
            return switched.and(Err(unchanged(&path)));
        }
        config.new_key = None;
        self.write(&config)
    }

    fn rekey(
        &self,
        database: &Database,
        new: &ChosenKey,
        is_key_ours: &mut bool,
        reached: &impl Fn(Step),
    ) -> Result<(), KeyChangeError> {
        if let Some(file) = &new.file {
            write_new_key(&new.key, file).map_err(KeyChangeError::Key)?;
            *is_key_ours = true;
        }
        reached(Step::KeyWritten);
        database.rekey(&new.key).map_err(of_database)?;
        reached(Step::Rekeyed);
        // If the commit failed, this does, too; and then the old key opens the database.
        let _ = database.empty_log();
        reached(Step::LogEmptied);
        Ok(())
    }

    fn open_alone(&self) -> Result<Database, KeyChangeError> {
        Database::open_alone(&self.dir.join(DATABASE_FILE), &self.key).map_err(
            |error| match error {
                DatabaseError::InUse => KeyChangeError::InUse { pid: None },
                error => of_database(error),
            },
        )
    }

    fn write(&self, config: &RawConfig) -> Result<(), KeyChangeError> {
        config
            .replace_in(&self.dir)
            .map_err(KeyChangeError::Profile)
    }

    /// Does this while no other process has the profile's network, or is a guest.
    fn alone(
        &self,
        act: impl FnOnce() -> Result<(), KeyChangeError>,
    ) -> Result<(), KeyChangeError> {
        let lock_file = LockFile::of(&self.dir);
        let done = lock_file.if_alone(act).map_err(|source| {
            KeyChangeError::Profile(ProfileError::Database(DatabaseError::Lock(source)))
        })?;
        done.unwrap_or_else(|| {
            // One that was there alone for a moment is this one.
            let pid = lock_file.driver().filter(|&pid| pid != std::process::id());
            Err(KeyChangeError::InUse { pid })
        })
    }
}

/// SQLCipher wrote the pages under the new key, and could not commit them.
fn unchanged(database: &Path) -> KeyChangeError {
    let fault = files::write_fault(database).unwrap_or(StoreFault::Failed);
    of_database(DatabaseError::Unwritable(fault))
}

fn of_database(error: DatabaseError) -> KeyChangeError {
    KeyChangeError::Profile(ProfileError::Database(error))
}

fn read_raw(dir: &Path) -> Result<RawConfig, ProfileError> {
    let (path, text) = read_config(dir)?;
    parse_raw(&text).map_err(|fault| ProfileError::Config { path, fault })
}

impl fmt::Display for KeyChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
            Self::InUse { pid: Some(pid) } => {
                write!(f, "another umbel, process {pid}, uses the profile")
            }
            Self::InUse { pid: None } => f.write_str("another umbel uses the profile"),
        }
    }
}

impl std::error::Error for KeyChangeError {}
