//! Files that messages are saved in: whole or not at all, for their owner's eyes only, and never in
//! another's place. A pipe or a device that the user names is written into.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use umbel_relay::shell::files::{folder_of, write_whole};

use super::failure::{Failure, system_hint};

/// Makes a directory for messages, and those above it; one that is there stays as it is.
pub(super) fn make_dir(dir: &Path) -> Result<(), Failure> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| unwritable(dir, &error))
}

/// Links that are followed from one path, as many as Linux follows.
const LINKS_MAX: usize = 40;

/// Saves `body` durably at `path`. Only if `may_replace` is set does it replace an existing file,
/// follow a link, or write into what is no regular file, which stays what it is.
pub(super) fn save(path: &Path, body: &[u8], may_replace: bool) -> Result<(), Failure> {
    let at_end = fs::metadata(path).ok();
    if at_end.as_ref().is_some_and(fs::Metadata::is_dir) {
        return Err(Failure::usage(
            format!("{} is a directory", path.display()),
            "name a file in it",
        ));
    }
    if fs::symlink_metadata(path).is_ok() && !may_replace {
        return Err(exists(path));
    }
    let written = match at_end {
        Some(found) if !found.is_file() => write_into(path, body),
        _ if may_replace => target_of(path).and_then(|file| write_whole(&file, body, true)),
        _ => write_whole(path, body, false),
    };
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => unwritable(path, &error),
    })
}

/// Writes into a pipe or a device, which has no contents that a crash could leave in part.
fn write_into(path: &Path, body: &[u8]) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(body)
}

/// The path that a link leads to, also if no file is there yet; any other path leads to itself.
fn target_of(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                path = folder_of(&path).join(fs::read_link(&path)?);
            }
            _ => return Ok(path),
        }
    }
    Err(io::ErrorKind::InvalidInput.into())
}

fn exists(path: &Path) -> Failure {
    Failure::failed(
        format!("there is a file already: {}", path.display()),
        "choose another path, or replace it with --force",
    )
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let hint = system_hint(error, "check the path after --output");
    Failure::failed(format!("could not write {}: {error}", path.display()), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_saved_whole_and_replaced_only_if_that_is_meant() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("a");
        save(&path, b"one", false).unwrap();
        assert!(
            save(&path, b"two", false)
                .unwrap_err()
                .hint
                .contains("--force")
        );
        assert_eq!(fs::read(&path).unwrap(), b"one");
        save(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(save(dir.path(), b"x", true).is_err());
        assert!(save(&dir.path().join("no/where"), b"x", true).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_written_into_and_stays_a_pipe() {
        use std::os::unix::fs::FileTypeExt;
        let dir = tempfile::TempDir::new().unwrap();
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        std::os::unix::fs::symlink("pipe", &link).unwrap();
        for path in [&pipe, &link] {
            assert!(save(path, b"x", false).is_err());
            // Open for both, so that neither end waits for the other.
            let mut reader = File::options().read(true).write(true).open(&pipe).unwrap();
            save(path, b"x", true).unwrap();
            let kind = fs::symlink_metadata(&pipe).unwrap().file_type();
            assert!(kind.is_fifo() && fs::read_link(&link).is_ok());
            let mut byte = [0];
            io::Read::read_exact(&mut reader, &mut byte).unwrap();
            assert_eq!(byte, *b"x");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_only_by_force_and_files_are_their_owners_alone() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::TempDir::new().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        symlink("target", &link).unwrap();
        assert!(save(&link, b"x", false).is_err() && !target.exists());
        save(&link, b"x", true).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"x");
        fs::write(&target, "mine").unwrap();
        assert!(save(&link, b"y", false).is_err());
        save(&link, b"y", true).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"y");
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("target"));
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&target), 0o600);
        make_dir(&dir.path().join("b/c")).unwrap();
        assert_eq!(
            (mode(&dir.path().join("b")), mode(&dir.path().join("b/c"))),
            (0o700, 0o700)
        );
    }
}
