//! Errors of `umbel-relay`, with a hint for the operator and an exit code.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use umbel_relay::config::ConfigError;
use umbel_relay::operator::AskError;
use umbel_relay::shell::{InvitedFault, InvitedKind, printable};
use umbel_relay::{Ended, InitError, StartError};

/// Exit codes, beside 0 for done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something outside failed: the disk, the network, another process.
    Failed = 1,
    /// The command line or a file of the operator's is wrong: trying again changes nothing.
    Usage = 2,
    /// A network file can be used, but something about it is weak.
    Weak = 3,
    /// No relay runs in the data directory.
    NotRunning = 4,
    /// No relay of an invitation could be reached.
    Unreachable = 5,
    /// A relay gave another network file than the invitation names.
    WrongFile = 6,
    /// A relay of the invitation, or this program, is of too early a version.
    Version = 7,
}

/// A command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: String,
    hint: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn failed(error: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self {
            exit: Exit::Failed,
            error: error.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn usage(error: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self {
            exit: Exit::Usage,
            error: error.into(),
            hint: hint.into(),
        }
    }

    /// The system has no threads or memory for a runtime.
    pub(crate) fn not_started(error: &io::Error) -> Self {
        Self::failed(
            format!("can't start: {error}"),
            "free some threads or memory",
        )
    }

    /// One line, whatever a parser said. It may repeat a file that others wrote.
    fn error_line(&self) -> String {
        self.error
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Says it on standard error. Where that is closed, the exit code says the rest.
    pub(crate) fn report(&self) -> ExitCode {
        drop(writeln!(
            io::stderr(),
            "error: {}\n  hint: {}",
            printable(&self.error_line()),
            self.hint
        ));
        ExitCode::from(self.exit as u8)
    }
}

/// Warns on standard error. Where that is closed, the command does its work all the same.
pub(crate) fn warn(text: &str) {
    drop(writeln!(io::stderr(), "warning: {}", printable(text)));
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; hint: {}", self.error_line(), self.hint)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let (text, hint) = (error.to_string(), error.hint());
        if error.is_usage() {
            Self::usage(text, hint)
        } else {
            Self::failed(text, hint)
        }
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Fault => Self::failed(
                "the relay has failed",
                "start it again, and report what its log says",
            ),
            Ended::StoreLost => Self::failed(
                "relay.db was deleted or replaced while the relay ran, so it stopped: it takes no mail that it can't keep",
                "put a copy of the data directory back, or make another relay with `umbel-relay init`, and start it",
            ),
        }
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let exit = match error {
            AskError::NoRelay(_) | AskError::NotRunning(_) => Exit::NotRunning,
            AskError::Silent(_) | AskError::Io { .. } | AskError::Refused { .. } => Exit::Failed,
        };
        Self {
            exit,
            error: error.to_string(),
            hint: error.hint().into(),
        }
    }
}

impl From<InvitedFault> for Failure {
    fn from(fault: InvitedFault) -> Self {
        let exit = match fault.kind() {
            InvitedKind::WrongFile => Exit::WrongFile,
            InvitedKind::Version => Exit::Version,
            InvitedKind::Unreachable => Exit::Unreachable,
        };
        Self {
            exit,
            error: fault.to_string(),
            hint: fault.hint().into(),
        }
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        Self::failed(error.to_string(), error.hint())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let (text, hint) = (error.to_string(), error.hint());
        if error.is_usage() {
            Self::usage(text, hint)
        } else {
            Self::failed(text, hint)
        }
    }
}
