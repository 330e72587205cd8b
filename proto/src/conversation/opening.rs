//! How a conversation begins: what its initiator says of itself with each message until it has an
//! answer, and the session that both sides make of it (docs/protocol.md §11.1, §11.2).
//!
//! Who wrote is proved by key agreement, never by a signature, so the reader could have made all of
//! it. Forward secrecy comes from the secret that travels under the reader's seal key, which the
//! reader erases.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::double::DoubleRatchet;
use super::keys::Key;
use super::post_quantum::PostQuantum;
use super::session::Session;
use crate::crypto::blind::{dh_of_identity, dh_of_seed};
use crate::crypto::dh::{DhPublic, DhSecret, NonContributory};
use crate::crypto::kdf::{hkdf_extract, sha256};
use crate::ids::NetworkId;
use crate::inbox::address::{InboxAddress, InboxIdentity};
use crate::time::WallTime;
use crate::wire::{Malformed, Reader};

const TRANSCRIPT_LABEL: &[u8] = b"umbel opening 1";
const KEYS_LABEL: &[u8] = b"umbel conversation 1";
const RECOVERY_LABEL: &[u8] = b"umbel recovery 1";
const SESSION_LABEL: &[u8] = b"umbel session id 1";
const AS_INBOX: u8 = 1;

/// Length of an encoded introduction, without and with the writer's inbox, bytes.
pub const INTRODUCTION_LENS: [usize; 2] = [32 + 32 + 32 + 1, 32 + 32 + 32 + 1 + 32];

/// Names a session: the first 16 bytes of a hash of the keys that its initiator chose (§11.2(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 16]);

/// The part of an opening that stays the same until it is answered (§11.2(6)). Wiped on drop.
#[derive(PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Introduction {
    secret: [u8; 32],
    /// The initiator's name for the length of the conversation.
    #[zeroize(skip)]
    pub pseudonym: DhPublic,
    #[zeroize(skip)]
    ratchet: DhPublic,
    /// The key of the inbox that the writer claims to own.
    #[zeroize(skip)]
    writer: Option<[u8; 32]>,
}

/// The keys that both sides derive from an introduction.
struct Roots {
    root: Key,
    initiator_header: Key,
    responder_header: Key,
    post_quantum: Key,
}

/// A conversation as it begins.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct Begun {
    /// Both ratchets.
    pub session: Session,
    /// The key that asks for a new session when this one is lost (§11.6). Kept as long as the
    /// conversation.
    pub recovery: RecoveryKey,
}

/// The key by which a side asks for a new session (§11.6). Neither `Clone` nor `Debug`; wiped on
/// drop.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct RecoveryKey(pub(super) Key);

/// Why an introduction makes no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpeningFault {
    /// A key has low order.
    Key,
    /// The writer claims an inbox whose key is not sound, or the reader's own.
    Writer,
    /// A renewal by, or to, somebody else than the conversation is with.
    Party,
}

/// §11.1(3)
impl From<NonContributory> for OpeningFault {
    fn from(NonContributory: NonContributory) -> Self {
        Self::Key
    }
}

impl Introduction {
    /// Begins a conversation with the owner of an inbox, under a pseudonym; as the owner of `writer`,
    /// if that is given.
    ///
    /// # Errors
    /// The inbox's key, which only a [`Writer`](OpeningFault::Writer) of one's own can have.
    pub fn begin(
        network: &NetworkId,
        reader: &InboxAddress,
        pseudonym: &DhSecret,
        writer: Option<&InboxIdentity>,
        now: WallTime,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Self, Begun), OpeningFault> {
        let ratchet = DhSecret::generate(rng);
        let mut introduction = Self {
            secret: [0; 32],
            pseudonym: pseudonym.public(),
            ratchet: ratchet.public(),
            writer: writer.map(|it| *it.address().key()),
        };
        rng.fill_bytes(&mut introduction.secret);
        if introduction.writer.as_ref() == Some(reader.key()) {
            return Err(OpeningFault::Writer);
        }
        let theirs = dh_of_identity(reader.sound_key());
        let writer = writer.map(|it| dh_of_seed(&it.seed()));
        let shared = pseudonym.agree(&theirs)?;
        let shared_writer = writer.map(|it| it.agree(&theirs)).transpose()?;
        let shared_writer = shared_writer.as_ref().map(|it| it.as_bytes());
        let roots = introduction.roots(network, reader, shared.as_bytes(), shared_writer);
        let headers = (roots.initiator_header, roots.responder_header);
        let begun = Begun {
            session: Session::new(
                DoubleRatchet::initiator(&roots.root, &ratchet, theirs, headers)?,
                PostQuantum::initiator(roots.post_quantum, now),
            ),
            recovery: introduction.recovery(network, reader, shared.as_bytes()),
        };
        Ok((introduction, begun))
    }

    /// The session that the owner of the inbox makes of it. All of it comes from the owner's own
    /// secret and from public keys, so the owner could have made the opening (§11.2(3)), and so could
    /// who has that secret (§11.2(8)).
    ///
    /// # Errors
    /// See [`OpeningFault`].
    pub fn accept(
        &self,
        network: &NetworkId,
        reader: &InboxIdentity,
        now: WallTime,
    ) -> Result<Begun, OpeningFault> {
        let own = dh_of_seed(&reader.seed());
        let writer = self.writer_address()?;
        if writer.is_some_and(|it| it.key() == reader.address().key()) {
            return Err(OpeningFault::Writer);
        }
        let shared = own.agree(&self.pseudonym)?;
        let writer = writer.map(|it| own.agree(&dh_of_identity(it.sound_key())));
        let shared_writer = writer.transpose()?;
        let shared_writer = shared_writer.as_ref().map(|it| it.as_bytes());
        let address = reader.address();
        let roots = self.roots(network, address, shared.as_bytes(), shared_writer);
        let headers = (roots.initiator_header, roots.responder_header);
        Ok(Begun {
            session: Session::new(
                DoubleRatchet::responder(roots.root, &own, headers),
                PostQuantum::responder(roots.post_quantum, now),
            ),
            recovery: self.recovery(network, address, shared.as_bytes()),
        })
    }

    /// The inbox that the writer claims to own. It does, if a message of the session opens.
    ///
    /// # Errors
    /// Its key is not sound.
    pub fn writer_address(&self) -> Result<Option<InboxAddress>, OpeningFault> {
        let address = self.writer.as_ref().map(InboxAddress::from_key);
        address.transpose().map_err(|_| OpeningFault::Writer)
    }

    /// The key of the inbox that the writer claims to own.
    pub(super) const fn writer_key(&self) -> Option<[u8; 32]> {
        self.writer
    }

    /// The session's name.
    pub fn session_id(&self) -> SessionId {
        let hash = sha256(&[SESSION_LABEL, &self.pseudonym.0, &self.ratchet.0]);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        SessionId(id)
    }

    /// Appends the introduction's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.secret);
        out.extend(self.pseudonym.0);
        out.extend(self.ratchet.0);
        out.push(if self.writer.is_some() { AS_INBOX } else { 0 });
        out.extend(self.writer.iter().flatten());
    }

    /// How long it is encoded.
    pub const fn encoded_len(&self) -> usize {
        INTRODUCTION_LENS[self.writer.is_some() as usize]
    }

    /// Reads an introduction off the front of an opening.
    ///
    /// # Errors
    /// Too short, or an unknown flag.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut introduction = Self {
            secret: reader.array()?,
            pseudonym: DhPublic(reader.array()?),
            ratchet: DhPublic(reader.array()?),
            writer: None,
        };
        introduction.writer = match reader.u8()? {
            0 => None,
            AS_INBOX => Some(reader.array()?),
            _ => return Err(Malformed::Value),
        };
        Ok(introduction)
    }

    /// §11.6(1): the same in all sessions of the conversation.
    fn recovery(
        &self,
        network: &NetworkId,
        reader: &InboxAddress,
        shared: &[u8; 32],
    ) -> RecoveryKey {
        let parties = [network.as_bytes(), reader.key(), &self.pseudonym.0];
        let salt = sha256(&[RECOVERY_LABEL, parties[0], parties[1], parties[2]]);
        RecoveryKey(Key::derived(&salt, &[shared], &[RECOVERY_LABEL]))
    }

    /// §11.2(1), §11.2(2)
    fn roots(
        &self,
        network: &NetworkId,
        reader: &InboxAddress,
        shared: &[u8; 32],
        shared_writer: Option<&[u8; 32]>,
    ) -> Roots {
        let flags = [if self.writer.is_some() { AS_INBOX } else { 0 }];
        let transcript = sha256(&[
            TRANSCRIPT_LABEL,
            network.as_bytes(),
            reader.key(),
            &self.pseudonym.0,
            &self.ratchet.0,
            &flags,
            self.writer.as_ref().map_or(&[], |it| it.as_slice()),
        ]);
        let shared_writer = shared_writer.map_or(&[][..], |it| it.as_slice());
        let prk = hkdf_extract(&transcript, &[&self.secret, shared, shared_writer]);
        let key = |label: &[u8]| Key::expanded(&prk, &[KEYS_LABEL, label]);
        Roots {
            root: key(b":root"),
            initiator_header: key(b":header initiator"),
            responder_header: key(b":header responder"),
            post_quantum: key(b":post-quantum"),
        }
    }
}
