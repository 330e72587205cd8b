//! What can go wrong for programs that use a client.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::record::{LETTER_LEN_MAX, MESSAGE_LEN_MAX};
use umbel_proto::time::{Duration, in_words};

use super::INBOX_NAME_LEN_MAX;
use crate::core::io::{SendFault, StoreFault};
use crate::core::{INBOXES_MAX, SnapshotFault};
use crate::store::{DatabaseError, ProfileError};

/// A profile could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The profile itself says no.
    Profile(ProfileError),
    /// The profile's database holds something that this program did not write.
    Snapshot(SnapshotFault),
    /// The system gives no thread for the store.
    Thread(io::Error),
    /// The lock file can't be used.
    Lock(PathBuf, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(error) => error.fmt(f),
            Self::Snapshot(SnapshotFault::Paths) => {
                f.write_str("the profile's list of guards is damaged")
            }
            Self::Snapshot(SnapshotFault::Inbox(name)) => {
                write!(f, "the profile's inbox {name:?} is damaged")
            }
            Self::Snapshot(SnapshotFault::Outbox(id)) => {
                write!(f, "the profile's outgoing message {id} is damaged")
            }
            Self::Snapshot(SnapshotFault::Gone) => {
                f.write_str("the profile's list of removed contacts is damaged")
            }
            Self::Snapshot(SnapshotFault::Contact(key)) => {
                write!(f, "the profile's contact {key} is damaged")
            }
            Self::Lock(path, error) => write!(f, "could not lock {}: {error}", path.display()),
            Self::Thread(error) => write!(f, "could not start a thread: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<ProfileError> for OpenError {
    fn from(error: ProfileError) -> Self {
        Self::Profile(error)
    }
}

/// The client was closed, or its task failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientClosed;

impl fmt::Display for ClientClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client was closed")
    }
}

impl std::error::Error for ClientClosed {}

/// A message was not taken into the outbox, or it is not known whether it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// It is longer than the longest that can go there: see `Recipient::body_len_max`.
    TooLong,
    /// It is to expire at once, or to be tried for longer than relays keep it, which is this long.
    Life {
        /// The longest life of a message.
        max: Duration,
    },
    /// Too many messages wait already.
    OutboxFull,
    /// The profile could not be written, and no holder was asked to take the message, so nobody has
    /// it. While this client is open it retries, and `Queued` reports success. Once it is closed
    /// the message may be sent again.
    Store(StoreFault),
    /// Another process keeps the profile from being written, and does not answer: nobody has the
    /// message.
    Unresponsive {
        /// Its process id, if it noted that.
        pid: Option<u32>,
    },
    /// The process that has the profile's network is of a release that can't be asked: the message
    /// was not stored.
    OtherRelease {
        /// Its process id, if it noted that.
        pid: Option<u32>,
    },
    /// The profile could not be written, and too few holders have confirmed the message. Some were
    /// asked, so its reader may still get it, and sending it again would make another message.
    /// While this client is open, `Queued` and `Held` report any change.
    InDoubt {
        /// Names it in notices.
        id: MessageId,
        /// Why the profile could not be written.
        fault: StoreFault,
    },
    /// It can't go to this contact.
    Refused(SendFault),
    /// The client was closed. Whether the message is in the outbox, or on its way, is not known.
    Closed,
}

impl From<SendFault> for SendError {
    fn from(fault: SendFault) -> Self {
        match fault {
            SendFault::TooLong => Self::TooLong,
            SendFault::OutboxFull => Self::OutboxFull,
            fault @ (SendFault::NoContact
            | SendFault::Blocked
            | SendFault::NoWayBack
            | SendFault::NoInbox
            | SendFault::OwnInbox) => Self::Refused(fault),
        }
    }
}

/// Whether a message may be tried for so long: for some time, and for no longer than relays keep it,
/// which is `max`, the network's `record_life`.
///
/// # Errors
/// [`SendError::Life`].
pub fn check_life(life: Duration, max: Duration) -> Result<(), SendError> {
    if life.is_zero() || life > max {
        return Err(SendError::Life { max });
    }
    Ok(())
}

/// A message was not taken back for good. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelError {
    /// The profile could not be written: the message is tried again once the profile is opened
    /// anew.
    Store(StoreFault),
    /// The client was closed.
    Closed,
}

/// An inbox was not made. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreateInboxError {
    /// The name is empty, longer than 64 bytes, or has control characters or blanks at an end.
    Name,
    /// There is one of this name.
    Exists,
    /// There are [`INBOXES_MAX`] already.
    TooMany,
    /// The profile could not be written.
    Store(StoreFault),
    /// The client was closed.
    Closed,
}

/// An inbox can't be listened to. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenError {
    /// There is none of this name.
    NoInbox,
    /// The client was closed.
    Closed,
}

/// Stored messages could not be read or marked.
#[derive(Debug)]
pub enum ReadError {
    /// The database says no.
    Database(DatabaseError),
    /// The client was closed.
    Closed,
}

/// Why a client was closed though nobody closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Another process has the profile's network, and does not answer. Messages sent are in the
    /// outbox.
    Unresponsive {
        /// Its process id, if it noted that.
        pid: Option<u32>,
    },
    /// Another process has the profile's network, and it can't be asked: the profile can't be
    /// written.
    Store(StoreFault),
    /// Another process has the profile's network, and is of a release with another format for asks
    /// and answers. Messages sent are in the outbox.
    OtherRelease {
        /// Its process id, if it noted that.
        pid: Option<u32>,
    },
    /// The profile's database was deleted or replaced while this client ran. What it stored in the
    /// last seconds is lost, and so is the rest if the file was deleted.
    ProfileLost,
}

macro_rules! display_errors {
    ($($type:ident { $($variant:pat => $text:expr,)+ })+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($variant => write!(f, "{}", $text),)+
                }
            }
        }

        impl std::error::Error for $type {}
    )+};
}

display_errors! {
    SendError {
        Self::TooLong => format_args!("a message has at most {LETTER_LEN_MAX} bytes, or {MESSAGE_LEN_MAX} if it can't be answered"),
        Self::Refused(fault) => format_args!("{fault}"),
        Self::Life { max } => format_args!("a message is tried for more than no time, and for at most {}", in_words(*max)),
        Self::OutboxFull => "the outbox is full",
        Self::Unresponsive { .. } => "another process keeps the profile from being written, and does not answer",
        Self::OtherRelease { .. } => "another process of another release has the network of this profile",
        Self::Store(fault) => fault,
        Self::InDoubt { id, fault } => format_args!("{fault}, and message {id} may still be delivered"),
        Self::Closed => ClientClosed,
    }
    CancelError {
        Self::Store(fault) => fault,
        Self::Closed => ClientClosed,
    }
    CreateInboxError {
        Self::Name => format_args!("an inbox's name has 1 to {INBOX_NAME_LEN_MAX} bytes, no control characters and no blank at either end"),
        Self::Exists => "there is an inbox of this name",
        Self::TooMany => format_args!("a profile has at most {INBOXES_MAX} inboxes"),
        Self::Store(fault) => fault,
        Self::Closed => ClientClosed,
    }
    ListenError {
        Self::NoInbox => "there is no inbox of this name",
        Self::Closed => ClientClosed,
    }
    ReadError {
        Self::Database(error) => error,
        Self::Closed => ClientClosed,
    }
}
