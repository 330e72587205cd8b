use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use umbel_proto::directory::{Age, Belief, BookOp, BookRow};
use umbel_proto::ids::{MessageId, Peer, RelayId};
use umbel_proto::time::WallTime;
use zeroize::Zeroizing;

use super::key::DatabaseKey;
use super::migrate;
use super::*;
use crate::core::io::Notice;

const CRASH_DIR: &str = "UMBEL_TEST_CRASH_DIR";

fn seed_peer() -> Peer {
    Peer {
        id: RelayId([7; 32]),
        host_port: "192.0.2.1:9000".to_owned(),
    }
}

pub(super) fn with_passphrase(text: &str) -> NewProfile {
    NewProfile {
        network: None,
        seeds: vec![seed_peer()],
        key: NewKey::Passphrase(Passphrase::new(text.to_owned()).unwrap()),
    }
}

fn with_key_file(path: &Path) -> NewProfile {
    NewProfile {
        network: None,
        seeds: vec![seed_peer()],
        key: NewKey::File(path.to_owned()),
    }
}

/// A profile without a passphrase, in `dir`, which is there already.
pub(super) fn create(dir: &Path) -> PathBuf {
    let profile = dir.join("profile");
    Profile::create(
        &profile,
        with_key_file(&profile.join("key")),
        &mut rand::rng(),
    )
    .unwrap();
    profile
}

pub(super) fn database(profile: &Path) -> Database {
    Profile::load(profile).unwrap().open().unwrap().database
}

pub(super) fn put_message(number: u64) -> StoreOp {
    StoreOp::PutMessage {
        inbox: Some("main".to_owned()),
        id: message_id(number),
        body: vec![b'm'; 500],
        received_at: WallTime(1000 + number),
        letter: None,
    }
}

fn remove_outbox(number: u64) -> StoreOp {
    let id = message_id(number);
    StoreOp::RemoveOutbox { id, last: held(id) }
}

fn held(id: MessageId) -> Notice {
    Notice::Held {
        id,
        holders: 2,
        wanted: 2,
    }
}

pub(super) fn message_id(number: u64) -> MessageId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    MessageId(id)
}

fn secret(byte: u8) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(vec![byte; 40])
}

pub(super) fn all_ok(results: &[Result<(), DatabaseError>]) -> bool {
    results.iter().all(Result::is_ok)
}

fn row(number: u8) -> BookRow {
    let at = |seconds: u64| WallTime(seconds + u64::from(number));
    BookRow {
        descriptor: vec![number],
        age: Age {
            first_seen: at(1000),
            belief: Belief::Given(at(900)),
            there_since: at(1000),
        },
    }
}

fn put_relay(relay: RelayId, number: u8) -> StoreOp {
    StoreOp::Book(BookOp::Put {
        relay,
        row: row(number),
    })
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let profile = create(dir.path());
    let mut first = database(&profile);
    let (one, two) = (RelayId([1; 32]), RelayId([2; 32]));
    let results = first.apply(&[
        StoreOp::PutPaths(vec![1]),
        StoreOp::PutPaths(vec![2]),
        put_relay(one, 11),
        put_relay(two, 12),
        put_relay(two, 13),
        StoreOp::Book(BookOp::Remove(vec![one])),
        StoreOp::PutInbox {
            name: "main".to_owned(),
            state: secret(3),
        },
        StoreOp::PutOutbox {
            id: message_id(1),
            state: secret(4),
        },
        StoreOp::PutOutbox {
            id: message_id(2),
            state: secret(5),
        },
        StoreOp::PutOutbox {
            id: message_id(1),
            state: secret(6),
        },
        remove_outbox(2),
        put_message(9),
        put_message(9),
    ]);
    assert!(all_ok(&results));
    drop(first);

    let again = database(&profile);
    let snapshot = again.snapshot(WallTime(0)).unwrap();
    assert_eq!(snapshot.paths, Some(vec![2]));
    assert_eq!(snapshot.relays, vec![row(13)]);
    assert_eq!(snapshot.inboxes, vec![("main".to_owned(), secret(3))]);
    assert_eq!(snapshot.outbox, vec![(message_id(1), secret(6))]);
    assert_eq!(snapshot.received, vec![("main".to_owned(), message_id(9))]);
    assert!(again.snapshot(WallTime(2000)).unwrap().received.is_empty());
}

#[test]
fn what_was_said_last_of_a_message_is_kept_while_a_guest_may_wait() {
    let dir = TempDir::new().unwrap();
    let mut database = database(&create(dir.path()));
    assert!(all_ok(&database.apply(&[remove_outbox(1)])));
    assert!(database.left().unwrap().is_empty(), "nobody waits");
    let first = database.enter().unwrap().guest;
    let second = database.enter().unwrap().guest;
    assert!(all_ok(
        &database.apply(&[remove_outbox(2), remove_outbox(3)])
    ));
    database.leave(first).unwrap();
    let left = [held(message_id(2)), held(message_id(3))];
    assert_eq!(database.snapshot(WallTime(0)).unwrap().left, left);
    database.leave(second).unwrap();
    assert!(database.left().unwrap().is_empty());
}

#[test]
fn the_outbox_keeps_its_order_when_a_state_changes() {
    let dir = TempDir::new().unwrap();
    let mut database = database(&create(dir.path()));
    let put = |number, byte| StoreOp::PutOutbox {
        id: message_id(number),
        state: secret(byte),
    };
    assert!(all_ok(&database.apply(&[
        put(5, 0),
        put(3, 0),
        put(4, 0),
        put(5, 1)
    ])));
    let order: Vec<_> = database
        .snapshot(WallTime(0))
        .unwrap()
        .outbox
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(order, [message_id(5), message_id(3), message_id(4)]);
}

#[test]
fn messages_are_unread_until_marked_and_come_in_order() {
    let dir = TempDir::new().unwrap();
    let mut database = database(&create(dir.path()));
    let ops: Vec<_> = (1..=40).map(put_message).collect();
    assert!(all_ok(&database.apply(&ops)));
    let page = database.unread(None, 0).unwrap();
    assert_eq!(page.len(), 32);
    assert_eq!(page[0].id, message_id(1));
    let rest = database.unread(Some("main"), page[31].seq).unwrap();
    assert_eq!(rest.len(), 8);
    assert!(database.unread(Some("other"), 0).unwrap().is_empty());

    database.mark_read(page[0].seq).unwrap();
    assert_eq!(database.unread(None, 0).unwrap()[0].id, message_id(2));
    assert_eq!(database.messages(None, 0).unwrap()[0].id, message_id(1));
    assert_eq!(database.unread_counts().unwrap(), [("main".to_owned(), 39)]);
}

#[test]
fn a_message_is_found_by_the_beginning_of_its_id() {
    let dir = TempDir::new().unwrap();
    let mut database = database(&create(dir.path()));
    assert!(all_ok(&database.apply(&[
        put_message(0x1234),
        put_message(0x12ff),
        put_message(0xab00)
    ])));
    let found = |digits: &str| -> Vec<MessageId> {
        database
            .messages_named(digits)
            .unwrap()
            .into_iter()
            .map(|message| message.id)
            .collect()
    };
    assert_eq!(
        found("00000000000012"),
        [message_id(0x1234), message_id(0x12ff)]
    );
    assert_eq!(found("000000000000AB"), [message_id(0xab00)]);
    assert_eq!(found(&message_id(0x1234).to_string()), [message_id(0x1234)]);
    assert!(found("%").is_empty() && found("ff").is_empty());
}

#[test]
fn a_deleted_message_leaves_nothing_but_its_id_and_does_not_come_again() {
    let dir = TempDir::new().unwrap();
    let profile = create(dir.path());
    let mut first = database(&profile);
    assert!(all_ok(&first.apply(&[put_message(1), put_message(2)])));
    let old = first.older(WallTime(1002), Some("main")).unwrap();
    assert_eq!(
        old,
        [Place {
            seq: 1,
            is_read: false
        }]
    );
    assert!(
        first
            .older(WallTime(9999), Some("other"))
            .unwrap()
            .is_empty()
    );
    assert_eq!(first.delete(&[1, 77], WallTime(5000)).unwrap(), 1);
    assert!(first.empty_log().unwrap());
    assert_eq!(
        std::fs::metadata(profile.join("profile.db-wal"))
            .unwrap()
            .len(),
        0
    );
    assert!(all_ok(&first.apply(&[put_message(1)])));
    drop(first);

    let mut again = database(&profile);
    // The core keeps the id for as long as an honest holder may have the record.
    let known = |database: &Database, since| {
        database
            .snapshot(WallTime(since))
            .unwrap()
            .received
            .iter()
            .any(|(_, id)| *id == message_id(1))
    };
    assert!(known(&again, 5000) && !known(&again, 5001));
    let years_later = WallTime(5000 + 10 * 365 * 86_400);
    assert_eq!(again.delete(&[2], years_later).unwrap(), 1);
    assert!(all_ok(&again.apply(&[
        put_message(1),
        put_message(2),
        put_message(3)
    ])));
    let kept: Vec<_> = again
        .messages(None, 0)
        .unwrap()
        .into_iter()
        .map(|message| message.id)
        .collect();
    assert_eq!(kept, [message_id(3)]);
}

#[test]
fn a_message_of_long_ago_that_comes_again_stays_read() {
    let dir = TempDir::new().unwrap();
    let mut database = database(&create(dir.path()));
    assert!(all_ok(&database.apply(&[put_message(1)])));
    database.mark_read(1).unwrap();
    assert!(
        database
            .snapshot(WallTime(9_000_000))
            .unwrap()
            .received
            .is_empty(),
        "the core has forgotten it"
    );
    assert!(all_ok(&database.apply(&[put_message(1)])));
    assert!(database.unread(None, 0).unwrap().is_empty());
    assert_eq!(database.messages(None, 0).unwrap().len(), 1);
}

#[test]
fn an_op_that_fails_takes_no_other_with_it() {
    let dir = TempDir::new().unwrap();
    let profile = create(dir.path());
    let mut database = database(&profile);
    database.forbid_inboxes();
    let results = database.apply(&[
        put_message(1),
        StoreOp::PutInbox {
            name: "main".to_owned(),
            state: secret(1),
        },
        put_message(2),
    ]);
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    drop(database);
    assert_eq!(self::database(&profile).unread(None, 0).unwrap().len(), 2);
}

#[test]
fn a_full_disk_is_named_and_what_was_stored_stays() {
    let dir = TempDir::new().unwrap();
    let profile = create(dir.path());
    let mut database = database(&profile);
    assert!(all_ok(&database.apply(&[put_message(1)])));
    database.limit_to_present_size();
    let large = StoreOp::PutOutbox {
        id: message_id(2),
        state: Zeroizing::new(vec![0; 200_000]),
    };
    let results = database.apply(&[large]);
    assert_eq!(
        results[0].as_ref().unwrap_err().fault(),
        StoreFault::DiskFull
    );
    drop(database);
    assert_eq!(self::database(&profile).unread(None, 0).unwrap().len(), 1);
}

#[test]
fn where_nothing_can_be_written_a_database_is_read_as_it_is() {
    let dir = TempDir::new().unwrap();
    let profile = dir.path().join("odd ?#%41 ö");
    Profile::create(
        &profile,
        with_key_file(&profile.join("key")),
        &mut rand::rng(),
    )
    .unwrap();
    assert!(all_ok(&database(&profile).apply(&[put_message(1)])));
    let files = || std::fs::read_dir(&profile).unwrap().count();
    let before = files();

    let key = DatabaseKey::read_file(&profile.join("key")).unwrap();
    let path = profile.join("profile.db");
    let mut full = Database::open_as_it_is(&path, &key, StoreFault::DiskFull).unwrap();
    assert_eq!(full.unread(None, 0).unwrap().len(), 1);
    assert_eq!(full.snapshot(WallTime(0)).unwrap().received.len(), 1);
    let is_full = |result: Result<(), DatabaseError>| {
        result.is_err_and(|error| error.fault() == StoreFault::DiskFull)
    };
    assert!(is_full(full.mark_read(1)) && is_full(full.delete(&[1], WallTime(1)).map(drop)));
    assert!(is_full(full.set_full_vanguards(true)) && is_full(full.accept_view().map(drop)));
    assert!(full.apply(&[put_message(2)])[0].is_err());
    assert_eq!(files(), before, "nothing is made beside it");
    drop(full);
    assert_eq!(database(&profile).unread(None, 0).unwrap().len(), 1);

    let older = migrate::VERSION - 1;
    let writer = database(&profile);
    writer
        .connection
        .pragma_update(None, "user_version", older)
        .unwrap();
    drop(writer);
    let outdated = Database::open_as_it_is(&path, &key, StoreFault::ReadOnly).map(drop);
    assert!(matches!(
        outdated,
        Err(DatabaseError::Outdated(StoreFault::ReadOnly))
    ));
}

#[test]
fn only_the_right_passphrase_opens_a_profile() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("profile");
    Profile::create(&path, with_passphrase("correct horse\n"), &mut rand::rng()).unwrap();

    assert!(matches!(
        Profile::load(&path).unwrap().open(),
        Err(ProfileError::PassphraseNeeded)
    ));
    for (text, is_right) in [
        ("correct horse", true),
        ("correct horse ", false),
        ("wrong", false),
    ] {
        let mut profile = Profile::load(&path).unwrap();
        assert!(profile.needs_passphrase());
        profile.set_passphrase(Passphrase::new(text.to_owned()).unwrap());
        match profile.open() {
            Ok(_) => assert!(is_right, "{text:?}"),
            Err(ProfileError::WrongPassphrase) => assert!(!is_right, "{text:?}"),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn another_key_file_does_not_open_a_profile() {
    let dir = TempDir::new().unwrap();
    let profile = create(dir.path());
    std::fs::remove_file(profile.join("key")).unwrap();
    assert!(matches!(
        Profile::load(&profile).unwrap().open(),
        Err(ProfileError::KeyFileUnreadable { .. })
    ));
    DatabaseKey::generate(&mut rand::rng())
        .write_file(&profile.join("key"))
        .unwrap();
    assert!(matches!(
        Profile::load(&profile).unwrap().open(),
        Err(ProfileError::WrongKeyFile(_))
    ));
}

#[test]
fn a_profile_that_moved_with_its_key_opens() {
    let dir = TempDir::new().unwrap();
    let moved = dir.path().join("moved");
    std::fs::rename(create(dir.path()), &moved).unwrap();
    assert!(Profile::load(&moved).unwrap().open().is_ok());
    assert_eq!(
        Profile::load(&moved).unwrap().key_file(),
        Some(moved.join("key").as_path())
    );
}

#[test]
fn nothing_legible_is_on_the_disk() {
    let dir = TempDir::new().unwrap();
    let profile = create(dir.path());
    let mut database = database(&profile);
    assert!(all_ok(&database.apply(&[put_message(1)])));
    for file in std::fs::read_dir(&profile).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(
            !bytes
                .windows(16)
                .any(|window| window == [b'm'; 16] || window == b"SQLite format 3\0")
        );
    }
}

#[test]
fn a_profile_of_a_newer_program_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = create(dir.path());
    database(&path).set_schema_version(migrate::VERSION + 1);
    let Err(ProfileError::Database(DatabaseError::SchemaTooNew { found, known })) =
        Profile::load(&path).unwrap().open()
    else {
        panic!("a newer schema was accepted")
    };
    assert_eq!((found, known), (migrate::VERSION + 1, migrate::VERSION));
}

#[test]
fn making_a_profile_overwrites_nothing() {
    let dir = TempDir::new().unwrap();
    let path = create(dir.path());
    let again = Profile::create(&path, with_passphrase("another"), &mut rand::rng());
    assert!(matches!(again, Err(InitError::Exists(_))));
    assert!(Profile::load(&path).unwrap().open().is_ok());

    let other = dir.path().join("other");
    let taken_key = Profile::create(&other, with_key_file(&path.join("key")), &mut rand::rng());
    assert!(matches!(taken_key, Err(InitError::KeyFileExists(_))));
    assert!(matches!(
        Profile::load(&other),
        Err(ProfileError::Missing(_))
    ));
    assert!(Profile::load(&path).unwrap().open().is_ok());
    assert!(
        !other.exists(),
        "nothing is left of one that could not be made"
    );
    std::fs::create_dir(&other).unwrap();
    let no_key = Profile::create(
        &other,
        with_key_file(&dir.path().join("no/where")),
        &mut rand::rng(),
    );
    assert!(matches!(no_key, Err(InitError::Io { .. })));
    assert_eq!(
        std::fs::read_dir(&other).unwrap().count(),
        0,
        "the directory was there before"
    );
}

/// Takes from a profile what `init` makes last, as if it had been killed before.
fn kill_init(path: &Path, files: &[&str]) {
    std::fs::rename(path.join("profile.db"), unfinished::path(path)).unwrap();
    for file in files {
        std::fs::remove_file(path.join(file)).unwrap();
    }
}

#[test]
fn what_a_killed_init_left_behind_is_finished_or_made_again() {
    let dir = TempDir::new().unwrap();
    let path = create(dir.path());
    let key = path.join("key");
    let read_key = || std::fs::read(&key).unwrap();
    let again = |new| Profile::create(&path, new, &mut rand::rng());
    let first = read_key();

    kill_init(&path, &[]);
    assert!(matches!(
        again(with_key_file(&key)),
        Err(InitError::Exists(_))
    ));
    assert!(
        Profile::load(&path).unwrap().open().is_ok(),
        "it was a profile"
    );
    assert!(path.join("profile.db").exists() && !unfinished::path(&path).exists());

    kill_init(&path, &["profile.toml"]);
    assert!(matches!(
        Profile::load(&path),
        Err(ProfileError::Missing(_))
    ));
    again(with_key_file(&key)).unwrap();
    assert_eq!(read_key(), first, "the key of the database");
    assert!(Profile::load(&path).unwrap().open().is_ok());

    kill_init(&path, &["profile.toml", "key"]);
    std::fs::write(unfinished::path(&path), "a part").unwrap();
    again(with_key_file(&key)).unwrap();
    assert_ne!(read_key(), first);
    assert!(Profile::load(&path).unwrap().open().is_ok());

    kill_init(&path, &["profile.toml"]);
    std::fs::write(&key, &first).unwrap();
    let other_key = again(with_key_file(&key));
    assert!(matches!(other_key, Err(InitError::KeyFileExists(_))));
    assert_eq!(read_key(), first, "it may open another profile");
    again(with_passphrase("correct horse")).unwrap();
    assert_eq!(read_key(), first);
}

#[test]
fn a_database_without_its_profile_toml_is_never_touched() {
    let dir = TempDir::new().unwrap();
    let path = create(dir.path());
    std::fs::remove_file(path.join("profile.toml")).unwrap();
    let before = std::fs::read(path.join("profile.db")).unwrap();
    let new = with_key_file(&path.join("key"));
    let again = Profile::create(&path, new, &mut rand::rng());
    assert!(matches!(again, Err(InitError::Exists(_))));
    assert_eq!(std::fs::read(path.join("profile.db")).unwrap(), before);

    let other = dir.path().join("other");
    let new = with_key_file(&other.join("profile.db"));
    let same = Profile::create(&other, new, &mut rand::rng());
    assert!(matches!(same, Err(InitError::Exists(_))) && !other.exists());
}

#[test]
fn a_profile_needs_somewhere_to_begin() {
    let dir = TempDir::new().unwrap();
    let new = NewProfile {
        seeds: Vec::new(),
        ..with_key_file(&dir.path().join("key"))
    };
    assert!(matches!(
        Profile::create(&dir.path().join("p"), new, &mut rand::rng()),
        Err(InitError::NoSeeds)
    ));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_config_with_unknown_keys_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = create(dir.path());
    let file = path.join("profile.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("colour = 1\n{text}")).unwrap();
    assert!(matches!(
        Profile::load(&path),
        Err(ProfileError::Config {
            fault: ConfigFault::Syntax(_),
            ..
        })
    ));
    std::fs::write(&file, text.replace("version = 1", "version = 2")).unwrap();
    assert!(matches!(
        Profile::load(&path),
        Err(ProfileError::Config {
            fault: ConfigFault::TooNew(2),
            ..
        })
    ));
}

#[cfg(unix)]
#[test]
fn a_profile_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let path = create(dir.path());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("key")), 0o600);
    assert_eq!(mode(&path.join("profile.db")), 0o600);
    assert_eq!(mode(&path.join("profile.toml")), 0o600);
}

/// Not a test: the process that [`what_was_acknowledged_survives_a_kill`] kills.
#[test]
fn crash_child() {
    let Some(dir) = std::env::var_os(CRASH_DIR) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let open = Profile::load(Path::new(&dir)).unwrap().open().unwrap();
    let (store, _thread) = Store::start(open.database).unwrap();
    runtime.block_on(async {
        for number in 0.. {
            let batch = vec![(StoreTicket::new(number), put_message(number))];
            let done = store.submit(batch).await.unwrap().await.unwrap();
            assert!(done.iter().all(|(_, result)| result.is_ok()));
            println!("stored {number}");
            std::io::stdout().flush().unwrap();
        }
    });
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = TempDir::new().unwrap();
    let path = create(dir.path());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::crash_child", "--nocapture"])
        .env(CRASH_DIR, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged: Vec<u64> = lines
        .map_while(Result::ok)
        .filter_map(|line| {
            line.strip_prefix("stored ")
                .and_then(|number| number.parse().ok())
        })
        .take(40)
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();

    let database = database(&path);
    let kept: std::collections::BTreeSet<_> = database
        .snapshot(WallTime(0))
        .unwrap()
        .received
        .into_iter()
        .map(|(_, id)| id)
        .collect();
    assert_eq!(acknowledged.len(), 40);
    assert!(
        acknowledged
            .iter()
            .all(|&number| kept.contains(&message_id(number)))
    );
}
