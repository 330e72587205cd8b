//! One contact: a conversation, the queues that this side made for it, and those that the peer reads
//! (docs/protocol.md §11).
//!
//! A state is durable before anything that follows from it leaves: a message before it goes to a
//! holder, what was read before its record is removed. A message is stored together with the state that
//! has read it, or neither is.

use std::collections::BTreeSet;
use std::sync::Arc;

use umbel_proto::chance::between;
use umbel_proto::conversation::contents::{Contents, Item, Number};
use umbel_proto::conversation::envelope::EnvelopeQueue;
use umbel_proto::conversation::numbering::NumberRange;
use umbel_proto::conversation::opening::Introduction;
use umbel_proto::conversation::session::SealFault;
use umbel_proto::conversation::thread::{Draft, Outgoing, Read, Thread, WriteFault};
use umbel_proto::crypto::dh::DhPublic;
use umbel_proto::crypto::kdf::sha256;
use umbel_proto::ids::{MessageId, NetworkId, QueueId, RecordId, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::descriptor::Mailbox;
use umbel_proto::limits::{
    ACKNOWLEDGED_WITHIN_MAX, ACKNOWLEDGED_WITHIN_MIN, CONTACT_QUEUES_MAX, GAP_ASKED_EVERY,
    GAP_TOLD_AFTER, QUEUE_MOVED_WITHIN_MAX, QUEUE_MOVED_WITHIN_MIN, RENEWAL_PAUSE,
};
use umbel_proto::path::Paths;
use umbel_proto::time::{Duration, Instant, WallTime};
use umbel_proto::wire::{self, Reader};
use zeroize::Zeroizing;

use super::super::context::Context;
use super::super::delivery::Saying;
use super::super::io::{
    ContactCard, ContactKey, ConversationEvent, Letter, Notice, StoreOp, Stored,
};
use super::super::mailbox::{MailboxId, Mailboxes, Outcome, OwnMailbox, Owner};
use super::super::outbox::route::{Form, Sealed};
use super::super::requests::{Answer, Requests};
use super::super::saving::{STORE_RETRY, Saving};
use super::stored::{self, ContactState, Facts, QueuesMark};
use super::{ContactId, Said};

/// The queues that are made for one contact.
const QUEUES_WANTED: usize = 2;
/// What was to be acknowledged before a start goes out within so long after it.
const OVERDUE_WITHIN: Duration = Duration::from_secs(120);
/// Records that are read and not durable; more are left with their holders.
const CAME_MAX: usize = 64;
/// Messages that say where this side reads, of which is noted that they do.
const CARRIERS_MAX: usize = 64;

pub(super) struct Contact {
    pub(super) id: ContactId,
    pub(super) key: ContactKey,
    pub(super) thread: Thread,
    /// The own inbox that it belongs to, by its owner's name.
    pub(super) inbox: Option<String>,
    /// The peer's inbox, if it is known.
    pub(super) address: Option<InboxAddress>,
    pub(super) pseudonym: DhPublic,
    /// Where the peer reads.
    pub(super) queues: Vec<Mailbox>,
    /// Where this side reads.
    pub(super) mailboxes: Mailboxes,
    pub(super) facts: Facts,
    /// Changes so far in this run, and how many of them are durable.
    changes: u64,
    durable: u64,
    saving: Saving,
    /// Records that were read since the state was last given to the store, and before.
    came: Vec<Came>,
    storing: Vec<Came>,
    /// Something came since what arrived was last said.
    has_more_to_acknowledge: bool,
    /// What the program is saying of its own accord.
    saying: BTreeSet<Saying>,
    /// Messages that came: they come again with a new session, if the peer had not heard so (§11.9(6)).
    pub(super) received: BTreeSet<MessageId>,
    /// Since when messages of the peer's are missing, and whether its user was told.
    missing_since: Option<Instant>,
    is_missing_told: bool,
    /// When the peer was last asked for them.
    asked_at: Instant,
}

/// A record that was read and is not durable.
struct Came {
    mailbox: MailboxId,
    record: RecordId,
    /// The message in it, if there is one for the user.
    message: Option<StoreOp>,
    told: Option<Notice>,
}

/// A contact, told apart from others by what began the conversation.
pub(super) struct Beginning {
    pub(super) inbox: Option<String>,
    pub(super) address: Option<InboxAddress>,
    pub(super) pseudonym: DhPublic,
}

impl Contact {
    /// One whose conversation has just begun, on whichever side.
    pub(super) fn new(
        cx: &mut Context<'_>,
        id: ContactId,
        thread: Thread,
        beginning: Beginning,
    ) -> Self {
        let mut key = ContactKey([0; 16]);
        cx.rng.fill_bytes(&mut key.0);
        let facts = Facts {
            has_written: thread.is_initiator(),
            is_blocked: false,
            told: None,
            carriers: Vec::new(),
            acknowledges_at: None,
            moves_at: next_move(cx),
            renewed_at: WallTime(0),
            asks_renewal_at: None,
            queues_said_at: None,
            sessions_before: 0,
        };
        Self {
            id,
            key,
            thread,
            inbox: beginning.inbox,
            address: beginning.address,
            pseudonym: beginning.pseudonym,
            queues: Vec::new(),
            mailboxes: Mailboxes::default(),
            facts,
            changes: 1,
            durable: 0,
            saving: Saving::Due(cx.now),
            came: Vec::new(),
            storing: Vec::new(),
            has_more_to_acknowledge: false,
            saying: BTreeSet::new(),
            received: BTreeSet::new(),
            missing_since: None,
            is_missing_told: false,
            asked_at: Instant::default(),
        }
    }

    pub(super) fn restore(
        cx: &mut Context<'_>,
        id: ContactId,
        key: ContactKey,
        bytes: &[u8],
    ) -> Option<Self> {
        let mut state = ContactState::decode(bytes)?;
        if let Some(at) = &mut state.facts.acknowledges_at {
            // What is overdue at a start does not go out together with that of others; and the clock may
            // have been ahead.
            let overdue = cx.wall + between(Duration::ZERO, OVERDUE_WITHIN, cx.rng);
            *at = (*at).max(overdue).min(cx.wall + ACKNOWLEDGED_WITHIN_MAX);
        }
        Some(Self {
            id,
            key,
            thread: Thread::restore(&state.thread).ok()?,
            inbox: state.inbox.take(),
            address: state.address,
            pseudonym: DhPublic(state.pseudonym),
            queues: core::mem::take(&mut state.queues),
            mailboxes: Mailboxes::restore(core::mem::take(&mut state.mailboxes)),
            facts: state.facts.clone(),
            changes: 0,
            durable: 0,
            saving: Saving::Saved,
            came: Vec::new(),
            storing: Vec::new(),
            has_more_to_acknowledge: false,
            saying: BTreeSet::new(),
            received: BTreeSet::new(),
            missing_since: None,
            is_missing_told: false,
            asked_at: Instant::default(),
        })
    }

    fn state(&self) -> Zeroizing<Vec<u8>> {
        wire::encode_secret(&ContactState {
            version: stored::VERSION,
            thread: self.thread.state().to_vec(),
            inbox: self.inbox.clone(),
            address: self.address,
            pseudonym: self.pseudonym.0,
            queues: self.queues.clone(),
            mailboxes: self.mailboxes.all().to_vec(),
            facts: self.facts.clone(),
        })
    }

    fn card(&self) -> ContactCard {
        ContactCard {
            inbox: self.inbox.clone(),
            address: self.address,
            pseudonym: self.pseudonym,
            is_initiator: self.thread.is_initiator(),
            is_stranger: !self.facts.has_written,
            is_blocked: self.facts.is_blocked,
        }
    }

    /// The state to store changed.
    pub(super) fn touch(&mut self, cx: &Context<'_>) {
        self.changes += 1;
        if !matches!(self.saving, Saving::Storing(_)) {
            self.saving = Saving::Due(cx.now);
        }
    }

    /// Whether the state is durable as it was after so many changes (§11.9(5)).
    pub(super) const fn is_durable(&self, changes: u64) -> bool {
        self.durable >= changes
    }

    /// This side wants to write: from now on it has queues for what comes back.
    /// Whether that is news.
    pub(super) fn want_queues(&mut self, cx: &Context<'_>) -> bool {
        let is_news = !core::mem::replace(&mut self.facts.has_written, true);
        if is_news {
            self.touch(cx);
        }
        is_news
    }

    pub(super) fn set_blocked(&mut self, cx: &Context<'_>, is_blocked: bool) {
        self.facts.is_blocked = is_blocked;
        self.touch(cx);
    }

    /// Makes, moves and forgets own queues, says what is due, stores what changed.
    pub(super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        paths: &Paths,
        apart_from: &[RelayId],
    ) -> Vec<Said> {
        self.see_to_queues(cx, paths, apart_from);
        self.thread.expire(cx.confirmed);
        let said = self.say_what_is_due(cx);
        self.save_if_due(cx);
        // Nothing leaves this client before it is durable here.
        if self.saving == Saving::Saved && cx.is_ready && !self.facts.is_blocked {
            self.mailboxes
                .create_missing(cx, requests, Owner::Contact(self.id), true);
        }
        said
    }

    fn see_to_queues(&mut self, cx: &mut Context<'_>, paths: &Paths, apart_from: &[RelayId]) {
        if !self.facts.has_written || self.facts.is_blocked {
            return;
        }
        if self.facts.moves_at <= cx.confirmed {
            self.facts.moves_at = next_move(cx);
            self.mailboxes.retire_oldest(cx);
            self.touch(cx);
        }
        self.mailboxes.keep_apart_from(apart_from);
        while cx.is_ready && self.mailboxes.mend(cx, paths, QUEUES_WANTED).is_some() {
            self.touch(cx);
        }
        if self.mailboxes.forget_retired(cx).is_some() {
            self.touch(cx);
        }
    }

    /// What the program has to say of its own accord: where this side reads, what arrived.
    fn say_what_is_due(&mut self, cx: &mut Context<'_>) -> Vec<Said> {
        let mut said = Vec::new();
        if self.facts.is_blocked || !self.facts.has_written || !self.has_way() {
            return said;
        }
        self.tell_missing(cx);
        let is_due = |at: Option<WallTime>| at.is_some_and(|at| at <= cx.wall);
        for (saying, is_due) in [
            (Saying::Queues, self.owes_queues()),
            (Saying::Acknowledgement, is_due(self.facts.acknowledges_at)),
            (Saying::Renewal, is_due(self.facts.asks_renewal_at)),
        ] {
            if is_due && self.saying.insert(saying) {
                said.push(Said::Letter(self.key, saying));
            }
        }
        said
    }

    /// A gap is told once it has lasted, and then asked for.
    fn tell_missing(&mut self, cx: &mut Context<'_>) {
        let missing: u64 = self.thread.missing().map(len).sum();
        if missing == 0 {
            self.missing_since = None;
            if core::mem::take(&mut self.is_missing_told) {
                self.tell(cx, ConversationEvent::Complete);
            }
            return;
        }
        let since = *self.missing_since.get_or_insert(cx.now);
        if since + GAP_TOLD_AFTER > cx.now {
            return;
        }
        if !core::mem::replace(&mut self.is_missing_told, true) {
            self.tell(cx, ConversationEvent::Missing(missing));
            self.asked_at = Instant::default();
        }
        // What asks may be lost, too.
        if self.asked_at == Instant::default() || self.asked_at + GAP_ASKED_EVERY <= cx.now {
            self.asked_at = cx.now;
            let wait = between(Duration::ZERO, GAP_TOLD_AFTER, cx.rng);
            self.facts.acknowledges_at = Some(cx.wall + wait);
            self.touch(cx);
        }
    }

    pub(super) fn tell(&self, cx: &mut Context<'_>, event: ConversationEvent) {
        let contact = self.key;
        cx.notify(Notice::Conversation { contact, event });
    }

    /// Whether there is anywhere to write to.
    fn has_way(&self) -> bool {
        self.thread.introduction().is_some() || !self.queues.is_empty()
    }

    /// Whether there is still a reason to say this.
    pub(super) const fn owes(&self, saying: Saying) -> bool {
        match saying {
            Saying::Acknowledgement => self.facts.acknowledges_at.is_some(),
            Saying::Renewal => self.facts.asks_renewal_at.is_some(),
            Saying::Text | Saying::Queues => true,
        }
    }

    /// The program tries no longer to say this.
    pub(super) fn on_unsaid(&mut self, saying: Saying) {
        self.saying.remove(&saying);
    }

    /// Whether the peer is still to be told where this side reads.
    fn owes_queues(&self) -> bool {
        let Some(mark) = self.queues_mark() else {
            return false;
        };
        let mut carried = self.facts.carriers.iter();
        // Before the first message there is nothing that could say it.
        let has_begun = self.facts.told.is_some() || !self.facts.carriers.is_empty();
        has_begun && self.facts.told != Some(mark) && !carried.any(|(_, it)| *it == mark)
    }

    /// The queues that the peer is told of.
    fn listed(&self) -> impl Iterator<Item = &OwnMailbox> {
        self.mailboxes.listed().take(CONTACT_QUEUES_MAX)
    }

    fn queues_mark(&self) -> Option<QueuesMark> {
        let queues: Vec<u8> = self.listed().flat_map(|it| it.queue.0).collect();
        let [a, b, c, d, e, f, g, h, ..] = sha256(&[&queues]);
        (!queues.is_empty()).then_some(QueuesMark([a, b, c, d, e, f, g, h]))
    }

    /// Whether there are queues for what comes back.
    pub(super) fn has_queues(&self) -> bool {
        self.listed().next().is_some()
    }

    /// Whether all of them are there.
    pub(super) fn has_all_queues(&self) -> bool {
        self.listed().count() >= QUEUES_WANTED
    }

    /// Seals a message, or what the program has to say, as it is to go out now.
    ///
    /// # Errors
    /// See [`WriteFault`].
    pub(super) fn seal(
        &mut self,
        cx: &mut Context<'_>,
        saying: Saying,
        mut draft: Draft,
    ) -> Result<Sealed, WriteFault> {
        let outgoing = match saying {
            Saying::Text | Saying::Queues => {
                let text = draft.items.len();
                draft.items.extend(self.queues_to_tell(saying));
                let written = self.thread.write(&draft, cx.confirmed, cx.rng);
                match written {
                    // The text comes first: where this side reads is said by itself.
                    Err(WriteFault::Seal(SealFault::TooLong { .. })) if text > 0 => {
                        draft.items.truncate(text);
                        self.thread.write(&draft, cx.confirmed, cx.rng)?
                    }
                    written => {
                        self.note_carrier(&draft);
                        written?
                    }
                }
            }
            Saying::Acknowledgement => self.thread.acknowledge(&draft, cx.confirmed, cx.rng)?,
            Saying::Renewal => Outgoing::Envelope(self.thread.request_renewal(cx.rng)),
        };
        self.has_more_to_acknowledge = false;
        if saying.is_numbered() {
            self.facts.acknowledges_at = None; // it rides along
        }
        self.touch(cx);
        let form = match (outgoing, self.thread.introduction()) {
            (Outgoing::Opening(message), Some(introduction)) => {
                Form::Opening(Arc::new(copy(introduction)), message.into())
            }
            (Outgoing::Opening(message) | Outgoing::Envelope(message), _) => {
                Form::Envelope(message.into())
            }
        };
        Ok(Sealed {
            form,
            session: self.facts.sessions_before,
            changes: self.changes,
        })
    }

    /// The item that says where this side reads, unless the peer knows.
    fn queues_to_tell(&self, saying: Saying) -> Option<Item> {
        let is_news = self
            .queues_mark()
            .is_some_and(|it| self.facts.told != Some(it));
        (is_news || saying == Saying::Queues && self.has_queues()).then(|| {
            let to_public = |mailbox: &OwnMailbox| Mailbox {
                relay: mailbox.relay,
                queue: mailbox.queue,
                sender_seed: mailbox.sender_seed,
            };
            Item::Queues(self.listed().map(to_public).collect())
        })
    }

    fn note_carrier(&mut self, draft: &Draft) {
        let Some(mark) = self.queues_mark() else {
            return;
        };
        if !draft.items.iter().any(|it| matches!(it, Item::Queues(_))) {
            return;
        }
        self.facts.carriers.retain(|(id, _)| *id != draft.id);
        self.facts.carriers.push((draft.id, mark));
        let excess = self.facts.carriers.len().saturating_sub(CARRIERS_MAX);
        self.facts.carriers.drain(..excess);
    }

    /// An own message goes nowhere any more.
    pub(super) fn give_up(&mut self, cx: &Context<'_>, id: MessageId) {
        self.thread.give_up(id);
        self.facts.carriers.retain(|(it, _)| *it != id);
        self.touch(cx);
    }

    /// The program said this, and a holder has it.
    pub(super) fn on_said(&mut self, cx: &mut Context<'_>, saying: Saying) {
        match saying {
            Saying::Acknowledgement => {
                self.facts.acknowledges_at = None;
                if self.has_more_to_acknowledge {
                    self.plan_acknowledgement(cx);
                }
                self.touch(cx);
            }
            Saying::Renewal => {
                // The request may be lost, too.
                self.facts.asks_renewal_at = Some(cx.wall + RENEWAL_PAUSE);
                self.touch(cx);
            }
            Saying::Text | Saying::Queues => {}
        }
    }

    /// The message in a record of one of this side's queues; `None` if it is not of the peer.
    pub(super) fn unwrap(
        &self,
        network: &NetworkId,
        queue: QueueId,
        record: &[u8],
    ) -> Option<Vec<u8>> {
        let mut mailboxes = self.mailboxes.all().iter();
        let mailbox = mailboxes.find(|mailbox| mailbox.queue == queue)?;
        let envelope = EnvelopeQueue {
            network,
            holder: &mailbox.relay,
            queue: &queue,
            sender_seed: &mailbox.sender_seed,
        };
        envelope.open(record).ok()
    }

    /// Whether there is room for one more record.
    pub(super) const fn may_read(&self) -> bool {
        self.came.len() + self.storing.len() < CAME_MAX
    }

    /// Takes what a message of the peer's says; its record stays where it is until that is durable.
    pub(super) fn take(
        &mut self,
        cx: &mut Context<'_>,
        (mailbox, record): (MailboxId, RecordId),
        read: Read,
    ) -> Vec<Said> {
        self.facts.asks_renewal_at = None; // it was read
        let mut said: Vec<Said> = self.on_acknowledged(read.acknowledged);
        said.extend(read.asked.into_iter().map(Said::Asked));
        let lost: u64 = read.lost.into_iter().map(len).sum();
        if lost > 0 {
            self.tell(cx, ConversationEvent::Lost(lost));
        }
        let mut came = Came {
            mailbox,
            record,
            message: None,
            told: None,
        };
        match read.contents {
            Some(contents) => said.extend(self.take_contents(cx, &contents, &mut came)),
            // Its sender has not heard that it came.
            None => self.plan_acknowledgement(cx),
        }
        self.came.push(came);
        self.tell_missing(cx);
        self.touch(cx);
        said
    }

    fn take_contents(
        &mut self,
        cx: &mut Context<'_>,
        contents: &Contents,
        came: &mut Came,
    ) -> Option<Said> {
        let mut said = None;
        let mut text = Vec::new();
        let mut has_text = false;
        for item in &contents.items {
            match item {
                Item::Text(part) => {
                    has_text = true;
                    text.extend_from_slice(part);
                }
                Item::Queues(queues) if self.is_newest(contents) && self.queues != *queues => {
                    self.queues.clone_from(queues);
                    said = Some(Said::QueuesMoved(self.key));
                }
                Item::Queues(_) => {}
            }
        }
        let Some(number) = contents.number else {
            return said;
        };
        self.plan_acknowledgement(cx);
        if has_text && self.received.insert(contents.id) {
            came.message = Some(StoreOp::PutMessage {
                inbox: self.inbox.clone(),
                id: contents.id,
                body: text,
                received_at: cx.wall,
                letter: Some(Letter {
                    contact: self.key,
                    number: number.number,
                    session: self.facts.sessions_before,
                    written_at: contents.written_at,
                }),
            });
            came.told = Some(Notice::Received {
                inbox: self.inbox.clone(),
                id: contents.id,
            });
        }
        said
    }

    /// Whether it says where the peer reads later than all that were read: messages come in any order.
    fn is_newest(&mut self, contents: &Contents) -> bool {
        let Some(Number { number, .. }) = contents.number else {
            return false;
        };
        let is_newest = self.facts.queues_said_at.is_none_or(|last| last < number);
        if is_newest {
            self.facts.queues_said_at = Some(number);
        }
        is_newest
    }

    /// It is said with the next message, or after a random while (§11.9(3)).
    fn plan_acknowledgement(&mut self, cx: &mut Context<'_>) {
        self.has_more_to_acknowledge = true;
        if self.facts.acknowledges_at.is_none() {
            let wait = between(ACKNOWLEDGED_WITHIN_MIN, ACKNOWLEDGED_WITHIN_MAX, cx.rng);
            self.facts.acknowledges_at = Some(cx.wall + wait);
        }
    }

    fn on_acknowledged(&mut self, ids: Vec<MessageId>) -> Vec<Said> {
        for id in &ids {
            let carriers = &mut self.facts.carriers;
            let carried = carriers.iter().position(|(carrier, _)| carrier == id);
            if let Some(place) = carried {
                self.facts.told = Some(carriers.remove(place).1);
            }
        }
        ids.into_iter().map(Said::Acknowledged).collect()
    }

    /// Whether a session may be begun anew, or asked for, now: not again and again (§11.6(2)).
    pub(super) fn may_renew(&self, cx: &Context<'_>) -> bool {
        let (last, now) = (self.facts.renewed_at, cx.wall);
        last > now || last + RENEWAL_PAUSE <= now
    }

    /// Asks for a new session, until there is one or a message of the peer's is read.
    pub(super) fn ask_renewal(&mut self, cx: &Context<'_>) {
        let pause = self.facts.renewed_at + RENEWAL_PAUSE;
        let at = pause.min(cx.wall + RENEWAL_PAUSE).max(cx.wall);
        if self.facts.asks_renewal_at.is_none() {
            self.facts.asks_renewal_at = Some(at);
            self.touch(cx);
        }
    }

    /// Another session is written to from now on, and these messages are written again.
    pub(super) fn on_renewed(&mut self, cx: &mut Context<'_>, again: Vec<MessageId>) -> Vec<Said> {
        self.facts.sessions_before += 1;
        self.facts.told = None;
        self.facts.carriers.clear();
        self.facts.renewed_at = cx.wall;
        self.facts.asks_renewal_at = None;
        self.facts.queues_said_at = None;
        self.touch(cx);
        self.tell(cx, ConversationEvent::Renewed);
        // The peer may have lost where this side reads; and a session begins with a message.
        let queues = Said::Letter(self.key, Saying::Queues);
        let again = again.into_iter().map(Said::Again);
        again.chain([queues]).collect()
    }

    pub(super) fn save_if_due(&mut self, cx: &mut Context<'_>) {
        let Saving::Due(at) = self.saving else { return };
        if at > cx.now {
            return;
        }
        let put = StoreOp::PutContact {
            key: self.key,
            card: self.card(),
            state: self.state(),
        };
        self.storing.append(&mut self.came);
        let messages = self.storing.iter().filter_map(|came| came.message.clone());
        let mut ops: Vec<StoreOp> = messages.collect();
        let op = if ops.is_empty() {
            put
        } else {
            ops.push(put);
            StoreOp::Together(ops)
        };
        let stored = Stored::Contact(self.id, self.changes);
        self.saving = Saving::Storing(cx.store_for(stored, op));
    }

    /// The store has the state as it was after so many changes, or could not take it. Returns the
    /// records that were read by then, with whether they are durable.
    pub(super) fn on_stored(
        &mut self,
        cx: &mut Context<'_>,
        changes: u64,
        is_stored: bool,
    ) -> Vec<(MailboxId, RecordId)> {
        if !is_stored {
            // What was read stays here, and is stored with the next try.
            self.saving = Saving::Due(cx.now + STORE_RETRY);
            return Vec::new();
        }
        self.durable = changes;
        self.saving = if self.changes > changes {
            Saving::Due(cx.now)
        } else {
            Saving::Saved
        };
        let storing = core::mem::take(&mut self.storing);
        for notice in storing.iter().filter_map(|came| came.told.clone()) {
            cx.notify(notice);
        }
        let records = storing.into_iter();
        records.map(|came| (came.mailbox, came.record)).collect()
    }

    /// Whether nothing of it is on its way to the store.
    pub(super) fn is_at_rest(&self) -> bool {
        self.came.is_empty() && self.storing.is_empty() && self.saving == Saving::Saved
    }

    /// The records that were read and are not durable: nobody waits for them any more.
    pub(super) fn take_unstored(&mut self) -> impl Iterator<Item = (MailboxId, RecordId)> + use<> {
        let mut all = core::mem::take(&mut self.storing);
        all.append(&mut self.came);
        all.into_iter().map(|came| (came.mailbox, came.record))
    }

    /// A holder made a queue, or did not.
    pub(super) fn on_created(&mut self, cx: &mut Context<'_>, queue: QueueId, answer: &Answer) {
        if self.mailboxes.on_created(cx, queue, answer).is_some() {
            self.touch(cx);
        }
    }

    /// A queue was visited.
    pub(super) fn on_outcome(&mut self, cx: &mut Context<'_>, queue: QueueId, outcome: Outcome) {
        if self.mailboxes.on_outcome(cx, queue, outcome).is_some() {
            self.touch(cx);
        }
    }

    /// When there is something to do, past moments included.
    pub(super) fn timeouts(&self, cx: &Context<'_>) -> impl Iterator<Item = Instant> {
        let save = if let Saving::Due(at) = self.saving {
            Some(at)
        } else {
            None
        };
        let wait = |at: WallTime| cx.now + at.since(cx.wall);
        let acknowledges_at = self.facts.acknowledges_at.map(wait);
        let gap = self.missing_since.map(|since| {
            if self.is_missing_told {
                self.asked_at + GAP_ASKED_EVERY
            } else {
                since + GAP_TOLD_AFTER
            }
        });
        save.into_iter()
            .chain(self.mailboxes.timeouts())
            .chain(acknowledges_at.filter(|_| self.facts.has_written))
            .chain(self.facts.asks_renewal_at.map(wait))
            .chain(self.facts.has_written.then(|| wait(self.facts.moves_at)))
            .chain(gap)
    }
}

/// How many messages these are.
const fn len(range: NumberRange) -> u64 {
    range.last - range.first + 1
}

/// When the next queue of a contact is moved.
fn next_move(cx: &mut Context<'_>) -> WallTime {
    cx.confirmed + between(QUEUE_MOVED_WITHIN_MIN, QUEUE_MOVED_WITHIN_MAX, cx.rng)
}

/// An introduction is a secret of its conversation, and no other code copies one.
fn copy(introduction: &Introduction) -> Introduction {
    let mut bytes = Zeroizing::new(Vec::with_capacity(introduction.encoded_len()));
    introduction.encode(&mut bytes);
    let copy = Introduction::decode(&mut Reader::new(&bytes));
    copy.unwrap_or_else(|_| unreachable!("its own bytes"))
}
