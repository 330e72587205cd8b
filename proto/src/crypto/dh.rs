//! X25519 (RFC 7748). Results that the other side alone decided are refused.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::SharedSecret;

/// An X25519 secret key. Not `Clone`, not `Debug`, wiped on drop.
pub struct DhSecret(StaticSecret);

/// An X25519 public key. Any 32 bytes are one; whether it is a good one shows when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DhPublic(pub [u8; 32]);

/// The public key has low order: the shared secret would be zero whatever our key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonContributory;

impl DhSecret {
    /// A fresh key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(StaticSecret::random_from_rng(rng))
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(StaticSecret::from(*bytes))
    }

    /// The key's bytes, to be stored.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key that goes with it.
    pub fn public(&self) -> DhPublic {
        DhPublic(PublicKey::from(&self.0).to_bytes())
    }

    /// The secret shared with the owner of `theirs`.
    ///
    /// # Errors
    /// Their key has low order.
    pub fn agree(&self, theirs: &DhPublic) -> Result<SharedSecret, NonContributory> {
        let shared = self.0.diffie_hellman(&PublicKey::from(theirs.0));
        if shared.was_contributory() { Ok(SharedSecret(shared.to_bytes())) } else { Err(NonContributory) }
    }
}
