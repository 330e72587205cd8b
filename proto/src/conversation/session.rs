//! One session of a conversation: both ratchets, and the messages that they seal (docs/protocol.md
//! §11.2 to §11.4).
//!
//! The key of each message comes from both ratchets and from a nonce, so that a state which is
//! restored from a backup never takes one key for two messages.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::double::{DoubleRatchet, Found, Place, PlaceFault};
use super::keys::Key;
use super::nonces::{NONCE_LEN, Nonce, Nonces};
use super::post_quantum::{PostQuantum, Share, ShareFault};
use crate::crypto::dh::DhPublic;
use crate::limits::{RECORD_LENS, SHARE_WAIT, SHARE_WAIT_MESSAGES, SKIPPED_LIFE, TAG_LEN};
use crate::time::WallTime;
use crate::wire::{self, Malformed, Reader};

/// Format of the stored state.
const VERSION: u8 = 1;
const HEADER_LEN: usize = 32 + 4 + 4 + 4 + 1;
const HEADER_LABEL: &[u8] = b"umbel header 1";
const SHARE_LABEL: &[u8] = b"umbel share 1";
const MESSAGE_INFO: &[u8] = b"umbel message key 1";

/// Length of a message without contents and share, bytes (§11.3).
pub const MESSAGE_OVERHEAD_LEN: usize = NONCE_LEN + HEADER_LEN + TAG_LEN + TAG_LEN;

/// How long a message may be for each of [`RECORD_LENS`], less what is around it, bytes.
pub type Rooms = [usize; RECORD_LENS.len()];

/// One side of a session. Neither `Clone` nor `Debug`; wiped on drop.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Session {
    version: u8,
    double: DoubleRatchet,
    post_quantum: PostQuantum,
    /// Messages since a share last went along while one waits, and since when it waits.
    #[zeroize(skip)]
    share_waits: Option<(u32, WallTime)>,
    /// Of the messages that were opened last.
    #[zeroize(skip)]
    pub(super) opened: Nonces,
}

/// A sealed message, as long as the room that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which of the rooms.
    pub class: usize,
    /// The message.
    pub message: Vec<u8>,
}

/// Why a message is not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealFault {
    /// Its contents fit no room.
    TooLong {
        /// The longest that do.
        max: usize,
    },
    /// The other side has to write first.
    NotYet,
}

/// Why a message is not opened (§11.3(6)). Nothing changes then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFault {
    /// No key of this session opens its header.
    NotOurs,
    /// It was opened, or one with its place: a copy, or its sender went back to an earlier state.
    Repeated {
        /// It is the very message that was opened.
        is_copy: bool,
    },
    /// Too many messages before it are missing.
    TooFar,
    /// The key of its post-quantum epoch is gone.
    Epoch,
    /// Its sender is elsewhere than this side: one of the two went back to an earlier state.
    Diverged,
    /// Something in it is not what its sender made, or may not be.
    Damaged,
}

/// The fields of a header.
struct Header {
    place: Place,
    epoch: u32,
    share: u8,
}

impl Session {
    pub(super) fn new(double: DoubleRatchet, post_quantum: PostQuantum) -> Self {
        Self {
            version: VERSION,
            double,
            post_quantum,
            share_waits: None,
            opened: Nonces::default(),
        }
    }

    /// The state, to be stored before a message that was sealed with it goes out.
    pub fn state(&self) -> Zeroizing<Vec<u8>> {
        wire::encode_secret(self)
    }

    /// Takes a stored state.
    ///
    /// # Errors
    /// Another format, or damage.
    pub fn restore(state: &[u8]) -> Result<Self, Malformed> {
        let session: Self = wire::decode(state)?;
        if session.version == VERSION {
            Ok(session)
        } else {
            Err(Malformed::Value)
        }
    }

    /// Whether this side may write: a responder may once it has read something.
    pub const fn may_seal(&self) -> bool {
        self.double.may_send()
    }

    /// Seals contents into the shortest room that holds them (§11.3(1)), with the share that waits if
    /// there is place for it (§11.4(4)); or, once that has waited for long, into the shortest that
    /// holds both (§11.4(6)).
    ///
    /// # Errors
    /// See [`SealFault`].
    pub fn seal(
        &mut self,
        contents: &[u8],
        rooms: &Rooms,
        now: WallTime,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Sealed, SealFault> {
        if !self.may_seal() {
            return Err(SealFault::NotYet);
        }
        let needed = MESSAGE_OVERHEAD_LEN + contents.len();
        let fits = |needed: usize| rooms.iter().position(|&room| room >= needed);
        let Some(least) = fits(needed) else {
            let longest = rooms.iter().max().copied().unwrap_or(0);
            let max = longest.saturating_sub(MESSAGE_OVERHEAD_LEN);
            return Err(SealFault::TooLong { max });
        };
        let share = self.post_quantum.share(now, rng);
        let share_len = share.as_ref().map_or(0, |it| it.bytes().len() + TAG_LEN);
        let with_share = fits(needed + share_len);
        let class = match with_share {
            Some(class) if class == least || self.has_waited(now) => class,
            _ => least,
        };
        let carried = share.as_ref().filter(|_| with_share == Some(class));
        self.note_share(share.is_some(), carried.is_some(), now);
        let room = rooms.get(class).copied().unwrap_or(needed);
        let message = self.sealed(contents, carried, room, now, rng);
        let message = message.ok_or(SealFault::NotYet)?;
        Ok(Sealed { class, message })
    }

    fn has_waited(&self, now: WallTime) -> bool {
        self.share_waits.is_some_and(|(messages, since)| {
            messages >= SHARE_WAIT_MESSAGES || now.since(since) >= SHARE_WAIT
        })
    }

    fn note_share(&mut self, waits: bool, is_carried: bool, now: WallTime) {
        self.share_waits = if waits && !is_carried {
            let (messages, since) = self.share_waits.unwrap_or((0, now));
            // A clock that was ahead does not put it off.
            Some((messages.saturating_add(1), since.min(now)))
        } else {
            None
        };
    }

    fn sealed(
        &mut self,
        contents: &[u8],
        share: Option<&Share>,
        room: usize,
        now: WallTime,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<Vec<u8>> {
        let (epoch, epoch_key) = self.post_quantum.for_sending(share.is_some())?;
        let (place, header_key, message_key) = self.double.next_sent(rng)?;
        let nonce = Nonce::draw(now, rng);
        let nonce = nonce.as_bytes();
        let mut message = nonce.to_vec();
        let header = Header {
            place,
            epoch,
            share: share.map_or(Share::NONE, Share::kind),
        };
        let key = header_key.labelled(&[HEADER_LABEL, nonce]);
        append(&mut message, &key, &header.encode());
        if let Some(share) = share {
            let key = header_key.labelled(&[SHARE_LABEL, nonce]);
            append(&mut message, &key, share.bytes());
        }
        let body_len = room.checked_sub(message.len() + TAG_LEN)?;
        let mut body = Zeroizing::new(Vec::with_capacity(body_len.max(contents.len())));
        body.extend(contents);
        body.resize(body_len, 0);
        let key = body_key(nonce, &message_key, &epoch_key);
        append(&mut message, &key, &body);
        Some(message)
    }

    /// Opens a message; its contents have zeros behind them. Nothing changes unless it is good
    /// (§11.3(4)).
    ///
    /// # Errors
    /// See [`OpenFault`].
    pub fn open(&mut self, message: &[u8], now: WallTime) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
        let damaged = |_: Malformed| OpenFault::Damaged;
        let mut reader = Reader::new(message);
        let nonce = Nonce::decode(&mut reader).map_err(damaged)?;
        if self.opened.has(&nonce) {
            return Err(OpenFault::Repeated { is_copy: true });
        }
        let sealed_header = reader.bytes(HEADER_LEN + TAG_LEN).map_err(damaged)?;
        let (found, share_key, header) = self.find(nonce.as_bytes(), sealed_header)?;
        let share_len = Share::len_of(header.share).ok_or(OpenFault::Damaged)?;
        let share = if share_len == 0 {
            None
        } else {
            let before = message.len() - reader.left();
            let sealed = reader.bytes(share_len + TAG_LEN).map_err(damaged)?;
            let bytes = share_key.open(&message[..before], sealed);
            Share::new(header.share, bytes.map_err(|_| OpenFault::Damaged)?)
        };
        let before = message.len() - reader.left();
        // Two ratchets move on, and a forged body must move neither: a copy is tried. The body's key
        // comes from both, moved, so it can't be tried before. Only the peer gets so far.
        let mut moved = Self::restore(&self.state()).map_err(damaged)?;
        let epoch_key = moved
            .post_quantum
            .received(header.epoch, share.as_ref(), now)?;
        let message_key = moved.double.received(found, &header.place, now)?;
        let key = body_key(nonce.as_bytes(), &message_key, &epoch_key);
        let body = key.open(&message[..before], reader.rest());
        let body = Zeroizing::new(body.map_err(|_| OpenFault::Diverged)?);
        moved.opened.note(nonce, now);
        core::mem::swap(self, &mut moved); // what was before is wiped
        Ok(body)
    }

    /// The chain that a header belongs to, the key of a share behind it, and what it says.
    fn find(&self, nonce: &[u8], sealed: &[u8]) -> Result<(Found, Key, Header), OpenFault> {
        for (found, header_key) in self.double.header_keys() {
            let key = header_key.labelled(&[HEADER_LABEL, nonce]);
            if let Ok(header) = key.open(nonce, sealed) {
                let header = Header::decode(&header).map_err(|_| OpenFault::Damaged)?;
                let share_key = header_key.labelled(&[SHARE_LABEL, nonce]);
                return Ok((found, share_key, header));
            }
        }
        Err(OpenFault::NotOurs)
    }

    /// Forgets keys that were kept for messages which can't come any more (§11.3(5)).
    pub fn expire(&mut self, confirmed: WallTime) {
        let time = confirmed.before(SKIPPED_LIFE);
        self.double.forget_skipped_before(time);
        self.post_quantum.forget_before(time);
    }
}

#[cfg(test)]
impl Session {
    pub(super) fn skipped_count(&self) -> usize {
        self.double.skipped_count()
    }

    pub(super) fn post_quantum_epoch(&self) -> u32 {
        self.post_quantum.newest_epoch()
    }

    /// As if so many messages had been sent, or received.
    pub(super) fn number_from(&mut self, next: u32, is_sending: bool) {
        self.double.number_from(next, is_sending);
    }

    /// An attacker does not care for copies.
    pub(super) fn forget_nonces(&mut self) {
        self.opened.clear();
    }

    /// Answers the key that is offered, or offers one: the share that waits then.
    pub(super) fn seal_share(&mut self, rng: &mut impl CryptoRng) -> Option<Vec<u8>> {
        let share = self.post_quantum.share(WallTime(0), rng);
        share.map(|it| it.bytes().to_vec())
    }

    /// What the peer of this side would send that names such a key as its next.
    pub(super) fn forge_turn(&self, ratchet: DhPublic, rng: &mut impl CryptoRng) -> Vec<u8> {
        let (_, header_key) = self
            .double
            .header_keys()
            .nth(1)
            .unwrap_or_else(|| unreachable!());
        let nonce = Nonce::draw(WallTime(0), rng);
        let place = Place {
            ratchet,
            previous_len: 1,
            number: 0,
        };
        let header = Header {
            place,
            epoch: 0,
            share: Share::NONE,
        };
        let key = header_key.labelled(&[HEADER_LABEL, nonce.as_bytes()]);
        let mut message = nonce.as_bytes().to_vec();
        append(&mut message, &key, &header.encode());
        message.extend([0; 200]);
        message
    }

    /// For an attacker who knows all that Diffie-Hellman gives.
    pub(super) fn take_double_of(&mut self, other: &Self) {
        let other = Self::restore(&other.state());
        let mut other = other.unwrap_or_else(|_| unreachable!("its own state"));
        core::mem::swap(&mut self.double, &mut other.double);
    }
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let Place {
            ratchet,
            previous_len,
            number,
        } = self.place;
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend(ratchet.0);
        bytes.extend(previous_len.to_be_bytes());
        bytes.extend(number.to_be_bytes());
        bytes.extend(self.epoch.to_be_bytes());
        bytes.push(self.share);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let place = Place {
            ratchet: DhPublic(reader.array()?),
            previous_len: reader.u32()?,
            number: reader.u32()?,
        };
        let header = Self {
            place,
            epoch: reader.u32()?,
            share: reader.u8()?,
        };
        reader.finish()?;
        Ok(header)
    }
}

impl From<ShareFault> for OpenFault {
    fn from(fault: ShareFault) -> Self {
        match fault {
            ShareFault::Old => Self::Epoch,
            ShareFault::Ahead => Self::Diverged,
            ShareFault::Share => Self::Damaged,
        }
    }
}

impl From<PlaceFault> for OpenFault {
    fn from(fault: PlaceFault) -> Self {
        match fault {
            PlaceFault::Used => Self::Repeated { is_copy: false },
            PlaceFault::TooFar => Self::TooFar,
            PlaceFault::Ratchet => Self::Damaged,
        }
    }
}

/// Seals a part of a message, bound to all before it.
fn append(message: &mut Vec<u8>, key: &Key, plain: &[u8]) {
    let sealed = key.seal(message, plain);
    message.extend(sealed);
}

/// §11.4(1): from both ratchets, so that each holds alone (§11.4(7)).
fn body_key(nonce: &[u8], message: &Key, epoch: &Key) -> Key {
    Key::derived(nonce, &[&message.0, &epoch.0], &[MESSAGE_INFO])
}
