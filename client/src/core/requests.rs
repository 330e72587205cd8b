//! Requests to relays: a question, a circuit to carry it, one typed answer or a fault in bounded
//! time.
//!
//! Every request may be repeated without harm. One that is lost with its circuit is repeated on the
//! next, for as many circuits as an attempt may use. The asker decides what to do about a fault.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::cell::DestroyReason;
use umbel_proto::circuit::{Answers, Request};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::service::{DirectoryReply, DirectoryRequest};
use umbel_proto::ids::{MessageId, QueueId, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::mailbox::{MailboxContext, MailboxReply, Verb};
use umbel_proto::message::Service;
use umbel_proto::network::Params;
use umbel_proto::path::hop_target;
use umbel_proto::time::{Duration, Epoch, Instant};
use zeroize::Zeroizing;

use super::circuit::{CircuitKey, Isolation};
use super::context::Context;
use super::inboxes::InboxId;
use super::mailbox::{ErrandId, MailboxId};
use super::pool::{Acquired, Loss, Pool, PoolEvent};

/// Names a request; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AskId(u64);

/// The asker and its subject; returned with the answer.
#[derive(Clone, Copy)]
pub(super) enum Asker {
    /// One reconciliation of views.
    Sync(u64),
    CreateMailbox {
        mailbox: MailboxId,
        is_awaited: bool,
    },
    Publish {
        inbox: InboxId,
        epoch: Epoch,
        relay: RelayId,
        revision: u64,
        is_awaited: bool,
    },
    Lookup {
        address: InboxAddress,
        epoch: Epoch,
    },
    Deposit {
        message: MessageId,
        queue: QueueId,
    },
    Fetch(MailboxId),
    Subscribe(MailboxId),
    Errand(ErrandId),
}

/// In which order requests that wait get circuits; those of one rank as they were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Somebody waits until an inbox takes mail: a few circuits.
    First,
    Usual,
    /// An inbox's descriptor goes to a dozen relays, at a time that nobody waits for as a rule; or a
    /// relay drawn at random is asked for its view.
    Late,
}

impl Asker {
    const fn rank(&self) -> Rank {
        match self {
            Self::CreateMailbox {
                is_awaited: true, ..
            }
            | Self::Publish {
                is_awaited: true, ..
            } => Rank::First,
            Self::Publish { .. } | Self::Errand(_) => Rank::Late,
            _ => Rank::Usual,
        }
    }

    /// Whether answers keep coming until the stream ends.
    const fn is_lasting(&self) -> bool {
        matches!(self, Self::Subscribe(_))
    }
}

/// The request.
pub(super) enum Question {
    Directory(DirectoryRequest),
    /// Signed with this key once it is known on which circuit it goes.
    Mailbox {
        verb: Verb,
        seed: Zeroizing<[u8; 32]>,
    },
}

impl Question {
    /// The answer that a frame is; `None` if it is none, or one to something else.
    fn read_answer(&self, frame: &[u8]) -> Option<Answer> {
        match self {
            Self::Directory(request) => {
                let reply = DirectoryReply::decode(frame).ok()?;
                reply.answers(request).then_some(Answer::Directory(reply))
            }
            Self::Mailbox { verb, .. } => {
                let reply = MailboxReply::decode(frame).ok()?;
                reply.answers(verb).then_some(Answer::Mailbox(reply))
            }
        }
    }
}

/// The outcome.
pub(super) enum Answer {
    Directory(DirectoryReply),
    Mailbox(MailboxReply),
    Failed(AskFault),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AskFault {
    /// No circuit could be built.
    NoCircuit,
    /// The relay asked can't be reached, or no source lists it.
    Terminal,
    /// It was reached, and said nothing in time, or something that is no answer, or breaks circuits
    /// while others don't.
    Silent,
    /// Circuits break before an answer comes, so the relay may never have been asked. How many
    /// broke in a row, and over how many guards.
    Broken { circuits: u32, guards: u32 },
    /// It had been asked, or had answered, and then the link was lost.
    Lost,
    /// It had answered, and then its circuit was lost: by its doing, or by that of any relay on the
    /// way.
    Dropped,
}

impl AskFault {
    /// Whether the fault is ours, or the path's, as far as can be told: the relay asked may never
    /// have heard of it.
    pub(super) const fn is_on_the_way(self) -> bool {
        match self {
            Self::NoCircuit | Self::Broken { .. } | Self::Lost | Self::Dropped => true,
            Self::Terminal | Self::Silent => false,
        }
    }
}

struct Ask {
    asker: Asker,
    isolation: Isolation,
    terminal: RelayId,
    question: Question,
    state: State,
    /// Circuits that failed under it.
    lost_count: usize,
    /// The last reason for that.
    fault: AskFault,
    /// When it is given up if there is not even a guard to build circuits through.
    cut_off_at: Instant,
    /// When it must have been sent.
    send_by: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Building(CircuitKey),
    /// The circuit knows when the first answer is late.
    Sent {
        circuit: CircuitKey,
        /// Of a subscription: there was an answer, and more may come.
        is_answered: bool,
    },
}

/// All requests that are not answered.
#[derive(Default)]
pub(super) struct Requests {
    asks: BTreeMap<AskId, Ask>,
    /// Those that are not sent, in the order in which they get circuits.
    unsent: BTreeSet<(Rank, AskId)>,
    last_id: u64,
    /// A relay was asked for that the view does not have.
    met_unknown: bool,
    /// Circuits of subscriptions that are over by our wish, to be closed.
    unwanted: Vec<CircuitKey>,
}

impl Requests {
    /// Asks; answered through [`Requests::drive`]. How many are asked at once is bounded by each
    /// asker.
    pub(super) fn ask(
        &mut self,
        cx: &Context<'_>,
        asker: Asker,
        isolation: Isolation,
        terminal: RelayId,
        question: Question,
    ) -> AskId {
        self.last_id += 1;
        let id = AskId(self.last_id);
        let params = &cx.network.params;
        let send_by = cx.now + build_time(params);
        let cut_off_at = cx.now + params.build_timeout;
        let (state, fault) = (State::Waiting, AskFault::NoCircuit);
        let ask = Ask {
            asker,
            isolation,
            terminal,
            question,
            state,
            lost_count: 0,
            fault,
            cut_off_at,
            send_by,
        };
        self.unsent.insert((ask.rank(), id));
        self.asks.insert(id, ask);
        id
    }

    /// Moves every request on that is not sent, as far as it goes; returns what was answered. Those that
    /// are sent wait for an event, or for their circuit's time to run out.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, pool: &mut Pool) -> Vec<(Asker, Answer)> {
        let mut answers = Vec::new();
        for circuit in self.unwanted.drain(..) {
            pool.close(cx, circuit, DestroyReason::Finished);
        }
        while let Some(event) = pool.poll_event() {
            self.on_event(cx, pool, event, &mut answers);
        }
        if !cx.is_ready {
            self.hold(cx);
        }
        self.end_overdue(cx, pool, &mut answers);
        let ids: Vec<(Rank, AskId)> = self.unsent.iter().copied().collect();
        let mut is_full = false;
        for (_, id) in ids {
            cx.count_look();
            let waits = self.asks.get(&id).is_some_and(Ask::waits_in_line);
            if is_full && waits {
                self.queue(cx, id);
                continue;
            }
            match self.advance(cx, pool, id) {
                Ok(Step::Done) => {}
                Ok(Step::Full) => {
                    is_full |= waits;
                    self.queue(cx, id);
                }
                Err(fault) => self.fail(id, fault, &mut answers),
            }
        }
        answers
    }

    /// Without a view no circuit can be built, and no relay is at fault: these requests wait for
    /// the view.
    fn hold(&mut self, cx: &Context<'_>) {
        let params = &cx.network.params;
        for (_, id) in &self.unsent {
            let ask = self.asks.get_mut(id);
            let Some(ask) = ask.filter(|ask| ask.is_held(cx)) else {
                continue;
            };
            ask.send_by = cx.now + build_time(params);
            ask.cut_off_at = cx.now + params.build_timeout;
        }
    }

    /// When a request that is not sent is overdue.
    pub(super) fn timeout(&self, after: Instant) -> Option<Instant> {
        let due = self.unsent().filter_map(|(_, ask)| ask.due_at());
        let waiting = self.unsent().filter(|(_, ask)| ask.state == State::Waiting);
        let cut_off = waiting.map(|(_, ask)| ask.cut_off_at);
        due.chain(cut_off).filter(|&at| at > after).min()
    }

    fn unsent(&self) -> impl Iterator<Item = (AskId, &Ask)> {
        let unsent = self.unsent.iter();
        unsent.filter_map(|&(_, id)| Some((id, self.asks.get(&id)?)))
    }

    /// Requests were withdrawn.
    fn forget_withdrawn(&mut self) {
        let asks = &self.asks;
        self.unsent.retain(|(_, id)| asks.contains_key(id));
    }

    /// Whether a relay was asked for, since this was last looked at, that the view does not have.
    pub(super) fn take_met_unknown(&mut self) -> bool {
        core::mem::take(&mut self.met_unknown)
    }

    /// Forgets deposits of a message that are not in flight yet.
    pub(super) fn withdraw_deposits(&mut self, message: MessageId) {
        self.asks.retain(|_, ask| {
            let is_its =
                matches!(ask.asker, Asker::Deposit { message: other, .. } if other == message);
            !is_its || matches!(ask.state, State::Sent { .. })
        });
        self.forget_withdrawn();
    }

    /// Ends the subscription to this mailbox, and its circuit if the holder was asked: nothing else
    /// is on it.
    pub(super) fn withdraw_subscription(&mut self, mailbox: MailboxId) {
        let is_its = |asker: &Asker| matches!(asker, Asker::Subscribe(its) if *its == mailbox);
        let unwanted = &mut self.unwanted;
        self.asks.retain(|_, ask| {
            if !is_its(&ask.asker) {
                return true;
            }
            if let State::Sent { circuit, .. } = ask.state {
                unwanted.push(circuit);
            }
            false
        });
        self.forget_withdrawn();
    }

    /// The machine slept: requests that fell due meanwhile get some time again.
    pub(super) fn handle_wake(&mut self, cx: &Context<'_>) {
        let params = &cx.network.params;
        let due_at = cx.now + params.build_timeout;
        for ask in self.asks.values_mut() {
            ask.send_by = ask.send_by.max(due_at);
            ask.cut_off_at = ask.cut_off_at.max(due_at);
        }
    }

    /// Nothing is asked of this relay any more about its view.
    pub(super) fn forget_sync(&mut self, relay: RelayId) {
        self.asks
            .retain(|_, ask| !ask.isolation.is_direct() || ask.terminal != relay);
        self.forget_withdrawn();
    }

    /// Every request is sent, on some circuit.
    #[cfg(test)]
    pub(super) fn send_all(&mut self) {
        for ask in self.asks.values_mut() {
            ask.state = State::Sent {
                circuit: CircuitKey(0),
                is_answered: false,
            };
        }
        self.unsent.clear();
    }

    pub(super) fn clear(&mut self) {
        self.asks.clear();
        self.unsent.clear();
    }

    fn on_event(
        &mut self,
        cx: &mut Context<'_>,
        pool: &mut Pool,
        event: PoolEvent,
        answers: &mut Vec<(Asker, Answer)>,
    ) {
        match event {
            PoolEvent::Frame {
                circuit,
                ask,
                frame,
            } => self.on_frame(cx, pool, (circuit, ask), &frame, answers),
            PoolEvent::Ended { ask } => self.fail(ask, AskFault::Silent, answers),
            PoolEvent::Lost { circuit, loss } => self.on_lost(cx, pool, circuit, loss, answers),
        }
    }

    fn on_frame(
        &mut self,
        cx: &mut Context<'_>,
        pool: &mut Pool,
        (circuit, id): (CircuitKey, AskId),
        frame: &[u8],
        answers: &mut Vec<(Asker, Answer)>,
    ) {
        // A second answer where one is all there is (docs/protocol.md §7.2(7)).
        let Some(ask) = self.asks.get_mut(&id) else {
            return pool.break_off(cx, circuit);
        };
        let State::Sent { circuit: key, .. } = ask.state else {
            return;
        };
        match ask.question.read_answer(frame) {
            // Its layer's tag proves who said it: another circuit would bring the same.
            None => {
                self.fail(id, AskFault::Silent, answers);
                pool.break_off(cx, key);
            }
            Some(answer) if ask.asker.is_lasting() => {
                ask.state = State::Sent {
                    circuit: key,
                    is_answered: true,
                };
                answers.push((ask.asker, answer));
            }
            Some(answer) => {
                if let Some(ask) = self.remove(id) {
                    answers.push((ask.asker, answer));
                }
            }
        }
    }

    /// A circuit is gone: its requests move to the next one, unless too many were used up.
    fn on_lost(
        &mut self,
        cx: &Context<'_>,
        pool: &Pool,
        circuit: CircuitKey,
        loss: Loss,
        answers: &mut Vec<(Asker, Answer)>,
    ) {
        let ids: Vec<AskId> = self
            .asks
            .iter()
            .filter(|(_, ask)| ask.circuit() == Some(circuit))
            .map(|(&id, _)| id)
            .collect();
        for id in ids {
            let Some(ask) = self.asks.get_mut(&id) else {
                continue;
            };
            self.unsent.insert((ask.rank(), id));
            if ask.is_held(cx) {
                ask.state = State::Waiting;
                continue;
            }
            let was_answered = matches!(
                ask.state,
                State::Sent {
                    is_answered: true,
                    ..
                }
            );
            if loss != Loss::Busy {
                ask.lost_count += 1;
                ask.fault = fault_of(loss, ask, pool);
            }
            ask.state = State::Waiting;
            ask.send_by = ask.send_by.max(cx.now + cx.network.params.build_timeout);
            ask.cut_off_at = ask.cut_off_at.max(cx.now + cx.network.params.build_timeout);
            if was_answered {
                let fault = if loss == Loss::Link {
                    AskFault::Lost
                } else {
                    AskFault::Dropped
                };
                self.fail(id, fault, answers);
            } else if ask.lost_count >= cx.network.params.circuits_per_attempt {
                let fault = ask.fault;
                self.fail(id, fault, answers);
            }
        }
    }

    fn end_overdue(
        &mut self,
        cx: &mut Context<'_>,
        pool: &mut Pool,
        answers: &mut Vec<(Asker, Answer)>,
    ) {
        let is_cut_off = pool.guard_in_use().is_none();
        let unsent = self.unsent();
        let unsent = unsent.filter(|(_, ask)| ask.is_overdue(cx.now, is_cut_off));
        let mut overdue: Vec<_> = unsent.map(|(id, _)| (id, None)).collect();
        let late = pool.take_late(cx.now).into_iter();
        overdue.extend(late.map(|(id, circuit)| (id, Some(circuit))));
        overdue.sort_unstable();
        for (id, late_on) in overdue {
            // The circuit is closed even if its asker is gone: its last hop fell silent.
            if let Some(circuit) = late_on {
                pool.on_unanswered(cx, circuit);
            }
            let Some(ask) = self.asks.get(&id) else {
                continue;
            };
            let is_late = late_on.is_some();
            if is_late && ask.is_held(cx) {
                continue;
            }
            let fault = if is_late { AskFault::Silent } else { ask.fault };
            self.fail(id, fault, answers);
        }
    }

    /// Finds a circuit for a waiting request, and sends one whose circuit is built.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        pool: &mut Pool,
        id: AskId,
    ) -> Result<Step, AskFault> {
        let Some(ask) = self.asks.get_mut(&id) else {
            return Ok(Step::Done);
        };
        if ask.state == State::Waiting {
            if ask.is_held(cx) {
                return Ok(Step::Done);
            }
            let acquired = if ask.isolation.is_direct() {
                pool.acquire_direct(cx, ask.terminal)
            } else {
                let Some(target) = hop_target(cx.view(), ask.terminal) else {
                    self.met_unknown = true;
                    // It may have descriptors that are younger than the view (§8.3(9a)).
                    return if cx.is_view_current {
                        Err(AskFault::Terminal)
                    } else {
                        Ok(Step::Done)
                    };
                };
                pool.acquire(cx, &ask.isolation, &target, ask.asker.is_lasting())
            };
            match acquired {
                Acquired::Circuit(key) => ask.state = State::Building(key),
                Acquired::Wait => return Ok(Step::Done),
                Acquired::Busy => return Ok(Step::Full),
                Acquired::Braked => return ask.on_braked(pool),
            }
        }
        let State::Building(key) = ask.state else {
            return Ok(Step::Done);
        };
        let Some(request) = ask.request(cx, pool, key) else {
            return Ok(Step::Done);
        };
        if pool.send(cx, key, id, request) {
            ask.state = State::Sent {
                circuit: key,
                is_answered: false,
            };
            self.unsent.remove(&(ask.rank(), id));
        }
        Ok(Step::Done)
    }

    /// It waits for others to have had their circuits: that takes nothing of its own time.
    fn queue(&mut self, cx: &Context<'_>, id: AskId) {
        if let Some(ask) = self.asks.get_mut(&id) {
            let at = cx.now + cx.network.params.build_timeout;
            (ask.send_by, ask.cut_off_at) = (ask.send_by.max(at), ask.cut_off_at.max(at));
        }
    }

    fn remove(&mut self, id: AskId) -> Option<Ask> {
        let ask = self.asks.remove(&id)?;
        self.unsent.remove(&(ask.rank(), id));
        Some(ask)
    }

    fn fail(&mut self, id: AskId, fault: AskFault, answers: &mut Vec<(Asker, Answer)>) {
        if let Some(ask) = self.remove(id) {
            tracing::debug!(?fault, "a request failed");
            answers.push((ask.asker, Answer::Failed(fault)));
        }
    }
}

/// How long a request may take until it is sent.
fn build_time(params: &Params) -> Duration {
    let attempts = u32::try_from(params.circuits_per_attempt).unwrap_or(u32::MAX);
    params.build_timeout.saturating_mul(attempts)
}

/// How far a request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// As far as it could.
    Done,
    /// There is no room for another circuit.
    Full,
}

/// The effect of a lost circuit on its requests.
fn fault_of(loss: Loss, ask: &Ask, pool: &Pool) -> AskFault {
    let (circuits, guards) = pool.broken();
    match (ask.state, loss) {
        (_, Loss::Broken) if pool.breaks_alone(ask.terminal) => AskFault::Silent,
        (_, Loss::Broken) if circuits > 0 => AskFault::Broken { circuits, guards },
        (State::Building(_), Loss::Terminal) => AskFault::Terminal,
        (State::Building(_) | State::Waiting, _) => AskFault::NoCircuit,
        (State::Sent { .. }, Loss::Link) => AskFault::Lost,
        (State::Sent { .. }, _) => AskFault::Silent,
    }
}

impl Ask {
    /// Whether it waits until there is a view.
    fn is_held(&self, cx: &Context<'_>) -> bool {
        !cx.is_ready && !self.isolation.is_direct()
    }

    /// Nobody waits for a view over a circuit.
    const fn rank(&self) -> Rank {
        match self.isolation {
            Isolation::View { .. } => Rank::Late,
            _ => self.asker.rank(),
        }
    }

    /// Whether it waits for a circuit of several hops.
    fn waits_in_line(&self) -> bool {
        self.state == State::Waiting && !self.isolation.is_direct()
    }

    /// Circuits break one after the other. One that lost some gives up for now; the others wait a
    /// little.
    fn on_braked(&mut self, pool: &Pool) -> Result<Step, AskFault> {
        let (circuits, guards) = pool.broken();
        self.fault = AskFault::Broken { circuits, guards };
        if self.lost_count > 0 {
            Err(self.fault)
        } else {
            Ok(Step::Done)
        }
    }

    const fn circuit(&self) -> Option<CircuitKey> {
        match self.state {
            State::Waiting => None,
            State::Building(circuit) | State::Sent { circuit, .. } => Some(circuit),
        }
    }

    const fn service(&self) -> Service {
        match self.question {
            Question::Directory(_) => Service::Directory,
            Question::Mailbox { .. } => Service::Mailbox,
        }
    }

    /// When it is overdue, as long as it is not sent.
    const fn due_at(&self) -> Option<Instant> {
        match self.state {
            State::Waiting | State::Building(_) => Some(self.send_by),
            State::Sent { .. } => None,
        }
    }

    fn is_overdue(&self, now: Instant, is_cut_off: bool) -> bool {
        let is_hopeless = is_cut_off && self.state == State::Waiting && self.cut_off_at <= now;
        is_hopeless || self.due_at().is_some_and(|due_at| due_at <= now)
    }

    /// The request for this circuit, once it is built.
    fn request(&self, cx: &Context<'_>, pool: &Pool, key: CircuitKey) -> Option<Request> {
        if !pool.has_room(key) {
            return None;
        }
        let frame = self.frame(cx, pool, key)?;
        let answers = if self.asker.is_lasting() {
            Answers::Many
        } else {
            Answers::One
        };
        Some(Request {
            service: self.service(),
            frame,
            answers,
        })
    }

    fn frame(&self, cx: &Context<'_>, pool: &Pool, key: CircuitKey) -> Option<Vec<u8>> {
        match &self.question {
            Question::Directory(request) => Some(request.encode()),
            Question::Mailbox { verb, seed } => {
                let binding = pool.binding(key)?;
                let context = MailboxContext {
                    network: &cx.network.id,
                    holder: &self.terminal,
                    binding,
                };
                Some(
                    verb.clone()
                        .signed(&SigningKey::from_seed(seed), &context)
                        .encode(),
                )
            }
        }
    }
}
