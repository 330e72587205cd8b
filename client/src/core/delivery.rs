//! One message and its mailboxes: a copy is sealed for each and deposited on a circuit of its own,
//! at times that reveal nothing of one another (docs/protocol.md §10.5).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use umbel_proto::chance::{exponential, shuffle};
use umbel_proto::crypto::puzzle;
use umbel_proto::ids::{MessageId, QueueId, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::descriptor::Mailbox;
use umbel_proto::inbox::mailbox::{MailboxReply, Refusal, Verb};
use umbel_proto::inbox::record::{LETTER_LEN_MAX, MESSAGE_LEN_MAX, record_id};
use umbel_proto::limits::{MAILBOXES_MAX, WAIT_CUT};
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Epoch, Instant, WallTime};
use umbel_proto::wire;
use zeroize::{Zeroize, Zeroizing};

use super::circuit::Isolation;
use super::context::Context;
use super::io::{ContactKey, Copies, DeferReason, Recipient, is_held_by_enough};
use super::outbox::route::{Copy, Route, RouteMark, Sealed};
use super::requests::{Answer, AskFault, Asker, Question, Requests};

/// Format of the stored state. The store brings older ones to it.
const STATE_VERSION: u8 = 5;
/// Most mailboxes of one message, those that left the descriptor after they took it included.
const TARGETS_MAX: usize = 3 * MAILBOXES_MAX;
/// Tries at a puzzle before others get their turn; each takes about a millisecond.
const NONCES_A_TURN: u32 = 32;
/// A clock that moved by no more beside the monotonic one was not set meanwhile.
const SAME_CLOCK_WITHIN: Duration = Duration::from_secs(60);
/// The wait between two turns at a puzzle.
const PUZZLE_PAUSE: Duration = Duration::from_millis(1);

/// One message, where it goes and how far that is.
#[derive(Serialize, Deserialize)]
pub(super) struct Delivery {
    version: u8,
    to: Destination,
    body: ByteBuf,
    targets: Vec<Target>,
    enough: Enough,
    times: Times,
    /// Why the last attempt failed, unless enough holders took it since.
    obstacle: Option<DeferReason>,
    /// The message as its conversation sealed it, if it is of one, for as long as that may be used.
    #[serde(skip)]
    pub(super) sealed: Option<Sealed>,
    /// How many mailboxes the route used last has; `None` before one was found since this
    /// client was started.
    #[serde(skip)]
    named_count: Option<usize>,
    /// Where it goes in this attempt.
    #[serde(skip)]
    route: Option<Route>,
    /// Whether a holder may have it: one was asked, or, after a restart, one may have been.
    #[serde(skip)]
    is_asked: bool,
}

/// To whom a message goes, as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Destination {
    /// The owner of an inbox, who can't answer.
    OneWay(InboxAddress),
    /// The owner of an inbox, with whom there is a conversation once this message has its turn.
    Owner {
        address: InboxAddress,
        writer: Option<String>,
    },
    /// A contact.
    Contact { contact: ContactKey, saying: Saying },
}

/// What a message of a conversation is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Saying {
    /// The user wrote it.
    Text,
    /// The program says where it reads from now on: numbered and kept as a text is.
    Queues,
    /// The program says what arrived. Never stored: it is said anew.
    Acknowledgement,
    /// The program asks for a new session. Never stored: it is asked anew.
    Renewal,
}

impl Destination {
    /// The longest body that can go there.
    pub(super) const fn body_len_max(&self) -> usize {
        match self {
            Self::OneWay(_) => MESSAGE_LEN_MAX,
            Self::Owner { .. } | Self::Contact { .. } => LETTER_LEN_MAX,
        }
    }
}

impl From<Recipient> for Destination {
    fn from(to: Recipient) -> Self {
        match to {
            Recipient::OneWay(address) => Self::OneWay(address),
            Recipient::Owner { address, writer } => Self::Owner { address, writer },
            Recipient::Contact(contact) => {
                let saying = Saying::Text;
                Self::Contact { contact, saying }
            }
        }
    }
}

impl From<&Destination> for Recipient {
    fn from(to: &Destination) -> Self {
        match to.clone() {
            Destination::OneWay(address) => Self::OneWay(address),
            Destination::Owner { address, writer } => Self::Owner { address, writer },
            Destination::Contact { contact, .. } => Self::Contact(contact),
        }
    }
}

impl Saying {
    /// Whether the message has a number, and is kept until it is acknowledged.
    pub(super) const fn is_numbered(self) -> bool {
        matches!(self, Self::Text | Self::Queues)
    }
}

/// When a message was made, how long it is tried, and when its next deposit is due: kept, since
/// the process that sent it may have ended by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredTimes", into = "StoredTimes")]
struct Times {
    created_at: WallTime,
    expires_at: WallTime,
    /// The next holder is asked no earlier, once one has the message.
    next_deposit_at: Option<WallTime>,
    /// The clock that it was made by is wrong: it counts as made once the clock is known to be right.
    is_misdated: bool,
}

/// Times as they are stored: of a message that is misdated, as if it were made at 0.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct StoredTimes {
    created_at: WallTime,
    expires_at: WallTime,
    next_deposit_at: Option<WallTime>,
}

impl From<Times> for StoredTimes {
    fn from(times: Times) -> Self {
        let mut stored = times;
        if times.is_misdated {
            stored.redate(WallTime(0));
        }
        Self {
            created_at: stored.created_at,
            expires_at: stored.expires_at,
            next_deposit_at: stored.next_deposit_at,
        }
    }
}

impl From<StoredTimes> for Times {
    fn from(stored: StoredTimes) -> Self {
        Self {
            created_at: stored.created_at,
            expires_at: stored.expires_at,
            next_deposit_at: stored.next_deposit_at,
            is_misdated: stored.created_at == WallTime(0),
        }
    }
}

/// Whether as many holders have a message as are wanted: kept, since many a client runs for a
/// moment at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Enough {
    No,
    Since(WallTime),
    /// The last attempt at the others has begun.
    LastAttempt,
    /// It waits for its reader.
    Kept,
}

/// A mailbox's copy of the message.
#[derive(Serialize, Deserialize)]
enum MailboxCopy {
    /// Its holder has it.
    Held,
    /// Its holder may have been asked to take this record, or one that was sealed for an earlier route.
    Sealed { mark: RouteMark, record: ByteBuf },
    /// None was made, so its holder was never asked.
    Unsealed,
}

/// One mailbox of the message.
#[derive(Serialize, Deserialize)]
struct Target {
    relay: RelayId,
    queue: QueueId,
    sender_seed: [u8; 32],
    effort: u32,
    copy: MailboxCopy,
    /// Whether the route used last has it.
    is_named: bool,
    #[serde(skip)]
    state: State,
    /// It was asked to take the message and has not answered, in this attempt or one before.
    #[serde(skip)]
    is_awaited: bool,
    #[serde(skip)]
    puzzle: Option<Puzzle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Not tried in this attempt, and to be tried at no set time.
    #[default]
    Idle,
    Due(Instant),
    Asked,
    Failed(DeferReason),
}

/// The puzzle of one deposit, as far as it was tried; good in the epoch it was begun in, and the
/// next.
#[derive(Clone, Copy)]
struct Puzzle {
    epoch: Epoch,
    next: u64,
    solution: Option<u64>,
}

/// Which attempt begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// One that others may follow.
    Usual,
    /// The last, which is to be stored.
    Last,
    /// One after the last: none.
    OneTooMany,
}

/// How far an attempt is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Mailboxes are still being tried.
    UnderWay,
    /// Every mailbox holds it.
    Complete,
    /// As many as wanted hold it; attempts at the others failed.
    Enough,
    /// Too few hold it.
    Failed(DeferReason),
}

impl Delivery {
    pub(super) fn new(
        to: Destination,
        body: Vec<u8>,
        created_at: WallTime,
        life: Duration,
    ) -> Self {
        Self {
            version: STATE_VERSION,
            to,
            body: body.into(),
            targets: Vec::new(),
            enough: Enough::No,
            times: Times {
                created_at,
                expires_at: created_at + life,
                next_deposit_at: None,
                is_misdated: false,
            },
            obstacle: None,
            sealed: None,
            named_count: None,
            route: None,
            is_asked: false,
        }
    }

    /// Takes a stored state.
    pub(super) fn restore(state: &[u8], wall: WallTime) -> Option<Self> {
        let mut delivery: Self = wire::decode(state)
            .ok()
            .filter(|delivery: &Self| delivery.version == STATE_VERSION)?;
        if delivery.times.is_misdated {
            delivery.times.redate(wall);
        }
        // Nothing says which of the sealed copies were asked for before.
        delivery.is_asked = delivery.targets.iter().any(Target::may_be_asked);
        Some(delivery)
    }

    /// How long the body is in a stored state, of which the beginning is enough.
    pub(super) fn stored_body_len(state: &[u8]) -> Option<usize> {
        let ((_version, _to, len), _) =
            postcard::take_from_bytes::<(u8, Destination, usize)>(state).ok()?;
        Some(len)
    }

    pub(super) fn state(&self) -> Zeroizing<Vec<u8>> {
        wire::encode_secret(self)
    }

    /// To whom it goes.
    pub(super) const fn to(&self) -> &Destination {
        &self.to
    }

    /// The conversation that it is of is known now.
    pub(super) fn become_letter(&mut self, contact: ContactKey) {
        let saying = Saying::Text;
        self.to = Destination::Contact { contact, saying };
    }

    /// The contact that it goes to, and what it is there for.
    pub(super) const fn letter(&self) -> Option<(ContactKey, Saying)> {
        match self.to {
            Destination::Contact { contact, saying } => Some((contact, saying)),
            Destination::OneWay(_) | Destination::Owner { .. } => None,
        }
    }

    /// Whether it stays until its reader acknowledges it.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.letter()
            .is_some_and(|(_, saying)| saying.is_numbered())
    }

    /// Whether the program says it, and its user hears nothing of it.
    pub(super) fn is_quiet(&self) -> bool {
        self.letter()
            .is_some_and(|(_, saying)| saying != Saying::Text)
    }

    /// Whether it is ever stored.
    pub(super) fn is_stored(&self) -> bool {
        self.letter().is_none_or(|(_, saying)| saying.is_numbered())
    }

    /// Enough have it, and it waits for its reader.
    pub(super) const fn keep(&mut self) {
        self.enough = Enough::Kept;
    }

    /// Whether it waits for its reader.
    pub(super) const fn is_kept(&self) -> bool {
        matches!(self.enough, Enough::Kept)
    }

    /// Whether each of these mailboxes has it.
    pub(super) fn is_held_at(&self, mailboxes: &[Mailbox]) -> bool {
        let held = self.targets.iter().filter(|target| target.is_held());
        let held: Vec<QueueId> = held.map(|target| target.queue).collect();
        mailboxes.iter().all(|it| held.contains(&it.queue))
    }

    /// Its reader lacks it: no copy that was made before counts any more.
    pub(super) fn begin_anew(&mut self) {
        self.end_attempt();
        self.sealed = None;
        self.targets.clear();
        self.enough = Enough::No;
        self.times.next_deposit_at = None;
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(super) fn body_len(&self) -> usize {
        self.body.len()
    }

    /// When it was made, and until when it is tried.
    pub(super) const fn life(&self) -> (WallTime, WallTime) {
        (self.times.created_at, self.times.expires_at)
    }

    /// Why the last attempt failed.
    pub(super) const fn obstacle(&self) -> Option<DeferReason> {
        self.obstacle
    }

    /// Notes why an attempt failed; says whether that is news.
    pub(super) fn set_obstacle(&mut self, obstacle: Option<DeferReason>) -> bool {
        core::mem::replace(&mut self.obstacle, obstacle) != obstacle
    }

    /// How long the next holder is not asked yet, because another was asked a moment ago. At most
    /// what can be drawn, since the clock may have been ahead.
    pub(super) fn spacing(&self, wall: WallTime, params: &Params) -> Duration {
        let next_at = self.times.next_deposit_at.filter(|_| self.held_count() > 0);
        next_at
            .map_or(Duration::ZERO, |at| at.since(wall))
            .min(longest_spacing(params))
    }

    /// If the next deposit was put off by a clock that was ahead, it is due as late as can be drawn
    /// now, and stays there: else each look at the clock would put it off again. Whether it was.
    pub(super) fn mend_spacing(&mut self, wall: WallTime, params: &Params) -> bool {
        let latest = wall + longest_spacing(params);
        let is_off = self.times.next_deposit_at.is_some_and(|at| at > latest);
        if is_off {
            self.times.next_deposit_at = Some(latest);
        }
        is_off
    }

    /// The clock is wrong. If it was made that long ago by this clock, which has not been set since, it
    /// is misdated: a clock that is set right later must not end its life. Whether that is news.
    pub(super) fn doubt_date(&mut self, age: Duration, wall: WallTime) -> bool {
        let off = (self.times.created_at + age)
            .as_secs()
            .abs_diff(wall.as_secs());
        let is_news = !self.times.is_misdated && off <= SAME_CLOCK_WITHIN.as_secs();
        self.times.is_misdated |= is_news;
        is_news
    }

    /// The clock is known to be right: if it is misdated, it was made now. So was one from the future:
    /// the clock was ahead. Whether it was so.
    pub(super) fn settle_date(&mut self, wall: WallTime) -> bool {
        let is_marked = core::mem::take(&mut self.times.is_misdated);
        let is_misdated = is_marked || self.times.created_at > wall;
        if is_misdated {
            self.times.redate(wall);
        }
        is_misdated
    }

    /// How many holders have it.
    pub(super) fn held_count(&self) -> usize {
        self.targets
            .iter()
            .filter(|target| target.is_held())
            .count()
    }

    /// How many holders should have it: those that it is not sealed for count too.
    pub(super) fn wanted(&self, params: &Params) -> usize {
        let wanted = params.holders_wanted;
        self.named_count.map_or(wanted, |named| wanted.min(named))
    }

    /// Whether it needs no outbox any more.
    pub(super) fn is_held_enough(&self, params: &Params) -> bool {
        is_held_by_enough(self.held_count(), self.wanted(params))
    }

    /// Whether enough holders had it when that was last looked at.
    pub(super) const fn has_enough(&self) -> bool {
        !matches!(self.enough, Enough::No)
    }

    /// Looks whether enough holders have it; says whether something is different now.
    pub(super) fn look_whether_enough(&mut self, cx: &Context<'_>) -> bool {
        let before = self.enough;
        self.enough = match before {
            _ if !self.is_held_enough(&cx.network.params) => Enough::No,
            Enough::No => Enough::Since(cx.wall),
            // The clock may have been ahead.
            Enough::Since(since) => Enough::Since(since.min(cx.wall)),
            Enough::LastAttempt | Enough::Kept => before,
        };
        self.enough != before
    }

    /// Whether enough holders have had it for `retry_max`, so that the next attempt at the
    /// remaining mailboxes is the last.
    pub(super) fn is_at_its_end(&self, cx: &Context<'_>) -> bool {
        match self.enough {
            Enough::No => false,
            Enough::Since(since) => cx.wall.since(since) >= cx.network.params.retry_max,
            Enough::LastAttempt => true,
            Enough::Kept => false,
        }
    }

    /// An attempt is to begin; says which it is.
    pub(super) fn begin_attempt(&mut self, cx: &Context<'_>) -> Attempt {
        if self.enough == Enough::LastAttempt && self.is_held_enough(&cx.network.params) {
            Attempt::OneTooMany
        } else if self.is_at_its_end(cx) {
            self.enough = Enough::LastAttempt;
            Attempt::Last
        } else {
            Attempt::Usual
        }
    }

    /// Takes the mailboxes of this route for targets, and begins an attempt at them. Mailboxes
    /// that are gone and did not take the message are dropped. The first is due now, or when it was
    /// to be once another has the message; each other is due a random while after the one before
    /// (§10.5(2)). A copy that was sealed for another route is made anew (§10.5(3)).
    pub(super) fn aim(&mut self, cx: &mut Context<'_>, route: Route) {
        self.mend_spacing(cx.wall, &cx.network.params);
        let spacing = self.spacing(cx.wall, &cx.network.params);
        for target in &mut self.targets {
            target.is_named = route
                .mailboxes
                .iter()
                .any(|mailbox| mailbox.queue == target.queue);
        }
        self.named_count = Some(route.mailboxes.len());
        self.targets
            .retain(|target| target.is_named || target.is_held());
        let room = TARGETS_MAX.saturating_sub(self.targets.len());
        let is_known = |mailbox: &&Mailbox| {
            self.targets
                .iter()
                .any(|target| target.queue == mailbox.queue)
        };
        let mut names = BTreeSet::new();
        let new = route
            .mailboxes
            .iter()
            .filter(|mailbox| !is_known(mailbox) && names.insert(mailbox.queue))
            .take(room);
        let mut new: Vec<(Mailbox, Instant)> =
            new.map(|mailbox| (mailbox.clone(), cx.now)).collect();
        let mut due: Vec<&mut Instant> = new.iter_mut().map(|(_, due)| due).collect();
        for target in self.targets.iter_mut().filter(|target| !target.is_held()) {
            target.state = State::Due(cx.now);
            if let State::Due(at) = &mut target.state {
                due.push(at);
            }
        }
        shuffle(&mut due, cx.rng);
        let mut at = cx.now + spacing;
        for due in due {
            *due = at;
            at = at + exponential(cx.network.params.second_deposit_delay, cx.rng);
        }
        // Equal moments stay in random order.
        shuffle(&mut new, cx.rng);
        new.sort_by_key(|&(_, at)| core::cmp::Reverse(at));
        let new = new.into_iter().rev();
        self.targets
            .extend(new.map(|(mailbox, due_at)| Target::new(&mailbox, route.effort, due_at)));
        self.route = Some(route);
    }

    /// Whether some mailboxes of the route are still to be sealed for.
    pub(super) fn is_sealing(&self) -> bool {
        self.route
            .as_ref()
            .is_some_and(|route| self.targets.iter().any(|target| target.lacks(route.mark)))
    }

    /// Seals for one mailbox more, and asks those that are due, if it may leave this client.
    pub(super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        id: MessageId,
        may_leave: bool,
    ) -> Progress {
        self.seal_next(cx, id);
        let whom = self.whom();
        let mark = self.route.as_ref().map(|route| route.mark);
        let mut is_any_asked = false;
        for target in &mut self.targets {
            let is_due = may_leave && matches!(target.state, State::Due(at) if at <= cx.now);
            if is_due && mark.is_some_and(|mark| !target.lacks(mark)) {
                target.ask(cx, requests, id, whom);
                is_any_asked |= target.state == State::Asked;
            }
        }
        if is_any_asked {
            self.is_asked = true;
            self.note_next_deposit(cx);
        }
        if self.is_sealing() {
            Progress::UnderWay
        } else {
            self.progress(&cx.network.params)
        }
    }

    /// Keeps what is done for one recipient on circuits of its own.
    fn whom(&self) -> [u8; 32] {
        match &self.to {
            Destination::OneWay(address) | Destination::Owner { address, .. } => *address.key(),
            Destination::Contact { contact, .. } => {
                let mut whom = [0; 32];
                whom[..contact.0.len()].copy_from_slice(&contact.0);
                whom
            }
        }
    }

    /// Takes a mailbox's answer; says whether one more holder has the message.
    pub(super) fn on_answer(&mut self, cx: &Context<'_>, queue: QueueId, answer: &Answer) -> bool {
        let asked = |target: &&mut Target| target.queue == queue && target.may_be_asked();
        let Some(target) = self.targets.iter_mut().find(asked) else {
            return false;
        };
        target.is_awaited = false;
        let reason = match answer {
            Answer::Mailbox(MailboxReply::Deposited) => {
                let is_news = !target.is_held();
                target.copy = MailboxCopy::Held;
                target.sender_seed.zeroize();
                target.state = State::Idle;
                return is_news;
            }
            Answer::Mailbox(MailboxReply::Refused(Refusal::Full)) => DeferReason::QueueFull,
            Answer::Mailbox(MailboxReply::Refused(Refusal::Puzzle)) => {
                target.puzzle = None;
                DeferReason::Holders
            }
            Answer::Failed(AskFault::NoCircuit) => DeferReason::NoCircuit,
            Answer::Failed(AskFault::Broken { circuits, guards }) => DeferReason::Broken {
                circuits: *circuits,
                guards: *guards,
            },
            Answer::Mailbox(_) | Answer::Directory(_) | Answer::Failed(_) => DeferReason::Holders,
        };
        let was_tried = target.state == State::Asked;
        target.state = State::Failed(reason);
        if was_tried {
            self.hasten(cx);
        }
        false
    }

    /// A deposit failed: the mailbox that was to be next takes its moment, unless an answer is
    /// still to come.
    fn hasten(&mut self, cx: &Context<'_>) {
        let Some(next_at) = self.next_due().filter(|&at| at > cx.now) else {
            return;
        };
        if self
            .targets
            .iter()
            .any(|target| target.state == State::Asked)
        {
            return;
        }
        let sooner = |at: Instant| cx.now + at.since(next_at);
        for target in &mut self.targets {
            if let State::Due(at) = target.state {
                target.state = State::Due(sooner(at));
            }
        }
        self.note_next_deposit(cx);
    }

    fn note_next_deposit(&mut self, cx: &Context<'_>) {
        self.times.next_deposit_at = self.next_due().map(|at| cx.wall + at.since(cx.now));
    }

    /// When the next mailbox is due that was not asked in this attempt.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = self.targets.iter().filter_map(|target| match target.state {
            State::Due(at) if !target.is_held() => Some(at),
            State::Due(_) | State::Idle | State::Asked | State::Failed(_) => None,
        });
        due.min()
    }

    /// Until when it rests between two deposits: nothing is asked of anybody, and somebody has it.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        let is_asking = self
            .targets
            .iter()
            .any(|target| target.state == State::Asked || target.is_solving());
        let has_moment = self.held_count() > 0 && !is_asking && !self.is_sealing();
        self.next_due().filter(|&at| has_moment && at > now)
    }

    /// The attempt is over; late answers are still taken.
    pub(super) fn end_attempt(&mut self) {
        for target in &mut self.targets {
            target.state = State::Idle;
        }
        self.route = None;
    }

    /// Whether a holder may have it: one was asked, or, after a restart, one may have been.
    pub(super) const fn may_be_out(&self) -> bool {
        self.is_asked
    }

    pub(super) fn copies(&self) -> Copies {
        match self.held_count() {
            0 if self.is_asked => Copies::InDoubt,
            0 => Copies::None,
            holders => Copies::Held(holders),
        }
    }

    /// Whether an answer is still to come.
    pub(super) fn is_awaited(&self) -> bool {
        self.targets.iter().any(|target| target.is_awaited)
    }

    pub(super) fn timeout(&self, after: Instant) -> Option<Instant> {
        if self.is_sealing() {
            return Some(after);
        }
        let due = self.targets.iter().filter_map(Target::due_at);
        due.filter(|&at| at > after).min()
    }

    /// Seals one copy more, that which is due first: so the first deposit is on its way before the
    /// others are made. It is not stored before the store is asked to: a sender that dies first
    /// makes another record of the same message (§10.5(3)).
    fn seal_next(&mut self, cx: &mut Context<'_>, id: MessageId) {
        let Some(route) = &self.route else { return };
        let lacking = self
            .targets
            .iter_mut()
            .filter(|target| target.lacks(route.mark));
        let Some(target) = lacking.min_by_key(|target| target.due_at()) else {
            return;
        };
        let copy = Copy {
            network: &cx.network.id,
            relay: &target.relay,
            queue: &target.queue,
            sender_seed: &target.sender_seed,
        };
        match route.seal(&copy, id, &self.body, cx.rng) {
            Some(record) => target.take_record(route, record),
            // Its length was looked at when it was sent.
            None => target.state = State::Idle,
        }
    }

    fn progress(&self, params: &Params) -> Progress {
        let open = |target: &Target| {
            !target.is_held() && matches!(target.state, State::Due(_) | State::Asked)
        };
        if self.targets.iter().any(open) {
            return Progress::UnderWay;
        }
        if self.held_count() > 0 && self.targets.iter().all(Target::is_held) {
            // Where too few mailboxes are left to hold it, those that were dropped no longer count.
            return Progress::Complete;
        }
        if self.is_held_enough(params) {
            return Progress::Enough;
        }
        Progress::Failed(self.worst())
    }

    /// The reason to give for a failed attempt.
    fn worst(&self) -> DeferReason {
        let reasons = || {
            self.targets.iter().filter_map(|target| match target.state {
                State::Failed(reason) => Some(reason),
                State::Idle | State::Due(_) | State::Asked => None,
            })
        };
        if reasons().any(|reason| reason == DeferReason::QueueFull) {
            DeferReason::QueueFull
        } else if reasons().all(|reason| reason == DeferReason::NoCircuit) {
            DeferReason::NoCircuit
        } else if let Some(broken) =
            reasons().find(|reason| matches!(reason, DeferReason::Broken { .. }))
            && !reasons().any(|reason| reason == DeferReason::Holders)
        {
            broken
        } else {
            DeferReason::Holders
        }
    }
}

/// The longest time between two deposits of one message that can be drawn.
fn longest_spacing(params: &Params) -> Duration {
    params.second_deposit_delay.saturating_mul(WAIT_CUT)
}

impl Times {
    /// As if it were made then.
    fn redate(&mut self, created_at: WallTime) {
        self.expires_at = created_at + self.expires_at.since(self.created_at);
        self.created_at = created_at;
    }
}

#[cfg(test)]
impl Delivery {
    /// Whether this mailbox was asked and has not answered.
    pub(super) fn is_asked_of(&self, queue: QueueId) -> bool {
        self.targets
            .iter()
            .any(|target| target.queue == queue && target.is_awaited)
    }

    /// The record that is made for this mailbox.
    pub(super) fn record_for(&self, queue: QueueId) -> Option<&[u8]> {
        let target = self.targets.iter().find(|target| target.queue == queue)?;
        match &target.copy {
            MailboxCopy::Sealed { record, .. } => Some(record),
            MailboxCopy::Held | MailboxCopy::Unsealed => None,
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.body.zeroize();
        for target in &mut self.targets {
            target.sender_seed.zeroize();
        }
    }
}

impl Target {
    const fn new(mailbox: &Mailbox, effort: u32, due_at: Instant) -> Self {
        Self {
            relay: mailbox.relay,
            queue: mailbox.queue,
            sender_seed: mailbox.sender_seed,
            effort,
            copy: MailboxCopy::Unsealed,
            is_named: true,
            state: State::Due(due_at),
            is_awaited: false,
            puzzle: None,
        }
    }

    const fn is_held(&self) -> bool {
        matches!(self.copy, MailboxCopy::Held)
    }

    /// Whether its holder may have been asked to take some record.
    const fn may_be_asked(&self) -> bool {
        !matches!(self.copy, MailboxCopy::Unsealed)
    }

    /// Whether a record for this route is still to be made, for a deposit in this attempt.
    fn lacks(&self, wanted: RouteMark) -> bool {
        let is_lacking = match &self.copy {
            MailboxCopy::Unsealed => true,
            MailboxCopy::Sealed { mark, .. } => *mark != wanted,
            MailboxCopy::Held => false,
        };
        is_lacking && self.due_at().is_some()
    }

    const fn due_at(&self) -> Option<Instant> {
        match self.state {
            State::Due(at) => Some(at),
            State::Idle | State::Asked | State::Failed(_) => None,
        }
    }

    /// Its copy, in place of an earlier one.
    fn take_record(&mut self, route: &Route, record: Vec<u8>) {
        self.copy = MailboxCopy::Sealed {
            mark: route.mark,
            record: record.into(),
        };
        self.effort = route.effort;
        self.puzzle = None; // it is of one record
    }

    /// Whether its puzzle is begun and not solved: the deposit's moment has come.
    fn is_solving(&self) -> bool {
        matches!(self.state, State::Due(_))
            && self.puzzle.is_some_and(|puzzle| puzzle.solution.is_none())
    }

    /// Asks for the deposit, once its puzzle is solved.
    fn ask(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        message: MessageId,
        whom: [u8; 32],
    ) {
        let MailboxCopy::Sealed { record, .. } = &self.copy else {
            return;
        };
        let record = record.clone();
        let Some(puzzle) = self.solve(cx, &record) else {
            self.state = State::Due(cx.now + PUZZLE_PAUSE);
            return;
        };
        let queue = self.queue;
        let verb = Verb::Deposit {
            queue,
            record,
            puzzle,
        };
        let question = Question::Mailbox {
            verb,
            seed: Zeroizing::new(self.sender_seed),
        };
        let isolation = Isolation::Deposit { whom, queue };
        requests.ask(
            cx,
            Asker::Deposit { message, queue },
            isolation,
            self.relay,
            question,
        );
        self.state = State::Asked;
        self.is_awaited = true;
    }

    /// Goes on with the puzzle for one turn.
    fn solve(&mut self, cx: &Context<'_>, record: &[u8]) -> Option<u64> {
        if self.effort == 0 {
            return Some(0);
        }
        let epoch = cx.wall.epoch();
        let fresh = Puzzle {
            epoch,
            next: 0,
            solution: None,
        };
        let puzzle = self.puzzle.get_or_insert(fresh);
        if puzzle.epoch != epoch {
            *puzzle = fresh;
        }
        if puzzle.solution.is_none() {
            let challenge = puzzle::deposit_challenge(&self.queue, &record_id(record), epoch);
            puzzle.solution =
                puzzle::try_nonces(&challenge, self.effort, puzzle.next, NONCES_A_TURN);
            puzzle.next = puzzle.next.wrapping_add(u64::from(NONCES_A_TURN));
        }
        puzzle.solution
    }
}
