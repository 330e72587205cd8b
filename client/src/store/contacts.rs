//! Contacts and the messages of their conversations.
//!
//! The state of a contact is the core's and opaque here; what its user sees of it stands in columns.
//! The name and the mark that it is verified are the user's, and no op of the core changes them.

#[cfg(test)]
mod tests;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use umbel_proto::crypto::dh::DhPublic;
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::time::WallTime;
use zeroize::Zeroizing;

use super::database::{
    Database, DatabaseError, Doing, PAGE_MAX, StoredMessage, seconds, to_message, wall_time,
};
use crate::core::io::{Cancelled, ContactCard, ContactKey, Copies, Notice};

/// The place of a stored message in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversed {
    /// With whom.
    pub contact: ContactKey,
    /// Its number among those that its writer wrote in a session; of messages that came.
    pub number: Option<u64>,
    /// Which session, counted from 0; of messages that came.
    pub session: Option<u32>,
    /// When it was written, by its writer's clock.
    pub written_at: WallTime,
    /// The user of this profile wrote it.
    pub is_own: bool,
    /// When the answer came that its reader has it; of own messages.
    pub acknowledged_at: Option<WallTime>,
    /// What became of it, once it is out of the outbox and its reader has not said that they have it;
    /// of own messages.
    pub fate: Option<Fate>,
}

/// What became of a message that is out of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Holders have it, and its reader did not say that it came.
    Held,
    /// A holder may have it.
    InDoubt,
    /// It was taken back before a holder had it.
    Cancelled,
    /// Nobody has it.
    Failed,
}

/// Which messages of a conversation are looked for.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter {
    /// They contain this text; upper and lower case are the same.
    pub search: Option<String>,
    /// They came, or were written here, at this time or later.
    pub since: Option<WallTime>,
}

/// A contact as it is stored.
#[derive(Clone)]
pub(crate) struct StoredContact {
    pub(crate) key: ContactKey,
    pub(crate) name: Option<String>,
    pub(crate) card: ContactCard,
    /// The safety number that the user compared.
    pub(crate) verified: Option<String>,
    pub(crate) added_at: WallTime,
    /// How many of its messages are not marked read.
    pub(crate) unread: u64,
}

/// Who has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Contact(ContactKey),
    /// An address that was not written to yet.
    Address(InboxAddress),
}

impl Database {
    /// All that the core needs of contacts.
    pub(super) fn contact_states(&self) -> rusqlite::Result<Vec<(ContactKey, Zeroizing<Vec<u8>>)>> {
        let sql = "SELECT key, state FROM contacts ORDER BY rowid";
        self.rows(sql, [], |row| {
            Ok((ContactKey(row.get(0)?), Zeroizing::new(row.get(1)?)))
        })
    }

    /// Who wrote which messages that came since then, kept or deleted.
    pub(super) fn received_from(
        &self,
        since: WallTime,
    ) -> rusqlite::Result<Vec<(ContactKey, MessageId)>> {
        let sql = "
            SELECT contact, id FROM messages WHERE received_at >= ?1 AND contact IS NOT NULL AND is_own = 0
            UNION SELECT contact, id FROM deleted WHERE deleted_at >= ?1 AND contact IS NOT NULL";
        self.rows(sql, [seconds(since)], |row| {
            Ok((ContactKey(row.get(0)?), MessageId(row.get(1)?)))
        })
    }

    /// All contacts, in the order in which they came to be.
    pub(crate) fn contacts(&self) -> Result<Vec<StoredContact>, DatabaseError> {
        let sql = format!("{CONTACT_SQL} ORDER BY contacts.rowid");
        self.rows(&sql, [], to_contact).doing("read the contacts")
    }

    /// One contact.
    pub(crate) fn contact(&self, key: ContactKey) -> Result<Option<StoredContact>, DatabaseError> {
        let sql = format!("{CONTACT_SQL} WHERE key = ?1");
        let found = self.connection.query_row(&sql, [key.0], to_contact);
        found.optional().doing("read a contact")
    }

    /// Names of addresses that were not written to, with these.
    pub(crate) fn named_addresses(&self) -> Result<Vec<(String, InboxAddress)>, DatabaseError> {
        let sql = "SELECT name, address FROM names ORDER BY name";
        self.rows(sql, [], |row| Ok((row.get(0)?, to_address(row.get(1)?)?)))
            .doing("read the names")
    }

    /// Gives a name, or takes it away; false, if another has it. The name that the contact or the
    /// address had is free again.
    pub(crate) fn set_name(
        &mut self,
        of: Named,
        name: Option<&str>,
    ) -> Result<bool, DatabaseError> {
        let doing = "name a contact";
        self.check_writable()?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .doing(doing)?;
        if let Some(name) = name
            && is_taken(&transaction, of, name).doing(doing)?
        {
            return Ok(false);
        }
        match (of, name) {
            (Named::Contact(key), _) => transaction.execute(
                "UPDATE contacts SET name = ?2 WHERE key = ?1",
                params![key.0, name],
            ),
            (Named::Address(address), None) => {
                transaction.execute("DELETE FROM names WHERE address = ?1", [address.key()])
            }
            (Named::Address(address), Some(name)) => transaction.execute(
                "INSERT INTO names (name, address) VALUES (?1, ?2)
                 ON CONFLICT (address) DO UPDATE SET name = excluded.name",
                params![name, address.key()],
            ),
        }
        .doing(doing)?;
        transaction.commit().doing(doing)?;
        Ok(true)
    }

    /// Notes which safety number the user compared; `None`: none.
    pub(crate) fn set_verified(
        &self,
        key: ContactKey,
        number: Option<&str>,
    ) -> Result<(), DatabaseError> {
        self.check_writable()?;
        self.connection
            .execute(
                "UPDATE contacts SET verified = ?2 WHERE key = ?1",
                params![key.0, number],
            )
            .map(drop)
            .doing("note that a contact is verified")
    }

    /// The last messages of a conversation before this place, the last first: no more than `limit`,
    /// and no more than a page.
    pub(crate) fn history(
        &self,
        contact: ContactKey,
        filter: &HistoryFilter,
        before: i64,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, DatabaseError> {
        let doing = "read the conversation";
        let limit = limit.min(PAGE_MAX as usize);
        let wanted = filter.search.as_ref().map(|text| text.to_lowercase());
        let sql = format!(
            "SELECT {} FROM messages WHERE contact = ?1 AND seq < ?2 AND received_at >= ?3 ORDER BY seq DESC",
            super::database::MESSAGE_COLUMNS
        );
        let mut statement = self.connection.prepare(&sql).doing(doing)?;
        let since = seconds(filter.since.unwrap_or(WallTime(0)));
        let rows = statement
            .query_map(params![contact.0, before, since], to_message)
            .doing(doing)?;
        let mut found = Vec::new();
        for row in rows {
            if found.len() == limit {
                break;
            }
            let message = row.doing(doing)?;
            if contains(&message, wanted.as_deref()) {
                found.push(message);
            }
        }
        Ok(found)
    }
}

/// Whether another contact or address has the name.
fn is_taken(connection: &Connection, of: Named, name: &str) -> rusqlite::Result<bool> {
    let (key, address) = match of {
        Named::Contact(key) => (Some(key.0), None),
        Named::Address(address) => (None, Some(*address.key())),
    };
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM contacts WHERE name = ?1 AND key IS NOT ?2)
             OR EXISTS (SELECT 1 FROM names WHERE name = ?1 AND address IS NOT ?3)",
        params![name, key, address],
        |row| row.get(0),
    )
}

fn contains(message: &StoredMessage, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| {
        let text = message.body.exact();
        text.is_some_and(|text| text.to_lowercase().contains(wanted))
    })
}

/// What [`to_contact`] reads.
const CONTACT_SQL: &str = "
    SELECT key, name, inbox, address, pseudonym, is_initiator, is_stranger, is_blocked, verified, added_at,
        (SELECT count(*) FROM messages WHERE contact = key AND is_read = 0 AND is_own = 0)
    FROM contacts";

fn to_contact(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredContact> {
    let address = row.get::<_, Option<[u8; 32]>>(3)?;
    Ok(StoredContact {
        key: ContactKey(row.get(0)?),
        name: row.get(1)?,
        card: ContactCard {
            inbox: row.get(2)?,
            address: address.map(to_address).transpose()?,
            pseudonym: DhPublic(row.get(4)?),
            is_initiator: row.get(5)?,
            is_stranger: row.get(6)?,
            is_blocked: row.get(7)?,
        },
        verified: row.get(8)?,
        added_at: wall_time(row.get(9)?),
        unread: row.get::<_, i64>(10)?.unsigned_abs(),
    })
}

fn to_address(key: [u8; 32]) -> rusqlite::Result<InboxAddress> {
    InboxAddress::from_key(&key).map_err(|_| rusqlite::Error::InvalidQuery)
}

/// Stores a contact. One that is new, and whose address has a name, takes that.
pub(super) fn put(
    connection: &Connection,
    key: &ContactKey,
    card: &ContactCard,
    state: &[u8],
    now: WallTime,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "INSERT INTO contacts
                 (key, state, inbox, address, pseudonym, is_initiator, is_stranger, is_blocked, added_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (key) DO UPDATE SET state = excluded.state, inbox = excluded.inbox,
                 address = excluded.address, pseudonym = excluded.pseudonym, is_initiator = excluded.is_initiator,
                 is_stranger = excluded.is_stranger, is_blocked = excluded.is_blocked",
        )?
        .execute(params![
            key.0,
            state,
            card.inbox,
            card.address.as_ref().map(InboxAddress::key),
            card.pseudonym.0,
            card.is_initiator,
            card.is_stranger,
            card.is_blocked,
            seconds(now),
        ])?;
    let Some(address) = card.address.as_ref().filter(|_| card.is_initiator) else {
        return Ok(1);
    };
    let named = connection
        .prepare_cached(
            "UPDATE contacts SET name = (SELECT name FROM names WHERE address = ?2)
             WHERE key = ?1 AND name IS NULL AND EXISTS (SELECT 1 FROM names WHERE address = ?2)",
        )?
        .execute(params![key.0, address.key()])?;
    if named > 0 {
        connection.execute("DELETE FROM names WHERE address = ?1", [address.key()])?;
    }
    Ok(1)
}

/// Forgets a contact and its messages, but for the ids of those that came.
pub(super) fn remove(
    connection: &Connection,
    key: &ContactKey,
    now: WallTime,
) -> rusqlite::Result<usize> {
    connection.execute(
        "INSERT INTO deleted (inbox, id, deleted_at, contact)
         SELECT inbox, id, ?2, contact FROM messages WHERE contact = ?1 AND is_own = 0
         ON CONFLICT (inbox, id) DO UPDATE SET deleted_at = excluded.deleted_at",
        params![key.0, seconds(now)],
    )?;
    connection.execute("DELETE FROM messages WHERE contact = ?1", [key.0])?;
    connection.execute("DELETE FROM contacts WHERE key = ?1", [key.0])
}

/// Keeps a message that the user wrote in a conversation.
pub(super) fn put_written(
    connection: &Connection,
    contact: &ContactKey,
    id: &MessageId,
    body: &[u8],
    written_at: WallTime,
) -> rusqlite::Result<usize> {
    connection.execute(
        "INSERT INTO messages (inbox, id, body, received_at, is_read, contact, written_at, is_own)
         VALUES (coalesce((SELECT inbox FROM contacts WHERE key = ?1), ''), ?2, ?3, ?4, 1, ?1, ?4, 1)
         ON CONFLICT (inbox, id) DO NOTHING",
        params![contact.0, id.as_bytes(), body, seconds(written_at)],
    )
}

/// Notes what became of a message that the user wrote in a conversation.
pub(super) fn note_fate(
    connection: &Connection,
    last: &Notice,
    now: WallTime,
) -> rusqlite::Result<usize> {
    let of = |copies: &Copies, none| match copies {
        Copies::None => none,
        Copies::InDoubt => Fate::InDoubt,
        Copies::Held(_) => Fate::Held,
    };
    let (id, fate) = match last {
        Notice::Acknowledged(id) => {
            return connection.execute(
                "UPDATE messages SET acknowledged_at = ?2 WHERE id = ?1 AND is_own = 1 AND acknowledged_at IS NULL",
                params![id.as_bytes(), seconds(now)],
            );
        }
        Notice::Held { id, .. } => (id, Fate::Held),
        Notice::Expired { id, copies, .. } => (id, of(copies, Fate::Failed)),
        Notice::Cancelled(Cancelled { id, copies }) => (id, of(copies, Fate::Cancelled)),
        Notice::Failed { id, .. } => (id, Fate::Failed),
        _ => return Ok(0),
    };
    connection.execute(
        "UPDATE messages SET fate = ?2 WHERE id = ?1 AND is_own = 1",
        params![id.as_bytes(), fate.number()],
    )
}

impl Fate {
    const fn number(self) -> i64 {
        match self {
            Self::Held => 0,
            Self::InDoubt => 1,
            Self::Cancelled => 2,
            Self::Failed => 3,
        }
    }

    /// `None`: of a newer program.
    pub(super) const fn of_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Held),
            1 => Some(Self::InDoubt),
            2 => Some(Self::Cancelled),
            3 => Some(Self::Failed),
            _ => None,
        }
    }
}
