//! `umbel send` and the outbox, as far as they go without a network.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::ended::{code, stderr, stdout};
use crate::place::{Place, address, json_error};

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
    let max = umbel_proto::inbox::record::LETTER_LEN_MAX;
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
    let sent = place.run(&[
        "send",
        &address,
        "take me back",
        "--one-way",
        "--expire-after",
        "2d",
    ]);
    assert_eq!(code(&sent), 69, "{sent:?}");
    assert_eq!(
        code(&place.run(&["send", &address, "and me", "--one-way"])),
        69
    );

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
