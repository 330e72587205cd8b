//! Files that messages are saved in: whole or not at all, for their owner's eyes only, and never in
//! another's place.

use std::fs;
use std::io;
use std::path::Path;

use umbel_relay::shell::files::write_whole;

use super::failure::{Failure, system_hint};

/// Makes a directory for messages, and those above it; one that is there stays as it is.
pub(super) fn make_dir(dir: &Path) -> Result<(), Failure> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| unwritable(dir, &error))
}

/// Saves `body` durably at `path`. Replaces an existing file only if `may_replace`, and never
/// follows a link.
pub(super) fn save(path: &Path, body: &[u8], may_replace: bool) -> Result<(), Failure> {
    let there = fs::symlink_metadata(path).ok();
    if there.as_ref().is_some_and(fs::Metadata::is_dir) {
        return Err(Failure::usage(
            format!("{} is a directory", path.display()),
            "name a file in it",
        ));
    }
    if there.is_some() && !may_replace {
        return Err(exists(path));
    }
    write_whole(path, body, may_replace).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => unwritable(path, &error),
    })
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
    fn links_are_not_followed_and_files_are_their_owners_alone() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::TempDir::new().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        symlink(&target, &link).unwrap();
        assert!(save(&link, b"x", false).is_err() && !target.exists());
        fs::write(&target, "mine").unwrap();
        save(&link, b"x", true).unwrap();
        assert_eq!(
            (fs::read(&target).unwrap(), fs::read(&link).unwrap()),
            (b"mine".to_vec(), b"x".to_vec())
        );
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&link), 0o600);
        make_dir(&dir.path().join("b/c")).unwrap();
        assert_eq!(
            (mode(&dir.path().join("b")), mode(&dir.path().join("b/c"))),
            (0o700, 0o700)
        );
    }
}
