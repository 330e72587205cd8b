//! Bodies for what is decoded in one go: any bytes are one value in its one form, or refused.

use std::str::FromStr;

use bech32::{Bech32m, Hrp};
use umbel_proto::cell::{Cell, Command};
use umbel_proto::crypto::hpke::SealSecret;
use umbel_proto::directory::receipts::{ReceiptReply, ReceiptRequest};
use umbel_proto::directory::{DirectoryReply, DirectoryRequest, Unverified};
use umbel_proto::handshake::{Onionskin, Reply};
use umbel_proto::ids::Peer;
use umbel_proto::inbox::address::{InboxAddress, InboxIdentity};
use umbel_proto::inbox::descriptor::{InboxDescriptor, Outer};
use umbel_proto::inbox::mailbox::{MailboxReply, MailboxRequest};
use umbel_proto::inbox::record::{MESSAGE_LEN_MAX, Opened, is_record_len, open_record};
use umbel_proto::limits::{
    BODY_LEN, CELL_HEADER_LEN, CELL_LEN, INVITE_SEEDS_MAX, MAILBOXES_MAX, RELAY_DESCRIPTOR_LEN_MAX,
};
use umbel_proto::link::Hello;
use umbel_proto::message::RelayMsg;
use umbel_proto::network::{Invite, Network};
use umbel_proto::time::WallTime;

/// When all documents are looked at.
pub(super) const WALL: WallTime = WallTime(1_790_000_000);

/// The secret that the corpus's records are sealed to.
pub(super) fn seal_secret() -> SealSecret {
    SealSecret::from_seed(&[7; 32])
}

/// The inbox that the corpus's descriptors are of.
pub(super) fn identity() -> InboxIdentity {
    InboxIdentity::from_seed(&[8; 32])
}

const INVITE_PREFIX: Hrp = Hrp::parse_unchecked("umbelnet");

fn body_of(input: &[u8]) -> [u8; BODY_LEN] {
    let mut body = [0; BODY_LEN];
    body.iter_mut()
        .zip(input)
        .for_each(|(byte, &given)| *byte = given);
    body
}

pub(super) fn hello(input: &[u8]) {
    let mut cell = Cell::new(None, Command::Hello);
    *cell.body_mut() = body_of(input);
    if let Ok(hello) = Hello::decode(&cell) {
        assert!(
            hello
                .descriptor
                .as_ref()
                .is_none_or(|bytes| bytes.len() <= RELAY_DESCRIPTOR_LEN_MAX)
        );
        assert_eq!(hello.encode().as_bytes(), cell.as_bytes());
    }
}

pub(super) fn cell_header(input: &[u8]) {
    let mut cell = Cell::blank();
    let bytes: &mut [u8; CELL_LEN] = cell.as_bytes_mut();
    bytes
        .iter_mut()
        .zip(input)
        .for_each(|(byte, &given)| *byte = given);
    if let Ok((circ, command)) = cell.header() {
        assert_eq!(circ.is_none(), command.is_link());
        let mut written = Cell::new(circ, command);
        *written.body_mut() = *cell.body();
        assert_eq!(
            written.as_bytes().split_at(CELL_HEADER_LEN),
            cell.as_bytes().split_at(CELL_HEADER_LEN)
        );
    }
}

pub(super) fn create_body(input: &[u8]) {
    let body = body_of(input);
    if let Ok(onionskin) = Onionskin::from_create_body(&body) {
        let mut written = [0xff; BODY_LEN];
        onionskin.write_create_body(&mut written);
        assert_eq!(written, body);
    }
}

pub(super) fn created_body(input: &[u8]) {
    let body = body_of(input);
    if let Ok(reply) = Reply::from_created_body(&body) {
        let mut written = [0xff; BODY_LEN];
        reply.write_created_body(&mut written);
        assert_eq!(written, body);
    }
}

pub(super) fn relay_message(input: &[u8]) {
    if let Ok(message) = RelayMsg::decode(input) {
        let mut written = Vec::new();
        message.encode(&mut written);
        assert_eq!(written, input);
    }
}

pub(super) fn relay_descriptor(input: &[u8]) {
    let Ok(descriptor) = Unverified::decode(input) else {
        return;
    };
    assert!(input.len() <= RELAY_DESCRIPTOR_LEN_MAX);
    assert_eq!(descriptor.bytes(), input);
    let relay = descriptor.relay();
    if let Ok(verified) = descriptor.verify(&Network::local(), WALL) {
        assert_eq!((verified.bytes(), verified.relay), (input, relay));
        assert!(!verified.addresses.is_empty() && !verified.onion_keys.is_empty());
    }
}

pub(super) fn directory_request(input: &[u8]) {
    if let Ok(request) = DirectoryRequest::decode(input) {
        assert_eq!(request.encode(), input);
    }
}

pub(super) fn directory_reply(input: &[u8]) {
    if let Ok(reply) = DirectoryReply::decode(input) {
        assert_eq!(reply.encode(), input);
    }
}

pub(super) fn receipt_request(input: &[u8]) {
    if let Ok(request) = ReceiptRequest::decode(input) {
        assert_eq!(request.encode(), input);
    }
}

pub(super) fn receipt_reply(input: &[u8]) {
    if let Ok(reply) = ReceiptReply::decode(input) {
        assert_eq!(reply.encode(), input);
    }
}

pub(super) fn mailbox_request(input: &[u8]) {
    if let Ok(request) = MailboxRequest::decode(input) {
        assert_eq!(request.encode(), input);
    }
}

pub(super) fn mailbox_reply(input: &[u8]) {
    if let Ok(reply) = MailboxReply::decode(input) {
        assert_eq!(reply.encode(), input);
    }
}

pub(super) fn inbox_descriptor(input: &[u8]) {
    let network = Network::local().id;
    let outer = Outer::verify(input, WALL);
    let opened = InboxDescriptor::open(identity().address(), &network, WALL.epoch(), input);
    if let Ok(opened) = opened {
        assert!(opened.mailboxes.len() <= MAILBOXES_MAX);
        let outer =
            outer.unwrap_or_else(|_| unreachable!("what opens is signed, and of this epoch"));
        assert_eq!(outer.revision, opened.revision);
    }
}

pub(super) fn record(input: &[u8]) {
    match open_record(&seal_secret(), input) {
        Ok(Opened::OneWay(message)) => {
            assert!(is_record_len(input.len()) && message.body.len() <= MESSAGE_LEN_MAX);
        }
        Ok(Opened::Opening(opening)) => {
            let network = Network::local().id;
            if let Ok(begun) = opening.introduction.accept(&network, &identity(), WALL) {
                let mut session = begun.session;
                assert!(
                    session.open(&opening.message, WALL).is_err(),
                    "nobody sealed it"
                );
            }
        }
        Err(_) => {}
    }
}

pub(super) fn inbox_address(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(address) = InboxAddress::from_str(&text) {
        assert_eq!(InboxAddress::from_str(&address.to_text()), Ok(address));
    }
}

pub(super) fn peer(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(peer) = Peer::from_str(&text) {
        assert_eq!(Peer::from_str(&peer.to_string()), Ok(peer));
    }
}

/// The input is an invitation, or the payload of one: no change to a line survives its checksum.
pub(super) fn invite(input: &[u8]) {
    let line = String::from_utf8_lossy(input).into_owned();
    let of_payload = bech32::encode_lower::<Bech32m>(INVITE_PREFIX, input).ok();
    for text in [Some(line), of_payload].into_iter().flatten() {
        if let Ok(invite) = Invite::from_str(&text) {
            assert_eq!(invite.to_string(), text.to_ascii_lowercase());
            assert!((1..=INVITE_SEEDS_MAX).contains(&invite.seeds().len()));
        }
    }
}

pub(super) fn network(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(network) = Network::from_toml(&text) {
        let written = network.to_toml();
        assert!(
            Network::from_toml(&written).is_ok_and(|read| read.to_toml() == written),
            "{written}"
        );
    }
}
