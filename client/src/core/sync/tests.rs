//! A client that reconciles with a relay which answers against the rules (docs/protocol.md §7.2,
//! §8.3, §8.4).

use std::collections::VecDeque;

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use serde_bytes::ByteBuf;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::terminal::{TerminalCircuit, TerminalEvent};
use umbel_proto::directory::range::IdRange;
use umbel_proto::directory::reconcile::{Outcome, PageReply, SyncReply, SyncRequest};
use umbel_proto::directory::{Age, Belief, BookRow, DirectoryReply, DirectoryRequest};
use umbel_proto::handshake::{Onionskin, respond};
use umbel_proto::ids::{CircId, Peer, RelayId};
use umbel_proto::link::{Hello, LinkId, LinkOp};
use umbel_proto::message::RelayMsg;
use umbel_proto::network::Network;
use umbel_proto::onion::transit::{AddLayer, PeelLayer, delivered_message};
use umbel_proto::time::{Duration, Instant, Moment, WallTime};

use super::super::Core;
use super::super::io::Snapshot;
use super::super::testing::{descriptor, id, link_up, onion_secret};

const WALL: WallTime = WallTime(1_790_000_000);
const LINK: LinkId = LinkId(1);

/// A moment by a calendar that stands still.
fn at(now: Instant) -> Moment {
    Moment { now, wall: WALL }
}

/// A client with two seeds, and the one that it asks first.
struct Bench {
    core: Core,
    now: Instant,
    rng: ChaCha20Rng,
    /// Which of the two it is.
    asked: u8,
    circ: Option<CircId>,
    hop: Option<(PeelLayer, TerminalCircuit)>,
    destroyed: Option<DestroyReason>,
    /// Whether it ends its streams.
    ends_streams: bool,
    /// How long it waits before it answers.
    answers_after: Duration,
    /// The requests that it got.
    requests: Vec<SyncRequest>,
}

impl Bench {
    /// `knows_one`: the client holds the descriptor of a third relay, so that its pages list
    /// something.
    fn new(knows_one: bool) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let seeds = [1, 2].map(|number| Peer {
            id: id(number),
            host_port: format!("127.0.0.1:{number}"),
        });
        let age = Age {
            first_seen: WALL,
            belief: Belief::Given(WALL),
            there_since: WALL,
        };
        let relays = if knows_one {
            vec![BookRow {
                descriptor: descriptor(3),
                age,
            }]
        } else {
            Vec::new()
        };
        let now = Instant::from_micros(0);
        let snapshot = Snapshot {
            relays,
            ..Snapshot::default()
        };
        let mut core = Core::new(
            Network::local(),
            seeds.to_vec(),
            None,
            snapshot,
            at(now),
            &mut rng,
        )
        .expect("a snapshot");
        let Some(LinkOp::Dial { relay, .. }) = core.poll_link() else {
            panic!("a seed is dialled")
        };
        let asked = if relay == id(1) { 1 } else { 2 };
        let mut bench = Self {
            core,
            now,
            rng,
            asked,
            circ: None,
            hop: None,
            destroyed: None,
            ends_streams: true,
            answers_after: Duration::ZERO,
            requests: Vec::new(),
        };
        let hello = Hello {
            versions: vec![1],
            network: Network::local().id,
            clock: WALL,
            parameters: None,
            features: 0,
            descriptor: Some(descriptor(asked)),
        };
        bench
            .core
            .handle_link_up(at(now), link_up(LINK, relay, &hello), &mut bench.rng);
        bench
    }

    /// Lets the relay answer its n-th request with `answers[n]`, each a list of frames, until
    /// nothing moves.
    fn run(&mut self, answers: Vec<Vec<Vec<u8>>>) {
        let mut answers = VecDeque::from(answers);
        while let Some((_, cell)) = self.core.poll_cell() {
            let asked_before = self.requests.len();
            let cells = self.on_cell(cell, &mut answers);
            if self.requests.len() > asked_before {
                self.wait();
            }
            for answer in cells {
                self.core
                    .handle_cell(at(self.now), LINK, answer, &mut self.rng);
            }
        }
    }

    /// Time passes before an answer; a longer step than a second would be a sleep.
    fn wait(&mut self) {
        let until = self.now + self.answers_after;
        while self.now < until {
            self.now = self.now + Duration::from_secs(1);
            self.core.handle_timeout(at(self.now), &mut self.rng);
        }
    }

    fn on_cell(&mut self, mut cell: Cell, answers: &mut VecDeque<Vec<Vec<u8>>>) -> Vec<Cell> {
        let (circ, command) = cell.header().expect("a cell");
        match command {
            Command::Create if self.circ.is_none() => {
                self.circ = circ;
                vec![self.on_create(&cell)]
            }
            Command::Relay if circ == self.circ => self.on_relay(&mut cell, answers),
            Command::Destroy if circ == self.circ => {
                self.destroyed = cell
                    .body_mut()
                    .first()
                    .and_then(|&reason| DestroyReason::from_number(reason));
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn on_create(&mut self, cell: &Cell) -> Cell {
        let onionskin = Onionskin::from_create_body(cell.body()).expect("an onionskin");
        let (network, secrets) = (Network::local().id, [onion_secret(self.asked)]);
        let answered = respond(
            &network,
            &id(self.asked),
            &secrets,
            &onionskin,
            &mut self.rng,
        );
        let Ok((keys, reply)) = answered else {
            panic!("it is for this relay")
        };
        self.hop = Some((
            PeelLayer::new(keys.forward),
            TerminalCircuit::new(AddLayer::new(keys.backward), keys.binding),
        ));
        let mut created = Cell::new(self.circ, Command::Created);
        reply.write_created_body(created.body_mut());
        created
    }

    fn on_relay(&mut self, cell: &mut Cell, answers: &mut VecDeque<Vec<Vec<u8>>>) -> Vec<Cell> {
        let Some((layer, terminal)) = &mut self.hop else {
            return Vec::new();
        };
        let tag = layer.peel(cell).expect("the client's layer").tag;
        let message =
            RelayMsg::decode(delivered_message(cell).expect("a message")).expect("a message");
        terminal
            .handle_message(tag, &message)
            .expect("within the rules");
        while let Some(event) = terminal.poll_event() {
            let TerminalEvent::Request { stream, frame, .. } = event else {
                continue;
            };
            let Ok(DirectoryRequest::Sync(request)) = DirectoryRequest::decode(&frame) else {
                panic!("a client takes")
            };
            self.requests.push(request);
            let frames = answers.pop_front().unwrap_or_default();
            let count = frames.len();
            for (number, frame) in frames.into_iter().enumerate() {
                let fin = self.ends_streams && number + 1 == count;
                terminal.reply(stream, &frame, fin).expect("there is room");
            }
        }
        std::iter::from_fn(|| terminal.poll_cell())
            .map(|mut cell| {
                cell.set_header(self.circ, Command::Relay);
                cell
            })
            .collect()
    }

    /// The client destroyed the circuit for a rule that was broken, and turns to the other seed.
    fn was_left(&mut self) -> bool {
        let broken =
            self.destroyed == Some(DestroyReason::Protocol) && self.core.violation_count() == 1;
        let mut has_turned = false;
        for _ in 0..20 {
            while let Some(op) = self.core.poll_link() {
                has_turned |=
                    matches!(op, LinkOp::Dial { relay, .. } if relay == id(3 - self.asked));
            }
            self.now = self.now + Duration::from_millis(10);
            self.core.handle_timeout(at(self.now), &mut self.rng);
        }
        while let Some((_, cell)) = self.core.poll_cell() {
            assert!(
                !matches!(cell.header(), Ok((_, Command::Create))),
                "the peer rests"
            );
        }
        broken && has_turned
    }
}

fn differs() -> Vec<Vec<u8>> {
    let few = SyncReply::Compared(vec![Outcome::Few]);
    vec![DirectoryReply::Sync(few).encode()]
}

fn page(covered: RelayId, numbers: &[u8], wanted: &[u16]) -> Vec<Vec<u8>> {
    let mut numbers = numbers.to_vec();
    numbers.sort_by_key(|&number| id(number));
    let descriptors = numbers
        .into_iter()
        .map(|number| ByteBuf::from(descriptor(number)))
        .collect();
    let page = PageReply {
        covered,
        descriptors,
        wanted: wanted.to_vec(),
        refused: Vec::new(),
    };
    vec![DirectoryReply::Sync(SyncReply::Page(page)).encode()]
}

/// Whether a client leaves a relay that answers so.
fn is_left(answers: Vec<Vec<Vec<u8>>>) -> bool {
    let mut bench = Bench::new(true);
    bench.run(answers);
    assert!(!bench.requests.is_empty(), "it was asked");
    bench.was_left()
}

#[test] // §8.3
fn a_page_by_the_rules_is_taken() {
    let mut bench = Bench::new(true);
    bench.run(vec![differs(), page(IdRange::ALL.until(), &[4, 5], &[])]);
    assert!(bench.core.view().get(&id(4)).is_some() && bench.core.view().get(&id(5)).is_some());
    assert_eq!((bench.destroyed, bench.core.violation_count()), (None, 0));
    assert_eq!(bench.requests.len(), 2);
}

#[test] // §8.3(4), §8.3(6)
fn a_page_against_the_rules_ends_the_circuit() {
    let twice = || {
        let descriptors = vec![ByteBuf::from(descriptor(4)); 2];
        let page = PageReply {
            covered: IdRange::ALL.until(),
            descriptors,
            wanted: Vec::new(),
            refused: Vec::new(),
        };
        vec![DirectoryReply::Sync(SyncReply::Page(page)).encode()]
    };
    assert!(
        is_left(vec![differs(), page(IdRange::ALL.from(), &[], &[])]),
        "it stops before it had to"
    );
    assert!(
        is_left(vec![differs(), page(IdRange::ALL.until(), &[], &[40])]),
        "it wants what was not listed"
    );
    assert!(
        is_left(vec![differs(), page(IdRange::ALL.until(), &[], &[1, 0])]),
        "out of order"
    );
    assert!(
        is_left(vec![differs(), page(IdRange::ALL.until(), &[], &[0, 0])]),
        "one twice"
    );
    assert!(is_left(vec![differs(), twice()]), "a descriptor twice");
    assert!(
        is_left(vec![page(IdRange::ALL.until(), &[4], &[])]),
        "a page in answer to a digest"
    );
}

#[test] // §7.2(7), §8.4(1)
fn an_answer_of_another_kind_or_a_second_one_ends_the_circuit() {
    let one = |reply: DirectoryReply| vec![reply.encode()];
    assert!(is_left(vec![one(DirectoryReply::Published)]));
    assert!(is_left(vec![one(DirectoryReply::Pushed { accepted: 0 })]));
    assert!(is_left(vec![one(DirectoryReply::Inbox(None))]));
    assert!(is_left(vec![vec![vec![0xff; 3]]]), "no answer at all");
    let two = [differs(), differs()].concat();
    assert!(is_left(vec![two]));
    let last = page(IdRange::ALL.until(), &[4], &[]);
    assert!(
        is_left(vec![differs(), [last.clone(), last].concat()]),
        "after the last page too"
    );
}

/// A page of descriptors that are signed, and of another network.
fn junk(number: u8) -> Vec<Vec<u8>> {
    let mut last = [0; 32];
    let descriptors = (0..200).map(|at| {
        last = [at; 32];
        last[0] = number;
        let mut bytes = descriptor(9);
        bytes[1] ^= 1;
        bytes[33..65].copy_from_slice(&last);
        ByteBuf::from(bytes)
    });
    let descriptors = descriptors.collect();
    let page = PageReply {
        covered: RelayId(last),
        descriptors,
        wanted: Vec::new(),
        refused: Vec::new(),
    };
    vec![DirectoryReply::Sync(SyncReply::Page(page)).encode()]
}

#[test] // §8.3(6)
fn a_source_that_passes_on_what_is_forged_is_left_at_once() {
    for is_last in [false, true] {
        let covered = if is_last { IdRange::ALL.until() } else { id(9) };
        let mut bytes = descriptor(9);
        *bytes.last_mut().expect("a signature") ^= 1;
        let forged = PageReply {
            covered,
            descriptors: vec![ByteBuf::from(bytes)],
            wanted: Vec::new(),
            refused: Vec::new(),
        };
        let forged = DirectoryReply::Sync(SyncReply::Page(forged)).encode();
        assert!(is_left(vec![differs(), vec![forged]]), "{is_last}");
    }
}

#[test] // §8.3(6)
fn a_source_that_speaks_on_without_news_is_given_up() {
    let mut bench = Bench::new(true);
    bench.answers_after = Duration::from_secs(10);
    let answers = std::iter::once(differs()).chain((1..20).map(junk));
    bench.run(answers.collect());
    let asked = bench.requests.len();
    assert!((5..9).contains(&asked), "{asked} in a minute");
    bench.wait();
    bench.run(Vec::new());
    assert_eq!(bench.requests.len(), asked + 1, "the next one begins");
    assert!(matches!(
        bench.requests.last(),
        Some(SyncRequest::Compare(_))
    ));
    assert_eq!((bench.destroyed, bench.core.violation_count()), (None, 0));
}

#[test] // §7.2(7)
fn an_answer_without_its_end_keeps_no_circuit() {
    let mut bench = Bench::new(true);
    bench.ends_streams = false;
    bench.run(vec![differs(), page(IdRange::ALL.until(), &[4], &[])]);
    assert_eq!(bench.requests.len(), 2, "the first answer was taken");
    assert!(bench.core.view().get(&id(4)).is_some(), "and the last");
    assert_eq!(bench.core.pool.asked_count(), 0);
    assert_eq!((bench.destroyed, bench.core.violation_count()), (None, 0));
}

#[test]
fn a_late_request_closes_its_circuit_also_when_its_asker_is_gone() {
    let mut bench = Bench::new(true);
    bench.run(Vec::new());
    assert_eq!(bench.requests.len(), 1, "it was asked, and is silent");
    bench.core.requests.forget_sync(id(bench.asked));
    let late_at = bench.now + Network::local().params.request_timeout;
    while bench.now < late_at {
        assert_eq!(bench.destroyed, None);
        bench.now = bench.now + Duration::from_secs(1); // a longer step would be a sleep
        bench.core.handle_timeout(at(bench.now), &mut bench.rng);
        bench.run(Vec::new());
    }
    assert_eq!(bench.destroyed, Some(DestroyReason::Finished));
}
