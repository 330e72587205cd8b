//! Writes to standard output and standard error. Text from others never reaches the terminal
//! unescaped.

use std::io;

use serde::Serialize;
use umbel_client::display;
use umbel_proto::ids::RelayId;

use super::failure::{Exit, Failure};
pub(super) use super::times::{count, rfc3339};
use super::writer;

/// Writes a line to standard output, and sees it through.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard output as they are, and sees them through.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    writer::to_stdout(bytes.to_vec()).map_err(|error| unwritten(&error))
}

/// A value as a line of JSON, which a terminal may be given, too.
pub(super) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|line| display::json(&line))
}

/// The outcome of a command that could not write to standard output.
pub(super) fn unwritten(error: &io::Error) -> Failure {
    const HINT: &str = "check where the output goes; what the command did stays done";
    match error.kind() {
        io::ErrorKind::Interrupted => Failure::interrupted(),
        io::ErrorKind::BrokenPipe => {
            Failure::new(Exit::BrokenPipe, "the reader of the output has ended", HINT)
        }
        _ => Failure::new(
            Exit::Unwritten,
            format!("could not write to standard output: {error}"),
            HINT,
        ),
    }
}

/// Says on standard error what is waited for, or wrong; whether anyone reads it makes no difference.
/// Parts of it may be of files that others wrote.
pub(super) fn say(text: &str) {
    to_stderr(&display::text(text));
}

/// Asks on standard error; whether the answer is yes.
pub(super) fn ask(question: &str) -> Result<bool, Failure> {
    let asked = writer::to_stderr(question.as_bytes().to_vec()).and_then(|()| {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer =
        asked.map_err(|error| Failure::failed(format!("could not ask: {error}"), "say --yes"))?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

#[derive(Serialize)]
struct Complaint<'a> {
    error: &'a str,
    hint: &'a str,
    exit: &'static str,
    exit_code: u8,
}

#[derive(Serialize)]
struct Caution<'a> {
    warning: &'a str,
}

/// Says what is wrong and what to do.
pub(super) fn complain(failure: &Failure, is_json: bool) {
    let Failure { error, hint, exit } = failure;
    // As other programs do, whose reader has seen enough.
    if *exit == Exit::BrokenPipe {
        return;
    }
    if is_json {
        let complaint = json(&Complaint {
            error,
            hint,
            exit: exit.name(),
            exit_code: *exit as u8,
        });
        to_stderr(&complaint.unwrap_or_default());
    } else {
        say(&format!("error: {error}\n  hint: {hint}"));
    }
}

/// Says what the user should know.
pub(super) fn warn(text: &str, is_json: bool) {
    if is_json {
        to_stderr(&json(&Caution { warning: text }).unwrap_or_default());
    } else {
        say(&format!("warning: {text}"));
    }
}

/// If standard error is closed, nobody is left to tell.
fn to_stderr(text: &str) {
    drop(writer::to_stderr(format!("{text}\n").into_bytes()));
}

/// Enough of a relay's id to tell it from the others on a screen.
pub(super) fn short_relay(relay: &RelayId) -> String {
    relay.to_string().chars().take(8).collect()
}
