//! How two views become one: a digest each, and where they differ, pages of what the asker holds
//! (docs/protocol.md §8.3).
//!
//! Union: what one side lacks, it gets; nothing is deleted. The asker lists a range of its relays,
//! the answerer sends what is newer in that range and says what it wants, and how far it came; the
//! asker pushes what is wanted and goes on behind that point. Every message is bounded, every reply
//! makes progress, and a reply that holds anything but what it may is a fault. A page knows its
//! range, so that ranges may later be told apart by fingerprints first.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::descriptor::{DescriptorFault, RelayDescriptor, Unverified, VerifiedDescriptor};
use super::service::{self, DirectoryRefusal, DirectoryReply, DirectoryRequest};
use super::view::NetView;
use crate::ids::{DescriptorHash, RelayId};
use crate::limits::{SYNC_BYTES_MAX, SYNC_ITEM_LEN, SYNC_ITEMS_MAX, SYNC_ROUNDS_MAX};
use crate::violation::Violation;
use crate::wire::{Malformed, Reader};

/// What the asker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// This is my view's digest.
    Digest([u8; 32]),
    /// This is what I hold of a range.
    Page(Page),
}

/// What the answerer says.
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

    fn next(self) -> Option<Self> {
        u64::from_be_bytes(self.0)
            .checked_add(1)
            .map(|number| Self(number.to_be_bytes()))
    }

    fn previous(self) -> Self {
        Self(u64::from_be_bytes(self.0).saturating_sub(1).to_be_bytes())
    }

    fn first_id(self) -> RelayId {
        let mut id = [0; RelayId::LEN];
        id.iter_mut()
            .zip(self.0)
            .for_each(|(byte, prefix)| *byte = prefix);
        RelayId(id)
    }
}

/// Which of two descriptors of one relay is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    issued_at: u64,
    hash: [u8; 8],
}

impl Version {
    fn new(descriptor: &RelayDescriptor, hash: DescriptorHash) -> Self {
        Self {
            issued_at: descriptor.issued_at.as_secs(),
            hash: hash.0.first_chunk().copied().unwrap_or_default(),
        }
    }

    fn of(descriptor: &VerifiedDescriptor) -> Self {
        Self::new(descriptor, descriptor.hash())
    }
}

/// One descriptor that the asker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    prefix: IdPrefix,
    version: Version,
}

/// What the asker holds of the relays whose prefixes lie from `from` to `until`, both included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RawPage", try_from = "RawPage")]
pub struct Page {
    from: IdPrefix,
    until: IdPrefix,
    items: Vec<Item>,
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
    /// What `view` holds from `from` on, up to as much as a page takes. Relays with one prefix are
    /// never torn apart.
    fn new(view: &NetView, from: IdPrefix) -> Self {
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
    fn newest(&self) -> BTreeMap<IdPrefix, Version> {
        self.items
            .iter()
            .map(|item| (item.prefix, item.version))
            .collect()
    }
}

/// What the answerer makes of a page.
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

/// Answers an asker: what it lacks, what is wanted of it.
pub fn answer(view: &NetView, request: &SyncRequest) -> SyncReply {
    match request {
        SyncRequest::Digest(digest) if *digest == view.digest() => SyncReply::Same,
        SyncRequest::Digest(_) => SyncReply::Differs,
        SyncRequest::Page(page) => SyncReply::Page(answer_page(view, page)),
    }
}

fn answer_page(view: &NetView, page: &Page) -> PageReply {
    let theirs = page.newest();
    let mut covered = page.until;
    let mut sent: Vec<(IdPrefix, &[u8])> = Vec::new();
    let mut sent_bytes = 0;
    for descriptor in view.iter_from(page.from.first_id()) {
        let prefix = IdPrefix::of(&descriptor.relay);
        if prefix > page.until {
            break;
        }
        if theirs
            .get(&prefix)
            .is_some_and(|their_version| *their_version >= Version::of(descriptor))
        {
            continue;
        }
        sent_bytes += descriptor.bytes().len();
        if sent_bytes > SYNC_BYTES_MAX {
            covered = prefix.previous().max(page.from);
            sent.retain(|(sent_prefix, _)| *sent_prefix <= covered);
            break;
        }
        sent.push((prefix, descriptor.bytes()));
    }
    let is_wanted = |prefix: IdPrefix, version: Version| {
        prefix <= covered && newest_of(view, prefix).is_none_or(|our_version| our_version < version)
    };
    let wanted: Vec<u8> = theirs
        .iter()
        .filter(|&(&prefix, &version)| is_wanted(prefix, version))
        .flat_map(|(prefix, _)| prefix.0)
        .collect();
    let descriptors = sent
        .into_iter()
        .map(|(_, bytes)| ByteBuf::from(bytes))
        .collect();
    PageReply {
        covered,
        descriptors,
        wanted: ByteBuf::from(wanted),
    }
}

fn with_prefix(view: &NetView, prefix: IdPrefix) -> impl Iterator<Item = &VerifiedDescriptor> {
    view.iter_from(prefix.first_id())
        .take_while(move |descriptor| IdPrefix::of(&descriptor.relay) == prefix)
}

fn newest_of(view: &NetView, prefix: IdPrefix) -> Option<Version> {
    with_prefix(view, prefix).map(Version::of).max()
}

/// The asking side of one reconciliation. Feed it the reply to each request that it gives; do with
/// what was received what is to be done (verify, admit), and send the next request, until there is
/// none.
#[derive(Debug)]
pub struct Syncer {
    state: State,
    /// Whether the answerer gets what it wants: relays give, clients only take.
    is_giving: bool,
    rounds: usize,
    /// What the answerer wants and has not been sent yet.
    wanted: VecDeque<IdPrefix>,
    /// Where the next page begins.
    next_from: Option<IdPrefix>,
}

#[derive(Debug)]
enum State {
    /// Our digest is with the answerer.
    Digest,
    /// A page of ours is.
    Page {
        from: IdPrefix,
        until: IdPrefix,
        listed: BTreeMap<IdPrefix, Version>,
    },
    /// A push of this many descriptors is.
    Push { count: usize },
    /// There is nothing more to say.
    Done,
}

/// What a reply brought.
#[derive(Debug)]
pub struct SyncStep {
    /// Descriptors that this node lacks or has older.
    pub received: Vec<Unverified>,
    /// What to ask next; nothing if the views are one.
    pub request: Option<DirectoryRequest>,
}

impl Syncer {
    /// Begins a reconciliation both ways.
    pub fn begin(view: &NetView) -> (Self, DirectoryRequest) {
        Self::begin_either(view, true)
    }

    /// Begins one in which this side only takes: a client's.
    pub fn begin_taking(view: &NetView) -> (Self, DirectoryRequest) {
        Self::begin_either(view, false)
    }

    fn begin_either(view: &NetView, is_giving: bool) -> (Self, DirectoryRequest) {
        let next_from = Some(IdPrefix::FIRST);
        let syncer = Self {
            state: State::Digest,
            is_giving,
            rounds: 1,
            wanted: VecDeque::new(),
            next_from,
        };
        (
            syncer,
            DirectoryRequest::Sync(SyncRequest::Digest(view.digest())),
        )
    }

    /// Whether there is nothing more to say.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes the reply to the last request. After a fault there is nothing more to say to this
    /// answerer.
    ///
    /// # Errors
    /// The rule that the reply breaks, or why the answerer refused.
    pub fn on_reply(
        &mut self,
        view: &NetView,
        reply: DirectoryReply,
    ) -> Result<SyncStep, SyncFault> {
        let received = match (core::mem::replace(&mut self.state, State::Done), reply) {
            (_, DirectoryReply::Refused(refusal)) => return Err(SyncFault::Refused(refusal)),
            (State::Digest, DirectoryReply::Sync(SyncReply::Same)) => {
                return Ok(SyncStep {
                    received: Vec::new(),
                    request: None,
                });
            }
            (State::Digest, DirectoryReply::Sync(SyncReply::Differs)) => Vec::new(),
            (
                State::Page {
                    from,
                    until,
                    listed,
                },
                DirectoryReply::Sync(SyncReply::Page(reply)),
            ) => self.on_page(from, until, &listed, &reply)?,
            (State::Push { count }, DirectoryReply::Pushed { accepted }) => {
                if usize::try_from(accepted).is_ok_and(|accepted| accepted <= count) {
                    Vec::new()
                } else {
                    return Err(SyncFault::Unexpected);
                }
            }
            (_, _) => return Err(SyncFault::Unexpected),
        };
        let request = self.next_request(view);
        if request.is_some() {
            self.rounds += 1;
            if self.rounds > SYNC_ROUNDS_MAX {
                self.state = State::Done;
                return Err(SyncFault::Rounds);
            }
        }
        Ok(SyncStep { received, request })
    }

    fn on_page(
        &mut self,
        from: IdPrefix,
        until: IdPrefix,
        listed: &BTreeMap<IdPrefix, Version>,
        reply: &PageReply,
    ) -> Result<Vec<Unverified>, SyncFault> {
        let covered = reply.covered;
        if covered < from || covered > until {
            return Err(SyncFault::Range);
        }
        // Who stops early must have been stopped by the limit: else a reply could bring next to
        // nothing, for ever.
        let reply_bytes: usize = reply.descriptors.iter().map(|bytes| bytes.len()).sum();
        if covered < until && reply_bytes < SYNC_BYTES_MAX / 2 {
            return Err(SyncFault::Stalled);
        }
        let received = read_received(reply, from, listed)?;
        let wanted = read_wanted(reply, listed)?;
        if self.is_giving {
            self.wanted.extend(wanted);
        }
        self.next_from = covered.next();
        Ok(received)
    }

    fn next_request(&mut self, view: &NetView) -> Option<DirectoryRequest> {
        let pushed = self.next_push(view);
        if !pushed.is_empty() {
            self.state = State::Push {
                count: pushed.len(),
            };
            return Some(DirectoryRequest::Push(pushed));
        }
        let page = Page::new(view, self.next_from?);
        self.state = State::Page {
            from: page.from,
            until: page.until,
            listed: page.newest(),
        };
        Some(DirectoryRequest::Sync(SyncRequest::Page(page)))
    }

    /// As much of what is wanted as one push takes. What has left the view meanwhile is left out.
    fn next_push(&mut self, view: &NetView) -> Vec<ByteBuf> {
        let mut batch: Vec<ByteBuf> = Vec::new();
        let mut batch_bytes = 0;
        while let Some(&prefix) = self.wanted.front() {
            let newest = with_prefix(view, prefix).max_by_key(|descriptor| Version::of(descriptor));
            if let Some(descriptor) = newest {
                batch_bytes += descriptor.bytes().len();
                if batch_bytes > SYNC_BYTES_MAX {
                    break;
                }
                batch.push(ByteBuf::from(descriptor.bytes()));
            }
            self.wanted.pop_front();
        }
        batch
    }
}

/// The descriptors of a reply, if it may hold them: well-formed, in order, in the covered range,
/// newer than what we listed.
fn read_received(
    reply: &PageReply,
    from: IdPrefix,
    listed: &BTreeMap<IdPrefix, Version>,
) -> Result<Vec<Unverified>, SyncFault> {
    let mut received: Vec<Unverified> = Vec::new();
    for bytes in &reply.descriptors {
        let descriptor = Unverified::decode(bytes).map_err(SyncFault::Descriptor)?;
        let prefix = IdPrefix::of(&descriptor.relay());
        if prefix < from || prefix > reply.covered {
            return Err(SyncFault::Unasked);
        }
        if received
            .last()
            .is_some_and(|last| last.relay() >= descriptor.relay())
        {
            return Err(SyncFault::Unasked);
        }
        let version = Version::new(descriptor.claims(), descriptor.hash());
        if listed.get(&prefix).is_some_and(|ours| *ours >= version) {
            return Err(SyncFault::Unasked);
        }
        received.push(descriptor);
    }
    Ok(received)
}

/// What the answerer wants, if it may want it: in order, listed by us, in the covered range.
fn read_wanted(
    reply: &PageReply,
    listed: &BTreeMap<IdPrefix, Version>,
) -> Result<Vec<IdPrefix>, SyncFault> {
    let (chunks, rest) = reply.wanted.as_chunks::<8>();
    let wanted: Vec<_> = chunks.iter().map(|&prefix| IdPrefix(prefix)).collect();
    let is_listed = wanted
        .iter()
        .all(|prefix| *prefix <= reply.covered && listed.contains_key(prefix));
    if rest.is_empty() && is_listed && wanted.is_sorted_by(|a, b| a < b) {
        Ok(wanted)
    } else {
        Err(SyncFault::Wanted)
    }
}

/// Why a reconciliation came to nothing: a rule that the answerer broke, or its refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncFault {
    /// The answerer refused.
    Refused(DirectoryRefusal),
    /// The reply is not one to what was asked.
    Unexpected,
    /// The reply covers something outside the page.
    Range,
    /// The reply stops before it had to.
    Stalled,
    /// The reply holds a descriptor outside its range, out of order, or no newer than ours.
    Unasked,
    /// The reply holds something that is no descriptor.
    Descriptor(DescriptorFault),
    /// The answerer wants what was not listed.
    Wanted,
    /// It never ends.
    Rounds,
}

/// What a circuit is destroyed for; a refusal is no reason to, and callers look at it first.
impl From<SyncFault> for Violation {
    fn from(_: SyncFault) -> Self {
        Self::Unexpected
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
