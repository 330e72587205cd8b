//! The primitives against their standards' own vectors, and where the hot path has a library of its
//! own, that against the one it replaces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Script, hex, hex_array, list};
use ml_kem::MlKem768;
use ml_kem::kem::{Decapsulate, Encapsulate, Kem, KeyExport};
use proptest::prelude::*;
use serde_json::Value;
use shake::{ExtendableOutput, Shake128, Update, XofReader};
use umbel_proto::crypto::aead::{self, BadTag, LayerKey};
use umbel_proto::crypto::dh::{DhPublic, DhSecret, NonContributory};
use umbel_proto::crypto::kdf::{hkdf_expand, hkdf_extract, hmac_sha256, sha3_256, sha256};
use umbel_proto::crypto::kem::{self, BadEncapsulationKey, KemSecret};
use umbel_proto::crypto::sign::{BadSignature, PublicKey, Signature, SigningKey};
use umbel_proto::crypto::stream;

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test] // RFC 7748 §5.2
fn x25519_agrees_with_the_rfc() {
    let vectors = vectors(include_str!("vectors/x25519_rfc7748.json"));
    for case in list(&vectors["cases"]) {
        let secret = DhSecret::from_bytes(&hex_array(&case["scalar"]));
        let shared = secret
            .agree(&DhPublic(hex_array(&case["u"])))
            .unwrap_or_else(|_| panic!("contributory"));
        assert_eq!(shared.as_bytes(), &hex_array(&case["out"]));
    }

    let (mut k, mut u) = (basepoint(), basepoint());
    for round in 1..=1000 {
        let next = *DhSecret::from_bytes(&k)
            .agree(&DhPublic(u))
            .unwrap_or_else(|_| panic!("contributory"))
            .as_bytes();
        (u, k) = (k, next);
        if round == 1 || round == 1000 {
            assert_eq!(
                k,
                hex_array(&vectors["iterated_from_09"][round.to_string()])
            );
        }
    }
}

fn basepoint() -> [u8; 32] {
    let mut point = [0; 32];
    point[0] = 9;
    point
}

#[test] // docs/protocol.md §5
fn low_order_points_are_refused() {
    let vectors = vectors(include_str!("vectors/x25519_rfc7748.json"));
    let secret = DhSecret::from_bytes(&[0x42; 32]);
    for point in list(&vectors["low_order_points_must_be_rejected"]) {
        let mut point: [u8; 32] = hex_array(point);
        assert_eq!(secret.agree(&DhPublic(point)).err(), Some(NonContributory));
        point[31] |= 0x80; // X25519 ignores the top bit
        assert_eq!(secret.agree(&DhPublic(point)).err(), Some(NonContributory));
    }
    assert!(secret.agree(&DhPublic(basepoint())).is_ok());
}

#[test] // RFC 8439 §2.8.2
fn aead_agrees_with_the_rfc() {
    let vectors = vectors(include_str!("vectors/chacha20poly1305_rfc8439.json"));
    let case = &vectors["aead_2_8_2"];
    let (key, nonce, aad) = (
        hex_array(&case["key"]),
        hex_array(&case["nonce"]),
        hex(&case["aad"]),
    );
    let expected = [hex(&case["ct"]), hex(&case["tag"])].concat();
    assert_eq!(aead::seal(&key, &nonce, &aad, &hex(&case["pt"])), expected);
    assert_eq!(
        aead::open(&key, &nonce, &aad, &expected),
        Ok(hex(&case["pt"]))
    );

    for position in 0..expected.len() {
        let mut changed = expected.clone();
        changed[position] ^= 1;
        assert_eq!(aead::open(&key, &nonce, &aad, &changed), Err(BadTag));
    }
    assert_eq!(aead::open(&key, &nonce, b"", &expected), Err(BadTag));
    assert_eq!(aead::open(&key, &nonce, &aad, &expected[..15]), Err(BadTag));
}

#[test] // RFC 8439 A.1, vectors 1 and 2
fn keystream_agrees_with_the_rfc() {
    let key = LayerKey::from_bytes([0; 32]);
    let mut blocks = [0xff; 128];
    stream::keystream_at(&key, 0, &mut blocks);
    let expected = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7\
                    da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586\
                    9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed\
                    29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f";
    assert_eq!(blocks.as_slice(), hex(&expected.into()));

    let mut second = [0; 64];
    stream::keystream_at(&key, 1, &mut second);
    assert_eq!(second, blocks[64..]);
}

#[test] // RFC 5869 A.1-A.3
fn hkdf_agrees_with_the_rfc() {
    let vectors = vectors(include_str!("vectors/hkdf_sha256_rfc5869.json"));
    for case in list(&vectors["cases"]) {
        let okm = hex(&case["okm"]);
        let (secret, info) = (hex(&case["ikm"]), hex(&case["info"]));
        let mut out = vec![0; okm.len()];
        hkdf_expand(
            &hkdf_extract(&hex(&case["salt"]), &[&secret]),
            &[&info],
            &mut out,
        );
        assert_eq!(out, okm);

        let (front, back) = secret.split_at(secret.len() / 2);
        hkdf_expand(
            &hkdf_extract(&hex(&case["salt"]), &[front, back]),
            &[&info, b""],
            &mut out,
        );
        assert_eq!(out, okm, "parts are joined");
    }
}

// RFC 5869 §2.2: extracting is HMAC with the salt as key; and the hashes of "abc", FIPS 180-2 and
// FIPS 202.
#[test]
fn hashes_agree_with_their_standards() {
    let abc_sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let abc_sha3 = "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532";
    assert_eq!(sha256(&[b"a", b"bc"]), hex_array(&abc_sha256.into()));
    assert_eq!(sha3_256(&[b"ab", b"c"]), hex_array(&abc_sha3.into()));

    let key = [7; 32];
    let mut out = [0; 32];
    hkdf_expand(&hkdf_extract(&key, &[b"secret"]), &[b"info"], &mut out);
    assert_eq!(
        out,
        hmac_sha256(&hmac_sha256(&key, &[b"secret"]), &[b"info", &[1]])
    );
}

#[test] // FIPS 203; the accumulated test of C2SP/CCTV for the final standard
fn ml_kem_agrees_with_the_accumulated_hash() {
    let vectors = vectors(include_str!("vectors/ml_kem_768.json"));
    let mut input = Shake128::default().finalize_xof();
    let mut accumulated = Shake128::default();
    for _ in 0..100 {
        let mut seed = vec![0; 64];
        let mut message = vec![0; 32];
        let mut wrong = [0; kem::CIPHERTEXT_LEN];
        input.read(&mut seed);
        input.read(&mut message);
        input.read(&mut wrong);

        let (secret, encapsulation_key) = KemSecret::generate(&mut Script::of(seed));
        let (ciphertext, shared) = kem::encapsulate(&encapsulation_key, &mut Script::of(message))
            .unwrap_or_else(|_| panic!("an encapsulation key"));
        assert_eq!(
            secret.decapsulate(&ciphertext).as_bytes(),
            shared.as_bytes()
        );
        accumulated.update(&encapsulation_key);
        accumulated.update(&ciphertext);
        accumulated.update(shared.as_bytes());
        accumulated.update(secret.decapsulate(&wrong).as_bytes());
    }
    let mut hash = [0; 32];
    accumulated.finalize_xof().read(&mut hash);
    assert_eq!(
        hash,
        hex_array(&vectors["accumulated_FIPS203_final"]["100"])
    );
}

#[test] // FIPS 203 §7.2
fn ml_kem_encapsulates_as_in_cctv_and_refuses_keys_beyond_the_modulus() {
    let vectors = vectors(include_str!("vectors/ml_kem_768.json"));
    let case = &vectors["cctv_ipd_encaps_case"];
    let mut encapsulation_key = hex_array(&case["ek"]);
    let (ciphertext, shared) =
        kem::encapsulate(&encapsulation_key, &mut Script::of(hex(&case["m"])))
            .unwrap_or_else(|_| panic!("an encapsulation key"));
    assert_eq!(ciphertext.as_slice(), hex(&case["c"]));
    assert_eq!(shared.as_bytes(), &hex_array(&case["K"]));

    encapsulation_key[..2].fill(0xff); // a coefficient of 4095; the modulus is 3329
    let refused = kem::encapsulate(&encapsulation_key, &mut Script::of(vec![0; 32]));
    assert_eq!(refused.err(), Some(BadEncapsulationKey));
}

#[test] // RFC 8032 §7.1, test 1
fn ed25519_agrees_with_the_rfc() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555\
                     fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
    let key = SigningKey::from_seed(&hex_array(&seed.into()));
    assert_eq!(key.seed().as_slice(), hex(&seed.into()));
    assert_eq!(key.public(), PublicKey(hex_array(&public.into())));
    assert_eq!(key.sign(b""), Signature(hex_array(&signature.into())));
    assert_eq!(key.public().verify(b"", &key.sign(b"")), Ok(()));
    assert_eq!(key.public().verify(b"x", &key.sign(b"")), Err(BadSignature));
}

#[test] // docs/protocol.md §5: a key of low order would let one signature fit many messages
fn weak_signing_keys_are_refused() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    assert_eq!(
        PublicKey(identity).verify(b"anything", &Signature(signature)),
        Err(BadSignature)
    );
}

proptest! {
    #[test] // any bytes are a secret, and any a public key
    fn both_x25519_are_the_same_function(seed: [u8; 32], point: [u8; 32]) {
        let (ours, theirs) = (DhSecret::from_bytes(&seed), x25519_dalek::StaticSecret::from(seed));
        prop_assert_eq!(ours.public().0, x25519_dalek::PublicKey::from(&theirs).to_bytes());
        prop_assert_eq!(*ours.to_bytes(), seed);
        let expected = theirs.diffie_hellman(&point.into());
        prop_assert_eq!(ours.agree(&DhPublic(point)).ok().map(|shared| *shared.as_bytes()), Some(expected.to_bytes()));
    }

    #[test] // each makes keys, ciphertexts and refusals that are the other's
    fn both_ml_kem_are_the_same_algorithm(
        d: [u8; 32], z: [u8; 32], message: [u8; 32], flip in 0..kem::CIPHERTEXT_LEN, bit in 0..8u8,
    ) {
        let seed = [d, z].concat();
        let (ours, our_public) = KemSecret::generate(&mut Script::of(seed.clone()));
        let (theirs, their_public) = MlKem768::generate_keypair_from_rng(&mut Script::of(seed));
        prop_assert_eq!(our_public, <[u8; kem::ENCAPSULATION_KEY_LEN]>::from(their_public.to_bytes()));

        let (sent, shared) = kem::encapsulate(&our_public, &mut Script::of(message.to_vec())).expect("a key");
        let (their_sent, their_shared) = their_public.encapsulate_with_rng(&mut Script::of(message.to_vec()));
        prop_assert_eq!(sent, <[u8; kem::CIPHERTEXT_LEN]>::from(their_sent));
        prop_assert_eq!(*shared.as_bytes(), <[u8; 32]>::from(their_shared));

        let mut changed = sent;
        changed[flip] ^= 1 << bit;
        for ciphertext in [sent, changed] {
            let opened = *ours.decapsulate(&ciphertext).as_bytes();
            prop_assert_eq!(opened, <[u8; 32]>::from(theirs.decapsulate(&ciphertext.into())));
            prop_assert_eq!(opened == *shared.as_bytes(), ciphertext == sent);
        }
    }

    #[test]
    fn both_aeads_are_the_same_algorithm(
        key: [u8; 32], plain in proptest::collection::vec(any::<u8>(), 0..2100), flip: (usize, u8),
    ) {
        let layer = LayerKey::from_bytes(key);
        let mut fast = plain.clone();
        let tag = aead::seal_in_place(&layer, &mut fast);
        prop_assert_eq!(aead::seal(&key, &[0; 12], &[], &plain), [fast.as_slice(), &tag].concat());

        let mut streamed = plain.clone();
        stream::xor_keystream(&layer, 1, &mut streamed);
        prop_assert_eq!(&streamed, &fast, "the AEAD's keystream begins at counter 1");

        let mut moved = LayerKey::from_bytes(key);
        stream::xor_cell_and_next_key(&mut moved, &mut streamed);
        prop_assert_eq!(&streamed, &plain);

        let mut changed = [fast.as_slice(), &tag].concat();
        let position = flip.0 % changed.len();
        changed[position] ^= flip.1.max(1);
        let (sealed, changed_tag) = changed.split_last_chunk_mut().unwrap();
        prop_assert_eq!(aead::open_in_place(&layer, changed_tag, sealed), Err(BadTag));
        prop_assert_eq!(aead::open_in_place(&layer, &tag, &mut fast), Ok(()));
        prop_assert_eq!(fast, plain);
    }

    #[test]
    fn a_key_moves_to_the_erasure_block_however_it_is_moved(key: [u8; 32]) {
        let mut expected = [0; 32];
        stream::keystream_at(&LayerKey::from_bytes(key), stream::ERASURE_COUNTER, &mut expected);
        let mut block = [0; 64];
        stream::keystream_at(&LayerKey::from_bytes(key), 32, &mut block);

        let (mut alone, mut with_block) = (LayerKey::from_bytes(key), LayerKey::from_bytes(key));
        stream::next_key(&mut alone);
        prop_assert_eq!(*stream::block_and_next_key(&mut with_block, 32), block);
        for moved in [&alone, &with_block] {
            let (mut ours, mut theirs) = ([0; 8], [0; 8]);
            stream::keystream_at(moved, 1, &mut ours);
            stream::keystream_at(&LayerKey::from_bytes(expected), 1, &mut theirs);
            prop_assert_eq!(ours, theirs);
        }
    }
}
