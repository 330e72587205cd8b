//! Own inboxes: keys, mailboxes on holders, the descriptor that names them (docs/protocol.md §9,
//! §10).
//!
//! Keys are durable before a holder sees them, and a revision before anyone can look it up, so that
//! a client that dies at any moment finds its mail again. A mailbox out of reach has a
//! companion, and is given up after days; the client fetches from it for as long as a record lives
//! there.

mod inbox;
mod rival;
mod sight;
mod stored;

use std::collections::BTreeMap;

use umbel_proto::chance::{between, exponential};
use umbel_proto::ids::{QueueId, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::record::{Message, RecordFault};
use umbel_proto::limits::{LOOK_REST_SHARE, PUBLISH_START_WAIT, WAIT_CUT};
use umbel_proto::path::Paths;
use umbel_proto::time::{Duration, Epoch, Instant};

use super::io::{InboxEntry, StoreTicket};
use super::lookup::Lookups;
use super::publish::{Due, rest_mean};
use super::requests::{Answer, Requests};
use super::saving::{STORE_RETRY, Saving};
use super::{Context, SnapshotFault};
use inbox::Inbox;
pub(super) use inbox::visit_every_max;
use stored::InboxState;
pub(super) use stored::OwnMailbox;

/// Most own inboxes; more are not made.
pub const INBOXES_MAX: usize = 64;

/// All own inboxes, by name.
#[derive(Default)]
pub(super) struct Inboxes {
    by_name: BTreeMap<String, Inbox>,
    /// From when on this run publishes what is due.
    turns_from: Option<Instant>,
    /// This run has published something in its turn.
    had_turn: bool,
    /// From when on it looks own inboxes up that are due.
    looks_from: Option<Instant>,
    /// The inbox that was published or looked up last, and until when no other is: relays that keep
    /// both would see that one client has them.
    acted: Option<(String, Instant)>,
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
            out_of_reach: inbox.out_of_reach(),
            is_published: inbox.is_published(),
            missing_since: inbox.sight.missing_since(),
        };
        self.by_name.iter().map(entry).collect()
    }

    /// Opens a record that a mailbox of this inbox held.
    pub(super) fn open(
        &self,
        cx: &Context<'_>,
        name: &str,
        record: &[u8],
    ) -> Option<Result<Message, RecordFault>> {
        self.by_name.get(name).map(|inbox| inbox.open(cx, record))
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
            .map(|mailbox| (mailbox, mailbox.is_listed()))
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
        let rest_mean = rest_mean(&cx.network.params, self.by_name.len());
        self.take_turn(cx, rest_mean);
        self.take_look(cx);
        for (name, inbox) in &mut self.by_name {
            inbox.drive(cx, requests, paths, name, rest_mean);
            if cx.is_ready {
                inbox.look(cx, lookups, requests, name, rest_mean);
            }
        }
    }

    /// Of the own look-ups that are due, begins one, and then rests, so that those that are overdue
    /// at a start are not made together (§9.4(5)).
    fn take_look(&mut self, cx: &mut Context<'_>) {
        let from = *self
            .looks_from
            .get_or_insert_with(|| cx.now + between(Duration::ZERO, PUBLISH_START_WAIT, cx.rng));
        let is_early = from > cx.now || self.turns_from.is_none_or(|at| at > cx.now);
        if is_early || !cx.is_ready || !cx.is_view_current {
            return;
        }
        let mean = self.look_rest_mean(cx);
        let due = free(&mut self.by_name, self.acted.as_ref(), cx.now);
        let due = due.filter_map(|(name, inbox)| Some((inbox.look_due(cx)?, name, inbox)));
        if let Some((_, name, inbox)) = due.min_by_key(|&(due_at, _, _)| due_at) {
            inbox.begin_look(cx);
            let rests_until = cx.now + exponential(mean, cx.rng);
            self.looks_from = Some(rests_until);
            self.acted = Some((name.clone(), rests_until));
        }
    }

    /// How long it rests, on average, between what it does for one inbox and for another.
    fn look_rest_mean(&self, cx: &Context<'_>) -> Duration {
        let count = u32::try_from(self.by_name.len()).unwrap_or(u32::MAX).max(1);
        cx.network.params.inbox_republish / LOOK_REST_SHARE.saturating_mul(count)
    }

    /// Of the descriptors that are due, of whichever inboxes and epochs, publishes one, and then
    /// rests: no two go together, nor all that is overdue at a start (§9.4(3)).
    fn take_turn(&mut self, cx: &mut Context<'_>, rest_mean: Duration) {
        let from = *self
            .turns_from
            .get_or_insert_with(|| cx.now + between(Duration::ZERO, PUBLISH_START_WAIT, cx.rng));
        if from > cx.now || !cx.is_ready || !cx.is_view_current {
            return;
        }
        let look_rest_mean = self.look_rest_mean(cx);
        // A clock that was ahead may have set it to any time.
        let latest = cx.wall + rest_mean.saturating_mul(WAIT_CUT);
        let is_resting = |inbox: &Inbox| inbox.rests_until > cx.wall && inbox.rests_until <= latest;
        let is_resting = self.by_name.values().any(is_resting);
        // Commands of seconds take one turn, and have to get it done.
        let is_start = !self.had_turn;
        let may_go = |due: &Due| !is_resting || due.ignores_rest(is_start);
        let due = free(&mut self.by_name, self.acted.as_ref(), cx.now);
        let due = due.filter_map(|(name, inbox)| Some((inbox.due(cx, may_go)?, name, inbox)));
        let Some((due, name, inbox)) = due.min_by_key(|it| it.0) else {
            return;
        };
        self.had_turn = true;
        inbox.begin(cx, due.epoch, is_start || due.is_unpublished, rest_mean);
        let rests_until = cx.now + exponential(look_rest_mean, cx.rng);
        self.acted = Some((name.clone(), rests_until));
    }

    pub(super) fn timeout(&self, after: Instant) -> Option<Instant> {
        self.by_name
            .values()
            .flat_map(Inbox::timeouts)
            .chain(self.turns_from)
            .chain(self.looks_from)
            .chain(self.acted.as_ref().map(|&(_, until)| until))
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
            inbox.on_created(cx, queue, answer);
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
        if let Some(inbox) = self.by_name.get_mut(name) {
            inbox.on_published(cx, at, revision, answer);
        }
    }

    /// A holder ended a subscription for the sake of another that is not ours.
    pub(super) fn on_replaced(&mut self, cx: &mut Context<'_>, name: &str, holder: RelayId) {
        if let Some(inbox) = self.by_name.get_mut(name) {
            inbox.on_replaced(cx, name, holder);
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

    /// The client ends: what it leaves half published is settled if it can be.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        for (name, inbox) in &mut self.by_name {
            inbox.stop(cx, name);
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

/// The inboxes that may be published or looked up now, of their own accord.
fn free<'a>(
    by_name: &'a mut BTreeMap<String, Inbox>,
    acted: Option<&'a (String, Instant)>,
    now: Instant,
) -> impl Iterator<Item = (&'a String, &'a mut Inbox)> {
    let waits_for = acted
        .filter(|(_, until)| *until > now)
        .map(|(last, _)| last);
    let inboxes = by_name.iter_mut();
    inboxes.filter(move |(name, _)| waits_for.is_none_or(|last| last == *name))
}
