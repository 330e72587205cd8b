//! Fetching for own inboxes (docs/protocol.md §10.2): each mailbox on a circuit of its own, at its
//! own times.
//!
//! A record is removed from its holder only after its message is durable here. While subscribed,
//! the removal waits for the next probe, which is sent anyway. The same message comes from several
//! mailboxes; it is stored and reported once.

mod places;
mod relink;
mod visiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use umbel_proto::ids::{MessageId, QueueId, RecordId};
use umbel_proto::inbox::mailbox::{MailboxReply, Refusal};
use umbel_proto::inbox::record::record_id;
use umbel_proto::limits::{REPLACED_POLL_FOR, SUBSCRIPTION_LASTED_MIN};
use umbel_proto::time::Instant;

use super::context::Context;
use super::inboxes::{Inboxes, OwnMailbox, Visit};
use super::io::{Notice, StoreOp, StoreTicket};
use super::requests::{Answer, AskFault, Requests};
use relink::Relinks;
use visiting::{Seen, Visiting};

/// Most message ids remembered for an inbox, to recognise copies; beyond it the oldest are
/// forgotten.
const RECEIVED_MAX: usize = 100_000;
/// Mailboxes that are polled as often as the network says; if there are more, each is polled less
/// often.
const POLLED_MAX: usize = 80;

/// Everything that is fetched for.
#[derive(Default)]
pub(super) struct Fetching {
    listeners: BTreeMap<String, Listener>,
    received: BTreeMap<String, Received>,
    storing: BTreeMap<StoreTicket, Storing>,
    relinks: Relinks,
}

/// One inbox that is fetched for.
#[derive(Default)]
struct Listener {
    is_interactive: bool,
    mailboxes: BTreeMap<QueueId, Visiting>,
    /// How many mailboxes had answered at the last `CaughtUp`; `None` after news.
    told: Option<usize>,
}

/// Messages that came, in that order.
#[derive(Default)]
struct Received {
    ids: BTreeSet<MessageId>,
    order: VecDeque<MessageId>,
}

/// A message being stored, and where its copies are.
struct Storing {
    inbox: String,
    message: MessageId,
    copies: Vec<(QueueId, RecordId)>,
}

impl Fetching {
    /// This message came before the client was started.
    pub(super) fn restore(&mut self, inbox: String, message: MessageId) {
        self.received.entry(inbox).or_default().insert(message);
    }

    /// Begins to fetch for this inbox. Asked again, by another user of the same profile, it looks
    /// again; a subscription that one of them holds is kept.
    pub(super) fn listen(&mut self, now: Instant, name: String, is_interactive: bool) {
        let listener = self.listeners.entry(name).or_default();
        listener.is_interactive |= is_interactive;
        listener.told = None;
        listener
            .mailboxes
            .values_mut()
            .for_each(|visiting| visiting.look_again(now));
    }

    /// Fetches what is due.
    pub(super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &Inboxes,
        requests: &mut Requests,
    ) {
        for (name, listener) in &mut self.listeners {
            listener.follow(inboxes.mailboxes(name));
        }
        for (name, queue) in places::seat(&mut self.listeners) {
            requests.withdraw_subscription(&name, queue);
        }
        for (name, listener) in &mut self.listeners {
            let is_interactive = listener.is_interactive;
            for (&queue, visiting) in &mut listener.mailboxes {
                visiting.drive(cx, requests, name, queue, is_interactive);
            }
            listener.tell_if_caught_up(cx, name);
        }
    }

    /// How many mailboxes have a place for a subscription.
    fn places(&self) -> usize {
        let interactive = self
            .listeners
            .values()
            .filter(|listener| listener.is_interactive);
        interactive
            .flat_map(|listener| listener.mailboxes.values())
            .filter(|visiting| visiting.may_subscribe)
            .count()
    }

    /// By how much longer than the network has it the polled mailboxes wait for their turn.
    fn crowding(&self) -> u32 {
        let polled = self
            .listeners
            .values()
            .flat_map(|listener| listener.mailboxes.values());
        let count = polled
            .filter(|visiting| visiting.subscription.is_none())
            .count();
        u32::try_from(count.div_ceil(POLLED_MAX))
            .unwrap_or(u32::MAX)
            .max(1)
    }

    pub(super) fn timeout(&self, after: Instant) -> Option<Instant> {
        let mailboxes = self
            .listeners
            .values()
            .flat_map(|listener| listener.mailboxes.values());
        mailboxes
            .map(|visiting| visiting.next_at)
            .filter(|&at| at > after)
            .min()
    }

    /// A mailbox answered a fetch, or did not.
    pub(super) fn on_fetch(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &mut Inboxes,
        name: &str,
        queue: QueueId,
        answer: Answer,
    ) {
        let crowding = self.crowding();
        let Some(listener) = self.listeners.get_mut(name) else {
            return;
        };
        let is_interactive = listener.is_interactive;
        let Some(visiting) = listener.mailboxes.get_mut(&queue) else {
            return;
        };
        let Some(fetch) = visiting.fetch.take() else {
            return;
        };
        let Answer::Mailbox(MailboxReply::Fetched { records, more }) = answer else {
            visiting.remove.extend(fetch.removes);
            let visit = visiting.on_failed(cx, &answer);
            return report(cx, inboxes, name, queue, visit);
        };
        visiting.on_fetched(&fetch, &records, more);
        // A subscription that must be made again does not wait for the next probe.
        if visiting.subscription.is_some()
            || visiting.yields_until > cx.now
            || !visiting.subscribes(is_interactive)
        {
            visiting.next_at = visiting.next_visit(cx, is_interactive, crowding);
        }
        self.take_records(cx, inboxes, name, queue, &records);
        report(cx, inboxes, name, queue, Some(Visit::Answered));
    }

    /// A subscription brought something, or is over.
    pub(super) fn on_push(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &mut Inboxes,
        name: &str,
        queue: QueueId,
        answer: Answer,
    ) {
        let places = self.places();
        let Some(visiting) = self
            .listeners
            .get_mut(name)
            .and_then(|listener| listener.mailboxes.get_mut(&queue))
        else {
            return;
        };
        if matches!(
            answer,
            Answer::Mailbox(MailboxReply::Refused(Refusal::Replaced))
        ) {
            visiting.yields_until = cx.now + REPLACED_POLL_FOR;
            inboxes.on_replaced(cx, name, visiting.relay);
        }
        let Answer::Mailbox(MailboxReply::Fetched { records, more }) = answer else {
            let Some(ended) = visiting.subscription.take() else {
                return;
            };
            if ended.since + SUBSCRIPTION_LASTED_MIN <= cx.now {
                visiting.drops.reset();
            }
            // Nobody but us and the guard is behind the loss of the link.
            if matches!(answer, Answer::Failed(AskFault::Lost)) {
                let wait = self.relinks.wait(cx, places);
                visiting.next_at = (cx.now + wait).max(visiting.drops.retry_at());
                return;
            }
            let visit = visiting.on_unsubscribed(cx, &ended, &answer);
            return report(cx, inboxes, name, queue, visit);
        };
        visiting.on_pushed(cx, &records, more);
        self.take_records(cx, inboxes, name, queue, &records);
        report(cx, inboxes, name, queue, Some(Visit::Answered));
    }

    /// Says whether the ticket was one of ours.
    pub(super) fn on_stored(
        &mut self,
        cx: &mut Context<'_>,
        ticket: StoreTicket,
        is_stored: bool,
    ) -> bool {
        let Some(Storing {
            inbox,
            message,
            copies,
        }) = self.storing.remove(&ticket)
        else {
            return false;
        };
        let mut listener = self.listeners.get_mut(&inbox);
        for (queue, record) in copies {
            let visiting = listener
                .as_mut()
                .and_then(|listener| listener.mailboxes.get_mut(&queue));
            let Some(visiting) = visiting else { continue };
            visiting.unstored.remove(&record);
            visiting.on_stored(cx, record, is_stored);
        }
        if is_stored {
            self.received
                .entry(inbox.clone())
                .or_default()
                .insert(message);
            if let Some(listener) = listener {
                listener.told = None;
            }
            cx.notify(Notice::Received { inbox, id: message });
        }
        true
    }

    /// Opens records; stores what is new, and has copies and what can't be opened removed.
    fn take_records(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &Inboxes,
        name: &str,
        queue: QueueId,
        records: &[impl AsRef<[u8]>],
    ) {
        for record in records {
            self.take_record(cx, inboxes, name, queue, record.as_ref());
        }
    }

    fn take_record(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &Inboxes,
        name: &str,
        queue: QueueId,
        bytes: &[u8],
    ) {
        let Some(listener) = self.listeners.get_mut(name) else {
            return;
        };
        let Some(visiting) = listener.mailboxes.get_mut(&queue) else {
            return;
        };
        let record = record_id(bytes);
        if visiting.has(record) {
            return;
        }
        let Some(opened) = inboxes.open(cx, name, bytes) else {
            return;
        };
        let Ok(message) = opened else {
            return visiting.remove.push(record);
        };
        if self
            .received
            .get(name)
            .is_some_and(|received| received.ids.contains(&message.id))
        {
            return visiting.remove.push(record);
        }
        visiting.unstored.insert(record);
        let same = |storing: &&mut Storing| storing.inbox == name && storing.message == message.id;
        if let Some(storing) = self.storing.values_mut().find(same) {
            return storing.copies.push((queue, record));
        }
        let id = message.id;
        let op = StoreOp::PutMessage {
            inbox: name.to_owned(),
            id,
            body: message.body,
            received_at: cx.wall,
        };
        let storing = Storing {
            inbox: name.to_owned(),
            message: id,
            copies: vec![(queue, record)],
        };
        self.storing.insert(cx.store(op), storing);
    }
}

impl Listener {
    /// Fetches from these mailboxes and no others.
    fn follow<'a>(&mut self, mailboxes: impl Iterator<Item = (&'a OwnMailbox, bool)>) {
        let mut followed = BTreeSet::new();
        for (mailbox, is_current) in mailboxes {
            followed.insert(mailbox.queue);
            let visiting = self
                .mailboxes
                .entry(mailbox.queue)
                .or_insert_with(|| Visiting::new(mailbox));
            visiting.is_current = is_current;
            visiting.may_subscribe &= is_current;
        }
        self.mailboxes.retain(|queue, _| followed.contains(queue));
    }

    /// Reports `CaughtUp` once every mailbox that the descriptor names was seen empty, or failed.
    fn tell_if_caught_up(&mut self, cx: &mut Context<'_>, name: &str) {
        let current = || {
            self.mailboxes
                .values()
                .filter(|visiting| visiting.is_current)
        };
        let mailboxes = current().count();
        if mailboxes == 0 || !current().all(Visiting::is_settled) {
            return;
        }
        let answered = current()
            .filter(|visiting| visiting.seen == Seen::Empty)
            .count();
        if self.told != Some(answered) {
            self.told = Some(answered);
            cx.notify(Notice::CaughtUp {
                inbox: name.to_owned(),
                answered,
                mailboxes,
            });
        }
    }
}

impl Received {
    fn insert(&mut self, message: MessageId) {
        if self.ids.insert(message) {
            self.order.push_back(message);
        }
        if self.order.len() > RECEIVED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

fn report(
    cx: &mut Context<'_>,
    inboxes: &mut Inboxes,
    name: &str,
    queue: QueueId,
    visit: Option<Visit>,
) {
    if let Some(visit) = visit {
        inboxes.on_visit(cx, name, queue, visit);
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::ids::RelayId;

    use super::places::SUBSCRIPTIONS_MAX;
    use super::visiting::Subscription;
    use super::*;

    #[test] // §10.2
    fn a_replaced_mailbox_keeps_its_place_while_its_subscription_lasts() {
        let visiting = |number: u8, is_current: bool| {
            let mailbox = OwnMailbox::for_test(
                RelayId([number; RelayId::LEN]),
                QueueId([number; QueueId::LEN]),
            );
            let mut visiting = Visiting::new(&mailbox);
            visiting.is_current = is_current;
            visiting.subscription = (!is_current).then_some(Subscription {
                since: Instant::default(),
                has_answered: true,
            });
            (mailbox.queue, visiting)
        };
        let seats = |retired: u8| {
            let mailboxes = (0..100)
                .map(|number| visiting(number, number >= retired))
                .collect();
            let listener = Listener {
                is_interactive: true,
                mailboxes,
                ..Listener::default()
            };
            let mut fetching = Fetching {
                listeners: [("box".to_owned(), listener)].into(),
                ..Fetching::default()
            };
            places::seat(&mut fetching.listeners);
            let mailboxes = fetching
                .listeners
                .values()
                .flat_map(|listener| listener.mailboxes.values());
            mailboxes.filter(|visiting| visiting.may_subscribe).count()
        };
        assert_eq!(
            (seats(0), seats(15), seats(60)),
            (SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_MAX - 15, 0)
        );
    }
}
