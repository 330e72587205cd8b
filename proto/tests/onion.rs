//! Onion layers against the reference's vectors, and against everyone on the path (docs/protocol.md
//! §3).
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
use umbel_proto::cell::{Cell, Command};
use umbel_proto::crypto::aead::LayerKey;
use umbel_proto::crypto::kdf::sha256;
use umbel_proto::ids::CircId;
use umbel_proto::limits::{BACKWARD_ROOM, BODY_LEN, HOPS_MAX, TAG_LEN, forward_room};
use umbel_proto::onion::origin::OriginLayers;
use umbel_proto::onion::transit::{AddLayer, PeelLayer, Peeled, delivered_message};
use umbel_proto::onion::{HopCommand, LayerFault};
use umbel_proto::wire::Malformed;

/// A circuit with keys and no links.
struct Path {
    origin: OriginLayers,
    hops: Vec<(PeelLayer, AddLayer)>,
    rng: ChaCha20Rng,
}

impl Path {
    fn with_keys(keys: impl IntoIterator<Item = ([u8; 32], [u8; 32])>) -> Self {
        let mut path = Self {
            origin: OriginLayers::new(),
            hops: Vec::new(),
            rng: ChaCha20Rng::seed_from_u64(7),
        };
        for (forward, backward) in keys {
            path.origin.push(
                LayerKey::from_bytes(forward),
                LayerKey::from_bytes(backward),
            );
            let peel = PeelLayer::new(LayerKey::from_bytes(forward));
            path.hops
                .push((peel, AddLayer::new(LayerKey::from_bytes(backward))));
        }
        path
    }

    fn new(hops: usize) -> Self {
        Self::with_keys((1u8..).take(hops).map(|n| ([n; 32], [n | 0x80; 32])))
    }

    fn wrap(&mut self, message: &[u8]) -> Cell {
        let mut cell = blank();
        self.origin
            .wrap(false, message, cell.body_mut(), &mut self.rng);
        cell
    }

    /// Peels at hop `hop` and carries the cell over the next link.
    fn peel(&mut self, hop: usize, cell: &mut Cell) -> Result<Peeled, LayerFault> {
        let peeled = self.hops[hop].0.peel(cell)?;
        *cell = carried(cell);
        Ok(peeled)
    }

    /// Seals at the last hop and adds every other's layer.
    fn reply(&mut self, message: &[u8]) -> ([u8; TAG_LEN], Cell) {
        let mut cell = blank();
        let (last, before) = self.hops.split_last_mut().unwrap();
        let tag = last.1.seal(message, &mut cell);
        for (_, add) in before.iter_mut().rev() {
            add.add(cell.body_mut());
        }
        (tag, cell)
    }
}

fn blank() -> Cell {
    Cell::new(CircId::new(1), Command::Relay)
}

/// The cell as it is read from the next link: its bytes at the buffer's start again.
fn carried(cell: &Cell) -> Cell {
    let mut next = blank();
    *next.body_mut() = *cell.body();
    next
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/onion_layers.json")).expect("JSON")
}

fn path_of(case: &Value) -> Path {
    Path::with_keys(
        list(&case["hops"])
            .iter()
            .map(|hop| (hex_array(&hop["forward"]), hex_array(&hop["backward"]))),
    )
}

/// The reference is another implementation: block counters, fillers and tags are as the document
/// says (§3.1(1), §3.1(3), §3.2(2), §3.2(3), §3.2(6), §3.3(2), §3.3(3), §3.3(4), §3.3(5), §7.3(2)).
#[test]
fn forward_layers_equal_the_reference() {
    for case in list(&vectors()["cases"]) {
        let mut path = path_of(case);
        for expected in list(&case["forward"]) {
            let message = hex(&expected["message"]);
            let mut pad = Script(Box::new((0u32..).map(|i| (7 * i + 3).to_le_bytes()[0])));
            let mut cell = blank();
            let is_early = expected["early"].as_bool().unwrap();
            let last_tag = path
                .origin
                .wrap(is_early, &message, cell.body_mut(), &mut pad);
            assert_eq!(sha256(&[cell.body()]), hex_array(&expected["body_sha256"]));
            assert_eq!(cell.body()[..TAG_LEN], hex(&expected["tag"]));
            if let Some(body) = expected.get("body") {
                assert_eq!(cell.body().as_slice(), hex(body));
            }

            let mut last = None;
            for (hop, after) in list(&expected["after_hop"]).iter().enumerate() {
                let peeled = path.peel(hop, &mut cell).unwrap();
                assert_eq!(u64::from(peeled.command as u8), after["command"]);
                assert_eq!(peeled.command.is_early(), is_early);
                assert_eq!(sha256(&[cell.body()]), hex_array(&after["body_sha256"]));
                last = Some(peeled);
            }
            assert_eq!(
                last.map(|peeled| (peeled.tag, peeled.command.is_deliver())),
                Some((last_tag, true))
            );
            assert_eq!(delivered_message(&cell), Ok(message.as_slice()));
        }
    }
}

#[test] // §3.4(1), §3.4(2), §7.3(2)
fn backward_layers_equal_the_reference() {
    for case in list(&vectors()["cases"]) {
        let mut path = path_of(case);
        for expected in list(&case["backward"]) {
            let message = hex(&expected["message"]);
            let mut cell = blank();
            let (last, before) = path.hops.split_last_mut().unwrap();
            let tag = last.1.seal(&message, &mut cell);
            assert_eq!(tag, hex_array(&expected["tag"]));
            assert_eq!(
                sha256(&[cell.body()]),
                hex_array(&expected["sealed_sha256"])
            );
            for ((_, add), hash) in before
                .iter_mut()
                .rev()
                .zip(list(&expected["after_hop_sha256"]))
            {
                add.add(cell.body_mut());
                assert_eq!(sha256(&[cell.body()]), hex_array(hash));
            }
            if let Some(body) = expected.get("body") {
                assert_eq!(cell.body().as_slice(), hex(body));
            }
            assert_eq!(
                path.origin.unwrap(cell.body_mut()),
                Ok((tag, message.as_slice()))
            );
        }
    }
}

#[test] // §3.3(1), §3.3(7): a full cell at every length of path, both ways, again and again
fn the_longest_messages_fit() {
    for hops in 1..=HOPS_MAX {
        let mut path = Path::new(hops);
        for round in 0..3 {
            let message = vec![round; forward_room(hops)];
            let mut cell = path.wrap(&message);
            for hop in 0..hops {
                let peeled = path.peel(hop, &mut cell).unwrap();
                assert_eq!(peeled.command.is_deliver(), hop == hops - 1);
            }
            assert_eq!(delivered_message(&cell), Ok(message.as_slice()));

            let answer = vec![round; BACKWARD_ROOM];
            let (tag, mut cell) = path.reply(&answer);
            assert_eq!(
                path.origin.unwrap(cell.body_mut()),
                Ok((tag, answer.as_slice()))
            );
        }
    }
}

/// The tag, hop command, length, message, padding, fillers and the last byte.
const POSITIONS: [usize; 14] = [
    0,
    TAG_LEN - 1,
    TAG_LEN,
    TAG_LEN + 1,
    TAG_LEN + 2,
    TAG_LEN + 3,
    40,
    1000,
    BODY_LEN - 52,
    BODY_LEN - 51,
    BODY_LEN - 35,
    BODY_LEN - 18,
    BODY_LEN - 17,
    BODY_LEN - 1,
];

#[test] // §3.2(1): no byte is without a tag
fn a_changed_byte_is_refused_by_the_next_hop() {
    for position in POSITIONS {
        for hop in 0..HOPS_MAX {
            let mut path = Path::new(HOPS_MAX);
            let mut cell = path.wrap(b"message");
            for before in 0..hop {
                path.peel(before, &mut cell).unwrap();
            }
            let mut untouched = carried(&cell);
            cell.body_mut()[position] ^= 0x10;
            assert_eq!(
                path.peel(hop, &mut cell),
                Err(LayerFault::BadTag),
                "byte {position}, hop {hop}"
            );
            assert!(path.peel(hop, &mut untouched).is_ok());
        }
    }
}

#[test] // §3.4(3)
fn a_changed_byte_backward_is_refused_by_the_origin() {
    for position in POSITIONS {
        let mut path = Path::new(HOPS_MAX);
        let (_, mut cell) = path.reply(b"answer");
        cell.body_mut()[position] ^= 0x10;
        assert_eq!(
            path.origin.unwrap(cell.body_mut()),
            Err(LayerFault::BadTag),
            "byte {position}"
        );
    }
}

#[test] // §3.1(4)
fn dropped_replayed_and_reordered_cells_are_refused() {
    let mut path = Path::new(2);
    let (first, mut second) = (path.wrap(b"first"), path.wrap(b"second"));
    assert_eq!(
        path.peel(0, &mut second),
        Err(LayerFault::BadTag),
        "the first was dropped"
    );
    assert!(path.peel(0, &mut carried(&first)).is_ok());
    assert_eq!(
        path.peel(0, &mut carried(&first)),
        Err(LayerFault::BadTag),
        "a replay"
    );

    let mut path = Path::new(2);
    let ((_, mut first), (_, mut second)) = (path.reply(b"first"), path.reply(b"second"));
    let mut replay = carried(&first);
    assert!(path.origin.unwrap(first.body_mut()).is_ok());
    assert_eq!(
        path.origin.unwrap(replay.body_mut()),
        Err(LayerFault::BadTag)
    );

    let mut path = Path::new(2);
    let _ = path.reply(b"first");
    let (_, mut late) = path.reply(b"second");
    assert_eq!(path.origin.unwrap(late.body_mut()), Err(LayerFault::BadTag));
    assert_eq!(
        path.origin.unwrap(second.body_mut()),
        Err(LayerFault::BadTag),
        "after a fault nothing fits"
    );
}

#[test] // §3.1(2): a key opens one cell, so a seized relay holds nothing that opens an older one
fn keys_move_with_every_cell() {
    let mut path = Path::new(1);
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let mut cell = blank();
        path.origin.wrap(
            false,
            b"same",
            cell.body_mut(),
            &mut Script(Box::new(core::iter::repeat(0))),
        );
        bodies.push(*cell.body());
    }
    assert!(bodies[0] != bodies[1] && bodies[1] != bodies[2] && bodies[0] != bodies[2]);
}

#[test] // §3.3(6): the last hop must not see where padding ends and filler begins
fn padding_does_not_show_the_length_of_the_path() {
    for hops in 1..=HOPS_MAX {
        let mut path = Path::new(hops);
        let mut cell = path.wrap(b"m");
        for hop in 0..hops {
            path.peel(hop, &mut cell).unwrap();
        }
        let pad = &cell.body()[3..];
        let longest_zeros = pad.split(|&byte| byte != 0).map(<[u8]>::len).max();
        assert!(
            longest_zeros < Some(5),
            "{longest_zeros:?} zeros in a row at {hops} hops"
        );
        let zeros = pad.iter().filter(|&&byte| byte == 0).count();
        assert!(zeros < 40, "{zeros} zeros at {hops} hops; 8 are expected");
    }
}

#[test] // §3.2(4)
fn unknown_hop_commands_are_refused() {
    for number in 0..=u8::MAX {
        assert_eq!(
            HopCommand::from_number(number).map(|command| command as u8),
            (number < 4).then_some(number)
        );
    }
    let mut path = Path::new(1);
    let mut cell = wrapped_by_hand(&[4, 0, 0]);
    assert_eq!(path.peel(0, &mut cell), Err(LayerFault::HopCommand));
}

#[test] // §3.3(1)
fn a_length_beyond_the_cell_is_refused() {
    let longest = u16::try_from(forward_room(1)).unwrap();
    for (len, expected) in [
        (longest, Ok(usize::from(longest))),
        (longest + 1, Err(Malformed::TooLong)),
    ] {
        let [high, low] = len.to_be_bytes();
        let mut path = Path::new(1);
        let mut cell = wrapped_by_hand(&[HopCommand::Deliver as u8, high, low]);
        assert!(path.peel(0, &mut cell).is_ok());
        assert_eq!(delivered_message(&cell).map(<[u8]>::len), expected);
    }
}

#[test] // §3.4(3): only a delivery comes back, and no longer than the room
fn a_backward_cell_that_is_no_message_is_refused() {
    let longest = u16::try_from(BACKWARD_ROOM).unwrap();
    let head =
        |command: HopCommand, len: u16| [command as u8, len.to_be_bytes()[0], len.to_be_bytes()[1]];
    for (head, fault) in [
        (head(HopCommand::Deliver, longest), None),
        (
            head(HopCommand::Deliver, longest + 1),
            Some(LayerFault::Length),
        ),
        (head(HopCommand::Forward, 0), Some(LayerFault::HopCommand)),
        (
            head(HopCommand::DeliverEarly, 0),
            Some(LayerFault::HopCommand),
        ),
    ] {
        let mut origin = OriginLayers::new();
        origin.push(LayerKey::from_bytes([2; 32]), LayerKey::from_bytes([1; 32]));
        assert_eq!(
            origin.unwrap(wrapped_by_hand(&head).body_mut()).err(),
            fault
        );
    }
}

/// One layer under the first key of `Path::new`, with this plaintext and zeros behind it.
fn wrapped_by_hand(head: &[u8]) -> Cell {
    let mut plain = vec![0; BODY_LEN - TAG_LEN];
    plain[..head.len()].copy_from_slice(head);
    let tag = umbel_proto::crypto::aead::seal_in_place(&LayerKey::from_bytes([1; 32]), &mut plain);
    let mut cell = blank();
    cell.body_mut()[..TAG_LEN].copy_from_slice(&tag);
    cell.body_mut()[TAG_LEN..].copy_from_slice(&plain);
    cell
}
