//! Contacts and conversations, as programs see them.

use std::collections::BTreeMap;

use umbel_proto::inbox::address::InboxAddress;

use super::{Client, ClientClosed, ListenError, ReadError};
use crate::contact::{self, ContactEntry, ContactError, Correspondent};
use crate::core::io::{ContactKey, StoreFault};
use crate::net::driver::{Done, Request};
use crate::store::{Database, HistoryFilter, Named, StoreClosed, StoredContact, StoredMessage};

impl Client {
    /// Fetches the answers of contacts that belong to no inbox, from now on: as [`Client::listen`]
    /// does for an inbox and the contacts that belong to it.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn listen_for_answers(&self, is_interactive: bool) -> Result<(), ListenError> {
        self.ask(|done| Request::Listen {
            name: None,
            is_interactive,
            done,
        })
        .await
        .map_err(|ClientClosed| ListenError::Closed)?
    }

    /// All contacts, in the order in which they came to be.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub async fn contacts(&self) -> Result<Vec<ContactEntry>, ContactError> {
        let stored = self
            .with_contacts(|database| Ok(database.contacts()?))
            .await?;
        self.entries(stored).await
    }

    /// Addresses that have a name and were not written to yet.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub async fn named_addresses(&self) -> Result<Vec<(String, InboxAddress)>, ContactError> {
        self.with_contacts(|database| Ok(database.named_addresses()?))
            .await
    }

    /// Who this stands for: a name that the user gave; or the words of a contact, or the first digits
    /// of its key, at least four.
    ///
    /// # Errors
    /// Nobody, or several; see [`ContactError`].
    pub async fn contact(&self, name: &str) -> Result<Correspondent, ContactError> {
        let contacts = self.contacts().await?;
        contact::find(contacts, self.named_addresses().await?, name)
    }

    /// The contact with this key, if there is one.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub async fn contact_of(&self, key: ContactKey) -> Result<Option<ContactEntry>, ContactError> {
        let stored = self
            .with_contacts(move |database| Ok(database.contact(key)?))
            .await?;
        let mut entries = self.entries(stored.into_iter().collect()).await?;
        Ok(entries.pop())
    }

    /// Gives an address a name, and the contact that owns it, if there is one.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub async fn add_contact(&self, name: &str, address: InboxAddress) -> Result<(), ContactError> {
        let name = name.to_owned();
        self.with_contacts(move |database| contact::add(database, &name, address))
            .await
    }

    /// Gives a contact another name.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub async fn rename(&self, who: &Correspondent, name: &str) -> Result<(), ContactError> {
        let (of, name) = (who.named(), name.to_owned());
        self.with_contacts(move |database| contact::set_name(database, of, &name))
            .await
    }

    /// Takes its name from an address that was not written to.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub async fn forget_address(&self, address: InboxAddress) -> Result<(), ContactError> {
        self.with_contacts(move |database| {
            Ok(database.set_name(Named::Address(address), None).map(drop)?)
        })
        .await
    }

    /// Notes that the user compared this contact's safety number, or no longer trusts in it. It counts
    /// as long as the number stays the same.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub async fn verify(
        &self,
        contact: &ContactEntry,
        is_verified: bool,
    ) -> Result<(), ContactError> {
        let key = contact.key;
        let number = contact.compared(is_verified)?;
        self.with_contacts(move |database| Ok(database.set_verified(key, number.as_deref())?))
            .await
    }

    /// Reads nothing more that this contact writes, or reads it again; returns once that is durable.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub async fn block(&self, contact: ContactKey, is_blocked: bool) -> Result<(), ContactError> {
        self.change(contact, |done| Request::Block {
            contact,
            is_blocked,
            done,
        })
        .await
    }

    /// Forgets a contact: its name, its keys and queues, all messages of its conversation, and those
    /// to it that wait in the outbox. Returns once that is durable.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub async fn remove_contact(&self, contact: ContactKey) -> Result<(), ContactError> {
        self.change(contact, |done| Request::RemoveContact { contact, done })
            .await?;
        // Until the log is emptied it holds them, encrypted.
        self.with_contacts(|database| Ok(database.empty_log().map(drop)?))
            .await
    }

    /// The last messages of a conversation that came or were written before place `before` (`None`:
    /// all), the last first: at most so many, and at most a page of 32. An empty page is the last.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn history(
        &self,
        contact: ContactKey,
        filter: HistoryFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, ReadError> {
        let before = before.unwrap_or(i64::MAX);
        let page = self
            .store
            .call(move |database| database.history(contact, &filter, before, limit))
            .await;
        page.map_err(|StoreClosed| ReadError::Closed)?
            .map_err(ReadError::Database)
    }

    /// Kept messages that came, and whose id begins with these hexadecimal digits, oldest first; a page
    /// at most.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn messages_named(&self, digits: &str) -> Result<Vec<StoredMessage>, ReadError> {
        let digits = digits.to_owned();
        let page = self
            .store
            .call(move |database| database.messages_named(&digits))
            .await;
        page.map_err(|StoreClosed| ReadError::Closed)?
            .map_err(ReadError::Database)
    }

    async fn change(
        &self,
        contact: ContactKey,
        request: impl FnOnce(Done<bool, StoreFault>) -> Request,
    ) -> Result<(), ContactError> {
        // Who asks the driver about a contact that is not there waits for ever.
        let found = self
            .with_contacts(move |database| Ok(database.contact(contact)?))
            .await?;
        if found.is_none() {
            return Err(ContactError::Missing);
        }
        match self.ask(request).await? {
            Ok(true) => Ok(()),
            Ok(false) => Err(ContactError::Missing),
            Err(fault) => Err(ContactError::Store(fault)),
        }
    }

    async fn entries(&self, stored: Vec<StoredContact>) -> Result<Vec<ContactEntry>, ContactError> {
        let mut own: BTreeMap<String, Option<InboxAddress>> = BTreeMap::new();
        let mut entries = Vec::with_capacity(stored.len());
        for contact in stored {
            let address = match &contact.card.inbox {
                None => None,
                Some(name) => match own.get(name) {
                    Some(address) => *address,
                    None => {
                        let address = self.inbox_address(name).await?;
                        own.insert(name.clone(), address);
                        address
                    }
                },
            };
            entries.push(ContactEntry::of(contact, &self.network, address.as_ref()));
        }
        Ok(entries)
    }

    async fn with_contacts<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, ContactError> + Send + 'static,
    ) -> Result<T, ContactError> {
        let done = self.store.call(move |database| Ok(work(database))).await;
        done.map_err(|StoreClosed| ContactError::Closed)?
            .map_err(ContactError::Database)?
    }
}

impl Correspondent {
    pub(crate) const fn named(&self) -> Named {
        match self {
            Self::Contact(contact) => Named::Contact(contact.key),
            Self::Address { address, .. } => Named::Address(*address),
        }
    }
}
