//! The terminal's end of a circuit (docs/protocol.md §6, §7).
//!
//! Holds the backward layer only: the forward layer is peeled where cells are read. Knows no
//! service; takes requests off streams and puts replies on them. Small until a stream is opened,
//! since most circuits are soon extended.

use std::collections::VecDeque;

use super::stream::{End, StreamEvent};
use super::{Flow, Full, unaddressed};
use crate::Violation;
use crate::cell::{Cell, Command};
use crate::handshake::Binding;
use crate::limits::TAG_LEN;
use crate::message::{RelayMsg, Service, StreamId};
use crate::onion::transit::AddLayer;

/// An event for the terminal of a circuit.
#[derive(Debug)]
pub enum TerminalEvent {
    /// A frame came on a stream.
    Request {
        /// Which stream.
        stream: StreamId,
        /// The service it speaks to.
        service: Service,
        /// The frame.
        frame: Vec<u8>,
        /// Whether it is the first on its stream: a service answers one request a stream (§7.2(7)).
        is_first: bool,
        /// Whether it is the last: then no [`TerminalEvent::StreamEnded`] follows.
        fin: bool,
    },
    /// Nothing more comes on a stream.
    StreamEnded {
        /// Which.
        stream: StreamId,
        /// Whether it is over both ways; otherwise the origin has merely said all.
        reset: bool,
    },
}

/// The terminal's end of one circuit.
///
/// After [`Self::handle_message`] take all of [`Self::poll_event`]; after anything, all of
/// [`Self::poll_cell`] that the link has room for.
#[expect(missing_debug_implementations, reason = "holds a key")]
pub struct TerminalCircuit {
    /// `None` once a rule was broken.
    backward: Option<AddLayer>,
    binding: Binding,
    /// Answers to extends, encoded; at most one for each early cell of the circuit.
    control: VecDeque<Vec<u8>>,
    /// Made when the first stream is opened.
    flow: Option<Box<Flow>>,
    may_grow: bool,
}

impl TerminalCircuit {
    /// The end that a handshake has just made.
    pub const fn new(backward: AddLayer, binding: Binding) -> Self {
        Self {
            backward: Some(backward),
            binding,
            control: VecDeque::new(),
            flow: None,
            may_grow: true,
        }
    }

    /// The secret that only this circuit and its origin know.
    pub const fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Whether no stream is open.
    pub fn is_idle(&self) -> bool {
        self.flow
            .as_ref()
            .is_none_or(|flow| flow.streams.len() == 0)
    }

    /// Whether no stream was ever opened, so that the circuit may still be extended (§6.2(2)).
    pub const fn is_fresh(&self) -> bool {
        self.flow.is_none() && self.backward.is_some()
    }

    /// How many streams are not over.
    pub fn stream_count(&self) -> usize {
        self.flow.as_ref().map_or(0, |flow| flow.streams.len())
    }

    /// Bytes of frames not yet sent.
    pub fn outgoing_bytes(&self) -> usize {
        self.flow
            .as_ref()
            .map_or(0, |flow| flow.streams.outgoing_bytes())
    }

    /// Bytes that frames take which are not yet sent, or not yet whole.
    pub fn held_bytes(&self) -> usize {
        self.flow
            .as_ref()
            .map_or(0, |flow| flow.streams.held_bytes())
    }

    /// Whether the origin's window may grow: no, while memory is short (§7.3).
    pub fn set_growth(&mut self, may_grow: bool) {
        self.may_grow = may_grow;
        if let Some(flow) = &mut self.flow {
            flow.receive_window.set_growth(may_grow);
        }
    }

    /// Takes a message delivered here, with the tag its cell arrived with. Extends are the caller's
    /// to take out before. After a violation the circuit is closed.
    ///
    /// # Errors
    /// The message breaks a rule, or is not one that a terminal takes.
    pub fn handle_message(
        &mut self,
        tag: [u8; TAG_LEN],
        message: &RelayMsg<'_>,
    ) -> Result<(), Violation> {
        // §6.2(3), §6.2(8)
        let result = match message {
            _ if self.backward.is_none() => Err(Violation::Unexpected),
            RelayMsg::Padding => Ok(()),
            RelayMsg::Data(data) => {
                let may_grow = self.may_grow;
                let flow = self
                    .flow
                    .get_or_insert_with(|| Box::new(Flow::new(End::Terminal, may_grow)));
                flow.handle_data(tag, data)
            }
            RelayMsg::Credit(credit) => self
                .flow
                .as_mut()
                .map_or(Err(Violation::Window), |flow| flow.handle_credit(credit)),
            RelayMsg::Extend(_) | RelayMsg::Extended(_) | RelayMsg::ExtendRefused(_) => {
                Err(Violation::Unexpected)
            }
        };
        if result.is_err() {
            self.close();
        }
        result
    }

    /// Queues the answer to an extend.
    ///
    /// # Panics
    /// It is not an answer to an extend, or a stream was opened.
    pub fn send_control(&mut self, answer: &RelayMsg<'_>) {
        assert!(
            matches!(answer, RelayMsg::Extended(_) | RelayMsg::ExtendRefused(_)),
            "only extends have answers"
        );
        assert!(self.is_fresh(), "a circuit with a stream is not extended");
        let mut message = Vec::new();
        answer.encode(&mut message);
        self.control.push_back(message);
    }

    /// Sends one frame on a stream; `fin`: nothing follows it. On a stream that is over it does
    /// nothing.
    ///
    /// # Errors
    /// A limit is reached; nothing has changed. The caller may try again later, or reset the
    /// stream.
    ///
    /// # Panics
    /// The stream was finished from this end.
    pub fn reply(&mut self, stream: StreamId, frame: &[u8], fin: bool) -> Result<(), Full> {
        self.flow
            .as_mut()
            .map_or(Ok(()), |flow| flow.streams.send(stream, frame, fin))
    }

    /// Says that nothing follows on a stream. Does nothing if that was said, or the stream is over.
    pub fn finish(&mut self, stream: StreamId) {
        if let Some(flow) = &mut self.flow {
            flow.streams.finish(stream);
        }
    }

    /// Ends a stream both ways: no event of it comes any more. Does nothing if it is over.
    pub fn reset(&mut self, stream: StreamId) {
        if let Some(flow) = &mut self.flow {
            flow.streams.reset(stream);
        }
    }

    /// The next request; `None` once there are no more.
    pub fn poll_event(&mut self) -> Option<TerminalEvent> {
        Some(match self.flow.as_mut()?.streams.poll_event()? {
            StreamEvent::Frame {
                stream,
                service,
                frame,
                is_first,
                fin,
            } => TerminalEvent::Request {
                stream,
                service,
                frame,
                is_first,
                fin,
            },
            StreamEvent::Ended { stream, reset } => TerminalEvent::StreamEnded { stream, reset },
        })
    }

    /// The next cell to send: answers to extends before credits, credits before data. Its command
    /// is set; its circuit id is the caller's to write with [`Cell::set_header`].
    pub fn poll_cell(&mut self) -> Option<Cell> {
        let backward = self.backward.as_mut()?;
        let mut made = None;
        let mut seal =
            |message: &[u8]| backward.seal(message, made.insert(unaddressed(Command::Relay)));
        if let Some(message) = self.control.pop_front() {
            seal(&message);
        } else if let Some(flow) = &mut self.flow {
            flow.poll_message(seal);
        }
        made
    }

    /// Gives up the backward layer to a relay that has become a hop in the middle.
    ///
    /// # Panics
    /// [`Self::is_fresh`] says no, or an answer is not sent yet: cells of the new last hop would
    /// overtake it.
    pub fn into_backward(self) -> AddLayer {
        assert!(
            self.flow.is_none(),
            "a circuit with a stream is not extended"
        );
        assert!(
            self.control.is_empty(),
            "the answer goes before the new hop's cells" // §6.2(6)
        );
        self.backward
            .unwrap_or_else(|| unreachable!("a closed circuit is destroyed, not extended"))
    }

    /// Forgets the key and all that was on the way.
    fn close(&mut self) {
        self.backward = None;
        self.control.clear();
        self.flow = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // docs/architecture.md: under 4 KiB for an idle circuit
    fn an_idle_terminal_is_small() {
        assert!(size_of::<TerminalCircuit>() - size_of::<AddLayer>() < 256);
    }
}
