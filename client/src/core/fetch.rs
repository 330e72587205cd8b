//! Fetching for own inboxes (docs/protocol.md §10.2): each mailbox on a circuit of its own, at its
//! own times.
//!
//! A record is removed from its holder only after its message is durable here. While subscribed,
//! the removal waits for the next probe, which is sent anyway. The same message comes from several
//! mailboxes; it is stored and reported once.

mod relink;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use umbel_proto::ids::{MessageId, QueueId, RecordId, RelayId};
use umbel_proto::inbox::mailbox::{FETCH_BYTES_MAX, MailboxReply, Refusal, Verb};
use umbel_proto::inbox::record::{SealSecret, open_record, record_id};
use umbel_proto::limits::{
    PROBE_MAX, PROBE_MIN, PUSH_WINDOW_BYTES, REMOVE_MAX, REPLACED_POLL_FOR, SAVED_REMOVALS_MAX,
    SUBSCRIPTION_LASTED_MIN,
};
use umbel_proto::network::Params;
use umbel_proto::time::Instant;
use zeroize::Zeroizing;

use super::chance::{Backoff, between, exponential};
use super::circuit::Isolation;
use super::context::Context;
use super::inboxes::{Inboxes, OwnMailbox, Visit};
use super::io::{Notice, StoreOp, StoreTicket};
use super::requests::{Answer, AskFault, Asker, Question, Requests};
use relink::Relinks;

/// Most ids of messages that are remembered for an inbox, to tell copies; beyond it the oldest are
/// forgotten.
const RECEIVED_MAX: usize = 100_000;
/// Most mailboxes with a subscription, each of which takes up a circuit; the others are polled.
const SUBSCRIPTIONS_MAX: usize = 40;
/// Mailboxes that are polled as often as the network says; if there are more, each is polled less
/// often.
const POLLED_MAX: usize = 80;

/// Most bytes that a subscription brings before records are removed: a quarter of the most that a
/// holder pushes.
const REMOVE_BYTES_MAX: usize = PUSH_WINDOW_BYTES / 4;
/// That is at most this part of what a queue holds, so that records waiting to be removed never
/// fill it.
const REMOVE_SHARE: usize = 8;

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
    /// How many mailboxes answered when the user was last told that all were seen empty; `None`
    /// after news.
    told: Option<usize>,
}

/// One mailbox that is fetched from.
struct Visiting {
    relay: RelayId,
    owner_seed: Zeroizing<[u8; 32]>,
    /// Whether the descriptor names it.
    is_current: bool,
    is_fetching: bool,
    /// Whether the last fetch asked for records, and not only for removal.
    is_full: bool,
    is_subscribed: bool,
    /// Whether there is a place for its subscription.
    may_subscribe: bool,
    /// When it last subscribed.
    subscribed_at: Instant,
    /// Whether its subscription brought something, if only that it is empty.
    is_heard: bool,
    /// Subscriptions that worked and did not last, though the link did.
    drops: Backoff,
    /// Records whose messages are durable here, to be removed from the holder.
    remove: Vec<RecordId>,
    /// Records that a fetch in flight removes.
    removing: Vec<RecordId>,
    /// Bytes that were pushed since something was last removed.
    pushed_bytes: usize,
    /// Records whose messages are being stored.
    unstored: BTreeSet<RecordId>,
    /// Whether there was more than came, or something has to come again.
    has_more: bool,
    next_at: Instant,
    /// No subscription before this.
    yields_until: Instant,
    backoff: Backoff,
    /// While messages of its records can't be stored here: no reason to have them sent over and
    /// over.
    store_backoff: Backoff,
    seen: Seen,
}

/// The result of the last fetch from a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Records,
    Empty,
    Failed,
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
        self.seat_subscriptions();
        for (name, listener) in &mut self.listeners {
            let is_interactive = listener.is_interactive;
            for (&queue, visiting) in &mut listener.mailboxes {
                visiting.drive(cx, requests, name, queue, is_interactive);
            }
            listener.tell_if_caught_up(cx, name);
        }
    }

    /// Gives the places for subscriptions to the first mailbox of each inbox, then to the second,
    /// and so on. Who has one keeps it.
    fn seat_subscriptions(&mut self) {
        let interactive = || {
            self.listeners
                .values()
                .filter(|listener| listener.is_interactive)
        };
        let current = |listener: &Listener| {
            listener
                .mailboxes
                .values()
                .filter(|visiting| visiting.is_current)
                .count()
        };
        let ranks = interactive().map(current).max().unwrap_or_default();
        // A mailbox that was replaced keeps its subscription, and its circuit, for as long as that
        // lasts.
        let has_place = |visiting: &&Visiting| visiting.may_subscribe || visiting.is_subscribed;
        let seated = |listener: &Listener| listener.mailboxes.values().filter(has_place).count();
        let mut free = SUBSCRIPTIONS_MAX.saturating_sub(interactive().map(seated).sum());
        for rank in 0..ranks {
            for listener in self
                .listeners
                .values_mut()
                .filter(|listener| listener.is_interactive)
            {
                let mut current = listener
                    .mailboxes
                    .values_mut()
                    .filter(|visiting| visiting.is_current);
                let Some(visiting) = current.nth(rank).filter(|visiting| !visiting.may_subscribe)
                else {
                    continue;
                };
                if free == 0 {
                    return;
                }
                visiting.may_subscribe = true;
                free -= 1;
            }
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
        let count = polled.filter(|visiting| !visiting.is_subscribed).count();
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
        visiting.is_fetching = false;
        let Answer::Mailbox(MailboxReply::Fetched { records, more }) = answer else {
            let removing = core::mem::take(&mut visiting.removing);
            visiting.remove.extend(removing);
            let visit = visiting.on_failed(cx, &answer);
            return report(cx, inboxes, name, queue, visit);
        };
        // While a subscription brings the rest, only what a probe or a full fetch finds is there to
        // be fetched.
        let is_acknowledgement =
            visiting.is_subscribed && !visiting.is_full && !visiting.removing.is_empty();
        visiting.removing.clear();
        if is_acknowledgement {
            visiting.backoff.reset();
        } else {
            visiting.on_answered(&records, more);
        }
        visiting.has_more = more && !is_acknowledgement;
        // A subscription that is to be made again does not wait for the next probe.
        if visiting.is_subscribed
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
            visiting.is_subscribed = false;
            if visiting.subscribed_at + SUBSCRIPTION_LASTED_MIN <= cx.now {
                visiting.drops.reset();
            }
            // Nobody but us and the guard is behind the loss of the link.
            if matches!(answer, Answer::Failed(AskFault::Lost)) {
                let wait = self.relinks.wait(cx, places);
                visiting.next_at = (cx.now + wait).max(visiting.drops.retry_at());
                return;
            }
            // Where another took its place it is polled meanwhile.
            if visiting.is_heard && visiting.yields_until <= cx.now {
                visiting.drops.fail(cx);
            }
            if matches!(answer, Answer::Failed(AskFault::Dropped)) {
                visiting.next_at = visiting.drops.retry_at().max(cx.now);
                return;
            }
            let visit = visiting.on_failed(cx, &answer);
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
        let Some(secret) = inboxes.seal_secret(name) else {
            return;
        };
        for record in records {
            self.take_record(cx, secret, name, queue, record.as_ref());
        }
    }

    fn take_record(
        &mut self,
        cx: &mut Context<'_>,
        secret: &SealSecret,
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
        let Ok(message) = open_record(secret, bytes) else {
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

    /// Tells the user once every mailbox that the descriptor names was seen empty, or failed.
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

impl Visiting {
    fn new(mailbox: &OwnMailbox) -> Self {
        Self {
            relay: mailbox.relay,
            owner_seed: Zeroizing::new(mailbox.owner_seed),
            is_current: true,
            is_fetching: false,
            is_full: false,
            is_subscribed: false,
            may_subscribe: false,
            subscribed_at: Instant::default(),
            is_heard: false,
            drops: Backoff::default(),
            remove: Vec::new(),
            pushed_bytes: 0,
            removing: Vec::new(),
            unstored: BTreeSet::new(),
            has_more: false,
            next_at: Instant::default(),
            yields_until: Instant::default(),
            backoff: Backoff::default(),
            store_backoff: Backoff::default(),
            seen: Seen::Nothing,
        }
    }

    fn drive(
        &mut self,
        cx: &Context<'_>,
        requests: &mut Requests,
        name: &str,
        queue: QueueId,
        is_interactive: bool,
    ) {
        let is_due = self.next_at <= cx.now;
        let may_go_on =
            is_due || (self.backoff.failures() == 0 && self.store_backoff.failures() == 0);
        if self.subscribes(is_interactive) && !self.is_subscribed && self.yields_until <= cx.now {
            if is_due && !self.is_fetching {
                self.is_subscribed = true;
                self.subscribed_at = cx.now;
                self.is_heard = false;
                let push_delay = cx.network.params.push_delay.as_millis();
                let push_delay_ms = u32::try_from(push_delay).unwrap_or(u32::MAX);
                let asker = Asker::Subscribe {
                    inbox: name.to_owned(),
                    queue,
                };
                self.ask(
                    cx,
                    requests,
                    name,
                    asker,
                    Verb::Subscribe {
                        queue,
                        push_delay_ms,
                    },
                );
                // The subscription's first answer comes by itself.
                self.seen = if self.seen == Seen::Failed {
                    Seen::Failed
                } else {
                    Seen::Nothing
                };
                self.next_at = cx.now + PROBE_MAX;
            }
            return;
        }
        if self.is_fetching || !self.unstored.is_empty() {
            return;
        }
        let is_wanted =
            is_due || ((self.has_more || self.has_to_remove(&cx.network.params)) && may_go_on);
        if is_wanted {
            self.fetch(cx, requests, name, queue);
        }
    }

    /// Whether it has a subscription, or is to have one.
    const fn subscribes(&self, is_interactive: bool) -> bool {
        is_interactive && self.is_current && self.may_subscribe
    }

    /// Removes what is durable here; asks for more unless a subscription brings it.
    fn fetch(&mut self, cx: &Context<'_>, requests: &mut Requests, name: &str, queue: QueueId) {
        self.is_full = self.has_more || !self.is_subscribed;
        let bytes_max = if self.is_full { FETCH_BYTES_MAX } else { 0 };
        self.removing = self
            .remove
            .drain(..self.remove.len().min(REMOVE_MAX))
            .collect();
        self.pushed_bytes = 0;
        self.is_fetching = true;
        let asker = Asker::Fetch {
            inbox: name.to_owned(),
            queue,
        };
        let verb = Verb::Fetch {
            queue,
            remove: self.removing.clone(),
            bytes_max,
        };
        self.ask(cx, requests, name, asker, verb);
    }

    /// Forgets what was seen, except live subscriptions and mailboxes backing off.
    fn look_again(&mut self, now: Instant) {
        if !self.is_subscribed && self.backoff.failures() == 0 && self.drops.is_due(now) {
            self.seen = Seen::Nothing;
            self.next_at = self.next_at.min(now);
        }
    }

    fn ask(&self, cx: &Context<'_>, requests: &mut Requests, name: &str, asker: Asker, verb: Verb) {
        let isolation = Isolation::Own {
            inbox: name.to_owned(),
            queue: verb.queue(),
        };
        requests.ask(
            cx,
            asker,
            isolation,
            self.relay,
            Question::Mailbox {
                verb,
                seed: self.owner_seed.clone(),
            },
        );
    }

    fn on_answered(&mut self, records: &[impl AsRef<[u8]>], more: bool) {
        self.backoff.reset();
        self.seen = if more || !records.is_empty() {
            Seen::Records
        } else {
            Seen::Empty
        };
    }

    /// Later records are pushed as well, at once or when these are removed. The next probe removes
    /// them; with nothing to remove, a subscription that works needs no probe for a while.
    fn on_pushed(&mut self, cx: &mut Context<'_>, records: &[impl AsRef<[u8]>], more: bool) {
        self.backoff.reset();
        self.is_heard = true;
        self.seen = if more { Seen::Records } else { Seen::Empty };
        self.pushed_bytes += records
            .iter()
            .map(|record| record.as_ref().len())
            .sum::<usize>();
        if self.remove.is_empty() {
            self.next_at = cx.now + between(PROBE_MIN, PROBE_MAX, cx.rng);
        }
    }

    /// Whether records have to leave the holder now.
    fn has_to_remove(&self, params: &Params) -> bool {
        let (records, bytes) = remove_from(params);
        let is_pressing = self.remove.len() >= records || self.pushed_bytes >= bytes;
        !self.remove.is_empty() && (!self.is_subscribed || is_pressing)
    }

    /// A message of this mailbox is durable here, or could not be stored: then its record has to
    /// come again.
    fn on_stored(&mut self, cx: &mut Context<'_>, record: RecordId, is_stored: bool) {
        if is_stored {
            self.store_backoff.reset();
            return self.remove.push(record);
        }
        self.has_more = true;
        // Messages fail together: that is one failure.
        if self.store_backoff.is_due(cx.now) {
            self.store_backoff.fail(cx);
        }
        self.next_at = self.store_backoff.retry_at().max(self.drops.retry_at());
    }

    /// When the mailbox is visited next if nothing comes before.
    fn next_visit(&self, cx: &mut Context<'_>, is_interactive: bool, crowding: u32) -> Instant {
        let params = &cx.network.params;
        cx.now
            + if self.subscribes(is_interactive) {
                between(PROBE_MIN, PROBE_MAX, cx.rng)
            } else if self.is_current {
                exponential(params.fetch_interval.saturating_mul(crowding), cx.rng)
            } else {
                exponential(
                    params.fetch_interval_background.saturating_mul(crowding),
                    cx.rng,
                )
            }
    }

    /// The mailbox is left alone for a while. Says what that means for it, if anything.
    fn on_failed(&mut self, cx: &mut Context<'_>, answer: &Answer) -> Option<Visit> {
        // One that worked gets a second try before it counts as failed.
        if self.backoff.failures() > 0 || self.seen == Seen::Nothing {
            self.seen = Seen::Failed;
        }
        self.next_at = (cx.now + self.backoff.fail(cx)).max(self.drops.retry_at());
        match answer {
            Answer::Failed(
                AskFault::NoCircuit | AskFault::Broken { .. } | AskFault::Lost | AskFault::Dropped,
            ) => None,
            Answer::Mailbox(MailboxReply::Refused(Refusal::NoQueue)) => Some(Visit::Gone),
            Answer::Failed(AskFault::Terminal) => Some(Visit::Dead),
            Answer::Mailbox(MailboxReply::Refused(_)) => Some(Visit::Answered),
            Answer::Mailbox(_) | Answer::Directory(_) | Answer::Failed(_) => {
                Some(Visit::Unreachable)
            }
        }
    }

    /// Whether this record is being dealt with.
    fn has(&self, record: RecordId) -> bool {
        self.unstored.contains(&record)
            || self.remove.contains(&record)
            || self.removing.contains(&record)
    }

    /// Whether nothing is on its way from it, as far as can be known.
    fn is_settled(&self) -> bool {
        let is_removed = self.is_subscribed || (self.remove.is_empty() && self.removing.is_empty());
        self.unstored.is_empty()
            && (self.seen == Seen::Failed || (self.seen == Seen::Empty && is_removed))
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

/// From how many records, or bytes, on something has to leave a holder at once.
fn remove_from(params: &Params) -> (usize, usize) {
    let bytes = usize::try_from(params.queue_bytes_max).unwrap_or(usize::MAX);
    let records = params.queue_records_max / REMOVE_SHARE;
    (
        SAVED_REMOVALS_MAX.min(records).max(1),
        REMOVE_BYTES_MAX.min(bytes / REMOVE_SHARE).max(1),
    )
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
    use umbel_proto::network::Network;

    use super::*;

    #[test] // §10.5(4)
    fn what_waits_to_be_removed_is_a_small_part_of_what_a_queue_holds() {
        let mut params = Network::local().params;
        for (records_max, bytes_max, expected) in [
            (1, 128 << 10, (1, 16 << 10)),
            (16, 512 << 10, (2, 64 << 10)),
            (128, 2 << 20, (12, 96 << 10)),
            (4096, 128 << 20, (12, 96 << 10)),
        ] {
            params.queue_records_max = records_max;
            params.queue_bytes_max = bytes_max;
            assert_eq!(remove_from(&params), expected);
        }
    }

    #[test] // §10.2
    fn a_replaced_mailbox_keeps_its_place_while_its_subscription_lasts() {
        let visiting = |number: u8, is_current: bool| {
            let mailbox = OwnMailbox::for_test(
                RelayId([number; RelayId::LEN]),
                QueueId([number; QueueId::LEN]),
            );
            let is_subscribed = !is_current;
            (
                mailbox.queue,
                Visiting {
                    is_current,
                    is_subscribed,
                    ..Visiting::new(&mailbox)
                },
            )
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
            fetching.seat_subscriptions();
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
