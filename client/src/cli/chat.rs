//! `umbel chat`: a conversation live, line by line.
//!
//! What the user types is sent when the line ends; what comes is printed and marked read. Nothing is
//! waited for at the end: what was typed is in the outbox.

use std::collections::BTreeSet;
use std::io::{self, BufRead};
use std::thread;

use tokio::sync::mpsc;
use umbel_client::core::io::{ContactKey, Notice, Recipient, is_held_by_enough};
use umbel_client::display;
use umbel_client::{
    Client, ClientClosed, ContactEntry, Correspondent, HistoryFilter, NoticeGap, Reach, SendError,
    StoredMessage,
};
use umbel_proto::ids::MessageId;

use super::failure::Failure;
use super::session::Session;
use super::{history, mail, people, receive, watch};

/// How many earlier messages are shown first.
const SHOWN_FIRST: usize = 20;
/// Lines that were typed and wait; who pastes more waits, too.
const LINES_MAX: usize = 16;

#[derive(clap::Args)]
pub(super) struct ChatArgs {
    /// A contact's name or words
    name: String,
}

pub(super) async fn run(session: &Session, args: &ChatArgs) -> Result<(), Failure> {
    let work = async |client: &Client| {
        let who = people::find(client, &args.name).await?;
        let chat = Chat {
            session,
            client,
            name: &args.name,
            who,
            last: 0,
            sent: BTreeSet::new(),
        };
        chat.run().await
    };
    session.with_client(Reach::Online, work).await
}

struct Chat<'a> {
    session: &'a Session,
    client: &'a Client,
    /// As the user wrote it.
    name: &'a str,
    who: Correspondent,
    /// The place of the last message that was shown.
    last: i64,
    /// Messages of this chat that are not acknowledged.
    sent: BTreeSet<MessageId>,
}

impl Chat<'_> {
    async fn run(mut self) -> Result<(), Failure> {
        let mut notices = self.client.notices();
        self.show_new(SHOWN_FIRST).await?;
        self.listen().await?;
        self.client.flush().await?;
        let mut lines = typed();
        loop {
            tokio::select! {
                line = lines.recv() => match line {
                    Some(line) => self.send(line?).await?,
                    None => return Ok(()),
                },
                notice = notices.next() => match notice {
                    Ok(notice) => self.on_notice(notice).await?,
                    Err(NoticeGap::Missed(_)) => self.show_new(usize::MAX).await?,
                    Err(NoticeGap::Closed) => return Err(ClientClosed.into()),
                },
            }
        }
    }

    fn contact(&self) -> Option<&ContactEntry> {
        match &self.who {
            Correspondent::Contact(contact) => Some(contact),
            Correspondent::Address { .. } => None,
        }
    }

    async fn listen(&self) -> Result<(), Failure> {
        let inbox = self.contact().and_then(|it| it.card.inbox.as_deref());
        match inbox {
            Some(inbox) => self.client.listen(inbox, true).await?,
            None => self.client.listen_for_answers(true).await?,
        }
        Ok(())
    }

    async fn send(&mut self, line: String) -> Result<(), Failure> {
        if line.is_empty() {
            return Ok(());
        }
        let to = match &self.who {
            Correspondent::Contact(contact) => Recipient::Contact(contact.key),
            Correspondent::Address { address, .. } => Recipient::Owner {
                address: *address,
                writer: None,
            },
        };
        match self.client.send_to(to, line.into_bytes(), None).await {
            Ok(sent) => {
                self.sent.insert(sent.id);
                Ok(())
            }
            Err(SendError::Closed) => Err(ClientClosed.into()),
            // The chat goes on: the user sees which line it was.
            Err(error) => {
                let failure = Failure::from(error);
                self.session.warn(&format!("not sent: {}", failure.error));
                Ok(())
            }
        }
    }

    async fn on_notice(&mut self, notice: Notice) -> Result<(), Failure> {
        match notice {
            Notice::Received { .. } => self.show_new(usize::MAX).await,
            Notice::Held {
                id,
                holders,
                wanted,
            } if self.sent.contains(&id) && is_held_by_enough(holders, wanted) => {
                self.mark(id, "held")
            }
            Notice::Acknowledged(id) if self.sent.remove(&id) => self.mark(id, "acknowledged"),
            Notice::Failed { id, reason } if self.sent.remove(&id) => {
                self.session.warn(&format!("not sent: {reason}"));
                Ok(())
            }
            Notice::Expired { id, copies, wanted } if self.sent.remove(&id) => {
                self.session.warn(&watch::expired_text(id, copies, wanted));
                Ok(())
            }
            Notice::Conversation { contact, event } => {
                self.who = people::find(self.client, self.name).await?;
                let name = self.contact().filter(|it| it.key == contact);
                let name = name.map(|it| display::name(it.label()));
                if let Some(text) = name.and_then(|name| receive::event_text(&name, event)) {
                    self.session.warn(&text);
                }
                Ok(())
            }
            Notice::Unreachable | Notice::NoCircuits | Notice::Warning(_) => {
                self.session.show_notice(&notice);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// How far a message of this chat is.
    fn mark(&self, id: MessageId, state: &str) -> Result<(), Failure> {
        if self.session.is_json() {
            return self.session.json(&Mark {
                id: id.to_string(),
                state,
            });
        }
        let id = id.to_string();
        self.session
            .line(&format!("[{} {state}]", mail::short_id(&id)))
    }

    /// Shows what came since it was looked last, at most so many messages.
    async fn show_new(&mut self, limit: usize) -> Result<(), Failure> {
        let Some(contact) = self.contact().cloned() else {
            return Ok(());
        };
        let is_first = self.last == 0;
        let new = self.new_messages(contact.key, limit).await?;
        for message in new.iter().rev() {
            self.last = message.seq;
            let Some(place) = &message.conversation else {
                continue;
            };
            // The user sees what they type.
            if !place.is_own || is_first {
                history::print(self.session, message, place, &contact, None)?;
            }
            if !message.is_read {
                self.client.mark_read(message).await?;
            }
        }
        Ok(())
    }

    /// The last first.
    async fn new_messages(
        &self,
        contact: ContactKey,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, Failure> {
        let mut found: Vec<StoredMessage> = Vec::new();
        loop {
            let before = found.last().map(|message| message.seq);
            let left = limit.saturating_sub(found.len());
            let filter = HistoryFilter::default();
            let page = self.client.history(contact, filter, before, left).await?;
            let is_over = page.iter().any(|message| message.seq <= self.last) || page.is_empty();
            found.extend(page.into_iter().filter(|message| message.seq > self.last));
            if is_over {
                return Ok(found);
            }
        }
    }
}

#[derive(serde::Serialize)]
struct Mark<'a> {
    id: String,
    state: &'a str,
}

/// What is typed, line by line, until the input ends. Its thread ends with the process.
fn typed() -> mpsc::Receiver<Result<String, Failure>> {
    let (sender, lines) = mpsc::channel(LINES_MAX);
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|error| {
                Failure::failed(
                    format!("could not read standard input: {error}"),
                    "check where the input comes from",
                )
            });
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
