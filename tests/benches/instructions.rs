//! How many instructions the work of a cell, a hop and a record takes: kept in instructions.toml,
//! and held within 5% of it.
//!
//! `cargo bench -p umbel-tests --bench instructions` compares; with `-- --renew` behind it, it
//! writes the file anew. For each part it runs itself under valgrind, whose callgrind counts while
//! [`counted`] runs. What is random comes from a seed, so a count repeats; valgrind shows every
//! program one CPU, with AVX2 and without AVX-512 or SHA, so machines agree.

#![allow(clippy::unwrap_used, clippy::panic, reason = "benches may fail")]
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a bench is a command"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::cell::{self, Cell};
use umbel_proto::crypto::aead::LayerKey;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::handshake::{HopTarget, Initiator, OnionSecret, respond};
use umbel_proto::ids::{CircId, MessageId, NetworkId, RelayId};
use umbel_proto::inbox::record::{Message, SealSecret, open_record, seal_record};
use umbel_proto::limits::{BACKWARD_ROOM, HOPS_MAX, forward_room};
use umbel_proto::network::Network;
use umbel_proto::onion::origin::OriginLayers;
use umbel_proto::onion::transit::{AddLayer, PeelLayer};

/// A count may differ from the one on file by one part in this many.
const TOLERANCE: u64 = 20;
/// Length of the message that is sealed: it goes in the shortest record.
const MESSAGE_LEN: usize = 100;
/// What the file that holds the counts says of itself.
const HEADER: &str = "# Instructions, counted by valgrind in the bench profile. Renewed by:\n\
                      # cargo bench --locked -p umbel-tests --bench instructions -- --renew\n";

/// What is counted, by name.
const PARTS: [(&str, fn()); 10] = [
    ("cell_add", cell_add),
    ("cell_peel", cell_peel),
    ("cell_seal", cell_seal),
    ("cell_unwrap_4_hops", cell_unwrap),
    ("cell_wrap_4_hops", cell_wrap),
    ("handshake_finish", handshake_finish),
    ("handshake_respond", handshake_respond),
    ("handshake_start", handshake_start),
    ("record_open", record_open),
    ("record_seal", record_seal),
];

fn main() -> ExitCode {
    if !has_counted_cpu() {
        eprintln!("counts are kept for x86-64 with AVX2, which this machine does not have");
        return ExitCode::from(2);
    }
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => compare(),
        ["--renew"] => renew(),
        ["--part", name] => run_part(name),
        _ => {
            eprintln!("takes nothing, or --renew");
            ExitCode::from(2)
        }
    }
}

/// Whether valgrind can show programs the CPU that the counts are for.
fn has_counted_cpu() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("bmi2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Counts every part, and says which is not what it was.
fn compare() -> ExitCode {
    let kept: BTreeMap<String, u64> =
        toml::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap();
    let mut is_as_kept = kept.len() == PARTS.len();
    println!("{:<20} {:>10} {:>10}", "instructions", "kept", "now");
    for (name, _) in PARTS {
        let now = count(name);
        let before = kept.get(name).copied().unwrap_or_default();
        let verdict = if now.abs_diff(before) * TOLERANCE <= before {
            "same"
        } else if now > before {
            "MORE: make it cheaper, or say in the commit why not and renew"
        } else {
            "LESS: renew"
        };
        is_as_kept &= verdict == "same";
        println!("{name:<20} {before:>10} {now:>10}  {verdict}");
    }
    if is_as_kept {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "these are not the counts in {} (docs/testing.md)",
        path().display()
    );
    ExitCode::FAILURE
}

fn renew() -> ExitCode {
    let mut text = HEADER.to_owned();
    for (name, _) in PARTS {
        writeln!(text, "{name} = {}", count(name)).unwrap();
    }
    std::fs::write(path(), &text).unwrap();
    print!("{text}");
    ExitCode::SUCCESS
}

fn path() -> &'static Path {
    Path::new("benches/instructions.toml")
}

/// What one part takes: runs it in a process of its own, under valgrind.
fn count(name: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args([
            "--collect-atstart=no",
            "--toggle-collect=*instructions*counted*",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--part", name])
        .output()
        .unwrap_or_else(|error| panic!("valgrind is needed to count instructions: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed:\n{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count
        .filter(|&count| count > 0)
        .unwrap_or_else(|| panic!("{name} was not counted:\n{said}"))
}

fn run_part(name: &str) -> ExitCode {
    let part = PARTS.iter().find(|(known, _)| *known == name);
    part.map_or_else(|| panic!("no part {name}"), |(_, run)| run());
    ExitCode::SUCCESS
}

/// Works once to have done what is done but once in a process, then once more to be counted.
fn measure<Input, Output>(
    mut prepare: impl FnMut() -> Input,
    mut work: impl FnMut(Input) -> Output,
) {
    black_box(work(prepare()));
    let input = prepare();
    black_box(counted(|| work(black_box(input))));
}

/// Valgrind counts from this function's beginning to its end: it finds it by its name.
#[inline(never)]
fn counted<Output>(work: impl FnOnce() -> Output) -> Output {
    work()
}

fn cell_peel() {
    let (mut origin, mut rng, message) = (origin(2), rng(), vec![7; forward_room(2)]);
    let mut layer = PeelLayer::new(key(0));
    let wrapped = || {
        let mut cell = relay_cell();
        origin.wrap(false, &message, cell.body_mut(), &mut rng);
        cell
    };
    measure(wrapped, |mut cell| {
        assert!(layer.peel(&mut cell).is_ok());
        cell
    });
}

fn cell_add() {
    let mut layer = AddLayer::new(key(100));
    measure(relay_cell, |mut cell| {
        layer.add(cell.body_mut());
        cell
    });
}

fn cell_seal() {
    let (mut layer, message) = (AddLayer::new(key(100)), vec![7; BACKWARD_ROOM]);
    measure(relay_cell, |mut cell| {
        layer.seal(&message, &mut cell);
        cell
    });
}

fn cell_wrap() {
    let (mut origin, mut rng, message) = (origin(HOPS_MAX), rng(), vec![7; forward_room(HOPS_MAX)]);
    measure(relay_cell, |mut cell| {
        origin.wrap(false, &message, cell.body_mut(), &mut rng);
        cell
    });
}

fn cell_unwrap() {
    let (mut origin, message) = (origin(HOPS_MAX), vec![7; BACKWARD_ROOM]);
    let mut layers: Vec<AddLayer> = (0..HOPS_MAX)
        .map(|hop| AddLayer::new(key(100 + hop)))
        .collect();
    let answered = || {
        let mut cell = relay_cell();
        let (last, before) = layers.split_last_mut().unwrap();
        last.seal(&message, &mut cell);
        before
            .iter_mut()
            .rev()
            .for_each(|layer| layer.add(cell.body_mut()));
        cell
    };
    measure(answered, |mut cell| {
        assert!(origin.unwrap(cell.body_mut()).is_ok());
        cell
    });
}

/// A relay to shake hands with.
struct Hop {
    network: NetworkId,
    relay: RelayId,
    secrets: [OnionSecret; 1],
    target: HopTarget,
}

impl Hop {
    fn new(rng: &mut ChaCha20Rng) -> Self {
        let relay = SigningKey::generate(rng).public().into();
        let secrets = [OnionSecret::generate(rng)];
        let target = HopTarget {
            relay,
            onion_key: secrets[0].public(),
        };
        Self {
            network: Network::local().id,
            relay,
            secrets,
            target,
        }
    }
}

fn handshake_start() {
    let mut rng = rng();
    let hop = Hop::new(&mut rng);
    measure(
        || (),
        |()| Initiator::start(&hop.network, &hop.target, &mut rng),
    );
}

fn handshake_respond() {
    let (mut rng, mut skins) = (rng(), ChaCha20Rng::seed_from_u64(2));
    let hop = Hop::new(&mut rng);
    let skin = || Initiator::start(&hop.network, &hop.target, &mut skins).1;
    measure(skin, |skin| {
        respond(&hop.network, &hop.relay, &hop.secrets, &skin, &mut rng).unwrap()
    });
}

fn handshake_finish() {
    let mut rng = rng();
    let hop = Hop::new(&mut rng);
    let answered = || {
        let (initiator, skin) = Initiator::start(&hop.network, &hop.target, &mut rng);
        (
            initiator,
            respond(&hop.network, &hop.relay, &hop.secrets, &skin, &mut rng)
                .unwrap()
                .1,
        )
    };
    measure(answered, |(initiator, reply)| {
        initiator.finish(&reply).unwrap()
    });
}

fn record_seal() {
    let (mut rng, key, message) = (rng(), seal_secret().public(), message());
    measure(|| (), |()| seal_record(&key, &message, &mut rng).unwrap());
}

fn record_open() {
    let secret = seal_secret();
    let sealed = seal_record(&secret.public(), &message(), &mut rng()).unwrap();
    measure(|| (), |()| open_record(&secret, &sealed).unwrap());
}

fn seal_secret() -> SealSecret {
    SealSecret::from_seed(&[3; 32])
}

fn message() -> Message {
    Message {
        id: MessageId([5; 16]),
        body: vec![7; MESSAGE_LEN],
    }
}

/// The layers of a circuit of `hops` hops: hop `n`, counted from 0, has forward key `n` and
/// backward key `100 + n`.
fn origin(hops: usize) -> OriginLayers {
    let mut layers = OriginLayers::new();
    for hop in 0..hops {
        layers.push(key(hop), key(100 + hop));
    }
    layers
}

fn key(number: usize) -> LayerKey {
    LayerKey::from_bytes([u8::try_from(number).unwrap(); 32])
}

fn relay_cell() -> Cell {
    Cell::new(CircId::new(7), cell::Command::Relay)
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}
