//! Decoders: any bytes are either read or refused, and a value survives encoding.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use core::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::handshake::{ONIONSKIN_LEN, Onionskin, REPLY_LEN, Reply};
use umbel_proto::ids::{CircId, NetworkId, OnionKeyId, RelayId};
use umbel_proto::limits::{BODY_LEN, RELAY_DESCRIPTOR_LEN_MAX};
use umbel_proto::link::{Hello, LinkVersion};
use umbel_proto::message::{
    Credit, Data, DataFlags, EXTEND_LEN, Extend, ExtendRefusal, RelayMsg, StreamId,
};
use umbel_proto::time::WallTime;
use umbel_proto::wire::Malformed;

fn encoded(message: &RelayMsg<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn hello() -> Hello {
    Hello::of_client(NetworkId([5; 32]), WallTime(1_790_000_000))
}

fn hello_cell(body: [u8; BODY_LEN]) -> Cell {
    let mut cell = Cell::new(None, Command::Hello);
    *cell.body_mut() = body;
    cell
}

fn any_hello() -> impl Strategy<Value = Hello> {
    let descriptor = proptest::option::of(vec(any::<u8>(), 1..=RELAY_DESCRIPTOR_LEN_MAX));
    (
        vec(any::<u16>(), 1..=8),
        any::<[u8; 32]>(),
        any::<u64>(),
        any::<(u32, u32)>(),
        descriptor,
    )
        .prop_map(
            |(versions, network, clock, (parameters, features), descriptor)| Hello {
                versions,
                network: NetworkId(network),
                clock: WallTime(clock),
                parameters: NonZeroU32::new(parameters),
                features,
                descriptor,
            },
        )
}

/// A body whose beginning is likely to be understood.
fn any_body(first: impl Strategy<Value = u8>) -> impl Strategy<Value = [u8; BODY_LEN]> {
    (first, vec(any::<u8>(), 0..BODY_LEN)).prop_map(|(first, rest)| {
        let mut body = [0; BODY_LEN];
        body[0] = first;
        for (byte, given) in body[1..].iter_mut().zip(rest) {
            *byte = given;
        }
        body
    })
}

proptest! {
    #[test] // §2.4
    fn a_hello_is_read_as_it_was_written(hello in any_hello()) {
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    #[test] // §2.4
    fn any_body_is_one_hello_or_none(body in any_body(0u8..12)) {
        if let Ok(hello) = Hello::decode(&hello_cell(body)) {
            let cell = hello.encode();
            prop_assert_eq!(cell.body(), &body);
        }
    }

    #[test] // §6, §7
    fn any_bytes_are_one_relay_message_or_none(first in 0u8..8, rest in vec(any::<u8>(), 0..2024)) {
        let bytes = [&[first], rest.as_slice()].concat();
        if let Ok(message) = RelayMsg::decode(&bytes) {
            prop_assert_eq!(encoded(&message), bytes);
        }
    }

    #[test] // §7.1
    fn data_is_read_as_it_was_written(stream in 1u16.., open: bool, fin: bool, bytes in vec(any::<u8>(), 0..1969)) {
        let data = Data { stream: StreamId(stream), flags: DataFlags { open, fin, reset: false }, bytes: &bytes };
        let written = encoded(&RelayMsg::Data(data));
        let read = RelayMsg::decode(&written);
        prop_assert!(matches!(read, Ok(RelayMsg::Data(read)) if read == data));
    }

    #[test] // §7.3
    fn a_credit_is_read_as_it_was_written(tag: [u8; 16], cells: u16) {
        let credit = Credit { tag, cells };
        let written = encoded(&RelayMsg::Credit(credit));
        let read = RelayMsg::decode(&written);
        prop_assert!(matches!(read, Ok(RelayMsg::Credit(read)) if read == credit));
    }

    #[test] // §4.1
    fn any_body_is_one_onionskin_or_none(body in any_body(0u8..3), len in 0..BODY_LEN) {
        let mut body = body;
        body[len..].fill(0);
        let mut written = [0xff; BODY_LEN];
        match Onionskin::from_create_body(&body) {
            Ok(skin) => {
                skin.write_create_body(&mut written);
                prop_assert_eq!(written, body);
            }
            Err(_) => prop_assert!(body[0] != 1 || body[1 + ONIONSKIN_LEN..].iter().any(|&byte| byte != 0)),
        }
        match Reply::from_created_body(&body) {
            Ok(reply) => {
                reply.write_created_body(&mut written);
                prop_assert_eq!(written, body);
            }
            Err(_) => prop_assert!(body[REPLY_LEN..].iter().any(|&byte| byte != 0)),
        }
    }
}

#[test] // §6.2(5), §6.3(1)
fn extend_and_its_answers_are_read_as_they_were_written() {
    let onionskin = Onionskin([3; ONIONSKIN_LEN]);
    let extend = Extend {
        relay: RelayId([1; 32]),
        onion_key: OnionKeyId([3; 8]),
        onionskin,
    };
    let mut bytes = encoded(&RelayMsg::Extend(Box::new(extend)));
    assert_eq!(bytes.len(), EXTEND_LEN);
    let Ok(RelayMsg::Extend(read)) = RelayMsg::decode(&bytes) else {
        panic!("an extend")
    };
    assert!(
        read.relay.0 == [1; 32]
            && read.onion_key.0 == [3; 8]
            && read.onionskin.0 == [3; ONIONSKIN_LEN]
    );
    bytes.push(0);
    assert_eq!(RelayMsg::decode(&bytes).err(), Some(Malformed::Trailing));
    assert_eq!(
        RelayMsg::decode(&bytes[..EXTEND_LEN - 1]).err(),
        Some(Malformed::Truncated)
    );
    bytes.pop();
    bytes[1 + RelayId::LEN] ^= 1;
    assert_eq!(
        RelayMsg::decode(&bytes).err(),
        Some(Malformed::Value),
        "another onion key than the onionskin's"
    );

    let extended = encoded(&RelayMsg::Extended(Box::new(Reply([4; REPLY_LEN]))));
    assert!(
        matches!(RelayMsg::decode(&extended), Ok(RelayMsg::Extended(reply)) if reply.0 == [4; REPLY_LEN])
    );
    for refusal in [
        ExtendRefusal::UnknownRelay,
        ExtendRefusal::Unreachable,
        ExtendRefusal::Refused,
    ] {
        let bytes = encoded(&RelayMsg::ExtendRefused(refusal));
        assert!(
            matches!(RelayMsg::decode(&bytes), Ok(RelayMsg::ExtendRefused(read)) if read == refusal)
        );
    }
    assert_eq!(RelayMsg::decode(&[3, 4]).err(), Some(Malformed::Value));
}

#[test] // §6, §7.1, §7.3
fn messages_that_are_none_are_refused() {
    for (bytes, fault) in [
        (&[][..], Malformed::Truncated),
        (&[6], Malformed::Value),             // unknown kind
        (&[0, 0], Malformed::Trailing),       // padding has no content
        (&[4, 0, 0, 0], Malformed::Value),    // stream 0
        (&[4, 0, 1, 8], Malformed::Value),    // unknown flag
        (&[4, 0, 1, 6], Malformed::Value),    // a reset that is an end as well
        (&[4, 0, 1, 4, 9], Malformed::Value), // a reset with bytes
        (&[5, 1, 2, 3], Malformed::Truncated),
    ] {
        assert_eq!(RelayMsg::decode(bytes).err(), Some(fault), "{bytes:?}");
    }
    assert!(matches!(RelayMsg::decode(&[0]), Ok(RelayMsg::Padding)));
    assert!(
        matches!(RelayMsg::decode(&[4, 0, 1, 4]), Ok(RelayMsg::Data(data)) if data.flags.reset)
    );
}

#[test] // §2.4(2), §2.1(3)
fn a_hello_that_is_none_is_refused() {
    let good = *hello().encode().body();
    let changed = |position: usize, byte: u8| {
        let mut body = good;
        body[position] = byte;
        Hello::decode(&hello_cell(body)).err()
    };
    assert_eq!(
        changed(0, 0),
        Some(Violation::Malformed(Malformed::Value)),
        "no version"
    );
    assert_eq!(
        changed(0, 9),
        Some(Violation::Malformed(Malformed::TooLong)),
        "nine versions"
    );
    assert_eq!(
        changed(51, 8),
        Some(Violation::Malformed(Malformed::TooLong)),
        "a descriptor of 2048 bytes"
    );
    assert_eq!(
        changed(BODY_LEN - 1, 1),
        Some(Violation::Malformed(Malformed::Trailing)),
        "bytes behind the end"
    );
    assert_eq!(changed(52, 1), None, "a descriptor of one zero byte");

    let mut other = Cell::new(None, Command::Padding);
    *other.body_mut() = good;
    assert_eq!(Hello::decode(&other), Err(Violation::Hello));
    let circ = CircId::new(1);
    assert!(matches!(
        Hello::decode(&Cell::new(circ, Command::Hello)),
        Err(Violation::Header(_))
    ));
}

#[test] // §2.4(2), §2.4(3)
fn peers_agree_on_the_highest_common_version_of_one_network() {
    let speaking = |versions: &[u16]| Hello {
        versions: versions.to_vec(),
        ..hello()
    };
    assert_eq!(
        speaking(&[1]).negotiate(&speaking(&[1])),
        Ok(LinkVersion(1))
    );
    assert_eq!(
        speaking(&[1, 3, 2]).negotiate(&speaking(&[4, 2, 1])),
        Ok(LinkVersion(2))
    );
    assert_eq!(
        speaking(&[1]).negotiate(&speaking(&[2])),
        Err(Violation::Version)
    );
    let elsewhere = Hello {
        network: NetworkId([6; 32]),
        ..hello()
    };
    assert_eq!(hello().negotiate(&elsewhere), Err(Violation::Network));
}
