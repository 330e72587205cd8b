//! The messages that a guest and its host write to each other, and their encoding.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::wire;

use crate::client::{CancelError, CreateInboxError, ListenError};
use crate::core::io::{Cancelled, Status};

/// The form of asks, replies and notices. Both processes need the same, which two releases of umbel
/// may not have.
const VERSION: u8 = 1;

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
    /// See [`crate::Client::listen`].
    Listen { name: String, is_interactive: bool },
    /// See [`crate::Client::inbox_address`].
    InboxAddress { name: String },
    /// See [`crate::Client::status`].
    Status,
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
}

/// The bytes of an ask, a reply or a notice.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(wire::encode(value));
    bytes
}

/// An ask, a reply or a notice; `None` if another release wrote it.
pub(super) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (version, rest) = bytes.split_first()?;
    if *version == VERSION {
        wire::decode(rest).ok()
    } else {
        None
    }
}
