//! Circuits of one hop, on which this relay asks a neighbour (docs/protocol.md §8.3, §8.7).
//!
//! Discovery and receipts use them alike: one request at a time, each answered by one frame. An
//! [`Errand`] names such a circuit wherever circuits are kept.

use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::{Answer, Answers, Request, RequestCircuit, RequestEvent};
use umbel_proto::directory::gossip::ExchangeId;
use umbel_proto::handshake::Binding;
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::link::LinkId;
use umbel_proto::message::Service;

use super::circuits::Circuits;
use super::context::Context;

/// Whose circuit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Errand {
    /// An exchange of discovery.
    Exchange(ExchangeId),
    /// A request for a receipt; each has a number of its own.
    Receipt(u64),
}

/// A circuit of one hop, and the request on it that was sent last.
pub(super) struct OneHop {
    link: LinkId,
    circ: CircId,
    circuit: RequestCircuit<RequestNum>,
    num: RequestNum,
    is_answered: bool,
}

/// Numbers the requests of one circuit.
type RequestNum = u32;

/// What happened on such a circuit.
pub(super) enum HopEvent {
    /// It is there: it can be asked on.
    Ready,
    /// The last request was answered.
    Answered(Vec<u8>),
    /// It will not be answered.
    Failed,
}

impl OneHop {
    /// Begins a circuit on this link; `None` when the link is gone, or the relay unknown. A relay
    /// that is in no view yet is asked by the descriptor that it showed.
    pub(super) fn begin(
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        errand: Errand,
        relay: RelayId,
        link: LinkId,
    ) -> Option<Self> {
        let known = cx.view().get(&relay).map(|known| known.hop_target());
        let target = known.or_else(|| cx.links.hop(link))?;
        let circ = circuits.begin_errand(cx, link, errand)?;
        let circuit = RequestCircuit::create(&cx.config.network.id, &target, cx.rng);
        let mut hop = Self {
            link,
            circ,
            circuit,
            num: 0,
            is_answered: false,
        };
        hop.flush(cx);
        Some(hop)
    }

    /// The circuit's end on its link.
    pub(super) const fn end(&self) -> (LinkId, CircId) {
        (self.link, self.circ)
    }

    /// The secret that the circuit shares with its other end, once it is there.
    pub(super) fn binding(&self) -> Option<&Binding> {
        self.circuit.binding()
    }

    /// Asks. `None`: it can't be asked.
    pub(super) fn ask(
        &mut self,
        cx: &mut Context<'_>,
        service: Service,
        frame: Vec<u8>,
    ) -> Option<()> {
        self.num += 1;
        self.is_answered = false;
        let request = Request {
            service,
            frame,
            answers: Answers::One,
        };
        let asked = self.circuit.ask(self.num, request, None);
        self.flush(cx);
        asked.ok()
    }

    /// Takes a cell of the circuit; then poll.
    pub(super) fn handle_cell(
        &mut self,
        cx: &mut Context<'_>,
        command: Command,
        mut cell: Cell,
    ) -> Result<(), Violation> {
        let handled = self.circuit.handle_cell(command, &mut cell);
        self.flush(cx);
        handled
    }

    /// The next thing that happened. Once nothing is left, the circuit's cells go out.
    ///
    /// # Errors
    /// The other end broke a rule.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<Option<HopEvent>, Violation> {
        while let Some(event) = self.circuit.poll_event() {
            let (num, answer) = match event {
                RequestEvent::Extended { .. } => return Ok(Some(HopEvent::Ready)),
                RequestEvent::ExtendRefused(_) => return Err(Violation::Unexpected),
                RequestEvent::Answered { who, answer } => (who, answer),
            };
            let is_awaited = self.num == num && !self.is_answered;
            match answer {
                Answer::Frame(_) if !is_awaited => return Err(Violation::Stream), // §7.2(7)
                Answer::Frame(frame) => {
                    self.is_answered = true;
                    return Ok(Some(HopEvent::Answered(frame)));
                }
                Answer::Ended { reset: false } if !is_awaited => {}
                Answer::Ended { .. } | Answer::Late => return Ok(Some(HopEvent::Failed)),
            }
        }
        self.flush(cx);
        Ok(None)
    }

    /// The circuit is not needed any more.
    pub(super) fn finish(self, cx: &mut Context<'_>, circuits: &mut Circuits) {
        circuits.destroy(cx, self.link, self.circ, DestroyReason::Finished);
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        while let Some(mut cell) = self.circuit.poll_cell(cx.rng) {
            cell.set_circ_id(self.circ);
            cx.out.cells.push_back((self.link, cell));
        }
    }
}
