//! The primitives, each behind the few lines Umbel needs of it. The only module that names
//! primitive crates.
//!
//! Secrets have no `Clone` and no `Debug`, are wiped on drop, and are compared in constant time
//! (docs/protocol.md §3, §5).

pub mod aead;
pub mod blind;
pub mod dh;
pub mod hpke;
pub mod kdf;
pub mod kem;
pub mod passphrase;
pub mod puzzle;
pub mod sign;
pub mod stream;
mod xwing;

use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

/// Whether two byte strings are equal; takes as long whatever they hold.
#[must_use]
pub fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The secret of a key agreement. Not a key yet: it goes through [`kdf`] first.
#[derive(ZeroizeOnDrop)]
pub struct SharedSecret([u8; 32]);

impl SharedSecret {
    /// The secret's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
