//! A puzzle that a relay or an inbox may ask before it works for a stranger: Argon2id hashcash.
//!
//! Each try takes 1 MiB of memory for one pass; effort is the number of tries to expect. Flood
//! control, not proof of being someone. A check costs as much as a try, so the checker
//! bounds how many checks run. Rules: docs/protocol.md §10.4.

use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::crypto::kdf::sha256;
use crate::ids::{QueueId, RecordId};
use crate::time::Epoch;

/// Memory of one try, KiB.
const MEMORY_KIB: u32 = 1024;
/// Passes over the memory.
const PASSES: u32 = 1;
/// Lanes; the tries are independent, so one try need not be parallel.
const LANES: u32 = 1;
/// Length of Argon2id's output, bytes; the first eight decide.
const OUTPUT_LEN: usize = 32;
const DOMAIN: &[u8; 14] = b"umbel puzzle 1";
const DEPOSIT_DOMAIN: &[u8] = b"umbel deposit puzzle 1";

const _: () = assert!(MEMORY_KIB as usize * 1024 == MEMORY_BLOCKS * Block::SIZE);
const MEMORY_BLOCKS: usize = 1024;

/// The subject of a puzzle: its solution is good for nothing else.
pub type Challenge = [u8; 32];

/// The challenge for one record's deposit in one queue in one epoch (§10.4(4)).
pub fn deposit_challenge(queue: &QueueId, record: &RecordId, epoch: Epoch) -> Challenge {
    sha256(&[
        DEPOSIT_DOMAIN,
        queue.as_bytes(),
        record.as_bytes(),
        &epoch.0.to_be_bytes(),
    ])
}

/// Whether `nonce` solves the puzzle. With effort 0 everything does, without work.
pub fn verify(challenge: &Challenge, effort: u32, nonce: u64) -> bool {
    try_nonces(challenge, effort, nonce, 1).is_some()
}

/// The first nonce among `count` from `from` on (wrapping) that solves the puzzle; with effort 0,
/// `from`.
///
/// The caller decides how long it computes before it looks up: a try takes about a millisecond.
pub fn try_nonces(challenge: &Challenge, effort: u32, from: u64, count: u32) -> Option<u64> {
    let Some(target) = u64::MAX.checked_div(u64::from(effort)) else {
        return Some(from);
    };
    let mut memory = vec![Block::new(); MEMORY_BLOCKS];
    (0..u64::from(count))
        .map(|step| from.wrapping_add(step))
        .find(|&nonce| score(challenge, nonce, &mut memory) <= target)
}

/// The first solution from `start` on: takes `effort` tries on average, and the thread with it.
pub fn solve(challenge: &Challenge, effort: u32, start: u64) -> u64 {
    const STEP: u32 = 64;
    let mut from = start;
    loop {
        if let Some(nonce) = try_nonces(challenge, effort, from, STEP) {
            return nonce;
        }
        from = from.wrapping_add(u64::from(STEP));
    }
}

/// Uniform over all numbers; the lower, the rarer (§10.4(3)).
fn score(challenge: &Challenge, nonce: u64, memory: &mut [Block]) -> u64 {
    let mut input = [0; DOMAIN.len() + 8];
    let (domain, number) = input.split_at_mut(DOMAIN.len());
    domain.copy_from_slice(DOMAIN);
    number.copy_from_slice(&nonce.to_be_bytes());
    let mut output = [0; OUTPUT_LEN];
    let hashed = Params::new(MEMORY_KIB, PASSES, LANES, Some(OUTPUT_LEN)).and_then(|params| {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
            &input,
            challenge,
            &mut output,
            memory,
        )
    });
    assert!(hashed.is_ok(), "every length is a constant");
    let [a, b, c, d, e, f, g, h, ..] = output;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: Challenge = [3; 32];

    #[test] // §10.4(3)
    fn a_solution_passes_and_serves_no_other_challenge_or_nonce() {
        let effort = 16;
        let nonce = solve(&CHALLENGE, effort, 1000);
        assert!(nonce >= 1000 && verify(&CHALLENGE, effort, nonce));
        let skipped = 1000..nonce;
        assert!(
            skipped
                .clone()
                .all(|nonce| !verify(&CHALLENGE, effort, nonce)),
            "{skipped:?}"
        );
        assert!(!verify(&CHALLENGE, u32::MAX, nonce));
        let passing = (0..64u8)
            .filter(|&other| verify(&[other; 32], effort, nonce))
            .count();
        assert!(
            passing < 16,
            "a solution is as good as a guess elsewhere: {passing} of 64"
        );
    }

    #[test] // §10.4(3)
    fn effort_is_the_number_of_tries_to_expect() {
        let solved = (0..256)
            .filter(|&nonce| verify(&CHALLENGE, 8, nonce))
            .count();
        assert!((16..=52).contains(&solved), "{solved} of 256 at effort 8");
        assert!((0..8).all(|nonce| verify(&CHALLENGE, 1, nonce)));
    }

    #[test] // §10.4(3)
    fn no_effort_asks_no_work() {
        assert!(verify(&CHALLENGE, 0, 5));
        assert_eq!(try_nonces(&CHALLENGE, 0, 5, 0), Some(5));
        assert_eq!(solve(&CHALLENGE, 0, 9), 9);
    }

    #[test] // the search can be cut into steps, and ends at the last number as at any other
    fn steps_find_what_one_search_finds() {
        let start = u64::MAX - 1;
        let nonce = solve(&CHALLENGE, 8, start);
        let mut from = start;
        let stepped = loop {
            match try_nonces(&CHALLENGE, 8, from, 1) {
                Some(nonce) => break nonce,
                None => from = from.wrapping_add(1),
            }
        };
        assert_eq!(stepped, nonce);
        assert_eq!(try_nonces(&CHALLENGE, 1, 0, 0), None);
    }

    #[test] // §10.4(3): the scores that OpenSSL's Argon2id gives
    fn scores_are_argon2id() {
        let mut memory = vec![Block::new(); MEMORY_BLOCKS];
        for (nonce, expected) in [
            (0, 0xeba4_e58f_e207_377f),
            (1, 0x2b8e_e6a9_8d1b_e0e1),
            (u64::MAX, 0xedb4_191b_a402_e6d3),
        ] {
            assert_eq!(
                score(&CHALLENGE, nonce, &mut memory),
                expected,
                "left-over memory changes nothing"
            );
        }
    }

    #[test] // §10.4(4)
    fn a_deposit_challenge_names_queue_record_and_epoch() {
        let base = deposit_challenge(&QueueId([1; 32]), &RecordId([2; 32]), Epoch(3));
        assert_ne!(
            base,
            deposit_challenge(&QueueId([9; 32]), &RecordId([2; 32]), Epoch(3))
        );
        assert_ne!(
            base,
            deposit_challenge(&QueueId([1; 32]), &RecordId([9; 32]), Epoch(3))
        );
        assert_ne!(
            base,
            deposit_challenge(&QueueId([1; 32]), &RecordId([2; 32]), Epoch(4))
        );
    }
}
