//! Each step of each state, from bytes as the programs of the past wrote them, and what stays.

use tempfile::TempDir;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::ids::{MessageId, QueueNonce};
use umbel_proto::inbox::mailbox::queue_id;
use umbel_proto::network::Network;
use umbel_proto::time::Moment;

use super::super::key::DatabaseKey;
use super::super::lock::LockFile;
use super::super::{Database, DatabaseError};
use super::*;
use crate::core::io::{Snapshot, StoreOp};
use crate::core::{Core, SnapshotFault, read_outbox_message};

/// The address of an inbox made from a seed of threes.
const ADDRESS: [u8; 32] = [
    237, 73, 40, 198, 40, 209, 194, 198, 234, 233, 3, 56, 144, 89, 149, 97, 41, 89, 39, 58, 92, 99,
    249, 54, 54, 193, 70, 20, 172, 135, 55, 209,
];
const ID: MessageId = MessageId([1; 16]);

/// One mailbox held the message, and the other's record is "ok".
fn message_of(format: u8, added: &[u8]) -> Vec<u8> {
    let held: [&[u8]; 6] = [&[5; 32], &[6; 32], &[0; 32], &[0], &[0], &[1]];
    let open: [&[u8]; 6] = [
        &[7; 32],
        &[8; 32],
        &[9; 32],
        &[0x90, 0x4e],
        // Format 4 says to which key it is sealed: to one that is not known.
        if format < 4 {
            &[1, 2, b'o', b'k']
        } else {
            &[1, 0, 0, 0, 0, 0, 0, 0, 0, 2, b'o', b'k']
        },
        &[0],
    ];
    let whole: [&[u8]; 8] = [
        &[format],
        // Format 5 says that it can't be answered.
        if format < 5 { &[] } else { &[0] },
        &ADDRESS,
        &[2, b'h', b'i'],
        &[2],
        &held.concat(),
        &open.concat(),
        added,
    ];
    whole.concat()
}

/// Two mailboxes: the second is to replace the first, and failed since second 300. In format 6 it is
/// a companion, and did not fail yet.
fn inbox_of(format: u8, added: &[u8]) -> Vec<u8> {
    let (stands_for, failed): (&[&[u8]], &[u8]) = if format < 6 {
        (&[&[1], &[6; 32]], &[1, 0xac, 0x02])
    } else {
        (&[&[1]], &[0])
    };
    let first: [&[u8]; 8] = [
        &[5; 32],
        &[6; 32],
        &[7; 32],
        &[8; 32],
        &[1],
        &[0],
        &[1, 100],
        &[0],
    ];
    let second: [&[u8]; 8] = [
        &[9; 32],
        &[10; 32],
        &[11; 32],
        &[12; 32],
        &[0],
        &stands_for.concat(),
        &[0],
        failed,
    ];
    // Format 4 has no revision of the inbox.
    let revision: &[u8] = if format < 4 { &[17] } else { &[] };
    let whole: [&[u8]; 8] = [
        &[format],
        &[3; 32],
        &[4; 32],
        revision,
        &[2],
        &first.concat(),
        &second.concat(),
        added,
    ];
    whole.concat()
}

/// The same in format 8, with its seal key for these two epochs. Nobody has made the second queue yet.
fn inbox_of_8(epochs: [u8; 2], added: &[u8]) -> Vec<u8> {
    let owner = SigningKey::from_seed(&[11; 32]).public();
    let bound = queue_id(&owner, &QueueNonce([10; 32]));
    let seals = epochs.map(|epoch| [&[epoch][..], &[4; 32]].concat());
    let whole: [&[u8]; 18] = [
        &[8],
        &[3; 32],
        &[2],
        &seals.concat(),
        &[2],
        &[5; 32],
        &[6; 32],
        &[6; 32],
        &[7; 32],
        &[8; 32],
        &[1, 0, 1, 100, 0],
        &[9; 32],
        bound.as_bytes(),
        &[10; 32],
        &[11; 32],
        &[12; 32],
        &[0, 1, 0, 0],
        added,
    ];
    whole.concat()
}

/// The same in format 9.
fn inbox_of_9(epochs: [u8; 2], added: &[u8]) -> Vec<u8> {
    let mut inbox = inbox_of_8(epochs, &[added, &[0; 5]].concat());
    inbox[0] = 9;
    inbox
}

/// A guard that was confirmed and one that is not listed any more, and a relay of the second layer.
fn old_paths() -> Vec<u8> {
    let whole: [&[u8]; 8] = [
        &[1],
        &[2],
        &[4; 32],
        &[9, 1, 7, 0],
        &[5; 32],
        &[8, 0, 1, 9],
        &[1],
        &[&[6; 32][..], &[50]].concat(),
    ];
    whole.concat()
}

/// The same in format 2.
fn paths_of_2() -> Vec<u8> {
    paths_with_pinned(2, &[])
}

/// The same in format 3.
fn paths_of_3() -> Vec<u8> {
    paths_with_pinned(3, &[0, 0, 0])
}

/// The same in format 4.
fn new_paths() -> Vec<u8> {
    [paths_with_pinned(4, &[0, 0, 0]), vec![0]].concat()
}

fn paths_with_pinned(format: u8, added: &[u8]) -> Vec<u8> {
    let whole: [&[u8]; 10] = [
        &[format],
        &[2],
        &[4; 32],
        &[9, 1, 7, 0, 1, 7, 0, 0, 0, 0, 0, 0],
        &[5; 32],
        &[8, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0],
        &[1],
        &[&[6; 32][..], &[50]].concat(),
        added,
        &[0],
    ];
    whole.concat()
}

/// Refused: every beginning of it, and itself with a byte more or another format.
fn assert_only_whole<T>(old: &[u8], upgrade: impl Fn(&[u8]) -> Option<T>) {
    assert!(upgrade(old).is_some());
    for len in 0..old.len() {
        assert!(upgrade(&old[..len]).is_none(), "{len} of {}", old.len());
    }
    assert!(upgrade(&[old, &[0]].concat()).is_none());
    for format in [0, 3, 4, 0xff] {
        let mut other = old.to_vec();
        other[0] = format;
        assert!(upgrade(&other).is_none(), "format {format}");
    }
}

#[test]
fn a_message_of_format_1_is_held_by_too_few_and_made_now() {
    let old = message_of(1, &[]);
    let context = StepContext::for_test();
    let new = states::message_3(&old, &context).unwrap();
    // Too few have it; made at second 1000, given up at 1200; no deposit is due, nothing failed.
    let added = [0, 0xe8, 0x07, 0xb0, 0x09, 0, 0];
    assert_eq!(*new, message_of(3, &added));
    assert_only_whole(&old, |old| states::message_3(old, &context));
}

#[test]
fn a_message_of_format_2_stays_held_by_enough_and_is_made_now() {
    // No, since second 300, and the last attempt.
    for enough in [&[0][..], &[1, 0xac, 0x02], &[2]] {
        let old = message_of(2, enough);
        let context = StepContext::for_test();
        let new = states::message_3(&old, &context).unwrap();
        let added = [enough, &[0xe8, 0x07, 0xb0, 0x09, 0, 0]].concat();
        assert_eq!(*new, message_of(3, &added));
        assert_only_whole(&old, |old| states::message_3(old, &context));
    }
    let context = StepContext::for_test();
    assert!(states::message_3(&message_of(2, &[3]), &context).is_none());
}

#[test] // §10.5(3)
fn copies_of_a_message_of_format_3_are_sealed_to_no_key_that_is_known() {
    // Nothing failed, the inbox's queues were full, or circuits broke.
    for obstacle in [&[0][..], &[1, 3], &[1, 5, 2, 1]] {
        let added = [&[1, 0xac, 0x02, 8, 20, 1, 15], obstacle].concat();
        let old = message_of(3, &added);
        let new = states::message_4(&old).unwrap();
        assert_eq!(*new, message_of(4, &added));
        assert!(states::message_4(&new).is_none());
        for len in 0..old.len() {
            assert!(states::message_4(&old[..len]).is_none(), "{len}");
        }
        assert!(states::message_4(&[&old[..], &[0]].concat()).is_none());
    }
}

#[test]
fn a_message_of_format_4_goes_one_way() {
    // Too few have it, enough since second 300, or the last attempt has begun.
    for enough in [&[0][..], &[1, 0xac, 0x02], &[2]] {
        let added = [enough, &[8, 20, 1, 15, 1, 5, 2, 1]].concat();
        let old = message_of(4, &added);
        let new = states::message_5(&old).unwrap();
        assert_eq!(*new, message_of(5, &added));
        assert!(states::message_5(&new).is_none());
        for len in 0..old.len() {
            assert!(states::message_5(&old[..len]).is_none(), "{len}");
        }
        assert!(states::message_5(&[&old[..], &[0]].concat()).is_none());
    }
}

#[test]
fn a_copy_of_a_message_of_format_4_may_be_unsealed() {
    let targets: [&[u8]; 6] = [&[5; 32], &[6; 32], &[7; 32], &[0], &[2], &[1]];
    let old: [&[u8]; 6] = [
        &[4],
        &ADDRESS,
        &[2, b'h', b'i'],
        &[1],
        &targets.concat(),
        &[0, 8, 20, 0, 0],
    ];
    let old = old.concat();
    let new = states::message_5(&old).unwrap();
    assert_eq!(new[..3], [5, 0, ADDRESS[0]]);
    assert_eq!(new[2..], old[1..]);
}

#[test]
fn an_inbox_of_format_2_is_to_be_published() {
    let old = inbox_of(2, &[]);
    // At once, since 1 is long past; 0 would say that nobody can know of it.
    assert_eq!(*states::inbox_3(&old).unwrap(), inbox_of(3, &[1]));
    assert_only_whole(&old, states::inbox_3);
}

#[test] // §9.3(6)
fn an_inbox_of_format_3_begins_the_revisions_of_each_epoch_anew() {
    let context = StepContext {
        wall: WallTime(2 * 604_800 + 5),
        ..StepContext::for_test()
    };
    let upgrade = |old: &[u8]| states::inbox_4(old, &context);
    let added = |published_until: u8| {
        *upgrade(&inbox_of(3, &[published_until])).unwrap()
            == inbox_of(
                4,
                match published_until {
                    0 => &[0, 0, 0],
                    // Of epoch 2, never published, outdated, to be published now, and nowhere.
                    1 => &[1, 0, 1, 2, 0, 1, 0x85, 0xea, 0x49, 0],
                    _ => &[1, 0, 0],
                },
            )
    };
    assert!(added(0), "nobody can know of it");
    assert!(added(1), "it still has to be published at once");
    assert!(added(99), "it was published");
    assert!(upgrade(&inbox_of(2, &[])).is_none());
    assert!(upgrade(&[inbox_of(3, &[1]), vec![0]].concat()).is_none());
}

#[test] // §9.4(5)
fn the_look_up_of_an_inbox_of_format_4_is_due() {
    let old = inbox_of(4, &[1, 0, 0]);
    let new = inbox_of(5, &[1, 0, 0, 0, 0, 0]);
    assert_eq!(*states::inbox_5(&old).unwrap(), new);
    assert!(states::inbox_5(&new).is_none());
    assert!(states::inbox_5(&old[..old.len() - 1]).is_none());
}

#[test] // §10.5(6)
fn a_mailbox_of_format_5_that_was_to_replace_another_is_its_companion() {
    let old = inbox_of(5, &[1, 0, 0, 9, 0, 0]);
    let new = inbox_of(6, &[1, 0, 0, 9, 0, 0]);
    assert_eq!(*states::inbox_6(&old).unwrap(), new);
    assert_only_whole(&old, states::inbox_6);
}

#[test] // §9.4(3)
fn no_descriptor_of_an_inbox_of_format_6_is_half_published() {
    // Of epoch 2, revision 7, up to date, to be published at second 9, at one position.
    let publication = [&[1, 2, 7, 0, 9, 1][..], &[4; 32]].concat();
    let with = |begun: &[u8]| [&[1, 0][..], &publication, begun, &[9, 0, 0]].concat();
    let old = inbox_of(6, &with(&[]));
    assert_eq!(*states::inbox_7(&old).unwrap(), inbox_of(7, &with(&[0])));
    assert_only_whole(&old, states::inbox_7);
}

#[test] // §10.1(1), §10.3(6)
fn an_inbox_of_format_7_has_its_key_in_the_epochs_that_may_be_published() {
    let upgraded = |epoch: u8, weeks: u64| {
        let publication = [&[1, epoch, 7, 0, 9, 1][..], &[4; 32], &[0]].concat();
        let added = [&[1, 0][..], &publication, &[9, 0, 0]].concat();
        let context = StepContext {
            wall: WallTime(weeks * 604_800 + 5),
            ..StepContext::for_test()
        };
        let old = inbox_of(7, &added);
        assert_only_whole(&old, |old| states::inbox_8(old, &context));
        let new = states::inbox_8(&old, &context).unwrap();
        (20..40).find(|&last| *new == inbox_of_8([last - 1, last], &added))
    };
    assert_eq!(upgraded(30, 30), Some(31));
    assert_eq!(upgraded(31, 30), Some(31));
    assert_eq!(upgraded(30, 33), Some(34), "it was away");
    assert_eq!(upgraded(35, 30), Some(35), "the clock is behind");
}

#[test]
fn an_inbox_of_format_8_asks_no_more_of_strangers_than_the_network() {
    let old = inbox_of_8([0, 1], &[1, 0, 0, 9, 0, 0]);
    let new = inbox_of_9([0, 1], &[1, 0, 0, 9, 0, 0]);
    assert_eq!(*states::inbox_9(&old).unwrap(), new);
    assert_only_whole(&old, states::inbox_9);
}

#[test] // §6.4(7)
fn guards_of_format_1_were_tried_if_they_are_confirmed() {
    let old = old_paths();
    assert_eq!(*states::paths_2(&old).unwrap(), paths_of_2());
    assert_only_whole(&old, states::paths_2);
}

#[test] // §6.4(16)
fn nothing_is_held_against_a_second_layer_of_format_2() {
    let old = paths_of_2();
    assert_eq!(*states::paths_3(&old).unwrap(), paths_of_3());
    assert_only_whole(&old, states::paths_3);
}

#[test] // §6.4(18)
fn no_middle_is_pinned_in_paths_of_format_3() {
    let old = paths_of_3();
    let new = new_paths();
    assert_eq!(*states::paths_4(&old).unwrap(), new);
    assert!(states::paths_4(&new).is_none());
    assert!(states::paths_4(&old[..old.len() - 1]).is_none());
}

/// A database that has taken these steps.
fn database(steps: &[Step]) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    for step in steps {
        step.take(&connection, &StepContext::for_test()).unwrap();
    }
    connection
}

/// The tables of a database with their kinds and columns, and its indices with their columns.
fn made_by(steps: &[Step]) -> Vec<String> {
    let connection = database(steps);
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
        let values: Result<Vec<_>, _> = (0..6).map(|column| row.get::<_, Value>(column)).collect();
        Ok(format!("{:?}", values?))
    });
    let mut found: Vec<String> = rows.unwrap().map(Result::unwrap).collect();
    found.sort();
    found
}

#[test]
fn a_new_database_is_the_same_as_one_that_was_brought_along() {
    let new = made_by(&[Step::Tables(SCHEMA)]);
    assert!(new.len() > 40, "{new:?}");
    assert_eq!(new, made_by(STEPS));
}

/// A profile's database, in the folder.
struct Place {
    folder: TempDir,
    key: DatabaseKey,
}

impl Place {
    /// With these states, as a program that wrote format 4 left them.
    fn of_format_4(snapshot: &Snapshot) -> Self {
        let folder = TempDir::new().unwrap();
        let key = DatabaseKey::generate(&mut rand::rng());
        std::fs::write(folder.path().join("db"), b"").unwrap();
        Database::create(&folder.path().join("db"), &key).unwrap();
        let place = Self { folder, key };
        let mut database = place.open(&StepContext::for_test());
        let inboxes = snapshot.inboxes.iter().cloned();
        let outbox = snapshot.outbox.iter().cloned();
        let paths = snapshot.paths.iter().cloned();
        let ops: Vec<_> = inboxes
            .map(|(name, state)| StoreOp::PutInbox { name, state })
            .chain(outbox.map(|(id, state)| StoreOp::PutOutbox { id, state }))
            .chain(paths.map(StoreOp::PutPaths))
            // Another state whose first byte is 1.
            .chain([StoreOp::PutClock(vec![1, 0, 0])])
            .collect();
        assert!(database.apply(&ops).iter().all(Result::is_ok));
        database.set_schema_version(4);
        drop(database);
        let later = "ALTER TABLE relays DROP COLUMN there_since; DROP TABLE left_outbox; DROP TABLE relay_words;
            DROP TABLE contacts; DROP TABLE names; DROP INDEX messages_contact;
            ALTER TABLE messages DROP COLUMN contact; ALTER TABLE messages DROP COLUMN number;
            ALTER TABLE messages DROP COLUMN session; ALTER TABLE messages DROP COLUMN written_at;
            ALTER TABLE messages DROP COLUMN is_own; ALTER TABLE messages DROP COLUMN acknowledged_at;
            ALTER TABLE messages DROP COLUMN fate; ALTER TABLE deleted DROP COLUMN contact";
        place.connection().execute_batch(later).unwrap();
        place
    }

    fn connection(&self) -> Connection {
        let connection = Connection::open(self.folder.path().join("db")).unwrap();
        connection.execute_batch(&self.key.pragma()).unwrap();
        connection
    }

    fn open(&self, context: &StepContext) -> Database {
        self.try_open(context).unwrap()
    }

    fn try_open(&self, context: &StepContext) -> Result<Database, DatabaseError> {
        Database::open(&self.folder.path().join("db"), &self.key, context)
    }

    fn snapshot(&self, context: &StepContext) -> Snapshot {
        self.open(context).snapshot(WallTime(0)).unwrap()
    }
}

fn snapshot_of(inbox: Vec<u8>, message: Vec<u8>, paths: Vec<u8>) -> Snapshot {
    Snapshot {
        inboxes: vec![("help".to_owned(), Zeroizing::new(inbox))],
        outbox: vec![(ID, Zeroizing::new(message))],
        paths: Some(paths),
        ..Snapshot::default()
    }
}

/// What the core says of it.
fn fault(snapshot: Snapshot) -> Option<SnapshotFault> {
    let moment = Moment {
        now: umbel_proto::time::Instant::default(),
        wall: WallTime(1000),
    };
    Core::new(
        Network::local(),
        Vec::new(),
        None,
        snapshot,
        moment,
        &mut rand::rng(),
    )
    .err()
}

#[test]
fn rows_of_a_database_of_format_4_are_upgraded_once() {
    let old = snapshot_of(inbox_of(2, &[]), message_of(1, &[]), old_paths());
    let place = Place::of_format_4(&old);
    let first = place.snapshot(&StepContext::for_test());
    // Of epoch 0, to be published at once.
    let outdated = [1, 0, 1, 0, 0, 1, 0xe8, 0x07, 0, 0];
    let unlooked = [0, 0, 0];
    let added = [&outdated[..], &unlooked].concat();
    assert_eq!(*first.inboxes[0].1, inbox_of_9([0, 1], &added));
    assert_eq!(first.paths, Some(new_paths()));
    assert_eq!(first.clock, Some(vec![1, 0, 0]));

    let later = StepContext {
        wall: WallTime(9000),
        ..StepContext::for_test()
    };
    let second = place.snapshot(&later);
    let params = &Network::local().params;
    let (id, state) = &second.outbox[0];
    let read = read_outbox_message(*id, state, params, later.wall).unwrap();
    let times = (read.entry.created_at, read.entry.expires_at);
    assert_eq!(times, (WallTime(1000), WallTime(1200)), "it ages");
    assert_eq!((read.body.as_slice(), read.entry.holders), (&b"hi"[..], 1));
    assert_eq!(fault(second), None);
}

#[test]
fn rows_that_are_of_todays_format_already_stay_as_they_are() {
    let states = (
        inbox_of_9([0, 1], &[1, 0, 0, 9, 0, 0]),
        message_of(5, &[1, 9, 8, 20, 1, 15, 1, 2]),
        new_paths(),
    );
    let place = Place::of_format_4(&snapshot_of(
        states.0.clone(),
        states.1.clone(),
        states.2.clone(),
    ));
    let snapshot = place.snapshot(&StepContext::for_test());
    assert_eq!(*snapshot.inboxes[0].1, states.0);
    assert_eq!(*snapshot.outbox[0].1, states.1);
    assert_eq!(snapshot.paths, Some(states.2));
    assert_eq!(fault(snapshot), None);
}

#[test]
fn a_damaged_row_is_kept_as_it_is_and_named() {
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    let (inbox, message, paths) = (inbox_of(2, &[]), message_of(1, &[]), old_paths());
    let cases = [
        (
            snapshot_of(cut(inbox.clone()), message.clone(), paths.clone()),
            SnapshotFault::Inbox("help".to_owned()),
        ),
        (
            snapshot_of(inbox.clone(), cut(message.clone()), paths.clone()),
            SnapshotFault::Outbox(ID),
        ),
        (
            snapshot_of(inbox, message, cut(paths)),
            SnapshotFault::Paths,
        ),
    ];
    for (old, expected) in cases {
        let new = Place::of_format_4(&old).snapshot(&StepContext::for_test());
        match &expected {
            SnapshotFault::Inbox(_) => assert_eq!(new.inboxes, old.inboxes),
            SnapshotFault::Outbox(_) => assert_eq!(new.outbox, old.outbox),
            _ => assert_eq!(new.paths, old.paths),
        }
        assert_eq!(fault(new), Some(expected));
    }
}

#[test]
fn a_step_that_fails_leaves_everything_as_it_was() {
    let old = snapshot_of(inbox_of(2, &[]), message_of(1, &[]), old_paths());
    let place = Place::of_format_4(&old);
    // The paths are rewritten last.
    let stop = "CREATE TRIGGER stop BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'no'); END";
    place.connection().execute_batch(stop).unwrap();
    let failed = place.try_open(&StepContext::for_test()).map(drop);
    assert!(matches!(failed, Err(DatabaseError::Sqlite { .. })));
    let before = place.connection();
    let state = |sql: &str| before.query_row(sql, [], |row| row.get::<_, Vec<u8>>(0));
    assert_eq!(
        state("SELECT state FROM inboxes").unwrap(),
        *old.inboxes[0].1
    );
    assert_eq!(state("SELECT state FROM outbox").unwrap(), *old.outbox[0].1);
    before.execute_batch("DROP TRIGGER stop").unwrap();
    drop(before);
    assert_eq!(fault(place.snapshot(&StepContext::for_test())), None);
}

#[test]
fn an_old_profile_is_left_alone_while_another_process_uses_it() {
    let old = snapshot_of(inbox_of(2, &[]), message_of(1, &[]), old_paths());
    let place = Place::of_format_4(&old);
    let lock_file = LockFile::of(place.folder.path());
    let is_in_use = || {
        let opened = place.try_open(&StepContext::for_test()).map(drop);
        matches!(opened, Err(DatabaseError::InUse))
    };
    let driver = lock_file.try_take().unwrap();
    assert!(is_in_use());
    drop(driver);
    let guest = lock_file.be_present().unwrap();
    assert!(is_in_use());
    drop(guest);
    assert_eq!(fault(place.snapshot(&StepContext::for_test())), None);
}

#[test]
fn two_that_open_an_old_profile_at_once_both_open_it() {
    let old = snapshot_of(inbox_of(2, &[]), message_of(1, &[]), old_paths());
    for _ in 0..10 {
        let place = Place::of_format_4(&old);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| drop(place.open(&StepContext::for_test())));
            }
        });
        assert_eq!(fault(place.snapshot(&StepContext::for_test())), None);
    }
}
