//! `umbel status`: how things stand, at once, with a short look at the network.

use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::{Notice, OutboxEntry, Status};
use umbel_client::{Client, Reach};
use umbel_proto::time::Duration;

use super::failure::Failure;
use super::output;
use super::session::Session;

/// How long the network is looked for.
const LOOK: Duration = Duration::from_secs(2);
/// How often the state is looked at meanwhile.
const STEP: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(super) struct StatusArgs {
    /// Only look at the profile
    #[arg(long)]
    offline: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    relays: usize,
    guard: Option<String>,
    circuits: usize,
    outbox: Vec<Outgoing>,
    inboxes: Vec<Inbox<'a>>,
    online: bool,
}

#[derive(Serialize)]
struct Outgoing {
    id: String,
    holders: usize,
    wanted: usize,
}

impl Outgoing {
    fn new(entry: &OutboxEntry) -> Self {
        let OutboxEntry { id, holders, wanted, .. } = *entry;
        Self { id: id.to_string(), holders, wanted }
    }
}

#[derive(Serialize)]
struct Inbox<'a> {
    name: &'a str,
    mailboxes: usize,
    unread: u64,
}

pub(super) async fn run(session: &Session, args: &StatusArgs) -> Result<(), Failure> {
    if args.offline {
        let library = session.library()?;
        return report(session, &library.status(), &library.unread_counts()?);
    }
    session.with_client(Reach::Online, async |client| status(session, client).await).await
}

async fn status(session: &Session, client: &Client) -> Result<(), Failure> {
    look(session, client).await?;
    report(session, &client.status().await?, &client.unread_counts().await?)
}

fn report(session: &Session, status: &Status, unread: &[(String, u64)]) -> Result<(), Failure> {
    let unread_in = |inbox: &str| unread.iter().find(|(name, _)| name == inbox).map_or(0, |(_, count)| *count);
    let inboxes =
        status.inboxes.iter().map(|(name, mailboxes)| Inbox { name, mailboxes: *mailboxes, unread: unread_in(name) });
    let line = Line {
        relays: status.relays,
        guard: status.guard.map(|relay| relay.to_string()),
        circuits: status.circuits,
        outbox: status.outbox.iter().map(Outgoing::new).collect(),
        inboxes: inboxes.collect(),
        online: is_online(status),
    };
    if session.is_json() { session.json(&line) } else { print(session, &line) }
}

/// Until a circuit is open, the network is out of reach, or time is up.
async fn look(session: &Session, client: &Client) -> Result<(), Failure> {
    let mut notices = client.notices();
    let ends_at = Instant::now() + LOOK;
    session.show("looking for the network");
    while Instant::now() < ends_at && !is_online(&client.status().await?) {
        let step_ends_at = (Instant::now() + STEP).min(ends_at);
        match timeout_at(step_ends_at, notices.next()).await {
            Ok(Ok(Notice::Unreachable)) => break,
            Ok(Ok(notice)) => session.show_notice(&notice),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Ok(())
}

fn is_online(status: &Status) -> bool {
    status.circuits > 0
}

fn print(session: &Session, line: &Line<'_>) -> Result<(), Failure> {
    let network = if line.online { "reached" } else { "not reached" };
    session.line(&format!("network   {network}, {} known", output::count(line.relays, "relay")))?;
    session.line(&format!("guard     {}", line.guard.as_deref().unwrap_or("none yet")))?;
    session.line(&format!("circuits  {} open", line.circuits))?;
    session.line(&format!("outbox    {}", output::count(line.outbox.len(), "message")))?;
    for Outgoing { id, holders, wanted } in &line.outbox {
        session.line(&format!("  {id}  {holders} of {wanted} holders"))?;
    }
    session.line(&format!("inboxes   {}", line.inboxes.len()))?;
    for Inbox { name, mailboxes, unread } in &line.inboxes {
        let mailboxes = output::count(*mailboxes, "mailbox");
        session.line(&format!("  {}  {mailboxes}, {unread} unread", output::printable(name)))?;
    }
    Ok(())
}
