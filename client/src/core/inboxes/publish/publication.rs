//! The descriptor of one epoch: its revision, the positions that it belongs on, and those that have it
//! (docs/protocol.md §9.3(6), §9.4(3)).
//!
//! Decides when each position gets it, and when it is settled. Which epochs there are, and whose turn
//! it is, is decided above.

use std::collections::{BTreeMap, BTreeSet};

use rand::{CryptoRng, RngExt};
use umbel_proto::chance::{Backoff, between, exponential};
use umbel_proto::directory::ring::Positions;
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::inbox::descriptor::InboxDescriptor;
use umbel_proto::limits::{
    PUBLISH_LEAD, PUBLISH_MOVED_SHARE, PUBLISH_PACE_SHARE, PUBLISH_PATIENCE, PUBLISH_READ_AHEAD,
    PUBLISH_WITHIN, PUBLISHED_MIN, REVISION_FIRST_BITS, REVISION_STEP_BITS_MAX, RING_POSITIONS,
    WAIT_CUT,
};
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Epoch, Instant, WallTime};

use super::super::super::context::Context;
use super::PublicationState;

/// The descriptor of one epoch: the positions that it belongs on, and those that have it.
pub(super) struct Publication {
    /// 0 until it is first published.
    pub(super) revision: u64,
    /// The descriptor has changed since it was published to most positions, or it never was.
    pub(super) is_outdated: bool,
    /// When it is published next, of its own accord; while `begun`, since when it waits for a turn if
    /// it is cut short.
    pub(super) next_at: WallTime,
    /// The positions that have this revision, or had it when they were positions.
    pub(super) posted: BTreeSet<RelayId>,
    pub(super) postings: BTreeMap<RelayId, Posting>,
    /// Its revision is being published, and most positions lack it.
    pub(super) begun: Option<Pace>,
    pub(super) sealed: Option<Vec<u8>>,
}

/// One position.
#[derive(Default)]
pub(super) struct Posting {
    /// When it was asked, until it answers.
    pub(super) asked_at: Option<Instant>,
    pub(super) backoff: Backoff,
}

/// How soon each position gets a descriptor, once it is to be published.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Its user waits.
    AtOnce,
    /// Senders find mailboxes that are gone, or the client may end soon.
    Hasty,
    Usual,
    /// An earlier run began, and was cut short: none gets it before its turn comes.
    InTurn,
}

impl Publication {
    /// One that was never published: the current epoch's is due, since senders look for it; the
    /// next one's has time.
    pub(super) fn first(cx: &mut Context<'_>, epoch: Epoch, is_outdated: bool) -> Self {
        let next_at = if epoch == cx.wall.epoch() {
            cx.wall
        } else {
            let next_at = cx.wall + exponential(cx.network.params.inbox_republish, cx.rng);
            next_at.min(latest_for(epoch).max(cx.wall))
        };
        Self {
            revision: 0,
            is_outdated,
            next_at,
            posted: BTreeSet::new(),
            postings: BTreeMap::new(),
            begun: None,
            sealed: None,
        }
    }

    pub(super) fn restore(state: &PublicationState) -> Self {
        Self {
            revision: state.revision,
            is_outdated: state.is_outdated,
            next_at: state.next_at,
            posted: state.posted.iter().copied().collect(),
            postings: BTreeMap::new(),
            begun: state.is_begun.then_some(Pace::InTurn),
            sealed: None,
        }
    }

    /// A relay that becomes a position has time: the others have the descriptor, and all inboxes of
    /// this client see the view change at one moment.
    pub(super) fn move_to(&mut self, cx: &mut Context<'_>, positions: &Positions, is_new: bool) {
        let mut old = core::mem::take(&mut self.postings);
        for relay in positions.iter() {
            let posting = old.remove(&relay).unwrap_or_else(|| {
                let params = &cx.network.params;
                let wait = match self.begun.or(is_new.then_some(Pace::Hasty)) {
                    Some(pace) => pace.draw(params, cx.rng),
                    None => exponential(params.inbox_republish / PUBLISH_MOVED_SHARE, cx.rng),
                };
                Posting::due_at(cx.now + wait)
            });
            self.postings.insert(relay, posting);
        }
        if self.posted.len() > 2 * RING_POSITIONS {
            self.posted.retain(|it| self.postings.contains_key(it));
        }
    }

    /// Takes the next revision, which is to be stored before it is posted; or goes on with one that
    /// an earlier run took. Should this run be cut short, it comes before all else, but only once.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, pace: Pace) {
        if self.begun.is_none() {
            self.revision = revision_after(self.revision, cx.rng);
            self.posted.clear();
            self.sealed = None;
            self.next_at = WallTime(0);
        } else {
            self.next_at = cx.wall;
        }
        self.begun = Some(pace);
        for posting in self.postings.values_mut() {
            let due_at = cx.now + pace.draw(&cx.network.params, cx.rng);
            posting.backoff = Backoff::resumed(0, due_at);
        }
    }

    /// Whether this run publishes it.
    pub(super) fn is_under_way(&self) -> bool {
        self.begun.is_some_and(|pace| pace != Pace::InTurn)
    }

    /// Once most positions have it, or all were asked, its next time is drawn, and is to be stored:
    /// relays that take nothing, or answer nothing, must not keep it begun. Each start of its owner
    /// would go on with it, and be seen. The others are still tried. Whether it has come to that.
    pub(super) fn settle_if_done(&mut self, cx: &mut Context<'_>) -> bool {
        let (now, begun) = (cx.now, self.begun.is_some());
        let is_done = self.is_complete() || self.were_all_asked(|at| at + PUBLISH_PATIENCE <= now);
        if begun && is_done {
            self.settle(cx);
        }
        begun && is_done
    }

    pub(super) fn settle(&mut self, cx: &mut Context<'_>) {
        self.begun = None;
        self.is_outdated = false;
        self.next_at = cx.wall + exponential(cx.network.params.inbox_republish, cx.rng);
    }

    /// Whether it is out and on its way to no position: each has it or has failed to take it, or most
    /// have it and the others are not asked now.
    pub(super) fn is_offered(&self) -> bool {
        let mut postings = self.postings.iter();
        match self.begun {
            None if self.is_outdated => false,
            None => postings.all(|it| it.1.asked_at.is_none() || self.has_answered(it)),
            Some(_) => postings.all(|it| self.has_answered(it)),
        }
    }

    /// Whether this position has its revision, or has failed to take it in this run.
    fn has_answered(&self, (relay, posting): (&RelayId, &Posting)) -> bool {
        posting.backoff.failures() > 0 || self.posted.contains(relay)
    }

    /// Whether each position has answered in this run, or was asked at a time that is early enough;
    /// and some have it.
    pub(super) fn were_all_asked(&self, is_early: impl Fn(Instant) -> bool) -> bool {
        let mut postings = self.postings.iter();
        self.progress().0 >= PUBLISHED_MIN
            && postings.all(|it| self.has_answered(it) || it.1.asked_at.is_some_and(&is_early))
    }

    pub(super) fn progress(&self) -> (usize, usize) {
        let stored = self.postings.keys().filter(|it| self.posted.contains(it));
        (stored.count(), self.postings.len())
    }

    pub(super) fn is_complete(&self) -> bool {
        let (stored, all) = self.progress();
        stored * 2 > all
    }

    /// Whether it waits for its turn: it was left half published, its time has come, or that was set
    /// by a wrong clock.
    pub(super) fn is_due(&self, wall: WallTime, params: &Params) -> bool {
        let longest = params.inbox_republish.saturating_mul(WAIT_CUT);
        let is_time = self.next_at <= wall || self.next_at > wall + longest;
        let waits = match self.begun {
            None => is_time,
            Some(pace) => pace == Pace::InTurn,
        };
        waits && !self.postings.is_empty()
    }

    /// Whether its revision has the form of what there is to say: it never gets two.
    pub(super) fn may_post(&self) -> bool {
        let is_out = self.begun.is_none() && !self.is_outdated;
        self.revision != 0 && (is_out || self.is_under_way())
    }

    /// The positions that are to get it now.
    pub(super) fn missing(&self, now: Instant) -> Vec<RelayId> {
        let is_due = |(relay, posting): &(&RelayId, &Posting)| {
            posting.asked_at.is_none()
                && posting.backoff.is_due(now)
                && !self.posted.contains(*relay)
        };
        let missing = self.postings.iter().filter(is_due);
        let missing = missing.map(|(&relay, _)| relay);
        missing.filter(|_| self.may_post()).collect()
    }

    pub(super) fn sealed(
        &mut self,
        cx: &Context<'_>,
        identity: &InboxIdentity,
        contents: impl FnOnce() -> Option<InboxDescriptor>,
        epoch: Epoch,
    ) -> Option<Vec<u8>> {
        if self.sealed.is_none() {
            let descriptor = InboxDescriptor {
                revision: self.revision,
                ..contents()?
            };
            self.sealed = Some(descriptor.seal(identity, &cx.network.id, epoch));
        }
        self.sealed.clone()
    }
}

impl Posting {
    const fn due_at(at: Instant) -> Self {
        Self {
            asked_at: None,
            backoff: Backoff::resumed(0, at),
        }
    }
}

impl Pace {
    /// How long one position waits.
    fn draw(self, params: &Params, rng: &mut dyn CryptoRng) -> Duration {
        match self {
            Self::AtOnce => Duration::ZERO,
            Self::Hasty => between(Duration::ZERO, PUBLISH_WITHIN, rng),
            Self::Usual | Self::InTurn => {
                exponential(params.inbox_republish / PUBLISH_PACE_SHARE, rng)
            }
        }
    }
}

/// When an epoch's first descriptor, or one that says something new, is published at the latest.
pub(super) fn latest_for(epoch: Epoch) -> WallTime {
    epoch.starts_at().before(PUBLISH_LEAD)
}

/// Whether senders look for this epoch's descriptor, or soon will, by clocks that are ahead.
pub(super) fn is_read(epoch: Epoch, wall: WallTime) -> bool {
    epoch.starts_at().since(wall) < PUBLISH_READ_AHEAD
}

/// A number that tells nothing: it begins anywhere, and the steps are of any size, so that a
/// difference does not tell how many there were.
fn revision_after(revision: u64, rng: &mut dyn CryptoRng) -> u64 {
    let random: u64 = rng.random();
    if revision == 0 {
        return (random >> (64 - REVISION_FIRST_BITS)).max(1);
    }
    let bits = rng.random_range(0..=REVISION_STEP_BITS_MAX);
    let step = random.checked_shr(64 - bits).unwrap_or(0);
    revision.saturating_add(1).saturating_add(step)
}
