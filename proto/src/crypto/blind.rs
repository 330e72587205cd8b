//! Ed25519 keys that are blinded: a key for one period that only those who know the long-term key
//! can derive or link to it, and that its owner can sign with. As in Tor's rend-spec-v3, appendix
//! A.2. Rules: docs/protocol.md §9.2.
//!
//! Blinding multiplies by a clamped number that is then reduced, which is no multiple of eight any
//! more: a torsion component would survive it. So only a [`SoundKey`] can be blinded.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use curve25519_dalek::traits::IsIdentity;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use crate::crypto::dh::{DhPublic, DhSecret};
use crate::crypto::sign::Signature;

const PREFIX_DOMAIN: &[u8] = b"Derive temporary signing key hash input";

/// The bytes are no point, a point with a small-order component, or not the canonical encoding of a
/// point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeakKey;

/// An Ed25519 public key of prime order, and so in the one encoding it has. No `Debug`: it may be
/// an inbox's address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SoundKey([u8; 32]);

impl SoundKey {
    /// Takes a key's bytes.
    ///
    /// # Errors
    /// Anything that an honestly made key can't be.
    pub fn new(bytes: &[u8; 32]) -> Result<Self, WeakKey> {
        let point = CompressedEdwardsY(*bytes).decompress().ok_or(WeakKey)?;
        // A second encoding have only points with y below 19 or x = 0, none of which is of prime
        // order (see the tests).
        let is_sound = !point.is_identity() && point.is_torsion_free();
        if is_sound {
            Ok(Self(*bytes))
        } else {
            Err(WeakKey)
        }
    }

    /// The public key of the Ed25519 secret with this seed.
    pub fn of_seed(seed: &[u8; 32]) -> Self {
        // A clamped scalar times the base point: never the identity, never with torsion.
        Self(VerifyingKey::from(&ExpandedSecretKey::from(seed)).to_bytes())
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key blinded by `parameter`: `A' = clamp(parameter) A` (§9.2(3)).
    #[must_use]
    pub fn blind(&self, parameter: &[u8; 32]) -> Self {
        // The factor is no multiple of the group's order: it is a multiple of 8 below 2^255, and 8
        // times the order is not.
        let blinded = factor(parameter) * self.point();
        debug_assert!(!blinded.is_identity());
        Self(blinded.compress().0)
    }

    fn point(&self) -> EdwardsPoint {
        let Some(point) = CompressedEdwardsY(self.0).decompress() else {
            unreachable!("checked by new()")
        };
        point
    }
}

/// The X25519 form of an Ed25519 public key: the u-coordinate of the same point, as in RFC 7748 §4.1.
/// One key pair may serve both (Thormarker, *On using the same key pair for Ed25519 and an X25519
/// based KEM*, 2021). §11.1(1)
pub fn dh_of_identity(key: &SoundKey) -> DhPublic {
    DhPublic(key.point().to_montgomery().0)
}

/// The X25519 form of the Ed25519 secret with this seed.
pub fn dh_of_seed(seed: &[u8; 32]) -> DhSecret {
    let hash = Zeroizing::new(<[u8; 64]>::from(Sha512::digest(seed)));
    let mut scalar = Zeroizing::new([0; 32]);
    for (to, from) in scalar.iter_mut().zip(hash.iter()) {
        *to = *from;
    }
    // X25519 clamps it as Ed25519 does.
    DhSecret::from_bytes(&scalar)
}

/// Signs with a blinded key. Not `Clone`, not `Debug`, wiped on drop.
pub struct BlindedSigner {
    secret: ExpandedSecretKey,
    public: VerifyingKey,
}

impl BlindedSigner {
    /// The signer for the Ed25519 secret with this seed, blinded by `parameter`.
    pub fn new(seed: &[u8; 32], parameter: &[u8; 32]) -> Self {
        Self::from_expanded(&ExpandedSecretKey::from(seed), parameter)
    }

    // §9.2(4)
    fn from_expanded(secret: &ExpandedSecretKey, parameter: &[u8; 32]) -> Self {
        let digest = Zeroizing::new(<[u8; 64]>::from(
            Sha512::new()
                .chain_update(PREFIX_DOMAIN)
                .chain_update(secret.hash_prefix)
                .finalize(),
        ));
        let mut hash_prefix = Zeroizing::new([0; 32]);
        for (to, from) in hash_prefix.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
        let secret = ExpandedSecretKey {
            scalar: secret.scalar * factor(parameter),
            hash_prefix: *hash_prefix,
        };
        let public = VerifyingKey::from(&secret);
        Self { secret, public }
    }

    /// The blinded public key.
    pub fn public(&self) -> SoundKey {
        SoundKey(self.public.to_bytes())
    }

    /// Signs; anyone who has the blinded public key can verify, as with any Ed25519 signature.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(raw_sign::<Sha512>(&self.secret, message, &self.public).to_bytes())
    }
}

fn factor(parameter: &[u8; 32]) -> Scalar {
    Scalar::from_bytes_mod_order(clamp_integer(*parameter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::sign::PublicKey;
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use serde_json::Value;

    fn hex<const N: usize>(value: &Value) -> [u8; N] {
        HEXLOWER
            .decode(value.as_str().unwrap().as_bytes())
            .unwrap()
            .try_into()
            .unwrap()
    }

    fn expanded_bytes(secret: &ExpandedSecretKey) -> [u8; 64] {
        let bytes = [secret.scalar.to_bytes(), secret.hash_prefix].concat();
        bytes.try_into().unwrap()
    }

    #[test] // §9.2(4): rend-spec-v3 A.2
    fn secrets_blind_as_tor_blinds_them() {
        let vectors: Value = serde_json::from_str(include_str!(
            "../../tests/vectors/ed25519_blinding_tor.json"
        ))
        .unwrap();
        for case in vectors["low_level"].as_array().unwrap() {
            let signer = BlindedSigner::new(&hex(&case["seed"]), &hex(&case["param_unclamped"]));
            assert_eq!(
                expanded_bytes(&signer.secret),
                hex(&case["blinded_expanded"])
            );
            assert_eq!(*signer.public().as_bytes(), hex(&case["blinded_pub"]));
        }
        let case = &vectors["tor_v3_period"];
        let expanded: [u8; 64] = hex(&case["id_expanded"]);
        let secret = ExpandedSecretKey {
            scalar: Scalar::from_bytes_mod_order(expanded[..32].try_into().unwrap()),
            hash_prefix: expanded[32..].try_into().unwrap(),
        };
        let signer = BlindedSigner::from_expanded(&secret, &hex(&case["h"]));
        assert_eq!(*signer.public().as_bytes(), hex(&case["blinded_pub"]));
        assert_eq!(
            expanded_bytes(&signer.secret),
            hex(&case["blinded_expanded"])
        );
    }

    #[test] // §9.1(3)
    fn keys_with_a_small_order_component_are_refused() {
        for torsion in &EIGHT_TORSION {
            assert!(SoundKey::new(&torsion.compress().0).is_err(), "small order");
        }
        for torsion in &EIGHT_TORSION[1..] {
            assert!(
                SoundKey::new(&(ED25519_BASEPOINT_POINT + torsion).compress().0).is_err(),
                "torsion component"
            );
        }
        assert!(SoundKey::new(&ED25519_BASEPOINT_POINT.compress().0).is_ok());
    }

    #[test] // §9.1(3)
    fn bytes_that_encode_no_point_or_not_canonically_are_refused() {
        // In 255 bits only y below 19 can be written a second way, as y + p; and only x = 0, where
        // y is 1 or -1, has a second sign. This is all of them.
        for (y, sign) in (0..19u8).flat_map(|y| [(y, 0), (y, 0x80)]) {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (0xed + y, 0x7f | sign);
            assert!(SoundKey::new(&bytes).is_err(), "y = p + {y}");
        }
        let (mut one, mut minus_one) = ([0; 32], [0xff; 32]);
        (one[0], one[31], minus_one[0]) = (1, 0x80, 0xec);
        assert!(SoundKey::new(&one).is_err() && SoundKey::new(&minus_one).is_err());
        let mut no_point = [0; 32];
        no_point[0] = 2;
        assert!(SoundKey::new(&no_point).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test] // §9.2(3): both sides come to the same key, it is sound, and what it signs verifies
        fn owner_and_reader_agree(seed: [u8; 32], parameter: [u8; 32], message: [u8; 16]) {
            let signer = BlindedSigner::new(&seed, &parameter);
            let blinded = SoundKey::of_seed(&seed).blind(&parameter);
            prop_assert!(signer.public() == blinded);
            prop_assert!(SoundKey::new(blinded.as_bytes()) == Ok(blinded));
            let signature = signer.sign(&message);
            prop_assert!(PublicKey(*blinded.as_bytes()).verify(&message, &signature).is_ok());
            prop_assert!(PublicKey(*blinded.as_bytes()).verify(b"other", &signature).is_err());
        }

        #[test]
        fn any_bytes_are_a_sound_key_or_refused(bytes: [u8; 32]) {
            if let Ok(key) = SoundKey::new(&bytes) {
                prop_assert!(SoundKey::new(key.blind(&bytes).as_bytes()).is_ok());
            }
        }
    }
}
