//! Contacts as programs and users see them: how they are called, found and verified.

use std::fmt;

use umbel_proto::conversation::verification::{Party, SafetyNumber, pseudonym_words};
use umbel_proto::crypto::dh::DhPublic;
use umbel_proto::ids::NetworkId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::record::{LETTER_LEN_MAX, MESSAGE_LEN_MAX};
use umbel_proto::time::WallTime;

use crate::client::ClientClosed;
use crate::core::io::{ContactCard, ContactKey, Recipient, StoreFault};
use crate::store::{Database, DatabaseError, Named, StoredContact};

/// Longest name of a contact, bytes.
const NAME_LEN_MAX: usize = 64;
/// An address begins so, and a name does not.
const ADDRESS_PREFIX: &str = "umbel1";
/// Fewest digits of a contact's key that stand for it.
const KEY_DIGITS_MIN: usize = 4;

/// A contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactEntry {
    /// Names it in this profile.
    pub key: ContactKey,
    /// The name that the user gave it.
    pub name: Option<String>,
    /// Three words: of a stranger's pseudonym (docs/protocol.md §11.7), or, where this side began, of
    /// the address that it wrote to. They are the same for the same pseudonym or address.
    pub words: String,
    /// What is known of it.
    pub card: ContactCard,
    /// The digits that both sides see: whoever compares them knows that nobody sits between.
    pub safety_number: Option<SafetyNumber>,
    /// Whether the user compared them.
    pub verified: Verified,
    /// Since when it is known, by this computer's clock.
    pub added_at: WallTime,
    /// How many of its messages are not marked read.
    pub unread: u64,
}

/// Whether the user compared a contact's safety number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// They did not.
    No,
    /// They did, and it is the same today.
    Yes,
    /// They did, and it is another since: somebody else may be there.
    Changed,
}

/// Who a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Correspondent {
    /// A contact.
    Contact(Box<ContactEntry>),
    /// An address that was not written to yet: the first message makes a contact of it.
    Address {
        /// Its name.
        name: String,
        /// The address.
        address: InboxAddress,
    },
}

/// A contact could not be found or changed.
#[derive(Debug)]
pub enum ContactError {
    /// There is none of this name.
    Missing,
    /// Several are meant: these, by key.
    Ambiguous(Vec<ContactKey>),
    /// A name has 1 to 64 bytes, no control characters and no blanks at an end, and is no address.
    Name,
    /// Another contact has the name.
    Taken,
    /// It has no safety number: it was not written to yet.
    NotBegun,
    /// The profile can't be read or written.
    Database(DatabaseError),
    /// The profile could not be written, as the process says that has its network.
    Store(StoreFault),
    /// The client was closed.
    Closed,
}

impl ContactEntry {
    /// How it is called: by its name, or by its words.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.words)
    }

    /// With the address of the own inbox that it belongs to, if it belongs to one.
    pub(crate) fn of(
        stored: StoredContact,
        network: &NetworkId,
        own: Option<&InboxAddress>,
    ) -> Self {
        let safety_number = safety_number(network, &stored.card, own);
        let verified = match (&stored.verified, safety_number) {
            (None, _) => Verified::No,
            (Some(compared), Some(number)) if *compared == number.to_string() => Verified::Yes,
            (Some(_), _) => Verified::Changed,
        };
        Self {
            key: stored.key,
            name: stored.name,
            words: words(&stored.card),
            card: stored.card,
            safety_number,
            verified,
            added_at: stored.added_at,
            unread: stored.unread,
        }
    }

    /// The number that counts as compared, if it is to.
    pub(crate) fn compared(&self, is_verified: bool) -> Result<Option<String>, ContactError> {
        if !is_verified {
            return Ok(None);
        }
        let number = self.safety_number.ok_or(ContactError::NotBegun)?;
        Ok(Some(number.to_string()))
    }

    fn is_meant_by(&self, text: &str) -> bool {
        let digits = text.to_ascii_lowercase();
        let is_key =
            || digits.len() >= KEY_DIGITS_MIN && self.key.to_string().starts_with(digits.as_str());
        self.words.eq_ignore_ascii_case(text) || is_key()
    }
}

impl Recipient {
    /// The longest body that can go there, bytes.
    #[must_use]
    pub const fn body_len_max(&self) -> usize {
        match self {
            Self::OneWay(_) => MESSAGE_LEN_MAX,
            Self::Owner { .. } | Self::Contact(_) => LETTER_LEN_MAX,
        }
    }
}

/// The number of this conversation's two parties (docs/protocol.md §11.7(1)).
fn safety_number(
    network: &NetworkId,
    card: &ContactCard,
    own: Option<&InboxAddress>,
) -> Option<SafetyNumber> {
    let pseudonym = Party::Pseudonym(&card.pseudonym);
    let (initiator, responder) = if card.is_initiator {
        let initiator = match (&card.inbox, own) {
            (None, _) => pseudonym,
            (Some(_), own) => Party::Inbox(own?),
        };
        (initiator, card.address.as_ref()?)
    } else {
        let initiator = card.address.as_ref().map_or(pseudonym, Party::Inbox);
        (initiator, own?)
    };
    Some(SafetyNumber::new(
        network,
        initiator,
        Party::Inbox(responder),
    ))
}

fn words(card: &ContactCard) -> String {
    match card.address {
        Some(address) if card.is_initiator => pseudonym_words(&DhPublic(*address.key())),
        _ => pseudonym_words(&card.pseudonym),
    }
}

/// Who this stands for: a name; or a contact's words, or the beginning of its key.
///
/// # Errors
/// Nobody, or several.
pub(crate) fn find(
    contacts: Vec<ContactEntry>,
    named: Vec<(String, InboxAddress)>,
    text: &str,
) -> Result<Correspondent, ContactError> {
    let has_name = |it: &ContactEntry| it.name.as_deref() == Some(text);
    let (mut exact, others): (Vec<_>, Vec<_>) = contacts.into_iter().partition(has_name);
    if let Some(contact) = exact.pop() {
        return Ok(Correspondent::Contact(Box::new(contact)));
    }
    if let Some((name, address)) = named.into_iter().find(|(name, _)| name == text) {
        return Ok(Correspondent::Address { name, address });
    }
    let mut meant: Vec<_> = others
        .into_iter()
        .filter(|it| it.is_meant_by(text))
        .collect();
    match (meant.len(), meant.pop()) {
        (1, Some(contact)) => Ok(Correspondent::Contact(Box::new(contact))),
        (_, None) => Err(ContactError::Missing),
        (_, Some(last)) => {
            let keys = meant.iter().chain([&last]).map(|it| it.key);
            Err(ContactError::Ambiguous(keys.collect()))
        }
    }
}

/// Gives a contact or an address a name.
pub(crate) fn set_name(database: &mut Database, of: Named, name: &str) -> Result<(), ContactError> {
    if !is_name(name) {
        return Err(ContactError::Name);
    }
    let has_words = |it: &StoredContact| {
        of != Named::Contact(it.key) && words(&it.card).eq_ignore_ascii_case(name)
    };
    let is_free = !database.contacts()?.iter().any(has_words);
    if is_free && database.set_name(of, Some(name))? {
        Ok(())
    } else {
        Err(ContactError::Taken)
    }
}

/// Gives an address a name, and the contact that owns it, if there is one.
pub(crate) fn add(
    database: &mut Database,
    name: &str,
    address: InboxAddress,
) -> Result<(), ContactError> {
    let contacts = database.contacts()?;
    let owns = |it: &&StoredContact| it.card.address == Some(address);
    let began = contacts.iter().filter(owns).find(|it| it.card.is_initiator);
    let contact = began.or_else(|| contacts.iter().find(owns));
    let of = contact.map_or(Named::Address(address), |it| Named::Contact(it.key));
    set_name(database, of, name)
}

fn is_name(name: &str) -> bool {
    let is_clean = !name.chars().any(char::is_control) && name.trim() == name;
    let is_address = name
        .get(..ADDRESS_PREFIX.len())
        .is_some_and(|it| it.eq_ignore_ascii_case(ADDRESS_PREFIX));
    is_clean && !is_address && (1..=NAME_LEN_MAX).contains(&name.len())
}

impl From<DatabaseError> for ContactError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<ClientClosed> for ContactError {
    fn from(ClientClosed: ClientClosed) -> Self {
        Self::Closed
    }
}

impl fmt::Display for ContactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no contact of this name"),
            Self::Ambiguous(keys) => {
                write!(f, "{} contacts may be meant", keys.len())
            }
            Self::Name => write!(
                f,
                "a contact's name has 1 to {NAME_LEN_MAX} bytes, no control characters and no blank at either end, and is no address"
            ),
            Self::Taken => f.write_str("another contact has this name"),
            Self::NotBegun => f.write_str("there is no conversation with this contact yet"),
            Self::Database(error) => error.fmt(f),
            Self::Store(fault) => fault.fmt(f),
            Self::Closed => ClientClosed.fmt(f),
        }
    }
}

impl std::error::Error for ContactError {}

#[cfg(test)]
mod tests {
    use umbel_proto::inbox::address::InboxIdentity;

    use super::*;

    const NETWORK: NetworkId = NetworkId([9; 32]);

    fn address(byte: u8) -> InboxAddress {
        *InboxIdentity::from_seed(&[byte; 32]).address()
    }

    fn stored(byte: u8, name: Option<&str>) -> StoredContact {
        StoredContact {
            key: ContactKey([byte; 16]),
            name: name.map(str::to_owned),
            card: ContactCard {
                inbox: None,
                address: Some(address(byte)),
                pseudonym: DhPublic([byte; 32]),
                is_initiator: true,
                is_stranger: false,
                is_blocked: false,
            },
            verified: None,
            added_at: WallTime(1),
            unread: 0,
        }
    }

    fn entries() -> Vec<ContactEntry> {
        let all = [stored(1, Some("bob")), stored(2, None), stored(0x22, None)];
        let of = |it| ContactEntry::of(it, &NETWORK, None);
        all.into_iter().map(of).collect()
    }

    #[test]
    fn a_contact_is_found_by_name_by_words_and_by_the_begin_of_its_key() {
        let entries = entries();
        let named = vec![("carol".to_owned(), address(3))];
        let find = |text: &str| find(entries.clone(), named.clone(), text);
        let key = |text| match find(text).unwrap() {
            Correspondent::Contact(contact) => Some(contact.key.0[0]),
            Correspondent::Address { .. } => None,
        };
        assert_eq!(key("bob"), Some(1));
        assert_eq!(key("carol"), None);
        let words = entries[1].words.clone();
        assert_eq!(key(&words), Some(2));
        let shouted = words.to_uppercase();
        assert_eq!(key(&shouted), Some(2));
        assert_eq!(key("0202"), Some(2));
        assert!(matches!(find("020"), Err(ContactError::Missing)));
        assert!(matches!(find("Bob"), Err(ContactError::Missing)));
        assert!(matches!(find(""), Err(ContactError::Missing)));
    }

    #[test]
    fn words_that_two_contacts_have_stand_for_neither() {
        let mut entries = entries();
        entries[2].words = entries[1].words.clone();
        let words = entries[1].words.clone();
        let found = find(entries, Vec::new(), &words);
        let Err(ContactError::Ambiguous(keys)) = found else {
            panic!("one was found");
        };
        assert_eq!(keys, [ContactKey([2; 16]), ContactKey([0x22; 16])]);
    }

    #[test]
    fn a_name_is_one_line_and_no_address() {
        let (longest, longer) = ("x".repeat(64), "x".repeat(65));
        for name in ["bob", "Bob Ö.", "a", &longest] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            " bob",
            "bob ",
            "b\nb",
            "\u{1b}[2J",
            "umbel1abc",
            "UMBEL1",
            &longer,
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test] // §11.7(1)
    fn both_sides_of_a_conversation_have_one_number() {
        let (alice, bob) = (address(1), address(2));
        let of =
            |card: ContactCard, own: Option<&InboxAddress>| safety_number(&NETWORK, &card, own);
        let card = |inbox: Option<&str>, address, is_initiator| ContactCard {
            inbox: inbox.map(str::to_owned),
            address,
            pseudonym: DhPublic([7; 32]),
            is_initiator,
            is_stranger: !is_initiator,
            is_blocked: false,
        };
        let hidden = of(card(None, Some(bob), true), None);
        assert!(hidden.is_some());
        assert_eq!(hidden, of(card(Some("main"), None, false), Some(&bob)));
        let known = of(card(Some("own"), Some(bob), true), Some(&alice));
        assert_eq!(
            known,
            of(card(Some("main"), Some(alice), false), Some(&bob))
        );
        assert!(known.is_some() && known != hidden);
    }

    #[test] // §11.7(1)
    fn a_contact_is_verified_while_its_number_is_the_one_compared() {
        let mut contact = stored(1, None);
        let verified =
            |contact: &StoredContact| ContactEntry::of(contact.clone(), &NETWORK, None).verified;
        assert_eq!(verified(&contact), Verified::No);
        let number = ContactEntry::of(contact.clone(), &NETWORK, None).safety_number;
        contact.verified = number.map(|number| number.to_string());
        assert_eq!(verified(&contact), Verified::Yes);
        contact.card.address = Some(address(5));
        assert_eq!(verified(&contact), Verified::Changed);
    }
}
