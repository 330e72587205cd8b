//! A profile's messages, read from its database, for commands that need no network.
//!
//! Asks nobody and keeps nobody waiting: it works beside a process that has the profile's network.
//! On a full disk, or one that may not be written, commands that only read still work.

use umbel_proto::ids::{MessageId, NetworkId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::limits::CLOCK_JUMP_MIN;
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, WallTime};
use umbel_relay::shell::Clock;

use crate::client::{OpenError, restore, to_ground};
use crate::contact::{self, ContactEntry, ContactError, Correspondent};
use crate::core::io::{Contact, ContactKey, OutboxMessage, Status};
use crate::core::{Core, read_outbox_message};
use crate::store::{
    Database, DatabaseError, HistoryFilter, Named, Place, Profile, StoredContact, StoredMessage,
};

/// An open profile that makes no links and drives nothing.
#[expect(missing_debug_implementations, reason = "holds an open profile")]
pub struct Library {
    database: Database,
    /// A core as the next client would start it; it does nothing here.
    core: Core,
    params: Params,
    network: NetworkId,
}

/// Kept messages of some age.
#[expect(missing_debug_implementations, reason = "says where messages are")]
pub struct Old {
    /// Where they are.
    pub places: Vec<Place>,
    /// How many more have that age if this computer's clock is right, which the network has not
    /// confirmed.
    pub doubtful: usize,
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
            network: ground.network.id,
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

    /// Kept messages that came `age` before `wall` or earlier, oldest first; of one inbox, or of
    /// all.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn old(
        &self,
        age: Duration,
        wall: WallTime,
        inbox: Option<&str>,
    ) -> Result<Old, DatabaseError> {
        // A message of this very second is older than no time at all.
        let before = |now: WallTime| WallTime((now.as_secs() + 1).saturating_sub(age.as_secs()));
        let older = |now| self.database.older(before(now), inbox);
        let places = match self.calendar(wall) {
            Some(calendar) => older(calendar)?,
            None => Vec::new(),
        };
        let doubtful = older(wall)?.len().saturating_sub(places.len());
        Ok(Old { places, doubtful })
    }

    /// The time that age is counted by when the clock says `wall`, and never later: a clock that is
    /// set ahead makes nothing older before the network has confirmed it (docs/protocol.md §1.6).
    /// The stored confirmed time may lag a little; an hour is allowed for that. `None` where no
    /// time was ever confirmed.
    pub fn calendar(&self, wall: WallTime) -> Option<WallTime> {
        let ahead = self.core.unconfirmed()?.saturating_sub(CLOCK_JUMP_MIN);
        Some(WallTime(wall.as_secs().saturating_sub(ahead.as_secs())))
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

    /// The user goes on although the network's seeds disagree about which relays there are; whether
    /// they did.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn accept_view(&self) -> Result<bool, DatabaseError> {
        self.database.accept_view()
    }

    /// Chooses whether the third hop of each path is kept, too (docs/protocol.md §6.4(18)). A client
    /// that runs goes by it once it is started again.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn set_full_vanguards(&self, is_on: bool) -> Result<(), DatabaseError> {
        self.database.set_full_vanguards(is_on)
    }

    /// A message in the outbox and what it says; `None` if it is not there.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn outbox_message(&self, id: MessageId) -> Result<Option<OutboxMessage>, DatabaseError> {
        let state = self.database.outbox_state(id)?;
        Ok(state.and_then(|state| read_outbox_message(id, &state, &self.params, Clock::wall())))
    }

    /// All contacts, in the order in which they came to be.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn contacts(&self) -> Result<Vec<ContactEntry>, DatabaseError> {
        let stored = self.database.contacts()?;
        Ok(stored.into_iter().map(|it| self.entry(it)).collect())
    }

    /// Addresses that have a name and were not written to yet.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn named_addresses(&self) -> Result<Vec<(String, InboxAddress)>, DatabaseError> {
        self.database.named_addresses()
    }

    /// Who this stands for: a name that the user gave; or the words of a contact, or the first digits
    /// of its key, at least four.
    ///
    /// # Errors
    /// Nobody, or several; see [`ContactError`].
    pub fn contact(&self, name: &str) -> Result<Correspondent, ContactError> {
        contact::find(self.contacts()?, self.named_addresses()?, name)
    }

    /// The contact with this key, if there is one.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn contact_of(&self, key: ContactKey) -> Result<Option<ContactEntry>, DatabaseError> {
        let stored = self.database.contact(key)?;
        Ok(stored.map(|it| self.entry(it)))
    }

    /// Gives an address a name, and the contact that owns it, if there is one.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn add_contact(&mut self, name: &str, address: InboxAddress) -> Result<(), ContactError> {
        contact::add(&mut self.database, name, address)
    }

    /// Gives a contact another name.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn rename(&mut self, who: &Correspondent, name: &str) -> Result<(), ContactError> {
        contact::set_name(&mut self.database, who.named(), name)
    }

    /// Takes its name from an address that was not written to.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn forget_address(&mut self, address: InboxAddress) -> Result<(), DatabaseError> {
        self.database
            .set_name(Named::Address(address), None)
            .map(drop)
    }

    /// Notes that the user compared this contact's safety number, or no longer trusts in it. It counts
    /// as long as the number stays the same.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn verify(&self, contact: &ContactEntry, is_verified: bool) -> Result<(), ContactError> {
        let number = contact.compared(is_verified)?;
        Ok(self.database.set_verified(contact.key, number.as_deref())?)
    }

    /// The last messages of a conversation that came or were written before place `before` (`None`:
    /// all), the last first: at most so many, and at most a page of 32. An empty page is the last.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn history(
        &self,
        contact: ContactKey,
        filter: &HistoryFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, DatabaseError> {
        let before = before.unwrap_or(i64::MAX);
        self.database.history(contact, filter, before, limit)
    }

    fn entry(&self, stored: StoredContact) -> ContactEntry {
        let inbox = stored.card.inbox.as_deref();
        let own = inbox.and_then(|name| self.inbox_address(name));
        ContactEntry::of(stored, &self.network, own.as_ref())
    }

    /// How many unread messages each inbox has; inboxes without any are left out.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub fn unread_counts(&self) -> Result<Vec<(String, u64)>, DatabaseError> {
        self.database.unread_counts()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use umbel_proto::time::{ClockGuard, Instant};

    use super::*;
    use crate::core::FIRST_CONTACT_DISPUTED;
    use crate::core::io::StoreOp;
    use crate::testing::profile;

    #[test] // §8.3(9c)
    fn what_seeds_disagree_about_is_accepted_once() {
        let dir = TempDir::new().unwrap();
        let path = profile(&dir);
        let library = || Library::open(Profile::load(&path).unwrap()).unwrap();
        assert!(
            !library().accept_view().unwrap(),
            "there is nothing to accept"
        );
        let mut open = Profile::load(&path).unwrap().open().unwrap();
        let disputed = StoreOp::PutFirstContact(vec![FIRST_CONTACT_DISPUTED]);
        assert!(open.database.apply(&[disputed]).iter().all(Result::is_ok));
        drop(open);
        assert!(library().status().seeds_disagree);
        assert!(library().accept_view().unwrap());
        assert!(!library().status().seeds_disagree);
        assert!(!library().accept_view().unwrap(), "it is accepted");
    }

    #[test] // §6.4(18)
    fn full_vanguards_are_off_until_the_owner_turns_them_on() {
        let dir = TempDir::new().unwrap();
        let path = profile(&dir);
        let library = || Library::open(Profile::load(&path).unwrap()).unwrap();
        let is_on = || library().status().has_full_vanguards;
        assert!(!is_on());
        library().set_full_vanguards(true).unwrap();
        assert!(is_on());
        library().set_full_vanguards(false).unwrap();
        assert!(!is_on());
    }

    #[test] // §1.6(4)
    fn nothing_is_old_where_no_time_was_ever_confirmed() {
        let dir = TempDir::new().unwrap();
        let path = profile(&dir);
        let wall = Clock::wall();
        let store = |op| {
            let mut open = Profile::load(&path).unwrap().open().unwrap();
            assert!(open.database.apply(&[op]).iter().all(Result::is_ok));
        };
        let old = || {
            let library = Library::open(Profile::load(&path).unwrap()).unwrap();
            let old = library.old(Duration::ZERO, wall, None).unwrap();
            (old.places.len(), old.doubtful)
        };
        store(StoreOp::PutMessage {
            inbox: Some("main".to_owned()),
            id: MessageId([1; 16]),
            body: vec![b'm'],
            received_at: wall,
            letter: None,
        });
        assert_eq!(old(), (0, 1));
        let (mut clock, _) = ClockGuard::restore(None, Instant::default(), wall);
        clock.confirm();
        store(StoreOp::PutClock(clock.state()));
        assert_eq!(old(), (1, 0));
    }
}
