//! Hashes, HMAC and HKDF. Inputs come in parts, which are joined without separators: callers keep
//! them fixed-length.

use hkdf::{Hkdf, HkdfExtract};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use sha3::Sha3_256;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// SHA-256 of the parts, joined.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    digest::<Sha256>(parts)
}

/// SHA3-256 of the parts, joined.
#[must_use]
pub fn sha3_256(parts: &[&[u8]]) -> [u8; 32] {
    digest::<Sha3_256>(parts)
}

/// HMAC-SHA256 of the parts, joined. Compare it with [`super::is_equal`].
#[must_use]
pub fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new(&padded(key));
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The pseudorandom key of HKDF-SHA256. Not `Clone`, not `Debug`, wiped on drop.
#[derive(ZeroizeOnDrop)]
pub struct Prk([u8; 32]);

/// HKDF-Extract (RFC 5869) over the parts of the secret, joined.
#[must_use]
pub fn hkdf_extract(salt: &[u8], secret: &[&[u8]]) -> Prk {
    let mut extract = HkdfExtract::<Sha256>::new(Some(salt));
    for part in secret {
        extract.input_ikm(part);
    }
    let (mut prk, _) = extract.finalize();
    let copy = Prk(prk.into());
    prk.zeroize();
    copy
}

/// HKDF-Expand (RFC 5869) with the parts of the info, joined.
///
/// # Panics
/// `out` is longer than 8160 bytes: a mistake of ours, lengths are constants.
pub fn hkdf_expand(prk: &Prk, info: &[&[u8]], out: &mut [u8]) {
    let is_expanded = Hkdf::<Sha256>::from_prk(&prk.0)
        .is_ok_and(|hkdf| hkdf.expand_multi_info(info, out).is_ok());
    assert!(is_expanded, "HKDF gives at most 8160 bytes");
}

fn digest<D: Digest>(parts: &[&[u8]]) -> [u8; 32]
where
    sha2::digest::Output<D>: Into<[u8; 32]>,
{
    let mut hash = D::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

// HMAC's key block: the key, then zeros.
fn padded(key: &[u8; 32]) -> hmac::digest::Key<Hmac<Sha256>> {
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    for (byte, &key_byte) in block.iter_mut().zip(key) {
        *byte = key_byte;
    }
    block
}
