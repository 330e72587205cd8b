//! What a command that ended has left: its exit code and what it said.

use std::process::Output;

/// Its exit code; a signal gives none.
pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// What it wrote to standard output.
pub(crate) fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

/// What it wrote to standard error.
pub(crate) fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}
