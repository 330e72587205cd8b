//! Admission of handshakes: a rate limit on each link, before any public-key work
//! (docs/protocol.md §5.4(1)).

use umbel_proto::limits::RELAY_CREATES_FACTOR;
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Instant};

/// Admits creates at a rate, with a burst: a generic cell rate algorithm on the time given.
#[derive(Debug, Clone, Copy)]
pub(super) struct CreateLimit {
    /// When all admitted creates are paid for.
    paid_until: Instant,
    interval: Duration,
    tolerance: Duration,
}

impl CreateLimit {
    /// The limit of a link to a client, or to a relay of the view.
    pub(super) fn new(params: &Params, is_known_relay: bool, now: Instant) -> Self {
        let factor = if is_known_relay {
            RELAY_CREATES_FACTOR
        } else {
            1
        };
        let interval =
            Duration::from_secs(1) / params.creates_per_second.saturating_mul(factor).max(1);
        let burst = params.creates_burst.saturating_mul(factor);
        Self {
            paid_until: now,
            interval,
            tolerance: interval.saturating_mul(burst),
        }
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

    #[test] // §5.4(1)
    fn a_relay_of_the_view_is_admitted_more_often_than_a_client() {
        let now = Instant::from_micros(5);
        let admitted = |is_known_relay| {
            let mut limit = CreateLimit::new(&Params::DEFAULT, is_known_relay, now);
            (0..100_000).take_while(|_| limit.admit(now)).count()
        };
        assert_eq!((admitted(false), admitted(true)), (91, 90 * 64 + 1));
    }

    #[test] // §5.4(1)
    fn a_burst_is_admitted_then_only_the_rate() {
        let now = Instant::from_micros(5);
        let interval = Duration::from_millis(100);
        let mut limit = CreateLimit {
            paid_until: now,
            interval,
            tolerance: interval * 4,
        };
        assert_eq!((0..10).filter(|_| limit.admit(now)).count(), 5);
        assert!(!limit.admit(now + Duration::from_millis(99)));
        assert!(limit.admit(now + Duration::from_millis(101)));
        assert!(!limit.admit(now + Duration::from_millis(102)));
    }
}
