//! X25519 (RFC 7748) by aws-lc, in assembly: half the time of x25519-dalek, which is the
//! cross-check (docs/decisions/009). Results that the other side alone decided are refused.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::SharedSecret;

/// An X25519 secret key. Not `Clone`, not `Debug`, wiped on drop: aws-lc holds it, and wipes what
/// it frees.
pub struct DhSecret {
    key: PrivateKey,
    public: DhPublic,
}

/// An X25519 public key. Any 32 bytes are one; whether it is a good one shows when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DhPublic(pub [u8; 32]);

/// The public key has low order: the shared secret would be zero whatever our key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonContributory;

impl DhSecret {
    /// A fresh key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        Self::from_bytes(&bytes)
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let made = PrivateKey::from_private_key(&X25519, bytes).ok();
        let made = made.and_then(|key| {
            let public = key.compute_public_key().ok()?.as_ref().try_into().ok()?;
            Some(Self {
                key,
                public: DhPublic(public),
            })
        });
        made.unwrap_or_else(|| unreachable!("any 32 bytes are a secret key"))
    }

    /// The key's bytes, to be stored.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        let bytes: Option<Curve25519SeedBin<'_>> = self.key.as_be_bytes().ok();
        let bytes = bytes.and_then(|bytes| bytes.as_ref().try_into().ok());
        Zeroizing::new(bytes.unwrap_or_else(|| unreachable!("a secret key has 32 bytes")))
    }

    /// The public key that goes with it.
    pub const fn public(&self) -> DhPublic {
        self.public
    }

    /// The secret shared with the owner of `theirs`.
    ///
    /// # Errors
    /// Their key has low order.
    pub fn agree(&self, theirs: &DhPublic) -> Result<SharedSecret, NonContributory> {
        // aws-lc refuses a result of all zeros, and any 32 bytes are a key to it: nothing else
        // fails here.
        agree(
            &self.key,
            UnparsedPublicKey::new(&X25519, &theirs.0),
            NonContributory,
            |shared| {
                shared
                    .try_into()
                    .map(SharedSecret)
                    .map_err(|_| NonContributory)
            },
        )
    }
}
