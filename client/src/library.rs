//! A profile's messages, read from its database, for commands that need no network.
//!
//! Asks nobody and keeps nobody waiting: it works beside a process that has the profile's network.
//! On a full disk, or one that may not be written, commands that only read still work.

use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::limits::CLOCK_JUMP_MIN;
use umbel_proto::network::Params;
use umbel_proto::time::WallTime;

use crate::client::{OpenError, restore, to_ground};
use crate::core::io::{Contact, OutboxMessage, Status};
use crate::core::{Core, read_outbox_message};
use crate::net::Clock;
use crate::store::{Database, DatabaseError, Place, Profile, StoredMessage};

/// An open profile that makes no links and drives nothing.
#[expect(missing_debug_implementations, reason = "holds an open profile")]
pub struct Library {
    database: Database,
    /// A core as the next client would start it; it does nothing here.
    core: Core,
    params: Params,
}

/// The result of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// How many there were.
    pub count: usize,
    /// No copy is left in the profile's log either. Otherwise one is there, encrypted, until the
    /// last process that uses the profile ends.
    pub is_log_empty: bool,
}

impl Library {
    /// Opens a profile; takes as long as its passphrase was made to take.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(profile: Profile) -> Result<Self, OpenError> {
        let (ground, database) = to_ground(profile.open_to_read()?);
        let (core, _) = restore(&ground, &database)?;
        Ok(Self {
            database,
            core,
            params: ground.network.params,
        })
    }

    /// How things stood when the profile was opened: inboxes, outbox, relays known.
    pub fn status(&self) -> Status {
        // The core asks for links as soon as it begins, and nobody makes them here.
        Status {
            contact: Contact::NotTried,
            ..self.core.status()
        }
    }

    /// The address of one of the own inboxes; `None` when there is none of this name.
    pub fn inbox_address(&self, inbox: &str) -> Option<InboxAddress> {
        self.core.inbox_address(inbox)
    }

    /// Messages that are kept, oldest first: of one inbox or of all, those that came after place
    /// `after` (0: all), a page at a time. The page after the last is empty.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn messages(
        &self,
        inbox: Option<&str>,
        after: i64,
    ) -> Result<Vec<StoredMessage>, DatabaseError> {
        self.database.messages(inbox, after)
    }

    /// Like [`Library::messages`], without those that are marked read.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn unread(
        &self,
        inbox: Option<&str>,
        after: i64,
    ) -> Result<Vec<StoredMessage>, DatabaseError> {
        self.database.unread(inbox, after)
    }

    /// Marks a message read.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn mark_read(&self, message: &StoredMessage) -> Result<(), DatabaseError> {
        self.database.mark_read(message.seq)
    }

    /// Kept messages whose id begins with these hexadecimal digits, oldest first; a page at most.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn messages_named(&self, digits: &str) -> Result<Vec<StoredMessage>, DatabaseError> {
        self.database.messages_named(digits)
    }

    /// Kept messages that came before this time, oldest first; of one inbox, or of all.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn older(
        &self,
        before: WallTime,
        inbox: Option<&str>,
    ) -> Result<Vec<Place>, DatabaseError> {
        self.database.older(before, inbox)
    }

    /// The time that deletion by age goes by when the clock says `wall`, and never later: a clock
    /// that is set ahead makes nothing older before the network has confirmed it (docs/protocol.md
    /// §1.6). The stored confirmed time may lag a little; an hour is allowed for that.
    pub fn calendar(&self, wall: WallTime) -> WallTime {
        let ahead = self.core.unconfirmed().saturating_sub(CLOCK_JUMP_MIN);
        WallTime(wall.as_secs().saturating_sub(ahead.as_secs()))
    }

    /// Deletes the messages at these places, so that nothing but their ids stays. None comes again,
    /// though a holder may still have it.
    ///
    /// # Errors
    /// See [`DatabaseError`]. Nothing was deleted then.
    pub fn delete(&mut self, places: &[i64]) -> Result<Deleted, DatabaseError> {
        let count = self.database.delete(places, Clock::wall())?;
        Ok(Deleted {
            count,
            is_log_empty: self.database.empty_log().unwrap_or(false),
        })
    }

    /// A message in the outbox and what it says; `None` if it is not there.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn outbox_message(&self, id: MessageId) -> Result<Option<OutboxMessage>, DatabaseError> {
        let state = self.database.outbox_state(id)?;
        Ok(state.and_then(|state| read_outbox_message(id, &state, &self.params, Clock::wall())))
    }

    /// How many unread messages each inbox has; inboxes without any are left out.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn unread_counts(&self) -> Result<Vec<(String, u64)>, DatabaseError> {
        self.database.unread_counts()
    }
}
