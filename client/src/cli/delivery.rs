//! Watches messages on their way from the outbox to their holders.

use std::collections::BTreeMap;

use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::{DeferReason, Notice, OutboxEntry, SendFault};
use umbel_client::{Client, ClientClosed, NoticeGap, Notices, SendError};
use umbel_proto::ids::MessageId;
use umbel_proto::time::Duration;

use super::failure::{Exit, Failure};
use super::session::Session;

/// Bounds of how long copies that are outstanding are waited for once enough holders have a message.
const LINGER: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(1));
/// The part of the time taken so far that they are waited for, between these bounds.
const LINGER_SHARE: u32 = 4;

/// How far one message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Enough holders have it.
    Held,
    /// It is still in the outbox.
    Queued(Obstacle),
    /// It can't be sent.
    Failed(SendFault),
}

/// Why a message is still in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Time was up.
    Time,
    /// No relay could be reached.
    Unreachable,
    /// This attempt failed, and the next is not now.
    Deferred(DeferReason),
}

/// One message, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) holders: usize,
    pub(super) wanted: Option<usize>,
    fate: Option<Fate>,
}

impl Progress {
    /// So many have it.
    fn set_held(&mut self, holders: usize, wanted: usize) {
        self.holders = holders;
        self.wanted = Some(wanted);
    }

    /// The same, and that is news.
    fn on_held(&mut self, holders: usize, wanted: usize) {
        self.set_held(holders, wanted);
        if self.is_held_enough() {
            self.fate = Some(Fate::Held);
        } else if self.fate == Some(Fate::Held) {
            self.fate = None;
        }
    }

    fn is_held_enough(&self) -> bool {
        self.holders > 0 && self.wanted.is_some_and(|wanted| self.holders >= wanted)
    }

    /// What keeps it in the outbox: of no concern where enough have it.
    fn fate_by(&self, obstacle: Obstacle) -> Fate {
        if self.is_held_enough() { Fate::Held } else { Fate::Queued(obstacle) }
    }

    fn on_obstacle(&mut self, obstacle: Obstacle) {
        self.fate = Some(self.fate_by(obstacle));
    }

    pub(super) fn fate(&self) -> Fate {
        self.fate.unwrap_or_else(|| self.fate_by(Obstacle::Time))
    }

    /// As JSON and people are told.
    pub(super) fn state(&self) -> &'static str {
        match self.fate() {
            Fate::Held => "held",
            Fate::Queued(_) => "queued",
            Fate::Failed(_) => "failed",
        }
    }
}

/// Some messages on their way.
pub(super) struct Delivery {
    pub(super) messages: BTreeMap<MessageId, Progress>,
    began_at: Instant,
    ends_at: Instant,
}

impl Delivery {
    /// None so far; to be waited for until `timeout` has passed.
    pub(super) fn new(timeout: Duration) -> Self {
        let began_at = Instant::now();
        Self { messages: BTreeMap::new(), began_at, ends_at: began_at + timeout }
    }

    /// This one too, which nobody has yet.
    pub(super) fn watch(&mut self, id: MessageId) {
        self.messages.entry(id).or_default();
    }

    /// These too, until an attempt at each has ended; enough may have had some of them before.
    pub(super) fn watch_all(&mut self, outbox: impl IntoIterator<Item = OutboxEntry>) {
        for OutboxEntry { id, holders, wanted, .. } in outbox {
            self.messages.entry(id).or_default().set_held(holders, wanted);
        }
    }

    /// Waits until the fate of each is known.
    pub(super) async fn wait(
        &mut self,
        session: &Session,
        client: &Client,
        notices: &mut Notices,
    ) -> Result<(), Failure> {
        while self.messages.values().any(|progress| progress.fate.is_none()) {
            match timeout_at(self.ends_at, notices.next()).await {
                Ok(Ok(notice)) => self.on_notice(session, &notice),
                Ok(Err(NoticeGap::Missed(_))) => self.compare(client).await?,
                Ok(Err(NoticeGap::Closed)) => return Err(ClientClosed.into()),
                Err(_elapsed) => return Ok(()),
            }
        }
        Ok(())
    }

    fn on_notice(&mut self, session: &Session, notice: &Notice) {
        session.show_notice(notice);
        self.take(notice);
    }

    fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::Held { id, holders, wanted } => {
                if let Some(progress) = self.messages.get_mut(id) {
                    progress.on_held(*holders, *wanted);
                }
            }
            Notice::Deferred { id, reason, retry_in } => {
                let is_too_late = Instant::now() + *retry_in >= self.ends_at;
                if let Some(progress) = self.messages.get_mut(id).filter(|_| is_too_late) {
                    progress.on_obstacle(Obstacle::Deferred(*reason));
                }
            }
            Notice::Failed { id, reason } => {
                if let Some(progress) = self.messages.get_mut(id) {
                    progress.fate = Some(Fate::Failed(*reason));
                }
            }
            Notice::Unreachable => {
                let open = self.messages.values_mut().filter(|progress| progress.fate.is_none());
                open.for_each(|progress| progress.on_obstacle(Obstacle::Unreachable));
            }
            _ => {}
        }
    }

    /// After missed notices: what is no longer in the outbox has enough holders, unless it can't be sent.
    async fn compare(&mut self, client: &Client) -> Result<(), Failure> {
        self.take_outbox(client.status().await?.outbox);
        Ok(())
    }

    fn take_outbox(&mut self, outbox: Vec<OutboxEntry>) {
        let outbox: BTreeMap<MessageId, OutboxEntry> = outbox.into_iter().map(|entry| (entry.id, entry)).collect();
        for (id, progress) in &mut self.messages {
            match outbox.get(id) {
                Some(entry) => progress.on_held(entry.holders, entry.wanted),
                None if matches!(progress.fate, Some(Fate::Failed(_))) => {}
                None => progress.fate = Some(Fate::Held),
            }
        }
    }

    /// A little longer, for the copies beyond those that are needed: as long as a message is held and still in the outbox,
    /// there are some.
    pub(super) async fn linger(
        &mut self,
        session: &Session,
        client: &Client,
        notices: &mut Notices,
    ) -> Result<(), Failure> {
        let wait = (self.began_at.elapsed() / LINGER_SHARE).clamp(LINGER.0, LINGER.1);
        let ends_at = (Instant::now() + wait).min(self.ends_at);
        loop {
            let outbox = client.status().await?.outbox;
            let is_held = |id| self.messages.get(id).is_some_and(|one| one.fate == Some(Fate::Held));
            let is_outstanding = outbox.iter().any(|entry| is_held(&entry.id));
            // What was told before is heard in any case.
            let until = if is_outstanding { ends_at } else { Instant::now() };
            match timeout_at(until, notices.next()).await {
                Ok(Ok(notice)) => self.on_notice(session, &notice),
                Ok(Err(NoticeGap::Missed(_))) => self.compare(client).await?,
                Ok(Err(NoticeGap::Closed)) | Err(_) => return Ok(()),
            }
        }
    }

    /// What the command has to say for itself.
    pub(super) fn outcome(&self) -> Result<(), Failure> {
        let fates = || self.messages.values().map(Progress::fate);
        if let Some(fault) = fates().find_map(|fate| match fate {
            Fate::Failed(fault) => Some(fault),
            Fate::Held | Fate::Queued(_) => None,
        }) {
            return Err(SendError::from(fault).into());
        }
        let Some(obstacle) = fates().find_map(|fate| match fate {
            Fate::Queued(obstacle) => Some(obstacle),
            Fate::Held | Fate::Failed(_) => None,
        }) else {
            return Ok(());
        };
        let count = fates().filter(|fate| matches!(fate, Fate::Queued(_))).count();
        let what = if count == 1 { "the message is" } else { "messages are" };
        Err(Failure::new(exit(obstacle), format!("{}: {what} safe in the outbox", text(obstacle)), hint(obstacle)))
    }
}

fn exit(obstacle: Obstacle) -> Exit {
    match obstacle {
        Obstacle::Unreachable => Exit::Unreachable,
        Obstacle::Time | Obstacle::Deferred(_) => Exit::Deferred,
    }
}

fn text(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Time => "too few holders have it yet",
        Obstacle::Unreachable => "no relay could be reached",
        Obstacle::Deferred(DeferReason::NoCircuit) => "no circuit could be built",
        Obstacle::Deferred(DeferReason::NoDescriptor) => "no directory relay knows this address",
        Obstacle::Deferred(DeferReason::Holders) => "too few of the inbox's holders could be reached or would take it",
        Obstacle::Deferred(DeferReason::QueueFull) => "the inbox is full",
    }
}

fn hint(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Unreachable => {
            "check your connection, and that a seed of the profile is up; the next send or receive tries again"
        }
        Obstacle::Deferred(DeferReason::NoDescriptor) => {
            "compare the address with its owner's, who has to be online once a week; the next send or receive tries again"
        }
        Obstacle::Deferred(DeferReason::QueueFull) => {
            "its owner has to receive first; the next send or receive tries again"
        }
        Obstacle::Time | Obstacle::Deferred(_) => "the next send or receive tries again, as does `umbel send --flush`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId([1; 16]);

    fn held(holders: usize, wanted: usize) -> Notice {
        Notice::Held { id: ID, holders, wanted }
    }

    fn entry(holders: usize) -> OutboxEntry {
        let address = *umbel_proto::inbox::address::InboxIdentity::from_seed(&[3; 32]).address();
        let created_at = umbel_proto::time::WallTime(1_790_000_000);
        OutboxEntry {
            id: ID,
            address,
            len: 5,
            created_at,
            expires_at: created_at + Duration::from_secs(1000),
            holders,
            wanted: 2,
            obstacle: None,
            next_try_at: None,
        }
    }

    fn deferred() -> Notice {
        Notice::Deferred { id: ID, reason: DeferReason::Holders, retry_in: Duration::from_secs(3600) }
    }

    /// A message that was in the outbox with so many of two holders, after these notices.
    fn after(holders: usize, notices: &[Notice]) -> Delivery {
        let mut delivery = Delivery::new(Duration::from_secs(60));
        delivery.watch_all(vec![entry(holders)]);
        notices.iter().for_each(|notice| delivery.take(notice));
        delivery
    }

    fn is_waited_for(delivery: &Delivery) -> bool {
        delivery.messages.values().any(|progress| progress.fate.is_none())
    }

    #[test]
    fn a_message_that_enough_have_is_waited_for_until_an_attempt_ends_and_is_held_whatever_comes_of_it() {
        assert!(is_waited_for(&after(2, &[])));
        for (last, is_over) in [(None, false), (Some(held(2, 2)), true), (Some(Notice::Unreachable), true)] {
            let delivery = after(2, last.as_slice());
            assert_eq!(is_waited_for(&delivery), !is_over);
            assert_eq!(delivery.messages[&ID].fate(), Fate::Held);
            assert!(delivery.outcome().is_ok());
        }
    }

    #[test]
    fn a_message_that_too_few_have_is_queued_until_more_do() {
        let obstacle = Fate::Queued(Obstacle::Deferred(DeferReason::Holders));
        for (notices, expected) in [
            (vec![], Fate::Queued(Obstacle::Time)),
            (vec![Notice::Unreachable], Fate::Queued(Obstacle::Unreachable)),
            (vec![deferred()], obstacle),
            (vec![held(1, 2), deferred()], obstacle),
            (vec![deferred(), held(2, 2)], Fate::Held),
            (vec![held(2, 2), deferred()], Fate::Held),
            (vec![held(1, 1)], Fate::Held),
            (vec![held(1, 1), held(1, 3)], Fate::Queued(Obstacle::Time)),
        ] {
            let delivery = after(0, &notices);
            assert_eq!(delivery.messages[&ID].fate(), expected, "{notices:?}");
            assert_eq!(delivery.outcome().is_ok(), expected == Fate::Held);
        }
    }

    #[test]
    fn what_is_out_of_the_outbox_was_held_unless_it_could_not_be_sent() {
        let failed = Notice::Failed { id: ID, reason: SendFault::TooLong };
        for (notice, expected) in [(deferred(), Fate::Held), (failed, Fate::Failed(SendFault::TooLong))] {
            let mut delivery = after(0, &[notice]);
            delivery.take_outbox(Vec::new());
            assert_eq!(delivery.messages[&ID].fate(), expected);
        }
        let mut delivery = after(0, &[]);
        delivery.take_outbox(vec![entry(1)]);
        assert_eq!((delivery.messages[&ID].holders, is_waited_for(&delivery)), (1, true));
    }
}
