//! The `umbel` command, as far as it goes without a network: arguments, errors, exit codes,
//! profiles.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may fail, and use real files"
)]

mod ended;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ended::{code, stderr, stdout, umbel};
use serde_json::Value;
use tempfile::TempDir;
use umbel_proto::network::Network;

const SEED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:1";

/// A directory of its own for each test, and the command in it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    fn profile(&self) -> PathBuf {
        self.dir.path().join("profile")
    }

    fn command(&self, words: &[&str]) -> Command {
        umbel(self.dir.path(), words)
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// A profile with a key file and a seed that nobody answers for.
    fn with_profile() -> Self {
        let place = Self::new();
        let key = place.profile().join("key");
        let made = place.run(&["init", "--seed", SEED, "--key-file", key.to_str().unwrap()]);
        assert_eq!(code(&made), 0, "{made:?}");
        place
    }
}

/// The error that `--json` gives: the last line on standard error, with what is wrong and what to
/// do.
fn json_error(output: &Output) -> (String, String) {
    let line: Value = serde_json::from_str(stderr(output).lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{output:?}"));
    let text = |key: &str| line[key].as_str().unwrap().to_owned();
    let (error, hint) = (text("error"), text("hint"));
    assert!(!error.is_empty() && !hint.is_empty());
    (error, hint)
}

fn address() -> String {
    umbel_proto::inbox::address::InboxIdentity::from_seed(&[3; 32])
        .address()
        .to_text()
}

#[test]
fn help_and_version_succeed() {
    let place = Place::new();
    for words in [
        &["--help"][..],
        &["--version"],
        &["send", "--help"],
        &["receive", "--help", "--json"],
    ] {
        let output = place.run(words);
        assert_eq!(code(&output), 0, "{words:?}");
        assert!(stdout(&output).contains("umbel"), "{words:?}");
    }
}

/// `umbel` in a directory of its own, where `umbel-bench` is the program `bench` or is not there.
fn umbel_beside(bench: Option<&str>) -> (TempDir, PathBuf) {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let umbel = dir.path().join("umbel");
    std::fs::hard_link(env!("CARGO_BIN_EXE_umbel"), &umbel).unwrap();
    if let Some(program) = bench {
        std::os::unix::fs::symlink(program, dir.path().join("umbel-bench")).unwrap();
    }
    (dir, umbel)
}

#[test]
fn bench_becomes_the_umbel_bench_beside_it() {
    let (_dir, umbel) = umbel_beside(Some("/bin/echo"));
    for (words, passed) in [
        (&["bench"][..], ""),
        (&["bench", "--help", "--quick"], "--help --quick"),
        (&["bench", "-h"], "-h"),
        (
            &["bench", "--quick", "--only", "cpu,bulk", "--json"],
            "--quick --only cpu,bulk --json",
        ),
        (
            &["--json", "-v", "bench", "--quick"],
            "--json --verbose --quick",
        ),
        (
            &["--profile", "p", "bench", "--json", "--ports", "7000"],
            "--json --ports 7000",
        ),
    ] {
        let output = Command::new(&umbel).args(words).output().unwrap();
        assert_eq!(code(&output), 0, "{words:?}: {output:?}");
        assert_eq!(stdout(&output).trim_end(), passed, "{words:?}");
    }
    let (_dir, umbel) = umbel_beside(Some("/bin/sh"));
    let output = Command::new(umbel)
        .args(["bench", "-c", "exit 7"])
        .output()
        .unwrap();
    assert_eq!(code(&output), 7, "{output:?}");
}

#[test]
fn bench_says_how_to_build_what_is_not_there() {
    let (_dir, umbel) = umbel_beside(None);
    let output = Command::new(&umbel).args(["bench"]).output().unwrap();
    assert_eq!(code(&output), 127);
    assert!(stderr(&output).starts_with("error: there is no umbel-bench in "));
    assert!(
        stderr(&output).contains("\n  hint: build it with `cargo build --release --workspace`")
    );
    let output = Command::new(&umbel)
        .args(["--json", "bench"])
        .output()
        .unwrap();
    assert_eq!(code(&output), 127);
    json_error(&output);
}

#[test]
fn help_lists_the_exit_codes_a_row_each() {
    let place = Place::new();
    let (common, others) = (
        ["0", "2", "69", "73", "74", "75", "130"],
        ["1", "127", "141"],
    );
    for (words, codes) in [
        (&["--help"][..], [&common[..], &others].concat()),
        (&["send", "--help"], [&common[..], &["1"]].concat()),
    ] {
        let help = place.run(words);
        let (_, rows) = stdout(&help).split_once("\nExit codes:\n").unwrap();
        let listed: Vec<&str> = rows
            .lines()
            .take_while(|row| !row.is_empty())
            .filter_map(|row| row.split_whitespace().next())
            .collect();
        for code in codes {
            assert!(
                listed.contains(&code),
                "{words:?}: {code} is not in {listed:?}"
            );
        }
    }
}

#[test]
fn a_wrong_command_line_is_exit_2() {
    let place = Place::new();
    for words in [
        &["frobnicate"][..],
        &["send"],
        &["send", "umbel1x", "text", "--file", "also"],
        &["receive", "--count", "0"],
        &["init", "--seed", "not-a-peer"],
        &["init"],
    ] {
        let output = place.run(words);
        assert_eq!(code(&output), 2, "{words:?}: {output:?}");
        let as_json = place.run(&[words, &["--json"]].concat());
        assert_eq!(code(&as_json), 2, "{words:?}: {as_json:?}");
        json_error(&as_json);
    }
}

#[test]
fn each_fault_of_an_address_has_its_own_words() {
    let place = Place::with_profile();
    let good = address();
    let mistyped = good
        .replace(good.chars().nth(20).unwrap(), "q")
        .replace(&good[30..31], "p");
    let mut said = Vec::new();
    for wrong in [
        "alice@example.org",
        &good[..40],
        &mistyped,
        &format!("{good}qq"),
    ] {
        let output = place.run(&["send", wrong, "hello", "--json"]);
        assert_eq!(code(&output), 2, "{wrong}");
        said.push(json_error(&output).0);
    }
    said.sort();
    said.dedup();
    assert_eq!(said.len(), 4, "{said:?}");
}

#[test]
fn a_message_that_is_too_long_names_the_maximum() {
    let place = Place::with_profile();
    let max = umbel_proto::inbox::record::MESSAGE_LEN_MAX;
    let file = place.dir.path().join("large");
    std::fs::write(&file, vec![b'x'; max + 1]).unwrap();
    let output = place.run(&[
        "send",
        &address(),
        "--file",
        file.to_str().unwrap(),
        "--json",
    ]);
    assert_eq!(code(&output), 1);
    assert!(json_error(&output).0.contains(&max.to_string()));

    let mut child = place
        .command(&["send", &address(), "-", "--json"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&vec![b'x'; max + 1])
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(json_error(&output).0.contains(&max.to_string()));
}

#[test]
fn text_may_begin_with_a_dash_and_a_mistyped_option_is_not_text() {
    let place = Place::with_profile();
    let address = address();
    // The message is taken into the outbox and does not get further: no seed answers.
    for words in [
        &["send", &address, "-text"][..],
        &["send", &address, "-"],
        &["send", &address, "--", "-x"],
        &["send", &address, "--", "--typo"],
        &["send", "--", &address, "-y"],
        &["send", "--timeout", "1", &address, "-v of mine"],
        &["send", &address, "-text", "--timeout", "1s"],
        &["send", &address, "- item"],
        &["send", &address, "--- cut ---"],
    ] {
        let mut child = place
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"from standard input")
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 69, "{words:?}: {output:?}");
    }
    for words in [
        &["send", &address, "--typo"][..],
        &["send", &address, "--timeot=5"],
        &["send", "--typo", &address, "text"],
        &["send", &address, "text", "more"],
        &["send", &address, "--", "text", "more"],
        &["send", &address, "text", "--", "more"],
        &["send", &address, "--file", "x", "--", "text"],
        &["send", "--", &address, "text", "more"],
        &["send", "--", &address],
    ] {
        let output = place.run(&[&["--json"], words].concat());
        assert_eq!(code(&output), 2, "{words:?}: {output:?}");
        let (error, hint) = json_error(&output);
        assert!(!format!("{error}{hint}").contains("VERBATIM"), "{output:?}");
    }
}

#[test]
fn an_empty_message_is_sent_only_if_that_is_meant() {
    let place = Place::with_profile();
    let empty = place.dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let (address, empty) = (address(), empty.to_str().unwrap());
    for words in [
        &["send", &address, ""][..],
        &["send", &address, "-"],
        &["send", &address],
        &["send", &address, "--file", empty],
        &["send", &address, "--file", "/dev/null"],
    ] {
        let output = place.run(&[&["--json"], words].concat());
        assert_eq!(code(&output), 2, "{words:?}: {output:?}");
        assert!(json_error(&output).1.contains("--allow-empty"));
        let meant = place.run(&[words, &["--allow-empty"]].concat());
        assert_eq!(code(&meant), 69, "{words:?}: {meant:?}");
    }
}

#[test]
fn output_that_can_not_be_written_has_a_code_of_its_own() {
    let place = Place::with_profile();
    for words in [
        &["status", "--offline"][..],
        &["status", "--offline", "--json"],
        &["--help"],
        &["send", "--help"],
        &["--version"],
    ] {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = place.command(words).stdout(full).output().unwrap();
        assert_eq!(code(&output), 73, "{output:?}");
    }
    // That the message is not out yet matters more.
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = place
        .command(&["send", &address(), "hello", "--json"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(code(&output), 69, "{output:?}");
}

#[test]
fn errors_have_one_form_and_name_their_exit_code() {
    let place = Place::new();
    for (words, name, number) in [
        (&["status"][..], "failed", 1),
        (&["frobnicate"], "usage", 2),
        (&["send"], "usage", 2),
    ] {
        let output = place.run(words);
        assert!(
            stderr(&output).starts_with("error: ") && stderr(&output).contains("\n  hint: "),
            "{output:?}"
        );
        assert_eq!(stderr(&output).lines().count(), 2, "{output:?}");
        let is_asked_for = stderr(&output).contains("--profile <");
        assert!(!is_asked_for, "UMBEL_PROFILE names it: {output:?}");
        let output = place.run(&[words, &["--json"]].concat());
        let line: Value = serde_json::from_str(stderr(&output).trim()).unwrap();
        assert_eq!(
            (line["exit"].as_str(), line["exit_code"].as_i64()),
            (Some(name), Some(number))
        );
    }
}

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
fn a_message_is_not_promised_for_longer_than_relays_keep_it() {
    let place = Place::with_profile();
    for (life, is_taken) in [("0s", false), ("1s", true), ("14d", true), ("15d", false)] {
        let sent = place.run(&["send", &address(), "soon", "--expire-after", life]);
        assert_eq!(code(&sent), if is_taken { 69 } else { 2 }, "{sent:?}");
        assert!(is_taken || stderr(&sent).contains("14 days"), "{sent:?}");
    }
    let listed = place.run(&["outbox", "list", "--json"]);
    assert!(stdout(&listed).lines().count() <= 2, "{listed:?}");
}

#[test]
fn what_is_in_the_outbox_is_listed_shown_and_taken_back_without_a_network() {
    let place = Place::with_profile();
    let empty = place.run(&["outbox", "list"]);
    assert_eq!(
        (code(&empty), stdout(&empty)),
        (0, "The outbox is empty.\n")
    );
    let address = address();
    let sent = place.run(&["send", &address, "take me back", "--expire-after", "2d"]);
    assert_eq!(code(&sent), 69, "{sent:?}");
    assert_eq!(code(&place.run(&["send", &address, "and me"])), 69);

    let listed = place.run(&["outbox", "list", "--json"]);
    let entries: Vec<Value> = stdout(&listed)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(entries.len(), 2, "{listed:?}");
    assert_eq!(
        (entries[0]["state"].as_str(), entries[0]["address"].as_str()),
        (Some("queued"), Some(address.as_str()))
    );
    let id = entries[0]["id"].as_str().unwrap();
    let shown = place.run(&["outbox", "show", &id[..10]]);
    assert!(
        code(&shown) == 0 && stdout(&shown).contains("    take me back"),
        "{shown:?}"
    );

    // The command does the work that needs no inbox, and reports that no relay answers.
    let received = place.run(&["receive", "--timeout", "1"]);
    assert_eq!(code(&received), 69, "{received:?}");
    assert!(
        stderr(&received).contains("only the outbox is tried"),
        "{received:?}"
    );

    let cancelled = place.run(&["outbox", "cancel", id, "--json"]);
    assert_eq!(code(&cancelled), 0, "{cancelled:?}");
    let line: Value = serde_json::from_str(stdout(&cancelled)).unwrap();
    assert_eq!(
        (line["holders"].as_u64(), line["may_be_out"].as_bool()),
        (Some(0), Some(false))
    );
    assert_eq!(
        stdout(&place.run(&["outbox", "list", "--json"]))
            .lines()
            .count(),
        1
    );
    let again = place.run(&["outbox", "cancel", id, "--json"]);
    assert_eq!(code(&again), 1);
    assert!(json_error(&again).1.contains("umbel outbox list"));
    assert_eq!(code(&place.run(&["outbox", "flush", "--timeout", "1"])), 69);
}

#[test]
fn status_says_whether_the_network_was_tried_and_whether_it_answers() {
    let place = Place::with_profile();
    let network = |words: &[&str]| -> Value {
        let output = place.run(&[&["status", "--json"], words].concat());
        serde_json::from_str::<Value>(stdout(&output)).unwrap()["network"].clone()
    };
    assert_eq!(network(&["--offline"]), "not_tried");
    assert_eq!(network(&[]), "no_answer");
    let text = place.run(&["status"]);
    assert!(
        stdout(&text).contains("not reached: no relay answers"),
        "{text:?}"
    );
}

#[test]
fn options_that_every_command_has_stand_apart_in_help() {
    let place = Place::new();
    let help = place.run(&["send", "--help"]);
    let (own, global) = stdout(&help).split_once("Global options:").unwrap();
    assert!(own.contains("--timeout") && global.contains("--profile") && global.contains("--json"));
    assert!(!own.contains("--profile") && !global.contains("--timeout"));
}

#[test]
fn without_a_profile_commands_say_how_to_make_one() {
    let place = Place::new();
    for words in [
        &["status"][..],
        &["inbox", "list"],
        &["receive"],
        &["send", &address(), "hello"],
    ] {
        let output = place.run(&[words, &["--json"]].concat());
        assert_eq!(code(&output), 1, "{words:?}");
        let (error, hint) = json_error(&output);
        assert!(
            error.contains(place.profile().to_str().unwrap()) && hint.contains("umbel init"),
            "{error} {hint}"
        );
    }
}

#[test]
fn people_get_the_same_error_as_text() {
    let output = Place::new().run(&["status"]);
    assert!(
        stderr(&output).starts_with("error: no profile in "),
        "{output:?}"
    );
    assert!(stderr(&output).contains("\n  hint: "), "{output:?}");
    assert!(output.stdout.is_empty());
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

#[test]
fn what_needs_no_network_works_beside_the_process_that_has_it() {
    let place = Place::with_profile();
    let lock = std::fs::File::create(place.profile().join("lock")).unwrap();
    lock.lock().unwrap();
    for words in [&["status", "--offline"][..], &["inbox", "list"]] {
        let output = place.run(&[words, &["--json"]].concat());
        assert_eq!(code(&output), 0, "{words:?}: {output:?}");
    }
}

#[test]
fn status_works_offline() {
    let place = Place::with_profile();
    let output = place.run(&["status", "--offline", "--json"]);
    assert_eq!(code(&output), 0);
    let line: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(line["relays"], 0);
    assert_eq!(line["circuits"], 0);
    assert!(line["guard"].is_null());
    assert!(line["outbox"].as_array().unwrap().is_empty());
    assert!(line["inboxes"].as_array().unwrap().is_empty());
}

#[test]
fn an_inbox_that_is_not_there_is_an_error_with_a_way_out() {
    let place = Place::with_profile();
    for words in [
        &["receive", "main"][..],
        &["inbox", "show", "main"],
        &["receive"],
    ] {
        let output = place.run(&[words, &["--json"]].concat());
        assert_eq!(code(&output), 1, "{words:?}");
        assert!(
            json_error(&output).1.contains("umbel inbox create"),
            "{words:?}"
        );
    }
    let listed = place.run(&["inbox", "list", "--json"]);
    assert_eq!((code(&listed), stdout(&listed)), (0, ""));
}

#[test]
fn seeds_are_changed_without_the_profiles_key() {
    let other = SEED.replacen('a', "b", 51);
    let place = Place::with_profile();
    std::fs::remove_file(place.profile().join("key")).unwrap();
    let added = place.run(&["seed", "add", &other, "--json"]);
    assert_eq!(code(&added), 0, "{added:?}");
    let line: Value = serde_json::from_str(stdout(&added)).unwrap();
    assert_eq!(
        (line["seed"].as_str(), line["state"].as_str()),
        (Some(other.as_str()), Some("added"))
    );
    let again = place.run(&["seed", "add", &other, "--json"]);
    assert_eq!(code(&again), 1);
    assert!(json_error(&again).0.contains("already"));
    assert_eq!(
        stdout(&place.run(&["seed", "list"])),
        format!("{SEED}\n{other}\n")
    );
    let (id, _) = SEED.split_once('@').unwrap();
    assert_eq!(code(&place.run(&["seed", "remove", id])), 0);
    let last = place.run(&["seed", "remove", &other, "--json"]);
    assert_eq!(code(&last), 1);
    assert!(json_error(&last).1.contains("umbel seed add"));
    let unknown = place.run(&["seed", "remove", id, "--json"]);
    assert!(code(&unknown) == 1 && json_error(&unknown).1.contains("umbel seed list"));
    for bad in [
        &["seed", "add", "relay.example:7443"][..],
        &["seed", "remove", "x"],
        &["seed", "add"],
    ] {
        assert_eq!(code(&place.run(bad)), 2, "{bad:?}");
    }
    assert_eq!(stdout(&place.run(&["seed", "list"])), format!("{other}\n"));
}

#[test]
fn seeds_need_a_profile_and_make_none() {
    let place = Place::new();
    for words in [
        &["seed", "list", "--json"][..],
        &["seed", "add", SEED, "--json"],
    ] {
        let output = place.run(words);
        assert!(
            code(&output) == 1 && json_error(&output).1.contains("umbel init"),
            "{output:?}"
        );
    }
    assert!(!place.profile().exists());
}

#[test]
fn commands_end_and_say_why_when_their_profile_is_deleted() {
    let place = Place::with_profile();
    place.run(&["inbox", "create", "main", "--timeout", "1s"]);
    let follow = || {
        let words = ["receive", "--follow", "--verbose"];
        let mut child = place
            .command(&words)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        // It has the profile open by then.
        said.read_line(&mut String::new()).unwrap();
        (child, said)
    };
    let children = [follow(), follow()];
    std::fs::remove_file(place.profile().join("profile.db")).unwrap();
    for (mut child, mut said) in children {
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{text}");
        assert!(
            text.contains("error: profile.db was deleted or replaced while umbel used it")
                && text.contains("from a backup"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn another_relay_in_the_place_of_a_seed_is_not_called_silence() {
    let (dir, network) = (TempDir::new().unwrap(), Network::local());
    umbel_relay::init(dir.path(), &network, None).unwrap();
    let config = umbel_relay::config::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..umbel_relay::config::Config::new(dir.path())
    };
    let relay = umbel_relay::Relay::start(config, network).await.unwrap();
    let (id, _) = SEED.split_once('@').unwrap();
    let seed = format!("{id}@{}", relay.peer().host_port);
    let said = tokio::task::spawn_blocking(move || {
        let place = Place::new();
        let key = place.profile().join("key");
        let key = key.to_str().unwrap();
        place.run(&["init", "--seed", &seed, "--key-file", key]);
        let address = address();
        [&["status"][..], &["send", &address, "text"]].map(|words| place.run(words))
    });
    for output in said.await.unwrap() {
        let said = stderr(&output);
        assert!(
            said.contains("another identity answered there"),
            "{output:?}"
        );
        assert!(
            said.contains(id) && said.contains("umbel seed remove"),
            "{said}"
        );
    }
    relay.shutdown().await;
}

#[cfg(target_os = "linux")]
#[test]
fn a_message_is_typed_where_none_is_given_on_a_terminal() {
    let place = Place::with_profile();
    let send = format!(
        "{} send {} --timeout 1s",
        env!("CARGO_BIN_EXE_umbel"),
        address()
    );
    for (typed, exit) in [("hello\n", 69), ("", 2)] {
        let mut child = Command::new("script")
            .args(["-qec", &send, "/dev/null"])
            .env("UMBEL_PROFILE", place.profile())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut terminal = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        terminal.read_line(&mut said).unwrap();
        assert!(
            said.contains("Type the message") && said.contains("Ctrl-D"),
            "{said}"
        );
        // Its end is Ctrl-D on the terminal.
        child
            .stdin
            .take()
            .unwrap()
            .write_all(typed.as_bytes())
            .unwrap();
        terminal.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(exit), "{said}");
    }
}

#[test]
fn delete_asks_for_ids_or_an_age() {
    let place = Place::with_profile();
    for words in [
        &["delete"][..],
        &["delete", "--unread"],
        &["delete", "x", "--older", "30d"],
    ] {
        let output = place.run(words);
        assert_eq!(code(&output), 2, "{output:?}");
        let usage = "usage: umbel delete [OPTIONS] (<IDS>... | --older <TIME>)";
        assert!(stderr(&output).contains(usage), "{output:?}");
    }
}
