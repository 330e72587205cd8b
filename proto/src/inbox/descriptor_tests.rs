//! A directory relay's checks, and the opening of a descriptor with its address.

use super::*;
use crate::crypto::hpke::SealSecret;
use crate::limits::EPOCH_LEN;
use proptest::prelude::*;

const NETWORK: NetworkId = NetworkId([9; 32]);
const EPOCH: Epoch = Epoch(2900);

fn now() -> WallTime {
    EPOCH.starts_at() + EPOCH_LEN / 2
}

fn identity() -> InboxIdentity {
    InboxIdentity::from_seed(&[1; 32])
}

fn descriptor(mailboxes: u8) -> InboxDescriptor {
    let mailbox = |n: u8| Mailbox {
        relay: RelayId([n; 32]),
        queue: QueueId([n + 10; 32]),
        sender_seed: [n + 20; 32],
    };
    InboxDescriptor {
        revision: 7,
        seal_key: SealSecret::from_seed(&[3; 32]).public(),
        mailboxes: (1..=mailboxes).map(mailbox).collect(),
        puzzle_effort: 100,
    }
}

fn sealed() -> Vec<u8> {
    descriptor(3).seal(&identity(), &NETWORK, EPOCH)
}

/// Seals any body, as an owner's broken or hostile program might.
fn sealed_body(body: &[u8]) -> Vec<u8> {
    let mut bytes = sealed()[..HEADER_LEN].to_vec();
    let parts = sealed();
    let parts = Parts::split(&parts).unwrap();
    let key = sealing_key(identity().address(), &NETWORK, &parts.outer, &parts.salt);
    let sealed = aead::seal(&key, &NONCE, &bytes, body);
    bytes.extend_from_slice(&sealed);
    let signature = identity()
        .blinded_signer(&NETWORK, EPOCH)
        .sign(&signed_message(&bytes));
    bytes.extend_from_slice(&signature.0);
    bytes
}

fn open(bytes: &[u8]) -> Result<InboxDescriptor, OpenFault> {
    InboxDescriptor::open(identity().address(), &NETWORK, EPOCH, bytes)
}

#[test] // §9.3(2)
fn who_has_the_address_reads_it_and_a_directory_relay_verifies_it() {
    for mailboxes in 0..=5 {
        let bytes = descriptor(mailboxes).seal(&identity(), &NETWORK, EPOCH);
        assert_eq!(bytes.len(), INBOX_DESCRIPTOR_LEN);
        assert_eq!(open(&bytes), Ok(descriptor(mailboxes)));
        let blinded = identity().address().blinded_key(&NETWORK, EPOCH);
        assert_eq!(
            Outer::verify(&bytes, now()),
            Ok(Outer {
                blinded,
                epoch: EPOCH,
                revision: 7
            })
        );
    }
}

#[test] // §9.3(1)
fn another_address_network_or_epoch_does_not_open_it() {
    let bytes = sealed();
    let other = InboxIdentity::from_seed(&[2; 32]);
    let opened = [
        InboxDescriptor::open(other.address(), &NETWORK, EPOCH, &bytes),
        InboxDescriptor::open(identity().address(), &NetworkId([8; 32]), EPOCH, &bytes),
        InboxDescriptor::open(identity().address(), &NETWORK, EPOCH.next(), &bytes),
    ];
    assert!(
        opened
            .iter()
            .all(|opened| *opened == Err(OpenFault::OtherKey))
    );
}

#[test] // §9.3(3)
fn the_key_needs_the_address_not_only_what_a_directory_relay_sees() {
    let bytes = sealed();
    let parts = Parts::split(&bytes).unwrap();
    let as_address = InboxAddress::from_key(parts.outer.blinded.as_bytes()).unwrap();
    let key = sealing_key(&as_address, &NETWORK, &parts.outer, &parts.salt);
    assert!(aead::open(&key, &NONCE, parts.header, parts.sealed).is_err());
}

#[test] // §9.3(6), §9.3(7)
fn a_revision_has_one_form_and_whatever_differs_looks_unrelated() {
    assert_eq!(sealed(), sealed());
    let next = InboxDescriptor {
        revision: 8,
        ..descriptor(3)
    };
    let other = InboxDescriptor {
        puzzle_effort: 101,
        ..descriptor(3)
    };
    let bytes = sealed();
    for changed in [next, other] {
        let changed = changed.seal(&identity(), &NETWORK, EPOCH);
        let after_salt = bytes.iter().zip(&changed).skip(HEADER_LEN - SALT_LEN);
        let equal = after_salt.filter(|(a, b)| a == b).count();
        assert!(equal < 100, "{equal} of 8143 bytes equal");
    }
}

#[test] // §9.3(4)
fn every_byte_is_signed() {
    let bytes = sealed();
    for position in [
        17,
        48,
        49,
        HEADER_LEN,
        SIGNED_LEN - 1,
        SIGNED_LEN,
        INBOX_DESCRIPTOR_LEN - 1,
    ] {
        let mut changed = bytes.clone();
        changed[position] ^= 1;
        let fault = Outer::verify(&changed, now()).unwrap_err();
        assert!(
            matches!(fault, OuterFault::Signature | OuterFault::WeakKey),
            "byte {position}: {fault:?}"
        );
        assert!(open(&changed).is_err());
    }
    let mut newer = bytes;
    newer[16] += 1; // a later revision
    assert_eq!(Outer::verify(&newer, now()), Err(OuterFault::Signature));
}

#[test] // §9.3(4)
fn length_version_and_weak_keys_are_refused() {
    let bytes = sealed();
    assert_eq!(Outer::verify(&bytes[1..], now()), Err(OuterFault::Length));
    assert_eq!(
        Outer::verify(&[&bytes[..], &[0]].concat(), now()),
        Err(OuterFault::Length)
    );
    assert_eq!(open(&[]), Err(OpenFault::Outer(OuterFault::Length)));
    let mut changed = bytes.clone();
    changed[0] = 2;
    assert_eq!(Outer::verify(&changed, now()), Err(OuterFault::Version));
    let mut changed = bytes;
    changed[17..49].fill(0); // a point of order four: verifies too much
    assert_eq!(Outer::verify(&changed, now()), Err(OuterFault::WeakKey));
}

#[test] // §9.2(1), §9.3(4)
fn only_the_current_and_the_next_epoch_are_taken_with_an_hour_of_skew() {
    let bytes = sealed();
    let accepted = |wall| Outer::verify(&bytes, wall).is_ok();
    let (hour, second) = (CLOCK_SKEW_MAX.as_secs(), 1);
    let previous_starts = EPOCH.starts_at().as_secs() - EPOCH_LEN.as_secs();
    let ends = EPOCH.next().starts_at().as_secs();
    assert!(!accepted(WallTime(previous_starts - hour - second)));
    assert!(
        accepted(WallTime(previous_starts - hour)),
        "next, for a clock an hour ahead"
    );
    assert!(accepted(now()));
    assert!(
        accepted(WallTime(ends + hour - second)),
        "current, for a clock an hour behind"
    );
    assert!(!accepted(WallTime(ends + hour)));
    assert_eq!(Outer::verify(&bytes, WallTime(0)), Err(OuterFault::Epoch));
    assert_eq!(
        Outer::verify(&bytes, WallTime(u64::MAX)),
        Err(OuterFault::Epoch)
    );
}

#[test] // §9.3(5)
fn a_body_has_one_form_only() {
    let body = descriptor(3).encode_body();
    assert_eq!(open(&sealed_body(&body)), Ok(descriptor(3)));
    let changed = |position: usize, value: u8| {
        let mut changed = body.to_vec();
        changed[position] = value;
        open(&sealed_body(&changed))
    };
    assert_eq!(
        changed(SEAL_KEY_LEN + 4, 6),
        Err(OpenFault::Body(Malformed::TooLong)),
        "six mailboxes"
    );
    assert_eq!(
        changed(SEAL_KEY_LEN + 4, 255),
        Err(OpenFault::Body(Malformed::TooLong))
    );
    assert_eq!(
        changed(SEAL_KEY_LEN + 4, 2),
        Err(OpenFault::Body(Malformed::Trailing)),
        "padding is zero"
    );
    assert_eq!(
        changed(BODY_LEN - 1, 1),
        Err(OpenFault::Body(Malformed::Trailing))
    );
    assert_eq!(
        open(&sealed_body(&[0xff; BODY_LEN])),
        Err(OpenFault::Body(Malformed::Value)),
        "no seal key"
    );
}

#[test] // what may be logged
fn debug_shows_no_seed() {
    assert!(!format!("{:?}", descriptor(3)).contains("21, 21"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_refused(mut bytes in prop::collection::vec(any::<u8>(), INBOX_DESCRIPTOR_LEN), header: bool) {
        if header {
            bytes[..HEADER_LEN].copy_from_slice(&sealed()[..HEADER_LEN]);
        }
        prop_assert!(Outer::verify(&bytes, now()).is_err());
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn a_decoded_body_encodes_to_the_same(count: u8, effort: u32, rest in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut body = descriptor(0).encode_body()[..SEAL_KEY_LEN].to_vec();
        body.extend_from_slice(&effort.to_be_bytes());
        body.push(count % 5);
        body.extend_from_slice(&rest);
        body.resize(BODY_LEN, 0);
        if let Ok(decoded) = InboxDescriptor::decode_body(1, &body) {
            prop_assert_eq!(decoded.encode_body().to_vec(), body);
        }
    }
}
