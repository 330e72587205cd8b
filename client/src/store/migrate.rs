//! The formats that a profile's database has had, and the step that leads from each to the next.
//!
//! A step, once released, never changes: another is added. A new database takes [`SCHEMA`], which
//! is written out since steps that alter tables take longer than making them; a test sees to it
//! that both lead to the same. `client/tests/fixtures` keeps a profile of each released format,
//! which must open.

/// From nothing to format 1, from 1 to 2, and so on.
const STEPS: &[&str] = &[FORMAT_1, FORMAT_2, FORMAT_3, FORMAT_4];

/// The format this program writes. A database with a higher number was written by a newer program
/// and is left alone.
pub(super) const VERSION: u32 = 4;
const _: () = assert!(STEPS.len() == VERSION as usize, "a step for each format");

/// A new database.
pub(super) const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE relays (
        relay      BLOB PRIMARY KEY,
        descriptor BLOB NOT NULL,
        first_seen INTEGER NOT NULL DEFAULT 0,
        setup_at   INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
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
    CREATE TABLE deleted (
        inbox      TEXT NOT NULL,
        id         BLOB NOT NULL,
        deleted_at INTEGER NOT NULL,
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

/// The steps that bring a database of format `found` (0: an empty one) to [`VERSION`]; `None` if it
/// is newer.
pub(super) fn steps_from(found: u32) -> Option<&'static [&'static str]> {
    STEPS.get(usize::try_from(found).ok()?..)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// The tables of a database with their kinds and columns, and its indices with their columns.
    fn made_by<'a>(texts: impl IntoIterator<Item = &'a &'a str>) -> Vec<String> {
        let connection = Connection::open_in_memory().unwrap();
        texts
            .into_iter()
            .for_each(|text| connection.execute_batch(text).unwrap());
        let all = "
            SELECT 'table', name, wr, strict, NULL, NULL FROM pragma_table_list
            UNION ALL SELECT t.name, c.name, c.type, c.pk, c.\"notnull\", c.dflt_value
                FROM pragma_table_list t, pragma_table_xinfo(t.name) c
            UNION ALL SELECT t.name, i.name, i.\"unique\", i.partial, c.seqno, c.name
                FROM pragma_table_list t, pragma_index_list(t.name) i, pragma_index_info(i.name) c
            UNION ALL SELECT name, sql, NULL, NULL, NULL, NULL FROM sqlite_master WHERE type = 'index'
            UNION ALL SELECT name, sql LIKE '%AUTOINCREMENT%', sql LIKE '%CHECK (%', NULL, NULL, NULL FROM sqlite_master";
        let mut statement = connection.prepare(all).unwrap();
        let rows = statement.query_map([], |row| {
            let values: Result<Vec<_>, _> = (0..6)
                .map(|column| row.get::<_, rusqlite::types::Value>(column))
                .collect();
            Ok(format!("{:?}", values?))
        });
        let mut found: Vec<String> = rows.unwrap().map(Result::unwrap).collect();
        found.sort();
        found
    }

    #[test]
    fn a_new_database_is_the_same_as_one_that_was_brought_along() {
        let new = made_by(&[SCHEMA]);
        assert!(new.len() > 40, "{new:?}");
        assert_eq!(new, made_by(STEPS));
    }
}
