//! `umbel inbox`: make inboxes, and show what to give to others.

use std::io::{self, IsTerminal};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::{InboxEntry, Notice};
use umbel_client::display;
use umbel_client::{Client, ClientClosed, Library, ListenError, NoticeGap, Notices, Reach};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::time::Duration;

use super::failure::{Exit, Failure};
use super::session::Session;
use super::view::ViewWait;
use super::{output, times, watch};

#[derive(clap::Subcommand)]
pub(super) enum InboxCommand {
    /// Make an inbox and publish it
    Create {
        /// Your own name for it; nobody else sees it
        name: String,
        /// How long to wait until it accepts mail, such as 90s or 2m; if that is too short, a later
        /// `umbel receive` finishes it
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = times::parse_seconds)]
        timeout: Duration,
    },
    /// List the inboxes of the profile
    List,
    /// Show an inbox's address, to give to those who may write to it
    Show {
        /// The inbox's name
        name: String,
    },
}

#[derive(Serialize)]
struct Created<'a> {
    name: &'a str,
    address: String,
    state: &'static str,
    published: bool,
    mailboxes: usize,
    positions: usize,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    address: Option<String>,
    mailboxes: usize,
    out_of_reach: usize,
    published: bool,
    unread: u64,
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    address: String,
    published: bool,
}

/// An inbox in a list of inboxes.
pub(super) fn words(
    name: &str,
    mailboxes: usize,
    out_of_reach: usize,
    unread: u64,
    is_published: bool,
    missing_since: Option<&str>,
) -> String {
    let mailboxes = output::count(mailboxes, "mailbox");
    let out_of_reach = match out_of_reach {
        0 => String::new(),
        count => format!(" ({count} out of reach)"),
    };
    let state = match missing_since {
        Some(since) => format!(", not found by senders since {since}"),
        None if is_published => String::new(),
        None => ", not published yet".to_owned(),
    };
    format!(
        "{}  {mailboxes}{out_of_reach}, {unread} unread{state}",
        display::name(name)
    )
}

/// A warning about these inboxes, which are not published yet, if there are any.
fn unpublished<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    let (which, them) = match names.as_slice() {
        [] => return None,
        [name] => {
            let name = display::name(name);
            (format!("the inbox \"{name}\" is"), "it")
        }
        names => {
            let inboxes = output::count(names.len(), "inbox");
            (format!("{inboxes} are"), "them")
        }
    };
    Some(format!(
        "{which} not published yet: nobody can find {them} or write to {them} until a running \
         `umbel receive` has published {them}"
    ))
}

/// Warns of inboxes that are not published yet: of this one, or of all.
pub(super) fn warn_of_unpublished(session: &Session, inboxes: &[InboxEntry], name: Option<&str>) {
    let shown = inboxes
        .iter()
        .filter(|inbox| name.is_none_or(|name| inbox.name == name));
    let missing = shown.filter(|inbox| !inbox.is_published);
    if let Some(text) = unpublished(missing.map(|inbox| inbox.name.as_str())) {
        session.warn(&text);
    }
}

pub(super) async fn run(session: &Session, command: &InboxCommand) -> Result<(), Failure> {
    match command {
        InboxCommand::Create { name, timeout } => {
            session
                .with_client(Reach::Online, async |client| {
                    create(session, client, name, *timeout).await
                })
                .await
        }
        InboxCommand::List => list(session, &session.library()?),
        InboxCommand::Show { name } => show(session, &session.library()?, name),
    }
}

async fn create(
    session: &Session,
    client: &Client,
    name: &str,
    timeout: Duration,
) -> Result<(), Failure> {
    let mut notices = client.notices();
    session.show("making the inbox");
    let address = client.create_inbox(name).await?;
    client.flush().await?;
    let ready = until_ready(
        session,
        client,
        &mut notices,
        name,
        Instant::now() + timeout,
    )
    .await;
    let (mailboxes, positions) = *ready.as_ref().unwrap_or(&(0, 0));
    if session.is_json() {
        let state = if ready.is_ok() { "ready" } else { "pending" };
        session.json(&Created {
            name,
            address: address.to_text(),
            state,
            published: ready.is_ok(),
            mailboxes,
            positions,
        })?;
    } else {
        let shown = display::name(name);
        session.line(&format!(
            "Made the inbox \"{shown}\". Anyone who has its address can write to it:"
        ))?;
        session.line(&address.to_text())?;
        if ready.is_ok() {
            let holders = output::count(mailboxes, "relay");
            session.line(&format!(
                "Its mail is held by {holders}, its descriptor by {positions}."
            ))?;
        }
    }
    ready?;
    watch::in_passing(session, client, &mut notices).await
}

/// How many mailboxes and positions the inbox has.
async fn until_ready(
    session: &Session,
    client: &Client,
    notices: &mut Notices,
    inbox: &str,
    ends_at: Instant,
) -> Result<(usize, usize), Failure> {
    const HINT: &str = "the inbox is kept: the next `umbel receive` publishes it";
    let (mut view, mut is_walled_in) = (ViewWait::default(), false);
    loop {
        let notice = match timeout_at(view.ends_at(ends_at), notices.next()).await {
            Ok(Ok(notice)) => notice,
            Ok(Err(NoticeGap::Missed(_))) => continue,
            Ok(Err(NoticeGap::Closed)) => return Err(ClientClosed.into()),
            Err(_elapsed) if view.is_missing() => {
                let relays = client.status().await?.relays;
                return Err(view.failure(relays, HINT));
            }
            Err(_elapsed) => {
                let error = if is_walled_in {
                    "no circuit could be built in time, so the inbox is not published: nobody can find it or write to it"
                } else {
                    "the inbox is not published yet: nobody can find it or write to it"
                };
                return Err(Failure::new(Exit::Deferred, error, HINT));
            }
        };
        session.show_notice(&notice);
        view.take(&notice);
        match notice {
            Notice::InboxReady {
                name,
                mailboxes,
                positions,
            } if name == inbox => return Ok((mailboxes, positions)),
            Notice::Unreachable => {
                return Err(Failure::new(
                    Exit::Unreachable,
                    "no relay could be reached",
                    HINT,
                ));
            }
            Notice::NoCircuits => is_walled_in = true,
            _ => {}
        }
    }
}

fn list(session: &Session, library: &Library) -> Result<(), Failure> {
    let inboxes = library.status().inboxes;
    let unread = library.unread_counts()?;
    if inboxes.is_empty() && !session.is_json() {
        return session.line("There is no inbox yet: make one with `umbel inbox create NAME`.");
    }
    for InboxEntry {
        name,
        mailboxes,
        out_of_reach,
        is_published,
        missing_since,
    } in &inboxes
    {
        let unread = unread
            .iter()
            .find(|(inbox, _)| inbox == name)
            .map_or(0, |(_, count)| *count);
        if session.is_json() {
            let address = library.inbox_address(name).map(|address| address.to_text());
            session.json(&Listed {
                name,
                address,
                mailboxes: *mailboxes,
                out_of_reach: *out_of_reach,
                published: *is_published,
                unread,
            })?;
        } else {
            let since = missing_since.map(output::rfc3339);
            let words = words(
                name,
                *mailboxes,
                *out_of_reach,
                unread,
                *is_published,
                since.as_deref(),
            );
            session.line(&words)?;
        }
    }
    warn_of_unpublished(session, &inboxes, None);
    Ok(())
}

fn show(session: &Session, library: &Library, name: &str) -> Result<(), Failure> {
    let Some(address) = library.inbox_address(name) else {
        return Err(ListenError::NoInbox.into());
    };
    let inboxes = library.status().inboxes;
    let mut its = inboxes.iter().filter(|inbox| inbox.name == name);
    if session.is_json() {
        return session.json(&Shown {
            name,
            address: address.to_text(),
            published: its.any(|inbox| inbox.is_published),
        });
    }
    session.line(&address.to_text())?;
    warn_of_unpublished(session, &inboxes, Some(name));
    if io::stdout().is_terminal()
        && let Some(code) = qr_code(&address)
    {
        session.line(&code)?;
    }
    Ok(())
}

/// In capitals an address needs a smaller code; it means the same.
fn qr_code(address: &InboxAddress) -> Option<String> {
    let code = QrCode::new(address.to_text().to_ascii_uppercase()).ok()?;
    // Terminals are mostly dark: the code's light parts are drawn.
    Some(
        code.render::<Dense1x2>()
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .build(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_that_nobody_can_find_is_said_to_be_unpublished() {
        assert_eq!(words("a", 3, 0, 1, true, None), "a  3 mailboxes, 1 unread");
        assert_eq!(
            words("a", 4, 1, 0, true, None),
            "a  4 mailboxes (1 out of reach), 0 unread"
        );
        assert_eq!(
            words("a", 3, 0, 0, false, None),
            "a  3 mailboxes, 0 unread, not published yet"
        );
        assert_eq!(unpublished([].into_iter()), None);
        let one = unpublished(["a"].into_iter()).unwrap();
        assert!(one.starts_with("the inbox \"a\" is not published yet: nobody can find it"));
        let two = unpublished(["a", "b"].into_iter()).unwrap();
        assert!(
            two.starts_with("2 inboxes are not published yet: nobody can find them"),
            "{two}"
        );
    }
}
