//! Keeping an own inbox's descriptor at all its positions on the ring, for this epoch and the next
//! (docs/protocol.md §9.4).
//!
//! Each position gets it on a circuit of its own. Positions change with the epoch and as relays
//! come and go. Failures are retried for as long as the inbox exists.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;
use umbel_proto::directory::ring;
use umbel_proto::directory::service::{DirectoryRefusal, DirectoryReply, DirectoryRequest};
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::inbox::descriptor::InboxDescriptor;
use umbel_proto::time::{Epoch, Instant};

use super::chance::{Backoff, between};
use super::circuit::Isolation;
use super::context::Context;
use super::requests::{Answer, Asker, Question, Requests};

/// The positions that a descriptor belongs on, and those that have it.
#[derive(Default)]
pub(super) struct Publication {
    postings: BTreeMap<(Epoch, RelayId), Posting>,
    /// The posted bytes: one revision has one form, so that all positions hold the same.
    sealed: BTreeMap<Epoch, (u64, Vec<u8>)>,
    /// The view and the epoch that the positions were worked out from.
    worked_out_from: Option<([u8; 32], Epoch)>,
    /// When all is posted again, in case a position lost it.
    again_at: Option<Instant>,
}

/// One position.
#[derive(Default)]
struct Posting {
    stored: Option<u64>,
    is_asked: bool,
    backoff: Backoff,
}

/// The effect of a position's answer on the inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// Nothing to do.
    Fine,
    /// A position has a higher revision than ours.
    Overtaken,
}

impl Publication {
    /// Works positions out anew if the view or the epoch changed, and posts where it is due; before
    /// all else if somebody waits.
    pub(super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        name: &str,
        identity: &InboxIdentity,
        descriptor: &InboxDescriptor,
        is_awaited: bool,
    ) {
        self.work_out(cx, identity);
        self.begin_again_if_due(cx);
        let now = cx.now;
        let revision = descriptor.revision;
        let due: Vec<(Epoch, RelayId)> = self
            .postings
            .iter()
            .filter(|(_, posting)| posting.is_due(now, revision))
            .map(|(&at, _)| at)
            .collect();
        for (epoch, relay) in due {
            let bytes = self.sealed_for(cx, identity, descriptor, epoch);
            let question =
                Question::Directory(DirectoryRequest::PublishInbox(ByteBuf::from(bytes)));
            let asker = Asker::Publish {
                inbox: name.to_owned(),
                epoch,
                relay,
                revision,
                is_awaited,
            };
            requests.ask(
                cx,
                asker,
                Isolation::Publish {
                    inbox: name.to_owned(),
                    epoch,
                },
                relay,
                question,
            );
            if let Some(posting) = self.postings.get_mut(&(epoch, relay)) {
                posting.is_asked = true;
            }
        }
    }

    pub(super) fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        at: (Epoch, RelayId),
        revision: u64,
        answer: &Answer,
    ) -> Posted {
        let Some(posting) = self.postings.get_mut(&at) else {
            return Posted::Fine;
        };
        posting.is_asked = false;
        if let Answer::Directory(DirectoryReply::Published) = answer {
            posting.stored = Some(revision);
            posting.backoff.reset();
            return Posted::Fine;
        }
        posting.backoff.fail(cx);
        match answer {
            Answer::Directory(DirectoryReply::Refused(DirectoryRefusal::Stale)) => {
                Posted::Overtaken
            }
            Answer::Directory(_) | Answer::Mailbox(_) | Answer::Failed(_) => Posted::Fine,
        }
    }

    /// How many of this epoch's positions have this revision, and how many there are.
    pub(super) fn progress(&self, epoch: Epoch, revision: u64) -> (usize, usize) {
        let current = self.postings.iter().filter(|((at, _), _)| *at == epoch);
        let stored = current
            .clone()
            .filter(|(_, posting)| posting.stored == Some(revision))
            .count();
        (stored, current.count())
    }

    /// Whether more than half of the positions of each epoch have this revision. One that has not,
    /// for which it may be to blame, is no reason to publish anew with each run.
    pub(super) fn is_complete(&self, revision: u64) -> bool {
        let epochs: BTreeSet<Epoch> = self.postings.keys().map(|&(epoch, _)| epoch).collect();
        let is_known = |&epoch: &Epoch| {
            let (stored, all) = self.progress(epoch, revision);
            stored * 2 > all
        };
        !epochs.is_empty() && epochs.iter().all(is_known)
    }

    /// When there is something to post, past moments included.
    pub(super) fn timeouts(&self, revision: u64) -> impl Iterator<Item = Instant> {
        let missing = self
            .postings
            .values()
            .filter(move |posting| !posting.is_asked && posting.stored != Some(revision));
        missing
            .map(|posting| posting.backoff.retry_at())
            .chain(self.again_at)
    }

    fn work_out(&mut self, cx: &Context<'_>, identity: &InboxIdentity) {
        let epoch = cx.wall.epoch();
        let from = (cx.view().digest(), epoch);
        if self.worked_out_from == Some(from) {
            return;
        }
        self.worked_out_from = Some(from);
        let mut postings = BTreeMap::new();
        for epoch in [epoch, epoch.next()] {
            let blinded = identity.address().blinded_key(&cx.network.id, epoch);
            let positions = ring::positions(cx.view(), cx.network, cx.wall, &blinded, epoch);
            for relay in positions.iter() {
                let at = (epoch, relay);
                postings.insert(at, self.postings.remove(&at).unwrap_or_default());
            }
        }
        self.postings = postings;
        self.sealed.retain(|&at, _| at >= epoch);
    }

    fn begin_again_if_due(&mut self, cx: &mut Context<'_>) {
        if self.again_at.is_some_and(|again_at| again_at > cx.now) {
            return;
        }
        if self.again_at.is_some() {
            for posting in self.postings.values_mut() {
                posting.stored = None;
            }
        }
        let every = cx.network.params.inbox_republish;
        self.again_at = Some(cx.now + between(every * 3 / 4, every * 5 / 4, cx.rng));
    }

    fn sealed_for(
        &mut self,
        cx: &mut Context<'_>,
        identity: &InboxIdentity,
        descriptor: &InboxDescriptor,
        epoch: Epoch,
    ) -> Vec<u8> {
        match self.sealed.get(&epoch) {
            Some((revision, bytes)) if *revision == descriptor.revision => bytes.clone(),
            _ => {
                let bytes = descriptor.seal(identity, &cx.network.id, epoch, cx.rng);
                self.sealed
                    .insert(epoch, (descriptor.revision, bytes.clone()));
                bytes
            }
        }
    }
}

impl Posting {
    fn is_due(&self, now: Instant, revision: u64) -> bool {
        !self.is_asked && self.stored != Some(revision) && self.backoff.is_due(now)
    }
}
