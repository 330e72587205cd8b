//! A holder that is out of reach: for how long by now, and what follows from it
//! (docs/protocol.md §10.5(6)).
//!
//! Time counts from one visit that failed to the next, if none between them was answered: a failure
//! that was followed by nothing says little, and while the client is not running, or its own link is
//! down, nobody is visited. An outage is over once the holder has been back for a while. Several
//! inboxes may have mailboxes with one holder, so each outage has moments of its own.

use rand::RngExt;
use serde::{Deserialize, Serialize};
use umbel_proto::limits::{
    COMPANION_AFTER_MAX, COMPANION_RETRIES, GIVEN_UP_AFTER_MAX, GIVEN_UP_AFTER_MIN,
    OUTAGE_BACK_SHARE, OUTAGE_LONG_SHARE, OUTAGE_SPAN_MAX, OUTAGE_VISIT_SHARE,
};
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, WallTime};

use super::super::context::Context;

/// What is known of a holder's outage: stored, since many a client runs for a minute at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Outage {
    /// Its holder does not know the mailbox: the records there are lost.
    is_gone: bool,
    /// It has lasted long enough for a companion; that stays so until it is over.
    is_long: bool,
    lasted: Duration,
    /// The last visit that failed.
    failed_at: WallTime,
    /// The first visit since then that was answered.
    back_since: Option<WallTime>,
    /// Where its own moments lie between the earliest and the latest.
    lot: u16,
}

impl Outage {
    /// The first visit is to be noted that failed.
    pub(super) fn begin(cx: &mut Context<'_>) -> Self {
        Self {
            is_gone: false,
            is_long: false,
            lasted: Duration::ZERO,
            failed_at: cx.wall,
            back_since: None,
            lot: cx.rng.random(),
        }
    }

    /// A visit failed. An absence of the client's counts for a day at most.
    pub(super) fn failed(self, cx: &Context<'_>, is_gone: bool) -> Self {
        let span = match self.back_since {
            None => cx.confirmed.since(self.failed_at).min(OUTAGE_SPAN_MAX),
            Some(_) => Duration::ZERO,
        };
        Self {
            is_gone,
            is_long: self.is_long || is_gone,
            lasted: self.lasted.saturating_add(span),
            failed_at: cx.wall,
            back_since: None,
            lot: self.lot,
        }
    }

    /// A visit was answered. Returns the outage, or `None` once the holder has been back for long
    /// enough.
    pub(super) fn answered(self, cx: &Context<'_>) -> Option<Self> {
        // The clock may have been ahead.
        let back_since = self.back_since.map_or(cx.wall, |since| since.min(cx.wall));
        let whole = companion_after_max(&cx.network.params);
        let is_over =
            cx.confirmed.since(back_since) >= self.moment(whole, whole + whole / OUTAGE_BACK_SHARE);
        (!is_over).then_some(Self {
            is_gone: false,
            back_since: Some(back_since),
            ..self
        })
    }

    /// Notes that it is long, if it has just become so: sooner if nobody can write to the inbox.
    /// Says whether it has.
    pub(super) fn grow_long(&mut self, params: &Params, is_cut_off: bool) -> bool {
        let whole = companion_after_max(params);
        let mut patience = self.moment(whole / OUTAGE_LONG_SHARE, whole - visit_every_max(params));
        if is_cut_off {
            patience = patience.min(params.request_timeout);
        }
        let is_news = !self.is_long && self.lasted >= patience;
        self.is_long |= is_news;
        is_news
    }

    /// Whether it has been long enough for a companion, be the holder back or not.
    pub(super) const fn is_long(&self) -> bool {
        self.is_long
    }

    /// Whether the holder has not been seen since it became long.
    pub(super) const fn is_out(&self) -> bool {
        self.is_long && self.back_since.is_none()
    }

    /// Whether there is nothing left to wait for: the mailbox is gone, or its holder has been out of
    /// reach for days.
    pub(super) fn is_final(&self) -> bool {
        let is_given_up = self.lasted >= self.moment(GIVEN_UP_AFTER_MIN, GIVEN_UP_AFTER_MAX);
        self.is_out() && (self.is_gone || is_given_up)
    }

    /// Its own moment between the two.
    fn moment(&self, least: Duration, most: Duration) -> Duration {
        let share = f64::from(self.lot) / f64::from(u16::MAX);
        least + most.saturating_sub(least).mul_f64(share)
    }
}

/// When a mailbox has a companion at the latest. Where failures are soon tried again, as in the
/// network `local`, that is soon.
fn companion_after_max(params: &Params) -> Duration {
    COMPANION_AFTER_MAX.min(params.retry_max * COMPANION_RETRIES)
}

/// How rarely a mailbox that the descriptor names is visited at most, while its holder is out of
/// reach: often enough that an outage becomes long in time.
pub(in super::super) fn visit_every_max(params: &Params) -> Duration {
    companion_after_max(params) / OUTAGE_VISIT_SHARE
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::network::Network;
    use umbel_proto::time::{Instant, Moment};

    use super::super::super::testing::surroundings;
    use super::*;

    const START: WallTime = WallTime(1_790_000_000);
    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// Does this at a time in a network with default parameters.
    fn at<T>(wall: WallTime, confirmed: WallTime, act: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let network = Network {
            params: Params::DEFAULT,
            ..Network::local()
        };
        let (mut shared, now) = (surroundings(network, wall), Instant::default());
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut cx = shared.context(Moment { now, wall }, &mut rng);
        cx.confirmed = confirmed;
        act(&mut cx)
    }

    /// An outage, and the time.
    struct Story {
        outage: Option<Outage>,
        wall: WallTime,
    }

    impl Story {
        /// A visit has failed. Its own moments are the earliest that there are, or the latest.
        fn begun(is_latest: bool) -> Self {
            let lot = if is_latest { u16::MAX } else { 0 };
            let begun = at(START, START, Outage::begin);
            Self {
                outage: Some(Outage { lot, ..begun }),
                wall: START,
            }
        }

        /// A visit this much later is answered, or fails.
        fn visit(&mut self, after: Duration, is_answered: bool) -> &mut Self {
            self.visit_with(after, is_answered, self.wall + after)
        }

        fn visit_with(
            &mut self,
            after: Duration,
            is_answered: bool,
            confirmed: WallTime,
        ) -> &mut Self {
            self.wall = self.wall + after;
            let outage = self.outage.unwrap_or_else(|| panic!("it is not over"));
            let visit = |cx: &mut Context<'_>| {
                if is_answered {
                    outage.answered(cx)
                } else {
                    Some(outage.failed(cx, false))
                }
            };
            self.outage = at(self.wall, confirmed, visit);
            self
        }

        fn grows_long(&mut self, is_cut_off: bool) -> bool {
            let outage = self.outage.as_mut();
            outage.is_some_and(|it| it.grow_long(&Params::DEFAULT, is_cut_off))
        }

        fn is_final(&self) -> bool {
            self.outage.is_some_and(|outage| outage.is_final())
        }
    }

    #[test] // §10.5(6)
    fn an_outage_is_long_within_the_hour_at_a_moment_of_its_own() {
        for (is_latest, minutes) in [(false, 30), (true, 45)] {
            let mut story = Story::begun(is_latest);
            story.visit(MINUTE * (minutes - 1), false);
            assert!(!story.grows_long(false));
            story.visit(MINUTE * 2, false);
            assert!(story.grows_long(false) && !story.grows_long(false), "once");
            assert!(story.outage.is_some_and(|outage| outage.is_out()));
        }
        let most = visit_every_max(&Params::DEFAULT);
        assert_eq!(MINUTE * 45 + most, COMPANION_AFTER_MAX);
    }

    #[test] // §10.5(6)
    fn where_nobody_can_write_an_outage_is_long_soon() {
        let mut story = Story::begun(true);
        assert!(!story.visit(MINUTE / 3, false).grows_long(true));
        assert!(!story.visit(MINUTE, false).grows_long(false));
        assert!(story.grows_long(true));
    }

    #[test] // §10.5(6)
    fn only_time_between_two_failures_in_a_row_counts() {
        let mut story = Story::begun(false);
        for _ in 0..20 {
            story.visit(MINUTE, true).visit(MINUTE * 20, false);
        }
        assert!(!story.grows_long(false));
        story.visit(MINUTE * 20, false).visit(MINUTE, true);
        story.visit(MINUTE, false).visit(MINUTE * 11, false);
        assert!(story.grows_long(false), "it comes and goes");
    }

    #[test] // §10.5(6)
    fn a_holder_is_back_once_it_has_answered_for_over_an_hour() {
        for (is_latest, minutes) in [(false, 60), (true, 90)] {
            let mut story = Story::begun(is_latest);
            story.visit(HOUR, false).grows_long(false);
            story.visit(HOUR, true);
            assert!(story.outage.is_some_and(|it| it.is_long() && !it.is_out()));
            story.visit(MINUTE * (minutes - 1), true);
            assert!(story.outage.is_some(), "not yet");
            story.visit(MINUTE, true);
            assert_eq!(story.outage, None);
        }
        let mut story = Story::begun(false);
        story.visit(MINUTE * 50, true).visit(MINUTE, false);
        story.visit(MINUTE, true).visit(MINUTE * 50, true);
        assert!(story.outage.is_some(), "it failed in between");
    }

    #[test] // §10.5(6)
    fn a_holder_is_given_up_after_days_in_which_it_was_tried() {
        for (is_latest, days) in [(false, 3), (true, 4)] {
            let mut story = Story::begun(is_latest);
            (0..24 * days - 1).for_each(|_| {
                story.visit(HOUR, false);
            });
            story.grows_long(false);
            assert!(!story.is_final());
            assert!(story.visit(HOUR, false).is_final());
            assert!(!story.visit(MINUTE, true).is_final(), "it is back");
        }
        // An absence counts for a day.
        let mut story = Story::begun(false);
        story.visit(DAY * 30, false).visit(DAY * 30, false);
        story.grows_long(false);
        assert!(!story.is_final());
        assert!(story.visit(DAY, false).is_final());
    }

    #[test] // §1.6(3), §10.5(6)
    fn a_clock_that_jumps_makes_no_outage_long() {
        let mut story = Story::begun(false);
        story.visit_with(DAY * 400, false, START + MINUTE);
        assert!(!story.grows_long(false), "a minute is confirmed");
        // It was set right again.
        story.wall = START;
        story.visit(MINUTE, false).visit(MINUTE, true);
        story.visit(MINUTE, false).visit(MINUTE * 28, false);
        assert!(!story.grows_long(false));
        assert!(story.visit(MINUTE, false).grows_long(false));
    }

    #[test] // §1.6(2), §10.5(6)
    fn while_a_jump_of_the_clock_waits_nothing_counts_for_or_against_a_holder() {
        let away = DAY * 3;
        let mut story = Story::begun(false);
        story.visit_with(away, false, START + MINUTE);
        for hours in 1..=6 {
            story.visit_with(HOUR, false, START + HOUR * hours);
        }
        assert!(!story.grows_long(false));
        // By confirmed time alone, the visits before and after this are three days apart.
        story.visit(MINUTE * 28, false);
        assert!(!story.grows_long(false), "28 min, and the first");
        assert!(story.visit(MINUTE, false).grows_long(false));
        for hours in 1..=6 {
            story.visit_with(HOUR, true, START + HOUR * hours);
        }
        assert!(story.outage.is_some(), "back, though not for an hour");
        story.visit(MINUTE, true);
        assert_eq!(story.outage, None);
    }

    #[test] // §10.5(6)
    fn a_mailbox_that_its_holder_does_not_know_is_not_waited_for() {
        let outage = |is_gone| at(START, START, |cx| Outage::begin(cx).failed(cx, is_gone));
        assert!(outage(true).is_out() && outage(true).is_final());
        assert!(!outage(false).is_out() && !outage(false).is_final());
    }
}
