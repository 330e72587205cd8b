//! Which process has the network of a profile: the one that holds the lock file, with its process
//! id written in it. The others, its guests, share a lock on a file beside it.
//!
//! The system releases a dead process's lock, so that nothing has to be tidied after a crash.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use umbel_relay::shell::files::owner_only;

const LOCK_FILE: &str = "lock";
const GUESTS_FILE: &str = "guests";
/// Longest text that is read from the file: more than any process id has.
const PID_LEN_MAX: u64 = 20;

/// The lock file of a profile, not taken yet.
#[derive(Debug, Clone)]
pub(crate) struct LockFile(PathBuf);

/// Held as long as this process drives the profile.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Held, by any number of processes at once, as long as they are guests of the profile.
#[derive(Debug)]
pub(crate) struct Presence {
    _file: File,
}

impl LockFile {
    /// The lock file of the profile in `dir`.
    pub(super) fn of(dir: &Path) -> Self {
        Self(dir.join(LOCK_FILE))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes the lock; `None` while another has it.
    pub(crate) fn try_take(&self) -> io::Result<Option<Lock>> {
        let mut file = open_private(&self.0)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Only for people who wonder who has it: a full disk must not keep anyone from sending.
        drop(note_pid(&mut file));
        Ok(Some(Lock { _file: file }))
    }

    /// Shows the profile's next driver that this process is a guest. `None` while that is
    /// being looked at.
    pub(crate) fn be_present(&self) -> io::Result<Option<Presence>> {
        let file = open_private(&self.0.with_file_name(GUESTS_FILE))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Presence { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Does this if no guest is alive. None shows itself meanwhile.
    pub(crate) fn if_no_guests(&self, act: impl FnOnce()) -> io::Result<()> {
        let file = open_private(&self.0.with_file_name(GUESTS_FILE))?;
        match file.try_lock() {
            Ok(()) => act(),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(())
    }

    /// Does this if no other process uses the profile. None begins meanwhile. `None` if one does.
    pub(super) fn if_alone<T>(&self, act: impl FnOnce() -> T) -> io::Result<Option<T>> {
        let Some(_lock) = self.try_take()? else {
            return Ok(None);
        };
        let mut done = None;
        self.if_no_guests(|| done = Some(act()))?;
        Ok(done)
    }

    /// The process that noted itself when it took the lock; `None` if none did.
    pub(crate) fn driver(&self) -> Option<u32> {
        let mut text = String::new();
        File::open(&self.0)
            .ok()?
            .take(PID_LEN_MAX)
            .read_to_string(&mut text)
            .ok()?;
        text.trim().parse().ok()
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    // Writes would go to another file.
    if path.is_symlink() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a link"));
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    owner_only(&mut options);
    options.open(path)
}

fn note_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn one_at_a_time_has_the_lock_and_is_named() {
        let dir = TempDir::new().unwrap();
        let file = LockFile::of(dir.path());
        assert_eq!(file.driver(), None);
        let lock = file.try_take().unwrap();
        assert!(lock.is_some() && file.try_take().unwrap().is_none());
        assert_eq!(file.driver(), Some(std::process::id()));
        drop(lock);
        assert!(file.try_take().unwrap().is_some());
    }

    #[test]
    fn guests_are_seen_as_long_as_one_is_there() {
        let dir = TempDir::new().unwrap();
        let file = LockFile::of(dir.path());
        let is_empty = || {
            let mut is_empty = false;
            file.if_no_guests(|| is_empty = true).unwrap();
            is_empty
        };
        assert!(is_empty());
        let (one, two) = (file.be_present().unwrap(), file.be_present().unwrap());
        assert!(one.is_some() && two.is_some());
        drop(one);
        assert!(!is_empty());
        drop(two);
        assert!(is_empty());
        file.if_no_guests(|| assert!(file.be_present().unwrap().is_none()))
            .unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_written_through() {
        let dir = TempDir::new().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(LOCK_FILE)).unwrap();
        assert!(LockFile::of(dir.path()).try_take().is_err());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    }
}
