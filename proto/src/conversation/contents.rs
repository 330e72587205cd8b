//! The contents of a conversation's messages, under the ratchet (docs/protocol.md §11.8).
//!
//! Its number and what arrived of the peer's; then what the user wrote, and what the program has to
//! say: where to answer.

use core::fmt;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroize;

use super::numbering::Acknowledgement;
use crate::ids::MessageId;
use crate::inbox::descriptor::Mailbox;
use crate::limits::{
    ACKNOWLEDGED_RANGES_MAX, CONTACT_QUEUES_MAX, MESSAGE_ITEMS_MAX, NUMBERS_AHEAD_MAX,
};
use crate::time::WallTime;
use crate::wire::{self, Malformed};

const VERSION: u8 = 1;

/// Longest encoding of contents beside one text, bytes: version, number and floor, id, time,
/// acknowledgement, and the queues that are told beside the text.
pub const CONTENTS_OVERHEAD_LEN_MAX: usize = 1
    + 1
    + VARINT_LEN_MAX * 2
    + MessageId::LEN
    + VARINT_LEN_MAX
    + VARINT_LEN_MAX * (2 + 2 * ACKNOWLEDGED_RANGES_MAX)
    + 2 * VARINT_LEN_MAX
    + 1
    + VARINT_LEN_MAX
    + CONTACT_QUEUES_MAX * (32 + 32 + 32);
const VARINT_LEN_MAX: usize = 10;

/// The contents of one message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    version: u8,
    /// Its place among what its sender wrote in this session; `None`: it is said once, and nobody
    /// misses it if it is lost.
    pub number: Option<Number>,
    /// Names it: the same in each copy and repeat.
    pub id: MessageId,
    /// When its sender wrote it, by the sender's clock.
    pub written_at: WallTime,
    /// The peer's messages in this session that arrived.
    pub acknowledgement: Acknowledgement,
    /// Its parts, in order.
    #[serde(deserialize_with = "wire::list::<_, _, MESSAGE_ITEMS_MAX>")]
    pub items: Vec<Item>,
}

/// The number of a message, and of the first that its sender still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Number {
    /// This message's.
    pub number: u64,
    /// Those before this are acknowledged, or will never be sent again.
    pub floor: u64,
}

/// One thing that a message says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// The user's words.
    Text(ByteBuf),
    /// From now on the sender reads these queues, and no others for this contact.
    Queues(#[serde(deserialize_with = "wire::list::<_, _, CONTACT_QUEUES_MAX>")] Vec<Mailbox>),
}

/// Why contents are refused (§11.8(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentsFault {
    /// A newer program wrote them.
    Version,
    /// They are not what the format says.
    Malformed(Malformed),
}

impl Contents {
    /// Contents of today's version.
    pub const fn new(
        number: Option<Number>,
        id: MessageId,
        written_at: WallTime,
        acknowledgement: Acknowledgement,
        items: Vec<Item>,
    ) -> Self {
        Self {
            version: VERSION,
            number,
            id,
            written_at,
            acknowledgement,
            items,
        }
    }

    /// As bytes, without padding.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads contents, and the zeros behind them.
    ///
    /// # Errors
    /// See [`ContentsFault`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ContentsFault> {
        if bytes.first().is_some_and(|&version| version != VERSION) {
            return Err(ContentsFault::Version);
        }
        let contents: Self = wire::decode_padded(bytes).map_err(ContentsFault::Malformed)?;
        if contents.is_sound() {
            Ok(contents)
        } else {
            Err(ContentsFault::Malformed(Malformed::Value))
        }
    }

    /// §11.8(1), §11.8(4)
    fn is_sound(&self) -> bool {
        let is_numbered_well = self.number.is_none_or(|Number { number, floor }| {
            (1..=number).contains(&floor) && number - floor < NUMBERS_AHEAD_MAX
        });
        let is_good = |item: &Item| match item {
            Item::Text(_) => true,
            Item::Queues(queues) => {
                let names: BTreeSet<_> = queues.iter().map(|it| it.queue).collect();
                !queues.is_empty() && names.len() == queues.len()
            }
        };
        is_numbered_well && self.acknowledgement.is_sound() && self.items.iter().all(is_good)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        match self {
            Self::Text(text) => text.zeroize(),
            Self::Queues(_) => {} // wiped one by one
        }
    }
}

/// Neither text nor queues.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents")
            .field("number", &self.number)
            .field("items", &self.items.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::numbering::NumberRange;
    use super::*;
    use crate::ids::{QueueId, RelayId};

    fn queue(number: u8) -> Mailbox {
        Mailbox {
            relay: RelayId([number; 32]),
            queue: QueueId([number; 32]),
            sender_seed: [number; 32],
        }
    }

    fn contents(number: Option<(u64, u64)>, items: Vec<Item>) -> Contents {
        let number = number.map(|(number, floor)| Number { number, floor });
        let acknowledgement = Acknowledgement {
            next: 3,
            ranges: vec![NumberRange { first: 5, last: 6 }],
        };
        let (id, written_at) = (MessageId([7; 16]), WallTime(1_790_000_000));
        Contents::new(number, id, written_at, acknowledgement, items)
    }

    fn text(len: usize) -> Item {
        Item::Text(ByteBuf::from(vec![0x41; len]))
    }

    /// With so many zeros behind.
    fn padded(contents: &Contents, zeros: usize) -> Vec<u8> {
        [contents.encode(), vec![0; zeros]].concat()
    }

    #[test] // §11.8(1)
    fn contents_survive_their_padding() {
        let said = contents(
            Some((9, 4)),
            vec![text(30), Item::Queues(vec![queue(1), queue(2)])],
        );
        for zeros in [0, 1, 900] {
            let read = Contents::decode(&padded(&said, zeros));
            assert!(read.is_ok_and(|read| read == said));
        }
        let mut dirty = padded(&said, 10);
        dirty.extend([1]);
        let refused = Contents::decode(&dirty).unwrap_err();
        assert_eq!(refused, ContentsFault::Malformed(Malformed::Trailing));
        assert!(Contents::decode(&said.encode()[1..]).is_err() && Contents::decode(&[]).is_err());
    }

    #[test] // §11.8(1)
    fn a_newer_program_is_told_from_nonsense() {
        let mut bytes = contents(None, Vec::new()).encode();
        bytes[0] = 2;
        assert_eq!(
            Contents::decode(&bytes).unwrap_err(),
            ContentsFault::Version
        );
    }

    #[test] // §11.8(1), §11.8(3)
    fn numbers_queues_and_items_are_bounded() {
        let is_read = |contents: &Contents| Contents::decode(&contents.encode()).is_ok();
        assert!(is_read(&contents(Some((1, 1)), vec![text(0)])));
        for number in [(0, 0), (3, 0), (3, 4), (NUMBERS_AHEAD_MAX + 1, 1)] {
            assert!(!is_read(&contents(Some(number), Vec::new())), "{number:?}");
        }
        let queues = |count| {
            let queues = (0..count).map(|number| queue(u8::try_from(number).unwrap()));
            contents(None, vec![Item::Queues(queues.collect())])
        };
        let twice = contents(None, vec![Item::Queues(vec![queue(1), queue(1)])]);
        assert!(!is_read(&twice), "one queue, twice");
        assert!(is_read(&queues(CONTACT_QUEUES_MAX)) && !is_read(&queues(0)));
        assert!(!is_read(&queues(CONTACT_QUEUES_MAX + 1)));
        let items = |count| contents(None, (0..count).map(|_| text(1)).collect());
        assert!(is_read(&items(MESSAGE_ITEMS_MAX)) && !is_read(&items(MESSAGE_ITEMS_MAX + 1)));
    }

    #[test] // what may be logged
    fn debug_shows_no_text() {
        assert!(!format!("{:?}", contents(None, vec![text(3)])).contains("65"));
    }

    proptest! {
        #[test] // §11.8(1)
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let bytes = [vec![VERSION], bytes].concat();
            if let Ok(contents) = Contents::decode(&bytes) {
                let encoded = contents.encode();
                prop_assert_eq!(&bytes[..encoded.len()], &encoded[..]);
            }
        }
    }
}
