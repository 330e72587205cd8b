//! ML-KEM-768 (FIPS 203), each step by the faster of two libraries that can do it
//! (docs/decisions/009).
//!
//! What draws randomness, key generation and encapsulation, is libcrux's: it takes the bytes that
//! we drew, so that a seed replays. Decapsulation draws none, and is aws-lc's. The ml-kem crate is
//! the cross-check.

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, ML_KEM_768};
use libcrux_ml_kem::mlkem768 as libcrux;
use rand::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use super::SharedSecret;

/// Length of an encapsulation key, bytes.
pub const ENCAPSULATION_KEY_LEN: usize = 1184;
/// Length of a ciphertext, bytes.
pub const CIPHERTEXT_LEN: usize = 1088;
/// Length of the seed that a key pair is made from, bytes.
pub const KEM_SEED_LEN: usize = libcrux_ml_kem::KEY_GENERATION_SEED_SIZE;

/// Length of a decapsulation key in its expanded form, bytes.
const ML_KEM_768_SECRET_LEN: usize = 2400;

/// An ML-KEM-768 decapsulation key. Not `Clone`, not `Debug`, wiped on drop: aws-lc holds it, and
/// wipes what it frees.
pub struct KemSecret(DecapsulationKey);

/// The bytes are no encapsulation key: a coefficient is not below the modulus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadEncapsulationKey;

impl KemSecret {
    /// A fresh key pair.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> (Self, [u8; ENCAPSULATION_KEY_LEN]) {
        let mut seed = Zeroizing::new([0; KEM_SEED_LEN]);
        rng.fill_bytes(&mut *seed);
        Self::from_seed(&seed)
    }

    /// The key pair of a seed.
    pub fn from_seed(seed: &[u8; KEM_SEED_LEN]) -> (Self, [u8; ENCAPSULATION_KEY_LEN]) {
        // libcrux wipes nothing: its temporaries stay on the stack until later calls overwrite
        // them.
        let (secret, public) = libcrux::generate_key_pair(*seed).into_parts();
        let secret: Zeroizing<[u8; ML_KEM_768_SECRET_LEN]> = Zeroizing::new(secret.into());
        let secret = DecapsulationKey::new(&ML_KEM_768, &*secret);
        let secret = secret.unwrap_or_else(|_| unreachable!("a key has the length of a key"));
        (Self(secret), public.into())
    }

    /// The secret in `ciphertext`. One that was not made for this key gives a secret that nobody
    /// else has.
    pub fn decapsulate(&self, ciphertext: &[u8; CIPHERTEXT_LEN]) -> SharedSecret {
        let shared = self
            .0
            .decapsulate(Ciphertext::from(ciphertext.as_slice()))
            .ok();
        let shared = shared.and_then(|shared| shared.as_ref().try_into().ok());
        SharedSecret(shared.unwrap_or_else(|| {
            unreachable!("a key that we made opens any ciphertext of the right length")
        }))
    }
}

/// A fresh secret, and the ciphertext from which the owner of `encapsulation_key` recovers it.
///
/// # Errors
/// The key is none.
pub fn encapsulate(
    encapsulation_key: &[u8; ENCAPSULATION_KEY_LEN],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<([u8; CIPHERTEXT_LEN], SharedSecret), BadEncapsulationKey> {
    if !is_encapsulation_key(encapsulation_key) {
        return Err(BadEncapsulationKey);
    }
    let key = libcrux::MlKem768PublicKey::from(encapsulation_key);
    let mut message = Zeroizing::new([0; libcrux_ml_kem::ENCAPS_SEED_SIZE]);
    rng.fill_bytes(&mut *message);
    // As with key generation, libcrux does not wipe its argument. We wipe the secret that it
    // returns.
    let (ciphertext, mut shared) = libcrux::encapsulate(&key, *message);
    let secret = SharedSecret(shared);
    shared.zeroize();
    Ok((ciphertext.into(), secret))
}

/// Whether all coefficients are below the modulus, as those of a key are.
pub fn is_encapsulation_key(bytes: &[u8; ENCAPSULATION_KEY_LEN]) -> bool {
    libcrux::validate_public_key(&libcrux::MlKem768PublicKey::from(bytes))
}
