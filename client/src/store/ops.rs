//! What each op of the core does to the database.

use rusqlite::{Connection, params};
use umbel_proto::directory::BookOp;
use umbel_proto::ids::RelayId;
use umbel_proto::time::WallTime;
use umbel_relay::shell::Clock;

use super::database::{CLOCK, FIRST_CONTACT, GONE, LONE_SOURCE, PATHS, seconds};
use super::{contacts, meeting};
use crate::core::FIRST_CONTACT_ACCEPTED;
use crate::core::io::StoreOp;

/// Does an op, in a transaction of the caller's.
pub(super) fn execute(connection: &Connection, op: &StoreOp) -> rusqlite::Result<()> {
    let changed = match op {
        StoreOp::PutPaths(state) => put_meta(connection, PATHS, state),
        StoreOp::PutClock(state) => put_meta(connection, CLOCK, state),
        StoreOp::PutFirstContact(state) => put_first_contact(connection, state),
        StoreOp::PutLoneSource(source) => put_meta(connection, LONE_SOURCE, source),
        StoreOp::Book(BookOp::Put { relay, row }) => connection.execute(
            "INSERT OR REPLACE INTO relays (relay, descriptor, first_seen, setup_at, there_since) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                relay.as_bytes(),
                row.descriptor,
                seconds(row.age.first_seen),
                seconds(WallTime(row.age.belief.to_number())),
                seconds(row.age.there_since),
            ],
        ),
        StoreOp::Book(BookOp::PutWords { relay, words }) => put_words(connection, relay, words),
        StoreOp::Book(BookOp::Remove(relays)) => remove_relays(connection, relays),
        StoreOp::PutInbox { name, state } => connection.execute(
            "INSERT INTO inboxes (name, state) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET state = excluded.state",
            params![name, **state],
        ),
        StoreOp::PutOutbox { id, state } => connection.execute(
            "INSERT INTO outbox (id, state) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET state = excluded.state",
            params![id.as_bytes(), **state],
        ),
        StoreOp::RemoveOutbox { id, last } => connection
            .execute("DELETE FROM outbox WHERE id = ?1", params![id.as_bytes()])
            .and_then(|_| contacts::note_fate(connection, last, Clock::wall()))
            .and_then(|_| meeting::put_left(connection, last)),
        StoreOp::PutContact { key, card, state } => {
            contacts::put(connection, key, card, state, Clock::wall())
        }
        StoreOp::PutWritten {
            contact,
            id,
            body,
            written_at,
        } => contacts::put_written(connection, contact, id, body, *written_at),
        StoreOp::RemoveContact(key) => contacts::remove(connection, key, Clock::wall()),
        StoreOp::DropStranger(key) => {
            connection.execute("DELETE FROM contacts WHERE key = ?1", params![key.0])
        }
        StoreOp::PutGone(state) => put_meta(connection, GONE, state),
        // The transaction that these are in ends with the first that fails, and takes nothing.
        StoreOp::Together(ops) => return ops.iter().try_for_each(|op| execute(connection, op)),
        StoreOp::PutMessage {
            inbox,
            id,
            body,
            received_at,
            letter,
        } => connection.execute(
            "INSERT INTO messages (inbox, id, body, received_at, contact, number, session, written_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
             WHERE NOT EXISTS (SELECT 1 FROM deleted WHERE inbox = ?1 AND id = ?2)
             ON CONFLICT (inbox, id) DO NOTHING",
            params![
                inbox.as_deref().unwrap_or_default(),
                id.as_bytes(),
                body,
                seconds(*received_at),
                letter.map(|it| it.contact.0),
                letter.map(|it| it.number.cast_signed()),
                letter.map(|it| it.session),
                letter.map(|it| seconds(it.written_at)),
            ],
        ),
    };
    changed.map(|_rows| ())
}

fn put_words(connection: &Connection, relay: &RelayId, words: &[u8]) -> rusqlite::Result<usize> {
    if words.is_empty() {
        let sql = "DELETE FROM relay_words WHERE relay = ?1";
        return connection.prepare_cached(sql)?.execute([relay.as_bytes()]);
    }
    let sql = "INSERT OR REPLACE INTO relay_words (relay, words) VALUES (?1, ?2)";
    let mut put = connection.prepare_cached(sql)?;
    put.execute(params![relay.as_bytes(), words])
}

fn remove_relays(connection: &Connection, relays: &[RelayId]) -> rusqlite::Result<usize> {
    let mut remove = connection.prepare("DELETE FROM relays WHERE relay = ?1")?;
    let mut forget = connection.prepare("DELETE FROM relay_words WHERE relay = ?1")?;
    let mut changed = 0;
    for relay in relays {
        changed += remove.execute([relay.as_bytes()])?;
        changed += forget.execute([relay.as_bytes()])?;
    }
    Ok(changed)
}

/// What the user has accepted stays accepted, whatever a program that was running then finds.
fn put_first_contact(connection: &Connection, state: &[u8]) -> rusqlite::Result<usize> {
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value <> ?3",
        params![FIRST_CONTACT, state, [FIRST_CONTACT_ACCEPTED]],
    )
}

pub(super) fn put_meta(
    connection: &Connection,
    name: &str,
    value: &[u8],
) -> rusqlite::Result<usize> {
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![name, value],
    )
}
