//! A relay's part of a circuit, between an origin and a next hop that the test plays
//! (docs/protocol.md §2.4, §4, §5.3, §6).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::handshake::{HopKeys, HopTarget, Initiator, Onionskin, Reply, respond};
use umbel_proto::ids::CircId;
use umbel_proto::limits::{EARLY_CELLS_MAX, TAG_LEN};
use umbel_proto::link::{Hello, LINK_VERSION, LinkId};
use umbel_proto::message::{Credit, Data, DataFlags, Extend, ExtendRefusal, RelayMsg, StreamId};
use umbel_proto::onion::HopCommand;
use umbel_proto::onion::origin::OriginLayers;
use umbel_proto::onion::transit::{AddLayer, PeelLayer, delivered_message};
use umbel_proto::time::Duration;
use umbel_relay::control::io::LinkUp;
use umbel_tests::shells::lone::{LoneRelay, Neighbour};

/// The link over which circuits come.
const BEFORE: LinkId = LinkId(1);
/// The link to the next relay.
const NEXT: LinkId = LinkId(2);

/// The cells that the relay sent on this link since the last call.
fn sent_on(relay: &mut LoneRelay, link: LinkId) -> Vec<Cell> {
    let (on_link, others): (Vec<_>, _) = std::mem::take(&mut relay.sent)
        .into_iter()
        .partition(|(to, _)| *to == link);
    relay.sent = others;
    on_link.into_iter().map(|(_, cell)| cell).collect()
}

/// The commands and first bytes of these cells: for a `Destroy`, its reason.
fn heads(cells: &[Cell]) -> Vec<(Command, u8)> {
    let head = |cell: &Cell| (cell.header().unwrap().1, cell.body()[0]);
    cells.iter().map(head).collect()
}

fn encoded(message: &RelayMsg<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn data(bytes: &[u8]) -> RelayMsg<'_> {
    RelayMsg::Data(Data {
        stream: StreamId(1),
        flags: DataFlags {
            open: true,
            ..DataFlags::default()
        },
        bytes,
    })
}

/// An origin without rules: it says whatever the test wants.
struct Origin {
    link: LinkId,
    circ: CircId,
    layers: OriginLayers,
    rng: ChaCha20Rng,
}

impl Origin {
    /// Asks for a circuit to the relay under this onion key. `None`: the relay destroyed it.
    fn create(relay: &mut LoneRelay, link: LinkId, target: &HopTarget) -> Option<Self> {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let circ = CircId::new(1 << 31 | 7).unwrap();
        let (initiator, onionskin) = Initiator::start(&relay.network.id, target, &mut rng);
        let mut create = Cell::new(Some(circ), Command::Create);
        onionskin.write_create_body(create.body_mut());
        relay.cell(link, create);
        relay.answer_works();
        let answer = sent_on(relay, link).pop().unwrap();
        if answer.header().unwrap().1 == Command::Destroy {
            return None;
        }
        let mut origin = Self {
            link,
            circ,
            layers: OriginLayers::new(),
            rng,
        };
        origin.add_hop(initiator, &Reply::from_created_body(answer.body()).unwrap());
        Some(origin)
    }

    fn connected(relay: &mut LoneRelay, link: LinkId) -> Self {
        let target = relay.target().unwrap();
        Self::create(relay, link, &target).unwrap()
    }

    fn add_hop(&mut self, initiator: Initiator, reply: &Reply) {
        let keys = initiator.finish(reply).expect("the hop has its keys");
        self.layers.push(keys.forward, keys.backward);
    }

    fn says(&mut self, relay: &mut LoneRelay, is_early: bool, message: &[u8]) {
        let mut cell = Cell::new(Some(self.circ), Command::Relay);
        self.layers
            .wrap(is_early, message, cell.body_mut(), &mut self.rng);
        relay.cell(self.link, cell);
    }

    fn extend_message(&mut self, relay: &LoneRelay, target: &HopTarget) -> (Initiator, Vec<u8>) {
        let (initiator, onionskin) = Initiator::start(&relay.network.id, target, &mut self.rng);
        let extend = RelayMsg::Extend(Box::new(Extend {
            relay: target.relay,
            onion_key: target.onion_key.id(),
            onionskin,
        }));
        (initiator, encoded(&extend))
    }

    /// The message in the only cell that the relay sent to this origin.
    fn hears(&mut self, relay: &mut LoneRelay) -> Vec<u8> {
        let mut cells = sent_on(relay, self.link);
        assert_eq!(cells.len(), 1, "{cells:?}");
        assert_eq!(cells[0].header(), Ok((Some(self.circ), Command::Relay)));
        let (_, message) = self.layers.unwrap(cells[0].body_mut()).unwrap();
        message.to_vec()
    }
}

/// A relay in the middle of a circuit of two hops, and both its ends.
struct Middle {
    relay: LoneRelay,
    origin: Origin,
    /// The circuit's id on the next link.
    next_circ: CircId,
    next_peels: PeelLayer,
    next_adds: AddLayer,
}

impl Middle {
    fn new() -> Self {
        let mut relay = LoneRelay::new(1);
        let target = relay.neighbours[0].target();
        relay.link_up(BEFORE, None, false);
        relay.link_up(NEXT, Some(target.relay), true);
        let mut origin = Origin::connected(&mut relay, BEFORE);
        let (initiator, extend) = origin.extend_message(&relay, &target);
        origin.says(&mut relay, true, &extend);
        let create = sent_on(&mut relay, NEXT).pop().unwrap();
        let (next_circ, command) = create.header().unwrap();
        assert_eq!(command, Command::Create);
        let onionskin = Onionskin::from_create_body(create.body()).unwrap();
        let (
            HopKeys {
                forward, backward, ..
            },
            reply,
        ) = respond(
            &relay.network.id,
            &target.relay,
            std::slice::from_ref(&relay.neighbours[0].onion),
            &onionskin,
            &mut ChaCha20Rng::seed_from_u64(4),
        )
        .expect("the onionskin is for the next relay");
        let mut created = Cell::new(next_circ, Command::Created);
        reply.write_created_body(created.body_mut());
        relay.cell(NEXT, created);
        match RelayMsg::decode(&origin.hears(&mut relay)) {
            Ok(RelayMsg::Extended(reply)) => origin.add_hop(initiator, &reply),
            other => panic!("{other:?}"),
        }
        Self {
            relay,
            origin,
            next_circ: next_circ.unwrap(),
            next_peels: PeelLayer::new(forward),
            next_adds: AddLayer::new(backward),
        }
    }
}

#[test] // §3.2(5), §4.1(2), §6.2(6)
fn after_extended_a_relay_only_peels_and_adds() {
    let mut middle = Middle::new();
    for round in 0..3_u8 {
        let message = encoded(&data(&[1, round]));
        middle.origin.says(&mut middle.relay, false, &message);
        let passed = sent_on(&mut middle.relay, NEXT).pop().unwrap();
        assert_eq!(
            passed.header(),
            Ok((Some(middle.next_circ), Command::Relay))
        );
        let mut arrived = Cell::blank();
        *arrived.as_bytes_mut() = *passed.as_bytes();
        let peeled = middle.next_peels.peel(&mut arrived).unwrap();
        assert_eq!(peeled.command, HopCommand::Deliver);
        assert_eq!(delivered_message(&arrived), Ok(message.as_slice()));

        let mut answer = Cell::new(Some(middle.next_circ), Command::Relay);
        middle.next_adds.seal(&message, &mut answer);
        middle.relay.cell(NEXT, answer);
        assert_eq!(middle.origin.hears(&mut middle.relay), message);
    }
}

#[test] // §4.2(1), §4.2(2), §4.4(2)
fn a_destroy_travels_without_its_reason() {
    let destroyed = |reason: DestroyReason| vec![(Command::Destroy, reason as u8)];
    type Ends = fn(&mut Middle);
    let ends: [(Ends, LinkId, DestroyReason); 5] = [
        (
            |middle| {
                let destroy = Cell::destroy(middle.origin.circ, DestroyReason::Busy);
                middle.relay.cell(BEFORE, destroy);
            },
            NEXT,
            DestroyReason::Finished,
        ),
        (
            |middle| {
                let mut destroy = Cell::destroy(middle.next_circ, DestroyReason::Link);
                destroy.body_mut()[0] = 77; // no reason at all
                middle.relay.cell(NEXT, destroy);
            },
            BEFORE,
            DestroyReason::Finished,
        ),
        (
            |middle| middle.relay.link_down(BEFORE),
            NEXT,
            DestroyReason::Link,
        ),
        (
            |middle| middle.relay.link_down(NEXT),
            BEFORE,
            DestroyReason::Link,
        ),
        (
            |middle| {
                let garbage = Cell::new(Some(middle.origin.circ), Command::Relay);
                middle.relay.cell(BEFORE, garbage);
            },
            NEXT,
            DestroyReason::Protocol,
        ),
    ];
    for (end, other_link, reason) in ends {
        let mut middle = Middle::new();
        end(&mut middle);
        let relay = &mut middle.relay;
        assert_eq!(heads(&sent_on(relay, other_link)), destroyed(reason));
        let is_violation = reason == DestroyReason::Protocol;
        assert_eq!(
            heads(&sent_on(relay, BEFORE)).contains(&(Command::Destroy, reason as u8)),
            is_violation,
            "{reason:?}: only a violation is answered"
        );
        assert_eq!((relay.control.end_count(), relay.table_len()), (0, 0));
        relay.control.check().unwrap();
    }
}

#[test] // §6.2(3)
fn what_a_terminal_does_not_accept_ends_the_circuit() {
    let credit = RelayMsg::Credit(Credit {
        tag: [0; TAG_LEN],
        cells: 16,
    });
    let refused = RelayMsg::ExtendRefused(ExtendRefusal::Refused);
    let two = [encoded(&RelayMsg::Padding), encoded(&RelayMsg::Padding)].concat();
    let breaks = |before: &[u8], is_extending: bool, is_early: bool, message: &[u8]| {
        let mut relay = LoneRelay::new(1);
        relay.link_up(BEFORE, None, false);
        let mut origin = Origin::connected(&mut relay, BEFORE);
        let target = relay.neighbours[0].target();
        let (_, extend) = origin.extend_message(&relay, &target);
        if !before.is_empty() {
            origin.says(&mut relay, false, before);
        }
        if is_extending {
            origin.says(&mut relay, true, &extend); // dials: nobody answers
        }
        let message = if message.is_empty() { &extend } else { message };
        origin.says(&mut relay, is_early, message);
        let last = sent_on(&mut relay, BEFORE).pop();
        let protocol = (Command::Destroy, DestroyReason::Protocol as u8);
        last.is_some_and(|cell| heads(&[cell]) == [protocol])
    };
    let (padding, open) = (encoded(&RelayMsg::Padding), encoded(&data(&[1])));
    assert!(!breaks(&[], false, true, &[]), "an extend in an early cell");
    assert!(breaks(&[], false, false, &[]), "an extend in a late cell");
    assert!(breaks(&open, false, true, &[]), "an extend after data");
    assert!(breaks(&[], false, false, &two), "two messages");
    assert!(breaks(&[], false, false, &[9]), "no message");
    assert!(breaks(&[], false, false, &encoded(&refused)), "an answer");
    assert!(!breaks(&[], true, false, &padding), "padding meanwhile");
    assert!(breaks(&[], true, false, &encoded(&credit)), "a credit");
    assert!(breaks(&[], true, true, &[]), "a second extend");
}

#[test] // §3.2(4), §3.2(6)
fn the_seventh_early_cell_ends_the_circuit_whatever_it_holds() {
    let mut relay = LoneRelay::new(0);
    relay.link_up(BEFORE, None, false);
    let mut origin = Origin::connected(&mut relay, BEFORE);
    let padding = encoded(&RelayMsg::Padding);
    for _ in 0..EARLY_CELLS_MAX {
        origin.says(&mut relay, true, &padding);
    }
    origin.says(&mut relay, false, &padding);
    assert!(relay.sent.is_empty());
    origin.says(&mut relay, true, &padding);
    assert_eq!(
        heads(&sent_on(&mut relay, BEFORE)),
        [(Command::Destroy, DestroyReason::Protocol as u8)]
    );
}

#[test] // §6.3(3)
fn a_circuit_may_be_extended_back_to_where_it_came_from() {
    let mut relay = LoneRelay::new(1);
    let back = relay.neighbours[0].target();
    relay.link_up(BEFORE, Some(back.relay), false);
    let mut origin = Origin::connected(&mut relay, BEFORE);
    let (_, extend) = origin.extend_message(&relay, &back);
    origin.says(&mut relay, true, &extend);
    let sent = sent_on(&mut relay, BEFORE);
    assert!(
        matches!(heads(&sent)[..], [(Command::Create, _)]),
        "{sent:?}"
    );
}

#[test] // §5.1(1), §5.3(1), §5.3(2), §5.3(3)
fn an_onion_key_is_honoured_for_one_more_life() {
    let mut relay = LoneRelay::new(0);
    relay.link_up(BEFORE, None, false);
    let life = relay.network.params.onion_key_life + Duration::from_secs(60); // till a sweep
    let first = relay.target().unwrap();
    relay.pass(life);
    let second = relay.target().unwrap();
    let published = |relay: &LoneRelay| {
        let own = relay.control.view().get(&relay.control.relay_id());
        own.unwrap().onion_keys.clone()
    };
    assert_eq!(published(&relay), [second.onion_key, first.onion_key]);
    assert!(Origin::create(&mut relay, BEFORE, &first).is_some());
    relay.pass(life);
    assert_eq!(published(&relay)[1..], [second.onion_key]);
    assert!(Origin::create(&mut relay, BEFORE, &first).is_none());
}

#[test] // §2.4(6)
fn a_descriptor_in_hello_counts_only_for_the_relay_that_proved_its_id() {
    let mut relay = LoneRelay::new(0);
    let (named, other) = (
        Neighbour::new(relay.network.id, 7),
        Neighbour::new(relay.network.id, 8),
    );
    let moment = relay.moment();
    for (number, peer) in [(1, None), (2, Some(other.id)), (3, Some(named.id))] {
        let hello = Hello {
            versions: vec![LINK_VERSION],
            network: relay.network.id,
            clock: moment.wall,
            parameters: None,
            features: 0,
            descriptor: Some(named.descriptor.clone()),
        };
        let up = LinkUp {
            peer,
            is_dialler: false,
            remote: "127.0.0.1:50000".parse().unwrap(),
            hello,
        };
        relay
            .control
            .handle_link_up(moment, LinkId(number), up, &mut relay.rng);
        let is_known = relay.control.view().get(&named.id).is_some();
        assert_eq!(is_known, peer == Some(named.id));
        let links = relay.control.stats().links as u64;
        assert_eq!(links, number, "the link stays");
    }
}
