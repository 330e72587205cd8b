//! Keeping an own inbox's descriptors at their positions on the ring, for this epoch and the next
//! (docs/protocol.md §9.3(6), §9.4(3)).
//!
//! Each epoch's descriptor has revisions and a clock of its own, which are stored: nothing of them
//! links one epoch's key to another's, and a start changes nothing. A descriptor that names other
//! mailboxes than before goes out at once where it is read; all else waits for its time, and then
//! for its turn among all that this client publishes.

mod publication;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use umbel_proto::chance::exponential;
use umbel_proto::directory::ring;
use umbel_proto::directory::service::{DirectoryRefusal, DirectoryReply, DirectoryRequest};
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::inbox::descriptor::InboxDescriptor;
use umbel_proto::limits::{PUBLISH_CHANGE_SHARE, PUBLISH_PATIENCE, PUBLISH_REST_SHARE};
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Epoch, Instant, WallTime};

use super::super::circuit::Isolation;
use super::super::context::Context;
use super::super::requests::{Answer, Asker, Question, Requests};
use super::InboxId;
use publication::{Pace, Publication, is_read, latest_for};

/// Epochs whose revisions are remembered, past ones among them: a clock that is set back must not
/// begin them anew.
const EPOCHS_MAX: usize = 6;

/// The descriptors of one inbox.
#[derive(Default)]
pub(super) struct Publications {
    by_epoch: BTreeMap<Epoch, Publication>,
    /// The positions were worked out from this: the state of the book, the epoch, and the hour, in
    /// which relays grow old enough to vouch.
    worked_out_from: Option<(u64, Epoch, u64)>,
}

/// The stored state of an epoch's descriptor.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PublicationState {
    epoch: Epoch,
    revision: u64,
    is_outdated: bool,
    next_at: WallTime,
    posted: Vec<RelayId>,
    /// Its revision is being published, and another run goes on with that.
    is_begun: bool,
}

/// The effect of a position's answer on the inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// Nothing to do.
    Fine,
    /// There is something to store.
    News,
    /// A position has a higher revision than ours, of the epoch that senders look in.
    Overtaken,
}

/// A descriptor that waits for its turn. Of those that may go, the one that waits for longest does:
/// none keeps others behind it, even if its positions never take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    since: WallTime,
    pub(super) epoch: Epoch,
    /// An earlier run began to publish it.
    is_cut_short: bool,
    /// It was never published: senders can't find it, or soon could not.
    pub(super) is_unpublished: bool,
}

impl Turn {
    /// Whether it may go while the client rests for what it published before. What senders look for in
    /// vain may, and at a start what the last run left half published.
    pub(super) const fn ignores_rest(&self, is_start: bool) -> bool {
        self.is_unpublished || (self.is_cut_short && is_start)
    }
}

impl Publications {
    pub(super) fn restore(states: &[PublicationState]) -> Self {
        let by_epoch = states
            .iter()
            .map(|state| (state.epoch, Publication::restore(state)));
        Self {
            by_epoch: by_epoch.collect(),
            worked_out_from: None,
        }
    }

    pub(super) fn state(&self) -> Vec<PublicationState> {
        let state = |(&epoch, publication): (&Epoch, &Publication)| PublicationState {
            epoch,
            revision: publication.revision,
            is_outdated: publication.is_outdated,
            next_at: publication.next_at,
            posted: publication.posted.iter().copied().collect(),
            is_begun: publication.begun.is_some(),
        };
        self.by_epoch.iter().map(state).collect()
    }

    /// The revision of this epoch's descriptor; 0 if there is none.
    pub(super) fn revision(&self, epoch: Epoch) -> u64 {
        self.by_epoch.get(&epoch).map_or(0, |it| it.revision)
    }

    /// The descriptor says something else from now on. Nobody looks for the next epoch's yet: it
    /// goes out at a time of its own, before somebody does.
    pub(super) fn change(&mut self, cx: &mut Context<'_>) {
        let every = cx.network.params.inbox_republish;
        for (&epoch, publication) in &mut self.by_epoch {
            publication.is_outdated = publication.revision != 0 || epoch == cx.wall.epoch();
            let soon = cx.wall + exponential(every / PUBLISH_CHANGE_SHARE, cx.rng);
            let next_at = match publication.begun.take() {
                Some(_) => soon,
                None => publication.next_at.min(soon),
            };
            publication.next_at = next_at.min(latest_for(epoch).max(cx.wall));
        }
    }

    /// Another copy of the inbox published this revision: the next one has to be above it.
    pub(super) fn overtake(&mut self, epoch: Epoch, found: u64) {
        if let Some(publication) = self.by_epoch.get_mut(&epoch) {
            publication.revision = publication.revision.max(found);
            publication.is_outdated = true;
            publication.begun = None;
        }
    }

    /// Works positions out anew if the view has changed, or an hour or epoch begins. `is_new`: the
    /// inbox was just made, and its positions are not yet settled.
    pub(super) fn work_out(
        &mut self,
        cx: &mut Context<'_>,
        identity: &InboxIdentity,
        is_published: bool,
        is_new: bool,
    ) {
        let current = cx.wall.epoch();
        let hour = cx.wall.as_secs() / 3600;
        let from = (cx.book.changes(), current, hour);
        if self.worked_out_from == Some(from) {
            return;
        }
        self.worked_out_from = Some(from);
        for epoch in [current, current.next()] {
            let blinded = identity.address().blinded_key(&cx.network.id, epoch);
            let positions = ring::positions(cx.view(), cx.network, cx.wall, &blinded, epoch);
            let publication = self.by_epoch.entry(epoch).or_insert_with(|| {
                Publication::first(cx, epoch, !is_published && epoch == current)
            });
            publication.move_to(cx, &positions, is_new);
        }
        self.forget_others(current, cx.confirmed.epoch());
    }

    /// Begins to publish what can't wait: an outdated descriptor of an epoch that senders read now or
    /// soon, and everything of a new inbox, whose owner may leave after one command. What an earlier
    /// run began waits for its turn, unless senders find nothing or somebody waits (`is_urgent`).
    /// Whether there was any.
    pub(super) fn begin_hasty(
        &mut self,
        cx: &mut Context<'_>,
        is_new: bool,
        is_awaited: bool,
        is_urgent: bool,
    ) -> bool {
        let pace = if is_awaited {
            Pace::AtOnce
        } else {
            Pace::Hasty
        };
        let wall = cx.wall;
        let mut is_any = false;
        for epoch in epochs_at(wall)
            .into_iter()
            .filter(|&epoch| is_new || is_read(epoch, wall))
        {
            let Some(publication) = self.by_epoch.get_mut(&epoch) else {
                continue;
            };
            let is_wanted = match publication.begun {
                None => publication.is_outdated || (is_new && publication.revision == 0),
                Some(begun) => begun == Pace::InTurn && is_urgent,
            };
            if is_wanted {
                publication.begin(cx, pace);
                is_any = true;
            }
        }
        is_any
    }

    /// The descriptor that waits for longest of those that may go, if there is one.
    pub(super) fn due(&self, cx: &Context<'_>, may_go: impl Fn(&Turn) -> bool) -> Option<Turn> {
        let due = |epoch: Epoch| {
            let publication = self.by_epoch.get(&epoch)?;
            let is_unpublished = publication.revision == 0 && is_read(epoch, cx.wall);
            let turn = Turn {
                since: if is_unpublished {
                    epoch.starts_at()
                } else {
                    publication.next_at
                },
                epoch,
                is_cut_short: publication.begun.is_some(),
                is_unpublished,
            };
            publication
                .is_due(cx.wall, &cx.network.params)
                .then_some(turn)
        };
        epochs_at(cx.wall)
            .into_iter()
            .filter_map(due)
            .filter(may_go)
            .min()
    }

    /// Begins to publish this epoch's descriptor, unless that is under way; in haste if the client may
    /// end within seconds.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, epoch: Epoch, is_hasty: bool) {
        let publication = self.by_epoch.get_mut(&epoch);
        if let Some(publication) = publication.filter(|it| !it.is_under_way()) {
            publication.begin(cx, if is_hasty { Pace::Hasty } else { Pace::Usual });
        }
    }

    /// Posts what is due, before all else if somebody waits. All revisions are durable. Whether there
    /// is something to store.
    pub(super) fn post(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        inbox: InboxId,
        identity: &InboxIdentity,
        contents: impl Fn(Epoch) -> Option<InboxDescriptor>,
        is_awaited: bool,
    ) -> bool {
        let mut is_any_settled = false;
        for epoch in epochs_at(cx.wall) {
            let Some(publication) = self.by_epoch.get_mut(&epoch) else {
                continue;
            };
            for relay in publication.missing(cx.now) {
                let sealed = publication.sealed(cx, identity, || contents(epoch), epoch);
                let Some(bytes) = sealed else { break };
                let question =
                    Question::Directory(DirectoryRequest::PublishInbox(ByteBuf::from(bytes)));
                let asker = Asker::Publish {
                    inbox,
                    epoch,
                    relay,
                    revision: publication.revision,
                    is_awaited,
                };
                let isolation = Isolation::Publish { inbox, epoch };
                requests.ask(cx, asker, isolation, relay, question);
                if let Some(posting) = publication.postings.get_mut(&relay) {
                    posting.asked_at = Some(cx.now);
                }
            }
            is_any_settled |= publication.settle_if_done(cx);
        }
        is_any_settled
    }

    pub(super) fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        (epoch, relay): (Epoch, RelayId),
        revision: u64,
        answer: &Answer,
    ) -> Posted {
        let Some(publication) = self.by_epoch.get_mut(&epoch) else {
            return Posted::Fine;
        };
        let Some(posting) = publication.postings.get_mut(&relay) else {
            return Posted::Fine;
        };
        posting.asked_at = None;
        if revision != publication.revision {
            return Posted::Fine;
        }
        match answer {
            Answer::Directory(DirectoryReply::Published) => {
                posting.backoff.reset();
                publication.posted.insert(relay);
                publication.settle_if_done(cx);
                if publication.begun.is_none() {
                    Posted::News
                } else {
                    Posted::Fine
                }
            }
            Answer::Directory(DirectoryReply::Refused(DirectoryRefusal::Stale))
                if epoch == cx.wall.epoch() =>
            {
                posting.backoff.fail(&cx.network.params, cx.now, cx.rng);
                Posted::Overtaken
            }
            Answer::Directory(_) | Answer::Mailbox(_) | Answer::Failed(_) => {
                posting.backoff.fail(&cx.network.params, cx.now, cx.rng);
                if publication.settle_if_done(cx) {
                    Posted::News
                } else {
                    Posted::Fine
                }
            }
        }
    }

    /// The client ends. Whether there is something to store: which positions have a descriptor that is
    /// half published. There is no time to wait for those that were asked and have not answered.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) -> bool {
        let begun = self.by_epoch.values_mut().filter(|it| it.begun.is_some());
        let mut is_any = false;
        for publication in begun {
            is_any = true;
            if publication.were_all_asked(|_| true) {
                publication.settle(cx);
            }
        }
        is_any
    }

    /// Whether nothing is being published, nor due: what new positions get at their times is nothing to
    /// wait for.
    pub(super) fn rests(&self, cx: &Context<'_>) -> bool {
        let mut all = self.by_epoch.values();
        !all.any(Publication::is_under_way) && self.due(cx, |_| true).is_none()
    }

    /// How many of this epoch's positions have its revision, and how many there are.
    pub(super) fn progress(&self, epoch: Epoch) -> (usize, usize) {
        self.by_epoch
            .get(&epoch)
            .map_or((0, 0), Publication::progress)
    }

    /// The revision of this epoch that senders should find by now: it was offered to the positions,
    /// however many of them took it.
    pub(super) fn posted(&self, epoch: Epoch) -> Option<u64> {
        let publication = self.by_epoch.get(&epoch)?;
        let is_out = publication.revision != 0 && publication.is_offered();
        is_out.then_some(publication.revision)
    }

    /// Whether most of this epoch's positions have what the descriptor has to say.
    pub(super) fn is_settled(&self, epoch: Epoch) -> bool {
        self.by_epoch
            .get(&epoch)
            .is_some_and(|it| !it.is_outdated && it.is_complete())
    }

    /// When there is something to post, or somebody was waited for long enough, past moments included.
    /// What waits for its time by the calendar needs no timer: the core looks at its clock often
    /// enough.
    pub(super) fn timeouts(&self) -> impl Iterator<Item = Instant> {
        let publications = self.by_epoch.values().filter(|it| it.may_post());
        publications.flat_map(|publication| {
            let postings = publication.postings.iter();
            let missing = postings.filter(|(relay, _)| !publication.posted.contains(*relay));
            missing.map(|(_, posting)| match posting.asked_at {
                Some(at) => at + PUBLISH_PATIENCE,
                None => posting.backoff.retry_at(),
            })
        })
    }

    /// Forgets where descriptors of other epochs belong, and the epochs that are farthest away, also
    /// from the `confirmed` one: a clock that jumps about must not push out the revisions of today.
    fn forget_others(&mut self, current: Epoch, confirmed: Epoch) {
        for (&epoch, publication) in &mut self.by_epoch {
            if epoch != current && epoch != current.next() {
                publication.postings.clear();
                publication.posted.clear();
                (publication.begun, publication.sealed) = (None, None);
            }
        }
        while self.by_epoch.len() > EPOCHS_MAX {
            let far = |epoch: &Epoch| {
                let is_from = |it: Epoch| epoch.0.abs_diff(it.0);
                is_from(current).min(is_from(confirmed))
            };
            let farthest = self.by_epoch.keys().copied().max_by_key(far);
            farthest.and_then(|epoch| self.by_epoch.remove(&epoch));
        }
    }
}

/// How long this client rests, on average, between two descriptors that it publishes of its own
/// accord, so that no two inboxes or epochs go together. They take a quarter of the time or less.
pub(super) fn rest_mean(params: &Params, inboxes: usize) -> Duration {
    let count = u32::try_from(inboxes).unwrap_or(u32::MAX).max(1);
    params.inbox_republish / PUBLISH_REST_SHARE.saturating_mul(count)
}

/// The epochs that descriptors are published for.
pub(super) fn epochs_at(wall: WallTime) -> [Epoch; 2] {
    let current = wall.epoch();
    [current, current.next()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test] // §9.3(6)
    fn a_clock_that_jumps_about_pushes_out_no_revision_of_today() {
        let mut publications = Publications::default();
        let today = Epoch(100);
        for far in [100, 500, 900, 1300, 1700] {
            for epoch in [Epoch(far), Epoch(far + 1)] {
                let publication = Publication {
                    revision: far,
                    is_outdated: false,
                    next_at: WallTime(0),
                    posted: BTreeSet::new(),
                    postings: BTreeMap::new(),
                    begun: None,
                    sealed: None,
                };
                publications.by_epoch.insert(epoch, publication);
            }
            publications.forget_others(Epoch(far), today);
            assert!(publications.by_epoch.len() <= EPOCHS_MAX);
            assert_eq!(publications.revision(today), 100);
            assert_eq!(publications.revision(Epoch(far)), far);
        }
    }
}
