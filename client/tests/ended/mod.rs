//! A test's own `umbel` command, and what it has left once it ended: its exit code and what it
//! said.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The command with these words, for the profile `profile` below the directory `home`.
pub(crate) fn umbel(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbel"));
    command
        .args(words)
        .env("UMBEL_PROFILE", home.join("profile"))
        .env("HOME", home)
        .env_remove("UMBEL_PASSPHRASE_FILE")
        .stdin(Stdio::null());
    command
}

/// Its exit code; a signal gives none.
pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Its standard output.
pub(crate) fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

/// Its standard error.
pub(crate) fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}
