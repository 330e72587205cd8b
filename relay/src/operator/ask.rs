//! The other end of the control socket: one question, one answer, from a command.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ANSWER_LEN_MAX, Question, Refused, Request, socket};
use crate::store::keys::IDENTITY_FILE;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// The data directory holds no relay.
    NoRelay(PathBuf),
    /// No relay runs there.
    NotRunning(PathBuf),
    /// One runs there, and says nothing.
    Silent(PathBuf),
    /// It can't be asked.
    Io {
        /// Where.
        data_dir: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It does not answer this.
    Refused {
        /// Why.
        error: String,
        /// What to do.
        hint: String,
    },
}

impl AskError {
    /// The remedy.
    pub fn hint(&self) -> String {
        match self {
            Self::NoRelay(_) => {
                "make a relay there with `umbel-relay init --data-dir DIR`, or correct --data-dir".to_owned()
            }
            Self::NotRunning(data_dir) => format!(
                "start it with `umbel-relay run --data-dir {}`, or correct --data-dir; if it does run, its log says why it has no \
                 control socket",
                data_dir.display()
            ),
            Self::Silent(_) => {
                "look whether it is stopped or the machine overloaded, and ask again; its log may say more".to_owned()
            }
            Self::Io { .. } => {
                "ask as the user that the relay runs as, who alone may; else check the directory".to_owned()
            }
            Self::Refused { hint, .. } => hint.clone(),
        }
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRelay(data_dir) => write!(f, "{} holds no relay", data_dir.display()),
            Self::NotRunning(data_dir) => write!(f, "no relay runs in {}", data_dir.display()),
            Self::Silent(data_dir) => write!(
                f,
                "the relay in {} did not answer within {} seconds",
                data_dir.display(),
                PATIENCE.as_secs()
            ),
            Self::Io { data_dir, error } => {
                write!(f, "can't ask the relay in {}: {error}", data_dir.display())
            }
            Self::Refused { error, .. } => write!(f, "the relay does not answer this: {error}"),
        }
    }
}

impl std::error::Error for AskError {}

/// Asks the relay that runs in this data directory. Its answer, one JSON object, may be of another
/// version of this program: it may have other keys than this one knows.
///
/// # Errors
/// There is no answer.
pub fn ask(data_dir: &Path, question: Question) -> Result<String, AskError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            AskError::Silent(data_dir.to_owned())
        }
        _ => AskError::Io {
            data_dir: data_dir.to_owned(),
            error,
        },
    };
    let stream = socket::connect(data_dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            if data_dir.join(IDENTITY_FILE).exists() {
                AskError::NotRunning(data_dir.to_owned())
            } else {
                AskError::NoRelay(data_dir.to_owned())
            }
        }
        _ => failed(error),
    })?;
    let answer = converse(stream, question).map_err(failed)?;
    match serde_json::from_str::<Refused>(&answer) {
        Ok(Refused { error, hint, .. }) => Err(AskError::Refused { error, hint }),
        Err(_) => Ok(answer),
    }
}

fn converse(mut stream: UnixStream, question: Question) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = serde_json::to_vec(&Request::new(question))?;
    request.push(b'\n');
    stream.write_all(&request)?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream).take(ANSWER_LEN_MAX as u64);
    reader.read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(answer) => Ok(answer.to_owned()),
        None => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it closed the connection: it is about to stop, or others ask too much",
        )),
    }
}
