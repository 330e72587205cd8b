//! The format of a SQLite file, which its `user_version` is, and the steps from each to the next
//! (docs/architecture.md, *Stored formats*).
//!
//! A step leads from the format of its place in the list to the one after it. What the steps do is
//! the store's.

use rusqlite::{Connection, Transaction};

/// The steps that bring a file of format `found` (0: an empty one) to that of the last step; `None`
/// if the file is of a newer format.
pub fn steps_from<S>(all: &[S], found: u32) -> Option<&[S]> {
    all.get(usize::try_from(found).ok()?..)
}

/// Takes all of these steps or none, and notes that the file is of format `version`. What fails, or
/// is cut short, leaves the file as it was. Without steps nothing is written.
///
/// # Errors
/// A step failed, or the commit did.
pub fn take_steps<S>(
    transaction: Transaction<'_>,
    steps: &[S],
    version: u32,
    mut take: impl FnMut(&Connection, &S) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    for step in steps {
        take(&transaction, step)?;
    }
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &[&str] = &["CREATE TABLE one (id)", "CREATE TABLE two (id)"];

    fn take(db: &mut Connection, steps: &[&str], version: u32) -> rusqlite::Result<()> {
        take_steps(db.transaction()?, steps, version, |db, step| {
            db.execute_batch(step)
        })
    }

    /// The file's format, and how many tables it has.
    fn state(db: &Connection) -> (u32, i64) {
        let count = "SELECT count(*) FROM sqlite_schema";
        (
            db.pragma_query_value(None, "user_version", |row| row.get(0))
                .unwrap(),
            db.query_row(count, [], |row| row.get(0)).unwrap(),
        )
    }

    #[test]
    fn missing_steps_are_taken_together_or_not_at_all() {
        let mut db = Connection::open_in_memory().unwrap();
        assert!(take(&mut db, &[STEPS[0], "no SQL"], 2).is_err());
        assert_eq!(state(&db), (0, 0));
        take(&mut db, steps_from(STEPS, 0).unwrap(), 2).unwrap();
        assert_eq!(state(&db), (2, 2));
        let missing = steps_from(STEPS, 2).unwrap();
        assert!(missing.is_empty());
        take(&mut db, missing, 7).unwrap();
        assert_eq!(state(&db), (2, 2), "nothing is written");
        assert_eq!(steps_from(STEPS, 3), None);
    }
}
