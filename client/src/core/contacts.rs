//! Conversations with contacts (docs/protocol.md §11): a contact is a route out, mailboxes in, and the
//! conversation that seals and reads what goes through them.
//!
//! Begins conversations, or takes those that strangers begin; seals what the outbox sends; reads what
//! visits bring; says of its own accord what arrived and where this side reads. Machines hear from it by
//! `Said`. A contact is looked at only when something happens to it or is due.

mod contact;
mod gone;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::conversation::contents::ContentsFault;
use umbel_proto::conversation::opening::OpeningFault;
use umbel_proto::conversation::session::{OpenFault, SealFault};
use umbel_proto::conversation::thread::{Draft, ReadFault, Thread, WriteFault};
use umbel_proto::ids::{MessageId, QueueId, RecordId, RelayId};
use umbel_proto::inbox::address::{InboxAddress, InboxIdentity};
use umbel_proto::inbox::descriptor::Mailbox;
use umbel_proto::inbox::record::{Opening, record_id};
use umbel_proto::path::Paths;
use umbel_proto::time::{Due, Instant};

use super::SnapshotFault;
use super::context::Context;
use super::delivery::Saying;
use super::inboxes::{InboxId, Inboxes};
use super::io::{ContactKey, ConversationEvent, SendFault, StoreOp};
use super::mailbox::{MailboxId, Mailboxes, Outcome, OwnMailbox, Owner, Visits};
use super::outbox::route::Sealed;
use super::requests::{Answer, Requests};
use contact::{Beginning, Contact};
use gone::Gone;

/// Most strangers of one inbox who have no answer: of more, the one who wrote first is forgotten, whose
/// messages stay. If they write again they begin anew, under the same name.
pub const STRANGERS_MAX: usize = 1024;

/// Names a contact in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ContactId(u32);

/// Something that a conversation has to say to other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The peer has this message.
    Acknowledged(MessageId),
    /// The peer asks for this message, which it lacks.
    Asked(MessageId),
    /// The peer can't read the copies that were made of this message.
    Again(MessageId),
    /// The peer reads elsewhere from now on.
    QueuesMoved(ContactKey),
    /// The program has to say this to the peer.
    Letter(ContactKey, Saying),
}

/// Where a message to a contact goes now.
pub(super) enum Way {
    /// It can't go anywhere.
    None(SendFault),
    /// Into the peer's inbox, which has not answered yet.
    Inbox(InboxAddress),
    /// To the queues that the peer made for this conversation.
    Queues(Vec<Mailbox>),
}

/// Why a message can't be sealed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsealed {
    /// Queues for what comes back are being made, or too many messages wait for the peer.
    NotYet,
    /// It never can be.
    Never(SendFault),
}

/// All contacts.
#[derive(Default)]
pub(super) struct Contacts {
    by_id: BTreeMap<ContactId, Contact>,
    by_key: BTreeMap<ContactKey, ContactId>,
    last_id: u32,
    /// When each is looked at next, though nothing happens to it before.
    due: Due<ContactId>,
    /// Contacts that something happened to since they were last looked at.
    woken: BTreeSet<ContactId>,
    /// Whether circuits could be built when all were last looked at.
    was_ready: bool,
    /// Contacts whose mailboxes came, went, or changed their standing since they were last taken.
    moved: BTreeSet<ContactId>,
    have_holders_moved: bool,
    said: Vec<Said>,
    gone: Gone,
}

impl Contacts {
    pub(super) fn restore(
        &mut self,
        cx: &mut Context<'_>,
        key: ContactKey,
        state: &[u8],
    ) -> Result<(), SnapshotFault> {
        let id = self.next_id();
        let contact = Contact::restore(cx, id, key, state).ok_or(SnapshotFault::Contact(key))?;
        self.insert(contact);
        Ok(())
    }

    /// These were removed before the client was started.
    pub(super) fn restore_gone(&mut self, state: &[u8]) -> Result<(), SnapshotFault> {
        self.gone = Gone::restore(state).ok_or(SnapshotFault::Gone)?;
        Ok(())
    }

    /// This message came from a contact before the client was started.
    pub(super) fn restore_received(&mut self, key: ContactKey, id: MessageId) {
        if let Some(contact) = self.id(key).and_then(|it| self.by_id.get_mut(&it)) {
            contact.received.insert(id);
        }
    }

    const fn next_id(&mut self) -> ContactId {
        self.last_id += 1;
        ContactId(self.last_id)
    }

    fn insert(&mut self, contact: Contact) -> ContactKey {
        let (id, key) = (contact.id, contact.key);
        self.by_key.insert(key, id);
        self.by_id.insert(id, contact);
        self.woken.insert(id);
        self.moved.insert(id);
        self.have_holders_moved = true;
        key
    }

    /// A contact that something happens to.
    fn wake(&mut self, id: ContactId) -> Option<&mut Contact> {
        let contact = self.by_id.get_mut(&id)?;
        self.woken.insert(id);
        Some(contact)
    }

    fn named(&mut self, key: ContactKey) -> Option<&mut Contact> {
        let id = *self.by_key.get(&key)?;
        self.wake(id)
    }

    pub(super) fn id(&self, key: ContactKey) -> Option<ContactId> {
        self.by_key.get(&key).copied()
    }

    /// The contacts that belong to this own inbox, or to none.
    pub(super) fn of<'a>(&'a self, inbox: Option<&'a str>) -> impl Iterator<Item = ContactId> + 'a {
        let contacts = self.by_id.values();
        let of = contacts.filter(move |it| it.inbox.as_deref() == inbox && !it.facts.is_blocked);
        of.map(|contact| contact.id)
    }

    /// The own inbox that a contact belongs to.
    pub(super) fn inbox_of(&self, id: ContactId) -> Option<&str> {
        self.by_id.get(&id)?.inbox.as_deref()
    }

    /// The contact that owns this inbox, with whom a conversation is begun if there is none; as the
    /// owner of an inbox of one's own, if one is named.
    ///
    /// # Errors
    /// There is no such inbox of one's own, or it is the very one that is written to.
    pub(super) fn with_owner(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &Inboxes,
        address: &InboxAddress,
        writer: Option<&str>,
    ) -> Result<ContactKey, SendFault> {
        let is_it = |it: &&Contact| {
            it.thread.is_initiator()
                && it.address.as_ref() == Some(address)
                && it.inbox.as_deref() == writer
        };
        if let Some(contact) = self.by_id.values().find(is_it) {
            return Ok(contact.key);
        }
        let identity = match writer {
            Some(name) => Some(identity(inboxes, name).ok_or(SendFault::NoInbox)?),
            None => None,
        };
        let begun = Thread::begin(&cx.network.id, address, identity, cx.confirmed, cx.rng);
        let thread = begun.map_err(|_: OpeningFault| SendFault::OwnInbox)?;
        let pseudonym = thread.pseudonym();
        let beginning = Beginning {
            inbox: writer.map(str::to_owned),
            address: Some(*address),
            pseudonym: pseudonym.unwrap_or_else(|| unreachable!("this side begins")),
        };
        let id = self.next_id();
        let mut contact = Contact::new(cx, id, thread, beginning);
        // It is stored before a message that names it.
        contact.save_if_due(cx);
        Ok(self.insert(contact))
    }

    pub(super) fn set_blocked(&mut self, cx: &Context<'_>, key: ContactKey, is_blocked: bool) {
        if let Some(contact) = self.named(key) {
            contact.set_blocked(cx, is_blocked);
        }
        self.moved.extend(self.id(key));
    }

    /// Forgets a contact. Returns the mailboxes that it had, which holders are to forget, too.
    pub(super) fn remove(
        &mut self,
        cx: &mut Context<'_>,
        key: ContactKey,
        visits: &mut Visits,
    ) -> Option<(ContactId, Mailboxes)> {
        let id = self.by_key.remove(&key)?;
        let mut contact = self.by_id.remove(&id)?;
        for (mailbox, record) in contact.take_unstored() {
            visits.on_stored(cx, mailbox, record, true);
        }
        self.due.cancel(&id);
        self.woken.remove(&id);
        self.moved.remove(&id);
        self.have_holders_moved = true;
        cx.store(StoreOp::RemoveContact(key));
        if !contact.thread.is_initiator() {
            self.gone.add(cx, &contact.pseudonym);
        }
        Some((id, contact.mailboxes))
    }

    /// Where a message to this contact goes now. From now on it has queues for what comes back.
    pub(super) fn way_to(&mut self, cx: &Context<'_>, key: ContactKey) -> Way {
        let id = self.id(key);
        let Some(contact) = id.and_then(|id| self.by_id.get_mut(&id)) else {
            return Way::None(SendFault::NoContact);
        };
        if contact.facts.is_blocked {
            return Way::None(SendFault::Blocked);
        }
        if contact.want_queues(cx) {
            self.woken.extend(id);
        }
        match (contact.thread.introduction(), contact.address) {
            (Some(_), Some(address)) => Way::Inbox(address),
            _ if contact.queues.is_empty() => Way::None(SendFault::NoWayBack),
            _ => Way::Queues(contact.queues.clone()),
        }
    }

    /// Seals a message for a contact; a message that was sealed before keeps its number. Without
    /// patience it does with the queues that there are.
    ///
    /// # Errors
    /// See [`Unsealed`].
    pub(super) fn seal(
        &mut self,
        cx: &mut Context<'_>,
        key: ContactKey,
        saying: Saying,
        draft: Draft,
        is_patient: bool,
    ) -> Result<Sealed, Unsealed> {
        let id = self.id(key);
        let contact = id.and_then(|id| self.by_id.get_mut(&id));
        let contact = contact.ok_or(Unsealed::Never(SendFault::NoContact))?;
        if !contact.owes(saying) {
            return Err(Unsealed::Never(SendFault::NoContact)); // it was said otherwise
        }
        if !contact.has_queues() || (is_patient && !contact.has_all_queues()) {
            return Err(Unsealed::NotYet);
        }
        self.woken.extend(id); // its state changes
        contact
            .seal(cx, saying, draft)
            .map_err(|fault| match fault {
                WriteFault::TooManyOpen | WriteFault::Seal(SealFault::NotYet) => Unsealed::NotYet,
                WriteFault::Seal(SealFault::TooLong { .. }) => Unsealed::Never(SendFault::TooLong),
            })
    }

    /// Whether a message that was sealed for a contact is still of its session.
    pub(super) fn is_of_now(&self, key: ContactKey, sealed: &Sealed) -> bool {
        let contact = self.id(key).and_then(|id| self.by_id.get(&id));
        contact.is_some_and(|it| it.facts.sessions_before == sealed.session)
    }

    /// Whether a sealed message may leave: what it follows from is durable.
    pub(super) fn may_leave(&self, key: ContactKey, sealed: &Sealed) -> bool {
        let contact = self.id(key).and_then(|id| self.by_id.get(&id));
        contact.is_some_and(|it| it.is_durable(sealed.changes))
    }

    /// An own message goes nowhere any more.
    pub(super) fn give_up(&mut self, cx: &Context<'_>, key: ContactKey, id: MessageId) {
        if let Some(contact) = self.named(key) {
            contact.give_up(cx, id);
        }
    }

    /// The program said this, and a holder has it.
    pub(super) fn on_said(&mut self, cx: &mut Context<'_>, key: ContactKey, saying: Saying) {
        if let Some(contact) = self.named(key) {
            contact.on_said(cx, saying);
        }
    }

    /// The program tries no longer to say this.
    pub(super) fn on_unsaid(&mut self, key: ContactKey, saying: Saying) {
        if let Some(contact) = self.named(key) {
            contact.on_unsaid(saying);
        }
    }

    /// Has every contact make its queues, say what is due, and stored.
    pub(super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        inboxes: &Inboxes,
        paths: &Paths,
    ) {
        if core::mem::replace(&mut self.was_ready, cx.is_ready) != cx.is_ready {
            self.woken.extend(self.by_id.keys());
        }
        while let Some(id) = self.due.pop_expired(cx.now) {
            self.woken.insert(id);
        }
        for id in core::mem::take(&mut self.woken) {
            let Some(contact) = self.by_id.get_mut(&id) else {
                continue;
            };
            cx.count_look();
            let apart_from = inboxes.holders_of(contact.inbox.as_deref());
            self.said
                .extend(contact.drive(cx, requests, paths, &apart_from));
            // What is overdue waits for something to happen.
            let next_at = contact.timeouts(cx).filter(|&at| at > cx.now).min();
            self.due.set_or_cancel(id, next_at);
            if contact.mailboxes.take_moved() {
                self.moved.insert(id);
                self.have_holders_moved = true;
            }
        }
    }

    /// When there is something to do.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.due.next()
    }

    /// What conversations have to say to other machines, since this was last asked.
    pub(super) fn take_said(&mut self) -> Vec<Said> {
        core::mem::take(&mut self.said)
    }

    /// The mailboxes to fetch from, with whether the peer is told of each.
    pub(super) fn mailboxes(&self, id: ContactId) -> impl Iterator<Item = (&OwnMailbox, bool)> {
        let contact = self.by_id.get(&id).filter(|it| !it.facts.is_blocked);
        contact.into_iter().flat_map(|it| it.mailboxes.created())
    }

    /// The contacts whose mailboxes came, went, or changed their standing since this was last asked.
    pub(super) fn take_moved(&mut self) -> BTreeSet<ContactId> {
        core::mem::take(&mut self.moved)
    }

    /// Whether other relays hold own mailboxes than when this was last asked.
    pub(super) const fn take_holders_moved(&mut self) -> bool {
        core::mem::replace(&mut self.have_holders_moved, false)
    }

    /// The relays that hold own mailboxes.
    pub(super) fn holders(&self) -> impl Iterator<Item = RelayId> + Clone {
        let contacts = self.by_id.values();
        let mailboxes = contacts.flat_map(|contact| contact.mailboxes.all());
        mailboxes.map(|mailbox| mailbox.relay)
    }

    /// Reads records that a contact's mailbox held.
    pub(super) fn take(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &Inboxes,
        visits: &mut Visits,
        (id, queue): (ContactId, QueueId),
        records: &[impl AsRef<[u8]>],
    ) {
        let mailbox = MailboxId {
            owner: Owner::Contact(id),
            queue,
        };
        for bytes in records {
            let bytes = bytes.as_ref();
            let record = record_id(bytes);
            if !visits.is_new(mailbox, record) {
                continue;
            }
            let Some(contact) = self.wake(id) else { return };
            if !contact.may_read() {
                visits.put_off(cx, mailbox);
                return;
            }
            let message = contact.unwrap(&cx.network.id, queue, bytes);
            let read = message.map(|it| contact.thread.read(&it, cx.confirmed));
            match read {
                Some(Ok(read)) => {
                    visits.hold(mailbox, record);
                    let said = contact.take(cx, (mailbox, record), read);
                    self.said.extend(said);
                }
                Some(Err(fault)) => {
                    visits.discard(mailbox, record);
                    self.on_unread(cx, inboxes, id, fault);
                }
                None => visits.discard(mailbox, record),
            }
        }
    }

    /// A message of a contact's could not be read.
    fn on_unread(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &Inboxes,
        id: ContactId,
        fault: ReadFault,
    ) {
        let Some(contact) = self.wake(id) else { return };
        match fault {
            ReadFault::Copy
            | ReadFault::Stranger
            | ReadFault::Late
            | ReadFault::Lost(OpenFault::Damaged) => {}
            ReadFault::Contents(fault) => {
                contact.touch(cx); // it was opened
                if fault == ContentsFault::Version {
                    contact.tell(cx, ConversationEvent::NewerProgram);
                }
            }
            ReadFault::Renewal => {
                contact.touch(cx); // each request counts once
                self.renew(cx, inboxes, id);
            }
            ReadFault::Lost(_) => self.renew(cx, inboxes, id),
        }
    }

    /// Begins a new session, or asks the side that may for one (§11.6).
    fn renew(&mut self, cx: &mut Context<'_>, inboxes: &Inboxes, id: ContactId) {
        let Some(contact) = self.wake(id) else { return };
        if !contact.thread.is_initiator() {
            return contact.ask_renewal(cx);
        }
        if !contact.may_renew(cx) {
            return;
        }
        let writer = contact.inbox.as_deref();
        let writer = writer.and_then(|name| identity(inboxes, name));
        let Some(address) = contact.address else {
            return;
        };
        let renewed = contact
            .thread
            .renew(&cx.network.id, &address, writer, cx.confirmed, cx.rng);
        if let Ok(again) = renewed {
            let said = contact.on_renewed(cx, again);
            self.said.extend(said);
        }
    }

    /// Takes what a stranger wrote to an own inbox, or a contact that has no answer yet; whether it is a
    /// stranger who was never heard of.
    pub(super) fn take_opening(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &Inboxes,
        visits: &mut Visits,
        at: (InboxId, MailboxId, RecordId),
        opening: &Opening,
    ) -> bool {
        let (inbox, mailbox, record) = at;
        let Some((name, identity)) = inboxes.name(inbox).zip(inboxes.identity(inbox)) else {
            return false;
        };
        let pseudonym = opening.introduction.pseudonym;
        let is_it = |it: &&Contact| {
            !it.thread.is_initiator()
                && it.pseudonym == pseudonym
                && it.inbox.as_deref() == Some(name)
        };
        let known = self.by_id.values().find(is_it).map(|it| it.id);
        let taken = match known {
            Some(id) => self.take_known(cx, identity, id, (mailbox, record), opening),
            None => self.take_stranger(cx, (name, identity), (mailbox, record), opening),
        };
        let is_held = matches!(taken, Taken::Held);
        match taken {
            Taken::Held => visits.hold(mailbox, record),
            Taken::Useless => visits.discard(mailbox, record),
            Taken::Later => visits.put_off(cx, mailbox),
        }
        known.is_none() && is_held
    }

    fn take_known(
        &mut self,
        cx: &mut Context<'_>,
        reader: &InboxIdentity,
        id: ContactId,
        at: (MailboxId, RecordId),
        opening: &Opening,
    ) -> Taken {
        let Some(contact) = self.wake(id).filter(|it| !it.facts.is_blocked) else {
            return Taken::Useless;
        };
        if !contact.may_read() {
            return Taken::Later;
        }
        let is_renewal = !contact.thread.knows(&opening.introduction);
        let read = contact
            .thread
            .read_opening(&cx.network.id, reader, opening, cx.confirmed);
        let (read, again) = match read {
            Ok(read) => read,
            Err(ReadFault::Contents(fault)) => {
                contact.touch(cx); // it was opened
                if fault == ContentsFault::Version {
                    contact.tell(cx, ConversationEvent::NewerProgram);
                }
                return Taken::Useless;
            }
            Err(_) => return Taken::Useless,
        };
        let mut said = Vec::new();
        if is_renewal {
            said = contact.on_renewed(cx, again);
        }
        said.extend(contact.take(cx, at, read));
        self.said.extend(said);
        Taken::Held
    }

    fn take_stranger(
        &mut self,
        cx: &mut Context<'_>,
        (name, reader): (&str, &InboxIdentity),
        at: (MailboxId, RecordId),
        opening: &Opening,
    ) -> Taken {
        if self.gone.has(&opening.introduction.pseudonym) {
            return Taken::Useless;
        }
        let accepted = Thread::accept(&cx.network.id, reader, opening, cx.confirmed);
        let Ok((thread, read)) = accepted else {
            return Taken::Useless;
        };
        let beginning = Beginning {
            inbox: Some(name.to_owned()),
            address: opening.introduction.writer_address().ok().flatten(),
            pseudonym: opening.introduction.pseudonym,
        };
        self.drop_oldest_stranger(cx, name);
        let id = self.next_id();
        let mut contact = Contact::new(cx, id, thread, beginning);
        contact.tell(cx, ConversationEvent::Begun);
        let said = contact.take(cx, at, read);
        self.said.extend(said);
        self.insert(contact);
        Taken::Held
    }

    /// Makes room for one more stranger who writes to this inbox.
    fn drop_oldest_stranger(&mut self, cx: &mut Context<'_>, inbox: &str) {
        let is_stranger = |it: &&Contact| {
            it.inbox.as_deref() == Some(inbox) && !it.facts.has_written && !it.facts.is_blocked
        };
        let strangers = || self.by_id.values().filter(is_stranger);
        if strangers().count() < STRANGERS_MAX {
            return;
        }
        let Some((id, key)) = strangers()
            .find(|it| it.is_at_rest())
            .map(|it| (it.id, it.key))
        else {
            return;
        };
        self.by_key.remove(&key);
        self.by_id.remove(&id);
        self.due.cancel(&id);
        self.woken.remove(&id);
        cx.store(StoreOp::DropStranger(key));
    }

    /// The store has a contact as it was after so many changes, or could not take it. Messages that
    /// came from it by then are durable, too. Returns the owners of the mailboxes where they were.
    pub(super) fn on_stored(
        &mut self,
        cx: &mut Context<'_>,
        visits: &mut Visits,
        (id, changes): (ContactId, u64),
        is_stored: bool,
    ) -> BTreeSet<Owner> {
        let mut owners = BTreeSet::new();
        let Some(contact) = self.wake(id) else {
            return owners;
        };
        for (mailbox, record) in contact.on_stored(cx, changes, is_stored) {
            visits.on_stored(cx, mailbox, record, true);
            visits.on_news(mailbox.owner);
            owners.insert(mailbox.owner);
        }
        owners
    }

    pub(super) fn on_created(
        &mut self,
        cx: &mut Context<'_>,
        id: ContactId,
        queue: QueueId,
        answer: &Answer,
    ) {
        if let Some(contact) = self.wake(id) {
            contact.on_created(cx, queue, answer);
        }
    }

    /// Reports how fetching from a mailbox went. One that works as it did is no news.
    pub(super) fn on_outcome(
        &mut self,
        cx: &mut Context<'_>,
        id: ContactId,
        queue: QueueId,
        outcome: Outcome,
    ) {
        let Some(contact) = self.by_id.get_mut(&id) else {
            return;
        };
        if outcome != Outcome::Answered || !contact.mailboxes.is_well(queue) {
            self.woken.insert(id);
            contact.on_outcome(cx, queue, outcome);
        }
    }
}

/// What became of a record.
enum Taken {
    /// It stays with its holder until it is durable here.
    Held,
    /// It is removed: a copy, or nothing that can be read.
    Useless,
    /// It comes again later: too much is on its way to the store.
    Later,
}

fn identity<'a>(inboxes: &'a Inboxes, name: &str) -> Option<&'a InboxIdentity> {
    inboxes.id(name).and_then(|id| inboxes.identity(id))
}
