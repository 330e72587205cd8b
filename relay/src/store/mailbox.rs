//! Queues and records on disk: the holder's operations, and the index that it starts from.

use rusqlite::{Connection, params};
use serde_bytes::ByteBuf;
use umbel_proto::crypto::sign::PublicKey;
use umbel_proto::ids::{QueueId, RecordId};
use umbel_proto::inbox::holder::{HolderDone, HolderOp, Outcome, QueueSnapshot, RecordEntry};
use umbel_proto::inbox::mailbox::{QueueKind, QueueTerms};
use umbel_proto::time::WallTime;

use super::{integer, whole};

/// Lets one op take effect inside the caller's transaction.
pub(super) fn apply(db: &Connection, op: &HolderOp) -> rusqlite::Result<HolderDone> {
    let outcome = match op {
        HolderOp::PutQueue {
            queue,
            terms,
            fetched_at,
            ..
        } => {
            put_queue(db, queue, terms, *fetched_at)?;
            Outcome::Done
        }
        HolderOp::PutRecord {
            queue,
            seq,
            record,
            expires_at,
            body,
            ..
        } => {
            put_record(
                db,
                queue,
                &RecordEntry {
                    seq: *seq,
                    record: *record,
                    len: body.len(),
                    expires_at: *expires_at,
                },
            )?;
            db.prepare_cached("INSERT INTO bodies (seq, body) VALUES (?1, ?2)")?
                .execute(params![integer(*seq), body.as_slice()])?;
            Outcome::Done
        }
        HolderOp::ReadRecords { seqs, .. } => read_records(db, seqs)?,
        HolderOp::RemoveRecords {
            queue,
            seqs,
            remember,
            forget,
            ..
        } => {
            remove_records(db, seqs)?;
            remember_removed(db, queue, remember)?;
            forget_removed(db, queue, forget)?;
            Outcome::Done
        }
        HolderOp::RemoveQueue { queue, seqs, .. } => {
            remove_records(db, seqs)?;
            db.prepare_cached("DELETE FROM removed WHERE queue = ?1")?
                .execute([queue.as_bytes()])?;
            db.prepare_cached("DELETE FROM queues WHERE queue = ?1")?
                .execute([queue.as_bytes()])?;
            Outcome::Done
        }
    };
    Ok(HolderDone {
        op: op.id(),
        outcome,
    })
}

fn put_queue(
    db: &Connection,
    queue: &QueueId,
    terms: &QueueTerms,
    fetched_at: WallTime,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO queues (queue, owner, sender, fetched_at, kind, effort)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    db.prepare_cached(sql)?.execute(params![
        queue.as_bytes(),
        terms.owner.0,
        terms.sender.0,
        integer(fetched_at.as_secs()),
        terms.kind.to_number(),
        terms.effort,
    ])?;
    Ok(())
}

fn put_record(db: &Connection, queue: &QueueId, entry: &RecordEntry) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO records (seq, queue, record, len, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.prepare_cached(sql)?.execute(params![
        integer(entry.seq),
        queue.as_bytes(),
        entry.record.as_bytes(),
        integer(entry.len as u64),
        integer(entry.expires_at.as_secs()),
    ])?;
    Ok(())
}

/// All of them, or [`Outcome::Failed`]: one that is not there can't be read by trying again.
fn read_records(db: &Connection, seqs: &[u64]) -> rusqlite::Result<Outcome> {
    let mut select = db.prepare_cached("SELECT body FROM bodies WHERE seq = ?1")?;
    let mut records = Vec::with_capacity(seqs.len());
    for &seq in seqs {
        match select.query_row([integer(seq)], |row| row.get::<_, Vec<u8>>(0)) {
            Ok(body) => records.push(ByteBuf::from(body)),
            Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(Outcome::Failed),
            Err(failed) => return Err(failed),
        }
    }
    Ok(Outcome::Records(records))
}

fn remove_records(db: &Connection, seqs: &[u64]) -> rusqlite::Result<()> {
    let mut records = db.prepare_cached("DELETE FROM records WHERE seq = ?1")?;
    let mut bodies = db.prepare_cached("DELETE FROM bodies WHERE seq = ?1")?;
    for &seq in seqs {
        records.execute([integer(seq)])?;
        bodies.execute([integer(seq)])?;
    }
    Ok(())
}

fn remember_removed(
    db: &Connection,
    queue: &QueueId,
    remember: &[(RecordId, WallTime)],
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO removed (queue, record, expires_at) VALUES (?1, ?2, ?3)";
    let mut insert = db.prepare_cached(sql)?;
    for (record, expires_at) in remember {
        insert.execute(params![
            queue.as_bytes(),
            record.as_bytes(),
            integer(expires_at.as_secs())
        ])?;
    }
    Ok(())
}

fn forget_removed(db: &Connection, queue: &QueueId, forget: &[RecordId]) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM removed WHERE queue = ?1 AND record = ?2")?;
    for record in forget {
        delete.execute(params![queue.as_bytes(), record.as_bytes()])?;
    }
    Ok(())
}

/// All queues, without bodies. Records whose queue is gone are removed first: a failed removal left
/// them.
pub(super) fn restore(db: &Connection) -> rusqlite::Result<Vec<QueueSnapshot>> {
    db.execute_batch(
        "BEGIN;
         DELETE FROM bodies WHERE seq IN (SELECT seq FROM records WHERE queue NOT IN (SELECT queue FROM queues));
         DELETE FROM records WHERE queue NOT IN (SELECT queue FROM queues);
         DELETE FROM removed WHERE queue NOT IN (SELECT queue FROM queues);
         COMMIT;",
    )?;
    let mut queues = restore_queues(db)?;
    let mut records =
        db.prepare("SELECT seq, queue, record, len, expires_at FROM records ORDER BY seq")?;
    let mut rows = records.query([])?;
    while let Some(row) = rows.next()? {
        let len = usize::try_from(whole(row, 3)?).unwrap_or(usize::MAX);
        let record = RecordId(row.get(2)?);
        let entry = RecordEntry {
            seq: whole(row, 0)?,
            record,
            len,
            expires_at: WallTime(whole(row, 4)?),
        };
        if let Some(queue) = find(&mut queues, &QueueId(row.get(1)?)) {
            if queue.records.is_empty() {
                queue.records.reserve_exact(1); // most have few
            }
            queue.records.push(entry);
        }
    }
    let mut removed = db.prepare("SELECT queue, record, expires_at FROM removed")?;
    let mut rows = removed.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(queue) = find(&mut queues, &QueueId(row.get(0)?)) {
            queue
                .removed
                .push((RecordId(row.get(1)?), WallTime(whole(row, 2)?)));
        }
    }
    Ok(queues)
}

fn find<'a>(queues: &'a mut [QueueSnapshot], id: &QueueId) -> Option<&'a mut QueueSnapshot> {
    let index = queues
        .binary_search_by(|snapshot| snapshot.queue.cmp(id))
        .ok()?;
    queues.get_mut(index)
}

/// By ascending id, which is the order that the table has.
fn restore_queues(db: &Connection) -> rusqlite::Result<Vec<QueueSnapshot>> {
    let mut select = db.prepare(
        "SELECT queue, owner, sender, fetched_at, kind, effort FROM queues ORDER BY queue",
    )?;
    let queues = select.query_map([], |row| {
        let queue = QueueId(row.get(0)?);
        let kind = QueueKind::from_number(row.get(4)?);
        let terms = QueueTerms {
            owner: PublicKey(row.get(1)?),
            sender: PublicKey(row.get(2)?),
            kind: kind.ok_or(rusqlite::Error::IntegralValueOutOfRange(4, 0))?,
            effort: row.get(5)?,
        };
        let fetched_at = WallTime(whole(row, 3)?);
        Ok(QueueSnapshot {
            queue,
            terms,
            fetched_at,
            records: Vec::new(),
            removed: Vec::new(),
        })
    })?;
    queues.collect()
}
