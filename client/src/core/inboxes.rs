//! Own inboxes: keys, mailboxes on holders, the descriptor that names them (docs/protocol.md §9,
//! §10).
//!
//! Keys are durable before a holder sees them, and a revision before anyone can look it up, so that
//! a client that dies at any moment finds its mail again. A mailbox that stays out of reach is
//! replaced; the client fetches from the old one for as long as a record lives there.

mod inbox;
mod rival;
mod stored;

use std::collections::BTreeMap;

use umbel_proto::ids::{QueueId, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::record::SealSecret;
use umbel_proto::time::{Epoch, Instant};

use super::io::{InboxEntry, StoreTicket};
use super::lookup::Lookups;
use super::path::Paths;
use super::publish::Posted;
use super::requests::{Answer, Requests};
use super::saving::{STORE_RETRY, Saving};
use super::{Context, SnapshotFault};
use inbox::Inbox;
pub(super) use inbox::draw_holder;
use stored::InboxState;
pub(super) use stored::OwnMailbox;

/// Most own inboxes; more are not made.
pub const INBOXES_MAX: usize = 64;

/// All own inboxes, by name.
#[derive(Default)]
pub(super) struct Inboxes {
    by_name: BTreeMap<String, Inbox>,
}

/// The outcome of fetching from a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// Its holder answered.
    Answered,
    /// Its holder did not answer, or could not be reached, by whosever doing.
    Unreachable,
    /// The relay before its holder could not reach it.
    Dead,
    /// Its holder does not know it.
    Gone,
}

impl Inboxes {
    pub(super) fn restore(&mut self, name: String, state: &[u8]) -> Result<(), SnapshotFault> {
        let Some(state) = InboxState::decode(state) else {
            return Err(SnapshotFault::Inbox(name));
        };
        self.by_name.insert(name, Inbox::restore(&state));
        Ok(())
    }

    /// Makes an inbox; one that is there already is reported once it is ready.
    pub(super) fn create(&mut self, cx: &mut Context<'_>, name: String) {
        if let Some(inbox) = self.by_name.get_mut(&name) {
            inbox.is_told = false;
            inbox.asked_at = Some(cx.now);
        } else if self.by_name.len() < INBOXES_MAX {
            self.by_name.insert(name, Inbox::generate(cx));
        }
    }

    /// Reports this inbox again once it takes mail: another user of the profile asks.
    pub(super) fn report(&mut self, name: &str) {
        if let Some(inbox) = self.by_name.get_mut(name) {
            inbox.is_told = false;
            inbox.is_in_use = true;
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(super) fn address(&self, name: &str) -> Option<InboxAddress> {
        self.by_name
            .get(name)
            .map(|inbox| *inbox.identity.address())
    }

    /// All inboxes, as their user sees them.
    pub(super) fn list(&self) -> Vec<InboxEntry> {
        let entry = |(name, inbox): (&String, &Inbox)| InboxEntry {
            name: name.clone(),
            mailboxes: inbox.created().count(),
            is_published: inbox.is_published(),
        };
        self.by_name.iter().map(entry).collect()
    }

    /// The key that records for this inbox are sealed to.
    pub(super) fn seal_secret(&self, name: &str) -> Option<&SealSecret> {
        self.by_name.get(name).map(|inbox| &inbox.seal)
    }

    /// The mailboxes to fetch from, with whether each is still named by the descriptor.
    pub(super) fn mailboxes(&self, name: &str) -> impl Iterator<Item = (&OwnMailbox, bool)> {
        let mailboxes = self
            .by_name
            .get(name)
            .into_iter()
            .flat_map(|inbox| &inbox.mailboxes);
        mailboxes
            .filter(|mailbox| mailbox.is_created)
            .map(|mailbox| (mailbox, mailbox.retired_at.is_none()))
    }

    /// The relays that hold own mailboxes, replaced ones included, since they are still fetched
    /// from.
    pub(super) fn holders(&self) -> impl Iterator<Item = RelayId> + Clone {
        let mailboxes = self.by_name.values().flat_map(|inbox| &inbox.mailboxes);
        mailboxes.map(|mailbox| mailbox.relay)
    }

    /// Saves, creates and publishes what is due.
    pub(super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        lookups: &mut Lookups,
        requests: &mut Requests,
        paths: &Paths,
    ) {
        for (name, inbox) in &mut self.by_name {
            inbox.drive(cx, requests, paths, name);
            if cx.is_ready {
                inbox.look_for_rival(cx, lookups, requests, name);
            }
        }
    }

    pub(super) fn timeout(&self, after: Instant) -> Option<Instant> {
        self.by_name
            .values()
            .flat_map(Inbox::timeouts)
            .filter(|&at| at > after)
            .min()
    }

    pub(super) fn on_created(
        &mut self,
        cx: &mut Context<'_>,
        name: &str,
        queue: QueueId,
        answer: &Answer,
    ) {
        if let Some(inbox) = self.by_name.get_mut(name) {
            inbox.on_created(cx, name, queue, answer);
        }
    }

    pub(super) fn on_published(
        &mut self,
        cx: &mut Context<'_>,
        name: &str,
        at: (Epoch, RelayId),
        revision: u64,
        answer: &Answer,
    ) {
        let Some(inbox) = self.by_name.get_mut(name) else {
            return;
        };
        if inbox.publication.on_answer(cx, at, revision, answer) == Posted::Overtaken
            && revision == inbox.revision
        {
            inbox.rival.on_refused(cx.now);
        }
        inbox.look_whether_published(cx);
    }

    /// A holder ended a subscription for the sake of another that is not ours.
    pub(super) fn on_replaced(&mut self, cx: &mut Context<'_>, name: &str, holder: RelayId) {
        if let Some(inbox) = self.by_name.get_mut(name)
            && inbox.rival.on_replaced(cx.now, &cx.network.params, holder)
        {
            inbox.tell_rival(cx, name);
        }
    }

    /// Reports how fetching from a mailbox went.
    pub(super) fn on_visit(
        &mut self,
        cx: &mut Context<'_>,
        name: &str,
        queue: QueueId,
        visit: Visit,
    ) {
        if let Some(inbox) = self.by_name.get_mut(name) {
            inbox.on_visit(cx, queue, visit);
        }
    }

    /// Says whether the ticket was one of ours.
    pub(super) fn on_stored(
        &mut self,
        cx: &Context<'_>,
        ticket: StoreTicket,
        is_stored: bool,
    ) -> bool {
        let Some(inbox) = self
            .by_name
            .values_mut()
            .find(|inbox| inbox.saving == Saving::Storing(ticket))
        else {
            return false;
        };
        inbox.saving = if is_stored {
            Saving::Saved
        } else {
            Saving::Due(cx.now + STORE_RETRY)
        };
        true
    }
}
