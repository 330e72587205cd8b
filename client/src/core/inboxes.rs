//! Own inboxes: keys, mailboxes on holders, the descriptor that names them (docs/protocol.md §9,
//! §10).
//!
//! Keys are durable before a holder sees them, and a revision before anyone can look it up, so that
//! a client that dies at any moment finds its mail again. A mailbox out of reach has a
//! companion, and is given up after days; the client fetches from it for as long as a record lives
//! there.

mod inbox;
mod publish;
mod rival;
mod sight;
mod stored;

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::chance::{between, exponential};
use umbel_proto::ids::{QueueId, RelayId};
use umbel_proto::inbox::address::{InboxAddress, InboxIdentity};
use umbel_proto::inbox::record::{Opened, RecordFault};
use umbel_proto::limits::{LOOK_REST_SHARE, PUBLISH_START_WAIT, WAIT_CUT};
use umbel_proto::path::Paths;
use umbel_proto::time::{Due, Duration, Epoch, Instant, WallTime};

use super::io::{InboxEntry, StoreTicket};
use super::lookup::Lookups;
use super::mailbox::{Errands, MailboxId, Outcome, OwnMailbox, Owner};
use super::requests::{Answer, Requests};
use super::saving::{STORE_RETRY, Saving};
use super::{Context, SnapshotFault};
use inbox::Inbox;
use publish::{Turn, rest_mean};
use stored::InboxState;

/// Most own inboxes; more are not made.
pub const INBOXES_MAX: usize = 64;

/// Names an own inbox in this run. Only the edge of the core uses the user's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InboxId(pub(super) u32);

/// All own inboxes.
#[derive(Default)]
pub(super) struct Inboxes {
    by_id: BTreeMap<InboxId, Inbox>,
    ids: BTreeMap<String, InboxId>,
    /// When each is looked at next, though nothing happens to it before.
    due: Due<InboxId>,
    /// Inboxes that something happened to since they were last looked at.
    woken: BTreeSet<InboxId>,
    /// The state that all of them depend on, as it was when they were last looked at.
    surroundings: Option<Surroundings>,
    /// How many look-ups had ended by then.
    lookups_over: u64,
    /// Inboxes whose mailboxes came, went, or changed their standing since they were last taken.
    moved: BTreeSet<InboxId>,
    /// Some have other holders since these were last taken.
    have_holders_moved: bool,
    /// Inboxes of which it is to be seen whether holders have to be told of an effort.
    efforts_open: BTreeSet<InboxId>,
    /// Something happened on which it depends whose turn it is.
    is_turn_open: bool,
    /// When it was last seen whose turn it is.
    turns_seen_at: Instant,
    /// From when on this run publishes what is due.
    turns_from: Option<Instant>,
    /// This run has published something in its turn.
    had_turn: bool,
    /// From when on it looks own inboxes up that are due.
    looks_from: Option<Instant>,
    /// The inbox that was published or looked up last, and until when no other is: relays that keep
    /// both would see that one client has them.
    acted: Option<(InboxId, Instant)>,
}

/// The state that every inbox depends on: whether circuits can be built, what is known of relays,
/// and the calendar, which moves on once a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Surroundings {
    is_ready: bool,
    is_view_current: bool,
    book: u64,
    wall: WallTime,
    confirmed: WallTime,
}

impl Surroundings {
    const fn of(cx: &Context<'_>) -> Self {
        Self {
            is_ready: cx.is_ready,
            is_view_current: cx.is_view_current,
            book: cx.book.changes(),
            wall: cx.wall,
            confirmed: cx.confirmed,
        }
    }
}

impl Inboxes {
    pub(super) fn restore(&mut self, name: String, state: &[u8]) -> Result<(), SnapshotFault> {
        let Some(state) = InboxState::decode(state) else {
            return Err(SnapshotFault::Inbox(name));
        };
        let id = self.name_next(name.clone());
        self.insert(id, Inbox::restore(id, name, &state));
        Ok(())
    }

    /// Makes an inbox; one that is there already is reported once it is ready.
    pub(super) fn create(&mut self, cx: &mut Context<'_>, name: String) {
        if let Some(inbox) = self.id(&name).and_then(|id| self.wake(id)) {
            inbox.is_told = false;
            inbox.asked_at = Some(cx.now);
        } else if self.by_id.len() < INBOXES_MAX {
            let id = self.name_next(name.clone());
            self.insert(id, Inbox::generate(cx, id, name));
        }
    }

    fn name_next(&mut self, name: String) -> InboxId {
        let id = InboxId(u32::try_from(self.by_id.len()).unwrap_or(u32::MAX));
        self.ids.insert(name, id);
        id
    }

    fn insert(&mut self, id: InboxId, inbox: Inbox) {
        self.by_id.insert(id, inbox);
        self.woken.insert(id);
        self.moved.insert(id);
        self.have_holders_moved = true;
    }

    /// The inbox with this name.
    pub(super) fn id(&self, name: &str) -> Option<InboxId> {
        self.ids.get(name).copied()
    }

    /// Its owner's name for it.
    pub(super) fn name(&self, id: InboxId) -> Option<&str> {
        self.by_id.get(&id).map(|inbox| inbox.name.as_str())
    }

    /// An inbox that something happens to.
    fn wake(&mut self, id: InboxId) -> Option<&mut Inbox> {
        let inbox = self.by_id.get_mut(&id)?;
        self.woken.insert(id);
        Some(inbox)
    }

    /// Reports this inbox again once it takes mail: another user of the profile asks.
    pub(super) fn report(&mut self, id: InboxId) {
        if let Some(inbox) = self.wake(id) {
            inbox.is_told = false;
        }
    }

    pub(super) fn address(&self, name: &str) -> Option<InboxAddress> {
        let inbox = self.by_id.get(&self.id(name)?)?;
        Some(*inbox.identity.address())
    }

    /// Its owner's key.
    pub(super) fn identity(&self, id: InboxId) -> Option<&InboxIdentity> {
        self.by_id.get(&id).map(|inbox| &inbox.identity)
    }

    /// The relays that hold mailboxes of this inbox, in order.
    pub(super) fn holders_of(&self, name: Option<&str>) -> Vec<RelayId> {
        let inbox = name.and_then(|name| self.by_id.get(&self.id(name)?));
        let mailboxes = inbox.into_iter().flat_map(|inbox| inbox.mailboxes.all());
        let relays: BTreeSet<RelayId> = mailboxes.map(|mailbox| mailbox.relay).collect();
        relays.into_iter().collect()
    }

    /// All inboxes, as their user sees them.
    pub(super) fn list(&self) -> Vec<InboxEntry> {
        let entry = |(name, id): (&String, &InboxId)| {
            let inbox = self.by_id.get(id)?;
            Some(InboxEntry {
                name: name.clone(),
                mailboxes: inbox.mailboxes.listed().count(),
                out_of_reach: inbox.mailboxes.out_of_reach(),
                is_published: inbox.is_published(),
                missing_since: inbox.sight.missing_since(),
            })
        };
        self.ids.iter().filter_map(entry).collect()
    }

    /// Opens a record that a mailbox of this inbox held.
    pub(super) fn open(
        &self,
        cx: &Context<'_>,
        id: InboxId,
        record: &[u8],
    ) -> Option<Result<Opened, RecordFault>> {
        self.by_id.get(&id).map(|inbox| inbox.open(cx, record))
    }

    /// The mailboxes to fetch from, with whether each is still named by the descriptor.
    pub(super) fn mailboxes(&self, id: InboxId) -> impl Iterator<Item = (&OwnMailbox, bool)> {
        let inbox = self.by_id.get(&id).into_iter();
        inbox.flat_map(|inbox| inbox.mailboxes.created())
    }

    /// The inboxes whose mailboxes came, went, or changed their standing since this was last asked.
    pub(super) fn take_moved(&mut self) -> BTreeSet<InboxId> {
        core::mem::take(&mut self.moved)
    }

    /// Whether other relays hold own mailboxes than when this was last asked.
    pub(super) const fn take_holders_moved(&mut self) -> bool {
        core::mem::replace(&mut self.have_holders_moved, false)
    }

    /// The relays that hold own mailboxes. Replaced ones are among them, since they are still fetched
    /// from.
    pub(super) fn holders(&self) -> impl Iterator<Item = RelayId> + Clone {
        let inboxes = self.by_id.values();
        let mailboxes = inboxes.flat_map(|inbox| inbox.mailboxes.all());
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
        self.wake_due(cx, lookups);
        let rest_mean = rest_mean(&cx.network.params, self.by_id.len());
        if core::mem::take(&mut self.is_turn_open) {
            self.turns_seen_at = cx.now;
            self.by_id.values().for_each(|_| cx.count_look());
            self.take_turn(cx, rest_mean);
            self.take_look(cx);
        }
        for id in core::mem::take(&mut self.woken) {
            let Some(inbox) = self.by_id.get_mut(&id) else {
                continue;
            };
            cx.count_look();
            inbox.drive(cx, requests, paths, rest_mean);
            if cx.is_ready {
                inbox.look(cx, lookups, requests, rest_mean);
            }
            self.after(cx, id);
            self.is_turn_open = true;
        }
    }

    /// Has holders told of the effort that they are to ask.
    pub(super) fn tell_efforts(&mut self, cx: &mut Context<'_>, errands: &mut Errands) {
        for id in core::mem::take(&mut self.efforts_open) {
            let Some(inbox) = self.by_id.get_mut(&id) else {
                continue;
            };
            for (own, effort) in inbox.efforts_to_tell() {
                let mailbox = MailboxId {
                    owner: Owner::Inbox(id),
                    queue: own.queue,
                };
                errands.set_effort(cx, mailbox, &own, effort);
            }
        }
    }

    /// Records of strangers came to an inbox.
    pub(super) fn on_strangers(&mut self, cx: &Context<'_>, id: InboxId, count: usize) {
        let inbox = self.by_id.get_mut(&id);
        if inbox.is_some_and(|inbox| count > 0 && inbox.on_strangers(cx.now, count)) {
            self.woken.insert(id);
        }
    }

    /// A holder asks this effort from now on, or has not heard of it.
    pub(super) fn on_effort_told(
        &mut self,
        cx: &Context<'_>,
        id: InboxId,
        (queue, effort): (QueueId, u32),
        is_told: bool,
    ) {
        if let Some(inbox) = self.wake(id) {
            inbox.on_effort_told(cx, queue, effort, is_told);
        }
    }

    /// Notes which are to be looked at, and whether it may be another's turn.
    fn wake_due(&mut self, cx: &Context<'_>, lookups: &Lookups) {
        let surroundings = Surroundings::of(cx);
        if self.surroundings.replace(surroundings) != Some(surroundings) {
            self.woken.extend(self.by_id.keys());
            self.is_turn_open = true;
        }
        while let Some(id) = self.due.pop_expired(cx.now) {
            self.woken.insert(id);
        }
        let over = lookups.over_count();
        if core::mem::replace(&mut self.lookups_over, over) != over {
            let looking = self.by_id.iter().filter(|(_, inbox)| inbox.is_looking());
            self.woken.extend(looking.map(|(&id, _)| id));
        }
        let seen_at = self.turns_seen_at;
        let is_due = |at: Instant| at > seen_at && at <= cx.now;
        let is_turn_due = self.turn_timeouts().any(is_due);
        self.is_turn_open |= is_turn_due;
    }

    /// Something was done to an inbox: notes when it is due next, and whether its mailboxes are others.
    fn after(&mut self, cx: &Context<'_>, id: InboxId) {
        let Some(inbox) = self.by_id.get_mut(&id) else {
            return;
        };
        // What is overdue waits for something to happen.
        let next_at = inbox.timeouts(cx).filter(|&at| at > cx.now).min();
        self.efforts_open.insert(id);
        self.due.set_or_cancel(id, next_at);
        if inbox.mailboxes.take_moved() {
            self.moved.insert(id);
            self.have_holders_moved = true;
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
        let due = free(&mut self.by_id, self.acted, cx.now);
        let due = due.filter_map(|(id, inbox)| Some((inbox.look_due(cx)?, id, inbox)));
        if let Some((_, id, inbox)) = due.min_by_key(|&(due_at, _, _)| due_at) {
            inbox.begin_look(cx);
            self.woken.insert(id);
            let rests_until = cx.now + exponential(mean, cx.rng);
            self.looks_from = Some(rests_until);
            self.acted = Some((id, rests_until));
        }
    }

    /// How long it rests, on average, between what it does for one inbox and for another.
    fn look_rest_mean(&self, cx: &Context<'_>) -> Duration {
        let count = u32::try_from(self.by_id.len()).unwrap_or(u32::MAX).max(1);
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
        let is_resting = self.by_id.values().any(is_resting);
        // Commands of seconds take one turn, and have to get it done.
        let is_start = !self.had_turn;
        let may_go = |turn: &Turn| !is_resting || turn.ignores_rest(is_start);
        let due = free(&mut self.by_id, self.acted, cx.now);
        let due = due.filter_map(|(id, inbox)| Some((inbox.due(cx, may_go)?, id, inbox)));
        let Some((turn, id, inbox)) = due.min_by_key(|it| it.0) else {
            return;
        };
        self.had_turn = true;
        inbox.begin(cx, turn.epoch, is_start || turn.is_unpublished, rest_mean);
        self.woken.insert(id);
        let rests_until = cx.now + exponential(look_rest_mean, cx.rng);
        self.acted = Some((id, rests_until));
    }

    /// When it may be another's turn, past moments included.
    fn turn_timeouts(&self) -> impl Iterator<Item = Instant> {
        let acted = self.acted.map(|(_, until)| until);
        [self.turns_from, self.looks_from, acted]
            .into_iter()
            .flatten()
    }

    /// When there is something to do.
    pub(super) fn timeout(&self, after: Instant) -> Option<Instant> {
        let turns = self.turn_timeouts().filter(|&at| at > after);
        turns.chain(self.due.next()).min()
    }

    pub(super) fn on_created(
        &mut self,
        cx: &mut Context<'_>,
        id: InboxId,
        queue: QueueId,
        answer: &Answer,
    ) {
        if let Some(inbox) = self.wake(id) {
            inbox.on_created(cx, queue, answer);
            self.after(cx, id);
        }
    }

    pub(super) fn on_published(
        &mut self,
        cx: &mut Context<'_>,
        id: InboxId,
        at: (Epoch, RelayId),
        revision: u64,
        answer: &Answer,
    ) {
        if let Some(inbox) = self.wake(id) {
            inbox.on_published(cx, at, revision, answer);
        }
    }

    /// A holder ended a subscription for the sake of another that is not ours.
    pub(super) fn on_replaced(&mut self, cx: &mut Context<'_>, id: InboxId, holder: RelayId) {
        if let Some(inbox) = self.wake(id) {
            inbox.on_replaced(cx, holder);
        }
    }

    /// Reports how fetching from a mailbox went. One that works as it did is no news.
    pub(super) fn on_outcome(
        &mut self,
        cx: &mut Context<'_>,
        id: InboxId,
        queue: QueueId,
        outcome: Outcome,
    ) {
        let Some(inbox) = self.by_id.get_mut(&id) else {
            return;
        };
        if outcome != Outcome::Answered || !inbox.mailboxes.is_well(queue) {
            self.woken.insert(id);
            inbox.on_outcome(cx, queue, outcome);
        }
    }

    /// The client ends: what it leaves half published is settled if it can be.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        for inbox in self.by_id.values_mut() {
            inbox.stop(cx);
        }
    }

    /// The store has this inbox as it was then, or could not take it.
    pub(super) fn on_stored(
        &mut self,
        cx: &Context<'_>,
        id: InboxId,
        ticket: StoreTicket,
        is_stored: bool,
    ) {
        let is_last = |inbox: &Inbox| inbox.saving == Saving::Storing(ticket);
        if !self.by_id.get(&id).is_some_and(is_last) {
            return;
        }
        if let Some(inbox) = self.wake(id) {
            inbox.saving = if is_stored {
                Saving::Saved
            } else {
                Saving::Due(cx.now + STORE_RETRY)
            };
        }
    }
}

/// The inboxes that may be published or looked up now, of their own accord.
fn free(
    by_id: &mut BTreeMap<InboxId, Inbox>,
    acted: Option<(InboxId, Instant)>,
    now: Instant,
) -> impl Iterator<Item = (InboxId, &mut Inbox)> {
    let waits_for = acted
        .filter(|&(_, until)| until > now)
        .map(|(last, _)| last);
    let inboxes = by_id.iter_mut().map(|(&id, inbox)| (id, inbox));
    inboxes.filter(move |&(id, _)| waits_for.is_none_or(|last| last == id))
}

#[cfg(test)]
impl Inboxes {
    /// The stored state of an inbox with these mailboxes.
    pub(super) fn state_for_test(
        cx: &mut Context<'_>,
        mailboxes: Vec<OwnMailbox>,
    ) -> zeroize::Zeroizing<Vec<u8>> {
        let mut inbox = Inbox::generate(cx, InboxId(0), String::new());
        inbox.mailboxes = super::mailbox::Mailboxes::restore(mailboxes);
        inbox.state()
    }
}
