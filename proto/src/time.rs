//! Time as the cores see it: given, never asked for.

mod clock_guard;
mod due;
mod peer_clock;
mod rate;
mod words;

pub use core::time::Duration;

pub use clock_guard::{ClockGuard, ClockJump};
pub use due::Due;
pub use peer_clock::PeerClock;
pub use rate::Rate;
use serde::{Deserialize, Serialize};
pub use words::{in_words, rfc3339};

use crate::limits::EPOCH_LEN;

/// A point on the caller's monotonic clock, in microseconds from an arbitrary start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The point `micros` microseconds after the clock's start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

/// Calendar time: seconds since the Unix epoch. Precise to an hour wherever another party sees it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct WallTime(pub u64);

impl WallTime {
    /// Seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// This time, cut to the hour.
    #[must_use]
    pub const fn to_hour(self) -> Self {
        Self(self.0 - self.0 % 3600)
    }

    /// The time so long before.
    #[must_use]
    pub const fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by.as_secs()))
    }

    /// The epoch this time lies in (docs/protocol.md §9.2(1)).
    pub const fn epoch(self) -> Epoch {
        Epoch(self.0 / EPOCH_LEN.as_secs())
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs.as_secs()))
    }
}

/// One reading of a node's clocks: all that a call does is done at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment {
    /// By the monotonic clock: timeouts go by it.
    pub now: Instant,
    /// By the calendar: validity goes by it.
    pub wall: WallTime,
}

impl Moment {
    /// What the calendar of now says of an earlier time of the monotonic clock.
    pub const fn wall_at(self, earlier: Instant) -> WallTime {
        let ago = self.now.since(earlier).as_secs();
        WallTime(self.wall.as_secs().saturating_sub(ago))
    }
}

/// The period an inbox's blinded key is valid for: a week, numbered from the Unix epoch
/// (docs/protocol.md §9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// When the epoch begins.
    pub const fn starts_at(self) -> WallTime {
        WallTime(self.0.saturating_mul(EPOCH_LEN.as_secs()))
    }
}
