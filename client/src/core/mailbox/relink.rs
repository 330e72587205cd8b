//! When to subscribe again after the link was lost: each mailbox at its own time. So a guard that
//! cuts the link sees no burst that would show how many mailboxes there are, and can't make the
//! client build circuits as often as it likes.

use umbel_proto::chance::exponential;
use umbel_proto::limits::{
    RESUBSCRIBE_FORGET_AFTER, RESUBSCRIBE_MEAN_MAX, RESUBSCRIBE_MEAN_MIN, RESUBSCRIBE_SHARE,
};
use umbel_proto::time::{Duration, Instant};

use super::super::context::Context;

/// Losses as close as this are one.
const SAME: Duration = Duration::from_secs(1);
/// The mean is doubled so often at most.
const DOUBLINGS_MAX: u32 = 6;

/// Losses of the link.
#[derive(Default)]
pub(super) struct Relinks {
    lost_at: Option<Instant>,
    /// How many there were shortly before the last.
    before: u32,
}

impl Relinks {
    /// A subscription was lost with the link: how long it waits, when `places` subscriptions do.
    pub(super) fn wait(&mut self, cx: &mut Context<'_>, places: usize) -> Duration {
        let mean = self.mean(cx.now, places);
        exponential(mean, cx.rng)
    }

    fn mean(&mut self, now: Instant, places: usize) -> Duration {
        match self.lost_at {
            Some(at) if at + SAME > now => {}
            Some(at) if at + RESUBSCRIBE_FORGET_AFTER > now => {
                self.before = (self.before + 1).min(DOUBLINGS_MAX);
                self.lost_at = Some(now);
            }
            _ => {
                self.before = 0;
                self.lost_at = Some(now);
            }
        }
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        RESUBSCRIBE_SHARE
            .saturating_mul(places)
            .max(RESUBSCRIBE_MEAN_MIN)
            .saturating_mul(1 << self.before)
            .min(RESUBSCRIBE_MEAN_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // §10.5(5)
    fn the_wait_grows_with_mailboxes_and_with_each_loss_within_minutes() {
        let mut relinks = Relinks::default();
        let mut mean_at = |seconds: u64, places| {
            relinks
                .mean(Instant::from_micros(seconds * 1_000_000), places)
                .as_millis()
        };
        assert_eq!(
            (mean_at(100, 1), mean_at(100, 3), mean_at(100, 40)),
            (1000, 1500, 20_000)
        );
        assert_eq!(
            (mean_at(160, 3), mean_at(200, 3), mean_at(300, 3)),
            (3000, 6000, 12_000)
        );
        assert_eq!(mean_at(400, 40), 60_000, "it is bounded");
        assert_eq!(mean_at(700, 3), 1500, "minutes later all is forgotten");
    }
}
