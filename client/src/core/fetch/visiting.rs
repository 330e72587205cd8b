//! One mailbox that is fetched from: visited now and then, or subscribed to (docs/protocol.md
//! §10.2).
//!
//! Knows which records came and which must still be removed. `Fetching` decides what becomes of a
//! record.

use std::collections::BTreeSet;

use umbel_proto::chance::{Backoff, between, exponential};
use umbel_proto::ids::{QueueId, RecordId, RelayId};
use umbel_proto::inbox::mailbox::{FETCH_BYTES_MAX, MailboxReply, Refusal, Verb};
use umbel_proto::limits::{
    PROBE_MAX, PROBE_MIN, PUSH_WINDOW_BYTES, REMOVE_MAX, SAVED_REMOVALS_MAX,
};
use umbel_proto::network::Params;
use umbel_proto::time::Instant;
use zeroize::Zeroizing;

use super::super::circuit::Isolation;
use super::super::context::Context;
use super::super::inboxes::{OwnMailbox, Visit, visit_every_max};
use super::super::requests::{Answer, AskFault, Asker, Question, Requests};

/// Most bytes that a subscription brings before records are removed: a quarter of the most that a
/// holder pushes.
const REMOVE_BYTES_MAX: usize = PUSH_WINDOW_BYTES / 4;
/// That is at most this part of what a queue holds, so that records waiting to be removed never
/// fill it.
const REMOVE_SHARE: usize = 8;

/// One mailbox that is fetched from.
pub(super) struct Visiting {
    pub(super) relay: RelayId,
    owner_seed: Zeroizing<[u8; 32]>,
    /// Whether the descriptor names it.
    pub(super) is_current: bool,
    /// Whether there is a place for its subscription.
    pub(super) may_subscribe: bool,
    /// The fetch in flight.
    pub(super) fetch: Option<Fetch>,
    /// Its subscription, from the request on.
    pub(super) subscription: Option<Subscription>,
    /// Subscriptions that worked and did not last, though the link did.
    pub(super) drops: Backoff,
    /// Records whose messages are durable here, to be removed from the holder.
    pub(super) remove: Vec<RecordId>,
    /// Bytes that were pushed since records were last removed.
    pushed_bytes: usize,
    /// Records whose messages are being stored.
    pub(super) unstored: BTreeSet<RecordId>,
    /// Whether there was more than came, or something has to come again.
    pub(super) has_more: bool,
    pub(super) next_at: Instant,
    /// No subscription before this.
    pub(super) yields_until: Instant,
    pub(super) backoff: Backoff,
    /// While messages of its records can't be stored here: no reason to have them sent over and
    /// over.
    store_backoff: Backoff,
    pub(super) seen: Seen,
}

/// A fetch in flight.
pub(super) struct Fetch {
    /// Whether it asks for records, and not only for removal.
    pub(super) wants_records: bool,
    /// The records that it removes.
    pub(super) removes: Vec<RecordId>,
}

/// A subscription that was asked for and is not over.
pub(super) struct Subscription {
    pub(super) since: Instant,
    /// Whether it brought something, if only that the mailbox is empty.
    pub(super) has_answered: bool,
}

/// The result of the last fetch from a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Records,
    Empty,
    Failed,
}

impl Visiting {
    pub(super) fn new(mailbox: &OwnMailbox) -> Self {
        Self {
            relay: mailbox.relay,
            owner_seed: Zeroizing::new(mailbox.owner_seed),
            is_current: true,
            may_subscribe: false,
            fetch: None,
            subscription: None,
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

    pub(super) fn drive(
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
        let subscribes = self.subscribes(is_interactive) && self.yields_until <= cx.now;
        if subscribes && self.subscription.is_none() {
            if is_due && self.fetch.is_none() {
                self.begin_subscription(cx, requests, name, queue);
            }
            return;
        }
        if self.fetch.is_some() || !self.unstored.is_empty() {
            return;
        }
        let is_wanted =
            is_due || ((self.has_more || self.has_to_remove(&cx.network.params)) && may_go_on);
        if is_wanted {
            self.begin_fetch(cx, requests, name, queue);
        }
    }

    /// Whether it has a subscription, or is to have one.
    pub(super) const fn subscribes(&self, is_interactive: bool) -> bool {
        is_interactive && self.is_current && self.may_subscribe
    }

    fn begin_subscription(
        &mut self,
        cx: &Context<'_>,
        requests: &mut Requests,
        name: &str,
        queue: QueueId,
    ) {
        self.subscription = Some(Subscription {
            since: cx.now,
            has_answered: false,
        });
        let push_delay = cx.network.params.push_delay.as_millis();
        let asker = Asker::Subscribe {
            inbox: name.to_owned(),
            queue,
        };
        let verb = Verb::Subscribe {
            queue,
            push_delay_ms: u32::try_from(push_delay).unwrap_or(u32::MAX),
        };
        self.ask(cx, requests, name, asker, verb);
        // The subscription's first answer comes by itself.
        if self.seen != Seen::Failed {
            self.seen = Seen::Nothing;
        }
        self.next_at = cx.now + PROBE_MAX;
    }

    /// Removes what is durable here; asks for more unless a subscription brings it.
    fn begin_fetch(
        &mut self,
        cx: &Context<'_>,
        requests: &mut Requests,
        name: &str,
        queue: QueueId,
    ) {
        let wants_records = self.has_more || self.subscription.is_none();
        let bytes_max = if wants_records { FETCH_BYTES_MAX } else { 0 };
        let count = self.remove.len().min(REMOVE_MAX);
        let removes: Vec<RecordId> = self.remove.drain(..count).collect();
        self.pushed_bytes = 0;
        let asker = Asker::Fetch {
            inbox: name.to_owned(),
            queue,
        };
        let verb = Verb::Fetch {
            queue,
            remove: removes.clone(),
            bytes_max,
        };
        self.fetch = Some(Fetch {
            wants_records,
            removes,
        });
        self.ask(cx, requests, name, asker, verb);
    }

    /// Forgets what was seen, except live subscriptions and mailboxes backing off.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.subscription.is_none() && self.backoff.failures() == 0 && self.drops.is_due(now) {
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

    /// A fetch was answered. While a subscription brings the rest, only a probe or a fetch that
    /// wants records says what there is to be fetched.
    pub(super) fn on_fetched(&mut self, fetch: &Fetch, records: &[impl AsRef<[u8]>], more: bool) {
        let is_acknowledgement =
            self.subscription.is_some() && !fetch.wants_records && !fetch.removes.is_empty();
        self.backoff.reset();
        self.has_more = more && !is_acknowledgement;
        if !is_acknowledgement {
            self.seen = if more || !records.is_empty() {
                Seen::Records
            } else {
                Seen::Empty
            };
        }
    }

    /// Its subscription is over, for this reason. Says what that means for the mailbox, if
    /// anything.
    pub(super) fn on_unsubscribed(
        &mut self,
        cx: &mut Context<'_>,
        ended: &Subscription,
        answer: &Answer,
    ) -> Option<Visit> {
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
    pub(super) fn on_pushed(
        &mut self,
        cx: &mut Context<'_>,
        records: &[impl AsRef<[u8]>],
        more: bool,
    ) {
        self.backoff.reset();
        if let Some(subscription) = &mut self.subscription {
            subscription.has_answered = true;
        }
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
        !self.remove.is_empty() && (self.subscription.is_none() || is_pressing)
    }

    /// A message of this mailbox is durable here, and its record is removed (§10.5(4)); or it could
    /// not be stored, and has to come again.
    pub(super) fn on_stored(&mut self, cx: &mut Context<'_>, record: RecordId, is_stored: bool) {
        if is_stored {
            self.store_backoff.reset();
            return self.remove.push(record);
        }
        self.has_more = true;
        // Messages fail together: that is one failure.
        if self.store_backoff.is_due(cx.now) {
            self.store_backoff.fail(&cx.network.params, cx.now, cx.rng);
        }
        self.next_at = self.store_backoff.retry_at().max(self.drops.retry_at());
    }

    /// When the mailbox is visited next if nothing comes before.
    pub(super) fn next_visit(
        &self,
        cx: &mut Context<'_>,
        is_interactive: bool,
        crowding: u32,
    ) -> Instant {
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
    pub(super) fn on_failed(&mut self, cx: &mut Context<'_>, answer: &Answer) -> Option<Visit> {
        // One that worked gets a second try before it counts as failed, and so does one whose holder
        // was perhaps never asked.
        let is_on_the_way = matches!(answer, Answer::Failed(fault) if fault.is_on_the_way());
        if self.backoff.failures() > 0 || (self.seen == Seen::Nothing && !is_on_the_way) {
            self.seen = Seen::Failed;
        }
        let mut wait = self.backoff.fail(&cx.network.params, cx.now, cx.rng);
        while self.is_current && wait > visit_every_max(&cx.network.params) {
            wait /= 2;
        }
        self.next_at = (cx.now + wait).max(self.drops.retry_at());
        match answer {
            Answer::Failed(fault) if fault.is_on_the_way() => None,
            Answer::Mailbox(MailboxReply::Refused(Refusal::NoQueue | Refusal::Signature)) => {
                Some(Visit::Gone)
            }
            Answer::Failed(AskFault::Terminal) => Some(Visit::Dead),
            Answer::Mailbox(MailboxReply::Refused(_)) => Some(Visit::Answered),
            Answer::Mailbox(_) | Answer::Directory(_) | Answer::Failed(_) => {
                Some(Visit::Unreachable)
            }
        }
    }

    /// Records that the fetch in flight removes.
    fn removing(&self) -> &[RecordId] {
        self.fetch.as_ref().map_or(&[], |fetch| &fetch.removes)
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
        let is_removed = is_removed || self.subscription.is_some();
        self.unstored.is_empty()
            && (self.seen == Seen::Failed || (self.seen == Seen::Empty && is_removed))
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::network::Network;
    use umbel_proto::time::{Moment, WallTime};

    use super::super::super::testing::surroundings;
    use super::*;

    #[test] // §10.5(5)
    fn a_mailbox_that_was_perhaps_never_asked_is_tried_again_before_it_has_failed() {
        let wall = WallTime(1_790_000_000);
        let mut shared = surroundings(Network::local(), wall);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let now = Instant::default();
        let mut cx = shared.context(Moment { now, wall }, &mut rng);
        let mailbox = OwnMailbox::for_test(RelayId([1; 32]), QueueId([1; QueueId::LEN]));
        let mut settled_after = |fault: AskFault, failures: usize| {
            let mut visiting = Visiting::new(&mailbox);
            (0..failures).for_each(|_| {
                visiting.on_failed(&mut cx, &Answer::Failed(fault));
            });
            visiting.is_settled()
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
        let wall = WallTime(1_790_000_000);
        let mut shared = surroundings(Network::local(), wall);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let now = Instant::default();
        let mut cx = shared.context(Moment { now, wall }, &mut rng);
        let mailbox = OwnMailbox::for_test(RelayId([1; 32]), QueueId([1; QueueId::LEN]));
        let mut visit = |refusal| {
            let refused = Answer::Mailbox(MailboxReply::Refused(refusal));
            Visiting::new(&mailbox).on_failed(&mut cx, &refused)
        };
        assert_eq!(visit(Refusal::NoQueue), Some(Visit::Gone));
        assert_eq!(visit(Refusal::Signature), Some(Visit::Gone));
        assert_eq!(visit(Refusal::Busy), Some(Visit::Answered));
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
            params.queue_records_max = records_max;
            params.queue_bytes_max = bytes_max;
            assert_eq!(remove_from(&params), expected);
        }
    }
}
