//! The messages of a reconciliation: digests, pages of items, and the answers to them
//! (docs/protocol.md §8.3(1) to §8.3(4)).
//!
//! A page knows its range, so that ranges may later be told apart by fingerprints first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::directory::descriptor::{RelayDescriptor, VerifiedDescriptor};
use crate::directory::service;
use crate::directory::view::NetView;
use crate::ids::{DescriptorHash, RelayId};
use crate::limits::{SYNC_ITEM_LEN, SYNC_ITEMS_MAX};
use crate::wire::{Malformed, Reader};

/// A message of the asker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// This is my view's digest.
    Digest([u8; 32]),
    /// This is what I hold of a range.
    Page(Page),
}

/// A message of the answerer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncReply {
    /// My view has the same digest.
    Same,
    /// It has another.
    Differs,
    /// This is what you lack, and what I want.
    Page(PageReply),
}

/// The beginning of a relay's id: where it is in the order of relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdPrefix(pub [u8; 8]);

impl IdPrefix {
    /// Before everything.
    pub const FIRST: Self = Self([0; 8]);
    /// Behind everything.
    pub const LAST: Self = Self([0xff; 8]);

    /// A relay's.
    pub fn of(relay: &RelayId) -> Self {
        Self(relay.0.first_chunk().copied().unwrap_or_default())
    }

    pub(super) fn next(self) -> Option<Self> {
        u64::from_be_bytes(self.0)
            .checked_add(1)
            .map(|number| Self(number.to_be_bytes()))
    }

    pub(super) fn previous(self) -> Self {
        Self(u64::from_be_bytes(self.0).saturating_sub(1).to_be_bytes())
    }

    pub(super) fn first_id(self) -> RelayId {
        let mut id = [0; RelayId::LEN];
        id.iter_mut()
            .zip(self.0)
            .for_each(|(byte, prefix)| *byte = prefix);
        RelayId(id)
    }
}

/// Which of two descriptors of one relay is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) issued_at: u64,
    pub(super) hash: [u8; 8],
}

impl Version {
    pub(super) fn new(descriptor: &RelayDescriptor, hash: DescriptorHash) -> Self {
        Self {
            issued_at: descriptor.issued_at.as_secs(),
            hash: hash.0.first_chunk().copied().unwrap_or_default(),
        }
    }

    pub(super) fn of(descriptor: &VerifiedDescriptor) -> Self {
        Self::new(descriptor, descriptor.hash())
    }
}

/// One descriptor that the asker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) prefix: IdPrefix,
    pub(super) version: Version,
}

/// The asker's items whose prefixes lie from `from` to `until`, both included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RawPage", try_from = "RawPage")]
pub struct Page {
    pub(super) from: IdPrefix,
    pub(super) until: IdPrefix,
    pub(super) items: Vec<Item>,
}

/// A page on the wire: items back to back.
#[derive(Serialize, Deserialize)]
struct RawPage {
    from: IdPrefix,
    until: IdPrefix,
    items: ByteBuf,
}

impl From<Page> for RawPage {
    fn from(page: Page) -> Self {
        let mut items = Vec::with_capacity(page.items.len() * SYNC_ITEM_LEN);
        for item in &page.items {
            items.extend_from_slice(&item.prefix.0);
            items.extend_from_slice(&item.version.issued_at.to_be_bytes());
            items.extend_from_slice(&item.version.hash);
        }
        Self {
            from: page.from,
            until: page.until,
            items: ByteBuf::from(items),
        }
    }
}

impl TryFrom<RawPage> for Page {
    type Error = BadPage;

    fn try_from(raw: RawPage) -> Result<Self, BadPage> {
        let RawPage {
            from,
            until,
            items: bytes,
        } = raw;
        if from > until || bytes.len() > SYNC_ITEMS_MAX * SYNC_ITEM_LEN {
            return Err(BadPage);
        }
        let items = bytes
            .chunks(SYNC_ITEM_LEN)
            .map(read_item)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| BadPage)?;
        let is_in_range = items
            .iter()
            .all(|item| from <= item.prefix && item.prefix <= until);
        if is_in_range && items.is_sorted_by(|a, b| a < b) {
            Ok(Self { from, until, items })
        } else {
            Err(BadPage)
        }
    }
}

fn read_item(bytes: &[u8]) -> Result<Item, Malformed> {
    let mut reader = Reader::new(bytes);
    let prefix = IdPrefix(reader.array()?);
    let version = Version {
        issued_at: reader.u64()?,
        hash: reader.array()?,
    };
    reader.finish()?;
    Ok(Item { prefix, version })
}

/// A page whose items are too many, out of order or out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPage;

impl core::fmt::Display for BadPage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not a page of a view")
    }
}

impl Page {
    /// The items of `view` from `from` on, as many as fit into a page. Relays with one prefix are
    /// never split.
    pub(super) fn new(view: &NetView, from: IdPrefix) -> Self {
        let mut items: Vec<Item> = view
            .iter_from(from.first_id())
            .take(SYNC_ITEMS_MAX + 1)
            .map(|descriptor| Item {
                prefix: IdPrefix::of(&descriptor.relay),
                version: Version::of(descriptor),
            })
            .collect();
        let mut until = IdPrefix::LAST;
        if items.len() > SYNC_ITEMS_MAX
            && let Some(beyond) = items.pop()
        {
            items.retain(|item| item.prefix != beyond.prefix);
            until = beyond.prefix.previous();
        }
        items.sort_unstable();
        Self {
            from,
            until: until.max(from),
            items,
        }
    }

    /// The newest item of each prefix: items are in order, so that the last one stays.
    pub(super) fn newest(&self) -> BTreeMap<IdPrefix, Version> {
        self.items
            .iter()
            .map(|item| (item.prefix, item.version))
            .collect()
    }
}

/// The answerer's reply to a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageReply {
    /// The reply is about the relays from the page's beginning up to this prefix, included.
    pub covered: IdPrefix,
    /// Descriptors of these that the asker lacks or has older, in order of their relays' ids.
    #[serde(deserialize_with = "service::descriptor_list")]
    pub descriptors: Vec<ByteBuf>,
    /// Prefixes of those items that the answerer lacks or has older, in order, back to back.
    pub wanted: ByteBuf,
}

/// Relays of the view with this prefix: rarely more than one.
pub(super) fn with_prefix(
    view: &NetView,
    prefix: IdPrefix,
) -> impl Iterator<Item = &VerifiedDescriptor> {
    view.iter_from(prefix.first_id())
        .take_while(move |descriptor| IdPrefix::of(&descriptor.relay) == prefix)
}
