//! A client's disk: committed writes survive a crash, others do not.

use std::collections::{BTreeMap, BTreeSet};

use umbel_client::core::{
    ContactCard, ContactKey, FIRST_CONTACT_ACCEPTED, Letter, Snapshot, StoreOp, StoreTicket,
};
use umbel_proto::directory::{BookOp, BookRow};
use umbel_proto::ids::{MessageId, RelayId};

/// The writes of a client.
#[derive(Default, Clone)]
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct ClientDisk {
    paths: Option<Vec<u8>>,
    clock: Option<Vec<u8>>,
    first_contact: Option<Vec<u8>>,
    lone_source: Option<Vec<u8>>,
    has_full_vanguards: bool,
    relays: BTreeMap<RelayId, BookRow>,
    relay_words: BTreeMap<RelayId, Vec<u8>>,
    inboxes: BTreeMap<String, zeroize::Zeroizing<Vec<u8>>>,
    outbox: BTreeMap<MessageId, zeroize::Zeroizing<Vec<u8>>>,
    gone: Option<Vec<u8>>,
    contacts: BTreeMap<ContactKey, zeroize::Zeroizing<Vec<u8>>>,
    /// What its user sees of each contact.
    pub cards: BTreeMap<ContactKey, ContactCard>,
    /// The place of each message that came in a conversation.
    pub letters: BTreeMap<MessageId, Letter>,
    /// Messages of conversations that its user wrote, in that order.
    pub written: Vec<(ContactKey, MessageId)>,
    /// Messages that came, by inbox and id, in the order they came; "": answers of contacts that belong
    /// to none.
    pub messages: Vec<(String, MessageId, Vec<u8>)>,
    known: BTreeSet<(String, MessageId)>,
    /// How often a message came that was there already.
    pub duplicates: usize,
    /// While the disk is full nothing is written.
    pub is_full: bool,
    pending: Vec<(StoreTicket, StoreOp)>,
}

impl ClientDisk {
    /// Takes an op; it lasts from the next commit on.
    pub fn write(&mut self, (ticket, op): (StoreTicket, StoreOp)) {
        self.pending.push((ticket, op));
    }

    /// A crash: uncommitted writes are lost.
    pub fn crash(&mut self) {
        self.pending.clear();
    }

    /// The contents when a client starts.
    pub fn restore(&self) -> Snapshot {
        Snapshot {
            paths: self.paths.clone(),
            clock: self.clock.clone(),
            first_contact: self.first_contact.clone(),
            lone_source: self.lone_source.clone(),
            has_full_vanguards: self.has_full_vanguards,
            relays: self.relays.values().cloned().collect(),
            relay_words: self.relay_words.clone().into_iter().collect(),
            inboxes: self
                .inboxes
                .iter()
                .map(|(name, state)| (name.clone(), state.clone()))
                .collect(),
            outbox: self
                .outbox
                .iter()
                .map(|(&id, state)| (id, state.clone()))
                .collect(),
            // Nobody else waits in these worlds.
            left: Vec::new(),
            gone: self.gone.clone(),
            received_from: self
                .letters
                .iter()
                .map(|(&id, letter)| (letter.contact, id))
                .collect(),
            contacts: self
                .contacts
                .iter()
                .map(|(&key, state)| (key, state.clone()))
                .collect(),
            received: self
                .messages
                .iter()
                .filter(|(_, id, _)| !self.letters.contains_key(id))
                .map(|(inbox, id, _)| (inbox.clone(), *id))
                .collect(),
        }
    }

    /// Guards and L2, as the core wrote them.
    pub fn paths(&self) -> Option<&[u8]> {
        self.paths.as_deref()
    }

    /// What `umbel view accept` does.
    pub fn accept_view(&mut self) {
        self.first_contact = Some(vec![FIRST_CONTACT_ACCEPTED]);
    }

    /// What `umbel vanguards` does.
    pub fn set_full_vanguards(&mut self, is_on: bool) {
        self.has_full_vanguards = is_on;
    }

    /// Loses what it has of all relays but these.
    pub fn forget_relays_but(&mut self, kept: &[RelayId]) {
        self.relays.retain(|relay, _| kept.contains(relay));
    }

    /// How many relays are known.
    pub fn relay_count(&self) -> usize {
        self.relays.len()
    }

    /// How many inboxes there are.
    pub fn inbox_count(&self) -> usize {
        self.inboxes.len()
    }

    /// Messages in the outbox.
    pub fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    /// Commits what was written; of each, whether it is durable now.
    pub fn commit(&mut self) -> Vec<(StoreTicket, bool)> {
        let (pending, is_full) = (core::mem::take(&mut self.pending), self.is_full);
        pending
            .into_iter()
            .map(|(ticket, op)| {
                if !is_full {
                    self.apply(op);
                }
                (ticket, !is_full)
            })
            .collect()
    }

    fn apply(&mut self, op: StoreOp) {
        match op {
            StoreOp::PutPaths(state) => self.paths = Some(state),
            StoreOp::PutClock(state) => self.clock = Some(state),
            StoreOp::PutFirstContact(state) => self.first_contact = Some(state),
            StoreOp::PutLoneSource(source) => self.lone_source = Some(source),
            StoreOp::Book(BookOp::Put { relay, row }) => {
                self.relays.insert(relay, row);
            }
            StoreOp::Book(BookOp::PutWords { relay, words }) if words.is_empty() => {
                self.relay_words.remove(&relay);
            }
            StoreOp::Book(BookOp::PutWords { relay, words }) => {
                self.relay_words.insert(relay, words);
            }
            StoreOp::Book(BookOp::Remove(relays)) => {
                self.relays.retain(|relay, _| !relays.contains(relay));
                self.relay_words.retain(|relay, _| !relays.contains(relay));
            }
            StoreOp::PutInbox { name, state } => {
                self.inboxes.insert(name, state);
            }
            StoreOp::PutOutbox { id, state } => {
                self.outbox.insert(id, state);
            }
            StoreOp::RemoveOutbox { id, .. } => {
                self.outbox.remove(&id);
            }
            StoreOp::PutGone(state) => self.gone = Some(state),
            StoreOp::PutContact { key, card, state } => {
                self.contacts.insert(key, state);
                self.cards.insert(key, card);
            }
            StoreOp::DropStranger(key) => {
                self.contacts.remove(&key);
                self.cards.remove(&key);
            }
            StoreOp::RemoveContact(key) => {
                self.contacts.remove(&key);
                self.cards.remove(&key);
            }
            StoreOp::PutWritten { contact, id, .. } => {
                if !self.written.contains(&(contact, id)) {
                    self.written.push((contact, id));
                }
            }
            StoreOp::Together(ops) => ops.into_iter().for_each(|op| self.apply(op)),
            StoreOp::PutMessage {
                inbox,
                id,
                body,
                letter,
                ..
            } => {
                let inbox = inbox.unwrap_or_default();
                self.letters.extend(letter.map(|letter| (id, letter)));
                if self.known.insert((inbox.clone(), id)) {
                    self.messages.push((inbox, id, body));
                } else {
                    self.duplicates += 1;
                }
            }
        }
    }
}
