//! An origin's circuit with the requests that are in flight on it (docs/protocol.md §7.2(7)).
//!
//! Knows who waits on which stream, and until when. Knows no service: a frame is its asker's to
//! read, and an answer where none is due is the asker's violation to find. Everyone who asked hears
//! [`Answer::Ended`] or [`Answer::Late`] once, unless the circuit is destroyed first. A request that
//! one frame answers ends with it: a terminal that withholds its `FIN` keeps no request open.

use std::collections::{BTreeMap, VecDeque};

use rand::CryptoRng;

use super::origin::{OriginCircuit, OriginEvent};
use super::stream::Full;
use crate::Violation;
use crate::cell::{Cell, Command};
use crate::handshake::{Binding, HopTarget};
use crate::ids::NetworkId;
use crate::limits::STREAMS_MAX;
use crate::message::{ExtendRefusal, Service, StreamId};
use crate::time::Instant;

/// A request to a service of the last hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The service that is asked.
    pub service: Service,
    /// The one frame of the request.
    pub frame: Vec<u8>,
    /// How many frames answer it.
    pub answers: Answers,
}

/// How many frames answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// One.
    One,
    /// Any number, until the stream ends: it is a subscription.
    Many,
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The terminal said this.
    Frame(Vec<u8>),
    /// The terminal says nothing more; after a reset, what it said may not be all.
    Ended {
        /// Whether the stream was reset.
        reset: bool,
    },
    /// Nothing came in time: the stream was reset.
    Late,
}

/// An event for the owner of the circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestEvent<W> {
    /// One more hop is there: it holds its keys, and is who it should be.
    Extended {
        /// How many there are now.
        hops: usize,
    },
    /// The last hop will not extend; the circuit is as it was.
    ExtendRefused(ExtendRefusal),
    /// A request got an answer.
    Answered {
        /// Whose request it was.
        who: W,
        /// The answer.
        answer: Answer,
    },
}

/// An origin's circuit, and who waits on it; `W` names the one who waits.
///
/// After [`Self::handle_cell`] and [`Self::handle_timeout`] take all of [`Self::poll_event`]; then
/// all of [`Self::poll_cell`] that the link has room for; [`Self::poll_timeout`] last.
#[expect(missing_debug_implementations, reason = "holds keys and a path")]
pub struct RequestCircuit<W> {
    circuit: OriginCircuit,
    /// Requests that wait until all hops are there.
    queued: VecDeque<(Waiting<W>, Request)>,
    waiting: BTreeMap<StreamId, Waiting<W>>,
    /// The stream whose only answer was the last event; its `FIN` may come next.
    answered: Option<StreamId>,
    late: VecDeque<W>,
}

struct Waiting<W> {
    who: W,
    answers: Answers,
    /// When the first frame is late; `None` once it came, or if it may take any time.
    due_at: Option<Instant>,
}

impl<W> RequestCircuit<W> {
    /// Begins a circuit: its `Create` cell is ready to be sent to `target`.
    pub fn create(
        network: &NetworkId,
        target: &HopTarget,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        Self {
            circuit: OriginCircuit::create(network, target, rng),
            queued: VecDeque::new(),
            waiting: BTreeMap::new(),
            answered: None,
            late: VecDeque::new(),
        }
    }

    /// The circuit itself.
    pub const fn circuit(&self) -> &OriginCircuit {
        &self.circuit
    }

    /// The secret that only this circuit and its last hop know, once that is there.
    pub const fn binding(&self) -> Option<&Binding> {
        self.circuit.binding()
    }

    /// Asks for one more hop, as [`OriginCircuit::extend`] does.
    ///
    /// # Panics
    /// [`OriginCircuit::can_extend`] says no.
    pub fn extend(&mut self, target: &HopTarget, rng: &mut (impl CryptoRng + ?Sized)) {
        self.circuit.extend(target, rng);
    }

    /// How many requests are not over.
    pub fn request_count(&self) -> usize {
        self.queued.len() + self.waiting.len()
    }

    /// Asks a service of the last hop, on a stream of its own. A circuit whose hops are not all
    /// there asks once they are. From now on the circuit can't be extended.
    ///
    /// # Errors
    /// A limit is reached; nothing has changed.
    pub fn ask(&mut self, who: W, request: Request, due_at: Option<Instant>) -> Result<(), Full> {
        let waiting = Waiting {
            who,
            answers: request.answers,
            due_at,
        };
        if self.circuit.is_open() {
            return self.send(waiting, &request);
        }
        if self.queued.len() >= STREAMS_MAX {
            return Err(Full::Streams);
        }
        self.queued.push_back((waiting, request));
        Ok(())
    }

    fn send(&mut self, waiting: Waiting<W>, request: &Request) -> Result<(), Full> {
        let stream = self
            .circuit
            .open_stream(request.service, &request.frame, true)?;
        self.waiting.insert(stream, waiting);
        Ok(())
    }

    /// Takes a cell of this circuit; works on it in place. After a violation the circuit is closed,
    /// and the caller sends a `Destroy` with [`Violation::reason`].
    ///
    /// # Errors
    /// The cell breaks a rule, or is not one that this state accepts.
    pub fn handle_cell(&mut self, command: Command, cell: &mut Cell) -> Result<(), Violation> {
        self.circuit.handle_cell(command, cell)
    }

    /// Gives up what is late; spurious calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_late = |waiting: &Waiting<W>| waiting.due_at.is_some_and(|due_at| due_at <= now);
        while let Some(index) = self.queued.iter().position(|(waiting, _)| is_late(waiting))
            && let Some((waiting, _)) = self.queued.remove(index)
        {
            self.late.push_back(waiting.who);
        }
        for (stream, waiting) in self.waiting.extract_if(.., |_, waiting| is_late(waiting)) {
            self.circuit.reset(stream);
            self.late.push_back(waiting.who);
        }
    }

    /// The machine slept: no request in flight is late before `until`.
    pub fn postpone(&mut self, until: Instant) {
        let queued = self.queued.iter_mut().map(|(waiting, _)| waiting);
        for waiting in queued.chain(self.waiting.values_mut()) {
            waiting.due_at = waiting.due_at.map(|due_at| due_at.max(until));
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let queued = self.queued.iter().map(|(waiting, _)| waiting);
        let all = queued.chain(self.waiting.values());
        all.filter_map(|waiting| waiting.due_at).min()
    }

    /// The next cell to send. Its command is set; its circuit id is the caller's to write with
    /// [`Cell::set_circ_id`].
    pub fn poll_cell(&mut self, rng: &mut (impl CryptoRng + ?Sized)) -> Option<Cell> {
        self.circuit.poll_cell(rng)
    }
}

impl<W: Clone> RequestCircuit<W> {
    /// The next event; `None` once there are no more.
    pub fn poll_event(&mut self) -> Option<RequestEvent<W>> {
        loop {
            if let Some(who) = self.late.pop_front() {
                let answer = Answer::Late;
                return Some(RequestEvent::Answered { who, answer });
            }
            let Some(event) = self.circuit.poll_event() else {
                return self.end_answered();
            };
            match event {
                OriginEvent::Extended { hops } => {
                    self.send_queued();
                    return Some(RequestEvent::Extended { hops });
                }
                OriginEvent::ExtendRefused(refusal) => {
                    return Some(RequestEvent::ExtendRefused(refusal));
                }
                OriginEvent::Frame { stream, frame } => {
                    if let Some(waiting) = self.waiting.get_mut(&stream) {
                        waiting.due_at = None;
                        self.answered = (waiting.answers == Answers::One).then_some(stream);
                        let (who, answer) = (waiting.who.clone(), Answer::Frame(frame));
                        return Some(RequestEvent::Answered { who, answer });
                    }
                }
                OriginEvent::StreamEnded { stream, reset } => {
                    if let Some(Waiting { who, .. }) = self.waiting.remove(&stream) {
                        let answer = Answer::Ended { reset };
                        return Some(RequestEvent::Answered { who, answer });
                    }
                }
            }
        }
    }

    /// The message with the only answer to a request held no `FIN`: nothing more is expected on the
    /// stream, so it is reset (§7.2(7)).
    fn end_answered(&mut self) -> Option<RequestEvent<W>> {
        let stream = self.answered.take()?;
        let Waiting { who, .. } = self.waiting.remove(&stream)?;
        self.circuit.reset(stream);
        let answer = Answer::Ended { reset: false };
        Some(RequestEvent::Answered { who, answer })
    }

    /// A request that finds no room on the circuit is late at once.
    fn send_queued(&mut self) {
        while self.circuit.is_open()
            && let Some((waiting, request)) = self.queued.pop_front()
        {
            let who = waiting.who.clone();
            if self.send(waiting, &request).is_err() {
                self.late.push_back(who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::*;
    use crate::circuit::{TerminalCircuit, TerminalEvent};
    use crate::handshake::{OnionSecret, Onionskin, respond};
    use crate::ids::{CircId, RelayId};
    use crate::message::RelayMsg;
    use crate::onion::transit::{AddLayer, PeelLayer, delivered_message};

    const NETWORK: NetworkId = NetworkId([9; 32]);
    const RELAY: RelayId = RelayId([1; 32]);

    /// A circuit of one hop, and the relay at its end.
    struct Pair {
        origin: RequestCircuit<char>,
        rng: ChaCha20Rng,
        keys: [OnionSecret; 1],
        relay: Option<(PeelLayer, TerminalCircuit)>,
    }

    impl Pair {
        fn new() -> Self {
            let mut rng = ChaCha20Rng::seed_from_u64(5);
            let keys = [OnionSecret::generate(&mut rng)];
            let target = HopTarget {
                relay: RELAY,
                onion_key: keys[0].public(),
            };
            Self {
                origin: RequestCircuit::create(&NETWORK, &target, &mut rng),
                rng,
                keys,
                relay: None,
            }
        }

        fn ask(&mut self, who: char, due_at: Option<Instant>) -> Result<(), Full> {
            self.ask_for(Answers::One, who, due_at)
        }

        fn ask_for(
            &mut self,
            answers: Answers,
            who: char,
            due_at: Option<Instant>,
        ) -> Result<(), Full> {
            let request = Request {
                service: Service::Directory,
                frame: vec![1],
                answers,
            };
            self.origin.ask(who, request, due_at)
        }

        /// Passes cells until nobody has any; returns the streams on which something was asked.
        fn run(&mut self) -> Vec<StreamId> {
            let mut asked = Vec::new();
            while let Some(cell) = self.origin.poll_cell(&mut self.rng) {
                match &mut self.relay {
                    None => self.create(&cell),
                    Some((layer, terminal)) => {
                        let mut arrived = Cell::blank();
                        *arrived.as_bytes_mut() = *cell.as_bytes();
                        let tag = layer.peel(&mut arrived).unwrap().tag;
                        let message = RelayMsg::decode(delivered_message(&arrived).unwrap());
                        terminal.handle_message(tag, &message.unwrap()).unwrap();
                    }
                }
            }
            if let Some((_, terminal)) = &mut self.relay {
                while let Some(event) = terminal.poll_event() {
                    if let TerminalEvent::Request { stream, .. } = event {
                        asked.push(stream);
                    }
                }
            }
            asked
        }

        fn create(&mut self, create: &Cell) {
            let onionskin = Onionskin::from_create_body(create.body()).unwrap();
            let (keys, reply) =
                respond(&NETWORK, &RELAY, &self.keys, &onionskin, &mut self.rng).unwrap();
            let terminal = TerminalCircuit::new(AddLayer::new(keys.backward), keys.binding);
            self.relay = Some((PeelLayer::new(keys.forward), terminal));
            let mut created = Cell::new(CircId::new(1), Command::Created);
            reply.write_created_body(created.body_mut());
            self.origin
                .handle_cell(Command::Created, &mut created)
                .unwrap();
        }

        fn built() -> Self {
            let mut pair = Self::new();
            pair.run();
            assert_eq!(pair.events(), [RequestEvent::Extended { hops: 1 }]);
            pair
        }

        fn terminal(&mut self) -> &mut TerminalCircuit {
            &mut self.relay.as_mut().unwrap().1
        }

        fn answer(&mut self, stream: StreamId, fin: bool) {
            self.terminal().reply(stream, &[2], fin).unwrap();
            self.deliver();
        }

        fn deliver(&mut self) {
            while let Some(mut cell) = self.terminal().poll_cell() {
                self.origin.handle_cell(Command::Relay, &mut cell).unwrap();
            }
        }

        fn events(&mut self) -> Vec<RequestEvent<char>> {
            std::iter::from_fn(|| self.origin.poll_event()).collect()
        }
    }

    fn answered(who: char, answer: Answer) -> RequestEvent<char> {
        RequestEvent::Answered { who, answer }
    }

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    #[test] // §7.2(7)
    fn what_is_asked_before_the_hop_is_there_is_sent_once_it_is() {
        let mut pair = Pair::new();
        pair.ask('a', None).unwrap();
        assert!(pair.run().is_empty(), "only the Create went");
        assert_eq!(pair.events(), [RequestEvent::Extended { hops: 1 }]);
        let asked = pair.run();
        assert_eq!(asked.len(), 1);
        pair.answer(asked[0], true);
        let all = [
            answered('a', Answer::Frame(vec![2])),
            answered('a', Answer::Ended { reset: false }),
        ];
        assert_eq!(pair.events(), all);
        assert_eq!(pair.origin.request_count(), 0);
    }

    #[test] // §7.2(7)
    fn an_answer_without_its_end_ends_the_request_all_the_same() {
        let mut pair = Pair::built();
        pair.ask('a', Some(at(1))).unwrap();
        let asked = pair.run();
        pair.answer(asked[0], false);
        let all = [
            answered('a', Answer::Frame(vec![2])),
            answered('a', Answer::Ended { reset: false }),
        ];
        assert_eq!(pair.events(), all);
        assert_eq!(pair.origin.request_count(), 0);
        assert_eq!(pair.origin.circuit().stream_count(), 1, "not acknowledged");
        pair.run();
        pair.answer(asked[0], true);
        assert!(pair.events().is_empty(), "the stream was reset");
        assert_eq!(pair.origin.circuit().stream_count(), 0);
    }

    #[test] // §7.2(7)
    fn a_second_answer_in_the_message_of_the_first_is_seen() {
        let mut pair = Pair::built();
        pair.ask('a', None).unwrap();
        let asked = pair.run();
        pair.terminal().reply(asked[0], &[2], false).unwrap();
        pair.answer(asked[0], false);
        let all = [
            answered('a', Answer::Frame(vec![2])),
            answered('a', Answer::Frame(vec![2])),
            answered('a', Answer::Ended { reset: false }),
        ];
        assert_eq!(pair.events(), all);
    }

    #[test] // §7.2(7), §7.2(8)
    fn each_answer_goes_to_its_asker() {
        let mut pair = Pair::built();
        pair.ask('a', None).unwrap();
        pair.ask_for(Answers::Many, 'b', None).unwrap();
        let asked = pair.run();
        pair.answer(asked[1], false);
        assert_eq!(pair.events(), [answered('b', Answer::Frame(vec![2]))]);
        pair.terminal().reset(asked[0]);
        pair.deliver();
        assert_eq!(
            pair.events(),
            [answered('a', Answer::Ended { reset: true })]
        );
        assert_eq!(pair.origin.request_count(), 1, "b's stream is open");
    }

    #[test]
    fn a_request_is_late_once_and_an_answered_one_never() {
        let mut pair = Pair::built();
        pair.ask('a', Some(at(3))).unwrap();
        pair.ask_for(Answers::Many, 'b', Some(at(2))).unwrap();
        let asked = pair.run();
        assert_eq!(pair.origin.poll_timeout(), Some(at(2)));
        pair.answer(asked[1], false);
        pair.events();
        assert_eq!(pair.origin.poll_timeout(), Some(at(3)));
        pair.origin.handle_timeout(at(2));
        assert!(pair.events().is_empty());
        pair.origin.handle_timeout(at(3));
        assert_eq!(pair.events(), [answered('a', Answer::Late)]);
        pair.run();
        pair.answer(asked[0], true);
        assert!(pair.events().is_empty(), "its stream was reset");
    }

    #[test]
    fn who_waits_while_the_machine_sleeps_gets_time_again() {
        let mut pair = Pair::built();
        pair.ask('a', Some(at(1))).unwrap();
        pair.ask('b', Some(at(9))).unwrap();
        pair.ask('c', None).unwrap();
        pair.origin.postpone(at(5));
        pair.origin.handle_timeout(at(4));
        assert!(pair.events().is_empty());
        pair.origin.handle_timeout(at(8));
        assert_eq!(pair.events(), [answered('a', Answer::Late)]);
        assert_eq!(pair.origin.poll_timeout(), Some(at(9)), "nobody gets less");
    }

    #[test]
    fn what_waits_for_the_hop_may_be_late_too_and_is_bounded() {
        let mut pair = Pair::new();
        for _ in 0..STREAMS_MAX {
            pair.ask('a', Some(at(1))).unwrap();
        }
        assert_eq!(pair.ask('b', None), Err(Full::Streams));
        pair.origin.handle_timeout(at(1));
        assert_eq!(
            pair.events(),
            vec![answered('a', Answer::Late); STREAMS_MAX]
        );
        assert_eq!(
            (pair.origin.request_count(), pair.origin.poll_timeout()),
            (0, None)
        );
    }
}
