//! A relay's own clock: what may be deleted by it, whether other relays' say the same, and what is said anew once it is right
//! (docs/protocol.md §1.6).
//!
//! Other relays decide nothing: their clocks are compared, and the operator is told ([`News`]).

use rand::CryptoRng;
use umbel_proto::time::{ClockGuard, Instant, WallTime};

use super::Control;
use super::io::{LinkOp, News, StoreOp};

/// Beyond so many linked relays, one more link is no reason to compare clocks at once: the next sweep does.
const JUDGED_AT_ONCE_MAX: usize = 16;

/// What a relay knows of its clock.
pub(super) struct Clock {
    guard: ClockGuard,
    /// How far other relays are ahead, seconds, while that is more than the network bears.
    off_by: Option<i64>,
}

impl Clock {
    pub(super) fn restore(state: Option<&[u8]>, now: Instant, wall: WallTime) -> (Self, Option<News>) {
        let (guard, jump) = ClockGuard::restore(state, now, wall);
        let news = jump.map(News::ClockSinceLastRun);
        (Self { guard, off_by: None }, news)
    }

    /// The calendar as far as it is confirmed: what is kept for others is deleted by it.
    pub(super) const fn confirmed(&self) -> WallTime {
        self.guard.confirmed()
    }
}

impl Control {
    /// How far the clocks of other relays are ahead of this one's, seconds, if that is more than the network bears.
    pub fn clock_off_by(&self) -> Option<i64> {
        self.clock.off_by
    }

    /// Compares this relay's clocks with each other.
    pub(super) fn look_at_clock(&mut self, now: Instant, wall: WallTime, rng: &mut dyn CryptoRng) {
        if let Some(jump) = self.clock.guard.look(now, wall) {
            self.out.news.push_back(News::ClockJumped(jump));
            self.on_clock_jump(now, wall, rng);
        }
        self.store_clock();
    }

    pub(super) fn store_clock(&mut self) {
        if let Some(state) = self.clock.guard.take_state() {
            self.out.store.push_back(StoreOp::PutClock(state));
        }
    }

    /// The clock may have been wrong and be right now: the descriptor is issued anew, and relays whose descriptors were not
    /// believed say theirs again on a new link.
    fn on_clock_jump(&mut self, now: Instant, wall: WallTime, rng: &mut dyn CryptoRng) {
        self.book.expire(&self.config.network, wall, self.clock.confirmed());
        self.store_book();
        self.reissue(wall, rng);
        let is_of_no_use = |&(link, relay): &_| self.view().get(&relay).is_none() && self.circuits.is_unused(link);
        let links: Vec<_> = self.links.with_relays().filter(is_of_no_use).collect();
        for (link, _) in links {
            self.links.begin_close(link);
            self.out.links.push_back(LinkOp::Close(link));
        }
        self.sync_now(now, rng);
        self.judge_clock(now, wall);
    }

    /// One more relay is linked: while there are few, a clock that is wrong is said at once.
    pub(super) fn judge_clock_soon(&mut self, now: Instant, wall: WallTime) {
        if self.links.relays().nth(JUDGED_AT_ONCE_MAX).is_none() {
            self.judge_clock(now, wall);
        }
    }

    /// Compares this relay's clock with those of linked relays, and has it said when they come to differ, or to agree again.
    pub(super) fn judge_clock(&mut self, now: Instant, wall: WallTime) {
        let Some((offset, relays)) = self.links.clock_offset(now, wall) else { return };
        let bears = self.config.network.params.clock_warn;
        let off_by = (offset.unsigned_abs() > bears.as_secs()).then_some(offset);
        match (self.clock.off_by, off_by) {
            (None, Some(ahead)) => self.out.news.push_back(News::ClockDiffers { ahead, relays }),
            (Some(_), None) => self.out.news.push_back(News::ClockAgrees { relays }),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.clock.off_by = off_by;
    }
}
