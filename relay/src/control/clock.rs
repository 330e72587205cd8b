//! Whether other relays' clocks agree with this relay's (docs/protocol.md §1.6, §2.4(7)).
//!
//! Other relays decide nothing: this relay compares clocks and warns its operator ([`News`]).

use std::collections::BTreeMap;

use umbel_proto::directory::Book;
use umbel_proto::time::{ClockJump, Duration, Instant, Moment, PeerClock};

use super::ControlConfig;
use super::context::Context;
use super::io::News;
use super::links::Links;

/// With more linked relays than this, a new link does not make this relay compare clocks at once:
/// the next sweep does.
const JUDGED_AT_ONCE_MAX: usize = 16;

/// With this many known relays agreeing, our clock is the wrong one.
const VOTES_SURE: usize = 3;

/// A changed verdict counts once it has held for this long: links that come and go do not make the
/// log swing.
const VERDICT_HOLDS: Duration = Duration::from_secs(10 * 60);

/// The verdict of other relays' clocks on this one.
#[derive(Debug, Default)]
pub(super) struct ClockVerdict {
    /// How far other relays are ahead, seconds, while that is more than the network bears.
    off_by: Option<i64>,
    /// There was a verdict since the start, and since this clock last jumped.
    is_judged: bool,
    /// The operator was warned that the clock may be wrong, so any next verdict is news.
    is_doubted: bool,
    /// Since when another verdict has held.
    other_since: Option<Instant>,
    /// The operator was warned that this clock, and no other, is wrong.
    is_surely_off: bool,
}

impl ClockVerdict {
    /// No verdict yet. A clock that was set back while the relay was not running is in doubt.
    pub(super) fn new(jump: Option<ClockJump>) -> Self {
        Self {
            is_doubted: matches!(jump, Some(ClockJump::Back(_))),
            ..Self::default()
        }
    }

    /// How far other relays are ahead, seconds, while that is more than the network bears.
    pub(super) const fn off_by(&self) -> Option<i64> {
        self.off_by
    }

    /// The clock jumped: the next verdict is news.
    pub(super) const fn handle_jump(&mut self) {
        (self.is_judged, self.is_doubted) = (false, true);
    }

    /// One more relay is linked. While few are, a wrong clock is reported at once.
    pub(super) fn handle_linked(&mut self, cx: &mut Context<'_>) {
        if cx.links.relays().nth(JUDGED_AT_ONCE_MAX).is_none() {
            self.compare(cx);
        }
    }

    /// Compares this relay's clock with those of linked relays, and has it said when they come to
    /// differ, or to agree again.
    pub(super) fn compare(&mut self, cx: &mut Context<'_>) {
        let (votes, is_sure) = votes(cx.links, cx.book, cx.config);
        let relays = votes.len();
        let Some(ahead) = PeerClock::median_ahead(votes, cx.now, cx.wall) else {
            return;
        };
        let is_off = ahead.unsigned_abs() > cx.params().clock_warn.as_secs();
        if self.judge(cx.now, is_off.then_some(ahead), is_sure) {
            let differs = News::ClockDiffers {
                ahead,
                relays,
                is_sure,
            };
            cx.tell(if is_off {
                differs
            } else {
                News::ClockAgrees { relays }
            });
        }
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

/// How far the clocks of linked relays are ahead of this one, seconds, by those that are asked.
pub(super) fn ahead(
    links: &Links,
    book: &Book,
    config: &ControlConfig,
    moment: Moment,
) -> Option<i64> {
    let (votes, _) = votes(links, book, config);
    PeerClock::median_ahead(votes, moment.now, moment.wall)
}

/// The clocks that are asked, and whether they can be believed against this one: of relays that are
/// in the view or were, one for each address group, and of seeds. Anyone can link to this relay
/// under many names: strangers are asked only where there is nobody else, as when by a wrong clock
/// nobody could be learned.
fn votes(links: &Links, book: &Book, config: &ControlConfig) -> (Vec<PeerClock>, bool) {
    let (mut groups, mut seeds, mut strangers) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (relay, clock) in links.clocks() {
        let known = book.view().get(&relay);
        match known.or_else(|| book.last_known_of(&relay)) {
            Some(known) => {
                groups.entry(known.group(&config.network)).or_insert(clock);
            }
            None if config.seeds.iter().any(|seed| seed.id == relay) => seeds.push(clock),
            None => strangers.push(clock),
        }
    }
    let votes: Vec<_> = groups.into_values().chain(seeds).collect();
    let is_sure = votes.len() >= VOTES_SURE;
    (if votes.is_empty() { strangers } else { votes }, is_sure)
}

#[cfg(test)]
mod tests {
    use umbel_proto::time::{ClockGuard, WallTime};

    use super::*;

    const WALL: WallTime = WallTime(1_790_000_000);

    #[test]
    fn a_clock_set_back_between_runs_is_called_right_once_others_agree() {
        let now = Instant::default();
        let mut clock = ClockVerdict::new(None);
        assert!(!clock.judge(now, None, false), "nobody doubted it");
        let (mut guard, _) = ClockGuard::restore(None, now, WALL);
        guard.confirm();
        let earlier = WallTime(WALL.as_secs() - 10_800);
        let (_, jump) = ClockGuard::restore(Some(&guard.state()), now, earlier);
        assert!(matches!(jump, Some(ClockJump::Back(_))));
        let mut clock = ClockVerdict::new(jump);
        assert!(
            clock.judge(now, None, false) && !clock.judge(now, None, false),
            "said once"
        );
    }

    #[test]
    fn a_wrong_clock_is_reported_again_once_enough_agree() {
        let now = Instant::default();
        let mut clock = ClockVerdict::default();
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
