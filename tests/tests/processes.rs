//! Properties that only real processes on real sockets show: the commands, the disk, the signals,
//! the bytes on the wire.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails panics; lengths are made up; processes are real"
)]

mod fleet;
#[path = "processes/several.rs"]
mod several;
#[path = "processes/talking.rs"]
mod talking;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use umbel_tests::scenario::body;

use fleet::{Fleet, Profile, objects};

/// Lengths from one byte to a hundred thousand, spread evenly in their logarithm.
fn len_of(number: usize, count: usize) -> usize {
    let share = number as f64 / (count.max(2) - 1) as f64;
    10f64.powf(5.0 * share).round() as usize
}

fn counted(bodies: impl IntoIterator<Item = Vec<u8>>) -> BTreeMap<Vec<u8>, usize> {
    let mut counts = BTreeMap::new();
    for body in bodies {
        *counts.entry(body).or_default() += 1;
    }
    counts
}

/// How many messages the long tests send; more by `UMBEL_TEST_MESSAGES`.
fn message_count() -> usize {
    std::env::var("UMBEL_TEST_MESSAGES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(30)
}

#[test] // everything, end to end
fn messages_of_all_lengths_arrive_once_although_the_reader_was_away() {
    let fleet = Fleet::new(12);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    let count = message_count();
    let sent: Vec<Vec<u8>> = (0..count)
        .map(|number| body(number, len_of(number, count)))
        .collect();
    let (away, here) = sent.split_at(count / 2);
    for body in away {
        assert_eq!(alice.send(&address, body), Some(0));
    }
    let mut came = bob.receive(away.len(), Duration::from_secs(120));
    thread::scope(|scope| {
        let rest = scope.spawn(|| bob.receive(here.len(), Duration::from_secs(600)));
        for body in here {
            assert_eq!(alice.send(&address, body), Some(0));
        }
        came.extend(rest.join().expect("the reader ends"));
    });
    came.extend(bob.receive_all());
    assert_eq!(came.len(), sent.len());
    assert_eq!(counted(came), counted(sent));
}

#[test] // an exit code of 0 is a promise
fn what_was_sent_survives_the_death_of_every_relay() {
    let mut fleet = Fleet::new(8);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    assert_eq!(alice.send(&address, b"still here"), Some(0));
    fleet.relays.iter_mut().for_each(fleet::Relay::kill);
    fleet.relays.iter_mut().for_each(|relay| relay.start(&[]));
    assert_eq!(
        bob.receive(1, Duration::from_secs(120)),
        [b"still here".to_vec()]
    );
}

#[test] // 69 and 75: nothing is lost where nobody is reached
fn a_message_waits_in_the_outbox_until_there_is_a_network_again() {
    let mut fleet = Fleet::new(8);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    assert_eq!(alice.send(&address, b"first"), Some(0));
    fleet.relays.iter_mut().for_each(fleet::Relay::kill);
    let failed = alice.send_with(&address, b"second", &["--timeout", "5"]);
    assert!(matches!(failed.status.code(), Some(69 | 75)), "{failed:?}");
    assert_eq!(alice.outbox_len(), 1);
    fleet.relays.iter_mut().for_each(|relay| relay.start(&[]));
    alice.ok(&["send", "--flush", "--timeout", "120"]);
    assert_eq!(alice.outbox_len(), 0);
    let came = counted(bob.receive(2, Duration::from_secs(120)));
    assert_eq!(came, counted([b"first".to_vec(), b"second".to_vec()]));
}

#[test] // while there is time, commands go on
fn commands_outlast_a_time_in_which_no_circuit_can_be_built() {
    let mut fleet = Fleet::new(8);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    alice.create_inbox("own");
    let status = alice.ok(&["status"]);
    let guard = status[0]["guard"].as_str().expect("it has one");
    let others = || |relay: &&mut fleet::Relay| !relay.peer.starts_with(guard);
    fleet
        .relays
        .iter_mut()
        .filter(others())
        .for_each(fleet::Relay::kill);
    let begin = |args: &[&str]| {
        let mut command = alice.umbel(args);
        command.args(["--verbose", "--timeout", "120"]);
        command.stderr(Stdio::piped()).spawn().expect("umbel runs")
    };
    let mut send = begin(&["send", &address, "after all"]);
    let said = BufReader::new(send.stderr.take().expect("it is piped"));
    let mut said = said.lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("no circuit can be built")));
    let mut receive = begin(&["receive"]);
    fleet
        .relays
        .iter_mut()
        .filter(others())
        .for_each(|relay| relay.start(&[]));
    said.for_each(drop);
    assert!(send.wait().expect("it ends").success());
    assert!(receive.wait().expect("it ends").success());
    assert_eq!(
        bob.receive(1, Duration::from_secs(120)),
        [b"after all".to_vec()]
    );
}

#[test] // §6.4(1): four relays for a path, and nothing is wrong with the connection
fn a_network_of_three_relays_is_said_to_be_too_small() {
    let fleet = Fleet::new(3);
    let alice = fleet.profile("alice");
    let made = alice.run(&["inbox", "create", "help", "--timeout", "5"]);
    let received = alice.run(&["receive", "--timeout", "5"]);
    for failed in [made, received] {
        let said = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(69), "{said}");
        assert!(
            said.contains("of 3 known") && !said.contains("connection"),
            "{said}"
        );
    }
}

#[test] // §9.4
fn an_inbox_that_was_made_without_a_network_is_found_after_one_receive() {
    let mut fleet = Fleet::new(8);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    fleet.relays.iter_mut().for_each(fleet::Relay::kill);
    let failed = bob.run(&["inbox", "create", "help", "--timeout", "5"]);
    assert!(matches!(failed.status.code(), Some(69 | 75)), "{failed:?}");
    fleet.relays.iter_mut().for_each(|relay| relay.start(&[]));
    bob.ok(&["receive", "--timeout", "120"]);
    let shown = bob.ok(&["inbox", "show", "help"]);
    let address = shown
        .first()
        .and_then(|shown| shown["address"].as_str())
        .expect("an inbox has an address");
    assert_eq!(alice.send(address, b"found"), Some(0));
    assert_eq!(
        bob.receive(1, Duration::from_secs(120)),
        [b"found".to_vec()]
    );
}

#[test] // relays come and go
fn messages_arrive_while_relays_die_and_others_join() {
    let mut fleet = Fleet::new(12);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    let sent: Vec<Vec<u8>> = (0..16)
        .map(|number| body(number, 40 + number * 300))
        .collect();
    let came = thread::scope(|scope| {
        let reader = scope.spawn(|| bob.receive(sent.len(), Duration::from_secs(400)));
        for (number, body) in sent.iter().enumerate() {
            match number {
                4 => fleet.relays[2].kill(),
                7 => fleet.relays[5].kill(),
                9 => drop(fleet.add_relay(&[]).port()),
                11 => drop(fleet.add_relay(&[]).port()),
                _ => {}
            }
            let code = alice.send(&address, body);
            assert!(matches!(code, Some(0 | 75)), "send {number}: {code:?}");
        }
        alice.ok(&["send", "--flush", "--timeout", "120"]);
        reader.join().expect("the reader ends")
    });
    assert_eq!(counted(came), counted(sent));
}

/// Carries bytes to `to`, and keeps what went each way.
fn tap(to: SocketAddr) -> (u16, Arc<Mutex<Vec<Conversation>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(to) else {
                continue;
            };
            let conversation = Conversation::default();
            kept.lock().expect("unpoisoned").push(conversation.clone());
            carry(&near, &far, conversation.asked);
            carry(&far, &near, conversation.answered);
        }
    });
    (port, heard)
}

/// The bytes of one connection.
#[derive(Clone, Default)]
struct Conversation {
    asked: Arc<Mutex<Vec<u8>>>,
    answered: Arc<Mutex<Vec<u8>>>,
}

fn carry(from: &TcpStream, to: &TcpStream, kept: Arc<Mutex<Vec<u8>>>) {
    let (mut from, mut to) = (
        from.try_clone().expect("a socket"),
        to.try_clone().expect("a socket"),
    );
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            kept.lock()
                .expect("unpoisoned")
                .extend_from_slice(&buffer[..len]);
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

/// The extension with this number in a ServerHello record.
fn server_hello_extension(record: &[u8], wanted: u16) -> Option<&[u8]> {
    let hello = record.get(9..)?; // record header 5, handshake header 4
    let session = usize::from(*hello.get(34)?);
    let mut rest = hello.get(35 + session + 3 + 2..)?;
    loop {
        let number = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
        let len = usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?));
        if number == wanted {
            return rest.get(4..4 + len);
        }
        rest = rest.get(4 + len..)?;
    }
}

#[test] // §2
fn a_wire_shows_tls_13_with_x25519mlkem768_and_nothing_in_the_clear() {
    let mut fleet = Fleet::new(5);
    // This relay advertises the address of a tap, which records every dialler, relay or client.
    let listen = {
        let probe = TcpListener::bind((fleet.host.as_str(), 0)).expect("a port");
        probe.local_addr().expect("bound")
    };
    let (tapped, heard) = tap(listen);
    fleet.add_relay(&[
        "--listen",
        &listen.to_string(),
        "--advertise",
        &format!("127.0.0.1:{tapped}"),
    ]);
    fleet.add_relay(&[]);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    let secret = b"the minutes are in the usual place, behind the third brick from the left";
    for _ in 0..3 {
        assert_eq!(alice.send(&address, secret), Some(0));
    }
    assert_eq!(bob.receive(3, Duration::from_secs(60)).len(), 3);

    let heard = heard.lock().expect("unpoisoned").clone();
    assert!(!heard.is_empty(), "somebody dialled the tapped relay");
    let ids: Vec<Vec<u8>> = fleet
        .relays
        .iter()
        .map(|relay| {
            relay
                .peer
                .split('@')
                .next()
                .expect("a peer begins with its id")
                .to_ascii_uppercase()
        })
        .map(|id| {
            data_encoding::BASE32_NOPAD
                .decode(id.as_bytes())
                .expect("base32")
        })
        .collect();
    for conversation in heard {
        let (asked, answered) = (
            conversation.asked.lock().expect("ok"),
            conversation.answered.lock().expect("ok"),
        );
        if answered.len() < 5000 {
            continue; // a dial that was given up
        }
        assert_eq!(asked[0], 22, "a handshake record comes first");
        assert_eq!(
            server_hello_extension(&answered, 43),
            Some(&[3, 4][..]),
            "TLS 1.3"
        );
        let share = server_hello_extension(&answered, 51).expect("a key share");
        assert_eq!(share[..2], [0x11, 0xec], "X25519MLKEM768");
        for bytes in [&asked, &answered] {
            let shows = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
            assert!(
                !shows(secret) && !shows(address.as_bytes()),
                "content or address in the clear"
            );
            assert!(ids.iter().all(|id| !shows(id)), "a relay id in the clear");
        }
    }
}

#[test] // garbage and half-open connections cost nothing
fn a_relay_outlives_garbage_on_its_port() {
    let mut fleet = Fleet::new(5);
    let port = fleet.relays[0].port();
    let mut open: Vec<TcpStream> = Vec::new();
    for number in 0..40u8 {
        let mut socket = TcpStream::connect((fleet.host.as_str(), port)).expect("a relay accepts");
        let garbage: Vec<u8> = (0..2000u32)
            .map(|at| (at as u8).wrapping_mul(number) ^ 0x5a)
            .collect();
        match number % 4 {
            0 => drop(socket.write_all(&garbage)),
            1 => drop(socket.write_all(&[22, 3, 1, 2, 0, 1])),
            2 => drop(socket.write_all(b"GET / HTTP/1.1\r\n\r\n")),
            _ => {}
        }
        open.push(socket);
    }
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    assert_eq!(alice.send(&address, b"through the noise"), Some(0));
    assert_eq!(
        bob.receive(1, Duration::from_secs(60)),
        [b"through the noise".to_vec()]
    );
    assert!(fleet.relays[0].is_up());
    drop(open);
    assert_eq!(
        fleet.relays[0].stop(),
        Some(0),
        "SIGTERM stops a relay cleanly"
    );
}

/// The error object a command printed.
fn error_of(profile: &Profile, args: &[&str]) -> (Option<i32>, String) {
    let output = profile.run(args);
    let error = objects(&output.stderr)
        .pop()
        .unwrap_or_else(|| panic!("umbel {args:?} says nothing"));
    let (what, hint) = (error["error"].as_str(), error["hint"].as_str());
    (
        output.status.code(),
        format!("{} {}", what.expect("an error"), hint.expect("a hint")),
    )
}

#[test] // bad input gets a clear error and a code of its own
fn wrong_addresses_and_oversize_messages_are_refused_by_name() {
    let fleet = Fleet::new(5);
    let (alice, bob) = (fleet.profile("alice"), fleet.profile("bob"));
    let address = bob.create_inbox("help");
    let truncated = &address[..address.len() - 5];
    let mistyped = format!(
        "{}{}",
        &address[..20],
        if &address[20..21] == "q" { "p" } else { "q" }
    ) + &address[21..];
    let mut said = Vec::new();
    for wrong in [
        truncated,
        &mistyped,
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    ] {
        let (code, error) = error_of(&alice, &["send", wrong, "hello"]);
        assert_eq!(code, Some(2), "{error}");
        said.push(error);
    }
    said.dedup();
    assert_eq!(said.len(), 3, "each mistake has its own words: {said:?}");

    let path = fleet.path("big");
    std::fs::write(&path, vec![7; 200_000]).expect("a file");
    let (code, error) = error_of(
        &alice,
        &["send", &address, "--file", path.to_str().expect("a path")],
    );
    assert!(code == Some(1) || code == Some(2), "{code:?} {error}");
    assert_eq!(alice.outbox_len(), 0);
}

#[test] // a seed that is not who it should be
fn a_seed_with_another_id_is_not_believed() {
    let fleet = Fleet::new(5);
    let (first, second) = (&fleet.relays[0].peer, &fleet.relays[1].peer);
    let id = first.split('@').next().expect("an id");
    let wrong = format!("{id}@{}:{}", fleet.host, fleet.relays[1].port());
    assert_ne!(&wrong, second);
    let profile = fleet.profile_with_seeds("mallory", &[&wrong]);
    let (code, error) = error_of(&profile, &["inbox", "create", "help"]);
    assert_eq!(code, Some(69), "{error}");
}
