//! Log lines that may come often: said at once, then at most once an interval, with how often they came.

use std::time::Duration;

/// How often a line is repeated, where nothing else is said.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// One line of the log. Time is whatever its owner counts from: a fixed moment of the monotonic clock.
#[derive(Debug)]
pub(crate) struct Repeated {
    interval: Duration,
    said_at: Option<Duration>,
    unsaid: u64,
}

impl Repeated {
    /// A line that has not come yet.
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { interval, said_at: None, unsaid: 0 }
    }

    /// It comes once more. `Some` if it is to be said now, with how often it came since it was last said, this time not counted.
    pub(crate) fn come(&mut self, now: Duration) -> Option<u64> {
        let is_due = self.said_at.is_none_or(|said_at| now.saturating_sub(said_at) >= self.interval);
        if !is_due {
            self.unsaid += 1;
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_at_once_and_then_summed() {
        let mut line = Repeated::new(MINUTE);
        let seconds = Duration::from_secs;
        assert_eq!(line.come(seconds(5)), Some(0));
        assert!((6..65).all(|second| line.come(seconds(second)).is_none()));
        assert_eq!(line.come(seconds(65)), Some(59));
        assert_eq!(line.come(seconds(66)), None);
        assert_eq!(line.come(seconds(10_000)), Some(1));
    }
}
