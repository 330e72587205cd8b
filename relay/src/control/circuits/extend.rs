//! Extending a circuit by one hop (docs/protocol.md §6).
//!
//! `Extend` names the next relay by its id; its address comes from a signed descriptor or a seed
//! (§6.2(4)). Each extend is answered once: by `Extended`, or by a refusal that leaves the circuit
//! as it was.

use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::handshake::Reply;
use umbel_proto::ids::{CircId, RelayId};
use umbel_proto::link::LinkId;
use umbel_proto::message::{Extend, ExtendRefusal, RelayMsg};
use umbel_proto::time::Instant;

use super::super::context::{Context, Signal};
use super::super::timers::Timer;
use super::{CircuitKey, Circuits, End, State};
use crate::forward::{Next, TableUpdate};

/// A next hop in the making.
pub(super) struct Extending {
    step: Step,
    deadline: Instant,
}

enum Step {
    /// A link to the next relay is being made.
    Dialling(Box<Extend>),
    /// The onionskin is in flight.
    Created(LinkId, CircId),
}

impl Extending {
    /// The circuit's end away from its origin, once it has one.
    pub(super) const fn next_end(&self) -> Option<(LinkId, CircId)> {
        match self.step {
            Step::Dialling(_) => None,
            Step::Created(link, circ) => Some((link, circ)),
        }
    }

    /// The relay that it waits for a link to.
    pub(super) fn awaited(&self) -> Option<RelayId> {
        match &self.step {
            Step::Dialling(extend) => Some(extend.relay),
            Step::Created(..) => None,
        }
    }
}

impl Circuits {
    /// Sends the onionskin to the next relay, dials it, or refuses (§6.2(4)).
    ///
    /// The next relay may be the one that the circuit came from: §6.3(3).
    pub(super) fn begin_extend(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        extend: Extend,
    ) -> Result<(), Violation> {
        let Some(State::Terminal {
            terminal,
            extending,
        }) = self.circuits.get_mut(&key).map(|it| &mut it.state)
        else {
            return Err(Violation::Unexpected);
        };
        if !terminal.is_fresh() {
            return Err(Violation::Unexpected); // §6.2
        }
        let relay = extend.relay;
        let deadline = cx.now + cx.params().dial_timeout;
        *extending = Some(Extending {
            step: Step::Dialling(Box::new(extend)),
            deadline,
        });
        cx.timers.set(Timer::Extend(key), deadline);
        if relay == cx.relay {
            self.refuse_extend(cx, key, ExtendRefusal::Refused);
        } else if let Some(link) = cx.links.toward(&relay) {
            self.resume_extend(cx, key, link);
        } else if cx.view().get(&relay).is_some() {
            cx.signal(Signal::Awaits {
                circuit: key,
                relay,
            });
        } else {
            self.refuse_extend(cx, key, ExtendRefusal::UnknownRelay);
        }
        Ok(())
    }

    /// There is a link to the next relay: the onionskin goes there.
    pub(in super::super) fn resume_extend(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        link: LinkId,
    ) {
        let Some(circ) = self.new_circ(cx, link) else {
            return self.refuse_extend(cx, key, ExtendRefusal::Unreachable);
        };
        let Some(State::Terminal {
            extending: Some(extending),
            ..
        }) = self.circuits.get_mut(&key).map(|it| &mut it.state)
        else {
            return; // destroyed while its link was being made
        };
        let Step::Dialling(extend) = &extending.step else {
            return;
        };
        let mut create = Cell::new(Some(circ), Command::Create);
        extend.onionskin.write_create_body(create.body_mut());
        extending.step = Step::Created(link, circ);
        self.ends.insert((link, circ), End::Next(key));
        cx.out.cells.push_back((link, create));
    }

    /// The next hop answered: from now on the circuit passes through.
    pub(super) fn on_created(
        &mut self,
        cx: &mut Context<'_>,
        next: (LinkId, CircId),
        key: CircuitKey,
        cell: &Cell,
    ) {
        let (link, circ) = next;
        let Ok(reply) = Reply::from_created_body(cell.body()) else {
            return self.handle_violation(cx, link, circ, Violation::Handshake);
        };
        if self.extending(key).and_then(Extending::next_end) != Some(next) {
            return self.handle_violation(cx, link, circ, Violation::Unexpected);
        }
        let Some(circuit) = self.circuits.get_mut(&key) else {
            return;
        };
        let State::Terminal { mut terminal, .. } =
            core::mem::replace(&mut circuit.state, State::Joined { next })
        else {
            return;
        };
        let (prev_link, prev_circ) = circuit.prev;
        terminal.send_control(&RelayMsg::Extended(Box::new(reply)));
        while let Some(mut cell) = terminal.poll_cell() {
            cell.set_circ_id(prev_circ);
            cx.out.cells.push_back((prev_link, cell));
        }
        let back = Next {
            queue: prev_link,
            circ: prev_circ,
        };
        let onward = Next { queue: link, circ };
        cx.out.tables.extend([
            (
                link,
                TableUpdate::Return(circ, terminal.into_backward(), back),
            ),
            (prev_link, TableUpdate::Join(prev_circ, onward)),
        ]);
    }

    /// The next hop destroyed the circuit instead of answering, or its link broke: §4.2(3).
    pub(super) fn on_extend_lost(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        reason: DestroyReason,
    ) {
        let refusal = if reason == DestroyReason::Link {
            ExtendRefusal::Unreachable
        } else {
            ExtendRefusal::Refused
        };
        self.refuse_extend(cx, key, refusal);
    }

    /// A next hop should have answered by now.
    pub(in super::super) fn handle_extend_timeout(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
    ) {
        let Some(extending) = self.extending(key) else {
            return;
        };
        if cx.now < extending.deadline {
            return; // an earlier extend's timer
        }
        let next = extending.next_end();
        if let Some(relay) = extending.awaited() {
            cx.signal(Signal::GaveUp {
                circuit: key,
                relay,
            });
        }
        if let Some((link, circ)) = next {
            self.ends.remove(&(link, circ));
            cx.send_destroy(link, circ, DestroyReason::Finished);
        }
        self.refuse_extend(cx, key, ExtendRefusal::Unreachable);
    }

    /// There will be no new hop: the origin gets a refusal, and the circuit ends here as before.
    pub(in super::super) fn refuse_extend(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        refusal: ExtendRefusal,
    ) {
        if let Some(State::Terminal {
            terminal,
            extending,
        }) = self.circuits.get_mut(&key).map(|it| &mut it.state)
            && extending.take().is_some()
        {
            terminal.send_control(&RelayMsg::ExtendRefused(refusal));
            self.flush(cx, key);
        }
    }
}
