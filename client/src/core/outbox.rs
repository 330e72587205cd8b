//! Messages on their way out (docs/protocol.md §10.5): their route found, sealed for each mailbox,
//! deposited until enough holders have them, and durable here until then.
//!
//! A message leaves the outbox when as many holders as wanted hold it, when its user takes it back,
//! or when it expires. One of a conversation stays until its reader acknowledges it, and is deposited
//! again where the reader lacks it or reads elsewhere. It is stored and first deposited at the same time, so that nobody waits for
//! this disk. The user hears that it is safe, and how it fares, only once it is durable here. While
//! the store fails, no further request is made. A message that was never stored here but may have
//! reached a holder is not reported as unsent: we wait for the holders' answers and report it as in
//! doubt if they don't settle it. Only a few messages are in progress at a time; the rest wait. A
//! message that too few accept for its whole life expires when that ends, by the calendar while the
//! clock is known to be right, else by confirmed time; its user hears how many have it.

mod entry;
mod expiry;
mod letters;
mod listed;
pub(super) mod route;
mod saving;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use umbel_proto::chance::{Backoff, exponential};
use umbel_proto::ids::{MessageId, QueueId};
use umbel_proto::time::{Duration, Instant, Moment};

use super::contacts::Contacts;
use super::delivery::{Attempt, Delivery, Destination, Progress};
use super::inboxes::Inboxes;
use super::io::{Cancelled, DeferReason, Notice, Recipient, SendFault, StoreOp};
use super::lookup::Lookups;
use super::requests::{Answer, Requests};
use super::saving::Saving;
use super::{Context, SnapshotFault};
use entry::{Entry, Stage, Told};
use expiry::Ends;
pub(super) use letters::ForContact;
use letters::Sought;
pub use listed::{OUTBOX_HEAD_LEN, new_outbox_state, outbox_has_room, read_outbox_message};
use route::Route;
use saving::STORE_ANSWERS_AFTER;
use waiting::{Due, Waiting, next_after};

/// Messages worked on at once; the others wait. One that rests between two deposits takes no place.
const ACTIVE_MAX: usize = 8;
/// Messages worked on or resting at once. Bounds what is sealed and in memory twice.
const SEALED_MAX: usize = 64;
/// Messages worked on at once when another begins that enough holders have already. One of these
/// always may.
const ACTIVE_FOR_MORE_MAX: usize = ACTIVE_MAX / 2;
/// Most messages in the outbox; more are refused.
const MESSAGES_MAX: usize = 10_000;
/// Most bytes of messages in the outbox, by the length of their bodies; more are refused.
const BYTES_MAX: usize = 256 << 20;
/// Messages that have left, of which the last notice is kept: as many as can leave together.
const LEFT_MAX: usize = MESSAGES_MAX;
/// Messages that are begun in one moment follow one another after a random wait, at most with this
/// mean.
const STAGGER_MEAN_MAX: Duration = Duration::from_millis(300);
/// That mean is this part of the one between two deposits of one message.
const STAGGER_SHARE: u32 = 100;
/// Mean wait until it is looked whether the mailboxes of a message that waits for its reader are still
/// where it went.
const KEPT_LOOK_MEAN: Duration = Duration::from_secs(6 * 3600);

/// All messages on their way out.
#[derive(Default)]
pub(super) struct Outbox {
    entries: BTreeMap<MessageId, Entry>,
    waiting: Waiting,
    active: BTreeSet<(u64, MessageId)>,
    /// Messages that the store has to take, and when it is asked.
    unsaved: BTreeSet<Due>,
    ends: Ends,
    /// What was said last of each of the last messages that left, oldest first: a user who missed
    /// notices asks for it.
    left: VecDeque<Notice>,
    bytes: usize,
    last_seq: u64,
    /// When the message that was restored last is to begin.
    restored_at: Instant,
    /// The linked relays' clocks agree with ours, as far as was last known: else messages expire by
    /// confirmed time.
    pub(super) is_clock_right: bool,
    /// What conversations are to hear of their messages.
    for_contacts: Vec<ForContact>,
}

/// The machines that the outbox works with.
pub(super) struct Post<'a> {
    pub(super) lookups: &'a mut Lookups,
    pub(super) requests: &'a mut Requests,
    pub(super) contacts: &'a mut Contacts,
    pub(super) inboxes: &'a Inboxes,
}

impl Outbox {
    pub(super) fn restore(
        &mut self,
        cx: &mut Context<'_>,
        id: MessageId,
        state: &[u8],
    ) -> Result<(), SnapshotFault> {
        let delivery = Delivery::restore(state, cx.wall);
        let mut delivery = delivery.ok_or(SnapshotFault::Outbox(id))?;
        let is_mended = delivery.mend_spacing(cx.wall, &cx.network.params);
        let begin_at = self.restored_at.max(cx.now) + delivery.spacing(cx.wall, &cx.network.params);
        let begin_at = if delivery.is_kept() {
            cx.now + exponential(KEPT_LOOK_MEAN, cx.rng)
        } else {
            self.restored_at = self.restored_at.max(cx.now) + stagger(cx);
            begin_at
        };
        self.insert(id, delivery, Saving::Saved);
        if is_mended {
            self.save_at(id, cx.now);
        }
        self.wait(id, begin_at);
        Ok(())
    }

    /// Takes in a message that is stored already, unless it is here.
    pub(super) fn adopt(
        &mut self,
        cx: &mut Context<'_>,
        id: MessageId,
        state: &[u8],
    ) -> Result<(), SnapshotFault> {
        if self.entries.contains_key(&id) {
            return Ok(());
        }
        self.restore(cx, id, state)?;
        self.note_made(id, cx.now);
        Ok(())
    }

    fn note_made(&mut self, id: MessageId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.made_at = Some(now);
        }
    }

    /// Takes a message in, unless it can never be sent.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        id: MessageId,
        to: Recipient,
        body: Vec<u8>,
        life: Option<Duration>,
    ) {
        let to = Destination::from(to);
        if body.len() > to.body_len_max() {
            return self.fail(cx, id, SendFault::TooLong);
        }
        if self.entries.contains_key(&id) {
            return;
        }
        if !has_room(self.entries.len(), self.bytes, body.len()) {
            return self.fail(cx, id, SendFault::OutboxFull);
        }
        let life = life.unwrap_or(cx.network.params.record_life);
        self.insert(
            id,
            Delivery::new(to, body, cx.wall, life),
            Saving::Due(cx.now),
        );
        self.note_made(id, cx.now);
        self.save_at(id, cx.now);
        self.wait(id, cx.now);
    }

    /// Takes a message back. A deposit in flight can't be recalled; no further one is made.
    pub(super) fn cancel(&mut self, cx: &mut Context<'_>, requests: &mut Requests, id: MessageId) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        requests.withdraw_deposits(id);
        let copies = entry.delivery.copies();
        self.remove(cx, id, Notice::Cancelled(Cancelled { id, copies }));
    }

    fn fail(&mut self, cx: &mut Context<'_>, id: MessageId, reason: SendFault) {
        let failed = Notice::Failed { id, reason };
        self.note_left(failed.clone());
        cx.notify(failed);
    }

    /// Messages that left under an earlier driver, for those who waited then.
    pub(super) fn restore_left(&mut self, left: Vec<Notice>) {
        left.into_iter().for_each(|notice| self.note_left(notice));
    }

    /// The last notice of each of the last messages that left, oldest first.
    pub(super) fn left(&self) -> impl Iterator<Item = &Notice> {
        self.left.iter()
    }

    fn note_left(&mut self, notice: Notice) {
        if self.left.len() >= LEFT_MAX {
            self.left.pop_front();
        }
        self.left.push_back(notice);
    }

    pub(super) fn contains(&self, id: MessageId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Whatever waits for another try is due now, one message after the other; waits between two
    /// deposits are kept.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        let mut begin_at = cx.now;
        let waiting: Vec<Due> = self.waiting.drain().collect();
        for (due_at, _, id) in waiting {
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            if entry.delivery.is_kept() {
                self.wait(id, due_at);
                continue;
            }
            let earliest =
                begin_at.max(cx.now + entry.delivery.spacing(cx.wall, &cx.network.params));
            self.wait(id, due_at.min(earliest));
            begin_at = begin_at + stagger(cx);
        }
        for entry in self.entries.values_mut() {
            if let Stage::Blocked(until) = &mut entry.stage {
                *until = cx.now.min(*until);
            }
        }
    }

    /// Whether this machine's clock is right (docs/protocol.md §1.6(4)).
    pub(super) fn judge_clock(&mut self, moment: Moment, is_right: bool) {
        let Moment { now, wall } = moment;
        self.is_clock_right = is_right;
        let mut changed = Vec::new();
        for (&id, entry) in &mut self.entries {
            let (_, end) = entry.delivery.life();
            let is_news = if is_right {
                entry.delivery.settle_date(wall)
            } else {
                let age = entry.made_at.map(|at| now.since(at));
                age.is_some_and(|age| entry.delivery.doubt_date(age, wall))
            };
            if is_news {
                entry.made_at = None;
                self.ends.remove(end, id);
                self.ends.insert(entry.delivery.life().1, id);
                changed.push(id);
            }
        }
        for id in changed {
            self.save_by(id, now);
        }
    }

    /// Whether a descriptor is being looked up: a circuit to each of the mailboxes it names is
    /// needed next.
    pub(super) fn is_finding(&self) -> bool {
        let mut active = self
            .active
            .iter()
            .filter_map(|(_, id)| self.entries.get(id));
        active.any(|entry| entry.stage == Stage::Finding)
    }

    /// Begins attempts that are due, continues those in progress, and stores what changed.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, post: &mut Post<'_>) {
        self.expire_due(cx, post.requests);
        while let Some(due) = self.next_due(cx.now) {
            self.waiting.remove(&due);
            self.begin(cx, due.2);
        }
        let active: Vec<MessageId> = self.active.iter().map(|&(_, id)| id).collect();
        for id in active {
            self.advance(cx, post, id);
        }
        // Last, so that what was just sealed is stored with the message and not after it.
        let due = self.unsaved.iter().take_while(|&&(at, _, _)| at <= cx.now);
        let is_sealing = |id| {
            self.entries
                .get(id)
                .is_some_and(|entry: &Entry| entry.delivery.is_sealing())
        };
        let due: Vec<_> = due.filter(|(_, _, id)| !is_sealing(id)).copied().collect();
        for (at, seq, id) in due {
            self.unsaved.remove(&(at, seq, id));
            self.store(cx, id);
        }
    }

    pub(super) fn timeout(&self, after: Instant) -> Option<Instant> {
        if self.next_due(after).is_some() {
            // A place became free in the same round.
            return Some(after);
        }
        let due = [
            self.waiting.next_after(after),
            next_after(&self.unsaved, after),
            self.ends.timeout(after),
        ];
        let active = self
            .active
            .iter()
            .filter_map(|(_, id)| self.entries.get(id));
        let deposits = active
            .filter_map(|entry| entry.delivery.timeout(after))
            .min();
        due.into_iter().flatten().chain(deposits).min()
    }

    /// A mailbox answered a deposit, or did not.
    pub(super) fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        id: MessageId,
        queue: QueueId,
        answer: &Answer,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let is_news = entry.delivery.on_answer(cx, queue, answer);
        if is_news {
            let said = entry.delivery.letter();
            let said = said.map(|(contact, saying)| ForContact::Said(contact, saying));
            self.for_contacts.extend(said);
            entry.delivery.look_whether_enough(cx);
            if entry.delivery.has_enough() {
                entry.delivery.set_obstacle(None);
            }
        }
        match entry.told {
            Told::Queued if is_news => {
                entry.tell_held(cx, id);
                self.save_by(id, cx.now + STORE_ANSWERS_AFTER);
            }
            Told::Doubtful | Told::Unsaved => self.end_doubt(cx, id),
            Told::Queued | Told::Nothing => {}
        }
    }

    fn insert(&mut self, id: MessageId, delivery: Delivery, saving: Saving) {
        self.last_seq += 1;
        self.bytes += delivery.body_len();
        self.ends.insert(delivery.life().1, id);
        let entry = Entry {
            seq: self.last_seq,
            delivery,
            made_at: None,
            stage: Stage::Blocked(Instant::default()), // until it knows what to wait for
            told: if saving == Saving::Saved {
                Told::Queued
            } else {
                Told::Nothing
            },
            saving,
            told_holders: None,
            backoff: Backoff::default(),
            attempt_at: Instant::default(),
            needs_fresh: false,
            told_rest: None,
            is_written_noted: false,
            sealed_at: None,
        };
        self.entries.insert(id, entry);
    }

    /// The message to begin now, if there is a place for it; those that need more holders go first.
    fn next_due(&self, now: Instant) -> Option<Due> {
        if self.active.len() >= SEALED_MAX {
            return None;
        }
        let needed = self
            .waiting
            .first_needed(now)
            .filter(|_| self.busy_count(now) < ACTIVE_MAX);
        needed.or_else(|| {
            let mut active = self
                .active
                .iter()
                .filter_map(|(_, id)| self.entries.get(id));
            let has_one_for_more = active.any(|entry| entry.delivery.has_enough());
            let active_max = if has_one_for_more {
                ACTIVE_FOR_MORE_MAX
            } else {
                ACTIVE_MAX + 1
            };
            self.waiting
                .first_for_more(now)
                .filter(|_| self.busy_count(now) < active_max)
        })
    }

    fn busy_count(&self, now: Instant) -> usize {
        let active = self
            .active
            .iter()
            .filter_map(|(_, id)| self.entries.get(id));
        active
            .filter(|entry| entry.delivery.rests_until(now).is_none())
            .count()
    }

    fn begin(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let attempt = entry.delivery.begin_attempt(cx);
        if attempt == Attempt::OneTooMany {
            return self.finish(cx, id);
        }
        entry.stage = Stage::Finding;
        entry.attempt_at = cx.now;
        self.active.insert((entry.seq, id));
        if attempt == Attempt::Last {
            self.save_by(id, cx.now);
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, post: &mut Post<'_>, id: MessageId) {
        let is_finding = |entry: &Entry| entry.stage == Stage::Finding;
        if self.entries.get(&id).is_some_and(is_finding) {
            match self.seek(cx, post, id) {
                Sought::Pending => {}
                Sought::Failed(reason) => self.defer(cx, id, reason),
                Sought::Refused(fault) => self.refuse(cx, id, fault),
                Sought::Complete => self.keep(cx, id),
                Sought::Found(route) => self.aim(cx, id, route),
            }
        }
        let Some(entry) = self
            .entries
            .get_mut(&id)
            .filter(|entry| entry.stage == Stage::Depositing)
        else {
            return;
        };
        let is_queued = entry.told == Told::Queued;
        let may_leave = entry.may_leave(post.contacts);
        match entry.delivery.drive(cx, post.requests, id, may_leave) {
            Progress::UnderWay if is_queued => entry.tell_rest(cx, id),
            Progress::UnderWay => {}
            // No notice has named this message yet.
            Progress::Complete | Progress::Enough if !is_queued => {}
            Progress::Complete => self.finish(cx, id),
            Progress::Enough => self.try_for_more(cx, id),
            Progress::Failed(reason) => self.defer(cx, id, reason),
        }
    }

    /// The mailboxes are known.
    fn aim(&mut self, cx: &mut Context<'_>, id: MessageId, route: Route) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.stage = Stage::Depositing;
        let wanted = entry.delivery.wanted(&cx.network.params);
        entry.delivery.aim(cx, route);
        let is_news = entry.delivery.wanted(&cx.network.params) != wanted;
        if is_news && entry.told == Told::Queued && entry.delivery.held_count() > 0 {
            entry.tell_held(cx, id);
        }
        let is_changed = entry.delivery.look_whether_enough(cx);
        if entry.delivery.is_sealing() {
            self.save_at(id, cx.now);
        } else if is_changed {
            self.save_by(id, cx.now);
        }
    }

    /// Enough have it, and the attempt at those still missing failed: they are tried a little
    /// longer.
    fn try_for_more(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let is_changed = entry.delivery.look_whether_enough(cx);
        // Waits for this attempt end here.
        entry.tell_held(cx, id);
        if entry.delivery.is_at_its_end(cx) || entry.delivery.is_kept() {
            return self.finish(cx, id);
        }
        self.rest(cx, id);
        if is_changed {
            self.save_by(id, cx.now);
        }
    }

    /// Until the next attempt, which looks the inbox up anew; says how long that is.
    fn rest(&mut self, cx: &mut Context<'_>, id: MessageId) -> Duration {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Duration::ZERO;
        };
        entry.needs_fresh = true;
        let wait = entry.backoff.fail(&cx.network.params, cx.now, cx.rng);
        self.pause(id, cx.now + wait);
        wait
    }

    /// The attempt failed: the message stays, and is tried again later.
    fn defer(&mut self, cx: &mut Context<'_>, id: MessageId, reason: DeferReason) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.delivery.end_attempt();
        if entry.told != Told::Queued {
            // It is retried as soon as it is durable, and the outcome is reported then.
            entry.stage = Stage::Blocked(cx.now);
            self.active.remove(&(entry.seq, id));
            return;
        }
        match (entry.delivery.is_held_enough(&cx.network.params), reason) {
            (false, _) => {
                if entry.delivery.set_obstacle(Some(reason)) {
                    self.save_by(id, cx.now + STORE_ANSWERS_AFTER);
                }
                let retry_in = self.rest(cx, id);
                let deferred = Notice::Deferred {
                    id,
                    reason,
                    retry_in,
                };
                self.notify(cx, id, deferred);
            }
            // Nothing was tried.
            (true, DeferReason::NoCircuit | DeferReason::Broken { .. }) => {
                self.rest(cx, id);
            }
            (true, _) => self.try_for_more(cx, id),
        }
    }

    fn pause(&mut self, id: MessageId, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.delivery.end_attempt();
            self.active.remove(&(entry.seq, id));
            self.wait(id, until);
        }
    }

    fn wait(&mut self, id: MessageId, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stage = Stage::Waiting(until);
            self.waiting
                .insert((until, entry.seq, id), entry.delivery.has_enough());
        }
    }

    /// The client ends: stores the holders' answers while there is time, so that no holder is asked
    /// again.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        for (_, _, id) in core::mem::take(&mut self.unsaved) {
            if self
                .entries
                .get(&id)
                .is_some_and(|entry| entry.told == Told::Queued)
            {
                self.store(cx, id);
            }
        }
    }

    /// It leaves the outbox, or waits there for its reader; those who wait for it have heard of its
    /// holders.
    fn finish(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        if entry.delivery.is_acknowledged() {
            return self.keep(cx, id);
        }
        let held = entry.held(cx, id);
        self.remove(cx, id, held);
    }

    /// Its user hears of it, unless the program says it.
    fn notify(&self, cx: &mut Context<'_>, id: MessageId, notice: Notice) {
        if self
            .entries
            .get(&id)
            .is_some_and(|it| !it.delivery.is_quiet())
        {
            cx.notify(notice);
        }
    }

    /// Takes a message out. Its user hears this last, unless that was said already.
    fn remove(&mut self, cx: &mut Context<'_>, id: MessageId, last: Notice) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        self.bytes -= entry.delivery.body_len();
        self.ends.remove(entry.delivery.life().1, id);
        self.active.remove(&(entry.seq, id));
        if let Stage::Waiting(until) = entry.stage {
            self.waiting.remove(&(until, entry.seq, id));
        }
        if let Saving::Due(at) = entry.saving {
            self.unsaved.remove(&(at, entry.seq, id));
        }
        if let Some((contact, saying)) = entry.delivery.letter() {
            let is_given_up = !matches!(last, Notice::Acknowledged(_)) && saying.is_numbered();
            let given_up = is_given_up.then_some(ForContact::GivenUp(contact, id));
            let unsaid = entry.delivery.is_quiet();
            let unsaid = unsaid.then_some(ForContact::Unsaid(contact, saying));
            self.for_contacts.extend(given_up.into_iter().chain(unsaid));
        }
        if !entry.delivery.is_quiet() {
            self.note_left(last.clone());
            if !entry.has_told(&last) {
                cx.notify(last.clone());
            }
        }
        if entry.delivery.is_stored() {
            cx.store(StoreOp::RemoveOutbox { id, last });
        }
    }
}

/// Whether an outbox of `messages` messages, `bytes` bytes in all, has room for one of `len` bytes.
const fn has_room(messages: usize, bytes: usize, len: usize) -> bool {
    messages < MESSAGES_MAX && bytes.saturating_add(len) <= BYTES_MAX
}

/// How long after one message the next is begun.
fn stagger(cx: &mut Context<'_>) -> Duration {
    let mean = (cx.network.params.second_deposit_delay / STAGGER_SHARE).min(STAGGER_MEAN_MAX);
    exponential(mean, cx.rng)
}
