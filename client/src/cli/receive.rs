//! `umbel receive`: print the messages that came, and fetch more: for the own inboxes, and answers of
//! contacts that belong to none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::{ContactKey, ConversationEvent, InboxEntry, Notice, Warning};
use umbel_client::display;
use umbel_client::{
    Claim, Client, ClientClosed, ContactEntry, ListenError, NoticeGap, Notices, Reach,
    StoredMessage,
};
use umbel_proto::time::Duration;
use umbel_relay::shell::Clock;

use super::failure::{Exit, Failure, store_hint};
use super::mending::Mending;
use super::people::From;
use super::session::Session;
use super::view::ViewWait;
use super::watch::{self, Stage, Watch};
use super::{files, inbox, mail, output, people, times};

/// How often it is looked whether another command has printed a message.
const CLAIM_STEP: Duration = Duration::from_millis(100);
/// How long to wait for the mailboxes when neither `--timeout` nor `--follow` nor `--count` says
/// anything.
const TIMEOUT: Duration = Duration::from_secs(60);
/// That time is enough for this many mailboxes. Each further one adds [`TIMEOUT_EACH`], since a
/// guard takes a few circuits a second (docs/protocol.md §5.4).
const MAILBOXES_IN_TIME: usize = 60;
const TIMEOUT_EACH: Duration = Duration::from_secs(1);

/// Help about the form in which a message is printed.
const SHOWN: &str = "\
Each line of a message is indented, and characters that would act on a terminal or hide something are \
written as \\u{200b}, wherever the output goes. For the message byte for byte, use --output, or body_b64 \
of --json.";

#[derive(clap::Args)]
#[command(after_help = SHOWN)]
pub(super) struct ReceiveArgs {
    /// The inbox's name [default: all inboxes, and answers of contacts that belong to none]
    name: Option<String>,
    /// Keep running; print messages as they arrive
    #[arg(long)]
    follow: bool,
    /// End after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this long, such as 30s or 5m [default: 60s, and 1s more for each mailbox beyond
    /// 60; none with --follow or --count]
    #[arg(long, value_name = "TIME", value_parser = times::parse_seconds)]
    timeout: Option<Duration>,
    /// Also save each message as a file in this directory; otherwise a message that is not text
    /// stays unread until `umbel show ID --output FILE` saves it
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Line<'a> {
    /// None of an answer of a contact that belongs to no inbox.
    inbox: Option<&'a str>,
    /// Who wrote it, unless it was sent one way.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<From>,
    /// Its writer's number for it: each is one higher, in a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    /// By its writer's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    written_at: Option<String>,
    /// How many earlier messages of its writer are known to be missing now.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<u64>,
    id: String,
    body_b64: String,
    len: usize,
    received_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

pub(super) async fn run(session: &Session, args: &ReceiveArgs) -> Result<(), Failure> {
    if let Some(dir) = &args.output {
        files::make_dir(dir)?;
    }
    let work = async |client: &Client| {
        let view = ViewWait::default();
        Receiver {
            session,
            client,
            args,
            printed: 0,
            seen: 0,
            view,
            missing: BTreeMap::new(),
            introduced: BTreeSet::new(),
        }
        .run()
        .await
    };
    match session.with_client(Reach::Online, work).await {
        // There is no other end to it.
        Err(failure) if args.follow && failure.exit == Exit::Interrupted => Ok(()),
        result => result,
    }
}

/// One run of `umbel receive`.
struct Receiver<'a> {
    session: &'a Session,
    client: &'a Client,
    args: &'a ReceiveArgs,
    printed: u64,
    /// The place of the last message printed: one that stays unread is not printed twice.
    seen: i64,
    view: ViewWait,
    /// How many messages of each contact are missing, as far as was heard.
    missing: BTreeMap<ContactKey, u64>,
    /// The strangers of whom the user was told how to answer and block them.
    introduced: BTreeSet<ContactKey>,
}

/// An inbox and the contacts that belong to it; or, without a name, the contacts that belong to none.
type Group = Option<String>;

/// The mailboxes that one run fetches from, and their answers so far.
struct Fetching {
    /// When to stop waiting; `None` for never.
    ends_at: Option<Instant>,
    group_count: usize,
    /// Inboxes that may still hold messages from before this run.
    open: BTreeSet<Group>,
    /// Inboxes of which no mailbox answered the last time, or none was asked yet.
    silent: BTreeSet<Group>,
    /// Inboxes of which each mailbox was asked, and none answered.
    unanswered: BTreeSet<Group>,
    /// No relay could be reached, and the user knows.
    is_unreachable: bool,
    /// No circuit could be built since a mailbox answered, and the user knows.
    is_walled_in: bool,
    mending: Mending,
}

impl Receiver<'_> {
    async fn run(mut self) -> Result<(), Failure> {
        let mut notices = self.client.notices();
        let inboxes = self.inboxes().await?;
        let has_answers = self.args.name.is_none() && self.has_contacts_without_inbox().await?;
        if inboxes.is_empty() && !has_answers {
            return self.deliver_only(&mut notices).await;
        }
        self.print_unread().await?;
        if self.has_enough() {
            return Ok(());
        }
        let mut fetching = self.begin(inboxes, has_answers).await?;
        while !self.has_enough() && (self.goes_on() || !fetching.open.is_empty()) {
            let until = fetching.ends_at.map(|ends_at| {
                if self.goes_on() {
                    ends_at
                } else {
                    self.view.ends_at(ends_at)
                }
            });
            match next_until(until, notices.next()).await {
                Some(Ok(notice)) => self.on_notice(&mut fetching, notice).await?,
                Some(Err(NoticeGap::Missed(_))) => self.print_unread().await?,
                Some(Err(NoticeGap::Closed)) => return Err(ClientClosed.into()),
                None => {
                    let relays = self.client.status().await?.relays;
                    return self.on_time_up(&fetching, relays);
                }
            }
        }
        self.print_unread().await?;
        if self.goes_on() {
            return Ok(());
        }
        fetching
            .mending
            .wait(self.session, &mut notices, fetching.ends_at)
            .await?;
        self.warn_of_unpublished().await?;
        watch::in_passing(self.session, self.client, &mut notices).await
    }

    async fn warn_of_unpublished(&self) -> Result<(), Failure> {
        let inboxes = self.client.status().await?.inboxes;
        inbox::warn_of_unpublished(self.session, &inboxes, self.args.name.as_deref());
        Ok(())
    }

    /// Whether there may be answers that belong to no inbox.
    async fn has_contacts_without_inbox(&self) -> Result<bool, Failure> {
        let contacts = self.client.contacts().await?;
        Ok(contacts.iter().any(|contact| contact.card.inbox.is_none()))
    }

    /// Has the client fetch from these inboxes, and answers that belong to none.
    async fn begin(
        &self,
        inboxes: Vec<InboxEntry>,
        has_answers: bool,
    ) -> Result<Fetching, Failure> {
        self.session.show("fetching");
        self.client.flush().await?;
        if self.goes_on() {
            inbox::warn_of_unpublished(self.session, &inboxes, None);
        }
        for inbox in &inboxes {
            self.client.listen(&inbox.name, self.args.follow).await?;
        }
        if has_answers {
            self.client.listen_for_answers(self.args.follow).await?;
        }
        let mailboxes = inboxes.iter().map(|inbox| inbox.mailboxes).sum();
        let timeout = self
            .args
            .timeout
            .or_else(|| (!self.goes_on()).then(|| time_for(mailboxes)));
        let ends_at = timeout.map(|timeout| Instant::now() + timeout);
        let inboxes: BTreeSet<String> = inboxes.into_iter().map(|inbox| inbox.name).collect();
        let answers = has_answers.then_some(None);
        let groups: BTreeSet<Group> = inboxes.iter().cloned().map(Some).chain(answers).collect();
        Ok(Fetching {
            ends_at,
            group_count: groups.len(),
            mending: Mending::new(inboxes),
            open: groups.clone(),
            silent: groups,
            unanswered: BTreeSet::new(),
            is_unreachable: false,
            is_walled_in: false,
        })
    }

    /// Shows what a notice says, prints what came, and ends on what can't be waited out.
    async fn on_notice(&mut self, fetching: &mut Fetching, notice: Notice) -> Result<(), Failure> {
        if self.goes_on() || !matches!(notice, Notice::Warning(Warning::Store(_))) {
            self.session.show_notice(&notice);
        }
        fetching.mending.take(&notice);
        self.view.take(&notice);
        match notice {
            Notice::Received { .. } => self.print_unread().await?,
            Notice::CaughtUp {
                inbox,
                answered,
                mailboxes,
            } => self.on_caught_up(fetching, inbox, answered, mailboxes),
            Notice::Conversation { contact, event } => self.on_event(contact, event).await?,
            // New messages can't be stored: they stay with their holders until they can.
            Notice::Warning(Warning::Store(fault)) if !self.goes_on() => {
                self.print_unread().await?;
                return Err(Failure::failed(fault.to_string(), store_hint(fault)));
            }
            Notice::Unreachable if !self.goes_on() => return Err(unreachable()),
            Notice::Unreachable if !fetching.is_unreachable => {
                fetching.is_unreachable = true;
                self.session.warn("no relay could be reached; trying again");
                self.session.warn_of_seeds(self.client);
            }
            Notice::NoCircuits => self.on_walled_in(fetching),
            _ => {}
        }
        self.show_waiting(fetching);
        Ok(())
    }

    /// Says what happened in a conversation beside messages.
    async fn on_event(
        &mut self,
        contact: ContactKey,
        event: ConversationEvent,
    ) -> Result<(), Failure> {
        match event {
            ConversationEvent::Missing(count) => self.missing.insert(contact, count),
            ConversationEvent::Complete => self.missing.remove(&contact),
            _ => None,
        };
        if let Some(contact) = self.client.contact_of(contact).await?
            && let Some(text) = event_text(&display::name(contact.label()), event)
        {
            self.session.warn(&text);
        }
        Ok(())
    }

    /// The client tries other relays while there is time. Whoever follows may see no end of it.
    fn on_walled_in(&self, fetching: &mut Fetching) {
        if !core::mem::replace(&mut fetching.is_walled_in, true) && self.goes_on() {
            self.session.warn(
                "no circuit can be built: relays answer, but others may be down; trying again",
            );
        }
    }

    /// Shows that all there was has come, while the command keeps running.
    fn show_waiting(&self, fetching: &Fetching) {
        if self.goes_on()
            && fetching.open.is_empty()
            && !fetching.is_unreachable
            && !self.view.is_missing()
        {
            let is_heard = fetching.silent.len() < fetching.group_count;
            self.session.show(if is_heard {
                "waiting for messages"
            } else {
                "no mailbox answers; trying again"
            });
        }
    }

    /// Without an inbox there is still the outbox to see to.
    async fn deliver_only(&self, notices: &mut Notices) -> Result<(), Failure> {
        self.session
            .warn("there is no inbox to receive for: only the outbox is tried");
        let timeout = self.args.timeout.unwrap_or(TIMEOUT);
        self.client.flush().await?;
        let mut watch = Watch::new(Stage::Kept, timeout);
        watch.add_all(self.client.outbox().await?, Clock::wall());
        watch.wait(self.session, self.client, notices).await?;
        if let Err(failure) = watch.outcome()
            && failure.exit == Exit::Unreachable
        {
            return Err(failure);
        }
        let left = self
            .client
            .outbox()
            .await?
            .iter()
            .filter(|entry| entry.holders == 0)
            .count();
        if left > 0 {
            self.session.warn(&format!(
                "{} could not be sent yet",
                output::count(left, "message")
            ));
        }
        Ok(())
    }

    fn goes_on(&self) -> bool {
        self.args.follow || self.args.count.is_some()
    }

    fn has_enough(&self) -> bool {
        self.args.count.is_some_and(|count| self.printed >= count)
    }

    /// The inboxes to receive for.
    async fn inboxes(&self) -> Result<Vec<InboxEntry>, Failure> {
        let status = self.client.status().await?;
        let mut all = status.inboxes;
        let Some(wanted) = &self.args.name else {
            let is_nothing = all.is_empty() && status.outbox.is_empty();
            if is_nothing && !self.has_contacts_without_inbox().await? {
                return Err(Failure::failed(
                    "there is no inbox yet",
                    "make one with `umbel inbox create NAME`, or write to somebody: `umbel send ADDRESS`",
                ));
            }
            return Ok(all);
        };
        all.retain(|inbox| inbox.name == *wanted);
        if all.is_empty() {
            Err(ListenError::NoInbox.into())
        } else {
            Ok(all)
        }
    }

    /// An inbox was fetched from as far as possible: warns of mailboxes that did not answer. Where none
    /// did, the client asks again while there is time.
    fn on_caught_up(
        &self,
        fetching: &mut Fetching,
        inbox: Group,
        answered: usize,
        mailboxes: usize,
    ) {
        fetching.is_unreachable = false;
        // Of contacts without a queue yet there is nothing to fetch.
        if answered == 0 && mailboxes > 0 {
            self.session.show("no mailbox answers; trying again");
            if self.goes_on() {
                fetching.open.remove(&inbox);
            }
            fetching.silent.insert(inbox.clone());
            fetching.unanswered.insert(inbox);
            return;
        }
        fetching.is_walled_in = false;
        fetching.unanswered.remove(&inbox);
        fetching.silent.remove(&inbox);
        let was_open = fetching.open.remove(&inbox);
        if was_open && !self.goes_on() && answered < mailboxes {
            let mailboxes = output::count(mailboxes, "mailbox");
            let whose = inbox.map_or_else(
                || "your contacts".to_owned(),
                |inbox| format!("\"{}\"", display::name(&inbox)),
            );
            self.session.warn(&format!(
                "only {answered} of the {mailboxes} of {whose} answered"
            ));
        }
    }

    /// Time is up, and so many relays are known.
    fn on_time_up(&self, fetching: &Fetching, relays: usize) -> Result<(), Failure> {
        match self.args.count {
            _ if fetching.is_unreachable => Err(unreachable()),
            _ if self.view.is_missing() => Err(self
                .view
                .failure(relays, "messages wait with their holders for days")),
            Some(count) => Err(Failure::failed(
                format!(
                    "{} of {} came in time",
                    self.printed,
                    output::count(count, "message")
                ),
                "wait longer with --timeout; the messages that came are marked as read",
            )),
            None if self.args.follow => Ok(()),
            None if fetching.is_walled_in => Err(no_circuit()),
            None if !fetching.unanswered.is_empty() => Err(unanswered(fetching.unanswered.len())),
            None => Err(Failure::failed(
                "the mailboxes did not answer in time",
                "wait longer with --timeout, or try again later: messages wait there for days",
            )),
        }
    }

    /// Prints what is unread, and marks each message read after it was written and flushed.
    async fn print_unread(&mut self) -> Result<(), Failure> {
        loop {
            let page = self
                .client
                .unread(self.args.name.as_deref(), self.seen)
                .await?;
            if page.is_empty() {
                return Ok(());
            }
            for message in page {
                if self.has_enough() {
                    return Ok(());
                }
                if !self.claim(&message).await? {
                    self.seen = message.seq;
                    continue;
                }
                let writer = self.writer(&message).await?;
                let printed = self.print(&message, writer.as_ref());
                if printed.is_ok() && self.is_read_by_printing(&message) {
                    self.client.mark_read(&message).await?;
                } else {
                    self.client.release(&message).await?;
                }
                printed?;
                self.seen = message.seq;
                self.printed += 1;
            }
        }
    }

    /// Whether all that the message says was written.
    fn is_read_by_printing(&self, message: &StoredMessage) -> bool {
        self.session.is_json() || self.args.output.is_some() || message.body.is_text()
    }

    /// Takes a message to be printed, unless another command prints it. One that does not come to
    /// the end of that is not waited for long.
    async fn claim(&self, message: &StoredMessage) -> Result<bool, Failure> {
        loop {
            match self.client.claim(message).await? {
                Claim::Ours => return Ok(true),
                Claim::Read => return Ok(false),
                Claim::Theirs => tokio::time::sleep(CLAIM_STEP).await,
            }
        }
    }

    /// Who wrote a message of a conversation.
    async fn writer(&self, message: &StoredMessage) -> Result<Option<ContactEntry>, Failure> {
        match &message.conversation {
            Some(place) => Ok(self.client.contact_of(place.contact).await?),
            None => Ok(None),
        }
    }

    fn print(
        &mut self,
        message: &StoredMessage,
        writer: Option<&ContactEntry>,
    ) -> Result<(), Failure> {
        let file = self
            .args
            .output
            .as_deref()
            .map(|dir| save(dir, message))
            .transpose()?;
        let file = file.map(|path| path.to_string_lossy().into_owned());
        let received_at = output::rfc3339(message.received_at);
        let len = message.body.len();
        if self.session.is_json() {
            let body_b64 = BASE64.encode(message.body.bytes());
            let id = message.id.to_string();
            let place = message.conversation.as_ref();
            return self.session.json(&Line {
                inbox: message.inbox.as_deref(),
                from: writer.map(From::new),
                seq: place.and_then(|place| place.number),
                written_at: place.map(|place| output::rfc3339(place.written_at)),
                missing: place.map(|place| self.missing.get(&place.contact).map_or(0, |it| *it)),
                id,
                body_b64,
                len,
                received_at,
                file,
            });
        }
        let origin = mail::origin(message, writer);
        let saved = file.map_or_else(String::new, |file| {
            format!(", saved as {}", display::text(&file))
        });
        let written = message
            .conversation
            .as_ref()
            .map_or_else(String::new, |place| {
                let id = message.id.to_string();
                let (id, at) = (mail::short_id(&id), output::rfc3339(place.written_at));
                format!("  {id}  written {at}")
            });
        let is_first =
            writer.is_some_and(|it| it.card.is_stranger && self.introduced.insert(it.key));
        let first_contact = writer
            .filter(|_| is_first)
            .map_or_else(String::new, |writer| {
                format!("\n{}", first_contact_text(message, writer))
            });
        self.session.line(&format!(
            "{origin}  {received_at}{written}  {}{saved}\n{}{first_contact}",
            output::count(len, "byte"),
            shown(message)
        ))
    }
}

/// How to deal with a stranger.
fn first_contact_text(message: &StoredMessage, writer: &ContactEntry) -> String {
    let id = message.id.to_string();
    let (id, name) = (mail::short_id(&id), people::argument(writer));
    format!(
        "  (a stranger: answer with `umbel reply {id} TEXT`, name it with `umbel contact rename {name} NEW`, or read no more \
         of it with `umbel contact block {name}`)"
    )
}

/// What people should know of an event; `name` may be shown.
pub(super) fn event_text(name: &str, event: ConversationEvent) -> Option<String> {
    Some(match event {
        ConversationEvent::Begun | ConversationEvent::Complete => return None,
        ConversationEvent::Missing(count) => format!(
            "{} missing from {name}: asked for again",
            messages_are(count)
        ),
        ConversationEvent::Lost(count) => format!(
            "{} lost from {name}: their sender gave them up",
            messages_are(count)
        ),
        ConversationEvent::Renewed => format!(
            "the keys of the conversation with {name} were renewed: one side had lost them, or was brought back from a backup"
        ),
        ConversationEvent::NewerProgram => {
            format!("{name} writes with a newer umbel: parts of its messages can't be read here")
        }
    })
}

fn messages_are(count: u64) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb}", output::count(count, "message"))
}

/// A message's text, as far as it can be shown.
fn shown(message: &StoredMessage) -> String {
    if message.body.is_text() {
        return mail::indented(&message.body);
    }
    let id = message.id.to_string();
    format!(
        "    (not text: `umbel show {} --output FILE` saves it)",
        mail::short_id(&id)
    )
}

/// Saves the body under the message's id; one that is there already was saved by an earlier run,
/// all of it.
fn save(dir: &Path, message: &StoredMessage) -> Result<PathBuf, Failure> {
    let path = dir.join(message.id.to_string());
    let is_saved = path
        .symlink_metadata()
        .is_ok_and(|there| there.is_file() && there.len() == message.body.len() as u64);
    if !is_saved {
        files::save(&path, message.body.bytes(), false)?;
    }
    Ok(path)
}

fn unreachable() -> Failure {
    Failure::new(
        Exit::Unreachable,
        "no relay could be reached",
        "check your connection; if every relay that you knew has moved, name one that is up with `umbel seed add \
         ID@HOST:PORT`; messages wait with their holders for days",
    )
}

fn no_circuit() -> Failure {
    Failure::new(
        Exit::Deferred,
        "no circuit could be built in time",
        "relays answer, but no circuit through them was completed: others may be down; wait longer with --timeout, or \
         try again later: messages wait with their holders for days",
    )
}

/// Circuits may have been built though none is open any more, so nothing is said of them.
fn unanswered(inboxes: usize) -> Failure {
    Failure::failed(
        format!("no mailbox of {} answered", output::count(inboxes, "inbox")),
        "try again in a minute: messages wait there for days, and lost mailboxes are replaced",
    )
}

/// How long fetching from these mailboxes may take.
fn time_for(mailboxes: usize) -> Duration {
    TIMEOUT
        + TIMEOUT_EACH
            * u32::try_from(mailboxes.saturating_sub(MAILBOXES_IN_TIME)).unwrap_or(u32::MAX)
}

/// `None` when time is up.
async fn next_until<T>(ends_at: Option<Instant>, next: impl Future<Output = T>) -> Option<T> {
    match ends_at {
        Some(ends_at) => timeout_at(ends_at, next).await.ok(),
        None => Some(next.await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_in_a_conversation_is_said_and_what_is_well_is_not() {
        let text = |event| event_text("bob", event);
        assert_eq!(
            text(ConversationEvent::Missing(2)).unwrap(),
            "2 messages are missing from bob: asked for again"
        );
        assert_eq!(
            text(ConversationEvent::Lost(1)).unwrap(),
            "1 message is lost from bob: their sender gave them up"
        );
        assert_eq!(text(ConversationEvent::Complete), None);
        assert_eq!(text(ConversationEvent::Begun), None);
    }

    #[test]
    fn mailboxes_that_do_not_answer_are_not_taken_for_an_unreachable_network() {
        let failure = unanswered(2);
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.error, "no mailbox of 2 inboxes answered");
    }
}
