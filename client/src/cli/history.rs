//! `umbel history`: what two people wrote to each other.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::Serialize;
use umbel_client::core::io::OutboxEntry;
use umbel_client::display;
use umbel_client::{ContactEntry, Conversed, Fate, HistoryFilter, Library, StoredMessage};
use umbel_proto::ids::MessageId;
use umbel_proto::time::{Duration, WallTime};
use umbel_relay::shell::Clock;

use super::failure::Failure;
use super::session::Session;
use super::{mail, output, people, times};

/// How many messages are shown unless the user says otherwise.
const LIMIT: usize = 50;

#[derive(clap::Args)]
pub(super) struct HistoryArgs {
    /// A contact's name or words
    name: String,
    /// Only messages that contain this text (case-insensitive)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    search: Option<String>,
    /// Only messages of this last time, such as 2d
    #[arg(long, value_name = "TIME", value_parser = times::parse_span)]
    since: Option<Duration>,
    /// The last so many messages
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    limit: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    id: String,
    contact: String,
    /// The user of this profile wrote it.
    is_own: bool,
    /// Its writer's number for it; of messages that came.
    seq: Option<u64>,
    written_at: String,
    /// When it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at: Option<String>,
    /// How far an own message is.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_at: Option<String>,
    len: usize,
    body_b64: String,
    /// None where it is not text.
    text: Option<&'a str>,
}

pub(super) fn run(session: &Session, args: &HistoryArgs) -> Result<(), Failure> {
    let library = session.library()?;
    let contact = people::contact_in(&library, &args.name)?;
    let messages = last_messages(&library, &contact, args)?;
    if messages.is_empty() && !session.is_json() {
        return session.line("Nothing found.");
    }
    let outbox = library.status().outbox;
    let outbox: BTreeMap<MessageId, OutboxEntry> =
        outbox.into_iter().map(|entry| (entry.id, entry)).collect();
    for message in messages.iter().rev() {
        let Some(place) = &message.conversation else {
            continue;
        };
        let state = place.is_own.then(|| state(place, outbox.get(&message.id)));
        print(session, message, place, &contact, state)?;
    }
    Ok(())
}

/// Prints a message of a conversation with this contact; `state` is how far an own one is.
pub(super) fn print(
    session: &Session,
    message: &StoredMessage,
    place: &Conversed,
    contact: &ContactEntry,
    state: Option<&'static str>,
) -> Result<(), Failure> {
    if session.is_json() {
        session.json(&as_json(message, place, state))
    } else {
        session.line(&as_text(message, place, contact, state))
    }
}

/// The last first.
fn last_messages(
    library: &Library,
    contact: &ContactEntry,
    args: &HistoryArgs,
) -> Result<Vec<StoredMessage>, Failure> {
    let since = args.since.map(|age| {
        let now = Clock::wall().as_secs();
        WallTime(now.saturating_sub(age.as_secs()))
    });
    let filter = HistoryFilter {
        search: args.search.clone(),
        since,
    };
    let mut found: Vec<StoredMessage> = Vec::new();
    loop {
        let before = found.last().map(|message| message.seq);
        let left = args.limit.saturating_sub(found.len());
        let page = library.history(contact.key, &filter, before, left)?;
        if page.is_empty() {
            return Ok(found);
        }
        found.extend(page);
    }
}

/// How far an own message is, by the names that `umbel send` gives.
fn state(place: &Conversed, outgoing: Option<&OutboxEntry>) -> &'static str {
    match (place.acknowledged_at, outgoing, place.fate) {
        (Some(_), _, _) => "acknowledged",
        (None, Some(entry), _) if entry.is_held() => "held",
        (None, Some(entry), _) if entry.holders > 0 => "kept",
        (None, Some(_), _) => "queued",
        (None, None, Some(Fate::Held)) => "held",
        (None, None, Some(Fate::Cancelled)) => "cancelled",
        (None, None, Some(Fate::Failed)) => "failed",
        (None, None, Some(Fate::InDoubt) | None) => "in doubt",
    }
}

fn as_json<'a>(
    message: &'a StoredMessage,
    place: &Conversed,
    state: Option<&'static str>,
) -> Line<'a> {
    Line {
        id: message.id.to_string(),
        contact: place.contact.to_string(),
        is_own: place.is_own,
        seq: place.number,
        written_at: output::rfc3339(place.written_at),
        received_at: (!place.is_own).then(|| output::rfc3339(message.received_at)),
        state,
        acknowledged_at: place.acknowledged_at.map(output::rfc3339),
        len: message.body.len(),
        body_b64: BASE64.encode(message.body.bytes()),
        text: message.body.exact(),
    }
}

fn as_text(
    message: &StoredMessage,
    place: &Conversed,
    contact: &ContactEntry,
    state: Option<&'static str>,
) -> String {
    let id = message.id.to_string();
    let (id, written_at) = (mail::short_id(&id), output::rfc3339(place.written_at));
    let head = match state {
        Some(state) => format!("{id}  you  {written_at}  {state}"),
        None if place.is_own => format!("{id}  you  {written_at}"),
        None => format!("{id}  {}  {written_at}", display::name(contact.label())),
    };
    let body = if message.body.is_text() {
        mail::indented(&message.body)
    } else {
        format!(
            "    (not text, {})",
            output::count(message.body.len(), "byte")
        )
    };
    format!("{head}\n{body}")
}

#[cfg(test)]
mod tests {
    use umbel_client::core::io::{ContactKey, Recipient};

    use super::*;

    #[test]
    fn an_own_message_is_acknowledged_or_as_far_as_its_holders() {
        let contact = ContactKey([1; 16]);
        let mut place = Conversed {
            contact,
            number: None,
            session: None,
            written_at: WallTime(1),
            is_own: true,
            acknowledged_at: None,
            fate: None,
        };
        let mut entry = OutboxEntry {
            id: MessageId([1; MessageId::LEN]),
            to: Recipient::Contact(contact),
            len: 1,
            created_at: WallTime(1),
            expires_at: WallTime(2),
            holders: 0,
            wanted: 2,
            obstacle: None,
            next_try_at: None,
            is_unacknowledged: false,
        };
        for (holders, expected) in [(0, "queued"), (1, "kept"), (2, "held")] {
            entry.holders = holders;
            assert_eq!(state(&place, Some(&entry)), expected);
        }
        assert_eq!(state(&place, None), "in doubt");
        for (fate, expected) in [
            (Fate::Held, "held"),
            (Fate::InDoubt, "in doubt"),
            (Fate::Cancelled, "cancelled"),
            (Fate::Failed, "failed"),
        ] {
            place.fate = Some(fate);
            assert_eq!(state(&place, None), expected);
        }
        place.acknowledged_at = Some(WallTime(3));
        assert_eq!(state(&place, Some(&entry)), "acknowledged");
    }
}
