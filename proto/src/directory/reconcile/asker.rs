//! The asking side of a reconciliation (docs/protocol.md §8.3(2) to §8.3(6)): digest first, then
//! page after page, and a push of what the answerer wants before the next page.
//!
//! Every request is bounded and every reply makes progress, or is a fault.

use std::collections::{BTreeMap, VecDeque};

use serde_bytes::ByteBuf;

use super::items::{IdPrefix, Page, PageReply, SyncReply, SyncRequest, Version, with_prefix};
use crate::directory::descriptor::{DescriptorFault, Unverified};
use crate::directory::service::{DirectoryRefusal, DirectoryReply, DirectoryRequest};
use crate::directory::view::NetView;
use crate::limits::{SYNC_BYTES_MAX, SYNC_ROUNDS_MAX};
use crate::violation::Violation;

/// The asking side of one reconciliation. Feed it the reply to each request, handle the descriptors
/// that it returns (verify, admit), and send its next request until there is none.
#[derive(Debug)]
pub struct Syncer {
    state: State,
    /// Whether the answerer gets what it wants: relays give, clients only take.
    is_giving: bool,
    pub(super) rounds: usize,
    /// Descriptors that the answerer wants and that are not sent yet.
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

    /// As many of the wanted descriptors as fit into one push, without those that have left the
    /// view.
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

/// The items that the answerer wants, if it may: in order, listed by us, in the covered range.
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

/// The fault for which the circuit is destroyed. A refusal is none; callers look at it first.
impl From<SyncFault> for Violation {
    fn from(_: SyncFault) -> Self {
        Self::Unexpected
    }
}
