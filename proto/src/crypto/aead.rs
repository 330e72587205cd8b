//! ChaCha20-Poly1305 (RFC 8439), twice: in place on aws-lc-rs for cells, and on the
//! chacha20poly1305 crate for the rest.
//!
//! For a cell the nonce is always 0 and there is no associated data: a [`LayerKey`] seals one cell
//! and moves on (docs/protocol.md §3.1).

use aws_lc_rs::aead as fast;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::limits::TAG_LEN;

/// One hop's key for one direction, good for one cell. Not `Clone`, not `Debug`, wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct LayerKey([u8; 32]);

impl LayerKey {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) const fn as_bytes_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }

    // aws-lc keeps its own copy of the key in a block it mallocs and wipes when freed: 64 bytes a
    // cell, and the one allocation on the path of a cell. The crate has no way to set a new key on
    // a context it already has.
    fn to_fast(&self) -> Result<fast::LessSafeKey, BadTag> {
        fast::UnboundKey::new(&fast::CHACHA20_POLY1305, &self.0)
            .map(fast::LessSafeKey::new)
            .map_err(|_| BadTag)
    }
}

/// The tag does not fit: wrong key, or something was changed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadTag;

/// Opens `buf` in place. After a bad tag the contents of `buf` are unspecified.
///
/// # Errors
/// The tag does not fit.
pub fn open_in_place(key: &LayerKey, tag: &[u8; TAG_LEN], buf: &mut [u8]) -> Result<(), BadTag> {
    let key = key.to_fast()?;
    key.open_in_place_separate_tag(zero_nonce(), fast::Aad::empty(), tag, buf)
        .map(|_| ())
        .map_err(|_| BadTag)
}

/// Seals `buf` in place and returns the tag.
pub fn seal_in_place(key: &LayerKey, buf: &mut [u8]) -> [u8; TAG_LEN] {
    let sealed = key.to_fast().and_then(|key| {
        key.seal_in_place_separate_tag(zero_nonce(), fast::Aad::empty(), buf)
            .map_err(|_| BadTag)
    });
    sealed
        .ok()
        .and_then(|tag| tag.as_ref().try_into().ok())
        .unwrap_or_else(|| unreachable!("sealing fails only without memory or beyond 256 GiB"))
}

/// Seals a document: ciphertext, then tag. A key may seal once under each nonce.
pub fn seal(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    ChaCha20Poly1305::new(<&Key>::from(key))
        .encrypt(<&Nonce>::from(nonce), Payload { msg: plain, aad })
        .unwrap_or_else(|_| unreachable!("sealing fails only beyond 256 GiB"))
}

/// Opens what [`seal`] made.
///
/// # Errors
/// The tag does not fit.
pub fn open(
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, BadTag> {
    ChaCha20Poly1305::new(<&Key>::from(key))
        .decrypt(<&Nonce>::from(nonce), Payload { msg: sealed, aad })
        .map_err(|_| BadTag)
}

fn zero_nonce() -> fast::Nonce {
    fast::Nonce::assume_unique_for_key([0; 12])
}
