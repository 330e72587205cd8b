//! Bodies for the machines of the protocol: the input is a story of what a peer does.

use std::collections::BTreeSet;
use std::slice;
use std::sync::OnceLock;

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::circuit::{
    Answer, Answers, Request, RequestCircuit, RequestEvent, TerminalCircuit, TerminalEvent,
};
use umbel_proto::crypto::aead::LayerKey;
use umbel_proto::directory::reconcile::{self, Syncer};
use umbel_proto::directory::{DirectoryReply, DirectoryRequest, NetView, Unverified};
use umbel_proto::handshake::{Binding, HopTarget, OnionSecret, Onionskin, respond};
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::limits::{
    FRAME_LEN_MAX, OUTGOING_BYTES_MAX, STREAMS_MAX, SYNC_BYTES_MAX, SYNC_FRAME_MAX,
    WINDOW_MAX_CELLS,
};
use umbel_proto::message::{RelayMsg, Service, StreamId};
use umbel_proto::network::Network;
use umbel_proto::onion::transit::{AddLayer, PeelLayer};
use umbel_proto::time::{Duration, Instant};
use umbel_relay::forward::{LinkTable, Next, TableUpdate, Verdict};

use super::Script;
use super::decoders::WALL;
use crate::shells::lone::Neighbour;

/// A view with enough relays that ranges of it are split.
fn view() -> &'static NetView {
    static VIEW: OnceLock<NetView> = OnceLock::new();
    VIEW.get_or_init(|| {
        let network = Network::local();
        let mut view = NetView::new();
        for number in 1..=40 {
            let known = Unverified::decode(&Neighbour::new(network.id, number).descriptor);
            if let Ok(known) = known.and_then(|known| known.verify(&network, WALL)) {
                view.insert(known, WALL);
            }
        }
        view
    })
}

/// Replies, each a chunk, to whatever the syncer asked.
pub(super) fn syncer(input: &[u8]) {
    let (mut syncer, _) = Syncer::begin(view());
    let mut script = Script::new(input);
    while !script.rest.is_empty() && !syncer.is_done() {
        let Ok(reply) = DirectoryReply::decode(script.chunk()) else {
            continue;
        };
        let Ok(step) = syncer.on_reply(view(), reply) else {
            assert!(syncer.is_done(), "after a fault nothing more is said");
            return;
        };
        assert!(
            step.received
                .iter()
                .map(|descriptor| descriptor.bytes().len())
                .sum::<usize>()
                <= SYNC_BYTES_MAX
        );
        let frame = step.request.map(|request| request.encode());
        assert!(frame.is_none_or(|frame| frame.len() <= SYNC_FRAME_MAX));
        for descriptor in step.received {
            drop(descriptor.verify(&Network::local(), WALL));
        }
    }
}

/// A request of a reconciliation, which a relay answers within a frame.
pub(super) fn answerer(input: &[u8]) {
    if let Ok(DirectoryRequest::Sync(request)) = DirectoryRequest::decode(input) {
        let reply = DirectoryReply::Sync(reconcile::answer(view(), &request)).encode();
        assert!(reply.len() <= SYNC_FRAME_MAX);
        assert!(DirectoryReply::decode(&reply).is_ok(), "its own reply");
    }
}

/// Messages, each a chunk, to a terminal that replies to some of what it is asked.
pub(super) fn terminal(input: &[u8]) {
    let mut terminal = TerminalCircuit::new(
        AddLayer::new(LayerKey::from_bytes([1; 32])),
        Binding([2; 32]),
    );
    let mut script = Script::new(input);
    let mut finished: BTreeSet<StreamId> = BTreeSet::new();
    let mut cell_count: u64 = 0;
    let mut tag = [0_u8; 16];
    while let Some(op) = script.op() {
        let [first, ..] = &mut tag;
        *first = first.wrapping_add(1);
        if op & 0xc0 == 0xc0 {
            terminal.set_growth(op & 1 == 0);
            continue;
        }
        let Ok(message) = RelayMsg::decode(script.chunk()) else {
            continue;
        };
        if terminal.handle_message(tag, &message).is_err() {
            assert!(
                terminal.poll_event().is_none() && terminal.poll_cell().is_none(),
                "a closed circuit is silent"
            );
            assert!(terminal.handle_message(tag, &RelayMsg::Padding).is_err());
            return;
        }
        while let Some(event) = terminal.poll_event() {
            let TerminalEvent::Request { stream, frame, .. } = event else {
                continue;
            };
            assert!(!frame.is_empty() && frame.len() <= FRAME_LEN_MAX);
            if op & 1 == 1 && !finished.contains(&stream) {
                let fin = op & 2 == 2;
                if terminal.reply(stream, &frame, fin).is_ok() && fin {
                    finished.insert(stream);
                }
            } else if op & 4 == 4 {
                terminal.reset(stream);
            }
        }
        assert!(
            terminal.stream_count() <= STREAMS_MAX
                && terminal.outgoing_bytes() <= OUTGOING_BYTES_MAX
        );
        cell_count += burst(|| terminal.poll_cell().is_some());
    }
    assert!(
        cell_count <= 64 * (input.len() as u64 + 64),
        "what is sent is paid for"
    );
}

/// Takes all cells that a circuit has to send; returns how many there were.
fn burst(mut poll_cell: impl FnMut() -> bool) -> u64 {
    let mut cell_count = 0;
    while poll_cell() {
        cell_count += 1;
        assert!(
            cell_count <= u64::from(WINDOW_MAX_CELLS) + 2,
            "a window bounds what is sent at once"
        );
    }
    cell_count
}

/// The answer of a relay to the origin's Create: the layer toward the origin, and the Created.
fn answer_create(
    origin: &mut RequestCircuit<u32>,
    relay: RelayId,
    secret: &OnionSecret,
    rng: &mut ChaCha20Rng,
) -> (AddLayer, Cell) {
    let Some(create) = origin.poll_cell(rng) else {
        unreachable!("a Create is ready")
    };
    let Ok(onionskin) = Onionskin::from_create_body(create.body()) else {
        unreachable!("we made it")
    };
    let (network, onion) = (Network::local().id, slice::from_ref(secret));
    let Ok((keys, reply)) = respond(&network, &relay, onion, &onionskin, rng) else {
        unreachable!("it is for this relay")
    };
    let mut created = Cell::new(CircId::new(1), Command::Created);
    reply.write_created_body(created.body_mut());
    (AddLayer::new(keys.backward), created)
}

/// What a hostile relay says to the origin of a circuit to it: sealed messages, and cells that are
/// anything. Meanwhile the origin asks, extends, and gives up what is late.
pub(super) fn origin(input: &[u8]) {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let relay = RelayId([5; 32]);
    let secret = OnionSecret::from_seed(&[6; 32]);
    let target = HopTarget {
        relay,
        onion_key: secret.public(),
    };
    let mut origin = RequestCircuit::create(&Network::local().id, &target, &mut rng);
    let (mut layer, mut created) = answer_create(&mut origin, relay, &secret, &mut rng);
    let mut script = Script::new(input);
    if script.byte() != 0 {
        assert!(origin.handle_cell(Command::Created, &mut created).is_ok());
    }
    let mut askers = Askers::default();
    let mut now = Instant::default();
    while let Some(op) = script.op() {
        match op % 8 {
            5 => askers.ask(&mut origin, op, now),
            6 => {
                if origin.circuit().can_extend() {
                    origin.extend(&target, &mut rng);
                }
            }
            7 => {
                now = now + Duration::from_secs(u64::from(op >> 3));
                origin.handle_timeout(now);
                let next = origin.poll_timeout();
                assert!(next.is_none_or(|next| next > now), "what was late is over");
            }
            kind => {
                let (command, mut cell) = hostile_cell(kind == 4, op, &mut layer, &mut script);
                if origin.handle_cell(command, &mut cell).is_err() {
                    assert!(
                        !origin.circuit().is_open(),
                        "a broken rule ends the circuit"
                    );
                    return;
                }
            }
        }
        askers.hear(&mut origin);
        burst(|| origin.poll_cell(&mut rng).is_some());
        assert!(origin.circuit().stream_count() <= STREAMS_MAX);
    }
}

/// A cell with a sealed message that is anything, or one that is anything as a whole.
fn hostile_cell(
    is_raw: bool,
    op: u8,
    layer: &mut AddLayer,
    script: &mut Script<'_>,
) -> (Command, Cell) {
    let mut cell = Cell::new(CircId::new(1), Command::Relay);
    if !is_raw {
        let message = script.chunk();
        layer.seal(message.get(..2000).unwrap_or(message), &mut cell);
        return (Command::Relay, cell);
    }
    cell.body_mut()
        .iter_mut()
        .zip(script.chunk())
        .for_each(|(byte, &given)| *byte = given);
    let is_relay = op & 8 == 0;
    let command = if is_relay {
        Command::Relay
    } else {
        Command::Created
    };
    (command, cell)
}

/// Those who asked on a circuit and have not heard the end.
#[derive(Default)]
struct Askers {
    waiting: BTreeSet<u32>,
    count: u32,
}

impl Askers {
    fn ask(&mut self, origin: &mut RequestCircuit<u32>, op: u8, now: Instant) {
        let due_at = (op & 8 == 8).then(|| now + Duration::from_secs(u64::from(op >> 4) + 1));
        let request = Request {
            service: Service::Directory,
            frame: vec![op; 9],
            answers: if op & 16 == 16 {
                Answers::Many
            } else {
                Answers::One
            },
        };
        let asked = origin.ask(self.count, request, due_at);
        if asked.is_ok() {
            self.waiting.insert(self.count);
            self.count += 1;
        }
    }

    /// Frames come to those who wait, and each hears the end once.
    fn hear(&mut self, origin: &mut RequestCircuit<u32>) {
        while let Some(event) = origin.poll_event() {
            let RequestEvent::Answered { who, answer } = event else {
                continue;
            };
            let was_waiting = match answer {
                Answer::Frame(_) => self.waiting.contains(&who),
                Answer::Ended { .. } | Answer::Late => self.waiting.remove(&who),
            };
            assert!(was_waiting, "{who} heard {answer:?} after the end");
        }
        assert_eq!(origin.request_count(), self.waiting.len());
    }
}

/// Cells of any kind on a link whose table has one half of each kind, and changes to it.
pub(super) fn link_table(input: &[u8]) {
    let mut table: LinkTable<u8> = LinkTable::new();
    let key = |number: u8| LayerKey::from_bytes([number; 32]);
    let mut script = Script::new(input);
    while let Some(op) = script.op() {
        let number = u32::from(script.byte() % 8) + 1;
        let Some(circ) = CircId::new(number) else {
            return;
        };
        let before = table.len();
        match op % 8 {
            0 => table.apply(TableUpdate::Terminate(circ, PeelLayer::new(key(op)))),
            1 => table.apply(TableUpdate::Join(circ, Next { queue: op, circ })),
            2 => table.apply(TableUpdate::Return(
                circ,
                AddLayer::new(key(op)),
                Next { queue: op, circ },
            )),
            3 => table.apply(TableUpdate::Own(circ)),
            4 => table.apply(TableUpdate::Remove(circ)),
            _ => {
                let mut cell = Cell::new(Some(circ), Command::Relay);
                if op & 8 == 8 {
                    cell.as_bytes_mut()
                        .iter_mut()
                        .zip(script.chunk())
                        .for_each(|(byte, &given)| *byte = given);
                }
                let address = std::ptr::from_ref(cell.as_bytes()) as usize;
                let is_broken = match table.handle_cell(&mut cell) {
                    Verdict::Broken(broken, _) => Some(broken),
                    Verdict::Onward(_) => {
                        assert!(matches!(cell.header(), Ok((Some(_), Command::Relay))));
                        None
                    }
                    _ => None,
                };
                assert!(
                    (std::ptr::from_ref(cell.as_bytes()) as usize).abs_diff(address) <= 17,
                    "no copy is made"
                );
                if let Some(broken) = is_broken {
                    let verdict = Cell::new(Some(broken), Command::Relay);
                    let mut cell = verdict;
                    assert!(
                        matches!(table.handle_cell(&mut cell), Verdict::Stale),
                        "a broken half takes no more"
                    );
                }
                assert_eq!(table.len(), before, "cells make and end no circuits");
            }
        }
        assert!(table.len() <= before + 1);
    }
}
