//! `umbel list`, `show` and `delete`: the messages that are kept, without a network.
//!
//! A message is marked read once all of it was written, and not before.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::ArgGroup;
use data_encoding::BASE64;
use serde::Serialize;
use umbel_client::display::{self, PeerText};
use umbel_client::{ContactEntry, Library, ListenError, Old, StoredMessage};
use umbel_proto::time::Duration;
use umbel_relay::shell::Clock;

use super::failure::Failure;
use super::people::From;
use super::session::Session;
use super::{files, output, people, times};

/// Characters of an id in tables: enough to tell a few thousand messages apart.
const SHORT_ID_LEN: usize = 8;
/// Characters of a message's first line that are shown.
const FIRST_LINE_LEN: usize = 60;

/// Help about the form in which a message is printed.
const SHOWN: &str = "\
On a terminal, each line of the message is indented, and characters that would act on the terminal or \
hide something are written as \\u{200b}. Elsewhere, and with --output, the message is written byte for \
byte; --json has it exactly in body_b64 and, if it is text, in text.";

#[derive(clap::Args)]
pub(super) struct ListArgs {
    /// The inbox's name [default: all inboxes]
    inbox: Option<String>,
    /// Include messages that were read
    #[arg(long)]
    all: bool,
    /// Only messages that contain this text (case-insensitive)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    search: Option<String>,
}

#[derive(clap::Args)]
#[command(after_help = SHOWN)]
pub(super) struct ShowArgs {
    /// The message's id, or a prefix of it
    id: String,
    /// Save it as this file; `-` is standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if there is one, follow a link, or write into a pipe or a device
    #[arg(long, requires = "output")]
    force: bool,
}

#[derive(clap::Args)]
#[command(
    group = ArgGroup::new("which").args(["ids", "older"]).required(true),
    override_usage = "umbel delete [OPTIONS] (<IDS>... | --older <TIME>)"
)]
pub(super) struct DeleteArgs {
    /// The messages' ids, or prefixes of them
    ids: Vec<String>,
    /// Delete read messages older than this, such as 30d
    #[arg(long, value_name = "TIME", value_parser = times::parse_span)]
    older: Option<Duration>,
    /// Only messages of this inbox
    #[arg(long, value_name = "NAME", requires = "older")]
    inbox: Option<String>,
    /// Include unread messages
    #[arg(long, requires = "older")]
    unread: bool,
    /// Skip confirmation; implied by --json or when stdin is not a terminal
    #[arg(long, short)]
    yes: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    inbox: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<From>,
    id: String,
    len: usize,
    received_at: String,
    is_read: bool,
    is_text: bool,
    /// None where it is not text.
    first_line: Option<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    inbox: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<From>,
    id: String,
    len: usize,
    received_at: String,
    body_b64: String,
    /// None where it is not text.
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

#[derive(Serialize)]
struct Gone {
    deleted: usize,
    is_overwritten: bool,
}

/// As much of an id as people need.
pub(super) fn short_id(id: &str) -> &str {
    id.get(..SHORT_ID_LEN).unwrap_or(id)
}

/// The text, every line indented, so that none can pass for one of ours.
pub(super) fn indented(text: &PeerText) -> String {
    text.shown()
        .trim_end_matches('\n')
        .split('\n')
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

pub(super) fn list(session: &Session, args: &ListArgs) -> Result<(), Failure> {
    let library = session.library()?;
    let inbox = args.inbox.as_deref();
    check_inbox(&library, inbox)?;
    let wanted = args.search.as_ref().map(|text| text.to_lowercase());
    let (mut shown, mut kept, mut unread) = (0u64, 0u64, 0u64);
    each_message(&library, inbox, |message| {
        kept += 1;
        unread += u64::from(!message.is_read);
        let text = message.body.exact().map(str::to_lowercase);
        let is_found = wanted
            .as_ref()
            .is_none_or(|wanted| text.is_some_and(|text| text.contains(wanted.as_str())));
        if !is_found || message.is_read && !args.all {
            return Ok(());
        }
        shown += 1;
        print_listed(session, &library, message)
    })?;
    if session.is_json() {
        return Ok(());
    }
    let kept = output::count(kept, "message");
    session.line(&match (shown, args.all) {
        (0, true) if wanted.is_some() => format!("Nothing found; {kept} kept, {unread} unread"),
        (0, false) if wanted.is_some() => {
            format!("Nothing found; {kept} kept, {unread} unread (--all searches all)")
        }
        (0, false) => format!("Nothing unread; {kept} kept (`umbel list --all` shows them)"),
        _ => format!("{shown} shown; {kept} kept, {unread} unread (`umbel show ID` shows one)"),
    })
}

fn check_inbox(library: &Library, inbox: Option<&str>) -> Result<(), Failure> {
    match inbox {
        Some(name) if library.inbox_address(name).is_none() => Err(ListenError::NoInbox.into()),
        _ => Ok(()),
    }
}

fn each_message(
    library: &Library,
    inbox: Option<&str>,
    mut visit: impl FnMut(&StoredMessage) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let page = library.messages(inbox, after)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.seq;
        page.iter().try_for_each(&mut visit)?;
    }
}

/// Who wrote a message of a conversation.
fn writer(library: &Library, message: &StoredMessage) -> Result<Option<ContactEntry>, Failure> {
    match &message.conversation {
        Some(place) => Ok(library.contact_of(place.contact)?),
        None => Ok(None),
    }
}

/// Where a message came in, and from whom, as far as that is known.
pub(super) fn origin(message: &StoredMessage, writer: Option<&ContactEntry>) -> String {
    let inbox = message.inbox.as_deref().map(display::name);
    let writer = writer.map(|writer| format!("from {}", people::called(writer)));
    let parts: Vec<String> = inbox.into_iter().chain(writer).collect();
    parts.join("  ")
}

fn print_listed(
    session: &Session,
    library: &Library,
    message: &StoredMessage,
) -> Result<(), Failure> {
    let writer = writer(library, message)?;
    let StoredMessage {
        inbox,
        body,
        is_read,
        ..
    } = message;
    let (id, received_at, len) = (
        message.id.to_string(),
        output::rfc3339(message.received_at),
        body.len(),
    );
    let first_line = body.exact().map(first_line);
    if session.is_json() {
        let is_text = first_line.is_some();
        return session.json(&Listed {
            inbox: inbox.as_deref(),
            from: writer.as_ref().map(From::new),
            id,
            len,
            received_at,
            is_read: *is_read,
            is_text,
            first_line,
        });
    }
    let mark = if *is_read { ' ' } else { '*' };
    let says = first_line.unwrap_or_else(|| "(not text)".to_owned());
    let (origin, len) = (origin(message, writer.as_ref()), output::count(len, "byte"));
    session.line(&format!(
        "{mark} {}  {origin}  {received_at}  {len}  {says}",
        short_id(&id)
    ))
}

/// The first line that says something, as far as there is room for it.
fn first_line(text: &str) -> String {
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let mut cut: String = line.chars().take(FIRST_LINE_LEN).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    display::text(&cut.replace('\t', " "))
}

/// The beginning of an id, as typed.
pub(super) fn id_digits(prefix: &str) -> Result<String, Failure> {
    let digits = prefix.trim().to_ascii_lowercase();
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Failure::usage(
            format!("\"{}\" is not the id of a message", display::name(prefix)),
            "an id is made of the digits 0 to 9 and a to f, as `umbel list --all` and `umbel outbox list` show it",
        ));
    }
    Ok(digits)
}

/// The one message whose id begins so.
fn one_named(library: &Library, prefix: &str) -> Result<StoredMessage, Failure> {
    let digits = id_digits(prefix)?;
    let mut found = library.messages_named(&digits)?;
    match (found.pop(), found.len()) {
        (Some(message), 0) => Ok(message),
        (Some(_), others) => Err(Failure::usage(
            format!(
                "the ids of {} and more begin with {digits}",
                output::count(others, "message")
            ),
            "write more of the id: `umbel list --all --json` shows all of it",
        )),
        (None, _) => Err(Failure::failed(
            format!("no message has an id that begins with {digits}"),
            "`umbel list --all` shows the messages that are kept",
        )),
    }
}

pub(super) fn show(session: &Session, args: &ShowArgs) -> Result<(), Failure> {
    let library = session.library()?;
    let message = one_named(&library, &args.id)?;
    match args.output.as_deref() {
        Some(path) if path != Path::new("-") => {
            files::save(path, message.body.bytes(), args.force)?;
            // The message is safe in the file, whether or not this line can be written.
            mark_read(session, &library, &message);
            return say_saved(session, &library, &message, path);
        }
        _ if session.is_json() => session.json(&as_json(&library, &message, None)?)?,
        to_stdout => print(session, &library, &message, to_stdout.is_some())?,
    }
    mark_read(session, &library, &message);
    Ok(())
}

/// The message was shown, which is what was asked for, whether or not that can be noted.
fn mark_read(session: &Session, library: &Library, message: &StoredMessage) {
    if !message.is_read
        && let Err(error) = library.mark_read(message)
    {
        session.warn(&format!("the message stays unread: {error}"));
    }
}

fn as_json<'a>(
    library: &Library,
    message: &'a StoredMessage,
    file: Option<String>,
) -> Result<Shown<'a>, Failure> {
    Ok(Shown {
        inbox: message.inbox.as_deref(),
        from: writer(library, message)?.as_ref().map(From::new),
        id: message.id.to_string(),
        len: message.body.len(),
        received_at: output::rfc3339(message.received_at),
        body_b64: BASE64.encode(message.body.bytes()),
        text: message.body.exact(),
        file,
    })
}

fn say_saved(
    session: &Session,
    library: &Library,
    message: &StoredMessage,
    path: &Path,
) -> Result<(), Failure> {
    let file = path.to_string_lossy();
    if session.is_json() {
        return session.json(&as_json(library, message, Some(file.into_owned()))?);
    }
    let len = output::count(message.body.len(), "byte");
    session.line(&format!("saved {len} as {}", display::text(&file)))
}

/// On a terminal what can be shown there, else the bytes as they came.
fn print(
    session: &Session,
    library: &Library,
    message: &StoredMessage,
    is_raw: bool,
) -> Result<(), Failure> {
    if is_raw || !io::stdout().is_terminal() {
        return session.bytes(message.body.bytes());
    }
    let id = message.id.to_string();
    if !message.body.is_text() {
        return Err(Failure::failed(
            "the message is not text, which a terminal can't show",
            format!("save it: `umbel show {} --output FILE`", short_id(&id)),
        ));
    }
    let writer = writer(library, message)?;
    let origin = origin(message, writer.as_ref());
    let received_at = output::rfc3339(message.received_at);
    let len = output::count(message.body.len(), "byte");
    session.line(&format!(
        "{id}  {origin}  {received_at}  {len}\n{}",
        indented(&message.body)
    ))
}

pub(super) fn delete(session: &Session, args: &DeleteArgs) -> Result<(), Failure> {
    let mut library = session.library()?;
    let places = match args.older {
        Some(age) => old_places(session, &library, args, age)?,
        None => {
            let named = args.ids.iter().map(|id| Ok(one_named(&library, id)?.seq));
            let mut places = named.collect::<Result<Vec<i64>, Failure>>()?;
            places.sort_unstable();
            places.dedup();
            places
        }
    };
    if !places.is_empty() && !args.yes && !is_confirmed(session, places.len())? {
        return Err(Failure::failed(
            "nothing was deleted",
            "answer y, or say --yes",
        ));
    }
    let deleted = library.delete(&places)?;
    if !deleted.is_log_empty {
        session
            .warn("another umbel uses the profile: its log keeps encrypted copies until that ends");
    }
    if session.is_json() {
        return session.json(&Gone {
            deleted: deleted.count,
            is_overwritten: deleted.is_log_empty,
        });
    }
    session.line(&format!(
        "deleted {}",
        output::count(deleted.count, "message")
    ))
}

fn old_places(
    session: &Session,
    library: &Library,
    args: &DeleteArgs,
    age: Duration,
) -> Result<Vec<i64>, Failure> {
    check_inbox(library, args.inbox.as_deref())?;
    let Old { places, doubtful } = library.old(age, Clock::wall(), args.inbox.as_deref())?;
    if doubtful > 0 {
        session.warn(&format!(
            "left out: {} that would be old if this computer's clock is right, which the network \
             has not confirmed yet; `umbel receive` asks it",
            output::count(doubtful, "message")
        ));
    }
    let spared = places
        .iter()
        .filter(|place| !place.is_read && !args.unread)
        .count();
    if spared > 0 {
        session.warn(&format!(
            "left out: {} not read yet (--unread deletes them too)",
            output::count(spared, "message")
        ));
    }
    Ok(places
        .into_iter()
        .filter(|place| place.is_read || args.unread)
        .map(|place| place.seq)
        .collect())
}

/// Asks, where somebody can answer: a script that deletes says what it means.
fn is_confirmed(session: &Session, count: usize) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || session.is_json() {
        return Ok(true);
    }
    let count = output::count(count, "message");
    session.ask(&format!("Delete {count} for good? [y/N] "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_can_not_pass_for_a_line_of_ours() {
        assert_eq!(
            indented(&PeerText::new(b"hello\nmain  2026-01-01".to_vec())),
            "    hello\n    main  2026-01-01"
        );
        assert_eq!(
            indented(&PeerText::new(b"\x1b[A".to_vec())),
            "    \\u{1b}[A"
        );
        let ended = PeerText::new(b"line\n".to_vec());
        assert_eq!(indented(&ended), "    line");
    }

    #[test]
    fn a_message_is_listed_by_its_first_line() {
        assert_eq!(first_line("\n\n  hello\tyou \nmore"), "hello you");
        assert_eq!(first_line(""), "");
        assert_eq!(first_line(&"é".repeat(80)), format!("{}…", "é".repeat(60)));
        assert_eq!(first_line("\u{202e}x"), "\\u{202e}x");
    }
}
