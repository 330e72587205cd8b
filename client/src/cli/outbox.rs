//! `umbel outbox`: list, show, cancel and retry the messages that still need a holder.

use std::borrow::Cow;
use std::io::{self, IsTerminal};

use data_encoding::BASE64;
use serde::Serialize;
use umbel_client::core::io::{Cancelled, Copies, OutboxEntry, Recipient};
use umbel_client::display::{self, PeerText};
use umbel_client::{CancelError, Client, ContactEntry, Library, Reach};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::time::{Duration, WallTime};
use umbel_relay::shell::Clock;

use super::failure::{Failure, store_hint};
use super::session::Session;
use super::watch::{Stage, why};
use super::{mail, output, send, times};

/// Characters of an address in tables: enough to tell one from another.
const SHORT_ADDRESS_LEN: usize = 16;

#[derive(clap::Subcommand)]
pub(super) enum OutboxCommand {
    /// List the messages in the outbox; needs no network
    List,
    /// Show a message in the outbox; needs no network
    Show {
        /// The message's id, or a prefix of it
        id: String,
    },
    /// Take messages back: one that no relay has is never sent; needs no network
    Cancel {
        /// The messages' ids, or prefixes of them
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Retry everything now, and wait for it
    Flush {
        /// When a message counts as sent
        #[arg(long, value_name = "STAGE", value_enum, default_value_t = Stage::Kept)]
        wait: Stage,
        /// How long to wait for that stage at most, such as 90s or 2m; umbel doesn't wait for a copy
        /// that is due later [default: 60s, or 5m with --wait held]
        #[arg(long, value_name = "TIME", value_parser = times::parse_seconds)]
        timeout: Option<Duration>,
    },
}

#[derive(Serialize)]
struct Listed {
    id: String,
    /// To which inbox; none where its owner, a contact, has not said.
    address: Option<String>,
    /// To which contact, by key; none where the message begins a conversation, or can't be answered.
    contact: Option<String>,
    /// How the contact is called.
    name: Option<String>,
    /// Its reader can't answer.
    is_one_way: bool,
    len: usize,
    state: &'static str,
    holders: usize,
    wanted: usize,
    /// It is held, and waits for its reader.
    is_unacknowledged: bool,
    created_at: String,
    expires_at: String,
    /// Why the last attempt failed, unless that was overcome.
    obstacle: Option<Cow<'static, str>>,
    next_try_at: Option<String>,
    #[serde(skip)]
    life: Life,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_b64: Option<String>,
}

/// Whether a message that is still in the outbox may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Lasts,
    /// Not if this computer's clock is right, which the network has not confirmed.
    InDoubt,
    /// No: the next command that opens the outbox removes it.
    Over,
}

impl Life {
    /// By the clock, which says `wall`, and by the time that is confirmed (§10.5(1)).
    fn of(entry: &OutboxEntry, library: &Library, wall: WallTime) -> Self {
        Self::until(entry.expires_at, library.calendar(wall), wall)
    }

    fn until(expires_at: WallTime, calendar: Option<WallTime>, wall: WallTime) -> Self {
        if calendar.is_some_and(|calendar| expires_at <= calendar) {
            Self::Over
        } else if expires_at <= wall {
            Self::InDoubt
        } else {
            Self::Lasts
        }
    }
}

impl Listed {
    fn new(
        entry: &OutboxEntry,
        contact: Option<&ContactEntry>,
        body: Option<&[u8]>,
        life: Life,
    ) -> Self {
        let OutboxEntry {
            id,
            to,
            len,
            created_at,
            expires_at,
            holders,
            wanted,
            ..
        } = entry;
        Self {
            id: id.to_string(),
            address: address(to, contact).map(|address| address.to_text()),
            contact: match to {
                Recipient::Contact(key) => Some(key.to_string()),
                Recipient::OneWay(_) | Recipient::Owner { .. } => None,
            },
            name: contact.map(|contact| contact.label().to_owned()),
            is_one_way: matches!(to, Recipient::OneWay(_)),
            is_unacknowledged: entry.is_unacknowledged,
            len: *len,
            state: state(entry, life),
            holders: *holders,
            wanted: *wanted,
            created_at: output::rfc3339(*created_at),
            expires_at: output::rfc3339(*expires_at),
            obstacle: entry.obstacle.map(why),
            next_try_at: entry
                .next_try_at
                .filter(|_| life != Life::Over)
                .map(output::rfc3339),
            life,
            body_b64: body.map(|body| BASE64.encode(body)),
        }
    }

    /// To whom, as people are called, or by an address: by its begin, where it is to be short.
    fn reader(&self, is_short: bool) -> String {
        match (&self.name, &self.address) {
            (Some(name), _) => display::name(name),
            (None, Some(address)) if is_short => {
                let begin: String = address.chars().take(SHORT_ADDRESS_LEN).collect();
                format!("{begin}…")
            }
            (None, Some(address)) => address.clone(),
            (None, None) => "a contact that was removed".to_owned(),
        }
    }

    /// All but the id and the body.
    fn text(&self) -> String {
        let why = match (self.life, &self.obstacle) {
            (Life::Over, _) => " (its time is over: no more are tried)".to_owned(),
            (Life::InDoubt, _) => " (expired if this computer's clock is right)".to_owned(),
            (Life::Lasts, Some(obstacle)) => format!(" ({obstacle})"),
            (Life::Lasts, None) if self.is_unacknowledged => " (waits for its reader)".to_owned(),
            (Life::Lasts, None) => String::new(),
        };
        let Self {
            state,
            holders,
            wanted,
            created_at,
            expires_at,
            ..
        } = self;
        let len = output::count(self.len, "byte");
        format!(
            "{len}  {state}, {holders} of {wanted} relays{why}  sent {created_at}, until {expires_at}"
        )
    }
}

fn address<'a>(to: &'a Recipient, contact: Option<&'a ContactEntry>) -> Option<&'a InboxAddress> {
    match to {
        Recipient::OneWay(address) | Recipient::Owner { address, .. } => Some(address),
        Recipient::Contact(_) => contact.and_then(|contact| contact.card.address.as_ref()),
    }
}

/// The contact that a message goes to, if it goes to one.
fn contact_of(library: &Library, entry: &OutboxEntry) -> Result<Option<ContactEntry>, Failure> {
    match entry.to {
        Recipient::Contact(key) => Ok(library.contact_of(key)?),
        Recipient::OneWay(_) | Recipient::Owner { .. } => Ok(None),
    }
}

#[derive(Serialize)]
struct TakenBack {
    id: String,
    state: &'static str,
    holders: usize,
    may_be_out: bool,
}

/// As `umbel send` names it.
fn state(entry: &OutboxEntry, life: Life) -> &'static str {
    match entry.holders {
        0 if life == Life::Over => "expired",
        0 => "queued",
        _ if entry.is_held() => "held",
        _ => "kept",
    }
}

pub(super) async fn run(session: &Session, command: &OutboxCommand) -> Result<(), Failure> {
    match command {
        OutboxCommand::List => list(session),
        OutboxCommand::Show { id } => show(session, id),
        OutboxCommand::Cancel { ids } => {
            session
                .with_client(Reach::Offline, async |client| {
                    cancel(session, client, ids).await
                })
                .await
        }
        OutboxCommand::Flush { wait, timeout } => send::flush(session, *wait, *timeout).await,
    }
}

fn list(session: &Session) -> Result<(), Failure> {
    let library = session.library()?;
    let outbox: Vec<_> = library
        .status()
        .outbox
        .into_iter()
        .filter(|entry| !entry.is_held() || entry.is_unacknowledged)
        .collect();
    if outbox.is_empty() && !session.is_json() {
        return session.line("The outbox is empty.");
    }
    let wall = Clock::wall();
    for entry in &outbox {
        let contact = contact_of(&library, entry)?;
        let life = Life::of(entry, &library, wall);
        let listed = Listed::new(entry, contact.as_ref(), None, life);
        if session.is_json() {
            session.json(&listed)?;
        } else {
            session.line(&format!(
                "{}  to {}  {}",
                mail::short_id(&listed.id),
                listed.reader(true),
                listed.text()
            ))?;
        }
    }
    Ok(())
}

/// The one message in the outbox whose id begins so.
fn one_named(outbox: &[OutboxEntry], prefix: &str) -> Result<OutboxEntry, Failure> {
    const HINT: &str = "`umbel outbox list` shows what is there; a message that has arrived or expired is no longer";
    let digits = mail::id_digits(prefix)?;
    let mut found = outbox
        .iter()
        .filter(|entry| entry.id.to_string().starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok(entry.clone()),
        (Some(_), Some(_)) => Err(Failure::usage(
            format!("several messages have an id that begins with {digits}"),
            "write more of the id",
        )),
        (None, _) => Err(Failure::failed(
            format!("no message in the outbox has an id that begins with {digits}"),
            HINT,
        )),
    }
}

fn show(session: &Session, id: &str) -> Result<(), Failure> {
    let library = session.library()?;
    let entry = one_named(&library.status().outbox, id)?;
    let Some(message) = library.outbox_message(entry.id)? else {
        return Err(Failure::failed(
            "the message has just left the outbox",
            "see `umbel outbox list`",
        ));
    };
    let life = Life::of(&entry, &library, Clock::wall());
    let contact = contact_of(&library, &entry)?;
    let listed = Listed::new(&entry, contact.as_ref(), Some(&message.body), life);
    if session.is_json() {
        return session.json(&listed);
    }
    session.line(&format!(
        "{}  {}\nto {}",
        listed.id,
        listed.text(),
        listed.reader(false)
    ))?;
    let body = PeerText::new(message.body.to_vec());
    if body.is_text() {
        session.line(&mail::indented(&body))
    } else if io::stdout().is_terminal() {
        session.line("    (not text: --json prints it as base64)")
    } else {
        session.line("    (not text)")
    }
}

async fn cancel(session: &Session, client: &Client, ids: &[String]) -> Result<(), Failure> {
    let outbox = client.outbox().await?;
    let entries = ids
        .iter()
        .map(|id| one_named(&outbox, id))
        .collect::<Result<Vec<_>, _>>()?;
    for entry in entries {
        match client.cancel(entry.id).await? {
            Some(cancelled) => say_taken_back(session, &cancelled)?,
            None => session.warn(&format!("message {} had left the outbox already", entry.id)),
        }
    }
    Ok(())
}

fn say_taken_back(session: &Session, cancelled: &Cancelled) -> Result<(), Failure> {
    let Cancelled { id, copies } = *cancelled;
    if session.is_json() {
        return session.json(&TakenBack {
            id: id.to_string(),
            state: "cancelled",
            holders: copies.holders(),
            may_be_out: copies.may_be_out(),
        });
    }
    session.line(&match copies {
        Copies::InDoubt => {
            format!("message {id}: taken back, but a relay may have it: its reader may get it")
        }
        Copies::None => format!("message {id}: taken back; nobody has it"),
        Copies::Held(holders) => format!(
            "message {id}: no longer in the outbox, but {} kept it already: its reader gets it",
            output::count(holders, "relay")
        ),
    })
}

impl From<CancelError> for Failure {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::Store(fault) => Self::failed(error.to_string(), store_hint(fault)),
            CancelError::Closed => umbel_client::ClientClosed.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use umbel_client::core::io::DeferReason;
    use umbel_proto::ids::MessageId;
    use umbel_proto::inbox::address::InboxIdentity;

    use super::*;

    #[test] // §10.5(1)
    fn a_message_expires_by_confirmed_time_and_not_by_an_unconfirmed_clock() {
        let until = WallTime(1_790_000_000);
        let earlier = WallTime(until.as_secs() - 1);
        for (calendar, wall, life) in [
            (Some(earlier), earlier, Life::Lasts),
            (None, earlier, Life::Lasts),
            (Some(until), until, Life::Over),
            (Some(earlier), until, Life::InDoubt),
            (None, until, Life::InDoubt),
        ] {
            assert_eq!(Life::until(until, calendar, wall), life);
        }
    }

    #[test]
    fn a_message_whose_time_is_over_is_not_listed_as_queued() {
        let expires_at = WallTime(1_790_000_000);
        let entry = OutboxEntry {
            id: MessageId([1; MessageId::LEN]),
            to: Recipient::OneWay(*InboxIdentity::from_seed(&[3; 32]).address()),
            len: 5,
            created_at: WallTime(1_789_000_000),
            expires_at,
            holders: 0,
            wanted: 2,
            obstacle: Some(DeferReason::NoCircuit),
            next_try_at: Some(expires_at + Duration::from_secs(60)),
            is_unacknowledged: false,
        };
        let before = Listed::new(&entry, None, None, Life::Lasts);
        assert_eq!(
            (before.state, before.next_try_at.is_some()),
            ("queued", true)
        );
        assert!(!before.text().contains("no more are tried"));
        let doubtful = Listed::new(&entry, None, None, Life::InDoubt);
        assert_eq!(
            (doubtful.state, doubtful.next_try_at.is_some()),
            ("queued", true)
        );
        assert!(
            doubtful
                .text()
                .contains("if this computer's clock is right")
        );
        let after = Listed::new(&entry, None, None, Life::Over);
        assert_eq!(
            (after.state, after.next_try_at.is_some()),
            ("expired", false)
        );
        assert!(
            after.text().contains("no more are tried"),
            "{}",
            after.text()
        );
    }

    #[test]
    fn a_message_that_its_reader_has_not_acknowledged_says_so() {
        let address = *InboxIdentity::from_seed(&[3; 32]).address();
        let entry = OutboxEntry {
            id: MessageId([1; MessageId::LEN]),
            to: Recipient::Owner {
                address,
                writer: None,
            },
            len: 5,
            created_at: WallTime(1_789_000_000),
            expires_at: WallTime(1_790_000_000),
            holders: 2,
            wanted: 2,
            obstacle: None,
            next_try_at: None,
            is_unacknowledged: true,
        };
        let listed = Listed::new(&entry, None, None, Life::Lasts);
        assert_eq!((listed.state, listed.is_one_way), ("held", false));
        assert!(listed.text().contains("waits for its reader"));
        assert_eq!(listed.reader(false), address.to_text());
        assert!(listed.reader(true).ends_with('…'));
    }
}
