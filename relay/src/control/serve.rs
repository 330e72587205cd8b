//! The services at the end of a circuit: `directory` and `mailbox` (docs/protocol.md §8.4, §9.4,
//! §10).

use std::collections::BTreeMap;

use rand::CryptoRng;
use serde_bytes::ByteBuf;
use umbel_proto::Violation;
use umbel_proto::circuit::terminal::{TerminalCircuit, TerminalEvent};
use umbel_proto::directory::descriptor::Unverified;
use umbel_proto::directory::reconcile;
use umbel_proto::directory::service::{DirectoryRefusal, DirectoryReply, DirectoryRequest};
use umbel_proto::ids::BlindedKey;
use umbel_proto::inbox::descriptor::Outer;
use umbel_proto::inbox::holder::{Holder, HolderLimits, RequestId};
use umbel_proto::inbox::mailbox::MailboxRequest;
use umbel_proto::limits::CLOCK_SKEW_MAX;
use umbel_proto::message::{Service, StreamId};
use umbel_proto::time::{Duration, Epoch, Instant, WallTime};

use super::Control;
use super::circuits::{CircuitKey, State};
use super::io::{StoreDone, StoreOp};

/// What a relay keeps for others, and who waits for an answer.
pub(super) struct Services {
    holder: Holder,
    requests: BTreeMap<RequestId, (CircuitKey, StreamId)>,
    /// Streams on which something was asked, while their origin has not said all or waits for a
    /// mailbox: at most [`STREAMS_MAX`] a circuit.
    ///
    /// [`STREAMS_MAX`]: umbel_proto::limits::STREAMS_MAX
    asked: BTreeMap<(CircuitKey, StreamId), Asked>,
    inboxes: BTreeMap<(Epoch, BlindedKey), StoredInbox>,
    publishing: BTreeMap<u64, Publishing>,
    next_id: u64,
}

/// A stream on which something was asked.
#[derive(Clone, Copy)]
struct Asked {
    /// What a mailbox has still to answer.
    request: Option<RequestId>,
    /// Whether the origin has said all.
    is_finished: bool,
}

/// An inbox descriptor that is durable here.
struct StoredInbox {
    revision: u64,
    descriptor: Vec<u8>,
}

/// An inbox descriptor that is being stored.
struct Publishing {
    circuit: CircuitKey,
    stream: StreamId,
    at: (Epoch, BlindedKey),
    inbox: StoredInbox,
}

impl Services {
    /// Inbox descriptors were checked against the clock when they came; the clock of the start may
    /// be the wrong one.
    pub(super) fn restore(holder: Holder, inbox_descriptors: Vec<Vec<u8>>) -> Self {
        let mut inboxes = BTreeMap::new();
        for descriptor in inbox_descriptors {
            if let Ok(outer) = Outer::verify_stored(&descriptor) {
                let inbox = StoredInbox {
                    revision: outer.revision,
                    descriptor,
                };
                inboxes.insert((outer.epoch, outer.blinded), inbox);
            }
        }
        let (requests, asked) = (BTreeMap::new(), BTreeMap::new());
        Self {
            holder,
            requests,
            asked,
            inboxes,
            publishing: BTreeMap::new(),
            next_id: 1,
        }
    }

    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    pub(super) fn set_holder_limits(&mut self, limits: HolderLimits) {
        self.holder.set_limits(limits);
    }

    pub(super) fn inbox_descriptor_count(&self) -> usize {
        self.inboxes.len()
    }

    /// Nobody waits on this circuit any more.
    pub(super) fn forget_circuit(&mut self, key: CircuitKey) {
        let streams = (key, StreamId(0))..=(key, StreamId(u16::MAX));
        let gone: Vec<StreamId> = self
            .asked
            .range(streams)
            .map(|((_, stream), _)| *stream)
            .collect();
        for stream in gone {
            self.forget_stream(key, stream);
        }
    }

    fn forget_stream(&mut self, key: CircuitKey, stream: StreamId) {
        if let Some(Asked {
            request: Some(id), ..
        }) = self.asked.remove(&(key, stream))
        {
            self.requests.remove(&id);
            self.holder.cancel(id);
        }
    }

    /// A mailbox has said all there is to say to a request.
    fn on_answered(&mut self, id: RequestId, at: (CircuitKey, StreamId)) {
        self.requests.remove(&id);
        if let Some(asked) = self.asked.get_mut(&at) {
            asked.request = None;
            if asked.is_finished {
                self.asked.remove(&at);
            }
        }
    }

    /// Each request waits on a stream that knows it.
    pub(super) fn check(&self) -> Result<(), String> {
        for (id, at) in &self.requests {
            if self.asked.get(at).and_then(|asked| asked.request) != Some(*id) {
                return Err(format!("{id:?} waits on a stream that does not know it"));
            }
        }
        let waiting = self
            .asked
            .values()
            .filter(|asked| asked.request.is_some())
            .count();
        if waiting == self.requests.len() {
            Ok(())
        } else {
            Err(format!("{waiting} streams wait for a mailbox"))
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Forgets inbox descriptors of epochs that are over.
    fn expire_inboxes(&mut self, before: Epoch) -> bool {
        let old = self.inboxes.len();
        while let Some(oldest) = self
            .inboxes
            .first_entry()
            .filter(|oldest| oldest.key().0 < before)
        {
            oldest.remove();
        }
        self.inboxes.len() != old
    }

    /// Forgets inbox descriptors of epochs after this one.
    fn drop_inboxes_after(&mut self, epoch: Epoch) -> bool {
        !self
            .inboxes
            .split_off(&(epoch.next(), BlindedKey([0; BlindedKey::LEN])))
            .is_empty()
    }
}

impl Control {
    /// Forgets inbox descriptors that nobody asks for any more by confirmed time, and that were
    /// kept for so long after. A publisher whose clock is slow may still be in the epoch before
    /// (§9.3).
    pub(super) fn forget_inboxes(&mut self, kept: Duration) {
        let kept = CLOCK_SKEW_MAX + kept;
        let oldest = WallTime(
            self.clock
                .confirmed()
                .as_secs()
                .saturating_sub(kept.as_secs()),
        )
        .epoch();
        if self.services.expire_inboxes(oldest) {
            self.out
                .store
                .push_back(StoreOp::RemoveInboxDescriptorsBefore(oldest));
        }
    }

    /// Forgets inbox descriptors of epochs that none is taken for yet: they came while the clock
    /// was ahead. Nobody asks for them, their owners publish them again, and a table full of them
    /// takes no others until their epochs are over.
    fn forget_future_inboxes(&mut self, wall: WallTime) {
        let latest = (wall + CLOCK_SKEW_MAX).epoch().next();
        if self.clock.is_sure() && self.services.drop_inboxes_after(latest) {
            self.out
                .store
                .push_back(StoreOp::RemoveInboxDescriptorsAfter(latest));
        }
    }

    /// Answers what has been asked on a circuit that ends here.
    pub(super) fn serve_circuit(&mut self, now: Instant, wall: WallTime, key: CircuitKey) {
        while let Some(event) = self.terminal(key).and_then(TerminalCircuit::poll_event) {
            let served = match event {
                TerminalEvent::Request {
                    is_first: false, ..
                } => Err(Violation::Stream),
                TerminalEvent::Request {
                    stream,
                    service,
                    frame,
                    fin,
                    is_first: true,
                } => self.serve_request(now, wall, key, stream, (service, &frame, fin)),
                TerminalEvent::StreamEnded { stream, reset } => {
                    self.on_stream_ended(key, stream, reset);
                    Ok(())
                }
            };
            if let Err(violation) = served
                && let Some((link, circ)) = self.circuits.get_mut(key).map(|circuit| circuit.prev)
            {
                self.on_violation(link, circ, violation);
            }
        }
        self.run_holder(now, wall);
        self.flush_circuit(key);
    }

    fn serve_request(
        &mut self,
        now: Instant,
        wall: WallTime,
        key: CircuitKey,
        stream: StreamId,
        (service, frame, fin): (Service, &[u8], bool),
    ) -> Result<(), Violation> {
        if !fin {
            self.services.asked.insert(
                (key, stream),
                Asked {
                    request: None,
                    is_finished: false,
                },
            );
        }
        match service {
            Service::Directory => self.serve_directory((now, wall), key, stream, frame),
            Service::Mailbox => self.serve_mailbox(now, wall, key, stream, frame),
        }
    }

    /// The origin says nothing more on a stream. What it asked is still answered, unless it wants
    /// no answer.
    fn on_stream_ended(&mut self, key: CircuitKey, stream: StreamId, is_reset: bool) {
        match self.services.asked.get_mut(&(key, stream)) {
            Some(asked) if asked.request.is_some() && !is_reset => asked.is_finished = true,
            Some(_) => self.services.forget_stream(key, stream),
            // It ended before it asked anything.
            None => {
                if let Some(terminal) = self.terminal(key) {
                    terminal.finish(stream);
                }
            }
        }
    }

    fn terminal(&mut self, key: CircuitKey) -> Option<&mut TerminalCircuit> {
        match self.circuits.get_mut(key).map(|circuit| &mut circuit.state) {
            Some(State::Terminal(terminal)) => Some(terminal),
            _ => None,
        }
    }

    fn serve_directory(
        &mut self,
        (now, wall): (Instant, WallTime),
        key: CircuitKey,
        stream: StreamId,
        frame: &[u8],
    ) -> Result<(), Violation> {
        let reply = match DirectoryRequest::decode(frame)? {
            DirectoryRequest::Sync(request) => {
                DirectoryReply::Sync(reconcile::answer(self.view(), &request))
            }
            DirectoryRequest::Push(descriptors) => {
                let pushed = descriptors
                    .iter()
                    .filter_map(|bytes| Unverified::decode(bytes).ok());
                let accepted = pushed
                    .map(|it| self.learn(now, wall, it))
                    .filter(|&is_news| is_news)
                    .count();
                DirectoryReply::Pushed {
                    accepted: u32::try_from(accepted).unwrap_or(u32::MAX),
                }
            }
            DirectoryRequest::PublishInbox(descriptor) => {
                match self.publish_inbox(wall, key, stream, descriptor) {
                    Some(reply) => reply,
                    None => return Ok(()),
                }
            }
            DirectoryRequest::LookupInbox { blinded, epoch } => {
                let found = self.services.inboxes.get(&(epoch, blinded));
                DirectoryReply::Inbox(found.map(|inbox| ByteBuf::from(inbox.descriptor.clone())))
            }
        };
        self.reply(key, stream, &reply.encode(), true);
        Ok(())
    }

    /// Takes an inbox descriptor in. Answers at once what needs no store, else once it is durable.
    fn publish_inbox(
        &mut self,
        wall: WallTime,
        circuit: CircuitKey,
        stream: StreamId,
        descriptor: ByteBuf,
    ) -> Option<DirectoryReply> {
        let Ok(outer) = Outer::verify(&descriptor, wall) else {
            return Some(DirectoryReply::Refused(DirectoryRefusal::Invalid));
        };
        let at = (outer.epoch, outer.blinded);
        let is_full =
            |services: &Services, most| services.inboxes.len() + services.publishing.len() >= most;
        if is_full(&self.services, self.config.inbox_descriptors_max)
            && !self.services.inboxes.contains_key(&at)
        {
            self.forget_inboxes(Duration::ZERO);
            if is_full(&self.services, self.config.inbox_descriptors_max) {
                self.forget_future_inboxes(wall);
            }
        }
        match self.services.inboxes.get(&at) {
            Some(known) if known.descriptor == descriptor.as_slice() => {
                return Some(DirectoryReply::Published);
            }
            Some(known) if known.revision >= outer.revision => {
                return Some(DirectoryReply::Refused(DirectoryRefusal::Stale));
            }
            // Of two that are stored at once the later would stay on the disk, whichever is the
            // newer.
            _ if self
                .services
                .publishing
                .values()
                .any(|publishing| publishing.at == at) =>
            {
                return Some(DirectoryReply::Refused(DirectoryRefusal::Busy));
            }
            None if is_full(&self.services, self.config.inbox_descriptors_max) => {
                return Some(DirectoryReply::Refused(DirectoryRefusal::Full));
            }
            _ => {}
        }
        let ticket = self.services.new_id();
        let descriptor = descriptor.into_vec();
        self.out.store.push_back(StoreOp::PutInboxDescriptor {
            ticket,
            blinded: outer.blinded,
            epoch: outer.epoch,
            descriptor: descriptor.clone(),
        });
        let inbox = StoredInbox {
            revision: outer.revision,
            descriptor,
        };
        self.services.publishing.insert(
            ticket,
            Publishing {
                circuit,
                stream,
                at,
                inbox,
            },
        );
        None
    }

    fn serve_mailbox(
        &mut self,
        now: Instant,
        wall: WallTime,
        key: CircuitKey,
        stream: StreamId,
        frame: &[u8],
    ) -> Result<(), Violation> {
        let request = MailboxRequest::decode(frame)?;
        let Some(binding) = self
            .terminal(key)
            .map(|terminal| terminal.binding().clone())
        else {
            return Ok(());
        };
        let id = RequestId(self.services.new_id());
        self.services.requests.insert(id, (key, stream));
        // It is there already unless the request was the last that the origin says.
        let asked = self.services.asked.entry((key, stream)).or_insert(Asked {
            request: None,
            is_finished: true,
        });
        asked.request = Some(id);
        self.services
            .holder
            .handle_request(now, wall, id, &binding, request);
        Ok(())
    }

    /// Hands on what the mailboxes want stored, and what they answer.
    pub(super) fn run_holder(&mut self, now: Instant, wall: WallTime) {
        self.services
            .holder
            .handle_timeout(now, wall, self.clock.confirmed());
        while let Some(op) = self.services.holder.poll_op() {
            self.out.store.push_back(StoreOp::Mailbox(op));
        }
        while let Some(answer) = self.services.holder.poll_reply() {
            if let Some(&(key, stream)) = self.services.requests.get(&answer.request) {
                if answer.fin {
                    self.services.on_answered(answer.request, (key, stream));
                }
                self.reply(key, stream, &answer.reply.encode(), answer.fin);
            }
        }
    }

    pub(super) fn on_stored(
        &mut self,
        now: Instant,
        wall: WallTime,
        done: StoreDone,
        rng: &mut dyn CryptoRng,
    ) {
        match done {
            StoreDone::Mailbox(done) => {
                self.services.holder.handle_stored(now, done, rng);
                self.run_holder(now, wall);
            }
            StoreDone::InboxDescriptor { ticket, is_stored } => {
                self.on_inbox_stored(ticket, is_stored);
            }
        }
    }

    fn on_inbox_stored(&mut self, ticket: u64, is_stored: bool) {
        let Some(Publishing {
            circuit,
            stream,
            at,
            inbox,
        }) = self.services.publishing.remove(&ticket)
        else {
            return;
        };
        let reply = if is_stored {
            DirectoryReply::Published
        } else {
            DirectoryReply::Refused(DirectoryRefusal::Store)
        };
        if is_stored {
            self.services.inboxes.insert(at, inbox);
        }
        self.reply(circuit, stream, &reply.encode(), true);
    }

    /// Says something on a stream. A stream whose reader leaves too much unread is reset.
    fn reply(&mut self, key: CircuitKey, stream: StreamId, frame: &[u8], fin: bool) {
        let Some(terminal) = self.terminal(key) else {
            return;
        };
        if terminal.reply(stream, frame, fin).is_err() {
            terminal.reset(stream);
            self.services.forget_stream(key, stream);
        }
        self.flush_circuit(key);
    }
}
