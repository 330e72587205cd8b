//! A rate with a burst: a generic cell rate algorithm (ITU-T I.371) on the time given.

use super::{Duration, Instant};

/// How often something may happen: once an interval in the long run, and some more at once after a
/// pause.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Until when what has happened is paid for.
    paid_until: Instant,
    interval: Duration,
    /// How far ahead of `now` that may lie.
    tolerance: Duration,
}

impl Rate {
    /// Once an interval, and `burst` more at once; all of the burst is there from the start.
    pub const fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self {
            paid_until: now,
            interval,
            tolerance: interval.saturating_mul(burst),
        }
    }

    /// When it may happen next, a past moment included.
    pub fn next_at(&self) -> Instant {
        let tolerance = u64::try_from(self.tolerance.as_micros()).unwrap_or(u64::MAX);
        Instant::from_micros(self.paid_until.as_micros().saturating_sub(tolerance))
    }

    /// Whether all of the burst is there.
    pub fn is_whole(&self, now: Instant) -> bool {
        self.paid_until <= now
    }

    /// It happens now, whether or not it may.
    pub fn take(&mut self, now: Instant) {
        self.take_times(1, now);
    }

    /// It happens so many times now, whether or not it may.
    pub fn take_times(&mut self, count: u32, now: Instant) {
        self.paid_until = self.paid_until.max(now) + self.interval.saturating_mul(count);
    }

    /// Whether it may happen now; then it does.
    pub fn try_take(&mut self, now: Instant) -> bool {
        let may = self.next_at() <= now;
        if may {
            self.take(now);
        }
        may
    }

    /// Nothing is left of the burst.
    pub fn empty(&mut self, now: Instant) {
        self.paid_until = self.paid_until.max(now + self.tolerance + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test] // §5.4(1)
    fn a_burst_is_admitted_then_only_the_rate() {
        let now = Instant::from_micros(5);
        let mut rate = Rate::new(INTERVAL, 4, now);
        assert_eq!((0..10).filter(|_| rate.try_take(now)).count(), 5);
        assert!(!rate.try_take(now + Duration::from_millis(99)));
        assert_eq!(rate.next_at(), now + INTERVAL);
        assert!(rate.try_take(now + Duration::from_millis(101)));
        assert!(!rate.try_take(now + Duration::from_millis(102)));
    }

    #[test] // §6.4(4)
    fn an_emptied_rate_begins_again_with_its_interval() {
        let now = Instant::from_micros(5);
        let mut rate = Rate::new(INTERVAL, 4, now);
        rate.empty(now);
        assert_eq!(rate.next_at(), now + INTERVAL);
        assert!(!rate.try_take(now));
        assert!(rate.try_take(now + INTERVAL));
        assert!(!rate.try_take(now + INTERVAL));
    }
}
