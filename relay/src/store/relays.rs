//! Descriptors, receipts, onion keys, anchors, spot checks and the clock on disk: opaque bytes,
//! checked again by the relay that starts from them; and since when others list this relay.

use rusqlite::{Connection, OptionalExtension, params};
use umbel_proto::directory::{Age, Belief, BookRow};
use umbel_proto::ids::{BlindedKey, RelayId};
use umbel_proto::time::{Epoch, WallTime};
use zeroize::Zeroizing;

use super::{integer, whole};
use crate::control::io::{Listed, StoredOnionKey};

pub(super) fn put_relay(db: &Connection, relay: &RelayId, row: &BookRow) -> rusqlite::Result<()> {
    let Age {
        first_seen,
        belief,
        there_since,
    } = row.age;
    let sql = "INSERT OR REPLACE INTO relays (relay, descriptor, first_seen, setup_at, there_since) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.prepare_cached(sql)?.execute(params![
        relay.as_bytes(),
        row.descriptor,
        integer(first_seen.as_secs()),
        integer(belief.to_number()),
        integer(there_since.as_secs())
    ])?;
    Ok(())
}

pub(super) fn remove_relays(db: &Connection, relays: &[RelayId]) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM relays WHERE relay = ?1")?;
    for relay in relays {
        delete.execute([relay.as_bytes()])?;
    }
    Ok(())
}

pub(super) fn put_inbox_descriptor(
    db: &Connection,
    blinded: &BlindedKey,
    epoch: Epoch,
    descriptor: &[u8],
) -> rusqlite::Result<()> {
    let sql =
        "INSERT OR REPLACE INTO inbox_descriptors (blinded, epoch, descriptor) VALUES (?1, ?2, ?3)";
    db.prepare_cached(sql)?
        .execute(params![blinded.as_bytes(), integer(epoch.0), descriptor])?;
    Ok(())
}

pub(super) fn remove_inbox_descriptors_before(
    db: &Connection,
    epoch: Epoch,
) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM inbox_descriptors WHERE epoch < ?1")?
        .execute([integer(epoch.0)])?;
    Ok(())
}

pub(super) fn remove_inbox_descriptors_after(
    db: &Connection,
    epoch: Epoch,
) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM inbox_descriptors WHERE epoch > ?1")?
        .execute([integer(epoch.0)])?;
    Ok(())
}

pub(super) fn put_onion_keys(db: &Connection, keys: &[StoredOnionKey]) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM onion_keys")?.execute([])?;
    let mut insert =
        db.prepare_cached("INSERT INTO onion_keys (created_at, secret) VALUES (?1, ?2)")?;
    for key in keys {
        insert.execute(params![
            integer(key.created_at.as_secs()),
            key.secret.as_slice()
        ])?;
    }
    Ok(())
}

pub(super) fn put_clock(db: &Connection, state: &[u8]) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO clock (id, state) VALUES (0, ?1)")?
        .execute([state])?;
    Ok(())
}

/// The state of this machine's clock.
pub(super) fn restore_clock(db: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    db.query_row("SELECT state FROM clock", [], |row| row.get(0))
        .optional()
}

pub(super) fn put_receipts(db: &Connection, receipts: &[Vec<u8>]) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM receipts")?.execute([])?;
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO receipts (receipt) VALUES (?1)")?;
    for receipt in receipts {
        insert.execute([receipt])?;
    }
    Ok(())
}

/// Receipts of this relay's addresses.
pub(super) fn restore_receipts(db: &Connection) -> rusqlite::Result<Vec<Vec<u8>>> {
    db.prepare("SELECT receipt FROM receipts")?
        .query_map([], |row| row.get(0))?
        .collect()
}

pub(super) fn put_listed(db: &Connection, listed: Listed) -> rusqlite::Result<()> {
    let Listed { since, until } = listed;
    db.prepare_cached("INSERT OR REPLACE INTO listed (id, since, until) VALUES (0, ?1, ?2)")?
        .execute([integer(since.as_secs()), integer(until.as_secs())])?;
    Ok(())
}

/// Since when others list this relay.
pub(super) fn restore_listed(db: &Connection) -> rusqlite::Result<Option<Listed>> {
    let to_listed = |row: &rusqlite::Row<'_>| {
        Ok(Listed {
            since: WallTime(whole(row, 0)?),
            until: WallTime(whole(row, 1)?),
        })
    };
    db.query_row("SELECT since, until FROM listed", [], to_listed)
        .optional()
}

pub(super) fn put_spot_checks(db: &Connection, records: &[u8]) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO spot_checks (id, records) VALUES (0, ?1)")?
        .execute([records])?;
    Ok(())
}

/// How issuers of receipts stand.
pub(super) fn restore_spot_checks(db: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    db.query_row("SELECT records FROM spot_checks", [], |row| row.get(0))
        .optional()
}

pub(super) fn put_anchors(db: &Connection, anchors: &[RelayId]) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM anchors")?.execute([])?;
    let mut insert = db.prepare_cached("INSERT INTO anchors (relay) VALUES (?1)")?;
    for anchor in anchors {
        insert.execute([anchor.as_bytes()])?;
    }
    Ok(())
}

/// The relays to reconcile with first, in order.
pub(super) fn restore_anchors(db: &Connection) -> rusqlite::Result<Vec<RelayId>> {
    db.prepare("SELECT relay FROM anchors ORDER BY place")?
        .query_map([], |row| row.get(0).map(RelayId))?
        .collect()
}

/// Onion keys, newest first.
pub(super) fn restore_onion_keys(db: &Connection) -> rusqlite::Result<Vec<StoredOnionKey>> {
    let mut select =
        db.prepare("SELECT created_at, secret FROM onion_keys ORDER BY created_at DESC, rowid")?;
    let keys = select.query_map([], |row| {
        Ok(StoredOnionKey {
            created_at: WallTime(whole(row, 0)?),
            secret: Zeroizing::new(row.get(1)?),
        })
    })?;
    keys.collect()
}

/// The stored book of relays.
pub(super) fn restore_relays(db: &Connection) -> rusqlite::Result<Vec<BookRow>> {
    let mut select =
        db.prepare("SELECT descriptor, first_seen, setup_at, there_since FROM relays")?;
    let rows = select.query_map([], |row| {
        let age = Age {
            first_seen: WallTime(whole(row, 1)?),
            belief: Belief::from_number(whole(row, 2)?),
            there_since: WallTime(whole(row, 3)?),
        };
        Ok(BookRow {
            descriptor: row.get(0)?,
            age,
        })
    })?;
    rows.collect()
}

/// Inbox descriptors' bytes.
pub(super) fn restore_inbox_descriptors(db: &Connection) -> rusqlite::Result<Vec<Vec<u8>>> {
    db.prepare("SELECT descriptor FROM inbox_descriptors")?
        .query_map([], |row| row.get(0))?
        .collect()
}
