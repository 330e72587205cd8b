//! The mailboxes of one owner: which there are, which of them senders are told of, what visits say
//! of them (docs/protocol.md §10.5).
//!
//! Each has a holder apart from the others', if there is one. One that left those that senders are
//! told of stays for as long as a record lives there, up to a bound. What changes here is a `Change`
//! for the owner, who stores it and tells senders.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::chance::Backoff;
use umbel_proto::ids::{QueueId, RelayId};
use umbel_proto::limits::LEFT_MAILBOXES_MAX;
use umbel_proto::path::Paths;
use umbel_proto::time::Instant;

use super::super::context::Context;
use super::{Outage, Outcome, OwnMailbox};

/// All mailboxes of one owner.
#[derive(Default)]
pub(in super::super) struct Mailboxes {
    pub(super) all: Vec<OwnMailbox>,
    /// The state of each mailbox since the client started.
    pub(super) health: BTreeMap<QueueId, Health>,
    /// Relays that made no mailbox in this run, though they were asked often enough.
    pub(super) refusing: BTreeSet<RelayId>,
    /// Relays that hold what must not be linked with these, if there are others.
    pub(super) apart_from: BTreeSet<RelayId>,
    /// Mailboxes came, went, were made, or are listed or no longer.
    pub(super) has_moved: bool,
}

/// A mailbox's state since the client started.
#[derive(Default)]
pub(super) struct Health {
    pub(super) is_asked: bool,
    pub(super) backoff: Backoff,
    /// The last visit failed.
    pub(super) is_failing: bool,
    /// And that was the holder's doing, as far as can be known.
    pub(super) is_dead: bool,
}

/// A change of an owner's mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Change {
    /// There is something to store.
    State,
    /// And senders are told of other mailboxes.
    Listed,
    /// And one took the place of another that there was nothing left to wait for.
    Replaced,
}

impl Mailboxes {
    pub(in super::super) fn restore(all: Vec<OwnMailbox>) -> Self {
        Self {
            all,
            has_moved: true,
            ..Self::default()
        }
    }

    /// From now on other holders than these are drawn, if there are any.
    pub(in super::super) fn keep_apart_from(&mut self, relays: &[RelayId]) {
        if !self.apart_from.iter().eq(relays) {
            self.apart_from = relays.iter().copied().collect();
        }
    }

    /// Senders are no longer told of the usual mailbox that was made first: another takes its place.
    pub(in super::super) fn retire_oldest(&mut self, cx: &Context<'_>) {
        let mut usual = self.all.iter_mut();
        let oldest = usual.find(|mailbox| mailbox.is_listed() && !mailbox.is_companion);
        if let Some(mailbox) = oldest {
            mailbox.retired_at = Some(cx.wall);
            self.has_moved = true;
        }
    }

    /// All of them, replaced ones included.
    pub(in super::super) fn all(&self) -> &[OwnMailbox] {
        &self.all
    }

    /// The mailboxes that senders are told of.
    pub(in super::super) fn listed(&self) -> impl Iterator<Item = &OwnMailbox> {
        self.all.iter().filter(|mailbox| mailbox.is_listed())
    }

    /// The mailboxes to fetch from, with whether senders are told of each.
    pub(in super::super) fn created(&self) -> impl Iterator<Item = (&OwnMailbox, bool)> {
        let created = self.all.iter().filter(|mailbox| mailbox.is_created);
        created.map(|mailbox| (mailbox, mailbox.is_listed()))
    }

    /// How many of those that senders are told of are out of reach, and have companions.
    pub(in super::super) fn out_of_reach(&self) -> usize {
        let is_out = |mailbox: &&OwnMailbox| mailbox.outage.is_some_and(|it| it.is_out());
        self.listed().filter(is_out).count()
    }

    /// Whether mailboxes came, went, or changed their standing since this was last asked.
    pub(in super::super) const fn take_moved(&mut self) -> bool {
        core::mem::replace(&mut self.has_moved, false)
    }

    /// Whether a mailbox is missing, or a companion of one. An owner that is `new` may be told of
    /// without all.
    pub(in super::super) fn is_mending(&self, is_new: bool) -> bool {
        let mut missing = self.all.iter().filter(|mailbox| !mailbox.is_created);
        missing.any(|mailbox| mailbox.is_companion || !is_new)
    }

    /// Takes one step toward as many mailboxes in reach as are `wanted`, and says what it changed.
    /// Nothing is left to do once that is nothing.
    pub(in super::super) fn mend(
        &mut self,
        cx: &mut Context<'_>,
        paths: &Paths,
        wanted: usize,
    ) -> Option<Change> {
        if self.lacks_usual(wanted) && self.add(cx, paths, false) {
            return Some(Change::State);
        }
        self.see_to_companions(cx, paths)
    }

    fn lacks_usual(&self, wanted: usize) -> bool {
        let usual = self.all.iter();
        let usual = usual.filter(|mailbox| mailbox.retired_at.is_none() && !mailbox.is_companion);
        usual.count() < wanted
    }

    /// Whether the last visit to it was answered, as far as is known, and it has no outage.
    pub(in super::super) fn is_well(&self, queue: QueueId) -> bool {
        let is_failing = self.health.get(&queue).is_some_and(|it| it.is_failing);
        let mut mailboxes = self.all.iter().filter(|mailbox| mailbox.queue == queue);
        !is_failing && mailboxes.all(|mailbox| mailbox.outage.is_none())
    }

    /// A mailbox was visited. Returns whether that changes what is known of it.
    pub(in super::super) fn on_outcome(
        &mut self,
        cx: &mut Context<'_>,
        queue: QueueId,
        outcome: Outcome,
    ) -> Option<Change> {
        let mailbox = find(&mut self.all, queue)?;
        let health = self.health.entry(queue).or_default();
        (health.is_failing, health.is_dead) = (
            outcome != Outcome::Answered,
            matches!(outcome, Outcome::Dead | Outcome::Gone),
        );
        let before = mailbox.outage;
        mailbox.outage = match outcome {
            Outcome::Answered => before.and_then(|outage| outage.answered(cx)),
            Outcome::Unreachable | Outcome::Dead | Outcome::Gone => {
                let outage = before.unwrap_or_else(|| Outage::begin(cx));
                Some(outage.failed(cx, outcome == Outcome::Gone))
            }
        };
        (mailbox.outage != before).then_some(Change::State)
    }

    /// Forgets mailboxes that senders are no longer told of, once nothing can be in them any more, or
    /// there are too many of them.
    pub(in super::super) fn forget_retired(&mut self, cx: &Context<'_>) -> Option<Change> {
        let before = self.all.len();
        let life = cx.network.params.record_life;
        self.all.retain(|mailbox| {
            let retired_at = mailbox.retired_at;
            retired_at.is_none_or(|retired_at| retired_at + life > cx.confirmed)
        });
        while let Some(place) = self.surplus() {
            self.all.remove(place);
        }
        if self.all.len() == before {
            return None;
        }
        let all = &self.all;
        self.health
            .retain(|queue, _| all.iter().any(|mailbox| mailbox.queue == *queue));
        self.has_moved = true;
        Some(Change::State)
    }

    /// Where the mailbox is that is forgotten next, if too many were left: of the companions without
    /// an outage, since what they had was fetched, or else of all, the one that was left first.
    fn surplus(&self) -> Option<usize> {
        let left = self.all.iter().enumerate();
        let left = left.filter_map(|(place, mailbox)| {
            let is_fetched = mailbox.is_companion && mailbox.outage.is_none();
            mailbox.retired_at.map(|at| (!is_fetched, at, place))
        });
        let is_surplus = left.clone().count() > LEFT_MAILBOXES_MAX;
        is_surplus.then(|| left.min().map(|(_, _, place)| place))?
    }

    /// When one that is not made is asked for again, past moments included.
    pub(in super::super) fn timeouts(&self) -> impl Iterator<Item = Instant> {
        let missing = self.all.iter().filter(|mailbox| !mailbox.is_created);
        let health = missing.filter_map(|mailbox| self.health.get(&mailbox.queue));
        let waiting = health.filter(|health| !health.is_asked);
        waiting.map(|health| health.backoff.retry_at())
    }
}

pub(super) fn find(mailboxes: &mut [OwnMailbox], queue: QueueId) -> Option<&mut OwnMailbox> {
    mailboxes.iter_mut().find(|mailbox| mailbox.queue == queue)
}
