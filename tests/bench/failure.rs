//! Why the command ended early, what to do about it, and the exit code, in the form that `umbel`
//! has.

use std::fmt;
use std::io;
use std::process::ExitCode;

use serde::Serialize;

use super::BenchError;

/// Exit codes, as those of `umbel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Exit {
    Failed = 1,
    Usage = 2,
    Unwritten = 73,
    Interrupted = 130,
    BrokenPipe = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A run that did not measure everything.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    error: String,
    hint: String,
}

#[derive(Serialize)]
struct Complaint<'a> {
    error: &'a str,
    hint: &'a str,
    exit: Exit,
    exit_code: u8,
}

impl Failure {
    fn new(exit: Exit, error: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self {
            exit,
            error: error.to_string(),
            hint: hint.into(),
        }
    }

    pub(super) fn usage(error: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self::new(Exit::Usage, error, hint)
    }

    /// The system did not give what any run needs.
    pub(super) fn start(error: &io::Error) -> Self {
        Self::new(
            Exit::Failed,
            format_args!("could not start: {error}"),
            "end other programs, or raise the limits of threads and open files (`ulimit -u`, `ulimit -n`)",
        )
    }

    pub(super) fn interrupted() -> Self {
        Self::new(
            Exit::Interrupted,
            "interrupted",
            "what was measured before is above; measure the other groups with --only",
        )
    }

    pub(super) fn output(error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::BrokenPipe,
            _ => Exit::Unwritten,
        };
        Self::new(
            exit,
            format_args!("could not write to standard output: {error}"),
            "see where the output goes",
        )
    }

    /// Reports the failure on standard error; if that is closed, nobody reads it.
    pub(super) fn complain(&self, is_json: bool) {
        let Self { exit, error, hint } = self;
        // Silent, as other programs are when their reader has seen enough.
        if *exit == Exit::BrokenPipe {
            return;
        }
        let text = if is_json {
            serde_json::to_string(&Complaint {
                error,
                hint,
                exit: *exit,
                exit_code: *exit as u8,
            })
            .unwrap_or_default()
        } else {
            format!("error: {error}\n  hint: {hint}")
        };
        drop(io::Write::write_all(
            &mut io::stderr(),
            format!("{text}\n").as_bytes(),
        ));
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        Self::new(
            Exit::Failed,
            error,
            "see that there is room for temporary files, and that loopback ports are free",
        )
    }
}
