//! An inbox's descriptor: where its mail goes, sealed so that only those who have the address can
//! read it.
//!
//! A directory relay sees a blinded key, an epoch, a revision and 8 KiB of noise with a signature:
//! enough to keep the right one, too little to read it, or to link it to an inbox or to another
//! epoch's descriptor. Rules: docs/protocol.md §9.3.
//!
//! ```text
//! 0     1      9         17       49    81                                 8112  8128       8192
//! | ver | epoch | revision | blinded | salt | sealed body, padded with zeros | tag | signature |
//! ```

use core::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::aead;
use crate::crypto::blind::SoundKey;
use crate::crypto::hpke::{SEAL_KEY_LEN, SealKey};
use crate::crypto::kdf::{hkdf_expand, hkdf_extract, hmac_sha256, sha256};
use crate::crypto::sign::{PublicKey, Signature};
use crate::ids::{BlindedKey, NetworkId, QueueId, RelayId};
use crate::inbox::address::{InboxAddress, InboxIdentity};
use crate::limits::{CLOCK_SKEW_MAX, INBOX_DESCRIPTOR_LEN, MAILBOXES_MAX, TAG_LEN};
use crate::time::{Epoch, WallTime};
use crate::wire::{Malformed, Reader};

const VERSION: u8 = 1;
const SALT_LEN: usize = 32;
const HEADER_LEN: usize = 1 + 8 + 8 + BlindedKey::LEN + SALT_LEN;
const SIGNATURE_LEN: usize = 64;
const SIGNED_LEN: usize = INBOX_DESCRIPTOR_LEN - SIGNATURE_LEN;
const BODY_LEN: usize = SIGNED_LEN - HEADER_LEN - TAG_LEN;
const MAILBOX_LEN: usize = RelayId::LEN + QueueId::LEN + 32;

const _: () = assert!(SEAL_KEY_LEN + 1 + MAILBOXES_MAX * MAILBOX_LEN + 4 <= BODY_LEN);

const CREDENTIAL_DOMAIN: &[u8] = b"umbel inbox credential 1";
const SUBCREDENTIAL_DOMAIN: &[u8] = b"umbel inbox subcredential 1";
const SALT_DOMAIN: &[u8] = b"umbel inbox descriptor salt 1";
const KEY_DOMAIN: &[u8] = b"umbel inbox descriptor key 1";
const SIGNATURE_DOMAIN: &[u8] = b"umbel inbox descriptor 1";

/// An inbox as someone sees it who has its address: how to seal to it, and where to leave the
/// record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxDescriptor {
    /// Grows with each change within an epoch; the highest wins.
    pub revision: u64,
    /// First messages are sealed to this.
    pub seal_key: SealKey,
    /// The contact queues, at most [`MAILBOXES_MAX`].
    pub mailboxes: Vec<Mailbox>,
    /// The puzzle effort asked of strangers; 0 for none.
    pub puzzle_effort: u32,
}

/// A queue on one relay, and the means to deposit there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Mailbox {
    /// The holder.
    #[zeroize(skip)]
    pub relay: RelayId,
    /// The queue.
    #[zeroize(skip)]
    pub queue: QueueId,
    /// Seed of the key that signs deposits: all who may deposit share it.
    pub sender_seed: [u8; 32],
}

/// Without the seed.
impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("relay", &self.relay)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Why a directory relay does not take a descriptor (§9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OuterFault {
    /// Not [`INBOX_DESCRIPTOR_LEN`] bytes.
    Length,
    /// An unknown version.
    Version,
    /// Neither the current epoch's nor the next one's.
    Epoch,
    /// The blinded key is not one that blinding can give.
    WeakKey,
    /// The blinded key did not sign this.
    Signature,
}

/// Why a descriptor that was looked up is not the inbox's (§9.3): the relay that served it is at
/// fault, or the owner's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFault {
    /// The outside is wrong.
    Outer(OuterFault),
    /// It is another inbox's, or another epoch's.
    OtherKey,
    /// It was not sealed under this address.
    Seal,
    /// The sealed body breaks the format.
    Body(Malformed),
}

/// The outside of a descriptor: all that a directory relay can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// Under which key it is published, and which key signed it.
    pub blinded: BlindedKey,
    /// For which epoch.
    pub epoch: Epoch,
    /// Which revision of that epoch's descriptor.
    pub revision: u64,
}

impl Outer {
    /// Reads the outside and checks what a directory relay must check, the cheap first: length,
    /// version, epoch (the current or the next one, with an hour's skew either way), key,
    /// signature (§9.3(4)).
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn verify(bytes: &[u8], wall: WallTime) -> Result<Self, OuterFault> {
        let parts = Parts::split(bytes)?;
        if !is_accepted_at(parts.outer.epoch, wall) {
            return Err(OuterFault::Epoch);
        }
        parts.verify_signature()?;
        Ok(parts.outer)
    }

    /// Checks a descriptor that was checked when it came, whatever time it is now.
    ///
    /// # Errors
    /// What a directory relay refuses it for, but for its epoch.
    pub fn verify_stored(bytes: &[u8]) -> Result<Self, OuterFault> {
        let parts = Parts::split(bytes)?;
        parts.verify_signature()?;
        Ok(parts.outer)
    }
}

impl InboxDescriptor {
    /// Seals and signs the descriptor for `epoch`: the same each time. The salt depends on all that
    /// is sealed, so that each other sealing looks unrelated to this one.
    ///
    /// # Panics
    /// With more than [`MAILBOXES_MAX`] mailboxes.
    pub fn seal(&self, identity: &InboxIdentity, network: &NetworkId, epoch: Epoch) -> Vec<u8> {
        let signer = identity.blinded_signer(network, epoch);
        let outer = Outer {
            blinded: BlindedKey(*signer.public().as_bytes()),
            epoch,
            revision: self.revision,
        };
        let body = self.encode_body();
        let salt = salt_of(identity, &outer, &body);

        let mut bytes = Vec::with_capacity(INBOX_DESCRIPTOR_LEN);
        bytes.push(VERSION);
        bytes.extend_from_slice(&outer.epoch.0.to_be_bytes());
        bytes.extend_from_slice(&outer.revision.to_be_bytes());
        bytes.extend_from_slice(outer.blinded.as_bytes());
        bytes.extend_from_slice(&salt);
        let key = sealing_key(identity.address(), network, &outer, &salt);
        let sealed = aead::seal(&key, &NONCE, &bytes, &body);
        bytes.extend_from_slice(&sealed);
        let signature = signer.sign(&signed_message(&bytes));
        bytes.extend_from_slice(&signature.0);
        assert_eq!(bytes.len(), INBOX_DESCRIPTOR_LEN);
        bytes
    }

    /// Opens the descriptor that was looked up for `address` in `epoch` (§9.3(5)).
    ///
    /// # Errors
    /// It is not what the owner published for that epoch, or the owner published nonsense.
    pub fn open(
        address: &InboxAddress,
        network: &NetworkId,
        epoch: Epoch,
        bytes: &[u8],
    ) -> Result<Self, OpenFault> {
        let parts = Parts::split(bytes).map_err(OpenFault::Outer)?;
        if parts.outer.epoch != epoch || parts.outer.blinded != address.blinded_key(network, epoch)
        {
            return Err(OpenFault::OtherKey);
        }
        parts.verify_signature().map_err(OpenFault::Outer)?;
        let key = sealing_key(address, network, &parts.outer, &parts.salt);
        let body =
            aead::open(&key, &NONCE, parts.header, parts.sealed).map_err(|_| OpenFault::Seal)?;
        Self::decode_body(parts.outer.revision, &Zeroizing::new(body)).map_err(OpenFault::Body)
    }

    fn encode_body(&self) -> Zeroizing<Vec<u8>> {
        assert!(
            self.mailboxes.len() <= MAILBOXES_MAX,
            "an inbox has at most {MAILBOXES_MAX} mailboxes"
        );
        let mut body = Zeroizing::new(Vec::with_capacity(BODY_LEN));
        body.extend_from_slice(self.seal_key.as_bytes());
        body.extend_from_slice(&self.puzzle_effort.to_be_bytes());
        body.extend(u8::try_from(self.mailboxes.len()));
        for mailbox in &self.mailboxes {
            body.extend_from_slice(mailbox.relay.as_bytes());
            body.extend_from_slice(mailbox.queue.as_bytes());
            body.extend_from_slice(&mailbox.sender_seed);
        }
        body.resize(BODY_LEN, 0);
        body
    }

    fn decode_body(revision: u64, body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let seal_key =
            SealKey::from_bytes(reader.bytes(SEAL_KEY_LEN)?).map_err(|_| Malformed::Value)?;
        let puzzle_effort = reader.u32()?;
        let count = usize::from(reader.u8()?);
        if count > MAILBOXES_MAX {
            return Err(Malformed::TooLong);
        }
        let mut mailboxes = Vec::with_capacity(count);
        for _ in 0..count {
            let (relay, queue) = (RelayId(reader.array()?), QueueId(reader.array()?));
            mailboxes.push(Mailbox {
                relay,
                queue,
                sender_seed: reader.array()?,
            });
        }
        reader.finish_zero()?;
        Ok(Self {
            revision,
            seal_key,
            mailboxes,
            puzzle_effort,
        })
    }
}

/// Each key seals once: the salt makes it.
const NONCE: [u8; 12] = [0; 12];

/// A descriptor's fields, not yet checked beyond length and version.
struct Parts<'a> {
    outer: Outer,
    salt: [u8; SALT_LEN],
    header: &'a [u8],
    sealed: &'a [u8],
    signed: &'a [u8],
    signature: Signature,
}

impl<'a> Parts<'a> {
    fn split(bytes: &'a [u8]) -> Result<Self, OuterFault> {
        if bytes.len() != INBOX_DESCRIPTOR_LEN {
            return Err(OuterFault::Length);
        }
        let parts = Self::read(bytes).map_err(|_| OuterFault::Length)?;
        if bytes.first() == Some(&VERSION) {
            Ok(parts)
        } else {
            Err(OuterFault::Version)
        }
    }

    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let signed = reader.bytes(SIGNED_LEN)?;
        let signature = Signature(reader.array()?);
        reader.finish()?;

        let mut reader = Reader::new(signed);
        let header = reader.bytes(HEADER_LEN)?;
        let sealed = reader.rest();

        let mut reader = Reader::new(header);
        let _version = reader.u8()?;
        let (epoch, revision) = (Epoch(reader.u64()?), reader.u64()?);
        let (blinded, salt) = (BlindedKey(reader.array()?), reader.array()?);
        Ok(Self {
            outer: Outer {
                blinded,
                epoch,
                revision,
            },
            salt,
            header,
            sealed,
            signed,
            signature,
        })
    }

    fn verify_signature(&self) -> Result<(), OuterFault> {
        let key = SoundKey::new(self.outer.blinded.as_bytes()).map_err(|_| OuterFault::WeakKey)?;
        PublicKey(*key.as_bytes())
            .verify(&signed_message(self.signed), &self.signature)
            .map_err(|_| OuterFault::Signature)
    }
}

fn signed_message(signed: &[u8]) -> Vec<u8> {
    [SIGNATURE_DOMAIN, signed].concat()
}

/// Current or next, for any clock within an hour of `wall`.
fn is_accepted_at(epoch: Epoch, wall: WallTime) -> bool {
    let earliest = WallTime(wall.as_secs().saturating_sub(CLOCK_SKEW_MAX.as_secs())).epoch();
    let latest = (wall + CLOCK_SKEW_MAX).epoch().next();
    earliest <= epoch && epoch <= latest
}

/// Known in advance to the owner alone, so that an owner that restarts gives one revision the form
/// that it had before, and never one key two bodies (§9.3(7)).
fn salt_of(identity: &InboxIdentity, outer: &Outer, body: &[u8]) -> [u8; SALT_LEN] {
    let (epoch, revision) = (outer.epoch.0.to_be_bytes(), outer.revision.to_be_bytes());
    let parts = [
        SALT_DOMAIN,
        outer.blinded.as_bytes(),
        &epoch,
        &revision,
        body,
    ];
    hmac_sha256(&identity.seed(), &parts)
}

/// As in Tor v3: needs the address (through the credential), and is of use for one blinded key only
/// (the subcredential) (§9.3(1), §9.3(2), §9.3(3)).
fn sealing_key(
    address: &InboxAddress,
    network: &NetworkId,
    outer: &Outer,
    salt: &[u8; SALT_LEN],
) -> Zeroizing<[u8; 32]> {
    let credential = Zeroizing::new(sha256(&[CREDENTIAL_DOMAIN, address.key()]));
    let subcredential = Zeroizing::new(sha256(&[
        SUBCREDENTIAL_DOMAIN,
        &*credential,
        outer.blinded.as_bytes(),
    ]));
    let (epoch, revision) = (outer.epoch.0.to_be_bytes(), outer.revision.to_be_bytes());
    let info = [
        KEY_DOMAIN,
        network.as_bytes(),
        outer.blinded.as_bytes(),
        &epoch,
        &revision,
    ];
    let mut key = Zeroizing::new([0; 32]);
    hkdf_expand(&hkdf_extract(salt, &[&*subcredential]), &info, &mut *key);
    key
}

#[cfg(test)]
#[path = "descriptor_tests.rs"]
mod tests;
