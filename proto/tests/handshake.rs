//! The circuit handshake: both ends agree, or neither has keys (docs/protocol.md §5).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Script, hex, hex_array, list};
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use serde_json::Value;
use umbel_proto::crypto::aead::LayerKey;
use umbel_proto::crypto::stream::keystream_at;
use umbel_proto::handshake::{
    HandshakeFault, HopKeys, HopTarget, Initiator, ONIONSKIN_LEN, OnionKey, OnionSecret, Onionskin,
    REPLY_LEN, Reply, respond,
};
use umbel_proto::ids::{NetworkId, RelayId};

const NETWORK: NetworkId = NetworkId([1; 32]);
const RELAY: RelayId = RelayId([2; 32]);

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn onion() -> OnionSecret {
    OnionSecret::from_seed(&[3; 32])
}

fn target() -> HopTarget {
    HopTarget {
        relay: RELAY,
        onion_key: onion().public(),
    }
}

fn start() -> (Initiator, Onionskin) {
    Initiator::start(&NETWORK, &target(), &mut rng(1))
}

fn answer(skin: &Onionskin) -> Result<(HopKeys, Reply), HandshakeFault> {
    respond(&NETWORK, &RELAY, &[onion()], skin, &mut rng(2))
}

/// Keys show nothing of themselves; their keystreams do.
fn trace(key: &LayerKey) -> [u8; 32] {
    let mut trace = [0; 32];
    keystream_at(key, 1, &mut trace);
    trace
}

fn traces(keys: &HopKeys) -> [[u8; 32]; 3] {
    [trace(&keys.forward), trace(&keys.backward), keys.binding.0]
}

fn low_order_points() -> Vec<[u8; 32]> {
    let vectors: Value =
        serde_json::from_str(include_str!("vectors/x25519_rfc7748.json")).expect("JSON");
    list(&vectors["low_order_points_must_be_rejected"])
        .iter()
        .map(hex_array)
        .collect()
}

#[test] // §5.2(6)
fn both_ends_have_the_same_three_different_keys() {
    let (initiator, skin) = start();
    let (theirs, reply) = answer(&skin).unwrap_or_else(|fault| panic!("{fault:?}"));
    let ours = initiator
        .finish(&reply)
        .unwrap_or_else(|fault| panic!("{fault:?}"));
    assert_eq!(traces(&ours), traces(&theirs));
    let [forward, backward, binding] = traces(&ours);
    assert!(forward != backward && backward != binding && forward != binding);
}

#[test] // §5.2(1): nothing repeats but the name of the onion key
fn every_handshake_has_keys_of_its_own() {
    let mut rng = rng(5);
    let (_, first) = Initiator::start(&NETWORK, &target(), &mut rng);
    let (_, second) = Initiator::start(&NETWORK, &target(), &mut rng);
    assert_eq!(first.0[..8], second.0[..8]);
    assert!(first.0[8..40] != second.0[8..40] && first.0[40..1224] != second.0[40..1224]);

    let keys = |seed| {
        respond(&NETWORK, &RELAY, &[onion()], &first, &mut self::rng(seed))
            .map(|(keys, _)| traces(&keys))
    };
    assert_ne!(keys(1), keys(2));
}

#[test] // §5.2(3), §5.3(2)
fn the_previous_onion_key_is_honoured_and_an_unknown_one_is_not() {
    let other = || OnionSecret::from_seed(&[4; 32]);
    let (_, skin) = start();
    let respond =
        |keys: &[OnionSecret]| respond(&NETWORK, &RELAY, keys, &skin, &mut rng(2)).map(|_| ());
    assert_eq!(respond(&[other(), onion()]), Ok(()));
    assert_eq!(respond(&[other()]), Err(HandshakeFault::UnknownOnionKey));
    assert_eq!(respond(&[]), Err(HandshakeFault::UnknownOnionKey));
}

#[test] // §5.2(3), §8.6(6)
fn a_handshake_for_another_relay_or_network_is_refused() {
    let (_, skin) = start();
    let elsewhere = respond(&NetworkId([9; 32]), &RELAY, &[onion()], &skin, &mut rng(2));
    assert_eq!(elsewhere.err(), Some(HandshakeFault::Extension));
    let someone_else = respond(&NETWORK, &RelayId([9; 32]), &[onion()], &skin, &mut rng(2));
    assert_eq!(someone_else.err(), Some(HandshakeFault::Extension));
    assert!(answer(&skin).is_ok());
}

#[test] // §5.2(3), §5.2(2)
fn any_changed_byte_of_an_onionskin_is_refused() {
    let (_, skin) = start();
    for position in 0..ONIONSKIN_LEN {
        let mut changed = skin.clone();
        changed.0[position] ^= 0x80;
        let fault = if position < 8 {
            HandshakeFault::UnknownOnionKey
        } else {
            HandshakeFault::Extension
        };
        assert_eq!(answer(&changed).err(), Some(fault), "byte {position}");
    }
}

#[test] // §5.2(7)
fn any_changed_byte_of_a_reply_is_refused() {
    let (_, reply) = answer(&start().1).unwrap_or_else(|fault| panic!("{fault:?}"));
    for position in 0..REPLY_LEN {
        let mut changed = reply.clone();
        changed.0[position] ^= 0x80;
        assert_eq!(
            start().0.finish(&changed).err(),
            Some(HandshakeFault::Authenticator),
            "byte {position}"
        );
    }
}

#[test] // §5.2(7): a reply answers one onionskin
fn a_reply_to_another_onionskin_is_refused() {
    let (_, other) = Initiator::start(&NETWORK, &target(), &mut rng(7));
    let (_, reply) = answer(&other).unwrap_or_else(|fault| panic!("{fault:?}"));
    assert_eq!(
        start().0.finish(&reply).err(),
        Some(HandshakeFault::Authenticator)
    );
}

#[test] // §5.2(7), §5.2(8)
fn keys_of_low_order_are_refused_by_both_ends() {
    let (_, skin) = start();
    let (_, reply) = answer(&skin).unwrap_or_else(|fault| panic!("{fault:?}"));
    for point in low_order_points() {
        let mut weak_skin = skin.clone();
        weak_skin.0[8..40].copy_from_slice(&point);
        assert_eq!(
            answer(&weak_skin).err(),
            Some(HandshakeFault::NonContributory)
        );

        let mut weak_reply = reply.clone();
        weak_reply.0[..32].copy_from_slice(&point);
        assert_eq!(
            start().0.finish(&weak_reply).err(),
            Some(HandshakeFault::NonContributory)
        );

        let weak_target = HopTarget {
            relay: RELAY,
            onion_key: OnionKey(point),
        };
        let (initiator, _) = Initiator::start(&NETWORK, &weak_target, &mut rng(1));
        assert_eq!(
            initiator.finish(&reply).err(),
            Some(HandshakeFault::NonContributory)
        );
    }
}

#[test] // §5.1(1)
fn an_onion_key_is_stored_and_restored() {
    let key = OnionSecret::generate(&mut rng(8));
    let restored = OnionSecret::from_seed(&key.seed());
    assert!(
        restored.public() == key.public()
            && restored.id() == key.id()
            && key.public().id() == key.id()
    );
    assert_ne!(key.id(), onion().id());
}

#[test] // §5.2(4), §5.2(5), §5.1(2), §5.2(2): the wire does not change
fn the_handshake_equals_its_vector() {
    let vector: Value = serde_json::from_str(include_str!("vectors/handshake.json")).expect("JSON");
    let (network, relay) = (
        NetworkId(hex_array(&vector["network"])),
        RelayId(hex_array(&vector["relay"])),
    );
    let onion = OnionSecret::from_seed(&hex_array(&vector["onion_secret"]));
    assert_eq!(onion.public().0, hex_array(&vector["onion_key"]));
    assert_eq!(onion.id().0, hex_array(&vector["onion_key_id"]));

    let target = HopTarget {
        relay,
        onion_key: onion.public(),
    };
    let mut script = Script::of([hex(&vector["x"]), hex(&vector["kem_seed"])].concat());
    let (initiator, skin) = Initiator::start(&network, &target, &mut script);
    assert!(script.is_used_up());
    assert_eq!(skin.0.as_slice(), hex(&vector["onionskin"]));

    let mut script = Script::of([hex(&vector["kem_message"]), hex(&vector["y"])].concat());
    let answered = respond(&network, &relay, &[onion], &skin, &mut script);
    let (theirs, reply) = answered.unwrap_or_else(|fault| panic!("{fault:?}"));
    assert!(script.is_used_up());
    assert_eq!(reply.0.as_slice(), hex(&vector["reply"]));

    let expected = [
        trace(&LayerKey::from_bytes(hex_array(&vector["forward"]))),
        trace(&LayerKey::from_bytes(hex_array(&vector["backward"]))),
        hex_array(&vector["binding"]),
    ];
    assert_eq!(traces(&theirs), expected);
    let ours = initiator
        .finish(&reply)
        .unwrap_or_else(|fault| panic!("{fault:?}"));
    assert_eq!(traces(&ours), expected);
}
