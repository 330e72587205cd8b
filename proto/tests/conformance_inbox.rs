//! The primitives of inboxes meet their specifications: Tor's key blinding, X-Wing, bech32m, and
//! HPKE over them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use bech32::Bech32m;
use bech32::primitives::decode::CheckedHrpstring;
use data_encoding::HEXLOWER;
use serde_json::Value;
use umbel_proto::crypto::aead;
use umbel_proto::crypto::blind::{BlindedSigner, SoundKey};
use umbel_proto::crypto::hpke::{ENCAPPED_LEN, SealKey, SealSecret, open, seal};
use umbel_proto::crypto::kdf::{hkdf_expand, hkdf_extract, sha256};
use umbel_proto::inbox::address::{AddressError, InboxAddress};
use x_wing::kem::Decapsulate;

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).expect("the vectors are JSON")
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER
        .decode(value.as_str().expect("a string").as_bytes())
        .expect("hexadecimal")
}

fn hex32(value: &Value) -> [u8; 32] {
    hex(value).try_into().expect("32 bytes")
}

#[test] // §9.2(3), rend-spec-v3 A.2
fn keys_are_blinded_as_tor_blinds_them() {
    let vectors = vectors(include_str!("vectors/ed25519_blinding_tor.json"));
    let cases = vectors["low_level"].as_array().expect("a list");
    assert_eq!(cases.len(), 8);
    for case in cases {
        let (seed, parameter) = (hex32(&case["seed"]), hex32(&case["param_unclamped"]));
        let key = SoundKey::of_seed(&seed);
        assert_eq!(key.as_bytes(), &hex32(&case["pub"]));
        assert_eq!(
            key.blind(&parameter).as_bytes(),
            &hex32(&case["blinded_pub"])
        );
        assert_eq!(
            BlindedSigner::new(&seed, &parameter).public().as_bytes(),
            &hex32(&case["blinded_pub"])
        );
    }
    let case = &vectors["tor_v3_period"];
    let Ok(key) = SoundKey::new(&hex32(&case["id_pub"])) else {
        panic!("Tor's own key is sound")
    };
    assert_eq!(
        key.blind(&hex32(&case["h"])).as_bytes(),
        &hex32(&case["blinded_pub"])
    );
}

#[test] // §10.3(3)
fn the_kem_is_x_wing() {
    let vectors = vectors(include_str!("vectors/xwing_draft.json"));
    let cases = vectors["cases"].as_array().expect("a list");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let (seed, key) = (hex32(&case["seed"]), hex(&case["pk"]));
        let ours = SealSecret::from_seed(&seed).public();
        assert_eq!(ours.as_bytes().as_slice(), key);
        assert!(SealKey::from_bytes(&key).is_ok_and(|key| key == ours));

        let secret = x_wing::DecapsulationKey::from(seed);
        let ciphertext =
            x_wing::Ciphertext::try_from(hex(&case["ct"]).as_slice()).expect("its length");
        assert_eq!(secret.decapsulate(&ciphertext).as_slice(), hex(&case["ss"]));
        let public = x_wing::EncapsulationKey::try_from(key.as_slice()).expect("a key");
        let randomness: [u8; 64] = hex(&case["eseed"]).try_into().expect("64 bytes");
        let (ciphertext, shared) = public.encapsulate_deterministic((&randomness).into());
        assert_eq!(
            (ciphertext.as_slice(), shared.as_slice()),
            (&*hex(&case["ct"]), &*hex(&case["ss"]))
        );
    }
}

/// Gives the bytes it was made of, then nothing more.
struct Scripted(std::vec::IntoIter<u8>);

impl rand::rand_core::TryRng for Scripted {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        panic!("sealing asks for bytes only")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        panic!("sealing asks for bytes only")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.iter_mut().for_each(|byte| {
            *byte = self
                .0
                .next()
                .expect("no more was asked for than X-Wing needs");
        });
        Ok(())
    }
}

impl rand::rand_core::TryCryptoRng for Scripted {}

#[test] // §10.3(2): RFC 9180's key schedule over X-Wing's shared secret, written out a second time
fn a_sealed_text_is_hpke_base_mode() {
    let vectors = vectors(include_str!("vectors/xwing_draft.json"));
    for case in vectors["cases"].as_array().expect("a list") {
        let secret = SealSecret::from_seed(&hex32(&case["seed"]));
        let mut rng = Scripted(hex(&case["eseed"]).into_iter());
        let write = |space: &mut [u8]| space.copy_from_slice(b"hello");
        let sealed = seal(&secret.public(), b"umbel record 1", 5, write, &mut rng);
        assert_eq!(sealed[..ENCAPPED_LEN], hex(&case["ct"]));

        let (key, nonce) = hpke_base_key(&hex(&case["ss"]), b"umbel record 1");
        assert_eq!(
            sealed[ENCAPPED_LEN..],
            aead::seal(&key, &nonce, b"", b"hello")
        );
        assert!(open(&secret, b"umbel record 1", &sealed).is_ok_and(|text| *text == b"hello"));
    }
}

/// RFC 9180 §5.1, mode 0, without a pre-shared key; the key and nonce of the first message.
fn hpke_base_key(shared: &[u8], info: &[u8]) -> ([u8; 32], [u8; 12]) {
    const SUITE: &[u8] = b"HPKE\x64\x7a\x00\x01\x00\x03"; // X-Wing, HKDF-SHA256, ChaCha20Poly1305
    let extract = |salt: &[u8], label: &[u8], secret: &[u8]| {
        hmac(salt, &[b"HPKE-v1", SUITE, label, secret].concat())
    };
    let context = [
        &[0][..],
        &extract(b"", b"psk_id_hash", b""),
        &extract(b"", b"info_hash", info),
    ]
    .concat();
    let secret = hkdf_extract(shared, &[b"HPKE-v1", SUITE, b"secret"]);
    let (mut key, mut nonce) = ([0; 32], [0; 12]);
    hkdf_expand(
        &secret,
        &[&[0, 32], b"HPKE-v1", SUITE, b"key", &context],
        &mut key,
    );
    hkdf_expand(
        &secret,
        &[&[0, 12], b"HPKE-v1", SUITE, b"base_nonce", &context],
        &mut nonce,
    );
    (key, nonce)
}

/// HMAC-SHA256 (RFC 2104) for a key of at most 64 bytes.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        block
    };
    sha256(&[&pad(0x5c), &sha256(&[&pad(0x36), text])])
}

#[test] // §9.1(2), BIP-350
fn the_checksum_is_bech32m() {
    let vectors = vectors(include_str!("vectors/bech32m_bip350.json"));
    for text in vectors["valid"].as_array().expect("a list") {
        let text = text.as_str().expect("a string");
        let checked = CheckedHrpstring::new::<Bech32m>(text);
        assert!(checked.is_ok(), "{text}");
    }
    for case in vectors["invalid"].as_array().expect("a list") {
        let text = case[0].as_str().expect("a string");
        assert!(CheckedHrpstring::new::<Bech32m>(text).is_err(), "{text}");
        assert_eq!(
            text.parse::<InboxAddress>(),
            Err(AddressError::Prefix),
            "{text}"
        );
    }
}
