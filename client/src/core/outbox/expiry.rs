//! The end of a message's life (docs/protocol.md §10.5(1)): a message that too few hold by then, or that
//! its reader has not acknowledged, leaves the outbox at once, whatever it waits for and whether any circuit works.

use std::collections::BTreeSet;

use umbel_proto::ids::MessageId;
use umbel_proto::time::{Instant, WallTime};

use super::super::context::Context;
use super::super::io::Notice;
use super::super::requests::Requests;
use super::{Outbox, Told};

/// When the lives of all messages end.
#[derive(Default)]
pub(super) struct Ends {
    at: BTreeSet<(WallTime, MessageId)>,
    /// When the next ends, as far as was known when that was last looked at.
    next_at: Option<Instant>,
}

impl Ends {
    pub(super) fn insert(&mut self, at: WallTime, id: MessageId) {
        self.at.insert((at, id));
    }

    pub(super) fn remove(&mut self, at: WallTime, id: MessageId) {
        self.at.remove(&(at, id));
    }

    pub(super) fn timeout(&self, after: Instant) -> Option<Instant> {
        self.next_at.filter(|&at| at > after)
    }
}

impl Outbox {
    /// Gives up messages whose life is over. One that is not known to be stored is settled first.
    pub(super) fn expire_due(&mut self, cx: &mut Context<'_>, requests: &mut Requests) {
        // A clock that is not known to be right counts as far as it is confirmed.
        let by = if self.is_clock_right {
            cx.wall
        } else {
            cx.confirmed
        };
        let over = self.ends.at.iter().take_while(|&&(at, _)| at <= by);
        let is_expired = |id: &MessageId| {
            self.entries.get(id).is_some_and(|entry| {
                let delivery = &entry.delivery;
                let is_wanting = !delivery.is_held_enough(&cx.network.params);
                entry.told == Told::Queued && (is_wanting || delivery.is_acknowledged())
            })
        };
        let expired: Vec<MessageId> = over.map(|&(_, id)| id).filter(is_expired).collect();
        for id in expired {
            requests.withdraw_deposits(id);
            self.expire(cx, id);
        }
        let next = self.ends.at.iter().map(|&(at, _)| at).find(|&at| at > by);
        self.ends.next_at = next.map(|at| cx.now + at.since(by));
    }

    /// Its life ended before enough holders had it, or before its reader acknowledged it: it leaves the
    /// outbox, and its user hears how many have it, and whether another may (§10.5(1)).
    fn expire(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let expired = Notice::Expired {
            id,
            copies: entry.delivery.copies(),
            wanted: entry.delivery.wanted(&cx.network.params),
        };
        self.remove(cx, id, expired);
    }
}
