//! One message in the outbox: how far it is, and what its user has heard of it.

use umbel_proto::chance::Backoff;
use umbel_proto::ids::MessageId;
use umbel_proto::time::Instant;

use super::super::Context;
use super::super::delivery::Delivery;
use super::super::io::Notice;
use super::super::saving::Saving;

/// A message, and how far it is.
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) delivery: Delivery,
    /// When it was made, if that was since this client was started.
    pub(super) made_at: Option<Instant>,
    pub(super) stage: Stage,
    pub(super) saving: Saving,
    pub(super) told: Told,
    /// The holders last reported since this client was started, and how many were wanted then.
    pub(super) told_holders: Option<(usize, usize)>,
    pub(super) backoff: Backoff,
    /// When this attempt began.
    pub(super) attempt_at: Instant,
    /// Deposits failed: the descriptor may have changed.
    pub(super) needs_fresh: bool,
    /// The wait between two deposits that was last reported.
    pub(super) told_rest: Option<Instant>,
    /// The store was asked in this run to keep it beside what came.
    pub(super) is_written_noted: bool,
    /// When its conversation sealed it last, in this run.
    pub(super) sealed_at: Option<Instant>,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Until it is due.
    Waiting(Instant),
    /// The store failed: until it has taken the message, and it is due.
    Blocked(Instant),
    /// The descriptor is being looked up.
    Finding,
    /// Mailboxes are being tried.
    Depositing,
}

/// How much the user knows of a message's place in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing yet.
    Nothing,
    /// Nothing yet: the store failed, and what holders were asked is waited for.
    Doubtful,
    /// That it is not durable here.
    Unsaved,
    /// That it was durable here once.
    Queued,
}

impl Entry {
    /// Its user hears of it, unless the program says it.
    pub(super) fn notify(&self, cx: &mut Context<'_>, notice: Notice) {
        if !self.delivery.is_quiet() {
            cx.notify(notice);
        }
    }

    pub(super) fn tell_unsaved(&mut self, cx: &mut Context<'_>, id: MessageId) {
        self.told = Told::Unsaved;
        let may_be_out = self.delivery.may_be_out();
        self.notify(cx, Notice::Unsaved { id, may_be_out });
    }

    /// How many have it, and how many are wanted.
    pub(super) fn holders(&self, cx: &Context<'_>) -> (usize, usize) {
        (
            self.delivery.held_count(),
            self.delivery.wanted(&cx.network.params),
        )
    }

    /// Whether the user heard this already.
    pub(super) fn has_told(&self, last: &Notice) -> bool {
        matches!(last, &Notice::Held { holders, wanted, .. } if self.told_holders == Some((holders, wanted)))
    }

    pub(super) fn tell_held(&mut self, cx: &mut Context<'_>, id: MessageId) {
        self.told_holders = Some(self.holders(cx));
        self.notify(cx, self.held(cx, id));
    }

    /// Says who has it.
    pub(super) fn held(&self, cx: &Context<'_>, id: MessageId) -> Notice {
        let (holders, wanted) = self.holders(cx);
        Notice::Held {
            id,
            holders,
            wanted,
        }
    }

    /// Says that the next deposit waits for its moment, once for each.
    pub(super) fn tell_rest(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let rest = self.delivery.rests_until(cx.now);
        if let Some(until) = rest.filter(|_| self.told_rest != rest) {
            self.told_rest = rest;
            let wait = until.since(cx.now);
            self.notify(cx, Notice::Scheduled { id, wait });
        }
    }
}
