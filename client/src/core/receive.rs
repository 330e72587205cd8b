//! Messages for own inboxes: what becomes of the records that visits bring (docs/protocol.md §10.2).
//!
//! A message is stored before its record is removed. The same message comes from several mailboxes;
//! it is stored and reported once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use umbel_proto::ids::{MessageId, QueueId, RecordId};
use umbel_proto::inbox::record::{Opened, record_id};

use super::contacts::Contacts;
use super::context::Context;
use super::inboxes::{InboxId, Inboxes};
use super::io::{Notice, StoreOp, Stored};
use super::mailbox::{MailboxId, Owner, Visits};

/// Most message ids remembered for an inbox, to recognise copies; beyond it the oldest are
/// forgotten.
const RECEIVED_MAX: usize = 100_000;

/// Messages that came, and those on their way to the store.
#[derive(Default)]
pub(super) struct Receiving {
    received: BTreeMap<InboxId, Received>,
    storing: BTreeMap<(InboxId, MessageId), Storing>,
}

/// Messages that came, in that order.
#[derive(Default)]
struct Received {
    ids: BTreeSet<MessageId>,
    order: VecDeque<MessageId>,
}

/// The copies of a message that is being stored.
type Storing = Vec<(QueueId, RecordId)>;

impl Receiving {
    /// This message came before the client was started.
    pub(super) fn restore(&mut self, inbox: InboxId, message: MessageId) {
        self.received.entry(inbox).or_default().insert(message);
    }

    /// Opens records of a mailbox; stores what is new, passes on what belongs to conversations, and has
    /// copies and what can't be opened removed. Returns how many came from strangers, copies left out.
    pub(super) fn take(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &Inboxes,
        contacts: &mut Contacts,
        visits: &mut Visits,
        (inbox, queue): (InboxId, QueueId),
        records: &[impl AsRef<[u8]>],
    ) -> usize {
        let mut strangers = 0;
        let Some(name) = inboxes.name(inbox) else {
            return strangers;
        };
        let mailbox = mailbox(inbox, queue);
        for bytes in records {
            let bytes = bytes.as_ref();
            let record = record_id(bytes);
            if !visits.is_new(mailbox, record) {
                continue;
            }
            let message = match inboxes.open(cx, inbox, bytes) {
                Some(Ok(Opened::OneWay(message))) if !self.has(inbox, message.id) => message,
                Some(Ok(Opened::Opening(opening))) => {
                    let at = (inbox, mailbox, record);
                    let is_new = contacts.take_opening(cx, inboxes, visits, at, &opening);
                    strangers += usize::from(is_new);
                    continue;
                }
                Some(Ok(Opened::OneWay(_)) | Err(_)) | None => {
                    visits.discard(mailbox, record);
                    continue;
                }
            };
            visits.hold(mailbox, record);
            let key = (inbox, message.id);
            if let Some(copies) = self.storing.get_mut(&key) {
                copies.push((queue, record));
                continue;
            }
            let op = StoreOp::PutMessage {
                inbox: Some(name.to_owned()),
                id: message.id,
                body: message.body,
                received_at: cx.wall,
                letter: None,
            };
            strangers += 1;
            self.storing.insert(key, vec![(queue, record)]);
            cx.store_for(Stored::Message(inbox, message.id), op);
        }
        strangers
    }

    fn has(&self, inbox: InboxId, message: MessageId) -> bool {
        let received = self.received.get(&inbox);
        received.is_some_and(|received| received.ids.contains(&message))
    }

    /// The store has this message, or could not take it.
    pub(super) fn on_stored(
        &mut self,
        cx: &mut Context<'_>,
        inboxes: &Inboxes,
        visits: &mut Visits,
        (inbox, message): (InboxId, MessageId),
        is_stored: bool,
    ) {
        let copies = self.storing.remove(&(inbox, message));
        for (queue, record) in copies.into_iter().flatten() {
            visits.on_stored(cx, mailbox(inbox, queue), record, is_stored);
        }
        if is_stored {
            self.received.entry(inbox).or_default().insert(message);
            visits.on_news(Owner::Inbox(inbox));
            cx.notify(Notice::Received {
                inbox: inboxes.name(inbox).map(str::to_owned),
                id: message,
            });
        }
    }
}

impl Received {
    fn insert(&mut self, message: MessageId) {
        if self.ids.insert(message) {
            self.order.push_back(message);
        }
        if self.order.len() > RECEIVED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

const fn mailbox(inbox: InboxId, queue: QueueId) -> MailboxId {
    MailboxId {
        owner: Owner::Inbox(inbox),
        queue,
    }
}
