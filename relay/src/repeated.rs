//! Log lines that may come often: written at once, then at most once an interval, with a count.

use std::time::Duration;

/// How often a line is repeated, unless stated otherwise.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// How often a line is repeated that stays true until its operator acts.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// One line of the log. Time is whatever its owner counts from: a fixed moment of the monotonic
/// clock.
#[derive(Debug)]
pub(crate) struct Repeated {
    interval: Duration,
    said_at: Option<Duration>,
    unsaid: u64,
}

impl Repeated {
    /// A line that has not come yet.
    pub(crate) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            said_at: None,
            unsaid: 0,
        }
    }

    /// The event occurred again. `Some` if it is time to log it, with the line's field `repeated`:
    /// how often it occurred since the last line, this time not counted, if it did.
    pub(crate) fn come(&mut self, now: Duration) -> Option<Option<u64>> {
        if !self.is_due(now) {
            self.unsaid += 1;
            return None;
        }
        self.said_at = Some(now);
        let repeated = std::mem::take(&mut self.unsaid);
        Some((repeated > 0).then_some(repeated))
    }

    fn is_due(&self, now: Duration) -> bool {
        self.said_at
            .is_none_or(|said_at| now.saturating_sub(said_at) >= self.interval)
    }

    /// How often it came since it was last said, once an interval is over in which it might have
    /// been said again. For lines that have stopped coming: their last sum would never be said.
    pub(crate) fn rest(&mut self, now: Duration) -> Option<u64> {
        if self.unsaid > 0 && self.is_due(now) {
            self.come(now).flatten()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logged_at_once_and_then_summed() {
        let mut line = Repeated::new(MINUTE);
        let seconds = Duration::from_secs;
        assert_eq!(line.come(seconds(5)), Some(None), "no field that says 0");
        assert!((6..65).all(|second| line.come(seconds(second)).is_none()));
        assert_eq!(line.come(seconds(65)), Some(Some(59)));
        assert_eq!(line.come(seconds(66)), None);
        assert_eq!(line.come(seconds(10_000)), Some(Some(1)));
    }

    #[test]
    fn the_last_sum_of_a_line_that_stopped_is_logged_once() {
        let mut line = Repeated::new(MINUTE);
        let seconds = Duration::from_secs;
        assert_eq!(line.rest(seconds(4)), None, "it never came");
        assert_eq!(line.come(seconds(5)), Some(None));
        assert_eq!(line.rest(seconds(500)), None, "all was said");
        assert!((501..504).all(|second| line.come(seconds(second)).is_none() == (second > 501)));
        assert_eq!(line.rest(seconds(560)), None, "it may still come");
        assert_eq!(line.rest(seconds(561)), Some(2));
        assert_eq!(line.rest(seconds(9999)), None);
    }
}
