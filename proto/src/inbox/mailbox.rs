//! The messages between owners or senders and a holder: one signed verb a request
//! (docs/protocol.md §10.1, §10.2).
//!
//! A request is signed over the circuit it travels on, so a holder that is also a relay elsewhere
//! can't replay it, and neither of a queue's two keys is seen anywhere else. Whether a request is
//! granted is [`holder`](super::holder)'s.

use core::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::crypto::kdf::sha256;
use crate::crypto::sign::{BadSignature, PublicKey, Signature, SigningKey};
use crate::handshake::Binding;
use crate::ids::{NetworkId, QueueId, QueueNonce, RecordId, RelayId};
use crate::limits::{
    BACKWARD_DATA_MAX, DEPOSIT_OVERHEAD_LEN, FRAME_LEN_MAX, RECORD_LENS, REMOVE_MAX,
};
use crate::wire::{self, Malformed};

/// Domain of a request's signature (§10.2).
const SIGNATURE_LABEL: &[u8] = b"umbel mailbox 1";
/// Domain of a queue's name (§10.1).
const QUEUE_LABEL: &[u8] = b"umbel queue id 1";
/// Length prefix of a frame on its stream, bytes (§7.2).
const FRAME_PREFIX_LEN: usize = 4;
/// Bytes that a `Fetched` puts around its records: kind 1, count 2 at most, more 1 (§10.2).
const FETCHED_OVERHEAD_LEN: usize = 4;
/// Bytes that a `Fetched` puts before each record: its length as a varint, 3 at most (§10.2).
const RECORD_PREFIX_LEN: usize = 3;
/// Most records in one `Fetched`: as many of the shortest as fit in a frame (§10.2).
const FETCHED_RECORDS_MAX: usize = FRAME_LEN_MAX / RECORD_LENS[0];

/// Most bytes of one `Fetched`, whatever its `bytes_max` says (§10.2).
pub const FETCH_BYTES_MAX: u32 = max_u32(FRAME_LEN_MAX - FRAME_PREFIX_LEN);
/// The `bytes_max` of a fetch whose answer is one cell: one record of the shortest length, or none
/// (§10.2).
pub const FETCH_BYTES_ONE_CELL: u32 = max_u32(BACKWARD_DATA_MAX - FRAME_PREFIX_LEN);

const _: () =
    assert!(FETCHED_OVERHEAD_LEN + fetched_len_of(RECORD_LENS[0]) <= FETCH_BYTES_ONE_CELL as usize);
const _: () =
    assert!(FETCHED_OVERHEAD_LEN + fetched_len_of(RECORD_LENS[3]) <= FETCH_BYTES_MAX as usize);
// A deposit: service 1, frame length 4, verb 1, queue 32, length of the record 3, puzzle 10,
// signature 65.
const _: () =
    assert!(1 + FRAME_PREFIX_LEN + 1 + 32 + RECORD_PREFIX_LEN + 10 + 65 <= DEPOSIT_OVERHEAD_LEN);

#[expect(clippy::cast_possible_truncation, reason = "a frame's length; const")]
const fn max_u32(len: usize) -> u32 {
    assert!(len <= FRAME_LEN_MAX);
    len as u32
}

/// Bytes that a record of this length takes in a `Fetched`, at most.
pub(super) const fn fetched_len_of(record_len: usize) -> usize {
    record_len + RECORD_PREFIX_LEN
}

/// Bytes that records may take in a `Fetched` bounded by `bytes_max`.
pub(super) const fn fetched_room(bytes_max: u32) -> usize {
    let bytes_max = if bytes_max < FETCH_BYTES_MAX {
        bytes_max
    } else {
        FETCH_BYTES_MAX
    };
    (bytes_max as usize).saturating_sub(FETCHED_OVERHEAD_LEN)
}

/// The name of the queue that belongs to this key (§10.1(1)). Only who has the key can make it.
pub fn queue_id(owner: &PublicKey, nonce: &QueueNonce) -> QueueId {
    QueueId(sha256(&[QUEUE_LABEL, &owner.0, nonce.as_bytes()]))
}

/// One thing asked of a queue (§10.2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Make this queue; signed by `owner`. The same again is answered as the first time.
    Create {
        /// With `owner` it names the queue: [`queue_id`].
        nonce: QueueNonce,
        /// The key that may fetch and remove; used for this queue only.
        owner: PublicKey,
        /// The key that may deposit; used for this queue only.
        sender: PublicKey,
        /// For whom it is.
        kind: QueueKind,
    },
    /// Put a record in; signed by the queue's `sender` key. Answered once it is durable, the same
    /// again as the first time.
    Deposit {
        /// Where.
        queue: QueueId,
        /// The sealed record; its length is one of [`RECORD_LENS`].
        record: ByteBuf,
        /// Solves the puzzle over queue and record; zero where none is asked.
        puzzle: u64,
    },
    /// Remove these records, then return others, oldest first; signed by the queue's `owner` key.
    Fetch {
        /// Where.
        queue: QueueId,
        /// Records that the owner holds durably, [`REMOVE_MAX`] at most. Unknown ones are not an
        /// error.
        #[serde(deserialize_with = "wire::list::<_, _, REMOVE_MAX>")]
        remove: Vec<RecordId>,
        /// Most bytes of the answer; one record is returned even if it is longer. Zero: nothing is
        /// returned.
        bytes_max: u32,
    },
    /// Return all records, oldest first, then push new ones; signed by the queue's `owner` key. A
    /// newer one ends it.
    Subscribe {
        /// Where.
        queue: QueueId,
        /// Mean of the random delay before a push, milliseconds; zero: at once.
        push_delay_ms: u32,
    },
    /// From now on ask this effort of whoever deposits; signed by the queue's `owner` key.
    SetEffort {
        /// Where.
        queue: QueueId,
        /// Tries that a deposit should cost; zero: none.
        effort: u32,
    },
    /// Forget this queue and all that is in it; signed by its `owner` key.
    Forget {
        /// Which.
        queue: QueueId,
    },
}

/// For whom a queue is, and so how much it holds (§10.1(7)). A new one goes last: it is stored by
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueKind {
    /// For all who know an inbox's address.
    Public,
    /// For one contact.
    Contact,
}

/// A queue's keys, and the choices of its owner.
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "linkable keys")]
pub struct QueueTerms {
    /// Who may fetch and remove.
    pub owner: PublicKey,
    /// Who may deposit.
    pub sender: PublicKey,
    /// For whom it is.
    pub kind: QueueKind,
    /// Tries that a deposit should cost; zero: none.
    pub effort: u32,
}

impl QueueKind {
    /// The number that it is stored under.
    pub const fn to_number(self) -> u8 {
        match self {
            Self::Public => 0,
            Self::Contact => 1,
        }
    }

    /// The kind that is stored under this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Public),
            1 => Some(Self::Contact),
            _ => None,
        }
    }
}

/// The circuit, relay and network of a request: a signature is good for these alone (§10.2).
#[derive(Debug, Clone, Copy)]
pub struct MailboxContext<'a> {
    /// The network.
    pub network: &'a NetworkId,
    /// The relay that keeps the queue.
    pub holder: &'a RelayId,
    /// The circuit's last hop, as both ends know it.
    pub binding: &'a Binding,
}

/// A verb and the signature that makes it count (§10.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxRequest {
    /// The verb.
    pub verb: Verb,
    /// By the key that the verb asks for. Covers [`Verb`], circuit, relay and network.
    pub signature: Signature,
}

/// A holder's answer (§10.2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailboxReply {
    /// The queue is there, durably.
    Created,
    /// The record is there, durably, or was until its owner removed it.
    Deposited,
    /// Records, oldest first. To a subscription this comes again and again.
    Fetched {
        /// The sealed records.
        #[serde(deserialize_with = "wire::list::<_, _, FETCHED_RECORDS_MAX>")]
        records: Vec<ByteBuf>,
        /// Whether the queue held more when these were read.
        more: bool,
    },
    /// No, and why.
    Refused(Refusal),
    /// It is so, durably.
    Done,
}

/// Why a holder says no (§10.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no such queue here; it may have expired.
    NoQueue,
    /// There is such a queue, with another sender key.
    Taken,
    /// The signature is not by the key that the verb asks for, or was made for another circuit.
    Signature,
    /// The queue, or the relay, takes no more until something is removed or expires.
    Full,
    /// The record's length is none of [`RECORD_LENS`].
    RecordLen,
    /// The puzzle is not solved.
    Puzzle,
    /// Too much is waiting; worth trying again in a while.
    Busy,
    /// The relay could not write to its disk, or read from it; nothing was kept.
    Store,
    /// A newer subscription of the same queue took this one's place.
    Replaced,
}

impl Verb {
    /// The queue that this is about.
    pub fn queue(&self) -> QueueId {
        match self {
            Self::Create { nonce, owner, .. } => queue_id(owner, nonce),
            Self::Deposit { queue, .. }
            | Self::Fetch { queue, .. }
            | Self::Subscribe { queue, .. }
            | Self::SetEffort { queue, .. }
            | Self::Forget { queue } => *queue,
        }
    }

    /// This verb, signed for one circuit.
    pub fn signed(self, key: &SigningKey, context: &MailboxContext<'_>) -> MailboxRequest {
        let signature = key.sign(&self.signed_bytes(context));
        MailboxRequest {
            verb: self,
            signature,
        }
    }

    /// Label, network, holder, circuit, then the verb (§10.2(1)).
    fn signed_bytes(&self, context: &MailboxContext<'_>) -> Vec<u8> {
        [
            SIGNATURE_LABEL,
            context.network.as_bytes().as_slice(),
            context.holder.as_bytes(),
            &context.binding.0,
            &wire::encode(self),
        ]
        .concat()
    }
}

impl MailboxRequest {
    /// Checks that `key` signed this for this circuit.
    ///
    /// # Errors
    /// It did not.
    pub fn verify(
        &self,
        context: &MailboxContext<'_>,
        key: &PublicKey,
    ) -> Result<(), BadSignature> {
        key.verify(&self.verb.signed_bytes(context), &self.signature)
    }

    /// The request as a frame.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// It is not exactly one request in its canonical form.
    pub fn decode(frame: &[u8]) -> Result<Self, Malformed> {
        wire::decode(frame)
    }
}

impl MailboxReply {
    /// Whether it is a reply to this kind of request at all.
    pub const fn answers(&self, verb: &Verb) -> bool {
        matches!(
            (verb, self),
            (_, Self::Refused(_))
                | (Verb::Create { .. }, Self::Created)
                | (Verb::Deposit { .. }, Self::Deposited)
                | (
                    Verb::Fetch { .. } | Verb::Subscribe { .. },
                    Self::Fetched { .. }
                )
                | (Verb::SetEffort { .. } | Verb::Forget { .. }, Self::Done)
        )
    }

    /// The reply as a frame.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// It is not exactly one reply in its canonical form.
    pub fn decode(frame: &[u8]) -> Result<Self, Malformed> {
        wire::decode(frame)
    }
}

/// The verb's name only: queues are linkable, records long.
impl fmt::Debug for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create { .. } => "Create",
            Self::Deposit { .. } => "Deposit",
            Self::Fetch { .. } => "Fetch",
            Self::Subscribe { .. } => "Subscribe",
            Self::SetEffort { .. } => "SetEffort",
            Self::Forget { .. } => "Forget",
        })
    }
}

/// Without the records' bytes.
impl fmt::Debug for MailboxReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("Created"),
            Self::Deposited => f.write_str("Deposited"),
            Self::Fetched { records, more } => {
                write!(f, "Fetched({} records, more: {more})", records.len())
            }
            Self::Refused(refusal) => write!(f, "Refused({refusal:?})"),
            Self::Done => f.write_str("Done"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{FORWARD_DATA_MAX, record_len};

    const NETWORK: NetworkId = NetworkId([1; 32]);
    const HOLDER: RelayId = RelayId([2; 32]);
    const QUEUE: QueueId = QueueId([3; 32]);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn deposit(len: usize, puzzle: u64) -> Verb {
        Verb::Deposit {
            queue: QUEUE,
            record: ByteBuf::from(vec![7; len]),
            puzzle,
        }
    }

    fn signed(verb: Verb, by: u8, binding: &Binding) -> MailboxRequest {
        verb.signed(
            &key(by),
            &MailboxContext {
                network: &NETWORK,
                holder: &HOLDER,
                binding,
            },
        )
    }

    #[test] // §10.3(1)
    fn a_deposit_takes_exactly_the_cells_of_its_bucket() {
        for (cells, len) in [1, 4, 16, 64].into_iter().zip(RECORD_LENS) {
            assert_eq!(len, record_len(cells));
            for puzzle in [0, u64::MAX] {
                let frame = signed(deposit(len, puzzle), 1, &Binding([0; 32])).encode();
                let on_stream = 1 + FRAME_PREFIX_LEN + frame.len();
                assert!(
                    on_stream <= frame.len() + DEPOSIT_OVERHEAD_LEN && frame.len() <= FRAME_LEN_MAX
                );
                assert_eq!(
                    on_stream.div_ceil(FORWARD_DATA_MAX),
                    cells,
                    "record of {len}"
                );
            }
        }
    }

    #[test] // §10.2(5)
    fn a_record_of_one_cell_comes_back_in_one_cell() {
        let reply = MailboxReply::Fetched {
            records: vec![ByteBuf::from(vec![7; RECORD_LENS[0]])],
            more: true,
        };
        let frame = reply.encode();
        assert!(frame.len() <= FETCH_BYTES_ONE_CELL as usize);
        assert!(FRAME_PREFIX_LEN + frame.len() <= BACKWARD_DATA_MAX);
        assert!(fetched_len_of(RECORD_LENS[0]) <= fetched_room(FETCH_BYTES_ONE_CELL));
        assert_eq!(MailboxReply::decode(&frame), Ok(reply));
    }

    #[test] // §10.2(5)
    fn a_full_fetched_fits_its_bound() {
        for len in RECORD_LENS {
            let count = fetched_room(FETCH_BYTES_MAX) / fetched_len_of(len);
            let reply = MailboxReply::Fetched {
                records: vec![ByteBuf::from(vec![7; len]); count],
                more: true,
            };
            let frame = reply.encode();
            assert!(
                frame.len() <= FETCH_BYTES_MAX as usize
                    && FRAME_PREFIX_LEN + frame.len() <= FRAME_LEN_MAX
            );
            assert_eq!(
                MailboxReply::decode(&frame),
                Ok(reply),
                "{count} of {len} bytes"
            );
        }
    }

    #[test] // §10.2(1)
    fn a_signature_is_good_for_one_key_circuit_holder_and_verb() {
        let (binding, other) = (Binding([4; 32]), Binding([5; 32]));
        let request = signed(deposit(RECORD_LENS[0], 9), 1, &binding);
        let here = MailboxContext {
            network: &NETWORK,
            holder: &HOLDER,
            binding: &binding,
        };
        assert!(request.verify(&here, &key(1).public()).is_ok());
        assert!(request.verify(&here, &key(2).public()).is_err());
        let elsewhere = [
            MailboxContext {
                binding: &other,
                ..here
            },
            MailboxContext {
                holder: &RelayId([9; 32]),
                ..here
            },
            MailboxContext {
                network: &NetworkId([9; 32]),
                ..here
            },
        ];
        for context in elsewhere {
            assert!(request.verify(&context, &key(1).public()).is_err());
        }
        let altered = MailboxRequest {
            verb: deposit(RECORD_LENS[0], 8),
            ..request
        };
        assert!(altered.verify(&here, &key(1).public()).is_err());
    }

    #[test] // §7.2(6), §10.2
    fn requests_have_one_encoding_and_bounded_lists() {
        let fetch = |count| Verb::Fetch {
            queue: QUEUE,
            remove: vec![RecordId([6; 32]); count],
            bytes_max: 7,
        };
        let full = signed(fetch(REMOVE_MAX), 1, &Binding([0; 32]));
        let bytes = full.encode();
        assert_eq!(MailboxRequest::decode(&bytes), Ok(full));
        assert!(MailboxRequest::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(MailboxRequest::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        assert!(
            MailboxRequest::decode(&signed(fetch(REMOVE_MAX + 1), 1, &Binding([0; 32])).encode())
                .is_err()
        );
        assert!(MailboxRequest::decode(&[]).is_err());
        // Claims 2^56 records and holds none.
        assert!(
            MailboxReply::decode(&[2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err()
        );
    }
}
