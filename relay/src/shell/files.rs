//! Files for their owner's eyes only, which are written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files made with these options are readable and writable by their owner only.
pub fn owner_only(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
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
    let prefix = format!(".{name}.umbel-");
    remove_left_behind(folder, |name| name.starts_with(&prefix));
    let open = |path: &Path| {
        let mut options = File::options();
        owner_only(options.write(true).create_new(true));
        options.open(path)
    };
    // Of a name that nobody guesses, and in the same folder, so that it takes its own in one step.
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
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
        name.starts_with('.') && name.contains(".umbel-")
    });
}

/// Removes files with such names that no writer is at work on. Failures leave them: the next write
/// tries again.
fn remove_left_behind(folder: &Path, is_temporary: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let is_ours = is_temporary(&entry.file_name().to_string_lossy());
        let modified = entry.metadata().and_then(|about| about.modified());
        let age = modified.ok().and_then(|at| at.elapsed().ok());
        if is_ours && age.is_some_and(|age| age >= LEFT_BEHIND_AFTER) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn what_a_killed_writer_left_goes_with_the_next_write_of_that_file() {
        let folder = tempfile::tempdir().unwrap();
        let long_ago = std::time::SystemTime::now() - 2 * LEFT_BEHIND_AFTER;
        for name in [".key.umbel-old", ".other.umbel-old"] {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        File::create(folder.path().join(".key.umbel-new")).unwrap();
        write_whole(&folder.path().join("key"), b"one", false).unwrap();
        let left = [".key.umbel-new", ".other.umbel-old", "key"];
        assert_eq!(names(folder.path()), left);
        sweep(folder.path());
        assert_eq!(names(folder.path()), [".key.umbel-new", "key"]);
    }
}
