//! `umbel status`: shows the profile's state at once, after a brief attempt to reach the network.

use std::net::IpAddr;

use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::{Contact, Notice, OutboxEntry, Status};
use umbel_client::{Client, Reach};
use umbel_proto::ids::RelayId;
use umbel_proto::time::Duration;

use super::failure::Failure;
use super::session::{GUARDS_HIDE_TEXT, Session, seed_elsewhere_text};
use super::view::{DISPUTED_HINT, DISPUTED_TEXT};
use super::{inbox, output};

/// How long to look for the network.
const LOOK: Duration = Duration::from_secs(3);
/// How often the state is looked at meanwhile.
const STEP: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(super) struct StatusArgs {
    /// Only read the profile; make no link
    #[arg(long)]
    offline: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    network: &'static str,
    network_name: &'a str,
    network_id: String,
    /// `None` if the file is too long to be handed on.
    network_file_hash: Option<String>,
    /// A linked relay.
    relay: Option<String>,
    /// Since when.
    since: Option<String>,
    relays: usize,
    in_doubt: usize,
    seeds_disagree: bool,
    seeds_elsewhere: Vec<SeedElsewhere>,
    guard: Option<String>,
    guards: usize,
    guards_set_aside: usize,
    guards_hide: bool,
    l2_set_aside: usize,
    full_vanguards: bool,
    circuits: usize,
    outbox: Vec<Outgoing>,
    inboxes: Vec<Inbox<'a>>,
    online: bool,
}

#[derive(Serialize)]
struct SeedElsewhere {
    seed: String,
    ip: IpAddr,
}

#[derive(Serialize)]
struct Outgoing {
    id: String,
    holders: usize,
    wanted: usize,
}

impl Outgoing {
    fn new(entry: &OutboxEntry) -> Self {
        let OutboxEntry {
            id,
            holders,
            wanted,
            ..
        } = *entry;
        Self {
            id: id.to_string(),
            holders,
            wanted,
        }
    }
}

#[derive(Serialize)]
struct Inbox<'a> {
    name: &'a str,
    mailboxes: usize,
    out_of_reach: usize,
    published: bool,
    /// Since when senders don't find it, as far as is known.
    missing_since: Option<String>,
    unread: u64,
}

pub(super) async fn run(session: &Session, args: &StatusArgs) -> Result<(), Failure> {
    if args.offline {
        return offline(session);
    }
    match session
        .with_client(Reach::Online, async |client| status(session, client).await)
        .await
    {
        // A client has to write; a library only reads, and can still show what is stored.
        Err(failure) if failure.is_unwritable() => {
            session.warn(&failure.error);
            offline(session)
        }
        result => result,
    }
}

fn offline(session: &Session) -> Result<(), Failure> {
    let library = session.library()?;
    report(session, &library.status(), &library.unread_counts()?)
}

async fn status(session: &Session, client: &Client) -> Result<(), Failure> {
    look(session, client).await?;
    report(
        session,
        &client.status().await?,
        &client.unread_counts().await?,
    )?;
    session.warn_of_seeds(client);
    Ok(())
}

fn report(session: &Session, status: &Status, unread: &[(String, u64)]) -> Result<(), Failure> {
    let unread_in = |inbox: &str| {
        unread
            .iter()
            .find(|(name, _)| name == inbox)
            .map_or(0, |(_, count)| *count)
    };
    let inboxes = status.inboxes.iter().map(|inbox| Inbox {
        name: &inbox.name,
        mailboxes: inbox.mailboxes,
        out_of_reach: inbox.out_of_reach,
        published: inbox.is_published,
        missing_since: inbox.missing_since.map(output::rfc3339),
        unread: unread_in(&inbox.name),
    });
    let (relay, since) = match status.contact {
        Contact::Reached { relay, since } => {
            (Some(relay.to_string()), Some(output::rfc3339(since)))
        }
        Contact::NotTried | Contact::Trying | Contact::NoAnswer => (None, None),
    };
    let of = session.network()?;
    let line = Line {
        network: network(status.contact),
        network_name: &of.name,
        network_id: of.id.to_string(),
        network_file_hash: of.file_hash(),
        relay,
        since,
        relays: status.relays,
        in_doubt: status.in_doubt,
        seeds_disagree: status.seeds_disagree,
        seeds_elsewhere: seeds_elsewhere(&status.seeds_elsewhere),
        guard: status.guard.map(|relay| relay.to_string()),
        guards: status.guards,
        guards_set_aside: status.guards_set_aside,
        guards_hide: status.do_guards_hide,
        l2_set_aside: status.l2_set_aside,
        full_vanguards: status.has_full_vanguards,
        circuits: status.circuits,
        outbox: outgoing(&status.outbox),
        inboxes: inboxes.collect(),
        online: matches!(status.contact, Contact::Reached { .. }),
    };
    if session.is_json() {
        session.json(&line)?;
    } else {
        print(session, &line)?;
    }
    inbox::warn_of_unpublished(session, &status.inboxes, None);
    Ok(())
}

fn seeds_elsewhere(seeds: &[(RelayId, IpAddr)]) -> Vec<SeedElsewhere> {
    let shown = seeds.iter().map(|&(seed, ip)| SeedElsewhere {
        seed: seed.to_string(),
        ip,
    });
    shown.collect()
}

/// The messages that too few relays hold: one that enough hold counts as sent, though it may wait for
/// its reader.
fn outgoing(outbox: &[OutboxEntry]) -> Vec<Outgoing> {
    let unsent = outbox.iter().filter(|entry| !entry.is_held());
    unsent.map(Outgoing::new).collect()
}

/// The same name in JSON and in text.
fn network(contact: Contact) -> &'static str {
    match contact {
        Contact::NotTried => "not_tried",
        Contact::Trying => "trying",
        Contact::Reached { .. } => "reached",
        Contact::NoAnswer => "no_answer",
    }
}

/// Until a circuit is open, no relay answers, or time is up.
async fn look(session: &Session, client: &Client) -> Result<(), Failure> {
    let mut notices = client.notices();
    let ends_at = Instant::now() + LOOK;
    session.show("looking for the network");
    while Instant::now() < ends_at && client.status().await?.circuits == 0 {
        let step_ends_at = (Instant::now() + STEP).min(ends_at);
        match timeout_at(step_ends_at, notices.next()).await {
            Ok(Ok(Notice::Unreachable | Notice::NoCircuits)) => break,
            Ok(Ok(notice)) => session.show_notice(&notice),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether the network answers, in words.
fn contact_words(line: &Line<'_>) -> String {
    match (&line.relay, &line.since, line.network) {
        (Some(relay), Some(since), _) => {
            let relay: String = relay.chars().take(8).collect();
            format!("reached: a link to relay {relay} since {since}")
        }
        (_, _, "trying") => "not reached yet: still dialling".to_owned(),
        (_, _, "no_answer") => "not reached: no relay answers".to_owned(),
        _ => "not tried".to_owned(),
    }
}

/// Which network it is, to be compared with others'.
fn name_words(line: &Line<'_>) -> String {
    let (name, id) = (line.network_name, &line.network_id);
    match &line.network_file_hash {
        Some(hash) => format!("\"{name}\", {id}; hash of its file {hash}"),
        None => format!("\"{name}\", {id}"),
    }
}

/// Relays that this client knows and does not use.
fn in_doubt_words(count: usize) -> Option<String> {
    (count > 0).then(|| {
        format!(
            "{count} of them not used: fewer than two of the relays asked so far list them, or most of these lack them"
        )
    })
}

fn guard_words(line: &Line<'_>) -> String {
    match (&line.guard, line.guards) {
        (Some(guard), _) => guard.clone(),
        (None, 0) => "none chosen yet".to_owned(),
        (None, chosen) => format!("none in use, {chosen} chosen"),
    }
}

/// Relays that this client left for their conduct.
fn set_aside_words(guards: usize, l2: usize) -> Option<String> {
    let counts = [(guards, "guard"), (l2, "second hop")];
    let some = counts.into_iter().filter(|&(count, _)| count > 0);
    let words: Vec<String> = some
        .map(|(count, what)| output::count(count, what))
        .collect();
    (!words.is_empty()).then(|| {
        format!(
            "{} left: too many circuits through them failed, or they hid relays",
            words.join(" and ")
        )
    })
}

fn print(session: &Session, line: &Line<'_>) -> Result<(), Failure> {
    // Scripts read the number before "relays known".
    session.line(&format!(
        "network   {}, {} known",
        contact_words(line),
        output::count(line.relays, "relay")
    ))?;
    session.line(&format!("  {}", name_words(line)))?;
    if let Some(words) = in_doubt_words(line.in_doubt) {
        session.line(&format!("  {words}"))?;
    }
    if line.seeds_disagree {
        session.line(&format!("  {DISPUTED_TEXT}: {DISPUTED_HINT}"))?;
    }
    for SeedElsewhere { seed, ip } in &line.seeds_elsewhere {
        session.line(&format!("  {}", seed_elsewhere_text(seed, *ip)))?;
    }
    session.line(&format!("guard     {}", guard_words(line)))?;
    if let Some(words) = set_aside_words(line.guards_set_aside, line.l2_set_aside) {
        session.line(&format!("  {words}"))?;
    }
    if line.guards_hide {
        session.line(&format!("  {GUARDS_HIDE_TEXT}"))?;
    }
    if line.full_vanguards {
        session.line("  full vanguards are on: the third hop of each path is kept, too")?;
    }
    session.line(&format!("circuits  {} open", line.circuits))?;
    session.line(&format!(
        "outbox    {}",
        output::count(line.outbox.len(), "message")
    ))?;
    for Outgoing {
        id,
        holders,
        wanted,
    } in &line.outbox
    {
        session.line(&format!("  {id}  {holders} of {wanted} holders"))?;
    }
    session.line(&format!("inboxes   {}", line.inboxes.len()))?;
    for inbox in &line.inboxes {
        let words = inbox::words(
            inbox.name,
            inbox.mailboxes,
            inbox.out_of_reach,
            inbox.unread,
            inbox.published,
            inbox.missing_since.as_deref(),
        );
        session.line(&format!("  {words}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {

    use umbel_client::core::io::Recipient;
    use umbel_proto::ids::MessageId;
    use umbel_proto::inbox::address::InboxIdentity;
    use umbel_proto::time::WallTime;

    use super::*;

    #[test] // §6.4(11), §6.4(16)
    fn relays_that_were_left_are_counted_by_kind() {
        assert_eq!(set_aside_words(0, 0), None);
        let words = |guards, l2| set_aside_words(guards, l2).unwrap_or_default();
        assert!(words(1, 0).starts_with("1 guard left: "));
        assert!(words(1, 2).starts_with("1 guard and 2 second hops left: "));
    }

    #[test] // §8.2(11)
    fn relays_in_doubt_are_counted() {
        assert_eq!(in_doubt_words(0), None);
        let words = in_doubt_words(7).unwrap_or_default();
        assert!(words.starts_with("7 of them not used: "), "{words}");
    }

    #[test]
    fn what_enough_relays_hold_is_no_longer_counted() {
        let entry = |holders| OutboxEntry {
            id: MessageId([1; MessageId::LEN]),
            to: Recipient::OneWay(*InboxIdentity::from_seed(&[3; 32]).address()),
            len: 1,
            created_at: WallTime(0),
            expires_at: WallTime(1),
            holders,
            wanted: 2,
            obstacle: None,
            next_try_at: None,
            is_unacknowledged: false,
        };
        let shown = outgoing(&[entry(0), entry(1), entry(2), entry(3)]);
        let holders: Vec<usize> = shown.iter().map(|shown| shown.holders).collect();
        assert_eq!(holders, [0, 1]);
    }
}
