//! Errors of a measurement.

use std::fmt;
use std::io;

use umbel_client::local::LocalError;
use umbel_client::{
    ClientClosed, CreateInboxError, InitError, ListenError, OpenError, ProfileError, SendError,
};
use umbel_proto::Violation;
use umbel_proto::inbox::mailbox::Refusal;
use umbel_relay::shell::HelloFault;

use super::STEP_MAX;

/// A step that did not end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Relays getting to know each other.
    Gathering,
    /// Making a link.
    Link,
    /// Building a circuit.
    Circuit,
    /// An answer from a mailbox.
    Mailbox,
    /// An answer from a directory relay.
    Answer,
    /// An inbox being made or listened to.
    Inbox,
    /// A message on its way.
    Message,
    /// A relay process starting.
    Process,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gathering => "relays getting to know each other",
            Self::Link => "a link",
            Self::Circuit => "a circuit",
            Self::Mailbox => "an answer from a mailbox",
            Self::Answer => "an answer from a directory relay",
            Self::Inbox => "an inbox",
            Self::Message => "a message",
            Self::Process => "the start of a relay",
        })
    }
}

/// Something that was to be measured did not work.
#[derive(Debug)]
pub(super) enum BenchError {
    /// The network.
    Local(LocalError),
    /// A link, a file or a process.
    Io(io::Error),
    /// TLS does not work on this machine.
    Tls(rustls::Error),
    /// A profile could not be made.
    Init(InitError),
    /// A profile could not be read.
    Profile(ProfileError),
    /// A profile could not be opened.
    Open(OpenError),
    /// A message was not taken.
    Send(SendError),
    /// An inbox was not made.
    Inbox(CreateInboxError),
    /// An inbox can't be listened to.
    Listen(ListenError),
    /// A client ended by itself.
    Closed(ClientClosed),
    /// A relay broke a rule.
    Violation(Violation),
    /// A relay did not say who it is.
    NoDescriptor,
    /// A relay ended a circuit.
    Destroyed,
    /// A relay would not extend a circuit.
    ExtendRefused,
    /// A mailbox said no.
    Refused(Refusal),
    /// A mailbox answered something else than it was asked.
    Unexpected,
    /// It took too long.
    TooSlow(Step),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Init(error) => error.fmt(f),
            Self::Profile(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
            Self::Inbox(error) => error.fmt(f),
            Self::Listen(error) => error.fmt(f),
            Self::Closed(error) => error.fmt(f),
            Self::Violation(violation) => write!(f, "a relay broke a rule: {violation:?}"),
            Self::NoDescriptor => f.write_str("a relay did not say who it is"),
            Self::Destroyed => f.write_str("a relay ended a circuit"),
            Self::ExtendRefused => f.write_str("a relay would not extend a circuit"),
            Self::Refused(refusal) => write!(f, "a mailbox refused: {refusal:?}"),
            Self::Unexpected => f.write_str("a mailbox answered something that was not asked"),
            Self::TooSlow(step) => {
                write!(f, "{step} took more than {} seconds", STEP_MAX.as_secs())
            }
        }
    }
}

impl std::error::Error for BenchError {}

macro_rules! from_errors {
    ($($variant:ident($error:ty),)+) => {$(
        impl From<$error> for BenchError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )+};
}

from_errors! {
    Local(LocalError),
    Io(io::Error),
    Tls(rustls::Error),
    Init(InitError),
    Profile(ProfileError),
    Open(OpenError),
    Send(SendError),
    Inbox(CreateInboxError),
    Listen(ListenError),
    Closed(ClientClosed),
    Violation(Violation),
}

impl From<HelloFault> for BenchError {
    fn from(fault: HelloFault) -> Self {
        match fault {
            HelloFault::Io(error) => error.into(),
            HelloFault::Violation(violation) => violation.into(),
            HelloFault::Timeout => Self::TooSlow(Step::Link),
        }
    }
}
