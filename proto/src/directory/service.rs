//! The messages of the directory service: one request, one reply, each a frame of canonical
//! postcard (docs/protocol.md §8.4).

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_bytes::ByteBuf;

use super::reconcile::{SyncReply, SyncRequest};
use crate::ids::BlindedKey;
use crate::limits::{
    FRAME_LEN_MAX, INBOX_DESCRIPTOR_LEN, NETWORK_FILE_LEN_MAX, RELAY_DESCRIPTOR_LEN_MAX,
    SYNC_BYTES_MAX, SYNC_DESCRIPTORS_MAX, SYNC_FRAME_MAX,
};
use crate::time::Epoch;
use crate::wire::{self, Malformed};

/// A request to a directory relay. Numbers on the wire are in this order, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryRequest {
    /// Let us make our views one.
    Sync(SyncRequest),
    /// Here are relay descriptors; together at most [`SYNC_BYTES_MAX`] bytes.
    Push(#[serde(deserialize_with = "descriptor_list")] Vec<ByteBuf>),
    /// Keep this inbox descriptor; answered once it is durable.
    PublishInbox(ByteBuf),
    /// Which inbox descriptor is there for this key and epoch?
    LookupInbox {
        /// The inbox's key of that epoch.
        blinded: BlindedKey,
        /// The epoch.
        epoch: Epoch,
    },
    /// What is the network's file, as relays hand it on?
    NetworkFile,
}

/// A directory relay's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryReply {
    /// To `Sync`.
    Sync(SyncReply),
    /// To `Push`.
    Pushed {
        /// How many of them were news.
        accepted: u32,
    },
    /// To `PublishInbox`: it is durable here.
    Published,
    /// To `LookupInbox`: the descriptor, if there is one.
    Inbox(Option<ByteBuf>),
    /// To anything: no.
    Refused(DirectoryRefusal),
    /// To `NetworkFile`.
    NetworkFile(ByteBuf),
}

/// Why a directory relay does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryRefusal {
    /// The request can't be read, or what it carries breaks a rule.
    Invalid,
    /// This relay keeps no inbox descriptors.
    Role, // §8.4(5)
    /// There is an inbox descriptor of a higher revision, or another of the same.
    Stale,
    /// The epoch is neither the present nor the next.
    Epoch,
    /// Too many requests for now.
    Busy,
    /// There is no room.
    Full,
    /// It could not be stored.
    Store,
}

impl DirectoryRequest {
    /// The request as a frame.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// It is not exactly one request, within its limits.
    pub fn decode(frame: &[u8]) -> Result<Self, Malformed> {
        let request: Self = decode(frame)?;
        match &request {
            Self::PublishInbox(descriptor) if descriptor.len() != INBOX_DESCRIPTOR_LEN => {
                Err(Malformed::Value)
            }
            Self::Sync(_) | Self::Push(_) if frame.len() > SYNC_FRAME_MAX => {
                Err(Malformed::TooLong)
            }
            Self::Sync(_)
            | Self::Push(_)
            | Self::PublishInbox(_)
            | Self::LookupInbox { .. }
            | Self::NetworkFile => Ok(request),
        }
    }
}

impl DirectoryReply {
    /// Whether it is a reply to this kind of request at all (§8.4(1)).
    pub const fn answers(&self, request: &DirectoryRequest) -> bool {
        matches!(
            (request, self),
            (_, Self::Refused(_))
                | (DirectoryRequest::Sync(_), Self::Sync(_))
                | (DirectoryRequest::Push(_), Self::Pushed { .. })
                | (DirectoryRequest::PublishInbox(_), Self::Published)
                | (DirectoryRequest::LookupInbox { .. }, Self::Inbox(_))
                | (DirectoryRequest::NetworkFile, Self::NetworkFile(_))
        )
    }

    /// The reply as a frame.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// It is not exactly one reply, within its limits.
    pub fn decode(frame: &[u8]) -> Result<Self, Malformed> {
        let reply: Self = decode(frame)?;
        match &reply {
            Self::Inbox(Some(descriptor)) if descriptor.len() != INBOX_DESCRIPTOR_LEN => {
                Err(Malformed::Value)
            }
            Self::NetworkFile(file) if file.len() > NETWORK_FILE_LEN_MAX => Err(Malformed::TooLong),
            Self::Sync(_) if frame.len() > SYNC_FRAME_MAX => Err(Malformed::TooLong),
            Self::Sync(_)
            | Self::Pushed { .. }
            | Self::Published
            | Self::Inbox(_)
            | Self::Refused(_)
            | Self::NetworkFile(_) => Ok(reply),
        }
    }
}

fn decode<T: Serialize + serde::de::DeserializeOwned>(frame: &[u8]) -> Result<T, Malformed> {
    if frame.len() > FRAME_LEN_MAX {
        Err(Malformed::TooLong)
    } else {
        wire::decode(frame)
    }
}

/// Reads a list of relay descriptors' bytes. Each keeps to its limit, and all together to that of a
/// message.
pub(super) fn descriptor_list<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<ByteBuf>, D::Error> {
    let list = wire::list::<_, ByteBuf, SYNC_DESCRIPTORS_MAX>(from)?;
    let total: usize = list.iter().map(|bytes| bytes.len()).sum();
    if total > SYNC_BYTES_MAX
        || list
            .iter()
            .any(|bytes| bytes.len() > RELAY_DESCRIPTOR_LEN_MAX)
    {
        return Err(D::Error::custom("relay descriptors longer than allowed"));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::directory::range::IdRange;
    use crate::directory::reconcile::{PageReply, RangeFingerprint};

    /// So many relay descriptors always fit in one push, however long they are.
    const PUSH_MAX: usize = SYNC_BYTES_MAX / RELAY_DESCRIPTOR_LEN_MAX;

    fn round_trips(request: &DirectoryRequest) -> bool {
        DirectoryRequest::decode(&request.encode()).as_ref() == Ok(request)
    }

    #[test] // §8.4
    fn requests_within_their_limits_survive_the_wire() {
        let compare = SyncRequest::Compare(vec![RangeFingerprint {
            range: IdRange::ALL,
            fingerprint: [7; 32],
        }]);
        assert!(round_trips(&DirectoryRequest::Sync(compare)));
        assert!(round_trips(&DirectoryRequest::Push(vec![
            ByteBuf::from(
                vec![1; RELAY_DESCRIPTOR_LEN_MAX]
            );
            PUSH_MAX
        ])));
        assert!(round_trips(&DirectoryRequest::PublishInbox(ByteBuf::from(
            vec![2; INBOX_DESCRIPTOR_LEN]
        ))));
        assert!(round_trips(&DirectoryRequest::LookupInbox {
            blinded: BlindedKey([3; 32]),
            epoch: Epoch(2900)
        }));
    }

    #[test] // §8.4
    fn requests_beyond_their_limits_are_refused() {
        let push = |count, len| DirectoryRequest::Push(vec![ByteBuf::from(vec![1; len]); count]);
        assert!(
            !round_trips(&push(PUSH_MAX + 1, RELAY_DESCRIPTOR_LEN_MAX)),
            "too many bytes"
        );
        assert!(
            !round_trips(&push(1, RELAY_DESCRIPTOR_LEN_MAX + 1)),
            "one too long"
        );
        assert!(!round_trips(&push(SYNC_DESCRIPTORS_MAX + 1, 1)), "too many");
        assert!(!round_trips(&DirectoryRequest::PublishInbox(
            ByteBuf::from(vec![2; INBOX_DESCRIPTOR_LEN - 1])
        )));
    }

    #[test] // §8.4
    fn replies_are_held_to_the_same_limits() {
        let page = |len| {
            let descriptors = vec![ByteBuf::from(vec![1; len])];
            let reply = PageReply {
                covered: IdRange::ALL.until(),
                descriptors,
                wanted: Vec::new(),
                refused: Vec::new(),
            };
            DirectoryReply::decode(&DirectoryReply::Sync(SyncReply::Page(reply)).encode())
        };
        assert!(page(RELAY_DESCRIPTOR_LEN_MAX).is_ok());
        assert!(page(RELAY_DESCRIPTOR_LEN_MAX + 1).is_err());
        let inbox = |len| {
            DirectoryReply::decode(
                &DirectoryReply::Inbox(Some(ByteBuf::from(vec![1; len]))).encode(),
            )
        };
        assert!(inbox(INBOX_DESCRIPTOR_LEN).is_ok());
        assert!(inbox(INBOX_DESCRIPTOR_LEN + 1).is_err());
        assert!(DirectoryReply::decode(&DirectoryReply::Inbox(None).encode()).is_ok());
        let file = |len| {
            let file = ByteBuf::from(vec![1; len]);
            DirectoryReply::decode(&DirectoryReply::NetworkFile(file).encode())
        };
        assert!(file(NETWORK_FILE_LEN_MAX).is_ok());
        assert!(file(NETWORK_FILE_LEN_MAX + 1).is_err());
    }

    #[test]
    fn left_over_bytes_are_refused() {
        let mut frame = DirectoryReply::Published.encode();
        frame.push(0);
        assert_eq!(DirectoryReply::decode(&frame), Err(Malformed::Trailing));
    }

    proptest! {
        #[test]
        fn what_decodes_has_one_encoding(frame in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(request) = DirectoryRequest::decode(&frame) {
                prop_assert_eq!(request.encode(), frame.clone());
            }
            if let Ok(reply) = DirectoryReply::decode(&frame) {
                prop_assert_eq!(reply.encode(), frame);
            }
        }

        #[test]
        fn damaged_pages_never_panic(
            items in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..200, byte in any::<u8>(),
        ) {
            let mut frame = vec![0, 1, 1, 0, 0];
            frame.extend_from_slice(&wire::encode(&ByteBuf::from(items)));
            if let Some(slot) = frame.get_mut(at) {
                *slot = byte;
            }
            if let Ok(request) = DirectoryRequest::decode(&frame) {
                prop_assert_eq!(request.encode(), frame);
            }
        }
    }
}
