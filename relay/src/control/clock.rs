//! A relay's own clock: what may be deleted by it, whether other relays' say the same, and what is
//! said anew once it is right (docs/protocol.md §1.6).
//!
//! Other relays decide nothing: their clocks are compared, and the operator is told ([`News`]).

use std::collections::BTreeMap;

use rand::CryptoRng;
use umbel_proto::link::LinkOp;
use umbel_proto::time::{ClockGuard, ClockJump, Duration, Instant, PeerClock, WallTime};

use super::Control;
use super::io::{News, StoreOp};

/// Beyond so many linked relays, one more link is no reason to compare clocks at once: the next
/// sweep does.
const JUDGED_AT_ONCE_MAX: usize = 16;

/// So many clocks of relays that are known for what they are can be believed against this relay's.
const VOTES_SURE: usize = 3;

/// A verdict other than the last counts once it has held for so long: links that come and go do not
/// make the log swing.
const VERDICT_HOLDS: Duration = Duration::from_secs(10 * 60);

/// What a relay knows of its clock.
pub(super) struct Clock {
    guard: ClockGuard,
    /// How far other relays are ahead, seconds, while that is more than the network bears.
    off_by: Option<i64>,
    /// There was a verdict since the start, and since this clock last jumped.
    is_judged: bool,
    /// The operator was told that it may be wrong: whatever the next verdict is, it is news.
    is_doubted: bool,
    /// Since when another verdict has held.
    other_since: Option<Instant>,
    /// The operator was told that it is this clock that is wrong.
    is_surely_off: bool,
}

impl Clock {
    pub(super) fn restore(
        state: Option<&[u8]>,
        now: Instant,
        wall: WallTime,
    ) -> (Self, Option<News>) {
        let (guard, jump) = ClockGuard::restore(state, now, wall);
        let news = jump.map(News::ClockSinceLastRun);
        let is_doubted = matches!(jump, Some(ClockJump::Back(_)));
        (
            Self {
                guard,
                off_by: None,
                is_judged: false,
                is_doubted,
                other_since: None,
                is_surely_off: false,
            },
            news,
        )
    }

    /// The calendar as far as it is confirmed: what is kept for others is deleted by it.
    pub(super) const fn confirmed(&self) -> WallTime {
        self.guard.confirmed()
    }

    /// Whether the calendar is confirmed as it is.
    pub(super) const fn is_sure(&self) -> bool {
        self.guard.may_delete()
    }

    /// Other clocks say this now; whether that is a verdict that counts, and news.
    fn judge(&mut self, now: Instant, off_by: Option<i64>, is_sure: bool) -> bool {
        let is_other = off_by.map(i64::signum) != self.off_by.map(i64::signum);
        if is_other && self.is_judged {
            let since = *self.other_since.get_or_insert(now);
            if now.since(since) < VERDICT_HOLDS {
                return false;
            }
        }
        (self.off_by, self.is_judged, self.other_since) = (off_by, true, None);
        let is_surely_off = off_by.is_some() && (is_sure || (self.is_surely_off && !is_other));
        let was_surely_off = core::mem::replace(&mut self.is_surely_off, is_surely_off);
        core::mem::take(&mut self.is_doubted) || is_other || (is_surely_off && !was_surely_off)
    }
}

impl Control {
    /// How far the clocks of other relays are ahead of this one's, seconds, if that is more than
    /// the network bears.
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

    /// The clock may have been wrong and be right now: the descriptor is issued anew, and relays
    /// whose descriptors were not believed say theirs again on a new link.
    fn on_clock_jump(&mut self, now: Instant, wall: WallTime, rng: &mut dyn CryptoRng) {
        (self.clock.is_judged, self.clock.is_doubted) = (false, true);
        self.judge_clock(now, wall); // before the links go by which it is judged
        self.book
            .expire(&self.config.network, wall, self.clock.confirmed());
        self.store_book();
        self.reissue(wall, rng);
        let is_of_no_use =
            |&(link, relay): &_| self.view().get(&relay).is_none() && self.circuits.is_unused(link);
        let links: Vec<_> = self.links.with_relays().filter(is_of_no_use).collect();
        for (link, _) in links {
            self.links.begin_close(link);
            self.out.links.push_back(LinkOp::Close(link));
        }
        self.sync_now(now, rng);
    }

    /// One more relay is linked: while there are few, a clock that is wrong is said at once.
    pub(super) fn judge_clock_soon(&mut self, now: Instant, wall: WallTime) {
        if self.links.relays().nth(JUDGED_AT_ONCE_MAX).is_none() {
            self.judge_clock(now, wall);
        }
    }

    /// Compares this relay's clock with those of linked relays, and has it said when they come to
    /// differ, or to agree again.
    pub(super) fn judge_clock(&mut self, now: Instant, wall: WallTime) {
        let (votes, is_sure) = self.clock_votes();
        let relays = votes.len();
        let Some(ahead) = PeerClock::median_ahead(votes, now, wall) else {
            return;
        };
        let is_off = ahead.unsigned_abs() > self.config.network.params.clock_warn.as_secs();
        if self.clock.judge(now, is_off.then_some(ahead), is_sure) {
            let differs = News::ClockDiffers {
                ahead,
                relays,
                is_sure,
            };
            self.out.news.push_back(if is_off {
                differs
            } else {
                News::ClockAgrees { relays }
            });
        }
    }

    /// The clocks that are asked, and whether they can be believed against this one: of relays that
    /// are in the view or were, one for each address group, and of seeds. Anyone can link to this
    /// relay under many names: strangers are asked only where there is nobody else, as when by a
    /// wrong clock nobody could be learned.
    fn clock_votes(&self) -> (Vec<PeerClock>, bool) {
        let (mut groups, mut seeds, mut strangers) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (relay, clock) in self.links.clocks() {
            match self
                .view()
                .get(&relay)
                .or_else(|| self.book.last_known_of(&relay))
            {
                Some(known) => drop(
                    groups
                        .entry(known.group(&self.config.network))
                        .or_insert(clock),
                ),
                None if self.config.seeds.iter().any(|seed| seed.id == relay) => seeds.push(clock),
                None => strangers.push(clock),
            }
        }
        let votes: Vec<_> = groups.into_values().chain(seeds).collect();
        let is_sure = votes.len() >= VOTES_SURE;
        (if votes.is_empty() { strangers } else { votes }, is_sure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: WallTime = WallTime(1_790_000_000);

    #[test]
    fn a_clock_that_was_set_back_between_two_runs_is_called_right_once_others_agree() {
        let now = Instant::default();
        let (mut clock, _) = Clock::restore(None, now, WALL);
        assert!(!clock.judge(now, None, false), "nobody doubted it");
        clock.guard.confirm();
        let earlier = WallTime(WALL.as_secs() - 10_800);
        let (mut clock, news) = Clock::restore(Some(&clock.guard.state()), now, earlier);
        assert!(matches!(
            news,
            Some(News::ClockSinceLastRun(ClockJump::Back(_)))
        ));
        assert!(
            clock.judge(now, None, false) && !clock.judge(now, None, false),
            "said once"
        );
    }

    #[test]
    fn a_clock_that_is_off_is_said_once_more_when_enough_say_so() {
        let now = Instant::default();
        let (mut clock, _) = Clock::restore(None, now, WALL);
        assert!(clock.judge(now, Some(10_800), false) && !clock.judge(now, Some(10_800), false));
        assert!(clock.judge(now, Some(10_800), true) && !clock.judge(now, Some(10_800), true));
        assert!(
            !clock.judge(now, Some(10_800), false) && !clock.judge(now, Some(10_800), true),
            "links come and go"
        );
        clock.is_judged = false;
        assert!(clock.judge(now, None, true) && !clock.judge(now, None, true));
        clock.is_judged = false;
        assert!(clock.judge(now, Some(10_800), false) && clock.judge(now, Some(10_800), true));
    }
}
