//! ML-KEM-768 (FIPS 203).

use ml_kem::kem::{Decapsulate, Encapsulate, Kem, KeyExport, TryKeyInit};
use ml_kem::{DecapsulationKey, MlKem768};
use rand::CryptoRng;

use super::SharedSecret;

/// Length of an encapsulation key, bytes.
pub const ENCAPSULATION_KEY_LEN: usize = 1184;
/// Length of a ciphertext, bytes.
pub const CIPHERTEXT_LEN: usize = 1088;

/// An ML-KEM-768 decapsulation key. Not `Clone`, not `Debug`, wiped on drop.
pub struct KemSecret(DecapsulationKey<MlKem768>);

/// The bytes are no encapsulation key: a coefficient is not below the modulus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadEncapsulationKey;

impl KemSecret {
    /// A fresh key pair.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> (Self, [u8; ENCAPSULATION_KEY_LEN]) {
        let (secret, public) = MlKem768::generate_keypair_from_rng(&mut &mut *rng);
        (Self(secret), public.to_bytes().into())
    }

    /// The secret in `ciphertext`. One that was not made for this key gives a secret that nobody else has.
    pub fn decapsulate(&self, ciphertext: &[u8; CIPHERTEXT_LEN]) -> SharedSecret {
        SharedSecret(self.0.decapsulate(ciphertext.into()).into())
    }
}

/// A fresh secret, and the ciphertext that tells it to the owner of `encapsulation_key`.
///
/// # Errors
/// The key is none.
pub fn encapsulate(
    encapsulation_key: &[u8; ENCAPSULATION_KEY_LEN],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<([u8; CIPHERTEXT_LEN], SharedSecret), BadEncapsulationKey> {
    let key =
        ml_kem::ml_kem_768::EncapsulationKey::new_from_slice(encapsulation_key).map_err(|_| BadEncapsulationKey)?;
    let (ciphertext, shared) = key.encapsulate_with_rng(rng);
    Ok((ciphertext.into(), SharedSecret(shared.into())))
}
