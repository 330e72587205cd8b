//! Files for their owner's eyes only, which are written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Files made with these options are readable and writable by their owner only.
pub fn owner_only(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

/// Writes a file durably: after a crash it has its old contents or its new ones. Replaces an
/// existing file only if `may_replace`; replaces a link of this name instead of following it.
///
/// # Errors
/// The disk fails, or there is a file already.
pub fn write_whole(path: &Path, bytes: &[u8], may_replace: bool) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let open = |path: &Path| {
        let mut options = File::options();
        owner_only(options.write(true).create_new(true));
        options.open(path)
    };
    // Of a name that nobody guesses, and in the same folder, so that it takes its own in one step.
    let mut file = tempfile::Builder::new()
        .prefix(".umbel-")
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
