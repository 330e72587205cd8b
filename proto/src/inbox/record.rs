//! A record: one message, padded to one of four lengths and sealed to its reader.
//!
//! Its holder learns the length bucket and nothing else; its reader learns nothing of the sender
//! but what the message says. Rules: docs/protocol.md §10.3 (lengths, sealing), §10.4 (contents).

use core::fmt;

use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::conversation::contents::CONTENTS_OVERHEAD_LEN_MAX;
use crate::conversation::opening::{INTRODUCTION_LENS, Introduction};
use crate::conversation::session::{MESSAGE_OVERHEAD_LEN, Rooms};
use crate::crypto::hpke::{self, SEAL_OVERHEAD_LEN};
pub use crate::crypto::hpke::{SealKey, SealSecret};
use crate::crypto::kdf::sha256;
use crate::ids::{MessageId, RecordId};
use crate::limits::RECORD_LENS;
use crate::wire::{Malformed, Reader};

/// Version, message id and body length in front of the body, bytes (§10.4).
const HEADER_LEN: usize = 1 + MessageId::LEN + 4;
/// Contents that are a message without a way back.
const ONE_WAY: u8 = 1;
/// Contents that open a conversation.
const OPENING: u8 = 2;
const INFO: &[u8] = b"umbel record 1";
const ID_DOMAIN: &[u8] = b"umbel record id";

/// Longest body for each of [`RECORD_LENS`], bytes (§10.3).
pub const MESSAGE_LENS_MAX: [usize; RECORD_LENS.len()] = {
    let mut lens = RECORD_LENS;
    let mut bucket = 0;
    while bucket < lens.len() {
        lens[bucket] -= SEAL_OVERHEAD_LEN + HEADER_LEN;
        bucket += 1;
    }
    lens
};
/// Longest body of a message, bytes (§10.3).
pub const MESSAGE_LEN_MAX: usize = MESSAGE_LENS_MAX[RECORD_LENS.len() - 1];

const _: () = assert!(MESSAGE_LEN_MAX >= 100_000 && MESSAGE_LEN_MAX <= u32::MAX as usize);
const _: () = assert!(MESSAGE_LENS_MAX[0] >= 512, "a line of text fits one cell");

/// Longest text of a message of a conversation, bytes (§11.8): what the largest opening leaves beside
/// all else that a message may say.
pub const LETTER_LEN_MAX: usize = RECORD_LENS[RECORD_LENS.len() - 1]
    - SEAL_OVERHEAD_LEN
    - 1
    - INTRODUCTION_LENS[1]
    - MESSAGE_OVERHEAD_LEN
    - CONTENTS_OVERHEAD_LEN_MAX;

const _: () = assert!(LETTER_LEN_MAX >= 100_000 && LETTER_LEN_MAX < MESSAGE_LEN_MAX);

/// The contents of a record.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Chosen by the sender at random, and the same in each copy: by it the reader drops
    /// duplicates.
    pub id: MessageId,
    /// What the user wrote (§10.4(2)), at most [`MESSAGE_LEN_MAX`] bytes.
    pub body: Vec<u8>,
}

/// Only the length of the body.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("body_len", &self.body.len())
            .finish()
    }
}

/// What a record says, once its seal is open.
#[derive(PartialEq, Eq)]
pub enum Opened {
    /// A message without a way back (§10.4).
    OneWay(Message),
    /// A conversation begins, or is written to before it was answered (§11.2).
    Opening(Opening),
}

/// The beginning of a conversation: who writes, and the first message of the session.
#[derive(PartialEq, Eq)]
pub struct Opening {
    /// By which the session is made.
    pub introduction: Introduction,
    /// A message of the session.
    pub message: Vec<u8>,
}

/// Only the length of what it says.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneWay(message) => message.fmt(f),
            Self::Opening(opening) => write!(f, "Opening({} bytes)", opening.message.len()),
        }
    }
}

/// The message is longer than a record can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong {
    /// How long its body is, bytes.
    pub len: usize,
    /// How long it may be, bytes.
    pub max: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the message has {} bytes, at most {} fit: shorten or split it",
            self.len, self.max
        )
    }
}

impl core::error::Error for TooLong {}

/// Why a record holds no message for us (§10.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFault {
    /// Not one of [`RECORD_LENS`].
    Length,
    /// Not sealed to this key, or changed on its way.
    Seal,
    /// Contents of an unknown version.
    Version,
    /// Contents that are not what the format says.
    Malformed(Malformed),
}

/// Whether a sealed record may have this length (§10.3(1)).
pub fn is_record_len(len: usize) -> bool {
    RECORD_LENS.contains(&len)
}

/// The name of a sealed record (§10.1(2)).
pub fn record_id(record: &[u8]) -> RecordId {
    RecordId(sha256(&[ID_DOMAIN, record]))
}

/// Seals a message in the shortest record that holds it (§10.3(4)). Two sealings of one message can't
/// be linked (§10.3(5)).
///
/// # Errors
/// A body over [`MESSAGE_LEN_MAX`].
pub fn seal_record(
    key: &SealKey,
    message: &Message,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, TooLong> {
    let too_long = TooLong {
        len: message.body.len(),
        max: MESSAGE_LEN_MAX,
    };
    let body_len = u32::try_from(message.body.len()).map_err(|_| too_long)?;
    let content_len = HEADER_LEN + message.body.len();
    let record_len = *RECORD_LENS
        .iter()
        .find(|&&len| content_len <= len - SEAL_OVERHEAD_LEN)
        .ok_or(too_long)?;
    let write = |content: &mut [u8]| {
        let (version, rest) = content.split_at_mut(1);
        let (id, rest) = rest.split_at_mut(MessageId::LEN);
        let (len, rest) = rest.split_at_mut(4);
        version.fill(ONE_WAY);
        id.copy_from_slice(message.id.as_bytes());
        len.copy_from_slice(&body_len.to_be_bytes());
        rest.split_at_mut(message.body.len())
            .0
            .copy_from_slice(&message.body);
    };
    let record = hpke::seal(key, INFO, record_len - SEAL_OVERHEAD_LEN, write, rng);
    assert!(is_record_len(record.len()));
    Ok(record)
}

/// How long a message is that opens a conversation with such an introduction, for each of
/// [`RECORD_LENS`], bytes (§11.2(4)).
pub const fn opening_rooms(introduction: &Introduction) -> Rooms {
    let mut rooms = RECORD_LENS;
    let mut class = 0;
    while class < rooms.len() {
        rooms[class] -= SEAL_OVERHEAD_LEN + 1 + introduction.encoded_len();
        class += 1;
    }
    rooms
}

/// Seals the opening of a conversation. `message` is as long as one of [`opening_rooms`].
pub fn seal_opening(
    key: &SealKey,
    introduction: &Introduction,
    message: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Vec<u8> {
    let mut contents = Zeroizing::new(vec![OPENING]);
    introduction.encode(&mut contents);
    contents.extend(message);
    let write = |space: &mut [u8]| space.copy_from_slice(&contents);
    let record = hpke::seal(key, INFO, contents.len(), write, rng);
    assert!(is_record_len(record.len()), "the ratchet filled its room");
    record
}

/// Opens a record that was fetched (§10.4(1), §11.2(4)).
///
/// # Errors
/// It is not a record, not for us, or its sender wrote nonsense.
pub fn open_record(secret: &SealSecret, record: &[u8]) -> Result<Opened, RecordFault> {
    if !is_record_len(record.len()) {
        return Err(RecordFault::Length);
    }
    let content = hpke::open(secret, INFO, record).map_err(|_| RecordFault::Seal)?;
    let mut reader = Reader::new(&content);
    let opened = match reader.u8().map_err(RecordFault::Malformed)? {
        ONE_WAY => decode_message(reader).map(Opened::OneWay),
        OPENING => decode_opening(reader).map(Opened::Opening),
        _ => return Err(RecordFault::Version),
    };
    opened.map_err(RecordFault::Malformed)
}

fn decode_opening(mut reader: Reader<'_>) -> Result<Opening, Malformed> {
    Ok(Opening {
        introduction: Introduction::decode(&mut reader)?,
        message: reader.rest().to_vec(),
    })
}

fn decode_message(mut reader: Reader<'_>) -> Result<Message, Malformed> {
    let id = MessageId(reader.array()?);
    let body_len = usize::try_from(reader.u32()?).map_err(|_| Malformed::TooLong)?;
    let body = reader.bytes(body_len)?;
    reader.finish_zero()?;
    Ok(Message {
        id,
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use crate::conversation::opening::INTRODUCTION_LENS;
    use crate::conversation::session::MESSAGE_OVERHEAD_LEN;
    use crate::crypto::dh::DhSecret;
    use crate::ids::NetworkId;
    use crate::inbox::address::InboxIdentity;
    use crate::time::WallTime;

    fn secret() -> SealSecret {
        SealSecret::from_seed(&[3; 32])
    }

    fn message(len: usize) -> Message {
        Message {
            id: MessageId([5; 16]),
            body: vec![0xab; len],
        }
    }

    fn sealed(message: &Message) -> Result<Vec<u8>, TooLong> {
        seal_record(
            &secret().public(),
            message,
            &mut ChaCha20Rng::seed_from_u64(6),
        )
    }

    /// Seals any content, as a hostile sender might.
    fn sealed_content(content: &[u8]) -> Vec<u8> {
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let content_len = RECORD_LENS[0] - SEAL_OVERHEAD_LEN;
        let write = |space: &mut [u8]| space[..content.len()].copy_from_slice(content);
        hpke::seal(&secret().public(), INFO, content_len, write, &mut rng)
    }

    #[test] // §10.3(4)
    fn a_record_is_as_short_as_its_bucket_allows() {
        for (bucket, &len_max) in MESSAGE_LENS_MAX.iter().enumerate() {
            let record = sealed(&message(len_max)).unwrap();
            assert_eq!(record.len(), RECORD_LENS[bucket]);
            assert_eq!(
                open_record(&secret(), &record),
                Ok(Opened::OneWay(message(len_max)))
            );
            if let Some(&next_len) = RECORD_LENS.get(bucket + 1) {
                assert_eq!(sealed(&message(len_max + 1)).unwrap().len(), next_len);
            }
        }
        assert_eq!(sealed(&message(0)).unwrap().len(), RECORD_LENS[0]);
    }

    #[test] // §10.3(4)
    fn a_longer_message_is_refused_with_the_limit() {
        let refused = sealed(&message(MESSAGE_LEN_MAX + 1));
        assert_eq!(
            refused,
            Err(TooLong {
                len: MESSAGE_LEN_MAX + 1,
                max: MESSAGE_LEN_MAX
            })
        );
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains(&MESSAGE_LEN_MAX.to_string())
        );
    }

    #[test] // §10.4(1)
    fn only_its_reader_opens_it_whole() {
        let record = sealed(&message(10)).unwrap();
        assert_eq!(
            open_record(&SealSecret::from_seed(&[4; 32]), &record),
            Err(RecordFault::Seal)
        );
        assert_eq!(
            open_record(&secret(), &record[1..]),
            Err(RecordFault::Length)
        );
        assert_eq!(open_record(&secret(), &[]), Err(RecordFault::Length));
        let mut changed = record;
        changed[1200] ^= 1;
        assert_eq!(open_record(&secret(), &changed), Err(RecordFault::Seal));
    }

    #[test] // §10.3(5): the copies at two holders share nothing
    fn two_sealings_of_one_message_differ_throughout() {
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let key = secret().public();
        let [first, second] = [0, 1].map(|_| seal_record(&key, &message(10), &mut rng).unwrap());
        let equal = first.iter().zip(&second).filter(|(a, b)| a == b).count();
        assert!(equal < 40, "{equal} of {} bytes equal", first.len());
        assert_ne!(record_id(&first), record_id(&second));
    }

    #[test] // §10.4(1)
    fn contents_have_one_form_only() {
        let content = |version: u8, len: u32, rest: &[u8]| {
            let head = [&[version][..], &[5; 16], &len.to_be_bytes(), rest].concat();
            open_record(&secret(), &sealed_content(&head))
        };
        assert_eq!(content(1, 2, &[0xab; 2]), Ok(Opened::OneWay(message(2))));
        assert_eq!(content(3, 2, &[0xab; 2]), Err(RecordFault::Version));
        assert_eq!(
            content(1, 1, &[0xab; 2]),
            Err(RecordFault::Malformed(Malformed::Trailing)),
            "padding is zero"
        );
        let len_max = u32::try_from(MESSAGE_LENS_MAX[0]).unwrap();
        assert!(content(1, len_max, &[]).is_ok());
        assert_eq!(
            content(1, len_max + 1, &[]),
            Err(RecordFault::Malformed(Malformed::Truncated))
        );
        assert_eq!(
            content(1, u32::MAX, &[]),
            Err(RecordFault::Malformed(Malformed::Truncated))
        );
    }

    #[test] // §11.2(4)
    fn an_opening_carries_a_message_of_its_session() {
        let mut rng = ChaCha20Rng::seed_from_u64(8);
        let (alice, bob) = (
            DhSecret::generate(&mut rng),
            InboxIdentity::from_seed(&[2; 32]),
        );
        let (network, now) = (NetworkId([1; 32]), WallTime(1_790_000_000));
        let begun = Introduction::begin(&network, bob.address(), &alice, None, now, &mut rng);
        let (introduction, begun) = begun.unwrap();
        let (mut session, rooms) = (begun.session, opening_rooms(&introduction));
        for (len, class) in [(100, 0), (rooms[0] - MESSAGE_OVERHEAD_LEN + 1, 1)] {
            let text = vec![7; len];
            let sealed = session.seal(&text, &rooms, now, &mut rng).unwrap();
            let record = seal_opening(&secret().public(), &introduction, &sealed.message, &mut rng);
            assert_eq!((sealed.class, record.len()), (class, RECORD_LENS[class]));
            let Ok(Opened::Opening(opening)) = open_record(&secret(), &record) else {
                panic!("it opens a conversation")
            };
            let accepted = opening.introduction.accept(&network, &bob, now).unwrap();
            let mut reader = accepted.session;
            assert_eq!(reader.open(&opening.message, now).unwrap()[..len], text);
            assert!(!format!("{:?}", Opened::Opening(opening)).contains("[7"));
        }
    }

    #[test] // §11.2(4)
    fn a_short_first_message_takes_one_cell_with_its_way_back() {
        let room = |introduction: usize| {
            RECORD_LENS[0] - SEAL_OVERHEAD_LEN - 1 - introduction - MESSAGE_OVERHEAD_LEN
        };
        assert_eq!(INTRODUCTION_LENS.map(room), [450, 418]);
    }

    #[test] // §10.1(2)
    fn a_record_id_has_a_domain_of_its_own() {
        assert_ne!(record_id(b"record").0, sha256(&[b"record"]));
        assert_ne!(record_id(b"record"), record_id(b"recore"));
    }

    #[test] // what may be logged
    fn debug_shows_no_body() {
        assert!(!format!("{:?}", message(3)).contains("171"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test] // §10.4(2)
        fn any_message_survives(id: [u8; 16], body in prop::collection::vec(any::<u8>(), 0..3000)) {
            let message = Message { id: MessageId(id), body };
            prop_assert_eq!(open_record(&secret(), &sealed(&message).unwrap()), Ok(Opened::OneWay(message)));
        }

        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), RECORD_LENS[0])) {
            prop_assert_eq!(open_record(&secret(), &bytes), Err(RecordFault::Seal));
            prop_assert_eq!(open_record(&secret(), &bytes[..bytes.len() / 2]), Err(RecordFault::Length));
        }

        #[test]
        fn any_sealed_content_is_a_message_or_refused(content in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(Opened::OneWay(message)) = open_record(&secret(), &sealed_content(&content)) {
                prop_assert!(message.body.len() <= MESSAGE_LENS_MAX[0]);
            }
        }
    }
}
