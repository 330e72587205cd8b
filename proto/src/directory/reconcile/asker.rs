//! The asking side of a reconciliation (docs/protocol.md §8.3(2) to §8.3(6)): fingerprints of ranges
//! first, then page after page, and a push of what the answerer wants before the next page.
//!
//! Every request is bounded and every reply makes progress, or is a fault. What is still to be asked
//! for is a set of ranges without a common id. Only a range that holds more of our relays than we
//! would list is compared again, and only parts of such ranges are listed: an answerer can't make the
//! set grow for ever.

use std::collections::{BTreeSet, VecDeque};

use serde_bytes::ByteBuf;

use super::messages::{
    Item, Outcome, PageReply, RangeFingerprint, RangeItems, SyncReply, SyncRequest,
};
use super::split::split;
use crate::directory::descriptor::{DescriptorFault, Unverified};
use crate::directory::range::IdRange;
use crate::directory::service::{DirectoryRefusal, DirectoryReply, DirectoryRequest};
use crate::directory::view::NetView;
use crate::ids::RelayId;
use crate::limits::{
    SYNC_BYTES_MAX, SYNC_DESCRIPTORS_MAX, SYNC_FRAME_MAX, SYNC_ITEM_LEN, SYNC_RANGE_LEN_MAX,
    SYNC_RANGES_MAX, SYNC_ROUNDS_MAX,
};
use crate::violation::Violation;
use crate::wire;

/// What is neither ranges nor items in a page: variants and a count, bytes.
const PAGE_HEAD_LEN: usize = 4;
/// The length of a range's items goes before them, in at most so many bytes.
const ITEMS_HEAD_LEN: usize = 3;

/// The asking side of one reconciliation. Feed it the reply to each request, handle the descriptors
/// that it returns (verify, admit), and send its next request until there is none.
#[derive(Debug)]
pub struct Syncer {
    state: State,
    /// Whether the answerer gets what it wants: relays give, clients only take.
    is_giving: bool,
    pub(super) rounds: usize,
    /// Ranges to compare, in order.
    to_compare: BTreeSet<IdRange>,
    /// Ranges that differ, of which our items are to be listed, in order.
    to_list: BTreeSet<IdRange>,
    /// Relays whose descriptors the answerer wants and that are not sent yet.
    wanted: VecDeque<RelayId>,
    /// Relays of which the answerer had nothing as new, when it was asked.
    lacking: BTreeSet<RelayId>,
}

#[derive(Debug)]
enum State {
    /// Our fingerprints of these ranges are with the answerer.
    Compare(Vec<IdRange>),
    /// A page of ours is.
    Page(Vec<RangeItems>),
    /// A push of this many descriptors is.
    Push { count: usize },
    /// There is nothing more to say.
    Done,
}

/// The contents of a reply.
#[derive(Debug)]
pub struct SyncStep {
    /// Descriptors that this node lacks or has older.
    pub received: Vec<Unverified>,
    /// The next request; `None` if the views are equal.
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
        let mut syncer = Self {
            state: State::Done,
            is_giving,
            rounds: 1,
            to_compare: BTreeSet::from([IdRange::ALL]),
            to_list: BTreeSet::new(),
            wanted: VecDeque::new(),
            lacking: BTreeSet::new(),
        };
        let request = syncer.next_compare(view);
        (syncer, request)
    }

    /// The relays of which the answerer had nothing as new, when it was asked.
    pub fn into_lacking(self) -> BTreeSet<RelayId> {
        self.lacking
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
            (State::Compare(asked), DirectoryReply::Sync(SyncReply::Compared(outcomes))) => {
                self.on_compared(view, &asked, outcomes)?;
                Vec::new()
            }
            (State::Page(page), DirectoryReply::Sync(SyncReply::Page(reply))) => {
                self.on_page(&page, &reply)?
            }
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

    fn on_compared(
        &mut self,
        view: &NetView,
        asked: &[IdRange],
        outcomes: Vec<Outcome>,
    ) -> Result<(), SyncFault> {
        let unanswered = asked.get(outcomes.len()..).ok_or(SyncFault::Unexpected)?;
        // An answerer that stops early must have been stopped by the limit: else a reply could bring
        // next to nothing, for ever.
        if !unanswered.is_empty() && wire::encode(&outcomes).len() < SYNC_FRAME_MAX / 2 {
            return Err(SyncFault::Stalled);
        }
        self.to_compare.extend(unanswered);
        for (range, outcome) in asked.iter().zip(outcomes) {
            match outcome {
                Outcome::Same => {}
                Outcome::Split(parts) => self.on_split(view, *range, &parts)?,
                Outcome::Few => _ = self.to_list.insert(*range),
            }
        }
        Ok(())
    }

    /// Compares the answerer's parts of a range with ours: those that differ are split in turn, or
    /// listed where we hold few relays.
    fn on_split(
        &mut self,
        view: &NetView,
        range: IdRange,
        parts: &[RangeFingerprint],
    ) -> Result<(), SyncFault> {
        let is_chain = parts.is_sorted_by(|a, b| a.range.is_followed_by(&b.range));
        let ends = parts.first().zip(parts.last());
        let ends = ends.map(|(first, last)| first.range.through(&last.range));
        if !is_chain || ends != Some(range) {
            return Err(SyncFault::Range);
        }
        for part in parts {
            if view.fingerprint(part.range) == part.fingerprint {
                continue;
            }
            match split(view, part.range) {
                Some(ours) => self.to_compare.extend(ours),
                None => _ = self.to_list.insert(part.range),
            }
        }
        Ok(())
    }

    fn on_page(
        &mut self,
        page: &[RangeItems],
        reply: &PageReply,
    ) -> Result<Vec<Unverified>, SyncFault> {
        let covered = reply.covered;
        let ends = page.first().zip(page.last());
        let ends = ends.map(|(first, last)| first.range.through(&last.range));
        let ends = ends.filter(|ends| ends.contains(&covered));
        let ends = ends.ok_or(SyncFault::Range)?;
        // As for fingerprints: only the limit may stop an answerer.
        let reply_bytes: usize = reply.descriptors.iter().map(|bytes| bytes.len()).sum();
        if covered < ends.until() && reply_bytes < SYNC_BYTES_MAX / 2 {
            return Err(SyncFault::Stalled);
        }
        let received = read_received(page, reply)?;
        let wanted = relays_at(page, covered, &reply.wanted)?;
        let refused = relays_at(page, covered, &reply.refused)?;
        let is_wanted = |position: &u16| reply.wanted.binary_search(position).is_ok();
        if reply.refused.iter().any(is_wanted) {
            return Err(SyncFault::Positions);
        }
        self.lacking.extend(wanted.iter().chain(&refused));
        if self.is_giving {
            self.wanted.extend(wanted);
        }
        let uncovered = page.iter().filter_map(|it| it.range.behind(covered));
        self.to_list.extend(uncovered);
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
        if !self.to_compare.is_empty() {
            return Some(self.next_compare(view));
        }
        let page = self.next_page(view);
        if page.is_empty() {
            return None;
        }
        self.state = State::Page(page.clone());
        Some(DirectoryRequest::Sync(SyncRequest::Page(page)))
    }

    /// Our fingerprints of as many ranges as may be asked for at once.
    fn next_compare(&mut self, view: &NetView) -> DirectoryRequest {
        let mut asked = Vec::new();
        while asked.len() < SYNC_RANGES_MAX
            && let Some(range) = self.to_compare.pop_first()
        {
            asked.push(RangeFingerprint::of(view, range));
        }
        self.state = State::Compare(asked.iter().map(|it| it.range).collect());
        DirectoryRequest::Sync(SyncRequest::Compare(asked))
    }

    /// Our items of as many ranges as fit into a page; the last one may be cut.
    fn next_page(&mut self, view: &NetView) -> Vec<RangeItems> {
        let mut page = Vec::new();
        let mut room = SYNC_FRAME_MAX - PAGE_HEAD_LEN;
        while let Some(left) = room.checked_sub(SYNC_RANGE_LEN_MAX + ITEMS_HEAD_LEN)
            && page.len() < SYNC_RANGES_MAX
            && let Some(mut range) = self.next_to_list()
        {
            let mut heard_of = view.heard_of_in(range);
            let fitting = heard_of.by_ref().take(left / SYNC_ITEM_LEN);
            let items: Vec<Item> = fitting
                .map(|(relay, version)| Item { relay, version })
                .collect();
            if let Some((unlisted, _)) = heard_of.next() {
                let listed = range.before(unlisted);
                let Some(listed) = listed.filter(|_| !items.is_empty()) else {
                    self.to_list.insert(range);
                    break;
                };
                self.to_list.extend(range.starting_at(unlisted));
                range = listed;
            }
            room = left - items.len() * SYNC_ITEM_LEN;
            page.push(RangeItems { range, items });
        }
        page
    }

    /// The next range to list, with those that follow it without a gap.
    fn next_to_list(&mut self) -> Option<IdRange> {
        let mut range = self.to_list.pop_first()?;
        while let Some(next) = self.to_list.first().copied()
            && range.is_followed_by(&next)
        {
            self.to_list.pop_first();
            range = range.through(&next);
        }
        Some(range)
    }

    /// As many of the wanted descriptors as fit into one push (§8.3(5)), without those that have
    /// left the view.
    fn next_push(&mut self, view: &NetView) -> Vec<ByteBuf> {
        let mut batch: Vec<ByteBuf> = Vec::new();
        let mut batch_bytes = 0;
        while let Some(relay) = self.wanted.front() {
            if let Some(descriptor) = view.told(relay) {
                batch_bytes += descriptor.bytes().len();
                if batch_bytes > SYNC_BYTES_MAX || batch.len() == SYNC_DESCRIPTORS_MAX {
                    break;
                }
                batch.push(ByteBuf::from(descriptor.bytes()));
            }
            self.wanted.pop_front();
        }
        batch
    }
}

/// The descriptors of a reply, if it may hold them: well-formed, in order, in ranges that it covers,
/// newer than what we listed.
fn read_received(page: &[RangeItems], reply: &PageReply) -> Result<Vec<Unverified>, SyncFault> {
    let mut received: Vec<Unverified> = Vec::new();
    for bytes in &reply.descriptors {
        let descriptor = Unverified::decode(bytes).map_err(SyncFault::Descriptor)?;
        let relay = descriptor.relay();
        let is_in_order = received.last().is_none_or(|last| last.relay() < relay);
        let at = page.partition_point(|listed| listed.range.until() < relay);
        let listed = page.get(at).filter(|it| it.range.contains(&relay));
        let version = descriptor.version();
        let is_newer = |listed: &RangeItems| {
            let ours = listed.find(&relay);
            ours.is_none_or(|ours| ours.version < version)
        };
        if relay > reply.covered || !is_in_order || !listed.is_some_and(is_newer) {
            return Err(SyncFault::Unasked);
        }
        received.push(descriptor);
    }
    Ok(received)
}

/// The relays at these positions of a page, if the answerer may name them: in order, listed by us,
/// and covered.
fn relays_at(
    page: &[RangeItems],
    covered: RelayId,
    positions: &[u16],
) -> Result<Vec<RelayId>, SyncFault> {
    let items: Vec<&Item> = page.iter().flat_map(|listed| &listed.items).collect();
    let relay_at = |position: &u16| {
        let item = items.get(usize::from(*position));
        item.map(|item| item.relay)
            .filter(|relay| *relay <= covered)
            .ok_or(SyncFault::Positions)
    };
    if !positions.is_sorted_by(|a, b| a < b) {
        return Err(SyncFault::Positions);
    }
    positions.iter().map(relay_at).collect()
}

/// Why a reconciliation came to nothing: a rule that the answerer broke, or its refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncFault {
    /// The answerer refused.
    Refused(DirectoryRefusal),
    /// The reply is not one to what was asked.
    Unexpected,
    /// The reply covers something outside the page, or splits a range into parts that are not it.
    Range,
    /// The reply stops before it had to.
    Stalled,
    /// The reply holds a descriptor outside its range, out of order, or no newer than ours.
    Unasked,
    /// The reply holds something that is no descriptor.
    Descriptor(DescriptorFault),
    /// A descriptor has a wrong signature. Found by the book, which checks them.
    Forged,
    /// The answerer wants or refuses what was not listed, or names it twice.
    Positions,
    /// It never ends.
    Rounds,
}

/// The fault for which the circuit is destroyed. A refusal is none; callers look at it first.
impl From<SyncFault> for Violation {
    fn from(_: SyncFault) -> Self {
        Self::Unexpected
    }
}
