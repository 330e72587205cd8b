//! From a passphrase to a key: Argon2id, at a cost that is stored beside the salt.
//!
//! Local to one profile: no other implementation has to agree on it.

use argon2::{Algorithm, Argon2, Error, Params, Version};

/// Length of the salt, bytes.
pub const SALT_LEN: usize = 16;

/// Most memory one stretching may take, KiB: a file must not make its reader run out of it.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// Most passes.
const PASSES_MAX: u32 = 64;
/// Most lanes.
const LANES_MAX: u32 = 16;

/// The cost of one guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassphraseCost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// RFC 9106 §4's second choice, with one lane: a few tenths of a second on a small machine.
impl Default for PassphraseCost {
    fn default() -> Self {
        Self {
            memory_kib: 64 * 1024,
            passes: 3,
            lanes: 1,
        }
    }
}

/// A passphrase could not be stretched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StretchError {
    /// The cost is zero, or greater than any that is written.
    CostOutOfRange,
    /// The system gives less memory than the cost asks for.
    OutOfMemory,
}

/// Writes the key that `passphrase` gives with this salt at this cost to `key`.
///
/// # Errors
/// See [`StretchError`]; `key` is then unchanged.
pub fn stretch(
    passphrase: &[u8],
    salt: &[u8; SALT_LEN],
    cost: PassphraseCost,
    key: &mut [u8; 32],
) -> Result<(), StretchError> {
    let PassphraseCost {
        memory_kib,
        passes,
        lanes,
    } = cost;
    if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
        return Err(StretchError::CostOutOfRange);
    }
    let params = Params::new(memory_kib, passes, lanes, Some(key.len()))
        .map_err(|_| StretchError::CostOutOfRange)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2
        .hash_password_into(passphrase, salt, key)
        .map_err(|error| match error {
            Error::OutOfMemory => StretchError::OutOfMemory,
            _ => StretchError::CostOutOfRange,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: PassphraseCost = PassphraseCost {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
    };

    fn key(
        passphrase: &[u8],
        salt: [u8; SALT_LEN],
        cost: PassphraseCost,
    ) -> Result<[u8; 32], StretchError> {
        let mut key = [0; 32];
        stretch(passphrase, &salt, cost, &mut key).map(|()| key)
    }

    #[test]
    fn the_same_words_give_the_same_key_and_others_another() {
        let first = key(b"correct horse", [1; SALT_LEN], CHEAP).unwrap();
        assert_eq!(key(b"correct horse", [1; SALT_LEN], CHEAP), Ok(first));
        assert_ne!(key(b"correct horsf", [1; SALT_LEN], CHEAP), Ok(first));
        assert_ne!(key(b"correct horse", [2; SALT_LEN], CHEAP), Ok(first));
        assert_ne!(
            key(
                b"correct horse",
                [1; SALT_LEN],
                PassphraseCost { passes: 2, ..CHEAP }
            ),
            Ok(first)
        );
    }

    #[test]
    fn costs_that_nobody_writes_are_refused() {
        for cost in [
            PassphraseCost {
                memory_kib: 0,
                ..CHEAP
            },
            PassphraseCost {
                memory_kib: MEMORY_KIB_MAX + 1,
                ..CHEAP
            },
            PassphraseCost { passes: 0, ..CHEAP },
            PassphraseCost {
                passes: PASSES_MAX + 1,
                ..CHEAP
            },
            PassphraseCost { lanes: 0, ..CHEAP },
            PassphraseCost {
                lanes: LANES_MAX + 1,
                ..CHEAP
            },
        ] {
            assert_eq!(
                key(b"correct horse", [1; SALT_LEN], cost),
                Err(StretchError::CostOutOfRange),
                "{cost:?}"
            );
        }
    }
}
