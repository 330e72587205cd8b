//! Messages of conversations in the outbox (docs/protocol.md §11): where each goes now, and how they
//! stay until their readers acknowledge them.

use umbel_proto::chance::exponential;
use umbel_proto::conversation::contents::Item;
use umbel_proto::conversation::thread::Draft;
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::limits::GAP_TOLD_AFTER;
use umbel_proto::time::Duration;

use super::super::contacts::{Contacts, Said, Unsealed, Way};
use super::super::context::Context;
use super::super::delivery::{Delivery, Destination, Saying};
use super::super::io::{ContactKey, DeferReason, Notice, SendFault, StoreOp};
use super::super::lookup::Found;
use super::super::requests::Requests;
use super::super::saving::Saving;
use super::entry::Entry;
use super::route::{Form, Route, Sealed};
use super::{KEPT_LOOK_MEAN, Outbox, Post, Stage};

/// So long a message waits for all queues for what comes back; then it goes out with those that there
/// are.
const QUEUES_PATIENCE: Duration = Duration::from_secs(5);
/// So long a message waits for any.
const QUEUES_PATIENCE_MAX: Duration = Duration::from_secs(30);
/// How long the program tries to say what arrived.
const QUIET_LIFE: Duration = Duration::from_secs(3600);

/// What a conversation is to hear of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ForContact {
    /// This message goes nowhere any more.
    GivenUp(ContactKey, MessageId),
    /// A holder has something that the program says.
    Said(ContactKey, Saying),
    /// The program tries no longer to say this: it is said, or there is nothing to say.
    Unsaid(ContactKey, Saying),
}

/// The outcome of looking for a message's route.
pub(super) enum Sought {
    /// It is being looked for.
    Pending,
    /// It was not found.
    Failed(DeferReason),
    /// There never will be one.
    Refused(SendFault),
    /// All mailboxes there have it.
    Complete,
    Found(Route),
}

impl Outbox {
    /// Looks for the route of a message.
    pub(super) fn seek(
        &mut self,
        cx: &mut Context<'_>,
        post: &mut Post<'_>,
        id: MessageId,
    ) -> Sought {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Sought::Pending;
        };
        let (contact, saying) = match entry.delivery.to().clone() {
            Destination::OneWay(address) => return entry.seek_one_way(cx, post, &address),
            Destination::Owner { address, writer } => {
                let (contacts, writer) = (&mut *post.contacts, writer.as_deref());
                match contacts.with_owner(cx, post.inboxes, &address, writer) {
                    Ok(contact) => {
                        entry.delivery.become_letter(contact);
                        self.save_by(id, cx.now);
                        (contact, Saying::Text)
                    }
                    Err(fault) => return Sought::Refused(fault),
                }
            }
            Destination::Contact { contact, saying } => (contact, saying),
        };
        let Some(entry) = self.entries.get_mut(&id) else {
            return Sought::Pending;
        };
        entry.note_written(cx, contact, id);
        entry.seek_contact(cx, post, (contact, saying), id)
    }

    /// It never can be sent.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, id: MessageId, reason: SendFault) {
        self.remove(cx, id, Notice::Failed { id, reason });
    }

    /// Enough holders have it: it waits for its reader. From time to time it is looked whether the
    /// reader's mailboxes are still those (§11.9(2)).
    pub(super) fn keep(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let is_news = !entry.delivery.is_kept();
        if is_news && !entry.has_told(&entry.held(cx, id)) {
            entry.tell_held(cx, id);
        }
        entry.delivery.keep();
        entry.needs_fresh = true;
        let wait = exponential(KEPT_LOOK_MEAN, cx.rng);
        self.pause(id, cx.now + wait);
        if is_news {
            self.save_by(id, cx.now);
        }
    }

    /// A conversation says something of messages, or has the program say something.
    pub(in super::super) fn on_said(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        said: Said,
    ) {
        match said {
            Said::Acknowledged(id) => {
                if self.entries.contains_key(&id) {
                    requests.withdraw_deposits(id);
                    self.remove(cx, id, Notice::Acknowledged(id));
                }
            }
            Said::Asked(id) => {
                // Each message of a peer that lacks it asks, and one that is on its way is not there yet.
                let entry = self.entries.get(&id);
                let is_under_way = |entry: &Entry| {
                    entry
                        .sealed_at
                        .is_some_and(|at| at + GAP_TOLD_AFTER > cx.now)
                };
                if !entry.is_some_and(is_under_way) {
                    self.send_again(cx, requests, id);
                }
            }
            Said::Again(id) => self.send_again(cx, requests, id),
            Said::QueuesMoved(contact) => self.look_anew(cx, contact),
            Said::Letter(contact, saying) => self.say(cx, contact, saying),
        }
    }

    /// Its reader lacks it: it is sealed and deposited anew.
    fn send_again(&mut self, cx: &mut Context<'_>, requests: &mut Requests, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        requests.withdraw_deposits(id);
        entry.delivery.begin_anew();
        self.hasten(cx, id);
        self.save_by(id, cx.now);
    }

    /// A contact reads elsewhere: what it has not acknowledged goes there, too.
    fn look_anew(&mut self, cx: &mut Context<'_>, contact: ContactKey) {
        for id in self.to(contact) {
            let entry = self.entries.get(&id);
            if entry.is_some_and(|entry| entry.delivery.is_kept()) {
                self.hasten(cx, id);
            }
        }
    }

    /// The messages to a contact.
    fn to(&self, contact: ContactKey) -> Vec<MessageId> {
        let is_to = |entry: &Entry| entry.delivery.letter().is_some_and(|(to, _)| to == contact);
        let entries = self.entries.iter();
        entries
            .filter(|(_, entry)| is_to(entry))
            .map(|(&id, _)| id)
            .collect()
    }

    /// It is due now, whatever it waits for; but not before it is durable here.
    fn hasten(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match &mut entry.stage {
            Stage::Blocked(until) => *until = cx.now.min(*until),
            Stage::Waiting(until) => {
                let due = (*until, entry.seq, id);
                self.waiting.remove(&due);
                self.wait(id, cx.now);
            }
            Stage::Finding | Stage::Depositing => self.pause(id, cx.now),
        }
    }

    /// The program says this to a contact, unless it is about to.
    fn say(&mut self, cx: &mut Context<'_>, contact: ContactKey, saying: Saying) {
        let entries = self.entries.values();
        let mut letters = entries.filter_map(|entry| entry.delivery.letter());
        if letters.any(|letter| letter == (contact, saying)) {
            return;
        }
        let mut id = MessageId([0; MessageId::LEN]);
        cx.rng.fill_bytes(&mut id.0);
        let to = Destination::Contact { contact, saying };
        let life = if saying.is_numbered() {
            cx.network.params.record_life
        } else {
            QUIET_LIFE
        };
        let delivery = Delivery::new(to, Vec::new(), cx.wall, life);
        let saving = if delivery.is_stored() {
            Saving::Due(cx.now)
        } else {
            Saving::Saved
        };
        self.insert(id, delivery, saving);
        self.note_made(id, cx.now);
        self.save_at(id, cx.now);
        self.wait(id, cx.now);
    }

    /// A contact is forgotten: nothing more goes to it.
    pub(in super::super) fn cancel_all_to(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        contact: ContactKey,
    ) {
        for id in self.to(contact) {
            self.cancel(cx, requests, id);
        }
    }

    /// What conversations are to hear, since this was last asked.
    pub(in super::super) fn take_for_contacts(&mut self) -> Vec<ForContact> {
        core::mem::take(&mut self.for_contacts)
    }
}

impl Entry {
    fn seek_one_way(
        &self,
        cx: &mut Context<'_>,
        post: &mut Post<'_>,
        address: &InboxAddress,
    ) -> Sought {
        let (requests, since) = (&mut *post.requests, self.attempt_at);
        let lookups = &mut post.lookups;
        match lookups.find(cx, requests, address, since, self.needs_fresh) {
            Found::Pending => Sought::Pending,
            Found::Failed(reason) => Sought::Failed(reason),
            Found::Known(_, descriptor) if descriptor.mailboxes.is_empty() => {
                Sought::Failed(DeferReason::NoDescriptor)
            }
            Found::Known(_, descriptor) => {
                Sought::Found(Route::one_way(&descriptor, &cx.network.params))
            }
        }
    }

    /// While the inbox is looked up, queues for what comes back are made.
    fn seek_contact(
        &mut self,
        cx: &mut Context<'_>,
        post: &mut Post<'_>,
        letter: (ContactKey, Saying),
        id: MessageId,
    ) -> Sought {
        let mut queues = Vec::new();
        let mut descriptor = None;
        match post.contacts.way_to(cx, letter.0) {
            Way::None(fault) => return self.without_way(fault),
            Way::Queues(known) => queues = known,
            Way::Inbox(address) => {
                let (requests, since) = (&mut *post.requests, self.attempt_at);
                let lookups = &mut post.lookups;
                match lookups.find(cx, requests, &address, since, self.needs_fresh) {
                    Found::Pending => return Sought::Pending,
                    Found::Failed(reason) => return Sought::Failed(reason),
                    Found::Known(_, found) if found.mailboxes.is_empty() => {
                        return Sought::Failed(DeferReason::NoDescriptor);
                    }
                    Found::Known(_, found) => descriptor = Some(found),
                }
            }
        }
        let mailboxes = descriptor.as_ref().map_or(&queues, |it| &it.mailboxes);
        if self.delivery.is_kept() && self.delivery.is_held_at(mailboxes) {
            return Sought::Complete; // nothing is sealed for nobody
        }
        let is_to_inbox = descriptor.is_some();
        let is_patient = self.attempt_at + QUEUES_PATIENCE_MAX > cx.now;
        let sealed = match self.sealed(cx, post.contacts, letter, id, is_to_inbox) {
            Ok(sealed) => sealed,
            Err(Unsealed::Never(fault)) => return Sought::Refused(fault),
            Err(Unsealed::NotYet) if is_patient => return Sought::Pending,
            Err(Unsealed::NotYet) => return Sought::Failed(DeferReason::Holders),
        };
        let params = &cx.network.params;
        let route = Route::to_contact(sealed, descriptor.as_deref(), &queues, params);
        route.map_or(Sought::Pending, Sought::Found)
    }

    /// What becomes of a message while its contact can't be written to. One that holders have stays with
    /// them; and where the peer reads may be said in a message that is still on its way.
    fn without_way(&self, fault: SendFault) -> Sought {
        match fault {
            _ if self.delivery.is_kept() => Sought::Complete,
            SendFault::NoWayBack if !self.delivery.is_quiet() => {
                Sought::Failed(DeferReason::Holders)
            }
            SendFault::Blocked if self.delivery.held_count() > 0 => {
                Sought::Failed(DeferReason::Holders)
            }
            fault => Sought::Refused(fault),
        }
    }

    /// The message as its conversation seals it: as before, if that may still be used.
    fn sealed(
        &mut self,
        cx: &mut Context<'_>,
        contacts: &mut Contacts,
        (contact, saying): (ContactKey, Saying),
        id: MessageId,
        is_to_inbox: bool,
    ) -> Result<&Sealed, Unsealed> {
        let may_use = |sealed: &Sealed| {
            contacts.is_of_now(contact, sealed)
                && is_to_inbox == matches!(sealed.form, Form::Opening(..))
        };
        let before = self.delivery.sealed.take().filter(may_use);
        let sealed = match before {
            Some(sealed) => sealed,
            None => {
                let text = Item::Text(self.delivery.body().to_vec().into());
                let draft = Draft {
                    id,
                    written_at: self.delivery.life().0,
                    items: (saying == Saying::Text)
                        .then_some(text)
                        .into_iter()
                        .collect(),
                };
                let is_patient = self.attempt_at + QUEUES_PATIENCE > cx.now;
                self.sealed_at = Some(cx.now);
                contacts.seal(cx, contact, saying, draft, is_patient)?
            }
        };
        Ok(self.delivery.sealed.insert(sealed))
    }

    /// Whether it may go to holders: what it follows from is durable.
    pub(super) fn may_leave(&self, contacts: &Contacts) -> bool {
        match (self.delivery.letter(), &self.delivery.sealed) {
            (Some((contact, _)), Some(sealed)) => contacts.may_leave(contact, sealed),
            _ => true,
        }
    }

    /// What one wrote is kept beside what came.
    fn note_written(&mut self, cx: &mut Context<'_>, contact: ContactKey, id: MessageId) {
        if self.delivery.is_quiet() || core::mem::replace(&mut self.is_written_noted, true) {
            return;
        }
        cx.store(StoreOp::PutWritten {
            contact,
            id,
            body: self.delivery.body().to_vec(),
            written_at: self.delivery.life().0,
        });
    }
}
