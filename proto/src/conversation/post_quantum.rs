//! The post-quantum ratchet: ML-KEM-768 keys and ciphertexts that ride in the room which messages
//! leave (docs/protocol.md §11.4).
//!
//! The initiator offers keys, the responder answers each with a ciphertext. Each answer makes the key
//! of a new epoch. A message names the epoch whose key it takes: one that the peer has, or for which
//! the message itself carries the ciphertext. So no message needs another to be opened.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::keys::Key;
use crate::crypto::kdf::sha256;
use crate::crypto::kem::{
    CIPHERTEXT_LEN, ENCAPSULATION_KEY_LEN, KEM_SEED_LEN, KemSecret, encapsulate,
    is_encapsulation_key,
};
use crate::limits::PQ_EPOCHS_KEPT;
use crate::time::WallTime;
use crate::wire;

const STEP_INFO: &[u8] = b"umbel post-quantum step 1";

/// One side's post-quantum ratchet.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct PostQuantum {
    /// The newest last.
    epochs: Vec<EpochKey>,
    role: Role,
}

/// The key of one epoch, and when it was made.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct EpochKey {
    epoch: u32,
    key: Key,
    #[zeroize(skip)]
    at: WallTime,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
enum Role {
    /// The seed of the key pair for the next epoch, once it is offered.
    Initiator {
        #[serde(with = "serde_bytes")]
        offered: Option<Vec<u8>>,
    },
    /// The key that the peer offers for the next epoch; then the ciphertext for the newest, until the
    /// peer shows that it has it.
    Responder {
        #[serde(with = "serde_bytes")]
        offered: Option<Vec<u8>>,
        #[serde(with = "serde_bytes")]
        answer: Option<Vec<u8>>,
    },
}

/// The part of the ratchet that a message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Share {
    /// A key for the epoch after the message's own.
    Key(Vec<u8>),
    /// The ciphertext that makes the message's own epoch.
    Ciphertext(Vec<u8>),
}

/// Why a share, or an epoch, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShareFault {
    /// The key of the message's epoch is gone.
    Old,
    /// The message's epoch is not made yet: no sender takes it before its reader can have it.
    Ahead,
    /// It is no key, or the other side's kind.
    Share,
}

impl Share {
    pub(super) const NONE: u8 = 0;
    const KEY: u8 = 1;
    const CIPHERTEXT: u8 = 2;

    /// The number of its kind.
    pub(super) const fn kind(&self) -> u8 {
        match self {
            Self::Key(_) => Self::KEY,
            Self::Ciphertext(_) => Self::CIPHERTEXT,
        }
    }

    /// How long a share of this kind is; 0 for none, `None` for no kind.
    pub(super) const fn len_of(kind: u8) -> Option<usize> {
        match kind {
            Self::NONE => Some(0),
            Self::KEY => Some(ENCAPSULATION_KEY_LEN),
            Self::CIPHERTEXT => Some(CIPHERTEXT_LEN),
            _ => None,
        }
    }

    pub(super) fn new(kind: u8, bytes: Vec<u8>) -> Option<Self> {
        match kind {
            Self::KEY => Some(Self::Key(bytes)),
            Self::CIPHERTEXT => Some(Self::Ciphertext(bytes)),
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Key(bytes) | Self::Ciphertext(bytes) => bytes,
        }
    }
}

impl PostQuantum {
    pub(super) fn initiator(first: Key, at: WallTime) -> Self {
        Self::new(first, at, Role::Initiator { offered: None })
    }

    pub(super) fn responder(first: Key, at: WallTime) -> Self {
        let role = Role::Responder {
            offered: None,
            answer: None,
        };
        Self::new(first, at, role)
    }

    fn new(key: Key, at: WallTime, role: Role) -> Self {
        let first = EpochKey { epoch: 0, key, at };
        Self {
            epochs: vec![first],
            role,
        }
    }

    fn newest(&self) -> u32 {
        self.epochs.last().map_or(0, |it| it.epoch)
    }

    /// The share that waits to be sent, if there is one: a key of the initiator's, the same until it is
    /// answered (§11.4(3)), or a ciphertext of the responder's, which encapsulates here (§11.4(2)).
    pub(super) fn share(
        &mut self,
        at: WallTime,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<Share> {
        match &mut self.role {
            Role::Initiator { offered } => {
                let seed = offered.get_or_insert_with(|| {
                    let mut seed = vec![0; KEM_SEED_LEN];
                    rng.fill_bytes(&mut seed);
                    seed
                });
                let (_, key) = key_pair(seed)?;
                Some(Share::Key(key.to_vec()))
            }
            Role::Responder { offered, answer } => {
                if let Some(key) = offered.take() {
                    let key: &[u8; ENCAPSULATION_KEY_LEN] = key.as_slice().try_into().ok()?;
                    let (ciphertext, shared) = encapsulate(key, rng).ok()?;
                    *answer = Some(ciphertext.to_vec());
                    self.push(shared.as_bytes(), key, &ciphertext, at);
                }
                let Role::Responder { answer, .. } = &self.role else {
                    return None;
                };
                let ciphertext = answer.clone()?;
                Some(Share::Ciphertext(ciphertext))
            }
        }
    }

    /// The epoch, and its key, that a message takes which carries the waiting share, or does not
    /// (§11.4(4)): one that its reader has, or makes of it.
    pub(super) fn for_sending(&self, carries_share: bool) -> Option<(u32, Key)> {
        let waits = matches!(
            &self.role,
            Role::Responder {
                answer: Some(_),
                ..
            }
        );
        let newest = self.newest();
        let epoch = if waits && !carries_share {
            newest.saturating_sub(1)
        } else {
            newest
        };
        Some((epoch, self.key(epoch)?))
    }

    /// The key for a message of this epoch, with what it carries (§11.4(5)). Moves the ratchet on: only
    /// a copy may be asked before the message is known to be good.
    pub(super) fn received(
        &mut self,
        epoch: u32,
        share: Option<&Share>,
        at: WallTime,
    ) -> Result<Key, ShareFault> {
        match (&self.role, share) {
            (Role::Initiator { .. }, Some(Share::Key(_)))
            | (Role::Responder { .. }, Some(Share::Ciphertext(_))) => {
                return Err(ShareFault::Share);
            }
            (Role::Initiator { .. }, Some(Share::Ciphertext(ciphertext))) => {
                self.take_ciphertext(epoch, ciphertext, at)?;
            }
            (Role::Responder { .. }, Some(Share::Key(key))) => self.take_key(epoch, key)?,
            (_, None) => {}
        }
        let newest = self.newest();
        let is_ahead = epoch > newest;
        let gone = if is_ahead {
            ShareFault::Ahead
        } else {
            ShareFault::Old
        };
        let key = self.key(epoch).ok_or(gone)?;
        if let Role::Responder { answer, .. } = &mut self.role
            && epoch == newest
        {
            *answer = None; // the initiator has it
        }
        Ok(key)
    }

    /// A ciphertext for an epoch that is there already is one that was sent again.
    fn take_ciphertext(
        &mut self,
        epoch: u32,
        ciphertext: &[u8],
        at: WallTime,
    ) -> Result<(), ShareFault> {
        let is_next = epoch == self.newest().saturating_add(1);
        let Role::Initiator { offered } = &mut self.role else {
            return Ok(());
        };
        let Some(seed) = offered.take_if(|_| is_next).map(Zeroizing::new) else {
            return Ok(());
        };
        let (secret, key) = key_pair(&seed).ok_or(ShareFault::Share)?;
        let ciphertext: &[u8; CIPHERTEXT_LEN] =
            ciphertext.try_into().map_err(|_| ShareFault::Share)?;
        let shared = secret.decapsulate(ciphertext);
        self.push(shared.as_bytes(), &key, ciphertext, at);
        Ok(())
    }

    /// A key for an epoch that is there already was answered.
    fn take_key(&mut self, epoch: u32, key: &[u8]) -> Result<(), ShareFault> {
        let bytes = key.try_into().map_err(|_| ShareFault::Share)?;
        if !is_encapsulation_key(bytes) {
            return Err(ShareFault::Share);
        }
        let is_next = epoch == self.newest();
        if let Role::Responder { offered, .. } = &mut self.role
            && is_next
        {
            *offered = Some(key.to_vec());
        }
        Ok(())
    }

    fn push(
        &mut self,
        shared: &[u8; 32],
        key: &[u8; ENCAPSULATION_KEY_LEN],
        ciphertext: &[u8; CIPHERTEXT_LEN],
        at: WallTime,
    ) {
        let Some(last) = self.epochs.last() else {
            return;
        };
        let exchange = sha256(&[key, ciphertext]);
        let key = Key::derived(&last.key.0, &[shared], &[STEP_INFO, &exchange]);
        let epoch = last.epoch.saturating_add(1);
        wire::push_secret(&mut self.epochs, EpochKey { epoch, key, at });
        let excess = self.epochs.len().saturating_sub(PQ_EPOCHS_KEPT);
        self.epochs.drain(..excess);
    }

    fn key(&self, epoch: u32) -> Option<Key> {
        let found = self.epochs.iter().find(|it| it.epoch == epoch);
        found.map(|it| it.key.again())
    }

    /// Forgets the keys of epochs that were over before this time; not those that messages may still
    /// take.
    pub(super) fn forget_before(&mut self, time: WallTime) {
        while self.epochs.len() > 2 && self.epochs.get(1).is_some_and(|it| it.at < time) {
            self.epochs.remove(0);
        }
    }

    #[cfg(test)]
    pub(super) fn newest_epoch(&self) -> u32 {
        self.newest()
    }
}

fn key_pair(seed: &[u8]) -> Option<(KemSecret, [u8; ENCAPSULATION_KEY_LEN])> {
    let seed = Zeroizing::new(<[u8; KEM_SEED_LEN]>::try_from(seed).ok()?);
    Some(KemSecret::from_seed(&seed))
}
