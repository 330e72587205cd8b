//! Help, exit codes, and the one form of errors.

use serde_json::Value;

use crate::ended::{code, stderr, stdout};
use crate::place::{Place, address, json_error};

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
