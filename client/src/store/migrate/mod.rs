//! The formats that a profile's database has had, and the step that leads from each to the next.
//!
//! A format is that of the tables and of the states in their rows, which are opaque to the rest of
//! the store: the core reads one format of each, today's. A step, once released, never changes:
//! another is added. All steps of an opening are one transaction.
//!
//! A new database takes [`SCHEMA`], which is written out since steps that alter tables take longer
//! than making them, and a user waits for a new profile; a test sees to it that both lead to the
//! same. `client/tests/fixtures` keeps profiles of formats 1 and 5, which must open; a format gets
//! one when it is released.

mod states;
#[cfg(test)]
mod tests;

use rusqlite::types::Value;
use rusqlite::{Connection, params};
use umbel_proto::time::{Duration, WallTime};
use zeroize::Zeroizing;

use states::State;

/// From nothing to format 1, from 1 to 2, and so on.
pub(super) const STEPS: &[Step] = &[
    Step::Tables(FORMAT_1),
    Step::Tables(FORMAT_2),
    Step::Tables(FORMAT_3),
    Step::Tables(FORMAT_4),
    Step::States(FORMAT_5),
    Step::States(FORMAT_6),
    Step::Tables(FORMAT_7),
    Step::Tables(FORMAT_8),
    Step::States(FORMAT_9),
    Step::States(FORMAT_10),
    Step::States(FORMAT_11),
    Step::States(FORMAT_12),
    Step::States(FORMAT_13),
    Step::Tables(FORMAT_14),
    Step::States(FORMAT_15),
    Step::States(FORMAT_16),
    Step::Both(FORMAT_17_TABLES, FORMAT_17_STATES),
];

/// The format this program writes. A database with a higher number was written by a newer program
/// and is left alone.
pub(super) const VERSION: u32 = 17;
const _: () = assert!(STEPS.len() == VERSION as usize, "a step for each format");

/// One step.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Changes the tables.
    Tables(&'static str),
    /// Rewrites the states in some rows.
    States(&'static [Rewrite]),
    /// Changes the tables, then rewrites the states in some rows.
    Both(&'static str, &'static [Rewrite]),
}

/// What old states don't say, and a step needs to know.
#[derive(Clone, Copy)]
pub(crate) struct StepContext {
    /// The time now.
    pub(crate) wall: WallTime,
    /// How long a message is tried in this profile's network.
    pub(crate) record_life: Duration,
}

/// Rows with one kind of state, and what becomes of each.
pub(super) struct Rewrite {
    /// The keys of the rows.
    keys: &'static str,
    /// The state of one row, by its key.
    read: &'static str,
    /// Replaces that.
    write: &'static str,
    /// The new state, unless the old one can't be read.
    upgrade: fn(&[u8], &StepContext) -> Option<State>,
}

/// A new database.
pub(super) const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE relays (
        relay       BLOB PRIMARY KEY,
        descriptor  BLOB NOT NULL,
        first_seen  INTEGER NOT NULL DEFAULT 0,
        setup_at    INTEGER NOT NULL DEFAULT 0,
        there_since INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE relay_words (relay BLOB PRIMARY KEY, words BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE inboxes (name TEXT PRIMARY KEY, state BLOB NOT NULL) STRICT;
    CREATE TABLE outbox (id BLOB PRIMARY KEY, state BLOB NOT NULL) STRICT;
    CREATE TABLE messages (
        seq         INTEGER PRIMARY KEY AUTOINCREMENT,
        inbox       TEXT NOT NULL,
        id          BLOB NOT NULL,
        body        BLOB NOT NULL,
        received_at INTEGER NOT NULL,
        is_read     INTEGER NOT NULL DEFAULT 0,
        contact     BLOB,
        number      INTEGER,
        session     INTEGER,
        written_at  INTEGER,
        is_own      INTEGER NOT NULL DEFAULT 0,
        acknowledged_at INTEGER,
        fate        INTEGER,
        UNIQUE (inbox, id)
    ) STRICT;
    CREATE INDEX messages_unread ON messages (seq) WHERE is_read = 0;
    CREATE INDEX messages_received ON messages (received_at);
    CREATE INDEX messages_contact ON messages (contact, seq) WHERE contact IS NOT NULL;
    CREATE TABLE deleted (
        inbox      TEXT NOT NULL,
        id         BLOB NOT NULL,
        deleted_at INTEGER NOT NULL,
        contact    BLOB,
        PRIMARY KEY (inbox, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE guests (id INTEGER PRIMARY KEY AUTOINCREMENT, beat INTEGER NOT NULL) STRICT;
    CREATE TABLE asks (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        guest    INTEGER NOT NULL,
        request  BLOB NOT NULL,
        is_begun INTEGER NOT NULL DEFAULT 0,
        answer   BLOB
    ) STRICT;
    CREATE INDEX asks_open ON asks (id) WHERE answer IS NULL;
    CREATE TABLE notices (seq INTEGER PRIMARY KEY AUTOINCREMENT, notice BLOB NOT NULL) STRICT;
    CREATE TABLE host (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL, beat INTEGER NOT NULL) STRICT;
    CREATE TABLE claims (seq INTEGER PRIMARY KEY, claimer INTEGER NOT NULL, until INTEGER NOT NULL) STRICT;
    CREATE TABLE left_outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, notice BLOB NOT NULL) STRICT;
    CREATE TABLE contacts (
        key          BLOB PRIMARY KEY,
        state        BLOB NOT NULL,
        name         TEXT UNIQUE,
        inbox        TEXT,
        address      BLOB,
        pseudonym    BLOB NOT NULL,
        is_initiator INTEGER NOT NULL,
        is_stranger  INTEGER NOT NULL,
        is_blocked   INTEGER NOT NULL,
        verified     TEXT,
        added_at     INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE names (name TEXT PRIMARY KEY, address BLOB NOT NULL UNIQUE) STRICT, WITHOUT ROWID;
";

const FORMAT_1: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE relays (relay BLOB PRIMARY KEY, descriptor BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE inboxes (name TEXT PRIMARY KEY, state BLOB NOT NULL) STRICT;
    CREATE TABLE outbox (id BLOB PRIMARY KEY, state BLOB NOT NULL) STRICT;
    CREATE TABLE messages (
        seq         INTEGER PRIMARY KEY AUTOINCREMENT,
        inbox       TEXT NOT NULL,
        id          BLOB NOT NULL,
        body        BLOB NOT NULL,
        received_at INTEGER NOT NULL,
        is_read     INTEGER NOT NULL DEFAULT 0,
        UNIQUE (inbox, id)
    ) STRICT;
    CREATE INDEX messages_unread ON messages (seq) WHERE is_read = 0;
    CREATE INDEX messages_received ON messages (received_at);
";

/// Where several processes meet.
const FORMAT_2: &str = "
    CREATE TABLE guests (id INTEGER PRIMARY KEY AUTOINCREMENT, beat INTEGER NOT NULL) STRICT;
    CREATE TABLE asks (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        guest    INTEGER NOT NULL,
        request  BLOB NOT NULL,
        is_begun INTEGER NOT NULL DEFAULT 0,
        answer   BLOB
    ) STRICT;
    CREATE INDEX asks_open ON asks (id) WHERE answer IS NULL;
    CREATE TABLE notices (seq INTEGER PRIMARY KEY AUTOINCREMENT, notice BLOB NOT NULL) STRICT;
    CREATE TABLE host (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL, beat INTEGER NOT NULL) STRICT;
    CREATE TABLE claims (seq INTEGER PRIMARY KEY, claimer INTEGER NOT NULL, until INTEGER NOT NULL) STRICT;
";

/// Since when relays are known. Those of before are known for long: nobody wrote down since when.
const FORMAT_3: &str = "
    ALTER TABLE relays ADD COLUMN first_seen INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE relays ADD COLUMN setup_at INTEGER NOT NULL DEFAULT 0;
";

/// Ids of messages that the user deleted, which must not come again.
const FORMAT_4: &str = "
    CREATE TABLE deleted (
        inbox      TEXT NOT NULL,
        id         BLOB NOT NULL,
        deleted_at INTEGER NOT NULL,
        PRIMARY KEY (inbox, id)
    ) STRICT, WITHOUT ROWID;
";

/// States of one format each. Programs before this one read older ones too, and upgraded a row when
/// they next wrote it, so a database of format 4 has a mixture.
const FORMAT_5: &[Rewrite] = &[
    Rewrite::inboxes(|old, _| states::inbox_3(old)),
    Rewrite::messages(states::message_3),
    Rewrite::paths(|old, _| states::paths_2(old)),
];

/// What each relay of the second layer made and refused.
const FORMAT_6: &[Rewrite] = &[Rewrite::paths(|old, _| states::paths_3(old))];

/// Since when each relay's first address is known. Those of before have been there for long: nobody
/// wrote down since when.
const FORMAT_7: &str = "
    ALTER TABLE relays ADD COLUMN there_since INTEGER NOT NULL DEFAULT 0;
";

/// What was said last of messages that left the outbox, for processes that wait for them.
const FORMAT_8: &str = "
    CREATE TABLE left_outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, notice BLOB NOT NULL) STRICT;
";

/// A revision and a time for each epoch's descriptor of an inbox.
const FORMAT_9: &[Rewrite] = &[Rewrite::inboxes(states::inbox_4)];

/// When an inbox is looked up by its owner.
const FORMAT_10: &[Rewrite] = &[Rewrite::inboxes(|old, _| states::inbox_5(old))];

/// Companions of an inbox's mailboxes.
const FORMAT_11: &[Rewrite] = &[Rewrite::inboxes(|old, _| states::inbox_6(old))];

/// Relays pinned in the middle's place.
const FORMAT_12: &[Rewrite] = &[Rewrite::paths(|old, _| states::paths_4(old))];

/// Whether a descriptor is half published.
const FORMAT_13: &[Rewrite] = &[Rewrite::inboxes(|old, _| states::inbox_7(old))];

/// What sources say of relays that are in doubt.
const FORMAT_14: &str = "
    CREATE TABLE relay_words (relay BLOB PRIMARY KEY, words BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

/// A seal key for each epoch of an inbox, and queues that are bound to their owners' keys.
const FORMAT_15: &[Rewrite] = &[Rewrite::inboxes(states::inbox_8)];

/// To which key each copy of a message on its way out is sealed.
const FORMAT_16: &[Rewrite] = &[Rewrite::messages(|old, _| states::message_4(old))];

/// Contacts, the messages of their conversations, and names for addresses that were not written to.
const FORMAT_17_TABLES: &str = "
    CREATE TABLE contacts (
        key          BLOB PRIMARY KEY,
        state        BLOB NOT NULL,
        name         TEXT UNIQUE,
        inbox        TEXT,
        address      BLOB,
        pseudonym    BLOB NOT NULL,
        is_initiator INTEGER NOT NULL,
        is_stranger  INTEGER NOT NULL,
        is_blocked   INTEGER NOT NULL,
        verified     TEXT,
        added_at     INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE names (name TEXT PRIMARY KEY, address BLOB NOT NULL UNIQUE) STRICT, WITHOUT ROWID;
    ALTER TABLE messages ADD COLUMN contact BLOB;
    ALTER TABLE messages ADD COLUMN number INTEGER;
    ALTER TABLE messages ADD COLUMN session INTEGER;
    ALTER TABLE messages ADD COLUMN written_at INTEGER;
    ALTER TABLE messages ADD COLUMN is_own INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN acknowledged_at INTEGER;
    ALTER TABLE messages ADD COLUMN fate INTEGER;
    CREATE INDEX messages_contact ON messages (contact, seq) WHERE contact IS NOT NULL;
    ALTER TABLE deleted ADD COLUMN contact BLOB;
";

/// To whom a message on its way out goes: until now to an address, without a way back. And what an
/// inbox asks of strangers.
const FORMAT_17_STATES: &[Rewrite] = &[
    Rewrite::messages(|old, _| states::message_5(old)),
    Rewrite::inboxes(|old, _| states::inbox_9(old)),
];

impl Step {
    /// Takes this step, in a transaction of the caller's.
    pub(super) fn take(
        self,
        connection: &Connection,
        context: &StepContext,
    ) -> rusqlite::Result<()> {
        match self {
            Self::Tables(sql) => connection.execute_batch(sql),
            Self::States(rewrites) => rewrites
                .iter()
                .try_for_each(|rewrite| rewrite.run(connection, context)),
            Self::Both(sql, rewrites) => {
                Self::Tables(sql).take(connection, context)?;
                Self::States(rewrites).take(connection, context)
            }
        }
    }
}

impl Rewrite {
    /// All inboxes.
    const fn inboxes(upgrade: fn(&[u8], &StepContext) -> Option<State>) -> Self {
        Self {
            keys: "SELECT rowid FROM inboxes",
            read: "SELECT state FROM inboxes WHERE rowid = ?1",
            write: "UPDATE inboxes SET state = ?2 WHERE rowid = ?1",
            upgrade,
        }
    }

    /// All messages on their way out.
    const fn messages(upgrade: fn(&[u8], &StepContext) -> Option<State>) -> Self {
        Self {
            keys: "SELECT rowid FROM outbox",
            read: "SELECT state FROM outbox WHERE rowid = ?1",
            write: "UPDATE outbox SET state = ?2 WHERE rowid = ?1",
            upgrade,
        }
    }

    /// The paths.
    const fn paths(upgrade: fn(&[u8], &StepContext) -> Option<State>) -> Self {
        Self {
            keys: "SELECT name FROM meta WHERE name = 'paths'",
            read: "SELECT value FROM meta WHERE name = ?1",
            write: "UPDATE meta SET value = ?2 WHERE name = ?1",
            upgrade,
        }
    }

    /// One row at a time: an outbox may hold many megabytes. A state that can't be read stays as it
    /// is, for the core to refuse by the name of its row.
    fn run(&self, connection: &Connection, context: &StepContext) -> rusqlite::Result<()> {
        let mut keys = connection.prepare(self.keys)?;
        let keys: Vec<Value> = keys
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut read = connection.prepare(self.read)?;
        let mut write = connection.prepare(self.write)?;
        for key in keys {
            let old = Zeroizing::new(read.query_row([&key], |row| row.get::<_, Vec<u8>>(0))?);
            if let Some(new) = (self.upgrade)(&old, context) {
                write.execute(params![key, *new])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl StepContext {
    pub(super) const fn for_test() -> Self {
        Self {
            wall: WallTime(1000),
            record_life: Duration::from_secs(200),
        }
    }
}
