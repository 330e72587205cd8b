//! Two people who write to each other while their programs are killed (docs/protocol.md §11.8, §11.9).

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fleet::{Fleet, Profile};

/// Messages that each side writes, and after how many its program is killed.
const MESSAGES: usize = 200;
const KILLED_EVERY: usize = 20;

/// A program that follows a profile's mail until it is killed.
struct Follower(Child);

impl Follower {
    fn start(profile: &Profile) -> Self {
        let mut command = profile.umbel(&["receive", "--follow"]);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("umbel runs"))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.0.kill()); // SIGKILL
        drop(self.0.wait());
    }
}

/// The texts of a conversation that one side wrote, in their order, by what this profile says.
fn texts(profile: &Profile, name: &str, is_own: bool) -> Vec<String> {
    let history = profile.ok(&["history", name, "--limit", "100000"]);
    let written = history.iter().filter(|line| line["is_own"] == is_own);
    let text = |line: &Value| line["text"].as_str().unwrap_or_default().to_owned();
    written.map(text).collect()
}

#[test] // §11.7(1), §11.8(2), §11.9
fn two_hundred_messages_each_way_outlive_a_kill_after_every_twenty() {
    let fleet = Fleet::new(12);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    alice.ok(&["contact", "add", "bob", &address]);
    alice.ok(&["send", "bob", "alice 0"]);
    let first = bob.ok(&["receive", "--count", "1", "--timeout", "60s"]);
    let words = first[0]["from"]["words"].as_str().expect("a stranger");
    bob.ok(&["contact", "rename", words, "alice"]);
    let mut followers = [&alice, &bob].map(Follower::start);
    for number in 1..MESSAGES {
        alice.ok(&["send", "bob", &format!("alice {number}")]);
        bob.ok(&["send", "alice", &format!("bob {number}")]);
        if number % KILLED_EVERY == 0 {
            // One after the other, in the middle of what it does.
            let side = number / KILLED_EVERY % 2;
            followers[side] = Follower::start([&alice, &bob][side]);
        }
    }
    let of = |name: &str, from: usize| -> Vec<String> {
        (from..MESSAGES).map(|it| format!("{name} {it}")).collect()
    };
    let gives_up_at = Instant::now() + Duration::from_secs(300);
    let came = || (texts(&bob, "alice", false), texts(&alice, "bob", false));
    while came().0.len() < MESSAGES || came().1.len() < MESSAGES - 1 {
        let (to_bob, to_alice) = came();
        assert!(
            Instant::now() < gives_up_at,
            "{} of {MESSAGES} came to bob, {} to alice",
            to_bob.len(),
            to_alice.len()
        );
        thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(came(), (of("alice", 0), of("bob", 1)));
    let digits = |profile: &Profile, name: &str| {
        profile.ok(&["contact", "verify", name])[0]["safety_number"].clone()
    };
    assert_eq!(digits(&alice, "bob"), digits(&bob, "alice"));
    assert_eq!(
        digits(&alice, "bob").as_str().map(str::len),
        Some(12 * 5 + 11)
    );
}
