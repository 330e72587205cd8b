//! Ed25519 (RFC 8032), verified strictly: one signature, one meaning for every verifier.

use core::fmt;

use ed25519_dalek::{Signer, VerifyingKey};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ids::RelayId;

/// An Ed25519 secret key. Not `Clone`, not `Debug`, wiped on drop.
pub struct SigningKey(ed25519_dalek::SigningKey);

/// An Ed25519 public key. Any 32 bytes are one; whether it is a good one shows when it verifies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature(#[serde(with = "serde_bytes")] pub [u8; 64]);

/// The signature does not fit the key and the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSignature;

impl SigningKey {
    /// A fresh key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(ed25519_dalek::SigningKey::generate(rng))
    }

    /// The key that grows from this seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The seed, to be stored.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key that goes with it.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`, which begins with a domain of its own.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl PublicKey {
    /// Checks a signature.
    ///
    /// # Errors
    /// It does not fit; or the key is no point of the curve, or one of low order, which would fit
    /// many messages.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        if key.is_weak() {
            return Err(BadSignature);
        }
        key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0))
            .map_err(|_| BadSignature)
    }
}

/// A relay's id is its public key.
impl From<RelayId> for PublicKey {
    fn from(id: RelayId) -> Self {
        Self(id.0)
    }
}

/// A relay's public key is its id.
impl From<PublicKey> for RelayId {
    fn from(key: PublicKey) -> Self {
        Self(key.0)
    }
}

/// Not the bytes: whose key it is may be what must not be in a log.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(..)")
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}
