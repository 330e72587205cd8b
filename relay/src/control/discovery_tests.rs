//! How exchanges with other relays begin and end, as a link and its circuits see it.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::circuit::{TerminalCircuit, TerminalEvent};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::reconcile::{Outcome, SyncReply};
use umbel_proto::handshake::{OnionSecret, Onionskin, respond};
use umbel_proto::ids::CircId;
use umbel_proto::link::LinkId;
use umbel_proto::message::{RelayMsg, StreamId};
use umbel_proto::onion::transit::{AddLayer, PeelLayer, delivered_message};
use umbel_proto::time::Duration;

use super::super::context::Heard;
use super::super::testing::{Bench, descriptor, other};
use super::*;
use crate::forward::TableUpdate;

/// Discovery, and what it needs of the rest.
struct Relay {
    bench: Bench,
    circuits: Circuits,
    discovery: Discovery,
}

impl Relay {
    /// A relay with this many seeds.
    fn new(seeds: u16) -> Self {
        let bench = Bench::new(seeds);
        let discovery = Discovery::new(bench.shared.relay, Vec::new(), bench.moment.now);
        Self {
            bench,
            circuits: Circuits::default(),
            discovery,
        }
    }

    /// A relay that has asked its one neighbour, which is known and linked, for what it knows.
    fn asking() -> (Self, LinkId) {
        let mut relay = Self::new(0);
        let wall = relay.bench.moment.wall;
        let (identity, onion) = (
            SigningKey::from_seed(&[1; 32]),
            OnionSecret::from_seed(&[8; 32]),
        );
        let neighbour = RelayId::from(identity.public());
        let known = descriptor(&identity, &onion, 9001, wall);
        assert_eq!(relay.bench.context().learn(None, known), Heard::News);
        relay.bench.signals();
        let link = relay.bench.link_to(1, neighbour);
        relay.linked(neighbour);
        relay.timeout();
        (relay, link)
    }

    fn linked(&mut self, relay: RelayId) {
        let mut cx = self.bench.context();
        self.discovery
            .handle_linked(&mut cx, &mut self.circuits, relay);
    }

    fn timeout(&mut self) {
        let mut cx = self.bench.context();
        self.discovery.handle_timeout(&mut cx, &mut self.circuits);
    }

    /// Cells that were sent on this link.
    fn sent(&mut self, link: LinkId) -> Vec<(CircId, Command)> {
        let cells = self.bench.shared.out.cells.drain(..);
        cells
            .map(|(on, cell)| {
                assert_eq!(on, link);
                let (circ, command) = cell.header().unwrap();
                (circ.unwrap(), command)
            })
            .collect()
    }

    /// The circuit of the exchange that has begun.
    fn begun(&mut self, link: LinkId) -> CircId {
        let [(circ, Command::Create)] = self.sent(link)[..] else {
            panic!("an exchange begins with a circuit")
        };
        assert!(matches!(
            self.bench.shared.out.tables.pop_front(),
            Some((on, TableUpdate::Own(begun))) if (on, begun) == (link, circ)
        ));
        circ
    }

    /// A cell comes from the neighbour on this link.
    fn arrive(&mut self, link: LinkId, cell: Cell) {
        let mut cx = self.bench.context();
        self.circuits.handle_cell(&mut cx, link, cell);
        self.settle();
    }

    /// The neighbour answers the `Create` of the exchange that has begun.
    fn joined(&mut self, link: LinkId) -> Neighbour {
        let (_, create) = self.bench.shared.out.cells.pop_front().unwrap();
        let circ = create.header().unwrap().0.unwrap();
        let network = self.bench.shared.config.network.id;
        let relay = RelayId::from(SigningKey::from_seed(&[1; 32]).public());
        let keys = [OnionSecret::from_seed(&[8; 32])];
        let onionskin = Onionskin::from_create_body(create.body()).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let (keys, reply) = respond(&network, &relay, &keys, &onionskin, &mut rng).unwrap();
        let mut created = Cell::new(Some(circ), Command::Created);
        reply.write_created_body(created.body_mut());
        self.arrive(link, created);
        Neighbour {
            link,
            circ,
            layer: PeelLayer::new(keys.forward),
            terminal: TerminalCircuit::new(AddLayer::new(keys.backward), keys.binding),
        }
    }

    /// Nothing is left of any exchange.
    fn is_quiet(&self) -> bool {
        self.discovery.exchanges.is_empty() && self.circuits.end_count() == 0
    }

    /// Passes on signals about circuits of exchanges.
    fn settle(&mut self) {
        for signal in self.bench.signals() {
            match signal {
                Signal::OwnGone(Errand::Exchange(id)) => {
                    let mut cx = self.bench.context();
                    self.discovery
                        .handle_circuit_gone(&mut cx, &mut self.circuits, id);
                }
                Signal::OwnCell {
                    errand: Errand::Exchange(exchange),
                    command,
                    cell,
                } => {
                    let mut cx = self.bench.context();
                    self.discovery.handle_cell(
                        &mut cx,
                        &mut self.circuits,
                        exchange,
                        command,
                        cell,
                    );
                }
                _ => panic!("nothing else is told"),
            }
        }
    }
}

/// The relay at the other end of an exchange's circuit.
struct Neighbour {
    link: LinkId,
    circ: CircId,
    layer: PeelLayer,
    terminal: TerminalCircuit,
}

impl Neighbour {
    /// Takes what was sent to it; says on which stream it was asked something.
    fn asked(&mut self, relay: &mut Relay) -> StreamId {
        for (_, mut cell) in relay.bench.shared.out.cells.drain(..) {
            let tag = self.layer.peel(&mut cell).unwrap().tag;
            let message = RelayMsg::decode(delivered_message(&cell).unwrap()).unwrap();
            self.terminal.handle_message(tag, &message).unwrap();
        }
        let mut asked = None;
        while let Some(event) = self.terminal.poll_event() {
            if let TerminalEvent::Request { stream, .. } = event {
                asked = Some(stream);
            }
        }
        asked.expect("it was asked")
    }

    /// Sends what it has to say; says how many cells that took.
    fn send(&mut self, relay: &mut Relay) -> usize {
        let mut count = 0;
        while let Some(mut cell) = self.terminal.poll_cell() {
            cell.set_circ_id(self.circ);
            relay.arrive(self.link, cell);
            count += 1;
        }
        count
    }
}

#[test] // §8.3
fn a_relay_that_is_alone_dials_a_seed_and_asks_nobody_it_does_not_know() {
    let mut relay = Relay::new(3);
    relay.timeout();
    let dialled: Vec<RelayId> = relay
        .bench
        .signals()
        .into_iter()
        .map(|signal| match signal {
            Signal::Dial(relay) => relay,
            _ => panic!("only dials"),
        })
        .collect();
    let [seed] = dialled[..] else {
        panic!("one seed: {dialled:?}")
    };
    assert!((0..3).any(|number| seed == other(number)));
    let link = relay.bench.link_to(1, seed);
    relay.linked(seed);
    assert!(relay.sent(link).is_empty(), "its onion key is not known");
    assert!(relay.is_quiet());
}

#[test] // §8.3
fn an_exchange_that_takes_too_long_is_ended_once() {
    let (mut relay, link) = Relay::asking();
    let circ = relay.begun(link);
    let (due_at, &Timer::Exchange(id)) = relay.bench.shared.timers.first().unwrap() else {
        panic!("an exchange has a timer")
    };
    relay.bench.pass(due_at.since(relay.bench.moment.now));
    for destroys in [vec![(circ, Command::Destroy)], Vec::new()] {
        let mut cx = relay.bench.context();
        relay
            .discovery
            .handle_exchange_timeout(&mut cx, &mut relay.circuits, id);
        assert_eq!(relay.sent(link), destroys);
        relay.settle();
    }
    assert!(relay.is_quiet());
    assert_eq!(relay.bench.shared.stats.violations, 0, "it broke no rule");
}

#[test] // §4.4(1), §8.3(6)
fn a_relay_that_answers_nonsense_loses_the_circuit_and_not_the_link() {
    for command in [Command::Created, Command::Relay] {
        let (mut relay, link) = Relay::asking();
        let circ = relay.begun(link);
        let mut answer = Cell::new(Some(circ), command);
        answer.body_mut().fill(9);
        let mut cx = relay.bench.context();
        relay.circuits.handle_cell(&mut cx, link, answer);
        relay.settle();
        assert_eq!(relay.sent(link), [(circ, Command::Destroy)]);
        relay.settle();
        assert!(relay.is_quiet() && relay.bench.shared.links.is_open(link));
        assert_eq!(relay.bench.shared.stats.violations, 1);
    }
}

#[test] // §7.2(7)
fn a_request_that_ends_without_an_answer_ends_the_exchange() {
    for is_reset in [false, true] {
        let (mut relay, link) = Relay::asking();
        let mut neighbour = relay.joined(link);
        let stream = neighbour.asked(&mut relay);
        if is_reset {
            neighbour.terminal.reset(stream);
        } else {
            neighbour.terminal.finish(stream);
        }
        neighbour.send(&mut relay);
        let sent = relay.sent(link);
        assert_eq!(sent.last(), Some(&(neighbour.circ, Command::Destroy)));
        assert!(relay.is_quiet());
        assert_eq!(relay.bench.shared.stats.violations, 0);
    }
}

/// The answer to a digest.
fn compared(outcome: Outcome) -> Vec<u8> {
    DirectoryReply::Sync(SyncReply::Compared(vec![outcome])).encode()
}

#[test] // §7.2(7)
fn a_second_answer_on_a_stream_is_a_violation_and_answers_nothing_else() {
    let (mut relay, link) = Relay::asking();
    let mut neighbour = relay.joined(link);
    let stream = neighbour.asked(&mut relay);
    for outcome in [Outcome::Few, Outcome::Same] {
        let frame = compared(outcome);
        neighbour.terminal.reply(stream, &frame, false).unwrap();
    }
    neighbour.send(&mut relay);
    let sent = relay.sent(link);
    assert_eq!(sent.last(), Some(&(neighbour.circ, Command::Destroy)));
    assert!(relay.is_quiet());
    assert_eq!(relay.bench.shared.stats.violations, 1);
}

#[test] // §7.2(7)
fn what_follows_an_answer_without_its_end_is_discarded() {
    let (mut relay, link) = Relay::asking();
    let mut neighbour = relay.joined(link);
    let first = neighbour.asked(&mut relay);
    let differs = compared(Outcome::Few);
    neighbour.terminal.reply(first, &differs, false).unwrap();
    neighbour.send(&mut relay);
    let same = compared(Outcome::Same);
    neighbour.terminal.reply(first, &same, true).unwrap();
    neighbour.send(&mut relay);
    assert_ne!(neighbour.asked(&mut relay), first, "a page is asked for");
    assert_eq!(relay.bench.shared.stats.violations, 0);
}

#[test] // §4.4(1)
fn no_credit_follows_the_destroy_for_an_answer_that_breaks_a_rule() {
    let mut was_credit_due = false;
    for len in (20_000..36_000).step_by(400) {
        let (mut relay, link) = Relay::asking();
        let mut neighbour = relay.joined(link);
        let stream = neighbour.asked(&mut relay);
        let nonsense = vec![0xff; len];
        neighbour.terminal.reply(stream, &nonsense, true).unwrap();
        was_credit_due |= neighbour.send(&mut relay) == 16;
        let sent = relay.sent(link);
        assert_eq!(sent.last(), Some(&(neighbour.circ, Command::Destroy)));
        assert_eq!(relay.bench.shared.stats.violations, 1);
    }
    assert!(was_credit_due, "some answer took 16 cells");
}

#[test]
fn an_exchange_whose_link_is_gone_is_forgotten_and_the_next_begins_anew() {
    let (mut relay, link) = Relay::asking();
    relay.begun(link);
    let neighbour = relay.bench.shared.links.remove(link).unwrap();
    let mut cx = relay.bench.context();
    relay.circuits.handle_link_down(&mut cx, link);
    let cx = relay.bench.context();
    relay.discovery.handle_unlinked(&cx, neighbour);
    relay.settle();
    assert!(relay.sent(link).is_empty() && relay.is_quiet());
    relay.bench.pass(Duration::from_secs(3600));
    relay.timeout();
    assert!(matches!(
        relay.bench.signals()[..],
        [Signal::Dial(relay)] if relay == neighbour
    ));
    let link = relay.bench.link_to(2, neighbour);
    relay.linked(neighbour);
    relay.begun(link);
}

#[test]
fn a_relay_that_stops_exchanges_nothing_more() {
    let (mut relay, link) = Relay::asking();
    relay.begun(link);
    relay.discovery.handle_stop();
    let mut cx = relay.bench.context();
    relay.circuits.destroy_all(&mut cx);
    assert_eq!(relay.sent(link).len(), 1, "a Destroy");
    relay.settle();
    assert!(relay.is_quiet());
}
