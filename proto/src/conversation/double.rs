//! The double ratchet, with encrypted headers (docs/protocol.md §11.3; Signal's *The Double Ratchet
//! Algorithm*, revision 1, §4).
//!
//! Knows chains, their keys and the keys of messages that were passed over. A step of the ratchet is
//! taken in halves: a new key of the peer's gives a new chain to receive on at once, and a new own
//! key is drawn only when something is sent.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::keys::Key;
use crate::crypto::dh::{DhPublic, DhSecret, NonContributory};
use crate::crypto::kdf::{hkdf_expand, hkdf_extract};
use crate::limits::{OPENINGS_SKIP_MAX, SKIP_MAX, SKIPPED_KEPT_MAX};
use crate::time::WallTime;
use crate::wire;

const STEP_INFO: &[u8] = b"umbel ratchet step 1";
const MESSAGE_STEP: &[u8] = &[1];
const CHAIN_STEP: &[u8] = &[2];

/// One side's double ratchet.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct DoubleRatchet {
    root: Key,
    own: [u8; 32],
    #[zeroize(skip)]
    theirs: Option<DhPublic>,
    /// `None` until something is sent after the peer's last new key.
    sending: Option<Chain>,
    receiving: Option<Chain>,
    next_sending_header: Key,
    next_receiving_header: Key,
    /// Messages in the sending chain before this one.
    previous_len: u32,
    skipped: Vec<Skipped>,
}

/// The messages that one side sends under one of its ratchet keys.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Chain {
    key: Key,
    header: Key,
    /// The number of the next message.
    next: u32,
}

/// A message that others came before.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Skipped {
    header: Key,
    number: u32,
    message: Key,
    #[zeroize(skip)]
    at: WallTime,
}

/// A message's place in the ratchet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The sender's ratchet key.
    pub(super) ratchet: DhPublic,
    /// How long the chain before this one is.
    pub(super) previous_len: u32,
    /// The message's number in its chain.
    pub(super) number: u32,
}

/// The chain whose header key opened a message's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// One before the current one, or a part of this one that was passed over.
    Skipped(usize),
    /// The current one.
    Current,
    /// One that begins with this message.
    Next,
}

/// Why there is no key for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceFault {
    /// Its key was used.
    Used,
    /// Too many would have to be passed over.
    TooFar,
    /// The ratchet key is none.
    Ratchet,
}

/// §11.1(3)
impl From<NonContributory> for PlaceFault {
    fn from(NonContributory: NonContributory) -> Self {
        Self::Ratchet
    }
}

impl DoubleRatchet {
    /// The side that wrote first, whose first ratchet key is `own`.
    pub(super) fn initiator(
        root: &Key,
        own: &DhSecret,
        theirs: DhPublic,
        headers: (Key, Key),
    ) -> Result<Self, NonContributory> {
        let (header, next_receiving_header) = headers;
        let (root, key, next_sending_header) = step(root, own, &theirs)?;
        Ok(Self {
            root,
            own: *own.to_bytes(),
            theirs: Some(theirs),
            sending: Some(Chain {
                key,
                header,
                next: 0,
            }),
            receiving: None,
            next_sending_header,
            next_receiving_header,
            previous_len: 0,
            skipped: Vec::new(),
        })
    }

    /// The side that was written to, whose first ratchet key is `own`. `headers` are the initiator's
    /// and this side's.
    pub(super) fn responder(root: Key, own: &DhSecret, headers: (Key, Key)) -> Self {
        let (next_receiving_header, next_sending_header) = headers;
        Self {
            root,
            own: *own.to_bytes(),
            theirs: None,
            sending: None,
            receiving: None,
            next_sending_header,
            next_receiving_header,
            previous_len: 0,
            skipped: Vec::new(),
        }
    }

    /// Whether something may be sent: the responder needs the initiator's key first (§11.3(2)), and a
    /// chain ends where its numbers do (§11.3(5)).
    pub(super) const fn may_send(&self) -> bool {
        match &self.sending {
            Some(chain) => chain.goes_on(),
            None => self.theirs.is_some(),
        }
    }

    /// The next message to send: its place, the chain's header key and the message's key. `None`
    /// while nothing may be sent.
    pub(super) fn next_sent(
        &mut self,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<(Place, Key, Key)> {
        if self.sending.is_none() {
            self.begin_sending(rng)?;
        }
        let ratchet = DhSecret::from_bytes(&self.own).public();
        let previous_len = self.previous_len;
        let chain = self.sending.as_mut()?;
        let place = Place {
            ratchet,
            previous_len,
            number: chain.next,
        };
        let header = chain.header.again();
        Some((place, header, chain.step()?))
    }

    /// A new chain, under a new ratchet key: who knew the one before is out of it (§11.3(7)).
    fn begin_sending(&mut self, rng: &mut (impl CryptoRng + ?Sized)) -> Option<()> {
        let theirs = self.theirs?;
        let own = DhSecret::generate(rng);
        // Their key was good when it came.
        let (root, key, next_header) = step(&self.root, &own, &theirs).ok()?;
        self.root = root;
        self.own = *own.to_bytes();
        let header = core::mem::replace(&mut self.next_sending_header, next_header);
        self.sending = Some(Chain {
            key,
            header,
            next: 0,
        });
        Some(())
    }

    /// The header keys by which a message may have been sent, the likeliest first (§11.3(3)).
    pub(super) fn header_keys(&self) -> impl Iterator<Item = (Found, &Key)> {
        let current = self.receiving.iter().map(|it| (Found::Current, &it.header));
        let next = core::iter::once((Found::Next, &self.next_receiving_header));
        let skipped = self.skipped.iter().enumerate();
        let mut before: Option<&[u8; 32]> = None;
        let skipped = skipped.filter_map(move |(index, it)| {
            let is_other = before.replace(&it.header.0) != Some(&it.header.0);
            is_other.then_some((Found::Skipped(index), &it.header))
        });
        current.chain(next).chain(skipped)
    }

    /// The key of a message at this place, in the chain that was found. Moves the ratchet on: only a
    /// copy may be asked before the message is known to be good.
    pub(super) fn received(
        &mut self,
        found: Found,
        place: &Place,
        at: WallTime,
    ) -> Result<Key, PlaceFault> {
        let header = match found {
            Found::Skipped(index) => self.skipped.get(index).map(|it| it.header.again()),
            Found::Current => self.receiving.as_ref().map(|it| it.header.again()),
            Found::Next => None,
        };
        if let Some(header) = header {
            let is_it = |it: &Skipped| it.header.0 == header.0 && it.number == place.number;
            if let Some(index) = self.skipped.iter().position(is_it) {
                return Ok(self.skipped.remove(index).message.again());
            }
        }
        // Who has opened nothing yet can't ask for a new session (§11.3(5)).
        let is_first = self.theirs.is_none();
        match found {
            Found::Skipped(_) => return Err(PlaceFault::Used),
            Found::Current => {}
            Found::Next => {
                self.skip_to(place.previous_len, SKIP_MAX, at)?;
                self.begin_receiving(place)?;
            }
        }
        let skip_max = if is_first {
            OPENINGS_SKIP_MAX
        } else {
            SKIP_MAX
        };
        self.skip_to(place.number, skip_max, at)?;
        let chain = self.receiving.as_mut().ok_or(PlaceFault::Used)?;
        chain.step().ok_or(PlaceFault::TooFar)
    }

    /// The peer has a new ratchet key: what it sends from now on, and a new chain of ours when
    /// something is sent.
    fn begin_receiving(&mut self, place: &Place) -> Result<(), PlaceFault> {
        let own = DhSecret::from_bytes(&self.own);
        let (root, key, next_header) = step(&self.root, &own, &place.ratchet)?;
        let header = core::mem::replace(&mut self.next_receiving_header, next_header);
        self.root = root;
        self.theirs = Some(place.ratchet);
        self.receiving = Some(Chain {
            key,
            header,
            next: 0,
        });
        if let Some(chain) = self.sending.take() {
            self.previous_len = chain.next;
        }
        Ok(())
    }

    /// Keeps the keys of the messages of the current chain before this number.
    fn skip_to(&mut self, number: u32, skip_max: u32, at: WallTime) -> Result<(), PlaceFault> {
        let Some(chain) = &mut self.receiving else {
            return Ok(());
        };
        if number < chain.next {
            // Of a chain that ended, fewer are there than came: its sender went back.
            return Err(PlaceFault::Used);
        }
        if number - chain.next > skip_max {
            return Err(PlaceFault::TooFar);
        }
        while chain.next < number {
            let number = chain.next;
            let skipped = Skipped {
                header: chain.header.again(),
                number,
                message: chain.step().ok_or(PlaceFault::TooFar)?,
                at,
            };
            wire::push_secret(&mut self.skipped, skipped);
        }
        let excess = self.skipped.len().saturating_sub(SKIPPED_KEPT_MAX);
        self.skipped.drain(..excess);
        Ok(())
    }

    /// Forgets the keys of messages that were passed over before this time.
    pub(super) fn forget_skipped_before(&mut self, time: WallTime) {
        self.skipped.retain(|it| it.at >= time);
    }

    #[cfg(test)]
    pub(super) fn skipped_count(&self) -> usize {
        self.skipped.len()
    }

    /// As if so many messages had been sent, or received.
    #[cfg(test)]
    pub(super) fn number_from(&mut self, next: u32, is_sending: bool) {
        let chain = if is_sending {
            &mut self.sending
        } else {
            &mut self.receiving
        };
        chain.iter_mut().for_each(|chain| chain.next = next);
    }
}

impl Chain {
    /// The key of the next message; `None` at the end of all numbers (§11.3(5)).
    fn step(&mut self) -> Option<Key> {
        let next = self.next.checked_add(1)?;
        let message = self.key.labelled(&[MESSAGE_STEP]);
        self.key = self.key.labelled(&[CHAIN_STEP]);
        self.next = next;
        Some(message)
    }

    /// Whether there is a number left.
    const fn goes_on(&self) -> bool {
        self.next < u32::MAX
    }
}

/// Root, chain and next header key.
fn step(root: &Key, own: &DhSecret, theirs: &DhPublic) -> Result<(Key, Key, Key), NonContributory> {
    let shared = own.agree(theirs)?;
    let prk = hkdf_extract(&root.0, &[shared.as_bytes()]);
    let mut keys = Zeroizing::new([[0; 32]; 3]);
    hkdf_expand(&prk, &[STEP_INFO], keys.as_flattened_mut());
    let [root, chain, header] = *keys;
    Ok((Key(root), Key(chain), Key(header)))
}
