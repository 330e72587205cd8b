//! The formats that a relay's store has had, and the step that leads from each to the next.
//!
//! A step, once released, never changes: another is added. A new store takes all of them: a relay
//! makes one in its life, and is not waited for then, so the tables need no second description.
//! `relay/tests/fixtures` keeps directories of formats 1 and 4, which must open; a format gets one
//! when it is released.

/// From nothing to format 1, from 1 to 2, and so on.
pub(super) const STEPS: &[&str] = &[
    FORMAT_1, FORMAT_2, FORMAT_3, FORMAT_4, FORMAT_5, FORMAT_6, FORMAT_7, FORMAT_8, FORMAT_9,
];

/// The format this program writes. A store with a higher number was written by a newer program and
/// is left alone.
pub(super) const VERSION: u32 = 9;
const _: () = assert!(STEPS.len() == VERSION as usize, "a step for each format");

/// Bodies stand apart from the index of records, so that a start reads the index only.
const FORMAT_1: &str = "
    CREATE TABLE queues (
        queue      BLOB NOT NULL PRIMARY KEY,
        owner      BLOB NOT NULL,
        sender     BLOB NOT NULL,
        fetched_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE records (
        seq        INTEGER PRIMARY KEY,
        queue      BLOB NOT NULL,
        record     BLOB NOT NULL,
        len        INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE bodies (
        seq        INTEGER PRIMARY KEY,
        body       BLOB NOT NULL
    ) STRICT;
    CREATE TABLE removed (
        queue      BLOB NOT NULL,
        record     BLOB NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (queue, record)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE relays (
        relay      BLOB NOT NULL PRIMARY KEY,
        descriptor BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE inbox_descriptors (
        blinded    BLOB NOT NULL PRIMARY KEY,
        epoch      INTEGER NOT NULL,
        descriptor BLOB NOT NULL
    ) STRICT;
    CREATE TABLE onion_keys (
        created_at INTEGER NOT NULL,
        secret     BLOB NOT NULL
    ) STRICT;
";

/// Since when relays are known. Those of before are known for long: nobody wrote down since when.
const FORMAT_2: &str = "
    ALTER TABLE relays ADD COLUMN first_seen INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE relays ADD COLUMN setup_at INTEGER NOT NULL DEFAULT 0;
";

/// The state of this machine's clock: one row.
const FORMAT_3: &str = "
    CREATE TABLE clock (
        id    INTEGER PRIMARY KEY CHECK (id = 0),
        state BLOB NOT NULL
    ) STRICT;
";

/// Receipts of this relay's addresses.
const FORMAT_4: &str = "
    CREATE TABLE receipts (
        receipt BLOB NOT NULL PRIMARY KEY
    ) STRICT, WITHOUT ROWID;
";

/// How long this relay has been in others' views: one row.
const FORMAT_5: &str = "
    CREATE TABLE listed (
        id         INTEGER PRIMARY KEY CHECK (id = 0),
        since      INTEGER NOT NULL,
        until      INTEGER NOT NULL
    ) STRICT;
";

/// How issuers of receipts stand: one row.
const FORMAT_6: &str = "
    CREATE TABLE spot_checks (
        id      INTEGER PRIMARY KEY CHECK (id = 0),
        records BLOB NOT NULL
    ) STRICT;
";

/// The relays to reconcile with first, in order.
const FORMAT_7: &str = "
    CREATE TABLE anchors (
        place INTEGER PRIMARY KEY,
        relay BLOB NOT NULL
    ) STRICT;
";

/// Since when each relay's first address is known. Those of before have been there for long: nobody
/// wrote down since when.
const FORMAT_8: &str = "
    ALTER TABLE relays ADD COLUMN there_since INTEGER NOT NULL DEFAULT 0;
";

/// For whom each queue is, and what its owner asks of those who deposit. Those of before hold as much
/// as they did, and ask nothing.
const FORMAT_9: &str = "
    ALTER TABLE queues ADD COLUMN kind INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE queues ADD COLUMN effort INTEGER NOT NULL DEFAULT 0;
";
