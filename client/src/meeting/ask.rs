//! The messages that a guest and its host write to each other, and their encoding.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::wire;

use crate::client::{CancelError, CreateInboxError, ListenError};
use crate::core::io::{Cancelled, ContactKey, Notice, Status, StoreFault};

/// The form of asks, replies and notices. Both processes need the same, which two releases of umbel
/// may not have. Every change of a type that is in one takes another: of a field, since fields have
/// no names there, or of a variant's place, which is its number.
const VERSION: u8 = 16;

/// A guest's request to its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Take care of this message, which is in the outbox since.
    Adopt { id: MessageId },
    /// See [`crate::Client::cancel`].
    Cancel { id: MessageId },
    /// See [`crate::Client::flush`].
    Flush,
    /// See [`crate::Client::create_inbox`].
    CreateInbox { name: String },
    /// See [`crate::Client::listen`], and without a name [`crate::Client::listen_for_answers`].
    Listen {
        name: Option<String>,
        is_interactive: bool,
    },
    /// See [`crate::Client::inbox_address`].
    InboxAddress { name: String },
    /// See [`crate::Client::status`].
    Status,
    /// See [`crate::Client::left`].
    Left,
    /// See [`crate::Client::block`].
    Block {
        contact: ContactKey,
        is_blocked: bool,
    },
    /// See [`crate::Client::remove_contact`].
    RemoveContact(ContactKey),
}

/// A host's answer; one for each ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It was passed on.
    Done,
    /// To `Cancel`.
    Cancelled(Result<Option<Cancelled>, CancelError>),
    /// To `CreateInbox`.
    Created(Result<InboxAddress, CreateInboxError>),
    /// To `Listen`.
    Listening(Result<(), ListenError>),
    /// To `InboxAddress`.
    Address(Option<InboxAddress>),
    /// To `Status`.
    Status(Status),
    /// The ask can't be read.
    Unknown,
    /// To `Left`.
    Left(Vec<Notice>),
    /// To `Block` and `RemoveContact`: whether there is such a contact.
    Changed(Result<bool, StoreFault>),
}

/// The bytes of an ask, a reply or a notice.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(wire::encode(value));
    bytes
}

/// An ask, a reply or a notice; `None` if another release wrote it.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (version, rest) = bytes.split_first()?;
    if *version == VERSION {
        wire::decode(rest).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use umbel_proto::crypto::kdf::sha256;
    use umbel_proto::ids::RelayId;
    use umbel_proto::inbox::address::InboxIdentity;
    use umbel_proto::time::{Duration, WallTime};

    use super::*;
    use crate::core::io::{
        Contact, ConversationEvent, Copies, DeferReason, InboxEntry, OutboxEntry, Recipient,
        SendFault, Warning,
    };

    const ID: MessageId = MessageId([1; MessageId::LEN]);
    const CONTACT: ContactKey = ContactKey([2; 16]);

    /// These are all variants, in the order of their numbers.
    fn check_numbers<T: Serialize + DeserializeOwned>(variants: &[T]) {
        for (number, variant) in (0..).zip(variants) {
            assert_eq!(encode(variant)[..2], [VERSION, number], "bump ask::VERSION");
        }
        let mut next = [0; 64];
        next[0] = u8::try_from(variants.len()).unwrap();
        assert!(
            postcard::take_from_bytes::<T>(&next).is_err(),
            "a variant is new: bump ask::VERSION"
        );
    }

    fn notices() -> Vec<Notice> {
        let (id, holders, wanted, may_be_out) = (ID, 0, 2, true);
        let copies = Copies::InDoubt;
        let name = String::new;
        vec![
            Notice::Ready { relays: 1 },
            Notice::WaitingForView { last_known: 1 },
            Notice::Unreachable,
            Notice::HopBuilt {
                circuit: 1,
                hop: 1,
                relay: RelayId([1; 32]),
            },
            Notice::Queued(id),
            Notice::Unsaved { id, may_be_out },
            Notice::Held {
                id,
                holders,
                wanted,
            },
            Notice::Deferred {
                id,
                reason: DeferReason::Holders,
                retry_in: Duration::ZERO,
            },
            Notice::Scheduled {
                id,
                wait: Duration::ZERO,
            },
            Notice::Cancelled(Cancelled { id, copies }),
            Notice::Failed {
                id,
                reason: SendFault::TooLong,
            },
            Notice::Expired { id, copies, wanted },
            Notice::InboxReady {
                name: name(),
                mailboxes: 1,
                positions: 1,
            },
            Notice::Mending { inbox: name() },
            Notice::Received { inbox: None, id },
            Notice::CaughtUp {
                inbox: Some(name()),
                answered: 1,
                mailboxes: 1,
            },
            Notice::Warning(Warning::GuardFails),
            Notice::NoCircuits,
            Notice::Acknowledged(id),
            Notice::Conversation {
                contact: CONTACT,
                event: ConversationEvent::Missing(3),
            },
        ]
    }

    fn address() -> InboxAddress {
        *InboxIdentity::from_seed(&[3; 32]).address()
    }

    fn status() -> Status {
        let entry = OutboxEntry {
            id: ID,
            to: Recipient::Owner {
                address: address(),
                writer: Some("me".to_owned()),
            },
            len: 4,
            created_at: WallTime(5),
            expires_at: WallTime(6),
            holders: 1,
            wanted: 2,
            obstacle: Some(DeferReason::Holders),
            next_try_at: Some(WallTime(7)),
            is_unacknowledged: true,
        };
        Status {
            relays: 8,
            in_doubt: 3,
            contact: Contact::NotTried,
            guard: Some(RelayId([1; 32])),
            guards: 9,
            seeds_disagree: true,
            guards_set_aside: 1,
            do_guards_hide: true,
            seeds_elsewhere: vec![(RelayId([2; 32]), Ipv4Addr::LOCALHOST.into())],
            l2_set_aside: 2,
            has_full_vanguards: true,
            circuits: 10,
            outbox: vec![entry],
            inboxes: vec![InboxEntry {
                name: "help".to_owned(),
                mailboxes: 3,
                out_of_reach: 1,
                is_published: true,
                missing_since: Some(WallTime(13)),
            }],
            sent_cells: 11,
            received_cells: 12,
        }
    }

    #[test]
    fn what_another_process_reads_keeps_its_form_within_a_version() {
        let notices = notices();
        let notices = notices.iter().flat_map(encode);
        let asks = asks().into_iter().flat_map(|ask| encode(&ask));
        let replies = replies().into_iter().flat_map(|reply| encode(&reply));
        let bytes: Vec<u8> = notices.chain(asks).chain(replies).collect();
        let found = sha256(&[&bytes]);
        let pinned = (VERSION, hex(&found));
        let expected = (
            16,
            "e01756b3744e267c9298cd2cf3f674833cf770e8602acb43f69f8c111436c16a".to_owned(),
        );
        assert_eq!(pinned, expected, "bump ask::VERSION, then write both here");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn what_another_process_reads_keeps_its_numbers_within_a_version() {
        check_numbers(&notices());
        check_numbers(&asks());
        check_numbers(&replies());
    }

    fn asks() -> [Ask; 10] {
        let name = String::new;
        [
            Ask::Adopt { id: ID },
            Ask::Cancel { id: ID },
            Ask::Flush,
            Ask::CreateInbox { name: name() },
            Ask::Listen {
                name: Some(name()),
                is_interactive: true,
            },
            Ask::InboxAddress { name: name() },
            Ask::Status,
            Ask::Left,
            Ask::Block {
                contact: CONTACT,
                is_blocked: true,
            },
            Ask::RemoveContact(CONTACT),
        ]
    }

    fn replies() -> [Reply; 9] {
        let copies = Copies::Held(3);
        [
            Reply::Done,
            Reply::Cancelled(Ok(Some(Cancelled { id: ID, copies }))),
            Reply::Created(Err(CreateInboxError::Name)),
            Reply::Listening(Ok(())),
            Reply::Address(None),
            Reply::Status(status()),
            Reply::Unknown,
            Reply::Left(notices()),
            Reply::Changed(Ok(true)),
        ]
    }

    #[test]
    fn what_is_in_them_of_conversations_keeps_its_numbers_too() {
        check_numbers(&[
            Recipient::OneWay(address()),
            Recipient::Owner {
                address: address(),
                writer: None,
            },
            Recipient::Contact(CONTACT),
        ]);
        check_numbers(&[
            ConversationEvent::Begun,
            ConversationEvent::Missing(1),
            ConversationEvent::Complete,
            ConversationEvent::Lost(1),
            ConversationEvent::Renewed,
            ConversationEvent::NewerProgram,
        ]);
    }

    #[test]
    fn what_is_in_them_keeps_its_numbers_too() {
        let (inbox, relay) = (String::new, RelayId([1; 32]));
        let store = StoreFault::Failed;
        check_numbers(&[
            DeferReason::NoCircuit,
            DeferReason::NoDescriptor,
            DeferReason::Holders,
            DeferReason::QueueFull,
            DeferReason::NoDirectory,
            DeferReason::Broken {
                circuits: 1,
                guards: 1,
            },
        ]);
        check_numbers(&[
            SendFault::TooLong,
            SendFault::OutboxFull,
            SendFault::NoContact,
            SendFault::Blocked,
            SendFault::NoWayBack,
            SendFault::NoInbox,
            SendFault::OwnInbox,
        ]);
        check_numbers(&[Copies::None, Copies::InDoubt, Copies::Held(1)]);
        check_numbers(&[
            Warning::Clock { seconds: 1 },
            Warning::GuardFails,
            Warning::MailboxReplaced { inbox: inbox() },
            Warning::Unresponsive { pid: None },
            Warning::OtherCopy { inbox: inbox() },
            Warning::GuardHides { is_replaced: true },
            Warning::Store(store),
            Warning::OtherParameters,
            Warning::L2Refuses,
            Warning::SeedsDisagree,
            Warning::NotFound { inbox: inbox() },
            Warning::AllGuardsHide,
            Warning::SeedElsewhere {
                seed: relay,
                ip: Ipv4Addr::LOCALHOST.into(),
            },
        ]);
        check_numbers(&[StoreFault::DiskFull, StoreFault::ReadOnly, store]);
        check_numbers(&[
            Contact::NotTried,
            Contact::Trying,
            Contact::Reached {
                relay,
                since: WallTime(1),
            },
            Contact::NoAnswer,
        ]);
        check_numbers(&[CancelError::Store(store), CancelError::Closed]);
        check_numbers(&[
            CreateInboxError::Name,
            CreateInboxError::Exists,
            CreateInboxError::TooMany,
            CreateInboxError::Store(store),
            CreateInboxError::Closed,
        ]);
        check_numbers(&[ListenError::NoInbox, ListenError::Closed]);
    }
}
