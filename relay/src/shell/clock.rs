//! The one place where a shell reads the clocks: cores get both times with every input
//! (docs/protocol.md §1.6).

use std::time::{SystemTime, UNIX_EPOCH};

use umbel_proto::time::{Duration, Instant, Moment, WallTime};

/// The monotonic clock as a core sees it, counted from when its node was started; and the calendar.
/// The one place where they are read.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started_at: tokio::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            started_at: tokio::time::Instant::now(),
        }
    }

    /// The time since its start.
    pub fn now(self) -> Instant {
        Instant::from_micros(
            u64::try_from(self.started_at.elapsed().as_micros()).unwrap_or(u64::MAX),
        )
    }

    /// Both clocks, read once.
    pub fn moment(self) -> Moment {
        Moment {
            now: self.now(),
            wall: Self::wall(),
        }
    }

    /// When the runtime has to wake up for `at`.
    pub fn at(self, at: Instant) -> tokio::time::Instant {
        // A timer farther than this never fires in practice; capped, since the runtime's clock
        // could overflow.
        let micros = at.as_micros().min(u64::from(u32::MAX) * 1_000_000);
        self.started_at + Duration::from_micros(micros)
    }

    /// Calendar time.
    pub fn wall() -> WallTime {
        WallTime(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        )
    }
}
