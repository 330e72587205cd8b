//! Commands on a profile: its state, inboxes, seeds, and its end.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use umbel_proto::network::{Invite, Network};

use crate::ended::{code, stderr, stdout};
use crate::place::{Place, SEED, address, json_error};

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
fn the_profiles_own_seeds_are_passed_on_only_if_asked_for() {
    let place = Place::with_profile();
    let refused = place.run(&["invite-peer", "--json"]);
    assert_eq!(code(&refused), 1);
    assert!(json_error(&refused).1.contains("--own-seeds"));
    let named = place.run(&["invite-peer", "--own-seeds"]);
    let invite: Invite = stdout(&named).trim().parse().unwrap();
    assert_eq!(invite.seeds()[0].to_string(), SEED);

    let refused = place.run(&["relay", "--json"]);
    assert_eq!(code(&refused), 2);
    assert!(json_error(&refused).1.contains("--own-seeds"));
    let other = SEED.replacen('a', "b", 51);
    let with_other = relay_config(&place, "one", &["--seed", &other]);
    assert!(with_other.contains(&other) && !with_other.contains(SEED));
    let with_own = relay_config(&place, "two", &["--own-seeds"]);
    assert!(with_own.contains(SEED));
}

/// The configuration of a relay that `umbel relay` makes, in a directory of this name.
fn relay_config(place: &Place, name: &str, words: &[&str]) -> String {
    let dir = place.dir.path().join(name);
    let fixed = ["relay", "--listen", "127.0.0.1:0", "--data-dir"];
    let mut relay = place
        .command(&[&fixed[..], &[dir.to_str().unwrap()], words].concat())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut lines = BufReader::new(relay.stdout.take().unwrap());
    lines.read_line(&mut told).unwrap();
    relay.kill().unwrap();
    relay.wait().unwrap();
    assert!(told.contains("runs"), "{told}");
    std::fs::read_to_string(dir.join("umbel-relay.toml")).unwrap()
}

#[test]
fn a_file_that_is_shown_in_an_error_does_not_drive_the_terminal() {
    let place = Place::with_profile();
    let path = place.profile().join("profile.toml");
    std::fs::write(&path, "a = \"\u{9b}2J\u{202e}\" \u{9b}2J\n").unwrap();
    let refused = place.run(&["seed", "list"]);
    assert_ne!(code(&refused), 0);
    let said = stderr(&refused);
    assert!(said.contains("\\u{9b}2J"), "{said}");
    assert!(!said.contains(['\u{9b}', '\u{202e}']), "{said}");
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
