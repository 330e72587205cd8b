//! Peers' clocks, compared with one's own. Nobody's clock decides anything here:
//! the caller that compares them does.

use super::{Duration, Instant, WallTime};

/// A peer's clock at one moment. Kept as its distance from the monotonic clock here,
/// which no jump of the calendar here changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerClock {
    /// Seconds by which it was ahead of the monotonic clock.
    ahead: i64,
}

impl PeerClock {
    /// A peer's clock said `calendar` at `now`.
    pub fn said(now: Instant, calendar: WallTime) -> Self {
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        Self {
            ahead: seconds(calendar.as_secs()).saturating_sub(seconds(now.as_micros() / 1_000_000)),
        }
    }

    /// How far peers' clocks are ahead of this calendar, seconds: the median; of two in the middle
    /// the one nearer to zero, and zero where they disagree about the direction. `None` without
    /// peers.
    pub fn median_ahead(
        peers: impl IntoIterator<Item = Self>,
        now: Instant,
        wall: WallTime,
    ) -> Option<i64> {
        let own = Self::said(now, wall);
        let mut aheads: Vec<i64> = peers
            .into_iter()
            .map(|peer| peer.ahead.saturating_sub(own.ahead))
            .collect();
        aheads.sort_unstable();
        let (upper, lower) = (
            *aheads.get(aheads.len() / 2)?,
            *aheads.get((aheads.len() - 1) / 2)?,
        );
        let nearer = if upper.unsigned_abs() < lower.unsigned_abs() {
            upper
        } else {
            lower
        };
        Some(if upper.signum() == lower.signum() {
            nearer
        } else {
            0
        })
    }

    /// How many of these clocks are within `tolerance` of this calendar, and how many there are.
    /// Unlike [`median_ahead`](Self::median_ahead), this never takes two clocks wrong in opposite
    /// directions for agreement.
    pub fn agreeing(
        peers: impl IntoIterator<Item = Self>,
        now: Instant,
        wall: WallTime,
        tolerance: Duration,
    ) -> (usize, usize) {
        let own = Self::said(now, wall);
        let is_near =
            |peer: Self| peer.ahead.saturating_sub(own.ahead).unsigned_abs() <= tolerance.as_secs();
        peers.into_iter().fold((0, 0), |(near, all), peer| {
            (near + usize::from(is_near(peer)), all + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_micros(7_000_000);
    const WALL: WallTime = WallTime(1_790_000_000);

    fn median(offsets: &[i64]) -> Option<i64> {
        let said =
            |offset: &i64| PeerClock::said(NOW, WallTime(WALL.0.saturating_add_signed(*offset)));
        PeerClock::median_ahead(offsets.iter().map(said), NOW, WALL)
    }

    #[test]
    fn two_that_disagree_accuse_nobody() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[-9]), Some(-9));
        assert_eq!(
            (median(&[5, 9]), median(&[-5, -9])),
            (Some(5), Some(-5)),
            "the one nearer to zero"
        );
        assert_eq!((median(&[-5, 9]), median(&[0, 9])), (Some(0), Some(0)));
        assert_eq!(
            (median(&[9, -1000, 5]), median(&[1, 2, 3, 4])),
            (Some(5), Some(2))
        );
    }

    #[test]
    fn two_that_disagree_about_the_direction_do_not_agree_with_this_clock() {
        let agreeing = |offsets: &[i64]| {
            let said = |offset: &i64| {
                PeerClock::said(NOW, WallTime(WALL.0.saturating_add_signed(*offset)))
            };
            PeerClock::agreeing(offsets.iter().map(said), NOW, WALL, Duration::from_secs(60))
        };
        assert_eq!((agreeing(&[]), agreeing(&[-900, 900])), ((0, 0), (0, 2)));
        assert_eq!(
            (agreeing(&[-60, 60, 61]), agreeing(&[i64::MAX, 0])),
            ((2, 3), (1, 2))
        );
    }

    #[test]
    fn a_jump_of_ones_own_calendar_shows_and_time_that_passes_does_not() {
        let peers = [PeerClock::said(NOW, WALL); 3];
        let (later, hour) = (NOW + Duration::from_secs(3600), Duration::from_secs(3600));
        assert_eq!(PeerClock::median_ahead(peers, later, WALL + hour), Some(0));
        assert_eq!(
            PeerClock::median_ahead(peers, later, WALL + hour * 2),
            Some(-3600)
        );
    }

    #[test]
    fn clocks_that_say_anything_at_all_are_compared() {
        let peers = [0, u64::MAX, u64::MAX].map(|said| PeerClock::said(NOW, WallTime(said)));
        assert!(PeerClock::median_ahead(peers, NOW, WALL).is_some_and(|ahead| ahead > 0));
    }
}
