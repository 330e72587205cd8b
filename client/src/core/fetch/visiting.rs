//! One mailbox that is fetched from: visited now and then, or subscribed to (docs/protocol.md
//! §10.2).
//!
//! Knows which records came and which must still be removed. `Fetching` decides what becomes of a
//! record.

use std::collections::BTreeSet;

use umbel_proto::ids::{QueueId, RecordId, RelayId};
use umbel_proto::inbox::mailbox::{FETCH_BYTES_MAX, MailboxReply, Refusal, Verb};
use umbel_proto::limits::{
    PROBE_MAX, PROBE_MIN, PUSH_WINDOW_BYTES, REMOVE_MAX, SAVED_REMOVALS_MAX,
};
use umbel_proto::network::Params;
use umbel_proto::time::Instant;
use zeroize::Zeroizing;

use super::super::chance::{Backoff, between, exponential};
use super::super::circuit::Isolation;
use super::super::context::Context;
use super::super::inboxes::{OwnMailbox, Visit};
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
    pub(super) is_fetching: bool,
    /// Whether the last fetch asked for records, and not only for removal.
    pub(super) is_full: bool,
    pub(super) is_subscribed: bool,
    /// Whether there is a place for its subscription.
    pub(super) may_subscribe: bool,
    /// When it last subscribed.
    pub(super) subscribed_at: Instant,
    /// Whether its subscription brought something, if only that it is empty.
    pub(super) is_heard: bool,
    /// Subscriptions that worked and did not last, though the link did.
    pub(super) drops: Backoff,
    /// Records whose messages are durable here, to be removed from the holder.
    pub(super) remove: Vec<RecordId>,
    /// Records that a fetch in flight removes.
    pub(super) removing: Vec<RecordId>,
    /// Bytes that were pushed since something was last removed.
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
    pub(super) const fn subscribes(&self, is_interactive: bool) -> bool {
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
    pub(super) fn look_again(&mut self, now: Instant) {
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

    pub(super) fn on_answered(&mut self, records: &[impl AsRef<[u8]>], more: bool) {
        self.backoff.reset();
        self.seen = if more || !records.is_empty() {
            Seen::Records
        } else {
            Seen::Empty
        };
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
    pub(super) fn on_stored(&mut self, cx: &mut Context<'_>, record: RecordId, is_stored: bool) {
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
    pub(super) fn has(&self, record: RecordId) -> bool {
        self.unstored.contains(&record)
            || self.remove.contains(&record)
            || self.removing.contains(&record)
    }

    /// Whether nothing is on its way from it, as far as can be known.
    pub(super) fn is_settled(&self) -> bool {
        let is_removed = self.is_subscribed || (self.remove.is_empty() && self.removing.is_empty());
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
}
