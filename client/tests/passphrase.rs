//! The `umbel passphrase` command: real processes, no network.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may fail, and use real files"
)]

mod ended;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ended::{code, stderr, stdout, umbel};
use serde_json::Value;
use tempfile::TempDir;

const SEED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:1";
const OLD: &str = "correct horse battery";
const NEW: &str = "staple of another kind";

/// A profile that the passphrase [`OLD`] opens, with the inbox `main`.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            dir: TempDir::new().unwrap(),
        };
        place.write("old", OLD);
        place.write("new", NEW);
        place.write("short", "short");
        let made = place.run(&["init", "--seed", SEED], Some("old"), None);
        assert_eq!(code(&made), 0, "{}", stderr(&made));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(self.path(name), mode).unwrap();
    }

    fn run(&self, words: &[&str], passphrase: Option<&str>, new: Option<&str>) -> Output {
        self.with_files(umbel(self.dir.path(), words), passphrase, new)
            .output()
            .unwrap()
    }

    fn with_files(&self, mut command: Command, old: Option<&str>, new: Option<&str>) -> Command {
        for (variable, file) in [
            ("UMBEL_PASSPHRASE_FILE", old),
            ("UMBEL_NEW_PASSPHRASE_FILE", new),
        ] {
            match file {
                Some(file) => command.env(variable, self.path(file)),
                None => command.env_remove(variable),
            };
        }
        command
    }

    /// The exit code of a command that opens the profile.
    fn opens(&self, passphrase: Option<&str>) -> i32 {
        code(&self.run(&["list", "--all"], passphrase, None))
    }
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_passphrase_is_changed_and_the_old_one_opens_nothing() {
    let place = Place::new();
    let changed = place.run(&["passphrase", "change"], Some("old"), Some("new"));
    assert_eq!(code(&changed), 0, "{}", stderr(&changed));
    assert!(stdout(&changed).contains("the new passphrase opens the profile"));
    assert_eq!((place.opens(Some("old")), place.opens(Some("new"))), (1, 0));

    let key = place.path("key");
    let words = ["passphrase", "change", "--key-file", shown(&key), "--json"];
    let changed = place.run(&words, Some("new"), None);
    assert_eq!(code(&changed), 0, "{}", stderr(&changed));
    let said: Value = serde_json::from_str(stdout(&changed)).unwrap();
    assert_eq!(said["key_file"], shown(&key));
    assert_eq!(said["old_key_file"], Value::Null);
    assert_eq!(place.opens(None), 0);

    let changed = place.run(&["passphrase", "change"], None, Some("old"));
    assert_eq!(code(&changed), 0, "{}", stderr(&changed));
    assert!(stdout(&changed).contains(&format!("Delete {}", shown(&key))));
    fs::remove_file(key).unwrap();
    assert_eq!((place.opens(Some("new")), place.opens(Some("old"))), (1, 0));
}

#[test]
fn what_can_not_be_changed_says_why_and_stays() {
    let place = Place::new();
    let words = ["passphrase", "change"];
    let wrong = place.run(&words, Some("new"), Some("new"));
    assert_eq!(code(&wrong), 1);
    assert!(stderr(&wrong).contains("wrong passphrase"));
    let weak = place.run(&words, Some("old"), Some("short"));
    assert_eq!(code(&weak), 2);
    assert!(stderr(&weak).contains("too easy to guess"));
    let none = place.run(&words, Some("old"), None);
    assert_eq!(code(&none), 2);
    assert!(stderr(&none).contains("UMBEL_NEW_PASSPHRASE_FILE"));
    let taken = place.path("new");
    let words = ["passphrase", "change", "--key-file", shown(&taken)];
    assert_eq!(code(&place.run(&words, Some("old"), None)), 1);
    assert_eq!(fs::read_to_string(taken).unwrap(), NEW);
    assert_eq!(place.opens(Some("old")), 0);
}

#[test]
fn a_running_umbel_keeps_its_key() {
    let place = Place::new();
    let words = ["inbox", "create", "main", "--timeout", "1s"];
    assert_eq!(code(&place.run(&words, Some("old"), None)), 69);
    let running = umbel(place.dir.path(), &["receive", "--follow"]);
    let mut running = place
        .with_files(running, Some("old"), None)
        .spawn()
        .unwrap();
    let lock = place.path("profile/lock");
    let pid = running.id().to_string();
    while fs::read_to_string(&lock).unwrap_or_default().trim() != pid {
        assert!(running.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    let refused = place.run(&["passphrase", "change"], Some("old"), Some("new"));
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(code(&refused), 1, "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains(&format!("process {pid}")),
        "{}",
        stderr(&refused)
    );
    assert!(stderr(&refused).contains("end every other umbel"));
    assert_eq!(place.opens(Some("old")), 0);
}

#[test]
fn a_full_disk_leaves_the_old_passphrase() {
    let place = Place::new();
    let before = fs::read_to_string(place.path("profile/profile.toml")).unwrap();
    // No file may be longer than this many KiB: less than the log of the change.
    let mut command = Command::new("bash");
    let script = "trap '' XFSZ; ulimit -f 40; exec \"$0\" passphrase change --key-file \"$1\"";
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_umbel")])
        .arg(place.path("key"))
        .env("UMBEL_PROFILE", place.path("profile"));
    let failed = place
        .with_files(command, Some("old"), None)
        .output()
        .unwrap();
    assert_eq!(code(&failed), 1, "{}", stdout(&failed));
    assert!(
        stderr(&failed).contains("stored before is safe"),
        "{}",
        stderr(&failed)
    );
    assert!(!place.path("key").exists(), "it opens nothing");
    let after = fs::read_to_string(place.path("profile/profile.toml")).unwrap();
    assert_eq!(before, after);
    assert_eq!(place.opens(Some("old")), 0);
}
