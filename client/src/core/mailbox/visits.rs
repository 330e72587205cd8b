//! Visits to mailboxes (docs/protocol.md §10.2): each on a circuit of its own, at its own times.
//!
//! Only mailboxes that are due, or that something happened to, are looked at: what a cell costs does
//! not grow with the number of mailboxes. Never opens a record: its owner takes it, and says here
//! what becomes of it. A record is removed from its holder only after its message is durable here.
//! While subscribed, the removal waits for the next probe, which is sent anyway.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;
use umbel_proto::ids::{QueueId, RecordId, RelayId};
use umbel_proto::inbox::mailbox::{MailboxReply, Refusal};
use umbel_proto::limits::{REPLACED_POLL_FOR, SUBSCRIPTION_LASTED_MIN};
use umbel_proto::time::{Due, Instant};

use super::super::context::Context;
use super::super::requests::{Answer, AskFault, Requests};
use super::places::{self, Seating};
use super::relink::Relinks;
use super::visit::{Outcome, Seen, Visit};
use super::{MailboxId, OwnMailbox, Owner};

/// Mailboxes that are polled as often as the network says; if there are more, each is polled less
/// often.
const POLLED_MAX: usize = 80;

/// The mailboxes of all owners that are fetched for.
#[derive(Default)]
pub(in super::super) struct Visits {
    owners: BTreeMap<Owner, Followed>,
    /// When each mailbox is looked at next, though nothing happens to it before.
    due: Due<MailboxId>,
    /// Mailboxes that something happened to since they were last looked at.
    woken: BTreeSet<MailboxId>,
    /// Owners of whom `CaughtUp` may have to be told though none of their mailboxes was woken.
    untold: BTreeSet<Owner>,
    seating: Seating,
    /// By how much longer than the network has it the polled mailboxes wait for their turn; `None`
    /// once their number has changed.
    crowding: Option<u32>,
    relinks: Relinks,
}

/// One owner whose mailboxes are visited.
#[derive(Default)]
pub(super) struct Followed {
    pub(super) is_interactive: bool,
    pub(super) mailboxes: BTreeMap<QueueId, Visit>,
    /// How many mailboxes had answered at the last `CaughtUp`; `None` after news.
    pub(super) told: Option<usize>,
}

/// Every mailbox that senders are told of was seen empty, or failed.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct CaughtUp {
    pub(in super::super) owner: Owner,
    pub(in super::super) answered: usize,
    pub(in super::super) mailboxes: usize,
}

/// The result of a visit, for the owner of the mailbox.
#[derive(Default)]
pub(in super::super) struct Visited {
    pub(in super::super) records: Vec<ByteBuf>,
    /// What it means for the mailbox, if anything.
    pub(in super::super) outcome: Option<Outcome>,
    /// Its holder ended the subscription for the sake of another that is not ours.
    pub(in super::super) replaced_at: Option<RelayId>,
}

impl Visits {
    /// Begins to fetch for this owner. Asked again, by another user of the same profile, it looks
    /// again; a subscription that one of them holds is kept.
    pub(in super::super) fn listen(&mut self, now: Instant, owner: Owner, is_interactive: bool) {
        let followed = self.owners.entry(owner).or_default();
        followed.is_interactive |= is_interactive;
        followed.told = None;
        for (&queue, visit) in &mut followed.mailboxes {
            visit.look_again(now);
            self.woken.insert(MailboxId { owner, queue });
        }
        self.untold.insert(owner);
        self.seating.reopen();
    }

    /// Fetches from these mailboxes of this owner and no others, if it is fetched for. With each
    /// comes whether senders are told of it.
    pub(in super::super) fn follow<'a>(
        &mut self,
        owner: Owner,
        mailboxes: impl Iterator<Item = (&'a OwnMailbox, bool)>,
    ) {
        let Some(followed) = self.owners.get_mut(&owner) else {
            return;
        };
        let mut left = core::mem::take(&mut followed.mailboxes);
        for (mailbox, is_listed) in mailboxes {
            let queue = mailbox.queue;
            let visit = left.remove(&queue);
            let mut visit = visit.unwrap_or_else(|| Visit::new(mailbox, owner.queue_kind()));
            visit.set_listed(is_listed);
            followed.mailboxes.insert(queue, visit);
            self.woken.insert(MailboxId { owner, queue });
        }
        for queue in left.into_keys() {
            let id = MailboxId { owner, queue };
            self.due.cancel(&id);
            self.woken.remove(&id);
        }
        self.crowding = None;
        self.untold.insert(owner);
        self.seating.reopen();
    }

    /// Visits what is due, and moves on what something happened to.
    pub(in super::super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
    ) -> Vec<CaughtUp> {
        if self.seating.take_open() {
            self.seat(cx, requests);
        }
        while let Some(id) = self.due.pop_expired(cx.now) {
            self.woken.insert(id);
        }
        let mut untold = core::mem::take(&mut self.untold);
        for id in core::mem::take(&mut self.woken) {
            self.look_at(cx, requests, id);
            untold.insert(id.owner);
        }
        let owners = &mut self.owners;
        let caught_up = |owner| {
            cx.count_look();
            owners.get_mut(&owner)?.catch_up(owner)
        };
        untold.into_iter().filter_map(caught_up).collect()
    }

    fn look_at(&mut self, cx: &mut Context<'_>, requests: &mut Requests, id: MailboxId) {
        cx.count_look();
        let Some(followed) = self.owners.get_mut(&id.owner) else {
            return;
        };
        let Some(visit) = followed.mailboxes.get_mut(&id.queue) else {
            return;
        };
        if visit.drive(cx, requests, id, followed.is_interactive) {
            self.crowding = None;
        }
        // What is overdue waits for something to happen to it.
        let next_at = visit.next_at();
        self.due
            .set_or_cancel(id, Some(next_at).filter(|&at| at > cx.now));
    }

    /// Gives the places for subscriptions out anew; all mailboxes see what that means for them.
    fn seat(&mut self, cx: &mut Context<'_>, requests: &mut Requests) {
        for id in places::seat(&mut self.owners, &mut self.seating) {
            requests.withdraw_subscription(id);
        }
        self.crowding = None;
        for (&owner, followed) in &self.owners {
            for &queue in followed.mailboxes.keys() {
                cx.count_look();
                self.woken.insert(MailboxId { owner, queue });
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Visit> {
        let owners = self.owners.values();
        owners.flat_map(|followed| followed.mailboxes.values())
    }

    /// How many mailboxes have a place for a subscription.
    fn places(&self) -> usize {
        let interactive = self.owners.values().filter(|it| it.is_interactive);
        let mailboxes = interactive.flat_map(|followed| followed.mailboxes.values());
        mailboxes.filter(|visit| visit.is_seated()).count()
    }

    /// By how much longer than the network has it the polled mailboxes wait for their turn.
    fn crowding(&mut self) -> u32 {
        if let Some(crowding) = self.crowding {
            return crowding;
        }
        let polled = self.all().filter(|visit| !visit.phase.is_subscription());
        let times = polled.count().div_ceil(POLLED_MAX);
        let crowding = u32::try_from(times).unwrap_or(u32::MAX).max(1);
        self.crowding = Some(crowding);
        crowding
    }

    /// When a mailbox is due.
    pub(in super::super) fn timeout(&self) -> Option<Instant> {
        self.due.next()
    }

    /// A mailbox answered a fetch, or did not.
    pub(in super::super) fn on_fetch(
        &mut self,
        cx: &mut Context<'_>,
        id: MailboxId,
        answer: Answer,
    ) -> Visited {
        let crowding = self.crowding();
        let Some((visit, is_interactive)) = self.wake(id) else {
            return Visited::default();
        };
        let Some(fetch) = visit.phase.end_fetch() else {
            return Visited::default();
        };
        let was_in_reach = visit.is_in_reach();
        let visited = match answer {
            Answer::Mailbox(MailboxReply::Fetched { records, more }) => {
                visit.on_fetched(&fetch, !records.is_empty(), more);
                visit.plan_next(cx, is_interactive, crowding);
                Visited::answered(records)
            }
            answer => {
                visit.remove.extend(fetch.removes);
                Visited::ended(visit.on_failed(cx, &answer))
            }
        };
        if visit.is_in_reach() != was_in_reach {
            self.seating.reopen();
        }
        self.seating.on_fetch_over();
        visited
    }

    /// A subscription brought something, or is over.
    pub(in super::super) fn on_push(
        &mut self,
        cx: &mut Context<'_>,
        id: MailboxId,
        answer: Answer,
    ) -> Visited {
        let Some((visit, _)) = self.wake(id) else {
            return Visited::default();
        };
        let (records, more) = match answer {
            Answer::Mailbox(MailboxReply::Fetched { records, more }) => (records, more),
            answer => return self.on_subscription_over(cx, id, &answer),
        };
        let was_in_reach = visit.is_in_reach();
        visit.on_pushed(cx, &records, more);
        if !was_in_reach {
            self.seating.reopen();
        }
        Visited::answered(records)
    }

    fn on_subscription_over(
        &mut self,
        cx: &mut Context<'_>,
        id: MailboxId,
        answer: &Answer,
    ) -> Visited {
        let places = match answer {
            Answer::Failed(AskFault::Lost) => self.places(),
            _ => 0,
        };
        let Some((visit, _)) = self.wake(id) else {
            return Visited::default();
        };
        let is_replaced = matches!(
            answer,
            Answer::Mailbox(MailboxReply::Refused(Refusal::Replaced))
        );
        if is_replaced {
            visit.yields_until = cx.now + REPLACED_POLL_FOR;
        }
        let replaced_at = is_replaced.then_some(visit.relay);
        let Some(ended) = visit.phase.end_subscription() else {
            return Visited {
                replaced_at,
                ..Visited::default()
            };
        };
        if ended.since + SUBSCRIPTION_LASTED_MIN <= cx.now {
            visit.drops.reset();
        }
        // Nobody but us and the guard is behind the loss of the link.
        let outcome = if matches!(answer, Answer::Failed(AskFault::Lost)) {
            let wait = self.relinks.wait(cx, places);
            if let Some((visit, _)) = self.wake(id) {
                visit.retry_at(cx.now + wait);
            }
            None
        } else {
            visit.on_unsubscribed(cx, &ended, answer)
        };
        self.crowding = None;
        self.seating.reopen();
        Visited {
            records: Vec::new(),
            outcome,
            replaced_at,
        }
    }

    /// Whether this record of a mailbox is new: nothing is being done about it.
    pub(in super::super) fn is_new(&self, id: MailboxId, record: RecordId) -> bool {
        self.get(id).is_some_and(|visit| !visit.has(record))
    }

    /// The record's message is on its way to the store, which [`Self::on_stored`] reports.
    pub(in super::super) fn hold(&mut self, id: MailboxId, record: RecordId) {
        if let Some((visit, _)) = self.wake(id) {
            visit.unstored.insert(record);
        }
    }

    /// The record's message is here already, or there is none in it: it is removed.
    pub(in super::super) fn discard(&mut self, id: MailboxId, record: RecordId) {
        if let Some((visit, _)) = self.wake(id) {
            visit.remove.push(record);
        }
    }

    /// The record's message is durable here, or could not be stored.
    pub(in super::super) fn on_stored(
        &mut self,
        cx: &mut Context<'_>,
        id: MailboxId,
        record: RecordId,
        is_stored: bool,
    ) {
        if let Some((visit, _)) = self.wake(id) {
            visit.unstored.remove(&record);
            visit.on_stored(cx, record, is_stored);
        }
    }

    /// Nothing more of a mailbox can be taken now: what it holds comes again.
    pub(in super::super) fn put_off(&mut self, cx: &mut Context<'_>, id: MailboxId) {
        if let Some((visit, _)) = self.wake(id) {
            visit.put_off(cx);
        }
    }

    /// Visits none of this owner's mailboxes any more.
    pub(in super::super) fn leave(&mut self, owner: Owner) {
        self.follow(owner, [].into_iter());
        self.owners.remove(&owner);
    }

    /// There is news for this owner's user: `CaughtUp` is told again after it.
    pub(in super::super) fn on_news(&mut self, owner: Owner) {
        if let Some(followed) = self.owners.get_mut(&owner) {
            followed.told = None;
            self.untold.insert(owner);
        }
    }

    fn get(&self, id: MailboxId) -> Option<&Visit> {
        self.owners.get(&id.owner)?.mailboxes.get(&id.queue)
    }

    /// A mailbox that something happens to, and whether its owner's user wants to be told at once.
    fn wake(&mut self, id: MailboxId) -> Option<(&mut Visit, bool)> {
        let followed = self.owners.get_mut(&id.owner)?;
        let visit = followed.mailboxes.get_mut(&id.queue)?;
        self.woken.insert(id);
        Some((visit, followed.is_interactive))
    }
}

impl Visited {
    const fn answered(records: Vec<ByteBuf>) -> Self {
        Self {
            records,
            outcome: Some(Outcome::Answered),
            replaced_at: None,
        }
    }

    const fn ended(outcome: Option<Outcome>) -> Self {
        Self {
            records: Vec::new(),
            outcome,
            replaced_at: None,
        }
    }
}

impl Followed {
    /// `CaughtUp`, once every mailbox that senders are told of was seen empty, or failed.
    fn catch_up(&mut self, owner: Owner) -> Option<CaughtUp> {
        let listed = || self.mailboxes.values().filter(|visit| visit.is_listed());
        let mailboxes = listed().count();
        if mailboxes == 0 || !listed().all(Visit::is_settled) {
            return None;
        }
        let answered = listed().filter(|visit| visit.seen == Seen::Empty).count();
        (self.told.replace(answered) != Some(answered)).then_some(CaughtUp {
            owner,
            answered,
            mailboxes,
        })
    }
}
