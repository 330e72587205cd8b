//! What a profile holds, read from its database: for whatever needs no network.
//!
//! Asks nobody and keeps nobody waiting: it works beside a process that has the profile's network.

use umbel_proto::inbox::address::InboxAddress;

use crate::client::{OpenError, open, restore};
use crate::core::Core;
use crate::core::io::Status;
use crate::store::{Database, DatabaseError, Profile, StoredMessage};

/// An open profile that makes no links and drives nothing.
#[expect(missing_debug_implementations, reason = "holds an open profile")]
pub struct Library {
    database: Database,
    /// As the next client would begin; what it would do is left to that.
    core: Core,
}

impl Library {
    /// Opens a profile; takes as long as its passphrase was made to take.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(profile: Profile) -> Result<Self, OpenError> {
        let (ground, database) = open(profile)?;
        let (core, _) = restore(&ground, &database)?;
        Ok(Self { database, core })
    }

    /// How things stood when the profile was opened: inboxes, outbox, relays known.
    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// The address of one of the own inboxes; `None` when there is none of this name.
    pub fn inbox_address(&self, inbox: &str) -> Option<InboxAddress> {
        self.core.inbox_address(inbox)
    }

    /// Messages that are kept, oldest first: of one inbox or of all, those that came after place `after` (0: all), a
    /// page at a time. The page after the last is empty.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn messages(&self, inbox: Option<&str>, after: i64) -> Result<Vec<StoredMessage>, DatabaseError> {
        self.database.messages(inbox, after)
    }

    /// Like [`Library::messages`], without those that are marked read.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn unread(&self, inbox: Option<&str>, after: i64) -> Result<Vec<StoredMessage>, DatabaseError> {
        self.database.unread(inbox, after)
    }

    /// Marks a message read.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn mark_read(&self, message: &StoredMessage) -> Result<(), DatabaseError> {
        self.database.mark_read(message.seq)
    }

    /// How many unread messages each inbox has; inboxes without any are left out.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn unread_counts(&self) -> Result<Vec<(String, u64)>, DatabaseError> {
        self.database.unread_counts()
    }
}
