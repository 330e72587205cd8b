//! Several commands on one profile (docs/decisions/014-several-commands-on-one-profile.md), and how
//! they end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::counted;
use super::fleet::{Fleet, Profile, bodies, objects};

/// A command that runs beside others. Killed when it is dropped.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(profile: &Profile, args: &[&str]) -> Self {
        let mut command = profile.umbel(args);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("umbel runs");
        let out = BufReader::new(child.stdout.take().expect("its output is piped"));
        Self { child, out }
    }

    /// Waits until this process drives the profile.
    fn until_it_drives(mut self, profile: &Profile) -> Self {
        let pid = self.child.id().to_string();
        let gives_up_at = Instant::now() + Duration::from_secs(60);
        while std::fs::read_to_string(profile.dir.join("lock"))
            .unwrap_or_default()
            .trim()
            != pid
        {
            let ended = self.child.try_wait().expect("a child can be looked at");
            assert!(
                ended.is_none(),
                "it ended before it drove the profile: {ended:?}"
            );
            assert!(Instant::now() < gives_up_at, "it never drove the profile");
            thread::sleep(Duration::from_millis(5));
        }
        self
    }

    /// The body of the next message that it prints.
    fn next_body(&mut self) -> Vec<u8> {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("it prints");
        bodies(line.as_bytes()).pop().expect("a message")
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("it ends");
    }

    /// Its exit code, and what it printed that was not read.
    fn end(mut self) -> (Option<i32>, Vec<u8>) {
        let mut rest = Vec::new();
        self.out.read_to_end(&mut rest).expect("it prints");
        (self.child.wait().expect("it ends").code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn numbered(count: u8) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("number {number}").into_bytes())
        .collect()
}

#[test]
fn a_send_beside_a_stopped_command_prints_the_id_in_the_outbox() {
    let fleet = Fleet::new(5);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    alice.create_inbox("own");
    let driver = Running::start(&alice, &["receive", "--follow"]).until_it_drives(&alice);
    driver.signal("-STOP");
    let sent = alice.send_with(&address, b"later", &[]);
    driver.signal("-CONT");
    assert_eq!(sent.status.code(), Some(75));
    let told = objects(&sent.stdout);
    assert_eq!(
        (told.len(), told[0]["state"].as_str()),
        (1, Some("queued")),
        "{told:?}"
    );
    assert_eq!(told[0]["id"].as_str().map(str::len), Some(32));
    driver.kill();
}

#[test]
fn sends_beside_a_follower_of_many_inboxes_are_answered() {
    let fleet = Fleet::new(8);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    (0..40).for_each(|number| drop(alice.create_inbox(&format!("own {number}"))));
    let driver = Running::start(&alice, &["receive", "--follow"]).until_it_drives(&alice);
    let codes: Vec<_> = thread::scope(|scope| {
        let sends: Vec<_> = (0..6)
            .map(|number| {
                scope.spawn({
                    let (alice, address) = (&alice, &address);
                    move || alice.send(address, format!("number {number}").as_bytes())
                })
            })
            .collect();
        sends
            .into_iter()
            .map(|send| send.join().expect("it ends"))
            .collect()
    });
    assert_eq!(codes, [Some(0); 6]);
    driver.kill();
}

#[test]
fn ten_sends_at_once_are_all_delivered_each_with_its_own_answer() {
    let fleet = Fleet::new(6);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    let sent = numbered(10);
    let mut ids = Vec::new();
    thread::scope(|scope| {
        let sends: Vec<_> = sent
            .iter()
            .map(|body| scope.spawn(|| alice.send_with(&address, body, &[])))
            .collect();
        for send in sends {
            let output = send.join().expect("a send ends");
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let lines = objects(&output.stdout);
            assert_eq!(lines.len(), 1, "{lines:?}");
            ids.push(lines[0]["id"].as_str().expect("an id").to_owned());
        }
    });
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10);
    assert_eq!(
        counted(bob.receive(10, Duration::from_secs(60))),
        counted(sent)
    );
}

#[test]
fn beside_a_follower_everything_else_works() {
    let fleet = Fleet::new(6);
    let bob = fleet.profile("bob");
    let address = bob.create_inbox("help");
    let mut follower = Running::start(&bob, &["receive", "--follow"]).until_it_drives(&bob);
    assert_eq!(bob.send(&address, b"to myself"), Some(0));
    assert_eq!(follower.next_body(), b"to myself");
    assert_eq!(bob.ok(&["inbox", "list"]).len(), 1);
    let second = bob.create_inbox("second");
    assert_ne!(second, address);
    assert_eq!(
        bob.run(&["inbox", "create", "second"]).status.code(),
        Some(1),
        "there is one already"
    );
    assert!(bob.receive_all().is_empty());
    assert_eq!(
        bob.ok(&["status"])
            .first()
            .map(|line| line["inboxes"].as_array().map(Vec::len)),
        Some(Some(2))
    );
    follower.signal("-TERM");
    assert_eq!(follower.end(), (Some(0), Vec::new()));
}

#[test]
fn guests_continue_when_the_driver_is_killed() {
    let fleet = Fleet::new(6);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    let driver = Running::start(&bob, &["receive", "--follow"]).until_it_drives(&bob);
    let mut guest = Running::start(&bob, &["receive", "--follow"]);
    // Only a process of the meeting can be asked, so that the guest is known to have come.
    assert!(bob.receive_all().is_empty());
    driver.kill();
    assert_eq!(alice.send(&address, b"after the driver"), Some(0));
    assert_eq!(guest.next_body(), b"after the driver");
    let sent = numbered(8);
    let driver = Running::start(&alice, &["send", "--flush", "--timeout", "60"]);
    thread::scope(|scope| {
        let sends: Vec<_> = sent
            .iter()
            .map(|body| scope.spawn(|| alice.send(&address, body)))
            .collect();
        driver.kill();
        for send in sends {
            assert_eq!(send.join().expect("a send ends"), Some(0));
        }
    });
    let came: Vec<Vec<u8>> = sent.iter().map(|_| guest.next_body()).collect();
    assert_eq!(counted(came), counted(sent));
}

#[test]
fn two_followers_print_each_message_once() {
    let fleet = Fleet::new(6);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    let followers = [(); 2].map(|()| Running::start(&bob, &["receive", "--follow"]));
    let sent = numbered(12);
    for body in &sent {
        assert_eq!(alice.send(&address, body), Some(0));
    }
    // Whatever neither has printed, this does.
    let mut came = bob.receive_all();
    for follower in followers {
        follower.signal("-TERM");
        let (code, printed) = follower.end();
        assert_eq!(code, Some(0));
        came.extend(bodies(&printed));
    }
    came.extend(bob.receive_all());
    assert_eq!(counted(came), counted(sent));
}

#[test]
fn a_driver_that_does_not_answer_is_named_and_what_was_sent_is_safe() {
    let fleet = Fleet::new(6);
    let bob = fleet.profile("bob");
    let address = bob.create_inbox("help");
    let mut follower = Running::start(&bob, &["receive", "--follow"]).until_it_drives(&bob);
    // Stopped while it writes, it would keep everybody from the outbox; with this read it rests.
    assert_eq!(bob.send(&address, b"before"), Some(0));
    assert_eq!(follower.next_body(), b"before");
    follower.signal("-STOP");
    let refused = bob.send_with(&address, b"meanwhile", &[]);
    assert_eq!(refused.status.code(), Some(75), "{refused:?}");
    let error = objects(&refused.stderr).pop().expect("an error");
    assert!(
        error["error"]
            .as_str()
            .is_some_and(|text| text.contains(&follower.child.id().to_string())),
        "{error}"
    );
    assert_eq!(bob.ok(&["inbox", "list"]).len(), 1);
    follower.signal("-CONT");
    assert_eq!(follower.next_body(), b"meanwhile");
}

#[test]
fn a_signal_is_heard_while_nobody_reads_the_output() {
    let fleet = Fleet::new(6);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    let mut follower = Running::start(&bob, &["receive", "--follow"]).until_it_drives(&bob);
    let body = vec![b'x'; 100_000]; // more than a pipe holds
    assert_eq!(alice.send(&address, &body), Some(0));
    // Its first bytes are in the pipe: it writes.
    assert!(!follower.out.fill_buf().expect("it prints").is_empty());
    follower.signal("-TERM");
    assert_eq!(follower.child.wait().expect("it ends").code(), Some(0));
    assert_eq!(
        bob.receive_all(),
        [body],
        "what was not printed is not read"
    );
}

#[test]
fn a_reader_that_is_gone_marks_nothing_read() {
    let fleet = Fleet::new(6);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    assert_eq!(alice.send(&address, b"kept"), Some(0));
    let mut receive = bob.umbel(&["receive"]);
    let mut child = receive
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("umbel runs");
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("text");
    assert_eq!(
        (child.wait().expect("it ends").code(), said.as_str()),
        (Some(141), "")
    );
    assert_eq!(bob.receive(1, Duration::from_secs(60)), [b"kept".to_vec()]);
}
