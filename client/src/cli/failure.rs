//! Errors, each with a hint and an exit code.

use std::io;
use std::process::ExitCode;

use umbel_client::core::io::{SendFault, StoreFault};
use umbel_client::{
    ClientClosed, ConfigFault, ContactError, CreateInboxError, DatabaseError, FilesFault,
    InitError, KeyChangeError, ListenError, OpenError, ProfileError, ReadError, SeedError,
    SendError, StopReason,
};
use umbel_proto::inbox::address::AddressError;
use umbel_proto::inbox::record::LETTER_LEN_MAX;
use umbel_relay::shell::{InvitedFault, InvitedKind};

use super::session::{other_release, unresponsive};
use super::times;

/// Exit codes; 69 to 75 are those of `sysexits.h`, 127, 130 and 141 those that a shell gives for a
/// program that is not there, SIGINT and SIGPIPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Failed = 1,
    Usage = 2,
    Unreachable = 69,
    Unwritten = 73,
    InDoubt = 74,
    Deferred = 75,
    WrongFile = 76,
    Disputed = 77,
    Version = 78,
    NotThere = 127,
    Interrupted = 130,
    BrokenPipe = 141,
}

impl Exit {
    /// As `--json` names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Unreachable => "unreachable",
            Self::Unwritten => "unwritten",
            Self::InDoubt => "in_doubt",
            Self::Deferred => "deferred",
            Self::WrongFile => "wrong_file",
            Self::Disputed => "disputed",
            Self::Version => "version",
            Self::NotThere => "not_there",
            Self::Interrupted => "interrupted",
            Self::BrokenPipe => "broken_pipe",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that did not do what was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// The error.
    pub(super) error: String,
    /// The remedy.
    pub(super) hint: String,
}

const CLOSED_HINT: &str =
    "this is a fault of umbel: run it again with --verbose and report what it says";

const OTHER_RELEASE_HINT: &str = "end it, or use the same version";

impl Failure {
    pub(super) fn new(exit: Exit, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit,
            error: error.into(),
            hint: hint.into(),
        }
    }

    pub(super) fn failed(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Exit::Failed, error, hint)
    }

    pub(super) fn usage(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Exit::Usage, error, hint)
    }

    pub(super) fn interrupted() -> Self {
        Self::new(
            Exit::Interrupted,
            "interrupted",
            "nothing is lost: the profile keeps its inboxes and messages, and the next umbel command goes on with them",
        )
    }

    /// Time was up before there was a list of relays; `what_is_safe` says what is not lost by that.
    pub(super) fn no_view(what_is_safe: &str) -> Self {
        Self::new(
            Exit::Unreachable,
            "no list of relays came in time",
            format!(
                "wait longer with --timeout; check your connection and this computer's clock; if every relay that you knew \
                 has moved, name one that is up with `umbel seed add ID@HOST:PORT`; {what_is_safe}"
            ),
        )
    }

    /// Whether it says only that the client was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.hint == CLOSED_HINT
    }

    /// Whether nothing can be written where the profile is.
    pub(super) fn is_unwritable(&self) -> bool {
        [StoreFault::DiskFull, StoreFault::ReadOnly]
            .into_iter()
            .any(|fault| self.hint == store_hint(fault))
    }

    /// A message of more than `max` bytes, which no record can hold; `len` where it is known.
    pub(super) fn too_long(max: usize, len: Option<u64>) -> Self {
        let found = len.map_or_else(String::new, |len| format!(", and this has {len}"));
        Self::failed(
            format!("the message is too long: a message has at most {max} bytes{found}"),
            format!("send it in parts of at most {max} bytes"),
        )
    }
}

pub(super) fn store_hint(fault: StoreFault) -> &'static str {
    match fault {
        StoreFault::DiskFull => {
            "free some space; what was stored before is safe: `umbel list --all`, `show` and `status` read it"
        }
        StoreFault::ReadOnly => {
            "make the profile's directory writable; what was stored before is safe: `umbel list --all`, `show` and `status` \
             read it"
        }
        StoreFault::Failed => {
            "check the disk, or run again with --verbose for details; what was stored before is safe"
        }
    }
}

/// A profile of an older format can't even be read before it is upgraded.
fn outdated_hint(fault: StoreFault) -> &'static str {
    match fault {
        StoreFault::DiskFull => "free some space, then try again; nothing is lost",
        StoreFault::ReadOnly | StoreFault::Failed => {
            "make the profile's directory writable, or copy it to a disk that is and name the copy with --profile; nothing is lost"
        }
    }
}

pub(super) const MEMORY_HINT: &str =
    "end other programs, or raise the limit of memory (`ulimit -v`); nothing is lost";

/// The hint where a system resource has run out; `otherwise` for any other error.
pub(super) fn system_hint(error: &io::Error, otherwise: &'static str) -> &'static str {
    match error.kind() {
        io::ErrorKind::OutOfMemory => MEMORY_HINT,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space on the disk; nothing is lost"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the disk is read-only: mount it writable; nothing is lost"
        }
        io::ErrorKind::WouldBlock => {
            "end other programs, or raise the limits of threads and memory (`ulimit -u`, `ulimit -v`)"
        }
        _ if is_out_of_descriptors(error) => {
            "close some files, or raise the limit of open files (`ulimit -n`)"
        }
        _ => otherwise,
    }
}

/// EMFILE and ENFILE, for which Rust has no kind.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

fn files_hint(fault: &FilesFault) -> &'static str {
    match fault {
        FilesFault::Missing(_)
        | FilesFault::Empty(_)
        | FilesFault::CutShort(_)
        | FilesFault::Overwritten(_) => {
            "bring it back from a backup; without one its inboxes and messages are lost, and `umbel init` makes a profile elsewhere (--profile DIR)"
        }
        FilesFault::LogMissing(_) => {
            "bring it back, or the whole profile from a backup; to continue without it, remove profile.db-shm"
        }
        FilesFault::PathTooLong { .. } => "choose a shorter path with --profile or UMBEL_PROFILE",
        FilesFault::Io(_, error) => system_hint(error, "check that you may read it, and the disk"),
    }
}

impl From<ClientClosed> for Failure {
    fn from(error: ClientClosed) -> Self {
        Self::failed(error.to_string(), CLOSED_HINT)
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        let text = error.to_string();
        let (error, hint) = text
            .split_once(": ")
            .unwrap_or((&text, "ask its owner for the address again"));
        Self::usage(error, hint)
    }
}

impl From<StopReason> for Failure {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Unresponsive { pid } => Self::new(
                Exit::Deferred,
                unresponsive(pid),
                "continue that process (with `fg`, if Ctrl-Z stopped it) or end it; sent messages are safe in the outbox",
            ),
            StopReason::Store(fault) => Self::failed(fault.to_string(), store_hint(fault)),
            StopReason::OtherRelease { pid } => Self::new(
                Exit::Deferred,
                other_release(pid),
                format!("{OTHER_RELEASE_HINT}; what was sent is safe in the outbox"),
            ),
            StopReason::ProfileLost => Self::failed(
                "profile.db was deleted or replaced while umbel used it, so umbel stopped",
                "put the file back, or the whole profile from a backup, and run the command again; what was sent or received since \
                 the file went may be lost",
            ),
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::TooLong => Self::too_long(LETTER_LEN_MAX, None),
            SendError::Refused(fault) => Self::failed(error.to_string(), refused_hint(fault)),
            SendError::Life { max } => Self::usage(
                error.to_string(),
                format!(
                    "choose at most {} for --expire-after, or leave it out",
                    times::length(max)
                ),
            ),
            SendError::OutboxFull => Self::failed(
                error.to_string(),
                "wait until some messages are delivered: `umbel outbox flush` retries them, `umbel outbox list` shows them",
            ),
            SendError::Unresponsive { pid } => Self::failed(
                format!("{}: the message was not sent", unresponsive(pid)),
                "continue or end that process, then send again",
            ),
            SendError::OtherRelease { pid } => Self::failed(
                format!("{}: the message was not sent", other_release(pid)),
                OTHER_RELEASE_HINT,
            ),
            SendError::Store(fault) => Self::failed(
                format!("{fault}: the message was not sent"),
                store_hint(fault),
            ),
            SendError::InDoubt { fault, .. } => Self::new(
                Exit::InDoubt,
                error.to_string(),
                format!(
                    "before you send it again, ask its reader, who may get it twice; {}",
                    store_hint(fault)
                ),
            ),
            SendError::Closed => ClientClosed.into(),
        }
    }
}

fn refused_hint(fault: SendFault) -> &'static str {
    match fault {
        SendFault::NoContact => "see `umbel contact list`, or send to an address",
        SendFault::Blocked => "let it write again with `umbel contact unblock NAME`",
        SendFault::NoWayBack => "wait for its next message, which says where it reads",
        SendFault::NoInbox => "see `umbel inbox list`, and name one of these with --as",
        SendFault::OwnInbox => "leave --as out, or name another of your inboxes",
        SendFault::TooLong | SendFault::OutboxFull => "see `umbel outbox list`",
    }
}

impl From<ContactError> for Failure {
    fn from(error: ContactError) -> Self {
        let text = error.to_string();
        match error {
            ContactError::Missing => Self::failed(text, "`umbel contact list` shows them"),
            ContactError::Ambiguous(keys) => {
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                let hint = format!("write the begin of one of these: {}", keys.join(", "));
                Self::failed(text, hint)
            }
            ContactError::Name => Self::usage(text, "choose another name, such as \"bob\""),
            ContactError::Taken => Self::failed(
                text,
                "choose another name, or rename the other with `umbel contact rename`",
            ),
            ContactError::NotBegun => Self::failed(text, "write to it first: `umbel send NAME`"),
            ContactError::Database(error) => error.into(),
            ContactError::Store(fault) => Self::failed(text, store_hint(fault)),
            ContactError::Closed => ClientClosed.into(),
        }
    }
}

impl From<CreateInboxError> for Failure {
    fn from(error: CreateInboxError) -> Self {
        let hint = match error {
            CreateInboxError::Name => "choose another name, such as \"main\"",
            CreateInboxError::Exists => "choose another name, or see `umbel inbox list`",
            CreateInboxError::TooMany => "make another profile, with --profile, for more",
            CreateInboxError::Store(fault) => store_hint(fault),
            CreateInboxError::Closed => CLOSED_HINT,
        };
        Self::failed(error.to_string(), hint)
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        let hint = match error {
            ListenError::NoInbox => {
                "see `umbel inbox list`, or make it with `umbel inbox create NAME`"
            }
            ListenError::Closed => CLOSED_HINT,
        };
        Self::failed(error.to_string(), hint)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Database(error) => error.into(),
            ReadError::Closed => ClientClosed.into(),
        }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        let hint = match &error {
            DatabaseError::WrongKey => {
                "give the passphrase or key file that the profile was made with"
            }
            DatabaseError::Damaged { .. } => {
                "check the disk, then bring the profile back from a backup"
            }
            DatabaseError::OutOfMemory => MEMORY_HINT,
            DatabaseError::SchemaTooNew { .. } => "use the newer umbel that wrote it",
            DatabaseError::InUse => "end every other umbel that uses the profile, then try again",
            DatabaseError::Lock(source) => {
                system_hint(source, "check the permissions of the profile's directory")
            }
            DatabaseError::Unwritable(fault) => store_hint(*fault),
            DatabaseError::Outdated(fault) => outdated_hint(*fault),
            DatabaseError::Sqlite { .. } => match error.fault() {
                StoreFault::Failed => {
                    "check the disk and the permissions of the profile's directory"
                }
                fault => store_hint(fault),
            },
        };
        Self::failed(error.to_string(), hint)
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        let text = error.to_string();
        match error {
            InitError::Exists(_) => Self::failed(
                text,
                "use it as it is, or choose another directory with --profile: nothing is overwritten",
            ),
            InitError::KeyFileExists(_) => Self::failed(
                text,
                "choose another path with --key-file: nothing is overwritten",
            ),
            InitError::NoSeeds => Self::usage(
                text,
                "name one with --seed ID@HOST:PORT; any relay's operator can tell you theirs",
            ),
            InitError::Network(_) => Self::usage(text, "correct the file that --network names"),
            InitError::Io { source, .. } => Self::failed(
                text,
                system_hint(
                    &source,
                    "check the path, its permissions and the room on the disk",
                ),
            ),
            InitError::Files(fault) => Self::failed(text, files_hint(&fault)),
            InitError::Database(error) => match error.fault() {
                StoreFault::DiskFull => {
                    Self::failed(text, "free some space and try again; nothing was made")
                }
                _ => error.into(),
            },
        }
    }
}

impl From<KeyChangeError> for Failure {
    fn from(error: KeyChangeError) -> Self {
        let text = error.to_string();
        match error {
            KeyChangeError::Profile(error) => error.into(),
            KeyChangeError::Key(error) => error.into(),
            KeyChangeError::InUse { .. } => Self::failed(
                text,
                "end every other umbel that uses the profile, then try again; nothing was changed",
            ),
        }
    }
}

impl From<InvitedFault> for Failure {
    fn from(fault: InvitedFault) -> Self {
        let exit = match fault.kind() {
            InvitedKind::WrongFile => Exit::WrongFile,
            InvitedKind::Version => Exit::Version,
            InvitedKind::Unreachable => Exit::Unreachable,
        };
        Self::new(exit, fault.to_string(), fault.hint())
    }
}

impl From<SeedError> for Failure {
    fn from(error: SeedError) -> Self {
        let text = error.to_string();
        let hint = match error {
            SeedError::Exists(_) => "nothing was changed; `umbel seed list` shows all of them",
            SeedError::TooMany => "remove one that you no longer need with `umbel seed remove ID`",
            SeedError::Missing(_) => "`umbel seed list` shows its seeds",
            SeedError::OfNetwork(_) => "it does no harm: seeds that do not answer are passed over",
            SeedError::Last(_) => "add another first, with `umbel seed add ID@HOST:PORT`",
            SeedError::Profile(error) => return error.into(),
        };
        Self::failed(text, hint)
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        let text = error.to_string();
        let hint = match error {
            ProfileError::Missing(_) => {
                "make one with `umbel init --seed ID@HOST:PORT`, or say where it is with --profile or UMBEL_PROFILE"
            }
            ProfileError::Config {
                fault: ConfigFault::TooNew(_),
                ..
            } => "use the newer umbel that wrote it",
            ProfileError::Config { .. } => "correct the file, or bring it back from a backup",
            ProfileError::PassphraseNeeded => {
                "name a file with the passphrase in UMBEL_PASSPHRASE_FILE"
            }
            ProfileError::WrongPassphrase => {
                "try again; without its passphrase nobody can open a profile (a damaged profile.db looks the same)"
            }
            ProfileError::WrongKeyFile(_) => {
                "bring back the key file that the profile was made with; if it is the right one, profile.db is damaged: bring \
                 that back from a backup"
            }
            ProfileError::Files(fault) => files_hint(&fault),
            ProfileError::OutOfMemory { .. } => MEMORY_HINT,
            ProfileError::KeyFileUnreadable { source, .. } => system_hint(
                &source,
                "bring the key file back there, or write in profile.toml, below [key], where it is now",
            ),
            ProfileError::Io { source, .. } => system_hint(
                &source,
                "check that the file is there and that you may read it",
            ),
            ProfileError::Database(error) => return error.into(),
        };
        Self::failed(text, hint)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let text = error.to_string();
        let hint = match error {
            OpenError::Profile(error) => return error.into(),
            OpenError::Snapshot(_) => {
                "bring the profile back from a backup, or make a new one with `umbel init`"
            }
            OpenError::Lock(_, error) => system_hint(
                &error,
                "check that you may write to the profile's directory, and that it is not a link",
            ),
            OpenError::Thread(error) => system_hint(&error, "end other programs"),
        };
        Self::failed(text, hint)
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::ids::MessageId;

    use super::*;

    #[test]
    fn a_message_in_doubt_differs_from_one_that_was_not_sent() {
        let (id, fault) = (MessageId([7; 16]), StoreFault::DiskFull);
        let in_doubt = Failure::from(SendError::InDoubt { id, fault });
        assert_eq!(in_doubt.exit, Exit::InDoubt);
        assert!(
            in_doubt.error.contains(&id.to_string())
                && in_doubt.hint.contains("before you send it again")
        );
        let unsent = Failure::from(SendError::Store(fault));
        assert_eq!(unsent.exit, Exit::Failed);
        assert!(unsent.error.contains("was not sent") && unsent.hint == store_hint(fault));
    }

    #[test]
    fn a_driver_of_another_release_is_named_and_is_no_fault_to_report() {
        for failure in [
            Failure::from(StopReason::OtherRelease { pid: Some(4711) }),
            SendError::OtherRelease { pid: Some(4711) }.into(),
        ] {
            assert!(
                failure.error.contains("different version") && failure.error.contains("4711"),
                "{failure:?}"
            );
            assert!(
                failure.hint.contains("use the same version") && !failure.is_closed(),
                "{failure:?}"
            );
        }
    }
}
