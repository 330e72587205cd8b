use proptest::prelude::*;

use super::*;
use crate::directory::testing::{self, TestRelay, WALL};
use crate::network::Params;
use crate::time::Duration;

fn fault_in(network: &Network, relay: &TestRelay) -> Option<DescriptorFault> {
    relay.unverified().verify(network, WALL).err()
}

fn fault(change: impl FnOnce(&mut RelayDescriptor)) -> Option<DescriptorFault> {
    fault_in(&testing::public_network(), &testing::relay(1).with(change))
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn receipt(issuer: u32, relay: &TestRelay, at: WallTime) -> Receipt {
    receipt_of(issuer, relay, relay.descriptor.addresses[0], at)
}

fn receipt_of(issuer: u32, relay: &TestRelay, address: SocketAddr, at: WallTime) -> Receipt {
    Receipt::sign(
        &testing::relay(issuer).key,
        &relay.descriptor.network,
        &relay.descriptor.relay,
        address,
        at,
    )
}

#[test] // §8.1(1), §8.1(3), §5.3(3)
fn a_good_descriptor_keeps_its_bytes() {
    let relay = testing::relay(1);
    let verified = relay.verified();
    assert_eq!(*verified, relay.descriptor);
    assert_eq!(verified.bytes(), relay.bytes());
    assert_eq!(verified.hash().0, sha256(&[&relay.bytes()]));
    assert_eq!(
        verified.hop_target().onion_key,
        relay.descriptor.onion_keys[0]
    );
}

#[test] // §8.1
fn the_longest_descriptor_fits() {
    let relay = testing::relay(1).with(|descriptor| {
        let v6 = "[2a00:1234:5678:9abc:def0:1234:5678:9abc]:65535";
        descriptor.onion_keys.push(OnionKey([9; 32]));
        descriptor.addresses =
            addresses(&[v6, "[2a00::2]:65535", "[2a00::3]:65535", "[2a00::4]:65535"]);
        descriptor.version = "v".repeat(VERSION_LEN_MAX);
        descriptor.puzzle = u64::MAX;
    });
    let receipts = (0..RECEIPTS_MAX).map(|number| {
        let address = relay.descriptor.addresses[number % ADDRESSES_MAX];
        receipt_of(100 + u32::try_from(number).unwrap(), &relay, address, WALL)
    });
    let receipts = receipts.collect();
    let relay = relay.with(|descriptor| descriptor.receipts = receipts);
    assert!(
        relay.bytes().len() <= RELAY_DESCRIPTOR_LEN_MAX,
        "{}",
        relay.bytes().len()
    );
    assert_eq!(fault_in(&testing::public_network(), &relay), None);
}

#[test] // §8.1(1)
fn any_changed_byte_is_noticed() {
    let bytes = testing::relay(1).bytes();
    for index in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[index] ^= 0x10;
        let result =
            Unverified::decode(&changed).and_then(|it| it.verify(&testing::public_network(), WALL));
        assert!(result.is_err(), "byte {index}");
    }
}

#[test] // §8.1(4)
fn lists_are_limited() {
    let relay = testing::relay(1).with(|descriptor| {
        descriptor.onion_keys = (1..4).map(|byte| OnionKey([byte; 32])).collect();
    });
    assert_eq!(
        Unverified::decode(&relay.bytes()),
        Err(DescriptorFault::Malformed(Malformed::Value))
    );
}

#[test] // §8.1(4)
fn another_network_or_version_is_refused() {
    assert_eq!(
        fault(|descriptor| descriptor.network = NetworkId([7; 32])),
        Some(DescriptorFault::Network)
    );
    let mut bytes = testing::relay(1).bytes();
    bytes[0] = 2;
    assert_eq!(Unverified::decode(&bytes), Err(DescriptorFault::Version));
}

#[test] // §8.1(4)
fn descriptors_live_48_hours_and_come_at_most_an_hour_early() {
    let issued =
        |at| fault(move |descriptor: &mut RelayDescriptor| descriptor.issued_at = WallTime(at));
    let wall = WALL.as_secs();
    assert_eq!(issued(wall + 3600), None);
    assert_eq!(issued(wall + 3601), Some(DescriptorFault::Future));
    assert_eq!(issued(wall - 48 * 3600 + 1), None);
    assert_eq!(issued(wall - 48 * 3600), Some(DescriptorFault::Dead));
    assert_eq!(issued(u64::MAX), Some(DescriptorFault::Future));
}

#[test] // §8.1(5)
fn addresses_name_hosts_of_the_public_internet() {
    let of = |texts: &[&str]| {
        let addresses = addresses(texts);
        fault(|descriptor| descriptor.addresses = addresses)
    };
    assert_eq!(of(&["1.2.3.4:1", "[2a00::1]:1"]), None);
    assert_eq!(of(&[]), Some(DescriptorFault::NoAddress));
    for wrong in [
        "0.0.0.0:1",
        "[::]:1",
        "224.0.0.1:1",
        "[ff02::1]:1",
        "255.255.255.255:1",
        "1.2.3.4:0",
    ] {
        assert_eq!(of(&[wrong]), Some(DescriptorFault::Address), "{wrong}");
    }
    let private = [
        "10.0.0.1:1",
        "127.0.0.1:1",
        "169.254.1.1:1",
        "100.64.0.1:1",
        "192.0.2.1:1",
        "[::1]:1",
    ];
    let private_v6 = [
        "[fe80::1]:1",
        "[fd00::1]:1",
        "[2001:db8::1]:1",
        "[::ffff:10.0.0.1]:1",
        "[2002:a00:1::]:1",
    ];
    for wrong in private.into_iter().chain(private_v6) {
        assert_eq!(
            of(&[wrong]),
            Some(DescriptorFault::AddressPrivate),
            "{wrong}"
        );
    }
    assert_eq!(
        of(&["1.2.3.4:1", "[::ffff:1.2.3.4]:1"]),
        Some(DescriptorFault::AddressRepeated)
    );
}

#[test] // §8.1(5)
fn private_addresses_need_a_network_that_allows_them() {
    let relay =
        testing::relay(1).with(|descriptor| descriptor.addresses = addresses(&["127.0.0.1:9000"]));
    assert_eq!(fault_in(&Network::local(), &relay), None);
    assert_eq!(
        fault_in(&testing::public_network(), &relay),
        Some(DescriptorFault::AddressPrivate)
    );
}

#[test] // §8.1(7)
fn onion_keys_are_one_or_two_sound_ones() {
    let of = |keys: &[OnionKey]| fault(|descriptor| descriptor.onion_keys = keys.to_vec());
    let sound = testing::relay(9).descriptor.onion_keys[0];
    assert_eq!(of(&[sound, OnionKey([9; 32])]), None);
    assert_eq!(of(&[]), Some(DescriptorFault::NoOnionKey));
    assert_eq!(of(&[sound, sound]), Some(DescriptorFault::OnionKeyRepeated));
    assert_eq!(
        of(&[sound, OnionKey([0; 32])]),
        Some(DescriptorFault::OnionKeyWeak)
    );
}

#[test] // §8.1(4)
fn version_text_is_printable() {
    let of = |text: &str| fault(|descriptor| text.clone_into(&mut descriptor.version));
    assert_eq!(of("umbel 0.1.0"), None);
    assert_eq!(of("umbel\x1b[2J"), Some(DescriptorFault::VersionText));
    assert_eq!(
        of(&"v".repeat(VERSION_LEN_MAX + 1)),
        Some(DescriptorFault::VersionText)
    );
}

#[test] // §8.1(2), §8.1(6)
fn receipts_are_counted_and_their_signatures_checked() {
    let network = Network {
        params: Params {
            receipts_min: 2,
            ..Params::DEFAULT
        },
        ..Network::local()
    };
    let with = |receipts: Vec<Receipt>| {
        fault_in(
            &network,
            &testing::relay(1).with(|descriptor| descriptor.receipts = receipts),
        )
    };
    let relay = testing::relay(1);
    let good = |issuer| receipt(issuer, &relay, WALL);
    assert_eq!(with(vec![good(2), good(3)]), None);
    let issuers = 2..3 + u32::try_from(RECEIPTS_AN_ADDRESS_MAX).unwrap();
    assert_eq!(
        with(issuers.map(good).collect()),
        Some(DescriptorFault::ReceiptsTooMany)
    );
    assert_eq!(
        with(vec![good(2), good(2)]),
        Some(DescriptorFault::ReceiptIssuer)
    );
    assert_eq!(
        with(vec![good(2), good(1)]),
        Some(DescriptorFault::ReceiptIssuer)
    );
    assert_eq!(
        with(vec![good(2), receipt(3, &testing::relay(8), WALL)]),
        Some(DescriptorFault::ReceiptAddress)
    );
    let of_another = Receipt {
        issuer: testing::relay(4).descriptor.relay,
        ..good(3)
    };
    assert_eq!(
        with(vec![good(2), of_another]),
        Some(DescriptorFault::ReceiptSignature)
    );
    let old = WallTime(WALL.as_secs() - Duration::from_secs(8 * 24 * 3600).as_secs());
    assert_eq!(
        with(vec![good(2), receipt(3, &relay, old)]),
        Some(DescriptorFault::ReceiptTime)
    );
    let early = WallTime(WALL.as_secs() + 3 * 3600);
    assert_eq!(
        with(vec![good(2), receipt(3, &relay, early)]),
        Some(DescriptorFault::ReceiptTime)
    );
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
        if let Ok(unverified) = Unverified::decode(&bytes) {
            let _ = unverified.verify(&Network::local(), WALL);
        }
    }

    #[test]
    fn damaged_descriptors_never_verify(at in 0_usize..200, byte in any::<u8>()) {
        let bytes = testing::relay(1).bytes();
        let mut changed = bytes.clone();
        if let Some(slot) = changed.get_mut(at) {
            *slot = byte;
        }
        let result = Unverified::decode(&changed).and_then(|it| it.verify(&testing::public_network(), WALL));
        prop_assert_eq!(result.is_ok(), changed == bytes);
    }
}
