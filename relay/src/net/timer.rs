//! When a link is sent a padding cell, when it is given up, and when closing it has taken long
//! enough.
//!
//! One runtime timer for all three, moved only when it expires: a busy link costs it nothing.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, Sleep, sleep_until};

/// A link that is silent for so long is dead.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(60);
/// A link on which nothing was sent for so long gets a padding cell, so that its peer knows that it
/// is alive.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long a link that is to be closed may take to send what waits.
pub(super) const CLOSING_MAX: Duration = Duration::from_secs(2);

/// The least and the most time until a padding cell is due.
pub(crate) type Padding = std::ops::RangeInclusive<Duration>;

/// What a link's timer is for.
pub(super) enum Expired {
    /// Too early: something was sent or came meanwhile.
    Nothing,
    /// A padding cell.
    Keepalive,
    /// The end: the peer is silent.
    Silent,
    /// The end: closing took too long.
    Closing,
}

/// When a link is sent a padding cell, and when it is given up. One timer for all, moved only when
/// it expires.
pub(super) struct LinkTimer {
    sleep: Pin<Box<Sleep>>,
    /// `None`: only to keep the link alive.
    padding: Option<Padding>,
    keepalive: Duration,
    /// When a cell was last sent.
    pub(super) sent_at: Instant,
    /// When a cell last came.
    pub(super) received_at: Instant,
    close_at: Option<Instant>,
}

impl LinkTimer {
    /// A link that came up now.
    pub(super) fn new(padding: Option<Padding>) -> Self {
        let now = Instant::now();
        let keepalive = next_keepalive(padding.as_ref());
        let sleep = Box::pin(sleep_until(now + keepalive));
        Self {
            sleep,
            padding,
            keepalive,
            sent_at: now,
            received_at: now,
            close_at: None,
        }
    }

    /// Ready when [`on_expired`](Self::on_expired) is to be asked.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }

    /// The link is to be closed, soon.
    pub(super) fn begin_closing(&mut self, now: Instant) {
        if self.close_at.is_none() {
            self.close_at = Some(now + CLOSING_MAX);
            self.reset();
        }
    }

    /// What it is time for; moves the timer on.
    pub(super) fn on_expired(&mut self, now: Instant) -> Expired {
        let expired = if self.close_at.is_some_and(|close_at| now >= close_at) {
            Expired::Closing
        } else if self.close_at.is_none() && now >= self.received_at + DEAD_AFTER {
            Expired::Silent
        } else if now >= self.sent_at + self.keepalive {
            self.sent_at = now;
            self.keepalive = next_keepalive(self.padding.as_ref());
            Expired::Keepalive
        } else {
            Expired::Nothing
        };
        self.reset();
        expired
    }

    fn reset(&mut self) {
        let end = self.close_at.unwrap_or(self.received_at + DEAD_AFTER);
        self.sleep
            .as_mut()
            .reset(end.min(self.sent_at + self.keepalive));
    }
}

/// With padding, the greater of two draws: then the time since the last cell says least
/// (docs/protocol.md §2.6).
fn next_keepalive(padding: Option<&Padding>) -> Duration {
    let draw = |range: &Padding| rand::rng().random_range(range.clone());
    padding.map_or(KEEPALIVE, |range| draw(range).max(draw(range)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_comes_at_random_moments_of_its_range() {
        let range = Duration::from_millis(1500)..=Duration::from_millis(9500);
        let draws: Vec<_> = (0..100).map(|_| next_keepalive(Some(&range))).collect();
        assert!(draws.iter().all(|draw| range.contains(draw)));
        assert!(draws.iter().any(|draw| draw != &draws[0]));
        assert_eq!(next_keepalive(None), KEEPALIVE);
    }
}
