//! One mailbox that is fetched from: visited now and then, or subscribed to (docs/protocol.md
//! §10.2).
//!
//! Knows which records came and which must still be removed; never what becomes of a record.

use std::collections::BTreeSet;

use serde_bytes::ByteBuf;
use umbel_proto::chance::{Backoff, between, exponential};
use umbel_proto::ids::{RecordId, RelayId};
use umbel_proto::inbox::mailbox::{FETCH_BYTES_MAX, MailboxReply, QueueKind, Refusal, Verb};
use umbel_proto::limits::{
    PROBE_MAX, PROBE_MIN, PUSH_WINDOW_BYTES, REMOVE_MAX, SAVED_REMOVALS_MAX,
};
use umbel_proto::network::Params;
use umbel_proto::time::Instant;
use zeroize::Zeroizing;

use super::super::circuit::Isolation;
use super::super::context::Context;
use super::super::requests::{Answer, AskFault, Asker, Question, Requests};
use super::outage::visit_every_max;
use super::{MailboxId, OwnMailbox};

/// Most bytes that a subscription brings before records are removed: a quarter of the most that a
/// holder pushes.
const REMOVE_BYTES_MAX: usize = PUSH_WINDOW_BYTES / 4;
/// That is at most this part of what a queue holds, so that records waiting to be removed never
/// fill it.
const REMOVE_SHARE: usize = 8;

/// One mailbox that is fetched from.
pub(super) struct Visit {
    kind: QueueKind,
    pub(super) relay: RelayId,
    owner_seed: Zeroizing<[u8; 32]>,
    pub(super) seat: Seat,
    pub(super) phase: Phase,
    /// Subscriptions that worked and did not last, though the link did.
    pub(super) drops: Backoff,
    /// Records whose messages are durable here, to be removed from the holder.
    pub(super) remove: Vec<RecordId>,
    /// Bytes that were pushed since records were last removed.
    pushed_bytes: usize,
    /// Records whose messages are being stored.
    pub(super) unstored: BTreeSet<RecordId>,
    /// Whether there was more than came, or something has to come again.
    has_more: bool,
    /// When it is looked at although nothing happens to it: visited, probed, or subscribed to.
    next_at: Instant,
    /// No subscription before this.
    pub(super) yields_until: Instant,
    /// While the holder does not answer, the mailbox rests between two visits.
    backoff: Backoff,
    /// While messages of its records can't be stored here: no reason to have them sent over and
    /// over.
    store_backoff: Backoff,
    pub(super) seen: Seen,
}

/// The claim of a mailbox to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// Senders are no longer told of it: it is polled rarely.
    Left,
    /// It is polled: there is no place for its subscription.
    Polled,
    /// There is a place for its subscription.
    Seated,
}

/// The work under way at a mailbox.
pub(super) enum Phase {
    /// Nothing. It is visited when it is due.
    Idle,
    /// It was asked for records, or to remove some.
    Fetching(Fetch),
    /// A subscription was asked for, and nothing came of it yet.
    Subscribing(Subscription),
    /// It brought something, if only that the mailbox is empty, and brings what comes.
    Subscribed(Subscription),
}

/// A fetch in flight.
pub(super) struct Fetch {
    /// Whether it asks for records, and not only for removal.
    wants_records: bool,
    /// The records that it removes.
    pub(super) removes: Vec<RecordId>,
}

#[cfg(test)]
impl Fetch {
    pub(super) const fn for_test() -> Self {
        Self {
            wants_records: true,
            removes: Vec::new(),
        }
    }
}

/// A subscription that is not over.
pub(super) struct Subscription {
    pub(super) since: Instant,
    /// A fetch beside it: a probe, or one that removes records.
    pub(super) probe: Option<Fetch>,
}

/// A subscription that is over.
pub(super) struct Ended {
    pub(super) since: Instant,
    /// Whether it had brought something.
    has_answered: bool,
}

/// The result of the last fetch from a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Records,
    Empty,
    Failed,
}

/// The outcome of fetching from a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Outcome {
    /// Its holder answered.
    Answered,
    /// Its holder did not answer, or could not be reached, by whosever doing.
    Unreachable,
    /// The relay before its holder could not reach it.
    Dead,
    /// Its holder does not know it.
    Gone,
}

impl Phase {
    const fn fetch(&self) -> Option<&Fetch> {
        match self {
            Self::Idle => None,
            Self::Fetching(fetch) => Some(fetch),
            Self::Subscribing(subscription) | Self::Subscribed(subscription) => {
                subscription.probe.as_ref()
            }
        }
    }

    /// Whether a fetch is in flight.
    pub(super) const fn is_fetching(&self) -> bool {
        self.fetch().is_some()
    }

    /// Whether there is a subscription, from the request on.
    pub(super) const fn is_subscription(&self) -> bool {
        matches!(self, Self::Subscribing(_) | Self::Subscribed(_))
    }

    /// A fetch was sent.
    fn begin_fetch(&mut self, fetch: Fetch) {
        match self {
            Self::Idle => *self = Self::Fetching(fetch),
            Self::Subscribing(subscription) | Self::Subscribed(subscription) => {
                subscription.probe = Some(fetch);
            }
            Self::Fetching(_) => debug_assert!(false, "one fetch at a time"),
        }
    }

    /// The fetch in flight is over.
    pub(super) fn end_fetch(&mut self) -> Option<Fetch> {
        let (phase, fetch) = match core::mem::replace(self, Self::Idle) {
            Self::Idle => (Self::Idle, None),
            Self::Fetching(fetch) => (Self::Idle, Some(fetch)),
            Self::Subscribing(mut subscription) => {
                let probe = subscription.probe.take();
                (Self::Subscribing(subscription), probe)
            }
            Self::Subscribed(mut subscription) => {
                let probe = subscription.probe.take();
                (Self::Subscribed(subscription), probe)
            }
        };
        *self = phase;
        fetch
    }

    /// The subscription is over, and its probe is a fetch like any other.
    pub(super) fn end_subscription(&mut self) -> Option<Ended> {
        let (subscription, has_answered) = match core::mem::replace(self, Self::Idle) {
            Self::Subscribing(subscription) => (subscription, false),
            Self::Subscribed(subscription) => (subscription, true),
            other @ (Self::Idle | Self::Fetching(_)) => {
                *self = other;
                return None;
            }
        };
        let Subscription { since, probe } = subscription;
        *self = probe.map_or(Self::Idle, Self::Fetching);
        Some(Ended {
            since,
            has_answered,
        })
    }

    /// The subscription brought something.
    fn on_pushed(&mut self) {
        *self = match core::mem::replace(self, Self::Idle) {
            Self::Subscribing(subscription) => Self::Subscribed(subscription),
            other @ (Self::Idle | Self::Fetching(_) | Self::Subscribed(_)) => other,
        };
    }
}

impl Visit {
    pub(super) fn new(mailbox: &OwnMailbox, kind: QueueKind) -> Self {
        Self {
            kind,
            relay: mailbox.relay,
            owner_seed: Zeroizing::new(mailbox.owner_seed),
            seat: Seat::Polled,
            phase: Phase::Idle,
            drops: Backoff::default(),
            remove: Vec::new(),
            pushed_bytes: 0,
            unstored: BTreeSet::new(),
            has_more: false,
            next_at: Instant::default(),
            yields_until: Instant::default(),
            backoff: Backoff::default(),
            store_backoff: Backoff::default(),
            seen: Seen::Nothing,
        }
    }

    /// Whether senders are told of it.
    pub(super) const fn is_listed(&self) -> bool {
        matches!(self.seat, Seat::Polled | Seat::Seated)
    }

    /// Whether there is a place for its subscription.
    pub(super) const fn is_seated(&self) -> bool {
        matches!(self.seat, Seat::Seated)
    }

    /// Whether the last visits did not all fail.
    pub(super) fn is_in_reach(&self) -> bool {
        self.seen != Seen::Failed
    }

    /// When it is looked at next although nothing happens to it, a past moment included.
    pub(super) const fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Senders are told of it, or no longer.
    pub(super) const fn set_listed(&mut self, is_listed: bool) {
        self.seat = match (is_listed, self.seat) {
            (true, Seat::Seated) => Seat::Seated,
            (true, Seat::Polled | Seat::Left) => Seat::Polled,
            (false, _) => Seat::Left,
        };
    }

    /// It is polled from now on; says whether it had a subscription, which is over.
    pub(super) fn leave_place(&mut self) -> bool {
        if self.is_seated() {
            self.seat = Seat::Polled;
        }
        let had_subscription = self.phase.end_subscription().is_some();
        if had_subscription && !matches!(self.seen, Seen::Empty | Seen::Failed) {
            self.next_at = Instant::default(); // the subscription was to bring what there is
        }
        had_subscription
    }

    /// Asks its holder for what is due. Says whether a subscription began.
    pub(super) fn drive(
        &mut self,
        cx: &Context<'_>,
        requests: &mut Requests,
        id: MailboxId,
        is_interactive: bool,
    ) -> bool {
        let is_due = self.next_at <= cx.now;
        let subscribes = self.subscribes(is_interactive) && self.yields_until <= cx.now;
        if subscribes && !self.phase.is_subscription() {
            let begins = is_due && !self.phase.is_fetching();
            if begins {
                self.begin_subscription(cx, requests, id);
            }
            return begins;
        }
        if !self.phase.is_fetching() && self.unstored.is_empty() && self.wants_fetch(cx, is_due) {
            self.begin_fetch(cx, requests, id);
        }
        false
    }

    fn wants_fetch(&self, cx: &Context<'_>, is_due: bool) -> bool {
        let is_well = self.backoff.failures() == 0 && self.store_backoff.failures() == 0;
        let has_work = self.has_more || self.has_to_remove(&cx.network.params);
        is_due || (has_work && is_well)
    }

    /// Whether it has a subscription, or is to have one.
    const fn subscribes(&self, is_interactive: bool) -> bool {
        is_interactive && self.is_seated()
    }

    fn begin_subscription(&mut self, cx: &Context<'_>, requests: &mut Requests, id: MailboxId) {
        self.phase = Phase::Subscribing(Subscription {
            since: cx.now,
            probe: None,
        });
        let push_delay = cx.network.params.push_delay.as_millis();
        let verb = Verb::Subscribe {
            queue: id.queue,
            push_delay_ms: u32::try_from(push_delay).unwrap_or(u32::MAX),
        };
        self.ask(cx, requests, id, Asker::Subscribe(id), verb);
        // The subscription's first answer comes by itself.
        if self.seen != Seen::Failed {
            self.seen = Seen::Nothing;
        }
        self.next_at = cx.now + PROBE_MAX;
    }

    /// Removes what is durable here; asks for more unless a subscription brings it.
    fn begin_fetch(&mut self, cx: &Context<'_>, requests: &mut Requests, id: MailboxId) {
        let wants_records = self.has_more || !self.phase.is_subscription();
        let bytes_max = if wants_records { FETCH_BYTES_MAX } else { 0 };
        let count = self.remove.len().min(REMOVE_MAX);
        let removes: Vec<RecordId> = self.remove.drain(..count).collect();
        self.pushed_bytes = 0;
        let verb = Verb::Fetch {
            queue: id.queue,
            remove: removes.clone(),
            bytes_max,
        };
        self.phase.begin_fetch(Fetch {
            wants_records,
            removes,
        });
        self.ask(cx, requests, id, Asker::Fetch(id), verb);
    }

    fn ask(
        &self,
        cx: &Context<'_>,
        requests: &mut Requests,
        id: MailboxId,
        asker: Asker,
        verb: Verb,
    ) {
        let question = Question::Mailbox {
            verb,
            seed: self.owner_seed.clone(),
        };
        requests.ask(cx, asker, Isolation::Own(id), self.relay, question);
    }

    /// Forgets what was seen, except live subscriptions and mailboxes backing off.
    pub(super) fn look_again(&mut self, now: Instant) {
        let is_well = self.backoff.failures() == 0 && self.drops.is_due(now);
        if !self.phase.is_subscription() && is_well {
            self.seen = Seen::Nothing;
            self.next_at = self.next_at.min(now);
        }
    }

    /// A fetch was answered. While a subscription brings the rest, only a probe or a fetch that
    /// wants records says what there is to be fetched.
    pub(super) fn on_fetched(&mut self, fetch: &Fetch, has_records: bool, more: bool) {
        let is_acknowledgement =
            self.phase.is_subscription() && !fetch.wants_records && !fetch.removes.is_empty();
        self.backoff.reset();
        self.has_more = more && !is_acknowledgement;
        if !is_acknowledgement {
            self.seen = if more || has_records {
                Seen::Records
            } else {
                Seen::Empty
            };
        }
    }

    /// Draws when it is visited next. A subscription that must be made again does not wait for that.
    pub(super) fn plan_next(&mut self, cx: &mut Context<'_>, is_interactive: bool, crowding: u32) {
        if self.phase.is_subscription()
            || self.yields_until > cx.now
            || !self.subscribes(is_interactive)
        {
            self.next_at = self.next_visit(cx, is_interactive, crowding);
        }
    }

    /// When it is visited next if nothing comes before.
    fn next_visit(&self, cx: &mut Context<'_>, is_interactive: bool, crowding: u32) -> Instant {
        let params = &cx.network.params;
        let wait = if self.subscribes(is_interactive) {
            between(PROBE_MIN, PROBE_MAX, cx.rng)
        } else if self.is_listed() {
            exponential(params.fetch_interval.saturating_mul(crowding), cx.rng)
        } else {
            let interval = params.fetch_interval_background;
            exponential(interval.saturating_mul(crowding), cx.rng)
        };
        cx.now + wait
    }

    /// The link was lost with the subscription, which is asked for again then.
    pub(super) fn retry_at(&mut self, at: Instant) {
        self.next_at = at.max(self.drops.retry_at());
    }

    /// Its subscription is over, for this reason. Says what that means for the mailbox, if
    /// anything.
    pub(super) fn on_unsubscribed(
        &mut self,
        cx: &mut Context<'_>,
        ended: &Ended,
        answer: &Answer,
    ) -> Option<Outcome> {
        // Where another took its place it is polled meanwhile.
        if ended.has_answered && self.yields_until <= cx.now {
            self.drops.fail(&cx.network.params, cx.now, cx.rng);
        }
        if matches!(answer, Answer::Failed(AskFault::Dropped)) {
            self.next_at = self.drops.retry_at().max(cx.now);
            return None;
        }
        self.on_failed(cx, answer)
    }

    /// Later records are pushed as well, at once or when these are removed. The next probe removes
    /// them; with nothing to remove, a subscription that works needs no probe for a while.
    pub(super) fn on_pushed(&mut self, cx: &mut Context<'_>, records: &[ByteBuf], more: bool) {
        self.backoff.reset();
        self.phase.on_pushed();
        self.seen = if more { Seen::Records } else { Seen::Empty };
        self.pushed_bytes += records.iter().map(|record| record.len()).sum::<usize>();
        if self.remove.is_empty() {
            self.next_at = cx.now + between(PROBE_MIN, PROBE_MAX, cx.rng);
        }
    }

    /// Whether records have to leave the holder now.
    fn has_to_remove(&self, params: &Params) -> bool {
        let (records, bytes) = remove_from(self.kind, params);
        let is_pressing = self.remove.len() >= records || self.pushed_bytes >= bytes;
        !self.remove.is_empty() && (!self.phase.is_subscription() || is_pressing)
    }

    /// A message of this mailbox is durable here, and its record is removed (§10.5(4)); or it could
    /// not be stored, and has to come again.
    pub(super) fn on_stored(&mut self, cx: &mut Context<'_>, record: RecordId, is_stored: bool) {
        if is_stored {
            self.store_backoff.reset();
            return self.remove.push(record);
        }
        self.put_off(cx);
    }

    /// Records can't be stored now: they stay with their holder, and come again.
    pub(super) fn put_off(&mut self, cx: &mut Context<'_>) {
        self.has_more = true;
        // Messages fail together: that is one failure.
        if self.store_backoff.is_due(cx.now) {
            self.store_backoff.fail(&cx.network.params, cx.now, cx.rng);
        }
        self.next_at = self.store_backoff.retry_at().max(self.drops.retry_at());
    }

    /// The mailbox is left alone for a while. Says what that means for it, if anything.
    pub(super) fn on_failed(&mut self, cx: &mut Context<'_>, answer: &Answer) -> Option<Outcome> {
        // One that worked gets a second try before it counts as failed, and so does one whose holder
        // was perhaps never asked.
        let is_on_the_way = matches!(answer, Answer::Failed(fault) if fault.is_on_the_way());
        if self.backoff.failures() > 0 || (self.seen == Seen::Nothing && !is_on_the_way) {
            self.seen = Seen::Failed;
        }
        let mut wait = self.backoff.fail(&cx.network.params, cx.now, cx.rng);
        while self.is_listed() && wait > visit_every_max(&cx.network.params) {
            wait /= 2;
        }
        self.next_at = (cx.now + wait).max(self.drops.retry_at());
        match answer {
            Answer::Failed(fault) if fault.is_on_the_way() => None,
            Answer::Mailbox(MailboxReply::Refused(Refusal::NoQueue | Refusal::Signature)) => {
                Some(Outcome::Gone)
            }
            Answer::Failed(AskFault::Terminal) => Some(Outcome::Dead),
            Answer::Mailbox(MailboxReply::Refused(_)) => Some(Outcome::Answered),
            Answer::Mailbox(_) | Answer::Directory(_) | Answer::Failed(_) => {
                Some(Outcome::Unreachable)
            }
        }
    }

    /// Records that the fetch in flight removes.
    fn removing(&self) -> &[RecordId] {
        self.phase.fetch().map_or(&[], |fetch| &fetch.removes)
    }

    /// Whether this record is being dealt with.
    pub(super) fn has(&self, record: RecordId) -> bool {
        self.unstored.contains(&record)
            || self.remove.contains(&record)
            || self.removing().contains(&record)
    }

    /// Whether nothing is on its way from it, as far as can be known.
    pub(super) fn is_settled(&self) -> bool {
        let is_removed = self.remove.is_empty() && self.removing().is_empty();
        let is_removed = is_removed || self.phase.is_subscription();
        self.unstored.is_empty()
            && (self.seen == Seen::Failed || (self.seen == Seen::Empty && is_removed))
    }
}

/// From how many records, or bytes, on something has to leave a holder at once.
fn remove_from(kind: QueueKind, params: &Params) -> (usize, usize) {
    let (records, bytes) = match kind {
        QueueKind::Public => (params.public_records_max, params.public_bytes_max),
        QueueKind::Contact => (params.queue_records_max, params.queue_bytes_max),
    };
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let records = records / REMOVE_SHARE;
    (
        SAVED_REMOVALS_MAX.min(records).max(1),
        REMOVE_BYTES_MAX.min(bytes / REMOVE_SHARE).max(1),
    )
}

#[cfg(test)]
mod tests {
    use umbel_proto::ids::QueueId;
    use umbel_proto::network::Network;
    use umbel_proto::time::WallTime;

    use super::super::super::testing::When;
    use super::*;

    const WALL: WallTime = WallTime(1_790_000_000);

    #[test] // §10.5(5)
    fn a_mailbox_that_was_perhaps_never_asked_is_tried_again_before_it_has_failed() {
        let mailbox = OwnMailbox::for_test(RelayId([1; 32]), QueueId([1; QueueId::LEN]));
        let settled_after = |fault: AskFault, failures: usize| {
            let mut visit = Visit::new(&mailbox, QueueKind::Public);
            When::at(WALL).act(|cx| {
                (0..failures).for_each(|_| {
                    visit.on_failed(cx, &Answer::Failed(fault));
                });
            });
            visit.is_settled()
        };
        assert!(settled_after(AskFault::Terminal, 1));
        assert!(settled_after(AskFault::Silent, 1));
        for fault in [AskFault::NoCircuit, AskFault::Lost, AskFault::Dropped] {
            assert!(!settled_after(fault, 1), "{fault:?}");
            assert!(settled_after(fault, 2), "{fault:?}");
        }
    }

    #[test] // §10.5(6)
    fn a_queue_that_is_not_ours_any_more_is_gone() {
        let mailbox = OwnMailbox::for_test(RelayId([1; 32]), QueueId([1; QueueId::LEN]));
        let visit = |refusal| {
            let refused = Answer::Mailbox(MailboxReply::Refused(refusal));
            let visited = When::at(WALL)
                .act(|cx| Visit::new(&mailbox, QueueKind::Public).on_failed(cx, &refused));
            visited.0
        };
        assert_eq!(visit(Refusal::NoQueue), Some(Outcome::Gone));
        assert_eq!(visit(Refusal::Signature), Some(Outcome::Gone));
        assert_eq!(visit(Refusal::Busy), Some(Outcome::Answered));
    }

    #[test] // §10.5(4)
    fn what_waits_to_be_removed_is_a_small_part_of_what_a_queue_holds() {
        let mut params = Network::local().params;
        for (records_max, bytes_max, expected) in [
            (1, 128 << 10, (1, 16 << 10)),
            (16, 512 << 10, (2, 64 << 10)),
            (128, 2 << 20, (12, 96 << 10)),
            (4096, 128 << 20, (12, 96 << 10)),
        ] {
            params.public_records_max = records_max;
            params.public_bytes_max = bytes_max;
            assert_eq!(remove_from(QueueKind::Public, &params), expected);
        }
    }
}
