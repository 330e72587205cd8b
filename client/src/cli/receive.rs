//! `umbel receive`: print the messages that came, and fetch more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::{InboxEntry, Notice, Warning};
use umbel_client::display;
use umbel_client::{
    Claim, Client, ClientClosed, ListenError, NoticeGap, Notices, Reach, StoredMessage,
};
use umbel_proto::time::Duration;
use umbel_relay::shell::Clock;

use super::failure::{Exit, Failure, store_hint};
use super::mending::Mending;
use super::session::Session;
use super::view::ViewWait;
use super::watch::{self, Stage, Watch};
use super::{files, inbox, mail, output, times};

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
    /// The inbox's name [default: all inboxes]
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
    inbox: &'a str,
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
}

/// The mailboxes that one run fetches from, and their answers so far.
struct Fetching {
    /// When to stop waiting; `None` for never.
    ends_at: Option<Instant>,
    inbox_count: usize,
    /// Inboxes that may still hold messages from before this run.
    open: BTreeSet<String>,
    /// Inboxes of which no mailbox answered the last time, or none was asked yet.
    silent: BTreeSet<String>,
    /// Inboxes of which each mailbox was asked, and none answered.
    unanswered: BTreeSet<String>,
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
        if inboxes.is_empty() {
            return self.deliver_only(&mut notices).await;
        }
        self.print_unread().await?;
        if self.has_enough() {
            return Ok(());
        }
        let mut fetching = self.begin(inboxes).await?;
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

    /// Has the client fetch from these inboxes.
    async fn begin(&self, inboxes: Vec<InboxEntry>) -> Result<Fetching, Failure> {
        self.session.show("fetching");
        self.client.flush().await?;
        if self.goes_on() {
            inbox::warn_of_unpublished(self.session, &inboxes, None);
        }
        for inbox in &inboxes {
            self.client.listen(&inbox.name, self.args.follow).await?;
        }
        let mailboxes = inboxes.iter().map(|inbox| inbox.mailboxes).sum();
        let timeout = self
            .args
            .timeout
            .or_else(|| (!self.goes_on()).then(|| time_for(mailboxes)));
        let ends_at = timeout.map(|timeout| Instant::now() + timeout);
        let inboxes: BTreeSet<String> = inboxes.into_iter().map(|inbox| inbox.name).collect();
        Ok(Fetching {
            ends_at,
            inbox_count: inboxes.len(),
            mending: Mending::new(inboxes.clone()),
            open: inboxes.clone(),
            silent: inboxes,
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
            let is_heard = fetching.silent.len() < fetching.inbox_count;
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
            if all.is_empty() && status.outbox.is_empty() {
                return Err(Failure::failed(
                    "there is no inbox yet",
                    "make one with `umbel inbox create NAME`",
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
        inbox: String,
        answered: usize,
        mailboxes: usize,
    ) {
        fetching.is_unreachable = false;
        if answered == 0 {
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
            let (name, mailboxes) = (display::name(&inbox), output::count(mailboxes, "mailbox"));
            self.session.warn(&format!(
                "only {answered} of the {mailboxes} of \"{name}\" answered"
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
                let printed = self.print(&message);
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

    fn print(&self, message: &StoredMessage) -> Result<(), Failure> {
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
            return self.session.json(&Line {
                inbox: &message.inbox,
                id,
                body_b64,
                len,
                received_at,
                file,
            });
        }
        let inbox = display::name(&message.inbox);
        let saved = file.map_or_else(String::new, |file| {
            format!(", saved as {}", display::text(&file))
        });
        self.session.line(&format!(
            "{inbox}  {received_at}  {}{saved}\n{}",
            output::count(len, "byte"),
            shown(message)
        ))
    }
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
    fn mailboxes_that_do_not_answer_are_not_taken_for_an_unreachable_network() {
        let failure = unanswered(2);
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.error, "no mailbox of 2 inboxes answered");
    }
}
