//! Mailboxes of one's own: queues of records on holders, whoever they were made for
//! (docs/protocol.md §10).
//!
//! `Mailboxes` are those of one owner: drawn, made, out of reach, replaced. `Visits` fetches from
//! those that are made, of all owners. Neither knows what a record says, or what names a mailbox to
//! senders: that is the owner's.

mod companions;
mod create;
mod errands;
mod outage;
mod own;
mod owned;
mod places;
mod relink;
mod visit;
mod visits;

use umbel_proto::ids::QueueId;
use umbel_proto::inbox::mailbox::QueueKind;

use super::contacts::ContactId;
use super::inboxes::InboxId;
pub(super) use errands::{ErrandId, Errands};
pub(super) use outage::Outage;
pub(super) use own::OwnMailbox;
pub(super) use owned::{Change, Mailboxes};
pub(super) use visit::Outcome;
pub(super) use visits::{CaughtUp, Visited, Visits};

/// Whom a mailbox was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// An inbox of this client, whose descriptor names the mailbox to senders.
    Inbox(InboxId),
    /// A contact, who is told of the mailbox inside the conversation.
    Contact(ContactId),
}

impl Owner {
    /// For whom its queues are, and so how much they hold.
    pub(super) const fn queue_kind(self) -> QueueKind {
        match self {
            Self::Inbox(_) => QueueKind::Public,
            Self::Contact(_) => QueueKind::Contact,
        }
    }
}

/// Names a mailbox of one's own in this run; its holder knows the queue alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MailboxId {
    pub(super) owner: Owner,
    pub(super) queue: QueueId,
}
