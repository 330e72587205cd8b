//! Waiting times: drawn at random, so that moments tell nothing, and growing with each failure
//! (docs/protocol.md §6.4).

use std::collections::BTreeMap;

use crate::ids::RelayId;
use crate::limits::WAIT_CUT;
use crate::network::Params;
use crate::time::{Duration, Instant};
use rand::{CryptoRng, RngExt};

/// A draw from the exponential distribution with this mean, cut off at [`WAIT_CUT`] times it.
pub fn exponential(mean: Duration, rng: &mut dyn CryptoRng) -> Duration {
    let share: f64 = rng.random_range(0.0..1.0);
    mean.mul_f64((-(1.0 - share).ln()).clamp(0.0, f64::from(WAIT_CUT)))
}

/// A uniform draw between the two.
pub fn between(least: Duration, most: Duration, rng: &mut dyn CryptoRng) -> Duration {
    let share: f64 = rng.random_range(0.0..1.0);
    least + most.saturating_sub(least).mul_f64(share)
}

/// Puts `items` into a random order.
pub fn shuffle<T>(items: &mut [T], rng: &mut dyn CryptoRng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.random_range(0..=last));
    }
}

/// When to try again what has failed: after `retry_base` at first, twice as long each time, up to
/// `retry_max`; of each wait a random part up to half is taken off.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
    retry_at: Instant,
}

impl Backoff {
    /// Nothing failed yet.
    pub const fn new() -> Self {
        Self {
            failures: 0,
            retry_at: Instant::from_micros(0),
        }
    }

    /// Counts a failure; returns the wait that follows.
    pub fn fail(&mut self, params: &Params, now: Instant, rng: &mut dyn CryptoRng) -> Duration {
        let factor = 1_u32 << self.failures.min(20);
        let most = params
            .retry_base
            .saturating_mul(factor)
            .min(params.retry_max);
        self.failures = self.failures.saturating_add(1);
        let wait = between(most / 2, most, rng);
        self.retry_at = now + wait;
        wait
    }

    /// The state after `failures` failures, with the next try due at `retry_at`.
    pub const fn resumed(failures: u32, retry_at: Instant) -> Self {
        Self { failures, retry_at }
    }

    /// Lets the next try be no later than this.
    pub fn retry_by(&mut self, at: Instant) {
        self.retry_at = self.retry_at.min(at);
    }

    /// Forgets all failures.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Lets the next try be now, without forgetting failures.
    pub fn hurry(&mut self) {
        self.retry_at = Instant::default();
    }

    /// How often it failed since it last worked.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// When the next try is due.
    pub const fn retry_at(&self) -> Instant {
        self.retry_at
    }

    /// Whether the next try is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.retry_at <= now
    }
}

/// Sees to it that a further relay may rest where `most` are remembered; one that rests already has
/// its place. The one whose rest ends first is forgotten, and returned.
pub fn make_room(
    rests: &mut BTreeMap<RelayId, Backoff>,
    most: usize,
    relay: RelayId,
) -> Option<RelayId> {
    if rests.len() < most || rests.contains_key(&relay) {
        return None;
    }
    let (&first, _) = rests.iter().min_by_key(|(_, rest)| rest.retry_at())?;
    rests.remove(&first);
    Some(first)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::*;
    use crate::network::Network;

    #[test] // §6.4(4)
    fn waits_grow_with_each_failure_up_to_the_longest() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let params = Network::local().params;
        let now = Instant::from_micros(5);
        let mut backoff = Backoff::default();
        assert!(backoff.is_due(now));
        for round in 0..40 {
            let wait = backoff.fail(&params, now, &mut rng);
            let most = params
                .retry_base
                .saturating_mul(1 << round.min(20))
                .min(params.retry_max);
            assert!(wait >= most / 2 && wait <= most, "{round}: {wait:?}");
            assert!(!backoff.is_due(now) && backoff.is_due(now + wait));
        }
        backoff.reset();
        assert_eq!(backoff.failures(), 0);
    }

    #[test]
    fn draws_keep_to_their_bounds_and_their_mean() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mean = Duration::from_secs(60);
        let draws: Vec<Duration> = (0..4000).map(|_| exponential(mean, &mut rng)).collect();
        let sum: Duration = draws.iter().sum();
        assert!(sum / 4000 > mean * 9 / 10 && sum / 4000 < mean * 11 / 10);
        assert!(draws.iter().all(|&draw| draw <= mean * 8));
        assert_eq!(exponential(Duration::ZERO, &mut rng), Duration::ZERO);
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(2));
        assert!(
            (0..1000)
                .map(|_| between(least, most, &mut rng))
                .all(|draw| draw >= least && draw <= most)
        );
    }
}
