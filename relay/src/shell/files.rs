//! Files for their owner's eyes only, which are written whole or not at all; and a watch on those
//! that must not go while a process has them open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files made with these options are readable and writable by their owner only.
pub fn owner_only(options: &mut OpenOptions) {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
}

/// The folder that a file is in.
pub fn folder_of(file: &Path) -> &Path {
    file.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// The path of a file with this at its end: where SQLite has a database's log, for one.
pub fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Marks a file that is being written: it follows the file's name, and random characters follow it.
const MARK: &str = ".umbel-writes-";
/// How many characters are random.
const RANDOM_LEN: usize = 12;

/// How old a file is that a killed writer has left behind. A writer at work takes far less.
const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(60);

/// Writes a file durably: after a crash it has its old contents or its new ones. Replaces an
/// existing file only if `may_replace`; replaces a link of this name instead of following it. What
/// a writer of this file that was killed has left behind, which may be a secret, is removed.
///
/// # Errors
/// The disk fails, or there is a file already.
pub fn write_whole(path: &Path, bytes: &[u8], may_replace: bool) -> io::Result<()> {
    let folder = folder_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!(".{name}{MARK}");
    remove_left_behind(folder, |name| is_temporary_of(name, &prefix));
    let open = |path: &Path| {
        let mut options = File::options();
        owner_only(options.write(true).create_new(true));
        options.open(path)
    };
    // Of a name that nobody guesses, and in the same folder, so that it takes its own in one step.
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        .rand_bytes(RANDOM_LEN)
        .make_in(folder, open)?;
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?;
    if may_replace {
        file.persist(path)?;
    } else {
        file.persist_noclobber(path)?;
    }
    File::open(folder)?.sync_all()
}

/// Removes what killed writers have left in this folder, whatever file it was to become.
pub fn sweep(folder: &Path) {
    remove_left_behind(folder, |name| {
        let end_at = name.len().saturating_sub(RANDOM_LEN);
        let prefix = name.get(..end_at).unwrap_or_default();
        prefix.starts_with('.') && prefix.ends_with(MARK) && is_temporary_of(name, prefix)
    });
}

/// Whether a writer gives files such names: other files beside them are their owner's.
fn is_temporary_of(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|random| {
        random.len() == RANDOM_LEN && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Removes files with such names that no writer is at work on. Failures leave them: the next write
/// tries again.
fn remove_left_behind(folder: &Path, is_temporary: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let is_ours = is_temporary(&entry.file_name().to_string_lossy());
        let modified = entry.metadata().and_then(|about| about.modified());
        let age = modified.ok().and_then(|at| at.elapsed().ok());
        if is_ours && age.is_some_and(|age| age >= LEFT_BEHIND_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// How often a process looks at its watched files.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Files of one directory that a process has open, as it found them. What it writes to a file that
/// was deleted or replaced since is lost.
#[derive(Debug)]
pub struct Watched {
    dir: PathBuf,
    files: Vec<(&'static str, Seen)>,
}

impl Watched {
    /// Takes the files as they are now.
    pub fn begin(dir: &Path, names: &[&'static str]) -> Self {
        let files = names.iter().map(|&name| (name, Seen::at(&dir.join(name))));
        Self {
            dir: dir.to_owned(),
            files: files.collect(),
        }
    }

    /// The first, in their order, that was deleted or replaced since. Only looks at the names, and
    /// opens none.
    pub fn lost(&self) -> Option<&'static str> {
        self.files
            .iter()
            .find(|(name, began)| began.is_lost(Seen::at(&self.dir.join(name))))
            .map(|(name, _)| *name)
    }
}

/// The file found under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// A file, with its device and number.
    File(u64, u64),
    Missing,
    /// It could not be looked at: a disk or a mount that fails is not a file that was deleted.
    Unknown,
}

impl Seen {
    fn at(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(file) => {
                let (device, number) = identity_of(&file);
                Self::File(device, number)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Missing,
            Err(_) => Self::Unknown,
        }
    }

    fn is_lost(self, now: Self) -> bool {
        match (self, now) {
            (_, Self::Missing) => true,
            (Self::File(..), Self::File(..)) => self != now,
            _ => false,
        }
    }
}

/// Device and number of a file.
fn identity_of(file: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The names in a folder.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_written_whole_for_its_owner_and_replaced_only_if_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_whole(&path, b"one", false).unwrap();
        let refused = write_whole(&path, b"two", false).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_whole(&path, b"three", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(names(folder.path()), ["key"]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_a_killed_writer_left_goes_with_the_next_write_of_that_file() {
        let folder = tempfile::tempdir().unwrap();
        let long_ago = std::time::SystemTime::now() - 2 * LEFT_BEHIND_AFTER;
        let old = [
            ".key.umbel-writes-0123456789ab",
            ".other.umbel-writes-0123456789ab",
        ];
        let theirs = [
            ".key.umbel-backup",
            ".key.umbel-writes-all",
            "key.umbel-writes-0123456789ab",
        ];
        for name in old.iter().chain(&theirs) {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        let new = ".key.umbel-writes-ba9876543210";
        File::create(folder.path().join(new)).unwrap();
        write_whole(&folder.path().join("key"), b"one", false).unwrap();
        let mut left = vec![new, old[1], "key"];
        left.extend(theirs);
        left.sort_unstable();
        assert_eq!(names(folder.path()), left);
        sweep(folder.path());
        left.retain(|name| *name != old[1]);
        assert_eq!(names(folder.path()), left);
    }

    #[test]
    fn a_file_that_was_replaced_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (a, new) = (dir.path().join("a"), dir.path().join("new"));
        fs::write(&a, "1").unwrap();
        let watched = Watched::begin(dir.path(), &["a"]);
        assert!(Watched::begin(dir.path(), &["a", "b"]).lost() == Some("b"));
        fs::write(&a, "2").unwrap();
        assert_eq!(watched.lost(), None, "the same file, with other words");
        fs::write(&new, "1").unwrap();
        fs::rename(&new, &a).unwrap();
        assert_eq!(watched.lost(), Some("a"));
        fs::remove_file(&a).unwrap();
        assert_eq!(watched.lost(), Some("a"));
        let began = watched.files[0].1;
        assert!(!began.is_lost(Seen::Unknown));
    }
}
