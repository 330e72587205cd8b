//! X-Wing (draft-connolly-cfrg-xwing-kem): X25519 and ML-KEM-768 together, as a KEM for the `hpke`
//! crate.
//!
//! Its output is byte for byte that of `hpke`'s own, which is the cross-check. But it uses the
//! ML-KEM of [`kem`], which takes a fourth of the time, and expands an opener from its
//! seed once, not for each text (docs/decisions/009). Breaking only one of the two opens nothing.
//! Rules: docs/protocol.md §10.3.

use std::sync::Arc;

use ::hpke::hybrid_array::typenum::{Prod, Sum, U3, U32, U64, U1024};
use ::hpke::kem::{SharedSecret, XWing};
use ::hpke::{Deserializable, HpkeError, Kem, Serializable};
use rand::CryptoRng;
use sha3::{Digest, Sha3_256};
use shake::{ExtendableOutput, Shake256, Update, XofReader};
use subtle::{Choice, ConstantTimeEq};
use x25519_dalek::{PublicKey as DhPublic, StaticSecret};
use zeroize::Zeroizing;

use super::kem::{self, CIPHERTEXT_LEN, ENCAPSULATION_KEY_LEN, KemSecret};

/// Length of a public key, bytes: ML-KEM's and X25519's.
pub(super) const PUBLIC_LEN: usize = ENCAPSULATION_KEY_LEN + DH_LEN;
/// Length of an encapsulated key, bytes: ML-KEM's ciphertext and an ephemeral X25519 key.
pub(super) const ENCAPPED_LEN: usize = CIPHERTEXT_LEN + DH_LEN;
/// Length of a seed, bytes.
pub(super) const SEED_LEN: usize = 32;
/// Length of an X25519 key, bytes.
const DH_LEN: usize = 32;
/// The label that keeps the combined secret apart from any other hash.
const LABEL: &[u8] = br"\.//^\";

/// The KEM, as `hpke` wants it.
pub(super) struct FastXWing;

/// A public key whose ML-KEM part has passed the modulus check (§10.3(3)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Public(pub(super) Box<[u8; PUBLIC_LEN]>);

/// The opening key, expanded once from its seed. `Clone` because `hpke` asks for it; all clones are
/// one secret, wiped with the last.
#[derive(Clone)]
pub(super) struct Opener(Arc<Expanded>);

/// An encapsulated key.
#[derive(Clone)]
pub(super) struct Encapped([u8; ENCAPPED_LEN]);

struct Expanded {
    seed: Zeroizing<[u8; SEED_LEN]>,
    kem: KemSecret,
    dh: StaticSecret,
    public: Public,
}

impl Opener {
    pub(super) fn from_seed(seed: &[u8; SEED_LEN]) -> Self {
        let mut expanded = Shake256::default().chain(seed).finalize_xof();
        let (mut kem_seed, mut dh) = (
            Zeroizing::new([0; kem::KEM_SEED_LEN]),
            Zeroizing::new([0; DH_LEN]),
        );
        expanded.read(&mut *kem_seed);
        expanded.read(&mut *dh);
        let (kem, encapsulation_key) = KemSecret::from_seed(&kem_seed);
        let dh = StaticSecret::from(*dh);
        let public = Public(Box::new(joined(
            &encapsulation_key,
            DhPublic::from(&dh).as_bytes(),
        )));
        Self(Arc::new(Expanded {
            seed: Zeroizing::new(*seed),
            kem,
            dh,
            public,
        }))
    }

    pub(super) fn seed(&self) -> &Zeroizing<[u8; SEED_LEN]> {
        &self.0.seed
    }

    pub(super) fn public(&self) -> &Public {
        &self.0.public
    }
}

/// Two parts as one.
fn joined<const LEN: usize>(kem: &[u8], dh: &[u8; DH_LEN]) -> [u8; LEN] {
    let mut both = [0; LEN];
    let (kem_place, dh_place) = both.split_at_mut(LEN - DH_LEN);
    kem_place.copy_from_slice(kem);
    dh_place.copy_from_slice(dh);
    both
}

/// One as its two parts.
fn parts<const LEN: usize, const KEM_LEN: usize>(
    both: &[u8; LEN],
) -> (&[u8; KEM_LEN], &[u8; DH_LEN]) {
    let halves = both
        .split_first_chunk()
        .and_then(|(kem, dh)| Some((kem, dh.try_into().ok()?)));
    halves.unwrap_or_else(|| unreachable!("the parts' lengths add up"))
}

/// The secret of both, bound to this exchange of X25519; ML-KEM binds its own.
fn combined(
    kem: &super::SharedSecret,
    dh: &x25519_dalek::SharedSecret,
    ephemeral: &[u8; DH_LEN],
    dh_public: &[u8; DH_LEN],
) -> SharedSecret<FastXWing> {
    let hash = Sha3_256::new()
        .chain_update(kem.as_bytes())
        .chain_update(dh.as_bytes());
    let hash = hash
        .chain_update(ephemeral)
        .chain_update(dh_public)
        .chain_update(LABEL);
    let mut secret = SharedSecret::default();
    hash.finalize_into(&mut secret.0);
    secret
}

impl Kem for FastXWing {
    type PublicKey = Public;
    type PrivateKey = Opener;
    type EncappedKey = Encapped;
    type NSecret = U32;

    const KEM_ID: u16 = XWing::KEM_ID;

    fn sk_to_pk(secret: &Opener) -> Public {
        secret.public().clone()
    }

    fn derive_keypair(material: &[u8]) -> (Opener, Public) {
        let (secret, _) = XWing::derive_keypair(material);
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        secret.write_exact(&mut *seed);
        let opener = Opener::from_seed(&seed);
        let public = opener.public().clone();
        (opener, public)
    }

    fn decap(
        secret: &Opener,
        sender: Option<&Public>,
        encapped: &Encapped,
    ) -> Result<SharedSecret<Self>, HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::DecapError); // X-Wing has no authenticated form
        }
        let Expanded {
            kem, dh, public, ..
        } = &*secret.0;
        let (ciphertext, ephemeral) = parts::<ENCAPPED_LEN, CIPHERTEXT_LEN>(&encapped.0);
        let (_, dh_public) = parts::<PUBLIC_LEN, ENCAPSULATION_KEY_LEN>(&public.0);
        let shared = dh.diffie_hellman(&DhPublic::from(*ephemeral));
        Ok(combined(
            &kem.decapsulate(ciphertext),
            &shared,
            ephemeral,
            dh_public,
        ))
    }

    fn encap_with_rng(
        public: &Public,
        sender: Option<(&Opener, &Public)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, Encapped), HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::EncapError); // X-Wing has no authenticated form
        }
        let (encapsulation_key, dh_public) = parts::<PUBLIC_LEN, ENCAPSULATION_KEY_LEN>(&public.0);
        let (ciphertext, kem) =
            kem::encapsulate(encapsulation_key, rng).map_err(|_| HpkeError::EncapError)?;
        let mut bytes = Zeroizing::new([0; DH_LEN]);
        rng.fill_bytes(&mut *bytes);
        let dh = StaticSecret::from(*bytes);
        let ephemeral = DhPublic::from(&dh).to_bytes();
        let shared = dh.diffie_hellman(&DhPublic::from(*dh_public));
        let secret = combined(&kem, &shared, &ephemeral, dh_public);
        Ok((secret, Encapped(joined(&ciphertext, &ephemeral))))
    }
}

type U1120 = Sum<Sum<U1024, U64>, U32>;
type U1216 = Sum<U1024, Prod<U64, U3>>;

impl Serializable for Public {
    type OutputSize = U1216;

    fn write_exact(&self, out: &mut [u8]) {
        out.copy_from_slice(self.0.as_slice());
    }
}

impl Deserializable for Public {
    fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        let bytes: Box<[u8; PUBLIC_LEN]> = bytes
            .to_vec()
            .into_boxed_slice()
            .try_into()
            .map_err(|_| HpkeError::ValidationError)?;
        let (encapsulation_key, _) = parts::<PUBLIC_LEN, ENCAPSULATION_KEY_LEN>(&bytes);
        if kem::is_encapsulation_key(encapsulation_key) {
            Ok(Self(bytes))
        } else {
            Err(HpkeError::ValidationError)
        }
    }
}

impl Serializable for Opener {
    type OutputSize = U32;

    fn write_exact(&self, out: &mut [u8]) {
        out.copy_from_slice(self.seed().as_slice());
    }
}

impl Deserializable for Opener {
    fn from_bytes(seed: &[u8]) -> Result<Self, HpkeError> {
        seed.try_into()
            .map(Self::from_seed)
            .map_err(|_| HpkeError::ValidationError)
    }
}

impl ConstantTimeEq for Opener {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.seed().as_slice().ct_eq(other.seed().as_slice())
    }
}

impl Serializable for Encapped {
    type OutputSize = U1120;

    fn write_exact(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

impl Deserializable for Encapped {
    fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| HpkeError::ValidationError)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::*;

    /// The results of this and of `hpke`'s own X-Wing for one seed and one draw of randomness.
    fn both(seed: [u8; 32], random: u64) -> [(Vec<u8>, Vec<u8>, Vec<u8>); 2] {
        fn of<K: Kem>(seed: &[u8], random: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
            let secret = K::PrivateKey::from_bytes(seed).unwrap();
            let public = K::sk_to_pk(&secret);
            let (shared, encapped) =
                K::encap_with_rng(&public, None, &mut ChaCha20Rng::seed_from_u64(random)).unwrap();
            assert_eq!(K::decap(&secret, None, &encapped).unwrap().0, shared.0);
            (
                public.to_bytes().to_vec(),
                encapped.to_bytes().to_vec(),
                shared.0.to_vec(),
            )
        }
        [of::<FastXWing>(&seed, random), of::<XWing>(&seed, random)]
    }

    #[test] // §10.3(3)
    fn it_is_the_x_wing_that_hpke_has() {
        for number in 0..16 {
            let [ours, theirs] = both([number; 32], 100 + u64::from(number));
            assert!(ours == theirs, "{number}");
        }
        let (ours, theirs) = (
            FastXWing::derive_keypair(b"material").1,
            XWing::derive_keypair(b"material").1,
        );
        assert_eq!(ours.to_bytes(), theirs.to_bytes());
    }

    #[test] // §10.3(3): a changed ciphertext gives another secret to both, and the same
    fn it_rejects_as_the_x_wing_that_hpke_has() {
        let [(_, encapped, shared), _] = both([9; 32], 9);
        for position in [0, CIPHERTEXT_LEN - 1, CIPHERTEXT_LEN, ENCAPPED_LEN - 1] {
            let mut changed = encapped.clone();
            changed[position] ^= 1;
            let ours = FastXWing::decap(
                &Opener::from_seed(&[9; 32]),
                None,
                &Encapped::from_bytes(&changed).unwrap(),
            );
            let secret = <XWing as Kem>::PrivateKey::from_bytes(&[9; 32]).unwrap();
            let theirs = XWing::decap(
                &secret,
                None,
                &Deserializable::from_bytes(&changed).unwrap(),
            );
            let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
            assert_eq!(ours.0, theirs.0);
            assert_ne!(ours.0.as_slice(), shared.as_slice());
        }
    }
}
