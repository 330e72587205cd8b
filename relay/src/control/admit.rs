//! Admission of handshakes: so many a second on each link, before any public-key work (docs/protocol.md §5.4).

use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Instant};

/// Admits creates at a rate, with a burst: a generic cell rate algorithm on the time given.
#[derive(Debug, Clone, Copy)]
pub(super) struct CreateLimit {
    /// When the bucket will be empty of debt.
    paid_until: Instant,
    interval: Duration,
    tolerance: Duration,
}

impl CreateLimit {
    pub(super) fn new(params: &Params, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / params.creates_per_second.max(1);
        Self { paid_until: now, interval, tolerance: interval * params.creates_burst }
    }

    /// Whether one more is admitted now.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let start = self.paid_until.max(now);
        if start.since(now) > self.tolerance {
            return false;
        }
        self.paid_until = start + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // §5.4
    fn a_burst_is_admitted_then_only_the_rate() {
        let now = Instant::from_micros(5);
        let interval = Duration::from_millis(100);
        let mut limit = CreateLimit { paid_until: now, interval, tolerance: interval * 4 };
        assert_eq!((0..10).filter(|_| limit.admit(now)).count(), 5);
        assert!(!limit.admit(now + Duration::from_millis(99)));
        assert!(limit.admit(now + Duration::from_millis(101)));
        assert!(!limit.admit(now + Duration::from_millis(102)));
    }
}
