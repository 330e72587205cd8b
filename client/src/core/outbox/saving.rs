//! How a message of the outbox becomes durable, and what the user hears while the store fails
//! (docs/protocol.md §10.5).

use umbel_proto::ids::MessageId;
use umbel_proto::time::{Duration, Instant};

use super::super::context::Context;
use super::super::io::{Notice, StoreOp, StoreTicket, Stored};
use super::super::saving::{STORE_RETRY, Saving};
use super::{Outbox, Stage, Told};

/// How long after a holder took a message that is stored: the others' answers are mostly in it
/// then, or need no storing.
pub(super) const STORE_ANSWERS_AFTER: Duration = Duration::from_secs(1);

impl Outbox {
    /// The store has this message as it was then, or could not take it.
    pub(in super::super) fn on_stored(
        &mut self,
        cx: &mut Context<'_>,
        id: MessageId,
        ticket: StoreTicket,
        is_stored: bool,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.saving == Saving::Storing(ticket) && is_stored {
            entry.saving = Saving::Saved;
        }
        if is_stored {
            self.on_durable(cx, id);
        } else {
            self.on_store_failed(cx, id);
        }
    }

    /// The message is safe: now the user hears so, and of what happened meanwhile.
    fn on_durable(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let stage = entry.stage;
        if entry.told != Told::Queued {
            entry.told = Told::Queued;
            entry.notify(cx, Notice::Queued(id));
            if entry.delivery.held_count() > 0 {
                entry.tell_held(cx, id);
                // The message may have been written before.
                self.save_by(id, cx.now + STORE_ANSWERS_AFTER);
            }
        }
        if let Stage::Blocked(until) = stage {
            self.wait(id, until);
        }
    }

    /// Nothing more of it is sent until the store works again; requests in flight can't be called
    /// back.
    fn on_store_failed(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let until = match entry.stage {
            // The next attempt stays at the time that was reported.
            Stage::Waiting(until) | Stage::Blocked(until) => until,
            Stage::Finding | Stage::Depositing => cx.now,
        };
        self.waiting.remove(&(until, entry.seq, id));
        self.active.remove(&(entry.seq, id));
        entry.stage = Stage::Blocked(until);
        entry.delivery.end_attempt();
        match entry.told {
            // It needs no outbox any more.
            Told::Queued if entry.delivery.is_held_enough(&cx.network.params) => {
                return self.finish(cx, id);
            }
            Told::Queued | Told::Unsaved => {}
            Told::Nothing => {
                entry.told = Told::Doubtful;
                self.end_doubt(cx, id);
            }
            // Its fate was waited for long enough.
            Told::Doubtful => entry.tell_unsaved(cx, id),
        }
        self.save_at(id, cx.now + STORE_RETRY);
    }

    /// A message that is not durable here is done with once enough holders have it; once nothing
    /// that was asked can change that, the user hears what is known.
    pub(super) fn end_doubt(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.delivery.is_held_enough(&cx.network.params) {
            self.finish(cx, id);
        } else if entry.told == Told::Doubtful && !entry.delivery.is_awaited() {
            entry.tell_unsaved(cx, id);
        }
    }

    /// The store has to be asked at this time, or before.
    pub(super) fn save_by(&mut self, id: MessageId, at: Instant) {
        let due = self.entries.get(&id).map(|entry| entry.saving);
        if !matches!(due, Some(Saving::Due(before)) if before <= at) {
            self.save_at(id, at);
        }
    }

    /// The store has to be asked at this time to take the message as it is then.
    pub(super) fn save_at(&mut self, id: MessageId, at: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if !entry.delivery.is_stored() {
            return;
        }
        if let Saving::Due(before) = entry.saving {
            self.unsaved.remove(&(before, entry.seq, id));
        }
        entry.saving = Saving::Due(at);
        self.unsaved.insert((at, entry.seq, id));
    }

    pub(super) fn store(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let op = StoreOp::PutOutbox {
            id,
            state: entry.delivery.state(),
        };
        entry.saving = Saving::Storing(cx.store_for(Stored::Outbox(id), op));
    }
}
