//! A symmetric key of a conversation.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::aead::{self, BadTag};
use crate::crypto::kdf::{Prk, hkdf_expand, hkdf_extract, hmac_sha256};

/// A key seals once, so the nonce need not differ.
const NONCE: [u8; 12] = [0; 12];

/// Thirty-two bytes that only the two sides know. Not `Clone`, not `Debug`, wiped on drop.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct Key(pub(super) [u8; 32]);

impl Key {
    /// The key that HKDF-SHA256 makes of these parts of a secret, joined.
    pub(super) fn derived(salt: &[u8], secret: &[&[u8]], info: &[&[u8]]) -> Self {
        Self::expanded(&hkdf_extract(salt, secret), info)
    }

    /// The key that HKDF-Expand makes under this info.
    pub(super) fn expanded(prk: &Prk, info: &[&[u8]]) -> Self {
        let mut key = Self([0; 32]);
        hkdf_expand(prk, info, &mut key.0);
        key
    }

    /// The key that this one makes under a label: HMAC-SHA256.
    pub(super) fn labelled(&self, parts: &[&[u8]]) -> Self {
        Self(hmac_sha256(&self.0, parts))
    }

    /// Seals under this key, which seals nothing else, and binds to it what is `associated`.
    pub(super) fn seal(&self, associated: &[u8], plain: &[u8]) -> Vec<u8> {
        aead::seal(&self.0, &NONCE, associated, plain)
    }

    /// Opens what [`Self::seal`] made.
    pub(super) fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, BadTag> {
        aead::open(&self.0, &NONCE, associated, sealed)
    }

    /// The same key once more, where two owners need it.
    pub(super) const fn again(&self) -> Self {
        Self(self.0)
    }
}
