//! The body for a relay's control plane: the input is a story of what its peers, its store and its
//! clock do.

use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::OriginCircuit;
use umbel_proto::directory::DirectoryRequest;
use umbel_proto::handshake::{Onionskin, respond};
use umbel_proto::ids::{BlindedKey, CircId};
use umbel_proto::limits::WINDOW_MAX_CELLS;
use umbel_proto::link::LinkId;
use umbel_proto::message::{Service, StreamId};
use umbel_proto::time::{Duration, Epoch};

use super::Script;
use crate::shells::lone::{CIRCUITS_MAX, LoneRelay, Neighbour};

/// Links there may be.
const LINKS: u8 = 5;
/// Circuits that clients may have on their way or made.
const ORIGINS_MAX: usize = 8;
/// Neighbours that the relay knows; one more exists that it does not know.
const NEIGHBOURS: u8 = 3;
/// Ops looked at: a longer story says nothing new.
const OPS_MAX: usize = 96;

/// A client's circuit, by the link and id it began with. Not a
/// [`RequestCircuit`](umbel_proto::circuit::RequestCircuit), which asks once on each stream: a relay
/// must also take streams with several frames, without an end, or reset halfway. Nobody waits here.
struct Origin {
    link: LinkId,
    circ: CircId,
    circuit: OriginCircuit,
}

/// The relay, and everybody around it.
struct Bench {
    relay: LoneRelay,
    origins: Vec<Origin>,
    /// Creates that the relay sent to neighbours.
    creates: Vec<(LinkId, CircId, Box<Onionskin>)>,
    stranger: Neighbour,
}

pub(super) fn control(input: &[u8]) {
    let relay = LoneRelay::new(NEIGHBOURS);
    let stranger = Neighbour::new(relay.network.id, NEIGHBOURS + 1);
    let mut bench = Bench {
        relay,
        origins: Vec::new(),
        creates: Vec::new(),
        stranger,
    };
    let mut script = Script::new(input);
    for _ in 0..OPS_MAX {
        let Some(op) = script.op() else { break };
        bench.step(op, &mut script);
        bench.collect();
        bench.check();
    }
    bench.end(input.last().is_some_and(|last| last & 1 == 1));
}

impl Bench {
    fn step(&mut self, op: u8, script: &mut Script<'_>) {
        let link = LinkId(u64::from(script.byte() % LINKS));
        match op % 16 {
            0 => self.link_up(link, op >> 4),
            1 => self.relay.link_down(link),
            2 => self.raw_cell(link, op >> 4, script),
            3 => self.begin_circuit(link, script.byte()),
            4 => self.relay.cell(
                link,
                Cell::destroy(circ(script.byte()), DestroyReason::Finished),
            ),
            5 => self.say(script),
            6 => self.extend(script),
            7 => self.flush(op >> 4, script),
            8 => self.relay.answer_works(),
            9 => self.relay.commit(),
            10 => self
                .relay
                .pass(Duration::from_millis(u64::from(script.u16()) << (op >> 5))),
            11 => {
                let relay = self.neighbour(script.byte()).id;
                self.relay.dial_failed(relay);
            }
            12 => self.answer_create(op >> 4, script.byte()),
            13 => self.relay.overrun(link, circ(script.byte())),
            14 => self.half_close(script),
            _ if op == 0xff => self.relay.stop(),
            _ => self.say_again(script),
        }
    }

    fn neighbour(&self, number: u8) -> &Neighbour {
        self.relay
            .neighbours
            .get(usize::from(number % (NEIGHBOURS + 1)))
            .unwrap_or(&self.stranger)
    }

    fn link_up(&mut self, link: LinkId, kind: u8) {
        if !self.relay.is_up(link) {
            let peer = (kind & 1 == 1).then(|| self.neighbour(kind >> 2).id);
            let is_dialler = kind & 3 == 3;
            self.relay.link_up(link, peer, is_dialler);
        }
    }

    fn raw_cell(&mut self, link: LinkId, kind: u8, script: &mut Script<'_>) {
        let command = Command::from_number(kind % 6).unwrap_or(Command::Relay);
        let to = circ(script.byte());
        let mut cell = Cell::new((!command.is_link()).then_some(to), command);
        cell.body_mut()
            .iter_mut()
            .zip(script.chunk())
            .for_each(|(byte, &given)| *byte = given);
        self.relay.cell(link, cell);
    }

    fn begin_circuit(&mut self, link: LinkId, number: u8) {
        let Some(target) = self.relay.target() else {
            return;
        };
        if self.origins.len() >= ORIGINS_MAX {
            self.origins.remove(0);
        }
        let circuit = OriginCircuit::create(&self.relay.network.id, &target, &mut self.relay.rng);
        self.origins.push(Origin {
            link,
            circ: circ(number),
            circuit,
        });
        self.flush(0, &mut Script::new(&[u8::MAX]));
    }

    fn origin(&mut self, script: &mut Script<'_>) -> Option<&mut Origin> {
        let index = usize::from(script.byte());
        let count = self.origins.len().max(1);
        self.origins
            .get_mut(index % count)
            .filter(|origin| origin.circuit.is_open())
    }

    /// A stream with whatever frame, or one that means something.
    fn say(&mut self, script: &mut Script<'_>) {
        let Some(origin) = self.origin(script) else {
            return;
        };
        let flags = script.byte();
        let service = if flags & 1 == 1 {
            Service::Directory
        } else {
            Service::Mailbox
        };
        let lookup = lookup(flags);
        let frame = if flags & 4 == 4 {
            &lookup
        } else {
            script.chunk()
        };
        let _ = origin.circuit.open_stream(service, frame, flags & 2 == 2);
    }

    /// Opens a stream that more may follow on.
    fn open(&mut self, script: &mut Script<'_>) -> Option<(&mut Origin, StreamId)> {
        let origin = self.origin(script)?;
        let stream = origin
            .circuit
            .open_stream(Service::Directory, &lookup(1), false)
            .ok()?;
        Some((origin, stream))
    }

    /// Another frame on a stream that was opened before.
    fn say_again(&mut self, script: &mut Script<'_>) {
        if let Some((origin, stream)) = self.open(script) {
            let fin = script.byte() & 1 == 1;
            let _ = origin.circuit.send(stream, &lookup(1), fin);
        }
    }

    fn half_close(&mut self, script: &mut Script<'_>) {
        let Some((_, stream)) = self.open(script) else {
            return;
        };
        self.flush(0, &mut Script::new(&[u8::MAX]));
        if let Some(origin) = self.origin(script) {
            if script.byte() & 1 == 1 {
                origin.circuit.finish(stream);
            } else {
                origin.circuit.reset(stream);
            }
        }
    }

    fn extend(&mut self, script: &mut Script<'_>) {
        let target = self.neighbour(script.byte()).target();
        let rng = &mut self.relay.rng;
        let count = self.origins.len().max(1);
        if let Some(origin) = self.origins.get_mut(usize::from(script.byte()) % count)
            && origin.circuit.can_extend()
        {
            origin.circuit.extend(&target, rng);
        }
    }

    /// Sends the clients' cells; one of them may be damaged on its way, or sent twice.
    fn flush(&mut self, damage: u8, script: &mut Script<'_>) {
        let at = script.byte();
        let mut count: u8 = 0;
        for index in 0..self.origins.len() {
            while let Some(origin) = self.origins.get_mut(index)
                && let Some(mut cell) = origin.circuit.poll_cell(&mut self.relay.rng)
            {
                cell.set_circ_id(origin.circ);
                let link = origin.link;
                if damage & 1 == 1 && count == at {
                    let [.., last] = cell.body_mut();
                    *last ^= 1;
                }
                let again = (damage & 2 == 2 && count == at).then(|| cell.clone());
                self.relay.cell(link, cell);
                if let Some(again) = again {
                    self.relay.cell(link, again);
                }
                count = count.saturating_add(1);
            }
        }
    }

    /// A neighbour answers the oldest Create: well, badly, or by destroying the circuit.
    fn answer_create(&mut self, how: u8, whom: u8) {
        if self.creates.is_empty() {
            return;
        }
        let (link, circ, onionskin) = self.creates.remove(0);
        let mut answer = Cell::new(Some(circ), Command::Created);
        match how & 3 {
            0 => answer = Cell::destroy(circ, DestroyReason::Busy),
            1 => answer.body_mut().fill(1),
            _ => {
                let (id, network) = (self.neighbour(whom).id, self.relay.network.id);
                let secret = self.neighbour(whom).onion.seed();
                let onion = [umbel_proto::handshake::OnionSecret::from_seed(&secret)];
                let Ok((_, reply)) =
                    respond(&network, &id, &onion, &onionskin, &mut self.relay.rng)
                else {
                    return;
                };
                reply.write_created_body(answer.body_mut());
            }
        }
        self.relay.cell(link, answer);
    }

    /// Takes what the relay sent to where it goes. A client that finds it wrong gives its circuit
    /// up.
    fn collect(&mut self) {
        let sent = std::mem::take(&mut self.relay.sent);
        let bound = 2 * CIRCUITS_MAX + 4 * usize::from(WINDOW_MAX_CELLS);
        assert!(
            sent.len() <= bound,
            "one event makes at most a window of cells: {}",
            sent.len()
        );
        for (link, mut cell) in sent {
            let Ok((Some(circ), command)) = cell.header() else {
                unreachable!("links' own cells are not Control's")
            };
            if command == Command::Create
                && let Ok(onionskin) = Onionskin::from_create_body(cell.body())
            {
                self.creates.push((link, circ, Box::new(onionskin)));
            } else if let Some(index) = self
                .origins
                .iter()
                .position(|it| (it.link, it.circ) == (link, circ))
            {
                let is_over = command == Command::Destroy
                    || self
                        .origins
                        .get_mut(index)
                        .is_none_or(|it| it.circuit.handle_cell(command, &mut cell).is_err());
                if is_over {
                    self.origins.remove(index);
                    continue;
                }
                while self
                    .origins
                    .get_mut(index)
                    .and_then(|it| it.circuit.poll_event())
                    .is_some()
                {}
            }
        }
        let is_up = |link: &LinkId| self.relay.is_up(*link);
        self.creates.retain(|(link, ..)| is_up(link));
    }

    fn check(&self) {
        let control = &self.relay.control;
        assert_eq!(control.check(), Ok(()));
        let stats = control.stats();
        assert!(
            stats.circuits <= CIRCUITS_MAX && self.relay.works.len() <= CIRCUITS_MAX,
            "{stats:?}"
        );
        assert!(
            control.end_count() <= 2 * CIRCUITS_MAX + 32,
            "{}",
            control.end_count()
        );
        assert!(
            self.relay.table_len() <= control.end_count(),
            "a table's entry belongs to an end"
        );
    }

    /// Whatever came before, links that are gone leave nothing behind.
    fn end(&mut self, by_stop: bool) {
        if by_stop {
            self.relay.stop();
        } else {
            let links: Vec<LinkId> = self.relay.links().collect();
            links
                .into_iter()
                .for_each(|link| self.relay.link_down(link));
        }
        self.relay.answer_works();
        self.relay.commit();
        assert_eq!(self.relay.control.check(), Ok(()));
        let stats = self.relay.control.stats();
        assert_eq!(
            (
                stats.circuits,
                self.relay.control.end_count(),
                self.relay.table_len()
            ),
            (0, 0, 0)
        );
    }
}

/// A request that the directory service understands.
fn lookup(inbox: u8) -> Vec<u8> {
    DirectoryRequest::LookupInbox {
        blinded: BlindedKey([inbox; 32]),
        epoch: Epoch(2),
    }
    .encode()
}

/// Few ids, of either side, so that they meet.
fn circ(number: u8) -> CircId {
    let side = u32::from(number & 0x80) << 24;
    CircId::new(side | (u32::from(number % 6) + 1))
        .unwrap_or_else(|| unreachable!("it is not zero"))
}
