//! The messages of a reconciliation: ranges and their fingerprints, pages of items, and the answers
//! to them (docs/protocol.md §8.3(1) to §8.3(4)).
//!
//! A decoded message keeps the rules that need no view: ranges are in order and do not overlap,
//! items are in order and in their range, and everything is within its limit.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_bytes::ByteBuf;

use super::split::split;
use crate::directory::descriptor::Version;
use crate::directory::range::IdRange;
use crate::directory::service;
use crate::directory::view::{Fingerprint, NetView};
use crate::ids::{DescriptorHash, RelayId};
use crate::limits::{SYNC_ITEM_LEN, SYNC_ITEMS_MAX, SYNC_PARTS_MAX, SYNC_RANGES_MAX};
use crate::time::WallTime;
use crate::wire::{self, Malformed, Reader};

/// A message of the asker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// These are my fingerprints of these ranges.
    Compare(#[serde(deserialize_with = "asked_ranges")] Vec<RangeFingerprint>),
    /// This is all that I hold of these ranges.
    Page(#[serde(deserialize_with = "listed_ranges")] Vec<RangeItems>),
}

/// A message of the answerer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncReply {
    /// How mine compare, one outcome for each range that was asked for, from the first one on.
    Compared(#[serde(deserialize_with = "outcomes")] Vec<Outcome>),
    /// This is what you lack, and what I want.
    Page(PageReply),
}

/// A range, and the fingerprint of what one side holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeFingerprint {
    /// The range.
    pub range: IdRange,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

impl RangeFingerprint {
    pub(super) fn of(view: &NetView, range: IdRange) -> Self {
        Self {
            range,
            fingerprint: view.fingerprint(range),
        }
    }

    /// The parts of a range, unless the view holds few of it (§8.3(8)).
    pub(in crate::directory) fn of_parts(view: &NetView, range: IdRange) -> Option<Vec<Self>> {
        let parts = split(view, range)?.into_iter();
        Some(parts.map(|part| Self::of(view, part)).collect())
    }
}

/// How the answerer compares on one range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It has the same fingerprint.
    Same,
    /// It has another: these are its fingerprints of the range's parts.
    Split(#[serde(deserialize_with = "parts")] Vec<RangeFingerprint>),
    /// It has another, and few relays: the asker is to list its own.
    Few,
}

/// One descriptor that the asker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    pub(super) relay: RelayId,
    pub(super) version: Version,
}

/// Everything that the asker holds of a range, in order of relay ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RawRangeItems", try_from = "RawRangeItems")]
pub struct RangeItems {
    pub(super) range: IdRange,
    pub(super) items: Vec<Item>,
}

impl RangeItems {
    /// The item of this relay, if it is listed.
    pub(super) fn find(&self, relay: &RelayId) -> Option<&Item> {
        let at = self.items.binary_search_by_key(relay, |item| item.relay);
        at.ok().and_then(|at| self.items.get(at))
    }
}

/// A range and its items on the wire: the items back to back.
#[derive(Serialize, Deserialize)]
struct RawRangeItems {
    range: IdRange,
    items: ByteBuf,
}

impl From<RangeItems> for RawRangeItems {
    fn from(listed: RangeItems) -> Self {
        let mut items = Vec::with_capacity(listed.items.len() * SYNC_ITEM_LEN);
        for item in &listed.items {
            items.extend_from_slice(&item.relay.0);
            items.extend_from_slice(&item.version.issued_at.as_secs().to_be_bytes());
            items.extend_from_slice(&item.version.hash.0);
        }
        Self {
            range: listed.range,
            items: ByteBuf::from(items),
        }
    }
}

impl TryFrom<RawRangeItems> for RangeItems {
    type Error = BadItems;

    fn try_from(raw: RawRangeItems) -> Result<Self, BadItems> {
        let chunks = raw.items.chunks(SYNC_ITEM_LEN);
        let items: Result<Vec<_>, _> = chunks.map(read_item).collect();
        let items = items.map_err(|_| BadItems)?;
        let is_in_range = items.iter().all(|item| raw.range.contains(&item.relay));
        if is_in_range && items.is_sorted_by(|a, b| a.relay < b.relay) {
            Ok(Self {
                range: raw.range,
                items,
            })
        } else {
            Err(BadItems)
        }
    }
}

fn read_item(bytes: &[u8]) -> Result<Item, Malformed> {
    let mut reader = Reader::new(bytes);
    let relay = RelayId(reader.array()?);
    let version = Version {
        issued_at: WallTime(reader.u64()?),
        hash: DescriptorHash(reader.array()?),
    };
    reader.finish()?;
    Ok(Item { relay, version })
}

/// Items that are torn, out of order or out of their range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadItems;

impl core::fmt::Display for BadItems {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not the items of a range")
    }
}

/// The answerer's reply to a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageReply {
    /// The reply is about the relays of the page up to this id, included.
    pub covered: RelayId,
    /// Descriptors of these that the asker lacks or has older, in order of their relays' ids.
    #[serde(deserialize_with = "service::descriptor_list")]
    pub descriptors: Vec<ByteBuf>,
    /// Those items that the answerer lacks or has older, by their positions among all items of the
    /// page, in order.
    #[serde(deserialize_with = "positions")]
    pub wanted: Vec<u16>,
    /// Those that it has turned away, since other relays hold their addresses: it does not list them.
    /// Alike, and none of those above.
    #[serde(deserialize_with = "positions")]
    pub refused: Vec<u16>,
}

fn asked_ranges<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RangeFingerprint>, D::Error> {
    let list = wire::list::<_, RangeFingerprint, SYNC_RANGES_MAX>(from)?;
    ordered(list, 1, |it| it.range)
}

fn parts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RangeFingerprint>, D::Error> {
    let list = wire::list::<_, RangeFingerprint, SYNC_PARTS_MAX>(from)?;
    ordered(list, 2, |it| it.range)
}

fn listed_ranges<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RangeItems>, D::Error> {
    let list = wire::list::<_, RangeItems, SYNC_RANGES_MAX>(from)?;
    ordered(list, 1, |it| it.range)
}

fn outcomes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Outcome>, D::Error> {
    wire::list::<_, Outcome, SYNC_RANGES_MAX>(from)
}

fn positions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u16>, D::Error> {
    wire::list::<_, u16, SYNC_ITEMS_MAX>(from)
}

/// The list, if it has at least this many ranges, in order and without a common id.
fn ordered<T, E: de::Error>(
    list: Vec<T>,
    least: usize,
    range: impl Fn(&T) -> IdRange,
) -> Result<Vec<T>, E> {
    if list.len() >= least && list.is_sorted_by(|a, b| range(a).until() < range(b).from()) {
        Ok(list)
    } else {
        Err(E::custom("ranges too few, out of order or overlapping"))
    }
}
