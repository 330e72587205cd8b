//! Noticing that the machine slept: links may be dead then, and nobody says so.
//!
//! Two signs: something is done much later than it was due, or the calendar went on while the
//! monotonic clock stood still, as Linux's does while the machine is suspended.

use umbel_proto::limits::MACHINE_SLEEP_MIN;
use umbel_proto::time::{Instant, WallTime};

/// When anything was last done.
#[derive(Debug)]
pub(super) struct Wake {
    seen_at: Instant,
    seen_wall: WallTime,
}

impl Wake {
    pub(super) const fn new(now: Instant, wall: WallTime) -> Self {
        Self {
            seen_at: now,
            seen_wall: wall,
        }
    }

    /// Whether so much time has passed that it matters what was due.
    pub(super) fn is_gap(&self, now: Instant) -> bool {
        now.since(self.seen_at) > MACHINE_SLEEP_MIN
    }

    /// Something is done now; whether the machine slept since the last time, when what was to be
    /// done next was due at `due_at`.
    pub(super) fn has_slept(
        &mut self,
        now: Instant,
        wall: WallTime,
        due_at: Option<Instant>,
    ) -> bool {
        let (passed, by_calendar) = (now.since(self.seen_at), wall.since(self.seen_wall));
        let is_late = due_at.is_some_and(|due_at| due_at + MACHINE_SLEEP_MIN < now);
        (self.seen_at, self.seen_wall) = (now, wall);
        is_late || by_calendar > passed + MACHINE_SLEEP_MIN
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::time::Duration;

    use super::*;

    fn after(seconds: u64, by_calendar: u64, due: Option<u64>) -> bool {
        let at = |seconds| Instant::default() + Duration::from_secs(seconds);
        let mut wake = Wake::new(at(100), WallTime(5000));
        wake.has_slept(
            at(100 + seconds),
            WallTime(5000 + by_calendar),
            due.map(|due| at(100 + due)),
        )
    }

    #[test]
    fn what_is_done_much_too_late_is_sleep() {
        assert!(!after(60, 60, Some(60)));
        assert!(!after(60, 60, Some(52)), "that is load");
        assert!(after(60, 60, Some(5)));
    }

    #[test]
    fn a_calendar_that_goes_on_without_the_other_clock_is_sleep() {
        assert!(after(1, 600, None));
        assert!(!after(1, 8, None), "a clock is set right");
        assert!(
            !after(1, 0, None)
                && !Wake::new(Instant::default(), WallTime(9)).has_slept(
                    Instant::default(),
                    WallTime(3),
                    None
                )
        );
    }
}
