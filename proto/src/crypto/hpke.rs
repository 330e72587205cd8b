//! One-shot sealing to a public key: HPKE (RFC 9180) base mode with X-Wing, HKDF-SHA256 and
//! ChaCha20-Poly1305.
//!
//! X-Wing is X25519 and ML-KEM-768 together: breaking only one of them opens nothing. A
//! sealed text says nothing of its sender. Rules: docs/protocol.md §10.3.

use ::hpke::aead::{AeadTag, ChaCha20Poly1305};
use ::hpke::kdf::HkdfSha256;
use ::hpke::{
    Deserializable, OpModeR, OpModeS, Serializable, single_shot_open_inout_detached,
    single_shot_seal_inout_detached_with_rng,
};
use core::fmt;
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::xwing::{self, Encapped, FastXWing, Opener, Public};
use crate::limits::TAG_LEN;

/// Length of a [`SealKey`], bytes.
pub const SEAL_KEY_LEN: usize = xwing::PUBLIC_LEN;
/// Length of the seed of a [`SealSecret`], bytes.
pub const SEAL_SEED_LEN: usize = xwing::SEED_LEN;
/// Length of the encapsulated key in front of a sealed text, bytes.
pub const ENCAPPED_LEN: usize = xwing::ENCAPPED_LEN;
/// Bytes that sealing adds to a text: the encapsulated key before it and the tag after it.
pub const SEAL_OVERHEAD_LEN: usize = ENCAPPED_LEN + TAG_LEN;

const _: () = assert!(SEAL_KEY_LEN == 1216 && ENCAPPED_LEN == 1120);

/// The bytes are no X-Wing public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSealKey;

impl fmt::Display for BadSealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an X-Wing public key")
    }
}

impl core::error::Error for BadSealKey {}

/// The sealed text is not for this secret and context, or was changed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSeal;

/// An X-Wing public key: anyone can seal to it. Its bytes have passed ML-KEM's modulus check.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "serde_bytes::ByteBuf", into = "serde_bytes::ByteBuf")]
pub struct SealKey(Public);

impl SealKey {
    /// Takes the key's bytes.
    ///
    /// # Errors
    /// A wrong length, or coefficients out of range.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadSealKey> {
        Public::from_bytes(bytes).map(Self).map_err(|_| BadSealKey)
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; SEAL_KEY_LEN] {
        &self.0.0
    }
}

/// Without the bytes: a seal key follows its owner around.
impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl TryFrom<serde_bytes::ByteBuf> for SealKey {
    type Error = BadSealKey;

    fn try_from(bytes: serde_bytes::ByteBuf) -> Result<Self, BadSealKey> {
        Self::from_bytes(&bytes)
    }
}

impl From<SealKey> for serde_bytes::ByteBuf {
    fn from(key: SealKey) -> Self {
        Self::from(key.as_bytes().to_vec())
    }
}

/// Opens what was sealed to its [`SealKey`]. Not `Clone`, not `Debug`, wiped on drop.
pub struct SealSecret(Opener);

impl SealSecret {
    /// A new secret.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Zeroizing::new([0; SEAL_SEED_LEN]);
        rng.fill_bytes(&mut *seed);
        Self::from_seed(&seed)
    }

    /// The secret with this seed.
    pub fn from_seed(seed: &[u8; SEAL_SEED_LEN]) -> Self {
        Self(Opener::from_seed(seed))
    }

    /// The seed, to be stored.
    pub fn seed(&self) -> Zeroizing<[u8; SEAL_SEED_LEN]> {
        self.0.seed().clone()
    }

    /// The public half.
    pub fn public(&self) -> SealKey {
        SealKey(self.0.public().clone())
    }
}

/// Seals a text of `text_len` bytes, written by `write` into zeroed space: encapsulated key |
/// ciphertext | tag (§10.3(2)).
///
/// The text is written where its ciphertext will be, so that no second copy of it is left behind.
pub fn seal(
    key: &SealKey,
    info: &[u8],
    text_len: usize,
    write: impl FnOnce(&mut [u8]),
    rng: &mut (impl CryptoRng + ?Sized),
) -> Vec<u8> {
    let mut sealed = vec![0; text_len + SEAL_OVERHEAD_LEN];
    let (encapped_out, rest) = sealed.split_at_mut(ENCAPPED_LEN);
    let (text, tag_out) = rest.split_at_mut(text_len);
    write(text);
    let Ok((encapped, tag)) =
        single_shot_seal_inout_detached_with_rng::<ChaCha20Poly1305, HkdfSha256, FastXWing>(
            &OpModeS::Base,
            &key.0,
            info,
            text.into(),
            &[],
            &mut &mut *rng,
        )
    else {
        unreachable!("the key has passed its check and the first AEAD call has a nonce left")
    };
    encapped.write_exact(encapped_out);
    tag.write_exact(tag_out);
    sealed
}

/// Opens what [`seal`] made.
///
/// # Errors
/// Another secret or context, changed or truncated bytes; the error does not tell which.
pub fn open(
    secret: &SealSecret,
    info: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, BadSeal> {
    let (encapped, rest) = sealed.split_at_checked(ENCAPPED_LEN).ok_or(BadSeal)?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(BadSeal)?;
    let encapped = Encapped::from_bytes(encapped).map_err(|_| BadSeal)?;
    let tag = AeadTag::<ChaCha20Poly1305>::from_bytes(tag).map_err(|_| BadSeal)?;
    let mut text = Zeroizing::new(ciphertext.to_vec());
    single_shot_open_inout_detached::<ChaCha20Poly1305, HkdfSha256, FastXWing>(
        &OpModeR::Base,
        &secret.0,
        &encapped,
        info,
        text.as_mut_slice().into(),
        &[],
        &tag,
    )
    .map_err(|_| BadSeal)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    fn sealed(secret: &SealSecret, text: &[u8]) -> Vec<u8> {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        seal(
            &secret.public(),
            b"context",
            text.len(),
            |space| space.copy_from_slice(text),
            &mut rng,
        )
    }

    #[test] // §10.3(2)
    fn only_the_secret_in_the_same_context_opens() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let (ours, other) = (
            SealSecret::generate(&mut rng),
            SealSecret::generate(&mut rng),
        );
        let sealed = sealed(&ours, b"text");
        assert_eq!(sealed.len(), 4 + SEAL_OVERHEAD_LEN);
        assert_eq!(
            open(&ours, b"context", &sealed).unwrap().as_slice(),
            b"text"
        );
        assert_eq!(open(&other, b"context", &sealed), Err(BadSeal));
        assert_eq!(open(&ours, b"another", &sealed), Err(BadSeal));
    }

    #[test] // §10.3(2)
    fn every_part_of_a_sealed_text_is_covered() {
        let secret = SealSecret::from_seed(&[7; SEAL_SEED_LEN]);
        let sealed = sealed(&secret, b"text");
        for position in [0, ENCAPPED_LEN - 1, ENCAPPED_LEN, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert_eq!(
                open(&secret, b"context", &changed),
                Err(BadSeal),
                "byte {position}"
            );
        }
        assert_eq!(
            open(&secret, b"context", &sealed[..sealed.len() - 1]),
            Err(BadSeal)
        );
    }

    #[test] // the simulator replays what it did
    fn the_given_randomness_decides_every_byte() {
        let secret = SealSecret::from_seed(&[7; SEAL_SEED_LEN]);
        assert_eq!(sealed(&secret, b"text"), sealed(&secret, b"text"));
    }

    #[test] // §9.3(5)
    fn a_key_survives_its_encoding_and_a_bad_one_is_refused() {
        let key = SealSecret::from_seed(&[7; SEAL_SEED_LEN]).public();
        let encoded = crate::wire::encode(&key);
        assert_eq!(crate::wire::decode::<SealKey>(&encoded), Ok(key.clone()));
        assert_eq!(SealKey::from_bytes(&key.as_bytes()[1..]), Err(BadSealKey));
        assert_eq!(SealKey::from_bytes(&[0xff; SEAL_KEY_LEN]), Err(BadSealKey));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test] // no bytes from a holder can do more than fail
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2 * SEAL_OVERHEAD_LEN)) {
            let secret = SealSecret::from_seed(&[7; SEAL_SEED_LEN]);
            prop_assert_eq!(open(&secret, b"context", &bytes), Err(BadSeal));
        }
    }
}
