//! One side of a conversation, over all its sessions: numbers, what arrived, what is asked for again,
//! and sessions begun anew (docs/protocol.md §11.2, §11.6, §11.8).
//!
//! Knows no queue, and keeps no text: the caller has what its messages say until they are
//! acknowledged. Each change of the state is to be stored before anything that follows from it leaves:
//! a message before it goes to a holder, what was read before its record is removed.

use std::collections::BTreeMap;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::contents::{Contents, ContentsFault, Item, Number};
use super::envelope::ENVELOPE_ROOMS;
use super::nonces::Nonce;
use super::numbering::{Acknowledgement, Arrival, Arrived, NumberRange};
use super::opening::{Begun, Introduction, OpeningFault, RecoveryKey, SessionId};
use super::recovery::NONCE_LEN;
use super::session::{OpenFault, SealFault, Session};
use crate::crypto::dh::{DhPublic, DhSecret};
use crate::ids::{MessageId, NetworkId};
use crate::inbox::address::{InboxAddress, InboxIdentity};
use crate::inbox::record::{Opening, opening_rooms};
use crate::limits::{NONCES_KEPT, NUMBERS_AHEAD_MAX, SESSIONS_KNOWN_MAX, SKIPPED_LIFE};
use crate::time::WallTime;
use crate::wire::{self, Malformed, Reader};

/// Format of the stored state.
const VERSION: u8 = 1;

/// One side of a conversation. Neither `Clone` nor `Debug`; wiped on drop.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Thread {
    version: u8,
    role: Role,
    recovery: RecoveryKey,
    now: Talk,
    /// The session before this one, and since when: what was on its way is still read.
    before: Option<Before>,
    /// Messages up to here may be of sessions that are not kept.
    #[zeroize(skip)]
    forgotten: WallTime,
    /// The nonces of requests for a new session that came, the newest last: each counts once.
    #[zeroize(skip)]
    requests: Vec<[u8; NONCE_LEN]>,
    /// Sessions that were, the newest last: an old opening that comes again begins none.
    #[zeroize(skip)]
    known: Vec<SessionId>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
enum Role {
    Initiator {
        pseudonym: [u8; 32],
        /// Whose inbox was written to, and the own one as whose owner that was done.
        #[zeroize(skip)]
        reader: [u8; 32],
        #[zeroize(skip)]
        writer: Option<[u8; 32]>,
        /// Goes with each message until one is answered.
        introduction: Option<Introduction>,
    },
    Responder {
        /// Who writes, by the first opening: a renewal says the same.
        pseudonym: [u8; 32],
        #[zeroize(skip)]
        writer: Option<[u8; 32]>,
    },
}

/// One session, and the numbers in it.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Talk {
    session: Session,
    #[zeroize(skip)]
    arrived: Arrived,
    last_number: u64,
    /// Own messages that are not acknowledged.
    #[zeroize(skip)]
    open: BTreeMap<u64, MessageId>,
}

/// A session that was left.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Before {
    talk: Talk,
    #[zeroize(skip)]
    left_at: WallTime,
}

/// A message to write, without numbers and acknowledgements.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "holds a message")]
pub struct Draft {
    /// Names it.
    pub id: MessageId,
    /// When its author wrote it.
    pub written_at: WallTime,
    /// Its parts, in order.
    pub items: Vec<Item>,
}

/// A sealed message, and where it goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Into the peer's inbox: [`Thread::introduction`] goes with it (§11.2).
    Opening(Vec<u8>),
    /// To the queues that the peer made for this conversation, in envelopes (§11.5).
    Envelope(Vec<u8>),
}

/// The result of reading a message.
#[derive(Debug)]
pub struct Read {
    /// Its contents; `None` if they were read before.
    pub contents: Option<Contents>,
    /// Own messages that arrived.
    pub acknowledged: Vec<MessageId>,
    /// Own messages that the peer misses: to be sent again.
    pub asked: Vec<MessageId>,
    /// Messages of the peer's that will never come.
    pub lost: Vec<NumberRange>,
}

/// Why a message is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFault {
    /// It is a copy of one that was read.
    Copy,
    /// The peer, whose message this is, asks for a new session: [`Thread::renew`].
    Renewal,
    /// An opening of another conversation, or by one who claims to be somebody else than before.
    Stranger,
    /// It was on its way for too long, or read long ago: its keys are gone. If it was not read, its
    /// number will be asked for again.
    Late,
    /// No session opens it: one side has lost its state, or went back to an earlier one (§11.6).
    Lost(OpenFault),
    /// Its contents break the format, or are of a newer program.
    Contents(ContentsFault),
}

/// Why a message is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFault {
    /// The session does not seal it.
    Seal(SealFault),
    /// Too many messages before it are not acknowledged: it waits.
    TooManyOpen,
}

impl Talk {
    fn new(session: Session) -> Self {
        Self {
            session,
            arrived: Arrived::default(),
            last_number: 0,
            open: BTreeMap::new(),
        }
    }

    /// The session that an opening begins, with what is written in it.
    fn accept(
        network: &NetworkId,
        reader: &InboxIdentity,
        opening: &Opening,
        now: WallTime,
    ) -> Result<(Self, RecoveryKey, Read), ReadFault> {
        let begun = opening.introduction.accept(network, reader, now);
        let Begun { session, recovery } = begun.map_err(|_| ReadFault::Lost(OpenFault::Damaged))?;
        let mut talk = Self::new(session);
        let opened = talk.session.open(&opening.message, now);
        let read = talk.take(&opened.map_err(ReadFault::Lost)?)?;
        Ok((talk, recovery, read))
    }

    /// The first message that the peer may still get.
    fn floor(&self) -> u64 {
        let first = self.open.first_key_value();
        first.map_or(self.last_number + 1, |(&number, _)| number)
    }

    fn note_acknowledged(&mut self, acknowledgement: &Acknowledgement) -> Vec<MessageId> {
        let covered = self
            .open
            .extract_if(.., |&number, _| acknowledgement.covers(number));
        covered.map(|(_, id)| id).collect()
    }

    fn asked(&self, acknowledgement: &Acknowledgement) -> Vec<MessageId> {
        let open = self.open.iter();
        let asked = open.filter(|&(&number, _)| acknowledgement.asks_for(number));
        asked.map(|(_, &id)| id).collect()
    }

    /// Takes what a message of this session says.
    fn take(&mut self, opened: &[u8]) -> Result<Read, ReadFault> {
        let contents = Contents::decode(opened).map_err(ReadFault::Contents)?;
        let acknowledged = self.note_acknowledged(&contents.acknowledgement);
        let asked = self.asked(&contents.acknowledgement);
        let (arrival, lost) = match contents.number {
            None => (Arrival::New, Vec::new()),
            Some(Number { number, floor }) => {
                let lost = self.arrived.give_up_before(floor);
                (self.arrived.take(number), lost)
            }
        };
        Ok(Read {
            contents: (arrival == Arrival::New).then_some(contents),
            acknowledged,
            asked,
            lost,
        })
    }
}

impl Thread {
    /// A conversation with the owner of an inbox, which this side begins.
    ///
    /// # Errors
    /// See [`Introduction::begin`].
    pub fn begin(
        network: &NetworkId,
        reader: &InboxAddress,
        writer: Option<&InboxIdentity>,
        now: WallTime,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, OpeningFault> {
        let pseudonym = DhSecret::generate(rng); // §11.1(2)
        let begun = Introduction::begin(network, reader, &pseudonym, writer, now, rng);
        let (introduction, Begun { session, recovery }) = begun?;
        Ok(Self {
            version: VERSION,
            known: vec![introduction.session_id()],
            role: Role::Initiator {
                pseudonym: *pseudonym.to_bytes(),
                reader: *reader.key(),
                writer: writer.map(|it| *it.address().key()),
                introduction: Some(introduction),
            },
            recovery,
            now: Talk::new(session),
            before: None,
            forgotten: WallTime(0),
            requests: Vec::new(),
        })
    }

    /// A conversation that a stranger began, with what was written first. Nothing is believed of an
    /// opening whose message does not open.
    ///
    /// # Errors
    /// The opening makes no session, or its message is not of it.
    pub fn accept(
        network: &NetworkId,
        reader: &InboxIdentity,
        opening: &Opening,
        now: WallTime,
    ) -> Result<(Self, Read), ReadFault> {
        let (now_on, recovery, read) = Talk::accept(network, reader, opening, now)?;
        let thread = Self {
            version: VERSION,
            role: Role::Responder {
                pseudonym: opening.introduction.pseudonym.0,
                writer: opening.introduction.writer_key(),
            },
            recovery,
            now: now_on,
            before: None,
            forgotten: WallTime(0),
            requests: Vec::new(),
            known: vec![opening.introduction.session_id()],
        };
        Ok((thread, read))
    }

    /// The state, to be stored.
    pub fn state(&self) -> Zeroizing<Vec<u8>> {
        wire::encode_secret(self)
    }

    /// Takes a stored state.
    ///
    /// # Errors
    /// Another format, or damage.
    pub fn restore(state: &[u8]) -> Result<Self, Malformed> {
        let thread: Self = wire::decode(state)?;
        if thread.version == VERSION {
            Ok(thread)
        } else {
            Err(Malformed::Value)
        }
    }

    /// Whether this side began the conversation.
    pub const fn is_initiator(&self) -> bool {
        matches!(self.role, Role::Initiator { .. })
    }

    /// Goes with each opening (§11.2(6)); `None` once the peer has answered.
    pub const fn introduction(&self) -> Option<&Introduction> {
        match &self.role {
            Role::Initiator { introduction, .. } => introduction.as_ref(),
            Role::Responder { .. } => None,
        }
    }

    /// Messages of the peer's that others came after, in order.
    pub fn missing(&self) -> impl Iterator<Item = NumberRange> {
        self.now.arrived.missing()
    }

    /// Own messages that are not acknowledged, in order.
    pub fn unacknowledged(&self) -> impl Iterator<Item = MessageId> {
        self.now.open.values().copied()
    }

    /// Seals a message; one that was sealed before keeps its number in this session.
    ///
    /// # Errors
    /// See [`WriteFault`]. Nothing changes then.
    pub fn write(
        &mut self,
        draft: &Draft,
        now: WallTime,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Outgoing, WriteFault> {
        let numbered = self.now.open.iter().find(|(_, id)| **id == draft.id);
        let number = numbered.map_or(self.now.last_number + 1, |(&number, _)| number);
        let floor = self.now.floor().min(number);
        if number - floor >= NUMBERS_AHEAD_MAX {
            return Err(WriteFault::TooManyOpen);
        }
        let sealed = self.seal(draft, Some(Number { number, floor }), now, rng)?;
        self.now.last_number = self.now.last_number.max(number);
        self.now.open.insert(number, draft.id);
        Ok(sealed)
    }

    /// Seals what nobody misses if it is lost: what arrived, and what else a program has to say.
    ///
    /// # Errors
    /// See [`WriteFault`].
    pub fn acknowledge(
        &mut self,
        draft: &Draft,
        now: WallTime,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Outgoing, WriteFault> {
        self.seal(draft, None, now, rng)
    }

    fn seal(
        &mut self,
        draft: &Draft,
        number: Option<Number>,
        now: WallTime,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Outgoing, WriteFault> {
        let acknowledgement = self.now.arrived.acknowledgement();
        let items = draft.items.clone();
        let contents = Contents::new(number, draft.id, draft.written_at, acknowledgement, items);
        let contents = wire::encode_secret(&contents);
        let rooms = self.introduction().map_or(ENVELOPE_ROOMS, opening_rooms);
        let sealed = self.now.session.seal(&contents, &rooms, now, rng);
        let message = sealed.map_err(WriteFault::Seal)?.message;
        Ok(if self.introduction().is_some() {
            Outgoing::Opening(message)
        } else {
            Outgoing::Envelope(message)
        })
    }

    /// Gives an own message up: it will not be sent again.
    pub fn give_up(&mut self, id: MessageId) {
        self.now.open.retain(|_, open| *open != id);
    }

    /// Reads a message of the peer's.
    ///
    /// # Errors
    /// See [`ReadFault`]. Nothing changes then, but that a message whose contents are not good was
    /// opened, and that a request for a new session counts once.
    pub fn read(&mut self, message: &[u8], now: WallTime) -> Result<Read, ReadFault> {
        let fault = match self.now.session.open(message, now) {
            Ok(opened) => {
                if let Role::Initiator { introduction, .. } = &mut self.role {
                    *introduction = None; // the peer has the session
                }
                return self.now.take(&opened);
            }
            Err(OpenFault::Repeated { is_copy: true }) => return Err(ReadFault::Copy),
            Err(OpenFault::Epoch) => return Err(ReadFault::Late),
            Err(fault) => fault,
        };
        if let Some(Before { talk, .. }) = &mut self.before {
            match talk.session.open(message, now) {
                Ok(opened) => {
                    let mut read = talk.take(&opened)?;
                    // Where it was written again, that is what is to arrive.
                    let open = &self.now.open;
                    read.acknowledged
                        .retain(|id| open.values().all(|it| it != id));
                    return Ok(read);
                }
                Err(OpenFault::Repeated { is_copy: true }) => return Err(ReadFault::Copy),
                Err(_) => {}
            }
        }
        Err(self.unread(message, fault, now))
    }

    /// Why a message is not read that no session opens.
    fn unread(&mut self, message: &[u8], fault: OpenFault, now: WallTime) -> ReadFault {
        if self.recovery.is_request(message) {
            return self.note_request(message);
        }
        let old = self.forgotten().max(now.before(SKIPPED_LIFE));
        match Nonce::decode(&mut Reader::new(message)) {
            Ok(nonce) if nonce.drawn_at() <= old => ReadFault::Late,
            _ => ReadFault::Lost(fault),
        }
    }

    /// §11.6(2): a holder that gives a request out again has nobody begin anew.
    fn note_request(&mut self, request: &[u8]) -> ReadFault {
        let Some(nonce) = request.first_chunk::<NONCE_LEN>() else {
            return ReadFault::Copy;
        };
        if !self.is_initiator() || self.requests.contains(nonce) {
            return ReadFault::Copy; // or the responder's own
        }
        self.requests.push(*nonce);
        let excess = self.requests.len().saturating_sub(NONCES_KEPT);
        self.requests.drain(..excess);
        ReadFault::Renewal
    }

    /// Up to here a message that nothing opens may have been read (§11.3(6)), or is of a session that
    /// was left.
    fn forgotten(&self) -> WallTime {
        let now = &self.now.session.opened;
        let before = self.before.as_ref();
        let before = before.map(|it| it.talk.session.opened.forgotten());
        let others = [now.first(), Some(now.forgotten()), before];
        others
            .into_iter()
            .flatten()
            .fold(self.forgotten, WallTime::max)
    }

    /// A message that asks the initiator for a new session.
    pub fn request_renewal(&self, rng: &mut (impl CryptoRng + ?Sized)) -> Vec<u8> {
        self.recovery.request(rng)
    }

    /// Begins a new session of a conversation that this side began, under the same pseudonym and with
    /// the same parties. Returns the messages that were not acknowledged, in order: they are to be
    /// written again.
    ///
    /// # Errors
    /// See [`Introduction::begin`], and [`OpeningFault::Party`].
    pub fn renew(
        &mut self,
        network: &NetworkId,
        reader: &InboxAddress,
        writer: Option<&InboxIdentity>,
        now: WallTime,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Vec<MessageId>, OpeningFault> {
        let Role::Initiator {
            pseudonym,
            reader: with,
            writer: by,
            introduction,
        } = &mut self.role
        else {
            return Ok(Vec::new());
        };
        if with != reader.key() || *by != writer.map(|it| *it.address().key()) {
            return Err(OpeningFault::Party); // who reads it would refuse it: §11.2(7)
        }
        let secret = DhSecret::from_bytes(pseudonym);
        let begun = Introduction::begin(network, reader, &secret, writer, now, rng);
        let (new, Begun { session, .. }) = begun?;
        let id = new.session_id();
        *introduction = Some(new);
        Ok(self.turn_to(Talk::new(session), id, now))
    }

    /// An opening came from this conversation's initiator: it belongs to a session that is known, or
    /// begins a new one. Returns also the own messages that are to be written again.
    ///
    /// # Errors
    /// See [`ReadFault`].
    pub fn read_opening(
        &mut self,
        network: &NetworkId,
        reader: &InboxIdentity,
        opening: &Opening,
        now: WallTime,
    ) -> Result<(Read, Vec<MessageId>), ReadFault> {
        if !self.is_of(&opening.introduction) {
            return Err(ReadFault::Stranger);
        }
        let id = opening.introduction.session_id();
        if self.known.contains(&id) {
            return Ok((self.read(&opening.message, now)?, Vec::new()));
        }
        let accepted = Talk::accept(network, reader, opening, now);
        let (talk, _, read) = accepted.map_err(|fault| match fault {
            ReadFault::Lost(_) => ReadFault::Stranger, // nobody has lost what never was
            other => other,
        })?;
        Ok((read, self.turn_to(talk, id, now)))
    }

    /// Whether the session that an introduction begins is known: it begins none.
    pub fn knows(&self, introduction: &Introduction) -> bool {
        self.known.contains(&introduction.session_id())
    }

    /// Whether an introduction is of this conversation's initiator (§11.2(7)).
    fn is_of(&self, introduction: &Introduction) -> bool {
        let Role::Responder { pseudonym, writer } = &self.role else {
            return false;
        };
        *pseudonym == introduction.pseudonym.0 && *writer == introduction.writer_key()
    }

    /// From now on this session is written to.
    fn turn_to(&mut self, talk: Talk, id: SessionId, left_at: WallTime) -> Vec<MessageId> {
        self.leave_before(left_at);
        let talk = core::mem::replace(&mut self.now, talk);
        let again = talk.open.values().copied().collect();
        self.before = Some(Before { talk, left_at });
        self.known.push(id);
        let excess = self.known.len().saturating_sub(SESSIONS_KNOWN_MAX);
        self.known.drain(..excess);
        again
    }

    /// Nothing of the session before this one is read any more.
    fn leave_before(&mut self, left_at: WallTime) {
        let Some(before) = self.before.take() else {
            return;
        };
        let (now, before) = (&self.now.session.opened, &before.talk.session.opened);
        let ends = [now.first(), before.last(), Some(before.forgotten())];
        let ends = ends.into_iter().flatten().map(|end| end.min(left_at));
        self.forgotten = ends.fold(self.forgotten, WallTime::max);
    }

    /// Forgets keys that were kept for messages which can't come any more (§11.3(5), §11.6(3)).
    pub fn expire(&mut self, confirmed: WallTime) {
        self.now.session.expire(confirmed);
        let is_over = |it: &Before| it.left_at < confirmed.before(SKIPPED_LIFE);
        if self.before.as_ref().is_some_and(is_over) {
            self.leave_before(confirmed);
        }
        if let Some(Before { talk, .. }) = &mut self.before {
            talk.session.expire(confirmed);
        }
    }

    /// The pseudonym of a conversation that this side began.
    pub fn pseudonym(&self) -> Option<DhPublic> {
        match &self.role {
            Role::Initiator { pseudonym, .. } => Some(DhSecret::from_bytes(pseudonym).public()),
            Role::Responder { .. } => None,
        }
    }
}

#[cfg(test)]
impl Thread {
    /// This message has the next number, and goes nowhere.
    pub(super) fn number_for_test(&mut self, id: MessageId) {
        self.now.last_number += 1;
        self.now.open.insert(self.now.last_number, id);
    }
}
