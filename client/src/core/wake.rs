//! Notices that the machine slept: its links may then be dead without a sign.
//!
//! Two things show it: something is done long after it was due, or the calendar advanced while the
//! monotonic clock stood still, as Linux's does while the machine is suspended.

use umbel_proto::limits::MACHINE_SLEEP_MIN;
use umbel_proto::time::{Instant, Moment};

/// When anything was last done.
#[derive(Debug)]
pub(super) struct Wake {
    seen_at: Moment,
}

impl Wake {
    pub(super) const fn new(moment: Moment) -> Self {
        Self { seen_at: moment }
    }

    /// Whether so much time has passed that it matters what was due.
    pub(super) fn is_gap(&self, now: Instant) -> bool {
        now.since(self.seen_at.now) > MACHINE_SLEEP_MIN
    }

    /// Notes that something is done at `moment`. Whether the machine slept since the last time, when
    /// the next thing to do was due at `due_at`.
    pub(super) fn has_slept(&mut self, moment: Moment, due_at: Option<Instant>) -> bool {
        let seen_at = core::mem::replace(&mut self.seen_at, moment);
        let passed = moment.now.since(seen_at.now);
        let by_calendar = moment.wall.since(seen_at.wall);
        let is_late = due_at.is_some_and(|due_at| due_at + MACHINE_SLEEP_MIN < moment.now);
        is_late || by_calendar > passed + MACHINE_SLEEP_MIN
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::time::{Duration, WallTime};

    use super::*;

    fn at(seconds: u64, by_calendar: u64) -> Moment {
        Moment {
            now: Instant::default() + Duration::from_secs(seconds),
            wall: WallTime(by_calendar),
        }
    }

    fn after(seconds: u64, by_calendar: u64, due: Option<u64>) -> bool {
        let mut wake = Wake::new(at(100, 5000));
        let due_at = due.map(|due| at(100 + due, 0).now);
        wake.has_slept(at(100 + seconds, 5000 + by_calendar), due_at)
    }

    #[test]
    fn what_is_done_much_too_late_is_sleep() {
        assert!(!after(60, 60, Some(60)));
        assert!(!after(60, 60, Some(52)), "that is load");
        assert!(after(60, 60, Some(5)));
    }

    #[test]
    fn a_calendar_ahead_of_the_other_clock_is_sleep() {
        assert!(after(1, 600, None));
        assert!(!after(1, 8, None), "a clock is set right");
        assert!(!after(1, 0, None) && !Wake::new(at(0, 9)).has_slept(at(0, 3), None));
    }
}
