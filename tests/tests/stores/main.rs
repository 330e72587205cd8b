//! Stores held to the disks that stand for them in the simulator: the same ops, with the power cut
//! now and then, leave the same behind (§10.1).
//!
//! One script for all of them. It follows from a seed, which a failure prints; each store and each
//! disk runs it and writes a transcript of its answers and of what it restores.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod client;
mod relay;

use std::path::Path;

use rand::rngs::ChaCha20Rng;
use rand::{RngExt, SeedableRng};

/// Steps of one script.
const STEPS: usize = 400;

/// A real store, or a disk of the simulator.
trait Keeper {
    type Op;

    /// Takes an op; it lasts from the next commit on.
    fn write(&mut self, op: Self::Op);

    /// Makes durable what was written. Returns the answers.
    fn commit(&mut self) -> Vec<String>;

    /// The power is cut: uncommitted writes are lost.
    fn cut_power(&mut self);

    /// All that a core finds when it starts.
    fn restore(&mut self) -> Vec<String>;
}

/// Where the ops of a script come from: only what a core may ask.
trait Source {
    type Op;

    fn next(&mut self, rng: &mut ChaCha20Rng) -> Self::Op;

    /// All ops so far are durable.
    fn on_commit(&mut self) {}

    /// All ops since the last commit are lost.
    fn on_cut(&mut self) {}
}

/// Runs the script of this seed.
fn transcript<Op>(
    seed: u64,
    source: &mut impl Source<Op = Op>,
    keeper: &mut impl Keeper<Op = Op>,
) -> Vec<String> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut lines = Vec::new();
    for step in 0..STEPS {
        match rng.random_range(0..40) {
            0..=31 => keeper.write(source.next(&mut rng)),
            32..=38 => {
                lines.push(format!("{step}: commit"));
                lines.extend(keeper.commit());
                source.on_commit();
            }
            _ => {
                lines.push(format!("{step}: power cut"));
                keeper.cut_power();
                source.on_cut();
                lines.extend(keeper.restore());
            }
        }
    }
    lines.extend(keeper.commit());
    lines.extend(keeper.restore());
    lines
}

/// The first difference of two transcripts.
fn assert_same(seed: u64, store: &[String], disk: &[String]) {
    let is_cut = store.iter().any(|line| line.ends_with("power cut"));
    assert!(
        is_cut && store.len() > STEPS / 2,
        "the script does something"
    );
    let differ = store
        .iter()
        .zip(disk)
        .position(|(store, disk)| store != disk);
    if let Some(at) = differ {
        panic!(
            "seed {seed}: the store has {}, the disk {}",
            store[at], disk[at]
        );
    }
    assert_eq!(store.len(), disk.len(), "seed {seed}");
}

/// Copies a directory as a power cut leaves it: without what SQLite keeps in shared memory.
fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if !name.to_string_lossy().ends_with("-shm") {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Lines in an order of their own, each with what it is about.
fn sorted(about: &str, lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<_> = lines.map(|line| format!("{about} {line}")).collect();
    lines.sort();
    lines
}
