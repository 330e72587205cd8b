//! The operator's control socket: a unix socket in the data directory, on which a running relay
//! answers its operator in lines of JSON (docs/operating.md, *Ask a running relay*).
//!
//! A request is an object with the version `v`, the question `ask` and what that needs. Its answer
//! is one object: with `error` and `hint`, or as `answer.rs` has it. A version only ever adds keys.
//! An answer tells of relays, and sums as coarse as the log's: not of what one user did.

mod answer;
mod ask;
mod serve;
mod socket;
mod words;

use serde::{Deserialize, Serialize};

pub use answer::{Health, Reached};
pub use ask::{AskError, ask};
pub(crate) use serve::{Source, open};
pub(crate) use socket::SocketFile;

/// The version of requests and answers.
const VERSION: u32 = 1;
/// The longest request, and the longest line that is read.
const REQUEST_LEN_MAX: usize = 1024;
/// The longest answer that is read: many times what a relay writes.
const ANSWER_LEN_MAX: usize = 1 << 20;

/// A question to a running relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
pub enum Question {
    /// How it does.
    Status,
    /// How another relay stands with it.
    Why {
        /// Which: its id.
        relay: String,
    },
}

/// A request as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    v: u32,
    #[serde(flatten)]
    question: Question,
}

impl Request {
    const fn new(question: Question) -> Self {
        Self {
            v: VERSION,
            question,
        }
    }
}

/// An answer that is none.
#[derive(Debug, Serialize, Deserialize)]
struct Refused {
    #[serde(default)]
    v: u32,
    error: String,
    #[serde(default)]
    hint: String,
}
