//! The one place where the client reads clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use umbel_proto::time::{Duration, Instant, Moment, WallTime};

/// The monotonic clock as the core sees it, counted from when the client was opened; and the
/// calendar.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started_at: tokio::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self {
            started_at: tokio::time::Instant::now(),
        }
    }

    /// Now.
    pub(crate) fn now(self) -> Instant {
        Instant::from_micros(
            u64::try_from(self.started_at.elapsed().as_micros()).unwrap_or(u64::MAX),
        )
    }

    /// Both clocks, read once.
    pub(crate) fn moment(self) -> Moment {
        Moment {
            now: self.now(),
            wall: Self::wall(),
        }
    }

    /// When the runtime has to wake up for `at`.
    pub(crate) fn at(self, at: Instant) -> tokio::time::Instant {
        self.started_at + Duration::from_micros(at.as_micros())
    }

    /// Calendar time.
    pub fn wall() -> WallTime {
        WallTime(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
        )
    }
}
