//! The services at the end of a circuit (docs/protocol.md §7.2, §8.4, §10).
//!
//! All have one shape: a service takes a request ([`Request`]) and answers it now, or later by a
//! [`LateAnswer`], after it learns what the store did for it. The mailbox service alone is also told
//! when nobody waits for a request any more.
//! Here is who waits: one table, with an entry for each stream whose request is unanswered or whose
//! origin has not finished. A stream carries one request, so circuit and stream name it.

mod budgets;
mod directory;
mod mailbox;
mod receipts;

use std::collections::{BTreeMap, VecDeque};

use umbel_proto::Violation;
use umbel_proto::directory::receipts::Probed;
use umbel_proto::handshake::Binding;
use umbel_proto::inbox::holder::{self, EXPIRED_KEPT, Holder, HolderLimits};
use umbel_proto::link::LinkId;
use umbel_proto::message::{Service, StreamId};
use umbel_proto::time::Instant;

use super::circuits::CircuitKey;
use super::context::Context;
use super::io::StoreDone;
pub(super) use directory::Directory;
pub(super) use mailbox::Mailbox;
pub(super) use receipts::Receipts;

/// The services of a relay, and the requests that wait for an answer.
pub(super) struct Services {
    directory: Directory,
    mailbox: Mailbox,
    receipts: Receipts,
    /// At most [`STREAMS_MAX`](umbel_proto::limits::STREAMS_MAX) a circuit.
    asked: BTreeMap<RequestId, Asked>,
    replies: VecDeque<Reply>,
}

/// Names a request in this relay. A stream's id is used once on its circuit, and a circuit's key
/// once in a relay (§7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RequestId(u64);

impl RequestId {
    fn new(circuit: CircuitKey, stream: StreamId) -> Self {
        Self(circuit.0 << 16 | u64::from(stream.0))
    }

    fn place(self) -> (CircuitKey, StreamId) {
        let [.., high, low] = self.0.to_be_bytes();
        let stream = StreamId(u16::from_be_bytes([high, low]));
        (CircuitKey(self.0 >> 16), stream)
    }
}

/// A stream on which something was asked.
#[derive(Clone, Copy)]
struct Asked {
    /// The service that has still to answer.
    waits_for: Option<Service>,
    /// Whether the origin has said all.
    is_finished: bool,
}

/// One request, as it came off a stream.
pub(super) struct Request<'a> {
    pub(super) circuit: CircuitKey,
    pub(super) stream: StreamId,
    /// The link over which its circuit comes.
    pub(super) link: LinkId,
    pub(super) service: Service,
    pub(super) frame: &'a [u8],
    /// Whether the origin has said all.
    pub(super) fin: bool,
    /// The secret that the circuit shares with its origin.
    pub(super) binding: &'a Binding,
}

/// When a service answers.
enum Answer {
    /// Now, with this frame, and no more.
    Now(Vec<u8>),
    /// Later, by a [`LateAnswer`].
    Later,
}

/// What a service says to a request that waits.
struct LateAnswer {
    request: RequestId,
    frame: Vec<u8>,
    /// Whether that is all.
    fin: bool,
}

impl LateAnswer {
    /// An answer that is all.
    const fn whole(request: RequestId, frame: Vec<u8>) -> Self {
        Self {
            request,
            frame,
            fin: true,
        }
    }
}

/// A service's output for a stream.
pub(super) struct Reply {
    pub(super) circuit: CircuitKey,
    pub(super) stream: StreamId,
    pub(super) frame: Vec<u8>,
    pub(super) fin: bool,
}

impl Services {
    pub(super) fn new(directory: Directory, mailbox: Mailbox) -> Self {
        Self {
            directory,
            mailbox,
            receipts: Receipts::default(),
            asked: BTreeMap::new(),
            replies: VecDeque::new(),
        }
    }

    /// Takes a request.
    ///
    /// # Errors
    /// It is not one that its service takes: the circuit is to be destroyed.
    pub(super) fn handle_request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
    ) -> Result<(), Violation> {
        let id = RequestId::new(request.circuit, request.stream);
        let answer = match request.service {
            Service::Directory => self.directory.handle_request(cx, id, request)?,
            Service::Mailbox => self.mailbox.handle_request(cx, id, request)?,
            Service::Receipts => self.receipts.handle_request(cx, id, request)?,
        };
        let waits_for = match answer {
            Answer::Now(frame) => {
                self.reply(id, frame, true);
                None
            }
            Answer::Later => Some(request.service),
        };
        if waits_for.is_some() || !request.fin {
            let is_finished = request.fin;
            self.asked.insert(
                id,
                Asked {
                    waits_for,
                    is_finished,
                },
            );
        }
        Ok(())
    }

    /// The origin ended or reset a stream. After an end its request is still answered, after a
    /// reset not. Returns whether there was a request.
    pub(super) fn handle_stream_ended(
        &mut self,
        circuit: CircuitKey,
        stream: StreamId,
        is_reset: bool,
    ) -> bool {
        let id = RequestId::new(circuit, stream);
        match self.asked.get_mut(&id) {
            Some(asked) if asked.waits_for.is_some() && !is_reset => asked.is_finished = true,
            Some(_) => self.forget(id),
            None => return false,
        }
        true
    }

    /// The store did what a service asked, or could not.
    pub(super) fn handle_stored(&mut self, cx: &mut Context<'_>, done: StoreDone) {
        match done {
            StoreDone::Mailbox(done) => self.mailbox.handle_stored(cx, done),
            StoreDone::InboxDescriptor { ticket, is_stored } => {
                self.directory.handle_stored(RequestId(ticket), is_stored);
            }
        }
        self.run(cx);
    }

    /// A dial that the receipts service asked for is over.
    pub(super) fn handle_probed(&mut self, cx: &mut Context<'_>, probe: u64, probed: Probed) {
        self.receipts.handle_probed(cx, probe, probed);
        self.run(cx);
    }

    /// Runs what is due, and takes up what the services have to say to those who wait.
    pub(super) fn run(&mut self, cx: &mut Context<'_>) {
        self.mailbox.run(cx);
        while let Some(answer) = self
            .directory
            .poll_answer()
            .or_else(|| self.mailbox.poll_answer())
            .or_else(|| self.receipts.poll_answer())
        {
            self.answer(answer);
        }
    }

    /// Removes inbox descriptors that have expired (§8.4(4)); the mailboxes' records expire by
    /// their own timer.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>) {
        self.directory.expire(cx, EXPIRED_KEPT);
    }

    /// How many inbox descriptors are durable here.
    pub(super) fn inbox_descriptor_count(&self) -> usize {
        self.directory.inbox_descriptor_count()
    }

    /// Nobody waits on this circuit any more.
    pub(super) fn forget_circuit(&mut self, circuit: CircuitKey) {
        let all =
            RequestId::new(circuit, StreamId(0))..=RequestId::new(circuit, StreamId(u16::MAX));
        let gone: Vec<RequestId> = self.asked.range(all).map(|(&id, _)| id).collect();
        for id in gone {
            self.forget(id);
        }
    }

    /// Nobody waits on this stream any more.
    pub(super) fn forget_stream(&mut self, circuit: CircuitKey, stream: StreamId) {
        self.forget(RequestId::new(circuit, stream));
    }

    /// The next answer to send.
    pub(super) fn poll_reply(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    /// When [`Self::run`] is due, and why.
    pub(super) fn poll_timeout(&self) -> (Instant, holder::Timer) {
        self.mailbox.holder().poll_timeout()
    }

    pub(super) const fn holder(&self) -> &Holder {
        self.mailbox.holder()
    }

    pub(super) fn set_holder_limits(&mut self, limits: HolderLimits) {
        self.mailbox.set_limits(limits);
    }

    /// Each request waits on a circuit that is there, and none is kept that nobody cares for.
    pub(super) fn check(&self, is_there: impl Fn(CircuitKey) -> bool) -> Result<(), String> {
        for (&id, asked) in &self.asked {
            let (circuit, stream) = id.place();
            if !is_there(circuit) {
                return Err(format!("{stream:?} waits on {circuit:?}, which is gone"));
            }
            if asked.waits_for.is_none() && asked.is_finished {
                return Err(format!(
                    "{stream:?} of {circuit:?} was answered and is kept"
                ));
            }
        }
        self.holder()
            .invariants()
            .map_err(|broken| format!("mailboxes: {broken:?}"))
    }

    /// A service answers a request that waits. One that was answered in full, or for which nobody
    /// waits any more, takes no answer: the stream is over in this direction.
    fn answer(&mut self, answer: LateAnswer) {
        let LateAnswer {
            request: id,
            frame,
            fin,
        } = answer;
        let waiting = self.asked.get_mut(&id);
        let Some(asked) = waiting.filter(|asked| asked.waits_for.is_some()) else {
            return;
        };
        if fin {
            asked.waits_for = None;
            if asked.is_finished {
                self.asked.remove(&id);
            }
        }
        self.reply(id, frame, fin);
    }

    fn reply(&mut self, id: RequestId, frame: Vec<u8>, fin: bool) {
        let (circuit, stream) = id.place();
        self.replies.push_back(Reply {
            circuit,
            stream,
            frame,
            fin,
        });
    }

    fn forget(&mut self, id: RequestId) {
        match self.asked.remove(&id).and_then(|asked| asked.waits_for) {
            Some(Service::Mailbox) => self.mailbox.cancel(id),
            // The store or the dial finishes its work; nobody is answered.
            Some(Service::Directory | Service::Receipts) | None => {}
        }
    }
}

#[cfg(test)]
mod tests;
