//! Contacts, replies and histories, as far as they go without a network.

use std::process::Output;

use serde_json::Value;

use crate::ended::{code, stdout};
use crate::place::{Place, address, json_error};

fn json(output: &Output) -> Vec<Value> {
    assert_eq!(code(output), 0, "{output:?}");
    let lines = stdout(output);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn an_address_has_a_name_before_it_is_written_to() {
    let place = Place::with_profile();
    let added = place.run(&["contact", "add", "bob", &address(), "--json"]);
    assert_eq!(json(&added)[0]["name"], "bob");
    let renamed = place.run(&["contact", "rename", "bob", "Bob M."]);
    assert_eq!(code(&renamed), 0);
    let listed = json(&place.run(&["contact", "list", "--json"]));
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["name"], "Bob M.");
    assert_eq!(listed[0]["address"], address());
    assert_eq!(listed[0]["contact"], Value::Null);
    assert!(stdout(&place.run(&["contact", "show", "Bob M."])).contains(&address()));
    for command in ["verify", "block", "unblock"] {
        let output = place.run(&["contact", command, "Bob M.", "--json"]);
        assert_eq!(code(&output), 1, "{command}");
        assert!(json_error(&output).0.contains("no conversation"));
    }
    let history = place.run(&["history", "Bob M.", "--json"]);
    assert_eq!(code(&history), 1);
    let removed = place.run(&["contact", "remove", "Bob M.", "--json"]);
    assert_eq!(json(&removed)[0]["removed"], "Bob M.");
    assert!(json(&place.run(&["contact", "list", "--json"])).is_empty());
}

#[test]
fn a_name_that_nobody_has_or_may_have_is_an_error_with_a_way_out() {
    let place = Place::with_profile();
    let unknown: [&[&str]; 8] = [
        &["send", "nobody", "hello"],
        &["reply", "nobody", "hello"],
        &["history", "nobody"],
        &["contact", "show", "nobody"],
        &["contact", "rename", "nobody", "bob"],
        &["contact", "verify", "nobody"],
        &["contact", "block", "nobody"],
        &["contact", "remove", "nobody"],
    ];
    for words in unknown {
        let output = place.run(&[words, &["--json"]].concat());
        assert_eq!(code(&output), 2, "{words:?}");
        let (error, hint) = json_error(&output);
        assert!(error.contains("nobody"), "{error}");
        assert!(hint.contains("contact list"), "{hint}");
    }
    for name in ["", " bob", "umbel1bob", "bo\nb"] {
        let output = place.run(&["contact", "add", name, &address(), "--json"]);
        assert_eq!(code(&output), 2, "{name:?}");
    }
    assert_eq!(
        code(&place.run(&["contact", "add", "bob", "bob", "--json"])),
        2
    );
    assert_eq!(code(&place.run(&["contact", "add", "bob", &address()])), 0);
    let other = umbel_proto::inbox::address::InboxIdentity::from_seed(&[4; 32]);
    let other = other.address().to_text();
    let taken = place.run(&["contact", "add", "bob", &other, "--json"]);
    assert_eq!(code(&taken), 1);
    assert!(json_error(&taken).1.contains("contact rename"));
}

#[test]
fn what_can_not_be_answered_or_proved_is_said_before_anything_is_sent() {
    let place = Place::with_profile();
    let no_message = place.run(&["reply", "abcd", "hello", "--json"]);
    assert_eq!(code(&no_message), 1);
    assert!(json_error(&no_message).0.contains("no message"));
    let no_inbox = place.run(&["send", &address(), "hello", "--as", "main", "--json"]);
    assert_eq!(code(&no_inbox), 1);
    assert!(json_error(&no_inbox).1.contains("inbox list"));
    let both = place.run(&[
        "send",
        &address(),
        "hello",
        "--as",
        "main",
        "--one-way",
        "--json",
    ]);
    assert_eq!(code(&both), 2);
    assert!(json(&place.run(&["outbox", "list", "--json"])).is_empty());
}

#[test]
fn a_message_goes_one_way_only_if_that_is_asked() {
    let place = Place::with_profile();
    assert_eq!(code(&place.run(&["contact", "add", "bob", &address()])), 0);
    for words in [
        &["send", &address(), "hello"][..],
        &["send", "bob", "hello"],
        &["send", "bob", "hello", "--one-way"],
        &["send", &address(), "hello", "--one-way"],
    ] {
        let output = place.run(&[words, &["--timeout", "1s"]].concat());
        assert_eq!(code(&output), 69, "{output:?}");
    }
    let listed = json(&place.run(&["outbox", "list", "--json"]));
    let ways: Vec<&Value> = listed.iter().map(|line| &line["is_one_way"]).collect();
    assert_eq!(ways, [false, false, true, true]);
    let is_known = |line: &Value| line["address"] == address() || line["name"] == "bob";
    assert!(listed.iter().all(is_known), "{listed:?}");
}

#[test]
fn a_conversation_is_named_verified_blocked_and_removed() {
    let place = Place::with_profile();
    assert_eq!(code(&place.run(&["contact", "add", "bob", &address()])), 0);
    let sent = place.run(&["send", "bob", "the minutes", "--timeout", "1s"]);
    assert_eq!(code(&sent), 69, "{sent:?}");
    let contact = json(&place.run(&["contact", "show", "bob", "--json"])).remove(0);
    assert_eq!(
        (&contact["address"], &contact["verified"]),
        (&address().into(), &false.into())
    );
    let words = contact["words"].as_str().unwrap();
    assert_eq!(words.split('-').count(), 3);
    let number = contact["safety_number"].as_str().unwrap();
    assert_eq!(number.split(' ').count(), 12);

    let shown = place.run(&["contact", "verify", words]);
    assert!(stdout(&shown).contains(&number[..23]) && stdout(&shown).contains("Not verified"));
    let verified = json(&place.run(&["contact", "verify", "bob", "--yes", "--json"]));
    assert_eq!(verified[0]["verified"], true);
    assert_eq!(code(&place.run(&["contact", "rename", words, "robert"])), 0);
    let history = json(&place.run(&["history", "robert", "--search", "MINUTES", "--json"]));
    assert_eq!(history.len(), 1);
    assert_eq!(
        (&history[0]["is_own"], &history[0]["text"]),
        (&true.into(), &"the minutes".into())
    );
    assert_eq!(history[0]["state"], "queued");
    let other = json(&place.run(&["history", "robert", "--search", "hours", "--json"]));
    assert!(other.is_empty());
    let listed = place.run(&["outbox", "list"]);
    assert!(stdout(&listed).contains("to robert"), "{listed:?}");

    let blocked = json(&place.run(&["contact", "block", "robert", "--json"]));
    assert_eq!(blocked[0]["is_blocked"], true);
    let unblocked = json(&place.run(&["contact", "unblock", "robert", "--json"]));
    assert_eq!(unblocked[0]["is_blocked"], false);
    assert_eq!(
        code(&place.run(&["contact", "remove", "robert", "--yes"])),
        0
    );
    assert!(json(&place.run(&["contact", "list", "--json"])).is_empty());
    assert!(json(&place.run(&["outbox", "list", "--json"])).is_empty());
    assert_eq!(code(&place.run(&["history", "robert"])), 2);
}

#[test]
fn a_profile_with_a_contact_and_no_inbox_receives() {
    let place = Place::with_profile();
    assert_eq!(
        code(&place.run(&["receive"])),
        1,
        "there is nobody to hear from"
    );
    let sent = place.run(&["send", &address(), "hello", "--timeout", "1s"]);
    assert_eq!(code(&sent), 69, "{sent:?}");
    let received = place.run(&["receive", "--timeout", "2s", "--json"]);
    assert_eq!(code(&received), 69, "{received:?}");
    assert!(json_error(&received).0.contains("no relay"));
}
