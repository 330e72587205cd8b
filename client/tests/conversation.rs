//! A stranger writes, is answered, and both sides see the same, over a network of this machine.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may fail, and use real files and processes"
)]

mod ended;

use std::path::Path;
use std::process::Output;

use ended::{code, stderr, stdout, umbel};
use serde_json::Value;
use tempfile::TempDir;
use umbel_client::local::LocalNetwork;

struct User<'a> {
    dir: &'a Path,
    profile: String,
}

impl<'a> User<'a> {
    fn new(dir: &'a Path, name: &str, seed: &str) -> Self {
        let profile = dir.join(name).to_str().unwrap().to_owned();
        let user = Self { dir, profile };
        let key = dir.join(name).join("key");
        user.json(&["init", "--seed", seed, "--key-file", key.to_str().unwrap()]);
        user
    }

    fn run(&self, words: &[&str]) -> Output {
        let words = [words, &["--profile", &self.profile]].concat();
        let output = umbel(self.dir, &words).output().unwrap();
        assert_eq!(code(&output), 0, "{words:?}: {}", stderr(&output));
        output
    }

    fn json(&self, words: &[&str]) -> Vec<Value> {
        let output = self.run(&[words, &["--json"]].concat());
        let lines = stdout(&output).lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The next message that comes, fetched as often as it takes.
    fn receive(&self) -> Value {
        let received = self.json(&["receive", "--count", "1", "--timeout", "120s"]);
        received.into_iter().next().unwrap()
    }
}

#[test] // §11.2, §11.7(1), §11.7(3)
fn a_stranger_is_answered_and_both_see_the_same_digits() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let network = runtime.block_on(LocalNetwork::start(8)).unwrap();
    let seed = network.peers()[0].to_string();
    let dir = TempDir::new().unwrap();
    let alice = User::new(dir.path(), "alice", &seed);
    let bob = User::new(dir.path(), "bob", &seed);
    let made = bob.json(&["inbox", "create", "main"]);
    let address = made[0]["address"].as_str().unwrap().to_owned();

    alice.run(&["contact", "add", "bob", &address]);
    alice.run(&["send", "bob", "the first"]);
    let first = bob.receive();
    assert_eq!(
        (&first["inbox"], &first["seq"]),
        (&"main".into(), &1.into())
    );
    let from = &first["from"];
    assert_eq!(
        (&from["is_stranger"], &from["name"]),
        (&true.into(), &Value::Null)
    );
    let words = from["words"].as_str().unwrap();

    alice.run(&["send", "bob", "and more"]);
    let shown = bob.run(&["receive", "--count", "1", "--timeout", "120s"]);
    assert!(stdout(&shown).contains("    and more\n  (a stranger: answer with `umbel reply"));
    assert!(stdout(&shown).contains(&format!("from {words} (stranger)")));

    let id = first["id"].as_str().unwrap();
    bob.run(&["reply", &id[..8], "an answer"]);
    let answer = alice.receive();
    assert_eq!(
        (&answer["inbox"], &answer["from"]["name"]),
        (&Value::Null, &"bob".into())
    );
    assert_eq!(answer["from"]["is_stranger"], false);

    bob.run(&["contact", "rename", words, "alice"]);
    let digits = |user: &User<'_>, name: &str| {
        let shown = user.json(&["contact", "verify", name, "--yes"]);
        assert_eq!(shown[0]["verified"], true);
        shown[0]["safety_number"].as_str().unwrap().to_owned()
    };
    assert_eq!(digits(&alice, "bob"), digits(&bob, "alice"));

    alice.run(&["send", "bob", "the second"]);
    let second = bob.receive();
    assert_eq!(second["from"]["name"], "alice");
    assert_eq!(second["from"]["verified"], true);
    let history = alice.json(&["history", "bob"]);
    let texts: Vec<&str> = history
        .iter()
        .map(|it| it["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["the first", "and more", "an answer", "the second"]);
    assert_eq!(history[0]["state"], "acknowledged", "the answer said so");
    runtime.block_on(network.stop()).unwrap();
}
