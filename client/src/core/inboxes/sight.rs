//! Whether others find this inbox: its owner looks it up as any sender does, through circuits, at
//! times of its own (docs/protocol.md §9.4(5)).
//!
//! Those who keep a descriptor can't tell such a look-up from another. One look-up that finds
//! nothing, or only an old revision, may be bad luck: the descriptor is published anew. The user
//! hears of the second, and the owner looks more rarely as long as it lasts.

use serde::{Deserialize, Serialize};
use umbel_proto::chance::exponential;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::limits::{
    LOOK_DOUBLINGS_MAX, LOOK_MISSED_MEAN_SHARE, LOOK_MISSED_SHARE, LOOK_MISSES_TOLD, LOOK_SHARE,
    WAIT_CUT,
};
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Epoch, Instant, WallTime};

use super::super::context::Context;
use super::super::io::DeferReason;
use super::super::lookup::{Found, Lookups};
use super::super::requests::Requests;

/// Least time between two look-ups because something hints at another copy of the inbox.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The own look-ups of one inbox.
pub(super) struct Sight {
    pub(super) state: SightState,
    /// When to look before the time, since something hints at another copy.
    hurried_at: Option<Instant>,
    looked_at: Option<Instant>,
    running: Option<Look>,
}

/// What is stored of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SightState {
    next_at: WallTime,
    /// Look-ups in a row that did not find what was published.
    missed: u32,
    /// When the user was told.
    missing_since: Option<WallTime>,
}

/// A look-up on its way.
#[derive(Clone, Copy)]
struct Look {
    begun_at: Instant,
    /// The revision that had been offered to the positions when it began.
    posted: Option<u64>,
    /// Lookups have forgotten the descriptor found before, so that it can't pass for what is there.
    is_asked: bool,
    /// Something hinted at another copy.
    is_hurried: bool,
}

/// What a look-up saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// This revision of this epoch's descriptor: what was offered to the positions, or a later one.
    Found(Epoch, u64),
    /// None, or an older one, or another epoch's.
    Missed,
    /// It was no answer: no circuit could be built.
    Nothing,
}

/// What follows from a miss.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The descriptor is published anew.
    Again,
    /// The user is told.
    Told,
    /// It goes on.
    Still,
}

impl Sight {
    pub(super) fn new(cx: &mut Context<'_>) -> Self {
        let next_at = cx.wall + exponential(mean(&cx.network.params), cx.rng);
        Self::restore(SightState {
            next_at,
            missed: 0,
            missing_since: None,
        })
    }

    pub(super) const fn restore(state: SightState) -> Self {
        Self {
            state,
            hurried_at: None,
            looked_at: None,
            running: None,
        }
    }

    /// Whether a look-up is under way.
    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Since when its owner knows that nobody finds it.
    pub(super) const fn missing_since(&self) -> Option<WallTime> {
        self.state.missing_since
    }

    /// When a look-up is due, if it is. A time far ahead is a wrong clock's.
    pub(super) fn due(&self, wall: WallTime, params: &Params) -> Option<WallTime> {
        let next_at = self.state.next_at;
        let latest = wall + params.inbox_republish.saturating_mul(WAIT_CUT * 2);
        (self.running.is_none() && (next_at <= wall || next_at > latest)).then_some(next_at)
    }

    /// Begins a look-up that is due. The next one is drawn already, and is to be stored: a client
    /// that ends before this one has ended does not repeat it at each start.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, posted: Option<u64>) {
        self.state.next_at = cx.wall + exponential(mean(&cx.network.params), cx.rng);
        self.running = Some(Look::new(cx.now, posted));
    }

    /// Something hints at another copy: looks soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        let rested_at = self.looked_at.map_or(now, |at| (at + LOOK_AGAIN).max(now));
        self.hurried_at = Some(self.hurried_at.map_or(rested_at, |at| at.min(rested_at)));
    }

    /// Goes on looking; what was seen, once it is. `posted` is what has been offered to the positions by
    /// now, if nothing newer is on its way.
    pub(super) fn look(
        &mut self,
        cx: &mut Context<'_>,
        lookups: &mut Lookups,
        requests: &mut Requests,
        address: &InboxAddress,
        posted: Option<u64>,
    ) -> Option<Seen> {
        if self.running.is_none() && self.hurried_at.is_some_and(|at| at <= cx.now) {
            self.hurried_at = None;
            self.running = Some(Look {
                is_hurried: true,
                ..Look::new(cx.now, posted)
            });
        }
        let look = self.running.as_mut()?;
        if !core::mem::replace(&mut look.is_asked, true) {
            lookups.forget(address);
        }
        let look = *look;
        let found = lookups.find(cx, requests, address, look.begun_at, true);
        if matches!(found, Found::Pending) {
            return None;
        }
        self.running = None;
        self.looked_at = Some(cx.now);
        let seen = look.judge(cx.wall.epoch(), &found);
        // Whoever caused a hurried look knows when it comes, and could serve that one alone, or no other.
        match seen {
            Seen::Found(..) if !look.is_hurried => self.on_found(),
            Seen::Missed if look.is_hurried => return Some(Seen::Nothing),
            Seen::Found(..) | Seen::Missed | Seen::Nothing => {}
        }
        Some(seen)
    }

    const fn on_found(&mut self) {
        self.state.missed = 0;
        self.state.missing_since = None;
    }

    /// It was not: the next look-up comes sooner than usual, and later with each miss.
    pub(super) fn on_missed(&mut self, cx: &mut Context<'_>) -> Missing {
        let every = cx.network.params.inbox_republish;
        let factor = 1_u32 << self.state.missed.min(LOOK_DOUBLINGS_MAX);
        let wait = exponential(every / LOOK_MISSED_MEAN_SHARE * factor, cx.rng);
        // By then it is published anew.
        self.state.next_at = cx.wall + every / LOOK_MISSED_SHARE + wait;
        self.state.missed = self.state.missed.saturating_add(1);
        if self.state.missed < LOOK_MISSES_TOLD {
            return Missing::Again;
        }
        if self.state.missing_since.is_some() {
            return Missing::Still;
        }
        self.state.missing_since = Some(cx.wall);
        Missing::Told
    }

    pub(super) const fn timeout(&self) -> Option<Instant> {
        self.hurried_at
    }
}

impl Look {
    const fn new(begun_at: Instant, posted: Option<u64>) -> Self {
        Self {
            begun_at,
            posted,
            is_asked: false,
            is_hurried: false,
        }
    }

    fn judge(self, current: Epoch, found: &Found) -> Seen {
        let is_old = |epoch: Epoch, revision: u64| {
            let posted = self.posted;
            posted.is_some_and(|posted| epoch != current || revision < posted)
        };
        match found {
            Found::Known(epoch, descriptor) if is_old(*epoch, descriptor.revision) => Seen::Missed,
            Found::Known(epoch, descriptor) => Seen::Found(*epoch, descriptor.revision),
            Found::Failed(DeferReason::NoDescriptor | DeferReason::NoDirectory)
                if self.posted.is_some() =>
            {
                Seen::Missed
            }
            Found::Failed(_) | Found::Pending => Seen::Nothing,
        }
    }
}

/// How often an owner looks, on average.
pub(super) fn mean(params: &Params) -> Duration {
    params.inbox_republish / LOOK_SHARE
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use umbel_proto::inbox::descriptor::InboxDescriptor;
    use umbel_proto::inbox::record::SealSecret;

    use super::super::super::testing::When;
    use super::*;

    const NOW: WallTime = WallTime(1_790_000_000);

    fn found(epoch: Epoch, revision: u64) -> Found {
        let descriptor = InboxDescriptor {
            revision,
            seal_key: SealSecret::from_seed(&[4; 32]).public(),
            mailboxes: Vec::new(),
            puzzle_effort: 0,
        };
        Found::Known(epoch, Arc::new(descriptor))
    }

    #[test] // §9.4(5)
    fn what_is_older_than_what_was_offered_is_missed() {
        let epoch = NOW.epoch();
        let judge =
            |posted, found: &Found| Look::new(Instant::default(), posted).judge(epoch, found);
        let before = Epoch(epoch.0 - 1);
        assert_eq!(judge(Some(7), &found(epoch, 7)), Seen::Found(epoch, 7));
        assert_eq!(judge(Some(7), &found(epoch, 8)), Seen::Found(epoch, 8));
        assert_eq!(judge(Some(7), &found(epoch, 6)), Seen::Missed);
        assert_eq!(judge(Some(7), &found(before, 9)), Seen::Missed);
        assert_eq!(
            judge(None, &found(epoch, 6)),
            Seen::Found(epoch, 6),
            "it is being published"
        );
        let failed = |reason| judge(Some(7), &Found::Failed(reason));
        assert_eq!(failed(DeferReason::NoDescriptor), Seen::Missed);
        assert_eq!(failed(DeferReason::NoDirectory), Seen::Missed);
        assert_eq!(failed(DeferReason::NoCircuit), Seen::Nothing);
        let unpublished = Found::Failed(DeferReason::NoDescriptor);
        assert_eq!(judge(None, &unpublished), Seen::Nothing, "it is on its way");
    }

    #[test] // §9.4(5)
    fn the_second_miss_is_told_once_and_looks_grow_rare() {
        let miss = |cx: &mut Context<'_>| {
            let mut sight = Sight::new(cx);
            let missed: Vec<Missing> = (0..4).map(|_| sight.on_missed(cx)).collect();
            let told = [
                Missing::Again,
                Missing::Told,
                Missing::Still,
                Missing::Still,
            ];
            assert_eq!(missed, told);
            assert_eq!(sight.missing_since(), Some(cx.wall));
            sight.on_found();
            assert_eq!(sight.missing_since(), None);
            assert_eq!(sight.on_missed(cx), Missing::Again);
            // Waits after the first miss and after the fifth, over many draws.
            let mut wait = |missed| {
                let waits = (0..200).map(|_| {
                    sight.state.missed = missed;
                    sight.on_missed(cx);
                    sight.state.next_at.since(cx.wall)
                });
                waits.sum::<Duration>()
            };
            assert!(wait(4) > wait(0) * 4);
        };
        When::at(NOW).act(miss);
    }
}
