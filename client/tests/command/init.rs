//! `umbel init`: what it makes, what opens it, and what it refuses.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use umbel_proto::network::Network;

use crate::ended::{code, stderr, stdout};
use crate::place::{Place, SEED, json_error};

#[cfg(unix)]
#[test]
fn a_secret_that_others_can_read_is_remarked() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::with_profile();
    let key = place.profile().join("key");
    let quiet = place.run(&["status", "--offline"]);
    assert_eq!((code(&quiet), stderr(&quiet)), (0, ""));
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let warned = place.run(&["status", "--offline"]);
    assert_eq!(code(&warned), 0);
    assert!(
        stderr(&warned).contains(&format!("chmod 600 {}", key.display())),
        "{warned:?}"
    );
    assert_eq!(stderr(&place.run(&["status", "--offline", "--quiet"])), "");
}

#[test]
fn a_passphrase_that_is_easily_guessed_is_refused_with_the_reason() {
    let place = Place::new();
    let file = place.dir.path().join("passphrase");
    let init = |text: &str| {
        std::fs::write(&file, text).unwrap();
        place
            .command(&["init", "--seed", SEED, "--json"])
            .env("UMBEL_PASSPHRASE_FILE", &file)
            .output()
            .unwrap()
    };
    for text in ["x", "elevenchars", "aaaaaaaaaaaaaaaa", "abababababababab"] {
        let output = init(text);
        assert_eq!(code(&output), 2, "{text}");
        assert!(
            stderr(&output).contains("easy to guess") && stderr(&output).contains("12 characters"),
            "{output:?}"
        );
        assert!(!place.profile().exists());
    }
    assert_eq!(code(&init("twelve chars")), 0);
}

#[test]
fn init_says_what_opens_the_profile_and_what_its_loss_means() {
    let place = Place::new();
    let key = place.dir.path().join("elsewhere.key");
    let made = place.run(&["init", "--seed", SEED, "--key-file", key.to_str().unwrap()]);
    assert_eq!(code(&made), 0);
    assert!(
        stdout(&made).contains(key.to_str().unwrap()) && stdout(&made).contains("lost for good"),
        "{made:?}"
    );
}

#[test]
fn init_overwrites_nothing() {
    let place = Place::with_profile();
    let key = place.profile().join("key");
    let before = std::fs::read(&key).unwrap();
    let again = place.run(&[
        "init",
        "--seed",
        SEED,
        "--key-file",
        key.to_str().unwrap(),
        "--json",
    ]);
    assert_eq!(code(&again), 1);
    json_error(&again);
    assert_eq!(std::fs::read(&key).unwrap(), before);
    assert_eq!(code(&place.run(&["status", "--offline"])), 0);
}

#[test]
fn init_without_a_terminal_says_what_else_there_is() {
    let place = Place::new();
    let output = place.run(&["init", "--seed", SEED, "--json"]);
    assert_eq!(code(&output), 2);
    let (_, hint) = json_error(&output);
    assert!(
        hint.contains("UMBEL_PASSPHRASE_FILE") && hint.contains("--key-file"),
        "{hint}"
    );
    assert!(!place.profile().exists());
}

#[test]
fn a_passphrase_comes_from_the_file_that_the_environment_names() {
    let place = Place::new();
    let (right, wrong) = (
        place.dir.path().join("right"),
        place.dir.path().join("wrong"),
    );
    std::fs::write(&right, "correct horse\n").unwrap();
    std::fs::write(&wrong, "incorrect horse\n").unwrap();
    let run = |words: &[&str], file: &Path| {
        place
            .command(words)
            .env("UMBEL_PASSPHRASE_FILE", file)
            .output()
            .unwrap()
    };

    assert_eq!(code(&run(&["init", "--seed", SEED], &right)), 0);
    assert_eq!(code(&run(&["status", "--offline"], &right)), 0);
    let refused = run(&["status", "--offline", "--json"], &wrong);
    assert_eq!(code(&refused), 1);
    assert!(json_error(&refused).0.contains("wrong passphrase"));
    let unasked = place.run(&["status", "--offline", "--json"]);
    assert_eq!(code(&unasked), 1);
    assert!(json_error(&unasked).1.contains("UMBEL_PASSPHRASE_FILE"));
}

#[test]
fn where_memory_is_short_the_right_passphrase_is_not_called_wrong() {
    let place = Place::new();
    let file = place.dir.path().join("passphrase");
    std::fs::write(&file, "correct horse\n").unwrap();
    let init = place
        .command(&["init", "--seed", SEED])
        .env("UMBEL_PASSPHRASE_FILE", &file)
        .output();
    assert_eq!(code(&init.unwrap()), 0);
    // The passphrase is stretched in 64 MiB: with the first limit there is no room for that.
    for mib in [64, 80, 90, 100, 128] {
        let limited = format!("ulimit -v {} && exec \"$0\" \"$@\"", mib << 10);
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &limited,
            env!("CARGO_BIN_EXE_umbel"),
            "list",
            "--json",
        ]);
        command
            .env("UMBEL_PROFILE", place.profile())
            .env("HOME", place.dir.path())
            .env("UMBEL_PASSPHRASE_FILE", &file);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let is_short = code(&output) == 1 && {
            let (error, hint) = json_error(&output);
            error.contains("out of memory") && hint.contains("ulimit -v")
        };
        assert!(
            is_short || mib > 64 && code(&output) == 0,
            "{mib} MiB: {output:?}"
        );
    }
}

#[test]
fn init_takes_a_network_file_and_refuses_a_wrong_one() {
    let place = Place::new();
    let (good, bad) = (
        place.dir.path().join("good.toml"),
        place.dir.path().join("bad.toml"),
    );
    std::fs::write(&bad, "id = \"00\"\nname = \"bad\"\n").unwrap();
    let key = place.profile().join("key");
    let init = |file: &Path| {
        let words = [
            "init",
            "--network",
            file.to_str().unwrap(),
            "--seed",
            SEED,
            "--key-file",
            key.to_str().unwrap(),
        ];
        place.run(&[&words[..], &["--json"]].concat())
    };
    let refused = init(&bad);
    assert_eq!(code(&refused), 2);
    assert!(json_error(&refused).0.contains("id"));
    assert!(!place.profile().join("profile.toml").exists());
    let text = Network::local().to_toml();
    std::fs::write(&good, format!("{text}[optional]\ncontact = \"x\"\n")).unwrap();
    let made = init(&good);
    assert_eq!(code(&made), 0, "{made:?}");
    let line: Value = serde_json::from_str(stdout(&made)).unwrap();
    assert_eq!(line["network"], "local");
    let warned = String::from_utf8_lossy(&made.stderr);
    assert!(warned.contains("optional.contact"), "{warned}");
}
