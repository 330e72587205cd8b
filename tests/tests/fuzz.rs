//! Every fuzz body over the corpus, over mutations of it, and over random bytes: the same ones in
//! every run.
//!
//! A file added to `tests/corpus/<body>/` is run from then on. `UMBEL_WRITE_CORPUS=1` writes the
//! seeds anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why; the corpus is files"
)]

use std::fs;
use std::path::PathBuf;

use rand::rngs::ChaCha20Rng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use umbel_tests::fuzz::seeds::seeds;
use umbel_tests::fuzz::{BODIES, Body};

/// Random inputs for each body.
const RANDOM_INPUTS: usize = 100;
/// Longest random input, bytes.
const RANDOM_LEN_MAX: usize = 2100;

fn corpus() -> PathBuf {
    PathBuf::from("corpus")
}

fn files(body: &Body) -> Vec<(String, Vec<u8>)> {
    let folder = corpus().join(body.name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                fs::read(path).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

/// Says which input it was when a body panics.
struct Input<'a> {
    body: &'a str,
    bytes: &'a [u8],
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "body {}, input of {} bytes: {:02x?}",
                self.body,
                self.bytes.len(),
                self.bytes
            );
        }
    }
}

fn run(body: &Body, bytes: &[u8]) {
    let input = Input {
        body: body.name,
        bytes,
    };
    (body.run)(input.bytes);
}

fn mutated(seed: &[u8], others: &[(String, Vec<u8>)], rng: &mut ChaCha20Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            bytes.push(rng.random());
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => {
                let until = rng.random_range(at..bytes.len());
                let part = bytes[at..=until].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let (_, other) = others.choose(rng).expect("the seed itself is one");
                let from = rng.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                bytes.remove(at);
            }
        }
    }
    bytes
}

#[test]
fn the_corpus_holds_its_seeds() {
    let is_writing = std::env::var_os("UMBEL_WRITE_CORPUS").is_some();
    for seed in seeds() {
        let path = corpus().join(seed.body).join(seed.name);
        if is_writing {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &seed.bytes).unwrap();
        }
        assert!(
            fs::read(&path).unwrap() == seed.bytes,
            "{}: UMBEL_WRITE_CORPUS=1 writes it",
            path.display()
        );
    }
}

#[test]
fn every_body_holds_over_its_corpus_and_what_is_near_it() {
    for body in BODIES {
        let files = files(body);
        assert!(!files.is_empty(), "{} has a corpus", body.name);
        let mut rng = ChaCha20Rng::seed_from_u64(30);
        let begun_at = std::time::Instant::now();
        for (_, bytes) in &files {
            run(body, bytes);
            for _ in 0..body.mutations {
                run(body, &mutated(bytes, &files, &mut rng));
            }
        }
        eprintln!(
            "{}: {} files, {:?}",
            body.name,
            files.len(),
            begun_at.elapsed()
        );
    }
}

#[test]
fn every_body_holds_over_random_bytes() {
    for body in BODIES {
        let mut rng = ChaCha20Rng::seed_from_u64(40);
        for _ in 0..RANDOM_INPUTS {
            let mut bytes = vec![0; rng.random_range(0..RANDOM_LEN_MAX)];
            rng.fill_bytes(&mut bytes);
            run(body, &bytes);
        }
    }
}
