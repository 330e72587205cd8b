//! Kept messages: found by a prefix of their id or by their age, and deleted so that nothing of
//! them stays.
//!
//! A deleted message leaves its id behind for as long as the profile exists. A holder may replay a
//! record for as long as the inbox's key opens it; without the id the owner would get the message
//! again.

use rusqlite::{OptionalExtension, TransactionBehavior, params};
use umbel_proto::ids::MessageId;
use umbel_proto::time::WallTime;
use zeroize::Zeroizing;

use super::database::{Database, DatabaseError, Doing, StoredMessage, seconds};

/// Where a kept message is, and whether it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its place in the order of arrival in this profile.
    pub seq: i64,
    /// Whether it is marked read.
    pub is_read: bool,
}

impl Database {
    /// Kept messages whose id begins with these hexadecimal digits, oldest first. At most a page.
    pub(crate) fn messages_named(&self, digits: &str) -> Result<Vec<StoredMessage>, DatabaseError> {
        self.page(
            "is_own = 0 AND seq > ?1 AND substr(lower(hex(id)), 1, length(?2)) = lower(?2)",
            Some(digits),
            0,
        )
    }

    /// Kept messages that came before this time, oldest first; of one inbox, or of all.
    pub(crate) fn older(
        &self,
        before: WallTime,
        inbox: Option<&str>,
    ) -> Result<Vec<Place>, DatabaseError> {
        self.rows(
            "SELECT seq, is_read FROM messages
             WHERE is_own = 0 AND received_at < ?1 AND (?2 IS NULL OR inbox = ?2) ORDER BY seq",
            params![seconds(before), inbox],
            |row| {
                Ok(Place {
                    seq: row.get(0)?,
                    is_read: row.get(1)?,
                })
            },
        )
        .doing("look for old messages")
    }

    /// Deletes the messages at these places and keeps their ids. Returns how many messages there
    /// were.
    pub(crate) fn delete(&mut self, places: &[i64], now: WallTime) -> Result<usize, DatabaseError> {
        let doing = "delete messages";
        self.check_writable()?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .doing(doing)?;
        let mut deleted = 0;
        for seq in places {
            transaction
                .execute(
                    "INSERT INTO deleted (inbox, id, deleted_at, contact)
                     SELECT inbox, id, ?2, contact FROM messages WHERE seq = ?1
                     ON CONFLICT (inbox, id) DO UPDATE SET deleted_at = excluded.deleted_at",
                    params![seq, seconds(now)],
                )
                .doing(doing)?;
            deleted += transaction
                .execute("DELETE FROM messages WHERE seq = ?1", [seq])
                .doing(doing)?;
        }
        transaction.commit().doing(doing)?;
        Ok(deleted)
    }

    /// Empties the write-ahead log, which has a copy of what was last written and deleted. False
    /// when another process reads just now; the log is then emptied when the last one closes the
    /// profile.
    pub(crate) fn empty_log(&self) -> Result<bool, DatabaseError> {
        let busy: i64 = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .doing("empty the profile's log")?;
        Ok(busy == 0)
    }

    /// A message in the outbox, as stored.
    pub(crate) fn outbox_state(
        &self,
        id: MessageId,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, DatabaseError> {
        self.connection
            .query_row(
                "SELECT state FROM outbox WHERE id = ?1",
                params![id.as_bytes()],
                |row| row.get(0).map(Zeroizing::new),
            )
            .optional()
            .doing("read the outbox")
    }
}
