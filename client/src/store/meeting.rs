//! Where the processes of one profile meet: tables in its database.
//!
//! One process drives the core; the others are its guests. A guest writes its requests into `asks`
//! and finds the answers there. The host, beside the driver, appends notices to `notices` while
//! there are guests. `beat` goes up as long as a process is alive, since the calendar can't be
//! trusted with that. Claims do end by the calendar, since all processes of a machine share it; a
//! claim that a wrong clock set far ahead does not bind. Only a message that a guest sends has to
//! outlive a power cut, so only that waits for the disk.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use umbel_proto::ids::MessageId;
use zeroize::Zeroizing;

use super::database::{Database, DatabaseError, Doing};
use crate::core::io::Notice;
use crate::meeting::ask::{decode, encode};

/// Notices kept for guests that are behind; a guest that missed some gets a notice of that.
const NOTICES_MAX: i64 = 1024;
/// Messages that left the outbox, of which guests are told what was said last: no fewer than can
/// leave while one looks.
const LEFT_MAX: i64 = 10_000;
/// Most guests: those that were killed are forgotten by a driver, which may be stopped for long.
const GUESTS_MAX: i64 = 256;
/// Most asks or notices read at once.
const PAGE_MAX: u32 = 256;
/// The operations' names, for errors.
const DOING: &str = "talk with the other umbel of this profile";

/// Names a guest; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GuestId(pub(crate) i64);

/// Names what a guest asks; never reused, and in the order asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AskId(pub(crate) i64);

/// Which process shows an unread message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// This process.
    Ours,
    /// Another process, which is at it.
    Theirs,
    /// Nobody: it is read, or gone.
    Read,
}

/// A sign of life of the profile's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostBeat {
    /// Drawn at random by each driver.
    pub(crate) generation: i64,
    beat: i64,
}

/// A guest's starting point.
pub(crate) struct Entered {
    pub(crate) guest: GuestId,
    /// The last notice before it came.
    pub(crate) seq: i64,
    /// The last sign of life; it may be that of a driver long gone.
    pub(crate) host: Option<HostBeat>,
}

/// The findings of a guest's look.
pub(crate) struct Heard {
    /// Whether the host still knows the guest.
    pub(crate) is_known: bool,
    pub(crate) host: Option<HostBeat>,
    pub(crate) answers: Vec<(AskId, Vec<u8>)>,
    pub(crate) notices: Vec<Vec<u8>>,
    /// Whether notices before these are gone.
    pub(crate) has_gap: bool,
    /// The last notice heard.
    pub(crate) seq: i64,
}

/// Something that a guest asks.
pub(crate) struct Asked {
    pub(crate) id: AskId,
    pub(crate) guest: GuestId,
    pub(crate) request: Vec<u8>,
    /// Another driver began with it, and may have done it.
    pub(crate) is_begun: bool,
}

/// The findings of a host's look.
pub(crate) struct Attended {
    /// Each guest, and its beat.
    pub(crate) guests: Vec<(GuestId, i64)>,
    pub(crate) asks: Vec<Asked>,
}

/// A host's writes.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) begun: Vec<AskId>,
    pub(crate) answers: Vec<(AskId, Vec<u8>)>,
    pub(crate) notices: Vec<Vec<u8>>,
    /// Guests that gave no sign of life for long.
    pub(crate) gone: Vec<GuestId>,
}

impl Said {
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            begun,
            answers,
            notices,
            gone,
        } = self;
        begun.is_empty() && answers.is_empty() && notices.is_empty() && gone.is_empty()
    }
}

impl Database {
    /// Changes whenever another process wrote to the profile.
    pub(crate) fn data_version(&self) -> Result<i64, DatabaseError> {
        self.connection
            .query_row("PRAGMA data_version", [], |row| row.get(0))
            .doing(DOING)
    }

    /// Registers a guest. When there are too many, the oldest is forgotten: one that is alive
    /// registers anew, and what one that was killed sent is in the outbox.
    pub(crate) fn enter(&mut self) -> Result<Entered, DatabaseError> {
        self.unsynced(|transaction| {
            transaction.execute("INSERT INTO guests (beat) VALUES (0)", [])?;
            let guest = GuestId(transaction.last_insert_rowid());
            surplus_guests(transaction)?
                .into_iter()
                .try_for_each(|guest| forget(transaction, guest))?;
            Ok(Entered {
                guest,
                seq: last_seq(transaction)?,
                host: host_beat(transaction)?,
            })
        })
    }

    /// A sign of life of a guest, which has heard all answers before the one to this ask, or, with
    /// `None`, all.
    pub(crate) fn beat(
        &mut self,
        guest: GuestId,
        next: Option<AskId>,
    ) -> Result<(), DatabaseError> {
        let next = next.map_or(i64::MAX, |ask| ask.0);
        self.unsynced(|transaction| {
            let heard = "DELETE FROM asks WHERE guest = ?1 AND answer IS NOT NULL AND id < ?2";
            transaction.execute(heard, [guest.0, next])?;
            transaction
                .execute("UPDATE guests SET beat = beat + 1 WHERE id = ?1", [guest.0])
                .map(|_| ())
        })
    }

    /// Forgets a guest and what it asked.
    pub(crate) fn leave(&mut self, guest: GuestId) -> Result<(), DatabaseError> {
        self.unsynced(|transaction| forget(transaction, guest))
    }

    /// Forgets all guests and what they asked: none is alive. Writes nothing if there were none.
    pub(crate) fn forget_guests(&mut self) -> Result<(), DatabaseError> {
        let is_any = "SELECT EXISTS (SELECT 1 FROM guests) OR EXISTS (SELECT 1 FROM asks)";
        if !self
            .connection
            .query_row(is_any, [], |row| row.get(0))
            .doing(DOING)?
        {
            return Ok(());
        }
        self.unsynced(|transaction| {
            transaction.execute_batch(
                "DELETE FROM asks; DELETE FROM guests; DELETE FROM notices; DELETE FROM left_outbox;",
            )
        })
    }

    /// Asks the host for something.
    pub(crate) fn ask(&mut self, guest: GuestId, request: &[u8]) -> Result<AskId, DatabaseError> {
        self.unsynced(|transaction| put_ask(transaction, guest, request))
    }

    /// Puts a message into the outbox and asks the host to take care of it; both are durable then.
    /// `None` if it has no room there, which is asked with the first `head_len` bytes of what is
    /// stored of each message.
    pub(crate) fn ask_with_message(
        &mut self,
        guest: GuestId,
        request: &[u8],
        id: MessageId,
        state: &[u8],
        head_len: usize,
        has_room: impl FnOnce(&[Vec<u8>]) -> bool,
    ) -> Result<Option<AskId>, DatabaseError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .doing(DOING)?;
        if !has_room(&outbox_heads(&transaction, head_len).doing(DOING)?) {
            return Ok(None);
        }
        transaction
            .execute(
                "INSERT INTO outbox (id, state) VALUES (?1, ?2)",
                params![id.as_bytes(), state],
            )
            .doing("write the profile")?;
        let ask = put_ask(&transaction, guest, request).doing("write the profile")?;
        transaction.commit().doing("write the profile")?;
        Ok(Some(ask))
    }

    /// A message in the outbox; `None` if it is gone.
    pub(crate) fn outgoing(
        &self,
        id: MessageId,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, DatabaseError> {
        let state = self.connection.query_row(
            "SELECT state FROM outbox WHERE id = ?1",
            [id.as_bytes()],
            |row| row.get(0).map(Zeroizing::new),
        );
        state.optional().doing("read the outbox")
    }

    /// What was said last of each message that left the outbox while there were guests, oldest
    /// first; nothing of what another release said.
    pub(crate) fn left(&self) -> Result<Vec<Notice>, DatabaseError> {
        let said: Vec<Vec<u8>> = self
            .rows("SELECT notice FROM left_outbox ORDER BY seq", [], |row| {
                row.get(0)
            })
            .doing("read the outbox")?;
        Ok(said.iter().filter_map(|bytes| decode(bytes)).collect())
    }

    /// Whether there is an inbox of this name.
    pub(crate) fn has_inbox(&self, name: &str) -> Result<bool, DatabaseError> {
        let found =
            self.connection
                .query_row("SELECT 1 FROM inboxes WHERE name = ?1", [name], |_| Ok(()));
        found
            .optional()
            .map(|found| found.is_some())
            .doing("read the profile")
    }

    /// Notices that a guest has not heard yet.
    pub(crate) fn hear(&mut self, guest: GuestId, seq: i64) -> Result<Heard, DatabaseError> {
        let transaction = self.connection.transaction().doing(DOING)?;
        let heard = hear(&transaction, guest, seq).doing(DOING)?;
        drop(transaction);
        Ok(heard)
    }

    /// Unanswered asks of guests, after this ask.
    pub(crate) fn attend(&mut self, after: AskId) -> Result<Attended, DatabaseError> {
        let transaction = self.connection.transaction().doing(DOING)?;
        attend(&transaction, after).doing(DOING)
    }

    /// Says what the host has to say, with a sign of life.
    pub(crate) fn say(&mut self, generation: i64, said: &Said) -> Result<(), DatabaseError> {
        self.unsynced(|transaction| say(transaction, generation, said))
    }

    /// Takes a message to be shown: no other process takes it until `until`.
    pub(crate) fn claim(
        &mut self,
        seq: i64,
        claimer: i64,
        now: i64,
        until: i64,
    ) -> Result<Claim, DatabaseError> {
        self.unsynced(|transaction| {
            let is_unread = "SELECT 1 FROM messages WHERE seq = ?1 AND is_read = 0";
            if transaction.query_row(is_unread, [seq], |_| Ok(())).optional()?.is_none() {
                return Ok(Claim::Read);
            }
            // One that lies far ahead was made by a clock that was wrong.
            transaction.execute("DELETE FROM claims WHERE until <= ?1 OR until > ?2", [now, until])?;
            let changed = transaction.execute(
                "INSERT INTO claims (seq, claimer, until) VALUES (?1, ?2, ?3)
                 ON CONFLICT (seq) DO UPDATE SET until = excluded.until WHERE claimer = excluded.claimer",
                [seq, claimer, until],
            )?;
            Ok(if changed > 0 { Claim::Ours } else { Claim::Theirs })
        })
    }

    /// Gives back a message that was not marked read: the next process may show it at once.
    pub(crate) fn release(&mut self, seq: i64, claimer: i64) -> Result<(), DatabaseError> {
        self.unsynced(|transaction| {
            transaction
                .execute(
                    "DELETE FROM claims WHERE seq = ?1 AND claimer = ?2",
                    [seq, claimer],
                )
                .map(|_| ())
        })
    }

    /// Does these changes in one transaction that need not outlive a power cut.
    fn unsynced<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        self.connection
            .execute_batch("PRAGMA synchronous = NORMAL")
            .doing(DOING)?;
        let result = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                let value = change(&transaction)?;
                transaction.commit().map(|()| value)
            })
            .doing(DOING);
        self.connection
            .execute_batch("PRAGMA synchronous = FULL")
            .doing(DOING)?;
        result
    }
}

fn put_ask(connection: &Connection, guest: GuestId, request: &[u8]) -> rusqlite::Result<AskId> {
    connection.execute(
        "INSERT INTO asks (guest, request) VALUES (?1, ?2)",
        params![guest.0, request],
    )?;
    Ok(AskId(connection.last_insert_rowid()))
}

fn outbox_heads(connection: &Connection, head_len: usize) -> rusqlite::Result<Vec<Vec<u8>>> {
    let mut statement = connection.prepare_cached("SELECT substr(state, 1, ?1) FROM outbox")?;
    let heads = statement.query_map([i64::try_from(head_len).unwrap_or(i64::MAX)], |row| {
        row.get(0)
    })?;
    heads.collect()
}

fn last_seq(connection: &Connection) -> rusqlite::Result<i64> {
    let seq = connection.query_row(
        "SELECT seq FROM sqlite_sequence WHERE name = 'notices'",
        [],
        |row| row.get(0),
    );
    seq.optional().map(Option::unwrap_or_default)
}

fn host_beat(connection: &Connection) -> rusqlite::Result<Option<HostBeat>> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(HostBeat {
            generation: row.get(0)?,
            beat: row.get(1)?,
        })
    };
    connection
        .query_row("SELECT generation, beat FROM host", [], read)
        .optional()
}

fn hear(connection: &Connection, guest: GuestId, seq: i64) -> rusqlite::Result<Heard> {
    let known = connection
        .query_row("SELECT 1 FROM guests WHERE id = ?1", [guest.0], |_| Ok(()))
        .optional()?;
    let answers = connection
        .prepare_cached(
            "SELECT id, answer FROM asks WHERE guest = ?1 AND answer IS NOT NULL ORDER BY id",
        )?
        .query_map([guest.0], |row| Ok((AskId(row.get(0)?), row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let notices: Vec<(i64, Vec<u8>)> = connection
        .prepare_cached("SELECT seq, notice FROM notices WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
        .query_map(params![seq, PAGE_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let (first, last) = (
        notices.first().map(|(seq, _)| *seq),
        notices.last().map(|(seq, _)| *seq),
    );
    Ok(Heard {
        is_known: known.is_some(),
        host: host_beat(connection)?,
        answers,
        has_gap: first.is_some_and(|first| first > seq + 1),
        notices: notices.into_iter().map(|(_, notice)| notice).collect(),
        seq: last.unwrap_or(seq),
    })
}

fn attend(connection: &Connection, after: AskId) -> rusqlite::Result<Attended> {
    let guests = connection
        .prepare_cached("SELECT id, beat FROM guests")?
        .query_map([], |row| Ok((GuestId(row.get(0)?), row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let asks = connection
        .prepare_cached(
            "SELECT id, guest, request, is_begun FROM asks WHERE id > ?1 AND answer IS NULL ORDER BY id LIMIT ?2",
        )?
        .query_map(params![after.0, PAGE_MAX], |row| {
            Ok(Asked {
                id: AskId(row.get(0)?),
                guest: GuestId(row.get(1)?),
                request: row.get(2)?,
                is_begun: row.get::<_, i64>(3)? != 0,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Attended { guests, asks })
}

fn say(transaction: &Transaction<'_>, generation: i64, said: &Said) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO host (one, generation, beat) VALUES (1, ?1, 0)
         ON CONFLICT (one) DO UPDATE SET generation = excluded.generation, beat = beat + 1",
        [generation],
    )?;
    for ask in &said.begun {
        transaction.execute("UPDATE asks SET is_begun = 1 WHERE id = ?1", [ask.0])?;
    }
    for (ask, answer) in &said.answers {
        transaction.execute(
            "UPDATE asks SET answer = ?2 WHERE id = ?1",
            params![ask.0, answer],
        )?;
    }
    for notice in &said.notices {
        transaction.execute("INSERT INTO notices (notice) VALUES (?1)", [notice])?;
    }
    if !said.notices.is_empty() {
        let keep_after = last_seq(transaction)? - NOTICES_MAX;
        transaction.execute("DELETE FROM notices WHERE seq <= ?1", [keep_after])?;
    }
    said.gone
        .iter()
        .try_for_each(|&guest| forget(transaction, guest))
}

fn surplus_guests(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<GuestId>> {
    let mut statement =
        transaction.prepare_cached("SELECT id FROM guests ORDER BY id DESC LIMIT -1 OFFSET ?1")?;
    statement
        .query_map([GUESTS_MAX], |row| row.get(0).map(GuestId))?
        .collect()
}

fn forget(transaction: &Transaction<'_>, guest: GuestId) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM asks WHERE guest = ?1", [guest.0])?;
    transaction.execute("DELETE FROM guests WHERE id = ?1", [guest.0])?;
    // Nobody is left to hear them.
    for table in ["notices", "left_outbox"] {
        let unheard = format!("DELETE FROM {table} WHERE NOT EXISTS (SELECT 1 FROM guests)");
        transaction.execute(&unheard, [])?;
    }
    Ok(())
}

/// Keeps what was said last of a message that leaves the outbox, while there are guests: the driver
/// may end before a guest hears of it, and so may the next.
pub(super) fn put_left(connection: &Connection, last: &Notice) -> rusqlite::Result<usize> {
    let added = connection.execute(
        "INSERT INTO left_outbox (notice) SELECT ?1 WHERE EXISTS (SELECT 1 FROM guests)",
        [encode(last)],
    )?;
    if added > 0 {
        let keep_after = connection.last_insert_rowid() - LEFT_MAX;
        connection.execute("DELETE FROM left_outbox WHERE seq <= ?1", [keep_after])?;
    }
    Ok(added)
}

#[cfg(test)]
impl Database {
    /// As a process does that is stopped while it writes: nobody else can until this is dropped.
    pub(crate) fn hold(&self) {
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::super::key::DatabaseKey;
    use super::super::migrate::StepContext;
    use super::*;

    fn two(dir: &TempDir) -> (Database, Database) {
        let path = dir.path().join("db");
        let key = DatabaseKey::generate(&mut rand::rng());
        std::fs::write(&path, b"").unwrap();
        Database::create(&path, &key).unwrap();
        let open = |path: &Path| Database::open(path, &key, &StepContext::for_test()).unwrap();
        (open(&path), open(&path))
    }

    fn notices(count: usize) -> Said {
        Said {
            notices: vec![vec![7]; count],
            ..Said::default()
        }
    }

    #[test]
    fn an_answer_and_later_notices_reach_a_guest() {
        let dir = TempDir::new().unwrap();
        let (mut host, mut guest) = two(&dir);
        let before = guest.enter().unwrap();
        host.say(1, &notices(2)).unwrap();
        let Entered { guest: id, seq, .. } = guest.enter().unwrap();
        let ask = guest.ask(id, b"what").unwrap();
        let found = host.attend(AskId(0)).unwrap();
        assert_eq!(found.guests.len(), 2);
        assert_eq!(
            (
                found.asks[0].id,
                found.asks[0].request.as_slice(),
                found.asks[0].is_begun
            ),
            (ask, &b"what"[..], false)
        );
        host.say(
            1,
            &Said {
                begun: vec![ask],
                ..notices(1)
            },
        )
        .unwrap();
        assert!(host.attend(AskId(0)).unwrap().asks[0].is_begun);
        host.say(
            1,
            &Said {
                answers: vec![(ask, b"that".to_vec())],
                ..Said::default()
            },
        )
        .unwrap();
        let heard = guest.hear(id, seq).unwrap();
        assert!(
            heard.is_known && !heard.has_gap && heard.host.is_some_and(|beat| beat.generation == 1)
        );
        assert_eq!(
            (heard.answers, heard.notices.len()),
            (vec![(ask, b"that".to_vec())], 1)
        );
        assert!(host.attend(AskId(0)).unwrap().asks.is_empty());
        guest.beat(id, None).unwrap();
        assert!(guest.hear(id, heard.seq).unwrap().answers.is_empty());
        host.say(
            1,
            &Said {
                gone: vec![id, before.guest],
                ..Said::default()
            },
        )
        .unwrap();
        assert!(!guest.hear(id, heard.seq).unwrap().is_known);
    }

    #[test]
    fn a_guest_that_is_far_behind_hears_of_the_gap() {
        let dir = TempDir::new().unwrap();
        let (mut host, mut guest) = two(&dir);
        let Entered { guest: id, seq, .. } = guest.enter().unwrap();
        host.say(1, &notices(1)).unwrap();
        host.say(1, &notices(usize::try_from(NOTICES_MAX).unwrap()))
            .unwrap();
        let heard = guest.hear(id, seq).unwrap();
        assert!(heard.has_gap && heard.notices.len() == PAGE_MAX as usize);
        assert!(!guest.hear(id, heard.seq).unwrap().has_gap);
    }

    #[test]
    fn guests_that_were_killed_are_few_and_are_forgotten() {
        let dir = TempDir::new().unwrap();
        let (mut host, mut guest) = two(&dir);
        let first = guest.enter().unwrap().guest;
        guest.ask(first, b"what").unwrap();
        for _ in 0..GUESTS_MAX {
            guest.enter().unwrap();
        }
        let found = host.attend(AskId(0)).unwrap();
        assert_eq!(
            (i64::try_from(found.guests.len()), found.asks.len()),
            (Ok(GUESTS_MAX), 0)
        );
        assert!(!guest.hear(first, 0).unwrap().is_known);
        let last = guest.enter().unwrap().guest;
        guest.ask(last, b"what").unwrap();
        host.forget_guests().unwrap();
        let found = host.attend(AskId(0)).unwrap();
        assert!(found.guests.is_empty() && found.asks.is_empty());
        let version = guest.data_version().unwrap();
        host.forget_guests().unwrap();
        assert_eq!(
            guest.data_version().unwrap(),
            version,
            "nothing is written for nothing"
        );
        assert!(
            guest.enter().unwrap().guest > last,
            "names are not used again"
        );
    }

    #[test]
    fn a_message_of_a_guest_is_in_the_outbox_unless_that_is_full() {
        let dir = TempDir::new().unwrap();
        let (_host, mut guest) = two(&dir);
        let id = guest.enter().unwrap().guest;
        let mut put = |byte, expected: &[&[u8]]| {
            let has_room = |heads: &[Vec<u8>]| {
                assert_eq!(heads, expected);
                heads.len() < 2
            };
            guest
                .ask_with_message(id, b"adopt", MessageId([byte; 16]), b"state", 2, has_room)
                .unwrap()
        };
        assert!(put(1, &[]).is_some() && put(2, &[b"st"]).is_some());
        assert!(put(3, &[b"st", b"st"]).is_none());
        assert_eq!(
            guest
                .outgoing(MessageId([2; 16]))
                .unwrap()
                .unwrap()
                .as_slice(),
            b"state"
        );
        assert!(guest.outgoing(MessageId([3; 16])).unwrap().is_none());
    }

    #[test]
    fn a_claim_lapses_and_one_by_a_wrong_clock_does_not_bind() {
        let dir = TempDir::new().unwrap();
        let (mut first, mut second) = two(&dir);
        let insert =
            "INSERT INTO messages (inbox, id, body, received_at) VALUES ('main', x'00', x'00', 0)";
        first.connection.execute_batch(insert).unwrap();
        assert_eq!(first.claim(1, 1, 100, 110).unwrap(), Claim::Ours);
        assert_eq!(second.claim(1, 2, 109, 119).unwrap(), Claim::Theirs);
        assert_eq!(second.claim(1, 2, 110, 120).unwrap(), Claim::Ours);
        assert_eq!(first.claim(1, 1, 50, 60).unwrap(), Claim::Ours);
        // A released message is free at once, and only its claimer can release it.
        second.release(1, 2).unwrap();
        assert_eq!(second.claim(1, 2, 51, 61).unwrap(), Claim::Theirs);
        first.release(1, 1).unwrap();
        assert_eq!(second.claim(1, 2, 51, 61).unwrap(), Claim::Ours);
    }
}
