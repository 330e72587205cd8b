//! Messages that wait until they are due.

use std::collections::BTreeSet;

use umbel_proto::ids::MessageId;
use umbel_proto::time::Instant;

/// When something is due, the place in the order of sending, and the message.
pub(super) type Due = (Instant, u64, MessageId);

/// Two queues: messages that enough holders have give way to the others.
#[derive(Default)]
pub(super) struct Waiting {
    needed: BTreeSet<Due>,
    for_more: BTreeSet<Due>,
}

impl Waiting {
    /// Lets a message wait; `for_more` if enough holders have it.
    pub(super) fn insert(&mut self, due: Due, for_more: bool) {
        if for_more {
            &mut self.for_more
        } else {
            &mut self.needed
        }
        .insert(due);
    }

    /// It waits no longer. Enough holders may have taken it since it began to.
    pub(super) fn remove(&mut self, due: &Due) {
        self.needed.remove(due);
        self.for_more.remove(due);
    }

    /// Empties it.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Due> + use<> {
        let Self { needed, for_more } = core::mem::take(self);
        needed.into_iter().chain(for_more)
    }

    /// Due messages that need more holders.
    pub(super) fn first_needed(&self, now: Instant) -> Option<Due> {
        first(&self.needed, now)
    }

    /// Due messages that enough holders have.
    pub(super) fn first_for_more(&self, now: Instant) -> Option<Due> {
        first(&self.for_more, now)
    }

    /// When the next is due after this.
    pub(super) fn next_after(&self, after: Instant) -> Option<Instant> {
        [&self.needed, &self.for_more]
            .into_iter()
            .filter_map(|queue| next_after(queue, after))
            .min()
    }
}

fn first(queue: &BTreeSet<Due>, now: Instant) -> Option<Due> {
    queue.first().copied().filter(|&(at, _, _)| at <= now)
}

/// When the next of these is due after this.
pub(super) fn next_after(queue: &BTreeSet<Due>, after: Instant) -> Option<Instant> {
    queue.iter().map(|&(at, _, _)| at).find(|&at| at > after)
}
