use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command};

use tempfile::TempDir;
use umbel_proto::time::WallTime;
use umbel_relay::shell::files::beside;

use super::super::super::key::Passphrase;
use super::super::super::tests::{all_ok, create, put_message, with_passphrase};
use super::super::CONFIG_FILE;
use super::*;

/// The profile that a child changes, the step at which it dies, and its new key.
const DIR: &str = "UMBEL_TEST_REKEY_DIR";
const STEP: &str = "UMBEL_TEST_REKEY_STEP";
const NEW: &str = "UMBEL_TEST_REKEY_NEW";

const OLD_WORDS: &str = "correct horse battery";
const NEW_WORDS: &str = "staple of another kind";

const STEPS: [Step; 5] = [
    Step::Noted,
    Step::KeyWritten,
    Step::Rekeyed,
    Step::LogEmptied,
    Step::Seen,
];

fn words(text: &str) -> Passphrase {
    Passphrase::new(text.to_owned()).unwrap()
}

/// A profile that a passphrase opens, with `count` messages.
fn with_messages(dir: &Path, count: u64) -> PathBuf {
    let path = dir.join("profile");
    Profile::create(&path, with_passphrase(OLD_WORDS), &mut rand::rng()).unwrap();
    fill(&path, count);
    path
}

fn fill(path: &Path, count: u64) {
    let mut database = load(path, OLD_WORDS).open().unwrap().database;
    let ops: Vec<_> = (0..count).map(put_message).collect();
    assert!(all_ok(&database.apply(&ops)));
}

fn load(path: &Path, text: &str) -> Profile {
    let mut profile = Profile::load(path).unwrap();
    if profile.needs_passphrase() {
        profile.set_passphrase(words(text));
    }
    profile
}

/// How many messages there are, if these words open the profile.
fn opened(path: &Path, text: &str) -> Option<u64> {
    match load(path, text).open() {
        Ok(open) => {
            let count = open.database.unread_counts().unwrap();
            Some(count.first().map_or(0, |(_, count)| *count))
        }
        Err(ProfileError::WrongPassphrase) => None,
        Err(error) => panic!("{error}"),
    }
}

fn change(path: &Path, text: &str, new: NewKey) -> Result<(), KeyChangeError> {
    let change = load(path, text).begin_key_change()?;
    change.finish(new, &mut rand::rng())
}

fn config(path: &Path) -> String {
    fs::read_to_string(path.join(CONFIG_FILE)).unwrap()
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_profile_goes_from_key_to_key_and_keeps_what_it_has() {
    let dir = TempDir::new().unwrap();
    let path = with_messages(dir.path(), 5);
    let (one, two) = (path.join("one"), dir.path().join("two"));

    change(&path, OLD_WORDS, NewKey::Passphrase(words(NEW_WORDS))).unwrap();
    assert_eq!(
        (opened(&path, OLD_WORDS), opened(&path, NEW_WORDS)),
        (None, Some(5))
    );
    change(&path, NEW_WORDS, NewKey::File(one.clone())).unwrap();
    assert_eq!(
        Profile::load(&path).unwrap().key_file(),
        Some(one.as_path())
    );
    assert_eq!(opened(&path, ""), Some(5));
    change(&path, "", NewKey::File(two.clone())).unwrap();
    assert_eq!(
        Profile::load(&path).unwrap().key_file(),
        Some(two.as_path())
    );
    assert!(one.exists(), "an older copy may need it");
    change(&path, "", NewKey::Passphrase(words(OLD_WORDS))).unwrap();
    assert_eq!(
        (opened(&path, NEW_WORDS), opened(&path, OLD_WORDS)),
        (None, Some(5))
    );
    assert!(!config(&path).contains("new_key"));
    assert_eq!(
        names(&path),
        ["guests", "lock", "one", "profile.db", "profile.toml"]
    );
}

#[test]
fn a_wrong_passphrase_or_a_file_in_the_way_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let path = with_messages(dir.path(), 1);
    let before = config(&path);
    let refused = change(&path, NEW_WORDS, NewKey::File(path.join("key")));
    assert!(matches!(
        refused,
        Err(KeyChangeError::Profile(ProfileError::WrongPassphrase))
    ));
    let theirs = path.join("theirs");
    fs::write(&theirs, "theirs").unwrap();
    let refused = change(&path, OLD_WORDS, NewKey::File(theirs.clone()));
    assert!(matches!(
        refused,
        Err(KeyChangeError::Key(InitError::KeyFileExists(_)))
    ));
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
    let folder = NewKey::File(dir.path().join("none/key"));
    assert!(change(&path, OLD_WORDS, folder).is_err());
    assert_eq!(config(&path), before);
    assert_eq!(opened(&path, OLD_WORDS), Some(1));
}

#[test]
fn a_profile_in_use_keeps_its_key() {
    let dir = TempDir::new().unwrap();
    let path = create(dir.path());
    let before = config(&path);
    let refused = || {
        let result = change(&path, "", NewKey::File(path.join("new")));
        assert!(
            matches!(result, Err(KeyChangeError::InUse { .. })),
            "{result:?}"
        );
        assert_eq!(config(&path), before);
        assert!(!path.join("new").exists());
    };
    let reader = Profile::load(&path).unwrap().open().unwrap();
    refused();
    drop(reader);
    let lock_file = LockFile::of(&path);
    let driver = lock_file.try_take().unwrap();
    refused();
    drop(driver);
    let guest = lock_file.be_present().unwrap();
    refused();
    drop(guest);
    change(&path, "", NewKey::File(path.join("new"))).unwrap();
}

#[test]
fn nobody_opens_a_profile_whose_key_is_being_changed() {
    let dir = TempDir::new().unwrap();
    let path = create(dir.path());
    let database = path.join(DATABASE_FILE);
    let key = DatabaseKey::read_file(&path.join("key")).unwrap();
    let alone = Database::open_alone(&database, &key).unwrap();
    assert!(matches!(
        Database::open_alone(&database, &key),
        Err(DatabaseError::InUse)
    ));
    drop(alone);
    assert!(Database::is_opened_by(&database, &key));
}

/// All blocks of the cipher in the database and its log, except the salt at the beginning.
fn blocks(path: &Path) -> HashSet<Vec<u8>> {
    let database = path.join(DATABASE_FILE);
    let log = fs::read(beside(&database, "-wal")).unwrap_or_default();
    let bytes = fs::read(&database).unwrap();
    let of = |bytes: &[u8]| bytes.chunks(16).map(<[u8]>::to_vec).collect::<Vec<_>>();
    // A frame of the log has a header of 24 bytes, after one of 32.
    let frames = log.get(32..).unwrap_or_default().chunks(24 + 4096);
    let pages = frames.flat_map(|frame| of(&frame[24..]));
    of(&bytes).into_iter().skip(1).chain(pages).collect()
}

#[test]
fn no_byte_is_left_that_the_old_passphrase_opens() {
    let dir = TempDir::new().unwrap();
    let path = with_messages(dir.path(), 200);
    // Deleted pages, too.
    let mut database = load(&path, OLD_WORDS).open().unwrap().database;
    let ops: Vec<_> = (1000..1200).map(put_message).collect();
    assert!(all_ok(&database.apply(&ops)));
    let places: Vec<i64> = (1..=100).collect();
    assert_eq!(database.delete(&places, WallTime(5000)).unwrap(), 100);
    let mut before = blocks(&path);
    drop(database);
    before.extend(blocks(&path));
    assert!(before.len() > 5_000, "{}", before.len());

    change(&path, OLD_WORDS, NewKey::Passphrase(words(NEW_WORDS))).unwrap();
    let after = blocks(&path);
    assert!(after.len() > 2_000 && after.is_disjoint(&before));
    assert!(!beside(&path.join(DATABASE_FILE), "-wal").exists());
}

/// Not a test: the process that changes the key, and dies.
#[test]
fn rekey_child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let dir = PathBuf::from(dir);
    let dies_at = std::env::var(STEP).unwrap();
    let new = match std::env::var_os(NEW) {
        Some(file) => NewKey::File(file.into()),
        None => NewKey::Passphrase(words(NEW_WORDS)),
    };
    let change = load(&dir, OLD_WORDS).begin_key_change().unwrap();
    let changed = change.finish_by_steps(new, &mut rand::rng(), |step| {
        if format!("{step:?}") == dies_at {
            std::process::abort();
        }
    });
    changed.unwrap();
}

fn child(path: &Path, step: &str, new_file: Option<&Path>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "store::profile::rekey::tests::rekey_child"])
        .env(DIR, path)
        .env(STEP, step)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    if let Some(file) = new_file {
        command.env(NEW, file);
    }
    command.spawn().unwrap()
}

fn is_new_at(step: Step) -> bool {
    !matches!(step, Step::Noted | Step::KeyWritten)
}

#[test]
fn a_change_that_is_killed_leaves_one_passphrase_at_every_step() {
    for step in STEPS {
        let dir = TempDir::new().unwrap();
        let path = with_messages(dir.path(), 50);
        assert!(
            !child(&path, &format!("{step:?}"), None)
                .wait()
                .unwrap()
                .success()
        );
        assert!(config(&path).contains("new_key"), "{step:?}");
        let (right, wrong) = if is_new_at(step) {
            (NEW_WORDS, OLD_WORDS)
        } else {
            (OLD_WORDS, NEW_WORDS)
        };
        assert_eq!(opened(&path, wrong), None, "{step:?}");
        assert!(config(&path).contains("new_key"), "nothing is known yet");
        assert_eq!(opened(&path, right), Some(50), "{step:?}");
        assert!(!config(&path).contains("new_key"), "{step:?}");
        assert_eq!(opened(&path, right), Some(50), "{step:?}");
        assert_eq!(opened(&path, wrong), None, "{step:?}");
        change(&path, right, NewKey::Passphrase(words(wrong))).unwrap();
        assert_eq!(opened(&path, wrong), Some(50), "{step:?}");
    }
}

#[test]
fn a_change_to_a_key_file_that_is_killed_asks_for_what_opens() {
    for step in STEPS {
        let dir = TempDir::new().unwrap();
        let path = with_messages(dir.path(), 50);
        let file = path.join("new");
        child(&path, &format!("{step:?}"), Some(&file))
            .wait()
            .unwrap();
        assert_eq!(file.exists(), step != Step::Noted);
        let profile = Profile::load(&path).unwrap();
        assert_eq!(profile.needs_passphrase(), !is_new_at(step), "{step:?}");
        assert_eq!(opened(&path, OLD_WORDS), Some(50), "{step:?}");
        assert!(!config(&path).contains("new_key"), "{step:?}");
        assert_eq!(
            Profile::load(&path).unwrap().needs_passphrase(),
            !is_new_at(step),
            "{step:?}"
        );
    }
}

/// Where a process that changes the key is, as others see it.
#[derive(Debug, Clone, Copy)]
enum Writing {
    /// So many bytes are in the log.
    Log(u64),
    /// This page is in the database.
    Page(u64),
}

fn page(path: &Path, number: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    let database = File::open(path.join(DATABASE_FILE)).unwrap();
    database.read_exact_at(&mut page, number * 4096).unwrap();
    page
}

#[test]
fn a_change_that_is_killed_while_it_writes_leaves_one_passphrase() {
    for writing in [
        Writing::Log(1),
        Writing::Log(1_500_000),
        Writing::Log(4_000_000),
        Writing::Page(1),
        Writing::Page(1000),
    ] {
        let dir = TempDir::new().unwrap();
        let path = with_messages(dir.path(), 10_000);
        let log = beside(&path.join(DATABASE_FILE), "-wal");
        let before = [page(&path, 1), page(&path, 1000)];
        let mut child = child(&path, "", None);
        let is_there = || match writing {
            // Its first opening has a log, too.
            Writing::Log(len) => {
                config(&path).contains("new_key")
                    && log.metadata().is_ok_and(|log| log.len() >= len)
            }
            Writing::Page(number) => !before.contains(&page(&path, number)),
        };
        while !is_there() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let found = [opened(&path, OLD_WORDS), opened(&path, NEW_WORDS)];
        let (old, new) = ([Some(10_000), None], [None, Some(10_000)]);
        let may_be_old = matches!(writing, Writing::Log(_));
        assert!(
            found == new || may_be_old && found == old,
            "{writing:?}: {found:?}"
        );
        assert!(!config(&path).contains("new_key"));
    }
}
